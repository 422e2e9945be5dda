//! Reads NTFS volumes of any origin, without trusting them.
//!
//! [`Volume::open`] reads the boot sector, finds `$MFT` and the state of the volume; [`Volume::catalog`] makes one
//! ascending pass over `$MFT` and the indexes of the directories, and holds every file; [`Volume::read_range`] reads
//! streams, whole or in the disk order given by [`Catalog::extents`]. A file has a path only where its own name and the
//! directory's index agree; contradictions are damage.
//!
//! The volume is never changed and never trusted: numbers are bounded before they are used, and an error names record,
//! attribute and offset.

#![forbid(unsafe_code)]

mod catalog;
mod check;
mod directory;
mod error;
pub(crate) mod file;
pub(crate) mod index;
mod limits;
mod lznt1;
#[doc(hidden)]
pub mod parts;
pub(crate) mod raw;
mod upcase;
pub(crate) mod volume;

#[cfg(test)]
pub(crate) mod tests;

pub use catalog::{Catalog, FileId, FileInfo, NameId, ScannedRecord, Special, display_name};
pub use check::{CheckReport, Finding, Severity};
pub use error::{ErrorKind, NtfsError, ReadAt, ReadError, VolumePlace};
pub use file::{FileNameAttribute, FileRecord, FileRef, Namespace, Standard, Stream, Times};
pub use upcase::Upcase;
pub use volume::{BackupBoot, DataRun, Facts, Geometry, LogState, RunPlace, Volume};
