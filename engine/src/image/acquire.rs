//! A drive kept as an image: what can be read in one pass, hashed on the way; what cannot, tried again in smaller pieces and
//! mapped.
//!
//! The map is the checkpoint: it says of a place that it is in the image only when the image was flushed since. So a run that
//! was killed goes on with what the map does not have, and so does GNU ddrescue.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::erase::Context;
use super::map::{Map, Status};
use super::pipeline::{Hashed, Hashes, Pipeline, To};
use super::ranges::{both, rest_of};
use super::rescue::Rescue;
use super::search::is_zero;
use super::target::{self, Target};
use crate::device::{self, Access, Device, Ground, Roots, guard};
use crate::hash::{hex_upper, sha256};
use crate::io::is_shortage;
use crate::journal::files::replace_private;
use crate::pool::SLOT_LEN;
use crate::report::{Advice, DriveFacts, Kind, Problem, Problems, Setting, Stage};
use crate::stream::rate_limit::RateLimit;
use crate::stream::zeros::merged;
use crate::surroundings::timestamp;
use crate::units::{ByteLen, DeviceOffset, DeviceRange};

/// Interval between two writes of the map.
const MAP_EVERY: Duration = Duration::from_secs(10);

/// Longest map that is read.
const MAP_LEN_MAX: u64 = 1 << 30;

/// First bytes of a drive, by which one without a serial is recognised.
const HEAD_LEN: u64 = 1 << 20;

/// A drive to be kept as an image, and the options.
#[derive(Clone, Debug)]
pub struct AcquireRequest {
    /// The drive, only read from.
    pub drive: PathBuf,
    /// The image; made unless its map says that it was begun.
    pub image: PathBuf,
    /// The map.
    pub map: PathBuf,
    /// Number of further passes over bad sectors.
    pub retries: u32,
    /// Bytes of the drive that are not in use and are left out; none to take all.
    pub unused: Vec<DeviceRange>,
    /// MD5 of the whole and of each piece, in addition to SHA-256.
    pub md5: bool,
    /// Bytes a second that are read at most.
    pub rate: Option<u64>,
}

/// A drive that can be kept as an image.
#[derive(Debug)]
pub struct Acquire {
    request: AcquireRequest,
    source: Device,
    facts: DriveFacts,
    target: Target,
    map: Map,
    own: Own,
    is_continued: bool,
    /// It is mounted: what is read may change meanwhile.
    pub mounted: Vec<PathBuf>,
}

/// A piece of the image and its hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceSum {
    /// The bad range: position and length.
    pub range: DeviceRange,
    /// MD5 of it.
    pub md5: [u8; 16],
    /// SHA-256 of it.
    pub sha256: [u8; 32],
}

/// Result of keeping a drive as an image.
#[derive(Clone, Debug)]
pub struct Acquired {
    /// The drive.
    pub drive: DriveFacts,
    /// World wide name, if the drive reports one.
    pub wwn: Option<String>,
    /// Times of its beginning and end.
    pub times: [jiff::Timestamp; 2],
    /// Duration of this run.
    pub elapsed: Duration,
    /// Bytes that this run read.
    pub read: ByteLen,
    /// Of the image from end to end, holes as zeros.
    pub sha256: [u8; 32],
    /// The same; `None` unless asked for.
    pub md5: Option<[u8; 16]>,
    /// Each 4 MiB.
    pub pieces: Vec<PieceSum>,
    /// Ranges that could not be read: holes of the image.
    pub unreadable: Vec<DeviceRange>,
    /// Ranges that were not requested: holes of the image.
    pub left_out: Vec<DeviceRange>,
    /// An earlier run had begun it.
    pub is_continued: bool,
    /// The image was read once more for its hashes.
    pub is_read_back: bool,
}

/// Path of the file next to a map that says which drive it is of.
pub fn drive_file(map: &Path) -> PathBuf {
    let mut name = map.as_os_str().to_owned();
    name.push(".drive");
    PathBuf::from(name)
}

/// The drive that a map is of: a drive continues it only if it is this one. A map that another program began has none.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Own {
    serial: Option<String>,
    wwn: Option<String>,
    /// SHA-256 of the first bytes of a drive that reports neither; `None` where they cannot be read.
    head: Option<[u8; 32]>,
}

impl Own {
    fn of(source: &Device) -> Self {
        let identity = source.identity();
        let serial = identity.known_serial().map(str::to_owned);
        let head = if serial.is_none() && identity.wwn.is_none() {
            let mut head = vec![0; HEAD_LEN.min(source.geometry().size.0) as usize];
            source.read_exact_at(&mut head, DeviceOffset(0)).ok().map(|()| sha256(&head))
        } else {
            None
        };
        Self { serial, wwn: identity.wwn.clone(), head }
    }

    fn text(&self) -> String {
        let head = self.head.map(|head| hex_upper(&head).to_lowercase());
        let value = json!({ "serial": self.serial, "wwn": self.wwn, "sha256_of_first_mib": head });
        format!("{value}\n")
    }

    fn save(&self, map: &Path) -> Result<(), Problem> {
        let path = drive_file(map);
        replace_private(&path, self.text().as_bytes()).map_err(|error| {
            Problem::new(Kind::Environment, format!("the drive's identity cannot be written: {error}")).path(&path)
        })
    }

    /// The problem that the map is of another drive, by the file next to it.
    fn contradicts(&self, map: &Path) -> Option<Problem> {
        let path = drive_file(map);
        let bytes = crate::files::input::read(&path, 64 << 10, crate::files::input::Pipes::Refused).ok()?;
        let known: Value = serde_json::from_slice(&bytes).ok()?;
        let own: Value = serde_json::from_str(&self.text()).ok()?;
        // What either of the two does not report says nothing.
        let differs = |key: &&str| !known[*key].is_null() && !own[*key].is_null() && known[*key] != own[*key];
        let key = ["serial", "wwn", "sha256_of_first_mib"].into_iter().find(differs)?;
        let what = match key {
            "sha256_of_first_mib" => "is not the drive that the map is of: it begins with other bytes",
            _ => "is not the drive that the map is of",
        };
        let value = match key {
            "sha256_of_first_mib" => String::new(),
            _ => format!("begun with {}, now {}", known[key], own[key]),
        };
        let problem = Problem::new(Kind::Refused, what).path(&path);
        let problem = if value.is_empty() { problem } else { problem.value(value) };
        Some(problem.advice("attach the drive that was begun, or name another image and map for this one"))
    }
}

impl Acquire {
    /// Opens the drive and looks at where the image goes.
    ///
    /// # Errors
    /// All that stands in the way.
    pub fn look(request: AcquireRequest) -> Result<Self, Problems> {
        let path = device::resolve(&request.drive.display().to_string(), &Roots::default())?;
        device::refuse_packed(&request.drive)?;
        let source = Device::open(&path, Access::Read)?;
        let facts = target::facts(&request.drive, &path, &source, None);
        let size = facts.size;
        if size.0 == 0 {
            let problem = Problem::new(Kind::Drive, "has no size: no medium, or a drive that does not answer");
            return Err(problem.drive(&facts.name).advice("check medium, cable, power and dock").into());
        }
        let mounted = guard::mounted(source.kind(), source.roots());
        let mut problems = Problems::default();
        let own = parent(&request.image);
        if let Some(point) = mounted.iter().find(|point| own.starts_with(point)) {
            let problem = Problem::new(Kind::Refused, "the image would lie on the drive that is read");
            let problem = problem.path(&request.image).value(point.display().to_string());
            problems.push(problem.advice("name a file on another drive"));
        }
        let context = guard::Context::default();
        let there = fs::symlink_metadata(&request.image).is_ok();
        let begun = fs::symlink_metadata(&request.map).is_ok();
        let mut map = Map::new(size);
        let own = Own::of(&source);
        if begun {
            problems.0.extend(own.contradicts(&request.map).map(|problem| problem.drive(&facts.name)));
        }
        let target = match (there, begun) {
            (true, true) => {
                read_map(&request.map, size).map(|read| map = read).map_err(Problems::from).and_then(|()| {
                    let target = Target::look(&request.image, &context)?;
                    let is_it = target.facts().is_image && target.facts().size == size;
                    let problem = Problem::new(Kind::Refused, "is no image of this drive: its length is another");
                    let problem = problem.path(&request.image).value(target.facts().size.0.to_string());
                    if is_it { Ok(target) } else { Err(problem.advice("name another image and map").into()) }
                })
            }
            (true, false) => Err(Problem::new(Kind::Refused, "exists already, and nothing is overwritten")
                .path(&request.image)
                .advice(
                    Advice::from(
                        "remove it, or name another image; to continue one that ddrescue began, name its map with ",
                    ) + Setting::Map
                        + format!(" (now {})", request.map.display()),
                )
                .into()),
            // A map in which nothing is finished is that of a run that came no further.
            (false, true) if !read_map(&request.map, size)?.of(Status::Finished).is_empty() => {
                Err(Problem::new(Kind::Refused, "a map is there, and the image that it describes is not")
                    .path(&request.map)
                    .advice("restore the image, or remove the map to start over")
                    .into())
            }
            (false, _) => {
                Target::new_image(&request.image, size, source.geometry().sector, &context).map_err(Problems::from)
            }
        };
        match target {
            Ok(target)
                if target.drive.ground.as_ref().and_then(|own| own.shared_with(&Ground::of(&source))).is_some() =>
            {
                problems.push(Problem::new(Kind::Refused, "is what is read").path(&request.image));
                Err(problems)
            }
            Ok(target) if problems.0.is_empty() => {
                Ok(Self { is_continued: there, request, source, facts, target, map, mounted, own })
            }
            Ok(_) => Err(problems),
            Err(mut more) => {
                problems.0.append(&mut more.0);
                Err(problems)
            }
        }
    }

    /// The drive.
    pub fn facts(&self) -> &DriveFacts {
        &self.facts
    }

    /// Bytes that are still to be read.
    pub fn to_read(&self) -> ByteLen {
        ByteLen(self.facts.size.0 - self.map.len_of(Status::Finished).0)
    }

    /// Keeps the drive. Unreadable places are no error: see [`Acquired::unreadable`].
    ///
    /// # Errors
    /// The image cannot be written, the drive hangs, or a stop was requested; the same call continues.
    pub fn run(mut self, context: &Context<'_>) -> Result<Acquired, Problem> {
        let result = self.carry(context);
        match &result {
            Ok(_) => context.stage(Stage::Done),
            Err(problem) if problem.kind == Kind::Interrupted => context.stage(Stage::Stopped),
            Err(_) => context.stage(Stage::Failed),
        }
        result
    }

    fn carry(&mut self, context: &Context<'_>) -> Result<Acquired, Problem> {
        let began = (timestamp(), Instant::now());
        let size = self.facts.size;
        // Bytes of a hole and of a bad place are distinguished by the map alone, which is therefore written before the image.
        self.save(&self.map)?;
        self.own.save(&self.request.map)?;
        let image = self.target.claim()?;
        let request = self.request.clone();
        let rate = RateLimit::new(request.rate, Instant::now());
        let used = rest_of(size, &request.unused);
        let to_read = both(&self.map.of(Status::NonTried), &used);
        let is_whole = to_read == [DeviceRange::new(0, size.0)];
        let hashes = Hashes { sha256: is_whole, md5: is_whole && request.md5, pieces: is_whole };
        let total = ByteLen(to_read.iter().map(|range| range.len.0).sum());
        // What is to come is zeros until it comes, and zeros need not be written.
        let mut sparse = true;
        for range in to_read.iter().filter(|_| self.is_continued) {
            sparse &= image.discard(*range).map_err(|error| self.image_failed(&error))?;
        }

        context.stage(Stage::Data);
        let pipeline = Pipeline {
            source: &self.source,
            name: &self.facts.name,
            workers: context.workers,
            stop: context.stop,
            ranges: &to_read,
            cuts: &[],
            hashes,
            tolerant: true,
            rate: &rate,
        };
        let to = To { device: &image, name: &self.target.facts().name, takes: &|_| true, sparse };
        let mut read = 0;
        let mut saved = (Instant::now(), 0);
        let mut trouble = None;
        let mut far = self.map.clone();
        let result = pipeline.run(&[to], &mut |now| {
            read = now.read;
            context.progress(ByteLen(read), total);
            let durable = now.counters[0].durable.load(Ordering::Acquire);
            if durable > saved.1 {
                far = durable_to(&self.map, &to_read, durable, now.failed);
                saved.1 = durable;
                if saved.0.elapsed() >= MAP_EVERY {
                    trouble = trouble.take().or(self.save(&far).err());
                    saved.0 = Instant::now();
                }
            }
        });
        let carried = match result {
            Ok(carried) => carried,
            Err(problem) => {
                // What was given to the image before is flushed, and counts.
                return Err(self.save(&far).err().unwrap_or(problem));
            }
        };
        if let Some(problem) = trouble {
            return Err(problem);
        }
        carried.lanes.into_iter().collect::<Result<Vec<()>, Problem>>()?;
        let mut map = self.map.clone();
        to_read.iter().for_each(|range| map.set(*range, Status::Finished));
        carried.failed.iter().for_each(|range| map.set(*range, Status::NonTrimmed));
        self.save(&map)?;

        self.rescue(&mut map, &image, context, &mut read)?;
        image.flush().map_err(|error| self.image_failed(&error))?;
        self.save(&map)?;

        let is_inline = is_whole && carried.failed.is_empty();
        let (sha256, md5, pieces) = if is_inline {
            (carried.sha256, carried.md5, carried.pieces)
        } else {
            context.stage(Stage::ReadBack);
            self.hash(&image, context)?
        };
        let sums = |piece: Hashed| Some(PieceSum { range: piece.range, md5: piece.md5, sha256: piece.sha256? });
        let lost = || Problem::new(Kind::Internal, "the image has no hash");
        let asked = both(&used, &[DeviceRange::new(0, size.0)]);
        let bad = [Status::NonTrimmed, Status::NonScraped, Status::Bad].map(|status| map.of(status)).concat();
        Ok(Acquired {
            drive: self.facts.clone(),
            wwn: self.source.identity().wwn.clone(),
            times: [began.0, timestamp()],
            elapsed: began.1.elapsed(),
            read: ByteLen(read),
            sha256: sha256.ok_or_else(lost)?,
            md5,
            pieces: pieces.into_iter().map(sums).collect::<Option<_>>().ok_or_else(lost)?,
            unreadable: merged([bad, both(&map.of(Status::NonTried), &asked)].concat()),
            left_out: both(&map.of(Status::NonTried), &request.unused),
            is_continued: self.is_continued,
            is_read_back: !is_inline,
        })
    }

    /// Tries what was not read in smaller pieces.
    fn rescue(&self, map: &mut Map, image: &Device, context: &Context<'_>, read: &mut u64) -> Result<(), Problem> {
        let tried = [Status::NonTrimmed, Status::NonScraped].iter().any(|status| map.len_of(*status).0 > 0);
        if !tried && (self.request.retries == 0 || map.len_of(Status::Bad).0 == 0) {
            return Ok(());
        }
        let mut rescue = Rescue::new(&self.source, &self.facts.name, context.stop)?;
        let file = image.target().file;
        let mut saved = Instant::now();
        let mut put = |at: DeviceOffset, bytes: &[u8]| {
            *read += bytes.len() as u64;
            // A place that was begun by someone else may hold what is not zero.
            if is_zero(bytes) && !self.is_continued {
                return Ok(());
            }
            file.write_all_at(bytes, at.0).map_err(|error| self.image_failed(&error).at(at))
        };
        let mut changed = |map: &Map| {
            let left = [Status::NonTrimmed, Status::NonScraped, Status::Bad].map(|status| map.len_of(status).0);
            let left = ByteLen(left.iter().sum());
            context.progress(ByteLen(self.facts.size.0 - left.0), self.facts.size);
            if saved.elapsed() < MAP_EVERY {
                return Ok(());
            }
            saved = Instant::now();
            image.flush().map_err(|error| self.image_failed(&error))?;
            self.save(map)
        };
        let mut work = map.clone();
        let result = rescue.run(&mut work, self.request.retries, &mut put, &mut changed);
        *map = work;
        if let Err(problem) = result {
            image.flush().map_err(|error| self.image_failed(&error))?;
            self.save(map)?;
            return Err(problem);
        }
        Ok(())
    }

    /// The hashes of the finished image, read back from its file.
    fn hash(&self, image: &Device, context: &Context<'_>) -> Result<Sums, Problem> {
        let size = self.facts.size;
        let rate = RateLimit::new(None, Instant::now());
        let pipeline = Pipeline {
            source: image,
            name: &self.target.facts().name,
            workers: context.workers,
            stop: context.stop,
            ranges: &[DeviceRange::new(0, size.0)],
            cuts: &[],
            hashes: Hashes { sha256: true, md5: self.request.md5, pieces: true },
            tolerant: false,
            rate: &rate,
        };
        let carried = pipeline.run(&[], &mut |now| context.progress(ByteLen(now.read), size))?;
        Ok((carried.sha256, carried.md5, carried.pieces))
    }

    fn save(&self, map: &Map) -> Result<(), Problem> {
        let mut notes = vec![format!("Drive: {}", one_line(&self.facts.name))];
        notes.extend(self.facts.serial.iter().map(|serial| format!("Serial: {}", one_line(serial))));
        notes.push(format!("Image: {}", one_line(&self.request.image.display().to_string())));
        replace_private(&self.request.map, map.text(&notes).as_bytes()).map_err(|error| {
            Problem::new(Kind::Environment, format!("the map cannot be written: {error}"))
                .path(&self.request.map)
                .advice("make room, and run the same command again")
        })
    }

    fn image_failed(&self, error: &std::io::Error) -> Problem {
        let kind = if is_shortage(error) { Kind::Environment } else { Kind::Drive };
        Problem::new(kind, format!("the image cannot be written: {error}"))
            .path(&self.request.image)
            .advice("make room, and run the same command again: it continues with what the map lacks")
    }
}

/// SHA-256 and MD5 of the whole, and each piece.
type Sums = (Option<[u8; 32]>, Option<[u8; 16]>, Vec<Hashed>);

/// The map with everything of `read` below `durable` finished, but for what failed.
fn durable_to(map: &Map, read: &[DeviceRange], durable: u64, failed: &[DeviceRange]) -> Map {
    let mut map = map.clone();
    for range in both(read, &[DeviceRange::new(0, durable)]) {
        map.set(range, Status::Finished);
    }
    failed.iter().for_each(|range| map.set(*range, Status::NonTrimmed));
    map
}

fn read_map(path: &Path, size: ByteLen) -> Result<Map, Problem> {
    let bytes = crate::files::input::read(path, MAP_LEN_MAX, crate::files::input::Pipes::Refused)
        .map_err(|error| Problem::new(Kind::Usage, format!("the map cannot be read: {error}")).path(path))?;
    Map::parse(&String::from_utf8_lossy(&bytes), size).map_err(|bad| {
        let problem = Problem::new(Kind::Usage, format!("is no map of ddrescue: {}", bad.what)).path(path);
        if bad.line > 0 { problem.line(bad.line) } else { problem }
    })
}

fn parent(path: &Path) -> PathBuf {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned())
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The length of the pieces that are hashed.
pub const PIECE_LEN: u64 = SLOT_LEN as u64;
