//! One drive's pipeline: a single loop that owns the ring, feeds slots, hands them to the workers and writes them in the
//! order of the plan.
//!
//! It formats a drive, or copies files into a volume that stays: what is written is [`DriveContent`], and what a drive that is
//! formatted needs beyond files, `format`.
//!
//! Batches may finish reading and sealing in any order, but are written strictly ascending. Gates stand on the way:
//! metadata waits until every file has been read (what was left out is in none of it); the last set, the volume's first
//! sector and the partition tables each wait until everything before them is durable.
//!
//! While data streams the drive is flushed from time to time, and a checkpoint is taken behind each flush: `durable`.
//!
//! The loop is here; its steps stand beside it in the order of the road: `wipe`, `feed`, `digest`, `write`. `watch` waits
//! for what is under way.

mod digest;
mod durable;
mod errors;
mod feed;
mod format;
mod watch;
mod wipe;
mod write;

pub use durable::{Durable, Pace, is_mid_chain};
pub use format::{Finished, Format, FveRegion, PlainBytes, format};

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use durable::BatchEnd;
use format::Formatting;

use crate::crypt::SectorCipher;
use crate::hash::Md5Chain;
use crate::io::{self, Engine, SourceFile};
use crate::ntfs::build::LeftOut;
use crate::plan::batches::{Batch, Phase};
use crate::plan::tree::DriveTree;
use crate::pool::{Pool, Slot};
use crate::prep::manifest::PropertyHashes;
use crate::prep::outcome::{OutcomeLog, Replay, WholeReader};
use crate::prep::rate_limit::RateLimit;
use crate::prep::sources::Sources;
use crate::prep::timeouts::Timeouts;
use crate::prep::workers::{Done, Job, LaneBatcher};
use crate::report::{Event, Problem, Stage, Stop};
use crate::units::{ByteLen, ByteOffset};

/// Files up to this length are opened, compared, read and closed in one go; longer ones stay open.
const SMALL_FILE_MAX: u64 = 1 << 20;

/// Slots of a drive: 112 MiB, inside the budget of 128 MiB a drive.
pub const SLOTS: usize = 28;

/// Slots between hashing and device that keep the drive busy while others wait for company: 32 MiB. With 6 to 10 of them a
/// device of 2 GB/s is as fast, within the noise of some per cent.
const BUSY: usize = 8;

/// What one drive needs to run.
#[allow(missing_debug_implementations, reason = "holds a callback")]
pub struct Setup<'a> {
    /// Index in the session's plan.
    pub index: usize,
    /// As a person names it.
    pub name: String,
    /// What is written.
    pub content: DriveContent<'a>,
    /// The drive's own ring.
    pub engine: &'a mut (dyn Engine + Send),
    /// The drive's own slots.
    pub pool: Pool,
    /// Slots that may be filling at once.
    pub fills_max: usize,
    /// The way to the shared workers.
    pub batcher: LaneBatcher,
    /// Where hashes and files left out go; stands where `replay` ends.
    pub log: OutcomeLog,
    /// What an earlier run left durable: its batches are passed over.
    pub replay: Replay,
    /// How often the drive is flushed while data streams.
    pub pace: Pace,
    /// Keeps a checkpoint.
    pub save: Save<'a>,
    /// Bytes to overwrite with zeros before anything else: old signatures.
    pub wipe: Vec<crate::units::ByteRange>,
    /// Called when they are gone for good.
    pub once_wiped: &'a dyn Fn(),
    /// Its node under `/dev`, which goes when it is pulled; `None` for an image file: then no space left means just that.
    pub node: Option<PathBuf>,
    /// Directories and files that the dataset names: when one goes away, its files are not each left out.
    pub bases: Vec<PathBuf>,
    /// The directory of the journal, where checkpoints and logs lie.
    pub beside: PathBuf,
    /// When to call the device slow, and when to give it up.
    pub timeouts: Timeouts,
    /// How fast sources may be read.
    pub rate_limit: &'a RateLimit,
    /// Where news goes.
    pub events: &'a (dyn Fn(Event) + Sync),
    /// Asked to stop?
    pub stop: &'a Stop,
}

/// Makes a checkpoint durable.
pub type Save<'a> = Box<dyn FnMut(&Durable) -> std::io::Result<()> + Send + 'a>;

/// Files that were copied into a volume that stays; everything is durable.
#[allow(missing_debug_implementations, reason = "a value between two steps")]
pub struct Copied {
    /// Files left out, by tree index.
    pub left_out: BTreeMap<u32, String>,
    /// The same, with the files that set their `Content-MD5`.
    pub unwritten: LeftOut,
    /// MD5 of the metadata and properties files.
    pub property_hashes: PropertyHashes,
    /// The hashes of the others.
    pub log: OutcomeLog,
    /// All batches.
    pub durable: Durable,
    /// Bytes written by this run.
    pub written: ByteLen,
}

/// Copies files into a volume that stays: `setup.content` has batches of files alone.
///
/// # Errors
/// A problem that names drive, place and operation. What is in use on the volume is what it was before.
pub fn copy(setup: Setup<'_>) -> Result<Copied, Problem> {
    let durable_before: u64 = setup.replay.sums.iter().flatten().map(|sum| sum.len as u64).sum();
    let mut drive = Drive::new(setup, None);
    drive.run()?;
    let unwritten = drive.settle()?;
    let BatchEnd { offset, file } = drive.durable_end;
    let outcome = drive.s.log.sync().map_err(|error| drive.sidecar(&error))?;
    Ok(Copied {
        left_out: drive.left_out,
        unwritten,
        property_hashes: drive.property_hashes,
        durable: Durable { batches: drive.issued, offset, file, outcome },
        written: ByteLen(drive.acknowledged - durable_before),
        log: drive.s.log,
    })
}

/// What a drive's loop writes.
#[allow(missing_debug_implementations, reason = "holds an iterator")]
pub struct DriveContent<'a> {
    /// The files.
    pub tree: &'a DriveTree,
    /// Slot by slot, in the order of the drive; slots are as long as the pool's.
    pub batches: Box<dyn Iterator<Item = Batch> + 'a>,
    /// Bytes of all batches at most.
    pub total: ByteLen,
    /// Where the volume starts on the device: from here the cipher counts.
    pub volume_start: ByteOffset,
    /// The volume's cipher; `None` where nothing is encrypted.
    pub cipher: Option<Arc<SectorCipher>>,
}

/// What a written batch held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    /// Bytes; fewer than planned where the manifest became shorter.
    pub len: usize,
    /// Their CRC-64/NVME.
    pub crc: u64,
}

/// A batch on its way.
struct Under {
    batch: Batch,
}

/// Slots that go on with one block, or with one file that is hashed as a whole: one of them is at the workers at a time.
#[derive(Default)]
struct Run {
    /// Those that were not sent, in order.
    left: VecDeque<u64>,
    ready: HashMap<u64, Job>,
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
    pieces: VecDeque<(Range<usize>, ByteOffset)>,
    len: u64,
    files: u64,
    phase: Phase,
}

struct Drive<'a, 'o> {
    s: Setup<'a>,
    tree: &'a DriveTree,
    batches: std::iter::Peekable<Box<dyn Iterator<Item = Batch> + 'a>>,
    /// What fills the batches that hold no files; `None` where the volume stays, whose batches all do.
    formatting: Option<Formatting<'a, 'o>>,
    replies: (Sender<Done>, Receiver<Done>),
    waker: io::Waker,

    phase: Phase,
    issued: u64,
    under: HashMap<u64, Under>,
    sealed: BTreeMap<u64, (Slot, Writing)>,
    writing: HashMap<u64, Writing>,
    next_write: u64,
    filling: usize,
    /// How long the sources are left alone.
    pause: Option<Duration>,
    flushing: bool,
    flushed_issued: u64,
    flushed_at: Instant,
    flushed_bytes: u64,
    /// Where batches end, by number, as long as they are not durable.
    ends: VecDeque<(u64, BatchEnd)>,
    durable_end: BatchEnd,
    /// Batches that begin within a hash block.
    mid_chain: BTreeSet<u64>,

    open: HashMap<u32, OpenFile>,
    left_out: BTreeMap<u32, String>,
    property_hashes: PropertyHashes,
    /// By the first slot of each.
    runs: BTreeMap<u64, Run>,
    run_of: HashMap<u64, u64>,
    /// State of the file that the plan goes on within.
    begun_whole: Option<[u8; 16]>,
    /// The first batch of files that tell of the blobs, once it is next; then what they tell.
    tells_from: Option<u64>,
    wholes: Option<WholeReader>,

    sums: Vec<Option<Sum>>,
    acknowledged: u64,
    files_down: u64,
    reported_at: Instant,
    waited: [Duration; 3],
    /// Age of the oldest operation when it is told of next.
    slow_at: Duration,
    sources: Sources,
}

impl<'a: 'o, 'o> Drive<'a, 'o> {
    fn new(mut s: Setup<'a>, formatting: Option<Formatting<'a, 'o>>) -> Self {
        let waker = s.engine.waker();
        let sources = Sources::new(std::mem::take(&mut s.bases));
        let slow_at = s.timeouts.slow;
        let batches = std::mem::replace(&mut s.content.batches, Box::new(std::iter::empty())).peekable();
        Self {
            tree: s.content.tree,
            batches,
            formatting,
            replies: unbounded(),
            waker,
            phase: Phase::Data,
            issued: 0,
            under: HashMap::new(),
            sealed: BTreeMap::new(),
            writing: HashMap::new(),
            next_write: 0,
            filling: 0,
            pause: None,
            flushing: false,
            flushed_issued: 0,
            flushed_at: Instant::now(),
            flushed_bytes: 0,
            ends: VecDeque::new(),
            durable_end: BatchEnd::default(),
            mid_chain: BTreeSet::new(),
            open: HashMap::new(),
            left_out: BTreeMap::new(),
            property_hashes: PropertyHashes::new(),
            runs: BTreeMap::new(),
            run_of: HashMap::new(),
            begun_whole: None,
            tells_from: None,
            wholes: None,
            sums: Vec::new(),
            acknowledged: 0,
            files_down: 0,
            reported_at: Instant::now(),
            waited: [Duration::ZERO; 3],
            slow_at,
            sources,
            s,
        }
    }

    /// Writes everything; it is durable then. When that fails, what is under way is taken back.
    fn run(&mut self) -> Result<(), Problem> {
        let result = self.run_loop();
        if result.is_err() {
            self.drain();
        }
        result
    }

    fn run_loop(&mut self) -> Result<(), Problem> {
        self.wipe()?;
        self.pass_over()?;
        // What is there already: rates count from here.
        self.report(true);
        self.wiped()?;
        (self.s.once_wiped)();
        loop {
            // What is under way is brought to a checkpoint first.
            let stopping = self.s.stop.requested();
            self.pause = None;
            if !stopping {
                self.feed()?;
            }
            if let Some(problem) = self.sources.gone() {
                return Err(self.source_gone(problem));
            }
            self.write_ready();
            // What is sealed and not being written waits for its turn, perhaps behind one that waits for company.
            let ahead = self.s.batcher.away() + self.writing.len();
            self.s.batcher.flush(ahead >= BUSY);
            // A drive that waits for its sources is not at an end: flushing it each time would cost.
            if self.is_idle() && self.pause.is_none() {
                if stopping && self.flushed_issued == self.issued {
                    return Err(self.stopped());
                }
                if self.batches.peek().is_none() && self.flushed_issued == self.issued {
                    break;
                }
                if self.flushed_issued < self.issued {
                    self.start_flush();
                }
            }
            self.flush_if_due();
            self.wait()?;
        }
        Ok(())
    }

    /// The former stage's last progress comes before the next stage.
    fn stage(&mut self, stage: Stage) {
        self.report(true);
        (self.s.events)(Event::Stage { drive: self.s.index, stage });
    }

    /// Nothing is under way between feed and device.
    fn is_idle(&self) -> bool {
        self.under.is_empty() && self.sealed.is_empty() && self.writing.is_empty() && !self.flushing
    }
}
