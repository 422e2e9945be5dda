//! `dray repair-import`: what a copy log says failed is sent again, from the original directories or from a drive
//! (docs/spec/import-export.md#repairimport).
//!
//! The uploader is that of an import; its pieces come from files, one by one. Pieces that the log calls uploaded
//! or committed are taken as such where the account still has them. Lists of blocks are committed whole, with the
//! properties and metadata that the blob has. The repair file is the state of an import.

mod log;
mod paths;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use dray_account::{Account, Condition};
use dray_engine::api::account::Pieces;
use dray_engine::api::account::deliver::{Act, Bytes, Finish, Sink};
use dray_engine::api::azure::{Digest, numbered};
use dray_engine::api::hash::Md5;
use dray_engine::api::host::timestamp;
use dray_engine::api::inspect::Files;
use dray_engine::api::prepare::{Disposition, RateLimit, Stop};
use dray_engine::api::verify::Verdict;
use dray_engine::api::verify::copylog::{
    BlobStatus, DispositionStatus, LogBlob, LogPiece, LogSide, SideStatus, is_success,
};
use dray_engine::report::{Kind, Problem};

use crate::ingest::Imported;
use crate::ingest::flow::Flow;
use crate::ingest::state::{Head, StateFile};
use crate::ingest::upload::{Became, Input, ListedBlob, Piece, Side, Taker, Upload};
pub use paths::Lost;
use paths::{Original, Originals};

/// Length of the blocks of a file whose blocks are not known.
const BLOCK: u64 = 4 << 20;
/// Longest metadata or properties file that is read.
const SIDE_MAX: u64 = 1 << 20;
/// Most pieces of a file that is cut anew.
const BLOCKS_MAX: u64 = 50_000;

/// Inputs and limits of a repair.
#[derive(Debug)]
pub struct Options {
    /// Keeps what was reached; one a drive.
    pub repair_file: PathBuf,
    /// Directories with the originals.
    pub dirs: Vec<PathBuf>,
    /// Copy log of either generation.
    pub copy_log: PathBuf,
    /// Manifest of the drive, which a log of the second generation needs.
    pub manifest: Option<PathBuf>,
    /// Gets the paths of originals that were not found, and says where they are.
    pub path_map: Option<PathBuf>,
    /// Most requests in flight.
    pub in_flight_max: usize,
    /// Bytes a second; `None` for no limit.
    pub rate: Option<u64>,
}

/// Result of a repair.
#[derive(Debug)]
pub struct RepairOutcome {
    /// Id of the drive by the log.
    pub drive_id: String,
    /// Every blob that the log calls failed.
    pub blobs: Vec<Imported>,
    /// The path map, if something is to be filled in.
    pub path_map: Option<PathBuf>,
    /// The problem that ended the repair early.
    pub problem: Option<Problem>,
}

/// A blob of the log, and what is to be done for it.
struct Plan<'a> {
    blob: LogBlob,
    original: Result<Original<'a>, Lost>,
    /// Pieces that the log calls sent.
    sent: Vec<u32>,
    /// Only properties or metadata are missing.
    is_sides_only: bool,
}

/// Whether pieces cover a blob from end to end.
fn tiles(pieces: &[LogPiece], length: u64) -> bool {
    let mut at = 0;
    pieces.iter().all(|piece| {
        let is_next = piece.offset == at;
        at = piece.offset.saturating_add(piece.length);
        is_next
    }) && at == length
}

/// Pieces of the log put between those of the account, whose places follow from their order. `None` if they do not fit.
fn between(listed: &[LogPiece], there: &[(String, u64)], length: u64) -> Option<Vec<LogPiece>> {
    let mut listed = listed.to_vec();
    listed.sort_by_key(|piece| piece.offset);
    let (mut out, mut listed, mut at) = (Vec::new(), listed.into_iter().peekable(), 0);
    let mut there = there.iter();
    while at < length {
        let piece = match listed.next_if(|piece| piece.offset == at) {
            Some(piece) => piece,
            None => {
                let (id, len) = there.next()?;
                LogPiece { offset: at, length: *len, id: Some(id.clone()), hash: None, status: "Completed".into() }
            }
        };
        at = at.checked_add(piece.length).filter(|_| piece.length > 0)?;
        out.push(piece);
    }
    (at == length && there.next().is_none() && listed.peek().is_none()).then_some(out)
}

/// The pieces of a file whose blocks nothing tells.
fn anew(length: u64) -> Vec<LogPiece> {
    let step = BLOCK.max(length.div_ceil(BLOCKS_MAX).next_multiple_of(1 << 20));
    let piece = |offset: u64| LogPiece {
        offset,
        length: (length - offset).min(step),
        id: None,
        hash: None,
        status: "Cancelled".into(),
    };
    (0..length).step_by(step as usize).map(piece).collect()
}

/// A repair.
#[derive(Debug)]
pub struct Repair {
    account: Arc<Account>,
    options: Options,
}

impl Repair {
    /// A repair in `account`.
    pub fn new(account: Account, options: Options) -> Self {
        Self { account: Arc::new(account), options }
    }

    /// Repairs what the log says failed. What is in no directory is looked for on `drives`. `progress` gets blobs that are dealt with, and all.
    ///
    /// # Errors
    /// Log, path map or repair file cannot be used; nothing was sent.
    pub fn run(
        &self,
        drives: &[Files<'_>],
        stop: &Stop,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<RepairOutcome, Problem> {
        let log = log::read(&self.options.copy_log, self.options.manifest.as_deref())?;
        let mut originals = Originals::new(self.options.dirs.clone(), drives, self.options.path_map.clone())?;
        let head = Head {
            drive: log.drive_id.clone(),
            manifest: log.md5.clone(),
            account: self.account.endpoint().base().to_owned(),
        };
        let (state, known) = StateFile::open(&self.options.repair_file, &head, &timestamp().to_string(), false)?;
        let mut input =
            Input { seed: format!("repair {} {}", log.drive_id, log.md5), repairs: true, ..Input::default() };
        let mut plans = Vec::new();
        for blob in log.failed {
            plans.push(self.plan(blob, &originals, &mut input)?);
        }
        let now = Instant::now();
        let shared = (
            Arc::clone(&self.account),
            Arc::new(Flow::new(self.options.in_flight_max, now)),
            Arc::new(RateLimit::new(self.options.rate, now)),
        );
        let upload = Arc::new(Upload::new(shared, (state, known), input, false));
        let all =
            |plan: (usize, &Plan)| plan.1.sent.iter().map(|piece| (plan.0 as u32, *piece, None)).collect::<Vec<_>>();
        upload.recall(plans.iter().enumerate().flat_map(all).collect())?;
        let threads = upload.start(self.options.in_flight_max)?;
        let mut taker = Taker::new(Arc::clone(&upload));
        let sent = self.send(&plans, &upload, &mut taker, stop, progress);
        drop(taker);
        for thread in threads {
            thread.join().map_err(|_| Problem::new(Kind::Internal, "a thread that sends ended in a bug"))?;
        }
        let mut blobs = Vec::new();
        for (number, plan) in plans.iter().enumerate() {
            blobs.push(self.outcome(number, plan, &upload, &mut originals));
        }
        let path_map = originals.save()?;
        Ok(RepairOutcome { drive_id: log.drive_id, blobs, path_map, problem: sent.err() })
    }

    /// Finds out what is to be done for a blob.
    fn plan<'a>(&self, mut blob: LogBlob, originals: &Originals<'a>, input: &mut Input) -> Result<Plan<'a>, Problem> {
        let became = blob.disposition.as_ref().and_then(|(_, became)| DispositionStatus::parse(became));
        let keeps = matches!(
            became,
            Some(DispositionStatus::Created | DispositionStatus::Renamed | DispositionStatus::Overwritten)
        );
        let path = blob.blob_path.trim_start_matches('/').to_owned();
        let is_pages = blob.pieces_kind == Some(Pieces::Pages);
        let length = blob.length;
        let original = originals.find(&blob.file_path, length);
        let known = length.or_else(|| original.as_ref().ok()?.len()).unwrap_or(0);
        let is_failed = |piece: &LogPiece| !is_success(&piece.status);
        let has_side = [&blob.metadata, &blob.properties].into_iter().flatten().any(|side| !is_success(&side.status));
        let is_sides_only = keeps
            && has_side
            && !blob.pieces.iter().any(is_failed)
            && blob.status == BlobStatus::CompletedWithErrors.as_str();
        if !is_pages && !is_sides_only && !tiles(&blob.pieces, known) {
            let (container, name) = path.split_once('/').unwrap_or((&path, ""));
            let there = if keeps { self.account.block_list((container, name, None), true) } else { Ok(Vec::new()) };
            let there = match there {
                Ok(there) => there,
                Err(failure) if failure.is_missing() => Vec::new(),
                Err(failure) => return Err(failure.problem()),
            };
            blob.pieces = between(&blob.pieces, &there, known).unwrap_or_else(|| anew(known));
        }
        // Later by the log than a piece that is not there any more: that is asked of the account.
        let is_sent = |piece: &LogPiece| matches!(&*piece.status, "Completed" | "Committed" | "Uncommitted");
        let sent = (0..).zip(&blob.pieces).filter(|(_, piece)| is_sent(piece)).map(|(at, _)| at).collect();
        let wanted = blob.disposition.as_ref().and_then(|(wanted, _)| Disposition::parse(wanted.trim()));
        let mut side = |side: &Option<LogSide>| {
            let side = side.as_ref().filter(|side| !is_success(&side.status))?;
            input.sides.push(read_side(side, originals)?);
            Some(input.sides.len() as u32 - 1)
        };
        let (metadata, properties) = (side(&blob.metadata), side(&blob.properties));
        let entry = ListedBlob {
            path: path.into(),
            length: known,
            first: 0,
            count: 0,
            is_pages,
            disposition: wanted.unwrap_or_default(),
            metadata,
            properties,
            keeps,
            impossible: None,
        };
        let pieces = blob.pieces.iter().map(|piece| Piece {
            offset: piece.offset,
            len: u32::try_from(piece.length).unwrap_or(u32::MAX),
            md5: match piece.hash {
                Some(Digest::Md5(md5)) => Some(md5),
                _ => None,
            },
            id: piece.id.as_deref().map(Into::into),
            is_possible: true,
        });
        input.add(entry, pieces);
        Ok(Plan { blob, original, sent, is_sides_only })
    }

    /// Sends the pieces of all blobs, and once more what has to be.
    fn send(
        &self,
        plans: &[Plan<'_>],
        upload: &Upload,
        taker: &mut Taker,
        stop: &Stop,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), Problem> {
        let mut later: HashMap<usize, Vec<u32>> = HashMap::new();
        for (number, plan) in plans.iter().enumerate() {
            progress(number as u64, plans.len() as u64);
            if taker.is_done(number) {
                continue;
            }
            // Without them the blob would be there, and not as it was: its name would be taken for the next run.
            if let Some(status) = lost_side(upload, number) {
                let what = format!("its metadata or properties file: {status}");
                upload.give_up(number as u32, BlobStatus::CompletedWithErrors, what);
                continue;
            }
            if plan.is_sides_only {
                self.set_sides(number as u32, upload)?;
                continue;
            }
            let count = upload.blobs[number].count;
            let pieces: Vec<u32> = (0..count).filter(|piece| taker.wants(number, *piece)).collect();
            match (&plan.original, pieces.is_empty()) {
                (Err(lost), false) => upload.give_up(number as u32, BlobStatus::FileNotFound, lost.words().into()),
                (Ok(original), false) => give(original, plan, number, &pieces, taker, stop)?,
                // Everything of it is there, and waits for its commit.
                (_, true) => finish(plan, number, taker)?,
            }
        }
        loop {
            later.clear();
            for (number, piece) in taker.again()? {
                later.entry(number).or_default().push(piece);
            }
            if later.is_empty() {
                return Ok(());
            }
            for (number, pieces) in &later {
                match &plans[*number].original {
                    Ok(original) => give(original, &plans[*number], *number, pieces, taker, stop)?,
                    Err(lost) => upload.give_up(*number as u32, BlobStatus::FileNotFound, lost.words().into()),
                }
            }
        }
    }

    /// Sets properties and metadata of a blob whose content is right.
    fn set_sides(&self, blob: u32, upload: &Upload) -> Result<(), Problem> {
        let entry = &upload.blobs[blob as usize];
        let (container, name) = entry.place();
        let (settings, _) = upload.settings(entry);
        let set = self.account.facts(container, name, None).and_then(|facts| {
            let condition = Condition::same(&facts.etag);
            let mut wanted = crate::ingest::over(&facts.settings, &settings);
            wanted.md5 = settings.md5.or(facts.settings.md5);
            self.account.set_properties(container, name, &wanted, &condition)?;
            // The ETag is another one now.
            self.account.set_metadata(container, name, &wanted.metadata, &Condition::default())
        });
        match set {
            Ok(()) => upload.is_right(blob),
            Err(failure) if failure.status.is_none() || failure.is_denied() || failure.is_transient() => {
                return Err(failure.problem());
            }
            Err(failure) => upload.give_up(blob, BlobStatus::BlobRequestFailed, failure.problem().what),
        }
        Ok(())
    }

    fn outcome(&self, number: usize, plan: &Plan<'_>, upload: &Upload, originals: &mut Originals<'_>) -> Imported {
        let became: Option<Became> = upload.became(number);
        let entry = &upload.blobs[number];
        let is_good = became.as_ref().is_some_and(|became| became.status == BlobStatus::Completed);
        if let Some(became) = became.as_ref().filter(|_| !is_good) {
            let is_content =
                became.status == BlobStatus::FileNotFound || became.is_at_fault() && became.pieces.is_some();
            if is_content {
                originals.lose(&plan.blob.file_path);
            }
            for side in [entry.metadata, entry.properties].into_iter().flatten() {
                let side = &upload.sides[side as usize];
                if !matches!(side.pairs.get(), Some(Ok(_))) {
                    originals.lose(&side.path);
                }
            }
        }
        let number = became.as_ref().map_or(1, |became| became.number);
        let (container, name) = entry.place();
        let now = format!("{container}/{}", numbered(name, number));
        Imported {
            blob: entry.path.to_string(),
            renamed: (number > 1).then_some(now),
            file: plan.blob.file_path.clone(),
            length: entry.length,
            status: became.as_ref().map(|became| became.status),
            disposition: became.as_ref().map(|became| became.disposition),
            is_at_fault: became.as_ref().is_some_and(Became::is_at_fault),
            earlier: became.as_ref().is_some_and(|became| became.earlier),
            message: became.and_then(|became| became.message),
        }
    }
}

/// Status of a metadata or properties file that cannot be used.
fn lost_side(upload: &Upload, number: usize) -> Option<SideStatus> {
    let (_, statuses) = upload.settings(&upload.blobs[number]);
    statuses.into_iter().flatten().find(|status| *status != SideStatus::Completed)
}

/// Reads a metadata or properties file from the directories; without an original there is its path alone.
fn read_side(side: &LogSide, originals: &Originals<'_>) -> Option<Side> {
    let (named, is_global) = match (&side.own, &side.global) {
        (Some(own), _) => (own, false),
        (None, Some(global)) => (global, true),
        (None, None) => return None,
    };
    let md5 = match named.1 {
        Some(Digest::Md5(md5)) => Some(md5),
        _ => None,
    };
    let pairs = OnceLock::new();
    let read = originals.find(&named.0, None).map_err(|_| SideStatus::FileNotFound).and_then(|original| {
        let bytes = original.read(SIDE_MAX).map_err(|_| SideStatus::IOFailed)?;
        let mut sum = Md5::new();
        sum.update(&bytes);
        if md5.is_some_and(|md5| md5 != sum.finish()) {
            return Err(SideStatus::Corrupted);
        }
        dray_engine::api::azure::properties::read(&bytes).map_err(|_| SideStatus::XmlReadFailed)
    });
    let _ = pairs.set(read);
    Some(Side { path: named.0.clone(), is_global, md5, bytes: Mutex::default(), pairs })
}

/// Reads pieces of an original, and gives them to the uploader as the engine gives a drive's.
fn give(
    original: &Original<'_>,
    plan: &Plan<'_>,
    number: usize,
    pieces: &[u32],
    taker: &mut Taker,
    stop: &Stop,
) -> Result<(), Problem> {
    let file = original.open();
    for at in pieces {
        if stop.requested() {
            return Err(Problem::new(Kind::Interrupted, "stopped on request"));
        }
        let piece = &plan.blob.pieces[*at as usize];
        let mut bytes = vec![0; piece.length as usize];
        let read = match &file {
            Ok(file) => file.read_at(piece.offset, &mut bytes).is_ok(),
            Err(_) => false,
        };
        let mut md5 = Md5::new();
        md5.update(&bytes);
        let verdict = match piece.hash {
            _ if !read => Verdict::Unreadable,
            Some(Digest::Md5(hash)) if hash != md5.finish() => Verdict::Different,
            _ => Verdict::Equal,
        };
        let len = bytes.len();
        let acts = vec![
            Act::Write { blob: number, piece: *at, at: piece.offset, bytes: 0..len },
            Act::Judged { blob: number, piece: *at, verdict },
        ];
        taker.take(Bytes::Own(bytes), acts)?;
    }
    finish(plan, number, taker)
}

fn finish(plan: &Plan<'_>, number: usize, taker: &mut Taker) -> Result<(), Problem> {
    let finish = Finish {
        blob: number,
        path: plan.blob.blob_path.clone(),
        snapshot: None,
        length: plan.blob.length.unwrap_or(0),
        times: Default::default(),
        is_whole: true,
    };
    taker.take(Bytes::Own(Vec::new()), vec![Act::Finish(Box::new(finish))])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(offset: u64, length: u64) -> LogPiece {
        LogPiece { offset, length, id: Some(format!("id{offset}")), hash: None, status: "Corrupted".into() }
    }

    #[test]
    fn pieces_of_a_log_find_their_places_between_those_of_the_account() {
        let there = [("a".to_owned(), 4), ("b".to_owned(), 4)];
        let found = between(&[piece(4, 4)], &there, 12).expect("they fit");
        assert_eq!(found.iter().map(|piece| piece.offset).collect::<Vec<_>>(), [0, 4, 8]);
        assert_eq!(found[2].id.as_deref(), Some("b"));
        assert!(tiles(&found, 12) && !tiles(&found, 13) && !tiles(&found[1..], 12));
        assert_eq!(between(&[piece(5, 4)], &there, 12), None);
        assert_eq!(between(&[], &there, 12), None);
        assert_eq!(between(&[piece(4, 4)], &there, 8), None);
        let cut = anew((9 << 20) + 1);
        assert!(tiles(&cut, (9 << 20) + 1) && cut.len() == 3);
        assert!(anew(0).is_empty() && tiles(&[], 0));
        assert!(anew(1 << 40).len() <= 50_000);
    }
}
