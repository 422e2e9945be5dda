//! Files added to a volume that exists, without a mounted driver (docs/spec/ntfs.md#appending).
//!
//! [`Append::plan`] looks at a clean volume through a reader and says where everything new goes: free records and free
//! clusters, directory indexes rebuilt in clusters that were free. [`Append::metadata`] renders, when the data are down and
//! it is known which files made it, what has to be written, in order ([`Step`]): first what lies in clusters that were
//! free, then the dirty mark, then what replaces bytes of the volume, then the mark's end. Until the dirty mark the volume
//! is what it was.
//!
//! Nothing else is touched: no file, index block or stream that was there is moved or rewritten. Directories that gain
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

pub use metadata::{Step, WriteOut};
pub use plan::{Append, free_runs, has_bad_clusters, log_len, root_stream};

use crate::ntfs::build::RootFile;
use crate::ntfs::read::NtfsError;
use crate::units::{ByteLen, ByteRange, Extent, FileTime};

/// What is added, beside the tree of files.
#[derive(Clone, Debug)]
pub struct AppendSpec {
    /// Never written to, whatever `$Bitmap` says: what BitLocker owns.
    pub avoid: Vec<ByteRange>,
    /// Bytes that are written in one piece: the larger of the sectors of device and cipher.
    pub unit: u64,
    /// Files in the root whose length is known when the data are down. One that exists is replaced.
    pub root_files: Vec<RootFile>,
    /// The tree's files own regions of somebody else, and stay hidden: where their data lie.
    pub hidden: Option<Hidden>,
    /// Time of the change, for new records and for directories that change.
    pub now: FileTime,
}

/// Files that own regions which something else writes to, as BitLocker's are (docs/spec/bitlocker.md#the-ntfs-side).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hidden {
    /// The clusters of the files, in the order of files: one run each, free, ascending.
    pub places: Vec<Extent>,
    /// Attributes of the files.
    pub file_attributes: u32,
    /// Attributes of directories that are new.
    pub dir_attributes: u32,
}

/// Why a volume is left as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It could not be read.
    #[error(transparent)]
    Read(#[from] NtfsError),
    /// It was not closed properly, or another system holds on to it.
    #[error("the volume {0}")]
    Unclean(&'static str),
    /// It contradicts itself.
    #[error("the volume is damaged: {first}{}", others(.total))]
    Damaged {
        /// The first finding.
        first: String,
        /// Damaged places in all.
        total: u64,
    },
    /// It is sound, but made in a way that is not handled.
    #[error("the volume cannot be added to: {0}")]
    NotUnderstood(String),
    /// Names that are there already.
    #[error("{} on the volume already{}", .names.first().map_or("", |name| name.as_str()), others(&(.names.len() as u64)))]
    Exists {
        /// Paths, with what is in the way.
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
    /// Enough free clusters, but in too many pieces.
    #[error("the free space is in too many pieces for {0}")]
    TooSplit(String),
}

fn others(total: &u64) -> String {
    match *total {
        0 | 1 => String::new(),
        many => format!(", and {} more like it", many - 1),
    }
}
