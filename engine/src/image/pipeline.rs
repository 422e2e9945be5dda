//! One source to any number of drives: read once, hashed in order, written by one lane a drive.
//!
//! One stage owns a slot at a time. The block reader fills it, the workers hash the pieces of several slots side by side,
//! the hashes of the whole take the pieces in order, and the lanes write them. The last lane gets the slot itself,
//! the others a copy.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::lane::{Counters, Lane, Piece};
use super::packed::Packed;
use super::search::is_zero;
use crate::device::Device;
use crate::hash::{Md5, Sha256, md5, sha256};
use crate::io::Waker;
use crate::pool::{Pool, SLOT_LEN, Slot};
use crate::report::{Kind, Problem, Stop};
use crate::stream::block_reader::{BlockReader, Held, Load};
use crate::stream::medium::Medium;
use crate::stream::rate_limit::RateLimit;
use crate::stream::timeouts::Timeouts;
use crate::stream::workers::{Digest, How, Span, Workers};
use crate::stream::zeros::merged;
use crate::units::{DeviceOffset, DeviceRange};

/// Slots of the pipeline, 160 MiB: those being filled, two groups of lanes at the workers, one for each stage, and the
/// writes that a drive has in flight.
const SLOTS: usize = 40;

/// Slots of every further drive.
const SLOTS_MORE: usize = 10;

/// Pieces of a packed image that wait for their hash.
const UNPACKED: usize = 4;

/// Interval between looks at the progress while nothing arrives.
const GLANCE: Duration = Duration::from_millis(50);

/// Hashes that are made on the way, in addition to the MD5 of each piece.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hashes {
    /// SHA-256 of the whole.
    pub sha256: bool,
    /// MD5 of the whole: a chain that no machine makes faster than some 0.8 GB/s.
    pub md5: bool,
    /// SHA-256 of each piece.
    pub pieces: bool,
}

/// A piece as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hashed {
    pub range: DeviceRange,
    pub md5: [u8; 16],
    pub sha256: Option<[u8; 32]>,
}

/// A drive that is written.
pub(super) struct To<'a> {
    pub device: &'a Device,
    pub name: &'a str,
    /// Whether it takes the piece.
    pub takes: &'a (dyn Fn(DeviceRange) -> bool + Sync),
    /// Its old contents read as zeros, so zeros need not be written.
    pub sparse: bool,
}

/// Result of a pipeline.
#[derive(Debug)]
pub(super) struct Carried {
    /// Pieces read, ascending.
    pub pieces: Vec<Hashed>,
    /// Of all of it in order; `None` unless asked for, and where a piece is missing.
    pub sha256: Option<[u8; 32]>,
    pub md5: Option<[u8; 16]>,
    /// Pieces that could not be read as a whole.
    pub failed: Vec<DeviceRange>,
    /// Result of each drive.
    pub lanes: Vec<Result<(), Problem>>,
}

/// A source with its readers, hashes and rate.
pub(super) struct Pipeline<'a> {
    pub source: &'a dyn Medium,
    pub name: &'a str,
    pub workers: &'a Workers,
    pub stop: &'a Stop,
    /// Ranges to read: ascending, disjoint, whole sectors.
    pub ranges: &'a [DeviceRange],
    /// Bytes where pieces end, in addition to every 4 MiB. Ascending.
    pub cuts: &'a [u64],
    pub hashes: Hashes,
    /// Go on where a piece cannot be read.
    pub tolerant: bool,
    /// Rate limit for reading the source.
    pub rate: &'a RateLimit,
}

/// A piece on its way.
struct PieceInFlight {
    at: DeviceOffset,
    bytes: Option<Held>,
    md5: [u8; 16],
    sha256: Option<[u8; 32]>,
}

/// Progress of a pipeline.
pub(super) struct Far<'a> {
    /// Bytes read.
    pub read: u64,
    /// One of each lane.
    pub counters: &'a [Counters],
    /// Pieces that could not be read.
    pub failed: &'a [DeviceRange],
}

/// Hears of it.
pub(super) type Progress<'a> = dyn FnMut(&Far<'_>) + 'a;

impl Pipeline<'_> {
    /// Carries everything.
    ///
    /// # Errors
    /// A source that hangs or, unless it may, cannot be read; a wish to stop; no memory or threads. A drive that fails is reported
    /// in [`Carried::lanes`], and the others go on.
    pub fn run(&self, to: &[To<'_>], progress: &mut Progress<'_>) -> Result<Carried, Problem> {
        self.carry(None, to, progress)
    }

    /// As [`Self::run`], with a packed image as the source: all of it, in order.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn unpack(&self, packed: &Packed, to: &[To<'_>], progress: &mut Progress<'_>) -> Result<Carried, Problem> {
        self.carry(Some(packed), to, progress)
    }

    fn carry(&self, packed: Option<&Packed>, to: &[To<'_>], progress: &mut Progress<'_>) -> Result<Carried, Problem> {
        let pools = pools(to.len())
            .map_err(|error| Problem::new(Kind::Environment, format!("no memory for slots: {error}")))?;
        let pool = pools[0].clone();
        let counters: Vec<Counters> = to.iter().map(|_| Counters::default()).collect();
        let mut carried =
            Carried { pieces: Vec::new(), sha256: None, md5: None, failed: Vec::new(), lanes: Vec::new() };
        std::thread::scope(|scope| {
            let lanes = to.iter().zip(&pools).zip(&counters);
            let lanes = lanes.map(|((one, pool), counters)| start_lane(scope, one, pool, counters));
            let (exits, threads): (Vec<_>, Vec<_>) = lanes.unzip();
            let (first, arrived) = unbounded::<PieceInFlight>();
            let hashes = self.hashes;
            // One stage a thread: the chains are the slowest part, and cannot be cut.
            let (to_md5, from_sha) = unbounded::<PieceInFlight>();
            let sha = scope.spawn(move || sha_stage(&arrived, &to_md5, hashes.sha256));
            let (to_lanes, from_md5) = unbounded::<PieceInFlight>();
            let md5 = scope.spawn(move || md5_stage(&from_sha, &to_lanes, hashes.md5));
            let spread = scope.spawn(move || spread(&from_md5, to, exits));
            let mut intake = Intake {
                first: Some(first),
                early: BTreeMap::new(),
                next: 0,
                read: 0,
                failed: Vec::new(),
                counters: &counters,
                progress,
            };
            let mut arrive = |index, item| intake.take(index, item);
            let result = match packed {
                None => self.read(&pool, &mut arrive),
                Some(packed) => self.read_packed(packed, &pool, &mut arrive),
            };
            intake.close();
            while !threads.iter().all(ScopedJoinHandle::is_finished) || !spread.is_finished() {
                intake.report();
                std::thread::sleep(GLANCE);
            }
            let bug = |_| Problem::new(Kind::Internal, "a thread of the copy ended in a bug");
            carried.lanes = threads.into_iter().map(|lane| lane.join().map_err(bug).and_then(|ended| ended)).collect();
            intake.report();
            carried.failed = merged(intake.failed);
            let is_whole = result.is_ok() && carried.failed.is_empty();
            let whole = sha.join().map_err(bug)?;
            carried.sha256 = whole.filter(|_| is_whole);
            carried.md5 = md5.join().map_err(bug)?.filter(|_| is_whole);
            carried.pieces = spread.join().map_err(bug)?;
            // Each of them reports its own failure.
            if !carried.lanes.is_empty() && carried.lanes.iter().all(Result::is_err) {
                return Ok(());
            }
            result
        })
        .map_err(|problem| if problem.place.drive.is_some() { problem } else { problem.drive(self.name) })?;
        Ok(carried)
    }

    /// Reads all pieces; `arrive` gets each with its number.
    fn read(&self, pool: &Pool, arrive: &mut Arrive<'_>) -> Result<(), Problem> {
        let &Self { source, workers, stop, .. } = self;
        let timeouts = Timeouts::default();
        let reader = BlockReader { medium: source, cipher: None, workers, stop, slot_len: SLOT_LEN, timeouts };
        let loads = pieces(self.ranges, self.cuts).zip(0_u64..).map(|(range, index)| {
            while let Err(wait) = self.rate.take(range.len.0, Instant::now()) {
                std::thread::sleep(wait.min(GLANCE));
            }
            let mut load = Load::new((index, range));
            load.len = range.len.0 as usize;
            load.parts.push((0..load.len, range.start));
            load.spans.push(Span { range: 0..load.len, how: How::Block });
            load.sha256 = self.hashes.pieces;
            load
        });
        reader.run_in(pool, loads, |arrived| {
            let (index, range) = arrived.what;
            if let Some(error) = arrived.failure {
                if !self.tolerant {
                    return Err(Problem::new(Kind::Source, format!("cannot be read: {error}")).at(range.start));
                }
                let lost = Arrival { at: range.start, bytes: None, md5: [0; 16], sha256: None, range: Err(range) };
                return arrive(index, lost);
            }
            let Some(Digest::Block(md5)) = arrived.digests.first() else {
                return Err(Problem::new(Kind::Internal, "a piece came without its hash"));
            };
            let bytes = Some(arrived.bytes.away());
            let sha256 = arrived.sha256s.first().copied();
            arrive(index, Arrival { at: range.start, bytes, md5: *md5, sha256, range: Ok(()) })
        })
    }

    /// Unpacks all pieces in a thread of its own.
    fn read_packed(&self, packed: &Packed, pool: &Pool, arrive: &mut Arrive<'_>) -> Result<(), Problem> {
        let failed = |error: &std::io::Error, at: DeviceOffset| {
            Problem::new(Kind::Source, format!("cannot be unpacked: {error}")).at(at)
        };
        let mut reader = packed.reader().map_err(|error| failed(&error, DeviceOffset(0)))?;
        let (sender, unpacked) = bounded::<(DeviceRange, std::io::Result<Slot>)>(UNPACKED);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for range in pieces(self.ranges, self.cuts) {
                    while let Err(wait) = self.rate.take(range.len.0, Instant::now()) {
                        std::thread::sleep(wait.min(GLANCE));
                    }
                    let mut slot = take(pool);
                    let filled = reader.read_exact(&mut slot[..range.len.0 as usize]);
                    let is_last = filled.is_err();
                    if sender.send((range, filled.map(|()| slot))).is_err() || is_last {
                        break;
                    }
                }
            });
            for (index, (range, slot)) in (0..).zip(unpacked) {
                if self.stop.requested() {
                    return Err(Problem::new(Kind::Interrupted, "stopped on request"));
                }
                let slot = slot.map_err(|error| failed(&error, range.start))?;
                let len = range.len.0 as usize;
                let md5 = md5(&slot[..len]);
                let sha256 = self.hashes.pieces.then(|| sha256(&slot[..len]));
                let bytes = Some(Held::of(slot, len));
                arrive(index, Arrival { at: range.start, bytes, md5, sha256, range: Ok(()) })?;
            }
            Ok(())
        })
    }
}

/// Takes a piece with its number.
type Arrive<'a> = dyn FnMut(u64, Arrival) -> Result<(), Problem> + 'a;

/// Slots of the pipeline and the first lane, then those of each further lane.
fn pools(lanes: usize) -> std::io::Result<Vec<Pool>> {
    let more = (1..lanes).map(|_| Pool::new(SLOTS_MORE, SLOT_LEN));
    std::iter::once(Pool::new(SLOTS, SLOT_LEN)).chain(more).collect()
}

struct Arrival {
    at: DeviceOffset,
    bytes: Option<Held>,
    md5: [u8; 16],
    sha256: Option<[u8; 32]>,
    range: Result<(), DeviceRange>,
}

impl From<Arrival> for PieceInFlight {
    fn from(arrival: Arrival) -> Self {
        let Arrival { at, bytes, md5, sha256, .. } = arrival;
        Self { at, bytes, md5, sha256 }
    }
}

/// Starts the thread that writes to one drive.
fn start_lane<'scope>(
    scope: &'scope Scope<'scope, '_>,
    to: &To<'_>,
    pool: &'scope Pool,
    counters: &'scope Counters,
) -> (Exit<'scope>, ScopedJoinHandle<'scope, Result<(), Problem>>) {
    let mut lane = Lane::new(to.device, to.name, pool);
    let (sender, pieces) = unbounded::<Piece>();
    let exit = Exit { sender: Some(sender), waker: lane.waker(), pool };
    (exit, scope.spawn(move || lane.run(&pieces, counters)))
}

/// Pieces from the source: counted, and put in order for the stages.
struct Intake<'a, 'p> {
    /// To the first stage. The stages end with this channel only.
    first: Option<Sender<PieceInFlight>>,
    early: BTreeMap<u64, PieceInFlight>,
    /// Number of the piece that goes next.
    next: u64,
    read: u64,
    failed: Vec<DeviceRange>,
    counters: &'a [Counters],
    progress: &'a mut Progress<'p>,
}

impl Intake<'_, '_> {
    fn take(&mut self, index: u64, item: Arrival) -> Result<(), Problem> {
        self.read += item.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        if let Err(range) = &item.range {
            self.failed.push(*range);
        }
        self.early.insert(index, item.into());
        while let Some(item) = self.early.remove(&self.next) {
            self.next += 1;
            let _ = self.first.as_ref().map(|first| first.send(item));
        }
        self.report();
        let has_failed = |one: &Counters| one.failed.load(Ordering::Acquire);
        if !self.counters.is_empty() && self.counters.iter().all(has_failed) {
            return Err(Problem::new(Kind::Drive, "no drive is left to write to"));
        }
        Ok(())
    }

    /// Drops what still waits for an earlier piece, and ends the stages.
    fn close(&mut self) {
        self.early.clear();
        self.first = None;
    }

    fn report(&mut self) {
        (self.progress)(&Far { read: self.read, counters: self.counters, failed: &self.failed });
    }
}

/// Ranges cut where a slot's worth is full, at multiples of that, and at `cuts` (ascending).
pub(super) fn pieces<'a>(ranges: &'a [DeviceRange], cuts: &'a [u64]) -> impl Iterator<Item = DeviceRange> + 'a {
    ranges.iter().flat_map(move |range| {
        let mut at = range.start.0;
        std::iter::from_fn(move || {
            let end = range.end().0;
            if at >= end {
                return None;
            }
            let full = (at / SLOT_LEN as u64 + 1) * SLOT_LEN as u64;
            let cut = cuts.get(cuts.partition_point(|cut| *cut <= at)).copied().unwrap_or(u64::MAX);
            let to = end.min(full).min(cut);
            let piece = DeviceRange::new(at, to - at);
            at = to;
            Some(piece)
        })
    })
}

fn sha_stage(items: &Receiver<PieceInFlight>, next: &Sender<PieceInFlight>, is_asked: bool) -> Option<[u8; 32]> {
    let mut whole = Sha256::default();
    for item in items {
        if let Some(bytes) = item.bytes.as_ref().filter(|_| is_asked) {
            whole.update(bytes);
        }
        if next.send(item).is_err() {
            break;
        }
    }
    is_asked.then(|| whole.value())
}

fn md5_stage(items: &Receiver<PieceInFlight>, next: &Sender<PieceInFlight>, is_asked: bool) -> Option<[u8; 16]> {
    let mut whole = Md5::new();
    for item in items {
        if let Some(bytes) = item.bytes.as_ref().filter(|_| is_asked) {
            whole.update(bytes);
        }
        if next.send(item).is_err() {
            break;
        }
    }
    is_asked.then(|| whole.finish())
}

/// A lane from outside.
struct Exit<'a> {
    sender: Option<Sender<Piece>>,
    waker: Waker,
    pool: &'a Pool,
}

impl Exit<'_> {
    fn send(&self, piece: Piece) {
        if let Some(sender) = &self.sender {
            // A lane takes what comes until the channel ends, also when its drive failed.
            let _ = sender.send(piece);
            self.waker.wake();
        }
    }
}

impl Drop for Exit<'_> {
    fn drop(&mut self) {
        self.sender = None;
        self.waker.wake();
    }
}

/// Gives each piece to the lanes that take it.
fn spread(items: &Receiver<PieceInFlight>, to: &[To<'_>], exits: Vec<Exit<'_>>) -> Vec<Hashed> {
    let mut pieces = Vec::new();
    for PieceInFlight { at, bytes, md5, sha256 } in items {
        let Some(bytes) = bytes else { continue };
        let range = DeviceRange::new(at.0, bytes.len() as u64);
        pieces.push(Hashed { range, md5, sha256 });
        let zero = to.iter().any(|one| one.sparse) && is_zero(&bytes);
        let takers: Vec<usize> = (0..to.len()).filter(|i| !(to[*i].sparse && zero) && (to[*i].takes)(range)).collect();
        // Slots of the pipeline belong to the first lane's engine.
        for &i in takers.iter().filter(|i| **i > 0) {
            let mut slot = take(exits[i].pool);
            slot[..bytes.len()].copy_from_slice(&bytes);
            exits[i].send(Piece { slot, len: bytes.len(), at, waker: None });
        }
        if takers.first() == Some(&0)
            && let len = bytes.len()
            && let Some((slot, waker)) = bytes.into_slot()
        {
            exits[0].send(Piece { slot, len, at, waker: Some(waker) });
        }
    }
    pieces
}

/// A slot, as soon as the lane gives one back.
fn take(pool: &Pool) -> Slot {
    loop {
        if let Some(slot) = pool.take() {
            return slot;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Bytes that a lane has written so far.
pub(super) fn written(counters: &[Counters], lane: usize) -> u64 {
    counters.get(lane).map_or(0, |counters| counters.written.load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_at_slots_and_cuts() {
        let slot = SLOT_LEN as u64;
        let ranges = [DeviceRange::new(0, slot + 512), DeviceRange::new(2 * slot - 512, 1024)];
        let cut: Vec<_> = pieces(&ranges, &[1 << 20, slot, slot + 100]).map(|p| (p.start.0, p.len.0)).collect();
        let mib = 1 << 20;
        let wanted =
            [(0, mib), (mib, slot - mib), (slot, 100), (slot + 100, 412), (2 * slot - 512, 512), (2 * slot, 512)];
        assert_eq!(cut, wanted);
    }
}
