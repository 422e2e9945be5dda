//! Hashes: MD5 and SHA-256 in lanes, CRC-64/NVME, CRC-32; incremental or many at a time.
//!
//! Everything here is pure. `lanes` alone holds unsafe code: the vector kernels.
#![deny(unsafe_code)]

mod crc;
mod lanes;
mod many;
mod text;

pub use crc::{Crc64, crc32, crc64, crc64_combine, crc64_zeros};
pub use lanes::md5::Backend;
pub use lanes::sha256::Sha256Backend;
pub use many::{
    Algorithm, Chain, Md5, Md5Chain, OfMd5, OfSha256, Sha256Chain, advance_many, advance_many_with, md5_many,
    md5_many_with, sha256_many, sha256_many_with,
};
pub use text::{base64, hex_upper};

/// SHA-256 of `data`.
pub fn sha256(data: &[u8]) -> [u8; 32] {
    let mut chain = Sha256Chain::new();
    chain.update(data);
    chain.finish()
}

/// SHA-256 of a stream in pieces, and of each of its prefixes.
#[derive(Clone, Debug, Default)]
pub struct Sha256(Sha256Chain);

impl Sha256 {
    /// Takes the next piece.
    pub fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// SHA-256 of the bytes so far.
    pub fn value(&self) -> [u8; 32] {
        self.0.clone().finish()
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
