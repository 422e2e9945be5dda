//! What verifying tells: verdicts, rows, questions, counts.

use std::time::Duration;

use crate::azure::Digest;
use crate::report::{DriveFacts, Problem};
use crate::units::FileTime;

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
    /// Where it was taken out to, below the directory.
    pub extracted: Option<String>,
}

/// How many rows of each verdict, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows and bytes that are equal.
    pub equal: (u64, u64),
    /// Different.
    pub different: (u64, u64),
    /// Unreadable.
    pub unreadable: (u64, u64),
    /// Missing.
    pub missing: (u64, u64),
    /// Without reference.
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

    /// Whether all that was asked is equal. Files that nobody asked for do not count.
    pub const fn is_good(&self) -> bool {
        self.equal.0 == self.blobs()
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
    /// What is asked.
    pub question: &'static str,
    /// The status that the service would give.
    pub status: &'static str,
    /// The answer.
    pub answer: Answer,
    /// What was seen.
    pub seen: String,
}

/// The manifest that was used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManifestFacts {
    /// Path on the drive, or of the file that was given.
    pub path: String,
    /// It is a file beside the drive.
    pub is_outside: bool,
    /// Bytes.
    pub len: u64,
    /// Upper-case hex.
    pub md5: String,
    /// Upper-case hex.
    pub sha256: String,
    /// The hash that it should have, if known, and from where.
    pub expected: Option<(Digest, &'static str)>,
    /// Serial that it names.
    pub drive_id: Option<String>,
    /// Who wrote it.
    pub creator: Option<String>,
    /// It describes an export.
    pub is_export: bool,
    /// What is wrong with it, the first ones.
    pub faults: Vec<String>,
    /// All of them.
    pub faults_in_all: u64,
}

/// How one drive was found.
#[derive(Clone, Debug)]
pub struct DriveVerdict {
    /// The drive.
    pub drive: DriveFacts,
    /// Serial of the hardware.
    pub serial: Option<String>,
    /// How it was unlocked, in words.
    pub unlocked: String,
    /// The manifest.
    pub manifest: Option<ManifestFacts>,
    /// The questions of the service.
    pub checks: Vec<Check>,
    /// Rows by verdict.
    pub counts: Counts,
    /// Bytes that were read and compared.
    pub bytes_read: u64,
    /// Blobs that were judged in an earlier run.
    pub resumed: u64,
    /// Blobs that `only` left out.
    pub skipped: u64,
    /// What else should be known.
    pub warnings: Vec<String>,
    /// Entries of copy logs that name nothing of the manifest.
    pub log_strays: Vec<String>,
    /// Status that the copy log gives the drive.
    pub log_status: Option<String>,
    /// What ended the verification.
    pub failure: Option<Problem>,
    /// When it began.
    pub started: FileTime,
    /// How long it took.
    pub elapsed: Duration,
}

impl DriveVerdict {
    /// Whether all that was asked is equal, and, for a drive that is to be sent, the service would take it.
    pub fn is_good(&self) -> bool {
        self.failure.is_none() && self.counts.is_good() && !self.checks.iter().any(|check| check.answer == Answer::No)
    }
}
