//! A copy of each drive's manifest next to the journal: read from the drive itself when it is done, so that what was sent
//! is known when the drive is gone.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::hash::Md5;
use crate::journal::files::sync_dir;
use crate::ntfs::append::root_stream;
use crate::report::{DriveFacts, Kind, Problem};
use crate::volume::files;
use crate::volume::find::{Opened, View};

/// Bytes that are copied at once.
const CHUNK: usize = 1 << 20;

/// Path of the copy.
pub fn place(journal: &Path, drive_id: &str) -> PathBuf {
    journal.with_file_name(format!("{drive_id}.manifest.xml"))
}

/// Copies the manifest called `name` in the root of a volume that is open; `md5` is that of the bytes that were written.
///
/// # Errors
/// A manifest that is another than was written; a copy that cannot be made.
pub fn keep_manifest(
    opened: &Opened,
    name: &str,
    facts: &DriveFacts,
    journal: &Path,
    md5: &[u8; 16],
) -> Result<PathBuf, Problem> {
    let path = place(journal, &facts.drive_id);
    let found = copy(opened, name, &path).map_err(|error| {
        Problem::new(Kind::Environment, format!("the manifest cannot be copied next to the journal: {error}"))
            .drive(&facts.name)
            .path(&path)
    })?;
    if found != *md5 {
        let _ = fs::remove_file(&path);
        let problem = Problem::new(Kind::Different, "the manifest that was read back is not what was written");
        return Err(problem.drive(&facts.name).advice("the drive must not be sent: replace it, and start again"));
    }
    Ok(path)
}

fn copy(opened: &Opened, name: &str, path: &Path) -> io::Result<[u8; 16]> {
    let text = |error: &dyn std::fmt::Display| io::Error::other(error.to_string());
    let volume = files::ntfs(opened).map_err(|problem| text(&problem))?;
    let name16: Vec<u16> = name.encode_utf16().collect();
    let stream = root_stream(&volume, &mut View(opened), &name16).map_err(|error| text(&error))?;
    let mut reader = files::FileReader::of(opened, &volume, stream.ok_or(io::ErrorKind::NotFound)?);
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let new = path.with_file_name(name);
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let (mut hash, mut chunk) = (Md5::new(), vec![0; CHUNK]);
    loop {
        let len = reader.read(&mut chunk)?;
        if len == 0 {
            break;
        }
        hash.update(&chunk[..len]);
        file.write_all(&chunk[..len])?;
    }
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_dir(path)?;
    Ok(hash.finish())
}
