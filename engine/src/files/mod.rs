//! Files that a person names: inputs of bounded length, and outputs that take no other file's place.

pub mod input;
pub mod output;

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Which file it is, as the kernel knows it: a path is only one of its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Which {
    /// A file on a file system: the system's device number, and the inode.
    Inode(u64, u64),
    /// A device: its own number, whatever node leads to it.
    Device(u64),
}

impl Which {
    /// From what `stat` said.
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

/// What a file that is no ordinary one is, in words.
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
