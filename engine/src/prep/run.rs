//! The run: all drives of a session at once, each on a thread of its own.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::azure::drive_record::{self, DriveInfo, State as RecordState};
use crate::azure::journal::{ActivityRecord, DriveDetails, SessionState, Work};
use crate::bitlocker::build::{Metadata, Spec};
use crate::device::{self, Access, Device, DeviceKind, Roots, guard};
use crate::hash;
use crate::io::{Engine, Options};
use crate::plan::drive::{DriveLayout, MANIFEST_NAME};
use crate::pool::Pool;
use crate::prep::drive::{self, Finished, PlainBytes, Setup};
use crate::prep::files::{self, JournalFile, Log, Sidecar, journal_dir, logdir, replace_private, sidecar};
use crate::prep::planning::PreparedDrive;
use crate::prep::readback::{self, Written};
use crate::prep::request::{EngineChoice, PrepRequest, ReadBack};
use crate::prep::session::Prepared;
use crate::prep::workers::Workers;
use crate::report::{DriveResult, Event, Kind, PlanSummary, Problem, Problems, SessionReport, Stage, Stop};
use crate::surroundings::now;
use crate::units::{ByteLen, ByteOffset, ByteRange};

/// Bytes of a slot, and so of most writes.
const SLOT_LEN: usize = 4 << 20;

/// Slots of a drive: 112 MiB, inside the budget of 128 MiB a drive.
const SLOTS: usize = 28;

/// Slots that may be filling at once.
const FILLS_MAX: usize = 8;

impl Prepared {
    /// What would happen.
    pub fn summary(&self) -> &PlanSummary {
        &self.summary
    }

    /// Drives (index in the summary) whose contents will be destroyed: all but new or blank image files.
    pub fn drives_needing_consent(&self) -> Vec<usize> {
        let needs = |drive: &PreparedDrive| !drive.target.facts.is_image || drive.target.facts.contents.is_some();
        self.drives.iter().enumerate().filter(|(_, drive)| needs(drive)).map(|(i, _)| i).collect()
    }

    /// Whether the drive's row in the driveset says `SilentMode`, and names it by something that stays with it.
    pub fn is_silent_and_firm(&self, drive: usize) -> bool {
        self.drives.get(drive).is_some_and(|d| d.target.silent && d.target.named_firmly)
    }

    /// Keys, protectors and BitLocker's own bytes of every drive.
    fn metadata(&mut self) -> Vec<Metadata> {
        let entropy = &mut *self.surroundings.entropy;
        let mut all = Vec::new();
        for drive in &self.drives {
            let description = format!("dray {} {}", drive.rules.drive_id, self.request.session);
            let spec = Spec {
                regions: drive.layout.regions(),
                cipher: self.cipher,
                hidden_sectors: drive.layout.volume().start.0 / drive.layout.sector().bytes(),
                description: &description,
                used_space_only: !self.request.wipe_free,
                external_key: self.request.external_key.is_some(),
                created: self.surroundings.now,
            };
            all.push(Metadata::build(&spec, entropy, &mut |_| {}));
        }
        all
    }

    /// Writes the drives. Blocks until all of them are done, failed or stopped; events come from any thread.
    ///
    /// # Errors
    /// What prevents the session as a whole; the failure of one drive stands in the report instead.
    pub fn run(
        mut self,
        consented: &[usize],
        events: &(dyn Fn(Event) + Sync),
        stop: &Stop,
    ) -> Result<SessionReport, Problems> {
        let started = Instant::now();
        let missing = self.drives_needing_consent().into_iter().filter(|i| !consented.contains(i));
        let refused = missing.map(|i| {
            let facts = &self.drives[i].target.facts;
            Problem::new(Kind::Refused, "nobody agreed to erase it")
                .drive(&facts.name)
                .value(facts.contents.clone().unwrap_or_else(|| "blank".into()))
                .advice("answer the question, or name the drive with --yes SERIAL")
        });
        Problems(refused.collect()).into_result()?;

        let logs = logdir(&self.request);
        fs::create_dir_all(&logs).map_err(|error| {
            Problem::new(Kind::Environment, format!("the log directory cannot be made: {error}")).path(&logs)
        })?;
        let log = Log::open(&logs, &self.request.session)?;
        let names: Vec<String> = self.drives.iter().map(|drive| drive.target.facts.name.clone()).collect();
        let tell = |event: Event| {
            log.event(&event, &names);
            events(event);
        };
        for skipped in &self.summary.skipped {
            log.line(&format!("not copied: {}: {}", skipped.path.display(), skipped.what));
        }
        for warning in &self.summary.warnings {
            log.line(&format!("note: {warning}"));
        }
        let journal = JournalFile::open(&self.request.journal)?;
        if let Some(note) = &journal.note {
            tell(Event::Note(note.clone()));
        }
        // As the documented sample has it; a later session may run in another directory.
        let logs = fs::canonicalize(&logs).unwrap_or(logs);
        let context = ActivityRecord::Context { log_directory: &logs.display().to_string() };
        journal.append(&context)?;
        journal.append(&ActivityRecord::Session { id: &self.request.session, state: SessionState::Started })?;

        let workers = Workers::start(std::thread::available_parallelism().map_or(1, Into::into))
            .map_err(|error| Problem::new(Kind::Environment, format!("no threads for hashing and sealing: {error}")))?;
        let metadata = self.metadata();
        let shared = Shared {
            request: &self.request,
            context: &self.context,
            journal: &journal,
            workers: &workers,
            events: &tell,
            stop,
        };
        let results: Vec<DriveResult> = std::thread::scope(|scope| {
            let threads: Vec<_> = self
                .drives
                .iter()
                .zip(&metadata)
                .enumerate()
                .map(|(i, (drive, metadata))| {
                    let shared = &shared;
                    scope.spawn(move || run_drive(i, drive, metadata, shared))
                })
                .collect();
            let join = |(i, thread): (usize, std::thread::ScopedJoinHandle<'_, DriveResult>)| {
                thread.join().unwrap_or_else(|_| {
                    let problem =
                        Problem::new(Kind::Internal, "the drive's thread ended in a bug; its drive is unfinished");
                    failed(&self.drives[i], problem, started)
                })
            };
            threads.into_iter().enumerate().map(join).collect()
        });
        let all_good = results.iter().all(|result| result.failure.is_none());
        let state = if all_good { SessionState::Completed } else { SessionState::Interrupted };
        journal.append(&ActivityRecord::Session { id: &self.request.session, state })?;
        Ok(SessionReport {
            drives: results,
            journal: self.request.journal.clone(),
            interrupted: stop.requested() && !all_good,
            elapsed: started.elapsed(),
        })
    }
}

struct Shared<'a> {
    request: &'a PrepRequest,
    context: &'a guard::Context,
    journal: &'a JournalFile,
    workers: &'a Workers,
    events: &'a (dyn Fn(Event) + Sync),
    stop: &'a Stop,
}

fn failed(drive: &PreparedDrive, problem: Problem, started: Instant) -> DriveResult {
    DriveResult {
        drive: drive.target.facts.clone(),
        files: 0,
        data: ByteLen(0),
        written: ByteLen(0),
        manifest_hash: None,
        record: None,
        left_out: Vec::new(),
        failure: Some(problem),
        free_space_untouched: true,
        elapsed: started.elapsed(),
    }
}

fn run_drive(index: usize, drive: &PreparedDrive, metadata: &Metadata, shared: &Shared<'_>) -> DriveResult {
    let started = Instant::now();
    let outcome = write_drive(index, drive, metadata, shared);
    let session = &shared.request.session;
    let record_file = format!("{}.xml", drive.rules.drive_id);
    let state = |state, details| ActivityRecord::Drive {
        session,
        drive_id: &drive.rules.drive_id,
        state,
        record_file: &record_file,
        work: Work::Format,
        details,
    };
    match outcome {
        Ok((finished, record)) => {
            let hash = hash::hex_upper(&finished.manifest_md5);
            let details = DriveDetails {
                files: Some(finished.files),
                data: Some(finished.data.0),
                manifest_hash: Some(&hash),
                ..DriveDetails::default()
            };
            let journal = shared.journal.append(&state(SessionState::Completed, details));
            let tree = drive.layout.tree();
            let left_out = finished.left_out.iter().map(|(&i, why)| (tree.source_path(i), why.clone())).collect();
            DriveResult {
                drive: drive.target.facts.clone(),
                files: finished.files,
                data: finished.data,
                written: finished.written,
                manifest_hash: Some(hash),
                record: Some(record),
                left_out,
                failure: journal.err().and_then(|problems| problems.0.into_iter().next()),
                free_space_untouched: !shared.request.wipe_free,
                elapsed: started.elapsed(),
            }
        }
        Err(problem) => {
            // The drive's failure is what counts; a journal that fails too shows at the session's own record.
            let _ = shared.journal.append(&state(SessionState::Interrupted, DriveDetails::default()));
            (shared.events)(Event::Stage { drive: index, stage: Stage::Failed });
            (shared.events)(Event::DriveFailed { drive: index, problem: problem.clone() });
            failed(drive, problem, started)
        }
    }
}

fn write_drive(
    index: usize,
    drive: &PreparedDrive,
    metadata: &Metadata,
    shared: &Shared<'_>,
) -> Result<(Finished, PathBuf), Problem> {
    let facts = &drive.target.facts;
    let layout = &drive.layout;
    let request = shared.request;
    let device = claim(drive, shared)?;
    let wipe = whole_wipe(drive, &device);

    // The record first: from the first data write on the drive is worth nothing without its key.
    let record_path = journal_dir(&request.journal).join(format!("{}.xml", drive.rules.drive_id));
    let password = metadata.recovery.password.printed();
    let manifest_file = format!("\\{MANIFEST_NAME}");
    let mut record = DriveInfo {
        drive_id: &drive.rules.drive_id,
        bitlocker_key: password.expose(),
        manifest_file: &manifest_file,
        manifest_hash: None,
        drive_header_hash: None,
    };
    let write_record = |record: &DriveInfo<'_>, state| {
        let bytes = drive_record::write(record, state, now()).map_err(|error| io::Error::other(error.to_string()));
        bytes.and_then(|bytes| replace_private(&record_path, &bytes)).map_err(|error| {
            Problem::new(Kind::Environment, format!("the drive record cannot be written: {error}"))
                .path(&record_path)
                .advice("make room or mend the permissions, and start again")
        })
    };
    if let Some(kept) = keep_key(&record_path)? {
        (shared.events)(Event::Note(format!(
            "drive {}: an earlier drive record was there; its key is kept in {}",
            facts.name,
            kept.display()
        )));
    }
    write_record(&record, RecordState::Incomplete)?;
    if let (Some(dir), Some(key)) = (&request.external_key, &metadata.external) {
        replace_private(&dir.join(&key.file_name), key.bytes.expose()).map_err(|error| {
            Problem::new(Kind::Environment, format!("the key file cannot be written: {error}")).path(dir)
        })?;
    }
    let state = ActivityRecord::Drive {
        session: &request.session,
        drive_id: &drive.rules.drive_id,
        state: SessionState::Started,
        record_file: &format!("{}.xml", drive.rules.drive_id),
        work: Work::Format,
        details: DriveDetails { name: Some(&facts.name), size: Some(facts.size.0), ..DriveDetails::default() },
    };
    shared.journal.append(&state).map_err(first)?;

    if !request.wipe_free {
        let whole = ByteRange::new(0, facts.size.0);
        // A device that refuses keeps its old free space, which the summary says plainly in any case.
        let _ = device.discard(whole);
    }

    let hash_path = sidecar(&request.journal, &request.session, Sidecar::Outcome(&drive.rules.drive_id));
    let hash_log = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&hash_path);
    let hash_log = hash_log.map_err(|error| {
        Problem::new(Kind::Environment, format!("the hash log cannot be made: {error}")).path(&hash_path)
    })?;
    let pool = Pool::new(SLOTS, SLOT_LEN)
        .map_err(|error| Problem::new(Kind::Environment, format!("no memory for slots: {error}")))?;
    let engine = engine(&device, &pool, request.engine, &facts.name, shared.events)?;
    let setup = setup(index, drive, metadata, engine, pool, hash_log, wipe, shared)?;
    let outcome = drive::run(setup).and_then(|finished| {
        read_back(index, drive, &finished, &device, &record_path, &hash_path, shared)?;
        Ok(finished)
    });
    let _ = fs::remove_file(&hash_path);
    let finished = outcome?;

    // What is read from here on comes from the device.
    if let Err(error) = device.drop_caches() {
        let name = &facts.name;
        (shared.events)(Event::Note(format!("drive {name}: the kernel's caches of it could not be dropped: {error}")));
    }
    if let Err(error) = device.reread_partitions() {
        (shared.events)(Event::Note(format!(
            "drive {}: finished, but the kernel did not read the new partition table: {error}",
            facts.name
        )));
    }
    let header_hash = if request.drive_header_hash { Some(header_hash(&device, layout)?) } else { None };
    record.manifest_hash = Some(finished.manifest_md5);
    record.drive_header_hash = header_hash.as_deref();
    write_record(&record, RecordState::Completed)?;
    let kind = device.kind().clone();
    drop(device);
    for point in mounted_by_itself(&kind) {
        (shared.events)(Event::Note(format!(
            "drive {}: something mounted it by itself on {}, and may have written to it: unmount it, and check it with \
             dray verify before it is shipped",
            facts.name,
            point.display()
        )));
    }
    (shared.events)(Event::Stage { drive: index, stage: Stage::Done });
    Ok((finished, record_path))
}

/// Where an auto-mounter put the drive once it was let go. They act on what udev tells them, a moment later.
fn mounted_by_itself(kind: &DeviceKind) -> Vec<PathBuf> {
    const PATIENCE: Duration = Duration::from_secs(1);
    let roots = Roots::default();
    let is_block = matches!(kind, DeviceKind::Block { .. });
    let until = Instant::now() + PATIENCE;
    loop {
        let points = guard::mounted(kind, &roots);
        if !points.is_empty() || !is_block || !Path::new("/run/udev").exists() || Instant::now() >= until {
            return points;
        }
        std::thread::sleep(PATIENCE / 10);
    }
}

/// Reads from the device itself, by a descriptor of its own, while the drive is still claimed.
fn read_back(
    index: usize,
    drive: &PreparedDrive,
    finished: &Finished,
    device: &Device,
    record: &Path,
    hash_log: &Path,
    shared: &Shared<'_>,
) -> Result<(), Problem> {
    if shared.request.read_back == ReadBack::None {
        return Ok(());
    }
    let facts = &drive.target.facts;
    if let Err(error) = device.drop_caches() {
        (shared.events)(Event::Note(format!("drive {}: the kernel keeps its cache of the drive: {error}", facts.name)));
    }
    let device = Device::open_with(&facts.path, Access::Read, drive.target.sector, &Roots::default())?;
    if !device.is_direct() {
        (shared.events)(Event::Note(format!(
            "drive {}: read back through the kernel's cache, since its file system knows no direct I/O",
            facts.name
        )));
    }
    let [a, b, c, d, e, f, g, h, ..] = finished.manifest_md5;
    let written = Written {
        index,
        facts,
        layout: &drive.layout,
        slot_len: SLOT_LEN,
        sums: &finished.sums,
        hashes: Some(hash_log),
        record,
        how: shared.request.read_back,
        seed: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        workers: shared.workers,
        events: shared.events,
        stop: shared.stop,
    };
    readback::run(Box::new(device), &written).map(|_| ())
}

/// Moves an earlier file out of the record's way, unless it only is the record of a drive that was never finished: it may
/// hold the only key of another drive, since ids of images are made of file names.
fn keep_key(record: &Path) -> Result<Option<PathBuf>, Problem> {
    let kept = match fs::read(record).map(Zeroizing::new) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(bytes) if drive_record::read(&bytes).is_ok_and(|old| old.state == Some(RecordState::Incomplete)) => {
            return Ok(None);
        }
        Ok(_) => files::keep_earlier(record),
        Err(error) => Err(error),
    };
    kept.map(Some).map_err(|error| {
        Problem::new(Kind::Environment, format!("an earlier drive record cannot be kept: {error}"))
            .path(record)
            .advice("move it to a safe place: it may hold the only key of a drive")
    })
}

/// All that a drive's loop needs.
#[expect(clippy::too_many_arguments, reason = "what a drive's loop owns")]
fn setup<'a>(
    index: usize,
    drive: &'a PreparedDrive,
    metadata: &Metadata,
    engine: Box<dyn Engine + Send>,
    pool: Pool,
    hash_log: File,
    wipe: Vec<ByteRange>,
    shared: &Shared<'a>,
) -> Result<Setup<'a>, Problem> {
    let layout = &drive.layout;
    let cipher = metadata
        .sector_cipher()
        .map_err(|error| Problem::new(Kind::Internal, format!("the cipher refuses its key: {error}")))?;
    Ok(Setup {
        index,
        name: drive.target.facts.name.clone(),
        layout,
        engine,
        pool,
        fills_max: FILLS_MAX,
        jobs: shared.workers.queue(),
        cipher: Arc::new(cipher),
        plain: PlainBytes {
            fve_region: metadata.region().to_vec(),
            front: metadata.front().to_vec(),
            table_primary: layout.table().primary(),
            table_backup: layout.table().backup().map(|(_, bytes)| bytes).unwrap_or_default(),
        },
        hash_log,
        rules: &drive.rules,
        wipe,
        events: shared.events,
        stop: shared.stop,
    })
}

fn first(problems: Problems) -> Problem {
    problems.0.into_iter().next().unwrap_or_else(|| Problem::new(Kind::Internal, "an error without a problem"))
}

/// Opens the drive for writing, and makes sure that it still is the one that was planned for.
fn claim(drive: &PreparedDrive, shared: &Shared<'_>) -> Result<Device, Problem> {
    let facts = &drive.target.facts;
    if drive.target.identity.is_none() {
        device::create_image(&facts.path, facts.size)
            .or_else(|error| {
                // An empty file was there already.
                if error.kind() == io::ErrorKind::AlreadyExists && fs::metadata(&facts.path).is_ok_and(|m| m.len() == 0)
                {
                    return device::extend_image(&facts.path, facts.size);
                }
                Err(error)
            })
            .map_err(|error| {
                Problem::new(Kind::Drive, format!("the image file cannot be made: {error}"))
                    .drive(&facts.name)
                    .value(facts.size.to_string())
                    .advice("choose a file system that holds files of this size, with sparse files")
            })?;
    }
    let device = Device::open_with(&facts.path, Access::Claim, drive.target.sector, &Roots::default())?;
    let change = match &drive.target.identity {
        Some(planned) => planned.change_to(device.identity()),
        None => (device.geometry().size != facts.size).then(|| "size is not what was asked for".to_owned()),
    };
    if let Some(change) = change {
        return Err(Problem::new(Kind::Refused, format!("is not the drive that was planned for: {change}"))
            .drive(&facts.name)
            .advice("nothing was written; check the cables and start again"));
    }
    match guard::check(&device, shared.context).into_iter().next() {
        Some(problem) => Err(problem),
        None => Ok(device),
    }
}

/// Old signatures, and every place that is written last, so that an unfinished drive looks like none.
fn whole_wipe(drive: &PreparedDrive, device: &Device) -> Vec<ByteRange> {
    if drive.target.identity.is_none() {
        return Vec::new();
    }
    let size = device.geometry().size.0;
    let sector = drive.target.sector.bytes();
    let mut ranges: Vec<ByteRange> = drive.target.old.iter().copied().chain(drive.layout.last_places()).collect();
    ranges.sort();
    let mut out: Vec<ByteRange> = Vec::new();
    for range in ranges {
        let start = range.start.0 / sector * sector;
        let end = range.end().0.next_multiple_of(sector).min(size / sector * sector);
        match out.last_mut() {
            Some(last) if last.end().0 >= start => last.len = ByteLen(last.len.0.max(end.saturating_sub(last.start.0))),
            _ if end > start => out.push(ByteRange::new(start, end - start)),
            _ => {}
        }
    }
    out
}

fn engine(
    device: &Device,
    pool: &Pool,
    choice: EngineChoice,
    name: &str,
    events: &(dyn Fn(Event) + Sync),
) -> Result<Box<dyn Engine + Send>, Problem> {
    let options = Options { writes: device.geometry().writes_in_flight(), ..Options::default() };
    match choice {
        EngineChoice::Auto => {
            let (engine, notice) = crate::io::open(device.target(), pool, options);
            if let Some(notice) = notice {
                events(Event::Note(format!("drive {name}: {notice}")));
            }
            Ok(engine)
        }
        EngineChoice::Uring => match crate::io::uring::Uring::new(device.target(), pool, options) {
            Ok(ring) => Ok(Box::new(ring)),
            Err(error) => Err(Problem::new(Kind::Environment, error.to_string()).advice("or use --engine sync")),
        },
        EngineChoice::Sync => Ok(Box::new(crate::io::sync::Sync::new(device.target(), options))),
    }
}

/// `offset:length:SHA-512` of the table and of the volume's front, joined by `;`: the form of the only public sample,
/// which covers the first MiB and 143,360 bytes of the partition.
fn header_hash(device: &Device, layout: &DriveLayout) -> Result<String, Problem> {
    let mut parts = Vec::new();
    for (at, len) in [(0, 1 << 20), (layout.volume().start.0, 143_360)] {
        let mut bytes = vec![0; len];
        device.read_exact_at(&mut bytes, ByteOffset(at)).map_err(|error| {
            Problem::new(Kind::Drive, format!("the drive's header cannot be read back: {error}")).at(ByteOffset(at))
        })?;
        parts.push(format!("{at}:{len}:{}", hash::hex_upper(&hash::sha512(&bytes))));
    }
    Ok(parts.join(";"))
}

#[cfg(test)]
mod tests;
