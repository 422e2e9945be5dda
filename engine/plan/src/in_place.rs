//! Plans the encryption of an existing plain volume in place: the free clusters that become BitLocker's areas, the
//! hidden files that reserve them in NTFS, and the ranges to encrypt.

use super::drive::{HIDDEN, HIDDEN_DIR, SYSTEM};
use crate::bitlocker::regions::{HIDDEN_FILE_ATTRIBUTES, HiddenFile, PlaceError, Regions};
use crate::ntfs::append::{Append, AppendSpec, Hidden, Refusal, free_runs, has_bad_clusters, log_len};
use crate::ntfs::build::{Children, DirFacts, FileFacts, Times, Tree};
use crate::ntfs::read::{NtfsError, ReadAt, Volume};
use crate::units::{ByteLen, Clusters, Extent, FileTime, Lcn, SectorSize, VolumeRange};

/// Free runs shorter than this between others are encrypted with them: skipping them costs more.
const GAP_MIN: u64 = 64 << 10;

/// Reason why a volume cannot be encrypted in place.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// A problem of the file system.
    #[error(transparent)]
    Volume(#[from] Refusal),
    /// A problem of the placement of BitLocker's areas.
    #[error(transparent)]
    Places(#[from] PlaceError),
    /// A shape that BitLocker volumes made by Windows never have.
    #[error("{0}")]
    Shape(String),
}

impl From<NtfsError> for Unfit {
    fn from(error: NtfsError) -> Self {
        Self::Volume(error.into())
    }
}

/// Partition and device of the volume.
#[derive(Clone, Copy, Debug)]
pub struct PartitionGeometry {
    /// Bytes of the partition.
    pub len: ByteLen,
    /// Sector size of the device.
    pub sector: SectorSize,
    /// Time of the new hidden files.
    pub now: FileTime,
}

/// The plan: a value, the same for the same volume.
#[derive(Debug)]
pub struct InPlace {
    /// BitLocker's areas, all in clusters that were free.
    pub regions: Regions,
    /// The changes that create the hidden files.
    pub append: Append,
    /// The hidden files, one for each area.
    pub tree: HiddenTree,
}

impl InPlace {
    /// Plans for a volume; the areas may have been chosen by an earlier run. Writes nothing.
    ///
    /// # Errors
    /// The reason why the volume is left unchanged.
    pub fn plan<R: ReadAt>(
        volume: Volume,
        reader: &mut R,
        partition: &PartitionGeometry,
        chosen: Option<Regions>,
    ) -> Result<Self, Unfit> {
        let geometry = volume.geometry();
        let (cluster, sector) = (geometry.cluster, partition.sector.bytes());
        if u64::from(geometry.sector_bytes) != sector {
            let found = geometry.sector_bytes;
            return Err(Unfit::Shape(format!("its volume has sectors of {found} bytes, the drive of {sector}")));
        }
        if geometry.sectors.checked_add(1).and_then(|all| all.checked_mul(sector)) != Some(partition.len.0) {
            let what = "its volume does not fill its partition, as one under BitLocker must";
            return Err(Unfit::Shape(what.into()));
        }
        if has_bad_clusters(&volume, reader)? {
            return Err(Unfit::Shape("its volume has bad clusters: the drive is failing".into()));
        }
        let free = free_runs(&volume, reader, &[])?;
        let regions = match chosen {
            Some(regions) => regions,
            None => {
                let free: Vec<VolumeRange> = free
                    .iter()
                    .map(|run| VolumeRange { start: cluster.offset_of(run.lcn), len: cluster.len_of(run.len) })
                    .collect();
                Regions::around(partition.len, cluster, partition.sector, &free)?
            }
        };
        let tree = HiddenTree::new(&regions, partition.now);
        let place = |file: &HiddenFile| Extent {
            lcn: Lcn(file.start.0 / cluster.bytes()),
            len: Clusters(file.allocated.len.0 / cluster.bytes()),
        };
        let spec = AppendSpec {
            avoid: Vec::new(),
            unit: sector,
            root_files: Vec::new(),
            hidden: Some(Hidden {
                places: tree.files.iter().map(place).collect(),
                file_attributes: HIDDEN_FILE_ATTRIBUTES,
                dir_attributes: HIDDEN | SYSTEM,
            }),
            now: partition.now,
        };
        let append = Append::plan(volume, reader, spec, &tree)?;
        Ok(Self { regions, append, tree })
    }

    /// Clusters taken by BitLocker's areas, in bytes of the volume, with their names.
    pub fn areas(&self) -> impl Iterator<Item = (VolumeRange, &'static str)> {
        let verify = self.regions.verify().start;
        let relocated = self.regions.relocated().start;
        self.regions.hidden_files().into_iter().map(move |file| {
            let what = match file.start {
                at if at == verify => "BitLocker verify region",
                at if at == relocated => "NTFS boot sectors",
                _ => "BitLocker metadata",
            };
            (file.allocated, what)
        })
    }

    /// Upper bound in bytes of the images that creating the hidden files leaves next to the journal: the log before and
    /// after, and records.
    ///
    /// # Errors
    /// The volume cannot be read.
    pub fn images_len<R: ReadAt>(&self, reader: &mut R) -> Result<ByteLen, NtfsError> {
        const REST: u64 = 4 << 20;
        Ok(ByteLen(2 * log_len(self.append.volume(), reader)?.0 + REST))
    }
}

/// Ranges to encrypt, in bytes of the partition, ascending and disjoint: the clusters in use and short gaps between
/// them (or, with `all`, everything), and the sectors after the last cluster, which no bitmap covers; BitLocker's own
/// areas are excluded.
///
/// # Errors
/// The volume cannot be read.
pub fn sealed_ranges<R: ReadAt>(
    volume: &Volume,
    reader: &mut R,
    regions: &Regions,
    all: bool,
) -> Result<Vec<VolumeRange>, NtfsError> {
    let len = regions.volume_len().0;
    let cluster = volume.geometry().cluster;
    let mut used: Vec<(u64, u64)> = Vec::new();
    if all {
        used.push((0, len));
    } else {
        let mut at = 0;
        for run in free_runs(volume, reader, &[])? {
            let (start, end) = (cluster.offset_of(run.lcn).0, cluster.offset_of(run.lcn).0 + cluster.len_of(run.len).0);
            if end - start >= GAP_MIN {
                used.push((at, start));
                at = end;
            }
        }
        used.push((at, len));
    }
    let front = regions.front();
    let own: Vec<VolumeRange> = std::iter::once(front).chain(regions.mapping().hidden()).collect();
    let mut out: Vec<VolumeRange> = Vec::new();
    for (start, end) in used {
        let mut at = start.max(out.last().map_or(0, |last| last.end().0));
        for own in &own {
            if own.end().0 <= at || own.start.0 >= end {
                continue;
            }
            if own.start.0 > at {
                out.push(VolumeRange::new(at, own.start.0 - at));
            }
            at = own.end().0;
        }
        if at < end {
            out.push(VolumeRange::new(at, end - at));
        }
    }
    Ok(out)
}

/// The hidden files, in the order of their places, in Windows' own directory.
#[derive(Clone, Debug)]
pub struct HiddenTree {
    files: Vec<HiddenFile>,
    times: Times,
}

impl HiddenTree {
    fn new(regions: &Regions, now: FileTime) -> Self {
        let mut files = regions.hidden_files().to_vec();
        files.sort_unstable_by_key(|file| file.start);
        Self { files, times: Times::all(now) }
    }
}

impl Tree for HiddenTree {
    fn dirs(&self) -> u32 {
        1
    }

    fn files(&self) -> u32 {
        self.files.len() as u32
    }

    fn root(&self) -> Children {
        Children { dirs: 0..1, files: 0..0 }
    }

    fn dir(&self, _: u32) -> DirFacts {
        DirFacts { parent: None, times: self.times, children: Children { dirs: 1..1, files: 0..self.files() } }
    }

    fn file(&self, i: u32) -> FileFacts {
        FileFacts { dir: Some(0), len: self.files[i as usize].data_len, times: self.times }
    }

    fn dir_name(&self, _: u32, out: &mut Vec<u16>) {
        out.extend(HIDDEN_DIR.encode_utf16());
    }

    fn file_name(&self, i: u32, out: &mut Vec<u16>) {
        out.extend(self.files[i as usize].name.encode_utf16());
    }
}
