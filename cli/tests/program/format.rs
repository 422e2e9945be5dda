//! Drives for Windows, without a job: checked by independent programs, opened by each key alone, and resumed after an
//! interruption.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::common::{Session, code, dray, run, words};
use dray_testdisks::dataset::Dataset;
use dray_testdisks::judge::{self, Cryptsetup, Verdict};

const PASSWORD: &str = "correct horse ü";

/// A directory with a source tree: names that Windows cannot have, an empty directory, and entries that are
/// left out.
fn with_tree(name: &str) -> Session {
    let session = Session::new(name);
    let source = session.path("source");
    let mut data = Dataset::new(&source, 5).expect("a dataset");
    data.large(36 << 20, 9 << 20).expect("large files");
    data.small(120, 15).expect("small files");
    for len in [0, 1, 700, 4095, 4096, 4097] {
        data.file(format!("edges/{len}"), len).expect("an edge");
    }
    data.file("odd/a:b.txt", 5000).expect("an odd name");
    data.file("$MFT", 10).expect("a name that the root has");
    data.file("System Volume Information/tracking.log", 99).expect("what is of Windows");
    data.finish().expect("a dataset");
    fs::create_dir_all(source.join("empty/below")).expect("an empty directory");
    std::os::unix::fs::symlink("edges", source.join("link")).expect("a link");
    fs::write(session.path("pass.txt"), format!("{PASSWORD}\n")).expect("a password");
    fs::create_dir(session.path("bek")).expect("a directory");
    session
}

fn format(session: &Session, line: &[&str]) -> Output {
    run(dray(["format"]).args(line).current_dir(&session.dir))
}

fn works(session: &Session, line: &[&str]) -> String {
    let output = format(session, line);
    assert_eq!(code(&output), 0, "{line:?}: {}", words(&output));
    words(&output)
}

/// The only file of a directory whose name ends with `end`.
fn only(dir: &Path, end: &str) -> PathBuf {
    let names = fs::read_dir(dir).expect("a directory").filter_map(Result::ok).map(|entry| entry.path());
    let found: Vec<PathBuf> = names.filter(|path| path.to_string_lossy().ends_with(end)).collect();
    assert_eq!(found.len(), 1, "{end}: {found:?}");
    found[0].clone()
}

/// The text of a recovery key file: identifier and 48 digits.
fn recovery(file: &Path) -> (String, String) {
    let bytes = fs::read(file).expect("the recovery key");
    let text = match bytes.strip_prefix(&[0xFF, 0xFE]) {
        Some(units) => {
            let units: Vec<u16> = units.chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
            String::from_utf16(&units).expect("UTF-16")
        }
        None => String::from_utf8(bytes).expect("UTF-8"),
    };
    let behind = |label: &str| {
        let rest = text.split_once(label).unwrap_or_else(|| panic!("no {label}: {text}")).1;
        rest.split_whitespace().next().expect("a value").to_owned()
    };
    (behind("Identifier:"), behind("Recovery Key:"))
}

/// File that maps every source file to its path on the drive, except those that Windows keeps for itself.
fn mapping(session: &Session) -> PathBuf {
    fn walk(dir: &Path, at: &str, out: &mut String) {
        for entry in fs::read_dir(dir).expect("a directory").filter_map(Result::ok) {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let kind = entry.file_type().expect("a kind");
            let name = match &*name {
                "System Volume Information" => continue,
                "a:b.txt" => "a_b~0.txt".into(),
                "$MFT" => "$MFT~0".into(),
                _ => name,
            };
            if kind.is_dir() {
                walk(&path, &format!("{at}\\{name}"), out);
            } else if kind.is_file() {
                out.push_str(&format!("{at}\\{name}\t{}\n", path.display()));
            }
        }
    }
    let mut text = String::new();
    walk(&session.path("source"), "", &mut text);
    let path = session.path("mapping");
    fs::write(&path, text).expect("the mapping");
    path
}

/// Runs every judge of NTFS on a plain volume.
fn judge_ntfs(session: &Session, plain: &Path, files: u64) {
    judge::ntfsfix(plain).expect_pass("ntfsfix");
    judge::ntfsinfo(plain).expect_pass("ntfsinfo");
    judge::checkdisk(plain).expect_pass("checkdisk");
    judge::phantom_trace(plain).expect_pass("PhantomTrace");
    judge::fsstat(plain).expect_pass("fsstat");
    judge::fls(plain, files).expect_pass("fls");
    if files > 0 {
        judge::compare(plain, &mapping(session), true).expect_pass("ntfs-3g and the sources");
    }
}

/// Copies the data partition of an unencrypted image to `to`.
fn volume(image: &Path, to: &Path) {
    let (start, len, _) = judge::volume_of(image).expect("a partition");
    let bytes = fs::read(image).expect("the image");
    fs::write(to, &bytes[start as usize..(start + len) as usize]).expect("the volume");
}

#[test]
fn judge_each_key_opens_a_drive_for_windows_alone() {
    let session = with_tree("format-keys");
    let said = works(
        &session,
        &[
            "drive.img:100MB",
            "--from",
            "source",
            "--label",
            "ARCHIVE",
            "--password-file",
            "pass.txt",
            "--external-key",
            "bek",
        ],
    );
    assert!(said.contains("a_b~0.txt") && said.contains("$MFT~0") && said.contains("Not copied: 2"), "{said}");
    let image = session.path("drive.img");
    let (file, bek) = (only(&session.dir, ".TXT"), only(&session.path("bek"), ".BEK"));
    for path in [&file, &bek] {
        assert_eq!(fs::metadata(path).expect("a key").permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
    let (id, key) = recovery(&file);
    assert_eq!(file.file_name().expect("a name").to_string_lossy(), format!("BitLocker Recovery Key {id}.TXT"));
    assert!(said.contains(&id) && !said.contains(&key), "{said}");
    assert!(!session.path(".dray-format-drive.img").exists(), "the state is gone");

    judge::sgdisk(&image).expect_pass("sgdisk");
    judge::sfdisk(&image).expect_pass("sfdisk");
    let bek_text = bek.display().to_string();
    for (secret, which) in [(key.clone(), "recovery"), (PASSWORD.into(), "password"), (format!("@{bek_text}"), "BEK")] {
        // cryptsetup 2.6.1 does not support passwords outside ASCII.
        let programs = [Cryptsetup::Newer, Cryptsetup::Installed];
        for program in &programs[..if which == "password" { 1 } else { 2 }] {
            judge::cryptsetup(&image, &secret, *program).expect_pass(&format!("cryptsetup by {which}"));
        }
    }
    judge::cryptsetup(&image, "wrong password", Cryptsetup::Newer).expect_fail("cryptsetup by another password");
    let mut sums = Vec::new();
    for reader in ["libbde", "dissect"] {
        for key in [["--recovery", &*key], ["--password", PASSWORD], ["--bek", &*bek_text]] {
            let verdict = judge::decrypted(&image, key, reader);
            if let Verdict::Pass(sum) = &verdict {
                sums.push(sum.clone());
            }
            verdict.expect_pass(&format!("{reader} by {}", key[0]));
        }
    }
    sums.dedup();
    assert!(sums.len() <= 1, "each key gives the same volume to each reader: {sums:?}");
    // dray itself, with each of the keys.
    for key in [file, session.path("pass.txt"), bek] {
        let listed = run(dray(["ls", "drive.img", "--key-file"]).arg(&key).current_dir(&session.dir));
        assert_eq!(code(&listed), 0, "{}: {}", key.display(), words(&listed));
        assert!(words(&listed).contains("empty") && words(&listed).contains("edges"), "{}", words(&listed));
    }
    let plain = session.path("plain.img");
    if judge::decrypt(&image, &key, &plain).expect_pass("libbde") {
        judge_ntfs(&session, &plain, 120);
    }
    fs::remove_dir_all(&session.dir).expect("removed");
}

#[test]
fn judge_plain_and_empty_drives_for_windows() {
    let session = with_tree("format-plain");
    for (i, more) in [
        &["--no-encryption", "--from", "source"][..],
        &["--no-encryption", "--from", "source", "--table", "mbr", "--cluster-size", "64K", "--wipe-free"],
        &["--no-encryption", "--cluster-size", "512", "--read-back", "full"],
        &["--cipher", "xts-aes-256", "--recovery-form", "utf-8", "--read-back", "full"],
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("{i}.img:150MB");
        let said = works(&session, &[&[&*name, "--label", "Größe"], more].concat());
        assert!(!said.contains("manifest") && !said.contains("ship") && !said.contains("prep-import"), "{said}");
        let (image, plain) = (session.path(&format!("{i}.img")), session.path("plain.img"));
        judge::sgdisk(&image).expect_pass("sgdisk");
        let is_filled = more.contains(&"--from");
        if more.contains(&"--no-encryption") {
            volume(&image, &plain);
            judge_ntfs(&session, &plain, if is_filled { 120 } else { 0 });
        } else {
            let (_, key) = recovery(&only(&session.dir, ".TXT"));
            judge::cryptsetup(&image, &key, Cryptsetup::Newer).expect_pass("cryptsetup");
            judge::libbde(&image, &key).expect_pass("libbde");
            if judge::decrypt(&image, &key, &plain).expect_pass("libbde") {
                judge_ntfs(&session, &plain, 0);
            }
        }
        fs::remove_file(&image).expect("removed");
    }
    fs::remove_dir_all(&session.dir).expect("removed");
}

#[test]
fn an_interrupted_format_goes_on_or_is_given_up() {
    let session = with_tree("format-resume");
    let begin = |image: &str| {
        let mut command = dray(["format", image, "--from", "source", "--password-file", "pass.txt"]);
        command.args(["--source-rate", "8M", "--checkpoint-bytes", "4000000"]).current_dir(&session.dir);
        let mut child = command.spawn().expect("the binary runs");
        // Killed as soon as some data are durable.
        let state = session.path(&format!(".dray-format-{}", image.split(':').next().expect("a name")));
        let checkpoint = |path: &Path| path.to_string_lossy().ends_with(".checkpoint");
        let is_begun = || {
            let found = fs::read_dir(&state).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
            found.into_iter().any(|path| checkpoint(&path))
        };
        for _ in 0..600 {
            if is_begun() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        std::thread::sleep(std::time::Duration::from_millis(1500));
        child.kill().expect("killed");
        child.wait().expect("ended");
        assert!(is_begun(), "{}", state.display());
        state
    };
    let state = begin("drive.img:200MB");
    // Another run must not start over it.
    let again = format(&session, &["drive.img", "--yes", "drive"]);
    assert_eq!(code(&again), 1, "{}", words(&again));
    assert!(words(&again).contains("unfinished") && words(&again).contains("--resume"), "{}", words(&again));
    let said = works(&session, &["drive.img", "--resume"]);
    assert!(said.contains("Format is done") && !state.exists(), "{said}");
    let (image, plain) = (session.path("drive.img"), session.path("plain.img"));
    let (_, key) = recovery(&only(&session.dir, ".TXT"));
    judge::cryptsetup(&image, PASSWORD, Cryptsetup::Newer).expect_pass("cryptsetup by the password");
    if judge::decrypt(&image, &key, &plain).expect_pass("libbde") {
        judge_ntfs(&session, &plain, 120);
    }

    let state = begin("other.img:200MB");
    let said = works(&session, &["other.img", "--abort"]);
    assert!(said.contains("without a volume") && !state.exists(), "{said}");
    let looked = session.dray("inspect other.img");
    assert!(!words(&looked).contains("NTFS"), "{}", words(&looked));
    let none = format(&session, &["other.img", "--resume"]);
    assert_eq!(code(&none), 1, "{}", words(&none));
    fs::remove_dir_all(&session.dir).expect("removed");
}

#[test]
fn what_is_wrong_with_a_format_is_told_before_it_begins() {
    let session = with_tree("format-wrong");
    fs::write(session.path("short.txt"), "seven77\n").expect("a password");
    let nothing = |output: &Output, expected: i32, word: &str| {
        let said = words(output);
        assert_eq!(code(output), expected, "{said}");
        assert!(said.contains(word), "{word}: {said}");
        assert!(!session.path("drive.img").exists() && !session.path(".dray-format-drive.img").exists(), "{said}");
    };
    let both = format(&session, &["drive.img:200MB", "--password-file", "short.txt", "--from", "nowhere"]);
    nothing(&both, 1, "7 characters");
    assert!(words(&both).contains("nowhere"), "{}", words(&both));
    nothing(&format(&session, &["drive.img:200MB", "--keys", "nowhere"]), 8, "--keys");
    nothing(&format(&session, &["drive.img"]), 1, "SIZE");
    nothing(&format(&session, &["drive.img:20MB", "--from", "source"]), 2, "too small");
    nothing(
        &format(&session, &["drive.img:200MB", "--no-encryption", "--password-file", "pass.txt"]),
        1,
        "cannot be used",
    );
    nothing(&format(&session, &["drive.img:200MB", "--from", "source", "--dry-run"]), 0, "Plan of a drive for Windows");
    // A drive with data is only destroyed with consent.
    works(&session, &["full.img:100MB", "--no-encryption"]);
    let before = fs::read(session.path("full.img")).expect("an image");
    let refused = format(&session, &["full.img"]);
    assert_eq!(code(&refused), 2, "{}", words(&refused));
    assert!(words(&refused).contains("--yes full"), "{}", words(&refused));
    assert_eq!(fs::read(session.path("full.img")).expect("an image"), before);
    works(&session, &["full.img", "--yes", "full"]);
    fs::remove_dir_all(&session.dir).expect("removed");
}

#[test]
fn directories_keep_their_times() {
    let session = Session::new("format-dir-times");
    fs::create_dir_all(session.path("source/old/below")).expect("directories");
    fs::write(session.path("source/old/file"), "x").expect("a file");
    for (dir, date) in [("old/below", "2002-03-04 05:06:08 UTC"), ("old", "2001-02-03 04:05:06 UTC")] {
        let path = session.path("source").join(dir);
        let dated = std::process::Command::new("touch").args(["-d", date]).arg(path).status();
        assert!(dated.expect("touch").success());
    }
    works(&session, &["plain.img:100MB", "--no-encryption", "--from", "source", "--silent"]);
    let shown = session.works("inspect plain.img --json");
    let start = serde_json::from_str::<serde_json::Value>(&shown).expect("an object")["volume"]["start"].as_u64();
    let sector = (start.expect("a byte") / 512).to_string();
    let listed = std::process::Command::new("fls")
        .args(["-o", &sector, "-f", "ntfs", "-r", "-p", "-l", "-z", "UTC"])
        .arg(session.path("plain.img"))
        .output();
    match listed {
        Ok(listed) => {
            let text = String::from_utf8_lossy(&listed.stdout).into_owned();
            let line = |end: &str| text.lines().find(|line| line.contains(end)).unwrap_or_else(|| panic!("{text}"));
            assert!(line(":\told\t").contains("2001-02-03 04:05:06 (UTC)"), "{text}");
            assert!(line(":\told/below\t").contains("2002-03-04 05:06:08 (UTC)"), "{text}");
        }
        Err(error) => eprintln!("SKIPPED judge: sleuthkit: {error}"),
    }
}
