//! One drive's pipeline: a single loop that owns the ring, feeds slots, hands them to the workers and writes them in the
//! order of the plan.
//!
//! Batches may finish reading and sealing in any order, but are written strictly ascending. Gates stand on the way:
//! metadata waits until every file has been read (what was left out is in none of it); the last set, the volume's first
//! sector and the partition tables each wait until everything before them is durable.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::azure::dataset::BlobType;
use crate::crypt::SectorCipher;
use crate::hash::Md5Chain;
use crate::io::{self, Completion, Engine, FileFacts, Fill, SourceFile, SourcePath, Stamp};
use crate::ntfs::build::{Generate, LeftOut, Outcome, SectionKind, Tree};
use crate::plan::batches::{Batch, Batches, Content, Part, Phase, Plain};
use crate::plan::drive::DriveLayout;
use crate::pool::{Pool, Slot};
use crate::prep::manifest::{ManifestStream, PropertyHashes, Rules};
use crate::prep::outcome::HashLog;
use crate::prep::workers::{Digest, Done, How, Job, Span, Way};
use crate::report::{Event, Kind, Problem, Stage, Stop, Waiting};
use crate::units::{ByteLen, ByteOffset};

/// Files up to this length are opened, compared, read and closed in one go; longer ones stay open.
const SMALL_FILE_MAX: u64 = 1 << 20;

/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// A device that keeps an operation longer than this gets a word in the log.
const SLOW_AFTER: Duration = Duration::from_secs(20);

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
    /// The shared workers.
    pub jobs: Sender<Job>,
    /// The volume's cipher.
    pub cipher: Arc<SectorCipher>,
    /// Bytes outside the encrypted volume.
    pub plain: PlainBytes,
    /// Empty sidecar for block hashes.
    pub hash_log: File,
    /// What the manifest says beside the hashes.
    pub rules: &'a Rules,
    /// Bytes to overwrite with zeros before anything else: old signatures.
    pub wipe: Vec<crate::units::ByteRange>,
    /// Where news goes.
    pub events: &'a (dyn Fn(Event) + Sync),
    /// Asked to stop?
    pub stop: &'a Stop,
}

/// What lies on the drive in the clear.
#[derive(Debug)]
pub struct PlainBytes {
    /// The BitLocker metadata region, three times the same.
    pub fve_region: Vec<u8>,
    /// First sector of the volume, and what follows it up to byte 8192.
    pub front: Vec<u8>,
    /// Primary table.
    pub table_primary: Vec<u8>,
    /// Backup table.
    pub table_backup: Vec<u8>,
}

impl PlainBytes {
    fn of(&self, plain: Plain, sector: usize) -> &[u8] {
        match plain {
            Plain::FveRegion => &self.fve_region,
            Plain::Noise => &self.front[sector..],
            Plain::BootSector => &self.front[..sector],
            Plain::TableBackup => &self.table_backup,
            Plain::TablePrimary => &self.table_primary,
        }
    }
}

/// A drive that is done: everything is durable.
#[derive(Debug)]
pub struct Finished {
    /// Files of the dataset on it.
    pub files: u64,
    /// Their bytes.
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
    /// Number among the batches of file data.
    data_index: Option<u64>,
    has_chain: bool,
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
    hashes: Option<HashLog>,
    replies: (Sender<Done>, Receiver<Done>),
    waker: io::Waker,

    phase: Phase,
    issued: u64,
    data_issued: u64,
    under: HashMap<u64, Under>,
    sealed: BTreeMap<u64, (Slot, Writing)>,
    writing: HashMap<u64, Writing>,
    next_write: u64,
    filling: usize,
    at_workers: usize,
    flushing: bool,
    flushed_issued: u64,

    open: HashMap<u32, OpenFile>,
    left_out: BTreeMap<u32, String>,
    property_hashes: PropertyHashes,
    chain_order: VecDeque<u64>,
    chain_ready: HashMap<u64, Job>,
    chain_state: Option<Md5Chain>,
    chain_busy: bool,

    sums: Vec<Option<Sum>>,
    acknowledged: u64,
    total: u64,
    files_down: u64,
    told: Instant,
    waited: [Duration; 3],
    slow_told: bool,
}

impl<'a: 'o, 'o> Drive<'a, 'o> {
    fn new(mut s: Setup<'a>, outcomes: Outcomes<'o>) -> Self {
        let waker = s.engine.waker();
        let slot_len = s.pool.slot_len();
        let hash_log = s.hash_log.try_clone();
        let total = s.layout.total_to_write();
        let batches = s.layout.batches(slot_len).peekable();
        let _ = &mut s;
        Self {
            batches,
            outcomes,
            generator: None,
            manifest: None,
            manifest_md5: [0; 16],
            hashes: hash_log.ok().map(HashLog::new),
            replies: unbounded(),
            waker,
            phase: Phase::Data,
            issued: 0,
            data_issued: 0,
            under: HashMap::new(),
            sealed: BTreeMap::new(),
            writing: HashMap::new(),
            next_write: 0,
            filling: 0,
            at_workers: 0,
            flushing: false,
            flushed_issued: 0,
            open: HashMap::new(),
            left_out: BTreeMap::new(),
            property_hashes: PropertyHashes::new(),
            chain_order: VecDeque::new(),
            chain_ready: HashMap::new(),
            chain_state: None,
            chain_busy: false,
            sums: Vec::new(),
            acknowledged: 0,
            total: total.0,
            files_down: 0,
            told: Instant::now(),
            waited: [Duration::ZERO; 3],
            slow_told: false,
            s,
        }
    }

    fn run(&mut self) -> Result<Finished, Problem> {
        self.wipe()?;
        self.stage(Stage::Data);
        loop {
            if self.s.stop.requested() {
                return Err(Problem::new(Kind::Interrupted, "stopped on request")
                    .drive(&self.s.name)
                    .advice("the drive holds no volume; start the session again"));
            }
            self.feed()?;
            self.write_ready();
            if self.is_idle() {
                if self.batches.peek().is_none() && self.flushed_issued == self.issued {
                    break;
                }
                if self.flushed_issued < self.issued {
                    self.start_flush();
                }
            }
            self.wait()?;
        }
        self.stage(Stage::Done);
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

    fn stage(&self, stage: Stage) {
        (self.s.events)(Event::Stage { drive: self.s.index, stage });
    }

    /// Nothing is under way between feed and device.
    fn is_idle(&self) -> bool {
        self.under.is_empty() && self.sealed.is_empty() && self.writing.is_empty() && !self.flushing
    }

    // ---- wipe --------------------------------------------------------------------------------------------------

    /// Overwrites old signatures, and every place that is written last, so that an unfinished drive looks like none.
    fn wipe(&mut self) -> Result<(), Problem> {
        if self.s.wipe.is_empty() {
            return Ok(());
        }
        self.stage(Stage::Wiping);
        let mut ranges = std::mem::take(&mut self.s.wipe);
        ranges.sort();
        let mut tag = 0;
        for range in ranges {
            let mut at = range.start.0;
            while at < range.end().0 {
                let mut slot = loop {
                    match self.s.pool.take() {
                        Some(slot) => break slot,
                        None => self.wipe_wait()?,
                    }
                };
                let len = (range.end().0 - at).min(slot.len() as u64);
                slot[..len as usize].fill(0);
                self.s.engine.write(tag, slot, len as usize, ByteOffset(at));
                tag += 1;
                at += len;
            }
        }
        self.s.engine.flush(tag);
        while self.s.engine.in_flight() > 0 {
            self.wipe_wait()?;
        }
        Ok(())
    }

    fn wipe_wait(&mut self) -> Result<(), Problem> {
        match self.s.engine.wait(None) {
            Completion::Written { result: Err(error), .. } => Err(self.write_failed(&error, "wiping old signatures")),
            Completion::Flushed { result: Err(error), .. } => Err(self.flush_failed(&error)),
            Completion::Broken(error) => Err(self.broken(&error)),
            _ => Ok(()),
        }
    }

    // ---- feed --------------------------------------------------------------------------------------------------

    /// Starts as many batches as gates and slots allow.
    fn feed(&mut self) -> Result<(), Problem> {
        while self.filling < self.s.fills_max {
            let Some(batch) = self.batches.peek() else { return Ok(()) };
            let phase = batch.phase;
            if phase > self.phase && !self.pass_gate(phase)? {
                return Ok(());
            }
            let Some(slot) = self.s.pool.take() else { return Ok(()) };
            let Some(batch) = self.batches.next() else { return Ok(()) };
            self.start(batch, slot)?;
        }
        Ok(())
    }

    /// Whether `phase` may begin; does what has to be done between.
    fn pass_gate(&mut self, phase: Phase) -> Result<bool, Problem> {
        match phase {
            Phase::Data => {}
            Phase::Metadata | Phase::FreeSpace => {
                if self.outcomes.data.get().is_none() {
                    let logged = self.hashes.as_ref().map_or(0, HashLog::batches);
                    if logged < self.data_issued {
                        return Ok(false);
                    }
                    self.end_of_data()?;
                }
                self.stage(if phase == Phase::Metadata { Stage::Metadata } else { Stage::FreeSpace });
            }
            Phase::Last | Phase::Front | Phase::Tables => {
                if !self.is_idle() || self.flushed_issued < self.issued {
                    return Ok(false);
                }
                if phase == Phase::Last {
                    self.end_of_manifest();
                    self.stage(Stage::Finishing);
                }
            }
        }
        self.phase = phase;
        Ok(true)
    }

    /// Every file has been read: what is left out is final.
    fn end_of_data(&mut self) -> Result<(), Problem> {
        let tree = self.s.layout.tree();
        if let Some((file, why)) = self.left_out.range(tree.blob_count()..).next() {
            return Err(Problem::new(Kind::Source, format!("a metadata or properties file could not be used: {why}"))
                .path(tree.source_path(*file))
                .drive(&self.s.name)
                .advice("every blob of its row needs it: mend it and start the session again"));
        }
        let left_out = LeftOut::new(self.left_out.keys().copied().collect());
        let outcome = Outcome { left_out: left_out.clone(), root_file_lens: vec![self.s.layout.manifest_len_max()] };
        let _ = self.outcomes.data.set(outcome);
        let log = self.hashes.take().ok_or_else(|| self.sidecar(&std::io::Error::other("the hash log is closed")))?;
        let hashes = log.into_reader().map_err(|error| self.sidecar(&error))?;
        let property_hashes = std::mem::take(&mut self.property_hashes);
        self.manifest = Some(ManifestStream::new(tree, self.s.rules, left_out, property_hashes, hashes));
        Ok(())
    }

    /// The manifest is out: its length and digest are final.
    fn end_of_manifest(&mut self) {
        let Some(manifest) = self.manifest.take() else { return };
        let (len, md5) = manifest.finish();
        self.manifest_md5 = md5;
        if let Some(data) = self.outcomes.data.get() {
            let outcome = Outcome { left_out: data.left_out.clone(), root_file_lens: vec![len] };
            let _ = self.outcomes.whole.set(outcome);
        }
    }

    fn start(&mut self, batch: Batch, mut slot: Slot) -> Result<(), Problem> {
        let seq = self.issued;
        self.issued += 1;
        self.sums.push(None);
        match &batch.content {
            Content::Files(parts) => {
                let data_index = self.data_issued;
                self.data_issued += 1;
                return self.start_files(seq, data_index, parts.clone(), batch, slot);
            }
            Content::Section { kind, offset } => {
                self.generate(*kind, batch.phase, *offset, &mut slot[..batch.len])?;
            }
            Content::Manifest { .. } => {
                let len = self.fill_manifest(&mut slot[..batch.len])?;
                let cluster = self.s.layout.layout().cluster().bytes() as usize;
                // Clusters that the manifest turned out not to need stay free.
                let keep = if self.s.layout.wipe_free() { batch.len } else { len.next_multiple_of(cluster) };
                let keep = keep.min(batch.len);
                slot[len..keep].fill(0);
                let batch = shortened(batch, keep);
                self.enqueue(seq, batch, slot, Vec::new(), None);
                return Ok(());
            }
            Content::Zeros => slot[..batch.len].fill(0),
            Content::Plain(plain) => {
                let bytes = self.s.plain.of(*plain, self.s.layout.sector().bytes() as usize);
                slot[..batch.len].copy_from_slice(bytes);
            }
        }
        self.enqueue(seq, batch, slot, Vec::new(), None);
        Ok(())
    }

    fn generate(&mut self, kind: SectionKind, phase: Phase, offset: u64, out: &mut [u8]) -> Result<(), Problem> {
        if self.generator.as_ref().is_none_or(|(k, p, _)| (*k, *p) != (kind, phase)) {
            let late = matches!(kind, SectionKind::Bitmap | SectionKind::MftBitmap) || phase >= Phase::Last;
            if late {
                // The manifest lies before the bitmaps: by now it is out.
                self.end_of_manifest();
            }
            let outcome = match phase {
                Phase::Data => self.outcomes.nothing,
                _ if late => self.outcomes.whole.get().unwrap_or(self.outcomes.nothing),
                _ => self.outcomes.data.get().unwrap_or(self.outcomes.nothing),
            };
            let layout = self.s.layout;
            let generator = layout.layout().generator(kind, layout.tree(), outcome);
            self.generator = Some((kind, phase, generator));
        }
        if let Some((_, _, generator)) = &mut self.generator {
            generator.fill(ByteOffset(offset), out);
        }
        Ok(())
    }

    fn fill_manifest(&mut self, out: &mut [u8]) -> Result<usize, Problem> {
        let Some(manifest) = &mut self.manifest else { return Ok(0) };
        let filled = manifest.fill(out);
        filled.map_err(|error| self.sidecar(&error))
    }

    fn start_files(
        &mut self,
        seq: u64,
        data_index: u64,
        parts: Vec<Part>,
        batch: Batch,
        mut slot: Slot,
    ) -> Result<(), Problem> {
        let mut reads = Vec::with_capacity(parts.len());
        let mut covered = 0usize;
        for part in &parts {
            // What lies between the end of one file and the next cluster is zero.
            let into = part.into as usize..(part.into + part.len) as usize;
            slot[covered..into.start].fill(0);
            covered = into.end;
            match self.read_of(part) {
                Ok(from) => reads.push(io::Part { into, from }),
                Err(why) => {
                    self.leave_out(part.file, why);
                    slot[into].fill(0);
                    reads.push(io::Part { into: 0..0, from: io::From::Target { at: ByteOffset(0) } });
                }
            }
        }
        slot[covered..batch.len].fill(0);
        let has_chain = parts.iter().any(|part| !(part.block_start && part.block_end));
        if has_chain {
            self.chain_order.push_back(seq);
        }
        self.under.insert(seq, Under { batch, data_index: Some(data_index), has_chain });
        self.filling += 1;
        self.s.engine.fill(Fill { tag: seq, slot, parts: reads });
        Ok(())
    }

    /// Where a part's bytes come from; opens files that stay open.
    fn read_of(&mut self, part: &Part) -> Result<io::From, String> {
        let layout = self.s.layout;
        let facts = expected_facts(layout, part.file);
        if facts.len <= SMALL_FILE_MAX {
            let path = SourcePath::new(&layout.tree().source_path(part.file)).map_err(|error| error.to_string())?;
            return Ok(io::From::Path { path: Arc::new(path), facts });
        }
        if self.left_out.contains_key(&part.file) {
            return Err(String::new());
        }
        let entry =
            self.open.entry(part.file).or_insert_with(|| OpenFile { file: None, reading: 0, all_issued: false });
        if entry.file.is_none() {
            let opened = SourceFile::open(&layout.tree().source_path(part.file), true);
            match opened {
                Ok(file) => match file.facts().change_since(&facts) {
                    None => entry.file = Some(Arc::new(file)),
                    Some(change) => {
                        self.open.remove(&part.file);
                        return Err(change);
                    }
                },
                Err(error) => {
                    self.open.remove(&part.file);
                    return Err(error.to_string());
                }
            }
        }
        entry.reading += 1;
        entry.all_issued = part.offset + u64::from(part.len) == facts.len;
        match &entry.file {
            Some(file) => Ok(io::From::Open { file: Arc::clone(file), offset: part.offset }),
            None => Err("could not be opened".into()),
        }
    }

    fn leave_out(&mut self, file: u32, why: String) {
        if self.left_out.contains_key(&file) {
            return;
        }
        let path = self.s.layout.tree().source_path(file);
        (self.s.events)(Event::LeftOut { drive: self.s.index, path, why: why.clone() });
        self.left_out.insert(file, why);
    }

    // ---- digest and seal ---------------------------------------------------------------------------------------

    fn filled(&mut self, seq: u64, mut slot: Slot, results: Vec<io::PartResult>) {
        self.filling -= 1;
        let Some(under) = self.under.get(&seq) else { return };
        let Content::Files(parts) = &under.batch.content else { return };
        let parts = parts.clone();
        let has_chain = under.has_chain;
        let mut changed: Vec<(u32, String)> = Vec::new();
        for (part, result) in parts.iter().zip(results) {
            let why = match result {
                io::PartResult::Done => None,
                io::PartResult::Changed(change) => Some(change),
                io::PartResult::Failed(error) => Some(error.to_string()),
            };
            if let Some(why) = why {
                slot[part.into as usize..(part.into + part.len) as usize].fill(0);
                changed.push((part.file, why));
            }
            if let Some(open) = self.open.get_mut(&part.file) {
                open.reading -= 1;
                if open.reading == 0 && open.all_issued {
                    let facts = expected_facts(self.s.layout, part.file);
                    let now = open.file.as_ref().map(|file| file.facts_now());
                    match now {
                        Some(Ok(now)) => changed.extend(now.change_since(&facts).map(|change| (part.file, change))),
                        Some(Err(error)) => changed.push((part.file, error.to_string())),
                        None => {}
                    }
                    self.open.remove(&part.file);
                }
            }
        }
        for (file, why) in changed {
            self.leave_out(file, why);
        }
        let tree = self.s.layout.tree();
        let spans = parts
            .iter()
            .filter(|part| part.len > 0)
            .map(|part| Span {
                range: part.into as usize..(part.into + part.len) as usize,
                how: if tree.blob_type(part.file) == Some(BlobType::Page) {
                    How::Pages
                } else if part.block_start && part.block_end {
                    How::Block
                } else {
                    How::Chain { ends: part.block_end }
                },
            })
            .collect();
        let Some(under) = self.under.remove(&seq) else { return };
        self.enqueue(seq, under.batch, slot, spans, under.data_index.map(|i| (i, has_chain)));
    }

    /// Hands a full slot to the workers.
    fn enqueue(&mut self, seq: u64, batch: Batch, slot: Slot, spans: Vec<Span>, data: Option<(u64, bool)>) {
        let volume = self.s.layout.volume().start.0;
        let plain = matches!(batch.content, Content::Plain(_));
        let pieces = batch.pieces.iter();
        let seal = if plain {
            Vec::new()
        } else {
            pieces.map(|piece| (piece.range.clone(), ByteOffset(piece.at.0 - volume))).collect()
        };
        let job = Job {
            tag: seq,
            slot,
            len: batch.len,
            spans,
            chain: None,
            way: Way::Seal,
            crypt: seal,
            cipher: Some(Arc::clone(&self.s.cipher)),
            reply: self.replies.0.clone(),
            waker: self.waker.clone(),
        };
        let (data_index, has_chain) = data.map_or((None, false), |(index, chain)| (Some(index), chain));
        self.under.insert(seq, Under { batch, data_index, has_chain });
        if has_chain {
            self.chain_ready.insert(seq, job);
            self.send_chain();
        } else {
            self.send(job);
        }
    }

    fn send(&mut self, job: Job) {
        self.at_workers += 1;
        // The workers live as long as the session; were they gone, the loop would end by the missing replies.
        let _ = self.s.jobs.send(job);
    }

    /// A block longer than a slot is hashed in order: one of its slots at a time.
    fn send_chain(&mut self) {
        if self.chain_busy {
            return;
        }
        let Some(front) = self.chain_order.front() else { return };
        let Some(mut job) = self.chain_ready.remove(front) else { return };
        self.chain_order.pop_front();
        job.chain = self.chain_state.take();
        self.chain_busy = true;
        self.send(job);
    }

    fn digested(&mut self, done: Done) -> Result<(), Problem> {
        self.at_workers -= 1;
        let Some(under) = self.under.remove(&done.tag) else { return Ok(()) };
        if under.has_chain {
            self.chain_state = done.chain;
            self.chain_busy = false;
            self.send_chain();
        }
        if let Content::Files(parts) = &under.batch.content {
            let first = self.s.layout.tree().blob_count();
            for (part, digest) in parts.iter().filter(|part| part.len > 0).zip(&done.digests) {
                if let (true, Digest::Block(md5)) = (part.file >= first, digest) {
                    self.property_hashes.insert(part.file, *md5);
                }
            }
        }
        if let (Some(index), Some(log)) = (under.data_index, &mut self.hashes) {
            let pushed = log.push(index, done.digests);
            pushed.map_err(|error| self.sidecar(&error))?;
        }
        if under.batch.len > 0 {
            self.sums[done.tag as usize] = Some(Sum { len: under.batch.len, crc: done.crc });
        }
        let files = match &under.batch.content {
            Content::Files(parts) => {
                let tree = self.s.layout.tree();
                let ends = |part: &&Part| part.offset + u64::from(part.len) == tree.file(part.file).len.0;
                parts.iter().filter(ends).filter(|part| part.file < tree.blob_count()).count() as u64
            }
            _ => 0,
        };
        let pieces = under.batch.pieces.into_iter().map(|piece| (piece.range, piece.at)).collect();
        let writing = Writing { pieces, len: under.batch.len as u64, files, phase: under.batch.phase };
        self.sealed.insert(done.tag, (done.slot, writing));
        Ok(())
    }

    // ---- write -------------------------------------------------------------------------------------------------

    /// Writes what is sealed, in the order of the plan.
    fn write_ready(&mut self) {
        while let Some(entry) = self.sealed.first_entry() {
            if *entry.key() != self.next_write {
                return;
            }
            let (seq, (slot, writing)) = entry.remove_entry();
            self.next_write += 1;
            self.write_piece(seq, slot, writing);
        }
    }

    fn write_piece(&mut self, seq: u64, mut slot: Slot, mut writing: Writing) {
        match writing.pieces.pop_front() {
            Some((range, at)) => {
                // Only a batch that runs across one of BitLocker's regions has a second piece.
                let len = range.len();
                if range.start > 0 {
                    slot.copy_within(range, 0);
                }
                self.writing.insert(seq, writing);
                self.s.engine.write(seq, slot, len, at);
            }
            None => {
                self.acknowledged += writing.len;
                self.files_down += writing.files;
            }
        }
    }

    fn start_flush(&mut self) {
        self.flushing = true;
        self.stage(Stage::Flushing);
        self.s.engine.flush(self.issued);
    }

    // ---- wait --------------------------------------------------------------------------------------------------

    fn wait(&mut self) -> Result<(), Problem> {
        while let Ok(done) = self.replies.1.try_recv() {
            self.digested(done)?;
        }
        self.write_ready();
        self.tell(false);
        if self.is_idle() && !self.flushing {
            return Ok(());
        }
        let since = Instant::now();
        let completion = self.s.engine.wait(Some(PROGRESS_EVERY));
        let waited = since.elapsed();
        // What was scarce while nothing happened.
        let scarce = if self.at_workers > 0 && self.s.pool.available() == 0 && self.writing.len() < 2 {
            1
        } else if !self.writing.is_empty() || self.flushing {
            2
        } else {
            0
        };
        self.waited[scarce] += waited;
        match completion {
            Completion::Filled { tag, slot, results } => self.filled(tag, slot, results),
            Completion::Written { tag, slot, result } => {
                if let Err(error) = result {
                    let what = self.writing.get(&tag).map_or("batch", |w| phase_name(w.phase));
                    return Err(self.write_failed(&error, what));
                }
                if let Some(writing) = self.writing.remove(&tag) {
                    self.write_piece(tag, slot, writing);
                }
            }
            Completion::Flushed { tag, result } => {
                self.flushing = false;
                match result {
                    Ok(()) => self.flushed_issued = tag,
                    Err(error) => return Err(self.flush_failed(&error)),
                }
            }
            Completion::Broken(error) => return Err(self.broken(&error)),
            Completion::Woken => {}
            Completion::TimedOut => self.tell_if_slow(),
        }
        Ok(())
    }

    fn tell(&mut self, now: bool) {
        if !now && self.told.elapsed() < PROGRESS_EVERY {
            return;
        }
        self.told = Instant::now();
        let waiting_for = match self.waited.iter().enumerate().max_by_key(|&(_, d)| *d) {
            Some((_, d)) if *d < PROGRESS_EVERY / 10 => Waiting::Nothing,
            Some((0, _)) => Waiting::Source,
            Some((1, _)) => Waiting::Cpu,
            _ => Waiting::Drive,
        };
        self.waited = [Duration::ZERO; 3];
        (self.s.events)(Event::Progress {
            drive: self.s.index,
            acknowledged: ByteLen(self.acknowledged),
            total: ByteLen(self.total),
            files: self.files_down,
            waiting_for,
        });
    }

    fn tell_if_slow(&mut self) {
        let Some(oldest) = self.s.engine.oldest() else { return };
        if oldest < SLOW_AFTER {
            self.slow_told = false;
        } else if !self.slow_told {
            self.slow_told = true;
            (self.s.events)(Event::Note(format!(
                "drive {}: an operation has been waiting for {} s; the drive or a source hangs or is very slow",
                self.s.name,
                oldest.as_secs()
            )));
        }
    }

    /// Takes back what is under way, so that the slots live as long as the kernel uses them.
    fn drain(&mut self) {
        let until = Instant::now() + io::DRAIN_MAX;
        while self.s.engine.in_flight() > 0 && Instant::now() < until {
            if matches!(self.s.engine.wait(Some(PROGRESS_EVERY)), Completion::Broken(_)) {
                break;
            }
        }
        self.stage(Stage::Failed);
    }

    // ---- errors ------------------------------------------------------------------------------------------------

    fn write_failed(&self, error: &io::WriteError, what: &str) -> Problem {
        Problem::new(Kind::Drive, format!("writing failed ({what}): {}", error.source))
            .drive(&self.s.name)
            .at(error.at)
            .advice("the drive holds no finished volume; check cable and drive (smartctl -a), or replace it")
    }

    fn flush_failed(&self, error: &std::io::Error) -> Problem {
        Problem::new(Kind::Drive, format!("the drive did not make its data durable: {error}"))
            .drive(&self.s.name)
            .advice("nothing since the last flush can be trusted; replace the drive and start again")
    }

    fn broken(&self, error: &std::io::Error) -> Problem {
        Problem::new(Kind::Environment, format!("the I/O engine stopped working: {error}"))
            .drive(&self.s.name)
            .advice("try again with --engine sync")
    }

    fn sidecar(&self, error: &std::io::Error) -> Problem {
        Problem::new(Kind::Environment, format!("the hash log beside the journal failed: {error}"))
            .drive(&self.s.name)
            .advice("make room on the journal's disk and start again")
    }
}

/// What a source file must still be when it is read.
fn expected_facts(layout: &DriveLayout, file: u32) -> FileFacts {
    let (len, mtime_ns, ctime_ns) = layout.tree().planned_facts(file);
    FileFacts { len: len.0, mtime: Stamp::from_nanos(mtime_ns), ctime: Stamp::from_nanos(ctime_ns), dev: 0, ino: 0 }
}

/// The batch without what lies behind byte `len` of its slot.
fn shortened(mut batch: Batch, len: usize) -> Batch {
    batch.len = len;
    batch.pieces.retain_mut(|piece| {
        piece.range.end = piece.range.end.min(len);
        piece.range.start < piece.range.end
    });
    batch
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Data => "file data",
        Phase::Metadata => "file system metadata",
        Phase::FreeSpace => "free space",
        Phase::Last => "system records",
        Phase::Front => "first sector of the volume",
        Phase::Tables => "partition tables",
    }
}
