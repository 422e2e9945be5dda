//! The structures as they lie on disk (`docs`: spec sections 3 to 11), and their bounds checks. No I/O here.

use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::limits;

/// Attribute type codes (spec section 6).
pub(super) mod types {
    pub(crate) const STANDARD_INFORMATION: u32 = 0x10;
    pub(crate) const ATTRIBUTE_LIST: u32 = 0x20;
    pub(crate) const FILE_NAME: u32 = 0x30;
    pub(crate) const OBJECT_ID: u32 = 0x40;
    pub(crate) const SECURITY_DESCRIPTOR: u32 = 0x50;
    pub(crate) const VOLUME_NAME: u32 = 0x60;
    pub(crate) const VOLUME_INFORMATION: u32 = 0x70;
    pub(crate) const DATA: u32 = 0x80;
    pub(crate) const INDEX_ROOT: u32 = 0x90;
    pub(crate) const INDEX_ALLOCATION: u32 = 0xA0;
    pub(crate) const BITMAP: u32 = 0xB0;
    pub(crate) const REPARSE_POINT: u32 = 0xC0;
    pub(crate) const EA_INFORMATION: u32 = 0xD0;
    pub(crate) const END: u32 = 0xFFFF_FFFF;
}

/// Attribute flags (spec section 6).
pub(super) const ATTR_COMPRESSED: u16 = 0x0001;
pub(super) const ATTR_ENCRYPTED: u16 = 0x4000;
pub(super) const ATTR_SPARSE: u16 = 0x8000;

/// Record flags (spec section 5).
pub(super) const RECORD_IN_USE: u16 = 1;
pub(super) const RECORD_DIRECTORY: u16 = 2;
pub(super) const RECORD_VIEW: u16 = 8;

/// Index entry flags (spec section 11).
pub(super) const ENTRY_SUBNODE: u16 = 1;
pub(super) const ENTRY_END: u16 = 2;

/// Fixups work on strides of this size whatever the sector (spec section 1).
pub(super) const STRIDE: usize = 512;

/// Boot sector (spec section 3).
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct BootSector {
    pub jump: [u8; 3],
    pub oem_id: [u8; 8],
    pub sector_bytes: U16,
    pub sectors_per_cluster: u8,
    pub zero_0x0e: [u8; 7],
    pub media: u8,
    pub zero_0x16: U16,
    pub track_sectors: U16,
    pub heads: U16,
    pub hidden_sectors: U32,
    pub zero_0x20: U32,
    pub unknown_0x24: U32,
    pub sectors: U64,
    pub mft_lcn: U64,
    pub mirror_lcn: U64,
    pub record_size: i8,
    pub zero_0x41: [u8; 3],
    pub index_block_size: i8,
    pub zero_0x45: [u8; 3],
    pub serial: U64,
    pub checksum: U32,
    pub code: [u8; 426],
    pub signature: [u8; 2],
}
const _: () = assert!(size_of::<BootSector>() == 512);

/// Head of every fixed-up structure (spec section 4).
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Protected {
    pub magic: [u8; 4],
    pub array_at: U16,
    pub array_entries: U16,
}

/// FILE record header (spec section 5).
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RecordHeader {
    pub protected: Protected,
    pub lsn: U64,
    pub sequence: U16,
    pub links: U16,
    pub first_attribute: U16,
    pub flags: U16,
    pub used: U32,
    pub allocated: U32,
    pub base: U64,
    pub next_id: U16,
    pub zero_0x2a: U16,
    pub own_number: U32,
}
const _: () = assert!(size_of::<RecordHeader>() == 0x30);

/// Attribute header, common part (spec section 6).
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct AttributeHeader {
    pub ty: U32,
    pub len: U32,
    pub non_resident: u8,
    pub name_units: u8,
    pub name_at: U16,
    pub flags: U16,
    pub id: U16,
}
const _: () = assert!(size_of::<AttributeHeader>() == 0x10);

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ResidentHeader {
    value_len: U32,
    value_at: U16,
    indexed: u8,
    zero_0x17: u8,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct NonResidentHeader {
    lowest: U64,
    highest: I64,
    pairs_at: U16,
    unit: U16,
    zero_0x24: U32,
    allocated: U64,
    size: U64,
    valid: U64,
}
const _: () = assert!(size_of::<AttributeHeader>() + size_of::<NonResidentHeader>() == 0x40);

/// $STANDARD_INFORMATION, the part that every version has (spec section 8).
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct StandardInformation {
    pub created: U64,
    pub modified: U64,
    pub changed: U64,
    pub accessed: U64,
    pub attributes: U32,
    pub versions_max: U32,
    pub version: U32,
    pub class: U32,
}
const _: () = assert!(size_of::<StandardInformation>() == 48);

/// What the 72-byte form adds (spec section 8).
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct StandardInformationTail {
    pub owner: U32,
    pub security: U32,
    pub quota: U64,
    pub usn: U64,
}

/// $FILE_NAME before the name itself; also the key of `$I30` entries (spec section 8).
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct FileName {
    pub parent: U64,
    pub created: U64,
    pub modified: U64,
    pub changed: U64,
    pub accessed: U64,
    pub allocated: U64,
    pub size: U64,
    pub attributes: U32,
    pub reparse: U32,
    pub units: u8,
    pub namespace: u8,
}
const _: () = assert!(size_of::<FileName>() == 66);

/// $ATTRIBUTE_LIST entry before the name (spec section 8).
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct ListEntry {
    pub ty: U32,
    pub len: U16,
    pub name_units: u8,
    pub name_at: u8,
    pub lowest: U64,
    pub reference: U64,
    pub id: U16,
}
const _: () = assert!(size_of::<ListEntry>() == 0x1A);

/// $VOLUME_INFORMATION (spec section 8).
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct VolumeInformation {
    pub zero_0x00: U64,
    pub major: u8,
    pub minor: u8,
    pub flags: U16,
}

/// $INDEX_ROOT before its index header (spec section 11).
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct IndexRoot {
    pub ty: U32,
    pub rule: U32,
    pub block_bytes: U32,
    pub block_clusters: u8,
    pub zero_0x0d: [u8; 3],
}
const _: () = assert!(size_of::<IndexRoot>() == 0x10);

/// Index header, in roots and blocks (spec section 11).
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct IndexHeader {
    pub first: U32,
    pub end: U32,
    pub allocated: U32,
    pub large: u8,
    pub zero_0x0d: [u8; 3],
}
const _: () = assert!(size_of::<IndexHeader>() == 0x10);

/// INDX block before its index header (spec section 11).
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct BlockHeader {
    pub protected: Protected,
    pub lsn: U64,
    pub vcn: U64,
}
const _: () = assert!(size_of::<BlockHeader>() == 0x18);

/// Index entry before its key (spec section 11). In view indexes `reference` is the place of the data.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct EntryHeader {
    pub reference: U64,
    pub len: U16,
    pub key_len: U16,
    pub flags: U16,
    pub zero_0x0e: U16,
}
const _: () = assert!(size_of::<EntryHeader>() == 0x10);

/// Damage inside one structure: offset in it, and what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub at: usize,
    pub what: &'static str,
}

pub(super) const fn fault(at: usize, what: &'static str) -> Fault {
    Fault { at, what }
}

/// A declared structure at `at`.
pub(super) fn view<'a, T: FromBytes + KnownLayout + Immutable + Unaligned>(
    bytes: &'a [u8],
    at: usize,
    what: &'static str,
) -> Result<&'a T, Fault> {
    let tail = bytes.get(at..).ok_or(fault(at, what))?;
    T::ref_from_prefix(tail).map(|(view, _)| view).map_err(|_| fault(at, what))
}

/// UTF-16 units at `at`.
pub(super) fn units<'a>(bytes: &'a [u8], at: usize, count: usize, what: &'static str) -> Result<&'a [U16], Fault> {
    let found = bytes.get(at..).and_then(|tail| tail.get(..count * 2)).ok_or(fault(at, what))?;
    <[U16]>::ref_from_bytes(found).map_err(|_| fault(at, what))
}

/// Record number of a file reference (spec section 5).
pub(super) const fn reference_number(reference: u64) -> u64 {
    reference & 0xFFFF_FFFF_FFFF
}

/// Sequence number of a file reference.
pub(super) const fn reference_sequence(reference: u64) -> u16 {
    (reference >> 48) as u16
}

/// Checks the update sequence and puts the saved bytes back (spec section 4).
pub(super) fn undo_fixups(block: &mut [u8], magic: [u8; 4], array_min: usize) -> Result<(), Fault> {
    let head: &Protected = view(block, 0, "shorter than its header")?;
    if head.magic != magic {
        return Err(fault(0, if head.magic == *b"BAAD" { "marked BAAD" } else { "wrong magic" }));
    }
    let (at, entries) = (usize::from(head.array_at.get()), usize::from(head.array_entries.get()));
    if !block.len().is_multiple_of(STRIDE) || entries != block.len() / STRIDE + 1 {
        return Err(fault(6, "update sequence has the wrong length"));
    }
    if at < array_min || !at.is_multiple_of(2) || at + entries * 2 > STRIDE - 2 {
        return Err(fault(4, "update sequence in the wrong place"));
    }
    let sequence = [block[at], block[at + 1]];
    for stride in 1..entries {
        let (end, saved) = (stride * STRIDE, at + stride * 2);
        if block[end - 2..end] != sequence {
            return Err(fault(end - 2, "update sequence mismatch: torn write"));
        }
        block.copy_within(saved..saved + 2, end - 2);
    }
    Ok(())
}

/// A run of a stream; `lcn` is [`Run::HOLE`] where nothing is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub vcn: u32,
    pub lcn: u32,
    pub len: u32,
}

impl Run {
    /// No LCN: the last cluster of the largest volume is below it.
    pub(super) const HOLE: u32 = u32::MAX;

    pub(super) const fn is_hole(self) -> bool {
        self.lcn == Self::HOLE
    }

    pub(super) const fn end(self) -> u64 {
        self.vcn as u64 + self.len as u64
    }
}

/// Decodes mapping pairs (spec section 7) behind the runs already there.
///
/// `lowest..=highest` is what the attribute says it maps; `clusters` the size of the volume.
pub(super) fn decode_runs(
    pairs: &[u8],
    lowest: u64,
    highest: i64,
    clusters: u64,
    runs: &mut Vec<Run>,
) -> Result<(), Fault> {
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
            Run::HOLE
        } else {
            lcn = lcn.checked_add(signed(&body[len_bytes..])).ok_or(fault(at, "LCN out of range"))?;
            let inside = u64::try_from(lcn).ok().filter(|lcn| lcn.checked_add(len).is_some_and(|end| end <= clusters));
            inside.ok_or(fault(at, "run outside the volume"))? as u32
        };
        push_run(runs, Run { vcn: vcn as u32, lcn: start, len: len as u32 });
        if runs.len() > limits::RUNS_PER_STREAM_MAX {
            return Err(fault(at, "too many runs"));
        }
        vcn = next;
        at += 1 + len_bytes + lcn_bytes;
    }
    if vcn == end { Ok(()) } else { Err(fault(at, "runs end before the highest VCN")) }
}

/// Appends, joining what continues the last run.
fn push_run(runs: &mut Vec<Run>, run: Run) {
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
pub(super) struct Attribute<'a> {
    /// Offset in the record.
    pub at: usize,
    pub ty: u32,
    pub id: u16,
    pub flags: u16,
    pub name: &'a [U16],
    pub body: Body<'a>,
}

#[derive(Clone, Copy)]
pub(super) enum Body<'a> {
    Resident { value: &'a [u8], indexed: bool },
    NonResident(NonResident<'a>),
}

#[derive(Clone, Copy)]
pub(super) struct NonResident<'a> {
    pub lowest: u64,
    pub highest: i64,
    pub unit: u16,
    pub allocated: u64,
    pub size: u64,
    pub valid: u64,
    /// Bytes really allocated, in the first piece of sparse and compressed streams.
    pub total: Option<u64>,
    pub pairs: &'a [u8],
}

/// A record whose fixups are undone.
#[derive(Clone, Copy)]
pub(super) struct Record<'a> {
    pub bytes: &'a [u8],
    pub header: &'a RecordHeader,
}

impl<'a> Record<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, Fault> {
        let header: &RecordHeader = view(bytes, 0, "shorter than its header")?;
        let (first, used) = (usize::from(header.first_attribute.get()), header.used.get() as usize);
        if used > bytes.len() || used < first + 4 {
            return Err(fault(0x18, "impossible bytes used"));
        }
        if first < size_of::<RecordHeader>() - 8 || !first.is_multiple_of(8) {
            return Err(fault(0x14, "impossible place of the first attribute"));
        }
        Ok(Self { bytes, header })
    }

    pub(super) fn in_use(&self) -> bool {
        self.header.flags.get() & RECORD_IN_USE != 0
    }

    pub(super) fn attributes(&self) -> Attributes<'a> {
        let used = self.header.used.get() as usize;
        Attributes { bytes: &self.bytes[..used], at: usize::from(self.header.first_attribute.get()), done: false }
    }
}

pub(super) struct Attributes<'a> {
    bytes: &'a [u8],
    /// Where the next attribute starts; at the end, where the end marker is.
    pub at: usize,
    done: bool,
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, Fault>;

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
    fn parse(&mut self) -> Result<Option<Attribute<'a>>, Fault> {
        let at = self.at;
        let ty: &U32 = view(self.bytes, at, "no end marker")?;
        if ty.get() == types::END {
            return Ok(None);
        }
        let head: &AttributeHeader = view(self.bytes, at, "attribute header is cut off")?;
        let len = head.len.get() as usize;
        if len < size_of::<AttributeHeader>() + size_of::<ResidentHeader>() || !len.is_multiple_of(8) {
            return Err(fault(at + 4, "impossible attribute length"));
        }
        let bytes = self.bytes.get(at..).and_then(|tail| tail.get(..len));
        let bytes = bytes.ok_or(fault(at + 4, "attribute runs past the bytes used"))?;
        self.at = at + len;
        let inside = |fault: Fault| Fault { at: fault.at + at, ..fault };
        let name = match usize::from(head.name_units) {
            0 => &[],
            count => {
                units(bytes, usize::from(head.name_at.get()), count, "attribute name is cut off").map_err(inside)?
            }
        };
        let body = match head.non_resident {
            0 => {
                let rest: &ResidentHeader = view(bytes, 0x10, "resident header is cut off").map_err(inside)?;
                let (start, count) = (usize::from(rest.value_at.get()), rest.value_len.get() as usize);
                let value = bytes.get(start..).and_then(|tail| tail.get(..count));
                let value = value.ok_or(fault(at + 0x10, "resident value runs past its attribute"))?;
                Body::Resident { value, indexed: rest.indexed & 1 != 0 }
            }
            1 => {
                let rest: &NonResidentHeader = view(bytes, 0x10, "non-resident header is cut off").map_err(inside)?;
                let flags = head.flags.get();
                let total = if flags & (ATTR_COMPRESSED | ATTR_SPARSE) != 0 && rest.lowest.get() == 0 {
                    let pairs_at = usize::from(rest.pairs_at.get());
                    let total = (pairs_at >= 0x48).then(|| view::<U64>(bytes, 0x40, "total size is cut off"));
                    total.transpose().map_err(inside)?.map(|total| total.get())
                } else {
                    None
                };
                let pairs = bytes.get(usize::from(rest.pairs_at.get()).max(0x40)..);
                Body::NonResident(NonResident {
                    lowest: rest.lowest.get(),
                    highest: rest.highest.get(),
                    unit: rest.unit.get(),
                    allocated: rest.allocated.get(),
                    size: rest.size.get(),
                    valid: rest.valid.get(),
                    total,
                    pairs: pairs.ok_or(fault(at + 0x20, "mapping pairs outside their attribute"))?,
                })
            }
            _ => return Err(fault(at + 8, "neither resident nor non-resident")),
        };
        Ok(Some(Attribute { at, ty: head.ty.get(), id: head.id.get(), flags: head.flags.get(), name, body }))
    }
}

/// A $FILE_NAME value and its name.
pub(super) fn file_name(value: &[u8]) -> Result<(&FileName, &[U16]), Fault> {
    let head: &FileName = view(value, 0, "file name is cut off")?;
    if head.units == 0 {
        return Err(fault(0x40, "empty file name"));
    }
    let name = units(value, size_of::<FileName>(), usize::from(head.units), "file name is cut off")?;
    Ok((head, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapping_pairs_of_the_specification_decode() {
        let mut runs = Vec::new();
        decode_runs(&[0x22, 0xAC, 0x00, 0x2D, 0x07, 0x00], 0, 171, 10_000, &mut runs).unwrap();
        assert_eq!(runs, [Run { vcn: 0, lcn: 1837, len: 172 }]);
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
