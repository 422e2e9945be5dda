//! Volumes of every origin, with files added and judged by other programs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{SeekFrom, seek};
use sha2::{Digest, Sha256};

use super::space::free_extents;
use super::*;
use crate::build::system::I30;
use crate::build::tests::{self as built, Mount, Paths, assemble, content, mixed, succeeds};
use crate::build::{Layout, LeftOut, Outcome, Times, Tree};
use crate::read::index::{Index, IndexStep, lookup, walk};
use crate::read::tests as fixtures;
use crate::read::{Catalog, ReadAt, ReadError, Volume};
use crate::units::{Extent, SectorSize, VolumeOffset};

/// A bare volume in a file; deleted on drop.
struct Disk {
    path: PathBuf,
    file: File,
    len: u64,
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl ReadAt for &Disk {
    fn read_at(&mut self, at: VolumeOffset, buf: &mut [u8]) -> Result<(), ReadError> {
        let read = self.file.read_exact_at(buf, at.0);
        read.map_err(|error| ReadError { at, message: error.to_string() })
    }
}

fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("dray-ntfs-append-{}-{name}", std::process::id()))
}

/// Copies everything except holes, which are most of a volume of 64 GiB.
fn copy_data(from: &File, start: u64, to: &File, len: u64) {
    let mut buf = vec![0; 1 << 20];
    let mut at = start;
    while let Ok(data) = seek(from, SeekFrom::Data(at))
        && data < start + len
    {
        let hole = seek(from, SeekFrom::Hole(data)).unwrap().min(start + len);
        at = data;
        while at < hole {
            let piece = &mut buf[..(hole - at).min(1 << 20) as usize];
            from.read_exact_at(piece, at).unwrap();
            to.write_all_at(piece, at - start).unwrap();
            at += piece.len() as u64;
        }
    }
}

impl Disk {
    fn open(path: PathBuf) -> Self {
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let len = file.metadata().unwrap().len();
        Self { path, file, len }
    }

    fn copy(&self, name: &str) -> Self {
        let path = scratch(name);
        succeeds(Command::new("cp").arg("--sparse=auto").arg(&self.path).arg(&path)).unwrap();
        Self::open(path)
    }

    fn volume(&self) -> Volume {
        Volume::open(&mut &*self, ByteLen(self.len)).unwrap()
    }

    /// A volume made by mkntfs; `None` where mkntfs is missing.
    fn mkntfs(name: &str, len: u64, args: &[&str]) -> Option<Self> {
        let path = scratch(name);
        File::create(&path).unwrap().set_len(len).unwrap();
        succeeds(Command::new("mkntfs").args(["-F", "-q", "-L", "judge"]).args(args).arg(&path))?;
        Some(Self::open(path))
    }

    /// The first partition of a fixture.
    fn fixture(name: &str) -> Option<Self> {
        // Several tests take the same one.
        static TAKEN: AtomicU32 = AtomicU32::new(0);
        let path = scratch(&format!("{}-{name}", TAKEN.fetch_add(1, Ordering::Relaxed)));
        let dir = path.with_extension("unpacked");
        fs::create_dir_all(&dir).unwrap();
        let image = fixtures::fixture(name, &dir).map(|whole| fixtures::Image::first_partition(&whole));
        let disk = image.map(|image| {
            let file = File::create(&path).unwrap();
            file.set_len(image.len).unwrap();
            copy_data(&image.file, image.start, &file, image.len);
            Self::open(path)
        });
        fs::remove_dir_all(&dir).unwrap();
        disk
    }

    /// Fills it through ntfs-3g.
    fn fill(self, with: impl FnOnce(&Path)) -> Option<Self> {
        let mount = Mount::at(&self.path, "rw,streams_interface=none")?;
        with(&mount.0);
        drop(mount);
        Some(self)
    }

    /// SHA-256 of every stream of data by record and name, metafiles left out.
    fn streams(&self) -> BTreeMap<(u64, String), (u64, String)> {
        let volume = self.volume();
        let catalog: Catalog = volume.catalog(&mut &*self).unwrap();
        let mut all = BTreeMap::new();
        for id in catalog.files().filter(|&id| !catalog.is_metafile(id)) {
            let record = catalog.info(id).id.record;
            let file = volume.open_file(&mut &*self, record).unwrap();
            let name = catalog.names(id).next().and_then(|name| catalog.path(name)).unwrap_or_default();
            for stream in file.streams.iter().filter(|stream| stream.attribute() == 0x80 && !stream.is_encrypted()) {
                let mut hash = Sha256::new();
                let mut buf = vec![0; 1 << 20];
                let mut at = 0;
                while at < stream.size().min(64 << 20) {
                    let got = volume.read_range(&mut &*self, stream, at, &mut buf).unwrap();
                    hash.update(&buf[..got]);
                    at += got as u64;
                }
                let digest = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
                let key = format!("{}:{}", String::from_utf16_lossy(&name), String::from_utf16_lossy(stream.name()));
                all.insert((record, key), (stream.size(), digest));
            }
        }
        all
    }

    fn free(&self) -> Vec<Extent> {
        let volume = self.volume();
        let bitmap = volume.open_file(&mut &*self, 6).unwrap();
        free_extents(&volume, &mut &*self, bitmap.data(&[]).unwrap(), &[]).unwrap()
    }
}

fn spec(len_max: u64) -> AppendSpec {
    AppendSpec {
        avoid: Vec::new(),
        unit: 512,
        root_files: vec![RootFile {
            name: "DriveManifest.xml".into(),
            len_max: ByteLen(len_max),
            times: Times::all(FileTime::from_unix(1_767_400_000, 500)),
        }],
        hidden: None,
        now: FileTime::from_unix(1_767_400_000, 0),
    }
}

fn outcome(left_out: Vec<u32>, len: u64) -> Outcome {
    Outcome { left_out: LeftOut::new(left_out), root_file_lens: vec![ByteLen(len)] }
}

/// Writes with the earlier contents of their places.
type Log = Vec<(WriteStep, u64, Vec<u8>, Vec<u8>)>;

fn write_data(disk: &Disk, append: &Append, tree: &Paths, outcome: &Outcome, log: &mut Log) {
    let cluster = append.volume().geometry().cluster;
    let mut write = |extents: Vec<Extent>, bytes: Vec<u8>| {
        let mut rest = &bytes[..];
        for extent in extents {
            let len = cluster.len_of(extent.len).0.min(rest.len() as u64) as usize;
            let mut padded = rest[..len].to_vec();
            padded.resize(len.next_multiple_of(cluster.bytes() as usize), 0);
            log.push((WriteStep::Fresh, cluster.offset_of(extent.lcn).0, Vec::new(), padded));
            rest = &rest[len..];
        }
        assert!(rest.is_empty(), "content longer than its clusters");
    };
    for i in (0..tree.files()).filter(|&i| !outcome.left_out.contains(i)) {
        let extents = append.data_space().extents(append.file_place(i)).collect();
        write(extents, content(&tree.file_path(i), tree.file(i).len.0));
    }
    let len = outcome.root_file_lens[0].0;
    write(append.root_file_extents(0, len).collect(), content("DriveManifest.xml", len));
    for (_, at, _, after) in log {
        disk.file.write_all_at(after, *at).unwrap();
    }
}

/// Adds a tree; returns the writes, in order.
fn add(disk: &Disk, tree: &Paths, left_out: Vec<u32>, manifest: u64) -> Result<(Append, Log), Refusal> {
    let append = Append::plan(disk.volume(), &mut &*disk, spec(manifest + 1000), tree)?;
    let outcome = outcome(left_out, manifest);
    let mut log = Log::new();
    write_data(disk, &append, tree, &outcome, &mut log);
    let mut step_before = WriteStep::Fresh;
    let mut later = Log::new();
    append.metadata(&mut &*disk, tree, &outcome, &mut |step, at, bytes: &[u8]| {
        assert!(step >= step_before, "{step:?} behind {step_before:?}");
        step_before = step;
        let mut before = vec![0; bytes.len()];
        disk.file.read_exact_at(&mut before, at.0).unwrap();
        later.push((step, at.0, before, bytes.to_vec()));
        Ok::<(), Refusal>(())
    })?;
    for (_, at, _, after) in &later {
        disk.file.write_all_at(after, *at).unwrap();
    }
    log.extend(later);
    Ok((append, log))
}

/// Checks that all bytes that were ever written are the same in both, except in clusters that were free in the first.
fn assert_same_but_free(before: &Disk, after: &Disk, log: &Log, what: &str) {
    let cluster = before.volume().geometry().cluster.bytes();
    let free = before.free();
    let is_free =
        |at: u64| free.iter().any(|extent| (extent.lcn.0..extent.lcn.0 + extent.len.0).contains(&(at / cluster)));
    for (step, at, _, bytes) in log {
        let (mut a, mut b) = (vec![0; bytes.len()], vec![0; bytes.len()]);
        before.file.read_exact_at(&mut a, *at).unwrap();
        after.file.read_exact_at(&mut b, *at).unwrap();
        let differs = (0..bytes.len()).find(|&i| a[i] != b[i] && !is_free(at + i as u64));
        assert_eq!(differs, None, "{what}: {step:?} at {at}");
    }
}

/// Findings of dissect.ntfs and judge.py; `None` where they are not installed.
fn dissect_problems(disk: &Disk) -> Option<Vec<String>> {
    if !Command::new("python3").args(["-c", "import dissect.ntfs"]).output().is_ok_and(|out| out.status.success()) {
        eprintln!("SKIPPED judge: dissect.ntfs");
        return None;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/build/judge.py");
    let out = Command::new("python3").arg(script).arg(&disk.path).args(["--used", "--all"]).output().unwrap();
    let found: serde_json::Value = serde_json::from_slice(&out.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&out.stderr)));
    Some(found["problems"].as_array().unwrap().iter().map(|what| what.as_str().unwrap().to_owned()).collect())
}

/// Findings of all judges on a volume, compared with those on `before`.
fn judge(before: &Disk, disk: &Disk, files_min: usize) {
    let report = disk.volume().check(&mut &*disk);
    for finding in report.findings.iter().take(10) {
        eprintln!("{finding}");
    }
    assert!(report.is_sound(), "{} findings", report.total);
    if let Some(text) = succeeds(Command::new("ntfsfix").arg("-n").arg(&disk.path)) {
        assert!(text.contains("processed successfully"), "{text}");
        assert!(!text.contains("FAILED") && !text.contains("differ"), "{text}");
    }
    if let (Some(old), Some(new)) = (dissect_problems(before), dissect_problems(disk)) {
        let new: Vec<_> = new.into_iter().filter(|problem| !old.contains(problem)).collect();
        assert!(new.is_empty(), "dissect.ntfs: {new:?}");
    }
    // On volumes made by Windows checkdisk takes the bytes after the last entry of `$SDS` for one.
    if files_min < 10_000 && !disk.path.to_string_lossy().contains(".gz") {
        built::judge_checkers(&disk.path);
    }
    let cluster = disk.volume().geometry().cluster.bytes();
    if cluster <= 65536 && files_min < 10_000 {
        succeeds(Command::new("fsstat").args(["-f", "ntfs"]).arg(&disk.path));
        if let Some(text) = succeeds(Command::new("fls").args(["-f", "ntfs", "-r", "-p", "-u"]).arg(&disk.path)) {
            let files = text.lines().filter(|line| line.starts_with("r/r")).count();
            assert!(files >= files_min, "fls lists {files}, not {files_min} files");
        }
    }
}

fn judge_mount(disk: &Disk, tree: &Paths, left_out: &[u32], manifest: u64) {
    let Some(mount) = Mount::at(&disk.path, "ro,streams_interface=none") else { return };
    for i in 0..tree.files() {
        let path = tree.file_path(i);
        let there = fs::read(mount.0.join(&path));
        if left_out.contains(&i) {
            assert!(there.is_err(), "{path} was left out");
            continue;
        }
        assert!(
            there.unwrap_or_else(|error| panic!("{path}: {error}")) == content(&path, tree.file(i).len.0),
            "{path}"
        );
    }
    assert!(fs::read(mount.0.join("DriveManifest.xml")).unwrap() == content("DriveManifest.xml", manifest));
}

/// Adds a tree to a volume, has it judged, and undoes the addition.
fn judged(disk: &Disk, tree: &Paths, left_out: Vec<u32>, manifest: u64) {
    // Tests run side by side: every copy has its own name.
    let named = |what: &str| format!("{}.{what}", disk.path.file_name().unwrap().to_string_lossy());
    let before = disk.copy(&named("before"));
    let old = before.streams();
    let (append, log) = add(disk, tree, left_out.clone(), manifest).unwrap_or_else(|refusal| panic!("{refusal}"));
    // Fresh bytes go only where nothing was.
    let free = before.free();
    let cluster = append.volume().geometry().cluster.bytes();
    for (_, at, _, bytes) in log.iter().filter(|(step, ..)| *step == WriteStep::Fresh) {
        let (first, end) = (at / cluster, (at + bytes.len() as u64).div_ceil(cluster));
        let fits = free.iter().any(|extent| extent.lcn.0 <= first && end <= extent.lcn.0 + extent.len.0);
        assert!(fits, "clusters {first}..{end} were not free");
    }
    judge(&before, disk, tree.files() as usize - left_out.len());
    judge_mount(disk, tree, &left_out, manifest);
    let now = disk.streams();
    for (key, stream) in &old {
        // `$Secure` may gain entries: `check` has compared its parts.
        if !key.1.ends_with("DriveManifest.xml:") && key.1 != "$Secure:$SDS" {
            assert_eq!(now.get(key), Some(stream), "{key:?}");
        }
    }
    assert!(!disk.volume().facts().is_dirty());
    assert_guarded(disk, &append, tree, &left_out, manifest);
    // Between the two marks the volume is dirty.
    let half = before.copy(&named("half"));
    for (_, at, _, after) in log.iter().filter(|(step, ..)| *step < WriteStep::Clean) {
        half.file.write_all_at(after, *at).unwrap();
    }
    assert!(half.volume().facts().is_dirty());
    // Undone, it is equal to the original.
    let undone = disk.copy(&named("undone"));
    for (_, at, before, _) in log.iter().filter(|(step, ..)| *step != WriteStep::Fresh).rev() {
        undone.file.write_all_at(before, *at).unwrap();
    }
    assert_same_but_free(&before, &undone, &log, "undone");
}

/// Checks that the additions have ids of `$Secure` that grant the rights of a Windows format, and that the manifest's
/// name is the same in its record and in the root's index.
fn assert_guarded(disk: &Disk, append: &Append, tree: &Paths, left_out: &[u32], manifest: u64) {
    use super::plan::{Role, file_reference};
    use crate::build::security::{Grant, GrantTo};
    let volume = disk.volume();
    let secure = super::secure::Secure::read(&volume, &mut &*disk).unwrap().expect("a plain $Secure");
    let guarded = |number: u32, below| {
        let file = volume.open_file(&mut &*disk, u64::from(number)).unwrap();
        let id = file.standard.security.unwrap_or_else(|| panic!("record {number} has a descriptor of its own"));
        assert!(secure.grants(id, Grant { below, to: GrantTo::Administrators }), "record {number}: id {id:#x}");
    };
    for i in (0..tree.files()).filter(|i| !left_out.contains(i)) {
        guarded(append.record_of(Role::File(i)).0, false);
    }
    for i in (0..tree.dirs()).filter(|&i| append.existing_reference(Some(i)).is_none()) {
        guarded(append.record_of(Role::Dir(i)).0, true);
    }
    let name: Vec<u16> = "DriveManifest.xml".encode_utf16().collect();
    let found = lookup(&volume, &mut &*disk, 5, &name).unwrap().expect("a manifest");
    let root = volume.open_file(&mut &*disk, 5).unwrap();
    let index = Index::open(&volume, &root, &I30).unwrap();
    let mut in_index = Vec::new();
    walk(&volume, &mut &*disk, &index, |step| {
        if let IndexStep::Entry { node, entry } = step
            && entry.reference == file_reference(found)
        {
            in_index = node.key(entry).to_vec();
        }
    });
    let record = volume.read_record(&mut &*disk, found.record).unwrap();
    let mut edit = super::edit::Edit::new(&record).unwrap();
    let in_record = edit.find(0x30, &[]).unwrap().value_mut().to_vec();
    assert_eq!(in_record[..0x40 + 2 + 2 * name.len()], in_index[..]);
    assert_eq!(in_record[0x30..0x38], manifest.to_le_bytes());
}

fn small_tree() -> Paths {
    Paths::new([
        ("session#2/photo/Ärger.jpg", 70_000),
        ("session#2/photo/empty", 0),
        ("session#2/photo/one", 1),
        ("session#2/photo/deep/er/and/deeper/x.bin", 4096),
        ("session#2/video/big.bin", 3_000_001),
        ("session#2/empty dir/", 0),
    ])
}

fn many(count: u64) -> Paths {
    let name = |i: u64| format!("session#2/many/a file with a longer name {i:07}.bin");
    Paths::new((0..count).map(|i| (name(i), i % 3 * 100)).chain([("session#2/x".to_owned(), 5000)]))
}

#[test]
fn judge_adds_to_empty_volumes_of_mkntfs() {
    for (name, args) in [
        ("mk-4k", &["-c", "4096"][..]),
        ("mk-512", &["-c", "512"]),
        ("mk-64k", &["-c", "65536"]),
        ("mk-4kn", &["-s", "4096", "-c", "4096"]),
    ] {
        let Some(disk) = Disk::mkntfs(name, 64 << 20, args) else { return };
        eprintln!("{name}");
        judged(&disk, &small_tree(), vec![], 12_345);
    }
}

#[test]
fn judge_adds_to_used_volumes_of_ntfs_3g() {
    let Some(disk) = Disk::mkntfs("used", 256 << 20, &["-c", "4096"]) else { return };
    let disk = disk.fill(|root| {
        // A root that needs blocks, holes of all sizes, records freed and used again.
        for i in 0..1500 {
            fs::write(root.join(format!("file with some name {i:05}")), content("old", i % 7 * 5000)).unwrap();
        }
        for i in (0..1500).step_by(3) {
            fs::remove_file(root.join(format!("file with some name {i:05}"))).unwrap();
        }
        fs::create_dir(root.join("dir")).unwrap();
        fs::write(root.join("dir/in it"), b"something").unwrap();
        fs::write(root.join("DriveManifest.xml"), content("old manifest", 200_000)).unwrap();
    });
    let Some(disk) = disk else { return };
    judged(&disk, &mixed(7), vec![1, 5], 54_321);
    // Once more, on the volume with our additions.
    judged(&disk, &many(4000), (100..300).collect(), 300_000);
}

#[test]
fn judge_adds_to_volumes_of_ours() {
    for (name, sector, cluster, len) in
        [("our-4k", SectorSize::S512, 4096, 96 << 20), ("our-4kn", SectorSize::S4096, 4096, 96 << 20)]
    {
        let tree = Paths::new([("session#1/a/b.bin", 100_000), ("session#1/c.txt", 50), ("session#1/e", 0)]);
        let spec = built::with_hidden(built::spec(sector, cluster, len));
        let layout = Layout::plan(spec, &tree).unwrap();
        let image = assemble(&format!("append-{name}"), &layout, &tree, vec![], true);
        let path = scratch(name);
        fs::copy(&image.path, &path).unwrap();
        let disk = Disk::open(path);
        judged(&disk, &small_tree(), vec![0], 23_456);
        judged(&disk, &Paths::new([("session#3/zz", 9), ("session#2/photo/more", 77_777)]), vec![], 34_567);
    }
}

type Metafiles = (Vec<(String, u32)>, Vec<u8>, Vec<Vec<u8>>);

/// Facts of the metafiles that no driver needs: attributes of the children of `$Extend`, `$UpCase:$Info` without the
/// build, and the root's entries of metafiles that exist only as names.
fn metafiles(disk: &Disk) -> Metafiles {
    let volume = disk.volume();
    let open = |number| volume.open_file(&mut &*disk, number).unwrap();
    let attributes = |number| {
        let file = open(number);
        (String::from_utf16_lossy(&file.names[0].name), file.standard.attributes)
    };
    let info: Vec<u16> = "$Info".encode_utf16().collect();
    let up_case = open(10);
    let info = up_case.data(&info).unwrap();
    let info = volume.read_whole(&mut &*disk, info, 100).unwrap();
    assert_eq!((info.len(), &info[28..]), (32, &[0; 4][..]));
    let root = open(5);
    let index = Index::open(&volume, &root, &I30).unwrap();
    let mut entries = Vec::new();
    walk(&volume, &mut &*disk, &index, |step| {
        if let IndexStep::Entry { node, entry } = step
            && matches!(entry.reference & 0xFFFF_FFFF, 1..=4 | 6..=8 | 10)
        {
            entries.push(node.key(entry).to_vec());
        }
    });
    ((24..27).map(attributes).collect(), info[..24].to_vec(), entries)
}

#[test]
fn judge_metafiles_say_what_those_of_windows_say() {
    let path = scratch("metafiles");
    let tree = Paths::new([("session#1/a", 100)]);
    let layout = Layout::plan(built::with_hidden(built::spec(SectorSize::S512, 4096, 96 << 20)), &tree).unwrap();
    let image = assemble("append-metafiles", &layout, &tree, vec![], true);
    fs::copy(&image.path, &path).unwrap();
    let ours = metafiles(&Disk::open(path));
    // Builds 18362 and 19041; 14393 has the archive bit.
    for name in ["ntfs-2m.raw.gz", "ntfs-64g-sparse.tar.gz"] {
        let Some(disk) = Disk::fixture(name) else { continue };
        assert_eq!(ours, metafiles(&disk), "{name}");
    }
}

#[test]
fn judge_adds_to_volumes_of_windows() {
    for name in ["ntfs-ramslack.raw.gz", "ntfs-2m.raw.gz", "ntfs-64g-sparse.tar.gz"] {
        let Some(disk) = Disk::fixture(name) else { continue };
        let facts = disk.volume().facts().clone();
        eprintln!("{name}: {:?} {:#x} {:?}", facts.log, facts.flags, disk.volume().geometry());
        judged(&disk, &small_tree(), vec![2], 12_345);
    }
}

#[test]
fn judge_adds_a_large_directory() {
    let Some(disk) = Disk::mkntfs("large", 128 << 20, &["-c", "4096"]) else { return };
    judged(&disk, &many(30_000), vec![17], 4_000_000);
}

#[test]
fn judge_fills_fragmented_space() {
    let Some(disk) = Disk::mkntfs("split", 48 << 20, &["-c", "4096"]) else { return };
    let disk = disk.fill(|root| {
        let mut i = 0;
        while fs::write(root.join(format!("f{i:05}")), content("old", 8192)).is_ok() && i < 6000 {
            i += 1;
        }
        for gone in (0..i).step_by(2) {
            fs::remove_file(root.join(format!("f{gone:05}"))).unwrap();
        }
    });
    let Some(disk) = disk else { return };
    // More runs than one record holds, so an attribute list.
    let tree = Paths::new([("session#2/a", 6_000_000), ("session#2/b", 3_000_000), ("session#2/c", 9000)]);
    judged(&disk, &tree, vec![], 5000);
    let refusal = add(&disk, &Paths::new([("session#3/d", 90_000_000)]), vec![], 5000).err();
    assert!(matches!(refusal, Some(Refusal::TooFull { .. })), "{refusal:?}");
}
