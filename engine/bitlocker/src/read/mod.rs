//! Reads a volume's metadata, and unlocks it (docs/spec/bitlocker.md#reading-a-volume).
//!
//! ```text
//! Volume::open(reader)   boot sector, three copies, the first good one        no key needed
//!   .unlock(key)         protector -> volume master key -> hash -> sector key
//!     .open_range(..)    the unlocked volume's bytes
//! ```

mod boot;
mod eow;
mod metadata;

use std::fmt;
use std::io;

use sha2::{Digest, Sha256};

use super::build::Converting;
use super::format::{FRONT_LEN, REGION_LEN, VERSION_SEVEN, VERSION_VISTA, key_type, role, state};
use super::keys::KeyInput;
use super::map::{Layout, Mapping, MappingError, ReadAt};
use crate::crypt::secret::{Key16, Key32, SecretBytes};
use crate::crypt::stretch::{ROUNDS, RecoveryPassword, password_hash, stretch_once};
use crate::crypt::{Cipher, SectorCipher};
use crate::units::{Guid, VolumeOffset};

use super::datum::SealedError;
pub use super::datum::{DatumError, DatumFault};
pub use boot::{Boot, BootError, Form};
pub use metadata::{CopyFault, ExtendedInfo, Metadata, Protector, ProtectorKind};

/// Bytes of a volume's front that are read to recognise it: a whole sector of either size.
pub const RECOGNISE_LEN: usize = 4096;

/// One of the three metadata copies.
#[derive(Debug)]
pub struct MetadataCopy {
    /// Offset in the volume at which the boot sector places the copy.
    pub at: VolumeOffset,
    /// Its fault; `None` when it is good.
    pub fault: Option<CopyFault>,
    /// SHA-256 of all its bytes, if they could be read.
    digest: Option<[u8; 32]>,
}

/// State of a volume's encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Everything is encrypted, or everything in use.
    Encrypted,
    /// Nothing is encrypted: BitLocker was turned off, its metadata still exists.
    Decrypted,
    /// Windows 7: encryption or decryption was interrupted; bytes from `plain_from` on are not encrypted.
    Partial {
        /// Offset in the volume from which sectors are not encrypted.
        plain_from: VolumeOffset,
    },
    /// Windows 8 and later: encryption or decryption was interrupted.
    Converting {
        /// Whether the encrypted parts are known. If not, everything is taken for encrypted.
        progress_known: bool,
    },
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encrypted => f.write_str("encrypted"),
            Self::Decrypted => f.write_str("decrypted (BitLocker was turned off)"),
            Self::Partial { plain_from } => write!(f, "partly encrypted: plain from byte {plain_from} on"),
            Self::Converting { progress_known: true } => f.write_str("partly encrypted: a conversion was not finished"),
            Self::Converting { progress_known: false } => {
                f.write_str("partly encrypted: a conversion was not finished, and its progress cannot be read")
            }
        }
    }
}

/// Reason why a volume's metadata cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The first sector could not be read.
    #[error("the first sector cannot be read")]
    Read(#[source] io::Error),
    /// It is BitLocker's, but damaged.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// None of the three copies can be used.
    #[error("no metadata copy can be used: {}", listed(.0))]
    NoGoodCopy(Vec<MetadataCopy>),
    /// The copies are sound, but the layout they describe is impossible.
    #[error("the metadata describes an impossible layout: {0}")]
    Layout(#[from] MappingError),
}

fn listed(copies: &[MetadataCopy]) -> String {
    let one = |copy: &MetadataCopy| match &copy.fault {
        Some(fault) => format!("at byte {}: {fault}", copy.at),
        None => format!("at byte {}: good", copy.at),
    };
    copies.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// A BitLocker volume, locked.
#[derive(Debug)]
pub struct Volume {
    /// Contents of the first sector.
    pub boot: Boot,
    /// The three copies in the order of the boot sector.
    pub copies: [MetadataCopy; 3],
    /// The first good copy's contents.
    pub metadata: Metadata,
    state: State,
    mapping: Mapping,
}

impl Volume {
    /// Reads a volume's metadata. `None`: it is not a BitLocker volume.
    ///
    /// # Errors
    /// See [`OpenError`]. Damage of up to two copies is no error: see [`Volume::copies`].
    pub fn open(reader: &mut dyn ReadAt) -> Result<Option<Self>, OpenError> {
        let mut first = vec![0; RECOGNISE_LEN];
        reader.read_at(VolumeOffset(0), &mut first).map_err(OpenError::Read)?;
        match Boot::recognise(&first)? {
            Some(boot) => Self::open_at(boot, reader).map(Some),
            None => Ok(None),
        }
    }

    /// Reads the metadata of a volume whose first sector is known, or was guessed because it is lost.
    ///
    /// # Errors
    /// As [`Volume::open`].
    pub fn open_at(boot: Boot, reader: &mut dyn ReadAt) -> Result<Self, OpenError> {
        let version = if boot.form == Form::Vista { VERSION_VISTA } else { VERSION_SEVEN };
        let mut places = boot.regions;
        let mut copies = Vec::with_capacity(places.len());
        let mut chosen: Option<Metadata> = None;
        let mut region = vec![0; metadata::region_len(version)];
        for index in 0..places.len() {
            let at = places[index];
            let (copy, contents) = read_copy(index, at, version, &mut region, reader);
            copies.push(copy);
            let Some(contents) = contents else { continue };
            if boot.form == Form::Vista {
                // Vista's first sector holds the first copy's offset only.
                places = contents.regions;
            }
            // A copy with a wrong CRC is better than none (some owners edit the description by hand), and worse than
            // any other.
            if chosen.as_ref().is_none_or(|chosen| !chosen.crc_fits && contents.crc_fits) {
                chosen = Some(contents);
            }
        }
        let Some(metadata) = chosen else { return Err(OpenError::NoGoodCopy(copies)) };
        let copies = copies.try_into().expect("three places make three copies");
        let (state, mapping) = lay_out(&boot, &metadata, reader)?;
        Ok(Self { boot, copies, metadata, state, mapping })
    }

    /// State of the volume's encryption.
    pub const fn state(&self) -> State {
        self.state
    }

    /// Whether the key is stored unprotected: protection is suspended, or was never armed.
    pub fn is_suspended(&self) -> bool {
        self.metadata.protectors.iter().any(|protector| protector.kind == ProtectorKind::ClearKey)
    }

    /// Whether all three copies are good and equal, byte for byte, as Windows and dray leave them.
    pub fn copies_are_equal(&self) -> bool {
        let [first, rest @ ..] = &self.copies;
        first.fault.is_none() && rest.iter().all(|copy| copy.fault.is_none() && copy.digest == first.digest)
    }

    /// The map of the unlocked volume.
    pub const fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// Finds the sector key.
    ///
    /// Key stretching takes a few tenths of a second for each protector that the secret could belong to; `progress`
    /// receives the rounds done and the largest possible number of rounds.
    ///
    /// # Errors
    /// See [`UnlockError`].
    pub fn unlock(&self, key: &KeyInput, progress: &mut dyn FnMut(u64, u64)) -> Result<Unlocked, UnlockError> {
        let metadata = &self.metadata;
        if self.state == State::Decrypted {
            return Err(UnlockError::NotEncrypted);
        }
        let (protector, vmk) = self.master_key(key, progress)?;
        let integrity = match &metadata.hash {
            None => Integrity::NoHash,
            Some(sealed) => match sealed.open_key32(&vmk, key_type::SHA256) {
                Ok(hash) if *hash.expose() == metadata.block_hash => Integrity::Proven,
                Ok(_) => Integrity::Different,
                Err(_) => Integrity::Unreadable,
            },
        };
        let cipher = metadata.cipher().ok_or(UnlockError::Method { found: metadata.method })?;
        let sealed = metadata.fvek.as_ref().ok_or(UnlockError::NoSectorKey)?;
        let fvek = sealed
            .open(&vmk, |found, bytes| Some((found, SecretBytes::from(bytes))))
            .map_err(|_| UnlockError::SectorKeyDamaged)?;
        let (found, fvek) = fvek;
        if found != metadata.method {
            return Err(UnlockError::KeyType { found, method: metadata.method });
        }
        let sectors = SectorCipher::new(cipher, fvek.expose(), self.boot.sector)
            .map_err(|_| UnlockError::KeyLength { found: fvek.expose().len(), cipher })?;
        Ok(Unlocked { protector, integrity, cipher, fvek, mapping: self.mapping.clone(), vmk, sectors })
    }

    /// The recovery passwords stored in an unlocked volume's metadata, each with its protector.
    pub fn recovery_passwords(&self, unlocked: &Unlocked) -> Vec<(Guid, RecoveryPassword)> {
        let stored = |protector: &Protector| {
            let stretch = protector.stretch.as_ref()?;
            // Windows 7 gives the copy role 0, later versions a role of its own.
            let copies = stretch.copies.iter().filter(|c| matches!(c.role, role::RECOVERY_KEY_COPY | role::PROPERTY));
            let key = copies.into_iter().find_map(|copy| {
                let take = |found, bytes: &[u8]| {
                    if found == key_type::RECOVERY_PASSWORD { Key16::from_slice(bytes) } else { None }
                };
                copy.open(&unlocked.vmk, take).ok()
            })?;
            Some((protector.id, RecoveryPassword::from_key(key)))
        };
        self.metadata.protectors.iter().filter_map(stored).collect()
    }

    /// The volume master key, and the protector that gave it.
    fn master_key(&self, key: &KeyInput, progress: &mut dyn FnMut(u64, u64)) -> Result<(Guid, Key32), UnlockError> {
        let fitting: Vec<&Protector> = self.metadata.protectors.iter().filter(|p| fits(p, key)).collect();
        if fitting.is_empty() {
            return Err(self.no_such_protector(key));
        }
        let total = fitting.iter().filter(|p| p.stretch.is_some()).count() as u64 * u64::from(ROUNDS);
        let mut done = 0;
        let mut damaged = None;
        for protector in fitting {
            let Some(sealed) = &protector.vmk else {
                damaged = Some(protector.id);
                continue;
            };
            let mut stretched = |hash: Key32| {
                let salt = protector.stretch.as_ref().map(|stretch| stretch.salt)?;
                let key = stretch_once(&hash, &salt, &mut |rounds| progress(done + u64::from(rounds), total));
                done += u64::from(ROUNDS);
                Some(key)
            };
            let made;
            let wrapping = match key {
                KeyInput::Recovery(password) => {
                    made = stretched(password.hash());
                    made.as_ref()
                }
                KeyInput::Password(text) => {
                    made = stretched(password_hash(text.expose()));
                    made.as_ref()
                }
                KeyInput::External { key, .. } => Some(key),
                KeyInput::Clear => protector.clear_key.as_ref(),
            };
            match wrapping.map(|wrapping| sealed.open_key32(wrapping, key_type::VMK)) {
                Some(Ok(vmk)) => return Ok((protector.id, vmk)),
                Some(Err(SealedError::WrongTag)) => {}
                Some(Err(SealedError::NoKey)) | None => damaged = Some(protector.id),
            }
        }
        Err(match damaged {
            Some(protector) => UnlockError::ProtectorDamaged { protector },
            None => UnlockError::WrongSecret,
        })
    }

    fn no_such_protector(&self, key: &KeyInput) -> UnlockError {
        let external = |p: &&Protector| p.kind == ProtectorKind::ExternalKey;
        if let KeyInput::External { protector: Some(id), .. } = key
            && self.metadata.protectors.iter().any(|p| external(&p))
        {
            return UnlockError::OtherKeyFile { protector: *id };
        }
        let mut has: Vec<ProtectorKind> = self.metadata.protectors.iter().map(|protector| protector.kind).collect();
        has.sort_unstable();
        has.dedup();
        UnlockError::NoSuchProtector { has }
    }
}

/// Whether the secret could belong to the protector. Decided by its datums, not by the priority, which is for display.
fn fits(protector: &Protector, key: &KeyInput) -> bool {
    let stretched = |wanted| protector.stretch.as_ref().is_some_and(|stretch| stretch.key_type == wanted);
    match key {
        KeyInput::Recovery(_) => stretched(key_type::RECOVERY_PASSWORD),
        KeyInput::Password(_) => stretched(key_type::PASSWORD),
        KeyInput::External { protector: Some(id), .. } => {
            protector.id == *id && protector.kind == ProtectorKind::ExternalKey
        }
        KeyInput::External { protector: None, .. } => protector.kind == ProtectorKind::ExternalKey,
        KeyInput::Clear => protector.clear_key.is_some(),
    }
}

/// Reads and checks one copy. When only the CRC is wrong, both contents and fault are returned.
fn read_copy(
    index: usize,
    at: VolumeOffset,
    version: u16,
    region: &mut [u8],
    reader: &mut dyn ReadAt,
) -> (MetadataCopy, Option<Metadata>) {
    if at.0 < FRONT_LEN as u64 || at.0.checked_add(REGION_LEN as u64).is_none() || !at.is_aligned(512) {
        let fault = CopyFault::Unreadable(format!("no copy can be at byte {at}"));
        return (MetadataCopy { at, fault: Some(fault), digest: None }, None);
    }
    if let Err(error) = reader.read_at(at, region) {
        return (MetadataCopy { at, fault: Some(CopyFault::Unreadable(error.to_string())), digest: None }, None);
    }
    let digest = Some(Sha256::digest(&*region).into());
    match metadata::parse(region, version, index, at) {
        Ok(contents) => {
            let fault = if contents.crc_fits { None } else { metadata::crc_fault(region) };
            (MetadataCopy { at, fault, digest }, Some(contents))
        }
        Err(fault) => (MetadataCopy { at, fault: Some(fault), digest }, None),
    }
}

fn lay_out(boot: &Boot, metadata: &Metadata, reader: &mut dyn ReadAt) -> Result<(State, Mapping), MappingError> {
    let decrypted = metadata.states[0] == state::DECRYPTED || metadata.method == 0 && metadata.fvek.is_none();
    let conversion = boot.conversion.map(|blocks| eow::read(blocks, boot.sector, reader));
    let partial = matches!(metadata.states[0], state::CONVERTING_WITH_LOG | state::PAUSED)
        || metadata.states[0] != metadata.states[1];
    let volume_state = match (&conversion, decrypted) {
        (_, true) => State::Decrypted,
        (Some(progress), _) => State::Converting { progress_known: progress.is_some() },
        (None, _) if partial && metadata.state_offset > 0 => {
            State::Partial { plain_from: VolumeOffset(metadata.state_offset) }
        }
        (None, _) => State::Encrypted,
    };
    let (chunks, mut hidden) = match conversion.flatten() {
        // When BitLocker is turned off, everything is plain; the conversion's own areas are hidden as long as they
        // exist (docs/spec/bitlocker.md#reading-a-volume and docs/spec/bitlocker.md#conversion-in-progress).
        Some(conversion) => ((!decrypted).then_some(conversion.chunks), conversion.hidden),
        None => (None, Vec::new()),
    };
    if metadata.states[0] == state::CONVERTING_WITH_LOG && metadata.state_size > 0 {
        // Neither the old nor the new bytes can be trusted there.
        hidden.push(("the range under conversion", metadata.state_offset, metadata.state_size.into()));
    }
    let mapping = Mapping::new(Layout {
        sector: boot.sector,
        vista_mirror_cluster: metadata.vista_mirror_cluster,
        metadata: metadata.regions.map(|at| at.0),
        relocated_at: metadata.relocated_at.0,
        relocated_len: u64::from(metadata.relocated_sectors) * boot.sector.bytes(),
        sealed_end: metadata.state_offset,
        decrypted,
        chunks,
        hidden,
    })?;
    Ok((volume_state, mapping))
}

/// Result of comparing the metadata with the hash that is sealed under the master key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integrity {
    /// The metadata was written with the key.
    Proven,
    /// The metadata was changed without the key. Windows refuses such a volume.
    Different,
    /// The hash could not be decrypted.
    Unreadable,
    /// The metadata has no hash.
    NoHash,
}

/// Reason why a volume stays locked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnlockError {
    /// The volume is not encrypted; [`Volume::mapping`] reads it without a key.
    #[error("the volume is not encrypted")]
    NotEncrypted,
    /// No protector is opened by this kind of secret.
    #[error("the volume has no protector for this kind of key; it has: {}", kinds(.has))]
    NoSuchProtector {
        /// Kinds of its protectors, without repetition.
        has: Vec<ProtectorKind>,
    },
    /// The key file belongs to another protector.
    #[error("the key file belongs to protector {protector}, which this volume does not have")]
    OtherKeyFile {
        /// The key file's protector.
        protector: Guid,
    },
    /// It has a valid form, but opens no protector.
    #[error("the key does not open this volume")]
    WrongSecret,
    /// The protector that should open is damaged.
    #[error("protector {protector} is damaged")]
    ProtectorDamaged {
        /// Identifier of the protector.
        protector: Guid,
    },
    /// An unknown encryption method.
    #[error("the encryption method {found:#06x} is not known")]
    Method {
        /// Method number (dataset header, 0x24).
        found: u16,
    },
    /// The metadata has no full volume encryption key.
    #[error("the metadata holds no sector key")]
    NoSectorKey,
    /// It cannot be unwrapped with the master key.
    #[error("the sector key is damaged")]
    SectorKeyDamaged,
    /// The sector key was made for another method than the volume's.
    #[error("the sector key is of type {found:#06x}, the volume's method is {method:#06x}")]
    KeyType {
        /// Type of the key.
        found: u16,
        /// Method of the volume.
        method: u16,
    },
    /// The sector key has a length that does not fit its method.
    #[error("the sector key has {found} bytes, {cipher} wants {}", .cipher.fvek_len())]
    KeyLength {
        /// Length of the key in bytes.
        found: usize,
        /// Cipher of the volume's method.
        cipher: Cipher,
    },
}

fn kinds(has: &[ProtectorKind]) -> String {
    if has.is_empty() {
        return "none".to_owned();
    }
    has.iter().map(ProtectorKind::to_string).collect::<Vec<_>>().join(", ")
}

/// A volume's keys and map.
#[derive(Debug)]
pub struct Unlocked {
    /// The protector that opened it.
    pub protector: Guid,
    /// Result of checking the metadata against its hash.
    pub integrity: Integrity,
    /// Cipher of the sectors.
    pub cipher: Cipher,
    /// Key of the sectors.
    pub fvek: SecretBytes,
    /// The map of the unlocked volume.
    pub mapping: Mapping,
    vmk: Key32,
    sectors: SectorCipher,
}

impl Unlocked {
    /// The cipher, ready for use.
    pub const fn sector_cipher(&self) -> &SectorCipher {
        &self.sectors
    }

    /// The regions during encryption in place, from `region`, the finished volume's; `None` if that is not a valid one.
    pub fn converting(&self, region: &[u8]) -> Option<Converting> {
        Converting::new(region, &self.vmk)
    }

    /// Fills `buf` with the unlocked volume's bytes from `at`; whole sectors.
    ///
    /// # Errors
    /// As [`Mapping::read`].
    pub fn open_range(&self, at: VolumeOffset, buf: &mut [u8], reader: &mut dyn ReadAt) -> io::Result<()> {
        self.mapping.read(at, buf, Some(&self.sectors), reader)
    }
}

#[cfg(test)]
mod tests;
