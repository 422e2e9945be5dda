//! Reading a drive from end to end, to look at every byte of it.

use memchr::memmem;

use crate::pool::SLOT_LEN;
use crate::report::{Problem, Stop};
use crate::stream::block_reader::{BlockReader, Load};
use crate::stream::medium::Medium;
use crate::stream::timeouts::Timeouts;
use crate::stream::workers::Workers;
use crate::stream::zeros::merged;
use crate::units::{ByteLen, DeviceOffset, DeviceRange};

/// Signatures of BitLocker's structures: first sectors, metadata regions, and the files of a conversion.
pub(super) const MARKS: [&[u8]; 2] = [b"-FVE-FS-", b"FVE-EOW"];

/// Bytes that are read twice where two loads meet, so that a mark across the seam is seen.
const SEAM: u64 = 4096;

/// Ranges that could not be read, and the number of bytes that could.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub read: ByteLen,
    pub unreadable: Vec<DeviceRange>,
}

/// The drive and what a reading needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading<'a> {
    pub medium: &'a dyn Medium,
    pub name: &'a str,
    pub workers: &'a Workers,
    pub stop: &'a Stop,
}

impl Reading<'_> {
    /// Shows every byte of `ranges` to `see`, in pieces, about in order; pieces of one range share `seam` bytes.
    ///
    /// # Errors
    /// A drive that hangs, an engine that broke, a wish to stop. Places that cannot be read are no error.
    pub fn read(
        &self,
        ranges: &[DeviceRange],
        seam: u64,
        progress: &mut dyn FnMut(ByteLen),
        see: &mut dyn FnMut(DeviceOffset, &[u8]),
    ) -> Result<Seen, Problem> {
        let &Self { medium, workers, stop, .. } = self;
        let timeouts = Timeouts::default();
        let reader = BlockReader { medium, cipher: None, workers, stop, slot_len: SLOT_LEN, timeouts };
        let stride = SLOT_LEN as u64 - seam;
        let loads = ranges.iter().flat_map(|range| {
            let end = range.end().0;
            (range.start.0..end).step_by(stride as usize).map(move |at| {
                let mut load = Load::new(DeviceOffset(at));
                load.len = (end - at).min(SLOT_LEN as u64) as usize;
                load.parts.push((0..load.len, DeviceOffset(at)));
                load
            })
        });
        let mut seen = Seen::default();
        reader
            .run(loads, |mut arrived| {
                let at = arrived.what;
                if arrived.failure.is_some() {
                    self.singly(at, &mut arrived.bytes, &mut seen.unreadable);
                }
                see(at, &arrived.bytes);
                // What is read twice counts once.
                seen.read.0 += (arrived.bytes.len() as u64).min(stride);
                progress(seen.read);
                Ok(())
            })
            .map_err(|problem| problem.drive(self.name))?;
        seen.unreadable = merged(seen.unreadable);
        let total: u64 = ranges.iter().map(|range| range.len.0).sum();
        let lost: u64 = seen.unreadable.iter().map(|range| range.len.0).sum();
        seen.read = ByteLen(total - lost.min(total));
        Ok(seen)
    }

    /// Reads again in halves, so that a bad place costs only itself.
    fn singly(&self, at: DeviceOffset, into: &mut [u8], unreadable: &mut Vec<DeviceRange>) {
        const UNIT: usize = 4096;
        let Err(_) = self.medium.read_exact_at(into, at) else { return };
        if into.len() <= UNIT {
            into.fill(0);
            unreadable.push(DeviceRange::new(at.0, into.len() as u64));
            return;
        }
        let half = (into.len() / 2).next_multiple_of(UNIT);
        let (first, second) = into.split_at_mut(half);
        self.singly(at, first, unreadable);
        self.singly(at + ByteLen(half as u64), second, unreadable);
    }

    /// Positions of BitLocker's signatures, ascending.
    ///
    /// # Errors
    /// As [`Reading::read`].
    pub fn marks(&self, progress: &mut dyn FnMut(ByteLen)) -> Result<(Vec<DeviceOffset>, Seen), Problem> {
        let finders = MARKS.map(memmem::Finder::new);
        let mut found = Vec::new();
        let whole = [DeviceRange::new(0, self.medium.size().0)];
        let seen = self.read(&whole, SEAM, progress, &mut |at, bytes| {
            for finder in &finders {
                found.extend(finder.find_iter(bytes).map(|place| at + ByteLen(place as u64)));
            }
        })?;
        found.sort_unstable();
        found.dedup();
        Ok((found, seen))
    }

    /// Sectors of `ranges` that hold anything but zeros.
    ///
    /// # Errors
    /// As [`Reading::read`].
    pub fn nonzero(
        &self,
        ranges: &[DeviceRange],
        progress: &mut dyn FnMut(ByteLen),
    ) -> Result<(Vec<DeviceRange>, Seen), Problem> {
        let sector = self.medium.sector().bytes() as usize;
        let mut found: Vec<DeviceRange> = Vec::new();
        let seen = self.read(ranges, 0, progress, &mut |at, bytes| {
            if is_zero(bytes) {
                return;
            }
            for (i, part) in bytes.chunks(sector).enumerate().filter(|(_, part)| !is_zero(part)) {
                let start = at.0 + (i * sector) as u64;
                match found.last_mut() {
                    Some(last) if last.end().0 == start => last.len.0 += part.len() as u64,
                    _ => found.push(DeviceRange::new(start, part.len() as u64)),
                }
            }
        })?;
        // What cannot be read was filled with zeros above: it is listed separately.
        Ok((merged(found), seen))
    }
}

/// Whether all bytes are zero.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<256>();
    chunks.iter().all(|chunk| *chunk == [0; 256]) && rest.iter().all(|byte| *byte == 0)
}
