//! The position of every byte on every drive: a value, computed before the first write.
//!
//! `catalog` (the files of a session) → `assign` (files to drives) → `tree` (one drive's files for the NTFS writer) →
//! `drive` (the layout of all layers) → `batches` (the write order). `snapshot` is the catalog as bytes. `in_place`
//! places BitLocker's areas in a volume that holds files. `export` counts the drives that the blobs of an
//! account need; `account` holds what the account said of those that are exported.

#![forbid(unsafe_code)]

use dray_azure as azure;
use dray_base::units;
use dray_bitlocker as bitlocker;
use dray_gpt as gpt;
use dray_hash as hash;
use dray_ntfs as ntfs;

pub mod account;
pub mod assign;
pub mod batches;
pub mod catalog;
pub mod checkpoint;
pub mod drive;
pub mod export;
pub mod in_place;
mod part;
pub mod snapshot;
pub mod tree;
