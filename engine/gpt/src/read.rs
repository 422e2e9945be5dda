//! Reads partition tables, possibly damaged or hostile ones.

use std::fmt;
use std::io;
use std::mem::size_of;

use crc_fast::{CrcAlgorithm::Crc32IsoHdlc, checksum};
use zerocopy::{FromBytes, IntoBytes};

use super::layout::*;
use crate::limits;
use crate::units::{ByteLen, DeviceOffset, DeviceRange, Guid, SectorSize};

/// State of one copy of a GPT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CopyState {
    /// No GPT signature where it should be.
    #[default]
    Absent,
    /// Signature, checksums and bounds hold.
    Good,
    /// It has the signature; the text is its fault.
    Bad(String),
}

/// One partition: its number, type and place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionEntry {
    /// Number as partitioners count, from 1.
    pub number: u32,
    /// GPT type; for MBR partitions all zero.
    pub kind: Guid,
    /// MBR type; 0 for GPT.
    pub mbr_kind: u8,
    /// GPT unique id; for MBR partitions all zero.
    pub unique: Guid,
    /// Its range, clamped to 64 bits. Inside the drive only if [`PartitionEntry::inside`].
    pub range: DeviceRange,
    /// Attribute bits of a GPT entry.
    pub attributes: u64,
    /// Name of a GPT entry.
    pub name: String,
    /// Whether the whole partition lies on the drive.
    pub inside: bool,
    /// Bytes of it, from its start, that are on the drive; all of them if [`PartitionEntry::inside`].
    pub there: ByteLen,
}

impl PartitionEntry {
    /// Its purpose, in words.
    pub fn purpose(&self) -> String {
        match (self.kind, self.mbr_kind) {
            (BASIC_DATA, _) => "basic data".to_owned(),
            (MSR, _) => "Microsoft reserved".to_owned(),
            (kind, 0) => format!("type {kind}"),
            (_, 0x07) => "NTFS or exFAT (type 07)".to_owned(),
            (_, 0x01 | 0x04 | 0x06 | 0x0B | 0x0C | 0x0E) => format!("FAT (type {:02X})", self.mbr_kind),
            (_, other) => format!("type {other:02X}"),
        }
    }

    /// Whether Windows would look for a data volume in it.
    pub fn may_hold_volume(&self) -> bool {
        self.there.0 > 0
            && (self.kind == BASIC_DATA || matches!(self.mbr_kind, 0x01 | 0x04 | 0x06 | 0x07 | 0x0B | 0x0C | 0x0E))
    }
}

/// A fault of tables that are usable nevertheless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The table counts in sectors of another size than the drive has: no system finds the partitions on this drive.
    OtherSector {
        /// Sector size of the table.
        table: SectorSize,
        /// Sector size of the drive.
        drive: SectorSize,
    },
    /// The table was made for a disk of another size.
    OtherSize {
        /// Size of that disk.
        table: ByteLen,
        /// Size of this one.
        drive: ByteLen,
    },
    /// The first copy of the GPT is unusable, with the reason. The second one is read.
    FirstCopy(CopyState),
    /// The second copy of the GPT is unusable, with the reason.
    SecondCopy(CopyState),
    /// The second copy is sound, but at this offset and not at the end of the disk.
    SecondCopyNotAtEnd(DeviceOffset),
    /// Both copies are sound, and name different partitions.
    CopiesDiffer,
    /// The partition reaches past the end of the drive.
    PartitionPastEnd {
        /// Number of the partition, from 1.
        number: u32,
        /// Length that the table gives it.
        reported: ByteLen,
        /// Bytes of it that are on the drive.
        there: ByteLen,
    },
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let copy = |f: &mut fmt::Formatter<'_>, which: &str, state: &CopyState| match state {
            CopyState::Absent => write!(f, "the {which} copy of the partition table is missing"),
            CopyState::Bad(what) => write!(f, "the {which} copy of the partition table is damaged: {what}"),
            CopyState::Good => write!(f, "the {which} copy of the partition table is sound"),
        };
        match self {
            Self::OtherSector { table, drive } => write!(
                f,
                "the partition table counts sectors of {} bytes, and the drive has sectors of {}: no system finds the \
                 partitions here",
                table.bytes(),
                drive.bytes()
            ),
            Self::OtherSize { table, drive } => {
                write!(f, "the partition table was made for a disk of {} bytes; this one has {}", table.0, drive.0)
            }
            Self::FirstCopy(state) => copy(f, "first", state),
            Self::SecondCopy(state) => copy(f, "second", state),
            Self::SecondCopyNotAtEnd(at) => {
                write!(f, "the second copy of the partition table lies at byte {}, not at the end of the disk", at.0)
            }
            Self::CopiesDiffer => f.write_str("the two copies of the partition table differ, although each is sound"),
            Self::PartitionPastEnd { number, reported, there } => write!(
                f,
                "partition {number} is longer than the drive: it has {} bytes, and the drive holds the first {}",
                reported.0, there.0
            ),
        }
    }
}

/// Contents of a drive's partition tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundTables {
    /// Sector 0 has the boot signature.
    pub boot_signature: bool,
    /// A record of type 0xEE is in sector 0.
    pub protective: bool,
    /// State of the GPT copy after sector 0.
    pub primary: CopyState,
    /// State of the GPT copy at the end.
    pub backup: CopyState,
    /// Both copies are good and name the same disk and partitions.
    pub copies_agree: bool,
    /// Disk GUID of the copy that was used.
    pub disk: Option<Guid>,
    /// Partitions of the first good GPT copy; without one, those of the MBR.
    pub partitions: Vec<PartitionEntry>,
    /// The partitions come from an MBR.
    pub from_mbr: bool,
    /// Sector size that the table counts in; `None` without a table.
    pub sector: Option<SectorSize>,
    /// Faults of the tables that were used.
    pub flaws: Vec<Flaw>,
}

impl FoundTables {
    /// Whether a copy of a GPT can be used.
    fn has_gpt(&self) -> bool {
        self.primary == CopyState::Good || self.backup == CopyState::Good
    }

    /// Whether there is any table at all.
    pub fn is_blank(&self) -> bool {
        !self.boot_signature && self.primary == CopyState::Absent && self.backup == CopyState::Absent
    }

    /// First partition, in disk order, that may hold a volume: the one that the service reads.
    pub fn first_data(&self) -> Option<&PartitionEntry> {
        self.partitions.iter().filter(|e| e.may_hold_volume()).min_by_key(|e| e.range.start)
    }
}

/// Reads the tables with the drive's sector size, and where that gives nothing, with the other one.
///
/// A sound first copy counts whatever the state of the second one, and the other way round; a second copy is searched
/// for at the place named by the first one, at the end of the disk, and at the end according to the protective MBR.
/// `read_at` fills the whole buffer from an offset; offsets and lengths are multiples of 512.
///
/// # Errors
/// Only those of `read_at` for sector 0. An unreadable backup is reported in its [`CopyState`].
pub fn read(
    disk: ByteLen,
    sector: SectorSize,
    mut read_at: impl FnMut(DeviceOffset, &mut [u8]) -> io::Result<()>,
) -> io::Result<FoundTables> {
    let found = read_as(disk, sector, &mut read_at)?;
    if !found.partitions.is_empty() || found.has_gpt() {
        return Ok(found);
    }
    // When the other sector size gives nothing either, the first result is returned.
    match read_as_other(disk, sector, read_at) {
        Ok(as_other) if as_other.has_gpt() => Ok(as_other),
        _ => Ok(found),
    }
}

/// Reads the tables with the sector size that the drive does not have.
///
/// # Errors
/// As [`read`].
pub fn read_as_other(
    disk: ByteLen,
    drive: SectorSize,
    mut read_at: impl FnMut(DeviceOffset, &mut [u8]) -> io::Result<()>,
) -> io::Result<FoundTables> {
    let table = match drive {
        SectorSize::S512 => SectorSize::S4096,
        SectorSize::S4096 => SectorSize::S512,
    };
    let mut found = read_as(disk, table, &mut read_at)?;
    if found.sector.is_some() {
        found.flaws.insert(0, Flaw::OtherSector { table, drive });
    }
    Ok(found)
}

/// Reads the tables with this sector size.
fn read_as(
    disk: ByteLen,
    sector: SectorSize,
    read_at: &mut impl FnMut(DeviceOffset, &mut [u8]) -> io::Result<()>,
) -> io::Result<FoundTables> {
    let size = sector.bytes() as usize;
    let sectors = disk.0 / sector.bytes();
    let mut found = FoundTables::default();
    if sectors == 0 {
        return Ok(found);
    }
    let mut block = vec![0; size];
    read_at(DeviceOffset(0), &mut block)?;
    let Ok((mbr, _)) = Mbr::read_from_prefix(&block) else { return Ok(found) };
    found.boot_signature = mbr.signature.get() == MBR_SIGNATURE;
    found.protective = found.boot_signature && mbr.records.iter().any(|r| r.kind == MBR_PROTECTIVE);

    let (mut primary, mut backup) = (None, None);
    if sectors > 2 {
        (found.primary, primary) = reported(read_copy(1, sectors, sector, read_at));
        // Possible places of the second copy, the likeliest first; the last one is reported if there is none.
        let of_primary = primary.as_ref().map(|copy| copy.other_lba);
        let of_mbr = mbr.records.iter().find(|r| r.kind == MBR_PROTECTIVE && r.sectors.get() != u32::MAX);
        let of_mbr = of_mbr.and_then(|r| (u64::from(r.start_lba.get()) + u64::from(r.sectors.get())).checked_sub(1));
        let mut places = vec![sectors - 1];
        for place in [of_primary, of_mbr].into_iter().flatten().filter(|lba| (2..sectors).contains(lba)) {
            if !places.contains(&place) {
                places.push(place);
            }
        }
        for place in places {
            let (state, copy) = reported(read_copy(place, sectors, sector, read_at));
            if found.backup == CopyState::Absent || copy.is_some() {
                found.backup = state;
            }
            if copy.is_some() {
                backup = copy;
                break;
            }
        }
    }
    found.copies_agree =
        matches!((&primary, &backup), (Some(a), Some(b)) if (&a.disk, &a.entries) == (&b.disk, &b.entries));
    // Without a protective record an MBR counts alone (UEFI 5.2.3): a GPT next to it is left over from earlier use.
    let by_mbr = if found.boot_signature && (!found.protective || primary.is_none() && backup.is_none()) {
        mbr_partitions(&mbr, sectors, sector, read_at)
    } else {
        Vec::new()
    };
    if !by_mbr.is_empty() {
        (found.partitions, found.from_mbr, found.sector) = (by_mbr, true, Some(sector));
    } else if primary.is_some() || backup.is_some() {
        found.sector = Some(sector);
        found.flaws = flaws(&found, primary.as_ref(), backup.as_ref(), sectors, sector);
        if let Some(copy) = primary.or(backup) {
            (found.disk, found.partitions) = (Some(copy.disk), copy.entries);
        }
    }
    let past = found.partitions.iter().filter(|entry| !entry.inside && entry.there.0 > 0);
    let past = past.map(|entry| Flaw::PartitionPastEnd {
        number: entry.number,
        reported: entry.range.len,
        there: entry.there,
    });
    found.flaws.extend(past.collect::<Vec<_>>());
    Ok(found)
}

/// Faults of two copies of which at least one is sound.
fn flaws(
    found: &FoundTables,
    primary: Option<&Copy>,
    backup: Option<&Copy>,
    sectors: u64,
    sector: SectorSize,
) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    let end = primary.map(|copy| copy.other_lba).or(backup.map(|copy| copy.lba));
    if let Some(end) = end.filter(|end| *end != sectors - 1) {
        let len = |sectors: u64| ByteLen(sectors.saturating_mul(sector.bytes()));
        flaws.push(Flaw::OtherSize { table: len(end.saturating_add(1)), drive: len(sectors) });
    }
    match (primary, backup) {
        (None, _) => flaws.push(Flaw::FirstCopy(found.primary.clone())),
        (Some(_), None) => flaws.push(Flaw::SecondCopy(found.backup.clone())),
        (Some(_), Some(_)) if !found.copies_agree => flaws.push(Flaw::CopiesDiffer),
        (Some(_), Some(_)) => {}
    }
    if let Some(backup) = backup.filter(|backup| backup.lba != sectors - 1) {
        flaws.push(Flaw::SecondCopyNotAtEnd(DeviceOffset(backup.lba * sector.bytes())));
    }
    flaws
}

/// Separates a copy from its state.
fn reported(copy: Result<Option<Copy>, CopyError>) -> (CopyState, Option<Copy>) {
    match copy {
        Ok(Some(copy)) => (CopyState::Good, Some(copy)),
        Ok(None) => (CopyState::Absent, None),
        Err(error) => (CopyState::Bad(error.to_string()), None),
    }
}

/// A sound copy of a GPT.
pub(super) struct Copy {
    lba: u64,
    /// Header and entries as they are on the disk.
    pub(super) header: GptHeader,
    pub(super) raw: Vec<u8>,
    /// Sector of the other copy, by its own header.
    other_lba: u64,
    disk: Guid,
    pub(super) entries: Vec<PartitionEntry>,
}

/// The reason why a copy of a GPT does not count.
#[derive(Debug, thiserror::Error)]
pub(super) enum CopyError {
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    #[error("header size is {0}")]
    HeaderSize(usize),
    #[error("header checksum is wrong")]
    HeaderChecksum,
    #[error("header says it is sector {named}, found in {lba}")]
    Elsewhere { named: u64, lba: u64 },
    #[error("other copy is said to be in sector {0}, the drive's is 1")]
    OtherCopy(u64),
    #[error("entry size is {0}")]
    EntrySize(u32),
    #[error("{0} entries")]
    TooMany(u32),
    #[error("entries in sector {0} lie outside")]
    Outside(u64),
    #[error("entries cannot be read: {0}")]
    EntriesUnreadable(io::Error),
    #[error("checksum of the entries is wrong")]
    EntriesChecksum,
}

/// Reads the copy whose header is in this sector; `None` where there is none.
pub(super) fn read_copy(
    lba: u64,
    sectors: u64,
    sector: SectorSize,
    read_at: &mut impl FnMut(DeviceOffset, &mut [u8]) -> io::Result<()>,
) -> Result<Option<Copy>, CopyError> {
    let Some(header) = read_header(lba, sector, read_at)? else { return Ok(None) };
    let raw = read_entries(&header, sectors, sector, read_at)?;
    let entries = partitions(&header, &raw, sectors, sector);
    let (other_lba, disk) = (header.alternate_lba.get(), Guid(header.disk_guid));
    Ok(Some(Copy { lba, header, raw, other_lba, disk, entries }))
}

fn read_header(
    lba: u64,
    sector: SectorSize,
    read_at: &mut impl FnMut(DeviceOffset, &mut [u8]) -> io::Result<()>,
) -> Result<Option<GptHeader>, CopyError> {
    let size = sector.bytes();
    let mut block = vec![0; size as usize];
    read_at(DeviceOffset(lba * size), &mut block).map_err(CopyError::Unreadable)?;
    let Ok((header, _)) = GptHeader::read_from_prefix(&block) else { return Ok(None) };
    if header.signature != GPT_SIGNATURE {
        return Ok(None);
    }
    let header_size = header.header_size.get() as usize;
    if header_size < size_of::<GptHeader>() || header_size > block.len() {
        return Err(CopyError::HeaderSize(header_size));
    }
    let mut checked = block[..header_size].to_vec();
    let mut without_crc = header;
    without_crc.header_crc32.set(0);
    checked[..size_of::<GptHeader>()].copy_from_slice(without_crc.as_bytes());
    if checksum(Crc32IsoHdlc, &checked) as u32 != header.header_crc32.get() {
        return Err(CopyError::HeaderChecksum);
    }
    if header.my_lba.get() != lba {
        return Err(CopyError::Elsewhere { named: header.my_lba.get(), lba });
    }
    // The first copy stays in sector 1 when a disk changes its size; a second copy names it there.
    if lba != 1 && header.alternate_lba.get() != 1 {
        return Err(CopyError::OtherCopy(header.alternate_lba.get()));
    }
    Ok(Some(header))
}

fn read_entries(
    header: &GptHeader,
    sectors: u64,
    sector: SectorSize,
    read_at: &mut impl FnMut(DeviceOffset, &mut [u8]) -> io::Result<()>,
) -> Result<Vec<u8>, CopyError> {
    let size = sector.bytes();
    let (count, entry_size) = (header.entry_count.get(), header.entry_size.get());
    if !(128..=4096).contains(&entry_size) || !entry_size.is_power_of_two() {
        return Err(CopyError::EntrySize(entry_size));
    }
    if count > limits::GPT_ENTRIES_MAX {
        return Err(CopyError::TooMany(count));
    }
    let len = u64::from(count) * u64::from(entry_size);
    let entries_lba = header.entries_lba.get();
    let fits = entries_lba.checked_add(len.div_ceil(size)).is_some_and(|end| entries_lba > 0 && end <= sectors);
    if !fits {
        return Err(CopyError::Outside(entries_lba));
    }
    let mut entries = vec![0; len.next_multiple_of(size) as usize];
    read_at(DeviceOffset(entries_lba * size), &mut entries).map_err(CopyError::EntriesUnreadable)?;
    entries.truncate(len as usize);
    if checksum(Crc32IsoHdlc, &entries) as u32 != header.entries_crc32.get() {
        return Err(CopyError::EntriesChecksum);
    }
    Ok(entries)
}

fn partitions(header: &GptHeader, entries: &[u8], sectors: u64, sector: SectorSize) -> Vec<PartitionEntry> {
    let mut partitions = Vec::new();
    for (number, raw) in (1..).zip(entries.chunks_exact(header.entry_size.get() as usize)) {
        let Ok((entry, _)) = GptEntry::read_from_prefix(raw) else { break };
        if entry.kind == [0; 16] {
            continue;
        }
        let (first, last) = (entry.first_lba.get(), entry.last_lba.get());
        let inside = first <= last && first >= header.first_usable_lba.get() && last < sectors;
        let count = last.checked_sub(first).and_then(|n| n.checked_add(1)).unwrap_or(0);
        let units: Vec<u16> = entry.name.iter().map(|u| u.get()).take_while(|u| *u != 0).collect();
        partitions.push(PartitionEntry {
            number,
            kind: Guid(entry.kind),
            mbr_kind: 0,
            unique: Guid(entry.unique),
            range: range_of(first, count, sector),
            attributes: entry.attributes.get(),
            name: String::from_utf16_lossy(&units),
            inside,
            there: there(first.max(header.first_usable_lba.get()), first, count, sectors, sector),
        });
    }
    partitions
}

/// Bytes of a partition that are on the drive; 0 if it begins before the first allowed sector.
fn there(allowed: u64, first: u64, count: u64, sectors: u64, sector: SectorSize) -> ByteLen {
    let rest = if first < allowed { 0 } else { sectors.saturating_sub(first) };
    ByteLen(count.min(rest) * sector.bytes())
}

/// Saturating: an entry may claim sectors beyond any byte offset, and [`PartitionEntry::inside`] reveals that.
fn range_of(first: u64, count: u64, sector: SectorSize) -> DeviceRange {
    let start = first.saturating_mul(sector.bytes());
    DeviceRange::new(start, count.saturating_mul(sector.bytes()).min(u64::MAX - start))
}

fn mbr_partitions(
    mbr: &Mbr,
    sectors: u64,
    sector: SectorSize,
    read_at: &mut impl FnMut(DeviceOffset, &mut [u8]) -> io::Result<()>,
) -> Vec<PartitionEntry> {
    // A boot sector of a file system ends in the same signature; its code makes no records with a legal indicator.
    if mbr.records.iter().any(|r| r.boot_indicator & 0x7F != 0) {
        return Vec::new();
    }
    let mut out = Vec::new();
    let mut extended = None;
    for (number, record) in (1..).zip(&mbr.records) {
        let first = u64::from(record.start_lba.get());
        match record.kind {
            0 | MBR_PROTECTIVE => {}
            0x05 | 0x0F | 0x85 => extended = extended.or(Some(first)),
            _ => out.extend(mbr_entry(number, record, first, sectors, sector)),
        }
    }
    let Some(base) = extended else { return out };
    // Logical partitions: a chain of boot records, each relative to the first.
    let mut at = base;
    for number in 5..5 + limits::MBR_LOGICAL_MAX {
        let mut block = vec![0; sector.bytes() as usize];
        if at >= sectors || read_at(DeviceOffset(at * sector.bytes()), &mut block).is_err() {
            break;
        }
        let Ok((link, _)) = Mbr::read_from_prefix(&block) else { break };
        if link.signature.get() != MBR_SIGNATURE {
            break;
        }
        let [record, next, ..] = &link.records;
        if record.kind != 0 {
            out.extend(mbr_entry(number, record, at + u64::from(record.start_lba.get()), sectors, sector));
        }
        let next_at = base + u64::from(next.start_lba.get());
        // Only forward, so that a chain that bites its tail ends.
        if next.kind == 0 || next_at <= at {
            break;
        }
        at = next_at;
    }
    out
}

fn mbr_entry(number: u32, record: &MbrRecord, first: u64, sectors: u64, sector: SectorSize) -> Option<PartitionEntry> {
    let count = u64::from(record.sectors.get());
    (count > 0).then(|| PartitionEntry {
        number,
        kind: Guid::default(),
        mbr_kind: record.kind,
        unique: Guid::default(),
        range: range_of(first, count, sector),
        attributes: 0,
        name: String::new(),
        inside: first > 0 && first + count <= sectors,
        there: there(1, first, count, sectors, sector),
    })
}
