//! What stands against adding to a volume, and the permissions that new files get on it.

use super::super::Refusal;
use super::Guard;
use crate::ntfs::build::security;
use crate::ntfs::build::system::I30;
use crate::ntfs::format::{file_attribute, metafile};
use crate::ntfs::read::index::{self as read_index, Index, Step};
use crate::ntfs::read::raw;
use crate::ntfs::read::{BackupBoot, ErrorKind, FileRecord, LogState, ReadAt, Volume};

/// `$Volume` flags that forbid adding: dirty, resize log, upgrade, deleting the USN journal, repairing object ids, chkdsk.
const FLAGS_FORBIDDING: u16 = 0x4037;

/// Whether the volume may be written to at all (ntfs.md section 18, 1).
pub(super) fn check_state(volume: &Volume) -> Result<(), Refusal> {
    let facts = volume.facts();
    let unclean = |what| Err(Refusal::Unclean(what));
    if facts.hibernated {
        return unclean("holds a hibernated Windows: start and shut that down first");
    }
    if facts.is_dirty() {
        return unclean("is marked dirty: have chkdsk repair it first");
    }
    match facts.log {
        LogState::Empty | LogState::Clean | LogState::Chkdsk => {}
        LogState::Dirty => return unclean("was not closed: mount and eject it under Windows first"),
        LogState::Unknown => return unclean("has a log that is not understood"),
    }
    if facts.version != (3, 1) {
        let (major, minor) = facts.version;
        return Err(Refusal::NotUnderstood(format!("NTFS version {major}.{minor}, not 3.1")));
    }
    if facts.flags & FLAGS_FORBIDDING != 0 {
        return Err(Refusal::NotUnderstood(format!("volume flags {:#06x}", facts.flags)));
    }
    match facts.backup_boot {
        BackupBoot::Equal => {}
        BackupBoot::Different | BackupBoot::Missing | BackupBoot::InUse => {
            return Err(Refusal::NotUnderstood("the two boot sectors are not the same".into()));
        }
    }
    if facts.truncated {
        return Err(Refusal::NotUnderstood("it is longer than its partition".into()));
    }
    if facts.mft_from_mirror {
        return Err(Refusal::NotUnderstood("the first record of $MFT is damaged".into()));
    }
    match facts.damage.first() {
        Some(error) => Err(error.clone().into()),
        None => Ok(()),
    }
}

/// Permissions for new directories and files: those of a directory and a file in the root, or full access for everybody
/// who has signed in, in the record itself.
pub(super) fn guards<R: ReadAt>(volume: &Volume, reader: &mut R) -> Result<(Guard, Guard), Refusal> {
    const HIDDEN_OR_SYSTEM: u32 = file_attribute::HIDDEN | file_attribute::SYSTEM;
    let root = volume.open_file(reader, u64::from(metafile::ROOT))?;
    let index = Index::open(volume, &root, &I30)?;
    let mut candidates = Vec::new();
    read_index::walk(volume, reader, &index, |step| {
        if let Step::Entry { entry, .. } = step
            && raw::reference_number(entry.reference) >= FIRST_USER
        {
            candidates.push(raw::reference_number(entry.reference));
        }
    });
    let (mut dir, mut file) = (None, None);
    for number in candidates {
        if dir.is_some() && file.is_some() {
            break;
        }
        let found: FileRecord = match volume.open_file(reader, number) {
            Ok(found) => found,
            Err(error) if matches!(error.kind, ErrorKind::Read(_)) => return Err(error.into()),
            Err(_) => continue,
        };
        let id = found.standard.security.filter(|&id| id >= 0x100);
        if found.standard.attributes & HIDDEN_OR_SYSTEM != 0 || id.is_none() {
            continue;
        }
        let slot = if found.is_directory() { &mut dir } else { &mut file };
        *slot = slot.or(id);
    }
    let guard = |id: Option<u32>, below| id.map_or_else(|| Guard::Own(security::everybody(below)), Guard::Id);
    Ok((guard(dir.or(file), true), guard(file.or(dir), false)))
}

/// First record of a file that is not the volume's own.
const FIRST_USER: u64 = 27;
