//! Simulates power cuts from a log of all writes to a disk (dm-log-writes' format).

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use dray_base::entropy::Seeded;

use super::machine::{in_tables, looks_finished};

/// One entry of the log.
pub struct Entry {
    pub at: u64,
    pub len: u64,
    /// Bytes written; empty for a discard, which leaves zeros.
    pub bytes: Vec<u8>,
    pub flush: bool,
    /// End of the entry in the log.
    end: u64,
}

impl Entry {
    fn write(&self, image: &fs::File) {
        static ZEROS: [u8; 1 << 20] = [0; 1 << 20];
        image.write_all_at(&self.bytes, self.at).expect("written");
        let mut at = self.at + self.bytes.len() as u64;
        let end = self.at + self.len;
        while at < end {
            let len = (end - at).min(1 << 20);
            image.write_all_at(&ZEROS[..len as usize], at).expect("written");
            at += len;
        }
    }
}

pub fn entries(log: &Path) -> Vec<Entry> {
    const SECTOR: u64 = 512;
    let file = fs::File::open(log).expect("a log");
    let len = file.metadata().expect("a log").len();
    let number = |at: u64| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at).expect("a number");
        u64::from_le_bytes(bytes)
    };
    assert_eq!((number(0), number(8)), (0x006A_7366_7773_6872, 1), "the log's magic and version");
    let count = number(16);
    let mut at = SECTOR;
    let mut entries = Vec::new();
    while (entries.len() as u64) < count && at < len {
        let (sector, sectors, flags) = (number(at), number(at + 8), number(at + 16));
        at += SECTOR;
        // Discards (4) and marks (8) have no data.
        let len = if flags & 8 == 0 { sectors * SECTOR } else { 0 };
        let mut bytes = vec![0; if flags & 4 == 0 { len as usize } else { 0 }];
        file.read_exact_at(&mut bytes, at).expect("the data");
        at += bytes.len() as u64;
        assert!(
            flags & 2 == 0 || bytes.is_empty(),
            "a write with FUA: durable by itself, which nothing here counts on"
        );
        entries.push(Entry { at: sector * SECTOR, len, bytes, flush: flags & 1 != 0, end: at });
    }
    entries
}

/// A disk as a power cut leaves it: flushed entries, and a part of the rest.
pub struct Replay<'a> {
    entries: &'a [Entry],
    image: fs::File,
    size: u64,
    /// Number of entries applied to the disk.
    done: usize,
}

impl<'a> Replay<'a> {
    /// Starts from `base`, which is changed.
    pub fn new(base: &Path, entries: &'a [Entry]) -> Self {
        let image = fs::File::options().read(true).write(true).open(base).expect("an image");
        let size = image.metadata().expect("an image").len();
        Self { entries, image, size, done: 0 }
    }

    /// Applies all entries before `end`.
    pub fn to(&mut self, end: usize) {
        for entry in &self.entries[self.done..end] {
            entry.write(&self.image);
        }
        self.done = end;
    }

    /// Applies the entries up to `end` that `lands` selects; returns the others, and the data for undoing the applied
    /// ones.
    fn some(&self, end: usize, mut lands: impl FnMut() -> bool) -> (Vec<&'a Entry>, Vec<(u64, Vec<u8>)>) {
        let (mut lost, mut undo) = (Vec::new(), Vec::new());
        for entry in &self.entries[self.done..end] {
            if !lands() {
                lost.push(entry);
                continue;
            }
            let mut old = vec![0; entry.len as usize];
            self.image.read_exact_at(&mut old, entry.at).expect("read");
            entry.write(&self.image);
            undo.push((entry.at, old));
        }
        (lost, undo)
    }
}

/// Positions in the log of completed flushes.
pub fn flushes(entries: &[Entry]) -> Vec<usize> {
    entries.iter().enumerate().filter(|(_, entry)| entry.flush).map(|(i, _)| i).collect()
}

/// Cuts the power at every entry of the log: flushed entries are applied, and a random part of the rest. No such disk
/// may look like a drive unless everything missing is in the partition tables.
pub fn cut_everywhere(base: &Path, entries: &[Entry]) {
    let flushes = flushes(entries);
    assert!(flushes.len() >= 4, "only {} flushes in {} entries", flushes.len(), entries.len());
    let mut replay = Replay::new(base, entries);
    let size = replay.size;
    let mut random = Seeded::new(6);
    let (mut cuts, mut finished) = (0, 0);
    // Before the first flush only the earlier contents are guaranteed.
    for now in flushes[0]..entries.len() {
        if entries[now].flush {
            replay.to(now);
        }
        // At a flush, all three kinds: nothing of the rest, a random part, everything up to here.
        let ways: &[u64] = if entries[now].flush { &[0, 1, 2] } else { &[1] };
        for way in ways {
            let (lost, undo) = replay.some(now + 1, || match way {
                0 => false,
                1 => random.next_u64().is_multiple_of(2),
                _ => true,
            });
            cuts += 1;
            if looks_finished(base) {
                finished += 1;
                let rest = lost.into_iter().chain(&entries[now + 1..]);
                let missing = rest.filter(|entry| entry.len > 0).find(|entry| !in_tables(entry.at, entry.len, size));
                let missing = missing.map(|entry| entry.at);
                assert_eq!(missing, None, "cut {now} of {}: looks finished without this byte", entries.len());
            }
            for (at, old) in undo.into_iter().rev() {
                replay.image.write_all_at(&old, at).expect("restored");
            }
        }
    }
    println!(
        "{cuts} power cuts at {} entries and {} flushes; {finished} after all was down",
        entries.len(),
        flushes.len()
    );
    assert!(cuts > 10);
}

/// The disk when the log was `len` bytes long: all entries up to the last flush then, and a random part of those up to
/// the next.
pub fn cut_at(base: &Path, entries: &[Entry], len: u64, seed: u64) {
    let flushes = flushes(entries);
    let behind = flushes.partition_point(|flush| entries[*flush].end <= len);
    let mut replay = Replay::new(base, entries);
    replay.to(flushes[..behind].last().copied().unwrap_or(0));
    let until = flushes.get(behind).copied().unwrap_or(entries.len());
    let mut random = Seeded::new(seed);
    replay.some(until, || random.next_u64().is_multiple_of(2));
}
