//! Drives and machine, measured and described.
//!
//! Begin with [`Bench`] for throughput, with [`disks`] and [`examine`] for what is attached and in which state.

pub use crate::bench::{Bench, BenchReport, BenchRequest, Bottleneck, Direction, Load, Point, RateSeries, together};
pub use crate::survey::{CheckState, Health, Link, LinkCounters, MachineCheck, Queue, Seen, disks, examine, gates};
