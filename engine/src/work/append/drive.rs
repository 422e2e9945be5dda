//! Drives with a volume that is kept: found, unlocked, and planned.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Addition, Refused, encrypt};
use crate::azure::drive_record::{self, DriveRecord};
use crate::azure::driveset::{DrivesetRow, Encryption, FormatOption, FormatPrompt, TargetName};
use crate::azure::journal::Work;
use crate::azure::ledger::{Ledger, SessionDrive};
use crate::bitlocker::regions::Regions;
use crate::checkpoint::Checkpoint;
use crate::files::input::{self, Pipes};
use crate::journal::files::journal_dir;
use crate::limits::INPUT_FILE_MAX;
use crate::ntfs::build::Tree;
use crate::ntfs::read::Volume;
use crate::plan::in_place::{InPlace, PartitionGeometry, Unfit, sealed_ranges};
use crate::plan::tree::DriveTree;
use crate::report::{Advice, DrivePlan, Kind, Problem, Problems, Region, RegionKind, Setting, Skipped};
use crate::units::{ByteLen, DeviceRange, DiskShape, VolumeRange};
use crate::verify::index::{Index, IndexRow};
use crate::volume::files::Files;
use crate::volume::find::View;
use crate::work::append::earlier::Session;
use crate::work::append::existing::ExistingVolume;
use crate::work::keys::InPlaceKeys;
use crate::work::manifest::{self, Rules};
use crate::work::planner;
use crate::work::planner::Planner;
use crate::work::target::{self, TargetDrive, TargetOptions};

/// Name of the clusters that the file system takes for itself.
const NTFS_METADATA: &str = "NTFS metadata";

/// A drive that receives files in addition to its own.
#[derive(Debug)]
pub struct AppendDrive {
    /// The drive, with its name in the driveset and its facts.
    pub target: TargetDrive,
    /// The session's files on it.
    pub tree: DriveTree,
    /// The parts of its manifest other than the hashes.
    pub rules: Rules,
    /// The plan of the drive as the report prints it.
    pub plan: DrivePlan,
    /// Bytes of the existing manifest.
    pub earlier_manifest: Option<u64>,
    /// What is done with its volume.
    pub kind: AppendKind,
    /// Progress of an earlier run of the session.
    pub started: Option<Box<Checkpoint>>,
}

/// What is done with a volume that is kept.
#[derive(Debug)]
pub enum AppendKind {
    /// Files are copied into it.
    Copy,
    /// Files already on it, which these rows name, are listed in a manifest.
    Index(Vec<IndexRow>),
    /// It is encrypted in place, and then files are copied into it; `None`: an earlier run began that, and its checkpoint
    /// has the plan and the keys.
    EncryptFirst(Option<Box<InPlaceDrive>>),
}

/// A volume that the session encrypts in place before adding files.
#[derive(Debug)]
pub struct InPlaceDrive {
    /// The volume on the drive.
    pub volume: DeviceRange,
    /// Disk geometry in its boot sector.
    pub disk: DiskShape,
    /// BitLocker's areas.
    pub regions: Regions,
    /// Upper bound in bytes of its files next to the journal.
    pub beside: ByteLen,
    /// Created when the session runs.
    pub keys: Option<InPlaceKeys>,
}

impl Planner<'_> {
    /// Plans the addition of these files to the volume of a drive.
    ///
    /// # Errors
    /// The reason for refusing.
    pub fn add(&self, there: &ExistingVolume, assigned: &[u32]) -> Result<AppendDrive, Refused> {
        let mut drive = self.append_drive(there.target.clone(), assigned);
        let is_plain = there.target.work == Work::Encrypt && there.target.key.is_none();
        let first = if is_plain { Some(self.in_place(there)?) } else { None };
        let avoid: Vec<VolumeRange> = first.iter().flat_map(|first| &first.places).map(|(range, _)| *range).collect();
        let addition = Addition {
            name: &there.target.facts.name,
            opened: &there.opened,
            avoid: &avoid,
            tree: &drive.tree,
            rules: &drive.rules,
            manifest_len_max: manifest::len_max(&drive.tree, &drive.rules).0,
            now: self.recipe.formatted,
        };
        let planned = addition.plan()?;
        let (free, taken) = planned.room();
        let plan = &mut drive.plan;
        plan.free = ByteLen(free.0 - taken.0);
        plan.overhead = ByteLen(taken.0.saturating_sub(plan.data.0));
        plan.cluster = planned.cluster();
        plan.regions.extend(planned.places(&there.opened));
        plan.to_write = taken;
        if let Some(First { drive: first, places, len }) = first {
            let own: u64 = places.iter().map(|(range, _)| range.len.0).sum();
            plan.free = ByteLen(plan.free.0.saturating_sub(own));
            plan.overhead = ByteLen(plan.overhead.0 + own);
            let at = |(range, name): (VolumeRange, &str)| Region {
                start: there.opened.device_offset(range.start),
                len: range.len,
                kind: if name == NTFS_METADATA { RegionKind::FileSystem } else { RegionKind::Encryption },
                name: name.to_owned(),
            };
            plan.regions.extend(places.into_iter().map(at));
            plan.encrypts = len;
            plan.to_write = ByteLen(taken.0 + len.0);
            drive.kind = AppendKind::EncryptFirst(Some(Box::new(first)));
        } else if self.recipe.wipe_free {
            // The manifest's room and the metadata's are wiped before they are written.
            plan.to_write = ByteLen(plan.to_write.0 + free.0.saturating_sub(planned.data_len().0));
        }
        drive.plan.regions.sort_by_key(|region| region.start);
        drive.earlier_manifest = planned.earlier_manifest();
        Ok(drive)
    }

    /// Plans the encryption of a volume in place.
    fn in_place(&self, there: &ExistingVolume) -> Result<First, Problem> {
        let name = &there.target.facts.name;
        let failed = |error: Unfit| encrypt::unfit(error, name);
        let (opened, sector) = (&there.opened, there.target.sector);
        let mut view = View(opened);
        let volume = Volume::open(&mut view, opened.len()).map_err(|error| failed(error.into()))?;
        let partition = PartitionGeometry { len: opened.found.volume.len, sector, now: self.recipe.formatted };
        let planned = InPlace::plan(volume, &mut view, &partition, None).map_err(failed)?;
        let all = self.recipe.wipe_free;
        let ranges = sealed_ranges(planned.append.volume(), &mut view, &planned.regions, all);
        let ranges = ranges.map_err(|error| failed(error.into()))?;
        let images = planned.images_len(&mut view).map_err(|error| failed(error.into()))?;
        let metadata = planned.append.metadata_places().map(|range| (range, NTFS_METADATA));
        let places: Vec<(VolumeRange, &'static str)> = planned.areas().chain(metadata).collect();
        let own: u64 = planned.areas().map(|(range, _)| range.len.0).sum();
        let len = ByteLen(ranges.iter().map(|range| range.len.0).sum::<u64>() + own);
        let beside = ByteLen(images.0 + encrypt::batch_journal::LEN_MAX);
        let disk = planned.append.volume().geometry().disk;
        let drive = InPlaceDrive { volume: opened.found.volume, disk, regions: planned.regions, beside, keys: None };
        Ok(First { drive, places, len })
    }

    /// Plans the index of the files that the rows name on the volume of a drive, with nothing added but a manifest;
    /// returns entries that cannot become a blob, and warnings.
    ///
    /// # Errors
    /// All problems.
    pub fn index(
        &self,
        there: &ExistingVolume,
        rows: &[IndexRow],
    ) -> Result<(AppendDrive, Vec<Skipped>, Vec<Problem>), Problems> {
        let mut drive = self.index_drive(there.target.clone(), rows.to_vec());
        let files = Files::read(&there.opened)?;
        let name = &there.target.facts.name;
        let mut problems = Problems::default();
        let index = Index::list(&files, rows, name, &mut problems);
        problems.into_result()?;
        let addition = Addition {
            name,
            opened: &there.opened,
            avoid: &[],
            tree: &drive.tree,
            rules: &drive.rules,
            manifest_len_max: index.len_max(&drive.rules.drive_id, &drive.rules.session),
            now: self.recipe.formatted,
        };
        let planned = addition.plan().map_err(|refused| refused.problem(name))?;
        let (free, taken) = planned.room();
        (drive.plan.files, drive.plan.data) = index.totals();
        (drive.plan.free, drive.plan.overhead) = (ByteLen(free.0 - taken.0), taken);
        (drive.plan.cluster, drive.plan.to_write) = (planned.cluster(), taken);
        drive.plan.regions = planned.places(&there.opened);
        drive.earlier_manifest = planned.earlier_manifest();
        let mut session = Session::default();
        index.blobs().for_each(|(path, disposition)| session.add(path, disposition));
        let mut warnings = session.doubled(there);
        let skipped = index.skipped;
        warnings.extend(index.warnings);
        Ok((drive, skipped, warnings))
    }

    /// As [`Planner::append_drive`], for a drive whose files are indexed.
    pub fn index_drive(&self, target: TargetDrive, rows: Vec<IndexRow>) -> AppendDrive {
        let mut drive = self.append_drive(target, &[]);
        drive.tree = DriveTree::none(Arc::clone(self.catalog), &self.recipe.session, self.recipe.formatted);
        drive.plan.dirs = 0;
        drive.kind = AppendKind::Index(rows);
        drive
    }

    /// A drive to which these files are added, before its volume is examined.
    pub fn append_drive(&self, target: TargetDrive, assigned: &[u32]) -> AppendDrive {
        let tree = self.tree(assigned);
        let rules = self.rules(&target);
        let data = (0..tree.blob_count()).map(|i| tree.file(i).len.0).sum();
        let plan = DrivePlan {
            drive: target.facts.clone(),
            files: u64::from(tree.blob_count()),
            dirs: u64::from(tree.dirs()),
            data: ByteLen(data),
            directories: planner::biggest(&tree),
            to_write: ByteLen(data),
            ..DrivePlan::default()
        };
        let kind = match target.work {
            Work::Encrypt => AppendKind::EncryptFirst(None),
            _ => AppendKind::Copy,
        };
        AppendDrive { target, tree, rules, plan, earlier_manifest: None, kind, started: None }
    }
}

/// The part before an addition to a plain volume.
struct First {
    drive: InPlaceDrive,
    /// Clusters that it takes, in bytes of the volume, with their names.
    places: Vec<(VolumeRange, &'static str)>,
    /// Bytes to encrypt.
    len: ByteLen,
}

/// The drive record next to the journal; `None` if there is none.
///
/// # Errors
/// It cannot be read.
pub fn record_of(path: &Path) -> Result<Option<DriveRecord>, Problem> {
    let problem = |what: String| {
        Problem::new(Kind::Environment, format!("the drive record {what}")).path(path).advice("restore the file")
    };
    match input::read(path, INPUT_FILE_MAX, Pipes::Refused) {
        Ok(bytes) => drive_record::read(&bytes).map(Some).map_err(|error| problem(error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(problem(format!("cannot be read: {error}"))),
    }
}

/// Finds the finished drives of a journal, and unlocks them by their drive records. Drives that are not attached
/// receive nothing.
pub fn of_journal(
    journal: &Path,
    ledger: &Ledger,
    options: &TargetOptions<'_>,
    warnings: &mut Vec<Problem>,
    problems: &mut Problems,
) -> Vec<ExistingVolume> {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for drive in ledger.finished_drives() {
        match one_of_journal(journal, &drive, options, warnings) {
            Ok(Some(there)) => found.push(there),
            Ok(None) => missing.push(drive),
            Err(mut more) => problems.0.append(&mut more.0),
        }
    }
    let named = |drive: &SessionDrive| drive.name.clone().unwrap_or_else(|| drive.drive_id.clone());
    if found.is_empty() && problems.0.is_empty() {
        let names: Vec<String> = missing.iter().map(named).collect();
        problems.push(
            Problem::new(Kind::Refused, "no drive of this journal is attached")
                .path(journal)
                .value(names.join(", "))
                .advice(
                    Advice::from("attach the drives that the files are to be added to, or name new ones with ")
                        + Setting::AdditionalDriveset,
                ),
        );
    }
    for drive in missing {
        let problem =
            Problem::new(Kind::Usage, "is not attached, and gets nothing of this session").drive(named(&drive));
        warnings.push(problem);
    }
    found
}

/// What a drive of an earlier session may be called: its name of then, where its image may lie, and its serial.
fn names_of(journal: &Path, drive: &SessionDrive) -> Vec<TargetName> {
    let serial = TargetName::Serial(drive.drive_id.clone());
    let mut names: Vec<TargetName> = Vec::new();
    if let Some(name) = drive.name.as_deref() {
        let path = PathBuf::from(name);
        if let Some(serial) = name.strip_prefix("serial:") {
            names.push(TargetName::Serial(serial.to_owned()));
        } else if path.starts_with("/dev/disk/by-id") {
            names.push(TargetName::ById(path));
        } else if path.starts_with("/dev") && !path.starts_with("/dev/shm") {
            names.push(TargetName::Device(path));
        } else {
            names.push(TargetName::Image { path: path.clone(), size: None });
            if path.is_relative() {
                names.push(TargetName::Image { path: journal_dir(journal).join(path), size: None });
            }
        }
    }
    if !names.contains(&serial) {
        names.push(serial);
    }
    names
}

fn one_of_journal(
    journal: &Path,
    drive: &SessionDrive,
    options: &TargetOptions<'_>,
    warnings: &mut Vec<Problem>,
) -> Result<Option<ExistingVolume>, Problems> {
    let record_path = journal_dir(journal).join(&drive.record_file);
    let record = record_of(&record_path)?.ok_or_else(|| {
        Problem::new(Kind::Environment, "the drive record, with the key of the drive, is missing")
            .path(&record_path)
            .advice("restore the file")
    })?;
    let key = record.bitlocker_key.filter(|_| record.drive_id == drive.drive_id).ok_or_else(|| {
        Problem::new(Kind::Environment, "the drive record holds no key of this drive").path(&record_path)
    })?;
    let key = Arc::new(key);
    for target in names_of(journal, drive) {
        let by_hand = match &target {
            TargetName::Serial(serial) => format!("serial:{serial}"),
            TargetName::Device(path) | TargetName::ById(path) | TargetName::Image { path, .. } => {
                path.display().to_string()
            }
        };
        if crate::device::resolve(&by_hand, options.roots).is_err() {
            continue;
        }
        // Whether it is the drive is shown by its key and its manifest.
        let ids = [(by_hand, drive.drive_id.clone())];
        let row = DrivesetRow {
            // Of no file.
            line: 0,
            target,
            format: FormatOption::AlreadyFormatted,
            prompt: FormatPrompt::SilentMode,
            encryption: Encryption::AlreadyEncrypted,
            existing_key: Some(Arc::clone(&key)),
        };
        let mut cautions = Vec::new();
        let options = TargetOptions { driveset: journal, drive_ids: &ids, ids_proved: true, ..*options };
        let mut found = target::find(std::slice::from_ref(&row), &options, &mut cautions)?;
        let Some(target) = found.pop() else { continue };
        match ExistingVolume::open(target, options.roots) {
            Ok(there) => {
                warnings.append(&mut cautions);
                return Ok(Some(there));
            }
            // Another drive bears the name now.
            Err(problem) if matches!(row.target, TargetName::Device(_)) && problem.kind != Kind::Internal => {}
            Err(problem) => return Err(problem.into()),
        }
    }
    Ok(None)
}
