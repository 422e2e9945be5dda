//! Verifies one drive against its manifest: read in disk order, compared block by block, extracted in the same pass.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::BufReader;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::azure::copylog::DriveStatus;
use crate::azure::properties::SideKind;
use crate::azure::{Digest as Known, manifest};
use crate::hash::{Md5, crc64, crc64_combine, crc64_zeros, md5_many};
use crate::ntfs::read::{ErrorKind, FileId, NameId, NtfsError, Stream, display_name};
use crate::pool::SLOT_LEN;
use crate::report::{Advice, Command, DriveFacts, Event, Kind, PROGRESS_INTERVAL, Problem, Stage, Stop, Waiting};
use crate::stream::block_reader::{Arrived, BlockReader, SLOT_SPARE};
use crate::stream::timeouts::Timeouts;
use crate::stream::workers::{Digest, Workers};
use crate::surroundings::now;
use crate::units::{ByteLen, VolumeOffset};
use crate::verify::deliver::{Act, Bytes, Deliver, Delivery, Finish};
use crate::verify::extract::Extractor;
use crate::verify::known::Journals;
use crate::verify::listing::{self, Listing, NONE, Subject};
use crate::verify::logs::{self, Asked, Index, Logs};
use crate::verify::result::{Answer, Check, DriveVerdict};
use crate::verify::row::{Counts, Row, Taken, Verdict};
use crate::verify::service::blob::{self as service_blob, Names, Presence, Reading, SideFaults, SideResult, Told};
use crate::verify::service::drive as service;
use crate::verify::work::{Loads, PieceToRead, ReadPlan, SIDE, Seen};
use crate::verify::writer::{Outlet, Writer};
use crate::volume::files::Files;
use crate::volume::find::{Opened, View};

/// Most notes kept in all, and of one blob.
const NOTES_MAX: usize = 100_000;
const BLOB_NOTES_MAX: usize = 8;

/// Length of one read outside the block reader: whole compression units.
const READ_LEN: usize = 1 << 20;

/// Blobs without bytes finished at once.
const EMPTY_AT_ONCE: usize = 256;

/// Request for every drive.
#[derive(Clone, Debug, Default)]
pub struct VerifyRequest {
    /// Path on the drive with a leading `\`, or a file; `None`: the drive is searched for one.
    pub manifest: Option<String>,
    /// Hash that the manifest must have; `None`: that of the drive record.
    pub manifest_hash: Option<Known>,
    /// Prefixes of blob paths; empty for all blobs.
    pub only: Vec<String>,
    /// Directory for extracted blobs; `None` extracts none.
    pub extract_to: Option<PathBuf>,
    /// Extracts every file of the volume: no manifest is looked for, and nothing is compared.
    pub all: bool,
    /// Rehearses the service: a drive that it would refuse is not read further, and the content of every blob is summed
    /// for its logs.
    pub as_service: bool,
}

/// Parameters of judging other than the drive.
#[allow(missing_debug_implementations, reason = "holds a callback")]
pub struct Context<'a> {
    /// Index of the drive, for events.
    pub index: usize,
    /// Manifest, prefixes and destination.
    pub request: &'a VerifyRequest,
    /// Copy logs of the service.
    pub logs: &'a Logs,
    /// Journals that may list the drive.
    pub journals: &'a Journals,
    /// The shared workers.
    pub workers: &'a Workers,
    /// Receives the events of this drive.
    pub events: &'a (dyn Fn(Event) + Sync),
    /// Stop request.
    pub stop: &'a Stop,
    /// Makes the consumer of the blobs, for a drive that is to be imported; excludes extraction.
    pub deliver: Option<&'a Deliver<'a>>,
}

/// A drive that was judged: its summary, and its rows on demand.
#[derive(Debug)]
pub struct Judged<'a> {
    /// The summary. Counts are complete once the rows have been requested.
    pub verdict: DriveVerdict,
    source: Option<RowSource<'a>>,
}

/// Source of the rows.
#[derive(Debug)]
struct RowSource<'a> {
    opened: &'a Opened,
    files: Files<'a>,
    listing: Listing,
    details: BTreeMap<u32, String>,
    crcs: Crcs,
    extractor: Option<Extractor>,
    /// The manifest on the drive; `None` for one from elsewhere.
    manifest: Option<NameId>,
    side_faults: SideFaults,
}

/// A verdict on a drive of which nothing is known but these facts.
pub fn blank(drive: DriveFacts, serial: Option<String>) -> DriveVerdict {
    DriveVerdict {
        drive,
        serial,
        unlocked: "not opened".to_owned(),
        manifest: None,
        checks: Vec::new(),
        counts: Counts::default(),
        bytes_read: 0,
        bytes_asked: 0,
        resumed: 0,
        skipped: 0,
        unlisted: Vec::new(),
        changed: 0,
        taken_out: (0, 0),
        directories: 0,
        unmatched: Vec::new(),
        beginnings: Vec::new(),
        service: (0, 0, 0),
        log_remarks: Vec::new(),
        warnings: Vec::new(),
        log_strays: Vec::new(),
        log_status: None,
        failure: None,
        started: now(),
        elapsed: Duration::ZERO,
    }
}

/// A block or page range, or a metadata or properties file, whose bytes are not those of the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// `container/name` of the blob; of the first one for a file that several have.
    pub blob: String,
    /// Snapshot, on exports.
    pub snapshot: Option<String>,
    /// Path of the damaged file on the drive, with `\`.
    pub file: String,
    /// The file.
    pub id: FileId,
    /// Whether it is the blob's content; otherwise a metadata or properties file.
    pub is_content: bool,
    /// Offset in the file.
    pub offset: u64,
    /// Length in bytes.
    pub len: u32,
    /// MD5 by the manifest.
    pub hash: [u8; 16],
}

/// Verifies a drive. Never fails as a whole: the verdict holds the failure.
pub fn run<'a>(opened: &'a Opened, context: &Context<'_>) -> Judged<'a> {
    let started = Instant::now();
    let mut verdict = DriveVerdict {
        unlocked: opened.unlocked.as_ref().map_or_else(
            || "not encrypted".to_owned(),
            |unlocked| format!("{} (protector {}), {}", unlocked.by, unlocked.protector, unlocked.cipher),
        ),
        warnings: opened.warnings(),
        ..blank(opened.found.drive.clone(), opened.found.serial.clone())
    };
    let stage = |stage| (context.events)(Event::Stage { drive: context.index, stage });
    stage(Stage::Listing);
    let mut checks = service::of_volume(opened);
    let source = match judge(opened, context, &mut verdict, &mut checks) {
        Ok(source) => source,
        Err(problem) => {
            // What the service would refuse is an answer, not a failure.
            let refused = service::refusal(&checks).filter(|status| *status != DriveStatus::ReadManifestFailed);
            if !context.request.as_service || refused.is_none() {
                verdict.failure = Some(problem.drive(&opened.found.drive.name));
            }
            None
        }
    };
    // Questions after one without an answer were not reached; a returned drive is not to be sent.
    verdict.checks = checks;
    verdict.elapsed = started.elapsed();
    stage(match &verdict.failure {
        None => Stage::Done,
        Some(problem) if problem.kind == Kind::Interrupted => Stage::Stopped,
        Some(_) => Stage::Failed,
    });
    Judged { verdict, source }
}

fn judge<'a>(
    opened: &'a Opened,
    context: &Context<'_>,
    verdict: &mut DriveVerdict,
    checks: &mut Vec<Check>,
) -> Result<Option<RowSource<'a>>, Problem> {
    let is_refused = |checks: &[Check]| context.request.as_service && service::refusal(checks).is_some();
    if is_refused(checks) {
        return Ok(None);
    }
    let files = match Files::read(opened) {
        Ok(files) => files,
        Err(problem) => {
            checks.push(service::no(service::NTFS, DriveStatus::VolumeNotNtfs, problem.what.clone()));
            return Err(problem);
        }
    };
    verdict.warnings.extend(files.warnings());
    service::ntfs(checks, &files);
    if context.request.all {
        checks.clear();
        let listing = Listing::of_all(&files, &opened.found.drive.drive_id, &context.request.only);
        verdict.skipped = listing.skipped;
        verdict.unmatched = listing.only.unmatched();
        return carry(opened, context, files, listing, verdict, checks).map(Some);
    }
    let (listing, others) = read_manifest(opened, &files, context, checks)?;
    ask_journals(opened, &listing, context, verdict, checks);
    look_at_others(&files, &listing, others, verdict);
    describe(&listing, context, verdict);
    if is_refused(checks) {
        return Ok(None);
    }
    carry(opened, context, files, listing, verdict, checks).map(Some)
}

/// Reads what is listed, compares it, and gives it to who takes it.
fn carry<'a>(
    opened: &'a Opened,
    context: &Context<'_>,
    files: Files<'a>,
    mut listing: Listing,
    verdict: &mut DriveVerdict,
    checks: &mut Vec<Check>,
) -> Result<RowSource<'a>, Problem> {
    let outlet = outlet(opened, &files, &listing, context, checks)?;
    let is_done = |blob: u32| outlet.as_ref().is_some_and(|outlet| is_done_in(outlet, blob as usize));
    let work = listing.work(&files, &|blob, piece| match &outlet {
        Some(Outlet::Sink(sink)) => sink.wants(blob as usize, piece),
        _ => !is_done(blob),
    });
    verdict.bytes_asked = work.bytes;
    verdict.resumed = (0..listing.subjects.len() as u32).filter(|blob| is_done(*blob)).count() as u64;
    announce(&work, context);
    let writer = outlet.map(|outlet| start_writer(outlet, listing.subjects.len(), &work)).transpose()?;
    let manifest = listing.manifest;
    let (listing, bench, result) = read(opened, &files, context, listing, work, writer);
    verdict.bytes_read = bench.done;
    let Bench { details, writer, crcs, side_faults, .. } = bench;
    if !listing.facts.is_export && !listing.is_all {
        checks.push(service::of_blobs(&files, &listing, &side_faults));
    }
    let extractor = end_writer(writer, result)?;
    Ok(RowSource { opened, files, listing, details, crcs, extractor, manifest, side_faults })
}

/// Finds and reads the manifest, as the service would. Also returns other files that look like one.
fn read_manifest(
    opened: &Opened,
    files: &Files<'_>,
    context: &Context<'_>,
    checks: &mut Vec<Check>,
) -> Result<(Listing, Vec<(NameId, String)>), Problem> {
    let (request, record) = (context.request, opened.record());
    service::of_manifest_name(checks, record);
    let place =
        listing::find(files, request.manifest.as_deref(), record.and_then(|record| record.manifest_file.as_deref()));
    let (place, others) = match place {
        Ok(found) => found,
        Err(problem) => {
            checks.push(service::no(service::MANIFEST, DriveStatus::ManifestNotFound, problem.what.clone()));
            return Err(problem);
        }
    };
    let mut listing = match Listing::read(files, place, &request.only, context.deliver.is_some(), &mut |_| {}) {
        Ok(listing) => listing,
        Err(problem) => {
            checks.push(service::no(service::MANIFEST, DriveStatus::ReadManifestFailed, problem.what.clone()));
            return Err(problem);
        }
    };
    listing.facts.expected = match (request.manifest_hash, record.and_then(|record| record.manifest_hash)) {
        (Some(hash), _) => Some((hash, "as given")),
        (None, Some(hash)) => Some((hash, "drive record")),
        (None, None) => None,
    };
    service::of_manifest(checks, opened, &listing, record);
    Ok((listing, others))
}

/// Compares the drive with the journals that know it.
fn ask_journals(
    opened: &Opened,
    listing: &Listing,
    context: &Context<'_>,
    verdict: &mut DriveVerdict,
    checks: &mut Vec<Check>,
) {
    let serial = opened.found.serial.as_deref();
    let drive_id = listing.facts.drive_id.as_deref().or(serial).unwrap_or(&opened.found.drive.drive_id);
    let (known, notes) = context.journals.ask(drive_id, &listing.facts.md5, opened.record());
    checks.extend(known);
    verdict.warnings.extend(notes);
}

/// Enters into the verdict what the manifest says, and what the service's logs say of it.
fn describe(listing: &Listing, context: &Context<'_>, verdict: &mut DriveVerdict) {
    verdict.skipped = listing.skipped;
    verdict.unmatched = listing.only.unmatched();
    verdict.beginnings = listing.only.nearest();
    if let (count @ 1.., named) = &listing.doubled {
        let (what, more) =
            (if *count == 1 { "blob has" } else { "blobs have" }, if *count > named.len() as u64 { ", …" } else { "" });
        verdict.warnings.push(format!(
            "{count} {what} the name of another blob of the manifest ({}{more}): the service renames, overwrites or passes over \
             one of the two, as its disposition says",
            named.join(", ")
        ));
    }
    if let Some(name) = listing.credential {
        verdict
            .warnings
            .push(format!("the manifest holds a credential in clear text ({name}): whoever has the drive has it"));
    }
    let drive_id = listing.facts.drive_id.as_deref();
    verdict.log_status = context.logs.status_of(drive_id);
    let listed = listing.subjects.len() as u64 + listing.skipped;
    verdict.log_remarks = context.logs.remarks(drive_id, listed);
    verdict.manifest = Some(listing.facts.clone());
}

/// Opens the destination of the blobs, if they have one.
fn outlet(
    opened: &Opened,
    files: &Files<'_>,
    listing: &Listing,
    context: &Context<'_>,
    checks: &[Check],
) -> Result<Option<Outlet>, Problem> {
    Ok(match (context.deliver, &context.request.extract_to) {
        (Some(deliver), _) => {
            importable(checks)?;
            Some(Outlet::Sink(deliver(&Delivery { files, listing })?))
        }
        (None, Some(dir)) => Some(Outlet::Files(Box::new(extractor(opened, files, listing, dir)?))),
        (None, None) => None,
    })
}

/// Reports the work before the first byte of it. No progress is reported earlier: the total is known only now.
fn announce(work: &ReadPlan, context: &Context<'_>) {
    (context.events)(Event::Progress {
        drive: context.index,
        acknowledged: ByteLen(0),
        total: ByteLen(work.bytes),
        files: 0,
        waiting_for: Waiting::Drive,
    });
    let stage = if context.deliver.is_some() { Stage::Importing } else { Stage::Verifying };
    (context.events)(Event::Stage { drive: context.index, stage });
}

/// Starts the writer of `blobs` blobs. Also returns the blobs without a byte to read: they are whole as they are.
fn start_writer(outlet: Outlet, blobs: usize, work: &ReadPlan) -> Result<(Writer, Vec<usize>), Problem> {
    let undone: Vec<usize> = (0..blobs).filter(|blob| !is_done_in(&outlet, *blob)).collect();
    let started = Writer::start(outlet, blobs, work)?;
    let empty = undone.into_iter().filter(|blob| started.is_empty(*blob)).collect();
    Ok((started, empty))
}

/// Ends the writer, and returns the extractor if there was one. `read` is the end of the reading.
fn end_writer(writer: Option<Writer>, read: Result<(), Problem>) -> Result<Option<Extractor>, Problem> {
    let Some(writer) = writer else { return read.map(|()| None) };
    // The error that stopped the writing is the cause of the one that stopped the reading.
    match writer.end()? {
        (Outlet::Files(mut taken), written) => {
            written.and_then(|()| taken.checkpoint()).and(read)?;
            Ok(Some(*taken))
        }
        (Outlet::Sink(_), written) => written.and(read).map(|()| None),
    }
}

/// Whether nothing of a blob is outstanding, by an earlier run.
fn is_done_in(outlet: &Outlet, blob: usize) -> bool {
    match outlet {
        Outlet::Files(extractor) => extractor.is_done(blob),
        Outlet::Sink(sink) => sink.is_done(blob),
    }
}

/// Refuses a drive that the service would not import. Checks of dray's own have no status.
fn importable(checks: &[Check]) -> Result<(), Problem> {
    let refusing = checks.iter().filter(|check| check.answer == Answer::No);
    refusing.filter_map(|check| Some((check, check.status?))).next().map_or(Ok(()), |(check, status)| {
        let what = format!("the service would not import this drive: {status} ({})", check.question);
        Err(Problem::new(Kind::Refused, what)
            .value(check.seen.clone())
            .advice(Advice::from(Command::Rehearse) + " shows every check"))
    })
}

/// Opens the directory for the blobs.
fn extractor(opened: &Opened, files: &Files<'_>, listing: &Listing, dir: &Path) -> Result<Extractor, Problem> {
    let drive_id = listing.facts.drive_id.clone().unwrap_or_else(|| opened.found.drive.drive_id.clone());
    let name = |blob: usize| (listing.blob_path(files, blob), listing.snapshots.get(&(blob as u32)).cloned());
    let names = (0..listing.subjects.len()).map(name);
    let taken = Extractor::open(dir, &drive_id, &listing.facts.md5, &very_drive(opened), names)?;
    taken.refuse_overwriting(&name)?;
    Ok(taken)
}

/// Identifies this drive in its present state, and an image since it was last written to.
fn very_drive(opened: &Opened) -> String {
    let drive = &opened.found.drive;
    let reported = std::fs::metadata(&drive.path).ok().filter(std::fs::Metadata::is_file).map(|meta| {
        let times = (meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
        format!("file {} {} {} {times:?}", meta.dev(), meta.ino(), meta.len())
    });
    reported.unwrap_or_else(|| {
        let serial = opened.found.serial.clone().unwrap_or_else(|| drive.path.display().to_string());
        format!("drive {serial} {}", drive.size.0)
    })
}

/// Examines manifests that are not used: blobs listed only there were not compared.
fn look_at_others(files: &Files<'_>, listing: &Listing, others: Vec<(NameId, String)>, verdict: &mut DriveVerdict) {
    let mut known: Option<HashSet<(String, String)>> = None;
    for (name, path) in others {
        let file = files.catalog.file_of(name);
        let mut blobs = 0;
        // One that is a blob itself is data.
        if let Ok(input) = files.open(file)
            && !listing.is_named(file)
        {
            let known = known.get_or_insert_with(|| {
                let all = 0..listing.subjects.len();
                all.map(|blob| (listing.blob_path(files, blob), listing.file_path(files, blob))).collect()
            });
            let mut input = BufReader::with_capacity(READ_LEN, input);
            let mut reader = manifest::Reader::new(&mut input);
            while let Ok(Some(event)) = reader.next_event() {
                if let manifest::Event::BlobStart(start) = event
                    && listing.only.would_take(&start.blob_path)
                    && !known.contains(&(start.blob_path, start.file_path))
                {
                    blobs += 1;
                }
            }
        }
        if blobs > 0 {
            verdict.unlisted.push((path, blobs));
        } else {
            verdict.warnings.push(format!("another manifest lies on the drive and is not used: {path}"));
        }
    }
}

/// Reads the items of `work` in disk order, and compares them. A writer gets the data; the blobs in `beside` have no
/// bytes to read and are finished first.
pub(super) fn read<'a>(
    opened: &'a Opened,
    files: &'a Files<'a>,
    context: &'a Context<'a>,
    listing: Listing,
    work: ReadPlan,
    writer: Option<(Writer, Vec<usize>)>,
) -> (Listing, Bench<'a>, Result<(), Problem>) {
    let (writer, empty) = writer.unzip();
    let index = context.logs.index(listing.facts.drive_id.as_deref());
    let wanted = (0..listing.subjects.len()).filter(|blob| {
        context.request.as_service
            || index.has_crc && index.wants_crc(&listing.blob_path(files, *blob), &listing.file_path(files, *blob))
    });
    let crcs = wanted.map(|blob| (blob as u32, BTreeMap::new())).collect();
    let mut bench = Bench {
        opened,
        files,
        context,
        details: BTreeMap::new(),
        broken: HashSet::new(),
        crcs,
        side_faults: SideFaults::new(),
        done: 0,
        total: work.bytes,
        reported_at: Instant::now(),
        writer,
    };
    let listing = RefCell::new(listing);
    // A consumer needs metadata and properties with the first byte of a blob, and with the end of an empty one.
    let [sides, blobs] = if context.deliver.is_some() { work.apart() } else { [ReadPlan::default(), work] };
    let mut result = bench
        .pass(&listing, sides)
        .and_then(|()| bench.finish_empty(&listing, empty.unwrap_or_default()))
        .and_then(|()| bench.pass(&listing, blobs));
    while result.is_ok() {
        let work = bench.again(&listing);
        if work.bytes == 0 {
            break;
        }
        result = bench.pass(&listing, work);
    }
    (listing.into_inner(), bench, result)
}

/// CRC-64 of the parts of blobs read so far, by offset: length and value.
pub(super) type Crcs = HashMap<u32, BTreeMap<u64, (u64, u64)>>;

/// CRC-64 of a whole blob from its parts. Bytes in no part are zeros: page blobs list their non-zero ranges.
fn crc_of(parts: &BTreeMap<u64, (u64, u64)>, length: u64) -> Option<u64> {
    let (mut at, mut crc) = (0, crc64(&[]));
    for (from, (len, value)) in parts {
        let gap = from.checked_sub(at)?;
        crc = crc64_combine(crc64_combine(crc, crc64_zeros(gap), gap), *value, *len);
        at = from + len;
    }
    let rest = length.checked_sub(at)?;
    Some(crc64_combine(crc, crc64_zeros(rest), rest))
}

/// State of the comparison.
pub(super) struct Bench<'a> {
    opened: &'a Opened,
    files: &'a Files<'a>,
    context: &'a Context<'a>,
    /// Details of differing pieces.
    pub details: BTreeMap<u32, String>,
    /// Long blocks with an unreadable part.
    broken: HashSet<u32>,
    /// CRC-64 of blobs whose CRC is in a log: the parts read, by offset.
    crcs: Crcs,
    /// Faults of the contents of metadata and properties files of an import.
    pub side_faults: SideFaults,
    /// Bytes read so far, of all blobs.
    pub done: u64,
    total: u64,
    reported_at: Instant,
    writer: Option<Writer>,
}

impl Bench<'_> {
    /// Reads and judges the items of `work`: those in the block reader's reach, those in records, the others.
    fn pass(&mut self, listing: &RefCell<Listing>, work: ReadPlan) -> Result<(), Problem> {
        if work.is_empty() {
            return Ok(());
        }
        let beside = RefCell::new(work.singly);
        let road = BlockReader {
            medium: self.opened.medium(),
            cipher: self.opened.cipher(),
            workers: self.context.workers,
            stop: self.context.stop,
            slot_len: SLOT_LEN + SLOT_SPARE,
            timeouts: Timeouts::default(),
        };
        let loads = Loads::new(self.opened, self.files, listing, work.road, &beside);
        road.run(loads, |arrived| self.arrived(listing, arrived, &beside))?;
        let mut rest = beside.into_inner();
        self.resident(listing, work.resident, &mut rest)?;
        rest.sort_unstable();
        rest.dedup();
        self.singly(listing, rest)
    }

    /// Blocks that the consumer requests again, as if they had not been read.
    fn again(&mut self, listing: &RefCell<Listing>) -> ReadPlan {
        let wanted: HashSet<(u32, u32)> = match &self.writer {
            Some(writer) => writer.again().into_iter().map(|(blob, piece)| (blob as u32, piece)).collect(),
            None => return ReadPlan::default(),
        };
        if wanted.is_empty() {
            return ReadPlan::default();
        }
        let listing = &mut *listing.borrow_mut();
        for (blob, piece) in &wanted {
            let at = listing.subjects[*blob as usize].pieces_at + piece;
            let known = &mut listing.pieces[at as usize];
            known.verdict = if known.has_hash { Verdict::Equal } else { Verdict::NoReference };
            self.broken.remove(&at);
            self.details.remove(&at);
        }
        let [_, work] = listing.work(self.files, &|blob, piece| wanted.contains(&(blob, piece))).apart();
        let len = |item: &PieceToRead| u64::from(listing.pieces[item.piece as usize].len);
        let bytes = [&work.road, &work.resident, &work.singly].into_iter().flatten().map(len).sum();
        self.total += bytes;
        if let Some(writer) = &mut self.writer {
            writer.expect(&work);
        }
        ReadPlan { bytes, ..work }
    }

    fn report(&mut self, bytes: u64) {
        self.done += bytes;
        if self.reported_at.elapsed() >= PROGRESS_INTERVAL || self.done == self.total {
            self.reported_at = Instant::now();
            (self.context.events)(Event::Progress {
                drive: self.context.index,
                acknowledged: ByteLen(self.done),
                total: ByteLen(self.total),
                files: 0,
                waiting_for: Waiting::Drive,
            });
        }
    }

    fn arrived(
        &mut self,
        listing: &RefCell<Listing>,
        arrived: Arrived<Vec<Seen>>,
        beside: &RefCell<Vec<PieceToRead>>,
    ) -> Result<(), Problem> {
        if arrived.failure.is_some() {
            // The good ones first: these are tried again one by one at the end.
            for seen in arrived.what {
                if self.broken.insert(seen.item.piece) {
                    beside.borrow_mut().push(seen.item);
                }
            }
            return Ok(());
        }
        let mut acts = Vec::new();
        for (seen, digest) in arrived.what.iter().zip(&arrived.digests) {
            if self.broken.contains(&seen.item.piece) {
                continue;
            }
            self.report(seen.range.len() as u64);
            self.sum(seen.item, seen.from, &arrived.bytes[seen.range.clone()]);
            self.take_out(&mut acts, listing, seen.item, seen.from, seen.range.clone());
            let md5 = match digest {
                Digest::Block(md5) => *md5,
                Digest::Pages(_) | Digest::Whole(_) | Digest::Unfinished => continue,
            };
            self.compare(&mut listing.borrow_mut(), seen.item, md5);
            self.look(&listing.borrow(), seen.item, &arrived.bytes[seen.range.clone()]);
            self.finished(listing, seen.item, &mut acts);
        }
        self.give(Bytes::Held(arrived.bytes), acts)
    }

    /// Adds bytes at offset `from` of the item's file to its CRC-64.
    fn sum(&mut self, item: PieceToRead, from: u64, bytes: &[u8]) {
        if let Some(parts) = self.crcs.get_mut(&item.owner) {
            parts.insert(from, (bytes.len() as u64, crc64(bytes)));
        }
    }

    /// Checks the contents of a metadata or properties file, as the service does before it sets them.
    fn look(&mut self, listing: &Listing, item: PieceToRead, bytes: &[u8]) {
        if item.owner & SIDE == 0 || listing.facts.is_export {
            return;
        }
        let side = item.owner & !SIDE;
        let kind = listing.side_kinds.get(side as usize).copied().unwrap_or(SideKind::Metadata);
        if let Some(fault) = service_blob::side_fault(bytes, kind) {
            self.side_faults.insert(side, fault);
        }
    }

    fn compare(&mut self, listing: &mut Listing, item: PieceToRead, md5: [u8; 16]) {
        let piece = &mut listing.pieces[item.piece as usize];
        if piece.has_hash && piece.hash != md5 {
            piece.verdict = Verdict::Different;
            let at = self.opened.device_offset(VolumeOffset(item.at));
            let what = format!("bytes {} to {}: different (on the drive from byte {at})", piece.offset, end(piece));
            self.note(item.piece, what);
        }
    }

    fn note(&mut self, piece: u32, what: String) {
        if self.details.len() < NOTES_MAX {
            self.details.insert(piece, what);
        }
    }

    /// Orders the extraction of bytes at offset `from` of the item's file.
    fn take_out(
        &self,
        acts: &mut Vec<Act>,
        listing: &RefCell<Listing>,
        item: PieceToRead,
        from: u64,
        bytes: Range<usize>,
    ) {
        if self.writer.is_some() {
            let first = listing.borrow().subject(item.owner).pieces_at;
            acts.push(match item.owner & SIDE {
                0 => Act::Write { blob: item.owner as usize, piece: item.piece - first, at: from, bytes },
                _ => Act::Keep { side: item.owner & !SIDE, bytes },
            });
        }
    }

    fn give(&self, bytes: Bytes, acts: Vec<Act>) -> Result<(), Problem> {
        match &self.writer {
            Some(writer) if !acts.is_empty() => writer.give(bytes, acts),
            _ => Ok(()),
        }
    }

    /// Counts a judged piece; with the last one of a blob its file is finished.
    fn finished(&mut self, listing: &RefCell<Listing>, item: PieceToRead, acts: &mut Vec<Act>) {
        let Some(writer) = &mut self.writer else { return };
        let listing = &*listing.borrow();
        let verdict = listing.pieces[item.piece as usize].verdict;
        if item.owner & SIDE != 0 {
            acts.push(Act::JudgedSide { side: item.owner & !SIDE, verdict });
            return;
        }
        let piece = item.piece - listing.subject(item.owner).pieces_at;
        acts.push(Act::Judged { blob: item.owner as usize, piece, verdict });
        if writer.is_last(item.owner as usize) {
            acts.extend(finish(self.files, listing, item.owner));
        }
    }

    fn finish_empty(&self, listing: &RefCell<Listing>, blobs: Vec<usize>) -> Result<(), Problem> {
        let listing = listing.borrow();
        let mut all = blobs.into_iter().filter_map(|blob| finish(self.files, &listing, blob as u32)).peekable();
        while all.peek().is_some() {
            self.give(Bytes::Own(Vec::new()), all.by_ref().take(EMPTY_AT_ONCE).collect())?;
        }
        Ok(())
    }

    /// Judges data inside `$MFT` records, all in one more linear scan.
    fn resident(
        &mut self,
        listing: &RefCell<Listing>,
        items: Vec<PieceToRead>,
        rest: &mut Vec<PieceToRead>,
    ) -> Result<(), Problem> {
        // For a few a scan is too much.
        if items.len() < 64 {
            rest.extend(items);
            return Ok(());
        }
        let mut found: HashSet<(u32, u32)> = HashSet::new();
        let mut failure = None;
        let scanned = self.files.volume.scan(&mut View(self.opened), |record| {
            let first = items.partition_point(|item| item.at < record.number);
            let here = items[first..].iter().take_while(|item| item.at == record.number);
            let Ok(file) = &record.file else { return Ok(()) };
            let Some(bytes) = file.data(&[]).and_then(Stream::resident) else { return Ok(()) };
            for item in here {
                let piece = listing.borrow().pieces[item.piece as usize];
                let from = usize::try_from(piece.offset).unwrap_or(usize::MAX);
                let Some(bytes) = bytes.get(from..).and_then(|bytes| bytes.get(..piece.len as usize)) else { continue };
                found.insert((item.owner, item.piece));
                let outcome = self.whole(listing, *item, bytes);
                if failure.is_none() {
                    failure = outcome.err();
                }
            }
            Ok(())
        });
        if let Some(problem) = failure {
            return Err(problem);
        }
        // Items that the scan did not show are read one by one, which reports the reason.
        let _ = scanned;
        rest.extend(items.into_iter().filter(|item| !found.contains(&(item.owner, item.piece))));
        Ok(())
    }

    /// Judges a piece of which all bytes are given.
    fn whole(&mut self, listing: &RefCell<Listing>, item: PieceToRead, bytes: &[u8]) -> Result<(), Problem> {
        let mut md5 = [[0; 16]];
        md5_many(&[bytes], &mut md5);
        self.report(bytes.len() as u64);
        let from = listing.borrow().pieces[item.piece as usize].offset;
        let mut acts = Vec::new();
        self.sum(item, from, bytes);
        self.take_out(&mut acts, listing, item, from, 0..bytes.len());
        self.compare(&mut listing.borrow_mut(), item, md5[0]);
        self.look(&listing.borrow(), item, bytes);
        self.finished(listing, item, &mut acts);
        if acts.is_empty() { Ok(()) } else { self.give(Bytes::Own(bytes.to_vec()), acts) }
    }

    /// Judges items that the block reader cannot read, or failed on: through the file system's reader, down to single
    /// sectors.
    fn singly(&mut self, listing: &RefCell<Listing>, items: Vec<PieceToRead>) -> Result<(), Problem> {
        let mut open: Option<(FileId, Result<Stream, NtfsError>)> = None;
        let mut buffer = vec![0; READ_LEN];
        for item in items {
            if self.context.stop.requested() {
                return Err(Problem::new(Kind::Interrupted, "stopped on request"));
            }
            let (subject, piece) = {
                let listing = listing.borrow();
                (*listing.subject(item.owner), listing.pieces[item.piece as usize])
            };
            let Some(name) = subject.name else { continue };
            let file = self.files.catalog.file_of(name);
            if open.as_ref().is_none_or(|(known, _)| *known != file) {
                let stream = self.files.catalog.open(&self.files.volume, &mut View(self.opened), file);
                open = Some((file, stream));
            }
            let Some((_, stream)) = &open else { continue };
            // Parts from a failed attempt are summed again.
            if let Some(parts) = self.crcs.get_mut(&item.owner) {
                parts.retain(|from, _| !(piece.offset..end(&piece)).contains(from));
            }
            let mut bad: Vec<(u64, u64, String)> = Vec::new();
            let mut chain = Md5::new();
            match stream {
                Err(error) => bad.push((piece.offset, end(&piece), error.to_string())),
                Ok(stream) => {
                    let mut at = piece.offset;
                    while at < end(&piece) {
                        let len = (end(&piece) - at).min(READ_LEN as u64 - at % READ_LEN as u64) as usize;
                        self.halves(stream, at, &mut buffer[..len], &mut bad);
                        self.sum(item, at, &buffer[..len]);
                        let mut acts = Vec::new();
                        self.take_out(&mut acts, listing, item, at, 0..len);
                        if !acts.is_empty() {
                            self.give(Bytes::Own(buffer[..len].to_vec()), acts)?;
                        }
                        chain.update(&buffer[..len]);
                        self.report(len as u64);
                        at += len as u64;
                    }
                }
            }
            if bad.is_empty() {
                self.compare(&mut listing.borrow_mut(), item, chain.finish());
                // Longer ones are not read whole; no metadata file has more than 1 MiB.
                if let Some(bytes) = buffer.get(..piece.len as usize).filter(|_| piece.offset == 0) {
                    self.look(&listing.borrow(), item, bytes);
                }
            } else {
                listing.borrow_mut().pieces[item.piece as usize].verdict = Verdict::Unreadable;
                let bytes: u64 = bad.iter().map(|(from, to, _)| to - from).sum();
                let (from, to, why) = &bad[0];
                let more =
                    if bad.len() > 1 { format!("; {bytes} bytes in {} places", bad.len()) } else { String::new() };
                self.note(item.piece, format!("bytes {from} to {to}: unreadable ({why}){more}"));
            }
            let mut acts = Vec::new();
            self.finished(listing, item, &mut acts);
            self.give(Bytes::Own(Vec::new()), acts)?;
        }
        Ok(())
    }

    /// Reads in halves down to a sector, so that a bad one costs only itself.
    fn halves(&self, stream: &Stream, at: u64, into: &mut [u8], bad: &mut Vec<(u64, u64, String)>) {
        let outcome = self.files.volume.read_range(&mut View(self.opened), stream, at, into);
        let error = match outcome {
            Ok(got) => {
                into[got..].fill(0);
                return;
            }
            Err(error) => error,
        };
        let unit = self.opened.unit() as usize;
        let is_device = matches!(error.kind, ErrorKind::Read(_));
        if !is_device || into.len() <= unit {
            into.fill(0);
            let why = match &error.kind {
                ErrorKind::Read(read) => {
                    format!("{}; on the drive at byte {}", read.message, self.opened.device_offset(read.at))
                }
                _ => error.to_string(),
            };
            let end = at + into.len() as u64;
            match bad.last_mut() {
                Some(last) if last.1 == at => last.1 = end,
                _ => bad.push((at, end, why)),
            }
            return;
        }
        let half = (into.len() / 2).next_multiple_of(unit).min(into.len());
        let (first, second) = into.split_at_mut(half);
        self.halves(stream, at, first, bad);
        if !second.is_empty() {
            self.halves(stream, at + half as u64, second, bad);
        }
    }
}

/// The facts for finishing a blob's file; `None` if it has no file.
fn finish(files: &Files<'_>, listing: &Listing, blob: u32) -> Option<Act> {
    let subject = &listing.subjects[blob as usize];
    let info = files.catalog.info(files.catalog.file_of(subject.name?));
    if info.directory {
        return None;
    }
    Some(Act::Finish(Box::new(Finish {
        blob: blob as usize,
        path: listing.blob_path(files, blob as usize),
        snapshot: listing.snapshots.get(&blob).cloned(),
        // Where the manifest has another length, the drive's counts.
        length: subject.length.min(info.size),
        times: info.times,
        is_whole: worst(listing, subject) <= Verdict::NoReference,
    })))
}

fn end(piece: &listing::Piece) -> u64 {
    piece.offset.saturating_add(u64::from(piece.len))
}

/// A blob without contents, in the memory of another.
fn blob_of(mut other: manifest::Blob) -> manifest::Blob {
    other.pieces.clear();
    manifest::Blob { pieces: other.pieces, ..manifest::Blob::default() }
}

/// The worst verdict of a subject and its pieces.
fn worst(listing: &Listing, subject: &Subject) -> Verdict {
    let pieces = &listing.pieces[subject.pieces_at as usize..][..subject.pieces_len as usize];
    pieces.iter().map(|piece| piece.verdict).fold(subject.verdict, Verdict::max)
}

impl Judged<'_> {
    /// Passes every row to `see`: the blobs in the order of the manifest, then the files missing in it. Counts them.
    ///
    /// # Errors
    /// The description of extracted blobs cannot be written.
    pub fn rows(&mut self, logs: &Logs, see: &mut dyn FnMut(&Row)) -> Result<(), Problem> {
        let Some(source) = &mut self.source else { return Ok(()) };
        let mut counts = Counts::default();
        let drive_id = source.listing.facts.drive_id.clone();
        let mut index = logs.index(drive_id.as_deref());
        let is_asked = !logs.is_empty();
        if is_asked {
            let (files, listing) = (&source.files, &source.listing);
            (0..listing.subjects.len())
                .for_each(|blob| index.meet(&listing.blob_path(files, blob), &listing.file_path(files, blob)));
            listing.passed.iter().for_each(|keys| index.pass(*keys));
        }
        for blob in 0..source.listing.subjects.len() {
            let mut row = source.row(blob);
            if is_asked {
                source.ask(&index, blob, &mut row);
                let counts = &mut self.verdict.service;
                match row.taken {
                    Some(Taken::Not) => counts.0 += 1,
                    Some(Taken::Renamed) => counts.1 += 1,
                    Some(Taken::Other) => counts.2 += 1,
                    Some(Taken::Same) | None => {}
                }
            }
            if source.extractor.is_some() {
                source.describe(blob, &row)?;
            }
            // A differing blob counts by its verdict; an equal one that could not be extracted fails the drive.
            if row.verdict == Verdict::Equal
                && let Some(problem) = source.refusal(blob, &row)
            {
                self.verdict.failure.get_or_insert(problem);
            }
            counts.add(&row);
            self.verdict.changed += u64::from(row.changed);
            if row.extracted.is_some() {
                self.verdict.taken_out.0 += 1;
                // A manifest may say any length.
                self.verdict.taken_out.1 = self.verdict.taken_out.1.saturating_add(row.length);
            }
            see(&row);
        }
        for row in source.unnamed() {
            counts.add(&row);
            see(&row);
        }
        if source.listing.is_all {
            self.verdict.directories = source.directories()?;
        }
        if let Some(extractor) = &mut source.extractor {
            extractor.end()?;
            self.verdict.warnings.extend(extractor.renamed());
        }
        self.verdict.log_strays = drive_id.as_deref().map(|id| logs.strays(Some(id))).unwrap_or_default();
        self.verdict.counts = counts;
        Ok(())
    }
}

impl Judged<'_> {
    /// The blocks whose bytes differ or cannot be read, in the order of the manifest, and the blobs that no block can put
    /// right, with the reason.
    pub fn damaged(&self) -> (Vec<Damaged>, Vec<(String, String)>) {
        let (mut out, mut beyond) = (Vec::new(), Vec::new());
        let Some(source) = &self.source else { return (out, beyond) };
        let mut seen = HashSet::new();
        for index in 0..source.listing.subjects.len() {
            let blob = source.listing.blob_path(&source.files, index);
            let facts = source.listing.blobs[index];
            let snapshot = source.listing.snapshots.get(&(index as u32)).cloned();
            let sides =
                [facts.metadata, facts.properties].into_iter().filter(|side| *side != NONE && seen.insert(*side));
            let subjects = std::iter::once((&source.listing.subjects[index], true));
            let sides = sides.filter_map(|side| Some((source.listing.sides.get(side as usize)?, false)));
            for (subject, is_content) in subjects.chain(sides) {
                match source.damaged(subject) {
                    Ok((id, pieces)) => out.extend(pieces.into_iter().map(|piece| Damaged {
                        blob: blob.clone(),
                        snapshot: snapshot.clone(),
                        file: source.path_of(subject.name),
                        id,
                        is_content,
                        offset: piece.offset,
                        len: piece.len,
                        hash: piece.hash,
                    })),
                    Err(why) => beyond.push((blob.clone(), why.to_string())),
                }
            }
        }
        (out, beyond)
    }

    /// Passes what the service would say of every blob to `see`, in the order of the manifest; nothing for a drive that
    /// it refuses. `names`: of all drives of the run.
    ///
    /// # Errors
    /// Those of `see`, or the manifest cannot be read a second time.
    pub fn told(&self, names: &mut Names, see: &mut dyn FnMut(&Told) -> Result<(), Problem>) -> Result<(), Problem> {
        let Some((source, manifest)) = self.source.as_ref().and_then(|source| Some((source, source.manifest?))) else {
            return Ok(());
        };
        source.told(manifest, names, see).map_err(|problem| problem.drive(&source.opened.found.drive.name))
    }
}

/// Reason why writing blocks cannot put a file right.
#[derive(Debug, thiserror::Error)]
enum Unmendable {
    #[error("the file is missing, and no file is made")]
    Missing,
    #[error("a directory is in its place")]
    Directory,
    #[error("the file has {size} bytes instead of {wanted}, and no file is grown or cut")]
    Length { size: u64, wanted: u64 },
    #[error("the manifest has no MD5 for the block at {0}")]
    NoHash(u64),
}

impl RowSource<'_> {
    /// The damaged pieces of a file.
    ///
    /// # Errors
    /// The reason why writing blocks cannot put it right.
    fn damaged(&self, subject: &Subject) -> Result<(FileId, Vec<listing::Piece>), Unmendable> {
        let Some(name) = subject.name else { return Err(Unmendable::Missing) };
        let id = self.files.catalog.file_of(name);
        let info = self.files.catalog.info(id);
        if info.directory {
            return Err(Unmendable::Directory);
        }
        if info.size != subject.length {
            return Err(Unmendable::Length { size: info.size, wanted: subject.length });
        }
        let pieces = &self.listing.pieces[subject.pieces_at as usize..][..subject.pieces_len as usize];
        let bad: Vec<listing::Piece> = pieces
            .iter()
            .filter(|piece| matches!(piece.verdict, Verdict::Different | Verdict::Unreadable))
            .copied()
            .collect();
        match bad.iter().find(|piece| !piece.has_hash) {
            Some(piece) => Err(Unmendable::NoHash(piece.offset)),
            None => Ok((id, bad)),
        }
    }

    fn path_of(&self, name: Option<NameId>) -> String {
        let path = name.and_then(|name| self.files.catalog.path(name));
        path.map(|path| display_name(&path)).unwrap_or_default()
    }

    /// Joins the entries of the manifest, which is read again, with the results: block ids and dispositions of millions
    /// of blocks are not held.
    fn told(
        &self,
        manifest: NameId,
        names: &mut Names,
        see: &mut dyn FnMut(&Told) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let file = self.files.open(self.files.catalog.file_of(manifest))?;
        let mut input = BufReader::with_capacity(READ_LEN, file);
        let mut reader = manifest::Reader::new(&mut input);
        let (mut head, mut blob, mut index) = (manifest::ListHead::default(), manifest::Blob::default(), 0);
        let failed = |error: crate::azure::XmlError| Problem::new(Kind::Drive, format!("the manifest: {error}"));
        while let Some(event) = reader.next_event().map_err(failed)? {
            match event {
                manifest::Event::ListStart(start) => head = start,
                manifest::Event::BlobStart(start) => blob = manifest::Blob { start: *start, ..blob_of(blob) },
                manifest::Event::Piece(piece) => blob.pieces.push(piece),
                manifest::Event::BlobEnd(end) => {
                    blob.end = end;
                    if index >= self.listing.subjects.len() {
                        return Err(Problem::new(Kind::Drive, "the manifest reads differently the second time"));
                    }
                    see(&self.tell(index, &blob, &head, names))?;
                    index += 1;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn tell(&self, index: usize, blob: &manifest::Blob, head: &manifest::ListHead, names: &mut Names) -> Told {
        let listing = &self.listing;
        let subject = &listing.subjects[index];
        let presence = subject.name.map(|name| self.files.catalog.info(self.files.catalog.file_of(name)));
        let presence = match presence {
            None => Presence::Missing,
            Some(info) if info.directory => Presence::Directory,
            Some(info) => Presence::File(info.size),
        };
        let all = &listing.pieces[subject.pieces_at as usize..][..subject.pieces_len as usize];
        let pieces: Vec<(u64, Verdict)> = all.iter().map(|piece| (end(piece), piece.verdict)).collect();
        let side = |side: u32| {
            let subject = listing.sides.get(side as usize).filter(|_| side != NONE)?;
            Some(SideResult { verdict: worst(listing, subject), fault: self.side_faults.get(&side).cloned() })
        };
        let facts = listing.blobs[index];
        let crc64 = self.crcs.get(&(index as u32)).and_then(|parts| crc_of(parts, subject.length));
        let reading = Reading {
            presence,
            pieces: &pieces,
            metadata: side(facts.metadata),
            properties: side(facts.properties),
            crc64,
        };
        service_blob::tell(blob, head, &reading, names)
    }

    /// Adds the entries of the logs to a row.
    fn ask(&self, index: &Index<'_>, blob: usize, row: &mut Row) {
        let subject = &self.listing.subjects[blob];
        let pieces = || {
            let all = &self.listing.pieces[subject.pieces_at as usize..][..subject.pieces_len as usize];
            logs::pieces(all.iter().map(|one| (one.offset, u64::from(one.len), one.has_hash.then_some(one.hash))))
        };
        let crc64 = self.crcs.get(&(blob as u32)).filter(|_| row.verdict <= Verdict::NoReference);
        let (taken, said) = index.ask(&Asked {
            blob: row.blob.as_deref().unwrap_or_default(),
            file: &row.file,
            length: subject.length,
            pieces: if index.has_pieces { pieces() } else { None },
            crc64: crc64.and_then(|parts| crc_of(parts, subject.length)),
        });
        (row.taken, row.service) = (taken, said);
    }

    fn row(&self, blob: usize) -> Row {
        let listing = &self.listing;
        let subject = &listing.subjects[blob];
        let facts = &listing.blobs[blob];
        let own = listing.notes.get(&(blob as u32)).cloned().unwrap_or_default();
        let range = subject.pieces_at..subject.pieces_at + subject.pieces_len;
        let mut notes: Vec<String> = own;
        notes.extend(self.details.range(range.clone()).take(BLOB_NOTES_MAX).map(|(_, note)| note.clone()));
        let more = self.details.range(range).count().saturating_sub(BLOB_NOTES_MAX);
        if more > 0 {
            notes.push(format!("and {more} more"));
        }
        let side = |side: u32, what: &str, notes: &mut Vec<String>| {
            let side = listing.sides.get(side as usize).filter(|_| side != NONE)?;
            let verdict = worst(listing, side);
            if verdict != Verdict::Equal {
                notes.push(format!("{what} file: {}", verdict.word()));
            }
            Some(verdict)
        };
        let metadata = side(facts.metadata, "metadata", &mut notes);
        let properties = side(facts.properties, "properties", &mut notes);
        let sides = [metadata, properties].into_iter().flatten().map(|side| side.min(Verdict::Unreadable));
        let verdict = sides.fold(worst(listing, subject), Verdict::max);
        let changed = self.extractor.as_ref().is_some_and(|extractor| extractor.is_other(blob));
        if changed {
            notes.push("what lies in the directory from an earlier run is not what is on the drive".to_owned());
        }
        if let Some(extractor) = &self.extractor {
            notes.extend(extractor.refused(blob).map(|why| format!("could not be taken out: {why}")));
        }
        Row {
            verdict,
            blob: Some(listing.blob_path(&self.files, blob)),
            snapshot: listing.snapshots.get(&(blob as u32)).cloned(),
            file: listing.file_path(&self.files, blob),
            length: subject.length,
            pieces: u64::from(subject.pieces_len),
            notes,
            metadata,
            properties,
            service: None,
            taken: None,
            changed,
            earlier: self.extractor.as_ref().is_some_and(|extractor| extractor.was_done(blob)),
            extracted: self.extractor.as_ref().and_then(|extractor| extractor.target(blob).map(str::to_owned)),
        }
    }

    /// Files missing in the manifest, without those that Windows keeps for itself.
    fn unnamed(&self) -> impl Iterator<Item = Row> + '_ {
        const OWN: [&str; 2] = ["\\system volume information\\", "\\$recycle.bin\\"];
        let catalog = &self.files.catalog;
        catalog.files().filter_map(move |file| {
            let info = catalog.info(file);
            let is_dir = info.directory && !(self.listing.is_all && info.special.is_some());
            if is_dir || !info.reachable || catalog.is_metafile(file) || self.listing.is_named(file) {
                return None;
            }
            let path = display_name(&catalog.path(catalog.reached_by(file)?)?);
            let lower = path.to_lowercase();
            if !self.listing.is_all && OWN.iter().any(|own| lower.starts_with(own)) {
                return None;
            }
            let from_root = path.trim_start_matches('\\').replace('\\', "/");
            if self.listing.is_all && !self.listing.only.would_take(&from_root) {
                return None;
            }
            let notes = info.special.iter().map(|special| special.describe().to_owned()).collect();
            Some(Row { verdict: Verdict::NotInManifest, file: path, length: info.size, notes, ..Row::default() })
        })
    }

    /// Makes the directories of the volume, the empty ones too, and gives them their times; their number.
    fn directories(&mut self) -> Result<u64, Problem> {
        let Some(extractor) = &mut self.extractor else { return Ok(0) };
        let mut all = Vec::new();
        listing::walk(&self.files, &mut |name, is_directory| {
            let catalog = &self.files.catalog;
            if let (true, Some(path)) = (is_directory, catalog.path(name)) {
                let path = display_name(&path).trim_start_matches('\\').replace('\\', "/");
                if self.listing.only.would_take(&format!("{path}/")) {
                    all.push((path, catalog.info(catalog.file_of(name)).times));
                }
            }
        });
        let mut made = Vec::new();
        for (path, times) in all {
            if extractor.directory(&path)? {
                made.push((path, times));
            }
        }
        // What is made in a directory changes its time.
        for (path, times) in made.iter().rev() {
            extractor.date_directory(path, *times)?;
        }
        Ok(made.len() as u64)
    }

    /// The reason why an equal blob was not extracted.
    fn refusal(&self, blob: usize, row: &Row) -> Option<Problem> {
        let why = self.extractor.as_ref()?.refused(blob)?;
        let path = row.blob.as_deref().unwrap_or_default();
        let problem = Problem::new(Kind::Environment, format!("a blob could not be taken out: {why}")).value(path);
        let advice = "the other blobs were; a file system that holds such a file takes this one as well";
        Some(problem.drive(&self.opened.found.drive.name).advice(advice))
    }

    /// Records the facts that a file in the directory cannot hold.
    fn describe(&mut self, blob: usize, row: &Row) -> Result<(), Problem> {
        let subject = self.listing.subjects[blob];
        let Some(name) = subject.name else { return Ok(()) };
        let info = self.files.catalog.info(self.files.catalog.file_of(name));
        let facts = self.listing.blobs[blob];
        let side = |side: u32| -> Option<Vec<u8>> {
            let subject = self.listing.sides.get(side as usize).filter(|_| side != NONE)?;
            if let Some(kept) = self.extractor.as_ref().and_then(|extractor| extractor.side(side)) {
                return Some(kept);
            }
            let file = self.files.catalog.file_of(subject.name?);
            let stream = self.files.catalog.open(&self.files.volume, &mut View(self.opened), file).ok()?;
            self.files.volume.read_whole(&mut View(self.opened), &stream, crate::limits::SIDE_FILE_MAX).ok()
        };
        let (metadata, properties) = (side(facts.metadata), side(facts.properties));
        match &mut self.extractor {
            Some(extractor) => extractor.describe(row, info.times, metadata, properties),
            None => Ok(()),
        }
    }
}
