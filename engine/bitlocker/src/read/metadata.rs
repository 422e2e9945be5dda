//! Reads one metadata region, and checks it (docs/spec/bitlocker.md#metadata-region, docs/spec/bitlocker.md#datums and
//! docs/spec/bitlocker.md#protectors).

use std::ops::Range;

use zerocopy::FromBytes;
use zerocopy::little_endian::U64;

use crate::crypt::Cipher;
use crate::crypt::secret::Key32;
use crate::datum::{Datum, DatumError, Datums, Sealed};
use crate::format::{
    BLOCK_UNIT, BlockHeader, DatasetHeader, KeyHead, REGION_LEN, REGION_LEN_VISTA, SIGNATURE, StretchHead,
    VERSION_SEVEN, VERSION_VISTA, Validation, VirtualizationHead, VmkHead, Xinfo, cipher_of, crc32, key_type, kind,
    priority, role,
};
use crate::units::{FileTime, Guid, VolumeOffset};

/// Fault of a metadata copy. Offsets are bytes from the start of the copy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyFault {
    /// It could not be read.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// Byte 0 is not the signature.
    #[error("it does not begin with -FVE-FS-")]
    Signature,
    /// A version (at 0x0a) that does not belong to this kind of volume.
    #[error("its version (at 0x0a) is {found}, not {expected}")]
    Version {
        /// Version in the block header.
        found: u16,
        /// Version that belongs to the kind of boot sector.
        expected: u16,
    },
    /// The block size (at 0x08) is smaller than the headers or leaves no room for the validation.
    #[error("its block size (at 0x08) is {found} bytes")]
    BlockSize {
        /// The size in bytes.
        found: usize,
    },
    /// It lists another offset for itself (at 0x20, 0x28 or 0x30).
    #[error("it says it should be at byte {found}")]
    Misplaced {
        /// Offset that it gives for itself.
        found: VolumeOffset,
    },
    /// The dataset's sizes (at 0x40, 0x48) contradict each other or the block's.
    #[error("its dataset says {size} bytes (at 0x40) with a header of {header_size} (at 0x48)")]
    Dataset {
        /// The size field.
        size: u32,
        /// The header size field.
        header_size: u32,
    },
    /// A datum is malformed.
    #[error(transparent)]
    Datum(#[from] DatumError),
    /// The validation after the block has an unknown version.
    #[error("its validation has the unknown version {found}")]
    ValidationVersion {
        /// Version in the validation.
        found: u16,
    },
    /// The CRC-32 does not match.
    #[error("its CRC-32 is {found:08x}, its contents make {computed:08x}")]
    Crc {
        /// CRC-32 in the validation.
        found: u32,
        /// CRC-32 of the block's bytes.
        computed: u32,
    },
}

/// Kind of secret that opens a protector, by its priority field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProtectorKind {
    /// No secret: the key is stored unprotected (suspended, or not yet protected).
    ClearKey,
    /// A TPM, alone.
    Tpm,
    /// A `.BEK` file, or automatic unlocking by one Windows.
    ExternalKey,
    /// A TPM and a PIN.
    TpmPin,
    /// The 48-digit numerical password.
    RecoveryPassword,
    /// A certificate or smart card.
    PublicKey,
    /// A user's password.
    Password,
    /// An unknown priority, with its value.
    Unknown(u16),
}

impl ProtectorKind {
    const fn of(value: u16) -> Self {
        match value {
            priority::CLEAR_KEY => Self::ClearKey,
            priority::TPM => Self::Tpm,
            priority::EXTERNAL_KEY => Self::ExternalKey,
            priority::TPM_PIN => Self::TpmPin,
            priority::RECOVERY_PASSWORD => Self::RecoveryPassword,
            priority::PUBLIC_KEY => Self::PublicKey,
            priority::PASSWORD => Self::Password,
            other => Self::Unknown(other),
        }
    }
}

impl std::fmt::Display for ProtectorKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ClearKey => "clear key",
            Self::Tpm => "TPM",
            Self::ExternalKey => "external key",
            Self::TpmPin => "TPM and PIN",
            Self::RecoveryPassword => "numerical password",
            Self::PublicKey => "public key",
            Self::Password => "password",
            Self::Unknown(value) => return write!(f, "unknown protector {value:#06x}"),
        })
    }
}

/// A protector: one way to the volume master key.
#[derive(Debug)]
pub struct Protector {
    /// Identifier, shown by Windows as "ID"; also the name of its key file.
    pub id: Guid,
    /// Time of the last change.
    pub changed: FileTime,
    /// Kind of secret that opens it.
    pub kind: ProtectorKind,
    /// Text in it, such as `ExternalKey` or `DiskPassword`.
    pub label: Option<String>,
    /// Time at which its password was saved or printed, if Windows recorded that.
    pub backed_up: Option<FileTime>,
    /// Fault of a malformed part, without effect on the other protectors.
    pub fault: Option<DatumError>,
    pub(super) stretch: Option<Stretch>,
    pub(super) clear_key: Option<Key32>,
    /// The volume master key, wrapped.
    pub(super) vmk: Option<Sealed>,
}

/// A STRETCH_KEY datum.
#[derive(Debug)]
pub(super) struct Stretch {
    pub key_type: u16,
    pub salt: [u8; 16],
    /// Copies under the volume master key.
    pub copies: Vec<Sealed>,
}

/// The virtualization datum's longer part (docs/spec/bitlocker.md#virtualization-datum), Windows 8 and later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedInfo {
    /// Version 1 to 5; fields missing in a version are 0.
    pub version: u16,
    /// Bit 0: used space only. Bit 6: a conversion runs.
    pub flags: u64,
    /// Windows version: major, minor, build.
    pub os: [u32; 3],
    /// 1 workstation, 3 server.
    pub product_type: u8,
    /// The verify region: offset and length.
    pub verify: (VolumeOffset, u64),
    /// Original and native sector size.
    pub sectors: [u32; 2],
}

impl ExtendedInfo {
    /// Whether free clusters were left unencrypted.
    pub const fn used_space_only(&self) -> bool {
        self.flags & 1 != 0
    }
}

/// Contents of a good copy.
#[derive(Debug)]
pub struct Metadata {
    /// 2 since Windows 7, 1 for Vista.
    pub version: u16,
    /// Current and next state as numbers (docs/spec/bitlocker.md#block-header): 4 is encrypted, 1 decrypted.
    pub states: [u16; 2],
    /// The encrypted size; in old conversions its border. 0 in Vista: all.
    pub state_offset: u64,
    /// Bytes under conversion just now.
    pub state_size: u32,
    /// Sectors of the front that are stored at `relocated_at`.
    pub relocated_sectors: u32,
    /// Offset of those sectors. Vista: unused.
    pub relocated_at: VolumeOffset,
    /// The three metadata regions.
    pub regions: [VolumeOffset; 3],
    /// The volume identifier.
    pub volume_id: Guid,
    /// Counter of the next wrapping.
    pub next_counter: u32,
    /// The method as a number.
    pub method: u16,
    /// The preferred method as a number; often 0.
    pub preferred_method: u16,
    /// Time at which the volume was first encrypted.
    pub created: FileTime,
    /// Text for the recovery screen.
    pub description: Option<String>,
    /// The protectors, as they are stored.
    pub protectors: Vec<Protector>,
    /// Offset and length of the relocated area according to the virtualization datum.
    pub virtualization: Option<(VolumeOffset, u64)>,
    /// The rest of that datum since Windows 8.
    pub extended: Option<ExtendedInfo>,
    /// Whether the CRC-32 matches. A copy with a wrong one is used only when there is no better one.
    pub crc_fits: bool,
    /// Cluster of the MFT mirror, which Vista replaces in the boot sector.
    pub(super) vista_mirror_cluster: Option<u64>,
    pub(super) fvek: Option<Sealed>,
    /// The wrapped hash of the block.
    pub(super) hash: Option<Sealed>,
    /// SHA-256 of the part of the block that CRC and hash cover.
    pub(super) block_hash: [u8; 32],
}

impl Metadata {
    /// The cipher of the sectors; `None` when the volume is decrypted or the method unknown.
    pub const fn cipher(&self) -> Option<Cipher> {
        cipher_of(self.method)
    }
}

/// Length of a copy in bytes.
pub(super) const fn region_len(version: u16) -> usize {
    if version == VERSION_VISTA { REGION_LEN_VISTA } else { REGION_LEN }
}

/// Reads the copy at `at`, the `index`-th. The CRC-32 is computed, but a wrong one is no error here.
pub(super) fn parse(region: &[u8], expected: u16, index: usize, at: VolumeOffset) -> Result<Metadata, CopyFault> {
    let header = match BlockHeader::ref_from_prefix(region) {
        Ok((header, _)) if header.signature == SIGNATURE => header,
        _ => return Err(CopyFault::Signature),
    };
    let version = header.version.get();
    if version != expected {
        return Err(CopyFault::Version { found: version, expected });
    }
    let unit = if version == VERSION_SEVEN { BLOCK_UNIT } else { 1 };
    let block_len = usize::from(header.size.get()) * unit;
    let headers_len = size_of::<BlockHeader>() + size_of::<DatasetHeader>();
    let room = (region_len(version).min(region.len())).saturating_sub(size_of::<Validation>());
    if block_len < headers_len || block_len > room {
        return Err(CopyFault::BlockSize { found: block_len });
    }
    let offset = |value: U64| VolumeOffset(value.get());
    let regions = header.regions.map(offset);
    if regions[index] != at {
        return Err(CopyFault::Misplaced { found: regions[index] });
    }
    let (block, behind) = region.split_at(block_len);
    let (validation, hash) =
        Validation::ref_from_prefix(behind).map_err(|_| CopyFault::BlockSize { found: block_len })?;
    if validation.version.get() > VERSION_SEVEN {
        return Err(CopyFault::ValidationVersion { found: validation.version.get() });
    }
    let dataset_at = size_of::<BlockHeader>();
    let (dataset, _) =
        DatasetHeader::ref_from_prefix(&block[dataset_at..]).map_err(|_| CopyFault::BlockSize { found: block_len })?;
    let datums = datum_range(dataset, block_len)
        .ok_or(CopyFault::Dataset { size: dataset.size.get(), header_size: dataset.header_size.get() })?;
    let mut metadata = Metadata {
        version,
        states: [header.state.get(), header.next_state.get()],
        state_offset: header.state_offset.get(),
        state_size: header.state_size.get(),
        relocated_sectors: if version == VERSION_VISTA { 0 } else { header.relocated_sectors.get() },
        relocated_at: VolumeOffset(if version == VERSION_VISTA { 0 } else { header.relocated_at.get() }),
        regions,
        volume_id: Guid(dataset.id),
        next_counter: dataset.next_counter.get(),
        method: dataset.method.get(),
        preferred_method: dataset.preferred_method.get(),
        created: FileTime(dataset.created.get()),
        description: None,
        protectors: Vec::new(),
        virtualization: None,
        extended: None,
        crc_fits: crc32(block) == validation.crc32.get(),
        vista_mirror_cluster: (version == VERSION_VISTA).then(|| header.relocated_at.get()),
        fvek: None,
        hash: sealed_hash(hash, block_len + size_of::<Validation>()),
        block_hash: sha2::Digest::finalize(sha2::Digest::chain_update(sha2::Sha256::default(), block)).into(),
    };
    for datum in Datums::new(&block[datums.clone()], datums.start) {
        take_datum(&mut metadata, &datum?)?;
    }
    Ok(metadata)
}

/// The mismatch of the CRC-32 of a copy that [`parse`] has accepted.
pub(super) fn crc_fault(region: &[u8]) -> Option<CopyFault> {
    let (header, _) = BlockHeader::ref_from_prefix(region).ok()?;
    let unit = if header.version.get() == VERSION_SEVEN { BLOCK_UNIT } else { 1 };
    let (block, behind) = region.split_at_checked(usize::from(header.size.get()) * unit)?;
    let (validation, _) = Validation::ref_from_prefix(behind).ok()?;
    Some(CopyFault::Crc { found: validation.crc32.get(), computed: crc32(block) })
}

/// Range of the datums in the block.
fn datum_range(dataset: &DatasetHeader, block_len: usize) -> Option<Range<usize>> {
    let start = usize::try_from(dataset.header_size.get()).ok()?;
    let size = usize::try_from(dataset.size.get()).ok()?;
    if start < size_of::<DatasetHeader>() || start > size {
        return None;
    }
    let at = size_of::<BlockHeader>();
    let end = at.checked_add(size).filter(|&end| end <= block_len)?;
    Some(at + start..end)
}

/// The wrapped hash, if the validation holds one.
fn sealed_hash(bytes: &[u8], at: usize) -> Option<Sealed> {
    match Datums::new(bytes, at).next() {
        Some(Ok(datum)) if datum.kind == kind::AES_CCM => datum.sealed().ok(),
        _ => None,
    }
}

fn take_datum(metadata: &mut Metadata, datum: &Datum<'_>) -> Result<(), DatumError> {
    match (datum.role, datum.kind) {
        (role::DESCRIPTION, kind::UNICODE) => metadata.description = Some(datum.text()),
        (role::VMK, kind::VMK) => metadata.protectors.push(protector(datum)?),
        (role::FVEK, kind::AES_CCM) if metadata.fvek.is_none() => metadata.fvek = Some(datum.sealed()?),
        (role::VIRTUALIZATION, kind::VIRTUALIZATION) => {
            let (head, rest) = datum.split::<VirtualizationHead>()?;
            metadata.virtualization = Some((VolumeOffset(head.relocated_at.get()), head.relocated_len.get()));
            metadata.extended = extended(rest);
        }
        // Newer Windows brings new kinds; their size is all that a reader needs (docs/spec/bitlocker.md#datum-types).
        _ => {}
    }
    Ok(())
}

/// Shorter versions are prefixes of version 5: missing fields read as 0.
fn extended(bytes: &[u8]) -> Option<ExtendedInfo> {
    const SHORTEST: usize = 16;
    if bytes.len() < SHORTEST {
        return None;
    }
    let mut padded = [0; size_of::<Xinfo>()];
    let len = bytes.len().min(padded.len());
    padded[..len].copy_from_slice(&bytes[..len]);
    let xinfo: Xinfo = zerocopy::transmute!(padded);
    Some(ExtendedInfo {
        version: xinfo.version.get(),
        flags: xinfo.flags.get(),
        os: [xinfo.os_major.get(), xinfo.os_minor.get(), xinfo.os_build.get()],
        product_type: xinfo.product_type,
        verify: (VolumeOffset(xinfo.verify_at.get()), xinfo.verify_len.get()),
        sectors: [xinfo.original_sector.get(), xinfo.native_sector.get()],
    })
}

fn protector(datum: &Datum<'_>) -> Result<Protector, DatumError> {
    let (head, nested) = datum.nested::<VmkHead>()?;
    let mut protector = Protector {
        id: Guid(head.id),
        changed: FileTime(head.changed.get()),
        kind: ProtectorKind::of(head.priority.get()),
        label: None,
        backed_up: None,
        fault: None,
        stretch: None,
        clear_key: None,
        vmk: None,
    };
    for datum in nested {
        if let Err(fault) = datum.and_then(|datum| take_part(&mut protector, &datum)) {
            protector.fault = Some(fault);
            break;
        }
    }
    Ok(protector)
}

fn take_part(protector: &mut Protector, datum: &Datum<'_>) -> Result<(), DatumError> {
    match datum.kind {
        kind::UNICODE => protector.label = Some(datum.text()),
        kind::STRETCH_KEY => {
            let (head, nested) = datum.nested::<StretchHead>()?;
            let mut copies = Vec::new();
            for copy in nested {
                let copy = copy?;
                if copy.kind == kind::AES_CCM {
                    copies.push(copy.sealed()?);
                }
            }
            protector.stretch = Some(Stretch { key_type: head.key_type.get(), salt: head.salt, copies });
        }
        kind::KEY => {
            let (head, key) = datum.split::<KeyHead>()?;
            if head.key_type.get() == key_type::CLEAR {
                protector.clear_key = Key32::from_slice(key);
            }
        }
        kind::AES_CCM => protector.vmk = Some(datum.sealed()?),
        kind::BACKUP_INFO => {
            // FILETIME created, FILETIME backed up, then method and flags.
            let (times, _) = datum.split::<[U64; 2]>()?;
            protector.backed_up = Some(FileTime(times[1].get()));
        }
        // TPM blobs, certificates, hints: nothing that this reader opens.
        _ => {}
    }
    Ok(())
}
