//! Steps that formatting a drive and adding to one have in common.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::azure::drive_record::{self, RecordState};
use crate::bitlocker::build::KeyFile;
use crate::device::{Access, Device, DeviceKind, Roots, guard};
use crate::hash;
use crate::io::{Engine, Options, Requests};
use crate::journal::files::{self, Sidecar, replace_private, sidecar};
use crate::journal::records;
use crate::pool::Pool;
use crate::report::{Advice, DriveFacts, Event, Kind, Notice, Problem, Problems, Setting};
use crate::request::{EngineChoice, PrepRequest};
use crate::units::DeviceOffset;
use crate::volume::find::Opened;
use crate::work::kept;
use crate::work::readback;
use crate::work::shared::Shared;
use crate::work::target::TargetDrive;

/// Copies the manifest from the drive to the journal's directory. One that cannot be kept there costs no drive.
pub fn keep_manifest(
    target: &TargetDrive,
    looked: Option<Opened>,
    record: &Path,
    (name, md5): (&str, &[u8; 16]),
    shared: &Shared<'_>,
) -> Result<(), Problem> {
    let opened = match looked {
        Some(opened) => opened,
        None => {
            let device = Device::open_with(&target.facts.path, Access::Read, target.sector, &Roots::default())?;
            readback::open_again(Box::new(device), &target.facts, Some(record), None)?
        }
    };
    match kept::keep_manifest(&opened, name, &target.facts, &shared.request.journal, md5) {
        Err(problem) if problem.kind == Kind::Environment => {
            (shared.events)(Event::Warning(Notice::from(&problem)));
            Ok(())
        }
        kept => kept.map(drop),
    }
}

/// Drops caches, so that reads from here on come from the device.
pub fn drop_caches(device: &Device, facts: &DriveFacts, events: &(dyn Fn(Event) + Sync)) {
    if let Err(error) = device.drop_caches() {
        let name = &facts.name;
        events(Event::Warning(Notice::of(name, format!("the kernel's caches of it could not be dropped: {error}"))));
    }
}

/// Warns of a released drive that something else has mounted at once.
pub fn tell_mounted(kind: &DeviceKind, facts: &DriveFacts, events: &(dyn Fn(Event) + Sync)) {
    for point in mounted_by_itself(kind) {
        events(Event::Warning(Notice::of(
            &facts.name,
            format!(
                "something mounted it by itself on {}, and may have written to it: unmount it, and check it with \
             dray verify before it is shipped",
                point.display()
            ),
        )));
    }
}

/// Mount points of a drive right after its release: by a rule of udev while its queue lasts, or by a desktop's service
/// a moment later.
pub fn mounted_by_itself(kind: &DeviceKind) -> Vec<PathBuf> {
    const PATIENCE: Duration = Duration::from_secs(1);
    /// Time for udev to notice the release.
    const GRACE: Duration = Duration::from_millis(100);
    let roots = Roots::default();
    let is_there = |path| Path::new(path).exists();
    let may_mount = matches!(kind, DeviceKind::Block { .. }) && is_there("/run/udev");
    let started = Instant::now();
    loop {
        let points = guard::mounted(kind, &roots);
        let is_at_work = is_there("/run/udev/queue") || is_there("/run/udisks2");
        let timeouts = if is_at_work { PATIENCE } else { GRACE };
        if !points.is_empty() || !may_mount || started.elapsed() >= timeouts {
            return points;
        }
        std::thread::sleep(GRACE / 5);
    }
}

/// Renames an earlier file in the place of the record, unless it is the record of a drive that was never finished: it
/// may hold the only key of another drive, since ids of images are made from file names.
pub fn keep_key(record: &Path) -> Result<Option<PathBuf>, Problem> {
    let kept = match fs::read(record).map(Zeroizing::new) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(bytes) if drive_record::read(&bytes).is_ok_and(|old| old.state == Some(RecordState::Incomplete)) => {
            return Ok(None);
        }
        Ok(_) => files::keep_earlier(record),
        Err(error) => Err(error),
    };
    kept.map(Some).map_err(|error| {
        Problem::new(Kind::Environment, format!("an earlier drive record cannot be kept: {error}"))
            .path(record)
            .advice("move it to a safe place: it may hold the only key of a drive")
    })
}

/// As [`keep_key`], for a drive that is being started: a record of another journal that appeared since preflight stays.
pub fn make_way(request: &PrepRequest, drive_id: &str, record: &Path) -> Result<Option<PathBuf>, Problem> {
    let book = files::read_journal(&request.journal)?;
    let is_known = book.ledger.sessions.iter().any(|session| session.drive(drive_id).is_some());
    if !is_known && records::is_foreign(&request.journal, drive_id, None) {
        return Err(records::foreign_record(record));
    }
    keep_key(record)
}

/// Writes the key file, if one was requested.
pub fn write_key_file(request: &PrepRequest, key: Option<&KeyFile>) -> Result<(), Problem> {
    let (Some(dir), Some(key)) = (&request.external_key, key) else { return Ok(()) };
    replace_private(&dir.join(&key.file_name), key.bytes.expose())
        .map_err(|error| Problem::new(Kind::Environment, format!("the key file cannot be written: {error}")).path(dir))
}

pub fn internal(why: String) -> Problem {
    Problem::new(Kind::Internal, why)
}

/// The problem for an error of the files next to the journal.
pub fn sidecar_problem(error: &io::Error, path: &Path) -> Problem {
    Problem::new(Kind::Environment, format!("the files next to the journal cannot be written: {error}"))
        .path(path)
        .advice(Advice::from("make room on the journal's disk, then continue with ") + Setting::Resume)
}

/// Removes the files not needed any more once a drive is formatted and filled, while its session continues.
pub fn remove_outcome(request: &PrepRequest, drive_id: &str) {
    let _ = fs::remove_file(sidecar(&request.journal, &request.session, Sidecar::Outcome(drive_id)));
}

/// Removes the files not needed any more once a session is complete, or a drive given up or rolled back.
pub fn remove_sidecars(request: &PrepRequest, drive_id: &str) {
    for which in Sidecar::of_work(drive_id) {
        let _ = fs::remove_file(sidecar(&request.journal, &request.session, which));
    }
}

/// The first of several problems: a drive reports one failure.
pub fn first(problems: Problems) -> Problem {
    problems.0.into_iter().next().unwrap_or_else(|| Problem::new(Kind::Internal, "an error without a problem"))
}

/// The drive's own engine.
///
/// # Errors
/// The requested engine is not available.
pub fn engine(
    device: &Device,
    pool: &Pool,
    request: &PrepRequest,
    name: &str,
    events: &(dyn Fn(Event) + Sync),
) -> Result<Box<dyn Engine + Send>, Problem> {
    let writes = request.in_flight.unwrap_or_else(|| device.geometry().writes_in_flight());
    let options = Options { writes, ..Options::default() };
    let mut target = device.target();
    if let Some(len) = request.request_len {
        target.requests = Requests { len_max: Some(len), ..Requests::default() };
    }
    match request.engine {
        EngineChoice::Auto => {
            let (engine, notice) = crate::io::open(target, pool, options);
            if let Some(notice) = notice {
                events(Event::Note(Notice::of(name, notice)));
            }
            Ok(engine)
        }
        EngineChoice::Uring => match crate::io::uring::Uring::new(target, pool, options) {
            Ok(ring) => Ok(Box::new(ring)),
            Err(error) => Err(Problem::new(Kind::Environment, error.to_string())
                .advice(Advice::from("or use ") + Setting::Engine + " sync")),
        },
        EngineChoice::Sync => Ok(Box::new(crate::io::sync::Sync::new(target, options))),
    }
}

/// `offset:length:SHA-512` of the table and of the volume's front, joined by `;`: the form of the only public sample,
/// which covers the first MiB and 143,360 bytes of the partition.
pub fn header_hash(device: &Device, volume: DeviceOffset) -> Result<String, Problem> {
    let mut parts = Vec::new();
    for (at, len) in [(0, 1 << 20), (volume.0, 143_360)] {
        let mut bytes = vec![0; len];
        device.read_exact_at(&mut bytes, DeviceOffset(at)).map_err(|error| {
            Problem::new(Kind::Drive, format!("the drive's header cannot be read back: {error}")).at(DeviceOffset(at))
        })?;
        parts.push(format!("{at}:{len}:{}", hash::hex_upper(&hash::sha512(&bytes))));
    }
    Ok(parts.join(";"))
}
