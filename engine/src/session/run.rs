//! Runs all drives of a session at once, each on a thread of its own.

use std::cell::{Cell, LazyCell};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::unbounded;
use rustix::process::setpriority_process;
use zeroize::Zeroizing;

use crate::azure::drive_record::{self, DriveInfo, RecordState};
use crate::azure::journal::{ActivityRecord, DriveDetails, PlanMark, SessionState, Work};
use crate::bitlocker::build::{FRONT_LEN, KeyFile, REGION_LEN, VolumeSecrets};
use crate::bitlocker::regions::Regions;
use crate::checkpoint::{Checkpoint, FormatState, Prefix};
use crate::crypt::SectorCipher;
use crate::device::{Access, Device, DeviceKind, Roots, guard};
use crate::hash;
use crate::io::{Engine, Options, Requests};
use crate::journal::files::{self, JournalFile, Sidecar, journal_dir, logdir, replace_private, sidecar};
use crate::journal::records;
use crate::plan::batches::Content;
use crate::plan::drive::MANIFEST_NAME;
use crate::pool::{FILLS_MAX, Pool, SLOT_LEN};
use crate::report::{
    DriveFacts, DriveKeys, DriveResult, Event, Kind, Meter, PlanSummary, Problem, Problems, SessionReport, Stage, Stop,
    Timing,
};
use crate::request::{EngineChoice, PrepRequest, ReadBack};
use crate::session::log::Log;
use crate::session::plan_file::{self, SavedDrive};
use crate::session::planning::PreparedDrive;
use crate::session::prepare::{self, Plan, Prepared};
use crate::session::resume;
use crate::stream::contents::{Contents, Fetchers};
use crate::stream::rate_limit::RateLimit;
use crate::stream::sources::all_left_out;
use crate::stream::timeouts::Timeouts;
use crate::stream::workers::Workers;
use crate::surroundings::now;
use crate::units::{BatchNo, ByteLen, ByteOffset, ByteRange, DiskShape, FileTime};
use crate::volume::find::Opened;
use crate::watchdog::Watchdog;
use crate::work::append;
use crate::work::claim::{claim, look_again};
use crate::work::discard::BackgroundDiscard;
use crate::work::drive::{
    self, DriveContent, Finished, Format, FveRegion, PlainBytes, SLOTS_SPARE, SLOTS_SURE, Save, Setup,
};
use crate::work::kept;
use crate::work::keys::{self, Keys};
use crate::work::list;
use crate::work::outcome::{OutcomeLog, Replay};
use crate::work::readback::{self, Written};
use crate::work::target::{RowConsent, TargetDrive};

/// Slots of a drive that may be waiting for an account at once: more than for local files, since a request takes longer.
const FETCHES_MAX: usize = 16;

/// Nice value of the thread that stretches a password.
const STRETCH_NICE: i32 = 10;

impl Prepared {
    /// The plan for display.
    pub fn summary(&self) -> &PlanSummary {
        &self.summary
    }

    /// All drives, in the order of the summary.
    fn targets(&self) -> impl Iterator<Item = &TargetDrive> {
        let blank = self.drives.iter().map(|drive| &drive.target);
        blank.chain(self.appends.iter().map(|drive| &drive.target))
    }

    /// Indices in the summary of drives whose contents will be destroyed, or encrypted in place: all but new or blank
    /// image files, and those that an earlier run of the session started.
    pub fn drives_needing_consent(&self) -> Vec<usize> {
        let needs =
            |target: &TargetDrive| !target.agreed && (!target.facts.is_image || target.facts.contents.is_some());
        self.targets().enumerate().filter(|(_, target)| needs(target)).map(|(i, _)| i).collect()
    }

    /// Consent stated in the row of a drive (index in the summary).
    pub fn row_consent(&self, drive: usize) -> RowConsent {
        self.targets().nth(drive).map_or(RowConsent::Prompt, TargetDrive::row_consent)
    }

    /// Ids of drives of the session that this run does not write to: finished before, given up, or not needed.
    pub fn bystanders(&self) -> &[String] {
        &self.bystanders
    }

    /// Secrets of every drive that is formatted; those of a drive started by an earlier run are restored. A drive that
    /// is encrypted in place holds its new keys itself.
    fn volume_secrets(&mut self) -> Result<Vec<Option<VolumeSecrets>>, Problem> {
        let Self { drives, appends, request, plan, cipher, surroundings, user_password, .. } = self;
        let entropy = &mut *surroundings.entropy;
        let mut draw = |regions: &Regions, disk: DiskShape, drive_id: &str| {
            let spec = keys::spec(request, *cipher, plan.recipe.formatted, drive_id, regions, disk);
            let mut secrets = VolumeSecrets::draw(spec, entropy);
            if let Some(password) = user_password.take() {
                secrets.protect(password, entropy);
            }
            secrets
        };
        let mut all = Vec::new();
        for drive in drives {
            let started = drive.started.as_mut().and_then(|started| started.secrets.take());
            let layout = &drive.layout;
            let disk = layout.layout().disk_shape();
            all.push(
                layout.regions().map(|regions| started.unwrap_or_else(|| draw(regions, disk, &drive.rules.drive_id))),
            );
        }
        for drive in appends {
            let Some(first) = &mut drive.in_place else { continue };
            let keys = Keys::new(&draw(&first.regions, first.disk, &drive.rules.drive_id)).map_err(internal)?;
            drive.target.key = Some(Arc::clone(&keys.password));
            first.keys = Some(keys);
        }
        Ok(all)
    }

    /// Updates the session's plan file to the present plan, durably.
    fn save_plan(&self) -> Result<Prefix, Problem> {
        let path = sidecar(&self.request.journal, &self.request.session, Sidecar::Plan);
        let from = (self.drives.len() - self.plan.joins.0, self.appends.len() - self.plan.joins.1);
        let blank = self.drives[from.0..].iter().map(|drive| {
            let (target, assigned) = (drive.target.clone(), drive.assigned());
            SavedDrive { target, seed: drive.seed, assigned, rows: Vec::new() }
        });
        let existing = self.appends[from.1..].iter().map(|drive| {
            let (target, assigned) = (drive.target.clone(), drive.assigned());
            SavedDrive { target, seed: 0, assigned, rows: drive.index.clone().unwrap_or_default() }
        });
        let joining: Vec<SavedDrive> = blank.chain(existing).collect();
        let Plan { recipe, catalog, unplaced, saved, given_up, .. } = &self.plan;
        let written = match saved {
            None => plan_file::create(&path, recipe, catalog, &joining, unplaced),
            Some(saved) if joining.is_empty() && given_up.is_empty() => Ok(*saved),
            Some(saved) => plan_file::append(&path, saved, &joining, unplaced, given_up),
        };
        written.map_err(|error| {
            Problem::new(Kind::Environment, format!("the session's plan cannot be written: {error}"))
                .path(&path)
                .advice("make room on the journal's disk, and start again")
        })
    }

    /// Whether the journal, as stored now, lists each drive of the session as finished.
    fn is_proven(&self) -> bool {
        let Plan { done, added, .. } = &self.plan;
        let planned = self.targets().map(|target| target.facts.drive_id.as_str());
        let planned = planned.chain(done.iter().chain(added).map(String::as_str));
        let book = files::read_journal(&self.request.journal);
        let book = book.ok().filter(|book| book.damage.is_empty() && book.torn.is_none());
        let session = book.as_ref().and_then(|book| book.ledger.last());
        session.is_some_and(|session| session.id == self.request.session && session.is_proven(planned))
    }

    /// Writes the drives. Blocks until all of them have finished, failed or stopped; events come from any thread.
    ///
    /// # Errors
    /// Problems of the session as a whole; the failure of one drive is in the report instead.
    pub fn run(
        self,
        consented: &[usize],
        events: &(dyn Fn(Event) + Sync),
        stop: &Stop,
    ) -> Result<SessionReport, Problems> {
        self.run_from(None, consented, events, stop)
    }

    /// As [`Self::run`], with contents that are not local files, and the number of threads that fetch them.
    ///
    /// # Errors
    /// As [`Self::run`]; an export without contents.
    pub fn run_from(
        mut self,
        contents: Option<(Arc<dyn Contents>, usize)>,
        consented: &[usize],
        events: &(dyn Fn(Event) + Sync),
        stop: &Stop,
    ) -> Result<SessionReport, Problems> {
        if self.plan.recipe.exported.is_some() != contents.is_some() {
            return Err(internal("an export and its account belong together".into()).into());
        }
        let started = Instant::now();
        let missing = self.drives_needing_consent().into_iter().filter(|i| !consented.contains(i));
        let refused = missing.map(|i| {
            let target = self.targets().nth(i);
            let what = match target.map(|target| target.work) {
                Some(Work::Encrypt) => "no consent was given to encrypt its volume in place",
                _ => "no consent was given to erase it",
            };
            let problem = Problem::new(Kind::Refused, what);
            let problem = target.into_iter().fold(problem, |problem, target| {
                let contents = target.facts.contents.clone().unwrap_or_else(|| "blank".into());
                problem.drive(&target.facts.name).value(contents)
            });
            problem.advice("answer the question, or name the drive with --yes SERIAL")
        });
        Problems(refused.collect()).into_result()?;
        // While a question was open, names may have come to lead elsewhere: all drives are checked again before the
        // first write.
        let again = self.targets().filter_map(|target| look_again(target, target.held.as_ref(), &self.context).err());
        Problems(again.collect()).into_result()?;

        let logs = logdir(&self.request);
        fs::create_dir_all(&logs).map_err(|error| {
            Problem::new(Kind::Environment, format!("the log directory cannot be made: {error}")).path(&logs)
        })?;
        let log = Log::open(&logs, &self.request.session)?;
        let names: Vec<String> = self.summary.drives.iter().map(|plan| plan.drive.name.clone()).collect();
        let watchdog = Watchdog::new(names.len(), Timeouts::default().slow);
        let meters: Vec<Mutex<Meter>> = names.iter().map(|_| Mutex::default()).collect();
        let timing = |i: usize| {
            let meter = meters.get(i).map(|meter| meter.lock().unwrap_or_else(PoisonError::into_inner));
            meter.map(|meter| meter.timing(started.elapsed())).unwrap_or_default()
        };
        let emit = |event: Event| {
            heartbeat(&watchdog, &event);
            let drive = event.drive();
            if let Some(meter) = drive.and_then(|drive| meters.get(drive)) {
                meter.lock().unwrap_or_else(PoisonError::into_inner).heard(&event, started.elapsed());
            }
            log.event(&event, &names, drive.map(timing).unwrap_or_default());
            events(event);
            if let Some(problem) = log.trouble() {
                events(Event::Warning(problem.to_string()));
            }
        };
        log.begin(&self.request, &self.summary);
        for skipped in &self.summary.skipped {
            log.line(&format!("not copied: {}: {}", skipped.path.display(), skipped.what));
        }
        for warning in &self.summary.warnings {
            log.line(&format!("note: {warning}"));
        }
        let journal = JournalFile::open_seen(&self.request.journal, &self.plan.seen)?;
        if let Some(note) = &journal.note {
            emit(Event::Note(note.clone()));
        }
        // The plan first: a session in the journal can then be resumed.
        let snapshot = self.save_plan()?;
        if self.plan.saved.is_none() {
            // An absolute path, as in the documented sample; a later session may run in another directory.
            let logs = fs::canonicalize(&logs).unwrap_or(logs);
            journal.append(&ActivityRecord::Context { log_directory: &logs.display().to_string() })?;
        }
        let plan = Some(PlanMark { len: snapshot.len, digest: snapshot.digest });
        journal.append(&ActivityRecord::Session { id: &self.request.session, state: SessionState::Started, plan })?;
        for drive_id in &self.plan.given_up {
            journal.append(&ActivityRecord::Drive {
                session: &self.request.session,
                drive_id,
                state: SessionState::GivenUp,
                record_file: &format!("{drive_id}.xml"),
                work: Work::Format,
                details: DriveDetails::default(),
            })?;
            remove_sidecars(&self.request, drive_id);
        }

        // Files left over from a run that was killed after its last record.
        self.plan.done.iter().for_each(|drive_id| remove_outcome(&self.request, drive_id));

        let workers = Workers::start(std::thread::available_parallelism().map_or(1, Into::into))
            .map_err(|error| Problem::new(Kind::Environment, format!("no threads for hashing and sealing: {error}")))?;
        let pools = Pool::shares(self.drives.len() + self.appends.len(), SLOTS_SURE, SLOTS_SPARE, SLOT_LEN)
            .map_err(|error| Problem::new(Kind::Environment, format!("no memory for slots: {error}")))?;
        let fetchers = contents.map(|(contents, count)| Fetchers::start(&contents, count)).transpose();
        let fetchers =
            fetchers.map_err(|error| Problem::new(Kind::Environment, format!("no threads to fetch: {error}")))?;
        let secrets = self.volume_secrets()?;
        let shared = Shared {
            fetchers: fetchers.as_ref(),
            request: &self.request,
            context: &self.context,
            journal: &journal,
            workers: &workers,
            pools: Mutex::new(pools.into_iter().map(Some).collect()),
            events: &emit,
            stop,
            formatted: self.plan.recipe.formatted,
            snapshot,
            rate_limit: RateLimit::new(self.request.source_rate, started),
            before: self.plan.done.len() + self.plan.added.len(),
        };
        let mut results: Vec<DriveResult> = std::thread::scope(|scope| {
            let shared = &shared;
            scope.spawn(|| {
                watchdog.watch(|i, quiet| {
                    let name = names.get(i).map_or("?", String::as_str);
                    emit(Event::Warning(format!(
                        "drive {name}: nothing was heard of it for {} s: it, or the disk of the journal, may hang",
                        quiet.as_secs()
                    )));
                });
            });
            let (ended, results) = unbounded();
            type Act<'a> = Box<dyn FnOnce(usize) -> Result<Done, Problem> + Send + 'a>;
            let blank = self.drives.iter().zip(secrets).map(|(drive, secrets)| {
                let act: Act<'_> = Box::new(move |i| write_drive(i, drive, secrets.as_ref(), shared));
                (&drive.target, act)
            });
            let existing = self.appends.iter().map(|drive| {
                let act: Act<'_> = Box::new(move |i| append::run::add(i, drive, shared));
                (&drive.target, act)
            });
            for (i, (target, act)) in blank.chain(existing).enumerate() {
                let ended = ended.clone();
                scope.spawn(move || {
                    let run = || run_drive(i, target, shared, || act(i));
                    ended.send((i, unbroken(&target.facts, run)))
                });
            }
            drop(ended);
            // The results are not awaited by joining the threads: the kernel does not let a thread end while a device
            // holds an operation of its ring.
            let results: BTreeMap<usize, DriveResult> = results.into_iter().collect();
            watchdog.end();
            results.into_values().collect()
        });
        for (i, result) in results.iter_mut().enumerate() {
            result.timing = timing(i);
            log.result(result);
        }
        let all_good = results.iter().all(|result| result.failure.is_none());
        let waiting = self.plan.unplaced.len() as u64;
        let ready = all_good && waiting == 0;
        let complete = ready && self.is_proven();
        let state = if complete { SessionState::Completed } else { SessionState::Interrupted };
        let ended = journal.append(&ActivityRecord::Session { id: &self.request.session, state, plan: None });
        // The results of the drives are reported in any case; a session without this record counts as interrupted.
        match ended {
            Err(problems) if all_good => return Err(problems),
            Err(problems) => problems.0.iter().for_each(|problem| emit(Event::Warning(problem.to_string()))),
            Ok(()) => {}
        }
        if ready && !complete {
            let what =
                "the journal does not have every drive of the session as finished, so that the session is not complete";
            let problem = Problem::new(Kind::Environment, what).path(&self.request.journal);
            return Err(problem
                .advice("look at it with --list-drives; then continue with --resume, or roll back with --abort")
                .into());
        }
        if let Some(list) = self.list.take() {
            let ids: Vec<String> = self.targets().map(|target| target.facts.drive_id.clone()).collect();
            let ids: Vec<String> = self.plan.done.iter().chain(&self.plan.added).cloned().chain(ids).collect();
            // The drives are done in any case; the parts stay until the list is whole.
            if let Err(problem) = list::finish(list, &self.request, &ids, complete) {
                emit(Event::Warning(problem.to_string()));
            }
        }
        if complete {
            let _ = fs::remove_file(sidecar(&self.request.journal, &self.request.session, Sidecar::Plan));
            let held = self.targets().map(|target| &target.facts.drive_id);
            let held = held.chain(&self.plan.done).chain(&self.plan.added);
            held.for_each(|drive_id| remove_sidecars(&self.request, drive_id));
        }
        let ledger = files::read_journal(&self.request.journal).unwrap_or_default().ledger;
        let dir = journal_dir(&self.request.journal);
        let records = ledger.finished_drives().into_iter().map(|drive| dir.join(drive.record_file));
        Ok(SessionReport {
            records: records.filter(|_| self.request.windows.is_none()).collect(),
            open: ledger.open_drives().iter().map(|(_, drive)| drive.drive_id.clone()).collect(),
            drives: results,
            journal: self.request.journal.clone(),
            log: Some(log.path()),
            log_lacks: log.lacks(),
            interrupted: stop.requested() && !all_good,
            waiting,
            elapsed: started.elapsed(),
            windows: self.request.windows.is_some(),
            exports: self.request.exports,
        })
    }
}

/// State shared by all drives of a session.
pub(crate) struct Shared<'a> {
    pub request: &'a PrepRequest,
    pub context: &'a guard::Context,
    pub journal: &'a JournalFile,
    pub workers: &'a Workers,
    /// Slots of the drives that have not begun, by index.
    pub pools: Mutex<Vec<Option<Pool>>>,
    /// Threads that fetch what is no local file.
    pub fetchers: Option<&'a Fetchers>,
    pub events: &'a (dyn Fn(Event) + Sync),
    pub stop: &'a Stop,
    pub formatted: FileTime,
    pub snapshot: Prefix,
    pub rate_limit: RateLimit,
    /// Number of the session's drives that earlier runs finished.
    pub before: usize,
}

impl Shared<'_> {
    /// The slots of a drive, which it drops when it no longer needs them.
    ///
    /// # Errors
    /// [`Kind::Internal`] if they were taken before.
    pub fn pool(&self, index: usize) -> Result<Pool, Problem> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let pool = pools.get_mut(index).and_then(Option::take);
        pool.ok_or_else(|| internal("the slots of a drive were taken twice".into()))
    }

    /// Index of a drive of this run among the session's drives.
    pub fn place(&self, index: usize) -> u64 {
        (self.before + index) as u64
    }
}

/// Result of a finished drive.
pub(crate) struct Done {
    pub files: u64,
    pub data: ByteLen,
    pub written: ByteLen,
    /// `None` without a manifest.
    pub manifest_md5: Option<[u8; 16]>,
    pub left_out: Vec<(PathBuf, String)>,
    /// `None` for a drive that is not for the service.
    pub record: Option<PathBuf>,
    pub keys: DriveKeys,
    pub free_space_untouched: bool,
    pub outside_untouched: ByteLen,
}

fn failed(drive: &DriveFacts, problem: Problem, started: Instant) -> DriveResult {
    DriveResult {
        drive: drive.clone(),
        files: 0,
        data: ByteLen(0),
        written: ByteLen(0),
        manifest_hash: None,
        record: None,
        keys: DriveKeys::default(),
        left_out: Vec::new(),
        failure: Some(problem),
        free_space_untouched: true,
        outside_untouched: drive.size,
        elapsed: started.elapsed(),
        timing: Timing::default(),
    }
}

/// Turns a panic in one drive's thread into that drive's failure.
fn unbroken(drive: &DriveFacts, run: impl FnOnce() -> DriveResult) -> DriveResult {
    let started = Instant::now();
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        let problem = Problem::new(Kind::Internal, "the drive's thread ended in a bug; its drive is unfinished");
        failed(drive, problem, started)
    })
}

fn run_drive(
    index: usize,
    target: &TargetDrive,
    shared: &Shared<'_>,
    write: impl FnOnce() -> Result<Done, Problem>,
) -> DriveResult {
    let started = Instant::now();
    let outcome = write();
    let session = &shared.request.session;
    let drive_id = &target.facts.drive_id;
    let record_file = format!("{drive_id}.xml");
    let state = |state, details| ActivityRecord::Drive {
        session,
        drive_id,
        state,
        record_file: &record_file,
        work: target.work,
        details,
    };
    match outcome {
        Ok(done) => {
            let hash = done.manifest_md5.map(|md5| hash::hex_upper(&md5));
            let (manifest_file, key_check) = done.record.as_deref().map(records::marks).unwrap_or_default();
            let details = DriveDetails {
                manifest_file: manifest_file.as_deref(),
                key_check: key_check.as_deref(),
                files: Some(done.files),
                data: Some(done.data.0),
                manifest_hash: hash.as_deref(),
                ..DriveDetails::default()
            };
            let journal = shared.journal.append(&state(SessionState::Completed, details));
            // Additions can be removed until the session ends; for a formatted drive the checkpoint has all that is
            // needed.
            if journal.is_ok() && target.work == Work::Format {
                remove_outcome(shared.request, drive_id);
            }
            DriveResult {
                drive: target.facts.clone(),
                files: done.files,
                data: done.data,
                written: done.written,
                manifest_hash: hash,
                record: done.record,
                keys: done.keys,
                left_out: done.left_out,
                failure: journal.err().and_then(|problems| problems.0.into_iter().next()),
                free_space_untouched: done.free_space_untouched,
                outside_untouched: done.outside_untouched,
                elapsed: started.elapsed(),
                timing: Timing::default(),
            }
        }
        Err(problem) => {
            // The drive's own failure matters more; without this record its work counts as started and not finished.
            if let Err(problems) = shared.journal.append(&state(SessionState::Interrupted, DriveDetails::default())) {
                problems.0.iter().for_each(|problem| (shared.events)(Event::Warning(problem.to_string())));
            }
            if problem.kind == Kind::Interrupted {
                (shared.events)(Event::Stage { drive: index, stage: Stage::Stopped });
            } else {
                (shared.events)(Event::Stage { drive: index, stage: Stage::Failed });
                (shared.events)(Event::DriveFailed { drive: index, problem: problem.clone() });
            }
            failed(&target.facts, problem, started)
        }
    }
}

fn write_drive(
    index: usize,
    drive: &PreparedDrive,
    secrets: Option<&VolumeSecrets>,
    shared: &Shared<'_>,
) -> Result<Done, Problem> {
    let facts = &drive.target.facts;
    let layout = &drive.layout;
    let request = shared.request;
    let device = Arc::new(claim(&drive.target, shared.context)?);

    // The record first: from the first data write on the drive is worth nothing without its key.
    let record_path = journal_dir(&request.journal).join(format!("{}.xml", drive.rules.drive_id));
    let manifest_file = format!("\\{}", layout.manifest_name().unwrap_or(MANIFEST_NAME));
    let password = secrets.map(|secrets| secrets.password().printed());
    let mut record = DriveInfo {
        drive_id: &drive.rules.drive_id,
        bitlocker_key: password.as_ref().map_or("", |password| password.expose()),
        manifest_file: &manifest_file,
        manifest_hash: None,
        drive_header_hash: None,
    };
    let write_record = |record: &DriveInfo<'_>, state| {
        if secrets.is_none() {
            return Ok(());
        }
        let bytes = drive_record::write(record, state, now()).map_err(|error| io::Error::other(error.to_string()));
        bytes.and_then(|bytes| replace_private(&record_path, &bytes)).map_err(|error| {
            Problem::new(Kind::Environment, format!("the drive record cannot be written: {error}"))
                .path(&record_path)
                .advice("make room or mend the permissions, and start again")
        })
    };
    let wipe = whole_wipe(drive, &device);
    let giving_back = Cell::new(None);
    let pool = shared.pool(index)?;
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
            Some(started) => started.checkpoint.clone(),
            None => {
                begin(index, drive, secrets, &record_path, || write_record(&record, RecordState::Incomplete), shared)?
            }
        };
        let pool = pool.clone();
        let engine = engine(&device, &pool, request, &facts.name, shared.events)?;
        let read = |into: &mut [u8], at| device.read_exact_at(into, at);
        let node = (!facts.is_image).then(|| facts.path.clone());
        // Nothing is discarded as long as an old volume is visible, and never the wiped ranges: a device may return
        // anything for a discarded range.
        let once_wiped = || {
            if !request.wipe_free {
                giving_back.set(BackgroundDiscard::start(&device, &layout.never_written(), &wipe));
            }
        };
        let (wipe, timeouts) = (wipe.clone(), Timeouts::default());
        let io = DriveIo { engine, pool, wipe, once_wiped: &once_wiped, read: &read, node, timeouts };
        fill(index, drive, secrets, region, checkpoint, io, shared)
    })?;
    // Nothing is done to the drive any more once it is read back.
    if let Some(giving_back) = giving_back.take() {
        giving_back.finish(shared.stop);
    }
    let hash_path = sidecar(&request.journal, &request.session, Sidecar::Outcome(&drive.rules.drive_id));
    if layout.tree().is_listed() {
        let batches = layout.batches(SLOT_LEN);
        list::keep_part(request, &drive.rules.drive_id, layout.tree(), batches, &hash_path, &finished.left_out)?;
    }
    let keys = drive_keys(request, secrets);
    // The drive must open with the key as the user keeps it.
    let printed = match request.windows {
        Some(_) => keys.recovery_file.as_deref(),
        None => Some(&*record_path),
    };
    let looked = read_back(index, drive, &finished, (&device, &pool), printed, &hash_path, shared)?;
    drop(pool);

    drop_caches(&device, facts, shared.events);
    if let Some(manifest_name) = layout.manifest_name() {
        keep_manifest(&drive.target, looked, &record_path, (manifest_name, &finished.manifest_md5), shared)?;
    }
    if let Err(error) = device.reread_partitions() {
        (shared.events)(Event::Warning(format!(
            "drive {}: finished, but the kernel did not read the new partition table: {error}",
            facts.name
        )));
    }
    let header_hash = if request.drive_header_hash { Some(header_hash(&device, layout.volume().start)?) } else { None };
    let has_manifest = layout.has_manifest();
    record.manifest_hash = Some(finished.manifest_md5).filter(|_| has_manifest);
    record.drive_header_hash = header_hash.as_deref();
    write_record(&record, RecordState::Completed)?;
    let kind = device.kind().clone();
    drop(device);
    tell_mounted(&kind, facts, shared.events);
    (shared.events)(Event::Stage { drive: index, stage: Stage::Done });
    let tree = layout.tree();
    Ok(Done {
        files: finished.files,
        data: finished.data,
        written: finished.written,
        manifest_md5: Some(finished.manifest_md5).filter(|_| has_manifest),
        left_out: finished.left_out.iter().map(|(&i, why)| (tree.source_path(i), why.clone())).collect(),
        record: request.windows.is_none().then_some(record_path),
        keys,
        free_space_untouched: !request.wipe_free,
        // A blank drive is written from its first sector to its last.
        outside_untouched: ByteLen(0),
    })
}

/// Keys of a drive for Windows, as requested; empty for other drives.
fn drive_keys(request: &PrepRequest, secrets: Option<&VolumeSecrets>) -> DriveKeys {
    let (Some(windows), Some(secrets)) = (&request.windows, secrets) else { return DriveKeys::default() };
    let external = secrets.key_file();
    DriveKeys {
        recovery_file: Some(windows.keys.join(keys::recovery_file_name(secrets))),
        recovery_id: Some(secrets.recovery_id().to_string().to_ascii_uppercase()),
        external_file: request.external_key.as_ref().zip(external).map(|(dir, key)| dir.join(key.file_name)),
        has_password: windows.has_password,
    }
}

/// Copies the manifest from the drive to the journal's directory. One that cannot be kept there costs no drive.
pub(crate) fn keep_manifest(
    target: &TargetDrive,
    looked: Option<Opened>,
    record: &Path,
    (name, md5): (&str, &[u8; 16]),
    shared: &Shared<'_>,
) -> Result<(), Problem> {
    let opened = match looked {
        Some(opened) => opened,
        None => {
            let device = Device::open_with(&target.facts.path, Access::Read, target.sector, &Roots::default())?;
            readback::open_again(Box::new(device), &target.facts, Some(record), None)?
        }
    };
    match kept::keep_manifest(&opened, name, &target.facts, &shared.request.journal, md5) {
        Err(problem) if problem.kind == Kind::Environment => {
            (shared.events)(Event::Warning(problem.to_string()));
            Ok(())
        }
        kept => kept.map(drop),
    }
}

/// Drops caches, so that reads from here on come from the device.
pub(crate) fn drop_caches(device: &Device, facts: &DriveFacts, events: &(dyn Fn(Event) + Sync)) {
    if let Err(error) = device.drop_caches() {
        let name = &facts.name;
        events(Event::Warning(format!("drive {name}: the kernel's caches of it could not be dropped: {error}")));
    }
}

/// Warns of a released drive that something else has mounted at once.
pub(crate) fn tell_mounted(kind: &DeviceKind, facts: &DriveFacts, events: &(dyn Fn(Event) + Sync)) {
    for point in mounted_by_itself(kind) {
        events(Event::Warning(format!(
            "drive {}: something mounted it by itself on {}, and may have written to it: unmount it, and check it with \
             dray verify before it is shipped",
            facts.name,
            point.display()
        )));
    }
}

/// Mount points of a drive right after its release: by a rule of udev while its queue lasts, or by a desktop's service
/// a moment later.
fn mounted_by_itself(kind: &DeviceKind) -> Vec<PathBuf> {
    const PATIENCE: Duration = Duration::from_secs(1);
    /// Time for udev to notice the release.
    const GRACE: Duration = Duration::from_millis(100);
    let roots = Roots::default();
    let is_there = |path| Path::new(path).exists();
    let may_mount = matches!(kind, DeviceKind::Block { .. }) && is_there("/run/udev");
    let started = Instant::now();
    loop {
        let points = guard::mounted(kind, &roots);
        let is_at_work = is_there("/run/udev/queue") || is_there("/run/udisks2");
        let timeouts = if is_at_work { PATIENCE } else { GRACE };
        if !points.is_empty() || !may_mount || started.elapsed() >= timeouts {
            return points;
        }
        std::thread::sleep(GRACE / 5);
    }
}

/// Reads back from the device itself, by a descriptor of its own, while the drive is still claimed.
fn read_back(
    index: usize,
    drive: &PreparedDrive,
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
        (shared.events)(Event::Note(format!(
            "drive {}: read back through the kernel's cache, since its file system knows no direct I/O",
            facts.name
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

/// Renames an earlier file in the place of the record, unless it is the record of a drive that was never finished: it
/// may hold the only key of another drive, since ids of images are made from file names.
pub(crate) fn keep_key(record: &Path) -> Result<Option<PathBuf>, Problem> {
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

/// As [`keep_key`], for a drive that is being started: a record of another journal that appeared since preflight stays.
pub(crate) fn make_way(request: &PrepRequest, drive_id: &str, record: &Path) -> Result<Option<PathBuf>, Problem> {
    let book = files::read_journal(&request.journal)?;
    let is_known = book.ledger.sessions.iter().any(|session| session.drive(drive_id).is_some());
    if !is_known && records::is_foreign(&request.journal, drive_id, None) {
        return Err(prepare::foreign_record(record));
    }
    keep_key(record)
}

/// Writes the key file, if one was requested.
pub(crate) fn write_key_file(request: &PrepRequest, key: Option<&KeyFile>) -> Result<(), Problem> {
    let (Some(dir), Some(key)) = (&request.external_key, key) else { return Ok(()) };
    replace_private(&dir.join(&key.file_name), key.bytes.expose())
        .map_err(|error| Problem::new(Kind::Environment, format!("the key file cannot be written: {error}")).path(dir))
}

/// Starts a drive: the record with its password, the outcome log, the key file, the first checkpoint, and then the
/// journal entry.
fn begin(
    index: usize,
    drive: &PreparedDrive,
    secrets: Option<&VolumeSecrets>,
    record: &Path,
    write_record: impl Fn() -> Result<(), Problem>,
    shared: &Shared<'_>,
) -> Result<Checkpoint, Problem> {
    let (request, facts) = (shared.request, &drive.target.facts);
    if let Some(kept) = make_way(request, &drive.rules.drive_id, record)? {
        (shared.events)(Event::Note(format!(
            "drive {}: an earlier drive record was found; its key is kept in {}",
            facts.name,
            kept.display()
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
    let checkpoint = resume::first_checkpoint(request, drive, secrets, shared.formatted, shared.snapshot);
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
    shared.journal.append(&state).map_err(first)?;
    Ok(checkpoint)
}

fn internal(why: String) -> Problem {
    Problem::new(Kind::Internal, why)
}

/// The problem for an error of the files next to the journal.
pub(crate) fn sidecar_problem(error: &io::Error, path: &Path) -> Problem {
    Problem::new(Kind::Environment, format!("the files next to the journal cannot be written: {error}"))
        .path(path)
        .advice("make room on the journal's disk, then continue with --resume")
}

/// Opens the outcome log at the checkpoint, after reading the durable batches back; the checkpoint is reduced if they
/// fail.
fn open_log(
    drive: &PreparedDrive,
    cipher: Option<&SectorCipher>,
    checkpoint: &mut Checkpoint,
    read: resume::ReadAt<'_>,
    shared: &Shared<'_>,
) -> Result<(OutcomeLog, Replay), Problem> {
    let (request, facts) = (shared.request, &drive.target.facts);
    let path = sidecar(&request.journal, &request.session, Sidecar::Outcome(&drive.rules.drive_id));
    let unusable = |error: io::Error| {
        Problem::new(Kind::Environment, format!("the outcome log cannot be used: {error}"))
            .path(&path)
            .drive(&facts.name)
            .advice("restore the file, or roll the session back with --abort and start over")
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
    let good = resume::read_back(&drive.layout, cipher, &plain, &replay.sums, read)
        .map_err(|problem| problem.drive(&facts.name))?;
    if good == durable.0 {
        return Ok((log, replay));
    }
    (shared.events)(Event::Warning(format!(
        "drive {}: lost what it had said to be durable; batches from {good} to {} are written again",
        facts.name, durable.0
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
fn format_state(checkpoint: &mut Checkpoint) -> Result<&mut FormatState, Problem> {
    checkpoint.format_mut().ok_or_else(|| internal("a drive is formatted by the checkpoint of other work".into()))
}

/// Writes checkpoints that differ from `checkpoint` only in the progress.
fn saver<'a>(request: &PrepRequest, mut checkpoint: Checkpoint) -> Save<'a> {
    let path = sidecar(&request.journal, &request.session, Sidecar::Checkpoint(&checkpoint.drive_id));
    Box::new(move |durable| {
        if let Some(state) = checkpoint.format_mut() {
            state.is_wiped = true;
            (state.next, state.end, state.outcome) = (durable.next, durable.end, durable.outcome);
        }
        replace_private(&path, &checkpoint.encode())
    })
}

/// Removes the files not needed any more once a drive is formatted and filled, while its session continues.
fn remove_outcome(request: &PrepRequest, drive_id: &str) {
    let _ = fs::remove_file(sidecar(&request.journal, &request.session, Sidecar::Outcome(drive_id)));
}

/// Removes the files not needed any more once a session is complete, or a drive given up or rolled back.
pub fn remove_sidecars(request: &PrepRequest, drive_id: &str) {
    for which in [
        Sidecar::Checkpoint(drive_id),
        Sidecar::Outcome(drive_id),
        Sidecar::Other(drive_id, append::run::IMAGES),
        Sidecar::Other(drive_id, append::encrypt::IMAGES),
        Sidecar::Other(drive_id, append::encrypt::BATCH_JOURNAL),
    ] {
        let _ = fs::remove_file(sidecar(&request.journal, &request.session, which));
    }
}

/// Reports an event to the watchdog.
fn heartbeat(watchdog: &Watchdog, event: &Event) {
    let (drive, is_end) = match event {
        Event::Stage { drive, stage } => (*drive, stage.is_end()),
        Event::DriveFailed { drive, .. } => (*drive, true),
        Event::Progress { drive, .. } | Event::LeftOut { drive, .. } => (*drive, false),
        Event::Scanning { .. } | Event::Note(_) | Event::Warning(_) => return,
    };
    watchdog.beat(drive);
    if is_end {
        watchdog.finish(drive);
    }
}

/// I/O resources of a drive.
struct DriveIo<'a> {
    engine: Box<dyn Engine + Send>,
    pool: Pool,
    /// Ranges of old marks, and ranges that are written last.
    wipe: Vec<ByteRange>,
    once_wiped: &'a dyn Fn(),
    read: resume::ReadAt<'a>,
    node: Option<PathBuf>,
    timeouts: Timeouts,
}

/// Fills the drive from its checkpoint to its end.
fn fill(
    index: usize,
    drive: &PreparedDrive,
    secrets: Option<&VolumeSecrets>,
    fve_region: FveRegion<'_>,
    mut checkpoint: Checkpoint,
    mut io: DriveIo<'_>,
    shared: &Shared<'_>,
) -> Result<Finished, Problem> {
    let has_wiped = format_state(&mut checkpoint)?.is_wiped;
    let cipher = secrets.map(VolumeSecrets::sector_cipher).transpose();
    let cipher = cipher.map_err(|error| internal(format!("the cipher refuses its key: {error}")))?;
    let (log, replay) = open_log(drive, cipher.as_ref(), &mut checkpoint, io.read, shared)?;
    let layout = &drive.layout;
    let setup = Setup {
        index,
        name: drive.target.facts.name.clone(),
        content: DriveContent::of(layout, cipher, io.pool.slot_len()),
        engine: io.engine.as_mut(),
        pool: io.pool,
        fills_max: if shared.fetchers.is_some() { FETCHES_MAX } else { FILLS_MAX },
        fetch: shared.fetchers.map(Fetchers::line),
        batcher: shared.workers.lane_batcher(),
        log,
        replay,
        pace: shared.request.pace,
        save: saver(shared.request, checkpoint),
        wipe: if has_wiped { Vec::new() } else { io.wipe },
        once_wiped: io.once_wiped,
        node: io.node,
        bases: shared.context.sources.clone(),
        beside: journal_dir(&shared.request.journal),
        timeouts: io.timeouts,
        rate_limit: &shared.rate_limit,
        events: shared.events,
        stop: shared.stop,
    };
    let plain = PlainBytes {
        fve_region: LazyCell::new(fve_region),
        front: secrets.map_or_else(|| Box::new([0; FRONT_LEN]), VolumeSecrets::front),
        table_primary: layout.table().primary(),
        table_backup: layout.table().backup().map(|(_, bytes)| bytes).unwrap_or_default(),
    };
    drive::format(setup, Format { layout, plain, rules: &drive.rules })
}

/// The first of several problems: a drive reports one failure.
pub fn first(problems: Problems) -> Problem {
    problems.0.into_iter().next().unwrap_or_else(|| Problem::new(Kind::Internal, "an error without a problem"))
}

/// Ranges of old signatures, and ranges that are written last, so that an unfinished drive shows no volume.
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

/// The drive's own engine.
///
/// # Errors
/// The requested engine is not available.
pub fn engine(
    device: &Device,
    pool: &Pool,
    request: &PrepRequest,
    name: &str,
    events: &(dyn Fn(Event) + Sync),
) -> Result<Box<dyn Engine + Send>, Problem> {
    let writes = request.in_flight.unwrap_or_else(|| device.geometry().writes_in_flight());
    let options = Options { writes, ..Options::default() };
    let mut target = device.target();
    if let Some(len) = request.request_len {
        target.requests = Requests { len_max: Some(len), ..Requests::default() };
    }
    match request.engine {
        EngineChoice::Auto => {
            let (engine, notice) = crate::io::open(target, pool, options);
            if let Some(notice) = notice {
                events(Event::Note(format!("drive {name}: {notice}")));
            }
            Ok(engine)
        }
        EngineChoice::Uring => match crate::io::uring::Uring::new(target, pool, options) {
            Ok(ring) => Ok(Box::new(ring)),
            Err(error) => Err(Problem::new(Kind::Environment, error.to_string()).advice("or use --engine sync")),
        },
        EngineChoice::Sync => Ok(Box::new(crate::io::sync::Sync::new(target, options))),
    }
}

/// `offset:length:SHA-512` of the table and of the volume's front, joined by `;`: the form of the only public sample,
/// which covers the first MiB and 143,360 bytes of the partition.
pub(crate) fn header_hash(device: &Device, volume: ByteOffset) -> Result<String, Problem> {
    let mut parts = Vec::new();
    for (at, len) in [(0, 1 << 20), (volume.0, 143_360)] {
        let mut bytes = vec![0; len];
        device.read_exact_at(&mut bytes, ByteOffset(at)).map_err(|error| {
            Problem::new(Kind::Drive, format!("the drive's header cannot be read back: {error}")).at(ByteOffset(at))
        })?;
        parts.push(format!("{at}:{len}:{}", hash::hex_upper(&hash::sha512(&bytes))));
    }
    Ok(parts.join(";"))
}

#[cfg(test)]
pub(crate) mod tests;
