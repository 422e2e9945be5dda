//! The one loop of everything that moves blocks: preparing, appending, reading, wiping, measuring, images.
//!
//! A [`Transfer`] starts operations of its [`BlockIo`], and takes each [`Action`] that comes of them: a slot that was
//! filled, hashed or written, a flush, a request to stop. [`run`] turns the loop until the transfer is done. What all
//! have in common is here: draining after a failure, a device that hangs, an engine that broke, and the check that every
//! action belongs to an operation that was started.

use std::time::{Duration, Instant};

use super::failures::Failures;
use super::timeouts::{SlowWatch, Timeouts};
use super::workers::{DigestJob, Done, LaneBatcher, Workers};
use crate::io::{self, Completion, Engine, Fill, PartResult, WriteError};
use crate::pool::{Pool, Slot};
use crate::report::{Event, PROGRESS_INTERVAL, Problem, Stop};
use crate::units::{ByteLen, DeviceOffset};

/// Pause before a pool is looked at again whose slots others have.
const LENT: Duration = Duration::from_millis(1);

/// What happened to an operation, or to the transfer.
#[derive(Debug)]
pub enum Action {
    /// A slot was filled; `results` has one entry a part.
    Filled {
        /// The transfer's name for the operation.
        tag: u64,
        /// The slot given.
        slot: Slot,
        /// One entry a part.
        results: Vec<PartResult>,
    },
    /// The workers processed a slot.
    Digested(Done),
    /// A write was acknowledged, or failed.
    Written {
        /// The transfer's name for the operation.
        tag: u64,
        /// The slot given, unchanged.
        slot: Slot,
        /// Complete, or the error with its position.
        result: Result<(), WriteError>,
    },
    /// All writes given before the flush are durable, or it failed.
    Flushed {
        /// The transfer's name for the operation.
        tag: u64,
        /// Result of the kernel.
        result: std::io::Result<()>,
    },
    /// Another thread has something for the transfer.
    Woken,
    /// Nothing happened for as long as the transfer was willing to wait.
    Quiet,
    /// The device is slow: a warning for the user.
    Slow(Event),
    /// A stop was requested. It comes once.
    Stopped,
}

/// What the loop does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Waits for an action, at most this long.
    Wait(Duration),
    /// Asks the transfer again.
    Again,
    /// Ends.
    Done,
}

/// A kind of transfer: what it starts, and what follows from each action.
pub trait Transfer {
    /// Its engine, slots and workers.
    fn io(&mut self) -> &mut BlockIo;

    /// Starts what can be started now.
    ///
    /// # Errors
    /// The failure that ends the transfer.
    fn advance(&mut self) -> Result<Next, Problem>;

    /// Takes an action.
    ///
    /// # Errors
    /// The failure that ends the transfer.
    fn apply(&mut self, action: Action) -> Result<(), Problem>;

    /// Time that the loop waited for an action.
    fn waited(&mut self, _: Duration) {}

    /// Invariants that hold behind each action; they are looked at where assertions are compiled.
    fn check(&mut self) {}
}

/// Turns the loop until the transfer is done. After a failure, operations under way are drained, so that slots live as
/// long as the kernel uses them.
///
/// # Errors
/// Those of the transfer; a device that hangs, or an engine that broke.
pub fn run(transfer: &mut impl Transfer) -> Result<(), Problem> {
    let result = turn(transfer);
    if result.is_err()
        && let Some(warning) = transfer.io().drain()
    {
        // The failure that is returned came first.
        let _ = transfer.apply(Action::Slow(warning));
    }
    result
}

fn turn(transfer: &mut impl Transfer) -> Result<(), Problem> {
    let mut is_stopped = false;
    loop {
        if !is_stopped && transfer.io().is_stopping() {
            is_stopped = true;
            transfer.apply(Action::Stopped)?;
        }
        let next = transfer.advance()?;
        checked(transfer);
        let longest = match next {
            Next::Done => return Ok(()),
            Next::Again => Duration::ZERO,
            Next::Wait(longest) => longest,
        };
        if digest(transfer)? || next == Next::Again {
            continue;
        }
        let since = Instant::now();
        let completion = transfer.io().engine.wait(Some(longest));
        transfer.waited(since.elapsed());
        let action = transfer.io().action(completion)?;
        transfer.apply(action)?;
        checked(transfer);
    }
}

/// Takes what the workers have ready; whether that was anything.
fn digest(transfer: &mut impl Transfer) -> Result<bool, Problem> {
    let mut any = false;
    while let Some(done) = transfer.io().lanes.as_mut().and_then(LaneBatcher::complete) {
        if !any {
            // What follows from a digest may take long.
            transfer.io().engine.submit();
        }
        any = true;
        transfer.apply(Action::Digested(done))?;
        checked(transfer);
    }
    Ok(any)
}

fn checked(transfer: &mut impl Transfer) {
    if cfg!(debug_assertions) {
        transfer.io().check();
        transfer.check();
    }
}

/// Operations of one kind that were started and have not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InFlight {
    /// Slots being filled.
    pub fills: usize,
    /// Slots being written.
    pub writes: usize,
    /// Flushes.
    pub flushes: usize,
}

/// A drive's engine, slots and connection to the workers.
#[derive(Debug)]
pub struct BlockIo {
    engine: Box<dyn Engine + Send>,
    pool: Pool,
    lanes: Option<LaneBatcher>,
    in_flight: InFlight,
    /// Operations that were started by [`Self::put`] and [`Self::settle`], which need no names of their own.
    puts: u64,
    /// Slots that only [`Self::put`] gets: `kept` of them, when none of them is being written.
    own: Vec<Slot>,
    kept: usize,
    /// Told when a slot of [`Self::put_slot`] is free.
    freed: Option<io::Waker>,
    /// How failures of the drive are described.
    pub failures: Failures,
    timeouts: Timeouts,
    slow: SlowWatch,
    stop: Option<Stop>,
}

impl BlockIo {
    /// An engine with the slots that it knows. No workers, no requests to stop, the default time limits.
    pub fn new(engine: Box<dyn Engine + Send>, pool: Pool, failures: Failures) -> Self {
        let timeouts = Timeouts::default();
        let slow = SlowWatch::new(timeouts);
        let in_flight = InFlight::default();
        Self {
            engine,
            pool,
            lanes: None,
            in_flight,
            puts: 0,
            own: Vec::new(),
            kept: 0,
            freed: None,
            failures,
            timeouts,
            slow,
            stop: None,
        }
    }

    /// Connects it to the workers.
    pub fn with_workers(mut self, workers: &Workers) -> Self {
        self.connect(workers);
        self
    }

    /// As [`Self::with_workers`], for one that is in use.
    pub fn connect(&mut self, workers: &Workers) {
        self.lanes = Some(workers.lane_batcher(self.engine.waker()));
    }

    /// Stops on request.
    pub fn until(self, stop: &Stop) -> Self {
        Self { stop: Some(stop.clone()), ..self }
    }

    /// Gives a device up by these limits.
    pub fn within(self, timeouts: Timeouts) -> Self {
        Self { timeouts, slow: SlowWatch::new(timeouts), ..self }
    }

    /// The slots.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Name of the engine.
    pub fn engine_name(&self) -> &'static str {
        self.engine.name()
    }

    /// Wakes the loop.
    pub fn waker(&self) -> io::Waker {
        self.engine.waker()
    }

    /// Operations that were started and have not ended.
    pub fn in_flight(&self) -> InFlight {
        self.in_flight
    }

    /// The same of all kinds.
    pub fn ops_in_flight(&self) -> usize {
        let InFlight { fills, writes, flushes } = self.in_flight;
        fills + writes + flushes
    }

    /// Whether the engine has nothing to do.
    pub fn is_idle(&self) -> bool {
        self.in_flight == InFlight::default()
    }

    /// Slots at the workers.
    pub fn at_workers(&self) -> usize {
        self.lanes.as_ref().map_or(0, LaneBatcher::away)
    }

    /// Slots that wait for full lanes.
    pub fn waiting_for_lanes(&self) -> usize {
        self.lanes.as_ref().map_or(0, LaneBatcher::waiting)
    }

    /// Whether a stop was requested.
    pub fn is_stopping(&self) -> bool {
        self.stop.as_ref().is_some_and(Stop::requested)
    }

    /// Starts filling a slot.
    pub fn fill(&mut self, fill: Fill) {
        self.in_flight.fills += 1;
        self.engine.fill(fill);
    }

    /// Starts writing the first `len` bytes of the slot; whole sectors.
    pub fn write(&mut self, tag: u64, slot: Slot, len: usize, at: DeviceOffset) {
        self.in_flight.writes += 1;
        self.engine.write(tag, slot, len, at);
    }

    /// Starts making all writes given so far durable.
    pub fn flush(&mut self, tag: u64) {
        self.in_flight.flushes += 1;
        self.engine.flush(tag);
    }

    /// Submits what was started without waiting; useful before a long computation.
    pub fn submit(&mut self) {
        self.engine.submit();
    }

    /// Gives a slot to the workers. [`Self::flush_lanes`] must follow before the loop waits.
    ///
    /// # Panics
    /// It has no workers.
    pub fn digest(&mut self, job: DigestJob) {
        self.lanes.as_mut().expect("connected to workers").push(job);
    }

    /// Sends slots that wait for full lanes, unless the drive is kept busy without them.
    pub fn flush_lanes(&mut self, drive_is_busy: bool) {
        if let Some(lanes) = &mut self.lanes {
            lanes.flush(drive_is_busy);
        }
    }

    /// Starts writing `bytes`, whole sectors, through slots of the pool. Writes started earlier may land later.
    ///
    /// # Errors
    /// An earlier write that failed.
    pub fn put(&mut self, at: DeviceOffset, bytes: &[u8], events: &dyn Fn(Event)) -> Result<(), Problem> {
        let slot_len = self.pool.slot_len();
        for (i, part) in bytes.chunks(slot_len).enumerate() {
            let mut slot = loop {
                match self.own.pop().or_else(|| self.pool.take()) {
                    Some(slot) => break slot,
                    None if self.is_idle() => std::thread::sleep(LENT),
                    None => self.wait_for_one(events)?,
                }
            };
            slot[..part.len()].copy_from_slice(part);
            self.puts += 1;
            self.write(self.puts, slot, part.len(), at + ByteLen((i * slot_len) as u64));
        }
        Ok(())
    }

    /// Starts writing the first `len` bytes of a slot, whole sectors; `freed` is told when the slot is free.
    pub fn put_slot(&mut self, at: DeviceOffset, slot: Slot, len: usize, freed: &io::Waker) {
        self.freed = Some(freed.clone());
        self.puts += 1;
        self.write(self.puts, slot, len, at);
    }

    /// Keeps this many slots for [`Self::put`], so that it never waits for one that another user of the pool has.
    ///
    /// # Errors
    /// An earlier write that failed.
    pub fn keep(&mut self, slots: usize, events: &dyn Fn(Event)) -> Result<(), Problem> {
        self.kept = slots;
        self.own.truncate(slots);
        while self.own.len() < slots {
            match self.pool.take() {
                Some(slot) => self.own.push(slot),
                None if self.is_idle() => std::thread::sleep(LENT),
                None => self.wait_for_one(events)?,
            }
        }
        Ok(())
    }

    /// Waits for one write or flush; whether any was under way.
    ///
    /// # Errors
    /// The one that failed.
    pub fn reap(&mut self, events: &dyn Fn(Event)) -> Result<bool, Problem> {
        let is_busy = !self.is_idle();
        if is_busy {
            self.wait_for_one(events)?;
        }
        Ok(is_busy)
    }

    /// Waits for all writes, and makes them durable.
    ///
    /// # Errors
    /// The write or flush that failed.
    pub fn settle(&mut self, events: &dyn Fn(Event)) -> Result<(), Problem> {
        let all = usize::MAX;
        run(&mut Settling { io: self, events, left: all })?;
        self.puts += 1;
        self.flush(self.puts);
        run(&mut Settling { io: self, events, left: all })
    }

    fn wait_for_one(&mut self, events: &dyn Fn(Event)) -> Result<(), Problem> {
        run(&mut Settling { io: self, events, left: 1 })
    }

    /// Waits for operations under way, whatever comes of them. A device that does not answer is not waited for: the
    /// engine keeps its slots until the kernel lets go of them, and the user is told.
    fn drain(&mut self) -> Option<Event> {
        let longest = io::DRAIN_MAX.min(self.timeouts.hung);
        let began = Instant::now();
        while self.engine.in_flight() > 0 && began.elapsed() < longest {
            if self.engine.oldest().is_some_and(|age| age >= self.timeouts.slow) {
                let what = format!(
                    "waiting up to {} s for what the device still has in hand; the program ends when the kernel lets \
                     go of it",
                    io::DRAIN_MAX.as_secs()
                );
                return Some(Event::Warning(self.failures.notice(what)));
            }
            let completion = self.engine.wait(Some(PROGRESS_INTERVAL));
            self.count(&completion);
            if matches!(completion, Completion::Broken(_)) {
                break;
            }
        }
        None
    }

    /// Looks at the age of the oldest operation: the warning that is due, if one is.
    ///
    /// # Errors
    /// The device does not answer at all, and is given up.
    pub fn look_at_age(&mut self) -> Result<Option<Event>, Problem> {
        let oldest = self.engine.oldest().unwrap_or_default();
        let look = self.slow.look(oldest, self.is_stopping()).map_err(|age| self.failures.hung(age))?;
        Ok(look.map(|what| Event::Warning(self.failures.notice(what))))
    }

    fn count(&mut self, completion: &Completion) {
        match completion {
            Completion::Filled { .. } => self.in_flight.fills -= 1,
            Completion::Written { .. } => self.in_flight.writes -= 1,
            Completion::Flushed { .. } => self.in_flight.flushes -= 1,
            Completion::Woken | Completion::TimedOut | Completion::Broken(_) => {}
        }
    }

    fn action(&mut self, completion: Completion) -> Result<Action, Problem> {
        self.count(&completion);
        Ok(match completion {
            Completion::Filled { tag, slot, results } => Action::Filled { tag, slot, results },
            Completion::Written { tag, slot, result } => Action::Written { tag, slot, result },
            Completion::Flushed { tag, result } => Action::Flushed { tag, result },
            Completion::Woken => Action::Woken,
            Completion::TimedOut => self.look_at_age()?.map_or(Action::Quiet, Action::Slow),
            Completion::Broken(error) => return Err(self.failures.broken(&error)),
        })
    }

    /// The engine and this side agree on what is in flight.
    fn check(&self) {
        assert_eq!(self.ops_in_flight(), self.engine.in_flight(), "operations in flight: {:?}", self.in_flight);
    }
}

/// Waits, with nothing new to start.
struct Settling<'a> {
    io: &'a mut BlockIo,
    events: &'a dyn Fn(Event),
    /// Writes and flushes to wait for, or fewer if there are no more.
    left: usize,
}

impl Transfer for Settling<'_> {
    fn io(&mut self) -> &mut BlockIo {
        self.io
    }

    fn advance(&mut self) -> Result<Next, Problem> {
        let is_over = self.left == 0 || self.io.is_idle();
        Ok(if is_over { Next::Done } else { Next::Wait(PROGRESS_INTERVAL) })
    }

    fn apply(&mut self, action: Action) -> Result<(), Problem> {
        match action {
            Action::Written { slot, result, .. } => {
                self.left -= 1;
                if self.io.own.len() < self.io.kept {
                    self.io.own.push(slot);
                } else {
                    drop(slot);
                    self.io.freed.iter().for_each(io::Waker::wake);
                }
                result.map_err(|error| self.io.failures.write(&error, None))
            }
            Action::Flushed { result, .. } => {
                self.left -= 1;
                result.map_err(|error| self.io.failures.flush(&error))
            }
            Action::Slow(warning) => {
                (self.events)(warning);
                Ok(())
            }
            // What is begun is brought to its end.
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::io::sim::{Faults, SimDisk};
    use crate::io::{From, Part, Waker};
    use crate::pool::SLOT_LEN;
    use crate::report::Kind;
    use crate::stream::workers::{CipherDirection, How, Span};
    use crate::units::{ByteLen, SectorSize};

    /// An engine that returns what it was given beforehand, whatever is started.
    #[derive(Debug, Default)]
    struct Scripted {
        completions: VecDeque<Completion>,
        in_flight: usize,
    }

    impl Engine for Scripted {
        fn fill(&mut self, _: Fill) {
            self.in_flight += 1;
        }

        fn write(&mut self, _: u64, _: Slot, _: usize, _: DeviceOffset) {
            self.in_flight += 1;
        }

        fn flush(&mut self, _: u64) {
            self.in_flight += 1;
        }

        fn wait(&mut self, _: Option<Duration>) -> Completion {
            let completion = self.completions.pop_front().unwrap_or(Completion::TimedOut);
            let ends = !matches!(completion, Completion::Woken | Completion::TimedOut | Completion::Broken(_));
            self.in_flight -= usize::from(ends);
            completion
        }

        fn waker(&self) -> Waker {
            Waker::none()
        }

        fn in_flight(&self) -> usize {
            self.in_flight
        }

        fn oldest(&self) -> Option<Duration> {
            None
        }

        fn name(&self) -> &'static str {
            "scripted"
        }
    }

    /// Reads a slot, hashes it, writes it to another place, makes it durable; notes what happens.
    struct Move {
        io: BlockIo,
        from: u64,
        to: u64,
        started: bool,
        flushed: bool,
        seen: Vec<String>,
    }

    impl Move {
        fn new(io: BlockIo) -> Self {
            Self { io, from: 0, to: 1 << 20, started: false, flushed: false, seen: Vec::new() }
        }
    }

    impl Transfer for Move {
        fn io(&mut self) -> &mut BlockIo {
            &mut self.io
        }

        fn advance(&mut self) -> Result<Next, Problem> {
            if !self.started {
                self.started = true;
                let slot = self.io.pool().take().expect("a slot");
                let parts = vec![Part { into: 0..4096, from: From::Target { at: DeviceOffset(self.from) } }];
                self.io.fill(Fill { tag: 1, slot, parts });
            }
            self.io.flush_lanes(false);
            Ok(if self.flushed { Next::Done } else { Next::Wait(Duration::from_millis(10)) })
        }

        fn apply(&mut self, action: Action) -> Result<(), Problem> {
            match action {
                Action::Filled { tag, slot, results } => {
                    self.seen.push(format!("filled {tag}, {}", results.len()));
                    let spans = vec![Span { range: 0..4096, how: How::Block }];
                    self.io.digest(DigestJob {
                        tag: 2,
                        slot,
                        len: 4096,
                        spans,
                        chain: None,
                        wholes: Vec::new(),
                        whole: None,
                        direction: CipherDirection::Seal,
                        crypt: Vec::new(),
                        cipher: None,
                        sums_spans: false,
                        sha256: false,
                    });
                }
                Action::Digested(done) => {
                    self.seen.push(format!("digested {}, {}", done.tag, done.digests.len()));
                    self.io.write(3, done.slot, 4096, DeviceOffset(self.to));
                }
                Action::Written { tag, result, .. } => {
                    result.map_err(|error| self.io.failures.write(&error, None))?;
                    self.seen.push(format!("written {tag}"));
                    self.io.flush(4);
                }
                Action::Flushed { tag, result } => {
                    result.map_err(|error| self.io.failures.flush(&error))?;
                    self.seen.push(format!("flushed {tag}"));
                    self.flushed = true;
                }
                Action::Slow(_) => self.seen.push("slow".into()),
                Action::Stopped => {
                    self.seen.push("stopped".into());
                    return Err(self.io.failures.stopped());
                }
                Action::Woken | Action::Quiet => {}
            }
            Ok(())
        }
    }

    fn disk() -> SimDisk {
        SimDisk::new(ByteLen(4 << 20), SectorSize::S512, 1)
    }

    fn io(engine: impl Engine + Send + 'static) -> BlockIo {
        let pool = Pool::new(2, SLOT_LEN).expect("slots");
        BlockIo::new(Box::new(engine), pool, Failures::of("sim", None))
    }

    #[test]
    fn a_slot_passes_every_stage_in_order() {
        let (disk, workers) = (disk(), Workers::start(1).expect("a thread"));
        disk.plant(DeviceOffset(0), b"a block");
        let mut transfer = Move::new(io(disk.engine()).with_workers(&workers));
        run(&mut transfer).expect("no faults");
        assert_eq!(transfer.seen, ["filled 1, 1", "digested 2, 1", "written 3", "flushed 4"]);
        assert!(transfer.io.is_idle() && transfer.io.pool().available() == 2, "every slot is back");
        let mut there = [0; 7];
        disk.read_at(DeviceOffset(1 << 20), &mut there);
        assert_eq!(&there, b"a block");
    }

    #[test]
    fn a_failure_drains_what_is_under_way() {
        let (disk, workers) = (disk(), Workers::start(1).expect("a thread"));
        disk.set_faults(Faults {
            write_errors: vec![crate::units::DeviceRange::new(1 << 20, 512)],
            ..Faults::default()
        });
        let mut transfer = Move::new(io(disk.engine()).with_workers(&workers));
        let problem = run(&mut transfer).expect_err("a bad place");
        assert_eq!(problem.place.drive.as_deref(), Some("sim"));
        assert_eq!(problem.place.at, Some(DeviceOffset(1 << 20)));
        assert!(transfer.io.is_idle() && transfer.io.pool().available() == 2);
    }

    #[test]
    fn a_device_that_hangs_is_reported_and_given_up() {
        let (disk, workers) = (disk(), Workers::start(1).expect("a thread"));
        disk.set_faults(Faults { hang_at: Some(1), ..Faults::default() });
        let limits = Timeouts { slow: Duration::from_millis(30), hung: Duration::from_millis(400) };
        let mut transfer = Move::new(io(disk.engine()).with_workers(&workers).within(limits));
        let problem = run(&mut transfer).expect_err("it hangs");
        assert!(problem.what.contains("does not answer"), "{problem}");
        assert!(transfer.seen.iter().any(|seen| seen == "slow"), "{:?}", transfer.seen);
    }

    #[test]
    fn a_stop_comes_once_and_before_anything_else() {
        let stop = Stop::new();
        stop.request();
        let mut transfer = Move::new(io(disk().engine()).until(&stop));
        assert_eq!(run(&mut transfer).expect_err("a stop").kind, Kind::Interrupted);
        assert_eq!(transfer.seen, ["stopped"]);
    }

    #[test]
    fn an_engine_that_broke_ends_the_transfer() {
        let completions = [Completion::Woken, Completion::Broken(std::io::Error::other("the ring is gone"))];
        let mut transfer = Move::new(io(Scripted { completions: completions.into(), in_flight: 0 }));
        let problem = run(&mut transfer).expect_err("no engine");
        assert_eq!(problem.kind, Kind::Environment);
        assert!(problem.what.contains("the ring is gone"), "{problem}");
    }

    #[test]
    #[should_panic(expected = "operations in flight")]
    fn an_operation_that_ended_twice_is_noticed() {
        let pool = Pool::new(1, 4096).expect("a slot");
        let written = |slot| Completion::Written { tag: 9, slot, result: Ok(()) };
        let scripted = Scripted { completions: [written(pool.take().expect("a slot"))].into(), in_flight: 1 };
        // A write that this side never started.
        let _ = run(&mut Move::new(io(scripted)));
    }
}
