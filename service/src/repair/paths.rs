//! Places of the originals of a drive's files: directories, drives, and the path map
//! (docs/spec/import-export.md#repairimport).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use dray_engine::api::host::{Pipes, decode_text, read_input};
use dray_engine::api::inspect::files::FileReader;
use dray_engine::api::inspect::{FileId, Files};
use dray_engine::report::{Kind, Problem};

/// Longest path map that is read.
const MAP_MAX: u64 = 256 << 20;

/// Reason why an original cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// In none of the directories.
    Missing,
    /// In more than one of them.
    Several,
    /// It is there, and cannot be read.
    Unreadable,
    /// The path on the drive is none, or leads out of the directories.
    BadName,
    /// It is no longer what was on the drive.
    Changed,
}

impl Lost {
    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Missing => "not found in the directories",
            Self::Several => "found in more than one place",
            Self::Unreadable => "cannot be read",
            Self::BadName => "is no path below a directory",
            Self::Changed => "is no longer what was on the drive",
        }
    }
}

/// An original that was found.
#[derive(Clone, Debug)]
pub(crate) enum Original<'a> {
    /// A file of this machine.
    Here(PathBuf),
    /// A file on a drive, which is read through the engine.
    OnDrive(&'a Files<'a>, FileId),
}

/// An original that is open.
pub(crate) enum Opened<'a> {
    Here(File),
    OnDrive(FileReader<'a>),
}

impl<'a> Original<'a> {
    /// Its bytes, where they can be counted.
    pub fn len(&self) -> Option<u64> {
        match self {
            Self::Here(path) => Some(fs::metadata(path).ok()?.len()),
            Self::OnDrive(files, file) => Some(files.catalog.info(*file).size),
        }
    }

    /// Opens it.
    pub fn open(&self) -> io::Result<Opened<'a>> {
        match self {
            Self::Here(path) => File::open(path).map(Opened::Here),
            Self::OnDrive(files, file) => {
                files.open(*file).map(Opened::OnDrive).map_err(|problem| io::Error::other(problem.to_string()))
            }
        }
    }

    /// All of it, if it is no longer than `len_max`.
    pub fn read(&self, len_max: u64) -> io::Result<Vec<u8>> {
        let Self::OnDrive(..) = self else {
            let Self::Here(path) = self else { return Ok(Vec::new()) };
            return read_input(path, len_max, Pipes::Refused).map(|bytes| bytes.to_vec());
        };
        let len = self.len().filter(|len| *len <= len_max).ok_or(io::ErrorKind::FileTooLarge)?;
        let mut bytes = vec![0; len as usize];
        self.open()?.read_at(0, &mut bytes).map(|()| bytes)
    }
}

impl Opened<'_> {
    /// Fills `into` from byte `at` on.
    pub fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Here(file) => file.read_exact_at(into, at),
            Self::OnDrive(file) => file.read_exact_at(at, into),
        }
    }
}

/// Directories and drives with originals, and the map for those that are elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Originals<'a> {
    dirs: Vec<PathBuf>,
    drives: &'a [Files<'a>],
    map: Option<PathBuf>,
    /// Paths on the drive, and where the user says that they are.
    said: BTreeMap<String, PathBuf>,
    lost: BTreeSet<String>,
}

impl<'a> Originals<'a> {
    /// The directories, the drives, and the map as it is: a line is a path on the drive, a TAB, and the path of the original; what
    /// has no second path says nothing.
    ///
    /// # Errors
    /// The map is there and cannot be read.
    pub fn new(dirs: Vec<PathBuf>, drives: &'a [Files<'a>], map: Option<PathBuf>) -> Result<Self, Problem> {
        let mut said = BTreeMap::new();
        if let Some(path) = map.as_deref().filter(|path| path.exists()) {
            let failed = |error: std::io::Error| {
                Problem::new(Kind::Usage, format!("the path map cannot be read: {error}")).path(path)
            };
            let bytes = read_input(path, MAP_MAX, Pipes::Refused).map_err(failed)?;
            let text = decode_text(&bytes).map_err(failed)?;
            for line in text.lines() {
                if let Some((on_drive, here)) = line.split_once('\t')
                    && !here.trim().is_empty()
                {
                    said.insert(on_drive.trim().to_owned(), PathBuf::from(here.trim()));
                }
            }
        }
        Ok(Self { dirs, drives, map, said, lost: BTreeSet::new() })
    }

    /// The original of a file on the drive, of `length` bytes where that is known: where the map says, below one of the
    /// directories, or on one of the drives.
    ///
    /// # Errors
    /// The reason why there is none.
    pub fn find(&self, on_drive: &str, length: Option<u64>) -> Result<Original<'a>, Lost> {
        if let Some(here) = self.said.get(on_drive) {
            return if here.is_file() { Ok(Original::Here(here.clone())) } else { Err(Lost::Missing) };
        }
        match self.find_here(on_drive, length) {
            Ok(path) => Ok(Original::Here(path)),
            Err(Lost::Missing) if !self.drives.is_empty() => self.find_on_drives(on_drive, length),
            Err(lost) => Err(lost),
        }
    }

    /// A drive has its files by these paths: the one that was sent, or one with the same files.
    fn find_on_drives(&self, on_drive: &str, length: Option<u64>) -> Result<Original<'a>, Lost> {
        let found = self.drives.iter().filter_map(|files| Some((files, files.find(on_drive).ok()?)));
        let found: Vec<_> = found.filter(|(files, file)| !files.catalog.info(*file).directory).collect();
        match found[..] {
            [] => Err(Lost::Missing),
            [(files, file)] if length.is_none_or(|length| files.catalog.info(file).size == length) => {
                Ok(Original::OnDrive(files, file))
            }
            [_] => Err(Lost::Changed),
            _ => Err(Lost::Several),
        }
    }

    /// A drive keeps its files below directories of its own: what stands first in the path may be missing.
    fn find_here(&self, on_drive: &str, length: Option<u64>) -> Result<PathBuf, Lost> {
        let parts: Vec<&str> = on_drive.split(['\\', '/']).filter(|part| !part.is_empty()).collect();
        if parts.is_empty() || parts.iter().any(|part| matches!(*part, "." | "..") || part.contains('\0')) {
            return Err(Lost::BadName);
        }
        let fits = |path: &PathBuf| {
            fs::metadata(path).is_ok_and(|meta| meta.is_file() && length.is_none_or(|length| meta.len() == length))
        };
        let mut is_other = false;
        for first in 0..parts.len() {
            let rest: PathBuf = parts[first..].iter().collect();
            let there: Vec<PathBuf> =
                self.dirs.iter().map(|dir| dir.join(&rest)).filter(|path| path.is_file()).collect();
            let found: BTreeSet<PathBuf> =
                there.iter().filter(|path| fits(path)).filter_map(|path| path.canonicalize().ok()).collect();
            match found.len() {
                // The whole path has to be right; of a part of it, another file may have the name.
                0 => is_other |= first == 0 && !there.is_empty(),
                1 => return found.into_iter().next().ok_or(Lost::Missing),
                _ => return Err(Lost::Several),
            }
        }
        Err(if is_other { Lost::Changed } else { Lost::Missing })
    }

    /// Notes a path for the map.
    pub fn lose(&mut self, on_drive: &str) {
        self.lost.insert(on_drive.to_owned());
    }

    /// Writes the map: what the user said, and what is to be filled in. Returns its path if something is.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self) -> Result<Option<PathBuf>, Problem> {
        let Some(path) = &self.map else { return Ok(None) };
        if self.lost.is_empty() {
            return Ok(None);
        }
        let mut text = String::new();
        for (on_drive, here) in &self.said {
            text.push_str(&format!("{on_drive}\t{}\n", here.display()));
        }
        for on_drive in self.lost.iter().filter(|path| !self.said.contains_key(*path)) {
            text.push_str(&format!("{on_drive}\n"));
        }
        save(path, text.as_bytes())?;
        Ok(Some(path.clone()))
    }
}

/// Replaces a file as a whole.
fn save(path: &Path, bytes: &[u8]) -> Result<(), Problem> {
    let failed = |error: std::io::Error| {
        Problem::new(Kind::Environment, format!("the path map cannot be written: {error}")).path(path)
    };
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let mut file = fs::File::create(&new).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&new, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn originals_are_found_below_directories_or_where_the_map_says() {
        let dir = std::env::temp_dir().join(format!("dray-originals-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        for (path, len) in [("a/animals/koala.jpg", 5), ("b/sub/x", 1), ("a/twice", 2), ("b/twice", 2), ("far/z", 3)] {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            fs::write(path, vec![0; len]).expect("a file");
        }
        let map = dir.join("map.txt");
        fs::write(
            &map,
            format!("\\s#1\\data\\z\t{}\n\\unsaid\n\\nowhere\t{}\n", dir.join("far/z").display(), "/no/file"),
        )
        .expect("a map");
        let dirs = vec![dir.join("a"), dir.join("b")];
        let mut originals = Originals::new(dirs, &[], Some(map.clone())).expect("read");
        let find = |path: &str, length| match originals.find(path, length) {
            Ok(Original::Here(path)) => Ok(path),
            Ok(other) => panic!("{other:?}"),
            Err(lost) => Err(lost),
        };
        assert_eq!(
            find("\\animals\\koala.jpg", Some(5)),
            dir.join("a/animals/koala.jpg").canonicalize().map_err(|_| Lost::Missing)
        );
        assert_eq!(
            find("\\session#1\\data\\sub\\x", Some(1)),
            dir.join("b/sub/x").canonicalize().map_err(|_| Lost::Missing)
        );
        assert_eq!(find("\\animals\\koala.jpg", Some(6)), Err(Lost::Changed));
        assert_eq!(find("\\twice", Some(2)), Err(Lost::Several));
        assert_eq!(find("\\..\\a\\twice", None), Err(Lost::BadName));
        assert_eq!(find("\\s#1\\data\\z", Some(3)), Ok(dir.join("far/z")));
        assert_eq!((find("\\nowhere", None), find("\\unsaid", None)), (Err(Lost::Missing), Err(Lost::Missing)));
        originals.lose("\\gone");
        assert_eq!(originals.save().expect("saved"), Some(map.clone()));
        let text = fs::read_to_string(&map).expect("a map");
        assert!(
            text.contains("\\gone\n") && text.contains(&format!("\\s#1\\data\\z\t{}", dir.join("far/z").display())),
            "{text}"
        );
        fs::remove_dir_all(&dir).expect("removed");
    }
}
