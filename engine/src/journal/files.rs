//! Files outside the drive: journal, drive records, key files, sidecars.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::azure::journal::{self, ActivityRecord, Chain};
use crate::azure::ledger::{Ledger, NextAction, Wish};
use crate::files::input::{self, Pipes};
use crate::files::kind;
use crate::hash;
use crate::limits;
use crate::report::{Advice, Kind, Problem, Problems, Setting};
use crate::request::{Action, PrepRequest};
use crate::surroundings::now;
use crate::units::ByteLen;

/// Directory of the logs.
pub fn logdir(request: &PrepRequest) -> PathBuf {
    request.logdir.clone().unwrap_or_else(|| journal_dir(&request.journal))
}

/// Directory of the journal and the files that belong to it.
pub fn journal_dir(journal: &Path) -> PathBuf {
    match journal.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Contents of a journal file.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// Sessions and drives assembled from its records.
    pub ledger: Ledger,
    /// Offset of a last record that was cut off while it was appended.
    pub torn: Option<usize>,
    /// Damage that no interruption explains.
    pub damage: Vec<Problem>,
    /// SHA-256 of the file.
    pub seen: [u8; 32],
}

/// Reads a journal that may be damaged. A missing one is empty.
///
/// # Errors
/// It cannot be read, or is no journal.
pub fn read_journal(path: &Path) -> Result<Book, Problem> {
    let bytes = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Book { seen: hash::sha256(&[]), ..Book::default() });
        }
        Ok(meta) if meta.len() > limits::JOURNAL_LEN_MAX => {
            let problem = Problem::new(Kind::Usage, "is too long for a journal").path(path);
            return Err(problem.value(meta.len().to_string()).advice("name the journal of the session"));
        }
        Ok(meta) if !meta.is_file() => {
            let problem = Problem::new(Kind::Usage, format!("is {}, not a journal", kind(&meta))).path(path);
            return Err(problem.advice("name a regular file"));
        }
        _ => input::read(path, limits::JOURNAL_LEN_MAX, Pipes::Refused).map_err(|error| {
            Problem::new(Kind::Environment, format!("the journal cannot be read: {error}")).path(path)
        })?,
    };
    let journal = journal::read(&bytes);
    if journal.records.is_empty() && (journal.torn.is_none_or(|at| at > 0) && !bytes.is_empty()) {
        let problem = Problem::new(Kind::Usage, "is not a journal").path(path);
        return Err(problem.advice("name a new file; nothing is ever written over a file that is not understood"));
    }
    let damage = journal.damage.iter().map(|damage| {
        Problem::new(Kind::Usage, format!("the journal is damaged: the record here {}", damage.what))
            .path(path)
            .line(damage.line)
            .advice("an interruption leaves no such marks: look after the disk, bring a copy of the journal back, or begin a new one")
    });
    let (ledger, damage) = (Ledger::new(&journal), damage.collect());
    Ok(Book { ledger, torn: journal.torn, damage, seen: hash::sha256(&bytes) })
}

/// The process that holds the journal for writing, by the kernel's list of locks; 0 when that process is in another
/// namespace. `None` when no process does, or the list cannot be read. Takes no lock itself, which would prevent a
/// session that starts at this moment.
pub fn journal_holder(path: &Path) -> Option<u32> {
    let meta = fs::metadata(path).ok()?;
    let (major, minor) = (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev()));
    let locks = fs::read_to_string("/proc/locks").ok()?;
    lock_owner(&locks, &format!("{major:02x}:{minor:02x}:{}", meta.ino()))
}

/// The owner of a lock for writing in lines such as `1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF` (proc_locks(5)); waiting
/// locks have `->` before their kind.
fn lock_owner(locks: &str, place: &str) -> Option<u32> {
    locks.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [_, "FLOCK", _, "WRITE", process, at, ..] if at == place => Some(process.parse().unwrap_or(0)),
        _ => None,
    })
}

/// The contents of the journal, and whether it allows the requested action.
pub fn check_journal(request: &PrepRequest, problems: &mut Problems) -> Option<(Book, NextAction)> {
    let dir = journal_dir(&request.journal);
    if !dir.is_dir() {
        let problem = Problem::new(Kind::Usage, "the directory of the journal does not exist").path(dir);
        problems.push(problem.advice(Advice::from("create it, or name another journal with ") + Setting::Journal));
        return None;
    }
    let mut book = match read_journal(&request.journal) {
        Ok(book) => book,
        Err(problem) => {
            problems.push(problem);
            return None;
        }
    };
    if !book.damage.is_empty() {
        problems.0.append(&mut book.damage);
        return None;
    }
    let wish = match request.action {
        Action::Copy => Wish::Copy { adds_drives: request.additional_driveset.is_some() },
        Action::SkipWrite => Wish::Index,
        Action::Resume => Wish::Resume,
        Action::Abort => Wish::Abort,
    };
    match book.ledger.next_action(&request.session, wish) {
        Ok(road) => Some((book, road)),
        Err(refusal) => {
            let problem = Problem::new(Kind::Usage, refusal.what).path(&request.journal).setting(Setting::Id);
            problems.push(problem.advice(refusal.advice));
            None
        }
    }
}

/// A file in the journal's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sidecar<'a> {
    /// The session's plan: catalog and drives. Appended to, never changed.
    Plan,
    /// Results of reading the sources of one drive. Appended to, never changed.
    Outcome(&'a str),
    /// Progress of one drive. Of constant size, replaced as a whole.
    Checkpoint(&'a str),
    /// Undo and redo images of a volume that files are added to.
    Images(&'a str),
    /// The same for the hidden files of a volume that is encrypted in place.
    HiddenImages(&'a str),
    /// The batch that is being encrypted in place.
    BatchJournal(&'a str),
    /// One drive's part of the list of all files.
    ListPart(&'a str),
    /// What became of one drive's blobs, of an export.
    ExportedPart(&'a str),
    /// Blobs that cannot be exported.
    Refused,
}

impl<'a> Sidecar<'a> {
    /// Suffixes of all of them.
    pub const SUFFIXES: [&'static str; 9] =
        ["plan", "outcome", "checkpoint", "images", "hidden", "batch", "list", "exported", "refused"];

    /// Files of one drive that are not needed once its session is complete, or it is given up or rolled back.
    pub const fn of_work(drive: &'a str) -> [Self; 5] {
        [
            Self::Checkpoint(drive),
            Self::Outcome(drive),
            Self::Images(drive),
            Self::HiddenImages(drive),
            Self::BatchJournal(drive),
        ]
    }

    const fn suffix(self) -> &'static str {
        let [plan, outcome, checkpoint, images, hidden, batch, list, exported, refused] = Self::SUFFIXES;
        match self {
            Self::Plan => plan,
            Self::Outcome(_) => outcome,
            Self::Checkpoint(_) => checkpoint,
            Self::Images(_) => images,
            Self::HiddenImages(_) => hidden,
            Self::BatchJournal(_) => batch,
            Self::ListPart(_) => list,
            Self::ExportedPart(_) => exported,
            Self::Refused => refused,
        }
    }

    const fn drive(self) -> Option<&'a str> {
        match self {
            Self::Plan | Self::Refused => None,
            Self::Outcome(drive)
            | Self::Checkpoint(drive)
            | Self::Images(drive)
            | Self::HiddenImages(drive)
            | Self::BatchJournal(drive)
            | Self::ListPart(drive)
            | Self::ExportedPart(drive) => Some(drive),
        }
    }
}

/// Path of a sidecar: the journal's name, the session's, the drive's, and a word.
pub fn sidecar(journal: &Path, session: &str, which: Sidecar<'_>) -> PathBuf {
    let mut name = journal.file_name().unwrap_or_default().to_os_string();
    name.push(match which.drive() {
        None => format!(".{session}.{}", which.suffix()),
        Some(drive) => format!(".{session}.{drive}.{}", which.suffix()),
    });
    journal.with_file_name(name)
}

/// The problem when the journal's directory lacks this much room.
pub fn room_beside(journal: &Path, needed: ByteLen) -> Option<Problem> {
    let dir = journal_dir(journal);
    // Where the file system does not report its room, the first write will show.
    let facts = rustix::fs::statvfs(&dir).ok()?;
    let free = ByteLen(facts.f_bavail.saturating_mul(facts.f_frsize));
    (free < needed).then(|| {
        let what =
            format!("has not enough room for the files next to the journal: {needed} are needed, {free} are free");
        Problem::new(Kind::Environment, what)
            .path(dir)
            .advice(Advice::from("make room, or name a journal elsewhere with ") + Setting::Journal)
    })
}

/// Replaces a private file durably and atomically.
pub fn replace_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let new = path.with_file_name(name);
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_dir(path)
}

/// Renames an existing file to the first free name `<path>.1`, `<path>.2`, …, and returns that.
pub fn keep_earlier(path: &Path) -> io::Result<PathBuf> {
    for i in 1u32.. {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{i}"));
        let kept = path.with_file_name(name);
        if fs::symlink_metadata(&kept).is_err() {
            fs::rename(path, &kept)?;
            sync_dir(path)?;
            return Ok(kept);
        }
    }
    Err(io::Error::other("no free name"))
}

/// Makes a new or renamed file's entry durable.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(journal_dir(path))?.sync_all()
}

/// The journal, appended to and made durable record by record. Held by one process at a time.
#[derive(Debug)]
pub struct JournalFile {
    path: PathBuf,
    file: Mutex<(File, Chain)>,
    /// Repairs made when it was opened, for the log.
    pub note: Option<String>,
}

impl JournalFile {
    /// Opens the journal or begins a new one, and drops a last record that was cut off.
    ///
    /// # Errors
    /// It cannot be written, is damaged, or another process holds it.
    pub fn open(path: &Path) -> Result<Self, Problems> {
        Self::open_if(path, |_| true)
    }

    /// As [`JournalFile::open`], provided that it is unchanged since planning: [`Book::seen`]. Another process may have
    /// continued the session while a question was open.
    ///
    /// # Errors
    /// As there; also when it has changed since.
    pub fn open_seen(path: &Path, seen: &[u8; 32]) -> Result<Self, Problems> {
        Self::open_if(path, |bytes| hash::sha256(bytes) == *seen)
    }

    fn open_if(path: &Path, is_expected: impl FnOnce(&[u8]) -> bool) -> Result<Self, Problems> {
        let failed = |error: io::Error| {
            Problem::new(Kind::Environment, format!("the journal cannot be written: {error}")).path(path)
        };
        let mut file =
            // Without waiting for the other end of a pipe.
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        if !meta.is_file() {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, format!("is {}", kind(&meta)))).into());
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let problem = Problem::new(Kind::Refused, "another process works with this journal").path(path);
                return Err(problem.advice("wait for it, or end it").into());
            }
            // A file system without locks: as before there were any.
            Err(TryLockError::Error(_)) => {}
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        if !is_expected(&bytes) {
            let what = "the journal was written to by another process since this one looked at it";
            let problem = Problem::new(Kind::Refused, what).path(path);
            return Err(problem
                .advice(
                    Advice::from("nothing was done; look at it with ")
                        + Setting::ListCopySessions
                        + ", and start again",
                )
                .into());
        }
        let journal = journal::read(&bytes);
        if !journal.damage.is_empty() {
            return Err(Problem::new(Kind::Usage, "the journal is damaged").path(path).into());
        }
        let (mut chain, torn) = (journal.chain, journal.torn);
        let mut mend = || {
            if let Some(torn) = torn {
                file.set_len(torn as u64)?;
            }
            let kept = &bytes[..torn.unwrap_or(bytes.len())];
            let mut more = Vec::new();
            if kept.is_empty() {
                more = journal::new_journal(now());
            } else if !kept.ends_with(b"\n") {
                more.extend_from_slice(b"\r\n");
            }
            file.write_all(&more)?;
            chain.pass(&more);
            file.sync_all()?;
            sync_dir(path)
        };
        mend().map_err(failed)?;
        let note = torn.filter(|at| *at > 0).map(|at| {
            format!("the last record of the journal was cut off while it was written (byte {at}); it was dropped")
        });
        Ok(Self { path: path.to_path_buf(), file: Mutex::new((file, chain)), note })
    }

    /// Appends a record; durable when this returns. A record that cannot be appended completely is removed again.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn append(&self, record: &ActivityRecord<'_>) -> Result<(), Problems> {
        let write = || {
            let bytes = record.encode(now()).map_err(|error| io::Error::other(error.to_string()))?;
            let mut guard = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            let (file, chain) = &mut *guard;
            let mut next = chain.clone();
            let len = file.metadata()?.len();
            let written = file.write_all(&next.seal(&bytes)).and_then(|()| file.sync_data());
            match written {
                Ok(()) => *chain = next,
                Err(_) => file.set_len(len)?,
            }
            written
        };
        write().map_err(|error| {
            let problem = Problem::new(Kind::Environment, format!("the journal cannot be written: {error}"));
            problem
                .path(&self.path)
                .advice(Advice::from("make room on its disk, then continue with ") + Setting::Resume)
                .into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_held_by_whom_the_kernel_lists() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 fe:00:77 0 EOF\n2: FLOCK  ADVISORY  READ 12 fe:00:77 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 13 fe:00:77 0 EOF\n4: FLOCK  ADVISORY  WRITE 14 fe:00:77 0 EOF\n\
                     5: FLOCK  ADVISORY  WRITE -1 fe:00:78 0 EOF\n";
        let owner = |place| lock_owner(locks, place);
        assert_eq!((owner("fe:00:77"), owner("fe:00:78"), owner("fe:00:7")), (Some(14), Some(0), None));
    }
}
