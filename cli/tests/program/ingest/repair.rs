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
