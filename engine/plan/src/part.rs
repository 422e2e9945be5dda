//! A part of a catalog: the files of one drive, with everything else as it is in the whole.

use std::collections::HashMap;

use crate::catalog::{Catalog, Dir, File, Row};
use crate::units::Stamp;

impl Catalog {
    /// A catalog of these files alone: ascending indices of the whole. Blob paths, names on the drive, sources, rows and
    /// their order stay, so that a drive laid out from the part equals one laid out from the whole, byte for byte. Names
    /// on the drive are taken over, not chosen again: files of other drives may be the reason for a safe name.
    ///
    /// Rows keep their numbers; one that has no file here keeps its path. The memory is that of the part.
    ///
    /// # Panics
    /// An index is not of this catalog.
    pub fn part(&self, chosen: &[u32]) -> Self {
        let mut is_kept = vec![false; self.dirs.len()];
        is_kept[0] = true;
        let mut is_used = vec![false; self.rows.len()];
        for &file in chosen {
            let file = &self.files[file as usize];
            is_used[file.row as usize] = true;
            let mut dir = file.dir;
            while !std::mem::replace(&mut is_kept[dir as usize], true) {
                dir = self.dirs[dir as usize].parent;
            }
        }
        // Parents come first, so that the number of kept directories in front is the new number.
        let mut number = Vec::with_capacity(self.dirs.len() + 1);
        let mut kept = 0u32;
        for &keep in &is_kept {
            number.push(kept);
            kept += u32::from(keep);
        }
        number.push(kept);
        let first_file = |old: u32| chosen.partition_point(|&file| file < old) as u32;

        let mut names = String::new();
        let mut name = |at: u32, len: u16| {
            let new = names.len() as u32;
            names.push_str(&self.names[at as usize..at as usize + usize::from(len)]);
            new
        };
        let mut dirs = Vec::with_capacity(kept as usize);
        for (dir, _) in self.dirs.iter().zip(&is_kept).filter(|(_, keep)| **keep) {
            let [begin, end] = [dir.first_dir, dir.first_dir + dir.dir_count].map(|old| number[old as usize]);
            let [first, last] = [dir.first_file, dir.first_file + dir.file_count].map(first_file);
            dirs.push(Dir {
                // The root has none.
                parent: number.get(dir.parent as usize).copied().unwrap_or(dir.parent),
                name_at: name(dir.name_at, dir.name_len),
                name_len: dir.name_len,
                first_dir: begin,
                dir_count: end - begin,
                first_file: first,
                file_count: last - first,
            });
        }
        let files = chosen.iter().map(|&file| {
            let file = self.files[file as usize];
            File { name_at: name(file.name_at, file.name_len), dir: number[file.dir as usize], ..file }
        });
        let files = files.collect();
        let rows = self.rows.iter().zip(&is_used).map(|(row, &used)| Row {
            base: row.base.clone(),
            dir: row.dir.map(|dir| if used { number[dir as usize] } else { 0 }),
            blob_type: row.blob_type,
        });
        let safe_dirs = self.safe_dirs.iter().filter(|(dir, _)| is_kept[**dir as usize]);
        let safe_dirs: HashMap<u32, Box<str>> =
            safe_dirs.map(|(dir, name)| (number[*dir as usize], name.clone())).collect();
        let place = |file: &u32| chosen.binary_search(file).ok().map(|place| place as u32);
        Self {
            dirs,
            files,
            rows: rows.collect(),
            safe_dirs,
            safe_files: self.safe_files.iter().filter_map(|(file, name)| Some((place(file)?, name.clone()))).collect(),
            long: self.long.iter().filter_map(place).collect(),
            targets: self.targets.iter().filter_map(|(file, path)| Some((place(file)?, path.clone()))).collect(),
            dir_times: HashMap::new(),
            posix: chosen.iter().filter_map(|&file| self.posix(file)).collect(),
            names,
        }
    }

    /// Replaces the time of the last status change of files. It belongs to the host that reads them: a copy of the
    /// sources on another host has its own.
    pub fn set_status_changes(&mut self, mut of: impl FnMut(u32, &File) -> Option<Stamp>) {
        for (file, number) in self.files.iter_mut().zip(0..) {
            if let Some(ctime) = of(number, file) {
                file.ctime = ctime;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Builder;
    use crate::checkpoint::code::{Decoder, Encoder};
    use crate::units::ByteLen;
    use dray_base::entropy::Seeded;

    /// Names that fold together or that Windows cannot hold, in directories that they share with other drives' files.
    fn whole() -> Catalog {
        let at = |seconds| Stamp { seconds, nanos: 1 };
        let mut builder = Builder::new();
        let data = builder.dir(0, "data").expect("a directory");
        let other = builder.dir(0, "other").expect("a directory");
        let row = builder.row("/source/".into(), Some(data), None);
        let second = builder.row("/second/".into(), Some(other), None);
        let single = builder.row("/x/y.vhd".into(), None, None);
        for (n, dir) in ["x", "X", "con", "deep"].into_iter().enumerate() {
            let dir = builder.dir(data, dir).expect("a directory");
            let deep = builder.dir(dir, "de:ep").expect("a directory");
            for (i, name) in ["a", "A", "con", "b.vhd", &"l".repeat(240), "ü"].into_iter().enumerate() {
                let len = ByteLen((n * 10 + i) as u64);
                builder.file(deep, name, row, len, [at(i as i64), at(n as i64)]).expect("a file");
                builder.file(dir, name, row, len, [at(i as i64), at(n as i64)]).expect("a file");
            }
        }
        builder.file(other, "z", second, ByteLen(5), [at(0), at(0)]).expect("a file");
        builder.file(data, "y.vhd", single, ByteLen(512), [at(7), at(8)]).expect("a file");
        builder.seal(30).expect("no duplicates")
    }

    fn saved(catalog: &Catalog) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut to = Encoder::new(&mut bytes);
        catalog.save(&mut to);
        to.end().expect("memory");
        bytes
    }

    type Facts = (String, String, std::path::PathBuf, u64, Stamp, u32);

    fn facts(catalog: &Catalog, file: u32) -> Facts {
        let (mut blob, mut path) = (String::new(), String::new());
        catalog.blob_path(file, &mut blob);
        catalog.drive_path(file, &mut path);
        let entry = &catalog.files()[file as usize];
        (blob, path, catalog.source_path(file), entry.len.0, entry.mtime, entry.row)
    }

    #[test]
    fn a_part_has_its_files_as_the_whole_has_them() {
        let whole = whole();
        let all = whole.files().len() as u32;
        assert!(whole.renamed() > 5 && !whole.long().is_empty(), "the test has what is special");
        let mut random = Seeded::new(3);
        for _ in 0..200 {
            let share = random.next_u64() % 5;
            let chosen: Vec<u32> = (0..all).filter(|_| random.next_u64() % 4 < share).collect();
            let part = whole.part(&chosen);
            assert_eq!(part.files().len(), chosen.len());
            for (number, &file) in (0..).zip(&chosen) {
                assert_eq!(facts(&part, number), facts(&whole, file));
                assert_eq!(part.long().contains(&number), whole.long().contains(&file));
            }
            // What reads a plan file checks every index.
            let bytes = saved(&part);
            let again = Catalog::load(&mut Decoder::new(&bytes)).expect("a sound catalog");
            assert_eq!(saved(&again), bytes);
            let listed: u32 = part.dirs().iter().map(|dir| dir.file_count).sum();
            assert_eq!(listed as usize, chosen.len(), "each file stands in one directory");
            let below: u32 = part.dirs().iter().map(|dir| dir.dir_count).sum();
            assert_eq!(below as usize + 1, part.dirs().len(), "each directory but the root has a parent");
        }
        assert_eq!(saved(&whole.part(&(0..all).collect::<Vec<_>>())).len(), saved(&whole).len());
    }
}
