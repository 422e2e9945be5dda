//! Maps bytes of the unlocked volume to bytes of the device (docs/spec/bitlocker.md#reading-a-volume, point 7).
//!
//! The unlocked ("virtual") volume is as long as the partition. Its first bytes are stored elsewhere, BitLocker's own
//! areas read as zeros, and the rest is in place. A sector's cipher offset is always the place where it is stored, for
//! relocated sectors too.

use std::io;

use super::format::{FRONT_LEN, OEM_NTFS, REGION_LEN, REGION_LEN_VISTA};
use super::regions::Regions;
use crate::crypt::SectorCipher;
use crate::units::{ByteLen, SectorSize, VolumeOffset, VolumeRange};

/// Reader of a volume's stored bytes.
///
/// Offsets count from the start of the volume. Requested offsets and lengths are whole sectors of the volume; a read
/// past the end must fail, not return fewer bytes.
pub trait ReadAt {
    /// Fills `buf` from byte `at`.
    ///
    /// # Errors
    /// Errors of the device; [`io::ErrorKind::UnexpectedEof`] past its end.
    fn read_at(&mut self, at: VolumeOffset, buf: &mut [u8]) -> io::Result<()>;
}

impl<F: FnMut(VolumeOffset, &mut [u8]) -> io::Result<()>> ReadAt for F {
    fn read_at(&mut self, at: VolumeOffset, buf: &mut [u8]) -> io::Result<()> {
        self(at, buf)
    }
}

/// Source of a run of the unlocked volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Stored encrypted at this place, which is also the cipher's offset.
    Sealed(VolumeOffset),
    /// Stored unencrypted at this place.
    Plain(VolumeOffset),
    /// An area of BitLocker; reads as zeros.
    Zeros,
}

/// A run of the unlocked volume with a single source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its bytes in the unlocked volume.
    pub range: VolumeRange,
    /// Sectors of the device, or zeros.
    pub source: Source,
}

/// Reason why a volume's layout is impossible. Comes from metadata, so it must never cause a panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// An offset is no multiple of the sector size.
    #[error("{field} is at byte {at}, which is no sector boundary")]
    Unaligned {
        /// Name of the metadata field.
        field: &'static str,
        /// Offset in that field.
        at: VolumeOffset,
    },
    /// A range ends past 64 bits.
    #[error("{field} at byte {at} ends beyond any volume")]
    TooFar {
        /// Name of the metadata field.
        field: &'static str,
        /// Offset in that field.
        at: VolumeOffset,
    },
}

/// Original fields that Vista's first sector replaces (docs/spec/bitlocker.md#vista).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct VistaFront {
    mirror_cluster: u64,
}

/// State of each chunk of a volume in conversion (docs/spec/bitlocker.md#conversion-in-progress).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunks {
    /// Bytes of a chunk; a whole number of sectors.
    pub chunk_len: u64,
    /// Ascending by start.
    pub regions: Vec<ChunkRegion>,
}

/// One bitmap's part of the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChunkRegion {
    pub start: u64,
    /// Number of chunks that `bitmap` covers.
    pub bits: u64,
    /// Bit 0 of byte 0 is the first chunk; 1 = encrypted.
    pub bitmap: Vec<u8>,
}

impl Chunks {
    /// Whether the byte at `at` is encrypted, and the end of the range with the same answer.
    fn state_at(&self, at: u64) -> (bool, u64) {
        let behind = self.regions.partition_point(|region| region.start <= at);
        let next_start = self.regions.get(behind).map_or(u64::MAX, |region| region.start);
        let Some(region) = behind.checked_sub(1).and_then(|index| self.regions.get(index)) else {
            return (true, next_start);
        };
        let first = (at - region.start) / self.chunk_len;
        let bit = |chunk: u64| -> Option<bool> {
            if chunk >= region.bits {
                return None;
            }
            let byte = region.bitmap.get(usize::try_from(chunk / 8).ok()?)?;
            Some(byte >> (chunk % 8) & 1 == 1)
        };
        // Chunks that no bitmap covers are past the volume's end.
        let Some(sealed) = bit(first) else { return (true, next_start) };
        let mut last = first + 1;
        while bit(last) == Some(sealed) {
            last += 1;
        }
        let end = last.checked_mul(self.chunk_len).and_then(|len| len.checked_add(region.start)).unwrap_or(u64::MAX);
        (sealed, end.min(next_start))
    }
}

/// The parts of a layout in the metadata; input of a [`Mapping`].
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub sector: SectorSize,
    pub vista_mirror_cluster: Option<u64>,
    pub metadata: [u64; 3],
    pub relocated_at: u64,
    pub relocated_len: u64,
    /// Offset from which on everything is plain; 0 when nothing is.
    pub sealed_end: u64,
    /// Whether the volume is not encrypted at all.
    pub decrypted: bool,
    pub chunks: Option<Chunks>,
    /// Further ranges that a conversion hides: (name, start, length).
    pub hidden: Vec<(&'static str, u64, u64)>,
}

/// The map of one volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    sector: SectorSize,
    vista: Option<VistaFront>,
    /// End of the virtual bytes that are stored at `relocated_at`.
    relocated_end: u64,
    relocated_at: u64,
    /// Start and end of ranges that read as zeros; ascending, disjoint.
    hidden: Vec<(u64, u64)>,
    sealed_end: u64,
    chunks: Option<Chunks>,
}

impl Mapping {
    /// The map of a volume with these regions, with bytes from `sealed_end` on in plain.
    pub(super) fn until(regions: &Regions, sealed_end: VolumeOffset) -> Result<Self, MappingError> {
        Self::new(Layout {
            sector: regions.sector(),
            vista_mirror_cluster: None,
            metadata: regions.metadata().map(|range| range.start.0),
            relocated_at: regions.relocated().start.0,
            relocated_len: FRONT_LEN as u64,
            sealed_end: sealed_end.0,
            decrypted: false,
            chunks: None,
            hidden: Vec::new(),
        })
    }

    pub(super) fn new(layout: Layout) -> Result<Self, MappingError> {
        let sector = layout.sector.bytes();
        let region_len = if layout.vista_mirror_cluster.is_some() { REGION_LEN_VISTA } else { REGION_LEN } as u64;
        let mut ranges: Vec<(&'static str, u64, u64)> =
            layout.metadata.iter().map(|&at| ("a metadata region", at, region_len)).collect();
        ranges.push(("the relocated area", layout.relocated_at, layout.relocated_len));
        ranges.extend(&layout.hidden);
        let mut hidden = Vec::with_capacity(ranges.len());
        for (field, at, len) in ranges {
            if !at.is_multiple_of(sector) {
                return Err(MappingError::Unaligned { field, at: VolumeOffset(at) });
            }
            // Part sectors are hidden whole.
            let end = len.checked_next_multiple_of(sector).and_then(|len| at.checked_add(len));
            let end = end.ok_or(MappingError::TooFar { field, at: VolumeOffset(at) })?;
            if end > at {
                hidden.push((at, end));
            }
        }
        if !layout.sealed_end.is_multiple_of(sector) {
            return Err(MappingError::Unaligned { field: "the state offset", at: VolumeOffset(layout.sealed_end) });
        }
        hidden.sort_unstable();
        hidden.dedup_by(|next, kept| {
            let touches = next.0 <= kept.1;
            if touches {
                kept.1 = kept.1.max(next.1);
            }
            touches
        });
        let sealed_end = match layout.sealed_end {
            _ if layout.decrypted => 0,
            0 => u64::MAX,
            end => end,
        };
        Ok(Self {
            sector: layout.sector,
            vista: layout.vista_mirror_cluster.map(|mirror_cluster| VistaFront { mirror_cluster }),
            relocated_end: layout.relocated_len,
            relocated_at: layout.relocated_at,
            hidden,
            sealed_end,
            chunks: layout.chunks,
        })
    }

    /// Sector size of the volume.
    pub const fn sector(&self) -> SectorSize {
        self.sector
    }

    /// Ranges that read as zeros: BitLocker's own areas, ascending.
    pub fn hidden(&self) -> impl Iterator<Item = VolumeRange> {
        self.hidden.iter().map(|&(start, end)| VolumeRange::new(start, end - start))
    }

    /// Splits `len` bytes from byte `at` of the unlocked volume by their source.
    ///
    /// The segments are ascending, without gaps, and as long as they can be. Bytes past 64 bits are left out.
    pub fn map(&self, at: VolumeOffset, len: ByteLen) -> impl Iterator<Item = Segment> {
        let end = at.0.saturating_add(len.0);
        let mut next = at.0;
        std::iter::from_fn(move || {
            if next >= end {
                return None;
            }
            let (source, until) = self.run_at(next);
            let until = until.min(end);
            let range = VolumeRange::new(next, until - next);
            next = until;
            Some(Segment { range, source })
        })
    }

    /// Source of byte `at`, and the end of the run with that source (always after `at`).
    fn run_at(&self, at: u64) -> (Source, u64) {
        // The order of these questions is the format's: the first that fits wins.
        if self.vista.is_some() && at < FRONT_LEN as u64 {
            return (Source::Plain(VolumeOffset(at)), FRONT_LEN as u64);
        }
        if at < self.relocated_end {
            // Checked when the map was made: the relocated area ends within 64 bits.
            let stored = self.relocated_at + at;
            let (sealed, until) = match &self.chunks {
                Some(chunks) => chunks.state_at(stored),
                None => (self.sealed_end > 0, u64::MAX),
            };
            let until = until.checked_sub(self.relocated_at).unwrap_or(u64::MAX).min(self.relocated_end);
            return (Source::stored(sealed, stored), until);
        }
        let behind = self.hidden.partition_point(|&(start, _)| start <= at);
        if let Some(&(_, end)) = behind.checked_sub(1).and_then(|index| self.hidden.get(index))
            && at < end
        {
            return (Source::Zeros, end);
        }
        let next_hidden = self.hidden.get(behind).map_or(u64::MAX, |&(start, _)| start);
        let (sealed, until) = match &self.chunks {
            Some(chunks) => chunks.state_at(at),
            None if at < self.sealed_end => (true, self.sealed_end),
            None => (false, u64::MAX),
        };
        (Source::stored(sealed, at), until.min(next_hidden))
    }

    /// Restores fields that BitLocker replaces on the device, after a run of [`Source::Plain`] from byte `at` was read
    /// into `buf`.
    ///
    /// Only Vista's first sector is such a run: its OEM name and mirror cluster are BitLocker's. For any other run and
    /// volume this does nothing.
    pub fn restore(&self, at: VolumeOffset, buf: &mut [u8]) {
        const OEM: std::ops::Range<usize> = 3..11;
        const MIRROR: std::ops::Range<usize> = 0x38..0x40;
        if let Some(vista) = self.vista
            && at.0 == 0
            && buf.len() >= MIRROR.end
        {
            buf[OEM].copy_from_slice(&OEM_NTFS);
            buf[MIRROR].copy_from_slice(&vista.mirror_cluster.to_le_bytes());
        }
    }

    /// Fills `buf` with the unlocked volume's bytes from `at`. `cipher` may be absent when nothing there is sealed.
    ///
    /// # Errors
    /// The reader's; [`io::ErrorKind::InvalidInput`] unless `at` and the length are whole sectors, or when a sealed run
    /// is requested without a cipher.
    pub fn read(
        &self,
        at: VolumeOffset,
        buf: &mut [u8],
        cipher: Option<&SectorCipher>,
        reader: &mut dyn ReadAt,
    ) -> io::Result<()> {
        let len = buf.len() as u64;
        let sector = self.sector.bytes();
        if !at.is_aligned(sector) || !len.is_multiple_of(sector) || at.0.checked_add(len).is_none() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not whole sectors of the volume"));
        }
        let mut rest = buf;
        for segment in self.map(at, ByteLen(len)) {
            let (part, behind) = rest.split_at_mut(segment.range.len.0 as usize);
            match segment.source {
                Source::Zeros => part.fill(0),
                Source::Plain(stored) => {
                    reader.read_at(stored, part)?;
                    self.restore(segment.range.start, part);
                }
                Source::Sealed(stored) => {
                    let Some(cipher) = cipher else {
                        return Err(io::Error::new(io::ErrorKind::InvalidInput, "encrypted bytes without a key"));
                    };
                    reader.read_at(stored, part)?;
                    cipher.open(stored, part);
                }
            }
            rest = behind;
        }
        Ok(())
    }
}

impl Source {
    const fn stored(sealed: bool, at: u64) -> Self {
        if sealed { Self::Sealed(VolumeOffset(at)) } else { Self::Plain(VolumeOffset(at)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::ClusterSize;

    fn sources(mapping: &Mapping, at: u64, len: u64) -> Vec<(u64, u64, Source)> {
        mapping
            .map(VolumeOffset(at), ByteLen(len))
            .map(|segment| (segment.range.start.0, segment.range.len.0, segment.source))
            .collect()
    }

    #[test]
    fn a_finished_volume_has_the_format_s_five_kinds_of_places() {
        let len = 0x640_0000;
        let cluster = ClusterSize::from_bytes(4096).unwrap();
        let regions = Regions::place(ByteLen(len), cluster, SectorSize::S512).unwrap();
        let sealed = |at| Source::Sealed(VolumeOffset(at));
        assert_eq!(
            sources(&regions.mapping(), 0, len),
            [
                (0, 0x2000, sealed(0x211_0000)),
                (0x2000, 0x20F_E000, sealed(0x2000)),
                // Region 1 and the relocated area are neighbours; the verify region after them is ordinary.
                (0x210_0000, 0x1_2000, Source::Zeros),
                (0x211_2000, 0xB0_B000, sealed(0x211_2000)),
                (0x2C1_D000, 0x1_0000, Source::Zeros),
                (0x2C2_D000, 0xB0_D000, sealed(0x2C2_D000)),
                (0x373_A000, 0x1_0000, Source::Zeros),
                (0x374_A000, 0x2CB_6000, sealed(0x374_A000)),
            ]
        );
        assert_eq!(
            sources(&regions.mapping(), 0x1E00, 0x400),
            [(0x1E00, 0x200, sealed(0x211_1E00)), (0x2000, 0x200, sealed(0x2000)),]
        );
    }

    #[test]
    fn chunks_of_a_conversion_are_looked_up_where_they_are_stored() {
        let chunks = Chunks {
            chunk_len: 0x1000,
            regions: vec![
                ChunkRegion { start: 0, bits: 16, bitmap: vec![0b0000_1111, 0xFF] },
                ChunkRegion { start: 0x1_0000, bits: 4, bitmap: vec![0b0100] },
            ],
        };
        let layout = Layout {
            sector: SectorSize::S512,
            vista_mirror_cluster: None,
            metadata: [0x2_0000, 0x4_0000, 0x6_0000],
            relocated_at: 0x7000,
            relocated_len: 0x2000,
            sealed_end: 0x10_0000,
            decrypted: false,
            chunks: Some(chunks),
            hidden: vec![("a log", 0xA000, 0x100)],
        };
        let mapping = Mapping::new(layout).unwrap();
        let (sealed, plain) = (|at| Source::Sealed(VolumeOffset(at)), |at| Source::Plain(VolumeOffset(at)));
        assert_eq!(
            sources(&mapping, 0, 0x1_5000),
            [
                (0, 0x1000, plain(0x7000)),
                (0x1000, 0x1000, sealed(0x8000)),
                (0x2000, 0x2000, sealed(0x2000)),
                (0x4000, 0x3000, plain(0x4000)),
                (0x7000, 0x2000, Source::Zeros),
                (0x9000, 0x1000, sealed(0x9000)),
                (0xA000, 0x200, Source::Zeros),
                (0xA200, 0x5E00, sealed(0xA200)),
                (0x1_0000, 0x2000, plain(0x1_0000)),
                (0x1_2000, 0x1000, sealed(0x1_2000)),
                (0x1_3000, 0x1000, plain(0x1_3000)),
                (0x1_4000, 0x1000, sealed(0x1_4000)),
            ]
        );
    }

    #[test]
    fn hostile_layouts_are_errors() {
        let layout = |metadata, relocated_at, relocated_len, sealed_end| Layout {
            sector: SectorSize::S4096,
            vista_mirror_cluster: None,
            metadata,
            relocated_at,
            relocated_len,
            sealed_end,
            decrypted: false,
            chunks: None,
            hidden: Vec::new(),
        };
        let far = u64::MAX - 4095;
        assert!(matches!(Mapping::new(layout([1, 0, 0], 0, 0, 0)), Err(MappingError::Unaligned { .. })));
        assert!(matches!(Mapping::new(layout([far, 0, 0], 0, 0, 0)), Err(MappingError::TooFar { .. })));
        assert!(matches!(Mapping::new(layout([0; 3], far, 8192, 0)), Err(MappingError::TooFar { .. })));
        assert!(matches!(Mapping::new(layout([0; 3], 0, u64::MAX, 0)), Err(MappingError::TooFar { .. })));
        assert!(matches!(Mapping::new(layout([0; 3], 0, 8192, 512)), Err(MappingError::Unaligned { .. })));
        let mapping = Mapping::new(layout([0; 3], 4096, 4096, 0)).unwrap();
        assert_eq!(mapping.map(VolumeOffset(u64::MAX - 10), ByteLen(u64::MAX)).count(), 1);
    }
}
