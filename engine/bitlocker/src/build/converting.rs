//! Metadata regions of a volume that is being encrypted in place: a finished volume's, with a border from which on
//! everything is plain, as Windows 7 leaves a paused conversion (docs/spec/bitlocker.md#block-header and
//! docs/spec/bitlocker.md#windows-7).

use sha2::{Digest, Sha256};
use zerocopy::{FromBytes, IntoBytes};

use super::REGION_LEN;
use crate::crypt::secret::Key32;
use crate::datum::Writer;
use crate::format::{BLOCK_UNIT, BlockHeader, DatasetHeader, Validation, crc32, key_type, role, state};
use crate::units::{FileTime, VolumeOffset};

/// Set in the time of nonces that a driver makes, never in those of a new volume (docs/spec/bitlocker.md#validation).
const OF_A_DRIVER: u64 = 1 << 63;
/// Borders lie on sectors: no two of them share a nonce.
const SECTOR_MIN: u64 = 512;

/// Builds the regions of a conversion under way.
#[derive(Debug)]
pub struct Converting {
    /// The finished volume's region.
    region: Vec<u8>,
    vmk: Key32,
}

impl Converting {
    pub(crate) fn new(region: &[u8], vmk: &Key32) -> Option<Self> {
        let vmk = Key32::from_slice(vmk.expose())?;
        let this = Self { region: region.to_vec(), vmk };
        (region.len() == REGION_LEN && this.block_len() + size_of::<Validation>() <= REGION_LEN).then_some(this)
    }

    fn block_len(&self) -> usize {
        BlockHeader::ref_from_prefix(&self.region)
            .map_or(REGION_LEN, |(header, _)| usize::from(header.size.get()) * BLOCK_UNIT)
    }

    /// The region of the finished volume.
    pub fn finished(&self) -> &[u8] {
        &self.region
    }

    /// The region with the border `plain_from` (a whole sector), from which on nothing is encrypted. The same border
    /// always gives the same region.
    pub fn until(&self, plain_from: VolumeOffset) -> Vec<u8> {
        let block_len = self.block_len();
        let mut block = self.region[..block_len].to_vec();
        let mut time = 0;
        let mut counter = 0;
        if let Ok((header, rest)) = BlockHeader::mut_from_prefix(&mut block) {
            header.state = state::PAUSED.into();
            header.next_state = state::ENCRYPTED.into();
            header.state_offset = plain_from.0.into();
            if let Ok((dataset, _)) = DatasetHeader::mut_from_prefix(rest) {
                time = dataset.created.get() + plain_from.0 / SECTOR_MIN;
                // The one that the finished region's hash has.
                counter = dataset.next_counter.get().wrapping_sub(1);
            }
        }
        let validation = Validation {
            bytes_left: ((REGION_LEN - block_len) as u16).into(),
            version: super::VERSION_SEVEN.into(),
            crc32: crc32(&block).into(),
        };
        let hash: [u8; 32] = Sha256::digest(&block).into();
        let mut out = Writer::new(block, FileTime(time | OF_A_DRIVER), counter);
        out.bytes(validation.as_bytes());
        out.sealed_key(role::PROPERTY, &self.vmk, key_type::SHA256, &hash);
        let mut region = out.into_bytes();
        region.resize(REGION_LEN, 0);
        region
    }
}
