//! Repair of an exported drive: what is wrong on it is fetched again, from the account or from a second copy.
//!
//! The engine finds the damaged blocks and writes into the files' own extents; here the right bytes come from. Whatever the
//! source gives counts only with the manifest's hash.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use dray_account::{Account, Condition};
use dray_engine::api::host::{Pipes, open_input};
use dray_engine::api::image::repair::Claimed;
use dray_engine::api::prepare::Stop;
use dray_engine::api::verify::Damaged;
use dray_engine::report::{Advice, Kind, Problem, Setting};

/// First word of a repair file, and its version.
const MARK: &str = "dray-repair 1";

/// Longest repair file that is read.
const LEN_MAX: u64 = 1 << 30;

/// Source of the right bytes.
#[derive(Debug)]
pub enum Source {
    /// A directory with the files of the drive, by their paths on it or by the names of their blobs.
    Copy(PathBuf),
    /// The account that they were exported from.
    Account(Box<Account>),
}

/// Fetches blocks.
#[derive(Debug)]
pub struct Fetcher<'a> {
    source: &'a Source,
    stop: &'a Stop,
    /// ETags of the account's blobs, so that all blocks of a blob are of one state of it.
    etags: HashMap<(String, Option<String>), String>,
}

impl<'a> Fetcher<'a> {
    /// A fetcher that ends with `stop`.
    pub fn new(source: &'a Source, stop: &'a Stop) -> Self {
        Self { source, stop, etags: HashMap::new() }
    }

    /// Fills `out` with the bytes of a block.
    ///
    /// # Errors
    /// The source does not have them; [`Kind::Interrupted`].
    pub fn fetch(&mut self, one: &Damaged, out: &mut [u8]) -> Result<(), Problem> {
        if self.stop.requested() {
            return Err(Problem::new(Kind::Interrupted, "stopped on request"));
        }
        match self.source {
            Source::Copy(dir) => read_copy(dir, one, out),
            Source::Account(account) => self.read_account(account, one, out),
        }
    }

    fn read_account(&mut self, account: &Account, one: &Damaged, out: &mut [u8]) -> Result<(), Problem> {
        if !one.is_content {
            let problem = Problem::new(Kind::Source, "metadata and properties files are not in the account");
            return Err(problem
                .value(&one.file)
                .advice(Advice::from("repair them from a second copy: ") + Setting::From));
        }
        let (container, blob) = one.blob.split_once('/').unwrap_or((&one.blob, ""));
        let snapshot = one.snapshot.as_deref();
        let key = (one.blob.clone(), one.snapshot.clone());
        let etag = match self.etags.get(&key) {
            Some(etag) => etag.clone(),
            None => {
                let facts = account.facts(container, blob, snapshot)?;
                self.etags.insert(key, facts.etag.clone());
                facts.etag
            }
        };
        account.read((container, blob, snapshot), one.offset, out, &Condition::same(&etag))?;
        Ok(())
    }
}

/// The block in a copy of the drive, or in a directory of extracted blobs.
fn read_copy(dir: &Path, one: &Damaged, out: &mut [u8]) -> Result<(), Problem> {
    let mut tried = vec![below(dir, &one.file)];
    if one.is_content {
        tried.push(below(dir, &one.blob));
    }
    let found = tried.iter().flatten().find_map(|path| Some((path, open_input(path, Pipes::Refused).ok()?)));
    let Some((path, file)) = found else {
        let problem = Problem::new(Kind::Source, "the copy has neither the drive's file nor the blob").path(dir);
        return Err(problem.value(format!("{} or {}", one.file, one.blob)));
    };
    file.read_exact_at(out, one.offset).map_err(|error| {
        let what = format!("the copy cannot be read at byte {}: {error}", one.offset);
        Problem::new(Kind::Source, what).path(path)
    })
}

/// A path of the drive or a blob's name below a directory; `None` where it would lead out of it.
fn below(dir: &Path, path: &str) -> Option<PathBuf> {
    let mut out = dir.to_owned();
    for part in path.split(['\\', '/']).filter(|part| !part.is_empty()) {
        if matches!(part, "." | "..") {
            return None;
        }
        out.push(part);
    }
    Some(out)
}

/// The progress of one repair: which blocks are done. Every line is durable before the next block.
#[derive(Debug)]
pub struct RepairFile {
    file: File,
    path: PathBuf,
    done: HashSet<(String, u64)>,
}

impl RepairFile {
    /// Begins a repair file, or continues one.
    ///
    /// # Errors
    /// It is of another drive or manifest, or no repair file; it cannot be read or written.
    pub fn open(path: &Path, drive_id: &str, manifest_md5: &str) -> Result<Self, Problem> {
        let failed = |error: std::io::Error| {
            Problem::new(Kind::Environment, format!("the repair file cannot be used: {error}")).path(path)
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(path).map_err(failed)?;
        let head = format!("{MARK}\t{drive_id}\t{manifest_md5}\n");
        let mut bytes = Vec::new();
        (&file).take(LEN_MAX).read_to_end(&mut bytes).map_err(failed)?;
        // A line without its end was cut off by a power failure.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let text = String::from_utf8_lossy(&bytes[..whole]).into_owned();
        if bytes.is_empty() {
            file.write_all(head.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        } else if !text.starts_with(&head) {
            let what = match text.starts_with(MARK) {
                true => "the repair file is of another drive, or of another manifest",
                false => "is no repair file",
            };
            let problem = Problem::new(Kind::Refused, what).path(path);
            return Err(problem.advice("name a new file; nothing was written"));
        } else {
            file.set_len(whole as u64).and_then(|()| file.seek(SeekFrom::End(0))).map_err(failed)?;
        }
        let entry = |line: &str| {
            let mut fields = line.splitn(4, '\t');
            let (Some("done"), Some(offset), Some(_), Some(name)) =
                (fields.next(), fields.next(), fields.next(), fields.next())
            else {
                return None;
            };
            Some((name.to_owned(), offset.parse().ok()?))
        };
        Ok(Self { file, path: path.to_owned(), done: text.lines().skip(1).filter_map(entry).collect() })
    }

    /// Blocks that earlier runs repaired.
    pub fn done(&self) -> u64 {
        self.done.len() as u64
    }

    fn add(&mut self, one: &Damaged) -> Result<(), Problem> {
        let hash: String = one.hash.iter().map(|byte| format!("{byte:02X}")).collect();
        let line = format!("done\t{}\t{hash}\t{}\n", one.offset, one.file);
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(|error| {
            Problem::new(Kind::Environment, format!("the repair file cannot be written: {error}")).path(&self.path)
        })
    }
}

/// Outcome of a repair.
#[derive(Clone, Debug, Default)]
pub struct Repaired {
    /// Blocks that have the right bytes now.
    pub done: Vec<Damaged>,
    /// Blocks that were left as they are, with the reason.
    pub left: Vec<(Damaged, Problem)>,
}

/// Repairs the damaged blocks of a claimed drive.
///
/// # Errors
/// The drive fails, the repair file cannot be written, or the run was stopped; what was repaired stays so.
pub fn run(
    claimed: &Claimed,
    damaged: &[Damaged],
    fetcher: &mut Fetcher<'_>,
    mut file: Option<&mut RepairFile>,
    progress: &mut dyn FnMut(u64),
) -> Result<Repaired, Problem> {
    let mut out = Repaired::default();
    let mut bytes = 0;
    claimed.repair(damaged, &mut |one, into| fetcher.fetch(one, into), &mut |one, outcome| {
        bytes += u64::from(one.len);
        progress(bytes);
        match outcome {
            Ok(()) => {
                out.done.push(one.clone());
                file.as_mut().map_or(Ok(()), |file| file.add(one))
            }
            Err(problem) => {
                out.left.push((one.clone(), problem));
                Ok(())
            }
        }
    })?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("dray-repair-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("a directory");
        dir
    }

    #[test]
    fn no_name_leads_out_of_the_copy() {
        let dir = Path::new("/copy");
        assert_eq!(below(dir, "\\pictures\\a.jpg"), Some("/copy/pictures/a.jpg".into()));
        assert_eq!(below(dir, "pictures/a.jpg"), Some("/copy/pictures/a.jpg".into()));
        for bad in ["\\..\\x", "a/../../x", "./x"] {
            assert_eq!(below(dir, bad), None, "{bad}");
        }
    }

    #[test]
    fn a_repair_file_is_of_one_drive_and_loses_only_a_torn_line() {
        let dir = scratch("file");
        let path = dir.join("drive.rep");
        let open = |id: &str, md5: &str| RepairFile::open(&path, id, md5);
        assert_eq!(open("D1", "AB").expect("a new one").done(), 0);
        let mut text = std::fs::read_to_string(&path).expect("text");
        text.push_str("done\t0\t00\t\\a\tb\ndone\t512\t00\t\\a\ndone\t10");
        std::fs::write(&path, &text).expect("written");
        let file = open("D1", "AB").expect("the same");
        assert_eq!(file.done(), 2);
        assert!(file.done.contains(&("\\a\tb".to_owned(), 0)), "{file:?}");
        assert!(std::fs::read_to_string(&path).expect("text").ends_with("\\a\n"), "the torn line is gone");
        for (id, md5) in [("D2", "AB"), ("D1", "AC")] {
            assert_eq!(open(id, md5).expect_err("another").kind, Kind::Refused);
        }
        std::fs::write(&path, "something else\n").expect("written");
        assert_eq!(open("D1", "AB").expect_err("no repair file").kind, Kind::Refused);
        assert_eq!(std::fs::read_to_string(&path).expect("text"), "something else\n");
        let _ = std::fs::remove_dir_all(dir);
    }
}
