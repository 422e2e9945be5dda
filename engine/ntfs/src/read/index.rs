//! Indexes: directories (`$I30`) and view indexes are B-trees of the same make (docs/spec/ntfs.md#indexes).

use std::cmp::Ordering;
use std::collections::HashSet;
use std::ops::Range;

use super::error::{NtfsError, ReadAt, VolumePlace};
use super::file::{FileRecord, FileRef, Stream, to_units};
use super::limits;
use super::raw::{self, RecordFault, fault, types, view};
use super::volume::{I30, Volume};
use crate::format::{BlockHeader, EntryHeader, FIXUP_STRIDE, IndexHeader, IndexRoot, entry_flag};

/// One index of one file.
pub(crate) struct Index<'a> {
    pub record: u64,
    pub root: &'a Stream,
    pub blocks: Option<&'a Stream>,
    pub block_bytes: u64,
    /// Bytes for each VCN of this index.
    pub vcn_bytes: u64,
    pub ty: u32,
    pub rule: u32,
    pub block_clusters: u8,
}

/// A root or block in memory.
pub(crate) struct Node {
    bytes: Vec<u8>,
    header_at: usize,
    /// VCN of the block; `None` for the root.
    pub vcn: Option<u64>,
}

/// An entry of a node.
#[derive(Clone, Debug)]
pub(crate) struct IndexEntry {
    /// Offset in the node.
    pub at: usize,
    pub len: usize,
    pub reference: u64,
    pub flags: u16,
    pub key: Range<usize>,
    pub sub: Option<u64>,
}

impl IndexEntry {
    pub(crate) fn is_end(&self) -> bool {
        self.flags & entry_flag::END != 0
    }
}

impl<'a> Index<'a> {
    pub(crate) fn open(volume: &Volume, file: &'a FileRecord, name: &[u16]) -> Result<Self, NtfsError> {
        let record = file.id.record;
        let place = VolumePlace::stream(record, types::INDEX_ROOT, 0);
        let root = file.stream(types::INDEX_ROOT, name).ok_or(NtfsError::corrupt(place, "no index root"))?;
        let value = root.resident().ok_or(NtfsError::corrupt(place, "index root is not resident"))?;
        let head: &IndexRoot =
            view(value, 0, "index root is cut off").map_err(|f| NtfsError::corrupt(place, f.what))?;
        let block_bytes = u64::from(head.block_bytes.get());
        if !block_bytes.is_power_of_two() || !(512..=65536).contains(&block_bytes) {
            return Err(NtfsError::corrupt(place, "impossible index block size"));
        }
        let cluster = volume.geometry().cluster.bytes();
        let blocks = file.stream(types::INDEX_ALLOCATION, name);
        Ok(Self {
            record,
            root,
            blocks: blocks.filter(|stream| !stream.is_resident()),
            block_bytes,
            vcn_bytes: if cluster <= block_bytes { cluster } else { FIXUP_STRIDE as u64 },
            ty: head.indexed_type.get(),
            rule: head.collation.get(),
            block_clusters: head.clusters_per_block,
        })
    }

    pub(crate) fn root(&self) -> Node {
        Node { bytes: self.root.resident().unwrap_or_default().to_vec(), header_at: size_of::<IndexRoot>(), vcn: None }
    }

    /// Place of an offset in a node.
    pub(crate) fn place(&self, node: &Node, at: usize) -> VolumePlace {
        match node.vcn {
            None => VolumePlace::stream(self.record, types::INDEX_ROOT, at as u64),
            Some(vcn) => {
                let start = vcn.saturating_mul(self.vcn_bytes);
                VolumePlace::stream(self.record, types::INDEX_ALLOCATION, start.saturating_add(at as u64))
            }
        }
    }

    pub(crate) fn block<R: ReadAt>(&self, volume: &Volume, reader: &mut R, vcn: u64) -> Result<Node, NtfsError> {
        let start = vcn.saturating_mul(self.vcn_bytes);
        let place = VolumePlace::stream(self.record, types::INDEX_ALLOCATION, start);
        let stream = self.blocks.ok_or(NtfsError::corrupt(place, "subnode, but no index blocks"))?;
        if !start.is_multiple_of(self.block_bytes) || start.saturating_add(self.block_bytes) > stream.size() {
            return Err(NtfsError::corrupt(place, "subnode outside the index blocks"));
        }
        let mut bytes = vec![0; self.block_bytes as usize];
        volume.read_range(reader, stream, start, &mut bytes)?;
        let fail = |f: RecordFault| {
            NtfsError::corrupt(VolumePlace::stream(self.record, types::INDEX_ALLOCATION, start + f.at as u64), f.what)
        };
        raw::undo_fixups(&mut bytes, *b"INDX", 0x28).map_err(fail)?;
        let head: &BlockHeader = view(&bytes, 0, "index block is cut off").map_err(fail)?;
        if head.vcn.get() != vcn {
            return Err(NtfsError::corrupt(place, "index block of another place"));
        }
        Ok(Node { bytes, header_at: size_of::<BlockHeader>(), vcn: Some(vcn) })
    }
}

impl Node {
    /// A node of a block or a root's value.
    pub(super) fn of(bytes: Vec<u8>, is_block: bool) -> Self {
        let header_at = if is_block { size_of::<BlockHeader>() } else { size_of::<IndexRoot>() };
        Self { bytes, header_at, vcn: is_block.then_some(0) }
    }

    pub(crate) fn header(&self) -> Result<&IndexHeader, RecordFault> {
        view(&self.bytes, self.header_at, "index header is cut off")
    }

    pub(crate) fn header_at(&self) -> usize {
        self.header_at
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn key(&self, entry: &IndexEntry) -> &[u8] {
        &self.bytes[entry.key.clone()]
    }

    /// The bytes of an entry after its key, without the subnode VCN: data of view indexes.
    pub(crate) fn entry_bytes(&self, entry: &IndexEntry) -> &[u8] {
        &self.bytes[entry.at..entry.at + entry.len]
    }

    /// All entries, the end entry last.
    pub(crate) fn entries(&self) -> Result<Vec<IndexEntry>, RecordFault> {
        let head = self.header()?;
        let end = self.header_at.saturating_add(head.used.get() as usize);
        let mut at = self.header_at.saturating_add(head.first_entry.get() as usize);
        if end > self.bytes.len() || head.first_entry.get() < size_of::<IndexHeader>() as u32 {
            return Err(fault(self.header_at, "entries outside the node"));
        }
        let mut entries = Vec::new();
        loop {
            let head: &EntryHeader = view(&self.bytes[..end], at, "no end entry")?;
            let (len, flags) = (usize::from(head.length.get()), head.flags.get());
            let key_len = if flags & entry_flag::END != 0 { 0 } else { usize::from(head.key_length.get()) };
            let key_at = at + size_of::<EntryHeader>();
            let sub_len = if flags & entry_flag::SUBNODE != 0 { 8 } else { 0 };
            if !len.is_multiple_of(8) || at + len > end || key_at + key_len + sub_len > at + len {
                return Err(fault(at + 8, "impossible length of an index entry"));
            }
            let sub = match flags & entry_flag::SUBNODE {
                0 => None,
                _ => Some(view::<zerocopy::little_endian::U64>(&self.bytes, at + len - 8, "no subnode")?.get()),
            };
            let key = key_at..key_at + key_len;
            entries.push(IndexEntry { at, len, reference: head.reference.get(), flags, key, sub });
            if flags & entry_flag::END != 0 {
                return Ok(entries);
            }
            at += len;
        }
    }
}

/// A step of a walk over an index.
pub(crate) enum IndexStep<'a> {
    /// A block is entered, `depth` levels below the root (which is 0).
    Enter { node: &'a Node, depth: usize, leaf: bool },
    /// An entry other than an end entry, in order.
    Entry { node: &'a Node, entry: &'a IndexEntry },
    /// Damage that prevents part of the tree from being walked.
    Broken(NtfsError),
}

/// Walks the whole index in order. Each block is entered at most once, even with damaged pointers.
pub(crate) fn walk<R: ReadAt>(volume: &Volume, reader: &mut R, index: &Index<'_>, mut see: impl FnMut(IndexStep<'_>)) {
    struct Level {
        node: Node,
        entries: Vec<IndexEntry>,
        next: usize,
        /// The subnode of `entries[next]` has been walked.
        below_done: bool,
    }
    let mut seen = HashSet::new();
    let mut levels: Vec<Level> = Vec::new();
    let mut pending = Some(index.root());
    loop {
        if let Some(node) = pending.take() {
            match node.entries() {
                Ok(entries) => {
                    let leaf = entries.iter().all(|entry| entry.sub.is_none());
                    see(IndexStep::Enter { node: &node, depth: levels.len(), leaf });
                    levels.push(Level { node, entries, next: 0, below_done: false });
                }
                Err(f) => see(IndexStep::Broken(NtfsError::corrupt(index.place(&node, f.at), f.what))),
            }
        }
        let depth = levels.len();
        let Some(level) = levels.last_mut() else { return };
        let Some(entry) = level.entries.get(level.next) else {
            levels.pop();
            continue;
        };
        if !level.below_done {
            level.below_done = true;
            if let Some(vcn) = entry.sub {
                let place = index.place(&level.node, entry.at);
                if depth >= limits::INDEX_DEPTH_MAX {
                    see(IndexStep::Broken(NtfsError::limit(place, "index is too deep")));
                } else if !seen.insert(vcn) {
                    see(IndexStep::Broken(NtfsError::corrupt(place, "index block used twice")));
                } else {
                    match index.block(volume, reader, vcn) {
                        Ok(node) => pending = Some(node),
                        Err(error) => see(IndexStep::Broken(error)),
                    }
                    continue;
                }
            }
        }
        let entry = &level.entries[level.next];
        if !entry.is_end() {
            see(IndexStep::Entry { node: &level.node, entry });
        }
        level.next += 1;
        level.below_done = false;
    }
}

/// A name in a directory, found through its index as a driver does, ignoring case.
pub(crate) fn lookup<R: ReadAt>(
    volume: &Volume,
    reader: &mut R,
    directory: u64,
    name: &[u16],
) -> Result<Option<FileRef>, NtfsError> {
    let file = volume.open_file(reader, directory)?;
    search(volume, reader, &Index::open(volume, &file, &I30)?, name)
}

/// A name in an index of names, found as a driver does, ignoring case.
pub(super) fn search<R: ReadAt>(
    volume: &Volume,
    reader: &mut R,
    index: &Index<'_>,
    name: &[u16],
) -> Result<Option<FileRef>, NtfsError> {
    let mut node = index.root();
    for _ in 0..limits::INDEX_DEPTH_MAX {
        let fail = |f: RecordFault| NtfsError::corrupt(index.place(&node, f.at), f.what);
        let entries = node.entries().map_err(fail)?;
        let mut below = None;
        for entry in &entries {
            let order = if entry.is_end() {
                Ordering::Less
            } else {
                let (_, found) = raw::file_name(node.key(entry)).map_err(fail)?;
                volume.upcase().cmp_folded(name, &to_units(found))
            };
            match order {
                Ordering::Equal => return Ok(Some(FileRef::from_raw(entry.reference))),
                Ordering::Less => {
                    below = entry.sub;
                    break;
                }
                Ordering::Greater => {}
            }
        }
        match below {
            None => return Ok(None),
            Some(vcn) => node = index.block(volume, reader, vcn)?,
        }
    }
    Err(NtfsError::limit(VolumePlace::stream(index.record, types::INDEX_ALLOCATION, 0), "index is too deep"))
}
