//! What lies beside the drive: journal, drive records, key files, hash logs, the session's log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::azure::journal::{self, ActivityRecord, SessionState};
use crate::prep::request::PrepRequest;
use crate::report::{Event, Kind, Problem, Problems};
use crate::surroundings::now;

/// What the journal held before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalState {
    /// Nothing.
    New,
    /// The same session began before and did not end.
    Restarted,
}

/// Where logs go.
pub fn logdir(request: &PrepRequest) -> PathBuf {
    request.logdir.clone().unwrap_or_else(|| journal_dir(&request.journal))
}

/// Where the journal and what belongs to it lie.
pub fn journal_dir(journal: &Path) -> PathBuf {
    match journal.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Whether the journal allows a first session.
pub fn check_journal(request: &PrepRequest, problems: &mut Problems) -> Option<JournalState> {
    let dir = journal_dir(&request.journal);
    if !dir.is_dir() {
        let problem = Problem::new(Kind::Usage, "the directory of the journal is not there").path(dir);
        problems.push(problem.advice("create it, or name another journal with --journal"));
        return None;
    }
    let bytes = match fs::read(&request.journal) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(JournalState::New),
        Err(error) => {
            let problem = Problem::new(Kind::Environment, format!("the journal cannot be read: {error}"));
            problems.push(problem.path(&request.journal));
            return None;
        }
    };
    if bytes.is_empty() {
        return Some(JournalState::New);
    }
    let journal = journal::read(&bytes);
    if journal.records.is_empty() || !journal.damage.is_empty() {
        let problem = Problem::new(Kind::Usage, "is not a journal, or a damaged one").path(&request.journal);
        problems.push(problem.advice("name a new file; nothing is ever written over a file that is not understood"));
        return None;
    }
    let mut last: Option<(&str, SessionState)> = None;
    let mut others = false;
    for record in &journal.records {
        if let Some(ActivityRecord::Session { id, state }) = ActivityRecord::from_record(record) {
            others |= id != request.session;
            last = Some((id, state));
        }
    }
    match last {
        None => Some(JournalState::Restarted),
        Some((id, state)) if id == request.session && !others && state != SessionState::Completed => {
            Some(JournalState::Restarted)
        }
        Some((id, state)) => {
            problems.push(
                Problem::new(Kind::Usage, format!("the journal holds session {id} ({})", state.as_str()))
                    .path(&request.journal)
                    .advice(
                        "a second session on the same drives is not supported yet: use a new journal and other drives",
                    ),
            );
            None
        }
    }
}

/// Name of a drive's hash log.
pub fn sidecar(journal: &Path, drive_id: &str) -> PathBuf {
    let mut name = journal.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{drive_id}.hashes"));
    journal.with_file_name(name)
}

/// Replaces a file that only its owner may read, durably: never half of it, whatever happens.
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

/// Puts a file that is there out of the way, under the first free name `<path>.1`, `<path>.2`, …, and tells it.
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

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(journal_dir(path))?.sync_all()
}

/// The journal, appended to and made durable record by record.
#[derive(Debug)]
pub struct JournalFile {
    path: PathBuf,
    file: Mutex<File>,
}

impl JournalFile {
    /// Opens it, and begins a new one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn open(path: &Path, state: JournalState) -> Result<Self, Problems> {
        let open = || {
            let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
            if state == JournalState::New {
                file.write_all(&journal::new_journal(now()))?;
            }
            file.sync_all()?;
            sync_dir(path)?;
            Ok(file)
        };
        let problem = |error: io::Error| {
            Problem::new(Kind::Environment, format!("the journal cannot be written: {error}")).path(path)
        };
        Ok(Self { path: path.to_path_buf(), file: Mutex::new(open().map_err(problem)?) })
    }

    /// Appends a record; durable when this returns.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn append(&self, record: &ActivityRecord<'_>) -> Result<(), Problems> {
        let write = || {
            let bytes = record.to_bytes(now()).map_err(|error| io::Error::other(error.to_string()))?;
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            file.write_all(&bytes)?;
            file.sync_data()
        };
        write().map_err(|error| {
            let problem = Problem::new(Kind::Environment, format!("the journal cannot be written: {error}"));
            problem.path(&self.path).advice("make room on its disk and start again").into()
        })
    }
}

/// The session's log: what happened, line by line. Paths and serials, never keys.
#[derive(Debug)]
pub struct Log(Mutex<File>);

impl Log {
    /// Opens it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn open(dir: &Path, session: &str) -> Result<Self, Problems> {
        let name: String = session.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let path = dir.join(format!("dray-{name}.log"));
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
        let file = file.map_err(|error| {
            Problem::new(Kind::Environment, format!("the log cannot be written: {error}")).path(path)
        })?;
        Ok(Self(Mutex::new(file)))
    }

    /// Writes a line, unless the event is only progress; `drives` are the session's, by name.
    pub fn event(&self, event: &Event, drives: &[String]) {
        let name = |drive: &usize| drives.get(*drive).map_or("?", String::as_str);
        self.line(&match event {
            Event::Scanning { .. } | Event::Progress { .. } => return,
            Event::Stage { drive, stage } => format!("drive {}: {stage:?}", name(drive)),
            Event::LeftOut { drive, path, why } => format!("drive {}: left out {}: {why}", name(drive), path.display()),
            Event::DriveFailed { drive, problem } => format!("drive {}: failed: {problem}", name(drive)),
            Event::Note(note) => note.clone(),
        });
    }

    /// Writes a line.
    pub fn line(&self, line: &str) {
        let stamp = jiff::Timestamp::now();
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A full log disk must not end a session that runs well.
        let _ = writeln!(file, "{stamp:.3} {line}");
    }
}
