//! Hashes as manifests, drive records and jobs spell them.

use std::fmt;

/// An MD5 digest.
pub type Md5 = [u8; 16];

/// A hash that was read: 32 hex digits are an MD5, 64 a SHA-256 (docs/spec/import-export.md#place-and-identity).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Digest {
    /// MD5, in every published manifest.
    Md5(Md5),
    /// SHA-256, seen once in a REST sample.
    Sha256([u8; 32]),
}

impl Digest {
    /// Reads Base16 in either case; blanks around it are ignored, since published samples have them.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.trim().as_bytes();
        match digits.len() {
            32 => hex(digits).map(Self::Md5),
            64 => hex(digits).map(Self::Sha256),
            _ => None,
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: &[u8] = match self {
            Self::Md5(bytes) => bytes,
            Self::Sha256(bytes) => bytes,
        };
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = [pair[0], pair[1]].map(|d| char::from(d).to_digit(16));
        *byte = (high? << 4 | low?) as u8;
    }
    Some(out)
}

/// Appends upper-case Base16.
pub(super) fn push_hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in bytes {
        out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}
