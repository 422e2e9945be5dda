//! The four times of a file, as each name and each record has them.

use crate::units::FileTime;

/// The four times of a file or directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Time of creation.
    pub created: FileTime,
    /// Time of the last modification of data.
    pub modified: FileTime,
    /// Time of the last change of the record: name, attributes or security.
    pub changed: FileTime,
    /// Time of the last access, as far as Windows records that.
    pub accessed: FileTime,
}

impl Times {
    /// One time for all four.
    pub const fn all(time: FileTime) -> Self {
        Self { created: time, modified: time, changed: time, accessed: time }
    }
}
