//! What the drives of a session share while they are written, and what comes of each.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::checkpoint::Prefix;
use crate::device::guard;
use crate::journal::files::JournalFile;
use crate::pool::Pool;
use crate::report::{DriveKeys, Event, Kind, Problem, Stop};
use crate::request::PrepRequest;
use crate::stream::contents::Fetchers;
use crate::stream::rate_limit::RateLimit;
use crate::stream::workers::Workers;
use crate::units::{ByteLen, FileTime};

/// State shared by all drives of a session.
pub struct Shared<'a> {
    pub request: &'a PrepRequest,
    pub context: &'a guard::Context,
    pub journal: &'a JournalFile,
    pub workers: &'a Workers,
    /// Slots of the drives that have not begun, by index.
    pub pools: Mutex<Vec<Option<Pool>>>,
    /// Threads that fetch what is no local file.
    pub fetchers: Option<&'a Fetchers>,
    pub events: &'a (dyn Fn(Event) + Sync),
    pub stop: &'a Stop,
    pub formatted: FileTime,
    pub snapshot: Prefix,
    pub rate_limit: RateLimit,
    /// Number of the session's drives that earlier runs finished.
    pub before: usize,
}

impl Shared<'_> {
    /// The slots of a drive, which it drops when it no longer needs them.
    ///
    /// # Errors
    /// [`Kind::Internal`] if they were taken before.
    pub fn pool(&self, index: usize) -> Result<Pool, Problem> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let pool = pools.get_mut(index).and_then(Option::take);
        pool.ok_or_else(|| Problem::new(Kind::Internal, "the slots of a drive were taken twice"))
    }

    /// Index of a drive of this run among the session's drives.
    pub fn place(&self, index: usize) -> u64 {
        (self.before + index) as u64
    }
}

/// Result of a finished drive.
pub struct Done {
    pub files: u64,
    pub data: ByteLen,
    pub written: ByteLen,
    /// `None` without a manifest.
    pub manifest_md5: Option<[u8; 16]>,
    pub left_out: Vec<(PathBuf, String)>,
    /// `None` for a drive that is not for the service.
    pub record: Option<PathBuf>,
    pub keys: DriveKeys,
    pub free_space_untouched: bool,
    pub outside_untouched: ByteLen,
}
