//! CRC-64/NVME, which Azure Storage uses, and CRC-32/ISO-HDLC, which GPT and BitLocker use.
#![forbid(unsafe_code)]

use std::fmt;

use crc_fast::{CrcAlgorithm, Digest, checksum_combine, crc32_iso_hdlc, crc64_nvme};

/// CRC-64/NVME of a stream in pieces.
#[derive(Clone)]
pub struct Crc64(Digest);

impl Crc64 {
    /// The CRC of no bytes.
    pub fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc64Nvme))
    }

    /// Takes the next piece.
    pub fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// The CRC of the bytes so far. On the wire: eight bytes, little-endian, in base64.
    pub fn value(&self) -> u64 {
        self.0.finalize()
    }

    /// Bytes so far.
    pub fn len(&self) -> u64 {
        self.0.get_amount()
    }

    /// Whether there are no bytes yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for Crc64 {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Crc64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crc64({:016x} of {} bytes)", self.value(), self.len())
    }
}

/// CRC-64/NVME of `data`: reflected polynomial 0x9A6C9329AC4BC9B5, initial value and final xor all ones (Azure SDK,
/// `StorageCrc64Calculator`).
pub fn crc64(data: &[u8]) -> u64 {
    crc64_nvme(data)
}

/// The CRC-64 of `a ‖ b`, from that of `a`, that of `b`, and the length of `b` in bytes.
pub fn crc64_combine(a: u64, b: u64, b_len: u64) -> u64 {
    checksum_combine(CrcAlgorithm::Crc64Nvme, a, b, b_len)
}

/// The CRC-64 of `len` zeros, without processing them.
pub fn crc64_zeros(len: u64) -> u64 {
    // The CRCs of 1, 2, 4, … zeros, combined by the bits of the length.
    let (mut out, mut power, mut rest) = (crc64(&[]), crc64(&[0]), len);
    let mut step = 1;
    while rest > 0 {
        if rest & 1 == 1 {
            out = crc64_combine(out, power, step);
        }
        rest >>= 1;
        if rest > 0 {
            power = crc64_combine(power, power, step);
            step <<= 1;
        }
    }
    out
}

/// CRC-32/ISO-HDLC of `data` (zip's, Ethernet's): UEFI 2.10, 5.3.2; FVE metadata.
pub fn crc32(data: &[u8]) -> u32 {
    crc32_iso_hdlc(data)
}
