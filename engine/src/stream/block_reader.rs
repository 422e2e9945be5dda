//! The block reader: slots are filled from the drive in the order requested, decrypted and hashed by the workers, and
//! passed on in the order of arrival.

use std::collections::{HashMap, VecDeque};
use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::crypt::SectorCipher;
use crate::hash::Md5Chain;
use crate::io::{self, Fill, From, Part, PartResult};
use crate::pool::{FILLS_MAX, Pool, SLOT_LEN, Slot};
use crate::report::{Kind, PROGRESS_INTERVAL, Problem, Stop};
use crate::stream::event_loop::{self, Action, BlockIo, Next, Transfer};
use crate::stream::failures::Failures;
use crate::stream::medium::Medium;
use crate::stream::timeouts::Timeouts;
use crate::stream::workers::{CipherDirection, Digest, DigestJob, Done, How, Span, Workers};
use crate::units::{ByteLen, DeviceOffset, Offset, VolumeOffset};

/// Additional bytes of a slot, so that a block that starts inside a sector still fits.
pub const SLOT_SPARE: usize = 8 << 10;

/// Slots of a drive, 96 MiB: as many as are being filled, and two full sets of lanes at the workers. With 16 of them a
/// device of 3 GB/s is read a quarter slower.
const SLOTS: usize = 24;

/// Slots being filled that keep the drive busy while others wait for full lanes.
const BUSY: usize = 4;

/// Loads that may arrive before one that was requested earlier: bounds the loads that an ordering caller must hold.
const AHEAD_MAX: u64 = 32;

/// A load that takes longer to come is read before the next is asked for.
const SLOW_LOAD: Duration = Duration::from_millis(5);

/// A slot's worth of reading.
#[derive(Debug)]
pub struct Load<T> {
    /// The caller's tag.
    pub what: T,
    /// Bytes of the slot in use.
    pub len: usize,
    /// Ranges of the slot, with their source on the medium; whole sectors.
    pub parts: Vec<(Range<usize>, DeviceOffset)>,
    /// Ranges of the slot that are zero without being read.
    pub zeros: Vec<Range<usize>>,
    /// Ranges of the slot that the cipher opens, with their offset in the volume.
    pub crypt: Vec<(Range<usize>, VolumeOffset)>,
    /// Set where it seals them instead.
    pub seals: bool,
    /// Ranges to hash, ascending and disjoint. A part of a block longer than a slot is alone in its load, and the parts
    /// of a block are consecutive.
    pub spans: Vec<Span>,
    /// Whether such a block begins here.
    pub begins: bool,
    /// SHA-256 of each span, too.
    pub sha256: bool,
}

impl<T> Load<T> {
    /// A load tagged `what` without anything to read.
    pub fn new(what: T) -> Self {
        let (parts, zeros, crypt, spans) = Default::default();
        Self { what, len: 0, parts, zeros, crypt, seals: false, spans, begins: false, sha256: false }
    }
}

/// The bytes in use of a filled slot. Keeping them keeps the slot: the reader has one slot less until they are dropped.
#[derive(Debug)]
pub struct Held {
    slot: Option<Slot>,
    len: usize,
    waker: io::Waker,
    is_away: bool,
}

impl Held {
    /// Bytes that another than the block reader put into a slot.
    pub fn of(slot: Slot, len: usize) -> Self {
        Self { slot: Some(slot), len, waker: io::Waker::none(), is_away: false }
    }

    /// For another thread: the reader is woken when they are dropped, since it may have nothing else to wait for.
    pub fn away(mut self) -> Self {
        self.is_away = true;
        self
    }

    /// The slot itself, and who is to be woken once it is free again.
    pub fn into_slot(mut self) -> Option<(Slot, io::Waker)> {
        self.slot.take().map(|slot| (slot, self.waker.clone()))
    }
}

impl Deref for Held {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.slot.as_ref().map_or(&[], |slot| &slot[..self.len])
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.slot.as_mut().map_or(&mut [], |slot| &mut slot[..self.len])
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.slot.take().is_some() && self.is_away {
            self.waker.wake();
        }
    }
}

/// A load that has been read.
#[derive(Debug)]
pub struct Arrived<T> {
    /// The caller's tag.
    pub what: T,
    /// The bytes read, decrypted. Meaningless if `failure` is set.
    pub bytes: Held,
    /// One digest a span.
    pub digests: Vec<Digest>,
    /// SHA-256 of each span, where it was asked for.
    pub sha256s: Vec<[u8; 32]>,
    /// CRC-64/NVME of `bytes`.
    pub crc: u64,
    /// A part of it could not be read: nothing of it was decrypted or hashed.
    pub failure: Option<std::io::Error>,
}

/// Parameters of a run of the block reader.
#[derive(Debug)]
pub struct BlockReader<'a> {
    /// The medium of the drive.
    pub medium: &'a dyn Medium,
    /// The volume's cipher.
    pub cipher: Option<Arc<SectorCipher>>,
    /// The shared workers.
    pub workers: &'a Workers,
    /// Stop request.
    pub stop: &'a Stop,
    /// Bytes of a slot.
    pub slot_len: usize,
    /// Limits after which the drive is given up.
    pub timeouts: Timeouts,
}

struct Under<T> {
    load: Load<T>,
    failure: Option<std::io::Error>,
}

/// Slots of blocks longer than a slot, which are hashed in order, one at a time.
#[derive(Default)]
struct Outgoing {
    order: VecDeque<u64>,
    ready: HashMap<u64, Slot>,
    state: Option<Md5Chain>,
    busy: bool,
}

/// A run: loads between the drive, the workers and the sink.
struct Transit<'a, T> {
    reader: &'a BlockReader<'a>,
    io: BlockIo,
    loads: &'a mut dyn Iterator<Item = Load<T>>,
    sink: &'a mut dyn FnMut(Arrived<T>) -> Result<(), Problem>,
    outgoing: Outgoing,
    waker: io::Waker,
    under: HashMap<u64, Under<T>>,
    /// Tag of the next load.
    next: u64,
    /// Whether there are no more loads.
    ended: bool,
    /// Whether the last load came slowly, and something that arrived meanwhile may be waiting.
    is_behind: bool,
}

impl BlockReader<'_> {
    /// Reads every load and passes it to `sink`, in the order of arrival.
    ///
    /// # Errors
    /// Those of `sink`, an engine that broke, no memory, a drive that hangs, or [`Kind::Interrupted`]. Bytes that cannot be read are no error.
    pub fn run<T>(
        &self,
        loads: impl Iterator<Item = Load<T>>,
        sink: impl FnMut(Arrived<T>) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let pool = Pool::new(SLOTS, self.slot_len)
            .map_err(|error| Problem::new(Kind::Environment, format!("no memory for slots: {error}")))?;
        self.run_in(&pool, loads, sink)
    }

    /// As [`BlockReader::run`], with the slots of a pool that others know too.
    ///
    /// # Errors
    /// As [`BlockReader::run`].
    pub fn run_in<T>(
        &self,
        pool: &Pool,
        mut loads: impl Iterator<Item = Load<T>>,
        mut sink: impl FnMut(Arrived<T>) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let (engine, _) = self.medium.engine(pool);
        let io = BlockIo::new(engine, pool.clone(), Failures::unnamed())
            .with_workers(self.workers)
            .within(self.timeouts)
            .until(self.stop);
        let waker = io.waker();
        event_loop::run(&mut Transit {
            reader: self,
            io,
            loads: &mut loads,
            sink: &mut sink,
            outgoing: Outgoing::default(),
            waker,
            under: HashMap::new(),
            next: 0,
            ended: false,
            is_behind: false,
        })
    }
}

impl<T> Transfer for Transit<'_, T> {
    fn io(&mut self) -> &mut BlockIo {
        &mut self.io
    }

    fn advance(&mut self) -> Result<Next, Problem> {
        // Before slots that have just come back are filled: counted as filling they would let the lanes wait, and the
        // drive would soon have no slot left.
        self.io.flush_lanes(self.io.in_flight().fills >= BUSY);
        let waiting = self.io.waiting_for_lanes();
        self.top_up();
        if self.io.waiting_for_lanes() > waiting {
            // Loads of zeros alone, which need no drive.
            self.io.flush_lanes(self.io.in_flight().fills >= BUSY);
        }
        if self.under.is_empty() {
            if self.ended {
                return Ok(Next::Done);
            }
            if self.io.pool().available() > 0 {
                return Ok(Next::Again);
            }
            // Every slot is held by consumers of earlier loads: a returned one wakes the loop.
        }
        Ok(Next::Wait(if self.is_behind { Duration::ZERO } else { PROGRESS_INTERVAL }))
    }

    fn apply(&mut self, action: Action) -> Result<(), Problem> {
        match action {
            Action::Filled { tag, slot, results } => self.filled(tag, slot, results),
            Action::Digested(done) => self.digested(done),
            Action::Quiet | Action::Slow(_) => {
                self.is_behind = false;
                Ok(())
            }
            Action::Stopped => Err(self.io.failures.stopped()),
            Action::Woken | Action::Written { .. } | Action::Flushed { .. } => Ok(()),
        }
    }

    fn check(&mut self) {
        let (held, ahead) = (self.io.in_flight().fills + self.io.at_workers(), self.under.len());
        assert!(held <= ahead, "{held} loads at drive and workers, {ahead} under way");
    }
}

impl<T> Transit<'_, T> {
    /// Starts loads while slots are free and the engine has room.
    fn top_up(&mut self) {
        let oldest = self.under.keys().min().copied().unwrap_or(self.next);
        while !self.ended
            && (!self.is_behind || self.under.is_empty())
            && self.io.in_flight().fills < FILLS_MAX
            && self.next < oldest + AHEAD_MAX
        {
            let Some(slot) = self.io.pool().take() else { break };
            let asked = Instant::now();
            let Some(load) = self.loads.next() else {
                self.ended = true;
                break;
            };
            self.start(load, slot);
            // A caller that limits the rate makes the loop wait for the next load: this one, and all that arrived
            // meanwhile, go first.
            if asked.elapsed() > SLOW_LOAD {
                self.is_behind = true;
                break;
            }
        }
    }

    fn start(&mut self, load: Load<T>, mut slot: Slot) {
        for range in &load.zeros {
            slot[range.clone()].fill(0);
        }
        let tag = self.next;
        self.next += 1;
        let is_chained = is_chained(&load);
        if is_chained {
            self.outgoing.order.push_back(tag);
        }
        if load.parts.is_empty() {
            if is_chained {
                self.outgoing.ready.insert(tag, slot);
            } else {
                self.io.digest(self.job(tag, slot, &load, None));
            }
        } else {
            let parts = load.parts.iter();
            let parts = parts.map(|(into, at)| Part { into: into.clone(), from: From::Target { at: *at } });
            self.io.fill(Fill { tag, slot, parts: parts.collect() });
        }
        self.under.insert(tag, Under { load, failure: None });
        self.send_chain();
    }

    /// Gives the bytes of a load to the workers; one that could not be read goes to the sink as it is.
    fn filled(&mut self, tag: u64, slot: Slot, results: Vec<PartResult>) -> Result<(), Problem> {
        let Some(entry) = self.under.get_mut(&tag) else { return Ok(()) };
        entry.failure = results.into_iter().find_map(|result| match result {
            PartResult::Done => None,
            PartResult::Changed(what) => Some(std::io::Error::other(what)),
            PartResult::Failed(error) => Some(error),
        });
        if entry.failure.is_some() {
            self.outgoing.order.retain(|other| *other != tag);
            let (digests, span_crcs, sha256s) = Default::default();
            self.hand_on(Done { tag, slot, digests, chain: None, whole: None, crc: 0, span_crcs, sha256s })?;
            self.send_chain();
        } else if is_chained(&entry.load) {
            self.outgoing.ready.insert(tag, slot);
            self.send_chain();
        } else {
            let job = self.job(tag, slot, &self.under[&tag].load, None);
            self.io.digest(job);
        }
        Ok(())
    }

    fn send_chain(&mut self) {
        if self.outgoing.busy {
            return;
        }
        let Some(tag) = self.outgoing.order.front().copied() else { return };
        let Some(slot) = self.outgoing.ready.remove(&tag) else { return };
        let Some(entry) = self.under.get(&tag) else { return };
        self.outgoing.order.pop_front();
        self.outgoing.busy = true;
        let state = self.outgoing.state.take().filter(|_| !entry.load.begins);
        let job = self.job(tag, slot, &entry.load, state);
        self.io.digest(job);
    }

    fn digested(&mut self, mut done: Done) -> Result<(), Problem> {
        if self.under.get(&done.tag).is_some_and(|entry| is_chained(&entry.load)) {
            self.outgoing.state = done.chain.take();
            self.outgoing.busy = false;
            self.send_chain();
        }
        self.hand_on(done)
    }

    fn job(&self, tag: u64, slot: Slot, load: &Load<T>, chain: Option<Md5Chain>) -> DigestJob {
        DigestJob {
            tag,
            slot,
            len: load.len,
            spans: load.spans.clone(),
            chain,
            wholes: Vec::new(),
            whole: None,
            direction: if load.seals { CipherDirection::Seal } else { CipherDirection::Open },
            crypt: load.crypt.clone(),
            cipher: self.reader.cipher.clone(),
            sums_spans: false,
            sha256: load.sha256,
        }
    }

    fn hand_on(&mut self, done: Done) -> Result<(), Problem> {
        let Some(Under { load, failure }) = self.under.remove(&done.tag) else { return Ok(()) };
        let bytes = Held { slot: Some(done.slot), len: load.len, waker: self.waker.clone(), is_away: false };
        let Done { digests, sha256s, crc, .. } = done;
        (self.sink)(Arrived { what: load.what, bytes, digests, sha256s, crc, failure })
    }
}

fn is_chained<T>(load: &Load<T>) -> bool {
    load.spans.iter().any(|span| matches!(span.how, How::Chain { .. }))
}

/// Divides `len` bytes into pieces the size of a load: start and length.
pub fn cut<At: Offset>(len: ByteLen) -> impl Iterator<Item = (At, usize)> {
    (0..len.0).step_by(SLOT_LEN).map(move |at| (At::from_bytes(at), (len.0 - at).min(SLOT_LEN as u64) as usize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sim::SimDisk;
    use crate::units::SectorSize;

    /// A consumer that holds every slot stops the reader, and starts it again by releasing one.
    #[test]
    fn slots_that_were_kept_come_back() {
        let len = ByteLen(40 * SLOT_LEN as u64 + 512);
        let disk = SimDisk::new(len, SectorSize::S512, 3);
        disk.plant(DeviceOffset(0), b"first");
        let workers = Workers::start(2).expect("threads");
        let stop = Stop::new();
        let timeouts = Timeouts::default();
        let road =
            BlockReader { medium: &disk, cipher: None, workers: &workers, stop: &stop, slot_len: SLOT_LEN, timeouts };
        let loads = cut(len).map(|(at, part)| {
            let mut load = Load::new(at);
            load.len = part;
            load.parts.push((0..part, at));
            load
        });
        let (keep, kept) = crossbeam_channel::unbounded::<(DeviceOffset, Held)>();
        let keeper = std::thread::spawn(move || {
            let (mut all, mut seen) = (Vec::new(), 0);
            for (at, bytes) in kept {
                assert!(at.0 > 0 || bytes.starts_with(b"first"));
                seen += bytes.len();
                all.push(bytes);
                if all.len() == SLOTS {
                    all.clear();
                }
            }
            seen
        });
        let sent = road.run(loads, |arrived| {
            let _ = keep.send((arrived.what, arrived.bytes.away()));
            Ok(())
        });
        drop(keep);
        assert!(sent.is_ok(), "{sent:?}");
        assert_eq!(keeper.join().expect("no panic") as u64, len.0);
    }
}
