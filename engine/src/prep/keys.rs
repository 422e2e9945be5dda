//! A drive's keys and BitLocker structures: newly made, or restored by the password in the drive record.
//!
//! A drive that is formatted has a [`VolumeSecrets`]: everything except its metadata regions is available without
//! stretching the password, and those are written last. A volume that is encrypted in place has valid regions from the
//! beginning: it has [`Keys`].

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::azure::{SecretText, drive_record};
use crate::bitlocker::build::{Converting, FRONT_LEN, KeyFile, REGION_LEN, Spec, VolumeSecrets};
use crate::bitlocker::keys::KeyInput;
use crate::bitlocker::read::Volume;
use crate::bitlocker::regions::Regions;
use crate::crypt::stretch::RecoveryPassword;
use crate::crypt::{Cipher, SectorCipher};
use crate::files::input::{self, Pipes};
use crate::limits::INPUT_FILE_MAX;
use crate::prep::request::PrepRequest;
use crate::units::{ByteOffset, DiskShape, FileTime};

/// Properties of a drive's new volume.
pub fn spec(
    request: &PrepRequest,
    cipher: Cipher,
    formatted: FileTime,
    drive_id: &str,
    regions: &Regions,
    disk: DiskShape,
) -> Spec {
    Spec {
        regions: *regions,
        cipher,
        disk,
        description: format!("dray {drive_id} {}", request.session),
        used_space_only: !request.wipe_free,
        external_key: request.external_key.is_some(),
        created: formatted,
    }
}

/// Restores the secrets of an unfinished volume: they are in the checkpoint, their password in the drive record.
///
/// # Errors
/// The reason in words: no record, another drive's, a password that does not open them.
pub fn draft_again(kept: &[u8], spec: Spec, record: &Path, drive_id: &str) -> Result<VolumeSecrets, String> {
    let password = RecoveryPassword::parse(password_of(record, drive_id)?.expose())
        .map_err(|error| format!("the drive record: {error}"))?;
    VolumeSecrets::restore(spec, password, kept).map_err(|why| format!("the checkpoint {why}"))
}

/// The 48 digits in a drive's record.
fn password_of(record: &Path, drive_id: &str) -> Result<SecretText, String> {
    let bytes = input::read(record, INPUT_FILE_MAX, Pipes::Refused);
    let bytes = bytes.map_err(|error| format!("the drive record cannot be read: {error}"))?;
    let record = drive_record::read(&bytes).map_err(|error| format!("the drive record {error}"))?;
    if record.drive_id != drive_id {
        return Err("the drive record belongs to another drive".into());
    }
    record.bitlocker_key.ok_or_else(|| "the drive record holds no key".into())
}

/// Keys of a volume that is encrypted in place.
#[derive(Debug)]
pub struct Keys {
    /// Cipher of the volume's sectors.
    pub cipher: Arc<SectorCipher>,
    /// The numerical password.
    pub password: SecretText,
    /// One of the three equal metadata regions, with the wrapped keys.
    pub region: Vec<u8>,
    /// The volume's first 8192 bytes as stored.
    pub front: Vec<u8>,
    /// Builds the regions of the conversion under way.
    pub converting: Converting,
    /// Key file to write, for a drive that is just being started.
    pub external: Option<KeyFile>,
}

impl Keys {
    /// Keys of a new volume. Stretches the password, which takes a core a tenth of a second or two.
    ///
    /// # Errors
    /// None in practice: the key was made for its cipher.
    pub fn new(secrets: &VolumeSecrets) -> Result<Self, String> {
        let region = secrets.region(&mut |_| {});
        let cipher = secrets.sector_cipher().map_err(|error| format!("the cipher refuses its key: {error}"))?;
        Ok(Self {
            cipher: Arc::new(cipher),
            password: SecretText::new(secrets.password().printed().expose()),
            converting: secrets.converting(&region),
            region: region.to_vec(),
            front: secrets.front().to_vec(),
            external: secrets.key_file(),
        })
    }

    /// Restored keys: region and front are in the checkpoint, their password in the drive record.
    ///
    /// # Errors
    /// The reason in words: no record, another drive's, a region that the password does not open.
    pub fn restore(body: &[u8], regions: &Regions, record: &Path, drive_id: &str) -> Result<Self, String> {
        let password = password_of(record, drive_id)?;
        let (region, front) = body.split_at_checked(REGION_LEN).ok_or("the checkpoint is too short")?;
        let front = front.get(..FRONT_LEN).ok_or("the checkpoint is too short")?;
        let places = regions.metadata();
        let mut stored = |at: ByteOffset, into: &mut [u8]| -> io::Result<()> {
            let from = match places.iter().find(|place| (place.start..place.end()).contains(&at)) {
                Some(place) => &region[(at.0 - place.start.0) as usize..],
                None => front.get(at.0 as usize..).ok_or(io::ErrorKind::UnexpectedEof)?,
            };
            into.copy_from_slice(from.get(..into.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        };
        let volume = Volume::open(&mut stored).map_err(|error| format!("the checkpoint's metadata: {error}"))?;
        let volume = volume.ok_or("the checkpoint holds no metadata")?;
        let input =
            KeyInput::parse(password.expose().as_bytes()).map_err(|error| format!("the drive record: {error}"))?;
        let unlocked = volume.unlock(&input, &mut |_, _| {});
        let unlocked = unlocked.map_err(|error| format!("the drive record's key does not open the volume: {error}"))?;
        let cipher = SectorCipher::new(unlocked.cipher, unlocked.fvek.expose(), regions.sector())
            .map_err(|error| format!("the cipher refuses its key: {error}"))?;
        let converting = unlocked.converting(region).ok_or("the checkpoint's metadata is none of a volume")?;
        let (region, front) = (region.to_vec(), front.to_vec());
        Ok(Self { cipher: Arc::new(cipher), password, region, front, converting, external: None })
    }
}
