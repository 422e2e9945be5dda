//! Splits records of the volume into attributes and reassembles them, and edits pages of the volume in memory.

use std::collections::BTreeMap;

use crate::format::{ATTRIBUTES_END, FIXUP_STRIDE, protect_as};
use crate::read::file::to_units;
use crate::read::raw::{self, Record, RecordFault};
use crate::read::{NtfsError, ReadAt};
use crate::units::{Clusters, Extent, Lcn, VolumeOffset};

/// Bytes after the last attribute that count as used (docs/spec/ntfs.md#file-records).
const END_BYTES: usize = 8;
/// Offsets in a record's header (docs/spec/ntfs.md#file-records).
const FIXUPS_AT: usize = 0x04;
const SEQUENCE_AT: usize = 0x10;
const FLAGS_AT: usize = 0x16;
const BYTES_USED_AT: usize = 0x18;
const NEXT_ID_AT: usize = 0x28;
/// Offsets in an attribute's header (docs/spec/ntfs.md#attribute-headers).
const ATTRIBUTE_FLAGS_AT: usize = 0x0C;
const ATTRIBUTE_ID_AT: usize = 0x0E;
const VALUE_AT: usize = 0x14;
const NON_RESIDENT_AT: usize = 0x08;
const LOWEST_AT: usize = 0x10;
const PAIRS_AT: usize = 0x20;

/// The next value of an update sequence; 0 and FFFF are skipped.
pub(super) const fn next_sequence(old: u16) -> u16 {
    match old {
        0xFFFE | 0xFFFF => 1,
        _ => old + 1,
    }
}

/// The present sequence value of a protected structure; 0 if it has none.
pub(super) fn sequence_of(raw: &[u8]) -> u16 {
    let number = |at: usize| raw.get(at..at + 2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
    number(FIXUPS_AT).and_then(|at| number(usize::from(at))).unwrap_or(0)
}

/// Replaces the update sequence of a protected record by the one that follows `old`.
pub(super) fn protect_after(record: &mut [u8], old: u16) {
    let fixups = usize::from(u16::from_le_bytes([record[FIXUPS_AT], record[FIXUPS_AT + 1]]));
    for stride in 0..record.len() / FIXUP_STRIDE {
        let saved = fixups + 2 + 2 * stride;
        record.copy_within(saved..saved + 2, (stride + 1) * FIXUP_STRIDE - 2);
    }
    protect_as(record, fixups, next_sequence(old));
}

/// One complete attribute.
#[derive(Clone, Debug)]
pub(super) struct Attr {
    pub kind: u32,
    pub name: Vec<u16>,
    pub bytes: Vec<u8>,
}

impl Attr {
    /// The value of a resident attribute.
    pub(super) fn value_mut(&mut self) -> &mut [u8] {
        let at = usize::from(u16::from_le_bytes([self.bytes[VALUE_AT], self.bytes[VALUE_AT + 1]]));
        self.bytes.get_mut(at..).unwrap_or_default()
    }

    /// First VCN of a non-resident attribute; 0 of a resident one.
    pub(super) fn lowest(&self) -> u64 {
        if self.bytes[NON_RESIDENT_AT] == 0 {
            return 0;
        }
        let bytes = self.bytes.get(LOWEST_AT..LOWEST_AT + 8).and_then(|bytes| bytes.try_into().ok());
        u64::from_le_bytes(bytes.unwrap_or_default())
    }

    /// Clusters of a non-resident attribute.
    pub(super) fn extents(&self, clusters: u64) -> Result<Vec<Extent>, RecordFault> {
        if self.bytes[NON_RESIDENT_AT] == 0 {
            return Ok(Vec::new());
        }
        let number = |at| raw::view::<zerocopy::little_endian::U64>(&self.bytes, at, "header is cut off");
        let pairs_at = raw::view::<zerocopy::little_endian::U16>(&self.bytes, PAIRS_AT, "header is cut off")?;
        let pairs = self.bytes.get(usize::from(pairs_at.get())..).unwrap_or_default();
        let (lowest, highest) = (number(LOWEST_AT)?.get(), number(LOWEST_AT + 8)?.get().cast_signed());
        let mut runs = Vec::new();
        raw::decode_runs(pairs, lowest, highest, clusters, &mut runs)?;
        let runs = runs.into_iter().filter(|run| !run.is_hole());
        Ok(runs.map(|run| Extent { lcn: Lcn(u64::from(run.lcn)), len: Clusters(u64::from(run.len)) }).collect())
    }

    fn flags(&self) -> [u8; 2] {
        [self.bytes[ATTRIBUTE_FLAGS_AT], self.bytes[ATTRIBUTE_FLAGS_AT + 1]]
    }
}

/// A record in pieces.
#[derive(Clone, Debug)]
pub(super) struct Edit {
    /// Everything before the first attribute.
    head: Vec<u8>,
    record_bytes: usize,
    pub attributes: Vec<Attr>,
}

impl Edit {
    /// Splits a record with its fixups undone.
    pub(super) fn new(bytes: &[u8]) -> Result<Self, RecordFault> {
        let record = Record::new(bytes)?;
        let first = usize::from(record.header.first_attribute.get());
        let mut attributes = Vec::new();
        for attribute in record.attributes() {
            let attribute = attribute?;
            let len = raw::view::<zerocopy::little_endian::U32>(bytes, attribute.at + 4, "attribute is cut off")?;
            let end = attribute.at + len.get() as usize;
            attributes.push(Attr {
                kind: attribute.ty,
                name: to_units(attribute.name),
                bytes: bytes[attribute.at..end].to_vec(),
            });
        }
        Ok(Self { head: bytes[..first].to_vec(), record_bytes: bytes.len(), attributes })
    }

    pub(super) fn find(&mut self, kind: u32, name: &[u16]) -> Option<&mut Attr> {
        self.attributes.iter_mut().find(|attr| attr.kind == kind && attr.name == name)
    }

    pub(super) fn remove(&mut self, kind: u32, name: &[u16]) -> Option<Attr> {
        let i = self.attributes.iter().position(|attr| attr.kind == kind && attr.name == name)?;
        Some(self.attributes.remove(i))
    }

    /// Inserts an attribute (as [`crate::build::record::attribute`] makes it) at its place, replacing one of the
    /// same type and name, whose id and flags it keeps.
    pub(super) fn put(&mut self, kind: u32, name: &[u16], mut bytes: Vec<u8>) {
        let old = self.remove(kind, name);
        let id = match &old {
            Some(old) => [old.bytes[ATTRIBUTE_ID_AT], old.bytes[ATTRIBUTE_ID_AT + 1]],
            None => self.new_id().to_le_bytes(),
        };
        bytes[ATTRIBUTE_ID_AT..ATTRIBUTE_ID_AT + 2].copy_from_slice(&id);
        // Flags of the attribute (compressed, for a directory of compressed files) are kept.
        if let Some(old) = old {
            bytes[ATTRIBUTE_FLAGS_AT..ATTRIBUTE_FLAGS_AT + 2].copy_from_slice(&old.flags());
        }
        let behind = |attr: &Attr| (attr.kind, attr.name.as_slice()) > (kind, name);
        let at = self.attributes.iter().position(behind).unwrap_or(self.attributes.len());
        self.attributes.insert(at, Attr { kind, name: name.to_vec(), bytes });
    }

    fn new_id(&mut self) -> u16 {
        let id = u16::from_le_bytes([self.head[NEXT_ID_AT], self.head[NEXT_ID_AT + 1]]);
        self.head[NEXT_ID_AT..NEXT_ID_AT + 2].copy_from_slice(&id.wrapping_add(1).to_le_bytes());
        id
    }

    /// Marks the record as free; its contents may stay.
    pub(super) fn free(&mut self) {
        self.head[FLAGS_AT..FLAGS_AT + 2].fill(0);
        let sequence = u16::from_le_bytes([self.head[SEQUENCE_AT], self.head[SEQUENCE_AT + 1]]);
        let next = if sequence == u16::MAX { 1 } else { sequence + 1 };
        self.head[SEQUENCE_AT..SEQUENCE_AT + 2].copy_from_slice(&next.to_le_bytes());
    }

    /// Bytes of all attributes.
    pub(super) fn len(&self) -> usize {
        self.attributes.iter().map(|attr| attr.bytes.len()).sum()
    }

    /// Room for attributes, in bytes.
    pub(super) fn room(&self) -> usize {
        self.record_bytes - self.head.len() - END_BYTES
    }

    /// The record, protected with the sequence value after its present one.
    pub(super) fn record(&self) -> Vec<u8> {
        let mut out = self.head.clone();
        let old = sequence_of(&self.head);
        for attr in &self.attributes {
            out.extend(&attr.bytes);
        }
        let used = out.len() + END_BYTES;
        out.extend(ATTRIBUTES_END.to_le_bytes());
        out.resize(self.record_bytes, 0);
        out[BYTES_USED_AT..BYTES_USED_AT + 4].copy_from_slice(&(used as u32).to_le_bytes());
        let fixups = usize::from(u16::from_le_bytes([out[FIXUPS_AT], out[FIXUPS_AT + 1]]));
        protect_as(&mut out, fixups, next_sequence(old));
        out
    }
}

/// Modified pages of the volume.
#[derive(Clone, Debug)]
pub(super) struct Pages {
    unit: u64,
    pages: BTreeMap<u64, Vec<u8>>,
}

impl Pages {
    pub(super) fn new(unit: u64) -> Self {
        Self { unit, pages: BTreeMap::new() }
    }

    /// Puts bytes at a place; the rest of their pages is read once.
    pub(super) fn put<R: ReadAt>(&mut self, reader: &mut R, at: u64, mut bytes: &[u8]) -> Result<(), NtfsError> {
        let mut at = at;
        while !bytes.is_empty() {
            let (page, skip) = (at / self.unit, (at % self.unit) as usize);
            let len = (self.unit as usize - skip).min(bytes.len());
            if let std::collections::btree_map::Entry::Vacant(vacant) = self.pages.entry(page) {
                let mut old = vec![0; self.unit as usize];
                let start = VolumeOffset(page * self.unit);
                if len < old.len() {
                    let place = crate::read::VolumePlace { offset: Some(start.0), ..Default::default() };
                    reader.read_at(start, &mut old).map_err(|error| NtfsError::read(place, error))?;
                }
                vacant.insert(old);
            }
            if let Some(there) = self.pages.get_mut(&page) {
                there[skip..skip + len].copy_from_slice(&bytes[..len]);
            }
            at += len as u64;
            bytes = &bytes[len..];
        }
        Ok(())
    }

    /// The pages of `other`, with the contents here.
    pub(super) fn of(&self, other: &Self) -> Self {
        let pages = other.pages.keys().filter_map(|page| Some((*page, self.pages.get(page)?.clone())));
        Self { unit: self.unit, pages: pages.collect() }
    }

    /// The pages missing in `other`.
    pub(super) fn without(&self, other: &Self) -> Self {
        let pages = self.pages.iter().filter(|(page, _)| !other.pages.contains_key(page));
        Self { unit: self.unit, pages: pages.map(|(page, bytes)| (*page, bytes.clone())).collect() }
    }

    /// Runs of pages, ascending, none longer than `max`.
    pub(super) fn runs(&self, max: usize) -> impl Iterator<Item = (VolumeOffset, Vec<u8>)> + '_ {
        let mut pages = self.pages.iter().peekable();
        std::iter::from_fn(move || {
            let (&first, bytes) = pages.next()?;
            let mut run = bytes.clone();
            let mut next = first + 1;
            while run.len() + self.unit as usize <= max
                && let Some((_, bytes)) = pages.next_if(|(page, _)| **page == next)
            {
                run.extend(bytes);
                next += 1;
            }
            Some((VolumeOffset(first * self.unit), run))
        })
    }
}
