//! A drive's keys and BitLocker structures: newly made, or restored by the password in the drive record.
//!
//! A drive that is formatted has a [`VolumeSecrets`]: everything except its metadata regions is available without
//! stretching the password, and those are written last. A volume that is encrypted in place has valid regions from the
//! beginning: it has [`InPlaceKeys`].

use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::azure::{SecretText, drive_record};
use crate::bitlocker::build::{Converting, FRONT_LEN, KeyFile, REGION_LEN, Spec, VolumeSecrets};
use crate::bitlocker::keys::KeyInput;
use crate::bitlocker::read::Volume;
use crate::bitlocker::regions::Regions;
use crate::crypt::secret::Key32;
use crate::crypt::stretch::{RecoveryPassword, password_hash};
use crate::crypt::{Cipher, SectorCipher};
use crate::files::input::{self, Pipes};
use crate::limits::INPUT_FILE_MAX;
use crate::report::{Kind, Problem, Setting};
use crate::request::{PrepRequest, RecoveryForm};
use crate::text;
use crate::units::{DiskShape, FileTime, VolumeOffset};

/// Properties of a drive's new volume.
pub fn spec(
    request: &PrepRequest,
    cipher: Cipher,
    formatted: FileTime,
    drive_id: &str,
    regions: &Regions,
    disk: DiskShape,
) -> Spec {
    let description = match &request.windows {
        Some(windows) if !windows.label.is_empty() => format!("dray {}", windows.label),
        Some(_) => format!("dray {drive_id}"),
        None => format!("dray {drive_id} {}", request.session),
    };
    Spec {
        regions: *regions,
        cipher,
        disk,
        description,
        used_space_only: !request.wipe_free,
        external_key: request.external_key.is_some(),
        user_password: request.windows.as_ref().is_some_and(|windows| windows.has_password),
        created: formatted,
    }
}

/// Greatest length of a file with a user's password, in bytes.
const PASSWORD_FILE_MAX: u64 = 4 << 10;

/// Lengths of a user's password that Windows accepts, in UTF-16 units (docs/spec/bitlocker.md#password).
const PASSWORD_UNITS: RangeInclusive<usize> = 8..=256;

/// Reads a user's password from a file of one line, and returns the hash that the stretching starts from.
///
/// # Errors
/// The file cannot be read, or Windows would not accept the password.
pub fn user_password(path: &Path) -> Result<Key32, Problem> {
    let wrong = |what: String| Problem::new(Kind::Usage, what).path(path).setting(Setting::PasswordFile);
    let bytes = input::read(path, PASSWORD_FILE_MAX, Pipes::Taken);
    let bytes = bytes.map_err(|error| wrong(format!("the password cannot be read: {error}")))?;
    let text = text::decode_text(&bytes).map_err(|error| wrong(format!("the password cannot be read: {error}")))?;
    // One line end at the end is from the editor; blanks may be part of the password.
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    let units = line.encode_utf16().count();
    if line.contains(['\n', '\r', '\0']) {
        return Err(wrong("holds more than one line".into()).advice("write the password alone, on one line"));
    }
    if !PASSWORD_UNITS.contains(&units) {
        let problem = wrong("Windows takes no password of this length".into()).value(format!("{units} characters"));
        return Err(problem.advice("write 8 to 256 characters, on one line"));
    }
    if RecoveryPassword::parse(line).is_ok() {
        let problem = wrong("is a recovery password, which Windows asks for by itself".into());
        return Err(problem.advice("choose another password; a recovery password is made in any case"));
    }
    Ok(password_hash(line))
}

/// Name of the file with the recovery password, as Windows suggests it.
pub fn recovery_file_name(secrets: &VolumeSecrets) -> String {
    format!("BitLocker Recovery Key {}.TXT", secrets.recovery_id().to_string().to_ascii_uppercase())
}

/// Contents of that file: the identifier to compare with the one that Windows shows, and the 48 digits.
pub fn recovery_file(secrets: &VolumeSecrets, name: &str, form: RecoveryForm) -> Zeroizing<Vec<u8>> {
    let id = secrets.recovery_id().to_string().to_ascii_uppercase();
    let password = secrets.password().printed();
    let text = Zeroizing::new(format!(
        "BitLocker Drive Encryption recovery key\r\n\r\n\
         Drive:\r\n\r\n\t{name}\r\n\r\n\
         Windows shows an identifier where it asks for this key. It must be:\r\n\r\n\
         Identifier:\r\n\r\n\t{id}\r\n\r\n\
         Recovery Key:\r\n\r\n\t{}\r\n",
        password.expose()
    ));
    // Sized once: a buffer that grows would leave copies of the key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 + 2 * text.len()));
    match form {
        RecoveryForm::Utf8 => bytes.extend_from_slice(text.as_bytes()),
        RecoveryForm::Utf16 => {
            bytes.extend_from_slice(&[0xFF, 0xFE]);
            text.encode_utf16().for_each(|unit| bytes.extend_from_slice(&unit.to_le_bytes()));
        }
    }
    bytes
}

/// Reason why the keys of a volume cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum NotRestored {
    /// No record, or none that can be read.
    #[error("the drive record cannot be read: {0}")]
    Unreadable(io::Error),
    /// A record of another drive, without a key, or whose key is of no use.
    #[error("the drive record {0}")]
    Record(String),
    /// A checkpoint without the keys, or with keys that the password does not open.
    #[error("the checkpoint {0}")]
    Checkpoint(String),
}

/// Restores the secrets of an unfinished volume: they are in the checkpoint, their password in the drive record.
///
/// # Errors
/// No record, another drive's, a password that does not open them.
pub fn draft_again(kept: &[u8], spec: Spec, record: &Path, drive_id: &str) -> Result<VolumeSecrets, NotRestored> {
    let password = RecoveryPassword::parse(password_of(record, drive_id)?.expose());
    let password = password.map_err(|error| NotRestored::Record(format!("holds no password: {error}")))?;
    VolumeSecrets::restore(spec, password, kept).map_err(|why| NotRestored::Checkpoint(why.to_string()))
}

/// The 48 digits in a drive's record.
fn password_of(record: &Path, drive_id: &str) -> Result<SecretText, NotRestored> {
    let bytes = input::read(record, INPUT_FILE_MAX, Pipes::Refused).map_err(NotRestored::Unreadable)?;
    let record = drive_record::read(&bytes).map_err(|error| NotRestored::Record(error.to_string()))?;
    if record.drive_id != drive_id {
        return Err(NotRestored::Record("belongs to another drive".into()));
    }
    record.bitlocker_key.ok_or_else(|| NotRestored::Record("holds no key".into()))
}

/// Keys of a volume that is encrypted in place.
#[derive(Debug)]
pub struct InPlaceKeys {
    /// Cipher of the volume's sectors.
    pub cipher: Arc<SectorCipher>,
    /// The numerical password.
    pub password: Arc<SecretText>,
    /// One of the three equal metadata regions, with the wrapped keys.
    pub region: Vec<u8>,
    /// The volume's first 8192 bytes as stored.
    pub front: Vec<u8>,
    /// Builds the regions of the conversion under way.
    pub converting: Converting,
    /// Key file to write, for a drive that is just being started.
    pub external: Option<KeyFile>,
}

impl InPlaceKeys {
    /// Keys of a new volume. Stretches the password, which takes a core a tenth of a second or two.
    ///
    /// # Errors
    /// None in practice: the key was made for its cipher.
    pub fn new(secrets: &VolumeSecrets) -> Result<Self, Problem> {
        let region = secrets.region(&mut |_| {});
        let cipher = secrets.sector_cipher();
        let cipher =
            cipher.map_err(|error| Problem::new(Kind::Internal, format!("the cipher refuses its key: {error}")))?;
        Ok(Self {
            cipher: Arc::new(cipher),
            password: Arc::new(SecretText::new(secrets.password().printed().expose())),
            converting: secrets.converting(&region),
            region: region.to_vec(),
            front: secrets.front().to_vec(),
            external: secrets.key_file(),
        })
    }

    /// Restored keys: region and front are in the checkpoint, their password in the drive record.
    ///
    /// # Errors
    /// No record, another drive's, a region that the password does not open.
    pub fn restore(body: &[u8], regions: &Regions, record: &Path, drive_id: &str) -> Result<Self, NotRestored> {
        let password = password_of(record, drive_id)?;
        let checkpoint = |what: &str| NotRestored::Checkpoint(what.to_owned());
        let (region, front) = body.split_at_checked(REGION_LEN).ok_or_else(|| checkpoint("is too short"))?;
        let front = front.get(..FRONT_LEN).ok_or_else(|| checkpoint("is too short"))?;
        let places = regions.metadata();
        let mut stored = |at: VolumeOffset, into: &mut [u8]| -> io::Result<()> {
            let from = match places.iter().find(|place| (place.start..place.end()).contains(&at)) {
                Some(place) => &region[(at.0 - place.start.0) as usize..],
                None => front.get(at.0 as usize..).ok_or(io::ErrorKind::UnexpectedEof)?,
            };
            into.copy_from_slice(from.get(..into.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        };
        let volume = Volume::open(&mut stored).map_err(|error| checkpoint(&format!("has bad metadata: {error}")))?;
        let volume = volume.ok_or_else(|| checkpoint("holds no metadata"))?;
        let no_key =
            |error: &dyn std::fmt::Display| NotRestored::Record(format!("has a key that does not open it: {error}"));
        let input = KeyInput::parse(password.expose().as_bytes()).map_err(|error| no_key(&error))?;
        let unlocked = volume.unlock(&input, &mut |_, _| {}).map_err(|error| no_key(&error))?;
        let cipher = SectorCipher::new(unlocked.cipher, unlocked.fvek.expose(), regions.sector())
            .map_err(|error| checkpoint(&format!("has a key that the cipher refuses: {error}")))?;
        let converting = unlocked.converting(region);
        let converting = converting.ok_or_else(|| checkpoint("has metadata of no volume"))?;
        let (region, front) = (region.to_vec(), front.to_vec());
        let password = Arc::new(password);
        Ok(Self { cipher: Arc::new(cipher), password, region, front, converting, external: None })
    }
}
