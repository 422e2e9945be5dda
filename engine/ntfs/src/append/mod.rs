//! Adds files to an existing volume, without a mounted driver (docs/spec/ntfs.md#appending).
//!
//! [`Append::plan`] examines a clean volume through a reader and decides the place of everything new: free records and
//! free clusters, directory indexes rebuilt in clusters that were free. [`Append::metadata`] renders, once the data are
//! written and the files left out are known, all further writes, in order ([`WriteStep`]): first data in clusters that were
//! free, then the dirty mark, then changes to existing bytes of the volume, then the removal of the mark. Until the
//! dirty mark the volume is unchanged.
//!
//! Nothing else is touched: no existing file, index block or stream is moved or rewritten. Directories that gain
//! entries get a whole new index in new clusters; their old blocks are only freed.

#![forbid(unsafe_code)]

mod btree;
mod edit;
mod metadata;
mod plan;
mod secure;
mod space;
#[cfg(test)]
mod tests;

pub use metadata::{WriteOut, WriteStep};
pub use plan::{Append, free_runs, has_bad_clusters, log_len, root_stream};

use crate::build::RootFile;
use crate::read::NtfsError;
use crate::units::{ByteLen, Extent, FileTime, VolumeRange};

/// Parameters of an append other than the tree of files.
#[derive(Clone, Debug)]
pub struct AppendSpec {
    /// Ranges never written to, whatever `$Bitmap` says: BitLocker's own.
    pub avoid: Vec<VolumeRange>,
    /// Bytes that are written in one piece: the larger of the sectors of device and cipher.
    pub unit: u64,
    /// Files in the root whose length is known only after the data. An existing one is replaced.
    pub root_files: Vec<RootFile>,
    /// Set when the tree's files reserve regions and stay hidden: places of their data.
    pub hidden: Option<Hidden>,
    /// Time of the change, for new records and for directories that change.
    pub now: FileTime,
}

/// Files that reserve regions for other writers, such as BitLocker's (docs/spec/bitlocker.md#the-ntfs-side).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hidden {
    /// The clusters of the files, in the order of files: one run each, free, ascending.
    pub places: Vec<Extent>,
    /// Attributes of the files.
    pub file_attributes: u32,
    /// Attributes of directories that are new.
    pub dir_attributes: u32,
}

/// Reason why a volume is left unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It could not be read.
    #[error(transparent)]
    Read(#[from] NtfsError),
    /// It was not closed properly, or is still in use by another system.
    #[error("the volume {0}")]
    Unclean(&'static str),
    /// It is inconsistent.
    #[error("the volume is damaged: {first}{}", others(.total))]
    Damaged {
        /// The first finding.
        first: String,
        /// Damaged places in all.
        total: u64,
    },
    /// It is sound, but has a form that is not supported.
    #[error("the volume cannot be added to: {0}")]
    NotUnderstood(String),
    /// Names that exist on the volume.
    #[error("{} on the volume already{}", .names.first().map_or("", |name| name.as_str()), others(&(.names.len() as u64)))]
    Exists {
        /// Paths, with the conflict.
        names: Vec<String>,
    },
    /// Not enough free clusters.
    #[error("{needed} are needed for files and their records, {free} are free")]
    TooFull {
        /// Bytes that files and metadata need, in whole clusters.
        needed: ByteLen,
        /// Bytes of free clusters that may be used.
        free: ByteLen,
    },
    /// Enough free clusters, but too fragmented.
    #[error("the free space is in too many pieces for {0}")]
    TooSplit(String),
}

fn others(total: &u64) -> String {
    match *total {
        0 | 1 => String::new(),
        many => format!(", and {} more like it", many - 1),
    }
}
