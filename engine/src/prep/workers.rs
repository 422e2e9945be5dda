//! The CPU's share: hashing and sealing whole slots, by workers that all drives use.
//!
//! Blocks of several slots are hashed side by side in one core's vector lanes, so a worker takes as many waiting slots
//! as make full lanes; when the drives are the bottleneck it finds one and loses nothing by it.

use std::ops::Range;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::azure::manifest::nonzero_runs;
use crate::crypt::SectorCipher;
use crate::hash::{self, Md5Chain};
use crate::io::Waker;
use crate::pool::Slot;
use crate::units::{ByteOffset, ByteRange};

/// Slots that one worker takes at a time: as many as MD5 has lanes.
const TAKE_MAX: usize = 8;

/// A hash block, or a part of one, inside a slot.
#[derive(Clone, Debug)]
pub struct Span {
    /// Bytes of the slot.
    pub range: Range<usize>,
    /// How it is hashed.
    pub how: How,
}

/// How a span is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// One whole block.
    Block,
    /// One block of a page blob: its runs that are not zero.
    Pages,
    /// A part of a block longer than a slot: carried on in `Job::chain`; the block ends here or not.
    Chain {
        /// Whether this is the block's end.
        ends: bool,
    },
}

/// A run of a page blob's block: offset in the block, length, MD5.
pub type PageRun = (u32, u32, [u8; 16]);

/// What came of a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Digest {
    /// MD5 of the block.
    Block([u8; 16]),
    /// The runs of a page blob's block that hold something.
    Pages(Vec<PageRun>),
    /// The block goes on in the next slot.
    Unfinished,
}

/// A slot to hash and seal.
#[derive(Debug)]
pub struct Job {
    /// The caller's name for it.
    pub tag: u64,
    /// The slot.
    pub slot: Slot,
    /// Bytes in use.
    pub len: usize,
    /// What is hashed.
    pub spans: Vec<Span>,
    /// State of a block that began in an earlier slot.
    pub chain: Option<Md5Chain>,
    /// What is sealed: bytes of the slot, and their place in the volume.
    pub seal: Vec<(Range<usize>, ByteOffset)>,
    /// The drive's cipher.
    pub cipher: Arc<SectorCipher>,
    /// Where the result goes.
    pub reply: Sender<Done>,
    /// Wakes the drive's thread.
    pub waker: Waker,
}

/// A slot hashed and sealed.
#[derive(Debug)]
pub struct Done {
    /// As given.
    pub tag: u64,
    /// As given, sealed.
    pub slot: Slot,
    /// One entry a span.
    pub digests: Vec<Digest>,
    /// State of a block that goes on in the next slot.
    pub chain: Option<Md5Chain>,
    /// CRC-64/NVME of the bytes in use, before sealing.
    pub crc: u64,
}

/// Threads that hash and seal for every drive.
#[derive(Debug)]
pub struct Workers {
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub fn start(count: usize) -> std::io::Result<Self> {
        let (jobs, queue) = unbounded::<Job>();
        let threads = (0..count.max(1))
            .map(|i| {
                let queue = queue.clone();
                let count = count.max(1);
                std::thread::Builder::new().name(format!("seal-{i}")).spawn(move || work(&queue, count))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { jobs: Some(jobs), threads })
    }

    /// Where jobs go in. The pool's slots bound how many there can be.
    pub fn queue(&self) -> Sender<Job> {
        self.jobs.clone().expect("present until drop")
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A worker's panic has been printed; the drives notice by the closed channel.
            let _ = thread.join();
        }
    }
}

fn work(queue: &Receiver<Job>, workers: usize) {
    let mut jobs: Vec<Job> = Vec::with_capacity(TAKE_MAX);
    while let Ok(job) = queue.recv() {
        jobs.push(job);
        // Full lanes first: eight slots cost hardly more than two. Of fewer, leave the others their share.
        let waiting = queue.len();
        let more = if waiting >= TAKE_MAX - 1 { TAKE_MAX - 1 } else { waiting / workers };
        jobs.extend(queue.try_iter().take(more));
        digest_and_seal(&mut jobs);
    }
}

fn digest_and_seal(jobs: &mut Vec<Job>) {
    let page_runs: Vec<Vec<Vec<ByteRange>>> = jobs
        .iter()
        .map(|job| {
            let pages = job.spans.iter().filter(|span| span.how == How::Pages);
            pages.map(|span| runs_of(&job.slot[span.range.clone()])).collect()
        })
        .collect();

    let mut messages: Vec<&[u8]> = Vec::new();
    for (job, runs) in jobs.iter().zip(&page_runs) {
        let mut runs = runs.iter();
        for span in &job.spans {
            let bytes = &job.slot[span.range.clone()];
            match span.how {
                How::Block => messages.push(bytes),
                How::Pages => {
                    let runs = runs.next().map_or(&[][..], |r| r);
                    messages.extend(runs.iter().map(|run| &bytes[run.start.0 as usize..run.end().0 as usize]));
                }
                How::Chain { .. } => {}
            }
        }
    }
    let mut md5s = vec![[0; 16]; messages.len()];
    hash::md5_many(&messages, &mut md5s);
    drop(messages);

    let mut md5s = md5s.into_iter();
    let mut next = || md5s.next().unwrap_or_default();
    for (mut job, runs) in jobs.drain(..).zip(page_runs) {
        let mut runs = runs.into_iter();
        let mut chain = job.chain.take();
        let mut digests = Vec::with_capacity(job.spans.len());
        for span in &job.spans {
            digests.push(match span.how {
                How::Block => Digest::Block(next()),
                How::Pages => {
                    let runs = runs.next().unwrap_or_default();
                    Digest::Pages(runs.into_iter().map(|run| (run.start.0 as u32, run.len.0 as u32, next())).collect())
                }
                How::Chain { ends } => {
                    let mut state = chain.take().unwrap_or_default();
                    hash::advance_many(&mut [(&mut state, &job.slot[span.range.clone()])]);
                    if ends {
                        Digest::Block(state.finish())
                    } else {
                        chain = Some(state);
                        Digest::Unfinished
                    }
                }
            });
        }
        let crc = hash::crc64(&job.slot[..job.len]);
        for (range, at) in &job.seal {
            job.cipher.seal(*at, &mut job.slot[range.clone()]);
        }
        // A drive that gave up does not listen any more; its slot goes back to the pool.
        let _ = job.reply.send(Done { tag: job.tag, slot: job.slot, digests, chain, crc });
        job.waker.wake();
    }
}

fn runs_of(block: &[u8]) -> Vec<ByteRange> {
    let mut runs = Vec::new();
    nonzero_runs(block, &mut runs);
    runs
}
