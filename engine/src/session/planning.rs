//! Assigns files to drives and lays the drives out: from catalog and drives to one layout a drive, with a summary for
//! display.

use std::collections::{BTreeMap, HashMap};

use crate::azure::journal::Work;
use crate::bitlocker::regions::PlaceError;
use crate::entropy::Entropy;
use crate::gpt;
use crate::ntfs::build::LayoutError;
use crate::plan::assign::{Spread, assign};
use crate::plan::drive::{DriveError, DriveLayout};
use crate::plan::tree::FileKind;
use crate::report::{Advice, Kind, Problem, Problems, Setting, counted};
use crate::units::{ByteLen, ClusterSize};
use crate::work::append::Refused;
use crate::work::append::drive::AppendDrive;
use crate::work::append::existing::ExistingVolume;
use crate::work::drive_work::DriveWork;
use crate::work::manifest;
use crate::work::planner::Planner;
use crate::work::target::TargetDrive;

/// Attempts with fewer files when a plan turned out too large for a drive.
const PLAN_TRIES: usize = 16;

/// A drive that can receive files.
#[derive(Debug)]
pub enum Target {
    /// Erased, and filled from the start.
    Blank(Box<TargetDrive>),
    /// Its volume is kept, and files are added to it.
    Existing(Box<ExistingVolume>),
}

impl Target {
    /// The drive itself, whatever becomes of its volume.
    pub fn target(&self) -> &TargetDrive {
        match self {
            Self::Blank(target) => target,
            Self::Existing(there) => &there.target,
        }
    }
}

/// A target with its files.
enum Laid {
    Blank(Box<DriveLayout>),
    Existing(Box<AppendDrive>),
}

/// Reason why a target does not take its files.
enum Unfit {
    /// Its capacity is exceeded by this much.
    TooSmall {
        needed: ByteLen,
        available: ByteLen,
    },
    Blank(DriveError),
    ExistingVolume(Problem),
}

/// Drives that receive files, and drives that are not needed.
#[derive(Debug, Default)]
pub struct Planned {
    /// The work on each drive; drives that are formatted come first, each kind in the order of the driveset.
    pub works: Vec<Box<dyn DriveWork>>,
    /// Drives left unchanged.
    pub unneeded: Vec<TargetDrive>,
    /// Files that fit on no drive.
    pub unplaced: Vec<u32>,
}

impl Planned {
    fn take(&mut self, planner: &Planner<'_>, place: Target, laid: Laid, seed: u64) {
        match (place, laid) {
            (Target::Blank(target), Laid::Blank(layout)) => {
                let formatted = self.works.iter().filter(|work| work.target().work == Work::Format).count();
                self.works.insert(formatted, Box::new(planner.prepared(*target, *layout, seed)));
            }
            (_, Laid::Existing(drive)) => self.works.push(drive),
            (Target::Existing(_), Laid::Blank(_)) => {}
        }
    }
}

impl Planner<'_> {
    /// Spreads `files` (ascending) over the drives and lays them out. Without any file each drive gets an empty volume.
    ///
    /// # Errors
    /// Drives that are too small for a volume, and, unless `what_fits`, the excess of files that do not fit.
    pub fn plan_drives(
        &self,
        files: &[u32],
        found: Vec<Target>,
        entropy: &mut dyn Entropy,
        what_fits: bool,
    ) -> Result<Planned, Problems> {
        // Identifiers are public; keys come from the same source, but never out of a plan.
        let seeds: Vec<u64> = found
            .iter()
            .map(|_| {
                let mut seed = [0; 8];
                entropy.fill(&mut seed);
                u64::from_le_bytes(seed)
            })
            .collect();
        let is_single = found.len() == 1 && !what_fits;
        if is_single || files.is_empty() {
            let mut problems = Problems::default();
            let mut planned = Planned::default();
            for (place, seed) in found.into_iter().zip(seeds) {
                match self.layout_for(&place, files, seed) {
                    Ok(laid) => planned.take(self, place, laid, seed),
                    Err(unfit) => problems.push(unfit_problem(place.target(), unfit)),
                }
            }
            problems.into_result()?;
            return Ok(planned);
        }
        self.spread(files, found, &seeds, what_fits)
    }

    fn layout_for(&self, place: &Target, assigned: &[u32], seed: u64) -> Result<Laid, Unfit> {
        match place {
            Target::Blank(target) => {
                self.lay_out(target, assigned, seed).map(Box::new).map(Laid::Blank).map_err(|error| match error {
                    DriveError::Volume(LayoutError::TooSmall { needed, available }) => {
                        Unfit::TooSmall { needed, available }
                    }
                    error => Unfit::Blank(error),
                })
            }
            Target::Existing(there) => {
                self.add(there, assigned).map(Box::new).map(Laid::Existing).map_err(|refused| match refused {
                    Refused::TooFull { needed, free } => Unfit::TooSmall { needed, available: free },
                    Refused::Problem(problem) => Unfit::ExistingVolume(problem),
                })
            }
        }
    }

    /// Spreads the files over several drives.
    fn spread(&self, files: &[u32], found: Vec<Target>, seeds: &[u64], what_fits: bool) -> Result<Planned, Problems> {
        let (mut capacities, cluster) = self.capacities(&found, seeds)?;
        let xml = self.manifest_lens(files, &found);
        let name_units = |f: u32| self.catalog.file_name(f).len() as u64;
        let cost = |f: u32| {
            let data = cluster.len_of(cluster.count_for(self.catalog.files()[f as usize].len)).0;
            // Record of up to 4 KiB, index entry at 85 % fill, manifest.
            data + 4096.min(1024 * cluster.bytes().div_ceil(1024))
                + 2 * (82 + 2 * name_units(f))
                + u64::from(xml.get(&f).copied().unwrap_or(0))
        };
        // A blob's properties and metadata go where it goes.
        let sides = |f: u32| self.recipe.exported.iter().flat_map(move |exported| exported.sides(f));
        let file_cost = |f: u32| ByteLen(cost(f) + sides(f).map(cost).sum::<u64>());
        let is_led = |f: &u32| self.recipe.exported.as_ref().is_none_or(|exported| exported.blob(*f).is_some());
        let leaders: Vec<u32> = files.iter().copied().filter(is_led).collect();
        let with_sides = |leaders: &[u32]| {
            let mut all: Vec<u32> = leaders.iter().flat_map(|&f| std::iter::once(f).chain(sides(f))).collect();
            all.sort_unstable();
            all
        };
        let dir_cost = ByteLen(4096 + 2 * cluster.bytes().max(4096));
        let how = if self.recipe.spread_evenly { Spread::Even } else { Spread::Fill };
        for _ in 0..PLAN_TRIES {
            let mut assignment = assign(self.catalog, &leaders, &capacities, file_cost, dir_cost, how);
            for list in assignment.drives.iter_mut().chain([&mut assignment.unplaced]) {
                *list = with_sides(list);
            }
            let nothing = assignment.drives.iter().all(Vec::is_empty);
            if !assignment.unplaced.is_empty() && (!what_fits || nothing) {
                return Err(self.unplaced(&assignment.unplaced, &capacities, what_fits));
            }
            let Some(mut layouts) = self.lay_assigned(&assignment.drives, &found, seeds, &mut capacities)? else {
                continue;
            };
            let mut planned = Planned { unplaced: assignment.unplaced, ..Planned::default() };
            for (i, place) in found.into_iter().enumerate() {
                match (layouts.remove(&i), place) {
                    (Some(laid), place) => planned.take(self, place, laid, seeds[i]),
                    (None, Target::Blank(target)) => planned.unneeded.push(*target),
                    (None, Target::Existing(there)) => planned.unneeded.push(there.target),
                }
            }
            return Ok(planned);
        }
        Err(Problem::new(Kind::Refused, "the files do not fit on the drives together with what the file system needs")
            .advice("add a drive to the driveset")
            .into())
    }

    /// Space for contents on each drive, and the largest of their clusters: what a file takes depends little on the drive,
    /// and the largest cluster gives a safe estimate.
    fn capacities(&self, found: &[Target], seeds: &[u64]) -> Result<(Vec<ByteLen>, ClusterSize), Problems> {
        let mut problems = Problems::default();
        let mut capacities = Vec::new();
        let mut largest = None;
        for (place, &seed) in found.iter().zip(seeds) {
            match self.layout_for(place, &[], seed) {
                Ok(laid) => {
                    let (cluster, free) = match &laid {
                        Laid::Blank(empty) => {
                            let cluster = empty.layout().cluster();
                            (cluster, cluster.len_of(empty.layout().free_clusters()))
                        }
                        Laid::Existing(drive) => {
                            (ClusterSize::from_bytes(drive.plan.cluster).unwrap_or(ClusterSize::MAX), drive.plan.free)
                        }
                    };
                    capacities.push(free);
                    largest = largest.max(Some(cluster));
                }
                Err(unfit) => problems.push(unfit_problem(place.target(), unfit)),
            }
        }
        problems.into_result()?;
        Ok((capacities, largest.unwrap_or(ClusterSize::MAX)))
    }

    /// Bytes that each blob takes in a manifest, by its number in the catalog.
    fn manifest_lens(&self, files: &[u32], found: &[Target]) -> HashMap<u32, u32> {
        let Some(place) = found.first() else { return HashMap::new() };
        let everything = self.tree(files);
        let lens = manifest::blob_lens(&everything, &self.rules(place.target()));
        let blob = |(i, len): (usize, u32)| match everything.kind(i as u32) {
            FileKind::Blob(file) => Some((file, len)),
            FileKind::ContentMd5(_) | FileKind::Metadata(_) | FileKind::Property(_) => None,
        };
        lens.into_iter().enumerate().filter_map(blob).collect()
    }

    /// Lays out what each drive was assigned. `None` if one was too small for it: its capacity is corrected then.
    fn lay_assigned(
        &self,
        drives: &[Vec<u32>],
        found: &[Target],
        seeds: &[u64],
        capacities: &mut [ByteLen],
    ) -> Result<Option<BTreeMap<usize, Laid>>, Problems> {
        let mut layouts = BTreeMap::new();
        let mut all_fit = true;
        for (i, assigned) in drives.iter().enumerate().filter(|(_, list)| !list.is_empty()) {
            match self.layout_for(&found[i], assigned, seeds[i]) {
                Ok(laid) => drop(layouts.insert(i, laid)),
                Err(Unfit::TooSmall { needed, available }) => {
                    let over = needed.0.saturating_sub(available.0).max(1 << 20);
                    capacities[i] = ByteLen(capacities[i].0.saturating_sub(over));
                    all_fit = false;
                }
                Err(unfit) => return Err(unfit_problem(found[i].target(), unfit).into()),
            }
        }
        Ok(all_fit.then_some(layouts))
    }

    fn unplaced(&self, files: &[u32], capacities: &[ByteLen], what_fits: bool) -> Problems {
        let bytes: u64 = files.iter().map(|&f| self.catalog.files()[f as usize].len.0).sum();
        let room: u64 = capacities.iter().map(|c| c.0).sum();
        let mut problems = Problems::default();
        let advice = if what_fits {
            Advice::from("use larger drives, or take rows out of the dataset")
        } else {
            Advice::from("add a drive to the driveset, take rows out of the dataset, or write what fits now with ")
                + Setting::WhatFits
                + " and add drives for the rest later with "
                + Setting::AdditionalDriveset
        };
        problems.push(
            Problem::new(Kind::Refused, {
                let fit = if files.len() == 1 { "fits" } else { "fit" };
                format!("{} of {} {fit} on no drive", counted(files.len() as u64, "file"), ByteLen(bytes))
            })
            .value(format!("room on all drives: {}", ByteLen(room)))
            .advice(advice),
        );
        for &f in files.iter().take(20) {
            let len = self.catalog.files()[f as usize].len;
            let problem = Problem::new(Kind::Refused, "fits on no drive").path(self.catalog.source_path(f));
            problems.push(problem.value(len.to_string()));
        }
        problems
    }
}

fn unfit_problem(target: &TargetDrive, unfit: Unfit) -> Problem {
    let error = match unfit {
        Unfit::ExistingVolume(problem) => return problem,
        Unfit::TooSmall { needed, available } => DriveError::Volume(LayoutError::TooSmall { needed, available }),
        Unfit::Blank(error) => error,
    };
    let problem = match &error {
        DriveError::Volume(LayoutError::TooSmall { needed, available }) => Problem::new(
            Kind::Refused,
            format!(
                "is too small by {}: {needed} are needed, {available} are available",
                ByteLen(needed.0.saturating_sub(available.0))
            ),
        )
        .advice(Advice::from("use a larger drive, add one to the driveset, take rows out of the dataset, or write what fits now with ") + Setting::WhatFits + " and add drives for the rest later with " + Setting::AdditionalDriveset),
        // The options are impossible on this drive.
        DriveError::Table(gpt::PlanError::TooLargeForMbr { .. }) => {
            Problem::new(Kind::Usage, error.to_string()).setting(Setting::Table).advice(Advice::from("leave ") + Setting::Table + " out, or say gpt")
        }
        DriveError::Volume(LayoutError::TooManyClusters { .. })
        | DriveError::BlockSplitsCluster { .. }
        | DriveError::Regions(PlaceError::ClusterBelowSector { .. }) => Problem::new(Kind::Usage, error.to_string())
            .setting(Setting::ClusterSize)
            .advice(Advice::from("leave ") + Setting::ClusterSize + " out: it is chosen as Windows would"),
        other => Problem::new(Kind::Refused, other.to_string()).advice("use another drive"),
    };
    problem.drive(&target.facts.name).value(target.facts.size.to_string())
}
