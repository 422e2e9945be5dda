//! Mistaken disks: one drive under two names, drives in use, and invalid consent.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Session, code, words};

/// A session with one small file and images that are not blank.
fn session(name: &str) -> Session {
    let session = Session::new(name);
    session.source(|data| data.small(3, 1).expect("files"));
    session
}

/// An image of 100 MiB that is not blank, as a file system at its start would be.
fn precious(session: &Session, name: &str) -> PathBuf {
    let path = session.path(name);
    let file = fs::File::create(&path).expect("an image");
    file.set_len(100 << 20).expect("its length");
    // The magic of ext4, which signatures are looked for by.
    use std::os::unix::fs::FileExt;
    file.write_all_at(&[0x53, 0xEF], 1024 + 56).expect("written");
    path
}

fn is_untouched(path: &Path) -> bool {
    let bytes = fs::read(path).expect("an image");
    bytes[1024 + 56..1024 + 58] == [0x53, 0xEF] && bytes.iter().filter(|byte| **byte != 0).count() == 2
}

fn rows(session: &Session, rows: &[String]) {
    let head = "DriveLetter,FormatOption,SilentOrPromptOnFormat,Encryption,ExistingBitLockerKey";
    fs::write(session.path("driveset.csv"), format!("{head}\n{}\n", rows.join("\n"))).expect("a driveset");
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Refused before any write: nothing in the journal, exit code 2.
fn refused(session: &Session, more: &[&str], parts: &[&str]) {
    let output = session.run(more);
    let said = words(&output);
    assert_eq!(code(&output), 2, "{said}");
    for part in parts {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!session.path("journal.jrn").exists(), "{said}");
}

/// A loop device, detached on drop.
struct Loop(String);

impl Loop {
    fn new(image: &Path, more: &[&str]) -> Option<Self> {
        let made = Command::new("losetup").args(["--find", "--show"]).args(more).arg(image).output();
        match made {
            Ok(made) if made.status.success() => Some(Self(String::from_utf8_lossy(&made.stdout).trim().to_owned())),
            _ => {
                eprintln!("SKIPPED: no loop device can be had here (needs root)");
                None
            }
        }
    }

    fn name(&self) -> &str {
        self.0.trim_start_matches("/dev/")
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

#[test]
fn one_image_under_two_names_is_one_drive() {
    let session = session("two-names");
    let image = session.path("P.img");
    fs::File::create(&image).and_then(|file| file.set_len(100 << 20)).expect("an image");
    let (hard, soft, dir) = (session.path("Q.img"), session.path("R.img"), session.path("elsewhere"));
    fs::hard_link(&image, &hard).expect("a hard link");
    symlink(&image, &soft).expect("a link");
    symlink(&session.dir, &dir).expect("a link");
    for other in [&hard, &soft, &dir.join("P.img"), &dir.join("Q.img")] {
        session.driveset(&[text(&image), text(other)]);
        // Images of one name would have one id, too.
        let ids = format!("{}=OTHER", text(other));
        refused(&session, &["--drive-id", &ids], &["same drive", &text(&image), &text(other)]);
    }
    // A missing and an empty file, through a link to the directory.
    let empty = session.path("empty.img");
    fs::write(&empty, "").expect("an empty file");
    for name in ["new.img", "empty.img"] {
        let (one, two) = (text(&session.path(name)), text(&dir.join(name)));
        session.driveset(&[format!("{one}:100MB"), format!("{two}:100MB")]);
        refused(&session, &["--drive-id", &format!("{two}=OTHER")], &["same drive", &one, &two]);
    }
    assert!(fs::read(&image).expect("the image").iter().all(|byte| *byte == 0) && !session.path("new.img").exists());
    assert_eq!(fs::metadata(&empty).expect("the file").len(), 0);
    // A finished drive of the journal is not erased under another name.
    session.driveset(&[text(&image)]);
    session.prepare(&[]);
    rows(&session, &[format!("{},Format,SilentMode,Encrypt,", text(&hard))]);
    let more = session.dray(
        "prep-import --journal journal.jrn --id session#2 --additional-driveset driveset.csv --dataset dataset.csv --yes Q",
    );
    assert_eq!(code(&more), 2, "{}", words(&more));
    assert!(words(&more).contains("finished drive of this journal under another name"), "{}", words(&more));
}

#[test]
fn loop_devices_are_known_by_what_is_below_them() {
    let session = session("loop-names");
    let image = precious(&session, "P.img");
    let hard = session.path("Q.img");
    fs::hard_link(&image, &hard).expect("a hard link");
    let Some(first) = Loop::new(&hard, &[]) else { return };
    // Attached by another name than it is given by.
    session.driveset(&[text(&image)]);
    refused(&session, &["--yes", "P"], &["attached to a loop device", &first.0]);
    // The device and its file; two devices on one file; a second node of one device.
    session.driveset(&[first.0.clone(), text(&image)]);
    refused(&session, &["--yes", "P", first.name()], &[&first.0, &text(&image)]);
    let second = Loop::new(&image, &[]).expect("a second loop device");
    session.driveset(&[first.0.clone(), second.0.clone()]);
    refused(&session, &["--yes", first.name(), second.name()], &[&first.0, &second.0]);
    session.driveset(std::slice::from_ref(&first.0));
    refused(&session, &["--yes", first.name()], &["shares its file", &second.0]);
    drop(second);
    let node = session.path("node");
    let numbers = fs::read_to_string(format!("/sys/block/{}/dev", first.name())).expect("its number");
    let (major, minor) = numbers.trim().split_once(':').expect("two numbers");
    let made = Command::new("mknod").arg(&node).args(["b", major, minor]).status();
    if made.is_ok_and(|status| status.success()) {
        session.driveset(&[first.0.clone(), text(&node)]);
        let ids = format!("{}=OTHER", text(&node));
        refused(
            &session,
            &["--yes", first.name(), "OTHER", "--drive-id", &ids],
            &["same drive", &first.0, &text(&node)],
        );
    } else {
        eprintln!("SKIPPED: no node can be made here");
    }
    // A loop device on the device.
    let above = Loop::new(Path::new(&first.0), &[]).expect("a loop device on a loop device");
    session.driveset(std::slice::from_ref(&first.0));
    refused(&session, &["--yes", first.name()], &["attached to a loop device", &above.0]);
    drop(above);
    drop(first);
    assert!(is_untouched(&image));
}

#[test]
fn an_image_that_others_use_is_refused() {
    let session = session("in-use");
    let image = precious(&session, "V.img");
    session.driveset(&[text(&image)]);
    // As virtual machines and FUSE drivers hold theirs: POSIX and OFD locks, on single bytes too; or just open.
    let python = |hold: &str| {
        let program = format!(
            "import fcntl,struct,sys,time,os\nf=open({:?},'r+b')\n{hold}\nprint('held',flush=True)\nsys.stdin.read()",
            text(&image)
        );
        use std::io::{BufRead, BufReader};
        let mut child = Command::new("python3")
            .args(["-c", &program])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .ok()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take()?).read_line(&mut line).ok()?;
        (line.trim() == "held").then_some(child)
    };
    let ofd = "fcntl.fcntl(f,37,struct.pack('hhqqi4x',0,0,201,1,0))";
    for hold in ["", "fcntl.flock(f,fcntl.LOCK_SH)", "fcntl.lockf(f,fcntl.LOCK_EX)", ofd] {
        let Some(mut child) = python(hold) else {
            eprintln!("SKIPPED: no python3 here that holds files");
            return;
        };
        refused(&session, &["--yes", "V"], &["is in use"]);
        child.kill().expect("ended");
        child.wait().expect("ended");
    }
    // A reader's lock is a lock as well.
    let read_lock =
        format!("f.close()\nf=open({:?},'rb')\nfcntl.fcntl(f,37,struct.pack('hhqqi4x',0,0,101,1,0))", text(&image));
    let mut child = python(&read_lock).expect("it held the others");
    refused(&session, &["--yes", "V"], &["holds a lock"]);
    child.kill().expect("ended");
    child.wait().expect("ended");
    assert!(is_untouched(&image));
    // A process that only reads is no obstacle.
    let mut child = python(&format!("f.close()\nf=open({:?},'rb')", text(&image))).expect("it held the others");
    session.prepare(&["--yes", "V"]);
    child.kill().expect("ended");
    child.wait().expect("ended");
}

#[test]
fn consent_is_typed_or_in_the_row_and_names_the_drive() {
    let session = session("consent");
    let image = precious(&session, "A.img");
    let Some(device) = Loop::new(&image, &[]) else { return };
    let prep = |row: &str, more: &[&str], variables: &[(&str, &str)], config: &str| {
        rows(&session, &[row.to_owned()]);
        let path = session.path("config.toml");
        fs::write(&path, config).expect("a configuration file");
        let mut command = session.program("prep-import --journal journal.jrn --id session#1");
        command.args(["--initial-driveset", "driveset.csv", "--dataset", "dataset.csv", "--drive-id", "X"]).args(more);
        command.env("DRAY_CONFIG", &path).envs(variables.iter().copied());
        let output = crate::common::run(&mut command);
        // Where udev makes no such links the name leads nowhere, which counts as a mistyped path.
        let is_nowhere = row.starts_with("/dev/disk/by-id/") && !Path::new("/dev/disk/by-id").is_dir();
        let wanted = if is_nowhere { 1 } else { 2 };
        assert_eq!(code(&output), wanted, "{row} {more:?} {variables:?} {config}: {}", words(&output));
        assert!(!session.path("journal.jrn").exists());
        words(&output)
    };
    let node = &device.0;
    let plain = format!("{node},Format,SilentMode,Encrypt,");
    let dots = format!("/dev/disk/by-id/../../{},Format,SilentMode,Encrypt,", device.name());
    for row in [&plain, &dots] {
        prep(row, &[], &[], "");
        prep(row, &["--silent"], &[], "");
    }
    for (variables, config) in [
        (&[("DRAY_SILENT", "true")][..], ""),
        (&[("DRAY_YES", "X")], ""),
        (&[], "silent = true\n"),
        (&[], "[prep-import]\nyes = [\"X\"]\n"),
    ] {
        let said = prep(&plain, &[], variables, config);
        assert!(said.contains("consent cannot be given by"), "{said}");
    }
    let said = prep(&plain, &["--yes", "Y"], &[], "");
    assert!(said.contains("--yes names no drive of this session") && said.contains('X'), "{said}");
    let said = prep(&plain, &["--yes", "X,Y"], &[], "");
    assert!(said.contains("--yes names no drive of this session"), "{said}");
    let said = prep(&plain.replace("SilentMode", "PromptOnFormat"), &["--silent"], &[], "");
    assert!(said.contains("PromptOnFormat"), "{said}");
    // The advice is one that can be followed.
    assert!(!said.contains("serial:") && said.contains("--yes X"), "{said}");
    // A link made by hand, whatever its name.
    let dir = Path::new("/dev/disk/by-id");
    let link = dir.join(format!("ata-DRAY_TEST_{}", std::process::id()));
    let made = (!dir.exists()).then(|| fs::create_dir_all(dir));
    if symlink(node, &link).is_ok() {
        prep(&format!("{},Format,SilentMode,Encrypt,", text(&link)), &["--silent"], &[], "");
        fs::remove_file(&link).expect("removed");
    } else {
        eprintln!("SKIPPED: no link can be made below /dev/disk/by-id");
    }
    if made.is_some() {
        let _ = fs::remove_dir(dir);
    }
    let bench = session.dray(&format!("bench {node} --write --yes Y --seconds 0.1"));
    assert_eq!(code(&bench), 2, "{}", words(&bench));
    drop(device);
    assert!(is_untouched(&image));
}

#[test]
fn root_follows_no_configuration_that_others_can_change() {
    let session = session("config-of-others");
    session.driveset(&[format!("{}:100MB", text(&session.path("new.img")))]);
    let config = session.path("config.toml");
    let marked = session.path("marked");
    fs::write(&config, format!("on-finish = \"touch {}\"\n", text(&marked))).expect("a configuration file");
    let run = || crate::common::run(session.command(&["--dry-run"]).env("DRAY_CONFIG", &config));
    let mode = |bits| fs::set_permissions(&config, fs::Permissions::from_mode(bits)).expect("permissions");
    mode(0o666);
    let output = run();
    let is_root = fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0);
    if !is_root {
        eprintln!("SKIPPED: only root is careful here");
        return;
    }
    assert_eq!(code(&output), 2, "{}", words(&output));
    assert!(words(&output).contains("others can change: everybody may write to it"), "{}", words(&output));
    assert!(!marked.exists(), "its command ran");
    mode(0o644);
    let output = run();
    assert_eq!(code(&output), 0, "{}", words(&output));
    assert!(marked.exists(), "root's own is followed");
}
