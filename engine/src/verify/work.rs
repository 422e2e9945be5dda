//! The order of reading: blocks sorted by their position on the volume, as many in a slot as fit.

use std::cell::RefCell;
use std::ops::Range;

use crate::ntfs::read::{DataRun, FileId, RunPlace};
use crate::pool::SLOT_LEN;
use crate::stream::block_reader::{Load, SLOT_SPARE};
use crate::stream::workers::{How, Span};
use crate::units::VolumeOffset;
use crate::verify::listing::{Listing, Subject};
use crate::verify::row::Verdict;
use crate::volume::files::Files;
use crate::volume::find::Opened;

/// Gaps up to this length between two blocks are read as well.
const GAP: u64 = 64 << 10;

/// Most reads of one slot: bounds the operations in flight on a fragmented volume.
const RUNS_MAX: usize = 128;

/// Most blocks of one slot.
const BLOCKS_MAX: usize = 2048;

/// First index of side files.
pub(super) const SIDE: u32 = 1 << 31;

/// A piece to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PieceToRead {
    /// Offset on the volume.
    pub at: u64,
    /// Index of the blob, or [`SIDE`] and index of the side file.
    pub owner: u32,
    /// Index of the piece.
    pub piece: u32,
}

/// A part of a piece in a slot that has been read.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub item: PieceToRead,
    /// Range of the slot.
    pub range: Range<usize>,
    /// Offset of these bytes in the file.
    pub from: u64,
}

/// Items to read, by the way of reading.
#[derive(Debug, Default)]
pub(super) struct ReadPlan {
    /// Items for the block reader, in disk order.
    pub road: Vec<PieceToRead>,
    /// Inside `$MFT` records, in their order.
    pub resident: Vec<PieceToRead>,
    /// Compressed items and others in unknown forms: one by one, in disk order.
    pub singly: Vec<PieceToRead>,
    /// Total bytes of all items.
    pub bytes: u64,
}

impl ReadPlan {
    /// Whether there is nothing to read.
    pub(super) fn is_empty(&self) -> bool {
        self.road.is_empty() && self.resident.is_empty() && self.singly.is_empty()
    }

    /// Metadata and properties files, and everything else.
    pub(super) fn apart(self) -> [Self; 2] {
        let mut out = [Self::default(), Self { bytes: self.bytes, ..Self::default() }];
        for item in self.road {
            out[usize::from(item.owner & SIDE == 0)].road.push(item);
        }
        for item in self.resident {
            out[usize::from(item.owner & SIDE == 0)].resident.push(item);
        }
        for item in self.singly {
            out[usize::from(item.owner & SIDE == 0)].singly.push(item);
        }
        out
    }
}

impl Listing {
    /// The subject of an item.
    pub(super) fn subject(&self, owner: u32) -> &Subject {
        match owner & SIDE {
            0 => &self.subjects[owner as usize],
            _ => &self.sides[(owner & !SIDE) as usize],
        }
    }

    /// Decides how every piece is read; `wanted` selects the pieces to read, by blob and number within it.
    pub(super) fn work(&mut self, files: &Files<'_>, wanted: &dyn Fn(u32, u32) -> bool) -> ReadPlan {
        let mut work = ReadPlan::default();
        let owners = 0..self.subjects.len() as u32;
        for owner in owners.chain((0..self.sides.len() as u32).map(|side| side | SIDE)) {
            let subject = *self.subject(owner);
            let Some(name) = subject.name else { continue };
            let file = files.catalog.file_of(name);
            let extents = files.catalog.extents(&files.volume, file);
            for piece in subject.pieces_at..subject.pieces_at + subject.pieces_len {
                let known = &self.pieces[piece as usize];
                if owner & SIDE == 0 && !wanted(owner, piece - subject.pieces_at) {
                    continue;
                }
                // A piece that cannot be inside the file need not be read.
                if known.len == 0 || matches!(known.verdict, Verdict::Missing | Verdict::Different) {
                    continue;
                }
                work.bytes += u64::from(known.len);
                let item = |at: u64| PieceToRead { at, owner, piece };
                let Ok(extents) = &extents else {
                    work.singly.push(item(0));
                    continue;
                };
                let within = overlapping(extents, known.offset, known.offset + u64::from(known.len));
                let cluster = files.volume.geometry().cluster;
                let mut at = None;
                let mut is_plain = true;
                for run in within {
                    match run.place {
                        RunPlace::Lcn(lcn) => {
                            let skip = known.offset.saturating_sub(run.offset);
                            at.get_or_insert(cluster.offset_of(lcn).0 + skip);
                        }
                        RunPlace::Hole => {}
                        RunPlace::Compressed { first, .. } => {
                            at.get_or_insert(cluster.offset_of(first).0);
                            is_plain = false;
                        }
                        RunPlace::Resident { record } => {
                            at.get_or_insert(record);
                            // The data in the record of a placeholder is not its contents; the reader reports that.
                            if files.catalog.info(file).special.is_none() {
                                work.resident.push(item(record));
                            }
                            is_plain = false;
                            break;
                        }
                    }
                }
                let is_resident = work.resident.last().is_some_and(|last| (last.owner, last.piece) == (owner, piece));
                if is_plain && files.catalog.info(file).special.is_none() {
                    work.road.push(item(at.unwrap_or(0)));
                } else if !is_resident {
                    work.singly.push(item(at.unwrap_or(0)));
                }
            }
        }
        work.road.sort_unstable();
        work.resident.sort_unstable();
        work.singly.sort_unstable();
        work
    }
}

/// The runs that overlap the bytes from `from` to `to`.
fn overlapping(extents: &[DataRun], from: u64, to: u64) -> &[DataRun] {
    let first = extents.partition_point(|run| run.offset + run.len <= from);
    let last = extents.partition_point(|run| run.offset < to);
    extents.get(first..last).unwrap_or_default()
}

/// Bytes of the volume, or zeros, in file order.
#[derive(Clone, Copy, Debug)]
pub struct StoredRun {
    /// Offset in the volume; `None`: zeros that are stored nowhere.
    pub at: Option<u64>,
    /// Length in bytes.
    pub len: u64,
}

/// The bytes from `from` to `to` of a file, widened to whole units; `None` where runs do not consist of whole units.
pub fn runs(extents: &[DataRun], cluster: u64, unit: u64, from: u64, to: u64) -> Option<Vec<StoredRun>> {
    let (start, end) = (from / unit * unit, to.next_multiple_of(unit));
    let mut out = Vec::new();
    let mut at = start;
    for run in overlapping(extents, start, to) {
        let skip = at.checked_sub(run.offset)?;
        let rest = run.len.checked_sub(skip)?;
        let is_last = at + rest >= to;
        let len = if is_last { end - at } else { rest };
        let place = match run.place {
            RunPlace::Lcn(lcn) => Some(lcn.0.checked_mul(cluster)?.checked_add(skip)?),
            RunPlace::Hole => None,
            RunPlace::Resident { .. } | RunPlace::Compressed { .. } => return None,
        };
        if !len.is_multiple_of(unit) || place.is_some_and(|place| !place.is_multiple_of(unit)) {
            return None;
        }
        out.push(StoredRun { at: place, len });
        at += len;
        if is_last {
            return Some(out);
        }
    }
    None
}

/// Divides the work into loads. Items that the block reader cannot read are left in `beside`.
pub(super) struct Loads<'a> {
    opened: &'a Opened,
    files: &'a Files<'a>,
    listing: &'a RefCell<Listing>,
    items: std::vec::IntoIter<PieceToRead>,
    next: Option<PieceToRead>,
    beside: &'a RefCell<Vec<PieceToRead>>,
    extents: Option<(FileId, Vec<DataRun>)>,
    /// The rest of a block longer than a slot: item, next byte of the file, end.
    long: Option<(PieceToRead, u64, u64)>,
}

/// A load being assembled.
struct Open {
    /// Offset on the volume, length, offset in the slot.
    runs: Vec<(u64, u64, usize)>,
    zeros: Vec<Range<usize>>,
    end: usize,
    seen: Vec<Seen>,
}

impl<'a> Loads<'a> {
    pub fn new(
        opened: &'a Opened,
        files: &'a Files<'a>,
        listing: &'a RefCell<Listing>,
        items: Vec<PieceToRead>,
        beside: &'a RefCell<Vec<PieceToRead>>,
    ) -> Self {
        Self { opened, files, listing, items: items.into_iter(), next: None, beside, extents: None, long: None }
    }

    /// File range of a piece, and the runs of its file for that range.
    fn runs_of(&mut self, item: PieceToRead, from: u64, to: u64) -> Option<Vec<StoredRun>> {
        let file = self.files.catalog.file_of(self.listing.borrow().subject(item.owner).name?);
        if self.extents.as_ref().is_none_or(|(known, _)| *known != file) {
            self.extents = Some((file, self.files.catalog.extents(&self.files.volume, file).ok()?));
        }
        let (_, extents) = self.extents.as_ref()?;
        runs(extents, self.files.volume.geometry().cluster.bytes(), self.opened.unit(), from, to)
    }

    fn piece(&self, item: PieceToRead) -> (u64, u64) {
        let piece = self.listing.borrow().pieces[item.piece as usize];
        (piece.offset, piece.offset + u64::from(piece.len))
    }

    /// The next slot's worth of a block longer than a slot.
    fn chained(&mut self, item: PieceToRead, at: u64, end: u64) -> Option<Load<Vec<Seen>>> {
        let (start, _) = self.piece(item);
        let to = end.min(at + SLOT_LEN as u64);
        self.long = (to < end).then_some((item, to, end));
        let Some(runs) = self.runs_of(item, at, to).filter(|_| at.is_multiple_of(self.opened.unit())) else {
            self.long = None;
            self.beside.borrow_mut().push(item);
            return None;
        };
        let mut open = Open { runs: Vec::new(), zeros: Vec::new(), end: 0, seen: Vec::new() };
        open.append(&runs);
        open.seen.push(Seen { item, range: 0..(to - at) as usize, from: at });
        let how = How::Chain { ends: to == end };
        let mut load = self.close(open, how)?;
        load.begins = at == start;
        Some(load)
    }

    fn close(&mut self, open: Open, how: How) -> Option<Load<Vec<Seen>>> {
        let mut load = Load::new(Vec::new());
        load.len = open.end;
        load.zeros = open.zeros;
        for (at, len, into) in &open.runs {
            if !self.opened.map_extents(VolumeOffset(*at), *len as usize, *into, &mut load) {
                self.long = None;
                self.beside.borrow_mut().extend(open.seen.iter().map(|seen| seen.item));
                return None;
            }
        }
        load.spans = open.seen.iter().map(|seen| Span { range: seen.range.clone(), how }).collect();
        load.what = open.seen;
        Some(load)
    }

    /// Adds blocks to a slot until no more fit.
    fn filled(&mut self) -> Option<Load<Vec<Seen>>> {
        let mut open = Open { runs: Vec::new(), zeros: Vec::new(), end: 0, seen: Vec::new() };
        while let Some(item) = self.next.take().or_else(|| self.items.next()) {
            let (from, to) = self.piece(item);
            if to - from > SLOT_LEN as u64 {
                if open.seen.is_empty() {
                    return self.chained(item, from, to);
                }
                self.next = Some(item);
                break;
            }
            let Some(runs) = self.runs_of(item, from, to) else {
                self.beside.borrow_mut().push(item);
                continue;
            };
            let skip = (from % self.opened.unit()) as usize;
            let len = (to - from) as usize;
            let Some(start) = open.place(&runs, skip) else {
                self.next = Some(item);
                break;
            };
            open.seen.push(Seen { item, range: start..start + len, from });
        }
        if open.seen.is_empty() { None } else { self.close(open, How::Block) }
    }

    fn is_done(&self) -> bool {
        self.long.is_none() && self.next.is_none() && self.items.len() == 0
    }
}

impl Open {
    fn append(&mut self, runs: &[StoredRun]) {
        for run in runs {
            match run.at {
                Some(at) => self.runs.push((at, run.len, self.end)),
                None => self.zeros.push(self.end..self.end + run.len as usize),
            }
            self.end += run.len as usize;
        }
    }

    /// Offset in the slot of a block's first byte; `None` if it does not fit any more. `skip`: bytes of the first run
    /// that do not belong to the block.
    fn place(&mut self, runs: &[StoredRun], skip: usize) -> Option<usize> {
        let room = SLOT_LEN + SLOT_SPARE;
        let len: u64 = runs.iter().map(|run| run.len).sum();
        let behind = self.seen.last().map_or(0, |seen| seen.range.end);
        if self.seen.len() >= BLOCKS_MAX {
            return None;
        }
        if let ([StoredRun { at: Some(at), len }], Some((last, last_len, into))) = (runs, self.runs.last_mut())
            && *at >= *last
            && *at <= *last + *last_len + GAP
            && *into + *last_len as usize == self.end
        {
            let start = *into + (*at - *last) as usize + skip;
            let end = (*into + (*at + *len - *last) as usize).max(self.end);
            // Two names of the same bytes: hashed one after the other.
            if end > room || start < behind {
                return None;
            }
            *last_len = (end - *into) as u64;
            self.end = end;
            return Some(start);
        }
        if self.end + len as usize > room || self.runs.len() + runs.len() > RUNS_MAX && !self.seen.is_empty() {
            return None;
        }
        let start = self.end + skip;
        self.append(runs);
        Some(start)
    }
}

impl Iterator for Loads<'_> {
    type Item = Load<Vec<Seen>>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.is_done() {
            let load = match self.long.take() {
                Some((item, at, end)) => self.chained(item, at, end),
                None => self.filled(),
            };
            if load.is_some() {
                return load;
            }
        }
        None
    }
}
