//! Reasons against adding to a volume, and the security of new files on it.

use super::super::Refusal;
use super::super::edit::Edit;
use super::super::secure::{self, Secure};
use super::NewSecurity;
use crate::build::security::{self, Grant, GrantTo};
use crate::build::system::I30;
use crate::format::{file_attribute, metafile};
use crate::read::index::{self as read_index, Index, IndexStep};
use crate::read::raw;
use crate::read::{BackupBoot, ErrorKind, FileRecord, LogState, NtfsError, ReadAt, Volume, VolumePlace};

/// `$Volume` flags that forbid changes: dirty, resize log, upgrade, deleting the USN journal, repairing object ids,
/// chkdsk.
const FLAGS_FORBIDDING: u16 = 0x4037;

/// Whether the volume may be written to at all (docs/spec/ntfs.md#appending, point 1).
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

/// Security of new directories and files, and the additions to `$Secure` for it: the ids of a directory and a file in
/// the root where these grant the system and the administrators full access, or an id of the volume that grants the
/// rights of a Windows format, or a new one. `hidden`: for files that only the system may access.
///
/// If `$Secure` has a layout to which nothing is added: any id of the volume that grants the system and the
/// administrators full access, or those in the root whatever they grant, or a descriptor in the record itself.
pub(super) fn guards<R: ReadAt>(
    volume: &Volume,
    reader: &mut R,
    hidden: bool,
) -> Result<(NewSecurity, NewSecurity, Option<Secure>), Refusal> {
    let wanted = if hidden {
        [Wanted::hidden(true, security::hidden_directory()), Wanted::hidden(false, security::hidden_file())]
    } else {
        let (dir, file) = in_root(volume, reader)?;
        [Wanted::open(true, dir, file, security::directory()), Wanted::open(false, file, dir, security::file())]
    };
    if let Some(mut secure) = Secure::read(volume, reader)? {
        let [dir, file] = wanted.each_ref().map(|wanted| NewSecurity::Id(wanted.id_in(&mut secure)));
        if secure.end() == secure.old_end() {
            return Ok((dir, file, None));
        }
        let number = u64::from(metafile::SECURE);
        let bytes = volume.read_record(reader, number)?;
        let place = VolumePlace { record: Some(number), ..Default::default() };
        let edit = Edit::new(&bytes).map_err(|fault| NtfsError::corrupt(place, fault.what))?;
        if let Some(secure) = secure.settle(edit) {
            return Ok((dir, file, Some(secure)));
        }
    }
    let known = secure::descriptors(volume, reader)?;
    let [dir, file] = wanted.map(|wanted| wanted.found_in(&known));
    Ok((dir, file, None))
}

/// Requirements for the security of a new directory or file.
struct Wanted {
    /// Ids of the same kind in the root, and of the other kind.
    in_root: [Option<u32>; 2],
    /// Rights that an id must grant, and the second choice.
    grants: [Grant; 2],
    descriptor: Vec<u8>,
    /// Descriptor for the record, where there is no id.
    own: Vec<u8>,
}

impl Wanted {
    fn hidden(below: bool, descriptor: Vec<u8>) -> Self {
        let grant = Grant { below, to: GrantTo::System };
        Self { in_root: [None; 2], grants: [grant; 2], own: descriptor.clone(), descriptor }
    }

    fn open(below: bool, same: Option<u32>, other: Option<u32>, descriptor: Vec<u8>) -> Self {
        let grants = [GrantTo::Users, GrantTo::Administrators].map(|to| Grant { below, to });
        Self { in_root: [same, other], grants, descriptor, own: security::everybody(below) }
    }

    fn id_in(&self, secure: &mut Secure) -> u32 {
        match self.in_root[0].filter(|&id| secure.grants(id, self.grants[1])) {
            Some(id) => id,
            None => secure.id_of(self.descriptor.clone(), self.grants[0]),
        }
    }

    fn found_in(self, known: &[(u32, Vec<u8>)]) -> NewSecurity {
        let [first, second] = self.grants;
        let grants = |id: u32, grant: Grant| known.iter().any(|(other, bytes)| *other == id && grant.is_in(bytes));
        let find = |grant: Grant| known.iter().find(|(_, bytes)| grant.is_in(bytes)).map(|(id, _)| *id);
        let id = self.in_root[0].filter(|&id| grants(id, second));
        let id = id.or_else(|| find(first)).or_else(|| find(second));
        id.or(self.in_root[0]).or(self.in_root[1]).map_or(NewSecurity::Own(self.own), NewSecurity::Id)
    }
}

/// The ids of the first directory and the first file in the root that are neither hidden nor the system's.
fn in_root<R: ReadAt>(volume: &Volume, reader: &mut R) -> Result<(Option<u32>, Option<u32>), Refusal> {
    const HIDDEN_OR_SYSTEM: u32 = file_attribute::HIDDEN | file_attribute::SYSTEM;
    let root = volume.open_file(reader, u64::from(metafile::ROOT))?;
    let index = Index::open(volume, &root, &I30)?;
    let mut candidates = Vec::new();
    read_index::walk(volume, reader, &index, |step| {
        if let IndexStep::Entry { entry, .. } = step
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
