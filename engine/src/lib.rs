//! The engine of `dray`: plans whole drives and streams them.
//!
//! Floors, from the ground up (an upper one may use lower ones, never the other way):
//!
//! 0. `units`, `entropy`, `limits`, `report`, `text`, `watchdog`: values, their bounds, and reports to the outside.
//! 1. `hash`, `crypt`, `gpt`, `ntfs`, `bitlocker`, `azure`, `checkpoint`: formats and kernels, pure; the formats do not know each other.
//! 2. `plan`: the position of every byte on every drive, pure.
//! 3. `io`, `pool`, `device`, `source`, `files`: everything that touches the kernel.
//! 4. `prep`, `verify`, `image`, `bench`, `survey`: the pipelines.
//! 5. `job`: the façade for the command line.
//!
//! Public are `job`, `report`, `units` and `watchdog`. The feature `rooms` opens the other rooms to tests and
//! benchmarks, without a promise of stability. Both declarations of each are spelled out: formatters do not see through
//! macros.

#![deny(unsafe_code)]
// Rooms offer more to tests and benchmarks than the pipelines use.
#![cfg_attr(not(feature = "rooms"), allow(dead_code, unused_imports))]

#[cfg(feature = "rooms")]
pub mod entropy;
#[cfg(not(feature = "rooms"))]
mod entropy;
#[cfg(feature = "rooms")]
pub mod limits;
#[cfg(not(feature = "rooms"))]
mod limits;
pub mod report;
#[cfg(feature = "rooms")]
pub mod surroundings;
#[cfg(not(feature = "rooms"))]
mod surroundings;
#[cfg(feature = "rooms")]
pub mod text;
#[cfg(not(feature = "rooms"))]
mod text;
pub mod units;
pub mod watchdog;

#[cfg(feature = "rooms")]
pub mod azure;
#[cfg(not(feature = "rooms"))]
mod azure;
#[cfg(feature = "rooms")]
pub mod bitlocker;
#[cfg(not(feature = "rooms"))]
mod bitlocker;
#[cfg(feature = "rooms")]
pub mod checkpoint;
#[cfg(not(feature = "rooms"))]
mod checkpoint;
#[cfg(feature = "rooms")]
pub mod crypt;
#[cfg(not(feature = "rooms"))]
mod crypt;
#[cfg(feature = "rooms")]
pub mod gpt;
#[cfg(not(feature = "rooms"))]
mod gpt;
#[cfg(feature = "rooms")]
pub mod hash;
#[cfg(not(feature = "rooms"))]
mod hash;
#[cfg(feature = "rooms")]
pub mod ntfs;
#[cfg(not(feature = "rooms"))]
mod ntfs;

#[cfg(feature = "rooms")]
pub mod plan;
#[cfg(not(feature = "rooms"))]
mod plan;

#[cfg(feature = "rooms")]
pub mod device;
#[cfg(not(feature = "rooms"))]
mod device;
#[cfg(feature = "rooms")]
pub mod files;
#[cfg(not(feature = "rooms"))]
mod files;
#[cfg(feature = "rooms")]
pub mod io;
#[cfg(not(feature = "rooms"))]
mod io;
#[cfg(feature = "rooms")]
pub mod pool;
#[cfg(not(feature = "rooms"))]
mod pool;
#[cfg(feature = "rooms")]
pub mod source;
#[cfg(not(feature = "rooms"))]
mod source;

#[cfg(feature = "rooms")]
pub mod bench;
#[cfg(not(feature = "rooms"))]
mod bench;
#[cfg(feature = "rooms")]
pub mod image;
#[cfg(not(feature = "rooms"))]
mod image;
#[cfg(feature = "rooms")]
pub mod prep;
#[cfg(not(feature = "rooms"))]
mod prep;
#[cfg(feature = "rooms")]
pub mod survey;
#[cfg(not(feature = "rooms"))]
mod survey;
#[cfg(feature = "rooms")]
pub mod verify;
#[cfg(not(feature = "rooms"))]
mod verify;

pub mod job;

#[cfg(test)]
mod judges;
