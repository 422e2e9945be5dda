//! The batch under way, stored next to the journal: the bytes for the drive, durable before they are written there.
//!
//! Plaintext and ciphertext cannot be told apart after a torn write. So a batch is stored here, encrypted: written
//! again it completes the torn write, and decrypted it undoes it. No plaintext leaves the drive. The file has a
//! constant size and holds one batch; it may be overwritten as soon as the checkpoint records the batch as durable.
//!
//! Its first block names the batch that is being written to the drive, once the batch itself is durable here. So a
//! batch that was torn while being stored, of which nothing is on the drive, can be told from one that was damaged
//! later.
//!
//! ```text
//! 0       4 KiB    batch under way: magic, id, direction, border before and after, u64 CRC-64/NVME
//! 4096    128 KiB  the batch's head: magic, id, borders, runs, checksum of its bytes; u64 CRC-64/NVME at its end
//! 135168  …        its bytes, encrypted
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::FallocateFlags;

use crate::checkpoint::Fault;
use crate::checkpoint::code::{Decoder, Encoder};
use crate::hash;
use crate::units::ByteRange;

/// Most bytes of a batch.
pub const BATCH_LEN: u64 = 32 << 20;
/// Most runs of a batch.
pub const RUNS_MAX: usize = 4096;
/// Bytes before the batch.
const MARK_LEN: u64 = 4096;
/// Bytes of the batch's head.
const HEAD_LEN: u64 = 128 << 10;
/// Offset of the batch's bytes.
const BODY_AT: u64 = MARK_LEN + HEAD_LEN;
const MAGIC: [u8; 8] = *b"DRAYenc2";
/// Most bytes of the file.
pub const LEN_MAX: u64 = BODY_AT + BATCH_LEN;

/// Direction of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Encrypts, from the volume's start on.
    Encrypt,
    /// Decrypts, from the border back.
    Decrypt,
}

/// Contents of the first block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Nothing,
    Batch {
        direction: Direction,
        start: u64,
        end: u64,
    },
    /// Neither: torn, or damaged.
    Broken,
}

impl Mark {
    /// Whether a pass at `border` needs the batch: it has not been recorded as durable yet.
    fn is_needed(self, border: u64) -> bool {
        match self {
            Self::Batch { direction: Direction::Encrypt, start, .. } => start == border,
            Self::Batch { direction: Direction::Decrypt, end, .. } => end == border,
            Self::Nothing | Self::Broken => false,
        }
    }
}

/// A batch: two borders, and the ranges to encrypt between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The border before it, in bytes of the volume.
    pub start: u64,
    /// The border after it.
    pub end: u64,
    /// Ranges between the borders, ascending.
    pub runs: Vec<ByteRange>,
}

impl Batch {
    /// Bytes of all runs.
    pub fn bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.len.0).sum()
    }
}

/// The file with the one batch under way: the bytes for the drive, durable before they are written there.
#[derive(Debug)]
pub struct BatchJournal<'f> {
    file: &'f File,
    /// Identifies the volume: batches of any other are ignored.
    id: [u8; 32],
    batch_len: u64,
}

impl<'f> BatchJournal<'f> {
    /// Uses `file`, with room for a batch of this many bytes.
    ///
    /// # Errors
    /// There is no room.
    pub fn new(file: &'f File, id: [u8; 32], batch_len: u64) -> io::Result<Self> {
        let (batch_len, len) = (batch_len.min(BATCH_LEN), BODY_AT + batch_len.min(BATCH_LEN));
        if file.metadata()?.len() < len {
            // Where room cannot be reserved, the first batch finds out, before it is written to the drive.
            match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len) {
                Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(len)?,
                Err(error) => return Err(error.into()),
            }
            file.sync_all()?;
        }
        Ok(Self { file, id, batch_len })
    }

    /// Uses `file` as it is, to examine its contents.
    pub const fn look(file: &'f File, id: [u8; 32]) -> Self {
        Self { file, id, batch_len: BATCH_LEN }
    }

    /// Most bytes of a batch.
    pub const fn batch_len(&self) -> u64 {
        self.batch_len
    }

    /// Stores a batch, encrypted, and marks it as under way; durable when this returns.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep(&self, batch: &Batch, sealed: &[u8], direction: Direction) -> io::Result<()> {
        let mut head = Vec::with_capacity(HEAD_LEN as usize);
        let mut to = Encoder::new(&mut head);
        to.bytes(&MAGIC);
        to.bytes(&self.id);
        to.u64(batch.start);
        to.u64(batch.end);
        to.u64(batch.runs.len() as u64);
        for run in &batch.runs {
            to.u64(run.start.0);
            to.u64(run.len.0);
        }
        to.u64(hash::crc64(sealed));
        head.resize(HEAD_LEN as usize - 8, 0);
        let sum = hash::crc64(&head);
        head.extend(sum.to_le_bytes());
        self.file.write_all_at(sealed, BODY_AT)?;
        self.file.write_all_at(&head, MARK_LEN)?;
        self.file.sync_data()?;
        self.mark(Some((direction, batch)))
    }

    /// Records the batch under way; durable when this returns.
    fn mark(&self, under_way: Option<(Direction, &Batch)>) -> io::Result<()> {
        let mut block = Vec::with_capacity(MARK_LEN as usize);
        let mut to = Encoder::new(&mut block);
        to.bytes(&MAGIC);
        to.bytes(&self.id);
        to.option(under_way, |to, (direction, batch)| {
            to.u8(u8::from(direction == Direction::Decrypt));
            to.u64(batch.start);
            to.u64(batch.end);
        });
        block.resize(MARK_LEN as usize - 8, 0);
        let sum = hash::crc64(&block);
        block.extend(sum.to_le_bytes());
        self.file.write_all_at(&block, 0)?;
        self.file.sync_data()
    }

    fn marked(&self) -> io::Result<Mark> {
        let mut block = vec![0; MARK_LEN as usize];
        self.file.read_exact_at(&mut block, 0)?;
        let (inner, sum) = block.split_at(block.len() - 8);
        let mut from = Decoder::new(inner);
        let mut read = || -> Result<Mark, Fault> {
            if from.bytes::<8>()? != MAGIC || from.bytes::<32>()? != self.id {
                return Ok(Mark::Broken);
            }
            let batch = from.option(|from| Ok((from.u8()?, from.u64()?, from.u64()?)))?;
            Ok(batch.map_or(Mark::Nothing, |(back, start, end)| {
                let direction = if back == 1 { Direction::Decrypt } else { Direction::Encrypt };
                Mark::Batch { direction, start, end }
            }))
        };
        let mark = read().unwrap_or(Mark::Broken);
        Ok(if hash::crc64(inner).to_le_bytes() == sum { mark } else { Mark::Broken })
    }

    /// The batch that may have been written to the drive in part, with the pass at `border`.
    ///
    /// # Errors
    /// `InvalidData` when the file names a batch that it does not hold, or its mark is damaged; it cannot be read.
    pub fn under_way(&self, border: u64, direction: Direction) -> io::Result<Option<(Batch, Vec<u8>)>> {
        let (mark, kept) = (self.marked()?, self.kept()?);
        let was_whole = kept.is_some();
        let of_border = |batch: &Batch| batch.start == border || direction == Direction::Decrypt && batch.end == border;
        match kept.filter(|(batch, _)| of_border(batch)) {
            Some(kept) => Ok(Some(kept)),
            // A batch stored completely without a mark, or passed by the border already, is not under way any more.
            None if mark.is_needed(border) || mark == Mark::Broken && !was_whole => {
                Err(io::ErrorKind::InvalidData.into())
            }
            None => Ok(None),
        }
    }

    /// The batch stored last, if it is complete.
    ///
    /// # Errors
    /// The file cannot be read.
    fn kept(&self) -> io::Result<Option<(Batch, Vec<u8>)>> {
        let mut head = vec![0; HEAD_LEN as usize];
        self.file.read_exact_at(&mut head, MARK_LEN)?;
        let (inner, sum) = head.split_at(head.len() - 8);
        if hash::crc64(inner).to_le_bytes() != sum {
            return Ok(None);
        }
        let Ok(Some((batch, sum))) = self.parse(inner) else { return Ok(None) };
        let mut sealed = vec![0; batch.bytes() as usize];
        self.file.read_exact_at(&mut sealed, BODY_AT)?;
        Ok((hash::crc64(&sealed) == sum).then_some((batch, sealed)))
    }

    fn parse(&self, head: &[u8]) -> Result<Option<(Batch, u64)>, Fault> {
        let mut from = Decoder::new(head);
        if from.bytes::<8>()? != MAGIC || from.bytes::<32>()? != self.id {
            return Ok(None);
        }
        let mut batch = Batch { start: from.u64()?, end: from.u64()?, runs: Vec::new() };
        let mut len = 0u64;
        for _ in 0..from.count(16)? {
            let (start, run) = (from.u64()?, from.u64()?);
            len = len.saturating_add(run);
            if len > BATCH_LEN {
                return Ok(None);
            }
            batch.runs.push(ByteRange::new(start, run));
        }
        Ok(Some((batch, from.u64()?)))
    }

    /// Removes the batch: nothing is under way.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn forget(&self) -> io::Result<()> {
        self.mark(None)?;
        self.file.write_all_at(&[0; 4096], MARK_LEN)?;
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};

    use super::*;

    #[test]
    fn a_batch_that_was_torn_while_it_was_kept_is_told_from_one_that_was_damaged() {
        let path = std::env::temp_dir().join(format!("dray-ring-mark-{}", std::process::id()));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).expect("a file");
        let ring = BatchJournal::new(&file, [7; 32], 1 << 20).expect("room");
        let batch = |start: u64| Batch { start, end: start + 8192, runs: vec![ByteRange::new(start, 4096)] };
        let flip = |at: u64| {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).expect("a byte");
            file.write_all_at(&[byte[0] ^ 4], at).expect("a byte");
        };
        assert!(ring.under_way(8192, Direction::Encrypt).is_err(), "it never said that nothing is under way");
        ring.forget().expect("room");
        assert_eq!(ring.under_way(8192, Direction::Encrypt).expect("nothing"), None);
        let (one, other) = (batch(8192), batch(16_384));
        ring.keep(&one, &[1; 4096], Direction::Encrypt).expect("room");
        let whole = Some((one.clone(), vec![1; 4096]));
        assert_eq!(ring.under_way(8192, Direction::Encrypt).expect("whole"), whole);
        assert_eq!(ring.under_way(16_384, Direction::Encrypt).expect("it is durable on the drive"), None);
        for at in [MARK_LEN + 3, MARK_LEN + 100, BODY_AT + 5] {
            flip(at);
            assert!(ring.under_way(8192, Direction::Encrypt).is_err(), "byte {at} is flipped");
            assert_eq!(ring.under_way(16_384, Direction::Encrypt).expect("not needed"), None, "byte {at} is flipped");
            assert_eq!(ring.under_way(16_384, Direction::Decrypt).expect("not needed"), None, "byte {at} is flipped");
            flip(at);
        }
        // The mark alone: the batch is complete, whatever the mark.
        flip(20);
        assert_eq!(ring.under_way(8192, Direction::Encrypt).expect("whole"), whole);
        flip(BODY_AT);
        assert!(ring.under_way(8192, Direction::Encrypt).is_err(), "neither says what was");
        flip(BODY_AT);
        flip(20);
        // Torn while the next one was kept: nothing of that is on the drive.
        file.write_all_at(&[2; 2048], BODY_AT).expect("room");
        assert_eq!(ring.under_way(16_384, Direction::Encrypt).expect("torn"), None);
        ring.keep(&other, &[2; 4096], Direction::Decrypt).expect("room");
        assert_eq!(ring.under_way(24_576, Direction::Decrypt).expect("whole"), Some((other, vec![2; 4096])));
        file.set_len(BODY_AT + 7).expect("shorter");
        assert!(ring.under_way(24_576, Direction::Decrypt).is_err());
        fs::remove_file(path).expect("removed");
    }

    #[test]
    fn a_torn_or_strange_batch_is_told_from_a_whole_one() {
        let path = std::env::temp_dir().join(format!("dray-ring-{}", std::process::id()));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).expect("a file");
        let ring = BatchJournal::new(&file, [7; 32], BATCH_LEN).expect("room");
        assert_eq!(ring.kept().expect("a file"), None);
        let runs = vec![ByteRange::new(8192, 4096), ByteRange::new(1 << 20, 512)];
        let batch = Batch { start: 8192, end: (1 << 20) + 512, runs };
        let sealed: Vec<u8> = (0..batch.bytes()).map(|i| (i % 251) as u8).collect();
        ring.keep(&batch, &sealed, Direction::Encrypt).expect("room");
        assert_eq!(ring.kept().expect("a file"), Some((batch.clone(), sealed.clone())));
        assert_eq!(file.metadata().expect("a file").len(), LEN_MAX);
        for at in [MARK_LEN + 3, MARK_LEN + 100, BODY_AT - 3, BODY_AT + 5, BODY_AT + batch.bytes() - 1] {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).expect("a byte");
            file.write_all_at(&[byte[0] ^ 4], at).expect("a byte");
            assert_eq!(ring.kept().expect("a file"), None, "byte {at} is flipped");
            file.write_all_at(&byte, at).expect("a byte");
        }
        assert_eq!(
            BatchJournal::new(&file, [8; 32], BATCH_LEN).expect("room").kept().expect("a file"),
            None,
            "another volume's"
        );
        assert!(ring.kept().expect("a file").is_some());
        ring.forget().expect("room");
        assert_eq!(ring.kept().expect("a file"), None);
        fs::remove_file(path).expect("removed");
    }
}
