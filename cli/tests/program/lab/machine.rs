//! A virtual machine (`scripts/vm`) that shares a directory of the test.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use dray_testdisks::dataset::Dataset;

use crate::common::{said, scratch};

/// One machine at a time: each takes two processors and a GiB.
static ONE: Mutex<()> = Mutex::new(());

/// Exit status after a kill on request, as by a power cut.
pub const KILLED: i32 = 137;

/// A disk of the machine.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Name of the disk, and of the session on it.
    pub name: &'static str,
    /// `BUS` and options for `scripts/vm`.
    pub bus: &'static str,
    pub options: String,
    pub serial: &'static str,
    pub image: PathBuf,
}

/// A directory that is `/work` in the machine, with a dataset in it.
pub struct Lab {
    pub dir: PathBuf,
}

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A number from the environment, which turns a test into a campaign.
pub fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

const DATASET: &str = "BasePath,DstItemPathOrPrefix,ItemType,Disposition,MetadataFile,PropertiesFile";
const DRIVESET: &str = "DriveLetter,FormatOption,SilentOrPromptOnFormat,Encryption,ExistingBitLockerKey";

impl Lab {
    pub fn new(name: &str, fill: impl FnOnce(&mut Dataset)) -> Self {
        let dir = scratch(name);
        let mut data = Dataset::new(&dir.join("source"), 11).expect("a dataset");
        fill(&mut data);
        data.finish().expect("a dataset");
        fs::write(dir.join("dataset.csv"), format!("{DATASET}\n\"/work/source/\",data/,BlockBlob,rename,None,None\n"))
            .expect("a dataset");
        let list = "cd source && find . -type f -print0 | sort -z | xargs -0 sha256sum >../sums";
        let listed = Command::new("sh").args(["-c", list]).current_dir(&dir).status().expect("sh");
        assert!(listed.success(), "sha256sum");
        Self { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub fn lines(&self, name: &str) -> BTreeSet<String> {
        self.read(name).lines().map(str::to_owned).collect()
    }

    /// An empty disk of `mib` MiB.
    pub fn disk(&self, name: &'static str, bus: &'static str, mib: u64, serial: &'static str, options: &str) -> Disk {
        let image = self.path(&format!("{name}.img"));
        if !image.exists() {
            fs::File::create(&image).and_then(|file| file.set_len(mib << 20)).expect("an image");
        }
        Disk { name, bus, options: options.to_owned(), serial, image }
    }

    /// Makes a finished drive of the image, with other files: the worst case for a power cut.
    pub fn finish_before(&self, image: &Path) {
        let journal = format!("before-{}.jrn", image.file_stem().unwrap_or_default().display());
        let (drives, data) = ("before.csv", "before-data.csv");
        fs::write(self.path(drives), format!("{DRIVESET}\n{},Format,SilentMode,Encrypt,\n", image.display()))
            .expect("a driveset");
        let row = format!("\"{}/\",before/,BlockBlob,rename,None,None", self.path("source").display());
        fs::write(self.path(data), format!("{DATASET}\n{row}\n")).expect("a dataset");
        let finished = Command::new(env!("CARGO_BIN_EXE_dray"))
            .args(["prep-import", "--id", "session#0", "--silent", "--journal"])
            .arg(self.path(&journal))
            .arg("--initial-driveset")
            .arg(self.path(drives))
            .arg("--dataset")
            .arg(self.path(data))
            .output()
            .expect("the binary runs");
        assert!(finished.status.success(), "{}", said(&finished));
    }

    /// Path of the dataset CSV on the host.
    pub fn dataset_here(&self) -> PathBuf {
        let here = self.path("dataset-here.csv");
        let text = self.read("dataset.csv").replace("/work/source/", &format!("{}/", self.path("source").display()));
        fs::write(&here, text).expect("a dataset");
        here
    }

    /// Runs a script of `testdisks/lab` (with its arguments) in a machine with these disks; returns the exit status,
    /// `None` (with a message) where no machine is available.
    pub fn run(&self, disks: &[Disk], script: &str) -> Option<i32> {
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut command = Command::new(project().join("scripts/vm"));
        // A guard against endless hanging, far beyond the needs of a busy machine.
        command.args(["--limit", "1200"]).env("DRAY", env!("CARGO_BIN_EXE_dray"));
        command.arg("--share").arg(format!("work={}", self.dir.display()));
        command.arg("--share").arg(format!("scripts={}", project().join("testdisks/lab").display()));
        for disk in disks {
            let Disk { bus, options, serial, image, .. } = disk;
            command.arg("--disk").arg(format!("{bus}:{},serial={serial}{options}", image.display()));
        }
        let output = command.args(["--", &format!("bash /scripts/{script}")]).output().expect("scripts/vm");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let status = output.status.code();
        if status == Some(125) {
            eprintln!("SKIPPED judge: virtual machine: {}", said.trim());
            return None;
        }
        assert!(!matches!(status, Some(124 | 126) | None), "the machine ended with {status:?}: {said}");
        if !said.trim().is_empty() {
            println!("{}", said.trim());
        }
        status
    }

    /// As [`Self::run`], with success required; `false` where no machine is available.
    pub fn succeeds(&self, disks: &[Disk], script: &str) -> bool {
        let status = self.run(disks, script);
        assert!(matches!(status, None | Some(0)), "{script}: {status:?}");
        status.is_some()
    }

    /// Keeps a copy of a session's files and its disk, or restores it.
    pub fn copy(&self, from: &str, to: &str) {
        let _ = fs::remove_dir_all(self.path(to));
        let copied =
            Command::new("cp").args(["-a", "--sparse=always", from, to]).current_dir(&self.dir).status().expect("cp");
        assert!(copied.success(), "{from} to {to}");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Whether these bytes at the ends of a drive belong to its partition tables alone.
pub fn in_tables(at: u64, len: u64, size: u64) -> bool {
    at + len <= 34 * 512 || at >= size - 33 * 512
}

/// The first difference of two images, ignoring the partition tables if asked to.
pub fn difference(a: &Path, b: &Path, with_tables: bool) -> Option<u64> {
    const PIECE: u64 = 1 << 20;
    let open = |path: &Path| fs::File::open(path).expect("an image");
    let (left, right) = (open(a), open(b));
    let size = left.metadata().expect("an image").len();
    assert_eq!(size, right.metadata().expect("an image").len(), "two sizes");
    let (mut here, mut there) = (vec![0; PIECE as usize], vec![0; PIECE as usize]);
    for at in (0..size).step_by(PIECE as usize) {
        let len = PIECE.min(size - at) as usize;
        left.read_exact_at(&mut here[..len], at).expect("read");
        right.read_exact_at(&mut there[..len], at).expect("read");
        if here[..len] == there[..len] {
            continue;
        }
        for (i, _) in here[..len].iter().zip(&there[..len]).enumerate().filter(|(_, (a, b))| a != b) {
            let byte = at + i as u64;
            if with_tables || !in_tables(byte, 1, size) {
                return Some(byte);
            }
        }
    }
    None
}

/// Whether libblkid sees a partition table in the first bytes, so that the drive would pass for a finished one.
pub fn looks_finished(image: &Path) -> bool {
    let output = Command::new("blkid").args(["-p", "-o", "export"]).arg(image).output().expect("blkid");
    String::from_utf8_lossy(&output.stdout).contains("PTTYPE=gpt")
}
