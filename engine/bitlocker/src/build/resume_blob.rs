//! A new volume's secrets in a file of dray's own, so that an interrupted volume can be finished with its password.
//!
//! ```text
//! 0     salt of the password's protector
//! 16    the volume's first 8192 bytes, before the boot sector is laid over them
//! 8208  CCM tag of the sealed part
//! 8224  sealed: VMK, identifiers of volume, recovery protector and key file, external key if there is one, identifier,
//!       salt and hash of a user's password if there is one, FVEK
//! ```
//!
//! The sealing key is SHA-256 of a label, the recovery password's 16 bytes and the salt. No stretching: those 16 bytes
//! are random, and 2^20 rounds would add 20 bits to 128 that are beyond any search already. The key seals one text
//! alone, so its nonce is constant.

use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use super::{FRONT_LEN, Ids, NewKeys, Recovery, Spec, User, VolumeSecrets};
use crate::crypt::ccm::{self, NONCE_LEN, TAG_LEN, WrongTag};
use crate::crypt::secret::{Key32, SecretBytes};
use crate::crypt::stretch::{RecoveryPassword, SALT_LEN};
use crate::units::Guid;

const LABEL: &[u8] = b"dray: a volume that was begun";

const NONCE: [u8; NONCE_LEN] = [0; NONCE_LEN];

/// Reason why bytes hold no secrets of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The bytes are cut off.
    #[error("holds too few bytes of its keys")]
    Short,
    /// Another password, or changed bytes.
    #[error("holds keys that the password does not open")]
    WrongKey,
}

impl From<WrongTag> for RestoreError {
    fn from(_: WrongTag) -> Self {
        Self::WrongKey
    }
}

impl VolumeSecrets {
    /// The secrets except the password and the specification, sealed under the password.
    pub fn keep(&self) -> Vec<u8> {
        let Self { keys, ids, external_key, user, .. } = self;
        // Sized once: a buffer that grows would leave copies of the keys behind.
        let mut secrets = Zeroizing::new(Vec::with_capacity(secrets_len(&self.spec)));
        secrets.extend_from_slice(keys.vmk.expose());
        for id in [ids.volume, ids.recovery, ids.external] {
            secrets.extend_from_slice(&id.0);
        }
        secrets.extend_from_slice(external_key.as_ref().map_or(&[][..], |key| key.expose()));
        if let Some(user) = user {
            secrets.extend_from_slice(&user.id.0);
            secrets.extend_from_slice(&user.salt);
            secrets.extend_from_slice(user.hash.expose());
        }
        secrets.extend_from_slice(keys.fvek.expose());
        let tag = ccm::wrap(&sealing_key(&self.recovery.password, &self.salt), &NONCE, &mut secrets);
        [&self.salt[..], &self.front[..], &tag, &secrets].concat()
    }

    /// Restores the secrets from [`Self::keep`]; `spec` must be the same as then. Bytes after them are ignored.
    ///
    /// # Errors
    /// The bytes are no such secrets, or the password is another volume's.
    pub fn restore(spec: Spec, password: RecoveryPassword, kept: &[u8]) -> Result<Self, RestoreError> {
        let mut rest = kept;
        let salt: [u8; SALT_LEN] = array(&mut rest)?;
        let front = Box::new(array::<FRONT_LEN>(&mut rest)?);
        let tag: [u8; TAG_LEN] = array(&mut rest)?;
        let mut secrets = Zeroizing::new(take(&mut rest, secrets_len(&spec))?.to_vec());
        ccm::unwrap(&sealing_key(&password, &salt), &NONCE, &tag, &mut secrets)?;
        let mut rest = &secrets[..];
        let vmk = key(&mut rest)?;
        let (volume, recovery, external) = (Guid(array(&mut rest)?), Guid(array(&mut rest)?), Guid(array(&mut rest)?));
        let external_key = if spec.external_key { Some(key(&mut rest)?) } else { None };
        let user = match spec.user_password {
            true => Some(User { id: Guid(array(&mut rest)?), salt: array(&mut rest)?, hash: key(&mut rest)? }),
            false => None,
        };
        let fvek = SecretBytes::from(rest);
        let recovery_protector = Recovery { id: recovery, password };
        let ids = Ids { volume, recovery, external };
        Ok(Self {
            spec,
            keys: NewKeys { vmk, fvek },
            ids,
            recovery: recovery_protector,
            external_key,
            user,
            salt,
            front,
        })
    }
}

fn sealing_key(password: &RecoveryPassword, salt: &[u8; SALT_LEN]) -> Key32 {
    let mut hash = Sha256::new();
    hash.update(LABEL);
    hash.update(password.key().expose());
    hash.update(salt);
    let mut digest: [u8; 32] = hash.finalize().into();
    let key = Key32::new(digest);
    digest.zeroize();
    key
}

const fn secrets_len(spec: &Spec) -> usize {
    let external = if spec.external_key { 32 } else { 0 };
    let user = if spec.user_password { 16 + SALT_LEN + 32 } else { 0 };
    32 + 3 * 16 + external + user + spec.cipher.fvek_len()
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], RestoreError> {
    let (taken, after) = rest.split_at_checked(len).ok_or(RestoreError::Short)?;
    *rest = after;
    Ok(taken)
}

fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], RestoreError> {
    take(rest, N)?.try_into().map_err(|_| RestoreError::Short)
}

fn key(rest: &mut &[u8]) -> Result<Key32, RestoreError> {
    Key32::from_slice(take(rest, 32)?).ok_or(RestoreError::Short)
}
