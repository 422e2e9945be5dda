//! Number of drives of a size that a dataset needs: planned onto drives that do not exist.

use std::path::PathBuf;
use std::sync::Arc;

use crate::azure::dataset;
use crate::azure::journal::Work;
use crate::azure::ledger::Ledger;
use crate::dataset::own::Own;
use crate::dataset::scan::{self, Of, Scan};
use crate::entropy::{Entropy, Seeded};
use crate::report::{DriveFacts, DrivePlan, Event, Kind, Problem, Problems, Setting, Skipped};
use crate::request::PrepRequest;
use crate::session::inputs;
use crate::session::planning::{Planned, Target};
use crate::surroundings::now;
use crate::units::{ByteLen, SectorSize};
use crate::work::planner::Planner;
use crate::work::target::TargetDrive;

/// Drives of one size that are tried at most: a dataset of petabytes is split by hand.
const DRIVES_MAX: usize = 1000;

/// Seed of what is public and random on a drive: nothing is written.
const SEED: u64 = 1;

/// Drives of one size.
#[derive(Clone, Debug)]
pub struct Needed {
    /// Size of each.
    pub size: ByteLen,
    /// Contents of each drive that is needed.
    pub drives: Vec<DrivePlan>,
}

/// Drives that a dataset needs.
#[derive(Clone, Debug)]
pub struct Estimate {
    /// Files in the sources.
    pub files: u64,
    /// Bytes of them.
    pub data: ByteLen,
    /// Entries of the sources that cannot become blobs.
    pub skipped: Vec<Skipped>,
    /// Warnings for the user.
    pub warnings: Vec<Problem>,
    /// For each size that was asked about.
    pub needed: Vec<Needed>,
}

/// Reads the dataset, walks its sources, and plans them onto drives of each size.
///
/// # Errors
/// All that is wrong with the dataset and its sources; a size that holds no volume, or not the largest file.
pub fn estimate(
    request: &PrepRequest,
    sizes: &[ByteLen],
    on_event: &mut dyn FnMut(Event),
) -> Result<Estimate, Problems> {
    let mut problems = Problems::default();
    let mut warnings = Vec::new();
    let line = PathBuf::from(inputs::COMMAND_LINE);
    let dataset = match &request.source {
        Some(row) => Some(row.read(&line, &mut problems)),
        None => inputs::read_csv(request.dataset.as_deref(), Setting::Dataset, &mut problems, dataset::parse_into),
    };
    let Some(dataset) = dataset else { return Err(problems) };
    warnings.extend(dataset.warnings.iter().cloned());
    let own = Own::gather(request, &Ledger::default(), None, std::iter::empty());
    let path = request.dataset.clone().unwrap_or(line);
    let of = Of {
        dataset: &path,
        rows: &dataset.rows,
        root_units: 1 + request.session.encode_utf16().count(),
        sets: request.sets(),
        own: &own,
        selection: &request.selection,
    };
    let (sides, scanned) = scan::sources(&of, &mut problems, &mut warnings, on_event);
    problems.into_result()?;
    let Some(Scan { catalog, bytes, skipped, .. }) = scanned else {
        return Err(Problem::new(Kind::Internal, "nothing is wrong and yet there is no catalog").into());
    };
    let recipe = inputs::recipe_of(request, &dataset.rows, sides, now());
    let catalog = Arc::new(catalog);
    let all: Vec<u32> = (0..catalog.files().len() as u32).collect();
    let planner = Planner { recipe: &recipe, catalog: &catalog };
    let sector = request.sector_size.and_then(SectorSize::from_bytes).unwrap_or(SectorSize::S512);
    let (mut needed, mut problems) = (Vec::new(), Problems::default());
    for &size in sizes {
        match drives_of(&planner, &all, size, sector) {
            Ok(drives) => needed.push(Needed { size, drives }),
            Err(more) => problems.0.extend(more.0),
        }
    }
    problems.into_result()?;
    Ok(Estimate { files: all.len() as u64, data: bytes, skipped, warnings, needed })
}

/// The fewest drives of a size that hold all files.
fn drives_of(
    planner: &Planner<'_>,
    all: &[u32],
    size: ByteLen,
    sector: SectorSize,
) -> Result<Vec<DrivePlan>, Problems> {
    let planned = fewest(planner, all, size, &mut || Box::new(Seeded::new(SEED)), &|i| unattached(i, size, sector))?;
    Ok(planned.works.iter().map(|work| work.summary()).collect())
}

/// The fewest of drives made by `drive` from their numbers, each of this size, that hold all files.
pub(super) fn fewest(
    planner: &Planner<'_>,
    all: &[u32],
    size: ByteLen,
    entropy: &mut dyn FnMut() -> Box<dyn Entropy>,
    drive: &dyn Fn(usize) -> Target,
) -> Result<Planned, Problems> {
    let name = |problem: Problem| problem.drive(format!("of {size}"));
    // Whether a drive of this size can be at all, and what is wrong otherwise.
    let empty = planner.plan_drives(&[], vec![drive(1)], &mut *entropy(), false);
    let room = match empty {
        Ok(planned) => planned.works.first().map_or(0, |work| work.summary().free.0),
        Err(problems) => return Err(Problems(problems.0.into_iter().map(name).collect())),
    };
    let data: u64 = all.iter().map(|&file| planner.catalog.files()[file as usize].len.0).sum();
    let largest = all.iter().map(|&file| planner.catalog.files()[file as usize].len.0).max().unwrap_or(0);
    if largest >= room {
        let problem = Problem::new(Kind::Refused, "is too small for the largest file");
        return Err(name(problem.value(format!("{} free, {} needed", ByteLen(room), ByteLen(largest))))
            .advice("files are not split: name a larger size")
            .into());
    }
    let least = (data.div_ceil(room.max(1)) as usize).max(1);
    for count in least..=DRIVES_MAX.max(least) {
        let drives = (1..=count).map(drive).collect();
        let planned = planner.plan_drives(all, drives, &mut *entropy(), count > 1);
        // Where some fit, the rest waits for more drives: here for the next count.
        if let Ok(planned) = planned
            && planned.unplaced.is_empty()
        {
            return Ok(planned);
        }
    }
    Err(name(Problem::new(Kind::Refused, format!("too small: more than {DRIVES_MAX} of them would be needed"))).into())
}

fn unattached(number: usize, size: ByteLen, sector: SectorSize) -> Target {
    let name = format!("drive {number}");
    let whole = ByteLen(size.0 / sector.bytes() * sector.bytes());
    let facts = DriveFacts {
        path: PathBuf::from(&name),
        drive_id: name.clone(),
        name,
        size: whole,
        sector: sector.bytes(),
        ..DriveFacts::default()
    };
    Target::Blank(Box::new(TargetDrive {
        facts,
        sector,
        identity: None,
        ground: None,
        held: None,
        planned_file: None,
        old: Vec::new(),
        silent: false,
        named_firmly: false,
        agreed: false,
        work: Work::Format,
        key: None,
    }))
}
