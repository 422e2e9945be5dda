//! Runs external judges: tools from other projects. A missing judge is skipped with a message, never counted as a pass.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Output;

/// Result of a judge.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// The judge examined it and found no fault.
    Pass(String),
    /// The faults found.
    Fail(String),
    /// The reason why it could not run.
    Skipped(String),
}

impl Verdict {
    /// Panics when the judge failed; prints a message when it was skipped. `true` if it passed.
    ///
    /// # Panics
    /// On [`Verdict::Fail`].
    pub fn expect_pass(self, judge: &str) -> bool {
        match self {
            Self::Pass(_) => true,
            Self::Fail(why) => panic!("{judge}: {why}"),
            Self::Skipped(why) => {
                eprintln!("SKIPPED judge: {judge}: {why}");
                false
            }
        }
    }

    /// For tests of the judges: panics when the judge passed.
    ///
    /// # Panics
    /// On [`Verdict::Pass`].
    pub fn expect_fail(self, judge: &str) -> bool {
        match self {
            Self::Pass(why) => panic!("{judge} let it pass: {why}"),
            Self::Fail(_) => true,
            skipped @ Self::Skipped(_) => skipped.expect_pass(judge),
        }
    }
}

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub use dray_fixtures::judges::python;

/// Runs a script of this directory with these words and this input.
///
/// # Errors
/// Without Python.
pub fn script<S: AsRef<OsStr>>(name: &str, words: &[S], stdin: &[u8]) -> io::Result<Output> {
    dray_fixtures::judges::script(&project().join("testdisks").join(name), words, stdin)
}

/// Runs `testdisks/judges.py NAME ARGS…`.
pub fn ask<S: AsRef<OsStr>>(name: &str, args: &[S]) -> Verdict {
    let words: Vec<&OsStr> = std::iter::once(name.as_ref()).chain(args.iter().map(AsRef::as_ref)).collect();
    match script("judges.py", &words, b"") {
        Err(e) => Verdict::Skipped(format!("no Python: {e}")),
        Ok(out) => {
            let said = String::from_utf8_lossy(&out.stdout).trim().to_owned();
            match out.status.code() {
                Some(0) => Verdict::Pass(said),
                Some(3) => Verdict::Skipped(said),
                _ => Verdict::Fail(format!("{said} {}", String::from_utf8_lossy(&out.stderr).trim())),
            }
        }
    }
}

/// Range of a drive's data partition: start, length and sector size in bytes, as `volume.py` finds it.
///
/// # Errors
/// Without Python, or when the drive has no data partition.
pub fn volume_of(drive: &Path) -> io::Result<(u64, u64, u64)> {
    let output = script("volume.py", &[drive], b"")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbers: Vec<u64> = said.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    match numbers[..] {
        [start, len, sector] => Ok((start, len, sector)),
        _ => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned())),
    }
}

/// `sgdisk -v` on a drive; 4096-byte sectors through a loop device.
pub fn sgdisk(drive: &Path) -> Verdict {
    ask("sgdisk", &[drive])
}

/// `sfdisk --verify` on a drive; 4096-byte sectors through a loop device.
pub fn sfdisk(drive: &Path) -> Verdict {
    ask("sfdisk", &[drive])
}

/// Version of cryptsetup: 2.8.4 and later also check CRC-32 and the sealed hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cryptsetup {
    /// The installed one.
    Installed,
    /// The one that `scripts/judge-cryptsetup` finds or fetches.
    Newer,
}

/// `cryptsetup bitlkDump` and `open --test-passphrase` on a drive or a bare volume.
pub fn cryptsetup(drive: &Path, key: &str, which: Cryptsetup) -> Verdict {
    let which = if which == Cryptsetup::Newer { "newer" } else { "installed" };
    ask("cryptsetup", &[drive.as_os_str(), key.as_ref(), which.as_ref()])
}

/// The installed libbde; it does not support XTS-256 and skips that.
pub fn bdeinfo(drive: &Path, key: &str) -> Verdict {
    ask("bdeinfo", &[drive.as_os_str(), key.as_ref()])
}

/// The current libbde opens the volume and finds NTFS at both ends.
pub fn libbde(drive: &Path, key: &str) -> Verdict {
    ask("libbde", &[drive.as_os_str(), key.as_ref()])
}

/// dissect.fve must read the contents of `plain`, at both ends and in `samples` places.
pub fn dissect(drive: &Path, key: &str, plain: &Path, samples: u32) -> Verdict {
    ask("dissect", &[drive.as_os_str(), key.as_ref(), plain.as_os_str(), samples.to_string().as_ref()])
}

/// Decrypts a drive's volume into the plain image `out` by libbde; zeros become holes.
pub fn decrypt(drive: &Path, key: &str, out: &Path) -> Verdict {
    match script("decrypt.py", &[drive.as_os_str(), out.as_os_str(), "--recovery".as_ref(), key.as_ref()], b"") {
        Err(e) => Verdict::Skipped(format!("no Python: {e}")),
        Ok(done) if done.status.success() => Verdict::Pass(String::new()),
        Ok(done) => {
            let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
            if said.contains("ModuleNotFoundError") { Verdict::Skipped(said) } else { Verdict::Fail(said) }
        }
    }
}

/// SHA-256 of a drive's volume as `reader` (`libbde` or `dissect`) decrypts it; `key` is `--recovery`, `--password` or
/// `--bek`, and its value.
pub fn decrypted(drive: &Path, key: [&str; 2], reader: &str) -> Verdict {
    let words = ["-", key[0], key[1], "--with", reader];
    let words: Vec<&OsStr> = std::iter::once(drive.as_os_str()).chain(words.iter().map(AsRef::as_ref)).collect();
    match script("decrypt.py", &words, b"") {
        Err(e) => Verdict::Skipped(format!("no Python: {e}")),
        Ok(done) if done.status.success() => Verdict::Pass(String::from_utf8_lossy(&done.stdout).trim().to_owned()),
        Ok(done) => {
            let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
            if said.contains("ModuleNotFoundError") { Verdict::Skipped(said) } else { Verdict::Fail(said) }
        }
    }
}

/// `ntfsfix -n` on a plain volume.
pub fn ntfsfix(plain: &Path) -> Verdict {
    ask("ntfsfix", &[plain])
}

/// `ntfsinfo -m` on a plain volume: version 3.1 and clean flags.
pub fn ntfsinfo(plain: &Path) -> Verdict {
    ask("ntfsinfo", &[plain])
}

/// `checkdisk /f`, a dry run, on a plain volume: records, indexes, security, bitmaps.
pub fn checkdisk(plain: &Path) -> Verdict {
    ask("checkdisk", &[plain])
}

/// PhantomTrace on a plain volume: `$MFT`, bitmaps and runs against each other. Not above clusters of 64 KiB.
pub fn phantom_trace(plain: &Path) -> Verdict {
    ask("phantom_trace", &[plain])
}

/// Sleuth Kit's `fsstat` on a plain volume.
pub fn fsstat(plain: &Path) -> Verdict {
    ask("fsstat", &[plain])
}

/// Sleuth Kit's `fls` on a plain volume: nothing deleted or orphaned, and at least `files_min` files.
pub fn fls(plain: &Path, files_min: u64) -> Verdict {
    ask("fls", &[plain.as_os_str(), files_min.to_string().as_ref()])
}

/// Mounts a plain volume with ntfs-3g and compares content and time of every file. `mapping` has lines `\path\on\drive
/// TAB source`; with `exact` the volume's directories must hold nothing else.
pub fn compare(plain: &Path, mapping: &Path, exact: bool) -> Verdict {
    ask("compare", &[plain.as_os_str(), mapping.as_os_str(), if exact { "exact" } else { "no" }.as_ref()])
}

/// Parameters of `judge_drive.py`, which runs all judges.
#[derive(Clone, Copy, Debug)]
pub struct Drive<'a> {
    /// The finished drive.
    pub image: &'a Path,
    /// Its drive record.
    pub record: &'a Path,
    /// Dataset; when given, every file is compared with its source.
    pub dataset: Option<&'a Path>,
    /// Whether the dataset was spread over several drives, or files were left out.
    pub partial: bool,
    /// Path for keeping the decrypted volume.
    pub plain: Option<&'a Path>,
    /// Judges left out because they would be too slow.
    pub without: &'a [&'a str],
}

impl Drive<'_> {
    /// Judges everything on the drive; the returned text is the judges' table.
    pub fn judge(&self) -> Verdict {
        let mut words = vec![self.image.as_os_str(), self.record.as_os_str()];
        for (flag, path) in [("--dataset", self.dataset), ("--plain", self.plain)] {
            if let Some(path) = path {
                words.extend([flag.as_ref(), path.as_os_str()]);
            }
        }
        if self.partial {
            words.push("--partial".as_ref());
        }
        for judge in self.without {
            words.extend(["--without", judge].map(OsStr::new));
        }
        match script("judge_drive.py", &words, b"") {
            Err(e) => Verdict::Skipped(format!("no Python: {e}")),
            Ok(out) => {
                // Skipped judges are reported one by one.
                eprint!("{}", String::from_utf8_lossy(&out.stderr));
                let said = String::from_utf8_lossy(&out.stdout).into_owned();
                if out.status.success() { Verdict::Pass(said) } else { Verdict::Fail(said) }
            }
        }
    }
}

/// [`Drive::judge`] with all judges, keeping nothing.
pub fn drive(image: &Path, record: &Path, dataset: Option<&Path>, partial: bool) -> Verdict {
    Drive { image, record, dataset, partial, plain: None, without: &[] }.judge()
}
