//! Drives of driveset rows: located, opened for reading, identified, and checked by the gates.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use crate::azure::driveset::{DrivesetRow, Encryption, FormatOption, FormatPrompt, TargetName};
use crate::azure::journal::Work;
use crate::azure::{SecretText, names};
use crate::device::by_id::{self, Link};
use crate::device::signature::{self, Contents};
use crate::device::{self, Access, Device, Ground, Held, Identity, Roots, Transport, guard};
use crate::report::{Advice, DriveFacts, Kind, Problem, Problems, Setting};
use crate::request::{AbsentDrive, SizeClass};
use crate::units::{ByteLen, DeviceRange, SectorSize};
use crate::volume::find;

/// A drive of the session, examined but not claimed yet.
#[derive(Clone, Debug)]
pub struct TargetDrive {
    /// Facts for messages and events.
    pub facts: DriveFacts,
    /// Logical sector size of the device, or of the future image.
    pub sector: SectorSize,
    /// Identity at planning; `None` for an image file that does not exist yet.
    pub identity: Option<Identity>,
    /// Devices and files that its bytes are stored on; `None` for a drive of a saved plan that was not examined again.
    pub ground: Option<Ground>,
    /// Kept open, so that the drive that is written is the one that was examined and consented to; `None` like the
    /// above, for an image file that does not exist yet, and for a drive with a unique serial.
    pub held: Option<Held>,
    /// The file at the time of planning; `None` for hardware and for an image that the session creates.
    pub planned_file: Option<(u64, u64)>,
    /// Ranges of old signatures, to be wiped.
    pub old: Vec<DeviceRange>,
    /// Whether its row asks for `SilentMode`.
    pub silent: bool,
    /// Whether it was named by a feature of the drive itself: its serial, or a link that contains it.
    pub named_firmly: bool,
    /// Whether erasing it was consented to already: an earlier run of the session started it.
    pub agreed: bool,
    /// Kind of work on it.
    pub work: Work,
    /// Key of its existing volume, where that is kept.
    pub key: Option<Arc<SecretText>>,
}

/// Consent stated in the driveset row of a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowConsent {
    /// `PromptOnFormat`: a question must be answered.
    Prompt,
    /// `SilentMode`, and the drive is named by a feature of its own.
    Silent,
    /// `SilentMode`, by a name that another drive may take over, or by that of a file.
    SilentByLooseName,
}

impl TargetDrive {
    /// Whether it is proven to be the drive of the plan: its serial was compared, or it is the same file.
    pub fn is_proved(&self) -> bool {
        let file = self.ground.as_ref().and_then(Ground::file);
        self.identity.as_ref().is_some_and(|identity| !identity.is_anonymous())
            || file.is_some() && file == self.planned_file
    }

    /// Consent stated in its row.
    pub fn row_consent(&self) -> RowConsent {
        match (self.silent, self.named_firmly) {
            (false, _) => RowConsent::Prompt,
            (true, true) => RowConsent::Silent,
            (true, false) => RowConsent::SilentByLooseName,
        }
    }
}

/// Options of a request for its drives.
#[derive(Clone, Copy, Debug)]
pub struct TargetOptions<'a> {
    /// The driveset's path, for messages.
    pub driveset: &'a Path,
    /// Drive ids given by hand.
    pub drive_ids: &'a [(String, String)],
    /// Sector size of new image files.
    pub image_sector: SectorSize,
    /// Drive ids given by hand are verified by other means, by the drive's key or manifest; nothing is erased.
    pub ids_proved: bool,
    /// Whether to accept drives that the service would refuse.
    pub not_for_shipping: bool,
    /// Whether the image is made for a drive, onto which it will be written.
    pub is_made_for: bool,
    /// Whether the drives are for the service, so that its requirements are checked.
    pub for_service: bool,
    /// Files and directories that must not be on a drive.
    pub context: &'a guard::Context,
    /// Roots of the kernel's views.
    pub roots: &'a Roots,
}

/// Finds and checks every drive of a driveset.
///
/// # Errors
/// All problems of all drives.
pub fn find(
    rows: &[DrivesetRow],
    options: &TargetOptions<'_>,
    warnings: &mut Vec<Problem>,
) -> Result<Vec<TargetDrive>, Problems> {
    let mut problems = Problems::default();
    let mut found = Vec::new();
    for row in rows {
        match target(row, rows.len(), options, warnings) {
            Ok(target) => found.push((row.line, target)),
            Err(mut more) => problems.0.append(&mut more.0),
        }
    }
    twice(&found, options, &mut problems);
    problems.into_result().map(|()| found.into_iter().map(|(_, target)| target).collect())
}

/// Reports drives and ids that occur in two rows.
fn twice(found: &[(u64, TargetDrive)], options: &TargetOptions<'_>, problems: &mut Problems) {
    let mut ids: HashMap<&str, u64> = HashMap::new();
    for (i, (line, target)) in found.iter().enumerate() {
        let here =
            |what: String| Problem::new(Kind::Refused, what).path(options.driveset).line(*line).column("DriveLetter");
        let same = found[..i].iter().find_map(|(line, other)| Some((line, same_as(target, other)?)));
        if let Some((first, value)) = same {
            let problem = here(format!("is the same drive as on line {first}, under another name")).value(value);
            problems.push(problem.advice("name each drive once"));
        } else if let Some(first) = ids.insert(&target.facts.drive_id, *line) {
            let problem = here(format!("has the same drive id as the drive on line {first}"));
            let problem = problem.value(target.facts.drive_id.clone());
            problems.push(problem.advice(
                Advice::from("two drives report one serial (a dock may hide it): give ")
                    + Setting::DriveId
                    + " for each",
            ));
        }
    }
}

/// The identity that two drives of one session share, with both their names; `None` when they are different drives.
pub fn same_as(target: &TargetDrive, other: &TargetDrive) -> Option<String> {
    let names = format!("{} and {}", other.facts.name, target.facts.name);
    if let (Some(ground), Some(theirs)) = (&target.ground, &other.ground) {
        return ground.shared_with(theirs).map(|node| format!("{names}: {node}"));
    }
    (target.facts.path == other.facts.path).then_some(names)
}

/// Refuses joining drives that the session has already, under another name.
pub fn refuse_same<'a>(
    found: &[TargetDrive],
    others: impl Iterator<Item = &'a TargetDrive> + Clone,
    driveset: &Path,
    problems: &mut Problems,
) {
    for target in found {
        let Some(value) = others.clone().find_map(|other| same_as(target, other)) else { continue };
        problems.push(
            Problem::new(Kind::Refused, "is a drive of this session already, under another name")
                .path(driveset)
                .column("DriveLetter")
                .value(value)
                .advice("take its row out"),
        );
    }
}

/// The problem with its line. Drives named only in the journal have none.
fn row_of(row: &DrivesetRow, options: &TargetOptions<'_>, problem: Problem) -> Problem {
    let problem = problem.path(options.driveset);
    if row.line == 0 { problem } else { problem.line(row.line) }
}

fn target(
    row: &DrivesetRow,
    rows: usize,
    options: &TargetOptions<'_>,
    warnings: &mut Vec<Problem>,
) -> Result<TargetDrive, Problems> {
    let here = |problem: Problem, column: &str| row_of(row, options, problem).column(column);
    if row.format == FormatOption::AlreadyFormatted {
        return there(row, rows, options, warnings);
    }
    let name = match &row.target {
        TargetName::Image { path, size } => return image(row, path, *size, rows, options, warnings),
        TargetName::Device(path) | TargetName::ById(path) => path.display().to_string(),
        TargetName::Serial(serial) => format!("serial:{serial}"),
    };
    let line = |problem: Problem| here(problem, "DriveLetter");
    let path = device::resolve(&name, options.roots).map_err(line)?;
    let device = Device::open_with(&path, Access::Read, options.image_sector, options.roots).map_err(line)?;
    finish(row, name, path, device, rows, options, warnings)
}

/// Whether the row names the drive by a feature of its own, as reported by the open device. A file has only its path.
fn is_firm(row: &DrivesetRow, device: &Device) -> Result<bool, Problem> {
    match &row.target {
        TargetName::Device(_) | TargetName::Image { .. } => Ok(false),
        TargetName::Serial(serial) => {
            Ok(device.identity().known_serial().is_some_and(|known| names::drive_id_from_serial(known) == *serial))
        }
        TargetName::ById(path) => match by_id::check(path, device) {
            Link::Own => Ok(true),
            Link::Loose => Ok(false),
            Link::Another(other) => {
                let leads = format!("{}; the name is that of {}", device.path().display(), other.display());
                Err(Problem::new(Kind::Refused, "is a link that leads to another drive than it names")
                    .value(leads)
                    .advice("name the drive by serial:, or let udev make its links again: udevadm trigger"))
            }
        },
    }
}

/// A drive whose volume stays.
fn there(
    row: &DrivesetRow,
    rows: usize,
    options: &TargetOptions<'_>,
    warnings: &mut Vec<Problem>,
) -> Result<TargetDrive, Problems> {
    let line = |problem: Problem| row_of(row, options, problem).column("DriveLetter");
    let name = match &row.target {
        TargetName::Image { path, size: None } => path.display().to_string(),
        TargetName::Image { path, size: Some(_) } => {
            let problem = Problem::new(Kind::Usage, "an existing volume has a size already");
            return Err(line(problem.value(path.display().to_string()).advice("leave the size away")).into());
        }
        TargetName::Device(path) | TargetName::ById(path) => path.display().to_string(),
        TargetName::Serial(serial) => format!("serial:{serial}"),
    };
    let path = device::resolve(&name, options.roots).map_err(line)?;
    let device = open_there(&path, options).map_err(line)?;
    let mut target = finish(row, name, path, device, rows, options, warnings)?;
    target.old.clear();
    match row.encryption {
        Encryption::AlreadyEncrypted => {
            (target.agreed, target.work, target.key) = (true, Work::Append, row.existing_key.clone());
        }
        // All clusters in use are overwritten, so it needs consent.
        Encryption::Encrypt => (target.agreed, target.work) = (false, Work::Encrypt),
    }
    Ok(target)
}

/// The sector size of an image file follows from its contents.
fn open_there(path: &Path, options: &TargetOptions<'_>) -> Result<Device, Problem> {
    let mut sector = options.image_sector;
    if path.is_file() {
        let found = find::open(path, None)?;
        sector = SectorSize::from_bytes(found.drive.sector).unwrap_or(sector);
    }
    Device::open_with(path, Access::Read, sector, options.roots)
}

fn image(
    row: &DrivesetRow,
    path: &Path,
    size: Option<ByteLen>,
    rows: usize,
    options: &TargetOptions<'_>,
    warnings: &mut Vec<Problem>,
) -> Result<TargetDrive, Problems> {
    let line = |problem: Problem| row_of(row, options, problem).column("DriveLetter");
    let name = path.display().to_string();
    let path = crate::source::walk::absolute(path)
        .map_err(|error| line(Problem::new(Kind::Usage, format!("has no absolute path: {error}")).value(&name)))?;
    // The target of a link counts: an empty file is extended, a full one is used as it is.
    let path = fs::canonicalize(&path).unwrap_or(path);
    if fs::metadata(&path).is_ok_and(|meta| !meta.is_file() || meta.len() > 0 || size.is_none()) {
        let device = Device::open_with(&path, Access::Read, options.image_sector, options.roots).map_err(line)?;
        if let Some(size) = size.map(|size| whole_sectors(size, options.image_sector))
            && size != device.geometry().size
        {
            let problem = Problem::new(Kind::Refused, format!("exists already, {} long", device.geometry().size));
            let advice = "leave the size away to use the file as it is, or remove the file";
            return Err(line(problem.value(name).advice(advice)).into());
        }
        return finish(row, name, path, device, rows, options, warnings);
    }
    let Some(size) = size else {
        let problem = Problem::new(Kind::Usage, "does not exist, and no size is given for a new image file");
        return Err(line(problem.value(&name).advice(format!("write {name}:SIZE, for example {name}:4TB"))).into());
    };
    let parent = path.parent().unwrap_or(Path::new("/"));
    if !parent.is_dir() {
        let problem = Problem::new(Kind::Usage, "the directory for the image file does not exist");
        return Err(line(problem.value(parent.display().to_string()).advice("create it first")).into());
    }
    let against = guard::check_new(&path, options.context);
    Problems(against.into_iter().map(line).collect()).into_result()?;
    let drive_id = drive_id(None, Transport::Image, &name, &path, rows, options).map_err(line)?;
    let facts = DriveFacts {
        name,
        path,
        drive_id,
        serial: None,
        for_shipping: options.is_made_for,
        model: None,
        size: whole_sectors(size, options.image_sector),
        sector: options.image_sector.bytes(),
        contents: None,
        is_image: true,
        rotational: None,
    };
    let silent = row.prompt == FormatPrompt::SilentMode;
    // An existing empty file will receive the data, and must be the one that was examined.
    let empty = fs::File::open(&facts.path).ok();
    Ok(TargetDrive {
        ground: Ground::unmade(&facts.path),
        held: empty.and_then(Held::of),
        planned_file: None,
        facts,
        sector: options.image_sector,
        identity: None,
        old: Vec::new(),
        silent,
        named_firmly: false,
        agreed: false,
        work: Work::Format,
        key: None,
    })
}

/// The target of a drive that is not attached: enough to plan for it.
pub fn absent(drive: &AbsentDrive) -> TargetDrive {
    let name = format!("serial:{}", drive.serial);
    TargetDrive {
        facts: DriveFacts {
            path: PathBuf::from(&name),
            name,
            drive_id: names::drive_id_from_serial(&drive.serial),
            serial: Some(drive.serial.clone()),
            for_shipping: true,
            model: None,
            size: whole_sectors(drive.size, drive.sector),
            sector: drive.sector.bytes(),
            contents: None,
            is_image: false,
            rotational: None,
        },
        sector: drive.sector,
        identity: None,
        ground: None,
        held: None,
        planned_file: None,
        old: Vec::new(),
        silent: false,
        named_firmly: true,
        agreed: false,
        work: Work::Format,
        key: None,
    }
}

/// Path of a drive of a size class, in place of its own.
const ANY: &str = "any";

/// Longest drive id (docs/spec/import-export.md#manifest-grammar): room for it is room for every serial.
const DRIVE_ID_LEN_MAX: usize = 64;

/// The target of a drive that is any of its class, planned with the smallest size and the longest drive id.
pub fn any(number: usize, class: SizeClass) -> TargetDrive {
    let serial = format!("any-{number:0>width$}", width = DRIVE_ID_LEN_MAX - 4);
    let mut target = absent(&AbsentDrive { serial, size: class.size, sector: class.sector });
    target.facts.name = format!("any drive of {}", class.size);
    target.facts.path = PathBuf::from(ANY);
    target
}

impl TargetDrive {
    /// The class, of a drive that is any of it.
    pub fn class(&self) -> Option<SizeClass> {
        let class = SizeClass { size: self.facts.size, sector: self.sector };
        (self.facts.path == Path::new(ANY)).then_some(class)
    }
}

fn whole_sectors(size: ByteLen, sector: SectorSize) -> ByteLen {
    ByteLen(size.0 / sector.bytes() * sector.bytes())
}

fn finish(
    row: &DrivesetRow,
    name: String,
    path: PathBuf,
    device: Device,
    rows: usize,
    options: &TargetOptions<'_>,
    warnings: &mut Vec<Problem>,
) -> Result<TargetDrive, Problems> {
    let line = |problem: Problem| row_of(row, options, problem).column("DriveLetter");
    let mut problems = Problems(guard::check(&device, options.context).into_iter().map(line).collect());
    let identity = device.identity().clone();
    let geometry = device.geometry();
    // The drive's own serial, or else its bridge's, of which a caution below warns.
    let serial = identity.known_serial();
    let drive_id = match drive_id(serial, identity.transport, &name, &path, rows, options).map_err(line) {
        Ok(id) => id,
        Err(problem) => {
            problems.push(problem);
            String::new()
        }
    };
    // A serial given by hand counts as the drive's own, whatever the bridge reports.
    let by_hand = given_id(serial, &name, &path, rows, options).cloned();
    let twins = guard::twins(&device);
    problems.0.extend(doubtful_serial(&identity, by_hand.as_deref(), &twins, options).map(line));
    let named_firmly = is_firm(row, &device).map_err(line).unwrap_or_else(|problem| {
        problems.push(problem);
        false
    });
    let meant = Identity { serial: by_hand.or_else(|| identity.serial.clone()), ..identity.clone() };
    // Images and virtual disks are for trying out: they are taken, and marked.
    if identity.transport.is_hardware() && !options.not_for_shipping && options.for_service {
        problems.0.extend(guard::shipping(&meant).into_iter().map(line));
    }
    if options.for_service {
        warnings.extend(guard::cautions(&meant, geometry).into_iter().map(|caution| caution.drive(&name)));
    }
    let contents = signature::scan(&device).unwrap_or_else(|error| {
        problems.push(line(unreadable(&error, &name)));
        Contents::default()
    });
    problems.into_result()?;
    let ground = Ground::of(&device);
    let facts = DriveFacts {
        name,
        path,
        drive_id,
        serial: identity.known_serial().map(str::to_owned),
        for_shipping: guard::is_shippable(&meant),
        model: identity.model.clone(),
        size: geometry.size,
        sector: geometry.sector.bytes(),
        contents: contents.words,
        is_image: device.is_image(),
        rotational: geometry.rotational,
    };
    Ok(TargetDrive {
        planned_file: ground.file(),
        ground: Some(ground),
        // A serial of its own makes it unique. A disk that is held keeps its name when it is unplugged.
        held: (identity.serial.is_none() || !twins.is_empty()).then(|| device.hold()),
        facts,
        sector: geometry.sector,
        identity: Some(identity),
        old: contents.wipe,
        silent: row.prompt == FormatPrompt::SilentMode,
        named_firmly,
        agreed: false,
        work: Work::Format,
        key: None,
    })
}

fn unreadable(error: &io::Error, name: &str) -> Problem {
    Problem::new(Kind::Drive, format!("cannot be read: {error}"))
        .value(name.to_owned())
        .advice("check cable and drive; a drive that cannot be read cannot be trusted")
}

/// The reason for which a drive's serial does not say which drive it is.
fn doubtful_serial(
    identity: &Identity,
    by_hand: Option<&str>,
    twins: &[PathBuf],
    options: &TargetOptions<'_>,
) -> Option<Problem> {
    match (by_hand, &identity.serial) {
        (Some(given), Some(own)) if twins.is_empty() && !options.ids_proved && contradicts(given, own) => Some(
            Problem::new(Kind::Refused, "the id given by hand is not the serial that the drive reports")
                .value(format!("{given}; the drive's own serial is {own}"))
                .advice(
                    Advice::from("look again at which drive you mean; for this one leave ")
                        + Setting::DriveId
                        + " away",
                ),
        ),
        (None, _) if !twins.is_empty() => {
            let paths: Vec<String> = twins.iter().map(|path| path.display().to_string()).collect();
            let serial = identity.known_serial().unwrap_or_default();
            Some(
                Problem::new(Kind::Refused, "more than one attached disk has this serial")
                    .value(format!("{serial}: also {}", paths.join(", ")))
                    .advice(Advice::from("a dock gives its own serial to every disk in it: attach them one by one, or give the serial printed on the label with ") + Setting::DriveId),
            )
        }
        _ => None,
    }
}

/// Whether an id cannot belong to a drive that reports this serial. A serial that no manifest could hold may be
/// replaced by hand.
fn contradicts(id: &str, serial: &str) -> bool {
    let own = names::drive_id_from_serial(serial);
    names::check_drive_id(&own).is_ok() && !own.eq_ignore_ascii_case(id)
}

/// The id given by hand for a drive.
fn given_id<'a>(
    serial: Option<&str>,
    name: &str,
    path: &Path,
    rows: usize,
    options: &'a TargetOptions<'_>,
) -> Option<&'a String> {
    let is_meant =
        |who: &str| who.is_empty() && rows == 1 || who == name || Path::new(who) == path || Some(who) == serial;
    options.drive_ids.iter().find(|(who, _)| is_meant(who)).map(|(_, id)| id)
}

/// The id for manifest and drive record: the one given by hand, else the hardware's serial, else one from the file's
/// name.
fn drive_id(
    serial: Option<&str>,
    transport: Transport,
    name: &str,
    path: &Path,
    rows: usize,
    options: &TargetOptions<'_>,
) -> Result<String, Problem> {
    if let Some(id) = given_id(serial, name, path, rows, options) {
        return names::check_drive_id(id)
            .map(|()| id.clone())
            .map_err(|error| Problem::new(Kind::Usage, error.to_string()).value(id.clone()).advice(error.advice()));
    }
    if let Some(serial) = serial {
        let id = names::drive_id_from_serial(serial);
        return names::check_drive_id(&id).map(|()| id).map_err(|_| {
            Problem::new(Kind::Refused, "the drive's serial is not allowed in a manifest")
                .value(serial.escape_debug().to_string())
                .advice(Advice::from("give ") + Setting::DriveId + " as printed on the drive's label")
        });
    }
    if transport.is_hardware() {
        let what = match options.for_service {
            true => "reports no serial number, which the service compares with the manifest",
            false => "reports no serial number, so it cannot be told from other drives",
        };
        return Err(Problem::new(Kind::Refused, what).value(name.to_owned()).advice(
            Advice::from("attach it without the dock, or give ")
                + Setting::DriveId
                + " as printed on the drive's label",
        ));
    }
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let id: String = stem.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).take(64).collect();
    if id.is_empty() {
        return Err(Problem::new(Kind::Usage, "no drive id can be made of the file's name")
            .value(name.to_owned())
            .advice(Advice::from("give one with ") + Setting::DriveId));
    }
    Ok(id)
}
