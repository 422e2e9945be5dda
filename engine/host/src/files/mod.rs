//! Files named by the user: inputs of bounded length, and outputs that take no other file's place.

pub mod input;
pub mod output;

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Identity of a file in the kernel: a path is only one of its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Which {
    /// A file on a file system: the system's device number, and the inode.
    Inode(u64, u64),
    /// A device: its own number, whatever node leads to it.
    Device(u64),
}

impl Which {
    /// From the result of `stat`.
    pub fn of(meta: &Metadata) -> Self {
        let kind = meta.file_type();
        if kind.is_block_device() || kind.is_char_device() {
            Self::Device(meta.rdev())
        } else {
            Self::Inode(meta.dev(), meta.ino())
        }
    }

    /// The file that the path leads to; `None` if there is none.
    pub fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|meta| Self::of(&meta))
    }
}

/// Kind of a file that is not an ordinary one, in words.
pub fn kind(meta: &Metadata) -> &'static str {
    let kind = meta.file_type();
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_block_device() || kind.is_char_device() {
        "a device"
    } else {
        "a regular file"
    }
}
