//! The pipeline that reads a drive: device, read in disk order, open, digest, judge.
//!
//! `find` locates the volume on a device and `key` reads the keys; together they make an `Opened` volume.
//! `block_reader` passes its bytes through the workers that preparing uses too. Based on it are `decrypt` (the plain
//! volume), `files` (access to its files) and `judge` (comparison with the manifest), with `work` (the reading order),
//! `extract`, `writer` and `deliver` (extraction, or delivery to a consumer, in the same pass, on a thread of its own) and
//! `service` (the service's questions and answers); `added` reads back the additions of a session. `known` reads journals and
//! drive records; `verdict` draws
//! the conclusion from all results of a run. `audit` compares what was sent with a storage account.
//!
//! Nothing here writes to the drive: it is opened for reading alone.

pub mod added;
pub mod audit;
pub mod deliver;
mod extract;
pub mod index;
pub mod judge;
pub mod known;
pub mod listing;
pub mod logs;
mod only;
pub mod rehearsal;
pub mod result;
pub mod row;
pub mod service;
pub mod verdict;
pub mod work;
mod writer;
