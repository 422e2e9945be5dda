//! Results of a verification: verdicts, rows, checks, counts.

use std::time::Duration;

use crate::azure::Digest;
use crate::azure::copylog::DriveStatus;
use crate::report::{DriveFacts, Kind, Problem};
use crate::units::FileTime;
use crate::verify::row::Counts;
use crate::verify::verdict::{DriveSum, Reason, RunSum, conclude};

/// Result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Passed.
    Yes,
    /// Failed: the service would refuse the drive.
    No,
    /// Cannot be determined here.
    Unknown,
}

/// A check of the service, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The check in words.
    pub question: &'static str,
    /// The status that the service would give where the answer is no; `None` for a check that the service does not
    /// make.
    pub status: Option<DriveStatus>,
    /// Whether the service would accept the drive in this point.
    pub answer: Answer,
    /// Value that the answer is based on.
    pub seen: String,
}

/// The manifest that was used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManifestFacts {
    /// Path on the drive, or of the given file.
    pub path: String,
    /// Whether it is a file outside the drive.
    pub is_outside: bool,
    /// Length in bytes.
    pub len: u64,
    /// MD5 in upper-case hex.
    pub md5: String,
    /// SHA-256 in upper-case hex.
    pub sha256: String,
    /// The expected hash, if known, and its source.
    pub expected: Option<(Digest, &'static str)>,
    /// Serial in the manifest.
    pub drive_id: Option<String>,
    /// Program that wrote the manifest.
    pub creator: Option<String>,
    /// Whether it describes an export.
    pub is_export: bool,
    /// The first faults of it.
    pub faults: Vec<String>,
    /// Number of all faults, listed or not.
    pub faults_in_all: u64,
}

/// Result of verifying one drive.
#[derive(Clone, Debug)]
pub struct DriveVerdict {
    /// The drive that was verified.
    pub drive: DriveFacts,
    /// Serial of the hardware.
    pub serial: Option<String>,
    /// The way it was unlocked, in words.
    pub unlocked: String,
    /// The manifest that the drive was compared with; `None` if none could be read.
    pub manifest: Option<ManifestFacts>,
    /// The checks of the service.
    pub checks: Vec<Check>,
    /// Rows by verdict.
    pub counts: Counts,
    /// Bytes that were read and compared.
    pub bytes_read: u64,
    /// Bytes to read; 0 until the manifest has been read.
    pub bytes_asked: u64,
    /// Blobs that were judged in an earlier run.
    pub resumed: u64,
    /// Unused manifests on the drive that list other blobs: path, and number of such blobs.
    pub unlisted: Vec<(String, u64)>,
    /// Number of files extracted earlier that have changed since.
    pub changed: u64,
    /// Requested prefixes that no blob of this drive matches.
    pub unmatched: Vec<String>,
    /// Existing prefixes of blobs, as suggestions for a mistyped one.
    pub beginnings: Vec<String>,
    /// Requested blobs by result in the copy logs: not copied, renamed, other content.
    pub service: (u64, u64, u64),
    /// Entries of copy logs on the drive as a whole that are no success, in sentences.
    pub log_remarks: Vec<String>,
    /// Number of blobs outside the selection.
    pub skipped: u64,
    /// Extracted blobs, including those of earlier runs, and their bytes.
    pub taken_out: (u64, u64),
    /// Directories made for the files of a whole volume.
    pub directories: u64,
    /// Further warnings.
    pub warnings: Vec<String>,
    /// Entries of copy logs that match nothing in the manifest.
    pub log_strays: Vec<String>,
    /// Status that the copy log gives the drive.
    pub log_status: Option<String>,
    /// Reason for which the drive was not verified to the end.
    pub failure: Option<Problem>,
    /// Time at which the verification of this drive began.
    pub started: FileTime,
    /// Wall time of verifying this drive.
    pub elapsed: Duration,
}

impl DriveVerdict {
    /// Whether no result of this drive counts against success.
    pub fn is_good(&self) -> bool {
        let run = RunSum { drives: vec![self.sum()], ..RunSum::default() };
        let reasons = conclude(&run).reasons;
        reasons.iter().all(|reason| matches!(reason, Reason::Empty(_)) && self.skipped > 0)
    }

    /// The drive's part of a conclusion.
    pub fn sum(&self) -> DriveSum {
        let no = |of_service: bool| {
            let no = self.checks.iter().filter(|check| check.answer == Answer::No);
            no.filter(|check| check.status.is_some() == of_service).count() as u64
        };
        let (not_taken, renamed, other) = self.service;
        DriveSum {
            failure: self.failure.as_ref().map(|problem| problem.kind),
            counts: self.counts,
            skipped: self.skipped,
            earlier: self.resumed,
            refused: no(true),
            unfit: no(false).min(1),
            unlisted: self.unlisted.iter().map(|(_, blobs)| blobs).sum(),
            changed: self.changed,
            not_taken,
            renamed,
            other,
            strays: self.log_strays.len() as u64,
            remarks: self.log_remarks.len() as u64,
        }
    }
}

/// The input of a run's conclusion. `unopened`: failures of drives that could not be opened; `unmet`: expected blobs
/// that are on no drive; `foreign_logs`: copy logs of other drives.
pub fn sum(drives: &[DriveVerdict], unopened: &[Kind], unmet: u64, foreign_logs: u64) -> RunSum {
    let looked_at: Vec<&DriveVerdict> = drives.iter().filter(|drive| drive.manifest.is_some()).collect();
    // A drive that was not examined may hold blobs with this prefix.
    let is_all = looked_at.len() == drives.len() && unopened.is_empty();
    RunSum {
        drives: drives.iter().map(DriveVerdict::sum).collect(),
        unopened: unopened.to_vec(),
        unmatched: if is_all { unmatched(drives).len() as u64 } else { 0 },
        unmet,
        foreign_logs,
    }
}

/// Prefixes that no blob of any drive matches.
pub fn unmatched(drives: &[DriveVerdict]) -> Vec<&str> {
    let Some((first, rest)) = drives.split_first() else { return Vec::new() };
    let nowhere = |prefix: &&String| rest.iter().all(|drive| drive.unmatched.contains(prefix));
    first.unmatched.iter().filter(nowhere).map(String::as_str).collect()
}
