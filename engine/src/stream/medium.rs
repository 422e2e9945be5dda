//! The source of a drive's bytes: a device or an image file; in tests one with bad sectors.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::device::Device;
use crate::io::{Engine, Options};
use crate::pool::Pool;
use crate::units::{ByteLen, DeviceOffset, SectorSize};

/// A medium that is read and never written.
pub trait Medium: fmt::Debug + Send + Sync {
    /// Size in bytes.
    fn size(&self) -> ByteLen;
    /// Unit of direct transfers.
    fn sector(&self) -> SectorSize;
    /// Fills `into` from byte `at`, aligned or not; for single reads.
    ///
    /// # Errors
    /// `UnexpectedEof` past the end, otherwise the kernel's error.
    fn read_exact_at(&self, into: &mut [u8], at: DeviceOffset) -> io::Result<()>;
    /// An engine for reading in bulk, and a notice for the user when it is not the best one.
    fn engine(&self, pool: &Pool) -> (Box<dyn Engine + Send>, Option<String>);
}

#[cfg(test)]
impl Medium for crate::io::sim::SimDisk {
    fn size(&self) -> ByteLen {
        Self::size(self)
    }

    fn sector(&self) -> SectorSize {
        SectorSize::from_bytes(Self::sector(self)).unwrap_or(SectorSize::S512)
    }

    fn read_exact_at(&self, into: &mut [u8], at: DeviceOffset) -> io::Result<()> {
        self.try_read_at(at, into)
    }

    fn engine(&self, _: &Pool) -> (Box<dyn Engine + Send>, Option<String>) {
        (Box::new(Self::engine(self)), None)
    }
}

impl<T: Medium + ?Sized> Medium for Arc<T> {
    fn size(&self) -> ByteLen {
        (**self).size()
    }

    fn sector(&self) -> SectorSize {
        (**self).sector()
    }

    fn read_exact_at(&self, into: &mut [u8], at: DeviceOffset) -> io::Result<()> {
        (**self).read_exact_at(into, at)
    }

    fn engine(&self, pool: &Pool) -> (Box<dyn Engine + Send>, Option<String>) {
        (**self).engine(pool)
    }
}

impl Medium for Device {
    fn size(&self) -> ByteLen {
        self.geometry().size
    }

    fn sector(&self) -> SectorSize {
        self.geometry().sector
    }

    fn read_exact_at(&self, into: &mut [u8], at: DeviceOffset) -> io::Result<()> {
        Device::read_exact_at(self, into, at)
    }

    fn engine(&self, pool: &Pool) -> (Box<dyn Engine + Send>, Option<String>) {
        crate::io::open(self.target(), pool, Options::default())
    }
}
