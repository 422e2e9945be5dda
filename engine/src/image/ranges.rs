//! Bytes of a drive that are in use, as far as its volume or the holes of its image file show.

use std::fs::File;
use std::io;

use rustix::fs::{SeekFrom, seek};

use crate::bitlocker::read::State;
use crate::ntfs::append::free_runs;
use crate::ntfs::read::LogState;
use crate::report::{Advice, Kind, Problem, Setting};
use crate::stream::zeros::merged;
use crate::units::{ByteLen, DeviceOffset, DeviceRange};
use crate::volume::files;
use crate::volume::find::{Found, Inside, Opened, View};

/// Shorter runs of free clusters are copied with what is around them.
const RUN_MIN: u64 = 256 << 10;

/// Bytes at either end of a locked volume that are copied whatever they are.
const ENDS: u64 = 1 << 20;

/// Free clusters of an unlocked volume, where they are stored on the drive; ascending.
///
/// # Errors
/// A volume whose bitmap cannot be trusted: not closed, not NTFS, damaged.
pub fn unused(opened: &Opened) -> Result<Vec<DeviceRange>, Problem> {
    let refused = |what: &str| {
        let problem = Problem::new(Kind::Refused, what).drive(&opened.found.drive.name);
        problem.advice(Advice::from("leave ") + Setting::OnlyUsed + " away: then all sectors are taken as they are")
    };
    if let Inside::BitLocker(volume) = &opened.found.inside
        && !matches!(volume.state(), State::Encrypted | State::Decrypted)
    {
        return Err(refused("the volume is being encrypted or decrypted: what is in use is not known"));
    }
    let volume = files::ntfs(opened)?;
    let facts = volume.facts();
    if facts.is_dirty() || facts.hibernated || facts.log == LogState::Dirty || !facts.damage.is_empty() {
        return Err(refused("the volume was not closed, or is damaged: its list of free clusters may be wrong"));
    }
    let failed = |error: String| Problem::new(Kind::Drive, error).drive(&opened.found.drive.name);
    let free = free_runs(&volume, &mut View(opened), &opened.hidden()).map_err(|error| failed(error.to_string()))?;
    let cluster = volume.geometry().cluster;
    let mut out = Vec::new();
    for run in free {
        let (at, len) = (cluster.offset_of(run.lcn), cluster.len_of(run.len));
        if len.0 >= RUN_MIN
            && let Ok(stored) = opened.stored(at, len)
        {
            out.extend(stored.into_iter().map(|part| DeviceRange { start: part.at, len: ByteLen(part.len) }));
        }
    }
    Ok(merged(out))
}

/// Holes of an image file inside a volume that is encrypted and locked: nothing was ever stored in them, and what
/// the disk holds at these places reads as noise either way.
///
/// # Errors
/// Error of the file system.
pub fn never_written(found: &Found, file: &File) -> io::Result<Vec<DeviceRange>> {
    let Inside::BitLocker(volume) = &found.inside else { return Ok(Vec::new()) };
    if volume.state() != State::Encrypted {
        return Ok(Vec::new());
    }
    let (from, to) = (found.volume.start.0 + ENDS, found.volume.end().0.saturating_sub(ENDS));
    let inside = holes(file, found.drive.size)?.into_iter().filter_map(|hole| {
        let (start, end) = (hole.start.0.max(from).next_multiple_of(4096), hole.end().0.min(to) / 4096 * 4096);
        (end >= start.saturating_add(RUN_MIN)).then(|| DeviceRange::new(start, end - start))
    });
    Ok(inside.collect())
}

/// Holes of a file; none where its file system does not report them.
fn holes(file: &File, size: ByteLen) -> io::Result<Vec<DeviceRange>> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < size.0 {
        let data = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data.min(size.0),
            Err(rustix::io::Errno::NXIO) => size.0,
            Err(rustix::io::Errno::INVAL) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        if data > at {
            out.push(DeviceRange::new(at, data - at));
        }
        if data >= size.0 {
            break;
        }
        at = seek(file, SeekFrom::Hole(data))?;
    }
    Ok(out)
}

/// All of a drive but `unused` (ascending, apart).
pub(super) fn rest_of(size: ByteLen, unused: &[DeviceRange]) -> Vec<DeviceRange> {
    let mut out = Vec::new();
    let mut at = DeviceOffset(0);
    for range in unused.iter().chain([&DeviceRange::new(size.0, 0)]) {
        if range.start > at {
            out.push(DeviceRange::new(at.0, range.start.0 - at.0));
        }
        at = at.max(range.end());
    }
    out
}

/// Intersection of two lists of ranges, each ascending and without overlap.
pub(super) fn both(one: &[DeviceRange], other: &[DeviceRange]) -> Vec<DeviceRange> {
    let (mut i, mut j) = (0, 0);
    let mut out = Vec::new();
    while let (Some(a), Some(b)) = (one.get(i), other.get(j)) {
        let (start, end) = (a.start.max(b.start), a.end().min(b.end()));
        if start < end {
            out.push(DeviceRange::new(start.0, end.0 - start.0));
        }
        if a.end() <= b.end() { i += 1 } else { j += 1 }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_and_what_is_common() {
        let unused = [DeviceRange::new(0, 10), DeviceRange::new(50, 50)];
        let rest = rest_of(ByteLen(120), &unused);
        assert_eq!(rest, [DeviceRange::new(10, 40), DeviceRange::new(100, 20)]);
        assert_eq!(rest_of(ByteLen(100), &[]), [DeviceRange::new(0, 100)]);
        assert_eq!(rest_of(ByteLen(100), &[DeviceRange::new(0, 100)]), []);
        let other = [DeviceRange::new(0, 20), DeviceRange::new(30, 75)];
        assert_eq!(both(&rest, &other), [DeviceRange::new(10, 10), DeviceRange::new(30, 20), DeviceRange::new(100, 5)]);
    }
}
