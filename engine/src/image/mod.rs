//! Drives as a whole, whatever is on them: erased, kept as an image, written from one, compared, repaired.
//!
//! An image and a disk differ in nothing but their gates. What is read comes through the block reader of `verify`, hashed by
//! the shared workers; what is written goes through a `lane` a drive, with the same slots and the engine of that drive.

pub mod acquire;
pub mod compare;
pub mod erase;
mod lane;
pub mod map;
mod packed;
mod pipeline;
pub mod ranges;
pub mod repair;
mod rescue;
mod search;
pub mod target;
pub mod write;
