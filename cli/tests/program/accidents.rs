//! Accidents while a drive is written: a killed process, changing sources, real block devices.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use crate::common::{Session, said};
use dray_base::entropy::Seeded;
use dray_testdisks::judge;
use dray_testdisks::traced::Traced;

/// Offset of the volume on a GPT drive: after table and reserved partition.
const VOLUME_AT: u64 = 17 << 20;

/// Type that libblkid reports for the bytes at `offset`; empty for none. `None` where blkid is missing.
fn blkid(image: &Path, offset: u64) -> Option<String> {
    let output =
        Command::new("blkid").args(["-p", "-o", "export", "-O", &offset.to_string()]).arg(image).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Marks a drive's new stage in the output.
const STAGE: &str = "\"type\":\"stage\"";

/// The stages reported so far, in order.
fn stages(said: &str) -> impl Iterator<Item = &str> {
    said.lines().filter(|line| line.contains(STAGE)).filter_map(|line| {
        let (_, rest) = line.split_once("\"stage\":\"")?;
        Some(rest.split_once('"')?.0)
    })
}

/// The session under trace, reporting its stages; `None`, with a message, where tracing is not allowed.
fn traced(session: &Session, more: &[&str]) -> Option<Traced> {
    let mut command = session.command(more);
    command.arg("--json");
    match Traced::start(&command, &session.dir) {
        Ok(traced) => Some(traced),
        Err(error) => {
            eprintln!("SKIPPED judge: a program cannot be traced here: {error}");
            None
        }
    }
}

/// Position of a run: number of stages reported, and of writing or flushing calls since the last one.
type Moment = (usize, usize);

/// Runs until `end` returns true; it receives the position before each call that writes or flushes.
fn until(run: &mut Traced, mut end: impl FnMut(Moment) -> bool) -> bool {
    let mut at = (0, 0);
    run.until(|moment| {
        if !moment.is_write() {
            return false;
        }
        let reported = stages(moment.said).count();
        at = if reported == at.0 { (reported, at.1 + 1) } else { (reported, 0) };
        reported > 0 && end(at)
    })
    .expect("the trace goes on")
}

/// Resumes or rolls back the killed session, with its journal and its id alone.
fn after(session: &Session, how: &str, engine: &str) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_dray"))
        .args(["prep-import", "--id", "session#1", "--silent", how, "--engine", engine, "--journal"])
        .arg(session.path("journal.jrn"))
        .output()
        .expect("the binary runs")
}

#[test]
fn judge_killed_at_any_moment_it_looks_like_no_drive() {
    let session = Session::new("killed");
    session.source(|data| {
        data.large(40 << 20, 9 << 20).expect("files");
        data.small(300, 20).expect("files");
    });
    let image = session.path("drive.img");
    session.driveset(&[format!("{}:200MB", image.display())]);
    session.prepare(&[]);
    session.driveset(&[image.display().to_string()]);
    if blkid(&image, 0).is_none() {
        eprintln!("SKIPPED judge: blkid is not here");
        return;
    }
    let is_whole = || {
        let (table, volume) = (blkid(&image, 0).expect("blkid"), blkid(&image, VOLUME_AT).expect("blkid"));
        let mut backup = [0; 8];
        let file = fs::File::open(&image).expect("the image");
        file.read_exact_at(&mut backup, file.metadata().expect("its size").len() - 512).expect("its end");
        match (table.contains("gpt"), volume.contains("BitLocker"), &backup == b"EFI PART") {
            (true, true, true) => true,
            (false, _, _) => false,
            _ => panic!("a partition table, and no whole drive: {table} {volume} {backup:?}"),
        }
    };
    assert!(is_whole(), "a finished drive is recognised");
    let start = |more: &[&str]| {
        // A fresh journal, and a finished drive underneath: the worst that can be left behind. Its record is moved away,
        // as the refusal of a record that another journal made advises.
        let _ = fs::remove_file(session.path("journal.jrn"));
        let _ = fs::remove_file(session.path("drive.xml"));
        traced(&session, &[&["--yes", "drive"], more].concat())
    };
    let mut random = Seeded::new(20);
    let mut met = BTreeSet::new();
    for engine in ["auto", "sync"] {
        // One run counts the moments of each stage; of each stage the first, the last and one in between are taken.
        let Some(mut run) = start(&["--engine", engine]) else { return };
        let mut lasts = BTreeMap::new();
        until(&mut run, |(reported, calls)| {
            lasts.insert(reported, calls);
            false
        });
        let ended = run.finish().expect("it ends");
        assert_eq!(ended.code, Some(0), "{}", ended.said);
        assert!(is_whole(), "{}", ended.said);
        let moments: BTreeSet<Moment> = lasts
            .into_iter()
            .flat_map(|(reported, last)| {
                let between = (random.next_u64() % (last as u64 + 1)) as usize;
                // Both engines write in one order: the ends of a stage are taken with one of them.
                let chosen = if engine == "auto" { vec![0, between, last] } else { vec![between] };
                chosen.into_iter().map(move |n| (reported, n))
            })
            .collect();
        let enough = if engine == "auto" { 8 } else { 3 };
        assert!(moments.len() > enough, "hardly a moment to choose: {moments:?}");
        for moment in moments {
            let mut run = start(&["--engine", engine]).expect("it was traced before");
            // Another run may have fewer calls in a stage: then the next stage's first is as good.
            let reached = until(&mut run, |at| at >= moment);
            let ended = run.kill().expect("killed");
            if !reached {
                // The last call of all, and this run had one less.
                assert_eq!(ended.code, Some(0), "{}", ended.said);
                continue;
            }
            assert_eq!(ended.code, None, "killed, and yet it ended: {}", ended.said);
            let stage = stages(&ended.said).last().expect("a stage").to_owned();
            let whole = is_whole();
            assert!(whole || stage != "done", "{engine} {moment:?}: told to be done, and is no drive");
            // Before the first write it is the drive that it was.
            let untouched = stage == "wiping" && moment.1 == 0;
            assert!(
                !whole || untouched || matches!(stage.as_str(), "done" | "flushing" | "read-back"),
                "{engine} {moment:?}: whole while {stage}"
            );
            // The record with the key was there before the first write.
            assert!(session.path("drive.xml").exists());
            // The session is resumed to a whole drive, or rolled back to none. Without a question: consent was given at
            // its start.
            let abort = met.len() % 3 == 2 || stage == "wiping";
            let output = after(&session, if abort { "--abort" } else { "--resume" }, engine);
            let words = said(&output);
            // Killed after its last line it may be complete, and then nothing is left to do.
            let is_over = match output.status.code() {
                Some(0) => words.contains("nothing left to do"),
                Some(1) => words.contains("nothing was rolled back"),
                _ => false,
            };
            if abort && output.status.code() == Some(2) && stage == "done" {
                // A drive that had finished is not destroyed without consent.
                continue;
            }
            assert!(
                output.status.code() == Some(0) || is_over && stage == "done",
                "{engine} {moment:?} {stage}: {words}"
            );
            assert_eq!(is_whole(), !abort || is_over, "{engine} {moment:?} {stage}: {words}");
            assert_eq!(session.path("drive.xml").exists(), !abort || is_over);
            let beside = fs::read_dir(&session.dir).expect("the directory").filter_map(Result::ok);
            let left: Vec<_> = beside
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .filter(|name| [".plan", ".checkpoint", ".outcome"].iter().any(|end| name.ends_with(end)))
                .collect();
            assert!(left.is_empty() || is_over, "{engine} {moment:?} {stage} leaves {left:?}");
            met.insert(stage);
        }
        let mut run = start(&["--engine", engine]).expect("it was traced before");
        assert!(until(&mut run, |(reported, calls)| reported > 3 && calls > 1), "it is killed in the middle");
        run.kill().expect("killed");
        let output = after(&session, "--resume", engine);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        judge::drive(&image, &session.path("drive.xml"), Some(&session.path("dataset.csv")), true)
            .expect_pass("scripts/judge-drive");
    }
    for stage in ["wiping", "data", "metadata", "finishing", "flushing", "done"] {
        assert!(met.contains(stage), "never killed while {stage}: {met:?}");
    }
}

#[test]
fn judge_sources_that_change_are_left_out_and_named() {
    let session = Session::new("changing");
    session.source(|data| {
        for name in ["kept", "z-gone", "z-grown", "z-longer", "z-shrunk", "z-touched"] {
            data.file(name, if name == "z-longer" { 5 << 20 } else { 20_000 }).expect("a file");
        }
    });
    session.driveset(&[format!("{}:100MB", session.path("drive.img").display())]);
    let Some(mut run) = traced(&session, &[]) else { return };
    // Everything is planned, and no source was opened to be read.
    assert!(until(&mut run, |_| true), "it never began to write");
    let at = |name: &str| session.path("source").join(name);
    fs::remove_file(at("z-gone")).expect("removed");
    let write = |name: &str| OpenOptions::new().write(true).open(at(name)).expect("a file");
    write("z-grown").set_len(30_000).expect("grown");
    write("z-longer").set_len(6 << 20).expect("grown");
    write("z-shrunk").set_len(10_000).expect("shrunk");
    write("z-touched").set_modified(std::time::SystemTime::now()).expect("touched");
    let ended = run.finish().expect("it ends");
    let words = ended.said;
    assert_eq!(ended.code, Some(3), "{words}");
    for name in ["z-gone", "z-grown", "z-longer", "z-shrunk", "z-touched"] {
        assert!(words.contains(name), "{name} is not named: {words}");
    }
    assert!(!words.contains("source/kept"), "{words}");
    // The volume and its manifest hold the other one, and nothing of these.
    judge::drive(&session.path("drive.img"), &session.path("drive.xml"), Some(&session.path("dataset.csv")), true)
        .expect_pass("scripts/judge-drive");
    let _ = fs::remove_file(session.path("drive.img"));
}

#[test]
fn judge_loop_devices_of_both_sector_sizes() {
    for sector in ["512", "4096"] {
        let session = Session::new(&format!("loop-{sector}"));
        session.source(|data| {
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
        let yes = match traced(&session, &["--yes", "drive", "--drive-id", "drive"]) {
            Some(mut run) => {
                let mut data = 0;
                let reached = run.until(|moment| {
                    data += usize::from(moment.is_write() && stages(moment.said).last() == Some("data"));
                    data > 2
                });
                assert!(reached.expect("the trace goes on"), "it never wrote data");
                // The kernel finishes its transfers afterwards, and holds the device until then.
                run.kill().expect("killed");
                after(&session, "--resume", "auto")
            }
            None => session.run(&["--yes", "drive", "--drive-id", "drive"]),
        };
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
