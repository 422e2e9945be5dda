//! An export as the service does it: the blobs of a list go onto drives, each a file below its container's directory,
//! with its properties and metadata beside it, and a manifest that says how the files are checked
//! (docs/spec/import-export.md#the-returned-export-drive).
//!
//! [`gather`](gather()) asks the account for what the list selects and makes the catalog of it; the engine plans and
//! writes the drives, and reads through [`AccountContents`]. [`logs`] writes the copy logs, [`report`] the list of what is
//! on no drive.

mod contents;
mod gather;
pub mod logs;
pub mod report;

pub use contents::AccountContents;
pub use gather::{Gathered, Options, Refused, gather, nothing};
