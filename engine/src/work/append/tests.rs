//! A second session on a simulated disk: its writes, power cuts at every write and flush, and the judges.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dray_fixtures::judges::{Mount, succeeds};

use super::commit::{self, Store};
use super::*;
use crate::azure::dataset;
use crate::dataset::own::Own;
use crate::dataset::scan;
use crate::entropy::{Entropy, Seeded};
use crate::io::sim::{Deed, Faults, Landed, SimDisk};
use crate::ntfs::append::free_runs;
use crate::ntfs::read::RunPlace;
use crate::plan::tree::Md5Text;
use crate::report::{DriveFacts, Problems, Region, RegionKind, Setting};
use crate::request::{EngineChoice, Pace, PrepRequest, Sets};
use crate::session::prepare::prepare_with;
use crate::source::select::Selection;
use crate::stream::event_loop::BlockIo;
use crate::stream::failures::{Failures, Outlook};
use crate::stream::timeouts::Timeouts;
use crate::surroundings::Surroundings;
use crate::units::{DeviceOffset, DeviceRange, SectorSize};
use crate::verify::added::{self, Added};
use crate::verify::judge;
use crate::volume::files::Files;
use crate::volume::find::Found;
use crate::volume::key::Key;
use crate::work::manifest::RowRules;

const NOW: i64 = 1_767_500_000;

pub(crate) struct Lab {
    dir: PathBuf,
    /// Ranges of the volume that a second session leaves alone.
    avoid: Vec<VolumeRange>,
    /// Bytes of its slots.
    slot_len: usize,
    /// Its blobs get files that set their `Content-MD5`.
    has_md5s: bool,
    /// The node of a drive that can be unplugged.
    node: Option<PathBuf>,
    timeouts: Timeouts,
    /// Events at which the session is stopped.
    stops: fn(&Event) -> bool,
    events: Mutex<Vec<Event>>,
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Lab {
    pub(crate) fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("dray-append-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        for (tree, lens) in [("one", &[0usize, 1, 5000][..]), ("two", &[0, 1, 4096, 4097, 70_000, (5 << 20) + 3])] {
            fs::create_dir_all(dir.join(tree).join("deep")).expect("a source tree");
            for (i, len) in lens.iter().enumerate() {
                let mut bytes = vec![0; *len];
                Seeded::new(*len as u64).fill(&mut bytes);
                let place = if i % 2 == 0 { dir.join(tree) } else { dir.join(tree).join("deep") };
                fs::write(place.join(format!("file {i}.bin")), bytes).expect("a file");
            }
        }
        Self {
            dir,
            avoid: Vec::new(),
            slot_len: SLOT_LEN,
            has_md5s: false,
            node: None,
            timeouts: Timeouts::default(),
            stops: |_| false,
            events: Mutex::default(),
        }
    }

    fn dataset(&self, tree: &str) -> PathBuf {
        let path = self.dir.join(format!("{tree}.csv"));
        let source = self.dir.join(tree);
        let text = format!("BasePath,DstBlobPathOrPrefix,BlobType\n\"{}/\",{tree}/,BlockBlob\n", source.display());
        fs::write(&path, text).expect("a dataset");
        path
    }

    /// A drive with a first session on it, and its key.
    fn first(&self, cipher: &str) -> (SimDisk, Key) {
        let image = self.dir.join("drive.img");
        let driveset = self.dir.join("driveset.csv");
        let head = "DriveLetter,FormatOption,SilentOrPromptOnFormat,Encryption,ExistingBitLockerKey";
        fs::write(&driveset, format!("{head}\n{}:100MB,Format,SilentMode,Encrypt,\n", image.display())).expect("a csv");
        let mut request = PrepRequest::new(self.dir.join("j.jrn"), "session#1");
        request.initial_driveset = Some(driveset);
        request.dataset = Some(self.dataset("one"));
        request.engine = EngineChoice::Sync;
        request.cipher = cipher.into();
        let surroundings =
            Surroundings { entropy: Box::new(Seeded::new(99)), now: FileTime::from_unix(1_700_000_000, 0) };
        let prepared = prepare_with(request, surroundings, &Default::default(), &mut |_| {}).expect("a plan");
        let report = prepared.run(&[], &|_| {}, &Stop::new()).expect("a session");
        let record = report.drives[0].record.clone().expect("a record");
        let key = Key::read(&fs::read(record).expect("a record")).expect("a key");
        (planted(&image, SectorSize::S512), key)
    }

    fn tree(&self) -> DriveTree {
        let path = self.dataset("two");
        let mut problems = Problems::default();
        let rows = dataset::parse_into(&path, &fs::read(&path).expect("a dataset"), &mut problems).rows;
        let (own, selection) = (Own::default(), Selection::default());
        let of = scan::Of {
            dataset: &path,
            rows: &rows,
            root_units: 10,
            sets: Sets::default(),
            own: &own,
            selection: &selection,
        };
        let scanned = scan::scan(&of, &mut problems, &mut |_| {}).expect("a catalog");
        assert_eq!(problems, Problems::default());
        let all: Vec<u32> = (0..scanned.catalog.files().len() as u32).collect();
        let now = FileTime::from_unix(NOW, 0);
        let text = Md5Text { before: "<Content-MD5>".into(), after: "</Content-MD5>".into() };
        let texts = if self.has_md5s { vec![text] } else { Vec::new() };
        DriveTree::new(Arc::new(scanned.catalog), &all, "session#2", texts, Vec::new(), now)
    }

    pub(crate) fn file(&self, name: &str) -> File {
        let path = self.dir.join(name);
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path).expect("a sidecar")
    }
}

/// A simulated disk with the bytes of a file.
pub(super) fn planted(image: &Path, sector: SectorSize) -> SimDisk {
    let file = File::open(image).expect("an image");
    let len = file.metadata().expect("an image").len();
    let disk = SimDisk::new(ByteLen(len), sector, 1);
    let mut piece = vec![0; 1 << 20];
    for at in (0..len).step_by(1 << 20) {
        let n = (len - at).min(1 << 20) as usize;
        file.read_exact_at(&mut piece[..n], at).expect("an image");
        if piece[..n].iter().any(|byte| *byte != 0) {
            disk.plant(DeviceOffset(at), &piece[..n]);
        }
    }
    disk
}

pub(crate) fn opened(disk: &SimDisk, key: &Key) -> Opened {
    let drive = DriveFacts {
        name: "sim".into(),
        path: "sim".into(),
        drive_id: "drive".into(),
        serial: None,
        for_shipping: false,
        model: None,
        size: disk.size(),
        sector: 512,
        contents: None,
        is_image: true,
        rotational: None,
    };
    let found = Found::look(Box::new(disk.clone()), drive, None, None).expect("a volume");
    found.unlock(key, &mut |_, _| {}).expect("the key opens it")
}

/// BitLocker's boot sector has the same disk geometry as the one inside (docs/spec/bitlocker.md#boot-sector).
pub(crate) fn assert_same_shape(disk: &SimDisk, opened: &Opened) {
    let (mut outside, mut inside) = (vec![0; 4096], vec![0; 4096]);
    disk.read_at(opened.found.volume.start, &mut outside);
    opened.read(VolumeOffset(0), &mut inside).expect("a boot sector");
    assert_eq!((&outside[3..11], &inside[3..11]), (&b"-FVE-FS-"[..], &b"NTFS    "[..]));
    assert_eq!(outside[0x18..0x20], inside[0x18..0x20]);
    let first = u64::from(u32::from_le_bytes([inside[0x1C], inside[0x1D], inside[0x1E], inside[0x1F]]));
    assert_eq!(first * disk.sector(), opened.found.volume.start.0);
}

/// Pattern of old data.
const OLD: &[u8; 16] = b"OLD SECRET DATA ";

/// Fills a range with old data, each piece marked with its offset.
pub(crate) fn plant_old(disk: &SimDisk, range: DeviceRange) {
    let mut piece = vec![0; 1 << 20];
    let mut at = range.start.0;
    while at < range.end().0 {
        let len = (range.end().0 - at).min(1 << 20) as usize;
        for (i, words) in piece.chunks_mut(32).enumerate() {
            words[..16].copy_from_slice(OLD);
            words[16..24].copy_from_slice(&at.to_le_bytes());
            words[24..].copy_from_slice(&(i as u64).to_le_bytes());
        }
        disk.plant(DeviceOffset(at), &piece[..len]);
        at += len as u64;
    }
}

/// Runs of 512 bytes that contain old data.
pub(crate) fn old_data(disk: &SimDisk) -> Vec<DeviceRange> {
    let mut runs: Vec<DeviceRange> = Vec::new();
    let mut piece = vec![0; 1 << 20];
    for at in (0..disk.size().0).step_by(1 << 20) {
        let len = (disk.size().0 - at).min(1 << 20) as usize;
        disk.read_at(DeviceOffset(at), &mut piece[..len]);
        for (i, sector) in piece[..len].chunks(512).enumerate() {
            if sector.chunks(16).all(|words| words != OLD) {
                continue;
            }
            let start = at + i as u64 * 512;
            match runs.last_mut() {
                Some(last) if last.end().0 == start => last.len.0 += 512,
                _ => runs.push(DeviceRange::new(start, 512)),
            }
        }
    }
    runs
}

/// Old data are readable in clusters that `$Bitmap` marks free, and outside partitions: somewhere there, and nowhere
/// else.
pub(crate) fn assert_left(opened: &Opened, found: &[DeviceRange], size: u64, what: &str) {
    let volume = Volume::open(&mut View(opened), opened.len()).expect("NTFS");
    let cluster = volume.geometry().cluster;
    let start = opened.found.volume.start.0;
    let free = free_runs(&volume, &mut View(opened), &[]).expect("a bitmap").into_iter();
    let mut may: Vec<DeviceRange> =
        free.map(|run| DeviceRange::new(start + cluster.offset_of(run.lcn).0, cluster.len_of(run.len).0)).collect();
    let table = opened.found.table.as_ref().expect("a table");
    let mut partitions: Vec<DeviceRange> = table.partitions.iter().map(|entry| entry.range).collect();
    partitions.sort();
    let mut at = 0;
    for partition in partitions.into_iter().chain([DeviceRange::new(size, 0)]) {
        may.push(DeviceRange::new(at, partition.start.0 - at));
        at = partition.end().0;
    }
    assert!(!found.is_empty(), "{what}: the test looks for what is there");
    for range in found {
        let inside = |may: &DeviceRange| may.end().0.min(range.end().0).saturating_sub(may.start.0.max(range.start.0));
        let inside: u64 = may.iter().map(inside).sum();
        assert_eq!(inside, range.len.0, "{what}: old data in the clear in {range:?}, some of which is in use");
    }
}

/// Everything up to a complete sidecar; the disk is flushed.
fn copied(lab: &Lab, disk: &SimDisk, key: &Key, sidecar: &mut File) -> Result<Appended, Problem> {
    copied_from(lab, disk, key, sidecar, &Mutex::new(None), Pace::default(), false)
}

/// A second session, from start to end.
pub(crate) fn added(lab: &Lab, disk: &SimDisk, key: &Key, wipe_free: bool) {
    let mut sidecar = lab.file("sidecar");
    let none = Mutex::new(None);
    let done = copied_from(lab, disk, key, &mut sidecar, &none, Pace::default(), wipe_free);
    assert_eq!(done.unwrap_or_else(|problem| panic!("{problem}")).left_out, BTreeMap::new());
    with_store(disk, |store| commit::redo(&mut sidecar, store)).expect("a volume");
}

/// As [`copied`], from the durable part on.
fn copied_from(
    lab: &Lab,
    disk: &SimDisk,
    key: &Key,
    sidecar: &mut File,
    durable: &Mutex<Option<Durable>>,
    pace: Pace,
    wipe_free: bool,
) -> Result<Appended, Problem> {
    let opened = opened(disk, key);
    let (tree, workers, stop) = (lab.tree(), Workers::start(2).expect("threads"), Stop::new());
    let rules = Rules { drive_id: "drive".into(), session: "session#2".into(), rows: vec![RowRules::default()] };
    let now = FileTime::from_unix(NOW, 0);
    let manifest_len_max = crate::work::manifest::len_max(&tree, &rules).0;
    let avoid = &lab.avoid;
    let what = Addition { name: "sim", opened: &opened, avoid, tree: &tree, rules: &rules, manifest_len_max, now };
    let job = AdditionJob {
        index: 0,
        what,
        pace,
        bases: &[],
        beside: &lab.dir,
        rate_limit: &RateLimit::new(None, std::time::Instant::now()),
        workers: &workers,
        wipe_free,
        events: &|event| {
            if (lab.stops)(&event) {
                stop.request();
            }
            lab.events.lock().expect("events").push(event);
        },
        stop: &stop,
    };
    let planned = what.plan().map_err(|refused| refused.problem("sim"))?;
    let pool = Pool::new(8, lab.slot_len).expect("slots");
    let from = *durable.lock().expect("a checkpoint");
    let log = match from {
        None => (OutcomeLog::new(lab.file("hashes")), Replay::default()),
        Some(from) => {
            let file = OpenOptions::new().read(true).write(true).open(lab.dir.join("hashes")).expect("a log");
            OutcomeLog::resume(file, &from.outcome, from.next.0).expect("the log of the checkpoint")
        }
    };
    if let Some(from) = from {
        let bad = copy::first_bad(&what, &planned.append, pool.slot_len(), &log.1.sums, |_| true)?;
        assert_eq!(bad, None, "{from:?}: what was durable is there");
    }
    let mut save: Save<'_> = Box::new(|now: &Durable| {
        *durable.lock().expect("a checkpoint") = Some(*now);
        Ok(())
    });
    let failures = Failures::of("sim", lab.node.clone()).within(Outlook::with_rollback(commit::MEANWHILE));
    let io = BlockIo::new(Box::new(disk.engine()), pool.clone(), failures).within(lab.timeouts).until(&stop);
    let mut store = Store::new(io, job.events);
    let done = job.copy(&planned, &mut store, &pool, log, &mut save, sidecar)?;
    drop(save);
    // Nothing was written where anything was.
    for deed in disk.deeds() {
        if let Deed::Write(range) = deed {
            let free = planned.is_free(&opened, range);
            assert!(free, "{range:?} is not free");
        }
    }
    Ok(done)
}

pub(crate) fn with_store<T>(disk: &SimDisk, act: impl FnOnce(&mut Store<'_>) -> T) -> T {
    let pool = Pool::new(8, 1 << 20).expect("slots");
    let io = BlockIo::new(Box::new(disk.engine()), pool, Failures::of("sim", None));
    act(&mut Store::new(io, &|_| ()))
}

/// An independent disk with the same bytes; everything on it is durable.
pub(crate) fn twin(disk: &SimDisk) -> SimDisk {
    disk.image_after_cut(Landed::Bits(u64::MAX))
}

/// The unlocked volume in a file.
pub(super) fn unlocked(opened: &Opened, plain: &Path) {
    let file = File::create(plain).expect("an image");
    file.set_len(opened.len().0).expect("room");
    let mut piece = vec![0; 1 << 20];
    for at in (0..opened.len().0).step_by(1 << 20) {
        let n = (opened.len().0 - at).min(1 << 20) as usize;
        opened.read(VolumeOffset(at), &mut piece[..n]).expect("a volume");
        file.write_all_at(&piece[..n], at).expect("room");
    }
}

/// The unlocked volume in a file, examined by other programs.
fn judge(lab: &Lab, disk: &SimDisk, key: &Key, name: &str, trees: &[(&str, &str)]) {
    let opened = opened(disk, key);
    let plain = lab.dir.join(name);
    unlocked(&opened, &plain);
    if let Some(text) = succeeds(Command::new("ntfsfix").arg("-n").arg(&plain)) {
        assert!(text.contains("processed successfully") && !text.contains("FAILED"), "{text}");
    }
    succeeds(Command::new("fls").args(["-f", "ntfs", "-r", "-p", "-u"]).arg(&plain));
    let report = Volume::open(&mut View(&opened), opened.len()).expect("NTFS").check(&mut View(&opened));
    assert!(report.is_sound(), "{:?}", report.findings);
    let Some(mount) = Mount::at(&plain, "ro,streams_interface=none") else { return };
    for (session, tree) in trees {
        let mut pending = vec![PathBuf::new()];
        while let Some(dir) = pending.pop() {
            for entry in fs::read_dir(lab.dir.join(tree).join(&dir)).expect("a source") {
                let path = dir.join(entry.expect("an entry").file_name());
                let source = lab.dir.join(tree).join(&path);
                if source.is_dir() {
                    pending.push(path);
                    continue;
                }
                let there = fs::read(mount.0.join(session).join(tree).join(&path));
                assert!(there.expect("a file") == fs::read(&source).expect("a source"), "{}", path.display());
            }
        }
    }
    let manifest = fs::read_to_string(mount.0.join(MANIFEST_NAME)).expect("a manifest");
    for (session, _) in trees {
        assert!(manifest.contains(&format!("<BlobList Id=\"{session}-0\">")), "{manifest}");
    }
    assert_eq!(manifest.matches("<DriveManifest").count(), 1);
    assert!(manifest.ends_with("</BlobList>\n</Drive>\n</DriveManifest>\n"));
}

/// Cuts the power at every write and flush of `act`, and passes each resulting disk to `then`.
pub(super) fn cut_everywhere(
    start: &SimDisk,
    act: impl Fn(&SimDisk) -> Result<(), Problem>,
    mut then: impl FnMut(&SimDisk, u64),
) -> u64 {
    for cut in 1.. {
        let disk = twin(start);
        disk.set_faults(Faults { cut_after: Some(cut), ..Faults::default() });
        if act(&disk).is_ok() {
            assert!(!disk.is_dead());
            return cut - 1;
        }
        for landed in [Landed::Bits(0), Landed::Bits(u64::MAX), Landed::Seeded(cut), Landed::Seeded(cut + 1000)] {
            then(&disk.image_after_cut(landed), cut);
        }
    }
    unreachable!("a session ends");
}

fn cut_and_judge(lab: &Lab, disk: &SimDisk, key: &Key, trees: &[(&str, &str)]) {
    let mut sidecar = lab.file("sidecar");
    let done = copied(lab, disk, key, &mut sidecar).unwrap_or_else(|problem| panic!("{problem}"));
    assert_eq!((done.files, done.left_out), (6, BTreeMap::new()));
    assert!(commit::is_whole(&mut sidecar).expect("a sidecar"));
    let before = twin(disk);
    let finished = twin(disk);
    with_store(&finished, |store| commit::redo(&mut sidecar, store)).expect("a volume");
    let finished = twin(&finished);
    judge(lab, &finished, key, "plain", trees);

    let sidecar = std::cell::RefCell::new(sidecar);
    let redo = |disk: &SimDisk| with_store(disk, |store| commit::redo(&mut sidecar.borrow_mut(), store));
    let undo = |disk: &SimDisk| with_store(disk, |store| commit::undo(&mut sidecar.borrow_mut(), store));
    let both = |left: &SimDisk, cut| {
        let again = twin(left);
        redo(&again).expect("finishing works");
        assert_eq!(again.difference(&finished), None, "finished after cut {cut}");
        undo(left).expect("taking back works");
        assert_eq!(left.difference(&before), None, "taken back after cut {cut}");
    };
    let cuts = cut_everywhere(&before, redo, both);
    let back = cut_everywhere(&finished, undo, both);
    assert!(cuts > 10 && back > 10, "{cuts} and {back} cuts");
    eprintln!("power cut after each of {cuts} writes and flushes of a commit, {back} of taking it back");
}

#[test]
fn judge_power_cuts_in_a_second_session_are_finished_or_taken_back() {
    let lab = Lab::new("second");
    let (disk, key) = lab.first("aes-cbc-256");
    cut_and_judge(&lab, &disk, &key, &[("session#1", "one"), ("session#2", "two")]);
}

#[test]
fn judge_power_cuts_while_adding_to_a_volume_of_windows_are_finished_or_taken_back() {
    let lab = Lab::new("windows");
    let image = lab.dir.join("windows.img");
    if !dray_fixtures::unpack("bitlocker/win-server2019-xts128-ntfs-full.img", &image) {
        return;
    }
    let key = Key::read(b"272316-265804-640728-713570-509047-503305-045837-324731").expect("a key");
    let disk = planted(&image, SectorSize::S512);
    // Windows did not close it: ntfsfix empties its log.
    let (before, after) = (lab.dir.join("before"), lab.dir.join("after"));
    unlocked(&opened(&disk, &key), &before);
    fs::copy(&before, &after).expect("a copy");
    if succeeds(Command::new("ntfsfix").arg("-d").arg(&after)).is_none() {
        return;
    }
    let (before, mut after) = (fs::read(before).expect("a volume"), fs::read(after).expect("a volume"));
    let was = opened(&disk, &key);
    for (at, (before, after)) in (0u64..).step_by(4096).zip(before.chunks(4096).zip(after.chunks_mut(4096))) {
        if before != after {
            assert!(at >= 8192, "the front has another home");
            was.cipher().expect("a cipher").seal(VolumeOffset(at), after);
            disk.plant(was.device_offset(VolumeOffset(at)), after);
        }
    }
    cut_and_judge(&lab, &disk, &key, &[("session#2", "two")]);
}

#[test]
fn power_cuts_while_files_are_copied_lose_nothing_that_was_durable() {
    cut_while_copied(&Lab::new("copying"), 5);
}

#[test]
fn power_cuts_lose_nothing_of_blocks_longer_than_a_slot_and_of_files_hashed_as_a_whole() {
    let mut lab = Lab::new("copying-long");
    (lab.slot_len, lab.has_md5s) = (1 << 20, true);
    cut_while_copied(&lab, 10);
}

fn cut_while_copied(lab: &Lab, cuts_min: u64) {
    let (disk, key) = lab.first("xts-aes-256");
    // A checkpoint after each slot.
    let pace = Pace { bytes: 1, ..Pace::default() };
    let mut sidecar = lab.file("sidecar");
    let whole = twin(&disk);
    copied_from(lab, &whole, &key, &mut sidecar, &Mutex::new(None), pace, false).unwrap_or_else(|p| panic!("{p}"));
    let (whole, images) = (twin(&whole), fs::read(lab.dir.join("sidecar")).expect("a sidecar"));
    let (mut cuts, mut from_the_middle) = (0, 0);
    for cut in 1.. {
        let cut_disk = twin(&disk);
        cut_disk.set_faults(Faults { cut_after: Some(cut), ..Faults::default() });
        let durable = Mutex::new(None);
        if copied_from(lab, &cut_disk, &key, &mut lab.file("sidecar"), &durable, pace, false).is_ok() {
            break;
        }
        let left = cut_disk.image_after_cut(Landed::Seeded(cut));
        let before = *durable.lock().expect("a checkpoint");
        from_the_middle += u64::from(before.is_some_and(|before| before.next.0 > 0));
        let mut sidecar = lab.file("sidecar");
        copied_from(lab, &left, &key, &mut sidecar, &durable, pace, false)
            .unwrap_or_else(|problem| panic!("{cut}: {problem}"));
        assert_eq!(twin(&left).difference(&whole), None, "after cut {cut}");
        assert_eq!(fs::read(lab.dir.join("sidecar")).expect("a sidecar"), images, "after cut {cut}");
        cuts += 1;
    }
    assert!(cuts > cuts_min && from_the_middle > cuts_min / 2, "{cuts} cuts, {from_the_middle} from the middle");
    eprintln!(
        "power cut after each of {cuts} writes and flushes while copying, {from_the_middle} from a checkpoint on"
    );
}

/// Digests of the drive's contents from the files on, and of the outcome log, with this cipher and with fragmented free
/// space or not. Times of the sources are in neither.
fn digests(name: &str, cipher: &str, is_cut: bool) -> [String; 2] {
    let mut lab = Lab::new(name);
    if is_cut {
        lab.avoid = (0..100).map(|i| VolumeRange::new((i * 1020) << 10, 64 << 10)).collect();
    }
    let (disk, key) = lab.first(cipher);
    let done = copied(&lab, &disk, &key, &mut lab.file("sidecar")).unwrap_or_else(|problem| panic!("{problem}"));
    assert_eq!((done.files, done.left_out), (6, BTreeMap::new()));
    let (opened, tree) = (opened(&disk, &key), lab.tree());
    let rules = Rules { drive_id: "drive".into(), session: "session#2".into(), rows: vec![RowRules::default()] };
    let now = FileTime::from_unix(NOW, 0);
    let (manifest_len_max, avoid) = (crate::work::manifest::len_max(&tree, &rules).0, &lab.avoid);
    let what = Addition { name: "sim", opened: &opened, avoid, tree: &tree, rules: &rules, manifest_len_max, now };
    let places = what.plan().map_err(|refused| refused.problem("sim")).expect("a plan").places(&opened);
    let files: Vec<_> = places.iter().filter(|place| place.kind == RegionKind::Files).collect();
    assert_eq!(files.len() > 1, is_cut, "{files:?}");
    let mut hash = Sha256::default();
    for Region { start: at, len, .. } in files {
        let mut bytes = vec![0; len.0 as usize];
        disk.read_at(*at, &mut bytes);
        hash.update(&at.0.to_le_bytes());
        hash.update(&bytes);
    }
    let log = crate::hash::sha256(&fs::read(lab.dir.join("hashes")).expect("a log"));
    [hash.value(), log].map(|digest| crate::hash::hex_upper(&digest)[..16].to_owned())
}

#[test]
fn a_second_session_writes_the_bytes_that_it_always_wrote() {
    for (i, (cipher, is_cut, golden)) in [
        ("aes-cbc-256", false, ["9BD02A818336ADFD", "D3B4F82827E8B834"]),
        ("xts-aes-128", false, ["299923A85FFC9189", "D3B4F82827E8B834"]),
        ("xts-aes-256", true, ["8471D77AD95CB7EC", "D3B4F82827E8B834"]),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(digests(&format!("golden-{i}"), cipher, is_cut), golden, "{cipher}, cut: {is_cut}");
    }
}

#[test]
fn slots_shorter_than_a_block_make_the_same_drive() {
    let manifests = [SLOT_LEN, 2 << 20, 1 << 20].map(|slot_len| {
        let mut lab = Lab::new("slots");
        lab.has_md5s = true;
        let (disk, key) = lab.first("xts-aes-128");
        lab.slot_len = slot_len;
        let done = copied(&lab, &disk, &key, &mut lab.file("sidecar")).unwrap_or_else(|problem| panic!("{problem}"));
        assert_eq!((done.files, done.left_out), (6, BTreeMap::new()));
        (done.manifest_md5, done.written)
    });
    assert!(manifests.iter().all(|one| *one == manifests[0]), "{manifests:?}");
}

/// The problem that ends a second session on a disk with these faults, after checking that it states that nothing is
/// lost.
fn ended(lab: &Lab, disk: &SimDisk, key: &Key, faults: Faults) -> Problem {
    disk.set_faults(faults);
    let durable = Mutex::new(None);
    let pace = Pace { bytes: 1, ..Pace::default() };
    let problem = copied_from(lab, disk, key, &mut lab.file("sidecar"), &durable, pace, false).map(drop);
    let problem = problem.expect_err("an end");
    assert_eq!(problem.place.drive.as_deref(), Some("sim"), "{problem}");
    let advice = problem.advice.clone().unwrap_or_default();
    assert!(advice.to_string().contains("the volume is what it was before"), "{advice}");
    assert!(advice.asks_for(Setting::Resume), "{advice}");
    problem
}

#[test]
fn a_volume_whose_drive_is_pulled_says_so() {
    let mut lab = Lab::new("pulled");
    let (disk, key) = lab.first("xts-aes-128");
    let mut sidecar = lab.file("images");
    let whole = twin(&disk);
    copied(&lab, &whole, &key, &mut sidecar).unwrap_or_else(|problem| panic!("{problem}"));
    let faults = || Faults { write_errors: vec![DeviceRange::new(0, disk.size().0)], ..Faults::default() };
    // Of one that is still attached.
    let problem = ended(&lab, &twin(&disk), &key, faults());
    assert!(problem.what.contains("writing failed (file data)") && problem.place.at.is_some(), "{problem}");
    let node = lab.dir.join("no-such-node");
    lab.node = Some(node.clone());
    let problem = ended(&lab, &twin(&disk), &key, faults());
    assert!(problem.what.contains("went away while it was written"), "{problem}");
    // While the files become part of it.
    whole.set_faults(faults());
    let pool = Pool::new(2, 1 << 20).expect("slots");
    let failures = Failures::of("sim", Some(node)).within(Outlook::with_rollback(commit::MEANWHILE));
    let mut store = Store::new(BlockIo::new(Box::new(whole.engine()), pool, failures), &|_| ());
    let problem = commit::redo(&mut sidecar, &mut store).expect_err("no drive");
    assert!(problem.what.contains("went away while it was written"), "{problem}");
    assert!(problem.advice.is_some_and(|advice| advice.asks_for(Setting::Abort)), "both ways are open");
}

#[test]
fn a_volume_on_a_slow_drive_is_reported_before_it_is_given_up() {
    let mut lab = Lab::new("slow");
    let (disk, key) = lab.first("xts-aes-128");
    // Long enough for a busy machine to look several times.
    lab.timeouts = Timeouts { slow: Duration::from_millis(20), hung: Duration::from_secs(3) };
    let problem = ended(&lab, &disk, &key, Faults { hang_at: Some(1), ..Faults::default() });
    assert!(problem.what.contains("does not answer"), "{problem}");
    let warned = |event: &&Event| matches!(event, Event::Warning(text) if text.what.contains("has been waiting for"));
    let warnings = lab.events.lock().expect("events").iter().filter(warned).count();
    assert!((2..=9).contains(&warnings), "{warnings} warnings: each time the age has doubled");
    // While the files become part of it, and while that is taken back.
    lab.timeouts = Timeouts::default();
    let mut sidecar = lab.file("images");
    copied(&lab, &twin(&disk), &key, &mut sidecar).unwrap_or_else(|problem| panic!("{problem}"));
    for act in [commit::redo, commit::undo] {
        let disk = twin(&disk);
        disk.set_faults(Faults { hang_at: Some(1), ..Faults::default() });
        let pool = Pool::new(2, 1 << 20).expect("slots");
        let warnings = Mutex::new(0);
        let count = |event: Event| *warnings.lock().expect("a number") += usize::from(warned(&&event));
        let timeouts = Timeouts { slow: Duration::from_millis(20), hung: Duration::from_secs(2) };
        let io = BlockIo::new(Box::new(disk.engine()), pool, Failures::of("sim", None)).within(timeouts);
        let mut store = Store::new(io, &count);
        let problem = act(&mut sidecar, &mut store).expect_err("it hangs");
        assert!(problem.what.contains("does not answer") && problem.place.drive.is_some(), "{problem}");
        drop(store);
        let warnings = warnings.into_inner().expect("a number");
        assert!((1..=8).contains(&warnings), "{warnings} warnings");
    }
}

#[test]
fn a_volume_that_gets_files_tells_what_it_waits_for() {
    let lab = Lab::new("waits");
    let (disk, key) = lab.first("xts-aes-128");
    disk.set_faults(Faults { latency_max: Duration::from_millis(900), ..Faults::default() });
    let started = Instant::now();
    copied(&lab, &disk, &key, &mut lab.file("sidecar")).unwrap_or_else(|problem| panic!("{problem}"));
    let most = 10 + started.elapsed().as_millis() / 200;
    let events = lab.events.lock().expect("events");
    let waiting = events.iter().filter_map(|event| match event {
        Event::Progress { waiting_for, files, .. } => Some((*waiting_for, *files)),
        _ => None,
    });
    let waiting: Vec<_> = waiting.collect();
    assert!(waiting.iter().any(|(waiting_for, _)| *waiting_for == Waiting::Drive), "{waiting:?}");
    assert_eq!(waiting.last().map(|(_, files)| *files), Some(6), "{waiting:?}");
    assert!(waiting.len() as u128 <= most, "{} events, {most} at most", waiting.len());
}

#[test]
fn a_stop_while_files_are_copied_ends_at_a_checkpoint() {
    let mut lab = Lab::new("stopped");
    let (disk, key) = lab.first("xts-aes-128");
    let whole = twin(&disk);
    copied(&lab, &whole, &key, &mut lab.file("sidecar")).unwrap_or_else(|problem| panic!("{problem}"));
    lab.stops = |event| matches!(event, Event::Stage { stage: Stage::Data, .. });
    let problem = ended(&lab, &disk, &key, Faults::default());
    assert_eq!(problem.kind, Kind::Interrupted, "{problem}");
    // Data already read is written to the drive before the stop.
    lab.stops = |event| matches!(event, Event::Progress { acknowledged, .. } if acknowledged.0 > 0);
    lab.slot_len = 1 << 20;
    disk.set_faults(Faults { latency_max: Duration::from_millis(30), ..Faults::default() });
    let (durable, mut sidecar) = (Mutex::new(None), lab.file("sidecar"));
    let stopped = copied_from(&lab, &disk, &key, &mut sidecar, &durable, Pace::default(), false).map(drop);
    assert_eq!(stopped.expect_err("an end").kind, Kind::Interrupted);
    assert!(durable.lock().expect("a checkpoint").is_some_and(|durable| durable.next.0 > 0), "{durable:?}");
    lab.stops = |_| false;
    copied_from(&lab, &disk, &key, &mut sidecar, &durable, Pace::default(), false).unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(twin(&disk).difference(&twin(&whole)), None);
}

#[test]
fn what_was_added_is_read_back_and_a_flipped_bit_is_told() {
    let lab = Lab::new("back");
    let (disk, key) = lab.first("aes-cbc-256");
    let mut sidecar = lab.file("sidecar");
    let done = copied(&lab, &disk, &key, &mut sidecar).unwrap_or_else(|problem| panic!("{problem}"));
    with_store(&disk, |store| commit::redo(&mut sidecar, store)).expect("a volume");
    let workers = Workers::start(2).expect("threads");
    let back = |manifest_md5, below| {
        let opened = opened(&disk, &key);
        let context = judge::Context {
            index: 0,
            request: &judge::VerifyRequest::default(),
            logs: &Default::default(),
            journals: &Default::default(),
            workers: &workers,
            events: &|_| {},
            stop: &Stop::new(),
            deliver: None,
        };
        let choose = &mut |count| (0..count).collect();
        added::run(&opened, &context, Added { manifest: "\\DriveManifest.xml", manifest_md5, below, choose })
    };
    let lens = [1u64, 4096, 4097, 70_000, (5 << 20) + 3];
    assert_eq!(back(done.manifest_md5, Some("\\session#2")).expect("as written"), ByteLen(lens.iter().sum()));
    assert_eq!(back(done.manifest_md5, Some("\\session#1")).expect("as written"), ByteLen(5001));
    let other = back([7; 16], None).expect_err("another manifest");
    assert!(other.kind == Kind::Different && other.what.contains("manifest"), "{other}");

    for (i, len) in (1..).zip(lens) {
        let deep = if i % 2 == 0 { "" } else { "deep\\" };
        let path = format!("\\session#2\\two\\{deep}file {i}.bin");
        let at = {
            let opened = opened(&disk, &key);
            let files = Files::read(&opened).expect("files");
            let extents = files.catalog.extents(&files.volume, files.find(&path).expect("a file")).expect("extents");
            let run = extents.last().expect("a run");
            let RunPlace::Lcn(lcn) = run.place else { panic!("{run:?}") };
            let cluster = files.volume.geometry().cluster;
            opened.device_offset(VolumeOffset(cluster.offset_of(lcn).0 + len - 1 - run.offset))
        };
        disk.set_faults(Faults { flips: vec![(at, 1)], ..Faults::default() });
        let reported = back(done.manifest_md5, Some("\\session#2")).expect_err(&path);
        assert_eq!((reported.kind, reported.value.as_deref()), (Kind::Different, Some(&*path)), "{reported}");
        assert!(back(done.manifest_md5, Some("\\session#1")).is_ok(), "another session's files are not read");
    }
}

#[test]
fn a_volume_that_windows_did_not_close_is_refused_untouched() {
    let lab = Lab::new("windows");
    let image = lab.dir.join("windows.img");
    if !dray_fixtures::unpack("bitlocker/win-server2019-xts128-ntfs-full.img", &image) {
        return;
    }
    let key = Key::read(b"272316-265804-640728-713570-509047-503305-045837-324731").expect("a key");
    let disk = planted(&image, SectorSize::S512);
    let problem = copied(&lab, &disk, &key, &mut lab.file("sidecar")).map(drop).expect_err("its log is open");
    assert!(problem.what.contains("was not closed"), "{problem}");
    assert!(!disk.deeds().iter().any(|deed| matches!(deed, Deed::Write(_))), "something was written");
}

#[test]
fn a_torn_sidecar_is_told_from_a_whole_one() {
    let lab = Lab::new("torn");
    let (disk, key) = lab.first("xts-aes-128");
    let mut sidecar = lab.file("sidecar");
    copied(&lab, &disk, &key, &mut sidecar).unwrap_or_else(|problem| panic!("{problem}"));
    let len = sidecar.metadata().expect("a sidecar").len();
    assert!(commit::is_whole(&mut sidecar).expect("a sidecar"));
    for at in [3, len / 2, len - 3] {
        let mut byte = [0];
        sidecar.read_exact_at(&mut byte, at).expect("a byte");
        sidecar.write_all_at(&[byte[0] ^ 4], at).expect("a byte");
        assert!(!commit::is_whole(&mut sidecar).expect("a sidecar"), "byte {at} is flipped");
        sidecar.write_all_at(&byte, at).expect("a byte");
    }
    for len in [len - 1, len / 2, 8, 0] {
        sidecar.set_len(len).expect("shorter");
        assert!(!commit::is_whole(&mut sidecar).expect("a sidecar"), "cut to {len}");
    }
}
