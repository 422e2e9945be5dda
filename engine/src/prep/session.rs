//! A copy session: preflight without a write, then all drives at once.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::azure::{dataset, driveset};
use crate::crypt::Cipher;
use crate::device::{Roots, guard};
use crate::prep::files;
use crate::prep::planning::{self, PreparedDrive};
use crate::prep::request::{Action, PrepRequest};
use crate::prep::scan::{self, Scan};
use crate::prep::sides;
use crate::prep::targets::{self, Wishes};
use crate::report::{Event, Kind, PlanSummary, Problem, Problems};
use crate::surroundings::Surroundings;
use crate::units::{ClusterSize, SectorSize};

/// A session that passed preflight. Nothing has been written yet.
#[derive(Debug)]
pub struct Prepared {
    pub(super) request: PrepRequest,
    pub(super) cipher: Cipher,
    pub(super) surroundings: Surroundings,
    pub(super) summary: PlanSummary,
    pub(super) drives: Vec<PreparedDrive>,
    pub(super) context: guard::Context,
}

/// The whole preflight with the kernel's randomness and the system's clock.
///
/// # Errors
/// All problems that can be known before the first write, together.
pub fn prepare(request: PrepRequest, on_event: &mut dyn FnMut(Event)) -> Result<Prepared, Problems> {
    prepare_with(request, Surroundings::real(), &Roots::default(), on_event)
}

/// As [`prepare`], with randomness, time and the kernel's views from outside.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_with(
    request: PrepRequest,
    mut surroundings: Surroundings,
    roots: &Roots,
    on_event: &mut dyn FnMut(Event),
) -> Result<Prepared, Problems> {
    let mut problems = request.check();
    let mut warnings = Vec::new();
    let unsupported = |what: &str| {
        Problem::new(Kind::Usage, format!("{what} is not supported yet"))
            .advice("start a first session with --initial-driveset and --dataset")
    };
    match request.action {
        Action::Copy => {}
        Action::Resume => problems.push(unsupported("resuming a session")),
        Action::Abort => problems.push(unsupported("aborting a session")),
        Action::SkipWrite => problems.push(unsupported("indexing data that is on the drive already")),
    }
    if request.additional_driveset.is_some() {
        problems.push(unsupported("adding drives to a session"));
    }
    if request.action != Action::Copy || request.additional_driveset.is_some() {
        return Err(problems);
    }
    if request.content_md5 {
        problems.push(unsupported("setting Content-MD5"));
    }
    let cipher = Cipher::from_name(&request.cipher).filter(|cipher| !cipher.has_diffuser());
    if cipher.is_none() {
        let problem = Problem::new(Kind::Usage, "there is no such cipher").value(request.cipher.clone());
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
    let _ = files::check_journal(&request, &mut problems);
    let driveset =
        read_csv(request.initial_driveset.as_deref(), "--initial-driveset", &mut problems, driveset::parse_into);
    let dataset = read_csv(request.dataset.as_deref(), "--dataset", &mut problems, dataset::parse_into);
    // A row or a file that is wrong hides nothing of what the others lead to.
    let (rows, drive_rows) = (
        dataset.as_ref().map_or(&[][..], |dataset| &dataset.rows),
        driveset.as_ref().map_or(&[][..], |driveset| &driveset.rows),
    );
    warnings.extend(driveset.iter().flat_map(|driveset| driveset.warnings.iter().cloned()));
    warnings.extend(dataset.iter().flat_map(|dataset| dataset.warnings.iter().cloned()));
    let context = guard::Context {
        sources: rows.iter().map(|row| row.base_path.clone()).collect(),
        journal: Some(request.journal.clone()),
        logs: Some(files::logdir(&request)),
    };
    let driveset_path = request.initial_driveset.clone().unwrap_or_default();
    let wishes = Wishes {
        driveset: &driveset_path,
        drive_ids: &request.drive_ids,
        image_sector: image_sector.unwrap_or(SectorSize::S512),
        not_for_shipping: request.not_for_shipping,
        context: &context,
        roots,
    };
    let found = gather(&mut problems, targets::find(drive_rows, &wishes, &mut warnings));
    let dataset_path = request.dataset.clone().unwrap_or_default();
    let sides = sides::side_files(&dataset_path, rows, &mut problems, &mut warnings);
    let root_units = 1 + request.session.encode_utf16().count();
    let scanned = scan::scan(&dataset_path, rows, root_units, &mut problems, on_event);
    // Whatever is missing was told above.
    let (Some(cipher), Some(dataset), Some(found), Some(scanned)) = (cipher, dataset, found, scanned) else {
        problems.into_result()?;
        return Err(Problem::new(Kind::Internal, "preflight found nothing wrong and yet has no plan").into());
    };

    let Scan { catalog, bytes, skipped, warnings: scan_warnings } = scanned;
    if !problems.0.is_empty() {
        // Drives too small for what is right are too small for all of it.
        let planned = planning::plan_drives(&request, &dataset, &Arc::new(catalog), &sides, found, &mut surroundings);
        problems.0.extend(planned.err().unwrap_or_default().0);
        return Err(problems);
    }
    warnings.extend(scan_warnings);
    if catalog.renamed() + catalog.long().len() > 0 {
        let many = catalog.renamed() + catalog.long().len();
        warnings.push(Problem::new(
            Kind::Usage,
            match many {
                1 => "1 name or path that Windows cannot open gets a safe name on the drive; its blob keeps it".into(),
                _ => format!(
                    "{many} names or paths that Windows cannot open get a safe name on the drive; blobs keep theirs"
                ),
            },
        ));
    }
    let catalog = Arc::new(catalog);
    let planned = planning::plan_drives(&request, &dataset, &catalog, &sides, found, &mut surroundings)?;
    let mut summary = PlanSummary {
        session: request.session.clone(),
        cipher: request.cipher.clone(),
        drives: Vec::new(),
        files: catalog.files().len() as u64,
        data: bytes,
        skipped,
        warnings,
        unplaced: Vec::new(),
    };
    for target in &planned.unneeded {
        summary.warnings.push(
            Problem::new(Kind::Usage, "everything fits on the other drives; this one is left as it is")
                .drive(&target.facts.name),
        );
    }
    summary.drives = planned.drives.iter().map(planning::summarize).collect();
    Ok(Prepared {
        request,
        cipher,
        surroundings,
        summary,
        drives: planned.drives,
        context,
    })
}

fn gather<T>(problems: &mut Problems, result: Result<T, Problems>) -> Option<T> {
    result.map_err(|mut more| problems.0.append(&mut more.0)).ok()
}

fn read_csv<T>(
    path: Option<&Path>,
    flag: &str,
    problems: &mut Problems,
    parse: impl Fn(&Path, &[u8], &mut Problems) -> T,
) -> Option<T> {
    let Some(path) = path else {
        problems.push(Problem::new(Kind::Usage, format!("{flag} is missing")).advice("a first session needs it"));
        return None;
    };
    match fs::read(path) {
        Ok(bytes) => Some(parse(path, &bytes, problems)),
        Err(error) => {
            problems.push(Problem::new(Kind::Usage, format!("cannot be read: {error}")).path(path).column(flag));
            None
        }
    }
}
