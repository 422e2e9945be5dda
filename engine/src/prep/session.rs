//! A copy session: preflight without a write, then all drives at once.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::azure::dataset::{self, Dataset};
use crate::azure::drive_record::{self, DriveInfo, State as RecordState};
use crate::azure::driveset;
use crate::azure::journal::{self, ActivityRecord, SessionState};
use crate::azure::properties::{self, SideKind};
use crate::bitlocker::build::{Metadata, Spec};
use crate::crypt::Cipher;
use crate::device::{self, Access, Device, Roots, guard};
use crate::entropy::{Entropy, Seeded};
use crate::gpt;
use crate::hash;
use crate::io::{Engine, Options};
use crate::limits;
use crate::ntfs::build::{LayoutError, Tree};
use crate::ntfs::upcase;
use crate::plan::assign::assign;
use crate::plan::catalog::Catalog;
use crate::plan::drive::{DriveError, DriveLayout, DriveSpec, Frame, MANIFEST_NAME};
use crate::plan::tree::{DriveTree, FileKind, PropertyFile};
use crate::pool::Pool;
use crate::prep::drive::{self, Finished, PlainBytes, Setup};
use crate::prep::manifest::{self, RowRules, Rules};
use crate::prep::request::{Action, EngineChoice, PrepRequest, Table};
use crate::prep::scan::{self, Scan};
use crate::prep::targets::{self, TargetDrive, Wishes};
use crate::prep::workers::Workers;
use crate::report::{DrivePlan, DriveResult, Event, Kind, PlanSummary, Problem, Problems, SessionReport, Stage, Stop};
use crate::source::walk::{self, FileFacts};
use crate::surroundings::{Surroundings, now};
use crate::units::{ByteLen, ByteOffset, ByteRange, ClusterSize, Guid, SectorSize};

/// Bytes of a slot, and so of most writes.
const SLOT_LEN: usize = 4 << 20;

/// Slots of a drive: 112 MiB, inside the budget of 128 MiB a drive.
const SLOTS: usize = 28;

/// Slots that may be filling at once.
const FILLS_MAX: usize = 8;

/// How often a plan that came out too large is tried with less on the drive.
const PLAN_TRIES: usize = 16;

/// Directories that the plan names.
const DIRECTORIES_SHOWN: usize = 10;

/// A session that passed preflight. Nothing has been written yet.
#[derive(Debug)]
pub struct Prepared {
    request: PrepRequest,
    cipher: Cipher,
    surroundings: Surroundings,
    summary: PlanSummary,
    drives: Vec<PreparedDrive>,
    context: guard::Context,
    journal: JournalState,
}

/// One drive with its plan.
#[derive(Debug)]
struct PreparedDrive {
    target: TargetDrive,
    layout: DriveLayout,
    rules: Rules,
}

/// What the journal held before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JournalState {
    New,
    /// The same session began before and did not end.
    Restarted,
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
    let journal_state = check_journal(&request, &mut problems);
    let driveset = read_csv(request.initial_driveset.as_deref(), "--initial-driveset", &mut problems, driveset::parse);
    let dataset = read_csv(request.dataset.as_deref(), "--dataset", &mut problems, dataset::parse);
    let (Some(cipher), Some(image_sector), Some(driveset), Some(dataset)) = (cipher, image_sector, driveset, dataset)
    else {
        return Err(problems);
    };
    warnings.extend(driveset.warnings);
    warnings.extend(dataset.warnings.iter().cloned());

    let context = guard::Context {
        sources: dataset.rows.iter().map(|row| row.base_path.clone()).collect(),
        journal: Some(request.journal.clone()),
        logs: Some(logdir(&request)),
    };
    let driveset_path = request.initial_driveset.clone().unwrap_or_default();
    let wishes = Wishes {
        driveset: &driveset_path,
        drive_ids: &request.drive_ids,
        image_sector,
        not_for_shipping: request.not_for_shipping,
        context: &context,
        roots,
    };
    let found = gather(&mut problems, targets::find(&driveset.rows, &wishes, &mut warnings));
    let dataset_path = request.dataset.clone().unwrap_or_default();
    let sides = side_files(&dataset_path, &dataset, &mut problems, &mut warnings);
    let root_units = 1 + request.session.encode_utf16().count();
    let scanned = gather(&mut problems, scan::scan(&dataset_path, &dataset.rows, root_units, on_event));
    let (Some(found), Some(scanned)) = (found, scanned) else { return Err(problems) };
    problems.into_result()?;

    let Scan { catalog, bytes, skipped, warnings: scan_warnings } = scanned;
    warnings.extend(scan_warnings);
    if catalog.renamed() + catalog.long().len() > 0 {
        let many = catalog.renamed() + catalog.long().len();
        warnings.push(Problem::new(
            Kind::Usage,
            format!("{many} names or paths that Windows cannot open get a safe name on the drive; blobs keep theirs"),
        ));
    }
    let catalog = Arc::new(catalog);
    let planned = plan_drives(&request, &dataset, &catalog, &sides, found, &mut surroundings)?;
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
    summary.drives = planned.drives.iter().map(summarize).collect();
    Ok(Prepared {
        request,
        cipher,
        surroundings,
        summary,
        drives: planned.drives,
        context,
        journal: journal_state.unwrap_or(JournalState::New),
    })
}

fn gather<T>(problems: &mut Problems, result: Result<T, Problems>) -> Option<T> {
    result.map_err(|mut more| problems.0.append(&mut more.0)).ok()
}

fn logdir(request: &PrepRequest) -> PathBuf {
    request.logdir.clone().unwrap_or_else(|| journal_dir(&request.journal))
}

fn journal_dir(journal: &Path) -> PathBuf {
    match journal.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Whether the journal allows a first session.
fn check_journal(request: &PrepRequest, problems: &mut Problems) -> Option<JournalState> {
    let dir = journal_dir(&request.journal);
    if !dir.is_dir() {
        let problem = Problem::new(Kind::Usage, "the directory of the journal is not there").path(dir);
        problems.push(problem.advice("create it, or name another journal with --journal"));
        return None;
    }
    let bytes = match fs::read(&request.journal) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(JournalState::New),
        Err(error) => {
            let problem = Problem::new(Kind::Environment, format!("the journal cannot be read: {error}"));
            problems.push(problem.path(&request.journal));
            return None;
        }
    };
    if bytes.is_empty() {
        return Some(JournalState::New);
    }
    let journal = journal::read(&bytes);
    if journal.records.is_empty() || !journal.damage.is_empty() {
        let problem = Problem::new(Kind::Usage, "is not a journal, or a damaged one").path(&request.journal);
        problems.push(problem.advice("name a new file; nothing is ever written over a file that is not understood"));
        return None;
    }
    let mut last: Option<(&str, SessionState)> = None;
    let mut others = false;
    for record in &journal.records {
        if let Some(ActivityRecord::Session { id, state }) = ActivityRecord::from_record(record) {
            others |= id != request.session;
            last = Some((id, state));
        }
    }
    match last {
        None => Some(JournalState::Restarted),
        Some((id, state)) if id == request.session && !others && state != SessionState::Completed => {
            Some(JournalState::Restarted)
        }
        Some((id, state)) => {
            problems.push(
                Problem::new(Kind::Usage, format!("the journal holds session {id} ({})", state.as_str()))
                    .path(&request.journal)
                    .advice(
                        "a second session on the same drives is not supported yet: use a new journal and other drives",
                    ),
            );
            None
        }
    }
}

fn read_csv<T>(
    path: Option<&Path>,
    flag: &str,
    problems: &mut Problems,
    parse: impl Fn(&Path, &[u8]) -> Result<T, Problems>,
) -> Option<T> {
    let Some(path) = path else {
        problems.push(Problem::new(Kind::Usage, format!("{flag} is missing")).advice("a first session needs it"));
        return None;
    };
    match fs::read(path) {
        Ok(bytes) => gather(problems, parse(path, &bytes)),
        Err(error) => {
            problems.push(Problem::new(Kind::Usage, format!("cannot be read: {error}")).path(path).column(flag));
            None
        }
    }
}

// ---- metadata and properties files -----------------------------------------------------------------------------

/// The session's property files, and which of them each row uses.
#[derive(Debug, Default)]
struct Sides {
    files: Vec<PropertyFile>,
    rows: Vec<(Option<usize>, Option<usize>)>,
}

fn side_files(path: &Path, dataset: &Dataset, problems: &mut Problems, warnings: &mut Vec<Problem>) -> Sides {
    let mut sides = Sides::default();
    let mut known: HashMap<(PathBuf, bool), usize> = HashMap::new();
    for row in &dataset.rows {
        let mut one = |file: &Option<PathBuf>, kind: SideKind, column: &str| -> Option<usize> {
            let file = file.as_ref()?;
            let is_metadata = matches!(kind, SideKind::Metadata);
            if let Some(&index) = known.get(&(file.clone(), is_metadata)) {
                return Some(index);
            }
            let here = |what: String| {
                Problem::new(Kind::Usage, what)
                    .path(path)
                    .line(row.line)
                    .column(column)
                    .value(file.display().to_string())
            };
            let read = walk::absolute(file).and_then(|file| fs::canonicalize(&file)).and_then(|source| {
                let meta = fs::metadata(&source)?;
                if meta.len() > limits::SIDE_FILE_MAX {
                    return Err(io::Error::other(format!("larger than {} bytes", limits::SIDE_FILE_MAX)));
                }
                Ok((FileFacts::of(&meta), fs::read(&source)?, source))
            });
            let (facts, bytes, source) = match read {
                Ok(read) => read,
                Err(error) => {
                    problems.push(here(format!("cannot be read: {error}")).advice("check the path, or write None"));
                    return None;
                }
            };
            match properties::check(file, &bytes, kind, row.is_dir_spelled) {
                Ok(odd) => warnings.extend(odd),
                Err(mut more) => problems.0.append(&mut more.0),
            }
            let name = if is_metadata { "metadata" } else { "properties" };
            let index = sides.files.len();
            sides.files.push(PropertyFile {
                source,
                name: format!("{name}-{:05}.xml", index + 1),
                len: facts.len,
                mtime_ns: facts.mtime_ns,
                ctime_ns: facts.ctime_ns,
            });
            known.insert((file.clone(), is_metadata), index);
            Some(index)
        };
        let metadata = one(&row.metadata_file, SideKind::Metadata, "MetadataFile");
        let properties = one(&row.properties_file, SideKind::Properties, "PropertiesFile");
        sides.rows.push((metadata, properties));
    }
    sides.sort();
    sides
}

impl Sides {
    /// NTFS wants the files of a directory in its order.
    fn sort(&mut self) {
        let mut order: Vec<usize> = (0..self.files.len()).collect();
        let units = |i: usize| self.files[i].name.encode_utf16();
        order.sort_by(|&a, &b| upcase::compare(units(a), units(b)));
        let mut place = vec![0; order.len()];
        for (to, &from) in order.iter().enumerate() {
            place[from] = to;
        }
        self.files = order.into_iter().map(|from| self.files[from].clone()).collect();
        for (metadata, properties) in &mut self.rows {
            *metadata = metadata.map(|i| place[i]);
            *properties = properties.map(|i| place[i]);
        }
    }
}

// ---- planning --------------------------------------------------------------------------------------------------

struct Planned {
    drives: Vec<PreparedDrive>,
    unneeded: Vec<TargetDrive>,
}

fn plan_drives(
    request: &PrepRequest,
    dataset: &Dataset,
    catalog: &Arc<Catalog>,
    sides: &Sides,
    found: Vec<TargetDrive>,
    surroundings: &mut Surroundings,
) -> Result<Planned, Problems> {
    let planner = Planner { request, dataset, catalog, sides, formatted: surroundings.now };
    // Identifiers are public; keys come from the same source, but never out of a plan.
    let seeds: Vec<u64> = found
        .iter()
        .map(|_| {
            let mut seed = [0; 8];
            surroundings.entropy.fill(&mut seed);
            u64::from_le_bytes(seed)
        })
        .collect();
    let all: Vec<u32> = (0..catalog.files().len() as u32).collect();
    if let [_] = found.as_slice() {
        let mut drives = Vec::new();
        for (target, seed) in found.into_iter().zip(seeds) {
            let layout = planner.plan(&target, &all, seed).map_err(|error| too_small(&target, &error))?;
            let rules = planner.rules(&target);
            drives.push(PreparedDrive { target, layout, rules });
        }
        return Ok(Planned { drives, unneeded: Vec::new() });
    }
    planner.spread(found, &seeds)
}

struct Planner<'a> {
    request: &'a PrepRequest,
    dataset: &'a Dataset,
    catalog: &'a Arc<Catalog>,
    sides: &'a Sides,
    formatted: crate::units::FileTime,
}

impl Planner<'_> {
    fn rules(&self, target: &TargetDrive) -> Rules {
        let rows = self.dataset.rows.iter().zip(&self.sides.rows);
        let rows =
            rows.map(|(row, &(metadata, properties))| RowRules { disposition: row.disposition, metadata, properties });
        Rules { drive_id: target.facts.drive_id.clone(), session: self.request.session.clone(), rows: rows.collect() }
    }

    fn frame(&self, target: &TargetDrive, seed: u64) -> Result<Frame, DriveError> {
        let mut random = Seeded::new(seed);
        let mut guid = || Guid::from_random(random.array());
        let guids = gpt::Guids { disk: guid(), msr: guid(), data: guid() };
        Frame::new(DriveSpec {
            len: target.facts.size,
            sector: target.sector,
            scheme: match self.request.table {
                Table::Gpt => gpt::Scheme::Gpt,
                Table::Mbr => gpt::Scheme::Mbr,
            },
            guids,
            cluster: self.request.cluster_size.and_then(ClusterSize::from_bytes),
            serial: random.next_u64() | 1,
            label: self.request.session.clone(),
            formatted: self.formatted,
            wipe_free: self.request.wipe_free,
        })
    }

    fn tree(&self, assigned: &[u32]) -> DriveTree {
        let properties = self.sides.files.clone();
        DriveTree::new(Arc::clone(self.catalog), assigned, &self.request.session, properties, self.formatted)
    }

    fn plan(&self, target: &TargetDrive, assigned: &[u32], seed: u64) -> Result<DriveLayout, DriveError> {
        let frame = self.frame(target, seed)?;
        let tree = self.tree(assigned);
        let manifest_len_max = manifest::len_max(&tree, &self.rules(target));
        DriveLayout::new(frame, tree, manifest_len_max)
    }

    /// Spreads the files over several drives.
    fn spread(&self, found: Vec<TargetDrive>, seeds: &[u64]) -> Result<Planned, Problems> {
        let mut problems = Problems::default();
        let mut capacities = Vec::new();
        for (target, &seed) in found.iter().zip(seeds) {
            match self.plan(target, &[], seed) {
                Ok(empty) => {
                    let cluster = empty.layout().cluster();
                    capacities.push(cluster.len_of(empty.layout().free_clusters()));
                }
                Err(error) => problems.0.append(&mut too_small(target, &error).0),
            }
        }
        problems.into_result()?;
        // What a file takes depends little on the drive: the largest cluster is the careful guess.
        let frames = found.iter().zip(seeds).filter_map(|(target, &seed)| self.frame(target, seed).ok());
        let cluster = frames.map(|frame| frame.cluster()).max().unwrap_or(ClusterSize::MAX);
        let everything = self.tree(&(0..self.catalog.files().len() as u32).collect::<Vec<_>>());
        let rules = found.first().map(|target| self.rules(target));
        let xml: Vec<u32> = match &rules {
            Some(rules) => manifest::blob_lens(&everything, rules),
            None => Vec::new(),
        };
        let name_units = |f: u32| self.catalog.file_name(f).len() as u64;
        let file_cost = |f: u32| {
            let data = cluster.len_of(cluster.count_for(self.catalog.files()[f as usize].len)).0;
            // Record of up to 4 KiB, index entry at 85 % fill, manifest.
            ByteLen(
                data + 4096.min(1024 * cluster.bytes().div_ceil(1024))
                    + 2 * (82 + 2 * name_units(f))
                    + u64::from(xml[f as usize]),
            )
        };
        let dir_cost = ByteLen(4096 + 2 * cluster.bytes().max(4096));
        for _ in 0..PLAN_TRIES {
            let assignment = assign(self.catalog, &capacities, file_cost, dir_cost);
            if !assignment.unplaced.is_empty() {
                return Err(self.unplaced(&assignment.unplaced, &capacities));
            }
            let mut drives = Vec::new();
            let mut again = false;
            for (i, assigned) in assignment.drives.iter().enumerate().filter(|(_, list)| !list.is_empty()) {
                match self.plan(&found[i], assigned, seeds[i]) {
                    Ok(layout) => drives.push((i, layout)),
                    Err(DriveError::Volume(LayoutError::TooSmall { needed, available })) => {
                        let over = needed.0.saturating_sub(available.0).max(1 << 20);
                        capacities[i] = ByteLen(capacities[i].0.saturating_sub(over));
                        again = true;
                    }
                    Err(error) => return Err(too_small(&found[i], &error)),
                }
            }
            if again {
                continue;
            }
            let mut layouts: BTreeMap<usize, DriveLayout> = drives.into_iter().collect();
            let mut planned = Planned { drives: Vec::new(), unneeded: Vec::new() };
            for (i, target) in found.into_iter().enumerate() {
                match layouts.remove(&i) {
                    Some(layout) => {
                        let rules = self.rules(&target);
                        planned.drives.push(PreparedDrive { target, layout, rules });
                    }
                    None => planned.unneeded.push(target),
                }
            }
            return Ok(planned);
        }
        Err(Problem::new(
            Kind::Refused,
            "the files do not fit on the drives with what the file system needs beside them",
        )
        .advice("add a drive to the driveset")
        .into())
    }

    fn unplaced(&self, files: &[u32], capacities: &[ByteLen]) -> Problems {
        let bytes: u64 = files.iter().map(|&f| self.catalog.files()[f as usize].len.0).sum();
        let room: u64 = capacities.iter().map(|c| c.0).sum();
        let mut problems = Problems::default();
        problems.push(
            Problem::new(Kind::Refused, format!("{} files of {} fit on no drive", files.len(), ByteLen(bytes)))
                .value(format!("room on all drives: {}", ByteLen(room)))
                .advice("add a drive to the driveset, or take rows out of the dataset"),
        );
        for &f in files.iter().take(20) {
            let len = self.catalog.files()[f as usize].len;
            let problem = Problem::new(Kind::Refused, "fits on no drive").path(self.catalog.source_path(f));
            problems.push(problem.value(len.to_string()));
        }
        problems
    }
}

fn too_small(target: &TargetDrive, error: &DriveError) -> Problems {
    let problem = match error {
        DriveError::Volume(LayoutError::TooSmall { needed, available }) => Problem::new(
            Kind::Refused,
            format!(
                "is too small by {}: {needed} are needed, {available} are there",
                ByteLen(needed.0.saturating_sub(available.0))
            ),
        )
        .advice("use a larger drive, add one to the driveset, or take rows out of the dataset"),
        other => Problem::new(Kind::Refused, other.to_string()).advice("use another drive or cluster size"),
    };
    problem.drive(&target.facts.name).value(target.facts.size.to_string()).into()
}

fn summarize(drive: &PreparedDrive) -> DrivePlan {
    let layout = &drive.layout;
    let ntfs = layout.layout();
    let tree = layout.tree();
    let cluster = ntfs.cluster();
    let volume = layout.volume();
    let mut regions = vec![(layout.table_primary().start, layout.table_primary().len, "partition table".to_owned())];
    if let Some(msr) = layout.table().msr {
        regions.push((msr.start, msr.len, "Microsoft reserved partition".to_owned()));
    }
    let inside =
        |range: ByteRange, what: &str| (ByteOffset(volume.start.0 + range.start.0), range.len, what.to_owned());
    regions.push(inside(layout.regions().front(), "BitLocker boot sector"));
    for section in ntfs.sections() {
        if matches!(section.kind, crate::ntfs::build::SectionKind::Boot) {
            continue;
        }
        regions.extend(section.extents.iter().map(|&range| inside(range, &format!("NTFS {:?}", section.kind))));
    }
    for (i, range) in layout.regions().metadata().into_iter().enumerate() {
        regions.push(inside(range, &format!("BitLocker metadata {}", i + 1)));
    }
    regions.push(inside(layout.regions().relocated(), "NTFS boot sectors"));
    regions.push(inside(layout.regions().verify(), "BitLocker verify region"));
    let extent = |range| {
        ntfs.space()
            .extents(range)
            .map(move |e| ByteRange { start: cluster.offset_of(e.lcn), len: cluster.len_of(e.len) })
    };
    regions.extend(extent(ntfs.data_place()).map(|range| inside(range, "files")));
    regions.extend(extent(layout.manifest_place()).map(|range| inside(range, "manifest")));
    regions.extend(extent(layout.free_space()).map(|range| inside(range, "free")));
    if let Some(backup) = layout.table_backup() {
        regions.push((backup.start, backup.len, "backup partition table".to_owned()));
    }
    regions.sort();
    let free = cluster.len_of(ntfs.free_clusters());
    DrivePlan {
        drive: drive.target.facts.clone(),
        files: u64::from(tree.blob_count()),
        dirs: u64::from(tree.dirs()),
        data: layout.data_len(),
        overhead: ByteLen(drive.target.facts.size.0.saturating_sub(layout.data_len().0 + free.0)),
        free,
        cluster: cluster.bytes(),
        regions,
        directories: biggest(tree),
        to_write: layout.total_to_write(),
    }
}

/// The biggest directories by the bytes of their own files.
fn biggest(tree: &DriveTree) -> Vec<(String, u64, ByteLen)> {
    let catalog = tree.catalog();
    let mut sums: HashMap<u32, (u64, u64)> = HashMap::new();
    for i in 0..tree.blob_count() {
        if let FileKind::Blob(file) = tree.kind(i) {
            let file = &catalog.files()[file as usize];
            let sum = sums.entry(file.dir).or_default();
            sum.0 += 1;
            sum.1 += file.len.0;
        }
    }
    let mut all: Vec<(u32, (u64, u64))> = sums.into_iter().collect();
    all.sort_by_key(|&(dir, (_, bytes))| (std::cmp::Reverse(bytes), dir));
    let named = all.into_iter().take(DIRECTORIES_SHOWN).map(|(dir, (files, bytes))| {
        let mut prefix = String::new();
        catalog.blob_prefix(dir, &mut prefix);
        (prefix, files, ByteLen(bytes))
    });
    named.collect()
}

// ---- running ---------------------------------------------------------------------------------------------------

impl Prepared {
    /// What would happen.
    pub fn summary(&self) -> &PlanSummary {
        &self.summary
    }

    /// Drives (index in the summary) whose contents will be destroyed: all but new or blank image files.
    pub fn drives_needing_consent(&self) -> Vec<usize> {
        let needs = |drive: &PreparedDrive| !drive.target.facts.is_image || drive.target.facts.contents.is_some();
        self.drives.iter().enumerate().filter(|(_, drive)| needs(drive)).map(|(i, _)| i).collect()
    }

    /// Whether the drive's row in the driveset says `SilentMode`, and names it by something that stays with it.
    pub fn is_silent_and_firm(&self, drive: usize) -> bool {
        self.drives.get(drive).is_some_and(|d| d.target.silent && d.target.named_firmly)
    }

    /// Writes the drives. Blocks until all of them are done, failed or stopped; events come from any thread.
    ///
    /// # Errors
    /// What prevents the session as a whole; the failure of one drive stands in the report instead.
    pub fn run(
        mut self,
        consented: &[usize],
        events: &(dyn Fn(Event) + Sync),
        stop: &Stop,
    ) -> Result<SessionReport, Problems> {
        let started = Instant::now();
        let missing = self.drives_needing_consent().into_iter().filter(|i| !consented.contains(i));
        let refused = missing.map(|i| {
            let facts = &self.drives[i].target.facts;
            Problem::new(Kind::Refused, "nobody agreed to erase it")
                .drive(&facts.name)
                .value(facts.contents.clone().unwrap_or_else(|| "blank".into()))
                .advice("answer the question, or name the drive with --yes SERIAL")
        });
        Problems(refused.collect()).into_result()?;

        let logs = logdir(&self.request);
        fs::create_dir_all(&logs).map_err(|error| {
            Problem::new(Kind::Environment, format!("the log directory cannot be made: {error}")).path(&logs)
        })?;
        let log = Log::open(&logs, &self.request.session)?;
        let tell = |event: Event| {
            log.event(&event);
            events(event);
        };
        let journal = JournalFile::open(&self.request.journal, self.journal)?;
        let context = ActivityRecord::Context { log_directory: &logs.display().to_string() };
        journal.append(&context)?;
        journal.append(&ActivityRecord::Session { id: &self.request.session, state: SessionState::Started })?;

        let workers = Workers::start(std::thread::available_parallelism().map_or(1, Into::into))
            .map_err(|error| Problem::new(Kind::Environment, format!("no threads for hashing and sealing: {error}")))?;
        let used_space_only = !self.request.wipe_free;
        let mut metadata = Vec::new();
        for drive in &self.drives {
            let description = format!("dray {} {}", drive.rules.drive_id, self.request.session);
            let spec = Spec {
                regions: drive.layout.regions(),
                cipher: self.cipher,
                hidden_sectors: drive.layout.volume().start.0 / drive.layout.sector().bytes(),
                description: &description,
                used_space_only,
                external_key: self.request.external_key.is_some(),
                created: self.surroundings.now,
            };
            metadata.push(Metadata::build(&spec, &mut *self.surroundings.entropy, &mut |_| {}));
        }

        let shared = Shared {
            request: &self.request,
            context: &self.context,
            journal: &journal,
            workers: &workers,
            events: &tell,
            stop,
        };
        let results: Vec<DriveResult> = std::thread::scope(|scope| {
            let threads: Vec<_> = self
                .drives
                .iter()
                .zip(&metadata)
                .enumerate()
                .map(|(i, (drive, metadata))| {
                    let shared = &shared;
                    scope.spawn(move || run_drive(i, drive, metadata, shared))
                })
                .collect();
            let join = |(i, thread): (usize, std::thread::ScopedJoinHandle<'_, DriveResult>)| {
                thread.join().unwrap_or_else(|_| {
                    let problem =
                        Problem::new(Kind::Internal, "the drive's thread ended in a bug; its drive is unfinished");
                    failed(&self.drives[i], problem, started)
                })
            };
            threads.into_iter().enumerate().map(join).collect()
        });
        let all_good = results.iter().all(|result| result.failure.is_none());
        let state = if all_good { SessionState::Completed } else { SessionState::Interrupted };
        journal.append(&ActivityRecord::Session { id: &self.request.session, state })?;
        Ok(SessionReport {
            drives: results,
            journal: self.request.journal.clone(),
            interrupted: stop.requested() && !all_good,
            elapsed: started.elapsed(),
        })
    }
}

struct Shared<'a> {
    request: &'a PrepRequest,
    context: &'a guard::Context,
    journal: &'a JournalFile,
    workers: &'a Workers,
    events: &'a (dyn Fn(Event) + Sync),
    stop: &'a Stop,
}

fn failed(drive: &PreparedDrive, problem: Problem, started: Instant) -> DriveResult {
    DriveResult {
        drive: drive.target.facts.clone(),
        files: 0,
        data: ByteLen(0),
        written: ByteLen(0),
        manifest_hash: None,
        record: None,
        left_out: Vec::new(),
        failure: Some(problem),
        free_space_untouched: true,
        elapsed: started.elapsed(),
    }
}

fn run_drive(index: usize, drive: &PreparedDrive, metadata: &Metadata, shared: &Shared<'_>) -> DriveResult {
    let started = Instant::now();
    let outcome = write_drive(index, drive, metadata, shared);
    let session = &shared.request.session;
    let record_file = format!("{}.xml", drive.rules.drive_id);
    let state =
        |state| ActivityRecord::Drive { session, drive_id: &drive.rules.drive_id, state, record_file: &record_file };
    match outcome {
        Ok((finished, record)) => {
            let journal = shared.journal.append(&state(SessionState::Completed));
            let tree = drive.layout.tree();
            let left_out = finished.left_out.iter().map(|(&i, why)| (tree.source_path(i), why.clone())).collect();
            DriveResult {
                drive: drive.target.facts.clone(),
                files: finished.files,
                data: finished.data,
                written: finished.written,
                manifest_hash: Some(hash::hex_upper(&finished.manifest_md5)),
                record: Some(record),
                left_out,
                failure: journal.err().and_then(|problems| problems.0.into_iter().next()),
                free_space_untouched: !shared.request.wipe_free,
                elapsed: started.elapsed(),
            }
        }
        Err(problem) => {
            // The drive's failure is what counts; a journal that fails too shows at the session's own record.
            let _ = shared.journal.append(&state(SessionState::Interrupted));
            (shared.events)(Event::Stage { drive: index, stage: Stage::Failed });
            (shared.events)(Event::DriveFailed { drive: index, problem: problem.clone() });
            failed(drive, problem, started)
        }
    }
}

fn write_drive(
    index: usize,
    drive: &PreparedDrive,
    metadata: &Metadata,
    shared: &Shared<'_>,
) -> Result<(Finished, PathBuf), Problem> {
    let facts = &drive.target.facts;
    let layout = &drive.layout;
    let request = shared.request;
    let device = claim(drive, shared)?;
    let wipe = whole_wipe(drive, &device);

    // The record first: from the first data write on the drive is worth nothing without its key.
    let record_path = journal_dir(&request.journal).join(format!("{}.xml", drive.rules.drive_id));
    let password = metadata.recovery.password.printed();
    let manifest_file = format!("\\{MANIFEST_NAME}");
    let mut record = DriveInfo {
        drive_id: &drive.rules.drive_id,
        bitlocker_key: password.expose(),
        manifest_file: &manifest_file,
        manifest_hash: None,
        drive_header_hash: None,
    };
    let write_record = |record: &DriveInfo<'_>, state| {
        let bytes = drive_record::write(record, state, now()).map_err(|error| io::Error::other(error.to_string()));
        bytes.and_then(|bytes| replace_private(&record_path, &bytes)).map_err(|error| {
            Problem::new(Kind::Environment, format!("the drive record cannot be written: {error}"))
                .path(&record_path)
                .advice("make room or mend the permissions, and start again")
        })
    };
    write_record(&record, RecordState::Incomplete)?;
    if let (Some(dir), Some(key)) = (&request.external_key, &metadata.external) {
        replace_private(&dir.join(&key.file_name), key.bytes.expose()).map_err(|error| {
            Problem::new(Kind::Environment, format!("the key file cannot be written: {error}")).path(dir)
        })?;
    }
    let state = ActivityRecord::Drive {
        session: &request.session,
        drive_id: &drive.rules.drive_id,
        state: SessionState::Started,
        record_file: &format!("{}.xml", drive.rules.drive_id),
    };
    shared.journal.append(&state).map_err(first)?;

    if !request.wipe_free {
        let whole = ByteRange::new(0, facts.size.0);
        // A device that refuses keeps its old free space, which the summary says plainly in any case.
        let _ = device.discard(whole);
    }

    let hash_path = sidecar(&request.journal, &drive.rules.drive_id);
    let hash_log = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&hash_path);
    let hash_log = hash_log.map_err(|error| {
        Problem::new(Kind::Environment, format!("the hash log cannot be made: {error}")).path(&hash_path)
    })?;
    let pool = Pool::new(SLOTS, SLOT_LEN)
        .map_err(|error| Problem::new(Kind::Environment, format!("no memory for slots: {error}")))?;
    let engine = engine(&device, &pool, request.engine, &facts.name, shared.events)?;
    let cipher = metadata
        .sector_cipher()
        .map_err(|error| Problem::new(Kind::Internal, format!("the cipher refuses its key: {error}")))?;
    let plain = PlainBytes {
        fve_region: metadata.region().to_vec(),
        front: metadata.front().to_vec(),
        table_primary: layout.table().primary(),
        table_backup: layout.table().backup().map(|(_, bytes)| bytes).unwrap_or_default(),
    };
    let setup = Setup {
        index,
        name: facts.name.clone(),
        layout,
        engine,
        pool,
        fills_max: FILLS_MAX,
        jobs: shared.workers.queue(),
        cipher: Arc::new(cipher),
        plain,
        hash_log,
        rules: &drive.rules,
        wipe,
        events: shared.events,
        stop: shared.stop,
    };
    let outcome = drive::run(setup);
    let _ = fs::remove_file(&hash_path);
    let finished = outcome?;

    if let Err(error) = device.reread_partitions() {
        (shared.events)(Event::Note(format!(
            "drive {}: finished, but the kernel did not read the new partition table: {error}",
            facts.name
        )));
    }
    let header_hash = if request.drive_header_hash { Some(header_hash(&device, layout)?) } else { None };
    record.manifest_hash = Some(finished.manifest_md5);
    record.drive_header_hash = header_hash.as_deref();
    write_record(&record, RecordState::Completed)?;
    Ok((finished, record_path))
}

fn first(problems: Problems) -> Problem {
    problems.0.into_iter().next().unwrap_or_else(|| Problem::new(Kind::Internal, "an error without a problem"))
}

/// Opens the drive for writing, and makes sure that it still is the one that was planned for.
fn claim(drive: &PreparedDrive, shared: &Shared<'_>) -> Result<Device, Problem> {
    let facts = &drive.target.facts;
    if drive.target.identity.is_none() {
        device::create_image(&facts.path, facts.size)
            .or_else(|error| {
                // An empty file was there already.
                if error.kind() == io::ErrorKind::AlreadyExists && fs::metadata(&facts.path).is_ok_and(|m| m.len() == 0)
                {
                    return device::extend_image(&facts.path, facts.size);
                }
                Err(error)
            })
            .map_err(|error| {
                Problem::new(Kind::Drive, format!("the image file cannot be made: {error}"))
                    .drive(&facts.name)
                    .value(facts.size.to_string())
                    .advice("choose a file system that holds files of this size, with sparse files")
            })?;
    }
    let device = Device::open_with(&facts.path, Access::Claim, drive.target.sector, &Roots::default())?;
    let change = match &drive.target.identity {
        Some(planned) => planned.change_to(device.identity()),
        None => (device.geometry().size != facts.size).then(|| "size is not what was asked for".to_owned()),
    };
    if let Some(change) = change {
        return Err(Problem::new(Kind::Refused, format!("is not the drive that was planned for: {change}"))
            .drive(&facts.name)
            .advice("nothing was written; check the cables and start again"));
    }
    match guard::check(&device, shared.context).into_iter().next() {
        Some(problem) => Err(problem),
        None => Ok(device),
    }
}

/// Old signatures, and every place that is written last, so that an unfinished drive looks like none.
fn whole_wipe(drive: &PreparedDrive, device: &Device) -> Vec<ByteRange> {
    if drive.target.identity.is_none() {
        return Vec::new();
    }
    let size = device.geometry().size.0;
    let sector = drive.target.sector.bytes();
    let mut ranges: Vec<ByteRange> = drive.target.old.iter().copied().chain(drive.layout.last_places()).collect();
    ranges.sort();
    let mut out: Vec<ByteRange> = Vec::new();
    for range in ranges {
        let start = range.start.0 / sector * sector;
        let end = range.end().0.next_multiple_of(sector).min(size / sector * sector);
        match out.last_mut() {
            Some(last) if last.end().0 >= start => last.len = ByteLen(last.len.0.max(end.saturating_sub(last.start.0))),
            _ if end > start => out.push(ByteRange::new(start, end - start)),
            _ => {}
        }
    }
    out
}

fn engine(
    device: &Device,
    pool: &Pool,
    choice: EngineChoice,
    name: &str,
    events: &(dyn Fn(Event) + Sync),
) -> Result<Box<dyn Engine + Send>, Problem> {
    let options = Options::default();
    match choice {
        EngineChoice::Auto => {
            let (engine, notice) = crate::io::open(device.target(), pool, options);
            if let Some(notice) = notice {
                events(Event::Note(format!("drive {name}: {notice}")));
            }
            Ok(engine)
        }
        EngineChoice::Uring => match crate::io::uring::Uring::new(device.target(), pool, options) {
            Ok(ring) => Ok(Box::new(ring)),
            Err(error) => Err(Problem::new(Kind::Environment, error.to_string()).advice("or use --engine sync")),
        },
        EngineChoice::Sync => Ok(Box::new(crate::io::sync::Sync::new(device.target(), options))),
    }
}

/// `offset:length:SHA-512` of the table and of the volume's front, joined by `;`: the form of the only public sample,
/// which covers the first MiB and 143,360 bytes of the partition.
fn header_hash(device: &Device, layout: &DriveLayout) -> Result<String, Problem> {
    let mut parts = Vec::new();
    for (at, len) in [(0, 1 << 20), (layout.volume().start.0, 143_360)] {
        let mut bytes = vec![0; len];
        device.read_exact_at(&mut bytes, ByteOffset(at)).map_err(|error| {
            Problem::new(Kind::Drive, format!("the drive's header cannot be read back: {error}")).at(ByteOffset(at))
        })?;
        parts.push(format!("{at}:{len}:{}", hash::hex_upper(&hash::sha512(&bytes))));
    }
    Ok(parts.join(";"))
}

fn sidecar(journal: &Path, drive_id: &str) -> PathBuf {
    let mut name = journal.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{drive_id}.hashes"));
    journal.with_file_name(name)
}

/// Replaces a file that only its owner may read, durably: never half of it, whatever happens.
fn replace_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let new = path.with_file_name(name);
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_dir(path)
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(journal_dir(path))?.sync_all()
}

/// The journal, appended to and made durable record by record.
#[derive(Debug)]
struct JournalFile {
    path: PathBuf,
    file: Mutex<File>,
}

impl JournalFile {
    fn open(path: &Path, state: JournalState) -> Result<Self, Problems> {
        let open = || {
            let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
            if state == JournalState::New {
                file.write_all(&journal::new_journal(now()))?;
            }
            file.sync_all()?;
            sync_dir(path)?;
            Ok(file)
        };
        let problem = |error: io::Error| {
            Problem::new(Kind::Environment, format!("the journal cannot be written: {error}")).path(path)
        };
        Ok(Self { path: path.to_path_buf(), file: Mutex::new(open().map_err(problem)?) })
    }

    fn append(&self, record: &ActivityRecord<'_>) -> Result<(), Problems> {
        let write = || {
            let bytes = record.to_bytes(now()).map_err(|error| io::Error::other(error.to_string()))?;
            let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            file.write_all(&bytes)?;
            file.sync_data()
        };
        write().map_err(|error| {
            let problem = Problem::new(Kind::Environment, format!("the journal cannot be written: {error}"));
            problem.path(&self.path).advice("make room on its disk and start again").into()
        })
    }
}

/// The session's log: what happened, line by line. Paths and serials, never keys.
#[derive(Debug)]
struct Log(Mutex<File>);

impl Log {
    fn open(dir: &Path, session: &str) -> Result<Self, Problems> {
        let name: String = session.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let path = dir.join(format!("dray-{name}.log"));
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
        let file = file.map_err(|error| {
            Problem::new(Kind::Environment, format!("the log cannot be written: {error}")).path(path)
        })?;
        Ok(Self(Mutex::new(file)))
    }

    fn event(&self, event: &Event) {
        let line = match event {
            Event::Scanning { .. } | Event::Progress { .. } => return,
            Event::Stage { drive, stage } => format!("drive {drive}: {stage:?}"),
            Event::LeftOut { drive, path, why } => format!("drive {drive}: left out {}: {why}", path.display()),
            Event::DriveFailed { drive, problem } => format!("drive {drive}: failed: {problem}"),
            Event::Note(note) => note.clone(),
        };
        let stamp = jiff::Timestamp::now();
        let mut file = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // A full log disk must not end a session that runs well.
        let _ = writeln!(file, "{stamp:.3} {line}");
    }
}
