//! Journal records: the form of the only two public samples (docs/spec/import-export.md#journal-grammar), with a
//! checksum added by dray.
//!
//! ```text
//! [BeginUpdateRecord][2016/10/01 21:10:21.379][Type:ActivityRecord]
//! ActivityId: DriveInfo
//! DriveState: [BeginValue]
//! <Drive>…
//! [EndValue]
//! SaveCommandOutput: Completed
//! Checksum: 0123456789ABCDEF
//! [EndUpdateRecord]
//! ```
//!
//! `Checksum` is the CRC-64/NVME of the previous checksum (eight bytes, little-endian; zero at first) and of all bytes
//! since the line with that one, up to its own line. So a changed, lost or moved record can be told from one that was
//! cut off while it was appended: only the last record can be that.

use std::fmt;

use zeroize::Zeroizing;

use crate::hash::{self, Crc64};
use crate::units::FileTime;

const BEGIN: &str = "[BeginUpdateRecord]";
const END: &str = "[EndUpdateRecord]";
const VALUE: &str = "[BeginValue]";
const VALUE_END: &str = "[EndValue]";
/// Line ends as Windows programs write them; they are not documented, and both forms are read.
const EOL: &str = "\r\n";

/// `VocabularyVersion` of the published journal.
pub const VOCABULARY: &str = "2013-02-01";

/// Name of the field that seals a record and everything before it.
const CHECKSUM: &str = "Checksum";

/// `ActivityId` of a session's options.
pub const CONTEXT: &str = "PrepImportDriveCommandContext";
/// `ActivityId` of a drive record.
pub const DRIVE_INFO: &str = "DriveInfo";
/// `ActivityId` of a copy session's state: ours, since Microsoft's is not public.
pub const SESSION: &str = "DrayCopySession";
/// `ActivityId` of one drive's state in a session: ours.
pub const DRIVE: &str = "DrayDrive";

/// Type of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind<'a> {
    /// First of a journal.
    NewJournalFile,
    /// An activity of a session.
    ActivityRecord,
    /// Another type; more than these two surely exist.
    Other(&'a str),
}

impl<'a> RecordKind<'a> {
    const fn as_str(self) -> &'a str {
        match self {
            Self::NewJournalFile => "NewJournalFile",
            Self::ActivityRecord => "ActivityRecord",
            Self::Other(name) => name,
        }
    }
}

/// A record as it was read. Values may be keys, so they stay in the caller's buffer and are not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Record<'a> {
    /// Byte offset of its start.
    pub offset: usize,
    /// Line of its start, from 1.
    pub line: u64,
    /// `2016/10/01 21:10:21.379`; the time zone is not documented, ours is UTC.
    pub stamp: &'a str,
    /// Type of the record.
    pub kind: RecordKind<'a>,
    /// Names and values in order; a value of several lines keeps its line ends, without the last.
    pub fields: Vec<(&'a str, &'a str)>,
    /// Byte offsets of the line with its checksum.
    sealed_at: Option<(usize, usize)>,
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.fields.iter().map(|(name, _)| name).collect();
        f.debug_struct("Record").field("line", &self.line).field("kind", &self.kind).field("fields", &names).finish()
    }
}

impl<'a> Record<'a> {
    /// The first value of this name.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.fields.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }

    /// `ActivityId` of an activity record.
    pub fn activity(&self) -> Option<&'a str> {
        if self.kind == RecordKind::ActivityRecord { self.get("ActivityId") } else { None }
    }
}

/// A place that should hold a record and does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Byte offset of its start.
    pub offset: usize,
    /// Line of its start, from 1.
    pub line: u64,
    /// The fault, as the end of a sentence about the record.
    pub what: &'static str,
}

/// A journal as it was read.
#[derive(Clone, Debug, Default)]
pub struct Journal<'a> {
    /// Records that are complete, in file order.
    pub records: Vec<Record<'a>>,
    /// Offset of a last record that was cut off while it was appended: truncate the file to this length and continue.
    /// No record before it is affected.
    pub torn: Option<usize>,
    /// Damage that no interrupted append explains.
    pub damage: Vec<Damage>,
    /// The chain from which the next record's checksum continues, at the end or at [`Journal::torn`].
    pub chain: Chain,
}

/// The checksums of a journal, from record to record.
#[derive(Clone, Debug)]
pub struct Chain {
    open: Crc64,
    /// Whether any record has one.
    begun: bool,
}

impl Default for Chain {
    fn default() -> Self {
        Self::after(0, false)
    }
}

impl Chain {
    fn after(checksum: u64, begun: bool) -> Self {
        let mut open = Crc64::new();
        open.update(&checksum.to_le_bytes());
        Self { open, begun }
    }

    /// Includes bytes without a checksum of their own.
    pub fn pass(&mut self, bytes: &[u8]) {
        self.open.update(bytes);
    }

    /// The record with its checksum. Append it at once, or rebuild the chain from the file.
    pub fn seal(&mut self, record: &[u8]) -> Zeroizing<Vec<u8>> {
        let end = [END, EOL].concat();
        let body = record.strip_suffix(end.as_bytes()).unwrap_or(record);
        self.open.update(body);
        let checksum = self.open.value();
        *self = Self::after(checksum, true);
        self.pass(end.as_bytes());
        let line = format!("{CHECKSUM}: {checksum:016X}{EOL}{end}");
        let mut out = Zeroizing::new(Vec::with_capacity(body.len() + line.len()));
        out.extend_from_slice(body);
        out.extend_from_slice(line.as_bytes());
        out
    }
}

/// Reads a journal; never fails, whatever the bytes. Text that is not UTF-8 is damage.
pub fn read(input: &[u8]) -> Journal<'_> {
    let mut out = Journal::default();
    let at = if input.starts_with(&[0xEF, 0xBB, 0xBF]) { 3 } else { 0 };
    let mut scanner = Scanner { input, at, line: 1, chain_from: 0 };
    let mut chain = Chain::default();
    let mut good = (0, 0, Chain::default());
    while let Some(start) = scanner.skip_blank() {
        let line = scanner.line;
        let result = scanner.record(start).and_then(|record| {
            let before = scanner.chain_from;
            match record.sealed_at {
                Some((at, end)) => {
                    chain.pass(&input[before..at]);
                    let fits = record.get(CHECKSUM).is_some_and(|text| text == format!("{:016X}", chain.open.value()));
                    let stated = record.get(CHECKSUM).and_then(|text| u64::from_str_radix(text, 16).ok());
                    chain = Chain::after(stated.unwrap_or(0), true);
                    scanner.chain_from = end;
                    if fits { Ok(record) } else { Err(Broken::Damaged(CHECKSUM_WRONG)) }
                }
                None if chain.begun && matches!(record.activity(), Some(SESSION | DRIVE)) => {
                    Err(Broken::Damaged("bears no checksum"))
                }
                None => Ok(record),
            }
        });
        match result {
            Ok(record) => {
                good = (scanner.at, scanner.chain_from, chain.clone());
                out.records.push(record);
            }
            // The file had grown and not all of it was written when the power went: that is still a cut append.
            Err(Broken::Damaged(CHECKSUM_WRONG)) if scanner.is_at_end() && !out.records.is_empty() => {
                out.torn = Some(start);
                break;
            }
            Err(Broken::Torn) => {
                out.torn = Some(start);
                break;
            }
            Err(Broken::Damaged(what)) => {
                out.damage.push(Damage { offset: start, line, what });
                if out.damage.len() >= crate::limits::FAULTS_MAX {
                    break;
                }
                if what != CHECKSUM_WRONG {
                    scanner.resync();
                }
            }
        }
    }
    let (end, chain_from, chain) = good;
    out.chain = chain;
    out.chain.pass(&input[chain_from..end.max(out.torn.unwrap_or(input.len()))]);
    out
}

const CHECKSUM_WRONG: &str = "has another checksum than its contents";

enum Broken {
    /// The file ends before the record does.
    Torn,
    Damaged(&'static str),
}

struct Scanner<'a> {
    input: &'a [u8],
    at: usize,
    line: u64,
    /// Offset of the first byte not covered by a checksum yet.
    chain_from: usize,
}

impl<'a> Scanner<'a> {
    /// The next line without its end, and whether it had one.
    fn take_line(&mut self) -> Option<(&'a [u8], bool)> {
        let rest = &self.input[self.at..];
        if rest.is_empty() {
            return None;
        }
        let (line, ended) = match rest.iter().position(|b| *b == b'\n') {
            Some(end) => (&rest[..end], true),
            None => (rest, false),
        };
        self.at += line.len() + usize::from(ended);
        self.line += u64::from(ended);
        Some((line.strip_suffix(b"\r").unwrap_or(line), ended))
    }

    /// Passes over blank lines; the offset of the next line that is not.
    fn skip_blank(&mut self) -> Option<usize> {
        loop {
            let (at, line) = (self.at, self.line);
            let (text, _) = self.take_line()?;
            if !text.trim_ascii().is_empty() {
                (self.at, self.line) = (at, line);
                return Some(at);
            }
        }
    }

    /// Passes over lines up to one that begins a record.
    fn resync(&mut self) {
        while self.at < self.input.len() && !self.input[self.at..].starts_with(BEGIN.as_bytes()) {
            self.take_line();
        }
    }

    fn is_at_end(&self) -> bool {
        self.input[self.at..].trim_ascii().is_empty()
    }

    fn record(&mut self, offset: usize) -> Result<Record<'a>, Broken> {
        let first_line = self.line;
        let head = self.text()?;
        let Some(rest) = head.strip_prefix(BEGIN) else {
            return Err(Broken::Damaged("line is outside of any record"));
        };
        let parsed = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')).and_then(|(stamp, rest)| {
            let kind = rest.trim().strip_prefix("[Type:")?.strip_suffix(']')?.trim();
            Some((stamp, kind))
        });
        let Some((stamp, kind)) = parsed else {
            return Err(Broken::Damaged("head of the record is not in its form"));
        };
        let kind = match kind {
            "NewJournalFile" => RecordKind::NewJournalFile,
            "ActivityRecord" => RecordKind::ActivityRecord,
            other => RecordKind::Other(other),
        };
        let mut fields = Vec::new();
        let mut sealed_at = None;
        loop {
            self.refuse_new_record()?;
            let line_at = self.at;
            let line = self.text()?;
            if line.trim() == END {
                return Ok(Record { offset, line: first_line, stamp, kind, fields, sealed_at });
            }
            if line.trim().is_empty() {
                continue;
            }
            let Some((name, value)) = line.split_once(':') else {
                return Err(Broken::Damaged("field has no name"));
            };
            let value = value.strip_prefix(' ').unwrap_or(value);
            if name == CHECKSUM && sealed_at.is_some() {
                return Err(Broken::Damaged("bears two checksums"));
            }
            if name == CHECKSUM {
                sealed_at = Some((line_at, self.at));
            }
            if value.trim() == VALUE {
                fields.push((name.trim(), self.long_value()?));
            } else {
                fields.push((name.trim(), value));
            }
        }
    }

    /// The lines up to `[EndValue]`, unchanged.
    fn long_value(&mut self) -> Result<&'a str, Broken> {
        let from = self.at;
        loop {
            self.refuse_new_record()?;
            let to = self.at;
            let line = self.text()?;
            if line.trim() == VALUE_END {
                let text = std::str::from_utf8(&self.input[from..to]).map_err(|_| Broken::Damaged(NOT_UTF8))?;
                let text = text.strip_suffix('\n').unwrap_or(text);
                return Ok(text.strip_suffix('\r').unwrap_or(text));
            }
        }
    }

    /// A record that begins within another: the other was never finished. Left for [`Scanner::resync`].
    fn refuse_new_record(&self) -> Result<(), Broken> {
        if self.input[self.at..].starts_with(BEGIN.as_bytes()) {
            return Err(Broken::Damaged("record has no end; another begins within it"));
        }
        Ok(())
    }

    /// A line as text. A last line without end may be cut anywhere: torn, unless it is a whole `[EndUpdateRecord]`.
    fn text(&mut self) -> Result<&'a str, Broken> {
        let Some((line, ended)) = self.take_line() else { return Err(Broken::Torn) };
        if !ended && line.trim_ascii() != END.as_bytes() {
            return Err(Broken::Torn);
        }
        // After a crash, a file system that had extended the file without writing it leaves zeros at its end.
        if line.contains(&0) && self.input[self.at - line.len()..].iter().all(|b| *b == 0) {
            return Err(Broken::Torn);
        }
        std::str::from_utf8(line).map_err(|_| Broken::Damaged(NOT_UTF8))
    }
}

const NOT_UTF8: &str = "is not UTF-8";

/// Reason why a record cannot be written: its values would not be read back unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Name with a colon, bracket, blank at an end, or line end.
    #[error("{0:?} cannot be the name of a journal field")]
    Name(String),
    /// Value with a line that is part of the form.
    #[error("the value of {0} holds a line that is part of the journal's form")]
    Value(String),
}

/// A record as bytes, ready to be appended and fsynced. `stamp` is written as UTC. Wiped on drop, since a field may be a
/// key.
///
/// # Errors
/// A name or value does not fit the form.
pub fn record(
    stamp: FileTime,
    kind: RecordKind<'_>,
    fields: &[(&str, &str)],
) -> Result<Zeroizing<Vec<u8>>, WriteError> {
    // Counted first, so that growing leaves no copy of a value behind.
    let long = |value: &str| value.contains(['\r', '\n']) || value.starts_with(VALUE);
    let lines = |value: &str| value.bytes().filter(|b| *b == b'\n').count();
    let fixed = BEGIN.len() + END.len() + kind.as_str().len() + 64;
    let field_len =
        |(name, value): &(&str, &str)| name.len() + value.len() + lines(value) + VALUE.len() + VALUE_END.len() + 16;
    let capacity = fixed + fields.iter().map(field_len).sum::<usize>();
    let mut out = Zeroizing::new(Vec::with_capacity(capacity));
    let mut push = |parts: &[&str]| parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
    push(&[BEGIN, "[", &format_stamp(stamp), "][Type:", kind.as_str(), "]", EOL]);
    for (name, value) in fields {
        let good = !name.is_empty() && name.trim() == *name && !name.contains([':', '[', ']', '\r', '\n']);
        if !good {
            return Err(WriteError::Name((*name).into()));
        }
        if value.lines().any(|line| line.starts_with(BEGIN) || [VALUE_END, END].contains(&line.trim())) {
            return Err(WriteError::Value((*name).into()));
        }
        if long(value) {
            push(&[name, ": ", VALUE, EOL]);
            value.lines().for_each(|line| push(&[line, EOL]));
            push(&[VALUE_END, EOL]);
        } else {
            push(&[name, ": ", value, EOL]);
        }
    }
    push(&[END, EOL]);
    debug_assert!(out.len() <= capacity);
    Ok(out)
}

/// The first record of a journal.
pub fn new_journal(stamp: FileTime) -> Vec<u8> {
    match record(stamp, RecordKind::NewJournalFile, &[("VocabularyVersion", VOCABULARY)]) {
        Ok(bytes) => bytes.to_vec(),
        Err(_) => unreachable!("constant fields fit the form"),
    }
}

/// An activity record.
///
/// # Errors
/// As [`record`].
pub fn activity(stamp: FileTime, id: &str, fields: &[(&str, &str)]) -> Result<Zeroizing<Vec<u8>>, WriteError> {
    let mut all = vec![("ActivityId", id)];
    all.extend_from_slice(fields);
    record(stamp, RecordKind::ActivityRecord, &all)
}

/// State of a copy session. Defined by dray: Microsoft's records of this are not public.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// Started, and neither finished nor rolled back.
    Started,
    /// Every drive is finished.
    Completed,
    /// Ended early; can be resumed.
    Interrupted,
    /// Being rolled back: from here on it can only be aborted.
    Aborting,
    /// Rolled back completely.
    Aborted,
    /// A drive whose files were moved to others.
    GivenUp,
}

impl SessionState {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Started, "Started"),
        (Self::Completed, "Completed"),
        (Self::Interrupted, "Interrupted"),
        (Self::Aborting, "Aborting"),
        (Self::Aborted, "Aborted"),
        (Self::GivenUp, "GivenUp"),
    ];

    /// Spelling in the journal.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(state, _)| *state == self).map_or("", |(_, name)| name)
    }

    /// From the journal's spelling.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, name)| *name == text).map(|(state, _)| *state)
    }
}

/// Kind of work on a drive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Work {
    /// Erases it and writes a new volume.
    #[default]
    Format,
    /// Adds files to its existing volume.
    Append,
    /// Indexes files already on it (`/skipwrite`).
    Index,
    /// Encrypts its existing volume in place, and adds files.
    Encrypt,
}

impl Work {
    const ALL: [(Self, &'static str); 4] =
        [(Self::Format, "Format"), (Self::Append, "Append"), (Self::Index, "Index"), (Self::Encrypt, "Encrypt")];

    /// Spelling in the journal.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(work, _)| *work == self).map_or("", |(_, name)| name)
    }

    /// From the journal's spelling.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, name)| *name == text).map(|(work, _)| *work)
    }
}

/// Further facts of a drive; values missing in a record keep those of an earlier one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriveDetails<'a> {
    /// Name of the drive in the driveset: `/dev/…`, `serial:…`, or the path of an image.
    pub name: Option<&'a str>,
    /// Bytes of the device.
    pub size: Option<u64>,
    /// Whether it is hardware that the service would accept.
    pub for_shipping: Option<bool>,
    /// Files of the session on it.
    pub files: Option<u64>,
    /// Bytes of those files.
    pub data: Option<u64>,
    /// Upper-case hex MD5 of its manifest.
    pub manifest_hash: Option<&'a str>,
    /// Path of its manifest.
    pub manifest_file: Option<&'a str>,
    /// Check value of the key in its record: [`super::drive_record::key_check`].
    pub key_check: Option<&'a str>,
    /// Index among the drives of the session, in the order given.
    pub place: Option<u64>,
}

/// The durable beginning of the session's plan file. Data after it was never acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanMark {
    /// Length of the durable beginning in bytes.
    pub len: u64,
    /// SHA-256 of those bytes.
    pub digest: [u8; 32],
}

impl PlanMark {
    fn parse(len: &str, digest: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if digest.len() != 64 || !digest.is_ascii() {
            return None;
        }
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digest[2 * i..2 * i + 2], 16).ok()?;
        }
        Some(Self { len: len.parse().ok()?, digest: bytes })
    }
}

/// Typed contents of dray's records. Borrowed from the journal when read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivityRecord<'a> {
    /// Options of the command; documented.
    Context {
        /// `LogDirectory`.
        log_directory: &'a str,
    },
    /// A copy session changed its state.
    Session {
        /// Id of the session.
        id: &'a str,
        /// State of the session from here on.
        state: SessionState,
        /// Valid part of the session's plan file from here on; `None`: unchanged.
        plan: Option<PlanMark>,
    },
    /// A drive of a session changed its state.
    Drive {
        /// Id of the session that writes the drive.
        session: &'a str,
        /// Drive id, as in the drive record.
        drive_id: &'a str,
        /// State of the drive in that session from here on.
        state: SessionState,
        /// Name of its drive record file.
        record_file: &'a str,
        /// Kind of work on it.
        work: Work,
        /// Size, files and hash, as far as they are known.
        details: DriveDetails<'a>,
    },
}

impl<'a> ActivityRecord<'a> {
    /// The record as bytes to append.
    ///
    /// # Errors
    /// As [`record`].
    pub fn encode(&self, stamp: FileTime) -> Result<Zeroizing<Vec<u8>>, WriteError> {
        match *self {
            Self::Context { log_directory } => activity(stamp, CONTEXT, &[("LogDirectory", log_directory)]),
            Self::Session { id, state, plan } => {
                let mut fields = vec![("SessionId", id), ("SessionState", state.as_str())];
                let plan = plan.map(|plan| (plan.len.to_string(), hash::hex_upper(&plan.digest)));
                if let Some((len, digest)) = &plan {
                    fields.extend([("PlanLength", len.as_str()), ("PlanDigest", digest.as_str())]);
                }
                activity(stamp, SESSION, &fields)
            }
            Self::Drive { session, drive_id, state, record_file, work, details } => {
                let number = |value: Option<u64>| value.map(|value| value.to_string());
                let numbers = [("DriveSize", number(details.size)), ("FileCount", number(details.files))];
                let numbers = numbers.into_iter().chain([("DataLength", number(details.data))]);
                let numbers = numbers.chain([("DrivePlace", number(details.place))]);
                let numbers: Vec<(&str, String)> =
                    numbers.filter_map(|(name, value)| value.map(|value| (name, value))).collect();
                let mut fields = vec![
                    ("SessionId", session),
                    ("DriveId", drive_id),
                    ("DriveState", state.as_str()),
                    ("DriveRecord", record_file),
                    ("DriveWork", work.as_str()),
                ];
                fields.extend(details.name.map(|name| ("DriveName", name)));
                fields.extend(details.for_shipping.map(|yes| ("ForShipping", if yes { "Yes" } else { "No" })));
                fields.extend(numbers.iter().map(|(name, value)| (*name, value.as_str())));
                fields.extend(details.manifest_hash.map(|hash| ("ManifestHash", hash)));
                fields.extend(details.manifest_file.map(|path| ("ManifestFile", path)));
                fields.extend(details.key_check.map(|check| ("KeyCheck", check)));
                activity(stamp, DRIVE, &fields)
            }
        }
    }

    /// From a record; `None` for unknown ones.
    pub fn from_record(record: &Record<'a>) -> Option<Self> {
        match record.activity()? {
            CONTEXT => Some(Self::Context { log_directory: record.get("LogDirectory")? }),
            SESSION => Some(Self::Session {
                id: record.get("SessionId")?,
                state: SessionState::parse(record.get("SessionState")?)?,
                plan: match (record.get("PlanLength"), record.get("PlanDigest")) {
                    (Some(len), Some(digest)) => PlanMark::parse(len, digest),
                    _ => None,
                },
            }),
            DRIVE => Some(Self::Drive {
                session: record.get("SessionId")?,
                drive_id: record.get("DriveId")?,
                state: SessionState::parse(record.get("DriveState")?)?,
                record_file: record.get("DriveRecord")?,
                work: record.get("DriveWork").map_or(Some(Work::Format), Work::parse)?,
                details: DriveDetails {
                    name: record.get("DriveName"),
                    size: record.get("DriveSize").and_then(|text| text.parse().ok()),
                    for_shipping: record.get("ForShipping").map(|text| text == "Yes"),
                    files: record.get("FileCount").and_then(|text| text.parse().ok()),
                    data: record.get("DataLength").and_then(|text| text.parse().ok()),
                    manifest_hash: record.get("ManifestHash"),
                    manifest_file: record.get("ManifestFile"),
                    key_check: record.get("KeyCheck"),
                    place: record.get("DrivePlace").and_then(|text| text.parse().ok()),
                },
            }),
            _ => None,
        }
    }
}

/// `2016/10/01 21:10:21.379` in UTC.
fn format_stamp(stamp: FileTime) -> String {
    let (seconds, nanos) = stamp.to_unix();
    // FileTime's years, 1601 to 30828, exceed jiff's 9999: later ones saturate.
    let time = jiff::Timestamp::new(seconds, nanos as i32).unwrap_or(jiff::Timestamp::MAX);
    let time = jiff::tz::Offset::UTC.to_datetime(time);
    format!(
        "{:04}/{:02}/{:02} {:02}:{:02}:{:02}.{:03}",
        time.year(),
        time.month(),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.millisecond()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: FileTime = FileTime(131_198_298_213_790_000);

    /// The two published samples (docs/spec/import-export.md#journal-grammar), with keys of no real account.
    const SAMPLE: &str = "[BeginUpdateRecord][2016/11/01 21:22:25.379][Type:ActivityRecord]\r\n\
        ActivityId: DriveInfo\r\n\
        DriveState: [BeginValue]\r\n\
        <Drive>\r\n   <DriveId>drive-id</DriveId>\r\n   <BitLockerKey>*******</BitLockerKey>\r\n   \
        <ManifestFile>\\DriveManifest.xml</ManifestFile>\r\n   \
        <ManifestHash>D863FE44F861AE0DA4DCEAEEFFCCCE68</ManifestHash>\r\n</Drive>\r\n\
        [EndValue]\r\nSaveCommandOutput: Completed\r\n[EndUpdateRecord]\r\n";
    const JRN: &str = "[BeginUpdateRecord][2016/11/02 23:22:25.379][Type:NewJournalFile]\n\
        VocabularyVersion: 2013-02-01\n[EndUpdateRecord]\n\
        [BeginUpdateRecord][2016/11/02 23:22:25.749][Type:ActivityRecord]\n\
        ActivityId: PrepImportDriveCommandContext\nLogDirectory: F:\\logs\n[EndUpdateRecord]\n\
        [BeginUpdateRecord][2016/11/02 23:22:25.754][Type:ActivityRecord]\n\
        ActivityId: PrepImportDriveCommandContext\nStorageAccountKey: *******\n[EndUpdateRecord]\n";

    #[test]
    fn published_samples_are_read() {
        let journal = read(SAMPLE.as_bytes());
        assert_eq!((journal.records.len(), journal.torn, journal.damage.len()), (1, None, 0));
        assert_eq!(journal.records[0].activity(), Some("DriveInfo"));
        let state = journal.records[0].get("DriveState").unwrap();
        assert!(state.starts_with("<Drive>") && state.ends_with("</Drive>"));
        assert_eq!(journal.records[0].get("SaveCommandOutput"), Some("Completed"));
        let journal = read(JRN.as_bytes());
        assert_eq!((journal.records.len(), journal.torn, journal.damage.len()), (3, None, 0));
        assert_eq!(journal.records[0].kind, RecordKind::NewJournalFile);
        assert_eq!(journal.records[0].get("VocabularyVersion"), Some(VOCABULARY));
        assert_eq!(
            ActivityRecord::from_record(&journal.records[1]),
            Some(ActivityRecord::Context { log_directory: "F:\\logs" })
        );
        assert_eq!(journal.records[1].stamp, "2016/11/02 23:22:25.749");
    }

    #[test]
    fn records_have_the_published_form_word_for_word() {
        let stamp = FileTime::from_unix(1_478_128_945, 379_000_000);
        let wanted = JRN.split_inclusive("[EndUpdateRecord]\n").next().unwrap().replace('\n', "\r\n");
        assert_eq!(String::from_utf8(new_journal(stamp)).unwrap(), wanted);
        let stamp = FileTime::from_unix(1_478_035_345, 379_000_000);
        let xml = SAMPLE.split_once("[BeginValue]\r\n").unwrap().1.split_once("\r\n[EndValue]").unwrap().0;
        let ours = activity(stamp, DRIVE_INFO, &[("DriveState", xml), ("SaveCommandOutput", "Completed")]).unwrap();
        assert_eq!(std::str::from_utf8(&ours).unwrap(), SAMPLE);
    }

    #[test]
    fn every_cut_of_the_last_record_is_torn_not_damaged() {
        let mut bytes = new_journal(T);
        let whole = bytes.len();
        let drive = ActivityRecord::Drive {
            session: "session#1",
            drive_id: "9WM35C2V",
            state: SessionState::Started,
            record_file: "9WM35C2V.xml",
            work: Work::Format,
            details: DriveDetails {
                name: Some("/dev/sdb"),
                size: Some(4 << 40),
                manifest_file: Some("\\DriveManifest.xml"),
                key_check: Some("0123456789ABCDEF"),
                place: Some(3),
                ..DriveDetails::default()
            },
        };
        bytes.extend_from_slice(&drive.encode(T).unwrap());
        assert_eq!(ActivityRecord::from_record(&read(&bytes).records[1]), Some(drive));
        let end = bytes.len() - EOL.len();
        for cut in whole + 1..end {
            let journal = read(&bytes[..cut]);
            assert_eq!((journal.records.len(), journal.torn, journal.damage.len()), (1, Some(whole), 0), "{cut}");
            let mut zeros = bytes[..cut].to_vec();
            zeros.resize(bytes.len() + 100, 0);
            let journal = read(&zeros);
            assert_eq!((journal.records.len(), journal.torn, journal.damage.len()), (1, Some(whole), 0), "zeros {cut}");
        }
        assert_eq!(read(&bytes[..whole]).torn, None);
        assert_eq!(read(&bytes[..end]).records.len(), 2);
    }

    /// A journal as dray writes it: four sealed records after the first.
    fn sealed() -> (Vec<u8>, Vec<usize>) {
        let mut bytes = new_journal(T);
        let mut ends = vec![bytes.len()];
        let mut chain = Chain::default();
        chain.pass(&bytes);
        for state in [SessionState::Started, SessionState::Interrupted, SessionState::Started, SessionState::Completed]
        {
            let record = ActivityRecord::Session { id: "session#1", state, plan: None }.encode(T).unwrap();
            bytes.extend_from_slice(&chain.seal(&record));
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    #[test]
    fn any_changed_byte_is_damage_and_any_cut_is_torn() {
        let (bytes, ends) = sealed();
        let whole = read(&bytes);
        assert_eq!((whole.records.len(), whole.torn, whole.damage.len()), (5, None, 0));
        let last = ends[3];
        for at in 0..bytes.len() - EOL.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let journal = read(&changed);
            // The line end before the last record belongs to its checksum.
            let reported = !journal.damage.is_empty() || journal.torn == Some(last) && at >= last - EOL.len();
            assert!(reported, "byte {at} of {}: {:?}", bytes.len(), journal.torn);
        }
        for cut in ends[0] + 1..bytes.len() - EOL.len() {
            if ends.contains(&cut) {
                continue;
            }
            let journal = read(&bytes[..cut]);
            let from = ends.iter().rposition(|end| *end < cut).unwrap();
            // A record that lacks nothing but its last line end is whole.
            if ends.get(from + 1).is_some_and(|end| cut >= end - EOL.len()) {
                assert_eq!((journal.records.len(), journal.torn, journal.damage.len()), (from + 2, None, 0), "{cut}");
                continue;
            }
            assert_eq!((journal.records.len(), journal.torn), (from + 1, Some(ends[from])), "{cut}");
            assert!(journal.damage.is_empty(), "{cut}");
            // Records appended after the cut are valid again.
            let mut mended = bytes[..ends[from]].to_vec();
            let mut chain = journal.chain;
            let record = ActivityRecord::Session { id: "session#1", state: SessionState::Aborted, plan: None }
                .encode(T)
                .unwrap();
            mended.extend_from_slice(&chain.seal(&record));
            let journal = read(&mended);
            assert_eq!((journal.records.len(), journal.torn, journal.damage.len()), (from + 2, None, 0), "{cut}");
        }
        // A record missing from the middle.
        let mut gone = bytes[..ends[1]].to_vec();
        gone.extend_from_slice(&bytes[ends[2]..]);
        assert_eq!(read(&gone).damage.len(), 1);
    }

    #[test]
    fn damage_in_the_middle_is_told_and_passed_over() {
        let broken = JRN.replacen("[EndUpdateRecord]\n", "", 1);
        let journal = read(broken.as_bytes());
        assert_eq!((journal.records.len(), journal.torn, journal.damage.len()), (2, None, 1));
        assert_eq!(journal.damage[0].line, 1);
        let broken = JRN.replacen("LogDirectory: ", "LogDirectory ", 1).replacen("F:", "F", 1);
        let journal = read(broken.as_bytes());
        assert_eq!((journal.records.len(), journal.damage[0].line), (2, 4));
        let broken = format!("rubbish\n{JRN}");
        assert_eq!(read(broken.as_bytes()).records.len(), 3);
    }

    #[test]
    fn values_that_would_break_the_form_are_refused() {
        let value = |v: &str| activity(T, "x", &[("Value", v)]);
        for bad in ["a\n[EndValue]\nb", "[EndUpdateRecord]", "x\n[BeginUpdateRecord][", "a\r\n [EndValue]"] {
            assert_eq!(value(bad).map(|_| ()), Err(WriteError::Value("Value".into())), "{bad}");
        }
        for name in ["", "a:b", "[x", " a", "a\n"] {
            assert!(activity(T, "x", &[(name, "v")]).is_err());
        }
        for good in ["", "plain", "a: b", "two\nlines", "[BeginValue]", "ä\u{1F600}", "\nx"] {
            let bytes = value(good).unwrap();
            let journal = read(&bytes);
            assert_eq!(journal.records[0].get("Value").unwrap().replace("\r\n", "\n"), good, "{good:?}");
        }
    }

    #[test]
    fn hostile_journals_never_panic() {
        use dray_base::entropy::Seeded;
        let mut random = Seeded::new(6);
        for _ in 0..20_000 {
            let mut bytes = format!("{JRN}{SAMPLE}").into_bytes();
            for _ in 0..1 + random.next_u64() % 5 {
                let at = (random.next_u64() % bytes.len() as u64) as usize;
                match random.next_u64() % 3 {
                    0 => bytes[at] = [b'[', b']', b'\n', b':', 0, 0xFF][(random.next_u64() % 6) as usize],
                    1 => bytes.truncate(at.max(1)),
                    _ => drop(bytes.drain(at..(at + 20).min(bytes.len()))),
                }
                if bytes.is_empty() {
                    break;
                }
            }
            let journal = read(&bytes);
            assert!(journal.torn.is_none_or(|at| at < bytes.len()));
        }
    }
}
