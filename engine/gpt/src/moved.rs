//! A GPT that moves to a disk of another size: partitions stay where they are, the second copy goes to the new end, and both
//! copies and the protective record say the new size.

use std::io;

use crc_fast::{CrcAlgorithm::Crc32IsoHdlc, checksum};
use zerocopy::{FromBytes, IntoBytes};

use super::layout::*;
use super::read::{Copy, read_copy};
use crate::units::{ByteLen, DeviceOffset, DeviceRange, SectorSize};

/// Writes, each with its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Protective record and first copy, each with its place; the entries stay where they are.
    pub first: Vec<(DeviceOffset, Vec<u8>)>,
    /// Entries and header of the second copy, at the end of the disk.
    pub second: (DeviceOffset, Vec<u8>),
    /// Former position of the second copy, if it is neither the new one nor inside a partition.
    pub old_second: Option<DeviceRange>,
}

/// Reason why it cannot move.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoveError {
    /// A partition does not fit.
    #[error("partition {number} ends at byte {end}, and the disk has room for partitions up to byte {room}")]
    PartitionPastEnd {
        /// Number of the partition, from 1.
        number: u32,
        /// Its end.
        end: DeviceOffset,
        /// End of what partitions may take.
        room: DeviceOffset,
    },
    /// The table counts in other sectors than the disk has.
    #[error("the partition table counts sectors of {} bytes, and the disk has sectors of {}", table.bytes(), disk.bytes())]
    OtherSector {
        /// The table's.
        table: SectorSize,
        /// The disk's.
        disk: SectorSize,
    },
    /// No room for two tables.
    #[error("the disk is too small for the partition table")]
    TooSmall,
}

/// The GPT of an image of `image` bytes, for a disk of `disk` bytes; `None` without a usable GPT, where nothing is to be
/// moved. `read_at` reads the image.
///
/// # Errors
/// Those of `read_at` for the first sector.
pub fn moved(
    image: ByteLen,
    disk: ByteLen,
    disk_sector: SectorSize,
    mut read_at: impl FnMut(DeviceOffset, &mut [u8]) -> io::Result<()>,
) -> io::Result<Result<Option<Moved>, MoveError>> {
    let found = super::read::read(image, disk_sector, &mut read_at)?;
    if found.from_mbr || found.disk.is_none() {
        return Ok(Ok(None));
    }
    let Some(table) = found.sector else { return Ok(Ok(None)) };
    if table != disk_sector {
        return Ok(Err(MoveError::OtherSector { table, disk: disk_sector }));
    }
    let size = table.bytes();
    let (image_sectors, sectors) = (image.0 / size, disk.0 / size);
    let mut copy = |lba: u64| read_copy(lba, image_sectors, table, &mut read_at).ok().flatten();
    let first = copy(1);
    let ends = [first.as_ref().map(|copy| copy.header.alternate_lba.get()), Some(image_sectors.saturating_sub(1))];
    let second = ends.into_iter().flatten().filter(|lba| (2..image_sectors).contains(lba)).find_map(copy);
    // Where it is, whether it is sound or not.
    let old_end = second.as_ref().map(|copy| copy.header.my_lba.get());
    let Some(copy) = first.or(second) else { return Ok(Ok(None)) };
    let mut mbr = vec![0; size as usize];
    read_at(DeviceOffset(0), &mut mbr)?;
    Ok(to(&copy, old_end, &mbr, image_sectors, sectors, table).map(Some))
}

fn to(
    copy: &Copy,
    old_end: Option<u64>,
    mbr: &[u8],
    image_sectors: u64,
    sectors: u64,
    sector: SectorSize,
) -> Result<Moved, MoveError> {
    let size = sector.bytes();
    let entries_len = (copy.raw.len() as u64).div_ceil(size);
    // Two headers, two arrays of entries, the protective record.
    if sectors < 2 * entries_len + 4 {
        return Err(MoveError::TooSmall);
    }
    let (last, second_entries) = (sectors - 1, sectors - 1 - entries_len);
    let room = DeviceOffset(second_entries * size);
    if let Some(entry) = copy.entries.iter().find(|entry| entry.range.end() > room) {
        return Err(MoveError::PartitionPastEnd { number: entry.number, end: entry.range.end(), room });
    }
    // The first copy's entries are behind its header, unless a gap was left; a second copy does not say where that is.
    let first_entries = if copy.header.my_lba.get() == 1 { copy.header.entries_lba.get() } else { 2 };
    let mut raw = copy.raw.clone();
    raw.resize((entries_len * size) as usize, 0);
    let header = |my: u64, other: u64, entries: u64| {
        let mut header = copy.header;
        header.header_size.set(HEADER_LEN);
        header.my_lba.set(my);
        header.alternate_lba.set(other);
        header.entries_lba.set(entries);
        header.last_usable_lba.set(second_entries - 1);
        header.header_crc32.set(0);
        header.header_crc32.set(checksum(Crc32IsoHdlc, header.as_bytes()) as u32);
        let mut bytes = header.as_bytes().to_vec();
        bytes.resize(size as usize, 0);
        bytes
    };
    let mut protective = mbr.to_vec();
    if let Ok((mut record, rest)) = Mbr::read_from_prefix(mbr)
        && let Some(one) = record.records.iter_mut().find(|one| one.kind == MBR_PROTECTIVE)
    {
        // Hybrid tables protect a part of the disk only, and go on doing so.
        let is_whole = u64::from(one.sectors.get()) + 1 == image_sectors || one.sectors.get() == u32::MAX;
        if is_whole || one.start_lba.get() == 1 && record.records[1..].iter().all(|other| other.kind == 0) {
            let one = &mut record.records.iter_mut().find(|one| one.kind == MBR_PROTECTIVE);
            if let Some(one) = one {
                one.sectors.set(u32::try_from(sectors.saturating_sub(one.start_lba.get().into())).unwrap_or(u32::MAX));
            }
        }
        protective = record.as_bytes().iter().chain(rest).copied().collect();
    }
    let first = vec![
        (DeviceOffset(0), protective),
        (DeviceOffset(size), header(1, last, first_entries)),
        (DeviceOffset(first_entries * size), raw.clone()),
    ];
    raw.extend(header(last, 1, second_entries));
    let old_second = old_end.filter(|end| *end != last).and_then(|end| {
        let start = end.checked_sub(entries_len)? * size;
        let old = DeviceRange::new(start, (entries_len + 1) * size);
        (!copy.entries.iter().any(|entry| entry.range.overlaps(old))).then_some(old)
    });
    Ok(Moved { first, second: (DeviceOffset(second_entries * size), raw), old_second })
}

/// Bytes of a header that count; what a later revision may have behind them is not known.
const HEADER_LEN: u32 = size_of::<GptHeader>() as u32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Guid;
    use crate::{Guids, Scheme, Table, read};

    fn image(len: u64, sector: SectorSize, scheme: Scheme) -> Vec<u8> {
        let guids = Guids { disk: Guid([1; 16]), msr: Guid([2; 16]), data: Guid([3; 16]) };
        let table = Table::plan_default(ByteLen(len), sector, scheme, ByteLen(4096), guids).expect("a table");
        let mut bytes = vec![0; len as usize];
        let primary = table.primary();
        bytes[..primary.len()].copy_from_slice(&primary);
        if let Some((at, backup)) = table.backup() {
            bytes[at.0 as usize..][..backup.len()].copy_from_slice(&backup);
        }
        bytes
    }

    fn move_to(image: &[u8], disk: u64, sector: SectorSize) -> Result<Option<Moved>, MoveError> {
        moved(ByteLen(image.len() as u64), ByteLen(disk), sector, |at, into| {
            into.copy_from_slice(&image[at.0 as usize..][..into.len()]);
            Ok(())
        })
        .expect("readable")
    }

    #[test]
    fn a_table_that_moved_has_no_flaw_and_the_same_partitions() {
        const MIB: u64 = 1 << 20;
        for sector in [SectorSize::S512, SectorSize::S4096] {
            let size = 64 * MIB;
            let whole = image(size, sector, Scheme::Gpt);
            let look = |bytes: &[u8]| {
                read(ByteLen(bytes.len() as u64), sector, |at, into| {
                    into.copy_from_slice(&bytes[at.0 as usize..][..into.len()]);
                    Ok(())
                })
                .expect("readable")
            };
            let before = look(&whole);
            let mut no_first = whole.clone();
            no_first[sector.bytes() as usize..][..512].fill(0);
            let mut no_second = whole.clone();
            no_second[(size - sector.bytes()) as usize..].fill(0);
            for from in [&whole, &no_first, &no_second] {
                for disk in [size, size + 8 * sector.bytes(), size + 50 * MIB, size - MIB / 2] {
                    let moved = move_to(from, disk, sector).expect("it fits").expect("a table");
                    let mut bytes = from.clone();
                    bytes.resize(disk as usize, 0);
                    let mut put =
                        |at: DeviceOffset, new: &[u8]| bytes[at.0 as usize..][..new.len()].copy_from_slice(new);
                    if let Some(old) = moved.old_second.filter(|old| old.end().0 <= disk) {
                        put(old.start, &vec![0; old.len.0 as usize]);
                    }
                    put(moved.second.0, &moved.second.1);
                    moved.first.iter().for_each(|(at, new)| put(*at, new));
                    let after = look(&bytes);
                    assert_eq!(after.flaws, [], "{disk} {sector:?}");
                    assert!(after.copies_agree && after.protective);
                    assert_eq!((&after.partitions, after.disk), (&before.partitions, before.disk));
                    // Of the same size and sound, it is what it was.
                    if disk == size {
                        assert_eq!(bytes, whole);
                    }
                }
            }
            let small = move_to(&whole, 40 * MIB, sector);
            assert!(matches!(small, Err(MoveError::PartitionPastEnd { number: 2, .. })), "{small:?}");
            assert_eq!(move_to(&whole, 4096, sector), Err(MoveError::TooSmall));
        }
        let whole = image(64 * MIB, SectorSize::S512, Scheme::Gpt);
        assert!(matches!(move_to(&whole, 80 * MIB, SectorSize::S4096), Err(MoveError::OtherSector { .. })));
        assert_eq!(move_to(&image(64 * MIB, SectorSize::S512, Scheme::Mbr), 80 * MIB, SectorSize::S512), Ok(None));
        assert_eq!(move_to(&vec![0; 1 << 20], 80 * MIB, SectorSize::S512), Ok(None));
    }
}
