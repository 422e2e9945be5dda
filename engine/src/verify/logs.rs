//! What the service said: copy logs of both generations, and lists of what was asked of it.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use crate::azure::bloblist::{self, Selector};
use crate::azure::copylog::{Event, LogBlob, Reader, is_success};
use crate::report::{Kind, Problem, Problems};

/// Longest blob list or inventory that is taken.
const LIST_LEN_MAX: u64 = 4 << 30;

/// Pieces named of one blob.
const PIECES_SHOWN: usize = 4;

/// One copy log.
#[derive(Debug, Default)]
struct Log {
    drive_id: Option<String>,
    status: Option<String>,
    /// What failed, by path: key, what is said, how a person would find it.
    failed: Vec<(String, String)>,
    copied: u64,
}

/// Copy logs of any number of drives.
#[derive(Debug, Default)]
pub struct Logs(Vec<Log>);

/// One spelling for a path on the drive and a blob's path, since logs have either.
fn key(path: &str) -> String {
    path.trim_start_matches(['\\', '/']).replace('\\', "/").to_lowercase()
}

/// A blob's failure in words.
fn words(blob: &LogBlob) -> String {
    let mut out = format!("service: {}", blob.status);
    let bad: Vec<_> = blob.pieces.iter().filter(|piece| !is_success(&piece.status)).collect();
    for piece in bad.iter().take(PIECES_SHOWN) {
        out.push_str(&format!(
            "; bytes {} to {}: {}",
            piece.offset,
            piece.offset.saturating_add(piece.length),
            piece.status
        ));
    }
    if bad.len() > PIECES_SHOWN {
        out.push_str(&format!("; {} more", bad.len() - PIECES_SHOWN));
    }
    for (what, side) in [("metadata", &blob.metadata), ("properties", &blob.properties)] {
        if let Some(side) = side.as_ref().filter(|side| !is_success(&side.status)) {
            out.push_str(&format!("; {what}: {}", side.status));
        }
    }
    out
}

impl Logs {
    /// None.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds the log in a file.
    ///
    /// # Errors
    /// When it cannot be read or is no copy log; with the line.
    pub fn add(&mut self, path: &Path) -> Result<(), Problem> {
        let file = File::open(path)
            .map_err(|error| Problem::new(Kind::Usage, format!("the copy log cannot be read: {error}")).path(path))?;
        let mut reader = Reader::new(BufReader::with_capacity(1 << 20, file));
        let mut log = Log::default();
        loop {
            let event = reader.next_event().map_err(|error| {
                Problem::new(Kind::Usage, format!("is no copy log: {}", error.what)).path(path).line(error.line)
            })?;
            match event {
                None => break,
                Some(Event::DriveId(id)) => log.drive_id = Some(id.trim().to_owned()),
                Some(Event::DriveStatus(status)) => log.status = Some(status.trim().to_owned()),
                Some(Event::Blob(blob)) if blob.is_success() => log.copied += 1,
                Some(Event::Blob(blob)) => {
                    let path = if blob.file_path.is_empty() { &blob.blob_path } else { &blob.file_path };
                    log.failed.push((key(path), words(&blob)));
                }
                Some(Event::Errored(entity)) => {
                    let text = format!("service: {} {} {}", entity.category, entity.error_code, entity.error_message);
                    log.failed.push((key(&entity.path), text.trim_end().to_owned()));
                }
                Some(Event::File(_)) => log.copied += 1,
                Some(Event::Summary(summary)) => {
                    log.drive_id = Some(summary.drive_id.trim().to_owned()).filter(|id| !id.is_empty());
                    log.status = Some(summary.status);
                }
                Some(Event::Version(_)) => {}
            }
        }
        self.0.push(log);
        Ok(())
    }

    fn of<'a>(&'a self, drive_id: Option<&'a str>) -> impl Iterator<Item = &'a Log> {
        self.0.iter().filter(move |log| match (&log.drive_id, drive_id) {
            (Some(theirs), Some(ours)) => theirs.eq_ignore_ascii_case(ours),
            _ => true,
        })
    }

    /// The status that the logs give a drive.
    pub(super) fn status_of(&self, drive_id: Option<&str>) -> Option<String> {
        let all: Vec<&str> = self.of(drive_id).filter_map(|log| log.status.as_deref()).collect();
        if all.is_empty() { None } else { Some(all.join(", ")) }
    }

    /// Begins to join the logs of a drive with its rows.
    pub(super) fn begin<'a>(&'a self, drive_id: Option<&'a str>) -> Join<'a> {
        let mut join = Join { failed: HashMap::new(), met: HashSet::new() };
        let logs: Vec<&Log> = self.of(drive_id).collect();
        for (key, words) in logs.into_iter().flat_map(|log| &log.failed) {
            join.failed.entry(key.as_str()).or_default().push(words.as_str());
        }
        join
    }
}

/// Entries of the logs that are being joined with rows.
#[derive(Debug)]
pub(super) struct Join<'a> {
    failed: HashMap<&'a str, Vec<&'a str>>,
    met: HashSet<&'a str>,
}

impl Join<'_> {
    /// What the logs say of a blob.
    pub fn take(&mut self, blob: &str, file: &str) -> Option<String> {
        if self.failed.is_empty() {
            return None;
        }
        let found = [file, blob].into_iter().find_map(|path| self.failed.get_key_value(key(path).as_str()));
        let (key, words) = found.map(|(key, words)| (*key, words.join("; ")))?;
        self.met.insert(key);
        Some(words)
    }

    /// What named nothing of the manifest.
    pub fn rest(self) -> Vec<String> {
        let mut rest: Vec<String> = self
            .failed
            .iter()
            .filter(|(key, _)| !self.met.contains(*key))
            .map(|(key, words)| format!("{key}: {}", words.join("; ")))
            .collect();
        rest.sort_unstable();
        rest
    }
}

/// Blobs that were asked of the service.
#[derive(Debug, Default)]
pub struct Expected {
    paths: HashMap<String, bool>,
    prefixes: Vec<(String, bool)>,
}

impl Expected {
    /// Adds what a file asks for: a blob list, an incomplete list, or an inventory in CSV.
    ///
    /// # Errors
    /// Everything that is wrong in it.
    pub fn add(&mut self, path: &Path) -> Result<(), Problems> {
        let failed =
            |error: std::io::Error| Problem::new(Kind::Usage, format!("the list cannot be read: {error}")).path(path);
        let file = File::open(path).map_err(failed)?;
        let mut bytes = Vec::new();
        file.take(LIST_LEN_MAX).read_to_end(&mut bytes).map_err(failed)?;
        let start = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes).trim_ascii_start();
        if start.starts_with(b"<") {
            for selector in bloblist::read(path, &bytes[..])?.selectors {
                match selector {
                    Selector::Path(path) => {
                        self.paths.insert(path, false);
                    }
                    Selector::Prefix(prefix) => self.prefixes.push((prefix, false)),
                }
            }
        } else {
            self.paths.extend(bloblist::read_inventory(path, &bytes)?.into_iter().map(|blob| (blob.path, false)));
        }
        Ok(())
    }

    /// Whether nothing was asked for.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.prefixes.is_empty()
    }

    /// A blob that is on a drive.
    pub fn met(&mut self, blob: &str) {
        if let Some(met) = self.paths.get_mut(blob) {
            *met = true;
        }
        for (prefix, met) in self.prefixes.iter_mut().filter(|(_, met)| !met) {
            *met = blob.starts_with(prefix.strip_prefix('/').unwrap_or(prefix));
        }
    }

    /// What is on none of the drives; prefixes with their leading `/`.
    pub fn unmet(&self) -> Vec<String> {
        let paths = self.paths.iter().filter(|(_, met)| !**met).map(|(path, _)| path.clone());
        let mut out: Vec<String> =
            paths.chain(self.prefixes.iter().filter(|(_, met)| !met).map(|(prefix, _)| format!("{prefix}*"))).collect();
        out.sort_unstable();
        out
    }
}
