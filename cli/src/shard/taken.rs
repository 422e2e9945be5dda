//! Drives that shards of a size class have taken: a file each, made exclusively, on a file system that several hosts share.
//! The first that makes it has the drive; a shard that resumes finds its drive by it.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use dray_engine::api;
use dray_engine::report::{DriveFacts, Problems};
use serde_json::{Value, json};

use super::lock::host_name;

/// Directory of the files.
const DIR: &str = "taken";
/// Longest file that is read.
const LEN_MAX: u64 = 64 << 10;

/// A drive that a shard has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Number of the shard.
    pub number: u64,
    /// Drive id.
    pub drive_id: String,
    /// Serial, where the drive has one.
    pub serial: Option<String>,
    /// Name by which the drive was found: `serial:…`, or a path.
    pub name: String,
    /// Host that has the drive.
    pub host: String,
    /// Bytes of the drive.
    pub size: u64,
    /// Whether it is an image file.
    pub is_image: bool,
    /// Journal of the shard, as that host named it; `None` in files of versions that did not say.
    pub journal: Option<PathBuf>,
}

fn path_of(dir: &Path, drive_id: &str) -> PathBuf {
    dir.join(DIR).join(format!("{drive_id}.json"))
}

impl Taken {
    /// The drive, for a shard of this host whose journal is, or will be, at `journal`.
    pub fn new(number: u64, drive: &DriveFacts, journal: &Path) -> Self {
        Self {
            journal: Some(std::path::absolute(journal).unwrap_or_else(|_| journal.to_path_buf())),
            number,
            drive_id: drive.drive_id.clone(),
            serial: drive.serial.clone(),
            name: drive.name.clone(),
            host: host_name(),
            size: drive.size.0,
            is_image: drive.is_image,
        }
    }

    /// Every drive that was taken. A file that cannot be understood keeps its drive from being taken, and names no shard.
    pub fn all(dir: &Path) -> Vec<Self> {
        let entries = fs::read_dir(dir.join(DIR)).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "json"));
        paths.filter_map(|path| Self::read(&path)).collect()
    }

    fn read(path: &Path) -> Option<Self> {
        let bytes = api::host::read_input(path, LEN_MAX, api::host::Pipes::Refused).ok()?;
        let value: Value = serde_json::from_slice(&bytes).ok()?;
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        Some(Self {
            number: value["index"].as_u64()?,
            drive_id: text("drive_id")?,
            serial: text("serial"),
            name: text("name")?,
            host: text("host")?,
            size: value["size"].as_u64()?,
            is_image: value["image"].as_bool()?,
            journal: text("journal").map(PathBuf::from),
        })
    }

    fn json(&self) -> Value {
        json!({
            "index": self.number, "drive_id": self.drive_id, "serial": self.serial, "name": self.name,
            "host": self.host, "size": self.size, "image": self.is_image, "journal": self.journal,
        })
    }

    /// The drive that a shard has taken.
    pub fn of(dir: &Path, number: u64) -> Option<Self> {
        Self::all(dir).into_iter().find(|one| one.number == number)
    }

    /// The drive is at this host from now on, with the shard's journal at `journal`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn move_here(&self, dir: &Path, journal: &Path) -> Result<(), Problems> {
        let journal = std::path::absolute(journal).unwrap_or_else(|_| journal.to_path_buf());
        let moved = Self { host: host_name(), journal: Some(journal), ..self.clone() };
        api::records::write_private(&path_of(dir, &self.drive_id), format!("{}\n", moved.json()).as_bytes())
    }

    /// Takes the drive; `false` if another shard has it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn take(&self, dir: &Path) -> io::Result<bool> {
        let home = dir.join(DIR);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&home)?;
        let (path, draft) = (path_of(dir, &self.drive_id), home.join(format!("{:04}.draft", self.number)));
        let value = self.json();
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(format!("{value}\n").as_bytes())?;
        file.sync_all()?;
        // A link is made whole or not at all, and never over a name that exists.
        let linked = fs::hard_link(&draft, &path);
        let _ = fs::remove_file(&draft);
        match linked {
            Ok(()) => {
                fs::File::open(&home)?.sync_all()?;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Ok(Self::read(&path).is_some_and(|holder| holder.number == self.number))
            }
            Err(error) => Err(error),
        }
    }

    /// Gives the drive back, on which nothing was begun.
    pub fn give_back(&self, dir: &Path) {
        let path = path_of(dir, &self.drive_id);
        if Self::read(&path).is_some_and(|holder| holder.number == self.number) {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drive_goes_to_one_shard() {
        let dir = std::env::temp_dir().join(format!("dray-taken-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let facts = DriveFacts { drive_id: "WD-1".into(), name: "serial:WD-1".into(), ..DriveFacts::default() };
        let [first, second] = [0, 1].map(|number| Taken::new(number, &facts, Path::new("/srv/shard.jrn")));
        assert!(first.take(&dir).expect("a directory"));
        assert!(first.take(&dir).expect("a directory"), "its own already");
        assert!(!second.take(&dir).expect("a directory"));
        second.give_back(&dir);
        assert_eq!(Taken::all(&dir), std::slice::from_ref(&first));
        first.give_back(&dir);
        assert!(second.take(&dir).expect("free again"));
        assert_eq!(Taken::all(&dir), [second]);
        // Cut off in the middle, on a file system without links: the drive stays as it is until a person looks.
        fs::write(path_of(&dir, "WD-2"), "{").expect("a file");
        let other = Taken { drive_id: "WD-2".into(), ..first };
        assert!(!other.take(&dir).expect("a directory"));
        // It is taken to another host, and stays its shard's.
        let far = Taken { host: "far-away".into(), drive_id: "WD-3".into(), ..other };
        assert!(far.take(&dir).expect("free"));
        far.move_here(&dir, Path::new("/here/shard.jrn")).expect("written");
        let moved = Taken::of(&dir, far.number).expect("taken");
        assert_eq!((moved.host, moved.journal), (host_name(), Some("/here/shard.jrn".into())));
        let _ = fs::remove_dir_all(&dir);
    }
}
