//! Drive records and journals, read for the job that they go into.

use std::fs;
use std::io;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::azure::drive_record::{self, DriveRecord};
use crate::azure::names;
use crate::limits::INPUT_FILE_MAX;
use crate::report::{Kind, Problem, Problems};

/// Reads a drive record.
///
/// # Errors
/// When it cannot be read or is none.
pub fn read_record(path: &Path) -> Result<DriveRecord, Problem> {
    let problem = |what: String| {
        Problem::new(Kind::Usage, what).path(path).advice("name the <DriveId>.xml that lies beside the journal")
    };
    let bytes = read(path).map_err(|error| problem(format!("cannot be read: {error}")))?;
    drive_record::read(&bytes).map_err(|error| problem(error.to_string()))
}

/// Upper-case hex SHA-256 of a file, for a protocol on paper.
///
/// # Errors
/// When it cannot be read.
pub fn sha256_of(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    hash.update(&*read(path)?);
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02X}")).collect())
}

/// Whether a job may be called so (import-export.md 9.3).
///
/// # Errors
/// What is wrong with it, as a sentence without full stop.
pub fn check_job_name(name: &str) -> Result<(), String> {
    names::check_job(name).map_err(|error| error.to_string())
}

/// Whether a key has the form of a numerical password: eight groups of six digits, each a multiple of eleven.
pub fn is_numerical_password(key: &str) -> bool {
    crate::azure::driveset::is_numerical_password(key)
}

/// Writes a file that only its owner may read, durably and never half.
///
/// # Errors
/// When it cannot be written; names the file.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Problems> {
    super::files::replace_private(path, bytes)
        .map_err(|error| Problem::new(Kind::Environment, format!("cannot be written: {error}")).path(path).into())
}

fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    if fs::metadata(path)?.len() > INPUT_FILE_MAX {
        return Err(io::Error::other(format!("larger than {INPUT_FILE_MAX} bytes")));
    }
    fs::read(path).map(Zeroizing::new)
}
