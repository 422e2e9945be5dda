//! From driveset rows to drives: found, opened for reading, identified, and held against the gates.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::azure::SecretText;
use crate::azure::driveset::{DrivesetRow, Encryption, FormatOption, FormatPrompt, TargetName};
use crate::azure::journal::Work;
use crate::azure::names;
use crate::device::signature::{self, Contents};
use crate::device::{self, Access, Device, Identity, Roots, Transport, guard};
use crate::report::{DriveFacts, Kind, Problem, Problems};
use crate::units::{ByteLen, ByteRange, SectorSize};
use crate::verify::find;

/// A drive of the session. Only looked at so far.
#[derive(Clone, Debug)]
pub struct TargetDrive {
    /// For people and events.
    pub facts: DriveFacts,
    /// Logical sectors.
    pub sector: SectorSize,
    /// Who it was when it was planned; `None` for an image file that is not there yet.
    pub identity: Option<Identity>,
    /// Places that make it look like something: to be wiped.
    pub old: Vec<ByteRange>,
    /// Whether its row asked not to be asked.
    pub silent: bool,
    /// Whether it was named by something that stays with the drive.
    pub named_firmly: bool,
    /// Whether somebody agreed already that it is erased: an earlier run of the session began it.
    pub agreed: bool,
    /// What is done with it.
    pub work: Work,
    /// What opens the volume that is on it, where that stays.
    pub key: Option<SecretText>,
}

/// What a request says of its drives.
#[derive(Clone, Copy, Debug)]
pub struct Wishes<'a> {
    /// The driveset's path, for messages.
    pub driveset: &'a Path,
    /// Ids given by hand.
    pub drive_ids: &'a [(String, String)],
    /// Sector size of new image files.
    pub image_sector: SectorSize,
    /// Take drives that the service would refuse.
    pub not_for_shipping: bool,
    /// What must not be on a drive.
    pub context: &'a guard::Context,
    /// Where the kernel's views are.
    pub roots: &'a Roots,
}

/// Finds and checks every drive of a driveset.
///
/// # Errors
/// All problems with all of them.
pub fn find(
    rows: &[DrivesetRow],
    wishes: &Wishes<'_>,
    warnings: &mut Vec<Problem>,
) -> Result<Vec<TargetDrive>, Problems> {
    let mut problems = Problems::default();
    let mut found = Vec::new();
    for row in rows {
        match target(row, rows.len(), wishes, warnings) {
            Ok(target) => found.push((row.line, target)),
            Err(mut more) => problems.0.append(&mut more.0),
        }
    }
    twice(&found, wishes, &mut problems);
    problems.into_result().map(|()| found.into_iter().map(|(_, target)| target).collect())
}

/// The same drive, or the same id, on two lines.
fn twice(found: &[(u64, TargetDrive)], wishes: &Wishes<'_>, problems: &mut Problems) {
    let mut paths: HashMap<&Path, u64> = HashMap::new();
    let mut ids: HashMap<&str, u64> = HashMap::new();
    for (line, target) in found {
        let here =
            |what: String| Problem::new(Kind::Refused, what).path(wishes.driveset).line(*line).column("DriveLetter");
        if let Some(first) = paths.insert(&target.facts.path, *line) {
            let problem = here(format!("is the same drive as on line {first}")).value(target.facts.name.clone());
            problems.push(problem.advice("name each drive once"));
        } else if let Some(first) = ids.insert(&target.facts.drive_id, *line) {
            let problem = here(format!("has the same drive id as the drive on line {first}"));
            let problem = problem.value(target.facts.drive_id.clone());
            problems.push(
                problem
                    .advice("two drives report one serial (a dock may hide it): give --drive-id PATH=LABEL for each"),
            );
        }
    }
}

/// The problem with its place. Drives that the journal names stand on no line.
fn row_of(row: &DrivesetRow, wishes: &Wishes<'_>, problem: Problem) -> Problem {
    let problem = problem.path(wishes.driveset);
    if row.line == 0 { problem } else { problem.line(row.line) }
}

fn target(
    row: &DrivesetRow,
    rows: usize,
    wishes: &Wishes<'_>,
    warnings: &mut Vec<Problem>,
) -> Result<TargetDrive, Problems> {
    let here = |problem: Problem, column: &str| row_of(row, wishes, problem).column(column);
    if row.format == FormatOption::AlreadyFormatted {
        return there(row, rows, wishes, warnings);
    }
    let (name, path, named_firmly) = match &row.target {
        TargetName::Image { path, size } => return image(row, path, *size, rows, wishes, warnings),
        TargetName::Device(path) => (path.display().to_string(), path.display().to_string(), false),
        TargetName::ById(path) => (path.display().to_string(), path.display().to_string(), true),
        TargetName::Serial(serial) => (format!("serial:{serial}"), format!("serial:{serial}"), true),
    };
    let line = |problem: Problem| here(problem, "DriveLetter");
    let path = device::resolve(&path, wishes.roots).map_err(line)?;
    let device = Device::open_with(&path, Access::Read, wishes.image_sector, wishes.roots).map_err(line)?;
    finish(row, name, path, device, named_firmly, rows, wishes, warnings)
}

/// A drive whose volume stays.
fn there(
    row: &DrivesetRow,
    rows: usize,
    wishes: &Wishes<'_>,
    warnings: &mut Vec<Problem>,
) -> Result<TargetDrive, Problems> {
    let line = |problem: Problem| row_of(row, wishes, problem).column("DriveLetter");
    let (name, named_firmly) = match &row.target {
        TargetName::Image { path, size: None } => (path.display().to_string(), true),
        TargetName::Image { path, size: Some(_) } => {
            let problem = Problem::new(Kind::Usage, "a volume that is there has a size already");
            return Err(line(problem.value(path.display().to_string()).advice("leave the size away")).into());
        }
        TargetName::Device(path) => (path.display().to_string(), false),
        TargetName::ById(path) => (path.display().to_string(), true),
        TargetName::Serial(serial) => (format!("serial:{serial}"), true),
    };
    let path = device::resolve(&name, wishes.roots).map_err(line)?;
    let device = open_there(&path, wishes).map_err(line)?;
    let mut target = finish(row, name, path, device, named_firmly, rows, wishes, warnings)?;
    target.old.clear();
    match row.encryption {
        Encryption::AlreadyEncrypted => {
            (target.agreed, target.work, target.key) = (true, Work::Append, row.existing_key.clone());
        }
        // All that is in use is overwritten.
        Encryption::Encrypt => (target.agreed, target.work) = (false, Work::Encrypt),
    }
    Ok(target)
}

/// An image file does not tell its sectors: what is in it does.
fn open_there(path: &Path, wishes: &Wishes<'_>) -> Result<Device, Problem> {
    let mut sector = wishes.image_sector;
    if path.is_file() {
        let found = find::open(path, None)?;
        sector = SectorSize::from_bytes(found.drive.sector).unwrap_or(sector);
    }
    Device::open_with(path, Access::Read, sector, wishes.roots)
}

fn image(
    row: &DrivesetRow,
    path: &Path,
    size: Option<ByteLen>,
    rows: usize,
    wishes: &Wishes<'_>,
    warnings: &mut Vec<Problem>,
) -> Result<TargetDrive, Problems> {
    let line = |problem: Problem| row_of(row, wishes, problem).column("DriveLetter");
    let name = path.display().to_string();
    let path = crate::source::walk::absolute(path)
        .map_err(|error| line(Problem::new(Kind::Usage, format!("has no absolute path: {error}")).value(&name)))?;
    if fs::symlink_metadata(&path).is_ok_and(|meta| meta.len() > 0 || size.is_none()) {
        let path = fs::canonicalize(&path).unwrap_or(path);
        let device = Device::open_with(&path, Access::Read, wishes.image_sector, wishes.roots).map_err(line)?;
        if let Some(size) = size.map(|size| whole_sectors(size, wishes.image_sector))
            && size != device.geometry().size
        {
            let problem = Problem::new(Kind::Refused, format!("is there already, {} long", device.geometry().size));
            let advice = "leave the size away to use the file as it is, or remove the file";
            return Err(line(problem.value(name).advice(advice)).into());
        }
        return finish(row, name, path, device, true, rows, wishes, warnings);
    }
    let Some(size) = size else {
        let problem = Problem::new(Kind::Refused, "is not there, and no size is given for a new image file");
        return Err(line(problem.value(&name).advice(format!("write {name}:SIZE, for example {name}:4TB"))).into());
    };
    let parent = path.parent().unwrap_or(Path::new("/"));
    if !parent.is_dir() {
        let problem = Problem::new(Kind::Refused, "the directory for the image file is not there");
        return Err(line(problem.value(parent.display().to_string()).advice("create it first")).into());
    }
    let drive_id = drive_id(None, Transport::Image, &name, &path, rows, wishes).map_err(line)?;
    let facts = DriveFacts {
        name,
        path,
        drive_id,
        for_shipping: false,
        model: None,
        size: whole_sectors(size, wishes.image_sector),
        sector: wishes.image_sector.bytes(),
        contents: None,
        is_image: true,
        rotational: None,
    };
    let silent = row.prompt == FormatPrompt::SilentMode;
    Ok(TargetDrive {
        facts,
        sector: wishes.image_sector,
        identity: None,
        old: Vec::new(),
        silent,
        named_firmly: true,
        agreed: false,
        work: Work::Format,
        key: None,
    })
}

fn whole_sectors(size: ByteLen, sector: SectorSize) -> ByteLen {
    ByteLen(size.0 / sector.bytes() * sector.bytes())
}

#[expect(clippy::too_many_arguments, reason = "two call sites, one of them for images")]
fn finish(
    row: &DrivesetRow,
    name: String,
    path: PathBuf,
    device: Device,
    named_firmly: bool,
    rows: usize,
    wishes: &Wishes<'_>,
    warnings: &mut Vec<Problem>,
) -> Result<TargetDrive, Problems> {
    let line = |problem: Problem| row_of(row, wishes, problem).column("DriveLetter");
    let mut problems = Problems(guard::check(&device, wishes.context).into_iter().map(line).collect());
    let identity = device.identity().clone();
    let geometry = device.geometry();
    let hardware = identity.transport.is_hardware();
    // The drive's own, or else its bridge's, which a caution below tells.
    let serial = identity.known_serial();
    let drive_id = match drive_id(serial, identity.transport, &name, &path, rows, wishes).map_err(line) {
        Ok(id) => id,
        Err(problem) => {
            problems.push(problem);
            String::new()
        }
    };
    // A serial given by hand is the drive's own, whatever the bridge says.
    let by_hand = given_id(serial, &name, &path, rows, wishes).cloned();
    let meant = Identity { serial: by_hand.clone().or_else(|| identity.serial.clone()), ..identity.clone() };
    let against: Vec<Problem> = guard::shipping(&meant);
    let for_shipping = guard::is_shippable(&meant);
    let twins = if by_hand.is_none() { guard::twins(&device) } else { Vec::new() };
    if !twins.is_empty() {
        let paths: Vec<String> = twins.iter().map(|path| path.display().to_string()).collect();
        problems.push(line(
            Problem::new(Kind::Refused, "more than one attached disk has this serial")
                .value(format!("{}: also {}", serial.unwrap_or_default(), paths.join(", ")))
                .advice(
                    "a dock gives its own serial to every disk in it: attach them one by one, or give the serial \
                     printed on the label with --drive-id PATH=SERIAL",
                ),
        ));
    }
    // Images and virtual disks are for trying out: they are taken, and marked.
    if hardware && !wishes.not_for_shipping {
        problems.0.extend(against.into_iter().map(line));
    }
    warnings.extend(guard::cautions(&meant, geometry).into_iter().map(|caution| caution.drive(&name)));
    let contents = match signature::scan(&device) {
        Ok(contents) => contents,
        Err(error) => {
            problems.push(line(
                Problem::new(Kind::Drive, format!("cannot be read: {error}"))
                    .value(name.clone())
                    .advice("check cable and drive; a drive that cannot be read cannot be trusted"),
            ));
            Contents::default()
        }
    };
    problems.into_result()?;
    let facts = DriveFacts {
        name,
        path,
        drive_id,
        for_shipping,
        model: identity.model.clone(),
        size: geometry.size,
        sector: geometry.sector.bytes(),
        contents: contents.words,
        is_image: device.is_image(),
        rotational: geometry.rotational,
    };
    let silent = row.prompt == FormatPrompt::SilentMode;
    Ok(TargetDrive {
        facts,
        sector: geometry.sector,
        identity: Some(identity),
        old: contents.wipe,
        silent,
        named_firmly,
        agreed: false,
        work: Work::Format,
        key: None,
    })
}

/// The id given by hand for a drive.
fn given_id<'a>(
    serial: Option<&str>,
    name: &str,
    path: &Path,
    rows: usize,
    wishes: &'a Wishes<'_>,
) -> Option<&'a String> {
    let is_meant =
        |who: &str| who.is_empty() && rows == 1 || who == name || Path::new(who) == path || Some(who) == serial;
    wishes.drive_ids.iter().find(|(who, _)| is_meant(who)).map(|(_, id)| id)
}

/// The id for manifest and drive record: given by hand, else the hardware's serial, else one from the file's name.
fn drive_id(
    serial: Option<&str>,
    transport: Transport,
    name: &str,
    path: &Path,
    rows: usize,
    wishes: &Wishes<'_>,
) -> Result<String, Problem> {
    if let Some(id) = given_id(serial, name, path, rows, wishes) {
        return names::check_drive_id(id)
            .map(|()| id.clone())
            .map_err(|error| Problem::new(Kind::Usage, error.to_string()).value(id.clone()).advice(error.advice()));
    }
    if let Some(serial) = serial {
        let id = names::drive_id_from_serial(serial);
        return names::check_drive_id(&id).map(|()| id).map_err(|_| {
            Problem::new(Kind::Refused, "the drive's serial cannot stand in a manifest")
                .value(serial.escape_debug().to_string())
                .advice("give --drive-id PATH=SERIAL as printed on the drive's label")
        });
    }
    if transport.is_hardware() {
        return Err(Problem::new(
            Kind::Refused,
            "tells no serial number, which the service compares with the manifest",
        )
        .value(name.to_owned())
        .advice("attach it without the dock, or give --drive-id PATH=SERIAL as printed on the drive's label"));
    }
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let id: String = stem.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).take(64).collect();
    if id.is_empty() {
        return Err(Problem::new(Kind::Usage, "no drive id can be made of the file's name")
            .value(name.to_owned())
            .advice("give one with --drive-id"));
    }
    Ok(id)
}
