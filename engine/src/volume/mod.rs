//! An opened volume: `find` locates it on a medium, `key` reads the keys, `files` gives its files and `decrypt` all of it.
//!
//! Nothing here writes to the drive.

pub mod decrypt;
pub mod files;
pub mod find;
pub mod key;
pub mod same;
