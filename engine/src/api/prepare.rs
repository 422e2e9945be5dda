//! Preparing drives: a request is checked and planned, the plan is run.
//!
//! Begin with [`PrepRequest`] and [`prepare`]; [`Prepared::run`] carries the plan out, [`prepare_rollback`] takes a session
//! back. [`estimate`] plans without drives, [`shards`] splits a plan by drive. All that can be known before the first write
//! comes as `Problems`, all at once.

pub use crate::azure::dataset::{BlobType, Disposition, GivenSource};
pub use crate::azure::driveset::{Encryption, FormatOption, FormatPrompt, GivenDrive, parse_size};
pub use crate::crypt::Cipher;
pub use crate::dataset::lint::{InputKind, Linted, lint, lint_text};
pub use crate::dataset::scan::STATE_DIR;
pub use crate::plan::catalog::{Builder as CatalogBuilder, Catalog};
pub use crate::report::Stop;
pub use crate::request::{
    AbsentDrive, Action, EngineChoice, MetadataFields, Pace, PrepRequest, ReadBack, RecoveryForm, SizeClass, Table,
    WindowsDrive,
};
pub use crate::session::abort::{Rollback, RollbackReport, RolledBack, prepare as prepare_rollback};
pub use crate::session::estimate::{Estimate, Needed, estimate};
pub use crate::session::log::append_to_log;
pub use crate::session::prepare::prepare;
pub use crate::session::prepared::Prepared;
pub use crate::session::rebuild::{ReadDrive, SessionFound, rebuild_journal};
pub use crate::session::resume::is_complete;
pub use crate::session::shards;
pub use crate::source::select::Selection as SourceSelection;
pub use crate::stream::rate_limit::RateLimit;
pub use crate::stream::workers::Workers;
pub use crate::work::kept::place as kept_manifest;
pub use crate::work::target::RowConsent;
