//! The service's side of an import: what it asks of a drive and of each blob, in its order, and the status that it would
//! give (docs/spec/import-export.md#disks-and-limits, docs/spec/import-export.md#copy-logs).
//!
//! Both `dray verify` and `dray rehearse` use these answers. They rest on the results of the one pipeline that reads the
//! drive; nothing here reads blobs a second time. Where the documentation leaves the service's behaviour open, the guide
//! says what is assumed (docs/guide/rehearsing.md).

pub mod blob;
pub mod drive;
