//! Writes copy logs of both generations (docs/spec/import-export.md#copy-logs). Streamed: nothing holds a whole log.
//!
//! The words of the statuses are the documented ones. Where the documentation has no word or number, the reason for the
//! one that is written here is given at its place.

use std::fmt;
use std::io::{self, Write};

use super::super::Digest;
use super::super::manifest::Pieces;
use super::super::xml::{element, push_escaped, text};
use super::{ErroredEntity, LogBlob, LogFile, LogPiece, LogSide, is_success};

const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
/// Version of the first generation's grammar.
const VERSION_1: &str = "2014-11-01";
/// Version of the second generation's grammar.
const VERSION_2: &str = "2021-08-01";

/// Declares an enumeration of documented words.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$what:meta])* $word:ident),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$what])* $word),+ }

        impl $name {
            /// Every value, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$word),+];

            /// The word in logs.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$word => stringify!($word)),+ }
            }

            /// The value of a word in a log; `None` for words that are not documented.
            pub fn parse(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.as_str() == word.trim())
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// Status of a drive: the last element of a log of the first generation.
    DriveStatus {
        /// No errors.
        Completed,
        /// Warnings on blobs that concern their disposition.
        CompletedWithWarnings,
        /// Errors on blobs, blocks or page ranges.
        CompletedWithErrors,
        /// No disk.
        DiskNotFound,
        /// The first data volume is not NTFS.
        VolumeNotNtfs,
        /// Unknown failure of the disk.
        DiskOperationFailed,
        /// No volume that BitLocker can encrypt.
        BitLockerVolumeNotFound,
        /// BitLocker is not enabled.
        BitLockerNotActivated,
        /// No numerical password among the protectors.
        BitLockerProtectorNotFound,
        /// The numerical password does not unlock the volume.
        BitLockerKeyInvalid,
        /// Unknown failure of unlocking.
        BitLockerUnlockVolumeFailed,
        /// Other failure of BitLocker.
        BitLockerFailed,
        /// Illegal name of the manifest.
        ManifestNameInvalid,
        /// Name of the manifest too long.
        ManifestNameTooLong,
        /// No manifest.
        ManifestNotFound,
        /// Manifest not accessible.
        ManifestAccessDenied,
        /// Its bytes do not have the job's hash.
        ManifestCorrupted,
        /// It is not of the grammar.
        ManifestFormatInvalid,
        /// It names another drive.
        ManifestDriveIdMismatch,
        /// I/O error while it was read.
        ReadManifestFailed,
        /// Blob list of an export malformed.
        BlobListFormatInvalid,
        /// The storage account refuses access.
        BlobRequestForbidden,
        /// Fault of the service.
        InternalError,
    }
}

words! {
    /// Status of a blob.
    BlobStatus {
        /// No errors.
        Completed,
        /// A block, page range, metadata or properties file failed.
        CompletedWithErrors,
        /// Illegal name of its file.
        FileNameInvalid,
        /// Name of its file too long.
        FileNameTooLong,
        /// No such file.
        FileNotFound,
        /// File not accessible.
        FileAccessDenied,
        /// A request for the blob failed.
        BlobRequestFailed,
        /// A request for the blob was refused.
        BlobRequestForbidden,
        /// The blob (import) or file (export) could not be renamed.
        RenameFailed,
        /// The blob changed during its export.
        BlobUnexpectedChange,
        /// Somebody else holds a lease on the blob.
        LeasePresent,
        /// Failure of disk or network.
        IOFailed,
        /// Unknown failure.
        Failed,
    }
}

words! {
    /// Result of an import disposition.
    DispositionStatus {
        /// There was no such blob.
        Created,
        /// The blob has a new name.
        Renamed,
        /// The blob that was there is kept.
        Skipped,
        /// The blob that was there is replaced.
        Overwritten,
        /// Stopped by an earlier failure.
        Cancelled,
    }
}

impl DispositionStatus {
    /// Whether it makes a drive `CompletedWithWarnings`: the blob's name or content is not the one that was sent. An
    /// overwritten blob is what the user requested.
    pub const fn is_warning(self) -> bool {
        matches!(self, Self::Renamed | Self::Skipped)
    }
}

words! {
    /// Status of a block or page range.
    PieceStatus {
        /// Copied.
        Completed,
        /// Committed, but the list is incomplete or its commit failed.
        Committed,
        /// Uploaded only.
        Uncommitted,
        /// Its bytes do not have the manifest's hash.
        Corrupted,
        /// The file ends before it does.
        FileUnexpectedEnd,
        /// The blob ends before it does.
        BlobUnexpectedEnd,
        /// A request for it failed.
        BlobRequestFailed,
        /// Failure of disk or network.
        IOFailed,
        /// Unknown failure.
        Failed,
        /// Stopped by an earlier failure.
        Cancelled,
    }
}

words! {
    /// Status of a metadata or properties file.
    SideStatus {
        /// Set.
        Completed,
        /// Illegal name.
        FileNameInvalid,
        /// Name too long.
        FileNameTooLong,
        /// No such file.
        FileNotFound,
        /// File not accessible.
        FileAccessDenied,
        /// Its bytes do not have the manifest's hash.
        Corrupted,
        /// It is not of the grammar.
        XmlReadFailed,
        /// It could not be written (export).
        XmlWriteFailed,
        /// The request that sets it failed.
        BlobRequestFailed,
        /// Failure of disk or network.
        IOFailed,
        /// Unknown failure.
        Failed,
        /// Stopped by an earlier failure.
        Cancelled,
    }
}

words! {
    /// Category of an error in a log of the second generation.
    Category {
        /// File system error; the code is that of Windows.
        UploadErrorWin32,
        /// HTTP failure, or a kind of blob that is not supported.
        UploadErrorCloudHttp,
        /// The content differs between reading and upload.
        UploadErrorDataValidationError,
        /// Size outside of the limits of managed disks.
        UploadErrorManagedConversionError,
        /// Unknown.
        UploadErrorUnknownType,
        /// Illegal name of a container replaced.
        ContainerRenamed,
        /// Illegal name of a share replaced.
        ShareRenamed,
        /// Illegal name of a blob replaced.
        BlobRenamed,
        /// Illegal name of a file replaced.
        FileRenamed,
        /// Illegal name of a managed disk replaced.
        DiskRenamed,
        /// The name ends with a slash: it cannot be exported.
        FileNameTrailsWithSlash,
        /// Kind of blob that cannot be exported.
        ExportCloudHttp,
    }
}

impl Category {
    /// Its `Description` in summaries. Published samples have those of Win32, containers and shares; the others are
    /// worded alike.
    const fn description(self) -> &'static str {
        match self {
            Self::UploadErrorWin32 => "File Create failed because of UploadErrorWin32 exception",
            Self::UploadErrorCloudHttp | Self::ExportCloudHttp => "Unsupported blob type or failed request",
            Self::UploadErrorDataValidationError => "The content differs between ingestion and upload",
            Self::UploadErrorManagedConversionError => "The size of the blob is not supported",
            Self::UploadErrorUnknownType => "Unknown error",
            Self::ContainerRenamed => {
                "Renamed the container as the original container name does not follow Azure conventions."
            }
            Self::ShareRenamed => "Renamed the share as the original share name does not follow Azure conventions.",
            Self::BlobRenamed => "Renamed the blob as the original blob name does not follow Azure conventions.",
            Self::FileRenamed => "Renamed the file as the original file name does not follow Azure conventions.",
            Self::DiskRenamed => "Renamed the disk as the original disk name does not follow Azure conventions.",
            Self::FileNameTrailsWithSlash => "The name ends with a slash",
        }
    }
}

/// Entries that a log of the first generation has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Those with an error only.
    Error,
    /// All.
    Verbose,
}

/// Sums of a drive's blobs, from which its status follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Blobs in all.
    pub blobs: u64,
    /// Blobs that failed, or with a part that failed.
    pub errors: u64,
    /// Other blobs that were renamed or skipped.
    pub warnings: u64,
}

impl Tally {
    /// Counts a blob.
    pub fn add(&mut self, blob: &LogBlob) {
        self.blobs += 1;
        let became = blob.disposition.as_ref().and_then(|(_, became)| DispositionStatus::parse(became));
        if !blob.is_success() {
            self.errors += 1;
        } else if became.is_some_and(DispositionStatus::is_warning) {
            self.warnings += 1;
        }
    }

    /// Status of a drive whose blobs were all reached.
    pub const fn status(&self) -> DriveStatus {
        match (self.errors, self.warnings) {
            (0, 0) => DriveStatus::Completed,
            (0, _) => DriveStatus::CompletedWithWarnings,
            _ => DriveStatus::CompletedWithErrors,
        }
    }
}

/// Writer of a log of the first generation.
#[derive(Debug)]
pub struct DriveLog<W> {
    out: W,
    detail: Detail,
    buffer: Vec<u8>,
    /// The blobs so far, written or left out.
    pub tally: Tally,
}

impl<W: Write> DriveLog<W> {
    /// Writes the head of a log. Give a buffered writer.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn begin(mut out: W, detail: Detail, drive_id: &str) -> io::Result<Self> {
        let mut buffer = format!("{DECLARATION}<DriveLog Version=\"{VERSION_1}\">\n  ").into_bytes();
        element(&mut buffer, "DriveId", drive_id);
        buffer.push(b'\n');
        out.write_all(&buffer)?;
        Ok(Self { out, detail, buffer, tally: Tally::default() })
    }

    /// Writes a blob. A log of errors has neither blobs without errors, nor the parts without errors of the others.
    ///
    /// # Errors
    /// Those of the output.
    pub fn blob(&mut self, blob: &LogBlob) -> io::Result<()> {
        self.tally.add(blob);
        if self.detail == Detail::Error && blob.is_success() {
            return Ok(());
        }
        self.buffer.clear();
        write_blob(&mut self.buffer, blob, self.detail);
        self.out.write_all(&self.buffer)
    }

    /// Writes the drive's status and the end, and returns the flushed output.
    ///
    /// # Errors
    /// Those of the output.
    pub fn finish(mut self, status: DriveStatus) -> io::Result<W> {
        write!(self.out, "  <Status>{status}</Status>\n</DriveLog>\n")?;
        self.out.flush()?;
        Ok(self.out)
    }
}

fn write_blob(out: &mut Vec<u8>, blob: &LogBlob, detail: Detail) {
    let told = |status: &str| detail == Detail::Verbose || !is_success(status);
    text(out, &["  <Blob"]);
    attribute(out, "Status", &blob.status);
    text(out, &[">\n"]);
    line(out, "BlobPath", Some(&blob.blob_path));
    line(out, "FilePath", Some(&blob.file_path));
    line(out, "Snapshot", blob.snapshot.as_deref());
    line(out, "LastModified", blob.last_modified.as_deref());
    line(out, "Length", blob.length.map(|length| length.to_string()).as_deref());
    if let Some((wanted, became)) = &blob.disposition {
        text(out, &["    <ImportDisposition"]);
        attribute(out, "Status", became);
        text(out, &[">"]);
        push_escaped(wanted, out);
        text(out, &["</ImportDisposition>\n"]);
    }
    if let Some(kind) = blob.pieces_kind {
        let (list, one) = match kind {
            Pieces::Blocks => ("BlockList", "Block"),
            Pieces::Pages => ("PageRangeList", "PageRange"),
        };
        let mut told = blob.pieces.iter().filter(|piece| told(&piece.status)).peekable();
        if told.peek().is_none() {
            text(out, &["    <", list, " />\n"]);
        } else {
            text(out, &["    <", list, ">\n"]);
            told.for_each(|piece| write_piece(out, one, piece));
            text(out, &["    </", list, ">\n"]);
        }
    }
    for (name, side) in [("Metadata", &blob.metadata), ("Properties", &blob.properties)] {
        if let Some(side) = side.as_ref().filter(|side| told(&side.status)) {
            write_side(out, name, side);
        }
    }
    text(out, &["  </Blob>\n"]);
}

fn write_piece(out: &mut Vec<u8>, name: &str, piece: &LogPiece) {
    text(out, &["      <", name]);
    attribute(out, "Offset", &piece.offset.to_string());
    attribute(out, "Length", &piece.length.to_string());
    if let Some(id) = &piece.id {
        attribute(out, "Id", id);
    }
    hash(out, piece.hash);
    attribute(out, "Status", &piece.status);
    text(out, &[" />\n"]);
}

fn write_side(out: &mut Vec<u8>, name: &str, side: &LogSide) {
    text(out, &["    <", name]);
    attribute(out, "Status", &side.status);
    if side.global.is_none() && side.own.is_none() {
        return text(out, &[" />\n"]);
    }
    text(out, &[">\n"]);
    for (name, file) in [("GlobalPath", &side.global), ("Path", &side.own)] {
        if let Some((path, digest)) = file {
            text(out, &["      <", name]);
            hash(out, *digest);
            text(out, &[">"]);
            push_escaped(path, out);
            text(out, &["</", name, ">\n"]);
        }
    }
    text(out, &["    </", name, ">\n"]);
}

/// Writer of a verbose log of the second generation: a row of elements without root or summary.
#[derive(Debug)]
pub struct VerboseLog<W> {
    out: W,
    buffer: Vec<u8>,
}

impl<W: Write> VerboseLog<W> {
    /// A log without entries. Give a buffered writer.
    pub const fn new(out: W) -> Self {
        Self { out, buffer: Vec::new() }
    }

    /// Writes a file that was copied.
    ///
    /// # Errors
    /// Those of the output.
    pub fn file(&mut self, file: &LogFile) -> io::Result<()> {
        self.buffer.clear();
        let out = &mut self.buffer;
        text(out, &["<File"]);
        if let Some(format) = &file.cloud_format {
            attribute(out, "CloudFormat", format);
        }
        attribute(out, "Path", &file.path);
        for (name, number) in [("Size", file.size), ("crc64", file.crc64)] {
            if let Some(number) = number {
                attribute(out, name, &number.to_string());
            }
        }
        if let Some(etag) = &file.etag {
            attribute(out, "ETag", etag);
        }
        text(out, &[">\n</File>\n"]);
        self.out.write_all(&self.buffer)
    }

    /// Returns the flushed output.
    ///
    /// # Errors
    /// Those of the output.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Status in the summary of a copy log of the second generation. Published samples have the last two; the first follows
/// from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CopyStatus {
    /// No errors.
    Succeeded,
    /// Some entities have errors, or were renamed.
    SucceededWithErrors,
    /// The drive could not be processed, or nothing of it was copied.
    Failed,
}

impl CopyStatus {
    /// The words in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "Succeeded",
            Self::SucceededWithErrors => "Succeeded with Errors",
            Self::Failed => "Failed",
        }
    }
}

/// Writer of a copy log of the second generation: the entities with errors, and the summary.
#[derive(Debug)]
pub struct CopyLog<W> {
    out: W,
    buffer: Vec<u8>,
    /// Number of entities of each category.
    counts: Vec<(Category, u64)>,
}

impl<W: Write> CopyLog<W> {
    /// A log without entries. Give a buffered writer.
    pub const fn new(out: W) -> Self {
        Self { out, buffer: Vec::new(), counts: Vec::new() }
    }

    /// Writes an entity with an error, or one that was renamed. In the summary, a category that is not documented counts
    /// as [`Category::UploadErrorUnknownType`].
    ///
    /// # Errors
    /// Those of the output.
    pub fn errored(&mut self, entity: &ErroredEntity) -> io::Result<()> {
        let category = Category::parse(&entity.category).unwrap_or(Category::UploadErrorUnknownType);
        match self.counts.iter_mut().find(|(known, _)| *known == category) {
            Some((_, count)) => *count += 1,
            None => self.counts.push((category, 1)),
        }
        self.buffer.clear();
        let out = &mut self.buffer;
        text(out, &["<ErroredEntity"]);
        if let Some(format) = &entity.cloud_format {
            attribute(out, "CloudFormat", format);
        }
        attribute(out, "Path", &entity.path);
        text(out, &[">\n"]);
        let lines = [
            ("Category", Some(entity.category.as_str())),
            ("ETag", entity.etag.as_deref()),
            ("ErrorCode", Some(&entity.error_code)),
            ("ErrorMessage", Some(&entity.error_message)),
            ("Type", Some(&entity.kind)),
        ];
        for (name, value) in lines {
            let Some(value) = value else { continue };
            text(out, &["  "]);
            element(out, name, value);
            text(out, &["\n"]);
        }
        text(out, &["</ErroredEntity>\n"]);
        self.out.write_all(&self.buffer)
    }

    /// Writes the summary, and returns the flushed output. `total`: files and blobs of the drive; `errored`: those that
    /// failed, without the renamed ones.
    ///
    /// # Errors
    /// Those of the output.
    pub fn finish(mut self, drive_id: &str, status: CopyStatus, total: u64, errored: u64) -> io::Result<W> {
        let mut out = b"<CopyLog Summary=\"Summary\">\n".to_vec();
        for (name, value) in [
            ("DriveLogVersion", VERSION_2),
            ("DriveId", drive_id),
            ("Status", status.as_str()),
            ("TotalFiles_Blobs", &total.to_string()),
            ("FilesErrored", &errored.to_string()),
        ] {
            text(&mut out, &["  "]);
            element(&mut out, name, value);
            text(&mut out, &["\n"]);
        }
        text(&mut out, &["  <Summary>\n    <ValidationErrors>\n      <None"]);
        attribute(&mut out, "Count", &total.to_string());
        text(&mut out, &[" />\n    </ValidationErrors>\n    <CopyErrors>\n"]);
        let mut count = |name: &str, count: u64, description: &str| {
            text(&mut out, &["      <", name]);
            attribute(&mut out, "Count", &count.to_string());
            attribute(&mut out, "Description", description);
            text(&mut out, &[" />\n"]);
        };
        if self.counts.is_empty() {
            count("None", total, "No errors encountered");
        }
        self.counts.iter().for_each(|(category, sum)| count(category.as_str(), *sum, category.description()));
        text(&mut out, &["    </CopyErrors>\n  </Summary>\n</CopyLog>\n"]);
        self.out.write_all(&out)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// A time as it stands in the names of logs: `yyyyMMdd-HHmmss-fff`, UTC.
pub fn stamp(at: jiff::Timestamp) -> String {
    at.strftime("%Y%m%d-%H%M%S-%3f").to_string()
}

/// An id as part of a file's name: it comes from a record, a drive or a journal, and may hold anything.
pub fn in_file_name(id: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.+=".contains(c);
    let name: String = id.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    if name.is_empty() { "drive".into() } else { name }
}

/// Name of a log of the first generation, below `waies/`: job, drive, [`stamp`].
pub fn drive_log_name(job: &str, drive_id: &str, stamp: &str, detail: Detail) -> String {
    let kind = match detail {
        Detail::Error => "error",
        Detail::Verbose => "verbose",
    };
    format!("{}_{}_{stamp}_{kind}.xml", in_file_name(job), in_file_name(drive_id))
}

/// Name of a log of the second generation: `kind` is `CopyLog` or `VerboseLog`.
pub fn copy_log_name(order: &str, serial: &str, kind: &str, job_id: &str) -> String {
    format!("{}_{}_{kind}_{job_id}.xml", in_file_name(order), in_file_name(serial))
}

/// A child of a blob on a line of its own.
fn line(out: &mut Vec<u8>, name: &str, value: Option<&str>) {
    let Some(value) = value else { return };
    text(out, &["    "]);
    element(out, name, value);
    text(out, &["\n"]);
}

fn attribute(out: &mut Vec<u8>, name: &str, value: &str) {
    text(out, &[" ", name, "=\""]);
    push_escaped(value, out);
    text(out, &["\""]);
}

fn hash(out: &mut Vec<u8>, digest: Option<Digest>) {
    if let Some(digest) = digest {
        attribute(out, "Hash", &digest.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Event, Reader, Summary};
    use super::*;

    fn read(log: &[u8]) -> Vec<Event> {
        let mut reader = Reader::new(log);
        std::iter::from_fn(|| reader.next_event().unwrap_or_else(|e| panic!("{}: {e}", String::from_utf8_lossy(log))))
            .collect()
    }

    fn blob(name: &str, status: BlobStatus, became: DispositionStatus, pieces: &[PieceStatus]) -> LogBlob {
        let piece = |(number, status): (usize, &PieceStatus)| LogPiece {
            offset: number as u64 * 512,
            length: 512,
            id: Some(format!("MD5/{number}")),
            hash: Some(Digest::Md5([number as u8; 16])),
            status: (*status).into(),
        };
        LogBlob {
            status: status.into(),
            blob_path: format!("box/{name}"),
            file_path: format!("\\session#1\\{name}"),
            length: Some(512 * pieces.len() as u64),
            disposition: Some(("rename".to_owned(), became.into())),
            pieces_kind: Some(Pieces::Blocks),
            pieces: pieces.iter().enumerate().map(piece).collect(),
            ..LogBlob::default()
        }
    }

    fn all() -> Vec<LogBlob> {
        use {BlobStatus as B, DispositionStatus as D, PieceStatus as P};
        let side = |status: SideStatus, digest| LogSide {
            status: status.into(),
            global: Some(("\\g <&>.xml".to_owned(), digest)),
            own: None,
        };
        let mut broken =
            blob("b & \"c\" <d>\u{85}", B::CompletedWithErrors, D::Overwritten, &[P::Completed, P::Corrupted]);
        broken.metadata = Some(side(SideStatus::Completed, Some(Digest::Md5([1; 16]))));
        broken.properties = Some(side(SideStatus::XmlReadFailed, Some(Digest::Sha256([2; 32]))));
        let mut exported = blob("\u{1F600}", B::Failed, D::Created, &[]);
        exported.disposition = None;
        (exported.snapshot, exported.last_modified) =
            (Some("2012-09-18T23:47:08.1234567Z".to_owned()), Some("2012-09-18T23:47:08Z".to_owned()));
        exported.properties = Some(LogSide { status: SideStatus::Failed.into(), ..LogSide::default() });
        vec![
            blob("a", B::Completed, D::Created, &[P::Completed, P::Completed]),
            broken,
            exported,
            blob("missing", B::FileNotFound, D::Cancelled, &[P::Cancelled]),
            blob("renamed (2)", B::Completed, D::Renamed, &[P::Completed]),
        ]
    }

    #[test]
    fn round_trip_of_the_first_generation() {
        let blobs = all();
        let mut log = DriveLog::begin(Vec::new(), Detail::Verbose, "WD & 1").expect("memory");
        blobs.iter().for_each(|blob| log.blob(blob).expect("memory"));
        assert_eq!(log.tally, Tally { blobs: 5, errors: 3, warnings: 1 });
        assert_eq!(log.tally.status(), DriveStatus::CompletedWithErrors);
        let bytes = log.finish(DriveStatus::CompletedWithErrors).expect("memory");
        let events = read(&bytes);
        assert_eq!(events[0], Event::Version("2014-11-01".into()));
        assert_eq!(events[1], Event::DriveId("WD & 1".into()));
        let mut read: Vec<LogBlob> = Vec::new();
        for event in &events[2..7] {
            let Event::Blob(blob) = event else { panic!("{event:?}") };
            read.push(LogBlob { line: 0, ..(**blob).clone() });
        }
        assert_eq!(read, blobs);
        assert_eq!(events[7..], [Event::DriveStatus("CompletedWithErrors".into())]);
    }

    #[test]
    fn a_log_of_errors_has_nothing_that_went_well() {
        let mut log = DriveLog::begin(Vec::new(), Detail::Error, "WD-1").expect("memory");
        all().iter().for_each(|blob| log.blob(blob).expect("memory"));
        let events = read(&log.finish(DriveStatus::CompletedWithErrors).expect("memory"));
        let blobs: Vec<&LogBlob> = events
            .iter()
            .filter_map(|event| if let Event::Blob(blob) = event { Some(&**blob) } else { None })
            .collect();
        assert_eq!(blobs.len(), 3, "{blobs:?}");
        assert_eq!(blobs[0].pieces.len(), 1);
        assert_eq!(blobs[0].pieces[0].status, "Corrupted");
        assert!(blobs[0].metadata.is_none() && blobs[0].properties.is_some());
        assert_eq!((blobs[1].pieces_kind, blobs[1].pieces.len()), (Some(Pieces::Blocks), 0));
        assert_eq!(blobs[2].pieces[0].status, "Cancelled");
    }

    #[test]
    fn round_trip_of_the_second_generation() {
        let file = LogFile {
            cloud_format: Some("PageBlob".into()),
            path: "$root\\a <b>.vhd".into(),
            size: Some(512),
            crc64: Some(u64::MAX),
            etag: Some("0x8D".into()),
        };
        let mut log = VerboseLog::new(Vec::new());
        log.file(&file).expect("memory");
        log.file(&LogFile { path: "c/d".into(), ..LogFile::default() }).expect("memory");
        let events = read(&log.finish().expect("memory"));
        assert_eq!(events[0], Event::File(Box::new(file)));
        assert_eq!(events.len(), 2);
        let entity = |category: &str, path: &str| ErroredEntity {
            cloud_format: Some("BlockBlob".into()),
            path: path.into(),
            category: category.into(),
            error_code: "2".into(),
            error_message: "not <found>".into(),
            kind: "File".into(),
            etag: None,
        };
        let mut log = CopyLog::new(Vec::new());
        let entities = [entity("UploadErrorWin32", "c/a"), entity("BlobRenamed", "c/b"), entity("later", "c/c")];
        entities.iter().for_each(|entity| log.errored(entity).expect("memory"));
        let events = read(&log.finish("WD-1", CopyStatus::SucceededWithErrors, 9, 2).expect("memory"));
        for (event, entity) in events.iter().zip(&entities) {
            assert_eq!(*event, Event::Errored(Box::new(entity.clone())));
        }
        let counts = [("None", 9), ("UploadErrorWin32", 1), ("BlobRenamed", 1), ("UploadErrorUnknownType", 1)];
        let counts = counts.iter().enumerate().map(|(at, (name, count))| {
            let section = if at == 0 { "ValidationErrors" } else { "CopyErrors" };
            (section.to_owned(), (*name).to_owned(), *count)
        });
        let summary = Summary {
            version: "2021-08-01".into(),
            drive_id: "WD-1".into(),
            status: "Succeeded with Errors".into(),
            total: Some(9),
            errored: Some(2),
            counts: counts.collect(),
        };
        assert_eq!(events[3..], [Event::Summary(Box::new(summary))]);
        let events = read(&CopyLog::new(Vec::new()).finish("WD-1", CopyStatus::Succeeded, 3, 0).expect("memory"));
        let [Event::Summary(summary)] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!(summary.counts[1], ("CopyErrors".to_owned(), "None".to_owned(), 3));
    }

    #[test]
    fn names_are_those_of_the_documentation() {
        let name = drive_log_name("myjob", "9WM35C2V", "20130921-034307-902", Detail::Error);
        assert_eq!(name, "myjob_9WM35C2V_20130921-034307-902_error.xml");
        assert_eq!(copy_log_name("order", "S1", "VerboseLog", "7"), "order_S1_VerboseLog_7.xml");
        // Whatever a record says, the name is one of a file in this directory.
        assert_eq!(copy_log_name("a#1", "../S 1", "CopyLog", "7"), "a_1_.._S_1_CopyLog_7.xml");
        assert_eq!(in_file_name(""), "drive");
    }

    #[test]
    fn a_drive_has_warnings_only_where_a_blob_is_not_as_sent() {
        let mut tally = Tally::default();
        let of = |became| blob("x", BlobStatus::Completed, became, &[PieceStatus::Completed]);
        tally.add(&of(DispositionStatus::Created));
        tally.add(&of(DispositionStatus::Overwritten));
        assert_eq!(tally.status(), DriveStatus::Completed);
        tally.add(&of(DispositionStatus::Skipped));
        assert_eq!(tally.status(), DriveStatus::CompletedWithWarnings);
        let committed =
            blob("x", BlobStatus::CompletedWithErrors, DispositionStatus::Created, &[PieceStatus::Committed]);
        tally.add(&committed);
        assert_eq!(tally.status(), DriveStatus::CompletedWithErrors);
        assert!(DriveStatus::ALL.iter().all(|status| DriveStatus::parse(status.as_str()) == Some(*status)));
    }
}
