//! A copy session: from a request to finished drives.
//!
//! `prepare` is preflight, with `preflight` for what the end requires: drives and sources are examined, and `planning`
//! gives one layout a drive; `inputs` reads what a session is given, `prepared` is what preflight ends with. `run` starts a
//! thread a drive. `plan_file` and `resume` continue a session that ended
//! abnormally, `abort` rolls it back, `rebuild` rebuilds a lost journal. `shards` splits a plan by drive; `estimate` plans
//! onto drives that are not attached; `log` records events.

pub mod abort;
pub mod estimate;
pub mod inputs;
pub mod log;
pub mod plan_file;
pub mod planning;
mod preflight;
pub mod prepare;
pub mod prepared;
pub mod rebuild;
pub mod resume;
pub mod run;
pub mod shards;
#[cfg(test)]
mod ten_million;
#[cfg(test)]
mod thousand_drives;
