//! The batch under way, beside the journal: what will lie on the drive, durable before it is written there.
//!
//! Plaintext and ciphertext cannot be told apart after a torn write. So a batch is kept here, encrypted: written again it
//! finishes what was torn, and decrypted it takes that back. Nothing in the clear leaves the drive. The file has one size
//! and holds one batch; it may be written over as soon as the checkpoint tells that the batch is durable.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::FallocateFlags;

use crate::checkpoint::Fault;
use crate::checkpoint::code::{Decoder, Encoder};
use crate::hash;
use crate::units::ByteRange;

/// Bytes of a batch at most.
pub const BATCH_LEN: u64 = 32 << 20;
/// Runs of a batch at most.
pub const RUNS_MAX: usize = 4096;
/// Bytes before the batch's own.
const HEAD_LEN: u64 = 128 << 10;
const MAGIC: [u8; 8] = *b"DRAYenc1";
/// Most bytes of the file.
pub const LEN_MAX: u64 = HEAD_LEN + BATCH_LEN;

/// A batch: from one border to the next, and what is encrypted between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The border before it, in bytes of the volume.
    pub start: u64,
    /// The border behind it.
    pub end: u64,
    /// What lies between, ascending.
    pub runs: Vec<ByteRange>,
}

impl Batch {
    /// Bytes of all runs.
    pub fn bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.len.0).sum()
    }
}

/// The file.
#[derive(Debug)]
pub struct Ring<'f> {
    file: &'f File,
    /// Which volume's batches it holds: any other's do not count.
    id: [u8; 32],
    batch_len: u64,
}

impl<'f> Ring<'f> {
    /// Over its file, with room for a batch of that many bytes.
    ///
    /// # Errors
    /// When there is no room.
    pub fn new(file: &'f File, id: [u8; 32], batch_len: u64) -> io::Result<Self> {
        let (batch_len, len) = (batch_len.min(BATCH_LEN), HEAD_LEN + batch_len.min(BATCH_LEN));
        if file.metadata()?.len() < len {
            // Where that is not known, the first batch finds out, before it is written to the drive.
            match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len) {
                Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(len)?,
                Err(error) => return Err(error.into()),
            }
            file.sync_all()?;
        }
        Ok(Self { file, id, batch_len })
    }

    /// Bytes of a batch at most.
    pub const fn batch_len(&self) -> u64 {
        self.batch_len
    }

    /// Keeps a batch, encrypted; durable when this returns.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn keep(&self, batch: &Batch, sealed: &[u8]) -> io::Result<()> {
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
        self.file.write_all_at(sealed, HEAD_LEN)?;
        self.file.write_all_at(&head, 0)?;
        self.file.sync_data()
    }

    /// The batch that was kept last, if it is whole.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn kept(&self) -> io::Result<Option<(Batch, Vec<u8>)>> {
        let mut head = vec![0; HEAD_LEN as usize];
        self.file.read_exact_at(&mut head, 0)?;
        let (inner, sum) = head.split_at(head.len() - 8);
        if hash::crc64(inner).to_le_bytes() != sum {
            return Ok(None);
        }
        let Ok(Some((batch, sum))) = self.parse(inner) else { return Ok(None) };
        let mut sealed = vec![0; batch.bytes() as usize];
        self.file.read_exact_at(&mut sealed, HEAD_LEN)?;
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

    /// Forgets the batch.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn forget(&self) -> io::Result<()> {
        self.file.write_all_at(&[0; 4096], 0)?;
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};

    use super::*;

    #[test]
    fn a_torn_or_strange_batch_is_told_from_a_whole_one() {
        let path = std::env::temp_dir().join(format!("dray-ring-{}", std::process::id()));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).expect("a file");
        let ring = Ring::new(&file, [7; 32], BATCH_LEN).expect("room");
        assert_eq!(ring.kept().expect("a file"), None);
        let runs = vec![ByteRange::new(8192, 4096), ByteRange::new(1 << 20, 512)];
        let batch = Batch { start: 8192, end: (1 << 20) + 512, runs };
        let sealed: Vec<u8> = (0..batch.bytes()).map(|i| (i % 251) as u8).collect();
        ring.keep(&batch, &sealed).expect("room");
        assert_eq!(ring.kept().expect("a file"), Some((batch.clone(), sealed.clone())));
        assert_eq!(file.metadata().expect("a file").len(), LEN_MAX);
        for at in [3, 100, HEAD_LEN - 3, HEAD_LEN + 5, HEAD_LEN + batch.bytes() - 1] {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).expect("a byte");
            file.write_all_at(&[byte[0] ^ 4], at).expect("a byte");
            assert_eq!(ring.kept().expect("a file"), None, "byte {at} is flipped");
            file.write_all_at(&byte, at).expect("a byte");
        }
        assert_eq!(
            Ring::new(&file, [8; 32], BATCH_LEN).expect("room").kept().expect("a file"),
            None,
            "another volume's"
        );
        assert!(ring.kept().expect("a file").is_some());
        ring.forget().expect("room");
        assert_eq!(ring.kept().expect("a file"), None);
        fs::remove_file(path).expect("removed");
    }
}
