//! The service's checks of a drive, in its order (docs/spec/import-export.md#disks-and-limits).

use crate::bitlocker::read::{ProtectorKind, State};
use crate::gpt::Flaw;
use crate::ntfs::read::BackupBoot;
use crate::verify::files::Files;
use crate::verify::find::{Inside, Opened};
use crate::verify::key::Record;
use crate::verify::listing::Listing;
use crate::verify::result::{Answer, Check};

pub(super) const NTFS: &str = "first data volume is NTFS";
pub(super) const MANIFEST: &str = "manifest is found and readable";
pub(super) const MANIFEST_HASH: &str = "manifest has the hash that the job has";
/// A check of dray's own, which the service does not make.
pub(super) const FINISHED: &str = "preparing the drive was finished";
const TABLES: &str = "both partition tables are sound";
const LENGTH: &str = "volume lies on the disk from end to end";
const BACKUP_BOOT: &str = "both boot sectors of NTFS are equal";

fn check(question: &'static str, status: &'static str, answer: Answer, seen: impl Into<String>) -> Check {
    Check { question, status, answer, seen: seen.into() }
}

/// A failed check.
pub(super) fn no(question: &'static str, status: &'static str, seen: impl Into<String>) -> Check {
    check(question, status, Answer::No, seen)
}

/// A check that the service does not make.
pub(super) fn own(question: &'static str, answer: Answer, seen: impl Into<String>) -> Check {
    check(question, "", answer, seen)
}

fn yes_if(is: bool) -> Answer {
    if is { Answer::Yes } else { Answer::No }
}

/// Checks of the opened volume.
pub(super) fn of_volume(opened: &Opened) -> Vec<Check> {
    let found = &opened.found;
    let mut out = Vec::new();
    let used = found.partition.as_ref().map_or("a bare volume".to_owned(), |used| format!("partition {}", used.number));
    let other = found.table_flaws().iter().find(|flaw| matches!(flaw, Flaw::OtherSector { .. }));
    let (disk, seen) = match (&found.table, other) {
        (Some(_), Some(flaw)) => (Answer::No, flaw.to_string()),
        (Some(_), None) => (Answer::Yes, used),
        // The surroundings of a partition cannot be seen from inside.
        (None, _) if found.is_part() => {
            (Answer::Unknown, "a partition, or the image of one; its table is not seen".into())
        }
        (None, _) => (Answer::No, "no partition table: a bare volume".to_owned()),
    };
    out.push(check("disk with a partition table", "DiskNotFound", disk, seen));
    if let Some(table) = found.table.as_ref().filter(|table| !table.from_mbr) {
        // A table that was made for a smaller disk is sound, and its second copy is where that disk ended.
        let flaw = table
            .flaws
            .iter()
            .find(|flaw| matches!(flaw, Flaw::FirstCopy(_) | Flaw::SecondCopy(_) | Flaw::CopiesDiffer));
        out.push(own(TABLES, yes_if(flaw.is_none()), flaw.map(ToString::to_string).unwrap_or_default()));
    }
    if let Some(flaw) = found.table_flaws().iter().find(|flaw| matches!(flaw, Flaw::PartitionPastEnd { .. })) {
        out.push(own(LENGTH, Answer::No, flaw.to_string()));
    }
    let first = found.is_first_data().map_or(Answer::Unknown, yes_if);
    let seen = if first == Answer::No { "another volume comes first: it is the only one that is read" } else { "" };
    out.push(check("volume is the first data volume", "VolumeNotNtfs", first, seen));
    let Inside::BitLocker(volume) = &found.inside else {
        out.push(no("BitLocker volume", "BitLockerVolumeNotFound", "not encrypted"));
        return out;
    };
    out.push(check("BitLocker volume", "BitLockerVolumeNotFound", Answer::Yes, ""));
    let (active, seen) = match volume.state() {
        State::Decrypted => (Answer::No, "BitLocker was turned off"),
        _ if volume.is_suspended() => (Answer::No, "protection is suspended: the key is stored in the clear"),
        State::Encrypted => (Answer::Yes, ""),
        _ => (Answer::No, "encryption is not finished"),
    };
    out.push(check("BitLocker is active", "BitLockerNotActivated", active, seen));
    let has = volume.metadata.protectors.iter().any(|one| one.kind == ProtectorKind::RecoveryPassword);
    let seen = if has { String::new() } else { "no numerical password among the protectors".to_owned() };
    out.push(check("numerical password protector", "BitLockerProtectorNotFound", yes_if(has), seen));
    if let Some(unlocked) = &opened.unlocked {
        let numerical = unlocked.by == "numerical password";
        let answer = if numerical { Answer::Yes } else { Answer::Unknown };
        let seen =
            if numerical { String::new() } else { format!("opened by {}; the password was not tried", unlocked.by) };
        out.push(check("numerical password opens it", "BitLockerKeyInvalid", answer, seen));
    }
    out
}

/// Checks of the file system.
pub(super) fn ntfs(out: &mut Vec<Check>, files: &Files<'_>) {
    let facts = files.volume.facts();
    let seen = match (facts.is_dirty(), facts.hibernated) {
        (_, true) => "hibernated: it holds newer contents elsewhere",
        (true, _) => "marked dirty",
        _ => "",
    };
    out.push(check(NTFS, "VolumeNotNtfs", Answer::Yes, seen));
    if facts.truncated {
        out.push(own(LENGTH, Answer::No, "NTFS says that it is longer than its partition"));
    }
    let (answer, seen) = match facts.backup_boot {
        BackupBoot::Equal => (Answer::Yes, ""),
        BackupBoot::InUse => (Answer::No, "the first one is damaged; the one at the end is used"),
        BackupBoot::Different => (Answer::No, "the one at the end of the volume differs"),
        // Outside of a partition that ends with the last cluster: Windows mounts such a volume.
        BackupBoot::Missing => {
            (Answer::Unknown, "the one at the end of the volume cannot be read, or the partition ends before it")
        }
    };
    if !facts.truncated {
        out.push(own(BACKUP_BOOT, answer, seen));
    }
}

/// Checks of the manifest. For a returned drive some of them no longer matter: then a failure is only a remark.
pub(super) fn of_manifest(out: &mut Vec<Check>, opened: &Opened, listing: &Listing, record: Option<&Record>) {
    let facts = &listing.facts;
    let name = if facts.is_outside { format!("{}, not the drive's own", facts.path) } else { facts.path.clone() };
    out.push(check(MANIFEST, "ManifestNotFound", if facts.is_outside { Answer::Unknown } else { Answer::Yes }, name));
    let (answer, seen) = match facts.expected {
        None => (Answer::Unknown, "its hash is not known: give the drive record or --manifest-hash".to_owned()),
        Some((hash, from)) => {
            let text = hash.to_string();
            let same = text == facts.md5 || text == facts.sha256;
            let seen =
                if same { format!("{text} ({from})") } else { format!("{} on the drive, {text} {from}", facts.md5) };
            (yes_if(same), seen)
        }
    };
    out.push(check(MANIFEST_HASH, "ManifestCorrupted", answer, seen));
    let seen = match facts.faults.first() {
        Some(first) if facts.faults_in_all > 1 => format!("{first}; {} faults in all", facts.faults_in_all),
        Some(first) => first.clone(),
        None => String::new(),
    };
    out.push(check(
        "manifest is in the documented form",
        "ManifestFormatInvalid",
        yes_if(facts.faults_in_all == 0),
        seen,
    ));
    let named = facts.drive_id.as_deref().unwrap_or_default();
    let bare = |text: &str| text.split_whitespace().collect::<String>();
    let same = |other: &str| bare(other).eq_ignore_ascii_case(&bare(named));
    let (answer, seen) = match (&opened.found.serial, record) {
        _ if named.is_empty() => (Answer::No, "the manifest names no drive".to_owned()),
        (Some(serial), _) => (yes_if(same(serial)), format!("{named} in the manifest, {serial} on the drive")),
        (None, Some(record)) => (
            yes_if(same(&record.drive_id)),
            format!("{named} in the manifest, {} in the drive record", record.drive_id),
        ),
        (None, None) => (Answer::Unknown, format!("{named} in the manifest; the drive reports no serial")),
    };
    out.push(check("manifest names this drive", "ManifestDriveIdMismatch", answer, seen));
    if facts.is_export {
        for one in out.iter_mut().filter(|one| !one.status.starts_with("Manifest") && one.answer == Answer::No) {
            one.answer = Answer::Unknown;
            one.seen.push_str(" (the drive comes from the service)");
        }
    }
}
