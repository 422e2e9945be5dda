//! The plain engine: a few threads with ordinary system calls. Works everywhere, and is the reference for the ring.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::{
    Completion, Engine, Fill, From, Moved, Options, Part, PartResult, Target, Waker, WriteError, check_fill,
    ended_early, files, settle,
};
use crate::pool::Slot;
use crate::units::{ByteLen, DeviceOffset};

/// Plain `pread`, `pwrite` and `fsync` on a few threads, so that reading, writing and flushing overlap.
pub struct Sync {
    /// `None` only while dropping: closing the channel ends the threads.
    jobs: Option<Sender<(u64, TargetOp)>>,
    ended: Receiver<Ended>,
    waker: Waker,
    woken: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// Number of the next operation.
    next: u64,
    started: BTreeMap<u64, Instant>,
    /// Writes under way: a flush waits for those before it.
    writes: BTreeSet<u64>,
    flushes: VecDeque<(u64, u64)>,
}

enum TargetOp {
    Fill(Fill),
    Write { tag: u64, slot: Slot, len: usize, at: DeviceOffset },
    Flush { tag: u64 },
}

enum Ended {
    Operation(u64, Completion),
    Woken,
}

impl std::fmt::Debug for Sync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sync").field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}

impl Sync {
    /// Starts the threads.
    pub fn new(target: Target, options: Options) -> Self {
        let options = options.clamped();
        let (jobs, todo) = unbounded::<(u64, TargetOp)>();
        let (done, ended) = unbounded();
        let threads = (0..options.threads)
            .map(|_| {
                let (todo, done, target) = (todo.clone(), done.clone(), target.clone());
                std::thread::spawn(move || {
                    for (number, job) in todo {
                        // The engine has been dropped: the result is unused, and the slot returns to its pool.
                        if done.send(Ended::Operation(number, run(&target, job))).is_err() {
                            return;
                        }
                    }
                })
            })
            .collect();
        let woken = Arc::new(AtomicBool::new(false));
        let waker = {
            let woken = Arc::clone(&woken);
            Waker::new(move || {
                if !woken.swap(true, Ordering::AcqRel) {
                    let _ = done.send(Ended::Woken);
                }
            })
        };
        Self {
            jobs: Some(jobs),
            ended,
            waker,
            woken,
            threads,
            next: 0,
            started: BTreeMap::new(),
            writes: BTreeSet::new(),
            flushes: VecDeque::new(),
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.started.insert(self.next, Instant::now());
        self.next
    }

    fn send(&self, number: u64, job: TargetOp) {
        let jobs = self.jobs.as_ref().expect("only dropping takes the sender");
        assert!(jobs.send((number, job)).is_ok(), "the threads of the engine are gone");
    }

    /// Starts the flushes that no earlier write holds back.
    fn release_flushes(&mut self) {
        while let Some(&(number, tag)) = self.flushes.front() {
            if self.writes.first().is_some_and(|write| *write < number) {
                return;
            }
            self.flushes.pop_front();
            self.send(number, TargetOp::Flush { tag });
        }
    }
}

impl Engine for Sync {
    fn fill(&mut self, fill: Fill) {
        check_fill(&fill);
        let number = self.number();
        self.send(number, TargetOp::Fill(fill));
    }

    fn write(&mut self, tag: u64, slot: Slot, len: usize, at: DeviceOffset) {
        assert!(len <= slot.len(), "a write longer than its slot");
        let number = self.number();
        self.writes.insert(number);
        self.send(number, TargetOp::Write { tag, slot, len, at });
    }

    fn flush(&mut self, tag: u64) {
        let number = self.number();
        self.flushes.push_back((number, tag));
        self.release_flushes();
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Completion {
        let ended = match timeout {
            None => self.ended.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(timeout) => self.ended.recv_timeout(timeout),
        };
        match ended {
            Ok(Ended::Operation(number, completion)) => {
                self.started.remove(&number);
                if self.writes.remove(&number) {
                    self.release_flushes();
                }
                completion
            }
            Ok(Ended::Woken) => {
                // Cleared before the caller examines the reason for the wake, so that no later call is lost.
                self.woken.store(false, Ordering::Release);
                Completion::Woken
            }
            Err(RecvTimeoutError::Timeout) => Completion::TimedOut,
            Err(RecvTimeoutError::Disconnected) => {
                Completion::Broken(io::Error::other("the threads of the engine are gone"))
            }
        }
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn in_flight(&self) -> usize {
        self.started.len()
    }

    fn oldest(&self) -> Option<Duration> {
        self.started.values().next().map(Instant::elapsed)
    }

    fn name(&self) -> &'static str {
        "system calls"
    }
}

impl Drop for Sync {
    fn drop(&mut self) {
        self.jobs = None;
        let deadline = Instant::now() + super::DRAIN_MAX;
        for thread in self.threads.drain(..) {
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            // A thread that hangs in the kernel keeps its slot, and so the mapping, to itself.
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

fn run(target: &Target, job: TargetOp) -> Completion {
    match job {
        TargetOp::Fill(Fill { tag, mut slot, parts }) => {
            let read = |at: DeviceOffset, bytes: &mut [u8]| read_target(target, at, bytes);
            let results = parts.iter().map(|part| fill_part(&read, &mut slot, part)).collect();
            Completion::Filled { tag, slot, results }
        }
        TargetOp::Write { tag, slot, len, at } => {
            let result = write_all(target, &slot[..len], at);
            Completion::Written { tag, slot, result }
        }
        TargetOp::Flush { tag } => Completion::Flushed { tag, result: target.file.sync_all() },
    }
}

fn write_all(target: &Target, bytes: &[u8], at: DeviceOffset) -> Result<(), WriteError> {
    let (mut done, mut tries) = (0, 0);
    while done < bytes.len() {
        let offset = at.0 + done as u64;
        let outcome = target.file.write_at(&bytes[done..], offset);
        let source = match settle(outcome, bytes.len() - done, target.align, &mut tries) {
            Moved::All => return Ok(()),
            Moved::Rest(moved) => {
                done += moved;
                continue;
            }
            Moved::Again => continue,
            Moved::Nothing => io::ErrorKind::WriteZero.into(),
            Moved::Error(error) => error,
        };
        return Err(WriteError { at: DeviceOffset(offset), done: ByteLen(done as u64), source });
    }
    Ok(())
}

/// Fills one part; `read_target` reads from the target, which need not be a file.
pub(super) fn fill_part(
    read_target: &dyn Fn(DeviceOffset, &mut [u8]) -> PartResult,
    slot: &mut [u8],
    part: &Part,
) -> PartResult {
    let bytes = &mut slot[part.into.clone()];
    match &part.from {
        From::Path { path, facts } => read_path(path, facts, bytes).unwrap_or_else(PartResult::Failed),
        From::Open { file, offset } => {
            let address = bytes.as_ptr().addr();
            read_all(bytes, 1, |done, rest| {
                let route = file.route(offset + done as u64, address + done, rest.len());
                (route.file.read_at(&mut rest[..route.len], offset + done as u64), route.len)
            })
            .unwrap_or_else(|end| end.of_file(*offset))
        }
        From::Target { at } => read_target(*at, bytes),
    }
}

fn read_target(target: &Target, at: DeviceOffset, bytes: &mut [u8]) -> PartResult {
    read_all(bytes, target.align, |done, rest| (target.file.read_at(rest, at.0 + done as u64), rest.len()))
        .unwrap_or_else(End::of_target)
}

fn read_path(path: &files::SourcePath, facts: &files::FileFacts, bytes: &mut [u8]) -> io::Result<PartResult> {
    let file: File = files::open_path(path)?;
    if let Some(change) = files::compare(&file, facts)? {
        return Ok(PartResult::Changed(change));
    }
    if facts.len != bytes.len() as u64 {
        return Ok(PartResult::Changed(format!("has {} bytes where {} were planned", facts.len, bytes.len())));
    }
    let read = read_all(bytes, 1, |done, rest| (file.read_at(rest, done as u64), rest.len()));
    if let Err(end) = read {
        return Ok(end.of_file(0));
    }
    Ok(files::compare(&file, facts)?.map_or(PartResult::Done, PartResult::Changed))
}

/// Reason why a read ended early.
enum End {
    /// End of file, after this many bytes.
    Early(u64),
    Failed(io::Error),
}

impl End {
    fn of_file(self, offset: u64) -> PartResult {
        match self {
            Self::Early(done) => ended_early(offset + done),
            Self::Failed(error) => PartResult::Failed(error),
        }
    }

    fn of_target(self) -> PartResult {
        match self {
            Self::Early(_) => PartResult::Failed(io::ErrorKind::UnexpectedEof.into()),
            Self::Failed(error) => PartResult::Failed(error),
        }
    }
}

/// Calls `read(done, rest)`, which returns the bytes read and the bytes requested, until `bytes` is full.
fn read_all(
    bytes: &mut [u8],
    align: u64,
    mut read: impl FnMut(usize, &mut [u8]) -> (io::Result<usize>, usize),
) -> Result<PartResult, End> {
    let (mut done, mut tries) = (0, 0);
    while done < bytes.len() {
        let (outcome, want) = read(done, &mut bytes[done..]);
        match settle(outcome, want, align, &mut tries) {
            Moved::All => done += want,
            Moved::Rest(moved) => done += moved,
            Moved::Again => {}
            Moved::Nothing => return Err(End::Early(done as u64)),
            Moved::Error(error) => return Err(End::Failed(error)),
        }
    }
    Ok(PartResult::Done)
}
