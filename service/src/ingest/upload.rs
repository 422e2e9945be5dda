//! The import of one drive: its blobs, what became of each, and the sink that takes them from the engine.

use std::collections::{HashMap, HashSet};
use std::ops::{Deref, Range};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use dray_account::{Account, Settings};
use dray_engine::api::account::deliver::{Act, Bytes, Delivery, Sink};
use dray_engine::api::azure::{base64, properties};
use dray_engine::api::hash::{crc64_combine, crc64_zeros};
use dray_engine::api::prepare::{Disposition, RateLimit};
use dray_engine::api::verify::Verdict;
use dray_engine::api::verify::copylog::{BlobStatus, DispositionStatus, PieceStatus, SideStatus};
use dray_engine::report::{Kind, Problem};

use super::flow::Flow;
use super::send::Begun;
use super::state::{Done, Known, StateFile};

/// Jobs that wait for a thread: bytes in slots are bounded by the slots, small ones by this.
const WAITING_MAX: usize = 1024;
/// Pieces that wait while long ones in memory of their own are among them, and what counts as long.
const HEAVY_MAX: u64 = 24;
const HEAVY: usize = 64 << 10;
/// Readings of a piece that differs, after the first.
pub(super) const READINGS_MAX: u8 = 3;
/// Time between two looks at leases and state.
const KEEP: Duration = Duration::from_secs(15);

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A blob of the manifest.
#[derive(Debug)]
pub(crate) struct ListedBlob {
    pub path: Box<str>,
    pub length: u64,
    /// In the pieces of all blobs.
    pub first: u32,
    pub count: u32,
    pub is_pages: bool,
    pub disposition: Disposition,
    pub metadata: Option<u32>,
    pub properties: Option<u32>,
    /// The blob that is there is this one, in part: what of it is right stays.
    pub keeps: bool,
    /// It cannot be read at all, for this reason.
    pub impossible: Option<BlobStatus>,
}

impl ListedBlob {
    /// Container and name.
    pub fn place(&self) -> (&str, &str) {
        self.path.split_once('/').unwrap_or((&self.path, ""))
    }
}

/// A block or page range of the manifest.
#[derive(Debug)]
pub(crate) struct Piece {
    pub offset: u64,
    pub len: u32,
    pub md5: Option<[u8; 16]>,
    pub id: Option<Box<str>>,
    pub is_possible: bool,
}

/// A metadata or properties file.
#[derive(Debug)]
pub(crate) struct Side {
    pub path: String,
    pub is_global: bool,
    pub md5: Option<[u8; 16]>,
    pub bytes: Mutex<Vec<u8>>,
    /// Names and values, or why there are none.
    pub pairs: OnceLock<Result<Vec<(String, String)>, SideStatus>>,
}

impl Side {
    fn status(&self) -> SideStatus {
        match self.pairs.get() {
            Some(Ok(_)) => SideStatus::Completed,
            Some(Err(status)) => *status,
            None => SideStatus::IOFailed,
        }
    }
}

/// Bytes of a piece.
#[derive(Debug)]
pub(super) enum Body {
    /// Part of what the engine gave.
    Part(Arc<Bytes>, Range<usize>),
    /// A piece longer than a slot, put together.
    Own(Vec<u8>),
}

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Part(bytes, range) => &bytes[range.clone()],
            Self::Own(bytes) => bytes,
        }
    }
}

impl Body {
    /// Whether it is long, and in memory of its own.
    fn is_heavy(&self) -> bool {
        let is_own = match self {
            Self::Part(bytes, _) => matches!(**bytes, Bytes::Own(_)),
            Self::Own(_) => true,
        };
        is_own && self.len() > HEAVY
    }
}

/// Work for a thread.
#[derive(Debug)]
pub(super) enum UploadJob {
    /// Send a piece.
    Piece(u32, u32, Body),
    /// All pieces are dealt with.
    Conclude(u32),
}

/// A blob that was begun and is not over.
#[derive(Debug, Default)]
pub(super) struct Active {
    /// Its destination: locked while that is found out.
    pub begun: Mutex<Option<Begun>>,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    /// Pieces that were given and are not dealt with.
    outstanding: u32,
    /// Pieces that will be given once more.
    again: u32,
    is_delivered: bool,
    is_concluding: bool,
    pieces: Vec<Option<(PieceStatus, Option<u64>)>>,
    message: Option<String>,
}

/// Result of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Became {
    /// Its status.
    pub status: BlobStatus,
    /// Result of its disposition.
    pub disposition: DispositionStatus,
    /// Number behind its name; 1: none.
    pub number: u32,
    /// CRC-64 of its content.
    pub crc64: Option<u64>,
    /// By an earlier run.
    pub earlier: bool,
    /// Statuses of its pieces, where not all are complete.
    pub pieces: Option<Vec<PieceStatus>>,
    /// Statuses of metadata and properties.
    pub sides: [Option<SideStatus>; 2],
    /// In words, what the service or the drive said.
    pub message: Option<String>,
}

impl Became {
    /// Whether something of it is missing on the drive, unreadable, or not as in the manifest.
    pub fn is_at_fault(&self) -> bool {
        let of_piece = |status: &PieceStatus| {
            matches!(status, PieceStatus::Corrupted | PieceStatus::FileUnexpectedEnd | PieceStatus::IOFailed)
        };
        let of_side =
            |status: &Option<SideStatus>| !matches!(status, None | Some(SideStatus::Completed | SideStatus::Cancelled));
        matches!(self.status, BlobStatus::FileNotFound | BlobStatus::FileAccessDenied | BlobStatus::IOFailed)
            || self.pieces.iter().flatten().any(of_piece)
            || self.sides.iter().any(of_side)
    }
}

/// The import of one drive.
#[derive(Debug)]
pub struct Upload {
    pub(crate) account: Arc<Account>,
    pub(super) flow: Arc<Flow>,
    pub(super) rate: Arc<RateLimit>,
    pub(super) state: StateFile,
    pub(crate) blobs: Vec<ListedBlob>,
    pub(super) pieces: Vec<Piece>,
    pub(crate) sides: Vec<Side>,
    repairs: bool,
    pub(super) numbers: HashMap<u32, u32>,
    pub(super) sums: bool,
    /// Makes lease ids, which have to be the same after a kill.
    pub(super) seed: String,
    active: Mutex<HashMap<u32, Arc<Active>>>,
    became: Mutex<Results>,
    tries: Mutex<HashMap<(u32, u32), u8>>,
    again: Mutex<Vec<(u32, u32)>>,
    failure: Mutex<Option<Problem>>,
    is_failed: AtomicBool,
    jobs: Mutex<Option<Sender<UploadJob>>>,
    pending: Mutex<u64>,
    idle: Condvar,
    pub(super) leases: Mutex<HashMap<u32, (String, String, String)>>,
    is_over: Mutex<bool>,
    over: Condvar,
}

/// Results of all blobs. Most have no errors: those take 16 bytes and their key.
#[derive(Debug, Default)]
struct Results {
    plain: HashMap<u32, Plain>,
    rest: HashMap<u32, Became>,
}

/// A blob without errors.
#[derive(Clone, Copy, Debug)]
struct Plain {
    crc64: u64,
    number: u32,
    disposition: DispositionStatus,
    earlier: bool,
    has_crc64: bool,
}
const _: () = assert!(size_of::<Plain>() <= 16);

impl Results {
    fn insert(&mut self, blob: u32, one: Became) {
        if one.status == BlobStatus::Completed && one.pieces.is_none() && one.message.is_none() {
            let (crc64, has_crc64) = (one.crc64.unwrap_or(0), one.crc64.is_some());
            let Became { number, disposition, earlier, .. } = one;
            self.plain.insert(blob, Plain { crc64, number, disposition, earlier, has_crc64 });
        } else {
            self.rest.insert(blob, one);
        }
    }

    fn has(&self, blob: u32) -> bool {
        self.plain.contains_key(&blob) || self.rest.contains_key(&blob)
    }

    fn get(&self, blob: u32) -> Option<Became> {
        let Some(plain) = self.plain.get(&blob) else { return self.rest.get(&blob).cloned() };
        Some(Became {
            status: BlobStatus::Completed,
            disposition: plain.disposition,
            number: plain.number,
            crc64: plain.has_crc64.then_some(plain.crc64),
            earlier: plain.earlier,
            pieces: None,
            // Those that there are were set.
            sides: [None, None],
            message: None,
        })
    }
}

/// Blobs to send, whatever their source.
#[derive(Debug, Default)]
pub(crate) struct Input {
    pub blobs: Vec<ListedBlob>,
    /// Of all blobs, in their order.
    pub pieces: Vec<Piece>,
    pub sides: Vec<Side>,
    /// Makes ids of leases.
    pub seed: String,
    /// A blob whose metadata or properties are missing is not over: it is tried again.
    pub repairs: bool,
}

impl Input {
    /// The blobs of a drive's manifest.
    pub fn of(delivery: &Delivery<'_>) -> Self {
        let seed = format!("{} {}", delivery.drive_id(), delivery.manifest_md5());
        let mut input = Self { seed, ..Self::default() };
        for number in 0..delivery.blobs() {
            let facts = delivery.blob(number);
            let pieces = delivery.pieces(number).map(|piece| Piece {
                offset: piece.offset,
                len: piece.len,
                md5: piece.md5,
                id: piece.id.map(Into::into),
                is_possible: piece.verdict <= Verdict::NoReference,
            });
            let impossible = match facts.verdict {
                Verdict::Missing => Some(BlobStatus::FileNotFound),
                _ if facts.is_directory => Some(BlobStatus::FileAccessDenied),
                _ => None,
            };
            let entry = ListedBlob {
                path: facts.path.trim_start_matches('/').into(),
                length: facts.length,
                first: 0,
                count: 0,
                is_pages: facts.is_pages,
                disposition: facts.disposition,
                metadata: facts.metadata,
                properties: facts.properties,
                keeps: false,
                impossible,
            };
            input.add(entry, pieces);
        }
        input.sides = delivery
            .sides()
            .map(|side| {
                let pairs = OnceLock::new();
                if side.verdict == Verdict::Missing {
                    let _ = pairs.set(Err(SideStatus::FileNotFound));
                }
                Side { path: side.path, is_global: side.is_global, md5: side.md5, bytes: Mutex::default(), pairs }
            })
            .collect();
        input
    }

    /// Adds a blob and its pieces.
    pub fn add(&mut self, mut entry: ListedBlob, pieces: impl Iterator<Item = Piece>) {
        entry.first = self.pieces.len() as u32;
        self.pieces.extend(pieces);
        entry.count = self.pieces.len() as u32 - entry.first;
        self.blobs.push(entry);
    }
}

impl Upload {
    /// Takes in what is to be sent and what earlier runs reached.
    pub(crate) fn new(
        (account, flow, rate): (Arc<Account>, Arc<Flow>, Arc<RateLimit>),
        (state, known): (StateFile, Known),
        input: Input,
        sums: bool,
    ) -> Self {
        let seed = format!("{} {}", input.seed, state.started);
        let upload = Self {
            account,
            flow,
            rate,
            state,
            blobs: input.blobs,
            pieces: input.pieces,
            sides: input.sides,
            repairs: input.repairs,
            numbers: known.numbers,
            sums,
            seed,
            active: Mutex::default(),
            became: Mutex::new(Results::default()),
            tries: Mutex::default(),
            again: Mutex::default(),
            failure: Mutex::default(),
            is_failed: AtomicBool::new(false),
            jobs: Mutex::default(),
            pending: Mutex::default(),
            idle: Condvar::new(),
            leases: Mutex::default(),
            is_over: Mutex::default(),
            over: Condvar::new(),
        };
        upload.take_in(known.done);
        upload.give_up_impossible();
        upload
    }

    fn take_in(&self, done: HashMap<u32, Done>) {
        let mut became = lock(&self.became);
        for (blob, done) in done.into_iter().filter(|(blob, _)| (*blob as usize) < self.blobs.len()) {
            let status = if done.is_partial { BlobStatus::CompletedWithErrors } else { BlobStatus::Completed };
            let one = Became {
                status,
                disposition: done.disposition,
                number: done.number,
                crc64: done.crc64,
                earlier: true,
                pieces: None,
                sides: [None, None],
                message: None,
            };
            became.insert(blob, one);
        }
    }

    /// Blobs without a file on the drive.
    fn give_up_impossible(&self) {
        for (blob, entry) in (0..).zip(&self.blobs) {
            if let Some(status) = entry.impossible {
                let what = "its file is not on the drive".to_owned();
                self.give_up(blob, status, what);
            }
        }
    }

    /// Starts `threads` threads that send; they end with the sink.
    pub(crate) fn start(self: &Arc<Self>, threads: usize) -> Result<Vec<std::thread::JoinHandle<()>>, Problem> {
        let (sender, waiting) = bounded(WAITING_MAX);
        *lock(&self.jobs) = Some(sender);
        let failed = |error| Problem::new(Kind::Environment, format!("no thread for requests: {error}"));
        let mut out = Vec::new();
        for _ in 0..threads {
            let (upload, waiting) = (Arc::clone(self), waiting.clone());
            // Deep enough for TLS; only what is touched is memory.
            let builder = std::thread::Builder::new().name("upload".into()).stack_size(1 << 20);
            out.push(builder.spawn(move || upload.work(&waiting)).map_err(failed)?);
        }
        let upload = Arc::clone(self);
        let keeper = std::thread::Builder::new().name("leases".into()).spawn(move || upload.keep());
        out.push(keeper.map_err(failed)?);
        Ok(out)
    }

    /// Lets the threads end.
    pub(super) fn end(&self) {
        drop(lock(&self.jobs).take());
        *lock(&self.is_over) = true;
        self.over.notify_all();
    }

    fn work(&self, waiting: &Receiver<UploadJob>) {
        for job in waiting {
            if !self.is_failed() {
                match job {
                    UploadJob::Piece(blob, piece, body) => self.piece(blob, piece, &body),
                    UploadJob::Conclude(blob) => self.conclude_now(blob),
                }
            }
            *lock(&self.pending) -= 1;
            self.idle.notify_all();
        }
    }

    /// Renews leases, and makes the state durable, now and then.
    fn keep(&self) {
        let mut is_over = lock(&self.is_over);
        while !*is_over {
            is_over = self.over.wait_timeout(is_over, KEEP).unwrap_or_else(PoisonError::into_inner).0;
            if *is_over {
                break;
            }
            drop(is_over);
            self.state.sync();
            let leases: Vec<_> = lock(&self.leases).values().cloned().collect();
            for (container, name, lease) in leases {
                // One that ended is taken again with the next request that needs it.
                let _ = self.account.renew(&container, &name, &lease);
            }
            is_over = lock(&self.is_over);
        }
        drop(is_over);
        self.state.sync();
    }

    fn is_failed(&self) -> bool {
        self.is_failed.load(Ordering::Acquire)
    }

    /// Ends the import of this drive.
    pub(super) fn fail(&self, problem: Problem) {
        lock(&self.failure).get_or_insert(problem);
        self.is_failed.store(true, Ordering::Release);
    }

    /// The problem that ended the import early.
    pub fn failure(&self) -> Option<Problem> {
        lock(&self.failure).clone()
    }

    fn queue(&self, job: UploadJob) {
        let Some(jobs) = lock(&self.jobs).clone() else { return };
        let mut pending = lock(&self.pending);
        // Bytes in memory of their own are bounded here, those in slots by the slots.
        if matches!(&job, UploadJob::Piece(_, _, body) if body.is_heavy()) {
            while *pending >= HEAVY_MAX && !self.is_failed() {
                pending = self.idle.wait(pending).unwrap_or_else(PoisonError::into_inner);
            }
        }
        *pending += 1;
        drop(pending);
        if jobs.send(job).is_err() {
            *lock(&self.pending) -= 1;
        }
    }

    /// Pieces of a blob.
    pub(crate) fn pieces_of(&self, entry: &ListedBlob) -> &[Piece] {
        &self.pieces[entry.first as usize..(entry.first + entry.count) as usize]
    }

    fn active_in(&self, active: &mut HashMap<u32, Arc<Active>>, blob: u32) -> Arc<Active> {
        let count = self.blobs[blob as usize].count as usize;
        Arc::clone(active.entry(blob).or_insert_with(|| {
            let progress = Progress { pieces: vec![None; count], ..Progress::default() };
            Arc::new(Active { begun: Mutex::default(), progress: Mutex::new(progress) })
        }))
    }

    /// A blob that is not over, begun if need be.
    pub(super) fn active(&self, blob: u32) -> Arc<Active> {
        self.active_in(&mut lock(&self.active), blob)
    }

    /// Likewise; `None` if it is over. What became of it is noted before it is active no longer.
    fn active_unless_over(&self, blob: u32) -> Option<Arc<Active>> {
        let mut active = lock(&self.active);
        if !active.contains_key(&blob) && lock(&self.became).has(blob) {
            return None;
        }
        Some(self.active_in(&mut active, blob))
    }

    fn sent_earlier(&self, blob: u32, piece: u32) -> bool {
        let active = lock(&self.active);
        active.get(&blob).is_some_and(|active| lock(&active.progress).pieces[piece as usize].is_some())
    }

    /// Notes that the service had a piece before this run.
    pub(crate) fn has_piece(&self, blob: u32, piece: u32, crc64: Option<u64>) {
        lock(&self.active(blob).progress).pieces[piece as usize] = Some((PieceStatus::Completed, crc64));
    }

    /// A piece was dealt with; `None`: it has to be given once more.
    pub(super) fn dealt(
        &self,
        blob: u32,
        piece: u32,
        outcome: Option<(PieceStatus, Option<u64>)>,
        why: Option<String>,
    ) {
        let active = self.active(blob);
        let mut progress = lock(&active.progress);
        progress.outstanding -= 1;
        if let Some(why) = why {
            progress.message.get_or_insert(why);
        }
        match outcome {
            Some(_) => progress.pieces[piece as usize] = outcome,
            None => {
                progress.again += 1;
                lock(&self.again).push((blob, piece));
            }
        }
        self.conclude_if_over(blob, progress);
    }

    /// Whether a piece that differs may be read once more.
    pub(super) fn may_try(&self, blob: u32, piece: u32) -> bool {
        let mut tries = lock(&self.tries);
        let tries = tries.entry((blob, piece)).or_default();
        *tries += 1;
        *tries <= READINGS_MAX
    }

    /// The whole blob has to be given once more: its name was taken, or its blocks are gone.
    pub(super) fn all_again(&self, blob: u32) {
        let active = self.active(blob);
        *lock(&active.begun) = None;
        let mut progress = lock(&active.progress);
        let entry = &self.blobs[blob as usize];
        progress.is_concluding = false;
        let mut again = lock(&self.again);
        for (number, piece) in (0..).zip(self.pieces_of(entry)) {
            if piece.len > 0 && piece.is_possible {
                progress.pieces[number as usize] = None;
                progress.again += 1;
                again.push((blob, number));
            }
        }
        drop(again);
        self.conclude_if_over(blob, progress);
    }

    fn conclude_if_over(&self, blob: u32, mut progress: MutexGuard<'_, Progress>) {
        let is_over = progress.is_delivered && progress.outstanding == 0 && progress.again == 0;
        if is_over && !progress.is_concluding {
            progress.is_concluding = true;
            drop(progress);
            self.queue_conclusion(blob);
        }
    }

    /// A thread that sends must not wait for room in the queue that it empties.
    fn queue_conclusion(&self, blob: u32) {
        let Some(jobs) = lock(&self.jobs).clone() else { return };
        *lock(&self.pending) += 1;
        if jobs.try_send(UploadJob::Conclude(blob)).is_err() {
            if !self.is_failed() {
                self.conclude_now(blob);
            }
            let mut pending = lock(&self.pending);
            *pending -= 1;
            if *pending == 0 {
                self.idle.notify_all();
            }
        }
    }

    fn conclude_now(&self, blob: u32) {
        let active = self.active(blob);
        self.conclude(blob, &active);
    }

    /// Statuses of the pieces of an active blob, those that cannot be read among them.
    pub(super) fn statuses(&self, blob: u32, active: &Active) -> Vec<PieceStatus> {
        let pieces = self.pieces_of(&self.blobs[blob as usize]);
        let progress = lock(&active.progress);
        let status = |(known, piece): (&Option<(PieceStatus, Option<u64>)>, &Piece)| match known {
            Some((status, _)) => *status,
            None if piece.len == 0 && piece.is_possible => PieceStatus::Completed,
            None if !piece.is_possible => PieceStatus::FileUnexpectedEnd,
            None => PieceStatus::Cancelled,
        };
        progress.pieces.iter().zip(pieces).map(status).collect()
    }

    /// CRC-64 of the whole blob, if that of each of its pieces is known.
    fn crc_of(&self, entry: &ListedBlob, active: &Active) -> Option<u64> {
        if !self.sums {
            return None;
        }
        let progress = lock(&active.progress);
        let (mut at, mut crc) = (0u64, dray_engine::api::hash::crc64(&[]));
        let mut add = |to: u64, value: Option<(u64, u64)>| -> Option<()> {
            let gap = to.checked_sub(at)?;
            crc = crc64_combine(crc, crc64_zeros(gap), gap);
            at = to;
            if let Some((value, len)) = value {
                crc = crc64_combine(crc, value, len);
                at += len;
            }
            Some(())
        };
        for (known, piece) in progress.pieces.iter().zip(self.pieces_of(entry)) {
            if piece.len > 0 {
                let (_, value) = (*known)?;
                add(piece.offset, Some((value?, u64::from(piece.len))))?;
            }
        }
        add(entry.length, None)?;
        Some(crc)
    }

    /// The first message about an active blob's pieces.
    pub(super) fn message(&self, active: &Active) -> Option<String> {
        lock(&active.progress).message.clone()
    }

    /// Notes a blob that could not be begun.
    pub(crate) fn give_up(&self, blob: u32, status: BlobStatus, message: String) {
        let one = Became {
            status,
            disposition: DispositionStatus::Cancelled,
            number: 1,
            crc64: None,
            earlier: false,
            pieces: None,
            sides: [Some(SideStatus::Cancelled); 2],
            message: Some(message),
        };
        lock(&self.became).insert(blob, one);
    }

    /// Notes that nothing of a blob is outstanding, whose content was there.
    pub(crate) fn is_right(&self, blob: u32) {
        let disposition = DispositionStatus::Created;
        let done = Done { disposition, number: 1, crc64: None, is_partial: false };
        self.state.done(blob, &done).unwrap_or_else(|problem| self.fail(problem));
        let one = Became {
            status: BlobStatus::Completed,
            disposition,
            number: 1,
            crc64: None,
            earlier: false,
            pieces: None,
            sides: [None, None],
            message: None,
        };
        lock(&self.became).insert(blob, one);
    }

    /// Notes what became of an active blob, which is over.
    pub(super) fn over(&self, blob: u32, active: &Active, mut one: Became) {
        let entry = &self.blobs[blob as usize];
        let is_taken = matches!(one.status, BlobStatus::Completed | BlobStatus::CompletedWithErrors);
        if is_taken && one.pieces.is_none() {
            one.crc64 = self.crc_of(entry, active).filter(|_| one.disposition != DispositionStatus::Skipped);
            let is_partial = one.status != BlobStatus::Completed;
            let done = Done { disposition: one.disposition, number: one.number, crc64: one.crc64, is_partial };
            if !(is_partial && self.repairs)
                && let Err(problem) = self.state.done(blob, &done)
            {
                self.fail(problem);
            }
        }
        lock(&self.became).insert(blob, one);
        lock(&self.active).remove(&blob);
    }

    /// Result of a blob; `None`: it was not reached.
    pub fn became(&self, blob: usize) -> Option<Became> {
        lock(&self.became).get(blob as u32)
    }

    /// Properties and metadata of a blob, with the status of each file that names them.
    pub(crate) fn settings(&self, entry: &ListedBlob) -> (Settings, [Option<SideStatus>; 2]) {
        let mut settings = Settings::default();
        let mut statuses = [None, None];
        for (status, side) in statuses.iter_mut().zip([entry.metadata, entry.properties]) {
            let Some(side) = side.and_then(|side| self.sides.get(side as usize)) else { continue };
            *status = Some(side.status());
        }
        let pairs = |side: Option<u32>| match side.and_then(|side| self.sides.get(side as usize)?.pairs.get()) {
            Some(Ok(pairs)) => pairs.as_slice(),
            _ => &[],
        };
        for (name, value) in pairs(entry.properties) {
            let value = value.trim().to_owned();
            match name.as_str() {
                "Content-Type" => settings.content_type = Some(value),
                "Content-Encoding" => settings.content_encoding = Some(value),
                "Content-Language" => settings.content_language = Some(value),
                "Cache-Control" => settings.cache_control = Some(value),
                "Content-MD5" => settings.md5 = base64::decode(&value).and_then(|bytes| bytes.try_into().ok()),
                // The others are an export's own.
                _ => {}
            }
        }
        settings.metadata = pairs(entry.metadata).to_vec();
        (settings, statuses)
    }

    /// Reads a metadata or properties file that was given whole.
    fn read_side(&self, side: u32, verdict: Verdict) {
        let Some(side) = self.sides.get(side as usize) else { return };
        let bytes = std::mem::take(&mut *lock(&side.bytes));
        let pairs = match verdict {
            Verdict::Equal | Verdict::NoReference | Verdict::NotInManifest => match properties::read(&bytes) {
                // No header can hold them.
                Ok(pairs) if pairs.iter().any(|(_, value)| value.bytes().any(|b| !(b' '..=b'~').contains(&b))) => {
                    Err(SideStatus::Failed)
                }
                Ok(pairs) => Ok(pairs),
                Err(_) => Err(SideStatus::XmlReadFailed),
            },
            Verdict::Different => Err(SideStatus::Corrupted),
            Verdict::Unreadable => Err(SideStatus::IOFailed),
            Verdict::Missing => Err(SideStatus::FileNotFound),
        };
        let _ = side.pairs.set(pairs);
    }
}

/// The sink that the engine gives the blobs to.
#[derive(Debug)]
pub(crate) struct Taker {
    pub upload: Arc<Upload>,
    /// Pieces of which not everything was given: longer than a slot, or read in parts.
    parts: HashMap<(usize, u32), Body>,
    /// Pieces that were given once more.
    again: HashSet<(u32, u32)>,
}

impl Taker {
    pub fn new(upload: Arc<Upload>) -> Self {
        Self { upload, parts: HashMap::new(), again: HashSet::new() }
    }

    fn write(&mut self, bytes: &Arc<Bytes>, (blob, piece): (usize, u32), at: u64, range: Range<usize>) {
        let entry = &self.upload.blobs[blob];
        let known = &self.upload.pieces_of(entry)[piece as usize];
        if range.len() == known.len as usize {
            self.parts.insert((blob, piece), Body::Part(Arc::clone(bytes), range));
            return;
        }
        let own = self.parts.entry((blob, piece)).or_insert_with(|| Body::Own(vec![0; known.len as usize]));
        if let Body::Own(own) = own {
            let from = (at - known.offset) as usize;
            own[from..from + range.len()].copy_from_slice(&bytes[range]);
        }
    }

    fn judged(&mut self, blob: usize, piece: u32, verdict: Verdict) {
        let (upload, body) = (&self.upload, self.parts.remove(&(blob, piece)));
        let number = blob as u32;
        let active = upload.active(number);
        {
            let mut progress = lock(&active.progress);
            progress.outstanding += 1;
            if self.again.remove(&(number, piece)) {
                progress.again -= 1;
            }
        }
        let known = &upload.pieces_of(&upload.blobs[blob])[piece as usize];
        let place = format!("bytes {} to {}", known.offset, known.offset + u64::from(known.len));
        match (verdict, body) {
            (Verdict::Equal | Verdict::NoReference, Some(body)) => upload.queue(UploadJob::Piece(number, piece, body)),
            (Verdict::Different, _) if upload.may_try(number, piece) => upload.dealt(number, piece, None, None),
            (Verdict::Different, _) => {
                let why = format!("{place}: not as in the manifest, read {} times", READINGS_MAX + 1);
                upload.dealt(number, piece, Some((PieceStatus::Corrupted, None)), Some(why));
            }
            (..) => {
                let why = format!("{place}: the drive cannot be read there");
                upload.dealt(number, piece, Some((PieceStatus::IOFailed, None)), Some(why));
            }
        }
    }
}

impl Sink for Taker {
    fn wants(&self, blob: usize, piece: u32) -> bool {
        !self.is_done(blob) && !self.upload.sent_earlier(blob as u32, piece)
    }

    fn is_done(&self, blob: usize) -> bool {
        lock(&self.upload.became).has(blob as u32)
    }

    fn take(&mut self, bytes: Bytes, acts: Vec<Act>) -> Result<(), Problem> {
        let bytes = Arc::new(bytes);
        for act in acts {
            match act {
                Act::Write { blob, piece, at, bytes: range } => self.write(&bytes, (blob, piece), at, range),
                Act::Judged { blob, piece, verdict } => self.judged(blob, piece, verdict),
                Act::Keep { side, bytes: range } => {
                    if let Some(side) = self.upload.sides.get(side as usize) {
                        lock(&side.bytes).extend_from_slice(&bytes[range]);
                    }
                }
                Act::JudgedSide { side, verdict } => self.upload.read_side(side, verdict),
                Act::Finish(finish) => {
                    let blob = finish.blob as u32;
                    // One that was given once more may be over before its end is given.
                    if let Some(active) = self.upload.active_unless_over(blob) {
                        let mut progress = lock(&active.progress);
                        progress.is_delivered = true;
                        self.upload.conclude_if_over(blob, progress);
                    }
                }
            }
        }
        self.upload.failure().map_or(Ok(()), Err)
    }

    fn again(&mut self) -> Result<Vec<(usize, u32)>, Problem> {
        let mut pending = lock(&self.upload.pending);
        while *pending > 0 {
            pending = self.upload.idle.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
        drop(pending);
        if let Some(problem) = self.upload.failure() {
            return Err(problem);
        }
        let again = std::mem::take(&mut *lock(&self.upload.again));
        self.again.extend(&again);
        Ok(again.into_iter().map(|(blob, piece)| (blob as usize, piece)).collect())
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        self.upload.end();
    }
}
