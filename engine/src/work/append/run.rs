//! Adds files to one drive, from the claim to its record, and undoes that.
//!
//! Files are first copied into free clusters. The checkpoint has [`Copied`] once all are copied and the undo and redo
//! images next to the journal are complete; from then on the volume is changed to include the files, or reverted. For a
//! volume that is encrypted in place first, [`encrypt`] has further steps, all of them before the first copy.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::commit::{self, Store};
use super::copy::{self, first_bad};
use super::drive::{AppendDrive, AppendKind, record_of};
use super::existing::unlock;
use super::{Addition, AdditionJob, Planned, encrypt};
use crate::azure::SecretText;
use crate::azure::drive_record::{self, DriveInfo, DriveRecord, RecordState};
use crate::azure::journal::{ActivityRecord, DriveDetails, SessionState};
use crate::checkpoint::work::{AppendState, Copied, RecordBefore};
use crate::checkpoint::{Checkpoint, Prefix, WorkState};
use crate::device::{Access, Device, Roots, guard};
use crate::journal::files::{Sidecar, journal_dir, replace_private, sidecar, sync_dir};
use crate::ntfs::build::LeftOut;
use crate::ntfs::read::{Severity, Volume};
use crate::plan::drive::MANIFEST_NAME;
use crate::plan::tree::DriveTree;
use crate::pool::{Pool, SLOT_LEN};
use crate::report::{Advice, DrivePlan, Setting};
use crate::report::{DriveFacts, DriveKeys, Event, Kind, Notice, Problem, Problems, Stage, Stop, Waiting};
use crate::request::{PrepRequest, ReadBack};
use crate::stream::event_loop::BlockIo;
use crate::stream::failures::{Failures, Outlook};
use crate::stream::medium::Medium;
use crate::stream::sources::all_left_out;
use crate::stream::workers::Workers;
use crate::surroundings::now;
use crate::units::{BatchNo, ByteLen, FileTime};
use crate::verify::added::{self, Added};
use crate::verify::index::{Index, IndexRow};
use crate::verify::judge::{Context, VerifyRequest};
use crate::verify::known::Journals;
use crate::verify::logs::Logs;
use crate::volume::files::Files;
use crate::volume::find::{Found, Opened, View};
use crate::work::claim::claim;
use crate::work::drive::{Durable, SLOTS, Save};
use crate::work::drive_work::{Draw, DriveWork};
use crate::work::keys::{InPlaceKeys, NotRestored};
use crate::work::outcome::{OutcomeLog, Replay};
use crate::work::planner;
use crate::work::progress::{READ_BACK, identity_digest};
use crate::work::recipe::SavedDrive;
use crate::work::shared::{Done, Shared};
use crate::work::target::TargetDrive;
use crate::work::way_back::WayBack;
use crate::work::{list, manifest, readback, steps};

/// Progress of the files added to the volume.
fn state_of(checkpoint: &Checkpoint) -> Result<&AppendState, Problem> {
    checkpoint.state.append().ok_or_else(other_work)
}

/// Mutable access to the same.
fn state_mut(checkpoint: &mut Checkpoint) -> Result<&mut AppendState, Problem> {
    checkpoint.state.append_mut().ok_or_else(other_work)
}

fn other_work() -> Problem {
    Problem::new(Kind::Internal, "a volume is added to by the checkpoint of a drive that is formatted")
}

/// Facts of the copied data.
///
/// # Errors
/// Not everything is copied yet.
fn copied_of(checkpoint: &Checkpoint) -> Result<Copied, Problem> {
    let copied = state_of(checkpoint)?.copied;
    copied.ok_or_else(|| Problem::new(Kind::Internal, "a volume is finished before everything is copied"))
}

/// Progress of a volume that is partly encrypted in place, in words; `None` for any other.
pub fn encrypting(checkpoint: &Checkpoint) -> Option<String> {
    let state = checkpoint.state.convert().filter(|state| state.step < encrypt::EncryptStep::Done)?;
    Some(match state.step {
        encrypt::EncryptStep::Passing => format!("continues encrypting the volume from its byte {} on", state.border),
        _ => "continues preparing to encrypt the volume".into(),
    })
}

/// Whether everything is copied, so that the volume's metadata may be half changed.
pub fn is_copied(checkpoint: &Checkpoint) -> bool {
    checkpoint.state.append().is_some_and(|state| state.copied.is_some())
}

/// Whether rolling the drive back includes decrypting its volume.
pub fn will_decrypt(checkpoint: &Checkpoint) -> bool {
    checkpoint.state.convert().is_some_and(|state| state.step >= encrypt::EncryptStep::Passing)
}

/// Whether anything except free clusters of the volume was written.
pub fn has_changed(checkpoint: &Checkpoint) -> bool {
    is_copied(checkpoint) || checkpoint.state.convert().is_some_and(|state| state.step != encrypt::EncryptStep::Begun)
}

/// Files next to the journal that belong to the drive.
struct DriveFiles {
    record: PathBuf,
    checkpoint: PathBuf,
    outcome: PathBuf,
    images: PathBuf,
    /// Images for the hidden files, of a volume that is encrypted in place.
    hidden: PathBuf,
    batch: PathBuf,
}

impl DriveFiles {
    fn new(request: &PrepRequest, drive_id: &str) -> Self {
        let of = |which| sidecar(&request.journal, &request.session, which);
        Self {
            record: journal_dir(&request.journal).join(format!("{drive_id}.xml")),
            checkpoint: of(Sidecar::Checkpoint(drive_id)),
            outcome: of(Sidecar::Outcome(drive_id)),
            images: of(Sidecar::Images(drive_id)),
            hidden: of(Sidecar::HiddenImages(drive_id)),
            batch: of(Sidecar::BatchJournal(drive_id)),
        }
    }

    fn images(&self, make: bool) -> Result<File, Problem> {
        Self::open(&self.images, make)
    }

    /// [`commit::trust`], naming the file where that is at fault.
    fn trust(&self, images: &mut File, written: &Prefix, device: &Device, name: &str) -> Result<(), Problem> {
        commit::trust(images, written, device, name).map_err(|problem| match problem.kind {
            Kind::Environment => problem.path(&self.images),
            _ => problem,
        })
    }

    /// Opens a private file; `make` creates a missing one.
    fn open(path: &Path, make: bool) -> Result<File, Problem> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(make).mode(0o600);
        options.open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if !make => {
                let problem = Problem::new(Kind::Environment, "a file next to the journal is gone").path(path);
                problem.advice("restore it as it was: the volume can be neither finished nor rolled back without it")
            }
            _ => steps::sidecar_problem(&error, path),
        })
    }

    /// The log of copied data, up to the part covered by the checkpoint.
    fn log(&self, checkpoint: &Checkpoint) -> io::Result<(OutcomeLog, Replay)> {
        let file = OpenOptions::new().read(true).write(true).open(&self.outcome)?;
        let state = checkpoint.state.append().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        OutcomeLog::resume(file, &state.outcome, state.next.0)
    }

    /// What the outcome log says, with the files that were left out: it must be readable before the volume is changed.
    fn replay(&self, checkpoint: &Checkpoint, drive: &str) -> Result<Replay, Problem> {
        let (_, replay) = self.log(checkpoint).map_err(|error| {
            Problem::new(Kind::Environment, format!("the outcome log cannot be used: {error}"))
                .path(&self.outcome)
                .drive(drive)
                .advice(Advice::from("restore the file as it was, or roll the session back with ") + Setting::Abort)
        })?;
        Ok(replay)
    }

    /// An empty log.
    fn new_log(&self) -> io::Result<(OutcomeLog, Replay)> {
        replace_private(&self.outcome, &[])?;
        let file = OpenOptions::new().read(true).write(true).open(&self.outcome)?;
        Ok((OutcomeLog::new(file), Replay::default()))
    }
}

/// Reads the checkpoint of a drive to which an earlier run of the session started to add. If the plan is known, its
/// time and the digests of its prefixes must match.
///
/// # Errors
/// The reason why it is not valid.
pub fn started(
    request: &PrepRequest,
    target: &TargetDrive,
    plan: Option<(u64, &BTreeMap<u64, [u8; 32]>)>,
) -> Result<Checkpoint, Problem> {
    let drive_id = &target.facts.drive_id;
    let path = DriveFiles::new(request, drive_id).checkpoint;
    let otherwise =
        "nothing was changed; restore the file as it was: only it knows how far the drive's volume is changed";
    let unusable = |why: String| {
        let problem = Problem::new(Kind::Environment, format!("the drive's checkpoint {why}"));
        problem.path(&path).drive(&target.facts.name).advice(otherwise)
    };
    let bytes = fs::read(&path).map_err(|error| unusable(format!("cannot be read: {error}")))?;
    let checkpoint =
        Checkpoint::decode(&bytes).map_err(|fault| unusable(fault.to_string()).advice(fault.advice(otherwise)))?;
    let planned = plan.is_none_or(|(formatted, prefixes)| {
        let snapshot = &checkpoint.snapshot;
        checkpoint.time == formatted && prefixes.get(&snapshot.len) == Some(&snapshot.digest)
    });
    let fits = checkpoint.session == request.session
        && checkpoint.drive_id == *drive_id
        && checkpoint.state.work() == target.work
        && planned;
    if !fits {
        return Err(unusable("belongs to another plan".into()));
    }
    if checkpoint.identity != identity_digest(target) {
        return Err(unusable("belongs to another drive".into()));
    }
    Ok(checkpoint)
}

/// Adds files to a drive, or continues that.
/// Failures of a drive whose volume is being changed.
fn failures(facts: &DriveFacts) -> Failures {
    let node = (!facts.is_image).then(|| facts.path.clone());
    Failures::of(&facts.name, node).within(Outlook::with_rollback(commit::MEANWHILE))
}

fn add(index: usize, drive: &AppendDrive, shared: &Shared<'_>) -> Result<Done, Problem> {
    let (request, facts) = (shared.request, &drive.target.facts);
    let drive_files = DriveFiles::new(request, &facts.drive_id);
    let device = Arc::new(claim(&drive.target, shared.context)?);
    // A volume that is encrypted in place may be in between; its space is checked under the claim in any case.
    let is_plain = matches!(drive.kind, AppendKind::EncryptFirst(_));
    let there = (!is_plain).then(|| unlock(&drive.target, Box::new(Arc::clone(&device)))).transpose()?;
    let mut checkpoint = match &drive.started {
        Some(started) => (**started).clone(),
        None => begin(index, drive, &drive_files, shared)?,
    };
    let pool = shared.pool(index)?;
    let engine = steps::engine(&device, &pool, request, &facts.name, shared.events)?;
    let io = BlockIo::new(engine, pool.clone(), failures(facts)).until(shared.stop);
    let mut store = Store::new(io, shared.events);
    let opened = match there {
        Some(opened) => opened,
        None => {
            encrypt_first(index, drive, &device, &drive_files, &mut checkpoint, &mut store, shared)?;
            unlock(&drive.target, Box::new(Arc::clone(&device)))?
        }
    };
    let is_copied = is_copied(&checkpoint);
    let mut images = drive_files.images(!is_copied)?;
    if let (false, AppendKind::Index(rows)) = (is_copied, &drive.kind) {
        index_files(index, drive, rows, &opened, &drive_files, &mut checkpoint, &mut store, &mut images, shared)?;
    } else if !is_copied {
        copy(index, drive, &opened, &drive_files, &mut checkpoint, (&mut store, &pool), &mut images, shared)?;
    } else {
        (shared.events)(Event::Note(Notice::of(&facts.name, "everything is copied; it is finished now")));
        drive_files.trust(&mut images, &copied_of(&checkpoint)?.images, &device, &facts.name)?;
    }
    let done = copied_of(&checkpoint)?;
    let had_header_hash = state_of(&checkpoint)?.record.is_some_and(|record| record.has_header_hash);
    let replay = drive_files.replay(&checkpoint, &facts.name)?;
    (shared.events)(Event::Stage { drive: index, stage: Stage::Finishing });
    let copied = store.written();
    commit::redo(&mut images, &mut store)?;
    let store_written = store.written();
    // Others may have the slots: what follows reads in longer ones.
    drop(store);
    drop(pool);
    steps::drop_caches(&device, facts, shared.events);
    let looked = read_back(index, drive, &drive_files.record, &done, shared)?;
    steps::keep_manifest(&drive.target, looked, &drive_files.record, (MANIFEST_NAME, &done.manifest_md5), shared)?;
    if drive.tree.is_listed() && !drive.is_index() {
        let batches = copy::listed(&drive.tree, drive.plan.cluster);
        list::keep_part(request, &facts.drive_id, &drive.tree, batches, &drive_files.outcome, &replay.left_out)?;
    }
    let header = request.drive_header_hash || had_header_hash;
    let header = if header { Some(steps::header_hash(&device, opened.found.volume.start)?) } else { None };
    write_record(
        drive.target.key.as_deref(),
        &facts.drive_id,
        &drive_files,
        Some(done.manifest_md5),
        header.as_deref(),
    )?;
    let outside = ByteLen(facts.size.0.saturating_sub(opened.len().0));
    drop(opened);
    release(device, facts, shared);
    (shared.events)(Event::Stage { drive: index, stage: Stage::Done });
    Ok(Done {
        files: done.files,
        data: done.data,
        written: ByteLen(done.written.0 + store_written - copied),
        manifest_md5: Some(done.manifest_md5),
        left_out: replay.left_out.into_iter().map(|(i, why)| (drive.tree.source_path(i), why)).collect(),
        record: Some(drive_files.record),
        keys: DriveKeys::default(),
        free_space_untouched: !shared.request.wipe_free,
        outside_untouched: outside,
    })
}

/// Lets go of a finished drive.
fn release(device: Arc<Device>, facts: &DriveFacts, shared: &Shared<'_>) {
    if let Err(error) = device.reread_partitions() {
        (shared.events)(Event::Warning(Notice::of(
            &facts.name,
            format!("finished, but the kernel did not read its partition table again: {error}"),
        )));
    }
    let kind = device.kind().clone();
    drop(device);
    steps::tell_mounted(&kind, facts, shared.events);
}

/// Encrypts the volume in place, as far as it is not encrypted yet.
fn encrypt_first(
    index: usize,
    drive: &AppendDrive,
    device: &Arc<Device>,
    drive_files: &DriveFiles,
    checkpoint: &mut Checkpoint,
    store: &mut Store<'_>,
    shared: &Shared<'_>,
) -> Result<(), Problem> {
    let facts = &drive.target.facts;
    let state = checkpoint.state.convert().cloned();
    let mut state = state.ok_or_else(|| Problem::new(Kind::Internal, "a plain volume without a plan for it"))?;
    if state.step == encrypt::EncryptStep::Done {
        return Ok(());
    }
    let found;
    let keys = match &drive.kind {
        AppendKind::EncryptFirst(Some(first)) if first.keys.is_some() => first.keys.as_ref(),
        _ => None,
    };
    let keys = match keys {
        Some(keys) => keys,
        None => {
            found = keys_again(&state, &drive.target, drive_files)?;
            &found
        }
    };
    let mut work = encrypt::InPlaceEncryption {
        index,
        facts,
        medium: Arc::clone(device) as Arc<dyn Medium>,
        sector: drive.target.sector,
        now: shared.formatted,
        keys,
        images: (
            &mut DriveFiles::open(&drive_files.hidden, state.step == encrypt::EncryptStep::Begun)?,
            &drive_files.hidden,
        ),
        batches: (
            &DriveFiles::open(&drive_files.batch, state.step < encrypt::EncryptStep::Passing)?,
            &drive_files.batch,
        ),
        batch_len: encrypt::batch_journal::BATCH_LEN,
        save: &mut |state| {
            if let Some(now) = checkpoint.state.convert_mut() {
                now.clone_from(state);
            }
            save(drive_files, checkpoint)
        },
        workers: shared.workers,
        events: shared.events,
        stop: shared.stop,
    };
    encrypt::encrypt(&mut work, &mut state, store)?;
    steps::drop_caches(device, facts, shared.events);
    Ok(())
}

/// The keys of a partly encrypted volume.
fn keys_again(state: &encrypt::State, target: &TargetDrive, drive_files: &DriveFiles) -> Result<InPlaceKeys, Problem> {
    let regions = state.regions(target.sector).map_err(|fault| NotRestored::Checkpoint(fault.to_string()));
    let keys = regions.and_then(|regions| {
        InPlaceKeys::restore(&state.sealed_keys(), &regions, &drive_files.record, &target.facts.drive_id)
    });
    keys.map_err(|why| {
        Problem::new(Kind::Environment, format!("the volume's key cannot be had: {why}"))
            .path(&drive_files.record)
            .drive(&target.facts.name)
            .advice("bring the drive record back: without it, what is encrypted cannot be read")
    })
}

/// Starts a drive: its record if there is none, the outcome log, the first checkpoint, and then the journal entry.
fn begin(
    index: usize,
    drive: &AppendDrive,
    drive_files: &DriveFiles,
    shared: &Shared<'_>,
) -> Result<Checkpoint, Problem> {
    let (request, facts) = (shared.request, &drive.target.facts);
    let before = record_before(drive, drive_files, shared)?;
    let state = AppendState::begun(before);
    let state = match &drive.kind {
        AppendKind::EncryptFirst(first) => {
            let first = first.as_ref().and_then(|first| first.keys.as_ref().map(|keys| (first, keys)));
            let (first, keys) = first.ok_or_else(|| Problem::new(Kind::Internal, "no keys were made"))?;
            steps::write_key_file(request, keys.external.as_ref())?;
            WorkState::Encrypt(encrypt::begun(first.volume, &first.regions, request.wipe_free, keys), state)
        }
        AppendKind::Index(_) => WorkState::Index(state),
        AppendKind::Copy => WorkState::Append(state),
    };
    replace_private(&drive_files.outcome, &[]).map_err(|error| steps::sidecar_problem(&error, &drive_files.outcome))?;
    let checkpoint = Checkpoint {
        session: request.session.clone(),
        drive_id: facts.drive_id.clone(),
        identity: identity_digest(&drive.target),
        plan: [0; 32],
        time: shared.formatted.0,
        slot_len: SLOT_LEN as u64,
        snapshot: shared.snapshot,
        drive: WayBack::of(&drive.target, None).encode(),
        state,
    };
    save(drive_files, &checkpoint)?;
    let started = ActivityRecord::Drive {
        session: &request.session,
        drive_id: &facts.drive_id,
        state: SessionState::Started,
        record_file: &format!("{}.xml", facts.drive_id),
        work: drive.target.work,
        details: DriveDetails {
            name: Some(&facts.name),
            size: Some(facts.size.0),
            for_shipping: Some(facts.for_shipping),
            place: Some(shared.place(index)),
            ..DriveDetails::default()
        },
    };
    shared.journal.append(&started).map_err(steps::first)?;
    Ok(checkpoint)
}

/// What the drive's record said before this session; a drive without a record of its own gets one.
fn record_before(
    drive: &AppendDrive,
    drive_files: &DriveFiles,
    shared: &Shared<'_>,
) -> Result<Option<RecordBefore>, Problem> {
    let facts = &drive.target.facts;
    let key = drive.target.key.as_deref().map(SecretText::expose);
    let own = record_of(&drive_files.record)?.filter(|record| {
        record.drive_id == facts.drive_id && record.bitlocker_key.as_ref().map(SecretText::expose) == key
    });
    if let Some(record) = own {
        let has_header_hash = record.drive_header_hash.is_some();
        return Ok(Some(RecordBefore { manifest_md5: manifest_md5_of(&record), has_header_hash }));
    }
    if let Some(kept) = steps::make_way(shared.request, &facts.drive_id, &drive_files.record)? {
        let what = format!("an earlier drive record was found; its key is kept in {}", kept.display());
        (shared.events)(Event::Note(Notice::of(&facts.name, what)));
    }
    write_record(drive.target.key.as_deref(), &facts.drive_id, drive_files, None, None)?;
    Ok(None)
}

const fn manifest_md5_of(record: &DriveRecord) -> Option<[u8; 16]> {
    match record.manifest_hash {
        Some(crate::azure::Digest::Md5(md5)) => Some(md5),
        _ => None,
    }
}

fn save(drive_files: &DriveFiles, checkpoint: &Checkpoint) -> Result<(), Problem> {
    let saved = replace_private(&drive_files.checkpoint, &checkpoint.encode());
    saved.map_err(|error| steps::sidecar_problem(&error, &drive_files.checkpoint))
}

/// Whether free clusters are overwritten. On a volume encrypted in place they are encrypted by then.
fn wipes_free(drive: &AppendDrive, shared: &Shared<'_>) -> bool {
    shared.request.wipe_free && !matches!(drive.kind, AppendKind::EncryptFirst(_))
}

/// Copies the remaining files, up to complete images and the checkpoint that records them.
#[expect(clippy::too_many_arguments, reason = "one step of one function")]
fn copy(
    index: usize,
    drive: &AppendDrive,
    opened: &Opened,
    drive_files: &DriveFiles,
    checkpoint: &mut Checkpoint,
    (store, pool): (&mut Store<'_>, &Pool),
    images: &mut File,
    shared: &Shared<'_>,
) -> Result<(), Problem> {
    let name = &drive.target.facts.name;
    let (tree, rules, now) = (&drive.tree, &drive.rules, shared.formatted);
    let manifest_len_max = manifest::len_max(tree, rules).0;
    let what = Addition { name, opened, avoid: &[], tree, rules, manifest_len_max, now };
    // Planned again under the claim: the volume may have changed since preflight.
    let planned = what.plan().map_err(|refused| refused.problem(name))?;
    let log = resume(&what, &planned, drive_files, checkpoint, shared)?;
    checkpoint.plan = planned.digest(tree);
    let beside = journal_dir(&shared.request.journal);
    let job = AdditionJob {
        index,
        what,
        pace: shared.request.pace,
        bases: &shared.context.sources,
        beside: &beside,
        rate_limit: &shared.rate_limit,
        workers: shared.workers,
        wipe_free: wipes_free(drive, shared),
        events: shared.events,
        stop: shared.stop,
    };
    let mut next = checkpoint.clone();
    let mut each: Save<'_> = Box::new(move |durable| {
        if let Some(state) = next.state.append_mut() {
            reached(state, durable);
        }
        replace_private(&drive_files.checkpoint, &next.encode())
    });
    let appended = job.copy(&planned, store, pool, log, &mut each, images)?;
    drop(each);
    reached(state_mut(checkpoint)?, &appended.durable);
    let (manifest_md5, images) = (appended.manifest_md5, appended.images);
    let (files, data, written) = (appended.files, appended.data, appended.written);
    ready(drive_files, checkpoint, Copied { manifest_md5, files, data, written, images })
}

/// Records the file data that are durable.
const fn reached(state: &mut AppendState, durable: &Durable) {
    (state.next, state.next_file, state.outcome) = (durable.next, durable.next_file, durable.outcome);
}

/// Records in the checkpoint that everything is copied and the images are complete.
fn ready(drive_files: &DriveFiles, checkpoint: &mut Checkpoint, copied: Copied) -> Result<(), Problem> {
    state_mut(checkpoint)?.copied = Some(copied);
    sync_dir(&drive_files.images).map_err(|error| steps::sidecar_problem(&error, &drive_files.images))?;
    save(drive_files, checkpoint)
}

/// Hashes the files on the volume and writes their manifest, up to complete images and the checkpoint that records
/// them.
#[expect(clippy::too_many_arguments, reason = "one step of one function")]
fn index_files(
    index: usize,
    drive: &AppendDrive,
    rows: &[IndexRow],
    opened: &Opened,
    drive_files: &DriveFiles,
    checkpoint: &mut Checkpoint,
    store: &mut Store<'_>,
    images: &mut File,
    shared: &Shared<'_>,
) -> Result<(), Problem> {
    let (name, rules) = (&drive.target.facts.name, &drive.rules);
    (shared.events)(Event::Stage { drive: index, stage: Stage::Listing });
    let mut problems = Problems::default();
    let files = Files::read(opened)?;
    let mut listed = Index::list(&files, rows, name, &mut problems);
    problems.into_result().map_err(steps::first)?;
    let what = Addition {
        name,
        opened,
        avoid: &[],
        tree: &drive.tree,
        rules,
        manifest_len_max: listed.len_max(&rules.drive_id, &rules.session),
        now: shared.formatted,
    };
    let planned = what.plan().map_err(|refused| refused.problem(name))?;
    let number = planned.lists_of(opened, &rules.session)?;
    (shared.events)(Event::Stage { drive: index, stage: Stage::Data });
    let (count, total) = listed.totals();
    listed.hash(opened, &files, shared.workers, shared.stop, &mut |acknowledged| {
        let (acknowledged, waiting_for) = (ByteLen(acknowledged), Waiting::Drive);
        (shared.events)(Event::Progress { drive: index, acknowledged, total, files: 0, waiting_for });
    })?;
    (shared.events)(Event::Stage { drive: index, stage: Stage::Metadata });
    let (pace, workers, events, stop) = (shared.request.pace, shared.workers, shared.events, shared.stop);
    let (rate_limit, wipe_free) = (&shared.rate_limit, wipes_free(drive, shared));
    let beside = &*journal_dir(&shared.request.journal);
    let job = AdditionJob { index, what, pace, bases: &[], beside, rate_limit, workers, wipe_free, events, stop };
    let mut manifest = listed.manifest(&rules.drive_id, &rules.session, number);
    let (manifest_md5, images) = job.finish(&planned, store, &mut manifest, LeftOut::default(), images)?;
    let written = store.written();
    let (files, data, written) = (count, total, ByteLen(written));
    ready(drive_files, checkpoint, Copied { manifest_md5, files, data, written, images })
}

/// The log at the end of the durable batches; empty where these are not valid any more.
fn resume(
    what: &Addition<'_>,
    planned: &Planned,
    drive_files: &DriveFiles,
    checkpoint: &mut Checkpoint,
    shared: &Shared<'_>,
) -> Result<(OutcomeLog, Replay), Problem> {
    let failed = |error: io::Error| steps::sidecar_problem(&error, &drive_files.outcome);
    let durable = state_of(checkpoint)?.next.0;
    if durable > 0 {
        let note = |why: &str| (shared.events)(Event::Note(Notice::of(what.name, format!("copied again: {why}"))));
        if checkpoint.plan != planned.digest(what.tree) || checkpoint.slot_len != SLOT_LEN as u64 {
            note("what is free on the volume is not what it was");
        } else {
            match drive_files.log(checkpoint) {
                Ok((log, replay)) => {
                    let last = durable.saturating_sub(READ_BACK);
                    let chosen = |number| number == 0 || number >= last;
                    let lost = |left_out: &BTreeMap<u32, String>| {
                        left_out.range(what.tree.first_property()..).next().is_some()
                            || all_left_out(what.tree, left_out).is_some()
                    };
                    if lost(&replay.left_out) {
                        note("its sources could not be read before");
                    } else if first_bad(what, &planned.append, SLOT_LEN, &replay.sums, chosen)?.is_none() {
                        return Ok((log, replay));
                    } else {
                        note("the volume does not hold what was written to it");
                    }
                }
                Err(error) => note(&format!("the outcome log cannot be used: {error}")),
            }
        }
        let state = state_mut(checkpoint)?;
        (state.next, state.outcome) = (BatchNo(0), Prefix::of_nothing());
        save(drive_files, checkpoint)?;
    }
    drive_files.new_log().map_err(failed)
}

fn write_record(
    key: Option<&SecretText>,
    drive_id: &str,
    drive_files: &DriveFiles,
    manifest_hash: Option<[u8; 16]>,
    drive_header_hash: Option<&str>,
) -> Result<(), Problem> {
    let record = DriveInfo {
        drive_id,
        bitlocker_key: key.map_or("", SecretText::expose),
        manifest_file: &format!("\\{MANIFEST_NAME}"),
        manifest_hash,
        drive_header_hash,
    };
    let state = if manifest_hash.is_some() { RecordState::Completed } else { RecordState::Incomplete };
    let bytes = drive_record::write(&record, state, now()).map_err(|error| io::Error::other(error.to_string()));
    bytes.and_then(|bytes| replace_private(&drive_files.record, &bytes)).map_err(|error| {
        Problem::new(Kind::Environment, format!("the drive record cannot be written: {error}"))
            .path(&drive_files.record)
            .advice("make room or mend the permissions, and start again")
    })
}

/// Reads back from the device with the key as the drive record prints it: the file system as a whole, the manifest, and
/// the requested part of the session's files.
fn read_back(
    index: usize,
    drive: &AppendDrive,
    record: &Path,
    done: &Copied,
    shared: &Shared<'_>,
) -> Result<Option<Opened>, Problem> {
    let facts = &drive.target.facts;
    if shared.request.read_back == ReadBack::None {
        return Ok(None);
    }
    (shared.events)(Event::Stage { drive: index, stage: Stage::ReadBack });
    let device = Device::open_with(&facts.path, Access::Read, drive.target.sector, &Roots::default())?;
    let opened = readback::open_again(Box::new(device), facts, Some(record), None);
    let looked = opened.and_then(|opened| read_added(index, drive, &opened, done, shared).map(|()| Some(opened)));
    looked.map_err(|problem| match problem.kind {
        Kind::Different => problem.advice(
            Advice::from("do not ship it: roll the session back with ")
                + Setting::Abort
                + ", and check cable and drive (smartctl -a)",
        ),
        _ => problem,
    })
}

/// [`read_back`] for an opened volume.
fn read_added(
    index: usize,
    drive: &AppendDrive,
    opened: &Opened,
    done: &Copied,
    shared: &Shared<'_>,
) -> Result<(), Problem> {
    let different = |what: String| Problem::new(Kind::Different, what).drive(&drive.target.facts.name);
    let mut view = View(opened);
    let volume = Volume::open(&mut view, opened.len()).map_err(|error| different(error.to_string()))?;
    let report = volume.check(&mut view);
    if let Some(first) = report.findings.iter().find(|finding| finding.severity == Severity::Error) {
        let first = format!("{}: {}", first.place, first.what);
        return Err(different(format!("the file system that was read back is not sound: {first}")));
    }
    let (how, seed) = (shared.request.read_back, readback::seed(&done.manifest_md5));
    // Earlier files were read when they were indexed.
    let below = (!drive.is_index()).then(|| format!("\\{}", drive.tree.session()));
    let added = Added {
        manifest: &format!("\\{MANIFEST_NAME}"),
        manifest_md5: done.manifest_md5,
        below: below.as_deref(),
        choose: &mut |count| if how == ReadBack::Full { (0..count).collect() } else { readback::sample(count, seed) },
    };
    let context = Context {
        index,
        request: &VerifyRequest::default(),
        logs: &Logs::default(),
        journals: &Journals::none(),
        workers: shared.workers,
        events: shared.events,
        stop: shared.stop,
        deliver: None,
    };
    added::run(opened, &context, added).map(drop)
}

/// Checks everything that [`roll_back`] will need; changes nothing.
///
/// # Errors
/// Missing or damaged parts, and other obstacles.
pub(crate) fn check_back(
    target: &TargetDrive,
    checkpoint: &Checkpoint,
    request: &PrepRequest,
    roots: &Roots,
) -> Result<(), Problem> {
    let name = &target.facts.name;
    let drive_files = DriveFiles::new(request, &target.facts.drive_id);
    let state = state_of(checkpoint)?;
    if state.record.is_some() && record_of(&drive_files.record)?.is_none() {
        let problem = Problem::new(Kind::Environment, "the drive record, with the key of the drive, is missing");
        return Err(problem.path(&drive_files.record).drive(name).advice("restore the file as it was"));
    }
    if !has_changed(checkpoint) {
        return Ok(());
    }
    if let Some(copied) = &state.copied {
        let device = Device::open_with(&target.facts.path, Access::Read, target.sector, roots)?;
        drive_files.trust(&mut drive_files.images(false)?, &copied.images, &device, name)?;
    }
    let Some(state) = checkpoint.state.convert() else { return Ok(()) };
    let keys = keys_again(state, target, &drive_files)?;
    let mut images = DriveFiles::open(&drive_files.hidden, false)?;
    let ring = DriveFiles::open(&drive_files.batch, state.step != encrypt::EncryptStep::Passing)?;
    encrypt::check_back(state, &keys, name, (&mut images, &drive_files.hidden), (&ring, &drive_files.batch))
}

/// Returns a drive to its state before the session.
///
/// # Errors
/// Errors of the drive or of the files next to the journal. May be repeated.
pub(crate) fn roll_back(
    target: &TargetDrive,
    checkpoint: &Checkpoint,
    request: &PrepRequest,
    events: &(dyn Fn(Event) + Sync),
) -> Result<(), Problem> {
    let facts = &target.facts;
    let drive_files = DriveFiles::new(request, &facts.drive_id);
    let state = state_of(checkpoint)?;
    let device =
        if has_changed(checkpoint) { Some(Arc::new(claim(target, &guard::Context::default())?)) } else { None };
    if let Some(device) = &device {
        let pool = Pool::new(SLOTS, SLOT_LEN)
            .map_err(|error| Problem::new(Kind::Environment, format!("no memory for slots: {error}")))?;
        let engine = steps::engine(device, &pool, request, &facts.name, &|_| {})?;
        let mut store = Store::new(BlockIo::new(engine, pool, failures(facts)), events);
        if let Some(copied) = &state.copied {
            let mut images = drive_files.images(false)?;
            drive_files.trust(&mut images, &copied.images, device, &facts.name)?;
            commit::undo(&mut images, &mut store)?;
        }
        if let Some(mut convert) = checkpoint.state.convert().cloned() {
            // The images of the addition become invalid once the volume is decrypted.
            let mut now = checkpoint.clone();
            state_mut(&mut now)?.copied = None;
            save(&drive_files, &now)?;
            let workers = Workers::start(1).map_err(|error| {
                Problem::new(Kind::Environment, format!("the system refuses more threads: {error}"))
            })?;
            let mut work = encrypt::InPlaceEncryption {
                index: 0,
                facts,
                medium: Arc::clone(device) as Arc<dyn Medium>,
                sector: target.sector,
                now: FileTime(checkpoint.time),
                keys: &keys_again(&convert, target, &drive_files)?,
                images: (&mut DriveFiles::open(&drive_files.hidden, false)?, &drive_files.hidden),
                batches: (
                    &DriveFiles::open(&drive_files.batch, convert.step != encrypt::EncryptStep::Passing)?,
                    &drive_files.batch,
                ),
                batch_len: encrypt::batch_journal::BATCH_LEN,
                save: &mut |state| {
                    if let Some(convert) = now.state.convert_mut() {
                        convert.clone_from(state);
                    }
                    save(&drive_files, &now)
                },
                workers: &workers,
                events: &|_| {},
                stop: &Stop::new(),
            };
            encrypt::decrypt(&mut work, &mut convert, &mut store)?;
        }
        let _ = device.drop_caches();
        let _ = device.reread_partitions();
    }
    restore_record(state.record.as_ref(), target, &drive_files, device.as_deref())
}

/// Makes the drive record what it was before the session; one that the session made is removed.
fn restore_record(
    before: Option<&RecordBefore>,
    target: &TargetDrive,
    drive_files: &DriveFiles,
    device: Option<&Device>,
) -> Result<(), Problem> {
    let facts = &target.facts;
    let Some(before) = before else {
        return match fs::remove_file(&drive_files.record) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(steps::sidecar_problem(&error, &drive_files.record))
            }
            _ => Ok(()),
        };
    };
    let Some(record) = record_of(&drive_files.record)? else { return Ok(()) };
    if manifest_md5_of(&record) == before.manifest_md5 {
        return Ok(());
    }
    let header = match device {
        Some(device) if before.has_header_hash => {
            let reading = Device::open_with(&facts.path, Access::Read, target.sector, &Roots::default())?;
            let start = Found::look(Box::new(reading), facts.clone(), None, None)?.volume.start;
            Some(steps::header_hash(device, start)?)
        }
        _ => None,
    };
    write_record(record.bitlocker_key.as_ref(), &facts.drive_id, drive_files, before.manifest_md5, header.as_deref())
}

impl AppendDrive {
    const fn is_index(&self) -> bool {
        matches!(self.kind, AppendKind::Index(_))
    }
}

impl DriveWork for AppendDrive {
    fn target(&self) -> &TargetDrive {
        &self.target
    }

    fn tree(&self) -> &DriveTree {
        &self.tree
    }

    fn summary(&self) -> DrivePlan {
        self.plan.clone()
    }

    fn saved(&self) -> SavedDrive {
        let rows = match &self.kind {
            AppendKind::Index(rows) => rows.clone(),
            AppendKind::Copy | AppendKind::EncryptFirst(_) => Vec::new(),
        };
        SavedDrive { target: self.target.clone(), seed: 0, assigned: planner::assigned(&self.tree), rows }
    }

    fn room_beside(&self) -> ByteLen {
        match &self.kind {
            AppendKind::EncryptFirst(Some(first)) => first.beside,
            _ => ByteLen(0),
        }
    }

    fn earlier_manifest(&self) -> Option<u64> {
        self.earlier_manifest
    }

    /// A volume that is kept has its protectors, and one that is encrypted in place gets no user's password.
    fn draws_secrets(&self) -> bool {
        false
    }

    fn draw_secrets(&mut self, draw: Draw<'_>) -> Result<(), Problem> {
        if let AppendKind::EncryptFirst(Some(first)) = &mut self.kind {
            let keys = InPlaceKeys::new(&draw(&first.regions, first.disk, &self.rules.drive_id))?;
            self.target.key = Some(Arc::clone(&keys.password));
            first.keys = Some(keys);
        }
        Ok(())
    }

    fn first_open_file(&self) -> u32 {
        let state = self.started.as_ref().and_then(|started| started.state.append());
        state.map_or(0, |state| if state.copied.is_some() { u32::MAX } else { state.next_file.0 })
    }

    fn position(&self) -> String {
        let Some(started) = &self.started else { return "begins at its start".into() };
        if is_copied(started) {
            return "has all its files; they are made part of the volume".into();
        }
        let next = started.state.append().map_or(0, |state| state.next.0);
        encrypting(started).unwrap_or_else(|| match next {
            0 => "begins at its start".into(),
            next => format!("continues after batch {next}"),
        })
    }

    fn without_consent(&self) -> &'static str {
        match self.kind {
            AppendKind::EncryptFirst(_) => "no consent was given to encrypt its volume in place",
            AppendKind::Copy | AppendKind::Index(_) => "no consent was given to erase it",
        }
    }

    fn run(&self, index: usize, shared: &Shared<'_>) -> Result<Done, Problem> {
        add(index, self, shared)
    }
}
