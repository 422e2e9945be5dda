//! A plain volume made by other programs, encrypted on a simulated disk: power cuts at every write and flush, and the
//! judges.

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use dray_fixtures::judges::{Mount, succeeds};

use super::super::tests::{
    assert_left, assert_same_shape, cut_everywhere, old_data, plant_old, planted, twin, unlocked, with_store,
};
use super::*;
use crate::bitlocker::build::{REGION_LEN, Spec, VolumeSecrets};
use crate::checkpoint::work::AppendState;
use crate::checkpoint::{Checkpoint, WorkState};
use crate::crypt::Cipher;
use crate::entropy::{Entropy, Seeded};
use crate::gpt::{Guids, Scheme, Table};
use crate::io::sim::{Deed, Faults, Landed, SimDisk};
use crate::ntfs::append::free_runs;
use crate::ntfs::build::{Layout, VolumeSpec};
use crate::plan::tree::DriveTree;
use crate::session::run::tests::golden::catalog;
use crate::units::{ClusterSize, DeviceOffset, Guid, StreamOffset};
use crate::volume::key::Key;

const NOW: i64 = 1_767_600_000;
/// First byte of the partition.
const AT: u64 = 1 << 20;

struct Lab {
    dir: PathBuf,
    sector: SectorSize,
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Files of a volume, by path.
type Files = Vec<(String, Vec<u8>)>;

impl Lab {
    fn new(name: &str, sector: SectorSize) -> Self {
        // Every batch is made durable next to the journal: thousands of times in these tests.
        let memory = PathBuf::from("/dev/shm");
        let base = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let dir = base.join(format!("dray-in-place-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a directory");
        Self { dir, sector }
    }

    /// A disk with one partition, and on it a volume that mkntfs made and ntfs-3g wrote to. `None` where one is missing.
    fn plain(&self, len: u64, args: &[&str]) -> Option<(SimDisk, Files)> {
        let volume = self.dir.join("volume");
        File::create(&volume).expect("a file").set_len(len).expect("room");
        let sector = self.sector.bytes();
        let (from, sector) = ((AT / sector).to_string(), sector.to_string());
        let common = ["-F", "-q", "-L", "plain", "-p", &from, "-s", &sector];
        succeeds(Command::new("mkntfs").args(common).args(args).arg(&volume))?;
        let mut files = Vec::new();
        {
            let mount = Mount::at(&volume, "rw")?;
            let lens = [0, 1, 700, 4096, 100_001, 3 << 20, 77_777, 1 << 20];
            for (i, len) in lens.into_iter().enumerate() {
                let mut bytes = vec![0; len];
                Seeded::new(i as u64).fill(&mut bytes);
                let path = format!("{}file {i}.bin", if i % 2 == 0 { "" } else { "deep/er/" });
                fs::create_dir_all(mount.0.join("deep/er")).expect("a directory");
                fs::write(mount.0.join(&path), &bytes).expect("room");
                // Leaves a hole.
                fs::write(mount.0.join("gone"), vec![1; 200_000]).expect("room");
                files.push((path, bytes));
            }
            fs::remove_file(mount.0.join("gone")).expect("removed");
        }
        Some((self.disk(&volume, len)?, files))
    }

    /// A disk with this volume on its one partition.
    fn disk(&self, volume: &Path, len: u64) -> Option<SimDisk> {
        let image = self.dir.join("image");
        File::create(&image).expect("a file").set_len(len + 2 * AT).expect("room");
        let sector = self.sector.bytes();
        let (first, last) = (AT / sector, (AT + len) / sector - 1);
        let words = self.dir.join("words");
        fs::write(&words, format!("g\nn\n1\n{first}\n{last}\nt\n11\nw\n")).expect("room");
        let words = File::open(words).expect("a file");
        succeeds(Command::new("fdisk").args(["-b", &sector.to_string()]).arg(&image).stdin(words))?;
        let file = OpenOptions::new().write(true).open(&image).expect("an image");
        let bytes = fs::read(volume).expect("a volume");
        for (i, piece) in bytes.chunks(1 << 20).enumerate().filter(|(_, piece)| piece.iter().any(|&b| b != 0)) {
            file.write_all_at(piece, AT + ((i as u64) << 20)).expect("room");
        }
        Some(planted(&image, self.sector))
    }

    fn sides(&self, name: &str) -> Sides {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir).expect("a directory");
        let open = |name: &str| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).open(dir.join(name)).expect("a file")
        };
        Sides { images: open("images"), batches: open("ring") }
    }

    /// The same files, copied.
    fn copied(&self, from: &str, to: &str) -> Sides {
        fs::create_dir_all(self.dir.join(to)).expect("a directory");
        for name in ["images", "ring"] {
            fs::copy(self.dir.join(from).join(name), self.dir.join(to).join(name)).expect("room");
        }
        self.sides(to)
    }
}

struct Sides {
    images: File,
    batches: File,
}

/// State shared by all attempts on one disk.
struct Case {
    keys: InPlaceKeys,
    started: State,
    batch_len: u64,
    facts: DriveFacts,
}

fn facts(disk: &SimDisk) -> DriveFacts {
    let (size, sector) = (disk.size(), disk.sector());
    DriveFacts { name: "sim".into(), size, sector, is_image: true, ..DriveFacts::default() }
}

fn sector(disk: &SimDisk) -> SectorSize {
    SectorSize::from_bytes(disk.sector()).expect("a sector size")
}

fn found(disk: &SimDisk) -> Found {
    Found::look(Box::new(disk.clone()), facts(disk), None, None).expect("a partition")
}

fn planned(disk: &SimDisk) -> Result<(InPlace, Opened), Problem> {
    let opened = plain(found(disk))?;
    let mut view = View(&opened);
    let volume = Volume::open(&mut view, opened.len()).map_err(|error| refused(&error.into(), "sim"))?;
    let partition =
        PartitionGeometry { len: opened.found.volume.len, sector: sector(disk), now: FileTime::from_unix(NOW, 0) };
    InPlace::plan(volume, &mut view, &partition, None).map(|plan| (plan, opened)).map_err(|error| unfit(error, "sim"))
}

impl Case {
    fn new(disk: &SimDisk, cipher: Cipher, all: bool, batch_len: u64) -> Self {
        let (plan, opened) = planned(disk).unwrap_or_else(|problem| panic!("{problem}"));
        let spec = Spec {
            regions: plan.regions,
            cipher,
            disk: plan.append.volume().geometry().disk,
            description: "dray sim".into(),
            used_space_only: !all,
            external_key: false,
            user_password: false,
            created: FileTime::from_unix(NOW, 0),
        };
        let keys = InPlaceKeys::new(&VolumeSecrets::draw(spec, &mut Seeded::new(5))).expect("keys");
        let started = begun(opened.found.volume, &plan.regions, all, &keys);
        assert!(!disk.deeds().iter().any(|deed| matches!(deed, Deed::Write(_))), "planning writes nothing");
        Self { keys, started, batch_len, facts: facts(disk) }
    }

    /// Runs in one direction from `state`, which holds the durable state afterwards. Stops after this many checkpoints.
    fn go(
        &self,
        disk: &SimDisk,
        sides: &mut Sides,
        state: &mut State,
        direction: Direction,
        most: u64,
    ) -> Result<(), Problem> {
        let mut now = state.clone();
        let (stop, saved) = (Stop::new(), AtomicU64::new(0));
        let mut work = InPlaceEncryption {
            index: 0,
            facts: &self.facts,
            medium: Arc::new(disk.clone()),
            sector: sector(disk),
            now: FileTime::from_unix(NOW, 0),
            keys: &self.keys,
            images: (&mut sides.images, Path::new("hidden")),
            batches: (&sides.batches, Path::new("batch")),
            batch_len: self.batch_len,
            save: &mut |now| {
                *state = now.clone();
                if saved.fetch_add(1, Ordering::Relaxed) + 1 >= most {
                    stop.request();
                }
                Ok(())
            },
            workers: &Workers::start(1).expect("a thread"),
            events: &|_| {},
            stop: &stop,
        };
        with_store(disk, |store| match direction {
            Direction::Encrypt => encrypt(&mut work, &mut now, store),
            Direction::Decrypt => decrypt(&mut work, &mut now, store),
        })
    }

    fn key(&self) -> Key {
        Key::read(self.keys.password.expose().as_bytes()).expect("a key")
    }
}

/// Free ranges of a plain volume, in bytes of the disk.
fn free(disk: &SimDisk) -> Vec<DeviceRange> {
    let opened = plain(found(disk)).expect("a plain volume");
    let mut view = View(&opened);
    let volume = Volume::open(&mut view, opened.len()).expect("NTFS");
    let cluster = volume.geometry().cluster;
    let runs = free_runs(&volume, &mut view, &[]).expect("a bitmap");
    let run = |run: crate::units::Extent| DeviceRange {
        start: cluster.offset_of(run.lcn).on_device(opened.found.volume.start),
        len: cluster.len_of(run.len),
    };
    runs.into_iter().map(run).collect()
}

/// First byte that differs in a range that was not free.
fn differs(disk: &SimDisk, former: &SimDisk, free: &[DeviceRange]) -> Option<u64> {
    let (mut one, mut other) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = 0;
    let ends = free.iter().map(|range| (range.start.0, range.end().0)).chain([(disk.size().0, disk.size().0)]);
    for (start, end) in ends {
        while at < start {
            let len = (start - at).min(1 << 20) as usize;
            disk.read_at(DeviceOffset(at), &mut one[..len]);
            former.read_at(DeviceOffset(at), &mut other[..len]);
            if one[..len] != other[..len] {
                return Some(at + one.iter().zip(&other).position(|(a, b)| a != b).unwrap_or_default() as u64);
            }
            at += len as u64;
        }
        at = end;
    }
    None
}

/// The volume as unlocked with the key, examined by other programs.
fn judge(lab: &Lab, disk: &SimDisk, case: &Case, files: &Files) {
    let opened = found(disk).unlock(&case.key(), &mut |_, _| {}).expect("the key opens it");
    assert_same_shape(disk, &opened);
    let image = lab.dir.join("judged");
    unlocked(&opened, &image);
    let report = Volume::open(&mut View(&opened), opened.len()).expect("NTFS").check(&mut View(&opened));
    assert!(report.is_sound(), "{:?}", report.findings);
    if let Some(text) = succeeds(Command::new("ntfsfix").arg("-n").arg(&image)) {
        assert!(text.contains("processed successfully") && !text.contains("FAILED"), "{text}");
    }
    if opened.found.volume.len.0 < 1 << 29 {
        let said = succeeds(
            Command::new("fls").args(["-f", "ntfs", "-b", &disk.sector().to_string(), "-r", "-p", "-u"]).arg(&image),
        );
        let hidden = said.map(|said| said.matches("System Volume Information/FVE2.").count());
        assert!(hidden.is_none_or(|hidden| hidden == 5), "{hidden:?} hidden files");
    }
    let Some(mount) = Mount::at(&image, "ro,show_sys_files,streams_interface=none") else { return };
    for (path, bytes) in files {
        assert!(fs::read(mount.0.join(path)).expect("a file") == *bytes, "{path}");
    }
    let hidden = mount.0.join("System Volume Information");
    for file in case.started.regions(sector(disk)).expect("regions").hidden_files() {
        let bytes = fs::read(hidden.join(file.name)).expect("a hidden file");
        assert!(bytes.len() as u64 == file.data_len.0 && bytes.iter().all(|&byte| byte == 0), "{}", file.name);
    }
}

fn there_and_back(lab: &Lab, disk: &SimDisk, files: &Files, cipher: Cipher, all: bool) {
    let case = Case::new(disk, cipher, all, 4 << 20);
    let free = free(disk);
    let is_small = disk.size().0 < 1 << 29;
    if is_small {
        // Old data in all free space, and after the last whole cluster.
        let volume = found(disk).volume;
        let cluster = case.started.cluster;
        let tail = (volume.len.0 - disk.sector()) / cluster * cluster;
        let tail = DeviceRange::new(volume.start.0 + tail, volume.len.0 - disk.sector() - tail);
        free.iter().chain([&tail]).for_each(|range| plant_old(disk, *range));
    }
    let former = twin(disk);
    let mut state = case.started.clone();
    let mut sides = lab.sides("sides");
    let mut pauses = 0;
    // Stopped after every few checkpoints, and read with the key alone each time.
    while let Err(problem) = case.go(disk, &mut sides, &mut state, Direction::Encrypt, 3) {
        assert_eq!(problem.kind, Kind::Interrupted, "{problem}");
        pauses += 1;
        if state.step == EncryptStep::Passing {
            let opened = found(&twin(disk)).unlock(&case.key(), &mut |_, _| {}).expect("the key opens it");
            let volume = Volume::open(&mut View(&opened), opened.len()).expect("NTFS");
            assert!(volume.check(&mut View(&opened)).is_sound(), "readable on its way");
            assert!(opened.unwritable().is_some(), "nobody else writes to it");
        }
    }
    assert!(state.step == EncryptStep::Done && pauses > 0, "{pauses} pauses");
    let written = || disk.deeds().into_iter().filter(|deed| matches!(deed, Deed::Write(_))).count();
    let before = written();
    case.go(disk, &mut sides, &mut state, Direction::Encrypt, 9).expect("nothing to do");
    assert_eq!(written(), before);
    judge(lab, &twin(disk), &case, files);
    let old = if is_small { old_data(&twin(disk)) } else { Vec::new() };
    if all {
        assert_eq!(old, [], "what was free is encrypted too");
    } else if is_small {
        let opened = found(&twin(disk)).unlock(&case.key(), &mut |_, _| {}).expect("the key opens it");
        assert_left(&opened, &old, disk.size().0, "in place");
    }
    case.go(disk, &mut sides, &mut state, Direction::Decrypt, u64::MAX).expect("the way back");
    assert_eq!(state.step, EncryptStep::Begun);
    assert_eq!(differs(&twin(disk), &former, &free), None);
}

#[test]
fn judge_a_volume_of_another_maker_is_encrypted_and_taken_back() {
    let lab = Lab::new("mkntfs", SectorSize::S512);
    let Some((disk, files)) = lab.plain(70 << 20, &[]) else { return };
    there_and_back(&lab, &disk, &files, Cipher::AesCbc256, false);
}

#[test]
fn judge_sectors_of_4096_bytes_are_encrypted_and_taken_back() {
    let lab = Lab::new("4096", SectorSize::S4096);
    let Some((disk, files)) = lab.plain(70 << 20, &[]) else { return };
    there_and_back(&lab, &disk, &files, Cipher::XtsAes128, false);
}

#[test]
fn judge_large_clusters_and_free_space_are_encrypted_too() {
    let lab = Lab::new("large", SectorSize::S512);
    let Some((disk, files)) = lab.plain(100 << 20, &["-c", "65536"]) else { return };
    there_and_back(&lab, &disk, &files, Cipher::XtsAes256, true);
}

#[test]
fn judge_volumes_of_windows_are_encrypted_and_taken_back() {
    for name in ["ntfs-2m.raw", "ntfs-ramslack.raw"] {
        let lab = Lab::new(name, SectorSize::S512);
        let image = lab.dir.join("windows.img");
        if !dray_fixtures::unpack(&format!("ntfs/{name}"), &image) {
            continue;
        }
        let disk = planted(&image, lab.sector);
        match planned(&disk) {
            Ok(_) => there_and_back(&lab, &disk, &Vec::new(), Cipher::XtsAes128, false),
            Err(problem) => {
                eprintln!("{name}: {problem}");
                assert!(!disk.deeds().iter().any(|deed| matches!(deed, Deed::Write(_))), "something was written");
            }
        }
    }
}

#[test]
fn judge_power_cuts_while_encrypting_are_finished_or_taken_back() {
    let lab = Lab::new("cuts", SectorSize::S512);
    let Some((disk, files)) = lab.plain(66 << 20, &[]) else { return };
    let case = Case::new(&disk, Cipher::XtsAes128, false, 2 << 20);
    let (former, free) = (twin(&disk), free(&disk));
    let (finished, mut at_end) = (twin(&disk), case.started.clone());
    case.go(&finished, &mut lab.sides("finished"), &mut at_end, Direction::Encrypt, u64::MAX).expect("a volume");
    let finished = twin(&finished);
    judge(&lab, &finished, &case, &files);

    let state = RefCell::new(case.started.clone());
    let act = |direction, from: &'static str| {
        let (lab, case, state, at_end) = (&lab, &case, &state, &at_end);
        move |disk: &SimDisk| {
            let _ = fs::remove_dir_all(lab.dir.join("cut"));
            let mut sides = if from.is_empty() { lab.sides("cut") } else { lab.copied(from, "cut") };
            *state.borrow_mut() = if direction == Direction::Encrypt { case.started.clone() } else { at_end.clone() };
            case.go(disk, &mut sides, &mut state.borrow_mut(), direction, u64::MAX)
        }
    };
    let mut seen = std::collections::BTreeMap::new();
    let cuts = cut_everywhere(&former, act(Direction::Encrypt, ""), |left, cut| {
        *seen.entry(state.borrow().step).or_insert(0) += 1;
        let again = twin(left);
        let mut from = state.borrow().clone();
        let go = case.go(&again, &mut lab.copied("cut", "again"), &mut from, Direction::Encrypt, u64::MAX);
        go.unwrap_or_else(|problem| panic!("going on after cut {cut} in {:?}: {problem}", state.borrow().step));
        assert_eq!(twin(&again).difference(&finished), None, "finished after cut {cut}");
        let mut from = state.borrow().clone();
        let go = case.go(left, &mut lab.copied("cut", "again"), &mut from, Direction::Decrypt, u64::MAX);
        go.unwrap_or_else(|problem| panic!("going back after cut {cut} in {:?}: {problem}", state.borrow().step));
        assert_eq!(differs(&twin(left), &former, &free), None, "taken back after cut {cut}");
    });
    let back = cut_everywhere(&finished, act(Direction::Decrypt, "finished"), |left, cut| {
        let mut from = state.borrow().clone();
        let go = case.go(left, &mut lab.copied("cut", "again"), &mut from, Direction::Decrypt, u64::MAX);
        go.unwrap_or_else(|problem| panic!("going back again after cut {cut}: {problem}"));
        assert_eq!(differs(&twin(left), &former, &free), None, "taken back after cut {cut}");
    });
    assert!(cuts > 50 && back > 30 && seen.len() == 5, "{cuts} and {back} cuts, {seen:?}");
    eprintln!("power cut after each of {cuts} writes and flushes of encrypting ({seen:?}), {back} of taking it back");
}

#[test]
fn many_power_cuts_in_one_life_lose_nothing() {
    many_power_cuts(&Lab::new("life", SectorSize::S512), 1000..1024);
}

#[test]
fn many_power_cuts_with_sectors_of_4096_bytes_lose_nothing() {
    many_power_cuts(&Lab::new("life-4096", SectorSize::S4096), 2000..2010);
}

fn many_power_cuts(lab: &Lab, seeds: Range<u64>) {
    let Some((disk, _)) = lab.plain(66 << 20, &[]) else { return };
    let case = Case::new(&disk, Cipher::AesCbc128, false, 1 << 20);
    let (former, free) = (twin(&disk), free(&disk));
    let mut finished = twin(&disk);
    case.go(&finished, &mut lab.sides("finished"), &mut case.started.clone(), Direction::Encrypt, u64::MAX)
        .expect("a volume");
    finished = twin(&finished);
    for seed in seeds {
        let mut random = Seeded::new(seed);
        let name = format!("life {seed}");
        let mut sides = lab.sides(&name);
        let (mut now, mut state) = (twin(&former), case.started.clone());
        let goes_back = seed % 2 == 1;
        let mut cuts = 0;
        loop {
            // After a few cuts on the way there, the way back is taken, and never left.
            let direction = if goes_back && cuts >= 3 { Direction::Decrypt } else { Direction::Encrypt };
            now.set_faults(Faults { cut_after: Some(1 + random.next_u64() % 60), ..Faults::default() });
            if case.go(&now, &mut sides, &mut state, direction, u64::MAX).is_ok()
                && (!goes_back || direction == Direction::Decrypt)
            {
                break;
            }
            now = if now.is_dead() { now.image_after_cut(Landed::Seeded(random.next_u64())) } else { twin(&now) };
            cuts += 1;
        }
        match goes_back {
            false => assert_eq!(twin(&now).difference(&finished), None, "seed {seed}"),
            true => assert_eq!(differs(&twin(&now), &former, &free), None, "seed {seed}"),
        }
        let _ = fs::remove_dir_all(lab.dir.join(&name));
    }
}

/// Ranges that the pass encrypts.
fn ranges(disk: &SimDisk) -> Vec<VolumeRange> {
    let (plan, opened) = planned(disk).unwrap_or_else(|problem| panic!("{problem}"));
    sealed_ranges(plan.append.volume(), &mut View(&opened), &plan.regions, false).expect("NTFS")
}

#[test]
fn what_cannot_be_read_ahead_ends_the_pass_behind_what_was_read_before() {
    let lab = Lab::new("bad", SectorSize::S512);
    let Some((disk, _)) = lab.plain(66 << 20, &[]) else { return };
    let case = Case::new(&disk, Cipher::XtsAes128, false, 512 << 10);
    let (former, free) = (twin(&disk), free(&disk));
    let finished = twin(&disk);
    let (mut at_end, mut done) = (case.started.clone(), lab.sides("done"));
    case.go(&finished, &mut done, &mut at_end, Direction::Encrypt, u64::MAX).expect("a volume");
    let finished = twin(&finished);
    // Inside file contents, which the pass alone reads: the largest range, and so several batches.
    let largest = ranges(&disk).into_iter().max_by_key(|range| range.len.0).expect("a range");
    assert!(largest.len.0 > 3 << 20, "{largest:?}");
    for part in 1..4 {
        let bad = AT + (largest.start.0 + largest.len.0 * part / 4) / 512 * 512;
        let faults = || Faults { read_errors: vec![DeviceRange::new(bad, 512)], ..Faults::default() };
        let name = format!("bad {part}");
        let (now, mut sides, mut state) = (twin(&disk), lab.sides(&name), case.started.clone());
        now.set_faults(faults());
        let problem =
            case.go(&now, &mut sides, &mut state, Direction::Encrypt, u64::MAX).expect_err("it cannot be read");
        let at = problem.place.at.expect("a place").0;
        assert!(problem.kind == Kind::Drive && problem.to_string().contains("cannot be read"), "{problem}");
        assert!(problem.advice.as_ref().is_some_and(|advice| advice.to_string().contains("smartctl")), "{problem}");
        assert!(at <= bad && bad < at + (1 << 20), "{at} for {bad}");
        // Everything before the batch with the bad sector is encrypted, and nothing is under way.
        let border = AT + state.border;
        assert!(
            state.step == EncryptStep::Passing && border <= bad && bad < border + (512 << 10),
            "{border} for {bad}"
        );
        let id = hash::sha256(&case.keys.region);
        let batches = BatchJournal::new(&sides.batches, id, case.batch_len).expect("a file");
        assert_eq!(batches.under_way(state.border, Direction::Encrypt).expect("a file"), []);
        let opened = found(&twin(&now)).unlock(&case.key(), &mut |_, _| {}).expect("the key opens it");
        let volume = Volume::open(&mut View(&opened), opened.len()).expect("NTFS");
        assert!(volume.check(&mut View(&opened)).is_sound(), "readable with its key alone");
        for readable in [false, true] {
            now.set_faults(if readable { Faults::default() } else { faults() });
            let again = case.go(&now, &mut sides, &mut state, Direction::Encrypt, u64::MAX);
            assert_eq!(again.is_ok(), readable, "{again:?}");
        }
        assert_eq!(twin(&now).difference(&finished), None);
        // The way back, which comes to it from behind.
        let (now, mut sides, mut state) = (twin(&finished), lab.copied("done", &name), at_end.clone());
        now.set_faults(faults());
        let problem = case.go(&now, &mut sides, &mut state, Direction::Decrypt, u64::MAX).expect_err("the same");
        let border = AT + state.border;
        assert!(problem.kind == Kind::Drive && state.step == EncryptStep::Passing, "{problem}");
        assert!(bad < border && border <= bad + 512 + (512 << 10), "{border} for {bad}");
        now.set_faults(Faults::default());
        case.go(&now, &mut sides, &mut state, Direction::Decrypt, u64::MAX).expect("the way back");
        assert_eq!(differs(&twin(&now), &former, &free), None);
    }
}

#[test]
fn batches_torn_as_they_were_stored_are_told_from_damaged_ones() {
    let lab = Lab::new("torn", SectorSize::S512);
    let Some((disk, _)) = lab.plain(66 << 20, &[]) else { return };
    let case = Case::new(&disk, Cipher::XtsAes256, false, 256 << 10);
    let (former, free) = (twin(&disk), free(&disk));
    let (finished, mut at_end, mut done) = (twin(&disk), case.started.clone(), lab.sides("finished"));
    case.go(&finished, &mut done, &mut at_end, Direction::Encrypt, u64::MAX).expect("a volume");
    let finished = twin(&finished);
    let id = hash::sha256(&case.keys.region);
    let (mut spoiled, mut refused) = (0, 0);
    for direction in [Direction::Encrypt, Direction::Decrypt] {
        let is_there = direction == Direction::Encrypt;
        // Through a pass, which has well over a hundred writes, in steps that meet every stage of a few batches.
        for cut in (1..).step_by(7) {
            let (start, from) = if is_there { (&former, &case.started) } else { (&finished, &at_end) };
            let (now, mut state) = (twin(start), from.clone());
            let mut sides = if is_there { lab.sides("cut") } else { lab.copied("finished", "cut") };
            if is_there {
                for file in [&sides.images, &sides.batches] {
                    file.set_len(0).expect("an empty file");
                }
            }
            now.set_faults(Faults { cut_after: Some(cut), ..Faults::default() });
            if case.go(&now, &mut sides, &mut state, direction, u64::MAX).is_ok() {
                break;
            }
            if state.step != EncryptStep::Passing {
                continue;
            }
            let left = now.image_after_cut(Landed::Seeded(cut));
            let spoil = |sides: &Sides, marked| {
                BatchJournal::new(&sides.batches, id, case.batch_len).expect("a file").spoil(state.border, marked)
            };
            // What the mark does not name may be torn, and no more than that.
            let mut torn = lab.copied("cut", "torn");
            spoiled += spoil(&torn, false);
            let ways = if is_there { &[Direction::Encrypt, Direction::Decrypt][..] } else { &[Direction::Decrypt] };
            for onward in ways {
                let (disk, mut from) = (twin(&left), state.clone());
                let go = case.go(&disk, &mut lab.copied("torn", "again"), &mut from, *onward, u64::MAX);
                go.unwrap_or_else(|problem| panic!("{onward:?} after cut {cut} of {direction:?}: {problem}"));
                match onward {
                    Direction::Encrypt => assert_eq!(twin(&disk).difference(&finished), None, "cut {cut}"),
                    Direction::Decrypt => assert_eq!(differs(&twin(&disk), &former, &free), None, "cut {cut}"),
                }
            }
            // What it names must be there.
            if spoil(&torn, true) == 0 {
                continue;
            }
            for onward in ways {
                let disk = twin(&left);
                let problem = case.go(&disk, &mut torn, &mut state.clone(), *onward, u64::MAX).expect_err("damaged");
                assert!(problem.to_string().contains("damaged"), "{problem}");
                assert_eq!(disk.difference(&left), None, "something was written");
                refused += 1;
            }
        }
    }
    assert!(spoiled > 9 && refused > 4, "{spoiled} and {refused}");
}

#[test]
fn a_batch_journal_of_another_version_is_refused_untouched() {
    let lab = Lab::new("version", SectorSize::S512);
    let Some((disk, _)) = lab.plain(66 << 20, &[]) else { return };
    let case = Case::new(&disk, Cipher::AesCbc256, false, 1 << 20);
    let (mut sides, mut state) = (lab.sides("sides"), case.started.clone());
    let problem = case.go(&disk, &mut sides, &mut state, Direction::Encrypt, 4).expect_err("it was stopped");
    assert!(problem.kind == Kind::Interrupted && state.step == EncryptStep::Passing, "{problem}");
    sides.batches.write_all_at(b"DRAYenc2", 0).expect("room");
    let before = twin(&disk);
    for direction in [Direction::Encrypt, Direction::Decrypt] {
        let problem = case.go(&disk, &mut sides, &mut state.clone(), direction, u64::MAX).expect_err("another version");
        assert_eq!(
            (problem.kind, problem.place.path.as_deref()),
            (Kind::Environment, Some(Path::new("batch"))),
            "{problem}"
        );
        assert!(problem.advice.as_ref().is_some_and(|advice| advice.to_string().contains("the version that began it")));
        assert_eq!(disk.difference(&before), None, "something was written");
    }
}

#[test]
fn what_is_not_a_clean_plain_volume_of_its_own_is_refused_untouched() {
    let lab = Lab::new("refused", SectorSize::S512);
    let Some((disk, _)) = lab.plain(70 << 20, &[]) else { return };
    let refused = |disk: &SimDisk, what: &str| {
        let before = twin(disk);
        let problem = planned(disk).map(drop).expect_err(what);
        assert!(problem.to_string().contains(what), "{problem}");
        assert!(problem.kind == Kind::Refused || problem.kind == Kind::Drive, "{problem}");
        assert_eq!(disk.difference(&before), None, "{what}: something was written");
    };
    // A volume that does not fill its partition; one without a partition.
    let volume = lab.dir.join("volume");
    let bytes = fs::read(&volume).expect("a volume");
    let longer = lab.dir.join("longer");
    fs::write(&longer, &bytes).expect("room");
    refused(&lab.disk(&longer, (70 << 20) + (1 << 20)).expect("a disk"), "does not fill its partition");
    refused(&planted(&volume, lab.sector), "without a partition");
    // Not NTFS.
    let other = twin(&disk);
    other.plant(DeviceOffset(AT), &[0; 4096]);
    refused(&other, "holds no NTFS volume");
    // Dirty, as ntfsfix leaves it.
    let dirty = lab.dir.join("dirty");
    fs::write(&dirty, &bytes).expect("room");
    succeeds(Command::new("ntfsfix").arg(&dirty)).expect("ntfsfix");
    refused(&lab.disk(&dirty, 70 << 20).expect("a disk"), "marked dirty");
    // Full.
    let full = lab.dir.join("full");
    fs::write(&full, &bytes).expect("room");
    if let Some(mount) = Mount::at(&full, "rw") {
        for i in 0.. {
            let written = fs::write(mount.0.join(format!("{i}")), vec![7; if i < 60 { 1 << 20 } else { 30_000 }]);
            if i >= 60 && written.is_err() {
                break;
            }
        }
        drop(mount);
        refused(&lab.disk(&full, 70 << 20).expect("a disk"), "free in one piece");
    }
    // Encrypted already.
    let case = Case::new(&disk, Cipher::XtsAes128, false, 4 << 20);
    case.go(&disk, &mut lab.sides("sides"), &mut case.started.clone(), Direction::Encrypt, u64::MAX).expect("a volume");
    refused(&twin(&disk), "a BitLocker volume already");
}

#[test]
fn a_state_survives_its_checkpoint() {
    let lab = Lab::new("state", SectorSize::S512);
    let Some((disk, _)) = lab.plain(66 << 20, &[]) else { return };
    let mut state = Case::new(&disk, Cipher::XtsAes128, true, 1 << 20).started;
    (state.step, state.border) = (EncryptStep::Passing, 77 << 20);
    let used = state.region.iter().rposition(|&byte| byte != 0).expect("a region");
    assert!(used < REGION_LEN / 4, "{used} bytes");
    let checkpoint = Checkpoint {
        session: "session#1".into(),
        drive_id: "sim".into(),
        identity: [1; 32],
        plan: [0; 32],
        time: 3,
        slot_len: 4 << 20,
        snapshot: Prefix::default(),
        drive: Vec::new(),
        state: WorkState::Encrypt(state, AppendState::begun(None)),
    };
    assert_eq!(Checkpoint::decode(&checkpoint.encode()), Ok(checkpoint));
}

/// A disk with constant bytes: a partition table, and a volume made by dray with files.
fn always_the_same(lab: &Lab, cluster: u64) -> SimDisk {
    let formatted = FileTime::from_unix(1_700_000_000, 0);
    let guid = |byte| Guid([byte; 16]);
    let (len, cluster) = (ByteLen(110 << 20), ClusterSize::from_bytes(cluster).expect("a cluster"));
    let guids = Guids { disk: guid(1), msr: guid(2), data: guid(3) };
    let table = Table::plan_default(len, lab.sector, Scheme::Gpt, ByteLen(cluster.bytes()), guids).expect("a table");
    let catalog = Arc::new(catalog());
    let all: Vec<u32> = (0..catalog.files().len() as u32).collect();
    let tree = DriveTree::new(catalog, &all, "plain", Vec::new(), Vec::new(), formatted);
    let spec = VolumeSpec {
        sector: lab.sector,
        len: table.data.len,
        cluster,
        hidden_sectors: table.data.start.0 / lab.sector.bytes(),
        serial: 7,
        label: "plain".into(),
        formatted,
        hidden: None,
        root_files: Vec::new(),
    };
    let layout = Layout::plan(spec, &tree).expect("room");
    let disk = SimDisk::new(len, lab.sector, 1);
    disk.plant(DeviceOffset(0), &table.primary());
    let (at, backup) = table.backup().expect("a copy");
    disk.plant(at, &backup);
    let outcome = Outcome::default();
    let start = table.data.start.0;
    for section in layout.sections() {
        let mut bytes = vec![0; section.len.0 as usize];
        layout.generator(section.kind, &tree, &outcome).fill(StreamOffset(0), &mut bytes);
        let mut rest = &bytes[..];
        for extent in &section.extents {
            let (now, behind) = rest.split_at(extent.len.0 as usize);
            disk.plant(DeviceOffset(start + extent.start.0), now);
            rest = behind;
        }
    }
    for (i, extent) in layout.space().extents(layout.data_place()).enumerate() {
        let mut bytes = vec![0; cluster.len_of(extent.len).0 as usize];
        Seeded::new(i as u64).fill(&mut bytes);
        disk.plant(DeviceOffset(start + cluster.offset_of(extent.lcn).0), &bytes);
    }
    twin(&disk)
}

#[test]
fn encrypting_in_place_writes_the_bytes_that_it_always_wrote() {
    let cases = [
        (SectorSize::S512, 4096, Cipher::AesCbc128, false, "A827BD943EF3BC76"),
        (SectorSize::S512, 512, Cipher::XtsAes256, true, "CEBCD481A6AB3CA8"),
        (SectorSize::S4096, 4096, Cipher::XtsAes128, false, "E0DB20E5F45CE1BB"),
        (SectorSize::S512, 65_536, Cipher::AesCbc256, true, "000FBA122057B334"),
    ];
    let mut wrong = Vec::new();
    for (i, (sector, cluster, cipher, all, golden)) in cases.into_iter().enumerate() {
        let lab = Lab::new(&format!("golden-{i}"), sector);
        let disk = always_the_same(&lab, cluster);
        let case = Case::new(&disk, cipher, all, 4 << 20);
        let mut state = case.started.clone();
        case.go(&disk, &mut lab.sides("sides"), &mut state, Direction::Encrypt, u64::MAX).expect("a volume");
        let mut hash = hash::Sha256::default();
        let mut piece = vec![0; 1 << 20];
        for at in (0..disk.size().0).step_by(1 << 20) {
            disk.read_at(DeviceOffset(at), &mut piece);
            hash.update(&piece);
        }
        let found = &hash::hex_upper(&hash.value())[..16];
        if found != golden {
            wrong.push(format!("{sector:?}, {cluster}, {cipher:?}, {all}: {found}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
