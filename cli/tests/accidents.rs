//! What goes wrong while a drive is written: a killed process, sources that change, real block devices.

mod common;

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{Session, said};
use dray_engine::entropy::Seeded;
use dray_testdisks::dataset::Dataset;
use dray_testdisks::judge;

/// Where the volume begins on a GPT drive: behind table and reserved partition.
const VOLUME_AT: u64 = 17 << 20;

/// What libblkid takes the bytes at `offset` for; empty when for nothing. `None` where blkid is missing.
fn blkid(image: &Path, offset: u64) -> Option<String> {
    let output =
        Command::new("blkid").args(["-p", "-o", "export", "-O", &offset.to_string()]).arg(image).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn source(session: &Session, fill: impl FnOnce(&mut Dataset)) {
    let source = session.path("source");
    let mut data = Dataset::new(&source, 3).expect("a dataset");
    fill(&mut data);
    data.finish().expect("a dataset");
    session.dataset(&[&format!("\"{}/\",data/,BlockBlob,rename,None,None", source.display())]);
}

/// Waits until the session has begun to write: until then the journal is not there.
fn wait_for_start(session: &Session, child: &mut Child) {
    let until = Instant::now() + Duration::from_secs(60);
    while !session.path("journal.jrn").exists() {
        assert!(child.try_wait().expect("a child").is_none(), "it ended before it began to write");
        assert!(Instant::now() < until, "it never began to write");
        sleep(Duration::from_millis(1));
    }
}

#[test]
fn judge_killed_at_any_moment_it_looks_like_no_drive() {
    let session = Session::new("killed");
    source(&session, |data| data.large(60 << 20, 9 << 20).expect("files"));
    let image = session.path("drive.img");
    session.driveset(&[format!("{}:200MB", image.display())]);
    session.prepare(&[]);
    session.driveset(&[image.display().to_string()]);
    if blkid(&image, 0).is_none() {
        eprintln!("SKIPPED judge: blkid is not here");
        return;
    }
    assert!(blkid(&image, 0).is_some_and(|found| found.contains("gpt")), "a finished drive is recognised");
    assert!(blkid(&image, VOLUME_AT).is_some_and(|found| found.contains("BitLocker")));
    let mut random = Seeded::new(20);
    let mut killed = 0;
    for round in 0..12 {
        // A fresh journal, and a finished drive underneath: the worst that can be left behind.
        let _ = fs::remove_file(session.path("journal.jrn"));
        let mut child = session
            .command(&["--yes", "drive"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary runs");
        wait_for_start(&session, &mut child);
        // From the first wipe to long after the end.
        sleep(Duration::from_millis(300 + random.next_u64() % 600));
        let ended = child.try_wait().expect("a child").is_some();
        child.kill().expect("killed");
        child.wait().expect("gone");
        if ended {
            continue;
        }
        killed += 1;
        let (table, volume) = (blkid(&image, 0).expect("blkid"), blkid(&image, VOLUME_AT).expect("blkid"));
        let backup = fs::read(&image).expect("the image");
        let backup = backup.len() - 512..backup.len() - 504;
        let has_backup = &fs::read(&image).expect("the image")[backup] == b"EFI PART";
        let complete = table.contains("gpt") && volume.contains("BitLocker") && has_backup;
        assert!(
            complete || !table.contains("gpt"),
            "round {round}: an unfinished drive has a partition table: {table} {volume}"
        );
        // The record with the key was there before the first write.
        assert!(session.path("drive.xml").exists());
    }
    assert!(killed > 3, "only {killed} of 12 were killed in time: the moments are badly chosen");
}

#[test]
fn judge_sources_that_change_are_left_out_and_named() {
    let session = Session::new("changing");
    source(&session, |data| {
        data.file("a-large", 400 << 20).expect("a large file");
        for name in ["kept", "z-gone", "z-grown", "z-longer", "z-shrunk", "z-touched"] {
            data.file(name, if name == "z-longer" { 5 << 20 } else { 20_000 }).expect("a file");
        }
    });
    session.driveset(&[format!("{}:600MB", session.path("drive.img").display())]);
    let mut child =
        session.command(&[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    wait_for_start(&session, &mut child);
    let at = |name: &str| session.path("source").join(name);
    fs::remove_file(at("z-gone")).expect("removed");
    let write = |name: &str| OpenOptions::new().write(true).open(at(name)).expect("a file");
    write("z-grown").set_len(30_000).expect("grown");
    write("z-longer").set_len(6 << 20).expect("grown");
    write("z-shrunk").set_len(10_000).expect("shrunk");
    write("z-touched").set_modified(std::time::SystemTime::now()).expect("touched");
    let output = child.wait_with_output().expect("the binary ends");
    let words = said(&output);
    assert_eq!(output.status.code(), Some(3), "{words}");
    for name in ["z-gone", "z-grown", "z-longer", "z-shrunk", "z-touched"] {
        assert!(words.contains(name), "{name} is not named: {words}");
    }
    assert!(!words.contains("source/kept"), "{words}");
    // The volume and its manifest hold the two others, and nothing of these.
    judge::drive(&session.path("drive.img"), &session.path("drive.xml"), Some(&session.path("dataset.csv")), true)
        .expect_pass("scripts/judge-drive");
    let _ = fs::remove_file(session.path("drive.img"));
}

#[test]
fn judge_loop_devices_of_both_sector_sizes() {
    for sector in ["512", "4096"] {
        let session = Session::new(&format!("loop-{sector}"));
        source(&session, |data| {
            data.large(50 << 20, 13 << 20).expect("files");
            data.small(200, 20).expect("files");
        });
        let backing = session.path("backing");
        fs::File::create(&backing).and_then(|file| file.set_len(200 << 20)).expect("a backing file");
        let made = Command::new("losetup").args(["--find", "--show", "--sector-size", sector]).arg(&backing).output();
        let Some(made) = made.ok().filter(|made| made.status.success()) else {
            eprintln!("SKIPPED judge: no loop device of {sector}-byte sectors (needs root)");
            continue;
        };
        let node = String::from_utf8_lossy(&made.stdout).trim().to_owned();
        session.driveset(std::slice::from_ref(&node));
        let name = node.trim_start_matches("/dev/").to_owned();
        let refused = session.run(&[]);
        let done = session.run(&["--yes", &name, "--drive-id", "drive"]);
        let yes = session.run(&["--yes", "drive", "--drive-id", "drive"]);
        let detached = Command::new("losetup").args(["--detach", &node]).status();
        assert_eq!(refused.status.code(), Some(2), "a device needs consent, blank or not: {}", said(&refused));
        assert_eq!(done.status.code(), Some(2), "consent names the drive id: {}", said(&done));
        assert_eq!(yes.status.code(), Some(0), "{}", said(&yes));
        assert!(detached.is_ok_and(|status| status.success()), "{node} stays attached");
        fs::rename(&backing, session.path("drive.img")).expect("renamed");
        judge::drive(&session.path("drive.img"), &session.path("drive.xml"), Some(&session.path("dataset.csv")), false)
            .expect_pass("scripts/judge-drive");
        let _ = fs::remove_file(session.path("drive.img"));
    }
}
