//! Errors of reading a volume, with their places.

use std::fmt;

use crate::units::VolumeOffset;

/// The device could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read at byte {at}: {message}")]
pub struct ReadError {
    /// Offset in the decrypted volume.
    pub at: VolumeOffset,
    /// Message of the operating system.
    pub message: String,
}

/// The decrypted volume as bytes. Reads may have any alignment and length; an implementation for a device aligns them.
pub trait ReadAt {
    /// Fills `buf` from byte `at` of the volume, completely or not at all.
    ///
    /// # Errors
    /// The range is not inside the volume, or the device fails.
    fn read_at(&mut self, at: VolumeOffset, buf: &mut [u8]) -> Result<(), ReadError>;
}

impl<R: ReadAt + ?Sized> ReadAt for &mut R {
    fn read_at(&mut self, at: VolumeOffset, buf: &mut [u8]) -> Result<(), ReadError> {
        (**self).read_at(at, buf)
    }
}

impl ReadAt for &[u8] {
    fn read_at(&mut self, at: VolumeOffset, buf: &mut [u8]) -> Result<(), ReadError> {
        let found = usize::try_from(at.0).ok().and_then(|start| self.get(start..start.checked_add(buf.len())?));
        match found {
            Some(found) => {
                buf.copy_from_slice(found);
                Ok(())
            }
            None => Err(ReadError { at, message: "past the end".to_owned() }),
        }
    }
}

/// A place on the volume, as exactly as known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumePlace {
    /// The `$MFT` record.
    pub record: Option<u64>,
    /// The attribute's type code in that record.
    pub attribute: Option<u32>,
    /// Byte offset: in the record if one is named without attribute, in the stream if an attribute is, else in the volume.
    pub offset: Option<u64>,
}

impl VolumePlace {
    pub(crate) const fn record(number: u64) -> Self {
        Self { record: Some(number), attribute: None, offset: None }
    }

    pub(crate) const fn stream(number: u64, attribute: u32, offset: u64) -> Self {
        Self { record: Some(number), attribute: Some(attribute), offset: Some(offset) }
    }

    pub(crate) const fn volume(offset: u64) -> Self {
        Self { record: None, attribute: None, offset: Some(offset) }
    }
}

impl fmt::Display for VolumePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.record {
            Some(record) => write!(f, "record {record}")?,
            None => f.write_str("volume")?,
        }
        if let Some(attribute) = self.attribute {
            write!(f, ", attribute {attribute:#x}")?;
        }
        match self.offset {
            Some(offset) => write!(f, ", offset {offset:#x}"),
            None => Ok(()),
        }
    }
}

/// Reasons why a structure cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The device failed.
    Read(ReadError),
    /// No NTFS boot sector, with the reason.
    NotNtfs(&'static str),
    /// The volume contradicts its own format.
    Corrupt(&'static str),
    /// A limit of this reader is exceeded.
    Limit(&'static str),
    /// Valid, but not readable here (encrypted files, files whose data other software stores elsewhere).
    Unsupported(&'static str),
    /// No such file, stream or record is in use.
    NotFound,
}

/// An error with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NtfsError {
    /// Structure that could not be read.
    pub place: VolumePlace,
    /// Reason why it could not be read.
    pub kind: ErrorKind,
}

impl NtfsError {
    pub(crate) const fn corrupt(place: VolumePlace, what: &'static str) -> Self {
        Self { place, kind: ErrorKind::Corrupt(what) }
    }

    pub(crate) const fn limit(place: VolumePlace, what: &'static str) -> Self {
        Self { place, kind: ErrorKind::Limit(what) }
    }

    pub(crate) const fn unsupported(place: VolumePlace, what: &'static str) -> Self {
        Self { place, kind: ErrorKind::Unsupported(what) }
    }

    pub(crate) const fn not_found(place: VolumePlace) -> Self {
        Self { place, kind: ErrorKind::NotFound }
    }

    pub(crate) const fn read(place: VolumePlace, error: ReadError) -> Self {
        Self { place, kind: ErrorKind::Read(error) }
    }
}

impl NtfsError {
    /// The error without the place.
    pub(super) fn what(&self) -> String {
        match &self.kind {
            ErrorKind::Read(error) => error.to_string(),
            ErrorKind::NotNtfs(what)
            | ErrorKind::Corrupt(what)
            | ErrorKind::Limit(what)
            | ErrorKind::Unsupported(what) => (*what).to_owned(),
            ErrorKind::NotFound => "not found".to_owned(),
        }
    }
}

impl fmt::Display for NtfsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.place;
        match &self.kind {
            ErrorKind::Read(error) => write!(f, "{place}: {error}"),
            ErrorKind::NotNtfs(what) => write!(f, "not an NTFS volume: {what}"),
            ErrorKind::Corrupt(what) => write!(f, "{place}: damaged: {what}"),
            ErrorKind::Limit(what) => write!(f, "{place}: refused: {what}"),
            ErrorKind::Unsupported(what) => write!(f, "{place}: not readable here: {what}"),
            ErrorKind::NotFound => write!(f, "{place}: not found"),
        }
    }
}

impl std::error::Error for NtfsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            ErrorKind::Read(error) => Some(error),
            ErrorKind::NotNtfs(_)
            | ErrorKind::Corrupt(_)
            | ErrorKind::Limit(_)
            | ErrorKind::Unsupported(_)
            | ErrorKind::NotFound => None,
        }
    }
}
