//! GPT and MBR partition tables: both copies, built and read.
//!
//! Sources: UEFI 2.10 chapter 5 (protective MBR 5.2.3, header 5.3.2, entries 5.3.3); partition types and the shape that
//! Windows gives to data disks: docs/spec/ntfs.md#partition.

#![forbid(unsafe_code)]

use dray_base::{limits, units};

mod build;
mod layout;
pub mod moved;
pub mod read;

pub use build::{Guids, PlanError, Scheme, Table};
pub use layout::{BASIC_DATA, MSR};
pub use read::{CopyState, Flaw, FoundTables, PartitionEntry, read};

use crate::units::{ByteLen, DeviceOffset, DeviceRange};

/// Alignment used by Windows and all current partitioners.
pub const ALIGNMENT: ByteLen = ByteLen(1 << 20);

/// Microsoft reserved partition on data disks.
pub const MSR_LEN: ByteLen = ByteLen(16 << 20);

/// Areas of partition tables and of the outer ends of volumes: 1 MiB at either end. Wiping these two ranges leaves
/// neither copy of a GPT, no MBR, and no signature of a file system that starts at byte 0.
pub fn table_areas(disk: ByteLen) -> [DeviceRange; 2] {
    let len = ALIGNMENT.0.min(disk.0);
    [DeviceRange::new(0, len), DeviceRange { start: DeviceOffset(disk.0 - len), len: ByteLen(len) }]
}

#[cfg(test)]
mod tests;
