//! The facts of an export that its copy logs need, next to the journal: of each drive that is done, and of the blobs that
//! could not be exported. They stay until the logs are written, in whichever run that is.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::journal::files::{Sidecar, replace_private, sidecar};
use crate::ntfs::build::Tree;
use crate::plan::account::{ExportedFile, ExportedKind};
use crate::plan::batches::Batch;
use crate::plan::tree::DriveTree;
use crate::report::Problem;
use crate::request::PrepRequest;
use crate::work::list::{FileSums, unwritable};

/// A blob of an export, on a drive or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptBlob {
    /// `container/name`.
    pub path: String,
    /// Time of the snapshot, if it is one.
    pub snapshot: Option<String>,
    /// Kind; `None` where it was not looked at.
    pub kind: Option<ExportedKind>,
    /// ETag of the version that was planned.
    pub etag: Option<String>,
    /// `Last-Modified`, as the service writes it.
    pub last_modified: Option<String>,
    /// Path of its file on the drive; empty where none was planned.
    pub file_path: String,
    /// Bytes.
    pub length: u64,
    /// CRC-64/NVME of its content, if it is on the drive.
    pub crc64: Option<u64>,
    /// Reason why it is not on the drive, beginning with its status in a copy log.
    pub left_out: Option<String>,
}

const KINDS: [(ExportedKind, &str); 3] =
    [(ExportedKind::Block, "block"), (ExportedKind::Page, "page"), (ExportedKind::Append, "append")];

impl KeptBlob {
    fn line(&self) -> String {
        let kind = self.kind.and_then(|kind| KINDS.iter().find(|(other, _)| *other == kind));
        let value = json!({
            "blob": self.path, "snapshot": self.snapshot, "kind": kind.map(|(_, word)| word), "etag": self.etag,
            "last_modified": self.last_modified, "path": self.file_path, "size": self.length,
            "crc64": self.crc64.map(|crc| format!("{crc:016x}")), "left_out": self.left_out,
        });
        format!("{value}\n")
    }

    fn parse(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        let kind = text("kind").and_then(|word| KINDS.iter().find(|(_, other)| *other == word));
        Some(Self {
            path: text("blob")?,
            snapshot: text("snapshot"),
            kind: kind.map(|(kind, _)| *kind),
            etag: text("etag"),
            last_modified: text("last_modified"),
            file_path: text("path")?,
            length: value["size"].as_u64()?,
            crc64: text("crc64").and_then(|crc| u64::from_str_radix(&crc, 16).ok()),
            left_out: text("left_out"),
        })
    }
}

/// Path of what is kept of a drive.
pub fn place(journal: &Path, session: &str, drive_id: &str) -> PathBuf {
    sidecar(journal, session, Sidecar::ExportedPart(drive_id))
}

/// Path of the list of blobs that cannot be exported.
pub fn place_refused(journal: &Path, session: &str) -> PathBuf {
    sidecar(journal, session, Sidecar::Refused)
}

/// Keeps blobs at `path`.
///
/// # Errors
/// The file cannot be written.
pub fn keep(path: &Path, blobs: &[KeptBlob]) -> io::Result<()> {
    let lines: String = blobs.iter().map(KeptBlob::line).collect();
    replace_private(path, lines.as_bytes())
}

/// The blobs that are kept at `path`.
///
/// # Errors
/// The file cannot be read, or is not what [`keep`] wrote.
pub fn read(path: &Path) -> io::Result<Vec<KeptBlob>> {
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "is not a list of exported blobs");
    BufReader::new(File::open(path)?).lines().map(|line| KeptBlob::parse(&line?).ok_or_else(bad)).collect()
}

/// Keeps the facts of a drive that is filled. `outcome` is its hash log, `batches` those of the plan.
///
/// # Errors
/// The log does not fit the plan, or the file cannot be written.
pub fn keep_part(
    request: &PrepRequest,
    drive_id: &str,
    tree: &DriveTree,
    batches: impl Iterator<Item = Batch>,
    outcome: &Path,
    left_out: &BTreeMap<u32, String>,
) -> Result<(), Problem> {
    let path = place(&request.journal, &request.session, drive_id);
    let blobs = blobs_of(tree, batches, outcome, left_out);
    blobs.and_then(|blobs| keep(&path, &blobs)).map_err(|error| unwritable("blobs", &path, &error))
}

fn blobs_of(
    tree: &DriveTree,
    batches: impl Iterator<Item = Batch>,
    outcome: &Path,
    left_out: &BTreeMap<u32, String>,
) -> io::Result<Vec<KeptBlob>> {
    let mut sums = FileSums::new(File::open(outcome)?, batches);
    let mut out = Vec::new();
    for file in 0..tree.blob_count() {
        let crc = sums.of(tree, file)?;
        let Some(ExportedFile::Blob(blob)) = tree.exported_file(file) else { continue };
        let mut file_path = String::new();
        tree.drive_path(file, &mut file_path);
        let why = left_out.get(&file);
        out.push(KeptBlob {
            path: blob.path.clone(),
            snapshot: blob.snapshot.clone(),
            kind: Some(blob.kind),
            etag: Some(blob.etag.clone()),
            last_modified: Some(blob.last_modified.clone()),
            file_path,
            length: tree.file(file).len.0,
            crc64: why.is_none().then_some(crc),
            left_out: why.cloned(),
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_again() {
        let blobs = [
            KeptBlob { path: "c/\"a\n".into(), left_out: Some("Failed: x".into()), ..KeptBlob::default() },
            KeptBlob {
                path: "c/b".into(),
                snapshot: Some("2026".into()),
                kind: Some(ExportedKind::Append),
                etag: Some("\"0x1\"".into()),
                file_path: "\\c\\b".into(),
                length: 1 << 60,
                crc64: Some(u64::MAX),
                ..KeptBlob::default()
            },
        ];
        for blob in blobs {
            assert_eq!(KeptBlob::parse(blob.line().trim_end()), Some(blob));
        }
        assert_eq!(KeptBlob::parse("{}"), None);
    }
}
