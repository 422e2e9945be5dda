//! What the tests stand on: seeded datasets, the outside judges, and programs that are stopped at a moment of one's choice.
//!
//! The judges themselves are Python beside this crate (`judges.py`, `judge_drive.py`, `check_manifest.py`,
//! `decrypt.py`), so that they share no line with what they judge; [`judge`] asks them.

pub mod crates;
pub mod dataset;
pub mod judge;
pub mod traced;
