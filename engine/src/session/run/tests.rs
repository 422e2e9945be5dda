//! Whole sessions, on image files and on the simulated disk.

mod campaign;
mod covered;
pub(crate) mod golden;
mod returned;
mod swapped;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::azure::dataset::BlobType;
use crate::azure::drive_record;
use crate::azure::drive_record::{DriveInfo, RecordState};
use crate::bitlocker::build::REGION_LEN;
use crate::checkpoint::Checkpoint;
use crate::device::{Roots, signature};
use crate::entropy::{Entropy, Seeded};
use crate::io::sim::{Faults, Landed, SimDisk};
use crate::plan::batches::Content;
use crate::request::{EngineChoice, Pace, PrepRequest, ReadBack};
use crate::session::abort;
use crate::session::prepare::prepare_with;
use crate::session::prepared::Prepared;
use crate::stream::event_loop::BlockIo;
use crate::stream::failures::Failures;
use crate::stream::timeouts::Timeouts;
use crate::surroundings::{Surroundings, now};
use crate::units::{DeviceOffset, DeviceRange, FileTime};
use crate::work::drive::{Finished, FveRegion};
use crate::work::format::{DriveIo, begin, fill};
use crate::work::planner::FormatDrive;
use crate::work::readback::Written;
use crate::work::shared::Shared;
use crate::work::{readback, way_back};

/// A directory of one test, with a small source tree in it.
struct Lab {
    dir: PathBuf,
    content_md5: bool,
    /// Options of the request beyond the defaults.
    ask: fn(&mut PrepRequest),
}

impl Lab {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("dray-run-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let source = dir.join("source/deep/er");
        fs::create_dir_all(&source).expect("a source tree");
        let mut random = Seeded::new(5);
        for (i, len) in [0usize, 1, 700, 4095, 4096, 4097, 70_000, 5 << 20, (4 << 20) + 1].into_iter().enumerate() {
            let mut bytes = vec![0; len];
            random.fill(&mut bytes);
            let dir = if i % 2 == 0 { source.clone() } else { dir.join("source") };
            fs::write(dir.join(format!("file {i}.bin")), bytes).expect("a file");
        }
        let mut disk = vec![0; 9 << 20];
        random.fill(&mut disk[4096..9000]);
        random.fill(&mut disk[(8 << 20)..(8 << 20) + 100]);
        fs::write(dir.join("source/disk.vhd"), disk).expect("a disk");
        let text = format!("BasePath,DstBlobPathOrPrefix,BlobType\n\"{}/\",data/,\n", dir.join("source").display());
        fs::write(dir.join("dataset.csv"), text).expect("a dataset");
        Self { dir, content_md5: false, ask: |_| () }
    }

    /// The smallest set with everything: resident and long files, a directory, a block of its own.
    fn small(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("dray-run-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("source/deep")).expect("a source tree");
        let mut random = Seeded::new(7);
        for (path, len) in [("a", 0_usize), ("b", 700), ("deep/c", 4097), ("deep/d", 1_300_000)] {
            let mut bytes = vec![0; len];
            random.fill(&mut bytes);
            fs::write(dir.join("source").join(path), bytes).expect("a file");
        }
        let text = format!("BasePath,DstBlobPathOrPrefix,BlobType\n\"{}/\",data/,\n", dir.join("source").display());
        fs::write(dir.join("dataset.csv"), text).expect("a dataset");
        Self { dir, content_md5: false, ask: |_| () }
    }

    /// A plan for `drive.img` below `place`, always of the same entropy and time.
    fn prepared(&self, place: &str, engine: EngineChoice) -> Prepared {
        let dir = self.dir.join(place);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a place");
        let driveset = dir.join("driveset.csv");
        let head = "DriveLetter,FormatOption,SilentOrPromptOnFormat,Encryption,ExistingBitLockerKey";
        fs::write(&driveset, format!("{head}\n{}:100MB,Format,SilentMode,Encrypt,\n", dir.join("drive.img").display()))
            .expect("a driveset");
        let mut request = PrepRequest::new(dir.join("j.jrn"), "session#1");
        request.initial_driveset = Some(driveset);
        request.dataset = Some(self.dir.join("dataset.csv"));
        request.engine = engine;
        request.content_md5 = self.content_md5;
        (self.ask)(&mut request);
        let surroundings =
            Surroundings { entropy: Box::new(Seeded::new(99)), now: FileTime::from_unix(1_700_000_000, 0) };
        prepare_with(request, surroundings, &Roots::default(), &mut |_| {}).expect("a plan")
    }

    fn image(&self, place: &str) -> PathBuf {
        self.dir.join(place).join("drive.img")
    }

    /// Runs a plan on an image file.
    fn run(&self, place: &str, engine: EngineChoice) {
        let report = self.prepared(place, engine).run(&[], &|_| {}, &Stop::new()).expect("a session");
        assert!(report.drives[0].failure.is_none(), "{:?}", report.drives[0].failure);
    }

    /// A plan that will be written to simulated disks.
    fn bench(&self, place: &str) -> Bench {
        let mut prepared = self.prepared(place, EngineChoice::Sync);
        // Checkpoints by bytes alone: the same in every run.
        prepared.request.pace = Pace { time: Duration::from_secs(3600), bytes: 8 << 20 };
        prepared.draw_secrets().expect("secrets");
        let journal = JournalFile::open(&prepared.request.journal).expect("a journal");
        let snapshot = prepared.save_plan().expect("a plan file");
        let drive = prepared.works.remove(0).into_format().expect("a drive that is formatted");
        let region = drive.secrets.as_ref().expect("a key").region(&mut |_| {});
        Bench { prepared, drive, region, journal, snapshot, workers: Workers::start(2).expect("threads") }
    }

    /// Runs a plan on a simulated disk.
    fn run_on(&self, place: &str, disk: &SimDisk) -> Result<Finished, Problem> {
        let bench = self.bench(place);
        bench.fill(disk, bench.begin())
    }

    /// As [`Self::run_on`], and then `after` with the parameters of reading back; the record next to it is complete.
    fn run_and(
        &self,
        place: &str,
        disk: &SimDisk,
        after: impl FnOnce(&Finished, &FormatDrive, &Written<'_>),
    ) -> Result<Finished, Problem> {
        let bench = self.bench(place);
        let finished = bench.fill(disk, bench.begin())?;
        let drive = &bench.drive;
        let record = self.dir.join(place).join("record.xml");
        let password = bench.secrets().password().printed();
        let info = DriveInfo {
            drive_id: &drive.rules.drive_id,
            bitlocker_key: password.expose(),
            manifest_file: "\\DriveManifest.xml",
            manifest_hash: Some(finished.manifest_md5),
            drive_header_hash: None,
        };
        let bytes = drive_record::write(&info, RecordState::Completed, now()).expect("a record");
        fs::write(&record, &*bytes).expect("a record");
        let written = Written {
            index: 0,
            facts: &drive.target.facts,
            layout: &drive.layout,
            slot_len: SLOT_LEN,
            sums: &finished.sums,
            hashes: Some(&bench.sidecars()[1]),
            record: Some(&record),
            how: ReadBack::Full,
            timeouts: Timeouts::default(),
            seed: 3,
            workers: &bench.workers,
            pool: &Pool::new(8, SLOT_LEN).expect("slots"),
            events: &|_| {},
            stop: &Stop::new(),
        };
        after(&finished, drive, &written);
        Ok(finished)
    }
}

/// A drive with its secrets, to be written to simulated disks repeatedly.
struct Bench {
    /// Its session, without its work.
    prepared: Prepared,
    drive: FormatDrive,
    /// Computed once, since it takes a stretch.
    region: Box<[u8; REGION_LEN]>,
    journal: JournalFile,
    snapshot: Prefix,
    workers: Workers,
}

impl Bench {
    fn shared<T>(&self, work: impl FnOnce(&FormatDrive, &Shared<'_>) -> T) -> T {
        self.shared_telling(&Stop::new(), &|_| {}, work)
    }

    fn shared_telling<T>(
        &self,
        stop: &Stop,
        events: &(dyn Fn(Event) + Sync),
        work: impl FnOnce(&FormatDrive, &Shared<'_>) -> T,
    ) -> T {
        let shared = Shared {
            fetchers: None,
            request: &self.prepared.request,
            context: &self.prepared.context,
            journal: &self.journal,
            workers: &self.workers,
            pools: Mutex::default(),
            events,
            stop,
            formatted: self.prepared.plan.recipe.formatted,
            snapshot: self.snapshot,
            rate_limit: RateLimit::new(None, Instant::now()),
            before: 0,
        };
        work(&self.drive, &shared)
    }

    /// Starts the drive: nothing is written yet.
    fn begin(&self) -> Checkpoint {
        let record = self.prepared.request.journal.with_file_name("drive.xml");
        let begun = self.shared(|drive, shared| begin(0, drive, Some(self.secrets()), &record, || Ok(()), shared));
        begun.expect("a beginning")
    }

    /// Fills the disk from the checkpoint on.
    fn fill(&self, disk: &SimDisk, checkpoint: Checkpoint) -> Result<Finished, Problem> {
        let read = |into: &mut [u8], at| {
            disk.read_at(at, into);
            Ok(())
        };
        self.shared(|drive, shared| {
            // As on a drive that held a volume of the same kind before.
            let wipe = drive.layout.last_places();
            let pool = Pool::new(8, SLOT_LEN).expect("slots");
            let ground = DriveIo { blocks: sim_io(disk, pool), wipe, once_wiped: &|| (), read: &read };
            fill(0, drive, Some(self.secrets()), self.region(), checkpoint, ground, shared)
        })
    }

    fn secrets(&self) -> &VolumeSecrets {
        self.drive.secrets.as_ref().expect("a key")
    }

    fn region(&self) -> FveRegion<'_> {
        Box::new(|| self.region.clone())
    }

    fn sidecars(&self) -> [PathBuf; 2] {
        let request = &self.prepared.request;
        [Sidecar::Checkpoint("drive"), Sidecar::Outcome("drive")]
            .map(|s| sidecar(&request.journal, &request.session, s))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn same(a: &Path, b: &Path) -> bool {
    let read = |path: &Path| {
        let mut bytes = Vec::new();
        fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).expect("an image");
        bytes
    };
    read(a) == read(b)
}

#[test]
fn the_same_inputs_give_the_same_bytes_through_every_engine() {
    let lab = Lab::new("same");
    lab.run("uring", EngineChoice::Auto);
    lab.run("sync", EngineChoice::Sync);
    lab.run("again", EngineChoice::Sync);
    assert!(same(&lab.image("uring"), &lab.image("sync")), "io_uring and plain system calls differ");
    assert!(same(&lab.image("sync"), &lab.image("again")), "twice the same differs");

    let size = fs::metadata(lab.image("sync")).expect("an image").len();
    let disk = SimDisk::new(ByteLen(size), crate::units::SectorSize::S512, 1);
    lab.run_on("sim", &disk).expect("the simulated disk has no faults");
    let image = fs::read(lab.image("sync")).expect("an image");
    for (i, chunk) in image.chunks(1 << 20).enumerate() {
        let mut bytes = vec![0; chunk.len()];
        disk.read_at(DeviceOffset((i << 20) as u64), &mut bytes);
        assert!(bytes == chunk, "the simulated disk differs in MiB {i}");
    }
}

/// The result of dray's own scan, which recognises every mark that the external judges look for.
fn seen(disk: &SimDisk, size: u64) -> Option<String> {
    let read = |at: DeviceOffset, into: &mut [u8]| {
        disk.read_at(at, into);
        Ok(())
    };
    let found = signature::scan_with(&read, ByteLen(size), crate::units::SectorSize::S512).expect("a scan");
    // Every interrupted drive holds bytes without a mark.
    let marked = found.table.is_some() || found.volumes.iter().any(|volume| volume.format.is_some());
    found.words.filter(|_| marked)
}

/// Whether everything between the two tables is equal.
fn same_volume(a: &SimDisk, b: &SimDisk, size: u64) -> bool {
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let (mut at, end) = (34 * 512, size - 33 * 512);
    while at < end {
        let len = left.len().min((end - at) as usize);
        a.read_at(DeviceOffset(at), &mut left[..len]);
        b.read_at(DeviceOffset(at), &mut right[..len]);
        if left[..len] != right[..len] {
            return false;
        }
        at += len as u64;
    }
    true
}

#[test]
fn a_power_cut_after_any_write_leaves_nothing_that_looks_finished() {
    let lab = Lab::new("cut");
    let size = 99_999_744;
    let whole = SimDisk::new(ByteLen(size), crate::units::SectorSize::S512, 1);
    lab.run_on("whole", &whole).expect("no faults");
    let finished = seen(&whole, size).expect("a finished drive is recognised");
    assert!(finished.contains("BitLocker"), "{finished}");
    let deeds = whole.begun();
    let mut cuts = 0;
    for cut in 1..=deeds {
        let disk = SimDisk::new(ByteLen(size), crate::units::SectorSize::S512, 1);
        disk.set_faults(Faults { cut_after: Some(cut), ..Faults::default() });
        if lab.run_on("cut", &disk).is_ok() {
            continue;
        }
        cuts += 1;
        for seed in 0..4 {
            let left = disk.image_after_cut(Landed::Seeded(seed * deeds + cut));
            if let Some(words) = seen(&left, size) {
                // A table may be down alone, but only when the whole volume is: it is written after the last but one flush.
                assert!(same_volume(&whole, &left, size), "cut {cut} of {deeds}, seed {seed}: {words}");
            }
        }
    }
    assert!(cuts > 10, "only {cuts} of {deeds} operations could be cut");
}

#[test]
fn reading_back_finds_what_the_drive_does_not_keep() {
    let lab = Lab::new("back");
    let size = 99_999_744;
    let disk = SimDisk::new(ByteLen(size), crate::units::SectorSize::S512, 1);
    let mut tried = 0;
    lab.run_and("back", &disk, |_, drive, written| {
        let back = |written: &Written<'_>| readback::run(Box::new(disk.clone()), written);
        let all = back(written).expect("what was written is there");
        assert!(all.0 > 20 << 20, "{all}");
        assert!(back(&Written { how: ReadBack::Sample, ..*written }).expect("a sample of it").0 > 0);
        assert_eq!(back(&Written { how: ReadBack::None, ..*written }).expect("nothing"), ByteLen(0));

        // A flipped bit anywhere that was written: in every phase of the plan.
        for (i, batch) in drive.layout.batches(SLOT_LEN).enumerate() {
            let Some(sum) = written.sums[i] else { continue };
            let piece = &batch.pieces[batch.pieces.len() - 1];
            let last = piece.range.end.min(sum.len) - piece.range.start - 1;
            disk.set_faults(Faults {
                flips: vec![(DeviceOffset(piece.at.0 + last as u64), 0x10)],
                ..Faults::default()
            });
            let problem = back(written).expect_err("a flipped bit");
            assert_eq!(problem.kind, Kind::Different, "{:?}: {problem}", batch.phase);
            tried += 1;
        }
        // Block hashes alone reveal it too: the only reference that a resumed session has for the batches of its first
        // run.
        disk.set_faults(Faults::default());
        let none = vec![None; written.sums.len()];
        let blind = Written { sums: &none, ..*written };
        assert!(back(&blind).expect("the blocks are there").0 > 18 << 20);
        let block = drive.layout.batches(SLOT_LEN).find_map(|batch| {
            let Content::Files(parts) = &batch.content else { return None };
            let tree = drive.layout.tree();
            let part = parts.iter().find(|part| part.len > 0 && tree.blob_type(part.file) == Some(BlobType::Block))?;
            Some(DeviceOffset(batch.pieces[0].at.0 + u64::from(part.into)))
        });
        let at = block.expect("a block blob");
        disk.set_faults(Faults { flips: vec![(at, 1)], ..Faults::default() });
        let blind = Written { sums: &none, ..*written };
        let problem = back(&blind).expect_err("a flipped bit in a block");
        assert!(problem.kind == Kind::Different && problem.place.path.is_some(), "{problem}");

        disk.set_faults(Faults { read_errors: vec![DeviceRange::new(at.0, 512)], ..Faults::default() });
        assert_eq!(back(written).expect_err("a bad sector").kind, Kind::Drive);
        disk.set_faults(Faults::default());
        let text = fs::read_to_string(written.record.expect("a record")).expect("a record");
        let key = text.split("<BitLockerKey>").nth(1).expect("a key");
        let other = "235818-357951-253979-013365-241120-245575-342914-591910";
        fs::write(written.record.expect("a record"), text.replace(&key[..55], other)).expect("a record");
        let problem = back(written).expect_err("another key");
        assert_eq!(problem.kind, Kind::Different, "{problem}");
    })
    .expect("no faults");
    assert!(tried > 15, "only {tried} batches");
}

/// Ways in which unflushed writes may have landed: every subset of a few writes, and torn ones from seeds.
fn landings(unflushed: usize, cut: u64) -> Vec<Landed> {
    let subsets = if unflushed <= 2 { 1u64 << unflushed } else { 0 };
    let whole = [Landed::Bits(0), Landed::Bits(u64::MAX)];
    let fixed = (0..subsets).map(Landed::Bits).chain(whole.into_iter().skip(if subsets > 0 { 2 } else { 0 }));
    let seeds = if unflushed > 0 { 2 } else { 0 };
    fixed.chain((0..seeds).map(|seed| Landed::Seeded(seed * 1000 + cut))).collect()
}

#[test]
fn after_a_power_cut_at_any_write_the_session_goes_on_to_the_same_drive() {
    goes_on_from_everywhere(&Lab::new("resume"));
}

#[test]
fn after_a_power_cut_files_are_hashed_as_a_whole_from_where_they_were() {
    let mut lab = Lab::new("resume-md5");
    lab.content_md5 = true;
    goes_on_from_everywhere(&lab);
}

fn goes_on_from_everywhere(lab: &Lab) {
    let size = ByteLen(99_999_744);
    let disk = || SimDisk::new(size, crate::units::SectorSize::S512, 1);
    let bench = lab.bench("resume");
    let whole = disk();
    let finished = bench.fill(&whole, bench.begin()).expect("no faults");
    let planned = &bench.drive;
    let way = way_back::WayBack::of(&planned.target, Some(&planned.layout));
    let (deeds, mut resumed, mut went_on) = (whole.begun(), 0, 0);
    for cut in 1..=deeds {
        let disk = disk();
        let begun = bench.begin();
        disk.set_faults(Faults { cut_after: Some(cut), ..Faults::default() });
        if bench.fill(&disk, begun).is_ok() {
            continue;
        }
        // The files next to the journal at the power cut.
        let kept = bench.sidecars().map(|path| fs::read(path).expect("a sidecar"));
        for landed in landings(disk.unflushed(), cut) {
            for (path, bytes) in bench.sidecars().iter().zip(&kept) {
                fs::write(path, bytes).expect("a sidecar");
            }
            let left = disk.image_after_cut(landed);
            let checkpoint = Checkpoint::decode(&kept[0]).expect("a checkpoint");
            went_on += u64::from(checkpoint.format().expect("its state").next.0 > 0);
            let again =
                bench.fill(&left, checkpoint).unwrap_or_else(|problem| panic!("cut {cut}, {landed:?}: {problem}"));
            assert_eq!(left.difference(&whole), None, "cut {cut} of {deeds}, {landed:?}");
            assert_eq!(again.manifest_md5, finished.manifest_md5);
            assert_eq!(again.sums, finished.sums, "what would be read back is the same");
            assert_eq!(again.written, finished.written);
            resumed += 1;
        }
        // Or it is rolled back, and that is cut too.
        let left = disk.image_after_cut(Landed::Seeded(cut));
        let unmake = |disk: &SimDisk| {
            let pool = Pool::new(2, SLOT_LEN).expect("slots");
            way_back::unmake(sim_io(disk, pool), &way)
        };
        left.set_faults(Faults { cut_after: Some(1 + cut % 20), ..Faults::default() });
        let _ = unmake(&left);
        let left = left.image_after_cut(Landed::Seeded(cut));
        unmake(&left).expect("no faults");
        assert_eq!(seen(&left.image_after_cut(Landed::Bits(0)), size.0), None, "cut {cut} of {deeds}");
    }
    // A finished drive as well.
    way_back::unmake(sim_io(&whole, Pool::new(2, SLOT_LEN).expect("slots")), &way).expect("no faults");
    assert_eq!(seen(&whole.image_after_cut(Landed::Bits(0)), size.0), None);
    println!("{deeds} operations, {resumed} times gone on, {went_on} of them in the middle");
    assert!(resumed > 60 && went_on > 30, "only {resumed} of {deeds}, {went_on} in the middle");
}

#[test]
fn a_device_that_lost_what_it_had_flushed_is_found_out() {
    let lab = Lab::new("liar");
    let size = ByteLen(99_999_744);
    let bench = lab.bench("liar");
    let whole = SimDisk::new(size, crate::units::SectorSize::S512, 1);
    bench.fill(&whole, bench.begin()).expect("no faults");
    let end = Checkpoint::decode(&fs::read(&bench.sidecars()[0]).expect("a file")).expect("a checkpoint");
    let log = fs::read(&bench.sidecars()[1]).expect("a log");
    let batches: Vec<_> = bench.drive.layout.batches(SLOT_LEN).collect();
    assert_eq!(end.format().expect("its state").next.0, batches.len() as u64, "at the end all is durable");
    let with_pieces = |n: &usize| !batches[*n].pieces.is_empty();
    let places: Vec<usize> = (0..batches.len()).filter(with_pieces).collect();
    // A late one is written again, and so is everything after it.
    let late = places[places.len() - 3];
    let disk = whole.image_after_cut(Landed::Bits(0));
    disk.plant(batches[late].pieces[0].at, &[0x55; 512]);
    bench.fill(&disk, end.clone()).expect("it goes back and on");
    assert_eq!(disk.difference(&whole), None);
    // The first: this is not the drive.
    fs::write(&bench.sidecars()[1], &log).expect("a log");
    let disk = whole.image_after_cut(Landed::Bits(0));
    disk.plant(batches[places[0]].pieces[0].at, &[0x55; 512]);
    let problem = bench.fill(&disk, end.clone()).expect_err("another drive");
    assert_eq!(problem.kind, Kind::Refused, "{problem}");
    // A log that is not the one of the checkpoint.
    let mut other = log;
    other[20] ^= 1;
    fs::write(&bench.sidecars()[1], &other).expect("a log");
    assert_eq!(bench.fill(&whole, end).expect_err("another log").kind, Kind::Environment);
}

fn sim_io(disk: &SimDisk, pool: Pool) -> BlockIo {
    BlockIo::new(Box::new(disk.engine()), pool, Failures::of("sim", None))
}
