//! Erasing a drive whose job is over, with the facts of a certificate.
//!
//! Three methods, in this order when several are asked for: the places that the keys of BitLocker volumes hang on are
//! overwritten and the whole drive is searched for others; the device is given all of its sectors back; all sectors are
//! overwritten. Whatever was overwritten or given back is read back, and no method counts before that.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::azure::journal::SessionState;
use crate::azure::ledger::Ledger;
use crate::bitlocker::read::{self, State, Volume};
use crate::device::{Device, Identity, guard, signature};
use crate::gpt::{self, table_areas};
use crate::image::lane;
use crate::image::search::{MARKS, Reading, is_zero};
use crate::image::target::Target;
use crate::journal::files::read_journal;
use crate::report::{Advice, DriveFacts, Event, Kind, Problem, Problems, Setting, Stage, Stop, Waiting};
use crate::stream::workers::Workers;
use crate::stream::zeros::merged;
use crate::surroundings::timestamp;
use crate::units::{ByteLen, DeviceOffset, DeviceRange, VolumeOffset, VolumeRange};
use crate::verify::logs::Logs;

/// Bytes overwritten from a mark of BitLocker on: a metadata region, as Windows makes it.
const REGION: u64 = 64 << 10;

/// Bytes given back to the device at once: between two pieces a wish to stop is heard.
const DISCARD_PIECE: u64 = 1 << 30;

/// Bytes of an unknown partition that are looked at.
const UNKNOWN_LEN: usize = 1 << 20;

/// Marks found by the search before it is given up: a drive full of them holds something else.
const MARKS_MAX: usize = 1_000_000;

/// Method of erasure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Methods {
    /// Destroy what the volume keys hang on.
    pub keys: bool,
    /// Give all sectors back to the device.
    pub discard: bool,
    /// Overwrite all sectors with zeros.
    pub overwrite: bool,
    /// Search the whole drive for marks of BitLocker, wherever they may be.
    pub search: bool,
}

/// Drives to be erased, and the facts known about them.
#[derive(Debug)]
pub struct EraseRequest {
    /// Drives and image files.
    pub drives: Vec<PathBuf>,
    /// Method.
    pub methods: Methods,
    /// Journal of the sessions that may have prepared them.
    pub journal: Option<PathBuf>,
    /// Copy logs of the service, which confirm a drive.
    pub logs: Logs,
    /// Erase also what the journal knows as prepared and no copy log confirms.
    pub even_unconfirmed: bool,
    /// Paths that must not lie on the drives.
    pub context: guard::Context,
}

/// A drive that passed the gates.
#[derive(Debug)]
pub struct Erase {
    target: Target,
    methods: Methods,
    before: Vec<VolumeBefore>,
    /// The journal knows it as prepared; whether a copy log confirms it.
    confirmed: Option<bool>,
}

/// A volume that was on the drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeBefore {
    /// Position.
    pub range: DeviceRange,
    /// File system or container by its signature; `None` where nothing was recognised.
    pub format: Option<&'static str>,
    /// Of a BitLocker volume whose metadata could be read: its identifier, protectors, whether all of it is encrypted.
    pub bitlocker: Option<BitLockerBefore>,
    /// Places that its keys hang on, or that lead to them.
    places: Vec<(DeviceRange, ErasedArea)>,
}

impl VolumeBefore {
    fn is_bitlocker(&self) -> bool {
        self.bitlocker.is_some() || self.format.is_some_and(|format| format.starts_with("BitLocker"))
    }
}

/// Places of BitLocker's structures, read from the volume's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BitLockerBefore {
    /// Identifier of the volume.
    pub id: String,
    /// Protectors, each by kind and identifier.
    pub protectors: Vec<String>,
    /// Encrypted as a whole, or all that was in use.
    pub is_encrypted: bool,
    /// A clear key lay on it.
    pub was_open: bool,
}

/// Purpose of an overwritten range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErasedArea {
    /// Tables, and the ends of disk and volumes, with first and backup boot sectors.
    Ends,
    /// A metadata region of BitLocker.
    Region,
    /// The boot sectors that BitLocker keeps elsewhere.
    Relocated,
    /// A mark of BitLocker that the search found.
    Found,
}

/// A method of NIST SP 800-88 Rev. 1, as far as it was carried out and read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Every addressable sector was overwritten (Clear).
    Clear,
    /// The keys were destroyed (cryptographic erase, NIST SP 800-88 section 2.6).
    CryptographicErase,
    /// All sectors read as zeros since the device was given them back: no method of the standard.
    Discarded,
    /// It is not erased.
    Failed,
}

/// The facts of a certificate.
#[derive(Clone, Debug)]
pub struct Erased {
    /// The drive, with what was on it.
    pub drive: DriveFacts,
    /// Serial, world wide name, bridge, transport.
    pub identity: Identity,
    /// Requested method.
    pub methods: Methods,
    /// Method that can be certified.
    pub level: Level,
    /// Times of its beginning and end.
    pub times: [jiff::Timestamp; 2],
    /// Duration of the run.
    pub elapsed: Duration,
    /// Volumes that were on it.
    pub before: Vec<VolumeBefore>,
    /// Whether the journal knew it, and a copy log confirmed it.
    pub confirmed: Option<bool>,
    /// Places overwritten for the keys' sake.
    pub places: Vec<(DeviceRange, ErasedArea)>,
    /// Bytes searched for marks of BitLocker; `None` where no search was asked for.
    pub searched: Option<ByteLen>,
    /// Bytes given back to the device.
    pub discarded: Option<ByteLen>,
    /// Bytes overwritten by `--overwrite`.
    pub overwritten: Option<ByteLen>,
    /// Bytes read back, and found zero where they had to be.
    pub read_back: ByteLen,
    /// Ranges that could not be overwritten.
    pub unwritten: Vec<DeviceRange>,
    /// Ranges that could not be read during the search or the read-back.
    pub unreadable: Vec<DeviceRange>,
    /// Ranges that were not zero in the read-back.
    pub different: Vec<DeviceRange>,
    /// Contents recognised by signature after the erasure.
    pub after: Option<String>,
    /// A reader of BitLocker still finds a volume.
    pub opens: bool,
}

/// Looks at every drive.
///
/// # Errors
/// All that speaks against erasing any of them.
pub fn look(request: &EraseRequest) -> Result<Vec<Erase>, Problems> {
    let Methods { keys, discard, overwrite, .. } = request.methods;
    if !(keys || discard || overwrite) {
        let problem = Problem::new(Kind::Usage, "no method was named");
        return Err(problem
            .advice(
                Advice::from("give ")
                    + Setting::Keys
                    + ", "
                    + Setting::Overwrite
                    + " or "
                    + Setting::Discard
                    + ", or several of them",
            )
            .into());
    }
    let mut problems = Problems::default();
    let ledger = match request.journal.as_deref().map(ledger_of).transpose() {
        Ok(ledger) => ledger,
        Err(problem) => {
            problems.push(problem);
            None
        }
    };
    let mut drives = Vec::new();
    for name in &request.drives {
        match one(name, request, ledger.as_ref()) {
            Ok(drive) => drives.push(drive),
            Err(mut more) => problems.0.append(&mut more.0),
        }
    }
    let targets: Vec<&Target> = drives.iter().map(|drive| &drive.target).collect();
    if let Err(mut more) = super::target::twice(&targets) {
        problems.0.append(&mut more.0);
    }
    problems.into_result()?;
    Ok(drives)
}

/// Reads the journal. A missing file must not pass for a journal that knows no drive.
fn ledger_of(path: &Path) -> Result<Ledger, Problem> {
    if !path.exists() {
        let problem = Problem::new(Kind::Usage, "the journal does not exist").path(path);
        return Err(problem.advice("name the journal of the sessions that prepared the drives"));
    }
    let book = read_journal(path)?;
    match book.damage.into_iter().next() {
        Some(damage) => Err(damage),
        None => Ok(book.ledger),
    }
}

fn one(name: &Path, request: &EraseRequest, ledger: Option<&Ledger>) -> Result<Erase, Problems> {
    let target = Target::look(name, &request.context)?;
    let facts = target.facts();
    let refused = |what: &str| Problem::new(Kind::Refused, what).drive(&facts.name);
    let mut problems = Problems::default();
    let device = Device::open(&facts.path, crate::device::Access::Read)?;
    let before = volumes(&device).map_err(|error| {
        Problem::new(Kind::Drive, format!("cannot be read: {error}")).drive(&facts.name).advice("check cable and drive")
    })?;
    let Methods { keys, discard, overwrite, .. } = request.methods;
    if keys && !discard && !overwrite {
        if !before.iter().any(VolumeBefore::is_bitlocker) {
            let problem = refused("holds no BitLocker volume whose keys could be destroyed");
            let found = facts.contents.clone().unwrap_or_else(|| "blank".into());
            problems.push(problem.value(found).advice(
                Advice::from("use ") + Setting::Overwrite + ", or " + Setting::Discard + " where the drive is flash",
            ));
        }
        for volume in &before {
            let Some(format) = volume.format else {
                let mut first = vec![0; UNKNOWN_LEN.min(volume.range.len.0 as usize)];
                if device.read_exact_at(&mut first, volume.range.start).is_err() || !is_zero(&first) {
                    let problem = refused("has a partition of which nothing is known but that it is not empty");
                    problems.push(problem.at(volume.range.start).advice(Advice::from("use ") + Setting::Overwrite));
                }
                continue;
            };
            let encrypted = volume.bitlocker.as_ref().map(|bitlocker| bitlocker.is_encrypted);
            let what = match encrypted {
                Some(true) => continue,
                Some(false) => "has a BitLocker volume that is not encrypted as a whole: its plain part needs no key",
                None if volume.is_bitlocker() => continue,
                None => "has a volume that is not encrypted: destroying keys leaves all of it readable",
            };
            let problem = refused(what).at(volume.range.start).value(format);
            problems.push(problem.advice(
                Advice::from("use ") + Setting::Overwrite + ", or " + Setting::Discard + " where the drive is flash",
            ));
        }
    }
    if discard && device.geometry().discard.is_none() && !device.is_image() {
        problems.push(
            refused("takes no sectors back (it has no TRIM or UNMAP)")
                .advice(Advice::from("use ") + Setting::Overwrite),
        );
    }
    let known = ledger.and_then(|ledger| prepared(ledger, facts, device.identity()));
    let confirmed = known.as_ref().map(|(id, files)| request.logs.confirms(id, *files));
    if let (Some((id, _)), Some(false)) = (&known, confirmed)
        && !request.even_unconfirmed
    {
        let problem =
            refused("was prepared by a session of the journal, and no copy log confirms that all of it was taken");
        problems.push(problem.value(id.clone()).advice(
            Advice::from("give the service's log with ")
                + Setting::CopyLog
                + "; or say "
                + Setting::EvenUnconfirmed
                + " if what was on it is not needed any more",
        ));
    }
    problems.into_result()?;
    Ok(Erase { target, methods: request.methods, before, confirmed })
}

/// The id by which the journal knows the drive as prepared, or as being prepared, and how many files it got.
fn prepared(ledger: &Ledger, facts: &DriveFacts, identity: &Identity) -> Option<(String, u64)> {
    let is_it = |id: &str, name: Option<&str>| {
        let of_hardware = [identity.serial.as_deref(), identity.bridge_serial.as_deref(), Some(&facts.drive_id)];
        let by_name = || name.is_some_and(|name| facts.is_image && same_file(Path::new(name), &facts.path));
        of_hardware.into_iter().flatten().any(|own| own.eq_ignore_ascii_case(id)) || by_name()
    };
    ledger.drive_ids().into_iter().find_map(|id| {
        let drive = ledger.whole(id)?;
        let is_known = is_it(id, drive.name.as_deref());
        let is_gone = matches!(drive.state, SessionState::Aborted | SessionState::GivenUp);
        (is_known && !is_gone).then(|| (id.to_owned(), drive.files.unwrap_or(0)))
    })
}

fn same_file(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    real(one).is_some_and(|one| real(other) == Some(one))
}

/// The volumes of a drive, and where their keys are.
fn volumes(device: &Device) -> std::io::Result<Vec<VolumeBefore>> {
    let geometry = device.geometry();
    let contents = signature::scan(device)?;
    let mut ranges: Vec<(DeviceRange, Option<&'static str>)> =
        contents.volumes.iter().map(|volume| (volume.range, volume.format)).collect();
    // Tables that only we can use: other sectors, a copy that is not where it should be.
    let table = gpt::read(geometry.size, geometry.sector, |at, into| device.read_exact_at(into, at))?;
    for entry in &table.partitions {
        let there = DeviceRange { start: entry.range.start, len: entry.there };
        if there.len.0 > 0 && !ranges.iter().any(|(range, _)| range.start == there.start) {
            ranges.push((there, None));
        }
    }
    Ok(ranges.into_iter().map(|(range, format)| volume(device, range, format)).collect())
}

fn volume(device: &Device, range: DeviceRange, format: Option<&'static str>) -> VolumeBefore {
    let mut before = VolumeBefore { range, format, bitlocker: None, places: Vec::new() };
    let mut reader = |at: VolumeOffset, into: &mut [u8]| -> std::io::Result<()> {
        let end = at.0.checked_add(into.len() as u64).filter(|end| *end <= range.len.0);
        end.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        device.read_exact_at(into, at.on_device(range.start))
    };
    let mut add = |at: VolumeOffset, len: u64, what: ErasedArea| {
        if at.0 > 0 && at.0 < range.len.0 {
            let len = len.min(range.len.0 - at.0);
            before.places.push((VolumeRange::new(at.0, len).on_device(range.start), what));
        }
    };
    let mut first = vec![0; read::RECOGNISE_LEN.min(range.len.0 as usize)];
    if reader(VolumeOffset(0), &mut first).is_ok()
        && let Ok(Some(boot)) = read::Boot::recognise(&first)
    {
        boot.regions.iter().for_each(|at| add(*at, REGION, ErasedArea::Region));
        boot.conversion.iter().flatten().for_each(|at| add(*at, REGION, ErasedArea::Region));
    }
    if let Ok(Some(found)) = Volume::open(&mut reader) {
        let metadata = &found.metadata;
        metadata.regions.iter().for_each(|at| add(*at, REGION, ErasedArea::Region));
        found.copies.iter().for_each(|copy| add(copy.at, REGION, ErasedArea::Region));
        let relocated = u64::from(metadata.relocated_sectors) * found.boot.sector.bytes();
        add(metadata.relocated_at, relocated.min(1 << 20), ErasedArea::Relocated);
        before.format.get_or_insert("BitLocker");
        before.bitlocker = Some(BitLockerBefore {
            id: metadata.volume_id.to_string(),
            protectors: metadata.protectors.iter().map(|one| format!("{} {}", one.kind, one.id)).collect(),
            is_encrypted: found.state() == State::Encrypted,
            was_open: found.is_suspended(),
        });
    }
    before
}

/// Context for erasing one drive.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Index of the drive, for its events.
    pub index: usize,
    /// The shared workers.
    pub workers: &'a Workers,
    /// Asked to stop?
    pub stop: &'a Stop,
    /// Receiver of progress events.
    pub events: &'a (dyn Fn(Event) + Sync),
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Context<'_> {
    pub(super) fn stage(&self, stage: Stage) {
        (self.events)(Event::Stage { drive: self.index, stage });
    }

    pub(super) fn progress(&self, done: ByteLen, total: ByteLen) {
        let waiting_for = Waiting::Drive;
        (self.events)(Event::Progress { drive: self.index, acknowledged: done, total, files: 0, waiting_for });
    }
}

impl Erase {
    /// The drive.
    pub fn facts(&self) -> &DriveFacts {
        self.target.facts()
    }

    /// Whether consent is needed first.
    pub fn needs_consent(&self) -> bool {
        self.target.needs_consent()
    }

    /// Whether the journal knows the drive as prepared, and whether a copy log confirms it.
    pub fn confirmed(&self) -> Option<bool> {
        self.confirmed
    }

    /// Erases the drive.
    ///
    /// # Errors
    /// When it is not the drive that was looked at, is in use, gone or hangs, or when a stop was asked for. A place that
    /// cannot be written or read is no error: see [`Erased::level`].
    pub fn run(&self, context: &Context<'_>) -> Result<Erased, Problem> {
        let result = self.target.claim().and_then(|device| self.carry(&device, context));
        match &result {
            Ok(erased) if erased.level != Level::Failed => context.stage(Stage::Done),
            Ok(_) => context.stage(Stage::Failed),
            Err(problem) if problem.kind == Kind::Interrupted => context.stage(Stage::Stopped),
            Err(problem) => {
                (context.events)(Event::DriveFailed { drive: context.index, problem: problem.clone() });
            }
        }
        result
    }

    fn carry(&self, device: &Arc<Device>, context: &Context<'_>) -> Result<Erased, Problem> {
        let began = Instant::now();
        let mut erasure = Erasure { erase: self, device, context, erased: self.begun(device) };
        let Methods { keys, discard, overwrite, search } = self.methods;
        if keys {
            erasure.wipe_keys(search && !overwrite)?;
        }
        if discard {
            erasure.discard()?;
        }
        if overwrite {
            erasure.overwrite()?;
        }
        erasure.read_back()?;
        let mut erased = erasure.erased;
        // Where nothing can be looked at, nothing is proved.
        match signature::scan(device) {
            Ok(contents) => erased.after = contents.words,
            Err(_) => erased.opens = true,
        }
        erased.opens |= self.before.iter().any(|volume| still_opens(device, volume));
        // Makes the kernel forget the old partitions.
        let _ = device.reread_partitions();
        erased.level = level(&erased);
        erased.times[1] = timestamp();
        erased.elapsed = began.elapsed();
        Ok(erased)
    }

    /// The report before the first byte was written.
    fn begun(&self, device: &Device) -> Erased {
        Erased {
            drive: self.facts().clone(),
            identity: device.identity().clone(),
            methods: self.methods,
            level: Level::Failed,
            times: [timestamp(); 2],
            elapsed: Duration::ZERO,
            before: self.before.clone(),
            confirmed: self.confirmed,
            places: Vec::new(),
            searched: None,
            discarded: None,
            overwritten: None,
            read_back: ByteLen(0),
            unwritten: Vec::new(),
            unreadable: Vec::new(),
            different: Vec::new(),
            after: None,
            opens: false,
        }
    }
}

/// An erasure under way.
struct Erasure<'a> {
    erase: &'a Erase,
    device: &'a Arc<Device>,
    context: &'a Context<'a>,
    erased: Erased,
}

impl<'a> Erasure<'a> {
    fn name(&self) -> &'a str {
        &self.erase.facts().name
    }

    fn size(&self) -> ByteLen {
        self.erase.facts().size
    }

    fn reading(&self) -> Reading<'a> {
        Reading { medium: self.device, name: self.name(), workers: self.context.workers, stop: self.context.stop }
    }

    /// Overwrites the known places of keys, those that a search finds, and the ends of the drive.
    fn wipe_keys(&mut self, search: bool) -> Result<(), Problem> {
        let size = self.size();
        self.context.stage(Stage::Wiping);
        // The first sectors, which hold no key, stay until all keys are gone: a run that was stopped is begun again.
        let known = self.erase.before.iter().flat_map(|volume| volume.places.iter().copied());
        self.erased.places = known.map(|(range, what)| (clipped(range, size), what)).collect();
        self.erased.places.sort_unstable_by_key(|(range, _)| *range);
        self.erased.places.dedup();
        self.wipe()?;
        if search {
            self.wipe_marks()?;
        }
        self.context.stage(Stage::Wiping);
        let ends = self.erase.target.drive.old.iter().copied().chain(table_areas(size));
        self.erased.places.extend(ends.map(|range| (clipped(range, size), ErasedArea::Ends)));
        self.wipe()
    }

    /// Searches the whole drive for marks of BitLocker, and overwrites what follows each.
    fn wipe_marks(&mut self) -> Result<(), Problem> {
        let (context, size) = (self.context, self.size());
        context.stage(Stage::ReadBack);
        self.empty_cache()?;
        let (marks, seen) = self.reading().marks(&mut |done| context.progress(done, size))?;
        if marks.len() > MARKS_MAX {
            return Err(Problem::new(Kind::Drive, "bears more marks of BitLocker than any drive should")
                .drive(self.name())
                .value(marks.len().to_string())
                .advice(Advice::from("use ") + Setting::Overwrite));
        }
        self.erased.searched = Some(seen.read);
        self.erased.unreadable.extend(seen.unreadable);
        if !marks.is_empty() {
            context.stage(Stage::Wiping);
            let found = marks.iter().map(|at| DeviceRange::new(at.0, REGION));
            self.erased.places.extend(found.map(|range| (clipped(range, size), ErasedArea::Found)));
            self.wipe()?;
        }
        Ok(())
    }

    /// Overwrites all places that are listed.
    fn wipe(&mut self) -> Result<(), Problem> {
        let context = self.context;
        let ranges = merged(self.erased.places.iter().map(|(range, _)| *range).collect());
        let total = ByteLen(ranges.iter().map(|range| range.len.0).sum());
        let progress = &mut |done| context.progress(done, total);
        let unwritten = lane::zero(self.device, self.name(), &ranges, context.stop, progress)?;
        self.erased.unwritten = merged([std::mem::take(&mut self.erased.unwritten), unwritten].concat());
        Ok(())
    }

    /// Gives every sector back to the drive.
    fn discard(&mut self) -> Result<(), Problem> {
        let (name, size) = (self.name(), self.size());
        self.context.stage(Stage::FreeSpace);
        let mut at = 0;
        while at < size.0 {
            if self.context.stop.requested() {
                return Err(Problem::new(Kind::Interrupted, "stopped on request").drive(name));
            }
            let len = DISCARD_PIECE.min(size.0 - at);
            let taken = self.device.discard(DeviceRange::new(at, len)).map_err(|error| {
                Problem::new(Kind::Drive, format!("does not take its sectors back: {error}"))
                    .drive(name)
                    .at(DeviceOffset(at))
                    .advice(Advice::from("use ") + Setting::Overwrite)
            })?;
            if !taken {
                return Err(Problem::new(Kind::Drive, "takes no sectors back")
                    .drive(name)
                    .advice(Advice::from("use ") + Setting::Overwrite));
            }
            at += len;
            self.context.progress(ByteLen(at), size);
        }
        self.device.flush().map_err(|error| {
            Problem::new(Kind::Drive, format!("what was written could not be made durable: {error}")).drive(name)
        })?;
        self.erased.discarded = Some(size);
        Ok(())
    }

    fn overwrite(&mut self) -> Result<(), Problem> {
        let (context, size) = (self.context, self.size());
        context.stage(Stage::FreeSpace);
        let whole = [DeviceRange::new(0, size.0)];
        let progress = &mut |done| context.progress(done, size);
        let unwritten = lane::zero(self.device, self.name(), &whole, context.stop, progress)?;
        let lost: u64 = unwritten.iter().map(|range| range.len.0).sum();
        self.erased.overwritten = Some(ByteLen(size.0 - lost));
        self.erased.unwritten = merged([std::mem::take(&mut self.erased.unwritten), unwritten].concat());
        Ok(())
    }

    /// Looks for bytes other than zero in all that was erased.
    fn read_back(&mut self) -> Result<(), Problem> {
        let context = self.context;
        context.stage(Stage::ReadBack);
        self.empty_cache()?;
        let Methods { discard, overwrite, .. } = self.erase.methods;
        let places = if discard || overwrite {
            vec![DeviceRange::new(0, self.size().0)]
        } else {
            merged(self.erased.places.iter().map(|(range, _)| *range).collect())
        };
        let total = ByteLen(places.iter().map(|range| range.len.0).sum());
        let (different, seen) = self.reading().nonzero(&places, &mut |done| context.progress(done, total))?;
        self.erased.read_back = seen.read;
        self.erased.different = different;
        self.erased.unreadable = merged([std::mem::take(&mut self.erased.unreadable), seen.unreadable].concat());
        Ok(())
    }

    fn empty_cache(&self) -> Result<(), Problem> {
        self.device.drop_caches().map_err(|error| {
            Problem::new(Kind::Drive, format!("the kernel's cache cannot be emptied: {error}")).drive(self.name())
        })
    }
}

/// Whole 4096-byte units around a range, as far as they are on the drive.
fn clipped(range: DeviceRange, size: ByteLen) -> DeviceRange {
    const UNIT: u64 = 4096;
    let start = range.start.0 / UNIT * UNIT;
    let end = range.end().0.next_multiple_of(UNIT).min(size.0);
    DeviceRange::new(start, end.saturating_sub(start))
}

/// Whether a BitLocker reader still finds the volume: by its first sector, or by any region where one was.
fn still_opens(device: &Device, volume: &VolumeBefore) -> bool {
    let mut reader = |at: VolumeOffset, into: &mut [u8]| device.read_exact_at(into, at.on_device(volume.range.start));
    let has_mark = |at: DeviceOffset| {
        let mut first = [0; 512];
        // What cannot be read now may be read another day.
        device.read_exact_at(&mut first, at).is_err() || MARKS.iter().any(|mark| first.starts_with(mark))
    };
    !matches!(Volume::open(&mut reader), Ok(None)) || volume.places.iter().any(|(range, _)| has_mark(range.start))
}

/// Method of the standard that was achieved: only one that was applied to, and read back from, the whole drive.
fn level(erased: &Erased) -> Level {
    let Methods { keys, discard, overwrite, .. } = erased.methods;
    let is_proved = erased.unwritten.is_empty() && erased.unreadable.is_empty() && erased.different.is_empty();
    let is_whole = erased.read_back == erased.drive.size;
    match () {
        () if !is_proved || erased.opens => Level::Failed,
        () if overwrite && is_whole && erased.overwritten == Some(erased.drive.size) => Level::Clear,
        () if overwrite => Level::Failed,
        () if discard && is_whole => Level::Discarded,
        () if keys && !discard => Level::CryptographicErase,
        () => Level::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn erased(methods: Methods) -> Erased {
        let size = ByteLen(1 << 20);
        Erased {
            drive: DriveFacts { size, ..DriveFacts::default() },
            identity: Identity::of_image(size, crate::units::SectorSize::S512),
            methods,
            level: Level::Failed,
            times: [jiff::Timestamp::UNIX_EPOCH; 2],
            elapsed: Duration::ZERO,
            before: Vec::new(),
            confirmed: None,
            places: Vec::new(),
            searched: None,
            discarded: methods.discard.then_some(size),
            overwritten: methods.overwrite.then_some(size),
            read_back: size,
            unwritten: Vec::new(),
            unreadable: Vec::new(),
            different: Vec::new(),
            after: None,
            opens: false,
        }
    }

    #[test]
    fn nothing_counts_as_erased_that_was_not_proved_everywhere() {
        let all = Methods { keys: true, discard: true, overwrite: true, search: true };
        assert_eq!(level(&erased(all)), Level::Clear);
        assert_eq!(level(&erased(Methods { overwrite: false, ..all })), Level::Discarded);
        let keys = Methods { discard: false, overwrite: false, ..all };
        assert_eq!(level(&erased(keys)), Level::CryptographicErase);
        let bad = vec![DeviceRange::new(0, 512)];
        for methods in [all, Methods { overwrite: false, ..all }, keys] {
            let good = erased(methods);
            for failed in [
                Erased { unwritten: bad.clone(), ..good.clone() },
                Erased { unreadable: bad.clone(), ..good.clone() },
                Erased { different: bad.clone(), ..good.clone() },
                Erased { opens: true, ..good.clone() },
            ] {
                assert_eq!(level(&failed), Level::Failed, "{failed:?}");
            }
        }
        for methods in [all, Methods { overwrite: false, ..all }] {
            let half = Erased { read_back: ByteLen(512), ..erased(methods) };
            assert_eq!(level(&half), Level::Failed);
        }
        let half = Erased { overwritten: Some(ByteLen(512)), ..erased(all) };
        assert_eq!(level(&half), Level::Failed);
    }
}
