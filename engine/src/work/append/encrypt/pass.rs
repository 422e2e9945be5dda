//! The pass over the volume, forwards and back: batch by batch, with a border between the encrypted and the plain part.
//!
//! Ranges in use below the border are encrypted, those from it on are plain, except the batch under way, which is in
//! the batch journal. The metadata regions on the drive record the border too, so that a drive without a batch under
//! way can be read with its key alone: the first of them is always complete, the others follow with the next batch.

use std::io;

use super::batch_journal::{Batch, BatchJournal, Direction, RUNS_MAX};
use crate::bitlocker::build::{FRONT_LEN, REGION_LEN};
use crate::bitlocker::regions::Regions;
use crate::report::{Advice, Kind, Problem, Setting};
use crate::stream::medium::Medium;
use crate::units::{ByteOffset, ByteRange};
use crate::work::append::commit::Store;
use crate::work::keys::Keys;

/// Offset at which the pass begins: the part before it is stored elsewhere.
pub const START: u64 = FRONT_LEN as u64;

/// Parameters of a pass.
pub struct Pass<'a, 's> {
    /// Name of the drive in messages.
    pub name: &'a str,
    /// The medium for reading the drive.
    pub medium: &'a dyn Medium,
    /// The writer of the drive.
    pub store: &'a mut Store<'s>,
    /// The volume on the drive.
    pub volume: ByteRange,
    /// BitLocker's areas.
    pub regions: &'a Regions,
    /// The volume's keys.
    pub keys: &'a Keys,
    /// The batch under way.
    pub batches: BatchJournal<'a>,
}

/// The batch that may have been written to the drive in part.
///
/// # Errors
/// It is damaged.
pub fn under_way(
    batches: &BatchJournal<'_>,
    border: u64,
    direction: Direction,
    name: &str,
) -> Result<Option<(Batch, Vec<u8>)>, Problem> {
    batches.under_way(border, direction).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => damaged(name),
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
    fn at(&self, at: u64) -> ByteOffset {
        ByteOffset(self.volume.start.0 + at)
    }

    fn read(&self, range: ByteRange, into: &mut [u8]) -> Result<(), Problem> {
        let at = self.at(range.start.0);
        self.medium.read_exact_at(into, at).map_err(|error| {
            Problem::new(Kind::Drive, format!("cannot be read: {error}")).drive(self.name).at(at).advice(
                Advice::from("check cable and drive (smartctl -a); then ")
                    + Setting::Resume
                    + " continues, and "
                    + Setting::Abort
                    + " restores the volume",
            )
        })
    }

    fn side(&self, error: &io::Error) -> Problem {
        Problem::new(Kind::Environment, format!("the batch next to the journal failed: {error}"))
            .drive(self.name)
            .advice("make room on the journal's disk, and resume or abort the session")
    }

    /// Writes metadata regions, from the `first` of three to before the `end`.
    fn write_regions(&mut self, region: &[u8], first: usize, end: usize) -> Result<(), Problem> {
        for place in &self.regions.metadata()[first..end] {
            let at = self.at(place.start.0);
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
        let at = self.at(home.0);
        self.store.write(at, &front)?;
        self.write_regions(&self.keys.converting.until(ByteOffset(START)), 0, 3)?;
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
        let at = self.at(0);
        self.store.write(at, &front)?;
        self.store.flush()
    }

    /// Completes a batch that was under way, and returns the border.
    pub fn recover(&mut self, border: u64, direction: Direction) -> Result<u64, Problem> {
        let kept = under_way(&self.batches, border, direction, self.name)?;
        let Some((batch, mut sealed)) = kept else { return Ok(border) };
        let inside = |run: &ByteRange| run.start.0 >= batch.start && run.end().0 <= batch.end;
        if !batch.runs.iter().all(inside) || batch.end > self.volume.len.0 {
            return Err(damaged(self.name));
        }
        if direction == Direction::Decrypt {
            self.crypt(&batch, &mut sealed, Direction::Decrypt);
        }
        self.write(&batch, &sealed)?;
        Ok(if direction == Direction::Encrypt { batch.end } else { batch.start })
    }

    fn crypt(&self, batch: &Batch, bytes: &mut [u8], direction: Direction) {
        let mut rest = bytes;
        for run in &batch.runs {
            let (part, behind) = rest.split_at_mut(run.len.0 as usize);
            match direction {
                Direction::Encrypt => self.keys.cipher.seal(run.start, part),
                Direction::Decrypt => self.keys.cipher.open(run.start, part),
            }
            rest = behind;
        }
    }

    fn write(&mut self, batch: &Batch, bytes: &[u8]) -> Result<(), Problem> {
        let mut rest = bytes;
        for run in &batch.runs {
            let (part, behind) = rest.split_at(run.len.0 as usize);
            let at = self.at(run.start.0);
            self.store.write(at, part)?;
            rest = behind;
        }
        self.store.flush()
    }

    /// Processes the next batch of `ranges` from `border` on; returns the new border, or `None` when nothing is left.
    pub fn step(&mut self, ranges: &[ByteRange], border: u64, direction: Direction) -> Result<Option<u64>, Problem> {
        let batch = match direction {
            Direction::Encrypt => next(ranges, border, self.batches.batch_len()),
            Direction::Decrypt => previous(ranges, border, self.batches.batch_len()),
        };
        let Some(batch) = batch else { return Ok(None) };
        let mut bytes = vec![0; batch.bytes() as usize];
        let mut rest = &mut bytes[..];
        for run in &batch.runs {
            let (part, behind) = rest.split_at_mut(run.len.0 as usize);
            self.read(*run, part)?;
            rest = behind;
        }
        if direction == Direction::Encrypt {
            self.crypt(&batch, &mut bytes, direction);
        }
        self.batches.keep(&batch, &bytes, direction).map_err(|error| self.side(&error))?;
        if direction == Direction::Decrypt {
            self.crypt(&batch, &mut bytes, direction);
        }
        self.write(&batch, &bytes)?;
        Ok(Some(if direction == Direction::Encrypt { batch.end } else { batch.start }))
    }

    /// Records the border on the drive: durably in the first region, without a flush in the others.
    pub fn report(&mut self, border: u64) -> Result<(), Problem> {
        let region = self.keys.converting.until(ByteOffset(border));
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

/// The batch after `border`, of `room` bytes at most.
fn next(ranges: &[ByteRange], border: u64, mut room: u64) -> Option<Batch> {
    let mut batch = Batch { start: border, end: border, runs: Vec::new() };
    let from = ranges.partition_point(|range| range.end().0 <= border);
    for range in ranges[from..].iter().take(RUNS_MAX) {
        let start = range.start.0.max(border);
        let len = (range.end().0 - start).min(room);
        batch.runs.push(ByteRange::new(start, len));
        batch.end = start + len;
        room -= len;
        if room == 0 {
            break;
        }
    }
    (!batch.runs.is_empty()).then_some(batch)
}

/// The batch before `border`, of `room` bytes at most.
fn previous(ranges: &[ByteRange], border: u64, mut room: u64) -> Option<Batch> {
    let mut batch = Batch { start: START, end: border, runs: Vec::new() };
    let to = ranges.partition_point(|range| range.start.0 < border);
    for range in ranges[..to].iter().rev().take(RUNS_MAX) {
        let end = range.end().0.min(border);
        let len = (end - range.start.0).min(room);
        batch.runs.push(ByteRange::new(end - len, len));
        batch.start = end - len;
        room -= len;
        if room == 0 {
            break;
        }
    }
    batch.runs.reverse();
    (!batch.runs.is_empty()).then_some(batch)
}

#[cfg(test)]
mod tests {
    use super::super::batch_journal::BATCH_LEN;
    use super::*;

    #[test]
    fn batches_there_and_back_cover_every_range_once() {
        let mut ranges = vec![ByteRange::new(START, 4096), ByteRange::new(1 << 20, 3 * BATCH_LEN + 512)];
        // More runs than a batch takes, each far from the next.
        ranges.extend((0..2 * RUNS_MAX as u64 + 3).map(|i| ByteRange::new((200 << 20) + i * (1 << 18), 4096)));
        let joined = |batches: &[Batch]| {
            let mut all: Vec<ByteRange> = Vec::new();
            for run in batches.iter().flat_map(|batch| &batch.runs) {
                match all.last_mut() {
                    Some(last) if last.end() == run.start => last.len.0 += run.len.0,
                    _ => all.push(*run),
                }
            }
            all
        };
        let (mut there, mut border) = (Vec::new(), START);
        while let Some(batch) = next(&ranges, border, BATCH_LEN) {
            assert!(batch.start == border && batch.bytes() <= BATCH_LEN && batch.runs.len() <= RUNS_MAX);
            border = batch.end;
            there.push(batch);
        }
        assert_eq!(joined(&there), ranges);
        assert!(there.len() > 5);
        let mut back = Vec::new();
        while let Some(batch) = previous(&ranges, border, BATCH_LEN) {
            assert!(batch.end == border && batch.bytes() <= BATCH_LEN && batch.runs.len() <= RUNS_MAX);
            border = batch.start;
            back.push(batch);
        }
        back.reverse();
        assert_eq!((joined(&back), border), (ranges, START));
    }
}
