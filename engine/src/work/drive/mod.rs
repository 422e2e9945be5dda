//! One drive's pipeline: feeds slots, passes them to the workers and writes them in the order of the plan.
//!
//! It formats a drive, or copies files into a volume that stays: [`DriveContent`] holds the batches to write, and
//! `format` the additional contents of a drive that is formatted.
//!
//! Batches may finish reading and sealing in any order, but are written strictly ascending. Gates separate the phases:
//! metadata waits until every file has been read (it lists no file that was left out); the last set, the volume's first
//! sector and the partition tables each wait until everything before them is durable.
//!
//! While data streams the drive is flushed from time to time, and a checkpoint is taken after each flush: `durable`.
//!
//! It is a [`Transfer`] of the one loop; its steps are in modules of their own, in the order of the data's way: `wipe`,
//! `feed`, `digest`, `write`. `watch` reports progress.

mod digest;
mod durable;
mod errors;
mod feed;
mod format;
mod watch;
mod wipe;
mod write;

pub use durable::Durable;
pub use errors::{outlook_of_copy, outlook_of_format};
pub use format::{Finished, Format, FveRegion, PlainBytes, format};

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use durable::BatchEnd;
use format::Formatting;

use crate::crypt::SectorCipher;
use crate::hash::Md5Chain;
use crate::io::SourceFile;
use crate::ntfs::build::LeftOut;
use crate::plan::batches::{Batch, Phase};
use crate::plan::tree::DriveTree;
use crate::pool::Slot;
use crate::report::{Event, PROGRESS_INTERVAL, Problem, Stage};
use crate::request::Pace;
use crate::stream::contents::FetchLine;
use crate::stream::event_loop::{self, Action, BlockIo, Next, Transfer};
use crate::stream::rate_limit::RateLimit;
use crate::stream::sources::Sources;
use crate::stream::workers::DigestJob;
use crate::units::{BatchNo, ByteLen, DeviceOffset, FileNo};
use crate::work::outcome::{BegunBlock, OutcomeLog, PropertyHashes, Replay, Sum, WholeReader};

/// Files up to this length are opened, compared, read and closed in one operation; longer ones stay open.
const SMALL_FILE_MAX: u64 = 1 << 20;

/// Slots that each drive of a session is sure of: 60 MiB, inside the budget of 64 MiB a drive.
pub const SLOTS_SURE: usize = 15;

/// Slots for the drives of a session that come first: 48 MiB of the 64 MiB of a session, since the program itself takes
/// up to 17. One drive alone takes them all; those of a session lend them to each other.
pub const SLOTS_SPARE: usize = 12;

/// Slots of a drive that is alone.
pub const SLOTS: usize = SLOTS_SURE + SLOTS_SPARE;

/// Slots between hashing and device that keep the drive busy while others wait for full lanes: 32 MiB. With 6 to 10 of
/// them a device of 2 GB/s is as fast, within the noise of some per cent.
const BUSY: usize = 8;

/// Parameters of one drive's run.
#[allow(missing_debug_implementations, reason = "holds a callback")]
pub struct Setup<'a> {
    /// Index in the session's plan.
    pub index: usize,
    /// Name of the drive in messages.
    pub name: String,
    /// Contents to write.
    pub content: DriveContent<'a>,
    /// The drive's engine, slots and connection to the shared workers.
    pub io: &'a mut BlockIo,
    /// Slots that may be filling at once.
    pub fills_max: usize,
    /// Connection to the threads that fetch what is no local file; `None`: all files are local.
    pub fetch: Option<FetchLine>,
    /// Log of hashes and of files left out; positioned at the end of `replay`.
    pub log: OutcomeLog,
    /// Durable batches of an earlier run, which are skipped.
    pub replay: Replay,
    /// Interval between flushes while data streams.
    pub pace: Pace,
    /// Saves a checkpoint.
    pub save: Save<'a>,
    /// Ranges of old signatures, to be overwritten with zeros before anything else.
    pub wipe: Vec<crate::units::DeviceRange>,
    /// Called when the old signatures are durably overwritten.
    pub once_wiped: &'a dyn Fn(),
    /// Directories and files named in the dataset: when one disappears as a whole, its files are not left out one by
    /// one.
    pub bases: Vec<PathBuf>,
    /// The directory of the journal, with checkpoints and logs.
    pub beside: PathBuf,
    /// Limit on the rate of reading sources.
    pub rate_limit: &'a RateLimit,
    /// Receives events.
    pub events: &'a (dyn Fn(Event) + Sync),
}

/// Makes a checkpoint durable.
pub type Save<'a> = Box<dyn FnMut(&Durable) -> std::io::Result<()> + Send + 'a>;

/// Files that were copied into a volume that stays; everything is durable.
#[allow(missing_debug_implementations, reason = "a value between two steps")]
pub struct Copied {
    /// Files left out, by tree index.
    pub left_out: BTreeMap<u32, String>,
    /// The files left out, with the files that set their `Content-MD5`.
    pub unwritten: LeftOut,
    /// MD5 of the metadata and properties files.
    pub property_hashes: PropertyHashes,
    /// Log with the hashes of the other files.
    pub log: OutcomeLog,
    /// Progress that includes all batches.
    pub durable: Durable,
    /// Bytes written by this run.
    pub written: ByteLen,
}

/// Copies files into a volume that stays: `setup.content` has batches of files alone.
///
/// # Errors
/// A problem that names drive, place and operation. Data in use on the volume is unchanged.
pub fn copy(setup: Setup<'_>) -> Result<Copied, Problem> {
    let durable_before: u64 = setup.replay.sums.iter().flatten().map(|sum| sum.len as u64).sum();
    let mut drive = Drive::new(setup, None);
    drive.run()?;
    let unwritten = drive.settle()?;
    let BatchEnd { offset, file, .. } = drive.durable_end;
    let outcome = drive.s.log.sync().map_err(|error| drive.sidecar(&error))?;
    Ok(Copied {
        left_out: drive.left_out,
        unwritten,
        property_hashes: drive.property_hashes,
        durable: Durable { next: BatchNo(drive.issued), end: offset, next_file: FileNo(file), outcome },
        written: ByteLen(drive.acknowledged - durable_before),
        log: drive.s.log,
    })
}

/// Contents that a drive's loop writes.
#[allow(missing_debug_implementations, reason = "holds an iterator")]
pub struct DriveContent<'a> {
    /// The files of the drive.
    pub tree: &'a DriveTree,
    /// The batches, one a slot, in the order of the drive; slots are as long as the pool's.
    pub batches: Box<dyn Iterator<Item = Batch> + 'a>,
    /// Upper bound of the bytes of all batches.
    pub total: ByteLen,
    /// Device offset of the volume: the cipher's offsets count from here.
    pub volume_start: DeviceOffset,
    /// The volume's cipher; `None` where nothing is encrypted.
    pub cipher: Option<Arc<SectorCipher>>,
}

/// A batch under way.
struct Under {
    batch: Batch,
}

/// Slots that continue one block, or one file that is hashed as a whole: only one of them is at the workers at a time.
#[derive(Default)]
struct SlotChain {
    /// Slots not sent yet, in order.
    left: VecDeque<u64>,
    ready: HashMap<u64, DigestJob>,
    chain: Option<Md5Chain>,
    whole: Option<Md5Chain>,
    is_busy: bool,
}

/// A file that stays open over several batches.
struct OpenFile {
    file: Option<Arc<SourceFile>>,
    reading: u32,
    all_issued: bool,
}

/// A slot that is being written piece by piece.
struct Writing {
    pieces: VecDeque<(Range<usize>, DeviceOffset)>,
    len: u64,
    files: u64,
    phase: Phase,
}

struct Drive<'a, 'o> {
    s: Setup<'a>,
    tree: &'a DriveTree,
    batches: std::iter::Peekable<Box<dyn Iterator<Item = Batch> + 'a>>,
    /// Contents of the batches without files; `None` where the volume stays, whose batches are all of files.
    formatting: Option<Formatting<'a, 'o>>,
    phase: Phase,
    issued: u64,
    under: HashMap<u64, Under>,
    sealed: BTreeMap<u64, (Slot, Writing)>,
    writing: HashMap<u64, Writing>,
    next_write: u64,
    filling: usize,
    /// Pause before the sources are read again.
    pause: Option<Duration>,
    flushed_issued: u64,
    flushed_at: Instant,
    /// Ends of batches that are not durable yet, by number.
    ends: VecDeque<(u64, BatchEnd)>,
    durable_end: BatchEnd,

    open: HashMap<u32, OpenFile>,
    left_out: BTreeMap<u32, String>,
    property_hashes: PropertyHashes,
    /// Runs by their first slot.
    runs: BTreeMap<u64, SlotChain>,
    run_of: HashMap<u64, u64>,
    /// Hash state of the file in the middle of which the plan continues, if it does so at the end of a block.
    begun_whole: Option<[u8; 16]>,
    /// Hash states if it continues within a block.
    begun: Option<BegunBlock>,
    /// The first batch of files that depend on the blobs' hashes, once it is next; then their contents.
    tells_from: Option<u64>,
    wholes: Option<WholeReader>,

    sums: Vec<Option<Sum>>,
    acknowledged: u64,
    files_down: u64,
    reported_at: Instant,
    waited: [Duration; 3],
    sources: Sources,
    /// A stop was requested: batches under way are brought to a checkpoint.
    is_stopping: bool,
}

impl<'a: 'o, 'o> Drive<'a, 'o> {
    fn new(mut s: Setup<'a>, formatting: Option<Formatting<'a, 'o>>) -> Self {
        let sources = Sources::new(std::mem::take(&mut s.bases));
        let batches = std::mem::replace(&mut s.content.batches, Box::new(std::iter::empty())).peekable();
        Self {
            tree: s.content.tree,
            batches,
            formatting,
            phase: Phase::Data,
            issued: 0,
            under: HashMap::new(),
            sealed: BTreeMap::new(),
            writing: HashMap::new(),
            next_write: 0,
            filling: 0,
            pause: None,
            flushed_issued: 0,
            flushed_at: Instant::now(),
            ends: VecDeque::new(),
            durable_end: BatchEnd::default(),
            open: HashMap::new(),
            left_out: BTreeMap::new(),
            property_hashes: PropertyHashes::new(),
            runs: BTreeMap::new(),
            run_of: HashMap::new(),
            begun_whole: None,
            begun: None,
            tells_from: None,
            wholes: None,
            sums: Vec::new(),
            acknowledged: 0,
            files_down: 0,
            reported_at: Instant::now(),
            waited: [Duration::ZERO; 3],
            sources,
            is_stopping: false,
            s,
        }
    }

    /// Writes everything durably.
    fn run(&mut self) -> Result<(), Problem> {
        self.wipe()?;
        self.pass_over()?;
        // Bytes of earlier runs: rates count from here.
        self.report(true);
        self.wiped()?;
        (self.s.once_wiped)();
        event_loop::run(self)
    }

    /// Reports the last progress of the former stage before the next stage.
    fn stage(&mut self, stage: Stage) {
        self.report(true);
        (self.s.events)(Event::Stage { drive: self.s.index, stage });
    }

    /// Whether no batch is under way between feed and device.
    fn is_idle(&self) -> bool {
        self.under.is_empty() && self.sealed.is_empty() && self.writing.is_empty() && !self.is_flushing()
    }
}

impl Drive<'_, '_> {
    pub(super) fn is_flushing(&self) -> bool {
        self.s.io.in_flight().flushes > 0
    }
}

impl<'a: 'o, 'o> Transfer for Drive<'a, 'o> {
    fn io(&mut self) -> &mut BlockIo {
        self.s.io
    }

    fn advance(&mut self) -> Result<Next, Problem> {
        self.pause = None;
        if !self.is_stopping {
            self.feed()?;
        }
        self.take_fetched()?;
        if let Some(problem) = self.sources.gone() {
            return Err(self.source_gone(problem));
        }
        // Sealed slots that are not being written wait for their turn, perhaps behind one that waits for full lanes.
        let ahead = self.s.io.at_workers() + self.writing.len();
        self.s.io.flush_lanes(ahead >= BUSY);
        // A drive that waits for its sources is not at an end: flushing it each time would cost.
        if self.is_idle() && self.pause.is_none() {
            if self.is_stopping && self.flushed_issued == self.issued {
                return Err(self.s.io.failures.stopped());
            }
            if self.batches.peek().is_none() && self.flushed_issued == self.issued {
                return Ok(Next::Done);
            }
            if self.flushed_issued < self.issued {
                self.start_flush();
            }
        }
        self.flush_if_due();
        self.report_if_due()?;
        if self.is_idle() && self.pause.is_none() {
            return Ok(Next::Again);
        }
        Ok(Next::Wait(self.pause.map_or(PROGRESS_INTERVAL, |pause| pause.min(PROGRESS_INTERVAL))))
    }

    fn apply(&mut self, action: Action) -> Result<(), Problem> {
        match action {
            Action::Filled { tag, slot, results } => self.filled(tag, slot, results),
            Action::Digested(done) => {
                self.digested(done)?;
                // At once: reading the sources may take long.
                self.write_ready();
                Ok(())
            }
            Action::Written { tag, slot, result } => self.written(tag, slot, result),
            Action::Flushed { tag, result } => self.flushed(tag, result),
            Action::Slow(warning) => {
                (self.s.events)(warning);
                Ok(())
            }
            Action::Stopped => {
                self.is_stopping = true;
                Ok(())
            }
            Action::Woken | Action::Quiet => Ok(()),
        }
    }

    fn waited(&mut self, time: Duration) {
        self.waited[self.scarce()] += time;
    }

    fn check(&mut self) {
        let durable = self.flushed_issued;
        assert!(durable <= self.acknowledged_batches(), "batch {durable} is not written");
        assert!(self.next_write <= self.issued, "batch {} is written before it is read", self.next_write);
        assert_eq!(self.writing.len(), self.s.io.in_flight().writes, "writes under way");
    }
}
