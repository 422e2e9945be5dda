//! The requests of an import: where a blob goes, its pieces, its end.

use std::collections::HashSet;
use std::time::Instant;

use dray_account::{BlobKind, Condition, Content, Facts, Failure, Settings};
use dray_engine::api::account::nonzero_runs;
use dray_engine::api::azure::{base64, numbered};
use dray_engine::api::hash::{Md5, crc64};
use dray_engine::api::prepare::Disposition;
use dray_engine::api::verify::copylog::{BlobStatus, DispositionStatus, PieceStatus, SideStatus};

use super::upload::{Active, Became, ListedBlob, Piece, Upload, lock};

/// Most numbers that are tried for a blob that is renamed.
const NUMBER_MAX: u32 = 10_000;
/// Longest content of a Put Page.
const PAGES_MAX: usize = 4 << 20;
/// Blocks that may wait at a blob, committed or not; the service's limit is 100,000.
const WAITING_MAX: usize = 100_000;
/// Seconds of a lease, which is renewed while its blob is written.
const LEASE_S: u32 = 60;

/// Destination of a blob.
#[derive(Clone, Debug)]
pub(super) enum Begun {
    /// To a name.
    Go(Target),
    /// A blob of that name is kept.
    Skip,
    /// It is there whole, by this import.
    Whole(u32, DispositionStatus),
    /// It cannot be begun.
    Failed(BlobStatus, String),
}

/// The name that a blob goes to.
#[derive(Clone, Debug)]
pub(super) struct Target {
    name: String,
    number: u32,
    lease: Option<String>,
    /// A blob of that name is replaced.
    existed: bool,
    /// Properties and metadata that stay, where nothing else is said.
    kept: Option<std::sync::Arc<Settings>>,
    /// Blocks that wait there: id and length.
    waiting: std::sync::Arc<HashSet<(String, u64)>>,
}

impl Target {
    fn disposition(&self) -> DispositionStatus {
        match (self.existed, self.number) {
            (true, _) => DispositionStatus::Overwritten,
            (false, 1) => DispositionStatus::Created,
            (false, _) => DispositionStatus::Renamed,
        }
    }

    fn condition(&self) -> Condition {
        Condition { lease: self.lease.clone(), ..Condition::default() }
    }
}

/// A blob that was put under the first name that is free, or as its disposition says.
enum Placed {
    At {
        number: u32,
        existed: bool,
    },
    Skip,
    /// An earlier request of this import put it.
    Ours(u32),
}

/// Reason why a request is not sent again unchanged.
enum Refusal {
    /// The whole import ends.
    Fatal,
    /// The bytes did not arrive as they were sent.
    Md5,
    /// Blocks of another length of id wait.
    Ids,
    /// The lease is lost.
    Lease,
    Of(BlobStatus, String),
}

fn exists(failure: &Failure) -> bool {
    failure.is_condition() || matches!(failure.code.as_str(), "BlobAlreadyExists" | "InvalidBlobType")
}

fn is_leased(failure: &Failure) -> bool {
    matches!(failure.code.as_str(), "LeaseIdMissing" | "LeaseAlreadyPresent")
}

fn md5_of(bytes: &[u8]) -> [u8; 16] {
    let mut md5 = Md5::new();
    md5.update(bytes);
    md5.finish()
}

/// In a sentence, without what is no news.
fn said(failure: &Failure) -> String {
    let problem = failure.problem();
    format!("{}: {}", problem.what, failure.request)
}

impl Upload {
    fn name_of(&self, entry: &ListedBlob, number: u32) -> String {
        numbered(entry.place().1, number)
    }

    /// Whether a blob is written in one request: it has one block, and the hash that its properties give is its own.
    fn is_single(&self, entry: &ListedBlob, settings: &Settings) -> bool {
        let own = match self.pieces_of(entry) {
            [] => Some(md5_of(&[])),
            [piece] => piece.md5,
            _ => None,
        };
        !entry.is_pages && !entry.keeps && entry.count <= 1 && settings.md5.is_none_or(|md5| own == Some(md5))
    }

    /// Meaning of a failure; one that ends the import is noted.
    fn refusal(&self, failure: &Failure) -> Refusal {
        let is_lost = failure.is_stopped || failure.status.is_none() || failure.is_transient();
        if is_lost || failure.is_denied() {
            self.fail(failure.problem());
            return Refusal::Fatal;
        }
        match failure.code.as_str() {
            "Md5Mismatch" => Refusal::Md5,
            "InvalidBlobOrBlock" | "BlockCountExceedsLimit" => Refusal::Ids,
            "LeaseIdMismatchWithBlobOperation" | "LeaseNotPresentWithBlobOperation" | "LeaseLost" => Refusal::Lease,
            _ if is_leased(failure) => Refusal::Of(BlobStatus::LeasePresent, said(failure)),
            _ => Refusal::Of(BlobStatus::BlobRequestFailed, said(failure)),
        }
    }

    /// The refusal as a status of a blob; `None` where the import ends.
    fn refused(&self, failure: &Failure) -> Option<(BlobStatus, String)> {
        match self.refusal(failure) {
            Refusal::Fatal => None,
            Refusal::Of(status, what) => Some((status, what)),
            Refusal::Md5 | Refusal::Ids | Refusal::Lease => Some((BlobStatus::BlobRequestFailed, said(failure))),
        }
    }

    /// Sends once there is room in flight, by the rate that was asked for; a container that is missing is made.
    fn sent<T>(&self, container: &str, len: usize, request: impl Fn() -> Result<T, Failure>) -> Result<T, Failure> {
        self.flow.run(len as u64, || {
            while let Err(wait) = self.rate.take(len as u64, Instant::now()) {
                std::thread::sleep(wait);
            }
            match request() {
                Err(failure) if failure.code == "ContainerNotFound" => {
                    self.account.ready_container(container)?;
                    request()
                }
                outcome => outcome,
            }
        })
    }

    /// Whether a blob was put there by this import: of this length and content, and since it began.
    fn is_ours(&self, facts: &Facts, entry: &ListedBlob, md5: Option<[u8; 16]>) -> bool {
        let changed = jiff::fmt::rfc2822::parse(&facts.last_modified).map(|at| at.timestamp());
        let is_since = match (changed, self.state.started.parse::<jiff::Timestamp>()) {
            (Ok(changed), Ok(started)) => changed >= started,
            _ => false,
        };
        let kind = if entry.is_pages { BlobKind::Page } else { BlobKind::Block };
        is_since && facts.length == entry.length && facts.kind == kind && (md5.is_none() || facts.settings.md5 == md5)
    }

    /// Puts a blob by `put` under the first name that its disposition allows, without asking what is there first.
    fn place(
        &self,
        entry: &ListedBlob,
        first: u32,
        (len, md5): (usize, Option<[u8; 16]>),
        put: impl Fn(&str, &Condition) -> Result<String, Failure>,
    ) -> Result<Placed, Failure> {
        let container = entry.place().0;
        let (mut number, mut gone) = (first, 0);
        loop {
            let name = self.name_of(entry, number);
            let failure = match self.sent(container, len, || put(&name, &Condition::absent())) {
                Ok(_) => return Ok(Placed::At { number, existed: false }),
                Err(failure) => failure,
            };
            // The lease may be that of an earlier run, which was killed.
            let may_be_ours = entry.disposition != Disposition::Overwrite || self.state.is_resumed;
            if !(exists(&failure) || is_leased(&failure) && may_be_ours) {
                return Err(failure);
            }
            // A request whose answer was lost, or an earlier run that was killed, may have put it.
            if failure.earlier > 0 || self.state.is_resumed {
                match self.account.facts(container, &name, None) {
                    Ok(facts) if self.is_ours(&facts, entry, md5) => return Ok(Placed::Ours(number)),
                    Ok(_) => {}
                    // Deleted since.
                    Err(other) if other.is_missing() && gone < 3 => {
                        gone += 1;
                        continue;
                    }
                    Err(other) if other.is_missing() => return Err(failure),
                    Err(other) => return Err(other),
                }
            }
            match entry.disposition {
                Disposition::NoOverwrite => return Ok(Placed::Skip),
                Disposition::Rename if number < NUMBER_MAX => number += 1,
                Disposition::Rename => return Err(failure),
                Disposition::Overwrite => {
                    self.sent(container, len, || put(&name, &Condition::default()))?;
                    return Ok(Placed::At { number, existed: true });
                }
            }
        }
    }

    fn first_number(&self, blob: u32) -> u32 {
        self.numbers.get(&blob).copied().unwrap_or(1)
    }

    /// Puts a blob of one block, or of nothing.
    fn put_single(&self, blob: u32, entry: &ListedBlob, bytes: &[u8], settings: &Settings) -> Result<Begun, Failure> {
        let md5 = self.pieces_of(entry).first().and_then(|piece| piece.md5).unwrap_or_else(|| md5_of(bytes));
        let content = Content { bytes, md5: Some(md5) };
        let placed = self.place(entry, self.first_number(blob), (bytes.len(), Some(md5)), |name, condition| {
            self.account.put_blob(entry.place().0, name, content, settings, condition)
        })?;
        let status = |number, existed| match (existed, number) {
            (true, _) => DispositionStatus::Overwritten,
            (false, 1) => DispositionStatus::Created,
            (false, _) => DispositionStatus::Renamed,
        };
        Ok(match placed {
            Placed::At { number, existed } => Begun::Whole(number, status(number, existed)),
            Placed::Ours(number) => Begun::Whole(number, status(number, false)),
            Placed::Skip => Begun::Skip,
        })
    }

    /// Finds out where a blob of several pieces goes, once.
    fn begun(&self, blob: u32, entry: &ListedBlob, active: &Active) -> Option<Begun> {
        let mut begun = lock(&active.begun);
        if let Some(begun) = &*begun {
            return Some(begun.clone());
        }
        let (settings, _) = self.settings(entry);
        let found = if entry.is_pages {
            self.begin_pages(blob, entry, &settings)
        } else {
            self.begin_blocks(blob, entry, &settings)
        };
        let found = match found {
            Ok(found) => found,
            Err(failure) => {
                let (status, what) = self.refused(&failure)?;
                Begun::Failed(status, what)
            }
        };
        if let Begun::Go(target) = &found
            && let Err(problem) = self.state.begun(blob, target.number)
        {
            self.fail(problem);
            return None;
        }
        *begun = Some(found.clone());
        Some(found)
    }

    /// Goes on with a blob that is there in part; `None`: it is not there, or is another.
    fn begin_kept(&self, blob: u32, entry: &ListedBlob) -> Result<Option<Begun>, Failure> {
        let (container, name) = entry.place();
        let facts = match self.account.facts(container, name, None) {
            Ok(facts) => facts,
            Err(failure) if failure.is_missing() => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let kind = if entry.is_pages { BlobKind::Page } else { BlobKind::Block };
        if facts.kind != kind || (entry.is_pages && facts.length != entry.length) {
            let what = "the blob that is there is another one: it was replaced since the import".to_owned();
            return Ok(Some(Begun::Failed(BlobStatus::BlobUnexpectedChange, what)));
        }
        let lease = self.leased(blob, container, name)?;
        let condition = Condition { lease: Some(lease.clone()), ..Condition::default() };
        let waiting =
            if entry.is_pages { Default::default() } else { self.waiting(entry, name, Some((&facts, &condition)))? };
        let kept = Some(std::sync::Arc::new(Settings { md5: None, ..facts.settings }));
        let name = name.to_owned();
        Ok(Some(Begun::Go(Target { name, number: 1, lease: Some(lease), existed: true, kept, waiting })))
    }

    fn begin_pages(&self, blob: u32, entry: &ListedBlob, settings: &Settings) -> Result<Begun, Failure> {
        let container = entry.place().0;
        if entry.keeps
            && let Some(begun) = self.begin_kept(blob, entry)?
        {
            return Ok(begun);
        }
        let placed = self.place(entry, self.first_number(blob), (0, None), |name, condition| {
            self.account.create_pages(container, name, entry.length, settings, condition)
        })?;
        let (number, existed) = match placed {
            Placed::At { number, existed } => (number, existed),
            Placed::Ours(number) => (number, false),
            Placed::Skip => return Ok(Begun::Skip),
        };
        let name = self.name_of(entry, number);
        let lease = self.leased(blob, container, &name)?;
        let waiting = Default::default();
        Ok(Begun::Go(Target { name, number, lease: Some(lease), existed, kept: None, waiting }))
    }

    /// Whether an existing blob is this one, whole: by its blocks, and the time of its change.
    fn is_whole(&self, entry: &ListedBlob, name: &str, facts: &Facts) -> Result<bool, Failure> {
        if !self.is_ours(facts, entry, None) {
            return Ok(false);
        }
        let there = self.account.block_list((entry.place().0, name, None), true)?;
        let own = self.pieces_of(entry).iter().enumerate();
        let own: Vec<(String, u64)> = own.map(|(at, piece)| (id_of(piece, at), u64::from(piece.len))).collect();
        Ok(there == own)
    }

    fn begin_blocks(&self, blob: u32, entry: &ListedBlob, settings: &Settings) -> Result<Begun, Failure> {
        let container = entry.place().0;
        if entry.keeps
            && let Some(begun) = self.begin_kept(blob, entry)?
        {
            return Ok(begun);
        }
        let mut number = self.first_number(blob);
        loop {
            let name = self.name_of(entry, number);
            let facts = match self.account.facts(container, &name, None) {
                Ok(facts) => Some(facts),
                Err(failure) if failure.is_missing() => None,
                Err(failure) => return Err(failure),
            };
            let Some(facts) = facts else {
                let waiting = self.waiting(entry, &name, None)?;
                return Ok(Begun::Go(Target { name, number, lease: None, existed: false, kept: None, waiting }));
            };
            if self.state.is_resumed && self.is_whole(entry, &name, &facts)? {
                let status = if number > 1 { DispositionStatus::Renamed } else { DispositionStatus::Created };
                return Ok(Begun::Whole(number, status));
            }
            match entry.disposition {
                Disposition::NoOverwrite => return Ok(Begun::Skip),
                Disposition::Rename if number < NUMBER_MAX => number += 1,
                Disposition::Rename => {
                    return Ok(Begun::Failed(BlobStatus::RenameFailed, format!("{NUMBER_MAX} names are taken")));
                }
                Disposition::Overwrite => {
                    let lease = self.leased(blob, container, &name)?;
                    let condition = Condition { lease: Some(lease.clone()), ..Condition::default() };
                    if facts.kind != BlobKind::Block {
                        // Only a whole blob takes the place of another kind.
                        let content = Content { bytes: &[], md5: None };
                        let plain = Settings { md5: None, ..settings.clone() };
                        self.account.put_blob(container, &name, content, &plain, &condition)?;
                    }
                    let waiting = self.waiting(entry, &name, Some((&facts, &condition)))?;
                    return Ok(Begun::Go(Target {
                        name,
                        number,
                        lease: Some(lease),
                        existed: true,
                        kept: None,
                        waiting,
                    }));
                }
            }
        }
    }

    /// Blocks that wait under a name. Those of others whose ids have another length would make ours fail: they are cleared
    /// first, by a commit.
    fn waiting(
        &self,
        entry: &ListedBlob,
        name: &str,
        existing: Option<(&Facts, &Condition)>,
    ) -> Result<std::sync::Arc<HashSet<(String, u64)>>, Failure> {
        let container = entry.place().0;
        let waiting = match self.account.all_blocks(container, name) {
            Ok([_, waiting]) => waiting,
            Err(failure) if failure.is_missing() => return Ok(Default::default()),
            Err(failure) => return Err(failure),
        };
        let len = |id: &str| base64::decode(id).map(|bytes| bytes.len());
        let own = self.pieces_of(entry).first().and_then(|piece| len(&id_of(piece, 0)));
        let is_foreign = waiting.iter().any(|(id, _)| len(id) != own);
        if !is_foreign && waiting.len() + entry.count as usize <= WAITING_MAX {
            return Ok(std::sync::Arc::new(waiting.into_iter().collect()));
        }
        match existing {
            // What is there is to be replaced anyway, or committed once more as it is.
            Some((facts, condition)) => {
                let settings = Settings { md5: None, ..facts.settings.clone() };
                let there = if entry.keeps { self.account.block_list((container, name, None), true)? } else { vec![] };
                let ids: Vec<String> = there.into_iter().map(|(id, _)| id).collect();
                self.account.put_block_list(container, name, &ids, &settings, condition)?;
            }
            None => {
                let etag =
                    self.account.put_block_list(container, name, &[], &Settings::default(), &Condition::absent())?;
                self.account.delete(container, name, &Condition::same(&etag))?;
            }
        }
        Ok(Default::default())
    }

    /// Takes in the pieces that an earlier run sent, where they still are: those are not read again.
    ///
    /// # Errors
    /// The account does not answer, or refuses.
    pub(crate) fn recall(&self, sent: Vec<(u32, u32, Option<u64>)>) -> Result<(), Failure> {
        let mut there: Option<(u32, There)> = None;
        for (blob, number, crc64) in sent {
            let Some(entry) = self.blobs.get(blob as usize) else { continue };
            let Some(piece) = self.pieces_of(entry).get(number as usize) else { continue };
            if there.as_ref().is_none_or(|(known, _)| *known != blob) {
                there = Some((blob, self.there(blob, entry)?));
            }
            let is_there = match &there {
                Some((_, There::Blocks(blocks))) => {
                    blocks.contains(&(id_of(piece, number as usize), u64::from(piece.len)))
                }
                Some((_, There::Pages(ranges))) => {
                    let end = piece.offset + u64::from(piece.len);
                    ranges.iter().any(|(at, len, is_clear)| !is_clear && *at < end && at + len > piece.offset)
                }
                None => false,
            };
            if is_there {
                self.has_piece(blob, number, crc64);
            }
        }
        Ok(())
    }

    fn there(&self, blob: u32, entry: &ListedBlob) -> Result<There, Failure> {
        let (container, name) = (entry.place().0, self.name_of(entry, self.first_number(blob)));
        let found = if entry.is_pages {
            self.account.facts(container, &name, None).and_then(|facts| {
                if !entry.keeps && !self.is_ours(&facts, entry, None) {
                    return Ok(There::Pages(Vec::new()));
                }
                self.account.page_ranges((container, &name, None)).map(There::Pages)
            })
        } else {
            let blocks = self.account.all_blocks(container, &name);
            blocks.map(|[committed, waiting]| {
                // What another blob of that name has is of no use.
                let committed = committed.into_iter().filter(|_| entry.keeps);
                There::Blocks(committed.chain(waiting).collect())
            })
        };
        match found {
            Err(failure) if failure.is_missing() => Ok(There::Pages(Vec::new())),
            found => found,
        }
    }

    /// The id of a blob's lease: the same after a kill.
    fn lease_id(&self, blob: u32) -> String {
        let md5 = md5_of(format!("{} {blob}", self.seed).as_bytes());
        let hex: String = md5.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    fn leased(&self, blob: u32, container: &str, name: &str) -> Result<String, Failure> {
        let lease = self.account.lease(container, name, Some(LEASE_S), Some(&self.lease_id(blob)))?;
        lock(&self.leases).insert(blob, (container.to_owned(), name.to_owned(), lease.clone()));
        Ok(lease)
    }

    fn released(&self, blob: u32) {
        let lease = lock(&self.leases).remove(&blob);
        if let Some((container, name, lease)) = lease {
            // It ends by itself otherwise.
            let _ = self.account.release(&container, &name, &lease);
        }
    }

    /// Sends a piece, and notes what became of it.
    pub(super) fn piece(&self, blob: u32, number: u32, bytes: &[u8]) {
        let entry = &self.blobs[blob as usize];
        let (settings, _) = self.settings(entry);
        let active = self.active(blob);
        let crc64 = self.sums.then(|| crc64(bytes));
        let outcome = if self.is_single(entry, &settings) {
            match self.put_single(blob, entry, bytes, &settings) {
                Ok(begun) => {
                    *lock(&active.begun) = Some(begun);
                    Ok(())
                }
                Err(failure) => Err(failure),
            }
        } else {
            match self.begun(blob, entry, &active) {
                Some(Begun::Go(target)) => self.put_piece(blob, number, bytes, &target),
                Some(_) => return self.dealt(blob, number, Some((PieceStatus::Cancelled, None)), None),
                None => return,
            }
        };
        let failure = match outcome {
            Ok(()) => {
                if entry.count > 1 || entry.is_pages {
                    self.state.piece(blob, number, crc64).unwrap_or_else(|problem| self.fail(problem));
                }
                return self.dealt(blob, number, Some((PieceStatus::Completed, crc64)), None);
            }
            Err(failure) => failure,
        };
        match self.refusal(&failure) {
            Refusal::Fatal => {}
            // What was read may have been damaged here: from the drive, once more.
            Refusal::Md5 if self.may_try(blob, number) => self.dealt(blob, number, None, None),
            Refusal::Md5 => {
                self.dealt(blob, number, Some((PieceStatus::Corrupted, None)), Some(said(&failure)));
            }
            Refusal::Ids if self.may_try(blob, number) => {
                // Somebody sent a block meanwhile: where the blob goes is found out anew.
                *lock(&active.begun) = None;
                self.dealt(blob, number, None, None);
            }
            Refusal::Of(status, what) => {
                if entry.count <= 1 {
                    *lock(&active.begun) = Some(Begun::Failed(status, what.clone()));
                }
                self.dealt(blob, number, Some((PieceStatus::BlobRequestFailed, None)), Some(what));
            }
            Refusal::Ids | Refusal::Lease => {
                self.dealt(blob, number, Some((PieceStatus::BlobRequestFailed, None)), Some(said(&failure)));
            }
        }
    }

    fn put_piece(&self, blob: u32, number: u32, bytes: &[u8], target: &Target) -> Result<(), Failure> {
        let entry = &self.blobs[blob as usize];
        let piece = &self.pieces_of(entry)[number as usize];
        let container = entry.place().0;
        if entry.is_pages {
            return self.put_ranges(blob, container, piece, bytes, target);
        }
        let id = id_of(piece, number as usize);
        // An id that is made of the hash says what is in the block.
        let says_content = piece.md5.is_some_and(|md5| id == content_id(&md5));
        if says_content && target.waiting.contains(&(id.clone(), u64::from(piece.len))) {
            return Ok(());
        }
        let content = Content { bytes, md5: Some(piece.md5.unwrap_or_else(|| md5_of(bytes))) };
        self.holding(blob, container, target, || {
            self.sent(container, bytes.len(), || {
                self.account.put_block(container, &target.name, &id, content, target.lease.as_deref())
            })
        })
    }

    /// Writes what of a page range is not zero.
    fn put_ranges(
        &self,
        blob: u32,
        container: &str,
        piece: &Piece,
        bytes: &[u8],
        target: &Target,
    ) -> Result<(), Failure> {
        for (at, chunk) in (0..).step_by(PAGES_MAX).zip(bytes.chunks(PAGES_MAX)) {
            let mut runs = Vec::new();
            nonzero_runs(chunk, &mut runs);
            for run in runs {
                let part = &chunk[run.start.0 as usize..run.end().0 as usize];
                let md5 = piece.md5.filter(|_| part.len() == bytes.len()).unwrap_or_else(|| md5_of(part));
                let content = Content { bytes: part, md5: Some(md5) };
                let offset = piece.offset + at + run.start.0;
                self.holding(blob, container, target, || {
                    self.sent(container, part.len(), || {
                        self.account.put_pages(container, &target.name, offset, content, &target.condition())
                    })
                })?;
            }
        }
        Ok(())
    }

    /// Runs a request under a lease: one that ended during an outage is taken again, once.
    fn holding<T>(
        &self,
        blob: u32,
        container: &str,
        target: &Target,
        request: impl Fn() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        match request() {
            Err(failure)
                if target.lease.is_some()
                    && matches!(
                        failure.code.as_str(),
                        "LeaseIdMismatchWithBlobOperation" | "LeaseNotPresentWithBlobOperation" | "LeaseLost"
                    ) =>
            {
                self.leased(blob, container, &target.name)?;
                request()
            }
            outcome => outcome,
        }
    }

    /// Ends a blob whose pieces are all dealt with.
    pub(super) fn conclude(&self, blob: u32, active: &Active) {
        let entry = &self.blobs[blob as usize];
        let (settings, sides) = self.settings(entry);
        let Some(begun) = self.begun_at_end(blob, entry, active, &settings) else { return };
        let statuses = self.statuses(blob, active);
        let is_whole = statuses.iter().all(|status| *status == PieceStatus::Completed);
        let mut one = Became {
            status: BlobStatus::Completed,
            disposition: DispositionStatus::Cancelled,
            number: 1,
            crc64: None,
            earlier: false,
            pieces: None,
            sides: sides.map(|side| side.map(|_| SideStatus::Cancelled)),
            message: self.message(active),
        };
        match begun {
            Begun::Skip => one.disposition = DispositionStatus::Skipped,
            Begun::Failed(status, what) => {
                (one.status, one.message, one.pieces) = (status, Some(what), Some(statuses));
            }
            Begun::Whole(number, disposition) => {
                (one.number, one.disposition, one.sides) = (number, disposition, sides);
            }
            Begun::Go(target) if !is_whole => {
                one.status = BlobStatus::CompletedWithErrors;
                one.number = target.number;
                if entry.is_pages {
                    (one.disposition, one.sides) = (target.disposition(), sides);
                }
                let sent = if entry.is_pages { PieceStatus::Completed } else { PieceStatus::Uncommitted };
                let now = |status| if status == PieceStatus::Completed { sent } else { status };
                one.pieces = Some(statuses.into_iter().map(now).collect());
            }
            Begun::Go(target) => {
                (one.number, one.disposition, one.sides) = (target.number, target.disposition(), sides);
                if !self.ended(blob, entry, &target, &settings, &mut one) {
                    return;
                }
            }
        }
        let is_bad = |side: &Option<SideStatus>| side.is_some_and(|side| side != SideStatus::Completed);
        if one.status == BlobStatus::Completed
            && one.disposition != DispositionStatus::Skipped
            && one.sides.iter().any(is_bad)
        {
            one.status = BlobStatus::CompletedWithErrors;
            one.message.get_or_insert_with(|| "its metadata or properties file cannot be used".into());
        }
        self.released(blob);
        self.over(blob, active, one);
    }

    /// Destination of a blob whose pieces are all dealt with; `None`: the import ends.
    fn begun_at_end(&self, blob: u32, entry: &ListedBlob, active: &Active, settings: &Settings) -> Option<Begun> {
        let begun = lock(&active.begun).clone();
        match begun {
            Some(begun) => Some(begun),
            None if entry.length == 0 && self.is_single(entry, settings) => {
                match self.put_single(blob, entry, &[], settings) {
                    Ok(begun) => Some(begun),
                    Err(failure) => self.refused(&failure).map(|(status, what)| Begun::Failed(status, what)),
                }
            }
            // All of its pieces failed, or an earlier run sent them.
            None => self.begun_unless_lost(blob, entry, active),
        }
    }

    /// Ends a blob whose pieces are all there: commits blocks, sets what pages lack. False: it is not over.
    fn ended(&self, blob: u32, entry: &ListedBlob, target: &Target, settings: &Settings, one: &mut Became) -> bool {
        if entry.is_pages {
            if let Err(failure) = self.set_sides(entry, target, settings) {
                let Some((_, what)) = self.refused(&failure) else { return false };
                one.sides = one.sides.map(|side| side.map(|_| SideStatus::BlobRequestFailed));
                one.message = Some(what);
            }
            return true;
        }
        let Err(failure) = self.commit(blob, entry, target, settings) else { return true };
        match self.not_committed(blob, entry, target, &failure) {
            Committed::Yes => {}
            Committed::Skipped => one.disposition = DispositionStatus::Skipped,
            Committed::No(status, what) => {
                one.status = status;
                one.disposition = DispositionStatus::Cancelled;
                one.sides = one.sides.map(|side| side.map(|_| SideStatus::Cancelled));
                one.pieces = Some(vec![PieceStatus::Uncommitted; entry.count as usize]);
                one.message = Some(what);
            }
            Committed::Again | Committed::Lost => return false,
        }
        true
    }

    /// Destination of a blob whose pieces were not sent by this run; where none of them can be sent, nothing is begun.
    fn begun_unless_lost(&self, blob: u32, entry: &ListedBlob, active: &Active) -> Option<Begun> {
        let statuses = self.statuses(blob, active);
        let first = statuses.iter().find(|status| **status != PieceStatus::Completed);
        match first {
            Some(_) if !statuses.contains(&PieceStatus::Completed) => {
                let what = self.message(active).unwrap_or_else(|| "none of it can be read".into());
                Some(Begun::Failed(BlobStatus::CompletedWithErrors, what))
            }
            _ => self.begun(blob, entry, active),
        }
    }

    fn commit(&self, blob: u32, entry: &ListedBlob, target: &Target, settings: &Settings) -> Result<(), Failure> {
        let container = entry.place().0;
        let pieces = self.pieces_of(entry).iter().enumerate().filter(|(_, piece)| piece.len > 0);
        let ids: Vec<String> = pieces.map(|(at, piece)| id_of(piece, at)).collect();
        let settings = &target.kept.as_ref().map_or_else(|| settings.clone(), |kept| over(kept, settings));
        let mut condition = target.condition();
        if !target.existed && entry.disposition != Disposition::Overwrite {
            condition.if_none_match = Some("*".into());
        }
        self.holding(blob, container, target, || {
            self.sent(container, 0, || self.account.put_block_list(container, &target.name, &ids, settings, &condition))
        })
        .map(drop)
    }

    /// Sets what the files of a page blob that was there say: one that was made by this import has it from the start.
    fn set_sides(&self, entry: &ListedBlob, target: &Target, settings: &Settings) -> Result<(), Failure> {
        let Some(kept) = target.kept.as_ref().filter(|_| entry.metadata.or(entry.properties).is_some()) else {
            return Ok(());
        };
        let (container, settings) = (entry.place().0, over(kept, settings));
        self.account.set_properties(container, &target.name, &settings, &target.condition())?;
        self.account.set_metadata(container, &target.name, &settings.metadata, &target.condition())
    }

    /// Consequence of a commit that was refused.
    fn not_committed(&self, blob: u32, entry: &ListedBlob, target: &Target, failure: &Failure) -> Committed {
        let container = entry.place().0;
        if exists(failure) {
            if failure.earlier > 0 {
                let found = self.account.facts(container, &target.name, None);
                match found.and_then(|facts| self.is_whole(entry, &target.name, &facts)) {
                    Ok(true) => return Committed::Yes,
                    Ok(false) => {}
                    Err(failure) => return self.no(&failure),
                }
            }
            match entry.disposition {
                Disposition::NoOverwrite => return Committed::Skipped,
                // Taken since it was begun: the blocks have to go to another name.
                Disposition::Rename if self.may_try(blob, 0) => {
                    self.all_again(blob);
                    return Committed::Again;
                }
                Disposition::Rename | Disposition::Overwrite => {}
            }
        }
        if failure.code == "InvalidBlockList" && self.may_try(blob, 0) {
            // A commit or a Put Blob of somebody else clears what waits.
            self.all_again(blob);
            return Committed::Again;
        }
        self.no(failure)
    }

    fn no(&self, failure: &Failure) -> Committed {
        self.refused(failure).map_or(Committed::Lost, |(status, what)| Committed::No(status, what))
    }
}

/// Parts of a blob that an earlier run sent.
enum There {
    Blocks(HashSet<(String, u64)>),
    Pages(Vec<dray_account::PageRange>),
}

/// Result of a commit that was refused.
enum Committed {
    /// It was done before.
    Yes,
    /// A blob that came meanwhile is kept.
    Skipped,
    /// The blob is given once more.
    Again,
    No(BlobStatus, String),
    /// The import ends.
    Lost,
}

/// The settings of `said`, and those of `kept` where `said` has none.
pub(crate) fn over(kept: &Settings, said: &Settings) -> Settings {
    let either = |said: &Option<String>, kept: &Option<String>| said.clone().or_else(|| kept.clone());
    Settings {
        content_type: either(&said.content_type, &kept.content_type),
        content_encoding: either(&said.content_encoding, &kept.content_encoding),
        content_language: either(&said.content_language, &kept.content_language),
        cache_control: either(&said.cache_control, &kept.cache_control),
        md5: said.md5,
        metadata: if said.metadata.is_empty() { kept.metadata.clone() } else { said.metadata.clone() },
    }
}

/// The id that says what is in a block.
fn content_id(md5: &[u8; 16]) -> String {
    let mut id = b"MD5/".to_vec();
    base64::encode(md5, &mut id);
    String::from_utf8(id).unwrap_or_default()
}

/// Id of a block: the manifest's, or its number in the form that the service's own exports have
/// (docs/spec/import-export.md#manifest-grammar).
pub(super) fn id_of(piece: &Piece, number: usize) -> String {
    piece.id.as_deref().map_or_else(
        || {
            let mut out = Vec::new();
            base64::encode(&(number as u32).to_le_bytes(), &mut out);
            String::from_utf8(out).unwrap_or_default()
        },
        str::to_owned,
    )
}
