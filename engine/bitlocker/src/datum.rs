//! Datums: the tagged, nested records that a dataset is made of (docs/spec/bitlocker.md#datums).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};
use zeroize::{Zeroize, Zeroizing};

use super::format::{CcmHead, DatumHeader, KeyHead, Nonce, kind, role};
use crate::crypt::ccm;
use crate::crypt::secret::Key32;
use crate::units::FileTime;

const HEADER_LEN: usize = size_of::<DatumHeader>();

/// Fault of a datum, with its offset in bytes from the start of the region or key file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("datum at byte {at:#x}: {fault}")]
pub struct DatumError {
    /// Offset of the datum.
    pub at: usize,
    /// Rule that the datum breaks.
    pub fault: DatumFault,
}

/// Rule that a datum breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatumFault {
    /// Fewer bytes left than a header takes.
    #[error("no room for its header")]
    NoHeader,
    /// The size field is below the header's size or leaves the parent.
    #[error("its size field is {size}, {left} bytes are left")]
    Size {
        /// The size field.
        size: u16,
        /// Bytes from the start of the datum to the end of its parent.
        left: usize,
    },
    /// The payload is shorter than the type's fixed part.
    #[error("{found} bytes of payload, its type has at least {expected}")]
    Short {
        /// Bytes of payload in the datum.
        found: usize,
        /// Bytes that the type needs.
        expected: usize,
    },
}

/// One datum in a buffer.
#[derive(Clone, Copy, Debug)]
pub struct Datum<'a> {
    /// Offset of the datum, from the start of the region or key file.
    pub at: usize,
    pub role: u16,
    pub kind: u16,
    pub payload: &'a [u8],
}

impl<'a> Datum<'a> {
    /// The fixed part of the payload as `T`, and the rest.
    pub fn split<T>(&self) -> Result<(&'a T, &'a [u8]), DatumError>
    where
        T: FromBytes + KnownLayout + Immutable + Unaligned,
    {
        T::ref_from_prefix(self.payload).map_err(|_| DatumError {
            at: self.at,
            fault: DatumFault::Short { found: self.payload.len(), expected: size_of::<T>() },
        })
    }

    /// The datums that follow the fixed part `T`.
    pub fn nested<T>(&self) -> Result<(&'a T, Datums<'a>), DatumError>
    where
        T: FromBytes + KnownLayout + Immutable + Unaligned,
    {
        let (head, rest) = self.split::<T>()?;
        Ok((head, Datums::new(rest, self.at + HEADER_LEN + size_of::<T>())))
    }

    /// Text without its final NUL; unpaired surrogates become U+FFFD.
    pub fn text(&self) -> String {
        let units = self.payload.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
        char::decode_utf16(units.take_while(|&unit| unit != 0))
            .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect()
    }

    /// The payload as wrapped bytes.
    pub fn sealed(&self) -> Result<Sealed, DatumError> {
        let (head, ciphertext) = self.split::<CcmHead>()?;
        Ok(Sealed { role: self.role, nonce: head.nonce, tag: head.tag, ciphertext: ciphertext.to_vec() })
    }
}

/// Iterates over consecutive datums; ends after the first malformed one.
#[derive(Clone, Debug)]
pub struct Datums<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Datums<'a> {
    /// The datums in `bytes`, which start `at` bytes into the region or file.
    pub const fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }
}

impl<'a> Iterator for Datums<'a> {
    type Item = Result<Datum<'a>, DatumError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        let at = self.at;
        let left = self.bytes.len();
        let Ok((header, _)) = DatumHeader::ref_from_prefix(self.bytes) else {
            self.bytes = &[];
            return Some(Err(DatumError { at, fault: DatumFault::NoHeader }));
        };
        let size = header.size.get();
        if usize::from(size) < HEADER_LEN || usize::from(size) > left {
            self.bytes = &[];
            return Some(Err(DatumError { at, fault: DatumFault::Size { size, left } }));
        }
        let (whole, rest) = self.bytes.split_at(usize::from(size));
        self.bytes = rest;
        self.at += whole.len();
        Some(Ok(Datum { at, role: header.role.get(), kind: header.kind.get(), payload: &whole[HEADER_LEN..] }))
    }
}

/// Wrapped bytes: an AES_CCM datum's payload.
#[derive(Clone, Debug)]
pub struct Sealed {
    pub role: u16,
    nonce: [u8; ccm::NONCE_LEN],
    tag: [u8; ccm::TAG_LEN],
    ciphertext: Vec<u8>,
}

/// Reason why a wrapped key cannot be unwrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealedError {
    /// The tag does not match: another key, or changed bytes.
    WrongTag,
    /// The tag matches, but the contents are no KEY datum.
    NoKey,
}

impl Sealed {
    /// Unwraps with `key` and gives the type and bytes of the key inside to `take`.
    pub fn open<T>(&self, key: &Key32, take: impl FnOnce(u16, &[u8]) -> Option<T>) -> Result<T, SealedError> {
        let mut plain = Zeroizing::new(self.ciphertext.clone());
        ccm::unwrap(key, &self.nonce, &self.tag, &mut plain).map_err(|_| SealedError::WrongTag)?;
        let datum = match Datums::new(&plain, 0).next() {
            Some(Ok(datum)) if datum.kind == kind::KEY => datum,
            _ => return Err(SealedError::NoKey),
        };
        let (head, bytes) = datum.split::<KeyHead>().map_err(|_| SealedError::NoKey)?;
        take(head.key_type.get(), bytes).ok_or(SealedError::NoKey)
    }

    /// Unwraps a 256-bit key of type `key_type`.
    pub fn open_key32(&self, key: &Key32, key_type: u16) -> Result<Key32, SealedError> {
        self.open(key, |found, bytes| if found == key_type { Key32::from_slice(bytes) } else { None })
    }
}

/// Writes datums. Sizes are filled in when a datum closes; the buffer is a few hundred bytes.
#[derive(Debug)]
pub struct Writer {
    out: Vec<u8>,
    time: FileTime,
    counter: u32,
}

/// Flags ("version") of a datum on disk (docs/spec/bitlocker.md#datums).
const FLAGS_ON_DISK: u16 = 1;
/// Flags of a KEY datum inside a wrapping.
const FLAGS_WRAPPED: u16 = 0;

impl Writer {
    /// Appends to `out`; nonces consist of `time`, and of counters from `counter` on.
    pub const fn new(out: Vec<u8>, time: FileTime, counter: u32) -> Self {
        Self { out, time, counter }
    }

    /// The counter of the next wrapping.
    pub const fn next_counter(&self) -> u32 {
        self.counter
    }

    /// The time in nonces.
    pub const fn time(&self) -> FileTime {
        self.time
    }

    /// All datums written so far, in their on-disk form.
    pub fn into_bytes(mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Writes a datum with the payload that `fill` writes.
    pub fn datum(&mut self, role: u16, kind: u16, fill: impl FnOnce(&mut Self)) {
        self.datum_with_flags(role, kind, FLAGS_ON_DISK, fill);
    }

    fn datum_with_flags(&mut self, role: u16, kind: u16, flags: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.out.len();
        self.out.extend_from_slice(&[0; HEADER_LEN]);
        fill(self);
        let size = u16::try_from(self.out.len() - start).expect("own datums have a few hundred bytes");
        let header = DatumHeader { size: size.into(), role: role.into(), kind: kind.into(), flags: flags.into() };
        self.out[start..][..HEADER_LEN].copy_from_slice(header.as_bytes());
    }

    /// Writes a fixed part.
    pub fn head<T: IntoBytes + Immutable>(&mut self, head: &T) {
        self.out.extend_from_slice(head.as_bytes());
    }

    /// Writes bytes unchanged.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Writes a UNICODE datum with the final NUL.
    pub fn text(&mut self, role: u16, text: &str) {
        self.datum(role, kind::UNICODE, |out| {
            for unit in text.encode_utf16().chain([0]) {
                out.out.extend_from_slice(&unit.to_le_bytes());
            }
        });
    }

    /// Writes an unwrapped KEY datum, for key files.
    pub fn key(&mut self, key_type: u16, key: &[u8]) {
        self.datum(role::PROPERTY, kind::KEY, |out| {
            out.head(&KeyHead { key_type: key_type.into(), flags: 0.into() });
            out.bytes(key);
        });
    }

    /// Writes an AES_CCM datum that holds `key` under `wrapping`, with the next counter.
    pub fn sealed_key(&mut self, role: u16, wrapping: &Key32, key_type: u16, key: &[u8]) {
        let nonce = Nonce { time: self.time.0.into(), counter: self.counter.into() };
        self.counter += 1;
        let nonce: [u8; ccm::NONCE_LEN] = zerocopy::transmute!(nonce);
        let head_len = HEADER_LEN + size_of::<KeyHead>();
        let mut inner = Writer::new(Vec::with_capacity(head_len + key.len()), self.time, 0);
        inner.datum_with_flags(role::PROPERTY, kind::KEY, FLAGS_WRAPPED, |out| {
            out.head(&KeyHead { key_type: key_type.into(), flags: 0.into() });
            out.bytes(key);
        });
        let mut data = Zeroizing::new(inner.into_bytes());
        let tag = ccm::wrap(wrapping, &nonce, &mut data);
        self.datum(role, kind::AES_CCM, |out| {
            out.head(&CcmHead { nonce, tag });
            out.bytes(&data);
        });
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.out.zeroize();
    }
}
