//! Encrypts a plain volume in place, before a session adds to it; and undoes that.
//!
//! Order, each step durable before the next and recorded in the checkpoint ([`State`]):
//!
//! 1. BitLocker's areas become hidden files of the plain volume, as files are added ([`super::commit`]).
//! 2. The volume's first 8 KiB are copied to the relocated area, encrypted; the metadata regions record that nothing
//!    else is encrypted.
//! 3. The front becomes BitLocker's: from here on no system takes the drive for an ordinary volume.
//! 4. The pass (`pass`): batch by batch, ascending; the border is in the checkpoint and on the drive.
//! 5. The metadata regions record that everything is encrypted.
//!
//! After any interruption, [`encrypt`] continues to the same result, and [`decrypt`] returns to the earlier volume, bit
//! for bit except for clusters that were free. Both may be interrupted themselves.

pub mod batch_journal;
mod pass;
mod pipeline;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use batch_journal::{BatchJournal, Direction};
use pass::{Pass, START};

use super::commit::{self, Store, refused};
use crate::bitlocker::regions::{PlaceError, Regions};
use crate::checkpoint::Prefix;
pub use crate::checkpoint::work::{ConvertState as State, EncryptStep};
use crate::hash;
use crate::ntfs::build::Outcome;
use crate::ntfs::read::Volume;
use crate::plan::in_place::{InPlace, PartitionGeometry, Unfit, sealed_ranges};
use crate::report::{DriveFacts, Event, Kind, Problem, Stage, Stop, Waiting};
use crate::stream::medium::Medium;
use crate::stream::workers::Workers;
use crate::units::{ByteLen, DeviceRange, FileTime, SectorSize, VolumeOffset, VolumeRange};
use crate::volume::find::{Found, Inside, Opened, View};
use crate::work::keys::InPlaceKeys;

/// State of a volume that has not been written to yet.
pub fn begun(volume: DeviceRange, regions: &Regions, all: bool, keys: &InPlaceKeys) -> State {
    State {
        step: EncryptStep::Begun,
        border: START,
        volume,
        cluster: regions.cluster().bytes(),
        places: regions.places(),
        all,
        images: Prefix::default(),
        region: keys.region.clone(),
        front: keys.front.clone(),
    }
}

/// Checks the files next to the journal that [`decrypt`] will need; changes nothing.
///
/// # Errors
/// The fault, with the path of the file.
pub fn check_back(
    state: &State,
    keys: &InPlaceKeys,
    name: &str,
    images: (&mut File, &Path),
    batches: (&File, &Path),
) -> Result<(), Problem> {
    if state.step >= EncryptStep::Ready {
        commit::is_as_written(images.0, &state.images, name).map_err(|problem| problem.path(images.1))?;
    }
    if state.step == EncryptStep::Passing {
        let held = BatchJournal::look(batches.0, hash::sha256(&keys.region));
        pass::under_way(&held, state.border, Direction::Decrypt, name).map_err(|problem| problem.path(batches.1))?;
    }
    Ok(())
}

/// Parameters of encrypting a volume in place.
#[allow(missing_debug_implementations, reason = "holds callbacks")]
pub struct InPlaceEncryption<'a> {
    /// Index in the session's plan.
    pub index: usize,
    /// The drive, for reports.
    pub facts: &'a DriveFacts,
    /// The drive for reading.
    pub medium: Arc<dyn Medium>,
    /// Sector size of the drive.
    pub sector: SectorSize,
    /// The session's time.
    pub now: FileTime,
    /// The volume's keys.
    pub keys: &'a InPlaceKeys,
    /// The sidecar with the images of the hidden files, open for reading and writing, and its path.
    pub images: (&'a mut File, &'a Path),
    /// The sidecar with the batch under way, with its path.
    pub batches: (&'a File, &'a Path),
    /// Bytes of a batch; at most [`batch_journal::BATCH_LEN`].
    pub batch_len: u64,
    /// Makes the state durable.
    pub save: &'a mut dyn FnMut(&State) -> Result<(), Problem>,
    /// The workers that encrypt.
    pub workers: &'a Workers,
    /// Receives events.
    pub events: &'a (dyn Fn(Event) + Sync),
    /// Stop request.
    pub stop: &'a Stop,
}

/// The problem for a volume that cannot be encrypted in place.
pub fn unfit(unfit: Unfit, drive: &str) -> Problem {
    let problem = |what: String| Problem::new(Kind::Refused, what).drive(drive);
    match unfit {
        Unfit::Volume(refusal) => refused(&refusal, drive),
        Unfit::Places(error @ PlaceError::NoRoom { .. }) => problem(error.to_string()).advice(
            "make room on it (delete files, or have Windows defragment it), use another drive, or write Format",
        ),
        Unfit::Places(error) => problem(error.to_string()).advice("use another drive, or write Format"),
        Unfit::Shape(what) => problem(what).advice("nothing was written; use another drive, or write Format"),
    }
}

/// A volume that can be encrypted in place: plain NTFS, on the only partition that can hold one.
///
/// # Errors
/// The reason why it is not one.
pub fn plain(found: Found) -> Result<Opened, Problem> {
    let problem = |what: &str| Problem::new(Kind::Refused, what).drive(&found.drive.name);
    match &found.inside {
        Inside::Ntfs => {}
        Inside::Missing(problem) => return Err(problem.clone()),
        Inside::BitLocker(_) | Inside::Damaged(_) => {
            let advice = "write AlreadyEncrypted with its 48 digits; what a session cut off is finished with --resume";
            return Err(problem("holds a BitLocker volume already").value("Encrypt").advice(advice));
        }
        Inside::Unknown => {
            return Err(problem("holds no NTFS volume").advice("write Format, which erases the drive"));
        }
    }
    let Some(table) = &found.table else {
        return Err(
            problem("holds a volume without a partition, which the service does not read").advice("write Format")
        );
    };
    let others = table.partitions.iter().filter(|entry| entry.may_hold_volume()).count();
    if others > 1 || found.is_first_data() != Some(true) {
        let problem = problem("holds several partitions, of which the service reads the first only");
        return Err(problem.value(others.to_string()).advice("delete the others first, or use another drive"));
    }
    Ok(found.as_it_is())
}

impl<'a> InPlaceEncryption<'a> {
    fn found(&self, state: &State) -> Result<Found, Problem> {
        let found = Found::look(Box::new(Arc::clone(&self.medium)), self.facts.clone(), None, None)?;
        if found.volume != state.volume {
            let problem =
                Problem::new(Kind::Refused, "is partitioned in another way than when the session was planned");
            return Err(problem.drive(&self.facts.name).advice("nothing was written now; bring the partition back"));
        }
        Ok(found)
    }

    fn batches(&self) -> Result<BatchJournal<'a>, Problem> {
        let batches = BatchJournal::new(self.batches.0, hash::sha256(&self.keys.region), self.batch_len);
        batches.map_err(|error| side(&error, &self.facts.name).path(self.batches.1))
    }

    fn regions(&self, state: &State) -> Result<Regions, Problem> {
        state
            .regions(self.sector)
            .map_err(|fault| Problem::new(Kind::Environment, format!("the checkpoint {fault}")).drive(&self.facts.name))
    }

    /// Advances to a step; durable when this returns.
    fn reach(&mut self, state: &mut State, step: EncryptStep, border: u64) -> Result<(), Problem> {
        (state.step, state.border) = (step, border);
        (self.save)(state)
    }

    /// Writes zeros to the unused rest of BitLocker's files, and prepares the creation of these files.
    fn hide(&mut self, state: &State, regions: &Regions, store: &mut Store<'_>) -> Result<Prefix, Problem> {
        let name = &self.facts.name;
        let opened = plain(self.found(state)?)?;
        let mut view = View(&opened);
        let volume = Volume::open(&mut view, opened.len()).map_err(|error| refused(&error.into(), name))?;
        let partition = PartitionGeometry { len: state.volume.len, sector: self.sector, now: self.now };
        let planned =
            InPlace::plan(volume, &mut view, &partition, Some(*regions)).map_err(|error| unfit(error, name))?;
        for range in regions.sealed_zeros() {
            store.write(range.start.on_device(state.volume.start), &vec![0; range.len.0 as usize])?;
        }
        commit::prepare(&opened, store, &planned.append, &planned.tree, &Outcome::default(), self.images.0)
    }

    /// Verifies the images of the hidden files.
    fn trust(&mut self, state: &State) -> Result<(), Problem> {
        let trusted = commit::trust(self.images.0, &state.images, self.medium.as_ref(), &self.facts.name);
        trusted.map_err(|problem| match problem.kind {
            Kind::Environment => problem.path(self.images.1),
            _ => problem,
        })
    }

    /// The ranges to encrypt, read through a volume that is plain from `border` on.
    fn ranges(&self, state: &State, regions: &Regions, border: u64) -> Result<Vec<VolumeRange>, Problem> {
        let mapping = regions.mapping_until(VolumeOffset(border));
        let opened = self.found(state)?.mapped(mapping, Arc::clone(&self.keys.cipher));
        let mut view = View(&opened);
        let ranges = Volume::open(&mut view, opened.len())
            .and_then(|volume| sealed_ranges(&volume, &mut view, regions, state.all));
        ranges.map_err(|error| refused(&error.into(), &self.facts.name))
    }

    /// Runs the pass from the border to its end, or back to its start.
    fn pass(
        &mut self,
        state: &mut State,
        regions: &Regions,
        store: &mut Store<'_>,
        direction: Direction,
    ) -> Result<(), Problem> {
        let (name, keys, batches) = (&self.facts.name, self.keys, self.batches()?);
        let medium = Arc::clone(&self.medium);
        let volume = state.volume;
        let mut pass = Pass { name, medium: medium.as_ref(), store, volume, regions, keys, batches };
        let border = pass.recover(state.border, direction).map_err(|problem| match problem.kind {
            Kind::Environment => problem.path(self.batches.1),
            _ => problem,
        })?;
        if border != state.border {
            pass.report(border)?;
            self.reach(state, EncryptStep::Passing, border)?;
        }
        // They would be taken for what is stored now.
        pass.batches.forget().map_err(|error| side(&error, name).path(self.batches.1))?;
        let ranges = self.ranges(state, regions, border)?;
        let total = ByteLen(ranges.iter().map(|range| range.len.0).sum());
        let done = |border: u64| {
            let below = ranges.iter().map(|range| border.clamp(range.start.0, range.end().0) - range.start.0).sum();
            ByteLen(if direction == Direction::Encrypt { below } else { total.0 - below })
        };
        let (index, events, workers) = (self.index, self.events, self.workers);
        let tell = |border: u64| {
            let (acknowledged, waiting_for) = (done(border), Waiting::Drive);
            events(Event::Progress { drive: index, acknowledged, total, files: 0, waiting_for });
        };
        tell(border);
        // A volume that is being restored is restored to the end.
        let never = Stop::new();
        let stop = if direction == Direction::Encrypt { self.stop } else { &never };
        let mut reached = |border: u64| {
            self.reach(state, EncryptStep::Passing, border)?;
            tell(border);
            Ok(())
        };
        let border = pass.run(&ranges, border, direction, (workers, stop), &mut reached)?;
        if done(border) != total {
            pass.store.flush()?;
            return Err(Problem::new(Kind::Interrupted, "stopped on request, with the volume encrypted in part")
                .drive(name)
                .advice("continue with `--resume`, or restore the volume with `--abort`; keep the journal's files"));
        }
        if direction == Direction::Encrypt {
            pass.end()?;
            // Later writes of the session must not be mistaken for contents of the batch.
            pass.batches.forget().map_err(|error| side(&error, name))?;
        }
        pass.store.flush()
    }
}

fn side(error: &io::Error, name: &str) -> Problem {
    Problem::new(Kind::Environment, format!("the files next to the journal failed: {error}"))
        .drive(name)
        .advice("make room on the journal's disk, and resume or abort the session")
}

/// Encrypts the volume, starting from any `state`.
///
/// # Errors
/// Errors of the drive or of the files next to the journal. Repeat it, or call [`decrypt`].
pub fn encrypt(work: &mut InPlaceEncryption<'_>, state: &mut State, store: &mut Store<'_>) -> Result<(), Problem> {
    let regions = work.regions(state)?;
    let (name, keys) = (&work.facts.name, work.keys);
    if state.step < EncryptStep::Done {
        (work.events)(Event::Stage { drive: work.index, stage: Stage::Encrypting });
        // Room for a batch, before anything is written to the drive.
        work.batches()?;
    }
    if state.step == EncryptStep::Begun {
        state.images = work.hide(state, &regions, store)?;
        work.reach(state, EncryptStep::Ready, START)?;
    }
    if state.step == EncryptStep::Ready {
        work.trust(state)?;
        commit::redo(work.images.0, store)?;
        work.reach(state, EncryptStep::Hidden, START)?;
    }
    if matches!(state.step, EncryptStep::Hidden | EncryptStep::Relocated) {
        let medium = Arc::clone(&work.medium);
        let (volume, batches) = (state.volume, work.batches()?);
        let mut pass = Pass { name, medium: medium.as_ref(), store, volume, regions: &regions, keys, batches };
        if state.step == EncryptStep::Hidden {
            pass.relocate()?;
            work.reach(state, EncryptStep::Relocated, START)?;
        }
        // From here on the file records whether a batch is under way.
        pass.batches.forget().map_err(|error| side(&error, name).path(work.batches.1))?;
        pass.put_front(Direction::Encrypt)?;
        work.reach(state, EncryptStep::Passing, START)?;
    }
    if state.step == EncryptStep::Passing {
        work.pass(state, &regions, store, Direction::Encrypt)?;
        let end = state.volume.len.0;
        work.reach(state, EncryptStep::Done, end)?;
    }
    Ok(())
}

/// Returns the volume to its earlier state, starting from any `state`. Additions of the session must have been removed.
///
/// # Errors
/// Errors of the drive or of the files next to the journal. Repeat it.
pub fn decrypt(work: &mut InPlaceEncryption<'_>, state: &mut State, store: &mut Store<'_>) -> Result<(), Problem> {
    let regions = work.regions(state)?;
    let (name, keys) = (&work.facts.name, work.keys);
    if state.step == EncryptStep::Done {
        let end = state.volume.len.0;
        work.batches()?.forget().map_err(|error| side(&error, name).path(work.batches.1))?;
        work.reach(state, EncryptStep::Passing, end)?;
    }
    if state.step == EncryptStep::Passing {
        work.pass(state, &regions, store, Direction::Decrypt)?;
        work.reach(state, EncryptStep::Relocated, START)?;
    }
    if state.step == EncryptStep::Relocated {
        let medium = Arc::clone(&work.medium);
        let (volume, batches) = (state.volume, work.batches()?);
        Pass { name, medium: medium.as_ref(), store, volume, regions: &regions, keys, batches }
            .put_front(Direction::Decrypt)?;
        work.reach(state, EncryptStep::Hidden, START)?;
    }
    if matches!(state.step, EncryptStep::Hidden | EncryptStep::Ready) {
        work.trust(state)?;
        commit::undo(work.images.0, store)?;
        work.reach(state, EncryptStep::Begun, START)?;
    }
    Ok(())
}
