//! Resumes a session that ended abnormally: its plan is read, its drives are located again, and each continues where it
//! was durable. Finished drives are left alone. Drives may join, and take the files of drives that are given up.

use std::collections::HashSet;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use crate::azure::journal::{SessionState, Work};
use crate::azure::ledger::{CopySession, SessionDrive};
use crate::azure::{driveset, names};
use crate::checkpoint::{Checkpoint, CheckpointFault, WorkState};
use crate::crypt::Cipher;
use crate::crypt::secret::Key32;
use crate::dataset::own::Own;
use crate::device::{self, Access, Device, Ground, Held, Roots, guard, signature};
use crate::entropy::Entropy;
use crate::hash;
use crate::io::FileFacts;
use crate::journal::files::{self, Book, Sidecar, journal_dir, sidecar};
use crate::ntfs::build::Tree;
use crate::plan::catalog::Catalog;
use crate::plan::tree::{DriveTree, FileKind};
use crate::pool::SLOT_LEN;
use crate::report::{Advice, Command, Event, Kind, Notice, Problem, Problems, Setting};
use crate::request::{Action, PrepRequest};
use crate::session::plan_file::{self, SavedPlan};
use crate::session::planning::Planned;
use crate::session::prepared::Prepared;
use crate::session::{inputs, prepared};
use crate::source::select::{Selection, Selector};
use crate::source::walk;
use crate::stream::sources::expected_facts;
use crate::surroundings::Surroundings;
use crate::units::{DeviceRange, FileTime, SectorSize};
use crate::work::append::drive::{self as there, AppendDrive};
use crate::work::append::existing::ExistingVolume;
use crate::work::drive_work::DriveWork;
use crate::work::keys::NotRestored;
use crate::work::planner::{FormatDrive, Planner};
use crate::work::progress::identity_digest;
use crate::work::recipe::Recipe;
use crate::work::recipe::SavedDrive;
use crate::work::target::{self, TargetDrive, TargetOptions};
use crate::work::{append, keys, steps};

/// Longest delay of file times behind the clock that a session is planned by: a tick of the kernel.
const CLOCK_BEHIND: Duration = Duration::from_millis(20);

/// Most changed sources named; the rest is only counted.
const CHANGED_LISTED_MAX: usize = 100;

/// Whether resuming was requested for a complete session: then nothing is left to do, and no drive is needed to report
/// that.
pub fn is_complete(request: &PrepRequest) -> bool {
    let is_plain = request.action == Action::Resume && request.additional_driveset.is_none();
    let book = is_plain.then(|| files::read_journal(&request.journal).ok()).flatten();
    let last = book.as_ref().filter(|book| book.damage.is_empty()).and_then(|book| book.ledger.last());
    last.is_some_and(|last| last.id == request.session && last.state == SessionState::Completed)
}

/// State of the drive in the session; `None` when it was not started.
pub fn state_of(session: &CopySession, drive_id: &str) -> Option<SessionState> {
    session.drive(drive_id).map(|drive| drive.state)
}

/// Reads the session's plan.
///
/// # Errors
/// It is missing, damaged, or does not match the journal: then the session cannot be resumed.
pub fn load_plan(request: &PrepRequest, session: &CopySession) -> Result<SavedPlan, Problem> {
    let path = sidecar(&request.journal, &request.session, Sidecar::Plan);
    let unusable = |what: String| {
        Problem::new(Kind::Environment, format!("the session's plan cannot be used: {what}")).path(&path).advice(
            Advice::from(
                "nothing was changed; restore the file as it was and try again, or roll the session back with ",
            ) + Setting::Abort,
        )
    };
    let plan =
        plan_file::load(&path, session.plan.as_ref()).map_err(|error| match plan_file::is_other_version(&error) {
            true => unusable(error.to_string()).advice(CheckpointFault::OTHER_VERSION.advice("")),
            false => unusable(error.to_string()),
        })?;
    if plan.recipe.session != request.session {
        return Err(unusable(format!("it belongs to session {}", plan.recipe.session)));
    }
    let gone = |drive: &SessionDrive| matches!(drive.state, SessionState::GivenUp | SessionState::Aborted);
    let planned = |id: &str| plan.drives.iter().any(|saved| saved.target.facts.drive_id == id);
    let strange = session
        .drives
        .iter()
        .find(|drive| !gone(drive) && !planned(&drive.drive_id) && !plan.given_up.contains(&drive.drive_id));
    match strange {
        Some(drive) => Err(unusable(format!("it does not have drive {}, which the journal has", drive.drive_id))),
        None => Ok(plan),
    }
}

/// Checks a drive that the session had not started: consent holds as long as the drive is unchanged.
fn still_agreed(target: &mut TargetDrive, roots: &Roots) -> Result<(), Problem> {
    if target.identity.is_none() || !matches!(target.work, Work::Format | Work::Encrypt) {
        return Ok(());
    }
    let contents = contents_now(target, roots)?;
    target.agreed = contents.words == target.facts.contents;
    target.facts.contents = contents.words;
    if target.work == Work::Format {
        target.old.extend(contents.wipe);
    }
    Ok(())
}

/// Locates a drive of the plan: by its path, or by its serial at any other place.
///
/// # Errors
/// It is missing, or another drive is in its place.
pub fn find_again(mut target: TargetDrive, has_begun: bool, roots: &Roots) -> Result<TargetDrive, Problem> {
    let gone = |what: String| {
        Problem::new(Kind::Refused, what).drive(&target.facts.name).advice(
            Advice::from("attach it and try again, or give its files to other drives: ")
                + Setting::Replan
                + ", with "
                + Setting::AdditionalDriveset
                + " for more",
        )
    };
    let Some(identity) = &target.identity else {
        // An image file that the session makes itself.
        return match fs::metadata(&target.facts.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !has_begun => {
                target.ground = Ground::unmade(&target.facts.path);
                Ok(target)
            }
            Err(error) => Err(gone(format!("the image file does not exist: {error}"))),
            Ok(meta) if meta.is_file() && meta.len() == 0 => {
                target.held = fs::File::open(&target.facts.path).ok().and_then(Held::of);
                target.ground = Ground::unmade(&target.facts.path);
                Ok(target)
            }
            Ok(_) => {
                let device = Device::open_with(&target.facts.path, Access::Read, target.sector, roots)?;
                if device.geometry().size != target.facts.size {
                    return Err(gone(format!("the image file is {} long now", device.geometry().size)));
                }
                target.identity = Some(device.identity().clone());
                (target.ground, target.held) = (Some(Ground::of(&device)), Some(device.hold()));
                Ok(target)
            }
        };
    };
    let is_anonymous = identity.serial.is_none();
    // Another drive in its place is a more useful message than a missing one.
    let mut why = None;
    // Behind a bridge that hides the drive's own serial, the drive can be found by the bridge's.
    let serials = identity.serial.iter().chain(&identity.bridge_serial).map(|serial| format!("serial:{serial}"));
    for place in std::iter::once(target.facts.path.display().to_string()).chain(serials) {
        let opened = device::resolve(&place, roots)
            .and_then(|path| Device::open_with(&path, Access::Read, target.sector, roots).map(|device| (path, device)));
        match opened {
            Ok((path, device)) => match identity.change_to(device.identity()) {
                None => {
                    target.facts.path = path;
                    target.ground = Some(Ground::of(&device));
                    target.held = is_anonymous.then(|| device.hold());
                    return Ok(target);
                }
                Some(change) => why = Some(format!("another drive is in its place: {change}")),
            },
            Err(problem) => why = why.or(Some(format!("is missing: {}", problem.what))),
        }
    }
    Err(gone(why.unwrap_or_else(|| "is not attached".to_owned())))
}

/// Reason why the checkpoint of a drive that was begun cannot be used.
enum Unusable {
    /// It is missing, damaged or does not fit, for this reason: the drive starts over.
    Anew(String),
    /// The session is refused, since another version of this program can continue.
    Refused(Problem),
}

impl From<String> for Unusable {
    fn from(why: String) -> Self {
        Self::Anew(why)
    }
}

impl From<NotRestored> for Unusable {
    fn from(why: NotRestored) -> Self {
        Self::Anew(why.to_string())
    }
}

impl From<&str> for Unusable {
    fn from(why: &str) -> Self {
        Self::Anew(why.into())
    }
}

/// The drives of a resumed session, as its plan and its journal have them.
#[derive(Default)]
struct Standing {
    /// Drives that are continued.
    works: Vec<Box<dyn DriveWork>>,
    given_up: Vec<String>,
    /// Formatted drives that had finished.
    done: Vec<String>,
    /// Drives that had finished and can be rolled back as long as the session is open.
    added: Vec<String>,
    /// Files without a drive.
    waiting: Vec<u32>,
}

/// What every step of resuming needs.
struct Resuming<'a> {
    request: &'a PrepRequest,
    plan: &'a SavedPlan,
    session: &'a CopySession,
    cipher: Cipher,
    roots: &'a Roots,
}

/// The preflight of a resumed session.
///
/// # Errors
/// All obstacles.
pub(super) fn prepare(
    mut request: PrepRequest,
    book: &Book,
    mut surroundings: Surroundings,
    roots: &Roots,
    on_event: &mut dyn FnMut(Event),
) -> Result<Prepared, Problems> {
    let Some(session) = book.ledger.last() else {
        return Err(Problem::new(Kind::Internal, "no session to resume").into());
    };
    let plan = load_plan(&request, session)?;
    refuse_other_kind(&request, &plan.recipe)?;
    let password_file = request.windows.as_ref().and_then(|windows| windows.password_file.clone());
    let cipher = adopt(&mut request, &plan.recipe)?;
    let (mut problems, mut warnings) = (Problems::default(), Vec::new());
    let resuming = Resuming { request: &request, plan: &plan, session, cipher, roots };
    let mut standing = resuming.standing(&mut problems, &mut warnings)?;
    let has_password = plan.recipe.windows.as_ref().is_some_and(|windows| windows.has_password);
    let needs_password = has_password && standing.works.iter().any(|work| work.draws_secrets());
    // The hash of the password is only in the checkpoint of a drive that was begun.
    let user_password = needs_password.then(|| password_again(password_file.as_deref(), &mut problems)).flatten();
    refuse_twice(&standing.works, &mut problems);
    request.selection.clone_from(&plan.recipe.selection);
    let context = sources_now(&request, &plan, book, &mut warnings);
    let before = standing.works.len();
    let joined =
        join(&request, &plan, book, &mut standing, (&context, roots), &mut *surroundings.entropy, &mut warnings);
    let unneeded = joined.map_err(|mut more| problems.0.append(&mut more.0)).unwrap_or_default();
    problems.into_result()?;
    for id in &standing.given_up {
        warnings.push(Problem::new(Kind::Usage, "is abandoned; its contents do not count").drive(id));
    }
    for work in &standing.works[..before] {
        on_event(Event::Note(Notice::of(&work.target().facts.name, work.position())));
    }
    let Standing { works, given_up, done, added, waiting } = standing;
    let finished = done.len() + added.len();
    if finished > 0 {
        let words = if finished == 1 { "1 drive had".to_owned() } else { format!("{finished} drives had") };
        on_event(Event::Note(Notice::session(format!("{words} finished before and are not written again"))));
    }
    let plan = prepared::Plan {
        recipe: plan.recipe,
        catalog: plan.catalog,
        unplaced: waiting,
        saved: Some(plan.prefix),
        seen: book.seen,
        joins: works.len() - before,
        given_up,
        done,
        added,
    };
    let planned = Planned { works, unneeded, unplaced: Vec::new() };
    let prepared = Prepared::new(request, cipher, surroundings, planned, context, plan, Vec::new(), warnings)?;
    Ok(Prepared { user_password, ..prepared })
}

/// The user's password of new volumes, which no file of the session keeps in the clear.
fn password_again(file: Option<&Path>, problems: &mut Problems) -> Option<Key32> {
    let password = file.map(keys::user_password).unwrap_or_else(|| {
        Err(Problem::new(Kind::Usage, "the drive starts over, and its user's password is not kept")
            .setting(Setting::PasswordFile)
            .advice(Advice::from("give ") + Setting::PasswordFile + " again"))
    });
    password.map_err(|problem| problems.push(problem)).ok()
}

/// Refuses two names of one drive.
fn refuse_twice(works: &[Box<dyn DriveWork>], problems: &mut Problems) {
    for (i, work) in works.iter().enumerate() {
        let others = works[..i].iter().map(|other| other.target());
        if let Some(value) = others.into_iter().find_map(|other| target::same_as(work.target(), other)) {
            let problem =
                Problem::new(Kind::Refused, "is the same drive as another one of the session now").value(value);
            problems.push(problem.advice("bring each drive's own file or device back to its name"));
        }
    }
}

/// What must not be on a drive; warns of files that came into the sources since.
fn sources_now(request: &PrepRequest, plan: &SavedPlan, book: &Book, warnings: &mut Vec<Problem>) -> guard::Context {
    let targets = plan.drives.iter().map(|saved| &saved.target.facts);
    let targets = targets.map(|facts| (&*facts.drive_id, &*facts.path));
    let own_files = Own::gather(request, &book.ledger, None, targets);
    let mut sources = Vec::new();
    if plan.recipe.exported.is_none() {
        added_sources(&plan.catalog, &own_files, &plan.recipe.selection, warnings);
        sources.extend(plan.catalog.rows().iter().map(|row| row.base.clone()));
    }
    guard::Context { sources, journal: Some(request.journal.clone()), logs: Some(files::logdir(request)) }
}

/// Plans the waiting files onto drives that join the session; returns those that are not needed.
///
/// # Errors
/// All obstacles.
fn join(
    request: &PrepRequest,
    plan: &SavedPlan,
    book: &Book,
    standing: &mut Standing,
    (context, roots): (&guard::Context, &Roots),
    entropy: &mut dyn Entropy,
    warnings: &mut Vec<Problem>,
) -> Result<Vec<TargetDrive>, Problems> {
    let Some(path) = &request.additional_driveset else { return Ok(Vec::new()) };
    let mut problems = Problems::default();
    let set = inputs::read_csv(Some(path), Setting::AdditionalDriveset, &mut problems, driveset::parse_into);
    let rows = set.as_ref().map_or(&[][..], |set| &set.rows);
    warnings.extend(set.iter().flat_map(|set| set.warnings.iter().cloned()));
    let options = TargetOptions {
        driveset: path,
        drive_ids: &request.drive_ids,
        ids_proved: false,
        image_sector: request.sector_size.and_then(SectorSize::from_bytes).unwrap_or(SectorSize::S512),
        not_for_shipping: request.not_for_shipping,
        for_service: true,
        is_made_for: false,
        context,
        roots,
    };
    let found = match target::find(rows, &options, warnings) {
        Ok(found) => found,
        Err(mut more) => {
            problems.0.append(&mut more.0);
            return Err(problems);
        }
    };
    let known = book.ledger.last().into_iter().flat_map(|session| session.drives.iter().map(|drive| &drive.drive_id));
    let known = known.chain(plan.drives.iter().map(|saved| &saved.target.facts.drive_id));
    let known: Vec<String> = known.cloned().collect();
    inputs::refuse_known(&found, &book.ledger, &known, (&request.journal, path), &mut problems);
    inputs::refuse_foreign_records(&found, &book.ledger, &request.journal, &mut problems);
    target::refuse_same(&found, standing.works.iter().map(|work| work.target()), path, &mut problems);
    let found = inputs::places(found, roots, &mut problems);
    problems.into_result()?;
    let planner = Planner { recipe: &plan.recipe, catalog: &plan.catalog };
    let planned = planner.plan_drives(&standing.waiting, found, entropy, true)?;
    standing.works.extend(planned.works);
    standing.waiting = planned.unplaced;
    Ok(planned.unneeded)
}

impl Resuming<'_> {
    const fn planner(&self) -> Planner<'_> {
        Planner { recipe: &self.plan.recipe, catalog: &self.plan.catalog }
    }

    /// Locates the drives that are not finished, and collects where each stands.
    ///
    /// # Errors
    /// The plan does not fit its own drives.
    fn standing(&self, problems: &mut Problems, warnings: &mut Vec<Problem>) -> Result<Standing, Problem> {
        let mut out = Standing { waiting: self.plan.unplaced.clone(), ..Standing::default() };
        // Given up in the plan but not in the journal: the process was killed in between.
        let is_open = |id: &&String| state_of(self.session, id).is_some_and(|state| state != SessionState::GivenUp);
        out.given_up.extend(self.plan.given_up.iter().filter(is_open).cloned());
        for saved in self.plan.drives.iter() {
            let drive_id = &saved.target.facts.drive_id;
            let state = state_of(self.session, drive_id);
            match state {
                Some(SessionState::Completed) if saved.target.work == Work::Format => out.done.push(drive_id.clone()),
                Some(SessionState::Completed) => out.added.push(drive_id.clone()),
                _ => {}
            }
            if matches!(state, Some(SessionState::Completed | SessionState::GivenUp)) {
                continue;
            }
            let gives_up = self.request.replan.as_ref().is_some_and(|ids| ids.contains(drive_id));
            let target = match find_again(saved.target.clone(), state.is_some(), self.roots) {
                Ok(target) if !gives_up => target,
                Err(problem) if self.request.replan.is_none() => {
                    problems.push(problem);
                    continue;
                }
                Ok(_) | Err(_) => {
                    out.given_up.push(drive_id.clone());
                    out.waiting.extend_from_slice(&saved.assigned);
                    continue;
                }
            };
            match self.work(target, saved, state.is_some(), warnings) {
                Ok(work) => {
                    changed_sources(work.tree(), work.first_open_file(), warnings);
                    out.works.push(work);
                }
                Err(problem) => problems.push(problem),
            }
        }
        out.waiting.sort_unstable();
        out.waiting.dedup();
        Ok(out)
    }

    /// The work on a drive, from where an earlier run of the session left it.
    fn work(
        &self,
        mut target: TargetDrive,
        saved: &SavedDrive,
        has_begun: bool,
        warnings: &mut Vec<Problem>,
    ) -> Result<Box<dyn DriveWork>, Problem> {
        if !has_begun {
            still_agreed(&mut target, self.roots)?;
        }
        Ok(match target.work {
            Work::Format => Box::new(self.format_again(target, saved, has_begun, warnings)?),
            Work::Append | Work::Index | Work::Encrypt => Box::new(self.append_again(target, saved, has_begun)?),
        })
    }

    /// A drive that is formatted: its progress, or its start.
    fn format_again(
        &self,
        target: TargetDrive,
        saved: &SavedDrive,
        has_begun: bool,
        warnings: &mut Vec<Problem>,
    ) -> Result<FormatDrive, Problem> {
        let planner = self.planner();
        let layout = planner.lay_out(&target, &saved.assigned, saved.seed).map_err(|error| {
            Problem::new(Kind::Internal, format!("the plan does not fit its own drive: {error}"))
                .drive(&target.facts.drive_id)
        })?;
        let mut drive = planner.prepared(target, layout, saved.seed);
        // Also for a drive that was not begun: it may contain data by now.
        let mut doubt = true;
        if has_begun {
            match self.restore(&mut drive) {
                Ok(()) => {
                    // Durable batches are read back and compared before anything is written.
                    let state = drive.started.as_ref().and_then(|started| started.format());
                    let was_wiped = state.is_some_and(|state| state.is_wiped);
                    let holds_batches = state.is_some_and(|state| state.next.0 > 0);
                    doubt = !holds_batches && (was_wiped || !drive.target.is_proved());
                }
                Err(Unusable::Refused(problem)) => return Err(problem),
                Err(Unusable::Anew(why)) => warnings
                    .push(Problem::new(Kind::Usage, format!("starts over: {why}")).drive(&drive.target.facts.name)),
            }
        }
        // None of the session's own data can be read back: an apparent volume may be someone else's.
        let mut is_recognised = true;
        if doubt && drive.target.identity.is_some() {
            is_recognised = look_inside(&mut drive.target, self.roots)?;
        }
        if has_begun {
            // A drive that the session wiped may hold data written by the session since, which is not recognised as a
            // volume.
            let is_it = drive.target.is_proved() || is_made_since(&drive.target, self.plan.recipe.formatted);
            let is_own = drive.started.is_some() && is_it && !is_recognised;
            drive.target.agreed = !doubt || is_own || drive.target.facts.contents.is_none();
        }
        if !doubt {
            // Only for display; consent has been decided above.
            drive.target.facts.contents = contents_now(&drive.target, self.roots)?.words;
        }
        Ok(drive)
    }

    /// Gives a drive its checkpoint and its keys, if they are complete and fit the plan; otherwise says the reason.
    fn restore(&self, drive: &mut FormatDrive) -> Result<(), Unusable> {
        let (request, plan) = (self.request, self.plan);
        let FormatDrive { target, layout, seed, .. } = &*drive;
        let drive_id = &target.facts.drive_id;
        let path = sidecar(&request.journal, &request.session, Sidecar::Checkpoint(drive_id));
        let bytes = fs::read(&path).map_err(|error| format!("its checkpoint cannot be read: {error}"))?;
        let checkpoint = Checkpoint::decode(&bytes).map_err(|fault| match fault {
            CheckpointFault::OTHER_VERSION => Unusable::Refused(
                Problem::new(Kind::Environment, format!("the drive's checkpoint {fault}"))
                    .path(&path)
                    .drive(&target.facts.name)
                    .advice(fault.advice("")),
            ),
            fault => Unusable::Anew(format!("its checkpoint {fault}")),
        })?;
        let WorkState::Format(state) = &checkpoint.state else {
            return Err("its checkpoint belongs to another plan".into());
        };
        let knows = plan.prefixes.get(&checkpoint.snapshot.len) == Some(&checkpoint.snapshot.digest);
        let fits = checkpoint.session == request.session
            && checkpoint.drive_id == *drive_id
            && state.seed == *seed
            && checkpoint.time == plan.recipe.formatted.0
            && knows;
        if !fits {
            return Err("its checkpoint belongs to another plan".into());
        }
        if checkpoint.identity != identity_digest(target) {
            return Err("its checkpoint belongs to another drive".into());
        }
        if checkpoint.slot_len != SLOT_LEN as u64 || checkpoint.plan != layout.digest(SLOT_LEN) {
            return Err("this version of dray lays it out in another way than the one that began it".into());
        }
        let secrets = match layout.regions() {
            Some(regions) => {
                let record = journal_dir(&request.journal).join(format!("{drive_id}.xml"));
                let disk = layout.layout().disk_shape();
                let spec = keys::spec(request, self.cipher, plan.recipe.formatted, drive_id, regions, disk);
                Some(keys::draft_again(&state.secrets, spec, &record, drive_id)?)
            }
            None => None,
        };
        (drive.started, drive.secrets) = (Some(Box::new(checkpoint)), secrets);
        Ok(())
    }

    /// A drive to which files are added: its progress, or a new plan.
    fn append_again(
        &self,
        mut target: TargetDrive,
        saved: &SavedDrive,
        has_begun: bool,
    ) -> Result<AppendDrive, Problem> {
        let (planner, roots, Self { request, plan, .. }) = (self.planner(), self.roots, self);
        let name = target.facts.name.clone();
        let record = journal_dir(&request.journal).join(format!("{}.xml", target.facts.drive_id));
        target.key = there::record_of(&record)?.and_then(|record| record.bitlocker_key).map(Arc::new);
        let started = match has_begun {
            // The volume may be between two states: only this checkpoint records that.
            true => Some(append::run::started(request, &target, Some((plan.recipe.formatted.0, &plan.prefixes)))?),
            false => None,
        };
        if target.work == Work::Encrypt {
            match started {
                Some(_) => target.agreed = true,
                // The volume still is in the clear, or it is refused.
                None => target.key = None,
            }
        }
        let mut drive = match &started {
            // The volume is between two states.
            Some(started) if append::run::is_copied(started) || append::run::encrypting(started).is_some() => {
                planner.append_drive(target, &saved.assigned)
            }
            _ if target.work == Work::Index => {
                let planned =
                    planner.index(&ExistingVolume::open(target, roots)?, &saved.rows).map_err(steps::first)?;
                planned.0
            }
            _ => planner
                .add(&ExistingVolume::open(target, roots)?, &saved.assigned)
                .map_err(|refused| refused.problem(&name))?,
        };
        drive.started = started.map(Box::new);
        Ok(drive)
    }
}

/// Refuses to continue an export without an account, and another session with one.
fn refuse_other_kind(request: &PrepRequest, recipe: &Recipe) -> Result<(), Problem> {
    let (what, advice) = match (&recipe.exported, request.exports) {
        (Some(_), false) => (
            "the session is an export: its drives are filled from a storage account",
            Advice::from("continue it with ") + Command::Export + ", " + Setting::Resume + " and " + Setting::Endpoint,
        ),
        (None, true) => (
            "the session is no export",
            Advice::from("continue it with ") + Command::PrepImport + " and " + Setting::Resume,
        ),
        _ => return Ok(()),
    };
    Err(Problem::new(Kind::Usage, what).setting(Setting::Id).value(request.session.clone()).advice(advice))
}

/// Gives a request the layout options of a plan.
///
/// # Errors
/// The plan names an unknown cipher.
pub fn adopt(request: &mut PrepRequest, recipe: &Recipe) -> Result<Cipher, Problem> {
    request.cipher.clone_from(&recipe.cipher);
    (request.cluster_size, request.table) = (recipe.cluster_size, recipe.table);
    (request.wipe_free, request.drive_header_hash) = (recipe.wipe_free, recipe.drive_header_hash);
    request.external_key.clone_from(&recipe.external_key);
    request.windows.clone_from(&recipe.windows);
    request.list.clone_from(&recipe.list);
    Cipher::from_name(&recipe.cipher)
        .ok_or_else(|| Problem::new(Kind::Usage, "the plan names an unknown cipher").value(recipe.cipher.clone()))
}

/// Whether an image that the session was to create is newer than the plan: another file moved into its place is older.
/// The file system's clock may be slightly behind.
fn is_made_since(target: &TargetDrive, planned: FileTime) -> bool {
    let made = || fs::metadata(&target.facts.path).and_then(|meta| meta.created()).ok();
    let (seconds, nanos) = planned.to_unix();
    let since = Duration::new(seconds.max(0).unsigned_abs(), nanos).saturating_sub(CLOCK_BEHIND);
    let since = UNIX_EPOCH + since;
    target.facts.is_image && target.planned_file.is_none() && made().is_some_and(|made| made >= since)
}

/// Present contents of a drive.
fn contents_now(target: &TargetDrive, roots: &Roots) -> Result<signature::Contents, Problem> {
    let device = Device::open_with(&target.facts.path, Access::Read, target.sector, roots)?;
    signature::scan(&device)
        .map_err(|error| Problem::new(Kind::Drive, format!("cannot be read: {error}")).drive(&target.facts.name))
}

/// Updates the drive's recorded contents, which may need consent. Another file than the planned one counts as not empty
/// unless it is proven blank: not everything worth keeping has a signature. Returns whether a table or a file system is
/// recognised on it.
fn look_inside(target: &mut TargetDrive, roots: &Roots) -> Result<bool, Problem> {
    let contents = contents_now(target, roots)?;
    let is_recognised = contents.table.is_some() || !contents.volumes.is_empty();
    target.facts.contents = contents.words;
    target.old.extend(contents.wipe);
    if target.planned_file.is_some() && !target.is_proved() && target.facts.contents.is_none() {
        target.facts.contents = Some("another file than the one that was planned for".into());
    }
    Ok(is_recognised)
}

/// Whether a drive without a unique identity holds data that no session of dray put there: a file that has taken the
/// place of the session's.
///
/// # Errors
/// It cannot be read.
pub fn is_strange(
    target: &TargetDrive,
    planned: Option<&str>,
    tables: &[(DeviceRange, [u8; 32])],
    roots: &Roots,
) -> Result<bool, Problem> {
    if target.identity.is_none() || target.is_proved() {
        return Ok(false);
    }
    let cannot = |error| Problem::new(Kind::Drive, format!("cannot be read: {error}")).drive(&target.facts.name);
    let device = Device::open_with(&target.facts.path, Access::Read, target.sector, roots)?;
    let found = signature::scan(&device).map_err(cannot)?.words;
    // The same words are no proof where another file is known to be in its place.
    if found.is_none() || target.planned_file.is_none() && found.as_deref() == planned {
        return Ok(false);
    }
    // Its tables have identifiers that no other drive has.
    let is_there = |(range, digest): &(DeviceRange, [u8; 32])| {
        let mut bytes = vec![0; range.len.0.min(1 << 20) as usize];
        device.read_exact_at(&mut bytes, range.start).is_ok() && hash::sha256(&bytes) == *digest
    };
    Ok(!tables.iter().any(is_there))
}

/// Warns of sources that have changed since the session was planned; files before `open` have been copied.
fn changed_sources(tree: &DriveTree, open: u32, warnings: &mut Vec<Problem>) {
    if tree.exported().is_some() {
        // Each request says which version of a blob it is about.
        return;
    }
    let (mut copied, mut lost) = (0u64, 0u64);
    for i in (0..tree.files()).filter(|i| !matches!(tree.kind(*i), FileKind::ContentMd5(_) | FileKind::Metadata(_))) {
        let path = tree.source_path(i);
        let same = fs::symlink_metadata(&path)
            .is_ok_and(|now| FileFacts::from_metadata(&now).change_since(&expected_facts(tree, i)).is_none());
        if same {
            continue;
        }
        let count = if i < open { &mut copied } else { &mut lost };
        *count += 1;
        if *count <= CHANGED_LISTED_MAX as u64 {
            let what = if i < open {
                "has changed since it was copied; the drive holds it as it was when the session began"
            } else {
                "has changed since the session began, and will be left out"
            };
            warnings.push(Problem::new(Kind::Source, what).path(path));
        }
    }
    let hidden = copied.saturating_sub(CHANGED_LISTED_MAX as u64) + lost.saturating_sub(CHANGED_LISTED_MAX as u64);
    if hidden > 0 {
        warnings.push(Problem::new(Kind::Source, format!("{hidden} more sources have changed that are not listed")));
    }
}

/// Warns of files that were added to the sources after the session was planned: they are not part of it.
fn added_sources(catalog: &Catalog, own: &Own, selection: &Selection, warnings: &mut Vec<Problem>) {
    // A list names all there is, and which names were left out is not known any more.
    if selection.files_from.is_some() || selection.skip_unnameable {
        return;
    }
    let mut selector = if selection.is_all() { None } else { Selector::new(selection).ok() };
    let mark = |path: &Path| {
        let mut hash = DefaultHasher::new();
        path.hash(&mut hash);
        hash.finish()
    };
    let mut known = HashSet::with_capacity(catalog.files().len());
    // Of the root container's rows only the files of the directory itself were taken.
    let mut flat = vec![false; catalog.rows().len()];
    let mut blob = String::new();
    for (i, file) in (0u32..).zip(catalog.files()) {
        known.insert(mark(&catalog.source_path(i)));
        if !flat[file.row as usize] {
            blob.clear();
            catalog.blob_path(i, &mut blob);
            flat[file.row as usize] = blob.starts_with(names::ROOT);
        }
    }
    let mut added = 0u64;
    for (row, flat) in catalog.rows().iter().zip(flat) {
        if !row.base.is_dir() {
            continue;
        }
        walk::walk_links(&row.base, false, selection.follow_inside, &mut |path, found| {
            if let Some(selector) = &mut selector {
                let below = path.strip_prefix(&row.base).unwrap_or(path);
                let pruned = below.ancestors().skip(1).any(|dir| !dir.as_os_str().is_empty() && selector.prunes(dir));
                if pruned || !selector.takes(below, path) {
                    return true;
                }
            }
            // A link that is followed is known by where it leads.
            let path = match &found {
                walk::Walked::File { real: Some(real), .. } => real,
                _ => path,
            };
            let is_below = || path.parent() != Some(&*row.base);
            let is_source =
                matches!(found, walk::Walked::File { id, facts, .. } if own.what(id, facts.len.0, path).is_none());
            if is_source && !(flat && is_below()) && known.insert(mark(path)) {
                added += 1;
                if added <= CHANGED_LISTED_MAX as u64 {
                    let what = "came into the sources after the session was planned, and is not part of it";
                    let problem = Problem::new(Kind::Source, what).path(path);
                    warnings.push(problem.advice("copy it in a later session"));
                }
            }
            true
        });
    }
    if added > CHANGED_LISTED_MAX as u64 {
        let hidden = added - CHANGED_LISTED_MAX as u64;
        warnings.push(Problem::new(Kind::Source, format!("{hidden} more files have come that are not listed")));
    }
}
