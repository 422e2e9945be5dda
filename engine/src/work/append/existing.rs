//! The volume on a drive that is kept, unlocked.

use super::encrypt;
use crate::azure::journal::Work;
use crate::device::{Access, Device, Roots};
use crate::report::{Advice, Kind, Problem, Setting};
use crate::stream::medium::Medium;
use crate::volume::find::{Found, Inside, Opened};
use crate::volume::key::Key;
use crate::work::target::TargetDrive;

/// A drive with its volume unlocked.
#[derive(Debug)]
pub struct ExistingVolume {
    /// The drive, with its name in the driveset and its facts.
    pub target: TargetDrive,
    /// Its volume, for reading.
    pub opened: Opened,
}

impl ExistingVolume {
    /// Unlocks the volume of a drive.
    ///
    /// # Errors
    /// The key does not open it, or it holds no such volume.
    pub fn open(target: TargetDrive, roots: &Roots) -> Result<Self, Problem> {
        let device = Device::open_with(&target.facts.path, Access::Read, target.sector, roots)?;
        let opened = unlock(&target, Box::new(device))?;
        Ok(Self { target, opened })
    }
}

/// The volume on a drive, unlocked by the drive's key.
///
/// # Errors
/// As [`ExistingVolume::open`].
pub fn unlock(target: &TargetDrive, medium: Box<dyn Medium>) -> Result<Opened, Problem> {
    let name = &target.facts.name;
    let serial = target.identity.as_ref().and_then(|identity| identity.serial.clone());
    let look = || Found::look(medium, target.facts.clone(), serial, None);
    if target.work == Work::Encrypt && target.key.is_none() {
        return encrypt::plain(look()?);
    }
    let key = target.key.as_ref().ok_or_else(|| {
        Problem::new(Kind::Usage, "no key for the volume on it").drive(name).advice(
            Advice::from("bring its drive record back; a session that had not begun with it is rolled back with ")
                + Setting::Abort,
        )
    })?;
    let key = Key::read(key.expose().as_bytes())?;
    let found = look()?;
    if matches!(found.inside, Inside::Ntfs) {
        let problem = Problem::new(Kind::Refused, "holds a volume that is not encrypted").drive(name);
        return Err(problem.advice("write Encrypt, which encrypts it in place, or Format, which erases the drive"));
    }
    found.unlock(&key, &mut |_, _| {})
}
