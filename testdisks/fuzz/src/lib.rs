//! Every parser of external input as a function of arbitrary bytes.
//!
//! Under libFuzzer by `scripts/fuzz`; in the tests with the seeds, with mutations of them, and with every input that
//! was once found to fail (`testdisks/fuzz/found`).

pub mod seeds;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use dray_azure::{bloblist, copylog, dataset, drive_record, driveset, journal, ledger, manifest, properties};
use dray_base::problem::Problems;
use dray_base::units::{ByteLen, DeviceOffset, SectorSize, VolumeOffset};
use dray_bitlocker::keys::KeyInput;
use dray_bitlocker::map;
use dray_bitlocker::read as bitlocker;
use dray_engine::api::image::map::{Map, Status};
use dray_engine::api::inspect::Key;
use dray_gpt as gpt;
use dray_ntfs::read::{ReadAt, ReadError, Volume, parts};

/// A parser under test.
#[derive(Debug)]
pub struct Target {
    /// Its name, and the directory of its seeds.
    pub name: &'static str,
    /// Accepts any input and returns: no panic, no endless loop, no memory without bound.
    pub feed: fn(&[u8]),
}

/// All parsers.
pub const TARGETS: &[Target] = &[
    Target { name: "partitions", feed: partitions },
    Target { name: "fve", feed: fve },
    Target { name: "ntfs", feed: ntfs },
    Target { name: "ntfs-record", feed: |input| ntfs_record(input) },
    Target { name: "ntfs-index", feed: |input| ntfs_index(input) },
    Target { name: "ntfs-runs", feed: ntfs_runs },
    Target { name: "lznt1", feed: lznt1 },
    Target { name: "manifest", feed: manifest_ },
    Target { name: "logs", feed: logs },
    Target { name: "csv", feed: csv },
    Target { name: "journal", feed: journal_ },
    Target { name: "keys", feed: keys },
    Target { name: "rescue-map", feed: rescue_map },
];

/// Length of a partition table's piece: sector 0 and a GPT of either sector size.
const TABLE_LEN: usize = 40 << 10;

/// The first byte selects the sector size. Then the front of a drive, followed by its end.
fn partitions(input: &[u8]) {
    let Some((&kind, tables)) = input.split_first() else { return };
    let sector = if kind & 1 == 0 { SectorSize::S512 } else { SectorSize::S4096 };
    let disk = ByteLen(1 << 30);
    let (front, end) = tables.split_at(tables.len().min(TABLE_LEN));
    let end_at = disk.0 - end.len() as u64;
    let found = gpt::read::read(disk, sector, |at, into| {
        into.fill(0);
        overlay(front, 0, at.0, into);
        overlay(end, end_at, at.0, into);
        Ok(())
    });
    // What it becomes on another disk, however it was found.
    let read_at = |at: DeviceOffset, into: &mut [u8]| {
        into.fill(0);
        overlay(front, 0, at.0, into);
        overlay(end, end_at, at.0, into);
        Ok(())
    };
    for size in [disk.0, disk.0 + 4096, disk.0 / 2, 8192] {
        if let Ok(Ok(Some(moved))) = gpt::moved::moved(disk, ByteLen(size), sector, read_at) {
            assert_eq!(moved.second.0.0 + moved.second.1.len() as u64, size, "the second copy ends with the disk");
        }
    }
    if let Ok(found) = found {
        let _ = (found.is_blank(), found.first_data().map(gpt::read::PartitionEntry::purpose));
    }
}

/// A map of ddrescue: what is read is written, and read again as the same.
fn rescue_map(input: &[u8]) {
    let size = ByteLen(1 << 40);
    if let Ok(map) = Map::parse(&String::from_utf8_lossy(input), size) {
        let all = [Status::NonTried, Status::NonTrimmed, Status::NonScraped, Status::Bad, Status::Finished];
        assert_eq!(all.map(|status| map.len_of(status).0).iter().sum::<u64>(), size.0, "a map has no gaps");
        assert_eq!(Map::parse(&map.text(&[]), size), Ok(map));
    }
}

/// Copies the part of `piece` (at `start`) that overlaps `into` (at `at`).
fn overlay(piece: &[u8], start: u64, at: u64, into: &mut [u8]) {
    let (from, to) = (start.max(at), (start + piece.len() as u64).min(at.saturating_add(into.len() as u64)));
    if from < to {
        into[(from - at) as usize..(to - at) as usize]
            .copy_from_slice(&piece[(from - start) as usize..(to - start) as usize]);
    }
}

/// Length of a first sector in the seeds of `fve`.
const BOOT_LEN: usize = 512;
/// Length of a metadata copy in them; the rest of a region is zeros.
const COPY_LEN: usize = 8 << 10;

/// A first sector; a metadata copy, returned at each of the three places; then the description of a conversion,
/// returned at all other offsets.
fn fve(input: &[u8]) {
    struct Pieces<'a>(&'a [u8], &'a [u8], &'a [u8]);
    impl map::ReadAt for Pieces<'_> {
        fn read_at(&mut self, at: VolumeOffset, buf: &mut [u8]) -> io::Result<()> {
            if at.0 > 1 << 40 || buf.len() > 16 << 20 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            buf.fill(0);
            let piece = match at.0 {
                0 => self.0,
                _ if buf.len() >= 16 << 10 => self.1,
                _ => self.2,
            };
            let len = piece.len().min(buf.len());
            buf[..len].copy_from_slice(&piece[..len]);
            Ok(())
        }
    }
    let (boot, rest) = input.split_at(input.len().min(BOOT_LEN));
    let (copy, rest) = rest.split_at(rest.len().min(COPY_LEN));
    let mut reader = Pieces(boot, copy, rest);
    let Ok(Some(volume)) = bitlocker::Volume::open(&mut reader) else { return };
    let _ = (volume.state(), volume.is_suspended(), volume.copies_are_equal(), format!("{volume:?}"));
    let mapping = match volume.unlock(&KeyInput::Clear, &mut |_, _| {}) {
        Ok(unlocked) => {
            let _ = volume.recovery_passwords(&unlocked);
            unlocked.mapping
        }
        Err(_) => volume.mapping().clone(),
    };
    for at in [0, 1 << 13, 1 << 21, 1 << 30, u64::MAX - 512] {
        let _ = mapping.map(VolumeOffset(at), ByteLen(1 << 20)).take(1000).count();
    }
    let _ = mapping.hidden().count();
}

/// A volume by its non-zero sectors: for each its number (four bytes, little-endian) and 512 bytes. All other sectors
/// are zeros, up to [`VOLUME_LEN`].
pub struct Sectors(BTreeMap<u32, [u8; 512]>);

/// Length of a volume of [`Sectors`].
pub const VOLUME_LEN: u64 = 2 << 30;

impl std::fmt::Debug for Sectors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sectors({})", self.0.len())
    }
}

impl Sectors {
    /// From the form above.
    pub fn of(input: &[u8]) -> Self {
        let one = |piece: &[u8]| {
            let (number, bytes) = piece.split_first_chunk::<4>()?;
            Some((u32::from_le_bytes(*number), bytes.try_into().ok()?))
        };
        Self(input.chunks(516).filter_map(one).collect())
    }

    /// Inserts correct check bytes where a protected block seems to begin, so that random data passes them.
    fn mend(&mut self) {
        let starts: Vec<u32> =
            self.0.iter().filter(|(_, s)| matches!(&s[..4], b"FILE" | b"INDX")).map(|(number, _)| *number).collect();
        for start in starts {
            let head = self.0[&start];
            let at = usize::from(u16::from_le_bytes([head[4], head[5]]));
            let strides = u32::from(u16::from_le_bytes([head[6], head[7]])).saturating_sub(1).min(16);
            let Some(sequence) = head.get(at..at + 2).map(<[u8]>::to_vec) else { continue };
            for stride in 0..strides {
                if let Some(sector) = self.0.get_mut(&start.saturating_add(stride)) {
                    sector[510..].copy_from_slice(&sequence);
                }
            }
        }
    }
}

impl ReadAt for Sectors {
    fn read_at(&mut self, at: VolumeOffset, buf: &mut [u8]) -> Result<(), ReadError> {
        let end = at.0.checked_add(buf.len() as u64).filter(|end| *end <= VOLUME_LEN);
        let Some(end) = end else { return Err(ReadError { at, message: "past the end".into() }) };
        buf.fill(0);
        let range = (at.0 / 512) as u32..end.div_ceil(512) as u32;
        for (number, sector) in self.0.range(range) {
            overlay(sector, u64::from(*number) * 512, at.0, buf);
        }
        Ok(())
    }
}

/// Most files read, and most bytes of each.
const FILES_MAX: usize = 48;
const FILE_LEN: usize = 96 << 10;

/// The first byte selects whether check bytes are corrected. Then a volume in the form of [`Sectors`].
fn ntfs(input: &[u8]) {
    let Some((&kind, sectors)) = input.split_first() else { return };
    let mut reader = Sectors::of(sectors);
    if kind & 1 == 0 {
        reader.mend();
    }
    let Ok(volume) = Volume::open(&mut reader, ByteLen(VOLUME_LEN)) else { return };
    let Ok(catalog) = volume.catalog(&mut reader) else { return };
    let mut buffer = vec![0; FILE_LEN];
    for id in catalog.files().take(FILES_MAX) {
        let info = catalog.info(id);
        let _ = catalog.names(id).filter_map(|name| catalog.path(name)).count();
        let _ = (catalog.children(id).count(), catalog.streams(id).count(), catalog.first_byte(&volume, id));
        let _ = catalog.extents(&volume, id);
        if let Ok(stream) = catalog.open(&volume, &mut reader, id) {
            for at in [0, stream.size() / 2, stream.size().saturating_sub(777)] {
                let _ = volume.read_range(&mut reader, &stream, at, &mut buffer);
            }
        }
        let _ = volume.open_file(&mut reader, info.id.record);
    }
    let _ = catalog.lookup(&volume, "\\a\\b");
    let _ = volume.check(&mut reader);
}

/// The same correction for a single block.
fn mended(input: &[u8], magic: &[u8; 4], sizes: &[usize], feed: fn(&[u8])) {
    let Some((&kind, bytes)) = input.split_first() else { return };
    let mut block = bytes.to_vec();
    block.resize(sizes[usize::from(kind >> 1) % sizes.len()], 0);
    if kind & 1 == 0 {
        block[..4].copy_from_slice(magic);
        let at = usize::from(u16::from_le_bytes([block[4], block[5]]));
        if let Some(sequence) = block.get(at..at + 2).map(<[u8]>::to_vec) {
            block
                .chunks_mut(512)
                .filter(|part| part.len() == 512)
                .for_each(|part| part[510..].copy_from_slice(&sequence));
        }
    }
    feed(&block);
}

fn ntfs_record(input: &[u8]) {
    mended(input, b"FILE", &[1024, 4096], parts::record);
}

fn ntfs_index(input: &[u8]) {
    mended(input, b"INDX", &[4096, 512, 65536], parts::index);
}

/// Eight bytes each of lowest and highest VCN, then mapping pairs.
fn ntfs_runs(input: &[u8]) {
    let Some((lowest, rest)) = input.split_first_chunk::<8>() else { return };
    let Some((highest, pairs)) = rest.split_first_chunk::<8>() else { return };
    for clusters in [1 << 10, u64::from(u32::MAX)] {
        parts::runs(pairs, u64::from_le_bytes(*lowest), i64::from_le_bytes(*highest), clusters);
    }
}

fn lznt1(input: &[u8]) {
    for len in [65536, 4096, 1000] {
        parts::lznt1(input, &mut vec![0; len]);
    }
}

fn manifest_(input: &[u8]) {
    let mut reader = manifest::Reader::new(input);
    while let Ok(Some(event)) = reader.next_event() {
        let _ = format!("{event:?}");
    }
    let _ = (reader.faults().len(), reader.faults_in_all());
    let mut reader = manifest::Reader::new(input);
    while let Ok(Some(blob)) = reader.next_blob() {
        let _ = blob.check();
    }
}

/// Logs of the service, and the lists that go with a job.
fn logs(input: &[u8]) {
    let mut reader = copylog::Reader::new(input);
    while let Ok(Some(event)) = reader.next_event() {
        let _ = format!("{event:?}");
    }
    let path = Path::new("list.xml");
    if let Ok(list) = bloblist::read(path, input) {
        let _ = format!("{list:?}");
    }
    for kind in [properties::SideKind::Metadata, properties::SideKind::Properties] {
        let _ = properties::check(path, input, kind, true);
    }
}

fn csv(input: &[u8]) {
    let path = Path::new("file.csv");
    for problems in [
        dataset::parse(path, input).err(),
        driveset::parse(path, input).err(),
        bloblist::read_inventory(path, input).err(),
    ] {
        let _ = problems.as_ref().map(Problems::to_string);
    }
}

fn journal_(input: &[u8]) {
    let journal = journal::read(input);
    let _ = format!("{:?}", ledger::Ledger::new(&journal).last());
    let _ = drive_record::read(input);
}

fn keys(input: &[u8]) {
    let _ = KeyInput::parse(input).map_err(|error| error.to_string());
    let _ = Key::read(input).map_err(|problem| problem.to_string());
}
