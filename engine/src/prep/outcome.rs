//! What reading the sources gave: block hashes in the order of the plan, and the files that were left out.
//!
//! Hashes go to an append-only sidecar, since ten million files would make gigabytes of them; the manifest is generated
//! out of it afterwards. One record a block, in the order of the drive's tree: 16 bytes of MD5 for a block blob or a
//! property file; for a page blob's block a little-endian count of runs and then offset, length and MD5 of each.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};

use crate::prep::workers::{Digest, PageRun};

/// Appends hashes in plan order, whatever order the workers finish in.
#[derive(Debug)]
pub struct HashLog {
    file: BufWriter<File>,
    /// Batches that came before their turn.
    early: BTreeMap<u64, Vec<Digest>>,
    next: u64,
}

impl HashLog {
    /// A log in an empty file, open for reading and writing.
    pub fn new(file: File) -> Self {
        Self { file: BufWriter::with_capacity(1 << 20, file), early: BTreeMap::new(), next: 0 }
    }

    /// Takes the digests of data batch number `batch`; batches count from 0 without gaps.
    ///
    /// # Errors
    /// When the sidecar cannot be written.
    pub fn push(&mut self, batch: u64, digests: Vec<Digest>) -> io::Result<()> {
        self.early.insert(batch, digests);
        while let Some(digests) = self.early.remove(&self.next) {
            self.next += 1;
            for digest in digests {
                match digest {
                    Digest::Block(md5) => self.file.write_all(&md5)?,
                    Digest::Pages(runs) => {
                        self.file.write_all(&(runs.len() as u16).to_le_bytes())?;
                        for (at, len, md5) in runs {
                            self.file.write_all(&at.to_le_bytes())?;
                            self.file.write_all(&len.to_le_bytes())?;
                            self.file.write_all(&md5)?;
                        }
                    }
                    Digest::Unfinished => {}
                }
            }
        }
        Ok(())
    }

    /// Batches whose digests are in the log.
    pub fn batches(&self) -> u64 {
        self.next
    }

    /// Ends the log and reads it from its start.
    ///
    /// # Errors
    /// When the sidecar cannot be written or read.
    pub fn into_reader(self) -> io::Result<HashReader> {
        let mut file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        Ok(HashReader::new(file))
    }
}

/// Reads hashes back in the order of the plan.
#[derive(Debug)]
pub struct HashReader {
    file: BufReader<File>,
}

impl HashReader {
    /// A reader from where `file` stands: the start of a finished log.
    pub fn new(file: File) -> Self {
        Self { file: BufReader::with_capacity(1 << 20, file) }
    }

    /// The next block's MD5.
    ///
    /// # Errors
    /// When the sidecar cannot be read, or ends too early.
    pub fn block(&mut self) -> io::Result<[u8; 16]> {
        let mut md5 = [0; 16];
        self.file.read_exact(&mut md5)?;
        Ok(md5)
    }

    /// The next block's runs, for a page blob; appended to `out` as offset in the block, length, MD5.
    ///
    /// # Errors
    /// When the sidecar cannot be read, or ends too early.
    pub fn pages(&mut self, out: &mut Vec<PageRun>) -> io::Result<()> {
        let mut count = [0; 2];
        self.file.read_exact(&mut count)?;
        for _ in 0..u16::from_le_bytes(count) {
            let (mut at, mut len) = ([0; 4], [0; 4]);
            self.file.read_exact(&mut at)?;
            self.file.read_exact(&mut len)?;
            out.push((u32::from_le_bytes(at), u32::from_le_bytes(len), self.block()?));
        }
        Ok(())
    }
}
