//! Results of a verification for the drives of a job: the verdict of `dray verify`, for the paper that is signed.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use dray_engine::report::{Kind, Problem};
use serde_json::Value;

use super::state::Drive;
use crate::render::count;
use crate::render::page::Tone;

/// Longest line that is read: the result of ten drives.
const LINE_MAX: u64 = 16 << 20;

/// The drives of the verifications in a file.
#[derive(Debug, Default)]
pub struct Verified {
    drives: Vec<Checked>,
}

#[derive(Debug)]
struct Checked {
    id: String,
    manifest_md5: String,
    word: String,
    is_good: bool,
    equal: u64,
    skipped: u64,
    started: String,
}

/// Verification result of one drive of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The result in words.
    pub words: String,
    /// The whole drive is proven to hold what its manifest says, and the manifest is the job's.
    pub is_proven: bool,
}

impl Verified {
    /// Reads the output of `dray verify --json`, or the input of `--on-finish`.
    ///
    /// # Errors
    /// The file cannot be read, or holds no verification.
    pub fn read(path: &Path) -> Result<Self, Problem> {
        let problem = |what: String| {
            Problem::new(Kind::Usage, what)
                .path(path)
                .advice("keep what `dray verify DRIVE... --key-file F --json` prints, and name that file")
        };
        let mut input = BufReader::new(File::open(path).map_err(|error| problem(format!("cannot be read: {error}")))?);
        let mut this = Self::default();
        loop {
            let mut line = Vec::new();
            let read = input.by_ref().take(LINE_MAX).read_until(b'\n', &mut line);
            if read.map_err(|error| problem(format!("cannot be read: {error}")))? == 0 {
                break;
            }
            let Ok(value) = serde_json::from_slice::<Value>(&line) else { continue };
            let result = if value["type"] == "finish" { &value["result"] } else { &value };
            if result["type"] == "verified" {
                this.drives.extend(result["drives"].as_array().into_iter().flatten().map(Checked::of));
            }
        }
        if this.drives.is_empty() { Err(problem("holds no result of a verification".to_owned())) } else { Ok(this) }
    }

    /// The result of a drive of the job: by its manifest, or else by its serial. The last verification counts.
    pub fn of(&self, drive: &Drive) -> Finding {
        let of_manifest = |one: &&Checked| one.manifest_md5.eq_ignore_ascii_case(&drive.manifest_hash);
        let of_id = |one: &&Checked| one.id.eq_ignore_ascii_case(&drive.id);
        let words = |words: String| Finding { words, is_proven: false };
        let Some(found) = self.drives.iter().rev().find(|one| of_id(one)) else { return words("Not verified".into()) };
        if !of_manifest(&found) {
            return words(format!("Another manifest was verified: MD5 {}", found.manifest_md5));
        }
        let part = match found.skipped {
            0 => count(found.equal, "blob"),
            n => format!("{} of {}", found.equal, count(found.equal + n, "blob")),
        };
        Finding {
            words: format!("{}, {part}, {}", found.word, found.started),
            is_proven: found.is_good && found.skipped == 0 && found.equal > 0,
        }
    }

    /// All drives of a job together: tone, word and sentence.
    pub fn conclude(&self, drives: &[Drive]) -> (Tone, &'static str, String) {
        let proven = drives.iter().filter(|drive| self.of(drive).is_proven).count();
        if proven == drives.len() {
            (
                Tone::Good,
                "Verified",
                format!("Every blob of {} is as its manifest says.", count(proven as u64, "drive")),
            )
        } else {
            let all = count(drives.len() as u64, "drive");
            (
                Tone::Bad,
                "Not verified",
                format!(
                    "{proven} of {all} {} proven to hold what its manifest says.",
                    if proven == 1 { "is" } else { "are" }
                ),
            )
        }
    }
}

impl Checked {
    fn of(drive: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let id = drive["manifest"]["drive_id"].as_str().or(drive["drive"]["drive_id"].as_str());
        Self {
            id: id.unwrap_or_default().to_owned(),
            manifest_md5: text(&drive["manifest"]["md5"]),
            word: text(&drive["verdict"]),
            is_good: drive["good"] == true,
            equal: drive["counts"]["equal"]["count"].as_u64().unwrap_or(0),
            skipped: drive["skipped"].as_u64().unwrap_or(0),
            started: text(&drive["started"]),
        }
    }
}
