//! Drives that are large in some respect: many real files, many names in a directory, terabytes of volume. Tests that
//! take minutes are ignored here and run by `scripts/judge-large`.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Session, said, scratch};
use dray_testdisks::crates::crates;
use dray_testdisks::dataset::Dataset;
use dray_testdisks::judge::Drive;

/// Runs all judges on `drive.img` and removes it; returns the volume's cluster size, `None` where nothing could decrypt
/// it.
fn judge(session: &Session, without: &[&str]) -> Option<u64> {
    let (image, record) = (session.path("drive.img"), session.path("drive.xml"));
    let (dataset, plain) = (session.path("dataset.csv"), session.path("plain.img"));
    let drive =
        Drive { image: &image, record: &record, dataset: Some(&dataset), partial: false, plain: Some(&plain), without };
    drive.judge().expect_pass("scripts/judge-drive");
    crates(&image, &record, None).expect_pass("bitlocker-core and ntfs");
    fs::remove_file(&image).expect("removed");
    let volume = File::open(&plain).ok()?;
    crates(&image, &record, Some(&plain)).expect_pass("ntfs");
    fs::remove_file(plain).expect("removed");
    let mut boot = [0; 14];
    volume.read_exact_at(&mut boot, 0).expect("a boot sector");
    let sectors = if boot[13] <= 128 { u64::from(boot[13]) } else { 1 << (256 - u64::from(boot[13])) };
    Some(u64::from(u16::from_le_bytes([boot[11], boot[12]])) * sectors)
}

fn one_drive(name: &str, size: &str, fill: impl FnOnce(&mut Dataset)) -> Session {
    let session = Session::new(name);
    let source = session.path("source");
    let mut data = Dataset::new(&source, 13).expect("a dataset");
    fill(&mut data);
    data.finish().expect("a dataset");
    session.dataset(&[&format!("\"{}/\",data/,BlockBlob,rename,None,None", source.display())]);
    session.driveset(&[format!("{}:{size}", session.path("drive.img").display())]);
    session
}

/// The machine's own files below `dirs`, copied so that they cannot change meanwhile.
fn real_files(name: &str, size: &str, dirs: &[&str]) -> Session {
    let session = Session::new(name);
    let mut rows = Vec::new();
    for (i, dir) in dirs.iter().filter(|dir| Path::new(dir).is_dir()).enumerate() {
        let copy = session.path(&format!("source-{i}"));
        // Files that an ordinary user may not read are left out.
        let _ = Command::new("cp").args(["-a", "--", dir]).arg(&copy).output();
        let prefix = dir[1..].replace('/', "-");
        rows.push(format!("\"{}/\",real/{prefix}/,BlockBlob,rename,None,None", copy.display()));
    }
    session.dataset(&rows.iter().map(String::as_str).collect::<Vec<_>>());
    session.driveset(&[format!("{}:{size}", session.path("drive.img").display())]);
    session
}

fn remove_sources(session: &Session) {
    for entry in fs::read_dir(&session.dir).expect("a directory").filter_map(Result::ok) {
        if entry.file_name().to_string_lossy().starts_with("source") {
            fs::remove_dir_all(entry.path()).expect("removed");
        }
    }
}

#[test]
fn judge_thousands_of_real_files() {
    // The judges take their time for each file: the many of /usr/share/man are left to `judge_all_of_usr`.
    let dirs = ["/usr/include", "/usr/share/doc", "/usr/share/perl", "/usr/share/zoneinfo"];
    let session = real_files("real", "1GB", &dirs);
    session.prepare(&[]);
    judge(&session, &[]);
    remove_sources(&session);
}

#[test]
fn judge_a_directory_of_many_names() {
    let session = one_drive("flat", "200MB", |data| data.flat(20_000).expect("files"));
    session.prepare(&[]);
    // Sleuth Kit's time grows with the square of the names.
    judge(&session, &["fls"]);
    remove_sources(&session);
}

#[test]
#[ignore = "minutes; scripts/judge-large"]
fn judge_a_directory_of_200_000_names() {
    let session = one_drive("flat-200000", "1GB", |data| data.flat(200_000).expect("files"));
    session.prepare(&[]);
    judge(&session, &["fls"]);
    remove_sources(&session);
}

#[test]
#[ignore = "minutes; scripts/judge-large"]
fn judge_all_of_usr() {
    let session = real_files("usr", "8GB", &["/usr/include", "/usr/lib", "/usr/share", "/usr/bin", "/usr/sbin"]);
    session.prepare(&[]);
    judge(&session, &[]);
    remove_sources(&session);
}

#[test]
#[ignore = "minutes; scripts/judge-large"]
fn judge_files_of_several_gib() {
    const GIB: u64 = 1 << 30;
    let session = one_drive("gib", "9GB", |data| {
        for (name, len) in [("a", 3 * GIB + 1), ("b", 5 * GIB - 4096)] {
            let islands = [0, len / 3, (4 * GIB).min(len) - 5000, len - 4096];
            data.sparse(format!("{name}.bin"), len, &islands, 4096).expect("a file");
        }
        for len in [0, 1, 700, 4095, 4096, (4 << 20) - 1, 4 << 20, (4 << 20) + 1] {
            data.file(format!("{len}"), len).expect("a file");
        }
    });
    session.prepare(&[]);
    judge(&session, &[]);
    remove_sources(&session);
}

/// A directory for files longer than `len`, with some gigabytes of real data: tmpfs, if there is no other.
struct Roomy {
    dir: PathBuf,
    mounted: bool,
}

impl Roomy {
    fn find(name: &str, len: u64) -> Option<Self> {
        let fits = |dir: &Path| {
            let probe = dir.join("probe");
            let long = File::create(&probe).and_then(|file| file.set_len(len)).is_ok();
            let _ = fs::remove_file(probe);
            let free = Command::new("df").args(["--output=avail", "-B1"]).arg(dir).output();
            let free = free.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
            long && free.lines().nth(1).and_then(|line| line.trim().parse().ok()).is_some_and(|n: u64| n > 3 << 30)
        };
        let own = scratch(name);
        if fits(&own) {
            return Some(Self { dir: own, mounted: false });
        }
        let shared = PathBuf::from(format!("/dev/shm/dray-{name}-{}", std::process::id()));
        if fs::create_dir_all(&shared).is_ok() && fits(&shared) {
            return Some(Self { dir: shared, mounted: false });
        }
        let _ = fs::remove_dir_all(&shared);
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4G", "tmpfs"]).arg(&own).output();
        if mount.is_ok_and(|output| output.status.success()) {
            let roomy = Self { dir: own, mounted: true };
            if fits(&roomy.dir) {
                return Some(roomy);
            }
        }
        eprintln!("SKIPPED judge: no file system here takes a file of {len} bytes");
        None
    }
}

impl Drop for Roomy {
    fn drop(&mut self) {
        if self.mounted {
            let _ = Command::new("umount").arg(&self.dir).output();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Prepares a sparse drive of `len` bytes and runs the judges; `cluster` is Windows' default.
fn judge_volume(len: u64, cluster: u64, more: &[&str]) {
    let Some(roomy) = Roomy::find(&format!("volume-{len}"), len) else { return };
    let session = Session::within(&roomy.dir);
    let source = session.path("source");
    let mut data = Dataset::new(&source, 17).expect("a dataset");
    for len in [0, 1, 700, 4095, 4096, (4 << 20) + 1] {
        data.file(format!("{len}"), len).expect("a file");
    }
    data.finish().expect("a dataset");
    session.dataset(&[&format!("\"{}/\",data/,BlockBlob,rename,None,None", source.display())]);
    File::create(session.path("drive.img")).and_then(|file| file.set_len(len)).expect("a sparse image");
    session.driveset(&[session.path("drive.img").display().to_string()]);
    session.prepare(more);
    if let Some(found) = judge(&session, &[]) {
        assert_eq!(found, cluster);
    }
}

const TIB: u64 = 1 << 40;

#[test]
fn judge_volumes_around_2_tib() {
    judge_volume(2 * TIB, 4096, &["--table", "mbr"]);
    judge_volume(2 * TIB + 512, 4096, &[]);
    // One sector more than an MBR can describe.
    let session = Session::new("mbr-too-large");
    fs::create_dir_all(session.path("source")).expect("a source");
    fs::write(session.path("source/one"), "1").expect("a file");
    session.dataset(&[&format!("\"{}/\",data/,BlockBlob,rename,None,None", session.path("source").display())]);
    session.driveset(&[format!("{}:{}", session.path("drive.img").display(), 2 * TIB + 512)]);
    let refused = session.run(&["--table", "mbr", "--dry-run"]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(said(&refused).contains("leave --table out, or say gpt"), "{}", said(&refused));
    // And clusters too small to number.
    session.driveset(&[format!("{}:{}", session.path("drive.img").display(), 4 * TIB)]);
    let refused = session.run(&["--cluster-size", "512", "--dry-run"]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(said(&refused).contains("leave --cluster-size out"), "{}", said(&refused));
}

#[test]
fn judge_a_volume_of_24_tb_with_4096_byte_sectors() {
    judge_volume(24_000_000_000_000, 8192, &["--sector-size", "4096"]);
}

#[test]
#[ignore = "minutes; scripts/judge-large"]
fn judge_volumes_around_16_tib_and_beyond() {
    // The last with clusters of 4 KiB, the first without, one that needs 16 KiB; both sector sizes.
    judge_volume(16 * TIB, 4096, &[]);
    judge_volume(16 * TIB + (64 << 20), 8192, &["--cipher", "xts-aes-256"]);
    judge_volume(18_000_000_000_000, 8192, &["--sector-size", "4096"]);
    judge_volume(24_000_000_000_000, 8192, &["--cipher", "xts-aes-128"]);
    judge_volume(40 * TIB, 16384, &["--sector-size", "4096"]);
    judge_volume(2 * TIB - 512, 4096, &["--table", "mbr"]);
    judge_volume(5_000_000_000_000, 4096, &[]);
}
