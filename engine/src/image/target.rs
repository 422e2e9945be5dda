//! A drive or image file that is written as a whole: looked at, agreed to, claimed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::azure::journal::Work;
use crate::device::{self, Access, Device, DeviceKind, Ground, Roots, guard, signature};
use crate::report::{DriveFacts, Kind, Problem, Problems};
use crate::units::{ByteLen, SectorSize};
use crate::work::claim;
use crate::work::target::{self, TargetDrive};

/// A drive whose contents go. Only looked at so far.
#[derive(Debug)]
pub struct Target {
    /// As preparing knows its drives: identity, what is held, what is wiped.
    pub(super) drive: TargetDrive,
    pub(super) context: guard::Context,
}

impl Target {
    /// Looks at a drive or an existing image file.
    ///
    /// # Errors
    /// Everything that speaks against writing to it.
    pub fn look(name: &Path, context: &guard::Context) -> Result<Self, Problems> {
        let path = device::resolve(&name.display().to_string(), &Roots::default())?;
        let device = Device::open(&path, Access::Read)?;
        let mut problems = Problems(guard::check(&device, context));
        if device.geometry().size.0 == 0 && device.is_image() {
            let problem = Problem::new(Kind::Refused, "is an empty file").drive(path.display().to_string());
            problems.push(problem.advice("name a drive, or an image file that has its size"));
        }
        let contents = signature::scan(&device).map_err(|error| {
            Problem::new(Kind::Drive, format!("cannot be read: {error}"))
                .drive(path.display().to_string())
                .advice("check cable and drive")
        });
        let contents = match contents {
            Ok(contents) => contents,
            Err(problem) => {
                problems.push(problem);
                signature::Contents::default()
            }
        };
        problems.into_result()?;
        let facts = facts(name, &path, &device, contents.words.clone());
        let ground = Ground::of(&device);
        let drive = TargetDrive {
            planned_file: ground.file(),
            ground: Some(ground),
            held: Some(device.hold()),
            facts,
            sector: device.geometry().sector,
            identity: Some(device.identity().clone()),
            old: contents.wipe,
            silent: false,
            named_firmly: false,
            agreed: false,
            work: Work::Format,
            key: None,
        };
        Ok(Self { drive, context: context.clone() })
    }

    /// An image file of `size` bytes that is made when it is claimed.
    ///
    /// # Errors
    /// When the path is taken, or no file can be made at it.
    pub fn new_image(
        path: &Path,
        size: ByteLen,
        sector: SectorSize,
        context: &guard::Context,
    ) -> Result<Self, Problem> {
        if std::fs::symlink_metadata(path).is_ok() {
            let problem = Problem::new(Kind::Refused, "exists already, and nothing is overwritten").path(path);
            return Err(problem.advice("remove it, or name another image"));
        }
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let Some(ground) = Ground::unmade(&absolute) else {
            let problem = Problem::new(Kind::Environment, "no file can be made here").path(path);
            return Err(problem.advice("name a file in a directory that exists"));
        };
        let facts = DriveFacts {
            name: path.display().to_string(),
            path: absolute,
            drive_id: path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default(),
            size,
            sector: sector.bytes(),
            is_image: true,
            ..DriveFacts::default()
        };
        let drive = TargetDrive {
            facts,
            sector,
            identity: None,
            ground: Some(ground),
            held: None,
            planned_file: None,
            old: Vec::new(),
            silent: false,
            named_firmly: false,
            agreed: false,
            work: Work::Format,
            key: None,
        };
        Ok(Self { drive, context: context.clone() })
    }

    /// The drive, as a person recognises it.
    pub fn facts(&self) -> &DriveFacts {
        &self.drive.facts
    }

    /// Whether consent is needed first.
    pub fn needs_consent(&self) -> bool {
        self.drive.identity.is_some() && (!self.facts().is_image || self.facts().contents.is_some())
    }

    /// Opens it for writing: the one that was looked at, and only while nothing else uses it.
    ///
    /// # Errors
    /// When it is another by now, or something stands against it.
    pub fn claim(&self) -> Result<Arc<Device>, Problem> {
        claim::claim(&self.drive, &self.context).map(Arc::new)
    }
}

/// The same drive named twice.
///
/// # Errors
/// Both names.
pub fn twice(targets: &[&Target]) -> Result<(), Problems> {
    let mut problems = Problems::default();
    for (i, target) in targets.iter().enumerate() {
        if let Some(value) = targets[..i].iter().find_map(|other| target::same_as(&target.drive, &other.drive)) {
            let problem = Problem::new(Kind::Refused, "is the same drive under another name").value(value);
            problems.push(problem.drive(&target.facts().name).advice("name each drive once"));
        }
    }
    problems.into_result()
}

/// Facts by which a person recognises an open drive.
pub(super) fn facts(name: &Path, path: &Path, device: &Device, contents: Option<String>) -> DriveFacts {
    let identity = device.identity();
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    DriveFacts {
        name: name.display().to_string(),
        path: path.to_owned(),
        drive_id: identity.known_serial().map_or(stem, str::to_owned),
        serial: identity.known_serial().map(str::to_owned),
        for_shipping: guard::is_shippable(identity),
        model: identity.model.clone(),
        size: device.geometry().size,
        sector: device.geometry().sector.bytes(),
        contents,
        is_image: device.is_image(),
        rotational: device.geometry().rotational,
    }
}

/// Path of the block device's node, which vanishes when the drive is pulled.
pub(super) fn node(device: &Device) -> Option<PathBuf> {
    matches!(device.kind(), DeviceKind::Block { .. }).then(|| device.path().to_owned())
}
