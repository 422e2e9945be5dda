//! Assignment of files to drives.
//!
//! Best fit, whole subtrees first: a directory stays together where any drive can take it; otherwise its
//! subdirectories are tried one by one, largest first, and at last its own files. No file is split. The same catalog and
//! capacities give the same answer.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use crate::plan::catalog::Catalog;
use crate::units::ByteLen;

/// Most files that are spread at once, as the documented tool does it
/// (docs/spec/import-export.md#spreading-files-over-drives): a batch that fits one drive goes to one.
pub const BATCH_FILES_MAX: usize = 100_000;

/// Files of each drive, and those that fit nowhere; indices into the catalog, ascending.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// Files of each drive, in the order of the drives.
    pub drives: Vec<Vec<u32>>,
    /// Files that no drive has room for.
    pub unplaced: Vec<u32>,
}

/// Spreads `files` (ascending) of the catalog over drives with `capacities` left for files, batch by batch; `file_cost`
/// and `dir_cost` give the space that one file or directory takes.
pub fn assign(
    catalog: &Catalog,
    files: &[u32],
    capacities: &[ByteLen],
    file_cost: impl Fn(u32) -> ByteLen,
    dir_cost: ByteLen,
) -> Assignment {
    let mut left: Vec<u64> = capacities.iter().map(|c| c.0).collect();
    let mut out = Assignment { drives: vec![Vec::new(); capacities.len()], unplaced: Vec::new() };
    for batch in files.chunks(BATCH_FILES_MAX) {
        spread(catalog, batch, &mut left, &file_cost, dir_cost, &mut out);
    }
    for list in out.drives.iter_mut().chain(std::iter::once(&mut out.unplaced)) {
        list.sort_unstable();
    }
    out
}

/// A directory that holds files of the batch, itself or below.
#[derive(Default)]
struct Subtree {
    cost: u64,
    /// Its files in the batch, which are neighbours.
    files: Range<usize>,
    /// Number of its own files among them; these come first.
    own: usize,
    below: Vec<u32>,
}

/// The directories of a batch, including the root.
fn subtrees(
    catalog: &Catalog,
    batch: &[u32],
    file_cost: &impl Fn(u32) -> ByteLen,
    dir_cost: ByteLen,
) -> HashMap<u32, Subtree> {
    let mut found: BTreeMap<u32, Subtree> = BTreeMap::from([(0, Subtree::default())]);
    let mut linked = HashSet::new();
    for run in batch.chunk_by(|a, b| catalog.files()[*a as usize].dir == catalog.files()[*b as usize].dir) {
        let mut dir = catalog.files()[run[0] as usize].dir;
        let this = found.entry(dir).or_default();
        this.cost = run.iter().map(|f| file_cost(*f).0).sum();
        this.own = run.len();
        while linked.insert(dir)
            && let Some(parent) = catalog.parent(dir)
        {
            found.entry(parent).or_default().below.push(dir);
            dir = parent;
        }
    }
    let mut out: HashMap<u32, Subtree> = HashMap::with_capacity(found.len());
    // Breadth first: children have higher numbers than their parents.
    for (dir, mut this) in found.into_iter().rev() {
        let start = batch.partition_point(|f| *f < catalog.dirs()[dir as usize].first_file);
        let mut count = this.own;
        for below in &this.below {
            this.cost += out[below].cost;
            count += out[below].files.len();
        }
        if count > 0 {
            this.cost += dir_cost.0;
        }
        this.files = start..start + count;
        out.insert(dir, this);
    }
    out
}

fn spread(
    catalog: &Catalog,
    batch: &[u32],
    left: &mut [u64],
    file_cost: &impl Fn(u32) -> ByteLen,
    dir_cost: ByteLen,
    out: &mut Assignment,
) {
    let subtrees = subtrees(catalog, batch, file_cost, dir_cost);
    let best = |left: &[u64], cost: u64| {
        let fits = left.iter().enumerate().filter(|&(_, &room)| room >= cost);
        fits.min_by_key(|&(_, &room)| room).map(|(drive, _)| drive)
    };
    let mut stack = vec![0u32];
    while let Some(d) = stack.pop() {
        let Some(this) = subtrees.get(&d).filter(|this| !this.files.is_empty()) else { continue };
        if let Some(drive) = best(left, this.cost) {
            left[drive] -= this.cost;
            out.drives[drive].extend_from_slice(&batch[this.files.clone()]);
            continue;
        }
        let mut below = this.below.clone();
        // The stack gives the largest back first.
        below.sort_by_key(|b| (subtrees[b].cost, std::cmp::Reverse(*b)));
        stack.extend(below);
        let own = &batch[this.files.start..this.files.start + this.own];
        let mut own: Vec<(u64, u32)> = own.iter().map(|f| (file_cost(*f).0, *f)).collect();
        own.sort_by_key(|&(cost, f)| (std::cmp::Reverse(cost), f));
        // The directory itself is needed on every drive that gets one of its files.
        let mut has_dir = vec![false; left.len()];
        for (cost, f) in own {
            let room: Vec<u64> = left
                .iter()
                .zip(&has_dir)
                .map(|(&l, &has)| l.saturating_sub(if has { 0 } else { dir_cost.0 }))
                .collect();
            match best(&room, cost) {
                Some(drive) => {
                    left[drive] -= cost + if has_dir[drive] { 0 } else { dir_cost.0 };
                    has_dir[drive] = true;
                    out.drives[drive].push(f);
                }
                None => out.unplaced.push(f),
            }
        }
    }
}
