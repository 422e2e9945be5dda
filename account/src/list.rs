//! Parsers of the service's XML answers: listings, block lists, page lists, errors.

use std::fmt;

use dray_engine::api::azure::{XmlError, XmlStep, XmlSteps, base64};

use crate::sign::decoded;

/// Longest text of an element: metadata is 8 KiB, a name 1024 characters.
const TEXT_MAX: usize = 64 << 10;

/// One of the three kinds of blob.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BlobKind {
    /// Of blocks.
    #[default]
    Block,
    /// Of pages.
    Page,
    /// Of blocks that are appended.
    Append,
}

impl BlobKind {
    /// From the service's word.
    pub fn parse(text: &str) -> Option<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "blockblob" => Some(Self::Block),
            "pageblob" => Some(Self::Page),
            "appendblob" => Some(Self::Append),
            _ => None,
        }
    }

    /// The service's word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Block => "BlockBlob",
            Self::Page => "PageBlob",
            Self::Append => "AppendBlob",
        }
    }
}

/// A blob as a listing has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blob {
    /// Name in its container.
    pub name: String,
    /// Time of the snapshot, if it is one.
    pub snapshot: Option<String>,
    /// Bytes.
    pub length: u64,
    /// Kind.
    pub kind: BlobKind,
    /// `Hot`, `Archive`, …, if the account has tiers.
    pub tier: Option<String>,
    /// On its way out of the archive: `rehydrate-pending-to-hot`, ….
    pub archive_status: Option<String>,
    /// Content-MD5, set by the uploader, or by the service for blobs of a single request.
    pub md5: Option<[u8; 16]>,
    /// Changes with the blob.
    pub etag: String,
    /// As the service writes it.
    pub last_modified: String,
    /// Content-Type.
    pub content_type: String,
    /// Content-Encoding.
    pub content_encoding: String,
    /// Content-Language.
    pub content_language: String,
    /// Cache-Control.
    pub cache_control: String,
    /// Names and values, if they were asked for.
    pub metadata: Vec<(String, String)>,
    /// `leased` while a client holds a lease.
    pub lease: Option<String>,
}

/// Additional contents of a listing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Include {
    /// Snapshots too.
    pub snapshots: bool,
    /// Metadata of each.
    pub metadata: bool,
}

impl Include {
    pub(crate) fn words(self) -> String {
        let words = [(self.snapshots, "snapshots"), (self.metadata, "metadata")];
        words.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect::<Vec<_>>().join(",")
    }
}

/// A range of a page blob: start, length, and whether it was cleared.
pub type PageRange = (u64, u64, bool);

/// A page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In the service's order: by name, then by snapshot, the blob itself last.
    pub blobs: Vec<Blob>,
    /// Marker of the next page; `None` at the end.
    pub next: Option<String>,
}

/// Reason why an answer cannot be understood.
#[derive(Debug, PartialEq, Eq)]
pub struct Unclear(String);

impl fmt::Display for Unclear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for Unclear {
    fn from(what: String) -> Self {
        Self(what)
    }
}

impl From<&str> for Unclear {
    fn from(what: &str) -> Self {
        Self(what.into())
    }
}

impl From<XmlError> for Unclear {
    fn from(error: XmlError) -> Self {
        Self(error.to_string())
    }
}

/// Reads a page of blobs.
///
/// # Errors
/// The defect.
pub fn blobs(bytes: &[u8]) -> Result<Page, Unclear> {
    let mut steps = XmlSteps::new(bytes, TEXT_MAX);
    let mut page = Page::default();
    let mut blob: Option<Blob> = None;
    let mut is_metadata = false;
    let mut seen_root = false;
    loop {
        let (name, attributes, empty) = match steps.next()? {
            XmlStep::Start { name, attributes, empty } => (name, attributes, empty),
            XmlStep::End => {
                // Elements that are open: EnumerationResults, Blobs, Blob, Properties or Metadata.
                if steps.depth == 2 {
                    page.blobs.extend(blob.take());
                } else if steps.depth == 3 {
                    is_metadata = false;
                }
                continue;
            }
            XmlStep::Text(_) => continue,
            XmlStep::Eof if !seen_root => return Err("is no listing".into()),
            XmlStep::Eof => return Ok(page),
        };
        if !seen_root {
            if name != "EnumerationResults" {
                return Err(format!("is no listing: its root is {name}").into());
            }
            seen_root = true;
            continue;
        }
        match name.as_str() {
            "Blob" if steps.depth == 3 => {
                blob = Some(Blob::default());
                continue;
            }
            "Properties" | "Blobs" if !empty => continue,
            "Metadata" if !empty => {
                is_metadata = true;
                continue;
            }
            _ => {}
        }
        if empty {
            continue;
        }
        let text = match (&blob, name.as_str()) {
            // Tags, legal holds and what comes later have elements of their own.
            (Some(_), "Tags" | "OrMetadata") => {
                steps.skip()?;
                continue;
            }
            _ => steps.text(&name, TEXT_MAX)?,
        };
        let Some(blob) = &mut blob else {
            if name == "NextMarker" && !text.is_empty() {
                page.next = Some(text);
            }
            continue;
        };
        if is_metadata {
            blob.metadata.push((name, text));
            continue;
        }
        let is_encoded = attributes.iter().any(|(key, value)| key == "Encoded" && value == "true");
        set(blob, &name, text, is_encoded)?;
    }
}

/// Takes an element of a blob; those that nobody asks for are passed over.
fn set(blob: &mut Blob, name: &str, text: String, is_encoded: bool) -> Result<(), Unclear> {
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    match name {
        "Name" => blob.name = if is_encoded { decoded(&text) } else { text },
        "Snapshot" => blob.snapshot = some(text),
        "Content-Length" => blob.length = text.trim().parse().map_err(|_| format!("a length is {text}"))?,
        "BlobType" => blob.kind = BlobKind::parse(&text).ok_or_else(|| format!("a kind of blob is {text}"))?,
        "AccessTier" => blob.tier = some(text),
        "ArchiveStatus" => blob.archive_status = some(text),
        "Content-MD5" => blob.md5 = md5(&text),
        "Etag" => blob.etag = text,
        "Last-Modified" => blob.last_modified = text,
        "Content-Type" => blob.content_type = text,
        "Content-Encoding" => blob.content_encoding = text,
        "Content-Language" => blob.content_language = text,
        "Cache-Control" => blob.cache_control = text,
        "LeaseState" => blob.lease = some(text),
        _ => {}
    }
    Ok(())
}

/// Names of containers, and where the next page begins.
///
/// # Errors
/// The defect.
pub fn containers(bytes: &[u8]) -> Result<(Vec<String>, Option<String>), Unclear> {
    let mut steps = XmlSteps::new(bytes, TEXT_MAX);
    let (mut names, mut next) = (Vec::new(), None);
    loop {
        match steps.next()? {
            XmlStep::Start { name, empty: false, .. } if name == "Name" => {
                names.push(steps.text(&name, TEXT_MAX)?);
            }
            XmlStep::Start { name, empty: false, .. } if name == "NextMarker" => {
                next = Some(steps.text(&name, TEXT_MAX)?).filter(|text| !text.is_empty());
            }
            XmlStep::Eof => return Ok((names, next)),
            _ => {}
        }
    }
}

/// Blocks of a blob in their order: id as the service writes it, and length.
///
/// # Errors
/// The defect.
pub fn blocks(bytes: &[u8], list: &str) -> Result<Vec<(String, u64)>, Unclear> {
    let mut steps = XmlSteps::new(bytes, TEXT_MAX);
    let (mut out, mut inside, mut id) = (Vec::new(), false, String::new());
    loop {
        match steps.next()? {
            XmlStep::Start { name, empty, .. } => match name.as_str() {
                "CommittedBlocks" | "UncommittedBlocks" => inside = name == list && !empty,
                "Name" if !empty => id = steps.text(&name, TEXT_MAX)?,
                "Size" if !empty => {
                    let text = steps.text(&name, TEXT_MAX)?;
                    let size = text.trim().parse().map_err(|_| format!("a block's size is {text}"))?;
                    if inside {
                        out.push((std::mem::take(&mut id), size));
                    }
                }
                _ => {}
            },
            XmlStep::Eof => return Ok(out),
            _ => {}
        }
    }
}

/// Ranges of a page blob: start, length, and whether it was cleared.
///
/// # Errors
/// The defect.
pub fn pages(bytes: &[u8]) -> Result<(Vec<PageRange>, Option<String>), Unclear> {
    let mut steps = XmlSteps::new(bytes, TEXT_MAX);
    let (mut out, mut next) = (Vec::new(), None);
    let (mut start, mut is_clear) = (0u64, false);
    loop {
        match steps.next()? {
            XmlStep::Start { name, empty: false, .. } => match name.as_str() {
                "PageRange" => is_clear = false,
                "ClearRange" => is_clear = true,
                "Start" | "End" => {
                    let text = steps.text(&name, TEXT_MAX)?;
                    let number: u64 = text.trim().parse().map_err(|_| format!("a range's {name} is {text}"))?;
                    if name == "Start" {
                        start = number;
                    } else if let Some(len) = number.checked_sub(start).and_then(|len| len.checked_add(1)) {
                        out.push((start, len, is_clear));
                    } else {
                        return Err(format!("a range ends at {number}, before its start at {start}").into());
                    }
                }
                "NextMarker" => {
                    next = Some(steps.text(&name, TEXT_MAX)?).filter(|text| !text.is_empty());
                }
                _ => {}
            },
            XmlStep::Eof => return Ok((out, next)),
            _ => {}
        }
    }
}

/// Code and message of an error's body.
pub fn error(bytes: &[u8]) -> Option<(String, String)> {
    let mut steps = XmlSteps::new(bytes, TEXT_MAX);
    let (mut code, mut message) = (None, None);
    while let Ok(step) = steps.next() {
        match step {
            XmlStep::Start { name, empty: false, .. } if name == "Code" => code = steps.text(&name, TEXT_MAX).ok(),
            XmlStep::Start { name, empty: false, .. } if name == "Message" => {
                message = steps.text(&name, TEXT_MAX).ok()
            }
            XmlStep::Eof => break,
            _ => {}
        }
    }
    // What follows the first line are a request's id and the time.
    let message = message.unwrap_or_default().lines().next().unwrap_or_default().chars().take(300).collect();
    Some((code?, message))
}

/// An MD5 from its base64.
pub fn md5(text: &str) -> Option<[u8; 16]> {
    base64::decode(text.trim())?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_in_the_published_form_is_read() {
        let page = blobs(
            "\u{FEFF}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ServiceEndpoint=\"https://a/\" ContainerName=\"c\">\
             <Prefix>p</Prefix><MaxResults>2</MaxResults><Blobs><Blob><Name>p/a &amp; b</Name>\
             <Snapshot>2026-11-29T08:00:00.0000000Z</Snapshot><Properties><Last-Modified>Sun, 29 Nov 2026 08:00:00 GMT</Last-Modified>\
             <Etag>0x8D</Etag><Content-Length>7</Content-Length><Content-Type>text/plain</Content-Type><Content-Encoding />\
             <Content-MD5>1B2M2Y8AsgTpgAmY7PhCfg==</Content-MD5><BlobType>BlockBlob</BlobType><AccessTier>Archive</AccessTier>\
             <LeaseState>available</LeaseState></Properties><Metadata><Name>x</Name><year>1999</year></Metadata>\
             <Tags><TagSet><Tag><Key>k</Key><Value>v</Value></Tag></TagSet></Tags></Blob>\
             <Blob><Name Encoded=\"true\">p%EF%BF%BE</Name><Properties><Content-Length>512</Content-Length><BlobType>PageBlob</BlobType>\
             <Content-MD5 /></Properties><OrMetadata /></Blob></Blobs><NextMarker>2!8</NextMarker></EnumerationResults>"
                .as_bytes(),
        )
        .expect("a page");
        assert_eq!(page.next.as_deref(), Some("2!8"));
        let [first, second] = page.blobs.as_slice() else { panic!("{page:?}") };
        assert_eq!((first.name.as_str(), first.length, first.kind), ("p/a & b", 7, BlobKind::Block));
        assert_eq!(first.metadata, [("Name".into(), "x".into()), ("year".to_owned(), "1999".to_owned())]);
        assert_eq!((first.tier.as_deref(), first.content_type.as_str()), (Some("Archive"), "text/plain"));
        assert!(first.md5.is_some() && first.snapshot.is_some() && second.md5.is_none() && second.snapshot.is_none());
        assert_eq!((second.name.as_str(), second.kind, second.length), ("p\u{FFFE}", BlobKind::Page, 512));
        let last = blobs(b"<EnumerationResults><Blobs /><NextMarker /></EnumerationResults>").expect("a page");
        assert_eq!(last, Page::default());
        for bad in [
            "",
            "<Error/>",
            "<EnumerationResults><Blobs><Blob>",
            "<EnumerationResults><Blobs><Blob><Properties><Content-Length>x</Content-Length></Properties></Blob></Blobs></EnumerationResults>",
        ] {
            assert!(blobs(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn lists_of_blocks_and_pages_are_read() {
        let text = b"<BlockList><CommittedBlocks><Block><Name>QQ==</Name><Size>4</Size></Block><Block><Name>Qg==</Name>\
                     <Size>3</Size></Block></CommittedBlocks><UncommittedBlocks><Block><Name>Qw==</Name><Size>9</Size></Block>\
                     </UncommittedBlocks></BlockList>";
        assert_eq!(blocks(text, "CommittedBlocks"), Ok(vec![("QQ==".into(), 4), ("Qg==".into(), 3)]));
        assert_eq!(blocks(text, "UncommittedBlocks"), Ok(vec![("Qw==".into(), 9)]));
        let text = b"<PageList><PageRange><Start>0</Start><End>511</End></PageRange><ClearRange><Start>512</Start><End>1023</End>\
                     </ClearRange></PageList>";
        assert_eq!(pages(text), Ok((vec![(0, 512, false), (512, 512, true)], None)));
        assert!(pages(b"<PageList><PageRange><Start>9</Start><End>1</End></PageRange></PageList>").is_err());
        let (code, message) = error(
            b"<?xml version=\"1.0\"?><Error><Code>BlobNotFound</Code><Message>Gone.\nRequestId:1</Message></Error>",
        )
        .expect("an error");
        assert_eq!((code.as_str(), message.as_str()), ("BlobNotFound", "Gone."));
        assert!(error(b"<html>").is_none());
    }
}
