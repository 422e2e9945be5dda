//! Bytes, sectors and clusters as types: they never meet as bare integers.
//!
//! Every conversion that can overflow or lose a remainder is checked, and shows it by its name or its `Option`.

use std::fmt;
use std::ops::{Add, Sub};

/// A position in bytes from a start; the type says from which.
pub trait Offset: Copy + Ord {
    /// The position `bytes` after the start.
    fn from_bytes(bytes: u64) -> Self;
    /// Bytes from the start.
    fn bytes(self) -> u64;
}

/// Offsets from different starts, which never meet without a conversion.
macro_rules! offsets {
    ($($(#[$doc:meta])+ $name:ident;)+) => {$(
        $(#[$doc])+
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl Offset for $name {
            fn from_bytes(bytes: u64) -> Self {
                Self(bytes)
            }

            fn bytes(self) -> u64 {
                self.0
            }
        }

        impl $name {
            /// The offset `len` further on; `None` past 64 bits.
            pub const fn checked_add(self, len: ByteLen) -> Option<Self> {
                match self.0.checked_add(len.0) {
                    Some(offset) => Some(Self(offset)),
                    None => None,
                }
            }

            /// Whether the offset is a multiple of `align`.
            pub const fn is_aligned(self, align: u64) -> bool {
                self.0.is_multiple_of(align)
            }
        }

        /// Panics in debug builds where the sum exceeds 64 bits.
        impl Add<ByteLen> for $name {
            type Output = Self;

            fn add(self, len: ByteLen) -> Self {
                Self(self.0 + len.0)
            }
        }

        /// The distance from an earlier offset. Panics in debug builds where it is a later one.
        impl Sub for $name {
            type Output = ByteLen;

            fn sub(self, earlier: Self) -> ByteLen {
                ByteLen(self.0 - earlier.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                grouped(self.0, f)
            }
        }
    )+};
}

offsets! {
    /// A position on a device, or in an image of one, in bytes from its start.
    DeviceOffset;
    /// A position in a volume, in bytes from its start: of NTFS, and of the BitLocker volume that holds it.
    VolumeOffset;
    /// A position in a stream of bytes, in bytes from its start: a file, a blob, a table of NTFS.
    StreamOffset;
}

impl VolumeOffset {
    /// Its place on the device, for a volume that begins at `volume`.
    pub const fn on_device(self, volume: DeviceOffset) -> DeviceOffset {
        DeviceOffset(volume.0 + self.0)
    }
}

impl DeviceOffset {
    /// Its place in a volume that begins at `volume`.
    pub const fn in_volume(self, volume: Self) -> VolumeOffset {
        VolumeOffset(self.0 - volume.0)
    }
}

/// Number of a batch, from 0, in the order in which a plan is written; as the end of a range, exclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchNo(pub u64);

/// Number of a file, from 0, in the tree of a drive; as the end of a range, exclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileNo(pub u32);

/// A length in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteLen(pub u64);

/// Logical block address: a sector of the device, counted from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lba(pub u64);

/// Logical cluster number: a cluster counted from the start of the NTFS volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lcn(pub u64);

/// Virtual cluster number: a cluster counted from the start of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vcn(pub u64);

/// A number of clusters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Clusters(pub u64);

/// Bytes in a logical sector: 512 or 4096.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SectorSize {
    /// 512-byte logical sectors (512n and 512e drives).
    S512,
    /// 4096-byte logical sectors (4Kn drives).
    S4096,
}

impl SectorSize {
    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::S512 => 512,
            Self::S4096 => 4096,
        }
    }

    /// `None` for a size that no supported drive has.
    pub const fn from_bytes(bytes: u64) -> Option<Self> {
        match bytes {
            512 => Some(Self::S512),
            4096 => Some(Self::S4096),
            _ => None,
        }
    }
}

/// Bytes in a cluster: a power of two from 512 to 2 MiB (NTFS 3.1; above 64 KiB since Windows 10 1709).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterSize(u32);

impl ClusterSize {
    /// Smallest legal cluster.
    pub const MIN: Self = Self(512);
    /// Largest legal cluster.
    pub const MAX: Self = Self(2 << 20);

    /// `None` unless a power of two from 512 bytes to 2 MiB.
    pub const fn from_bytes(bytes: u64) -> Option<Self> {
        if bytes >= 512 && bytes <= 2 << 20 && bytes.is_power_of_two() { Some(Self(bytes as u32)) } else { None }
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0 as u64
    }

    /// Clusters that hold `len` bytes, the last one possibly in part.
    pub const fn count_for(self, len: ByteLen) -> Clusters {
        Clusters(len.0.div_ceil(self.0 as u64))
    }

    /// Length of `n` clusters in bytes.
    ///
    /// # Panics
    /// The product exceeds 64 bits, which no volume reaches.
    pub const fn len_of(self, n: Clusters) -> ByteLen {
        match n.0.checked_mul(self.0 as u64) {
            Some(len) => ByteLen(len),
            None => panic!("clusters beyond 64-bit bytes"),
        }
    }

    /// Offset of cluster `lcn` in the volume.
    ///
    /// # Panics
    /// The product exceeds 64 bits, which no volume reaches.
    pub const fn offset_of(self, lcn: Lcn) -> VolumeOffset {
        VolumeOffset(self.len_of(Clusters(lcn.0)).0)
    }
}

impl Lba {
    /// Offset of the sector; `None` past 64-bit bytes.
    pub const fn offset(self, sector: SectorSize) -> Option<DeviceOffset> {
        match self.0.checked_mul(sector.bytes()) {
            Some(offset) => Some(DeviceOffset(offset)),
            None => None,
        }
    }
}

impl ByteLen {
    /// Rounded up to a multiple of `align`; `None` past 64 bits.
    pub const fn align_up(self, align: u64) -> Option<Self> {
        match self.0.checked_next_multiple_of(align) {
            Some(len) => Some(Self(len)),
            None => None,
        }
    }
}

impl fmt::Display for ByteLen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["B", "KB", "MB", "GB", "TB", "PB"];
        if self.0 < 1000 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64;
        let mut unit = 0;
        while value >= 999.95 && unit + 1 < UNITS.len() {
            value /= 1000.0;
            unit += 1;
        }
        write!(f, "{value:.1} {}", UNITS[unit])
    }
}

/// Digits in groups of three, so that a person can read a twelve-digit offset.
fn grouped(value: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let digits = value.to_string();
    let first = digits.len() % 3;
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && i % 3 == first {
            out.push(' ');
        }
        out.push(digit);
    }
    f.write_str(&out)
}

/// A run of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteRange<At> {
    /// Offset of its first byte.
    pub start: At,
    /// Length in bytes; may be 0.
    pub len: ByteLen,
}

/// A run of bytes on a device, or in an image of one.
pub type DeviceRange = ByteRange<DeviceOffset>;

/// A run of bytes in a volume.
pub type VolumeRange = ByteRange<VolumeOffset>;

/// A run of bytes in a file, a blob, or a table of NTFS.
pub type StreamRange = ByteRange<StreamOffset>;

impl<At: Offset> ByteRange<At> {
    /// A run of `len` bytes from `start`.
    pub fn new(start: u64, len: u64) -> Self {
        Self { start: At::from_bytes(start), len: ByteLen(len) }
    }

    /// First byte after the run.
    pub fn end(self) -> At {
        At::from_bytes(self.start.bytes() + self.len.0)
    }

    /// Whether the two share a byte.
    pub fn overlaps(self, other: Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }
}

impl VolumeRange {
    /// Its place on the device, for a volume that begins at `volume`.
    pub const fn on_device(self, volume: DeviceOffset) -> DeviceRange {
        DeviceRange { start: self.start.on_device(volume), len: self.len }
    }
}

/// A run of clusters on the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent {
    /// Number of its first cluster.
    pub lcn: Lcn,
    /// Length in clusters.
    pub len: Clusters,
}

/// A time in the kernel's full range and precision, including years such as 1601 and 9999. Twelve bytes, since ten
/// million files may each have several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C, packed(4))]
pub struct Stamp {
    /// Seconds since 1970-01-01 UTC.
    pub seconds: i64,
    /// Nanoseconds: 0 to 999 999 999.
    pub nanos: u32,
}

impl Stamp {
    /// From `st_mtime` and its nanoseconds, as `stat` returns them.
    pub fn from_stat(seconds: i64, nanos: i64) -> Self {
        Self { seconds, nanos: u32::try_from(nanos).unwrap_or(0) }
    }

    /// The nearest representable Windows time.
    pub fn file_time(self) -> FileTime {
        FileTime::from_unix(self.seconds, self.nanos)
    }
}

/// Windows time: 100 ns units since 1601-01-01 UTC. Bit 63 stays clear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileTime(pub u64);

impl FileTime {
    /// 1970-01-01 in Windows time.
    const UNIX_EPOCH: i128 = 116_444_736_000_000_000;

    /// From Unix seconds and nanoseconds; times outside 1601..=30828 are clamped to that range.
    pub fn from_unix(seconds: i64, nanos: u32) -> Self {
        let ticks = i128::from(seconds) * 10_000_000 + i128::from(nanos / 100) + Self::UNIX_EPOCH;
        Self(ticks.clamp(0, i128::from(i64::MAX)) as u64)
    }

    /// Unix seconds (rounded down) and nanoseconds.
    pub fn to_unix(self) -> (i64, u32) {
        let ticks = i128::from(self.0) - Self::UNIX_EPOCH;
        (ticks.div_euclid(10_000_000) as i64, ticks.rem_euclid(10_000_000) as u32 * 100)
    }

    /// Cut to whole milliseconds, as BitLocker's own times are.
    pub fn whole_millis(self) -> Self {
        Self(self.0 / 10_000 * 10_000)
    }
}

/// A GUID, kept in its on-disk byte order (first three fields little-endian).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// A GUID from its printed fields, as `4967d63b-2e29-4ad8-8399-f6a339e3d001` is written.
    pub const fn from_fields(a: u32, b: u16, c: u16, d: [u8; 8]) -> Self {
        let (a, b, c) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
        Self([a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]])
    }

    /// A version 4 GUID out of 16 random bytes.
    pub const fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[7] = bytes[7] & 0x0F | 0x40;
        bytes[8] = bytes[8] & 0x3F | 0x80;
        Self(bytes)
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let b = &self.0;
        write!(
            f,
            "{:02x}{:02x}{:02x}{:02x}-{:02x}{:02x}-{:02x}{:02x}-{:02x}{:02x}-{:02x}{:02x}{:02x}{:02x}{:02x}{:02x}",
            b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]
        )
    }
}

/// Disk geometry as a volume's boot sector records it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskShape {
    /// Sectors of a track.
    pub sectors_per_track: u16,
    /// Heads of the disk, as the boot sector gives them.
    pub heads: u16,
    /// Sectors before the partition; 0 where 32 bits do not hold them.
    pub hidden_sectors: u32,
}

/// Owner and permissions of a source; kept only where blobs get them as metadata.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Posix {
    /// Type and permissions, as `stat` gives them.
    pub mode: u32,
    /// Number of the user.
    pub uid: u32,
    /// Number of the group.
    pub gid: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_of_a_volume_has_one_place_on_the_device() {
        let volume = DeviceOffset(1 << 20);
        let range = VolumeRange::new(8192, 512);
        assert_eq!(range.on_device(volume), DeviceRange::new((1 << 20) + 8192, 512));
        assert_eq!(range.on_device(volume).start.in_volume(volume), range.start);
        assert_eq!(range.end() - range.start, range.len);
        assert_eq!(range.start + range.len, range.end());
        assert!(!range.overlaps(VolumeRange::new(8704, 1)), "the next byte is another range's");
    }

    #[test]
    fn unix_times_keep_their_hundred_nanoseconds() {
        let time = FileTime::from_unix(1_700_000_000, 123_456_789);
        assert_eq!(time.to_unix(), (1_700_000_000, 123_456_700));
        assert_eq!(FileTime::from_unix(-11_644_473_601, 0), FileTime(0));
        assert_eq!(FileTime::from_unix(i64::MAX, 0).0 >> 63, 0);
    }

    #[test]
    fn guid_prints_as_microsoft_prints_it() {
        let bytes = [0x3b, 0xd6, 0x67, 0x49, 0x29, 0x2e, 0xd8, 0x4a, 0x83, 0x99, 0xf6, 0xa3, 0x39, 0xe3, 0xd0, 0x01];
        let guid = Guid::from_fields(0x4967d63b, 0x2e29, 0x4ad8, [0x83, 0x99, 0xf6, 0xa3, 0x39, 0xe3, 0xd0, 0x01]);
        assert_eq!(guid, Guid(bytes));
        assert_eq!(guid.to_string(), "4967d63b-2e29-4ad8-8399-f6a339e3d001");
    }

    #[test]
    fn offsets_and_lengths_read_well() {
        assert_eq!(DeviceOffset(1_099_511_627_776).to_string(), "1 099 511 627 776");
        assert_eq!(DeviceOffset(12).to_string(), "12");
        assert_eq!(ByteLen(999).to_string(), "999 B");
        assert_eq!(ByteLen(4_000_787_030_016).to_string(), "4.0 TB");
    }

    #[test]
    fn cluster_sizes_are_powers_of_two_in_range() {
        assert!(ClusterSize::from_bytes(256).is_none());
        assert!(ClusterSize::from_bytes(4 << 20).is_none());
        assert!(ClusterSize::from_bytes(3 << 10).is_none());
        assert_eq!(ClusterSize::from_bytes(4096).unwrap().count_for(ByteLen(4097)), Clusters(2));
    }
}
