//! What verifying tells: verdicts, rows, questions, counts.

use std::time::Duration;

use crate::azure::Digest;
use crate::report::{DriveFacts, Kind, Problem};
use crate::units::FileTime;
use crate::verify::verdict::{DriveSum, Reason, RunSum, Taken, conclude};

/// What is said of a file, a block, or a page range. The order is that of gravity: of several the last counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// As the manifest says.
    #[default]
    Equal,
    /// The drive holds a file that the manifest does not name.
    NotInManifest,
    /// The manifest gives no hash to compare with.
    NoReference,
    /// Readable, and not what the manifest says.
    Different,
    /// The drive does not give it.
    Unreadable,
    /// The manifest names a file that is not on the drive.
    Missing,
}

impl Verdict {
    /// In words, as reports have it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::NotInManifest => "not in the manifest",
            Self::NoReference => "no reference",
            Self::Different => "different",
            Self::Unreadable => "unreadable",
            Self::Missing => "missing",
        }
    }

    /// Whether it stands against a blob. A file that nobody asked for is no blob.
    pub const fn is_against(self) -> bool {
        !matches!(self, Self::Equal | Self::NotInManifest)
    }
}

/// A blob, or a file that the manifest does not name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// The worst of its blocks, metadata and properties.
    pub verdict: Verdict,
    /// `container/name`; `None` for a file that is not in the manifest.
    pub blob: Option<String>,
    /// Snapshot, on exports.
    pub snapshot: Option<String>,
    /// Path on the drive, with `\`.
    pub file: String,
    /// Bytes that the manifest tells, or that the file has.
    pub length: u64,
    /// Blocks or page ranges.
    pub pieces: u64,
    /// Those that are not equal, and everything else to be said, one sentence each.
    pub notes: Vec<String>,
    /// Its metadata file.
    pub metadata: Option<Verdict>,
    /// Its properties file.
    pub properties: Option<Verdict>,
    /// What the service said of it, if a copy log names it.
    pub service: Option<String>,
    /// What that comes to; `None` without copy logs of the drive, or if they say nothing of it.
    pub taken: Option<Taken>,
    /// Its bytes were not read by this run, but by an earlier one that was interrupted.
    pub earlier: bool,
    /// Where it was taken out to, below the directory.
    pub extracted: Option<String>,
    /// What lies there is not what was taken out.
    pub changed: bool,
}

/// How many rows of each verdict, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows and bytes that are equal.
    pub equal: (u64, u64),
    /// Rows and bytes whose contents differ from the manifest.
    pub different: (u64, u64),
    /// Rows and bytes that the drive or its file system did not give.
    pub unreadable: (u64, u64),
    /// Rows and bytes whose file is not on the drive.
    pub missing: (u64, u64),
    /// Rows and bytes that the manifest gives no hash for.
    pub no_reference: (u64, u64),
    /// Not in the manifest.
    pub not_in_manifest: (u64, u64),
}

impl Counts {
    /// Counts a row.
    pub fn add(&mut self, row: &Row) {
        let entry = match row.verdict {
            Verdict::Equal => &mut self.equal,
            Verdict::NotInManifest => &mut self.not_in_manifest,
            Verdict::NoReference => &mut self.no_reference,
            Verdict::Different => &mut self.different,
            Verdict::Unreadable => &mut self.unreadable,
            Verdict::Missing => &mut self.missing,
        };
        entry.0 += 1;
        // A manifest may say any length.
        entry.1 = entry.1.saturating_add(row.length);
    }

    /// Each verdict, its rows and bytes, in the order of reports.
    pub const fn all(&self) -> [(Verdict, u64, u64); 6] {
        [
            (Verdict::Equal, self.equal.0, self.equal.1),
            (Verdict::Different, self.different.0, self.different.1),
            (Verdict::Unreadable, self.unreadable.0, self.unreadable.1),
            (Verdict::Missing, self.missing.0, self.missing.1),
            (Verdict::NoReference, self.no_reference.0, self.no_reference.1),
            (Verdict::NotInManifest, self.not_in_manifest.0, self.not_in_manifest.1),
        ]
    }

    /// Blobs of the manifest.
    pub const fn blobs(&self) -> u64 {
        self.equal.0 + self.different.0 + self.unreadable.0 + self.missing.0 + self.no_reference.0
    }
}

/// How a question was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// As the service wants it.
    Yes,
    /// The service would refuse.
    No,
    /// Cannot be told from here.
    Unknown,
}

/// A question of the service, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The question in words.
    pub question: &'static str,
    /// The status that the service would give.
    pub status: &'static str,
    /// Whether the service would accept the drive in this point.
    pub answer: Answer,
    /// Value that the answer rests on.
    pub seen: String,
}

/// The manifest that was used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManifestFacts {
    /// Path on the drive, or of the file that was given.
    pub path: String,
    /// It is a file beside the drive.
    pub is_outside: bool,
    /// Length in bytes.
    pub len: u64,
    /// Upper-case hex.
    pub md5: String,
    /// Upper-case hex.
    pub sha256: String,
    /// The hash that it should have, if known, and from where.
    pub expected: Option<(Digest, &'static str)>,
    /// Serial that it names.
    pub drive_id: Option<String>,
    /// Program that wrote the manifest.
    pub creator: Option<String>,
    /// It describes an export.
    pub is_export: bool,
    /// What is wrong with it, the first ones.
    pub faults: Vec<String>,
    /// Faults in all, those not listed included.
    pub faults_in_all: u64,
}

/// How one drive was found.
#[derive(Clone, Debug)]
pub struct DriveVerdict {
    /// The drive that was verified.
    pub drive: DriveFacts,
    /// Serial of the hardware.
    pub serial: Option<String>,
    /// How it was unlocked, in words.
    pub unlocked: String,
    /// The manifest that the drive was compared with; `None` if none could be read.
    pub manifest: Option<ManifestFacts>,
    /// The questions of the service.
    pub checks: Vec<Check>,
    /// Rows by verdict.
    pub counts: Counts,
    /// Bytes that were read and compared.
    pub bytes_read: u64,
    /// Bytes that were to be read; 0 until the manifest has told.
    pub bytes_asked: u64,
    /// Blobs that were judged in an earlier run.
    pub resumed: u64,
    /// Manifests on the drive that are not used and list other blobs: path, and how many of them.
    pub unlisted: Vec<(String, u64)>,
    /// Files that were taken out earlier and are others now.
    pub changed: u64,
    /// Prefixes of the request with which no blob of this drive begins, and what blobs begin with here.
    pub unmatched: Vec<String>,
    /// Beginnings of blobs that there are, for who mistyped one.
    pub beginnings: Vec<String>,
    /// What copy logs say of the blobs that were asked for: not taken, renamed, something else.
    pub service: (u64, u64, u64),
    /// What copy logs say of the drive as a whole that is no success, in sentences.
    pub log_remarks: Vec<String>,
    /// Blobs that `only` left out.
    pub skipped: u64,
    /// Blobs that were taken out, or were so already, and their bytes.
    pub taken_out: (u64, u64),
    /// What else should be known.
    pub warnings: Vec<String>,
    /// Entries of copy logs that name nothing of the manifest.
    pub log_strays: Vec<String>,
    /// Status that the copy log gives the drive.
    pub log_status: Option<String>,
    /// Reason for which the drive was not verified to the end.
    pub failure: Option<Problem>,
    /// When the verification of this drive began.
    pub started: FileTime,
    /// Wall time of verifying this drive.
    pub elapsed: Duration,
}

impl DriveVerdict {
    /// Whether nothing of this drive stands against success.
    pub fn is_good(&self) -> bool {
        let run = RunSum { drives: vec![self.sum()], ..RunSum::default() };
        let reasons = conclude(&run).reasons;
        reasons.iter().all(|reason| matches!(reason, Reason::Empty(_)) && self.skipped > 0)
    }

    /// What a conclusion is made of.
    pub fn sum(&self) -> DriveSum {
        let no = |of_service: bool| {
            let no = self.checks.iter().filter(|check| check.answer == Answer::No);
            no.filter(|check| check.status.is_empty() != of_service).count() as u64
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

/// What a run's conclusion is made of. `unopened`: why drives could not be opened; `unmet`: blobs that were expected and are
/// on no drive; `foreign_logs`: copy logs of other drives.
pub fn sum(drives: &[DriveVerdict], unopened: &[Kind], unmet: u64, foreign_logs: u64) -> RunSum {
    let looked_at: Vec<&DriveVerdict> = drives.iter().filter(|drive| drive.manifest.is_some()).collect();
    // A drive that was not looked at may hold what begins so.
    let is_all = looked_at.len() == drives.len() && unopened.is_empty();
    RunSum {
        drives: drives.iter().map(DriveVerdict::sum).collect(),
        unopened: unopened.to_vec(),
        unmatched: if is_all { unmatched(drives).len() as u64 } else { 0 },
        unmet,
        foreign_logs,
    }
}

/// Prefixes with which no blob of any drive begins.
pub fn unmatched(drives: &[DriveVerdict]) -> Vec<&str> {
    let Some((first, rest)) = drives.split_first() else { return Vec::new() };
    let nowhere = |prefix: &&String| rest.iter().all(|drive| drive.unmatched.contains(prefix));
    first.unmatched.iter().filter(nowhere).map(String::as_str).collect()
}
