//! Claims a drive for writing: only the one that was planned and consented to, and only while nothing else uses it.

use std::io;

use crate::device::{self, Access, Device, Held, Roots, guard};
use crate::report::{Kind, Problem};
use crate::work::target::TargetDrive;

/// Opens the drive for writing, and checks that it is the planned one.
///
/// # Errors
/// It is another drive, or a gate refuses it.
pub fn claim(target: &TargetDrive, context: &guard::Context) -> Result<Device, Problem> {
    let facts = &target.facts;
    let another = |change: String| another_drive(target, &change);
    let made = if target.identity.is_none() {
        Some(make_image(target).map_err(|error| {
            match error {
                NotMade::Another(what) => another(what),
                NotMade::Io(error) => Problem::new(Kind::Drive, format!("the image file cannot be made: {error}"))
                    .drive(&facts.name)
                    .value(facts.size.to_string())
                    .advice("choose a file system that holds files of this size, with sparse files"),
            }
        })?)
    } else {
        None
    };
    let seen = look_again(target, made.as_ref().or(target.held.as_ref()), context)?;
    let device = Device::open_with(&facts.path, Access::Claim, target.sector, &Roots::default())?;
    let change = seen.and_then(|seen| seen.change_to(&device)).or_else(|| match &target.identity {
        Some(planned) => planned.change_to(device.identity()),
        None => (device.geometry().size != facts.size).then(|| "its size is not the requested one".to_owned()),
    });
    if let Some(change) = change {
        return Err(another(change));
    }
    match guard::check(&device, context).into_iter().next() {
        Some(problem) => Err(problem),
        None => Ok(device),
    }
}

fn another_drive(target: &TargetDrive, change: &str) -> Problem {
    Problem::new(Kind::Refused, format!("is not the drive that was planned for: {change}"))
        .drive(&target.facts.name)
        .advice("nothing was written; see what its name leads to now, check the cables, and start again")
}

/// Checks, without claiming it, that the drive is the one that was held and is as free as before. The kernel reports
/// other users only of a file that is open read-only. Returns the drive as it is now; `None` for an image file that is
/// still to be created.
///
/// # Errors
/// It is another drive, or a gate refuses it.
pub fn look_again(
    target: &TargetDrive,
    held: Option<&Held>,
    context: &guard::Context,
) -> Result<Option<Held>, Problem> {
    if held.is_none() && target.identity.is_none() {
        return Ok(None);
    }
    let facts = &target.facts;
    let looking = Device::open_with(&facts.path, Access::Read, target.sector, &Roots::default())?;
    let identity = target.identity.as_ref().and_then(|planned| planned.change_to(looking.identity()));
    if let Some(change) = identity.or_else(|| held.and_then(|held| held.change_to(&looking))) {
        return Err(another_drive(target, &change));
    }
    match guard::check(&looking, context).into_iter().next() {
        Some(problem) => Err(problem),
        None => Ok(Some(looking.hold())),
    }
}

/// Reason why an image file was not created.
enum NotMade {
    /// Another file is in its place.
    Another(String),
    Io(io::Error),
}

/// Creates the image file of a target where it does not exist, or extends the existing empty one.
fn make_image(target: &TargetDrive) -> Result<Held, NotMade> {
    let facts = &target.facts;
    let file = match &target.held {
        None => device::create_image(&facts.path, facts.size),
        Some(held) => device::extend_image(&facts.path, facts.size, held.node()),
    };
    let file = file.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => NotMade::Another("a file came into its place".into()),
        io::ErrorKind::InvalidInput => NotMade::Another(error.to_string()),
        _ => NotMade::Io(error),
    })?;
    Held::of(file).ok_or_else(|| NotMade::Io(io::Error::other("the new file's identity cannot be read")))
}
