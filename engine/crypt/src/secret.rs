//! Types that hold secrets: they cannot be printed or cloned, and wipe themselves.
//!
//! Access to the bytes needs `expose`, which is easy to find in a review.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use dray_base::entropy::Entropy;

/// `N` secret bytes.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Key<const N: usize>([u8; N]);

/// A 128-bit secret.
pub type Key16 = Key<16>;

/// A 256-bit secret: volume master key, external key, stretched key, hash of a password.
pub type Key32 = Key<32>;

impl<const N: usize> Key<N> {
    /// Takes over `bytes`. The caller's own copy, if it keeps one, is the caller's to wipe.
    pub const fn new(bytes: [u8; N]) -> Self {
        Self(bytes)
    }

    /// A fresh key.
    pub fn random(entropy: &mut dyn Entropy) -> Self {
        let mut key = Self([0; N]);
        entropy.fill(&mut key.0);
        key
    }

    /// `None` unless there are exactly `N` bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes themselves.
    pub const fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// The bytes themselves, to be filled in place.
    pub(crate) const fn expose_mut(&mut self) -> &mut [u8; N] {
        &mut self.0
    }
}

impl<const N: usize> fmt::Debug for Key<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// Secret bytes with a length known at run time only, such as a full volume encryption key.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// Takes over `bytes`.
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// `len` fresh bytes.
    pub fn random(len: usize, entropy: &mut dyn Entropy) -> Self {
        let mut bytes = Self(vec![0; len]);
        entropy.fill(&mut bytes.0);
        bytes
    }

    /// The bytes themselves.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for SecretBytes {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// Secret text, such as a printed recovery password.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SecretText(String);

impl SecretText {
    /// Takes over `text`.
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for SecretText {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dray_base::entropy::Seeded;

    #[test]
    fn secrets_do_not_print() {
        let key = Key32::new([0xAB; 32]);
        let text = format!("{key:?} {:?} {:?}", SecretBytes::new(vec![0xAB; 16]), SecretText::from("abab"));
        assert_eq!(text, "<secret> <secret> <secret>");
    }

    #[test]
    fn a_key_has_its_length_and_nothing_else() {
        assert!(Key16::from_slice(&[0; 15]).is_none());
        assert!(Key16::from_slice(&[0; 17]).is_none());
        assert!(Key16::from_slice(&[0; 16]).is_some());
        let mut entropy = Seeded::new(1);
        assert_ne!(Key32::random(&mut entropy).expose(), Key32::random(&mut entropy).expose());
    }
}
