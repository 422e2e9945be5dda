//! The service's checks of a drive, in its order (docs/spec/import-export.md#disks-and-limits).

use crate::azure::copylog::DriveStatus;
use crate::bitlocker::read::{ProtectorKind, State};
use crate::gpt::Flaw;
use crate::ntfs::read::BackupBoot;
use crate::report::{Kind, Problem};
use crate::verify::listing::Listing;
use crate::verify::result::{Answer, Check};
use crate::verify::service::blob::{FileNameFault, SideFaults, destination, file_name};
use crate::volume::files::Files;
use crate::volume::find::{Found, Inside, Opened};
use crate::volume::key::Record;

pub(in crate::verify) const NTFS: &str = "first data volume is NTFS";
pub(in crate::verify) const MANIFEST: &str = "manifest is found and readable";
pub(in crate::verify) const MANIFEST_HASH: &str = "manifest has the hash that the job has";
/// A check of dray's own, which the service does not make.
pub(in crate::verify) const FINISHED: &str = "preparing the drive was finished";
const TABLES: &str = "both partition tables are sound";
const LENGTH: &str = "volume lies on the disk from end to end";
const BACKUP_BOOT: &str = "both boot sectors of NTFS are equal";
const BITLOCKER: &str = "BitLocker volume";
const KEY: &str = "numerical password opens it";

fn check(question: &'static str, status: DriveStatus, answer: Answer, seen: impl Into<String>) -> Check {
    Check { question, status: Some(status), answer, seen: seen.into() }
}

/// The drive's status, as the first failed check gives it; `None`: the service would go on to the blobs.
pub fn refusal(checks: &[Check]) -> Option<DriveStatus> {
    let no = checks.iter().filter(|check| check.answer == Answer::No);
    no.filter_map(|check| check.status).find(|status| *status != DriveStatus::CompletedWithErrors)
}

/// A failed check.
pub(in crate::verify) fn no(question: &'static str, status: DriveStatus, seen: impl Into<String>) -> Check {
    check(question, status, Answer::No, seen)
}

/// A check that the service does not make.
pub(in crate::verify) fn own(question: &'static str, answer: Answer, seen: impl Into<String>) -> Check {
    Check { question, status: None, answer, seen: seen.into() }
}

fn yes_if(is: bool) -> Answer {
    if is { Answer::Yes } else { Answer::No }
}

/// Checks of the disk and of the volume found on it, before it is unlocked.
pub fn of_found(found: &Found) -> Vec<Check> {
    let mut out = Vec::new();
    of_disk(&mut out, found);
    let first = found.is_first_data().map_or(Answer::Unknown, yes_if);
    let seen = if first == Answer::No { "another volume comes first: it is the only one that is read" } else { "" };
    out.push(check("volume is the first data volume", DriveStatus::VolumeNotNtfs, first, seen));
    let volume = match &found.inside {
        Inside::BitLocker(volume) => volume,
        // An NTFS volume can be encrypted: what it lacks is that BitLocker is on.
        Inside::Ntfs => {
            out.push(check(
                BITLOCKER,
                DriveStatus::BitLockerVolumeNotFound,
                Answer::Yes,
                "NTFS, which can be encrypted",
            ));
            out.push(no("BitLocker is active", DriveStatus::BitLockerNotActivated, "not encrypted"));
            return out;
        }
        Inside::Missing(problem) => {
            out.push(no(BITLOCKER, DriveStatus::BitLockerVolumeNotFound, problem.what.clone()));
            return out;
        }
        Inside::Unknown => {
            out.push(no(NTFS, DriveStatus::VolumeNotNtfs, "neither BitLocker's nor NTFS"));
            return out;
        }
        Inside::Damaged(what) => {
            out.push(no(BITLOCKER, DriveStatus::BitLockerFailed, what.clone()));
            return out;
        }
    };
    out.push(check(BITLOCKER, DriveStatus::BitLockerVolumeNotFound, Answer::Yes, ""));
    let (active, seen) = match volume.state() {
        State::Decrypted => (Answer::No, "BitLocker was turned off"),
        _ if volume.is_suspended() => (Answer::No, "protection is suspended: the key is stored in the clear"),
        State::Encrypted => (Answer::Yes, ""),
        _ => (Answer::No, "encryption is not finished"),
    };
    out.push(check("BitLocker is active", DriveStatus::BitLockerNotActivated, active, seen));
    let has = volume.metadata.protectors.iter().any(|one| one.kind == ProtectorKind::RecoveryPassword);
    let seen = if has { "" } else { "no numerical password among the protectors" };
    out.push(check("numerical password protector", DriveStatus::BitLockerProtectorNotFound, yes_if(has), seen));
    out
}

/// Checks of the disk and its partition tables.
fn of_disk(out: &mut Vec<Check>, found: &Found) {
    let used = found.partition.as_ref().map_or("a bare volume".to_owned(), |used| format!("partition {}", used.number));
    let other = found.table_flaws().iter().find(|flaw| matches!(flaw, Flaw::OtherSector { .. }));
    let (disk, seen) = match (&found.table, other) {
        (Some(_), Some(flaw)) => (Answer::No, flaw.to_string()),
        (Some(_), None) => (Answer::Yes, used),
        // The surroundings of a partition cannot be seen from inside.
        (None, _) if found.is_part() => {
            (Answer::Unknown, "a partition, or the image of one; its table is not seen".into())
        }
        (None, _) if found.is_blank() => (Answer::No, "neither a partition table nor a volume".to_owned()),
        (None, _) => (Answer::No, "no partition table: a bare volume".to_owned()),
    };
    out.push(check("disk with a partition table", DriveStatus::DiskNotFound, disk, seen));
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
}

/// Checks of the opened volume.
pub(in crate::verify) fn of_volume(opened: &Opened) -> Vec<Check> {
    let mut out = of_found(&opened.found);
    if let Some(unlocked) = &opened.unlocked {
        let numerical = unlocked.by == "numerical password";
        let answer = if numerical { Answer::Yes } else { Answer::Unknown };
        let seen =
            if numerical { String::new() } else { format!("opened by {}; the password was not tried", unlocked.by) };
        out.push(check(KEY, DriveStatus::BitLockerKeyInvalid, answer, seen));
    }
    out
}

/// Checks of a volume that the job's key did not open, for this reason: those of the volume, and a failed one.
pub fn of_locked(before: Vec<Check>, problem: &Problem) -> Vec<Check> {
    let mut out = before;
    if refusal(&out).is_none() {
        // A key that fits no protector, or does not open it, is wrong input; all else is damage.
        let status = match problem.kind {
            Kind::Usage => DriveStatus::BitLockerKeyInvalid,
            _ => DriveStatus::BitLockerUnlockVolumeFailed,
        };
        out.push(no(KEY, status, problem.what.clone()));
    }
    out
}

/// Checks of the file system.
pub(in crate::verify) fn ntfs(out: &mut Vec<Check>, files: &Files<'_>) {
    let facts = files.volume.facts();
    let seen = match (facts.is_dirty(), facts.hibernated) {
        (_, true) => "hibernated: it holds newer contents elsewhere",
        (true, _) => "marked dirty",
        _ => "",
    };
    out.push(check(NTFS, DriveStatus::VolumeNotNtfs, Answer::Yes, seen));
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

/// Check of the manifest's name in the job, if the drive record has one.
pub(in crate::verify) fn of_manifest_name(out: &mut Vec<Check>, record: Option<&Record>) {
    const NAME: &str = "manifest has a name that Windows takes";
    let Some(name) = record.and_then(|record| record.manifest_file.as_deref()) else { return };
    out.push(match file_name(name) {
        Ok(()) => check(NAME, DriveStatus::ManifestNameInvalid, Answer::Yes, name),
        Err(FileNameFault::Invalid(why)) => no(NAME, DriveStatus::ManifestNameInvalid, format!("{name:?} {why}")),
        Err(FileNameFault::TooLong(why)) => no(NAME, DriveStatus::ManifestNameTooLong, why),
    });
}

/// Whether two paths on the drive are the same to Windows.
fn same_path(one: &str, other: &str) -> bool {
    let plain = |path: &str| path.trim_start_matches(['\\', '/']).replace('/', "\\").to_lowercase();
    plain(one) == plain(other)
}

/// Checks of the manifest. For a returned drive some of them no longer matter: then a failure is only a remark.
pub(in crate::verify) fn of_manifest(
    out: &mut Vec<Check>,
    opened: &Opened,
    listing: &Listing,
    record: Option<&Record>,
) {
    let facts = &listing.facts;
    let job = record.and_then(|record| record.manifest_file.as_deref());
    let (answer, seen) = match job.filter(|job| !same_path(job, &facts.path)) {
        _ if facts.is_outside => (Answer::Unknown, format!("{}, not the drive's own", facts.path)),
        None => (Answer::Yes, facts.path.clone()),
        Some(job) => (Answer::No, format!("{job} in the drive record is not on the drive, {} is", facts.path)),
    };
    out.push(check(MANIFEST, DriveStatus::ManifestNotFound, answer, seen));
    let (answer, seen) = match facts.expected {
        None => (Answer::Unknown, "its hash is not known: neither a drive record nor a hash was given".to_owned()),
        Some((hash, from)) => {
            let text = hash.to_string();
            let same = text == facts.md5 || text == facts.sha256;
            let seen =
                if same { format!("{text} ({from})") } else { format!("{} on the drive, {text} {from}", facts.md5) };
            (yes_if(same), seen)
        }
    };
    out.push(check(MANIFEST_HASH, DriveStatus::ManifestCorrupted, answer, seen));
    let seen = match facts.faults.first() {
        Some(first) if facts.faults_in_all > 1 => format!("{first}; {} faults in all", facts.faults_in_all),
        Some(first) => first.clone(),
        None => String::new(),
    };
    out.push(check(
        "manifest is in the documented form",
        DriveStatus::ManifestFormatInvalid,
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
    out.push(check("manifest names this drive", DriveStatus::ManifestDriveIdMismatch, answer, seen));
    if facts.is_export {
        let is_of_manifest = |one: &Check| one.status.is_some_and(|status| status.as_str().starts_with("Manifest"));
        for one in out.iter_mut().filter(|one| !is_of_manifest(one) && one.answer == Answer::No) {
            one.answer = Answer::Unknown;
            one.seen.push_str(" (the drive comes from the service)");
        }
    }
}

/// Check of what the manifest asks for: names of files and blobs, contents of metadata and properties files. Blobs that are
/// not equal count elsewhere.
pub(in crate::verify) fn of_blobs(files: &Files<'_>, listing: &Listing, side_faults: &SideFaults) -> Check {
    const BLOBS: &str = "names, metadata and properties are as Azure takes them";
    let mut first = None;
    let mut count = 0u64;
    for index in 0..listing.subjects.len() {
        let path = listing.blob_path(files, index);
        let facts = listing.blobs[index];
        let file = listing.file_path(files, index);
        let name = match file_name(&file) {
            Ok(()) => destination(&path).err().map(|fault| fault.to_string()),
            Err(FileNameFault::Invalid(why) | FileNameFault::TooLong(why)) => Some(format!("{file}: {why}")),
        };
        let side = |side: u32, what: &str| side_faults.get(&side).map(|(_, why)| format!("{what} file: {why}"));
        let fault = name.or_else(|| side(facts.metadata, "metadata")).or_else(|| side(facts.properties, "properties"));
        if let Some(fault) = fault {
            count += 1;
            first.get_or_insert_with(|| format!("{path}: {fault}"));
        }
    }
    let seen = match first {
        Some(first) if count > 1 => format!("{first}; {count} blobs in all"),
        Some(first) => first,
        None => String::new(),
    };
    check(BLOBS, DriveStatus::CompletedWithErrors, yes_if(count == 0), seen)
}
