//! A copy session: preflight without any write, then all drives at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::azure::dataset::{self, Dataset, DatasetRow, Disposition};
use crate::azure::driveset::{self, Driveset};
use crate::azure::journal::Work;
use crate::azure::ledger::NextAction;
use crate::azure::names;
use crate::crypt::Cipher;
use crate::crypt::secret::Key32;
use crate::dataset::own::Own;
use crate::dataset::property_files::PropertyFiles;
use crate::dataset::scan::{self, Of, Scan};
use crate::device::{Roots, guard};
use crate::entropy::{Entropy, Seeded};
use crate::journal::files::{self, Book};
use crate::plan::account::Exported;
use crate::plan::catalog::{Builder, Catalog};
use crate::report::{Advice, Event, Kind, Problem, Problems, Setting};
use crate::request::{Action, PrepRequest, SizeClass};
use crate::session::inputs::{
    COMMAND_LINE, choose_logs, driveset_of, gather, places, read_csv, recipe_of, refuse_foreign_records, refuse_known,
    stand_in,
};
use crate::session::planning::{Planned, Target};
use crate::session::prepared::{Plan, Prepared};
use crate::session::{estimate, preflight, resume};
use crate::surroundings::Surroundings;
use crate::units::{ByteLen, ClusterSize, SectorSize};
use crate::work::append::drive as there;
use crate::work::append::earlier::Session as Earlier;
use crate::work::append::existing::ExistingVolume;
use crate::work::append::index;
use crate::work::planner::Planner;
use crate::work::recipe::Recipe;
use crate::work::target::{self, TargetOptions};
use crate::work::{keys, list};

/// The complete preflight with the kernel's randomness and the system's clock.
///
/// # Errors
/// All problems that can be found before the first write.
pub fn prepare(request: PrepRequest, on_event: &mut dyn FnMut(Event)) -> Result<Prepared, Problems> {
    prepare_with(request, Surroundings::real(), &Roots::default(), on_event)
}

/// The files of an export, as the listing of the account has them.
#[derive(Debug)]
pub struct Listed {
    /// Files of the drives, from [`Builder::seal_export`].
    pub catalog: Catalog,
    /// The account's facts about each.
    pub exported: Exported,
}

/// As [`prepare`], for an export; `listed` is `None` when a session is resumed, whose plan has the listing.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_export(
    request: PrepRequest,
    listed: Option<Listed>,
    on_event: &mut dyn FnMut(Event),
) -> Result<Prepared, Problems> {
    let request = PrepRequest { exports: true, what_fits: true, ..request };
    prepare_listed(request, listed, Surroundings::real(), &Roots::default(), on_event)
}

/// As [`prepare`], with randomness, time and the kernel's views given.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_with(
    request: PrepRequest,
    surroundings: Surroundings,
    roots: &Roots,
    on_event: &mut dyn FnMut(Event),
) -> Result<Prepared, Problems> {
    prepare_listed(request, None, surroundings, roots, on_event)
}

fn prepare_listed(
    mut request: PrepRequest,
    listed: Option<Listed>,
    mut surroundings: Surroundings,
    roots: &Roots,
    on_event: &mut dyn FnMut(Event),
) -> Result<Prepared, Problems> {
    let mut problems = request.check();
    let Opening { book, next, knows_drives } = open_journal(&mut request, &mut problems)?;
    match next {
        NextAction::Resume => {
            problems.into_result()?;
            return resume::prepare(request, &book, surroundings, roots, on_event);
        }
        NextAction::Abort => {
            problems.push(Problem::new(Kind::Internal, "rolling back is no preparing"));
            return Err(problems);
        }
        NextAction::Begin => {}
    }
    let inputs = Inputs::read(&mut request, &book, &mut problems);
    let mut first = First { request, book, knows_drives, inputs, roots, problems, warnings: Vec::new() };
    let context = first.context();
    let found = first.find(&context);
    if first.request.action == Action::SkipWrite {
        return first.index(found, context, surroundings);
    }
    let scanned = first.scan(found.as_deref().unwrap_or_default(), listed, on_event);
    let First { request, book, inputs, mut problems, mut warnings, .. } = first;
    // The missing parts have been reported above.
    let (Some(cipher), Some(dataset), Some(found), Some(scanned)) = (inputs.cipher, inputs.dataset, found, scanned)
    else {
        problems.into_result()?;
        return Err(Problem::new(Kind::Internal, "preflight found nothing wrong and yet has no plan").into());
    };
    let catalog = Arc::new(scanned.scan.catalog);
    let recipe = recipe_of(&request, &dataset.rows, scanned.sides, surroundings.now);
    let recipe = Recipe { exported: scanned.exported, ..recipe };
    warnings.extend(disposition_in_vain(&request, &recipe, &dataset.rows));
    warnings.extend(doubled(&found, &catalog, &dataset.rows));
    let planner = Planner { recipe: &recipe, catalog: &catalog };
    let all: Vec<u32> = (0..catalog.files().len() as u32).collect();
    let planned = match request.any_drive_of {
        None => planner.plan_drives(&all, found, &mut *surroundings.entropy, request.what_fits),
        Some(class) => drives_of_class(&planner, &all, class, &mut *surroundings.entropy),
    };
    if !problems.0.is_empty() {
        // Drives too small for the valid rows are too small for all of them; an incomplete driveset proves nothing.
        problems.0.extend(planned.err().filter(|_| inputs.sound_drives).unwrap_or_default().0);
        return Err(problems);
    }
    let planned = planned?;
    let beside = ByteLen(planned.works.iter().map(|work| work.room_beside().0).sum());
    if let Some(problem) = files::room_beside(&request.journal, beside) {
        return Err(problem.into());
    }
    warnings.extend(earlier_files(&planned, inputs.is_on_known));
    let plan = Plan::new(recipe, catalog, planned.unplaced.clone(), book.seen, planned.works.len());
    let skipped = scanned.scan.skipped;
    let mut prepared = Prepared::new(request, cipher, surroundings, planned, context, plan, skipped, warnings)?;
    shorten_ids(&mut prepared);
    Ok(Prepared { user_password: inputs.user_password, ..prepared })
}

/// What the journal says to do.
struct Opening {
    book: Book,
    next: NextAction,
    /// Whether the journal could be read, so that its drives are known.
    knows_drives: bool,
}

/// Reads the journal, and tries the places that are written to later.
fn open_journal(request: &mut PrepRequest, problems: &mut Problems) -> Result<Opening, Problems> {
    let checked = files::check_journal(request, problems);
    let knows_drives = checked.is_some();
    let (book, next) = match checked {
        Some(found) => found,
        // Where drives were named, their problems are reported too.
        None if request.action == Action::Copy && names_drives(request) => (Book::default(), NextAction::Begin),
        None => return Err(std::mem::take(problems)),
    };
    choose_logs(request, &book.ledger, problems);
    preflight::directories(request, problems);
    // Begun anew when the plan is ready: what is wrong with its place is reported with all else.
    problems.0.extend(list::begin(request).err());
    Ok(Opening { book, next, knows_drives })
}

/// Warnings of drives whose manifest has files of earlier sessions that this journal does not know.
fn earlier_files(planned: &Planned, is_on_known: bool) -> impl Iterator<Item = Problem> {
    let earlier = planned.works.iter().filter(move |work| !is_on_known && work.earlier_manifest().is_some());
    earlier.map(|work| {
        let what = "its manifest lists files of earlier sessions, which stay in it and would be imported too";
        Problem::new(Kind::Usage, what).drive(&work.target().facts.name)
    })
}

/// Gives the drives of a size class short ids for display: their long ones only keep room.
fn shorten_ids(prepared: &mut Prepared) {
    if prepared.request.any_drive_of.is_some() {
        (1..).zip(&mut prepared.summary.drives).for_each(|(n, plan)| plan.drive.drive_id = format!("any-{n}"));
    }
}

fn names_drives(request: &PrepRequest) -> bool {
    request.drive.is_some()
        || request.initial_driveset.is_some()
        || request.additional_driveset.is_some()
        || plans_for_unattached(request)
}

fn plans_for_unattached(request: &PrepRequest) -> bool {
    !request.absent.is_empty() || request.any_drive_of.is_some()
}

/// Inputs of a first session; `None` for what could not be read.
struct Inputs {
    cipher: Option<Cipher>,
    image_sector: Option<SectorSize>,
    /// Path of the driveset, for messages.
    driveset_path: PathBuf,
    driveset: Option<Driveset>,
    dataset: Option<Dataset>,
    user_password: Option<Key32>,
    /// Whether the drives are the finished ones of the journal.
    is_on_known: bool,
    /// Whether the driveset has no problem.
    sound_drives: bool,
}

impl Inputs {
    fn read(request: &mut PrepRequest, book: &Book, problems: &mut Problems) -> Self {
        let line = Path::new(COMMAND_LINE);
        let (set_path, set_flag) = match (&request.initial_driveset, &request.additional_driveset) {
            (None, Some(path)) => (Some(path.clone()), Setting::AdditionalDriveset),
            (initial, _) => (initial.clone(), Setting::InitialDriveset),
        };
        let is_on_known = !names_drives(request) && !book.ledger.finished_drives().is_empty();
        let cipher = cipher_of(request, problems);
        let mut image_sector = sector_of(request, problems);
        let mut driveset = match &request.drive {
            None if is_on_known || set_path.is_none() && plans_for_unattached(request) => Some(Driveset::default()),
            Some(drive) => driveset_of(drive, request.drive_key_file.as_deref(), problems),
            None => read_csv(set_path.as_deref(), set_flag, problems, driveset::parse_into),
        };
        if let Some(drive) = &request.made_for {
            image_sector = Some(drive.sector);
            if let Some(set) = &mut driveset {
                problems.0.extend(stand_in(drive, set));
                request.drive_ids = vec![(String::new(), names::drive_id_from_serial(&drive.serial))];
            }
        }
        let sound_drives = problems.0.is_empty();
        let password_file = request.windows.as_ref().and_then(|windows| windows.password_file.as_deref());
        let user_password =
            password_file.and_then(|path| gather(problems, keys::user_password(path).map_err(Problems::from)));
        // Drives alone: they end empty and complete.
        let has_no_rows =
            request.source.is_none() && request.dataset.is_none() && request.additional_driveset.is_some();
        let dataset = match &request.source {
            _ if request.windows.is_some() || request.exports || has_no_rows => Some(Dataset::default()),
            Some(source) => Some(source.read(line, problems)),
            None => read_csv(request.dataset.as_deref(), Setting::Dataset, problems, dataset::parse_into),
        };
        let driveset_path = set_path.unwrap_or_else(|| line.to_owned());
        Self { cipher, image_sector, driveset_path, driveset, dataset, user_password, is_on_known, sound_drives }
    }
}

fn cipher_of(request: &PrepRequest, problems: &mut Problems) -> Option<Cipher> {
    let cipher = Cipher::from_name(&request.cipher).filter(|cipher| !cipher.has_diffuser());
    if cipher.is_none() {
        let problem = Problem::new(Kind::Usage, "unknown cipher").value(request.cipher.clone());
        problems.push(problem.advice("one of aes-cbc-256, aes-cbc-128, xts-aes-128, xts-aes-256"));
    }
    if let Some(size) = request.cluster_size
        && ClusterSize::from_bytes(size).is_none()
    {
        let problem = Problem::new(Kind::Usage, "is no cluster size").value(size.to_string());
        problems.push(problem.setting(Setting::ClusterSize).advice("a power of two from 512 to 2097152"));
    }
    cipher
}

/// Sector size of images that the session makes.
fn sector_of(request: &PrepRequest, problems: &mut Problems) -> Option<SectorSize> {
    let sector = request.sector_size.map_or(Some(SectorSize::S512), SectorSize::from_bytes);
    if sector.is_none() {
        let value = request.sector_size.unwrap_or_default().to_string();
        problems.push(Problem::new(Kind::Usage, "is no sector size").value(value).advice("512 or 4096"));
    }
    sector
}

/// The preflight of a first session, while problems and warnings are gathered.
struct First<'a> {
    request: PrepRequest,
    book: Book,
    /// Whether the journal could be read.
    knows_drives: bool,
    inputs: Inputs,
    roots: &'a Roots,
    problems: Problems,
    warnings: Vec<Problem>,
}

/// Files of a session, as they were found.
struct Scanned {
    sides: PropertyFiles,
    scan: Scan,
    exported: Option<Arc<Exported>>,
}

impl First<'_> {
    fn rows(&self) -> &[DatasetRow] {
        self.inputs.dataset.as_ref().map_or(&[], |dataset| &dataset.rows)
    }

    /// What must not be on a drive. Warns of oddities in the inputs.
    fn context(&mut self) -> guard::Context {
        let Inputs { driveset, dataset, .. } = &self.inputs;
        self.warnings.extend(driveset.iter().flat_map(|driveset| driveset.warnings.iter().cloned()));
        self.warnings.extend(dataset.iter().flat_map(|dataset| dataset.warnings.iter().cloned()));
        let sources = match self.request.action {
            // The sources of an index are on the drive itself.
            Action::SkipWrite => Vec::new(),
            _ => {
                let tree = self.request.windows.as_ref().and_then(|windows| windows.from.clone());
                self.rows().iter().map(|row| row.base_path.clone()).chain(tree).collect()
            }
        };
        let journal = Some(self.request.journal.clone());
        guard::Context { sources, journal, logs: Some(files::logdir(&self.request)) }
    }

    /// The drives of the driveset, or the finished ones of the journal.
    fn find(&mut self, context: &guard::Context) -> Option<Vec<Target>> {
        let Self { request, book, inputs, problems, warnings, .. } = self;
        let options = TargetOptions {
            driveset: &inputs.driveset_path,
            drive_ids: &request.drive_ids,
            ids_proved: false,
            image_sector: inputs.image_sector.unwrap_or(SectorSize::S512),
            not_for_shipping: request.not_for_shipping,
            for_service: request.windows.is_none(),
            is_made_for: request.made_for.is_some(),
            context,
            roots: self.roots,
        };
        let found = if inputs.is_on_known {
            let there = there::of_journal(&request.journal, &book.ledger, &options, warnings, problems);
            let found: Vec<Target> = there.into_iter().map(|there| Target::Existing(Box::new(there))).collect();
            Some(found).filter(|found| !found.is_empty())
        } else {
            // A wrong row must not hide the problems of others.
            let rows = inputs.driveset.as_ref().map_or(&[][..], |driveset| &driveset.rows);
            let found = gather(problems, target::find(rows, &options, warnings));
            if let Some(found) = &found {
                refuse_known(found, &book.ledger, &[], (&request.journal, &inputs.driveset_path), problems);
                if self.knows_drives {
                    refuse_foreign_records(found, &book.ledger, &request.journal, problems);
                }
            }
            found.map(|found| {
                let mut places = places(found, self.roots, problems);
                places.extend(request.absent.iter().map(|drive| Target::Blank(Box::new(target::absent(drive)))));
                places
            })
        };
        if request.exports {
            refuse_existing(found.as_deref().unwrap_or_default(), problems);
        }
        found
    }

    /// The files of the sources, or those of an account.
    fn scan(&mut self, found: &[Target], listed: Option<Listed>, on_event: &mut dyn FnMut(Event)) -> Option<Scanned> {
        let dataset_path = self.request.dataset.clone().unwrap_or_else(|| COMMAND_LINE.into());
        let root_units = 1 + self.request.session.encode_utf16().count();
        let drives = found.iter().map(Target::target);
        let drives = drives.map(|target| (&*target.facts.drive_id, &*target.facts.path));
        let own = Own::gather(&self.request, &self.book.ledger, self.inputs.driveset.as_ref(), drives);
        let Self { request, inputs, problems, warnings, .. } = self;
        let (sides, scan, exported) = match (&request.windows, listed) {
            (None, Some(listed)) => {
                (PropertyFiles::default(), Some(Scan::of(listed.catalog)), Some(Arc::new(listed.exported)))
            }
            (Some(windows), _) => {
                let mut scan = scan::tree(windows.from.as_deref(), &own, &request.selection, problems, on_event);
                warnings.extend(scan.iter_mut().flat_map(|scan| std::mem::take(&mut scan.warnings)));
                (PropertyFiles::default(), scan, None)
            }
            (None, None) => {
                let rows = inputs.dataset.as_ref().map_or(&[][..], |dataset| &dataset.rows);
                let (sets, selection) = (request.sets(), &request.selection);
                let of = Of { dataset: &dataset_path, rows, root_units, sets, own: &own, selection };
                let (sides, scan) = scan::sources(&of, problems, warnings, on_event);
                (sides, scan, None)
            }
        };
        scan.map(|scan| Scanned { sides, scan, exported })
    }

    /// The rest of preflight where files are already on a drive.
    fn index(
        self,
        found: Option<Vec<Target>>,
        context: guard::Context,
        surroundings: Surroundings,
    ) -> Result<Prepared, Problems> {
        let Self { request, book, inputs, mut problems, mut warnings, .. } = self;
        let found = found.filter(|_| problems.0.is_empty());
        let there = one_to_index(found.unwrap_or_default(), &mut problems);
        let name = there.as_ref().map_or("", |there| &there.target.facts.name);
        let dataset = request.dataset.as_deref().unwrap_or(Path::new(COMMAND_LINE));
        let rows = inputs.dataset.as_ref().map_or(&[][..], |dataset| &dataset.rows);
        let rows = index::rows(dataset, rows, name, &mut problems);
        problems.into_result()?;
        let Some(mut there) = there else {
            return Err(Problem::new(Kind::Internal, "preflight found nothing wrong and yet has no drive").into());
        };
        there.target.work = Work::Index;
        let catalog = Builder::new().seal(1);
        let catalog = catalog.map_err(|_| Problem::new(Kind::Internal, "nothing is twice in nothing"))?;
        let catalog = Arc::new(catalog);
        let recipe = Recipe::of_index(&request, surroundings.now);
        let (drive, skipped, reported) = Planner { recipe: &recipe, catalog: &catalog }.index(&there, &rows)?;
        let cipher = there.opened.unlocked.as_ref().map_or(Cipher::AesCbc256, |unlocked| unlocked.cipher);
        // Its paths are not of this machine.
        warnings.retain(|warning| warning.place.column.as_deref() != Some("BasePath"));
        warnings.extend(reported);
        let (files, data) = (drive.plan.files, drive.plan.data);
        let plan = Plan::new(recipe, catalog, Vec::new(), book.seen, 1);
        let planned = Planned { works: vec![Box::new(drive)], ..Planned::default() };
        let mut prepared = Prepared::new(request, cipher, surroundings, planned, context, plan, skipped, warnings)?;
        (prepared.summary.files, prepared.summary.data) = (files, data);
        Ok(prepared)
    }
}

/// The one drive whose files are indexed.
fn one_to_index(mut found: Vec<Target>, problems: &mut Problems) -> Option<Box<ExistingVolume>> {
    let there = match (found.pop(), found.is_empty()) {
        (Some(Target::Existing(there)), true) => there,
        (None, _) => return None,
        _ => {
            let problem = Problem::new(Kind::Usage, "indexing takes one drive, whose volume stays");
            problems.push(problem.advice("name one drive, with AlreadyFormatted and AlreadyEncrypted"));
            return None;
        }
    };
    if there.target.work == Work::Encrypt {
        let problem = Problem::new(Kind::Usage, "indexing does not encrypt the volume that it reads")
            .drive(&there.target.facts.name)
            .value("Encrypt");
        problems.push(problem.advice(
            Advice::from("first encrypt it, by a session with ")
                + Setting::AdditionalDriveset
                + " and no "
                + Setting::Dataset
                + "; then index it with a new id, as a drive of the journal or with AlreadyEncrypted",
        ));
    }
    Some(there)
}

/// Warns of dispositions that the service does not heed any more.
fn disposition_in_vain(request: &PrepRequest, recipe: &Recipe, rows: &[DatasetRow]) -> Option<Problem> {
    let mut rows = recipe.rows.iter().zip(rows);
    let said = rows.find(|(rule, row)| {
        rule.disposition != Disposition::Overwrite && (row.says_disposition || request.disposition.is_some())
    });
    said.map(|(rule, _)| overwritten(rule.disposition))
}

/// The fewest drives of a size class that hold all files.
fn drives_of_class(
    planner: &Planner<'_>,
    all: &[u32],
    class: SizeClass,
    entropy: &mut dyn Entropy,
) -> Result<Planned, Problems> {
    // One draw for all tries: their number follows from the files.
    let mut seed = [0; 8];
    entropy.fill(&mut seed);
    let seed = u64::from_le_bytes(seed);
    let drive = |number| Target::Blank(Box::new(target::any(number, class)));
    estimate::fewest(planner, all, class.size, &mut || Box::new(Seeded::new(seed)), &drive)
}

/// Refuses drives whose volume would be kept: an export fills new ones.
fn refuse_existing(found: &[Target], problems: &mut Problems) {
    for target in found {
        if let Target::Existing(there) = target {
            let problem = Problem::new(Kind::Usage, "an export is not added to a volume that exists");
            let problem = problem.drive(&there.target.facts.name).value(there.target.work.as_str());
            problems.push(problem.advice("write Format and Encrypt in its row of the driveset, or name a new drive"));
        }
    }
}

/// Warning about the service's present treatment of blobs that exist (docs/spec/import-export.md#overview).
fn overwritten(said: Disposition) -> Problem {
    let what = format!(
        "since its tools 1.5.0.300 and 2.2.0.300 the service overwrites blobs that exist; Disposition {said} is in the manifest, \
         but the service may ignore it"
    );
    Problem::new(Kind::Usage, what).advice(
        Advice::from("where blobs of the same names may exist, import into a new container; ")
            + Setting::Disposition
            + " overwrite says so for all rows",
    )
}

/// Warnings of blobs that drives' manifests list already.
fn doubled(found: &[Target], catalog: &Catalog, rows: &[DatasetRow]) -> Vec<Problem> {
    let mut session = Earlier::default();
    let mut warnings = Vec::new();
    for place in found {
        let Target::Existing(there) = place else { continue };
        if session.is_empty() {
            let mut path = String::new();
            for (index, file) in (0..).zip(catalog.files()) {
                catalog.blob_path(index, &mut path);
                let row = rows.get(file.row as usize);
                session.add(&path, row.map_or_else(Disposition::default, |row| row.disposition));
            }
        }
        warnings.extend(session.doubled(there));
    }
    warnings
}
