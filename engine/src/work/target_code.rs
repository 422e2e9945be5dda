//! A drive of a session as bytes, for plan files and checkpoints.

use crate::azure::journal::Work;
use crate::checkpoint::CheckpointFault;
use crate::checkpoint::code::{Decoder, Encoder};
use crate::device::{Identity, Transport};
use crate::plan::snapshot::{read_path, write_path};
use crate::report::DriveFacts;
use crate::units::{ByteLen, DeviceRange, SectorSize};
use crate::work::target::TargetDrive;

/// Writes everything of a drive except its key.
pub fn save_target(to: &mut Encoder<'_>, target: &TargetDrive) {
    let facts = &target.facts;
    to.text(&facts.name);
    write_path(to, &facts.path);
    to.text(&facts.drive_id);
    to.u8(u8::from(facts.for_shipping));
    to.option(facts.model.as_deref(), Encoder::text);
    to.u64(facts.size.0);
    to.u64(target.sector.bytes());
    to.option(facts.contents.as_deref(), Encoder::text);
    to.u8(u8::from(facts.is_image));
    to.option(facts.rotational, |to, rotational| to.u8(u8::from(rotational)));
    to.option(target.identity.as_ref(), |to, identity| {
        for text in [&identity.serial, &identity.bridge_serial, &identity.wwn, &identity.model, &identity.vendor] {
            to.option(text.as_deref(), Encoder::text);
        }
        to.text(identity.transport.name());
        to.u64(identity.size.0);
        to.u64(identity.sector.bytes());
        to.u32(identity.physical_sector);
        to.u8(u8::from(identity.removable));
    });
    to.u64(target.old.len() as u64);
    for range in &target.old {
        to.u64(range.start.0);
        to.u64(range.len.0);
    }
    to.u8(u8::from(target.silent));
    to.u8(u8::from(target.named_firmly));
    to.option(target.planned_file, |to, (device, inode)| {
        to.u64(device);
        to.u64(inode);
    });
    to.text(target.work.as_str());
}

pub fn sector(from: &mut Decoder<'_>) -> Result<SectorSize, CheckpointFault> {
    SectorSize::from_bytes(from.u64()?).ok_or(CheckpointFault("holds an impossible sector size"))
}

/// Reads a drive. It was consented to when it was saved; a caller that resumes must check that it is unchanged.
///
/// # Errors
/// The reason why the bytes are invalid.
pub fn load_target(from: &mut Decoder<'_>) -> Result<TargetDrive, CheckpointFault> {
    let (name, path, drive_id) = (from.text()?, read_path(from)?, from.text()?);
    let for_shipping = flag(from)?;
    let model = from.option(Decoder::text)?;
    let size = ByteLen(from.u64()?);
    let sector_size = sector(from)?;
    let contents = from.option(Decoder::text)?;
    let is_image = flag(from)?;
    let rotational = from.option(flag)?;
    let identity = from.option(|from| {
        let mut text = || from.option(Decoder::text);
        let (serial, bridge_serial, wwn, model, vendor) = (text()?, text()?, text()?, text()?, text()?);
        let transport = from.text()?;
        let transport = Transport::from_name(&transport).ok_or(CheckpointFault("holds an unknown kind of drive"))?;
        let (size, sector) = (ByteLen(from.u64()?), sector(from)?);
        let (physical_sector, removable) = (from.u32()?, flag(from)?);
        Ok(Identity { serial, bridge_serial, wwn, model, vendor, transport, size, sector, physical_sector, removable })
    })?;
    let mut old = Vec::new();
    for _ in 0..from.count(16)? {
        old.push(DeviceRange::new(from.u64()?, from.u64()?));
    }
    let (silent, named_firmly) = (flag(from)?, flag(from)?);
    let planned_file = from.option(|from| Ok((from.u64()?, from.u64()?)))?;
    let work = from.text()?;
    let work = Work::parse(&work).ok_or(CheckpointFault("holds an unknown kind of work"))?;
    let serial = identity.as_ref().and_then(Identity::known_serial).map(str::to_owned);
    let sector = sector_size.bytes();
    let facts =
        DriveFacts { name, path, drive_id, serial, for_shipping, model, size, sector, contents, is_image, rotational };
    Ok(TargetDrive {
        facts,
        sector: sector_size,
        identity,
        ground: None,
        held: None,
        planned_file,
        old,
        silent,
        named_firmly,
        agreed: true,
        work,
        key: None,
    })
}

/// A yes or no.
///
/// # Errors
/// The bytes end, or hold neither.
pub fn flag(from: &mut Decoder<'_>) -> Result<bool, CheckpointFault> {
    from.option(|_| Ok(())).map(|set| set.is_some())
}
