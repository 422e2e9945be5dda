//! What stands against adding to a volume, and the permissions that new files get on it.

use super::super::Refusal;
use super::super::edit::Edit;
use super::super::secure::Secure;
use super::Guard;
use crate::ntfs::build::security::{self, Grant, GrantTo};
use crate::ntfs::build::system::I30;
use crate::ntfs::format::{file_attribute, metafile};
use crate::ntfs::read::index::{self as read_index, Index, Step};
use crate::ntfs::read::raw;
use crate::ntfs::read::{BackupBoot, ErrorKind, FileRecord, LogState, NtfsError, Place, ReadAt, Volume};

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

/// Permissions for new directories and files, and what `$Secure` gets for that: those of a directory and a file in the root
/// where these grant what a Windows format grants, or an id of the volume that does, or a new one. `hidden`: of files that
/// nobody but the system sees.
///
/// Where `$Secure` is laid out in a way that nothing is added to: the ids in the root whatever they grant, or full access
/// for everybody who has signed in, in the record itself.
pub(super) fn guards<R: ReadAt>(
    volume: &Volume,
    reader: &mut R,
    hidden: bool,
) -> Result<(Guard, Guard, Option<Secure>), Refusal> {
    let (dir, file) = if hidden { (None, None) } else { in_root(volume, reader)? };
    let known = Secure::read(volume, reader)?;
    let own = |id: Option<u32>, descriptor| id.map_or_else(|| Guard::Own(descriptor), Guard::Id);
    let (wanted_dir, wanted_file, to) = match hidden {
        true => (security::hidden_directory(), security::hidden_file(), GrantTo::System),
        false => (security::directory(), security::file(), GrantTo::Users),
    };
    let otherwise = || match hidden {
        true => (own(None, wanted_dir.clone()), own(None, wanted_file.clone())),
        false => (own(dir.or(file), security::everybody(true)), own(file.or(dir), security::everybody(false))),
    };
    let Some(mut secure) = known else {
        let (dir, file) = otherwise();
        return Ok((dir, file, None));
    };
    let grant = |below, to| Grant { below, to };
    let of_root = |id: Option<u32>, below, secure: &Secure| {
        id.filter(|&id| secure.grants(id, grant(below, GrantTo::Administrators)))
    };
    let dir_id = match of_root(dir, true, &secure) {
        Some(id) => id,
        None => secure.id_of(wanted_dir.clone(), grant(true, to)),
    };
    let file_id = match of_root(file, false, &secure) {
        Some(id) => id,
        None => secure.id_of(wanted_file.clone(), grant(false, to)),
    };
    if secure.end() == secure.old_end() {
        return Ok((Guard::Id(dir_id), Guard::Id(file_id), None));
    }
    let number = u64::from(metafile::SECURE);
    let bytes = volume.read_record(reader, number)?;
    let place = Place { record: Some(number), ..Default::default() };
    let edit = Edit::new(&bytes).map_err(|fault| NtfsError::corrupt(place, fault.what))?;
    Ok(match secure.settle(edit) {
        Some(secure) => (Guard::Id(dir_id), Guard::Id(file_id), Some(secure)),
        None => {
            let (dir, file) = otherwise();
            (dir, file, None)
        }
    })
}

/// The ids of the first directory and the first file in the root that are neither hidden nor the system's.
fn in_root<R: ReadAt>(volume: &Volume, reader: &mut R) -> Result<(Option<u32>, Option<u32>), Refusal> {
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
    Ok((dir, file))
}

/// First record of a file that is not the volume's own.
const FIRST_USER: u64 = 27;
