//! Unreadable files are left out one by one; a source that disappears as a whole ends the drive instead.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::io::{FileFacts, PartResult, is_shortage, shortage_advice};
use crate::plan::tree::DriveTree;
use crate::report::{Kind, Problem, counted};

/// Consecutive failures after which a source counts as gone although it seems to exist: few enough that the drive does
/// not appear to be finished without them.
const IN_A_ROW: u32 = 64;

/// Facts that a source file must still have when it is read.
pub fn expected_facts(tree: &DriveTree, file: u32) -> FileFacts {
    let (len, mtime, ctime) = tree.planned_facts(file);
    FileFacts { len: len.0, mtime, ctime, dev: 0, ino: 0 }
}

/// The problem when no blob of a drive could be read: an empty drive does not count as finished with some files left
/// out, since the sources, or the access to them, have failed.
pub fn all_left_out(tree: &DriveTree, left_out: &BTreeMap<u32, String>) -> Option<Problem> {
    let blobs = tree.blob_count();
    if tree.exported().is_some() {
        // What is left out of an export is reported, and can be ordered again; an account out of reach ends the drive.
        return None;
    }
    let mut out = left_out.range(..blobs);
    let (first, why) = out.next()?;
    if 1 + out.count() < blobs as usize {
        return None;
    }
    let what = match blobs {
        1 => format!("the only file for the drive could not be copied: {why}"),
        _ => format!("not one of {blobs} files for the drive could be copied; of the first: {why}"),
    };
    Some(Problem::new(Kind::Source, what).path(tree.source_path(*first)))
}

/// Directories and files of the dataset, each with the number of its file system at the start.
pub struct Sources {
    bases: Vec<Base>,
    in_a_row: u32,
    /// Those of the consecutive failures that are due to the device or the network.
    broken: u32,
    gone: Option<Problem>,
    is_short: bool,
}

/// One directory or file of the dataset.
struct Base {
    path: PathBuf,
    file_system: Option<u64>,
    /// The device below it in sysfs, if it is on one: that directory disappears with the device, mounted or not.
    device: Option<PathBuf>,
}

impl Base {
    fn new(path: PathBuf) -> Self {
        let file_system = file_system(&path);
        let device = file_system.map(|number| {
            let (major, minor) = (libc::major(number), libc::minor(number));
            PathBuf::from(format!("/sys/dev/block/{major}:{minor}"))
        });
        Self { path, file_system, device: device.filter(|device| device.exists()) }
    }

    fn is_unplugged(&self) -> bool {
        self.device.as_ref().is_some_and(|device| !device.exists())
    }

    fn has_moved(&self) -> bool {
        file_system(&self.path) != self.file_system
    }
}

impl Sources {
    pub fn new(bases: Vec<PathBuf>) -> Self {
        Self { bases: bases.into_iter().map(Base::new).collect(), in_a_row: 0, broken: 0, gone: None, is_short: false }
    }

    /// Records that a file, or a part of one, was read.
    pub fn read(&mut self) {
        self.in_a_row = 0;
        self.broken = 0;
    }

    /// Records a failure; `error` is `None` when the file only had changed.
    pub fn failed(&mut self, path: &Path, error: Option<&io::Error>) {
        const DEVICE: [i32; 7] =
            [libc::EIO, libc::ENODATA, libc::ENODEV, libc::ENXIO, libc::ESTALE, libc::ENOTCONN, libc::ETIMEDOUT];
        if let Some(error) = error.filter(|error| is_shortage(error)) {
            // Not the file's fault: leaving it out would drop files that are intact.
            self.is_short = true;
            self.gone.get_or_insert_with(|| {
                Problem::new(Kind::Environment, format!("sources cannot be read: {error}"))
                    .path(path)
                    .advice(shortage_advice())
            });
            return;
        }
        self.in_a_row += 1;
        let blamed = error.and_then(io::Error::raw_os_error).is_some_and(|errno| DEVICE.contains(&errno));
        self.broken += u32::from(blamed);
        if self.gone.is_some() {
            return;
        }
        let base = self.bases.iter().find(|base| path.starts_with(&base.path));
        // A file named in the dataset itself is left out when it disappears.
        let is_away = base.is_some_and(|base| base.is_unplugged() || base.path != path && base.has_moved());
        let what = match error {
            _ if is_away => "went away while it was read: it is unmounted, unplugged or replaced".to_owned(),
            Some(error) if self.broken >= IN_A_ROW => {
                format!("cannot be read any more: {} in a row failed ({error})", counted(self.in_a_row.into(), "file"))
            }
            // A file deleted or changed by its owner is no failure of the source.
            _ => return,
        };
        let base = base.map_or(path, |base| &base.path);
        self.gone = Some(Problem::new(Kind::Source, format!("the source {what}")).path(base));
    }

    /// Takes the result of a part; returns the reason if its file is left out. `is_out`: the file was left out before,
    /// and its parts were not read.
    pub fn came(&mut self, path: impl FnOnce() -> PathBuf, result: PartResult, is_out: bool) -> Option<String> {
        match result {
            PartResult::Done => {
                if !is_out {
                    self.read();
                }
                None
            }
            PartResult::Changed(change) => {
                self.failed(&path(), None);
                Some(change)
            }
            PartResult::Failed(error) => {
                self.failed(&path(), Some(&error));
                (!self.is_short).then(|| error.to_string())
            }
        }
    }

    /// Whether the machine ran short of a resource: the drive ends, and no file is to blame.
    pub fn is_short(&self) -> bool {
        self.is_short
    }

    /// The problem that ends the drive; returned once.
    pub fn gone(&mut self) -> Option<Problem> {
        self.gone.take()
    }
}

fn file_system(base: &Path) -> Option<u64> {
    fs::metadata(base).ok().map(|meta| meta.dev())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errno(number: i32) -> io::Error {
        io::Error::from_raw_os_error(number)
    }

    #[test]
    fn deleted_files_are_left_out_and_a_source_that_went_away_is_told() {
        let base = std::env::temp_dir().join(format!("dray-source-{}", std::process::id()));
        fs::create_dir_all(&base).unwrap();
        let mut sources = Sources::new(vec![base.clone()]);
        for _ in 0..10 * IN_A_ROW {
            sources.failed(&base.join("x"), Some(&errno(libc::ENOENT)));
        }
        assert_eq!(sources.gone(), None, "deleted one by one");
        fs::write(base.join("file"), "").unwrap();
        let mut alone = Sources::new(vec![base.join("file")]);
        fs::remove_dir_all(&base).unwrap();
        alone.failed(&base.join("file"), Some(&errno(libc::ENOENT)));
        assert_eq!(alone.gone(), None, "a file that is named by itself");
        sources.failed(&base.join("x"), Some(&errno(libc::ENOENT)));
        let problem = sources.gone().unwrap();
        assert_eq!((problem.kind, problem.place.path.as_deref()), (Kind::Source, Some(base.as_path())));
    }

    #[test]
    fn a_shortage_ends_the_drive_and_leaves_no_file_out() {
        for number in [libc::EMFILE, libc::ENFILE, libc::ENOMEM] {
            let mut sources = Sources::new(vec![std::env::temp_dir()]);
            let path = || std::env::temp_dir().join("x");
            assert_eq!(sources.came(path, PartResult::Failed(errno(number)), false), None);
            assert!(sources.is_short());
            assert_eq!(sources.gone().unwrap().kind, Kind::Environment);
        }
        let mut sources = Sources::new(vec![std::env::temp_dir()]);
        let path = || std::env::temp_dir().join("x");
        assert!(sources.came(path, PartResult::Failed(errno(libc::EACCES)), false).is_some() && !sources.is_short());
    }

    #[test]
    fn a_few_bad_places_are_left_out_and_a_dead_device_is_told() {
        let base = std::env::temp_dir();
        let mut sources = Sources::new(vec![base.clone()]);
        for round in 0..3 {
            for _ in 1..IN_A_ROW {
                sources.failed(&base.join("x"), Some(&errno(libc::EIO)));
            }
            assert_eq!(sources.gone(), None, "round {round}");
            sources.read();
        }
        for _ in 0..IN_A_ROW {
            sources.failed(&base.join("x"), Some(&errno(libc::EIO)));
        }
        assert!(sources.gone().unwrap().what.contains("64 files in a row"));
    }
}
