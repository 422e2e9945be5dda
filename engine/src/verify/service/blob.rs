//! The service's answer to one blob: its entry in the copy logs of both generations.
//!
//! Pure: the manifest's entry and the results of reading the drive come in, an entry of a log goes out. The order of the
//! checks is that of docs/spec/import-export.md#disks-and-limits; the statuses are those of
//! docs/spec/import-export.md#generation-1-copy-log. The account is taken to be empty, since nobody is asked: a blob is
//! `Created`, unless an earlier one of the same run has its name.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use crate::azure::copylog::{
    BlobStatus, Category, DispositionStatus, ErroredEntity, LogBlob, LogFile, LogPiece, LogSide, PieceStatus,
    SideStatus,
};
use crate::azure::dataset::Disposition;
use crate::azure::manifest::{self, ListHead, Pieces, SideRef};
use crate::azure::names::{self, NameError, numbered};
use crate::azure::properties::{self, SideKind};
use crate::azure::{XmlStep, XmlSteps};
use crate::limits;
use crate::ntfs::names as windows;
use crate::verify::row::Verdict;

/// Longest path that Windows opens in any form, in UTF-16 units.
const PATH_MAX: usize = 32_767;

/// Most numbers tried for a blob that is renamed.
const RENAMES_MAX: u32 = 1_000_000;

/// Characters of a path above which programs of Windows fail unless long paths are turned on
/// (docs/spec/import-export.md#names-and-sizes). Whether the service's are is not documented.
const LONG_PATH: usize = 256;

/// Faults of metadata and properties files, by index of the side file.
pub type SideFaults = HashMap<u32, (SideStatus, String)>;

/// Reason why the service cannot open a file by its path in the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileNameFault {
    /// `FileNameInvalid`.
    Invalid(String),
    /// `FileNameTooLong`.
    TooLong(String),
}

/// Whether Windows can open this path of a drive: absolute, with `\` or `/`.
///
/// # Errors
/// The first part that it cannot.
pub fn file_name(path: &str) -> Result<(), FileNameFault> {
    let Some(rest) = path.strip_prefix(['\\', '/']) else {
        return Err(FileNameFault::Invalid("does not begin with \\".to_owned()));
    };
    let units = path.encode_utf16().count();
    if units > PATH_MAX {
        return Err(FileNameFault::TooLong(format!("has {units} characters, {PATH_MAX} is the most")));
    }
    for part in rest.split(['\\', '/']) {
        match windows::problem(part) {
            None => {}
            Some(fault @ windows::NameProblem::TooLong { .. }) => {
                return Err(FileNameFault::TooLong(format!("{part:?} {fault}")));
            }
            Some(fault) => return Err(FileNameFault::Invalid(format!("{part:?} {fault}"))),
        }
    }
    Ok(())
}

/// A name of the destination that Azure does not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DestinationFault {
    /// The container's.
    Container(NameError),
    /// The blob's.
    Blob(NameError),
}

impl std::fmt::Display for DestinationFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Container(error) | Self::Blob(error) => error.fmt(f),
        }
    }
}

/// Container and name of a blob's path in the manifest.
fn split(path: &str) -> (&str, &str) {
    path.split_once('/').unwrap_or((path, ""))
}

/// Whether Azure takes a blob of this path: `container/name`.
///
/// # Errors
/// The first rule that it breaks.
pub fn destination(path: &str) -> Result<(), DestinationFault> {
    let (container, name) = split(path);
    names::check_container(container).map_err(DestinationFault::Container)?;
    names::check_blob(container, name).map_err(DestinationFault::Blob)?;
    Ok(())
}

/// Reason why the service would not apply a metadata or properties file, with its status; `None`: it would. A file that is
/// no XML of its grammar is `XmlReadFailed`; one whose names or values a request cannot carry is `BlobRequestFailed`.
pub fn side_fault(bytes: &[u8], kind: SideKind) -> Option<(SideStatus, String)> {
    let wanted = match kind {
        SideKind::Metadata => "Metadata",
        SideKind::Properties => "Properties",
    };
    let unread = |what: String| Some((SideStatus::XmlReadFailed, what));
    let mut steps = XmlSteps::new(bytes, limits::XML_STEP_MAX);
    let root = loop {
        match steps.next() {
            Ok(XmlStep::Start { name, .. }) => break name,
            Ok(XmlStep::Eof) => return unread(format!("holds no {wanted}")),
            Ok(_) => {}
            Err(error) => return unread(error.to_string()),
        }
    };
    if root != wanted {
        return unread(format!("its root is {root}, not {wanted}"));
    }
    if let Err(error) = properties::read(bytes) {
        return unread(error.to_string());
    }
    let problems = properties::check(Path::new(""), bytes, kind, false).err()?;
    let first = problems.0.first().map(|problem| match &problem.place.column {
        Some(column) => format!("{column}: {}", problem.what),
        None => problem.what.clone(),
    });
    Some((SideStatus::BlobRequestFailed, first.unwrap_or_default()))
}

/// Names of the blobs of a run, of all its drives: what the service finds in an account that was empty before.
#[derive(Debug, Default)]
pub struct Names(HashSet<u64>);

impl Names {
    fn add(&mut self, path: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        self.0.insert(hasher.finish())
    }

    /// Disposition of a blob, and the name that it gets.
    fn take(&mut self, path: &str, wanted: Disposition) -> (DispositionStatus, String) {
        if self.add(path) {
            return (DispositionStatus::Created, path.to_owned());
        }
        match wanted {
            Disposition::NoOverwrite => (DispositionStatus::Skipped, path.to_owned()),
            Disposition::Overwrite => (DispositionStatus::Overwritten, path.to_owned()),
            Disposition::Rename => {
                let free = (2..RENAMES_MAX).map(|number| numbered(path, number)).find(|name| self.add(name));
                (DispositionStatus::Renamed, free.unwrap_or_else(|| path.to_owned()))
            }
        }
    }
}

/// State of a blob's file on the drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Nothing has its path.
    Missing,
    /// A directory has.
    Directory,
    /// A file of so many bytes.
    File(u64),
}

/// Result for a metadata or properties file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SideResult {
    /// Its bytes against the manifest.
    pub verdict: Verdict,
    /// Fault of its contents.
    pub fault: Option<(SideStatus, String)>,
}

/// Result of reading one blob.
#[derive(Clone, Debug)]
pub struct Reading<'a> {
    /// The file.
    pub presence: Presence,
    /// End in the file, and verdict, of each block or range of the manifest; for a blob without a list, of its sections.
    pub pieces: &'a [(u64, Verdict)],
    /// Metadata file, if the manifest names one.
    pub metadata: Option<SideResult>,
    /// Properties file, if the manifest names one.
    pub properties: Option<SideResult>,
    /// CRC-64 of the content, if it was summed.
    pub crc64: Option<u64>,
}

/// Entries of the logs for one blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Entry of the first generation.
    pub blob: LogBlob,
    /// Entry in the verbose log of the second generation; `None`: it was not copied.
    pub file: Option<LogFile>,
    /// Entries in the copy log of the second generation.
    pub errors: Vec<ErroredEntity>,
    /// Grounds of the service's answer, and assumptions where nothing is documented, in sentences without full stop.
    pub notes: Vec<String>,
}

impl Told {
    /// Whether everything about it would succeed, under its own name.
    pub fn is_plain(&self) -> bool {
        let became = self.blob.disposition.as_ref().map(|(_, became)| became.as_str());
        self.blob.is_success() && matches!(became, Some("Created" | "Overwritten")) && self.errors.is_empty()
    }
}

/// The service's entry for a blob. `head`: the list that it is in.
pub fn tell(blob: &manifest::Blob, head: &ListHead, reading: &Reading<'_>, names: &mut Names) -> Told {
    let start = &blob.start;
    let wanted = start.disposition.as_deref().unwrap_or(Disposition::Rename.as_str());
    let mut told = Told {
        blob: LogBlob {
            blob_path: start.blob_path.clone(),
            file_path: start.file_path.clone(),
            length: Some(start.length),
            pieces_kind: start.pieces,
            ..LogBlob::default()
        },
        file: None,
        errors: Vec::new(),
        notes: Vec::new(),
    };
    let units = start.file_path.encode_utf16().count();
    if units > LONG_PATH {
        told.notes.push(format!(
            "its path on the drive has {units} characters: whether the service opens more than {LONG_PATH} is not documented"
        ));
    }
    let reached = match refused(start, reading.presence, &mut told) {
        Some(status) => {
            told.blob.status = status.into();
            false
        }
        None => true,
    };
    told.blob.pieces = pieces(blob, reading, reached);
    let side = |own: &Option<SideRef>, list: &Option<SideRef>, result: &Option<SideResult>| {
        let status = if reached { side_status(result.as_ref()?) } else { SideStatus::Cancelled };
        let file = |side: &SideRef| (side.path.clone(), side.hash);
        let global = if own.is_some() { None } else { list.as_ref().map(file) };
        Some(LogSide { status: status.into(), global, own: own.as_ref().map(file) })
    };
    told.blob.metadata = side(&blob.end.metadata, &head.metadata, &reading.metadata);
    told.blob.properties = side(&blob.end.properties, &head.properties, &reading.properties);
    let (became, path) = if reached {
        names.take(&start.blob_path, Disposition::parse(wanted).unwrap_or_default())
    } else {
        (DispositionStatus::Cancelled, start.blob_path.clone())
    };
    told.blob.disposition = Some((wanted.to_owned(), became.into()));
    told.blob.blob_path = path;
    if became == DispositionStatus::Skipped {
        // Nothing of it is sent.
        told.blob.pieces.clear();
        (told.blob.metadata, told.blob.properties) = (None, None);
    }
    if reached {
        finish(&mut told, reading);
    }
    second(&mut told, start, reading, reached);
    told
}

/// The status of a blob that is given up before its content is read; `None`: it is read.
fn refused(start: &manifest::BlobStart, presence: Presence, told: &mut Told) -> Option<BlobStatus> {
    let (status, note) = match (file_name(&start.file_path), presence) {
        (Err(FileNameFault::Invalid(why)), _) => (BlobStatus::FileNameInvalid, why),
        (Err(FileNameFault::TooLong(why)), _) => (BlobStatus::FileNameTooLong, why),
        (Ok(()), Presence::Missing) => (BlobStatus::FileNotFound, "the drive has no such file".to_owned()),
        (Ok(()), Presence::Directory) => (BlobStatus::FileAccessDenied, "is a directory on the drive".to_owned()),
        (Ok(()), Presence::File(_)) => match destination(&start.blob_path) {
            Ok(()) => return None,
            Err(fault) => (BlobStatus::BlobRequestFailed, fault.to_string()),
        },
    };
    told.notes.push(note);
    Some(status)
}

/// The blocks or ranges of the entry, with their status.
fn pieces(blob: &manifest::Blob, reading: &Reading<'_>, reached: bool) -> Vec<LogPiece> {
    let size = match reading.presence {
        Presence::File(size) => size,
        Presence::Missing | Presence::Directory => 0,
    };
    let of = |end: u64, verdict: Verdict| match verdict {
        _ if !reached => PieceStatus::Cancelled,
        Verdict::Unreadable => PieceStatus::IOFailed,
        Verdict::Equal | Verdict::NoReference | Verdict::NotInManifest => PieceStatus::Completed,
        Verdict::Different | Verdict::Missing if end > size => PieceStatus::FileUnexpectedEnd,
        Verdict::Different | Verdict::Missing => PieceStatus::Corrupted,
    };
    let statuses: Vec<PieceStatus> = reading.pieces.iter().map(|(end, verdict)| of(*end, *verdict)).collect();
    // Without the whole list no block blob is committed: its sound blocks are.
    let is_broken = statuses.iter().any(|status| *status != PieceStatus::Completed);
    let is_blocks = blob.start.pieces == Some(Pieces::Blocks);
    let status = |at: usize| match statuses.get(at) {
        Some(PieceStatus::Completed) if is_blocks && is_broken && reached => PieceStatus::Committed,
        Some(status) => *status,
        None if reached => PieceStatus::Completed,
        None => PieceStatus::Cancelled,
    };
    blob.pieces
        .iter()
        .enumerate()
        .map(|(at, piece)| LogPiece {
            offset: piece.offset,
            length: piece.length,
            id: piece.id.as_deref().map(str::to_owned),
            hash: piece.hash,
            status: status(at).into(),
        })
        .collect()
}

fn side_status(result: &SideResult) -> SideStatus {
    match (result.verdict, &result.fault) {
        (Verdict::Missing, _) => SideStatus::FileNotFound,
        (Verdict::Unreadable, _) => SideStatus::IOFailed,
        (Verdict::Different, _) => SideStatus::Corrupted,
        (_, Some((status, _))) => *status,
        (_, None) => SideStatus::Completed,
    }
}

/// The status of a blob whose parts were all processed.
fn finish(told: &mut Told, reading: &Reading<'_>) {
    let length = told.blob.length.unwrap_or_default();
    let size = match reading.presence {
        Presence::File(size) => size,
        Presence::Missing | Presence::Directory => 0,
    };
    let is_listed = !told.blob.pieces.is_empty();
    let is_unreadable = reading.pieces.iter().any(|(_, verdict)| *verdict == Verdict::Unreadable);
    told.blob.status = BlobStatus::Completed.into();
    let status = match told.blob.is_success() {
        false => BlobStatus::CompletedWithErrors,
        true if is_listed => BlobStatus::Completed,
        true if is_unreadable => BlobStatus::IOFailed,
        // Nothing in the entry could carry `FileUnexpectedEnd`.
        true if size < length => BlobStatus::Failed,
        true => BlobStatus::Completed,
    };
    told.blob.status = status.into();
    let is_told = told.blob.pieces.iter().any(|piece| piece.status == PieceStatus::FileUnexpectedEnd.as_str());
    if size != length && !is_told {
        told.notes.push(format!(
            "the file has {size} bytes, the manifest says {length}: the service's answer to that is not documented"
        ));
    }
    for (what, side) in [("metadata", &reading.metadata), ("properties", &reading.properties)] {
        if let Some(SideResult { verdict: Verdict::Equal | Verdict::NoReference, fault: Some((_, why)) }) = side {
            told.notes.push(format!("{what} file: {why}"));
        }
    }
}

/// Kind of a blob in logs of the second generation.
const fn format(pieces: Option<Pieces>) -> &'static str {
    match pieces {
        Some(Pieces::Pages) => "PageBlob",
        Some(Pieces::Blocks) | None => "BlockBlob",
    }
}

/// Words for the new name of what has an illegal one. The service draws a GUID.
const RENAMED_TO: &str = "DataBox-<GUID>";

/// The entries of the second generation. That service gives an illegal name another, and goes on.
fn second(told: &mut Told, start: &manifest::BlobStart, reading: &Reading<'_>, reached: bool) {
    let status = BlobStatus::parse(&told.blob.status);
    let cloud_format = Some(format(start.pieces).to_owned());
    let entity = |path: &str, category: Category, code: u32, message: String, kind: &str| ErroredEntity {
        cloud_format: (kind == "File").then(|| format(start.pieces).to_owned()),
        path: path.to_owned(),
        category: category.as_str().to_owned(),
        error_code: code.to_string(),
        error_message: message,
        kind: kind.to_owned(),
        etag: None,
    };
    let renamed = |to: &str, from: &str| {
        format!(
            "The original container/share/Blob has been renamed to: {to} :from: {from} :because either name has invalid \
             character(s) or length is not supported"
        )
    };
    let path = told.blob.blob_path.clone();
    let mut copied_to = Some(path.clone());
    if let (false, Err(fault)) = (reached, destination(&start.blob_path))
        && status == Some(BlobStatus::BlobRequestFailed)
    {
        let (container, name) = split(&start.blob_path);
        let (one, to) = match fault {
            DestinationFault::Container(_) => {
                let text = renamed(RENAMED_TO, container);
                (entity(container, Category::ContainerRenamed, 1, text, "Container"), format!("{RENAMED_TO}/{name}"))
            }
            DestinationFault::Blob(_) => {
                let to = format!("BlockBlob/{RENAMED_TO}");
                let text = renamed(&to, &start.blob_path);
                (entity(&start.blob_path, Category::BlobRenamed, 1, text, "File"), format!("{container}/{RENAMED_TO}"))
            }
        };
        told.errors.push(one);
        copied_to = Some(to);
        // Its content decides as that of any other does.
        if reading.pieces.iter().any(|(_, verdict)| verdict.is_against() && *verdict != Verdict::NoReference) {
            copied_to = None;
            let text = "the content is not that of the manifest".to_owned();
            told.errors.push(entity(&path, Category::UploadErrorDataValidationError, 0, text, "File"));
        }
    } else if let Some((category, code, text)) = told.blob.failure() {
        copied_to = None;
        told.errors.push(entity(&path, category, code, text.to_owned(), "File"));
    } else if told.blob.disposition.as_ref().is_some_and(|(_, became)| became == "Skipped") {
        copied_to = None;
    }
    told.file = copied_to.map(|path| LogFile {
        cloud_format,
        path,
        size: Some(start.length),
        crc64: reading.crc64,
        etag: None,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, file: &str, kind: Pieces, pieces: &[(u64, u64)]) -> manifest::Blob {
        let piece = |(offset, length): &(u64, u64)| manifest::Piece {
            offset: *offset,
            length: *length,
            id: (kind == Pieces::Blocks).then(|| "MD5/x".into()),
            hash: None,
        };
        manifest::Blob {
            start: manifest::BlobStart {
                blob_path: path.into(),
                file_path: file.into(),
                length: pieces.iter().map(|(offset, length)| offset + length).max().unwrap_or(0),
                disposition: Some("rename".into()),
                pieces: Some(kind),
                ..manifest::BlobStart::default()
            },
            pieces: pieces.iter().map(piece).collect(),
            end: manifest::BlobEnd::default(),
        }
    }

    fn reading(pieces: &[(u64, Verdict)], size: u64) -> Reading<'_> {
        Reading { presence: Presence::File(size), pieces, metadata: None, properties: None, crc64: Some(7) }
    }

    fn told(blob: &manifest::Blob, reading: &Reading<'_>) -> Told {
        tell(blob, &ListHead::default(), reading, &mut Names::default())
    }

    fn statuses(told: &Told) -> Vec<&str> {
        told.blob.pieces.iter().map(|piece| piece.status.as_str()).collect()
    }

    const TWO: &[(u64, u64)] = &[(0, 512), (512, 512)];

    #[test]
    fn a_bad_block_takes_its_blob_and_a_bad_page_only_itself() {
        let good: &[(u64, Verdict)] = &[(512, Verdict::Equal), (1024, Verdict::Equal)];
        let one = told(&entry("box/a", "\\a", Pieces::Blocks, TWO), &reading(good, 1024));
        assert!(one.is_plain() && one.file.as_ref().is_some_and(|file| file.crc64 == Some(7)), "{one:?}");
        for (kind, verdict, size, wanted, code) in [
            (Pieces::Blocks, Verdict::Different, 1024, ["Committed", "Corrupted"], "0"),
            (Pieces::Pages, Verdict::Different, 1024, ["Completed", "Corrupted"], "0"),
            (Pieces::Blocks, Verdict::Unreadable, 1024, ["Committed", "IOFailed"], "1117"),
            (Pieces::Pages, Verdict::Different, 600, ["Completed", "FileUnexpectedEnd"], "38"),
        ] {
            let pieces = [(512, Verdict::Equal), (1024, verdict)];
            let one = told(&entry("box/a", "\\a", kind, TWO), &reading(&pieces, size));
            assert_eq!((one.blob.status.as_str(), statuses(&one)), ("CompletedWithErrors", wanted.to_vec()));
            assert_eq!(one.errors[0].error_code, code);
            assert!(one.file.is_none(), "the newer service does not list it as copied");
        }
    }

    #[test]
    fn names_of_files_are_those_that_windows_opens() {
        for good in ["\\a", "\\session#1\\x y", "/a/b"] {
            assert_eq!(file_name(good), Ok(()), "{good}");
        }
        for bad in ["a", "\\a:b", "\\a\\..\\b", "\\a.", "\\con", "\\a\\\\b", ""] {
            assert!(matches!(file_name(bad), Err(FileNameFault::Invalid(_))), "{bad}");
        }
        for long in [format!("\\{}", "x".repeat(256)), format!("\\{}", "x\\".repeat(17_000)) + "x"] {
            assert!(matches!(file_name(&long), Err(FileNameFault::TooLong(_))), "{}", long.len());
        }
        let one = told(&entry("box/a", &format!("\\{}", "x".repeat(256)), Pieces::Blocks, TWO), &reading(&[], 0));
        assert_eq!((one.blob.status.as_str(), statuses(&one)), ("FileNameTooLong", vec!["Cancelled"; 2]));
        assert_eq!(one.errors[0].error_code, "206");
        let missing = Reading { presence: Presence::Directory, ..reading(&[], 0) };
        assert_eq!(told(&entry("box/a", "\\a", Pieces::Blocks, TWO), &missing).blob.status, "FileAccessDenied");
    }

    #[test]
    fn an_illegal_destination_fails_in_one_generation_and_is_renamed_in_the_other() {
        let good: &[(u64, Verdict)] = &[(512, Verdict::Equal), (1024, Verdict::Equal)];
        for (path, category, to) in [
            ("Box/a", "ContainerRenamed", "DataBox-<GUID>/a"),
            ("$root/a/b", "BlobRenamed", "$root/DataBox-<GUID>"),
            ("box/a\u{1}", "BlobRenamed", "box/DataBox-<GUID>"),
            ("nothing", "BlobRenamed", "nothing/DataBox-<GUID>"),
        ] {
            let one = told(&entry(path, "\\a", Pieces::Blocks, TWO), &reading(good, 1024));
            assert_eq!((one.blob.status.as_str(), statuses(&one)), ("BlobRequestFailed", vec!["Cancelled"; 2]));
            assert_eq!(one.errors[0].category, category, "{path}");
            assert_eq!(one.file.as_ref().map(|file| file.path.as_str()), Some(to));
        }
    }

    #[test]
    fn a_blob_of_a_taken_name_goes_by_its_disposition() {
        let mut names = Names::default();
        let rename = |names: &mut Names, path: &str| names.take(path, Disposition::Rename).1;
        assert_eq!(names.take("box/Seattle.jpg", Disposition::Rename).0, DispositionStatus::Created);
        assert_eq!(rename(&mut names, "box/Seattle.jpg"), "box/Seattle (2).jpg");
        assert_eq!(rename(&mut names, "box/Seattle.jpg"), "box/Seattle (3).jpg");
        assert_eq!(names.take("box/Seattle.jpg", Disposition::NoOverwrite).0, DispositionStatus::Skipped);
        assert_eq!(names.take("box/Seattle.jpg", Disposition::Overwrite).0, DispositionStatus::Overwritten);
        assert_eq!(numbered("box.1/BlobNameWithoutDot", 2), "box.1/BlobNameWithoutDot (2)");
    }

    #[test]
    fn a_metadata_file_is_read_before_its_names_are_sent() {
        let status = |text: &str, kind| side_fault(text.as_bytes(), kind).map(|(status, _)| status);
        assert_eq!(status("<Metadata><Author>me</Author></Metadata>", SideKind::Metadata), None);
        assert_eq!(status("<Properties><Content-Type>a/b</Content-Type></Properties>", SideKind::Properties), None);
        for broken in ["", "x", "<Metadata>", "<Metadata><a>b</Metadata>", "<Properties/>"] {
            assert_eq!(status(broken, SideKind::Metadata), Some(SideStatus::XmlReadFailed), "{broken}");
        }
        for refused in ["<Metadata><a-b>c</a-b></Metadata>", "<Metadata><a>1</a><A>2</A></Metadata>"] {
            assert_eq!(status(refused, SideKind::Metadata), Some(SideStatus::BlobRequestFailed), "{refused}");
        }
    }
}
