//! BitLocker's own bytes: boot sector, metadata regions, protectors, key files; built and read.
//!
//! Each structure cites its section of `docs/spec/bitlocker.md`, whose evidence is volumes made by Windows and the
//! behaviour of the open readers.
//!
//! * [`regions`]: where the reserved areas of a new volume lie.
//! * [`build`]: the bytes of a new volume's metadata and front.
//! * [`read`]: what a volume says about itself, and unlocking it.
//! * [`map`]: from bytes of the unlocked volume to bytes of the device.
//! * [`keys`]: what a person or a file can bring to unlock a volume.

#![forbid(unsafe_code)]

pub mod build;
mod datum;
mod format;
pub mod keys;
pub mod map;
pub mod read;
pub mod regions;
