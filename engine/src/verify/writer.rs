//! A thread that writes blobs while the drive is being read.
//!
//! Data from the drive is handed over with its slot, without a copy, and the slot returns to the block reader when its
//! bytes are written. So a directory slower than the drive stalls the drive only when every slot is full, and no memory
//! is needed in addition to the slots.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::ntfs::read::Times;
use crate::report::{Kind, Problem};
use crate::verify::block_reader::Held;
use crate::verify::extract::Extractor;
use crate::verify::work::{SIDE, Work};

/// Most waiting orders: as many as the block reader has slots. Bytes of other origin are at most a MiB each.
const WAITING_MAX: usize = 16;

/// Bytes to write.
#[derive(Debug)]
pub(super) enum Bytes {
    /// In a slot of the block reader.
    Held(Held),
    /// In memory of their own: bytes that were not read through a slot.
    Own(Vec<u8>),
}

/// Actions on the bytes, in order.
#[derive(Debug)]
pub(super) enum Act {
    /// Write them to a blob.
    Write { blob: usize, at: u64, bytes: Range<usize> },
    /// Keep them as part of a side file.
    Keep { side: u32, bytes: Range<usize> },
    /// Finish the blob: its last piece has been judged.
    Finish(Box<Finish>),
}

/// Facts for finishing a blob when all its bytes are written.
#[derive(Debug)]
pub(super) struct Finish {
    pub blob: usize,
    pub path: String,
    pub snapshot: Option<String>,
    pub length: u64,
    pub times: Times,
    pub is_whole: bool,
}

struct Order {
    bytes: Bytes,
    acts: Vec<Act>,
}

/// The thread, and the number of outstanding pieces of each blob.
#[derive(Debug)]
pub(super) struct Writer {
    left: Vec<u32>,
    orders: Sender<Order>,
    is_broken: Arc<AtomicBool>,
    thread: JoinHandle<(Extractor, Result<(), Problem>)>,
}

impl Writer {
    /// Starts the thread. `blobs` is the number of blobs, `work` everything that will be read.
    pub fn start(extractor: Extractor, blobs: usize, work: &Work) -> Result<Self, Problem> {
        let mut left = vec![0; blobs];
        for item in work.road.iter().chain(&work.resident).chain(&work.singly) {
            if item.owner & SIDE == 0 {
                left[item.owner as usize] += 1;
            }
        }
        let (orders, waiting) = bounded(WAITING_MAX);
        let is_broken = Arc::new(AtomicBool::new(false));
        let broken = Arc::clone(&is_broken);
        let thread = std::thread::Builder::new()
            .name("extract".into())
            .spawn(move || run(extractor, &waiting, &broken))
            .map_err(|error: io::Error| Problem::new(Kind::Environment, format!("no thread for writing: {error}")))?;
        Ok(Self { left, orders, is_broken, thread })
    }

    /// Whether no piece of the blob is outstanding.
    pub fn is_empty(&self, blob: usize) -> bool {
        self.left[blob] == 0
    }

    /// Counts a judged piece of the blob; whether it was the last.
    pub fn is_last(&mut self, blob: usize) -> bool {
        let left = &mut self.left[blob];
        *left = left.saturating_sub(1);
        *left == 0
    }

    /// Queues an order; waits only when many are queued already.
    pub fn give(&self, bytes: Bytes, acts: Vec<Act>) -> Result<(), Problem> {
        let bytes = match bytes {
            Bytes::Held(held) => Bytes::Held(held.away()),
            own @ Bytes::Own(_) => own,
        };
        if self.is_broken.load(Ordering::Acquire) || self.orders.send(Order { bytes, acts }).is_err() {
            // The reason is reported by `end`.
            return Err(Problem::new(Kind::Environment, "the blobs cannot be written any more"));
        }
        Ok(())
    }

    /// Waits for all orders; returns the extractor, and the first error.
    pub fn end(self) -> Result<(Extractor, Result<(), Problem>), Problem> {
        drop(self.orders);
        self.thread.join().map_err(|_| Problem::new(Kind::Internal, "the thread that writes blobs ended in a bug"))
    }
}

fn run(mut extractor: Extractor, orders: &Receiver<Order>, is_broken: &AtomicBool) -> (Extractor, Result<(), Problem>) {
    let mut result = Ok(());
    // After a failure the remaining orders are taken and dropped: slots return, and no sender blocks.
    for order in orders {
        if result.is_ok() {
            result = carry_out(&mut extractor, &order);
            is_broken.store(result.is_err(), Ordering::Release);
        }
    }
    (extractor, result)
}

fn carry_out(extractor: &mut Extractor, order: &Order) -> Result<(), Problem> {
    let all: &[u8] = match &order.bytes {
        Bytes::Held(held) => held,
        Bytes::Own(own) => own,
    };
    for act in &order.acts {
        match act {
            Act::Write { blob, at, bytes } => extractor.write(*blob, *at, &all[bytes.clone()])?,
            Act::Keep { side, bytes } => extractor.keep_side(*side, &all[bytes.clone()]),
            Act::Finish(finish) => extractor.finish(finish)?,
        }
    }
    Ok(())
}
