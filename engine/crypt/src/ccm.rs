//! Key wrapping with AES-256-CCM (RFC 3610) as BitLocker uses it: 12-byte nonce, 16-byte tag kept apart from the
//! ciphertext, no associated data.

use aes::Aes256;
use ccm::aead::{AeadInOut, KeyInit};
use ccm::consts::{U12, U16};

use super::secret::Key32;

/// Bytes of a nonce.
pub const NONCE_LEN: usize = 12;

/// Bytes of a tag.
pub const TAG_LEN: usize = 16;

type Wrap = ccm::Ccm<Aes256, U16, U12>;

/// The tag does not fit: another key, or changed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the authentication tag does not fit: wrong key, or damaged")]
pub struct WrongTag;

/// Encrypts `data` in place and gives back the tag. A (key, nonce) pair must never be used twice.
///
/// # Panics
/// `data` is longer than the 16 MiB that a 12-byte nonce allows. Keys are tens of bytes.
pub fn wrap(key: &Key32, nonce: &[u8; NONCE_LEN], data: &mut [u8]) -> [u8; TAG_LEN] {
    let cipher = Wrap::new(key.expose().into());
    match cipher.encrypt_inout_detached(nonce.into(), &[], data.into()) {
        Ok(tag) => tag.into(),
        Err(_) => panic!("{} bytes are too many for one CCM nonce", data.len()),
    }
}

/// Decrypts `data` in place if `tag` fits.
///
/// # Errors
/// [`WrongTag`]; `data` is worthless then.
pub fn unwrap(key: &Key32, nonce: &[u8; NONCE_LEN], tag: &[u8; TAG_LEN], data: &mut [u8]) -> Result<(), WrongTag> {
    Wrap::new(key.expose().into())
        .decrypt_inout_detached(nonce.into(), &[], data.into(), tag.into())
        .map_err(|_| WrongTag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stretch::tests::{field, vectors};

    #[test]
    fn judge_windows_wrapped_keys() {
        for vector in vectors("unwrap").iter().chain(&vectors("integrity")) {
            let key = vector.get("key").or(vector.get("vmk")).and_then(|key| key.as_str()).unwrap();
            let key = Key32::from_slice(&crate::stretch::tests::unhex(key)).unwrap();
            let nonce = field(vector, "nonce_12").try_into().unwrap();
            let tag = field(vector, "tag_16").try_into().unwrap();
            let mut data = field(vector, "ciphertext");
            unwrap(&key, &nonce, &tag, &mut data).unwrap();
            assert_eq!(data, field(vector, "plaintext"));
            assert_eq!(wrap(&key, &nonce, &mut data), tag);
            assert_eq!(data, field(vector, "ciphertext"));
        }
    }

    #[test]
    fn a_changed_bit_anywhere_is_noticed() {
        let key = Key32::new([7; 32]);
        let nonce = [9; NONCE_LEN];
        let mut sealed = *b"forty-four bytes, as a wrapped 256-bit key..";
        let tag = wrap(&key, &nonce, &mut sealed);
        for bit in 0..(sealed.len() + TAG_LEN) * 8 {
            let (mut data, mut bad) = (sealed, tag);
            match bit / 8 {
                byte if byte < data.len() => data[byte] ^= 1 << (bit % 8),
                byte => bad[byte - data.len()] ^= 1 << (bit % 8),
            }
            assert_eq!(unwrap(&key, &nonce, &bad, &mut data), Err(WrongTag));
        }
        unwrap(&key, &nonce, &tag, &mut sealed).unwrap();
        assert_eq!(&sealed, b"forty-four bytes, as a wrapped 256-bit key..");
    }
}
