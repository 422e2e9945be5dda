//! The floor of every pipeline: what moves blocks between media, sources and workers.
//!
//! `event_loop` is the one loop that owns engine, slots and lanes; all that moves blocks is a [`event_loop::Transfer`].
//! `medium` is where bytes of a drive come from, `block_reader` passes them in order, `zeros` overwrites ranges,
//! `sources` are local files and `contents` everything else; `workers` hash and seal for all; `rate_limit` and
//! `timeouts` bound them, and `failures` describes what went wrong.

pub mod block_reader;
pub mod contents;
pub mod event_loop;
pub mod failures;
pub mod medium;
pub mod rate_limit;
pub mod sources;
pub mod timeouts;
pub mod workers;
pub mod zeros;
