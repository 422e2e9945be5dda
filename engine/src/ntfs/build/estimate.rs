//! What content costs on a volume, before there is a plan.

use super::index::{bitmap_len, entry_len};
use super::layout::Geometry;
use super::{LayoutError, VolumeSpec};
use crate::ntfs::format::INDEX_BLOCK;
use crate::units::{ByteLen, ClusterSize};

/// Bytes that files and directories take on a volume, rounded so that what fits the estimate fits the volume.
#[derive(Clone, Copy, Debug)]
pub struct Estimate {
    cluster: ClusterSize,
    record: u64,
    available: u64,
}

impl Estimate {
    /// For an empty volume of this kind.
    ///
    /// # Errors
    /// [`LayoutError`], when there can be no such volume.
    pub fn new(spec: &VolumeSpec) -> Result<Self, LayoutError> {
        let geometry = Geometry::new(spec.sector, spec.cluster, spec.len)?;
        let _ = (bitmap_len(1), entry_len(1), INDEX_BLOCK);
        Ok(Self {
            cluster: spec.cluster,
            record: geometry.record_bytes as u64,
            available: geometry.clusters * spec.cluster.bytes(),
        })
    }

    /// What there is for files and directories.
    pub fn available(&self) -> ByteLen {
        ByteLen(self.available)
    }

    /// What a file takes.
    pub fn file(&self, name_units: usize, len: ByteLen) -> ByteLen {
        let clusters = self.cluster.len_of(self.cluster.count_for(len)).0;
        ByteLen(clusters + self.record + 2 * entry_len(name_units) as u64)
    }
}
