//! Runs all drives of a session at once, each on a thread of its own.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crossbeam_channel::unbounded;

use crate::azure::journal::{ActivityRecord, DriveDetails, PlanMark, SessionState, Work};
use crate::bitlocker::build::VolumeSecrets;
use crate::bitlocker::regions::Regions;
use crate::checkpoint::Prefix;
use crate::hash;
use crate::journal::files::{self, JournalFile, Sidecar, journal_dir, logdir, sidecar};
use crate::journal::records;
use crate::pool::{Pool, SLOT_LEN};
use crate::report::{
    Advice, DriveFacts, DriveKeys, DriveResult, Event, Kind, Meter, Notice, PlanSummary, Problem, Problems,
    SessionReport, Setting, Stage, Stop, Timing,
};
use crate::session::log::Log;
use crate::session::plan_file;
use crate::session::prepared::{Plan, Prepared};
use crate::stream::contents::{Contents, Fetchers};
use crate::stream::rate_limit::RateLimit;
use crate::stream::timeouts::Timeouts;
use crate::stream::workers::Workers;
use crate::units::{ByteLen, DiskShape};
use crate::watchdog::Watchdog;
use crate::work::claim::look_again;
use crate::work::drive::{SLOTS_SPARE, SLOTS_SURE};
use crate::work::drive_work::DriveWork;
use crate::work::keys;
use crate::work::list;
use crate::work::recipe::SavedDrive;
use crate::work::shared::Shared;
use crate::work::steps::{internal, remove_outcome, remove_sidecars};
use crate::work::target::{RowConsent, TargetDrive};

impl Prepared {
    /// The plan for display.
    pub fn summary(&self) -> &PlanSummary {
        &self.summary
    }

    /// All drives, in the order of the summary.
    fn targets(&self) -> impl Iterator<Item = &TargetDrive> {
        self.works.iter().map(|work| work.target())
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

    /// Draws the secrets of every new volume.
    fn draw_secrets(&mut self) -> Result<(), Problem> {
        let Self { works, request, plan, cipher, surroundings, user_password, .. } = self;
        let entropy = &mut *surroundings.entropy;
        let mut draw = |regions: &Regions, disk: DiskShape, drive_id: &str| {
            let spec = keys::spec(request, *cipher, plan.recipe.formatted, drive_id, regions, disk);
            let mut secrets = VolumeSecrets::draw(spec, entropy);
            if let Some(password) = user_password.take() {
                secrets.protect(password, entropy);
            }
            secrets
        };
        works.iter_mut().try_for_each(|work| work.draw_secrets(&mut draw))
    }

    /// Updates the session's plan file to the present plan, durably.
    fn save_plan(&self) -> Result<Prefix, Problem> {
        let path = sidecar(&self.request.journal, &self.request.session, Sidecar::Plan);
        let joining = &self.works[self.works.len() - self.plan.joins..];
        let joining: Vec<SavedDrive> = joining.iter().map(|work| work.saved()).collect();
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
        self.check_consent(consented)?;
        let listeners = self.listen(events, started)?;
        let journal = JournalFile::open_seen(&self.request.journal, &self.plan.seen)?;
        if let Some(note) = &journal.note {
            listeners.emit(Event::Note(Notice::session(note)));
        }
        let snapshot = self.begin(&journal)?;
        let workers = Workers::start(std::thread::available_parallelism().map_or(1, Into::into))
            .map_err(|error| Problem::new(Kind::Environment, format!("no threads for hashing and sealing: {error}")))?;
        let pools = Pool::shares(self.works.len(), SLOTS_SURE, SLOTS_SPARE, SLOT_LEN)
            .map_err(|error| Problem::new(Kind::Environment, format!("no memory for slots: {error}")))?;
        let fetchers = contents.map(|(contents, count)| Fetchers::start(&contents, count)).transpose();
        let fetchers =
            fetchers.map_err(|error| Problem::new(Kind::Environment, format!("no threads to fetch: {error}")))?;
        self.draw_secrets()?;
        let emit = |event| listeners.emit(event);
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
        let results = write_all(&self.works, &shared, &listeners);
        let complete = self.conclude(&results, &journal, &emit)?;
        self.finish_list(complete, &emit);
        if complete {
            let _ = fs::remove_file(sidecar(&self.request.journal, &self.request.session, Sidecar::Plan));
            self.drive_ids().iter().for_each(|drive_id| remove_sidecars(&self.request, drive_id));
        }
        let all_good = results.iter().all(|result| result.failure.is_none());
        let ledger = files::read_journal(&self.request.journal).unwrap_or_default().ledger;
        let dir = journal_dir(&self.request.journal);
        let records = ledger.finished_drives().into_iter().map(|drive| dir.join(drive.record_file));
        Ok(SessionReport {
            records: records.filter(|_| self.request.windows.is_none()).collect(),
            open: ledger.open_drives().iter().map(|(_, drive)| drive.drive_id.clone()).collect(),
            drives: results,
            journal: self.request.journal.clone(),
            log: Some(listeners.log.path()),
            log_lacks: listeners.log.lacks(),
            interrupted: stop.requested() && !all_good,
            waiting: self.plan.unplaced.len() as u64,
            elapsed: started.elapsed(),
            windows: self.request.windows.is_some(),
            exports: self.request.exports,
        })
    }

    /// Refuses drives without consent, and drives that another one has replaced.
    fn check_consent(&self, consented: &[usize]) -> Result<(), Problems> {
        let missing = self.drives_needing_consent().into_iter().filter(|i| !consented.contains(i));
        let refused = missing.map(|i| {
            let work = &self.works[i];
            let facts = &work.target().facts;
            Problem::new(Kind::Refused, work.without_consent())
                .drive(&facts.name)
                .value(facts.contents.clone().unwrap_or_else(|| "blank".into()))
                .advice(Advice::from("answer the question, or name the drive with ") + Setting::Yes)
        });
        Problems(refused.collect()).into_result()?;
        // While a question was open, names may have come to lead elsewhere: all drives are checked again before the
        // first write.
        let again = self.targets().filter_map(|target| look_again(target, target.held.as_ref(), &self.context).err());
        Problems(again.collect()).into_result()
    }

    /// Opens the log, with what preflight found.
    fn listen<'a>(&self, events: &'a (dyn Fn(Event) + Sync), started: Instant) -> Result<Listeners<'a>, Problems> {
        let logs = logdir(&self.request);
        fs::create_dir_all(&logs).map_err(|error| {
            Problem::new(Kind::Environment, format!("the log directory cannot be made: {error}")).path(&logs)
        })?;
        let log = Log::open(&logs, &self.request.session)?;
        log.begin(&self.request, &self.summary);
        for skipped in &self.summary.skipped {
            log.line(&format!("not copied: {}: {}", skipped.path.display(), skipped.what));
        }
        for warning in &self.summary.warnings {
            log.line(&format!("note: {warning}"));
        }
        let names: Vec<String> = self.summary.drives.iter().map(|plan| plan.drive.name.clone()).collect();
        let watchdog = Watchdog::new(names.len(), Timeouts::default().slow);
        let meters = names.iter().map(|_| Mutex::default()).collect();
        Ok(Listeners { log, names, watchdog, meters, started, events })
    }

    /// Makes plan and journal say that the session has started, durably; returns the part of the plan that counts.
    fn begin(&self, journal: &JournalFile) -> Result<Prefix, Problems> {
        // The plan first: a session in the journal can then be resumed.
        let snapshot = self.save_plan()?;
        if self.plan.saved.is_none() {
            // An absolute path, as in the documented sample; a later session may run in another directory.
            let logs = logdir(&self.request);
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
        Ok(snapshot)
    }

    /// Ids of all drives of the session: those that earlier runs finished, and those of this run.
    fn drive_ids(&self) -> Vec<String> {
        let own = self.targets().map(|target| &target.facts.drive_id);
        self.plan.done.iter().chain(&self.plan.added).chain(own).cloned().collect()
    }

    /// Writes how the session ended into the journal; returns whether it is complete.
    fn conclude(&self, results: &[DriveResult], journal: &JournalFile, emit: &dyn Fn(Event)) -> Result<bool, Problems> {
        let all_good = results.iter().all(|result| result.failure.is_none());
        let ready = all_good && self.plan.unplaced.is_empty();
        let complete = ready && self.is_proven();
        let state = if complete { SessionState::Completed } else { SessionState::Interrupted };
        let ended = journal.append(&ActivityRecord::Session { id: &self.request.session, state, plan: None });
        // The results of the drives are reported in any case; a session without this record counts as interrupted.
        match ended {
            Err(problems) if all_good => return Err(problems),
            Err(problems) => problems.0.iter().for_each(|problem| emit(Event::Warning(Notice::from(problem)))),
            Ok(()) => {}
        }
        if ready && !complete {
            let what =
                "the journal does not have every drive of the session as finished, so that the session is not complete";
            let problem = Problem::new(Kind::Environment, what).path(&self.request.journal);
            return Err(problem
                .advice(
                    Advice::from("look at it with ")
                        + Setting::ListDrives
                        + "; then continue with "
                        + Setting::Resume
                        + ", or roll back with "
                        + Setting::Abort,
                )
                .into());
        }
        Ok(complete)
    }

    /// Finishes the list of all files. The drives are done in any case; the parts stay until the list is whole.
    fn finish_list(&mut self, complete: bool, emit: &dyn Fn(Event)) {
        let Some(list) = self.list.take() else { return };
        if let Err(problem) = list::finish(list, &self.request, &self.drive_ids(), complete) {
            emit(Event::Warning(Notice::from(&problem)));
        }
    }
}

/// Everything that hears of a session's events.
struct Listeners<'a> {
    log: Log,
    names: Vec<String>,
    watchdog: Watchdog,
    meters: Vec<Mutex<Meter>>,
    started: Instant,
    events: &'a (dyn Fn(Event) + Sync),
}

impl Listeners<'_> {
    fn emit(&self, event: Event) {
        heartbeat(&self.watchdog, &event);
        let drive = event.drive();
        if let Some(meter) = drive.and_then(|drive| self.meters.get(drive)) {
            meter.lock().unwrap_or_else(PoisonError::into_inner).heard(&event, self.started.elapsed());
        }
        self.log.event(&event, &self.names, drive.map(|drive| self.timing(drive)).unwrap_or_default());
        (self.events)(event);
        if let Some(problem) = self.log.trouble() {
            (self.events)(Event::Warning(Notice::from(&problem)));
        }
    }

    /// Timing of a drive up to now.
    fn timing(&self, drive: usize) -> Timing {
        let meter = self.meters.get(drive).map(|meter| meter.lock().unwrap_or_else(PoisonError::into_inner));
        meter.map(|meter| meter.timing(self.started.elapsed())).unwrap_or_default()
    }

    /// Warns of drives that are silent, until the watchdog ends.
    fn watch(&self) {
        self.watchdog.watch(|i, quiet| {
            let name = self.names.get(i).map_or("?", String::as_str);
            self.emit(Event::Warning(Notice::of(
                name,
                format!("nothing was heard of it for {} s: it, or the disk of the journal, may hang", quiet.as_secs()),
            )));
        });
    }
}

/// Runs all drives, each on a thread of its own.
fn write_all(works: &[Box<dyn DriveWork>], shared: &Shared<'_>, listeners: &Listeners<'_>) -> Vec<DriveResult> {
    let mut results: Vec<DriveResult> = std::thread::scope(|scope| {
        scope.spawn(|| listeners.watch());
        let (ended, results) = unbounded();
        for (i, work) in works.iter().enumerate() {
            let ended = ended.clone();
            scope.spawn(move || {
                let run = || run_drive(i, &**work, shared);
                ended.send((i, unbroken(&work.target().facts, run)))
            });
        }
        drop(ended);
        // The results are not awaited by joining the threads: the kernel does not let a thread end while a device holds an
        // operation of its ring.
        let results: BTreeMap<usize, DriveResult> = results.into_iter().collect();
        listeners.watchdog.end();
        results.into_values().collect()
    });
    for (i, result) in results.iter_mut().enumerate() {
        result.timing = listeners.timing(i);
        listeners.log.result(result);
    }
    results
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

fn run_drive(index: usize, work: &dyn DriveWork, shared: &Shared<'_>) -> DriveResult {
    let started = Instant::now();
    let target = work.target();
    let outcome = work.run(index, shared);
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
            if journal.is_ok() {
                work.clean_up(shared.request);
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
                problems.0.iter().for_each(|problem| (shared.events)(Event::Warning(Notice::from(problem))));
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

#[cfg(test)]
pub(crate) mod tests;
