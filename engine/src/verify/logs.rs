//! Reports of the service: copy logs of both generations, and lists of requested blobs.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::azure::Digest;
use crate::azure::bloblist::{self, Selector};
use crate::azure::copylog::{ErroredEntity, Event, LogBlob, Reader, is_success};
use crate::files::input::{self, Pipes};
use crate::report::{Kind, Problem, Problems, counted};
use crate::text;
use crate::verify::row::Taken;

/// Longest blob list or inventory that is accepted.
const LIST_LEN_MAX: u64 = 4 << 30;

/// Most pieces named of one blob.
const PIECES_SHOWN: usize = 4;

/// Entry of a copy log for a blob.
#[derive(Debug, Default)]
struct LogEntry {
    /// Path in the log's spelling, for messages.
    path: Box<str>,
    /// Key of its path on the drive.
    file: Option<u64>,
    /// Keys of the blob's path, and of its path before it was renamed.
    blobs: [Option<u64>; 2],
    /// Key of the blob's exact path.
    exact: Option<u64>,
    taken: Taken,
    /// Description of a copy that differs.
    words: Option<Box<str>>,
    length: Option<u64>,
    crc64: Option<u64>,
    /// Its blocks and their hashes, in two numbers.
    pieces: Option<Pieces>,
    /// A row of the manifest has matched it.
    met: AtomicBool,
}

/// Blocks or ranges in two numbers: one for their places, one for their hashes.
pub(super) type Pieces = (u64, u64);

/// One copy log.
#[derive(Debug, Default)]
struct Log {
    path: PathBuf,
    drive_id: Option<String>,
    status: Option<String>,
    entries: Vec<LogEntry>,
    /// Entries on containers and directories: prefix of paths, and index of the entry.
    above: Vec<(String, usize)>,
    /// It lists successful blobs too, so that unlisted ones were not copied.
    is_verbose: bool,
    total: Option<u64>,
    errored: u64,
}

/// Copy logs of any number of drives.
#[derive(Debug, Default)]
pub struct Logs(Vec<Log>);

/// One spelling for a path on the drive and a blob's path, since logs use either.
fn folded(path: &str) -> String {
    path.trim().trim_start_matches(['\\', '/']).replace('\\', "/").to_lowercase()
}

fn number(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A path as a number, to save memory: a log lists millions.
pub(super) fn key(path: &str) -> u64 {
    number(&folded(path))
}

fn exact(path: &str) -> u64 {
    number(&path.trim().trim_start_matches('/').replace('\\', "/"))
}

/// Blocks or ranges in two numbers; `None` if one of them has no MD5, or the list is empty.
pub(super) fn pieces(all: impl Iterator<Item = (u64, u64, Option<[u8; 16]>)>) -> Option<Pieces> {
    let (mut places, mut hashes, mut is_any) = (DefaultHasher::new(), DefaultHasher::new(), false);
    for (offset, length, hash) in all {
        (offset, length).hash(&mut places);
        hash?.hash(&mut hashes);
        is_any = true;
    }
    is_any.then(|| (places.finish(), hashes.finish()))
}

/// A blob's failure in words.
fn words(blob: &LogBlob) -> String {
    let mut out = format!("service: {}", blob.status);
    if let Some((wanted, became)) = blob.disposition.as_ref().filter(|(_, became)| !is_plain(became)) {
        out.push_str(&format!("; {became} ({wanted})"));
        if became == "Renamed" {
            out.push_str(&format!(": {}", blob.blob_path.trim()));
        }
    }
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

/// Whether a disposition leaves the blob under its name, with the drive's content.
fn is_plain(became: &str) -> bool {
    matches!(became, "" | "Created" | "Overwritten" | "Completed")
}

fn of_blob(blob: &LogBlob) -> LogEntry {
    let became = blob.disposition.as_ref().map_or("", |(_, became)| became.as_str());
    let taken = match became {
        _ if !blob.is_success() => Taken::Not,
        "Renamed" => Taken::Renamed,
        _ if is_plain(became) => Taken::Same,
        // Skipped, cancelled, or a word that later services have.
        _ => Taken::Not,
    };
    let md5 = |hash: Option<Digest>| match hash {
        Some(Digest::Md5(md5)) => Some(md5),
        _ => None,
    };
    let path = if blob.file_path.trim().is_empty() { &blob.blob_path } else { &blob.file_path };
    let of = |path: &str| (!path.trim().is_empty()).then(|| key(path));
    LogEntry {
        path: path.trim().into(),
        file: of(&blob.file_path),
        blobs: [of(&blob.blob_path), None],
        exact: of(&blob.blob_path).map(|_| exact(&blob.blob_path)),
        taken,
        words: (taken != Taken::Same).then(|| words(blob).into()),
        length: blob.length,
        crc64: None,
        pieces: pieces(blob.pieces.iter().map(|piece| (piece.offset, piece.length, md5(piece.hash))))
            .filter(|_| taken == Taken::Same),
        met: AtomicBool::new(false),
    }
}

fn of_entity(entity: &ErroredEntity) -> LogEntry {
    let before = entity.error_message.split_once(":from:").map(|(_, rest)| rest);
    let before = before.map(|rest| rest.split(":because").next().unwrap_or(rest).trim());
    let is_renamed = entity.category.ends_with("Renamed");
    let text = format!("service: {} {} {}", entity.category, entity.error_code, entity.error_message);
    LogEntry {
        path: entity.path.as_str().into(),
        blobs: [Some(key(&entity.path)), before.map(key)],
        taken: if is_renamed { Taken::Renamed } else { Taken::Not },
        words: Some(text.trim_end().into()),
        ..LogEntry::default()
    }
}

impl Log {
    fn add(&mut self, event: Event) {
        match event {
            Event::DriveId(id) => self.drive_id = Some(id.trim().to_owned()),
            Event::DriveStatus(status) => self.status = Some(status.trim().to_owned()),
            Event::Blob(blob) => self.entries.push(of_blob(&blob)),
            Event::Errored(entity) => {
                let is_above = !matches!(entity.kind.as_str(), "" | "File" | "Blob" | "Disk")
                    || matches!(entity.category.as_str(), "ContainerRenamed" | "ShareRenamed");
                if is_above {
                    let before = entity.error_message.split_once(":from:").map(|(_, rest)| rest);
                    let before = before.map(|rest| rest.split(":because").next().unwrap_or(rest).trim());
                    for path in [Some(entity.path.as_str()), before].into_iter().flatten() {
                        let path = folded(path);
                        self.above.push((format!("{}/", path.trim_end_matches('/')), self.entries.len()));
                    }
                }
                self.entries.push(of_entity(&entity));
            }
            Event::File(file) => self.entries.push(LogEntry {
                path: file.path.as_str().into(),
                blobs: [Some(key(&file.path)), None],
                length: file.size,
                crc64: file.crc64,
                ..LogEntry::default()
            }),
            Event::Summary(summary) => {
                self.drive_id = Some(summary.drive_id.trim().to_owned()).filter(|id| !id.is_empty());
                self.total = summary.total;
                self.errored = summary.errored.unwrap_or(0);
                self.status = Some(summary.status);
            }
            Event::Version(_) => {}
        }
    }
}

/// Paths of the blobs that a copy log says are not as they should be; nothing for a log of successes.
///
/// # Errors
/// As [`Logs::add`].
pub fn failed(path: &Path) -> Result<Vec<String>, Problem> {
    let file = input::open(path, Pipes::Taken)
        .map_err(|error| Problem::new(Kind::Usage, format!("the copy log cannot be read: {error}")).path(path))?;
    let mut reader = Reader::new(BufReader::with_capacity(1 << 20, file));
    let mut out = Vec::new();
    loop {
        let event = reader.next_event().map_err(|error| {
            Problem::new(Kind::Usage, format!("is no copy log: {}", error.what)).path(path).line(error.line)
        })?;
        match event {
            None => return Ok(out),
            Some(Event::Blob(blob)) if !blob.is_success() => out.push(blob.blob_path.trim().to_owned()),
            // Imports show a backslash behind the container.
            Some(Event::Errored(entity)) => out.push(entity.path.trim().replacen('\\', "/", 1)),
            Some(_) => {}
        }
    }
}

/// Compares ids without the blanks that tools add.
fn same_id(one: &str, other: &str) -> bool {
    let bare = |text: &str| text.split_whitespace().collect::<String>();
    bare(one).eq_ignore_ascii_case(&bare(other))
}

impl Logs {
    /// No copy logs.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds the log in a file.
    ///
    /// # Errors
    /// The file cannot be read, or is no copy log; the problem names the line.
    pub fn add(&mut self, path: &Path) -> Result<(), Problem> {
        let file = input::open(path, Pipes::Taken)
            .map_err(|error| Problem::new(Kind::Usage, format!("the copy log cannot be read: {error}")).path(path))?;
        let mut reader = Reader::new(BufReader::with_capacity(1 << 20, file));
        let mut log = Log { path: path.to_owned(), ..Log::default() };
        loop {
            let event = reader.next_event().map_err(|error| {
                Problem::new(Kind::Usage, format!("is no copy log: {}", error.what)).path(path).line(error.line)
            })?;
            match event {
                None => break,
                Some(event) => log.add(event),
            }
        }
        log.is_verbose = log.entries.iter().any(|entry| entry.taken == Taken::Same);
        self.0.push(log);
        Ok(())
    }

    /// Whether there are no logs.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn of<'a>(&'a self, drive_id: Option<&'a str>) -> impl Iterator<Item = &'a Log> {
        self.0.iter().filter(move |log| match (&log.drive_id, drive_id) {
            (Some(theirs), Some(ours)) => same_id(theirs, ours),
            _ => true,
        })
    }

    /// Whether a log that names the drive says that the service took all of it, `files` at least.
    pub fn confirms(&self, drive_id: &str, files: u64) -> bool {
        let names = |log: &&Log| log.drive_id.as_ref().is_some_and(|id| same_id(id, drive_id));
        let mut own = self.0.iter().filter(names).peekable();
        let is_whole = |log: &Log| {
            let status = log.status.as_deref().map(str::trim);
            matches!(status, Some("Completed" | "Succeeded"))
                && log.errored == 0
                && log.total.is_none_or(|total| total >= files)
                && log.entries.iter().all(|entry| matches!(entry.taken, Taken::Same | Taken::Renamed))
        };
        own.peek().is_some() && own.all(is_whole)
    }

    /// Logs of drives that are not in the list: path, and the drive.
    pub fn foreign(&self, drive_ids: &[&str]) -> Vec<(String, String)> {
        let of_other =
            |log: &&Log| log.drive_id.as_ref().is_some_and(|id| !drive_ids.iter().any(|ours| same_id(ours, id)));
        let other = self.0.iter().filter(of_other);
        other.map(|log| (log.path.display().to_string(), log.drive_id.clone().unwrap_or_default())).collect()
    }

    /// The status of a drive in the logs.
    pub(super) fn status_of(&self, drive_id: Option<&str>) -> Option<String> {
        let all: Vec<&str> = self.of(drive_id).filter_map(|log| log.status.as_deref()).collect();
        if all.is_empty() { None } else { Some(all.join(", ")) }
    }

    /// Entries of the logs on a drive as a whole that are no success. `listed`: number of blobs in its manifest.
    pub(super) fn remarks(&self, drive_id: Option<&str>, listed: u64) -> Vec<String> {
        let mut out = Vec::new();
        for log in self.of(drive_id) {
            let status = log.status.as_deref().map(str::trim).unwrap_or_default();
            if !matches!(status, "" | "Completed" | "Succeeded") {
                out.push(format!("the service's status of the drive is {status}"));
            }
            if log.errored > 0 {
                out.push(format!("the copy log counts {} with errors", counted(log.errored, "file")));
            }
            if let Some(total) = log.total.filter(|total| *total < listed) {
                out.push(format!("the copy log counts {}, the manifest lists {listed}", counted(total, "file")));
            }
        }
        out
    }

    /// The logs of a drive, for looking up its blobs.
    pub(super) fn index<'a>(&'a self, drive_id: Option<&'a str>) -> Index<'a> {
        let mut index = Index { logs: self.of(drive_id).collect(), ..Index::default() };
        for (at, log) in (0u32..).zip(&index.logs) {
            for (entry, number) in log.entries.iter().zip(0u32..) {
                index.has_crc |= entry.crc64.is_some();
                index.has_pieces |= entry.pieces.is_some();
                for key in entry.file.into_iter().chain(entry.blobs.into_iter().flatten()) {
                    let places = index.by_key.entry(key).or_default();
                    if !places.contains(&(at, number)) {
                        places.push((at, number));
                    }
                }
            }
        }
        index.is_verbose = index.logs.iter().any(|log| log.is_verbose && log.drive_id.is_some());
        index
    }

    /// Entries of logs that match no manifest: in logs of this drive, or in those that name no drive.
    pub fn strays(&self, drive_id: Option<&str>) -> Vec<String> {
        let logs = self.0.iter().filter(|log| match (&log.drive_id, drive_id) {
            (Some(theirs), Some(ours)) => same_id(theirs, ours),
            (None, None) => true,
            _ => false,
        });
        let entries = logs.flat_map(|log| &log.entries).filter(|entry| !entry.met.load(Ordering::Relaxed));
        let mut out: Vec<String> = entries
            .map(|entry| match &entry.words {
                Some(words) => format!("{}: {words}", entry.path),
                None => format!("{}: service: taken", entry.path),
            })
            .collect();
        out.sort_unstable();
        out
    }
}

/// A blob to look up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub blob: &'a str,
    pub file: &'a str,
    pub length: u64,
    pub pieces: Option<Pieces>,
    /// CRC-64 of the drive's content.
    pub crc64: Option<u64>,
}

/// The logs of one drive, indexed by the paths in them.
#[derive(Debug, Default)]
pub(super) struct Index<'a> {
    logs: Vec<&'a Log>,
    by_key: HashMap<u64, Vec<(u32, u32)>>,
    /// Whether any of them has a CRC-64, or blocks of successful blobs.
    pub has_crc: bool,
    pub has_pieces: bool,
    /// Unlisted blobs were not copied.
    is_verbose: bool,
}

impl<'a> Index<'a> {
    fn entries(&self, blob: u64, file: u64) -> Vec<&'a LogEntry> {
        let at = |key: u64| self.by_key.get(&key).into_iter().flatten();
        let entry = |(log, entry): &(u32, u32)| self.logs.get(*log as usize)?.entries.get(*entry as usize);
        let by_file: Vec<&LogEntry> = at(file).filter_map(entry).filter(|entry| entry.file == Some(file)).collect();
        // Snapshots share their blob's path: the file's path decides where there is one.
        let is_meant = |one: &&LogEntry| one.blobs.contains(&Some(blob)) && (by_file.is_empty() || one.file.is_none());
        let by_blob: Vec<&LogEntry> = at(blob).filter_map(entry).filter(is_meant).collect();
        by_file.into_iter().chain(by_blob).collect()
    }

    /// A log without a drive's name counts for this drive if it lists a blob of it.
    pub fn meet(&mut self, blob: &str, file: &str) {
        if !self.is_verbose && self.entries(key(blob), key(file)).iter().any(|entry| entry.taken == Taken::Same) {
            self.is_verbose = true;
        }
    }

    /// Marks the entries of a blob that was not requested, so that they are no strays.
    pub fn pass(&self, (blob, file): (u64, u64)) {
        self.entries(blob, file).iter().for_each(|entry| entry.met.store(true, Ordering::Relaxed));
    }

    /// Whether a log has a CRC-64 of this blob.
    pub fn wants_crc(&self, blob: &str, file: &str) -> bool {
        self.has_crc && self.entries(key(blob), key(file)).iter().any(|entry| entry.crc64.is_some())
    }

    /// Result of the logs for a blob, and its description.
    pub fn ask(&self, asked: &Asked<'_>) -> (Option<Taken>, Option<String>) {
        let mut entries = self.entries(key(asked.blob), key(asked.file));
        let path = folded(asked.blob);
        for log in &self.logs {
            let above = log.above.iter().filter(|(above, _)| path.starts_with(above.as_str()));
            entries.extend(above.filter_map(|(_, entry)| log.entries.get(*entry)));
        }
        let (mut worst, mut said): (Option<Taken>, Vec<String>) = (None, Vec::new());
        for entry in entries {
            entry.met.store(true, Ordering::Relaxed);
            let (taken, words) = judge(entry, asked);
            worst = worst.max(Some(taken));
            said.extend(words.filter(|words| !said.contains(words)));
        }
        if worst.is_none() && self.is_verbose {
            return (Some(Taken::Not), Some("service: the verbose log does not name it".to_owned()));
        }
        (worst, (!said.is_empty()).then(|| said.join("; ")))
    }
}

/// Compares an entry with the facts of the blob.
fn judge(entry: &LogEntry, asked: &Asked<'_>) -> (Taken, Option<String>) {
    let is_of_file = entry.file == Some(key(asked.file));
    let other = |what: String| (Taken::Other, Some(what));
    match entry.taken {
        Taken::Same => {}
        taken => return (taken, entry.words.as_deref().map(str::to_owned)),
    }
    if let Some(length) = entry.length.filter(|length| *length != asked.length) {
        return other(format!("service: {length} bytes, the manifest says {}", asked.length));
    }
    if let (Some((places, hashes)), Some((our_places, our_hashes))) = (entry.pieces, asked.pieces)
        && places == our_places
        && hashes != our_hashes
    {
        return other("service: its blocks have other hashes than the manifest".to_owned());
    }
    if let (Some(theirs), Some(ours)) = (entry.crc64, asked.crc64)
        && theirs != ours
    {
        return other(format!("service: CRC-64 {theirs}, what is on the drive has {ours}"));
    }
    if is_of_file && entry.exact.is_some_and(|theirs| theirs != exact(asked.blob)) {
        return (Taken::Renamed, Some("service: took it as a blob of another name".to_owned()));
    }
    (Taken::Same, None)
}

/// Blobs requested from the service.
#[derive(Debug, Default)]
pub struct Expected {
    paths: HashMap<String, bool>,
    prefixes: Vec<(String, bool)>,
}

impl Expected {
    /// Adds the blobs of a file: a blob list, an incomplete list, or an inventory in CSV.
    ///
    /// # Errors
    /// Everything that is wrong in it.
    pub fn add(&mut self, path: &Path) -> Result<(), Problems> {
        let failed =
            |error: std::io::Error| Problem::new(Kind::Usage, format!("the list cannot be read: {error}")).path(path);
        let bytes = input::read(path, LIST_LEN_MAX, Pipes::Taken).map_err(failed)?;
        let bytes = text::decode(&bytes);
        if bytes.trim_ascii_start().starts_with(b"<") {
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

    /// Whether no blob was requested.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.prefixes.is_empty()
    }

    /// Marks a blob that is on a drive.
    pub fn met(&mut self, blob: &str) {
        if let Some(met) = self.paths.get_mut(blob) {
            *met = true;
        }
        for (prefix, met) in self.prefixes.iter_mut().filter(|(_, met)| !met) {
            *met = blob.starts_with(prefix.strip_prefix('/').unwrap_or(prefix));
        }
    }

    /// Requested blobs that are on none of the drives; prefixes with their leading `/`.
    pub fn unmet(&self) -> Vec<String> {
        let paths = self.paths.iter().filter(|(_, met)| !**met).map(|(path, _)| path.clone());
        let mut out: Vec<String> =
            paths.chain(self.prefixes.iter().filter(|(_, met)| !met).map(|(prefix, _)| format!("{prefix}*"))).collect();
        out.sort_unstable();
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(events: Vec<Event>) -> Logs {
        let mut log = Log { path: "log.xml".into(), ..Log::default() };
        events.into_iter().for_each(|event| log.add(event));
        log.is_verbose = log.entries.iter().any(|entry| entry.taken == Taken::Same);
        Logs(vec![log])
    }

    fn blob(status: &str, became: &str, path: &str) -> LogBlob {
        LogBlob {
            status: status.into(),
            blob_path: path.into(),
            file_path: "\\session#1\\a".into(),
            length: Some(7),
            disposition: Some(("rename".into(), became.into())),
            ..LogBlob::default()
        }
    }

    const ASKED: Asked<'_> = Asked { blob: "box/a", file: "\\session#1\\a", length: 7, pieces: None, crc64: Some(5) };

    #[test]
    fn what_the_first_generation_says_of_a_blob_counts() {
        for (status, became, path, wanted) in [
            ("Completed", "Created", "box/a", Taken::Same),
            ("Completed", "Overwritten", "box/a", Taken::Same),
            ("Completed", "Renamed", "box/a (2)", Taken::Renamed),
            ("Completed", "Created", "box/b", Taken::Renamed),
            ("Completed", "Skipped", "box/a", Taken::Not),
            ("Completed", "Cancelled", "box/a", Taken::Not),
            ("Completed", "AWordOfLater", "box/a", Taken::Not),
            ("CompletedWithErrors", "Created", "box/a", Taken::Not),
            ("FileNotFound", "Cancelled", "box/a", Taken::Not),
            ("Failed", "", "box/a", Taken::Not),
        ] {
            let logs = log(vec![Event::Blob(Box::new(blob(status, became, path)))]);
            let (taken, words) = logs.index(None).ask(&ASKED);
            assert_eq!(taken, Some(wanted), "{status} {became} {path}");
            assert_eq!(words.is_some(), wanted != Taken::Same, "{words:?}");
            assert!(logs.strays(None).is_empty());
        }
        let longer = LogBlob { length: Some(8), ..blob("Completed", "Created", "box/a") };
        assert_eq!(log(vec![Event::Blob(Box::new(longer))]).index(None).ask(&ASKED).0, Some(Taken::Other));
    }

    #[test]
    fn length_and_crc_of_the_second_generation_are_compared() {
        let file = |path: &str, size, crc64| {
            Event::File(Box::new(crate::azure::copylog::LogFile {
                path: path.into(),
                size,
                crc64,
                ..Default::default()
            }))
        };
        for (size, crc, wanted) in [
            (Some(7), Some(5), Taken::Same),
            (Some(7), None, Taken::Same),
            (Some(8), Some(5), Taken::Other),
            (Some(7), Some(6), Taken::Other),
        ] {
            let logs = log(vec![file("box\\a", size, crc)]);
            let index = logs.index(None);
            assert_eq!(index.wants_crc("box/a", "x"), crc.is_some());
            assert_eq!(index.ask(&ASKED).0, Some(wanted), "{size:?} {crc:?}");
        }
        // A verbose log names everything that went well.
        let logs = log(vec![file("box/other", Some(1), Some(1))]);
        let mut index = logs.index(None);
        assert_eq!(index.ask(&ASKED).0, None, "a log that names no drive and nothing of this one");
        index.meet("box/other", "\\x");
        assert_eq!(index.ask(&ASKED).0, Some(Taken::Not));
        assert_eq!(logs.strays(None).len(), 1);
    }

    #[test]
    fn entities_of_the_second_generation_count_with_all_below_them() {
        let entity = |path: &str, category: &str, kind: &str, message: &str| {
            Event::Errored(Box::new(ErroredEntity {
                path: path.into(),
                category: category.into(),
                kind: kind.into(),
                error_message: message.into(),
                ..ErroredEntity::default()
            }))
        };
        for (event, wanted) in [
            (entity("box/a", "UploadErrorCloudHttp", "File", ""), Some(Taken::Not)),
            (entity("box/a", "BlobRenamed", "File", ""), Some(Taken::Renamed)),
            (
                entity("databox-1", "ContainerRenamed", "Container", "renamed to: databox-1 :from: Box :because"),
                Some(Taken::Renamed),
            ),
            (entity("box", "UploadErrorUnknownType", "Directory", ""), Some(Taken::Not)),
            (entity("bo", "UploadErrorUnknownType", "Directory", ""), None),
        ] {
            let logs = log(vec![event]);
            assert_eq!(logs.index(None).ask(&ASKED).0, wanted, "{logs:?}");
            assert_eq!(logs.strays(None).is_empty(), wanted.is_some());
        }
    }

    #[test]
    fn what_is_said_of_the_drive_counts_and_logs_of_others_are_told() {
        let summary = |status: &str, total, errored| {
            Event::Summary(Box::new(crate::azure::copylog::Summary {
                drive_id: "WD-1".into(),
                status: status.into(),
                total,
                errored,
                ..Default::default()
            }))
        };
        for (status, total, errored, remarks) in [
            ("Completed", Some(3), Some(0), 0),
            ("Succeeded", None, None, 0),
            ("CompletedWithErrors", Some(3), Some(0), 1),
            ("Completed", Some(3), Some(1), 1),
            ("Completed", Some(2), Some(0), 1),
            ("DiskNotFound", Some(0), Some(3), 3),
        ] {
            let logs = log(vec![summary(status, total, errored)]);
            assert_eq!(logs.remarks(Some("wd-1 "), 3).len(), remarks, "{status} {total:?} {errored:?}");
            assert!(logs.foreign(&["x", "WD-1"]).is_empty());
            assert_eq!(logs.foreign(&["x"]).len(), 1);
            assert!(logs.remarks(Some("x"), 3).is_empty());
        }
    }
}
