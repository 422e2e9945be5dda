//! Security descriptors, and the stream and indexes of `$Secure` (docs/spec/ntfs.md#security;
//! docs/spec/bitlocker.md#the-ntfs-side).

use zerocopy::IntoBytes;

use super::index::ViewEntry;
use crate::format::SecurityEntry;

/// `$MFT`, the mirror, the log, `$Bitmap`, `$BadClus`, `$UpCase`.
pub(crate) const ID_SYSTEM_READ: u32 = 0x100;
/// `$Volume`, `$Secure`, `$Extend` and its children.
pub(crate) const ID_SYSTEM_WRITE: u32 = 0x101;
/// Security id of user files on a new volume.
pub(crate) const ID_FILE: u32 = 0x102;
/// Security id of user directories on a new volume.
pub(crate) const ID_DIRECTORY: u32 = 0x103;
/// Security id of files that own reserved regions.
pub(crate) const ID_HIDDEN_FILE: u32 = 0x104;
/// Security id of the directory of those files.
pub(crate) const ID_HIDDEN_DIRECTORY: u32 = 0x105;

/// A security identifier of the authority NT (5).
type Sid = &'static [u32];
const SYSTEM: Sid = &[18];
const ADMINISTRATORS: Sid = &[32, 544];
const USERS: Sid = &[32, 545];
const AUTHENTICATED: Sid = &[11];

/// An allowing entry of a DACL: flags, rights, account.
type Ace = (u8, u32, Sid);

mod ace_flag {
    /// Inherited by objects and containers below.
    pub const BELOW: u8 = 0x01 | 0x02;
    /// Applies only to objects below.
    pub const ONLY_BELOW: u8 = 0x08 | BELOW;
    pub const INHERITED: u8 = 0x10;
}

mod control {
    pub const DACL_PRESENT: u16 = 0x0004;
    pub const AUTO_INHERITED: u16 = 0x0400;
    pub const PROTECTED: u16 = 0x1000;
    pub const SELF_RELATIVE: u16 = 0x8000;
}

const FULL: u32 = 0x001F_01FF;
const MODIFY: u32 = 0x0013_01BF;
const READ_EXECUTE: u32 = 0x0012_00A9;
const READ: u32 = 0x0012_0089;
const READ_WRITE: u32 = 0x0012_019F;
const GENERIC_ALL: u32 = 0x1000_0000;
/// Generic read, write and execute, and delete.
const GENERIC_MODIFY: u32 = 0xE001_0000;
const GENERIC_READ_EXECUTE: u32 = 0xA000_0000;

/// Bytes of a region of `$SDS`; each is followed by its mirror.
const SDS_REGION: usize = 256 << 10;

pub(crate) fn sid_bytes(sid: &[u32]) -> Vec<u8> {
    let mut out = vec![1, sid.len() as u8, 0, 0, 0, 0, 0, 5];
    out.extend(sid.iter().flat_map(|part| part.to_le_bytes()));
    out
}

/// The SID of the administrators, whose quota is in every new volume.
pub(crate) fn administrators() -> Vec<u8> {
    sid_bytes(ADMINISTRATORS)
}

/// A self-relative descriptor in the order of ntfs.sys: header, DACL, owner, group.
fn descriptor(extra_control: u16, owner: Sid, group: Sid, aces: &[Ace]) -> Vec<u8> {
    const HEADER: usize = 20;
    let mut dacl = Vec::new();
    for &(flags, rights, who) in aces {
        let sid = sid_bytes(who);
        dacl.extend([0, flags]);
        dacl.extend((8 + sid.len() as u16).to_le_bytes());
        dacl.extend(rights.to_le_bytes());
        dacl.extend(sid);
    }
    let dacl_len = 8 + dacl.len();
    let (owner, group) = (sid_bytes(owner), sid_bytes(group));
    let owner_at = HEADER + dacl_len;
    let mut out = vec![1, 0];
    out.extend((control::SELF_RELATIVE | control::DACL_PRESENT | extra_control).to_le_bytes());
    out.extend((owner_at as u32).to_le_bytes());
    out.extend(((owner_at + owner.len()) as u32).to_le_bytes());
    out.extend(0u32.to_le_bytes());
    out.extend((HEADER as u32).to_le_bytes());
    out.extend([2, 0]);
    out.extend((dacl_len as u16).to_le_bytes());
    out.extend((aces.len() as u32).to_le_bytes());
    out.extend(dacl);
    out.extend(owner);
    out.extend(group);
    out
}

/// The descriptor of `$MFT` and similar files; also the one stored in the records of `$AttrDef` and `$Boot`.
pub(crate) fn system_read() -> Vec<u8> {
    descriptor(0, SYSTEM, ADMINISTRATORS, &[(0, READ, SYSTEM), (0, READ, ADMINISTRATORS)])
}

/// The descriptor of `$Volume` and similar files; also the one stored in records 12 to 15.
pub(crate) fn system_write() -> Vec<u8> {
    descriptor(0, SYSTEM, ADMINISTRATORS, &[(0, READ_WRITE, SYSTEM), (0, READ_WRITE, ADMINISTRATORS)])
}

/// The descriptor of the root directory of a data disk.
pub(crate) fn root() -> Vec<u8> {
    use ace_flag::ONLY_BELOW;
    descriptor(
        0,
        SYSTEM,
        SYSTEM,
        &[
            (0, FULL, ADMINISTRATORS),
            (ONLY_BELOW, GENERIC_ALL, ADMINISTRATORS),
            (0, FULL, SYSTEM),
            (ONLY_BELOW, GENERIC_ALL, SYSTEM),
            (0, MODIFY, AUTHENTICATED),
            (ONLY_BELOW, GENERIC_MODIFY, AUTHENTICATED),
            (0, READ_EXECUTE, USERS),
            (ONLY_BELOW, GENERIC_READ_EXECUTE, USERS),
        ],
    )
}

/// Full access for authenticated users; with `below`, inherited by everything in a directory.
pub(crate) fn everybody(below: bool) -> Vec<u8> {
    let flags = if below { ace_flag::BELOW } else { 0 };
    descriptor(0, ADMINISTRATORS, SYSTEM, &[(flags, FULL, AUTHENTICATED)])
}

/// The descriptor that a directory inherits from [`root`].
pub(crate) fn directory() -> Vec<u8> {
    use ace_flag::{INHERITED, ONLY_BELOW};
    const PASSED_ON: u8 = INHERITED | ONLY_BELOW;
    descriptor(
        control::AUTO_INHERITED,
        ADMINISTRATORS,
        SYSTEM,
        &[
            (INHERITED, FULL, ADMINISTRATORS),
            (PASSED_ON, GENERIC_ALL, ADMINISTRATORS),
            (INHERITED, FULL, SYSTEM),
            (PASSED_ON, GENERIC_ALL, SYSTEM),
            (INHERITED, MODIFY, AUTHENTICATED),
            (PASSED_ON, GENERIC_MODIFY, AUTHENTICATED),
            (INHERITED, READ_EXECUTE, USERS),
            (PASSED_ON, GENERIC_READ_EXECUTE, USERS),
        ],
    )
}

/// The descriptor that a file inherits from [`root`] or a [`directory`].
pub(crate) fn file() -> Vec<u8> {
    use ace_flag::INHERITED;
    descriptor(
        control::AUTO_INHERITED,
        ADMINISTRATORS,
        SYSTEM,
        &[
            (INHERITED, FULL, ADMINISTRATORS),
            (INHERITED, FULL, SYSTEM),
            (INHERITED, MODIFY, AUTHENTICATED),
            (INHERITED, READ_EXECUTE, USERS),
        ],
    )
}

/// `D:(A;;FA;;;SY)`.
pub(crate) fn hidden_file() -> Vec<u8> {
    descriptor(0, ADMINISTRATORS, SYSTEM, &[(0, FULL, SYSTEM)])
}

/// `D:P(A;OICI;FA;;;SY)`.
pub(crate) fn hidden_directory() -> Vec<u8> {
    descriptor(control::PROTECTED, ADMINISTRATORS, SYSTEM, &[(ace_flag::BELOW, FULL, SYSTEM)])
}

/// Rights that a descriptor must grant, at least and (for files hidden from users) at most; a descriptor that denies
/// anything never matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Inherited by everything below.
    pub below: bool,
    pub to: GrantTo,
}

/// Accounts that must have rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GrantTo {
    /// SYSTEM alone.
    System,
    /// SYSTEM and the administrators, with full access.
    Administrators,
    /// In addition authenticated users and users, with their rights on a disk formatted by Windows.
    Users,
}

impl Grant {
    /// Whether a self-relative descriptor grants it.
    pub(crate) fn is_in(self, descriptor: &[u8]) -> bool {
        let Some(aces) = allowed(descriptor) else { return false };
        // A file's descriptor has no inheritable entries.
        if !self.below && aces.iter().any(|(flags, ..)| flags & ace_flag::BELOW != 0) {
            return false;
        }
        let has = |who: Sid, rights: u32, generic: u32| {
            let sid = sid_bytes(who);
            let of = |wanted: &dyn Fn(u8) -> bool| {
                aces.iter().any(|(flags, granted, to)| {
                    wanted(*flags)
                        && *to == sid
                        && (granted & rights == rights || granted & generic == generic || granted & GENERIC_ALL != 0)
                })
            };
            const ONLY: u8 = ace_flag::ONLY_BELOW & !ace_flag::BELOW;
            of(&|flags| flags & ONLY == 0) && (!self.below || of(&|flags| flags & ace_flag::BELOW == ace_flag::BELOW))
        };
        let system = has(SYSTEM, FULL, GENERIC_ALL);
        let administrators = || has(ADMINISTRATORS, FULL, GENERIC_ALL);
        match self.to {
            GrantTo::System => system && aces.iter().all(|(_, _, to)| *to == sid_bytes(SYSTEM)),
            GrantTo::Administrators => system && administrators(),
            GrantTo::Users => {
                let users = has(USERS, READ_EXECUTE, GENERIC_READ_EXECUTE);
                system && administrators() && users && has(AUTHENTICATED, MODIFY, GENERIC_MODIFY)
            }
        }
    }
}

/// The entries of a descriptor's DACL; `None` if any of them is not an allowing one, or there is no DACL.
fn allowed(descriptor: &[u8]) -> Option<Vec<(u8, u32, Vec<u8>)>> {
    let word = |at: usize| Some(u16::from_le_bytes(descriptor.get(at..at + 2)?.try_into().ok()?));
    let double = |at: usize| Some(u32::from_le_bytes(descriptor.get(at..at + 4)?.try_into().ok()?));
    if word(2)? & control::DACL_PRESENT == 0 {
        return None;
    }
    let dacl = double(16)? as usize;
    if dacl == 0 {
        return None;
    }
    let count = word(dacl + 4)?;
    let mut at = dacl + 8;
    let mut out = Vec::new();
    for _ in 0..count {
        let (kind, flags, len) = (*descriptor.get(at)?, *descriptor.get(at + 1)?, usize::from(word(at + 2)?));
        if kind != 0 || len < 16 {
            return None;
        }
        out.push((flags, double(at + 4)?, descriptor.get(at + 8..at + len)?.to_vec()));
        at += len;
    }
    Some(out)
}

/// The hash of a descriptor in `$SDH`.
pub(crate) fn hash(descriptor: &[u8]) -> u32 {
    descriptor.chunks_exact(4).fold(0, |hash: u32, word| {
        u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_add(hash.rotate_left(3))
    })
}

/// An entry of `$SII`.
pub(crate) fn by_id_entry(header: &SecurityEntry) -> ViewEntry {
    ViewEntry { key: header.id.as_bytes().to_vec(), data: header.as_bytes().to_vec(), padding: [0; 4] }
}

/// An entry of `$SDH`.
pub(crate) fn by_hash_entry(header: &SecurityEntry) -> ViewEntry {
    ViewEntry {
        key: [header.hash.as_bytes(), header.id.as_bytes()].concat(),
        data: header.as_bytes().to_vec(),
        // Windows, mkntfs and ntfs3 have these two bytes after the data (docs/spec/ntfs.md#security).
        padding: [b'I', 0, b'I', 0],
    }
}

/// The contents of `$Secure`.
#[derive(Clone, Debug)]
pub(crate) struct Security {
    /// The first region of `$SDS` up to its end; the mirror has the same bytes.
    region: Vec<u8>,
    headers: Vec<SecurityEntry>,
}

impl Security {
    pub(crate) fn new(with_hidden: bool) -> Self {
        let mut all = vec![
            (ID_SYSTEM_READ, system_read()),
            (ID_SYSTEM_WRITE, system_write()),
            (ID_FILE, file()),
            (ID_DIRECTORY, directory()),
        ];
        if with_hidden {
            all.extend([(ID_HIDDEN_FILE, hidden_file()), (ID_HIDDEN_DIRECTORY, hidden_directory())]);
        }
        let (mut region, mut headers) = (Vec::new(), Vec::new());
        for (id, descriptor) in all {
            region.resize(region.len().next_multiple_of(16), 0);
            let header = SecurityEntry {
                hash: hash(&descriptor).into(),
                id: id.into(),
                offset: (region.len() as u64).into(),
                length: ((size_of::<SecurityEntry>() + descriptor.len()) as u32).into(),
            };
            region.extend(header.as_bytes());
            region.extend(descriptor);
            headers.push(header);
        }
        Self { region, headers }
    }

    /// Bytes of `$SDS`.
    pub(crate) fn sds_len(&self) -> u64 {
        (SDS_REGION + self.region.len()) as u64
    }

    /// Fills `out` with the bytes of `$SDS` from `offset`, followed by zeros.
    pub(crate) fn sds(&self, offset: u64, out: &mut [u8]) {
        out.fill(0);
        for copy in [0, SDS_REGION as u64] {
            super::sections::overlay(&self.region, copy, offset, out);
        }
    }

    /// The entries of `$SII`, sorted.
    pub(crate) fn by_id(&self) -> Vec<ViewEntry> {
        self.headers.iter().map(by_id_entry).collect()
    }

    /// The entries of `$SDH`, sorted by hash, then id.
    pub(crate) fn by_hash(&self) -> Vec<ViewEntry> {
        let mut sorted: Vec<_> = self.headers.iter().collect();
        sorted.sort_by_key(|header| (header.hash.get(), header.id.get()));
        sorted.into_iter().map(by_hash_entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judge_system_descriptors_hash_as_on_windows() {
        // docs/spec/ntfs.md#security, measured.
        assert_eq!((system_read().len(), hash(&system_read())), (100, 0x32FE_C6CB));
        assert_eq!((system_write().len(), hash(&system_write())), (100, 0x3414_C8F7));
        assert_eq!(root().len(), 228);
    }

    #[test]
    fn what_a_descriptor_grants() {
        use GrantTo::{Administrators, System, Users};
        let grants = |descriptor: &[u8]| -> Vec<(bool, GrantTo)> {
            let all = [false, true].into_iter().flat_map(|below| [System, Administrators, Users].map(|to| (below, to)));
            all.filter(|&(below, to)| Grant { below, to }.is_in(descriptor)).collect()
        };
        assert_eq!(grants(&root()), [(true, Administrators), (true, Users)]);
        assert_eq!(grants(&directory()), [(true, Administrators), (true, Users)]);
        assert_eq!(grants(&file()), [(false, Administrators), (false, Users)]);
        assert_eq!(grants(&hidden_file()), [(false, System)]);
        assert_eq!(grants(&hidden_directory()), [(true, System)]);
        // Without SYSTEM and administrators; to read alone; a denial; cut short.
        assert_eq!(grants(&everybody(true)), []);
        assert_eq!(grants(&system_read()), []);
        let mut denies = directory();
        denies[28] = 1;
        assert_eq!(grants(&denies), []);
        for len in 0..directory().len() - 60 {
            assert_eq!(grants(&directory()[..len]), [], "{len}");
        }
    }

    #[test]
    fn each_descriptor_lies_in_both_regions() {
        let security = Security::new(true);
        let mut sds = vec![0xEE; security.sds_len() as usize + 100];
        security.sds(0, &mut sds);
        for header in &security.headers {
            let at = header.offset.get() as usize;
            let len = header.length.get() as usize;
            assert_eq!(at % 16, 0);
            assert_eq!(sds[at..at + 20], *header.as_bytes());
            assert_eq!(sds[at..at + len], sds[SDS_REGION + at..SDS_REGION + at + len]);
        }
        assert!(sds[security.sds_len() as usize..].iter().all(|&byte| byte == 0));
        let mut part = [0xEE; 33];
        security.sds(SDS_REGION as u64 - 5, &mut part);
        assert_eq!(part[..], sds[SDS_REGION - 5..SDS_REGION + 28]);
    }
}
