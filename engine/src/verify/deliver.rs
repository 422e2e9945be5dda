//! Delivery of a drive's blobs to a consumer other than a directory: the same reading, opening, hashing and judging as
//! every verification, in disk order. The consumer gets bytes with the slot that they were read into, so that one that
//! is slower than the drive stalls the drive, and needs no memory of its own.
//!
//! Metadata and properties files come first, all of them, since a consumer may need them with the first byte of a blob.

use std::fmt;
use std::io::Read;
use std::ops::{Deref, Range};

use crate::azure::dataset::Disposition;
use crate::ntfs::read::{NameId, Times};
use crate::report::{Kind, Problem};
use crate::stream::block_reader::Held;
use crate::verify::listing::{Listing, NONE};
use crate::verify::row::Verdict;
use crate::volume::files::Files;

/// Consumer of a drive's blobs. It runs on a thread of its own.
pub trait Sink: fmt::Debug + Send {
    /// Whether a piece of a blob is to be read. Asked before anything is delivered.
    fn wants(&self, blob: usize, piece: u32) -> bool;

    /// Whether nothing of the blob is outstanding, by an earlier run.
    fn is_done(&self, blob: usize) -> bool;

    /// Takes bytes, and what they are.
    ///
    /// # Errors
    /// The problem that ends the delivery of this drive.
    fn take(&mut self, bytes: Bytes, acts: Vec<Act>) -> Result<(), Problem>;

    /// Called when everything was delivered: pieces that are to be read and delivered once more. Called again after them,
    /// until there are none.
    ///
    /// # Errors
    /// The problem that ends the delivery of this drive.
    fn again(&mut self) -> Result<Vec<(usize, u32)>, Problem>;
}

/// Makes the consumer of a drive's blobs, once its manifest was read and found good.
pub type Deliver<'a> = dyn Fn(&Delivery<'_>) -> Result<Box<dyn Sink>, Problem> + Sync + 'a;

/// A drive that is about to be delivered.
#[derive(Debug)]
pub struct Delivery<'a> {
    pub(super) files: &'a Files<'a>,
    pub(super) listing: &'a Listing,
}

/// A blob of the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobFacts {
    /// `container/name`.
    pub path: String,
    /// Path on the drive.
    pub file: String,
    /// Bytes.
    pub length: u64,
    /// Of pages, not of blocks.
    pub is_pages: bool,
    /// Treatment of an existing blob of that name.
    pub disposition: Disposition,
    /// Number of its metadata file.
    pub metadata: Option<u32>,
    /// Number of its properties file.
    pub properties: Option<u32>,
    /// Whether the file is there, and as the manifest says: length, coverage.
    pub verdict: Verdict,
    /// The path on the drive is a directory.
    pub is_directory: bool,
}

/// A block or page range of the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PieceFacts {
    /// Byte in the blob.
    pub offset: u64,
    /// Length in bytes.
    pub len: u32,
    /// MD5 by the manifest.
    pub md5: Option<[u8; 16]>,
    /// Id of a block.
    pub id: Option<String>,
    /// Worse than [`Verdict::NoReference`] where it cannot be read at all.
    pub verdict: Verdict,
}

/// A metadata or properties file of the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SideFacts {
    /// Path on the drive, verbatim.
    pub path: String,
    /// It is named for a whole list of blobs.
    pub is_global: bool,
    /// MD5 by the manifest.
    pub md5: Option<[u8; 16]>,
    /// Whether it is there.
    pub verdict: Verdict,
}

impl Delivery<'_> {
    /// Id of the drive by the manifest.
    pub fn drive_id(&self) -> &str {
        self.listing.facts.drive_id.as_deref().unwrap_or_default()
    }

    /// MD5 of the manifest, in hex.
    pub fn manifest_md5(&self) -> &str {
        &self.listing.facts.md5
    }

    /// The bytes of the manifest.
    ///
    /// # Errors
    /// It lies outside of the drive, or cannot be opened.
    pub fn manifest(&self) -> Result<impl Read + '_, Problem> {
        let Some(name) = self.listing.manifest else {
            return Err(Problem::new(Kind::Usage, "the manifest is not the drive's own: there is none to keep"));
        };
        self.files.open(self.files.catalog.file_of(name))
    }

    /// Number of blobs.
    pub fn blobs(&self) -> usize {
        self.listing.subjects.len()
    }

    /// A blob by its number.
    pub fn blob(&self, blob: usize) -> BlobFacts {
        let (subject, facts) = (&self.listing.subjects[blob], &self.listing.blobs[blob]);
        let side = |side: u32| (side != NONE).then_some(side);
        let is_directory = |name: NameId| self.files.catalog.info(self.files.catalog.file_of(name)).directory;
        BlobFacts {
            path: self.listing.blob_path(self.files, blob),
            file: self.listing.file_path(self.files, blob),
            length: subject.length,
            is_pages: facts.is_pages,
            disposition: facts.disposition,
            metadata: side(facts.metadata),
            properties: side(facts.properties),
            verdict: subject.verdict,
            is_directory: subject.name.is_some_and(is_directory),
        }
    }

    /// Blocks or page ranges of a blob.
    pub fn pieces(&self, blob: usize) -> impl Iterator<Item = PieceFacts> + '_ {
        let subject = &self.listing.subjects[blob];
        (subject.pieces_at..subject.pieces_at + subject.pieces_len).map(|at| {
            let piece = &self.listing.pieces[at as usize];
            PieceFacts {
                offset: piece.offset,
                len: piece.len,
                md5: piece.has_hash.then_some(piece.hash),
                id: self.listing.block_id(at),
                verdict: piece.verdict,
            }
        })
    }

    /// Metadata and properties files, by their numbers.
    pub fn sides(&self) -> impl Iterator<Item = SideFacts> + '_ {
        self.listing.sides.iter().zip(&self.listing.side_paths).map(|(side, (path, is_global))| {
            let piece = &self.listing.pieces[side.pieces_at as usize];
            SideFacts {
                path: path.to_string(),
                is_global: *is_global,
                md5: piece.has_hash.then_some(piece.hash),
                verdict: side.verdict.max(piece.verdict),
            }
        })
    }
}

/// Bytes to write.
#[derive(Debug)]
pub enum Bytes {
    /// In a slot of the block reader.
    Held(Held),
    /// In memory of their own: bytes that were not read through a slot.
    Own(Vec<u8>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Held(held) => held,
            Self::Own(own) => own,
        }
    }
}

/// Actions on the bytes, in order.
#[derive(Debug)]
pub enum Act {
    /// Write them to a blob.
    Write {
        /// Number of the blob.
        blob: usize,
        /// Number of the block or range within the blob.
        piece: u32,
        /// Byte in the blob.
        at: u64,
        /// Of the bytes that were given.
        bytes: Range<usize>,
    },
    /// Keep them as part of a metadata or properties file.
    Keep {
        /// Number of the file.
        side: u32,
        /// Of the bytes that were given.
        bytes: Range<usize>,
    },
    /// All bytes of a block or range were given, and compared with the manifest.
    Judged {
        /// Number of the blob.
        blob: usize,
        /// Number of the block or range within the blob.
        piece: u32,
        /// Its verdict.
        verdict: Verdict,
    },
    /// The same of a metadata or properties file.
    JudgedSide {
        /// Number of the file.
        side: u32,
        /// Its verdict.
        verdict: Verdict,
    },
    /// Finish the blob: its last piece has been judged.
    Finish(Box<Finish>),
}

/// Facts for finishing a blob when all its bytes are written.
#[derive(Debug)]
pub struct Finish {
    /// Number of the blob.
    pub blob: usize,
    /// `container/name`.
    pub path: String,
    /// Time of the snapshot, if it is one.
    pub snapshot: Option<String>,
    /// Bytes.
    pub length: u64,
    /// Times of the file.
    pub times: Times,
    /// Everything of it is equal, or has nothing to be compared with.
    pub is_whole: bool,
}
