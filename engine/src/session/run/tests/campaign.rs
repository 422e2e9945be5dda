//! Campaigns: one plan run again and again on simulated disks, each with its own accident. A failure names the seed
//! that repeats it: `DRAY_CAMPAIGN_SEED=N cargo test …`; `DRAY_CAMPAIGN=N` runs N times as many.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::*;
use crate::io::sim::Deed;
use crate::report::Event;
use crate::stream::event_loop::BlockIo;
use crate::stream::failures::Failures;
use crate::stream::timeouts::Timeouts;
use crate::units::SectorSize;
use crate::work::drive::SLOTS;
use crate::work::format::DriveIo;

/// Short slots: many writes of a small drive.
const SLOT: usize = 256 << 10;

/// A plan that is run many times: its key is stretched once.
struct Trials {
    /// Owner of the sources, which every run reads.
    _lab: Lab,
    bench: Bench,
    size: ByteLen,
    node: Option<PathBuf>,
}

/// Events reported by a session.
#[derive(Default)]
struct Told {
    done: bool,
    notes: Vec<String>,
}

impl Trials {
    fn new(name: &str) -> Self {
        let lab = Lab::small(name);
        let bench = lab.bench("plan");
        let size = bench.drive.target.facts.size;
        Self { _lab: lab, bench, size, node: None }
    }

    fn disk(&self, seed: u64) -> SimDisk {
        SimDisk::new(self.size, SectorSize::S512, seed)
    }

    fn run(&self, disk: &SimDisk, timeouts: Timeouts) -> (Result<Finished, Problem>, Told) {
        self.run_until(disk, timeouts, |_| false)
    }

    /// Requests a stop when `ends` returns true for an event.
    fn run_until(
        &self,
        disk: &SimDisk,
        timeouts: Timeouts,
        ends: impl Fn(&Event) -> bool + Sync,
    ) -> (Result<Finished, Problem>, Told) {
        let (reported, stop) = (Mutex::new(Told::default()), Stop::new());
        let events = |event: Event| {
            if ends(&event) {
                stop.request();
            }
            let mut reported = reported.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                Event::Stage { stage: Stage::Done, .. } => reported.done = true,
                Event::Note(text) | Event::Warning(text) => reported.notes.push(text.to_string()),
                _ => {}
            }
        };
        let mut checkpoint = self.bench.begin();
        checkpoint.slot_len = SLOT as u64;
        let read = |into: &mut [u8], at| {
            disk.read_at(at, into);
            Ok(())
        };
        let result = self.bench.shared_telling(&stop, &events, |drive, shared| {
            let (engine, pool) = (Box::new(disk.engine()), Pool::new(SLOTS, SLOT).expect("slots"));
            let wipe = drive.layout.last_places();
            let failures = Failures::of("sim", self.node.clone());
            let blocks = BlockIo::new(engine, pool, failures).within(timeouts);
            let ground = DriveIo { blocks, wipe, once_wiped: &|| (), read: &read };
            fill(0, drive, Some(self.bench.secrets()), self.bench.region(), checkpoint, ground, shared)
        });
        (result, reported.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn seen(&self, disk: &SimDisk) -> Option<String> {
        seen(disk, self.size.0)
    }
}

/// Multiple of the usual number of runs.
fn times() -> u64 {
    std::env::var("DRAY_CAMPAIGN").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// The seeds to run: `count` times the campaign's length, or the one to repeat.
fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("DRAY_CAMPAIGN_SEED").ok().and_then(|text| text.parse().ok()) {
        Some(seed) => vec![seed],
        None => (1..=count * times()).collect(),
    }
}

#[test]
fn campaign_power_cuts_leave_the_whole_volume_or_none() {
    let trials = Trials::new("campaign-cuts");
    let whole = trials.disk(0);
    trials.run(&whole, Timeouts::default()).0.expect("no faults");
    assert!(trials.seen(&whole).is_some_and(|words| words.contains("BitLocker")));
    let operations = whole.begun();
    let (mut cuts, mut images, mut complete, mut every) = (0, 0, 0, 0);
    for seed in seeds(120) {
        let disk = trials.disk(seed);
        let mut random = Seeded::new(seed);
        // Every operation is cut in turn, each time in another order of completions.
        let cut = 1 + (seed - 1) % operations;
        disk.set_faults(Faults { cut_after: Some(cut), ..Faults::default() });
        let (result, reported) = trials.run(&disk, Timeouts::default());
        let Err(problem) = result else { continue };
        assert!(!reported.done, "seed {seed}: told as done: {problem}");
        assert_eq!(problem.kind, Kind::Drive, "seed {seed}: {problem}");
        cuts += 1;
        let outstanding = disk.unflushed();
        let landings: Vec<Landed> = if outstanding <= 8 {
            every += 1;
            (0..1 << outstanding).map(Landed::Bits).collect()
        } else {
            let many = if times() > 1 { 1000 } else { 8 };
            (0..many).map(|_| Landed::Seeded(random.next_u64())).collect()
        };
        for landed in landings {
            images += 1;
            let left = disk.image_after_cut(landed);
            if let Some(words) = trials.seen(&left) {
                complete += 1;
                assert!(
                    same_volume(&whole, &left, trials.size.0),
                    "seed {seed}, cut {cut} of {operations}, {landed:?}: looks finished and is not: {words}"
                );
            }
        }
    }
    println!(
        "{cuts} power cuts at {operations} operations, {every} with every subset of what was outstanding: {images} \
         disks, {complete} of them complete"
    );
}

#[test]
fn campaign_faults_are_told_and_never_called_done() {
    let trials = Trials::new("campaign-faults");
    let whole = trials.disk(0);
    trials.run(&whole, Timeouts::default()).0.expect("no faults");
    let writes: Vec<DeviceRange> = whole
        .deeds()
        .into_iter()
        .filter_map(|deed| if let Deed::Write(range) = deed { Some(range) } else { None })
        .collect();
    let (mut failed, mut done) = (0, 0);
    for seed in seeds(150) {
        let disk = trials.disk(seed);
        let mut random = Seeded::new(seed ^ 0x00FA_0175);
        let write = writes[(random.next_u64() % writes.len() as u64) as usize];
        let bad = DeviceRange::new(write.start.0 + random.next_u64() % write.len.0, 1);
        let latency_max = Duration::from_micros(if seed.is_multiple_of(3) { 100 } else { 0 });
        let faults = match seed % 5 {
            0 => Faults { write_errors: vec![bad], ..Faults::default() },
            1 => Faults { write_error_one_in: 2 + (random.next_u64() % 60) as u32, ..Faults::default() },
            2 => Faults { flush_errors: true, ..Faults::default() },
            3 => Faults { cut_after: Some(1 + random.next_u64() % whole.begun()), ..Faults::default() },
            // Only slow, and in another order.
            _ => Faults::default(),
        };
        disk.set_faults(Faults { latency_max, ..faults.clone() });
        let (result, reported) = trials.run(&disk, Timeouts::default());
        match result {
            Ok(_) => {
                done += 1;
                assert_eq!(disk.unflushed(), 0, "seed {seed}: called done with writes that were not flushed");
                assert_eq!(disk.difference(&whole), None, "seed {seed}: called done, and is another drive");
                assert!(seed % 5 != 0 && seed % 5 != 2, "seed {seed}: a fault went unnoticed");
            }
            Err(problem) => {
                failed += 1;
                assert!(!reported.done, "seed {seed}: {problem}");
                assert_eq!(problem.kind, Kind::Drive, "seed {seed}: {problem}");
                assert!(problem.advice.is_some() && problem.place.drive.is_some(), "seed {seed}: {problem:?}");
                assert!(seed % 5 != 4, "seed {seed}: {problem}");
                if seed % 5 == 0 {
                    let at = problem.place.at.expect("a place");
                    let near = at.0 <= bad.start.0 && bad.start.0 < at.0 + SLOT as u64;
                    assert!(near, "seed {seed}: told {at}, the bad byte is {}", bad.start.0);
                }
            }
        }
    }
    println!("{failed} sessions failed and said so, {done} were done and right");
}

#[test]
fn campaign_a_hung_device_is_told_of_and_given_up() {
    let trials = Trials::new("campaign-hung");
    let timeouts = Timeouts { slow: Duration::from_millis(20), hung: Duration::from_millis(700) };
    let whole = trials.disk(0);
    trials.run(&whole, Timeouts::default()).0.expect("no faults");
    for seed in seeds(4) {
        let disk = trials.disk(seed);
        // The wipe, the data, the end: each may hang.
        let at = 1 + (seed - 1) * (whole.begun() - 1) / 3 % whole.begun();
        disk.set_faults(Faults { hang_at: Some(at), ..Faults::default() });
        let (result, reported) = trials.run(&disk, timeouts);
        if disk.begun() < at {
            // Requests are joined as they come in: this run had fewer of them.
            result.map(drop).expect("nothing hung");
            continue;
        }
        let problem = result.map(drop).expect_err("a hung device");
        assert_eq!(problem.kind, Kind::Drive, "seed {seed}: {problem}");
        assert!(problem.what.contains("does not answer"), "seed {seed}: {problem}");
        assert!(
            reported.notes.iter().any(|note| note.contains("has been waiting")),
            "seed {seed}: {:?}",
            reported.notes
        );
        assert!(!reported.done, "seed {seed}");
        // Only the last flush of all finds everything in place.
        let looks = trials.seen(&disk).is_some();
        assert!(!looks || same_volume(&whole, &disk, trials.size.0), "seed {seed}");
    }
}

#[test]
fn campaign_who_wants_to_stop_does_not_wait_for_a_hung_device() {
    let trials = Trials::new("campaign-hung-stop");
    let timeouts = Timeouts { slow: Duration::from_millis(20), hung: Duration::from_secs(600) };
    let whole = trials.disk(0);
    trials.run(&whole, Timeouts::default()).0.expect("no faults");
    for seed in seeds(3) {
        let disk = trials.disk(seed);
        disk.set_faults(Faults { hang_at: Some(1 + seed * 7 % whole.begun()), ..Faults::default() });
        let began = std::time::Instant::now();
        let (result, reported) = trials.run_until(&disk, timeouts, |event| matches!(event, Event::Warning(_)));
        let problem = result.map(drop).expect_err("a hung device");
        assert!(problem.what.contains("does not answer"), "seed {seed}: {problem}");
        assert!(!reported.done && began.elapsed() < Duration::from_secs(60), "seed {seed}: {:?}", began.elapsed());
    }
}

#[test]
fn campaign_a_drive_that_hangs_while_it_is_read_back_is_given_up() {
    let lab = Lab::small("campaign-hung-back");
    let disk = SimDisk::new(ByteLen(99_999_744), SectorSize::S512, 5);
    lab.run_and("plan", &disk, |_, _, written| {
        let hanging = disk.image_after_cut(Landed::Bits(0));
        let data = written.layout.batches(SLOT_LEN).find(|batch| matches!(batch.content, Content::Files(_)));
        let at = data.expect("data").pieces[0].at;
        hanging.set_faults(Faults { read_hangs: vec![DeviceRange::new(at.0, 1)], ..Faults::default() });
        let timeouts = Timeouts { slow: Duration::from_millis(20), hung: Duration::from_millis(500) };
        let result = readback::run(Box::new(hanging), &Written { timeouts, ..*written });
        let problem = result.map(drop).expect_err("a hung device");
        assert_eq!(problem.kind, Kind::Drive, "{problem}");
        assert!(problem.what.contains("does not answer") && problem.place.drive.is_some(), "{problem:?}");
    })
    .expect("no faults");
}

#[test]
fn campaign_a_drive_that_was_pulled_is_not_called_full() {
    let mut trials = Trials::new("campaign-pulled");
    trials.node = Some(PathBuf::from("/dev/null"));
    // The kernel's answer when a size has become zero.
    let disk = SimDisk::new(ByteLen(trials.size.0 / 2), SectorSize::S512, 3);
    let problem = trials.run(&disk, Timeouts::default()).0.map(drop).expect_err("writes past the end");
    assert!(problem.what.contains("went away"), "{problem}");
    assert!(!problem.what.contains("full"), "{problem}");
}

#[test]
fn campaign_lies_while_reading_back_are_found() {
    let lab = Lab::small("campaign-lies");
    let disk = SimDisk::new(ByteLen(99_999_744), SectorSize::S512, 5);
    let (mut found, mut harmless, mut reported) = (0, 0, 0);
    lab.run_and("plan", &disk, |_, drive, written| {
        for seed in seeds(20) {
            let mut random = Seeded::new(seed);
            let one_in = 1 + (random.next_u64() % 40) as u32;
            let lying = disk.image_after_cut(Landed::Bits(0));
            lying.set_faults(match seed % 2 {
                0 => Faults { flip_one_in: one_in, ..Faults::default() },
                _ => Faults { misdirect_one_in: one_in, ..Faults::default() },
            });
            let result = readback::run(Box::new(lying.clone()), written);
            let lies = lying.lies();
            reported += lies.len();
            match result {
                Ok(_) if lies.is_empty() => {}
                Ok(_) => {
                    // Duplicated structures may be wrong in one copy: tables and BitLocker's own regions, on the way
                    // in.
                    let covered =
                        |lie: &DeviceRange| drive.layout.last_places().iter().any(|place| place.overlaps(*lie));
                    let missed: Vec<_> = lies.iter().filter(|lie| !covered(lie)).collect();
                    assert!(missed.is_empty(), "seed {seed}: read back as right with lies at {missed:?}");
                    harmless += 1;
                }
                Err(problem) => {
                    found += 1;
                    assert!(!lies.is_empty(), "seed {seed}: {problem} without a lie");
                    assert!(matches!(problem.kind, Kind::Different | Kind::Drive), "seed {seed}: {problem}");
                    assert!(problem.place.drive.is_some(), "seed {seed}: {problem:?}");
                }
            }
        }
    })
    .expect("no faults");
    println!("{reported} reads lied: {found} drives were found out, {harmless} times another copy was right");
    assert!(found > 0, "no lie was found");
}
