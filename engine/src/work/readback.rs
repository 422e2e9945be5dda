//! Reads written data back: from the device, past every cache, opened with the key as the drive record prints it, and
//! compared with the checksums and hashes of the written data.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use zeroize::Zeroizing;

use crate::azure::dataset::BlobType;
use crate::device;
use crate::entropy::Seeded;
use crate::plan::batches::{Batch, Content, Phase};
use crate::plan::drive::DriveLayout;
use crate::pool::Pool;
use crate::report::{DriveFacts, Event, Kind, PROGRESS_INTERVAL, Problem, Stage, Stop, Waiting};
use crate::request::ReadBack;
use crate::stream::block_reader::{Arrived, BlockReader, Load};
use crate::stream::medium::Medium;
use crate::stream::timeouts::Timeouts;
use crate::stream::workers::{Digest, How, Span, Workers};
use crate::units::{ByteLen, DeviceOffset, DeviceRange};
use crate::volume::find::{Found, Opened};
use crate::volume::key::Key;
use crate::work::outcome::{HashReader, Sum};

/// Data batches of a sample in addition to the first and the last: about a GiB, spread over the drive.
const SAMPLE: usize = 256;

/// The written data, and the references to compare it with.
#[allow(missing_debug_implementations, reason = "holds a callback")]
#[derive(Clone, Copy)]
pub struct Written<'a> {
    /// Index in the session's plan.
    pub index: usize,
    /// The drive, for reports.
    pub facts: &'a DriveFacts,
    /// Layout of the drive.
    pub layout: &'a DriveLayout,
    /// Length of a slot when it was written.
    pub slot_len: usize,
    /// Checksum of each batch before sealing, in the order of the plan; `None` where that is not known.
    pub sums: &'a [Option<Sum>],
    /// File of block hashes in the order of the plan.
    pub hashes: Option<&'a Path>,
    /// File from which the key is read that must open the drive: the drive record, or the recovery key file. `None` for
    /// a drive without a key.
    pub record: Option<&'a Path>,
    /// Amount to read.
    pub how: ReadBack,
    /// Seed for choosing the sample.
    pub seed: u64,
    /// Limits after which the drive is given up.
    pub timeouts: Timeouts,
    /// The shared workers.
    pub workers: &'a Workers,
    /// The drive's slots.
    pub pool: &'a Pool,
    /// Receives events.
    pub events: &'a (dyn Fn(Event) + Sync),
    /// Stop request.
    pub stop: &'a Stop,
}

/// A batch under way.
struct Back {
    at: DeviceOffset,
    phase: Phase,
    sum: Option<Sum>,
    /// Expected MD5 of each span, and the index of its file.
    blocks: Vec<(u32, [u8; 16])>,
    len: usize,
}

/// Reads back from `medium`, whose caches were dropped, and returns the number of bytes read.
///
/// # Errors
/// [`Kind::Different`] at the first difference, with its place; the drive's own errors; a key that does not open it.
#[cfg(test)]
pub fn run(medium: Box<dyn Medium>, written: &Written<'_>) -> Result<ByteLen, Problem> {
    if written.how == ReadBack::None {
        return Ok(ByteLen(0));
    }
    run_open(medium, written).map(|(len, _)| len)
}

/// The same in any case, and gives the volume as it was opened.
///
/// # Errors
/// As `run`.
pub fn run_open(medium: Box<dyn Medium>, written: &Written<'_>) -> Result<(ByteLen, Opened), Problem> {
    (written.events)(Event::Stage { drive: written.index, stage: Stage::ReadBack });
    let name = &written.facts.name;
    let opened = open_again(medium, written.facts, written.record, Some(written.layout.volume()))?;
    let chosen = choose(written);
    let total = ByteLen(chosen.iter().map(|(_, len)| *len as u64).sum());
    let mut hashes = written.hashes.map(File::open).transpose().map_err(sidecar)?.map(HashReader::new);
    let mut broken: Option<io::Error> = None;
    let mut chosen = chosen.into_iter().map(|(seq, _)| seq).peekable();
    let mut batches = written.layout.batches(written.slot_len).enumerate();
    let loads = std::iter::from_fn(|| {
        loop {
            chosen.peek()?;
            let (seq, batch) = batches.next()?;
            let taken = chosen.next_if_eq(&(seq as u64)).is_some();
            match load(written, seq, batch, hashes.as_mut()) {
                Ok(load) if taken => return Some(load),
                Ok(_) => {}
                Err(error) => {
                    broken = Some(error);
                    return None;
                }
            }
        }
    });
    let road = BlockReader {
        medium: opened.medium(),
        cipher: opened.cipher(),
        workers: written.workers,
        stop: written.stop,
        slot_len: written.slot_len,
        timeouts: written.timeouts,
    };
    let (mut done, mut reported) = (0, Instant::now());
    road.run_in(written.pool, loads, |arrived| {
        done += arrived.bytes.len() as u64;
        compare(written, &arrived)?;
        if reported.elapsed() >= PROGRESS_INTERVAL || done == total.0 {
            reported = Instant::now();
            (written.events)(Event::Progress {
                drive: written.index,
                acknowledged: ByteLen(done),
                total,
                files: 0,
                waiting_for: Waiting::Drive,
            });
        }
        Ok(())
    })
    .map_err(|problem| match problem.kind {
        Kind::Interrupted => problem.drive(name).advice("it is written, and read back again with --resume"),
        _ => problem.drive(name),
    })?;
    match broken {
        Some(error) => Err(sidecar(error).drive(name)),
        None => Ok((ByteLen(done), opened)),
    }
}

/// Opens the volume with the key as the drive record prints it; at `place`, where that is known.
///
/// # Errors
/// As `run`.
pub(crate) fn open_again(
    medium: Box<dyn Medium>,
    facts: &DriveFacts,
    record: Option<&Path>,
    place: Option<DeviceRange>,
) -> Result<Opened, Problem> {
    let key = match record {
        Some(record) => {
            let printed = std::fs::read(record).map(Zeroizing::new).map_err(|error| {
                Problem::new(Kind::Environment, format!("the drive record cannot be read back: {error}")).path(record)
            })?;
            Key::read(&printed)?
        }
        None => Key::none(),
    };
    let found = Found::look(medium, facts.clone(), None, None)?;
    if place.is_some_and(|place| place != found.volume) {
        return Err(different("the partition table that was read back shows another volume", &facts.name));
    }
    found.unlock(&key, &mut |_, _| {}).map_err(|problem| {
        let what = format!("the key as the drive record prints it does not open the drive: {}", problem.what);
        different(&what, &facts.name)
    })
}

/// The seed of the sample for a drive whose manifest has this MD5.
pub(crate) fn seed(manifest_md5: &[u8; 16]) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| manifest_md5[i]))
}

/// The batches to read, by number in the plan, and their lengths: all, or the ends, the metadata and a sample.
fn choose(written: &Written<'_>) -> Vec<(u64, usize)> {
    let mut out = Vec::new();
    let mut bulk = Vec::new();
    for (seq, batch) in written.layout.batches(written.slot_len).enumerate() {
        let sum = written.sums.get(seq).copied().flatten();
        let len = match (sum, &batch.content) {
            (Some(sum), _) => sum.len,
            (None, Content::Files(_)) => batch.len,
            (None, _) => continue,
        };
        let is_bulk = matches!(batch.phase, Phase::Data | Phase::FreeSpace);
        if written.how == ReadBack::Full || !is_bulk {
            out.push((seq as u64, len));
        } else {
            bulk.push((seq as u64, len));
        }
    }
    out.extend(sample(bulk.len(), written.seed).into_iter().map(|i| bulk[i]));
    out.sort_unstable();
    out
}

/// A seeded sample of `count` items in the order of the drive: the ends, and one of each section, so that no part is
/// left out; all of them if they are few. Ascending.
pub(crate) fn sample(count: usize, seed: u64) -> Vec<usize> {
    if count <= SAMPLE {
        return (0..count).collect();
    }
    let mut random = Seeded::new(seed);
    let mut of_each = |i: usize| {
        let (from, to) = (i * count / SAMPLE, (i + 1) * count / SAMPLE);
        from + (random.next_u64() % (to - from).max(1) as u64) as usize
    };
    let mut out = vec![0];
    out.extend((0..SAMPLE).map(&mut of_each));
    out.push(count - 1);
    out.dedup();
    out
}

/// The load that reads a batch. Takes the batch's hashes from `hashes`, whether it will be read or not.
fn load(
    written: &Written<'_>,
    seq: usize,
    batch: Batch,
    mut hashes: Option<&mut HashReader>,
) -> io::Result<Load<Back>> {
    let sum = written.sums.get(seq).copied().flatten();
    let len = sum.map_or(batch.len, |sum| sum.len);
    let at = batch.pieces.first().map_or(DeviceOffset(0), |piece| piece.at);
    let volume = written.layout.volume_start();
    let mut load = Load::new(Back { at, phase: batch.phase, sum, blocks: Vec::new(), len });
    load.len = len;
    let is_plain = matches!(batch.content, Content::Plain(_));
    for piece in &batch.pieces {
        let range = piece.range.start..piece.range.end.min(len);
        if range.start < range.end {
            load.parts.push((range.clone(), piece.at));
            if !is_plain {
                load.crypt.push((range, piece.at.in_volume(volume)));
            }
        }
    }
    if let (Content::Files(parts), Some(hashes)) = (&batch.content, hashes.as_mut()) {
        let tree = written.layout.tree();
        for part in parts.iter().filter(|part| part.len > 0) {
            let mut span = |range: Range<usize>, md5| {
                load.spans.push(Span { range, how: How::Block });
                load.what.blocks.push((part.file, md5));
            };
            let start = part.into as usize;
            if tree.blob_type(part.file) == Some(BlobType::Page) {
                let mut runs = Vec::new();
                hashes.pages(&mut runs)?;
                for (at, len, md5) in runs {
                    span(start + at as usize..start + at as usize + len as usize, md5);
                }
            } else if part.block_end {
                let md5 = hashes.block()?;
                // A block longer than a slot is covered by the sums of its batches.
                if part.block_start {
                    span(start..start + part.len as usize, md5);
                }
            }
            if part.block_end && tree.has_whole_md5(part.file) {
                hashes.block()?;
            }
        }
    }
    Ok(load)
}

fn compare(written: &Written<'_>, arrived: &Arrived<Back>) -> Result<(), Problem> {
    let name = &written.facts.name;
    let back = &arrived.what;
    if let Some(error) = &arrived.failure {
        if !written.facts.is_image && device::is_going(&written.facts.path) {
            return Err(Problem::new(Kind::Drive, format!("the drive went away while it was read back ({error})"))
                .drive(name)
                .at(back.at)
                .advice("check cable, power and dock, then continue with --resume"));
        }
        return Err(Problem::new(Kind::Drive, format!("cannot be read back: {error}"))
            .drive(name)
            .at(back.at)
            .advice("the drive is not good enough to be sent: replace it and start again"));
    }
    for (digest, (file, md5)) in arrived.digests.iter().zip(&back.blocks) {
        if *digest != Digest::Block(*md5) {
            let path = written.layout.tree().source_path(*file);
            return Err(different("a block that was read back is not what was written", name).path(path).at(back.at));
        }
    }
    match back.sum {
        Some(sum) if sum.crc != arrived.crc || sum.len != back.len => {
            let what = match back.phase {
                Phase::Data => "file data",
                Phase::Metadata => "file system metadata",
                Phase::FreeSpace => "free space",
                Phase::Last => "system records",
                Phase::Front => "the volume's first sector",
                Phase::Tables => "the partition table",
            };
            Err(different(&format!("what was read back is not what was written ({what})"), name).at(back.at))
        }
        _ => Ok(()),
    }
}

fn different(what: &str, name: &str) -> Problem {
    Problem::new(Kind::Different, what)
        .drive(name)
        .advice("the drive must not be sent: check cable, dock and memory, or replace it, and start again")
}

fn sidecar(error: io::Error) -> Problem {
    Problem::new(Kind::Environment, format!("the hash log next to the journal cannot be read: {error}"))
}
