//! Places that a large request could not read: smaller requests, from both sides, then each sector, then again.

use super::map::{Map, Status};
use crate::io::{Fill, From, Part, PartResult};
use crate::pool::{Pool, Slot};
use crate::report::{Kind, PROGRESS_INTERVAL, Problem, Stop};
use crate::stream::event_loop::{self, Action, BlockIo, Next, Transfer};
use crate::stream::failures::Failures;
use crate::stream::medium::Medium;
use crate::units::{DeviceOffset, DeviceRange};

/// First, a place is cut into requests of this length.
const PART: u64 = 64 << 10;

/// Reads small places one by one.
pub(super) struct Rescue<'a> {
    medium: &'a dyn Medium,
    io: BlockIo,
    slot: Option<Slot>,
    /// The smallest request: a logical sector.
    sector: u64,
}

/// Takes what was read.
pub(super) type Put<'a> = dyn FnMut(DeviceOffset, &[u8]) -> Result<(), Problem> + 'a;

impl<'a> Rescue<'a> {
    /// For one source.
    ///
    /// # Errors
    /// No memory.
    pub fn new(medium: &'a dyn Medium, name: &'a str, stop: &'a Stop) -> Result<Self, Problem> {
        let pool = Pool::whole(1, PART as usize)
            .map_err(|error| Problem::new(Kind::Environment, format!("no memory for slots: {error}")))?;
        let (engine, _) = medium.engine(&pool);
        let slot = pool.take();
        let io = BlockIo::new(engine, pool, Failures::of(name, None)).until(stop);
        Ok(Self { medium, io, slot, sector: medium.sector().bytes() })
    }

    /// Works on all places of the map that were tried and not read. `changed` hears of the map between requests.
    ///
    /// # Errors
    /// Those of `put` and `changed`; a drive that hangs; a wish to stop.
    pub fn run(
        &mut self,
        map: &mut Map,
        retries: u32,
        put: &mut Put<'_>,
        changed: &mut dyn FnMut(&Map) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        for place in map.of(Status::NonTrimmed) {
            let mut at = place.start.0;
            while at < place.end().0 {
                let len = (PART - at % PART).min(place.end().0 - at);
                let part = DeviceRange::new(at, len);
                at += len;
                if self.read(part, put)? {
                    map.set(part, Status::Finished);
                } else {
                    self.trim(part, map, put)?;
                }
                changed(map)?;
            }
        }
        for place in map.of(Status::NonScraped) {
            for sector in self.sectors(place) {
                let is_read = self.read(sector, put)?;
                map.set(sector, if is_read { Status::Finished } else { Status::Bad });
                changed(map)?;
            }
        }
        for pass in 0..retries {
            let mut bad = map.of(Status::Bad);
            // Once from behind, once from the front: a head that comes from elsewhere may read what another cannot.
            if pass % 2 == 0 {
                bad.reverse();
            }
            for place in bad {
                let mut sectors: Vec<DeviceRange> = self.sectors(place).collect();
                if pass % 2 == 0 {
                    sectors.reverse();
                }
                for sector in sectors {
                    if self.read(sector, put)? {
                        map.set(sector, Status::Finished);
                    }
                    changed(map)?;
                }
            }
        }
        Ok(())
    }

    fn sectors(&self, place: DeviceRange) -> impl Iterator<Item = DeviceRange> + use<> {
        let (sector, end) = (self.sector, place.end().0);
        (place.start.0..end).step_by(sector as usize).map(move |at| DeviceRange::new(at, sector.min(end - at)))
    }

    /// Sector by sector from the front to the first that fails, and from behind.
    fn trim(&mut self, part: DeviceRange, map: &mut Map, put: &mut Put<'_>) -> Result<(), Problem> {
        let mut sectors: Vec<DeviceRange> = self.sectors(part).collect();
        while let [first, ..] = sectors[..] {
            sectors.remove(0);
            let is_read = self.read(first, put)?;
            map.set(first, if is_read { Status::Finished } else { Status::Bad });
            if !is_read {
                break;
            }
        }
        while let Some(last) = sectors.pop() {
            let is_read = self.read(last, put)?;
            map.set(last, if is_read { Status::Finished } else { Status::Bad });
            if !is_read {
                break;
            }
        }
        if let (Some(first), Some(last)) = (sectors.first(), sectors.last()) {
            map.set(DeviceRange::new(first.start.0, last.end().0 - first.start.0), Status::NonScraped);
        }
        Ok(())
    }

    /// Reads one range, which fits the slot; `false` where it cannot be read.
    fn read(&mut self, range: DeviceRange, put: &mut Put<'_>) -> Result<bool, Problem> {
        let mut reading = Reading { io: &mut self.io, range, slot: self.slot.take(), is_read: None };
        event_loop::run(&mut reading)?;
        self.slot = reading.slot;
        let is_read = reading.is_read == Some(true);
        let bytes = self.slot.as_deref().filter(|_| is_read);
        bytes.map_or(Ok(()), |slot| put(range.start, &slot[..range.len.0 as usize]))?;
        Ok(is_read)
    }
}

/// One range on its way from the drive.
struct Reading<'a> {
    io: &'a mut BlockIo,
    range: DeviceRange,
    /// `None` while the engine has it.
    slot: Option<Slot>,
    /// Whether all of it was read, once that is known.
    is_read: Option<bool>,
}

impl Transfer for Reading<'_> {
    fn io(&mut self) -> &mut BlockIo {
        self.io
    }

    fn advance(&mut self) -> Result<Next, Problem> {
        if self.is_read.is_some() {
            return Ok(Next::Done);
        }
        if let Some(slot) = self.slot.take() {
            let part = Part { into: 0..self.range.len.0 as usize, from: From::Target { at: self.range.start } };
            self.io.fill(Fill { tag: self.range.start.0, slot, parts: vec![part] });
        } else if self.io.is_idle() {
            return Err(Problem::new(Kind::Internal, "a slot was lost"));
        }
        Ok(Next::Wait(PROGRESS_INTERVAL))
    }

    fn apply(&mut self, action: Action) -> Result<(), Problem> {
        match action {
            Action::Filled { slot, results, .. } => {
                self.is_read = Some(results.iter().all(PartResult::is_done));
                self.slot = Some(slot);
                Ok(())
            }
            Action::Stopped => Err(self.io.failures.stopped()),
            _ => Ok(()),
        }
    }
}

impl std::fmt::Debug for Rescue<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rescue").field("medium", &self.medium).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sim::{Faults, SimDisk};
    use crate::units::{ByteLen, SectorSize};

    #[test]
    fn only_the_sectors_that_are_bad_are_lost() {
        let size = ByteLen(1 << 20);
        let disk = SimDisk::new(size, SectorSize::S512, 7);
        let bad = [DeviceRange::new(0x10200, 512), DeviceRange::new(0x10A00, 1024), DeviceRange::new(0x7FE00, 1024)];
        disk.set_faults(Faults { read_errors: bad.to_vec(), ..Faults::default() });
        disk.plant(DeviceOffset(0x10400), b"between");
        let mut map = Map::new(size);
        map.set(DeviceRange::new(0, size.0), Status::NonTrimmed);
        let mut image = vec![0; size.0 as usize];
        let stop = Stop::new();
        let mut rescue = Rescue::new(&disk, "disk", &stop).expect("memory");
        let mut requests = 0;
        let put = &mut |at: DeviceOffset, bytes: &[u8]| {
            image[at.0 as usize..][..bytes.len()].copy_from_slice(bytes);
            Ok(())
        };
        rescue
            .run(&mut map, 1, put, &mut |_| {
                requests += 1;
                Ok(())
            })
            .expect("no failure");
        assert_eq!(map.of(Status::Bad), bad);
        assert_eq!(map.len_of(Status::Finished).0, size.0 - 2560);
        assert_eq!(&image[0x10400..0x10407], b"between");
        assert!(requests < 600, "{requests}");
    }
}
