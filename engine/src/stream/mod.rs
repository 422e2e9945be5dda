//! The floor of every pipeline: what moves blocks between media, sources and workers.
//!
//! `medium` is where bytes of a drive come from, `block_reader` passes them in order, `sources` are local files and
//! `contents` everything else; `workers` hash and seal for all; `rate_limit` and `timeouts` bound them.

pub mod block_reader;
pub mod contents;
pub mod medium;
pub mod rate_limit;
pub mod sources;
pub mod timeouts;
pub mod workers;
