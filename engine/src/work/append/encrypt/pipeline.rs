//! The way of a batch of the pass, up to the drive: read, sealed, stored. One thread each, so that all of it goes on while
//! the batches before are written to the drive.
//!
//! [`read`] fills the slots of the drive's own pool through the block reader, whose workers seal them; [`store`] writes
//! them to the batch journal from there; [`settle`] makes batches durable, marks them, and lets them go. So the slots of
//! the drive are all the memory it takes, and nothing is copied.
//!
//! What is read ahead is no part of what is written: batches are disjoint, and BitLocker's own areas are in none
//! ([`Batches`]). What was read, stored or not, is dropped when anything fails; the drive still has it.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use super::batch_journal::{ALIGN, Batch, BatchJournal, Direction, RUNS_MAX};
use super::pass::START;
use crate::crypt::SectorCipher;
use crate::hash::Crc64;
use crate::io::{Options, Waker};
use crate::pool::{Pool, Slot};
use crate::report::{Advice, Kind, PROGRESS_INTERVAL, Problem, Setting, Stop};
use crate::stream::block_reader::{Arrived, BlockReader, Held, Load};
use crate::stream::event_loop::{self, Action, BlockIo, Next, Transfer};
use crate::stream::failures::Failures;
use crate::stream::medium::Medium;
use crate::stream::timeouts::Timeouts;
use crate::stream::workers::Workers;
use crate::units::{DeviceOffset, VolumeOffset, VolumeRange};

/// The batches of a pass over `ranges`, from a border on: ascending on the way there, descending on the way back. Each is
/// between two borders, so no two overlap.
#[derive(Clone, Debug)]
pub struct Batches<'r> {
    ranges: &'r [VolumeRange],
    border: u64,
    direction: Direction,
    room: u64,
}

impl<'r> Batches<'r> {
    /// Batches of `room` bytes at most; `ranges` are ascending and disjoint.
    pub const fn new(ranges: &'r [VolumeRange], border: u64, direction: Direction, room: u64) -> Self {
        Self { ranges, border, direction, room }
    }
}

impl Iterator for Batches<'_> {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let batch = match self.direction {
            Direction::Encrypt => after(self.ranges, self.border, self.room),
            Direction::Decrypt => before(self.ranges, self.border, self.room),
        }?;
        self.border = batch.behind(self.direction);
        Some(batch)
    }
}

/// The batch after `border`, of `room` bytes at most.
fn after(ranges: &[VolumeRange], border: u64, mut room: u64) -> Option<Batch> {
    let mut batch = Batch { start: border, end: border, runs: Vec::new() };
    let from = ranges.partition_point(|range| range.end().0 <= border);
    for range in ranges[from..].iter().take(RUNS_MAX) {
        let start = range.start.0.max(border);
        let len = (range.end().0 - start).min(room);
        batch.runs.push(VolumeRange::new(start, len));
        batch.end = start + len;
        room -= len;
        if room == 0 {
            break;
        }
    }
    (!batch.runs.is_empty()).then_some(batch)
}

/// The batch before `border`, of `room` bytes at most.
fn before(ranges: &[VolumeRange], border: u64, mut room: u64) -> Option<Batch> {
    let mut batch = Batch { start: START, end: border, runs: Vec::new() };
    let to = ranges.partition_point(|range| range.start.0 < border);
    for range in ranges[..to].iter().rev().take(RUNS_MAX) {
        let end = range.end().0.min(border);
        let len = (end - range.start.0).min(room);
        batch.runs.push(VolumeRange::new(end - len, len));
        batch.start = end - len;
        room -= len;
        if room == 0 {
            break;
        }
    }
    batch.runs.reverse();
    (!batch.runs.is_empty()).then_some(batch)
}

/// A slot's worth of a batch: ranges of the slot, with their offset in the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    parts: Vec<(Range<usize>, u64)>,
    len: usize,
    /// The batch, with its last piece.
    ends: Option<Batch>,
}

/// The runs of a batch one after the other, cut at slots.
fn pieces(batch: Batch, slot_len: usize) -> Vec<Piece> {
    let mut all: Vec<Piece> = Vec::new();
    for run in &batch.runs {
        let (mut at, end) = (run.start.0, run.end().0);
        while at < end {
            if all.last().is_none_or(|piece| piece.len == slot_len) {
                all.push(Piece { parts: Vec::new(), len: 0, ends: None });
            }
            let piece = all.last_mut().expect("there is one now");
            let len = (end - at).min((slot_len - piece.len) as u64) as usize;
            piece.parts.push((piece.len..piece.len + len, at));
            piece.len += len;
            at += len as u64;
        }
    }
    if let Some(last) = all.last_mut() {
        last.ends = Some(batch);
    }
    all
}

/// A filled slot of a batch.
#[derive(Debug)]
pub struct Filled {
    slot: Slot,
    piece: Piece,
}

impl Filled {
    /// Ranges of the slot, with their offset in the volume.
    pub fn parts(&self) -> &[(Range<usize>, u64)] {
        &self.piece.parts
    }

    /// Bytes of one of them.
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.slot[range]
    }

    /// Decrypts them all.
    pub fn open(&mut self, cipher: &SectorCipher) {
        for (range, at) in &self.piece.parts {
            cipher.open(VolumeOffset(*at), &mut self.slot[range.clone()]);
        }
    }

    /// The slot, and its bytes in use.
    pub fn into_slot(self) -> (Slot, usize) {
        (self.slot, self.piece.len)
    }
}

/// A batch on its way, whose bytes are in the batch journal.
#[derive(Debug)]
pub struct Stored {
    /// The batch.
    pub batch: Batch,
    /// All its bytes.
    pub filled: Vec<Filled>,
    /// To be told when a slot is free again.
    pub waker: Waker,
    place: u64,
    sum: u64,
}

impl Stored {
    /// Its place in the batch journal.
    pub const fn place(&self) -> u64 {
        self.place
    }
}

/// The source of a pass: the volume as it is on the drive.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Name of the drive in messages.
    pub name: &'a str,
    /// The medium for reading the drive.
    pub medium: &'a dyn Medium,
    /// First byte of the volume.
    pub start: DeviceOffset,
    /// The slots.
    pub pool: &'a Pool,
    /// The workers that seal.
    pub workers: &'a Workers,
}

impl Source<'_> {
    fn failed(&self, piece: &Piece, error: &io::Error) -> Problem {
        // Which of the parts it was is found by reading each.
        let place = |at: u64| VolumeOffset(at).on_device(self.start);
        let fails = |(range, at): &&(Range<usize>, u64)| {
            let mut bytes = vec![0; range.len()];
            piece.parts.len() > 1 && self.medium.read_exact_at(&mut bytes, place(*at)).is_err()
        };
        let part = piece.parts.iter().find(fails).or(piece.parts.first());
        unreadable(self.name, place(part.map_or(0, |(_, at)| *at)), error)
    }
}

/// The problem for bytes of the volume that cannot be read.
pub fn unreadable(name: &str, at: DeviceOffset, error: &io::Error) -> Problem {
    Problem::new(Kind::Drive, format!("cannot be read: {error}")).drive(name).at(at).advice(
        Advice::from("check cable and drive (smartctl -a); then ")
            + Setting::Resume
            + " continues, and "
            + Setting::Abort
            + " restores the volume",
    )
}

/// The problem for a batch journal that cannot be written.
pub fn unwritable(name: &str, error: &io::Error) -> Problem {
    Problem::new(Kind::Environment, format!("the batch next to the journal failed: {error}"))
        .drive(name)
        .advice("make room on the journal's disk, and resume or abort the session")
}

type Read = Result<(Piece, Held), Problem>;

/// Reads batches, piece by piece and in their order; `cipher` seals them. What cannot be read follows what was read
/// before it, and is the last.
pub fn read(
    source: Source<'_>,
    batches: Batches<'_>,
    cipher: Option<Arc<SectorCipher>>,
    ended: &Stop,
    out: &Sender<Read>,
) {
    let (seals, slot_len) = (cipher.is_some(), source.pool.slot_len());
    let loads = batches.flat_map(|batch| pieces(batch, slot_len)).enumerate().map(|(number, piece)| Load {
        len: piece.len,
        parts: piece
            .parts
            .iter()
            .map(|(range, at)| (range.clone(), VolumeOffset(*at).on_device(source.start)))
            .collect(),
        crypt: piece.parts.iter().filter(|_| seals).map(|(range, at)| (range.clone(), VolumeOffset(*at))).collect(),
        seals,
        ..Load::new((number, piece))
    });
    let Source { medium, pool, workers, name, .. } = source;
    let timeouts = Timeouts::default();
    let reader = BlockReader { medium, cipher, workers, stop: ended, slot_len, timeouts };
    let gone = || Problem::new(Kind::Interrupted, "the pass ended before what was read was stored");
    let (mut early, mut next) = (BTreeMap::new(), 0);
    let result = reader.run_in(pool, loads, |arrived: Arrived<(usize, Piece)>| {
        let (number, piece) = arrived.what;
        early.insert(number, (piece, arrived.bytes, arrived.failure));
        while let Some((piece, bytes, failure)) = early.remove(&next) {
            if let Some(error) = failure {
                return Err(source.failed(&piece, &error));
            }
            out.send(Ok((piece, bytes.away()))).map_err(|_| gone())?;
            next += 1;
        }
        Ok(())
    });
    if let Err(problem) = result {
        // Nobody may be there to take it.
        let _ = out.send(Err(problem.drive(name)));
    }
}

/// Writes pieces to the batch journal, each batch to the next of the `places`. A batch that has not begun is dropped
/// after a stop request.
pub fn store(
    journal: &BatchJournal<'_>,
    source: Source<'_>,
    stop: &Stop,
    read: &Receiver<Read>,
    places: &Receiver<u64>,
    out: &Sender<Result<Stored, Problem>>,
) {
    let failed = |error: &io::Error| unwritable(source.name, error);
    let mut io = match journal.target() {
        Ok(target) => {
            let (engine, _) = crate::io::open(target, source.pool, Options::default());
            BlockIo::new(engine, source.pool.clone(), Failures::unnamed())
        }
        Err(error) => return drop(out.send(Err(failed(&error)))),
    };
    while !stop.requested() {
        let Ok(place) = places.recv() else { return };
        match batch(journal, &mut io, place, read) {
            Ok(Some(stored)) => {
                if out.send(Ok(stored)).is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(Failure::Before(problem)) => return drop(out.send(Err(*problem))),
            Err(Failure::Here(error)) => return drop(out.send(Err(failed(&error)))),
        }
    }
}

enum Failure {
    /// Of the reader.
    Before(Box<Problem>),
    /// Of the batch journal.
    Here(io::Error),
}

/// Writes the next batch to a place; `None` when there is none.
fn batch(
    journal: &BatchJournal<'_>,
    io: &mut BlockIo,
    place: u64,
    read: &Receiver<Read>,
) -> Result<Option<Stored>, Failure> {
    let (mut sum, mut at) = (Crc64::new(), journal.body_at(place));
    let mut pieces = Vec::new();
    loop {
        let Ok(next) = read.recv() else { return Ok(None) };
        let (piece, bytes) = next.map_err(|problem| Failure::Before(Box::new(problem)))?;
        let Some((mut slot, waker)) = bytes.into_slot() else { continue };
        sum.update(&slot[..piece.len]);
        let whole = piece.len.next_multiple_of(ALIGN);
        slot[piece.len..whole].fill(0);
        io.write(pieces.len() as u64, slot, whole, DeviceOffset(at));
        at += whole as u64;
        io.submit();
        let ends = piece.ends.clone();
        pieces.push(piece);
        if let Some(batch) = ends {
            let mut writing = Writing { io, slots: BTreeMap::new(), failure: None };
            let result = event_loop::run(&mut writing);
            if let Some(error) = writing.failure {
                return Err(Failure::Here(error));
            }
            result.map_err(|problem| Failure::Here(io::Error::other(problem.what)))?;
            let slots = writing.slots;
            let filled = pieces.into_iter().zip(slots.into_values()).map(|(piece, slot)| Filled { slot, piece });
            return Ok(Some(Stored { batch, filled: filled.collect(), waker, place, sum: sum.value() }));
        }
    }
}

/// Pieces of a batch on their way to the batch journal.
struct Writing<'a> {
    io: &'a mut BlockIo,
    slots: BTreeMap<u64, Slot>,
    failure: Option<io::Error>,
}

impl Transfer for Writing<'_> {
    fn io(&mut self) -> &mut BlockIo {
        self.io
    }

    fn advance(&mut self) -> Result<Next, Problem> {
        Ok(if self.io.is_idle() { Next::Done } else { Next::Wait(PROGRESS_INTERVAL) })
    }

    fn apply(&mut self, action: Action) -> Result<(), Problem> {
        if let Action::Written { tag, slot, result } = action {
            self.slots.insert(tag, slot);
            self.failure = self.failure.take().or(result.err().map(|error| error.source));
        }
        Ok(())
    }
}

/// Makes batches durable, then marked, and passes them on only then. The mark of one becomes durable with the next one,
/// or alone where none is there yet.
pub fn settle(
    journal: &BatchJournal<'_>,
    name: &str,
    direction: Direction,
    stored: &Receiver<Result<Stored, Problem>>,
    out: &Sender<Result<Stored, Problem>>,
) {
    let mut durable: Vec<Stored> = Vec::new();
    let mut end = None;
    loop {
        let mut fresh = Vec::new();
        // Waits where there is nothing to do.
        let mut wait = durable.is_empty();
        while end.is_none() {
            let next = if wait { stored.recv().ok() } else { stored.try_recv().ok() };
            match next {
                Some(Ok(stored)) => fresh.push(stored),
                Some(Err(problem)) => end = Some(problem),
                None => break,
            }
            wait = false;
        }
        if fresh.is_empty() && durable.is_empty() {
            break;
        }
        let written = || {
            for Stored { batch, place, sum, .. } in &fresh {
                journal.head(*place, batch, direction, *sum)?;
            }
            if let Some(last) = durable.last() {
                journal.mark(Some((direction, last.batch.behind(direction))))?;
            }
            journal.sync()
        };
        if let Err(error) = written() {
            return drop(out.send(Err(unwritable(name, &error))));
        }
        for stored in std::mem::replace(&mut durable, fresh) {
            if out.send(Ok(stored)).is_err() {
                return;
            }
        }
    }
    if let Some(problem) = end {
        let _ = out.send(Err(problem));
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch_journal::BATCH_LEN;
    use super::*;

    #[test]
    fn batches_there_and_back_cover_every_range_once() {
        let mut ranges = vec![VolumeRange::new(START, 4096), VolumeRange::new(1 << 20, 3 * BATCH_LEN + 512)];
        // More runs than a batch takes, each far from the next.
        ranges.extend((0..2 * RUNS_MAX as u64 + 3).map(|i| VolumeRange::new((200 << 20) + i * (1 << 18), 4096)));
        let joined = |batches: &[Batch]| {
            let mut all: Vec<VolumeRange> = Vec::new();
            for run in batches.iter().flat_map(|batch| &batch.runs) {
                match all.last_mut() {
                    Some(last) if last.end() == run.start => last.len.0 += run.len.0,
                    _ => all.push(*run),
                }
            }
            all
        };
        let (mut there, mut border) = (Vec::new(), START);
        for batch in Batches::new(&ranges, START, Direction::Encrypt, BATCH_LEN) {
            assert!(batch.start == border && batch.bytes() <= BATCH_LEN && batch.runs.len() <= RUNS_MAX);
            border = batch.end;
            there.push(batch);
        }
        assert_eq!(joined(&there), ranges);
        assert!(there.len() > 5);
        let mut back = Vec::new();
        for batch in Batches::new(&ranges, border, Direction::Decrypt, BATCH_LEN) {
            assert!(batch.end == border && batch.bytes() <= BATCH_LEN && batch.runs.len() <= RUNS_MAX);
            border = batch.start;
            back.push(batch);
        }
        back.reverse();
        assert_eq!((joined(&back), border), (ranges, START));
    }

    #[test]
    fn what_is_read_ahead_is_no_part_of_what_is_written() {
        let mut ranges = vec![VolumeRange::new(START, 3 * BATCH_LEN / 2)];
        ranges.extend((0..3000).map(|i| VolumeRange::new((100 << 20) + i * (1 << 18), 512 * (1 + i % 90))));
        let all = ranges.iter().map(|range| range.len.0).sum::<u64>();
        for direction in [Direction::Encrypt, Direction::Decrypt] {
            let border = if direction == Direction::Encrypt { START } else { 1 << 40 };
            let batches: Vec<Batch> = Batches::new(&ranges, border, direction, 1 << 20).collect();
            assert!(batches.len() > 80, "{}", batches.len());
            let mut read = 0;
            for (i, batch) in batches.iter().enumerate() {
                assert!(
                    batch.start < batch.end
                        && batch.runs.iter().all(|run| { run.start.0 >= batch.start && run.end().0 <= batch.end })
                );
                let later = &batches[i + 1..];
                assert!(later.iter().all(|other| other.end <= batch.start || other.start >= batch.end), "{batch:?}");
                // The pieces are the batch, one byte after the other.
                let pieces = pieces(batch.clone(), 256 << 10);
                let mut expected = batch.runs.iter().flat_map(|run| (run.start.0..run.end().0).step_by(512));
                for (j, piece) in pieces.iter().enumerate() {
                    assert_eq!(piece.ends.as_ref(), (j + 1 == pieces.len()).then_some(batch));
                    assert!(piece.len == 256 << 10 || piece.ends.is_some());
                    let mut filled = 0;
                    for (range, at) in &piece.parts {
                        assert_eq!(range.start, filled);
                        filled = range.end;
                        assert!((*at..*at + range.len() as u64).step_by(512).all(|at| expected.next() == Some(at)));
                    }
                    assert_eq!(filled, piece.len);
                    read += piece.len as u64;
                }
                assert_eq!(expected.next(), None);
            }
            assert_eq!(read, all);
        }
    }
}
