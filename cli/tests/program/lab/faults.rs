//! Disks that fail during a session, and the messages; afterwards the session is resumed to a whole drive.

use std::fs;

use dray_testdisks::judge;

use super::machine::{Disk, Lab};
use crate::common::unbroken;

/// Exit status and output, in one line, of a case's first run.
fn first(lab: &Lab, case: &str) -> (String, String) {
    let said = unbroken(&lab.read(&format!("{case}.first.out")));
    (lab.read(&format!("{case}.first.exit")).trim().to_owned(), said)
}

/// Checks that the first run of a case ended with this status and printed all of these words.
fn reported(lab: &Lab, case: &str, exit: &str, words: &[&str]) {
    let (status, said) = first(lab, case);
    assert_eq!(status, exit, "{case}: {said}");
    for word in words {
        assert!(said.contains(word), "{case}: {word:?} in {said}");
    }
    assert!(exit == "0" || exit == "3" || !said.contains("is done after"), "{case}: {said}");
}

/// The offset in the failure message of a case.
fn place(lab: &Lab, case: &str) -> u64 {
    let (_, said) = first(lab, case);
    let (_, rest) = said.split_once(" at byte ").unwrap_or_else(|| panic!("{case}: no place: {said}"));
    let digits: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == ' ').filter(|c| *c != ' ').collect();
    digits.parse().expect("a number")
}

/// Checks that it is the start of the slot that holds the bad byte.
fn near(lab: &Lab, case: &str, bad: u64) {
    let at = place(lab, case);
    assert!(at <= bad && bad < at + 4 * MIB, "{case}: told {at}, bad is {bad}");
}

/// Checks that the repaired session was resumed to its end.
fn mended(lab: &Lab, cases: &[&str]) {
    for case in cases {
        let exit = lab.read(&format!("{case}.exit"));
        assert_eq!(exit.trim(), "0", "{case}: {}", lab.read(&format!("{case}.out")));
    }
}

/// Runs all judges of the host on a finished drive.
fn judged(lab: &Lab, case: &str, disk: &Disk, is_whole: bool) {
    let record = lab.path(&format!("{case}/{}.xml", disk.serial));
    let dataset = lab.dataset_here();
    judge::drive(&disk.image, &record, is_whole.then_some(dataset.as_path()), false).expect_pass("scripts/judge-drive");
}

fn lab(name: &str) -> Lab {
    let lab = Lab::new(name, |data| {
        data.small(24, 4).expect("files");
        data.large(24 << 20, 4 << 20).expect("files");
    });
    fs::create_dir_all(lab.path("extra")).expect("a directory");
    for name in ["extra/a", "extra/b"] {
        fs::File::create(lab.path(name)).and_then(|file| file.set_len(24 << 20)).expect("a sparse file");
    }
    lab
}

const MIB: u64 = 1 << 20;

#[test]
fn judge_a_fault_in_mid_session_is_told_and_the_session_goes_on() {
    let lab = lab("lab-faults");
    let disks = [
        lab.disk("good", "scsi", 88, "GOOD00000001", ""),
        lab.disk("pulled", "scsi", 128, "PULL00000001", ",bps=20000000"),
        lab.disk("hung", "scsi", 128, "HUNG00000001", ",bps=20000000"),
        lab.disk("full", "scsi", 128, "FULL00000001", ",bps=20000000"),
    ];
    if !lab.succeeds(&disks, "faults.sh sick pulled hung full") {
        return;
    }
    reported(
        &lab,
        "sick",
        "4",
        &["writing failed (file data)", "at byte", "1 of 2 drives failed", "GOOD00000001.xml", "--resume"],
    );
    assert!((17 * MIB..88 * MIB).contains(&place(&lab, "sick")), "{}", place(&lab, "sick"));
    reported(&lab, "pulled", "4", &["the drive went away while it was written", "check cable, power and dock"]);
    reported(&lab, "hung", "0", &["warning:", "an operation has been waiting for 2", "Session session#1 is done"]);
    let room = "make room on the journal's disk, then continue with --resume";
    reported(&lab, "full", "8", &["No space left on device", room]);
    mended(&lab, &["sick", "pulled", "full"]);
    judged(&lab, "sick", &disks[0], false);
    judged(&lab, "pulled", &disks[1], true);
    judged(&lab, "full", &disks[3], true);
    println!("4 faults in mid-session: each told, 3 sessions went on, 1 waited");
}

#[test]
#[ignore = "a few minutes: scripts/vm-campaign"]
fn judge_bad_places_lost_sources_and_hanging_devices() {
    let lab = lab("lab-faults-more");
    // In the middle of the data; slow enough that many requests are in flight.
    const BAD: u64 = 36 * MIB;
    let bad = format!(",model=WDC_LAB,bps=20000000,bad={}", BAD / 512);
    let mut disks = vec![
        lab.disk("bad", "ahci", 128, "BADW00000001", &bad),
        lab.disk("unreadable", "scsi", 128, "BADR00000001", &format!(",badread={}", BAD / 512)),
        lab.disk("hole", "scsi", 128, "HOLE00000001", ""),
        lab.disk("src-hole", "scsi", 64, "SRCHOLE00001", ""),
        lab.disk("gone", "scsi", 128, "GONE00000001", ""),
        lab.disk("src-gone", "scsi", 64, "SRCGONE00001", ""),
        lab.disk("stopped", "scsi", 128, "STOP00000001", ",bps=20000000"),
        lab.disk("twice", "scsi", 128, "TWICE0000001", ",bps=20000000"),
    ];
    if !lab.succeeds(&disks, "faults.sh bad unreadable hole gone stopped twice") {
        return;
    }
    // Reported when it is written, not when it is read back, with the offset of the failed request.
    reported(&lab, "bad", "4", &["writing failed (file data)"]);
    near(&lab, "bad", BAD);
    reported(&lab, "unreadable", "4", &["cannot be read back"]);
    near(&lab, "unreadable", BAD);
    reported(&lab, "hole", "3", &["0001.bin"]);
    judged(&lab, "hole", &disks[2], false);
    reported(&lab, "gone", "7", &["went away while it was read", "/mnt/gone/source"]);
    reported(&lab, "stopped", "130", &["does not answer: an operation has been waiting for", "--resume"]);
    reported(&lab, "twice", "130", &["interrupted at once"]);
    let seconds: u64 = lab.read("twice.seconds").trim().parse().expect("seconds");
    assert!(seconds <= 5, "asked twice, it took {seconds} s");
    mended(&lab, &["gone", "stopped", "twice"]);
    judged(&lab, "gone", &disks[4], true);
    judged(&lab, "stopped", &disks[6], true);
    judged(&lab, "twice", &disks[7], true);

    // The places are good again.
    disks.truncate(2);
    disks[0].options = ",model=WDC_LAB".to_owned();
    disks[1].options.clear();
    assert_eq!(lab.run(&disks, "kills.sh finish bad:BADW00000001 unreadable:BADR00000001"), Some(0));
    mended(&lab, &["bad", "unreadable"]);
    judged(&lab, "bad", &disks[0], true);
    judged(&lab, "unreadable", &disks[1], true);
}
