//! An image onto drives, or a drive onto others: read once, written to each, read back.
//!
//! The first mebibyte and both copies of the partition table are kept back: they are made for each disk, and written when all
//! else is durable. Until then a drive holds no volume. A checkpoint next to the image says up to where a drive is durable; a run
//! that was killed reads the image again for its hashes, and writes from there on.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::lane::{self, Lane};
use super::map::{Map, Status};
use super::packed::Packed;
use super::pipeline::{Far, Hashed, Hashes, Pipeline, To, pieces, written};
use super::ranges::{both, rest_of};
use super::rescue::Rescue;
use super::target::{self, Target};
use crate::device::{self, Access, Device, Ground, Node, Roots, guard};
use crate::gpt::moved::{Moved, moved};
use crate::gpt::table_areas;
use crate::hash::md5;
use crate::journal::files::replace_private;
use crate::pool::{Pool, SLOT_LEN};
use crate::report::{Advice, DriveFacts, Event, Kind, Problem, Problems, Setting, Stage, Stop, Waiting};
use crate::stream::rate_limit::RateLimit;
use crate::stream::workers::Workers;
use crate::stream::zeros::merged;
use crate::surroundings::timestamp;
use crate::units::{ByteLen, DeviceOffset, DeviceRange};
use crate::verify::listing;
use crate::volume::find::{self, Found, Opened};

/// Bytes at the front of a drive that are written last.
const FRONT: u64 = 1 << 20;

/// Interval between two checkpoints.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);

/// First line of a checkpoint.
const CHECKPOINT_HEAD: &str = "dray write 1";

/// An image to be written, its target drives, and the options.
#[derive(Clone, Debug)]
pub struct WriteRequest {
    /// The image or, to copy a drive, that.
    pub source: PathBuf,
    /// Drives and existing image files.
    pub drives: Vec<PathBuf>,
    /// Bytes of the source that are not in use and are not written.
    pub unused: Vec<DeviceRange>,
    /// The id of the drive that the image was prepared for, if that is known.
    pub drive_id: Option<String>,
    /// Write a prepared image also onto a disk of another serial.
    pub not_for_shipping: bool,
    /// Directory of the checkpoints; `None` for none.
    pub checkpoints: Option<PathBuf>,
    /// Number of further passes over bad sectors of the source; `None`: a read error ends the run.
    pub retries: Option<u32>,
    /// Bytes a second that are read at most.
    pub rate: Option<u64>,
    /// Paths that must not lie on the drives.
    pub context: guard::Context,
}

/// Drives that passed the gates.
#[derive(Debug)]
pub struct Write {
    request: WriteRequest,
    source: Device,
    /// The same, if it is packed.
    packed: Option<Packed>,
    facts: DriveFacts,
    /// The source, as it was when the checkpoint was made: length and time of change.
    stamp: String,
    drives: Vec<Drive>,
}

#[derive(Debug)]
struct Drive {
    target: Target,
    moved: Option<Moved>,
    checkpoint: Option<PathBuf>,
    /// Everything below this byte is durable, by the checkpoint.
    durable: u64,
}

/// A drive, and what was written to it or why not.
pub type Ended = (DriveFacts, Result<OneWritten, Problem>);

/// Result of a run: the source and each drive.
#[derive(Clone, Debug)]
pub struct Written {
    /// The image or drive that was read.
    pub source: DriveFacts,
    /// SHA-256 of the source from end to end; `None` where only a part of it was read.
    pub source_sha256: Option<[u8; 32]>,
    /// Bytes read.
    pub read: ByteLen,
    /// Bytes of the source that are not in use and were not written.
    pub left_out: ByteLen,
    /// Ranges of the source that could not be read.
    pub unreadable: Vec<DeviceRange>,
    /// Each drive, in the order in which they were named.
    pub drives: Vec<Ended>,
    /// Duration of the run.
    pub elapsed: Duration,
}

/// Result for one drive.
#[derive(Clone, Debug)]
pub struct OneWritten {
    /// Times of its beginning and end.
    pub times: [jiff::Timestamp; 2],
    /// Bytes that this run wrote.
    pub written: ByteLen,
    /// Bytes read back.
    pub read_back: ByteLen,
    /// SHA-256 of what was read back, in the order of its places.
    pub sha256: [u8; 32],
    /// Ranges whose read-back differs from the data written.
    pub different: Vec<DeviceRange>,
    /// New position of the backup partition table, if the disk and the image differ in size.
    pub moved_to: Option<DeviceOffset>,
    /// Byte from which this run went on.
    pub continued_at: Option<DeviceOffset>,
}

impl Write {
    /// Looks at source and drives.
    ///
    /// # Errors
    /// All that speaks against it.
    pub fn look(request: WriteRequest) -> Result<Self, Problems> {
        let path = device::resolve(&request.source.display().to_string(), &Roots::default())?;
        let packed = packed(&path)?;
        if packed.is_none() {
            device::refuse_packed(&request.source)?;
        }
        let source = Device::open(&path, Access::Read)?;
        let mut facts = target::facts(&request.source, &path, &source, None);
        let file_size = facts.size;
        if let Some(packed) = &packed {
            facts.size = packed.len();
        }
        let mut problems = Problems::default();
        if facts.size.0 == 0 {
            let problem = Problem::new(Kind::Usage, "is empty: it holds nothing to write").drive(&facts.name);
            return Err(problem.advice("name an image or a drive that holds something").into());
        }
        let meta = fs::metadata(&path).ok();
        let raw = meta.as_ref().filter(|_| facts.is_image && packed.is_none());
        let len = raw.map_or(facts.size.0, std::fs::Metadata::len);
        if !len.is_multiple_of(facts.sector) {
            let problem = Problem::new(Kind::Usage, "ends within a sector: it is no image of a whole drive");
            problems
                .push(problem.drive(&facts.name).value(format!("{len} bytes")).advice("is it compressed, or cut off?"));
        }
        let stamp = format!(
            "{} {}",
            file_size.0,
            meta.as_ref().filter(|_| facts.is_image).map_or(0, |meta| meta.mtime() * 1_000_000_000 + meta.mtime_nsec())
        );
        let stamp = match (facts.is_image, source.identity().is_anonymous()) {
            (true, _) => stamp,
            (false, true) => format!("{stamp} at {}", path.display()),
            (false, false) => {
                let identity = source.identity();
                format!("{stamp} serial {:?} wwn {:?}", identity.known_serial(), identity.wwn)
            }
        };
        // What stands on the source decides how small a disk may be. One without table or volume is taken as it is.
        let found = find::open(&path, None).ok();
        let mut context = request.context.clone();
        context.sources.push(request.source.clone());
        let ground = Ground::of(&source);
        let mut drives = Vec::new();
        for name in &request.drives {
            if fs::metadata(name).is_ok_and(|meta| Node::of(&meta) == *source.node()) {
                let problem = Problem::new(Kind::Refused, "is what is read from").drive(name.display().to_string());
                problems.push(problem.advice("name another drive"));
                continue;
            }
            match Target::look(name, &context) {
                Err(mut more) => problems.0.append(&mut more.0),
                Ok(target) => {
                    let (source, packed) = (&source, packed.as_ref());
                    let seen = Seen { request: &request, source, packed, found: found.as_ref(), ground: &ground };
                    match seen.drive(target, &facts, &stamp) {
                        Ok(drive) => drives.push(drive),
                        Err(mut more) => problems.0.append(&mut more.0),
                    }
                }
            }
        }
        let targets: Vec<&Target> = drives.iter().map(|drive| &drive.target).collect();
        if let Err(mut more) = target::twice(&targets) {
            problems.0.append(&mut more.0);
        }
        problems.into_result()?;
        Ok(Self { request, source, packed, facts, stamp, drives })
    }

    /// The source.
    pub fn source(&self) -> &DriveFacts {
        &self.facts
    }

    /// The drives, and whether consent is needed first.
    pub fn drives(&self) -> Vec<(&DriveFacts, bool)> {
        self.drives.iter().map(|drive| (drive.target.facts(), drive.target.needs_consent())).collect()
    }

    /// Position from which a drive that an earlier run began is continued.
    pub fn continues(&self) -> Vec<(&DriveFacts, DeviceOffset)> {
        let begun = self.drives.iter().filter(|drive| drive.durable > 0);
        begun.map(|drive| (drive.target.facts(), DeviceOffset(drive.durable))).collect()
    }

    /// Bytes that are read.
    pub fn to_read(&self) -> ByteLen {
        ByteLen(self.facts.size.0 - self.request.unused.iter().map(|range| range.len.0).sum::<u64>())
    }

    /// Writes and reads back. A failed drive is reported, and the others go on.
    ///
    /// # Errors
    /// A source that fails, or a wish to stop, after which the same call goes on.
    pub fn run(self, workers: &Workers, stop: &Stop, events: &(dyn Fn(Event) + Sync)) -> Result<Written, Problem> {
        let result = self.carry(workers, stop, events);
        if let Err(problem) = &result {
            let stage = if problem.kind == Kind::Interrupted { Stage::Stopped } else { Stage::Failed };
            (0..self.drives.len()).for_each(|drive| events(Event::Stage { drive, stage }));
        }
        result
    }

    fn carry(&self, workers: &Workers, stop: &Stop, events: &(dyn Fn(Event) + Sync)) -> Result<Written, Problem> {
        let began = (timestamp(), Instant::now());
        let size = self.facts.size;
        let front = self.front()?;
        let claimed = self.claim_all(&front, stop, events);
        let alive: Vec<(usize, &Claimed)> =
            claimed.iter().enumerate().filter_map(|(index, one)| Some((index, one.as_ref().ok()?))).collect();
        let ranges = rest_of(size, &self.request.unused);
        let total: u64 = ranges.iter().map(|range| range.len.0).sum();
        let is_whole = total == size.0;
        let cuts: BTreeSet<u64> = alive.iter().flat_map(|(_, one)| one.cuts()).collect();
        let cuts: Vec<u64> = cuts.into_iter().collect();
        let rate = RateLimit::new(self.request.rate, Instant::now());
        let pipeline = Pipeline {
            source: &self.source,
            name: &self.facts.name,
            workers,
            stop,
            ranges: &ranges,
            cuts: &cuts,
            hashes: Hashes { sha256: is_whole, ..Hashes::default() },
            tolerant: self.request.retries.is_some(),
            rate: &rate,
        };
        let takes: Vec<_> = alive.iter().map(|(_, one)| move |range: DeviceRange| one.takes(range)).collect();
        let to: Vec<To<'_>> =
            alive.iter().zip(&takes).map(|((index, one), takes)| self.lane(*index, one, takes)).collect();
        alive.iter().for_each(|(drive, _)| events(Event::Stage { drive: *drive, stage: Stage::Data }));
        let bytes = vec![0; alive.len()];
        let mut reports = Reports {
            writing: self,
            alive: &alive,
            total,
            events,
            read: 0,
            bytes,
            saved: Instant::now(),
            trouble: None,
        };
        let mut progress = |now: &Far<'_>| reports.take(now);
        let carried = match &self.packed {
            None => pipeline.run(&to, &mut progress)?,
            Some(packed) => pipeline.unpack(packed, &to, &mut progress)?,
        };
        let Reports { read, bytes, trouble, .. } = reports;
        if let Some(problem) = trouble {
            return Err(problem);
        }
        let mut ended: Vec<Option<Problem>> = carried.lanes.into_iter().map(Result::err).collect();
        let mut rescued: Vec<Hashed> = Vec::new();
        let rescue = Rescued { alive: &alive, cuts: &cuts, stop };
        let unreadable = self.rescue_failed(&carried.failed, &rescue, &mut ended, &mut rescued)?;
        for ((index, _), problem) in alive.iter().zip(&ended) {
            problem.iter().for_each(|problem| events(Event::DriveFailed { drive: *index, problem: problem.clone() }));
        }
        let pieces = carried.pieces.iter().chain(&rescued);
        let hashes: HashMap<(u64, u64), [u8; 16]> =
            pieces.map(|piece| ((piece.range.start.0, piece.range.len.0), piece.md5)).collect();
        let finish = |index: usize| Finish {
            name: &self.drives[index].target.facts().name,
            index,
            hashes: &hashes,
            ranges: &ranges,
            unreadable: &unreadable,
            cuts: &cuts,
            workers,
            stop,
            events,
        };
        let finished = finish_all(&alive, &mut ended, &bytes, began.0, &finish);
        let drives = self.results(claimed, finished)?;
        Ok(Written {
            source: self.facts.clone(),
            source_sha256: carried.sha256,
            read: ByteLen(read),
            left_out: ByteLen(size.0 - total),
            unreadable,
            drives,
            elapsed: began.1.elapsed(),
        })
    }

    /// The first bytes of the image: its tables and signatures.
    fn front(&self) -> Result<Vec<u8>, Problem> {
        let mut front = vec![0; FRONT.min(self.facts.size.0) as usize];
        read_at(&self.source, self.packed.as_ref(), &mut front, DeviceOffset(0)).map_err(|error| {
            Problem::new(Kind::Source, format!("cannot be read: {error}")).drive(&self.facts.name).at(DeviceOffset(0))
        })?;
        Ok(front)
    }

    fn lane<'a>(&'a self, index: usize, one: &'a Claimed, takes: &'a (dyn Fn(DeviceRange) -> bool + Sync)) -> To<'a> {
        let name = &self.drives[index].target.facts().name;
        To { device: &one.device, name, takes, sparse: one.is_sparse }
    }

    /// Claims and wipes the drives one by one: all of them before the first byte of the image.
    fn claim_all(&self, front: &[u8], stop: &Stop, events: &(dyn Fn(Event) + Sync)) -> Vec<Result<Claimed, Problem>> {
        let claim = |(index, drive): (usize, &Drive)| {
            let one = drive.claim(front, self.facts.size, index, stop, events);
            if let Err(problem) = &one {
                events(Event::DriveFailed { drive: index, problem: problem.clone() });
            }
            one
        };
        self.drives.iter().enumerate().map(claim).collect()
    }

    /// The end of each drive. A drive that is done has nothing to go on with: its checkpoint goes.
    ///
    /// # Errors
    /// A wish to stop.
    fn results(
        &self,
        claimed: Vec<Result<Claimed, Problem>>,
        mut finished: HashMap<usize, Result<OneWritten, Problem>>,
    ) -> Result<Vec<Ended>, Problem> {
        let mut drives = Vec::new();
        for (index, one) in claimed.into_iter().enumerate() {
            let facts = self.drives[index].target.facts().clone();
            let lost = || Err(Problem::new(Kind::Internal, "the drive has no end"));
            let ended = one.and_then(|_| finished.remove(&index).unwrap_or_else(lost));
            match (&ended, &self.drives[index].checkpoint) {
                (Err(problem), _) if problem.kind == Kind::Interrupted => return Err(problem.clone()),
                (Ok(_), Some(path)) => drop(fs::remove_file(path)),
                _ => {}
            }
            drives.push((facts, ended));
        }
        Ok(drives)
    }

    /// Tries what could not be read again, if that is wanted; gives what cannot be read.
    fn rescue_failed(
        &self,
        failed: &[DeviceRange],
        rescue: &Rescued<'_>,
        ended: &mut [Option<Problem>],
        rescued: &mut Vec<Hashed>,
    ) -> Result<Vec<DeviceRange>, Problem> {
        let (Some(retries), false) = (self.request.retries, failed.is_empty()) else { return Ok(Vec::new()) };
        let mut map = Map::new(self.facts.size);
        map.set(DeviceRange::new(0, self.facts.size.0), Status::Finished);
        failed.iter().for_each(|range| map.set(*range, Status::NonTrimmed));
        self.rescue(&mut map, retries, rescue, ended, rescued)
    }

    /// Reads bad places again in small pieces, and writes what comes to every drive; gives what cannot be read.
    fn rescue(
        &self,
        map: &mut Map,
        retries: u32,
        &Rescued { alive, cuts, stop }: &Rescued<'_>,
        ended: &mut [Option<Problem>],
        rescued: &mut Vec<Hashed>,
    ) -> Result<Vec<DeviceRange>, Problem> {
        let mut rescue = Rescue::new(&self.source, &self.facts.name, stop)?;
        let pool = Pool::whole(1, SLOT_LEN)
            .map_err(|error| Problem::new(Kind::Environment, format!("no memory for slots: {error}")))?;
        let mut lanes: Vec<Lane> = alive
            .iter()
            .map(|(index, one)| Lane::new(&one.device, &self.drives[*index].target.facts().name, &pool))
            .collect();
        let mut put = |at: DeviceOffset, bytes: &[u8]| {
            let range = DeviceRange::new(at.0, bytes.len() as u64);
            for (((_, one), lane), ended) in alive.iter().zip(&mut lanes).zip(ended.iter_mut()) {
                if ended.is_none() && one.takes(range) {
                    *ended = lane.put(&[(at, bytes)]).err();
                }
            }
        };
        // Hashed as it will be read back.
        let mut rescued_one = |at: DeviceOffset, bytes: &[u8]| {
            let range = DeviceRange::new(at.0, bytes.len() as u64);
            rescued.push(Hashed { range, md5: md5(bytes), sha256: None });
            put(at, bytes);
            Ok(())
        };
        rescue.run(map, retries, &mut rescued_one, &mut |_| Ok(()))?;
        let unreadable = map.of(Status::Bad);
        // Nothing old shines through where nothing could be read.
        for place in &unreadable {
            for piece in pieces(&[*place], cuts) {
                put(piece.start, &vec![0; piece.len.0 as usize]);
            }
        }
        Ok(unreadable)
    }

    fn checkpoint(&self, index: usize, durable: u64) -> Result<(), Problem> {
        let drive = &self.drives[index];
        let Some(path) = &drive.checkpoint else { return Ok(()) };
        replace_private(path, drive.text(&self.stamp, &self.request.unused, durable).as_bytes()).map_err(|error| {
            Problem::new(Kind::Environment, format!("the checkpoint cannot be written: {error}"))
                .path(path)
                .advice(Advice::from("make room, or name another directory with ") + Setting::Checkpoints)
        })
    }
}

/// Reads from a source, or from one of the ends of a packed one.
fn read_at(source: &Device, packed: Option<&Packed>, into: &mut [u8], at: DeviceOffset) -> std::io::Result<()> {
    match packed {
        None => source.read_exact_at(into, at),
        Some(packed) => packed.read_exact_at(into, at),
    }
}

/// The source as a packed image, read to its end; `None` if it is not packed by gzip or Zstandard.
fn packed(path: &Path) -> Result<Option<Packed>, Problem> {
    Packed::look(path).map_err(|error| {
        let problem = Problem::new(Kind::Source, format!("cannot be unpacked: {error}"));
        problem.drive(path.display().to_string()).advice("fetch the image again: a part of it is missing or damaged")
    })
}

/// Context of a rescue besides its map.
struct Rescued<'a> {
    alive: &'a [(usize, &'a Claimed)],
    cuts: &'a [u64],
    stop: &'a Stop,
}

/// Facts that every drive is checked against.
struct Seen<'a> {
    request: &'a WriteRequest,
    source: &'a Device,
    packed: Option<&'a Packed>,
    found: Option<&'a Found>,
    ground: &'a Ground,
}

impl Seen<'_> {
    fn drive(&self, target: Target, source: &DriveFacts, stamp: &str) -> Result<Drive, Problems> {
        let facts = target.facts();
        let refused = |what: &str| Problem::new(Kind::Refused, what).drive(&facts.name);
        let mut problems = Problems::default();
        let shared = target.drive.ground.as_ref().and_then(|ground| ground.shared_with(self.ground));
        if let Some(node) = shared {
            let problem = refused("is what is read from").value(node.to_string());
            return Err(problem.advice("name another drive").into());
        }
        if !source.size.0.is_multiple_of(facts.sector) {
            let problem = refused("has sectors that the image's length is no multiple of");
            problems.push(problem.value(format!("{} bytes", facts.sector)).advice("use a drive with smaller sectors"));
        }
        let read_at = |at: DeviceOffset, into: &mut [u8]| read_at(self.source, self.packed, into, at);
        let moved = match moved(source.size, facts.size, target.drive.sector, read_at) {
            Ok(Ok(moved)) => moved,
            Ok(Err(error)) => {
                problems.push(refused(&format!("cannot take the image: {error}")).advice("use a larger disk"));
                None
            }
            Err(error) => {
                problems.push(Problem::new(Kind::Source, format!("cannot be read: {error}")).drive(&source.name));
                None
            }
        };
        if moved.is_none() && facts.size < source.size && problems.0.is_empty() {
            let end = self.end();
            if end.is_none_or(|end| end > facts.size.0) {
                let problem = refused("is smaller than the image").value(format!("{} of {}", facts.size, source.size));
                problems.push(problem.advice("use a larger disk"));
            }
        }
        if let Some(id) = &self.request.drive_id
            && !self.request.not_for_shipping
            && !facts.is_image
        {
            let is_it = facts.serial.as_ref().is_some_and(|serial| serial.trim().eq_ignore_ascii_case(id));
            if !is_it {
                let own = facts.serial.clone().unwrap_or_else(|| "none".into());
                let problem =
                    refused("the image was prepared for the drive of another serial: the service would refuse it");
                problems.push(problem.value(format!("prepared for {id}; this one's serial is {own}")).advice(
                    Advice::from("write it to that drive, prepare an image for this one, or say ")
                        + Setting::NotForShipping,
                ));
            }
        }
        problems.into_result()?;
        let checkpoint = self.request.checkpoints.as_ref().map(|dir| {
            let name = self.request.source.file_name().unwrap_or_default().to_string_lossy();
            let id: String = facts.drive_id.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
            dir.join(format!("{name}.{id}.write"))
        });
        let mut drive = Drive { target, moved, checkpoint, durable: 0 };
        drive.durable = drive.begun(stamp, &self.request.unused);
        Ok(drive)
    }

    /// The end of what stands on the source; `None` where nothing is recognised.
    fn end(&self) -> Option<u64> {
        let found = self.found?;
        match &found.table {
            None => Some(found.volume.end().0),
            Some(table) => table.partitions.iter().map(|entry| entry.range.end().0).max(),
        }
    }
}

impl Drive {
    /// The checkpoint's text: source and drive as they are, and how far it is.
    fn text(&self, stamp: &str, unused: &[DeviceRange], durable: u64) -> String {
        let facts = self.target.facts();
        let identity = self.target.drive.identity.as_ref();
        let file = self.target.drive.ground.as_ref().and_then(Ground::file);
        let left_out: u64 = unused.iter().map(|range| range.len.0).sum();
        format!(
            "{CHECKPOINT_HEAD}\nsource {stamp}\nleft out {left_out} in {}\nserial {:?}\nwwn {:?}\nsize {}\nfile {file:?}\n\
             durable {durable}\n",
            unused.len(),
            facts.serial,
            identity.and_then(|identity| identity.wwn.as_deref()),
            facts.size.0,
        )
    }

    /// Position reached by an earlier run; 0 without one, or after one with another source, drive or option.
    fn begun(&self, stamp: &str, unused: &[DeviceRange]) -> u64 {
        let Some(path) = &self.checkpoint else { return 0 };
        // A drive without serial and world wide name may be another one by now.
        let file = self.target.drive.ground.as_ref().and_then(Ground::file);
        if self.target.drive.identity.as_ref().is_none_or(|own| own.is_anonymous()) && file.is_none() {
            return 0;
        }
        let Ok(bytes) = crate::files::input::read(path, 64 << 10, crate::files::input::Pipes::Refused) else {
            return 0;
        };
        let text = String::from_utf8_lossy(&bytes);
        let durable = text.lines().last().and_then(|line| line.strip_prefix("durable ")).and_then(|n| n.parse().ok());
        durable.filter(|durable| text == self.text(stamp, unused, *durable)).unwrap_or(0)
    }

    /// Takes the drive, and wipes it unless it was begun.
    fn claim(
        &self,
        front: &[u8],
        source: ByteLen,
        index: usize,
        stop: &Stop,
        events: &(dyn Fn(Event) + Sync),
    ) -> Result<Claimed, Problem> {
        let device = self.target.claim()?;
        let facts = self.target.facts();
        let overlays = overlays(front, self.moved.as_ref(), source, facts.size);
        if self.durable == 0 {
            events(Event::Stage { drive: index, stage: Stage::Wiping });
            if device.is_image() {
                let punched = device.discard(DeviceRange::new(0, facts.size.0)).map_err(|error| {
                    Problem::new(Kind::Drive, format!("the old contents cannot be given back: {error}"))
                        .drive(&facts.name)
                })?;
                if !punched {
                    lane::zero(&device, &facts.name, &[DeviceRange::new(0, facts.size.0)], stop, &mut |_| ())?;
                }
            } else {
                let mut old = self.target.drive.old.clone();
                old.extend(table_areas(facts.size));
                old.extend(overlays.iter().map(|(at, bytes)| DeviceRange::new(at.0, bytes.len() as u64)));
                let unwritten = lane::zero(&device, &facts.name, &merged(old), stop, &mut |_| ())?;
                if let Some(place) = unwritten.first() {
                    let problem = Problem::new(Kind::Drive, "cannot be written").drive(&facts.name).at(place.start);
                    return Err(problem.advice("the drive is damaged: use another one"));
                }
            }
        }
        Ok(Claimed {
            is_sparse: device.is_image(),
            limit: facts.size.0.min(source.0),
            durable: self.durable,
            moved_to: self.moved.as_ref().filter(|_| facts.size != source).map(|moved| moved.second.0),
            overlays,
            device,
        })
    }
}

/// Parts that are written last, from memory: the front of the source with this disk's table, the second copy at the end, zeros where
/// the second copy was. Ascending and apart; the front is the first.
fn overlays(front: &[u8], moved: Option<&Moved>, source: ByteLen, disk: ByteLen) -> Vec<(DeviceOffset, Vec<u8>)> {
    let mut first = front[..front.len().min(disk.0 as usize)].to_vec();
    let mut out = Vec::new();
    if let Some(moved) = moved {
        for (at, bytes) in &moved.first {
            let (from, to) = (at.0 as usize, at.0 as usize + bytes.len());
            match first.get_mut(from..to) {
                Some(place) => place.copy_from_slice(bytes),
                None => out.push((*at, bytes.clone())),
            }
        }
        if let Some(old) = moved.old_second {
            let end = old.end().0.min(disk.0).min(source.0).min(moved.second.0.0.max(old.start.0));
            if end > old.start.0 {
                out.push((old.start, vec![0; (end - old.start.0) as usize]));
            }
        }
        out.push(moved.second.clone());
    }
    out.insert(0, (DeviceOffset(0), first));
    out.sort_by_key(|(at, _)| *at);
    out
}

/// A drive that is written.
#[derive(Debug)]
struct Claimed {
    device: Arc<Device>,
    overlays: Vec<(DeviceOffset, Vec<u8>)>,
    /// Bytes of the source that the drive takes.
    limit: u64,
    durable: u64,
    is_sparse: bool,
    moved_to: Option<DeviceOffset>,
}

impl Claimed {
    fn cuts(&self) -> Vec<u64> {
        let edges = self.overlays.iter().flat_map(|(at, bytes)| [at.0, at.0 + bytes.len() as u64]);
        edges.chain([self.limit]).filter(|at| *at > 0).collect()
    }

    fn overlay(&self, range: DeviceRange) -> Option<&[u8]> {
        self.overlays.iter().find_map(|(at, bytes)| {
            let from = range.start.0.checked_sub(at.0)? as usize;
            bytes.get(from..from + range.len.0 as usize)
        })
    }

    /// Whether the piece goes to the drive as it is.
    fn takes(&self, range: DeviceRange) -> bool {
        range.end().0 <= self.limit && range.end().0 > self.durable && self.overlay(range).is_none()
    }

    /// Bytes read that are not this run's to write; an estimate for who watches.
    fn skipped(&self, read: u64, written: u64) -> u64 {
        match self.is_sparse || self.durable > 0 {
            true => read.saturating_sub(written).saturating_sub(64 << 20),
            false => self.overlays.first().map_or(0, |(_, front)| front.len() as u64).min(read),
        }
    }
}

/// The end of a drive: tables, front, reading back.
struct Finish<'a> {
    name: &'a str,
    index: usize,
    hashes: &'a HashMap<(u64, u64), [u8; 16]>,
    ranges: &'a [DeviceRange],
    unreadable: &'a [DeviceRange],
    cuts: &'a [u64],
    workers: &'a Workers,
    stop: &'a Stop,
    events: &'a (dyn Fn(Event) + Sync),
}

/// Progress of all drives, and their checkpoints.
struct Reports<'a> {
    writing: &'a Write,
    alive: &'a [(usize, &'a Claimed)],
    total: u64,
    events: &'a (dyn Fn(Event) + Sync),
    /// Bytes read from the source.
    read: u64,
    /// Bytes written to each drive.
    bytes: Vec<u64>,
    saved: Instant,
    /// First checkpoint that could not be written.
    trouble: Option<Problem>,
}

impl Reports<'_> {
    fn take(&mut self, now: &Far<'_>) {
        self.read = now.read;
        for (lane, (index, one)) in self.alive.iter().enumerate() {
            self.bytes[lane] = written(now.counters, lane);
            // What a lane does not write (holes, what is durable already) is done when it is read.
            let acknowledged = (self.bytes[lane] + one.skipped(now.read, self.bytes[lane])).min(self.total);
            let waiting_for = Waiting::Nothing;
            let (acknowledged, total) = (ByteLen(acknowledged), ByteLen(self.total));
            (self.events)(Event::Progress { drive: *index, acknowledged, total, files: 0, waiting_for });
        }
        if self.saved.elapsed() < CHECKPOINT_EVERY {
            return;
        }
        self.saved = Instant::now();
        for (lane, (index, one)) in self.alive.iter().enumerate() {
            let durable = now.counters[lane].durable.load(Ordering::Acquire).max(one.durable);
            let has_failed = now.counters[lane].failed.load(Ordering::Acquire);
            if durable > 0 && !has_failed && now.failed.is_empty() {
                self.trouble = self.trouble.take().or(self.writing.checkpoint(*index, durable).err());
            }
        }
    }
}

/// Ends every drive on a thread of its own: the last places, flushes, reading back.
fn finish_all<'a>(
    alive: &[(usize, &Claimed)],
    ended: &mut [Option<Problem>],
    bytes: &[u64],
    began: jiff::Timestamp,
    finish: &dyn Fn(usize) -> Finish<'a>,
) -> HashMap<usize, Result<OneWritten, Problem>> {
    std::thread::scope(|scope| {
        let lanes = alive.iter().zip(ended).zip(bytes);
        let threads: Vec<_> = lanes
            .map(|((&(index, one), problem), &written)| {
                let (finish, problem) = (finish(index), problem.take());
                let thread = scope.spawn(move || match problem {
                    Some(problem) => Err(problem),
                    None => finish.run(one, written, began),
                });
                (index, thread)
            })
            .collect();
        let bug = |_| Problem::new(Kind::Internal, "the drive's thread ended in a bug");
        threads.into_iter().map(|(index, thread)| (index, thread.join().map_err(bug).and_then(|ended| ended))).collect()
    })
}

impl Finish<'_> {
    fn run(&self, one: &Claimed, written: u64, began: jiff::Timestamp) -> Result<OneWritten, Problem> {
        let result = self.carry(one, written, began);
        let stage = |stage| (self.events)(Event::Stage { drive: self.index, stage });
        match &result {
            Ok(written) if written.different.is_empty() => stage(Stage::Done),
            Ok(_) => stage(Stage::Failed),
            Err(problem) if problem.kind == Kind::Interrupted => {}
            Err(problem) => (self.events)(Event::DriveFailed { drive: self.index, problem: problem.clone() }),
        }
        result
    }

    fn carry(&self, one: &Claimed, written: u64, began: jiff::Timestamp) -> Result<OneWritten, Problem> {
        let stage = |stage| (self.events)(Event::Stage { drive: self.index, stage });
        stage(Stage::Finishing);
        self.put_overlays(one)?;
        let _ = one.device.reread_partitions();
        stage(Stage::ReadBack);
        one.device.drop_caches().map_err(|error| {
            Problem::new(Kind::Drive, format!("the kernel's cache cannot be emptied: {error}")).drive(self.name)
        })?;
        let of_source = both(self.ranges, &[DeviceRange::new(0, one.limit)]);
        let of_source = both(&of_source, &rest_of(ByteLen(one.limit), self.unreadable));
        let own = one.overlays.iter().map(|(at, bytes)| DeviceRange::new(at.0, bytes.len() as u64));
        let ranges = merged(of_source.iter().copied().chain(own).collect());
        let total = ByteLen(ranges.iter().map(|range| range.len.0).sum());
        let rate = RateLimit::new(None, Instant::now());
        let cuts = self.cuts_of_pieces();
        let pipeline = Pipeline {
            source: &one.device,
            name: self.name,
            workers: self.workers,
            stop: self.stop,
            ranges: &ranges,
            cuts: &cuts,
            hashes: Hashes { sha256: true, ..Hashes::default() },
            tolerant: true,
            rate: &rate,
        };
        let carried = pipeline.run(&[], &mut |now| {
            let (acknowledged, waiting_for) = (ByteLen(now.read), Waiting::Drive);
            (self.events)(Event::Progress { drive: self.index, acknowledged, total, files: 0, waiting_for });
        })?;
        let mut different = carried.failed;
        for piece in &carried.pieces {
            let key = (piece.range.start.0, piece.range.len.0);
            let wanted = one.overlay(piece.range).map(md5).or_else(|| self.hashes.get(&key).copied());
            if wanted != Some(piece.md5) {
                different.push(piece.range);
            }
        }
        let read_back = ByteLen(carried.pieces.iter().map(|piece| piece.range.len.0).sum());
        let own: u64 = one.overlays.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        Ok(OneWritten {
            times: [began, timestamp()],
            written: ByteLen(written + own),
            read_back,
            sha256: carried.sha256.unwrap_or_default(),
            different: merged(different),
            moved_to: one.moved_to,
            continued_at: (one.durable > 0).then_some(DeviceOffset(one.durable)),
        })
    }
}

impl Finish<'_> {
    /// Writes what differs from the image on this drive: its tables, the backup boot sector.
    fn put_overlays(&self, one: &Claimed) -> Result<(), Problem> {
        let pool = Pool::whole(2, SLOT_LEN).map_err(|error| {
            Problem::new(Kind::Environment, format!("no memory for slots: {error}")).drive(self.name)
        })?;
        let mut lane = Lane::new(&one.device, self.name, &pool);
        let places: Vec<(DeviceOffset, &[u8])> = one.overlays.iter().map(|(at, bytes)| (*at, &bytes[..])).collect();
        let (front, others) = places.split_first().ok_or_else(|| Problem::new(Kind::Internal, "no front"))?;
        lane.put(others)?;
        // The first sector is what makes it a drive: by itself, when all else is durable.
        let sector = (one.device.geometry().sector.bytes() as usize).min(front.1.len());
        lane.put(&[(DeviceOffset(sector as u64), &front.1[sector..])])?;
        lane.put(&[(front.0, &front.1[..sector])])
    }

    /// Where pieces begin and end off the grid, those of a rescued place too.
    fn cuts_of_pieces(&self) -> Vec<u64> {
        let mut cuts: Vec<u64> = self.hashes.keys().flat_map(|(at, len)| [*at, at + len]).collect();
        cuts.retain(|at| !at.is_multiple_of(SLOT_LEN as u64));
        cuts.extend(self.cuts);
        cuts.sort_unstable();
        cuts.dedup();
        cuts
    }
}

/// The id of the drive that an image was prepared for: what its drive record says, or the manifest on it.
pub fn prepared_for(opened: &Opened) -> Option<String> {
    let record = opened.unlocked.as_ref().and_then(|unlocked| unlocked.record.as_ref());
    let id = record.map(|record| record.drive_id.clone()).filter(|id| !id.is_empty());
    id.or_else(|| listing::drive_id(opened)).map(|id| id.trim().to_owned())
}

/// Default directory of the checkpoints: that of an image file; none for a disk.
pub fn checkpoints_beside(source: &Path) -> Option<PathBuf> {
    let is_file = fs::metadata(source).is_ok_and(|meta| meta.is_file());
    is_file.then(|| source.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned())
}
