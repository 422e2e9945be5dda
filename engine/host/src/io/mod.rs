//! One interface to the kernel, three engines: io_uring, plain system calls, a simulated disk.
//!
//! An [`Engine`] belongs to one thread and one target (a drive or an image file). Slots move in with an operation and
//! come back with its [`Completion`]; in between they are the kernel's. Operations are started in the order they were
//! given but finish in any order; only a flush is ordered: it covers every write given before it.
//!
//! Engines compare the kernel's result with the request: a short transfer is continued, an interrupted one repeated, a
//! transfer of nothing is an error. So a completion is complete or an error, never partial.

mod files;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod sync;
pub mod uring;

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

pub use files::{FileFacts, Regular, SourceFile, SourcePath, is_short_of_descriptors, is_shortage, shortage_advice};

use crate::pool::{Pool, Slot};
use crate::units::{ByteLen, DeviceOffset};

/// Fill a slot: every part is read into its own range.
#[derive(Debug)]
pub struct Fill {
    /// The caller's name for this operation; returned with the completion.
    pub tag: u64,
    /// The slot to fill. Bytes outside the parts keep their contents.
    pub slot: Slot,
    /// Sources of its ranges; ranges must not overlap and must lie inside the slot.
    pub parts: Vec<Part>,
}

/// One range of a slot and the source of its bytes.
#[derive(Clone, Debug)]
pub struct Part {
    /// Range of the slot. Its length is the length to read: all of it, or the part fails.
    pub into: Range<usize>,
    /// Source of the bytes.
    pub from: From,
}

/// Source of a part's bytes.
#[derive(Clone, Debug)]
pub enum From {
    /// A whole small file: opened without following a symbolic link, compared with `facts`, read, compared again.
    Path {
        /// Path of the file, opened for this part alone.
        path: Arc<SourcePath>,
        /// Facts from the catalog; a file with other facts is [`PartResult::Changed`].
        facts: FileFacts,
    },
    /// A range of a source that is open already. The caller compares [`SourceFile::facts_now`] at the end of the file.
    Open {
        /// The open file, which stays open.
        file: Arc<SourceFile>,
        /// Offset in the file.
        offset: u64,
    },
    /// A range of the target, for reading back and verifying. Offset, range start and length are multiples of the
    /// target's sector when it was opened with O_DIRECT.
    Target {
        /// Offset on the target.
        at: DeviceOffset,
    },
}

/// Result of one part of a fill.
#[derive(Debug)]
pub enum PartResult {
    /// All bytes have been read.
    Done,
    /// The file has other facts, ended early or is longer: the change in words.
    Changed(String),
    /// Error of the kernel. For a target the failing range starts at the part's offset plus the bytes read before.
    Failed(io::Error),
}

impl PartResult {
    /// Whether all bytes have been read.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }
}

/// A write that failed.
#[derive(Debug)]
pub struct WriteError {
    /// Start of the part that was not acknowledged.
    pub at: DeviceOffset,
    /// Acknowledged bytes before it.
    pub done: ByteLen,
    /// Error of the kernel; `WriteZero` when it wrote nothing without an error.
    pub source: io::Error,
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "write failed at byte {}: {}", self.at, self.source)
    }
}

impl std::error::Error for WriteError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Result of [`Engine::wait`].
#[derive(Debug)]
pub enum Completion {
    /// A fill ended. `results` has one entry a part, in the order of the parts.
    Filled {
        /// The caller's name for the operation.
        tag: u64,
        /// The slot given, filled.
        slot: Slot,
        /// One entry a part.
        results: Vec<PartResult>,
    },
    /// A write ended. It is acknowledged, not durable: that takes a flush.
    Written {
        /// The caller's name for the operation.
        tag: u64,
        /// The slot that was given, unchanged.
        slot: Slot,
        /// Complete, or the error with its position.
        result: Result<(), WriteError>,
    },
    /// A flush ended: all writes given before it, as far as they succeeded, are durable.
    ///
    /// After an error the state of every write since the last good flush is unknown: kernels report a lost page once,
    /// so a second flush that succeeds proves nothing.
    Flushed {
        /// The caller's name for the operation.
        tag: u64,
        /// Result of the kernel.
        result: io::Result<()>,
    },
    /// A [`Waker`] was used, once or several times.
    Woken,
    /// Nothing happened within the time-out.
    TimedOut,
    /// The engine itself has failed; operations in flight will not be returned.
    Broken(io::Error),
}

/// Makes a blocked [`Engine::wait`] return, from any thread.
#[derive(Clone)]
pub struct Waker(Arc<dyn Fn() + Send + Sync>);

impl Waker {
    pub(crate) fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(wake))
    }

    /// A waker without effect: for work whose end is awaited by other means.
    pub fn none() -> Self {
        Self(Arc::new(|| {}))
    }

    /// Makes the present or the next `wait` return [`Completion::Woken`]. Several calls may be merged into one.
    pub fn wake(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waker")
    }
}

/// Reads sources, reads and writes one target, by moving slots.
///
/// Dropping an engine waits for operations in flight; slots that a device holds for longer than [`DRAIN_MAX`] are
/// leaked rather than freed while the kernel uses them.
pub trait Engine: fmt::Debug {
    /// Starts filling a slot.
    ///
    /// # Panics
    /// A part exceeds the slot.
    fn fill(&mut self, fill: Fill);

    /// Starts writing the first `len` bytes of the slot to `at`. With O_DIRECT both are multiples of the sector.
    ///
    /// # Panics
    /// `len` exceeds the slot.
    fn write(&mut self, tag: u64, slot: Slot, len: usize, at: DeviceOffset);

    /// Starts making all writes given so far durable. Writes given later may run at the same time and are not covered.
    fn flush(&mut self, tag: u64);

    /// Submits the started operations and waits for one completion. Without a time-out and with nothing in flight only
    /// a [`Waker`] ends it.
    fn wait(&mut self, timeout: Option<Duration>) -> Completion;

    /// Submits the started operations without waiting; useful only before a long computation between two `wait`s.
    fn submit(&mut self) {}

    /// Ends a blocked `wait`.
    fn waker(&self) -> Waker;

    /// Operations whose completion has not been returned yet.
    fn in_flight(&self) -> usize;

    /// Age of the oldest operation given to the kernel, to detect a hung device; `None` when there is none.
    fn oldest(&self) -> Option<Duration>;

    /// `io_uring`, `system calls` or `simulated`.
    fn name(&self) -> &'static str;
}

/// Longest wait for an unresponsive device when an engine is dropped.
pub const DRAIN_MAX: Duration = Duration::from_secs(30);

/// Target of an engine.
#[derive(Clone, Debug)]
pub struct Target {
    /// The open drive or image; not written to when it was opened for reading.
    pub file: Arc<File>,
    /// Unit of transfers: the logical sector for O_DIRECT, 1 for buffered files. A short write is continued at a
    /// multiple of it.
    pub align: u64,
    /// Limits of one request to the device.
    pub requests: Requests,
}

/// Limits below which the kernel passes a request on uncut.
///
/// Requests cut here are equally long; the kernel would cut off the longest possible piece and leave a short rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Longest request in bytes; `None` when not known, or for a file.
    pub len_max: Option<u64>,
    /// Most segments of memory in one request; a segment is a page unless pages are huge.
    pub segments_max: Option<u64>,
    /// Length in bytes whose multiples suit the device, such as the stripe of an array.
    pub optimal: Option<u64>,
}

impl Target {
    /// Cutting of transfers, depending on whether the memory is in huge pages.
    fn cut(&self, huge: bool) -> Cut {
        let Requests { len_max, segments_max, optimal } = self.requests;
        let segments = segments_max.filter(|_| !huge).map(|count| count.saturating_mul(PAGE));
        let longest = len_max.into_iter().chain(segments).min().map_or(1 << 40, |len| len.max(REQUEST_MIN));
        let unit = optimal.filter(|unit| *unit <= longest && unit.is_multiple_of(PAGE)).unwrap_or(PAGE);
        Cut { longest: (longest / unit * unit) as usize, unit: unit as usize }
    }
}

/// A page of memory, and the alignment of every cut.
const PAGE: u64 = 4096;

/// Lower bound of a cut request, whatever limits a device reports.
const REQUEST_MIN: u64 = 16 << 10;

/// Parameters for cutting transfers into requests: the longest in bytes, and the unit of all but the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cut {
    longest: usize,
    unit: usize,
}

impl Cut {
    /// No cutting.
    const NONE: Self = Self { longest: usize::MAX, unit: 1 };

    /// `len` bytes in requests that are as equal as the unit allows; one request where there is nothing.
    fn requests(self, len: usize) -> impl Iterator<Item = Range<usize>> {
        let count = len.div_ceil(self.longest).max(1);
        let each = len.div_ceil(count).next_multiple_of(self.unit).max(1);
        (0..len.div_ceil(each).max(1)).map(move |i| i * each..((i + 1) * each).min(len))
    }
}

/// Operations that an engine keeps in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Parts of fills under way at once: 1 to 1024. Small files want many, large sequential reads few.
    pub reads: u32,
    /// Writes and flushes under way at once: 1 to 1024.
    pub writes: u32,
    /// Threads of the plain engine: 1 to 64.
    pub threads: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { reads: 64, writes: 32, threads: 4 }
    }
}

impl Options {
    /// Clamped to the documented bounds.
    pub(crate) fn clamped(self) -> Self {
        Self {
            reads: self.reads.clamp(1, 1024),
            writes: self.writes.clamp(1, 1024),
            threads: self.threads.clamp(1, 64),
        }
    }
}

/// The best engine that the kernel allows: io_uring, else plain system calls with a notice for the user that names the
/// cause and the remedy.
pub fn open(target: Target, pool: &Pool, options: Options) -> (Box<dyn Engine + Send>, Option<String>) {
    match uring::Uring::new(target.clone(), pool, options) {
        Ok(ring) => {
            let notice = ring.notice().map(str::to_owned);
            (Box::new(ring), notice)
        }
        Err(error) => {
            let notice = format!("{error}; working with plain system calls instead, which is slower");
            (Box::new(sync::Sync::new(target, options)), Some(notice))
        }
    }
}

/// Result of one transfer, as it affects the rest.
enum Moved {
    /// All bytes are transferred.
    All,
    /// This many bytes are transferred, and the rest must be requested.
    Rest(usize),
    /// To be repeated from the same position.
    Again,
    /// Nothing was moved: end of file for a read, refusal for a write.
    Nothing,
    /// Error of the kernel.
    Error(io::Error),
}

/// Repetitions of an interrupted or postponed transfer before it counts as an error.
const RETRIES_MAX: u8 = 100;

/// Compares the result of a transfer with the request: `want` bytes in units of `align`.
fn settle(outcome: io::Result<usize>, want: usize, align: u64, tries: &mut u8) -> Moved {
    match outcome {
        Ok(0) => Moved::Nothing,
        Ok(moved) if moved == want => Moved::All,
        Ok(moved) if moved > want => Moved::Error(io::Error::other("the kernel moved more bytes than asked for")),
        Ok(moved) => {
            // O_DIRECT continues at a whole sector only: a partial one is transferred again.
            let whole = moved - moved % (align.max(1) as usize);
            if whole > 0 {
                *tries = 0;
                return Moved::Rest(whole);
            }
            again(tries, || io::Error::new(io::ErrorKind::UnexpectedEof, "the transfer stopped inside a sector"))
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {
            again(tries, || error)
        }
        Err(error) => Moved::Error(error),
    }
}

fn again(tries: &mut u8, otherwise: impl FnOnce() -> io::Error) -> Moved {
    *tries += 1;
    if *tries > RETRIES_MAX { Moved::Error(otherwise()) } else { Moved::Again }
}

/// Programmer errors are found before the kernel sees them.
fn check_fill(fill: &Fill) {
    for part in &fill.parts {
        assert!(part.into.start <= part.into.end && part.into.end <= fill.slot.len(), "a part outside its slot");
    }
    debug_assert!(disjoint(&fill.parts), "parts of a fill overlap");
}

fn disjoint(parts: &[Part]) -> bool {
    let mut ranges: Vec<_> = parts.iter().map(|part| (part.into.start, part.into.end)).collect();
    ranges.sort_unstable();
    ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0)
}

fn ended_early(at: u64) -> PartResult {
    PartResult::Changed(format!("ends after {at} bytes, before the length that its file system reports"))
}

#[cfg(test)]
mod tests;
