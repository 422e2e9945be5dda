//! Sector ciphers over whole slots, key wrapping and key stretching, and the types that hold secrets.
//!
//! Everything here is pure. `vaes` alone holds unsafe code: CBC in 512-bit registers.
#![deny(unsafe_code)]

use dray_base::{text, units};

mod blocks;
mod cbc;
pub mod ccm;
mod diffuser;
pub mod printed;
pub mod secret;
pub mod stretch;
#[cfg(target_arch = "x86_64")]
mod vaes;
mod xts;

use std::fmt;

use aes::cipher::Array;
use aes::{Aes128, Aes256};

use crate::units::{SectorSize, VolumeOffset};
use blocks::Block;

/// Sector cipher of a BitLocker volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cipher {
    /// CBC, AES-128: every Windows since 7.
    AesCbc128,
    /// CBC, AES-256: every Windows since 7.
    AesCbc256,
    /// XTS, AES-128: Windows 10 1511 and later.
    XtsAes128,
    /// XTS, AES-256: Windows 10 1511 and later.
    XtsAes256,
    /// CBC, AES-128, with the Elephant diffuser of Vista and 7.
    AesCbcDiffuser128,
    /// CBC, AES-256, with the Elephant diffuser of Vista and 7.
    AesCbcDiffuser256,
}

impl Cipher {
    /// Whether it is one of the modes of Vista and 7, which are read but never written.
    pub const fn has_diffuser(self) -> bool {
        matches!(self, Self::AesCbcDiffuser128 | Self::AesCbcDiffuser256)
    }

    /// Every cipher, including those that are only read.
    pub const ALL: [Self; 6] = [
        Self::AesCbc128,
        Self::AesCbc256,
        Self::XtsAes128,
        Self::XtsAes256,
        Self::AesCbcDiffuser128,
        Self::AesCbcDiffuser256,
    ];

    /// The name that users type, for instance `xts-aes-128`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AesCbc128 => "aes-cbc-128",
            Self::AesCbc256 => "aes-cbc-256",
            Self::XtsAes128 => "xts-aes-128",
            Self::XtsAes256 => "xts-aes-256",
            Self::AesCbcDiffuser128 => "aes-cbc-128-diffuser",
            Self::AesCbcDiffuser256 => "aes-cbc-256-diffuser",
        }
    }

    /// The cipher of that [`name`](Self::name), upper or lower case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cipher| cipher.name().eq_ignore_ascii_case(name))
    }

    /// Bytes of the full volume encryption key as BitLocker stores it (docs/spec/bitlocker.md#fvek-datum).
    pub const fn fvek_len(self) -> usize {
        match self {
            Self::AesCbc128 => 16,
            Self::AesCbc256 | Self::XtsAes128 => 32,
            Self::XtsAes256 | Self::AesCbcDiffuser128 | Self::AesCbcDiffuser256 => 64,
        }
    }
}

impl fmt::Display for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// AES unit that a [`SectorCipher`] uses. All give the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// The widest of the machine, by the `aes` crate: for tests and measurements.
    Crate,
    /// The same, and for CBC 512-bit registers where the machine has them.
    Widest,
}

/// Reason why a key was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The key's length does not fit the cipher.
    #[error("{cipher} wants a key of {} bytes, not {found}", .cipher.fvek_len())]
    Length {
        /// The requested cipher.
        cipher: Cipher,
        /// Length of the given key in bytes.
        found: usize,
    },
}

/// Encrypts and decrypts runs of whole sectors in place, each sector for itself
/// (docs/spec/bitlocker.md#sector-ciphers).
///
/// The expanded keys live on the heap, where moving the cipher leaves no copy behind, and are wiped on drop. The
/// widest AES unit of the machine is found at run time (by the `aes` crate); without one the same code runs on a
/// constant-time portable AES.
pub struct SectorCipher {
    cipher: Cipher,
    sector: SectorSize,
    mode: Box<dyn Mode>,
}

/// One way of encrypting a sector. `first` is the byte offset of `data[0]` in the physical volume; `data` holds whole
/// sectors.
trait Mode: Send + Sync {
    fn seal(&self, first: u64, sector: SectorSize, data: &mut [Block]);
    fn open(&self, first: u64, sector: SectorSize, data: &mut [Block]);
}

impl SectorCipher {
    /// Expands the full volume encryption key `fvek`, [`Cipher::fvek_len`] bytes long.
    ///
    /// # Errors
    /// [`KeyError::Length`] for any other length.
    pub fn new(cipher: Cipher, fvek: &[u8], sector: SectorSize) -> Result<Self, KeyError> {
        Self::on(Unit::Widest, cipher, fvek, sector)
    }

    /// As [`Self::new`], on a given unit.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn on(unit: Unit, cipher: Cipher, fvek: &[u8], sector: SectorSize) -> Result<Self, KeyError> {
        if fvek.len() != cipher.fvek_len() {
            return Err(KeyError::Length { cipher, found: fvek.len() });
        }
        // Positions of the halves of a diffuser key: docs/spec/bitlocker.md#fvek-datum. Bytes 16..32 and 48..64 of the
        // AES-128 form are unused.
        let mode: Box<dyn Mode> = match cipher {
            Cipher::AesCbc128 => Box::new(cbc::Cbc::<Aes128>::new(fvek, unit)),
            Cipher::AesCbc256 => Box::new(cbc::Cbc::<Aes256>::new(fvek, unit)),
            Cipher::XtsAes128 => Box::new(xts::Xts::<Aes128>::new(&fvek[..16], &fvek[16..])),
            Cipher::XtsAes256 => Box::new(xts::Xts::<Aes256>::new(&fvek[..32], &fvek[32..])),
            Cipher::AesCbcDiffuser128 => Box::new(diffuser::Diffuser::<Aes128>::new(&fvek[..16], &fvek[32..48], unit)),
            Cipher::AesCbcDiffuser256 => Box::new(diffuser::Diffuser::<Aes256>::new(&fvek[..32], &fvek[32..], unit)),
        };
        Ok(Self { cipher, sector, mode })
    }

    /// The cipher that the key was expanded for.
    pub const fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// The sector size.
    pub const fn sector_size(&self) -> SectorSize {
        self.sector
    }

    /// Encrypts `data`, which is stored at byte `at` of the physical volume.
    ///
    /// # Panics
    /// Unless `at` and the length are whole sectors and the end is within 64 bits.
    pub fn seal(&self, at: VolumeOffset, data: &mut [u8]) {
        let blocks = self.whole_sectors(at, data);
        self.mode.seal(at.0, self.sector, blocks);
    }

    /// Decrypts `data`, which is stored at byte `at` of the physical volume.
    ///
    /// # Panics
    /// Unless `at` and the length are whole sectors and the end is within 64 bits.
    pub fn open(&self, at: VolumeOffset, data: &mut [u8]) {
        let blocks = self.whole_sectors(at, data);
        self.mode.open(at.0, self.sector, blocks);
    }

    fn whole_sectors<'a>(&self, at: VolumeOffset, data: &'a mut [u8]) -> &'a mut [Block] {
        let len = data.len() as u64;
        let sector = self.sector.bytes();
        assert!(at.is_aligned(sector) && len.is_multiple_of(sector), "{len} bytes at {at}: not whole sectors");
        assert!(at.0.checked_add(len).is_some(), "{len} bytes at {at}: past 64 bits");
        Array::slice_as_chunks_mut(data).0
    }
}

impl fmt::Debug for SectorCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SectorCipher")
            .field("cipher", &self.cipher)
            .field("sector", &self.sector)
            .field("key", &format_args!("<secret>"))
            .finish()
    }
}

#[cfg(test)]
mod tests;
