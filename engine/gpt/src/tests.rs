use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::units::{Guid, SectorSize};
use dray_base::entropy::{Entropy, Seeded};

const TIB: u64 = 1 << 40;

fn guids() -> Guids {
    let mut seeded = Seeded::new(7);
    Guids {
        disk: Guid::from_random(seeded.array()),
        msr: Guid::from_random(seeded.array()),
        data: Guid::from_random(seeded.array()),
    }
}

fn table(disk: u64, sector: SectorSize, scheme: Scheme) -> Table {
    Table::plan_default(ByteLen(disk), sector, scheme, ByteLen(4096), guids()).unwrap()
}

/// A sparse file that holds a table, deleted on drop.
struct Image(PathBuf);

impl Image {
    fn new(name: &str, disk: u64, table: &Table) -> Option<Self> {
        // ext4 ends at 16 TiB; tmpfs holds sparse files of any size.
        let shm = Path::new("/dev/shm");
        let root = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
        let dir = root.join(format!("dray-gpt-{}", std::process::id()));
        let image = Self(dir.join(name));
        let file = loop {
            std::fs::create_dir_all(&dir).unwrap();
            // A neighbour may have removed the directory just now.
            match File::options().read(true).write(true).create(true).truncate(true).open(&image.0) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                opened => break opened.unwrap(),
            }
        };
        if let Err(e) = file.set_len(disk) {
            eprintln!("SKIPPED judge: a sparse file of {disk} bytes: {e}");
            return None;
        }
        file.write_all_at(&table.primary(), 0).unwrap();
        if let Some((at, bytes)) = table.backup() {
            assert_eq!(at.0 + bytes.len() as u64, disk / table.sector.bytes() * table.sector.bytes());
            file.write_all_at(&bytes, at.0).unwrap();
        }
        Some(image)
    }

    fn read(&self, disk: u64, sector: SectorSize) -> FoundTables {
        let file = File::open(&self.0).unwrap();
        read(ByteLen(disk), sector, |at, buf| file.read_exact_at(buf, at.0)).unwrap()
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
        // The last one takes the directory along.
        let _ = self.0.parent().map(std::fs::remove_dir);
    }
}

fn judge(program: &str, args: &[&str], path: &Path) -> Option<String> {
    match Command::new(program).args(args).arg(path).output() {
        Ok(out) => {
            let text = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
            assert!(out.status.success(), "{program} {args:?}: {text}");
            Some(text)
        }
        Err(e) => {
            eprintln!("SKIPPED judge: {program}: {e}");
            None
        }
    }
}

/// Sizes around every boundary: 32-bit sector counts, odd ends, the smallest and a large drive.
fn sizes(sector: u64) -> Vec<u64> {
    vec![
        64 << 20,
        4_000_787_030_016 / sector * sector,
        (1 << 32) * sector - sector,
        (1 << 32) * sector,
        (1 << 32) * sector + sector,
        2 * TIB - sector,
        2 * TIB,
        2 * TIB + sector,
        24_000_000_000_000 / sector * sector,
        24_000_000_000_000 / sector * sector - 7 * sector,
    ]
}

#[test]
fn judge_sgdisk_finds_no_problem_at_512_bytes() {
    for disk in sizes(512) {
        let table = table(disk, SectorSize::S512, Scheme::Gpt);
        let Some(image) = Image::new(&format!("sgdisk-{disk}"), disk, &table) else { continue };
        let Some(text) = judge("sgdisk", &["-v"], &image.0) else { return };
        assert!(text.contains("No problems found"), "{disk}: {text}");
        assert!(!text.to_lowercase().contains("caution") && !text.contains("Warning"), "{disk}: {text}");
        let text = judge("sgdisk", &["-i", "2"], &image.0).unwrap();
        assert!(text.contains("EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"), "{text}");
        assert!(text.contains(&format!("First sector: {}", table.data.start.0 / 512)), "{text}");
        assert!(text.contains(&format!("Last sector: {}", table.data.end().0 / 512 - 1)), "{text}");
        let text = judge("sgdisk", &["-i", "1"], &image.0).unwrap();
        assert!(text.contains("E3C9E316-0B5C-4DB8-817D-F92DF00215AE"), "{text}");
    }
}

#[test]
fn judge_sfdisk_finds_no_errors() {
    for disk in sizes(512) {
        let table = table(disk, SectorSize::S512, Scheme::Gpt);
        let Some(image) = Image::new(&format!("sfdisk-{disk}"), disk, &table) else { continue };
        let Some(text) = judge("sfdisk", &["--verify"], &image.0) else { return };
        assert!(text.contains("No errors detected"), "{disk}: {text}");
        let dump = judge("sfdisk", &["--dump"], &image.0).unwrap();
        let wanted = format!("start={:>12}, size={:>12}", table.data.start.0 / 512, table.data.len.0 / 512);
        assert!(dump.contains(&wanted), "{wanted}\n{dump}");
        assert!(dump.contains("label: gpt"));
    }
}

/// A loop device over an image, detached on drop.
struct Loop(PathBuf);

impl Loop {
    fn attach(image: &Image, sector: SectorSize) -> Option<Self> {
        let size = sector.bytes().to_string();
        let out = Command::new("losetup").args(["-r", "-f", "--show", "-b", &size]).arg(&image.0).output();
        match out {
            Ok(out) if out.status.success() => {
                Some(Self(PathBuf::from(String::from_utf8_lossy(&out.stdout).trim().to_owned())))
            }
            _ => {
                eprintln!("SKIPPED judge: no loop device with sectors of {size} bytes");
                None
            }
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.0).status();
    }
}

#[test]
fn judge_sgdisk_and_sfdisk_find_no_problem_at_4096_bytes() {
    for disk in sizes(4096) {
        let table = table(disk, SectorSize::S4096, Scheme::Gpt);
        let Some(image) = Image::new(&format!("4kn-{disk}"), disk, &table) else { continue };
        let Some(device) = Loop::attach(&image, SectorSize::S4096) else { return };
        if let Some(text) = judge("sgdisk", &["-v"], &device.0) {
            assert!(text.contains("No problems found"), "{disk}: {text}");
            assert!(!text.to_lowercase().contains("caution") && !text.contains("Warning"), "{disk}: {text}");
            let text = judge("sgdisk", &["-i", "2"], &device.0).unwrap();
            assert!(text.contains(&format!("First sector: {}", table.data.start.0 / 4096)), "{text}");
            assert!(text.contains(&format!("Last sector: {}", table.data.end().0 / 4096 - 1)), "{text}");
        }
        if let Some(text) = judge("sfdisk", &["--verify"], &device.0) {
            assert!(text.contains("No errors detected"), "{disk}: {text}");
        }
    }
}

#[test]
fn judge_gpt_crate_reads_both_copies() {
    for (sector, block) in [
        (SectorSize::S512, gpt::disk::LogicalBlockSize::Lb512),
        (SectorSize::S4096, gpt::disk::LogicalBlockSize::Lb4096),
    ] {
        let disk = 2 * TIB + sector.bytes();
        let table = table(disk, sector, Scheme::Gpt);
        let Some(image) = Image::new(&format!("crate-{}", sector.bytes()), disk, &table) else { continue };
        for damage in [None, Some(sector.bytes())] {
            if let Some(at) = damage {
                File::options().write(true).open(&image.0).unwrap().write_all_at(b"BAD!", at).unwrap();
            }
            let read = gpt::GptConfig::new().writable(false).logical_block_size(block).open(&image.0).unwrap();
            assert_eq!(read.partitions().len(), 2);
            let data = &read.partitions()[&2];
            assert_eq!(data.part_type_guid.guid.to_string().to_lowercase(), BASIC_DATA.to_string());
            assert_eq!(data.part_guid.to_string(), guids().data.to_string());
            assert_eq!(data.bytes_start(block).unwrap(), table.data.start.0);
            assert_eq!(data.bytes_len(block).unwrap(), table.data.len.0);
            assert_eq!(data.name, "Basic data partition");
        }
    }
}

#[test]
fn judge_sfdisk_reads_the_mbr() {
    for disk in [64 << 20, 500_107_862_016, 2 * TIB] {
        let table = table(disk, SectorSize::S512, Scheme::Mbr);
        let Some(image) = Image::new(&format!("mbr-{disk}"), disk, &table) else { continue };
        let Some(text) = judge("sfdisk", &["--verify"], &image.0) else { return };
        assert!(text.contains("No errors detected"), "{text}");
        let dump = judge("sfdisk", &["--dump"], &image.0).unwrap();
        assert!(dump.contains("label: dos") && dump.contains("type=7"), "{dump}");
        let wanted = format!("start={:>12}, size={:>12}", table.data.start.0 / 512, table.data.len.0 / 512);
        assert!(dump.contains(&wanted), "{wanted}\n{dump}");
        let found = image.read(disk, SectorSize::S512);
        assert!(found.from_mbr);
        assert_eq!(found.first_data().unwrap().range, table.data);
    }
}

#[test]
fn protective_record_saturates_at_32_bits() {
    for (sectors, covered) in [((1 << 32) - 1, 0xFFFF_FFFEu32), (1 << 32, u32::MAX), ((1 << 32) + 1, u32::MAX)] {
        let primary = table(sectors * 512, SectorSize::S512, Scheme::Gpt).primary();
        assert_eq!(primary[446 + 12..446 + 16], covered.to_le_bytes());
    }
}

#[test]
fn mbr_is_refused_beyond_32_bit_sectors() {
    let plan = |disk| Table::plan_default(ByteLen(disk), SectorSize::S512, Scheme::Mbr, ByteLen(4096), guids());
    assert!(plan(2 * TIB).is_ok());
    assert!(matches!(plan(2 * TIB + 512), Err(PlanError::TooLargeForMbr { .. })));
}

#[test]
fn data_partition_is_whole_clusters_and_aligned() {
    for cluster in [512, 4096, 64 << 10, 2 << 20] {
        for disk in [64 << 20, 1_000_204_886_016, 24_000_000_000_000 - 7 * 512] {
            let table =
                Table::plan_default(ByteLen(disk), SectorSize::S512, Scheme::Gpt, ByteLen(cluster), guids()).unwrap();
            assert!(table.data.start.is_aligned(ALIGNMENT.0));
            assert_eq!(table.data.len.0 % cluster, 0);
            let end = disk - 33 * 512;
            assert!(table.data.end().0 <= end && end - table.data.end().0 < cluster + ALIGNMENT.0);
            assert!(table.data.end().is_aligned(ALIGNMENT.0));
            assert!(table.msr.unwrap().end() <= table.data.start);
        }
    }
}

#[test]
fn drives_too_small_are_refused_not_underflowed() {
    for disk in [0, 1, 511, 512, 4096, 1 << 20, 17 << 20, (17 << 20) + 33 * 512] {
        for sector in [SectorSize::S512, SectorSize::S4096] {
            let plan = Table::plan_default(ByteLen(disk), sector, Scheme::Gpt, ByteLen(4096), guids());
            assert!(matches!(plan, Err(PlanError::TooSmall { .. })), "{disk}");
        }
    }
}

#[test]
fn reader_falls_back_to_the_good_copy_and_says_which() {
    let disk = 24_000_000_000_000;
    let planned = table(disk, SectorSize::S512, Scheme::Gpt);
    let Some(image) = Image::new("fallback", disk, &planned) else { return };
    let found = image.read(disk, SectorSize::S512);
    assert_eq!((&found.primary, &found.backup), (&CopyState::Good, &CopyState::Good));
    assert!(found.copies_agree && found.protective);
    assert_eq!(found.disk, Some(guids().disk));
    assert_eq!(found.first_data().unwrap().range, planned.data);
    let file = File::options().write(true).open(&image.0).unwrap();
    file.write_all_at(&[1], 1024).unwrap();
    let found = image.read(disk, SectorSize::S512);
    assert_eq!(found.primary, CopyState::Bad("checksum of the entries is wrong".into()));
    assert_eq!(found.backup, CopyState::Good);
    assert_eq!(found.partitions.len(), 2);
    file.write_all_at(&[0; 512], disk - 512).unwrap();
    let found = image.read(disk, SectorSize::S512);
    assert_eq!(found.backup, CopyState::Absent);
    assert!(found.partitions.is_empty() && !found.is_blank());
}

#[test]
fn judge_sgdisk_table_is_read_by_us() {
    let disk = 10 << 30;
    let Some(image) = Image::new("theirs", disk, &table(disk, SectorSize::S512, Scheme::Gpt)) else { return };
    let args = ["-Z", "-n", "1:2048:+100M", "-t", "1:0700", "-c", "1:Daten ä", "-n", "5:0:0", "-t", "5:8300"];
    if judge("sgdisk", &args, &image.0).is_none() {
        return;
    }
    let found = image.read(disk, SectorSize::S512);
    assert!(found.copies_agree);
    assert_eq!(found.partitions.iter().map(|e| e.number).collect::<Vec<_>>(), [1, 5]);
    assert_eq!(found.partitions[0].name, "Daten ä");
    assert_eq!(found.first_data().unwrap().range, DeviceRange::new(1 << 20, 100 << 20));
}

#[test]
fn judge_sfdisk_logical_partitions_are_followed() {
    use std::io::Write;
    let disk = 1 << 30;
    let Some(image) = Image::new("logical", disk, &table(disk, SectorSize::S512, Scheme::Mbr)) else { return };
    let child = Command::new("sfdisk").arg("-q").arg(&image.0).stdin(std::process::Stdio::piped()).spawn();
    let Ok(mut child) = child else {
        eprintln!("SKIPPED judge: sfdisk");
        return;
    };
    let script = "label: dos\n1: start=2048,size=20480,type=83\n2: size=400M,type=f\n\
        5: size=100M,type=7\n6: size=100M,type=7\n";
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    let found = image.read(disk, SectorSize::S512);
    assert!(found.from_mbr);
    assert_eq!(found.partitions.iter().map(|e| e.number).collect::<Vec<_>>(), [1, 5, 6]);
    assert!(found.partitions.iter().all(|e| e.inside));
    assert_eq!(found.first_data().unwrap().number, 5);
}

#[test]
fn hostile_tables_never_panic_or_allocate_without_bound() {
    let disk = 256 << 20;
    for sector in [SectorSize::S512, SectorSize::S4096] {
        for scheme in [Scheme::Gpt, Scheme::Mbr] {
            let table = table(disk, sector, scheme);
            let mut front = table.primary();
            front.resize(1 << 20, 0);
            let (back_at, back) = table.backup().unwrap_or((DeviceOffset(disk), Vec::new()));
            let mut seeded = Seeded::new(1);
            for _ in 0..3000 {
                let mut bytes = front.clone();
                for _ in 0..1 + seeded.next_u64() % 4 {
                    let at = (seeded.next_u64() % (3 * sector.bytes())) as usize;
                    bytes[at] = [0, 0xFF, 0x7F, seeded.next_u64() as u8][(seeded.next_u64() % 4) as usize];
                }
                // A liar computes its checksums.
                if seeded.next_u64().is_multiple_of(2) {
                    let at = sector.bytes() as usize;
                    let mut header = bytes[at..at + 92].to_vec();
                    header[16..20].fill(0);
                    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, &header) as u32;
                    bytes[at + 16..at + 20].copy_from_slice(&crc.to_le_bytes());
                }
                let read_at = |at: DeviceOffset, buf: &mut [u8]| {
                    assert!(buf.len() <= 4 << 20);
                    assert!(at.0 + buf.len() as u64 <= disk, "reads stay on the drive");
                    for (i, byte) in buf.iter_mut().enumerate() {
                        let at = at.0 + i as u64;
                        *byte = match at {
                            _ if at < bytes.len() as u64 => bytes[at as usize],
                            _ if at >= back_at.0 => back[(at - back_at.0) as usize],
                            _ => 0,
                        };
                    }
                    Ok(())
                };
                let found = read(ByteLen(disk), sector, read_at).unwrap();
                for entry in found.partitions.iter().filter(|e| e.inside) {
                    assert!(entry.range.end().0 <= disk);
                }
            }
        }
    }
}

#[test]
fn unreadable_backup_is_told_and_the_primary_used() {
    let disk = 256 << 20;
    let bytes = table(disk, SectorSize::S512, Scheme::Gpt).primary();
    let found = read(ByteLen(disk), SectorSize::S512, |at, buf| {
        if at.0 > 1 << 20 {
            return Err(io::Error::other("medium error"));
        }
        buf.copy_from_slice(&bytes[at.0 as usize..at.0 as usize + buf.len()]);
        Ok(())
    })
    .unwrap();
    assert_eq!(found.primary, CopyState::Good);
    assert_eq!(found.backup, CopyState::Bad("cannot be read: medium error".into()));
    assert_eq!(found.partitions.len(), 2);
}

/// A disk in memory: a front and a back, zeros between.
struct Disk {
    size: u64,
    parts: Vec<(u64, Vec<u8>)>,
}

impl Disk {
    fn new(size: u64, sector: SectorSize) -> Self {
        let table = table(size, sector, Scheme::Gpt);
        let (at, backup) = table.backup().unwrap();
        Self { size, parts: vec![(0, table.primary()), (at.0, backup)] }
    }

    fn look(&self, sector: SectorSize) -> FoundTables {
        read(ByteLen(self.size), sector, |at, into| {
            assert!(at.0.is_multiple_of(512) && at.0 + into.len() as u64 <= self.size);
            into.fill(0);
            for (start, bytes) in &self.parts {
                for (byte, place) in bytes.iter().zip(*start..) {
                    if let Some(index) = place.checked_sub(at.0).filter(|index| *index < into.len() as u64) {
                        into[index as usize] = *byte;
                    }
                }
            }
            Ok(())
        })
        .unwrap()
    }
}

#[test]
fn a_sound_copy_counts_whatever_became_of_the_other_and_of_the_disk() {
    const DISK: u64 = 256 << 20;
    let (first, second) =
        (|flaw: &Flaw| matches!(flaw, Flaw::FirstCopy(_)), |flaw: &Flaw| matches!(flaw, Flaw::SecondCopy(_)));
    for sector in [SectorSize::S512, SectorSize::S4096] {
        let planned = table(DISK, sector, Scheme::Gpt).data;
        for size in [DISK, DISK + (64 << 20), DISK - (8 << 20)] {
            for (damage, wanted) in [("", [false, size < DISK]), ("first", [true, false]), ("second", [false, true])] {
                let mut disk = Disk::new(DISK, sector);
                disk.size = size;
                match damage {
                    "first" => disk.parts[0].1[sector.bytes() as usize + 60] ^= 1,
                    "second" => disk.parts[1].1.fill(0),
                    _ => {}
                }
                let found = disk.look(sector);
                if damage == "first" && size < DISK {
                    assert!(found.partitions.is_empty(), "nothing is left of it");
                    continue;
                }
                let data = found.first_data().expect("a data partition");
                assert_eq!((data.range, found.sector), (planned, Some(sector)), "{size} {damage}");
                assert_eq!(data.there.0, planned.len.0.min(size - planned.start.0), "{size} {damage}");
                assert_eq!(data.inside, size >= DISK);
                let flaws = &found.flaws;
                assert_eq!([flaws.iter().any(first), flaws.iter().any(second)], wanted, "{size} {damage} {flaws:?}");
                let other_size = flaws.iter().any(|flaw| matches!(flaw, Flaw::OtherSize { .. }));
                assert_eq!(other_size, size != DISK, "{size} {damage} {flaws:?}");
                let past = flaws.iter().any(|flaw| matches!(flaw, Flaw::PartitionPastEnd { number: 2, .. }));
                assert_eq!(past, size < DISK, "{flaws:?}");
                let away = flaws.iter().any(|flaw| matches!(flaw, Flaw::SecondCopyNotAtEnd(_)));
                assert_eq!(away, size > DISK && damage != "second", "{flaws:?}");
                assert_eq!(flaws.is_empty(), size == DISK && damage.is_empty());
            }
        }
    }
}

#[test]
fn a_table_of_the_other_sector_size_is_read_and_said() {
    const DISK: u64 = 256 << 20;
    for (made, looked) in [(SectorSize::S512, SectorSize::S4096), (SectorSize::S4096, SectorSize::S512)] {
        let found = Disk::new(DISK, made).look(looked);
        assert_eq!(found.flaws, [Flaw::OtherSector { table: made, drive: looked }]);
        assert_eq!((found.sector, found.copies_agree), (Some(made), true));
        assert_eq!(found.first_data().unwrap().range, table(DISK, made, Scheme::Gpt).data);
    }
}

#[test]
fn copies_that_differ_are_said_and_an_mbr_without_protection_counts_alone() {
    const DISK: u64 = 256 << 20;
    let mut disk = Disk::new(DISK, SectorSize::S512);
    let mut other = table(DISK, SectorSize::S512, Scheme::Gpt);
    other.data.len = ByteLen(1 << 20);
    disk.parts[1].1 = other.backup().unwrap().1;
    let found = disk.look(SectorSize::S512);
    assert_eq!(found.flaws, [Flaw::CopiesDiffer]);
    assert_eq!(found.first_data().unwrap().range, table(DISK, SectorSize::S512, Scheme::Gpt).data);

    // An earlier GPT's backup at the end does not count on a disk that was given an MBR.
    let mbr = table(DISK, SectorSize::S512, Scheme::Mbr);
    disk.parts[0].1 = mbr.primary();
    let found = disk.look(SectorSize::S512);
    assert!(found.from_mbr && found.flaws.is_empty(), "{found:?}");
    assert_eq!(found.first_data().unwrap().range, mbr.data);
}
