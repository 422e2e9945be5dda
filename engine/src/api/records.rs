//! What stays after a session: the journal, the drive records with their keys.
//!
//! [`read_journal`] gives a [`Ledger`], the sessions and drives that the journal knows; [`read_record`] a [`DriveRecord`].

pub use crate::azure::SecretText;
pub use crate::azure::drive_record::{DriveRecord, RecordState, key_check};
pub use crate::azure::journal::{SessionState, Work};
pub use crate::azure::ledger::{self, CopySession, Ledger, SessionDrive};
pub use crate::journal::files::{Book, journal_holder, read_journal};
pub use crate::journal::records::{is_numerical_password, read_record, sha256_of, write_private};
