//! Tables as they are found, possibly damaged or hostile.

use std::io;
use std::mem::size_of;

use crc_fast::{CrcAlgorithm::Crc32IsoHdlc, checksum};
use zerocopy::{FromBytes, IntoBytes};

use super::layout::*;
use crate::limits;
use crate::units::{ByteLen, ByteOffset, ByteRange, Guid, SectorSize};

/// How one copy of a GPT fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CopyState {
    /// No GPT signature where it should be.
    #[default]
    Absent,
    /// Signature, checksums and bounds hold.
    Good,
    /// It has the signature, and this is wrong.
    Bad(String),
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Number as partitioners count, from 1.
    pub number: u32,
    /// GPT type; for MBR partitions all zero.
    pub kind: Guid,
    /// MBR type; 0 for GPT.
    pub mbr_kind: u8,
    /// GPT unique id; for MBR partitions all zero.
    pub unique: Guid,
    /// Where it lies. Inside the drive only if [`Entry::inside`].
    pub range: ByteRange,
    /// Attribute bits of a GPT entry.
    pub attributes: u64,
    /// Name of a GPT entry.
    pub name: String,
    /// Whether the whole partition lies on the drive.
    pub inside: bool,
}

impl Entry {
    /// What it is for, in words.
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
        self.inside
            && (self.kind == BASIC_DATA || matches!(self.mbr_kind, 0x01 | 0x04 | 0x06 | 0x07 | 0x0B | 0x0C | 0x0E))
    }
}

/// What a drive's tables say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Sector 0 has the boot signature.
    pub boot_signature: bool,
    /// A record of type 0xEE is in sector 0.
    pub protective: bool,
    /// GPT copy behind sector 0.
    pub primary: CopyState,
    /// GPT copy at the end.
    pub backup: CopyState,
    /// Both copies are good and name the same disk and partitions.
    pub copies_agree: bool,
    /// Disk GUID of the copy that was used.
    pub disk: Option<Guid>,
    /// Partitions of the first good GPT copy; without one, those of the MBR.
    pub partitions: Vec<Entry>,
    /// The partitions come from an MBR.
    pub from_mbr: bool,
}

impl Found {
    /// Whether there is any table at all.
    pub fn is_blank(&self) -> bool {
        !self.boot_signature && self.primary == CopyState::Absent && self.backup == CopyState::Absent
    }

    /// First partition, in disk order, that may hold a volume: the one that the service reads.
    pub fn first_data(&self) -> Option<&Entry> {
        self.partitions.iter().filter(|e| e.may_hold_volume()).min_by_key(|e| e.range.start)
    }
}

/// Reads both copies. `read_at` fills the whole buffer from an offset; offsets and lengths are whole sectors.
///
/// # Errors
/// Only those of `read_at` for sector 0. A backup that cannot be read is told in its [`CopyState`].
pub fn read(
    disk: ByteLen,
    sector: SectorSize,
    mut read_at: impl FnMut(ByteOffset, &mut [u8]) -> io::Result<()>,
) -> io::Result<Found> {
    let size = sector.bytes() as usize;
    let sectors = disk.0 / sector.bytes();
    let mut found = Found::default();
    if sectors == 0 {
        return Ok(found);
    }
    let mut block = vec![0; size];
    read_at(ByteOffset(0), &mut block)?;
    let Ok((mbr, _)) = Mbr::read_from_prefix(&block) else { return Ok(found) };
    found.boot_signature = mbr.signature.get() == MBR_SIGNATURE;
    found.protective = found.boot_signature && mbr.records.iter().any(|r| r.kind == MBR_PROTECTIVE);

    let mut copies = [None, None];
    if sectors > 2 {
        for (slot, lba, other) in [(0, 1, sectors - 1), (1, sectors - 1, 1)] {
            let state = match read_copy(lba, other, sectors, sector, &mut read_at) {
                Ok(Some(copy)) => {
                    copies[slot] = Some(copy);
                    CopyState::Good
                }
                Ok(None) => CopyState::Absent,
                Err(what) => CopyState::Bad(what),
            };
            *[&mut found.primary, &mut found.backup][slot] = state;
        }
    }
    found.copies_agree = matches!(&copies, [Some(a), Some(b)] if a == b);
    let [primary, backup] = copies;
    if let Some((guid, partitions)) = primary.or(backup) {
        found.disk = Some(guid);
        found.partitions = partitions;
    } else if found.boot_signature {
        found.partitions = mbr_partitions(&mbr, sectors, sector, &mut read_at);
        found.from_mbr = !found.partitions.is_empty();
    }
    Ok(found)
}

type Copy = (Guid, Vec<Entry>);

fn read_copy(
    lba: u64,
    other_lba: u64,
    sectors: u64,
    sector: SectorSize,
    read_at: &mut impl FnMut(ByteOffset, &mut [u8]) -> io::Result<()>,
) -> Result<Option<Copy>, String> {
    let size = sector.bytes();
    let mut block = vec![0; size as usize];
    read_at(ByteOffset(lba * size), &mut block).map_err(|e| format!("cannot be read: {e}"))?;
    let Ok((header, _)) = GptHeader::read_from_prefix(&block) else { return Ok(None) };
    if header.signature != GPT_SIGNATURE {
        return Ok(None);
    }
    let header_size = header.header_size.get() as usize;
    if header_size < size_of::<GptHeader>() || header_size > block.len() {
        return Err(format!("header size is {header_size}"));
    }
    let mut checked = block[..header_size].to_vec();
    let mut without_crc = header;
    without_crc.header_crc32.set(0);
    checked[..size_of::<GptHeader>()].copy_from_slice(without_crc.as_bytes());
    if checksum(Crc32IsoHdlc, &checked) as u32 != header.header_crc32.get() {
        return Err("header checksum is wrong".into());
    }
    if header.my_lba.get() != lba {
        return Err(format!("header says it is sector {}, found in {lba}", header.my_lba));
    }
    if header.alternate_lba.get() != other_lba {
        return Err(format!("other copy is said to be in sector {}, the drive's is {other_lba}", header.alternate_lba));
    }
    let (count, entry_size) = (header.entry_count.get(), header.entry_size.get());
    if !(128..=4096).contains(&entry_size) || !entry_size.is_power_of_two() {
        return Err(format!("entry size is {entry_size}"));
    }
    if count > limits::GPT_ENTRIES_MAX {
        return Err(format!("{count} entries"));
    }
    let len = u64::from(count) * u64::from(entry_size);
    let entries_lba = header.entries_lba.get();
    let fits = entries_lba.checked_add(len.div_ceil(size)).is_some_and(|end| entries_lba > 0 && end <= sectors);
    if !fits {
        return Err(format!("entries in sector {entries_lba} lie outside"));
    }
    let mut entries = vec![0; len.next_multiple_of(size) as usize];
    read_at(ByteOffset(entries_lba * size), &mut entries).map_err(|e| format!("entries cannot be read: {e}"))?;
    entries.truncate(len as usize);
    if checksum(Crc32IsoHdlc, &entries) as u32 != header.entries_crc32.get() {
        return Err("checksum of the entries is wrong".into());
    }
    let mut partitions = Vec::new();
    for (number, raw) in (1..).zip(entries.chunks_exact(entry_size as usize)) {
        let Ok((entry, _)) = GptEntry::read_from_prefix(raw) else { break };
        if entry.kind == [0; 16] {
            continue;
        }
        let (first, last) = (entry.first_lba.get(), entry.last_lba.get());
        let inside = first <= last && first >= header.first_usable_lba.get() && last < sectors;
        let count = last.checked_sub(first).and_then(|n| n.checked_add(1)).unwrap_or(0);
        let units: Vec<u16> = entry.name.iter().map(|u| u.get()).take_while(|u| *u != 0).collect();
        partitions.push(Entry {
            number,
            kind: Guid(entry.kind),
            mbr_kind: 0,
            unique: Guid(entry.unique),
            range: range_of(first, count, sector),
            attributes: entry.attributes.get(),
            name: String::from_utf16_lossy(&units),
            inside,
        });
    }
    Ok(Some((Guid(header.disk_guid), partitions)))
}

/// Saturated: an entry may claim sectors that no byte offset reaches, and [`Entry::inside`] says so.
fn range_of(first: u64, count: u64, sector: SectorSize) -> ByteRange {
    let start = first.saturating_mul(sector.bytes());
    ByteRange::new(start, count.saturating_mul(sector.bytes()).min(u64::MAX - start))
}

fn mbr_partitions(
    mbr: &Mbr,
    sectors: u64,
    sector: SectorSize,
    read_at: &mut impl FnMut(ByteOffset, &mut [u8]) -> io::Result<()>,
) -> Vec<Entry> {
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
        if at >= sectors || read_at(ByteOffset(at * sector.bytes()), &mut block).is_err() {
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

fn mbr_entry(number: u32, record: &MbrRecord, first: u64, sectors: u64, sector: SectorSize) -> Option<Entry> {
    let count = u64::from(record.sectors.get());
    (count > 0).then(|| Entry {
        number,
        kind: Guid::default(),
        mbr_kind: record.kind,
        unique: Guid::default(),
        range: range_of(first, count, sector),
        attributes: 0,
        name: String::new(),
        inside: first > 0 && first + count <= sectors,
    })
}
