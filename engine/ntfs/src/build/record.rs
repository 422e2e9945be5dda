//! FILE records, written directly into the buffer for the drive.

use zerocopy::IntoBytes;

use super::Times;
use crate::format::{
    ATTRIBUTES_END, AttrHeader, AttrType, FIXUP_STRIDE, FileNameHeader, NON_RESIDENT_HEADER, NonResidentHeader,
    ProtectedHeader, RESIDENT_HEADER, RecordHeader, ResidentHeader, StandardInformation, StandardInformation3, align8,
    protect,
};
use crate::units::Extent;

/// Bytes after the last attribute that count as used: the end marker and a zero dword (docs/spec/ntfs.md#file-records).
const END_BYTES: usize = 8;

/// Offset of the first attribute in a record of this size.
const fn first_attribute(record_bytes: usize) -> usize {
    align8(size_of::<RecordHeader>() + 2 * (record_bytes / FIXUP_STRIDE + 1))
}

/// Room for attributes in a record of this size, in bytes.
pub(crate) const fn room(record_bytes: usize) -> usize {
    record_bytes - first_attribute(record_bytes) - END_BYTES
}

/// Bytes of a resident attribute.
pub(crate) const fn resident_len(name_units: usize, value: usize) -> usize {
    align8(RESIDENT_HEADER + 2 * name_units).next_multiple_of(8) + align8(value)
}

/// Bytes of a non-resident attribute with these runs.
pub(crate) fn non_resident_len(name_units: usize, extents: impl Iterator<Item = Extent>) -> usize {
    align8(align8(NON_RESIDENT_HEADER + 2 * name_units) + pairs_len(extents))
}

/// Bytes of `$FILE_NAME`.
pub(crate) const fn file_name_len(name_units: usize) -> usize {
    size_of::<FileNameHeader>() + 2 * name_units
}

/// Bytes of the 72-byte `$STANDARD_INFORMATION`.
pub(crate) const STANDARD_INFORMATION: usize = size_of::<StandardInformation>() + size_of::<StandardInformation3>();

/// The three sizes of a non-resident attribute.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub allocated: u64,
    pub data: u64,
    pub valid: u64,
}

impl Sizes {
    /// Sizes of a stream whose `data` bytes are all written.
    pub(crate) const fn full(allocated: u64, data: u64) -> Self {
        Self { allocated, data, valid: data }
    }
}

/// The record's header without the attributes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub number: u32,
    pub sequence: u16,
    pub links: u16,
    pub flags: u16,
}

/// The fields of `$STANDARD_INFORMATION`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standard {
    pub times: Times,
    pub attributes: u32,
    /// `None` selects the 48-byte form, for a record with a `$SECURITY_DESCRIPTOR` of its own.
    pub security_id: Option<u32>,
}

/// The fields of a `$FILE_NAME` before its name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileName {
    pub parent: u64,
    pub times: Times,
    pub allocated: u64,
    pub data: u64,
    pub attributes: u32,
    pub namespace: u8,
}

impl FileName {
    /// Writes [`file_name_len`] bytes.
    pub(crate) fn write(&self, name: &[u16], out: &mut [u8]) {
        let header = FileNameHeader {
            parent: self.parent.into(),
            created: self.times.created.0.into(),
            modified: self.times.modified.0.into(),
            changed: self.times.changed.0.into(),
            accessed: self.times.accessed.0.into(),
            allocated: self.allocated.into(),
            data: self.data.into(),
            attributes: self.attributes.into(),
            reparse_tag: 0.into(),
            name_units: name.len() as u8,
            namespace: self.namespace,
        };
        let (head, tail) = out.split_at_mut(size_of::<FileNameHeader>());
        head.copy_from_slice(header.as_bytes());
        write_units(name, tail);
    }
}

/// Writes units little-endian.
pub(crate) fn write_units(units: &[u16], out: &mut [u8]) {
    for (unit, bytes) in units.iter().zip(out.chunks_exact_mut(2)) {
        bytes.copy_from_slice(&unit.to_le_bytes());
    }
}

/// A record under construction. The plan has already checked that everything fits.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    bytes: &'a mut [u8],
    at: usize,
    next_id: u16,
}

impl<'a> Record<'a> {
    /// Starts a record over all of `bytes`.
    pub(crate) fn begin(bytes: &'a mut [u8]) -> Self {
        bytes.fill(0);
        let at = first_attribute(bytes.len());
        Self { bytes, at, next_id: 0 }
    }

    fn header(&mut self, kind: AttrType, non_resident: bool, name: &[u16], length: usize) {
        let name_offset = if non_resident { NON_RESIDENT_HEADER } else { RESIDENT_HEADER };
        let header = AttrHeader {
            kind: (kind as u32).into(),
            length: (length as u32).into(),
            non_resident: u8::from(non_resident),
            name_units: name.len() as u8,
            name_offset: (name_offset as u16).into(),
            flags: 0.into(),
            id: self.next_id.into(),
        };
        let attribute = &mut self.bytes[self.at..self.at + length];
        attribute[..size_of::<AttrHeader>()].copy_from_slice(header.as_bytes());
        write_units(name, &mut attribute[name_offset..]);
        self.next_id += 1;
    }

    /// Appends a resident attribute; `fill` gets the remaining room, zeroed, and returns the length of the value.
    pub(crate) fn resident_with(&mut self, kind: AttrType, name: &[u16], fill: impl FnOnce(&mut [u8]) -> usize) {
        let value_offset = align8(RESIDENT_HEADER + 2 * name.len());
        let limit = self.bytes.len() - END_BYTES;
        let value_length = fill(&mut self.bytes[self.at + value_offset..limit]);
        let length = value_offset + align8(value_length);
        self.header(kind, false, name, length);
        let resident = ResidentHeader {
            value_length: (value_length as u32).into(),
            value_offset: (value_offset as u16).into(),
            indexed: u8::from(kind == AttrType::FileName),
            unused: 0,
        };
        let at = self.at + size_of::<AttrHeader>();
        self.bytes[at..at + size_of::<ResidentHeader>()].copy_from_slice(resident.as_bytes());
        self.at += length;
    }

    /// Appends a resident attribute.
    pub(crate) fn resident(&mut self, kind: AttrType, name: &[u16], value: &[u8]) {
        self.resident_with(kind, name, |out| {
            out[..value.len()].copy_from_slice(value);
            value.len()
        });
    }

    /// Appends a non-resident attribute that starts at VCN 0.
    pub(crate) fn non_resident(
        &mut self,
        kind: AttrType,
        name: &[u16],
        sizes: Sizes,
        extents: impl Iterator<Item = Extent>,
    ) {
        let runs = extents.map(|extent| MappedRun { lcn: Some(extent.lcn.0), len: extent.len.0 });
        self.mapped(kind, name, sizes, 0, runs);
    }

    /// Appends a piece of unnamed data from VCN `lowest` on; sizes are those of the whole stream, which only the first
    /// piece records.
    pub(crate) fn data_piece(&mut self, sizes: Sizes, lowest: u64, extents: impl Iterator<Item = Extent>) {
        let sizes = if lowest == 0 { sizes } else { Sizes::full(0, 0) };
        let runs = extents.map(|extent| MappedRun { lcn: Some(extent.lcn.0), len: extent.len.0 });
        self.mapped(AttrType::Data, &[], sizes, lowest, runs);
    }

    /// Appends `$Bad`: one hole of `clusters`.
    pub(crate) fn hole(&mut self, name: &[u16], sizes: Sizes, clusters: u64) {
        self.mapped(AttrType::Data, name, sizes, 0, [MappedRun { lcn: None, len: clusters }].into_iter());
    }

    fn mapped(
        &mut self,
        kind: AttrType,
        name: &[u16],
        sizes: Sizes,
        lowest: u64,
        runs: impl Iterator<Item = MappedRun>,
    ) {
        let pairs_offset = align8(NON_RESIDENT_HEADER + 2 * name.len());
        let mut pairs = self.at + pairs_offset;
        let (mut clusters, mut before) = (0, 0);
        for run in runs {
            pairs += run.write(before, &mut self.bytes[pairs..]);
            before = run.lcn.unwrap_or(before);
            clusters += run.len;
        }
        // The terminator is one of the zeros already there.
        let length = align8(pairs + 1 - self.at);
        self.header(kind, true, name, length);
        let header = NonResidentHeader {
            lowest_vcn: lowest.into(),
            highest_vcn: ((lowest + clusters) as i64 - 1).into(),
            pairs_offset: (pairs_offset as u16).into(),
            compression_unit: 0.into(),
            unused: 0.into(),
            allocated: sizes.allocated.into(),
            data: sizes.data.into(),
            valid: sizes.valid.into(),
        };
        let at = self.at + size_of::<AttrHeader>();
        self.bytes[at..at + size_of::<NonResidentHeader>()].copy_from_slice(header.as_bytes());
        self.at += length;
    }

    /// Appends `$STANDARD_INFORMATION`.
    pub(crate) fn standard(&mut self, facts: Standard) {
        let first = StandardInformation {
            created: facts.times.created.0.into(),
            modified: facts.times.modified.0.into(),
            changed: facts.times.changed.0.into(),
            accessed: facts.times.accessed.0.into(),
            attributes: facts.attributes.into(),
            versions_max: 0.into(),
            version: 0.into(),
            class_id: 0.into(),
        };
        self.resident_with(AttrType::StandardInformation, &[], |out| {
            out[..size_of::<StandardInformation>()].copy_from_slice(first.as_bytes());
            let Some(security_id) = facts.security_id else { return size_of::<StandardInformation>() };
            let second = StandardInformation3 {
                owner_id: 0.into(),
                security_id: security_id.into(),
                quota_charged: 0.into(),
                usn: 0.into(),
            };
            out[size_of::<StandardInformation>()..STANDARD_INFORMATION].copy_from_slice(second.as_bytes());
            STANDARD_INFORMATION
        });
    }

    /// Appends `$FILE_NAME`.
    pub(crate) fn file_name(&mut self, facts: &FileName, name: &[u16]) {
        self.resident_with(AttrType::FileName, &[], |out| {
            let len = file_name_len(name.len());
            facts.write(name, &mut out[..len]);
            len
        });
    }

    /// Ends the record and protects it.
    pub(crate) fn finish(self, head: Head) {
        self.finish_for(head, 0);
    }

    /// As [`finish`](Self::finish), for an extension of the record that `base` refers to.
    pub(crate) fn finish_for(self, head: Head, base: u64) {
        let Self { bytes, at, next_id } = self;
        bytes[at..at + 4].copy_from_slice(&ATTRIBUTES_END.to_le_bytes());
        let header = RecordHeader {
            protected: ProtectedHeader {
                magic: *b"FILE",
                fixup_offset: (size_of::<RecordHeader>() as u16).into(),
                fixup_count: ((bytes.len() / FIXUP_STRIDE + 1) as u16).into(),
            },
            log_sequence: 0.into(),
            sequence: head.sequence.into(),
            links: head.links.into(),
            first_attribute: (first_attribute(bytes.len()) as u16).into(),
            flags: head.flags.into(),
            bytes_used: ((at + END_BYTES) as u32).into(),
            bytes_allocated: (bytes.len() as u32).into(),
            base_record: base.into(),
            next_attribute_id: next_id.into(),
            unused: 0.into(),
            record_number: head.number.into(),
        };
        bytes[..size_of::<RecordHeader>()].copy_from_slice(header.as_bytes());
        protect(bytes, size_of::<RecordHeader>());
    }
}

/// The bytes of the single attribute that `fill` appends to a record of this length; its id is 0.
pub(crate) fn attribute(record_bytes: usize, fill: impl FnOnce(&mut Record<'_>)) -> Vec<u8> {
    let mut scratch = vec![0; record_bytes];
    let mut record = Record::begin(&mut scratch);
    fill(&mut record);
    let end = record.at;
    scratch[first_attribute(record_bytes)..end].to_vec()
}

/// Writes a free record.
pub(crate) fn free(number: u32, sequence: u16, out: &mut [u8]) {
    Record::begin(out).finish(Head { number, sequence, links: 0, flags: 0 });
}

#[derive(Clone, Copy)]
struct MappedRun {
    /// `None` for a hole.
    lcn: Option<u64>,
    len: u64,
}

impl MappedRun {
    /// Writes one mapping pair, relative to the LCN `before` (docs/spec/ntfs.md#mapping-pairs), and returns its length.
    fn write(self, before: u64, out: &mut [u8]) -> usize {
        let len_bytes = signed_bytes(self.len as i64);
        out[1..1 + len_bytes].copy_from_slice(&self.len.to_le_bytes()[..len_bytes]);
        let mut delta_bytes = 0;
        if let Some(lcn) = self.lcn {
            let delta = lcn.wrapping_sub(before) as i64;
            delta_bytes = signed_bytes(delta);
            out[1 + len_bytes..1 + len_bytes + delta_bytes].copy_from_slice(&delta.to_le_bytes()[..delta_bytes]);
        }
        out[0] = (delta_bytes << 4 | len_bytes) as u8;
        1 + len_bytes + delta_bytes
    }
}

/// Bytes of the mapping pairs with their terminator.
fn pairs_len(extents: impl Iterator<Item = Extent>) -> usize {
    let (mut len, mut before) = (1, 0);
    for extent in extents {
        len += 1 + signed_bytes(extent.len.0 as i64) + signed_bytes(extent.lcn.0.wrapping_sub(before) as i64);
        before = extent.lcn.0;
    }
    len
}

/// Fewest bytes that keep the value and its sign.
const fn signed_bytes(value: i64) -> usize {
    let magnitude = if value < 0 { !value } else { value };
    let bits = 64 - magnitude.leading_zeros() as usize + 1;
    bits.div_ceil(8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Clusters, Lcn};

    #[test]
    fn mapping_pairs_keep_their_sign() {
        let mut out = [0xEE; 16];
        // docs/spec/ntfs.md#mapping-pairs: 172 clusters at LCN 1837.
        assert_eq!(MappedRun { lcn: Some(1837), len: 172 }.write(0, &mut out), 5);
        assert_eq!(out[..5], [0x22, 0xAC, 0x00, 0x2D, 0x07]);
        assert_eq!(MappedRun { lcn: Some(1836), len: 127 }.write(1837, &mut out), 3);
        assert_eq!(out[..3], [0x11, 0x7F, 0xFF]);
        assert_eq!(MappedRun { lcn: None, len: 128 }.write(7, &mut out), 3);
        assert_eq!(out[..3], [0x02, 0x80, 0x00]);
        assert_eq!([0, 127, 128, -128, -129, 32767, 32768, -32768].map(signed_bytes), [1, 1, 2, 1, 2, 2, 3, 2]);
        let extents = [(1837, 172), (1836, 127)].map(|(lcn, len)| Extent { lcn: Lcn(lcn), len: Clusters(len) });
        assert_eq!(pairs_len(extents.into_iter()), 5 + 3 + 1);
    }

    /// docs/spec/ntfs.md#planner-arithmetic
    #[test]
    fn sizes_are_those_of_the_planner_arithmetic() {
        assert_eq!((room(1024), room(4096)), (960, 4016));
        assert_eq!(resident_len(0, STANDARD_INFORMATION), 96);
        assert_eq!(resident_len(0, file_name_len(12)), 120);
        assert_eq!(resident_len(0, file_name_len(255)), 600);
    }
}
