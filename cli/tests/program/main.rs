//! The binary from outside. One program for all, since each would be linked with the whole engine.

mod accidents;
mod account;
mod appends;
mod bench;
mod beside;
mod command_line;
mod common;
/// Blobs of one name, and impossible entries of a manifest.
mod doubles;
mod export;
mod format;
mod images;
mod ingest;
mod job;
mod job_held;
mod judged;
mod keys;
mod lab;
mod large;
mod mistakes;
mod own_files;
mod package;
mod rehearse;
mod repair;
mod selection;
mod sessions;
mod shards;
mod signals;
/// Damaged and changed partition tables.
mod tables;
mod user;
mod verify;
mod windows_volumes;
