//! The whole index of one directory, built in bulk from entries in memory (docs/spec/ntfs.md#indexes).

use std::ops::Range;

use zerocopy::IntoBytes;

use crate::build::index::{self, LEAF_ROOM, SUBNODE};
use crate::format::{AttrType, ENTRY_HEADER, EntryHeader, FileNameHeader, align8, collation, entry_flag};
use crate::levels::{self, Levels};
use crate::read::Upcase;
use crate::units::ClusterSize;

/// Type and collation of `$I30`.
const I30_KEY: (u32, u32) = (AttrType::FileName as u32, collation::FILE_NAME);

/// Entries of one directory: references and keys (`$FILE_NAME` values), in collation order once sorted.
#[derive(Debug, Default)]
pub(super) struct Entries {
    bytes: Vec<u8>,
    items: Vec<(u64, Range<usize>)>,
}

impl Entries {
    /// Adds an entry; `write` gets its zeroed key of `len` bytes.
    pub(super) fn push(&mut self, reference: u64, len: usize, write: impl FnOnce(&mut [u8])) {
        let start = self.bytes.len();
        self.bytes.resize(start + len, 0);
        write(&mut self.bytes[start..]);
        self.items.push((reference, start..start + len));
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn get(&self, i: usize) -> (u64, &[u8]) {
        let (reference, range) = &self.items[i];
        (*reference, &self.bytes[range.clone()])
    }

    pub(super) fn key_mut(&mut self, i: usize) -> &mut [u8] {
        let range = self.items[i].1.clone();
        &mut self.bytes[range]
    }

    /// Sorts by collation; entries in order already cost one comparison each.
    pub(super) fn sort(&mut self, upcase: &Upcase) {
        let Self { bytes, items } = self;
        items.sort_by(|a, b| upcase.cmp(&name_of(&bytes[a.1.clone()]), &name_of(&bytes[b.1.clone()])));
    }

    pub(super) fn name(&self, i: usize) -> Vec<u16> {
        name_of(self.get(i).1)
    }

    fn entry_len(&self, i: usize) -> usize {
        align8(ENTRY_HEADER + self.items[i].1.len())
    }

    /// Bytes of all entries, without subnodes and end entry.
    pub(super) fn total_len(&self) -> usize {
        (0..self.len()).map(|i| self.entry_len(i)).sum()
    }
}

/// The name in a `$FILE_NAME` value.
pub(super) fn name_of(key: &[u8]) -> Vec<u16> {
    let name = key.get(size_of::<FileNameHeader>()..).unwrap_or_default();
    name.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect()
}

/// Assignment of entries to blocks. Blocks are numbered leaves first, then level by level; the top block is the last.
#[derive(Debug)]
pub(super) struct Shape {
    /// First entry of each leaf. The entry before it is in a block above.
    leaves: Vec<usize>,
    levels: Levels,
    longest: usize,
}

impl Shape {
    pub(super) fn new(entries: &Entries) -> Self {
        let count = entries.len();
        let mut leaves = vec![0];
        let mut used = 0;
        for i in 0..count {
            let len = entries.entry_len(i);
            if used + len <= LEAF_ROOM {
                used += len;
            } else {
                leaves.push(i + 1);
                used = 0;
            }
        }
        // A leaf must not be empty: then the entry before the last moves up instead.
        if let Some(last) = leaves.last_mut()
            && *last == count
            && count > 1
        {
            *last -= 1;
        }
        let longest = (0..count).map(|i| entries.entry_len(i)).max().unwrap_or(0);
        let mut levels = Levels::default();
        levels.build(leaves.len(), |leaf| entries.entry_len(leaves[leaf + 1] - 1));
        Self { leaves, levels, longest }
    }

    /// Index of the entry that is item `item` of inner level `level`.
    fn separator(&self, level: usize, item: usize) -> usize {
        self.leaves[self.levels.separator(level, item) + 1] - 1
    }

    /// Number of blocks.
    pub(super) fn blocks(&self) -> u64 {
        self.levels.blocks(self.leaves.len())
    }

    /// Upper bound of the blocks for any subset of these entries.
    pub(super) fn blocks_max(&self) -> u64 {
        levels::blocks_max(self.leaves.len(), self.longest)
    }

    /// Writes block `i`.
    pub(super) fn render(&self, i: u64, entries: &Entries, cluster: ClusterSize, out: &mut [u8]) {
        let vcn = index::block_vcn(cluster, i);
        let i = i as usize;
        if let Some(&start) = self.leaves.get(i) {
            let end = self.leaves.get(i + 1).map_or(entries.len(), |next| next - 1);
            return index::block(out, vcn, false, |out| {
                let at = (start..end).fold(0, |at, i| at + write_entry(&mut out[at..], entries.get(i), None));
                at + write_end(&mut out[at..], None)
            });
        }
        let Some(inner) = self.levels.block(self.leaves.len(), i) else { return out.fill(0) };
        let below = |item: usize| index::block_vcn(cluster, (inner.below_first + item) as u64);
        index::block(out, vcn, true, |out| {
            let mut at = 0;
            for item in inner.items.clone() {
                let entry = entries.get(self.separator(inner.level, item));
                at += write_entry(&mut out[at..], entry, Some(below(item)));
            }
            at + write_end(&mut out[at..], Some(below(inner.items.end)))
        });
    }
}

/// Writes the `$INDEX_ROOT` value of a directory whose entries all fit in it.
pub(super) fn small_root(out: &mut [u8], entries: &Entries, cluster: ClusterSize) -> usize {
    index::root_value(out, I30_KEY, cluster, false, |out| {
        let at = (0..entries.len()).fold(0, |at, i| at + write_entry(&mut out[at..], entries.get(i), None));
        at + write_end(&mut out[at..], None)
    })
}

/// Writes the `$INDEX_ROOT` value of a directory in `blocks` index blocks.
pub(super) fn large_root(out: &mut [u8], blocks: u64, cluster: ClusterSize) -> usize {
    index::large_root(out, I30_KEY, cluster, blocks - 1)
}

fn write_entry(out: &mut [u8], (reference, key): (u64, &[u8]), subnode: Option<u64>) -> usize {
    let mut len = align8(ENTRY_HEADER + key.len());
    if let Some(vcn) = subnode {
        out[len..len + SUBNODE].copy_from_slice(&vcn.to_le_bytes());
        len += SUBNODE;
    }
    let flags = if subnode.is_some() { entry_flag::SUBNODE } else { 0 };
    write_header(out, reference, len, key.len(), flags);
    out[ENTRY_HEADER..ENTRY_HEADER + key.len()].copy_from_slice(key);
    len
}

fn write_end(out: &mut [u8], subnode: Option<u64>) -> usize {
    let mut len = ENTRY_HEADER;
    let mut flags = entry_flag::END;
    if let Some(vcn) = subnode {
        out[len..len + SUBNODE].copy_from_slice(&vcn.to_le_bytes());
        len += SUBNODE;
        flags |= entry_flag::SUBNODE;
    }
    write_header(out, 0, len, 0, flags);
    len
}

fn write_header(out: &mut [u8], reference: u64, len: usize, key_len: usize, flags: u16) {
    let header = EntryHeader {
        reference: reference.into(),
        length: (len as u16).into(),
        key_length: (key_len as u16).into(),
        flags: flags.into(),
        unused: 0.into(),
    };
    out[..ENTRY_HEADER].copy_from_slice(header.as_bytes());
}
