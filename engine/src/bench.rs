//! Benchmarks of a drive: raw speed of reading and writing, its course across the surface, and the speed that remains
//! with hashing and encryption on this machine.
//!
//! Reading changes nothing. Writing destroys the contents of the drive: it passes the same gates as preparing, and the
//! caller must have obtained consent. Afterwards no part of an old table or file system is left on the drive.
//!
//! Drives are measured one after the other, and then, if it is asked for, all at once: what one bus or dock gives them
//! together, and what becomes of that in minutes.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::crypt::{Cipher, SectorCipher};
use crate::device::{self, Access, Device, Roots, guard, signature};
use crate::entropy::{Entropy, Seeded};
use crate::io::{self, Engine, Fill, From, Options, Part};
use crate::pool::{Pool, Slot};
use crate::report::{Advice, DriveFacts, Kind, PROGRESS_INTERVAL, Problem, Problems, Setting, Stop};
use crate::request::EngineChoice;
use crate::stream::event_loop::{self, Action, BlockIo, Next, Transfer};
use crate::stream::failures::Failures;
use crate::stream::workers::{CipherDirection, DigestJob, How, Span, Workers};
use crate::stream::zeros::{self, OnError};
use crate::survey::LinkCounters;
use crate::units::{ByteLen, DeviceOffset, DeviceRange, SectorSize, VolumeOffset};

/// Largest memory for a measurement, in bytes.
const POOL_MAX: usize = 96 << 20;

/// Bytes hashed and encrypted to measure the speed of one core.
const CPU_PROBE: u64 = 512 << 20;

/// Block size of the combined measurement, in bytes: that of preparing.
const ROAD_BLOCK: usize = 4 << 20;

/// Slots of the combined measurement.
const ROAD_DEPTH: u32 = 16;

/// Stretches that a long run is told in, and the shortest that says something.
const STRETCHES: u32 = 60;
const STRETCH_MIN: Duration = Duration::from_millis(500);

/// Bytes at either end of a drive where tables lie.
const ENDS: u64 = 1 << 20;

/// Parameters of a measurement: block sizes, depths, points of the curve, seconds for each.
#[derive(Clone, Debug)]
pub struct BenchRequest {
    /// The drive or image.
    pub drive: PathBuf,
    /// Write too; destroys the contents of the drive.
    pub write: bool,
    /// Seconds for each point.
    pub seconds: f64,
    /// Block sizes of the sweep, in bytes: multiples of 4096.
    pub blocks: Vec<usize>,
    /// Depths of the sweep.
    pub depths: Vec<u32>,
    /// Points of the curve across the surface; 0 for none.
    pub curve: u32,
    /// I/O engine to use.
    pub engine: EngineChoice,
    /// Cipher of the combined measurement.
    pub cipher: Cipher,
}

/// Rate of a drive over an interval.
#[derive(Clone, Debug)]
pub struct RateSeries {
    /// All of it.
    pub point: Point,
    /// Bytes of each stretch of time, and how long that was.
    pub stretches: Vec<(Duration, ByteLen)>,
}

impl RateSeries {
    /// Rate of each stretch, in bytes a second.
    pub fn rates(&self) -> impl Iterator<Item = f64> + '_ {
        self.stretches.iter().map(|(time, bytes)| bytes.0 as f64 / time.as_secs_f64().max(1e-9))
    }

    /// The slowest stretch.
    pub fn slowest(&self) -> f64 {
        self.rates().fold(f64::INFINITY, f64::min).min(self.point.rate())
    }

    /// From which moment on it gave less than `share` of what it gave at first, to its end, and what it gave then: a cache
    /// that ran full, a drive that grew hot.
    pub fn fall(&self, share: f64) -> Option<(Duration, f64)> {
        let rates: Vec<f64> = self.rates().collect();
        let first = *rates.first()?;
        let from = rates.iter().rposition(|rate| *rate >= first * share)? + 1;
        let rest = rates.get(from..).filter(|rest| rest.len() >= 2)?;
        let when = self.stretches[..from].iter().map(|(time, _)| *time).sum();
        Some((when, rest.iter().sum::<f64>() / rest.len() as f64))
    }
}

/// Reading or writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the drive.
    Read,
    /// To the drive.
    Write,
}

/// One measurement: bytes, settings and time.
#[derive(Clone, Debug)]
pub struct Point {
    /// Whether bytes were read or written.
    pub direction: Direction,
    /// Bytes of one operation.
    pub block: usize,
    /// Operations in flight.
    pub depth: u32,
    /// Offset on the drive at which the measurement began.
    pub at: DeviceOffset,
    /// Bytes that the drive acknowledged during the measurement.
    pub bytes: ByteLen,
    /// Duration of the measurement.
    pub elapsed: Duration,
    /// Latency of one operation at 50, 99 and 100 %.
    pub latency: [Duration; 3],
}

impl Point {
    /// Bytes a second.
    pub fn rate(&self) -> f64 {
        self.bytes.0 as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// All figures of one drive.
#[derive(Clone, Debug)]
pub struct BenchReport {
    /// The drive that was measured.
    pub drive: DriveFacts,
    /// Name of the I/O engine used.
    pub engine: String,
    /// Whether the page cache was bypassed; without that the figures say little of the drive.
    pub direct: bool,
    /// Largest transfer, rotation and other properties of the block queue, in words.
    pub queue: String,
    /// One measurement for each block size, depth and direction.
    pub sweep: Vec<Point>,
    /// The curve across the surface, measured with the best point's block and depth.
    pub curve: Vec<Point>,
    /// Bytes a second of one core: hashing and encrypting (writing), decrypting and hashing (reading).
    core_rates: [f64; 2],
    /// Cores available for that work.
    pub cores: usize,
    /// Combined measurement: reading (or writing) through hash and cipher.
    pub road: Vec<Point>,
    /// All drives at once, or for minutes.
    pub run: Option<RateSeries>,
    /// Increase of the link's counters during the measurement.
    pub link: LinkCounters,
    /// Measurements that failed or were cut short, with the reason.
    pub notes: Vec<String>,
}

impl BenchReport {
    /// The fastest point of one direction.
    pub fn best(&self, direction: Direction) -> Option<&Point> {
        let points = self.sweep.iter().filter(|point| point.direction == direction);
        points.max_by(|a, b| a.rate().total_cmp(&b.rate()))
    }

    /// Bytes a second of one core: hashing and encrypting for writing, decrypting and hashing after reading.
    pub fn core_rate(&self, direction: Direction) -> f64 {
        self.core_rates[usize::from(direction == Direction::Read)]
    }

    /// Directions that were measured.
    pub fn directions(&self) -> impl Iterator<Item = Direction> {
        [Direction::Read, Direction::Write].into_iter().filter(|&direction| self.best(direction).is_some())
    }

    /// Number of such drives that the cores can serve at once before they are the bottleneck. `None` without a
    /// measurement.
    pub fn drives_at_once(&self, direction: Direction) -> Option<f64> {
        Some(self.core_rate(direction) * self.cores as f64 / self.best(direction)?.rate())
    }

    /// Bottleneck of the combined measurement, and its use of drive and cores. `None` without a measurement.
    pub fn load(&self, direction: Direction) -> Option<Load> {
        let road = self.road.iter().find(|point| point.direction == direction)?.rate();
        let drive = road / self.best(direction)?.rate();
        let cores = road / (self.core_rate(direction) * self.cores as f64);
        let bottleneck = match drive >= cores {
            _ if drive.max(cores) < BUSY_MIN => Bottleneck::Neither,
            true => Bottleneck::Drive,
            false => Bottleneck::Cores,
        };
        Some(Load { drive, cores, bottleneck })
    }
}

/// Load of drive and cores in the combined measurement, each as a share of its speed alone; 1 is all of it. Measured
/// one after the other, so a share may come out above 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Share of the drive's best rate.
    pub drive: f64,
    /// Share of the rate of all cores.
    pub cores: f64,
    /// The part with the greater share, if it is busy.
    pub bottleneck: Bottleneck,
}

/// The limiting part of the combined measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bottleneck {
    /// The drive or its connection.
    Drive,
    /// Hash and cipher.
    Cores,
    /// Both have time left: the limit was not measured (a busy machine, too few requests in flight).
    Neither,
}

/// Share of its own speed from which a part counts as the bottleneck.
const BUSY_MIN: f64 = 0.75;

/// A drive opened for measuring.
#[derive(Debug)]
pub struct Bench {
    request: BenchRequest,
    device: Device,
    facts: DriveFacts,
    /// Places that make the drive look like something.
    marks: Vec<DeviceRange>,
    before: LinkCounters,
}

/// Parameters of one measurement.
#[derive(Clone, Copy)]
struct Measure<'a> {
    direction: Direction,
    block: usize,
    depth: u32,
    at: DeviceOffset,
    time: Duration,
    /// Length of the stretches that are told apart.
    every: Duration,
    road: Option<(&'a Workers, Cipher)>,
}

impl Bench {
    /// Opens the drive: read-only, unless writing was requested and every gate allows it.
    ///
    /// # Errors
    /// All reasons why the drive cannot be measured.
    pub fn open(request: BenchRequest) -> Result<Self, Problems> {
        let path = device::resolve(&request.drive.display().to_string(), &Roots::default())?;
        let device = Device::open(&path, Access::Read)?;
        let size = device.geometry().size;
        let mut problems = Problems::default();
        if request.write {
            problems.0.extend(guard::check(&device, &guard::Context::default()));
        }
        let longest = request.blocks.iter().copied().max().unwrap_or(0).max(ROAD_BLOCK) as u64;
        if size.0 < longest {
            let problem = Problem::new(Kind::Refused, "is smaller than one block").drive(path.display().to_string());
            problems.push(problem.value(size.to_string()));
        }
        if let Some(block) = request.blocks.iter().find(|&&block| block == 0 || block % 4096 != 0 || block > POOL_MAX) {
            let problem = Problem::new(Kind::Usage, "is no block size that can be measured").value(block.to_string());
            problems.push(problem.advice("a multiple of 4096 bytes, at most 96 MiB"));
        }
        problems.into_result()?;
        let contents = signature::scan(&device).map_err(|error| {
            Problem::new(Kind::Drive, format!("cannot be read: {error}")).drive(path.display().to_string())
        })?;
        let identity = device.identity();
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let facts = DriveFacts {
            name: request.drive.display().to_string(),
            path: path.clone(),
            drive_id: identity.serial.clone().unwrap_or(stem),
            serial: identity.known_serial().map(str::to_owned),
            for_shipping: guard::shipping(identity).is_empty(),
            model: identity.model.clone(),
            size,
            sector: device.geometry().sector.bytes(),
            contents: contents.words,
            is_image: device.is_image(),
            rotational: device.geometry().rotational,
        };
        let before = counters(&device);
        let device = if request.write {
            // Held until it is claimed, so that the device that was checked and consented to is the one written to.
            let seen = device.hold();
            drop(device);
            let claimed = Device::open(&path, Access::Claim)?;
            if let Some(change) = seen.change_to(&claimed) {
                let problem = Problem::new(Kind::Refused, format!("is not the drive that was looked at: {change}"));
                return Err(problem.drive(path.display().to_string()).into());
            }
            claimed
        } else {
            device
        };
        Ok(Self { request, device, facts, marks: contents.wipe, before })
    }

    /// Identity of the drive.
    pub fn drive(&self) -> &DriveFacts {
        &self.facts
    }

    /// Whether consent is needed before [`Self::run`].
    pub fn needs_consent(&self) -> bool {
        self.request.write && (!self.facts.is_image || self.facts.contents.is_some())
    }

    /// Measures; `report_to` receives each point as it is measured.
    ///
    /// # Errors
    /// A drive that fails, or an environment without memory or threads.
    pub fn run(&self, stop: &Stop, report_to: &mut dyn FnMut(&Point)) -> Result<BenchReport, Problem> {
        let measured = self.alone(stop, report_to);
        let left = self.leave_nothing();
        measured.and_then(|report| left.map(|()| report))
    }

    fn alone(&self, stop: &Stop, report_to: &mut dyn FnMut(&Point)) -> Result<BenchReport, Problem> {
        let time = Duration::from_secs_f64(self.request.seconds.clamp(0.05, 600.0));
        let mut directions = vec![Direction::Read];
        if self.request.write {
            directions.push(Direction::Write);
        }
        let mut alone = Alone { bench: self, time, stop, report_to, report: self.begun()? };
        if !alone.sweep(&directions)? {
            return Ok(alone.report);
        }
        alone.curve(*directions.last().unwrap_or(&Direction::Read))?;
        alone.road(&directions)?;
        let mut report = alone.report;
        report.link = counters(&self.device).since(&self.before);
        Ok(report)
    }

    /// The report before anything of the drive was measured.
    fn begun(&self) -> Result<BenchReport, Problem> {
        let geometry = self.device.geometry();
        let mut notes = Vec::new();
        if !self.device.is_direct() {
            notes.push("the page cache could not be bypassed: these are not the drive's figures".to_owned());
        }
        if self.facts.is_image {
            notes
                .push("an image file is measured with the file system and disk below it; holes read as nothing".into());
        }
        let queue = [
            geometry.rotational.map(|r| if r { "rotating".to_owned() } else { "no moving parts".to_owned() }),
            geometry.transfer_max.map(|len| format!("transfers of up to {len}")),
            geometry.optimal_io.map(|len| format!("optimal {len}")),
            Some(format!("{}-byte sectors ({} physical)", geometry.sector.bytes(), geometry.physical_sector)),
        ];
        let cipher = self.request.cipher;
        Ok(BenchReport {
            drive: self.facts.clone(),
            engine: String::new(),
            direct: self.device.is_direct(),
            queue: queue.into_iter().flatten().collect::<Vec<_>>().join(", "),
            sweep: Vec::new(),
            curve: Vec::new(),
            core_rates: [core_rate(cipher, CipherDirection::Seal)?, core_rate(cipher, CipherDirection::Open)?],
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            road: Vec::new(),
            run: None,
            link: LinkCounters::default(),
            notes,
        })
    }

    /// Reads, or writes where that was asked for, as it went best alone, for `time`.
    fn steady(&self, alone: &BenchReport, time: Duration, stop: &Stop) -> Result<RateSeries, Problem> {
        let direction = if self.request.write { Direction::Write } else { Direction::Read };
        let (block, depth) = alone.best(direction).map_or((ROAD_BLOCK, 4), |best| (best.block, best.depth));
        let every = (time / STRETCHES).max(STRETCH_MIN);
        let how = Measure { direction, block, depth, at: DeviceOffset(0), time, every, road: None };
        self.measure(how, stop, &mut String::new())
    }

    /// After blocks were written anywhere: nothing of what was there before is left to look like a table or a volume.
    ///
    /// # Errors
    /// When the drive cannot be written any more.
    fn leave_nothing(&self) -> Result<(), Problem> {
        if !self.request.write {
            return Ok(());
        }
        let size = self.facts.size.0 / 4096 * 4096;
        let ends = ENDS.min(size);
        let mut places = vec![DeviceRange::new(0, ends), DeviceRange::new(size - ends, ends)];
        places.extend(self.marks.iter().copied());
        let whole_sectors = places.into_iter().map(|place| {
            let (at, end) = (place.start.0 / 4096 * 4096, place.end().0.next_multiple_of(4096).min(size));
            DeviceRange::new(at, end.saturating_sub(at))
        });
        let pool = Pool::whole(1, ROAD_BLOCK)
            .map_err(|error| Problem::new(Kind::Environment, format!("no memory for the measurement: {error}")))?;
        let engine = self.engine(&pool, Options { reads: 1, writes: 1, ..Options::default() })?;
        let mut io = BlockIo::new(engine, pool, self.failures());
        let places: Vec<DeviceRange> = whole_sectors.collect();
        zeros::overwrite(&mut io, &places, OnError::Fail, &mut |_| (), &|_| ())?;
        // Partitions that are gone; of a file there are none.
        let _ = self.device.reread_partitions();
        Ok(())
    }

    /// Moves consecutive blocks from `at` on, wrapping around, for `time`.
    fn measure(&self, how: Measure<'_>, stop: &Stop, engine_name: &mut String) -> Result<RateSeries, Problem> {
        let Measure { direction, block, depth, at, .. } = how;
        let mut moving = self.moving(how, stop)?;
        *engine_name = moving.io.engine_name().to_owned();
        moving.started = Instant::now();
        event_loop::run(&mut moving)?;
        let elapsed = moving.started.elapsed();
        let Moving { mut latencies, bytes, stretches, .. } = moving;
        latencies.sort_unstable();
        let percentile = |share: f64| {
            let index = (latencies.len() as f64 * share) as usize;
            latencies.get(index.min(latencies.len().saturating_sub(1))).copied().unwrap_or_default()
        };
        let latency = [percentile(0.5), percentile(0.99), percentile(1.0)];
        let point = Point { direction, block, depth, at, bytes: ByteLen(bytes), elapsed, latency };
        Ok(RateSeries { point, stretches })
    }

    /// Slots, engine and lanes of a measurement.
    fn moving(&self, how: Measure<'_>, stop: &Stop) -> Result<Moving, Problem> {
        let Measure { direction, block, depth, at, time, every, road } = how;
        let pool = Pool::whole(depth as usize, block)
            .map_err(|error| Problem::new(Kind::Environment, format!("no memory for the measurement: {error}")))?;
        // A block may be several requests.
        let requests = depth.saturating_mul((block >> 16).max(1) as u32);
        let options = Options { reads: requests, writes: requests, ..Options::default() };
        let engine = self.engine(&pool, options)?;
        let _ = self.device.drop_caches();
        let mut random = Seeded::new(at.0 ^ block as u64);
        let sector = self.device.geometry().sector;
        let mut io = BlockIo::new(engine, pool.clone(), self.failures()).until(stop);
        if let Some((workers, _)) = road {
            io.connect(workers);
        }
        let cipher = road.map(|(_, cipher)| Arc::new(test_cipher(cipher, sector)));
        let mut idle: Vec<Slot> = Vec::new();
        while let Some(mut slot) = pool.take() {
            // Contents that no drive compresses away.
            random.fill(&mut slot);
            idle.push(slot);
        }
        let size = self.facts.size.0 / 4096 * 4096;
        let blocks = (size.saturating_sub(at.0) / block as u64).max(1);
        Ok(Moving {
            direction,
            block,
            depth,
            at,
            blocks,
            cipher,
            time,
            every,
            started: Instant::now(),
            is_stopped: false,
            is_flushed: false,
            next: 0,
            given: HashMap::new(),
            latencies: Vec::new(),
            bytes: 0,
            stretches: Vec::new(),
            stretch: (Duration::ZERO, 0),
            idle,
            io,
        })
    }

    /// Failures of the drive.
    fn failures(&self) -> Failures {
        let node = (!self.facts.is_image).then(|| self.facts.path.clone());
        Failures::of(&self.facts.name, node)
    }

    fn engine(&self, pool: &Pool, options: Options) -> Result<Box<dyn Engine + Send>, Problem> {
        match self.request.engine {
            EngineChoice::Auto => Ok(io::open(self.device.target(), pool, options).0),
            EngineChoice::Uring => match io::uring::Uring::new(self.device.target(), pool, options) {
                Ok(ring) => Ok(Box::new(ring)),
                Err(error) => Err(Problem::new(Kind::Environment, error.to_string())
                    .advice(Advice::from("or use ") + Setting::Engine + " sync")),
            },
            EngineChoice::Sync => Ok(Box::new(io::sync::Sync::new(self.device.target(), options))),
        }
    }
}

/// Measures one drive by itself, point by point.
struct Alone<'a> {
    bench: &'a Bench,
    time: Duration,
    stop: &'a Stop,
    report_to: &'a mut dyn FnMut(&Point),
    report: BenchReport,
}

impl Alone<'_> {
    fn point(&mut self, how: Measure<'_>) -> Result<Point, Problem> {
        let point = self.bench.measure(how, self.stop, &mut self.report.engine)?.point;
        (self.report_to)(&point);
        Ok(point)
    }

    /// Every block size with every depth. `false`: stopped.
    fn sweep(&mut self, directions: &[Direction]) -> Result<bool, Problem> {
        let BenchRequest { blocks, depths, .. } = &self.bench.request;
        let time = self.time;
        for &direction in directions {
            for &block in blocks {
                for &depth in depths {
                    if self.stop.requested() {
                        self.report.notes.push("stopped on request; the rest was not measured".into());
                        return Ok(false);
                    }
                    let depth = depth.clamp(1, (POOL_MAX / block).max(1) as u32);
                    if self.report.sweep.iter().any(|p| (p.direction, p.block, p.depth) == (direction, block, depth)) {
                        continue;
                    }
                    let how = Measure { direction, block, depth, at: DeviceOffset(0), time, every: time, road: None };
                    let point = self.point(how)?;
                    self.report.sweep.push(point);
                }
            }
        }
        Ok(true)
    }

    /// The curve across the surface, with the block size and depth of the best point.
    fn curve(&mut self, direction: Direction) -> Result<(), Problem> {
        let Some((block, depth)) = self.report.best(direction).map(|best| (best.block, best.depth)) else {
            return Ok(());
        };
        let size = self.bench.facts.size.0;
        let points = u64::from(self.bench.request.curve);
        for i in 0..points {
            if self.stop.requested() {
                break;
            }
            // Room for a few rounds, but on a small image for an eighth of it at most.
            let room = (block as u64 * u64::from(depth) * 4).min(size / 8);
            let at = DeviceOffset((size - room) / points.saturating_sub(1).max(1) * i / 4096 * 4096);
            let time = self.time / 4;
            let how = Measure { direction, block, depth, at, time, every: time, road: None };
            let point = self.point(how)?;
            self.report.curve.push(point);
        }
        Ok(())
    }

    /// Drive, hash and cipher together.
    fn road(&mut self, directions: &[Direction]) -> Result<(), Problem> {
        let time = self.time;
        for &direction in directions {
            if !self.stop.requested() {
                let workers = Workers::start(self.report.cores).map_err(|error| no_threads(&error))?;
                let road = Some((&workers, self.bench.request.cipher));
                let (block, depth, at) = (ROAD_BLOCK, ROAD_DEPTH, DeviceOffset(0));
                let point = self.point(Measure { direction, block, depth, at, time, every: time, road })?;
                self.report.road.push(point);
            }
        }
        Ok(())
    }
}

/// Blocks on their way between the drive and, if those are measured too, hash and cipher.
struct Moving {
    direction: Direction,
    block: usize,
    depth: u32,
    at: DeviceOffset,
    /// Blocks from `at` to the end of the drive.
    blocks: u64,
    /// `None` where the drive alone is measured.
    cipher: Option<Arc<SectorCipher>>,
    time: Duration,
    every: Duration,
    started: Instant,
    is_stopped: bool,
    /// What was written is durable, or is being made so: that belongs to the time that is measured.
    is_flushed: bool,
    /// Tag of the next block.
    next: u64,
    /// Time at which the drive got each block.
    given: HashMap<u64, Instant>,
    latencies: Vec<Duration>,
    bytes: u64,
    stretches: Vec<(Duration, ByteLen)>,
    /// Time and bytes at which the present stretch began.
    stretch: (Duration, u64),
    idle: Vec<Slot>,
    io: BlockIo,
}

impl Moving {
    fn place(&self, tag: u64) -> DeviceOffset {
        self.at + ByteLen(tag % self.blocks * self.block as u64)
    }

    /// Sends the next block on its way.
    fn start(&mut self, slot: Slot) {
        let (tag, direction) = (self.next, self.direction);
        self.next += 1;
        match direction {
            Direction::Write if self.cipher.is_some() => self.crypt(CipherDirection::Seal, tag, slot),
            Direction::Write => self.write(tag, slot),
            Direction::Read => {
                self.given.insert(tag, Instant::now());
                let parts = vec![Part { into: 0..self.block, from: From::Target { at: self.place(tag) } }];
                self.io.fill(Fill { tag, slot, parts });
            }
        }
    }

    fn write(&mut self, tag: u64, slot: Slot) {
        self.given.insert(tag, Instant::now());
        self.io.write(tag, slot, self.block, self.place(tag));
    }

    /// Gives a block to the workers.
    fn crypt(&mut self, direction: CipherDirection, tag: u64, slot: Slot) {
        let at = self.place(tag);
        if let Some(cipher) = &self.cipher {
            self.io.digest(job(cipher, direction, tag, slot, self.block, at));
        }
    }

    fn arrived(&mut self, slot: Slot) {
        self.bytes += self.block as u64;
        self.idle.push(slot);
    }
}

impl Transfer for Moving {
    fn io(&mut self) -> &mut BlockIo {
        &mut self.io
    }

    fn advance(&mut self) -> Result<Next, Problem> {
        let elapsed = self.started.elapsed();
        if elapsed - self.stretch.0 >= self.every && !self.is_flushed {
            self.stretches.push((elapsed - self.stretch.0, ByteLen(self.bytes - self.stretch.1)));
            self.stretch = (elapsed, self.bytes);
        }
        let is_running = elapsed < self.time && !self.is_stopped || self.latencies.is_empty();
        while is_running && let Some(slot) = self.idle.pop() {
            self.start(slot);
        }
        // Lanes that are not full start too, unless the drive is busy.
        let is_write = self.direction == Direction::Write;
        let busy = self.io.ops_in_flight() + if is_write { self.io.at_workers() } else { 0 };
        self.io.flush_lanes(busy * 2 >= self.depth as usize);
        if self.io.is_idle() && self.io.at_workers() == 0 {
            if !is_write || self.is_flushed {
                return Ok(Next::Done);
            }
            self.is_flushed = true;
            self.io.flush(self.next);
        }
        Ok(Next::Wait(PROGRESS_INTERVAL))
    }

    fn apply(&mut self, action: Action) -> Result<(), Problem> {
        match action {
            Action::Filled { tag, slot, results } => {
                if let Some(io::PartResult::Failed(error)) = results.first() {
                    let problem = Problem::new(Kind::Drive, format!("reading failed: {error}")).at(self.place(tag));
                    return Err(self.io.failures.named(problem));
                }
                self.latencies.extend(self.given.remove(&tag).map(|since| since.elapsed()));
                match self.cipher {
                    Some(_) => self.crypt(CipherDirection::Open, tag, slot),
                    None => self.arrived(slot),
                }
            }
            Action::Written { tag, slot, result } => {
                result.map_err(|error| self.io.failures.write(&error, None))?;
                self.latencies.extend(self.given.remove(&tag).map(|since| since.elapsed()));
                self.arrived(slot);
            }
            Action::Digested(done) => match self.direction {
                Direction::Write => self.write(done.tag, done.slot),
                Direction::Read => self.arrived(done.slot),
            },
            Action::Flushed { result, .. } => result.map_err(|error| self.io.failures.flush(&error))?,
            Action::Stopped => self.is_stopped = true,
            Action::Woken | Action::Quiet | Action::Slow(_) => {}
        }
        Ok(())
    }
}

/// Measures all drives at once, each as it went best alone, for `time`: each run goes into its report.
///
/// # Errors
/// The first drive that fails.
pub fn together(benches: &[Bench], reports: &mut [BenchReport], time: Duration, stop: &Stop) -> Result<(), Problem> {
    let runs: Vec<Result<RateSeries, Problem>> = std::thread::scope(|scope| {
        let threads: Vec<_> = benches
            .iter()
            .zip(&*reports)
            .map(|(bench, report)| scope.spawn(move || bench.steady(report, time, stop)))
            .collect();
        let bug = |_| Err(Problem::new(Kind::Internal, "a measurement ended in a bug"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(bug)).collect()
    });
    let mut first = Ok(());
    for ((bench, report), run) in benches.iter().zip(reports).zip(runs) {
        let left = bench.leave_nothing();
        report.link = counters(&bench.device).since(&bench.before);
        match run.and_then(|run| left.map(|()| run)) {
            Ok(run) => report.run = Some(run),
            Err(problem) => first = first.and(Err(problem)),
        }
    }
    first
}

/// Counters of a device's link; none for a file.
fn counters(device: &Device) -> LinkCounters {
    let name = device.path().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    match device.is_image() {
        true => LinkCounters::default(),
        false => LinkCounters::read(device.path(), &name, device.identity().transport, device.roots()),
    }
}

/// A slot job for the workers, as preparing and verifying build it.
fn job(
    cipher: &Arc<SectorCipher>,
    direction: CipherDirection,
    tag: u64,
    slot: Slot,
    len: usize,
    at: DeviceOffset,
) -> DigestJob {
    DigestJob {
        tag,
        slot,
        len,
        spans: vec![Span { range: 0..len, how: How::Block }],
        chain: None,
        wholes: Vec::new(),
        whole: None,
        direction,
        crypt: vec![(0..len, VolumeOffset(at.0))],
        cipher: Some(Arc::clone(cipher)),
        sums_spans: false,
        sha256: false,
    }
}

/// A cipher with a worthless key: only its speed matters.
fn test_cipher(cipher: Cipher, sector: SectorSize) -> SectorCipher {
    let mut key = vec![0; cipher.fvek_len()];
    Seeded::new(1).fill(&mut key);
    SectorCipher::new(cipher, &key, sector).expect("the key has the cipher's length")
}

fn no_threads(error: &std::io::Error) -> Problem {
    Problem::new(Kind::Environment, format!("no threads for hashing and sealing: {error}"))
}

/// Bytes a second that one core hashes and encrypts, or decrypts and hashes, with full lanes.
fn core_rate(cipher: Cipher, direction: CipherDirection) -> Result<f64, Problem> {
    let slots = 8;
    let pool = Pool::whole(slots, ROAD_BLOCK)
        .map_err(|error| Problem::new(Kind::Environment, format!("no memory for the measurement: {error}")))?;
    let workers = Workers::start(1).map_err(|error| no_threads(&error))?;
    let cipher = Arc::new(test_cipher(cipher, SectorSize::S512));
    let mut random = Seeded::new(2);
    let mut idle = Vec::new();
    while let Some(mut slot) = pool.take() {
        random.fill(&mut slot);
        idle.push(slot);
    }
    let mut batcher = workers.lane_batcher(io::Waker::none());
    let rounds = CPU_PROBE / (slots * ROAD_BLOCK) as u64;
    let started = Instant::now();
    for round in 0..rounds {
        for (i, slot) in idle.drain(..).enumerate() {
            let at = DeviceOffset((round * slots as u64 + i as u64) * ROAD_BLOCK as u64);
            batcher.push(job(&cipher, direction, i as u64, slot, ROAD_BLOCK, at));
        }
        batcher.flush(false);
        for _ in 0..slots {
            let done = batcher.wait().ok_or_else(|| Problem::new(Kind::Internal, "a worker ended early"))?;
            idle.push(done.slot);
        }
    }
    Ok(CPU_PROBE as f64 / started.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(direction: Direction, bytes: u64) -> Point {
        let (elapsed, latency) = (Duration::from_secs(1), [Duration::ZERO; 3]);
        Point { direction, block: 1 << 20, depth: 1, at: DeviceOffset(0), bytes: ByteLen(bytes), elapsed, latency }
    }

    #[test]
    fn a_cache_that_runs_full_is_seen() {
        let run = |rates: &[u64]| RateSeries {
            point: point(Direction::Write, 1),
            stretches: rates.iter().map(|rate| (Duration::from_secs(2), ByteLen(2 * rate))).collect(),
        };
        assert_eq!(run(&[100, 101, 99, 40, 38, 42]).fall(0.7), Some((Duration::from_secs(6), 40.0)));
        assert_eq!(run(&[100, 101, 40, 99, 95]).fall(0.7), None, "a moment is no fall");
        assert_eq!(run(&[100, 98, 97, 50]).fall(0.7), None, "nor is its last stretch alone");
        assert_eq!(run(&[]).fall(0.7), None);
        assert_eq!(run(&[100, 30, 50]).slowest(), 1.0);
    }

    #[test]
    fn the_greater_share_is_the_bottleneck() {
        let drive = DriveFacts {
            name: String::new(),
            path: PathBuf::new(),
            drive_id: String::new(),
            serial: None,
            for_shipping: true,
            model: None,
            size: ByteLen(1 << 30),
            sector: 512,
            contents: None,
            is_image: false,
            rotational: None,
        };
        let report = BenchReport {
            drive,
            engine: String::new(),
            direct: true,
            queue: String::new(),
            sweep: vec![point(Direction::Read, 500), point(Direction::Read, 400), point(Direction::Write, 4000)],
            curve: Vec::new(),
            core_rates: [1000.0, 2000.0],
            cores: 2,
            road: vec![point(Direction::Read, 490), point(Direction::Write, 1900)],
            run: None,
            link: LinkCounters::default(),
            notes: Vec::new(),
        };
        let read = report.load(Direction::Read).expect("measured");
        assert_eq!(read.bottleneck, Bottleneck::Drive);
        assert!((read.drive - 0.98).abs() < 1e-9 && (read.cores - 0.1225).abs() < 1e-9, "{read:?}");
        let write = report.load(Direction::Write).expect("measured");
        assert_eq!(write.bottleneck, Bottleneck::Cores);
        assert!((write.cores - 0.95).abs() < 1e-9, "{write:?}");
        assert_eq!(report.drives_at_once(Direction::Read), Some(8.0));
        assert_eq!(report.drives_at_once(Direction::Write), Some(0.5));
        // 60 % of the drive, 7.5 % of the cores.
        let idle = BenchReport { road: vec![point(Direction::Read, 300)], ..report };
        assert_eq!(idle.load(Direction::Read).expect("measured").bottleneck, Bottleneck::Neither);
    }
}
