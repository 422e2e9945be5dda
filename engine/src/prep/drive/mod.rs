//! One drive's pipeline: a single loop that owns the ring, feeds slots, hands them to the workers and writes them in the
//! order of the plan.
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
mod watch;
mod wipe;
mod write;

pub use durable::{Durable, Pace, is_mid_chain};

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::azure::manifest::ManifestStream;
use crate::bitlocker::build::{FRONT_LEN, REGION_LEN};
use crate::crypt::SectorCipher;
use crate::hash::Md5Chain;
use crate::io::{self, Engine, SourceFile};
use crate::ntfs::build::{Generate, Outcome, SectionKind, Tree};
use crate::plan::batches::{Batch, Batches, Phase, Plain};
use crate::plan::drive::DriveLayout;
use crate::pool::{Pool, Slot};
use crate::prep::manifest::{PropertyHashes, Rules};
use crate::prep::outcome::{OutcomeLog, Replay, WholeReader};
use crate::prep::rate_limit::RateLimit;
use crate::prep::sources::Sources;
use crate::prep::timeouts::Timeouts;
use crate::prep::workers::{Done, Job, LaneBatcher};
use crate::report::{Event, Kind, Problem, Stage, Stop};
use crate::units::{ByteLen, ByteOffset};

/// Files up to this length are opened, compared, read and closed in one go; longer ones stay open.
const SMALL_FILE_MAX: u64 = 1 << 20;

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
    /// Where everything goes.
    pub layout: &'a DriveLayout,
    /// The drive's own ring.
    pub engine: Box<dyn Engine + Send>,
    /// The drive's own slots.
    pub pool: Pool,
    /// Slots that may be filling at once.
    pub fills_max: usize,
    /// The way to the shared workers.
    pub batcher: LaneBatcher,
    /// The volume's cipher.
    pub cipher: Arc<SectorCipher>,
    /// Bytes outside the encrypted volume.
    pub plain: PlainBytes<'a>,
    /// Where hashes and files left out go; stands where `replay` ends.
    pub log: OutcomeLog,
    /// What an earlier run left durable: its batches are passed over.
    pub replay: Replay,
    /// How often the drive is flushed while data streams.
    pub pace: Pace,
    /// Keeps a checkpoint.
    pub save: Save<'a>,
    /// What the manifest says beside the hashes.
    pub rules: &'a Rules,
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

/// Gives the BitLocker metadata region; waits until the password is stretched.
pub type FveRegion<'a> = Box<dyn FnOnce() -> Box<[u8; REGION_LEN]> + 'a>;

/// What lies on the drive in the clear.
#[derive(Debug)]
pub struct PlainBytes<'a> {
    /// Three times the same.
    pub fve_region: LazyCell<Box<[u8; REGION_LEN]>, FveRegion<'a>>,
    /// First sector of the volume, and what follows it up to byte 8192.
    pub front: Box<[u8; FRONT_LEN]>,
    /// Protective MBR and primary GPT, or MBR, from byte 0 of the drive.
    pub table_primary: Vec<u8>,
    /// Backup GPT, which ends with the drive; empty for an MBR.
    pub table_backup: Vec<u8>,
}

impl PlainBytes<'_> {
    fn of(&self, plain: Plain, sector: usize) -> &[u8] {
        match plain {
            Plain::FveRegion => &self.fve_region[..],
            Plain::Noise => &self.front[sector..],
            Plain::BootSector => &self.front[..sector],
            Plain::TableBackup => &self.table_backup,
            Plain::TablePrimary => &self.table_primary,
            Plain::Zeros => &[],
        }
    }
}

/// A drive that is done: everything is durable.
#[derive(Debug)]
pub struct Finished {
    /// Files of the dataset on it.
    pub files: u64,
    /// Bytes of those files.
    pub data: ByteLen,
    /// Bytes written in all.
    pub written: ByteLen,
    /// MD5 of the manifest.
    pub manifest_md5: [u8; 16],
    /// Files left out, by tree index.
    pub left_out: BTreeMap<u32, String>,
    /// Each written batch before sealing, in the order of the plan; `None` where nothing was written.
    pub sums: Vec<Option<Sum>>,
}

/// What a written batch held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    /// Bytes; fewer than planned where the manifest became shorter.
    pub len: usize,
    /// Their CRC-64/NVME.
    pub crc: u64,
}

/// Runs a drive to its end.
///
/// # Errors
/// A problem that names drive, place and operation. The drive then holds no volume, or what it held was complete.
pub fn run(setup: Setup<'_>) -> Result<Finished, Problem> {
    let (nothing, data_outcome, whole_outcome) = Default::default();
    let outcomes = Outcomes { nothing: &nothing, data: &data_outcome, whole: &whole_outcome };
    let mut drive = Drive::new(setup, outcomes);
    let result = drive.run();
    if result.is_err() {
        drive.drain();
    }
    result
}

/// What is known of the outcome: nothing yet, which files are out, and how long the manifest became.
#[derive(Clone, Copy)]
struct Outcomes<'o> {
    nothing: &'o Outcome,
    data: &'o std::cell::OnceCell<Outcome>,
    whole: &'o std::cell::OnceCell<Outcome>,
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
    batches: std::iter::Peekable<Batches<'a>>,
    outcomes: Outcomes<'o>,
    generator: Option<(SectionKind, Phase, Box<dyn Generate + 'o>)>,
    manifest: Option<ManifestStream<'a>>,
    manifest_md5: [u8; 16],
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
    /// Where batches end on the device, by number, as long as they are not durable.
    ends: VecDeque<(u64, ByteOffset)>,
    durable_end: ByteOffset,
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
    total: u64,
    files_down: u64,
    reported_at: Instant,
    waited: [Duration; 3],
    /// Age of the oldest operation when it is told of next.
    slow_at: Duration,
    sources: Sources,
}

impl<'a: 'o, 'o> Drive<'a, 'o> {
    fn new(mut s: Setup<'a>, outcomes: Outcomes<'o>) -> Self {
        let waker = s.engine.waker();
        let slot_len = s.pool.slot_len();
        let total = s.layout.total_to_write();
        let sources = Sources::new(std::mem::take(&mut s.bases));
        let slow_at = s.timeouts.slow;
        let batches = s.layout.batches(slot_len).peekable();
        Self {
            batches,
            outcomes,
            generator: None,
            manifest: None,
            manifest_md5: [0; 16],
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
            durable_end: ByteOffset(0),
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
            total: total.0,
            files_down: 0,
            reported_at: Instant::now(),
            waited: [Duration::ZERO; 3],
            slow_at,
            sources,
            s,
        }
    }

    fn run(&mut self) -> Result<Finished, Problem> {
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
                return Err(problem.drive(&self.s.name));
            }
            self.write_ready();
            // What is sealed and not being written waits for its turn, perhaps behind one that waits for company.
            let ahead = self.s.batcher.away() + self.writing.len();
            self.s.batcher.flush(ahead >= BUSY);
            // A drive that waits for its sources is not at an end: flushing it each time would cost.
            if self.is_idle() && self.pause.is_none() {
                if stopping && self.flushed_issued == self.issued {
                    return Err(Problem::new(Kind::Interrupted, "stopped on request")
                        .drive(&self.s.name)
                        .advice("the drive holds no volume yet; continue with --resume, or roll back with --abort"));
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
        let tree = self.s.layout.tree();
        let out = |i: &u32| tree.file(*i).len.0;
        let blobs_out = self.left_out.keys().filter(|&&i| i < tree.blob_count());
        let (files_out, bytes_out) = blobs_out.fold((0, 0), |(n, bytes), i| (n + 1, bytes + out(i)));
        Ok(Finished {
            files: u64::from(tree.blob_count()) - files_out,
            data: ByteLen(self.s.layout.data_len().0 - bytes_out),
            written: ByteLen(self.acknowledged),
            manifest_md5: self.manifest_md5,
            left_out: std::mem::take(&mut self.left_out),
            sums: std::mem::take(&mut self.sums),
        })
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
