//! Placement of BitLocker's areas in a new volume (docs/spec/bitlocker.md#where-windows-puts-the-regions and
//! docs/spec/bitlocker.md#recipe).

use super::format::{FRONT_LEN, REGION_LEN, VERIFY_LEN};
use super::map::Mapping;
use crate::units::{ByteLen, ClusterSize, SectorSize, VolumeOffset, VolumeRange};

/// The smallest volume that is laid out: no area may be below 33 MiB, and the smallest seen on Windows has 57 MiB.
pub const VOLUME_LEN_MIN: ByteLen = ByteLen(64 << 20);

/// Windows places none of its areas below this offset (33 MiB), whatever the volume.
const FIRST_REGION_AT: u64 = 0x210_0000;

/// Windows 10 spreads the regions by this part of the volume.
const SPREAD_DIVISOR: u64 = 9;

/// `$STANDARD_INFORMATION` and `$FILE_NAME` attributes of the hidden files: hidden, system, archive
/// (docs/spec/bitlocker.md#the-ntfs-side).
pub const HIDDEN_FILE_ATTRIBUTES: u32 = 0x26;

const NAME_REGION_1: &str = "FVE2.{e40ad34d-dae9-4bc7-95bd-b16218c10f72}.1";
const NAME_REGION_2: &str = "FVE2.{e40ad34d-dae9-4bc7-95bd-b16218c10f72}.2";
const NAME_REGION_3: &str = "FVE2.{e40ad34d-dae9-4bc7-95bd-b16218c10f72}.3";
const NAME_RELOCATED: &str = "FVE2.{24e6f0ae-6a00-4f73-984b-75ce9942852d}";
const NAME_VERIFY: &str = "FVE2.{da392a22-cae0-4f0f-9a30-b8830385d046}";

/// Reason why a volume cannot be laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// Below [`VOLUME_LEN_MIN`].
    #[error("a BitLocker volume of {found} is too small; the smallest is {VOLUME_LEN_MIN}")]
    TooSmall {
        /// The requested length.
        found: ByteLen,
    },
    /// A cluster cannot be smaller than a sector.
    #[error("clusters of {} bytes are smaller than sectors of {} bytes", cluster.bytes(), sector.bytes())]
    ClusterBelowSector {
        /// The requested cluster size.
        cluster: ClusterSize,
        /// The device's sector size.
        sector: SectorSize,
    },
    /// The length is no multiple of the sector size.
    #[error("a volume of {} bytes is no whole number of {}-byte sectors", len.0, sector.bytes())]
    PartSector {
        /// The requested length.
        len: ByteLen,
        /// The device's sector size.
        sector: SectorSize,
    },
    /// A volume that holds files has no run of free clusters for an area.
    #[error("no {needed} are free in one piece for BitLocker's own areas")]
    NoRoom {
        /// The area's clusters.
        needed: ByteLen,
    },
}

/// A file that reserves one of BitLocker's areas, so that the file system inside leaves it alone
/// (docs/spec/bitlocker.md#the-ntfs-side).
///
/// It is in `\System Volume Information`, has one unnamed non-resident `$DATA` of one run, and only `$FILE_NAME`
/// namespace 0 (POSIX).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HiddenFile {
    /// Its exact name.
    pub name: &'static str,
    /// First byte in the volume; always a cluster's first.
    pub start: VolumeOffset,
    /// Size of its data.
    pub data_len: ByteLen,
    /// The whole clusters it owns.
    pub allocated: VolumeRange,
    /// File attributes, [`HIDDEN_FILE_ATTRIBUTES`].
    pub attributes: u32,
}

/// The places of all areas. Offsets count from the start of the volume (the partition).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Regions {
    volume_len: ByteLen,
    sector: SectorSize,
    cluster: ClusterSize,
    metadata: [VolumeOffset; 3],
    relocated: VolumeOffset,
    verify: VolumeOffset,
}

impl Regions {
    /// Lays the areas out as Windows 10 does: nothing below 33 MiB, the three regions a ninth of the volume apart, the
    /// relocated area after region 1, the verify region after that; each on a cluster of its own.
    ///
    /// With clusters up to 8 KiB the relocated area is 64 KiB after region 1 and the verify region 8 KiB further.
    ///
    /// # Errors
    /// See [`PlaceError`].
    pub fn place(volume_len: ByteLen, cluster: ClusterSize, sector: SectorSize) -> Result<Self, PlaceError> {
        if volume_len < VOLUME_LEN_MIN {
            return Err(PlaceError::TooSmall { found: volume_len });
        }
        if cluster.bytes() < sector.bytes() {
            return Err(PlaceError::ClusterBelowSector { cluster, sector });
        }
        if !volume_len.0.is_multiple_of(sector.bytes()) {
            return Err(PlaceError::PartSector { len: volume_len, sector });
        }
        let whole = |len: usize| cluster.len_of(cluster.count_for(ByteLen(len as u64))).0;
        let spread = volume_len.0.div_ceil(SPREAD_DIVISOR).next_multiple_of(cluster.bytes());
        let first = FIRST_REGION_AT.next_multiple_of(cluster.bytes());
        let relocated = first + whole(REGION_LEN);
        let verify = relocated + whole(FRONT_LEN);
        let metadata =
            [0, 1, 2].map(|k| VolumeOffset((FIRST_REGION_AT + k * spread).next_multiple_of(cluster.bytes())));
        // A ninth of the smallest volume is 7.1 MiB; region 1 and its two followers take at most 6 MiB.
        assert!(verify + whole(VERIFY_LEN) <= metadata[1].0, "the areas behind region 1 run into region 2");
        Ok(Self {
            volume_len,
            sector,
            cluster,
            metadata,
            relocated: VolumeOffset(relocated),
            verify: VolumeOffset(verify),
        })
    }

    /// As [`Regions::place`] in a volume that holds files: each area in clusters of `free` (ascending, disjoint, whole
    /// clusters), at the nearest place after Windows' own, or else before it. The relocated area and the verify region
    /// are placed separately where no free run holds region 1 together with both.
    ///
    /// # Errors
    /// See [`PlaceError`].
    pub fn around(
        volume_len: ByteLen,
        cluster: ClusterSize,
        sector: SectorSize,
        free: &[VolumeRange],
    ) -> Result<Self, PlaceError> {
        let wanted = Self::place(volume_len, cluster, sector)?;
        let [region, front, verify] =
            [REGION_LEN, FRONT_LEN, VERIFY_LEN].map(|len| cluster.len_of(cluster.count_for(ByteLen(len as u64))).0);
        let mut free = free.to_vec();
        let mut place = |from: VolumeOffset, len| {
            take_near(&mut free, from.0, len).ok_or(PlaceError::NoRoom { needed: ByteLen(len) })
        };
        let [first, second, third] = wanted.metadata;
        let (first, relocated, verify) = match place(first, region + front + verify) {
            Ok(at) => (at, at + region, at + region + front),
            Err(_) => (place(first, region)?, place(first, front)?, place(first, verify)?),
        };
        let mut metadata = [first, place(second, region)?, place(third, region)?].map(VolumeOffset);
        metadata.sort_unstable();
        Ok(Self { metadata, relocated: VolumeOffset(relocated), verify: VolumeOffset(verify), ..wanted })
    }

    /// Areas at places chosen by an earlier run: regions 1 to 3, relocated area, verify region. `None` if they are
    /// implausible.
    pub fn restore(volume_len: ByteLen, cluster: ClusterSize, sector: SectorSize, places: [u64; 5]) -> Option<Self> {
        let wanted = Self::place(volume_len, cluster, sector).ok()?;
        if places.iter().any(|&at| at < FRONT_LEN as u64 || at >= volume_len.0) {
            return None;
        }
        let [a, b, c, relocated, verify] = places.map(VolumeOffset);
        let this = Self { metadata: [a, b, c], relocated, verify, ..wanted };
        let mut files = this.hidden_files();
        files.sort_unstable_by_key(|file| file.start);
        let is_inside = |file: &HiddenFile| {
            let end = file.start.checked_add(file.allocated.len);
            file.start.is_aligned(cluster.bytes()) && end.is_some_and(|end| end.0 <= volume_len.0)
        };
        let sound = files.iter().all(is_inside);
        let apart = files.windows(2).all(|pair| pair[0].allocated.end() <= pair[1].start);
        (sound && apart).then_some(this)
    }

    /// The places, as [`Regions::restore`] takes them.
    pub fn places(&self) -> [u64; 5] {
        let [a, b, c] = self.metadata;
        [a, b, c, self.relocated, self.verify].map(|at| at.0)
    }

    /// Length of the volume (the partition); NTFS inside has one sector less.
    pub const fn volume_len(&self) -> ByteLen {
        self.volume_len
    }

    /// Sector size of the volume.
    pub const fn sector(&self) -> SectorSize {
        self.sector
    }

    /// Cluster size of the file system inside.
    pub const fn cluster(&self) -> ClusterSize {
        self.cluster
    }

    /// The three metadata regions, 64 KiB each, stored in the clear.
    pub const fn metadata(&self) -> [VolumeRange; 3] {
        let [a, b, c] = self.metadata;
        let len = ByteLen(REGION_LEN as u64);
        [VolumeRange { start: a, len }, VolumeRange { start: b, len }, VolumeRange { start: c, len }]
    }

    /// Stored first 8 KiB of the unlocked volume.
    pub const fn relocated(&self) -> VolumeRange {
        VolumeRange { start: self.relocated, len: ByteLen(FRONT_LEN as u64) }
    }

    /// The verify ("ICE") region: an ordinary encrypted range that holds zeros.
    pub const fn verify(&self) -> VolumeRange {
        VolumeRange { start: self.verify, len: ByteLen(VERIFY_LEN as u64) }
    }

    /// The first bytes of the device, which hold the boot sector and noise instead of the unlocked volume's.
    pub fn front(&self) -> VolumeRange {
        VolumeRange::new(0, FRONT_LEN as u64)
    }

    /// The five files by which the file system inside must reserve these areas: regions 1 to 3, relocated area, verify
    /// region.
    pub fn hidden_files(&self) -> [HiddenFile; 5] {
        let [m1, m2, m3] = self.metadata();
        [
            (NAME_REGION_1, m1),
            (NAME_REGION_2, m2),
            (NAME_REGION_3, m3),
            (NAME_RELOCATED, self.relocated()),
            (NAME_VERIFY, self.verify()),
        ]
        .map(|(name, range)| HiddenFile {
            name,
            start: range.start,
            data_len: range.len,
            allocated: self.whole_clusters(range),
            attributes: HIDDEN_FILE_ATTRIBUTES,
        })
    }

    /// Ranges that must be sealed zeros on the device: the verify region, and the rest of the last cluster of each
    /// hidden file when clusters are larger than its data. Ascending; never empty.
    pub fn sealed_zeros(&self) -> Vec<VolumeRange> {
        let mut zeros: Vec<VolumeRange> = self
            .hidden_files()
            .iter()
            .map(|file| {
                let from = if file.start == self.verify { file.start } else { file.start + file.data_len };
                VolumeRange { start: from, len: ByteLen(file.allocated.end().0 - from.0) }
            })
            .filter(|range| range.len.0 > 0)
            .collect();
        zeros.sort_unstable();
        zeros
    }

    /// The map from the unlocked volume to the device, as readers of the finished volume will build it.
    pub fn mapping(&self) -> Mapping {
        self.mapping_until(VolumeOffset(self.volume_len.0))
    }

    /// The map while the volume is encrypted in place, ascending: from `plain_from` on (a whole sector, after the
    /// front) nothing is encrypted yet, except the relocated area.
    pub fn mapping_until(&self, plain_from: VolumeOffset) -> Mapping {
        Mapping::until(self, plain_from).expect("own areas are aligned and inside the volume")
    }

    fn whole_clusters(&self, range: VolumeRange) -> VolumeRange {
        VolumeRange { start: range.start, len: self.cluster.len_of(self.cluster.count_for(range.len)) }
    }
}

/// Takes `len` bytes out of `free`: the first place from `from` on, or else the last one before.
fn take_near(free: &mut Vec<VolumeRange>, from: u64, len: u64) -> Option<u64> {
    let behind = free.iter().enumerate().find_map(|(i, range)| {
        let at = range.start.0.max(from);
        at.checked_add(len).filter(|&end| end <= range.end().0).map(|_| (i, at))
    });
    let before = || {
        let fits = free.iter().enumerate().rev().find(|(_, range)| range.start.0 < from && range.len.0 >= len);
        fits.map(|(i, range)| (i, range.end().0 - len))
    };
    let (i, at) = behind.or_else(before)?;
    let range = free[i];
    let rest =
        [VolumeRange::new(range.start.0, at - range.start.0), VolumeRange::new(at + len, range.end().0 - at - len)];
    free.splice(i..=i, rest.into_iter().filter(|range| range.len.0 > 0));
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_of_a_volume_that_holds_files_lie_in_what_is_free() {
        let (len, cluster) = (ByteLen(100 << 20), ClusterSize::from_bytes(4096).unwrap());
        let around = |free: &[(u64, u64)]| {
            let free: Vec<VolumeRange> = free.iter().map(|&(from, to)| VolumeRange::new(from, to - from)).collect();
            Regions::around(len, cluster, SectorSize::S512, &free)
        };
        // With everything free it is the same as in an empty volume.
        let empty = Regions::place(len, cluster, SectorSize::S512).unwrap();
        assert_eq!(around(&[(0x10000, len.0)]), Ok(empty));
        // Moved past the used run; before it if nothing is free after it.
        let pushed = around(&[(0x10_0000, 0x30_0000), (0x250_0000, 0x260_0000)]).unwrap();
        assert_eq!(pushed.places(), [0x250_0000, 0x25E_0000, 0x25F_0000, 0x251_0000, 0x251_2000]);
        // In pieces too short for the three together.
        let mut free = vec![
            (0x1000, 0x4000),
            (0x220_0000, 0x221_0000),
            (0x300_0000, 0x301_0000),
            (0x310_0000, 0x311_0000),
            (0x320_0000, 0x321_2000),
            (0x400_0000, 0x401_0000),
        ];
        let apart = around(&free).unwrap();
        assert_eq!(apart.places(), [0x220_0000, 0x320_0000, 0x400_0000, 0x300_0000, 0x310_0000]);
        assert_eq!(Regions::restore(len, cluster, SectorSize::S512, apart.places()), Some(apart));
        free.pop();
        assert_eq!(around(&free), Err(PlaceError::NoRoom { needed: ByteLen(0x1_0000) }));
        for places in [[0; 5], [1 << 20; 5], [1 << 20, 2 << 20, 3 << 20, 4 << 20, len.0], [u64::MAX; 5]] {
            assert_eq!(Regions::restore(len, cluster, SectorSize::S512, places), None, "{places:?}");
        }
    }

    fn place(volume_len: u64, cluster: u64) -> Regions {
        Regions::place(ByteLen(volume_len), ClusterSize::from_bytes(cluster).unwrap(), SectorSize::S512).unwrap()
    }

    #[test]
    fn judge_windows_places_of_14_volumes() {
        // Volumes of 0x6400000 and 0x6500000 bytes with 4 KiB clusters, the spacing of regions 2 and 3
        // (docs/spec/bitlocker.md#where-windows-puts-the-regions).
        let regions = place(0x640_0000, 4096);
        assert_eq!(regions.metadata.map(|at| at.0), [0x210_0000, 0x2C1_D000, 0x373_A000]);
        assert_eq!(regions.relocated.0, 0x211_0000);
        assert_eq!(regions.verify.0, 0x211_2000);
        let regions = place(0x650_0000, 4096);
        assert_eq!(regions.metadata.map(|at| at.0)[1..], [0x2C3_9000, 0x377_2000]);
    }

    #[test]
    fn areas_are_cluster_aligned_and_apart_for_every_cluster_size() {
        for shift in 9..=21 {
            for volume_len in [64 << 20, (64 << 20) + 512, 100 << 20, 1 << 30, 16 << 40, (16 << 40) + 4096 * 77] {
                let regions = place(volume_len, 1 << shift);
                let mut files = regions.hidden_files();
                files.sort_unstable_by_key(|file| file.start);
                assert!(files[0].start.0 >= 0x210_0000);
                for file in &files {
                    assert!(file.start.is_aligned(1 << shift) && file.allocated.len.0.is_multiple_of(1 << shift));
                    assert!(file.allocated.len >= file.data_len);
                }
                for pair in files.windows(2) {
                    assert!(!pair[0].allocated.overlaps(pair[1].allocated), "{shift} {volume_len}: {pair:?}");
                }
                // NTFS owns one sector less than the partition.
                assert!(files[4].allocated.end().0 <= volume_len - 512);
                let zeros = regions.sealed_zeros();
                assert_eq!(zeros.len(), [1, 2, 5][usize::from(shift > 13) + usize::from(shift > 16)]);
                let hidden: u64 =
                    [regions.relocated(), regions.metadata()[0], regions.metadata()[1], regions.metadata()[2]]
                        .iter()
                        .map(|range| range.len.0)
                        .sum();
                let zero: u64 = zeros.iter().map(|range| range.len.0).sum();
                assert_eq!(zero + hidden, files.iter().map(|file| file.allocated.len.0).sum::<u64>());
            }
        }
    }

    #[test]
    fn impossible_volumes_are_refused() {
        let cluster = ClusterSize::from_bytes(512).unwrap();
        let place = |len, sector| Regions::place(ByteLen(len), cluster, sector);
        assert!(matches!(place((64 << 20) - 512, SectorSize::S512), Err(PlaceError::TooSmall { .. })));
        assert!(matches!(place(64 << 20, SectorSize::S4096), Err(PlaceError::ClusterBelowSector { .. })));
        assert!(matches!(place((64 << 20) + 1, SectorSize::S512), Err(PlaceError::PartSector { .. })));
    }
}
