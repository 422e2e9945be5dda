//! The catalog as bytes, so that a resumed session has exactly the files that it was planned with.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::azure::dataset::BlobType;
use crate::catalog::{Catalog, Dir, File, Posix, Row};
use crate::checkpoint::CheckpointFault;
use crate::checkpoint::code::{Decoder, Encoder};
use crate::units::{ByteLen, Stamp};

/// Bytes of one directory and of one file.
const DIR_LEN: usize = 4 + 4 + 2 + 4 * 4;
const FILE_LEN: usize = 8 + 2 * 12 + 3 * 4 + 2;

/// A path, whatever its bytes.
pub fn write_path(to: &mut Encoder<'_>, path: &Path) {
    to.list(path.as_os_str().as_bytes());
}

/// Reads a path.
///
/// # Errors
/// The bytes are cut off.
pub fn read_path(from: &mut Decoder<'_>) -> Result<PathBuf, CheckpointFault> {
    from.list().map(|bytes| PathBuf::from(OsString::from_vec(bytes.to_vec())))
}

/// Writes a time.
pub fn write_stamp(to: &mut Encoder<'_>, stamp: Stamp) {
    to.i64(stamp.seconds);
    to.u32(stamp.nanos);
}

/// Reads a time.
///
/// # Errors
/// The bytes are cut off.
pub fn read_stamp(from: &mut Decoder<'_>) -> Result<Stamp, CheckpointFault> {
    Ok(Stamp { seconds: from.i64()?, nanos: from.u32()? })
}

/// Writes ascending numbers as runs.
pub fn write_runs(to: &mut Encoder<'_>, numbers: &[u32]) {
    let runs = || numbers.chunk_by(|a, b| a + 1 == *b);
    to.u64(runs().count() as u64);
    for run in runs() {
        to.u32(run[0]);
        to.u32(run.len() as u32);
    }
}

/// Reads runs; all numbers are below `end` and ascending.
///
/// # Errors
/// The bytes are cut off, or the numbers are not.
pub fn read_runs(from: &mut Decoder<'_>, end: u32) -> Result<Vec<u32>, CheckpointFault> {
    let mut out = Vec::new();
    let mut least = 0u32;
    for _ in 0..from.count(8)? {
        let (first, len) = (from.u32()?, from.u32()?);
        let next = first.checked_add(len).filter(|next| first >= least && len > 0 && *next <= end);
        let next = next.ok_or(CheckpointFault("lists files that are not in it"))?;
        out.extend(first..next);
        least = next;
    }
    Ok(out)
}

impl Catalog {
    /// Writes the whole catalog.
    pub fn save(&self, to: &mut Encoder<'_>) {
        to.u64(self.rows.len() as u64);
        for row in &self.rows {
            write_path(to, &row.base);
            to.option(row.dir, Encoder::u32);
            to.u8(match row.blob_type {
                None => 0,
                Some(BlobType::Block) => 1,
                Some(BlobType::Page) => 2,
                Some(BlobType::File) => 3,
            });
        }
        to.list(self.names.as_bytes());
        to.u64(self.dirs.len() as u64);
        for dir in &self.dirs {
            to.u32(dir.parent);
            to.u32(dir.name_at);
            to.bytes(&dir.name_len.to_le_bytes());
            for word in [dir.first_dir, dir.dir_count, dir.first_file, dir.file_count] {
                to.u32(word);
            }
        }
        to.u64(self.files.len() as u64);
        for file in &self.files {
            to.u64(file.len.0);
            write_stamp(to, file.mtime);
            write_stamp(to, file.ctime);
            for word in [file.name_at, file.dir, file.row] {
                to.u32(word);
            }
            to.bytes(&file.name_len.to_le_bytes());
        }
        for safe in [&self.safe_dirs, &self.safe_files] {
            let mut sorted: Vec<_> = safe.iter().collect();
            sorted.sort_unstable();
            to.u64(sorted.len() as u64);
            for (index, name) in sorted {
                to.u32(*index);
                to.text(name);
            }
        }
        write_runs(to, &self.long);
    }

    /// Writes who each file belongs to, which [`Self::save`] does not tell.
    pub fn save_posix(&self, to: &mut Encoder<'_>) {
        to.u64(self.posix.len() as u64);
        for posix in &self.posix {
            [posix.mode, posix.uid, posix.gid].into_iter().for_each(|word| to.u32(word));
        }
    }

    /// Takes in what [`Self::save_posix`] wrote.
    ///
    /// # Errors
    /// The bytes are cut off, or not of this catalog.
    pub fn load_posix(&mut self, from: &mut Decoder<'_>) -> Result<(), CheckpointFault> {
        let count = from.count(12)?;
        if count != 0 && count != self.files.len() {
            return Err(CheckpointFault("does not say of each file who it belongs to"));
        }
        for _ in 0..count {
            self.posix.push(Posix { mode: from.u32()?, uid: from.u32()?, gid: from.u32()? });
        }
        Ok(())
    }

    /// Whether directories have times of their own, which [`Self::save`] does not tell.
    pub fn has_dir_times(&self) -> bool {
        !self.dir_times.is_empty()
    }

    /// Writes those times.
    pub fn save_dir_times(&self, to: &mut Encoder<'_>) {
        let mut sorted: Vec<_> = self.dir_times.iter().collect();
        sorted.sort_unstable_by_key(|(dir, _)| **dir);
        to.u64(sorted.len() as u64);
        for (dir, time) in sorted {
            to.u32(*dir);
            write_stamp(to, *time);
        }
    }

    /// Takes in what [`Self::save_dir_times`] wrote.
    ///
    /// # Errors
    /// The defect of the bytes.
    pub fn load_dir_times(&mut self, from: &mut Decoder<'_>) -> Result<(), CheckpointFault> {
        for _ in 0..from.count(16)? {
            let (dir, time) = (from.u32()?, read_stamp(from)?);
            if dir as usize >= self.dirs.len() {
                return Err(CheckpointFault("dates a directory that it does not have"));
            }
            self.dir_times.insert(dir, time);
        }
        Ok(())
    }

    /// Whether files are read elsewhere than at their own path, which [`Self::save`] does not tell.
    pub fn has_targets(&self) -> bool {
        !self.targets.is_empty()
    }

    /// Writes where those files are read.
    pub fn save_targets(&self, to: &mut Encoder<'_>) {
        let mut sorted: Vec<_> = self.targets.iter().collect();
        sorted.sort_unstable();
        to.u64(sorted.len() as u64);
        for (file, target) in sorted {
            to.u32(*file);
            write_path(to, target);
        }
    }

    /// Takes in what [`Self::save_targets`] wrote.
    ///
    /// # Errors
    /// The defect of the bytes.
    pub fn load_targets(&mut self, from: &mut Decoder<'_>) -> Result<(), CheckpointFault> {
        for _ in 0..from.count(12)? {
            let (file, target) = (from.u32()?, read_path(from)?);
            if file as usize >= self.files.len() {
                return Err(CheckpointFault("names a place that it does not have"));
            }
            self.targets.insert(file, target);
        }
        Ok(())
    }

    /// Reads a catalog. All indices are checked: the result can be used like one from [`crate::catalog::Builder::seal`].
    ///
    /// # Errors
    /// The reason why the bytes are invalid.
    pub fn load(from: &mut Decoder<'_>) -> Result<Self, CheckpointFault> {
        const BEYOND: CheckpointFault = CheckpointFault("names a place that it does not have");
        let mut rows = Vec::new();
        for _ in 0..from.count(10)? {
            let (base, dir) = (read_path(from)?, from.option(Decoder::u32)?);
            let blob_type = match from.u8()? {
                0 => None,
                1 => Some(BlobType::Block),
                2 => Some(BlobType::Page),
                3 => Some(BlobType::File),
                _ => return Err(CheckpointFault("holds an unknown type of blob")),
            };
            rows.push(Row { base, dir, blob_type });
        }
        let names = std::str::from_utf8(from.list()?)
            .map_err(|_| CheckpointFault("holds names that are not UTF-8"))?
            .to_owned();
        let is_name = |at: u32, len: u16| names.get(at as usize..at as usize + usize::from(len)).is_some();
        let count = from.count(DIR_LEN)?;
        let mut dirs = Vec::with_capacity(count);
        for i in 0..count as u32 {
            let (parent, name_at, name_len) = (from.u32()?, from.u32()?, u16::from_le_bytes(from.bytes()?));
            let [first_dir, dir_count, first_file, file_count] = [from.u32()?, from.u32()?, from.u32()?, from.u32()?];
            // Breadth first: parents come before their children.
            let in_order = if i == 0 { parent == u32::MAX } else { parent < i };
            let below = u64::from(first_dir) + u64::from(dir_count);
            if !in_order || below > count as u64 || dir_count > 0 && first_dir <= i || !is_name(name_at, name_len) {
                return Err(BEYOND);
            }
            dirs.push(Dir { parent, name_at, name_len, first_dir, dir_count, first_file, file_count });
        }
        let count = from.count(FILE_LEN)?;
        let mut files = Vec::with_capacity(count);
        for _ in 0..count {
            let (len, mtime, ctime) = (ByteLen(from.u64()?), read_stamp(from)?, read_stamp(from)?);
            let [name_at, dir, row] = [from.u32()?, from.u32()?, from.u32()?];
            let name_len = u16::from_le_bytes(from.bytes()?);
            if dir as usize >= dirs.len() || row as usize >= rows.len() || !is_name(name_at, name_len) {
                return Err(BEYOND);
            }
            files.push(File { len, mtime, ctime, name_at, dir, row, name_len });
        }
        let files_end = |dir: &Dir| u64::from(dir.first_file) + u64::from(dir.file_count);
        let rows_good = rows.iter().all(|row: &Row| row.dir.is_none_or(|dir| (dir as usize) < dirs.len()));
        if dirs.is_empty() || !rows_good || dirs.iter().any(|dir| files_end(dir) > files.len() as u64) {
            return Err(BEYOND);
        }
        let mut safe = |end: usize| -> Result<HashMap<u32, Box<str>>, CheckpointFault> {
            let count = from.count(12)?;
            let mut map = HashMap::with_capacity(count);
            for _ in 0..count {
                let index = from.u32()?;
                if index as usize >= end {
                    return Err(BEYOND);
                }
                map.insert(index, from.text()?.into_boxed_str());
            }
            Ok(map)
        };
        let (safe_dirs, safe_files) = (safe(dirs.len())?, safe(files.len())?);
        let long = read_runs(from, files.len() as u32)?;
        let (targets, posix, dir_times) = (HashMap::new(), Vec::new(), HashMap::new());
        Ok(Self { names, dirs, files, rows, safe_dirs, safe_files, long, targets, posix, dir_times })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Builder;
    use dray_base::entropy::Seeded;

    fn catalog() -> Catalog {
        let at = |seconds| Stamp { seconds, nanos: 999_999_999 };
        let mut builder = Builder::new();
        let container = builder.dir(0, "data").expect("a directory");
        let deep = builder.dir(container, "de:ep").expect("a directory");
        let row = builder.row("/source/".into(), Some(container), None);
        let single = builder.row("/x/y.vhd".into(), None, Some(BlobType::Page));
        for (i, name) in ["a", "A", "con", "b.vhd", &"l".repeat(240), "ü"].into_iter().enumerate() {
            builder.file(deep, name, row, ByteLen(i as u64 * 1000), [at(i as i64), at(-5)]).expect("a file");
        }
        builder.file(container, "y.vhd", single, ByteLen(512), [at(i64::MIN), at(i64::MAX)]).expect("a file");
        builder.seal(30).expect("no duplicates")
    }

    fn saved(catalog: &Catalog) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut to = Encoder::new(&mut bytes);
        catalog.save(&mut to);
        to.end().expect("memory");
        bytes
    }

    #[test]
    fn round_trip_names_every_file_alike() {
        let before = catalog();
        let bytes = saved(&before);
        let mut from = Decoder::new(&bytes);
        let after = Catalog::load(&mut from).expect("a catalog");
        assert!(from.rest().is_empty());
        assert_eq!(saved(&after), bytes);
        assert!(before.renamed() > 2 && !before.long().is_empty(), "the test has what is special");
        for file in 0..before.files().len() as u32 {
            let (mut a, mut b) = (String::new(), String::new());
            before.blob_path(file, &mut a);
            after.blob_path(file, &mut b);
            assert_eq!(a, b);
            assert_eq!(before.file_name(file), after.file_name(file));
            assert_eq!(before.source_path(file), after.source_path(file));
            assert_eq!(before.blob_type(file), after.blob_type(file));
        }
    }

    #[test]
    fn hostile_catalogs_never_panic() {
        let bytes = saved(&catalog());
        let mut random = Seeded::new(1);
        for _ in 0..5000 {
            let mut changed = bytes.clone();
            for _ in 0..1 + random.next_u64() % 3 {
                let at = (random.next_u64() % changed.len() as u64) as usize;
                changed[at] = random.next_u64() as u8;
            }
            changed.truncate(changed.len() - (random.next_u64() % 4 / 3) as usize * 10);
            if let Ok(catalog) = Catalog::load(&mut Decoder::new(&changed)) {
                (0..catalog.files().len() as u32).for_each(|file| drop(catalog.source_path(file)));
            }
        }
    }
}
