//! Real buses: drives prepared inside a virtual machine (`scripts/vm`), where the kernel's own drivers are the judges.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use common::scratch;
use dray_engine::entropy::Seeded;
use dray_testdisks::dataset::Dataset;

/// One machine at a time: each takes two processors and a GiB.
static ONE: Mutex<()> = Mutex::new(());

/// A directory that the machine sees as `/work`, with a dataset in it.
struct Lab {
    dir: PathBuf,
    disks: Vec<String>,
}

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

impl Lab {
    fn new(name: &str, fill: impl FnOnce(&mut Dataset)) -> Self {
        let dir = scratch(name);
        let mut data = Dataset::new(&dir.join("source"), 11).expect("a dataset");
        fill(&mut data);
        data.finish().expect("a dataset");
        let head = "BasePath,DstItemPathOrPrefix,ItemType,Disposition,MetadataFile,PropertiesFile";
        fs::write(dir.join("dataset.csv"), format!("{head}\n\"/work/source/\",data/,BlockBlob,rename,None,None\n"))
            .expect("a dataset");
        let list = "cd source && find . -type f -print0 | sort -z | xargs -0 sha256sum >../sums";
        let listed = Command::new("sh").args(["-c", list]).current_dir(&dir).status().expect("sh");
        assert!(listed.success(), "sha256sum");
        Self { dir, disks: Vec::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn lines(&self, name: &str) -> BTreeSet<String> {
        self.read(name).lines().map(str::to_owned).collect()
    }

    /// A disk of that many MiB on a bus; gives its image.
    fn disk(&mut self, bus: &str, mib: u64, options: &str) -> PathBuf {
        let image = self.path(&format!("disk{}.img", self.disks.len()));
        if !image.exists() {
            fs::File::create(&image).and_then(|file| file.set_len(mib << 20)).expect("an image");
        }
        self.disks.push(format!("{bus}:{},{options}", image.display()));
        image
    }

    /// Runs a script of `testdisks/lab` in the machine; the exit status, `None` where no machine can be had.
    fn run(&self, script: &str) -> Option<i32> {
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut command = Command::new(project().join("scripts/vm"));
        // A guard against hanging for ever, far beyond what a busy machine needs.
        command.args(["--limit", "1200"]).env("DRAY", env!("CARGO_BIN_EXE_dray"));
        command.arg("--share").arg(format!("work={}", self.dir.display()));
        command.arg("--share").arg(format!("scripts={}", project().join("testdisks/lab").display()));
        for disk in &self.disks {
            command.args(["--disk", disk]);
        }
        let output = command.args(["--", &format!("bash /scripts/{script}")]).output().expect("scripts/vm");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let status = output.status.code();
        if status == Some(125) {
            eprintln!("SKIPPED judge: virtual machine: {}", said.trim());
            return None;
        }
        assert!(!matches!(status, Some(124 | 126) | None), "the machine ended with {status:?}: {said}");
        status
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

const BUSES: [&str; 5] = ["ahci", "scsi", "512e", "usb", "nvme"];

#[test]
fn judge_the_kernel_opens_drives_of_every_bus() {
    let mut lab = Lab::new("lab-buses", |data| {
        data.small(150, 4).expect("files");
        data.large(14 << 20, 5 << 20).expect("files");
    });
    let first = lab.disk("ahci", 256, "");
    lab.disks.clear();
    // The first drive was finished before, with other files: the worst to cut the power on.
    let finished = Command::new(env!("CARGO_BIN_EXE_dray"))
        .args(["prep-import", "--id", "session#0", "--silent", "--journal"])
        .arg(lab.path("before.jrn"))
        .arg("--initial-driveset")
        .arg({
            let head = "DriveLetter,FormatOption,SilentOrPromptOnFormat,Encryption,ExistingBitLockerKey";
            let row = format!("{},Format,SilentMode,Encrypt,", first.display());
            fs::write(lab.path("before.csv"), format!("{head}\n{row}\n")).expect("a driveset");
            lab.path("before.csv")
        })
        .arg("--dataset")
        .arg({
            let head = "BasePath,DstItemPathOrPrefix,ItemType,Disposition,MetadataFile,PropertiesFile";
            let row = format!("\"{}/\",before/,BlockBlob,rename,None,None", lab.path("source").display());
            fs::write(lab.path("before-data.csv"), format!("{head}\n{row}\n")).expect("a dataset");
            lab.path("before-data.csv")
        })
        .output()
        .expect("the binary runs");
    assert!(finished.status.success(), "{}", common::said(&finished));
    let base = lab.path("base.img");
    fs::copy(&first, &base).expect("a copy");
    let log = lab.path("writes.log");
    let ahci = "serial=WD-AHCI00001,model=WDC_LAB,rotation=7200,physical=4096";
    lab.disk("ahci", 256, &format!("{ahci},log={}", log.display()));
    lab.disk("scsi", 256, "serial=SCSI4KN00001,logical=4096,physical=4096");
    lab.disk("scsi", 256, "serial=SCSI512E0001,logical=512,physical=4096");
    lab.disk("usb", 256, "serial=USB000000001");
    lab.disk("nvme", 256, "serial=NVME00000001");
    let Some(status) = lab.run("buses.sh") else { return };
    assert_eq!(status, 0);
    for name in BUSES {
        assert_eq!(lab.read(&format!("{name}.exit")).trim(), "0", "{name}: {}", lab.read(&format!("{name}.out")));
    }
    for name in BUSES {
        assert_eq!(lab.read(&format!("{name}.verdict")).trim(), "all files", "{name}");
    }
    for words in ["is attached by USB", "ship the bare drive", "does not tell its own serial"] {
        assert!(lab.read("usb.out").contains(words), "{}", lab.read("usb.out"));
    }
    assert!(lab.read("nvme.out").contains("the service does not take"), "{}", lab.read("nvme.out"));
    assert!(!lab.read("ahci.out").contains("not for shipping"), "{}", lab.read("ahci.out"));

    let devices = lab.read("devices.json");
    let of = |serial: &str| devices.lines().find(|line| line.contains(serial)).unwrap_or_default();
    for (serial, words) in [
        (
            "WD-AHCI00001",
            &["\"transport\":\"SATA\"", "\"verdict\":\"usable\"", "\"physical_sector\":4096", "\"passed\":true"][..],
        ),
        ("SCSI4KN00001", &["\"transport\":\"SCSI\"", "\"verdict\":\"not for shipping\"", "\"logical_sector\":4096"]),
        ("USB000000001", &["\"transport\":\"USB\"", "\"bridge_serial\":\"USB000000001\"", "\"negotiated\""]),
        ("NVME00000001", &["\"transport\":\"NVMe\"", "\"verdict\":\"not for shipping\""]),
    ] {
        for word in words {
            assert!(of(serial).contains(word), "{serial}: {word}: {devices}");
        }
    }
    replay(&base, &log);
}

/// One entry of a write log (dm-log-writes' format).
struct Entry {
    at: u64,
    bytes: Vec<u8>,
    flush: bool,
}

fn entries(log: &Path) -> Vec<Entry> {
    const SECTOR: u64 = 512;
    let file = fs::File::open(log).expect("a log");
    let len = file.metadata().expect("a log").len();
    let number = |at: u64| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at).expect("a number");
        u64::from_le_bytes(bytes)
    };
    assert_eq!((number(0), number(8)), (0x006A_7366_7773_6872, 1), "the log's magic and version");
    let count = number(16);
    let mut at = SECTOR;
    let mut entries = Vec::new();
    while (entries.len() as u64) < count && at < len {
        let (sector, sectors, flags) = (number(at), number(at + 8), number(at + 16));
        at += SECTOR;
        // Discards (4) and marks (8) have no data.
        let mut bytes = vec![0; if flags & 12 == 0 { (sectors * SECTOR) as usize } else { 0 }];
        file.read_exact_at(&mut bytes, at).expect("the data");
        at += bytes.len() as u64;
        assert!(
            flags & 2 == 0 || bytes.is_empty(),
            "a write with FUA: durable by itself, which nothing here counts on"
        );
        entries.push(Entry { at: sector * SECTOR, bytes, flush: flags & 1 != 0 });
    }
    entries
}

/// Cuts the power at every entry of the log: what was flushed is there, and of the rest a random part. No such disk may
/// look like a drive unless all that is missing lies in the partition tables.
fn replay(base: &Path, log: &Path) {
    let entries = entries(log);
    let flushes = entries.iter().filter(|entry| entry.flush).count();
    assert!(flushes >= 4, "only {flushes} flushes in {} entries", entries.len());
    let image = fs::File::options().read(true).write(true).open(base).expect("an image");
    let size = image.metadata().expect("an image").len();
    let looks_finished = || {
        let output = Command::new("blkid").args(["-p", "-o", "export"]).arg(base).output().expect("blkid");
        String::from_utf8_lossy(&output.stdout).contains("PTTYPE=gpt")
    };
    let in_tables = |entry: &Entry| {
        let end = entry.at + entry.bytes.len() as u64;
        end <= 34 * 512 || entry.at >= size - 33 * 512 || entry.bytes.is_empty()
    };
    let mut random = Seeded::new(6);
    let (mut cuts, mut finished) = (0, 0);
    let mut flushed = 0;
    for now in 0..entries.len() {
        if entries[now].flush {
            for entry in &entries[flushed..now] {
                image.write_all_at(&entry.bytes, entry.at).expect("written");
            }
            flushed = now;
        }
        if flushed == 0 {
            // Before the first flush nothing is promised but what was there.
            continue;
        }
        // A random part of what was not flushed lands; the rest is lost.
        let mut undo = Vec::new();
        let mut lost = Vec::new();
        for entry in &entries[flushed..=now] {
            if random.next_u64().is_multiple_of(2) {
                lost.push(entry);
                continue;
            }
            let mut old = vec![0; entry.bytes.len()];
            image.read_exact_at(&mut old, entry.at).expect("read");
            image.write_all_at(&entry.bytes, entry.at).expect("written");
            undo.push((entry.at, old));
        }
        cuts += 1;
        if looks_finished() {
            finished += 1;
            let missing = lost.into_iter().chain(&entries[now + 1..]).find(|entry| !in_tables(entry));
            let missing = missing.map(|entry| entry.at);
            assert_eq!(missing, None, "cut {now} of {}: looks finished without this byte", entries.len());
        }
        for (at, old) in undo.into_iter().rev() {
            image.write_all_at(&old, at).expect("restored");
        }
    }
    println!("{cuts} power cuts at {} writes and {flushes} flushes; {finished} after all was down", entries.len());
    assert!(cuts > 10);
}

#[test]
fn judge_gates_refuse_on_real_buses() {
    let mut lab = Lab::new("lab-gates", |data| data.small(20, 2).expect("files"));
    lab.disk("ahci", 256, "serial=WD-GATE00001,model=WDC_LAB");
    lab.disk("scsi", 256, "serial=GATE4KN00001,logical=4096,physical=4096");
    lab.disk("scsi", 256, "serial=TWIN00000001");
    lab.disk("scsi", 256, "serial=TWIN00000001");
    lab.disk("scsi", 20, "serial=SMALL0000001");
    lab.disk("usb", 256, "serial=CARDREADER01,removable=on");
    let Some(status) = lab.run("gates.sh") else { return };
    assert_eq!(status, 0);
    assert_eq!(lab.read("bad"), "");
    assert_eq!(lab.lines("good").len(), 22, "{:?}", lab.lines("good"));
}
