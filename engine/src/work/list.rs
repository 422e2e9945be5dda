//! List of the files on each drive: source, blob, drive, path on it, length, and hashes of the data written.
//!
//! A drive that is done leaves its part next to the journal, one JSON object a line. When the run ends, the parts of all
//! drives that are done become the list that was asked for.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::checkpoint::log::{self, Frame, HEAD_LEN};
use crate::files::output::{Form, Output, Outputs};
use crate::hash;
use crate::journal::files::{Sidecar, sidecar};
use crate::ntfs::build::Tree;
use crate::plan::batches::{Batch, Content};
use crate::plan::tree::{DriveTree, FileKind};
use crate::report::{Advice, Kind, Problem, Setting};
use crate::request::PrepRequest;
use crate::work::outcome::{HashReader, WholeReader};

/// Fields of a line, in the order of the columns.
const FIELDS: [&str; 7] = ["drive_id", "source", "blob", "path", "size", "md5", "crc64"];

/// Whether a list goes into a CSV or into lines of JSON, by its name.
fn is_csv(path: &Path) -> Option<bool> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    match &*extension {
        "csv" => Some(true),
        "jsonl" | "ndjson" => Some(false),
        _ => None,
    }
}

const FORM: Form = Form {
    name: "the list",
    is_earlier: |head| head.starts_with(b"drive_id,") || head.starts_with(b"{\"drive_id\":"),
    private: false,
};

/// Begins the list: all that can be wrong with its place shows now.
///
/// # Errors
/// A name with another extension, or a place where nothing can be written.
pub fn begin(request: &PrepRequest) -> Result<Option<Output>, Problem> {
    let Some(path) = &request.list else { return Ok(None) };
    if is_csv(path).is_none() {
        let problem = Problem::new(Kind::Usage, "the list has no known extension").path(path).setting(Setting::List);
        return Err(problem.advice("end it in .csv or .jsonl"));
    }
    let mut outputs = Outputs::default();
    outputs.input(&request.journal, "the journal");
    outputs.reserve(&request.journal, "the journal");
    let inputs = [&request.initial_driveset, &request.additional_driveset, &request.dataset, &request.drive_key_file];
    inputs.into_iter().flatten().for_each(|path| outputs.input(path, "an input of the session"));
    request.reports.iter().for_each(|path| outputs.reserve(path, "the page"));
    outputs.begin(path, FORM).map(Some)
}

/// Writes a drive's part: of all files of `tree` but those left out. `outcome` is its hash log, `batches` those of the plan.
///
/// # Errors
/// When the log does not fit the plan, or the part cannot be written.
pub fn keep_part(
    request: &PrepRequest,
    drive_id: &str,
    tree: &DriveTree,
    batches: impl Iterator<Item = Batch>,
    outcome: &Path,
    left_out: &BTreeMap<u32, String>,
) -> Result<(), Problem> {
    let path = sidecar(&request.journal, &request.session, Sidecar::ListPart(drive_id));
    write_part(&path, drive_id, tree, batches, outcome, left_out).map_err(|error| unwritable("files", &path, &error))
}

/// A list of what is on a drive, which could not be written next to the journal.
pub(super) fn unwritable(of: &str, path: &Path, error: &io::Error) -> Problem {
    Problem::new(Kind::Environment, format!("the list of the drive's {of} cannot be written: {error}"))
        .path(path)
        .advice(Advice::from("make room on the journal's disk, then continue with ") + Setting::Resume)
}

fn write_part(
    path: &Path,
    drive_id: &str,
    tree: &DriveTree,
    batches: impl Iterator<Item = Batch>,
    outcome: &Path,
    left_out: &BTreeMap<u32, String>,
) -> io::Result<()> {
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let mut md5s = WholeReader::new(HashReader::new(File::open(outcome)?));
    let mut sums = FileSums::new(File::open(outcome)?, batches);
    let (mut blob, mut on_drive) = (String::new(), String::new());
    for file in 0..tree.blob_count() {
        let crc = sums.of(tree, file)?;
        if left_out.contains_key(&file) {
            continue;
        }
        let FileKind::Blob(index) = tree.kind(file) else { continue };
        tree.catalog().blob_path(index, &mut blob);
        tree.drive_path(file, &mut on_drive);
        let line = json!({
            "drive_id": drive_id,
            "source": tree.source_path(file).to_string_lossy(),
            "blob": if tree.is_volume() { "" } else { &blob },
            "path": on_drive,
            "size": tree.file(file).len.0,
            "md5": hash::hex_upper(&md5s.md5(tree, file)?).to_lowercase(),
            "crc64": format!("{crc:016x}"),
        });
        writeln!(out, "{line}")?;
    }
    out.flush()?;
    out.get_ref().sync_all()
}

/// CRC-64 of each file out of those of its parts, which the log tells batch by batch.
pub(super) struct FileSums<B> {
    log: BufReader<File>,
    batches: B,
    /// Parts that were read and not asked for: file, length, checksum.
    parts: std::collections::VecDeque<(u32, u64, u64)>,
}

impl<B: Iterator<Item = Batch>> FileSums<B> {
    pub(super) fn new(log: File, batches: B) -> Self {
        Self { log: BufReader::with_capacity(1 << 20, log), batches, parts: Default::default() }
    }

    /// Of a file that lies behind all that were asked for.
    pub(super) fn of(&mut self, tree: &DriveTree, file: u32) -> io::Result<u64> {
        let (mut crc, mut left) = (hash::crc64(&[]), tree.file(file).len.0);
        while left > 0 {
            let Some((of, len, part)) = self.parts.pop_front() else {
                self.next_batch()?;
                continue;
            };
            if of == file {
                (crc, left) = (hash::crc64_combine(crc, part, len), left.saturating_sub(len));
            }
        }
        Ok(crc)
    }

    fn next_batch(&mut self) -> io::Result<()> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let batch = self.batches.next().ok_or_else(|| bad("the hash log holds more than the plan"))?;
        let Content::Files(parts) = batch.content else { return Ok(()) };
        let parts: Vec<_> = parts.iter().filter(|part| part.len > 0).collect();
        if parts.is_empty() {
            return Ok(());
        }
        let sums = self.next_sums()?;
        if sums.len() != parts.len() {
            return Err(bad("the hash log is not that of the plan"));
        }
        self.parts.extend(parts.into_iter().zip(sums).map(|(part, sum)| (part.file, u64::from(part.len), sum)));
        Ok(())
    }

    fn next_sums(&mut self) -> io::Result<Vec<u64>> {
        let bad = |fault| io::Error::new(io::ErrorKind::InvalidData, fault);
        loop {
            let mut head = [0; HEAD_LEN];
            self.log.read_exact(&mut head)?;
            let mut body = vec![0; log::body_len(&head).map_err(bad)?];
            self.log.read_exact(&mut body)?;
            if let Frame::Parts { sums, .. } = log::decode(&head, &body).map_err(bad)? {
                return Ok(sums);
            }
        }
    }
}

/// Makes the list of the parts that are there, and removes them if `is_last`.
///
/// # Errors
/// When a part cannot be read, or the list not be written.
pub fn finish(mut list: Output, request: &PrepRequest, drive_ids: &[String], is_last: bool) -> Result<(), Problem> {
    let path = request.list.clone().unwrap_or_default();
    let csv = is_csv(&path).unwrap_or(false);
    if csv {
        list.add(format!("{}\n", FIELDS.join(",")).as_bytes())?;
    }
    let parts: Vec<PathBuf> = drive_ids
        .iter()
        .map(|drive_id| sidecar(&request.journal, &request.session, Sidecar::ListPart(drive_id)))
        .filter(|path| path.exists())
        .collect();
    for part in &parts {
        let cannot = |error: io::Error| {
            Problem::new(Kind::Environment, format!("a part of the list cannot be read: {error}")).path(part)
        };
        for line in BufReader::with_capacity(1 << 20, File::open(part).map_err(cannot)?).lines() {
            let line = line.map_err(cannot)?;
            match csv {
                true => list.add(row(&line).map_err(cannot)?.as_bytes())?,
                false => list.add(format!("{line}\n").as_bytes())?,
            }
        }
    }
    list.finish()?;
    if is_last {
        parts.iter().for_each(|part| drop(fs::remove_file(part)));
    }
    Ok(())
}

/// A line as a row of a CSV (RFC 4180).
fn row(line: &str) -> io::Result<String> {
    let value: Value = serde_json::from_str(line)?;
    let mut out = String::with_capacity(line.len());
    for (i, field) in FIELDS.iter().enumerate() {
        let text = match &value[*field] {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => String::new(),
        };
        if i > 0 {
            out.push(',');
        }
        if text.contains([',', '"', '\n', '\r']) {
            out.push_str(&format!("\"{}\"", text.replace('"', "\"\"")));
        } else {
            out.push_str(&text);
        }
    }
    out.push('\n');
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_quoted_where_they_must_be() {
        let line =
            r#"{"drive_id":"D1","source":"/a/b,c","blob":"x/\"y\"","path":"\\s\\x","size":7,"md5":"00","crc64":"ff"}"#;
        assert_eq!(row(line).expect("a row"), "D1,\"/a/b,c\",\"x/\"\"y\"\"\",\\s\\x,7,00,ff\n");
    }
}
