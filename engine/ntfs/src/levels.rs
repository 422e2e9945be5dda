//! The inner levels of an index (docs/spec/ntfs.md#indexes): both a new volume's directories and those that are rebuilt
//! stand on them. What the leaves hold is the caller's.

use std::ops::Range;

use crate::build::index::{INNER_ROOM, SUBNODE};

/// Assignment of separators to inner blocks. Blocks are numbered leaves first, then level by level; the top block is the
/// last.
///
/// For each level, from the lowest: the index of the first item of each block. Item `i` of a level is between blocks `i`
/// and `i + 1` of the level below, and between two blocks of its own one item is moved up.
#[derive(Debug, Default)]
pub(crate) struct Levels(Vec<Vec<u32>>);

/// One inner block.
#[derive(Debug)]
pub(crate) struct InnerBlock {
    /// Its items.
    pub items: Range<usize>,
    /// Level of the items.
    pub level: usize,
    /// Number of the first block of the level below: the subnode of item `i` is block `below_first + i`.
    pub below_first: usize,
}

impl Levels {
    /// Over `leaves` leaves; `len` gives the bytes of the entry between leaf `i` and the next, without subnode.
    pub(crate) fn build(&mut self, leaves: usize, len: impl Fn(usize) -> usize) {
        self.0.clear();
        let mut below = leaves;
        while below > 1 {
            let items = below - 1;
            let mut starts = vec![0u32];
            let mut used = 0;
            for item in 0..items {
                let len = len(self.separator(self.0.len(), item)) + SUBNODE;
                if used + len <= INNER_ROOM {
                    used += len;
                } else {
                    starts.push(item as u32 + 1);
                    used = 0;
                }
            }
            // A block must not be empty: then the item before the last moves up instead.
            if let Some(start) = starts.last_mut()
                && *start as usize == items
            {
                *start -= 1;
            }
            below = starts.len();
            self.0.push(starts);
        }
    }

    /// No levels: the index has at most one leaf.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The leaf whose separator from the next one is item `item` of inner level `level`.
    pub(crate) fn separator(&self, level: usize, item: usize) -> usize {
        (0..level).rev().fold(item, |item, below| self.0[below][item + 1] as usize - 1)
    }

    /// Number of blocks, leaves included.
    pub(crate) fn blocks(&self, leaves: usize) -> u64 {
        (leaves + self.0.iter().map(Vec::len).sum::<usize>()) as u64
    }

    /// Block `i`, which is no leaf; `None` behind the last.
    pub(crate) fn block(&self, leaves: usize, i: usize) -> Option<InnerBlock> {
        let (mut below_first, mut first) = (0, leaves);
        for (level, starts) in self.0.iter().enumerate() {
            let Some(&start) = starts.get(i - first) else {
                below_first = first;
                first += starts.len();
                continue;
            };
            // The item in front of the next block's first one moved up.
            let end = starts.get(i - first + 1).map_or(first - below_first - 1, |&next| next as usize - 1);
            return Some(InnerBlock { items: start as usize..end, level, below_first });
        }
        None
    }
}

/// Upper bound of the blocks for any subset of the entries of `leaves` leaves, the longest of which has `longest` bytes.
///
/// Leaving entries out never makes a leaf start earlier, so the number of leaves only decreases; but it moves other, perhaps
/// longer, names into inner blocks, so the longest name is assumed for all of them.
pub(crate) fn blocks_max(leaves: usize, longest: usize) -> u64 {
    let per_block = (INNER_ROOM / (longest.max(1) + SUBNODE)) as u64;
    let (mut total, mut below) = (leaves as u64, leaves as u64);
    while below > 1 {
        below = (below - 1) / (per_block + 1) + 1;
        total += below;
    }
    total
}
