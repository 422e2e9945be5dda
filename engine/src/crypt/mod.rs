//! Sector ciphers over whole slots, key wrapping and key stretching, and the types that hold secrets.

#![forbid(unsafe_code)]

pub mod ccm;
pub mod secret;
pub mod stretch;
