//! Little-endian words, and texts and lists with their length before them.

use std::io;

use super::CheckpointFault;

/// Longest text: paths have at most 4096 bytes, ids far fewer.
const TEXT_LEN_MAX: usize = 64 << 10;

/// Writes values one after the other. Errors are kept for [`Encoder::end`].
#[allow(missing_debug_implementations, reason = "holds a writer")]
pub struct Encoder<'a> {
    out: &'a mut dyn io::Write,
    failure: Option<io::Error>,
}

impl<'a> Encoder<'a> {
    /// An encoder that writes into `out`.
    pub fn new(out: &'a mut dyn io::Write) -> Self {
        Self { out, failure: None }
    }

    /// Bytes without a length: the reader must know it.
    pub fn bytes(&mut self, bytes: &[u8]) {
        if self.failure.is_none() {
            self.failure = self.out.write_all(bytes).err();
        }
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    /// A 32-bit word, little-endian.
    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    /// A 64-bit word, little-endian.
    pub fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    /// A signed 64-bit word, little-endian.
    pub fn i64(&mut self, value: i64) {
        self.bytes(&value.to_le_bytes());
    }

    /// Bytes, preceded by their number as 64 bits.
    pub fn list(&mut self, bytes: &[u8]) {
        self.u64(bytes.len() as u64);
        self.bytes(bytes);
    }

    /// A text as UTF-8, encoded like a list.
    pub fn text(&mut self, text: &str) {
        self.list(text.as_bytes());
    }

    /// An optional value: a byte 0, or a byte 1 and the value.
    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.u8(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }

    /// Whether everything was written.
    ///
    /// # Errors
    /// The first error.
    pub fn end(self) -> io::Result<()> {
        self.failure.map_or(Ok(()), Err)
    }
}

/// Reads the same values back; never panics, whatever the bytes.
#[derive(Debug)]
pub struct Decoder<'a> {
    rest: &'a [u8],
}

const SHORT: CheckpointFault = CheckpointFault("ends too early");

impl<'a> Decoder<'a> {
    /// A decoder of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not read yet.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// Fewer bytes are left; the same holds for the methods below.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], CheckpointFault> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next bytes as an array.
    ///
    /// # Errors
    /// Fewer bytes are left.
    pub fn bytes<const N: usize>(&mut self) -> Result<[u8; N], CheckpointFault> {
        self.take(N)?.try_into().map_err(|_| SHORT)
    }

    /// One byte.
    ///
    /// # Errors
    /// No byte is left.
    pub fn u8(&mut self) -> Result<u8, CheckpointFault> {
        Ok(self.bytes::<1>()?[0])
    }

    /// A 32-bit word.
    ///
    /// # Errors
    /// Fewer bytes are left.
    pub fn u32(&mut self) -> Result<u32, CheckpointFault> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    /// A 64-bit word.
    ///
    /// # Errors
    /// Fewer bytes are left.
    pub fn u64(&mut self) -> Result<u64, CheckpointFault> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    /// A signed 64-bit word.
    ///
    /// # Errors
    /// Fewer bytes are left.
    pub fn i64(&mut self) -> Result<i64, CheckpointFault> {
        Ok(i64::from_le_bytes(self.bytes()?))
    }

    /// Bytes with their length before them.
    ///
    /// # Errors
    /// Fewer bytes are left.
    pub fn list(&mut self) -> Result<&'a [u8], CheckpointFault> {
        let len = self.u64()?;
        self.take(usize::try_from(len).map_err(|_| SHORT)?)
    }

    /// A text, as [`Encoder::text`] writes it.
    ///
    /// # Errors
    /// It is cut off, no UTF-8, or too long.
    pub fn text(&mut self) -> Result<String, CheckpointFault> {
        let bytes = self.list()?;
        if bytes.len() > TEXT_LEN_MAX {
            return Err(CheckpointFault("holds a text that is too long"));
        }
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| CheckpointFault("holds a text that is not UTF-8"))
    }

    /// An optional value, as [`Encoder::option`] writes it.
    ///
    /// # Errors
    /// It is cut off, or an error of `read`.
    pub fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, CheckpointFault>,
    ) -> Result<Option<T>, CheckpointFault> {
        match self.u8()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(CheckpointFault("holds a mark that is neither yes nor no")),
        }
    }

    /// Number of items of at least `least` bytes that follow: never more than the remaining bytes could hold.
    ///
    /// # Errors
    /// It is cut off, or exceeds that bound.
    pub fn count(&mut self, least: usize) -> Result<usize, CheckpointFault> {
        let count = self.u64()?;
        let fits = usize::try_from(count).ok().filter(|count| count.saturating_mul(least.max(1)) <= self.rest.len());
        fits.ok_or(SHORT)
    }
}
