//! The pipeline that fills a drive: feed, digest, seal, write, finish.
//!
//! `session` is preflight, with `preflight` for the requirements of the end: `targets` (drives), `property_files`, `scan`
//! (sources) and `planning` give one layout a drive. `run` starts a thread a drive: `drive` is its loop, `workers` hash
//! and seal for all, `outcome` keeps the hashes for `manifest`, `discard` frees free space in the background, `files` are
//! next to the journal, `own` keeps them out of the sources, `log` records events, and the watchdog reports stalls.
//! `plan_file` and `resume` continue a session that ended abnormally, `abort` rolls it back; `append` adds to existing
//! volumes; `rebuild` rebuilds a lost journal. `list` and `kept` record what each drive holds; `estimate` plans onto
//! drives that are not attached. `contents` fetches what is no local file.

pub mod abort;
pub mod append;
pub mod claim;
pub mod contents;
mod discard;
pub mod drive;
pub mod estimate;
pub mod files;
pub mod kept;
pub mod keys;
pub mod lint;
mod list;
pub mod log;
pub mod manifest;
pub mod outcome;
pub(crate) mod own;
pub mod plan_file;
pub mod planning;
mod preflight;
pub mod property_files;
pub mod rate_limit;
pub mod readback;
pub mod rebuild;
pub mod records;
pub mod request;
pub mod resume;
pub mod run;
pub mod scan;
pub mod session;
pub mod shards;
mod sources;
pub mod targets;
#[cfg(test)]
mod ten_million;
#[cfg(test)]
mod thousand_drives;
pub mod timeouts;
pub mod workers;
