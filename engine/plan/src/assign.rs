//! Assignment of files to drives.
//!
//! Best fit, whole subtrees first: a directory stays together where any drive can take it; otherwise its
//! subdirectories are tried one by one, largest first, and at last its own files. No file is split. The same catalog and
//! capacities give the same answer. Spread evenly, each piece goes to the drive that has least, and directories that are
//! large against a drive's share are taken apart.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use crate::catalog::Catalog;
use crate::units::ByteLen;

/// Most files that are spread at once, as the documented tool does it
/// (docs/spec/import-export.md#spreading-files-over-drives): a batch that fits one drive goes to one.
pub const BATCH_FILES_MAX: usize = 100_000;

/// Over how many drives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spread {
    /// As few as hold the files.
    #[default]
    Fill,
    /// All of them, each with as much as the others, so that they are written at once.
    Even,
}

/// Parts of a drive's share that a directory may have which stays together when files are spread evenly.
const SHARE_PARTS: u64 = 16;

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
    how: Spread,
) -> Assignment {
    let together_max = match how {
        Spread::Fill => u64::MAX,
        Spread::Even => {
            let all: u64 = files.iter().map(|file| file_cost(*file).0).sum();
            all / (capacities.len() as u64 * SHARE_PARTS).max(1)
        }
    };
    let mut left: Vec<u64> = capacities.iter().map(|c| c.0).collect();
    let mut out = Assignment { drives: vec![Vec::new(); capacities.len()], unplaced: Vec::new() };
    for batch in files.chunks(BATCH_FILES_MAX) {
        let rules = Rules { capacities, together_max, how };
        spread(catalog, batch, &mut left, &file_cost, dir_cost, &rules, &mut out);
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

/// Rules for placing pieces.
struct Rules<'a> {
    capacities: &'a [ByteLen],
    /// Larger directories are taken apart.
    together_max: u64,
    how: Spread,
}

impl Rules<'_> {
    /// The drive for a piece, by what is left on each.
    fn best(&self, left: &[u64], cost: u64) -> Option<usize> {
        let fits = left.iter().enumerate().filter(|&(_, &room)| room >= cost);
        match self.how {
            Spread::Fill => fits.min_by_key(|&(_, &room)| room).map(|(drive, _)| drive),
            Spread::Even => {
                let given = |drive: usize, room: u64| self.capacities[drive].0.saturating_sub(room);
                fits.min_by_key(|&(drive, &room)| (given(drive, room), drive)).map(|(drive, _)| drive)
            }
        }
    }
}

fn spread(
    catalog: &Catalog,
    batch: &[u32],
    left: &mut [u64],
    file_cost: &impl Fn(u32) -> ByteLen,
    dir_cost: ByteLen,
    rules: &Rules<'_>,
    out: &mut Assignment,
) {
    let subtrees = subtrees(catalog, batch, file_cost, dir_cost);
    let mut stack = vec![0u32];
    while let Some(d) = stack.pop() {
        let Some(this) = subtrees.get(&d).filter(|this| !this.files.is_empty()) else { continue };
        if this.cost <= rules.together_max
            && let Some(drive) = rules.best(left, this.cost)
        {
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
            match rules.best(&room, cost) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::azure::dataset::BlobType;
    use crate::catalog::Builder;
    use crate::units::Stamp;

    /// Three directories of 30 files of a MB, and one file of 20 MB.
    fn catalog() -> Catalog {
        let at = Stamp { seconds: 0, nanos: 0 };
        let mut builder = Builder::new();
        let top = builder.dir(0, "data").expect("a directory");
        let row = builder.row("/source/".into(), Some(top), Some(BlobType::Block));
        for name in ["a", "b", "c"] {
            let dir = builder.dir(top, name).expect("a directory");
            for i in 0..30 {
                builder.file(dir, &format!("{i:02}"), row, ByteLen(1 << 20), [at; 2]).expect("a file");
            }
        }
        builder.file(top, "large", row, ByteLen(20 << 20), [at; 2]).expect("a file");
        builder.seal(10).expect("no duplicates")
    }

    fn shares(how: Spread, capacities: &[u64]) -> Vec<u64> {
        let catalog = catalog();
        let all: Vec<u32> = (0..catalog.files().len() as u32).collect();
        let capacities: Vec<ByteLen> = capacities.iter().map(|mib| ByteLen(mib << 20)).collect();
        let cost = |file: u32| catalog.files()[file as usize].len;
        let assignment = assign(&catalog, &all, &capacities, cost, ByteLen(4096), how);
        assert_eq!(assignment.unplaced, [] as [u32; 0]);
        let mut seen: Vec<u32> = assignment.drives.concat();
        seen.sort_unstable();
        assert_eq!(seen, all);
        assignment.drives.iter().map(|files| files.iter().map(|f| cost(*f).0 >> 20).sum()).collect()
    }

    #[test]
    fn filled_goes_to_few_drives_and_even_to_all() {
        assert_eq!(shares(Spread::Fill, &[500, 500, 500]), [110, 0, 0]);
        let even = shares(Spread::Even, &[500, 500, 500]);
        assert!(even.iter().all(|share| (34..=40).contains(share)), "{even:?}");
        // A small one takes what it can, the others the rest.
        let uneven = shares(Spread::Even, &[15, 500, 500]);
        assert!(uneven[0] <= 15 && uneven[0] > 8 && uneven[1].abs_diff(uneven[2]) <= 4, "{uneven:?}");
        assert_eq!(shares(Spread::Even, &[500, 500, 500]), even, "the same each time");
    }
}
