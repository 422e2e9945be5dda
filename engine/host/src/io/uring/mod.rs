//! The ring engine: io_uring with registered buffers and a registered target.
//!
//! Works from kernel 5.10 on; features of newer kernels (`SINGLE_ISSUER`, `DEFER_TASKRUN`, waiting with a time-out in
//! the same call) are used where available. The ring is restricted by the kernel to the opcodes that this file needs,
//! since a process that writes raw disks as root should be able to do little else.
//!
//! Not used: `SQPOLL` (its thread takes a core from hashing and sealing: fio writes 1.1 GB/s with it and 2.4 to 2.8
//! without, on two busy cores), and, untried, `IOPOLL` (needs queues that few drives have, and polls on a core too).
//! Registered files save fio nothing at 4 MiB a write, registered buffers a quarter of its processor time.
//!
//! Every operation under way has one entry in a table that owns its slot, its file and its path; its name in the kernel
//! consists of the entry's index and a generation. The table never has more entries than the submission queue, so
//! neither queue can overflow.

#![allow(unsafe_code)]

mod setup;
mod table;

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::register::Restriction;
use io_uring::squeue::Entry;
use io_uring::{IoUring, Probe, Submitter, opcode, types};

use super::{
    Completion, Cut, DRAIN_MAX, Engine, FileFacts, Fill, From, Moved, Options, Part, PartResult, Target, Waker,
    WriteError, check_fill, ended_early, files, settle,
};
use crate::pool::{Pool, Slot};
use crate::units::{ByteLen, DeviceOffset};

pub(super) use setup::Kernel;
pub use setup::NoRing;
use setup::{Registered, build, event_fd, explain};
use table::{Key, Table};

/// Opcodes that the ring is restricted to.
const OPCODES: [u8; 8] = [
    opcode::Read::CODE,
    opcode::Write::CODE,
    opcode::ReadFixed::CODE,
    opcode::WriteFixed::CODE,
    opcode::OpenAt::CODE,
    opcode::Fsync::CODE,
    opcode::Close::CODE,
    opcode::Nop::CODE,
];

/// `IORING_UNREGISTER_FILES`, for leaving.
const UNREGISTER_FILES: u8 = 3;

/// `IORING_REGISTER_BUFFERS_UPDATE`, for slots that are used for the first time.
const REGISTER_BUFFERS_UPDATE: u8 = 16;

/// `IOSQE_FIXED_FILE`, the only flag we set.
const FLAG_FIXED_FILE: u8 = 1;

/// The number 1 as an event counter takes it: eight bytes in the machine's own order.
#[expect(clippy::host_endian_bytes, reason = "the kernel's interface is in host order")]
const EVENT_ONE: [u8; 8] = 1_u64.to_ne_bytes();

/// The ring, its table of operations and the slots they own.
pub struct Uring {
    /// Closed by hand after the table was drained.
    ring: ManuallyDrop<IoUring>,
    /// Restricted rings start disabled; enabling one binds it to the thread that does.
    enabled: bool,
    /// The kernel takes a time-out in the waiting call (5.11).
    timed_wait: bool,
    target: Target,
    pool: Pool,
    registered: Registered,
    notice: Option<String>,
    ops: Table<Op>,
    fills: Table<Filling>,
    written: Table<Writing>,
    /// Reads not yet started: fill, part and bytes of the part.
    parts: VecDeque<(Key, u32, Range<usize>)>,
    /// Opens that wait for a descriptor: under way for the fill, unknown to the kernel.
    parked: VecDeque<Key>,
    /// Writes and flushes not yet started.
    writes: VecDeque<Op>,
    /// Cutting of transfers to and from the target.
    cut: Cut,
    reads_under_way: u32,
    writes_under_way: u32,
    options: Options,
    /// Submission entries pushed that the kernel has not seen.
    unsubmitted: usize,
    /// Sequence numbers of unfinished writes: a flush waits for those before it.
    write_numbers: BTreeSet<u64>,
    next_number: u64,
    done: VecDeque<Completion>,
    /// Operations given and not returned.
    given: usize,
    wake: Arc<File>,
    waker: Waker,
    /// The kernel writes the counter of `wake` here; boxed, so that its address is stable.
    wake_count: ManuallyDrop<Box<[u8; 8]>>,
    wake_armed: bool,
    broken: bool,
}

impl fmt::Debug for Uring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uring")
            .field("given", &self.given)
            .field("registered", &self.registered)
            .finish_non_exhaustive()
    }
}

struct Filling {
    tag: u64,
    slot: Slot,
    parts: Vec<Part>,
    results: Vec<Option<PartResult>>,
    missing: usize,
}

/// A write, of one request or several.
struct Writing {
    tag: u64,
    number: u64,
    slot: Slot,
    at: DeviceOffset,
    missing: usize,
    /// The failure at the lowest offset.
    error: Option<WriteError>,
}

struct Op {
    since: Instant,
    tries: u8,
    kind: Kind,
}

enum Kind {
    /// `within` is the range of the part that this request reads.
    Part {
        fill: Key,
        part: u32,
        within: Range<usize>,
        step: PartState,
    },
    /// `range` is the range of the write's slot.
    Write {
        write: Key,
        range: Range<usize>,
        done: usize,
    },
    Flush {
        tag: u64,
        number: u64,
    },
    Wake,
}

/// State of a part.
enum PartState {
    /// The path is being opened.
    Open,
    /// A small file is being read.
    Path { file: File, done: usize },
    /// A range of an open file or of the target is being read; `asked` bytes in the present request.
    Range { done: usize, asked: usize },
}

impl Uring {
    /// Sets up a ring for `target` and registers the slots of `pool`. Operations take slots of that pool only.
    ///
    /// The thread that calls `wait` or `submit` first is the only one that may use and drop the ring.
    ///
    /// # Errors
    /// [`NoRing`] with the cause in words: an old kernel, a sysctl, a container's filter, a limit.
    pub fn new(target: Target, pool: &Pool, options: Options) -> Result<Self, NoRing> {
        Self::with(target, pool, options, Kernel::Newest)
    }

    /// With the features of a kernel of the given age.
    pub(super) fn with(target: Target, pool: &Pool, options: Options, kernel: Kernel) -> Result<Self, NoRing> {
        let options = options.clamped();
        // One place more for the waker.
        let entries = options.reads + options.writes + 1;
        let ring = build(entries.next_power_of_two(), kernel)?;
        let submitter = ring.submitter();
        require_operations(&submitter)?;
        submitter
            .register_files(&[target.file.as_raw_fd()])
            .map_err(|error| explain("registering the drive", error))?;
        let (registered, notice) = register_buffers(&submitter, pool, kernel)?;
        restrict(&submitter)?;
        let wake = event_fd().map_err(|error| explain("making its waker", error))?;
        let waker = {
            let wake = Arc::clone(&wake);
            // Writing to an event counter fails only when it is full, and then it is awake already.
            Waker::new(move || drop((&*wake).write_all(&EVENT_ONE)))
        };
        Ok(Self {
            enabled: false,
            timed_wait: kernel == Kernel::Newest && ring.params().is_feature_ext_arg(),
            ring: ManuallyDrop::new(ring),
            cut: target.cut(pool.is_huge()),
            target,
            pool: pool.clone(),
            registered,
            notice,
            ops: Table::default(),
            fills: Table::default(),
            written: Table::default(),
            parts: VecDeque::new(),
            parked: VecDeque::new(),
            writes: VecDeque::new(),
            reads_under_way: 0,
            writes_under_way: 0,
            options,
            unsubmitted: 0,
            write_numbers: BTreeSet::new(),
            next_number: 0,
            done: VecDeque::new(),
            given: 0,
            wake,
            waker,
            wake_count: ManuallyDrop::new(Box::new([0; 8])),
            wake_armed: false,
            broken: false,
        })
    }

    /// A condition that costs speed, with the remedy.
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    /// Gives the kernel the operations that may start now, in the order they were given.
    fn pump(&mut self) {
        if !self.wake_armed {
            self.wake_armed = true;
            self.start(Op { since: Instant::now(), tries: 0, kind: Kind::Wake });
        }
        while self.writes_under_way < self.options.writes {
            let Some(first) = self.writes.front() else { break };
            if let Kind::Flush { number, .. } = first.kind
                && self.write_numbers.first().is_some_and(|write| *write < number)
            {
                // Later writes may overtake the flush: it does not cover them.
                let Some(next) = self.writes.iter().position(|op| matches!(op.kind, Kind::Write { .. })) else { break };
                let op = self.writes.remove(next).expect("the position was just found");
                self.writes_under_way += 1;
                self.start(op);
                continue;
            }
            let op = self.writes.pop_front().expect("the front was just seen");
            self.writes_under_way += 1;
            self.start(op);
        }
        while self.reads_under_way < self.options.reads {
            let Some((fill, part, within)) = self.parts.pop_front() else { break };
            self.reads_under_way += 1;
            self.start_part(fill, part, within);
        }
    }

    fn start_part(&mut self, fill: Key, part: u32, within: Range<usize>) {
        let filling = self.fills.get(fill).expect("a queued part has its fill");
        let step = match filling.parts[part as usize].from {
            From::Path { .. } => PartState::Open,
            From::Open { .. } | From::Target { .. } => PartState::Range { done: 0, asked: 0 },
        };
        // Nothing to read from an open file: nothing to ask.
        if matches!(step, PartState::Range { .. }) && within.is_empty() {
            self.part_done(fill, part, PartResult::Done);
            return;
        }
        self.start(Op { since: Instant::now(), tries: 0, kind: Kind::Part { fill, part, within, step } });
    }

    /// Puts an operation into the table and its entry into the submission queue.
    fn start(&mut self, op: Op) {
        let key = self.ops.insert(op);
        self.push(key);
    }

    /// Pushes the entry for the present step of the operation `key`.
    fn push(&mut self, key: Key) {
        let op = self.ops.get_mut(key).expect("only operations of the table are pushed");
        let entry = match &mut op.kind {
            Kind::Wake => {
                let at = self.wake_count.as_mut_ptr();
                opcode::Read::new(types::Fd(self.wake.as_raw_fd()), at, 8).build()
            }
            Kind::Flush { .. } => opcode::Fsync::new(types::Fixed(0)).build(),
            Kind::Write { write, range, done } => {
                let Writing { slot, at, .. } = self.written.get(*write).expect("a request under way has its write");
                let from = range.start + *done;
                let address = slot.address().wrapping_add(from).cast_const();
                let (rest, offset) = ((range.end - from) as u32, at.0 + from as u64);
                match self.registered.number(&self.ring.submitter(), slot) {
                    Some(index) => {
                        opcode::WriteFixed::new(types::Fixed(0), address, rest, index).offset(offset).build()
                    }
                    None => opcode::Write::new(types::Fixed(0), address, rest).offset(offset).build(),
                }
            }
            Kind::Part { fill, part, within, step } => {
                let filling = self.fills.get(*fill).expect("a part under way has its fill");
                let part = &filling.parts[*part as usize];
                let registered = match step {
                    PartState::Open => None,
                    _ => self.registered.number(&self.ring.submitter(), &filling.slot),
                };
                part_entry(&filling.slot, registered, part, within, step)
            }
        };
        let entry = entry.user_data(key.to_user_data());
        // SAFETY: everything the entry points to (bytes of a slot, a path, the waker's counter, open descriptors) is
        // owned by the table entry `key`, or for a part by its fill, and both stay until the completion with this name
        // was reaped; `Drop` drains the table or leaks it. `wake_count` is boxed and outlives the ring in the same way.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        // Operations under way are at most reads + writes + 1, and the queue has a place for each.
        pushed.expect("the submission queue has a place for every operation");
        self.unsubmitted += 1;
    }

    /// Enters the kernel: submits, and waits for a completion if `want`.
    fn enter(&mut self, want: bool, timeout: Option<Duration>) -> io::Result<()> {
        if !self.enabled {
            self.ring.submitter().register_enable_rings()?;
            self.enabled = true;
        }
        let wait = usize::from(want);
        let outcome = match timeout {
            _ if !want => self.ring.submit(),
            None => self.ring.submit_and_wait(wait),
            Some(timeout) if self.timed_wait => {
                let span = types::Timespec::new().sec(timeout.as_secs()).nsec(timeout.subsec_nanos());
                self.ring.submitter().submit_with_args(wait, &types::SubmitArgs::new().timespec(&span))
            }
            Some(timeout) => self.ring.submit().inspect(|_| poll_ring(self.ring.as_raw_fd(), timeout)),
        };
        self.unsubmitted = self.ring.submission().len();
        match outcome {
            Ok(_) => Ok(()),
            // Time is up, a signal, or the kernel is short of something for the moment: the caller looks again.
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Takes all available completions.
    fn reap(&mut self) -> io::Result<()> {
        loop {
            // Taken out one at a time, since settling one may push the next step.
            let Some(cqe) = self.ring.completion().next() else { return Ok(()) };
            let key = Key::from_user_data(cqe.user_data());
            let outcome = match cqe.result() {
                error if error < 0 => Err(io::Error::from_raw_os_error(-error)),
                moved => Ok(moved as usize),
            };
            self.settle(key, outcome)?;
        }
    }

    /// Compares one completion with the request.
    fn settle(&mut self, key: Key, outcome: io::Result<usize>) -> io::Result<()> {
        let Some(op) = self.ops.get_mut(key) else {
            return Err(io::Error::other("io_uring completed an operation that was never given to it: a bug"));
        };
        let align = self.target.align;
        match &mut op.kind {
            Kind::Wake => {
                self.ops.remove(key);
                self.wake_armed = false;
                if outcome.is_ok() {
                    self.done.push_back(Completion::Woken);
                }
            }
            Kind::Flush { .. } => {
                if let Err(error) = &outcome
                    && matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
                    && op.tries < super::RETRIES_MAX
                {
                    op.tries += 1;
                    self.push(key);
                    return Ok(());
                }
                let Some(Op { kind: Kind::Flush { tag, .. }, .. }) = self.ops.remove(key) else { unreachable!() };
                self.writes_under_way -= 1;
                self.done.push_back(Completion::Flushed { tag, result: outcome.map(drop) });
            }
            Kind::Write { write, range, done } => {
                let result = match settle(outcome, range.len() - *done, align, &mut op.tries) {
                    Moved::All => Ok(()),
                    Moved::Rest(moved) => {
                        *done += moved;
                        self.push(key);
                        return Ok(());
                    }
                    Moved::Again => {
                        self.push(key);
                        return Ok(());
                    }
                    // Writing nothing moves nothing.
                    Moved::Nothing if range.len() == *done => Ok(()),
                    Moved::Nothing => Err(io::ErrorKind::WriteZero.into()),
                    Moved::Error(error) => Err(error),
                };
                let (write, failed) = (*write, range.start + *done);
                self.ops.remove(key);
                self.request_done(write, failed as u64, result);
            }
            Kind::Part { .. } => self.settle_part(key, outcome),
        }
        Ok(())
    }

    fn settle_part(&mut self, key: Key, outcome: io::Result<usize>) {
        let align = self.target.align;
        let op = self.ops.get_mut(key).expect("settle found it");
        let Op { tries, since, kind: Kind::Part { fill, part, within, step } } = op else {
            unreachable!("settle matched a part")
        };
        let (fill, part) = (*fill, *part);
        let Some(filling) = self.fills.get(fill) else { unreachable!("a part under way has its fill") };
        let meant = &filling.parts[part as usize];
        let len = within.len();

        let next = match step {
            PartState::Open => match settle_open(outcome, meant, len, (*tries, *since)) {
                Opening::Opened(file) => {
                    *step = PartState::Path { file, done: 0 };
                    *tries = 0;
                    Next::Push
                }
                Opening::Again => {
                    *tries += 1;
                    Next::Push
                }
                // Others that are open now will be closed.
                Opening::Short => Next::Park,
                Opening::Ended(result) => Next::Ended(result),
            },
            PartState::Path { file, done } => settle_path(settle(outcome, len - *done, 1, tries), file, done, meant),
            PartState::Range { done, asked } => {
                let align = if matches!(meant.from, From::Target { .. }) { align } else { 1 };
                settle_range(settle(outcome, *asked, align, tries), (done, *asked), within, meant)
            }
        };
        match next {
            Next::Push => self.push(key),
            Next::Park if self.parked.len() + 1 < self.reads_under_way as usize => self.parked.push_back(key),
            Next::Park => {
                std::thread::sleep(files::SHORTAGE_PAUSE);
                self.push(key);
            }
            Next::Ended(result) => {
                self.ops.remove(key);
                self.part_done(fill, part, result);
            }
        }
    }

    /// Records the result of a part and returns the fill after the last one.
    fn part_done(&mut self, fill: Key, part: u32, result: PartResult) {
        self.reads_under_way -= 1;
        if let Some(waiting) = self.parked.pop_front() {
            self.push(waiting);
        }
        let filling = self.fills.get_mut(fill).expect("a part under way has its fill");
        // Of a part that was read in several requests, the failed one counts.
        let before = &mut filling.results[part as usize];
        if before.as_ref().is_none_or(PartResult::is_done) {
            *before = Some(result);
        }
        filling.missing -= 1;
        if filling.missing == 0 {
            let Filling { tag, slot, results, .. } = self.fills.remove(fill).expect("it was just there");
            self.done.push_back(Completion::Filled { tag, slot, results: results.into_iter().flatten().collect() });
        }
    }

    /// Records the result of one request of a write, which failed at byte `failed` of its slot, and returns the write
    /// after the last one.
    fn request_done(&mut self, write: Key, failed: u64, result: io::Result<()>) {
        self.writes_under_way -= 1;
        let writing = self.written.get_mut(write).expect("a request under way has its write");
        if let Err(source) = result {
            let at = writing.at + ByteLen(failed);
            if writing.error.as_ref().is_none_or(|error| error.at > at) {
                writing.error = Some(WriteError { at, done: ByteLen(failed), source });
            }
        }
        writing.missing -= 1;
        if writing.missing == 0 {
            let Writing { tag, number, slot, error, .. } = self.written.remove(write).expect("it was just there");
            self.write_numbers.remove(&number);
            self.done.push_back(Completion::Written { tag, slot, result: error.map_or(Ok(()), Err) });
        }
    }

    fn fail(&mut self, error: io::Error) -> Completion {
        self.broken = true;
        Completion::Broken(error)
    }

    /// Waits for everything under way; `false` when the device did not return it in time.
    fn drain(&mut self) -> bool {
        self.parts.clear();
        self.writes.clear();
        self.waker.wake();
        let deadline = Instant::now() + DRAIN_MAX;
        loop {
            // The kernel has not been given these.
            self.parked.drain(..).for_each(|key| drop(self.ops.remove(key)));
            if self.ops.is_empty() {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.enter(true, Some(left)).is_err() || self.reap().is_err() {
                return false;
            }
            self.parts.clear();
        }
    }
}

impl Engine for Uring {
    fn fill(&mut self, fill: Fill) {
        check_fill(&fill);
        assert!(self.pool.owns(&fill.slot), "a slot of another pool");
        self.given += 1;
        let Fill { tag, slot, parts } = fill;
        if parts.is_empty() {
            self.done.push_back(Completion::Filled { tag, slot, results: Vec::new() });
            return;
        }
        let mut requests = Vec::with_capacity(parts.len());
        for (i, part) in parts.iter().enumerate() {
            // The queue limits of the target say nothing about a source's device.
            let cut = if matches!(part.from, From::Target { .. }) { self.cut } else { Cut::NONE };
            requests.extend(cut.requests(part.into.len()).map(|within| (i as u32, within)));
        }
        let results = parts.iter().map(|_| None).collect();
        let key = self.fills.insert(Filling { tag, slot, parts, results, missing: requests.len() });
        self.parts.extend(requests.into_iter().map(|(part, within)| (key, part, within)));
        self.pump();
    }

    fn write(&mut self, tag: u64, slot: Slot, len: usize, at: DeviceOffset) {
        assert!(len <= slot.len(), "a write longer than its slot");
        assert!(self.pool.owns(&slot), "a slot of another pool");
        self.given += 1;
        self.next_number += 1;
        let number = self.next_number;
        self.write_numbers.insert(number);
        let missing = self.cut.requests(len).count();
        let write = self.written.insert(Writing { tag, number, slot, at, missing, error: None });
        self.writes.extend(self.cut.requests(len).map(|range| {
            let kind = Kind::Write { write, range, done: 0 };
            Op { since: Instant::now(), tries: 0, kind }
        }));
        self.pump();
    }

    fn flush(&mut self, tag: u64) {
        self.given += 1;
        self.next_number += 1;
        let kind = Kind::Flush { tag, number: self.next_number };
        self.writes.push_back(Op { since: Instant::now(), tries: 0, kind });
        self.pump();
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Completion {
        if self.broken {
            return Completion::Broken(io::Error::other("io_uring failed before"));
        }
        // A time that no clock holds is as good as none.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.pump();
        let mut looked = false;
        loop {
            if !self.done.is_empty() {
                // Keep the device busy while the caller processes the completion.
                if self.unsubmitted > 0
                    && let Err(error) = self.enter(false, None)
                {
                    return self.fail(error);
                }
                let completion = self.done.pop_front().expect("it was not empty");
                if !matches!(completion, Completion::Woken) {
                    self.given -= 1;
                }
                return completion;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if looked && left.is_some_and(|left| left.is_zero()) {
                return Completion::TimedOut;
            }
            looked = true;
            if let Err(error) = self.enter(true, left).and_then(|()| self.reap()) {
                return self.fail(error);
            }
            self.pump();
        }
    }

    fn submit(&mut self) {
        self.pump();
        if self.unsubmitted > 0 && !self.broken {
            // A failure comes again at the next `wait`, which can report it.
            let _ = self.enter(false, None);
        }
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn in_flight(&self) -> usize {
        self.given
    }

    fn oldest(&self) -> Option<Duration> {
        self.ops.iter().filter(|op| !matches!(op.kind, Kind::Wake)).map(|op| op.since.elapsed()).max()
    }

    fn name(&self) -> &'static str {
        "io_uring"
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        if self.drain() {
            // The kernel tears a closed ring down later: until then it would keep the drive open, and no exclusive open
            // would succeed. A refusal costs just that.
            let _ = self.ring.submitter().unregister_files();
            // SAFETY: neither is used again, and no operation is under way that could write to the counter.
            unsafe {
                ManuallyDrop::drop(&mut self.ring);
                ManuallyDrop::drop(&mut self.wake_count);
            }
        } else {
            // The kernel may still write to these slots, read these paths and use these descriptors. The ring stays
            // open as well, so that nothing is torn down under an operation.
            std::mem::forget(std::mem::take(&mut self.ops));
            std::mem::forget(std::mem::take(&mut self.fills));
            std::mem::forget(std::mem::take(&mut self.written));
            std::mem::forget(self.target.clone());
            std::mem::forget(Arc::clone(&self.wake));
        }
    }
}

/// A read of a descriptor that is not registered, into a slot that may be.
/// Fails where the kernel lacks an operation.
fn require_operations(submitter: &Submitter<'_>) -> Result<(), NoRing> {
    let mut probe = Probe::new();
    submitter.register_probe(&mut probe).map_err(|error| explain("asking what it can do", error))?;
    match OPCODES.iter().find(|code| !probe.is_supported(**code)) {
        None => Ok(()),
        Some(missing) => Err(NoRing {
            what: format!("this kernel's io_uring lacks operation {missing}; Linux 5.10 or later is needed"),
            source: None,
        }),
    }
}

/// Registers the slots, or says why that is done without.
fn register_buffers(
    submitter: &Submitter<'_>,
    pool: &Pool,
    kernel: Kernel,
) -> Result<(Registered, Option<String>), NoRing> {
    match Registered::new(submitter, pool, kernel) {
        Ok(registered) => Ok((registered, None)),
        Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => {
            let notice = format!(
                "the limit of locked memory (ulimit -l) is below the {} of buffers; io_uring works without registered \
                 buffers, a little slower (remedy: ulimit -l unlimited, or LimitMEMLOCK=infinity)",
                ByteLen(pool.slots() as u64 * pool.slot_len() as u64)
            );
            Ok((Registered::none(pool.slots()), Some(notice)))
        }
        Err(error) => Err(explain("registering buffers", error)),
    }
}

/// Restricts the ring to what is used of it, and sees that it may be entered.
fn restrict(submitter: &Submitter<'_>) -> Result<(), NoRing> {
    let mut allowed: Vec<_> = OPCODES.iter().map(|code| Restriction::sqe_op(*code)).collect();
    allowed.push(Restriction::sqe_flags_allowed(FLAG_FIXED_FILE));
    allowed.extend([UNREGISTER_FILES, REGISTER_BUFFERS_UPDATE].map(Restriction::register_op));
    submitter.register_restrictions(&mut allowed).map_err(|error| explain("restricting it", error))?;

    // A filter may allow a ring to be created and not to be entered. Entering a disabled ring reveals that without
    // side effects.
    // SAFETY: nothing is submitted, and no signal mask is passed.
    let entered = unsafe { submitter.enter::<libc::sigset_t>(0, 0, 0, None) };
    match entered {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::ENOSYS)) => {
            Err(explain("entering it", error))
        }
        _ => Ok(()),
    }
}

/// The entry for the present step of a part.
fn part_entry(slot: &Slot, registered: Option<u16>, part: &Part, within: &Range<usize>, step: &mut PartState) -> Entry {
    let start = |done: usize| slot.address().wrapping_add(part.into.start + within.start + done);
    match (step, &part.from) {
        (PartState::Open, From::Path { path, .. }) => {
            opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_c_str().as_ptr())
                .flags(files::OPEN_FLAGS | libc::O_RDONLY)
                .build()
        }
        (PartState::Path { file, done }, _) => {
            let rest = within.len() - *done;
            read_entry(file.as_raw_fd(), registered, start(*done), rest, *done as u64)
        }
        (PartState::Range { done, asked }, From::Open { file, offset }) => {
            let offset = offset + (within.start + *done) as u64;
            let route = file.route(offset, start(*done).addr(), within.len() - *done);
            *asked = route.len;
            read_entry(route.fd(), registered, start(*done), route.len, offset)
        }
        (PartState::Range { done, asked }, From::Target { at }) => {
            *asked = within.len() - *done;
            let offset = at.0 + (within.start + *done) as u64;
            match registered {
                Some(index) => {
                    opcode::ReadFixed::new(types::Fixed(0), start(*done), *asked as u32, index).offset(offset).build()
                }
                None => opcode::Read::new(types::Fixed(0), start(*done), *asked as u32).offset(offset).build(),
            }
        }
        (PartState::Open, _) | (PartState::Range { .. }, From::Path { .. }) => {
            unreachable!("a step of another source")
        }
    }
}

/// What follows on a completion of a part.
enum Next {
    /// Its next request.
    Push,
    /// The same request, when a descriptor is free.
    Park,
    Ended(PartResult),
}

/// Outcome of opening a path.
enum Opening {
    Opened(File),
    Again,
    /// The process or the system has no descriptor left.
    Short,
    Ended(PartResult),
}

fn settle_open(outcome: io::Result<usize>, meant: &Part, len: usize, (tries, since): (u8, Instant)) -> Opening {
    match outcome {
        Ok(fd) => {
            // SAFETY: the kernel has just opened this descriptor for the ring, and nothing else uses it.
            let file = unsafe { File::from_raw_fd(fd as RawFd) };
            let From::Path { facts, .. } = &meant.from else { unreachable!("only paths are opened") };
            match opened(&file, facts, len) {
                Ok(None) if len == 0 => Opening::Ended(PartResult::Done),
                Ok(None) => Opening::Opened(file),
                Ok(Some(change)) => Opening::Ended(PartResult::Changed(change)),
                Err(error) => Opening::Ended(PartResult::Failed(error)),
            }
        }
        Err(error)
            if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
                && tries < super::RETRIES_MAX =>
        {
            Opening::Again
        }
        Err(error) if files::is_shortage(&error) && since.elapsed() < files::SHORTAGE_MAX => Opening::Short,
        Err(error) => Opening::Ended(PartResult::Failed(error)),
    }
}

fn settle_path(moved: Moved, file: &File, done: &mut usize, meant: &Part) -> Next {
    Next::Ended(match moved {
        Moved::All => {
            let From::Path { facts, .. } = &meant.from else { unreachable!("a path was opened") };
            match files::compare(file, facts) {
                Ok(None) => PartResult::Done,
                Ok(Some(change)) => PartResult::Changed(change),
                Err(error) => PartResult::Failed(error),
            }
        }
        Moved::Rest(moved) => {
            *done += moved;
            return Next::Push;
        }
        Moved::Again => return Next::Push,
        Moved::Nothing => ended_early(*done as u64),
        Moved::Error(error) => PartResult::Failed(error),
    })
}

fn settle_range(moved: Moved, (done, asked): (&mut usize, usize), within: &Range<usize>, meant: &Part) -> Next {
    Next::Ended(match moved {
        Moved::All if *done + asked == within.len() => PartResult::Done,
        moved @ (Moved::All | Moved::Rest(_)) => {
            *done += if let Moved::Rest(moved) = moved { moved } else { asked };
            return Next::Push;
        }
        Moved::Again => return Next::Push,
        Moved::Nothing => match &meant.from {
            From::Target { .. } => PartResult::Failed(io::ErrorKind::UnexpectedEof.into()),
            From::Open { offset, .. } => ended_early(offset + (within.start + *done) as u64),
            From::Path { .. } => unreachable!("a range of an open file"),
        },
        Moved::Error(error) => PartResult::Failed(error),
    })
}

fn read_entry(fd: RawFd, registered: Option<u16>, address: *mut u8, len: usize, offset: u64) -> Entry {
    match registered {
        Some(index) => opcode::ReadFixed::new(types::Fd(fd), address, len as u32, index).offset(offset).build(),
        None => opcode::Read::new(types::Fd(fd), address, len as u32).offset(offset).build(),
    }
}

/// Checks a small file before it is read: `Ok(None)` when it matches the catalog.
fn opened(file: &File, facts: &FileFacts, len: usize) -> io::Result<Option<String>> {
    if facts.len != len as u64 {
        return Ok(Some(format!("has {} bytes where {len} were planned", facts.len)));
    }
    let change = files::compare(file, facts)?;
    if change.is_none() {
        // Opened so that a pipe in the file's place does not block us; reads must block, or old kernels give EAGAIN.
        // SAFETY: changes the flags of a descriptor that we own; no memory is involved.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(change)
}

/// Waits for a completion on kernels before 5.11, whose waiting call has no time-out.
fn poll_ring(ring: RawFd, timeout: Duration) {
    let millis = i32::try_from(timeout.as_millis().max(1)).unwrap_or(i32::MAX);
    let mut poll = libc::pollfd { fd: ring, events: libc::POLLIN, revents: 0 };
    // SAFETY: one `pollfd` that lives across the call. Whatever the result, the caller looks at the queue and the
    // clock.
    let _ = unsafe { libc::poll(&mut poll, 1, millis) };
}
