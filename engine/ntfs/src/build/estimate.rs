//! Space that content needs on a volume, before there is a plan.

use super::index::{self, INNER_ROOM, LEAF_ROOM, SUBNODE};
use super::layout::{FIRST_USER_RECORD, Geometry};
use super::record;
use super::security::Security;
use super::system;
use super::{LayoutError, VolumeSpec};
use crate::format::{BOOT_BYTES, INDEX_BLOCK, NAME_UNITS_MAX};
use crate::units::{ByteLen, ClusterSize};
use crate::upcase;

/// Space needed by files and directories, so that assigning files to drives needs no plan.
///
/// Never less than the plan takes: when the sum over all files, all directories and the root is at most
/// [`available`](Self::available), the content fits. (One case is not counted: an index that is moved past a hole
/// because a name of some 200 units leaves its record no room for one more run.)
#[derive(Clone, Copy, Debug)]
pub struct Estimate {
    cluster: ClusterSize,
    record_bytes: usize,
    available: u64,
}

impl Estimate {
    /// An estimate for an empty volume of this kind.
    ///
    /// # Errors
    /// [`LayoutError`], when such a volume is impossible.
    pub fn new(spec: &VolumeSpec) -> Result<Self, LayoutError> {
        let geometry = Geometry::new(spec.sector, spec.cluster, spec.len)?;
        let cluster = spec.cluster.bytes();
        let whole = |len: u64| geometry.clusters_for(len) * cluster;
        let hidden_files = spec.hidden.iter().flat_map(|dir| &dir.files);
        let regions: u64 = hidden_files.clone().map(|file| whole(file.extent.len.0)).sum();
        let regions_count = hidden_files.count() as u64 + u64::from(spec.hidden.is_some());
        let records = (u64::from(FIRST_USER_RECORD) + spec.root_files.len() as u64 + regions_count)
            * geometry.record_bytes as u64;
        let fixed = whole(BOOT_BYTES)
            + whole(geometry.mirror_len())
            + whole(system::ATTR_DEF_BYTES as u64)
            + whole(upcase::BYTES as u64)
            + whole(Security::new(spec.hidden.is_some()).sds_len())
            + whole(INDEX_BLOCK as u64)
            + geometry.log_len()
            + regions
            // $MFT: at least as long as the mirror, its last cluster, and gaps so that its head is in one run, on a page.
            + whole(records.max(geometry.mirror_len())) + cluster
            + 2 * 4096_u64.saturating_sub(cluster)
            + whole(u64::from(FIRST_USER_RECORD) * geometry.record_bytes as u64)
            + spec.root_files.iter().map(|file| whole(file.len_max.0)).sum::<u64>()
            + 2 * cluster
            + whole(geometry.bitmap_len());
        let own = Self { cluster: spec.cluster, record_bytes: geometry.record_bytes, available: 0 };
        let hidden_index = match &spec.hidden {
            Some(dir) => {
                let entries = dir.files.iter().map(|file| own.entry(file.name.encode_utf16().count()).0).sum();
                own.dir(dir.name.encode_utf16().count(), ByteLen(entries)).0
            }
            None => 0,
        };
        let available = (geometry.clusters * cluster).saturating_sub(fixed + hidden_index);
        Ok(Self { available, ..own })
    }

    /// Space for files and directories.
    pub fn available(&self) -> ByteLen {
        ByteLen(self.available)
    }

    /// Space of a file of `len` bytes in addition to its entry in a directory.
    pub fn file(&self, len: ByteLen) -> ByteLen {
        // A bit of $MFT's bitmap is less than a byte.
        ByteLen(self.cluster.len_of(self.cluster.count_for(len)).0 + self.record_bytes as u64 + 1)
    }

    /// Space of a name of this many UTF-16 units in its directory: to be summed over all entries of a directory and
    /// given to [`Self::dir`] or [`Self::root`].
    pub fn entry(&self, name_units: usize) -> ByteLen {
        ByteLen(index::entry_len(name_units) as u64)
    }

    /// Space of a directory in addition to its entry in its own directory; `entries` is the sum of [`Self::entry`] over
    /// the files and directories in it.
    pub fn dir(&self, name_units: usize, entries: ByteLen) -> ByteLen {
        let base = record::resident_len(0, record::STANDARD_INFORMATION)
            + record::resident_len(0, record::file_name_len(name_units));
        ByteLen(self.record_bytes as u64 + 1 + self.index(base, entries.0))
    }

    /// Space of the volume's root; `entries` as in [`Self::dir`], for the user's entries alone.
    pub fn root(&self, entries: ByteLen) -> ByteLen {
        // Twelve metafiles, and room for a few files other than the user's.
        const OWN: u64 = 16;
        ByteLen(self.index(system::root_base_len(), entries.0 + OWN * index::entry_len(NAME_UNITS_MAX / 8) as u64))
    }

    fn index(&self, base: usize, entries: u64) -> u64 {
        let room = record::room(self.record_bytes);
        if base as u64 + record::resident_len(4, index::root_value_len(0)) as u64 + entries <= room as u64 {
            return 0;
        }
        // A leaf and the entry after it, which moved up, are more than a leaf's room.
        let mut below = entries / LEAF_ROOM as u64 + 1;
        let mut blocks = below;
        let fewest = (INNER_ROOM / (index::entry_len(NAME_UNITS_MAX) + SUBNODE)) as u64;
        while below > 1 {
            below = (below - 1) / (fewest + 1) + 1;
            blocks += below;
        }
        let whole = |len: u64| self.cluster.len_of(self.cluster.count_for(ByteLen(len))).0;
        let bitmap = index::bitmap_len(blocks);
        // With the longest name there is still room for 16 bytes of bitmap and a dozen runs; see the tests.
        let bitmap = if bitmap > 16 { whole(bitmap).next_multiple_of(INDEX_BLOCK as u64) } else { 0 };
        whole(blocks * INDEX_BLOCK as u64) + bitmap
    }
}
