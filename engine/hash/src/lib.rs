//! Hashes: MD5 in lanes, CRC-64/NVME, CRC-32, SHA-256; incremental or many at a time.
//!
//! Everything here is pure. `md5_lanes` alone holds unsafe code: the vector kernels.
#![deny(unsafe_code)]

mod crc;
mod md5_lanes;
mod md5_many;
mod text;

pub use crc::{Crc64, crc32, crc64, crc64_combine, crc64_zeros};
pub use md5_lanes::Backend;
pub use md5_many::{Md5, Md5Chain, advance_many, advance_many_with, md5_many, md5_many_with};
pub use text::{base64, hex_upper};

/// SHA-256 of `data`.
pub fn sha256(data: &[u8]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(data).into()
}

/// SHA-256 of a stream in pieces, and of each of its prefixes.
#[derive(Clone, Debug, Default)]
pub struct Sha256(sha2::Sha256);

impl Sha256 {
    /// Takes the next piece.
    pub fn update(&mut self, data: &[u8]) {
        use sha2::Digest;
        self.0.update(data);
    }

    /// SHA-256 of the bytes so far.
    pub fn value(&self) -> [u8; 32] {
        use sha2::Digest;
        self.0.clone().finalize().into()
    }
}

/// MD5 of `data`.
pub fn md5(data: &[u8]) -> [u8; 16] {
    let mut md5 = Md5::new();
    md5.update(data);
    md5.finish()
}

/// SHA-512 of `data`.
pub fn sha512(data: &[u8]) -> [u8; 64] {
    use sha2::Digest;
    sha2::Sha512::digest(data).into()
}

#[cfg(test)]
mod tests;
