//! The journal and the files that belong to it: `files` next to it, and the `records` of its drives.

pub mod files;
pub mod records;
