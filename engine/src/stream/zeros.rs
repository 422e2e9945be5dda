//! Overwrites ranges of a drive with zeros.

use std::collections::HashMap;

use super::event_loop::{self, Action, BlockIo, Next, Transfer};
use super::timeouts::{no_room, pulled};
use crate::io::WriteError;
use crate::pool::Slot;
use crate::report::{Event, PROGRESS_INTERVAL, Problem};
use crate::units::{ByteLen, DeviceOffset, DeviceRange};

/// Places that cannot be written before a drive is given up.
const UNWRITTEN_MAX: usize = 100_000;

/// Slots in use at once, 64 MiB: more make no device faster.
const SLOTS_MAX: usize = 16;

/// What a write error means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The end.
    Fail,
    /// The place is written in halves, down to sectors of this many bytes; those that cannot be written are left.
    GoAround {
        /// Bytes of a sector.
        sector: u64,
    },
}

/// Overwrites the ranges, whole sectors, and makes that durable; returns those that could not be written. `progress` is
/// told the bytes that the device has acknowledged.
///
/// # Errors
/// [`Kind::Interrupted`] on request, if `io` has a stop; an error of the drive, or with [`OnError::GoAround`] a drive
/// that is gone, full or fails everywhere.
pub fn overwrite(
    io: &mut BlockIo,
    ranges: &[DeviceRange],
    on_error: OnError,
    progress: &mut dyn FnMut(ByteLen),
    events: &dyn Fn(Event),
) -> Result<Vec<DeviceRange>, Problem> {
    let slot_len = io.pool().slot_len() as u64;
    let work = ranges.iter().flat_map(|range| {
        let end = range.end().0;
        (range.start.0..end).step_by(slot_len as usize).map(move |at| (at, (end - at).min(slot_len)))
    });
    let mut zeros = Zeros {
        io,
        on_error,
        progress,
        events,
        work: Box::new(work),
        again: Vec::new(),
        under_way: HashMap::new(),
        next: 0,
        zeroed: Vec::new(),
        unwritten: Vec::new(),
        done: 0,
        is_flushed: false,
        is_stopping: false,
    };
    event_loop::run(&mut zeros)?;
    Ok(merged(zeros.unwritten))
}

/// Places are position and length.
struct Zeros<'a> {
    io: &'a mut BlockIo,
    on_error: OnError,
    progress: &'a mut dyn FnMut(ByteLen),
    events: &'a dyn Fn(Event),
    work: Box<dyn Iterator<Item = (u64, u64)> + 'a>,
    /// Halves of places that could not be written.
    again: Vec<(u64, u64)>,
    /// Places that the device has not acknowledged.
    under_way: HashMap<u64, (u64, u64)>,
    next: u64,
    /// Slots that hold zeros and are kept for the next places.
    zeroed: Vec<Slot>,
    unwritten: Vec<DeviceRange>,
    done: u64,
    is_flushed: bool,
    /// A stop was requested: nothing more is started.
    is_stopping: bool,
}

impl Zeros<'_> {
    fn slot(&mut self) -> Option<Slot> {
        if let Some(slot) = self.zeroed.pop() {
            return Some(slot);
        }
        if self.under_way.len() >= SLOTS_MAX {
            return None;
        }
        let mut slot = self.io.pool().take()?;
        slot.fill(0);
        Some(slot)
    }

    fn failed(&mut self, (at, len): (u64, u64), error: &WriteError) -> Result<(), Problem> {
        let failed = self.io.failures.write(error, Some("zeros"));
        let OnError::GoAround { sector } = self.on_error else { return Err(failed) };
        let node = self.io.failures.node.as_deref();
        let is_over = self.unwritten.len() >= UNWRITTEN_MAX
            || no_room(&error.source).is_some()
            || pulled(&error.source, node).is_some();
        if is_over {
            return Err(failed);
        }
        if len > sector {
            // A place that cannot be written costs only itself.
            let half = (len / 2).next_multiple_of(sector);
            self.again.extend([(at + half, len - half), (at, half)]);
        } else {
            self.unwritten.push(DeviceRange::new(at, len));
        }
        Ok(())
    }
}

impl Transfer for Zeros<'_> {
    fn io(&mut self) -> &mut BlockIo {
        self.io
    }

    fn advance(&mut self) -> Result<Next, Problem> {
        if self.is_stopping {
            return if self.io.is_idle() { Err(self.io.failures.stopped()) } else { Ok(Next::Wait(PROGRESS_INTERVAL)) };
        }
        while let Some(slot) = self.slot() {
            let Some((at, len)) = self.again.pop().or_else(|| self.work.next()) else {
                self.zeroed.push(slot);
                break;
            };
            self.under_way.insert(self.next, (at, len));
            self.io.write(self.next, slot, len as usize, DeviceOffset(at));
            self.next += 1;
        }
        if self.io.is_idle() {
            if self.is_flushed {
                return Ok(Next::Done);
            }
            self.is_flushed = true;
            self.io.flush(self.next);
        }
        Ok(Next::Wait(PROGRESS_INTERVAL))
    }

    fn apply(&mut self, action: Action) -> Result<(), Problem> {
        match action {
            Action::Written { tag, slot, result } => {
                self.zeroed.push(slot);
                let Some(place) = self.under_way.remove(&tag) else { return Ok(()) };
                match result {
                    Ok(()) => {
                        self.done += place.1;
                        (self.progress)(ByteLen(self.done));
                        Ok(())
                    }
                    Err(error) => self.failed(place, &error),
                }
            }
            Action::Flushed { result: Err(error), .. } => Err(self.io.failures.flush(&error)),
            Action::Slow(warning) => {
                (self.events)(warning);
                Ok(())
            }
            Action::Stopped => {
                self.is_stopping = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Ascending, with those that touch or overlap as one.
pub fn merged(mut ranges: Vec<DeviceRange>) -> Vec<DeviceRange> {
    ranges.sort_unstable();
    let mut out: Vec<DeviceRange> = Vec::with_capacity(ranges.len());
    for range in ranges.into_iter().filter(|range| range.len.0 > 0) {
        match out.last_mut() {
            Some(last) if range.start <= last.end() => {
                last.len = ByteLen(last.end().0.max(range.end().0) - last.start.0);
            }
            _ => out.push(range),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sim::{Faults, SimDisk};
    use crate::pool::Pool;
    use crate::report::Kind;
    use crate::stream::failures::Failures;
    use crate::units::SectorSize;

    const SLOT: usize = 64 << 10;

    fn io(disk: &SimDisk) -> BlockIo {
        BlockIo::new(Box::new(disk.engine()), Pool::new(4, SLOT).expect("slots"), Failures::of("sim", None))
    }

    #[test]
    fn only_the_sectors_that_fail_stay() {
        let disk = SimDisk::new(ByteLen(1 << 20), SectorSize::S512, 3);
        for at in (0..1 << 20).step_by(512) {
            disk.plant(DeviceOffset(at), &[7; 512]);
        }
        let bad = [DeviceRange::new(0x1200, 512), DeviceRange::new(0x2_0000, 1024)];
        disk.set_faults(Faults { write_errors: bad.to_vec(), ..Faults::default() });
        let ranges = [DeviceRange::new(0x1000, 0x2_0000), DeviceRange::new(0x8_0000, SLOT as u64 + 512)];
        let mut last = ByteLen(0);
        let go_around = OnError::GoAround { sector: 512 };
        let left = overwrite(&mut io(&disk), &ranges, go_around, &mut |done| last = done, &|_| ()).expect("no end");
        assert_eq!(left, bad);
        assert_eq!(last.0, 0x2_0000 + SLOT as u64 + 512 - 1536);
        for at in (0..1_u64 << 20).step_by(512) {
            let mut sector = [1; 512];
            disk.read_at(DeviceOffset(at), &mut sector);
            let is_asked = ranges.iter().any(|range| (range.start.0..range.end().0).contains(&at));
            let is_bad = bad.iter().any(|range| (range.start.0..range.end().0).contains(&at));
            assert!(sector == [if is_asked && !is_bad { 0 } else { 7 }; 512], "sector at {at:#x}");
        }
        let problem = overwrite(&mut io(&disk), &ranges, OnError::Fail, &mut |_| (), &|_| ()).expect_err("a bad place");
        assert_eq!(problem.kind, Kind::Drive);
    }

    /// Actions that no device gave.
    #[test]
    fn a_full_or_vanished_drive_ends_it_whatever_is_tolerated() {
        let disk = SimDisk::new(ByteLen(1 << 20), SectorSize::S512, 3);
        for (code, is_over) in [(libc::EIO, false), (libc::ENOSPC, true), (libc::ENODEV, true)] {
            let mut io = io(&disk);
            let slot = io.pool().take().expect("a slot");
            let mut zeros = Zeros {
                io: &mut io,
                on_error: OnError::GoAround { sector: 512 },
                progress: &mut |_| (),
                events: &|_| (),
                work: Box::new(std::iter::empty()),
                again: Vec::new(),
                under_way: HashMap::from([(7, (4096, 1536))]),
                next: 8,
                zeroed: Vec::new(),
                unwritten: Vec::new(),
                done: 0,
                is_flushed: false,
                is_stopping: false,
            };
            let source = std::io::Error::from_raw_os_error(code);
            let error = WriteError { at: DeviceOffset(4608), done: ByteLen(512), source };
            let result = zeros.apply(Action::Written { tag: 7, slot, result: Err(error) });
            assert_eq!(result.is_err(), is_over, "{result:?}");
            if !is_over {
                assert_eq!(zeros.again, [(5120, 512), (4096, 1024)], "in halves of whole sectors");
            }
        }
    }
}
