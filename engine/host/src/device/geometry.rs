//! Sizes, sectors and queue limits.

use std::fs;
use std::path::Path;

use crate::io::Requests;
use crate::units::{ByteLen, SectorSize};

/// Sizes and queue limits of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Size in bytes, whole logical sectors.
    pub size: ByteLen,
    /// Logical sector: the unit of offsets and lengths of requests.
    pub sector: SectorSize,
    /// Physical sector in bytes.
    pub physical_sector: u32,
    /// Largest transfer that the kernel passes to the device in one piece.
    pub transfer_max: Option<ByteLen>,
    /// Most segments of memory in one transfer.
    pub segments_max: Option<u64>,
    /// Optimal transfer length reported by the device.
    pub optimal_io: Option<ByteLen>,
    /// Whether the medium rotates; `None` where the kernel does not say.
    pub rotational: Option<bool>,
    /// Whether ranges can be discarded, and how.
    pub discard: Option<Discard>,
    /// Zones that bind the order of writes.
    pub zoned: Zoned,
}

/// Units and limits of discarding (TRIM, UNMAP), in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discard {
    /// Unit in bytes.
    pub granularity: u64,
    /// First unit boundary in bytes.
    pub alignment: u64,
    /// Longest range of one request in bytes.
    pub len_max: u64,
}

/// Shingled or zoned recording, as far as the drive admits it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Zoned {
    /// No zones, or none reported.
    #[default]
    No,
    /// Any order works, ascending is faster.
    HostAware,
    /// Only ascending writes work.
    HostManaged,
}

/// Content of a sysfs attribute, trimmed; `None` when absent or empty.
pub fn attribute(dir: &Path, name: &str) -> Option<String> {
    let bytes = fs::read(dir.join(name)).ok()?;
    // Old drives put anything into their names.
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    if text.is_empty() { None } else { Some(text.to_owned()) }
}

/// A sysfs attribute that is a number.
pub(super) fn number(dir: &Path, name: &str) -> Option<u64> {
    attribute(dir, name)?.parse().ok()
}

/// Bytes in flight that keep a disk with one head busy, and those that keep an array of flash chips busy.
const IN_FLIGHT: [u64; 2] = [16 << 20, 32 << 20];

impl Geometry {
    /// Limits of one request to the device.
    pub fn requests(&self) -> Requests {
        Requests {
            len_max: self.transfer_max.map(|len| len.0),
            segments_max: self.segments_max,
            optimal: self.optimal_io.map(|len| len.0),
        }
    }

    /// Writes in flight that keep the device busy; more would only queue.
    pub fn writes_in_flight(&self) -> u32 {
        let bytes = IN_FLIGHT[usize::from(self.rotational != Some(true))];
        let each = self.transfer_max.map_or(4 << 20, |len| len.0.clamp(128 << 10, 4 << 20));
        bytes.div_ceil(each).clamp(4, 256) as u32
    }

    /// With the limits found in the disk's sysfs directory, if there is one.
    pub(super) fn with_limits(size: ByteLen, sector: SectorSize, physical_sector: u32, disk: Option<&Path>) -> Self {
        let queue = disk.map(|disk| disk.join("queue"));
        let queue = queue.as_deref();
        let limit = |name| queue.and_then(|queue| number(queue, name)).filter(|value| *value > 0);
        let discard = limit("discard_max_bytes").map(|len_max| Discard {
            granularity: limit("discard_granularity").unwrap_or(sector.bytes()),
            alignment: disk.and_then(|disk| number(disk, "discard_alignment")).unwrap_or(0),
            len_max,
        });
        Self {
            size: ByteLen(size.0 - size.0 % sector.bytes()),
            sector,
            physical_sector,
            transfer_max: limit("max_sectors_kb").and_then(|kib| kib.checked_mul(1024)).map(ByteLen),
            segments_max: limit("max_segments"),
            optimal_io: limit("optimal_io_size").map(ByteLen),
            rotational: queue.and_then(|queue| number(queue, "rotational")).map(|value| value != 0),
            discard,
            zoned: match queue.and_then(|queue| attribute(queue, "zoned")).as_deref() {
                Some("host-aware") => Zoned::HostAware,
                Some("host-managed") => Zoned::HostManaged,
                _ => Zoned::No, // "none", or a kernel that does not tell
            },
        }
    }
}
