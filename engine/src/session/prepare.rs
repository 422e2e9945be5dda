//! A copy session: preflight without any write, then all drives at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::azure::dataset::{self, Dataset, DatasetRow, Disposition};
use crate::azure::driveset::{self, Driveset};
use crate::azure::journal::Work;
use crate::azure::ledger::NextAction;
use crate::azure::names;
use crate::crypt::Cipher;
use crate::dataset::own::Own;
use crate::dataset::property_files::PropertyFiles;
use crate::dataset::scan::{self, Of, Scan};
use crate::device::{Roots, guard};
use crate::journal::files::{self, Book};
use crate::plan::account::Exported;
use crate::plan::catalog::{Builder, Catalog};
use crate::report::{Event, Kind, Problem, Problems};
use crate::request::{Action, PrepRequest};
use crate::session::inputs::{
    COMMAND_LINE, choose_logs, gather, places, read_csv, recipe_of, refuse_foreign_records, refuse_known,
    row_of_dataset, row_of_driveset, stand_in,
};
use crate::session::planning::{Planned, Target};
use crate::session::prepared::{Plan, Prepared};
use crate::session::{preflight, resume};
use crate::surroundings::Surroundings;
use crate::units::{ByteLen, ClusterSize, SectorSize};
use crate::work::append::drive::{self as there};
use crate::work::append::earlier::Session as Earlier;
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
    let beside = ByteLen(planned.works.iter().map(|work| work.room_beside().0).sum());
    if let Some(problem) = files::room_beside(&request.journal, beside) {
        return Err(problem.into());
    }
    let earlier = planned.works.iter().filter(|work| !is_on_known && work.earlier_manifest().is_some());
    warnings.extend(earlier.map(|work| {
        let what = "its manifest lists files of earlier sessions, which stay in it and would be imported too";
        Problem::new(Kind::Usage, what).drive(&work.target().facts.name)
    }));
    let plan = Plan {
        recipe,
        catalog,
        unplaced: planned.unplaced.clone(),
        saved: None,
        seen: book.seen,
        joins: planned.works.len(),
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
        joins: 1,
        given_up: Vec::new(),
        done: Vec::new(),
        added: Vec::new(),
    };
    let planned = Planned { works: vec![Box::new(drive)], ..Planned::default() };
    let mut prepared = Prepared::new(request, cipher, surroundings, planned, context, plan, skipped, warnings)?;
    (prepared.summary.files, prepared.summary.data) = (files, data);
    Ok(prepared)
}
