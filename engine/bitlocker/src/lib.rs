//! BitLocker's structures: boot sector, metadata regions, protectors, key files; built and read.
//!
//! Each structure cites its section of `docs/spec/bitlocker.md`, whose evidence is volumes made by Windows and the
//! behaviour of the open readers.
//!
//! * [`regions`]: placement of the reserved areas of a new volume.
//! * [`build`]: the bytes of a new volume's metadata and front.
//! * [`read`]: the metadata of a volume, and unlocking it.
//! * [`map`]: from bytes of the unlocked volume to bytes of the device.
//! * [`keys`]: the forms of keys that unlock a volume.

#![forbid(unsafe_code)]

use dray_base::text;
pub use dray_base::{entropy, units};
pub use dray_crypt as crypt;

pub mod build;
mod datum;
mod format;
pub mod keys;
pub mod map;
pub mod read;
pub mod regions;
