//! Comparison of what was sent with a storage account: may the sources be deleted?
//!
//! One side is manifests or a dataset, the other a listing, an inventory, or the service's copy logs. Each blob gets a
//! verdict of its own, and the proof that it rests on; without one it is unknown, never equal. Nothing here knows a
//! network: what a listing tells comes in as [`There`], and what has to be read back goes out as [`Reading`].

mod sources;

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use crate::azure::copylog::{self, LogBlob};
use crate::azure::dataset::{self, BlobType};
use crate::azure::manifest::{self, Pieces};
use crate::azure::{Digest, base64, names, properties};
use crate::dataset::own::Own;
use crate::dataset::scan::{self, Of};
use crate::files::input::{self, Pipes};
use crate::hash::{self, Crc64, Md5};
use crate::limits;
use crate::plan::catalog::Catalog;
use crate::report::{Event, Kind, Problem, Problems};
use crate::request::Sets;
use crate::source::select::Selection;

use sources::SideFile;
pub use sources::{Change, Compared, Origin, SourceChange, begun};

/// Longest dataset that is read.
const DATASET_MAX: u64 = 1 << 30;
/// Bytes of a source that are read in one go.
const STEP: usize = 1 << 20;
/// Numbers that a renamed blob may have behind its name.
const RENAMED_MAX: u64 = 1_000_000;

/// Finding for a blob, in ascending order of severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Finding {
    /// It is there, as it was sent, and something proves it.
    Equal,
    /// Nothing says what is in it.
    #[default]
    Unknown,
    /// It is there, and not as it was sent.
    Different,
    /// It is not there.
    Missing,
}

impl Finding {
    /// In a word, as reports have it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Unknown => "unknown",
            Self::Different => "different",
            Self::Missing => "missing",
        }
    }
}

/// Evidence for a verdict on the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing is in it.
    Empty,
    /// Its Content-MD5.
    ContentMd5,
    /// Ids of its blocks, which are made of their hashes, and their sizes.
    BlockIds,
    /// CRC-64 and size in a verbose copy log.
    Crc64,
    /// Hashes of all blocks in a verbose copy log.
    LogHashes,
    /// It was read back.
    ReadBack,
}

impl Proof {
    /// In words, as reports have it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::ContentMd5 => "Content-MD5",
            Self::BlockIds => "block ids",
            Self::Crc64 => "CRC-64 of the copy log",
            Self::LogHashes => "hashes of the copy log",
            Self::ReadBack => "read back",
        }
    }
}

/// A blob of the account, as a listing or an inventory tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct There {
    /// `container/name`.
    pub path: String,
    /// Bytes.
    pub length: u64,
    /// A page blob; `None` when nothing says.
    pub is_pages: Option<bool>,
    /// MD5 that is kept with it.
    pub md5: Option<[u8; 16]>,
    /// Changes with the blob; empty in inventories.
    pub etag: String,
    /// Content-Type, Content-Encoding, Content-Language, Cache-Control; `None` when nothing says.
    pub properties: Option<Vec<(String, String)>>,
    /// Names and values; `None` when nothing says.
    pub metadata: Option<Vec<(String, String)>>,
}

/// A block or page range that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Byte in the blob.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// Its MD5.
    pub md5: [u8; 16],
}

/// Properties and metadata that a row of a dataset sets.
#[derive(Debug, Default)]
struct Sides {
    properties: Option<Vec<(String, String)>>,
    metadata: Option<Vec<(String, String)>>,
    files: [Option<PathBuf>; 2],
}

/// A blob that was sent.
#[derive(Debug)]
struct Sent {
    path: Box<str>,
    /// On the drive, in manifests.
    file: Option<Box<str>>,
    length: u64,
    is_pages: Option<bool>,
    /// In `Audit::pieces`.
    pieces: (u32, u32),
    /// Every byte belongs to a piece with a hash.
    is_hashed: bool,
    /// MD5 of the properties file, if the manifest names one; and whether it names metadata.
    properties_md5: Option<[u8; 16]>,
    has_properties: bool,
    has_metadata: bool,
    /// Metadata and properties files of a manifest, in `Audit::side_files`.
    files: [Option<u32>; 2],
    /// File of the catalog.
    source: Option<u32>,
    /// In `Audit::sides`.
    sides: Option<u32>,
    disposition: dataset::Disposition,
    /// A later manifest sends a blob of this name: that one counts.
    is_superseded: bool,
    state: AuditedBlob,
}

/// Facts known about it so far.
#[derive(Debug, Default)]
struct AuditedBlob {
    there: Option<Box<Here>>,
    content: Finding,
    proof: Option<Proof>,
    rest: Finding,
    /// The log says that it was not taken.
    not_taken: Option<Box<str>>,
    renamed_to: Option<Box<str>>,
    crc64: Option<u64>,
    notes: Vec<String>,
}

/// Facts kept about a blob in the account.
#[derive(Debug)]
struct Here {
    path: Box<str>,
    length: u64,
    md5: Option<[u8; 16]>,
    etag: Box<str>,
}

/// Entry of a report for one blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audited {
    /// `container/name`, as it was sent.
    pub blob: String,
    /// The name that it has now, if that is another.
    pub renamed: Option<String>,
    /// Bytes that were sent.
    pub length: u64,
    /// The worst of all.
    pub finding: Finding,
    /// Its content.
    pub content: Finding,
    /// Evidence for that.
    pub proof: Option<Proof>,
    /// Kind, properties and metadata.
    pub rest: Finding,
    /// The file that it was made of, where that is known.
    pub source: Option<PathBuf>,
    /// Path on the drive, where that is known.
    pub file: Option<String>,
    /// Pages, not blocks.
    pub is_pages: bool,
    /// Disposition towards a blob that exists.
    pub disposition: dataset::Disposition,
    /// Files that the row of the dataset names.
    pub metadata_file: Option<PathBuf>,
    /// Likewise.
    pub properties_file: Option<PathBuf>,
    /// Observations, one sentence each.
    pub notes: Vec<String>,
}

/// Request for reading a blob back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Index of the blob, for [`Audit::proven`] and [`Audit::differs`].
    pub row: usize,
    /// `container/name` to read.
    pub path: String,
    /// Its bytes.
    pub length: u64,
    /// As long as it has this ETag; empty: nothing says.
    pub etag: String,
    /// Pieces with their hashes; or else the source to compare with.
    pub pieces: Vec<Piece>,
    /// The source, where there are no pieces.
    pub source: Option<PathBuf>,
    /// Ids that its blocks have if they are the ones that were sent; none for pages.
    pub ids: Vec<(String, u64)>,
}

/// Counts and bytes of a finding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Blobs.
    pub blobs: u64,
    /// Bytes that were sent.
    pub bytes: u64,
}

/// All blobs that were sent, with the facts known about them.
#[derive(Debug, Default)]
pub struct Audit {
    rows: Vec<Sent>,
    pieces: Vec<Piece>,
    sides: Vec<Sides>,
    side_files: Vec<SideFile>,
    catalog: Option<Catalog>,
    by_path: HashMap<Box<str>, u32>,
    by_file: HashMap<Box<str>, u32>,
    /// Blobs whose name may be another's with a number: row, and what is there.
    candidates: Vec<(u32, There)>,
    /// Drives by their manifests: id, path and MD5 of the manifest.
    pub drives: Vec<(String, PathBuf, [u8; 16])>,
    /// Warnings, as sentences.
    pub warnings: Vec<String>,
}

/// A path on a drive as one spelling.
fn folded(path: &str) -> String {
    path.trim().trim_start_matches(['\\', '/']).replace('\\', "/").to_lowercase()
}

/// The name that a blob had before the service put a number behind it: `x (2).jpg` was `x.jpg`.
fn before_number(path: &str) -> Option<String> {
    let (dir, name) = path.rsplit_once('/')?;
    let (stem, end) = match name.rfind('.') {
        Some(at) if name[..at].ends_with(')') => name.split_at(at),
        _ => (name, ""),
    };
    let (first, number) = stem.strip_suffix(')')?.rsplit_once(" (")?;
    let number: u64 = number.parse().ok().filter(|number| (1..RENAMED_MAX).contains(number))?;
    (!first.is_empty() && number > 0).then(|| format!("{dir}/{first}{end}"))
}

/// The rows of a dataset, and its sources as they are now.
fn scanned(
    path: &Path,
    problems: &mut Problems,
    warnings: &mut Vec<Problem>,
    on_event: &mut dyn FnMut(Event),
) -> Result<(Vec<dataset::DatasetRow>, Option<scan::Scan>), Problem> {
    let bytes = input::read(path, DATASET_MAX, Pipes::Taken)
        .map_err(|error| Problem::new(Kind::Usage, format!("the dataset cannot be read: {error}")).path(path))?;
    let parsed = dataset::parse_into(path, &bytes, problems);
    let (own, selection) = (Own::default(), Selection::default());
    let of = Of {
        dataset: path,
        rows: &parsed.rows,
        root_units: 1 + names::SESSION_LEN_MAX,
        sets: Sets::default(),
        own: &own,
        selection: &selection,
    };
    let (_, scanned) = scan::sources(&of, problems, warnings, on_event);
    Ok((parsed.rows, scanned))
}

impl Sent {
    /// Notes what is not as it was sent, besides the content.
    fn worse(&mut self, finding: Finding, note: String) {
        self.state.rest = self.state.rest.max(finding);
        self.state.notes.push(note);
    }

    fn judge_kind(&mut self, there: &There) {
        match (self.is_pages, there.is_pages) {
            (Some(sent), Some(there)) if sent != there => {
                let words = |is_pages| if is_pages { "a page blob" } else { "a block blob" };
                self.worse(Finding::Different, format!("is {}, not {}", words(there), words(sent)));
            }
            (Some(_), None) => self.worse(Finding::Unknown, "nothing says which kind of blob it is".into()),
            _ => {}
        }
    }

    /// Compares properties or metadata with those that were sent, if these are known.
    fn judge_side(&mut self, what: &str, wanted: Option<&[(String, String)]>, found: Option<&[(String, String)]>) {
        match (wanted, found) {
            (Some(wanted), Some(found)) => {
                let other = wanted.iter().filter(|(name, _)| name != "Content-MD5").find(|(name, value)| {
                    let has = found.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
                    has.is_none_or(|(_, other)| other.trim() != value.trim())
                });
                let extra = found.iter().find(|(name, _)| {
                    what == "metadata" && !wanted.iter().any(|(other, _)| other.eq_ignore_ascii_case(name))
                });
                if let Some((name, _)) = other.or(extra) {
                    self.worse(Finding::Different, format!("{what} differ: {name}"));
                }
            }
            (Some(wanted), None) if !wanted.is_empty() => {
                self.worse(Finding::Unknown, format!("nothing says its {what}"));
            }
            // A manifest only names the file on the drive.
            (None, _) if self.has_metadata && what == "metadata" => {
                self.worse(Finding::Unknown, "its metadata file is on the drive: nothing says what is in it".into());
            }
            _ => {}
        }
    }

    /// Compares length and the hash of the whole; returns whether there is content that could be proven otherwise.
    fn judge_content(&mut self, there: &There, pieces: &[Piece]) -> bool {
        if there.length != self.length {
            self.state.content = Finding::Different;
            self.state.proof = None;
            self.state.notes.push(format!("has {} bytes, {} were sent", there.length, self.length));
            return false;
        }
        if self.state.content == Finding::Equal {
            // A log's proof is of what was taken then; what is there now has its own.
            self.state.proof = self.state.proof.filter(|proof| *proof == Proof::LogHashes);
        }
        if self.length == 0 {
            (self.state.content, self.state.proof) = (Finding::Equal, Some(Proof::Empty));
            return false;
        }
        let whole = match self.pieces {
            (first, 1) if self.is_hashed => pieces
                .get(first as usize)
                .filter(|piece| (piece.offset, piece.len) == (0, self.length))
                .map(|one| one.md5),
            _ => None,
        };
        if let (Some(sent), Some(found)) = (whole, there.md5) {
            if sent == found {
                (self.state.content, self.state.proof) = (Finding::Equal, Some(Proof::ContentMd5));
            } else {
                self.state.content = Finding::Different;
                self.state.notes.push("Content-MD5 is another".into());
            }
        }
        true
    }

    /// A properties file of ours holds the MD5 of the whole: its own hash tells whether that is the blob's. Any other is on
    /// the drive, and unknown unless it `is_known`.
    fn judge_properties_file(&mut self, there: &There, is_known: bool) {
        if !self.has_properties {
            return;
        }
        let is_ours = self.properties_md5.zip(there.md5).is_some_and(|(wanted, found)| {
            let typed =
                there.properties.iter().flatten().filter(|(_, value)| !value.is_empty()).cloned().collect::<Vec<_>>();
            [&typed[..], &[]].iter().any(|others| {
                let (before, after) = properties::around_md5(others);
                let mut text = before.into_bytes();
                base64::encode(&found, &mut text);
                text.extend(after.bytes());
                hash::md5(&text) == wanted
            })
        });
        if is_ours {
            (self.state.content, self.state.proof) = (Finding::Equal, Some(Proof::ContentMd5));
        } else if !is_known {
            let what = "its properties file is on the drive: nothing says what is in it";
            self.worse(Finding::Unknown, what.into());
        }
    }
}

/// What the head of a list in a manifest says for all its blobs.
#[derive(Default)]
struct Heads {
    has_metadata: bool,
    has_properties: bool,
    properties_md5: Option<[u8; 16]>,
    /// Metadata and properties file, by number.
    files: [Option<u32>; 2],
}

/// A manifest that is read into an audit.
struct FromManifest<'a> {
    audit: &'a mut Audit,
    path: &'a Path,
    drive: String,
    heads: Heads,
    /// The blob that is being read, and the end of its last piece.
    open: Option<(Sent, u64)>,
}

const fn md5_of(hash: Option<Digest>) -> Option<[u8; 16]> {
    match hash {
        Some(Digest::Md5(md5)) => Some(md5),
        _ => None,
    }
}

impl FromManifest<'_> {
    fn take(&mut self, event: manifest::Event, side_files: &mut HashMap<String, u32>) -> Result<(), Problem> {
        match event {
            manifest::Event::DriveId(id) => self.drive = id.trim().to_owned(),
            manifest::Event::ListStart(head) => {
                let mut file = |side: &Option<manifest::SideRef>| {
                    let side = side.as_ref()?;
                    Some(self.audit.side_file(side_files, &side.path, md5_of(side.hash)))
                };
                self.heads = Heads {
                    has_metadata: head.metadata.is_some(),
                    has_properties: head.properties.is_some(),
                    properties_md5: head.properties.as_ref().and_then(|side| md5_of(side.hash)),
                    files: [file(&head.metadata), file(&head.properties)],
                };
            }
            manifest::Event::BlobStart(start) => self.begin(*start)?,
            manifest::Event::Piece(piece) => {
                let Some((sent, at)) = &mut self.open else { return Ok(()) };
                match md5_of(piece.hash) {
                    // Between page ranges are zeros without a hash; blocks have no gaps.
                    Some(md5) if piece.offset >= *at && (sent.is_pages == Some(true) || piece.offset == *at) => {
                        self.audit.pieces.push(Piece { offset: piece.offset, len: piece.length, md5 });
                        sent.pieces.1 += 1;
                    }
                    _ => sent.is_hashed = false,
                }
                *at = piece.offset.saturating_add(piece.length);
            }
            manifest::Event::BlobEnd(end) => self.end(&end, side_files),
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, start: manifest::BlobStart) -> Result<(), Problem> {
        if start.is_length_wrong {
            return Err(Problem::new(Kind::Usage, "a blob has no legible length")
                .path(self.path)
                .line(start.line)
                .value(start.blob_path));
        }
        let sent = Sent {
            path: start.blob_path.trim_start_matches('/').into(),
            file: Some(start.file_path.as_str().into()),
            length: start.length,
            is_pages: start.pieces.map(|pieces| pieces == Pieces::Pages),
            pieces: (self.audit.pieces.len() as u32, 0),
            is_hashed: true,
            properties_md5: self.heads.properties_md5,
            has_properties: self.heads.has_properties,
            has_metadata: self.heads.has_metadata,
            files: self.heads.files,
            source: None,
            sides: None,
            disposition: (start.disposition.as_deref())
                .and_then(|text| dataset::Disposition::parse(text.trim()))
                .unwrap_or_default(),
            is_superseded: false,
            state: AuditedBlob::default(),
        };
        self.open = Some((sent, 0));
        Ok(())
    }

    fn end(&mut self, end: &manifest::BlobEnd, side_files: &mut HashMap<String, u32>) {
        let Some((mut sent, at)) = self.open.take() else { return };
        if sent.is_pages != Some(true) && at != sent.length {
            sent.is_hashed = false;
        }
        sent.has_metadata |= end.metadata.is_some();
        for (at, side) in [&end.metadata, &end.properties].into_iter().enumerate() {
            let Some(side) = side else { continue };
            sent.files[at] = Some(self.audit.side_file(side_files, &side.path, md5_of(side.hash)));
        }
        if let Some(side) = &end.properties {
            sent.has_properties = true;
            sent.properties_md5 = md5_of(side.hash);
        }
        self.audit.take(sent);
    }
}

impl Audit {
    /// Adds what a manifest says was sent.
    ///
    /// # Errors
    /// When it cannot be read to its end.
    pub fn add_manifest(&mut self, path: &Path) -> Result<(), Problem> {
        let failed = |what: String| Problem::new(Kind::Usage, what).path(path);
        let file =
            input::open(path, Pipes::Refused).map_err(|e| failed(format!("the manifest cannot be read: {e}")))?;
        let mut reader = manifest::Reader::new(BufReader::with_capacity(1 << 20, &file));
        let before = self.rows.len();
        let mut reading = FromManifest { audit: self, path, drive: String::new(), heads: Heads::default(), open: None };
        let mut side_files = HashMap::new();
        while let Some(event) =
            reader.next_event().map_err(|e| failed(format!("the manifest is not whole: {}", e.what)).line(e.line))?
        {
            reading.take(event, &mut side_files)?;
        }
        let drive = reading.drive;
        if reader.faults_in_all() > 0 {
            self.warnings.push(format!("{}: {} faults in the manifest", path.display(), reader.faults_in_all()));
        }
        if self.rows.len() == before {
            return Err(failed("the manifest names no blob".into()));
        }
        let md5 = md5_of_file(path).map_err(|e| failed(format!("cannot be read: {e}")))?;
        self.drives.push((drive, path.to_owned(), md5));
        Ok(())
    }

    /// Adds what a dataset would send, by its sources as they are now.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn add_dataset(&mut self, path: &Path, on_event: &mut dyn FnMut(Event)) -> Result<(), Problems> {
        if self.catalog.is_some() {
            return Err(Problem::new(Kind::Usage, "one dataset a run").path(path).into());
        }
        let (mut problems, mut warnings) = (Problems::default(), Vec::new());
        let (rows, scanned) = scanned(path, &mut problems, &mut warnings, on_event)?;
        let read = |file: &Option<PathBuf>, problems: &mut Problems| {
            let file = file.as_ref()?;
            let bytes = input::read(file, limits::SIDE_FILE_MAX, Pipes::Refused).ok()?;
            match properties::read(&bytes) {
                Ok(all) => Some(all),
                Err(error) => {
                    problems.push(Problem::new(Kind::Usage, error.what).path(file).line(error.line));
                    None
                }
            }
        };
        let first = self.sides.len() as u32;
        for row in &rows {
            let (properties, metadata) =
                (read(&row.properties_file, &mut problems), read(&row.metadata_file, &mut problems));
            let files = [row.metadata_file.clone(), row.properties_file.clone()];
            self.sides.push(Sides { properties, metadata, files });
        }
        problems.into_result()?;
        let Some(scanned) = scanned else {
            return Err(Problem::new(Kind::Internal, "the sources have no problems and no catalog").path(path).into());
        };
        let mut blob = String::new();
        for (index, file) in scanned.catalog.files().iter().enumerate() {
            let index = index as u32;
            scanned.catalog.blob_path(index, &mut blob);
            let disposition = rows.get(file.row as usize).map(|row| row.disposition).unwrap_or_default();
            self.take(Sent {
                path: blob.as_str().into(),
                file: None,
                length: file.len.0,
                is_pages: Some(scanned.catalog.blob_type(index) == BlobType::Page),
                pieces: (0, 0),
                is_hashed: false,
                properties_md5: None,
                has_properties: false,
                has_metadata: false,
                files: [None; 2],
                source: Some(index),
                sides: Some(first + file.row),
                disposition,
                is_superseded: false,
                state: AuditedBlob::default(),
            });
        }
        self.catalog = Some(scanned.catalog);
        Ok(())
    }

    /// A blob that two manifests name is what the last one sent, as the service takes them.
    fn take(&mut self, sent: Sent) {
        if let Some(file) = &sent.file {
            self.by_file.insert(folded(file).into(), self.rows.len() as u32);
        }
        if let Some(before) = self.by_path.insert(sent.path.clone(), self.rows.len() as u32) {
            self.rows[before as usize].is_superseded = true;
            self.warnings.push(format!("{} was sent more than once", sent.path));
        }
        self.rows.push(sent);
    }

    /// Blobs that were sent.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether nothing was sent.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Containers that have to be listed, each with a prefix of the names in it.
    pub fn places(&self) -> Vec<(String, String)> {
        let mut all: HashMap<&str, String> = HashMap::new();
        let renamed = self.rows.iter().filter_map(|row| row.state.renamed_to.as_deref());
        for path in self.rows.iter().map(|row| &*row.path).chain(renamed) {
            let Some((container, name)) = path.split_once('/') else { continue };
            // The first character may be all that a renamed blob shares with what it was.
            match all.get_mut(container) {
                None => {
                    all.insert(container, name.to_owned());
                }
                Some(shared) => {
                    let len = shared.char_indices().zip(name.chars()).find(|((_, a), b)| a != b).map(|((at, _), _)| at);
                    let len = len.unwrap_or_else(|| shared.len().min(name.len()));
                    shared.truncate(len);
                }
            }
        }
        let mut out: Vec<(String, String)> = all
            .into_iter()
            .map(|(container, shared)| {
                // `x.jpg` may have become `x (2).jpg`: what is behind its stem is not asked for.
                let dir = shared.rfind('/').map_or(0, |at| at + 1);
                let stem = shared[dir..].find('.').map_or(shared.len(), |at| dir + at);
                (container.to_owned(), shared[..stem].to_owned())
            })
            .collect();
        out.sort();
        out
    }

    /// Takes in what a copy log says: renames, what was not taken, hashes.
    ///
    /// # Errors
    /// When it cannot be read to its end.
    pub fn add_log(&mut self, path: &Path) -> Result<(), Problem> {
        let failed = |what: String| Problem::new(Kind::Usage, what).path(path);
        let file = input::open(path, Pipes::Taken).map_err(|e| failed(format!("the copy log cannot be read: {e}")))?;
        let mut reader = copylog::Reader::new(BufReader::with_capacity(1 << 20, file));
        let mut containers: Vec<(String, String)> = Vec::new();
        loop {
            let event = reader.next_event().map_err(|e| failed(format!("is no copy log: {}", e.what)).line(e.line))?;
            match event {
                None => break,
                Some(copylog::Event::Blob(blob)) => self.log_blob(&blob),
                Some(copylog::Event::File(file)) => {
                    let name = file.path.replace('\\', "/");
                    let known = self.by_path.get(name.trim_start_matches('/')).copied();
                    let Some(row) = known.and_then(|at| self.rows.get_mut(at as usize)) else { continue };
                    if file.size.is_some_and(|size| size != row.length) {
                        row.state.content = Finding::Different;
                        row.state.notes.push(format!("the copy log says {} bytes", file.size.unwrap_or(0)));
                    } else {
                        row.state.crc64 = file.crc64;
                    }
                }
                Some(copylog::Event::Errored(entity)) => {
                    let before = entity.error_message.split_once(":from:").map(|(_, rest)| rest);
                    let before =
                        before.map(|rest| rest.split(":because").next().unwrap_or(rest).trim().replace('\\', "/"));
                    let now = entity.path.replace('\\', "/");
                    if let (true, Some(before)) = (entity.category.ends_with("Renamed"), before) {
                        if matches!(entity.category.as_str(), "ContainerRenamed" | "ShareRenamed") {
                            containers.push((before.trim_matches('/').to_owned(), now.trim_matches('/').to_owned()));
                        } else if let Some(&at) = self.by_path.get(before.trim_start_matches('/')) {
                            self.rename(at, now.trim_start_matches('/'));
                        }
                    } else if let Some(&at) = self.by_path.get(now.trim_start_matches('/')) {
                        let said =
                            format!("service: {} {} {}", entity.category, entity.error_code, entity.error_message);
                        self.rows[at as usize].state.not_taken = Some(said.trim_end().into());
                    }
                }
                Some(_) => {}
            }
        }
        for (before, now) in containers {
            for at in 0..self.rows.len() {
                let below = self.rows[at].path.strip_prefix(before.as_str()).and_then(|rest| rest.strip_prefix('/'));
                if let Some(rest) = below.map(|rest| format!("{now}/{rest}")) {
                    self.rename(at as u32, &rest);
                }
            }
        }
        Ok(())
    }

    fn rename(&mut self, at: u32, now: &str) {
        let row = &mut self.rows[at as usize];
        if &*row.path != now {
            row.state.renamed_to = Some(now.into());
            self.by_path.insert(now.into(), at);
        }
    }

    fn log_blob(&mut self, blob: &LogBlob) {
        let by_file = (!blob.file_path.trim().is_empty()).then(|| self.by_file.get(folded(&blob.file_path).as_str()));
        let path = blob.blob_path.trim().trim_start_matches('/');
        let at = by_file.flatten().or_else(|| self.by_path.get(path)).copied();
        let Some(at) = at else { return };
        let became = blob.disposition.as_ref().map_or("", |(_, became)| became.as_str());
        if !blob.is_success() || became == "Cancelled" {
            self.rows[at as usize].state.not_taken = Some(format!("service: {}", blob.status).into());
            return;
        }
        if became == "Skipped" {
            let note = "the copy log says that it was skipped, since a blob of this name was there".to_owned();
            self.rows[at as usize].state.notes.push(note);
            return;
        }
        if became == "Renamed" || !path.is_empty() && *self.rows[at as usize].path != *path {
            self.rename(at, path);
        }
        let row = &mut self.rows[at as usize];
        if blob.length.is_some_and(|length| length != row.length) {
            row.state.content = Finding::Different;
            row.state.notes.push(format!("the copy log says {} bytes", blob.length.unwrap_or(0)));
            return;
        }
        let own = &self.pieces[row.pieces.0 as usize..][..row.pieces.1 as usize];
        let is_same = |(piece, logged): (&Piece, &copylog::LogPiece)| {
            let is_place = (piece.offset, piece.len) == (logged.offset, logged.length);
            is_place && logged.status == "Completed" && logged.hash == Some(Digest::Md5(piece.md5))
        };
        let has_hashes = !blob.pieces.is_empty() && blob.pieces.iter().all(|piece| piece.hash.is_some());
        if has_hashes && row.is_hashed && own.len() == blob.pieces.len() {
            if own.iter().zip(&blob.pieces).all(is_same) {
                (row.state.content, row.state.proof) = (Finding::Equal, Some(Proof::LogHashes));
            } else {
                row.state.content = Finding::Different;
                row.state.notes.push("the copy log has other hashes".into());
            }
        }
    }

    /// Takes in a blob of the account; one that was not sent is passed over.
    pub fn met(&mut self, there: There) {
        if let Some(&at) = self.by_path.get(there.path.as_str()) {
            let is_other = self.rows[at as usize].state.renamed_to.as_ref().is_some_and(|now| **now != *there.path);
            // What has its old name is another's, once the service says that it was renamed.
            if !is_other {
                self.judge(at, &there);
                return;
            }
        }
        let Some(before) = before_number(&there.path) else { return };
        if let Some(&at) = self.by_path.get(before.as_str()) {
            self.candidates.push((at, there));
        }
    }

    /// Size, kind, properties, metadata, and the content in so far as its own hash says.
    fn judge(&mut self, at: u32, there: &There) {
        let sides = self.rows[at as usize].sides.and_then(|at| self.sides.get(at as usize));
        let row = &mut self.rows[at as usize];
        row.state.there = Some(Box::new(Here {
            path: there.path.as_str().into(),
            length: there.length,
            md5: there.md5,
            etag: there.etag.as_str().into(),
        }));
        row.state.rest = Finding::Equal;
        row.judge_kind(there);
        let wanted = sides.map(|sides| (sides.properties.as_deref(), sides.metadata.as_deref()));
        row.judge_side("properties", wanted.and_then(|wanted| wanted.0), there.properties.as_deref());
        row.judge_side("metadata", wanted.and_then(|wanted| wanted.1), there.metadata.as_deref());
        if row.judge_content(there, &self.pieces) {
            row.judge_properties_file(there, wanted.and_then(|wanted| wanted.0).is_some());
        }
    }

    /// Hashes those sources whose blob has a known hash; `each` receives the bytes of each step, and may stop it.
    ///
    /// # Errors
    /// When a source cannot be read: it is named.
    pub fn hash_sources(&mut self, each: &mut dyn FnMut(u64) -> bool) -> Result<(), Problem> {
        let Some(catalog) = &self.catalog else { return Ok(()) };
        let mut buffer = vec![0; STEP];
        for row in &mut self.rows {
            let (Some(source), Finding::Unknown) = (row.source, row.state.content) else { continue };
            let md5 = row.state.there.as_ref().and_then(|there| there.md5);
            let crc = row.state.crc64;
            if md5.is_none() && crc.is_none() {
                continue;
            }
            let path = catalog.source_path(source);
            let failed = |error| Problem::new(Kind::Source, format!("the source cannot be read: {error}")).path(&path);
            let mut file = input::open(&path, Pipes::Refused).map_err(failed)?;
            let (mut sum, mut check, mut len) = (Md5::new(), Crc64::new(), 0u64);
            loop {
                let n = file.read(&mut buffer).map_err(failed)?;
                if n == 0 {
                    break;
                }
                if md5.is_some() {
                    sum.update(&buffer[..n]);
                } else {
                    check.update(&buffer[..n]);
                }
                len += n as u64;
                if !each(n as u64) {
                    return Ok(());
                }
            }
            let (is_same, proof) = match md5 {
                Some(md5) => (sum.finish() == md5, Proof::ContentMd5),
                None => (crc == Some(check.value()), Proof::Crc64),
            };
            if len != row.length {
                row.state.notes.push("the source has changed since it was listed".into());
            } else if is_same {
                (row.state.content, row.state.proof) = (Finding::Equal, Some(proof));
            } else {
                row.state.content = Finding::Different;
                row.state.notes.push(format!("{} is another", proof.word()));
            }
        }
        Ok(())
    }

    /// Blobs that another name may hide, and those of a log alone: called when all that is there was met, and again when contents are known.
    pub fn settle(&mut self) {
        for (at, there) in std::mem::take(&mut self.candidates) {
            let row = &self.rows[at as usize];
            let is_settled = row.state.renamed_to.is_some()
                || row.state.there.is_some() && row.state.content == Finding::Equal
                || row.disposition != dataset::Disposition::Rename
                || there.length != row.length;
            let is_wanted = row.state.there.is_none() || row.state.content == Finding::Different;
            if is_settled {
                continue;
            }
            if !is_wanted {
                // Its own name may still turn out to hold another content.
                self.candidates.push((at, there));
                continue;
            }
            let before = std::mem::take(&mut self.rows[at as usize].state);
            self.judge(at, &there);
            let row = &mut self.rows[at as usize];
            row.state.renamed_to = Some(there.path.as_str().into());
            if row.state.content == Finding::Different {
                row.state = before;
            }
        }
    }

    /// Blobs whose content is still unproven, or with `is_all` all that can be read.
    pub fn readings(&self, is_all: bool) -> Vec<usize> {
        let is_wanted = |row: &&(usize, &Sent)| {
            let state = &row.1.state;
            let is_readable = row.1.is_hashed || row.1.source.is_some();
            let is_open = state.content == Finding::Unknown || is_all && state.content == Finding::Equal;
            state.there.is_some() && is_readable && is_open && row.1.length > 0 && !row.1.is_superseded
        };
        self.rows.iter().enumerate().filter(|row| is_wanted(&row)).map(|(at, _)| at).collect()
    }

    /// Request for reading a blob back.
    pub fn reading(&self, at: usize) -> Option<Reading> {
        let row = self.rows.get(at)?;
        let there = row.state.there.as_ref()?;
        let pieces = if row.is_hashed { &self.pieces[row.pieces.0 as usize..][..row.pieces.1 as usize] } else { &[] };
        let ids = pieces.iter().filter(|_| row.is_pages != Some(true)).map(|piece| {
            let mut id = b"MD5/".to_vec();
            base64::encode(&piece.md5, &mut id);
            (String::from_utf8_lossy(&id).into_owned(), piece.len)
        });
        Some(Reading {
            row: at,
            path: there.path.to_string(),
            length: there.length,
            etag: there.etag.to_string(),
            ids: ids.collect(),
            pieces: pieces.to_vec(),
            source: row.source.and_then(|file| self.catalog.as_ref().map(|catalog| catalog.source_path(file))),
        })
    }

    /// The content of a blob is what was sent, by this proof.
    pub fn proven(&mut self, at: usize, proof: Proof) {
        if let Some(row) = self.rows.get_mut(at) {
            (row.state.content, row.state.proof) = (Finding::Equal, Some(proof));
        }
    }

    /// The content of a blob is not what was sent.
    pub fn differs(&mut self, at: usize, what: String) {
        if let Some(row) = self.rows.get_mut(at) {
            (row.state.content, row.state.proof) = (Finding::Different, None);
            row.state.notes.push(what);
        }
    }

    /// Says something of a blob that decides nothing.
    pub fn note(&mut self, at: usize, what: String) {
        if let Some(row) = self.rows.get_mut(at) {
            row.state.notes.push(what);
        }
    }

    /// Entry of the report for a blob; `by_log`: copy logs are the only evidence. `None` for one that a later manifest
    /// sends again.
    pub fn audited(&self, at: usize, by_log: bool) -> Option<Audited> {
        let row = self.rows.get(at).filter(|row| !row.is_superseded)?;
        let sides = row.sides.and_then(|at| self.sides.get(at as usize));
        let state = &row.state;
        let mut notes = state.notes.clone();
        let is_there = state.there.is_some() || by_log && state.not_taken.is_none();
        let (mut finding, mut content, mut rest) = (state.content.max(state.rest), state.content, state.rest);
        if !is_there {
            (finding, content, rest) = (Finding::Missing, Finding::Missing, Finding::Missing);
            notes.extend(state.not_taken.as_ref().map(|said| said.to_string()));
        } else if by_log && state.there.is_none() {
            // A log that names the content proves it; kind and properties it does not tell.
            rest = Finding::Equal;
            finding = content;
        }
        if finding == Finding::Unknown && notes.is_empty() {
            notes.push("nothing says what is in it".into());
        }
        Some(Audited {
            blob: row.path.to_string(),
            renamed: state
                .renamed_to
                .as_ref()
                .filter(|_| is_there && content != Finding::Different)
                .map(ToString::to_string),
            length: row.length,
            finding,
            content,
            proof: state.proof.filter(|_| content == Finding::Equal),
            rest,
            source: row.source.and_then(|file| self.catalog.as_ref().map(|catalog| catalog.source_path(file))),
            file: row.file.as_ref().map(ToString::to_string),
            is_pages: row.is_pages == Some(true),
            disposition: row.disposition,
            metadata_file: sides.and_then(|sides| sides.files[0].clone()),
            properties_file: sides.and_then(|sides| sides.files[1].clone()),
            notes,
        })
    }
}

/// MD5 of a whole file.
fn md5_of_file(path: &Path) -> std::io::Result<[u8; 16]> {
    let mut file = File::open(path)?;
    let (mut sum, mut buffer) = (Md5::new(), vec![0; STEP]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(sum.finish()),
            n => sum.update(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MD5_OF_A: [u8; 16] =
        [0x0c, 0xc1, 0x75, 0xb9, 0xc0, 0xf1, 0xb6, 0xa8, 0x31, 0xc3, 0x99, 0xe2, 0x69, 0x77, 0x26, 0x61];
    const HEX_OF_A: &str = "0CC175B9C0F1B6A831C399E269772661";

    /// Path, length, and offset and length of each block.
    type SentBlob<'a> = (&'a str, u64, &'a [(u64, u64)]);

    fn manifest(blobs: &[SentBlob<'_>]) -> Audit {
        let mut text = String::from("<DriveManifest Version=\"2014-11-01\"><Drive><DriveId>D</DriveId><BlobList>");
        for (path, length, blocks) in blobs {
            let name = path.replace('/', "\\");
            text.push_str(&format!(
                "<Blob><BlobPath>{path}</BlobPath><FilePath>\\s\\{name}</FilePath><Length>{length}</Length><BlockList>"
            ));
            for (offset, len) in *blocks {
                text.push_str(&format!("<Block Offset=\"{offset}\" Length=\"{len}\" Hash=\"{HEX_OF_A}\"/>"));
            }
            text.push_str("</BlockList></Blob>");
        }
        text.push_str("</BlobList></Drive></DriveManifest>");
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("dray-audit-{}-{number}.xml", std::process::id()));
        std::fs::write(&path, text).expect("written");
        let mut audit = Audit::default();
        audit.add_manifest(&path).expect("a manifest");
        std::fs::remove_file(path).expect("removed");
        audit
    }

    fn there(path: &str, length: u64, md5: Option<[u8; 16]>) -> There {
        let (properties, metadata) = (Some(Vec::new()), Some(Vec::new()));
        There { path: path.into(), length, is_pages: Some(false), md5, etag: "e".into(), properties, metadata }
    }

    fn log(audit: &mut Audit, text: &str) {
        let path = std::env::temp_dir().join(format!("dray-audit-log-{}-{}.xml", std::process::id(), text.len()));
        std::fs::write(&path, text).expect("written");
        audit.add_log(&path).expect("a log");
        std::fs::remove_file(path).expect("removed");
    }

    #[test]
    fn nothing_is_equal_without_a_proof() {
        let one: &[(u64, u64)] = &[(0, 1)];
        let mut audit = manifest(&[
            ("c/equal", 1, one),
            ("c/other", 1, one),
            ("c/longer", 1, one),
            ("c/gone", 1, one),
            ("c/nothing-says", 1, one),
            ("c/two", 2, &[(0, 1), (1, 1)]),
            ("c/empty", 0, &[]),
        ]);
        assert_eq!(audit.places(), [("c".to_owned(), String::new())]);
        for (path, length, md5) in [
            ("c/equal", 1, Some(MD5_OF_A)),
            ("c/other", 1, Some([9; 16])),
            ("c/longer", 2, Some(MD5_OF_A)),
            ("c/nothing-says", 1, None),
            ("c/two", 2, Some(MD5_OF_A)),
            ("c/empty", 0, None),
            ("c/not-ours", 5, None),
        ] {
            audit.met(there(path, length, md5));
        }
        audit.settle();
        let of = |audit: &Audit, at: usize| {
            let one = audit.audited(at, false).expect("a row");
            (one.finding, one.proof)
        };
        let found: Vec<_> = (0..audit.len()).map(|at| of(&audit, at)).collect();
        assert_eq!(
            found,
            [
                (Finding::Equal, Some(Proof::ContentMd5)),
                (Finding::Different, None),
                (Finding::Different, None),
                (Finding::Missing, None),
                (Finding::Unknown, None),
                (Finding::Unknown, None),
                (Finding::Equal, Some(Proof::Empty)),
            ]
        );
        // What is unproven is read back: by the manifest's pieces.
        assert_eq!(audit.readings(false), [4, 5]);
        assert_eq!(audit.readings(true), [0, 4, 5]);
        let reading = audit.reading(5).expect("a reading");
        assert_eq!((reading.pieces.len(), reading.ids[0].0.as_str()), (2, "MD5/DMF1ucDxtqgxw5niaXcmYQ=="));
        audit.proven(4, Proof::ReadBack);
        audit.differs(5, "bytes 0 to 1 are other ones".into());
        assert_eq!(of(&audit, 4), (Finding::Equal, Some(Proof::ReadBack)));
        assert_eq!(of(&audit, 5).0, Finding::Different);
    }

    #[test]
    fn a_blob_that_two_manifests_send_is_what_the_last_one_sent() {
        let mut audit = manifest(&[("c/x", 7, &[(0, 7)]), ("c/x", 1, &[(0, 1)])]);
        audit.met(there("c/x", 1, Some(MD5_OF_A)));
        audit.settle();
        let all: Vec<_> = (0..audit.len()).filter_map(|at| audit.audited(at, false)).collect();
        assert_eq!(all.iter().map(|one| (one.length, one.finding)).collect::<Vec<_>>(), [(1, Finding::Equal)]);
    }

    #[test]
    fn a_number_behind_a_name_is_followed() {
        for (now, before) in [
            ("c/x (2).jpg", Some("c/x.jpg")),
            ("c/d/x (13)", Some("c/d/x")),
            ("c/x (2)", Some("c/x")),
            ("c/x.tar (2).gz", Some("c/x.tar.gz")),
            ("c/x (a).jpg", None),
            ("c/x(2).jpg", None),
            ("c/ (2)", None),
            ("x (2)", None),
        ] {
            assert_eq!(before_number(now).as_deref(), before, "{now}");
        }
        let one: &[(u64, u64)] = &[(0, 1)];
        let mut audit = manifest(&[("c/x.jpg", 1, one), ("c/y.jpg", 1, one)]);
        // x was there before, as something else; y is nowhere, and what looks like it is not it.
        for one in [
            there("c/x.jpg", 7, Some([9; 16])),
            there("c/x (2).jpg", 1, Some(MD5_OF_A)),
            there("c/y (2).jpg", 1, Some([9; 16])),
        ] {
            audit.met(one);
        }
        audit.settle();
        let x = audit.audited(0, false).expect("x");
        assert_eq!((x.finding, x.renamed.as_deref()), (Finding::Equal, Some("c/x (2).jpg")));
        let y = audit.audited(1, false).expect("y");
        assert_eq!((y.finding, y.renamed), (Finding::Missing, None));
    }

    #[test]
    fn copy_logs_of_both_generations_are_taken_at_their_word_and_no_further() {
        let one: &[(u64, u64)] = &[(0, 1)];
        let first = |blobs: &str| format!("<DriveLog><DriveId>D</DriveId>{blobs}<Status>Completed</Status></DriveLog>");
        let blob = |path: &str, file: &str, became: &str, hash: &str| {
            format!(
                "<Blob Status=\"Completed\"><BlobPath>{path}</BlobPath><FilePath>{file}</FilePath><Length>1</Length>\
                 <ImportDisposition Status=\"{became}\">rename</ImportDisposition>\
                 <BlockList><Block Offset=\"0\" Length=\"1\" Hash=\"{hash}\" Status=\"Completed\"/></BlockList></Blob>"
            )
        };
        let mut audit = manifest(&[("c/x", 1, one), ("c/y", 1, one), ("c/z", 1, one), ("c/no", 1, one)]);
        let zeros = "00000000000000000000000000000000";
        let text = [
            blob("c/x", "\\s\\c\\x", "Created", HEX_OF_A),
            blob("c/y (2)", "\\s\\c\\y", "Renamed", HEX_OF_A),
            blob("c/z", "\\s\\c\\z", "Created", zeros),
            "<Blob Status=\"FileNotFound\"><BlobPath>c/no</BlobPath><FilePath>\\s\\c\\no</FilePath><Length>1</Length></Blob>".into(),
        ];
        log(&mut audit, &first(&text.concat()));
        let all: Vec<_> = (0..4).map(|at| audit.audited(at, true).expect("a row")).collect();
        assert_eq!((all[0].finding, all[0].proof), (Finding::Equal, Some(Proof::LogHashes)));
        assert_eq!((all[1].finding, all[1].renamed.as_deref()), (Finding::Equal, Some("c/y (2)")));
        assert_eq!((all[2].finding, all[3].finding), (Finding::Different, Finding::Missing));

        // Size and CRC-64: without the source's own nothing says what is in it.
        let mut audit = manifest(&[("c/x", 1, one), ("c/y", 1, one), ("c/no", 1, one)]);
        log(
            &mut audit,
            "<File CloudFormat=\"BlockBlob\" Path=\"c/x\" Size=\"1\" crc64=\"7\"/><File Path=\"c/y\" Size=\"2\" crc64=\"7\"/>\
             <ErroredEntity Path=\"c/no\"><Category>UploadErrorWin32</Category><ErrorCode>123</ErrorCode></ErroredEntity>",
        );
        let found: Vec<_> = (0..3).map(|at| audit.audited(at, true).expect("a row").finding).collect();
        assert_eq!(found, [Finding::Unknown, Finding::Different, Finding::Missing]);
    }

    #[test]
    fn a_crc_of_the_log_is_compared_with_the_source() {
        let dir = std::env::temp_dir().join(format!("dray-audit-crc-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("src")).expect("a directory");
        for name in ["good", "bad"] {
            std::fs::write(dir.join("src").join(name), name).expect("written");
        }
        let csv = format!("BasePath,DstBlobPathOrPrefix,BlobType\n\"{}/\",box/,BlockBlob\n", dir.join("src").display());
        std::fs::write(dir.join("dataset.csv"), csv).expect("written");
        let mut audit = Audit::default();
        audit.add_dataset(&dir.join("dataset.csv"), &mut |_| {}).expect("a dataset");
        let crc = hash::crc64(b"good");
        log(
            &mut audit,
            &format!(
                "<File Path=\"box/good\" Size=\"4\" crc64=\"{crc}\"/><File Path=\"box/bad\" Size=\"3\" crc64=\"7\"/>"
            ),
        );
        audit.hash_sources(&mut |_| true).expect("read");
        let mut found: Vec<_> = (0..2)
            .map(|at| audit.audited(at, true).expect("a row"))
            .map(|one| (one.blob, one.finding, one.proof))
            .collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(
            found,
            [
                ("box/bad".to_owned(), Finding::Different, None),
                ("box/good".to_owned(), Finding::Equal, Some(Proof::Crc64)),
            ]
        );
        std::fs::remove_dir_all(dir).expect("removed");
    }
}
