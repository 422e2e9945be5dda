//! Every file of a volume, from one ascending pass over `$MFT` and one over the indexes of its directories.

use std::fmt;
use std::ops::Range;

use super::directory::{self, Directories};
use super::error::{ErrorKind, NtfsError, ReadAt, VolumePlace};
use super::file::{self, Content, FileRecord, FileRef, Namespace, Stash, Stream, Times};
use super::limits;
use super::raw::{self, RawRun, Record, types};
use super::volume::{DataRun, RunPlace, Volume, records};
use crate::format::{attr_flag, record_flag};
use crate::units::VolumeOffset;

/// A file of a [`Catalog`]; ascending ids are ascending record numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(u32);

impl FileId {
    /// Its index among all files of the catalog, from 0.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A name (hard link) in a [`Catalog`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameId(u32);

/// Reason why the data of a file are not simply the contents of its clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Special {
    /// Encrypted by EFS.
    Encrypted,
    /// Compressed by the "compact OS" filter into another stream (reparse tag 0x80000017).
    WofCompressed,
    /// Moved into the chunk store of data deduplication (reparse tag 0x80000013).
    Deduplicated,
    /// Another reparse point (link, mount point, cloud file …), with its tag.
    Reparse(u32),
}

/// IO_REPARSE_TAG_WOF, IO_REPARSE_TAG_DEDUP ([MS-FSCC] 2.1.2.1).
const TAG_WOF: u32 = 0x8000_0017;
const TAG_DEDUP: u32 = 0x8000_0013;

/// Whether a tag is one of the cloud files filter (OneDrive): IO_REPARSE_TAG_CLOUD and its 15 variants.
const fn is_cloud(tag: u32) -> bool {
    tag & 0xFFFF_0FFF == 0x9000_001A
}

/// FILE_ATTRIBUTE_OFFLINE, _RECALL_ON_OPEN, _RECALL_ON_DATA_ACCESS ([MS-FSCC] 2.6): the contents are not completely
/// local.
const ELSEWHERE: u32 = 0x1000 | 0x0004_0000 | 0x0040_0000;

/// Whether a cloud file's contents are completely local, according to its filter
/// (docs/spec/ntfs.md#object-identifiers-and-reparse-points).
fn is_hydrated(file: &FileRecord) -> bool {
    file.has_cloud_state && file.reparse_tag.is_some_and(is_cloud) && file.standard.attributes & ELSEWHERE == 0
}

/// Description of another kind of reparse point ([MS-FSCC] 2.1.2.1).
fn reparse_word(tag: u32) -> &'static str {
    match tag {
        0xA000_0003 => "a mount point",
        0xA000_000C => "a symbolic link",
        0xA000_001D | 0x8000_0014 | 0x8000_0023..=0x8000_0026 => "a link or special file of WSL or NFS",
        0xC000_0004 | 0x8000_0006 => "a placeholder of hierarchical storage: its contents are elsewhere",
        0x8000_0018 | 0x9000_1018 | 0xA000_0027 | 0xA000_0031 => {
            "a placeholder of a Windows container: its contents are elsewhere"
        }
        0x9000_001C | 0xA000_0022 => "a placeholder of a projected file system: its contents are elsewhere",
        tag if is_cloud(tag) => "a placeholder of a cloud (OneDrive): its contents are elsewhere",
        _ => "a reparse point of a kind that is not known: its contents may be elsewhere",
    }
}

impl Special {
    /// Description as a predicate without subject.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Encrypted => "encrypted by EFS",
            Self::WofCompressed => "compressed by the WOF filter",
            Self::Deduplicated => "moved to a deduplication store",
            Self::Reparse(tag) => reparse_word(tag),
        }
    }
}

/// A run in eight bytes; VCNs follow from the order.
#[derive(Clone, Copy)]
struct Packed {
    lcn: u32,
    len: u32,
}

const DATA_RESIDENT: u8 = 1;
const DATA_RUNS: u8 = 2;

/// One file; 128 bytes or less, so that ten million fit well into memory.
struct Entry {
    times: Times,
    size: u64,
    valid: u64,
    allocated: u64,
    number: u32,
    runs_at: u32,
    runs_len: u32,
    names_at: u32,
    streams_at: u32,
    children_at: u32,
    children_len: u32,
    attributes: u32,
    reparse: u32,
    security: u32,
    sequence: u16,
    names_len: u16,
    streams_len: u16,
    record_flags: u16,
    data_flags: u16,
    data: u8,
    unit: u8,
    damaged: bool,
    reached: bool,
    is_reparse: bool,
}
const _: () = assert!(size_of::<Entry>() <= 120);

struct Name {
    file: u32,
    parent: u32,
    units_at: u32,
    parent_sequence: u16,
    units_len: u8,
    namespace: Namespace,
}
const _: () = assert!(size_of::<Name>() <= 16);

struct NamedStream {
    size: u64,
    units_at: u32,
    units_len: u8,
}

/// Facts of a file in the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Record and sequence.
    pub id: FileRef,
    /// Whether it is a directory.
    pub directory: bool,
    /// Length of the unnamed data stream.
    pub size: u64,
    /// Bytes of it that have been written.
    pub valid: u64,
    /// Bytes of allocated clusters; 0 when resident.
    pub allocated: u64,
    /// Times of $STANDARD_INFORMATION.
    pub times: Times,
    /// File attributes of $STANDARD_INFORMATION.
    pub attributes: u32,
    /// Id in `$Secure`, 0 if none.
    pub security: u32,
    /// Number of names, without DOS names.
    pub links: u16,
    /// Number of named data streams.
    pub streams: u16,
    /// Whether there is an unnamed data stream.
    pub has_data: bool,
    /// Whether it is inside the record.
    pub resident: bool,
    /// Whether it is compressed.
    pub compressed: bool,
    /// Whether it may have holes.
    pub sparse: bool,
    /// Reason why the data are not plain.
    pub special: Option<Special>,
    /// Whether part of the file could not be read; see [`Catalog::problems`].
    pub damaged: bool,
    /// Whether it is reachable from the root.
    pub reachable: bool,
}

/// One record of the linear scan.
#[derive(Debug)]
pub struct ScannedRecord {
    /// Number of the record in `$MFT`.
    pub number: u64,
    /// The file, or the reason why it could not be read. Free records and extension records are not reported.
    pub file: Result<FileRecord, NtfsError>,
}

/// All files and directories of a volume.
pub struct Catalog {
    entries: Vec<Entry>,
    names: Vec<Name>,
    /// Short names of files with a long one, as listed in directories: sorted by directory and name.
    short: Vec<Name>,
    units: Vec<u16>,
    /// Names found in the index of their directory, one bit each.
    listed: Vec<u64>,
    children: Vec<u32>,
    runs: Vec<Packed>,
    streams: Vec<NamedStream>,
    orphans: Vec<NameId>,
    nameless: Vec<FileId>,
    problems: Vec<NtfsError>,
    problems_total: u64,
}

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (files, names, problems) = (self.entries.len(), self.names.len(), self.problems_total);
        write!(f, "Catalog({files} files, {names} names, {problems} problems)")
    }
}

impl Volume {
    /// Reads `$MFT` from end to end in long ascending reads and passes every file to `see`.
    ///
    /// Files with attribute lists come last, when their other records have been seen. Device errors cost the records
    /// concerned, not the scan.
    ///
    /// # Errors
    /// Only errors returned by `see`.
    pub fn scan<R: ReadAt>(
        &self,
        reader: &mut R,
        mut see: impl FnMut(ScannedRecord) -> Result<(), NtfsError>,
    ) -> Result<(), NtfsError> {
        let mut stash = Stash::default();
        let mut later: Vec<u32> = Vec::new();
        let mut outcome = Ok(());
        each_record(self, reader, |reader, number, bytes| {
            if outcome.is_err() {
                return;
            }
            let parsed = bytes.and_then(|bytes| match Record::new(bytes) {
                Ok(record) => Ok((bytes, record)),
                Err(fault) => {
                    let place = VolumePlace { record: Some(number), attribute: None, offset: Some(fault.at as u64) };
                    Err(NtfsError::corrupt(place, fault.what))
                }
            });
            outcome = match parsed {
                Err(error) => see(ScannedRecord { number, file: Err(error) }),
                Ok((_, record)) if !record.in_use() => Ok(()),
                Ok((bytes, record)) if record.header.base_record.get() != 0 => {
                    stash.keep(number, bytes);
                    Ok(())
                }
                Ok((bytes, record)) if file::has_list(&record) => {
                    stash.keep(number, bytes);
                    later.push(number as u32);
                    Ok(())
                }
                Ok((_, record)) => {
                    see(ScannedRecord { number, file: file::gather(self, reader, number, &record, None) })
                }
            };
        });
        outcome?;
        for number in later.into_iter().map(u64::from) {
            let bytes = match stash.get(number) {
                Some(bytes) => Ok(bytes.to_vec()),
                None => self.read_record(reader, number),
            };
            let file = bytes.and_then(|bytes| {
                let record =
                    Record::new(&bytes).map_err(|fault| NtfsError::corrupt(VolumePlace::record(number), fault.what))?;
                file::gather(self, reader, number, &record, Some(&stash))
            });
            see(ScannedRecord { number, file })?;
        }
        Ok(())
    }

    /// The catalog of the whole volume.
    ///
    /// # Errors
    /// The volume exceeds the limits of a catalog; damage is in [`Catalog::problems`].
    pub fn catalog<R: ReadAt>(&self, reader: &mut R) -> Result<Catalog, NtfsError> {
        let mut catalog = Catalog {
            entries: Vec::new(),
            names: Vec::new(),
            short: Vec::new(),
            units: Vec::new(),
            listed: Vec::new(),
            children: Vec::new(),
            runs: Vec::new(),
            streams: Vec::new(),
            orphans: Vec::new(),
            nameless: Vec::new(),
            problems: Vec::new(),
            problems_total: 0,
        };
        let mut directories = Directories::default();
        self.scan(reader, |record| {
            match record.file {
                Ok(file) => {
                    catalog.add(&file)?;
                    if file.is_directory() {
                        directories.add(self, file);
                    }
                }
                Err(error) => catalog.problem(error),
            }
            Ok(())
        })?;
        directories.finish(self, reader);
        catalog.finish(self, directories);
        Ok(catalog)
    }
}

impl Catalog {
    fn problem(&mut self, error: NtfsError) {
        self.problems_total += 1;
        if self.problems.len() < limits::PROBLEMS_KEPT_MAX {
            self.problems.push(error);
        }
    }

    fn push_units(&mut self, name: &[u16], place: VolumePlace) -> Result<(u32, u8), NtfsError> {
        if self.units.len() + name.len() > limits::NAME_UNITS_MAX {
            return Err(NtfsError::limit(place, "too many names"));
        }
        let at = self.units.len() as u32;
        self.units.extend_from_slice(name);
        Ok((at, name.len() as u8))
    }

    fn add(&mut self, file: &FileRecord) -> Result<(), NtfsError> {
        let place = VolumePlace::record(file.id.record);
        let index = self.entries.len() as u32;
        for error in &file.damage {
            self.problem(error.clone());
        }
        let names_at = self.names.len() as u32;
        self.add_names(file, index)?;
        let streams_at = self.streams.len() as u32;
        for stream in file.streams.iter().filter(|stream| stream.ty == types::DATA && !stream.name.is_empty()) {
            let (units_at, units_len) = self.push_units(&stream.name, place)?;
            self.streams.push(NamedStream { size: stream.size, units_at, units_len });
        }
        let mut entry = Entry {
            times: file.standard.times,
            size: 0,
            valid: 0,
            allocated: 0,
            number: file.id.record as u32,
            runs_at: self.runs.len() as u32,
            runs_len: 0,
            names_at,
            streams_at,
            children_at: 0,
            children_len: 0,
            attributes: file.standard.attributes,
            reparse: file.reparse_tag.unwrap_or(0),
            security: file.standard.security.unwrap_or(0),
            sequence: file.id.sequence,
            names_len: (self.names.len() as u32 - names_at).min(u32::from(u16::MAX)) as u16,
            streams_len: (self.streams.len() as u32 - streams_at).min(u32::from(u16::MAX)) as u16,
            record_flags: file.flags,
            data_flags: 0,
            data: 0,
            unit: 0,
            damaged: !file.damage.is_empty(),
            reached: false,
            is_reparse: !is_hydrated(file) && (file.reparse_tag.is_some() || file.standard.attributes & 0x400 != 0),
        };
        self.add_data(&mut entry, file)?;
        self.entries.push(entry);
        Ok(())
    }

    /// Adds the names of the file that becomes entry `index`.
    fn add_names(&mut self, file: &FileRecord, index: u32) -> Result<(), NtfsError> {
        let place = VolumePlace::record(file.id.record);
        let only_dos = file.names.iter().all(|name| name.namespace == Namespace::Dos);
        for name in &file.names {
            let is_short = name.namespace == Namespace::Dos && !only_dos;
            let Ok(parent) = u32::try_from(name.parent.record) else {
                if !is_short {
                    self.problem(NtfsError::corrupt(place, "parent outside $MFT"));
                }
                continue;
            };
            let (units_at, units_len) = self.push_units(&name.name, place)?;
            let names = if is_short { &mut self.short } else { &mut self.names };
            names.push(Name {
                file: index,
                parent,
                units_at,
                parent_sequence: name.parent.sequence,
                units_len,
                namespace: name.namespace,
            });
        }
        Ok(())
    }

    /// Enters size and runs of the unnamed stream.
    fn add_data(&mut self, entry: &mut Entry, file: &FileRecord) -> Result<(), NtfsError> {
        let Some(stream) = file.data(&[]) else { return Ok(()) };
        (entry.size, entry.valid, entry.allocated) = (stream.size, stream.valid, stream.allocated());
        (entry.data_flags, entry.unit) = (stream.flags, stream.unit);
        entry.data = if stream.is_resident() { DATA_RESIDENT } else { DATA_RUNS };
        let runs = stream.runs();
        if self.runs.len() + runs.len() > limits::RUNS_PER_CATALOG_MAX {
            return Err(NtfsError::limit(VolumePlace::record(file.id.record), "too many fragments"));
        }
        self.runs.extend(runs.iter().map(|run| Packed { lcn: run.lcn, len: run.len }));
        entry.runs_len = runs.len() as u32;
        Ok(())
    }

    /// Matches the directories' entries with the names of the files.
    fn match_names(&mut self, directories: Directories) {
        let Directories { mut listed, problems, problems_total, .. } = directories;
        self.problems_total += problems_total - problems.len() as u64;
        problems.into_iter().for_each(|problem| self.problem(problem));
        listed.sort_unstable_by_key(|entry| (entry.child, entry.key));
        self.listed = vec![0; self.names.len().div_ceil(64)];
        for (at, name) in self.names.iter().enumerate() {
            let entry = &self.entries[name.file as usize];
            let child = FileRef { record: u64::from(entry.number), sequence: entry.sequence };
            let parent = FileRef { record: u64::from(name.parent), sequence: name.parent_sequence };
            let units = &self.units[name.units_at as usize..][..usize::from(name.units_len)];
            let key = directory::key(directory::raw_reference(parent), units.iter().copied());
            let wanted = (directory::raw_reference(child), key);
            let first = listed.partition_point(|entry| (entry.child, entry.key) < wanted);
            if let Some(found) = listed.get_mut(first).filter(|entry| (entry.child, entry.key) == wanted) {
                found.is_matched = true;
                self.listed[at / 64] |= 1 << (at % 64);
            }
        }
        let short = std::mem::take(&mut self.short).into_iter().filter(|name| {
            let entry = &self.entries[name.file as usize];
            let child = FileRef { record: u64::from(entry.number), sequence: entry.sequence };
            let parent = FileRef { record: u64::from(name.parent), sequence: name.parent_sequence };
            let units = &self.units[name.units_at as usize..][..usize::from(name.units_len)];
            let key = directory::key(directory::raw_reference(parent), units.iter().copied());
            let wanted = (directory::raw_reference(child), key);
            listed.binary_search_by_key(&wanted, |entry| (entry.child, entry.key)).is_ok()
        });
        self.short = short.collect();
        for entry in listed.iter().filter(|entry| !entry.is_matched) {
            let child = FileRef::from_raw(entry.child);
            let known = self.index_of(child.record).map(|index| &self.entries[index as usize]);
            let what = match known {
                None => "index entry of a file that is not in use",
                Some(known) if known.sequence != child.sequence => {
                    "index entry of a record that is another file by now"
                }
                // Short names of files with a long one are only another way to find these.
                Some(_) if entry.is_dos => continue,
                Some(_) => "index entry of a file that has no such name in this directory",
            };
            let place = VolumePlace::stream(u64::from(entry.parent), types::INDEX_ROOT, 0);
            self.problem(NtfsError::corrupt(place, what));
        }
    }

    fn is_listed(&self, name: u32) -> bool {
        self.listed[name as usize / 64] & 1 << (name % 64) != 0
    }

    /// Builds the tree.
    fn finish(&mut self, volume: &Volume, directories: Directories) {
        self.sort_entries();
        self.match_names(directories);
        self.sort_short(volume);
        let children = self.attached();
        self.set_children(children, volume);
        self.entries.shrink_to_fit();
        self.names.shrink_to_fit();
        self.short.shrink_to_fit();
        self.units.shrink_to_fit();
        self.runs.shrink_to_fit();
        self.streams.shrink_to_fit();
        self.mark_reached();
        self.report_unreached();
    }

    /// Sorts the entries by record number.
    fn sort_entries(&mut self) {
        if !self.entries.is_sorted_by_key(|entry| entry.number) {
            // Files with attribute lists came last. Names point at entries by index: carry them along.
            let mut order: Vec<u32> = (0..self.entries.len() as u32).collect();
            order.sort_by_key(|index| self.entries[*index as usize].number);
            let mut moved = vec![0u32; order.len()];
            for (new, old) in order.iter().enumerate() {
                moved[*old as usize] = new as u32;
            }
            for name in self.names.iter_mut().chain(&mut self.short) {
                name.file = moved[name.file as usize];
            }
            self.entries.sort_by_key(|entry| entry.number);
        }
    }

    /// Names that their directories list; the others become orphans.
    fn attached(&mut self) -> Vec<u32> {
        let mut children: Vec<u32> = Vec::with_capacity(self.names.len());
        let mut last: Option<(u32, Option<u32>)> = None;
        for index in 0..self.names.len() {
            let name = &self.names[index];
            if name.parent == name.file && self.entries[name.file as usize].number == name.parent {
                continue;
            }
            let number = self.entries[name.file as usize].number;
            if u64::from(number) == records::ROOT && u64::from(name.parent) == records::ROOT {
                continue;
            }
            let parent = match last {
                Some((number, found)) if number == name.parent => found,
                _ => self.index_of(u64::from(name.parent)),
            };
            last = Some((name.parent, parent));
            let what = match parent.map(|parent| &self.entries[parent as usize]) {
                None => Some("its directory does not exist"),
                Some(parent) if parent.record_flags & record_flag::DIRECTORY == 0 => {
                    Some("its parent is not a directory")
                }
                Some(parent) if parent.sequence != name.parent_sequence => Some("its directory is another one by now"),
                Some(_) if !self.is_listed(index as u32) => Some("no directory lists it by this name"),
                Some(_) => None,
            };
            match what {
                None => children.push(index as u32),
                Some(what) => {
                    self.orphans.push(NameId(index as u32));
                    self.problem(NtfsError::corrupt(VolumePlace::stream(u64::from(number), types::FILE_NAME, 0), what));
                }
            }
        }
        children
    }

    /// Sorts names by directory and within it, and gives each directory its range of them.
    fn set_children(&mut self, mut children: Vec<u32>, volume: &Volume) {
        let upcase = volume.upcase();
        let (names, units) = (&self.names, &self.units);
        let text = |name: &Name| &units[name.units_at as usize..][..usize::from(name.units_len)];
        children.sort_by(|a, b| {
            let (a, b) = (&names[*a as usize], &names[*b as usize]);
            a.parent.cmp(&b.parent).then_with(|| upcase.cmp(text(a), text(b)))
        });
        let mut at = 0;
        while at < children.len() {
            let parent = self.names[children[at] as usize].parent;
            let len = children[at..].partition_point(|child| self.names[*child as usize].parent == parent);
            if let Some(index) = self.index_of(u64::from(parent)) {
                let entry = &mut self.entries[index as usize];
                (entry.children_at, entry.children_len) = (at as u32, len as u32);
            }
            at += len;
        }
        self.children = children;
    }

    /// Reports files without a name, and directories that the root does not reach.
    fn report_unreached(&mut self) {
        for index in 0..self.entries.len() {
            let entry = &self.entries[index];
            let number = u64::from(entry.number);
            if entry.names_len == 0 && number >= records::FIRST_FREE {
                self.nameless.push(FileId(index as u32));
                self.problem(NtfsError::corrupt(VolumePlace::record(number), "file without a name"));
            } else if entry.record_flags & record_flag::DIRECTORY != 0 && !entry.reached {
                let own: Range<u32> = entry.names_at..entry.names_at + u32::from(entry.names_len);
                if !own.clone().any(|name| self.orphans.binary_search(&NameId(name)).is_ok()) {
                    self.problem(NtfsError::corrupt(
                        VolumePlace::record(number),
                        "directory not reachable from the root",
                    ));
                }
            }
        }
    }

    fn mark_reached(&mut self) {
        let Some(root) = self.index_of(records::ROOT) else { return };
        let mut pending = vec![root];
        self.entries[root as usize].reached = true;
        while let Some(directory) = pending.pop() {
            let entry = &self.entries[directory as usize];
            for child in entry.children_at..entry.children_at + entry.children_len {
                let file = self.names[self.children[child as usize] as usize].file;
                let entry = &mut self.entries[file as usize];
                // A second path to a directory is not followed: that breaks cycles.
                if !entry.reached {
                    entry.reached = true;
                    if entry.record_flags & record_flag::DIRECTORY != 0 {
                        pending.push(file);
                    }
                }
            }
        }
    }

    fn index_of(&self, number: u64) -> Option<u32> {
        let number = u32::try_from(number).ok()?;
        // No entry has an index above its own record number.
        let end = self.entries.len().min(number as usize + 1);
        self.entries[..end].binary_search_by_key(&number, |entry| entry.number).ok().map(|index| index as u32)
    }

    /// Files and directories in use, metafiles included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no file was found.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of memory that the catalog takes.
    pub fn memory_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
            + (self.names.capacity() + self.short.capacity()) * size_of::<Name>()
            + self.units.capacity() * 2
            + self.children.capacity() * 4
            + self.listed.capacity() * 8
            + self.runs.capacity() * size_of::<Packed>()
            + self.streams.capacity() * size_of::<NamedStream>()
    }

    /// All files in the order of their records.
    pub fn files(&self) -> impl Iterator<Item = FileId> + use<> {
        (0..self.entries.len() as u32).map(FileId)
    }

    /// The root directory.
    pub fn root(&self) -> Option<FileId> {
        self.index_of(records::ROOT).map(FileId)
    }

    /// The file of a record.
    pub fn by_record(&self, number: u64) -> Option<FileId> {
        self.index_of(number).map(FileId)
    }

    /// Whether the file belongs to NTFS itself: records below 24, and everything below `$Extend`.
    pub fn is_metafile(&self, id: FileId) -> bool {
        let mut number = u64::from(self.entries[id.0 as usize].number);
        let mut at = id;
        for _ in 0..8 {
            if number == records::ROOT {
                return at == id;
            }
            if number < records::FIRST_FREE {
                return true;
            }
            let Some(name) = self.names(at).next() else { return false };
            number = u64::from(self.names[name.0 as usize].parent);
            match self.index_of(number) {
                Some(parent) => at = FileId(parent),
                None => return false,
            }
        }
        false
    }

    /// Facts of a file.
    pub fn info(&self, id: FileId) -> FileInfo {
        let entry = &self.entries[id.0 as usize];
        let special = if entry.data_flags & attr_flag::ENCRYPTED != 0 {
            Some(Special::Encrypted)
        } else if entry.is_reparse {
            Some(match entry.reparse {
                TAG_WOF => Special::WofCompressed,
                TAG_DEDUP => Special::Deduplicated,
                tag => Special::Reparse(tag),
            })
        } else {
            None
        };
        FileInfo {
            id: FileRef { record: u64::from(entry.number), sequence: entry.sequence },
            directory: entry.record_flags & record_flag::DIRECTORY != 0,
            size: entry.size,
            valid: entry.valid,
            allocated: entry.allocated,
            times: entry.times,
            attributes: entry.attributes,
            security: entry.security,
            links: entry.names_len,
            streams: entry.streams_len,
            has_data: entry.data != 0,
            resident: entry.data == DATA_RESIDENT,
            compressed: entry.data_flags & attr_flag::COMPRESSED != 0,
            sparse: entry.data_flags & attr_flag::SPARSE != 0,
            special,
            damaged: entry.damaged,
            reachable: entry.reached,
        }
    }

    /// Names of a file; one for each hard link.
    pub fn names(&self, id: FileId) -> impl Iterator<Item = NameId> + use<> {
        let entry = &self.entries[id.0 as usize];
        (entry.names_at..entry.names_at + u32::from(entry.names_len)).map(NameId)
    }

    /// The UTF-16 units of a name.
    pub fn name(&self, id: NameId) -> &[u16] {
        let name = &self.names[id.0 as usize];
        &self.units[name.units_at as usize..][..usize::from(name.units_len)]
    }

    /// Name space of a name.
    pub fn namespace(&self, id: NameId) -> Namespace {
        self.names[id.0 as usize].namespace
    }

    /// The file of a name.
    pub fn file_of(&self, id: NameId) -> FileId {
        FileId(self.names[id.0 as usize].file)
    }

    /// Names in a directory, in the volume's own order.
    pub fn children(&self, directory: FileId) -> impl ExactSizeIterator<Item = NameId> + '_ {
        self.child_range(directory).iter().map(|name| NameId(*name))
    }

    fn child_range(&self, directory: FileId) -> &[u32] {
        let entry = &self.entries[directory.0 as usize];
        &self.children[entry.children_at as usize..][..entry.children_len as usize]
    }

    /// Named data streams: name and length.
    pub fn streams(&self, id: FileId) -> impl Iterator<Item = (&[u16], u64)> + '_ {
        let entry = &self.entries[id.0 as usize];
        self.streams[entry.streams_at as usize..][..usize::from(entry.streams_len)]
            .iter()
            .map(|stream| (&self.units[stream.units_at as usize..][..usize::from(stream.units_len)], stream.size))
    }

    /// Follows a path from the root: `\dir\file`, or with `/`. Each part is matched exactly first, then ignoring case.
    pub fn lookup(&self, volume: &Volume, path: &str) -> Option<FileId> {
        let mut at = self.root()?;
        for part in path.split(['\\', '/']).filter(|part| !part.is_empty()) {
            let part: Vec<u16> = part.encode_utf16().collect();
            at = self.file_of(self.child(volume, at, &part)?);
        }
        Some(at)
    }

    fn sort_short(&mut self, volume: &Volume) {
        let mut short = std::mem::take(&mut self.short);
        short.sort_by(|a, b| {
            a.parent.cmp(&b.parent).then_with(|| volume.upcase().cmp_folded(self.units_of(a), self.units_of(b)))
        });
        self.short = short;
    }

    fn units_of(&self, name: &Name) -> &[u16] {
        &self.units[name.units_at as usize..][..usize::from(name.units_len)]
    }

    /// The long name of a file in a directory that lists it by this short name too.
    fn by_short_name(&self, volume: &Volume, directory: FileId, name: &[u16]) -> Option<NameId> {
        let parent = self.entries[directory.0 as usize].number;
        let before = |other: &Name| {
            other.parent.cmp(&parent).then_with(|| volume.upcase().cmp_folded(self.units_of(other), name)).is_lt()
        };
        let found = self.short.get(self.short.partition_point(before))?;
        let is_it = found.parent == parent && volume.upcase().same(self.units_of(found), name);
        let long = |id: &NameId| self.names[id.0 as usize].parent == parent && self.is_listed(id.0);
        if is_it { self.names(FileId(found.file)).find(long) } else { None }
    }

    /// A name in a directory: matched exactly, then ignoring case, then by short (8.3) name; as Windows finds it.
    pub fn child(&self, volume: &Volume, directory: FileId, name: &[u16]) -> Option<NameId> {
        let range = self.child_range(directory);
        let text = |child: &u32| self.name(NameId(*child));
        let first = range.partition_point(|child| volume.upcase().cmp_folded(text(child), name).is_lt());
        let same = range[first..].iter().take_while(|child| volume.upcase().same(text(child), name));
        let exact = same.clone().find(|child| text(child) == name);
        let found = exact.or(same.into_iter().next()).map(|child| NameId(*child));
        found.or_else(|| self.by_short_name(volume, directory, name))
    }

    /// The name through which the file is reached from the root.
    pub fn reached_by(&self, id: FileId) -> Option<NameId> {
        self.names(id).find(|name| self.path(*name).is_some())
    }

    /// The path of a name, `\` before every part; `None` if it is not reachable from the root.
    pub fn path(&self, id: NameId) -> Option<Vec<u16>> {
        if !self.is_listed(id.0) {
            return None;
        }
        let mut parts = vec![id];
        let mut units = 0;
        let mut at = id;
        for _ in 0..limits::PATH_DEPTH_MAX {
            units += self.name(at).len() + 1;
            let name = &self.names[at.0 as usize];
            let parent = self.index_of(u64::from(name.parent))?;
            let entry = &self.entries[parent as usize];
            if entry.sequence != name.parent_sequence || !entry.reached {
                return None;
            }
            if u64::from(entry.number) == records::ROOT {
                let mut path = Vec::with_capacity(units);
                for part in parts.iter().rev() {
                    path.push(u16::from(b'\\'));
                    path.extend_from_slice(self.name(*part));
                }
                return Some(path);
            }
            at = self.names(FileId(parent)).find(|name| self.is_listed(name.0))?;
            parts.push(at);
        }
        None
    }

    /// Extents of the unnamed data, in file order; empty if there is none.
    ///
    /// # Errors
    /// The mapping contradicts the size.
    pub fn extents(&self, volume: &Volume, id: FileId) -> Result<Vec<DataRun>, NtfsError> {
        let entry = &self.entries[id.0 as usize];
        match entry.data {
            DATA_RESIDENT => {
                let place = RunPlace::Resident { record: u64::from(entry.number) };
                Ok(vec![DataRun { offset: 0, len: entry.size, place }])
            }
            DATA_RUNS => volume.extents(&self.mapped(entry)),
            _ => Ok(Vec::new()),
        }
    }

    /// Offset of the unnamed data on the volume (of the record if it is resident): the key for disk order.
    pub fn first_byte(&self, volume: &Volume, id: FileId) -> Option<VolumeOffset> {
        let entry = &self.entries[id.0 as usize];
        match entry.data {
            DATA_RESIDENT => volume.record_at(u64::from(entry.number)),
            _ => {
                let runs = &self.runs[entry.runs_at as usize..][..entry.runs_len as usize];
                let first = runs.iter().find(|run| run.lcn != RawRun::HOLE)?;
                Some(VolumeOffset(u64::from(first.lcn) * volume.geometry().cluster.bytes()))
            }
        }
    }

    fn mapped(&self, entry: &Entry) -> Stream {
        let packed = &self.runs[entry.runs_at as usize..][..entry.runs_len as usize];
        let mut vcn = 0;
        let runs = packed.iter().map(|run| {
            let run = RawRun { vcn, lcn: run.lcn, len: run.len };
            // Cannot overflow: the runs came from one stream whose end fits 32 bits.
            vcn = vcn.wrapping_add(run.len);
            run
        });
        Stream {
            record: u64::from(entry.number),
            ty: types::DATA,
            name: Vec::new(),
            flags: entry.data_flags,
            unit: entry.unit,
            size: entry.size,
            valid: entry.valid,
            allocated: entry.allocated,
            total: None,
            content: Content::Runs(runs.collect()),
        }
    }

    /// The unnamed data as a stream for [`Volume::read_range`]. Reads the record only if the data is in it.
    ///
    /// # Errors
    /// There are no data, or they are not the file's content ([`Special`]): a file with a reparse point can only be
    /// opened with the software that set it, and its clusters may be holes.
    pub fn open<R: ReadAt>(&self, volume: &Volume, reader: &mut R, id: FileId) -> Result<Stream, NtfsError> {
        let entry = &self.entries[id.0 as usize];
        let place = VolumePlace::stream(u64::from(entry.number), types::DATA, 0);
        if let Some(special) = self.info(id).special {
            return Err(NtfsError::unsupported(place, special.describe()));
        }
        match entry.data {
            DATA_RUNS => Ok(self.mapped(entry)),
            DATA_RESIDENT => {
                let mut file = volume.open_file(reader, u64::from(entry.number))?;
                let found = file.streams.iter().position(|stream| stream.ty == types::DATA && stream.name.is_empty());
                found.map(|index| file.streams.swap_remove(index)).ok_or(NtfsError::not_found(place))
            }
            _ => Err(NtfsError::not_found(place)),
        }
    }

    /// Names whose directory is missing, or does not list them.
    pub fn orphans(&self) -> &[NameId] {
        &self.orphans
    }

    /// Files in use without a name.
    pub fn nameless(&self) -> &[FileId] {
        &self.nameless
    }

    /// Damage with its place; the first ten thousand.
    pub fn problems(&self) -> &[NtfsError] {
        &self.problems
    }

    /// Number of all problems.
    pub fn problem_count(&self) -> u64 {
        self.problems_total
    }

    /// Whether a device error kept any record from being read.
    pub fn has_read_errors(&self) -> bool {
        self.problems.iter().any(|problem| matches!(problem.kind, ErrorKind::Read(_)))
    }
}

/// Reads `$MFT` from end to end; passes on every record that was ever used, fixups undone.
///
/// A chunk that cannot be read is tried again record by record, so that a bad sector costs only its own records.
pub(super) fn each_record<R: ReadAt>(
    volume: &Volume,
    reader: &mut R,
    mut see: impl FnMut(&mut R, u64, Result<&[u8], NtfsError>),
) {
    let size = volume.geometry().record_bytes as usize;
    let count = volume.record_count();
    let per_read = (limits::SCAN_BYTES / size) as u64;
    let mut chunk = vec![0; limits::SCAN_BYTES];
    let mut first = 0;
    while first < count {
        let here = per_read.min(count - first) as usize;
        let bytes = &mut chunk[..here * size];
        let whole = volume.read_range(reader, volume.mft(), first * size as u64, bytes).is_ok();
        for (index, bytes) in bytes.chunks_exact_mut(size).enumerate() {
            let number = first + index as u64;
            if !whole && let Err(error) = volume.read_range(reader, volume.mft(), number * size as u64, bytes) {
                see(reader, number, Err(error));
                continue;
            }
            // Windows leaves records that never were in use all zero (docs/spec/ntfs.md#bitmaps).
            if bytes[..4] == [0; 4] {
                continue;
            }
            match raw::undo_fixups(bytes, *b"FILE", 0x2A) {
                Ok(()) => see(reader, number, Ok(bytes)),
                Err(fault) => {
                    let place = VolumePlace { record: Some(number), attribute: None, offset: Some(fault.at as u64) };
                    see(reader, number, Err(NtfsError::corrupt(place, fault.what)));
                }
            }
        }
        first += here as u64;
    }
}

/// A name for display: ill-formed UTF-16 becomes U+FFFD.
pub fn display_name(name: &[u16]) -> String {
    String::from_utf16_lossy(name)
}
