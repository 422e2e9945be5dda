//! Recognises the present contents of a disk by the marks of formats at their fixed places, and lists the ranges to
//! wipe so that nothing recognises them any more.
//!
//! Only enough of each format is known here to name it. Whatever the bytes say, no more than a bounded number of places
//! is read, all of them inside the disk.

use std::fmt::Write as _;
use std::io;

use super::Device;
use crate::units::{ByteLen, DeviceOffset, DeviceRange, SectorSize};

/// Contents of a drive: partition table and recognised volumes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The whole, for people: `GPT, 2 partitions: Microsoft reserved (16.8 MB), NTFS (4.0 TB)`. `None` when blank.
    pub words: Option<String>,
    /// Kind of partition table, if any.
    pub table: Option<Table>,
    /// Partitions of the table, in its order; for a disk without one, the volume on the whole disk.
    pub volumes: Vec<Volume>,
    /// Bytes to overwrite with zeros so that no tool recognises the earlier contents: ascending, disjoint, whole
    /// 4096-byte units (the last may be shorter).
    pub wipe: Vec<DeviceRange>,
}

impl Contents {
    /// Nothing recognised, and the first and last mebibyte are zeros.
    pub fn is_blank(&self) -> bool {
        self.words.is_none()
    }
}

/// A partition table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// GUID partition table.
    Gpt,
    /// Only the backup of one is left.
    GptBackupOnly,
    /// Master boot record.
    Mbr,
}

/// A range of the disk and its format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Bytes of the disk that it takes.
    pub range: DeviceRange,
    /// File system or container, such as `NTFS`, `BitLocker`, `LUKS`; `None` when nothing was recognised.
    pub format: Option<&'static str>,
    /// Its label, where it is stored unencrypted in a fixed place.
    pub label: Option<String>,
    /// Type according to the partition table.
    pub kind: Option<&'static str>,
}

/// Partitions examined; a table that names more is damaged or made to mislead.
const PARTITIONS_MAX: usize = 128;
/// Bytes examined and wiped at the front of the disk and of each volume: the farthest mark there is ZFS's at 256 KiB.
const FRONT: u64 = 1 << 20;
/// Bytes examined and wiped at the end: backup GPT, RAID of version 1.0 and 0.90, ZFS labels.
const BACK: u64 = 1 << 20;
/// Unit of wiped ranges.
const UNIT: u64 = 4096;

/// Reads a range of the disk.
pub type ReadAt<'a> = dyn Fn(DeviceOffset, &mut [u8]) -> io::Result<()> + 'a;

/// Examines an open device.
///
/// # Errors
/// Read errors: a disk that cannot be read cannot be called blank.
pub fn scan(device: &Device) -> io::Result<Contents> {
    let geometry = device.geometry();
    scan_with(&|at, into| device.read_exact_at(into, at), geometry.size, geometry.sector)
}

/// Examines a disk of `size` bytes through `read`.
///
/// # Errors
/// Errors of `read`.
pub fn scan_with(read: &ReadAt<'_>, size: ByteLen, sector: SectorSize) -> io::Result<Contents> {
    let disk = Disk { read, size: size.0, sector: sector.bytes() };
    let whole = DeviceRange::new(0, size.0);
    let front = disk.take(0, FRONT)?;
    let back = disk.take(size.0.saturating_sub(BACK), BACK)?;

    let mut wipe = Wipe { size: size.0, ranges: Vec::new() };
    wipe.ends(whole);
    let own = recognise(&disk, whole)?;
    let mut contents = Contents::default();
    if let Some(gpt) = disk.gpt(sector.bytes())? {
        contents.table = Some(Table::Gpt);
        contents.volumes = gpt;
    } else if let Some(gpt) = size.0.checked_sub(sector.bytes()).map(|at| disk.gpt(at)).transpose()?.flatten() {
        contents.table = Some(Table::GptBackupOnly);
        contents.volumes = gpt;
    } else if own.is_none()
        && let Some(mbr) = disk.mbr()?
    {
        contents.table = Some(Table::Mbr);
        contents.volumes = mbr;
    }
    for volume in &mut contents.volumes {
        wipe.ends(volume.range);
        if let Some(found) = recognise(&disk, volume.range)? {
            found.wipe(volume.range, &mut wipe);
            volume.format = Some(found.format);
            volume.label = found.label;
        }
    }
    // A file system on the bare disk, or one hidden by a table.
    if let Some(found) = own
        && (contents.table.is_none() || found.format != "ISO 9660")
    {
        found.wipe(whole, &mut wipe);
        contents.volumes.push(Volume { range: whole, format: Some(found.format), label: found.label, kind: None });
    }
    contents.wipe = wipe.merged();
    contents.words = words(&contents);
    if contents.words.is_none() && front.iter().chain(&back).any(|byte| *byte != 0) {
        contents.words = Some("unknown data".to_owned());
    }
    Ok(contents)
}

fn words(contents: &Contents) -> Option<String> {
    let name = |volume: &Volume| {
        let mut name = volume.format.or(volume.kind).unwrap_or("unknown").to_owned();
        if let Some(label) = &volume.label {
            let _ = write!(name, " \"{label}\"");
        }
        name
    };
    let Some(table) = contents.table else {
        return contents.volumes.first().map(|volume| format!("{} on the whole disk", name(volume)));
    };
    let mut words = match table {
        Table::Gpt => "GPT",
        Table::GptBackupOnly => "backup GPT",
        Table::Mbr => "MBR",
    }
    .to_owned();
    let count = contents.volumes.len();
    let _ = match count {
        0 => write!(words, ", no partitions"),
        1 => write!(words, ", 1 partition: "),
        _ => write!(words, ", {count} partitions: "),
    };
    /// More than this many are counted, not named.
    const NAMED: usize = 6;
    for (n, volume) in contents.volumes.iter().take(NAMED).enumerate() {
        let _ = write!(words, "{}{} ({})", if n > 0 { ", " } else { "" }, name(volume), volume.range.len);
    }
    if count > NAMED {
        let _ = write!(words, " and {} more", count - NAMED);
    }
    Some(words)
}

/// Collects the ranges to wipe.
struct Wipe {
    size: u64,
    ranges: Vec<(u64, u64)>,
}

impl Wipe {
    /// Adds a range as far as it lies on the disk, in whole units.
    fn add(&mut self, start: u64, len: u64) {
        let end = start.saturating_add(len).min(self.size);
        if start >= end {
            return;
        }
        let end = end.checked_next_multiple_of(UNIT).unwrap_or(u64::MAX).min(self.size);
        self.ranges.push((start - start % UNIT, end));
    }

    fn ends(&mut self, range: DeviceRange) {
        let end = range.start.0.saturating_add(range.len.0);
        self.add(range.start.0, FRONT.min(range.len.0));
        let back = BACK.min(range.len.0);
        self.add(end.saturating_sub(back), back);
    }

    fn merged(mut self) -> Vec<DeviceRange> {
        self.ranges.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (start, end) in self.ranges {
            match merged.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        merged.into_iter().map(|(start, end)| DeviceRange::new(start, end - start)).collect()
    }
}

struct Disk<'a> {
    read: &'a ReadAt<'a>,
    size: u64,
    sector: u64,
}

impl Disk<'_> {
    /// Up to `len` bytes from `at`, as many as the disk has.
    fn take(&self, at: u64, len: u64) -> io::Result<Vec<u8>> {
        let len = len.min(self.size.saturating_sub(at));
        let mut bytes = vec![0; len as usize];
        if !bytes.is_empty() {
            (self.read)(DeviceOffset(at), &mut bytes)?;
        }
        Ok(bytes)
    }

    /// The partitions of the GPT with a header at `at`; `None` without one.
    fn gpt(&self, at: u64) -> io::Result<Option<Vec<Volume>>> {
        let header = self.take(at, self.sector)?;
        if !has(&header, 0, b"EFI PART") {
            return Ok(None);
        }
        // UEFI 2.10, 5.3.2: start of the entry array, number of entries, size of one.
        let (Some(array), Some(count), Some(size)) = (le64(&header, 72), le32(&header, 80), le32(&header, 84)) else {
            return Ok(None);
        };
        let size = u64::from(size);
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(PARTITIONS_MAX);
        if !(128..=4096).contains(&size) {
            return Ok(Some(Vec::new()));
        }
        let Some(array) = array.checked_mul(self.sector).filter(|array| *array < self.size) else {
            return Ok(Some(Vec::new()));
        };
        let table = self.take(array, size * count as u64)?;
        let mut volumes = Vec::new();
        for entry in table.chunks_exact(size as usize) {
            // Type GUID, own GUID, first and last sector.
            let (Some(first), Some(last)) = (le64(entry, 32), le64(entry, 40)) else { continue };
            let kind = &entry[..16];
            if kind.iter().all(|byte| *byte == 0) {
                continue;
            }
            let Some(sectors) = last.checked_sub(first).and_then(|len| len.checked_add(1)) else { continue };
            let (Some(start), Some(len)) = (first.checked_mul(self.sector), sectors.checked_mul(self.sector)) else {
                continue;
            };
            let kind = GPT_KINDS.iter().find(|(guid, _)| guid == kind).map(|(_, name)| *name);
            volumes.extend(self.volume(start, len, kind));
        }
        Ok(Some(volumes))
    }

    /// A volume as far as it lies on the disk.
    fn volume(&self, start: u64, len: u64, kind: Option<&'static str>) -> Option<Volume> {
        let len = len.min(self.size.checked_sub(start)?);
        (len > 0).then_some(Volume { range: DeviceRange::new(start, len), format: None, label: None, kind })
    }

    fn mbr(&self) -> io::Result<Option<Vec<Volume>>> {
        let sector = self.take(0, 512)?;
        let Some(entries) = mbr_entries(&sector) else { return Ok(None) };
        let mut volumes = Vec::new();
        for entry in entries {
            let (Some(start), Some(len)) =
                (u64::from(entry.first).checked_mul(self.sector), u64::from(entry.sectors).checked_mul(self.sector))
            else {
                continue;
            };
            if matches!(entry.kind, 0x05 | 0x0F | 0x85) {
                self.logical(start, &mut volumes)?;
            } else {
                volumes.extend(self.volume(start, len, Some(mbr_kind(entry.kind))));
            }
        }
        Ok(Some(volumes))
    }

    /// Follows the chain of an extended partition, each link of which describes one volume and the next link.
    fn logical(&self, extended: u64, volumes: &mut Vec<Volume>) -> io::Result<()> {
        let mut at = extended;
        while volumes.len() < PARTITIONS_MAX && at < self.size {
            let sector = self.take(at, 512)?;
            let Some([volume, next, ..]) = mbr_entries_raw(&sector) else { return Ok(()) };
            if volume.kind != 0 {
                // 32-bit sectors of at most 4096 bytes stay far below 64 bits.
                let start = at + u64::from(volume.first) * self.sector;
                let len = u64::from(volume.sectors) * self.sector;
                volumes.extend(self.volume(start, len, Some(mbr_kind(volume.kind))));
            }
            let following = extended + u64::from(next.first) * self.sector;
            // Links ascend in every table made in earnest; others could go in circles.
            if next.kind == 0 || following <= at {
                return Ok(());
            }
            at = following;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Default)]
struct MbrEntry {
    status: u8,
    kind: u8,
    first: u32,
    sectors: u32,
}

fn mbr_entries_raw(sector: &[u8]) -> Option<[MbrEntry; 4]> {
    if !has(sector, 510, &[0x55, 0xAA]) {
        return None;
    }
    let mut entries = [MbrEntry::default(); 4];
    for (n, entry) in entries.iter_mut().enumerate() {
        let at = 446 + 16 * n;
        *entry = MbrEntry {
            status: *sector.get(at)?,
            kind: *sector.get(at + 4)?,
            first: le32(sector, at + 8)?,
            sectors: le32(sector, at + 12)?,
        };
    }
    Some(entries)
}

/// The entries in use, unless the sector only looks like a master boot record.
fn mbr_entries(sector: &[u8]) -> Option<Vec<MbrEntry>> {
    let entries = mbr_entries_raw(sector)?;
    if entries.iter().any(|entry| !matches!(entry.status, 0 | 0x80)) {
        return None;
    }
    Some(entries.into_iter().filter(|entry| entry.kind != 0 && entry.sectors != 0).collect())
}

fn mbr_kind(kind: u8) -> &'static str {
    match kind {
        0x07 => "NTFS or exFAT partition",
        0x01 | 0x04 | 0x06 | 0x0B | 0x0C | 0x0E => "FAT partition",
        0x82 => "Linux swap partition",
        0x83 => "Linux partition",
        0x8E => "LVM partition",
        0xEE => "GPT protection",
        0xEF => "EFI system",
        0xFD => "Linux RAID partition",
        _ => "partition of another kind",
    }
}

/// Partition types (UEFI 2.10, 5.3.3; Microsoft's and the Discoverable Partitions Specification's lists), in disk order.
const GPT_KINDS: [([u8; 16], &str); 8] = [
    (guid(0xC12A7328, 0xF81F, 0x11D2, 0xBA4B_00A0C93EC93B), "EFI system"),
    (guid(0xE3C9E316, 0x0B5C, 0x4DB8, 0x817D_F92DF00215AE), "Microsoft reserved"),
    (guid(0xEBD0A0A2, 0xB9E5, 0x4433, 0x87C0_68B6B72699C7), "Microsoft basic data"),
    (guid(0xDE94BBA4, 0x06D1, 0x4D40, 0xA16A_BFD50179D6AC), "Windows recovery"),
    (guid(0x0FC63DAF, 0x8483, 0x4772, 0x8E79_3D69D8477DE4), "Linux partition"),
    (guid(0x0657FD6D, 0xA4AB, 0x43C4, 0x84E5_0933C84B4F4F), "Linux swap partition"),
    (guid(0xE6D6D379, 0xF507, 0x44C2, 0xA23C_238F2A3DF928), "LVM partition"),
    (guid(0xA19D880F, 0x05FC, 0x4D3B, 0xA006_743F0F84911E), "Linux RAID partition"),
];

const fn guid(a: u32, b: u16, c: u16, d: u64) -> [u8; 16] {
    crate::units::Guid::from_fields(a, b, c, d.to_be_bytes()).0
}

/// A recognised format.
struct KnownFormat {
    format: &'static str,
    label: Option<String>,
    /// More to wipe, relative to the volume: start and length.
    also: Vec<(u64, u64)>,
}

impl KnownFormat {
    fn wipe(&self, volume: DeviceRange, wipe: &mut Wipe) {
        for (start, len) in &self.also {
            let Some(at) = volume.start.0.checked_add(*start) else { continue };
            // Nothing outside the volume is this volume's.
            let left = volume.len.0.saturating_sub(*start);
            wipe.add(at, (*len).min(left));
        }
    }
}

/// A mark at a fixed place of a volume.
struct Mark {
    at: usize,
    bytes: &'static [u8],
    format: &'static str,
    /// Offset and length of the label, if the format has one at a fixed place.
    label: Option<(usize, usize)>,
}

const fn mark(at: usize, bytes: &'static [u8], format: &'static str) -> Mark {
    Mark { at, bytes, format, label: None }
}

const fn labelled(at: usize, bytes: &'static [u8], format: &'static str, label: (usize, usize)) -> Mark {
    Mark { at, bytes, format, label: Some(label) }
}

/// Containers first: the format inside may show its own mark after theirs. Places and marks are those of the formats'
/// own documents (Microsoft's for NTFS, FAT and exFAT; the kernel's headers for the Linux formats; ECMA-119 for ISO
/// 9660).
const MARKS: [Mark; 25] = [
    mark(3, b"-FVE-FS-", "BitLocker"),
    // BitLocker To Go has a FAT boot sector in front; its GUID 4967d63b-2e29-4ad8-8399-f6a339e3d001 reveals it.
    mark(
        424,
        &crate::units::Guid::from_fields(0x4967d63b, 0x2e29, 0x4ad8, [0x83, 0x99, 0xf6, 0xa3, 0x39, 0xe3, 0xd0, 0x01])
            .0,
        "BitLocker To Go",
    ),
    mark(0, b"LUKS\xBA\xBE", "LUKS"),
    mark(512, b"LABELONE", "LVM"),
    mark(0, b"LABELONE", "LVM"),
    mark(1024, b"LABELONE", "LVM"),
    mark(1536, b"LABELONE", "LVM"),
    mark(4096, &[0xFC, 0x4E, 0x2B, 0xA9], "Linux RAID"),
    mark(0, &[0xFC, 0x4E, 0x2B, 0xA9], "Linux RAID"),
    mark(3, b"NTFS    ", "NTFS"),
    mark(3, b"EXFAT   ", "exFAT"),
    mark(3, b"ReFS\0\0\0\0", "ReFS"),
    labelled(82, b"FAT32   ", "FAT32", (71, 11)),
    labelled(54, b"FAT16   ", "FAT16", (43, 11)),
    labelled(54, b"FAT12   ", "FAT12", (43, 11)),
    labelled(0, b"XFSB", "XFS", (108, 12)),
    labelled(0x438, &[0x53, 0xEF], "ext4", (0x478, 16)),
    labelled(0x1_0040, b"_BHRfS_M", "btrfs", (0x1_012B, 256)),
    labelled(0x400, &[0x10, 0x20, 0xF5, 0xF2], "F2FS", (0, 0)),
    labelled(4086, b"SWAPSPACE2", "Linux swap", (1052, 16)),
    mark(65526, b"SWAPSPACE2", "Linux swap"),
    mark(4086, b"SWAP-SPACE", "Linux swap"),
    mark(0x400, b"H+", "HFS+"),
    mark(32, b"NXSB", "APFS"),
    labelled(0x8001, b"CD001", "ISO 9660", (0x8028, 32)),
];

/// Names the format of a volume.
fn recognise(disk: &Disk<'_>, volume: DeviceRange) -> io::Result<Option<KnownFormat>> {
    let front = disk.take(volume.start.0, FRONT.min(volume.len.0))?;
    if let Some(mark) = MARKS.iter().find(|mark| has(&front, mark.at, mark.bytes)) {
        let label = mark.label.and_then(|(at, len)| label(front.get(at..at + len)?));
        let format = match mark.format {
            "ext4" => ext_version(&front),
            format => format,
        };
        return Ok(Some(KnownFormat { format, label, also: also(disk, volume, format, &front)? }));
    }
    // ZFS writes its label four times; the ring of uberblocks in it is the mark (either byte order).
    let uberblock = |at: usize| {
        has(&front, at, &[0x0C, 0xB1, 0xBA, 0, 0, 0, 0, 0]) || has(&front, at, &[0, 0, 0, 0, 0, 0xBA, 0xB1, 0x0C])
    };
    if (128 << 10..256 << 10).step_by(1024).any(uberblock) {
        return Ok(Some(KnownFormat { format: "ZFS", label: None, also: Vec::new() }));
    }
    // RAID of version 1.0 and 0.90 keeps its superblock near the end.
    let end = volume.len.0;
    for at in
        [end.checked_sub(8192).map(|at| at & !4095), end.checked_sub(65536).map(|at| at & !65535)].into_iter().flatten()
    {
        let mark = disk.take(volume.start.0.saturating_add(at), 4)?;
        if has(&mark, 0, &[0xFC, 0x4E, 0x2B, 0xA9]) {
            return Ok(Some(KnownFormat { format: "Linux RAID", label: None, also: vec![(at, 4096)] }));
        }
    }
    Ok(None)
}

/// Marks that are neither in the first nor in the last mebibyte of the volume: start in the volume, length.
fn also(disk: &Disk<'_>, volume: DeviceRange, format: &str, front: &[u8]) -> io::Result<Vec<(u64, u64)>> {
    // Boot sector of Windows 7 and later: places of the three metadata regions. Removable drives have them elsewhere.
    const REGIONS: usize = 176;
    const REGIONS_TO_GO: usize = 440;
    /// Vista's boot sector has only the cluster of the first region, which names the others.
    const VISTA_JUMP: [u8; 3] = [0xEB, 0x52, 0x90];
    Ok(match format {
        "BitLocker" if has(front, 0, &VISTA_JUMP) => {
            let cluster = front.get(11..14).map(|at| u64::from(u16::from_le_bytes([at[0], at[1]])) * u64::from(at[2]));
            let first = cluster.and_then(|cluster| le64(front, 56)?.checked_mul(cluster));
            let Some(first) = first.filter(|first| *first < volume.len.0) else { return Ok(Vec::new()) };
            let header = disk.take(volume.start.0.saturating_add(first), 512)?;
            let mut regions = vec![(first, FVE_REGION)];
            if has(&header, 0, b"-FVE-FS-") {
                regions.extend(fve_regions(&header, 32));
            }
            regions
        }
        "BitLocker" => fve_regions(front, REGIONS),
        "BitLocker To Go" => fve_regions(front, REGIONS_TO_GO),
        // Copies of the superblock.
        "btrfs" => vec![(64 << 20, 4096), (256 << 30, 4096)],
        _ => Vec::new(),
    })
}

/// Length of a metadata region as Windows allocates it.
const FVE_REGION: u64 = 64 << 10;

/// The three metadata regions whose offsets from the volume's start are stored at `at`.
fn fve_regions(bytes: &[u8], at: usize) -> Vec<(u64, u64)> {
    (0..3).filter_map(|n| le64(bytes, at + 8 * n)).filter(|at| *at > 0).map(|at| (at, FVE_REGION)).collect()
}

/// ext2, ext3 and ext4 share a mark; feature flags tell them apart.
fn ext_version(front: &[u8]) -> &'static str {
    const SUPERBLOCK: usize = 1024;
    let feature = |at| le32(front, SUPERBLOCK + at).unwrap_or(0);
    let (compatible, incompatible) = (feature(0x5C), feature(0x60));
    // INCOMPAT_EXTENTS, _64BIT, _FLEX_BG; COMPAT_HAS_JOURNAL.
    if incompatible & (0x40 | 0x80 | 0x200) != 0 {
        "ext4"
    } else if compatible & 0x4 != 0 {
        "ext3"
    } else {
        "ext2"
    }
}

/// A label as far as it is text; control characters could rewrite the terminal it is shown on.
fn label(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let text: String = String::from_utf8_lossy(&bytes[..end]).chars().filter(|c| !c.is_control()).collect();
    let text = text.trim();
    if text.is_empty() || text == "NO NAME" { None } else { Some(text.to_owned()) }
}

fn has(bytes: &[u8], at: usize, mark: &[u8]) -> bool {
    bytes.get(at..).is_some_and(|rest| rest.starts_with(mark))
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn le64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::FileExt;
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::sync::atomic::{AtomicU32, Ordering};

    struct Image(PathBuf);

    impl Image {
        fn new(size: u64) -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let name = format!("dray-sig-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            File::create(&path).unwrap().set_len(size).unwrap();
            Self(path)
        }

        fn scan(&self) -> Contents {
            scan_path(&self.0)
        }

        /// Runs a tool on it; `false` (and a message) when it is not installed.
        fn make(&self, tool: &str, args: &[&str]) -> bool {
            let found = ["/usr/sbin", "/sbin", "/usr/bin"]
                .iter()
                .map(|dir| Path::new(dir).join(tool))
                .find(|path| path.exists());
            let Some(program) = found else {
                eprintln!("SKIPPED judge: {tool} is not installed");
                return false;
            };
            let output = Command::new(program).args(args).arg(&self.0).output().unwrap();
            assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
            true
        }

        /// Overwrites the ranges found by the scan; nothing recognisable to it, or to blkid, must be left.
        fn wipe(&self, contents: &Contents) {
            let file = File::options().write(true).open(&self.0).unwrap();
            for range in &contents.wipe {
                file.write_all_at(&vec![0; range.len.0 as usize], range.start.0).unwrap();
            }
            assert!(self.scan().is_blank(), "{:?}", self.scan().words);
            if let Ok(output) = Command::new("blkid").args(["-p"]).arg(&self.0).output() {
                assert_eq!(output.status.code(), Some(2), "blkid: {}", String::from_utf8_lossy(&output.stdout));
            }
        }
    }

    impl Drop for Image {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    fn scan_path(path: &Path) -> Contents {
        let file = File::open(path).unwrap();
        let size = file.metadata().unwrap().len();
        scan_with(&|at, into| file.read_exact_at(into, at.0), ByteLen(size), SectorSize::S512).unwrap()
    }

    #[test]
    fn a_blank_disk_is_blank_and_noise_is_not() {
        let image = Image::new(8 << 20);
        assert!(image.scan().is_blank());
        assert_eq!(image.scan().wipe, [DeviceRange::new(0, 1 << 20), DeviceRange::new(7 << 20, 1 << 20)]);
        File::options().write(true).open(&image.0).unwrap().write_all_at(b"x", (8 << 20) - 1).unwrap();
        assert_eq!(image.scan().words.as_deref(), Some("unknown data"));
        for size in [0, 1, 511, 512, 4096, 10_000] {
            let image = Image::new(size);
            assert!(image.scan().is_blank());
            image.wipe(&image.scan());
        }
    }

    #[test]
    fn judge_what_each_tool_made_is_named_and_can_be_wiped() {
        let cases: [(&str, &[&str], u64, &str); 8] = [
            ("mkfs.ext4", &["-q", "-F", "-L", "data4"], 32 << 20, "ext4 \"data4\" on the whole disk"),
            ("mkfs.ext2", &["-q", "-F"], 8 << 20, "ext2 on the whole disk"),
            ("mkfs.xfs", &["-q", "-L", "xl"], 320 << 20, "XFS \"xl\" on the whole disk"),
            ("mkfs.btrfs", &["-q", "-L", "bl"], 256 << 20, "btrfs \"bl\" on the whole disk"),
            ("mkfs.vfat", &["-n", "FATTY", "-F", "32"], 64 << 20, "FAT32 \"FATTY\" on the whole disk"),
            ("mkfs.exfat", &[], 64 << 20, "exFAT on the whole disk"),
            ("mkntfs", &["-q", "-F", "-f"], 16 << 20, "NTFS on the whole disk"),
            ("mkswap", &["-L", "sw"], 8 << 20, "Linux swap \"sw\" on the whole disk"),
        ];
        for (tool, args, size, expected) in cases {
            let image = Image::new(size);
            if image.make(tool, args) {
                let contents = image.scan();
                assert_eq!(contents.words.as_deref(), Some(expected), "{tool}");
                image.wipe(&contents);
            }
        }
    }

    #[test]
    fn judge_a_physical_volume_of_lvm_is_named() {
        // LVM takes block devices only.
        let image = Image::new(16 << 20);
        let attached = Command::new("losetup").args(["--find", "--show"]).arg(&image.0).output();
        let Some(attached) = attached.ok().filter(|output| output.status.success()) else {
            eprintln!("SKIPPED judge: no loop device for pvcreate (needs root)");
            return;
        };
        let node = String::from_utf8(attached.stdout).unwrap();
        let alone = "activation{udev_sync=0 udev_rules=0} devices{external_device_info_source=none use_devicesfile=0}";
        let made = Command::new("pvcreate").args(["-qq", "-y", "--config", alone, node.trim()]).output();
        assert!(Command::new("losetup").args(["--detach", node.trim()]).status().unwrap().success());
        match made {
            Err(error) => eprintln!("SKIPPED judge: pvcreate: {error}"),
            Ok(made) => {
                assert!(made.status.success(), "pvcreate: {}", String::from_utf8_lossy(&made.stderr));
                let contents = image.scan();
                assert_eq!(contents.words.as_deref(), Some("LVM on the whole disk"));
                image.wipe(&contents);
            }
        }
    }

    #[test]
    fn judge_luks_made_by_cryptsetup_is_named() {
        let image = Image::new(32 << 20);
        let path = image.0.display().to_string();
        let script =
            format!("echo -n x | cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 '{path}' -");
        if !Command::new("sh").args(["-c", &script]).output().is_ok_and(|output| output.status.success()) {
            eprintln!("SKIPPED judge: cryptsetup could not make a LUKS volume");
            return;
        }
        let contents = image.scan();
        assert_eq!(contents.words.as_deref(), Some("LUKS on the whole disk"));
        image.wipe(&contents);
    }

    #[test]
    fn judge_sgdisks_table_is_read_and_so_is_its_backup_alone() {
        let image = Image::new(64 << 20);
        if !image.make("sgdisk", &["-n1:0:+16M", "-t1:0C01", "-n2:0:0", "-t2:0700"]) {
            return;
        }
        let inner = Image::new(40 << 20);
        if inner.make("mkfs.ext4", &["-q", "-F", "-L", "in"]) {
            let contents = image.scan();
            let second = contents.volumes[1].range;
            let bytes = fs::read(&inner.0).unwrap();
            let file = File::options().write(true).open(&image.0).unwrap();
            file.write_all_at(&bytes, second.start.0).unwrap();
        }
        let contents = image.scan();
        assert_eq!(contents.table, Some(Table::Gpt));
        let words = contents.words.as_deref().unwrap();
        assert!(words.starts_with("GPT, 2 partitions: Microsoft reserved (16.8 MB), ext4 \"in\" (49"), "{words}");
        // Without the primary, the backup still makes it a disk with partitions.
        File::options().write(true).open(&image.0).unwrap().write_all_at(&[0; 34 * 512], 0).unwrap();
        let contents = image.scan();
        assert_eq!(contents.table, Some(Table::GptBackupOnly));
        assert_eq!(contents.volumes.len(), 2);
        image.wipe(&contents);
    }

    #[test]
    fn judge_volumes_made_by_windows_are_named_and_their_metadata_found() {
        let mut seen = 0;
        for name in ["bitlk-aes-xts-128", "bitlk-togo-aes-xts-128", "dissect-vista", "dissect-aes-256-diffuser"] {
            let image = Image::new(0);
            if !dray_fixtures::unpack(&format!("bitlocker/{name}.img"), &image.0) {
                continue;
            }
            let contents = image.scan();
            let words = contents.words.clone().unwrap();
            assert!(words.contains("BitLocker"), "{name}: {words}");
            // Each metadata region begins with its mark: the places found are the right ones.
            let volume = contents
                .volumes
                .iter()
                .find(|volume| volume.format.is_some_and(|f| f.starts_with("BitLocker")))
                .unwrap();
            let file = File::open(&image.0).unwrap();
            let read = |at: DeviceOffset, into: &mut [u8]| file.read_exact_at(into, at.0);
            let size = file.metadata().unwrap().len();
            let disk = Disk { read: &read, size, sector: 512 };
            let found = recognise(&disk, volume.range).unwrap().unwrap();
            let regions: std::collections::BTreeSet<_> =
                found.also.iter().map(|(at, _)| volume.range.start.0 + at).collect();
            assert_eq!(regions.len(), 3, "{name}: {regions:?}");
            // One of the samples ends after its first region.
            let inside: Vec<_> = regions.into_iter().filter(|at| *at < size).collect();
            assert!(inside.len() == 3 || name == "dissect-vista" && inside.len() == 1, "{name}: {inside:?}");
            for at in inside {
                assert_eq!(disk.take(at, 8).unwrap(), b"-FVE-FS-", "{name} at {at}");
                let end = (at + FVE_REGION).min(size);
                let wiped = contents.wipe.iter().any(|range| range.start.0 <= at && end <= range.end().0);
                assert!(wiped, "{name}: {at} of {size}, {contents:?}");
            }
            seen += 1;
        }
        eprintln!("{seen} volumes made by Windows looked at");
    }

    #[test]
    fn bitlocker_regions_are_wiped() {
        let image = Image::new(64 << 20);
        let file = File::options().write(true).open(&image.0).unwrap();
        file.write_all_at(b"-FVE-FS-", 3).unwrap();
        for (n, at) in [10_u64 << 20, 30 << 20, u64::MAX - 5].into_iter().enumerate() {
            file.write_all_at(&at.to_le_bytes(), 176 + 8 * n as u64).unwrap();
        }
        let contents = image.scan();
        assert_eq!(contents.words.as_deref(), Some("BitLocker on the whole disk"));
        assert_eq!(contents.wipe.len(), 4);
        assert_eq!(contents.wipe[1], DeviceRange::new(10 << 20, 64 << 10));
        assert_eq!(contents.wipe[2], DeviceRange::new(30 << 20, 64 << 10));
    }

    #[test]
    fn hostile_bytes_name_something_or_nothing_and_wipe_only_the_disk() {
        let mut state = 7_u64;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        for round in 0..300 {
            let size = 1 + next() % (3 << 20);
            let mut bytes = vec![0_u8; size as usize];
            for _ in 0..next() % 200 {
                let at = (next() % size.min(2048)) as usize;
                bytes[at] = next() as u8;
            }
            // Plants a table or a mark whose numbers stay random.
            let plant = |bytes: &mut [u8], at: usize, mark: &[u8]| {
                if let Some(place) = bytes.get_mut(at..at + mark.len()) {
                    place.copy_from_slice(mark);
                }
            };
            match round % 4 {
                0 => plant(&mut bytes, 512, b"EFI PART"),
                1 => plant(&mut bytes, 510, &[0x55, 0xAA]),
                2 => plant(&mut bytes, 3, b"-FVE-FS-"),
                _ => {}
            }
            let sector = if round % 2 == 0 { SectorSize::S512 } else { SectorSize::S4096 };
            let read = |at: DeviceOffset, into: &mut [u8]| {
                let start = at.0 as usize;
                into.copy_from_slice(bytes.get(start..start + into.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            };
            let contents = scan_with(&read, ByteLen(size), sector).unwrap();
            assert!(contents.wipe.iter().all(|range| range.end().0 <= size));
            assert!(contents.wipe.windows(2).all(|pair| pair[0].end() < pair[1].start));
        }
    }
}
