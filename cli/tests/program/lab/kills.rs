//! Machines killed while drives are written, and sessions resumed after that.

use std::collections::BTreeMap;
use std::fs;

use dray_base::entropy::Seeded;
use dray_testdisks::judge;

use super::machine::{Disk, KILLED, Lab, difference, looks_finished, number};

/// A disk as an argument of `kills.sh`.
fn word(disk: &Disk, sectors: u64) -> String {
    format!("{}:{}:{sectors}", disk.name, disk.serial)
}

fn keep(lab: &Lab, disk: &Disk, from: &str, to: &str) {
    lab.copy(&format!("{from}{}", disk.name), &format!("{to}{}", disk.name));
    lab.copy(&format!("{from}{}.img", disk.name), &format!("{to}{}.img", disk.name));
}

fn exit(lab: &Lab, disk: &Disk) -> (String, String) {
    let read = |end: &str| lab.read(&format!("{}.{end}", disk.name));
    (read("exit").trim().to_owned(), read("out"))
}

/// Kills the machine `DRAY_KILLS` times (seeded by `DRAY_KILLS_SEED`), the buses in turn.
#[test]
#[ignore = "a minute a kill and more: scripts/vm-campaign"]
fn judge_a_killed_machine_leaves_a_session_that_goes_on_to_the_same_drive() {
    let rounds = number("DRAY_KILLS", 1);
    let lab = Lab::new("lab-kills", |data| {
        data.small(120, 4).expect("files");
        data.large(40 << 20, 12 << 20).expect("files");
    });
    // Slow enough that it can be killed anywhere.
    let slow = ",bps=20000000";
    let mut disks = vec![
        lab.disk("usb", "usb", 160, "KILLUSB00001", slow),
        lab.disk("ahci", "ahci", 160, "KILLAHCI0001", slow),
        lab.disk("scsi", "scsi", 160, "KILLSCSI0001", &format!("{slow},logical=4096,physical=4096")),
        lab.disk("nvme", "nvme", 160, "KILLNVME0001", slow),
    ];
    disks.truncate(rounds as usize);
    // All disks except the one with 4096-byte sectors were finished before: their leftovers must not look like a drive.
    for disk in disks.iter().filter(|disk| disk.name != "scsi") {
        lab.finish_before(&disk.image);
    }
    let all = |how: &str| {
        let words: Vec<String> = disks.iter().map(|disk| word(disk, 0)).collect();
        format!("kills.sh {how} {}", words.join(" "))
    };
    // A disk that is not there later: the others get other names.
    let others = [&disks[..], &[lab.disk("other", "scsi", 20, "KILLOTHER001", "")]].concat();
    let Some(status) = lab.run(&others, &all("begin")) else { return };
    assert_eq!(status, KILLED, "the first kill");
    fs::create_dir_all(lab.path("begun")).expect("a directory");
    fs::create_dir_all(lab.path("whole")).expect("a directory");
    for disk in &disks {
        assert!(!lab.path(&format!("{}.exit", disk.name)).exists(), "{}: over before the kill", disk.name);
        keep(&lab, disk, "", "begun/");
    }
    assert_eq!(lab.run(&disks, &all("finish")), Some(0));
    let dataset = lab.dataset_here();
    let mut total = BTreeMap::new();
    for disk in &disks {
        let (status, words) = exit(&lab, disk);
        assert_eq!(status, "0", "{}: {words}", disk.name);
        total.insert(disk.name, lab.read(&format!("{}.sectors", disk.name)).trim().parse::<u64>().expect("a number"));
        keep(&lab, disk, "", "whole/");
        let record = fs::read_dir(lab.path(disk.name)).expect("a directory").filter_map(Result::ok);
        let record = record.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|end| end == "xml"));
        judge::drive(&disk.image, &record.expect("a drive record"), Some(&dataset), false)
            .expect_pass("scripts/judge-drive");
    }

    let seed = number("DRAY_KILLS_SEED", 1);
    let mut random = Seeded::new(seed);
    let (mut unfinished, mut complete) = (0, 0);
    for round in 0..rounds {
        let disk = &disks[round as usize % disks.len()];
        keep(&lab, disk, "begun/", "");
        // The last of them may come too late; then the drive is whole already, or its read-back was cut.
        let at = random.next_u64() % (total[disk.name] + 1);
        let whole = lab.path(&format!("whole/{}.img", disk.name));
        let one = std::slice::from_ref(disk);
        let name = format!("round {round} of seed {seed}, {} at {at} of {} sectors", disk.name, total[disk.name]);
        assert_eq!(lab.run(one, &format!("kills.sh kill {}", word(disk, at))), Some(KILLED), "{name}");
        if looks_finished(&disk.image) {
            complete += 1;
            assert_eq!(difference(&disk.image, &whole, false), None, "{name}: looks finished and is not");
        } else {
            unfinished += 1;
        }
        assert_eq!(lab.run(one, &format!("kills.sh finish {}", word(disk, 0))), Some(0), "{name}");
        let (status, words) = exit(&lab, disk);
        let is_over = status == "1" && words.contains("completed");
        assert!(status == "0" || is_over, "{name}: exit {status}: {words}");
        assert_eq!(difference(&disk.image, &whole, true), None, "{name}: resumed to another drive");
        println!("{name}: resumed to the same drive");
    }
    println!(
        "{rounds} machines killed while a session went on, and one while {} began: {unfinished} drives were unfinished, \
         {complete} complete; all became the same drive",
        disks.len()
    );
}
