//! Drive records and journals, read for a job.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use zeroize::Zeroizing;

use crate::azure::SecretText;
use crate::azure::drive_record::{self, DriveRecord, RecordState};
use crate::files::Which;
use crate::files::input::{self, Pipes};
use crate::hash;
use crate::journal::files::{journal_dir, read_journal};
use crate::limits::INPUT_FILE_MAX;
use crate::report::{Advice, Kind, Problem, Problems, Setting};

/// Reads a drive record.
///
/// # Errors
/// It cannot be read, or is no drive record.
pub fn read_record(path: &Path) -> Result<DriveRecord, Problem> {
    let problem = |what: String| {
        Problem::new(Kind::Usage, what).path(path).advice("name the <DriveId>.xml that lies next to the journal")
    };
    let bytes = read(path).map_err(|error| problem(format!("cannot be read: {error}")))?;
    drive_record::read(&bytes).map_err(|error| problem(error.to_string()))
}

/// Facts of a finished drive's record for the journal, to tell it from another: path of the manifest, check value of
/// the key.
pub fn marks(path: &Path) -> (Option<String>, Option<String>) {
    let Ok(record) = read_record(path) else { return (None, None) };
    let check = record.bitlocker_key.as_ref().and_then(|key| drive_record::key_check(&record.drive_id, key));
    (record.manifest_file, check)
}

/// Whether the file in the place of a drive's record, unknown to this journal, must stay: it may hold the only key of
/// another drive. It need not when it has the same key, or when it is the record of an unfinished drive that no journal
/// in the directory lists: no session can resume that one.
pub fn is_foreign(journal: &Path, drive_id: &str, key: Option<&SecretText>) -> bool {
    let path = journal.with_file_name(format!("{drive_id}.xml"));
    if fs::symlink_metadata(&path).is_err() {
        return false;
    }
    let Ok(record) = read_record(&path) else { return true };
    let key = key.map(SecretText::expose);
    if key.is_some() && record.bitlocker_key.as_ref().map(SecretText::expose) == key {
        return false;
    }
    record.state != Some(RecordState::Incomplete) || is_known_beside(journal, drive_id)
}

/// Whether another journal in the directory lists a drive.
fn is_known_beside(journal: &Path, drive_id: &str) -> bool {
    const BEGIN: &[u8] = b"[BeginUpdateRecord]";
    let own = Which::at(journal);
    let entries = fs::read_dir(journal_dir(journal)).into_iter().flatten().flatten();
    let mut others = entries.map(|entry| entry.path()).filter(|path| own.is_none() || Which::at(path) != own);
    others.any(|path| {
        let mut head = [0; BEGIN.len()];
        let is_journal = input::open(&path, Pipes::Refused)
            .and_then(|mut file| file.read_exact(&mut head))
            .is_ok_and(|()| head == BEGIN);
        is_journal
            && read_journal(&path)
                .is_ok_and(|book| book.ledger.sessions.iter().any(|session| session.drive(drive_id).is_some()))
    })
}

/// Upper-case hex SHA-256 of a file, for a printed protocol.
///
/// # Errors
/// It cannot be read.
pub fn sha256_of(path: &Path) -> io::Result<String> {
    Ok(hash::hex_upper(&hash::sha256(&read(path)?)))
}

/// Whether a key has the form of a numerical password: eight groups of six digits, each a multiple of eleven.
pub fn is_numerical_password(key: &str) -> bool {
    crate::azure::driveset::is_numerical_password(key)
}

/// Writes a private file durably and atomically.
///
/// # Errors
/// It cannot be written; the problem names the file.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Problems> {
    super::files::replace_private(path, bytes)
        .map_err(|error| Problem::new(Kind::Environment, format!("cannot be written: {error}")).path(path).into())
}

fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    input::read(path, INPUT_FILE_MAX, Pipes::Refused)
}

/// The problem that a file has the name of a future drive record.
pub fn foreign_record(path: &Path) -> Problem {
    Problem::new(
        Kind::Refused,
        "exists already, and this journal does not know it: it may hold another drive's only key",
    )
    .path(path)
    .advice(Advice::from("keep each journal in a directory of its own; or move the file to a safe place; or give the drive another id with ") + Setting::DriveId)
}
