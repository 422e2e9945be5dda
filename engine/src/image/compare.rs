//! Differences between two drives or images, byte for byte.

use std::collections::BTreeMap;
use std::path::Path;

use crossbeam_channel::unbounded;

use crate::device::{self, Access, Device, Roots};
use crate::ntfs::read::{RunPlace, display_name};
use crate::pool::SLOT_LEN;
use crate::report::{DriveFacts, Kind, Problem, Stop};
use crate::stream::block_reader::{BlockReader, Held, Load, cut};
use crate::stream::medium::Medium;
use crate::stream::timeouts::Timeouts;
use crate::stream::workers::Workers;
use crate::stream::zeros::merged;
use crate::units::{ByteLen, DeviceOffset, DeviceRange};
use crate::volume::files::Files;
use crate::volume::find::Opened;

/// Ranges that are kept: more of them are one range from the first to the last.
const RANGES_MAX: usize = 100_000;

/// Result of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Bytes that both have.
    pub common: ByteLen,
    /// Bytes that were compared.
    pub compared: ByteLen,
    /// Ranges that differ, exact to the byte.
    pub different: Vec<DeviceRange>,
    /// Bytes that differ.
    pub bytes: u64,
    /// Ranges of the first and of the second that could not be read.
    pub unreadable: [Vec<DeviceRange>; 2],
}

/// A file that differing bytes belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// Path from the volume's root.
    pub path: String,
    /// Differing bytes in it.
    pub bytes: u64,
    /// First of them, in the file.
    pub first: u64,
}

/// A piece of one side: its number, and its bytes unless it could not be read.
type Side = (u64, Option<Held>);

/// Opens a side, which is only read.
///
/// # Errors
/// The obstacle.
pub fn open(name: &Path) -> Result<(DriveFacts, Device), Problem> {
    let path = device::resolve(&name.display().to_string(), &Roots::default())?;
    let device = Device::open(&path, Access::Read)?;
    Ok((super::target::facts(name, &path, &device, None), device))
}

/// Compares what both have. `progress` hears of bytes compared.
///
/// # Errors
/// A side that hangs, an engine that broke, a wish to stop. What cannot be read is no error.
pub fn run(
    sides: [&dyn Medium; 2],
    names: [&str; 2],
    workers: &Workers,
    stop: &Stop,
    progress: &mut dyn FnMut(ByteLen),
) -> Result<Compared, Problem> {
    let common = ByteLen(sides[0].size().0.min(sides[1].size().0));
    let unit = sides[0].sector().bytes().max(sides[1].sector().bytes());
    let common = ByteLen(common.0 / unit * unit);
    let mut out = Compared { common, ..Compared::default() };
    std::thread::scope(|scope| {
        let mut arrivals = Vec::new();
        let mut threads = Vec::new();
        for (medium, name) in sides.into_iter().zip(names) {
            let (sender, arrived) = unbounded::<Side>();
            arrivals.push(arrived);
            threads.push(scope.spawn(move || {
                let timeouts = Timeouts::default();
                let reader = BlockReader { medium, cipher: None, workers, stop, slot_len: SLOT_LEN, timeouts };
                let loads = cut(common).zip(0_u64..).map(|((at, len), index)| {
                    let mut load = Load::new(index);
                    load.len = len;
                    load.parts.push((0..len, at));
                    load
                });
                let sent = reader.run(loads, |arrived| {
                    let bytes = arrived.failure.is_none().then(|| arrived.bytes.away());
                    let gone = |_| Problem::new(Kind::Interrupted, "the other side ended");
                    sender.send((arrived.what, bytes)).map_err(gone)
                });
                sent.map_err(|problem| problem.drive(name))
            }));
        }
        let mut early = [BTreeMap::new(), BTreeMap::new()];
        for ((at, len), index) in cut(common).zip(0_u64..) {
            let mut pair = Vec::new();
            for (arrived, early) in arrivals.iter().zip(&mut early) {
                while !early.contains_key(&index) {
                    let Ok((number, bytes)) = arrived.recv() else { break };
                    early.insert(number, bytes);
                }
                pair.extend(early.remove(&index));
            }
            match &mut pair[..] {
                [Some(one), Some(other)] => differences(at, one, other, &mut out),
                // A side ended early: its thread reports why.
                [] | [_] => break,
                _ => singly(sides, at, len, &mut out),
            }
            out.compared = ByteLen(at.0 + len as u64);
            progress(out.compared);
        }
        drop(arrivals);
        drop(early);
        let bug = |_| Problem::new(Kind::Internal, "a thread of the comparison ended in a bug");
        let ends: Vec<Result<(), Problem>> =
            threads.into_iter().map(|thread| thread.join().map_err(bug).and_then(|ended| ended)).collect();
        // The failure that made the other side end is the one to report.
        let mut failures: Vec<Problem> = ends.into_iter().filter_map(Result::err).collect();
        failures.sort_by_key(|problem| problem.what == "the other side ended");
        failures.into_iter().next().map_or(Ok(()), Err)
    })?;
    for side in &mut out.unreadable {
        *side = merged(std::mem::take(side));
        out.compared.0 -= side.iter().map(|range| range.len.0).sum::<u64>().min(out.compared.0);
    }
    Ok(out)
}

/// Adds where the two differ.
fn differences(at: DeviceOffset, one: &[u8], other: &[u8], out: &mut Compared) {
    const STEP: usize = 512;
    if one == other {
        return;
    }
    for (i, (a, b)) in one.chunks(STEP).zip(other.chunks(STEP)).enumerate().filter(|(_, (a, b))| a != b) {
        for (j, _) in a.iter().zip(b).enumerate().filter(|(_, (a, b))| a != b) {
            let place = at.0 + (i * STEP + j) as u64;
            out.bytes += 1;
            let is_full = out.different.len() >= RANGES_MAX;
            match out.different.last_mut() {
                Some(last) if last.end().0 == place || is_full => last.len.0 = place + 1 - last.start.0,
                _ => out.different.push(DeviceRange::new(place, 1)),
            }
        }
    }
}

/// Compares in small pieces where a large one could not be read.
fn singly(sides: [&dyn Medium; 2], at: DeviceOffset, len: usize, out: &mut Compared) {
    const UNIT: usize = 4096;
    let (mut one, mut other) = (vec![0; UNIT], vec![0; UNIT]);
    for start in (0..len).step_by(UNIT) {
        let part = UNIT.min(len - start);
        let place = at + ByteLen(start as u64);
        let read = [
            sides[0].read_exact_at(&mut one[..part], place).is_ok(),
            sides[1].read_exact_at(&mut other[..part], place).is_ok(),
        ];
        for (is_read, unreadable) in read.into_iter().zip(&mut out.unreadable) {
            if !is_read {
                unreadable.push(DeviceRange::new(place.0, part as u64));
            }
        }
        if read == [true; 2] {
            differences(place, &one[..part], &other[..part], out);
        }
    }
}

/// Files of an opened volume that differing bytes of its drive belong to; the metadata of the file system goes by its own names
/// (`$MFT`, …). And bytes that belong to no file.
///
/// # Errors
/// When the file system cannot be read.
pub fn touched(opened: &Opened, different: &[DeviceRange]) -> Result<(Vec<Touched>, u64), Problem> {
    let files = Files::read(opened)?;
    let cluster = files.volume.geometry().cluster;
    let mut out: Vec<Touched> = Vec::new();
    let mut known = 0;
    for id in files.catalog.files() {
        let Ok(runs) = files.catalog.extents(&files.volume, id) else { continue };
        let mut one: Option<Touched> = None;
        for run in runs {
            let at = match run.place {
                RunPlace::Lcn(lcn) => cluster.offset_of(lcn),
                RunPlace::Compressed { first, .. } => cluster.offset_of(first),
                RunPlace::Hole | RunPlace::Resident { .. } => continue,
            };
            let len = ByteLen(run.len.next_multiple_of(opened.unit()));
            let Ok(stored) = opened.stored(at, len) else { continue };
            let mut offset = run.offset;
            for part in stored {
                let place = DeviceRange { start: part.at, len: ByteLen(part.len) };
                for range in super::ranges::both(&[place], near(different, place)) {
                    let first = offset + (range.start.0 - place.start.0);
                    let one = one.get_or_insert_with(|| Touched { path: String::new(), bytes: 0, first });
                    one.bytes += range.len.0;
                    known += range.len.0;
                }
                offset += part.len;
            }
        }
        if let Some(mut touched) = one {
            let path = files.catalog.reached_by(id).and_then(|name| files.catalog.path(name));
            touched.path = path.map_or_else(
                || format!("file without a name, record {id:?}"),
                |path| display_name(&path).trim_start_matches('\\').replace('\\', "/"),
            );
            out.push(touched);
        }
    }
    out.sort_by(|a, b| a.path.cmp(&b.path));
    let all: u64 = different.iter().map(|range| range.len.0).sum();
    Ok((out, all.saturating_sub(known)))
}

/// Those of `different` (ascending, apart) that may overlap `place`.
fn near(different: &[DeviceRange], place: DeviceRange) -> &[DeviceRange] {
    let first = different.partition_point(|range| range.end() <= place.start);
    let last = different.partition_point(|range| range.start < place.end());
    &different[first..last.max(first)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sim::{Faults, SimDisk};
    use crate::units::SectorSize;

    #[test]
    fn every_byte_that_differs_is_found_also_beside_bad_places() {
        let (len, slot) = (ByteLen(9 << 20), SLOT_LEN as u64);
        let disks = [SimDisk::new(len, SectorSize::S512, 1), SimDisk::new(ByteLen(len.0 + 512), SectorSize::S512, 2)];
        disks[0].plant(DeviceOffset(slot - 1), b"ab");
        disks[1].plant(DeviceOffset(slot - 1), b"xy");
        disks[1].plant(DeviceOffset(len.0 - 1), b"z");
        disks[0].set_faults(Faults { read_errors: vec![DeviceRange::new(slot + 9000, 512)], ..Faults::default() });
        let workers = Workers::start(1).expect("threads");
        let out = run([&disks[0], &disks[1]], ["a", "b"], &workers, &Stop::new(), &mut |_| ()).expect("compared");
        assert_eq!(out.different, [DeviceRange::new(slot - 1, 2), DeviceRange::new(len.0 - 1, 1)]);
        assert_eq!((out.bytes, out.common), (3, len));
        assert_eq!(out.unreadable, [vec![DeviceRange::new(slot + 8192, 4096)], vec![]]);
        assert_eq!(out.compared.0, len.0 - 4096);
    }
}
