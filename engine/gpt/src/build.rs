//! Tables for new drives.

use std::mem::size_of;

use crc_fast::{CrcAlgorithm::Crc32IsoHdlc, checksum};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use super::layout::*;
use super::{ALIGNMENT, MSR_LEN};
use crate::units::{ByteLen, DeviceOffset, DeviceRange, Guid, SectorSize};

/// The three random GUIDs of a new GPT; an MBR takes its disk signature from the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guids {
    /// GUID of the disk, in the table's header.
    pub disk: Guid,
    /// GUID of the Microsoft reserved partition.
    pub msr: Guid,
    /// GUID of the data partition.
    pub data: Guid,
}

/// Kind of partition table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheme {
    /// GUID partition table with protective MBR.
    #[default]
    Gpt,
    /// Master boot record, for drives of at most 2^32 sectors.
    Mbr,
}

/// Reason why no table can be planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Nothing is left for the data partition.
    #[error("the drive of {disk} is too small for a partition table and a volume")]
    TooSmall {
        /// Size of the drive.
        disk: ByteLen,
    },
    /// The drive exceeds the 32-bit sector numbers of an MBR.
    #[error("an MBR partition table reaches {} bytes, the drive has {}", limit.0, disk.0)]
    TooLargeForMbr {
        /// Size of the drive.
        disk: ByteLen,
        /// Limit of 32-bit sector numbers in bytes.
        limit: ByteLen,
    },
    /// Alignment or cluster size is not a power of two of whole sectors.
    #[error("alignment {0} is not a power of two of whole sectors")]
    BadAlignment(u64),
}

/// A planned partition table with one data partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// GPT or MBR.
    pub scheme: Scheme,
    /// Logical sector size of the drive.
    pub sector: SectorSize,
    /// Number of whole sectors of the drive.
    pub sectors: u64,
    /// Microsoft reserved partition; none with an MBR.
    pub msr: Option<DeviceRange>,
    /// The volume's partition: starts aligned, and is a whole number of clusters long.
    pub data: DeviceRange,
    guids: Guids,
}

impl Table {
    /// Lays out a drive of `disk` bytes: reserved partition, then one data partition up to the last aligned place, its
    /// length cut to a multiple of `cluster` bytes so that the last cluster carries the backup boot sector
    /// (docs/spec/ntfs.md#partition). Its end is aligned too: partitioners caution against anything else.
    ///
    /// # Errors
    /// The drive is too small, or too large for an MBR, or `alignment` or `cluster` is no power of two of whole
    /// sectors.
    pub fn plan(
        disk: ByteLen,
        sector: SectorSize,
        scheme: Scheme,
        alignment: ByteLen,
        cluster: ByteLen,
        guids: Guids,
    ) -> Result<Self, PlanError> {
        for size in [alignment.0, cluster.0] {
            if !size.is_power_of_two() {
                return Err(PlanError::BadAlignment(size));
            }
        }
        if alignment.0 < sector.bytes() {
            return Err(PlanError::BadAlignment(alignment.0));
        }
        let cluster = cluster.0.max(sector.bytes());
        let sectors = disk.0 / sector.bytes();
        let too_small = PlanError::TooSmall { disk };
        let (msr, start, end) = match scheme {
            Scheme::Gpt => {
                let tables = (1 + entry_sectors(sector)) * sector.bytes();
                let front = ByteLen(sector.bytes() + tables).align_up(alignment.0).ok_or(too_small)?.0;
                let start = ByteLen(front + MSR_LEN.0).align_up(alignment.0).ok_or(too_small)?.0;
                let end = (sectors * sector.bytes()).checked_sub(tables).ok_or(too_small)?;
                (Some(DeviceRange::new(front, MSR_LEN.0)), start, end)
            }
            Scheme::Mbr => {
                let limit = ByteLen((1 << 32) * sector.bytes());
                if sectors * sector.bytes() > limit.0 {
                    return Err(PlanError::TooLargeForMbr { disk, limit });
                }
                let start = alignment.0;
                (None, start, sectors * sector.bytes())
            }
        };
        let end = end / alignment.0 * alignment.0;
        let len = end.checked_sub(start).ok_or(too_small)? / cluster * cluster;
        if len == 0 {
            return Err(too_small);
        }
        Ok(Self { scheme, sector, sectors, msr, data: DeviceRange::new(start, len), guids })
    }

    /// [`Table::plan`] with the usual alignment.
    ///
    /// # Errors
    /// As [`Table::plan`].
    pub fn plan_default(
        disk: ByteLen,
        sector: SectorSize,
        scheme: Scheme,
        cluster: ByteLen,
        guids: Guids,
    ) -> Result<Self, PlanError> {
        Self::plan(disk, sector, scheme, ALIGNMENT, cluster, guids)
    }

    /// The bytes at the front of the drive: protective MBR, header, entries; or the MBR sector alone.
    pub fn primary(&self) -> Vec<u8> {
        let sector = self.sector.bytes() as usize;
        let mut out = vec![0; sector];
        match self.scheme {
            Scheme::Mbr => out[..512].copy_from_slice(self.mbr().as_bytes()),
            Scheme::Gpt => {
                out[..512].copy_from_slice(self.protective_mbr().as_bytes());
                let entries = self.entries();
                let header = self.header(&entries, 1, self.sectors - 1, 2);
                out.extend_from_slice(header.as_bytes());
                out.resize(2 * sector, 0);
                out.extend_from_slice(&entries);
            }
        }
        out
    }

    /// The bytes at the end of the drive, with their offset: entries and header; `None` with an MBR.
    pub fn backup(&self) -> Option<(DeviceOffset, Vec<u8>)> {
        if self.scheme == Scheme::Mbr {
            return None;
        }
        let entries_lba = self.sectors - 1 - entry_sectors(self.sector);
        let mut out = self.entries();
        let header = self.header(&out, self.sectors - 1, 1, entries_lba);
        out.extend_from_slice(header.as_bytes());
        out.resize(((1 + entry_sectors(self.sector)) * self.sector.bytes()) as usize, 0);
        Some((DeviceOffset(entries_lba * self.sector.bytes()), out))
    }

    fn protective_mbr(&self) -> Mbr {
        // UEFI 2.10 table 5.4: saturated where 32 bits do not reach.
        let covered = u32::try_from(self.sectors - 1).unwrap_or(u32::MAX);
        let mut mbr = Mbr::new_zeroed();
        mbr.records[0] = MbrRecord {
            boot_indicator: 0,
            start_chs: [0x00, 0x02, 0x00],
            kind: MBR_PROTECTIVE,
            end_chs: chs(self.sectors - 1, 0xFF),
            start_lba: U32::new(1),
            sectors: U32::new(covered),
        };
        mbr.signature = U16::new(MBR_SIGNATURE);
        mbr
    }

    fn mbr(&self) -> Mbr {
        let (first, count) = self.lbas(self.data);
        let mut mbr = Mbr::new_zeroed();
        let [a, b, c, d, ..] = self.guids.disk.0;
        // Windows takes zero for a missing signature and writes one itself.
        mbr.disk_signature = U32::new(u32::from_le_bytes([a, b, c, d]).max(1));
        mbr.records[0] = MbrRecord {
            boot_indicator: 0,
            start_chs: chs(first, 0xFE),
            kind: MBR_NTFS,
            end_chs: chs(first + count - 1, 0xFE),
            // `plan` keeps both below 2^32: the partition ends inside 2^32 sectors and does not start at 0.
            start_lba: U32::new(first as u32),
            sectors: U32::new(count as u32),
        };
        mbr.signature = U16::new(MBR_SIGNATURE);
        mbr
    }

    fn entries(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(ENTRIES_LEN as usize);
        if let Some(msr) = self.msr {
            out.extend_from_slice(self.entry(MSR, self.guids.msr, msr, "Microsoft reserved partition").as_bytes());
        }
        out.extend_from_slice(self.entry(BASIC_DATA, self.guids.data, self.data, "Basic data partition").as_bytes());
        out.resize((entry_sectors(self.sector) * self.sector.bytes()) as usize, 0);
        out
    }

    fn entry(&self, kind: Guid, unique: Guid, range: DeviceRange, name: &str) -> GptEntry {
        let (first, count) = self.lbas(range);
        let mut entry = GptEntry::new_zeroed();
        entry.kind = kind.0;
        entry.unique = unique.0;
        entry.first_lba = U64::new(first);
        entry.last_lba = U64::new(first + count - 1);
        for (slot, unit) in entry.name.iter_mut().zip(name.encode_utf16()) {
            *slot = U16::new(unit);
        }
        entry
    }

    fn header(&self, entries: &[u8], my_lba: u64, alternate_lba: u64, entries_lba: u64) -> GptHeader {
        let mut header = GptHeader {
            signature: GPT_SIGNATURE,
            revision: U32::new(GPT_REVISION),
            header_size: U32::new(size_of::<GptHeader>() as u32),
            header_crc32: U32::new(0),
            reserved: U32::new(0),
            my_lba: U64::new(my_lba),
            alternate_lba: U64::new(alternate_lba),
            first_usable_lba: U64::new(2 + entry_sectors(self.sector)),
            last_usable_lba: U64::new(self.sectors - 2 - entry_sectors(self.sector)),
            disk_guid: self.guids.disk.0,
            entries_lba: U64::new(entries_lba),
            entry_count: U32::new(ENTRIES),
            entry_size: U32::new(size_of::<GptEntry>() as u32),
            entries_crc32: U32::new(checksum(Crc32IsoHdlc, &entries[..ENTRIES_LEN as usize]) as u32),
        };
        header.header_crc32 = U32::new(checksum(Crc32IsoHdlc, header.as_bytes()) as u32);
        header
    }

    fn lbas(&self, range: DeviceRange) -> (u64, u64) {
        (range.start.0 / self.sector.bytes(), range.len.0 / self.sector.bytes())
    }
}

const fn entry_sectors(sector: SectorSize) -> u64 {
    ENTRIES_LEN.div_ceil(sector.bytes())
}

/// Cylinder, head, sector of an LBA in the geometry of 255 heads and 63 sectors; `FE|FF FF FF` past its end.
fn chs(lba: u64, head_past_end: u8) -> [u8; 3] {
    let (cylinder, head, sector) = (lba / (255 * 63), lba / 63 % 255, lba % 63 + 1);
    if cylinder > 1023 {
        return [head_past_end, 0xFF, 0xFF];
    }
    [head as u8, (sector | cylinder >> 8 << 6) as u8, cylinder as u8]
}
