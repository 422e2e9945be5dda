//! The engine of `dray`: plans whole drives and streams them.
//!
//! Floors, from the ground up (an upper one may use lower ones, never the other way):
//!
//! 0. `units`, `entropy`, `limits`, `report`: values, their bounds, and what is told to the outside.
//! 1. `hash`, `crypt`, `gpt`, `ntfs`, `bitlocker`, `azure`: formats and kernels, pure; the formats do not know each other.
//! 2. `plan`: where every byte of every drive goes, pure.
//! 3. `io`, `pool`, `device`, `source`: everything that touches the kernel.
//! 4. `prep`, `verify`, `bench`: the pipelines.
//! 5. this file: what the command line may use.

#![deny(unsafe_code)]

pub mod entropy;
pub mod limits;
pub mod report;
pub mod surroundings;
pub mod units;

pub mod azure;
pub mod bitlocker;
pub mod crypt;
pub mod gpt;
pub mod hash;
pub mod ntfs;

pub mod plan;

pub mod device;
pub mod io;
pub mod pool;
pub mod source;

pub mod bench;
pub mod prep;
pub mod verify;

pub mod job;
