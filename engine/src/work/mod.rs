//! The work on one drive: formatting and filling it, or adding files to the volume that it holds; `drive_work` says what
//! they have in common.
//!
//! `target` finds and examines the drive, `claim` takes it. `drive` is the loop that fills it, `outcome` keeps the hashes
//! for `manifest`, `discard` frees free space in the background, `readback` compares what the drive returns. `append`
//! adds to an existing volume, indexes it, or encrypts it in place. `list`, `kept` and `exported` record what each drive holds.

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
