//! Our own file system check: every rule of the format that can be tested without a driver.
//!
//! It compares redundant facts: index entries with records, bitmaps with actual use, mirrors with their originals. It
//! repairs nothing.

mod metafiles;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use zerocopy::little_endian::U32;

use super::catalog::each_record;
use super::error::{NtfsError, ReadAt, VolumePlace};
use super::file::{self, FileRecord, FileRef, Namespace, Stream};
use super::index::{self, Index, IndexStep, Node};
use super::limits;
use super::raw::{self, Attribute, Body, Record, types, view};
use super::volume::{BackupBoot, I30, LogState, Volume, records};
use crate::format::{FIXUP_STRIDE, FileNameHeader, attr_flag, record_flag};

/// Severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Odd, but seen on sound volumes.
    Note,
    /// Windows may complain or repair; files are readable.
    Warning,
    /// The volume contradicts itself.
    Error,
}

/// A finding of the check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its severity.
    pub severity: Severity,
    /// Structure that the finding is about.
    pub place: VolumePlace,
    /// The fault, as a sentence without full stop.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{severity}: {}: {}", self.place, self.what)
    }
}

/// Result of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Findings in the order of the checks; the first ten thousand.
    pub findings: Vec<Finding>,
    /// Number of all findings.
    pub total: u64,
    /// Base records in use.
    pub files: u64,
    /// Directories among them.
    pub directories: u64,
    /// Index entries compared.
    pub index_entries: u64,
    /// Clusters that records use.
    pub clusters_used: u64,
}

impl CheckReport {
    /// The worst finding; `None` if there is none.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    /// No error and no warning.
    pub fn is_sound(&self) -> bool {
        self.worst().is_none_or(|worst| worst < Severity::Warning)
    }

    fn add(&mut self, severity: Severity, place: VolumePlace, what: impl Into<String>) {
        self.total += 1;
        if self.findings.len() < limits::PROBLEMS_KEPT_MAX {
            self.findings.push(Finding { severity, place, what: what.into() });
        }
    }

    fn error(&mut self, place: VolumePlace, what: impl Into<String>) {
        self.add(Severity::Error, place, what);
    }

    fn warning(&mut self, place: VolumePlace, what: impl Into<String>) {
        self.add(Severity::Warning, place, what);
    }

    fn damage(&mut self, error: &NtfsError) {
        /// A record is checked twice, alone and as part of its file: the same damage is reported once.
        const LOOK_BACK: usize = 32;
        let what = error.what();
        let recent = self.findings.iter().rev().take(LOOK_BACK);
        if !recent.into_iter().any(|finding| finding.place == error.place && finding.what == what) {
            self.error(error.place, what);
        }
    }
}

/// A set of clusters, in pages that are allocated only where something is set.
struct ClusterSet {
    pages: Vec<Option<Box<[u64; Self::WORDS]>>>,
    count: u64,
}

impl ClusterSet {
    const WORDS: usize = 512;
    const BITS: u64 = Self::WORDS as u64 * 64;

    fn new(clusters: u64) -> Self {
        Self { pages: (0..clusters.div_ceil(Self::BITS)).map(|_| None).collect(), count: 0 }
    }

    /// Sets a run; returns the first cluster that was already set.
    fn insert(&mut self, start: u64, len: u64) -> Option<u64> {
        let mut clash = None;
        let (mut at, end) = (start, start + len);
        while at < end {
            let page = self.pages[(at / Self::BITS) as usize].get_or_insert_with(|| Box::new([0; Self::WORDS]));
            let word = &mut page[(at % Self::BITS / 64) as usize];
            let bits = (end - at).min(64 - at % 64);
            let mask = (u64::MAX >> (64 - bits)) << (at % 64);
            if *word & mask != 0 && clash.is_none() {
                clash = Some(at / 64 * 64 + u64::from((*word & mask).trailing_zeros()));
            }
            self.count += u64::from((mask & !*word).count_ones());
            *word |= mask;
            at += bits;
        }
        clash
    }

    fn word(&self, index: u64) -> u64 {
        let page = (index / Self::WORDS as u64) as usize;
        self.pages[page].as_ref().map_or(0, |page| page[(index % Self::WORDS as u64) as usize])
    }
}

/// A name in a record or in an index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct NameKey {
    parent: u64,
    child: u64,
    hash: u64,
}

impl NameKey {
    /// `value` is a whole $FILE_NAME. Parent, child, name and name space must agree (docs/spec/ntfs.md#file-names).
    fn new(child: FileRef, head: &FileNameHeader, name: &[zerocopy::little_endian::U16]) -> Self {
        /// FNV-1a, 64 bits.
        const BASIS: u64 = 0xCBF2_9CE4_8422_2325;
        const PRIME: u64 = 0x0100_0000_01B3;
        let mut hash = (BASIS ^ u64::from(head.namespace)).wrapping_mul(PRIME);
        for unit in name {
            hash = (hash ^ u64::from(unit.get())).wrapping_mul(PRIME);
        }
        Self { parent: head.parent.get(), child: child.record | u64::from(child.sequence) << 48, hash }
    }
}

struct Checker<'v> {
    volume: &'v Volume,
    report: CheckReport,
    used: ClusterSet,
    /// Records in use, one bit each.
    in_use: Vec<u64>,
    /// Records that could not be read: their bits in the bitmap are not checked.
    unreadable: Vec<u64>,
    /// Files with clusters that belong to others as well: their indexes are not walked repeatedly.
    crossed: HashSet<u64>,
    names: Vec<NameKey>,
    indexed: Vec<NameKey>,
    directories: Vec<u64>,
    views: Vec<u64>,
    listed: Vec<u64>,
    /// Extension records, each with its base.
    extensions: Vec<(u64, u64)>,
    gathered: Vec<(u64, u64)>,
    /// Security ids in use, with a file for each.
    security: BTreeMap<u32, u64>,
}

impl Volume {
    /// Checks the whole volume. Memory: one bit for each record and used cluster, 48 bytes for each name.
    pub fn check<R: ReadAt>(&self, reader: &mut R) -> CheckReport {
        let mut check = Checker {
            volume: self,
            report: CheckReport::default(),
            used: ClusterSet::new(self.geometry().clusters),
            in_use: vec![0; self.record_count().div_ceil(64) as usize],
            unreadable: vec![0; self.record_count().div_ceil(64) as usize],
            crossed: HashSet::new(),
            names: Vec::new(),
            indexed: Vec::new(),
            directories: Vec::new(),
            views: Vec::new(),
            listed: Vec::new(),
            extensions: Vec::new(),
            gathered: Vec::new(),
            security: BTreeMap::new(),
        };
        check.facts();
        each_record(self, reader, |_, number, bytes| match bytes {
            Ok(bytes) => check.record(number, bytes),
            Err(error) => check.unread(number, &error),
        });
        for number in std::mem::take(&mut check.listed) {
            match self.open_file(reader, number) {
                Ok(file) => check.file(&file),
                Err(error) => check.report.damage(&error),
            }
        }
        check.extension_records();
        for number in std::mem::take(&mut check.directories) {
            check.directory(reader, number);
        }
        check.compare_names();
        for number in std::mem::take(&mut check.views) {
            check.view_indexes(reader, number);
        }
        check.metafiles(reader);
        check.security_ids(reader);
        check.record_bitmap(reader);
        check.cluster_bitmap(reader);
        check.mirror(reader);
        check.report.clusters_used = check.used.count;
        check.report
    }
}

/// Type codes that must be resident, and those that must not (docs/spec/ntfs.md#attribute-headers).
const ALWAYS_RESIDENT: [u32; 8] = [
    types::STANDARD_INFORMATION,
    types::FILE_NAME,
    types::OBJECT_ID,
    types::VOLUME_NAME,
    types::VOLUME_INFORMATION,
    types::INDEX_ROOT,
    types::EA_INFORMATION,
    types::END,
];

impl Checker<'_> {
    fn facts(&mut self) {
        let facts = self.volume.facts();
        for error in &facts.damage {
            self.report.damage(error);
        }
        match facts.backup_boot {
            BackupBoot::Equal => {}
            BackupBoot::Different => {
                self.report.error(VolumePlace::default(), "backup boot sector differs from the first")
            }
            BackupBoot::Missing => self.report.error(VolumePlace::default(), "no backup boot sector"),
            BackupBoot::InUse => self.report.error(VolumePlace::volume(0), "boot sector damaged, its copy is in use"),
        }
        if facts.truncated {
            self.report.error(VolumePlace::default(), "volume is longer than its partition");
        }
        if facts.version != (3, 1) && facts.version != (3, 0) {
            self.report.warning(VolumePlace::record(records::VOLUME), format!("NTFS version {:?}", facts.version));
        }
        if facts.is_dirty() {
            self.report.warning(VolumePlace::record(records::VOLUME), "volume is marked dirty");
        }
        match facts.log {
            LogState::Empty | LogState::Clean | LogState::Chkdsk => {}
            LogState::Dirty => self.report.warning(VolumePlace::record(records::LOG_FILE), "log was not closed"),
            LogState::Unknown => self.report.warning(VolumePlace::record(records::LOG_FILE), "log is not understood"),
        }
        if facts.hibernated {
            self.report.warning(VolumePlace::record(records::ROOT), "hiberfil.sys holds a hibernated system");
        }
    }

    fn unread(&mut self, number: u64, error: &NtfsError) {
        self.unreadable[(number / 64) as usize] |= 1 << (number % 64);
        self.report.damage(error);
    }

    /// Checks one record by itself.
    fn record(&mut self, number: u64, bytes: &[u8]) {
        let place = |at: usize| VolumePlace { record: Some(number), attribute: None, offset: Some(at as u64) };
        let record = match Record::new(bytes) {
            Ok(record) => record,
            Err(fault) => return self.unread(number, &NtfsError::corrupt(place(fault.at), fault.what)),
        };
        if !record.in_use() {
            return;
        }
        self.in_use[(number / 64) as usize] |= 1 << (number % 64);
        let head = record.header;
        let array_at = usize::from(head.protected.fixup_offset.get());
        // Volumes of NT 4 and Windows 2000 have the array at 0x2A and no own number.
        if array_at >= 0x30 && head.record_number.get() != number as u32 {
            self.report.error(place(0x2C), "record has the number of another one");
        }
        if head.bytes_allocated.get() as usize != bytes.len() {
            self.report.error(place(0x1C), "bytes allocated are not the record size");
        }
        let first = (array_at + 2 * usize::from(head.protected.fixup_count.get())).next_multiple_of(8);
        if usize::from(head.first_attribute.get()) != first {
            self.report.warning(place(0x14), "first attribute not right behind the update sequence");
        }
        if head.sequence.get() == 0 {
            self.report.error(place(0x10), "sequence number 0");
        } else if number < 16 && u64::from(head.sequence.get()) != number.max(1) {
            self.report.error(place(0x10), "wrong sequence number of a metafile");
        }
        self.attributes(number, &record);
        let base = FileRef::from_raw(head.base_record.get());
        if head.base_record.get() != 0 {
            self.extensions.push((number, base.record));
            if head.links.get() != 0 {
                self.report.warning(place(0x12), "extension record with links");
            }
            return;
        }
        if file::has_list(&record) {
            self.listed.push(number);
        } else {
            let file = file::alone(self.volume, number, &record);
            self.file(&file);
        }
    }

    fn attributes(&mut self, number: u64, record: &Record<'_>) {
        let place = |at: usize| VolumePlace { record: Some(number), attribute: None, offset: Some(at as u64) };
        let base = record.header.base_record.get();
        let child = if base == 0 {
            FileRef { record: number, sequence: record.header.sequence.get() }
        } else {
            FileRef::from_raw(base)
        };
        let mut ids = HashSet::new();
        let mut previous: Option<Attribute<'_>> = None;
        let mut attributes = record.attributes();
        for attribute in attributes.by_ref() {
            let attribute = match attribute {
                Ok(attribute) => attribute,
                Err(fault) => return self.report.error(place(fault.at), fault.what),
            };
            if !ids.insert(attribute.id) {
                self.report.error(place(attribute.at), format!("attribute id {} used twice", attribute.id));
            }
            if attribute.id >= record.header.next_attribute_id.get() {
                self.report.warning(place(attribute.at), "attribute id not below the next free one");
            }
            if !attribute.ty.is_multiple_of(0x10) || attribute.ty == 0 || attribute.ty > 0x100 && attribute.ty < 0x1000
            {
                self.report.error(place(attribute.at), format!("unknown attribute type {:#x}", attribute.ty));
            }
            if let Some(previous) = previous.replace(attribute)
                && self.attribute_order(&previous, &attribute).is_gt()
            {
                self.report.error(place(attribute.at), "attributes out of order");
            }
            self.attribute(number, child, &attribute);
        }
        let used = record.header.bytes_used.get() as usize;
        if used != (attributes.at + 8).next_multiple_of(8) {
            self.report.warning(place(0x18), "bytes used do not end 8 bytes behind the last attribute");
        }
    }

    fn attribute_order(&self, left: &Attribute<'_>, right: &Attribute<'_>) -> std::cmp::Ordering {
        let lowest = |attribute: &Attribute<'_>| match attribute.body {
            Body::Resident { .. } => 0,
            Body::NonResident(body) => body.lowest,
        };
        let names = |attribute: &Attribute<'_>| file::to_units(attribute.name);
        left.ty
            .cmp(&right.ty)
            .then_with(|| self.volume.upcase().cmp(&names(left), &names(right)))
            .then_with(|| lowest(left).cmp(&lowest(right)))
    }

    fn attribute(&mut self, number: u64, child: FileRef, attribute: &Attribute<'_>) {
        let place = VolumePlace::stream(number, attribute.ty, attribute.at as u64);
        match attribute.body {
            Body::Resident { value, indexed } => {
                if matches!(attribute.ty, types::INDEX_ALLOCATION) {
                    self.report.error(place, "must not be resident");
                }
                if indexed != (attribute.ty == types::FILE_NAME) {
                    self.report.error(place, "wrong indexed flag");
                }
                if attribute.ty == types::FILE_NAME {
                    match raw::file_name(value) {
                        Ok((head, name)) => {
                            self.names.push(NameKey::new(child, head, name));
                            self.legal_name(place, child.record, head.namespace, &file::to_units(name));
                        }
                        Err(fault) => self.report.error(place, fault.what),
                    }
                }
            }
            Body::NonResident(body) => {
                if ALWAYS_RESIDENT.contains(&attribute.ty) {
                    self.report.error(place, "must be resident");
                }
                let scattered = attribute.flags & (attr_flag::COMPRESSED | attr_flag::SPARSE) != 0;
                if body.unit != 0 && !scattered {
                    self.report.warning(place, "compression unit of a plain stream");
                }
                let mut runs = Vec::new();
                let clusters = self.volume.geometry().clusters;
                if let Err(fault) = raw::decode_runs(body.pairs, body.lowest, body.highest, clusters, &mut runs) {
                    return self.report.error(place, fault.what);
                }
                let may_have_holes = scattered || matches!(number, records::BAD_CLUSTERS | records::SECURE);
                if !may_have_holes && runs.iter().any(|run| run.is_hole()) {
                    self.report.error(place, "hole in a plain stream");
                }
                for run in runs.iter().filter(|run| !run.is_hole()) {
                    if let Some(clash) = self.used.insert(u64::from(run.lcn), u64::from(run.len)) {
                        self.report.error(place, format!("cluster {clash} belongs to two streams"));
                        self.crossed.insert(child.record);
                    }
                }
            }
        }
    }

    fn legal_name(&mut self, place: VolumePlace, record: u64, namespace: u8, name: &[u16]) {
        let Some(namespace) = Namespace::from_raw(namespace) else {
            return self.report.error(place, "unknown name space");
        };
        if record < records::FIRST_FREE {
            return;
        }
        let bad = |unit: &u16| *unit < 0x20 || u8::try_from(*unit).is_ok_and(|byte| b"\"*/:<>?\\|".contains(&byte));
        if name.iter().any(bad) {
            self.report.warning(place, "name with characters that Windows does not allow");
        }
        if matches!(name.last(), Some(0x20 | 0x2E)) {
            self.report.warning(place, "name ends with a dot or blank");
        }
        if matches!(namespace, Namespace::Dos | Namespace::Win32AndDos) && !is_short(name) {
            self.report.error(place, "not an 8.3 name, but said to be one");
        }
    }

    /// Checks one file, with all its records.
    fn file(&mut self, file: &FileRecord) {
        let number = file.id.record;
        let place = VolumePlace::record(number);
        self.report.files += 1;
        for error in &file.damage {
            self.report.damage(error);
        }
        self.gathered.extend(file.extensions.iter().map(|extension| (*extension, number)));
        if usize::from(file.links) != file.names.len() {
            let what = format!("link count {} for {} names", file.links, file.names.len());
            self.report.error(place, what);
        }
        if file.names.is_empty() && number >= records::FIRST_FREE {
            self.report.error(place, "file without a name");
        }
        if !file.has_standard {
            self.report.error(place, "no standard information");
        }
        let own_descriptor = file.stream(types::SECURITY_DESCRIPTOR, &[]).is_some();
        match file.standard.security {
            Some(id) if id != 0 => {
                self.security.entry(id).or_insert(number);
                if own_descriptor {
                    self.report.warning(place, "security id and a descriptor of its own");
                }
            }
            _ if !own_descriptor => self.report.add(Severity::Note, place, "no security descriptor"),
            _ => {}
        }
        if file.is_directory() {
            self.directories.push(number);
            self.report.directories += 1;
        }
        if file.is_directory() != file.stream(types::INDEX_ROOT, &I30).is_some() {
            self.report.error(place, "directory flag and index do not agree");
        }
        if file.flags & record_flag::VIEW_INDEX != 0 {
            self.views.push(number);
        } else if file.streams.iter().any(|stream| stream.ty == types::INDEX_ROOT && stream.name != I30) {
            self.report.error(place, "view index without its flag");
        }
        if file.reparse_tag.is_some() != (file.standard.attributes & 0x400 != 0) {
            self.report.error(place, "reparse point and its attribute bit do not agree");
        }
        let mut last: Option<&Stream> = None;
        for stream in &file.streams {
            if last.is_some_and(|last| last.ty == stream.ty && last.name == stream.name) {
                self.report.error(stream.place(0), "two streams of one name");
            }
            last = Some(stream);
            self.stream(stream);
        }
    }

    fn stream(&mut self, stream: &Stream) {
        if stream.is_resident() {
            return;
        }
        let cluster = self.volume.geometry().cluster.bytes();
        let mapped = stream.runs().last().map_or(0, |run| run.end()) * cluster;
        if stream.allocated != mapped {
            let what = format!("allocated size {} but {mapped} bytes are mapped", stream.allocated);
            self.report.error(stream.place(0), what);
        }
        let stored = stream.runs().iter().filter(|run| !run.is_hole());
        let stored = stored.map(|run| u64::from(run.len)).sum::<u64>() * cluster;
        if let Some(total) = stream.total
            && total != stored
        {
            let what = format!("total allocated size {total} but {stored} bytes are allocated");
            self.report.error(stream.place(0), what);
        }
        if (stream.is_compressed() || stream.is_sparse()) && stream.total.is_none() && mapped > 0 {
            self.report.warning(stream.place(0), "no total allocated size");
        }
        if stream.is_compressed() && stream.unit > 0 && !(mapped / cluster).is_multiple_of(1 << stream.unit) {
            self.report.warning(stream.place(0), "compressed stream ends inside a unit");
        }
        if stream.is_compressed()
            && let Err(error) = self.volume.extents(stream)
        {
            self.report.damage(&error);
        }
    }

    fn extension_records(&mut self) {
        self.extensions.sort_unstable();
        self.gathered.sort_unstable();
        for (extension, base) in &self.extensions {
            if self.gathered.binary_search(&(*extension, *base)).is_err() {
                let what = format!("extension record that record {base} does not list");
                self.report.error(VolumePlace::record(*extension), what);
            }
        }
    }

    fn walkable<R: ReadAt>(&self, reader: &mut R, number: u64) -> Option<FileRecord> {
        // A file that cannot be opened has been reported as a record.
        self.volume.open_file(reader, number).ok().filter(|_| !self.crossed.contains(&number))
    }

    fn directory<R: ReadAt>(&mut self, reader: &mut R, number: u64) {
        let Some(file) = self.walkable(reader, number) else { return };
        let mut indexed = std::mem::take(&mut self.indexed);
        let own = file.id;
        self.index(reader, &file, &I30, |report, volume, place, key, entry, previous| {
            let (head, name) = match raw::file_name(key) {
                Ok(found) => found,
                Err(fault) => return report.error(place, fault.what),
            };
            if key.len() != size_of::<FileNameHeader>() + name.len() * 2 {
                report.error(place, "key is longer than its name");
            }
            let parent = FileRef::from_raw(head.parent.get());
            if parent != own {
                report.error(place, "index entry belongs to another directory");
            }
            indexed.push(NameKey::new(FileRef::from_raw(entry.reference), head, name));
            if let Some(previous) = previous
                && let Ok((_, before)) = raw::file_name(previous)
                && volume.upcase().cmp(&file::to_units(before), &file::to_units(name)).is_ge()
            {
                report.error(place, "index entries out of order");
            }
        });
        self.indexed = indexed;
    }

    fn view_indexes<R: ReadAt>(&mut self, reader: &mut R, number: u64) {
        let Some(file) = self.walkable(reader, number) else { return };
        let names = file.streams.iter().filter(|stream| stream.ty == types::INDEX_ROOT && stream.name != I30);
        for name in names.map(|stream| stream.name.clone()).collect::<Vec<_>>() {
            let rule = Index::open(self.volume, &file, &name).map_or(0, |index| index.rule);
            self.index(reader, &file, &name, |report, _, place, key, _, previous| {
                let words = |key: &[u8]| -> Vec<u32> {
                    key.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect()
                };
                // The order of SIDs (0x11) with more than one entry is not certain (docs/spec/ntfs.md#not-certain).
                if matches!(rule, 0x10 | 0x12 | 0x13) && previous.is_some_and(|previous| words(previous) >= words(key))
                {
                    report.error(place, "index entries out of order");
                }
            });
        }
    }

    /// Checks an index; `see` checks the keys, in order, each with the one before.
    fn index<R: ReadAt>(
        &mut self,
        reader: &mut R,
        file: &FileRecord,
        name: &[u16],
        mut see: impl FnMut(&mut CheckReport, &Volume, VolumePlace, &[u8], &index::IndexEntry, Option<&[u8]>),
    ) {
        let (volume, report) = (self.volume, &mut self.report);
        let index = match Index::open(volume, file, name) {
            Ok(index) => index,
            Err(error) => return report.damage(&error),
        };
        let directory = name == I30;
        let block = index.block_bytes;
        let has_blocks = file.stream(types::INDEX_ALLOCATION, name).is_some();
        index_root(report, volume, file, &index, name);
        let mut blocks = HashSet::new();
        let mut leaf_depth = None;
        let mut previous: Option<Vec<u8>> = None;
        let mut whole = true;
        let mut entries = 0u64;
        index::walk(volume, reader, &index, |step| match step {
            IndexStep::Broken(error) => {
                whole = false;
                report.damage(&error);
            }
            IndexStep::Enter { node, depth, leaf } => {
                if let Some(vcn) = node.vcn {
                    blocks.insert(vcn * index.vcn_bytes / block);
                }
                node_header(report, &index, node, leaf, has_blocks);
                if leaf && *leaf_depth.get_or_insert(depth) != depth {
                    report.error(index.place(node, 0), "leaves at different depths");
                }
            }
            IndexStep::Entry { node, entry } => {
                entries += 1;
                let place = index.place(node, entry.at);
                let key = node.key(entry);
                let fixed = 16 + key.len() + if entry.sub.is_some() { 8 } else { 0 };
                if directory && entry.len != (16 + key.len()).next_multiple_of(8) + fixed - 16 - key.len() {
                    report.warning(place, "index entry longer than needed");
                }
                see(report, volume, place, key, entry, previous.as_deref());
                previous = Some(key.to_vec());
            }
        });
        report.index_entries += entries;
        if !whole {
            return;
        }
        let (Some(allocation), Some(bitmap)) = (index.blocks, file.stream(types::BITMAP, name)) else { return };
        let count = allocation.size() / block;
        if !bitmap.size().is_multiple_of(8) || bitmap.size() * 8 < count {
            report.error(bitmap.place(0), "index bitmap has the wrong length");
        }
        match volume.read_whole(reader, bitmap, limits::INDEX_BITMAP_BYTES_MAX) {
            Err(error) => report.damage(&error),
            Ok(bits) => index_bitmap(report, bitmap.place(0), &bits, &blocks),
        }
    }

    fn compare_names(&mut self) {
        self.names.sort_unstable();
        self.indexed.sort_unstable();
        let (mut left, mut right) = (self.names.iter().peekable(), self.indexed.iter().peekable());
        loop {
            let order = match (left.peek(), right.peek()) {
                (None, None) => break,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(a), Some(b)) => a.cmp(b),
            };
            match order {
                std::cmp::Ordering::Equal => {
                    left.next();
                    right.next();
                }
                std::cmp::Ordering::Less => {
                    if let Some(key) = left.next() {
                        let parent = raw::reference_number(key.parent);
                        let place = VolumePlace::stream(raw::reference_number(key.child), types::FILE_NAME, 0);
                        self.report.error(place, format!("name is not in the index of directory {parent}"));
                    }
                }
                std::cmp::Ordering::Greater => {
                    if let Some(key) = right.next() {
                        let child = raw::reference_number(key.child);
                        let place = VolumePlace::stream(raw::reference_number(key.parent), types::INDEX_ROOT, 0);
                        let what = format!("index entry for record {child}, which has no such name in this directory");
                        self.report.error(place, what);
                    }
                }
            }
        }
    }
}

/// Checks the root of an index: sizes, type, and whether blocks and bitmap come together.
fn index_root(report: &mut CheckReport, volume: &Volume, file: &FileRecord, index: &Index<'_>, name: &[u16]) {
    let place = VolumePlace::stream(file.id.record, types::INDEX_ROOT, 0);
    let (cluster, block) = (volume.geometry().cluster.bytes(), index.block_bytes);
    if block != u64::from(volume.geometry().index_block_bytes) {
        report.error(place, "index block size is not the volume's");
    }
    let per_block = if cluster <= block { block / cluster } else { block / FIXUP_STRIDE as u64 };
    if u64::from(index.block_clusters) != per_block {
        report.error(place, "wrong clusters per index block");
    }
    let directory = name == I30;
    if directory && (index.ty, index.rule) != (types::FILE_NAME, 1) || !directory && index.ty != 0 {
        report.error(place, "wrong type or collation rule of the index");
    }
    let has_blocks = file.stream(types::INDEX_ALLOCATION, name).is_some();
    if has_blocks != file.stream(types::BITMAP, name).is_some() {
        report.error(place, "index blocks and their bitmap must come together");
    }
}

/// Compares the bitmap of an index with the blocks that its tree uses.
fn index_bitmap(report: &mut CheckReport, place: VolumePlace, bits: &[u8], blocks: &HashSet<u64>) {
    let marked = |number: u64| {
        let byte = usize::try_from(number / 8).ok().and_then(|at| bits.get(at));
        byte.is_some_and(|byte| byte >> (number % 8) & 1 != 0)
    };
    let mut missing: Vec<u64> = blocks.iter().copied().filter(|number| !marked(*number)).collect();
    missing.sort_unstable();
    for number in missing {
        report.error(place, format!("index block {number} is in the tree but not marked"));
    }
    for at in (0..bits.len() as u64).filter(|at| bits[*at as usize] != 0) {
        for number in (at * 8..at * 8 + 8).filter(|number| marked(*number) && !blocks.contains(number)) {
            report.error(place, format!("index block {number} is marked but not in the tree"));
        }
    }
}

fn node_header(report: &mut CheckReport, index: &Index<'_>, node: &Node, leaf: bool, has_blocks: bool) {
    let place = index.place(node, node.header_at());
    let Ok(head) = node.header() else { return };
    let (first, end, allocated) = (head.first_entry.get(), head.used.get(), head.allocated.get());
    if end > allocated {
        report.error(place, "index entries end behind the space for them");
    }
    match node.vcn {
        None => {
            if first != 0x10 {
                report.error(place, "first index entry of the root in the wrong place");
            }
            if node.header_at() + allocated as usize != node.len() {
                report.warning(place, "index root's allocated size is not its own");
            }
            // Windows keeps the blocks of a directory that has shrunk into its root again.
            if (head.has_subnodes & 1 != 0) == leaf || !leaf && !has_blocks {
                report.error(place, "large index flag, subnodes and index blocks do not agree");
            }
        }
        Some(_) => {
            if node.header_at() + allocated as usize != node.len() {
                report.error(place, "index block's allocated size is wrong");
            }
            if (head.has_subnodes & 1 != 0) == leaf {
                report.error(place, "leaf flag of an index block is wrong");
            }
            if leaf && node.entries().is_ok_and(|entries| entries.len() == 1) {
                report.add(Severity::Note, place, "empty index block");
            }
        }
    }
}

/// Whether it is a valid 8.3 name, of either case.
fn is_short(name: &[u16]) -> bool {
    let dot = name.iter().position(|unit| *unit == 0x2E);
    let (stem, extension) = name.split_at(dot.unwrap_or(name.len()));
    let extension = extension.get(1..).unwrap_or_default();
    let fine = |unit: &u16| {
        *unit > 0x20 && u8::try_from(*unit).is_ok_and(|byte| !b".\"*/:<>?\\|+,;=[]".contains(&byte)) || *unit > 0xFF
    };
    (1..=8).contains(&stem.len())
        && extension.len() <= 3
        && (dot.is_none() || !extension.is_empty())
        && stem.iter().chain(extension).all(fine)
}
