//! The structures of an NTFS 3.1 volume; each declaration cites its evidence.

use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Update sequences protect strides of this size, whatever the sector (docs/spec/ntfs.md#fixups).
pub const FIXUP_STRIDE: usize = 512;
/// Bytes of an index block (docs/spec/ntfs.md#limits).
pub const INDEX_BLOCK: usize = 4096;
/// Units in the longest name (docs/spec/ntfs.md#limits).
pub const NAME_UNITS_MAX: usize = 255;
/// Bytes of `$Boot` (docs/spec/ntfs.md#boot-sector).
pub const BOOT_BYTES: u64 = 8192;
/// The mark after the last attribute of a record (docs/spec/ntfs.md#file-records).
pub const ATTRIBUTES_END: u32 = 0xFFFF_FFFF;

/// Attribute types (docs/spec/ntfs.md#attribute-headers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum AttrType {
    StandardInformation = 0x10,
    AttributeList = 0x20,
    FileName = 0x30,
    ObjectId = 0x40,
    SecurityDescriptor = 0x50,
    VolumeName = 0x60,
    VolumeInformation = 0x70,
    Data = 0x80,
    IndexRoot = 0x90,
    IndexAllocation = 0xA0,
    Bitmap = 0xB0,
    ReparsePoint = 0xC0,
    EaInformation = 0xD0,
    Ea = 0xE0,
    LoggedUtilityStream = 0x100,
}

/// Record numbers of the metafiles (docs/spec/ntfs.md#metafiles).
#[allow(missing_docs)]
pub mod metafile {
    pub const MFT: u32 = 0;
    pub const MFT_MIRR: u32 = 1;
    pub const LOG_FILE: u32 = 2;
    pub const VOLUME: u32 = 3;
    pub const ATTR_DEF: u32 = 4;
    pub const ROOT: u32 = 5;
    pub const BITMAP: u32 = 6;
    pub const BOOT: u32 = 7;
    pub const BAD_CLUS: u32 = 8;
    pub const SECURE: u32 = 9;
    pub const UP_CASE: u32 = 10;
    pub const EXTEND: u32 = 11;
    pub const QUOTA: u32 = 24;
    pub const OBJ_ID: u32 = 25;
    pub const REPARSE: u32 = 26;
    /// First record that may be a user's: those below are NTFS's own (12 to 23 are reserved).
    pub const FIRST_FREE: u32 = 24;
    /// First record for users' files on a new volume; Windows adds its own below on first mount
    /// (docs/spec/ntfs.md#planner-arithmetic).
    pub const FIRST_USER: u32 = 64;
}

/// `$I30`, the name of a directory's index.
pub const I30: [u16; 4] = [0x24, 0x49, 0x33, 0x30];

/// Flags of an attribute (docs/spec/ntfs.md#attribute-headers).
#[allow(missing_docs)]
pub mod attr_flag {
    pub const COMPRESSED: u16 = 0x0001;
    pub const ENCRYPTED: u16 = 0x4000;
    pub const SPARSE: u16 = 0x8000;
}

/// Flags of a record (docs/spec/ntfs.md#file-records).
#[allow(missing_docs)]
pub mod record_flag {
    pub const IN_USE: u16 = 1;
    pub const DIRECTORY: u16 = 2;
    pub const IN_EXTEND: u16 = 4;
    pub const VIEW_INDEX: u16 = 8;
}

/// File attributes (docs/spec/ntfs.md#standard-information).
#[allow(missing_docs)]
pub mod file_attribute {
    pub const HIDDEN: u32 = 2;
    pub const SYSTEM: u32 = 4;
    pub const ARCHIVE: u32 = 0x20;
    /// Only in `$FILE_NAME`: the record has an index `$I30`.
    pub const DIRECTORY: u32 = 0x1000_0000;
    pub const VIEW_INDEX: u32 = 0x2000_0000;
}

/// Namespaces of `$FILE_NAME` (docs/spec/ntfs.md#names).
#[allow(missing_docs)]
pub mod namespace {
    pub const POSIX: u8 = 0;
    pub const WIN32_AND_DOS: u8 = 3;
}

/// Collation rules (docs/spec/ntfs.md#upcase-table-and-collation).
#[allow(missing_docs)]
pub mod collation {
    pub const FILE_NAME: u32 = 1;
    pub const ULONG: u32 = 0x10;
    pub const SID: u32 = 0x11;
    pub const SECURITY_HASH: u32 = 0x12;
    pub const ULONGS: u32 = 0x13;
}

/// Flags of index entries (docs/spec/ntfs.md#indexes).
#[allow(missing_docs)]
pub mod entry_flag {
    pub const SUBNODE: u16 = 1;
    pub const END: u16 = 2;
}

/// Head of every structure that an update sequence protects (docs/spec/ntfs.md#fixups).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct ProtectedHeader {
    pub magic: [u8; 4],
    pub fixup_offset: U16,
    pub fixup_count: U16,
}

/// Header of a FILE record (docs/spec/ntfs.md#fixups and docs/spec/ntfs.md#file-records); the update sequence array
/// follows.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct RecordHeader {
    pub protected: ProtectedHeader,
    pub log_sequence: U64,
    pub sequence: U16,
    pub links: U16,
    pub first_attribute: U16,
    pub flags: U16,
    pub bytes_used: U32,
    pub bytes_allocated: U32,
    pub base_record: U64,
    pub next_attribute_id: U16,
    pub unused: U16,
    pub record_number: U32,
}
const _: () = assert!(size_of::<RecordHeader>() == 0x30);

/// First part of every attribute (docs/spec/ntfs.md#attribute-headers).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct AttrHeader {
    pub kind: U32,
    pub length: U32,
    pub non_resident: u8,
    pub name_units: u8,
    pub name_offset: U16,
    pub flags: U16,
    pub id: U16,
}
const _: () = assert!(size_of::<AttrHeader>() == 0x10);

/// Second part of a resident attribute (docs/spec/ntfs.md#attribute-headers).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct ResidentHeader {
    pub value_length: U32,
    pub value_offset: U16,
    pub indexed: u8,
    pub unused: u8,
}
/// Offset of the name or the value in a resident attribute.
pub const RESIDENT_HEADER: usize = size_of::<AttrHeader>() + size_of::<ResidentHeader>();
const _: () = assert!(RESIDENT_HEADER == 0x18);

/// Second part of a non-resident attribute that is neither sparse nor compressed (docs/spec/ntfs.md#attribute-headers).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct NonResidentHeader {
    pub lowest_vcn: U64,
    /// −1 where nothing is allocated.
    pub highest_vcn: I64,
    pub pairs_offset: U16,
    pub compression_unit: U16,
    pub unused: U32,
    pub allocated: U64,
    pub data: U64,
    pub valid: U64,
}
/// Offset of the name or the mapping pairs in a non-resident attribute.
pub const NON_RESIDENT_HEADER: usize = size_of::<AttrHeader>() + size_of::<NonResidentHeader>();
const _: () = assert!(NON_RESIDENT_HEADER == 0x40);

/// The 48-byte form of `$STANDARD_INFORMATION` (docs/spec/ntfs.md#standard-information).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct StandardInformation {
    pub created: U64,
    pub modified: U64,
    pub changed: U64,
    pub accessed: U64,
    pub attributes: U32,
    pub versions_max: U32,
    pub version: U32,
    pub class_id: U32,
}
const _: () = assert!(size_of::<StandardInformation>() == 48);

/// The part that NTFS 3.x adds after [`StandardInformation`] (docs/spec/ntfs.md#standard-information).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct StandardInformation3 {
    pub owner_id: U32,
    pub security_id: U32,
    pub quota_charged: U64,
    pub usn: U64,
}
const _: () = assert!(size_of::<StandardInformation>() + size_of::<StandardInformation3>() == 72);

/// `$FILE_NAME` up to the name (docs/spec/ntfs.md#file-names).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct FileNameHeader {
    pub parent: U64,
    pub created: U64,
    pub modified: U64,
    pub changed: U64,
    pub accessed: U64,
    pub allocated: U64,
    pub data: U64,
    pub attributes: U32,
    pub reparse_tag: U32,
    pub name_units: u8,
    pub namespace: u8,
}
const _: () = assert!(size_of::<FileNameHeader>() == 66);

/// An entry of `$ATTRIBUTE_LIST` up to the name (docs/spec/ntfs.md#attribute-lists).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct ListEntryHeader {
    pub kind: U32,
    pub length: U16,
    pub name_units: u8,
    pub name_offset: u8,
    pub lowest_vcn: U64,
    pub record: U64,
    pub id: U16,
}
const _: () = assert!(size_of::<ListEntryHeader>() == 0x1A);

/// `$VOLUME_INFORMATION` (docs/spec/ntfs.md#volume-information).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct VolumeInformation {
    pub unused: U64,
    pub major: u8,
    pub minor: u8,
    pub flags: U16,
}
const _: () = assert!(size_of::<VolumeInformation>() == 12);

/// `$INDEX_ROOT` before its index header (docs/spec/ntfs.md#indexes).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct IndexRoot {
    pub indexed_type: U32,
    pub collation: U32,
    pub block_bytes: U32,
    pub clusters_per_block: u8,
    pub unused: [u8; 3],
}
const _: () = assert!(size_of::<IndexRoot>() == 16);

/// Header of a list of entries (docs/spec/ntfs.md#indexes); offsets count from its own start.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct IndexHeader {
    pub first_entry: U32,
    pub used: U32,
    pub allocated: U32,
    pub has_subnodes: u8,
    pub unused: [u8; 3],
}
const _: () = assert!(size_of::<IndexHeader>() == 16);

/// Header of an INDX block before its index header (docs/spec/ntfs.md#fixups and docs/spec/ntfs.md#indexes).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct BlockHeader {
    pub protected: ProtectedHeader,
    pub log_sequence: U64,
    pub vcn: U64,
}
const _: () = assert!(size_of::<BlockHeader>() == 0x18);
/// Offset of the update sequence array in an index block.
pub const BLOCK_FIXUPS: usize = size_of::<BlockHeader>() + size_of::<IndexHeader>();
/// Offset of the entries in an index block.
pub const BLOCK_ENTRIES: usize = (BLOCK_FIXUPS + 2 * (INDEX_BLOCK / FIXUP_STRIDE + 1)).next_multiple_of(8);
const _: () = assert!(BLOCK_FIXUPS == 0x28 && BLOCK_ENTRIES == 0x40);

/// Header of an index entry (docs/spec/ntfs.md#indexes). In view indexes the reference holds offset and length of the
/// data.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct EntryHeader {
    pub reference: U64,
    pub length: U16,
    pub key_length: U16,
    pub flags: U16,
    pub unused: U16,
}
/// Bytes of an entry before its key.
pub const ENTRY_HEADER: usize = size_of::<EntryHeader>();
const _: () = assert!(ENTRY_HEADER == 16);

/// The boot sector (docs/spec/ntfs.md#boot-sector).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct BootSector {
    pub jump: [u8; 3],
    pub oem: [u8; 8],
    pub sector_bytes: U16,
    pub sectors_per_cluster: u8,
    pub zero_0x0e: [u8; 7],
    pub media: u8,
    pub zero_0x16: U16,
    pub sectors_per_track: U16,
    pub heads: U16,
    pub hidden_sectors: U32,
    pub zero_0x20: U32,
    pub constant_0x24: [u8; 4],
    pub sectors: U64,
    pub mft: U64,
    pub mft_mirror: U64,
    pub record_size: i8,
    pub zero_0x41: [u8; 3],
    pub block_size: i8,
    pub zero_0x45: [u8; 3],
    pub serial: U64,
    pub checksum: U32,
    pub code: [u8; 426],
    pub signature: [u8; 2],
}
const _: () = assert!(size_of::<BootSector>() == 512);

/// One row of `$AttrDef` (docs/spec/ntfs.md#metafiles).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct AttrDefRow {
    pub name: [U16; 64],
    pub kind: U32,
    pub display_rule: U32,
    pub collation: U32,
    pub flags: U32,
    pub min: U64,
    pub max: U64,
}
const _: () = assert!(size_of::<AttrDefRow>() == 160);

/// Header of an entry of `$SDS`; also the data of `$SII` and `$SDH` (docs/spec/ntfs.md#security).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct SecurityEntry {
    pub hash: U32,
    pub id: U32,
    pub offset: U64,
    pub length: U32,
}
const _: () = assert!(size_of::<SecurityEntry>() == 20);

/// A reference to a record: its number and its sequence number (docs/spec/ntfs.md#file-records).
pub const fn reference(record: u32, sequence: u16) -> u64 {
    record as u64 | (sequence as u64) << 48
}

/// ASCII as UTF-16 units.
pub const fn units<const N: usize>(ascii: &[u8; N]) -> [u16; N] {
    let mut out = [0; N];
    let mut i = 0;
    while i < N {
        out[i] = ascii[i] as u16;
        i += 1;
    }
    out
}

/// Rounds up to 8, the alignment of every attribute and entry.
pub const fn align8(len: usize) -> usize {
    len.next_multiple_of(8)
}

/// Applies the update sequence: the very last step for a record or block (docs/spec/ntfs.md#fixups).
///
/// `fixups` is the offset of the update sequence array; `protected` is a whole number of strides.
pub fn protect(protected: &mut [u8], fixups: usize) {
    protect_as(protected, fixups, 1);
}

/// As [`protect`], with another sequence value: that following the old one when a structure is overwritten, so that a
/// torn write shows.
pub fn protect_as(protected: &mut [u8], fixups: usize, sequence: u16) {
    let sequence = sequence.to_le_bytes();
    protected[fixups..fixups + 2].copy_from_slice(&sequence);
    for stride in 0..protected.len() / FIXUP_STRIDE {
        let tail = (stride + 1) * FIXUP_STRIDE - 2;
        let saved = fixups + 2 + 2 * stride;
        protected.copy_within(tail..tail + 2, saved);
        protected[tail..tail + 2].copy_from_slice(&sequence);
    }
}
