//! Formats a drive and fills it, from the claim to its record.

use std::cell::{Cell, LazyCell};
use std::fs::OpenOptions;
use std::io;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::process::setpriority_process;

use crate::azure::drive_record::{self, DriveInfo, RecordState};
use crate::azure::journal::{ActivityRecord, DriveDetails, SessionState, Work};
use crate::bitlocker::build::{FRONT_LEN, REGION_LEN, VolumeSecrets};
use crate::checkpoint::{Checkpoint, FormatState, Prefix};
use crate::crypt::SectorCipher;
use crate::device::{Access, Device, Roots};
use crate::journal::files::{Sidecar, journal_dir, replace_private, sidecar};
use crate::ntfs::build::Tree;
use crate::plan::batches::Content;
use crate::plan::drive::MANIFEST_NAME;
use crate::plan::tree::DriveTree;
use crate::pool::{FILLS_MAX, Pool, SLOT_LEN};
use crate::report::{Advice, DrivePlan, Setting};
use crate::report::{DriveKeys, Event, Kind, Notice, Problem, Stage};
use crate::request::{PrepRequest, ReadBack};
use crate::stream::contents::Fetchers;
use crate::stream::event_loop::BlockIo;
use crate::stream::failures::Failures;
use crate::stream::sources::all_left_out;
use crate::stream::timeouts::Timeouts;
use crate::surroundings::now;
use crate::units::{BatchNo, ByteLen, DeviceRange};
use crate::volume::find::Opened;
use crate::work::claim::claim;
use crate::work::discard::BackgroundDiscard;
use crate::work::drive::{self, DriveContent, Finished, Format, FveRegion, PlainBytes, Save, Setup};
use crate::work::drive_work::{Draw, DriveWork};
use crate::work::keys;
use crate::work::outcome::{OutcomeLog, Replay};
use crate::work::planner;
use crate::work::planner::FormatDrive;
use crate::work::readback::{self, Written};
use crate::work::recipe::SavedDrive;
use crate::work::shared::{Done, Shared};
use crate::work::steps::{
    drop_caches, engine, header_hash, internal, keep_manifest, make_way, sidecar_problem, tell_mounted, write_key_file,
};
use crate::work::target::TargetDrive;
use crate::work::{exported, list, progress, steps};

/// Slots of a drive that may be waiting for an account at once: more than for local files, since a request takes longer.
pub const FETCHES_MAX: usize = 16;

/// Nice value of the thread that stretches a password.
pub const STRETCH_NICE: i32 = 10;

/// A drive that is being formatted, under the claim.
struct Formatting<'a> {
    index: usize,
    drive: &'a FormatDrive,
    secrets: Option<&'a VolumeSecrets>,
    device: Arc<Device>,
    record_path: PathBuf,
    shared: &'a Shared<'a>,
}

fn write_drive(index: usize, drive: &FormatDrive, shared: &Shared<'_>) -> Result<Done, Problem> {
    let FormatDrive { target, layout, rules, .. } = drive;
    let (facts, request) = (&target.facts, shared.request);
    let device = Arc::new(claim(target, shared.context)?);
    let record_path = journal_dir(&request.journal).join(format!("{}.xml", rules.drive_id));
    let formatting = Formatting { index, drive, secrets: drive.secrets.as_ref(), device, record_path, shared };
    let pool = shared.pool(index)?;
    let finished = formatting.stream(&pool)?;
    let outcome = sidecar(&request.journal, &request.session, Sidecar::Outcome(&rules.drive_id));
    if layout.tree().is_listed() {
        let batches = layout.batches(SLOT_LEN);
        list::keep_part(request, &rules.drive_id, layout.tree(), batches, &outcome, &finished.left_out)?;
    }
    if layout.tree().exported().is_some() {
        let batches = layout.batches(SLOT_LEN);
        exported::keep_part(request, &rules.drive_id, layout.tree(), batches, &outcome, &finished.left_out)?;
    }
    let keys = drive_keys(request, formatting.secrets);
    // The drive must open with the key as the user keeps it.
    let printed = match request.windows {
        Some(_) => keys.recovery_file.as_deref(),
        None => Some(&*formatting.record_path),
    };
    let looked = read_back(index, drive, &finished, (&formatting.device, &pool), printed, &outcome, shared)?;
    drop(pool);
    formatting.complete(looked, &finished)?;
    let Formatting { device, record_path, .. } = formatting;
    let kind = device.kind().clone();
    drop(device);
    tell_mounted(&kind, facts, shared.events);
    (shared.events)(Event::Stage { drive: index, stage: Stage::Done });
    let tree = layout.tree();
    Ok(Done {
        files: finished.files,
        data: finished.data,
        written: finished.written,
        manifest_md5: Some(finished.manifest_md5).filter(|_| layout.has_manifest()),
        left_out: finished.left_out.iter().map(|(&i, why)| (tree.source_path(i), why.clone())).collect(),
        record: request.windows.is_none().then_some(record_path),
        keys,
        free_space_untouched: !request.wipe_free,
        // A blank drive is written from its first sector to its last.
        outside_untouched: ByteLen(0),
    })
}

impl Formatting<'_> {
    /// Writes the drive, from its checkpoint to its end.
    fn stream(&self, pool: &Pool) -> Result<Finished, Problem> {
        let Self { index, drive, secrets, device, shared, .. } = self;
        let (facts, request) = (&drive.target.facts, shared.request);
        let wipe = whole_wipe(drive, device);
        let discard = Cell::new(None);
        // The password is stretched while data streams: only the regions need it, and they are written last.
        let finished = std::thread::scope(|scope| {
            let region = secrets.map(|secrets| {
                scope.spawn(|| {
                    // Not urgent: the data are written first. On Linux the priority is the thread's own.
                    let _ = setpriority_process(None, STRETCH_NICE);
                    secrets.region(&mut |_| {})
                })
            });
            // Never called for a volume without BitLocker.
            let region = Box::new(|| match region {
                Some(region) => region.join().unwrap_or_else(|bug| resume_unwind(bug)),
                None => Box::new([0; REGION_LEN]),
            });
            let checkpoint = match &drive.started {
                Some(started) => (**started).clone(),
                // The record first: from the first data write on the drive is worth nothing without its key.
                None => {
                    let write_record = || self.write_record(None, None);
                    begin(*index, drive, *secrets, &self.record_path, write_record, shared)?
                }
            };
            let engine = engine(device, pool, request, &facts.name, shared.events)?;
            // Nothing is discarded as long as an old volume is visible, and never the wiped ranges: a device may return
            // anything for a discarded range.
            let once_wiped = || {
                if !request.wipe_free {
                    discard.set(BackgroundDiscard::start(device, &drive.layout.never_written(), &wipe));
                }
            };
            let node = (!facts.is_image).then(|| facts.path.clone());
            let io = DriveIo {
                blocks: BlockIo::new(engine, pool.clone(), Failures::of(&facts.name, node)),
                wipe: wipe.clone(),
                once_wiped: &once_wiped,
                read: &|into: &mut [u8], at| device.read_exact_at(into, at),
            };
            fill(*index, drive, *secrets, region, checkpoint, io, shared)
        })?;
        // Nothing is done to the drive any more once it is read back.
        if let Some(discard) = discard.take() {
            discard.finish(shared.stop);
        }
        Ok(finished)
    }

    /// Keeps the manifest and completes the record of a drive that was written and read back.
    fn complete(&self, looked: Option<Opened>, finished: &Finished) -> Result<(), Problem> {
        let Self { drive, device, shared, .. } = self;
        let (facts, layout) = (&drive.target.facts, &drive.layout);
        drop_caches(device, facts, shared.events);
        if let Some(name) = layout.manifest_name() {
            keep_manifest(&drive.target, looked, &self.record_path, (name, &finished.manifest_md5), shared)?;
        }
        if let Err(error) = device.reread_partitions() {
            (shared.events)(Event::Warning(Notice::of(
                &facts.name,
                format!("finished, but the kernel did not read the new partition table: {error}"),
            )));
        }
        let has_hash = shared.request.drive_header_hash;
        let header_hash = has_hash.then(|| header_hash(device, layout.volume().start)).transpose()?;
        let manifest = Some(finished.manifest_md5).filter(|_| layout.has_manifest());
        self.write_record(Some(manifest), header_hash.as_deref())
    }

    /// Writes the drive record, of a volume that has a key; `finished` has the manifest's hash, if there is a manifest.
    fn write_record(&self, finished: Option<Option<[u8; 16]>>, header_hash: Option<&str>) -> Result<(), Problem> {
        let Some(secrets) = self.secrets else { return Ok(()) };
        let manifest_file = format!("\\{}", self.drive.layout.manifest_name().unwrap_or(MANIFEST_NAME));
        let password = secrets.password().printed();
        let record = DriveInfo {
            drive_id: &self.drive.rules.drive_id,
            bitlocker_key: password.expose(),
            manifest_file: &manifest_file,
            manifest_hash: finished.flatten(),
            drive_header_hash: header_hash,
        };
        let state = if finished.is_some() { RecordState::Completed } else { RecordState::Incomplete };
        let bytes = drive_record::write(&record, state, now()).map_err(|error| io::Error::other(error.to_string()));
        bytes.and_then(|bytes| replace_private(&self.record_path, &bytes)).map_err(|error| {
            Problem::new(Kind::Environment, format!("the drive record cannot be written: {error}"))
                .path(&self.record_path)
                .advice("make room or mend the permissions, and start again")
        })
    }
}

/// Keys of a drive for Windows, as requested; empty for other drives.
pub fn drive_keys(request: &PrepRequest, secrets: Option<&VolumeSecrets>) -> DriveKeys {
    let (Some(windows), Some(secrets)) = (&request.windows, secrets) else { return DriveKeys::default() };
    let external = secrets.key_file();
    DriveKeys {
        recovery_file: Some(windows.keys.join(keys::recovery_file_name(secrets))),
        recovery_id: Some(secrets.recovery_id().to_string().to_ascii_uppercase()),
        external_file: request.external_key.as_ref().zip(external).map(|(dir, key)| dir.join(key.file_name)),
        has_password: windows.has_password,
    }
}

/// Reads back from the device itself, by a descriptor of its own, while the drive is still claimed.
pub fn read_back(
    index: usize,
    drive: &FormatDrive,
    finished: &Finished,
    (device, pool): (&Device, &Pool),
    record: Option<&Path>,
    hash_log: &Path,
    shared: &Shared<'_>,
) -> Result<Option<Opened>, Problem> {
    if shared.request.read_back == ReadBack::None {
        return Ok(None);
    }
    let facts = &drive.target.facts;
    drop_caches(device, facts, shared.events);
    let device = Device::open_with(&facts.path, Access::Read, drive.target.sector, &Roots::default())?;
    if !device.is_direct() {
        (shared.events)(Event::Note(Notice::of(
            &facts.name,
            "read back through the kernel's cache, since its file system knows no direct I/O",
        )));
    }
    let written = Written {
        index,
        facts,
        layout: &drive.layout,
        slot_len: SLOT_LEN,
        sums: &finished.sums,
        hashes: Some(hash_log),
        record,
        how: shared.request.read_back,
        timeouts: Timeouts::default(),
        seed: match drive.layout.has_manifest() {
            true => readback::seed(&finished.manifest_md5),
            false => drive.seed,
        },
        workers: shared.workers,
        pool,
        events: shared.events,
        stop: shared.stop,
    };
    readback::run_open(Box::new(device), &written).map(|(_, opened)| Some(opened))
}

/// Starts a drive: the record with its password, the outcome log, the key file, the first checkpoint, and then the
/// journal entry.
pub fn begin(
    index: usize,
    drive: &FormatDrive,
    secrets: Option<&VolumeSecrets>,
    record: &Path,
    write_record: impl Fn() -> Result<(), Problem>,
    shared: &Shared<'_>,
) -> Result<Checkpoint, Problem> {
    let (request, facts) = (shared.request, &drive.target.facts);
    if let Some(kept) = make_way(request, &drive.rules.drive_id, record)? {
        (shared.events)(Event::Note(Notice::of(
            &facts.name,
            format!("an earlier drive record was found; its key is kept in {}", kept.display()),
        )));
    }
    write_record()?;
    let drive_id = &drive.rules.drive_id;
    let path = sidecar(&request.journal, &request.session, Sidecar::Outcome(drive_id));
    replace_private(&path, &[]).map_err(|error| sidecar_problem(&error, &path))?;
    write_key_file(request, secrets.and_then(VolumeSecrets::key_file).as_ref())?;
    if let (Some(secrets), Some(windows)) = (secrets, &request.windows) {
        let path = windows.keys.join(keys::recovery_file_name(secrets));
        let text = keys::recovery_file(secrets, &facts.name, windows.recovery_form);
        replace_private(&path, &text).map_err(|error| {
            Problem::new(Kind::Environment, format!("the recovery key cannot be written: {error}"))
                .path(&path)
                .advice("make room or mend the permissions, and start again")
        })?;
    }
    let checkpoint = progress::first_checkpoint(request, drive, secrets, shared.formatted, shared.snapshot);
    let path = sidecar(&request.journal, &request.session, Sidecar::Checkpoint(drive_id));
    replace_private(&path, &checkpoint.encode()).map_err(|error| sidecar_problem(&error, &path))?;
    let exported = drive.layout.tree().exported().and(drive.layout.manifest_name());
    let manifest_file = exported.map(|name| format!("\\{name}"));
    let state = ActivityRecord::Drive {
        session: &request.session,
        drive_id,
        state: SessionState::Started,
        record_file: &format!("{drive_id}.xml"),
        work: Work::Format,
        details: DriveDetails {
            name: Some(&facts.name),
            size: Some(facts.size.0),
            for_shipping: Some(facts.for_shipping),
            place: Some(shared.place(index)),
            // An export is known by it from its beginning.
            manifest_file: manifest_file.as_deref(),
            ..DriveDetails::default()
        },
    };
    shared.journal.append(&state).map_err(steps::first)?;
    Ok(checkpoint)
}

/// Opens the outcome log at the checkpoint, after reading the durable batches back; the checkpoint is reduced if they
/// fail.
pub fn open_log(
    drive: &FormatDrive,
    cipher: Option<&SectorCipher>,
    checkpoint: &mut Checkpoint,
    read: progress::ReadAt<'_>,
    shared: &Shared<'_>,
) -> Result<(OutcomeLog, Replay), Problem> {
    let (request, facts) = (shared.request, &drive.target.facts);
    let path = sidecar(&request.journal, &request.session, Sidecar::Outcome(&drive.rules.drive_id));
    let unusable = |error: io::Error| {
        Problem::new(Kind::Environment, format!("the outcome log cannot be used: {error}"))
            .path(&path)
            .drive(&facts.name)
            .advice(
                Advice::from("restore the file, or roll the session back with ") + Setting::Abort + " and start over",
            )
    };
    let open = || OpenOptions::new().read(true).write(true).open(&path);
    let state = format_state(checkpoint)?;
    let (durable, outcome) = (state.next, state.outcome);
    let (log, replay) = OutcomeLog::resume(open().map_err(unusable)?, &outcome, durable.0).map_err(unusable)?;
    let tree = drive.layout.tree();
    if all_left_out(tree, &replay.left_out).is_some() || replay.left_out.range(tree.first_property()..).next().is_some()
    {
        // This ended the run before; the sources may be available again. The drive is written from the start.
        drop(log);
        (state.next, state.outcome) = (BatchNo(0), Prefix::of_nothing());
        let outcome = state.outcome;
        let beside_it = sidecar(&request.journal, &request.session, Sidecar::Checkpoint(&drive.rules.drive_id));
        replace_private(&beside_it, &checkpoint.encode()).map_err(|error| sidecar_problem(&error, &beside_it))?;
        return OutcomeLog::resume(open().map_err(unusable)?, &outcome, 0).map_err(unusable);
    }
    let plain = |content: &Content| matches!(content, Content::Plain(_));
    let good = progress::read_back(&drive.layout, cipher, &plain, &replay.sums, read)
        .map_err(|problem| problem.drive(&facts.name))?;
    if good == durable.0 {
        return Ok((log, replay));
    }
    (shared.events)(Event::Warning(Notice::of(
        &facts.name,
        format!("lost what it had said to be durable; batches from {good} to {} are written again", durable.0),
    )));
    drop(log);
    let file = open().map_err(unusable)?;
    let outcome = OutcomeLog::truncate(&file, &outcome, good).map_err(unusable)?;
    (state.next, state.outcome) = (BatchNo(good), outcome);
    let path = sidecar(&request.journal, &request.session, Sidecar::Checkpoint(&drive.rules.drive_id));
    replace_private(&path, &checkpoint.encode()).map_err(|error| sidecar_problem(&error, &path))?;
    OutcomeLog::resume(file, &outcome, good).map_err(unusable)
}

/// Progress of a drive that is formatted.
pub fn format_state(checkpoint: &mut Checkpoint) -> Result<&mut FormatState, Problem> {
    checkpoint.format_mut().ok_or_else(|| internal("a drive is formatted by the checkpoint of other work".into()))
}

/// Writes checkpoints that differ from `checkpoint` only in the progress.
pub fn saver<'a>(request: &PrepRequest, mut checkpoint: Checkpoint) -> Save<'a> {
    let path = sidecar(&request.journal, &request.session, Sidecar::Checkpoint(&checkpoint.drive_id));
    Box::new(move |durable| {
        if let Some(state) = checkpoint.format_mut() {
            state.is_wiped = true;
            (state.next, state.end, state.outcome) = (durable.next, durable.end, durable.outcome);
        }
        replace_private(&path, &checkpoint.encode())
    })
}

/// I/O resources of a drive.
pub struct DriveIo<'a> {
    pub blocks: BlockIo,
    /// Ranges of old marks, and ranges that are written last.
    pub wipe: Vec<DeviceRange>,
    pub once_wiped: &'a dyn Fn(),
    pub read: progress::ReadAt<'a>,
}

/// Fills the drive from its checkpoint to its end.
pub fn fill(
    index: usize,
    drive: &FormatDrive,
    secrets: Option<&VolumeSecrets>,
    fve_region: FveRegion<'_>,
    mut checkpoint: Checkpoint,
    io: DriveIo<'_>,
    shared: &Shared<'_>,
) -> Result<Finished, Problem> {
    let has_wiped = format_state(&mut checkpoint)?.is_wiped;
    let cipher = secrets.map(VolumeSecrets::sector_cipher).transpose();
    let cipher = cipher.map_err(|error| internal(format!("the cipher refuses its key: {error}")))?;
    let (log, replay) = open_log(drive, cipher.as_ref(), &mut checkpoint, io.read, shared)?;
    let layout = &drive.layout;
    let mut blocks = io.blocks.with_workers(shared.workers).until(shared.stop);
    blocks.failures.outlook = Some(drive::outlook_of_format());
    let setup = Setup {
        index,
        name: drive.target.facts.name.clone(),
        content: DriveContent::of(layout, cipher, blocks.pool().slot_len()),
        io: &mut blocks,
        fills_max: if shared.fetchers.is_some() { FETCHES_MAX } else { FILLS_MAX },
        fetch: shared.fetchers.map(Fetchers::line),
        log,
        replay,
        pace: shared.request.pace,
        save: saver(shared.request, checkpoint),
        wipe: if has_wiped { Vec::new() } else { io.wipe },
        once_wiped: io.once_wiped,
        bases: shared.context.sources.clone(),
        beside: journal_dir(&shared.request.journal),
        rate_limit: &shared.rate_limit,
        events: shared.events,
    };
    let plain = PlainBytes {
        fve_region: LazyCell::new(fve_region),
        front: secrets.map_or_else(|| Box::new([0; FRONT_LEN]), VolumeSecrets::front),
        table_primary: layout.table().primary(),
        table_backup: layout.table().backup().map(|(_, bytes)| bytes).unwrap_or_default(),
    };
    drive::format(setup, Format { layout, plain, rules: &drive.rules })
}

/// Ranges of old signatures, and ranges that are written last, so that an unfinished drive shows no volume.
pub fn whole_wipe(drive: &FormatDrive, device: &Device) -> Vec<DeviceRange> {
    if drive.target.identity.is_none() {
        return Vec::new();
    }
    let size = device.geometry().size.0;
    let sector = drive.target.sector.bytes();
    let mut ranges: Vec<DeviceRange> = drive.target.old.iter().copied().chain(drive.layout.last_places()).collect();
    ranges.sort();
    let mut out: Vec<DeviceRange> = Vec::new();
    for range in ranges {
        let start = range.start.0 / sector * sector;
        let end = range.end().0.next_multiple_of(sector).min(size / sector * sector);
        match out.last_mut() {
            Some(last) if last.end().0 >= start => last.len = ByteLen(last.len.0.max(end.saturating_sub(last.start.0))),
            _ if end > start => out.push(DeviceRange::new(start, end - start)),
            _ => {}
        }
    }
    out
}

impl DriveWork for FormatDrive {
    fn target(&self) -> &TargetDrive {
        &self.target
    }

    fn tree(&self) -> &DriveTree {
        self.layout.tree()
    }

    fn summary(&self) -> DrivePlan {
        planner::summarize(self)
    }

    fn saved(&self) -> SavedDrive {
        let assigned = planner::assigned(self.layout.tree());
        SavedDrive { target: self.target.clone(), seed: self.seed, assigned, rows: Vec::new() }
    }

    fn draws_secrets(&self) -> bool {
        self.secrets.is_none()
    }

    fn draw_secrets(&mut self, draw: Draw<'_>) -> Result<(), Problem> {
        if let (None, Some(regions)) = (&self.secrets, self.layout.regions()) {
            self.secrets = Some(draw(regions, self.layout.layout().disk_shape(), &self.rules.drive_id));
        }
        Ok(())
    }

    fn first_open_file(&self) -> u32 {
        let durable = self.started.as_ref().and_then(|started| started.format()).map_or(0, |state| state.next.0);
        // Files before the first one that is still to be written are completely on the drive.
        let mut later = self.layout.batches(SLOT_LEN).skip(durable as usize);
        let open = later.find_map(|batch| match batch.content {
            Content::Files(parts) => parts.first().map(|part| part.file),
            _ => None,
        });
        open.unwrap_or_else(|| self.layout.tree().files())
    }

    fn position(&self) -> String {
        match self.started.as_ref().and_then(|started| started.format()) {
            Some(state) if state.is_wiped => format!("continues after byte {}", state.end.0),
            _ => "begins at its start".into(),
        }
    }

    fn run(&self, index: usize, shared: &Shared<'_>) -> Result<Done, Problem> {
        write_drive(index, self, shared)
    }

    /// Its checkpoint has all that rolling back needs.
    fn clean_up(&self, request: &PrepRequest) {
        steps::remove_outcome(request, &self.target.facts.drive_id);
    }

    #[cfg(test)]
    fn into_format(self: Box<Self>) -> Option<FormatDrive> {
        Some(*self)
    }
}
