//! One file: all its attributes, collected from its records.

use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, HashSet};

use zerocopy::little_endian::U16;

use super::error::{NtfsError, ReadAt, VolumePlace};
use super::limits;
use super::raw::{self, Attribute, Body, RawRun, Record, RecordFault, types, view};
use super::volume::Volume;
use crate::format::{ListEntryHeader, StandardInformation, StandardInformation3, attr_flag, record_flag};
pub use crate::times::Times;
use crate::units::FileTime;

/// Name space of a file name (docs/spec/ntfs.md#names).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Namespace {
    /// Any name; the form that current Windows stores for all files.
    Posix,
    /// A long name with a DOS partner.
    Win32,
    /// The 8.3 partner of a long name.
    Dos,
    /// One name that is valid in both.
    Win32AndDos,
}

impl Namespace {
    pub(crate) const fn from_raw(raw: u8) -> Option<Self> {
        match raw {
            0 => Some(Self::Posix),
            1 => Some(Self::Win32),
            2 => Some(Self::Dos),
            3 => Some(Self::Win32AndDos),
            _ => None,
        }
    }
}

/// A record number together with its expected generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileRef {
    /// Number of the record in `$MFT`, 48 bits.
    pub record: u64,
    /// Sequence number, raised each time the record is reused.
    pub sequence: u16,
}

impl FileRef {
    pub(crate) const fn from_raw(raw: u64) -> Self {
        Self { record: raw::reference_number(raw), sequence: raw::reference_sequence(raw) }
    }
}

/// One name of a file (a hard link, or the DOS partner of one).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileNameAttribute {
    /// Directory that lists the name.
    pub parent: FileRef,
    /// UTF-16 units, not necessarily well formed.
    pub name: Vec<u16>,
    /// Rules that the name obeys: POSIX, Win32, DOS, or both.
    pub namespace: Namespace,
    /// Attributes as of the last rename.
    pub attributes: u32,
    /// Reparse tag, or extended attribute size.
    pub reparse: u32,
}

/// $STANDARD_INFORMATION.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standard {
    /// The four times, 100 ns units since 1601.
    pub times: Times,
    /// File attributes (docs/spec/ntfs.md#standard-information).
    pub attributes: u32,
    /// Id in `$Secure`; `None` in the 48-byte form.
    pub security: Option<u32>,
}

/// Location of a stream's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Resident(Vec<u8>),
    Runs(Vec<RawRun>),
}

/// An attribute with content: data, an index, a bitmap, a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    pub(crate) record: u64,
    pub(crate) ty: u32,
    pub(crate) name: Vec<u16>,
    pub(crate) flags: u16,
    pub(crate) unit: u8,
    pub(crate) size: u64,
    pub(crate) valid: u64,
    pub(crate) allocated: u64,
    pub(crate) total: Option<u64>,
    pub(crate) content: Content,
}

impl Stream {
    /// The attribute's type code; 0x80 is data.
    pub fn attribute(&self) -> u32 {
        self.ty
    }

    /// Name of the stream; empty for a file's own data.
    pub fn name(&self) -> &[u16] {
        &self.name
    }

    /// Length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that have been written; the rest reads as zeros.
    pub fn valid(&self) -> u64 {
        self.valid
    }

    /// Bytes of allocated clusters (0 for resident streams).
    pub fn allocated(&self) -> u64 {
        self.total.unwrap_or(self.allocated)
    }

    /// Whether it is compressed with LZNT1.
    pub fn is_compressed(&self) -> bool {
        self.flags & attr_flag::COMPRESSED != 0
    }

    /// Whether it may have holes.
    pub fn is_sparse(&self) -> bool {
        self.flags & attr_flag::SPARSE != 0
    }

    /// Whether it is encrypted by EFS: the bytes cannot be read without its keys.
    pub fn is_encrypted(&self) -> bool {
        self.flags & attr_flag::ENCRYPTED != 0
    }

    /// Whether it is inside the record.
    pub fn is_resident(&self) -> bool {
        matches!(self.content, Content::Resident(_))
    }

    /// The bytes, if they are inside the record.
    pub fn resident(&self) -> Option<&[u8]> {
        match &self.content {
            Content::Resident(value) => Some(value),
            Content::Runs(_) => None,
        }
    }

    pub(crate) fn place(&self, offset: u64) -> VolumePlace {
        VolumePlace::stream(self.record, self.ty, offset)
    }

    pub(crate) fn runs(&self) -> &[RawRun] {
        match &self.content {
            Content::Resident(_) => &[],
            Content::Runs(runs) => runs,
        }
    }
}

/// A file or directory with everything found in its base and extension records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRecord {
    /// Record number and sequence.
    pub id: FileRef,
    /// Link count in the record.
    pub links: u16,
    pub(crate) flags: u16,
    /// $STANDARD_INFORMATION.
    pub standard: Standard,
    pub(crate) has_standard: bool,
    /// All names, DOS names included.
    pub names: Vec<FileNameAttribute>,
    /// All attributes with content (data, indexes, bitmaps, reparse points …).
    pub streams: Vec<Stream>,
    /// Reparse tag, if the file is a reparse point.
    pub reparse_tag: Option<u32>,
    /// Whether the reparse point holds the state of the cloud files filter.
    pub has_cloud_state: bool,
    /// Extension records in use.
    pub extensions: Vec<u64>,
    /// Parts of this file that could not be read; the rest is available.
    pub damage: Vec<NtfsError>,
}

impl FileRecord {
    /// Whether it is a directory (has an index of names).
    pub fn is_directory(&self) -> bool {
        self.flags & record_flag::DIRECTORY != 0
    }

    /// The data stream of that name; empty for the file's own data.
    pub fn data(&self, name: &[u16]) -> Option<&Stream> {
        self.stream(types::DATA, name)
    }

    pub(crate) fn stream(&self, ty: u32, name: &[u16]) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.ty == ty && stream.name == name)
    }

    fn new(number: u64, record: &Record<'_>) -> Self {
        Self {
            id: FileRef { record: number, sequence: record.header.sequence.get() },
            links: record.header.links.get(),
            flags: record.header.flags.get(),
            standard: Standard::default(),
            has_standard: false,
            names: Vec::new(),
            streams: Vec::new(),
            reparse_tag: None,
            has_cloud_state: false,
            extensions: Vec::new(),
            damage: Vec::new(),
        }
    }

    /// Adds one attribute; non-resident pieces must come in order of their VCNs.
    fn absorb(&mut self, clusters: u64, attribute: &Attribute<'_>) -> Result<(), RecordFault> {
        match (attribute.ty, attribute.body) {
            (types::STANDARD_INFORMATION, Body::Resident { value, .. }) => {
                let head: &StandardInformation = view(value, 0, "standard information is cut off")?;
                let tail = view::<StandardInformation3>(value, 48, "").ok();
                self.has_standard = true;
                self.standard = Standard {
                    times: Times {
                        created: FileTime(head.created.get()),
                        modified: FileTime(head.modified.get()),
                        changed: FileTime(head.changed.get()),
                        accessed: FileTime(head.accessed.get()),
                    },
                    attributes: head.attributes.get(),
                    security: tail.map(|tail| tail.security_id.get()),
                };
                Ok(())
            }
            (types::FILE_NAME, Body::Resident { value, .. }) => {
                let (head, name) = raw::file_name(value)?;
                self.names.push(FileNameAttribute {
                    parent: FileRef::from_raw(head.parent.get()),
                    name: to_units(name),
                    namespace: Namespace::from_raw(head.namespace).ok_or(raw::fault(0x41, "unknown name space"))?,
                    attributes: head.attributes.get(),
                    reparse: head.reparse_tag.get(),
                });
                Ok(())
            }
            (types::STANDARD_INFORMATION | types::FILE_NAME, Body::NonResident(_)) => {
                Err(raw::fault(8, "must be resident"))
            }
            (ty, Body::Resident { value, .. }) => {
                if ty == types::REPARSE_POINT {
                    self.reparse_tag = Some(view::<zerocopy::little_endian::U32>(value, 0, "no reparse tag")?.get());
                    // After tag, lengths and flags; also in the compressed form, whose first eight bytes are literal.
                    self.has_cloud_state = value[..value.len().min(32)].windows(4).any(|four| four == b"FeRp");
                }
                self.streams.push(Stream {
                    record: self.id.record,
                    ty,
                    name: to_units(attribute.name),
                    flags: attribute.flags,
                    unit: 0,
                    size: value.len() as u64,
                    valid: value.len() as u64,
                    allocated: 0,
                    total: None,
                    content: Content::Resident(value.to_vec()),
                });
                Ok(())
            }
            (ty, Body::NonResident(body)) => {
                if body.lowest == 0 {
                    return self.start(clusters, ty, attribute, &body);
                }
                let last =
                    self.streams.last_mut().filter(|stream| stream.ty == ty && same(&stream.name, attribute.name));
                let last = last.ok_or(raw::fault(0x10, "piece of a stream that has no beginning"))?;
                let Content::Runs(runs) = &mut last.content else {
                    return Err(raw::fault(0x10, "piece of a resident stream"));
                };
                if runs.last().map_or(0, |run| run.end()) != body.lowest {
                    return Err(raw::fault(0x10, "pieces of a stream do not join"));
                }
                raw::decode_runs(body.pairs, body.lowest, body.highest, clusters, runs)
            }
        }
    }

    fn start(
        &mut self,
        clusters: u64,
        ty: u32,
        attribute: &Attribute<'_>,
        body: &raw::NonResident<'_>,
    ) -> Result<(), RecordFault> {
        if body.valid > body.size || body.size > body.allocated {
            // `$BadClus:$Bad` has valid 0, everything else keeps this order too (docs/spec/ntfs.md#attribute-headers).
            return Err(raw::fault(0x28, "sizes contradict each other"));
        }
        if body.unit > 8 {
            return Err(raw::fault(0x22, "impossible compression unit"));
        }
        let mut runs = Vec::new();
        raw::decode_runs(body.pairs, 0, body.highest, clusters, &mut runs)?;
        self.streams.push(Stream {
            record: self.id.record,
            ty,
            name: to_units(attribute.name),
            flags: attribute.flags,
            unit: body.unit as u8,
            size: body.size,
            valid: body.valid,
            allocated: body.allocated,
            total: body.total,
            content: Content::Runs(runs),
        });
        Ok(())
    }

    fn note(&mut self, record: u64, attribute: Option<u32>, fault: RecordFault) {
        let place = VolumePlace { record: Some(record), attribute, offset: Some(fault.at as u64) };
        self.damage.push(NtfsError::corrupt(place, fault.what));
    }
}

pub(crate) fn to_units(name: &[U16]) -> Vec<u16> {
    name.iter().map(|unit| unit.get()).collect()
}

pub(crate) fn same(left: &[u16], right: &[U16]) -> bool {
    left.len() == right.len() && left.iter().zip(right).all(|(left, right)| *left == right.get())
}

/// Extension records seen by a scan, fixups undone.
#[derive(Default)]
pub(crate) struct Stash {
    records: HashMap<u64, Box<[u8]>>,
    bytes: usize,
}

impl Stash {
    pub(crate) fn keep(&mut self, number: u64, record: &[u8]) {
        if self.bytes + record.len() <= limits::STASH_BYTES_MAX {
            self.bytes += record.len();
            self.records.insert(number, record.into());
        }
    }

    pub(crate) fn get(&self, number: u64) -> Option<&[u8]> {
        self.records.get(&number).map(|record| &record[..])
    }
}

/// Whether the file has further records.
pub(crate) fn has_list(record: &Record<'_>) -> bool {
    record
        .attributes()
        .map_while(Result::ok)
        .take_while(|attribute| attribute.ty <= types::ATTRIBUTE_LIST)
        .any(|attribute| attribute.ty == types::ATTRIBUTE_LIST)
}

/// The file of a base record that has no attribute list.
pub(crate) fn alone(volume: &Volume, number: u64, record: &Record<'_>) -> FileRecord {
    let mut file = FileRecord::new(number, record);
    for attribute in record.attributes() {
        match attribute {
            Ok(attribute) => {
                if let Err(fault) = file.absorb(volume.geometry().clusters, &attribute) {
                    file.note(number, Some(attribute.ty), RecordFault { at: fault.at + attribute.at, ..fault });
                }
            }
            Err(fault) => file.note(number, None, fault),
        }
    }
    file
}

/// The file of a base record; `record` is that record with its fixups undone.
pub(crate) fn gather<R: ReadAt>(
    volume: &Volume,
    reader: &mut R,
    number: u64,
    record: &Record<'_>,
    stash: Option<&Stash>,
) -> Result<FileRecord, NtfsError> {
    if !has_list(record) {
        return Ok(alone(volume, number, record));
    }
    let clusters = volume.geometry().clusters;
    let mut file = FileRecord::new(number, record);
    let list = read_list(volume, reader, number, record)?;
    let entries = list_entries(&list).map_err(|fault| {
        NtfsError::corrupt(VolumePlace::stream(number, types::ATTRIBUTE_LIST, fault.at as u64), fault.what)
    })?;
    let mut holders = Holders { base: *record, stash, loaded: HashMap::new(), failed: HashSet::new() };
    let mut used: HashSet<(u64, u16)> = HashSet::new();
    for entry in &entries {
        let at = VolumePlace::stream(number, types::ATTRIBUTE_LIST, entry.at as u64);
        if entry.ty == types::ATTRIBUTE_LIST || holders.failed.contains(&entry.holder.record) {
            continue;
        }
        if !used.insert((entry.holder.record, entry.id)) {
            file.damage.push(NtfsError::corrupt(at, "attribute listed twice"));
            continue;
        }
        let Some(source) = holders.get(volume, reader, &mut file, entry) else { continue };
        let found = source.attributes().map_while(Result::ok).find(|attribute| {
            attribute.id == entry.id
                && attribute.ty == entry.ty
                && same(&entry.name, attribute.name)
                && match attribute.body {
                    Body::Resident { .. } => entry.lowest == 0,
                    Body::NonResident(body) => body.lowest == entry.lowest,
                }
        });
        match found {
            None => file.damage.push(NtfsError::corrupt(at, "listed attribute does not exist")),
            Some(attribute) => {
                if let Err(fault) = file.absorb(clusters, &attribute) {
                    let fault = RecordFault { at: fault.at + attribute.at, ..fault };
                    file.note(entry.holder.record, Some(attribute.ty), fault);
                }
            }
        }
    }
    Ok(file)
}

/// The records that hold a file's attributes.
struct Holders<'a> {
    base: Record<'a>,
    stash: Option<&'a Stash>,
    loaded: HashMap<u64, Vec<u8>>,
    failed: HashSet<u64>,
}

impl Holders<'_> {
    /// The record that holds an attribute of `file`; the file notes the reason if there is none.
    fn get<R: ReadAt>(
        &mut self,
        volume: &Volume,
        reader: &mut R,
        file: &mut FileRecord,
        entry: &Listed,
    ) -> Option<Record<'_>> {
        let holder = entry.holder;
        if holder.record == file.id.record {
            if holder.sequence != file.id.sequence {
                let at = VolumePlace::stream(file.id.record, types::ATTRIBUTE_LIST, entry.at as u64);
                file.damage.push(NtfsError::corrupt(at, "stale reference to the base record"));
                return None;
            }
            return Some(self.base);
        }
        if let Slot::Vacant(slot) = self.loaded.entry(holder.record) {
            match load_extension(volume, reader, file.id, holder, self.stash) {
                Ok(bytes) => {
                    file.extensions.push(holder.record);
                    slot.insert(bytes);
                }
                Err(error) => {
                    file.damage.push(error);
                    self.failed.insert(holder.record);
                    return None;
                }
            }
        }
        match Record::new(&self.loaded[&holder.record]) {
            Ok(record) => Some(record),
            Err(fault) => {
                file.note(holder.record, None, fault);
                self.failed.insert(holder.record);
                None
            }
        }
    }
}

fn load_extension<R: ReadAt>(
    volume: &Volume,
    reader: &mut R,
    base: FileRef,
    holder: FileRef,
    stash: Option<&Stash>,
) -> Result<Vec<u8>, NtfsError> {
    let bytes = match stash.and_then(|stash| stash.get(holder.record)) {
        Some(bytes) => bytes.to_vec(),
        None => volume.read_record(reader, holder.record)?,
    };
    let place = VolumePlace::record(holder.record);
    let record = Record::new(&bytes).map_err(|fault| NtfsError::corrupt(place, fault.what))?;
    if !record.in_use() || record.header.sequence.get() != holder.sequence {
        return Err(NtfsError::corrupt(place, "stale reference to an extension record"));
    }
    if FileRef::from_raw(record.header.base_record.get()) != base {
        return Err(NtfsError::corrupt(place, "extension record of another file"));
    }
    Ok(bytes)
}

/// The attribute list's bytes.
pub(crate) fn read_list<R: ReadAt>(
    volume: &Volume,
    reader: &mut R,
    number: u64,
    record: &Record<'_>,
) -> Result<Vec<u8>, NtfsError> {
    let list = record.attributes().map_while(Result::ok).find(|attribute| attribute.ty == types::ATTRIBUTE_LIST);
    let list = list.ok_or(NtfsError::not_found(VolumePlace::record(number)))?;
    let place = VolumePlace::stream(number, types::ATTRIBUTE_LIST, 0);
    match list.body {
        Body::Resident { value, .. } => Ok(value.to_vec()),
        Body::NonResident(_) => {
            let mut alone = FileRecord::new(number, record);
            alone.absorb(volume.geometry().clusters, &list).map_err(|fault| NtfsError::corrupt(place, fault.what))?;
            let stream = alone.streams.pop().ok_or(NtfsError::not_found(place))?;
            volume.read_whole(reader, &stream, limits::ATTRIBUTE_LIST_BYTES_MAX)
        }
    }
}

pub(crate) struct Listed {
    pub at: usize,
    pub ty: u32,
    pub name: Vec<u16>,
    pub lowest: u64,
    pub holder: FileRef,
    pub id: u16,
}

pub(crate) fn list_entries(list: &[u8]) -> Result<Vec<Listed>, RecordFault> {
    let mut entries = Vec::new();
    let mut at = 0;
    while at < list.len() {
        let head: &ListEntryHeader = view(list, at, "list entry is cut off")?;
        let len = usize::from(head.length.get());
        if len < size_of::<ListEntryHeader>() || !len.is_multiple_of(8) || at + len > list.len() {
            return Err(raw::fault(at + 4, "impossible length of a list entry"));
        }
        let name_at = at + usize::from(head.name_offset);
        let name =
            raw::units(&list[..at + len], name_at, usize::from(head.name_units), "name of a list entry is cut off")?;
        entries.push(Listed {
            at,
            ty: head.kind.get(),
            name: to_units(name),
            lowest: head.lowest_vcn.get(),
            holder: FileRef::from_raw(head.record.get()),
            id: head.id.get(),
        });
        at += len;
    }
    Ok(entries)
}
