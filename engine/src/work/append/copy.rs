//! Copies file data into clusters that were free: their batches, and the places of those on the device.

use super::commit::Store;
use super::{Addition, AdditionJob};
use crate::hash;
use crate::ntfs::append::Append;
use crate::ntfs::build::LinearRange;
use crate::plan::batches::{Batch, Content, FilePacker, Packed, Phase, Piece};
use crate::plan::tree::DriveTree;
use crate::pool::{FILLS_MAX, Pool, SLOT_LEN};
use crate::report::{Kind, Problem};
use crate::units::{ByteLen, ClusterSize, DeviceOffset};
use crate::volume::find::Opened;
use crate::work::drive::{self, Copied, DriveContent, Save, Setup};
use crate::work::outcome::{OutcomeLog, Replay, Sum};

/// The batches of an addition, computed on demand.
struct Batches<'a> {
    packer: FilePacker<'a>,
    append: &'a Append,
    places: DataPlaces,
}

impl<'a> Batches<'a> {
    fn new(what: &Addition<'a>, append: &'a Append, slot_len: usize) -> Result<Self, Problem> {
        let packer = FilePacker::new(what.tree, append.volume().geometry().cluster, slot_len);
        Ok(Self { packer, append, places: DataPlaces::new(what.opened, append, what.name)? })
    }
}

impl Iterator for Batches<'_> {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let Packed { parts, len, first } = self.packer.next()?;
        let cluster = self.append.volume().geometry().cluster.bytes();
        let start = first.map(|(file, offset)| self.append.file_place(file).start * cluster + offset.0);
        let pieces = start.map_or_else(Vec::new, |start| self.places.pieces(start, len));
        Some(Batch { phase: Phase::Data, content: Content::Files(parts), len, pieces })
    }
}

/// The batches of files in clusters of this size: which parts of files are in each, wherever they go.
pub(super) fn listed(tree: &DriveTree, cluster: u64) -> impl Iterator<Item = Batch> {
    let cluster = ClusterSize::from_bytes(cluster).unwrap_or(ClusterSize::MAX);
    let packed = FilePacker::new(tree, cluster, SLOT_LEN);
    packed.map(|Packed { parts, len, .. }| Batch {
        phase: Phase::Data,
        content: Content::Files(parts),
        len,
        pieces: Vec::new(),
    })
}

/// Places on the device of the clusters for file data, whose offsets count consecutively.
#[derive(Debug)]
struct DataPlaces {
    /// First offset, end offset, and place on the device; ascending, without gaps.
    runs: Vec<(u64, u64, DeviceOffset)>,
}

impl DataPlaces {
    fn new(opened: &Opened, append: &Append, name: &str) -> Result<Self, Problem> {
        let (cluster, data) = (append.volume().geometry().cluster, append.data_space());
        let (mut runs, mut from) = (Vec::new(), 0);
        for extent in data.extents(LinearRange { start: 0, len: data.len() }) {
            let stored = opened.stored(cluster.offset_of(extent.lcn), cluster.len_of(extent.len)).map_err(|error| {
                let what = format!("a place of the volume that cannot be written to: {error}");
                Problem::new(Kind::Internal, what).drive(name)
            })?;
            for stored in stored {
                runs.push((from, from + stored.len, stored.at));
                from += stored.len;
            }
        }
        Ok(Self { runs })
    }

    /// The pieces of `len` bytes from `start` on.
    fn pieces(&self, start: u64, len: usize) -> Vec<Piece> {
        let end = start + len as u64;
        let runs = self.runs[self.runs.partition_point(|&(_, to, _)| to <= start)..].iter();
        let runs = runs.take_while(|&&(from, ..)| from < end);
        runs.map(|&(from, to, at)| {
            let (first, last) = (from.max(start), to.min(end));
            Piece { range: (first - start) as usize..(last - start) as usize, at: at + ByteLen(first - from) }
        })
        .collect()
    }
}

/// Reads back the batches that `chosen` selects, unencrypted, and returns the number of the first that does not match
/// `sums`.
///
/// # Errors
/// The device cannot be read.
pub(super) fn first_bad(
    what: &Addition<'_>,
    append: &Append,
    slot_len: usize,
    sums: &[Option<Sum>],
    mut chosen: impl FnMut(u64) -> bool,
) -> Result<Option<u64>, Problem> {
    let mut batches = Batches::new(what, append, slot_len)?;
    let (medium, volume) = (what.opened.medium(), what.opened.found.volume.start);
    let mut bytes = Vec::new();
    for (number, sum) in (0..).zip(sums) {
        let Some(batch) = batches.next() else { return Ok(Some(number)) };
        let Some(sum) = sum.filter(|_| chosen(number)) else { continue };
        if sum.len != batch.len {
            return Ok(Some(number));
        }
        bytes.resize(batch.len, 0);
        for Piece { range, at } in batch.pieces {
            let into = &mut bytes[range];
            medium.read_exact_at(into, at).map_err(|error| {
                Problem::new(Kind::Drive, format!("what was written cannot be read back: {error}"))
                    .drive(what.name)
                    .at(at)
            })?;
            if let Some(cipher) = what.opened.cipher() {
                cipher.open(at.in_volume(volume), into);
            }
        }
        if hash::crc64(&bytes) != sum.crc {
            return Ok(Some(number));
        }
    }
    Ok(None)
}

/// Copies all files but those that `replay` has.
///
/// # Errors
/// Errors of the drive, of its sources as a whole or of the hash log. An unreadable file is left out instead.
pub(super) fn copy(
    job: &AdditionJob<'_>,
    append: &Append,
    store: &mut Store<'_>,
    pool: &Pool,
    (log, replay): (OutcomeLog, Replay),
    save: &mut Save<'_>,
) -> Result<Copied, Problem> {
    let what = &job.what;
    let content = DriveContent {
        tree: what.tree,
        batches: Box::new(Batches::new(what, append, pool.slot_len())?),
        total: append.volume().geometry().cluster.len_of(append.data_space().len()),
        volume_start: what.opened.found.volume.start,
        cipher: what.opened.cipher(),
    };
    let io = store.io();
    io.connect(job.workers);
    let outlook = io.failures.outlook.replace(drive::outlook_of_copy());
    let copied = drive::copy(Setup {
        index: job.index,
        name: what.name.to_owned(),
        content,
        io: store.io(),
        fills_max: FILLS_MAX,
        fetch: None,
        log,
        replay,
        pace: job.pace,
        save: Box::new(|durable| save(durable)),
        wipe: Vec::new(),
        once_wiped: &|| (),
        bases: job.bases.to_vec(),
        beside: job.beside.to_owned(),
        rate_limit: job.rate_limit,
        events: job.events,
    });
    store.io().failures.outlook = outlook;
    let copied = copied?;
    store.count(copied.written.0);
    Ok(copied)
}
