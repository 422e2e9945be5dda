//! `dray repair-export`: damaged blocks are put right in place, from a second copy and from an account. The judge is the
//! image as it was before the damage, byte by byte, encrypted.

use std::fs;
use std::path::Path;
use std::process::Output;

use dray_testdisks::azurite::Azurite;
use dray_testdisks::traced::Traced;
use serde_json::Value;

use crate::common::{Session, code, said};
use crate::rehearse::{CUT, Damage, contents, drive, opened, places};

const MANY: usize = 9 << 20;

/// A prepared drive, the bytes of its image, and a copy of its blobs.
fn prepared(name: &str) -> (Session, Vec<u8>) {
    let session = drive(name);
    session.works("verify drive.img --key-file drive.xml --extract-to copy");
    let image = fs::read(session.path("drive.img")).expect("the image");
    (session, image)
}

/// Wrong bytes in the second block of three, in the last sector of a file, which it shares with nothing, and in a page range.
fn damage(session: &Session) {
    let opened = opened(session);
    let mut damage = Damage::new(session);
    let many = contents(MANY as u32, MANY);
    let cut = contents(CUT as u32, CUT);
    let page = contents(3, 4096);
    for (whole, skip, len) in [(&many, 5 << 20, 70_000), (&cut, CUT - 100, 100), (&page, 512, 512)] {
        let at = places(&opened, &whole[..64]);
        assert_eq!(at.len(), 1);
        let wrong: Vec<u8> = whole[skip..skip + len].iter().map(|byte| !byte).collect();
        damage.put(&opened, at[0] + skip as u64, &wrong);
    }
    damage.stay();
}

fn answer(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut last = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    last.rfind(|value| value["type"] == "repaired_export").unwrap_or_else(|| panic!("{}", said(output)))
}

fn is_same(image: &Path, before: &[u8]) -> bool {
    fs::read(image).expect("the image") == before
}

#[test]
fn damaged_blocks_are_put_right_from_a_second_copy_and_nothing_else_changes() {
    let (session, before) = prepared("repair-copy");
    damage(&session);
    let image = session.path("drive.img");
    let damaged = fs::read(&image).expect("the image");
    session.dray("rehearse drive.img --record drive.xml --logs logs");
    let log = fs::read_dir(session.path("logs")).expect("logs").map(|entry| entry.expect("an entry").path());
    let log = log.into_iter().find(|path| path.to_string_lossy().ends_with("_error.xml")).expect("a log of errors");
    // A source with other content is refused, block by block, and nothing is written.
    fs::create_dir_all(session.path("other/data/sub")).expect("a directory");
    for (name, len) in [("many", MANY), ("cut", CUT)] {
        fs::write(session.path("other/data/sub").join(name), contents(7, len)).expect("a file");
    }
    let output = session.dray("repair-export drive.img --key-file drive.xml --from other --yes drive --json");
    let value = answer(&output);
    assert_eq!((code(&output), value["left"].as_array().map(Vec::len)), (5, Some(3)), "{}", said(&output));
    assert!(value["left"].to_string().contains("other content"), "{value}");
    assert!(is_same(&image, &damaged), "a block with another hash is not written");
    // Nobody agreed.
    let output = session.dray("repair-export drive.img --key-file drive.xml --from copy");
    assert_eq!(code(&output), 2, "{}", said(&output));
    assert!(is_same(&image, &damaged));
    // By the log of errors: three blocks, and the drive is byte for byte what it was.
    let line = format!(
        "repair-export drive.img --key-file drive.xml --from copy --copy-log {} --repair-file d.rep --yes drive --json",
        log.display()
    );
    let output = session.dray(&line);
    let value = answer(&output);
    assert_eq!((code(&output), value["repaired"].as_array().map(Vec::len)), (0, Some(3)), "{}", said(&output));
    assert_eq!((&value["equal"], &value["blobs"]), (&3.into(), &3.into()), "only what the log says failed: {value}");
    assert!(is_same(&image, &before), "the image is what it was, encryption included");
    session.works("verify drive.img --key-file drive.xml");
    // Again: nothing to do. A repair file of another drive is refused.
    let output = session.dray(&line);
    let value = answer(&output);
    assert_eq!((code(&output), value["repaired"].as_array().map(Vec::len)), (0, Some(0)), "{}", said(&output));
    damage(&session);
    let text = fs::read_to_string(session.path("d.rep")).expect("a repair file");
    fs::write(session.path("d.rep"), text.replace("\tdrive\t", "\tother\t")).expect("written");
    let output = session.dray(&line);
    assert_eq!(code(&output), 2, "{}", said(&output));
    assert!(is_same(&image, &damaged));
}

#[test]
fn what_no_block_can_put_right_is_told_and_left() {
    let (session, _) = prepared("repair-beyond");
    // Without a source, with a manifest that has another hash, with a file that is shorter than the manifest says.
    let output = session.dray("repair-export drive.img --key-file drive.xml");
    assert_eq!(code(&output), 1, "{}", said(&output));
    let output = session.dray(
        "repair-export drive.img --key-file drive.xml --from copy --manifest-hash 00112233445566778899AABBCCDDEEFF",
    );
    assert_eq!(code(&output), 2, "{}", said(&output));
    let long = format!("Length=\"{}\"", CUT + 1);
    let edits = [(format!("Length=\"{CUT}\""), long), (format!("<Length>{CUT}<"), format!("<Length>{}<", CUT + 1))];
    let edits: Vec<(&str, &str)> = edits.iter().map(|(old, new)| (old.as_str(), new.as_str())).collect();
    let damage = Damage::manifest(&session, &edits);
    let before = fs::read(session.path("drive.img")).expect("the image");
    let output = session.dray("repair-export drive.img --key-file drive.xml --from copy --yes drive --json");
    let value = answer(&output);
    assert_eq!(code(&output), 5, "{}", said(&output));
    assert!(value["beyond"][0]["why"].as_str().is_some_and(|why| why.contains("grown")), "{value}");
    assert!(is_same(&session.path("drive.img"), &before));
    drop(damage);
}

#[test]
fn a_repair_that_was_killed_goes_on() {
    let (session, before) = prepared("repair-killed");
    damage(&session);
    let image = session.path("drive.img");
    let line = "repair-export drive.img --key-file drive.xml --from copy --repair-file d.rep --yes drive";
    let damaged = fs::read(&image).expect("the image");
    let mut was_half = false;
    for wanted in 1..6 {
        let mut run = match Traced::start(&session.program(line), &session.dir) {
            Ok(run) => run,
            Err(error) => return eprintln!("SKIPPED judge: a program cannot be traced here: {error}"),
        };
        let mut calls = 0;
        let is_reached = run.until(|now| {
            calls += usize::from(now.is_write());
            calls > wanted
        });
        if !is_reached.expect("the trace goes on") {
            run.finish().expect("it ends");
            break;
        }
        run.kill().expect("killed");
        let now = fs::read(&image).expect("the image");
        was_half |= now != damaged && now != before;
    }
    session.works(line);
    assert!(is_same(&image, &before), "finished after kills (half done: {was_half})");
    session.works("verify drive.img --key-file drive.xml");
}

#[test]
fn an_account_is_a_source() {
    let (session, before) = prepared("repair-account");
    let Some(azurite) = Azurite::open(&session.path("azurite")) else { return };
    let key = azurite.key_file().expect("a key file");
    for (container, name, kind) in
        [("data", "sub/many", "kind=block"), ("data", "sub/cut", "kind=block"), ("pages", "disk", "kind=page")]
    {
        let file = session.path("copy").join(container).join(name);
        if azurite.client(&["put", container, name, &file.to_string_lossy(), kind]).is_none() {
            return;
        }
    }
    damage(&session);
    let line = format!(
        "RepairExport /r:d.rep /d:drive.img /bk:@drive.xml /sn:ignored /sk:@{} /CopyLogFile:none /logdir:logs",
        key.display()
    );
    // The classic line names the account of Azure; the emulator has an address of its own.
    let output = session.dray(&line);
    assert_eq!(code(&output), 1, "a copy log that does not exist: {}", said(&output));
    let line = format!(
        "repair-export drive.img --key-file drive.xml --endpoint {} --account-key-file {} --yes drive --json",
        azurite.endpoint,
        key.display()
    );
    let output = session.dray(&line);
    let value = answer(&output);
    assert_eq!((code(&output), value["repaired"].as_array().map(Vec::len)), (0, Some(3)), "{}", said(&output));
    assert!(is_same(&session.path("drive.img"), &before));
    // The blob is another by now: its blocks are refused.
    damage(&session);
    let damaged = fs::read(session.path("drive.img")).expect("the image");
    fs::write(session.path("new"), contents(9, MANY)).expect("a file");
    let new = session.path("new");
    azurite.client(&["put", "data", "sub/many", &new.to_string_lossy(), "kind=block"]);
    let output = session.dray(&line);
    let value = answer(&output);
    assert_eq!((code(&output), value["left"].as_array().map(Vec::len)), (5, Some(1)), "{}", said(&output));
    assert_eq!(value["left"][0]["place"]["blob"], "data/sub/many", "{value}");
    assert!(!is_same(&session.path("drive.img"), &damaged), "the others are put right");
}
