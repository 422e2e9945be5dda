//! The engine of `dray`: prepares, verifies, inspects and measures whole drives.
//!
//! It stands on crates of its own, each with one reason to be, whose arrows Cargo holds:
//!
//! * `dray-base`: values that all of them speak in. `dray-hash`, `dray-crypt`: kernels.
//! * `dray-gpt`, `dray-ntfs`, `dray-bitlocker`, `dray-azure`: formats, pure, which do not know each other.
//! * `dray-plan`: where every byte of every drive goes, pure.
//! * `dray-host`: everything that touches kernel, clock or chance.
//!
//! Here are the pipelines, in rooms of which each uses only those before it: `stream`, `volume`, `journal`, `dataset`,
//! `verify`, `work`, `session`, `image`, `survey`, `bench`. Public are [`api`], which is what a program may use of them, and
//! the values that it speaks in, [`report`], [`units`] and [`watchdog`].
#![forbid(unsafe_code)]

pub mod api;
pub mod report;

mod bench;
mod dataset;
mod image;
mod journal;
mod request;
mod session;
mod stream;
mod survey;
mod verify;
mod volume;
mod work;

pub use dray_base::units;
pub use dray_host::watchdog;

use dray_azure as azure;
use dray_base::{entropy, limits, text};
use dray_bitlocker as bitlocker;
use dray_crypt as crypt;
use dray_gpt as gpt;
use dray_hash as hash;
use dray_host::{device, files, io, pool, source, surroundings};
use dray_ntfs as ntfs;
use dray_plan::{self as plan, checkpoint};
