//! Paths of the external judges that are not in `PATH`; only built for tests.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The Python that has the judges' libraries (`scripts/test --judges` makes it), or the system's.
pub fn python() -> PathBuf {
    let private = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/judges/venv/bin/python");
    if private.exists() { private } else { "python3".into() }
}

/// Path of a cryptsetup that checks CRC and sealed hash of BitLocker metadata; `Err` holds the reason when it is
/// missing.
pub fn newer_cryptsetup() -> Result<PathBuf, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/judge-cryptsetup");
    let output = Command::new(script).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}
