//! Keys from outside: files in every form, descriptors, and input at a terminal.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::common::fixtures::{Image, fixture, unpack};
use crate::common::{dray, run, scratch, unbroken, words as said};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// Password of `bitlk-aes-xts-128`, published by its makers.
const PASSWORD: &str = "anaconda";
const NUMERICAL: &str = "235818-357951-253979-013365-241120-245575-342914-591910";

fn volume(owner: &str) -> Option<Image> {
    unpack(owner, "bitlocker/bitlk-aes-xts-128.img.xz")
}

fn file(owner: &str, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
    let path = scratch(&format!("{owner}-keys-{name}")).join(name);
    fs::write(&path, contents).expect("a key file");
    path
}

#[test]
fn every_form_of_a_key_file_opens_the_drive() {
    let Some(image) = volume("key-forms") else { return };
    let entry = format!("{{\"driveId\": \"9WM35C2V\", \"bitLockerKey\": \"{NUMERICAL}\"}}");
    let other =
        "{\"driveId\": \"OTHER\", \"bitLockerKey\": \"060456-014509-132033-080300-252615-584177-672089-411631\"}";
    let record = format!(
        "[BeginUpdateRecord][2016/11/01 21:22:25.379][Type:ActivityRecord]\r\nActivityId: DriveInfo\r\n\
         DriveState: [BeginValue]\r\n<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<Drive>\r\n   <DriveId>9WM35C2V</DriveId>\r\n   \
         <BitLockerKey>{NUMERICAL}</BitLockerKey>\r\n   <ManifestFile>\\DriveManifest.xml</ManifestFile>\r\n   \
         <ManifestHash>D863FE44F861AE0DA4DCEAEEFFCCCE68</ManifestHash>\r\n</Drive>\r\n[EndValue]\r\n\
         SaveCommandOutput: Completed\r\n[EndUpdateRecord]\r\n"
    );
    let windows: Vec<u8> = [0xFF, 0xFE]
        .into_iter()
        .chain(format!("Recovery Key:\r\n\r\n\t{NUMERICAL}\r\n").encode_utf16().flat_map(u16::to_le_bytes))
        .collect();
    for (name, contents, by) in [
        ("digits", NUMERICAL.as_bytes().to_vec(), "numerical password"),
        ("password", format!("{PASSWORD}\n").into_bytes(), "password"),
        ("9WM35C2V.xml", record.into_bytes(), "numerical password"),
        ("keys.json", format!("{{\"value\": [{other}, {entry}]}}").into_bytes(), "numerical password"),
        ("job.json", format!("{{\"properties\": {{\"driveList\": [{entry}]}}}}").into_bytes(), "numerical password"),
        ("saved.txt", windows, "numerical password"),
    ] {
        let key = file("key-forms", name, contents);
        let output = run(dray(["unlock", image.name(), "--key-file"]).arg(&key));
        assert_eq!(output.status.code(), Some(0), "{name}: {}", said(&output));
        assert!(said(&output).contains(&format!("the {by} opens")), "{name}: {}", said(&output));
        assert!(!said(&output).contains("235818"), "{name}");
    }
    // From a descriptor.
    let key = file("key-forms", "descriptor", NUMERICAL);
    let output = run(dray(["unlock", image.name(), "--key-fd", "0"]).stdin(File::open(key).expect("there")));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

#[test]
fn external_keys_open_in_every_form_of_late_exports() {
    let Some(image) = unpack("key-external", "bitlocker/bitlk-aes-xts-128-startup-key.img.xz") else { return };
    let Some(bek) = fixture("bitlocker/4381F759-C4F8-4DE0-BB61-FC33A831BDA5.BEK") else { return };
    let bytes = fs::read(&bek).expect("readable");
    let coded = |bytes: &[u8]| {
        let path = file("key-external", "raw", bytes);
        let output = run(Command::new("base64").arg("-w0").arg(path));
        output.stdout
    };
    // A .BEK file of Windows 10 ends with the 32 bytes of its key.
    let bare = coded(&bytes[bytes.len() - 32..]);
    assert_eq!(bare.len(), 44);
    let whole = coded(&bytes);
    for (name, path) in [
        ("bek", bek),
        ("whole", file("key-external", "whole.txt", whole)),
        ("bare", file("key-external", "bare.txt", &bare)),
    ] {
        let output = run(dray(["unlock", image.name(), "--json", "--key-file"]).arg(&path));
        assert_eq!(output.status.code(), Some(0), "{name}: {}", said(&output));
        assert!(said(&output).contains("\"by\":\"external key\""), "{name}: {}", said(&output));
    }
    let classic = format!("/externalKey:@{}", file("key-external", "classic.txt", &bare).display());
    let output = run(&mut dray(["Unlock", &classic, &format!("/driveLetter:{}", image.name())]));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("mount -o ro"), "{}", said(&output));
}

#[test]
fn what_is_wrong_with_a_key_is_said() {
    let Some(image) = volume("key-wrong") else { return };
    for (name, contents, part) in [
        ("slip", NUMERICAL.replace("253979", "253978"), "group 3"),
        ("short", NUMERICAL[7..].to_owned(), "7 groups"),
        ("other", "060456-014509-132033-080300-252615-584177-672089-411631".into(), "does not open"),
        ("password", "wrong horse".into(), "does not open"),
        ("record", "<Drive><DriveId>D1</DriveId><BitLockerKey>nonsense</BitLockerKey></Drive>".into(), "drive D1"),
        ("empty", String::new(), "empty"),
        ("json", "{\"value\": []}".into(), "bitLockerKey"),
    ] {
        let key = file("key-wrong", name, &contents);
        let output = run(dray(["unlock", image.name(), "--key-file"]).arg(&key));
        assert_eq!(output.status.code(), Some(1), "{name}: {}", said(&output));
        let said = said(&output).replace("\n  ", " ").replace("  ", " ");
        assert!(said.contains(part), "{name}: {said}");
        assert!(contents.len() < 8 || !said.contains(&contents), "{name}: {said}");
    }
    let output = run(&mut dray(["unlock", image.name()]));
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("--key-file"), "{}", said(&output));
    let output = run(&mut dray(["unlock", "/nonexistent/drive"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("cannot be found"), "{}", said(&output));
}

/// Simulates a person who types an answer at each prompt; returns the terminal's contents, without line breaks.
fn person(args: &[&str], answers: &[&str]) -> (String, Option<i32>) {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&controller).and_then(|()| unlockpt(&controller)).expect("a terminal");
    let name = ptsname(&controller, Vec::new()).expect("its name").into_string().expect("UTF-8");
    let side =
        || Stdio::from(OwnedFd::from(File::options().read(true).write(true).open(&name).expect("its other side")));
    let mut child = dray(args).stdin(side()).stdout(side()).stderr(side()).spawn().expect("the binary runs");
    let mut controller = File::from(controller);
    let (mut shown, mut asked) = (String::new(), 0);
    let mut buffer = [0; 4096];
    // Reading fails when the last other side is closed: when the program has ended.
    while let Ok(len) = controller.read(&mut buffer) {
        if len == 0 {
            break;
        }
        shown.push_str(&String::from_utf8_lossy(&buffer[..len]));
        let questions = shown.matches("Key of ").count();
        while asked < questions && shown.ends_with(": ") {
            let answer = answers.get(asked).expect("not asked more often than foreseen");
            controller.write_all(answer.as_bytes()).expect("typed");
            asked += 1;
        }
    }
    (unbroken(&shown), child.wait().expect("ends").code())
}

#[test]
fn a_person_is_asked_and_what_they_type_is_not_shown() {
    let Some(image) = volume("key-person") else { return };
    let (shown, code) = person(&["unlock", image.name()], &["anaconda\r"]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("numerical password, password"), "{shown}");
    assert!(shown.contains("stretching the key"), "{shown}");
    assert!(!shown.contains(PASSWORD), "{shown}");

    let slip = format!("{}\r", NUMERICAL.replace("253979", "253978"));
    let (shown, code) = person(&["unlock", image.name()], &[&slip, &format!("{NUMERICAL}\r")]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("group 3") && !shown.contains("235818"), "{shown}");

    let (shown, code) = person(&["unlock", image.name()], &["wrong\r", "wrong\r", "wrong\r"]);
    assert_eq!(code, Some(1), "{shown}");
    assert_eq!(shown.matches("does not open").count(), 3, "{shown}");

    let (shown, code) = person(&["unlock", image.name()], &["half\x03"]);
    assert_eq!(code, Some(1), "{shown}");
}
