//! The values that every crate of `dray` speaks in: bytes, sectors and clusters as types, randomness as an argument,
//! problems with their place and advice, text as others wrote it, and bounds on what comes from outside.
#![forbid(unsafe_code)]

pub mod advice;
pub mod entropy;
pub mod limits;
pub mod problem;
pub mod text;
pub mod units;
