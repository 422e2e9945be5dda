//! Places of the originals of a drive's files: directories, and the path map
//! (docs/spec/import-export.md#repairimport).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use dray_engine::job::{Pipes, decode_text, read_input};
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

/// Directories with originals, and the map for those that are elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Originals {
    dirs: Vec<PathBuf>,
    map: Option<PathBuf>,
    /// Paths on the drive, and where the user says that they are.
    said: BTreeMap<String, PathBuf>,
    lost: BTreeSet<String>,
}

impl Originals {
    /// The directories, and the map as it is: a line is a path on the drive, a TAB, and the path of the original; what
    /// has no second path says nothing.
    ///
    /// # Errors
    /// The map is there and cannot be read.
    pub fn new(dirs: Vec<PathBuf>, map: Option<PathBuf>) -> Result<Self, Problem> {
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
        Ok(Self { dirs, map, said, lost: BTreeSet::new() })
    }

    /// The original of a file on the drive, of `length` bytes where that is known: where the map says, or below one of the
    /// directories. A drive keeps its files below directories of its own: what stands first in the path may be missing.
    ///
    /// # Errors
    /// The reason why there is none.
    pub fn find(&self, on_drive: &str, length: Option<u64>) -> Result<PathBuf, Lost> {
        if let Some(here) = self.said.get(on_drive) {
            return if here.is_file() { Ok(here.clone()) } else { Err(Lost::Missing) };
        }
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
        let mut originals = Originals::new(dirs, Some(map.clone())).expect("read");
        let find = |path: &str, length| originals.find(path, length);
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
