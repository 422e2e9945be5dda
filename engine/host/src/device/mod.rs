//! Drives and image files: opening, geometry, identity, and the gates in front of destruction.

#![allow(clippy::result_large_err, reason = "opening and checking are rare, and a problem is reported whole")]

pub mod by_id;
mod geometry;
pub mod guard;
mod identity;
mod ioctl;
mod node;
mod open;
mod packed;
pub mod signature;
mod usage;

use std::path::PathBuf;

pub use geometry::{Discard, Geometry, Zoned, attribute};
pub use identity::{Disk, Identity, Transport, list, resolve};
pub use node::{Ground, Held, Node};
pub use open::{Access, Device, DeviceKind, create_image, extend_image, is_going, is_gone};
pub use packed::refuse_packed;

/// Directories of the kernel's views of the machine; replaced in tests.
#[derive(Clone, Debug)]
pub struct Roots {
    /// `/sys`
    pub sys: PathBuf,
    /// `/proc`
    pub proc: PathBuf,
    /// `/dev`
    pub dev: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { sys: "/sys".into(), proc: "/proc".into(), dev: "/dev".into() }
    }
}
