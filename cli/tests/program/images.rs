//! Drives as a whole. What is left on a drive is judged by grep, cmp, cryptsetup and libbde.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use dray_testdisks::judge;
use serde_json::Value;

use crate::common::{Session, code, dray_in, said, words};

pub(super) const MIB: u64 = 1 << 20;

/// A prepared drive of 100 MiB with some files on it.
pub(super) fn prepared(name: &str) -> Session {
    let session = Session::new(name);
    session.source(|data| {
        data.file("a.bin", 9 << 20).expect("a file");
        data.file("sub/b.bin", 300_000).expect("a file");
        data.file("sub/c.bin", 4 << 20).expect("a file");
    });
    session.driveset(&[format!("{}:100MiB", session.path("drive.img").display())]);
    session.prepare(&[]);
    session
}

pub(super) fn run(session: &Session, line: &str) -> Output {
    dray_in(&session.dir, &line.split_whitespace().collect::<Vec<_>>())
}

/// Wants a command's end, and gives what it said.
pub(super) fn ends(session: &Session, line: &str, wanted: i32) -> String {
    let output = run(session, line);
    assert_eq!(code(&output), wanted, "{line}: {}", said(&output));
    words(&output)
}

/// The last object of a type in what a command printed.
pub(super) fn object(output: &Output, kind: &str) -> Value {
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut objects = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    objects.rfind(|value| value["type"] == kind).unwrap_or_else(|| panic!("no {kind}: {}", said(output)))
}

/// Number of lines of a file that hold the text, by grep.
fn grep(text: &str, path: &Path) -> u64 {
    let output = Command::new("grep").args(["-a", "-o", "-F", "--", text]).arg(path).output().expect("grep");
    assert!(output.status.code().is_some_and(|code| code < 2), "{}", said(&output));
    output.stdout.iter().filter(|byte| **byte == b'\n').count() as u64
}

fn sum(path: &Path) -> Vec<u8> {
    let output = Command::new("sha256sum").arg(path).output().expect("sha256sum");
    assert!(output.status.success());
    output.stdout[..64].to_vec()
}

fn copy(session: &Session, name: &str) -> PathBuf {
    let to = session.path(name);
    fs::copy(session.path("drive.img"), &to).expect("a copy");
    to
}

/// The recovery password in the drive record.
fn key(session: &Session) -> String {
    let record = fs::read_to_string(session.path("drive.xml")).expect("the record");
    let start = record.find("<BitLockerKey>").expect("a key") + "<BitLockerKey>".len();
    record[start..start + 55].to_owned()
}

#[test]
fn after_the_keys_are_erased_no_reader_finds_a_volume() {
    let session = prepared("erase-keys");
    let image = session.path("drive.img");
    let (size, before) = (100 * MIB, sum(&image));
    // Metadata of an earlier life that no table leads to: once on a sector, once anywhere.
    let whole = fs::read(&image).expect("the image");
    let region = whole.windows(8).enumerate().filter(|(_, part)| part == b"-FVE-FS-").map(|(at, _)| at).nth(1);
    let region = &whole[region.expect("a region")..][..65536];
    let file = OpenOptions::new().write(true).open(&image).expect("the image");
    file.write_all_at(region, 70 * MIB + 512).expect("bytes");
    file.write_all_at(region, 4 * MIB * 20 - 3).expect("bytes");
    drop(file);
    let kept = sum(&image);
    assert_ne!(kept, before);
    assert!(grep("-FVE-FS-", &image) >= 6);
    let key = key(&session);
    judge::ask("cryptsetup", &[image.as_os_str(), key.as_ref()]).expect_pass("cryptsetup");
    judge::ask("libbde", &[image.as_os_str(), key.as_ref()]).expect_pass("libbde");

    // The gates: consent, the journal.
    let erase = "erase drive.img --keys --journal journal.jrn";
    let refused = ends(&session, &format!("{erase} --yes drive"), 2);
    assert!(refused.contains("no copy log confirms") && refused.contains("--even-unconfirmed"), "{refused}");
    assert!(ends(&session, &format!("{erase} --even-unconfirmed"), 2).contains("consent"));
    assert!(ends(&session, "erase drive.img --yes drive", 1).contains("no method"));
    let log = |status: &str, blob: &str| {
        let text = format!(
            "<DriveLog Version=\"2018-10-01\"><DriveId>drive</DriveId><Blob Status=\"{blob}\"><BlobPath>data/a.bin\
             </BlobPath><FilePath>\\x</FilePath></Blob><Status>{status}</Status></DriveLog>"
        );
        fs::write(session.path("log.xml"), text).expect("a log");
    };
    for (status, blob) in [("CompletedWithErrors", "Completed"), ("Completed", "CompletedWithErrors")] {
        log(status, blob);
        ends(&session, &format!("{erase} --copy-log log.xml --yes drive"), 2);
    }
    assert_eq!(sum(&image), kept, "a gate wrote something");

    log("Completed", "Completed");
    let done = ends(&session, &format!("{erase} --copy-log log.xml --yes drive --report c.html --report c.json"), 0);
    assert!(done.contains("Cryptographic erase") && done.contains("HPA"), "{done}");
    assert_eq!(fs::metadata(&image).expect("the image").len(), size);
    for mark in ["-FVE-FS-", "FVE-EOW", "EFI PART"] {
        assert_eq!(grep(mark, &image), 0, "{mark}");
    }
    judge::ask("cryptsetup", &[image.as_os_str(), key.as_ref()]).expect_fail("cryptsetup");
    judge::ask("libbde", &[image.as_os_str(), key.as_ref()]).expect_fail("libbde");
    ends(&session, "unlock drive.img --key-file drive.xml", 4);
    // Put back where they were, the tables lead to nothing that opens.
    let file = OpenOptions::new().write(true).open(&image).expect("the image");
    file.write_all_at(&whole[..(17 * MIB) as usize + 8192], 0).expect("bytes");
    judge::ask("libbde", &[image.as_os_str(), key.as_ref()]).expect_fail("libbde");
    judge::ask("cryptsetup", &[image.as_os_str(), key.as_ref()]).expect_fail("cryptsetup");

    let object: Value = serde_json::from_slice(&fs::read(session.path("c.json")).expect("a file")).expect("an object");
    let drive = &object["drives"][0];
    assert_eq!(drive["level"], "cryptographic-erase");
    assert_eq!(drive["confirmed"], true);
    assert_eq!(drive["searched"], size);
    assert_eq!(drive["volumes"][1]["bitlocker"]["encrypted"], true, "{drive}");
    let kinds = |kind: &str| drive["places"].as_array().expect("places").iter().filter(|p| p["what"] == kind).count();
    assert_eq!((kinds("metadata"), kinds("boot-sectors")), (3, 1), "{drive}");
    assert!(kinds("found") >= 2 && kinds("ends") >= 4, "{drive}");
    let page = fs::read_to_string(session.path("c.html")).expect("a page");
    for shown in ["Certificate of erasure", "NIST SP 800-88", "HPA", "numerical password", "Signatures"] {
        assert!(page.to_lowercase().contains(&shown.to_lowercase()), "{shown}");
    }
}

#[test]
fn what_is_overwritten_or_discarded_is_zero_to_the_end() {
    let session = prepared("erase-all");
    for method in ["--overwrite", "--discard", "--keys --discard --overwrite"] {
        let image = copy(&session, "copy.img");
        let output = run(&session, &format!("erase copy.img {method} --yes copy --json"));
        assert_eq!(code(&output), 0, "{}", said(&output));
        let zeros = Command::new("cmp").args(["-n", &(100 * MIB).to_string()]).arg(&image).arg("/dev/zero").output();
        assert!(zeros.expect("cmp").status.success());
        let drive = object(&output, "erased")["drives"][0].clone();
        let level = if method == "--discard" { "discarded" } else { "clear" };
        assert_eq!((&drive["level"], &drive["read_back"]), (&level.into(), &(100 * MIB).into()), "{drive}");
        assert_eq!(drive["after"], Value::Null);
    }
    // Keys of nothing: what is plain would stay readable.
    let plain = session.path("plain.img");
    fs::File::create(&plain).and_then(|file| file.set_len(64 * MIB)).expect("an image");
    assert!(ends(&session, "erase plain.img --keys --silent", 2).contains("no BitLocker volume"));
    let made = Command::new("mkntfs").args(["-F", "-Q", "-q"]).arg(&plain).output();
    if made.is_ok_and(|made| made.status.success()) {
        assert!(ends(&session, "erase plain.img --keys --yes plain", 2).contains("not encrypted"));
    } else {
        eprintln!("SKIPPED judge: no mkntfs");
    }
    // The same drive twice; a certificate that would lie on the drive.
    fs::hard_link(&plain, session.path("same.img")).expect("a link");
    assert!(ends(&session, "erase plain.img same.img --overwrite --yes plain", 2).contains("same drive"));
    assert!(ends(&session, "erase plain.img --overwrite --yes plain --report plain.txt", 1).contains(".html"));
}

/// A drive with places that cannot be read: a loop device over a file system of its own, straight on /dev/fuse.
struct Faulty {
    directory: PathBuf,
    server: Child,
    disk: Option<Loop>,
}

impl Faulty {
    /// `None` where mounting is not allowed.
    fn new(session: &Session, image: &Path, bad: &[(u64, u64)]) -> Option<Self> {
        let directory = session.path("faulty");
        fs::create_dir_all(&directory).expect("a directory");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdisks/faulty.py");
        let mut command = Command::new("python3");
        command.arg(script).arg(image).arg(&directory).args(bad.iter().map(|(at, len)| format!("{at}:{len}")));
        let mut server = command.stdout(Stdio::piped()).spawn().expect("python3 runs");
        let mut line = String::new();
        BufReader::new(server.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        if line.trim() == "ready" {
            let disk = Loop::new(&directory.join("drive"), &["-r"]);
            let faulty = Self { directory, server, disk };
            return faulty.disk.is_some().then_some(faulty);
        }
        let _ = server.wait();
        eprintln!("SKIPPED judge: a file system with bad places cannot be mounted here");
        None
    }

    fn drive(&self) -> PathBuf {
        self.disk.as_ref().expect("attached").0.clone()
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.disk = None;
        let _ = Command::new("umount").arg(&self.directory).status();
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn tool(name: &str) -> bool {
    let is_found = Command::new(name).arg("--version").output().is_ok();
    if !is_found {
        eprintln!("SKIPPED judge: no {name}");
    }
    is_found
}

/// The first line of the hashes, and the others.
fn hashes(path: &Path) -> (Value, Vec<Value>) {
    let text = fs::read_to_string(path).expect("the hashes");
    let mut lines = text.lines().map(|line| serde_json::from_str(line).expect("an object"));
    (lines.next().expect("the whole"), lines.collect())
}

fn by_tool(tool: &str, path: &Path) -> String {
    let output = Command::new(tool).arg(path).output().expect("a tool of coreutils");
    String::from_utf8_lossy(&output.stdout).split_whitespace().next().unwrap_or_default().to_owned()
}

#[test]
fn an_image_is_the_drive_and_its_hashes_are_those_of_other_tools() {
    let session = prepared("acquire");
    ends(&session, "acquire drive.img --to kept.img", 0);
    let kept = session.path("kept.img");
    assert!(Command::new("cmp").arg(session.path("drive.img")).arg(&kept).status().expect("cmp").success());
    assert!(fs::metadata(&kept).expect("the image").blocks() * 512 < 60 * MIB, "the image is not sparse");
    let (whole, pieces) = hashes(&session.path("kept.img.hashes"));
    assert_eq!(whole["sha256"], by_tool("sha256sum", &kept));
    assert_eq!(whole["md5"], by_tool("md5sum", &kept));
    assert_eq!(pieces.len(), 25);
    for piece in [&pieces[0], &pieces[5], &pieces[24]] {
        let part = session.path("part");
        let (at, len) = (piece["offset"].as_u64().expect("a number"), piece["bytes"].as_u64().expect("a number"));
        let bytes = fs::read(&kept).expect("the image")[at as usize..(at + len) as usize].to_vec();
        fs::write(&part, bytes).expect("a piece");
        assert_eq!(piece["sha256"], by_tool("sha256sum", &part));
        assert_eq!(piece["md5"], by_tool("md5sum", &part));
    }
    assert!(ends(&session, "verify kept.img --key-file drive.xml", 0).contains("Equal"));
    // Nothing is overwritten.
    assert!(ends(&session, "acquire drive.img --to drive.img", 2).contains("nothing is overwritten"));
    fs::remove_file(session.path("kept.img.map")).expect("the map");
    assert!(ends(&session, "acquire drive.img --to kept.img", 2).contains("nothing is overwritten"));
    // What is not in use stays out, and the drive verifies all the same.
    let output = run(&session, "acquire drive.img --to used.img --only-used --key-file drive.xml --no-md5 --json");
    assert_eq!(code(&output), 0, "{}", said(&output));
    let result = object(&output, "acquired");
    assert!(
        result["read"].as_u64().expect("bytes") < 60 * MIB && result["left_out"].as_u64() > Some(40 * MIB),
        "{result}"
    );
    assert_eq!(result["sha256"], by_tool("sha256sum", &session.path("used.img")));
    assert!(ends(&session, "verify used.img --key-file drive.xml", 0).contains("Equal"));
}

#[test]
fn bad_places_are_mapped_and_ddrescue_goes_on_and_the_other_way_round() {
    let session = prepared("acquire-bad");
    let image = session.path("drive.img");
    let bad = [(20 * MIB + 512, 512), (50 * MIB - 512, 1024), (100 * MIB - 512, 512)];
    let is_bad = |at: u64| bad.iter().any(|(from, len)| (*from..from + len).contains(&at));
    let kept = session.path("kept.img");
    let whole = fs::read(&image).expect("the image");
    {
        let Some(faulty) = Faulty::new(&session, &image, &bad) else { return };
        let line = format!("acquire {} --to kept.img --json", faulty.drive().display());
        let output = run(&session, &line);
        assert_eq!(code(&output), 4, "{}", said(&output));
        let result = object(&output, "acquired");
        let wanted: Vec<Value> = bad.iter().map(|(at, len)| serde_json::json!([at, len])).collect();
        assert_eq!(result["unreadable"], Value::Array(wanted), "{result}");
        assert_eq!(result["sha256"], by_tool("sha256sum", &kept));
        for (at, (one, other)) in whole.iter().zip(&fs::read(&kept).expect("the image")).enumerate() {
            assert!(*other == if is_bad(at as u64) { 0 } else { *one }, "byte {at}");
        }
        if tool("ddrescue") {
            // ddrescue finds nothing else to do than the bad sectors, and they stay bad.
            let map = session.path("kept.img.map");
            let again =
                Command::new("ddrescue").args(["-d", "-q", "-r1"]).arg(faulty.drive()).args([&kept, &map]).status();
            assert!(again.expect("ddrescue").success());
            let text = fs::read_to_string(&map).expect("the map");
            assert!(text.contains("ddrescue version"), "{text}");
            assert_eq!(text.lines().filter(|line| line.ends_with("  -")).count(), 3, "{text}");
            // A map that it began: the middle of the drive alone.
            let args = ["-d", "-q", "-i", "30Mi", "-s", "30Mi"];
            let (theirs, map) = (session.path("theirs.img"), session.path("theirs.map"));
            let begun = Command::new("ddrescue").args(args).arg(faulty.drive()).args([&theirs, &map]).status();
            assert!(begun.expect("ddrescue").success());
            OpenOptions::new().write(true).open(&theirs).and_then(|file| file.set_len(100 * MIB)).expect("a length");
            let line = format!("acquire {} --to theirs.img --map theirs.map --json", faulty.drive().display());
            let output = run(&session, &line);
            assert_eq!(code(&output), 4, "{}", said(&output));
            let result = object(&output, "acquired");
            assert!(result["continued"] == true && result["read"].as_u64().expect("bytes") < 75 * MIB, "{result}");
            assert!(Command::new("cmp").arg(&kept).arg(&theirs).status().expect("cmp").success());
        }
    }
    // A drive that reads better elsewhere: what is missing is fetched, and nothing else.
    let output = run(&session, "acquire drive.img --to kept.img --json");
    assert_eq!(code(&output), 0, "{}", said(&output));
    let result = object(&output, "acquired");
    assert!(result["read"].as_u64().expect("bytes") <= 8 * 4096, "{result}");
    assert!(Command::new("cmp").arg(&image).arg(&kept).status().expect("cmp").success());
    assert_eq!(result["sha256"], by_tool("sha256sum", &image));
}

#[test]
fn a_run_that_was_killed_goes_on() {
    let session = prepared("acquire-killed");
    let killed = |lines: &[&str], after: u64| {
        let mut children: Vec<_> =
            lines.iter().map(|line| session.program(line).spawn().expect("the binary runs")).collect();
        std::thread::sleep(Duration::from_secs(after));
        for child in &mut children {
            child.kill().expect("killed");
            child.wait().expect("ended");
        }
    };
    let (to, copy) = (session.path("to.img"), session.path("copy.img"));
    for (image, len) in [(&to, 110 * MIB), (&copy, 100 * MIB)] {
        fs::File::create(image).and_then(|file| file.set_len(len)).expect("an image");
    }
    // The image is flushed every 5 s, and the map written every 10. All wait at the same time.
    let acquire = "acquire drive.img --to kept.img --rate 4M";
    killed(&[acquire], 0);
    let clone = "clone drive.img copy.img --rate 4M --checkpoints .";
    killed(&[acquire, "write drive.img to.img --rate 4M", clone], 22);
    let output = run(&session, "acquire drive.img --to kept.img --json");
    assert_eq!(code(&output), 0, "{}", said(&output));
    let result = object(&output, "acquired");
    assert!(result["continued"] == true && result["read"].as_u64().expect("bytes") < 90 * MIB, "{result}");
    assert!(
        Command::new("cmp")
            .arg(session.path("drive.img"))
            .arg(session.path("kept.img"))
            .status()
            .expect("cmp")
            .success()
    );

    // It holds no volume, and says how far it is.
    ends(&session, "unlock to.img --key-file drive.xml", 4);
    assert_eq!(fs::read(&to).expect("the image")[..4096], [0; 4096]);
    let output = run(&session, "write drive.img to.img --yes to --json");
    assert_eq!(code(&output), 0, "{}", said(&output));
    let result = object(&output, "written")["drives"][0].clone();
    let from = result["continued_at"].as_u64().expect("a byte");
    assert!(from >= 16 * MIB && result["written"].as_u64().expect("bytes") <= 100 * MIB - from + 8 * MIB, "{result}");
    assert!(ends(&session, "verify to.img --key-file drive.xml", 0).contains("Equal"));
    assert!(!session.path("drive.img.to.write").exists(), "a checkpoint is left");

    // A clone keeps one where it is told to.
    let output = run(&session, "clone drive.img copy.img --yes copy --checkpoints . --json");
    assert_eq!(code(&output), 0, "{}", said(&output));
    let from = object(&output, "written")["drives"][0]["continued_at"].as_u64().expect("a byte");
    assert!(from >= 16 * MIB, "{}", said(&output));
    assert!(ends(&session, "compare drive.img copy.img", 0).contains("no difference"));
    assert!(!session.path("drive.img.copy.write").exists(), "a checkpoint is left");
}

/// Docks hide and add sectors: the first copy of the table counts, wherever the disk ends.
#[test]
fn a_table_of_a_disk_with_other_sectors_serves() {
    let session = Session::new("other-sectors");
    session.source(|data| data.file("a.bin", 3_000_000).expect("a file"));
    session.works("format plain.img:100MiB --no-encryption --from source --silent");
    for (name, size) in [("longer", 100 * MIB + 8 * 512), ("shorter", 100 * MIB - 195 * 512)] {
        let file = session.path(&format!("{name}.img"));
        fs::copy(session.path("plain.img"), &file).expect("a copy");
        OpenOptions::new().write(true).open(&file).and_then(|file| file.set_len(size)).expect("a length");
        assert!(session.works(&format!("inspect {name}.img")).contains("was made for a disk of 104857600 bytes"));
        assert!(session.works(&format!("ls {name}.img --partition 2")).contains("a.bin"));
        fs::write(
            session.path("driveset.csv"),
            format!(
                "DriveLetter,FormatOption,SilentOrPromptOnFormat,Encryption,ExistingBitLockerKey\n\
                 {},AlreadyFormatted,SilentMode,Encrypt,\n",
                file.display()
            ),
        )
        .expect("a driveset");
        session.works(&format!(
            "prep-import --journal {name}.jrn --id s#1 --initial-driveset driveset.csv --dataset dataset.csv \
             --not-for-shipping --silent --yes {name}"
        ));
        assert_eq!(fs::metadata(&file).expect("the image").len(), size);
        // Without its second copy the table is no reason to send the drive, but everything is read.
        let output = run(&session, &format!("verify {name}.img --partition 2 --key-file {name}.xml --json"));
        let result = object(&output, "verified");
        assert_eq!((&result["verdict"]["asked"], &result["verdict"]["equal"]), (&1.into(), &1.into()), "{result}");
        assert_eq!(code(&output), if name == "longer" { 0 } else { 5 }, "{}", said(&output));
        ends(&session, &format!("decrypt {name}.img --key-file {name}.xml --to {name}.plain"), 0);
        judge::ask("ntfsfix", &[&session.path(&format!("{name}.plain"))]).expect_pass("ntfsfix");
    }
}

/// The footer of a fixed VHD, as its specification has it.
fn vhd_footer(disk: u64) -> [u8; 512] {
    let mut footer = [0; 512];
    footer[..8].copy_from_slice(b"conectix");
    footer[8..16].copy_from_slice(&[0, 0, 0, 2, 0, 1, 0, 0]);
    footer[16..24].fill(0xFF);
    footer[28..32].copy_from_slice(b"test");
    footer[40..48].copy_from_slice(&disk.to_be_bytes());
    footer[48..56].copy_from_slice(&disk.to_be_bytes());
    footer[60..64].copy_from_slice(&2_u32.to_be_bytes());
    let sum: u32 = footer.iter().map(|byte| u32::from(*byte)).sum();
    footer[64..68].copy_from_slice(&(!sum).to_be_bytes());
    footer
}

#[test]
fn a_fixed_vhd_is_its_disk_and_what_is_packed_says_how_to_unpack_it() {
    let session = prepared("vhd");
    let vhd = copy(&session, "drive.vhd");
    let file = OpenOptions::new().write(true).open(&vhd).expect("an image");
    file.write_all_at(&vhd_footer(100 * MIB), 100 * MIB).expect("a footer");
    assert!(ends(&session, "verify drive.vhd --key-file drive.xml", 0).contains("Equal"));
    let output = run(&session, "inspect drive.vhd --json");
    assert_eq!(code(&output), 0, "{}", said(&output));
    let seen = object(&output, "inspect");
    assert_eq!((&seen["table"]["backup"], &seen["warnings"]), (&"good".into(), &serde_json::json!([])), "{seen}");
    let to = session.path("to.img");
    fs::File::create(&to).and_then(|file| file.set_len(100 * MIB)).expect("an image");
    ends(&session, "write drive.vhd to.img", 0);
    assert_eq!(sum(&to), sum(&session.path("drive.img")));

    let packed = fs::File::create(session.path("packed.img.gz")).expect("a file");
    let gzip = Command::new("gzip").args(["-1", "-c"]).arg(session.path("drive.img")).stdout(packed).status();
    assert!(gzip.expect("gzip").success());
    for line in ["inspect packed.img.gz", "ls packed.img.gz", "verify packed.img.gz", "acquire packed.img.gz --to k"] {
        let refused = ends(&session, line, 1);
        assert!(refused.contains("gzip -dc 'packed.img.gz' > 'packed.img'"), "{line}: {refused}");
    }
    let mut unpack = Command::new("sh");
    let unpacked = unpack.args(["-c", "gzip -dc 'packed.img.gz' > 'packed.img'"]).current_dir(&session.dir).status();
    assert!(unpacked.expect("sh").success());
    assert!(ends(&session, "verify packed.img --key-file drive.xml", 0).contains("Equal"));
    // In order it is read as it is: onto a disk of another size, too.
    let larger = session.path("larger.img");
    fs::File::create(&larger).and_then(|file| file.set_len(120 * MIB)).expect("an image");
    let output = run(&session, "write packed.img.gz to.img larger.img --yes to --json");
    assert_eq!(code(&output), 0, "{}", said(&output));
    let result = object(&output, "written");
    assert_eq!(result["source_sha256"], by_tool("sha256sum", &session.path("drive.img")), "{result}");
    assert_eq!(sum(&to), sum(&session.path("drive.img")));
    judge::ask("sgdisk", &[&larger]).expect_pass("sgdisk");
    assert!(ends(&session, "verify larger.img --key-file drive.xml", 0).contains("Equal"));
    ends(&session, "write packed.img.gz to.img --only-used --key-file drive.xml --yes to", 1);
    let zstd =
        Command::new("zstd").args(["-q", "-1", "-o", "packed.zst", "drive.img"]).current_dir(&session.dir).status();
    if zstd.is_ok_and(|status| status.success()) {
        ends(&session, "write packed.zst larger.img --yes larger", 0);
        assert!(ends(&session, "verify larger.img --key-file drive.xml", 0).contains("Equal"));
    } else {
        eprintln!("SKIPPED judge: zstd is not installed");
    }
    let cut = fs::read(session.path("packed.img.gz")).expect("packed");
    fs::write(session.path("cut.img.gz"), &cut[..cut.len() - 5]).expect("cut off");
    let refused = ends(&session, "write cut.img.gz to.img --yes to", 7);
    assert!(refused.contains("cannot be unpacked"), "{refused}");
    assert_eq!(sum(&to), sum(&session.path("drive.img")), "nothing was written");
    fs::write(session.path("disk.vhdx"), b"vhdxfile and more").expect("a file");
    let refused = ends(&session, "inspect disk.vhdx", 1);
    assert!(refused.contains("qemu-img convert -O raw 'disk.vhdx' 'disk.img'"), "{refused}");
}

#[test]
fn another_drive_of_the_same_size_does_not_continue_an_image() {
    let session = prepared("acquire-other");
    ends(&session, "acquire drive.img --to kept.img", 0);
    ends(&session, "acquire drive.img --to kept.img", 0);
    let other = copy(&session, "other.img");
    let file = OpenOptions::new().write(true).open(&other).expect("an image");
    file.write_all_at(b"another", 4096).expect("bytes");
    let refused = ends(&session, "acquire other.img --to kept.img", 2);
    assert!(refused.contains("is not the drive that the map is of: it begins with other bytes"), "{refused}");
    assert_eq!(sum(&session.path("kept.img")), sum(&session.path("drive.img")));
    // A map that another program began says nothing of the drive.
    fs::remove_file(session.path("kept.img.map.drive")).expect("the identity");
    ends(&session, "acquire other.img --to kept.img", 0);
    assert!(session.path("kept.img.map.drive").exists());
}

/// A loop device over a file, detached again.
struct Loop(PathBuf);

impl Loop {
    fn new(file: &Path, args: &[&str]) -> Option<Self> {
        let output = Command::new("losetup").args(["-f", "--show"]).args(args).arg(file).output();
        match output {
            Ok(output) if output.status.success() => Some(Self(String::from_utf8_lossy(&output.stdout).trim().into())),
            _ => {
                eprintln!("SKIPPED judge: no loop device can be had here");
                None
            }
        }
    }

    /// Partitions that the kernel sees.
    fn partitions(&self) -> usize {
        let entries = fs::read_dir(format!("/sys/block/{}", self.id())).expect("the disk").flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&format!("{}p", self.id()))).count()
    }

    fn id(&self) -> String {
        self.0.file_name().expect("a name").to_string_lossy().into_owned()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.0).status();
    }
}

#[test]
fn an_image_goes_onto_disks_of_other_sizes() {
    let session = prepared("write");
    let key = key(&session);
    let scanned = Loop::new(&session.path("drive.img"), &["-r", "-P"]).is_some_and(|disk| disk.partitions() == 2);
    if !scanned {
        eprintln!("SKIPPED judge: the kernel does not scan partition tables on a loop device here");
    }
    for (name, size) in [
        ("same", 100 * MIB),
        ("larger", 150 * MIB + 7 * 512),
        ("longer", 100 * MIB + 8 * 512),
        ("shorter", 100 * MIB - 195 * 512),
    ] {
        let file = session.path(&format!("{name}.img"));
        fs::File::create(&file).and_then(|file| file.set_len(size)).expect("a file");
        // Old contents that must not shine through, at both ends and in the middle.
        let old = OpenOptions::new().write(true).open(&file).expect("the file");
        for at in [0, 512, 1024, 60 * MIB, size - 512] {
            old.write_all_at(&[0xEE; 512], at).expect("bytes");
        }
        drop(old);
        let Some(disk) = Loop::new(&file, &["-P"]) else { return };
        let (id, node) = (disk.id(), disk.0.display().to_string());
        let line = format!("write drive.img {node} --key-file drive.xml --json");
        // The image was prepared for the drive `drive`.
        let refused = ends(&session, &format!("{line} --yes {id}"), 2);
        assert!(refused.contains("the service would refuse it"), "{refused}");
        assert!(ends(&session, &format!("{line} --not-for-shipping"), 2).contains("consent"));
        assert_eq!(fs::read(&file).expect("the file")[..512], [0xEE; 512]);
        let output = run(&session, &format!("{line} --not-for-shipping --yes {id}"));
        assert_eq!(code(&output), 0, "{name}: {}", said(&output));
        let result = object(&output, "written");
        let one = &result["drives"][0];
        assert_eq!(result["source_sha256"], by_tool("sha256sum", &session.path("drive.img")), "{result}");
        assert_eq!(one["different"], serde_json::json!([]));
        if name == "same" {
            assert_eq!((&one["sha256"], &one["backup_table"]), (&result["source_sha256"], &Value::Null), "{result}");
            let same = Command::new("cmp").arg(session.path("drive.img")).arg(&disk.0).status();
            assert!(same.expect("cmp").success());
        }
        for judge in ["sgdisk", "sfdisk"] {
            judge::ask(judge, &[&file]).expect_pass(judge);
        }
        judge::ask("libbde", &[file.as_os_str(), key.as_ref()]).expect_pass("libbde");
        assert!(ends(&session, &format!("verify {node} --key-file drive.xml"), 0).contains("Equal"), "{name}");
        // The kernel's own scan of the new table, where the kernel knows such tables.
        if scanned {
            assert_eq!(disk.partitions(), 2, "{name}");
        }
        assert!(!fs::read(&file).expect("the file").windows(512).any(|part| part == [0xEE; 512]), "{name}: old bytes");
    }
    // Too small for its partition, twice the same, onto itself.
    let small = session.path("small.img");
    fs::File::create(&small).and_then(|file| file.set_len(90 * MIB)).expect("a file");
    assert!(ends(&session, "write drive.img small.img", 2).contains("partition 2 ends at byte"));
    assert!(ends(&session, "write drive.img drive.img --yes drive", 2).contains("what is read from"));
    // Many at once, from one reading, without what is not in use; clone and compare.
    for name in ["a.img", "b.img", "c.img"] {
        fs::File::create(session.path(name)).and_then(|file| file.set_len(128 * MIB)).expect("a file");
    }
    let output = run(&session, "write drive.img a.img b.img c.img --only-used --key-file drive.xml --json");
    assert_eq!(code(&output), 0, "{}", said(&output));
    let result = object(&output, "written");
    assert!(
        result["read"].as_u64().expect("bytes") < 60 * MIB && result["left_out"].as_u64() > Some(40 * MIB),
        "{result}"
    );
    for name in ["a.img", "b.img", "c.img"] {
        judge::ask("sgdisk", &[&session.path(name)]).expect_pass("sgdisk");
        assert!(ends(&session, &format!("verify {name} --key-file drive.xml"), 0).contains("Equal"));
    }
    ends(&session, "clone a.img b.img --yes b", 0);
    assert!(ends(&session, "compare a.img b.img", 0).contains("no difference"));
    // Holes of the file inside the locked volume are never written.
    let output = run(&session, "write drive.img c.img --only-used --yes c --json");
    assert_eq!(code(&output), 0, "{}", said(&output));
    assert!(object(&output, "written")["left_out"].as_u64() > Some(30 * MIB), "{}", said(&output));
    assert!(ends(&session, "verify c.img --key-file drive.xml", 0).contains("Equal"));
}

#[test]
fn a_drive_with_bad_places_is_cloned_but_for_them() {
    let session = prepared("clone-bad");
    let image = session.path("drive.img");
    let bad = [(30 * MIB + 4096, 1024)];
    let to = session.path("to.img");
    fs::File::create(&to).and_then(|file| file.set_len(100 * MIB)).expect("a file");
    let Some(faulty) = Faulty::new(&session, &image, &bad) else { return };
    let output = run(&session, &format!("clone {} to.img --json", faulty.drive().display()));
    assert_eq!(code(&output), 4, "{}", said(&output));
    let result = object(&output, "written");
    assert_eq!(result["unreadable"], serde_json::json!([[30 * MIB + 4096, 1024]]), "{result}");
    assert_eq!(result["drives"][0]["different"], serde_json::json!([]), "{result}");
    let (one, other) = (fs::read(&image).expect("bytes"), fs::read(&to).expect("bytes"));
    let differ: Vec<usize> = (0..one.len()).filter(|at| one[*at] != other[*at]).collect();
    assert!(differ.iter().all(|at| (30 * MIB as usize + 4096..30 * MIB as usize + 5120).contains(at)), "{differ:?}");
}

#[test]
fn differences_are_named_by_place_and_by_file() {
    let session = prepared("compare");
    let copy = copy(&session, "copy.img");
    ends(&session, "compare drive.img copy.img", 0);
    let whole = fs::read(&copy).expect("the copy");
    let file = OpenOptions::new().write(true).open(&copy).expect("the copy");
    // `a.bin` is the first file behind the metadata, 9 MiB long: this is in its middle.
    let at = 24 * MIB + 12288;
    file.write_all_at(&[!whole[at as usize]], at).expect("a byte");
    file.write_all_at(&[!whole[100], !whole[101]], 100).expect("bytes");
    let output = run(&session, "compare drive.img copy.img --key-file drive.xml --json");
    assert_eq!(code(&output), 5, "{}", said(&output));
    let result = object(&output, "compared");
    assert_eq!(result["different"], serde_json::json!([[100, 2], [at, 1]]), "{result}");
    assert_eq!((&result["bytes_different"], &result["outside_files"]), (&3.into(), &2.into()), "{result}");
    let judged = Command::new("cmp").arg("-l").arg(session.path("drive.img")).arg(&copy).output().expect("cmp");
    assert_eq!(judged.stdout.iter().filter(|byte| **byte == b'\n').count(), 3);
    let files = result["files"].as_array().expect("files");
    assert_eq!(files.len(), 1, "{result}");
    assert!(files[0]["path"].as_str().expect("a path").ends_with("data/a.bin"), "{result}");
    // The manifest names the same blob, by the hash of the block that holds the byte.
    let verified = run(&session, "verify copy.img --key-file drive.xml --json");
    assert_eq!(code(&verified), 5);
    let rows = String::from_utf8_lossy(&verified.stdout).into_owned();
    let rows = rows.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let bad: Vec<Value> = rows.filter(|row| row["type"] == "blob" && row["verdict"] != "equal").collect();
    assert_eq!((bad.len(), &bad[0]["blob"]), (1, &"data/a.bin".into()), "{bad:?}");
    file.set_len(90 * MIB).expect("a length");
    assert!(ends(&session, "compare drive.img copy.img", 5).contains("longer"));
}

#[test]
fn an_image_is_made_for_a_drive_that_is_not_attached() {
    let session = Session::new("images-for");
    session.source(|data| {
        data.file("a.bin", 300_000).expect("a file");
        data.file("below/b.txt", 40).expect("a file");
    });
    let size = 100 * MIB + 3 * 512;
    let image = session.path("shelf.img").display().to_string();
    let prepare =
        "prep-import --journal job.jrn --id s#1 --initial-driveset driveset.csv --dataset dataset.csv --silent";
    session.driveset(&[image.clone(), session.path("other.img").display().to_string()]);
    let refused = |what: &str, code: i32, words: &str| {
        let text = ends(&session, &format!("{prepare} --for {what}"), code);
        assert!(text.contains(words), "{what}: {text}");
        assert!(!session.path("shelf.img").exists(), "{what}: nothing is written");
    };
    refused("WD-SHELF-001", 1, "SERIAL,BYTES");
    refused("WD-SHELF-001,100000001", 1, "no whole number of 512-byte sectors");
    refused(&format!("WD-SHELF-001,{size}"), 1, "the driveset has 2 rows");
    session.driveset(&[format!("{image}:90MB")]);
    refused(&format!("WD-SHELF-001,{size}"), 1, "another size");
    session.driveset(&[image]);
    let made = ends(&session, &format!("{prepare} --for WD-SHELF-001,{size}"), 0);
    assert!(made.contains("dray write IMAGE serial:WD-SHELF-001"), "{made}");
    assert_eq!(fs::metadata(session.path("shelf.img")).expect("the image").len(), size);
    ends(&session, "verify shelf.img --key-file WD-SHELF-001.xml", 0);
    let job = ends(&session, "session show job.jrn --json", 0);
    assert!(job.contains("WD-SHELF-001"), "{job}");
    // The disk that it is written to is the image, byte for byte.
    fs::File::create(session.path("disk.img")).and_then(|file| file.set_len(size)).expect("a file");
    ends(&session, "write shelf.img disk.img --key-file WD-SHELF-001.xml --yes disk", 0);
    let same = Command::new("cmp").args([session.path("shelf.img"), session.path("disk.img")]).status();
    assert!(same.expect("cmp").success());
    judge::ask("sgdisk", &[&session.path("disk.img")]).expect_pass("sgdisk");
}
