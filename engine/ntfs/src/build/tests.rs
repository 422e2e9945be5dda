//! Volumes assembled in sparse files and judged by other programs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) use dray_fixtures::judges::{Mount, run, succeeds};

use super::*;
use crate::units::{ClusterSize, Clusters, Extent, StreamOffset};
use crate::upcase;
use dray_base::entropy::{Entropy, Seeded};

const DAY: i64 = 86_400;
/// 2026-01-02 03:04:05.
const NOW: i64 = 1_767_323_045;

/// A tree made from paths; sorted as the catalog is.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    root: Children,
    dirs: Vec<(String, DirFacts)>,
    files: Vec<(String, FileFacts)>,
}

#[derive(Default)]
struct Node {
    dirs: BTreeMap<Key, Node>,
    files: BTreeMap<Key, u64>,
}

#[derive(Clone, PartialEq, Eq)]
struct Key(String);

impl Ord for Key {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        upcase::compare(self.0.encode_utf16(), other.0.encode_utf16())
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Paths {
    /// Paths with `/`; those that end in `/` are directories.
    pub(crate) fn new<S: AsRef<str>>(paths: impl IntoIterator<Item = (S, u64)>) -> Self {
        let mut top = Node::default();
        for (path, len) in paths {
            let mut node = &mut top;
            let mut parts = path.as_ref().split('/').peekable();
            while let Some(part) = parts.next() {
                if parts.peek().is_some() {
                    node = node.dirs.entry(Key(part.into())).or_default();
                } else if !part.is_empty() {
                    node.files.insert(Key(part.into()), len);
                }
            }
        }
        let mut out = Self::default();
        let mut level = vec![(None, top)];
        // Breadth first: so the children of each directory are one run, and parents come first.
        while !level.is_empty() {
            let mut below = Vec::new();
            for (parent, node) in level {
                let dirs_start = out.dirs.len() as u32;
                let files_start = out.files.len() as u32;
                for (Key(name), child) in node.dirs {
                    let i = out.dirs.len() as u32;
                    let times = some_times(u64::from(i) + 1_000_000);
                    out.dirs.push((name, DirFacts { parent, times, children: Children::default() }));
                    below.push((Some(i), child));
                }
                for (Key(name), len) in node.files {
                    let times = some_times(out.files.len() as u64);
                    out.files.push((name, FileFacts { dir: parent, len: ByteLen(len), times }));
                }
                let children =
                    Children { dirs: dirs_start..out.dirs.len() as u32, files: files_start..out.files.len() as u32 };
                match parent {
                    Some(dir) => out.dirs[dir as usize].1.children = children,
                    None => out.root = children,
                }
            }
            level = below;
        }
        out
    }

    fn dir_path(&self, i: u32) -> String {
        let (name, facts) = &self.dirs[i as usize];
        facts.parent.map_or_else(|| name.clone(), |parent| format!("{}/{name}", self.dir_path(parent)))
    }

    pub(crate) fn file_path(&self, i: u32) -> String {
        let (name, facts) = &self.files[i as usize];
        facts.dir.map_or_else(|| name.clone(), |dir| format!("{}/{name}", self.dir_path(dir)))
    }
}

impl Tree for Paths {
    fn dirs(&self) -> u32 {
        self.dirs.len() as u32
    }
    fn files(&self) -> u32 {
        self.files.len() as u32
    }
    fn root(&self) -> Children {
        self.root.clone()
    }
    fn dir(&self, i: u32) -> DirFacts {
        self.dirs[i as usize].1.clone()
    }
    fn file(&self, i: u32) -> FileFacts {
        self.files[i as usize].1.clone()
    }
    fn dir_name(&self, i: u32, out: &mut Vec<u16>) {
        out.extend(self.dirs[i as usize].0.encode_utf16());
    }
    fn file_name(&self, i: u32, out: &mut Vec<u16>) {
        out.extend(self.files[i as usize].0.encode_utf16());
    }
}

fn some_times(i: u64) -> Times {
    let at = |days: i64| FileTime::from_unix(NOW - days * DAY - i as i64, (i % 10_000_000) as u32 * 100);
    Times { created: at(400), modified: at(300), changed: at(200), accessed: at(100) }
}

/// Content of a file: `len` bytes that depend on its name.
pub(crate) fn content(path: &str, len: u64) -> Vec<u8> {
    let seed = path.bytes().fold(len, |seed, byte| seed.wrapping_mul(0x100_0000_01B3) ^ u64::from(byte));
    let mut out = vec![0; len as usize];
    Seeded::new(seed).fill(&mut out);
    out
}

pub(crate) fn cluster(bytes: u64) -> ClusterSize {
    ClusterSize::from_bytes(bytes).unwrap()
}

pub(crate) fn spec(sector: SectorSize, cluster_bytes: u64, len: u64) -> VolumeSpec {
    VolumeSpec {
        sector,
        len: ByteLen(len),
        cluster: cluster(cluster_bytes),
        hidden_sectors: 34_816,
        serial: 0x1122_3344_5566_7788,
        label: "Fracht Ärger 7".into(),
        formatted: FileTime::from_unix(NOW, 0),
        hidden: None,
        root_files: vec![RootFile {
            name: "DriveManifest.xml".into(),
            len_max: ByteLen(100_000),
            times: some_times(77),
        }],
    }
}

/// The five regions of BitLocker at their usual places, rounded to clusters.
pub(crate) fn with_hidden(mut spec: VolumeSpec) -> VolumeSpec {
    let unit = spec.cluster.bytes();
    let whole = |len: u64| len.next_multiple_of(unit);
    let first = whole(0x210_0000);
    let distance = whole(spec.len.0 / 9);
    let backup = first + whole(0x10000);
    let verify = backup + whole(0x2000);
    let file = |name: &str, start: u64, len: u64| HiddenFile {
        name: name.into(),
        extent: VolumeRange::new(start, whole(len)),
        len: ByteLen(len),
        attributes: 0x26,
    };
    spec.hidden = Some(HiddenDir {
        name: "System Volume Information".into(),
        attributes: 6,
        files: vec![
            file("FVE2.{e40ad34d-dae9-4bc7-95bd-b16218c10f72}.1", first, 0x10000),
            file("FVE2.{e40ad34d-dae9-4bc7-95bd-b16218c10f72}.2", first + distance, 0x10000),
            file("FVE2.{e40ad34d-dae9-4bc7-95bd-b16218c10f72}.3", first + 2 * distance, 0x10000),
            file("FVE2.{24e6f0ae-6a00-4f73-984b-75ce9942852d}", backup, 0x2000),
            file("FVE2.{da392a22-cae0-4f0f-9a30-b8830385d046}", verify, 0x10000),
        ],
    });
    spec
}

/// A volume in a sparse file, deleted on drop.
pub(crate) struct Image {
    pub(crate) path: PathBuf,
    left_out: LeftOut,
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

pub(crate) const MANIFEST_LEN: u64 = 70_001;

pub(crate) fn outcome(left_out: Vec<u32>) -> Outcome {
    Outcome { left_out: LeftOut::new(left_out), root_file_lens: vec![ByteLen(MANIFEST_LEN)] }
}

pub(crate) fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("dray-ntfs-{}-{name}", std::process::id()))
}

pub(crate) fn write_extents(
    file: &File,
    cluster: ClusterSize,
    extents: impl Iterator<Item = Extent>,
    mut bytes: &[u8],
) {
    for extent in extents {
        let len = (cluster.len_of(extent.len).0).min(bytes.len() as u64) as usize;
        file.write_all_at(&bytes[..len], cluster.offset_of(extent.lcn).0).unwrap();
        bytes = &bytes[len..];
    }
    assert!(bytes.is_empty(), "content longer than its extents");
}

pub(crate) fn assemble(name: &str, layout: &Layout, tree: &Paths, left_out: Vec<u32>, with_content: bool) -> Image {
    let outcome = outcome(left_out);
    layout.check(tree, &outcome).unwrap();
    let path = scratch(name);
    let file = File::options().create(true).truncate(true).write(true).read(true).open(&path).unwrap();
    file.set_len(layout.spec().len.0).unwrap();
    for section in layout.sections() {
        let mut generator = layout.generator(section.kind, tree, &outcome);
        let mut at = 0;
        // Odd sizes: every way of cutting the stream gives the same bytes.
        let mut buf = vec![0xEE; 257 * 1024];
        for extent in &section.extents {
            let mut done = 0;
            while done < extent.len.0 {
                let part = (extent.len.0 - done).min(buf.len() as u64) as usize;
                generator.fill(StreamOffset(at), &mut buf[..part]);
                file.write_all_at(&buf[..part], extent.start.0 + done).unwrap();
                at += part as u64;
                done += part as u64;
            }
        }
        assert_eq!(at, section.len.0);
    }
    if with_content {
        for i in 0..tree.files() {
            if outcome.left_out.contains(i) {
                continue;
            }
            let bytes = content(&tree.file_path(i), tree.file(i).len.0);
            write_extents(&file, layout.cluster(), layout.file_extents(i), &bytes);
        }
        write_extents(
            &file,
            layout.cluster(),
            layout.root_file_extents(0),
            &content("DriveManifest.xml", MANIFEST_LEN),
        );
    }
    Image { path, left_out: outcome.left_out }
}

/// ntfs-3g's own checker, its reader of metadata, and Sleuth Kit.
fn judge_structure(image: &Image, layout: &Layout, tree: &Paths) {
    if let Some(text) = succeeds(Command::new("ntfsfix").arg("-n").arg(&image.path)) {
        assert!(text.contains("NTFS volume version is 3.1") && text.contains("processed successfully"), "{text}");
        assert!(!text.contains("FAILED") && !text.contains("differ"), "{text}");
    }
    if let Some(text) = succeeds(Command::new("ntfsinfo").arg("-m").arg(&image.path)) {
        let clusters = format!("Volume Size in Clusters: {}", layout.cluster_count().0);
        assert!(text.contains(&clusters), "{clusters} not in {text}");
        assert!(text.contains("Volume Name: Fracht Ärger 7"), "{text}");
    }
    judge_dissect(&image.path, &[]);
    if layout.free_clusters().0 > 16 {
        // The kernel's new driver requires it.
        let mft = layout.space().extents(layout.mft).next().unwrap().lcn;
        assert_eq!(layout.cluster().offset_of(mft).0 % 4096, 0, "$MFT begins within a page");
    }
    if tree.files() <= 10_000 {
        judge_checkers(&image.path);
    }
    // Sleuth Kit 4.11 refuses clusters above 64 KiB, and takes an hour over a directory of 200,000.
    if layout.cluster().bytes() > 65536 || tree.files() > 10_000 {
        return;
    }
    let sector = layout.spec().sector.bytes().to_string();
    if let Some(text) = succeeds(Command::new("fsstat").args(["-f", "ntfs", "-b", &sector]).arg(&image.path)) {
        assert!(text.contains("Volume Serial Number: 1122334455667788"), "{text}");
    }
    if let Some(text) =
        succeeds(Command::new("fls").args(["-f", "ntfs", "-b", &sector, "-r", "-p", "-u"]).arg(&image.path))
    {
        let listed: std::collections::HashSet<&str> =
            text.lines().filter_map(|line| line.split_once(":\t")).map(|(_, name)| name).collect();
        let present = (0..tree.files()).filter(|&i| !image.left_out.contains(i)).map(|i| tree.file_path(i));
        let missing: Vec<_> = present.filter(|path| !listed.contains(path.as_str())).take(5).collect();
        assert!(missing.is_empty(), "fls does not list {missing:?}");
        let gone = image.left_out.files().iter().map(|&i| tree.file_path(i));
        let ghosts: Vec<_> = gone.filter(|path| listed.contains(path.as_str())).take(5).collect();
        assert!(ghosts.is_empty(), "fls lists {ghosts:?}");
    }
}

/// dissect.ntfs reads `$MFT`, `$Bitmap` and `$UpCase`; judge.py then checks them against each other.
fn judge_dissect(image: &Path, mode: &[&str]) {
    if !run(Command::new(dray_fixtures::judges::python()).args(["-c", "import dissect.ntfs"]))
        .is_some_and(|output| output.status.success())
    {
        eprintln!("SKIPPED judge: dissect.ntfs");
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/build/judge.py");
    succeeds(Command::new(dray_fixtures::judges::python()).arg(script).arg(image).args(mode));
}

/// `checkdisk /f` (a dry run) and PhantomTrace look at records, indexes, `$Secure`, runs and bitmaps.
pub(crate) fn judge_checkers(image: &Path) {
    for name in ["checkdisk", "phantom_trace"] {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdisks/judges.py");
        let output = run(Command::new(dray_fixtures::judges::python()).arg(script).arg(name).arg(image));
        let Some(output) = output else { continue };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.code() {
            Some(0) => {}
            Some(3) => eprintln!("SKIPPED judge: {name}: {}", said.trim()),
            _ => panic!("{name} of {}: {said}{}", image.display(), String::from_utf8_lossy(&output.stderr)),
        }
    }
}

fn judge_mount(image: &Image, tree: &Paths, with_content: bool) {
    use std::os::unix::fs::MetadataExt;
    let Some(mount) = Mount::at(&image.path, "ro,show_sys_files,streams_interface=none") else { return };
    let mut expected = BTreeMap::new();
    for i in (0..tree.files()).filter(|&i| !image.left_out.contains(i)) {
        expected.insert(tree.file_path(i), i);
    }
    let mut dirs = vec![PathBuf::new()];
    let (mut files_seen, mut dirs_seen) = (0, 0);
    while let Some(dir) = dirs.pop() {
        let mut names = Vec::new();
        for entry in fs::read_dir(mount.0.join(&dir)).unwrap() {
            names.push(entry.unwrap().file_name().into_string().unwrap());
        }
        for name in names {
            let path = dir.join(&name);
            let shown = path.to_str().unwrap().to_owned();
            if name.starts_with('$') || shown == "DriveManifest.xml" {
                continue;
            }
            // By name: so the index is searched as well as listed.
            let facts = fs::symlink_metadata(mount.0.join(&path)).unwrap_or_else(|error| panic!("{shown}: {error}"));
            if facts.is_dir() {
                dirs_seen += 1;
                if shown != "System Volume Information" {
                    dirs.push(path);
                }
                continue;
            }
            files_seen += 1;
            let i = expected.remove(&shown).unwrap_or_else(|| panic!("{shown} is not ours"));
            let file = tree.file(i);
            assert_eq!(facts.len(), file.len.0, "{shown}");
            let (seconds, nanos) = file.times.modified.to_unix();
            assert_eq!((facts.mtime(), facts.mtime_nsec()), (seconds, i64::from(nanos)), "{shown}");
            assert_eq!(facts.atime(), file.times.accessed.to_unix().0, "{shown}");
            if with_content {
                let mut bytes = Vec::new();
                File::open(mount.0.join(&path)).unwrap().read_to_end(&mut bytes).unwrap();
                assert!(bytes == content(&shown, file.len.0), "{shown} has other content");
            }
        }
    }
    assert!(expected.is_empty(), "missing: {:?}", expected.keys().take(5).collect::<Vec<_>>());
    assert_eq!(files_seen, tree.files() as usize - image.left_out.files().len());
    assert!(dirs_seen >= tree.dirs() as usize);
    if with_content {
        let manifest = fs::read(mount.0.join("DriveManifest.xml")).unwrap();
        assert!(manifest == content("DriveManifest.xml", MANIFEST_LEN));
    }
}

/// A small tree with every kind of entry.
pub(crate) fn mixed(seed: u64) -> Paths {
    let mut random = Seeded::new(seed);
    let mut paths = vec![
        ("empty".to_owned(), 0),
        ("one".into(), 1),
        ("resident-sized".into(), 700),
        ("page-1".into(), 4095),
        ("page".into(), 4096),
        ("page+1".into(), 4097),
        ("large.bin".into(), 3 << 20),
        ("empty dir/".into(), 0),
        ("deep/".to_owned() + &"d/".repeat(60) + "bottom", 5),
        (format!("long/{}", "\u{1F600}".repeat(127) + "x"), 10),
        (format!("long/{}/in", "\u{1F601}".repeat(127) + "y"), 11),
        ("case/µ".into(), 3),
        ("case/ß".into(), 3),
        ("case/Ω".into(), 3),
    ];
    for dir in 0..20 {
        for file in 0..random.next_u64() % 90 {
            let units = 1 + random.next_u64() % 60;
            let name: String = (0..units).map(|_| (b'a' + (random.next_u64() % 26) as u8) as char).collect();
            paths.push((format!("dir {dir}/{name} {file}.dat"), random.next_u64() % 9000));
        }
    }
    Paths::new(paths)
}

fn judge(name: &str, spec: VolumeSpec, tree: &Paths, left_out: Vec<u32>) -> Layout {
    let layout = Layout::plan(spec, tree).unwrap();
    let image = assemble(name, &layout, tree, left_out, true);
    judge_structure(&image, &layout, tree);
    judge_mount(&image, tree, true);
    layout
}

#[test]
fn judge_sectors_and_clusters() {
    let tree = mixed(1);
    let all = [
        (SectorSize::S512, 512, false),
        (SectorSize::S512, 4096, true),
        (SectorSize::S4096, 4096, true),
        (SectorSize::S512, 65536, true),
    ];
    for (sector, cluster_bytes, hidden) in all {
        let spec = spec(sector, cluster_bytes, 128 << 20);
        let spec = if hidden { with_hidden(spec) } else { spec };
        judge(&format!("matrix-{}-{cluster_bytes}", sector.bytes()), spec, &tree, vec![]);
    }
}

#[test]
#[ignore = "minutes: every cluster size"]
fn judge_all_sectors_and_clusters() {
    let tree = mixed(2);
    for sector in [SectorSize::S512, SectorSize::S4096] {
        for shift in sector.bytes().trailing_zeros()..=21 {
            for hidden in [false, true] {
                let spec = spec(sector, 1 << shift, 4 << 30);
                let spec = if hidden { with_hidden(spec) } else { spec };
                let left_out = if shift % 2 == 0 { vec![0, 7, 8, 9, 100] } else { vec![] };
                judge(&format!("all-{}-{shift}-{hidden}", sector.bytes()), spec, &tree, left_out);
            }
        }
    }
}

#[test]
fn judge_two_mebibyte_clusters() {
    let mut paths: Vec<_> = (0..3000).map(|i| (format!("flat/file number {i}"), 0)).collect();
    paths.extend([("a".into(), 5), ("b".into(), 2 << 20), ("c".into(), (2 << 20) + 1)]);
    judge("two-mebibyte", with_hidden(spec(SectorSize::S512, 2 << 20, 128 << 20)), &Paths::new(paths), vec![1]);
}

#[test]
fn judge_left_out_files_leave_no_trace() {
    let tree = mixed(3);
    // Every third file, whole directories, the first and the last.
    let mut gone: Vec<u32> = (0..tree.files()).filter(|i| i % 3 == 0).collect();
    gone.extend(tree.dir(5).children.files);
    gone.extend(tree.dir(6).children.files.skip(2));
    gone.push(tree.files() - 1);
    judge("left-out", with_hidden(spec(SectorSize::S512, 4096, 96 << 20)), &tree, gone);
    judge("all-left-out", spec(SectorSize::S512, 512, 64 << 20), &tree, (0..tree.files()).collect());
    judge("nothing", spec(SectorSize::S4096, 4096, 64 << 20), &Paths::default(), vec![]);
}

#[test]
fn judge_one_directory_of_200_000_names() {
    let tree = Paths::new(
        (0..200_000u64).map(|i| (format!("flat/{:x} of many.bin", i.wrapping_mul(0x9E37_79B9) % (1 << 32)), 0)),
    );
    let layout = Layout::plan(spec(SectorSize::S512, 4096, 1 << 30), &tree).unwrap();
    // The root is large too; leaves, and two levels above them.
    assert_eq!(layout.large.len(), 2);
    let image = assemble("flat", &layout, &tree, vec![], false);
    judge_structure(&image, &layout, &tree);
    let left_out = (0..200_000).filter(|i| i % 1000 != 7).collect();
    drop(image);
    let image = assemble("flat-thinned", &layout, &tree, left_out, false);
    judge_structure(&image, &layout, &tree);
    judge_mount(&image, &tree, false);
}

#[test]
fn judge_volume_filled_to_the_last_cluster() {
    let spec = with_hidden(spec(SectorSize::S512, 4096, 64 << 20));
    let with = |fill: u64| Paths::new([("first".to_owned(), 70_000), ("fill".into(), fill), ("z/last".into(), 9)]);
    let free = Layout::plan(spec.clone(), &with(1)).unwrap().free_clusters().0;
    let tree = with((free + 1) * 4096);
    let layout = judge("full", spec.clone(), &tree, vec![]);
    assert_eq!(layout.free_clusters(), Clusters(0));
    let error = Layout::plan(spec, &with((free + 1) * 4096 + 1)).unwrap_err();
    let LayoutError::TooSmall { needed, available } = error else { panic!("{error}") };
    assert_eq!(needed.0 - available.0, 4096);
}

#[test]
fn judge_ntfs_3g_goes_on_writing() {
    let tree = mixed(4);
    for (sector, cluster_bytes) in [(SectorSize::S512, 4096), (SectorSize::S4096, 8192)] {
        let spec = with_hidden(spec(sector, cluster_bytes, 256 << 20));
        let layout = Layout::plan(spec, &tree).unwrap();
        let image = assemble(&format!("modified-{cluster_bytes}"), &layout, &tree, vec![3, 4], true);
        {
            let Some(mount) = Mount::at(&image.path, "rw") else { return };
            // Splits of leaves, new levels, merges; in directories of ours, and in the root.
            for dir in 0..20u32 {
                let dir = mount.0.join(format!("dir {dir}"));
                for i in 0..60 {
                    fs::write(dir.join(format!("{}new {i}", char::from(b'a' + i % 26))), [i; 100]).unwrap();
                }
            }
            for i in 0..tree.files() {
                if i % 2 == 0 && !image.left_out.contains(i) {
                    fs::remove_file(mount.0.join(tree.file_path(i))).unwrap();
                }
            }
            fs::create_dir(mount.0.join("made by ntfs-3g")).unwrap();
            fs::write(mount.0.join("made by ntfs-3g/big"), content("big", 5 << 20)).unwrap();
            fs::rename(mount.0.join("page+1"), mount.0.join("dir 3/renamed")).ok();
        }
        succeeds(Command::new("ntfsfix").arg("-n").arg(&image.path));
        judge_dissect(&image.path, &["--used"]);
        let mount = Mount::at(&image.path, "ro").unwrap();
        assert!(fs::read(mount.0.join("made by ntfs-3g/big")).unwrap() == content("big", 5 << 20));
        for i in (0..tree.files()).filter(|&i| i % 2 == 1 && !image.left_out.contains(i)) {
            let path = tree.file_path(i);
            let Ok(bytes) = fs::read(mount.0.join(&path)) else {
                assert_eq!(path, "page+1");
                continue;
            };
            assert!(bytes == content(&path, tree.file(i).len.0), "{path}");
        }
    }
}

#[test]
fn estimate_is_never_less_than_the_plan_and_close_to_it() {
    for seed in 0..12 {
        let tree = mixed(seed);
        for (sector, cluster_bytes) in [(SectorSize::S512, 512), (SectorSize::S512, 4096), (SectorSize::S4096, 65536)] {
            let spec = with_hidden(spec(sector, cluster_bytes, 1 << 30));
            let estimate = Estimate::new(&spec).unwrap();
            let entries = |children: &Children| {
                let dirs = children.dirs.clone().map(|i| tree.dirs[i as usize].0.encode_utf16().count());
                let files = children.files.clone().map(|i| tree.files[i as usize].0.encode_utf16().count());
                ByteLen(dirs.chain(files).map(|units| estimate.entry(units).0).sum())
            };
            let mut sum = estimate.root(entries(&tree.root)).0;
            for (name, facts) in &tree.dirs {
                sum += estimate.dir(name.encode_utf16().count(), entries(&facts.children)).0;
            }
            sum += tree.files.iter().map(|(_, facts)| estimate.file(facts.len).0).sum::<u64>();
            let layout = Layout::plan(spec, &tree).unwrap();
            let free = layout.free_clusters().0 * cluster_bytes;
            let left = estimate.available().0.checked_sub(sum).unwrap();
            assert!(left <= free, "estimate leaves {left}, the plan {free}");
            assert!(free - left <= (1 << 20) + 12 * cluster_bytes, "estimate is {} too high", free - left);
        }
    }
}

#[test]
fn plan_refuses_what_no_directory_can_hold() {
    let spec = spec(SectorSize::S512, 4096, 64 << 20);
    let plan = |change: fn(&mut Paths)| {
        let mut tree = Paths::new([("a", 1), ("b", 1), ("c/", 0)]);
        change(&mut tree);
        Layout::plan(spec.clone(), &tree).unwrap_err()
    };
    let record = 64 + 1 + 1 + 1;
    assert_eq!(plan(|tree| tree.files.swap(0, 1)), LayoutError::Unsorted { directory: 5, record });
    assert_eq!(plan(|tree| tree.files[1].0 = "a".into()), LayoutError::SameName { directory: 5, record });
    assert_eq!(plan(|tree| tree.files[0].0 = "B".into()), LayoutError::SameName { directory: 5, record });
    assert_eq!(plan(|tree| tree.files[1].0 = "C".into()), LayoutError::SameName { directory: 5, record: record - 2 });
    assert!(matches!(plan(|tree| tree.files[0].0 = "$mft".into()), LayoutError::SameName { directory: 5, .. }));
    assert!(matches!(plan(|tree| tree.files[0].0 = String::new()), LayoutError::NameLength { .. }));
    assert!(matches!(plan(|tree| tree.files[1].0 = "x".repeat(256)), LayoutError::NameLength { .. }));
}

#[test]
fn every_cut_of_a_section_gives_the_same_bytes() {
    let tree = mixed(6);
    let outcome = outcome(vec![1, 2, 50, 51, 300]);
    for (sector, cluster_bytes) in [(SectorSize::S512, 512), (SectorSize::S4096, 4096)] {
        let layout = Layout::plan(with_hidden(spec(sector, cluster_bytes, 80 << 20)), &tree).unwrap();
        let mut random = Seeded::new(9);
        for section in layout.sections() {
            let len = section.len.0.min(3 << 20);
            let mut whole = vec![0xEE; len as usize];
            layout.generator(section.kind, &tree, &outcome).fill(StreamOffset(0), &mut whole);
            let mut generator = layout.generator(section.kind, &tree, &outcome);
            for _ in 0..200 {
                let start = random.next_u64() % len;
                let end = (start + random.next_u64() % 20_000).min(len);
                let mut part = vec![0x11; (end - start) as usize];
                generator.fill(StreamOffset(start), &mut part);
                assert!(part == whole[start as usize..end as usize], "{:?} {start}..{end}", section.kind);
            }
        }
    }
}

/// A tree that is computed on demand: `dirs` directories of equally many files each.
struct Endless {
    dirs: u32,
    per_dir: u32,
}

impl Endless {
    fn number(i: u32, out: &mut Vec<u16>) {
        let digits = (0..8).rev().map(|shift| u16::from(b"0123456789ABCDEF"[(i >> (4 * shift) & 15) as usize]));
        out.extend(digits);
    }
}

impl Tree for Endless {
    fn dirs(&self) -> u32 {
        self.dirs
    }
    fn files(&self) -> u32 {
        self.dirs * self.per_dir
    }
    fn root(&self) -> Children {
        Children { dirs: 0..self.dirs, files: 0..0 }
    }
    fn dir(&self, i: u32) -> DirFacts {
        let files = i * self.per_dir..(i + 1) * self.per_dir;
        DirFacts { parent: None, times: Times::default(), children: Children { dirs: 0..0, files } }
    }
    fn file(&self, i: u32) -> FileFacts {
        FileFacts { dir: Some(i / self.per_dir), len: ByteLen(u64::from(i % 50_000)), times: Times::default() }
    }
    fn dir_name(&self, i: u32, out: &mut Vec<u16>) {
        Self::number(i, out);
    }
    fn file_name(&self, i: u32, out: &mut Vec<u16>) {
        out.extend("file number ".encode_utf16());
        Self::number(i, out);
        out.extend(".dat".encode_utf16());
    }
}

#[test]
#[ignore = "figures: ten million files"]
fn ten_million_files() {
    for (dirs, per_dir) in [(10_000, 1000), (1, 10_000_000)] {
        let tree = Endless { dirs, per_dir };
        let start = std::time::Instant::now();
        let layout = Layout::plan(with_hidden(spec(SectorSize::S512, 4096, 4 << 40)), &tree).unwrap();
        eprintln!("{dirs} directories of {per_dir}: planned in {:.1} s", start.elapsed().as_secs_f64());
        let outcome = outcome((0..1000).map(|i| i * 9999).collect());
        let mut buf = vec![0; 4 << 20];
        for section in layout.sections() {
            let start = std::time::Instant::now();
            let mut generator = layout.generator(section.kind, &tree, &outcome);
            for at in (0..section.len.0).step_by(buf.len()) {
                let len = (section.len.0 - at).min(buf.len() as u64) as usize;
                generator.fill(StreamOffset(at), &mut buf[..len]);
            }
            let seconds = start.elapsed().as_secs_f64();
            if section.len.0 > 10 << 20 {
                eprintln!(
                    "  {:?}: {} in {seconds:.1} s, {:.2} GB/s",
                    section.kind,
                    section.len,
                    section.len.0 as f64 / seconds / 1e9
                );
            }
        }
    }
}

#[test]
fn judge_dissect_notices_what_is_wrong() {
    let tree = mixed(8);
    let layout = Layout::plan(spec(SectorSize::S512, 4096, 64 << 20), &tree).unwrap();
    let image = assemble("wrong", &layout, &tree, vec![], false);
    if !run(Command::new(dray_fixtures::judges::python()).args(["-c", "import dissect.ntfs"]))
        .is_some_and(|output| output.status.success())
    {
        eprintln!("SKIPPED judge: dissect.ntfs");
        return;
    }
    let file = File::options().write(true).read(true).open(&image.path).unwrap();
    for (kind, at) in [(SectionKind::Bitmap, 100), (SectionKind::MftBitmap, 1), (SectionKind::Index, 0x40 + 0x58)] {
        let section = layout.sections().into_iter().find(|section| section.kind == kind).unwrap();
        let mut byte = [0];
        let place = section.extents[0].start.0 + at;
        file.read_exact_at(&mut byte, place).unwrap();
        file.write_all_at(&[byte[0] ^ 2], place).unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/build/judge.py");
        let output = run(Command::new(dray_fixtures::judges::python()).arg(script).arg(&image.path)).unwrap();
        assert!(!output.status.success(), "a flipped bit in {kind:?} went unnoticed");
        file.write_all_at(&byte, place).unwrap();
    }
    judge_dissect(&image.path, &[]);
}
