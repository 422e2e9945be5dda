//! The writing side of one drive: slots come in, go to the device in the order in which they came, and are free again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};

use crate::device::Device;
use crate::io::{self, Options, Waker};
use crate::pool::{Pool, SLOT_LEN, Slot};
use crate::report::{Kind, PROGRESS_INTERVAL, Problem, Stop};
use crate::stream::event_loop::{self, Action, BlockIo, Next, Transfer};
use crate::stream::failures::Failures;
use crate::stream::zeros::{self, OnError};
use crate::units::{ByteLen, DeviceOffset, DeviceRange};

/// The drive is flushed as often, so that what is durable is known.
const FLUSH_EVERY: Duration = Duration::from_secs(5);

/// The same, in bytes.
const FLUSH_BYTES: u64 = 4 << 30;

/// Slots of a drive that is written by itself.
const SLOTS: usize = 16;

/// A slot to write.
#[derive(Debug)]
pub(super) struct Piece {
    pub slot: Slot,
    pub len: usize,
    pub at: DeviceOffset,
    /// Woken when the slot is free again.
    pub waker: Option<Waker>,
}

/// Counters of a lane, for others to look at.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Bytes that the device has acknowledged.
    pub written: AtomicU64,
    /// Everything given that lies below this byte is durable.
    pub durable: AtomicU64,
    /// The drive failed: nothing more is written.
    pub failed: AtomicBool,
}

/// A drive's way to be written.
#[derive(Debug)]
pub(super) struct Lane {
    io: BlockIo,
}

impl Lane {
    /// For slots of `pool`.
    pub fn new(device: &Device, name: &str, pool: &Pool) -> Self {
        Self { io: block_io(device, name, pool) }
    }

    /// Wakes the lane, which looks for pieces then.
    pub fn waker(&self) -> Waker {
        self.io.waker()
    }

    /// Writes what comes, ascending, until all senders are dropped; then flushes.
    ///
    /// # Errors
    /// The first failure. The slots that come behind it are dropped, and their waiters are woken.
    pub fn run(&mut self, pieces: &Receiver<Piece>, counters: &Counters) -> Result<(), Problem> {
        let result = event_loop::run(&mut Writing {
            io: &mut self.io,
            pieces,
            counters,
            under_way: HashMap::new(),
            next: 0,
            is_ended: false,
            given_to: 0,
            unflushed: 0,
            flushed_at: Instant::now(),
        });
        if result.is_err() {
            counters.failed.store(true, Ordering::Release);
            for Piece { slot, waker, .. } in pieces {
                drop(slot);
                waker.iter().for_each(Waker::wake);
            }
        }
        result
    }

    /// Writes bytes that are at hand, one place after the other, and flushes. For what is short.
    ///
    /// # Errors
    /// Error of the drive.
    pub fn put(&mut self, places: &[(DeviceOffset, &[u8])]) -> Result<(), Problem> {
        for (at, bytes) in places {
            self.io.put(*at, bytes, &|_| ())?;
        }
        self.io.settle(&|_| ())
    }
}

/// Engine and slots for writing to a drive that no session holds.
pub(super) fn block_io(device: &Device, name: &str, pool: &Pool) -> BlockIo {
    let writes = device.geometry().writes_in_flight();
    let (engine, _) = io::open(device.target(), pool, Options { writes, ..Options::default() });
    BlockIo::new(engine, pool.clone(), Failures::of(name, super::target::node(device)))
}

/// Pieces on their way to a drive.
struct Writing<'a> {
    io: &'a mut BlockIo,
    pieces: &'a Receiver<Piece>,
    counters: &'a Counters,
    /// Length of each piece that the device has not acknowledged, and who waits for its slot.
    under_way: HashMap<u64, (usize, Option<Waker>)>,
    next: u64,
    is_ended: bool,
    /// End of the last piece given to the device.
    given_to: u64,
    unflushed: u64,
    flushed_at: Instant,
}

impl Transfer for Writing<'_> {
    fn io(&mut self) -> &mut BlockIo {
        self.io
    }

    fn advance(&mut self) -> Result<Next, Problem> {
        while !self.is_ended {
            match self.pieces.try_recv() {
                Ok(Piece { slot, len, at, waker }) => {
                    self.under_way.insert(self.next, (len, waker));
                    self.io.write(self.next, slot, len, at);
                    self.next += 1;
                    self.given_to = at.0 + len as u64;
                    self.unflushed += len as u64;
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => self.is_ended = true,
            }
        }
        let is_due = self.flushed_at.elapsed() >= FLUSH_EVERY || self.unflushed >= FLUSH_BYTES;
        if self.unflushed > 0 && (self.is_ended || is_due) && self.io.in_flight().flushes == 0 {
            // Its name is the byte up to which the drive is durable then.
            self.io.flush(self.given_to);
            (self.unflushed, self.flushed_at) = (0, Instant::now());
        }
        let is_over = self.is_ended && self.unflushed == 0 && self.io.is_idle();
        Ok(if is_over { Next::Done } else { Next::Wait(PROGRESS_INTERVAL) })
    }

    fn apply(&mut self, action: Action) -> Result<(), Problem> {
        match action {
            Action::Written { tag, slot, result } => {
                drop(slot);
                let (len, waker) = self.under_way.remove(&tag).unwrap_or_default();
                waker.iter().for_each(Waker::wake);
                result.map_err(|error| self.io.failures.write(&error, None))?;
                self.counters.written.fetch_add(len as u64, Ordering::Relaxed);
            }
            Action::Flushed { tag, result } => {
                result.map_err(|error| self.io.failures.flush(&error))?;
                self.counters.durable.store(tag, Ordering::Release);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Overwrites ranges of a drive with zeros and makes that durable; continues behind places that cannot be written, and
/// returns them. `progress` takes the number of bytes that the device has acknowledged.
///
/// # Errors
/// A drive that is gone or hangs, no memory, a request to stop.
pub(super) fn zero(
    device: &Device,
    name: &str,
    ranges: &[DeviceRange],
    stop: &Stop,
    progress: &mut dyn FnMut(ByteLen),
) -> Result<Vec<DeviceRange>, Problem> {
    let pool = Pool::whole(SLOTS, SLOT_LEN)
        .map_err(|error| Problem::new(Kind::Environment, format!("no memory for slots: {error}")).drive(name))?;
    let mut io = block_io(device, name, &pool).until(stop);
    let on_error = OnError::GoAround { sector: device.geometry().sector.bytes() };
    zeros::overwrite(&mut io, ranges, on_error, progress, &|_| ())
}
