//! Repairs files of a drive in place: a block whose bytes are wrong gets the right ones, in the file's own extents.
//!
//! A file is never grown, moved or made: nothing of the file system changes, only bytes of data. The volume is written as
//! it is stored, encrypted by its own sector cipher, and never mounted. No byte is written that does not have the
//! manifest's hash, and each block is read back from the device.

use std::sync::Arc;

use crate::device::Device;
use crate::hash::md5_many;
use crate::image::lane::block_io;
use crate::image::target::Target;
use crate::pool::{Pool, SLOT_LEN};
use crate::report::{Advice, Command, Kind, Problem};
use crate::units::VolumeOffset;
use crate::verify::judge::Damaged;
use crate::verify::work::runs;
use crate::volume::files::Files;
use crate::volume::find::{Found, Opened};
use crate::volume::key::Key;
use crate::work::append::commit::Store;

/// Slots of a repair: one block of 100 MiB is written in pieces.
const SLOTS: usize = 8;

/// A drive that was claimed for writing, with its volume unlocked on the same descriptor.
#[derive(Debug)]
pub struct Claimed {
    device: Arc<Device>,
    /// The volume.
    pub opened: Opened,
}

/// Claims a drive that was looked at and agreed to, and unlocks the volume on it.
///
/// # Errors
/// It is another drive by now, something stands against writing to it, or the key does not open it.
pub fn claim(target: &Target, key: &Key, partition: Option<u32>) -> Result<Claimed, Problem> {
    let device = target.claim()?;
    let serial = device.identity().serial.clone();
    let found = Found::look(Box::new(Arc::clone(&device)), target.facts().clone(), serial, partition)?;
    Ok(Claimed { device, opened: found.unlock(key, &mut |_, _| {})? })
}

/// Fills a buffer with the right bytes of a block.
pub type Fetch<'a> = dyn FnMut(&Damaged, &mut [u8]) -> Result<(), Problem> + 'a;

/// Receives the outcome of each block.
pub type Done<'a> = dyn FnMut(&Damaged, Result<(), Problem>) -> Result<(), Problem> + 'a;

/// The bytes to write for one block: places in the volume, and contents of whole sectors.
type Planned = Vec<(VolumeOffset, Vec<u8>)>;

impl Claimed {
    /// Puts the right bytes of each damaged block into its place. `fetch` fills a buffer with them; what it fails with, or
    /// bytes without the manifest's hash, leave the block as it is. `done` learns the outcome of each block, which is durable
    /// and read back by then.
    ///
    /// # Errors
    /// The drive fails, or `done` does. Refusals of single blocks are outcomes.
    pub fn repair(&self, damaged: &[Damaged], fetch: &mut Fetch<'_>, done: &mut Done<'_>) -> Result<(), Problem> {
        let name = &self.opened.found.drive.name;
        let files = Files::read(&self.opened)?;
        let pool = Pool::new(SLOTS, SLOT_LEN)
            .map_err(|error| Problem::new(Kind::Environment, format!("no memory for slots: {error}")))?;
        let mut store = Store::new(block_io(&self.device, name, &pool), &|_| ());
        for one in damaged {
            let mut bytes = vec![0; one.len as usize];
            let outcome = fetch(one, &mut bytes)
                .and_then(|()| has_hash(one, &bytes, "the source has other content than the manifest says"))
                .and_then(|()| self.plan(&files, one, &bytes));
            let outcome = match outcome {
                Ok(planned) => {
                    self.write(&mut store, &planned)?;
                    self.read_back(&planned)
                }
                Err(problem) if problem.kind == Kind::Interrupted => return Err(problem),
                Err(problem) => Err(problem),
            };
            done(one, outcome)?;
        }
        Ok(())
    }

    /// The sectors of a block with its right bytes; those at its ends keep what else is in them.
    fn plan(&self, files: &Files<'_>, one: &Damaged, bytes: &[u8]) -> Result<Planned, Problem> {
        let refused = |what: &str| {
            let problem = Problem::new(Kind::Refused, what).drive(&self.opened.found.drive.name).value(&one.file);
            problem.advice("copy the drive's files to another disk and replace this one there")
        };
        let extents = files.catalog.extents(&files.volume, one.id).map_err(|error| refused(&error.to_string()))?;
        let (unit, cluster) = (self.opened.unit(), files.volume.geometry().cluster.bytes());
        let (from, to) = (one.offset, one.offset + u64::from(one.len));
        let parts = runs(&extents, cluster, unit, from, to).ok_or_else(|| refused("is compressed or lies in $MFT"))?;
        let mut out = Vec::new();
        let mut at = from / unit * unit;
        for part in parts {
            let place = part.at.ok_or_else(|| refused("has a hole there, and nothing is allocated"))?;
            let mut sectors = vec![0; part.len as usize];
            let (start, end) = (at.max(from), (at + part.len).min(to));
            let inside = (start - at) as usize..(end - at) as usize;
            // Read-modify-write where the block does not fill its sectors: before it, and behind it up to the file's end.
            if inside != (0..sectors.len()) {
                let read = self.opened.read(VolumeOffset(place), &mut sectors);
                if let Err(error) = read
                    && (start != at || end < files.catalog.info(one.id).size)
                {
                    return Err(refused(&format!("sectors that it shares with another block cannot be read: {error}")));
                }
            }
            sectors[inside].copy_from_slice(&bytes[(start - from) as usize..(end - from) as usize]);
            out.push((VolumeOffset(place), sectors));
            at += part.len;
        }
        Ok(out)
    }

    fn write(&self, store: &mut Store<'_>, planned: &Planned) -> Result<(), Problem> {
        let failed = |error: std::io::Error| {
            Problem::new(Kind::Drive, format!("cannot be sealed: {error}")).drive(&self.opened.found.drive.name)
        };
        for (at, sectors) in planned {
            for (place, sealed) in self.opened.seal(*at, sectors).map_err(failed)? {
                store.write(place, &sealed)?;
            }
        }
        store.flush()
    }

    /// Compares what the device returns with what was written.
    fn read_back(&self, planned: &Planned) -> Result<(), Problem> {
        let name = &self.opened.found.drive.name;
        let failed =
            |error: std::io::Error| Problem::new(Kind::Drive, format!("cannot be read back: {error}")).drive(name);
        self.device.drop_caches().map_err(failed)?;
        for (at, sectors) in planned {
            let mut read = vec![0; sectors.len()];
            self.opened.read(*at, &mut read).map_err(|error| failed(error).at(self.opened.device_offset(*at)))?;
            if read != *sectors {
                let problem = Problem::new(Kind::Different, "the drive returns other bytes than were written to it");
                let advice =
                    Advice::from("the drive is failing: copy it with ") + Command::Acquire + " and repair the image";
                return Err(problem.drive(name).at(self.opened.device_offset(*at)).advice(advice));
            }
        }
        Ok(())
    }
}

/// Whether these bytes have the hash that the manifest gives the block.
fn has_hash(one: &Damaged, bytes: &[u8], what: &str) -> Result<(), Problem> {
    let mut md5 = [[0; 16]];
    md5_many(&[bytes], &mut md5);
    if md5[0] == one.hash {
        return Ok(());
    }
    let place = format!("{}, bytes {} to {}", one.blob, one.offset, one.offset + u64::from(one.len));
    Err(Problem::new(Kind::Different, format!("{what}; nothing was written")).value(place))
}
