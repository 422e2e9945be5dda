//! The work on one drive: formatting and filling it, or adding files to the volume that it holds; `drive_work` says what
//! they have in common.
//!
//! `target` finds and examines the drive, `claim` takes it. `planner` lays it out by the session's `recipe`. `format` fills
//! a new volume and `append` adds to one that exists, indexes it, or encrypts it in place; `steps` are what both do, `shared`
//! what the drives of a session have in common. `drive` is the loop that fills, `outcome` keeps the hashes for `manifest`,
//! `keys` the secrets, `progress` what a checkpoint says; `discard` frees free space in the background, `readback` compares
//! what the drive returns. `list`, `kept` and `exported` record what each drive holds. `reversal` rolls back, by `way_back`
//! where a volume was made; `target_code` is a drive as bytes.

pub mod append;
pub mod claim;
pub mod discard;
pub mod drive;
pub mod drive_work;
pub mod exported;
pub mod format;
pub mod kept;
pub mod keys;
pub mod list;
pub mod manifest;
pub mod outcome;
pub mod planner;
pub mod progress;
pub mod readback;
pub mod recipe;
pub mod reversal;
pub mod shared;
pub mod steps;
pub mod target;
pub mod target_code;
pub mod way_back;
