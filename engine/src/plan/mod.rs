//! Where every byte of every drive goes: a value, computed before the first write.
//!
//! `catalog` (what there is) → `assign` (which drive) → `tree` (one drive's files, as NTFS sees them) → `drive` (the
//! layers laid into each other) → `batches` (what is written, in order). `snapshot` is the catalog as bytes. `in_place`
//! lays BitLocker's areas into a volume that holds files.

#![forbid(unsafe_code)]

pub mod assign;
pub mod batches;
pub mod catalog;
pub mod drive;
pub mod in_place;
pub mod snapshot;
pub mod tree;
