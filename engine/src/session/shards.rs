//! A plan split by drive, so that each drive can be written by a process of its own, on any host, and the finished
//! drives gathered into one journal again.
//!
//! ```text
//! plan ──split──► shard per drive ──prepare──► a session with one drive (own journal, record, checkpoint)
//!                                                   │
//! one journal and all records ◄──merge──────────────┘
//! ```
//!
//! A shard is a plan file (`session::plan_file`) with one drive: its identity, its part of the catalog, the seed
//! of its identifiers, never a key. Keys are drawn where the drive is written. The layout follows from the shard alone,
//! so that a drive written from it equals the drive that the whole session would have written.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::azure::driveset::{DrivesetRow, Encryption, FormatOption, FormatPrompt, TargetName};
use crate::azure::journal::{ActivityRecord, DriveDetails, PlanMark, SessionState, Work};
use crate::azure::ledger::{CopySession, SessionDrive};
use crate::azure::names;
use crate::device::{Roots, guard};
use crate::files::input::{self, Pipes};
use crate::io::FileFacts;
use crate::journal::files::{self, JournalFile, journal_dir};
use crate::limits::INPUT_FILE_MAX;
use crate::plan::catalog::Catalog;
use crate::plan::checkpoint::{self, Checkpoint};
use crate::plan::drive::{DriveError, DriveLayout};
use crate::plan::tree::PropertyFile;
use crate::report::{Advice, DriveFacts, Event, Kind, Problem, Problems, Setting, counted};
use crate::request::{Action, PrepRequest, SizeClass};
use crate::session::plan_file::{self, SavedPlan};
use crate::session::planning::Planned;
use crate::session::prepare;
use crate::session::prepared::{Plan, Prepared};
use crate::session::{inputs, preflight, resume};
use crate::surroundings::Surroundings;
use crate::units::{ByteLen, DeviceOffset, SectorSize, Stamp};
use crate::work::drive_work::DriveWork;
use crate::work::exported;
use crate::work::kept;
use crate::work::planner::Planner;
use crate::work::recipe::Recipe;
use crate::work::recipe::SavedDrive;
use crate::work::target::{self, TargetDrive, TargetOptions};

/// Sources that differ and are named one by one.
const DIFFERENT_LISTED_MAX: u64 = 20;

/// A shard that was written.
#[derive(Clone, Debug)]
pub struct Shard {
    /// Name of its file in the directory.
    pub file: String,
    /// SHA-256 of the file.
    pub digest: [u8; 32],
    /// The drive, as it was planned.
    pub drive: DriveFacts,
    /// Whether any drive of its class will do.
    pub is_any: bool,
    /// Files of the session on it; of an export, blobs.
    pub files: u64,
    /// Bytes of those files.
    pub data: ByteLen,
}

/// Whether a plan can be split.
///
/// # Errors
/// It keeps a volume (shards format their drives), or files are on no drive.
pub fn check(prepared: &Prepared) -> Result<(), Problems> {
    let mut problems = Problems::default();
    for work in prepared.works.iter().filter(|work| work.target().work != Work::Format) {
        let what = "keeps its volume; only drives that are formatted can be prepared by shards";
        let problem = Problem::new(Kind::Usage, what).drive(&work.target().facts.name);
        problems.push(problem.advice("take its row out of the driveset, and add to it in a session of its own"));
    }
    let waiting = prepared.plan.unplaced.len() as u64;
    if waiting > 0 {
        let what = format!("{} on no drive yet: a plan that is split must be whole", counted(waiting, "file"));
        problems.push(Problem::new(Kind::Refused, what).advice("add drives"));
    }
    problems.into_result()
}

/// Writes one shard a drive into a directory, in the order of the plan. Durable when this returns.
///
/// # Errors
/// As [`check`]; or the directory cannot be written.
pub fn split(prepared: &Prepared, dir: &Path) -> Result<Vec<Shard>, Problems> {
    check(prepared)?;
    write_all(&prepared.plan.recipe, &prepared.plan.catalog, &prepared.works, dir)
}

/// Writes the shard of each drive.
pub(super) fn write_all(
    recipe: &Recipe,
    catalog: &Catalog,
    works: &[Box<dyn DriveWork>],
    dir: &Path,
) -> Result<Vec<Shard>, Problems> {
    let mut shards = Vec::new();
    for (number, work) in (0..).zip(works) {
        let saved = work.saved();
        let facts = saved.target.facts.clone();
        let files = saved.assigned.len() as u32;
        let part = catalog.part(&saved.assigned);
        let exported = recipe.exported.as_ref().map(|exported| Arc::new(exported.part(&saved.assigned)));
        let blobs =
            exported.as_ref().map(|exported| exported.files.iter().filter(|file| file.blob().is_some()).count());
        let recipe = Recipe { exported, ..recipe.clone() };
        let is_any = saved.target.class().is_some();
        let name = if is_any { "any" } else { &*facts.drive_id };
        let file = format!("{number:04}-{name}.shard");
        let saved = SavedDrive { assigned: (0..files).collect(), ..saved };
        let path = dir.join(&file);
        let written = plan_file::create(&path, &recipe, &part, &[saved], &[]).map_err(|error| {
            Problem::new(Kind::Environment, format!("the shard cannot be written: {error}")).path(&path)
        })?;
        shards.push(Shard {
            file,
            digest: written.digest,
            drive: facts,
            is_any,
            files: blobs.map_or(u64::from(files), |blobs| blobs as u64),
            data: ByteLen(part.files().iter().map(|file| file.len.0).sum()),
        });
    }
    Ok(shards)
}

/// The drives that a shard of a size class chooses from.
pub struct Choice<'a> {
    /// Names of attached drives and existing images, the first that fits first.
    pub candidates: Vec<String>,
    /// Serials or drive ids of drives that may be taken although they hold something.
    pub consented: &'a [String],
    /// Whether another shard has the drive.
    pub is_taken: &'a dyn Fn(&DriveFacts) -> bool,
    /// Takes a drive for the shard: `false` if it is another's by now.
    pub take: &'a mut dyn FnMut(&DriveFacts) -> Result<bool, Problem>,
}

impl std::fmt::Debug for Choice<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Choice").field("candidates", &self.candidates).finish_non_exhaustive()
    }
}

/// Names of the attached drives, by serial where they report one.
pub fn attached() -> Vec<String> {
    let disks = crate::device::list(&Roots::default()).into_iter();
    let hardware = disks.filter(|disk| disk.identity.transport.is_hardware());
    let name = |disk: crate::device::Disk| match disk.identity.known_serial() {
        Some(serial) => format!("serial:{}", names::drive_id_from_serial(serial)),
        None => disk.path.display().to_string(),
    };
    hardware.map(name).collect()
}

/// The preflight of one shard on this host. With a journal that holds its session already, that session is resumed;
/// otherwise the drive is looked for and guarded as in a first session, and must be the drive of the plan, or one of its
/// class that is free; the sources must be those of the plan.
///
/// The request says where journal and logs lie and how to write; what is written follows from the shard.
///
/// # Errors
/// Everything that prevents it, before the first write.
pub fn prepare(
    request: PrepRequest,
    shard: &Path,
    digest: &[u8; 32],
    choice: &mut Choice<'_>,
    on_event: &mut dyn FnMut(Event),
) -> Result<Prepared, Problems> {
    prepare_with(request, shard, digest, choice, Surroundings::real(), &Roots::default(), on_event)
}

/// As [`prepare`], with randomness, time and the kernel's views given.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_with(
    mut request: PrepRequest,
    shard: &Path,
    digest: &[u8; 32],
    choice: &mut Choice<'_>,
    surroundings: Surroundings,
    roots: &Roots,
    on_event: &mut dyn FnMut(Event),
) -> Result<Prepared, Problems> {
    let SavedPlan { mut recipe, catalog, mut drives, .. } = load(shard, digest)?;
    request.session.clone_from(&recipe.session);
    (request.exports, request.what_fits) = (recipe.exported.is_some(), recipe.exported.is_some());
    let begun = files::read_journal(&request.journal).is_ok_and(|book| !book.ledger.sessions.is_empty());
    if begun {
        request.action = Action::Resume;
        return prepare::prepare_with(request, surroundings, roots, on_event);
    }
    request.action = Action::Copy;
    let mut problems = Problems::default();
    let Some((book, _)) = files::check_journal(&request, &mut problems) else { return Err(problems) };
    inputs::choose_logs(&mut request, &book.ledger, &mut problems);
    let cipher = resume::adopt(&mut request, &recipe)?;
    preflight::directories(&request, &mut problems);
    let (Some(saved), true) = (drives.pop(), drives.is_empty()) else {
        let what = "is no shard: it does not hold exactly one drive";
        return Err(Problem::new(Kind::Usage, what).path(shard).into());
    };
    let mut catalog = Arc::try_unwrap(catalog)
        .map_err(|_| Problem::new(Kind::Internal, "the catalog of a shard that was just read is in use"))?;
    let mut local = Vec::new();
    // Each request to an account says which version of a blob it is about.
    if recipe.exported.is_none() {
        problems.0.append(&mut sources(&mut catalog, &mut recipe.properties).0);
        local.extend(catalog.rows().iter().map(|row| row.base.clone()));
    }
    let catalog = Arc::new(catalog);

    let context =
        guard::Context { sources: local, journal: Some(request.journal.clone()), logs: Some(files::logdir(&request)) };
    let planner = Planner { recipe: &recipe, catalog: &catalog };
    let mut warnings = Vec::new();
    let search = Search { request: &request, shard, saved: &saved, planner, context: &context, roots, book: &book };
    let found = match saved.target.class() {
        None => search.planned(&mut warnings),
        // A drive is taken only when nothing else is in the way.
        Some(class) if problems.0.is_empty() => search.any(class, choice, &mut warnings),
        Some(_) => Err(Problems::default()),
    };
    let found = found.map_err(|more| problems.0.extend(more.0)).ok().filter(|_| problems.0.is_empty());
    let Some((target, layout)) = found else { return Err(problems) };
    let drive = planner.prepared(target, layout, saved.seed);
    let plan = Plan::new(recipe, catalog, Vec::new(), book.seen, 1);
    let planned = Planned { works: vec![Box::new(drive)], ..Planned::default() };
    let mut prepared = Prepared::new(request, cipher, surroundings, planned, context, plan, Vec::new(), warnings)?;
    if saved.target.class().is_some() {
        // Consent was given for drives of which one is written.
        prepared.bystanders.extend(choice.consented.iter().cloned());
    }
    Ok(prepared)
}

/// The search for the drive of a shard.
struct Search<'a> {
    request: &'a PrepRequest,
    shard: &'a Path,
    saved: &'a SavedDrive,
    planner: Planner<'a>,
    context: &'a guard::Context,
    roots: &'a Roots,
    book: &'a files::Book,
}

impl Search<'_> {
    /// The drive of a row, past all gates.
    fn look(
        &self,
        row: &DrivesetRow,
        ids: &[(String, String)],
        warnings: &mut Vec<Problem>,
    ) -> Result<TargetDrive, Problems> {
        let options = TargetOptions {
            driveset: self.shard,
            drive_ids: ids,
            ids_proved: false,
            image_sector: self.saved.target.sector,
            not_for_shipping: self.request.not_for_shipping,
            for_service: true,
            is_made_for: false,
            context: self.context,
            roots: self.roots,
        };
        let found = target::find(std::slice::from_ref(row), &options, warnings)?;
        let mut problems = Problems::default();
        inputs::refuse_foreign_records(&found, &self.book.ledger, &self.request.journal, &mut problems);
        problems.into_result()?;
        let target = found.into_iter().next();
        target.ok_or_else(|| Problem::new(Kind::Internal, "a row of a driveset names no drive").into())
    }

    fn lay_out(&self, target: &TargetDrive) -> Result<DriveLayout, DriveError> {
        self.planner.lay_out(target, &self.saved.assigned, self.saved.seed)
    }

    /// The drive that the plan names.
    fn planned(&self, warnings: &mut Vec<Problem>) -> Result<(TargetDrive, DriveLayout), Problems> {
        let planned = &self.saved.target;
        let mut ids = self.request.drive_ids.clone();
        if ids.is_empty() && has_own_id(planned) {
            ids.push((String::new(), planned.facts.drive_id.clone()));
        }
        let target = self.look(&row_of(planned), &ids, warnings)?;
        Problems(differences(planned, &target)).into_result()?;
        let layout = self.lay_out(&target).map_err(|error| {
            let problem = Problem::new(Kind::Internal, format!("the plan does not fit its own drive: {error}"));
            problem.drive(&target.facts.name)
        })?;
        Ok((target, layout))
    }

    /// The first drive of the class that is free.
    fn any(
        &self,
        class: SizeClass,
        choice: &mut Choice<'_>,
        warnings: &mut Vec<Problem>,
    ) -> Result<(TargetDrive, DriveLayout), Problems> {
        let mut passed = Vec::new();
        for name in &choice.candidates.clone() {
            let mut more = Vec::new();
            let reason = match self.free(name, class, choice, &mut more) {
                Err(reason) => reason,
                Ok((target, _)) if !(choice.take)(&target.facts)? => Passed::Taken,
                Ok(found) => {
                    warnings.append(&mut more);
                    return Ok(found);
                }
            };
            passed.push(format!("{name} {reason}"));
        }
        let what = format!("no attached drive is free for this shard, which wants one of {}", class.size);
        let advice = Advice::from(format!(
            "attach an empty drive of {} to {} with sectors of {} bytes; one that holds something is taken if ",
            class.size,
            ByteLen(class.size.0 / 10 * 11),
            class.sector.bytes()
        )) + Setting::Yes
            + " names it";
        let value = if passed.is_empty() { "none is attached".into() } else { passed.join("; ") };
        Err(Problem::new(Kind::Refused, what).value(value).advice(advice).into())
    }

    /// A drive that fits and is free, or the reason why it is passed over.
    fn free(
        &self,
        name: &str,
        class: SizeClass,
        choice: &Choice<'_>,
        warnings: &mut Vec<Problem>,
    ) -> Result<(TargetDrive, DriveLayout), Passed> {
        let row = DrivesetRow {
            line: 0,
            target: match name.strip_prefix("serial:") {
                Some(serial) => TargetName::Serial(serial.to_owned()),
                None if fs::metadata(name).is_ok_and(|meta| meta.is_file()) => {
                    TargetName::Image { path: PathBuf::from(name), size: None }
                }
                None => TargetName::Device(PathBuf::from(name)),
            },
            format: FormatOption::Format,
            prompt: FormatPrompt::PromptOnFormat,
            encryption: Encryption::Encrypt,
            existing_key: None,
        };
        let target = self.look(&row, &self.request.drive_ids, warnings).map_err(Passed::Refused)?;
        let facts = &target.facts;
        if !class.has(facts.size, target.sector) {
            return Err(Passed::OtherClass(facts.size, target.sector));
        }
        if (choice.is_taken)(facts) {
            return Err(Passed::Taken);
        }
        let is_named = |id: &String| *id == facts.drive_id || Some(id) == facts.serial.as_ref();
        if let Some(contents) = facts.contents.as_ref().filter(|_| !choice.consented.iter().any(is_named)) {
            return Err(Passed::Holds(contents.clone()));
        }
        let layout = self.lay_out(&target).map_err(Passed::Unfit)?;
        Ok((target, layout))
    }
}

/// Reason why a drive is not taken for a shard of a size class.
#[derive(Debug)]
enum Passed {
    Refused(Problems),
    OtherClass(ByteLen, SectorSize),
    Taken,
    Holds(String),
    Unfit(DriveError),
}

impl std::fmt::Display for Passed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(problems) => f.write_str(problems.0.first().map_or("is refused", |problem| &problem.what)),
            Self::OtherClass(size, sector) => write!(f, "has {size} in sectors of {} bytes", sector.bytes()),
            Self::Taken => f.write_str("is taken by another shard"),
            Self::Holds(contents) => write!(f, "holds {contents}"),
            Self::Unfit(error) => write!(f, "does not take the files: {error}"),
        }
    }
}

/// Reads a shard whose digest is known.
pub(super) fn load(shard: &Path, digest: &[u8; 32]) -> Result<SavedPlan, Problem> {
    let unusable = |error: io::Error| {
        Problem::new(Kind::Environment, format!("the shard cannot be used: {error}")).path(shard).advice(
            "nothing was changed; restore the file as the plan wrote it, or split the plan again into another directory",
        )
    };
    let len = fs::metadata(shard).map_err(unusable)?.len();
    plan_file::load(shard, Some(&PlanMark { len, digest: *digest })).map_err(unusable)
}

/// Whether the drive id does not follow from the drive: it was given by hand, or is that of an image file, whose path may
/// differ on another host.
fn has_own_id(planned: &TargetDrive) -> bool {
    let facts = &planned.facts;
    facts.serial.as_deref().map(names::drive_id_from_serial).as_deref() != Some(&facts.drive_id)
}

/// The drive as a row of a driveset names it: by what it reports itself, wherever it is attached.
fn row_of(planned: &TargetDrive) -> DrivesetRow {
    let facts = &planned.facts;
    let target = match &facts.serial {
        Some(serial) if !facts.is_image => TargetName::Serial(names::drive_id_from_serial(serial)),
        _ if facts.is_image => {
            let is_new = fs::metadata(&facts.path).map_or(true, |meta| meta.is_file() && meta.len() == 0);
            TargetName::Image { path: facts.path.clone(), size: is_new.then_some(facts.size) }
        }
        _ => TargetName::Device(facts.path.clone()),
    };
    DrivesetRow {
        line: 0,
        target,
        format: FormatOption::Format,
        prompt: if planned.silent { FormatPrompt::SilentMode } else { FormatPrompt::PromptOnFormat },
        encryption: Encryption::Encrypt,
        existing_key: None,
    }
}

/// Differences between the drive that was found and the planned one.
fn differences(planned: &TargetDrive, found: &TargetDrive) -> Vec<Problem> {
    let (was, is) = (&planned.facts, &found.facts);
    let mut all = Vec::new();
    let mut differs = |what: &str, was: String, is: String| {
        if was != is {
            let problem = Problem::new(Kind::Refused, format!("is not the drive of the shard: its {what} differs"));
            let problem = problem.drive(&found.facts.name).value(format!("planned for {was}, found {is}"));
            all.push(problem.advice("attach the drive that the plan names, or plan again with this one"));
        }
    };
    differs("drive id", was.drive_id.clone(), is.drive_id.clone());
    differs("size", format!("{} bytes", was.size.0), format!("{} bytes", is.size.0));
    differs("sector size", was.sector.to_string(), is.sector.to_string());
    if let (Some(planned), Some(found)) = (&planned.identity, &found.identity)
        && let Some(change) = planned.change_to(found)
        && all.is_empty()
    {
        let problem = Problem::new(Kind::Refused, format!("is not the drive of the shard: {change}")).drive(&is.name);
        all.push(problem.advice("attach the drive that the plan names, or plan again with this one"));
    }
    all
}

/// Holds the sources of this host against the plan: length and time of modification. The time of the last status change
/// is this host's, and taken over.
fn sources(catalog: &mut Catalog, properties: &mut [PropertyFile]) -> Problems {
    let mut problems = Problems::default();
    let mut different = 0u64;
    let mut check = |path: PathBuf, len: ByteLen, mtime: Stamp| {
        let what = match fs::symlink_metadata(&path) {
            Err(error) => format!("cannot be read on this host: {error}"),
            Ok(meta) if !meta.is_file() => "is no file on this host".into(),
            Ok(meta) => {
                let now = FileFacts::from_metadata(&meta);
                let planned = FileFacts { len: len.0, mtime, ctime: now.ctime, dev: 0, ino: 0 };
                match now.change_since(&planned) {
                    None => return Some(now.ctime),
                    Some(change) => format!("is not as it was planned: {change}"),
                }
            }
        };
        different += 1;
        if different <= DIFFERENT_LISTED_MAX {
            problems.push(Problem::new(Kind::Source, what).path(path));
        }
        None
    };
    let files = (0..).zip(catalog.files());
    let now: Vec<Option<Stamp>> =
        files.map(|(number, file)| check(catalog.source_path(number), file.len, file.mtime)).collect();
    for file in properties {
        file.ctime = check(file.source.clone(), file.len, file.mtime).unwrap_or(file.ctime);
    }
    if different > 0 {
        let what = format!("{} not on this host as in the plan", counted(different, "source"));
        let problem = Problem::new(Kind::Source, what);
        problems.push(problem.advice("mount the sources as on the host that planned, or plan again"));
    }
    catalog.set_status_changes(|number, _| now.get(number as usize).copied().flatten());
    problems
}

/// Snapshots that were taken of blobs in use for the shard of an export: `container/name` and time. They can go when its
/// drive is finished.
///
/// # Errors
/// The shard cannot be read, or is another one.
pub fn snapshots(shard: &Path, digest: &[u8; 32]) -> Result<Vec<(String, String)>, Problem> {
    let exported = load(shard, digest)?.recipe.exported;
    let taken = exported.iter().flat_map(|exported| exported.taken());
    Ok(taken.map(|(path, time)| (path.to_owned(), time.to_owned())).collect())
}

/// A shard whose drive may be finished, for [`merge`].
#[derive(Clone, Debug)]
pub struct Part {
    /// Index of the drive in the plan.
    pub place: u64,
    /// Its drive id.
    pub drive_id: String,
    /// The shard's own journal.
    pub journal: PathBuf,
}

/// Result of gathering shards.
#[derive(Clone, Debug, Default)]
pub struct Merged {
    /// Drive ids that this call added.
    pub added: Vec<String>,
    /// Drive ids that the journal held already.
    pub known: Vec<String>,
    /// Drive ids that are not finished, each with the reason.
    pub missing: Vec<(String, String)>,
    /// Drive records next to the journal, in the order of the plan.
    pub records: Vec<PathBuf>,
}

/// Gathers the finished drives of a plan in one journal, with their drive records next to it. May be repeated: drives
/// that the journal holds are passed over. The session is complete once all parts are.
///
/// # Errors
/// The journal belongs to other sessions that are unfinished, a record of the same name holds something else, or files
/// cannot be read or written.
pub fn merge(session: &str, journal: &Path, parts: &[Part]) -> Result<Merged, Problems> {
    let mut merged = Merged::default();
    let mut problems = Problems::default();
    let before = files::read_journal(journal)?;
    if !before.damage.is_empty() {
        return Err(Problems(before.damage));
    }
    let own = session_of(&before, session, journal)?;
    let dir = journal_dir(journal);
    let mut to_add = Vec::new();
    for part in parts {
        match finished(session, part) {
            Err(why) => merged.missing.push((part.drive_id.clone(), why.to_string())),
            Ok(drive) => {
                let from = journal_dir(&part.journal).join(&drive.record_file);
                let to = dir.join(&drive.record_file);
                match held(&from, &to) {
                    Err(problem) => problems.push(problem),
                    Ok(record) => to_add.push((part, drive, to, record)),
                }
            }
        }
    }
    std::mem::take(&mut problems).into_result()?;
    let is_whole = merged.missing.is_empty() && !parts.is_empty();
    let known = |id: &str, hash: Option<&str>| {
        let drive = own.and_then(|own| own.drive(id));
        drive.filter(|drive| drive.state == SessionState::Completed).map(|drive| drive.manifest_hash.as_deref() == hash)
    };
    for (part, drive, ..) in &to_add {
        if known(&part.drive_id, drive.manifest_hash.as_deref()) == Some(false) {
            let problem = Problem::new(Kind::Refused, "the journal holds this drive with another manifest");
            let problem = problem.path(journal).value(part.drive_id.clone());
            problems.push(problem.advice("merge into another journal"));
        }
    }
    problems.into_result()?;
    let is_complete = own.is_some_and(|own| own.state == SessionState::Completed);
    let file = if to_add.is_empty() { None } else { Some(JournalFile::open_seen(journal, &before.seen)?) };
    let mut has_begun = own.is_some();
    for (part, drive, to, record) in to_add {
        if let Some(bytes) = record {
            crate::journal::records::write_private(&to, &bytes)?;
        }
        merged.records.push(to);
        if known(&part.drive_id, drive.manifest_hash.as_deref()).is_some() {
            merged.known.push(part.drive_id.clone());
            continue;
        }
        let Some(file) = &file else { continue };
        gather_export(session, journal, part)?;
        if !has_begun {
            file.append(&ActivityRecord::Session { id: session, state: SessionState::Started, plan: None })?;
            has_begun = true;
        }
        file.append(&ActivityRecord::Drive {
            session,
            drive_id: &part.drive_id,
            state: SessionState::Completed,
            record_file: &drive.record_file,
            work: Work::Format,
            details: DriveDetails {
                name: drive.name.as_deref(),
                size: drive.size,
                for_shipping: drive.for_shipping,
                files: drive.files,
                data: drive.data,
                manifest_hash: drive.manifest_hash.as_deref(),
                manifest_file: drive.manifest_file.as_deref(),
                key_check: drive.key_check.as_deref(),
                place: Some(part.place),
            },
        })?;
        merged.added.push(part.drive_id.clone());
    }
    if let (Some(file), true, false) = (&file, is_whole, is_complete) {
        file.append(&ActivityRecord::Session { id: session, state: SessionState::Completed, plan: None })?;
    }
    Ok(merged)
}

/// The session in the journal, if it is there: nothing else of the journal may be unfinished, or come after it.
fn session_of<'a>(before: &'a files::Book, session: &str, journal: &Path) -> Result<Option<&'a CopySession>, Problem> {
    let own = before.ledger.sessions.iter().find(|one| one.id == session && one.state != SessionState::Aborted);
    let unfinished = before.ledger.unfinished().filter(|one| one.id != session);
    if let Some(other) = unfinished {
        let what = format!("session {} of the journal is unfinished", other.id);
        let problem = Problem::new(Kind::Usage, what).path(journal);
        let advice = Advice::from("finish it with ") + Setting::Resume + " or " + Setting::Abort;
        return Err(problem.advice(advice + ", or merge into another journal"));
    }
    if own.is_some() && before.ledger.last().is_none_or(|last| last.id != session) {
        let what = format!("session {session} is in the journal, and not its last one");
        return Err(Problem::new(Kind::Usage, what).path(journal).advice("merge into another journal"));
    }
    if own.is_some_and(|own| own.plan.is_some()) {
        let what = format!("session {session} of the journal was prepared without shards");
        return Err(Problem::new(Kind::Usage, what).path(journal).advice("merge into another journal"));
    }
    Ok(own)
}

/// Puts what the copy logs of an export are made of next to the journal, before this lists the drive: its manifest, and
/// what became of its blobs.
fn gather_export(session: &str, journal: &Path, part: &Part) -> Result<(), Problem> {
    let blobs = exported::place(&part.journal, session, &part.drive_id);
    if !blobs.exists() {
        return Ok(());
    }
    let manifest = kept::place(&part.journal, &part.drive_id);
    for (from, to) in
        [(manifest, kept::place(journal, &part.drive_id)), (blobs, exported::place(journal, session, &part.drive_id))]
    {
        let failed = |error: io::Error| {
            let what = format!("cannot be copied next to the journal: {error}");
            Problem::new(Kind::Environment, what).path(&from).advice("make room on the journal's disk, and merge again")
        };
        // Whole or not at all: a name without its end would be taken for it.
        let draft = to.with_extension("draft");
        fs::copy(&from, &draft).and_then(|_| File::open(&draft)?.sync_all()).map_err(failed)?;
        fs::rename(&draft, &to).and_then(|()| files::sync_dir(&to)).map_err(failed)?;
    }
    Ok(())
}

/// Durable part of a drive at its last checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    /// Modification time of the checkpoint's file.
    pub at: SystemTime,
    /// End of the durable part; the drive is written in ascending order.
    pub end: DeviceOffset,
}

/// Reads the checkpoint of an unfinished shard; `None` without one, or with one that another version wrote.
pub fn durable(session: &str, journal: &Path, drive_id: &str) -> Option<Durable> {
    let path = files::sidecar(journal, session, files::Sidecar::Checkpoint(drive_id));
    let bytes = input::read(&path, checkpoint::LEN as u64, Pipes::Refused).ok()?;
    let checkpoint = Checkpoint::decode(&bytes).ok()?;
    let at = fs::metadata(&path).ok()?.modified().ok()?;
    Some(Durable { at, end: checkpoint.format()?.end })
}

/// Reason why a part of a plan is not finished.
#[derive(Debug, thiserror::Error)]
enum NotFinished {
    #[error("was not begun")]
    NotBegun,
    #[error("{}", .0.what)]
    Unreadable(Problem),
    #[error("its journal is damaged")]
    Damaged,
    #[error("its journal holds another session")]
    OtherSession,
    #[error("is not finished")]
    Open,
}

/// The finished drive of a part, as its own journal has it.
fn finished(session: &str, part: &Part) -> Result<SessionDrive, NotFinished> {
    if !part.journal.exists() {
        return Err(NotFinished::NotBegun);
    }
    let book = files::read_journal(&part.journal).map_err(NotFinished::Unreadable)?;
    if !book.damage.is_empty() {
        return Err(NotFinished::Damaged);
    }
    let own = book.ledger.last().filter(|last| last.id == session).ok_or(NotFinished::OtherSession)?;
    let drive = own.drive(&part.drive_id).ok_or(NotFinished::NotBegun)?;
    match (own.state, drive.state) {
        (SessionState::Completed, SessionState::Completed) => Ok(drive.clone()),
        _ => Err(NotFinished::Open),
    }
}

/// The record to copy; `None` when it is there already.
fn held(from: &Path, to: &Path) -> Result<Option<zeroize::Zeroizing<Vec<u8>>>, Problem> {
    let record = input::read(from, INPUT_FILE_MAX, Pipes::Refused).map_err(|error| {
        let problem = Problem::new(Kind::Environment, format!("the drive record cannot be read: {error}")).path(from);
        problem.advice("merge on the host that holds it, or bring it to this path")
    })?;
    match File::open(to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(record)),
        _ => {
            let other = input::read(to, INPUT_FILE_MAX, Pipes::Refused).ok();
            if other.is_some_and(|other| *other == *record) {
                return Ok(None);
            }
            let problem = Problem::new(Kind::Refused, "another file has the name of the drive record").path(to);
            Err(problem.advice("merge into a journal in another directory"))
        }
    }
}

/// Whether a drive of a plan can be reached on this host: hardware by its serial, an image by the directory of its file.
pub fn is_here(drive: &DriveFacts) -> bool {
    match &drive.serial {
        Some(serial) if !drive.is_image => {
            let name = format!("serial:{}", names::drive_id_from_serial(serial));
            crate::device::resolve(&name, &Roots::default()).is_ok()
        }
        _ if drive.is_image => drive.path.parent().is_some_and(Path::is_dir),
        _ => drive.path.exists(),
    }
}
