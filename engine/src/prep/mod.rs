//! The pipeline that fills a drive: feed, digest, seal, write, finish.

pub mod drive;
pub mod manifest;
pub mod outcome;
pub mod request;
pub mod scan;
pub mod session;
pub mod targets;
pub mod workers;
