//! File data into clusters that were free: read, hashed, sealed and written in slots, in the order of the tree.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::unbounded;

use super::commit::Store;
use super::{Addition, Job};
use crate::azure::dataset::BlobType;
use crate::hash;
use crate::io::{self, Completion, Fill, From, SourceFile, SourcePath};
use crate::ntfs::append::Append;
use crate::ntfs::build::{LinearRange, Tree};
use crate::plan::tree::DriveTree;
use crate::pool::Pool;
use crate::prep::drive::{Durable, Save, Sum};
use crate::prep::manifest::PropertyHashes;
use crate::prep::outcome::{OutcomeLog, Replay};
use crate::prep::sources::{Sources, expected_facts};
use crate::prep::timeouts::Timeouts;
use crate::prep::workers::{self, CipherDirection, Digest, Done, How, Span};
use crate::report::{Event, Kind, Problem};
use crate::units::{ByteLen, ByteOffset, Clusters};

/// Slots that may be filling at once.
const FILLS_MAX: usize = 8;
/// Slots between hashing and device that keep the drive busy while others wait for company.
const BUSY: usize = 4;
/// Parts of one slot, so that a directory of a million empty files stays bounded.
const PARTS_MAX: usize = 2048;
/// Files up to this length are opened, read and closed in one go.
const SMALL_FILE_MAX: u64 = 1 << 20;
/// How long the loop sleeps at most.
const WAIT_MAX: Duration = Duration::from_millis(200);

/// A hash block of a file in a slot.
#[derive(Clone, Copy, Debug)]
struct Part {
    file: u32,
    offset: u64,
    len: usize,
    into: usize,
}

/// A slot's worth.
#[derive(Debug, Default)]
struct Load {
    parts: Vec<Part>,
    len: usize,
    /// Bytes of the slot, and where they go on the device.
    pieces: VecDeque<(Range<usize>, ByteOffset)>,
    crypt: Vec<(Range<usize>, ByteOffset)>,
}

/// What came of the data.
#[derive(Debug)]
pub(super) struct Copied {
    pub left_out: BTreeMap<u32, String>,
    pub property_hashes: PropertyHashes,
    pub durable: Durable,
}

/// Packs the files into loads, ascending.
struct Packer<'a> {
    tree: &'a DriveTree,
    append: &'a Append,
    slot_len: usize,
    file: u32,
    offset: u64,
}

impl<'a> Packer<'a> {
    fn new(tree: &'a DriveTree, append: &'a Append, slot_len: usize) -> Self {
        Self { tree, append, slot_len, file: 0, offset: 0 }
    }

    fn is_done(&self) -> bool {
        self.file >= self.tree.files()
    }

    fn next(&mut self) -> Load {
        let cluster = self.append.volume().geometry().cluster.bytes() as usize;
        let mut load = Load::default();
        let mut start = None;
        while !self.is_done() && load.parts.len() < PARTS_MAX {
            let len = self.tree.file(self.file).len.0;
            let block = self.tree.block_len(self.file).min(len - self.offset) as usize;
            if load.len + block.next_multiple_of(cluster) > self.slot_len {
                break;
            }
            if block > 0 {
                start = start.or(Some(self.append.file_place(self.file).start + self.offset / cluster as u64));
            }
            load.parts.push(Part { file: self.file, offset: self.offset, len: block, into: load.len });
            load.len += block.next_multiple_of(cluster);
            self.offset += block as u64;
            if self.offset == len {
                self.file += 1;
                self.offset = 0;
            }
        }
        if let Some(start) = start {
            load.pieces = vec![(0..load.len, ByteOffset(start))].into();
        }
        load
    }
}

/// Reads back batches that `chosen` wants, as they were before sealing, and gives the number of the first that is not what
/// `sums` says.
///
/// # Errors
/// When the device cannot be read.
pub(super) fn first_bad(
    what: &Addition<'_>,
    append: &Append,
    slot_len: usize,
    sums: &[Option<Sum>],
    mut chosen: impl FnMut(u64) -> bool,
) -> Result<Option<u64>, Problem> {
    let cluster = append.volume().geometry().cluster;
    let mut packer = Packer::new(what.tree, append, slot_len);
    let mut bytes = Vec::new();
    for (number, sum) in (0..).zip(sums) {
        if packer.is_done() {
            return Ok(Some(number));
        }
        let load = packer.next();
        let (Some(sum), Some((range, start))) = (sum, load.pieces.front()) else { continue };
        if !chosen(number) {
            continue;
        }
        if sum.len != load.len {
            return Ok(Some(number));
        }
        bytes.resize(load.len, 0);
        let clusters = LinearRange { start: start.0, len: Clusters(range.len() as u64 / cluster.bytes()) };
        let mut into = 0;
        for extent in append.data_space().extents(clusters) {
            let (at, len) = (cluster.offset_of(extent.lcn), cluster.len_of(extent.len).0 as usize);
            what.opened.read(at, &mut bytes[into..into + len]).map_err(|error| {
                Problem::new(Kind::Drive, format!("what was written cannot be read back: {error}"))
                    .drive(what.name)
                    .at(what.opened.device_offset(at))
            })?;
            into += len;
        }
        if hash::crc64(&bytes) != sum.crc {
            return Ok(Some(number));
        }
    }
    Ok(None)
}

/// Copies all files but those that `replay` has.
///
/// # Errors
/// What the drive or the hash log says. A file that cannot be read is left out instead.
pub(super) fn copy(
    job: &Job<'_>,
    append: &Append,
    store: &mut Store<'_>,
    pool: &Pool,
    (log, replay): (&mut OutcomeLog, Replay),
    save: &mut Save<'_>,
) -> Result<Copied, Problem> {
    let (tree, name) = (job.what.tree, job.what.name);
    let slot_len = pool.slot_len();
    if let Some(file) = (0..tree.files()).find(|&file| tree.block_len(file) > slot_len as u64) {
        return Err(Problem::new(Kind::Refused, "is too large for a drive that holds a volume already")
            .path(tree.source_path(file))
            .drive(name)
            .advice("files above 195 GiB need a drive that is formatted in the same session"));
    }
    let side = |error: std::io::Error| {
        Problem::new(Kind::Environment, format!("the files next to the journal cannot be written: {error}"))
            .drive(name)
            .advice("make room on the journal's disk and resume or abort the session")
    };
    let mut packer = Packer::new(tree, append, slot_len);
    let mut acknowledged = 0;
    for _ in &replay.sums {
        acknowledged += packer.next().len as u64;
    }
    let mut copied = Copied {
        left_out: replay.left_out,
        property_hashes: replay.properties,
        durable: Durable {
            batches: replay.sums.len() as u64,
            offset: ByteOffset(0),
            outcome: log.sync().map_err(side)?,
        },
    };
    let mut open: HashMap<u32, (Arc<SourceFile>, usize, bool)> = HashMap::new();
    let mut batcher = job.workers.lane_batcher();
    let mut under: HashMap<u64, Load> = HashMap::new();
    let mut sources = Sources::new(job.bases.to_vec());
    let (reply, replies) = unbounded::<Done>();
    let waker = store.engine().waker();
    let (mut next, mut filling) = (replay.sums.len() as u64, 0);
    // Whole clusters, as they are counted below.
    let total = append.volume().geometry().cluster.len_of(append.data_space().len());
    let (mut saved_at, mut saved_bytes) = (Instant::now(), acknowledged);
    let emit = |acknowledged: u64| {
        let (acknowledged, waiting_for) = (ByteLen(acknowledged), crate::report::Waiting::Nothing);
        (job.events)(Event::Progress { drive: job.index, acknowledged, total, files: 0, waiting_for });
    };
    // What is there already: rates count from here.
    emit(acknowledged);
    loop {
        if job.stop.requested() {
            drain(store.engine());
            return Err(Problem::new(Kind::Interrupted, "stopped on request")
                .drive(name)
                .advice("the volume is what it was before; continue with `--resume`, or roll back with `--abort`"));
        }
        if let Some(problem) = sources.gone() {
            drain(store.engine());
            return Err(problem
                .drive(name)
                .advice("attach it again and continue with `--resume`; the volume is what it was before"));
        }
        let due = next > copied.durable.batches
            && (saved_at.elapsed() >= job.pace.time || acknowledged - saved_bytes >= job.pace.bytes);
        let mut pause = None;
        while !due && filling < FILLS_MAX && !packer.is_done() && (filling == 0 || !io::is_short_of_descriptors()) {
            let Some(mut slot) = pool.take() else { break };
            if let Err(wait) = job.rate_limit.take(slot.len() as u64, Instant::now()) {
                pause = Some(wait.min(WAIT_MAX));
                break;
            }
            let mut load = packer.next();
            map_extents(job, append, &mut load)?;
            let mut reads = Vec::with_capacity(load.parts.len());
            slot[..load.len].fill(0);
            for part in &load.parts {
                let into = part.into..part.into + part.len;
                match source(tree, part, &mut open) {
                    Ok(from) => reads.push(io::Part { into, from }),
                    Err((why, error)) => {
                        if error.is_some() {
                            sources.failed(&tree.source_path(part.file), error.as_ref());
                        }
                        if !sources.is_short() {
                            leave_out(job, log, &mut copied, part.file, why).map_err(side)?;
                        }
                        reads.push(io::Part { into: 0..0, from: From::Target { at: ByteOffset(0) } });
                    }
                }
            }
            under.insert(next, load);
            store.engine().fill(Fill { tag: next, slot, parts: reads });
            filling += 1;
            next += 1;
        }
        while let Ok(done) = replies.try_recv() {
            batcher.complete();
            let Some(load) = under.get_mut(&done.tag) else { continue };
            let hashed = load.parts.iter().filter(|part| part.len > 0);
            for (part, digest) in hashed.zip(&done.digests) {
                if let (true, Digest::Block(md5)) = (part.file >= tree.first_property(), digest) {
                    copied.property_hashes.insert(part.file, *md5);
                    log.property(part.file, *md5).map_err(side)?;
                }
            }
            log.push(done.tag, Some(Sum { len: load.len, crc: done.crc }), done.digests).map_err(side)?;
            write_piece(store.engine(), &mut under, done.tag, done.slot);
        }
        if under.is_empty() {
            let is_done = packer.is_done();
            if is_done || due {
                store.flush()?;
                copied.durable.batches = next;
                // The first file that is not on the drive as a whole.
                copied.durable.offset = ByteOffset(u64::from(packer.file));
                copied.durable.outcome = log.sync().map_err(side)?;
                save(&copied.durable).map_err(side)?;
                (saved_at, saved_bytes) = (Instant::now(), acknowledged);
            }
            if is_done {
                return Ok(copied);
            }
            if let Some(pause) = pause {
                std::thread::sleep(pause);
            }
            continue;
        }
        batcher.flush(under.len() - filling - batcher.waiting() >= BUSY);
        match store.engine().wait(Some(pause.unwrap_or(WAIT_MAX))) {
            Completion::Filled { tag, mut slot, results } => {
                filling -= 1;
                let Some(load) = under.get(&tag) else { continue };
                for (part, result) in load.parts.iter().zip(results) {
                    let is_out = copied.left_out.contains_key(&part.file);
                    let mut why = sources.came(|| tree.source_path(part.file), result, is_out);
                    if let Some((file, reading, all)) = open.get_mut(&part.file) {
                        *reading -= 1;
                        if *reading == 0 && *all {
                            let now = file.facts_now().map_err(|error| error.to_string());
                            why =
                                why.or(now.map_or_else(Some, |now| now.change_since(&expected_facts(tree, part.file))));
                            open.remove(&part.file);
                        }
                    }
                    if let Some(why) = why {
                        slot[part.into..part.into + part.len].fill(0);
                        leave_out(job, log, &mut copied, part.file, why).map_err(side)?;
                    }
                }
                let spans = load.parts.iter().filter(|part| part.len > 0).map(|part| Span {
                    range: part.into..part.into + part.len,
                    how: if tree.blob_type(part.file) == Some(BlobType::Page) { How::Pages } else { How::Block },
                });
                let work = workers::Job {
                    tag,
                    slot,
                    len: load.len,
                    spans: spans.collect(),
                    chain: None,
                    wholes: Vec::new(),
                    whole: None,
                    direction: CipherDirection::Seal,
                    crypt: load.crypt.clone(),
                    cipher: job.what.opened.cipher(),
                    reply: reply.clone(),
                    waker: waker.clone(),
                };
                batcher.push(work);
            }
            Completion::Written { tag, slot, result } => {
                if let Err(error) = result {
                    drain(store.engine());
                    let advice = "the volume is what it was before; check cable and drive (smartctl -a)";
                    let problem = crate::prep::timeouts::no_room(&error.source).unwrap_or_else(|| {
                        Problem::new(Kind::Drive, format!("writing failed: {}", error.source)).advice(advice)
                    });
                    return Err(problem.drive(name).at(error.at));
                }
                let Some(load) = under.get(&tag) else { continue };
                if load.pieces.is_empty() {
                    acknowledged += load.len as u64;
                    store.count(load.len as u64);
                }
                write_piece(store.engine(), &mut under, tag, slot);
                emit(acknowledged);
            }
            Completion::Broken(error) => {
                return Err(Problem::new(Kind::Environment, format!("the I/O engine stopped working: {error}"))
                    .drive(name)
                    .advice("try again with --engine sync"));
            }
            Completion::TimedOut => Timeouts::default().check(store.engine()).map_err(|problem| problem.drive(name))?,
            Completion::Flushed { .. } | Completion::Woken => {}
        }
    }
}

/// Writes the next piece of a slot; the slot goes back when there is none.
fn write_piece(
    engine: &mut (dyn io::Engine + Send),
    under: &mut HashMap<u64, Load>,
    tag: u64,
    mut slot: crate::pool::Slot,
) {
    let piece = under.get_mut(&tag).and_then(|load| load.pieces.pop_front());
    let Some((range, at)) = piece else {
        under.remove(&tag);
        return;
    };
    let len = range.len();
    if range.start > 0 {
        slot.copy_within(range, 0);
    }
    engine.write(tag, slot, len, at);
}

/// Takes back what is under way, so that the slots live as long as the kernel uses them.
fn drain(engine: &mut (dyn io::Engine + Send)) {
    while engine.in_flight() > 0 {
        if matches!(engine.wait(Some(io::DRAIN_MAX)), Completion::Broken(_) | Completion::TimedOut) {
            return;
        }
    }
}

/// Turns clusters of the data space into places on the device.
fn map_extents(job: &Job<'_>, append: &Append, load: &mut Load) -> Result<(), Problem> {
    let cluster = append.volume().geometry().cluster;
    let Some((range, start)) = load.pieces.pop_front() else { return Ok(()) };
    let clusters = LinearRange { start: start.0, len: Clusters(range.len() as u64 / cluster.bytes()) };
    let mut into = 0;
    for extent in append.data_space().extents(clusters) {
        let len = cluster.len_of(extent.len);
        let places = job.what.opened.stored(cluster.offset_of(extent.lcn), len).map_err(|error| {
            Problem::new(Kind::Internal, format!("a place of the volume that cannot be written to: {error}"))
        })?;
        for stored in places {
            let range = into..into + stored.len as usize;
            if let Some(sealed) = stored.sealed {
                load.crypt.push((range.clone(), sealed));
            }
            into = range.end;
            load.pieces.push_back((range, stored.at));
        }
    }
    Ok(())
}

fn source(
    tree: &DriveTree,
    part: &Part,
    open: &mut HashMap<u32, (Arc<SourceFile>, usize, bool)>,
) -> Result<From, (String, Option<std::io::Error>)> {
    let facts = expected_facts(tree, part.file);
    let path = tree.source_path(part.file);
    if facts.len <= SMALL_FILE_MAX {
        let path = SourcePath::new(&path).map_err(|error| (error.to_string(), None))?;
        return Ok(From::Path { path: Arc::new(path), facts });
    }
    let (file, reading, all) = match open.entry(part.file) {
        Entry::Occupied(there) => there.into_mut(),
        Entry::Vacant(vacant) => {
            let file = SourceFile::open(&path, true).map_err(|error| (error.to_string(), Some(error)))?;
            if let Some(change) = file.facts().change_since(&facts) {
                return Err((change, None));
            }
            vacant.insert((Arc::new(file), 0, false))
        }
    };
    *reading += 1;
    *all = part.offset + part.len as u64 == facts.len;
    Ok(From::Open { file: Arc::clone(file), offset: part.offset })
}

fn leave_out(job: &Job<'_>, log: &mut OutcomeLog, copied: &mut Copied, file: u32, why: String) -> std::io::Result<()> {
    if let std::collections::btree_map::Entry::Vacant(vacant) = copied.left_out.entry(file) {
        (job.events)(Event::LeftOut { drive: job.index, path: job.what.tree.source_path(file), why: why.clone() });
        log.left_out(file, &why)?;
        vacant.insert(why);
    }
    Ok(())
}
