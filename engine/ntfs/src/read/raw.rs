//! Bounds checks of the structures that [`format`](crate::format) declares. No I/O here.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::limits;
use crate::format::{
    AttrHeader, FIXUP_STRIDE, FileNameHeader, NonResidentHeader, ProtectedHeader, RecordHeader, ResidentHeader,
    attr_flag, record_flag,
};

/// Attribute type codes as found, which may be none of those known (docs/spec/ntfs.md#attribute-headers).
pub(crate) mod types {
    use crate::format::{ATTRIBUTES_END, AttrType};

    pub(crate) const STANDARD_INFORMATION: u32 = AttrType::StandardInformation as u32;
    pub(crate) const ATTRIBUTE_LIST: u32 = AttrType::AttributeList as u32;
    pub(crate) const FILE_NAME: u32 = AttrType::FileName as u32;
    pub(crate) const OBJECT_ID: u32 = AttrType::ObjectId as u32;
    pub(crate) const SECURITY_DESCRIPTOR: u32 = AttrType::SecurityDescriptor as u32;
    pub(crate) const VOLUME_NAME: u32 = AttrType::VolumeName as u32;
    pub(crate) const VOLUME_INFORMATION: u32 = AttrType::VolumeInformation as u32;
    pub(crate) const DATA: u32 = AttrType::Data as u32;
    pub(crate) const INDEX_ROOT: u32 = AttrType::IndexRoot as u32;
    pub(crate) const INDEX_ALLOCATION: u32 = AttrType::IndexAllocation as u32;
    pub(crate) const BITMAP: u32 = AttrType::Bitmap as u32;
    pub(crate) const REPARSE_POINT: u32 = AttrType::ReparsePoint as u32;
    pub(crate) const EA_INFORMATION: u32 = AttrType::EaInformation as u32;
    pub(crate) const END: u32 = ATTRIBUTES_END;
}

/// Damage inside one structure: offset in it, and description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordFault {
    pub at: usize,
    pub what: &'static str,
}

pub(crate) const fn fault(at: usize, what: &'static str) -> RecordFault {
    RecordFault { at, what }
}

/// The structure at `at`.
pub(crate) fn view<'a, T: FromBytes + KnownLayout + Immutable + Unaligned>(
    bytes: &'a [u8],
    at: usize,
    what: &'static str,
) -> Result<&'a T, RecordFault> {
    let tail = bytes.get(at..).ok_or(fault(at, what))?;
    T::ref_from_prefix(tail).map(|(view, _)| view).map_err(|_| fault(at, what))
}

/// UTF-16 units at `at`.
pub(crate) fn units<'a>(
    bytes: &'a [u8],
    at: usize,
    count: usize,
    what: &'static str,
) -> Result<&'a [U16], RecordFault> {
    let found = bytes.get(at..).and_then(|tail| tail.get(..count * 2)).ok_or(fault(at, what))?;
    <[U16]>::ref_from_bytes(found).map_err(|_| fault(at, what))
}

/// Record number of a file reference (docs/spec/ntfs.md#file-records).
pub(crate) const fn reference_number(reference: u64) -> u64 {
    reference & 0xFFFF_FFFF_FFFF
}

/// Sequence number of a file reference.
pub(crate) const fn reference_sequence(reference: u64) -> u16 {
    (reference >> 48) as u16
}

/// Checks the update sequence and restores the saved bytes (docs/spec/ntfs.md#fixups).
pub(crate) fn undo_fixups(block: &mut [u8], magic: [u8; 4], array_min: usize) -> Result<(), RecordFault> {
    let head: &ProtectedHeader = view(block, 0, "shorter than its header")?;
    if head.magic != magic {
        return Err(fault(0, if head.magic == *b"BAAD" { "marked BAAD" } else { "wrong magic" }));
    }
    let (at, entries) = (usize::from(head.fixup_offset.get()), usize::from(head.fixup_count.get()));
    if !block.len().is_multiple_of(FIXUP_STRIDE) || entries != block.len() / FIXUP_STRIDE + 1 {
        return Err(fault(6, "update sequence has the wrong length"));
    }
    if at < array_min || !at.is_multiple_of(2) || at + entries * 2 > FIXUP_STRIDE - 2 {
        return Err(fault(4, "update sequence in the wrong place"));
    }
    let sequence = [block[at], block[at + 1]];
    for stride in 1..entries {
        let (end, saved) = (stride * FIXUP_STRIDE, at + stride * 2);
        if block[end - 2..end] != sequence {
            return Err(fault(end - 2, "update sequence mismatch: torn write"));
        }
        block.copy_within(saved..saved + 2, end - 2);
    }
    Ok(())
}

/// A run of a stream; `lcn` is [`RawRun::HOLE`] where nothing is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawRun {
    pub vcn: u32,
    pub lcn: u32,
    pub len: u32,
}

impl RawRun {
    /// Marks a hole: the last cluster of the largest volume is below it.
    pub(crate) const HOLE: u32 = u32::MAX;

    pub(crate) const fn is_hole(self) -> bool {
        self.lcn == Self::HOLE
    }

    pub(crate) const fn end(self) -> u64 {
        self.vcn as u64 + self.len as u64
    }
}

/// Decodes mapping pairs (docs/spec/ntfs.md#mapping-pairs) and appends them to the runs.
///
/// `lowest..=highest` is the range that the attribute claims to map; `clusters` the size of the volume.
pub(crate) fn decode_runs(
    pairs: &[u8],
    lowest: u64,
    highest: i64,
    clusters: u64,
    runs: &mut Vec<RawRun>,
) -> Result<(), RecordFault> {
    let end = u64::try_from(highest.checked_add(1).ok_or(fault(0, "highest VCN out of range"))?)
        .map_err(|_| fault(0, "highest VCN out of range"))?;
    if end < lowest || end > limits::CLUSTERS_MAX {
        return Err(fault(0, "VCNs out of range"));
    }
    let (mut at, mut vcn, mut lcn) = (0, lowest, 0i64);
    loop {
        let head = *pairs.get(at).ok_or(fault(at, "mapping pairs without an end"))?;
        if head == 0 {
            break;
        }
        let (len_bytes, lcn_bytes) = (usize::from(head & 0x0F), usize::from(head >> 4));
        if len_bytes == 0 || len_bytes > 8 || lcn_bytes > 8 {
            return Err(fault(at, "impossible mapping pair"));
        }
        let body = pairs.get(at + 1..at + 1 + len_bytes + lcn_bytes).ok_or(fault(at, "mapping pair is cut off"))?;
        let len = signed(&body[..len_bytes]);
        if len <= 0 {
            return Err(fault(at, "run of no or negative length"));
        }
        let len = len as u64;
        let next = vcn.checked_add(len).filter(|next| *next <= end).ok_or(fault(at, "run past the highest VCN"))?;
        let start = if lcn_bytes == 0 {
            RawRun::HOLE
        } else {
            lcn = lcn.checked_add(signed(&body[len_bytes..])).ok_or(fault(at, "LCN out of range"))?;
            let inside = u64::try_from(lcn).ok().filter(|lcn| lcn.checked_add(len).is_some_and(|end| end <= clusters));
            inside.ok_or(fault(at, "run outside the volume"))? as u32
        };
        push_run(runs, RawRun { vcn: vcn as u32, lcn: start, len: len as u32 });
        if runs.len() > limits::RUNS_PER_STREAM_MAX {
            return Err(fault(at, "too many runs"));
        }
        vcn = next;
        at += 1 + len_bytes + lcn_bytes;
    }
    if vcn == end { Ok(()) } else { Err(fault(at, "runs end before the highest VCN")) }
}

/// Appends a run, merging it with the last one where it continues that.
fn push_run(runs: &mut Vec<RawRun>, run: RawRun) {
    if let Some(last) = runs.last_mut()
        && last.end() == u64::from(run.vcn)
        && (last.is_hole() && run.is_hole()
            || !last.is_hole() && !run.is_hole() && u64::from(last.lcn) + u64::from(last.len) == u64::from(run.lcn))
        && let Some(len) = last.len.checked_add(run.len)
    {
        last.len = len;
        return;
    }
    runs.push(run);
}

/// A little-endian two's complement number of 1 to 8 bytes.
fn signed(bytes: &[u8]) -> i64 {
    let fill = if bytes.last().is_some_and(|top| top & 0x80 != 0) { 0xFF } else { 0 };
    let mut wide = [fill; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    i64::from_le_bytes(wide)
}

/// One attribute of a record, bounds checked.
#[derive(Clone, Copy)]
pub(crate) struct Attribute<'a> {
    /// Offset in the record.
    pub at: usize,
    pub ty: u32,
    pub id: u16,
    pub flags: u16,
    pub name: &'a [U16],
    pub body: Body<'a>,
}

#[derive(Clone, Copy)]
pub(crate) enum Body<'a> {
    Resident { value: &'a [u8], indexed: bool },
    NonResident(NonResident<'a>),
}

#[derive(Clone, Copy)]
pub(crate) struct NonResident<'a> {
    pub lowest: u64,
    pub highest: i64,
    pub unit: u16,
    pub allocated: u64,
    pub size: u64,
    pub valid: u64,
    /// Bytes actually allocated, in the first piece of sparse and compressed streams.
    pub total: Option<u64>,
    pub pairs: &'a [u8],
}

/// A record with its fixups undone.
#[derive(Clone, Copy)]
pub(crate) struct Record<'a> {
    pub bytes: &'a [u8],
    pub header: &'a RecordHeader,
}

impl<'a> Record<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, RecordFault> {
        let header: &RecordHeader = view(bytes, 0, "shorter than its header")?;
        let (first, used) = (usize::from(header.first_attribute.get()), header.bytes_used.get() as usize);
        if used > bytes.len() || used < first + 4 {
            return Err(fault(0x18, "impossible bytes used"));
        }
        if first < size_of::<RecordHeader>() - 8 || !first.is_multiple_of(8) {
            return Err(fault(0x14, "impossible place of the first attribute"));
        }
        Ok(Self { bytes, header })
    }

    pub(crate) fn in_use(&self) -> bool {
        self.header.flags.get() & record_flag::IN_USE != 0
    }

    pub(crate) fn attributes(&self) -> Attributes<'a> {
        let used = self.header.bytes_used.get() as usize;
        Attributes { bytes: &self.bytes[..used], at: usize::from(self.header.first_attribute.get()), done: false }
    }
}

pub(crate) struct Attributes<'a> {
    bytes: &'a [u8],
    /// Offset of the next attribute; at the end, that of the end marker.
    pub at: usize,
    done: bool,
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, RecordFault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        match self.parse() {
            Ok(Some(attribute)) => Some(Ok(attribute)),
            Ok(None) => {
                self.done = true;
                None
            }
            Err(fault) => {
                self.done = true;
                Some(Err(fault))
            }
        }
    }
}

impl<'a> Attributes<'a> {
    fn parse(&mut self) -> Result<Option<Attribute<'a>>, RecordFault> {
        let at = self.at;
        let ty: &U32 = view(self.bytes, at, "no end marker")?;
        if ty.get() == types::END {
            return Ok(None);
        }
        let head: &AttrHeader = view(self.bytes, at, "attribute header is cut off")?;
        let len = head.length.get() as usize;
        if len < size_of::<AttrHeader>() + size_of::<ResidentHeader>() || !len.is_multiple_of(8) {
            return Err(fault(at + 4, "impossible attribute length"));
        }
        let bytes = self.bytes.get(at..).and_then(|tail| tail.get(..len));
        let bytes = bytes.ok_or(fault(at + 4, "attribute runs past the bytes used"))?;
        self.at = at + len;
        let inside = |fault: RecordFault| RecordFault { at: fault.at + at, ..fault };
        let name = match usize::from(head.name_units) {
            0 => &[],
            count => {
                units(bytes, usize::from(head.name_offset.get()), count, "attribute name is cut off").map_err(inside)?
            }
        };
        let body = match head.non_resident {
            0 => {
                let rest: &ResidentHeader = view(bytes, 0x10, "resident header is cut off").map_err(inside)?;
                let (start, count) = (usize::from(rest.value_offset.get()), rest.value_length.get() as usize);
                let value = bytes.get(start..).and_then(|tail| tail.get(..count));
                let value = value.ok_or(fault(at + 0x10, "resident value runs past its attribute"))?;
                Body::Resident { value, indexed: rest.indexed & 1 != 0 }
            }
            1 => {
                let rest: &NonResidentHeader = view(bytes, 0x10, "non-resident header is cut off").map_err(inside)?;
                let flags = head.flags.get();
                let total = if flags & (attr_flag::COMPRESSED | attr_flag::SPARSE) != 0 && rest.lowest_vcn.get() == 0 {
                    let pairs_at = usize::from(rest.pairs_offset.get());
                    let total = (pairs_at >= 0x48).then(|| view::<U64>(bytes, 0x40, "total size is cut off"));
                    total.transpose().map_err(inside)?.map(|total| total.get())
                } else {
                    None
                };
                let pairs = bytes.get(usize::from(rest.pairs_offset.get()).max(0x40)..);
                Body::NonResident(NonResident {
                    lowest: rest.lowest_vcn.get(),
                    highest: rest.highest_vcn.get(),
                    unit: rest.compression_unit.get(),
                    allocated: rest.allocated.get(),
                    size: rest.data.get(),
                    valid: rest.valid.get(),
                    total,
                    pairs: pairs.ok_or(fault(at + 0x20, "mapping pairs outside their attribute"))?,
                })
            }
            _ => return Err(fault(at + 8, "neither resident nor non-resident")),
        };
        Ok(Some(Attribute { at, ty: head.kind.get(), id: head.id.get(), flags: head.flags.get(), name, body }))
    }
}

/// A $FILE_NAME value and its name.
pub(crate) fn file_name(value: &[u8]) -> Result<(&FileNameHeader, &[U16]), RecordFault> {
    let head: &FileNameHeader = view(value, 0, "file name is cut off")?;
    if head.name_units == 0 {
        return Err(fault(0x40, "empty file name"));
    }
    let name = units(value, size_of::<FileNameHeader>(), usize::from(head.name_units), "file name is cut off")?;
    Ok((head, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapping_pairs_of_the_specification_decode() {
        let mut runs = Vec::new();
        decode_runs(&[0x22, 0xAC, 0x00, 0x2D, 0x07, 0x00], 0, 171, 10_000, &mut runs).unwrap();
        assert_eq!(runs, [RawRun { vcn: 0, lcn: 1837, len: 172 }]);
    }

    #[test]
    fn mapping_pairs_refuse_what_leaves_volume_or_stream() {
        let decode = |pairs: &[u8], highest| decode_runs(pairs, 0, highest, 100, &mut Vec::new());
        assert!(decode(&[0x11, 10, 90, 0], 9).is_ok());
        assert!(decode(&[0x11, 10, 91, 0], 9).is_err(), "past the volume");
        assert!(decode(&[0x11, 10, 90, 0], 8).is_err(), "past the highest VCN");
        assert!(decode(&[0x11, 10, 90, 0], 10).is_err(), "short of the highest VCN");
        assert!(decode(&[0x11, 10, 0xF0, 0], 9).is_err(), "negative LCN");
        assert!(decode(&[0x11, 10, 90], 9).is_err(), "no end");
        assert!(decode(&[0x11, 0x80, 1, 0], 9).is_err(), "negative length");
    }
}
