//! Verdicts on drives: what came back, and what the service would say of what is sent.
//!
//! [`judge`] reads a drive against its manifest, by a [`VerifyRequest`]. [`rehearsal`] asks the service's questions in its
//! order. [`conclude`] sums several drives up.

pub use crate::azure::copylog;
pub use crate::azure::copylog::{CopyStatus, DriveStatus};
pub use crate::verify::judge::{self, Damaged, Judged, VerifyRequest};
pub use crate::verify::known::Journals;
pub use crate::verify::logs::{Expected, Logs, failed as failed_in_log};
pub use crate::verify::rehearsal::{self, LogPlace, Rehearsed};
pub use crate::verify::result::{Answer, Check, DriveVerdict, ManifestFacts, sum as sum_of_drives, unmatched};
pub use crate::verify::row::{Counts, Row, Taken, Verdict};
pub use crate::verify::service::blob::{Names as BlobNames, Told};
pub use crate::verify::service::drive::{of_found, of_locked, refusal};
pub use crate::verify::verdict::{Conclusion, Ending, Reason, RunSum, conclude};
