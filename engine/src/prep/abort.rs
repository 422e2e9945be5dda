//! Rolling the last session back: its drives go back to what they were before, as far as that can be. A drive that the
//! session erased holds no volume afterwards; one that it added to holds the volume that it held before; one that it had
//! not begun is not touched.

use std::fs;
use std::path::PathBuf;

use crate::azure::journal::{ActivityRecord, DriveDetails, SessionState, Work};
use crate::checkpoint::Checkpoint;
use crate::device::{Device, Roots, guard};
use crate::io::{Completion, Engine};
use crate::pool::Pool;
use crate::prep::append;
use crate::prep::claim::claim;
use crate::prep::files::{self, JournalFile, Sidecar, journal_dir, logdir, sidecar};
use crate::prep::log::Log;
use crate::prep::patience::Patience;
use crate::prep::planning::{Planner, PreparedDrive};
use crate::prep::request::PrepRequest;
use crate::prep::resume;
use crate::prep::run::{self, SLOT_LEN};
use crate::prep::targets::TargetDrive;
use crate::report::{DriveFacts, Event, Kind, Problem, Problems};
use crate::units::{ByteOffset, ByteRange};

/// Slots for zeros: the places are small.
const SLOTS: usize = 2;

/// A session that can be rolled back. Nothing has been written yet.
#[derive(Debug)]
pub struct Rollback {
    request: PrepRequest,
    drives: Vec<Back>,
    context: guard::Context,
}

#[derive(Debug)]
struct Back {
    target: TargetDrive,
    way: Way,
    /// It had finished.
    finished: bool,
    /// It is not there; unfinished, it holds no volume anyway.
    missing: bool,
}

#[derive(Debug)]
enum Way {
    /// What makes it a volume is erased: of a finished drive that destroys it.
    Erase(Box<PreparedDrive>),
    /// What was added is taken back.
    TakeBack(Box<Checkpoint>),
}

/// What became of one drive.
#[derive(Clone, Debug)]
pub struct RolledBack {
    /// The drive.
    pub drive: DriveFacts,
    /// Set when it could not be rolled back.
    pub failure: Option<Problem>,
}

/// How rolling back ended.
#[derive(Clone, Debug)]
pub struct RollbackReport {
    /// One entry a drive that the session had begun.
    pub drives: Vec<RolledBack>,
    /// The journal.
    pub journal: PathBuf,
}

/// Looks at what has to be rolled back; writes nothing.
///
/// # Errors
/// All that stands in the way: a session that cannot be rolled back, finished drives that are not there.
pub fn prepare(request: PrepRequest) -> Result<Rollback, Problems> {
    prepare_with(request, &Roots::default())
}

/// As [`prepare`], with the kernel's views from outside.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_with(mut request: PrepRequest, roots: &Roots) -> Result<Rollback, Problems> {
    let mut problems = request.check();
    let book = files::check_journal(&request, &mut problems);
    problems.into_result()?;
    let Some((book, _)) = book else { return Err(Problem::new(Kind::Internal, "no journal and no problem").into()) };
    if request.logdir.is_none() {
        request.logdir = book.ledger.log_directory.as_ref().map(PathBuf::from);
    }
    let Some(session) = book.ledger.last() else {
        return Err(Problem::new(Kind::Internal, "no session to roll back").into());
    };
    let plan = resume::load_plan(&request)?;
    let planner = Planner { recipe: &plan.recipe, catalog: &plan.catalog };
    let mut problems = Problems::default();
    let mut drives = Vec::new();
    for saved in plan.drives {
        let state = resume::state_of(session, &saved.target.facts.drive_id);
        if matches!(state, None | Some(SessionState::Aborted | SessionState::GivenUp)) {
            continue;
        }
        let finished = state == Some(SessionState::Completed);
        let planned_contents = saved.target.facts.contents.clone();
        let (target, missing) = match resume::find_again(saved.target.clone(), true, roots) {
            Ok(target) => (target, false),
            Err(_) if !finished => (saved.target, true),
            Err(problem) => {
                problems.push(
                    problem.advice("attach it: it had finished, and would stay a good drive that nobody knows of"),
                );
                continue;
            }
        };
        if target.work != Work::Format {
            let name = target.facts.name.clone();
            match append::run::begun(&request, &target, plan.recipe.formatted.0) {
                Ok(checkpoint) if missing && append::run::has_changed(&checkpoint) => problems.push(
                    Problem::new(Kind::Refused, "is not there")
                        .drive(name)
                        .advice("attach it: the session had begun to change its volume, and that must be taken back"),
                ),
                Ok(checkpoint) => {
                    drives.push(Back { target, way: Way::TakeBack(Box::new(checkpoint)), finished, missing })
                }
                Err(why) => problems.push(
                    Problem::new(Kind::Environment, format!("cannot be taken back to what it was: {why}"))
                        .drive(name)
                        .advice("bring the files beside the journal back"),
                ),
            }
            continue;
        }
        let layout = planner
            .lay_out(&target, &saved.assigned, saved.seed)
            .map_err(|error| Problem::new(Kind::Internal, format!("the plan does not fit its own drive: {error}")))?;
        // Zeros go to where the session's tables would be: not into a file that only bears the drive's name.
        let is_strange = !missing && resume::is_strange(&target, planned_contents.as_deref(), &layout, roots)?;
        if is_strange && finished {
            let what = "another file is in its place, which holds something that this session did not write";
            problems.push(
                Problem::new(Kind::Refused, what).drive(&target.facts.name).advice(
                    "bring its own file back: it had finished, and would stay a good drive that nobody knows of",
                ),
            );
            continue;
        }
        let missing = missing || is_strange;
        let drive = planner.prepared(target.clone(), layout, saved.seed);
        drives.push(Back { target, way: Way::Erase(Box::new(drive)), finished, missing });
    }
    problems.into_result()?;
    let context = guard::Context {
        sources: plan.catalog.rows().iter().map(|row| row.base.clone()).collect(),
        journal: Some(request.journal.clone()),
        logs: Some(logdir(&request)),
    };
    Ok(Rollback { request, drives, context })
}

impl Rollback {
    /// Session id.
    pub fn session(&self) -> &str {
        &self.request.session
    }

    /// The drives that the session had begun.
    pub fn drives(&self) -> Vec<DriveFacts> {
        self.drives.iter().map(|back| back.target.facts.clone()).collect()
    }

    /// Drives (index in [`Rollback::drives`]) that had finished: a good volume is destroyed.
    pub fn drives_needing_consent(&self) -> Vec<usize> {
        let destroys = |back: &Back| back.finished && matches!(back.way, Way::Erase(_));
        self.drives.iter().enumerate().filter(|(_, back)| destroys(back)).map(|(i, _)| i).collect()
    }

    /// Drives (index in [`Rollback::drives`]) that go back to the volume that they held before.
    pub fn taken_back(&self) -> Vec<usize> {
        let back = self.drives.iter().enumerate().filter(|(_, back)| matches!(back.way, Way::TakeBack(_)));
        back.map(|(i, _)| i).collect()
    }

    /// Rolls back. May be interrupted, and is then done again.
    ///
    /// # Errors
    /// What prevents all of it.
    pub fn run(self, consented: &[usize], events: &(dyn Fn(Event) + Sync)) -> Result<RollbackReport, Problems> {
        let missing = self.drives_needing_consent().into_iter().filter(|i| !consented.contains(i));
        let refused = missing.map(|i| {
            Problem::new(Kind::Refused, "had finished, and nobody agreed to erase it")
                .drive(&self.drives[i].target.facts.name)
                .advice("answer the question, or name the drive with --yes SERIAL")
        });
        Problems(refused.collect()).into_result()?;
        let logs = logdir(&self.request);
        fs::create_dir_all(&logs).map_err(|error| {
            Problem::new(Kind::Environment, format!("the log directory cannot be made: {error}")).path(&logs)
        })?;
        let log = Log::open(&logs, &self.request.session)?;
        let journal = JournalFile::open(&self.request.journal)?;
        if let Some(note) = &journal.note {
            events(Event::Note(note.clone()));
        }
        let session = &self.request.session;
        // From here on it can only be rolled back.
        journal.append(&ActivityRecord::Session { id: session, state: SessionState::Aborting })?;
        let mut results = Vec::new();
        for back in &self.drives {
            let facts = &back.target.facts;
            let done = match &back.way {
                Way::TakeBack(checkpoint) => {
                    if append::run::will_decrypt(checkpoint) {
                        events(Event::Note(format!(
                            "drive {}: its volume is decrypted again, which takes about as long as encrypting did",
                            facts.name
                        )));
                    }
                    append::run::take_back(&back.target, checkpoint, &self.request, &self.context)
                }
                Way::Erase(_) if back.missing => Ok(()),
                Way::Erase(drive) => self.erase(drive),
            };
            let is_erased = matches!(back.way, Way::Erase(_));
            if back.missing && is_erased {
                events(Event::Note(format!(
                    "drive {}: is not there, or another file is in its place, which is left alone; unfinished as it is, \
                     it holds no volume",
                    facts.name
                )));
            }
            let done = done.and_then(|()| {
                let aborted = ActivityRecord::Drive {
                    session,
                    drive_id: &facts.drive_id,
                    state: SessionState::Aborted,
                    record_file: &format!("{}.xml", facts.drive_id),
                    work: back.target.work,
                    details: DriveDetails::default(),
                };
                journal.append(&aborted).map_err(run::first)
            });
            if done.is_ok() {
                if is_erased {
                    // Its key opens nothing any more.
                    let _ = fs::remove_file(journal_dir(&self.request.journal).join(format!("{}.xml", facts.drive_id)));
                }
                run::remove_sidecars(&self.request, &facts.drive_id);
            }
            log.line(&match &done {
                Ok(()) => format!("drive {}: rolled back", facts.name),
                Err(problem) => format!("drive {}: could not be rolled back: {problem}", facts.name),
            });
            results.push(RolledBack { drive: facts.clone(), failure: done.err() });
        }
        if results.iter().all(|result| result.failure.is_none()) {
            journal.append(&ActivityRecord::Session { id: session, state: SessionState::Aborted })?;
            let _ = fs::remove_file(sidecar(&self.request.journal, session, Sidecar::Plan));
        }
        Ok(RollbackReport { drives: results, journal: self.request.journal })
    }

    fn erase(&self, drive: &PreparedDrive) -> Result<(), Problem> {
        if drive.target.identity.is_none() {
            return Ok(());
        }
        let device: Device = claim(&drive.target, &self.context)?;
        let pool = Pool::new(SLOTS, SLOT_LEN)
            .map_err(|error| Problem::new(Kind::Environment, format!("no memory for slots: {error}")))?;
        let engine = run::engine(&device, &pool, &self.request, &drive.target.facts.name, &|_| {})?;
        unmake(engine, pool, drive)?;
        // The kernel may show no partitions of a table that is gone.
        let _ = device.reread_partitions();
        Ok(())
    }
}

/// Takes everything off the drive that makes it a volume, in the reverse of the order in which it came: first what makes it
/// findable, then the rest.
pub(super) fn unmake(mut engine: Box<dyn Engine + Send>, mut pool: Pool, drive: &PreparedDrive) -> Result<(), Problem> {
    let mut places = drive.layout.last_places();
    places.reverse();
    let tables = places.iter().take_while(|place| {
        let volume = drive.layout.volume();
        place.end().0 <= volume.start.0 || place.start.0 >= volume.end().0
    });
    let tables = tables.count();
    let (first, rest) = places.split_at(tables);
    for places in [first, rest] {
        zero(engine.as_mut(), &mut pool, places).map_err(|problem| problem.drive(&drive.target.facts.name))?;
    }
    Ok(())
}

/// Writes zeros, and makes that durable.
fn zero(engine: &mut dyn Engine, pool: &mut Pool, places: &[ByteRange]) -> Result<(), Problem> {
    let settle = |engine: &mut dyn Engine| match engine.wait(Some(Patience::LOOK)) {
        Completion::Written { result: Err(error), .. } => {
            Err(Problem::new(Kind::Drive, format!("cannot be rolled back: {}", error.source)).at(error.at))
        }
        Completion::Flushed { result: Err(error), .. } | Completion::Broken(error) => {
            Err(Problem::new(Kind::Drive, format!("cannot be rolled back: {error}")))
        }
        Completion::TimedOut => Patience::default().hold(engine),
        _ => Ok(()),
    };
    let mut tag = 0;
    for place in places {
        let mut at = place.start.0;
        while at < place.end().0 {
            let mut slot = loop {
                match pool.take() {
                    Some(slot) => break slot,
                    None => settle(engine)?,
                }
            };
            let len = (place.end().0 - at).min(slot.len() as u64);
            slot[..len as usize].fill(0);
            engine.write(tag, slot, len as usize, ByteOffset(at));
            tag += 1;
            at += len;
        }
    }
    engine.flush(tag);
    while engine.in_flight() > 0 {
        settle(engine)?;
    }
    Ok(())
}
