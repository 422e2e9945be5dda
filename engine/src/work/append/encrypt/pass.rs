//! The pass over the volume, forwards and back: batch by batch, with a border between the encrypted and the plain part.
//!
//! Ranges in use below the border are encrypted, those from it on are plain, except the batches under way, which are in
//! the batch journal. The next ones are read and stored there ([`pipeline`](super::pipeline)) while one is written:
//!
//! 1. A batch is durable in the batch journal, and marked there, before a byte of it goes to the drive.
//! 2. Batches are durable on the drive before the checkpoint records the border behind them; it does so for
//!    [`TOGETHER`] of them at a time.
//! 3. Their places in the batch journal are used again after that.
//!
//! The metadata regions on the drive record a border too, so that a drive without a batch under way can be read with its
//! key alone. Resuming goes by the checkpoint; so during the pass the regions follow it with the next flush, the
//! first of them and the other two by turns: one side is always complete. A pass that ends early, on request or because
//! something cannot be read or stored, first finishes the batches that are marked and brings the regions up to date.

use std::io;
use std::thread;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, unbounded};

use super::batch_journal::{BatchJournal, Direction, Kept, PLACES};
use super::pipeline::{self, Batches, Source, Stored};
use crate::bitlocker::build::{FRONT_LEN, REGION_LEN};
use crate::bitlocker::regions::Regions;
use crate::report::{Kind, Problem, Stop};
use crate::stream::medium::Medium;
use crate::stream::workers::Workers;
use crate::units::{DeviceOffset, DeviceRange, VolumeOffset, VolumeRange};
use crate::work::append::commit::Store;
use crate::work::keys::InPlaceKeys;

/// Offset at which the pass begins: the part before it is stored elsewhere.
pub const START: u64 = FRONT_LEN as u64;

/// Batches that are made durable on the drive at once: half of what the batch journal holds, so that the others are
/// stored meanwhile.
const TOGETHER: u64 = PLACES / 2;

/// Slots for what is copied on its way to the drive: metadata regions, and short runs.
const COPY_SLOTS: usize = 2;

/// Parameters of a pass.
pub struct Pass<'a, 's> {
    /// Name of the drive in messages.
    pub name: &'a str,
    /// The medium for reading the drive.
    pub medium: &'a dyn Medium,
    /// The writer of the drive.
    pub store: &'a mut Store<'s>,
    /// The volume on the drive.
    pub volume: DeviceRange,
    /// BitLocker's areas.
    pub regions: &'a Regions,
    /// The volume's keys.
    pub keys: &'a InPlaceKeys,
    /// The batch under way.
    pub batches: BatchJournal<'a>,
}

/// The batches that may have been written to the drive in part.
///
/// # Errors
/// They are damaged, or another version stored them.
pub fn under_way(
    batches: &BatchJournal<'_>,
    border: u64,
    direction: Direction,
    name: &str,
) -> Result<Vec<Kept>, Problem> {
    batches.under_way(border, direction).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => damaged(name),
        io::ErrorKind::Unsupported => {
            let what = "the file next to the journal was written by another version of dray";
            let advice = "nothing was changed; continue the session, or roll it back, with the version that began it";
            Problem::new(Kind::Environment, what).drive(name).advice(advice)
        }
        _ => Problem::new(Kind::Environment, format!("the batch next to the journal cannot be read: {error}"))
            .drive(name),
    })
}

fn damaged(name: &str) -> Problem {
    Problem::new(Kind::Environment, "the batch that was under way is damaged in the file next to the journal")
        .drive(name)
        .advice("restore the file as it was: a part of the volume can be in between, and only it has that part")
}

impl Pass<'_, '_> {
    fn at(&self, at: VolumeOffset) -> DeviceOffset {
        at.on_device(self.volume.start)
    }

    fn read(&self, range: VolumeRange, into: &mut [u8]) -> Result<(), Problem> {
        let at = self.at(range.start);
        self.medium.read_exact_at(into, at).map_err(|error| pipeline::unreadable(self.name, at, &error))
    }

    /// Writes metadata regions, from the `first` of three to before the `end`.
    fn write_regions(&mut self, region: &[u8], first: usize, end: usize) -> Result<(), Problem> {
        for place in &self.regions.metadata()[first..end] {
            let at = self.at(place.start);
            self.store.write(at, &region[..REGION_LEN])?;
        }
        Ok(())
    }

    /// Copies the front of the volume to its relocated area, and writes the regions for the first time. Nothing refers
    /// to them yet.
    pub fn relocate(&mut self) -> Result<(), Problem> {
        let mut front = vec![0; FRONT_LEN];
        self.read(self.regions.front(), &mut front)?;
        let home = self.regions.relocated().start;
        self.keys.cipher.seal(home, &mut front);
        let at = self.at(home);
        self.store.write(at, &front)?;
        self.write_regions(&self.keys.converting.until(VolumeOffset(START)), 0, 3)?;
        self.store.flush()
    }

    /// Writes the front of a BitLocker volume, or that of NTFS again; the original front is stored elsewhere.
    pub fn put_front(&mut self, direction: Direction) -> Result<(), Problem> {
        let mut front = self.keys.front.clone();
        if direction == Direction::Decrypt {
            let home = self.regions.relocated();
            self.read(home, &mut front)?;
            self.keys.cipher.open(home.start, &mut front);
        }
        let at = self.at(VolumeOffset(0));
        self.store.write(at, &front)?;
        self.store.flush()
    }

    /// Completes the batches that were under way, or undoes them, and returns the border.
    pub fn recover(&mut self, border: u64, direction: Direction) -> Result<u64, Problem> {
        let found = under_way(&self.batches, border, direction, self.name)?;
        for Kept { batch, .. } in &found {
            let inside = |run: &VolumeRange| run.start.0 >= batch.start && run.end().0 <= batch.end;
            if !batch.runs.iter().all(inside) || batch.start < START || batch.end > self.volume.len.0 {
                return Err(damaged(self.name));
            }
        }
        let mut now = border;
        for kept in &found {
            let bytes = self.batches.bytes(kept).map_err(|error| pipeline::unwritable(self.name, &error))?;
            let mut rest = &mut bytes.ok_or_else(|| damaged(self.name))?[..];
            for run in &kept.batch.runs {
                let (part, behind) = rest.split_at_mut(run.len.0 as usize);
                if direction == Direction::Decrypt {
                    self.keys.cipher.open(run.start, part);
                }
                let at = self.at(run.start);
                self.store.write(at, part)?;
                rest = behind;
            }
            // On the way back a batch of the way there is undone, and the border stays.
            if kept.direction == direction {
                now = kept.batch.behind(direction);
            }
        }
        if !found.is_empty() {
            self.store.flush()?;
        }
        Ok(now)
    }

    /// Runs over `ranges` from `border` on. `reached` makes each new border durable. Returns the last border, which is
    /// not the end after a stop request.
    ///
    /// # Errors
    /// Errors of the drive, of the batch journal, or of `reached`. What was stored before is finished, unless the drive
    /// cannot be written.
    pub fn run(
        &mut self,
        ranges: &[VolumeRange],
        border: u64,
        direction: Direction,
        (workers, stop): (&Workers, &Stop),
        reached: &mut dyn FnMut(u64) -> Result<(), Problem>,
    ) -> Result<u64, Problem> {
        self.store.keep(COPY_SLOTS)?;
        let (pool, name, medium) = (&self.store.pool().clone(), self.name, self.medium);
        let room = self.batches.batch_len();
        let source = Source { name, medium, start: self.volume.start, pool, workers };
        let batches = Batches::new(ranges, border, direction, room);
        let cipher = (direction == Direction::Encrypt).then(|| self.keys.cipher.clone());
        let journal = &self.batches.clone();
        let ended = Stop::new();
        let result = thread::scope(|scope| {
            // Bounded by the slots that they carry.
            let (to_store, from_reader) = unbounded();
            let (to_settle, from_store) = unbounded();
            let (to_drive, settled) = unbounded();
            let (free, places) = bounded(PLACES as usize);
            (0..PLACES).try_for_each(|place| free.send(place)).expect("there is room for each");
            let ended = &ended;
            let spawned = spawn(scope, "read ahead", move || pipeline::read(source, batches, cipher, ended, &to_store))
                .and_then(|()| {
                    let store = move || pipeline::store(journal, source, stop, &from_reader, &places, &to_settle);
                    spawn(scope, "store", store)
                })
                .and_then(|()| {
                    let settle = move || pipeline::settle(journal, name, direction, &from_store, &to_drive);
                    spawn(scope, "settle", settle)
                });
            let mut failure = None;
            let result = spawned.and_then(|()| self.drain(border, direction, (&settled, &free), &mut failure, reached));
            ended.request();
            drop((settled, free));
            failure.map_or(result, Err)
        });
        self.store.keep(0)?;
        result
    }

    /// Writes what is stored, as it comes, and returns the border behind it. `failure` is what ended the coming.
    fn drain(
        &mut self,
        border: u64,
        direction: Direction,
        (settled, free): (&Receiver<Result<Stored, Problem>>, &Sender<u64>),
        failure: &mut Option<Problem>,
        reached: &mut dyn FnMut(u64) -> Result<(), Problem>,
    ) -> Result<u64, Problem> {
        let (mut now, mut recorded) = (border, border);
        // Places of batches that were given to the drive, and of those that are durable there, with the border.
        let (mut written, mut durable) = (Vec::new(), None);
        let (mut first, mut is_end) = (true, false);
        while !is_end || durable.is_some() {
            let next = match settled.try_recv() {
                Ok(next) => Some(next),
                Err(TryRecvError::Empty) if durable.is_some() => None,
                Err(TryRecvError::Empty) if self.store.reap()? => continue,
                Err(_) => {
                    let next = settled.recv().ok();
                    is_end = next.is_none();
                    next
                }
            };
            match next {
                Some(Ok(stored)) => {
                    now = stored.batch.behind(direction);
                    written.push(stored.place());
                    self.write(stored, direction)?;
                }
                Some(Err(problem)) => *failure = Some(problem),
                None => {}
            }
            // While the drive is busy with the next batch, if there is one.
            if let Some((border, places)) = durable.take() {
                reached(border)?;
                recorded = border;
                // Whoever stores may have ended.
                let _ = Vec::into_iter(places).try_for_each(|place| free.send(place));
            }
            if written.len() as u64 >= TOGETHER || is_end && !written.is_empty() {
                if recorded != border {
                    let region = self.keys.converting.until(VolumeOffset(recorded));
                    let (from, to) = if first { (0, 1) } else { (1, 3) };
                    self.write_regions(&region, from, to)?;
                    first = !first;
                }
                self.store.flush()?;
                durable = Some((now, std::mem::take(&mut written)));
            }
        }
        self.report(now)?;
        Ok(now)
    }

    fn write(&mut self, stored: Stored, direction: Direction) -> Result<(), Problem> {
        for mut filled in stored.filled {
            if direction == Direction::Decrypt {
                filled.open(&self.keys.cipher);
            }
            if let [(_, at)] = filled.parts() {
                let at = self.at(VolumeOffset(*at));
                let (slot, len) = filled.into_slot();
                self.store.write_slot(at, slot, len, &stored.waker);
                continue;
            }
            for (range, at) in filled.parts() {
                self.store.write(self.at(VolumeOffset(*at)), filled.bytes(range.clone()))?;
            }
            drop(filled);
            stored.waker.wake();
        }
        Ok(())
    }

    /// Records the border on the drive: durably in the first region, without a flush in the others.
    pub fn report(&mut self, border: u64) -> Result<(), Problem> {
        let region = self.keys.converting.until(VolumeOffset(border));
        self.write_regions(&region, 0, 1)?;
        self.store.flush()?;
        self.write_regions(&region, 1, 3)
    }

    /// Records on the drive that everything is encrypted.
    pub fn end(&mut self) -> Result<(), Problem> {
        self.write_regions(&self.keys.region, 0, 1)?;
        self.store.flush()?;
        self.write_regions(&self.keys.region, 1, 3)?;
        self.store.flush()
    }
}

fn spawn<'s>(scope: &'s thread::Scope<'s, '_>, name: &str, act: impl FnOnce() + Send + 's) -> Result<(), Problem> {
    let spawned = thread::Builder::new().name(name.into()).spawn_scoped(scope, act);
    spawned
        .map(drop)
        .map_err(|error| Problem::new(Kind::Environment, format!("the system refuses more threads: {error}")))
}
