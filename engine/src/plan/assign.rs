//! Which file goes on which drive.
//!
//! Best fit, whole subtrees first: a directory stays together where any drive can take it; otherwise its
//! subdirectories are tried one by one, largest first, and at last its own files. No file is split. The same catalog and
//! capacities give the same answer.

use crate::plan::catalog::Catalog;
use crate::units::ByteLen;

/// Files of each drive, and those that fit nowhere; indices into the catalog, ascending.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// One list a drive.
    pub drives: Vec<Vec<u32>>,
    /// What no drive has room for.
    pub unplaced: Vec<u32>,
}

/// Spreads the catalog over drives with `capacities` left for files; `file_cost` and `dir_cost` say what one takes.
pub fn assign(
    catalog: &Catalog,
    capacities: &[ByteLen],
    file_cost: impl Fn(u32) -> ByteLen,
    dir_cost: ByteLen,
) -> Assignment {
    let dirs = catalog.dirs();
    let costs: Vec<u64> = (0..catalog.files().len() as u32).map(|f| file_cost(f).0).collect();
    let mut subtree = vec![(0u64, 0u32); dirs.len()];
    for (i, dir) in dirs.iter().enumerate().rev() {
        let own = dir.first_file as usize..(dir.first_file + dir.file_count) as usize;
        let below = dir.first_dir as usize..(dir.first_dir + dir.dir_count) as usize;
        let (mut cost, mut files) = (costs[own.clone()].iter().sum::<u64>(), own.len() as u32);
        for &(c, n) in &subtree[below] {
            cost += c;
            files += n;
        }
        if files > 0 {
            cost += dir_cost.0;
        }
        subtree[i] = (cost, files);
    }

    let mut left: Vec<u64> = capacities.iter().map(|c| c.0).collect();
    let mut out = Assignment { drives: vec![Vec::new(); capacities.len()], unplaced: Vec::new() };
    let best = |left: &[u64], cost: u64| {
        let fits = left.iter().enumerate().filter(|&(_, &room)| room >= cost);
        fits.min_by_key(|&(_, &room)| room).map(|(drive, _)| drive)
    };
    let mut stack = vec![0u32];
    while let Some(d) = stack.pop() {
        let (cost, files) = subtree[d as usize];
        let dir = &dirs[d as usize];
        if files == 0 {
            continue;
        }
        if let Some(drive) = best(&left, cost) {
            left[drive] -= cost;
            out.drives[drive].extend(dir.first_file..dir.first_file + files);
            continue;
        }
        let mut below: Vec<u32> = (dir.first_dir..dir.first_dir + dir.dir_count).collect();
        // The stack gives the largest back first.
        below.sort_by_key(|&b| (subtree[b as usize].0, std::cmp::Reverse(b)));
        stack.extend(below);
        let mut own: Vec<u32> = (dir.first_file..dir.first_file + dir.file_count).collect();
        own.sort_by_key(|&f| (std::cmp::Reverse(costs[f as usize]), f));
        // The directory itself is needed on every drive that gets one of its files.
        let mut has_dir = vec![false; left.len()];
        for f in own {
            let cost = costs[f as usize];
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
    for list in out.drives.iter_mut().chain(std::iter::once(&mut out.unplaced)) {
        list.sort_unstable();
    }
    out
}
