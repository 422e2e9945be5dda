//! Rolls the last session back: its drives return to their earlier state, as far as possible. A drive that the session
//! erased holds no volume afterwards; one to which it added files holds its earlier volume; one that it had not started
//! is not touched.

use std::fs;
use std::path::PathBuf;

use crate::azure::journal::{ActivityRecord, DriveDetails, SessionState, Work};
use crate::azure::ledger::CopySession;
use crate::checkpoint::{Checkpoint, CheckpointFault};
use crate::device::Roots;
use crate::journal::files::{self, JournalFile, Sidecar, journal_dir, logdir, sidecar};
use crate::report::{Advice, DriveFacts, Event, Kind, Notice, Problem, Problems, Setting};
use crate::request::PrepRequest;
use crate::session::log::Log;
use crate::session::plan_file::SavedPlan;
use crate::session::resume;
use crate::work::planner::Planner;
use crate::work::reversal::Reversal;
use crate::work::target::TargetDrive;
use crate::work::way_back::WayBack;
use crate::work::{append, kept, steps};

/// A session that can be rolled back. Nothing has been written yet.
#[derive(Debug)]
pub struct Rollback {
    request: PrepRequest,
    drives: Vec<Back>,
    /// SHA-256 of the journal when it was examined.
    seen: [u8; 32],
    /// Warning about an unusable plan, which is not needed.
    note: Option<Problem>,
}

#[derive(Debug)]
struct Back {
    target: TargetDrive,
    reversal: Reversal,
    /// Whether the drive had finished.
    finished: bool,
    /// Whether the drive is missing: it is left alone.
    missing: bool,
}

/// Result of rolling one drive back.
#[derive(Clone, Debug)]
pub struct RolledBack {
    /// The drive that was to be rolled back.
    pub drive: DriveFacts,
    /// Set when it could not be rolled back.
    pub failure: Option<Problem>,
    /// The drive was missing, and was left alone.
    pub missing: bool,
}

/// Result of rolling a session back.
#[derive(Clone, Debug)]
pub struct RollbackReport {
    /// One entry for each drive that the session had started.
    pub drives: Vec<RolledBack>,
    /// Path of the journal.
    pub journal: PathBuf,
}

/// Examines the session to roll back; writes nothing.
///
/// # Errors
/// All obstacles: a session that cannot be rolled back, missing finished drives.
pub fn prepare(request: PrepRequest) -> Result<Rollback, Problems> {
    prepare_with(request, &Roots::default())
}

/// As [`prepare`], with the kernel's views given.
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
    let mut problems = Problems::default();
    let mut note = None;
    // From the plan, or from the drives' own checkpoints.
    let reversals: Vec<WayBack> = match resume::load_plan(&request, session) {
        Ok(plan) => planned(plan, session)?,
        Err(problem) => match reported(&request, session) {
            Ok(reversals) => {
                note = Some(problem);
                reversals
            }
            Err(more) => {
                problems.push(problem);
                problems.0.extend(more.0);
                return Err(problems);
            }
        },
    };
    let mut drives = Vec::new();
    for reversal in reversals {
        match back_of(reversal, &request, session, roots) {
            Ok(back) => drives.push(back),
            Err(problem) => problems.push(problem),
        }
    }
    problems.into_result()?;
    Ok(Rollback { request, drives, seen: book.seen, note })
}

/// What has to be rolled back on a drive.
fn back_of(reversal: WayBack, request: &PrepRequest, session: &CopySession, roots: &Roots) -> Result<Back, Problem> {
    let finished = resume::state_of(session, &reversal.target.facts.drive_id) == Some(SessionState::Completed);
    let (target, missing) = match resume::find_again(reversal.target.clone(), true, roots) {
        Ok(target) => (target, false),
        Err(_) if !finished => (reversal.target.clone(), true),
        Err(problem) => {
            let advice = "attach it: it had finished, and would remain a valid drive that no journal knows";
            return Err(problem.advice(advice));
        }
    };
    if target.work == Work::Format {
        // Zeros go to where the session's tables would be: not into a file that only bears the drive's name.
        let planned = reversal.target.facts.contents.as_deref();
        let is_strange = !missing && resume::is_strange(&target, planned, &reversal.tables, roots)?;
        if is_strange && finished {
            let what = "another file is in its place, which holds something that this session did not write";
            return Err(Problem::new(Kind::Refused, what).drive(&target.facts.name).advice(
                "bring its own file back: it had finished, and would remain a valid drive that no journal knows",
            ));
        }
        let missing = missing || is_strange;
        return Ok(Back { target, reversal: Reversal::Erase(Box::new(reversal)), finished, missing });
    }
    let checkpoint = append::run::started(request, &target, None)?;
    if missing && append::run::has_changed(&checkpoint) {
        return Err(Problem::new(Kind::Refused, "is not attached")
            .drive(target.facts.name)
            .advice("attach it: the session had begun to change its volume, and that must be rolled back"));
    }
    // Before the session is marked as aborting: an impossible rollback must not prevent resuming.
    append::run::check_back(&target, &checkpoint, request, roots)?;
    Ok(Back { target, reversal: Reversal::Undo(Box::new(checkpoint)), finished, missing })
}

/// Whether the session has started its work on the drive and not undone it.
fn is_held(session: &CopySession, drive_id: &str) -> bool {
    let state = resume::state_of(session, drive_id);
    !matches!(state, None | Some(SessionState::Aborted | SessionState::GivenUp))
}

/// The rollback data of each drive, from the plan.
fn planned(plan: SavedPlan, session: &CopySession) -> Result<Vec<WayBack>, Problem> {
    let planner = Planner { recipe: &plan.recipe, catalog: &plan.catalog };
    let mut reversals = Vec::new();
    for saved in plan.drives.iter().filter(|saved| is_held(session, &saved.target.facts.drive_id)) {
        if saved.target.work != Work::Format {
            reversals.push(WayBack::of(&saved.target, None));
            continue;
        }
        let layout = planner
            .lay_out(&saved.target, &saved.assigned, saved.seed)
            .map_err(|error| Problem::new(Kind::Internal, format!("the plan does not fit its own drive: {error}")))?;
        reversals.push(WayBack::of(&saved.target, Some(&layout)));
    }
    Ok(reversals)
}

/// The rollback data of each drive, from its checkpoint.
fn reported(request: &PrepRequest, session: &CopySession) -> Result<Vec<WayBack>, Problems> {
    let mut problems = Problems::default();
    let mut reversals = Vec::new();
    for drive in session.drives.iter().filter(|drive| is_held(session, &drive.drive_id)) {
        let path = sidecar(&request.journal, &request.session, Sidecar::Checkpoint(&drive.drive_id));
        let otherwise = "restore one of the two files as it was";
        let faulty = |fault: CheckpointFault| (fault.to_string(), fault.advice(otherwise));
        let read = fs::read(&path).map_err(|error| (format!("cannot be read: {error}"), otherwise)).and_then(|bytes| {
            let checkpoint = Checkpoint::decode(&bytes).map_err(faulty)?;
            let fits = checkpoint.session == request.session && checkpoint.drive_id == drive.drive_id;
            let reversal = WayBack::decode(&checkpoint.drive).map_err(faulty)?;
            if fits { Ok(reversal) } else { Err(("belongs to another drive or session".into(), otherwise)) }
        });
        match read {
            Ok(reversal) => reversals.push(reversal),
            Err((why, advice)) => problems.push(
                Problem::new(
                    Kind::Environment,
                    format!("without the plan, the drive's checkpoint is needed, which {why}"),
                )
                .path(path)
                .drive(drive.name.as_deref().unwrap_or(&drive.drive_id))
                .advice(advice),
            ),
        }
    }
    problems.into_result().map(|()| reversals)
}

impl Rollback {
    /// Id of the session to roll back.
    pub fn session(&self) -> &str {
        &self.request.session
    }

    /// The drives that the session had started.
    pub fn drives(&self) -> Vec<DriveFacts> {
        self.drives.iter().map(|back| back.target.facts.clone()).collect()
    }

    /// Indices in [`Rollback::drives`] of finished drives: a good volume is destroyed.
    pub fn drives_needing_consent(&self) -> Vec<usize> {
        let destroys = |back: &Back| back.finished && back.reversal.destroys_volume();
        self.drives.iter().enumerate().filter(|(_, back)| destroys(back)).map(|(i, _)| i).collect()
    }

    /// Indices in [`Rollback::drives`] of drives that return to their earlier volume.
    pub fn taken_back(&self) -> Vec<usize> {
        let back = self.drives.iter().enumerate().filter(|(_, back)| !back.reversal.destroys_volume());
        back.map(|(i, _)| i).collect()
    }

    /// Indices in [`Rollback::drives`] of missing drives, which are left alone.
    pub fn missing(&self) -> Vec<usize> {
        self.drives.iter().enumerate().filter(|(_, back)| back.missing).map(|(i, _)| i).collect()
    }

    /// Rolls back. May be interrupted, and repeated.
    ///
    /// # Errors
    /// A problem that prevents all of it.
    pub fn run(self, consented: &[usize], events: &(dyn Fn(Event) + Sync)) -> Result<RollbackReport, Problems> {
        let missing = self.drives_needing_consent().into_iter().filter(|i| !consented.contains(i));
        let refused = missing.map(|i| {
            Problem::new(Kind::Refused, "had finished, and no consent was given to erase it")
                .drive(&self.drives[i].target.facts.name)
                .advice(Advice::from("answer the question, or name the drive with ") + Setting::Yes)
        });
        Problems(refused.collect()).into_result()?;
        let logs = logdir(&self.request);
        fs::create_dir_all(&logs).map_err(|error| {
            Problem::new(Kind::Environment, format!("the log directory cannot be made: {error}")).path(&logs)
        })?;
        let log = Log::open(&logs, &self.request.session)?;
        let journal = JournalFile::open_seen(&self.request.journal, &self.seen)?;
        if let Some(problem) = &self.note {
            events(Event::Note(Notice::session(format!("{problem}; the rollback follows the drives' checkpoints"))));
        }
        if let Some(note) = &journal.note {
            events(Event::Note(Notice::session(note)));
        }
        let session = &self.request.session;
        // From here on it can only be rolled back.
        journal.append(&ActivityRecord::Session { id: session, state: SessionState::Aborting, plan: None })?;
        let mut results = Vec::new();
        for back in &self.drives {
            let done = self.roll_one_back(back, &journal, events);
            let name = &back.target.facts.name;
            log.line(&match &done {
                Ok(()) if back.missing => format!("drive {name}: was not attached; nothing was done to it"),
                Ok(()) => format!("drive {name}: rolled back"),
                Err(problem) => format!("drive {name}: could not be rolled back: {problem}"),
            });
            results.push(RolledBack { drive: back.target.facts.clone(), failure: done.err(), missing: back.missing });
        }
        if results.iter().all(|result| result.failure.is_none()) {
            journal.append(&ActivityRecord::Session { id: session, state: SessionState::Aborted, plan: None })?;
            for which in [Sidecar::Plan, Sidecar::Refused] {
                let _ = fs::remove_file(sidecar(&self.request.journal, session, which));
            }
        }
        if let Some(problem) = log.trouble() {
            events(Event::Warning(Notice::from(&problem)));
        }
        Ok(RollbackReport { drives: results, journal: self.request.journal })
    }

    fn roll_one_back(
        &self,
        back: &Back,
        journal: &JournalFile,
        events: &(dyn Fn(Event) + Sync),
    ) -> Result<(), Problem> {
        let (session, facts) = (&self.request.session, &back.target.facts);
        if back.missing {
            events(Event::Note(Notice::of(
                &facts.name,
                "not attached, or another file is in its place; nothing was done to it, and its record \
                 is kept, since it may hold a part of the session: erase it before it is used",
            )));
        }
        match (back.missing, &back.reversal) {
            (true, Reversal::Erase(_)) => Ok(()),
            (_, reversal) => reversal.run(&back.target, &self.request, events),
        }?;
        let is_erased = back.reversal.destroys_volume() && !back.missing;
        let aborted = ActivityRecord::Drive {
            session,
            drive_id: &facts.drive_id,
            state: if is_erased || !back.missing { SessionState::Aborted } else { SessionState::GivenUp },
            record_file: &format!("{}.xml", facts.drive_id),
            work: back.target.work,
            details: DriveDetails::default(),
        };
        journal.append(&aborted).map_err(steps::first)?;
        if is_erased {
            // Its key opens nothing any more.
            let _ = fs::remove_file(journal_dir(&self.request.journal).join(format!("{}.xml", facts.drive_id)));
            let _ = fs::remove_file(kept::place(&self.request.journal, &facts.drive_id));
        }
        steps::remove_sidecars(&self.request, &facts.drive_id);
        for part in [Sidecar::ListPart(&facts.drive_id), Sidecar::ExportedPart(&facts.drive_id)] {
            let _ = fs::remove_file(sidecar(&self.request.journal, session, part));
        }
        Ok(())
    }
}
