//! Writes the manifest: grammar of version 2014-11-01, in its order, without credentials.
//!
//! The length of every part is known before its hashes, so that its place on the drive can be planned: exact for even
//! blocks, an upper bound for others and for page blobs, whose ranges depend on the zeros in them. Nothing holds a whole
//! manifest.

use super::super::dataset::Disposition;
use super::super::digest::push_hex;
use super::super::xml::{element, escaped_len, push_escaped, text};
use super::super::{Md5, base64};
use super::ranges::runs_max;

const DECLARATION: &[u8] = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
const VERSION: &str = "2014-11-01";

/// Greatest length of a page range or block in the documented grammar, and the unit of page blobs here.
const PAGE_CHUNK: u64 = 4 << 20;

/// A metadata or properties file on the drive: path with backslashes from the root, and MD5 of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SideFile<'a> {
    /// `\session#1\…\metadata.xml`.
    pub path: &'a str,
    /// MD5 of the file's bytes.
    pub hash: Md5,
}

/// A list of blobs that share metadata and properties: one for each row of the dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListFacts<'a> {
    /// Id of the session; ids of lists begin with it. Empty on an export drive, whose lists have none.
    pub session: &'a str,
    /// Number of the list in the session, from 0; `Id` is `session#1-0`.
    pub number: u32,
    /// Metadata file for every blob in it.
    pub metadata: Option<SideFile<'a>>,
    /// Properties file for every blob in it.
    pub properties: Option<SideFile<'a>>,
}

/// Kind of a blob's description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Blocks of `block_len` bytes without gap, the last one shorter.
    Blocks {
        /// Length of a block, from [`super::super::names::blocks_of`].
        block_len: u64,
    },
    /// Blocks of various lengths, as an account has them.
    Listed {
        /// Number of blocks.
        count: u64,
    },
    /// Page ranges: the non-zero runs in each 4 MiB of the file.
    Pages,
}

/// Facts of a blob before it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobFacts<'a> {
    /// `container/name`.
    pub blob_path: &'a str,
    /// Path of the file on the drive: `\session#1\…`.
    pub file_path: &'a str,
    /// Length of the blob in bytes.
    pub length: u64,
    /// Blocks or pages.
    pub layout: Layout,
    /// Treatment of an existing blob; `None` on an export drive.
    pub disposition: Option<Disposition>,
    /// Time of the snapshot that was exported.
    pub snapshot: Option<&'a str>,
    /// Longest id of its blocks in characters as XML escapes them, where they are written by [`write_named_block`].
    pub id_len_max: Option<u64>,
    /// Metadata file for this blob alone, in place of the list's.
    pub metadata: Option<SideFile<'a>>,
    /// Properties file for this blob alone, in place of the list's.
    pub properties: Option<SideFile<'a>>,
}

/// A block with its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Offset in the file.
    pub offset: u64,
    /// Length of the block in bytes; the last one of a blob may be shorter.
    pub length: u64,
    /// MD5 of the block.
    pub hash: Md5,
}

/// A page range with its hash: offset and length are multiples of 512, length at most 4 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRange {
    /// Offset in the file.
    pub offset: u64,
    /// Length of the range in bytes, a multiple of 512.
    pub length: u64,
    /// MD5 of the range.
    pub hash: Md5,
}

/// Hashes of a blob's contents.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// MD5 of each block, in order.
    Blocks(&'a [Md5]),
    /// Ranges in ascending order.
    Pages(&'a [PageRange]),
}

/// The bytes from the declaration to `ClientCreator`. Never a storage key or signature.
pub fn header(drive_id: &str, version: &str) -> Vec<u8> {
    let mut out = DECLARATION.to_vec();
    text(&mut out, &["<DriveManifest Version=\"", VERSION, "\">\n<Drive>\n"]);
    element(&mut out, "DriveId", drive_id);
    out.push(b'\n');
    element(&mut out, "ClientCreator", &format!("dray {version}"));
    out.push(b'\n');
    out
}

/// Whether the contents of a `DriveId` element, as found in a file, are this id.
pub fn is_drive_id(stands: &str, drive_id: &str) -> bool {
    let mut escaped = Vec::new();
    push_escaped(drive_id, &mut escaped);
    stands.trim().as_bytes() == escaped
}

/// The end tags of drive and manifest.
pub fn footer() -> &'static [u8] {
    b"</Drive>\n</DriveManifest>\n"
}

/// Opens a list.
pub fn list_open(list: &ListFacts<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    if list.session.is_empty() {
        text(&mut out, &["<BlobList>\n"]);
    } else {
        text(&mut out, &["<BlobList Id=\""]);
        push_escaped(list.session, &mut out);
        text(&mut out, &["-", &list.number.to_string(), "\">\n"]);
    }
    side_file(&mut out, METADATA, list.metadata);
    side_file(&mut out, PROPERTIES, list.properties);
    out
}

/// Closes a list.
pub fn list_close() -> &'static [u8] {
    b"</BlobList>\n"
}

/// Bytes that [`write_blob`] appends at most, known before the file is read; exact for even blocks.
pub fn blob_xml_len(blob: &BlobFacts<'_>) -> u64 {
    let lengths = Lengths::of(blob);
    lengths.open + lengths.pieces + lengths.close
}

/// Appends a whole blob. [`blob_open`], [`write_block`] or [`write_page_range`], and [`blob_close`] do the same in
/// pieces, for blobs whose description is itself large.
///
/// # Panics
/// The number of hashes is not that of the blob's blocks, or `content` is not of the blob's layout: a bug.
pub fn write_blob(out: &mut Vec<u8>, blob: &BlobFacts<'_>, content: Content<'_>) {
    blob_open(out, blob);
    match (blob.layout, content) {
        (Layout::Blocks { block_len }, Content::Blocks(hashes)) => {
            assert_eq!(hashes.len() as u64, blob.length.div_ceil(block_len), "one hash for each block");
            let mut offset = 0;
            for hash in hashes {
                let length = block_len.min(blob.length - offset);
                write_block(out, &Block { offset, length, hash: *hash });
                offset += length;
            }
        }
        (Layout::Pages, Content::Pages(ranges)) => ranges.iter().for_each(|range| write_page_range(out, range)),
        _ => panic!("content of another layout"),
    }
    blob_close(out, blob);
}

/// Appends a blob up to its first block or range.
pub fn blob_open(out: &mut Vec<u8>, blob: &BlobFacts<'_>) {
    out.extend_from_slice(b"<Blob>\n");
    element(out, "BlobPath", blob.blob_path);
    element(out, "FilePath", blob.file_path);
    if let Some(snapshot) = blob.snapshot {
        element(out, "Snapshot", snapshot);
    }
    out.extend_from_slice(b"<Length>");
    number(out, blob.length);
    out.extend_from_slice(b"</Length>");
    if let Some(disposition) = blob.disposition {
        element(out, "ImportDisposition", disposition.as_str());
    }
    out.push(b'\n');
    let tag = list_tag(blob.layout);
    text(out, &["<", tag, ">\n"]);
}

/// Appends a block with an id of the blob's own.
pub fn write_named_block(out: &mut Vec<u8>, block: &Block, id: &str) {
    block_open(out, block);
    out.extend_from_slice(b"\" Id=\"");
    push_escaped(id, out);
    hash_and_end(out, &block.hash);
}

/// Id of block `number` as exports of the service have them: a 32-bit little-endian counter
/// (docs/spec/import-export.md#manifest-grammar).
pub fn counter_id(number: u32) -> String {
    let mut out = Vec::with_capacity(COUNTER_ID_LEN as usize);
    base64::encode(&number.to_le_bytes(), &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// Characters of such an id.
pub const COUNTER_ID_LEN: u64 = 8;

fn block_open(out: &mut Vec<u8>, block: &Block) {
    out.extend_from_slice(b"<Block Offset=\"");
    number(out, block.offset);
    out.extend_from_slice(b"\" Length=\"");
    number(out, block.length);
}

/// Appends a block.
pub fn write_block(out: &mut Vec<u8>, block: &Block) {
    block_open(out, block);
    // `MD5/` and the hash, as the tool's own block ids are: of one length, as the service demands.
    out.extend_from_slice(b"\" Id=\"MD5/");
    base64::encode(&block.hash, out);
    hash_and_end(out, &block.hash);
}

/// Appends a page range.
pub fn write_page_range(out: &mut Vec<u8>, range: &PageRange) {
    debug_assert!(range.offset.is_multiple_of(512) && range.length.is_multiple_of(512) && range.length <= PAGE_CHUNK);
    out.extend_from_slice(b"<PageRange Offset=\"");
    number(out, range.offset);
    out.extend_from_slice(b"\" Length=\"");
    number(out, range.length);
    hash_and_end(out, &range.hash);
}

/// Appends the part after the last block or range.
pub fn blob_close(out: &mut Vec<u8>, blob: &BlobFacts<'_>) {
    let tag = list_tag(blob.layout);
    text(out, &["</", tag, ">\n"]);
    side_file(out, METADATA, blob.metadata);
    side_file(out, PROPERTIES, blob.properties);
    out.extend_from_slice(b"</Blob>\n");
}

const METADATA: &str = "MetadataPath";
const PROPERTIES: &str = "PropertiesPath";

const fn list_tag(layout: Layout) -> &'static str {
    match layout {
        Layout::Blocks { .. } | Layout::Listed { .. } => "BlockList",
        Layout::Pages => "PageRangeList",
    }
}

fn side_file(out: &mut Vec<u8>, name: &str, file: Option<SideFile<'_>>) {
    let Some(file) = file else { return };
    text(out, &["<", name, " Hash=\""]);
    push_hex(&file.hash, out);
    out.extend_from_slice(b"\">");
    push_escaped(file.path, out);
    text(out, &["</", name, ">\n"]);
}

fn element_len(name: &str, value: &str) -> u64 {
    (2 * name.len() + "<></>".len()) as u64 + escaped_len(value)
}

fn side_file_len(name: &str, file: Option<SideFile<'_>>) -> u64 {
    file.map_or(0, |file| (2 * name.len() + "< Hash=\"\"></>\n".len() + 32) as u64 + escaped_len(file.path))
}

fn hash_and_end(out: &mut Vec<u8>, hash: &Md5) {
    out.extend_from_slice(b"\" Hash=\"");
    push_hex(hash, out);
    out.extend_from_slice(b"\" />\n");
}

/// Decimal digits, without the formatting machinery: there are six million blocks on a drive of 24 TB.
fn number(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

const fn digits(value: u64) -> u64 {
    match value.checked_ilog10() {
        Some(log) => log as u64 + 1,
        None => 1,
    }
}

const BLOCK_FIXED: u64 = "<Block Offset=\"\" Length=\"\" Id=\"\" Hash=\"\" />\n".len() as u64 + 32;
const MD5_ID_LEN: u64 = "MD5/".len() as u64 + 24;
const RANGE_FIXED: u64 = "<PageRange Offset=\"\" Length=\"\" Hash=\"\" />\n".len() as u64 + 32;

struct Lengths {
    open: u64,
    pieces: u64,
    close: u64,
}

impl Lengths {
    fn of(blob: &BlobFacts<'_>) -> Self {
        let tag = list_tag(blob.layout).len() as u64;
        let fixed = "<Blob>\n<BlobPath></BlobPath><FilePath></FilePath><Length></Length>\n<>\n";
        let open = fixed.len() as u64
            + escaped_len(blob.blob_path)
            + escaped_len(blob.file_path)
            + digits(blob.length)
            + blob.disposition.map_or(0, |disposition| element_len("ImportDisposition", disposition.as_str()))
            + blob.snapshot.map_or(0, |snapshot| element_len("Snapshot", snapshot))
            + tag;
        let close = "</>\n</Blob>\n".len() as u64
            + tag
            + side_file_len(METADATA, blob.metadata)
            + side_file_len(PROPERTIES, blob.properties);
        let pieces = match blob.layout {
            Layout::Blocks { block_len } => {
                let count = blob.length.div_ceil(block_len);
                let whole = blob.length / block_len;
                let tail = blob.length % block_len;
                let lengths = whole * digits(block_len) + if tail > 0 { digits(tail) } else { 0 };
                let ids = blob.id_len_max.unwrap_or(MD5_ID_LEN);
                count * (BLOCK_FIXED + ids) + lengths + digits_of_multiples(block_len, count)
            }
            // An upper bound.
            Layout::Listed { count } => {
                count * (BLOCK_FIXED + blob.id_len_max.unwrap_or(MD5_ID_LEN) + 2 * digits(blob.length))
            }
            Layout::Pages => {
                // In each chunk every other granule may be zero; the last chunk is shorter.
                let (whole, tail) = (blob.length / PAGE_CHUNK, blob.length % PAGE_CHUNK);
                let runs = whole * runs_max(PAGE_CHUNK) + runs_max(tail);
                runs * (RANGE_FIXED + digits(blob.length) + digits(PAGE_CHUNK))
            }
        };
        Self { open, pieces, close }
    }
}

/// Sum of the decimal digits of 0, step, 2·step … (count - 1)·step, by counting how many reach each power of ten.
fn digits_of_multiples(step: u64, count: u64) -> u64 {
    let Some(last) = count.checked_sub(1) else { return 0 };
    let end = step * last;
    let mut sum = count;
    let mut power = 10u64;
    while power <= end {
        sum += last - (power - 1) / step;
        match power.checked_mul(10) {
            Some(next) => power = next,
            None => break,
        }
    }
    sum
}
