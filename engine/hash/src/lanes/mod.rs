//! Hashes of up to sixteen independent messages at once, a message to a lane of the vector unit.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod md5;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
mod neon;
pub(crate) mod sha256;
#[cfg(target_arch = "x86_64")]
mod sha_ni;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
mod vectors;
#[cfg(target_arch = "x86_64")]
mod x86;

/// A block of either hash.
pub(crate) type Block = [u8; 64];
/// Lanes of the widest back end.
pub(crate) const LANES_MAX: usize = 16;

/// Bytes between what is hashed and what is asked of memory. Slots come from a device or another core, and no cache has
/// them: without asking, a chain of SHA-256 runs at 0.6 of its speed, one of MD5 at 0.9 (on a virtual machine).
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 2 << 10;

/// Asks for the line of memory [`AHEAD`] bytes behind `from`, which need not exist.
#[inline(always)]
pub(crate) fn fetch_ahead(from: *const Block) {
    // SAFETY: a hint touches no memory that the program could observe, and faults nowhere.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(from.wrapping_byte_add(AHEAD).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = from;
}
