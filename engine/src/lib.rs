//! The engine of `dray`: plans whole drives and streams them.
//!
//! Floors, from the ground up (an upper one may use lower ones, never the other way):
//!
//! 0. `units`, `entropy`, `limits`, `report`: values, their bounds, and what is told to the outside.
//! 1. `hash`, `crypt`, `gpt`, `ntfs`, `bitlocker`, `azure`, `checkpoint`: formats and kernels, pure; the formats do not know each other.
//! 2. `plan`: where every byte of every drive goes, pure.
//! 3. `io`, `pool`, `device`, `source`: everything that touches the kernel.
//! 4. `prep`, `verify`, `bench`, `survey`: the pipelines.
//! 5. `job`: what the command line may use.
//!
//! Public are `job` and the values that it speaks in, `report` and `units`. The feature `rooms` opens the other rooms to
//! tests and benchmarks; it promises nothing.

#![deny(unsafe_code)]
// Rooms offer more to tests and benchmarks than the pipelines use.
#![cfg_attr(not(feature = "rooms"), allow(dead_code, unused_imports))]

/// Declares rooms that only tests and benchmarks of this workspace may enter.
macro_rules! rooms {
    ($($room:ident),* $(,)?) => {
        $(
            #[cfg(feature = "rooms")]
            pub mod $room;
            #[cfg(not(feature = "rooms"))]
            mod $room;
        )*
    };
}

pub mod report;
pub mod units;
rooms!(entropy, limits, surroundings);

rooms!(azure, bitlocker, checkpoint, crypt, gpt, hash, ntfs);

rooms!(plan);

rooms!(device, io, pool, source);

rooms!(bench, prep, survey, verify);

pub mod job;

#[cfg(test)]
mod judges;
