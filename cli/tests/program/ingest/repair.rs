//! `dray repair-import`: after an import that damage on the drive kept from being whole.

use std::fs;
use std::path::PathBuf;

use dray_testdisks::azurite::Front;

use super::*;

fn error_log(session: &Session) -> PathBuf {
    let logs = fs::read_dir(session.path("logs")).expect("logs").flatten().map(|entry| entry.path());
    logs.into_iter().find(|path| path.to_string_lossy().ends_with("_error.xml")).expect("an error log")
}

fn repair(session: &Session, endpoint: &str, log: &Path, more: &[&str]) -> Output {
    let (log, key) = (log.display().to_string(), session.path("azurite/account.key").display().to_string());
    let words = ["repair-import", "--repair-file", "r.rep", "--copy-log", &log, "--path-map", "map.txt", "--json"];
    let account = ["--endpoint", endpoint, "--account-key-file", &key, "--retry-for", "1"];
    crate::common::dray_in(&session.dir, &[&words[..], &account, more].concat())
}

#[test]
fn judge_a_repair_sends_what_failed_and_keeps_the_rest() {
    let session = drive("repair", "rename");
    let Some(azurite) = account(&session) else { return };
    flip(&session, "data/large", BLOCK as u64 + 4096);
    flip(&session, "data/sub/small.txt", 512);
    flip(&session, "disks/disk.raw", 5 << 20);
    let output = ingest(&session, &azurite.endpoint, &["--logdir", "logs"]);
    assert_eq!(code(&output), 5, "{}", said(&output));
    let log = error_log(&session);

    // The originals of metadata and properties are not where the drive has them: the user says where they are.
    let front = Front::start(&azurite, &session.path("front"), "[]");
    let dirs = ["--dir", "source", "--dir", "disks"];
    let output = repair(&session, &front.endpoint, &log, &dirs);
    assert_eq!(code(&output), 3, "{}", said(&output));
    let map = fs::read_to_string(session.path("map.txt")).expect("a map");
    assert_eq!(map.lines().count(), 2, "{map}");
    let filled = map.lines().map(|line| {
        let original = if line.contains("metadata") { "m.xml" } else { "p.xml" };
        format!("{line}\t{}\n", session.path(original).display())
    });
    fs::write(session.path("map.txt"), filled.collect::<String>()).expect("a map");
    let output = repair(&session, &front.endpoint, &log, &dirs);
    assert_eq!(code(&output), 0, "{}\n{}", said(&output), front.requests());
    assert!(crate::user::described(&output.stdout).is_none_or(|counts| counts.contains("repair=1")));
    if !all_there(&azurite) {
        return;
    }
    let sent = front.requests();
    let count = |part: &str| sent.lines().filter(|line| line.contains("\"PUT\"") && line.contains(part)).count();
    assert_eq!((count("comp=block&"), count("comp=blocklist"), count("comp=page")), (1, 1, 1), "{sent}");
    assert!(!["one%20block", "tiny", "empty", "logo"].iter().any(|name| sent.contains(name)), "{sent}");

    // Once more: the repair file says that it is done.
    let before = front.requests().len();
    let output = repair(&session, &front.endpoint, &log, &dirs);
    assert_eq!(code(&output), 0, "{}", said(&output));
    assert!(!front.requests()[before..].contains("\"PUT\""), "{}", &front.requests()[before..]);
    assert!(all_there(&azurite));
}

/// Imports a drive with three damaged files, and keeps a good copy of it.
fn import_damaged(session: &Session, azurite: &Azurite) {
    fs::copy(session.path("drive.img"), session.path("good.img")).expect("copied");
    flip(session, "data/large", BLOCK as u64 + 4096);
    flip(session, "data/sub/small.txt", 512);
    flip(session, "disks/disk.raw", 5 << 20);
    let output = ingest(session, &azurite.endpoint, &["--logdir", "logs"]);
    assert_eq!(code(&output), 5, "{}", said(&output));
}

#[test]
fn judge_a_repair_reads_the_originals_from_an_encrypted_drive() {
    let session = drive("repair-drive", "rename");
    let Some(azurite) = account(&session) else { return };
    import_damaged(&session, &azurite);
    let log = error_log(&session);
    // The drive with the damage is no source: what it has is not what the log says.
    let output = repair(&session, &azurite.endpoint, &log, &["--drive", "drive.img", "--key-file", "drive.xml"]);
    assert_eq!(code(&output), 3, "{}", said(&output));
    fs::remove_file(session.path("r.rep")).expect("removed");
    fs::remove_file(session.path("map.txt")).expect("removed");
    // The line of the Windows tool, with the key that opens the drive; the second generation's log knows whole blobs only.
    let key = session.path("azurite/account.key").display().to_string();
    let classic = format!("RepairImport /r:r.rep /d:good.img /bk:@drive.xml /sk:@{key} /CopyLogFile:{}", log.display());
    let words: Vec<&str> = classic.split(' ').chain(["--endpoint", &azurite.endpoint, "--retry-for", "1"]).collect();
    let output = crate::common::dray_in(&session.dir, &words);
    assert_eq!(code(&output), 0, "{}", said(&output));
    all_there(&azurite);
}

#[test]
fn judge_whole_blobs_are_sent_again_by_a_log_of_the_second_generation() {
    let session = drive("repair-second", "rename");
    let Some(azurite) = account(&session) else { return };
    import_damaged(&session, &azurite);
    let logs = fs::read_dir(session.path("logs")).expect("logs").flatten().map(|entry| entry.path());
    let log = logs.into_iter().find(|path| path.to_string_lossy().contains("_CopyLog_")).expect("a copy log");
    let front = Front::start(&azurite, &session.path("front"), "[]");
    let source = ["--drive", "good.img", "--key-file", "drive.xml"];
    let output = repair(&session, &front.endpoint, &log, &source);
    assert!(code(&output) == 1 && said(&output).contains("--manifest"), "{}", said(&output));
    assert!(!front.requests().contains("\"PUT\""));
    let more = [&source[..], &["--manifest", "drive.manifest.xml"]].concat();
    let output = repair(&session, &front.endpoint, &log, &more);
    assert_eq!(code(&output), 0, "{}\n{}", said(&output), front.requests());
    if !all_there(&azurite) {
        return;
    }
    // In the place of what was there, without a second name, and nothing of the others. Blocks of the import that wait under
    // their ids, which are made of their hashes, are there.
    let sent = front.requests();
    let blocks = sent.lines().filter(|line| line.contains("\"PUT\"") && line.contains("comp=block&")).count();
    assert!(blocks >= 1 && sent.contains("data/large?comp=blocklist") && sent.contains("disk.raw?comp=page"), "{sent}");
    assert!(!sent.contains("%282%29") && !sent.contains("%20(2)"), "{sent}");
    assert!(!["one%20block", "tiny", "empty", "logo"].iter().any(|name| sent.contains(name)), "{sent}");
}

#[test]
fn judge_a_repair_names_originals_that_cannot_be_used() {
    let session = drive("repair-lost", "rename");
    let Some(azurite) = account(&session) else { return };
    flip(&session, "data/sub/small.txt", 512);
    flip(&session, "disks/disk.raw", 5 << 20);
    let output = ingest(&session, &azurite.endpoint, &["--logdir", "logs"]);
    assert_eq!(code(&output), 5, "{}", said(&output));
    let log = error_log(&session);
    // One is in two directories, the other was changed.
    for dir in ["one", "two"] {
        fs::create_dir_all(session.path(dir)).expect("a directory");
        fs::copy(session.path("source/sub/small.txt"), session.path(dir).join("small.txt")).expect("copied");
    }
    for (from, to) in [("m.xml", "metadata-00001.xml"), ("p.xml", "properties-00002.xml")] {
        fs::copy(session.path(from), session.path("two").join(to)).expect("copied");
    }
    let mut disk = sparse("disk");
    disk[5 << 20] ^= 1;
    fs::write(session.path("one/disk.raw"), &disk).expect("written");
    let dirs = ["--dir", "one", "--dir", "two"];
    let output = repair(&session, &azurite.endpoint, &log, &dirs);
    assert_eq!(code(&output), 3, "{}", said(&output));
    let map = fs::read_to_string(session.path("map.txt")).expect("a map");
    assert!(map.contains("small.txt\n") && map.contains("disk.raw\n"), "{map}");
    // The classic line, with the originals.
    fs::remove_file(session.path("two/small.txt")).expect("removed");
    fs::write(session.path("one/disk.raw"), sparse("disk")).expect("written");
    let key = session.path("azurite/account.key").display().to_string();
    let classic =
        format!("RepairImport /R:r.rep /d:one;two /sk:@{key} /copylogfile:{} /PathMapFile:map.txt", log.display());
    let words: Vec<&str> = classic.split(' ').chain(["--endpoint", &azurite.endpoint, "--retry-for", "1"]).collect();
    let output = crate::common::dray_in(&session.dir, &words);
    assert_eq!(code(&output), 0, "{}", said(&output));
    all_there(&azurite);
}
