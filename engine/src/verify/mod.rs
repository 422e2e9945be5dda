//! The pipeline that reads a drive: device, read in disk order, open, digest, judge.
//!
//! `find` looks for the volume on a device and `key` for what unlocks it; together they make an `Opened` volume. `road`
//! carries its bytes through the workers that preparing uses too. On it stand `decrypt` (the plain volume), `files`
//! (looking into it) and `judge` (against the manifest), with `work` (what to read, in disk order), `extract` and
//! `writer` (taking files out in the same pass, on a thread of its own) and `checks` (the questions of the service);
//! `added` judges what a session added to a volume. `known` asks journals and drive records; `verdict` says what follows from
//! all that a run learned.
//!
//! Nothing here writes to the drive: it is opened for reading alone.

pub mod added;
pub mod block_reader;
mod checks;
pub mod decrypt;
mod extract;
pub mod files;
pub mod find;
pub mod index;
pub mod judge;
pub mod key;
pub mod known;
mod listing;
pub mod logs;
pub mod medium;
mod only;
pub mod result;
pub mod same;
pub mod verdict;
mod work;
mod writer;
