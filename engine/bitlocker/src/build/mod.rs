//! Builds a new volume's metadata and front (docs/spec/bitlocker.md#what-a-writer-must-emit).

mod converting;
mod resume_blob;

use std::fmt;

use sha2::{Digest, Sha256};
use zerocopy::IntoBytes;

use super::datum::Writer;
use super::format::{
    BLOCK_UNIT, BlockHeader, BootSector, DatasetHeader, ExternalHead, GUID_FINISHED, JUMP_SEVEN, KeyHead, SIGNATURE,
    StretchHead, VERSION_SEVEN, Validation, VirtualizationHead, VmkHead, Xinfo, crc32, key_type, kind, method_of,
    priority, role, state,
};
pub use super::format::{FRONT_LEN, REGION_LEN};
use super::regions::Regions;
use crate::crypt::secret::{Key32, SecretBytes};
use crate::crypt::stretch::{RecoveryPassword, SALT_LEN, stretch_once};
use crate::crypt::{Cipher, KeyError, SectorCipher};
use crate::units::{DiskShape, FileTime, Guid};
pub use converting::Converting;
use dray_base::entropy::Entropy;
pub use resume_blob::RestoreError;

/// First counter of a new volume's nonces, as on Windows (docs/spec/bitlocker.md#aes-ccm-wrapping).
const FIRST_COUNTER: u32 = 2;

/// Longest description, in UTF-16 units: a computer name, a label and a date have room, and so have all datums together.
pub const DESCRIPTION_UNITS_MAX: usize = 256;

/// Text before the key in a key file and its protector.
const EXTERNAL_KEY_LABEL: &str = "ExternalKey";

/// Properties of a new volume.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Places of metadata, relocated sectors and verify region.
    pub regions: Regions,
    /// Cipher of the sectors.
    pub cipher: Cipher,
    /// Disk geometry in the boot sector inside; BitLocker's own has the same (docs/spec/bitlocker.md#boot-sector).
    pub disk: DiskShape,
    /// Text for the recovery screen, customarily `COMPUTER label date`. Cut to [`DESCRIPTION_UNITS_MAX`].
    pub description: String,
    /// Free clusters are left unencrypted.
    pub used_space_only: bool,
    /// Also make an external-key protector and its key file.
    pub external_key: bool,
    /// Whether to make a protector of a user's password too; [`VolumeSecrets::protect`] sets the password.
    pub user_password: bool,
    /// Time of creation; cut to whole milliseconds.
    pub created: FileTime,
}

/// A protector: its identifier, and the secret that opens it.
#[derive(Debug)]
pub struct Recovery {
    /// Identifier, shown by Windows as "ID".
    pub id: Guid,
    /// The 48 digits.
    pub password: RecoveryPassword,
}

/// A key file for the new volume.
#[derive(Debug)]
pub struct KeyFile {
    /// The protector it belongs to.
    pub id: Guid,
    /// `<GUID in capitals>.BEK`.
    pub file_name: String,
    /// Its 156 bytes.
    pub bytes: SecretBytes,
}

/// A new volume's secrets, drawn. Everything derived from them is reproducible.
pub struct VolumeSecrets {
    spec: Spec,
    keys: NewKeys,
    ids: Ids,
    recovery: Recovery,
    external_key: Option<Key32>,
    user: Option<User>,
    salt: [u8; SALT_LEN],
    /// Random bytes; the boot sector is written over their beginning.
    front: Box<[u8; FRONT_LEN]>,
}

/// The protector of a user's password.
struct User {
    id: Guid,
    salt: [u8; SALT_LEN],
    /// Hash that the stretching starts from; the password itself is not kept.
    hash: Key32,
}

impl VolumeSecrets {
    /// Draws keys, identifiers and everything else that is random.
    ///
    /// `entropy` must be the kernel's for any real drive: every key comes from it.
    pub fn draw(spec: Spec, entropy: &mut dyn Entropy) -> Self {
        let keys = NewKeys::random(spec.cipher, entropy);
        let ids = Ids::random(entropy);
        let recovery = Recovery { id: ids.recovery, password: RecoveryPassword::random(entropy) };
        let external_key = spec.external_key.then(|| Key32::random(entropy));
        let mut salt = [0; SALT_LEN];
        entropy.fill(&mut salt);
        let mut front = Box::new([0; FRONT_LEN]);
        entropy.fill(&mut front[..]);
        Self { spec, keys, ids, recovery, external_key, user: None, salt, front }
    }

    /// Sets the user's password for [`Spec::user_password`]; `hash` is from
    /// [`password_hash`](crate::crypt::stretch::password_hash).
    pub fn protect(&mut self, hash: Key32, entropy: &mut dyn Entropy) {
        let (mut id, mut salt) = ([0; 16], [0; SALT_LEN]);
        entropy.fill(&mut id);
        entropy.fill(&mut salt);
        self.user = Some(User { id: Guid::from_random(id), salt, hash });
    }

    /// Identifier of the recovery password, which Windows shows when it asks for the key.
    pub const fn recovery_id(&self) -> Guid {
        self.recovery.id
    }

    /// The 48 digits that will open the volume.
    pub const fn password(&self) -> &RecoveryPassword {
        &self.recovery.password
    }

    /// The cipher of the sectors, ready for use.
    ///
    /// # Errors
    /// None in practice: the key was made for this cipher.
    pub fn sector_cipher(&self) -> Result<SectorCipher, KeyError> {
        SectorCipher::new(self.spec.cipher, self.keys.fvek.expose(), self.spec.regions.sector())
    }

    /// The first 8,192 bytes of the device: boot sector, then random bytes without a meaning. To be written last.
    pub fn front(&self) -> Box<[u8; FRONT_LEN]> {
        let mut front = self.front.clone();
        front[..size_of::<BootSector>()].copy_from_slice(boot_sector(&self.spec).as_bytes());
        front
    }

    /// The key file; `None` unless [`Spec::external_key`] is set.
    pub fn key_file(&self) -> Option<KeyFile> {
        self.external_key.as_ref().map(|key| key_file(self.ids.external, key, self.time()))
    }

    /// The bytes of each of the three metadata regions. `progress` is called during the key stretching ([`stretch_once`]),
    /// the slow part.
    pub fn region(&self, progress: &mut dyn FnMut(u32)) -> Box<[u8; REGION_LEN]> {
        let Self { spec, keys, ids, recovery, external_key, user, salt, .. } = self;
        let stretched = stretch_once(&recovery.password.hash(), salt, progress);

        let headers_len = size_of::<BlockHeader>() + size_of::<DatasetHeader>();
        let mut out = Writer::new(vec![0; headers_len], self.time(), FIRST_COUNTER);
        out.text(role::DESCRIPTION, &cut(&spec.description));
        // Before the recovery password, which two versions of cryptsetup do not find if it comes first
        // (docs/spec/bitlocker.md#what-readers-require).
        if let Some(user) = user {
            password_protector(&mut out, &keys.vmk, user, &stretch_once(&user.hash, &user.salt, &mut |_| {}));
        }
        recovery_protector(&mut out, &keys.vmk, recovery, salt, &stretched);
        if let Some(key) = external_key {
            external_protector(&mut out, &keys.vmk, ids.external, key);
        }
        out.sealed_key(role::FVEK, &keys.vmk, method_of(spec.cipher), keys.fvek.expose());
        virtualization(&mut out, spec);
        finish_region(out, spec, ids.volume, &keys.vmk)
    }

    /// Builds the regions for the time in which a plain volume is converted into this one. `region` is
    /// [`Self::region`].
    ///
    /// # Panics
    /// `region` is another volume's.
    pub fn converting(&self, region: &[u8; REGION_LEN]) -> Converting {
        Converting::new(region, &self.keys.vmk).expect("own region")
    }

    fn time(&self) -> FileTime {
        FileTime(self.spec.created.whole_millis().0 & (u64::MAX >> 1))
    }
}

impl fmt::Debug for VolumeSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draft").field("spec", &self.spec).finish_non_exhaustive()
    }
}

struct NewKeys {
    vmk: Key32,
    fvek: SecretBytes,
}

impl NewKeys {
    fn random(cipher: Cipher, entropy: &mut dyn Entropy) -> Self {
        let vmk = Key32::random(entropy);
        loop {
            let fvek = SecretBytes::random(cipher.fvek_len(), entropy);
            let halves = fvek.expose().split_at(fvek.expose().len() / 2);
            // Equal halves make XTS weak, and some libraries refuse them (FIPS 140 IG A.9).
            if !matches!(cipher, Cipher::XtsAes128 | Cipher::XtsAes256) || halves.0 != halves.1 {
                return Self { vmk, fvek };
            }
        }
    }
}

struct Ids {
    volume: Guid,
    recovery: Guid,
    external: Guid,
}

impl Ids {
    fn random(entropy: &mut dyn Entropy) -> Self {
        let mut guid = || {
            let mut bytes = [0; 16];
            entropy.fill(&mut bytes);
            Guid::from_random(bytes)
        };
        Self { volume: guid(), recovery: guid(), external: guid() }
    }
}

/// A NUL would end the text early for every reader.
fn cut(description: &str) -> String {
    let mut units = 0;
    let fits = |c: &char| {
        units += c.len_utf16();
        units <= DESCRIPTION_UNITS_MAX
    };
    description.chars().filter(|&c| c != '\0').take_while(fits).collect()
}

/// The 0x120-byte form of Windows 8 and later (docs/spec/bitlocker.md#recovery-password-protector).
fn recovery_protector(out: &mut Writer, vmk: &Key32, recovery: &Recovery, salt: &[u8; SALT_LEN], stretched: &Key32) {
    protector(out, recovery.id, priority::RECOVERY_PASSWORD, |out| {
        out.datum(role::PROPERTY, kind::STRETCH_KEY, |out| {
            out.head(&StretchHead { key_type: key_type::RECOVERY_PASSWORD.into(), flags: 0.into(), salt: *salt });
            // With these two Windows shows the password of an unlocked volume, and wraps a new key without asking.
            let password = recovery.password.key().expose();
            out.sealed_key(role::RECOVERY_KEY_COPY, vmk, key_type::RECOVERY_PASSWORD, password);
            out.sealed_key(role::STRETCHED_KEY_COPY, vmk, key_type::STRETCHED_RECOVERY, stretched.expose());
        });
        out.sealed_key(role::PROPERTY, stretched, key_type::VMK, vmk.expose());
    });
}

/// Protector of a user's password, 0xE0 bytes long (docs/spec/bitlocker.md#password-protector).
fn password_protector(out: &mut Writer, vmk: &Key32, user: &User, stretched: &Key32) {
    protector(out, user.id, priority::PASSWORD, |out| {
        out.datum(role::PROPERTY, kind::STRETCH_KEY, |out| {
            out.head(&StretchHead { key_type: key_type::PASSWORD.into(), flags: 0.into(), salt: user.salt });
            out.sealed_key(role::PROPERTY, vmk, key_type::STRETCHED_PASSWORD, stretched.expose());
        });
        out.sealed_key(role::PROPERTY, stretched, key_type::VMK, vmk.expose());
    });
}

/// The 0xF0-byte form (docs/spec/bitlocker.md#external-key-protector).
fn external_protector(out: &mut Writer, vmk: &Key32, id: Guid, key: &Key32) {
    protector(out, id, priority::EXTERNAL_KEY, |out| {
        out.text(role::PROPERTY, EXTERNAL_KEY_LABEL);
        out.datum(role::PROPERTY, kind::USE_KEY, |out| {
            out.head(&KeyHead { key_type: key_type::EXTERNAL.into(), flags: 0.into() });
            out.sealed_key(role::PROPERTY, vmk, key_type::EXTERNAL, key.expose());
        });
        out.sealed_key(role::PROPERTY, key, key_type::VMK, vmk.expose());
    });
}

fn protector(out: &mut Writer, id: Guid, priority: u16, fill: impl FnOnce(&mut Writer)) {
    let changed = out.time().0.into();
    out.datum(role::VMK, kind::VMK, |out| {
        out.head(&VmkHead { id: id.0, changed, hints: 0.into(), priority: priority.into() });
        fill(out);
    });
}

/// Version 5, everything converted (docs/spec/bitlocker.md#virtualization-datum).
fn virtualization(out: &mut Writer, spec: &Spec) {
    const FINISHED: u64 = 0xA;
    const FINISHED_USED_SPACE_ONLY: u64 = 0xB;
    let relocated = spec.regions.relocated();
    let verify = spec.regions.verify();
    let sector = spec.regions.sector().bytes() as u32;
    out.datum(role::VIRTUALIZATION, kind::VIRTUALIZATION, |out| {
        out.head(&VirtualizationHead { relocated_at: relocated.start.0.into(), relocated_len: relocated.len.0.into() });
        out.head(&Xinfo {
            version: 5.into(),
            size: (size_of::<Xinfo>() as u16).into(),
            wipe_files_max: 0.into(),
            flags: if spec.used_space_only { FINISHED_USED_SPACE_ONLY } else { FINISHED }.into(),
            log_at: 0.into(),
            log_len: 0.into(),
            original_sector: sector.into(),
            native_sector: sector.into(),
            // Windows 10 1809, x64: the version that made the one complete volume on which the layout was checked.
            os_major: 10.into(),
            os_minor: 0.into(),
            os_build: 17763.into(),
            platform: 2.into(),
            service_pack_major: 0.into(),
            service_pack_minor: 0.into(),
            suite_mask: 0x110.into(),
            product_type: 1,
            architecture: 2,
            verify_at: verify.start.0.into(),
            verify_len: verify.len.0.into(),
        });
    });
}

/// Fills the headers in, pads, seals the hash, adds the CRC (docs/spec/bitlocker.md#metadata-region).
fn finish_region(out: Writer, spec: &Spec, volume_id: Guid, vmk: &Key32) -> Box<[u8; REGION_LEN]> {
    let time = out.time();
    let validation_counter = out.next_counter();
    let mut block = out.into_bytes();
    let dataset_len = (block.len() - size_of::<BlockHeader>()) as u32;
    block.resize(block.len().next_multiple_of(BLOCK_UNIT), 0);
    let regions = &spec.regions;
    let header = BlockHeader {
        signature: SIGNATURE,
        size: ((block.len() / BLOCK_UNIT) as u16).into(),
        version: VERSION_SEVEN.into(),
        state: state::ENCRYPTED.into(),
        next_state: state::ENCRYPTED.into(),
        state_offset: regions.volume_len().0.into(),
        state_size: 0.into(),
        relocated_sectors: ((regions.relocated().len.0 / regions.sector().bytes()) as u32).into(),
        regions: regions.metadata().map(|range| range.start.0.into()),
        relocated_at: regions.relocated().start.0.into(),
    };
    let dataset = DatasetHeader {
        size: dataset_len.into(),
        version: 1.into(),
        header_size: (size_of::<DatasetHeader>() as u32).into(),
        end: dataset_len.into(),
        id: volume_id.0,
        next_counter: (validation_counter + 1).into(),
        method: method_of(spec.cipher).into(),
        preferred_method: method_of(spec.cipher).into(),
        created: time.0.into(),
    };
    let (header_at, dataset_at) = block.split_at_mut(size_of::<BlockHeader>());
    header_at.copy_from_slice(header.as_bytes());
    dataset_at[..size_of::<DatasetHeader>()].copy_from_slice(dataset.as_bytes());

    // The hash and the CRC cover the headers, the counter in them and the padding: all that is decided by now.
    let block_len = block.len();
    let validation = Validation {
        bytes_left: ((REGION_LEN - block_len) as u16).into(),
        version: VERSION_SEVEN.into(),
        crc32: crc32(&block).into(),
    };
    let hash: [u8; 32] = Sha256::digest(&block).into();
    let mut out = Writer::new(block, time, validation_counter);
    out.head(&validation);
    out.sealed_key(role::PROPERTY, vmk, key_type::SHA256, &hash);
    let written = out.into_bytes();
    let mut region = Box::new([0; REGION_LEN]);
    region[..written.len()].copy_from_slice(&written);
    region
}

/// Prints the text from 0x100 on through the BIOS and stops. Runs at 0x7C5A; 16-bit x86, written for this program.
const BOOT_CODE: [u8; 25] = [
    0x31, 0xC0, // xor ax, ax
    0x8E, 0xD8, // mov ds, ax
    0xFC, // cld
    0xBE, 0x00, 0x7D, // mov si, 0x7C00 + 0x100
    0xAC, // next: lodsb
    0x08, 0xC0, // or al, al
    0x74, 0x09, // jz stop
    0xB4, 0x0E, // mov ah, 0x0E
    0xBB, 0x07, 0x00, // mov bx, 7
    0xCD, 0x10, // int 0x10
    0xEB, 0xF2, // jmp next
    0xF4, // stop: hlt
    0xEB, 0xFD, // jmp stop
];

/// Three pieces that begin at 0x100, 0x11F and 0x12C, where the boot sector's table of texts points.
const BOOT_TEXT: [&str; 3] =
    ["\r\nThis is a data drive, locked ", "by BitLocker.", "\r\nNo computer starts from it.\r\n\0"];
const BOOT_TEXT_OFFSETS: [u8; 3] = [0x00, 0x1F, 0x2C];
const _: () = assert!(BOOT_TEXT[0].len() == 0x1F && BOOT_TEXT[1].len() == 0x2C - 0x1F);

/// Every value that is constant in Windows' volumes is kept (docs/spec/bitlocker.md#boot-sector).
fn boot_sector(spec: &Spec) -> BootSector {
    let regions = &spec.regions;
    let mut code = [0; 70];
    code[..BOOT_CODE.len()].copy_from_slice(&BOOT_CODE);
    let mut text = [b'x'; 232];
    let words = BOOT_TEXT.concat();
    text[..words.len()].copy_from_slice(words.as_bytes());
    BootSector {
        jump: JUMP_SEVEN,
        oem: SIGNATURE,
        bytes_per_sector: (regions.sector().bytes() as u16).into(),
        sectors_per_cluster: sectors_per_cluster(regions),
        zero_0x0e: [0; 7],
        media: 0xF8,
        zero_0x16: [0; 2],
        sectors_per_track: spec.disk.sectors_per_track.into(),
        heads: spec.disk.heads.into(),
        hidden_sectors: spec.disk.hidden_sectors.into(),
        zero_0x20: 0.into(),
        fat_sectors: 0x1FE0.into(),
        zero_0x28: [0; 8],
        info_sector: 1.into(),
        backup_sector: 6.into(),
        zero_0x34: 0.into(),
        vista_region_cluster: 0.into(),
        drive_number: 0x80,
        zero_0x41: 0,
        extended_signature: 0x29,
        serial: 0.into(),
        label: *b"NO NAME    ",
        file_system: *b"FAT32   ",
        code,
        guid: GUID_FINISHED.0,
        regions: regions.metadata().map(|range| range.start.0.into()),
        eow_blocks: [0.into(); 2],
        zero_0xd8: [0; 40],
        text,
        filler_ff: [0xFF; 19],
        text_offsets: BOOT_TEXT_OFFSETS,
        end_mark: [0x55, 0xAA],
    }
}

/// The encoding of NTFS in one byte: up to 128 the number itself, above that the negative binary logarithm.
const fn sectors_per_cluster(regions: &Regions) -> u8 {
    let sectors = regions.cluster().bytes() / regions.sector().bytes();
    if sectors <= 128 { sectors as u8 } else { (sectors.trailing_zeros() as u8).wrapping_neg() }
}

/// The 156-byte form that Windows 7 to 10 write and every reader accepts (docs/spec/bitlocker.md#key-files).
fn key_file(id: Guid, key: &Key32, time: FileTime) -> KeyFile {
    const LEN: usize = 156;
    /// "No wrapping was done in this file."
    const NEXT_COUNTER: u32 = 1;
    let header = DatasetHeader {
        size: (LEN as u32).into(),
        version: 1.into(),
        header_size: (size_of::<DatasetHeader>() as u32).into(),
        end: (LEN as u32).into(),
        id: id.0,
        next_counter: NEXT_COUNTER.into(),
        method: 0.into(),
        preferred_method: 0.into(),
        created: time.0.into(),
    };
    // Sized once: a buffer that grows would leave copies of the key behind.
    let mut out = Writer::new(Vec::with_capacity(LEN), time, NEXT_COUNTER);
    out.head(&header);
    out.datum(role::STARTUP_KEY, kind::EXTERNAL, |out| {
        out.head(&ExternalHead { id: id.0, changed: time.0.into() });
        out.text(role::PROPERTY, EXTERNAL_KEY_LABEL);
        out.key(key_type::EXTERNAL, key.expose());
    });
    let bytes = out.into_bytes();
    debug_assert_eq!(bytes.len(), LEN);
    KeyFile { id, file_name: format!("{}.BEK", id.to_string().to_ascii_uppercase()), bytes: SecretBytes::new(bytes) }
}

#[cfg(test)]
mod tests;
