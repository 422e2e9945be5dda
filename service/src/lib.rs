//! The service's work on a drive in its data center, against any endpoint that speaks the blob service's protocol.
//!
//! The engine reads and writes drives and has no network; the account's crate sends requests and knows no drive. This
//! crate is where the two meet.

#![forbid(unsafe_code)]

pub mod export;
pub mod ingest;
pub mod listing;
mod log_file;
pub mod repair;
pub mod repair_export;
