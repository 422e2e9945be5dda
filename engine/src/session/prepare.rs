//! A copy session: preflight without any write, then all drives at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::azure::SecretText;
use crate::azure::dataset::{self, Dataset, DatasetRow, Disposition};
use crate::azure::driveset::{self, Driveset, NO_PASSWORD, TargetName};
use crate::azure::journal::{SessionState, Work};
use crate::azure::ledger::{self, Ledger, NextAction, SessionDrive};
use crate::azure::names;
use crate::checkpoint::Prefix;
use crate::crypt::Cipher;
use crate::crypt::printed;
use crate::crypt::secret::Key32;
use crate::dataset::own::Own;
use crate::dataset::property_files::PropertyFiles;
use crate::dataset::scan::{self, Of, Scan};
use crate::device::{Node, Roots, guard};
use crate::files::input::{self, Pipes};
use crate::files::output::Output;
use crate::io::is_shortage;
use crate::journal::files::{self, Book};
use crate::journal::records;
use crate::limits::INPUT_FILE_MAX;
use crate::plan::account::Exported;
use crate::plan::catalog::{Builder, Catalog};
use crate::plan::tree::FileKind;
use crate::report::{Event, Kind, PlanSummary, Problem, Problems, Skipped, counted};
use crate::request::{AbsentDrive, Action, PrepRequest};
use crate::session::plan_file::Recipe;
use crate::session::planning::{self, Planned, Planner, PreparedDrive, Target};
use crate::session::preflight;
use crate::session::resume;
use crate::surroundings::Surroundings;
use crate::text;
use crate::units::{ByteLen, ClusterSize, FileTime, SectorSize};
use crate::work::append::drive::{self as there, AppendDrive, ExistingVolume};
use crate::work::append::earlier::Session as Earlier;
use crate::work::append::index;
use crate::work::keys;
use crate::work::list;
use crate::work::manifest::RowRules;
use crate::work::target::{self, TargetDrive, TargetOptions};

/// Path in messages for rows given on the command line.
pub(super) const COMMAND_LINE: &str = "the command line";

/// Longest file with one key.
const KEY_FILE_MAX: u64 = 64 << 10;

/// Header lines for such rows.
const DATASET_HEAD: &str = "BasePath,DstBlobPathOrPrefix,BlobType,Disposition,MetadataFile,PropertiesFile";
const DRIVESET_HEAD: &str = "DriveLetter,FormatOption,SilentOrPromptOnFormat,Encryption,ExistingBitLockerKey";

/// A session that has passed preflight. Nothing has been written yet.
#[derive(Debug)]
pub struct Prepared {
    pub(super) request: PrepRequest,
    pub(super) cipher: Cipher,
    pub(super) surroundings: Surroundings,
    pub(super) summary: PlanSummary,
    pub(super) drives: Vec<PreparedDrive>,
    /// They follow the others in the summary.
    pub(super) appends: Vec<AppendDrive>,
    pub(super) context: guard::Context,
    pub(super) plan: Plan,
    /// Ids of drives that this run does not write to.
    pub(super) bystanders: Vec<String>,
    /// Hash of the user's password for a new drive, from which the stretching starts; `None` without one.
    pub(super) user_password: Option<Key32>,
    /// The list of all files, begun: its place was tried.
    pub(super) list: Option<Output>,
}

/// Contents of the session's plan file, including those not written yet.
#[derive(Debug)]
pub(super) struct Plan {
    /// Layout options of the drives.
    pub recipe: Recipe,
    /// All blobs of the session.
    pub catalog: Arc<Catalog>,
    /// Files that are on no drive yet.
    pub unplaced: Vec<u32>,
    /// Valid part of the existing file; `None`: the session is new.
    pub saved: Option<Prefix>,
    /// Numbers of drives of each kind, the last ones, that are not in the file yet.
    pub joins: (usize, usize),
    /// SHA-256 of the journal at planning.
    pub seen: [u8; 32],
    /// Drives whose files are moved to others.
    pub given_up: Vec<String>,
    /// Drives that earlier runs finished.
    pub done: Vec<String>,
    /// Those of them that can be rolled back as long as the session is open.
    pub added: Vec<String>,
}

impl Prepared {
    /// The account's facts about each file, if the session is an export.
    pub fn exported(&self) -> Option<Arc<Exported>> {
        self.plan.recipe.exported.clone()
    }

    /// The files of the session.
    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.plan.catalog)
    }

    /// Files of the session that are on no drive, by index in the catalog.
    pub fn unplaced(&self) -> &[u32] {
        &self.plan.unplaced
    }

    /// Drives that this run writes, each with its files and their paths on it, by index in the catalog.
    pub fn placed(&self) -> Vec<(String, Vec<(u32, String)>)> {
        let paths = |drive: &PreparedDrive| {
            let tree = drive.layout.tree();
            let path = |i: u32| match tree.kind(i) {
                FileKind::Blob(file) => {
                    let mut path = String::new();
                    tree.drive_path(i, &mut path);
                    Some((file, path))
                }
                FileKind::ContentMd5(_) | FileKind::Metadata(_) | FileKind::Property(_) => None,
            };
            (drive.rules.drive_id.clone(), (0..tree.blob_count()).filter_map(path).collect())
        };
        self.drives.iter().map(paths).collect()
    }

    #[expect(clippy::too_many_arguments, reason = "what a session consists of")]
    pub(super) fn new(
        request: PrepRequest,
        cipher: Cipher,
        surroundings: Surroundings,
        planned: Planned,
        context: guard::Context,
        plan: Plan,
        skipped: Vec<Skipped>,
        warnings: Vec<Problem>,
    ) -> Result<Self, Problems> {
        let Planned { drives, appends, unneeded, .. } = planned;
        let files = plan.catalog.files();
        let mut summary = PlanSummary {
            session: request.session.clone(),
            cipher: match &request.windows {
                Some(windows) if windows.is_plain => "none".into(),
                _ => request.cipher.clone(),
            },
            drives: drives.iter().map(planning::summarize).chain(appends.iter().map(|one| one.plan.clone())).collect(),
            files: files.len() as u64,
            data: ByteLen(files.iter().map(|file| file.len.0).sum()),
            skipped,
            warnings,
            unplaced: Vec::new(),
            windows: request.windows.is_some(),
        };
        preflight::images(&summary.drives, plan.recipe.wipe_free).into_result()?;
        for target in &unneeded {
            summary.warnings.push(
                Problem::new(Kind::Usage, "everything fits on the other drives; this one is left as it is")
                    .drive(&target.facts.name),
            );
        }
        if !plan.unplaced.is_empty() {
            let bytes: u64 = plan.unplaced.iter().map(|&f| files[f as usize].len.0).sum();
            summary.warnings.push(
                Problem::new(
                    Kind::Refused,
                    format!("{} of {} on no drive yet", counted(plan.unplaced.len() as u64, "file"), ByteLen(bytes)),
                )
                .advice("they wait for drives: the same --id with --additional-driveset FILE"),
            );
        }
        let bystanders = unneeded.into_iter().map(|target| target.facts.drive_id);
        let before = [&plan.given_up, &plan.done, &plan.added].into_iter().flatten().cloned();
        let bystanders = bystanders.chain(before).collect();
        let (user_password, list) = (None, list::begin(&request)?);
        Ok(Self {
            request,
            cipher,
            surroundings,
            summary,
            drives,
            appends,
            context,
            plan,
            bystanders,
            user_password,
            list,
        })
    }
}

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
    let mut warnings = Vec::new();
    let names_drives =
        request.driveset_row.is_some() || request.initial_driveset.is_some() || request.additional_driveset.is_some();
    let names_drives = names_drives || !request.absent.is_empty();
    let checked = files::check_journal(&request, &mut problems);
    let knows_drives = checked.is_some();
    let (book, road) = match checked {
        Some(found) => found,
        // Where drives were named, their problems are reported too.
        None if request.action == Action::Copy && names_drives => (Book::default(), NextAction::Begin),
        None => return Err(problems),
    };
    choose_logs(&mut request, &book.ledger, &mut problems);
    preflight::directories(&request, &mut problems);
    // Begun anew when the plan is ready: what is wrong with its place is told with all else.
    problems.0.extend(list::begin(&request).err());
    match road {
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
    let (set_path, set_flag) = match (&request.initial_driveset, &request.additional_driveset) {
        (None, Some(path)) => (Some(path.clone()), "--additional-driveset"),
        (initial, _) => (initial.clone(), "--initial-driveset"),
    };
    let names_none = set_path.is_none() && request.driveset_row.is_none() && request.absent.is_empty();
    let is_on_known = names_none && !book.ledger.finished_drives().is_empty();
    let cipher = Cipher::from_name(&request.cipher).filter(|cipher| !cipher.has_diffuser());
    if cipher.is_none() {
        let problem = Problem::new(Kind::Usage, "unknown cipher").value(request.cipher.clone());
        problems.push(problem.advice("one of aes-cbc-256, aes-cbc-128, xts-aes-128, xts-aes-256"));
    }
    if let Some(size) = request.cluster_size
        && ClusterSize::from_bytes(size).is_none()
    {
        let problem = Problem::new(Kind::Usage, "is no cluster size").value(size.to_string());
        problems.push(problem.column("--cluster-size").advice("a power of two from 512 to 2097152"));
    }
    let image_sector = request.sector_size.map_or(Some(SectorSize::S512), SectorSize::from_bytes);
    if image_sector.is_none() {
        let value = request.sector_size.unwrap_or_default().to_string();
        problems.push(Problem::new(Kind::Usage, "is no sector size").value(value).advice("512 or 4096"));
    }
    let line = PathBuf::from(COMMAND_LINE);
    let driveset = match &request.driveset_row {
        None if is_on_known || set_path.is_none() && !request.absent.is_empty() => Some(Driveset::default()),
        Some(row) => row_of_driveset(row, request.driveset_key_file.as_deref(), &mut problems),
        None => read_csv(set_path.as_deref(), set_flag, &mut problems, driveset::parse_into),
    };
    let mut driveset = driveset;
    if let (Some(drive), Some(set)) = (&request.made_for, &mut driveset) {
        problems.0.extend(stand_in(drive, set));
        request.drive_ids = vec![(String::new(), names::drive_id_from_serial(&drive.serial))];
    }
    let image_sector = request.made_for.as_ref().map_or(image_sector, |drive| Some(drive.sector));
    let sound_drives = problems.0.is_empty();
    let user_password = request.windows.as_ref().and_then(|windows| windows.password_file.clone());
    let user_password =
        user_password.and_then(|path| keys::user_password(&path).map_err(|problem| problems.push(problem)).ok());
    // Drives alone: they end empty and complete.
    let dataset = if request.windows.is_some() || request.exports {
        Some(Dataset { rows: Vec::new(), warnings: Vec::new() })
    } else if let Some(row) = &request.dataset_row {
        Some(row_of_dataset(row, &mut problems))
    } else if request.dataset.is_none() && request.additional_driveset.is_some() {
        Some(Dataset { rows: Vec::new(), warnings: Vec::new() })
    } else {
        read_csv(request.dataset.as_deref(), "--dataset", &mut problems, dataset::parse_into)
    };
    // A wrong row or file must not hide the problems of others.
    let (rows, drive_rows) = (
        dataset.as_ref().map_or(&[][..], |dataset| &dataset.rows),
        driveset.as_ref().map_or(&[][..], |driveset| &driveset.rows),
    );
    warnings.extend(driveset.iter().flat_map(|driveset| driveset.warnings.iter().cloned()));
    warnings.extend(dataset.iter().flat_map(|dataset| dataset.warnings.iter().cloned()));
    let context = guard::Context {
        // The sources of an index are on the drive itself.
        sources: match request.action {
            Action::SkipWrite => Vec::new(),
            _ => {
                let tree = request.windows.as_ref().and_then(|windows| windows.from.clone());
                rows.iter().map(|row| row.base_path.clone()).chain(tree).collect()
            }
        },
        journal: Some(request.journal.clone()),
        logs: Some(files::logdir(&request)),
    };
    let driveset_path = set_path.unwrap_or_else(|| line.clone());
    let options = TargetOptions {
        driveset: &driveset_path,
        drive_ids: &request.drive_ids,
        ids_proved: false,
        image_sector: image_sector.unwrap_or(SectorSize::S512),
        not_for_shipping: request.not_for_shipping,
        for_service: request.windows.is_none(),
        is_made_for: request.made_for.is_some(),
        context: &context,
        roots,
    };
    let found = if is_on_known {
        let there = there::of_journal(&request.journal, &book.ledger, &options, &mut warnings, &mut problems);
        let found: Vec<Target> = there.into_iter().map(|there| Target::Existing(Box::new(there))).collect();
        Some(found).filter(|found| !found.is_empty())
    } else {
        let found = gather(&mut problems, target::find(drive_rows, &options, &mut warnings));
        if let Some(found) = &found {
            refuse_known(found, &book.ledger, &[], (&request.journal, &driveset_path), &mut problems);
            if knows_drives {
                refuse_foreign_records(found, &book.ledger, &request.journal, &mut problems);
            }
        }
        found.map(|found| {
            let mut places = places(found, roots, &mut problems);
            places.extend(request.absent.iter().map(|drive| Target::Blank(Box::new(target::absent(drive)))));
            places
        })
    };
    if request.exports {
        refuse_existing(found.as_deref().unwrap_or_default(), &mut problems);
    }
    let dataset_path = request.dataset.clone().unwrap_or(line);
    if request.action == Action::SkipWrite {
        let found = found.filter(|_| problems.0.is_empty());
        return prepare_index(
            request,
            surroundings,
            rows,
            &dataset_path,
            found,
            context,
            book.seen,
            warnings,
            problems,
        );
    }
    let root_units = 1 + request.session.encode_utf16().count();
    let targets = found.iter().flatten().map(Target::target);
    let drives = targets.map(|target| (&*target.facts.drive_id, &*target.facts.path));
    let own = Own::gather(&request, &book.ledger, driveset.as_ref(), drives);
    let of =
        Of { dataset: &dataset_path, rows, root_units, sets: request.sets(), own: &own, selection: &request.selection };
    let mut exported = None;
    let (sides, scanned) = match (&request.windows, listed) {
        (None, Some(listed)) => {
            exported = Some(Arc::new(listed.exported));
            (PropertyFiles::default(), Some(Scan::of(listed.catalog)))
        }
        (Some(windows), _) => {
            let mut scanned = scan::tree(windows.from.as_deref(), &own, &request.selection, &mut problems, on_event);
            warnings.extend(scanned.iter_mut().flat_map(|scan| std::mem::take(&mut scan.warnings)));
            (PropertyFiles::default(), scanned)
        }
        (None, None) => scan::sources(&of, &mut problems, &mut warnings, on_event),
    };
    // The missing parts have been reported above.
    let (Some(cipher), Some(dataset), Some(found), Some(scanned)) = (cipher, dataset, found, scanned) else {
        problems.into_result()?;
        return Err(Problem::new(Kind::Internal, "preflight found nothing wrong and yet has no plan").into());
    };

    let Scan { catalog, bytes: _, skipped, warnings: _ } = scanned;
    let catalog = Arc::new(catalog);
    let recipe = Recipe { exported, ..recipe_of(&request, &dataset.rows, sides, surroundings.now) };
    let rows = recipe.rows.iter().zip(&dataset.rows);
    let said = rows.filter(|(rule, row)| {
        rule.disposition != Disposition::Overwrite && (row.says_disposition || request.disposition.is_some())
    });
    warnings.extend(said.map(|(rule, _)| rule.disposition).next().map(overwritten));
    warnings.extend(doubled(&found, &catalog, &dataset.rows));
    let planner = Planner { recipe: &recipe, catalog: &catalog };
    let all: Vec<u32> = (0..catalog.files().len() as u32).collect();
    let planned = planner.plan_drives(&all, found, &mut *surroundings.entropy, request.what_fits);
    if !problems.0.is_empty() {
        // Drives too small for the valid rows are too small for all of them; an incomplete driveset proves nothing.
        problems.0.extend(planned.err().filter(|_| sound_drives).unwrap_or_default().0);
        return Err(problems);
    }
    let planned = planned?;
    let beside = planned.appends.iter().filter_map(|drive| drive.in_place.as_ref());
    let beside = ByteLen(beside.map(|first| first.beside.0).sum());
    if let Some(problem) = files::room_beside(&request.journal, beside) {
        return Err(problem.into());
    }
    let earlier = planned.appends.iter().filter(|drive| !is_on_known && drive.earlier_manifest.is_some());
    warnings.extend(earlier.map(|drive| {
        let what = "its manifest lists files of earlier sessions, which stay in it and would be imported too";
        Problem::new(Kind::Usage, what).drive(&drive.target.facts.name)
    }));
    let plan = Plan {
        recipe,
        catalog,
        unplaced: planned.unplaced.clone(),
        saved: None,
        seen: book.seen,
        joins: (planned.drives.len(), planned.appends.len()),
        given_up: Vec::new(),
        done: Vec::new(),
        added: Vec::new(),
    };
    let prepared = Prepared::new(request, cipher, surroundings, planned, context, plan, skipped, warnings)?;
    Ok(Prepared { user_password, ..prepared })
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
        "the service overwrites blobs that exist, since its tools 1.5.0.300 and 2.2.0.300; Disposition {said} is written into the \
         manifest and may count for nothing"
    );
    Problem::new(Kind::Usage, what)
        .advice("where blobs of the same names may exist, import into a new container; --disposition overwrite says so for all rows")
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

/// The second part of preflight where files are already on a drive.
#[expect(clippy::too_many_arguments, reason = "the second half of one function")]
fn prepare_index(
    request: PrepRequest,
    surroundings: Surroundings,
    rows: &[DatasetRow],
    dataset: &Path,
    found: Option<Vec<Target>>,
    context: guard::Context,
    seen: [u8; 32],
    mut warnings: Vec<Problem>,
    mut problems: Problems,
) -> Result<Prepared, Problems> {
    let mut found = found.unwrap_or_default();
    let there = match (found.pop(), found.is_empty()) {
        (Some(Target::Existing(there)), true) => Some(there),
        (None, _) => None,
        _ => {
            let problem = Problem::new(Kind::Usage, "indexing takes one drive, whose volume stays");
            problems.push(problem.advice("name one drive, with AlreadyFormatted and AlreadyEncrypted"));
            None
        }
    };
    let name = there.as_ref().map_or("", |there| &there.target.facts.name);
    if there.as_ref().is_some_and(|there| there.target.work == Work::Encrypt) {
        let problem = Problem::new(Kind::Usage, "indexing does not encrypt the volume that it reads").drive(name);
        problems.push(problem.value("Encrypt").advice(
            "first encrypt it, by a session with --additional-driveset and no --dataset; then index it with a new id, as a \
             drive of the journal or with AlreadyEncrypted",
        ));
    }
    let rows = index::rows(dataset, rows, name, &mut problems);
    problems.into_result()?;
    let Some(mut there) = there else {
        return Err(Problem::new(Kind::Internal, "preflight found nothing wrong and yet has no drive").into());
    };
    there.target.work = Work::Index;
    let catalog = Builder::new().seal(1).map_err(|_| Problem::new(Kind::Internal, "nothing is twice in nothing"))?;
    let catalog = Arc::new(catalog);
    let recipe = Recipe {
        session: request.session.clone(),
        cipher: request.cipher.clone(),
        cluster_size: None,
        table: request.table,
        wipe_free: false,
        drive_header_hash: request.drive_header_hash,
        external_key: None,
        formatted: surroundings.now,
        rows: Vec::new(),
        md5_texts: Vec::new(),
        properties: Vec::new(),
        windows: None,
        selection: request.selection.clone(),
        spread_evenly: false,
        guesses_type: false,
        metadata: Default::default(),
        list: None,
        exported: None,
    };
    let (drive, skipped, reported) = Planner { recipe: &recipe, catalog: &catalog }.index(&there, &rows)?;
    let cipher = there.opened.unlocked.as_ref().map_or(Cipher::AesCbc256, |unlocked| unlocked.cipher);
    // Its paths are not of this machine.
    warnings.retain(|warning| warning.place.column.as_deref() != Some("BasePath"));
    warnings.extend(reported);
    let (files, data) = (drive.plan.files, drive.plan.data);
    let plan = Plan {
        recipe,
        catalog,
        unplaced: Vec::new(),
        saved: None,
        seen,
        joins: (0, 1),
        given_up: Vec::new(),
        done: Vec::new(),
        added: Vec::new(),
    };
    let planned = Planned { appends: vec![drive], ..Planned::default() };
    let mut prepared = Prepared::new(request, cipher, surroundings, planned, context, plan, skipped, warnings)?;
    (prepared.summary.files, prepared.summary.data) = (files, data);
    Ok(prepared)
}

/// A dataset of one row.
pub(super) fn row_of_dataset(row: &str, problems: &mut Problems) -> Dataset {
    dataset::parse_into(Path::new(COMMAND_LINE), format!("{DATASET_HEAD}\n{row}\n").as_bytes(), problems)
}

/// Gives the one image of the driveset the size of the drive that it is made for.
fn stand_in(drive: &AbsentDrive, driveset: &mut Driveset) -> Option<Problem> {
    let wrong = |what: String, advice: &str| {
        Some(Problem::new(Kind::Usage, what).column("--for").value(drive.serial.clone()).advice(advice))
    };
    if !drive.size.0.is_multiple_of(drive.sector.bytes()) || drive.size.0 == 0 {
        let what = format!("{} bytes are no whole number of {}-byte sectors", drive.size.0, drive.sector.bytes());
        return wrong(what, "`lsblk -b` and `blockdev --getsize64` give the exact size");
    }
    let [row] = &mut driveset.rows[..] else {
        let what = format!("is meant for one image; the driveset has {}", counted(driveset.rows.len() as u64, "row"));
        return wrong(what, "prepare an image for each drive in a session of its own");
    };
    match &mut row.target {
        TargetName::Image { size: Some(size), .. } if *size != drive.size => {
            let what = format!("the driveset gives the image another size, {} bytes", size.0);
            wrong(what, "leave the size away in the driveset")
        }
        TargetName::Image { size, .. } => {
            *size = Some(drive.size);
            None
        }
        _ => wrong("the driveset names a drive, not an image".into(), "name a new file: /images/drive.img"),
    }
}

/// A driveset of one row, with the key from the key file.
fn row_of_driveset(row: &str, key_file: Option<&Path>, problems: &mut Problems) -> Option<Driveset> {
    let mut text = Zeroizing::new(String::with_capacity(DRIVESET_HEAD.len() + row.len() + 256));
    text.push_str(DRIVESET_HEAD);
    text.push('\n');
    text.push_str(row.strip_suffix(",\"\"").unwrap_or(row));
    if let Some(path) = key_file {
        let key = input::read(path, KEY_FILE_MAX, Pipes::Taken).map_err(|error| error.to_string());
        match key.and_then(|key| only_password(&key)) {
            Ok(key) => {
                text.push(',');
                text.push_str(key.expose());
            }
            Err(why) => {
                let problem = Problem::new(Kind::Usage, format!("the key file cannot be used: {why}")).path(path);
                problems.push(problem.advice("a file with the 48 digits of this drive"));
                return None;
            }
        }
    }
    text.push('\n');
    Some(driveset::parse_into(Path::new(COMMAND_LINE), text.as_bytes(), problems))
}

/// The only numerical password in a key file, whatever else it contains.
fn only_password(file: &[u8]) -> Result<SecretText, String> {
    let decoded = Zeroizing::new(text::decode(file).into_owned());
    let text = Zeroizing::new(String::from_utf8_lossy(&decoded).into_owned());
    let runs = printed::runs(&text);
    let mut good: Vec<_> = runs.iter().filter(|run| run.password().is_ok()).map(|run| run.digits.expose()).collect();
    good.sort_unstable();
    good.dedup();
    match good[..] {
        [key] => Ok(SecretText::new(key)),
        [] => {
            let slip = runs.iter().find_map(|run| run.password().err()).or_else(|| printed::slip(&text));
            Err(slip.map_or(NO_PASSWORD.into(), |slip| format!("{NO_PASSWORD}: {slip}")))
        }
        _ => Err(format!("holds {} numerical passwords, and this drive has one", good.len())),
    }
}

/// Unlocks the volumes of drives that are added to.
pub(super) fn places(found: Vec<TargetDrive>, roots: &Roots, problems: &mut Problems) -> Vec<Target> {
    let mut places = Vec::new();
    for target in found {
        if target.work == Work::Format {
            places.push(Target::Blank(Box::new(target)));
            continue;
        }
        match ExistingVolume::open(target, roots) {
            Ok(there) => places.push(Target::Existing(Box::new(there))),
            Err(problem) => problems.push(problem),
        }
    }
    places
}

/// The logs of a journal go to one directory: a session may name it once.
pub(super) fn choose_logs(request: &mut PrepRequest, ledger: &Ledger, problems: &mut Problems) {
    let Some(first) = ledger.log_directory.as_ref().map(PathBuf::from) else { return };
    match &request.logdir {
        None => request.logdir = Some(first),
        Some(given) => {
            let same = fs::canonicalize(given).is_ok_and(|given| fs::canonicalize(&first).is_ok_and(|f| f == given));
            if !same {
                problems.push(
                    Problem::new(Kind::Usage, "the sessions of one journal have one log directory")
                        .path(given)
                        .column("--logdir")
                        .value(first.display().to_string())
                        .advice("leave --logdir away, or name the one that the journal began with"),
                );
            }
        }
    }
}

/// The layout of a session's drives: from its request, the rows of its dataset, and the files that go with their blobs.
pub(super) fn recipe_of(
    request: &PrepRequest,
    rows: &[DatasetRow],
    sides: PropertyFiles,
    formatted: FileTime,
) -> Recipe {
    let rules = rows.iter().zip(&sides.rows).map(|(row, &(metadata, properties))| RowRules {
        disposition: request.disposition.unwrap_or(row.disposition),
        metadata,
        properties,
    });
    Recipe {
        session: request.session.clone(),
        cipher: request.cipher.clone(),
        cluster_size: request.cluster_size,
        table: request.table,
        wipe_free: request.wipe_free,
        drive_header_hash: request.drive_header_hash,
        external_key: request.external_key.clone(),
        formatted,
        rows: rules.collect(),
        properties: sides.files,
        md5_texts: sides.md5_texts,
        windows: request.windows.clone(),
        selection: request.selection.clone(),
        spread_evenly: request.spread_evenly,
        guesses_type: request.content_type,
        metadata: sides.metadata,
        list: request.list.as_ref().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone())),
        exported: None,
    }
}

/// Refuses to erase joining drives that the journal or the session's plan already lists.
pub(super) fn refuse_known(
    found: &[TargetDrive],
    ledger: &Ledger,
    planned: &[String],
    (journal, driveset): (&Path, &Path),
    problems: &mut Problems,
) {
    let finished = ledger.sessions.iter().flat_map(|session| session.drives.iter().map(move |drive| (session, drive)));
    let finished = finished.filter(|(_, drive)| drive.state == SessionState::Completed);
    for target in found {
        let id = &target.facts.drive_id;
        // Its file under another name. Names of devices pass from one drive to the next.
        let same = target.ground.as_ref().filter(|_| target.work == Work::Format).and_then(|ground| {
            let is_it =
                |drive: &SessionDrive| drive.drive_id != *id && files_of(drive, journal).contains(ground.node());
            finished.clone().find(|(_, drive)| is_it(drive))
        });
        if let Some((session, drive)) = same {
            problems.push(
                Problem::new(
                    Kind::Refused,
                    "is a finished drive of this journal under another name, and would be erased",
                )
                .path(driveset)
                .column("DriveLetter")
                .value(format!("{}: {} of session {}", target.facts.name, drive.drive_id, session.id))
                .advice("take its row out; to erase the drive, use a new journal"),
            );
        }
        let holder = match ledger.drive(id) {
            // Its volume stays.
            Some((_, drive)) if target.work != Work::Format && drive.state == SessionState::Completed => continue,
            Some((session, drive)) => format!("{} in session {}", ledger::word(drive.state), session.id),
            None if planned.contains(id) => "part of this session".into(),
            None => continue,
        };
        problems.push(
            Problem::new(Kind::Refused, "belongs to this journal already, and would be erased")
                .path(driveset)
                .column("DriveLetter")
                .value(format!("{id}: {holder}"))
                .advice("take its row out; to erase the drive, use a new journal"),
        );
    }
}

/// The image files that the name of a drive leads to.
fn files_of(drive: &SessionDrive, journal: &Path) -> Vec<Node> {
    let Some(name) = drive.name.as_deref() else { return Vec::new() };
    let paths = [PathBuf::from(name), files::journal_dir(journal).join(name)];
    let metas = paths.iter().filter_map(|path| fs::metadata(path).ok().filter(fs::Metadata::is_file));
    metas.map(|meta| Node::of(&meta)).collect()
}

/// Refuses drives with an existing record unknown to the journal, which holds the only key of another drive: it is
/// neither moved nor overwritten.
pub(super) fn refuse_foreign_records(found: &[TargetDrive], ledger: &Ledger, journal: &Path, problems: &mut Problems) {
    let known = |id: &str| ledger.sessions.iter().any(|session| session.drive(id).is_some());
    for target in found.iter().filter(|target| !known(&target.facts.drive_id)) {
        let path = journal.with_file_name(format!("{}.xml", target.facts.drive_id));
        if records::is_foreign(journal, &target.facts.drive_id, target.key.as_deref()) {
            problems.push(foreign_record(&path).drive(&target.facts.name));
        }
    }
}

/// The problem that a file has the name of a future drive record.
pub(super) fn foreign_record(path: &Path) -> Problem {
    Problem::new(
        Kind::Refused,
        "exists already, and this journal does not know it: it may hold another drive's only key",
    )
    .path(path)
    .advice(
        "keep each journal in a directory of its own; or move the file to a safe place; or give the drive another id \
             with --drive-id PATH=ID",
    )
}

fn gather<T>(problems: &mut Problems, result: Result<T, Problems>) -> Option<T> {
    result.map_err(|mut more| problems.0.append(&mut more.0)).ok()
}

pub(super) fn read_csv<T>(
    path: Option<&Path>,
    flag: &str,
    problems: &mut Problems,
    parse: impl Fn(&Path, &[u8], &mut Problems) -> T,
) -> Option<T> {
    let Some(path) = path else {
        problems.push(Problem::new(Kind::Usage, format!("{flag} is missing")).advice("a first session needs it"));
        return None;
    };
    // A driveset may hold keys.
    match input::read(path, INPUT_FILE_MAX, Pipes::Taken) {
        Ok(bytes) => Some(parse(path, &bytes, problems)),
        Err(error) => {
            let kind = if is_shortage(&error) { Kind::Environment } else { Kind::Usage };
            problems.push(Problem::new(kind, format!("cannot be read: {error}")).path(path).column(flag));
            None
        }
    }
}
