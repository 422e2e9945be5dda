//! A whole NTFS volume as a plan and generators of its bytes.
//!
//! [`Layout::plan`] says where every cluster goes; nothing of the volume is held beyond where things start.
//! [`Layout::sections`] lists all that is not file content, and [`Layout::generator`] renders any byte range of it
//! out of the plan, the [`Tree`] and the [`Outcome`], when the data are down and it is known which files made it.
//!
//! Order on the volume: `$Boot`, `$MFTMirr`, `$AttrDef`, `$UpCase`, `$Secure`, `$LogFile`, each in the lowest gap that
//! holds it; all other free clusters form the [`LinearSpace`], filled from its start with file data, `$MFT`, index
//! blocks, root files, the bitmap of `$MFT` and `$Bitmap`.

mod estimate;
pub(in crate::ntfs) mod index;
mod layout;
pub(in crate::ntfs) mod record;
mod sections;
pub(in crate::ntfs) mod security;
pub(in crate::ntfs) mod space;
pub(in crate::ntfs) mod system;
#[cfg(test)]
pub(crate) mod tests;

use std::ops::Range;

pub use estimate::Estimate;
pub use layout::{CheckError, Layout};
pub use sections::{Generate, Phase, Section, SectionKind};
pub use space::{Extents, LinearRange, LinearSpace};

use crate::units::{ByteLen, ByteRange, ClusterSize, FileTime, SectorSize};

/// The four times of a file or directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// When it came to be.
    pub created: FileTime,
    /// When its content last changed.
    pub modified: FileTime,
    /// When its record last changed.
    pub changed: FileTime,
    /// When it was last read.
    pub accessed: FileTime,
}

impl Times {
    /// One time for all four.
    pub const fn all(time: FileTime) -> Self {
        Self { created: time, modified: time, changed: time, accessed: time }
    }
}

/// What a directory holds: two runs of indices, each in collation order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Children {
    /// Indices of its directories.
    pub dirs: Range<u32>,
    /// Indices of its files.
    pub files: Range<u32>,
}

/// A user directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirFacts {
    /// `None`: the volume's root.
    pub parent: Option<u32>,
    /// The four times of the directory, 100 ns units since 1601.
    pub times: Times,
    /// Directories and files in it.
    pub children: Children,
}

/// A user file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// `None`: the volume's root.
    pub dir: Option<u32>,
    /// Bytes of its content.
    pub len: ByteLen,
    /// The four times of the file, 100 ns units since 1601.
    pub times: Times,
}

/// What NTFS needs to know of the content. File indices are at once the order of records and of data on the volume.
///
/// The children of one directory are in collation order ([`crate::ntfs::upcase::compare`]), directories among
/// themselves and files among themselves; [`Layout::plan`] refuses anything else.
pub trait Tree: Sync {
    /// How many user directories there are. Parents come before their children.
    fn dirs(&self) -> u32;
    /// How many user files there are.
    fn files(&self) -> u32;
    /// What the volume's root holds.
    fn root(&self) -> Children;
    /// Facts of directory `i`.
    fn dir(&self, i: u32) -> DirFacts;
    /// Facts of file `i`.
    fn file(&self, i: u32) -> FileFacts;
    /// Appends the name of directory `i` to `out`.
    fn dir_name(&self, i: u32, out: &mut Vec<u16>);
    /// Appends the name of file `i` to `out`.
    fn file_name(&self, i: u32, out: &mut Vec<u16>);
}

/// What the volume is to be, beside its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeSpec {
    /// Logical sector of the device.
    pub sector: SectorSize,
    /// Length of the partition: whole sectors.
    pub len: ByteLen,
    /// Cluster size; see [`default_cluster`].
    pub cluster: ClusterSize,
    /// Sectors in front of the partition.
    pub hidden_sectors: u64,
    /// Serial number, not 0.
    pub serial: u64,
    /// Label of at most 32 UTF-16 units.
    pub label: String,
    /// Time of all that is not the user's.
    pub formatted: FileTime,
    /// Regions that something else owns.
    pub hidden: Option<HiddenDir>,
    /// Files in the root whose final length is known only afterwards.
    pub root_files: Vec<RootFile>,
}

/// A hidden directory in the root whose files own regions that NTFS must leave alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HiddenDir {
    /// `System Volume Information`.
    pub name: String,
    /// Its attributes: hidden and system.
    pub attributes: u32,
    /// One file a region.
    pub files: Vec<HiddenFile>,
}

/// A file that owns a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HiddenFile {
    /// Name of the file, such as `FVE2.{…}.1`.
    pub name: String,
    /// The region, in bytes of the volume. Starts on a cluster; all clusters it touches are the file's.
    pub extent: ByteRange,
    /// Length of the file, at most that of its clusters.
    pub len: ByteLen,
    /// Its attributes: hidden, system, archive.
    pub attributes: u32,
}

/// A file in the root that is generated after the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootFile {
    /// Name of the file, such as `DriveManifest.xml`.
    pub name: String,
    /// How long it can become.
    pub len_max: ByteLen,
    /// The four times of the file, 100 ns units since 1601.
    pub times: Times,
}

/// Files that are not on the volume after all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut(Vec<u32>);

impl LeftOut {
    /// From file indices in any order.
    pub fn new(mut files: Vec<u32>) -> Self {
        files.sort_unstable();
        files.dedup();
        Self(files)
    }

    /// Whether file `i` is left out.
    pub fn contains(&self, i: u32) -> bool {
        self.0.binary_search(&i).is_ok()
    }

    /// All of them, ascending.
    pub fn files(&self) -> &[u32] {
        &self.0
    }

    /// Those in a run of files, ascending.
    pub fn within(&self, files: &Range<u32>) -> &[u32] {
        let start = self.0.partition_point(|&file| file < files.start);
        let end = self.0.partition_point(|&file| file < files.end);
        &self.0[start..end.max(start)]
    }
}

/// What is known only when the data are on the drive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Files that vanished or changed while they were read.
    pub left_out: LeftOut,
    /// Final length of each of [`VolumeSpec::root_files`], at most its `len_max`. A missing one counts as empty.
    pub root_file_lens: Vec<ByteLen>,
}

/// Why there is no layout.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The content does not fit.
    #[error("the volume has {available} for files and their records, {needed} are needed")]
    TooSmall {
        /// What the content and its metadata take.
        needed: ByteLen,
        /// Bytes that the partition has.
        available: ByteLen,
    },
    /// The volume cannot even hold its own files.
    #[error("a volume of {len} cannot hold the metafiles of NTFS")]
    NoRoom {
        /// Length of the partition.
        len: ByteLen,
    },
    /// More than 2^32 - 1 records.
    #[error("{records} files and directories are more than NTFS can number")]
    TooManyRecords {
        /// Records that files and directories need.
        records: u64,
    },
    /// More than 2^32 - 1 clusters.
    #[error("{clusters} clusters are more than NTFS can number: take larger ones")]
    TooManyClusters {
        /// Clusters of the volume.
        clusters: u64,
    },
    /// Sector, cluster and length do not go together.
    #[error("the partition's length, its sectors and the cluster size do not go together")]
    Geometry,
    /// A hidden region does not start on a cluster, leaves the volume, overlaps another, or is shorter than its file.
    #[error("region of {name} does not fit the clusters of the volume")]
    Hidden {
        /// Name of the file that was to own it.
        name: String,
    },
    /// The label has more than 32 UTF-16 units.
    #[error("the label is longer than 32 units")]
    Label,
    /// A name is empty or longer than 255 units.
    #[error("name of record {record} in directory record {directory} is empty or longer than 255 units")]
    NameLength {
        /// Record of the directory.
        directory: u32,
        /// Record of the file.
        record: u32,
    },
    /// Two names that Windows takes for one.
    #[error("record {record} in directory record {directory} has the name of another")]
    SameName {
        /// Record of the directory.
        directory: u32,
        /// Record of the file.
        record: u32,
    },
    /// Children out of collation order.
    #[error("record {record} in directory record {directory} is out of order")]
    Unsorted {
        /// Record of the directory.
        directory: u32,
        /// Record of the file.
        record: u32,
    },
    /// The runs of a stream do not fit its record.
    #[error("the runs of record {record} do not fit into it: too many regions are taken")]
    RecordFull {
        /// Number of the record.
        record: u32,
    },
}

/// The cluster size Windows would choose: 4 KiB up to 16 TiB, then as small as 2^32 clusters allow.
pub fn default_cluster(len: ByteLen, sector: SectorSize) -> ClusterSize {
    let mut bytes = 4096.max(sector.bytes());
    while len.0 / bytes > 1 << 32 && bytes < ClusterSize::MAX.bytes() {
        bytes *= 2;
    }
    ClusterSize::from_bytes(bytes).unwrap_or(ClusterSize::MAX)
}
