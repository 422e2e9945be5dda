//! Recognising a volume by its first sector (docs/spec/bitlocker.md#boot-sector, docs/spec/bitlocker.md#vista,
//! docs/spec/bitlocker.md#to-go and docs/spec/bitlocker.md#conversion-in-progress).

use zerocopy::FromBytes;
use zerocopy::little_endian::U64;

use crate::format::{BootSector, GUID_EOW, GUID_FINISHED, JUMP_VISTA, OEM_TO_GO, RegionOffsets, SIGNATURE};
use crate::units::{SectorSize, VolumeOffset};

/// Layout of a BitLocker volume, by generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Windows Vista: the volume's own boot sector, with the signature in it.
    Vista,
    /// Windows 7 and later.
    Seven,
    /// BitLocker To Go: a small plain FAT volume at the front.
    ToGo,
}

/// Contents of the first sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boot {
    /// Layout of the volume.
    pub form: Form,
    /// Sector size of the volume.
    pub sector: SectorSize,
    /// Offsets of the three metadata regions. Vista's first sector holds the first only; the others are 0 then.
    pub regions: [VolumeOffset; 3],
    /// Offsets of the two descriptions of a conversion by Windows 8 or later; `None` when none is running.
    pub conversion: Option<[VolumeOffset; 2]>,
}

/// Fault of a BitLocker boot sector from which the metadata cannot be located.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootError {
    /// No GUID before the offsets of the metadata regions.
    #[error("the first sector is signed -FVE-FS-, but names no metadata regions")]
    NoRegions,
    /// A sector size that no drive has.
    #[error("the first sector says {found} bytes per sector (at byte 0x0b); 512 and 4096 are known")]
    SectorSize {
        /// Bytes per sector that the first sector gives.
        found: u16,
    },
    /// Vista's cluster number is beyond any volume.
    #[error("the first sector says that the metadata begins in cluster {cluster} (at byte 0x38), which no volume has")]
    RegionCluster {
        /// Cluster number that the first sector gives.
        cluster: u64,
    },
}

impl Boot {
    /// Reads the first sector, or its first 512 bytes. `None`: not a BitLocker volume.
    ///
    /// # Errors
    /// It is one, but too damaged to find the metadata.
    pub fn recognise(first_sector: &[u8]) -> Result<Option<Self>, BootError> {
        let Ok((boot, _)) = BootSector::ref_from_prefix(first_sector) else { return Ok(None) };
        let named = named_regions(&first_sector[..size_of::<BootSector>()]);
        let form = match (boot.oem, &named) {
            (SIGNATURE, Some(_)) => Form::Seven,
            (OEM_TO_GO, Some(_)) => Form::ToGo,
            (SIGNATURE, None) if boot.jump == JUMP_VISTA => Form::Vista,
            (SIGNATURE, None) => return Err(BootError::NoRegions),
            _ => return Ok(None),
        };
        let bytes_per_sector = boot.bytes_per_sector.get();
        let sector = match bytes_per_sector {
            // Volumes that held exFAT (docs/spec/bitlocker.md#boot-sector).
            0 => SectorSize::S512,
            bytes => SectorSize::from_bytes(bytes.into()).ok_or(BootError::SectorSize { found: bytes })?,
        };
        let at = |offset: U64| VolumeOffset(offset.get());
        Ok(Some(match named {
            Some((converting, offsets)) => Self {
                form,
                sector,
                regions: offsets.regions.map(at),
                conversion: converting.then(|| offsets.eow_blocks.map(at)),
            },
            None => {
                let cluster = boot.vista_region_cluster.get();
                let first = cluster
                    .checked_mul(u64::from(boot.sectors_per_cluster) * sector.bytes())
                    .filter(|&first| first > 0)
                    .ok_or(BootError::RegionCluster { cluster })?;
                Self {
                    form,
                    sector,
                    regions: [VolumeOffset(first), VolumeOffset(0), VolumeOffset(0)],
                    conversion: None,
                }
            }
        }))
    }
}

/// The offsets after either GUID, wherever in the sector that is, and whether the GUID is that of a conversion.
fn named_regions(sector: &[u8]) -> Option<(bool, RegionOffsets)> {
    sector.windows(size_of::<[u8; 16]>()).enumerate().find_map(|(at, window)| {
        let converting = window == GUID_EOW.0;
        if !converting && window != GUID_FINISHED.0 {
            return None;
        }
        RegionOffsets::read_from_prefix(&sector[at + window.len()..]).ok().map(|(offsets, _)| (converting, offsets))
    })
}
