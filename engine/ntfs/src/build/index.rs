//! Indexes: entries, blocks, and B-trees built in bulk from sorted names (docs/spec/ntfs.md#indexes).

use std::cmp::Ordering;
use std::ops::Range;

use zerocopy::IntoBytes;

use super::record::{FileName, file_name_len};
use super::{LayoutError, Tree};
use crate::format::{
    BLOCK_ENTRIES, BLOCK_FIXUPS, BlockHeader, ENTRY_HEADER, EntryHeader, FIXUP_STRIDE, INDEX_BLOCK, IndexHeader,
    IndexRoot, NAME_UNITS_MAX, ProtectedHeader, align8, entry_flag, protect,
};
use crate::levels::{self, Levels};
use crate::units::ClusterSize;
use crate::upcase;

/// Bytes a block has for entries, the end entry included.
const BLOCK_ROOM: usize = INDEX_BLOCK - BLOCK_ENTRIES;
/// Bytes a subnode pointer adds to an entry.
pub(crate) const SUBNODE: usize = 8;
pub(crate) const LEAF_ROOM: usize = BLOCK_ROOM - ENTRY_HEADER;
pub(crate) const INNER_ROOM: usize = BLOCK_ROOM - ENTRY_HEADER - SUBNODE;

/// Bytes of an entry of `$I30` without subnode.
pub(crate) const fn entry_len(name_units: usize) -> usize {
    align8(ENTRY_HEADER + file_name_len(name_units))
}

/// Length of an `$INDEX_ROOT` value whose entries (without the end entry) take `entries` bytes.
pub(crate) const fn root_value_len(entries: usize) -> usize {
    size_of::<IndexRoot>() + size_of::<IndexHeader>() + entries + ENTRY_HEADER
}

/// Length of an `$INDEX_ROOT` value that only points at the top block.
pub(crate) const LARGE_ROOT_VALUE: usize = root_value_len(SUBNODE);

/// The VCN of block `i`: in clusters, or in 512-byte units when a block is less than a cluster.
pub(crate) fn block_vcn(cluster: ClusterSize, i: u64) -> u64 {
    i * u64::from(clusters_per_block(cluster))
}

fn clusters_per_block(cluster: ClusterSize) -> u8 {
    let unit = if cluster.bytes() <= INDEX_BLOCK as u64 { cluster.bytes() as usize } else { FIXUP_STRIDE };
    (INDEX_BLOCK / unit) as u8
}

/// Bytes of the bitmap of an index of `blocks`.
pub(crate) const fn bitmap_len(blocks: u64) -> u64 {
    blocks.div_ceil(64) * 8
}

/// Fills `out` with the bitmap of an index of `blocks` from byte `offset` on, followed by zeros.
pub(crate) fn bitmap(blocks: u64, offset: u64, out: &mut [u8]) {
    for (i, byte) in out.iter_mut().enumerate() {
        let first = (offset + i as u64) * 8;
        *byte = match blocks.saturating_sub(first) {
            0 => 0,
            n @ 1..8 => (1 << n) - 1,
            _ => 0xFF,
        };
    }
}

/// Appends entries to a byte slice.
#[derive(Debug)]
struct Entries<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Entries<'_> {
    fn push(&mut self, reference: u64, flags: u16, subnode: Option<u64>, key_len: usize, body_len: usize) -> &mut [u8] {
        let mut len = align8(ENTRY_HEADER + body_len);
        let mut flags = flags;
        if let Some(vcn) = subnode {
            self.out[self.at + len..self.at + len + SUBNODE].copy_from_slice(&vcn.to_le_bytes());
            len += SUBNODE;
            flags |= entry_flag::SUBNODE;
        }
        let header = EntryHeader {
            reference: reference.into(),
            length: (len as u16).into(),
            key_length: (key_len as u16).into(),
            flags: flags.into(),
            unused: 0.into(),
        };
        let entry = &mut self.out[self.at..self.at + len];
        entry[..ENTRY_HEADER].copy_from_slice(header.as_bytes());
        self.at += len;
        &mut entry[ENTRY_HEADER..]
    }

    fn name(&mut self, reference: u64, facts: &FileName, name: &[u16], subnode: Option<u64>) {
        let len = file_name_len(name.len());
        let key = self.push(reference, 0, subnode, len, len);
        facts.write(name, &mut key[..len]);
    }

    fn view(&mut self, entry: &ViewEntry) {
        let data_offset = (ENTRY_HEADER + entry.key.len()) as u64;
        let body = entry.key.len() + entry.data.len();
        let where_data_is = data_offset | (entry.data.len() as u64) << 16;
        let out = self.push(if entry.data.is_empty() { 0 } else { where_data_is }, 0, None, entry.key.len(), body);
        let (key, rest) = out.split_at_mut(entry.key.len());
        key.copy_from_slice(&entry.key);
        let (data, rest) = rest.split_at_mut(entry.data.len());
        data.copy_from_slice(&entry.data);
        let padding = rest.len().min(entry.padding.len());
        rest[..padding].copy_from_slice(&entry.padding[..padding]);
    }

    fn end(mut self, subnode: Option<u64>) -> usize {
        self.push(0, entry_flag::END, subnode, 0, 0);
        self.at
    }
}

/// An entry of a view index: the data follow the key unaligned.
#[derive(Clone, Debug)]
pub(crate) struct ViewEntry {
    pub key: Vec<u8>,
    pub data: Vec<u8>,
    /// The bytes between the data and the next multiple of 8, as far as there is room.
    pub padding: [u8; 4],
}

impl ViewEntry {
    pub(crate) fn len(&self) -> usize {
        align8(ENTRY_HEADER + self.key.len() + self.data.len())
    }
}

/// Writes an `$INDEX_ROOT` value; `entries` writes all entries with the end entry and returns their length.
pub(crate) fn root_value(
    out: &mut [u8],
    (indexed_type, collation): (u32, u32),
    cluster: ClusterSize,
    has_subnodes: bool,
    entries: impl FnOnce(&mut [u8]) -> usize,
) -> usize {
    const HEAD: usize = size_of::<IndexRoot>() + size_of::<IndexHeader>();
    let len = entries(&mut out[HEAD..]);
    let root = IndexRoot {
        indexed_type: indexed_type.into(),
        collation: collation.into(),
        block_bytes: (INDEX_BLOCK as u32).into(),
        clusters_per_block: clusters_per_block(cluster),
        unused: [0; 3],
    };
    let used = (size_of::<IndexHeader>() + len) as u32;
    let header = IndexHeader {
        first_entry: (size_of::<IndexHeader>() as u32).into(),
        used: used.into(),
        allocated: used.into(),
        has_subnodes: u8::from(has_subnodes),
        unused: [0; 3],
    };
    out[..size_of::<IndexRoot>()].copy_from_slice(root.as_bytes());
    out[size_of::<IndexRoot>()..HEAD].copy_from_slice(header.as_bytes());
    HEAD + len
}

/// Writes the `$INDEX_ROOT` value of an index in blocks: only a pointer to the top one.
pub(crate) fn large_root(out: &mut [u8], key: (u32, u32), cluster: ClusterSize, top: u64) -> usize {
    root_value(out, key, cluster, true, |out| Entries { out, at: 0 }.end(Some(block_vcn(cluster, top))))
}

/// Writes the `$INDEX_ROOT` value of a view index whose entries fit in it.
pub(crate) fn view_root(out: &mut [u8], collation: u32, cluster: ClusterSize, view: &[ViewEntry]) -> usize {
    root_value(out, (0, collation), cluster, false, |out| {
        let mut entries = Entries { out, at: 0 };
        view.iter().for_each(|entry| entries.view(entry));
        entries.end(None)
    })
}

/// Writes the only used block of a view index.
pub(crate) fn view_block(out: &mut [u8], vcn: u64, view: &[ViewEntry]) {
    block(out, vcn, false, |out| {
        let mut entries = Entries { out, at: 0 };
        view.iter().for_each(|entry| entries.view(entry));
        entries.end(None)
    });
}

/// Writes and protects one block; `entries` as in [`root_value`].
pub(crate) fn block(out: &mut [u8], vcn: u64, has_subnodes: bool, entries: impl FnOnce(&mut [u8]) -> usize) {
    out.fill(0);
    let len = entries(&mut out[BLOCK_ENTRIES..]);
    let head = BlockHeader {
        protected: ProtectedHeader {
            magic: *b"INDX",
            fixup_offset: (BLOCK_FIXUPS as u16).into(),
            fixup_count: ((INDEX_BLOCK / FIXUP_STRIDE + 1) as u16).into(),
        },
        log_sequence: 0.into(),
        vcn: vcn.into(),
    };
    let first = BLOCK_ENTRIES - size_of::<BlockHeader>();
    let header = IndexHeader {
        first_entry: (first as u32).into(),
        used: ((first + len) as u32).into(),
        allocated: ((INDEX_BLOCK - size_of::<BlockHeader>()) as u32).into(),
        has_subnodes: u8::from(has_subnodes),
        unused: [0; 3],
    };
    out[..size_of::<BlockHeader>()].copy_from_slice(head.as_bytes());
    out[size_of::<BlockHeader>()..BLOCK_FIXUPS].copy_from_slice(header.as_bytes());
    protect(out, BLOCK_FIXUPS);
}

/// Facts of records for their index entries.
pub(crate) trait Nodes {
    /// Reference of a record and the fields of its name.
    fn entry(&self, record: u32) -> (u64, FileName);
    /// Appends the name of a record to `out`.
    fn name(&self, record: u32, out: &mut Vec<u16>);
}

/// A name outside the tree: of a metafile, a root file or a hidden file.
#[derive(Clone, Debug)]
pub(crate) struct Extra {
    pub name: Vec<u16>,
    pub record: u32,
}

/// The children of one directory: three sorted lists, to be merged.
#[derive(Debug)]
pub(crate) struct Listing<'a, T> {
    pub tree: &'a T,
    /// Record number of the directory, for errors.
    pub record: u32,
    pub extras: &'a [Extra],
    pub dirs: Range<u32>,
    pub files: Range<u32>,
    /// Children of this directory that are not on the volume.
    pub left_out: &'a [u32],
    /// Record number of directory 0 and of file 0 of the tree.
    pub dirs_base: u32,
    pub files_base: u32,
}

impl<T> Clone for Listing<'_, T> {
    fn clone(&self) -> Self {
        Self { dirs: self.dirs.clone(), files: self.files.clone(), ..*self }
    }
}

/// A position in the merged children: the number of earlier entries of each list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    extra: u32,
    dir: u32,
    file: u32,
}

/// Walks the children of a directory in collation order.
#[derive(Debug)]
pub(crate) struct Merge<'a, T> {
    list: Listing<'a, T>,
    at: Cursor,
    dir_name: Vec<u16>,
    file_name: Vec<u16>,
    fetched: (bool, bool),
    left_out: usize,
}

impl<'a, T: Tree> Merge<'a, T> {
    pub(crate) fn new(list: &Listing<'a, T>) -> Self {
        let start = Cursor { extra: 0, dir: list.dirs.start, file: list.files.start };
        Self::from(list, start, Vec::new(), Vec::new())
    }

    fn from(list: &Listing<'a, T>, at: Cursor, dir_name: Vec<u16>, file_name: Vec<u16>) -> Self {
        let left_out = list.left_out.partition_point(|&file| file < at.file);
        Self { list: list.clone(), at, dir_name, file_name, fetched: (false, false), left_out }
    }

    /// Moves forward or back to `at`.
    fn seek(&mut self, at: Cursor) {
        self.at = at;
        self.fetched = (false, false);
        self.left_out = self.list.left_out.partition_point(|&file| file < at.file);
    }

    /// The next child's record number and position; its name is put into `name`.
    pub(crate) fn next(&mut self, name: &mut Vec<u16>) -> Option<(u32, Cursor)> {
        while self.list.left_out.get(self.left_out) == Some(&self.at.file) {
            self.left_out += 1;
            self.at.file += 1;
        }
        let before = self.at;
        if !self.fetched.0 && self.at.dir < self.list.dirs.end {
            self.dir_name.clear();
            self.list.tree.dir_name(self.at.dir, &mut self.dir_name);
            self.fetched.0 = true;
        }
        if !self.fetched.1 && self.at.file < self.list.files.end {
            self.file_name.clear();
            self.list.tree.file_name(self.at.file, &mut self.file_name);
            self.fetched.1 = true;
        }
        enum From {
            Extras,
            Dirs,
            Files,
        }
        let extras = self.list.extras.get(self.at.extra as usize).map(|extra| (From::Extras, &extra.name));
        let dirs = self.fetched.0.then_some((From::Dirs, &self.dir_name));
        let files = self.fetched.1.then_some((From::Files, &self.file_name));
        // Equal names are consecutive; the builder of the shape refuses them.
        let (from, _) = [extras, dirs, files]
            .into_iter()
            .flatten()
            .reduce(|first, second| if order(second.1, first.1) == Ordering::Less { second } else { first })?;
        let record = match from {
            From::Extras => {
                let extra = &self.list.extras[self.at.extra as usize];
                self.at.extra += 1;
                name.clone_from(&extra.name);
                extra.record
            }
            From::Dirs => {
                self.at.dir += 1;
                self.fetched.0 = false;
                std::mem::swap(name, &mut self.dir_name);
                self.list.dirs_base + before.dir
            }
            From::Files => {
                self.at.file += 1;
                self.fetched.1 = false;
                std::mem::swap(name, &mut self.file_name);
                self.list.files_base + before.file
            }
        };
        Some((record, before))
    }
}

fn order(a: &[u16], b: &[u16]) -> Ordering {
    upcase::compare(a.iter().copied(), b.iter().copied())
}

#[derive(Clone, Copy, Debug)]
struct Separator {
    record: u32,
    units: u8,
}

/// The B-tree of one directory: the assignment of children to blocks.
///
/// Blocks are numbered leaves first, then level by level; the top block is the last.
#[derive(Debug, Default)]
pub(crate) struct Shape {
    /// Bytes of all entries without subnodes and end entry.
    pub entries_len: usize,
    /// Longest entry without subnode.
    longest: usize,
    /// Position of the first child of each leaf.
    leaves: Vec<Cursor>,
    /// The child between leaf `i` and the next one.
    separators: Vec<Separator>,
    levels: Levels,
    name: Vec<u16>,
    before: Vec<u16>,
}

impl Shape {
    /// Builds the shape of a directory, checking the length of each name and the order.
    pub(crate) fn build<T: Tree>(&mut self, list: &Listing<'_, T>) -> Result<(), LayoutError> {
        self.entries_len = 0;
        self.longest = 0;
        self.leaves.clear();
        self.separators.clear();
        self.levels.clear();
        let mut merge = Merge::new(list);
        let mut used = 0;
        let mut leaf_is_new = true;
        let mut last = None;
        self.before.clear();
        while let Some((record, at)) = merge.next(&mut self.name) {
            if self.name.is_empty() || self.name.len() > NAME_UNITS_MAX {
                return Err(LayoutError::NameLength { directory: list.record, record });
            }
            // Shorter than any name: nothing came before.
            if !self.before.is_empty() {
                let same = || upcase::equal_folded(self.before.iter().copied(), self.name.iter().copied());
                match order(&self.before, &self.name) {
                    Ordering::Less if self.before.len() == self.name.len() && same() => {
                        return Err(LayoutError::SameName { directory: list.record, record });
                    }
                    Ordering::Less => {}
                    Ordering::Equal => return Err(LayoutError::SameName { directory: list.record, record }),
                    Ordering::Greater => return Err(LayoutError::Unsorted { directory: list.record, record }),
                }
            }
            let len = entry_len(self.name.len());
            self.entries_len += len;
            self.longest = self.longest.max(len);
            if leaf_is_new {
                self.leaves.push(at);
                leaf_is_new = false;
                used = 0;
            }
            let units = self.name.len() as u8;
            if used + len <= LEAF_ROOM {
                used += len;
            } else {
                self.separators.push(Separator { record, units });
                leaf_is_new = true;
                // If this was the very last child, the leaf after it would be empty: then the one before becomes
                // the separator, and this one the leaf.
                if let Some((before, _)) = last {
                    last = Some((before, Some(at)));
                    std::mem::swap(&mut self.before, &mut self.name);
                    continue;
                }
            }
            last = Some((Separator { record, units }, None));
            std::mem::swap(&mut self.before, &mut self.name);
        }
        if let (true, Some((before, Some(at))), Some(separator)) = (leaf_is_new, last, self.separators.last_mut()) {
            *separator = before;
            self.leaves.push(at);
        }
        let separators = &self.separators;
        self.levels.build(self.leaves.len(), |leaf| entry_len(usize::from(separators[leaf].units)));
        Ok(())
    }

    /// Number of blocks of the index.
    pub(crate) fn blocks(&self) -> u64 {
        self.levels.blocks(self.leaves.len())
    }

    /// Upper bound of the blocks for any subset of this directory's children.
    pub(crate) fn blocks_max(&self) -> u64 {
        levels::blocks_max(self.leaves.len(), self.longest)
    }

    /// Writes block `i`.
    pub(crate) fn render<T: Tree>(
        &self,
        i: u64,
        cluster: ClusterSize,
        merge: &mut Merge<'_, T>,
        name: &mut Vec<u16>,
        nodes: &impl Nodes,
        out: &mut [u8],
    ) {
        let vcn = block_vcn(cluster, i);
        let i = i as usize;
        if let Some(&start) = self.leaves.get(i) {
            let stop = self.separators.get(i).map(|separator| separator.record);
            return block(out, vcn, false, |out| {
                let mut entries = Entries { out, at: 0 };
                if merge.at != start {
                    merge.seek(start);
                }
                while let Some((record, _)) = merge.next(name) {
                    if Some(record) == stop {
                        break;
                    }
                    let (reference, facts) = nodes.entry(record);
                    entries.name(reference, &facts, name, None);
                }
                entries.end(None)
            });
        }
        let Some(inner) = self.levels.block(self.leaves.len(), i) else { return out.fill(0) };
        let below = |item: usize| block_vcn(cluster, (inner.below_first + item) as u64);
        block(out, vcn, true, |out| {
            let mut entries = Entries { out, at: 0 };
            for item in inner.items.clone() {
                let record = self.separators[self.levels.separator(inner.level, item)].record;
                name.clear();
                nodes.name(record, name);
                let (reference, facts) = nodes.entry(record);
                entries.name(reference, &facts, name, Some(below(item)));
            }
            entries.end(Some(below(inner.items.end)))
        });
    }
}

/// Writes the `$INDEX_ROOT` value of a directory whose children all fit in it.
pub(crate) fn small_root<T: Tree>(
    out: &mut [u8],
    key: (u32, u32),
    cluster: ClusterSize,
    list: &Listing<'_, T>,
    name: &mut Vec<u16>,
    nodes: &impl Nodes,
) -> usize {
    root_value(out, key, cluster, false, |out| {
        let mut entries = Entries { out, at: 0 };
        let mut merge = Merge::new(list);
        while let Some((record, _)) = merge.next(name) {
            let (reference, facts) = nodes.entry(record);
            entries.name(reference, &facts, name, None);
        }
        entries.end(None)
    })
}
