//! The manifest as a stream: generated from the tree, the rules of the rows and the hash log, and hashed in passing.

use std::io;
use std::ops::Range;

use crate::azure::dataset::{BlobType, Disposition};
use crate::azure::manifest::{self, BlobFacts, Block, Layout, ListFacts, ManifestStream, PageRange, SideFile};
use crate::hash;
use crate::ntfs::build::{LeftOut, Tree};
use crate::plan::account::{ExportedBlob, ExportedFile, ExportedKind, HashBlocks, OwnBlocks};
use crate::plan::tree::DriveTree;
use crate::stream::workers::PageRun;
use crate::units::ByteLen;
use crate::work::outcome::{EMPTY_MD5, HashReader, PropertyHashes};

/// Blocks rendered at once; a blob of 50,000 takes several steps.
const BLOCKS_AT_ONCE: u64 = 1024;

/// Settings of one row for its blobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowRules {
    /// Treatment of an existing blob by the service.
    pub disposition: Disposition,
    /// Metadata file: index among the drive's property files.
    pub metadata: Option<usize>,
    /// Properties file: index among the drive's property files.
    pub properties: Option<usize>,
}

/// The parts of the manifest other than files and hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// `DriveId`.
    pub drive_id: String,
    /// Id of the session; ids of lists begin with it.
    pub session: String,
    /// Settings by row of the catalog.
    pub rows: Vec<RowRules>,
}

impl Rules {
    /// Settings that all rows share go to the head of the list; otherwise each blob names its own files.
    fn shared(&self) -> Option<&RowRules> {
        let first = self.rows.first()?;
        let same = |row: &RowRules| (row.metadata, row.properties) == (first.metadata, first.properties);
        self.rows.iter().all(same).then_some(first)
    }
}

/// Upper bound of the length of the manifest of `tree`.
pub fn len_max(tree: &DriveTree, rules: &Rules) -> ByteLen {
    let mut writer = BlobWriter::new(tree, rules, PropertyHashes::new());
    let head = writer.head().len() + writer.foot().len();
    let blobs: u64 = (0..tree.blob_count()).map(|i| writer.entry_len(i)).sum();
    ByteLen(head as u64 + blobs)
}

/// Upper bound of the length of each blob's entry.
pub fn blob_lens(tree: &DriveTree, rules: &Rules) -> Vec<u32> {
    let mut writer = BlobWriter::new(tree, rules, PropertyHashes::new());
    let mut len = |i| u32::try_from(writer.entry_len(i)).unwrap_or(u32::MAX);
    (0..tree.blob_count()).map(&mut len).collect()
}

/// Converts facts of a file into the terms of the manifest.
struct BlobWriter<'a> {
    tree: &'a DriveTree,
    rules: &'a Rules,
    property_paths: Vec<String>,
    hashes: PropertyHashes,
    blob_path: String,
    file_path: String,
    md5_path: String,
    metadata_path: String,
}

impl<'a> BlobWriter<'a> {
    fn new(tree: &'a DriveTree, rules: &'a Rules, hashes: PropertyHashes) -> Self {
        let first = tree.first_property();
        let path = |p: usize| {
            let mut path = String::new();
            tree.drive_path(first + p as u32, &mut path);
            path
        };
        let property_paths = (0..tree.properties().len()).map(path).collect();
        Self {
            tree,
            rules,
            property_paths,
            hashes,
            blob_path: String::new(),
            file_path: String::new(),
            md5_path: String::new(),
            metadata_path: String::new(),
        }
    }

    fn side(&self, property: Option<usize>) -> Option<SideFile<'_>> {
        let property = property?;
        let index = self.tree.first_property() + property as u32;
        let hash = self.hashes.get(&index).copied().unwrap_or_default();
        Some(SideFile { path: &self.property_paths[property], hash })
    }

    fn head(&self) -> Vec<u8> {
        let shared = self.rules.shared();
        let list = ListFacts {
            session: if self.tree.exported().is_some() { "" } else { &self.rules.session },
            number: 0,
            metadata: self.side(shared.and_then(|row| row.metadata)).filter(|_| !self.tree.has_metadata()),
            properties: self.side(shared.and_then(|row| row.properties)).filter(|_| !self.tree.has_md5s()),
        };
        let mut out = manifest::header(&self.rules.drive_id, env!("CARGO_PKG_VERSION"));
        out.extend(manifest::list_open(&list));
        out
    }

    fn foot(&self) -> Vec<u8> {
        [manifest::list_close(), manifest::footer()].concat()
    }

    /// Upper bound of the length of the entry of file `i`; 0 for properties and metadata of exported blobs.
    fn entry_len(&mut self, i: u32) -> u64 {
        if self.tree.is_side(i) { 0 } else { self.facts(i, |facts| manifest::blob_xml_len(&facts)) }
    }

    fn facts<R>(&mut self, i: u32, with: impl FnOnce(BlobFacts<'_>) -> R) -> R {
        let catalog = self.tree.catalog();
        let crate::plan::tree::FileKind::Blob(file) = self.tree.kind(i) else { unreachable!("only blobs are listed") };
        if let Some(ExportedFile::Blob(blob)) = self.tree.exported_file(i) {
            return self.exported(i, blob, with);
        }
        catalog.blob_path(file, &mut self.blob_path);
        self.tree.drive_path(i, &mut self.file_path);
        let has_md5s = self.tree.has_md5s();
        if has_md5s {
            self.tree.drive_path(self.tree.md5_file(i), &mut self.md5_path);
        }
        let mut metadata_hash = [0; 16];
        if self.tree.has_metadata() {
            self.tree.drive_path(self.tree.metadata_file(i), &mut self.metadata_path);
            metadata_hash = hash::md5(self.tree.metadata_text(i).as_bytes());
        }
        let row = &self.rules.rows[catalog.files()[file as usize].row as usize];
        let own = self.rules.shared().is_none();
        let layout = match self.tree.blob_type(i) {
            Some(BlobType::Page) => Layout::Pages,
            _ => blocks_layout(self.tree.blocks(i)),
        };
        with(BlobFacts {
            blob_path: &self.blob_path,
            file_path: &self.file_path,
            length: self.tree.file(i).len.0,
            layout,
            disposition: Some(row.disposition),
            snapshot: None,
            id_len_max: None,
            metadata: match own {
                _ if self.tree.has_metadata() => Some(SideFile { path: &self.metadata_path, hash: metadata_hash }),
                true => self.side(row.metadata),
                false => None,
            },
            properties: match own {
                // Its hash is known when the blob's is.
                _ if has_md5s => Some(SideFile { path: &self.md5_path, hash: [0; 16] }),
                true => self.side(row.properties),
                false => None,
            },
        })
    }
}

impl BlobWriter<'_> {
    /// Facts of a blob of an export: what the account said of it, and the files with its properties and metadata.
    fn exported<R>(&mut self, i: u32, blob: &ExportedBlob, with: impl FnOnce(BlobFacts<'_>) -> R) -> R {
        let tree = self.tree;
        tree.drive_path(i, &mut self.file_path);
        let side = |file: Option<u32>, path: &mut String| {
            let index = tree.index_of(file?)?;
            tree.drive_path(index, path);
            Some(tree.exported_file(index)?.text_md5())
        };
        let properties = side(blob.properties, &mut self.md5_path);
        let metadata = side(blob.metadata, &mut self.metadata_path);
        let ids = blob.blocks.iter().flat_map(OwnBlocks::ids);
        with(BlobFacts {
            blob_path: &blob.path,
            file_path: &self.file_path,
            length: tree.file(i).len.0,
            layout: match blob.kind {
                ExportedKind::Page => Layout::Pages,
                ExportedKind::Block | ExportedKind::Append => blocks_layout(tree.blocks(i)),
            },
            disposition: None,
            snapshot: blob.snapshot.as_deref(),
            id_len_max: Some(ids.map(|id| id.len() as u64).max().unwrap_or(manifest::COUNTER_ID_LEN)),
            metadata: metadata.map(|hash| SideFile { path: &self.metadata_path, hash }),
            properties: properties.map(|hash| SideFile { path: &self.md5_path, hash }),
        })
    }
}

/// Appends a block of an export with its id: the blob's own, or a counter as exports of the service have them.
fn write_exported(buffer: &mut Vec<u8>, block: &Block, blob: &ExportedBlob, number: u64) {
    let own = blob.blocks.as_ref().and_then(|blocks| blocks.ids().get(number as usize));
    match own {
        Some(id) => manifest::write_named_block(buffer, block, id),
        None => manifest::write_named_block(buffer, block, &manifest::counter_id(number as u32)),
    }
}

/// Layout of a block blob.
fn blocks_layout(blocks: HashBlocks<'_>) -> Layout {
    match blocks.even_len() {
        Some(block_len) => Layout::Blocks { block_len },
        None => Layout::Listed { count: blocks.count() },
    }
}

/// Next part of the manifest.
enum NextPart {
    Head,
    /// A blob, and the first of its blocks that is still missing.
    Blob {
        file: u32,
        block: u64,
    },
    Foot,
    End,
}

/// The manifest of all blobs except those left out; `log` holds the hashes of all.
pub fn stream<'a>(
    tree: &'a DriveTree,
    rules: &'a Rules,
    left_out: LeftOut,
    hashes: PropertyHashes,
    log: HashReader,
) -> ManifestStream<'a> {
    let writer = BlobWriter::new(tree, rules, hashes);
    let mut text = Text { writer, left_out, log, state: NextPart::Head, runs: Vec::new() };
    ManifestStream::new(move |into| text.render(into))
}

/// Source of the manifest's text.
struct Text<'a> {
    writer: BlobWriter<'a>,
    left_out: LeftOut,
    log: HashReader,
    state: NextPart,
    runs: Vec<PageRun>,
}

impl Text<'_> {
    /// Appends the next piece to the empty buffer; nothing at the end.
    fn render(&mut self, into: &mut Vec<u8>) -> io::Result<()> {
        while into.is_empty() {
            match self.state {
                NextPart::Head => {
                    *into = self.writer.head();
                    self.state = NextPart::Blob { file: 0, block: 0 };
                }
                NextPart::Blob { file, .. } if file == self.writer.tree.blob_count() => self.state = NextPart::Foot,
                NextPart::Blob { file, .. } if self.writer.tree.is_side(file) => self.pass_over(file)?,
                NextPart::Blob { file, block } => self.blob(file, block, into)?,
                NextPart::Foot => {
                    *into = self.writer.foot();
                    self.state = NextPart::End;
                }
                NextPart::End => break,
            }
        }
        Ok(())
    }

    /// Skips the hashes of a file that is no blob: the properties or metadata of an exported one.
    fn pass_over(&mut self, file: u32) -> io::Result<()> {
        let tree = self.writer.tree;
        for _ in 0..tree.blocks(file).count() {
            self.log.block()?;
        }
        self.state = NextPart::Blob { file: file + 1, block: 0 };
        Ok(())
    }

    /// Appends some blocks of a blob, with its head before the first and its foot after the last.
    fn blob(&mut self, file: u32, first: u64, buffer: &mut Vec<u8>) -> io::Result<()> {
        let (log, runs) = (&mut self.log, &mut self.runs);
        let out = self.left_out.contains(file);
        let tree = self.writer.tree;
        let (has_md5s, has_whole) = (tree.has_md5s(), tree.has_whole_md5(file));
        let exported = tree.exported_file(file).and_then(ExportedFile::blob);
        let mut md5 = EMPTY_MD5;
        let done = self.writer.facts(file, |mut facts| -> io::Result<u64> {
            if first == 0 && !out {
                manifest::blob_open(buffer, &facts);
            }
            let (blocks, is_page) = (tree.blocks(file), facts.layout == Layout::Pages);
            let count = blocks.count();
            let until = count.min(first + BLOCKS_AT_ONCE);
            for block in first..until {
                let Range { start: offset, end } = blocks.range(block);
                if is_page {
                    runs.clear();
                    log.pages(runs)?;
                    for &(at, len, hash) in runs.iter().filter(|_| !out) {
                        let range = PageRange { offset: offset + u64::from(at), length: u64::from(len), hash };
                        manifest::write_page_range(buffer, &range);
                    }
                } else {
                    let hash = log.block()?;
                    md5 = hash;
                    if !out {
                        let piece = Block { offset, length: end - offset, hash };
                        match exported {
                            Some(blob) => write_exported(buffer, &piece, blob, block),
                            None => manifest::write_block(buffer, &piece),
                        }
                    }
                }
                if has_whole {
                    md5 = log.block()?;
                }
            }
            if let Some(properties) = facts.properties.as_mut().filter(|_| has_md5s) {
                properties.hash = hash::md5(tree.md5_text(file, &md5).as_bytes());
            }
            if until == count && !out {
                manifest::blob_close(buffer, &facts);
            }
            Ok(if until == count { u64::MAX } else { until })
        })?;
        self.state = match done {
            u64::MAX => NextPart::Blob { file: file + 1, block: 0 },
            block => NextPart::Blob { file, block },
        };
        Ok(())
    }
}
