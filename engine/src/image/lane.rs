//! The writing side of one drive: slots come in, go to the device in the order in which they came, and are free again.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};

use crate::device::Device;
use crate::io::{self as engines, Completion, Engine, Options, WriteError};
use crate::pool::{Pool, SLOT_LEN, Slot};
use crate::report::{Kind, Problem, Stop};
use crate::stream::timeouts::{Timeouts, no_room, pulled};
use crate::units::{ByteLen, ByteOffset, ByteRange};

/// Longest sleep of a loop, so that a request to stop is noticed.
pub(super) const WAIT_MAX: Duration = Duration::from_millis(200);

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
    pub at: ByteOffset,
    /// Woken when the slot is free again.
    pub waker: Option<engines::Waker>,
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
    engine: Box<dyn Engine + Send>,
    name: String,
    node: Option<PathBuf>,
    timeouts: Timeouts,
}

/// Result of a write in a lane that continues after write errors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Unwritten(pub Vec<ByteRange>);

impl Lane {
    /// For slots of `pool`.
    pub fn new(device: &Device, name: &str, pool: &Pool) -> Self {
        let writes = device.geometry().writes_in_flight();
        let (engine, _) = engines::open(device.target(), pool, Options { writes, ..Options::default() });
        Self { engine, name: name.to_owned(), node: super::target::node(device), timeouts: Timeouts::default() }
    }

    /// Wakes the lane, which looks for pieces then.
    pub fn waker(&self) -> engines::Waker {
        self.engine.waker()
    }

    /// Writes what comes, ascending, until all senders are dropped; then flushes.
    ///
    /// # Errors
    /// The first failure. The slots that come behind it are dropped, and their waiters are woken.
    pub fn run(&mut self, pieces: &Receiver<Piece>, counters: &Counters) -> Result<(), Problem> {
        let result = self.carry(pieces, counters);
        if result.is_err() {
            counters.failed.store(true, Ordering::Release);
            self.settle();
            for piece in pieces {
                let Piece { slot, waker, .. } = piece;
                drop(slot);
                waker.iter().for_each(engines::Waker::wake);
            }
        }
        result
    }

    fn carry(&mut self, pieces: &Receiver<Piece>, counters: &Counters) -> Result<(), Problem> {
        let mut under: HashMap<u64, (usize, Option<engines::Waker>)> = HashMap::new();
        let (mut tag, mut ended, mut given_to, mut unflushed) = (0_u64, false, 0, 0);
        let mut flushes: HashMap<u64, u64> = HashMap::new();
        let mut last_flush = Instant::now();
        loop {
            while !ended {
                match pieces.try_recv() {
                    Ok(Piece { slot, len, at, waker }) => {
                        under.insert(tag, (len, waker));
                        self.engine.write(tag, slot, len, at);
                        tag += 1;
                        given_to = at.0 + len as u64;
                        unflushed += len as u64;
                    }
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => ended = true,
                }
            }
            let is_due = last_flush.elapsed() >= FLUSH_EVERY || unflushed >= FLUSH_BYTES;
            if unflushed > 0 && (ended || is_due) && flushes.is_empty() {
                flushes.insert(tag, given_to);
                self.engine.flush(tag);
                (unflushed, last_flush) = (0, Instant::now());
                tag += 1;
            }
            if ended && unflushed == 0 && self.engine.in_flight() == 0 {
                return Ok(());
            }
            match self.engine.wait(Some(WAIT_MAX)) {
                Completion::Written { tag, slot, result } => {
                    drop(slot);
                    let (len, waker) = under.remove(&tag).unwrap_or_default();
                    waker.iter().for_each(engines::Waker::wake);
                    result.map_err(|error| self.write_failed(&error))?;
                    counters.written.fetch_add(len as u64, Ordering::Relaxed);
                }
                Completion::Flushed { tag, result } => {
                    result.map_err(|error| self.flush_failed(&error))?;
                    if let Some(to) = flushes.remove(&tag) {
                        counters.durable.store(to, Ordering::Release);
                    }
                }
                Completion::Broken(error) => return Err(self.broken(&error)),
                Completion::TimedOut => self.timeouts.check(self.engine.as_ref()).map_err(|p| p.drive(&self.name))?,
                Completion::Woken | Completion::Filled { .. } => {}
            }
        }
    }

    /// Waits for what is under way, whatever comes of it.
    fn settle(&mut self) {
        while self.engine.in_flight() > 0 {
            if matches!(self.engine.wait(Some(engines::DRAIN_MAX)), Completion::Broken(_) | Completion::TimedOut) {
                return;
            }
        }
    }

    /// Writes bytes that are at hand, one place after the other, and flushes. For what is short.
    ///
    /// # Errors
    /// Error of the drive.
    pub fn put(&mut self, pool: &Pool, places: &[(ByteOffset, &[u8])]) -> Result<(), Problem> {
        let mut tag = 0;
        for (at, bytes) in places {
            for (i, part) in bytes.chunks(pool.slot_len()).enumerate() {
                let mut slot = self.slot(pool)?;
                slot[..part.len()].copy_from_slice(part);
                self.engine.write(tag, slot, part.len(), ByteOffset(at.0 + (i * pool.slot_len()) as u64));
                tag += 1;
            }
        }
        self.engine.flush(tag);
        while self.engine.in_flight() > 0 {
            self.wait()?;
        }
        Ok(())
    }

    /// A slot of the pool, as soon as one is free.
    fn slot(&mut self, pool: &Pool) -> Result<Slot, Problem> {
        loop {
            match pool.take() {
                Some(slot) => return Ok(slot),
                None => self.wait()?,
            }
        }
    }

    fn wait(&mut self) -> Result<(), Problem> {
        match self.engine.wait(Some(WAIT_MAX)) {
            Completion::Written { result: Err(error), .. } => Err(self.write_failed(&error)),
            Completion::Flushed { result: Err(error), .. } => Err(self.flush_failed(&error)),
            Completion::Broken(error) => Err(self.broken(&error)),
            Completion::TimedOut => self.timeouts.check(self.engine.as_ref()).map_err(|p| p.drive(&self.name)),
            _ => Ok(()),
        }
    }

    pub(super) fn write_failed(&self, error: &WriteError) -> Problem {
        failed(&error.source, &self.name, self.node.as_deref(), "writing failed").at(error.at)
    }

    fn flush_failed(&self, error: &io::Error) -> Problem {
        let what = "what was written could not be made durable";
        failed(error, &self.name, self.node.as_deref(), what)
    }

    fn broken(&self, error: &io::Error) -> Problem {
        Problem::new(Kind::Environment, format!("the I/O engine stopped working: {error}")).drive(&self.name)
    }
}

/// A failure of a drive, and what is to be done.
fn failed(error: &io::Error, name: &str, node: Option<&Path>, what: &str) -> Problem {
    if let Some(problem) = pulled(error, node).or_else(|| no_room(error)) {
        return problem.drive(name);
    }
    let problem = Problem::new(Kind::Drive, format!("{what}: {error}")).drive(name);
    problem.advice("check cable and drive (smartctl -a)")
}

/// Places that cannot be written before a drive is given up.
const UNWRITTEN_MAX: usize = 100_000;

/// Whether trying other places is useless: the drive is gone, has no room beneath it, or fails all over.
fn is_over(error: &io::Error, node: Option<&Path>, unwritten: usize) -> bool {
    unwritten >= UNWRITTEN_MAX || no_room(error).is_some() || pulled(error, node).is_some()
}

/// Overwrites ranges of a drive with zeros and makes that durable; goes on behind places that cannot be written. `progress`
/// hears of bytes that the device has acknowledged.
///
/// # Errors
/// A drive that is gone or hangs, no memory, a wish to stop.
pub(super) fn zero(
    device: &Device,
    name: &str,
    ranges: &[ByteRange],
    stop: &Stop,
    progress: &mut dyn FnMut(ByteLen),
) -> Result<Unwritten, Problem> {
    let pool = Pool::whole(SLOTS, SLOT_LEN)
        .map_err(|error| Problem::new(Kind::Environment, format!("no memory for slots: {error}")).drive(name))?;
    let mut work = ranges.iter().flat_map(|range| {
        let end = range.end().0;
        (range.start.0..end).step_by(SLOT_LEN).map(move |at| (at, (end - at).min(SLOT_LEN as u64)))
    });
    let mut zeroing = Zeroing {
        lane: Lane::new(device, name, &pool),
        sector: device.geometry().sector.bytes(),
        again: Vec::new(),
        under: HashMap::new(),
        unwritten: Vec::new(),
        done: 0,
    };
    let result = zeroing.run(&pool, &mut work, stop, progress);
    if result.is_err() {
        zeroing.lane.settle();
    }
    result.map(|()| Unwritten(merged(zeroing.unwritten)))
}

/// Zeros on their way to a drive. Places are position and length.
struct Zeroing {
    lane: Lane,
    sector: u64,
    /// Halves of places that could not be written.
    again: Vec<(u64, u64)>,
    /// What the device has not answered yet.
    under: HashMap<u64, (u64, u64)>,
    unwritten: Vec<ByteRange>,
    done: u64,
}

impl Zeroing {
    fn run(
        &mut self,
        pool: &Pool,
        work: &mut dyn Iterator<Item = (u64, u64)>,
        stop: &Stop,
        progress: &mut dyn FnMut(ByteLen),
    ) -> Result<(), Problem> {
        let (mut tag, mut is_flushed) = (0_u64, false);
        loop {
            if stop.requested() {
                return Err(Problem::new(Kind::Interrupted, "stopped on request").drive(&self.lane.name));
            }
            while let Some(slot) = pool.take() {
                // Slots are zero from the start, and nothing else is ever put into them.
                let Some((at, len)) = self.again.pop().or_else(|| work.next()) else { break };
                self.under.insert(tag, (at, len));
                self.lane.engine.write(tag, slot, len as usize, ByteOffset(at));
                tag += 1;
            }
            if self.under.is_empty() && !is_flushed {
                self.lane.engine.flush(tag);
                is_flushed = true;
            }
            if self.lane.engine.in_flight() == 0 {
                return Ok(());
            }
            match self.lane.engine.wait(Some(WAIT_MAX)) {
                Completion::Written { tag, result, .. } => self.written(tag, result, progress)?,
                Completion::Flushed { result: Err(error), .. } => return Err(self.lane.flush_failed(&error)),
                Completion::Broken(error) => return Err(self.lane.broken(&error)),
                Completion::TimedOut => {
                    let lane = &mut self.lane;
                    lane.timeouts.check(lane.engine.as_ref()).map_err(|problem| problem.drive(&lane.name))?;
                }
                _ => {}
            }
        }
    }

    /// Takes the device's answer for one place.
    fn written(
        &mut self,
        tag: u64,
        result: Result<(), WriteError>,
        progress: &mut dyn FnMut(ByteLen),
    ) -> Result<(), Problem> {
        let Some((at, len)) = self.under.remove(&tag) else { return Ok(()) };
        match result {
            Ok(()) => {
                self.done += len;
                progress(ByteLen(self.done));
            }
            Err(error) if is_over(&error.source, self.lane.node.as_deref(), self.unwritten.len()) => {
                return Err(self.lane.write_failed(&error));
            }
            Err(_) if len > self.sector => {
                // Halves, so that a place that cannot be written costs only itself.
                let half = (len / 2).next_multiple_of(self.sector);
                self.again.extend([(at + half, len - half), (at, half)]);
            }
            Err(_) => self.unwritten.push(ByteRange::new(at, len)),
        }
        Ok(())
    }
}

/// Ascending, with those that touch or overlap as one.
pub(super) fn merged(mut ranges: Vec<ByteRange>) -> Vec<ByteRange> {
    ranges.sort_unstable();
    let mut out: Vec<ByteRange> = Vec::with_capacity(ranges.len());
    for range in ranges.into_iter().filter(|range| range.len.0 > 0) {
        match out.last_mut() {
            Some(last) if range.start <= last.end() => {
                last.len = ByteLen(last.end().0.max(range.end().0) - last.start.0);
            }
            _ => out.push(range),
        }
    }
    out
}
