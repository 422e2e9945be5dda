//! The on-disk structures as types. All little-endian, none aligned (docs/spec/bitlocker.md#pitfalls, point 6).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::crypt::Cipher;
use crate::units::Guid;

/// Signature of the boot sector's OEM field, and of every metadata block.
pub const SIGNATURE: [u8; 8] = *b"-FVE-FS-";
/// OEM field of a To Go discovery volume.
pub const OEM_TO_GO: [u8; 8] = *b"MSWIN4.1";
/// OEM field of NTFS, which Vista's boot sector hides.
pub const OEM_NTFS: [u8; 8] = *b"NTFS    ";
/// First instruction of the boot sector since Windows 7.
pub const JUMP_SEVEN: [u8; 3] = [0xEB, 0x58, 0x90];
/// First instruction of Vista's boot sector.
pub const JUMP_VISTA: [u8; 3] = [0xEB, 0x52, 0x90];

/// In the boot sector of a finished volume, before the three region offsets (docs/spec/bitlocker.md#boot-sector).
pub const GUID_FINISHED: Guid =
    Guid::from_fields(0x4967d63b, 0x2e29, 0x4ad8, [0x83, 0x99, 0xf6, 0xa3, 0x39, 0xe3, 0xd0, 0x01]);
/// The same while a conversion runs, "encrypt on write" (docs/spec/bitlocker.md#conversion-in-progress).
pub const GUID_EOW: Guid =
    Guid::from_fields(0x92a84d3b, 0xdd80, 0x4d0e, [0x9e, 0x4e, 0xb1, 0xe3, 0x28, 0x4e, 0xae, 0xd8]);

/// Bytes of a metadata region (docs/spec/bitlocker.md#metadata-region).
pub const REGION_LEN: usize = 0x1_0000;
/// Bytes of a metadata region in Vista's version 1.
pub const REGION_LEN_VISTA: usize = 0x4000;
/// Bytes at the front of an NTFS volume that are stored elsewhere.
pub const FRONT_LEN: usize = 0x2000;
/// Bytes of the verify ("ICE") region.
pub const VERIFY_LEN: usize = 0x1_0000;
/// A metadata block's size field counts in this unit, and the block is padded to it.
pub const BLOCK_UNIT: usize = 16;

/// Version of blocks and validations since Windows 7.
pub const VERSION_SEVEN: u16 = 2;
/// Version of blocks and validations of Vista.
pub const VERSION_VISTA: u16 = 1;

/// Datum roles (docs/spec/bitlocker.md#datum-roles).
pub mod role {
    pub const PROPERTY: u16 = 0;
    pub const VMK: u16 = 2;
    pub const FVEK: u16 = 3;
    pub const STARTUP_KEY: u16 = 6;
    pub const DESCRIPTION: u16 = 7;
    pub const VIRTUALIZATION: u16 = 0xF;
    pub const RECOVERY_KEY_COPY: u16 = 0x12;
    pub const STRETCHED_KEY_COPY: u16 = 0x13;
}

/// Datum types (docs/spec/bitlocker.md#datum-types).
pub mod kind {
    pub const KEY: u16 = 1;
    pub const UNICODE: u16 = 2;
    pub const STRETCH_KEY: u16 = 3;
    pub const USE_KEY: u16 = 4;
    pub const AES_CCM: u16 = 5;
    pub const VMK: u16 = 8;
    pub const EXTERNAL: u16 = 9;
    pub const VIRTUALIZATION: u16 = 0xF;
    pub const BACKUP_INFO: u16 = 0x15;
}

/// Key types inside KEY, STRETCH_KEY and USE_KEY (docs/spec/bitlocker.md#datum-roles).
pub mod key_type {
    pub const RECOVERY_PASSWORD: u16 = 0x1000;
    pub const PASSWORD: u16 = 0x1001;
    pub const CLEAR: u16 = 0x2000;
    pub const EXTERNAL: u16 = 0x2002;
    pub const VMK: u16 = 0x2003;
    pub const SHA256: u16 = 0x2005;
    pub const STRETCHED_PASSWORD: u16 = 0x2007;
    pub const STRETCHED_RECOVERY: u16 = 0x2008;
}

/// Priorities of protectors, which determine their kind (docs/spec/bitlocker.md#protectors).
pub mod priority {
    pub const CLEAR_KEY: u16 = 0;
    pub const TPM: u16 = 0x0100;
    pub const EXTERNAL_KEY: u16 = 0x0200;
    pub const TPM_PIN: u16 = 0x0500;
    pub const RECOVERY_PASSWORD: u16 = 0x0800;
    pub const PUBLIC_KEY: u16 = 0x1000;
    pub const PASSWORD: u16 = 0x2000;
}

/// States of a block header (docs/spec/bitlocker.md#block-header).
pub mod state {
    pub const DECRYPTED: u16 = 1;
    pub const CONVERTING_WITH_LOG: u16 = 2;
    pub const PAUSED: u16 = 3;
    pub const ENCRYPTED: u16 = 4;
}

/// The number of `cipher` in a dataset header and as type of the FVEK
/// (docs/spec/bitlocker.md#sector-ciphers).
pub const fn method_of(cipher: Cipher) -> u16 {
    match cipher {
        Cipher::AesCbcDiffuser128 => 0x8000,
        Cipher::AesCbcDiffuser256 => 0x8001,
        Cipher::AesCbc128 => 0x8002,
        Cipher::AesCbc256 => 0x8003,
        Cipher::XtsAes128 => 0x8004,
        Cipher::XtsAes256 => 0x8005,
    }
}

/// The cipher of a method number; `None` for one that no known Windows writes.
pub const fn cipher_of(method: u16) -> Option<Cipher> {
    match method {
        0x8000 => Some(Cipher::AesCbcDiffuser128),
        0x8001 => Some(Cipher::AesCbcDiffuser256),
        0x8002 => Some(Cipher::AesCbc128),
        0x8003 => Some(Cipher::AesCbc256),
        0x8004 => Some(Cipher::XtsAes128),
        0x8005 => Some(Cipher::XtsAes256),
        _ => None,
    }
}

macro_rules! on_disk {
    ($(#[$doc:meta])* $name:ident, $size:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
        #[repr(C)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
        const _: () = assert!(size_of::<$name>() == $size);
    };
}

on_disk! {
    /// The boot sector since Windows 7 (docs/spec/bitlocker.md#boot-sector): a FAT32-like parameter block around the
    /// region offsets.
    BootSector, 512 {
        jump: [u8; 3],
        oem: [u8; 8],
        bytes_per_sector: U16,
        sectors_per_cluster: u8,
        zero_0x0e: [u8; 7],
        media: u8,
        zero_0x16: [u8; 2],
        sectors_per_track: U16,
        heads: U16,
        hidden_sectors: U32,
        zero_0x20: U32,
        /// 0x1FE0 in every volume.
        fat_sectors: U32,
        zero_0x28: [u8; 8],
        /// 1 in every volume.
        info_sector: U16,
        /// 6 in every volume.
        backup_sector: U16,
        zero_0x34: U32,
        /// 0; Vista: cluster of metadata region 1, in the place of NTFS' mirror cluster.
        vista_region_cluster: U64,
        drive_number: u8,
        zero_0x41: u8,
        /// 0x29.
        extended_signature: u8,
        serial: U32,
        label: [u8; 11],
        file_system: [u8; 8],
        code: [u8; 70],
        guid: [u8; 16],
        regions: [U64; 3],
        eow_blocks: [U64; 2],
        zero_0xd8: [u8; 40],
        text: [u8; 232],
        filler_ff: [u8; 19],
        text_offsets: [u8; 3],
        end_mark: [u8; 2],
    }
}
const _: () = assert!(std::mem::offset_of!(BootSector, vista_region_cluster) == 0x38);
const _: () = assert!(std::mem::offset_of!(BootSector, code) == 0x5A);
const _: () = assert!(std::mem::offset_of!(BootSector, guid) == 0xA0);
const _: () = assert!(std::mem::offset_of!(BootSector, text) == 0x100);
const _: () = assert!(std::mem::offset_of!(BootSector, text_offsets) == 0x1FB);

on_disk! {
    /// The part after the GUID in a boot sector, wherever that is (docs/spec/bitlocker.md#boot-sector,
    /// docs/spec/bitlocker.md#to-go and docs/spec/bitlocker.md#conversion-in-progress).
    RegionOffsets, 40 {
        regions: [U64; 3],
        eow_blocks: [U64; 2],
    }
}

on_disk! {
    /// Head of a metadata region (docs/spec/bitlocker.md#block-header).
    BlockHeader, 64 {
        signature: [u8; 8],
        /// Block size in units of 16 bytes; version 1: in bytes.
        size: U16,
        version: U16,
        state: U16,
        next_state: U16,
        /// The encrypted volume's size; in old conversions the border of the encrypted part.
        state_offset: U64,
        state_size: U32,
        relocated_sectors: U32,
        regions: [U64; 3],
        /// Version 1: cluster of the MFT mirror.
        relocated_at: U64,
    }
}

on_disk! {
    /// Head of a dataset (docs/spec/bitlocker.md#dataset-header); a key file begins with one, too
    /// (docs/spec/bitlocker.md#key-files).
    DatasetHeader, 48 {
        size: U32,
        version: U32,
        header_size: U32,
        end: U32,
        id: [u8; 16],
        next_counter: U32,
        method: U16,
        preferred_method: U16,
        created: U64,
    }
}

on_disk! {
    /// After the block (docs/spec/bitlocker.md#validation); one AES-CCM datum follows.
    Validation, 8 {
        bytes_left: U16,
        version: U16,
        crc32: U32,
    }
}

on_disk! {
    /// Head of every datum (docs/spec/bitlocker.md#datums).
    DatumHeader, 8 {
        size: U16,
        role: U16,
        kind: U16,
        flags: U16,
    }
}

on_disk! {
    /// Fixed part of a VMK datum (docs/spec/bitlocker.md#protectors).
    VmkHead, 28 {
        id: [u8; 16],
        changed: U64,
        hints: U16,
        priority: U16,
    }
}

on_disk! {
    /// Fixed part of a STRETCH_KEY datum.
    StretchHead, 20 {
        key_type: U16,
        flags: U16,
        salt: [u8; 16],
    }
}

on_disk! {
    /// Fixed part of KEY and USE_KEY datums.
    KeyHead, 4 {
        key_type: U16,
        flags: U16,
    }
}

on_disk! {
    /// Fixed part of an AES_CCM datum: the tag comes before the ciphertext (docs/spec/bitlocker.md#aes-ccm-wrapping).
    CcmHead, 28 {
        nonce: [u8; 12],
        tag: [u8; 16],
    }
}

on_disk! {
    /// A nonce: time and counter.
    Nonce, 12 {
        time: U64,
        counter: U32,
    }
}

on_disk! {
    /// Fixed part of an EXTERNAL datum (docs/spec/bitlocker.md#key-files).
    ExternalHead, 24 {
        id: [u8; 16],
        changed: U64,
    }
}

on_disk! {
    /// Fixed part of a VIRTUALIZATION datum (docs/spec/bitlocker.md#virtualization-datum).
    VirtualizationHead, 16 {
        relocated_at: U64,
        relocated_len: U64,
    }
}

on_disk! {
    /// Version 5 of the rest of a VIRTUALIZATION datum since Windows 8; older versions are its prefixes.
    Xinfo, 76 {
        version: U16,
        size: U16,
        wipe_files_max: U32,
        flags: U64,
        log_at: U64,
        log_len: U32,
        original_sector: U32,
        native_sector: U32,
        os_major: U32,
        os_minor: U32,
        os_build: U32,
        platform: U32,
        service_pack_major: U16,
        service_pack_minor: U16,
        suite_mask: U16,
        product_type: u8,
        architecture: u8,
        verify_at: U64,
        verify_len: U64,
    }
}

on_disk! {
    /// Head of the block that describes a running conversion (docs/spec/bitlocker.md#conversion-in-progress). Bitmap
    /// offsets follow, one per region.
    EowHeader, 56 {
        signature: [u8; 8],
        header_size: U16,
        size: U16,
        sector_size: U32,
        alignment: U32,
        chunk_size: U32,
        log_len: U32,
        log_record_size: U32,
        region_count: U32,
        crc32: U32,
        eow_blocks: [U64; 2],
    }
}

on_disk! {
    /// Head of one region's bitmap file (docs/spec/bitlocker.md#conversion-in-progress).
    EowBitmapHeader, 60 {
        signature: [u8; 10],
        header_size: U16,
        size: U32,
        index: U32,
        region_at: U64,
        region_len: U64,
        log_at: U64,
        record_offsets: [U32; 2],
        record_size: U32,
        crc32: U32,
    }
}

on_disk! {
    /// Head of one of the two records of a bitmap file (docs/spec/bitlocker.md#conversion-in-progress).
    EowRecordHeader, 36 {
        signature: [u8; 10],
        header_size: U16,
        size: U32,
        bits: U32,
        sequence: U64,
        flags: U32,
        crc32: U32,
    }
}

/// The CRC-32 of zlib and Ethernet, which BitLocker uses (docs/spec/bitlocker.md#validation).
pub fn crc32(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, bytes) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_has_the_catalogued_check_value() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }
}
