//! C libraries to measure next to ours, as far as `build.rs` found them on this machine.
#![allow(unsafe_code)]

#[cfg(any(ipsec_mb, openssl))]
use std::ffi::c_int;
use std::fs::File;
use std::io;

/// Maps a file that nobody changes.
///
/// # Errors
/// The error of `mmap`.
pub fn map(file: &File) -> io::Result<memmap2::Mmap> {
    // SAFETY: the benchmark has just written the file for itself, and nobody changes it.
    unsafe { memmap2::Mmap::map(file) }
}

/// Intel IPsec-MB, with a key for CBC.
#[cfg(ipsec_mb)]
#[derive(Debug)]
pub struct IpsecMb(std::ptr::NonNull<std::ffi::c_void>);

#[cfg(ipsec_mb)]
mod ipsec_mb {
    use std::ffi::c_void;

    use super::*;

    unsafe extern "C" {
        fn peer_ipsec_mb_new(key: *const u8, key_len: usize) -> *mut c_void;
        fn peer_ipsec_mb_free(peer: *mut c_void);
        fn peer_ipsec_mb_cbc(
            peer: *mut c_void,
            is_sealing: c_int,
            at: u64,
            sector: usize,
            data: *mut u8,
            len: usize,
        ) -> usize;
    }

    impl IpsecMb {
        /// Expands a key of 16 or 32 bytes.
        ///
        /// # Panics
        /// For any other length.
        pub fn new(key: &[u8]) -> Self {
            assert!(matches!(key.len(), 16 | 32));
            // SAFETY: the key has the length given, which the library knows.
            let peer = unsafe { peer_ipsec_mb_new(key.as_ptr(), key.len()) };
            Self(std::ptr::NonNull::new(peer).expect("memory for a manager"))
        }

        /// Seals or opens whole sectors, in bursts.
        ///
        /// # Panics
        /// Unless `data` is whole sectors.
        pub fn cbc(&self, is_sealing: bool, at: u64, sector: usize, data: &mut [u8]) {
            assert!(data.len().is_multiple_of(sector));
            // SAFETY: the buffer is exclusively ours and whole sectors; the manager lives until `self` is dropped.
            let done = unsafe {
                peer_ipsec_mb_cbc(self.0.as_ptr(), is_sealing.into(), at, sector, data.as_mut_ptr(), data.len())
            };
            assert_eq!(done, data.len() / sector);
        }
    }

    impl Drop for IpsecMb {
        fn drop(&mut self) {
            // SAFETY: made by `peer_ipsec_mb_new`, and freed once.
            unsafe { peer_ipsec_mb_free(self.0.as_ptr()) };
        }
    }
}

#[cfg(openssl)]
unsafe extern "C" {
    fn peer_openssl(
        name: *const std::ffi::c_char,
        key: *const u8,
        is_sealing: c_int,
        at: u64,
        sector: usize,
        data: *mut u8,
        len: usize,
    ) -> c_int;
    fn peer_openssl_md5(data: *const u8, len: usize, digest: *mut u8) -> c_int;
    fn peer_openssl_sha256(data: *const u8, len: usize, digest: *mut u8) -> c_int;
}

/// Seals or opens whole sectors with OpenSSL's cipher `name`, one context for all.
///
/// # Panics
/// The sectors are not whole, the key's length does not fit the name, or OpenSSL lacks the cipher.
#[cfg(openssl)]
pub fn openssl(name: &std::ffi::CStr, key: &[u8], is_sealing: bool, at: u64, sector: usize, data: &mut [u8]) {
    assert!(data.len().is_multiple_of(sector) && key.len() >= 16);
    let wanted = match name.to_bytes() {
        b"AES-128-CBC" => 16,
        b"AES-256-CBC" | b"AES-128-XTS" => 32,
        _ => 64,
    };
    assert_eq!(key.len(), wanted);
    // SAFETY: the key is as long as the cipher wants it, and the buffer is exclusively ours and whole sectors.
    let good = unsafe {
        peer_openssl(name.as_ptr(), key.as_ptr(), is_sealing.into(), at, sector, data.as_mut_ptr(), data.len())
    };
    assert_eq!(good, 1, "{name:?}");
}

/// MD5 by OpenSSL.
///
/// # Panics
/// OpenSSL lacks it.
#[cfg(openssl)]
pub fn openssl_md5(data: &[u8]) -> [u8; 16] {
    let mut digest = [0; 16];
    // SAFETY: the length is the data's, and a digest has 16 bytes.
    assert_eq!(unsafe { peer_openssl_md5(data.as_ptr(), data.len(), digest.as_mut_ptr()) }, 1);
    digest
}

/// SHA-256 by OpenSSL.
///
/// # Panics
/// OpenSSL lacks it.
#[cfg(openssl)]
pub fn openssl_sha256(data: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    // SAFETY: the length is the data's, and a digest has 32 bytes.
    assert_eq!(unsafe { peer_openssl_sha256(data.as_ptr(), data.len(), digest.as_mut_ptr()) }, 1);
    digest
}
