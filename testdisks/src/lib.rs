//! Support for the tests: seeded datasets, the external judges, and programs stopped at a chosen moment.
//!
//! The judges themselves are Python in this crate's directory (`judges.py`, `judge_drive.py`, `check_manifest.py`,
//! `decrypt.py`), so that they share no code with the program under test; [`judge`] runs them, forked from a process that
//! has imported their libraries (`warm.py`).

pub mod azurite;
pub mod crates;
pub mod dataset;
pub mod judge;
pub mod traced;
