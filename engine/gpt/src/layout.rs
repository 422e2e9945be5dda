//! On-disk structures.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::units::Guid;

/// Partition type of Windows data volumes, `EBD0A0A2-B9E5-4433-87C0-68B6B72699C7`.
pub const BASIC_DATA: Guid =
    Guid::from_fields(0xEBD0_A0A2, 0xB9E5, 0x4433, [0x87, 0xC0, 0x68, 0xB6, 0xB7, 0x26, 0x99, 0xC7]);
/// Microsoft reserved partition, `E3C9E316-0B5C-4DB8-817D-F92DF00215AE`.
pub const MSR: Guid = Guid::from_fields(0xE3C9_E316, 0x0B5C, 0x4DB8, [0x81, 0x7D, 0xF9, 0x2D, 0xF0, 0x02, 0x15, 0xAE]);

/// MBR type of the record that protects a GPT.
pub const MBR_PROTECTIVE: u8 = 0xEE;
/// MBR type of NTFS volumes.
pub const MBR_NTFS: u8 = 0x07;
/// End of every boot sector.
pub const MBR_SIGNATURE: u16 = 0xAA55;

/// `EFI PART`.
pub const GPT_SIGNATURE: [u8; 8] = *b"EFI PART";
/// Revision 1.0.
pub const GPT_REVISION: u32 = 0x0001_0000;
/// Entries in tables written here: the customary number.
pub const ENTRIES: u32 = 128;
/// Bytes of the entry array written here.
pub const ENTRIES_LEN: u64 = ENTRIES as u64 * size_of::<GptEntry>() as u64;

/// One of the four records in an MBR.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct MbrRecord {
    pub boot_indicator: u8,
    pub start_chs: [u8; 3],
    pub kind: u8,
    pub end_chs: [u8; 3],
    pub start_lba: U32,
    pub sectors: U32,
}

/// The master boot record: the first 512 bytes, whatever the sector size.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Mbr {
    pub boot_code: [u8; 440],
    pub disk_signature: U32,
    pub unknown_0x1bc: U16,
    pub records: [MbrRecord; 4],
    pub signature: U16,
}

/// GPT header, UEFI 2.10 table 5.5.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct GptHeader {
    pub signature: [u8; 8],
    pub revision: U32,
    pub header_size: U32,
    pub header_crc32: U32,
    pub reserved: U32,
    pub my_lba: U64,
    pub alternate_lba: U64,
    pub first_usable_lba: U64,
    pub last_usable_lba: U64,
    pub disk_guid: [u8; 16],
    pub entries_lba: U64,
    pub entry_count: U32,
    pub entry_size: U32,
    pub entries_crc32: U32,
}

/// GPT partition entry, UEFI 2.10 table 5.6.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct GptEntry {
    pub kind: [u8; 16],
    pub unique: [u8; 16],
    pub first_lba: U64,
    pub last_lba: U64,
    pub attributes: U64,
    pub name: [U16; 36],
}

const _: () = assert!(size_of::<MbrRecord>() == 16);
const _: () = assert!(size_of::<Mbr>() == 512 && offset_of!(Mbr, records) == 446);
const _: () = assert!(size_of::<GptHeader>() == 92 && offset_of!(GptHeader, entries_lba) == 72);
const _: () = assert!(size_of::<GptEntry>() == 128 && offset_of!(GptEntry, name) == 56);
