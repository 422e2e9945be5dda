//! Source trees made from a seed: the same seed gives the same names, bytes and times on every machine.

use std::fs::{self, File, FileTimes};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use dray_base::entropy::{Entropy, Seeded};

const MIB4: u64 = 4 << 20;

/// Names that NTFS or Windows cannot hold, or that other systems trip over.
const NAMES: [&str; 66] = [
    "CON",
    "con.txt",
    "PRN",
    "AUX",
    "NUL",
    "nul.tar.gz",
    "COM1",
    "LPT9",
    "COM\u{b9}",
    "CONIN$",
    "clock$",
    "a:b",
    "a<b",
    "a>b",
    "a|b",
    "a?b",
    "a*b",
    "a\"b",
    "trailing.",
    "trailing..",
    "trailing ",
    "trailing. .",
    " leading",
    "...",
    "..dots",
    ".hidden",
    "percent%41",
    "hash#1",
    "plus+",
    "semi;colon",
    "com,ma",
    "amp&ersand",
    "apostrophe's",
    "less&lt;",
    "]]>",
    "tilde~1",
    "LONGNA~1.TXT",
    "longname~2.txt",
    "DriveManifest.xml",
    "System Volume Information",
    "$MFT",
    "$Recycle.Bin",
    "~",
    "-rf",
    "--",
    "name\u{301}",
    "n\u{e4}me",
    "na\u{308}me",
    "\u{212a}elvin",
    "\u{131}dotless",
    "\u{df}sharp",
    "\u{1e9e}SHARP",
    "\u{3c3}\u{3c2}\u{3a3}",
    "\u{200b}zero",
    "\u{feff}bom",
    "\u{202e}rtl",
    "\u{e000}private",
    "\u{f022}mapped",
    "\u{1f600}",
    "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}.jpg",
    "\u{10400}deseret",
    "\u{10428}deseret",
    "\u{20000}\u{2a6df}",
    "\u{5b57}\u{7b26}",
    "\u{ff21}wide",
    "\u{1c4}\u{1c5}\u{1c6}",
];

/// Names that differ only by case, beyond ASCII too.
const CASES: [&str; 10] =
    ["Case", "case", "CASE", "cAsE", "Stra\u{df}e", "\u{c4}PFEL", "\u{e4}pfel", "\u{3a9}", "\u{3c9}", "\u{2126}"];

/// Size of a generated dataset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Number of regular files.
    pub files: u64,
    /// Bytes of the files, holes included.
    pub bytes: u64,
}

/// Makes files below one root.
#[derive(Debug)]
pub struct Dataset {
    root: PathBuf,
    chance: Seeded,
    made: Made,
    buffer: Vec<u8>,
    touched: Vec<PathBuf>,
}

impl Dataset {
    /// A dataset in `root`, which is created.
    pub fn new(root: &Path, seed: u64) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        Ok(Self {
            root: root.to_owned(),
            chance: Seeded::new(seed),
            made: Made::default(),
            buffer: vec![0; 1 << 20],
            touched: Vec::new(),
        })
    }

    /// Sets the times of the directories, which every file in them changed, and returns the totals.
    pub fn finish(mut self) -> io::Result<Made> {
        self.touched.sort();
        self.touched.dedup();
        for dir in std::mem::take(&mut self.touched).iter().rev() {
            let times = self.times();
            File::open(dir)?.set_times(times)?;
        }
        Ok(self.made)
    }

    /// A file of `len` random bytes at `path` below the root, with a time between 2001 and 2026 to the nanosecond.
    pub fn file(&mut self, path: impl AsRef<Path>, len: u64) -> io::Result<()> {
        let (file, _) = self.create(path.as_ref())?;
        let mut left = len;
        while left > 0 {
            let n = left.min(self.buffer.len() as u64) as usize;
            self.chance.fill(&mut self.buffer[..n]);
            (&file).write_all(&self.buffer[..n])?;
            left -= n as u64;
        }
        self.close(&file, len)
    }

    /// A file of `len` bytes that is one hole except for `island` random bytes at each of `islands`.
    pub fn sparse(&mut self, path: impl AsRef<Path>, len: u64, islands: &[u64], island: usize) -> io::Result<()> {
        let (file, _) = self.create(path.as_ref())?;
        file.set_len(len)?;
        for at in islands {
            let n = island.min((len - at) as usize);
            self.chance.fill(&mut self.buffer[..n]);
            file.write_all_at(&self.buffer[..n], *at)?;
        }
        self.close(&file, len)
    }

    /// Many small files of 0 to 200 KB (30 KB on average, mostly small), about `per_dir` in a directory, three levels deep.
    pub fn small(&mut self, files: u64, per_dir: u64) -> io::Result<()> {
        for i in 0..files {
            let dir = i / per_dir.max(1);
            // Log-uniform between 2^9 and 2^17.5, one file in 64 empty.
            let draw = self.chance.next_u64();
            let exponent = 9.0 + (draw >> 40) as f64 / f64::from(1 << 24) * 8.5;
            let len = if draw.is_multiple_of(64) { 0 } else { exponent.exp2() as u64 };
            self.file(format!("d{:02}/e{:02}/f{dir:05}/file-{i:07}.dat", dir % 7, dir % 41), len)?;
        }
        Ok(())
    }

    /// One directory with `files` files, a third of them empty and the rest below 1 KB.
    pub fn flat(&mut self, files: u64) -> io::Result<()> {
        for i in 0..files {
            let len = (i % 3) * (i % 331);
            self.file(format!("flat/{:016x}-{i}", i.wrapping_mul(0x9E37_79B9_7F4A_7C15)), len)?;
        }
        Ok(())
    }

    /// `total` bytes in files of `each`, the last one shorter.
    pub fn large(&mut self, total: u64, each: u64) -> io::Result<()> {
        let mut left = total;
        for i in 0.. {
            if left == 0 {
                break;
            }
            let len = left.min(each.max(1));
            self.file(format!("large/{i:04}.bin"), len)?;
            left -= len;
        }
        Ok(())
    }

    /// Difficult names, depths and sizes; `sparse` bytes in one file that is nearly all hole.
    ///
    /// Linux file names end at 255 *bytes*, so here only ASCII can reach 255 UTF-16 units.
    pub fn extremes(&mut self, sparse: u64) -> io::Result<()> {
        self.sizes()?;
        self.names()?;
        self.depths()?;
        self.holes(sparse)
    }

    fn sizes(&mut self) -> io::Result<()> {
        for len in [0, 1, 2, 511, 512, 513, 600, 700, 701, 1023, 1024, 1025, 4095, 4096, 4097, 65535, 65536, 65537] {
            self.file(format!("sizes/{len}"), len)?;
        }
        for len in [MIB4 - 1, MIB4, MIB4 + 1, 2 * MIB4 - 1, 2 * MIB4, 5 * MIB4 + 4097] {
            self.file(format!("sizes/{len}"), len)?;
        }
        // Neighbours around a block boundary: a small one, a large one, a small one.
        for (i, len) in [3 * MIB4 / 4, 4096, MIB4 + 512, 1, MIB4 / 2].into_iter().enumerate() {
            self.file(format!("neighbours/{i}"), len)?;
        }
        Ok(())
    }

    fn names(&mut self) -> io::Result<()> {
        for name in NAMES {
            self.file(Path::new("names").join(name), 100 + name.len() as u64)?;
            self.file(Path::new("names in dirs").join(name).join("inside"), 5)?;
        }
        self.file(format!("names/{}", "x".repeat(255)), 255)?;
        self.file(format!("names/{}", "\u{5b57}".repeat(85)), 85)?;
        self.file(format!("names/{}", "\u{1f600}".repeat(63)), 63)?;
        self.file(format!("{}/{}", "d".repeat(255), "f".repeat(255)), 510)?;
        for name in CASES {
            self.file(Path::new("cases").join(name), 64)?;
            self.file(Path::new("case dirs").join(name).join("same"), 65)?;
            self.file(Path::new("case dirs").join(name).join("SAME"), 66)?;
        }
        Ok(())
    }

    fn depths(&mut self) -> io::Result<()> {
        // Deep: 60 short levels, and long ones past 259 units (Windows' MAX_PATH) at 5 × 60.
        let deep: PathBuf = (0..60).map(|i| format!("l{i}")).collect();
        self.file(deep.join("bottom"), 4097)?;
        let long: PathBuf = (0..5).map(|i| format!("{i}-{}", "long".repeat(14))).collect();
        self.file(long.join("bottom.txt"), 4097)?;
        self.file(long.join("BOTTOM.txt"), 4098)?;
        // 258, 259 and 260 units from the container on, whatever precedes it.
        for units in [240, 241, 242, 243, 244, 245, 246, 247, 248, 249, 250] {
            self.file(format!("edge/{}/{}", "e".repeat(120), "f".repeat(units - 126)), 10)?;
        }
        fs::create_dir_all(self.root.join("empty dir/empty inside"))?;
        Ok(())
    }

    /// Holes, runs of zeros, and the lengths of page blobs.
    fn holes(&mut self, sparse: u64) -> io::Result<()> {
        // Sparse, and page-blob shaped: multiples of 512 with runs of zeros in and across 4 KiB pages.
        if sparse > 0 {
            self.sparse("sparse/holes.bin", sparse, &[0, sparse / 3, sparse - 4096], 4096)?;
        }
        self.sparse("pages/all-zero.vhd", 3 << 20, &[], 0)?;
        self.sparse(
            "pages/islands.vhd",
            9 << 20,
            &[512, 8192, 12 << 10, MIB4 - 512, MIB4 + 4096, (9 << 20) - 512],
            4096,
        )?;
        self.file("pages/full.vhd", 5 << 20)?;
        self.file("pages/one.vhd", 512)
    }

    fn create(&mut self, path: &Path) -> io::Result<(File, PathBuf)> {
        let path = self.root.join(path);
        let dir = path.parent().expect("below the root");
        if self.touched.last().is_none_or(|last| last != dir) {
            fs::create_dir_all(dir)?;
            self.touched.push(dir.to_owned());
        }
        Ok((File::create_new(&path)?, path))
    }

    fn close(&mut self, file: &File, len: u64) -> io::Result<()> {
        file.set_times(self.times())?;
        self.made.files += 1;
        self.made.bytes += len;
        Ok(())
    }

    /// A modification time between 2001-09-09 and 2026-10-01 with all its nanoseconds, accessed an hour later.
    fn times(&mut self) -> FileTimes {
        let draw = self.chance.next_u64();
        let seconds = 1_000_000_000 + draw % 790_000_000;
        let modified = SystemTime::UNIX_EPOCH + Duration::new(seconds, (draw >> 32) as u32 % 1_000_000_000);
        FileTimes::new().set_modified(modified).set_accessed(modified + Duration::from_secs(3600))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::time::SystemTime;

    fn read_tree(dir: &Path, base: &Path, out: &mut BTreeMap<PathBuf, (Vec<u8>, SystemTime)>) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                read_tree(&path, base, out);
            } else {
                let modified = entry.metadata().unwrap().modified().unwrap();
                out.insert(path.strip_prefix(base).unwrap().to_owned(), (fs::read(&path).unwrap(), modified));
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_tree_and_another_does_not() {
        let scratch = std::env::temp_dir().join(format!("dray-dataset-{}", std::process::id()));
        let tree = |name: &str, seed| {
            let root = scratch.join(name);
            let mut dataset = Dataset::new(&root, seed).unwrap();
            dataset.small(40, 7).unwrap();
            dataset.extremes(0).unwrap();
            let made = dataset.finish().unwrap();
            let mut files = BTreeMap::new();
            read_tree(&root, &root, &mut files);
            assert_eq!(made.files, files.len() as u64);
            assert_eq!(made.bytes, files.values().map(|(bytes, _)| bytes.len() as u64).sum::<u64>());
            files
        };
        let first = tree("a", 7);
        assert!(first == tree("b", 7));
        assert!(first != tree("c", 8));
        fs::remove_dir_all(&scratch).unwrap();
    }
}
