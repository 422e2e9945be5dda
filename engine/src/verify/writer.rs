//! A thread that takes blobs while the drive is being read, and writes them into a directory, or gives them to a
//! [`Sink`].
//!
//! Data from the drive is handed over with its slot, without a copy, and the slot returns to the block reader when its
//! bytes are written. So a consumer slower than the drive stalls the drive only when every slot is full, and no memory
//! is needed in addition to the slots.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::report::{Kind, Problem};
use crate::verify::deliver::{Act, Bytes, Sink};
use crate::verify::extract::Extractor;
use crate::verify::work::{ReadPlan, SIDE};

/// Most waiting orders: as many as the block reader has slots. Bytes of other origin are at most a MiB each.
const WAITING_MAX: usize = 16;

/// Destination of blobs.
#[derive(Debug)]
pub(super) enum Outlet {
    /// Into a directory.
    Files(Box<Extractor>),
    /// To a consumer.
    Sink(Box<dyn Sink>),
}

enum Order {
    Take(Bytes, Vec<Act>),
    /// Everything was given: what is wanted once more.
    Again(Sender<Again>),
}

/// Blobs and their pieces.
type Again = Vec<(usize, u32)>;

/// The thread, and the number of outstanding pieces of each blob.
#[derive(Debug)]
pub(super) struct Writer {
    left: Vec<u32>,
    orders: Sender<Order>,
    is_broken: Arc<AtomicBool>,
    thread: JoinHandle<(Outlet, Result<(), Problem>)>,
}

impl Writer {
    /// Starts the thread. `blobs` is the number of blobs, `work` everything that will be read.
    pub fn start(outlet: Outlet, blobs: usize, work: &ReadPlan) -> Result<Self, Problem> {
        let (orders, waiting) = bounded(WAITING_MAX);
        let is_broken = Arc::new(AtomicBool::new(false));
        let broken = Arc::clone(&is_broken);
        let thread =
            std::thread::Builder::new().name("extract".into()).spawn(move || run(outlet, &waiting, &broken)).map_err(
                |error: io::Error| Problem::new(Kind::Environment, format!("no thread for writing: {error}")),
            )?;
        let mut started = Self { left: vec![0; blobs], orders, is_broken, thread };
        started.expect(work);
        Ok(started)
    }

    /// Counts the pieces of `work` as outstanding.
    pub fn expect(&mut self, work: &ReadPlan) {
        for item in work.road.iter().chain(&work.resident).chain(&work.singly) {
            if item.owner & SIDE == 0 {
                self.left[item.owner as usize] += 1;
            }
        }
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
        if self.is_broken.load(Ordering::Acquire) || self.orders.send(Order::Take(bytes, acts)).is_err() {
            // The reason is reported by `end`.
            return Err(Problem::new(Kind::Environment, "the blobs cannot be written any more"));
        }
        Ok(())
    }

    /// Waits until the consumer has dealt with everything; returns what it wants once more.
    pub fn again(&self) -> Again {
        let (reply, answer) = bounded(1);
        if self.orders.send(Order::Again(reply)).is_err() {
            return Again::new();
        }
        // A failure is reported by `end`.
        answer.recv().unwrap_or_default()
    }

    /// Waits for all orders; returns the outlet, and the first error.
    pub fn end(self) -> Result<(Outlet, Result<(), Problem>), Problem> {
        drop(self.orders);
        self.thread.join().map_err(|_| Problem::new(Kind::Internal, "the thread that writes blobs ended in a bug"))
    }
}

fn run(mut outlet: Outlet, orders: &Receiver<Order>, is_broken: &AtomicBool) -> (Outlet, Result<(), Problem>) {
    let mut result = Ok(());
    // After a failure the remaining orders are taken and dropped: slots return, and no sender blocks.
    for order in orders {
        if result.is_ok() {
            result = carry_out(&mut outlet, order);
            is_broken.store(result.is_err(), Ordering::Release);
        }
    }
    (outlet, result)
}

fn carry_out(outlet: &mut Outlet, order: Order) -> Result<(), Problem> {
    match (outlet, order) {
        (Outlet::Files(extractor), Order::Take(bytes, acts)) => extract(extractor, &bytes, &acts),
        (Outlet::Sink(sink), Order::Take(bytes, acts)) => sink.take(bytes, acts),
        // A directory wants nothing twice: dropping the sender says so.
        (Outlet::Files(_), Order::Again(_)) => Ok(()),
        (Outlet::Sink(sink), Order::Again(reply)) => {
            let _ = reply.send(sink.again()?);
            Ok(())
        }
    }
}

fn extract(extractor: &mut Extractor, all: &[u8], acts: &[Act]) -> Result<(), Problem> {
    for act in acts {
        match act {
            Act::Write { blob, at, bytes, .. } => extractor.write(*blob, *at, &all[bytes.clone()])?,
            Act::Keep { side, bytes } => extractor.keep_side(*side, &all[bytes.clone()]),
            Act::Finish(finish) => extractor.finish(finish)?,
            Act::Judged { .. } | Act::JudgedSide { .. } => {}
        }
    }
    Ok(())
}
