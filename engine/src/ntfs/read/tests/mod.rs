use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use super::*;
use crate::units::{ByteLen, ByteOffset};

/// A volume inside an image file.
struct Image {
    file: File,
    start: u64,
    len: u64,
}

impl Image {
    fn whole(path: &Path) -> Self {
        let file = File::open(path).unwrap();
        let len = file.metadata().unwrap().len();
        Self { file, start: 0, len }
    }

    /// The first partition of an MBR image with 512-byte sectors.
    fn first_partition(path: &Path) -> Self {
        let file = File::open(path).unwrap();
        let mut table = [0; 512];
        file.read_exact_at(&mut table, 0).unwrap();
        let number = |at: usize| u64::from(u32::from_le_bytes(table[at..at + 4].try_into().unwrap())) * 512;
        Self { start: number(446 + 8), len: number(446 + 12), file }
    }
}

impl ReadAt for Image {
    fn read_at(&mut self, at: ByteOffset, buf: &mut [u8]) -> Result<(), ReadError> {
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

/// SHA-256 of a stream put together from its extents, as a disk-order reader does.
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

/// Longest stream whose bytes are compared.
const HASHED_MAX: u64 = 200_000_000;

/// The checker must have nothing to say about a sound volume.
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
    assert!(report.index_entries > 10 && report.directories > 2);
}

/// Everything of a volume, in the judge's own format.
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
    let output = Command::new("python3")
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

/// A fixture, unpacked; `None` if it is not there.
fn fixture(name: &str, dir: &Path) -> Option<PathBuf> {
    let packed = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/fixtures/ntfs")).join(name);
    if !packed.exists() {
        eprintln!("SKIPPED judge: no fixture {name}");
        return None;
    }
    let target = dir.join("image.raw");
    let status = if name.ends_with(".tar.gz") {
        Command::new("tar").arg("xzSOf").arg(&packed).stdout(Stdio::piped()).spawn()
    } else {
        Command::new("zcat").arg(&packed).stdout(Stdio::piped()).spawn()
    };
    let mut child = status.unwrap();
    let mut from = child.stdout.take().unwrap();
    // Zeros stay holes: the volumes are up to 64 GiB long.
    let file = File::create(&target).unwrap();
    let (mut buf, mut at) = (vec![0; 1 << 20], 0u64);
    loop {
        let mut got = 0;
        while got < buf.len() {
            match io::Read::read(&mut from, &mut buf[got..]).unwrap() {
                0 => break,
                more => got += more,
            }
        }
        if got == 0 {
            break;
        }
        if buf[..got].iter().any(|byte| *byte != 0) {
            file.write_all_at(&buf[..got], at).unwrap();
        }
        at += got as u64;
    }
    file.set_len(at).unwrap();
    assert!(child.wait().unwrap().success());
    Some(target)
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
    let name = "ntfs-64g-sparse.tar.gz";
    let dir = scratch(name);
    let packed = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/fixtures/ntfs")).join(name);
    if packed.exists() {
        // tar keeps the holes by itself; 64 GiB through a pipe would take minutes.
        assert!(Command::new("tar").arg("xzSf").arg(&packed).arg("-C").arg(&dir).status().unwrap().success());
        let path = dir.join("ntfs.raw");
        let mut image = Image::first_partition(&path);
        let len = ByteLen(image.len);
        let volume = Volume::open(&mut image, len).unwrap();
        assert_sound(&volume, &mut image);
        let ours = listing(&volume, &mut image);
        if let Some(theirs) = dissect_listing(&path, &image) {
            assert_same_lines(&ours, &theirs);
        }
    } else {
        eprintln!("SKIPPED judge: no fixture {name}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}

/// A volume made by mkntfs and filled through ntfs-3g; `None`, loudly, where that is not possible.
fn made_volume(
    dir: &Path,
    mib: u64,
    sector: u32,
    cluster: u32,
    scale: u32,
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
    let output = Command::new("python3")
        .args(["-c", include_str!("populate.py")])
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
    if let Some((path, files)) = made_volume(&dir, mib, sector, cluster, scale) {
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
            let told = catalog.names(id).map(|name| display_name(&catalog.path(name).unwrap()));
            assert!(told.into_iter().any(|path| path == format!("\\{}", text.replace('/', "\\"))));
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
