//! A whole NTFS volume as a plan and generators of its bytes.
//!
//! [`Layout::plan`] decides the place of every cluster; it holds nothing of the volume but the starts of its parts.
//! [`Layout::sections`] lists everything except file content, and [`Layout::generator`] renders any byte range of it
//! from the plan, the [`Tree`] and the [`Outcome`], once the data are written and the files left out are known.
//!
//! Order on the volume: `$Boot`, `$MFTMirr`, `$AttrDef`, `$UpCase`, `$Secure`, `$LogFile`, each in the lowest gap that
//! holds it; all other free clusters form the [`LinearSpace`], filled from its start with file data, `$MFT`, index
//! blocks, root files, the bitmap of `$MFT` and `$Bitmap`.

mod estimate;
pub(crate) mod index;
mod layout;
pub(crate) mod record;
mod sections;
pub(crate) mod security;
pub(crate) mod space;
pub(crate) mod system;
#[cfg(test)]
pub(crate) mod tests;

use std::ops::Range;

pub use crate::times::Times;
pub use estimate::Estimate;
pub use layout::{CheckError, Layout};
pub use sections::{Generate, Phase, Section, SectionKind};
pub use space::{Extents, LinearRange, LinearSpace};

use crate::units::{ByteLen, ClusterSize, FileTime, SectorSize, VolumeRange};

/// Contents of a directory: two ranges of indices, each in collation order.
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
    /// Parent directory; `None`: the volume's root.
    pub parent: Option<u32>,
    /// The four times of the directory, 100 ns units since 1601.
    pub times: Times,
    /// Directories and files in it.
    pub children: Children,
}

/// A user file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// Directory of the file; `None`: the volume's root.
    pub dir: Option<u32>,
    /// Bytes of its content.
    pub len: ByteLen,
    /// The four times of the file, 100 ns units since 1601.
    pub times: Times,
}

/// The files for an NTFS volume. The order of file indices is both that of records and that of data on the volume.
///
/// The children of one directory are in collation order ([`crate::upcase::compare`]), directories among
/// themselves and files among themselves; [`Layout::plan`] refuses anything else.
pub trait Tree: Sync {
    /// Number of user directories. Parents come before their children.
    fn dirs(&self) -> u32;
    /// Number of user files.
    fn files(&self) -> u32;
    /// Contents of the volume's root.
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

/// Properties of the volume other than its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeSpec {
    /// Logical sector size of the device.
    pub sector: SectorSize,
    /// Length of the partition: whole sectors.
    pub len: ByteLen,
    /// Cluster size; see [`default_cluster`].
    pub cluster: ClusterSize,
    /// Number of sectors in front of the partition.
    pub hidden_sectors: u64,
    /// Serial number, not 0.
    pub serial: u64,
    /// Label of at most 32 UTF-16 units.
    pub label: String,
    /// Time stamp of everything that is not the user's.
    pub formatted: FileTime,
    /// Regions reserved for other purposes.
    pub hidden: Option<HiddenDir>,
    /// Files in the root whose final length is known only after the data.
    pub root_files: Vec<RootFile>,
}

/// A hidden directory in the root with files that reserve regions of the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HiddenDir {
    /// `System Volume Information`.
    pub name: String,
    /// Its attributes: hidden and system.
    pub attributes: u32,
    /// One file for each region.
    pub files: Vec<HiddenFile>,
}

/// A file that reserves a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HiddenFile {
    /// Name of the file, such as `FVE2.{…}.1`.
    pub name: String,
    /// The region, in bytes of the volume. Starts on a cluster; all clusters it touches are the file's.
    pub extent: VolumeRange,
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
    /// Upper bound of its length.
    pub len_max: ByteLen,
    /// The four times of the file, 100 ns units since 1601.
    pub times: Times,
}

/// Files that are left out of the volume.
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

    /// All files left out, ascending.
    pub fn files(&self) -> &[u32] {
        &self.0
    }

    /// The files left out in a range of files, ascending.
    pub fn within(&self, files: &Range<u32>) -> &[u32] {
        let start = self.0.partition_point(|&file| file < files.start);
        let end = self.0.partition_point(|&file| file < files.end);
        &self.0[start..end.max(start)]
    }
}

/// Facts known only once the data are on the drive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Files that vanished or changed while they were read.
    pub left_out: LeftOut,
    /// Final length of each of [`VolumeSpec::root_files`], at most its `len_max`. A missing one counts as empty.
    pub root_file_lens: Vec<ByteLen>,
}

/// Reason why a layout is impossible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The content does not fit.
    #[error("the volume has {available} for files and their records, {needed} are needed")]
    TooSmall {
        /// Bytes that the content and its metadata need.
        needed: ByteLen,
        /// Bytes that the partition has.
        available: ByteLen,
    },
    /// The volume is too small for the metafiles.
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
    /// Sector size, cluster size and length are incompatible.
    #[error("the partition's length, its sectors and the cluster size do not go together")]
    Geometry,
    /// A hidden region does not start on a cluster, leaves the volume, overlaps another, or is shorter than its file.
    #[error("region of {name} does not fit the clusters of the volume")]
    Hidden {
        /// Name of the file that should reserve it.
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
    /// Two names that Windows treats as the same.
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
