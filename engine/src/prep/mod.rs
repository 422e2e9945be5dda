//! The pipeline that fills a drive: feed, digest, seal, write, finish.
//!
//! `session` is preflight, with `preflight` for what is needed at the end: `targets` (drives), `property_files`, `scan` (sources) and `planning` give one layout a
//! drive. `run` starts a thread a drive: `drive` is its loop, `workers` hash and seal for all, `outcome` keeps the hashes
//! for `manifest`, `discard` gives back free space meanwhile, `files` lie beside the drive, `own` keeps them out of the sources, `log` tells what happened and
//! the watchdog that nothing does. `plan_file` and `resume` bring a session back that ended abnormally, `abort` rolls it back;
//! `append` adds to volumes that are there; `rebuild` makes a lost journal again.

pub mod abort;
pub mod append;
pub mod claim;
mod discard;
pub mod drive;
pub mod files;
pub mod keys;
pub mod lint;
pub mod log;
pub mod manifest;
pub mod outcome;
mod own;
pub mod plan_file;
pub mod planning;
mod preflight;
pub mod property_files;
mod rate_limit;
pub mod readback;
pub mod rebuild;
pub mod records;
pub mod request;
pub mod resume;
pub mod run;
pub mod scan;
pub mod session;
mod sources;
pub mod targets;
pub mod timeouts;
pub mod workers;
