//! Reads manifests: ours, Microsoft's of any version, and damaged ones. Streamed, in constant memory.

use std::io::BufRead;

use super::super::Digest;
use super::super::dataset::Disposition;
use super::super::xml::{Steps, XmlError, XmlEvent};
use crate::limits;

/// A metadata or properties file named by a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SideRef {
    /// Path on the drive.
    pub path: String,
    /// Hash of its bytes, if given and legible.
    pub hash: Option<Digest>,
}

/// The part of a list before its first blob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListHead {
    /// `Id`, seen in the output of the V2 tool.
    pub id: Option<String>,
    /// Metadata file for every blob of the list.
    pub metadata: Option<SideRef>,
    /// Properties file for every blob of the list.
    pub properties: Option<SideRef>,
}

/// Whether a blob is described by blocks or page ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pieces {
    /// `BlockList`.
    Blocks,
    /// `PageRangeList`.
    Pages,
}

/// A block or page range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Offset in the file.
    pub offset: u64,
    /// Length of the block or range in bytes.
    pub length: u64,
    /// `Id` of a block.
    pub id: Option<Box<str>>,
    /// Hash, if given and legible; otherwise a [`ManifestFault`] names the reason.
    pub hash: Option<Digest>,
}

/// The part of a blob before its blocks or ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlobStart {
    /// Line of its start tag.
    pub line: u64,
    /// `container/name`, verbatim.
    pub blob_path: String,
    /// Path on the drive, verbatim.
    pub file_path: String,
    /// Bytes; 0 where [`BlobStart::is_length_wrong`].
    pub length: u64,
    /// It has no `Length`, or one that is no number.
    pub is_length_wrong: bool,
    /// Time of the snapshot that was exported.
    pub snapshot: Option<String>,
    /// `ClientData`.
    pub client_data: Option<String>,
    /// `ImportDisposition`, verbatim.
    pub disposition: Option<String>,
    /// Kind of the pieces that follow; `None` when the blob has no list.
    pub pieces: Option<Pieces>,
}

/// The part of a blob after its blocks or ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlobEnd {
    /// Metadata of this blob.
    pub metadata: Option<SideRef>,
    /// Properties of this blob.
    pub properties: Option<SideRef>,
    /// Faults of the blob's entry that did not end the reading; the first few.
    pub faults: Vec<String>,
}

/// A blob with all its pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blob {
    /// The part before the pieces.
    pub start: BlobStart,
    /// Blocks or ranges in file order.
    pub pieces: Vec<Piece>,
    /// The part after them.
    pub end: BlobEnd,
}

/// An event of the reader, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// `Version` of the manifest, verbatim.
    Version(String),
    /// Serial of the drive.
    DriveId(String),
    /// The manifest carries a storage key or signature in clear text: `StorageAccountKey` or `ContainerSas`. The value
    /// is not kept.
    Credential(&'static str),
    /// Name of the program that wrote it.
    ClientCreator(String),
    /// A list begins.
    ListStart(ListHead),
    /// A blob begins.
    BlobStart(Box<BlobStart>),
    /// A block or range of it.
    Piece(Piece),
    /// The blob ends.
    BlobEnd(BlobEnd),
    /// The list ends.
    ListEnd,
}

/// A fault that does not end the reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestFault {
    /// Line, from 1.
    pub line: u64,
    /// Byte offset in the file.
    pub byte: u64,
    /// The fault, in words.
    pub what: String,
}

/// Faults of one blob that are kept with it.
const OF_BLOB_MAX: usize = 8;

/// A streaming reader.
#[derive(Debug)]
pub struct Reader<R> {
    steps: Steps<R>,
    at: At,
    /// Events not yet returned: an empty element or a head may give several.
    queued: std::collections::VecDeque<Event>,
    faults: Vec<ManifestFault>,
    faults_in_all: u64,
    end: BlobEnd,
    /// Faults of the blob that is being read.
    of_blob: Vec<String>,
    list: Option<ListHead>,
    seen_drive_id: bool,
    seen_blobs: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Prolog,
    Manifest,
    Drive,
    List,
    /// In the list element of a blob, after [`Event::BlobStart`].
    Pieces(Pieces),
    /// After the list element of a blob, before its end tag.
    BlobTail,
    Done,
}

impl<R: BufRead> Reader<R> {
    /// A reader from the first byte of a manifest.
    pub fn new(input: R) -> Self {
        Self {
            steps: Steps::new(input, limits::XML_STEP_MAX),
            at: At::Prolog,
            queued: std::collections::VecDeque::new(),
            faults: Vec::new(),
            faults_in_all: 0,
            end: BlobEnd::default(),
            of_blob: Vec::new(),
            list: None,
            seen_drive_id: false,
            seen_blobs: false,
        }
    }

    /// Faults so far that did not end the reading; the first [`limits::FAULTS_MAX`] of [`Reader::faults_in_all`].
    pub fn faults(&self) -> &[ManifestFault] {
        &self.faults
    }

    /// Number of faults so far.
    pub fn faults_in_all(&self) -> u64 {
        self.faults_in_all
    }

    /// The next event; `None` at the end of a complete manifest.
    ///
    /// # Errors
    /// The file is not well-formed, not a manifest, or past a limit. No further event can be read then.
    pub fn next_event(&mut self) -> Result<Option<Event>, XmlError> {
        loop {
            if let Some(event) = self.queued.pop_front() {
                return Ok(Some(event));
            }
            if self.at == At::Done {
                return Ok(None);
            }
            self.advance()?;
        }
    }

    /// The next blob with its pieces, skipping everything else; `None` at the end. At most [`limits::BLOB_PIECES_MAX`]
    /// pieces.
    ///
    /// # Errors
    /// As [`Reader::next_event`].
    pub fn next_blob(&mut self) -> Result<Option<Blob>, XmlError> {
        let mut blob = Blob::default();
        while let Some(event) = self.next_event()? {
            match event {
                Event::BlobStart(start) => blob = Blob { start: *start, ..Blob::default() },
                Event::Piece(_) if blob.pieces.len() >= limits::BLOB_PIECES_MAX => {
                    return Err(self.steps.error("blob has too many blocks or ranges to hold"));
                }
                Event::Piece(piece) => blob.pieces.push(piece),
                Event::BlobEnd(end) => {
                    blob.end = end;
                    return Ok(Some(blob));
                }
                Event::Version(_)
                | Event::DriveId(_)
                | Event::Credential(_)
                | Event::ClientCreator(_)
                | Event::ListStart(_)
                | Event::ListEnd => {}
            }
        }
        Ok(None)
    }

    fn fault(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.faults_in_all += 1;
        if self.of_blob.len() < OF_BLOB_MAX {
            self.of_blob.push(what.clone());
        }
        if self.faults.len() < limits::FAULTS_MAX {
            let fault = ManifestFault { line: self.steps.line(), byte: self.steps.byte(), what };
            self.faults.push(fault);
        }
    }

    fn advance(&mut self) -> Result<(), XmlError> {
        let step = self.steps.next()?;
        match (self.at, step) {
            (_, XmlEvent::Text(text)) => {
                if !text.trim().is_empty() {
                    self.fault("text where elements belong");
                }
            }
            (At::Prolog, XmlEvent::Start { name, attributes, empty }) => self.in_prolog(&name, &attributes, empty)?,
            (At::Prolog, XmlEvent::Eof) => return Err(self.steps.error("holds no DriveManifest")),
            (At::Manifest, XmlEvent::Start { name, empty, .. }) if name == "Drive" => {
                if !empty {
                    self.at = At::Drive;
                }
            }
            (At::Manifest, XmlEvent::End) => {
                self.pass_rest()?;
                self.at = At::Done;
            }
            (At::Drive, XmlEvent::Start { name, attributes, empty }) => self.in_drive(&name, &attributes, empty)?,
            (At::Drive, XmlEvent::End) => {
                if !self.seen_drive_id {
                    self.fault("manifest has no DriveId");
                }
                self.at = At::Manifest;
            }
            (At::List, XmlEvent::Start { name, attributes, empty }) => self.in_list(&name, &attributes, empty)?,
            (At::List, XmlEvent::End) => {
                self.open_list();
                self.queued.push_back(Event::ListEnd);
                self.at = At::Drive;
            }
            (At::Pieces(kind), XmlEvent::Start { name, attributes, empty }) => {
                self.in_pieces(kind, &name, &attributes, empty)?;
            }
            (At::Pieces(_), XmlEvent::End) => self.at = At::BlobTail,
            (At::BlobTail, XmlEvent::Start { name, attributes, empty }) => self.in_tail(&name, &attributes, empty)?,
            (At::BlobTail, XmlEvent::End) => {
                self.end_blob();
                self.at = At::List;
            }
            (_, XmlEvent::Start { name, empty, .. }) => {
                self.fault(format!("element {name} is not known here"));
                self.pass(empty)?;
            }
            (_, XmlEvent::End | XmlEvent::Eof) => return Err(self.steps.error("ends too early")),
        }
        Ok(())
    }

    fn in_prolog(&mut self, name: &str, attributes: &[(String, String)], empty: bool) -> Result<(), XmlError> {
        if name != "DriveManifest" {
            return Err(self.steps.error(format!("begins with {name}, not DriveManifest")));
        }
        match attribute(attributes, "Version") {
            Some(version) => self.queued.push_back(Event::Version(version.to_owned())),
            None => self.fault("DriveManifest has no Version"),
        }
        self.at = At::Manifest;
        if empty {
            self.fault("manifest holds no Drive");
            self.at = At::Done;
        }
        Ok(())
    }

    /// Reads to the end of the file. Only comments and blanks may follow the root.
    fn pass_rest(&mut self) -> Result<(), XmlError> {
        match self.steps.next()? {
            XmlEvent::Eof => Ok(()),
            XmlEvent::Text(text) if text.trim().is_empty() => {
                if !matches!(self.steps.next()?, XmlEvent::Eof) {
                    return Err(self.steps.error("continues after its end"));
                }
                Ok(())
            }
            _ => Err(self.steps.error("continues after its end")),
        }
    }

    fn in_pieces(
        &mut self,
        kind: Pieces,
        name: &str,
        attributes: &[(String, String)],
        empty: bool,
    ) -> Result<(), XmlError> {
        let wanted = match kind {
            Pieces::Blocks => "Block",
            Pieces::Pages => "PageRange",
        };
        if name == wanted {
            if let Some(piece) = self.piece(name, attributes) {
                self.queued.push_back(Event::Piece(piece));
            }
        } else {
            self.fault(format!("{name} where {wanted} belongs"));
        }
        self.pass(empty)
    }

    fn pass(&mut self, empty: bool) -> Result<(), XmlError> {
        if empty { Ok(()) } else { self.steps.skip() }
    }

    fn text(&mut self, name: &str, empty: bool) -> Result<String, XmlError> {
        if empty { Ok(String::new()) } else { self.steps.text(name, limits::XML_STEP_MAX) }
    }

    fn in_drive(&mut self, name: &str, attributes: &[(String, String)], empty: bool) -> Result<(), XmlError> {
        match name {
            "DriveId" => {
                let id = self.text(name, empty)?.trim().to_owned();
                if self.seen_blobs {
                    self.fault("DriveId comes after blobs");
                }
                self.seen_drive_id = true;
                self.queued.push_back(Event::DriveId(id));
            }
            "StorageAccountKey" | "ContainerSas" => {
                drop(zeroize::Zeroizing::new(self.text(name, empty)?));
                let name = if name == "ContainerSas" { "ContainerSas" } else { "StorageAccountKey" };
                self.queued.push_back(Event::Credential(name));
            }
            "ClientCreator" => {
                let text = self.text(name, empty)?;
                self.queued.push_back(Event::ClientCreator(text));
            }
            "BlobList" => {
                let head = ListHead { id: attribute(attributes, "Id").map(str::to_owned), ..ListHead::default() };
                self.list = Some(head);
                self.seen_blobs = true;
                if empty {
                    self.open_list();
                    self.queued.push_back(Event::ListEnd);
                } else {
                    self.at = At::List;
                }
            }
            _ => {
                self.fault(format!("element {name} is not known here"));
                self.pass(empty)?;
            }
        }
        Ok(())
    }

    /// Returns the head of the list, once.
    fn open_list(&mut self) {
        if let Some(head) = self.list.take() {
            self.queued.push_back(Event::ListStart(head));
        }
    }

    fn in_list(&mut self, name: &str, attributes: &[(String, String)], empty: bool) -> Result<(), XmlError> {
        match name {
            "MetadataPath" | "PropertiesPath" => {
                let side = self.side(name, attributes, empty)?;
                match &mut self.list {
                    Some(head) if name == "MetadataPath" => head.metadata = Some(side),
                    Some(head) => head.properties = Some(side),
                    None => self.fault(format!("{name} of a list comes after blobs")),
                }
            }
            "Blob" => {
                self.open_list();
                if empty {
                    self.fault("blob is empty");
                } else {
                    self.blob()?;
                }
            }
            _ => {
                self.fault(format!("element {name} is not known here"));
                self.pass(empty)?;
            }
        }
        Ok(())
    }

    /// Reads a blob up to its list of pieces, or to its end if it has none.
    fn blob(&mut self) -> Result<(), XmlError> {
        let mut start = BlobStart { line: self.steps.line(), ..BlobStart::default() };
        let mut has_length = false;
        self.end = BlobEnd::default();
        self.of_blob.clear();
        loop {
            match self.steps.next()? {
                XmlEvent::Text(text) if text.trim().is_empty() => {}
                XmlEvent::Text(_) => self.fault("text where elements belong"),
                XmlEvent::Start { name, attributes, empty } => match name.as_str() {
                    "BlobPath" => start.blob_path = self.text(&name, empty)?,
                    "FilePath" => start.file_path = self.text(&name, empty)?,
                    "ClientData" => start.client_data = Some(self.text(&name, empty)?),
                    "Snapshot" => start.snapshot = Some(self.text(&name, empty)?.trim().to_owned()),
                    "ImportDisposition" => start.disposition = Some(self.text(&name, empty)?.trim().to_owned()),
                    "Length" => {
                        let text = self.text(&name, empty)?;
                        match text.trim().parse() {
                            Ok(length) => (start.length, has_length) = (length, true),
                            Err(_) => {
                                (start.is_length_wrong, has_length) = (true, true);
                                self.fault(format!("Length is no number: {text:?}"));
                            }
                        }
                    }
                    "BlockList" | "PageRangeList" => {
                        let kind = if name == "BlockList" { Pieces::Blocks } else { Pieces::Pages };
                        start.pieces = Some(kind);
                        self.at = if empty { At::BlobTail } else { At::Pieces(kind) };
                        self.start_blob(start, has_length);
                        return Ok(());
                    }
                    _ => self.in_tail(&name, &attributes, empty)?,
                },
                XmlEvent::End => {
                    self.start_blob(start, has_length);
                    self.end_blob();
                    return Ok(());
                }
                XmlEvent::Eof => return Err(self.steps.error("ends too early")),
            }
        }
    }

    fn end_blob(&mut self) {
        let faults = std::mem::take(&mut self.of_blob);
        let end = BlobEnd { faults, ..std::mem::take(&mut self.end) };
        self.queued.push_back(Event::BlobEnd(end));
    }

    fn start_blob(&mut self, mut start: BlobStart, has_length: bool) {
        start.is_length_wrong |= !has_length;
        for (missing, name) in [
            (start.blob_path.is_empty(), "BlobPath"),
            (start.file_path.is_empty(), "FilePath"),
            (!has_length, "Length"),
        ] {
            if missing {
                self.fault(format!("blob {:?} has no {name}", start.blob_path));
            }
        }
        self.queued.push_back(Event::BlobStart(Box::new(start)));
    }

    fn in_tail(&mut self, name: &str, attributes: &[(String, String)], empty: bool) -> Result<(), XmlError> {
        match name {
            "MetadataPath" => self.end.metadata = Some(self.side(name, attributes, empty)?),
            "PropertiesPath" => self.end.properties = Some(self.side(name, attributes, empty)?),
            _ => {
                self.fault(format!("element {name} is not known here"));
                self.pass(empty)?;
            }
        }
        Ok(())
    }

    fn side(&mut self, name: &str, attributes: &[(String, String)], empty: bool) -> Result<SideRef, XmlError> {
        let hash = self.hash(name, attributes);
        Ok(SideRef { path: self.text(name, empty)?, hash })
    }

    fn hash(&mut self, name: &str, attributes: &[(String, String)]) -> Option<Digest> {
        match attribute(attributes, "Hash") {
            None => {
                self.fault(format!("{name} has no Hash"));
                None
            }
            Some(text) => {
                let hash = Digest::parse(text);
                if hash.is_none() {
                    self.fault(format!("Hash of {name} is neither 32 nor 64 hex digits: {text:?}"));
                }
                hash
            }
        }
    }

    /// A block or range; one without offset or length is useless, and invalidates its blob alone.
    fn piece(&mut self, name: &str, attributes: &[(String, String)]) -> Option<Piece> {
        let number = |key: &str| attribute(attributes, key).and_then(|text| text.trim().parse::<u64>().ok());
        let (Some(offset), Some(length)) = (number("Offset"), number("Length")) else {
            let key = if number("Offset").is_none() { "Offset" } else { "Length" };
            self.fault(format!("{name} has no legible {key}"));
            return None;
        };
        let id = attribute(attributes, "Id").map(Into::into);
        Some(Piece { offset, length, id, hash: self.hash(name, attributes) })
    }
}

impl Blob {
    /// Whether the pieces account for every byte of the blob: blocks from end to end, ranges in order and inside.
    pub fn is_covered(&self) -> bool {
        let length = self.start.length;
        let Some(kind) = self.start.pieces else { return true };
        let mut next = 0u64;
        for piece in &self.pieces {
            let fits = match kind {
                Pieces::Blocks => piece.offset == next,
                Pieces::Pages => piece.offset >= next,
            };
            match piece.offset.checked_add(piece.length) {
                Some(end) if fits && end <= length => next = end,
                _ => return false,
            }
        }
        // Without any block a blob of up to 64 MiB is one block.
        kind == Pieces::Pages || next == length || self.pieces.is_empty()
    }

    /// Faults that the service would find in the blob's description (docs/spec/import-export.md#manifest-grammar);
    /// empty when there is none.
    pub fn check(&self) -> Vec<String> {
        let mut out = Vec::new();
        let length = self.start.length;
        if let Some(text) = self.start.disposition.as_deref().filter(|text| Disposition::parse(text).is_none()) {
            out.push(format!("ImportDisposition is {text:?}, which is none of rename, no-overwrite and overwrite"));
        }
        let Some(kind) = self.start.pieces else {
            // A block blob of up to 64 MiB may go without.
            return out;
        };
        let mut next = 0u64;
        for piece in &self.pieces {
            if piece.offset < next {
                out.push(format!("piece at {} overlaps the one before it or is out of order", piece.offset));
            }
            if kind == Pieces::Blocks && piece.offset > next {
                out.push(format!("block at {} leaves a gap before it", piece.offset));
            }
            match piece.offset.checked_add(piece.length) {
                Some(end) if end <= length => next = next.max(end),
                _ => out.push(format!("piece at {} reaches past the blob's {length} bytes", piece.offset)),
            }
            if kind == Pieces::Pages && !(piece.offset.is_multiple_of(512) && piece.length.is_multiple_of(512)) {
                out.push(format!("page range at {} is not a multiple of 512", piece.offset));
            }
            if kind == Pieces::Pages && piece.length > 4 << 20 {
                out.push(format!("page range at {} is longer than 4 MiB", piece.offset));
            }
            if out.len() >= limits::FAULTS_MAX {
                return out;
            }
        }
        match kind {
            Pieces::Blocks => {
                if next != length {
                    out.push(format!("blocks cover {next} of {length} bytes"));
                }
                if self.pieces.len() > 50_000 {
                    out.push(format!("{} blocks, 50000 at most", self.pieces.len()));
                }
                let named = self.pieces.iter().filter(|p| p.id.is_some()).count();
                if named != 0 && named != self.pieces.len() {
                    out.push("some blocks have an Id and some have none".into());
                }
                let mut lens = self.pieces.iter().filter_map(|p| Some(p.id.as_ref()?.len()));
                let first = lens.next();
                if lens.any(|len| Some(len) != first) {
                    out.push("block ids are not of one length".into());
                }
            }
            Pieces::Pages => {
                if !length.is_multiple_of(512) {
                    out.push(format!("length {length} of a page blob is not a multiple of 512"));
                }
            }
        }
        out
    }
}

fn attribute<'a>(attributes: &'a [(String, String)], name: &str) -> Option<&'a str> {
    attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}
