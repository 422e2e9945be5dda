//! Copy logs that the service writes, both generations (docs/spec/import-export.md#copy-logs). Streamed.

mod write;

pub use write::{
    BlobStatus, Category, CopyLog, CopyStatus, Detail, DispositionStatus, DriveLog, DriveStatus, PieceStatus,
    SideStatus, Tally, VerboseLog, copy_log_name, drive_log_name, in_file_name, stamp,
};

use std::io::{BufRead, Chain, Cursor, Read as _};

use super::Digest;
use super::manifest::Pieces;
use super::xml::{Steps, XmlError, XmlEvent};
use crate::limits;
use crate::text::Utf8;

/// Whether a status means success. The words are kept verbatim: later services may use others.
pub fn is_success(status: &str) -> bool {
    // `Committed` means that the list is incomplete or its commit failed, so it is no success.
    matches!(status, "Completed" | "Created" | "Renamed" | "Skipped" | "Overwritten")
}

/// A block or page range of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPiece {
    /// Offset in the file.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
    /// `Id` of a block.
    pub id: Option<String>,
    /// Hash of the piece: MD5 or SHA-256.
    pub hash: Option<Digest>,
    /// `Completed`, `Corrupted`, …
    pub status: String,
}

/// Metadata or properties of a blob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSide {
    /// `Completed`, `FileNotFound`, …
    pub status: String,
    /// File for the whole list, and its hash.
    pub global: Option<(String, Option<Digest>)>,
    /// File for this blob, and its hash.
    pub own: Option<(String, Option<Digest>)>,
}

/// A blob of a log of the first generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogBlob {
    /// Line of its start tag.
    pub line: u64,
    /// `Completed`, `CompletedWithErrors`, `FileNotFound`, …
    pub status: String,
    /// Container and name; the new name after a rename.
    pub blob_path: String,
    /// Path on the drive.
    pub file_path: String,
    /// Length in bytes, if the log gives it.
    pub length: Option<u64>,
    /// Snapshot, on exports.
    pub snapshot: Option<String>,
    /// Last change, on exports.
    pub last_modified: Option<String>,
    /// Disposition and its result.
    pub disposition: Option<(String, String)>,
    /// Kind of its pieces.
    pub pieces_kind: Option<Pieces>,
    /// Pieces listed in the log: error logs list only failed ones.
    pub pieces: Vec<LogPiece>,
    /// Result for the blob's metadata file.
    pub metadata: Option<LogSide>,
    /// Result for the blob's properties file.
    pub properties: Option<LogSide>,
}

impl LogBlob {
    /// Whether everything about the blob succeeded.
    pub fn is_success(&self) -> bool {
        is_success(&self.status)
            && self.pieces.iter().all(|p| is_success(&p.status))
            && [&self.metadata, &self.properties].into_iter().flatten().all(|s| is_success(&s.status))
    }

    /// Category, code and words of the second generation for a blob that failed; `None` for one whose status says that it
    /// succeeded. The codes are those of Windows where there is one (docs/spec/import-export.md#generation-2-copy-log shows
    /// 267 and 123), 400 for requests, and 0 where neither is known.
    pub fn failure(&self) -> Option<(Category, u32, &'static str)> {
        use {BlobStatus as S, Category as C, PieceStatus as P};
        let has = |wanted: P| self.pieces.iter().any(|piece| piece.status == wanted.as_str());
        Some(match BlobStatus::parse(&self.status) {
            Some(S::Completed) => return None,
            Some(S::FileNameInvalid) => (C::UploadErrorWin32, 123, "the name of the file is invalid"),
            Some(S::FileNameTooLong) => (C::UploadErrorWin32, 206, "the name of the file is too long"),
            Some(S::FileNotFound) => (C::UploadErrorWin32, 2, "the file is not found"),
            Some(S::FileAccessDenied) => (C::UploadErrorWin32, 5, "access to the file is denied"),
            Some(S::IOFailed) => (C::UploadErrorWin32, 1117, "the file cannot be read"),
            Some(S::CompletedWithErrors) if has(P::IOFailed) => (C::UploadErrorWin32, 1117, "the file cannot be read"),
            Some(S::CompletedWithErrors) if has(P::FileUnexpectedEnd) => {
                (C::UploadErrorWin32, 38, "the file ends too early")
            }
            _ if has(P::Corrupted) => (C::UploadErrorDataValidationError, 0, "the content is not that of the manifest"),
            Some(S::CompletedWithErrors) => (C::UploadErrorCloudHttp, 400, "metadata or properties could not be set"),
            Some(S::BlobRequestFailed | S::BlobRequestForbidden | S::LeasePresent) => {
                (C::UploadErrorCloudHttp, 400, "the request was refused")
            }
            _ => (C::UploadErrorUnknownType, 0, "unknown failure"),
        })
    }
}

/// `ErroredEntity` of the second generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErroredEntity {
    /// `BlockBlob`, `PageBlob`, `AzureFile`.
    pub cloud_format: Option<String>,
    /// Container and name.
    pub path: String,
    /// `UploadErrorWin32`, `BlobRenamed`, …
    pub category: String,
    /// Number as text.
    pub error_code: String,
    /// The service's explanation, in words.
    pub error_message: String,
    /// `File`, `Directory`, ….
    pub kind: String,
    /// ETag of the blob; on exports only.
    pub etag: Option<String>,
}

/// `File` of a verbose log of the second generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFile {
    /// `BlockBlob`, `PageBlob`, `AzureFile`.
    pub cloud_format: Option<String>,
    /// Container and name, verbatim: imports can show `\` after the container.
    pub path: String,
    /// Length in bytes, if the log gives it.
    pub size: Option<u64>,
    /// CRC-64 of the content.
    pub crc64: Option<u64>,
    /// ETag of the blob; on exports only.
    pub etag: Option<String>,
}

/// `CopyLog` of the second generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// `2021-08-01`.
    pub version: String,
    /// Serial of the drive.
    pub drive_id: String,
    /// Status of the drive.
    pub status: String,
    /// Files and blobs in all.
    pub total: Option<u64>,
    /// Files and blobs with errors.
    pub errored: Option<u64>,
    /// Counts of errors by the log's names: section, category, count.
    pub counts: Vec<(String, String, u64)>,
}

/// Elements of a copy log, in file order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// `Version` of a `DriveLog`; the samples of the repair page have none.
    Version(String),
    /// Serial of the drive.
    DriveId(String),
    /// A blob of a first-generation log.
    Blob(Box<LogBlob>),
    /// Status of the drive: the last element in a `DriveLog`.
    DriveStatus(String),
    /// An entity with an error.
    Errored(Box<ErroredEntity>),
    /// A copied file.
    File(Box<LogFile>),
    /// The summary at the end of a second-generation log.
    Summary(Box<Summary>),
}

/// A streaming reader of either generation.
#[derive(Debug)]
pub struct Reader<R> {
    steps: Steps<Rooted<R>>,
    in_drive_log: bool,
    started: bool,
}

/// The second generation has no root element, so the reader adds one. Its length is subtracted from byte positions.
const ROOT_OPEN: &[u8] = b"<log>";
const ROOT_CLOSE: &[u8] = b"</log>";

type Literal = Cursor<&'static [u8]>;
type Rooted<R> = Chain<Literal, Chain<Utf8<R>, Literal>>;

impl<R: BufRead> Reader<R> {
    /// A reader from the first byte of a log.
    pub fn new(input: R) -> Self {
        // Decoded separately: after our root's start tag a byte order mark would be text.
        let rest = Utf8::new(input).chain(Cursor::new(ROOT_CLOSE));
        let steps = Steps::new(Cursor::new(ROOT_OPEN).chain(rest), limits::XML_STEP_MAX);
        Self { steps, in_drive_log: false, started: false }
    }

    /// The next event; `None` at the end of a complete log.
    ///
    /// # Errors
    /// The file is not well-formed, no copy log, or past a limit. No further event can be read then.
    pub fn next_event(&mut self) -> Result<Option<Event>, XmlError> {
        self.step().map_err(|mut e| {
            e.byte = e.byte.saturating_sub(ROOT_OPEN.len() as u64);
            e
        })
    }

    fn step(&mut self) -> Result<Option<Event>, XmlError> {
        loop {
            let (name, attributes, empty) = match self.steps.next()? {
                XmlEvent::Text(text) if text.trim().is_empty() => continue,
                XmlEvent::Text(_) => return Err(self.steps.error("text where elements belong")),
                XmlEvent::End => {
                    if self.steps.depth == 1 {
                        self.in_drive_log = false;
                    }
                    continue;
                }
                XmlEvent::Eof if !self.started => return Err(self.steps.error("holds no copy log")),
                XmlEvent::Eof => return Ok(None),
                XmlEvent::Start { name, attributes, empty } => (name, attributes, empty),
            };
            // The root that we bring.
            if self.steps.depth == 1 && !empty {
                continue;
            }
            let event = if self.in_drive_log {
                self.drive_element(&name, &attributes, empty)?
            } else {
                self.started = true;
                self.top_element(&name, &attributes, empty)?
            };
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    /// Takes an element of a `DriveLog`.
    fn drive_element(
        &mut self,
        name: &str,
        attributes: &[(String, String)],
        empty: bool,
    ) -> Result<Option<Event>, XmlError> {
        Ok(Some(match name {
            "DriveId" => Event::DriveId(self.text(name, empty)?),
            "Status" => Event::DriveStatus(self.text(name, empty)?),
            "Blob" => {
                let mut blob = LogBlob {
                    line: self.steps.line(),
                    status: attribute(attributes, "Status").unwrap_or_default(),
                    ..LogBlob::default()
                };
                if !empty {
                    self.blob(&mut blob)?;
                }
                Event::Blob(Box::new(blob))
            }
            // Later logs may say more.
            _ => {
                self.pass(empty)?;
                return Ok(None);
            }
        }))
    }

    /// Takes an element that no other holds: the one of the first generation, or one of those of the second.
    fn top_element(
        &mut self,
        name: &str,
        attributes: &[(String, String)],
        empty: bool,
    ) -> Result<Option<Event>, XmlError> {
        let get = |key: &str| attribute(attributes, key);
        Ok(Some(match name {
            "DriveLog" => {
                self.in_drive_log = !empty;
                return Ok(get("Version").map(Event::Version));
            }
            "File" => {
                let file = LogFile {
                    cloud_format: get("CloudFormat"),
                    path: get("Path").unwrap_or_default(),
                    size: get("Size").and_then(|t| t.trim().parse().ok()),
                    crc64: get("crc64").and_then(|t| t.trim().parse().ok()),
                    etag: get("ETag"),
                };
                self.pass(empty)?;
                Event::File(Box::new(file))
            }
            "ErroredEntity" => {
                let mut entity = ErroredEntity {
                    cloud_format: get("CloudFormat"),
                    path: get("Path").unwrap_or_default(),
                    ..ErroredEntity::default()
                };
                self.children(empty, |this, name, _, empty| {
                    let text = this.text(name, empty)?;
                    match name {
                        "Category" => entity.category = text,
                        "ErrorCode" => entity.error_code = text,
                        "ErrorMessage" => entity.error_message = text,
                        "Type" => entity.kind = text,
                        "ETag" => entity.etag = Some(text),
                        _ => {}
                    }
                    Ok(())
                })?;
                Event::Errored(Box::new(entity))
            }
            "CopyLog" => Event::Summary(Box::new(self.summary(empty)?)),
            _ => return Err(self.steps.error(format!("element {name} is of no copy log"))),
        }))
    }

    fn summary(&mut self, empty: bool) -> Result<Summary, XmlError> {
        let mut summary = Summary::default();
        self.children(empty, |this, name, _, empty| {
            match name {
                "DriveLogVersion" => summary.version = this.text(name, empty)?,
                "DriveId" => summary.drive_id = this.text(name, empty)?,
                "Status" => summary.status = this.text(name, empty)?,
                "TotalFiles_Blobs" => summary.total = this.text(name, empty)?.parse().ok(),
                "FilesErrored" => summary.errored = this.text(name, empty)?.parse().ok(),
                "Summary" => this.counts(empty, &mut summary)?,
                _ => this.pass(empty)?,
            }
            Ok(())
        })?;
        Ok(summary)
    }

    /// Calls `each` for every child of the element whose start was just read, up to its end.
    fn children(
        &mut self,
        empty: bool,
        mut each: impl FnMut(&mut Self, &str, &[(String, String)], bool) -> Result<(), XmlError>,
    ) -> Result<(), XmlError> {
        if empty {
            return Ok(());
        }
        loop {
            match self.steps.next()? {
                XmlEvent::Start { name, attributes, empty } => each(self, &name, &attributes, empty)?,
                XmlEvent::Text(_) => {}
                XmlEvent::End => return Ok(()),
                XmlEvent::Eof => return Err(self.steps.error("ends within an element")),
            }
        }
    }

    fn counts(&mut self, empty: bool, summary: &mut Summary) -> Result<(), XmlError> {
        self.children(empty, |this, section, _, empty| {
            this.children(empty, |this, name, attributes, empty| {
                let count = attribute(attributes, "Count").and_then(|t| t.trim().parse().ok());
                if let Some(count) = count
                    && summary.counts.len() < limits::FAULTS_MAX
                {
                    summary.counts.push((section.to_owned(), name.to_owned(), count));
                }
                this.pass(empty)
            })
        })
    }

    fn blob(&mut self, blob: &mut LogBlob) -> Result<(), XmlError> {
        self.children(false, |this, name, attributes, empty| {
            let status = || attribute(attributes, "Status").unwrap_or_default();
            match name {
                "BlobPath" => blob.blob_path = this.verbatim(name, empty)?,
                // The names of the original path and length in logs of 2018-10-01 for renamed blobs.
                "FilePath" | "OriginalFilePath" => blob.file_path = this.verbatim(name, empty)?,
                "Length" | "SizeInBytes" => blob.length = this.text(name, empty)?.parse().ok(),
                "Snapshot" => blob.snapshot = Some(this.text(name, empty)?),
                "LastModified" => blob.last_modified = Some(this.text(name, empty)?),
                "ImportDisposition" => blob.disposition = Some((this.text(name, empty)?, status())),
                "PageRangeList" | "BlockList" => {
                    let kind = if name == "BlockList" { Pieces::Blocks } else { Pieces::Pages };
                    blob.pieces_kind = Some(kind);
                    let pieces = &mut blob.pieces;
                    this.children(empty, |this, name, attributes, empty| {
                        let mut number = |key: &str| match attribute(attributes, key).map(|t| t.trim().parse()) {
                            Some(Ok(value)) => Ok(value),
                            _ => Err(this.steps.error(format!("{name} has no legible {key}"))),
                        };
                        let (offset, length) = (number("Offset")?, number("Length")?);
                        if pieces.len() >= limits::BLOB_PIECES_MAX {
                            return Err(this.steps.error("blob has too many blocks or ranges to hold"));
                        }
                        pieces.push(LogPiece {
                            offset,
                            length,
                            id: attribute(attributes, "Id"),
                            hash: hash(attributes),
                            status: attribute(attributes, "Status").unwrap_or_default(),
                        });
                        this.pass(empty)
                    })?;
                }
                "Metadata" | "Properties" => {
                    let mut side = LogSide { status: status(), ..LogSide::default() };
                    this.children(empty, |this, name, attributes, empty| {
                        let path = this.verbatim(name, empty)?;
                        match name {
                            "GlobalPath" => side.global = Some((path, hash(attributes))),
                            "Path" => side.own = Some((path, hash(attributes))),
                            _ => {}
                        }
                        Ok(())
                    })?;
                    *if name == "Metadata" { &mut blob.metadata } else { &mut blob.properties } = Some(side);
                }
                _ => this.pass(empty)?,
            }
            Ok(())
        })
    }

    fn pass(&mut self, empty: bool) -> Result<(), XmlError> {
        if empty { Ok(()) } else { self.steps.skip() }
    }

    fn verbatim(&mut self, name: &str, empty: bool) -> Result<String, XmlError> {
        if empty { Ok(String::new()) } else { self.steps.text(name, limits::XML_STEP_MAX) }
    }

    fn text(&mut self, name: &str, empty: bool) -> Result<String, XmlError> {
        Ok(self.verbatim(name, empty)?.trim().to_owned())
    }
}

fn attribute(attributes: &[(String, String)], name: &str) -> Option<String> {
    attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
}

fn hash(attributes: &[(String, String)]) -> Option<Digest> {
    attribute(attributes, "Hash").and_then(|text| Digest::parse(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the published verbose log: blanks in hashes, one corrupted range.
    const VERBOSE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<DriveLog Version="2014-11-01">
  <DriveId>WD-WMATV123456</DriveId>
  <Blob Status="Completed">
    <BlobPath>pictures/bob/wild/desert.jpg</BlobPath>
    <FilePath>\Users\bob\Pictures\wild\desert.jpg</FilePath>
    <Length>98304</Length>
    <ImportDisposition Status="Created">overwrite</ImportDisposition>
    <BlockList>
      <Block Offset="0" Length="65536" Id="AAAAAA==" Hash=" 9C8AE14A55241F98533C4D80D85CDC68" Status="Completed"/>
      <Block Offset="65536" Length="32768" Id="AQAAAA==" Hash=" DF54C531C9B3CA2570FDDDB3BCD0E27D" Status="Completed"/>
    </BlockList>
    <Metadata Status="Completed">
      <GlobalPath Hash=" E34F54B7086BCF4EC1601D056F4C7E37">\Users\bob\Pictures\wild\metadata.xml</GlobalPath>
    </Metadata>
  </Blob>
  <Blob Status="CompletedWithErrors">
    <BlobPath>pictures/bob/animals/koala.jpg</BlobPath>
    <FilePath>\Users\bob\Pictures\animals\koala.jpg</FilePath>
    <Length>163840</Length>
    <ImportDisposition Status="Overwritten">overwrite</ImportDisposition>
    <PageRangeList>
      <PageRange Offset="0" Length="65536" Hash="19701B8877418393CB3CB567F53EE225" Status="Completed"/>
      <PageRange Offset="65536" Length="65536" Hash="AA2585F6F6FD01C4AD4256E018240CD4" Status="Corrupted"/>
    </PageRangeList>
    <Properties Status="Completed">
      <Path Hash="38D7AE80653F47F63C0222FEE90EC4E7">\Users\bob\Pictures\animals\koala.jpg.properties</Path>
    </Properties>
  </Blob>
  <Status>CompletedWithErrors</Status>
</DriveLog>
"#;

    /// Exports: no version, change time before the length, empty list, failed properties.
    const EXPORT: &str = r#"<DriveLog><DriveId>9WM35C3U</DriveId><Blob Status="CompletedWithErrors">
        <BlobPath>pictures/wild/canyon.jpg</BlobPath><FilePath>\pictures\wild\canyon.jpg</FilePath>
        <LastModified>2012-09-18T23:47:08Z</LastModified><Length>163840</Length><BlockList />
        <Properties Status="Failed" /></Blob><Status>CompletedWithErrors</Status></DriveLog>"#;

    /// The second generation: elements in a row, without root.
    const SECOND: &str = r#"<ErroredEntity CloudFormat="AppendBlob" Path="c/a (1).nupkg">
  <Category>UploadErrorCloudHttp</Category>
  <ErrorCode>400</ErrorCode>
  <ErrorMessage>UnsupportBlobType</ErrorMessage>
  <Type>File</Type>
</ErroredEntity><CopyLog Summary="Summary">
  <DriveLogVersion>2021-08-01</DriveLogVersion>
  <DriveId>72a2914a</DriveId>
  <Status>Succeeded with Errors</Status>
  <TotalFiles_Blobs>56</TotalFiles_Blobs>
  <FilesErrored>1</FilesErrored>
  <Summary>
    <ValidationErrors><None Count="3" /></ValidationErrors>
    <CopyErrors><ShareRenamed Count="56" Description="Renamed the share" /></CopyErrors>
  </Summary>
</CopyLog>"#;

    fn all(text: &str) -> Vec<Event> {
        let mut reader = Reader::new(text.as_bytes());
        std::iter::from_fn(|| reader.next_event().unwrap_or_else(|e| panic!("{text}: {e}"))).collect()
    }

    #[test]
    fn a_long_log_in_utf_16_is_the_same_log() {
        let file =
            "<File CloudFormat=\"BlockBlob\" Path=\"c/\u{e9}\u{1F600}\" Size=\"1\" crc64=\"2\">\n</File>\n".repeat(500);
        let wanted = all(&file);
        assert_eq!(wanted.len(), 500);
        for (mark, little) in [("\u{FEFF}", true), ("\u{FEFF}", false), ("", true), ("", false)] {
            let units = format!("{mark}{file}").encode_utf16().collect::<Vec<_>>();
            let bytes: Vec<u8> =
                units.iter().flat_map(|unit| if little { unit.to_le_bytes() } else { unit.to_be_bytes() }).collect();
            let mut reader = Reader::new(&bytes[..]);
            let events: Vec<Event> = std::iter::from_fn(|| reader.next_event().expect("a log")).collect();
            assert_eq!(events, wanted, "{mark:?} {little}");
        }
    }

    #[test]
    fn first_generation_is_read() {
        for text in [VERBOSE.to_owned(), format!("\u{FEFF}{VERBOSE}")] {
            let events = all(&text);
            assert_eq!(events[0], Event::Version("2014-11-01".into()));
            assert_eq!(events[1], Event::DriveId("WD-WMATV123456".into()));
            assert_eq!(events[4], Event::DriveStatus("CompletedWithErrors".into()));
            assert_eq!(events.len(), 5);
            let [Event::Blob(desert), Event::Blob(koala)] = &events[2..4] else { panic!("{events:?}") };
            assert!(desert.is_success() && !koala.is_success());
            assert_eq!(desert.disposition, Some(("overwrite".into(), "Created".into())));
            assert_eq!((desert.pieces_kind, desert.pieces.len()), (Some(Pieces::Blocks), 2));
            assert!(desert.pieces[0].hash.is_some());
            let (path, hash) = desert.metadata.as_ref().unwrap().global.as_ref().unwrap();
            assert!(path.ends_with("\\metadata.xml") && hash.is_some());
            assert_eq!(koala.pieces[1].status, "Corrupted");
            assert!(koala.properties.as_ref().unwrap().own.is_some());
            assert_eq!(koala.length, Some(163840));
        }
        let events = all(EXPORT);
        let Event::Blob(canyon) = &events[1] else { panic!("{events:?}") };
        assert_eq!((canyon.length, canyon.last_modified.as_deref()), (Some(163840), Some("2012-09-18T23:47:08Z")));
        assert_eq!((canyon.pieces_kind, canyon.pieces.len()), (Some(Pieces::Blocks), 0));
        assert_eq!(canyon.properties.as_ref().unwrap().status, "Failed");
        assert!(!canyon.is_success());
    }

    #[test]
    fn second_generation_without_root_is_read() {
        let events = all(SECOND);
        assert_eq!(events.len(), 2);
        let Event::Errored(entity) = &events[0] else { panic!("{events:?}") };
        assert_eq!((entity.path.as_str(), entity.category.as_str()), ("c/a (1).nupkg", "UploadErrorCloudHttp"));
        assert_eq!((entity.error_code.as_str(), entity.kind.as_str()), ("400", "File"));
        let Event::Summary(summary) = &events[1] else { panic!("{events:?}") };
        assert_eq!((summary.total, summary.errored), (Some(56), Some(1)));
        let counts = [("ValidationErrors", "None", 3), ("CopyErrors", "ShareRenamed", 56)];
        assert_eq!(summary.counts, counts.map(|(a, b, n)| (a.to_owned(), b.to_owned(), n)));
        let events = all(concat!(
            "\u{FEFF}<File CloudFormat=\"BlockBlob\" Path=\"c/8mb\" Size=\"8388608\" crc64=\"13526033021067702820\">\n</File>",
            "<File CloudFormat=\"PageBlob\" Path=\"$root\\file.vhd\" Size=\"512\" crc64=\"1\" ETag=\"0x8D\"/>\n",
        ));
        let [Event::File(first), Event::File(second)] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!((first.size, first.crc64), (Some(8388608), Some(13526033021067702820)));
        assert_eq!((second.path.as_str(), second.etag.as_deref()), ("$root\\file.vhd", Some("0x8D")));
    }

    #[test]
    fn what_is_no_copy_log_is_an_error_with_its_place() {
        let end = |text: &str| {
            let mut reader = Reader::new(text.as_bytes());
            loop {
                match reader.next_event() {
                    Ok(Some(_)) => {}
                    Ok(None) => return None,
                    Err(e) => return Some(e),
                }
            }
        };
        for text in
            ["", "x", "<DriveManifest/>", "<DriveLog>", "<DriveLog></log>", "<CopyLog><Status>x</CopyLog>", "</log>"]
        {
            assert!(end(text).is_some(), "{text}");
        }
        for cut in (1..VERBOSE.len() - 14).step_by(17) {
            assert!(end(&VERBOSE[..cut]).is_some(), "cut at {cut}");
        }
        let e = end(&VERBOSE.replacen("Offset=\"65536\"", "Offset=\"x\"", 1)).unwrap();
        assert_eq!((e.line, e.what.as_str()), (11, "Block has no legible Offset"));
        assert!(VERBOSE[..e.byte as usize].lines().count().abs_diff(11) <= 1);
    }

    #[test]
    fn hostile_logs_never_panic() {
        use dray_base::entropy::Seeded;
        let mut random = Seeded::new(11);
        for base in [VERBOSE, EXPORT, SECOND] {
            for _ in 0..6000 {
                let mut bytes = base.as_bytes().to_vec();
                for _ in 0..1 + random.next_u64() % 4 {
                    let at = (random.next_u64() % bytes.len() as u64) as usize;
                    bytes[at] = [b'<', b'>', b'/', b'"', b'&', b'9', 0, 0xFF][(random.next_u64() % 8) as usize];
                }
                let mut reader = Reader::new(bytes.as_slice());
                while let Ok(Some(_)) = reader.next_event() {}
            }
        }
    }
}
