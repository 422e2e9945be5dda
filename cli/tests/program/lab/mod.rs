//! Real buses: drives prepared inside a virtual machine (`scripts/vm`), where the kernel's own drivers are the judges.
//!
//! Environment variables turn it into a campaign (`scripts/vm-campaign`).

mod faults;
mod kills;
mod machine;
mod write_log;

use std::fs;

use machine::{Lab, difference, number};

#[test]
fn judge_the_kernel_opens_drives_of_every_bus() {
    let lab = Lab::new("lab-buses", |data| {
        data.small(150, 4).expect("files");
        data.large(14 << 20, 5 << 20).expect("files");
    });
    let log = lab.path("writes.log");
    let sata = ",model=WDC_LAB,rotation=7200,physical=4096";
    let mut disks = vec![
        lab.disk("ahci", "ahci", 256, "WD-AHCI00001", &format!("{sata},log={}", log.display())),
        lab.disk("scsi", "scsi", 256, "SCSI4KN00001", ",logical=4096,physical=4096"),
        lab.disk("usb", "usb", 256, "USB000000001", ""),
        lab.disk("nvme", "nvme", 256, "NVME00000001", ""),
    ];
    let first = disks[0].image.clone();
    lab.finish_before(&first);
    let base = lab.path("base.img");
    fs::copy(&first, &base).expect("a copy");
    // The SATA disk is one of 512e already.
    let is_campaign = number("DRAY_MARKS", 1) > 1;
    if is_campaign {
        disks.push(lab.disk("512e", "scsi", 256, "SCSI512E0001", ",logical=512,physical=4096"));
    }
    if !lab.succeeds(&disks, if is_campaign { "buses.sh 512e" } else { "buses.sh" }) {
        return;
    }
    for name in disks.iter().map(|disk| disk.name) {
        assert_eq!(lab.read(&format!("{name}.exit")).trim(), "0", "{name}: {}", lab.read(&format!("{name}.out")));
        assert_eq!(lab.read(&format!("{name}.verdict")).trim(), "all files", "{name}");
    }
    for words in ["is attached by USB", "ship the bare drive", "does not report its own serial"] {
        assert!(lab.read("usb.out").contains(words), "{}", lab.read("usb.out"));
    }
    assert!(lab.read("nvme.out").contains("the service does not take"), "{}", lab.read("nvme.out"));
    assert!(!lab.read("ahci.out").contains("not for shipping"), "{}", lab.read("ahci.out"));
    devices(&lab);

    // Every power cut that the log allows; and from some flushes the session is resumed, with its files as they were
    // then.
    let entries = write_log::entries(&log);
    let whole = lab.path("whole.img");
    fs::rename(&first, &whole).expect("renamed");
    fs::copy(&base, &first).expect("a copy");
    write_log::cut_everywhere(&first, &entries);
    disks.truncate(1);
    disks[0].options = sata.to_owned();
    let kept = (1..).take_while(|mark| lab.path(&format!("marks/{mark}.at")).exists()).count();
    assert!(kept >= 6, "a checkpoint at the beginning, and behind each of at least five flushes: {kept}");
    let wanted = (number("DRAY_MARKS", 1) as usize).clamp(1, kept);
    let mut resumed = Vec::new();
    for (seed, mark) in (0..wanted).map(|i| (i as u64, 1 + kept * (2 * i + 1) / (2 * wanted))) {
        let log_len = lab.read(&format!("marks/{mark}.at")).trim().parse().expect("a length");
        fs::copy(&base, &first).expect("a copy");
        write_log::cut_at(&first, &entries, log_len, seed);
        lab.copy(&format!("marks/{mark}"), "ahci");
        assert_eq!(lab.run(&disks, "kills.sh finish ahci:WD-AHCI00001"), Some(0));
        assert_eq!(lab.read("ahci.exit").trim(), "0", "checkpoint {mark}: {}", lab.read("ahci.out"));
        assert_eq!(difference(&first, &whole, true), None, "checkpoint {mark}: resumed to another drive");
        resumed.push(mark);
    }
    println!("power cuts behind checkpoints {resumed:?} of {kept}: resumed to the same drive");
}

/// Checks the output of `dray devices` on the blank disks.
fn devices(lab: &Lab) {
    let devices = lab.read("devices.json");
    let of = |serial: &str| devices.lines().find(|line| line.contains(serial)).unwrap_or_default();
    for (serial, words) in [
        (
            "WD-AHCI00001",
            &["\"transport\":\"SATA\"", "\"verdict\":\"usable\"", "\"physical_sector\":4096", "\"passed\":true"][..],
        ),
        ("SCSI4KN00001", &["\"transport\":\"SCSI\"", "\"verdict\":\"not for shipping\"", "\"logical_sector\":4096"]),
        ("USB000000001", &["\"transport\":\"USB\"", "\"bridge_serial\":\"USB000000001\"", "\"negotiated\""]),
        ("NVME00000001", &["\"transport\":\"NVMe\"", "\"verdict\":\"not for shipping\""]),
    ] {
        for word in words {
            assert!(of(serial).contains(word), "{serial}: {word}: {devices}");
        }
    }
}

/// Checks that `count` gates worked, and none failed.
fn all_good(lab: &Lab, count: usize) {
    assert_eq!(lab.read("bad"), "");
    assert_eq!(lab.lines("good").len(), count, "{:?}", lab.lines("good"));
}

#[test]
#[ignore = "two minutes: scripts/vm-campaign"]
fn judge_gates_refuse_on_real_buses() {
    let lab = Lab::new("lab-gates", |data| data.small(20, 2).expect("files"));
    let disks = [
        lab.disk("ahci", "ahci", 256, "WD-GATE00001", ",model=WDC_LAB"),
        lab.disk("scsi", "scsi", 256, "GATE4KN00001", ",logical=4096,physical=4096"),
        lab.disk("twin", "scsi", 256, "TWIN00000001", ""),
        lab.disk("other", "scsi", 256, "TWIN00000001", ""),
        lab.disk("small", "scsi", 20, "SMALL0000001", ""),
        lab.disk("card", "usb", 256, "CARDREADER01", ",removable=on"),
    ];
    if !lab.succeeds(&disks, "gates.sh") {
        return;
    }
    all_good(&lab, 25);
    let doctor = lab.read("doctor.json");
    for what in ["kernel", "io_uring", "locked memory", "permissions", "smartctl"] {
        let line = doctor.lines().find(|line| line.contains(&format!("\"what\":\"{what}\""))).unwrap_or_default();
        assert!(line.contains("\"state\":\"good\""), "{what}: {doctor}");
    }
}

#[test]
#[ignore = "two minutes: scripts/vm-campaign"]
fn judge_gates_refuse_what_became_another() {
    let lab = Lab::new("lab-gates-more", |data| data.large(16 << 20, 4 << 20).expect("files"));
    let disks = [
        lab.disk("root", "scsi", 128, "ROOT00000001", ""),
        lab.disk("held", "scsi", 128, "HELD00000001", ""),
        lab.disk("one", "scsi", 128, "SWAPA0000001", ""),
        lab.disk("two", "scsi", 128, "SWAPB0000001", ""),
        lab.disk("there", "scsi", 128, "THERE0000001", ""),
    ];
    lab.finish_before(&disks[4].image);
    if !lab.succeeds(&disks, "gates-more.sh") {
        return;
    }
    all_good(&lab, 11);
}
