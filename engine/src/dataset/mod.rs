//! The files of a session: `scan` lists the sources, `own` keeps the session's own files out of them, `property_files` go
//! with their blobs, and `lint` checks the rows that name them.

pub mod lint;
pub mod own;
pub mod property_files;
pub mod scan;
