//! A conversion under way since Windows 8: the chunks that are encrypted already
//! (docs/spec/bitlocker.md#conversion-in-progress).

use zerocopy::FromBytes;
use zerocopy::little_endian::U64;

use crate::format::{EowBitmapHeader, EowHeader, EowRecordHeader, crc32};
use crate::map::{ChunkRegion, Chunks, ReadAt};
use crate::units::{SectorSize, VolumeOffset};

const SIGNATURE: [u8; 8] = *b"FVE-EOW\0";
const BITMAP_SIGNATURE: [u8; 10] = *b"FVE-EOWBM\0";
const RECORD_SIGNATURE: [u8; 10] = *b"FVE-EOWBR\0";

/// Longest block: its size field has 16 bits.
const BLOCK_LEN_MAX: usize = 0x1_0000;
/// Longest bitmap file that is read; all known ones have 0x600 bytes.
const BITMAP_LEN_MAX: usize = 0x1_0000;
/// Limit of all bitmaps together, in bytes: twice the size of the most regions that a block can name, at the known
/// size.
const BITMAPS_LEN_MAX: usize = 8 << 20;

/// Progress and hidden areas of a conversion.
#[derive(Debug)]
pub(super) struct Conversion {
    pub chunks: Chunks,
    /// Blocks, bitmaps and logs: name, start, length.
    pub hidden: Vec<(&'static str, u64, u64)>,
}

/// Reads the description of a conversion; `None` when neither copy is good.
pub(super) fn read(blocks: [VolumeOffset; 2], sector: SectorSize, reader: &mut dyn ReadAt) -> Option<Conversion> {
    let mut first = None;
    let mut hidden = Vec::new();
    for at in blocks {
        if let Some(block) = read_block(at, sector, reader) {
            hidden.push(("a conversion block", at.0, block.bytes.len() as u64));
            first.get_or_insert(block);
        }
    }
    let block = first?;
    let chunk_len = u64::from(block.header.chunk_size.get());
    if chunk_len == 0 || !chunk_len.is_multiple_of(sector.bytes()) {
        return None;
    }
    let log_len = block.header.log_len.get().into();
    let mut regions = Vec::new();
    let mut held = 0;
    for at in block.bitmaps()? {
        let (region, log_at, len) = read_bitmap(at, sector, reader)?;
        held += region.bitmap.len();
        if held > BITMAPS_LEN_MAX || !region.start.is_multiple_of(sector.bytes()) {
            return None;
        }
        hidden.push(("a conversion bitmap", at, len));
        hidden.push(("a conversion log", log_at, log_len));
        regions.push(region);
    }
    regions.sort_by_key(|region: &ChunkRegion| region.start);
    Some(Conversion { chunks: Chunks { chunk_len, regions }, hidden })
}

struct Block {
    header: EowHeader,
    bytes: Vec<u8>,
}

impl Block {
    fn bitmaps(&self) -> Option<impl Iterator<Item = u64>> {
        let count = usize::try_from(self.header.region_count.get()).ok()?;
        let offsets = self.bytes.get(size_of::<EowHeader>()..)?;
        let (offsets, _) = <[U64]>::ref_from_prefix_with_elems(offsets, count).ok()?;
        Some(offsets.iter().map(|offset| offset.get()))
    }
}

fn read_block(at: VolumeOffset, sector: SectorSize, reader: &mut dyn ReadAt) -> Option<Block> {
    let head = read_sectors(at, size_of::<EowHeader>(), sector, reader)?;
    let (header, _) = EowHeader::read_from_prefix(&head).ok()?;
    let size = usize::from(header.size.get());
    if header.signature != SIGNATURE || size < size_of::<EowHeader>() || size > BLOCK_LEN_MAX {
        return None;
    }
    let mut bytes = read_sectors(at, size, sector, reader)?;
    bytes.truncate(size);
    let crc_at = std::mem::offset_of!(EowHeader, crc32);
    fits(&bytes, crc_at, header.crc32.get()).then_some(Block { header, bytes })
}

/// One region's newest bitmap, the place of its log, and the length of the bitmap file.
fn read_bitmap(at: u64, sector: SectorSize, reader: &mut dyn ReadAt) -> Option<(ChunkRegion, u64, u64)> {
    let at = VolumeOffset(at);
    let head = read_sectors(at, size_of::<EowBitmapHeader>(), sector, reader)?;
    let (header, _) = EowBitmapHeader::read_from_prefix(&head).ok()?;
    let size = usize::try_from(header.size.get()).ok()?;
    if header.signature != BITMAP_SIGNATURE || size > BITMAP_LEN_MAX {
        return None;
    }
    let bytes = read_sectors(at, size, sector, reader)?;
    let bytes = bytes.get(..size)?;
    let [first, second] = header.record_offsets.map(|offset| offset.get() as usize);
    let covered = bytes.get(..first)?;
    if !fits(covered, std::mem::offset_of!(EowBitmapHeader, crc32), header.crc32.get()) {
        return None;
    }
    let newest = [first, second].into_iter().filter_map(|offset| record(bytes.get(offset..)?)).max_by_key(|r| r.0)?;
    let (_, bits, bitmap) = newest;
    let region = ChunkRegion { start: header.region_at.get(), bits, bitmap };
    Some((region, header.log_at.get(), size as u64))
}

/// Sequence number, number of bits, bits.
fn record(bytes: &[u8]) -> Option<(u64, u64, Vec<u8>)> {
    let (header, _) = EowRecordHeader::ref_from_prefix(bytes).ok()?;
    if header.signature != RECORD_SIGNATURE {
        return None;
    }
    let whole = bytes.get(..usize::try_from(header.size.get()).ok()?)?;
    let bitmap = whole.get(usize::from(header.header_size.get()).max(size_of::<EowRecordHeader>())..)?;
    let crc_at = std::mem::offset_of!(EowRecordHeader, crc32);
    fits(whole, crc_at, header.crc32.get()).then(|| (header.sequence.get(), header.bits.get().into(), bitmap.to_vec()))
}

/// CRC-32 of `bytes` with the CRC's own field zero.
fn fits(bytes: &[u8], crc_at: usize, expected: u32) -> bool {
    let mut zeroed = bytes.to_vec();
    match zeroed.get_mut(crc_at..crc_at + size_of::<u32>()) {
        Some(field) => field.fill(0),
        None => return false,
    }
    crc32(&zeroed) == expected
}

/// At least `len` bytes, in whole sectors.
fn read_sectors(at: VolumeOffset, len: usize, sector: SectorSize, reader: &mut dyn ReadAt) -> Option<Vec<u8>> {
    if !at.is_aligned(sector.bytes()) {
        return None;
    }
    let mut bytes = vec![0; len.next_multiple_of(sector.bytes() as usize)];
    reader.read_at(at, &mut bytes).ok()?;
    Some(bytes)
}
