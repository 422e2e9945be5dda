//! Results of reading the sources: block hashes and checksums in the order of the plan, and the files left out.
//!
//! They are written to an append-only sidecar (frames of `checkpoint::log`), since ten million files would make
//! gigabytes of hashes; the manifest is generated from it afterwards, and a resumed session replays it. A batch's
//! hashes are in the order of the drive's tree: 16 bytes of MD5 for a block of a block blob or a property file; for a
//! page blob's block a little-endian count of runs and then offset, length and MD5 of each. Where files are hashed as a
//! whole too, 16 bytes follow those of each block of a page blob, or of a file of several blocks: the MD5 of the file
//! if it ends there, otherwise the state of MD5 so far.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use crate::azure::dataset::BlobType;
use crate::checkpoint::Prefix;
use crate::checkpoint::log::{self, Frame, HEAD_LEN};
use crate::hash::{Md5Chain, Sha256};
use crate::plan::tree::DriveTree;
use crate::stream::workers::{Digest, PageRun};

/// Appends results; batches in the order of the plan, whatever order the workers finish in.
#[derive(Debug)]
pub struct OutcomeLog {
    file: BufWriter<File>,
    hash: Sha256,
    len: u64,
    /// Batches that arrived before their turn.
    early: BTreeMap<u64, Hashed>,
    next: u64,
    /// Prefixes of the log after each batch since the last checkpoint, by number of batches; never empty.
    marks: VecDeque<(u64, Prefix)>,
    frame: Vec<u8>,
    hashes: Vec<u8>,
}

/// Results of one batch.
#[derive(Debug, Default)]
pub struct Hashed {
    /// What was written.
    pub sum: Option<Sum>,
    /// Hashes of its blocks.
    pub digests: Vec<Digest>,
    /// Checksums of the parts of files in it, where they are listed.
    pub parts: Vec<u64>,
    /// State of the block that continues after it.
    pub begun: Option<BegunBlock>,
}

/// Hash states within a block that a batch ends in.
#[derive(Clone, Debug)]
pub struct BegunBlock {
    /// Of the block.
    pub block: Md5Chain,
    /// Of its file, where that is hashed as a whole.
    pub whole: Option<Md5Chain>,
}

/// Results of an earlier run, up to the first batch of this one.
#[derive(Debug, Default)]
pub struct Replay {
    /// Checksum of each batch, as given to [`OutcomeLog::push`]; the batch after them is the first to be written.
    pub sums: Vec<Option<Sum>>,
    /// Files left out so far, by tree index.
    pub left_out: BTreeMap<u32, String>,
    /// Property files read so far.
    pub properties: PropertyHashes,
    /// The last 16 bytes of hashes: the state of a file that is hashed as a whole, if the plan continues within one at the
    /// end of a block.
    pub whole: Option<[u8; 16]>,
    /// State of the hash block that continues with the next batch.
    pub begun: Option<BegunBlock>,
}

impl OutcomeLog {
    /// A log in an empty file, open for reading and writing.
    pub fn new(file: File) -> Self {
        Self {
            file: BufWriter::with_capacity(1 << 20, file),
            hash: Sha256::default(),
            len: 0,
            early: BTreeMap::new(),
            next: 0,
            marks: VecDeque::from([(0, Prefix::of(&Sha256::default(), 0))]),
            frame: Vec::new(),
            hashes: Vec::new(),
        }
    }

    /// Continues after batch number `batches - 1`: the part covered by `counts` is replayed, the rest is cut off.
    ///
    /// # Errors
    /// The file cannot be read or written, or does not match `counts`.
    pub fn resume(file: File, counts: &Prefix, batches: u64) -> io::Result<(Self, Replay)> {
        let (hash, len, replay) = replay(&file, counts.len, batches)?;
        if Prefix::of(&hash, len) != *counts || replay.sums.len() as u64 != batches {
            return Err(not_it());
        }
        file.set_len(len)?;
        (&file).seek(SeekFrom::Start(len))?;
        let marks = VecDeque::from([(batches, *counts)]);
        Ok((Self { hash, len, next: batches, marks, ..Self::new(file) }, replay))
    }

    /// The prefix of a log matching `counts` that covers the first `batches` alone. Changes nothing: a checkpoint with
    /// this prefix must be durable before [`OutcomeLog::resume`] cuts the rest off, or a kill in between would leave
    /// neither.
    ///
    /// # Errors
    /// The file cannot be read, or holds fewer.
    pub fn truncate(file: &File, counts: &Prefix, batches: u64) -> io::Result<Prefix> {
        let (hash, len, replay) = replay(file, counts.len, batches)?;
        if replay.sums.len() as u64 != batches {
            return Err(not_it());
        }
        Ok(Prefix::of(&hash, len))
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn frame(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        let mut bytes = std::mem::take(&mut self.frame);
        bytes.clear();
        frame.encode(&mut bytes);
        let appended = self.append(&bytes);
        self.frame = bytes;
        appended
    }

    /// Takes the results of batch `number`; batches count from 0 without gaps.
    ///
    /// # Errors
    /// The sidecar cannot be written.
    pub fn push(&mut self, number: u64, hashed: Hashed) -> io::Result<()> {
        self.early.insert(number, hashed);
        while let Some(Hashed { sum, digests, parts, begun }) = self.early.remove(&self.next) {
            let mut hashes = std::mem::take(&mut self.hashes);
            hashes.clear();
            for digest in digests {
                match digest {
                    Digest::Block(md5) | Digest::Whole(md5) => hashes.extend_from_slice(&md5),
                    Digest::Pages(runs) => {
                        hashes.extend_from_slice(&(runs.len() as u16).to_le_bytes());
                        for (at, len, md5) in runs {
                            hashes.extend_from_slice(&at.to_le_bytes());
                            hashes.extend_from_slice(&len.to_le_bytes());
                            hashes.extend_from_slice(&md5);
                        }
                    }
                    Digest::Unfinished => {}
                }
            }
            let (len, crc) = sum.map_or((0, 0), |sum| (sum.len as u32, sum.crc));
            let pushed = self.frame(&Frame::Batch { number: self.next, len, crc, hashes: &hashes });
            self.hashes = hashes;
            pushed?;
            if !parts.is_empty() {
                self.frame(&Frame::Parts { number: self.next, sums: parts })?;
            }
            if let Some(begun) = begun {
                let (mut block, mut whole) = (Vec::new(), Vec::new());
                begun.block.save(&mut block);
                begun.whole.iter().for_each(|chain| chain.save(&mut whole));
                self.frame(&Frame::Chain { number: self.next, block: &block, whole: &whole })?;
            }
            self.next += 1;
            self.marks.push_back((self.next, Prefix::of(&self.hash, self.len)));
        }
        Ok(())
    }

    /// Records a file that is left out.
    ///
    /// # Errors
    /// The sidecar cannot be written.
    pub fn left_out(&mut self, file: u32, why: &str) -> io::Result<()> {
        let end = (0..=why.len().min(4096)).rev().find(|end| why.is_char_boundary(*end)).unwrap_or(0);
        self.frame(&Frame::LeftOut { file, why: &why[..end] })
    }

    /// Records the MD5 of a property file.
    ///
    /// # Errors
    /// The sidecar cannot be written.
    pub fn property(&mut self, file: u32, md5: [u8; 16]) -> io::Result<()> {
        self.frame(&Frame::Property { file, md5 })
    }

    /// Number of batches in the log.
    pub fn batches(&self) -> u64 {
        self.next
    }

    /// Makes the whole log durable, and returns its prefix.
    ///
    /// # Errors
    /// The sidecar cannot be written.
    pub fn sync(&mut self) -> io::Result<Prefix> {
        self.file.flush()?;
        self.file.get_ref().sync_data()?;
        Ok(Prefix::of(&self.hash, self.len))
    }

    /// Makes the whole log durable, and returns the prefix that covers the first `batches` alone: resuming from it
    /// loses nothing that a checkpoint covers. A file that is left out is recorded before the last batch that holds any
    /// of it.
    ///
    /// # Errors
    /// The sidecar cannot be written; `InvalidInput` for fewer batches than before.
    pub fn sync_to(&mut self, batches: u64) -> io::Result<Prefix> {
        let all = self.sync()?;
        while self.marks.get(1).is_some_and(|(number, _)| *number <= batches) {
            self.marks.pop_front();
        }
        match self.marks.front() {
            Some((number, prefix)) if *number == batches => Ok(*prefix),
            Some((number, _)) if *number < batches => Ok(all),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "a checkpoint of fewer batches than the one before")),
        }
    }

    /// A reader from its start, which may be used while the log grows.
    ///
    /// # Errors
    /// The sidecar cannot be written or read.
    pub fn reader(&mut self) -> io::Result<HashReader> {
        self.file.flush()?;
        Ok(HashReader::new(self.file.get_ref().try_clone()?))
    }
}

fn not_it() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the outcome log is not the one of the checkpoint")
}

/// Reads the first `len` bytes of a log, or the part of them before batch number `batches`: digest, length and results
/// of that part.
fn replay(file: &File, len: u64, batches: u64) -> io::Result<(Sha256, u64, Replay)> {
    let mut reader = BufReader::with_capacity(1 << 20, At { file: file.try_clone()?, at: 0 }.take(len));
    let (mut hash, mut at, mut replay) = (Sha256::default(), 0, Replay::default());
    let (mut head, mut body) = ([0; HEAD_LEN], Vec::new());
    while at < len {
        reader.read_exact(&mut head)?;
        body.resize(log::body_len(&head).map_err(|_| not_it())?, 0);
        reader.read_exact(&mut body)?;
        match log::decode(&head, &body).map_err(|_| not_it())? {
            Frame::Batch { number, .. } if number == batches => break,
            Frame::Batch { number, .. } if number != replay.sums.len() as u64 => return Err(not_it()),
            Frame::Batch { len, crc, hashes, .. } => {
                replay.sums.push((len > 0).then_some(Sum { len: len as usize, crc }));
                // Batches of no file may lie between.
                replay.whole = hashes.last_chunk().copied().or(replay.whole);
                replay.begun = None;
            }
            Frame::Chain { number, block, whole } if number.checked_add(1) == Some(replay.sums.len() as u64) => {
                let load = |state| Md5Chain::load(state).ok_or_else(not_it);
                let whole = if whole.is_empty() { None } else { Some(load(whole)?) };
                replay.begun = Some(BegunBlock { block: load(block)?, whole });
            }
            Frame::Chain { .. } => return Err(not_it()),
            Frame::LeftOut { file, why } => drop(replay.left_out.insert(file, why.to_owned())),
            Frame::Property { file, md5 } => drop(replay.properties.insert(file, md5)),
            Frame::Parts { .. } => {}
        }
        hash.update(&head);
        hash.update(&body);
        at += (HEAD_LEN + body.len()) as u64;
    }
    Ok((hash, at, replay))
}

/// A file read by offset, independent of other readers and writers.
#[derive(Debug)]
struct At {
    file: File,
    at: u64,
}

impl Read for At {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(into, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Reads hashes back in the order of the plan.
#[derive(Debug)]
pub struct HashReader {
    file: BufReader<At>,
    hashes: Vec<u8>,
    at: usize,
}

impl HashReader {
    /// A reader of a log, from its start.
    pub fn new(file: File) -> Self {
        Self { file: BufReader::with_capacity(1 << 20, At { file, at: 0 }), hashes: Vec::new(), at: 0 }
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        while self.at == self.hashes.len() {
            let mut head = [0; HEAD_LEN];
            self.file.read_exact(&mut head)?;
            let bad = |fault| io::Error::new(io::ErrorKind::InvalidData, fault);
            let mut body = vec![0; log::body_len(&head).map_err(bad)?];
            self.file.read_exact(&mut body)?;
            if let Frame::Batch { hashes, .. } = log::decode(&head, &body).map_err(bad)? {
                self.hashes.clear();
                self.hashes.extend_from_slice(hashes);
                self.at = 0;
            }
        }
        let bytes = self.hashes[self.at..].first_chunk::<N>().ok_or(io::ErrorKind::UnexpectedEof)?;
        self.at += N;
        Ok(*bytes)
    }

    /// The next block's MD5.
    ///
    /// # Errors
    /// The sidecar cannot be read, or ends too early.
    pub fn block(&mut self) -> io::Result<[u8; 16]> {
        self.take()
    }

    /// The next block's runs, for a page blob; appended to `out` as offset in the block, length, MD5.
    ///
    /// # Errors
    /// The sidecar cannot be read, or ends too early.
    pub fn pages(&mut self, out: &mut Vec<PageRun>) -> io::Result<()> {
        let count = u16::from_le_bytes(self.take()?);
        for _ in 0..count {
            let (at, len) = (u32::from_le_bytes(self.take()?), u32::from_le_bytes(self.take()?));
            out.push((at, len, self.block()?));
        }
        Ok(())
    }
}

/// The MD5 of each blob as a whole, in the order of the tree.
#[derive(Debug)]
pub struct WholeReader {
    log: HashReader,
    /// The next blob in the log.
    next: u32,
    last: [u8; 16],
    runs: Vec<PageRun>,
}

impl WholeReader {
    /// Reads from the log's start.
    pub fn new(log: HashReader) -> Self {
        Self { log, next: 0, last: [0; 16], runs: Vec::new() }
    }

    /// The MD5 of blob `i`, which must be greater than in earlier calls.
    ///
    /// # Errors
    /// The sidecar cannot be read, or ends too early.
    pub fn md5(&mut self, tree: &DriveTree, i: u32) -> io::Result<[u8; 16]> {
        while self.next <= i {
            let (blob, has_whole) = (self.next, tree.has_whole_md5(self.next));
            self.last = EMPTY_MD5;
            for _ in 0..tree.blocks(blob).count() {
                if tree.blob_type(blob) == Some(BlobType::Page) {
                    self.log.pages(&mut self.runs)?;
                    self.runs.clear();
                } else {
                    self.last = self.log.block()?;
                }
                if has_whole {
                    self.last = self.log.block()?;
                }
            }
            self.next += 1;
        }
        Ok(self.last)
    }
}

/// MD5 of an empty file.
pub const EMPTY_MD5: [u8; 16] =
    [0xd4, 0x1d, 0x8c, 0xd9, 0x8f, 0x00, 0xb2, 0x04, 0xe9, 0x80, 0x09, 0x98, 0xec, 0xf8, 0x42, 0x7e];

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn sum(number: u64) -> Option<Sum> {
        Some(Sum { len: 4096, crc: number })
    }

    fn hashed(number: u64) -> Hashed {
        Hashed { sum: sum(number), digests: vec![Digest::Block([number as u8; 16])], ..Hashed::default() }
    }

    #[test]
    fn a_checkpoint_counts_nothing_that_going_on_cuts_off() {
        let path = std::env::temp_dir().join(format!("dray-outcome-{}", std::process::id()));
        let open = || File::options().read(true).write(true).create(true).truncate(false).open(&path).expect("a file");
        let mut log = OutcomeLog::new(open());
        assert_eq!(log.sync_to(0).expect("synced").len, 0);
        for number in [1, 0, 2] {
            log.push(number, hashed(number)).expect("pushed");
        }
        log.left_out(7, "gone").expect("told");
        for number in 3..6 {
            log.push(number, hashed(number)).expect("pushed");
        }
        let durable = log.sync_to(4).expect("synced");
        assert!(log.sync_to(3).is_err(), "the third was given up");
        drop(log);

        // Resuming cuts off results that were not durable. Killed before its first checkpoint, the old one must still
        // match.
        for round in 0..2 {
            let (mut log, replay) = OutcomeLog::resume(open(), &durable, 4).unwrap_or_else(|e| panic!("{round}: {e}"));
            assert_eq!(replay.sums, (0..4).map(sum).collect::<Vec<_>>(), "{round}");
            assert_eq!(replay.left_out.keys().copied().collect::<Vec<_>>(), [7], "{round}");
            assert_eq!(fs::metadata(&path).expect("there").len(), durable.len, "{round}");
            assert_eq!(log.sync_to(4).expect("synced"), durable, "{round}");
            log.push(4, hashed(4)).expect("pushed");
            log.sync().expect("synced");
        }

        // A device that lost data it had reported as durable: the shorter prefix is known before anything is cut.
        let earlier = OutcomeLog::truncate(&open(), &durable, 1).expect("the first batch");
        for counts in [(&durable, 4), (&earlier, 1)] {
            let (_, replay) =
                OutcomeLog::resume(open(), counts.0, counts.1).expect("either holds until the second is used");
            assert_eq!(replay.sums.len() as u64, counts.1);
        }
        assert!(OutcomeLog::truncate(&open(), &earlier, 2).is_err());
        assert!(OutcomeLog::resume(open(), &durable, 4).is_err(), "it is cut off now");
        fs::remove_file(&path).expect("removed");
    }
}

/// Checksum of a written batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    /// Length in bytes; shorter than planned where the manifest became shorter.
    pub len: usize,
    /// CRC-64/NVME of those bytes.
    pub crc: u64,
}

/// MD5 of each property file that was read, by tree index.
pub type PropertyHashes = BTreeMap<u32, [u8; 16]>;
