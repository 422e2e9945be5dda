//! Microsoft's files: dataset and driveset CSV, manifest, journal, drive record, properties and metadata.
//!
//! The formats, with their sources: docs/spec/import-export.md.

#![forbid(unsafe_code)]

use dray_base::{advice, limits, problem, text, units};
use dray_crypt as crypt;
use dray_hash as hash;

pub mod base64;
pub mod bloblist;
pub mod copylog;
pub mod dataset;
pub mod drive_record;
pub mod driveset;
pub mod journal;
pub mod ledger;
pub mod manifest;
pub mod names;
pub mod properties;
pub mod vhd;

mod csv;
mod digest;
mod secret;
mod xml;

pub use digest::{Digest, Md5};
pub use secret::SecretText;
pub use xml::{Steps as XmlSteps, XmlError, XmlEvent as XmlStep};
