//! Makes new files part of a volume that holds others: a sidecar with the old and the new sectors, and the writes that
//! can be completed or undone with it.
//!
//! Order: all data in clusters that were free; flush; the sidecar, durable; then [`redo`], whose steps each wait for
//! the one before. Until the sidecar is complete the volume is unchanged. From then on [`redo`] completes the change
//! and [`undo`] reverts it, however often either is interrupted: both only write.
//!
//! The sidecar holds sectors as stored on the device, encrypted where the volume is: no secret is in it.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};

use crate::checkpoint::Prefix;
use crate::hash::{Crc64, Sha256};
use crate::io::Waker;
use crate::ntfs::append::{Append, Refusal, WriteStep};
use crate::ntfs::build::{Outcome, Tree};
use crate::pool::{Pool, Slot};
use crate::report::{Event, Kind, Problem};
use crate::stream::event_loop::BlockIo;
use crate::stream::medium::Medium;
use crate::units::DeviceOffset;
use crate::volume::find::{Opened, View};

/// First bytes of a sidecar.
const MAGIC: &[u8; 8] = b"DRAYapd1";
/// First bytes after its last entry.
const END: &[u8; 8] = b"DRAYend1";
/// Longest piece of an entry: more is damage.
const PIECE_MAX: usize = 4 << 20;

/// State of a drive whose volume is being changed.
pub const MEANWHILE: &str = "the change of the volume can be completed or taken back";

/// Writes to the device of an opened volume.
#[allow(missing_debug_implementations, reason = "holds a callback")]
pub struct Store<'a> {
    io: BlockIo,
    written: u64,
    events: &'a dyn Fn(Event),
}

impl<'a> Store<'a> {
    /// A store on this drive, which reports a slow device to `events`.
    pub fn new(io: BlockIo, events: &'a dyn Fn(Event)) -> Self {
        Self { io, written: 0, events }
    }

    /// The drive's loop, for use between operations of the store.
    pub fn io(&mut self) -> &mut BlockIo {
        &mut self.io
    }

    /// Name of the drive in messages.
    fn name(&self) -> String {
        self.io.failures.name.clone().unwrap_or_else(|| "the drive".into())
    }

    /// Adds bytes that were written through the loop directly.
    pub fn count(&mut self, bytes: u64) {
        self.written += bytes;
    }

    /// Bytes written so far.
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// The slots that it writes from.
    pub fn pool(&self) -> &Pool {
        self.io.pool()
    }

    /// Keeps this many slots for [`Self::write`], so that it never waits for one that another user of the pool has.
    ///
    /// # Errors
    /// An earlier write that failed.
    pub fn keep(&mut self, slots: usize) -> Result<(), Problem> {
        self.io.keep(slots, self.events)
    }

    /// Starts writing the first `len` bytes of a slot, as [`Self::write`] does, without a copy; `freed` is told when
    /// it is free again.
    pub fn write_slot(&mut self, at: DeviceOffset, slot: Slot, len: usize, freed: &Waker) {
        self.io.put_slot(at, slot, len, freed);
        self.written += len as u64;
    }

    /// Starts writing; bytes and place are whole sectors. Writes started earlier may land later.
    ///
    /// # Errors
    /// An earlier write that failed.
    pub fn write(&mut self, at: DeviceOffset, bytes: &[u8]) -> Result<(), Problem> {
        self.io.put(at, bytes, self.events)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Makes all writes durable.
    ///
    /// # Errors
    /// The write or flush that failed.
    pub fn flush(&mut self) -> Result<(), Problem> {
        self.io.settle(self.events)
    }

    /// Waits for one write or flush; whether any was under way.
    ///
    /// # Errors
    /// The one that failed.
    pub fn reap(&mut self) -> Result<bool, Problem> {
        self.io.reap(self.events)
    }
}

/// One range of the device, with its old and its new contents.
struct SidecarEntry {
    step: WriteStep,
    at: u64,
    before: Vec<u8>,
    after: Vec<u8>,
}

/// A failure in between: of the volume, or of the sidecar.
#[derive(Debug)]
enum Failure {
    Refused(Refusal),
    Problem(Problem),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// The refusal as a problem.
pub fn refused(refusal: &Refusal, drive: &str) -> Problem {
    let kind = if matches!(refusal, Refusal::Read(_)) { Kind::Drive } else { Kind::Refused };
    let advice = match refusal {
        Refusal::TooFull { .. } | Refusal::TooSplit(_) => "make room on it, or add a drive",
        Refusal::Exists { .. } => "use another session id, or rename what is on the drive",
        Refusal::Unclean(_) | Refusal::Damaged { .. } => "nothing was written",
        Refusal::Read(_) | Refusal::NotUnderstood(_) => "nothing was written; use another drive, or format it",
    };
    Problem::new(kind, refusal.to_string()).drive(drive).advice(advice)
}

/// Writes the data in clusters that were free, and the sidecar; the volume is still unchanged. `sidecar` is empty and
/// open for reading and writing. Returns the sidecar's length and digest, for [`trust`].
///
/// # Errors
/// Errors of the drive or of the sidecar.
pub fn prepare(
    opened: &Opened,
    store: &mut Store<'_>,
    append: &Append,
    tree: &impl Tree,
    outcome: &Outcome,
    sidecar: &mut File,
) -> Result<Prefix, Problem> {
    let name = &store.name();
    let mut out = Sidecar::begin(sidecar).map_err(|error| side_failed(&error, name))?;
    let result = append.metadata(&mut View(opened), tree, outcome, &mut |step, at, bytes: &[u8]| {
        for (place, after) in opened.seal(at, bytes).map_err(|error| unwritable(&error, name))? {
            if step == WriteStep::Fresh {
                store.write(place, &after)?;
                continue;
            }
            let mut before = vec![0; after.len()];
            opened
                .medium()
                .read_exact_at(&mut before, place)
                .map_err(|error| Problem::new(Kind::Drive, format!("cannot be read: {error}")).drive(name).at(place))?;
            // Unchanged sectors need no write; the final state of the mark is compared with the contents before the
            // mark.
            if step == WriteStep::Clean || before != after {
                out.entry(&SidecarEntry { step, at: place.0, before, after })
                    .map_err(|error| side_failed(&error, name))?;
            }
        }
        Ok::<(), Failure>(())
    });
    match result {
        Ok(()) => {}
        Err(Failure::Problem(problem)) => return Err(problem),
        Err(Failure::Refused(refusal)) => return Err(refused(&refusal, name)),
    }
    store.flush()?;
    out.end().map_err(|error| side_failed(&error, name))
}

/// Writes all new contents in the sidecar, step by step.
///
/// # Errors
/// Errors of the drive or of the sidecar. Repeat it.
pub fn redo(sidecar: &mut File, store: &mut Store<'_>) -> Result<(), Problem> {
    let name = &store.name();
    for step in [WriteStep::Mark, WriteStep::Change, WriteStep::Clean] {
        read_entries(sidecar, |entry| {
            if entry.step == step {
                store.write(DeviceOffset(entry.at), &entry.after)?;
            }
            Ok(())
        })
        .map_err(|error| error.problem(name))?;
        store.flush()?;
    }
    Ok(())
}

/// Writes all old contents in the sidecar. The mark goes last.
///
/// # Errors
/// Errors of the drive or of the sidecar. Repeat it.
pub fn undo(sidecar: &mut File, store: &mut Store<'_>) -> Result<(), Problem> {
    let name = &store.name();
    let mut marked = std::collections::BTreeSet::new();
    read_entries(sidecar, |entry| {
        if entry.step == WriteStep::Mark {
            marked.insert(entry.at);
        }
        Ok(())
    })
    .map_err(|error| error.problem(name))?;
    for mark in [false, true] {
        read_entries(sidecar, |entry| {
            // A place that bears the mark was read before it did.
            let of_mark = entry.step == WriteStep::Mark || marked.contains(&entry.at);
            if of_mark == mark {
                store.write(DeviceOffset(entry.at), &entry.before)?;
            }
            Ok(())
        })
        .map_err(|error| error.problem(name))?;
        store.flush()?;
    }
    Ok(())
}

/// Conditions for using a sidecar again: it is the one that was written, and [`check`] passes.
///
/// # Errors
/// The condition that fails; for the sidecar itself as [`Kind::Environment`].
pub fn trust(sidecar: &mut File, written: &Prefix, medium: &dyn Medium, name: &str) -> Result<(), Problem> {
    is_as_written(sidecar, written, name)?;
    check(sidecar, medium, name)
}

/// Checks that a sidecar is the one that was written.
///
/// # Errors
/// It is not, as [`Kind::Environment`].
pub fn is_as_written(sidecar: &mut File, written: &Prefix, name: &str) -> Result<(), Problem> {
    let is_it = prefix_of(sidecar).map(|now| now == *written).and_then(|is_it| Ok(is_it && is_whole(sidecar)?));
    if !is_it.map_err(|error| side_failed(&error, name))? {
        return Err(Problem::new(Kind::Environment, "the images of the drive's sectors are damaged")
            .drive(name)
            .advice("restore the file as it was: the volume can be neither finished nor rolled back without it"));
    }
    Ok(())
}

/// Length and digest of a file.
fn prefix_of(file: &mut File) -> io::Result<Prefix> {
    file.seek(SeekFrom::Start(0))?;
    let (mut hash, mut len, mut piece) = (Sha256::default(), 0, vec![0; 1 << 20]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(Prefix::of(&hash, len)),
            read => {
                hash.update(&piece[..read]);
                len += read as u64;
            }
        }
    }
}

/// Checks that every sector in the sidecar has its old or its new contents: a sector with neither was written by
/// another program since, and must not be overwritten.
///
/// # Errors
/// The place of the first that has neither; errors of the drive or of the sidecar.
pub fn check(sidecar: &mut File, medium: &dyn Medium, name: &str) -> Result<(), Problem> {
    let sector = medium.sector().bytes() as usize;
    let mut marks: Vec<SidecarEntry> = Vec::new();
    let of_mark = |step| matches!(step, WriteStep::Mark | WriteStep::Clean);
    read_entries(sidecar, |entry| {
        if of_mark(entry.step) {
            marks.push(entry);
        }
        Ok(())
    })
    .map_err(|error| error.problem(name))?;
    read_entries(sidecar, |entry| {
        let mut now = vec![0; entry.before.len()];
        medium.read_exact_at(&mut now, DeviceOffset(entry.at)).map_err(|error| {
            Problem::new(Kind::Drive, format!("cannot be read: {error}")).drive(name).at(DeviceOffset(entry.at))
        })?;
        for (i, now) in now.chunks(sector).enumerate() {
            let from = i * sector;
            let is = |bytes: &[u8]| bytes.get(from..from + now.len()) == Some(now);
            let at = entry.at + from as u64;
            let marked = || {
                marks.iter().any(|mark| {
                    let of = at.checked_sub(mark.at).map(|of| of as usize);
                    let is = |bytes: &[u8]| of.and_then(|of| bytes.get(of..of + now.len())) == Some(now);
                    is(&mark.before) || is(&mark.after)
                })
            };
            if !is(&entry.before) && !is(&entry.after) && !marked() {
                let what = "was written to by something else since this session was cut off";
                return Err(Problem::new(Kind::Refused, what).drive(name).at(DeviceOffset(at)).advice(
                    "nothing was written now; have the volume checked by chkdsk under Windows, and keep the journal's files",
                ));
            }
        }
        Ok(())
    })
    .map_err(|error| error.problem(name))
}

/// Whether a sidecar is complete. An incomplete one was never used: the volume is unchanged.
///
/// # Errors
/// It cannot be read.
pub fn is_whole(sidecar: &mut File) -> io::Result<bool> {
    match read_entries(sidecar, |_| Ok(())) {
        Ok(()) => Ok(true),
        Err(SideError::Torn) => Ok(false),
        Err(SideError::Io(error)) => Err(error),
        Err(SideError::Problem(problem)) => Err(io::Error::other(problem.to_string())),
    }
}

enum SideError {
    /// It ends early or is damaged.
    Torn,
    Io(io::Error),
    Problem(Problem),
}

impl From<Problem> for SideError {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl SideError {
    fn problem(self, name: &str) -> Problem {
        match self {
            Self::Problem(problem) => problem,
            Self::Io(error) => side_failed(&error, name),
            Self::Torn => Problem::new(Kind::Environment, "the sidecar with the drive's former sectors is damaged")
                .drive(name)
                .advice("keep it; have the volume checked by chkdsk under Windows"),
        }
    }
}

impl From<io::Error> for SideError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::Torn } else { Self::Io(error) }
    }
}

fn side_failed(error: &io::Error, name: &str) -> Problem {
    Problem::new(Kind::Environment, format!("the sidecar with the drive's former sectors failed: {error}"))
        .drive(name)
        .advice("make room on the journal's disk, and resume or abort the session")
}

fn unwritable(error: &io::Error, name: &str) -> Problem {
    Problem::new(Kind::Internal, format!("a place of the volume that cannot be written to: {error}")).drive(name)
}

struct Sidecar<'f> {
    file: BufWriter<&'f mut File>,
    sum: Crc64,
    hash: Sha256,
    len: u64,
}

impl<'f> Sidecar<'f> {
    fn begin(file: &'f mut File) -> io::Result<Self> {
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        let mut this =
            Self { file: BufWriter::with_capacity(1 << 20, file), sum: Crc64::new(), hash: Sha256::default(), len: 0 };
        this.put(MAGIC)?;
        Ok(this)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    fn entry(&mut self, entry: &SidecarEntry) -> io::Result<()> {
        let step = match entry.step {
            WriteStep::Fresh => 0,
            WriteStep::Mark => 1,
            WriteStep::Change => 2,
            WriteStep::Clean => 3,
        };
        self.put(&[step])?;
        self.put(&entry.at.to_le_bytes())?;
        self.put(&(entry.after.len() as u32).to_le_bytes())?;
        self.put(&entry.before)?;
        self.put(&entry.after)
    }

    fn end(mut self) -> io::Result<Prefix> {
        self.put(&[0xFF])?;
        let sum = self.sum.value();
        self.put(END)?;
        self.put(&sum.to_le_bytes())?;
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        Ok(Prefix::of(&self.hash, self.len))
    }
}

/// Reads all entries; `Torn` unless the sidecar is complete. Entries are passed on before that is known, unless the
/// caller checked with [`is_whole`] first.
fn read_entries(sidecar: &mut File, mut see: impl FnMut(SidecarEntry) -> Result<(), Problem>) -> Result<(), SideError> {
    sidecar.seek(SeekFrom::Start(0))?;
    let mut file = BufReader::with_capacity(1 << 20, sidecar);
    let mut sum = Crc64::new();
    let mut magic = [0; 8];
    file.read_exact(&mut magic)?;
    sum.update(&magic);
    if &magic != MAGIC {
        return Err(SideError::Torn);
    }
    loop {
        let mut step = [0];
        file.read_exact(&mut step)?;
        sum.update(&step);
        let step = match step[0] {
            1 => WriteStep::Mark,
            2 => WriteStep::Change,
            3 => WriteStep::Clean,
            0xFF => break,
            _ => return Err(SideError::Torn),
        };
        let (mut at, mut len) = ([0; 8], [0; 4]);
        file.read_exact(&mut at)?;
        file.read_exact(&mut len)?;
        sum.update(&at);
        sum.update(&len);
        let (at, len) = (u64::from_le_bytes(at), u32::from_le_bytes(len) as usize);
        if len > PIECE_MAX {
            return Err(SideError::Torn);
        }
        let (mut before, mut after) = (vec![0; len], vec![0; len]);
        file.read_exact(&mut before)?;
        file.read_exact(&mut after)?;
        sum.update(&before);
        sum.update(&after);
        see(SidecarEntry { step, at, before, after })?;
    }
    let (mut end, mut stored) = ([0; 8], [0; 8]);
    file.read_exact(&mut end)?;
    file.read_exact(&mut stored)?;
    if &end != END || u64::from_le_bytes(stored) != sum.value() {
        return Err(SideError::Torn);
    }
    Ok(())
}
