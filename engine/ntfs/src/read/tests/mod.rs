mod directories;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::raw::types;
use super::*;
use crate::units::{ByteLen, VolumeOffset};
use dray_base::entropy::Seeded;

/// A volume inside an image file.
pub(crate) struct Image {
    pub(crate) file: File,
    pub(crate) start: u64,
    pub(crate) len: u64,
}

impl Image {
    fn whole(path: &Path) -> Self {
        let file = File::open(path).unwrap();
        let len = file.metadata().unwrap().len();
        Self { file, start: 0, len }
    }

    /// The first partition of an MBR image with 512-byte sectors.
    /// Of a disk with an MBR; of a bare volume, all of it.
    pub(crate) fn first_partition(path: &Path) -> Self {
        let file = File::open(path).unwrap();
        let mut table = [0; 512];
        file.read_exact_at(&mut table, 0).unwrap();
        let number = |at: usize| u64::from(u32::from_le_bytes(table[at..at + 4].try_into().unwrap())) * 512;
        if &table[3..11] == b"NTFS    " {
            let len = file.metadata().unwrap().len();
            return Self { start: 0, len, file };
        }
        Self { start: number(446 + 8), len: number(446 + 12), file }
    }
}

impl ReadAt for Image {
    fn read_at(&mut self, at: VolumeOffset, buf: &mut [u8]) -> Result<(), ReadError> {
        if at.0.checked_add(buf.len() as u64).is_none_or(|end| end > self.len) {
            return Err(ReadError { at, message: "past the end".to_owned() });
        }
        let read = self.file.read_exact_at(buf, self.start + at.0);
        read.map_err(|error: io::Error| ReadError { at, message: error.to_string() })
    }
}

fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("dray-ntfs-read-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hex_units(units: &[u16]) -> String {
    hex(&units.iter().flat_map(|unit| unit.to_le_bytes()).collect::<Vec<_>>())
}

/// SHA-256 of a stream, read in odd pieces.
fn digest(volume: &Volume, image: &mut Image, stream: &Stream) -> String {
    let mut hash = Sha256::new();
    let mut buf = vec![0; 1_000_001];
    let mut at = 0;
    while at < stream.size() {
        let got = volume.read_range(image, stream, at, &mut buf).unwrap_or_else(|error| panic!("{error}"));
        assert!(got > 0);
        hash.update(&buf[..got]);
        at += got as u64;
    }
    hex(&hash.finalize())
}

/// SHA-256 of a stream assembled from its extents, as a disk-order reader does.
fn digest_by_extents(volume: &Volume, image: &mut Image, stream: &Stream, runs: &[DataRun]) -> String {
    let mut hash = Sha256::new();
    let mut at = 0;
    for run in runs {
        assert_eq!(run.offset, at, "extents leave a gap");
        let mut buf = vec![0; run.len as usize];
        match run.place {
            RunPlace::Hole => {}
            RunPlace::Lcn(lcn) => image.read_at(volume.geometry().cluster.offset_of(lcn), &mut buf).unwrap(),
            RunPlace::Resident { .. } | RunPlace::Compressed { .. } => {
                volume.read_range(image, stream, run.offset, &mut buf).unwrap();
            }
        }
        hash.update(&buf);
        at += run.len;
    }
    assert_eq!(at, stream.size());
    hex(&hash.finalize())
}

/// Longest stream with compared bytes.
const HASHED_MAX: u64 = 200_000_000;

/// The checker must report nothing on a sound volume.
fn assert_sound(volume: &Volume, image: &mut Image) {
    let report = volume.check(image);
    for finding in report.findings.iter().take(30) {
        eprintln!("{finding}");
    }
    eprintln!(
        "checked {} files, {} directories, {} index entries, {} clusters in use",
        report.files, report.directories, report.index_entries, report.clusters_used
    );
    assert!(report.is_sound(), "{} findings", report.total);
    assert!(report.index_entries > 10 && report.directories >= 2);
}

/// Everything on a volume, in the judge's own format.
fn listing(volume: &Volume, image: &mut Image) -> Vec<String> {
    let catalog = volume.catalog(image).unwrap();
    assert_eq!(catalog.problems(), [], "{:?}", volume.facts());
    let mut lines = Vec::new();
    for id in catalog.files() {
        let record = catalog.info(id).id.record;
        for name in catalog.names(id) {
            lines.push(format!("N\t{record}\t{}", hex_units(catalog.name(name))));
        }
        let file = volume.open_file(image, record).unwrap();
        let mut named = catalog.streams(id).map(|(name, _)| hex_units(name)).collect::<Vec<_>>();
        for stream in file.streams.iter().filter(|stream| stream.attribute() == 0x80) {
            let hash = if stream.size() > HASHED_MAX { "-".to_owned() } else { digest(volume, image, stream) };
            let name = hex_units(stream.name());
            if name.is_empty() {
                if stream.size() <= HASHED_MAX {
                    let runs = catalog.extents(volume, id).unwrap();
                    let opened = catalog.open(volume, image, id).unwrap();
                    assert_eq!(digest_by_extents(volume, image, &opened, &runs), hash, "record {record}");
                }
            } else {
                assert!(named.contains(&name));
                named.retain(|other| *other != name);
            }
            lines.push(format!("S\t{record}\t{name}\t{}\t{hash}", stream.size()));
        }
        assert!(named.is_empty());
    }
    lines.sort();
    lines
}

/// The same from dissect.ntfs; `None` if it is not installed.
fn dissect_listing(path: &Path, image: &Image) -> Option<Vec<String>> {
    let output = Command::new(dray_fixtures::judges::python())
        .args(["-c", include_str!("judge_dissect.py")])
        .arg(path)
        .args([image.start, image.len, HASHED_MAX].map(|number| number.to_string()))
        .stderr(Stdio::piped())
        .output();
    let output = match output {
        Ok(output) if output.status.success() => output,
        Ok(output) => {
            eprintln!("SKIPPED judge: dissect.ntfs: {}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        Err(error) => {
            eprintln!("SKIPPED judge: python3: {error}");
            return None;
        }
    };
    let mut lines: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    Some(lines)
}

fn assert_same_lines(ours: &[String], theirs: &[String]) {
    let missing: Vec<_> = theirs.iter().filter(|line| ours.binary_search(line).is_err()).take(20).collect();
    let surplus: Vec<_> = ours.iter().filter(|line| theirs.binary_search(line).is_err()).take(20).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "judge only: {missing:#?}\nours only: {surplus:#?}");
    assert_eq!(ours.len(), theirs.len());
}

/// A fixture, unpacked; `None` if it is missing.
pub(crate) fn fixture(name: &str, dir: &Path) -> Option<PathBuf> {
    if name.ends_with(".tar.gz") {
        // tar keeps the holes by itself; 64 GiB through a pipe would take minutes.
        let packed = dray_fixtures::file(&format!("ntfs/{name}"))?;
        assert!(Command::new("tar").arg("xzSf").arg(&packed).arg("-C").arg(dir).status().unwrap().success());
        return Some(dir.join("ntfs.raw"));
    }
    let target = dir.join("image.raw");
    let name = format!("ntfs/{}", name.strip_suffix(".gz").unwrap_or(name));
    dray_fixtures::unpack(&name, &target).then_some(target)
}

#[test]
fn judge_a_volume_of_windows_with_compressed_files() {
    judge_fixture("dissect-ntfs.img", 4096);
}

/// A volume of Windows 11 with OneDrive: files kept offline have a cloud reparse point and local contents; one is
/// online only. The image was taken while the volume was mounted, and without its last sector.
#[test]
fn judge_a_cloud_file_is_read_where_its_contents_are() {
    let dir = scratch("cloud");
    if let Some(path) = fixture("dissect-ntfs-cloud.img", &dir) {
        let mut image = Image::first_partition(&path);
        let len = ByteLen(image.len);
        let volume = Volume::open(&mut image, len).unwrap();
        let catalog = volume.catalog(&mut image).unwrap();
        let mut contents = |name: &str| {
            let id = catalog.lookup(&volume, &format!("\\OneDrive\\{name}")).unwrap();
            let stream = catalog.open(&volume, &mut image, id)?;
            let mut bytes = vec![0; stream.size() as usize];
            volume.read_range(&mut image, &stream, 0, &mut bytes).map(|_| bytes)
        };
        assert_eq!(contents("example.txt").unwrap(), b"This is an example file in the OneDrive folder!\r\n");
        for name in ["created-from-desktop-while-online.txt", "always-keep-on-device.txt"] {
            let bytes = contents(name).unwrap();
            assert!(!bytes.is_empty() && bytes.iter().all(|byte| byte.is_ascii() && *byte != 0), "{name}: {bytes:?}");
        }
        let refused = contents("created-online.txt").unwrap_err().to_string();
        assert!(refused.contains("contents are elsewhere"), "{refused}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}

fn judge_fixture(name: &str, cluster: u64) {
    let dir = scratch(name);
    if let Some(path) = fixture(name, &dir) {
        let mut image = Image::first_partition(&path);
        let len = ByteLen(image.len);
        let volume = Volume::open(&mut image, len).unwrap();
        assert_eq!(volume.geometry().cluster.bytes(), cluster);
        assert_eq!(volume.facts().version, (3, 1));
        assert_eq!(volume.facts().backup_boot, BackupBoot::Equal);
        assert_eq!(volume.facts().damage, []);
        assert!(!volume.facts().hibernated);
        eprintln!("{name}: {:?} {:?}", volume.geometry(), volume.facts());
        assert_sound(&volume, &mut image);
        let ours = listing(&volume, &mut image);
        if let Some(theirs) = dissect_listing(&path, &image) {
            assert_same_lines(&ours, &theirs);
            eprintln!("{name}: {} lines agree with dissect.ntfs", ours.len());
        }
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn judge_dissect_agrees_on_windows_volume_of_2_mib_clusters() {
    judge_fixture("ntfs-2m.raw.gz", 2 << 20);
}

#[test]
fn judge_dissect_agrees_on_compressed_windows_volume() {
    judge_fixture("ntfs-ramslack.raw.gz", 4096);
}

#[test]
fn judge_dissect_agrees_on_windows_volume_with_journal() {
    judge_fixture("ntfs-64g-sparse.tar.gz", 4096);
}

/// A volume made by mkntfs and filled through ntfs-3g; `None`, with a message, where that is not possible.
fn made_volume(
    dir: &Path,
    mib: u64,
    sector: u32,
    cluster: u32,
    scale: u32,
    script: &str,
) -> Option<(PathBuf, BTreeMap<String, String>)> {
    let (path, mount) = (dir.join("made.raw"), dir.join("mnt"));
    File::create(&path).unwrap().set_len(mib << 20).unwrap();
    std::fs::create_dir_all(&mount).unwrap();
    let made = Command::new("mkntfs")
        .args(["-F", "-Q", "-q", "-L", "made", "-s", &sector.to_string(), "-c", &cluster.to_string()])
        .args(["-p", "0", "-H", "0", "-S", "0"])
        .arg(&path)
        .output();
    if !made.as_ref().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED judge: mkntfs: {made:?}");
        return None;
    }
    let mounted =
        Command::new("ntfs-3g").args(["-o", "compression,streams_interface=xattr"]).arg(&path).arg(&mount).output();
    if !mounted.as_ref().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED judge: ntfs-3g: {mounted:?}");
        return None;
    }
    let output = Command::new(dray_fixtures::judges::python())
        .args(["-c", script])
        .arg(&mount)
        .arg(scale.to_string())
        .output()
        .unwrap();
    assert!(Command::new("umount").arg(&mount).status().unwrap().success());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut files = BTreeMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let mut fields = line.split('\t').skip(1);
        files.insert(fields.next().unwrap().to_owned(), fields.next().unwrap().to_owned());
    }
    Some((path, files))
}

fn judge_made(mib: u64, sector: u32, cluster: u32, scale: u32) {
    let dir = scratch(&format!("made-{sector}-{cluster}"));
    if let Some((path, files)) = made_volume(&dir, mib, sector, cluster, scale, include_str!("populate.py")) {
        let mut image = Image::whole(&path);
        let len = ByteLen(image.len);
        let volume = Volume::open(&mut image, len).unwrap();
        assert_eq!(volume.geometry().cluster.bytes(), u64::from(cluster));
        assert_eq!(volume.facts().damage, []);
        assert_eq!(display_name(&volume.facts().label), "made");
        assert_eq!(volume.facts().backup_boot, BackupBoot::Equal);
        let catalog = volume.catalog(&mut image).unwrap();
        assert_eq!(catalog.problems(), []);
        let (mut compressed, mut fragments, mut joined) = (0, 0, 0);
        for (path, hash) in &files {
            let units: Vec<u16> = (0..path.len() / 4)
                .map(|i| {
                    let byte = |at: usize| u8::from_str_radix(&path[at..at + 2], 16).unwrap();
                    u16::from_le_bytes([byte(i * 4), byte(i * 4 + 2)])
                })
                .collect();
            let text = String::from_utf16(&units).unwrap();
            let id = catalog.lookup(&volume, &text).unwrap_or_else(|| panic!("{text} not found"));
            assert_eq!(catalog.lookup(&volume, &text.to_ascii_uppercase()), Some(id));
            let stream = catalog.open(&volume, &mut image, id).unwrap();
            assert_eq!(digest(&volume, &mut image, &stream), *hash, "{text}");
            let reported = catalog.names(id).map(|name| display_name(&catalog.path(name).unwrap()));
            assert!(reported.into_iter().any(|path| path == format!("\\{}", text.replace('/', "\\"))));
            compressed += u32::from(stream.is_compressed() && !stream.is_resident());
            fragments = fragments.max(catalog.extents(&volume, id).unwrap().len());
            joined +=
                u32::from(!volume.open_file(&mut image, catalog.info(id).id.record).unwrap().extensions.is_empty());
        }
        eprintln!(
            "{sector}/{cluster}: {} files, {compressed} compressed, at most {fragments} pieces, {joined} with extension \
             records, {} bytes of memory a file",
            files.len(),
            catalog.memory_bytes() / catalog.len()
        );
        assert!(files.len() as u32 > scale && joined > 0);
        if cluster <= 65536 {
            assert!(fragments > 100);
        }
        if cluster <= 4096 {
            assert!(compressed >= 3);
        }
        assert_sound(&volume, &mut image);
        let ours = listing(&volume, &mut image);
        if let Some(theirs) = dissect_listing(&path, &image) {
            assert_same_lines(&ours, &theirs);
        }
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn judge_ntfs_3g_and_dissect_agree_at_4_kib_clusters() {
    judge_made(256, 512, 4096, 3000);
}

#[test]
fn judge_ntfs_3g_and_dissect_agree_at_512_byte_clusters() {
    judge_made(256, 512, 512, 300);
}

#[test]
fn judge_ntfs_3g_and_dissect_agree_on_4096_byte_sectors() {
    judge_made(256, 4096, 4096, 300);
}

#[test]
fn judge_ntfs_3g_and_dissect_agree_at_64_kib_clusters() {
    judge_made(512, 512, 65536, 300);
}

#[test]
fn judge_ntfs_3g_and_dissect_agree_at_2_mib_clusters() {
    judge_made(4096, 512, 2 << 20, 100);
}

/// A small volume with every structure in it, in memory; `None`, with a message, where it cannot be made.
fn small_volume(name: &str) -> Option<Vec<u8>> {
    let dir = scratch(name);
    let made = made_volume(&dir, 12, 512, 512, 0, include_str!("populate_small.py"));
    let bytes = made.map(|(path, _)| std::fs::read(path).unwrap());
    std::fs::remove_dir_all(dir).unwrap();
    bytes
}

fn open(bytes: &[u8]) -> Result<Volume, NtfsError> {
    Volume::open(&mut &bytes[..], ByteLen(bytes.len() as u64))
}

/// Edits a record without its fixups, and protects it again.
fn edit_record(bytes: &mut [u8], number: u64, edit: impl FnOnce(&mut [u8])) {
    let volume = open(bytes).unwrap();
    let at = volume.record_at(number).unwrap().0 as usize;
    edit_protected(&mut bytes[at..at + volume.geometry().record_bytes as usize], *b"FILE", edit);
}

fn edit_protected(block: &mut [u8], magic: [u8; 4], edit: impl FnOnce(&mut [u8])) {
    raw::undo_fixups(block, magic, 0x28).unwrap();
    edit(block);
    let array = usize::from(u16::from_le_bytes([block[4], block[5]]));
    for stride in 1..=block.len() / 512 {
        block.copy_within(stride * 512 - 2..stride * 512, array + stride * 2);
        block.copy_within(array..array + 2, stride * 512 - 2);
    }
}

/// Byte ranges of the volume that hold metadata, with a number for their kind.
fn metadata(volume: &Volume, mut reader: &[u8]) -> Vec<(u32, std::ops::Range<u64>)> {
    let mut ranges = vec![(0, 0..512)];
    let mut add = |kind: u32, stream: &Stream| {
        for run in volume.extents(stream).unwrap() {
            if let RunPlace::Lcn(lcn) | RunPlace::Compressed { first: lcn, .. } = run.place {
                let start = volume.geometry().cluster.offset_of(lcn).0;
                ranges.push((kind, start..start + run.len));
            }
        }
    };
    add(2, volume.mft());
    let catalog = volume.catalog(&mut reader).unwrap();
    for id in catalog.files() {
        let file = volume.open_file(&mut reader, catalog.info(id).id.record).unwrap();
        for stream in &file.streams {
            let wanted = matches!(stream.attribute(), types::INDEX_ALLOCATION | types::BITMAP | types::ATTRIBUTE_LIST);
            if wanted || stream.is_compressed() || matches!(file.id.record, 6 | 9) {
                add(stream.attribute() + u32::from(stream.is_compressed()), stream);
            }
        }
    }
    ranges
}

/// Calls every function of the reader on a volume that may be damaged.
fn exercise(bytes: &[u8]) -> bool {
    let mut reader = bytes;
    let Ok(volume) = open(bytes) else { return false };
    let Ok(catalog) = volume.catalog(&mut reader) else { return false };
    let mut buf = vec![0; 70_000];
    for id in catalog.files() {
        let _ = catalog.extents(&volume, id);
        let _ = catalog.is_metafile(id);
        for name in catalog.names(id) {
            let _ = catalog.path(name);
        }
        let _ = catalog.streams(id).count();
        if let Ok(stream) = catalog.open(&volume, &mut reader, id) {
            for at in [0, 65_536, stream.size() / 2, stream.size().saturating_sub(10_000)] {
                let _ = volume.read_range(&mut reader, &stream, at, &mut buf);
            }
        }
    }
    let _ = catalog.lookup(&volume, "\\directory\\FILE number 0077.txt");
    let report = volume.check(&mut reader);
    assert!(report.findings.len() <= 10_000);
    true
}

#[test]
fn hostile_flips_in_metadata_never_panic_or_hang() {
    let Some(mut bytes) = small_volume("hostile") else { return };
    let volume = open(&bytes).unwrap();
    let mut reader = &bytes[..];
    assert!(volume.check(&mut reader).is_sound());
    // Each kind of metadata is hit as often as the others, however large; zeros, mostly slack, are spared.
    let mut kinds: std::collections::BTreeMap<u32, Vec<u64>> = std::collections::BTreeMap::new();
    for (kind, range) in metadata(&volume, &bytes) {
        kinds.entry(kind).or_default().extend(range.filter(|at| bytes[*at as usize] != 0));
    }
    // The first records, without which nothing opens.
    let first = volume.record_at(0).unwrap().0;
    kinds.insert(1, (first..first + 11 * 1024).filter(|at| bytes[*at as usize] != 0).collect());
    let kinds: Vec<Vec<u64>> = kinds.into_values().collect();
    let mut seed = Seeded::new(2);
    let started = Instant::now();
    let rounds: u32 = std::env::var("DRAY_HOSTILE_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(500);
    let (mut opened, mut slowest) = (0, Duration::ZERO);
    for round in 0..rounds {
        let mut undo = Vec::new();
        for _ in 0..1 + seed.next_u64() % 8 {
            let places = &kinds[(seed.next_u64() % kinds.len() as u64) as usize];
            let at = places[(seed.next_u64() % places.len() as u64) as usize] as usize;
            let width = 1 << (seed.next_u64() % 4);
            let value = match seed.next_u64() % 6 {
                0 => 0,
                1 => u64::MAX,
                2 => i64::MAX as u64,
                3 => 1 << (seed.next_u64() % 64),
                _ => seed.next_u64(),
            };
            for (at, byte) in (at..bytes.len()).zip(value.to_le_bytes()).take(width) {
                undo.push((at, bytes[at]));
                bytes[at] = byte;
            }
        }
        let before = Instant::now();
        opened += u32::from(exercise(&bytes));
        let took = before.elapsed();
        slowest = slowest.max(took);
        assert!(took < Duration::from_secs(10), "round {round} took {took:?}");
        for (at, byte) in undo.into_iter().rev() {
            bytes[at] = byte;
        }
    }
    eprintln!("{rounds} rounds, {opened} volumes opened, slowest {slowest:?}, all {:?}", started.elapsed());
    assert!(opened > rounds / 2 && opened < rounds);
}

#[test]
fn hostile_cut_volumes_never_panic() {
    let Some(bytes) = small_volume("cut") else { return };
    let mut seed = Seeded::new(3);
    for _ in 0..40 {
        exercise(&bytes[..(seed.next_u64() % bytes.len() as u64) as usize]);
    }
    exercise(&[]);
}

/// Finds a file by path, for damaging it.
fn record_of(bytes: &[u8], path: &str) -> u64 {
    let volume = open(bytes).unwrap();
    let catalog = volume.catalog(&mut &bytes[..]).unwrap();
    catalog.info(catalog.lookup(&volume, path).unwrap()).id.record
}

fn attribute_at(record: &[u8], ty: u32) -> usize {
    let record = raw::Record::new(record).unwrap();
    record.attributes().find_map(|attribute| attribute.ok().filter(|found| found.ty == ty)).unwrap().at
}

#[test]
fn every_kind_of_damage_is_found_and_named() {
    let Some(sound) = small_volume("damage") else { return };
    let volume = open(&sound).unwrap();
    let mut reader = &sound[..];
    let stream_at = |record: u64, ty: u32| {
        let file = volume.open_file(&mut &sound[..], record).unwrap();
        let stream = file.streams.iter().find(|stream| stream.attribute() == ty).unwrap();
        let runs = volume.extents(stream).unwrap();
        let RunPlace::Lcn(lcn) = runs[0].place else { panic!("not in clusters") };
        volume.geometry().cluster.offset_of(lcn).0 as usize
    };
    let bitmap = stream_at(6, types::DATA);
    let mft_bitmap = stream_at(0, types::BITMAP);
    let mirror = stream_at(1, types::DATA);
    let directory = record_of(&sound, "directory");
    let blocks = stream_at(directory, types::INDEX_ALLOCATION);
    let victim = record_of(&sound, "directory/file number 0042.txt");
    let plain = record_of(&sound, "frag a");
    let linked = record_of(&sound, "plain.bin");
    let data = stream_at(plain, types::DATA);
    let cluster = data / 512;
    let list = volume.open_file(&mut reader, linked).unwrap().extensions;
    assert!(!list.is_empty(), "the file of many links has no extension record");
    let block =
        |bytes: &mut Vec<u8>, edit: fn(&mut [u8])| edit_protected(&mut bytes[blocks..blocks + 4096], *b"INDX", edit);
    let backup = sound.len() - 512;
    type Damage<'a> = (&'a str, Box<dyn Fn(&mut Vec<u8>) + 'a>);
    let cases: Vec<Damage<'_>> = vec![
        ("in use but free in $Bitmap", Box::new(|b| b[bitmap + cluster / 8] ^= 1 << (cluster % 8))),
        (
            "used in $Bitmap but by no stream",
            Box::new(|b| {
                let free = (0..20_000).find(|c| b[bitmap + c / 8] >> (c % 8) & 1 == 0).unwrap();
                b[bitmap + free / 8] |= 1 << (free % 8);
            }),
        ),
        ("record in use is free in the bitmap", Box::new(|b| b[mft_bitmap + victim as usize / 8] ^= 1 << (victim % 8))),
        ("mirror differs", Box::new(|b| b[mirror + 0x60] ^= 1)),
        ("no backup boot sector|backup boot sector differs", Box::new(|b| b[backup..].fill(0))),
        (
            "torn write",
            Box::new(|b| {
                let at = open(b).unwrap().record_at(victim).unwrap().0 as usize;
                b[at + 510] ^= 1;
            }),
        ),
        ("link count 7 for 1 names", Box::new(|b| edit_record(b, victim, |r| r[0x12] = 7))),
        ("record has the number of another one", Box::new(|b| edit_record(b, victim, |r| r[0x2C] ^= 1))),
        ("which has no such name", Box::new(|b| edit_record(b, victim, |r| r[0x10] ^= 2))),
        (
            "not in the index of directory",
            Box::new(|b| {
                edit_record(b, victim, |r| {
                    let at = attribute_at(r, types::FILE_NAME);
                    r[at + 0x18 + 66] = b'X';
                })
            }),
        ),
        (
            "wrong indexed flag",
            Box::new(|b| {
                edit_record(b, victim, |r| {
                    let at = attribute_at(r, types::FILE_NAME);
                    r[at + 0x16] = 0;
                })
            }),
        ),
        (
            "used twice",
            Box::new(|b| {
                edit_record(b, victim, |r| {
                    let (a, c) = (attribute_at(r, types::FILE_NAME), attribute_at(r, types::STANDARD_INFORMATION));
                    r[a + 0x0E] = r[c + 0x0E];
                })
            }),
        ),
        ("bytes used do not end", Box::new(|b| edit_record(b, victim, |r| r[0x18] += 8))),
        (
            "sizes contradict each other",
            Box::new(|b| {
                edit_record(b, plain, |r| {
                    let at = attribute_at(r, types::DATA);
                    r[at + 0x38 + 4] = 1;
                })
            }),
        ),
        (
            "bytes are mapped",
            Box::new(|b| {
                edit_record(b, plain, |r| {
                    let at = attribute_at(r, types::DATA);
                    r[at + 0x28 + 3] = 1;
                })
            }),
        ),
        (
            "run outside the volume|belongs to two streams",
            Box::new(|b| {
                edit_record(b, plain, |r| {
                    let at = attribute_at(r, types::DATA);
                    let pairs = at + usize::from(r[at + 0x20]);
                    let last = usize::from(r[pairs] & 15) + usize::from(r[pairs] >> 4);
                    r[pairs + last] = 0x7F;
                })
            }),
        ),
        (
            "security id 0x7f01 does not exist",
            Box::new(|b| {
                edit_record(b, 6, |r| {
                    let at = attribute_at(r, types::STANDARD_INFORMATION);
                    r[at + 0x18 + 0x34..][..4].copy_from_slice(&0x7F01u32.to_le_bytes());
                })
            }),
        ),
        ("stale reference to an extension record", Box::new(|b| edit_record(b, list[0], |r| r[0x10] ^= 4))),
        ("extension record of another file", Box::new(|b| edit_record(b, list[0], |r| r[0x20] ^= 1))),
        (
            "index entries out of order",
            Box::new(|b| {
                block(b, |i| {
                    let first = 0x18 + usize::from(i[0x18]);
                    i[first + 0x10 + 66] = b'z';
                })
            }),
        ),
        ("index block of another place", Box::new(|b| block(b, |i| i[0x10] ^= 8))),
        ("leaf flag of an index block", Box::new(|b| block(b, |i| i[0x24] ^= 1))),
        ("allocated size is wrong", Box::new(|b| block(b, |i| i[0x20] ^= 8))),
        ("not in the index of directory", Box::new(|b| block(b, |i| i[0x18 + usize::from(i[0x18])] ^= 1))),
        (
            "volume is marked dirty",
            Box::new(|b| {
                edit_record(b, 3, |r| {
                    let at = attribute_at(r, types::VOLUME_INFORMATION);
                    r[at + 0x18 + 10] |= 1;
                })
            }),
        ),
    ];
    for (number, (wanted, damage)) in cases.iter().enumerate() {
        let mut bytes = sound.clone();
        damage(&mut bytes);
        assert!(bytes != sound, "case {number} changed nothing");
        let report = open(&bytes).unwrap().check(&mut &bytes[..]);
        let texts: Vec<String> = report.findings.iter().map(Finding::to_string).collect();
        let found = texts.iter().any(|text| wanted.split('|').any(|wanted| text.contains(wanted)));
        assert!(found, "case {number}: no {wanted:?} in {texts:#?}");
        assert!(!report.is_sound());
    }
    eprintln!("{} kinds of damage named", cases.len());
}

#[test]
fn damaged_boot_sector_and_first_record_are_survived() {
    let Some(mut bytes) = small_volume("survive") else { return };
    let sound = open(&bytes).unwrap();
    let mft = sound.record_at(0).unwrap().0 as usize;
    let before = sound.catalog(&mut &bytes[..]).unwrap().len();
    bytes[..512].fill(0);
    bytes[mft..mft + 1024].fill(0xA5);
    let volume = open(&bytes).unwrap();
    assert_eq!(volume.facts().backup_boot, BackupBoot::InUse);
    assert!(volume.facts().mft_from_mirror);
    let catalog = volume.catalog(&mut &bytes[..]).unwrap();
    assert_eq!(catalog.len(), before - 1);
    let id = catalog.lookup(&volume, "/deep/ER/and/deeper/leaf.txt").unwrap();
    let stream = catalog.open(&volume, &mut &bytes[..], id).unwrap();
    assert_eq!(volume.read_whole(&mut &bytes[..], &stream, 100).unwrap(), b"leaf");
}

/// A device with one unreadable sector.
struct BadSector<'a> {
    bytes: &'a [u8],
    bad: u64,
}

impl ReadAt for BadSector<'_> {
    fn read_at(&mut self, at: VolumeOffset, buf: &mut [u8]) -> Result<(), ReadError> {
        if at.0 < self.bad + 512 && self.bad < at.0 + buf.len() as u64 {
            return Err(ReadError { at: VolumeOffset(self.bad), message: "medium error".to_owned() });
        }
        (&mut self.bytes).read_at(at, buf)
    }
}

#[test]
fn bad_sector_in_mft_costs_only_its_own_record() {
    let Some(bytes) = small_volume("sector") else { return };
    let volume = open(&bytes).unwrap();
    let before = volume.catalog(&mut &bytes[..]).unwrap();
    let victim = record_of(&bytes, "directory/file number 0042.txt");
    let mut reader = BadSector { bytes: &bytes, bad: volume.record_at(victim).unwrap().0 + 512 };
    let after = volume.catalog(&mut reader).unwrap();
    assert_eq!(after.len(), before.len() - 1);
    assert!(after.has_read_errors());
    assert!(after.by_record(victim).is_none());
    assert!(after.lookup(&volume, "directory/file number 0043.txt").is_some());
}

#[test]
fn judge_mft_in_pieces_is_found_through_its_attribute_list() {
    let dir = scratch("mft-pieces");
    if let Some((path, _)) = made_volume(&dir, 8, 512, 512, 0, include_str!("populate_full.py")) {
        let mut image = Image::whole(&path);
        let len = ByteLen(image.len);
        let volume = Volume::open(&mut image, len).unwrap();
        let pieces = volume.extents(volume.mft()).unwrap().len();
        assert!(!volume.open_file(&mut image, 0).unwrap().extensions.is_empty(), "{pieces} pieces, but no list");
        assert_sound(&volume, &mut image);
        let ours = listing(&volume, &mut image);
        eprintln!("$MFT in {pieces} pieces, {} lines", ours.len());
        if let Some(theirs) = dissect_listing(&path, &image) {
            assert_same_lines(&ours, &theirs);
        }
    }
    std::fs::remove_dir_all(dir).unwrap();
}

/// A short name can be used for opening a file under Windows.
#[test]
fn judge_short_names_lead_to_their_files() {
    const SCRIPT: &str = r#"
import os, sys
root = sys.argv[1]
os.mkdir(f'{root}/a long directory')
for name, short in [('a long directory', 'ALONGD~1'), ('a long directory/a long file.txt', 'ALONGF~1.TXT'),
                    ('another long file.txt', 'ANOTHE~1.TXT')]:
    if not os.path.isdir(f'{root}/{name}'): open(f'{root}/{name}', 'w').write(name)
    os.setxattr(f'{root}/{name}', 'system.ntfs_dos_name', short.encode())
open(f'{root}/a long directory/ANOTHE~1.TXT', 'w').write('its own name')
"#;
    let dir = scratch("short-names");
    if let Some((path, _)) = made_volume(&dir, 16, 512, 4096, 0, SCRIPT) {
        let mut image = Image::whole(&path);
        let len = ByteLen(image.len);
        let volume = Volume::open(&mut image, len).unwrap();
        let catalog = volume.catalog(&mut image).unwrap();
        assert_eq!(catalog.problems(), []);
        let find = |path: &str| {
            let name = catalog.reached_by(catalog.lookup(&volume, path)?)?;
            Some(display_name(&catalog.path(name)?))
        };
        let file = Some("\\a long directory\\a long file.txt".to_owned());
        for path in ["a long directory/a long file.txt", "ALONGD~1/ALONGF~1.TXT", "\\alongd~1\\A LONG file.txt"] {
            assert_eq!(find(path), file, "{path}");
        }
        assert_eq!(find("anothe~1.txt"), Some("\\another long file.txt".to_owned()));
        // A long name that looks like a short one is itself, and each directory has its own.
        assert_eq!(find("ALONGD~1/ANOTHE~1.TXT"), Some("\\a long directory\\ANOTHE~1.TXT".to_owned()));
        for path in ["ALONGF~1.TXT", "ALONGD~1/ALONGD~1", "ALONGD~2", "ANOTHE~1"] {
            assert_eq!(find(path), None, "{path}");
        }
        // They are no further names in lists.
        assert_eq!(
            catalog
                .children(catalog.root().unwrap())
                .filter(|name| !catalog.is_metafile(catalog.file_of(*name)))
                .count(),
            2
        );
    }
    std::fs::remove_dir_all(dir).unwrap();
}
