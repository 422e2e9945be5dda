//! Hashes as the manifests and the account have them.

pub use crate::hash::{Md5, Sha256, crc64, crc64_combine, crc64_zeros, md5_many};
