//! The batches under way, stored next to the journal: the bytes for the drive, durable before they are written there.
//!
//! Plaintext and ciphertext cannot be told apart after a torn write. So a batch is stored here, encrypted: written
//! again it completes the torn write, and decrypted it undoes it. No plaintext leaves the drive. The file has a
//! constant size, with places for some batches, so that the next ones are stored while one is written to the drive. A
//! place may be overwritten once the checkpoint records its batch as durable.
//!
//! Its first sector, the mark, says how far the drive may have been written to, and only says so of batches that are
//! durable here. So a batch that was torn while being stored, of which nothing is on the drive, can be told from one
//! that was damaged later. The mark is written with the batch after it, and both become durable at once: a disk
//! writes a sector whole or not at all, so after a power cut the mark is the old one or the new one, and both are true.
//!
//! ```text
//! 0       4 KiB    mark: magic, id, direction and border up to which the drive may be written, u64 CRC-64/NVME
//! 4096    …        places, each with
//! +0      128 KiB  the batch's head: magic, id, direction, borders, runs, checksum of its bytes; u64 CRC-64/NVME
//! +131072 …        its bytes, encrypted
//! ```
//!
//! What a power cut, or damage, leaves, with the pass at `border`:
//!
//! | mark | batches from `border` on | |
//! |---|---|---|
//! | ends at `border` or before | none, or torn | nothing is under way |
//! | ends at `border` or before | whole | stored, and not written: written again or undone all the same |
//! | ends after it | whole at least up to there | written in part: completed or undone |
//! | ends after it | torn, or none | damaged |
//! | unreadable | whole, and no other is torn | the mark alone is damaged: as above |
//! | unreadable | torn, or none | damaged |

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use rustix::fs::{FallocateFlags, OFlags};

use crate::checkpoint::CheckpointFault;
use crate::checkpoint::code::{Decoder, Encoder};
use crate::hash;
use crate::io::{Requests, Target};
use crate::units::VolumeRange;

/// Most bytes of a batch.
pub const BATCH_LEN: u64 = 16 << 20;
/// Most runs of a batch.
pub const RUNS_MAX: usize = 4096;
/// Batches that the file holds: those being written to the drive, and as many that are stored meanwhile.
pub const PLACES: u64 = 8;
/// Offset of the first place.
const MARK_LEN: u64 = 4096;
/// Bytes of the mark itself: a sector of any disk.
const MARK_USED: usize = 512;
/// Bytes of a batch's head.
const HEAD_LEN: u64 = 128 << 10;
/// Unit of offsets and lengths, for writing past the page cache.
pub const ALIGN: usize = 4096;
const MAGIC: [u8; 8] = *b"DRAYenc3";
/// What the magic has in common with that of other versions.
const FAMILY: &[u8] = b"DRAYenc";
/// Most bytes of the file.
pub const LEN_MAX: u64 = MARK_LEN + PLACES * (HEAD_LEN + BATCH_LEN);

/// Direction of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Encrypts, from the volume's start on.
    Encrypt,
    /// Decrypts, from the border back.
    Decrypt,
}

/// Contents of the mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Nothing,
    /// The drive may have been written to up to this border.
    Until(Direction, u64),
    /// Neither: damaged.
    Broken,
}

/// A batch: two borders, and the ranges to encrypt between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The border before it, in bytes of the volume.
    pub start: u64,
    /// The border after it.
    pub end: u64,
    /// Ranges between the borders, ascending.
    pub runs: Vec<VolumeRange>,
}

impl Batch {
    /// Bytes of all runs.
    pub fn bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.len.0).sum()
    }

    /// The border once a pass in this direction is through with it.
    pub const fn behind(&self, direction: Direction) -> u64 {
        match direction {
            Direction::Encrypt => self.end,
            Direction::Decrypt => self.start,
        }
    }
}

/// A batch in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    place: u64,
    /// Direction of the pass that stored it.
    pub direction: Direction,
    /// The batch.
    pub batch: Batch,
    sum: u64,
}

/// State of a place.
#[derive(Debug, PartialEq, Eq)]
enum PlaceState {
    Empty,
    Torn,
    Whole(Kept),
}

/// The file with the batches under way: the bytes for the drive, durable before they are written there.
#[derive(Clone, Debug)]
pub struct BatchJournal<'f> {
    file: &'f File,
    /// Identifies the volume: batches of any other are ignored.
    id: [u8; 32],
    batch_len: u64,
}

impl<'f> BatchJournal<'f> {
    /// Uses `file`, with room for batches of this many bytes.
    ///
    /// # Errors
    /// There is no room.
    pub fn new(file: &'f File, id: [u8; 32], batch_len: u64) -> io::Result<Self> {
        let this = Self { file, id, batch_len: batch_len.min(BATCH_LEN) };
        let len = this.head_at(PLACES);
        if file.metadata()?.len() < len {
            // Where room cannot be reserved, the first batch finds out, before it is written to the drive.
            match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len) {
                Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(len)?,
                Err(error) => return Err(error.into()),
            }
            file.sync_all()?;
        }
        Ok(this)
    }

    /// Uses `file` as it is, to examine its contents.
    pub const fn look(file: &'f File, id: [u8; 32]) -> Self {
        Self { file, id, batch_len: BATCH_LEN }
    }

    /// Most bytes of a batch.
    pub const fn batch_len(&self) -> u64 {
        self.batch_len
    }

    const fn head_at(&self, place: u64) -> u64 {
        MARK_LEN + place * (HEAD_LEN + self.batch_len.next_multiple_of(ALIGN as u64))
    }

    /// Offset of the bytes of the batch at a place.
    pub const fn body_at(&self, place: u64) -> u64 {
        self.head_at(place) + HEAD_LEN
    }

    /// The file for an engine that writes the bytes of batches: past the page cache where that can be done.
    ///
    /// # Errors
    /// The file cannot be opened again.
    pub fn target(&self) -> io::Result<Target> {
        let open = || {
            let mut options = OpenOptions::new();
            options.read(true).write(true).custom_flags(OFlags::DIRECT.bits() as i32);
            let file = options.open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))?;
            // Some file systems refuse at the first transfer only.
            let mut probe = vec![0; 2 * ALIGN];
            let skip = probe.as_ptr().align_offset(ALIGN);
            file.read_exact_at(&mut probe[skip..skip + ALIGN], 0)?;
            Ok::<File, io::Error>(file)
        };
        let (file, align) = match open() {
            Ok(file) => (file, ALIGN as u64),
            Err(_) => (self.file.try_clone()?, 1),
        };
        Ok(Target { file: file.into(), align, requests: Requests::default() })
    }

    /// Writes the head of the batch at a place; `sum` is the CRC-64/NVME of its bytes. Durable with the next
    /// [`Self::sync`], as its bytes are.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn head(&self, place: u64, batch: &Batch, direction: Direction, sum: u64) -> io::Result<()> {
        let mut head = Vec::new();
        let mut to = Encoder::new(&mut head);
        to.bytes(&MAGIC);
        to.bytes(&self.id);
        to.u8(code(direction));
        to.u64(batch.start);
        to.u64(batch.end);
        to.u64(batch.runs.len() as u64);
        for run in &batch.runs {
            to.u64(run.start.0);
            to.u64(run.len.0);
        }
        to.u64(sum);
        head.extend(hash::crc64(&head).to_le_bytes());
        self.file.write_all_at(&head, self.head_at(place))
    }

    /// Records how far the drive may be written to once this is durable; the batches up to there must be durable now.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn mark(&self, until: Option<(Direction, u64)>) -> io::Result<()> {
        let mut block = Vec::with_capacity(MARK_USED);
        let mut to = Encoder::new(&mut block);
        to.bytes(&MAGIC);
        to.bytes(&self.id);
        to.option(until, |to, (direction, border)| {
            to.u8(code(direction));
            to.u64(border);
        });
        block.resize(MARK_USED - 8, 0);
        let sum = hash::crc64(&block);
        block.extend(sum.to_le_bytes());
        self.file.write_all_at(&block, 0)
    }

    /// Makes everything written durable.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn marked(&self) -> io::Result<Mark> {
        let mut block = [0; MARK_USED];
        self.file.read_exact_at(&mut block, 0)?;
        let (inner, sum) = block.split_at(MARK_USED - 8);
        let mut from = Decoder::new(inner);
        let mut read = || -> Result<Mark, CheckpointFault> {
            if from.bytes::<8>()? != MAGIC || from.bytes::<32>()? != self.id {
                return Ok(Mark::Broken);
            }
            let until = from.option(|from| Ok((direction(from.u8()?)?, from.u64()?)))?;
            Ok(until.map_or(Mark::Nothing, |(direction, border)| Mark::Until(direction, border)))
        };
        let mark = read().unwrap_or(Mark::Broken);
        if mark == Mark::Broken && inner.starts_with(FAMILY) && !inner.starts_with(&MAGIC) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(if hash::crc64(inner).to_le_bytes() == sum { mark } else { Mark::Broken })
    }

    /// The batches that may have been written to the drive in part, with a pass in this direction at `border`.
    ///
    /// On the way back these may be batches of the way there too, of which nothing must remain.
    ///
    /// # Errors
    /// `InvalidData` when the file names a batch that it does not hold, or its mark is damaged; `Unsupported` when
    /// another version wrote it; it cannot be read.
    pub fn under_way(&self, border: u64, direction: Direction) -> io::Result<Vec<Kept>> {
        let mark = self.marked()?;
        let places = (0..PLACES).map(|place| self.place(place)).collect::<io::Result<Vec<PlaceState>>>()?;
        let is_torn = places.contains(&PlaceState::Torn);
        let mut found = Vec::new();
        let mut follow = |of: Direction| {
            let mut at = border;
            let before = |batch: &Batch| if of == Direction::Encrypt { batch.start } else { batch.end };
            while let Some(kept) = places.iter().find_map(|place| match place {
                PlaceState::Whole(kept) if kept.direction == of && before(&kept.batch) == at => Some(kept),
                _ => None,
            }) {
                at = kept.batch.behind(of);
                found.push(kept.clone());
            }
            at
        };
        let there = follow(Direction::Encrypt);
        let back = if direction == Direction::Decrypt { follow(Direction::Decrypt) } else { border };
        let is_all = match mark {
            Mark::Nothing => true,
            Mark::Until(Direction::Encrypt, until) => there >= until,
            Mark::Until(Direction::Decrypt, until) => back <= until,
            Mark::Broken => !found.is_empty() && !is_torn,
        };
        if is_all { Ok(found) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    fn place(&self, place: u64) -> io::Result<PlaceState> {
        let mut head = vec![0; HEAD_LEN as usize];
        self.file.read_exact_at(&mut head, self.head_at(place))?;
        if head[..ALIGN].iter().all(|&byte| byte == 0) {
            return Ok(PlaceState::Empty);
        }
        let Ok(Some(kept)) = self.parse(place, &head) else { return Ok(PlaceState::Torn) };
        Ok(if self.bytes(&kept)?.is_some() { PlaceState::Whole(kept) } else { PlaceState::Torn })
    }

    fn parse(&self, place: u64, head: &[u8]) -> Result<Option<Kept>, CheckpointFault> {
        let mut from = Decoder::new(head);
        if from.bytes::<8>()? != MAGIC || from.bytes::<32>()? != self.id {
            return Ok(None);
        }
        let direction = direction(from.u8()?)?;
        let mut batch = Batch { start: from.u64()?, end: from.u64()?, runs: Vec::new() };
        let mut len = 0u64;
        for _ in 0..from.count(16)? {
            let (start, run) = (from.u64()?, from.u64()?);
            len = len.saturating_add(run);
            if len > self.batch_len {
                return Ok(None);
            }
            batch.runs.push(VolumeRange::new(start, run));
        }
        let sum = from.u64()?;
        let used = head.len() - from.rest().len();
        let is_sound = from.u64()? == hash::crc64(&head[..used]) && batch.start < batch.end;
        Ok(is_sound.then_some(Kept { place, direction, batch, sum }))
    }

    /// The bytes of a batch, encrypted; `None` when they are not those that were stored.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn bytes(&self, kept: &Kept) -> io::Result<Option<Vec<u8>>> {
        let mut sealed = vec![0; kept.batch.bytes() as usize];
        self.file.read_exact_at(&mut sealed, self.body_at(kept.place))?;
        Ok((hash::crc64(&sealed) == kept.sum).then_some(sealed))
    }

    /// Records that nothing is under way, and empties all places; durable when this returns.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn forget(&self) -> io::Result<()> {
        // First: it would miss the batches that it names.
        self.mark(None)?;
        self.sync()?;
        for place in 0..PLACES {
            self.file.write_all_at(&[0; ALIGN], self.head_at(place))?;
        }
        self.sync()
    }
}

fn code(direction: Direction) -> u8 {
    u8::from(direction == Direction::Decrypt)
}

fn direction(code: u8) -> Result<Direction, CheckpointFault> {
    match code {
        0 => Ok(Direction::Encrypt),
        1 => Ok(Direction::Decrypt),
        _ => Err(CheckpointFault("names an unknown direction")),
    }
}

#[cfg(test)]
impl BatchJournal<'_> {
    /// Spoils the bytes of batches: of those that the mark names for a pass at `border`, or of all others, whose
    /// places then look as if they had been torn. How many they were.
    pub fn spoil(&self, border: u64, marked: bool) -> usize {
        let mark = self.marked().expect("a file");
        let mut spoiled = 0;
        for place in 0..PLACES {
            let PlaceState::Whole(Kept { batch, direction, .. }) = self.place(place).expect("a file") else { continue };
            let named = match mark {
                Mark::Until(of, until) => {
                    let (low, high) = (border.min(until), border.max(until));
                    of == direction && batch.start >= low && batch.end <= high
                }
                Mark::Nothing | Mark::Broken => false,
            };
            if named == marked {
                let mut bytes = [0; 600];
                self.file.read_exact_at(&mut bytes, self.body_at(place)).expect("bytes");
                self.file.write_all_at(&bytes.map(|byte| byte ^ 0x5A), self.body_at(place)).expect("room");
                spoiled += 1;
            }
        }
        spoiled
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    const STEP: u64 = 8192;

    struct Lab(PathBuf, File);

    impl Lab {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("dray-batches-{name}-{}", std::process::id()));
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create(true).truncate(true).open(&path).expect("a file");
            Self(path, file)
        }

        /// A file that says that nothing is under way.
        fn ring(&self) -> BatchJournal<'_> {
            let ring = BatchJournal::new(&self.1, [7; 32], 1 << 20).expect("room");
            ring.forget().expect("room");
            ring
        }

        fn flip(&self, at: u64) {
            let mut byte = [0];
            self.1.read_exact_at(&mut byte, at).expect("a byte");
            self.1.write_all_at(&[byte[0] ^ 4], at).expect("a byte");
        }
    }

    impl Drop for Lab {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    /// The batch of this number, and its bytes.
    fn batch(number: u64) -> (Batch, Vec<u8>) {
        let start = number * STEP;
        let runs = vec![VolumeRange::new(start, 4096), VolumeRange::new(start + 5120, 512)];
        (Batch { start, end: start + STEP, runs }, vec![number as u8; 4608])
    }

    fn body(ring: &BatchJournal<'_>, place: u64, number: u64) {
        ring.file.write_all_at(&batch(number).1, ring.body_at(place)).expect("room");
    }

    fn head(ring: &BatchJournal<'_>, place: u64, number: u64, direction: Direction) {
        let (batch, bytes) = batch(number);
        ring.head(place, &batch, direction, hash::crc64(&bytes)).expect("room");
    }

    fn keep(ring: &BatchJournal<'_>, place: u64, number: u64, direction: Direction) {
        body(ring, place, number);
        head(ring, place, number, direction);
    }

    /// Numbers of the batches under way.
    fn under_way(ring: &BatchJournal<'_>, border: u64, direction: Direction) -> Result<Vec<u64>, io::ErrorKind> {
        let found = ring.under_way(border * STEP, direction).map_err(|error| error.kind())?;
        for kept in &found {
            let (expected, bytes) = batch(kept.batch.start / STEP);
            assert_eq!((&kept.batch, ring.bytes(kept).expect("bytes")), (&expected, Some(bytes)));
        }
        Ok(found.iter().map(|kept| kept.batch.start / STEP).collect())
    }

    const DAMAGED: Result<Vec<u64>, io::ErrorKind> = Err(io::ErrorKind::InvalidData);

    #[test]
    fn every_state_that_a_power_cut_leaves_is_told_from_damage() {
        use Direction::{Decrypt, Encrypt};
        let lab = Lab::new("cut");
        // Batch 5 is durable; the mark that names it and batch 6, in the place of an older one, are written when the
        // power fails: any of the three writes has landed, that of the bytes perhaps in part.
        for landed in 0..16 {
            let has = |bit: u32| landed >> bit & 1 == 1;
            for (there, older) in [(true, false), (true, true), (false, false), (false, true)] {
                let (direction, this, next) = if there { (Encrypt, 5, 6) } else { (Decrypt, 5, 4) };
                let border = if there { 5 } else { 6 };
                let after = if there { 6 } else { 5 };
                let ring = lab.ring();
                if older {
                    keep(&ring, 1, if there { 2 } else { 9 }, direction);
                }
                keep(&ring, 0, this, direction);
                if has(0) {
                    body(&ring, 1, next);
                    if has(1) {
                        lab.flip(ring.body_at(1) + 700);
                    }
                }
                if has(2) {
                    head(&ring, 1, next, direction);
                }
                if has(3) {
                    ring.mark(Some((direction, batch(this).0.behind(direction)))).expect("room");
                }
                let is_whole = has(0) && !has(1) && has(2);
                let case = format!("{landed:04b} {direction:?} {older}");
                let both = if is_whole { vec![this, next] } else { vec![this] };
                assert_eq!(under_way(&ring, border, direction), Ok(both.clone()), "{case}");
                // On the way back, what was under way there is undone.
                assert_eq!(under_way(&ring, border, Decrypt), Ok(both.clone()), "{case}");
                // Had the checkpoint recorded the batch, it would not be under way any more.
                let one = if is_whole { vec![next] } else { vec![] };
                assert_eq!(under_way(&ring, after, direction), Ok(one), "{case}");
                // The mark alone is damaged: good as long as nothing else is.
                lab.flip(20);
                let is_torn = matches!(ring.place(1), Ok(PlaceState::Torn));
                let still = if is_torn { DAMAGED } else { Ok(both.clone()) };
                assert_eq!(under_way(&ring, border, direction), still, "{case}");
                lab.flip(20);
                for at in [ring.head_at(0) + 3, ring.head_at(0) + 60, ring.body_at(0), ring.body_at(0) + 4607] {
                    lab.flip(at);
                    // Marked, it would be missed; otherwise it was torn, and the drive has nothing of it.
                    let without = if has(3) { DAMAGED } else { Ok(vec![]) };
                    assert_eq!(under_way(&ring, border, direction), without, "{case}, byte {at}");
                    assert_eq!(under_way(&ring, border, Decrypt), without, "{case}, byte {at}");
                    lab.flip(20);
                    assert_eq!(under_way(&ring, border, direction), DAMAGED, "{case}, byte {at} and the mark");
                    lab.flip(20);
                    lab.flip(at);
                }
            }
        }
    }

    #[test]
    fn as_many_batches_as_there_are_places_are_found_in_order() {
        let lab = Lab::new("many");
        let ring = lab.ring();
        // The places of a ring that has gone round.
        for number in 0..PLACES {
            keep(&ring, (number + 3) % PLACES, 10 + number, Direction::Encrypt);
        }
        ring.mark(Some((Direction::Encrypt, (10 + PLACES) * STEP))).expect("room");
        let all: Vec<u64> = (10..10 + PLACES).collect();
        assert_eq!(under_way(&ring, 10, Direction::Encrypt), Ok(all.clone()));
        assert_eq!(under_way(&ring, 13, Direction::Encrypt), Ok(all[3..].to_vec()));
        assert_eq!(under_way(&ring, 10 + PLACES, Direction::Encrypt), Ok(vec![]));
        assert_eq!(under_way(&ring, 10, Direction::Decrypt), Ok(all), "all are undone");
        // One of them is missing: those after it are on the drive, in part.
        lab.flip(ring.body_at(6));
        assert_eq!(under_way(&ring, 10, Direction::Encrypt), DAMAGED);
        assert_eq!(under_way(&ring, 14, Direction::Encrypt), Ok((14..10 + PLACES).collect()), "recorded before");
        lab.flip(ring.body_at(6));
        ring.forget().expect("room");
        assert_eq!(under_way(&ring, 10, Direction::Encrypt), Ok(vec![]));
        // The way back, begun while batches of the way there were under way, and cut off before they were forgotten.
        keep(&ring, 0, 10, Direction::Encrypt);
        keep(&ring, 1, 9, Direction::Decrypt);
        keep(&ring, 2, 8, Direction::Decrypt);
        ring.mark(Some((Direction::Decrypt, 8 * STEP))).expect("room");
        assert_eq!(under_way(&ring, 10, Direction::Decrypt), Ok(vec![10, 9, 8]));
        assert_eq!(under_way(&ring, 9, Direction::Decrypt), Ok(vec![8]));
        assert_eq!(under_way(&ring, 8, Direction::Decrypt), Ok(vec![]));
        lab.flip(ring.body_at(2));
        assert_eq!(under_way(&ring, 10, Direction::Decrypt), DAMAGED);
    }

    #[test]
    fn strange_files_are_refused() {
        let lab = Lab::new("strange");
        let ring = BatchJournal::new(&lab.1, [7; 32], 1 << 20).expect("room");
        assert_eq!(lab.1.metadata().expect("a file").len(), ring.head_at(PLACES));
        assert_eq!(under_way(&ring, 1, Direction::Encrypt), DAMAGED, "it never said that nothing is under way");
        ring.forget().expect("room");
        keep(&ring, 0, 1, Direction::Encrypt);
        ring.mark(Some((Direction::Encrypt, 2 * STEP))).expect("room");
        assert_eq!(under_way(&ring, 1, Direction::Encrypt), Ok(vec![1]));
        let other = BatchJournal::new(&lab.1, [8; 32], 1 << 20).expect("room");
        assert_eq!(under_way(&other, 1, Direction::Encrypt), DAMAGED, "another volume's");
        lab.1.write_all_at(b"DRAYenc2", 0).expect("room");
        assert_eq!(under_way(&ring, 1, Direction::Encrypt), Err(io::ErrorKind::Unsupported), "another version's");
        ring.forget().expect("room");
        assert_eq!(under_way(&ring, 1, Direction::Encrypt), Ok(vec![]));
        lab.1.set_len(ring.body_at(0) + 7).expect("shorter");
        assert_eq!(under_way(&ring, 1, Direction::Encrypt), Err(io::ErrorKind::UnexpectedEof));
        let most = BatchJournal::new(&lab.1, [7; 32], u64::MAX).expect("room");
        assert_eq!((most.batch_len(), lab.1.metadata().expect("a file").len()), (BATCH_LEN, LEN_MAX));
    }
}
