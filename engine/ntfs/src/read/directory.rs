//! Entries of directories, to be compared with the names in the files' own records.
//!
//! A driver finds a file by walking from the root through the indexes (`$I30`, docs/spec/ntfs.md#indexes); a record
//! that no index leads to has no path, whatever its own name. Indexes are read in disk order, each in long reads.

use super::error::{NtfsError, ReadAt, ReadError, VolumePlace};
use super::file::{FileRecord, FileRef, Namespace, to_units};
use super::index::{self, Index, IndexStep};
use super::limits;
use super::raw::{self, types};
use super::volume::{I30, Volume};
use crate::units::VolumeOffset;

/// An index entry that a search for its name finds.
#[derive(Clone, Copy)]
pub(super) struct Listed {
    /// Raw reference of the file.
    pub child: u64,
    /// Hash of the directory's raw reference and the name: see [`key`].
    pub key: u64,
    /// Record of the directory.
    pub parent: u32,
    pub is_dos: bool,
    /// Whether the file has such a name.
    pub is_matched: bool,
}
const _: () = assert!(size_of::<Listed>() <= 24);

/// The entries of all directories of a volume.
#[derive(Default)]
pub(super) struct Directories {
    /// Directories with index blocks, which are read later.
    later: Vec<FileRecord>,
    pub listed: Vec<Listed>,
    pub problems: Vec<NtfsError>,
    pub problems_total: u64,
}

/// Hash of a name in a directory: FNV-1a, 64 bits.
pub(super) fn key(parent: u64, name: impl Iterator<Item = u16>) -> u64 {
    const BASIS: u64 = 0xCBF2_9CE4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01B3;
    let start = (BASIS ^ parent).wrapping_mul(PRIME);
    name.fold(start, |hash, unit| (hash ^ u64::from(unit)).wrapping_mul(PRIME))
}

/// A reference in its stored form.
pub(super) fn raw_reference(of: FileRef) -> u64 {
    of.record | u64::from(of.sequence) << 48
}

impl Directories {
    fn problem(&mut self, error: NtfsError) {
        self.problems_total += 1;
        if self.problems.len() < limits::PROBLEMS_KEPT_MAX {
            self.problems.push(error);
        }
    }

    /// Adds a directory: at once if all its entries are in its record.
    pub fn add(&mut self, volume: &Volume, file: FileRecord) {
        let has_blocks = file.stream(types::INDEX_ALLOCATION, &I30).is_some_and(|stream| !stream.is_resident());
        if has_blocks {
            self.later.push(file);
        } else {
            self.read(volume, &mut Nothing, &file);
        }
    }

    /// Reads the indexes outside the records.
    pub fn finish<R: ReadAt>(&mut self, volume: &Volume, reader: &mut R) {
        let mut later = std::mem::take(&mut self.later);
        let first = |file: &FileRecord| {
            let runs = file.stream(types::INDEX_ALLOCATION, &I30).map(|stream| stream.runs()).unwrap_or_default();
            runs.iter().find(|run| !run.is_hole()).map(|run| run.lcn)
        };
        later.sort_by_key(first);
        // Sound directories share no clusters: a volume that makes us read more than it holds lies.
        let mut left = volume.bytes();
        for file in later {
            let stream = file.stream(types::INDEX_ALLOCATION, &I30);
            let len = stream.map_or(0, super::Stream::size);
            let Some(rest) = left.checked_sub(len) else {
                let place = VolumePlace::stream(file.id.record, types::INDEX_ALLOCATION, 0);
                self.problem(NtfsError::limit(place, "directories are longer than the volume; this one is not read"));
                continue;
            };
            left = rest;
            let mut ahead = Ahead { inner: reader, parts: Vec::new() };
            if let Some(stream) = stream.filter(|_| len <= limits::INDEX_AHEAD_BYTES_MAX) {
                let cluster = volume.geometry().cluster.bytes();
                for run in stream.runs().iter().filter(|run| !run.is_hole()) {
                    ahead.fetch(u64::from(run.lcn) * cluster, u64::from(run.len) * cluster);
                }
            }
            self.read(volume, &mut ahead, &file);
        }
    }

    fn read<R: ReadAt>(&mut self, volume: &Volume, reader: &mut R, file: &FileRecord) {
        let index = match Index::open(volume, file, &I30) {
            Ok(index) => index,
            Err(error) => return self.problem(error),
        };
        let parent = raw_reference(file.id);
        let first = self.listed.len();
        let mut names: Vec<Vec<u16>> = Vec::new();
        let mut previous: Vec<u16> = Vec::new();
        let mut unsorted = None;
        index::walk(volume, reader, &index, |step| match step {
            IndexStep::Enter { .. } => {}
            IndexStep::Broken(error) => self.problem(error),
            IndexStep::Entry { node, entry } => match raw::file_name(node.key(entry)) {
                Err(fault) => self.problem(NtfsError::corrupt(index.place(node, entry.at), fault.what)),
                Ok((head, name)) => {
                    let units = to_units(name);
                    if unsorted.is_none() && !previous.is_empty() && volume.upcase().cmp(&previous, &units).is_ge() {
                        unsorted = Some(index.place(node, entry.at));
                    }
                    // An entry is a copy of the file's own name: one with another directory matches none.
                    let reported = if head.parent.get() == parent { parent } else { !parent };
                    self.listed.push(Listed {
                        child: entry.reference,
                        key: key(reported, units.iter().copied()),
                        parent: file.id.record as u32,
                        is_dos: Namespace::from_raw(head.namespace) == Some(Namespace::Dos),
                        is_matched: false,
                    });
                    previous = units;
                }
            },
        });
        if let Some(place) = unsorted {
            self.problem(NtfsError::corrupt(place, "index entries out of order"));
            index::walk(volume, reader, &index, |step| {
                if let IndexStep::Entry { node, entry } = step
                    && let Ok((_, name)) = raw::file_name(node.key(entry))
                {
                    names.push(to_units(name));
                }
            });
            // In a tree that is out of order only a search shows which names can be found.
            let found = |name: &Vec<u16>| index::search(volume, reader, &index, name).ok().flatten();
            let found: Vec<_> = names.iter().map(found).map(|found| found.map(raw_reference)).collect();
            let mut here = self.listed.split_off(first);
            let mut found = found.into_iter();
            here.retain(|entry| found.next().flatten() == Some(entry.child));
            self.listed.append(&mut here);
        }
    }
}

/// A reader without data: for indexes that must be complete in memory.
struct Nothing;

impl ReadAt for Nothing {
    fn read_at(&mut self, at: VolumeOffset, _: &mut [u8]) -> Result<(), ReadError> {
        Err(ReadError { at, message: "no index block".into() })
    }
}

/// A reader with ranges of the volume that were read ahead.
struct Ahead<'a, R> {
    inner: &'a mut R,
    parts: Vec<(u64, Vec<u8>)>,
}

impl<R: ReadAt> Ahead<'_, R> {
    /// A part that cannot be read here is read again block by block on demand.
    fn fetch(&mut self, at: u64, len: u64) {
        let mut done = 0;
        while done < len {
            let mut bytes = vec![0; (len - done).min(limits::INDEX_READ_BYTES) as usize];
            let piece = bytes.len() as u64;
            if self.inner.read_at(VolumeOffset(at.saturating_add(done)), &mut bytes).is_ok() {
                match self.parts.last_mut() {
                    Some((start, last)) if *start + last.len() as u64 == at + done => last.extend_from_slice(&bytes),
                    _ => self.parts.push((at + done, bytes)),
                }
            }
            done += piece;
        }
    }
}

impl<R: ReadAt> ReadAt for Ahead<'_, R> {
    fn read_at(&mut self, at: VolumeOffset, buf: &mut [u8]) -> Result<(), ReadError> {
        for (start, bytes) in &self.parts {
            let skip = at.0.checked_sub(*start).and_then(|skip| usize::try_from(skip).ok());
            if let Some(found) = skip.and_then(|skip| bytes.get(skip..)).and_then(|rest| rest.get(..buf.len())) {
                buf.copy_from_slice(found);
                return Ok(());
            }
        }
        self.inner.read_at(at, buf)
    }
}
