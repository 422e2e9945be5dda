//! Access to the machine: devices and the gates before them, the I/O engines and their slots, source trees, files
//! that people name, time and chance.
//!
//! Nothing else of `dray` touches kernel, clock or random source. Unsafe code lives in `io/uring`, `pool` and
//! `device/ioctl` alone.
#![deny(unsafe_code)]

pub mod device;
pub mod files;
pub mod io;
pub mod pool;
pub mod source;
pub mod surroundings;
pub mod watchdog;

use dray_base::{advice, entropy, limits, problem, text, units};
