//! Limits of the memory that a volume can make the reader use, with their reasons.

/// Windows' own bound for an attribute list (docs/spec/ntfs.md#limits).
pub(super) const ATTRIBUTE_LIST_BYTES_MAX: u64 = 256 << 10;
/// Runs of one stream: a full attribute list of 1 KiB records holds about 3.5 million; 12 bytes each here.
pub(super) const RUNS_PER_STREAM_MAX: usize = 4 << 20;
/// Runs of all files in a catalog: 2 GiB of memory at 8 bytes each.
pub(super) const RUNS_PER_CATALOG_MAX: usize = 1 << 28;
/// Files of a catalog: record numbers are 32 bits wide on disk (docs/spec/ntfs.md#limits).
pub(super) const RECORDS_MAX: u64 = u32::MAX as u64;
/// UTF-16 units of all names of a catalog, so that an offset fits 32 bits.
pub(super) const NAME_UNITS_MAX: usize = u32::MAX as usize;
/// Problems kept with their text; the rest are only counted.
pub(super) const PROBLEMS_KEPT_MAX: usize = 10_000;
/// Levels of an index: ntfs3 keeps 20, ntfs-3g 32 (docs/spec/ntfs.md#indexes).
pub(super) const INDEX_DEPTH_MAX: usize = 32;
/// Directories above a file: 32 767 units of path hold no more than half as many names.
pub(super) const PATH_DEPTH_MAX: usize = 16_384;
/// Cluster counts and numbers are 32 bits wide on every volume that any driver mounts (docs/spec/ntfs.md#limits).
pub(super) const CLUSTERS_MAX: u64 = u32::MAX as u64;
/// One read of the linear scan: long enough for a disk to stream, short enough to stay in cache.
pub(super) const SCAN_BYTES: usize = 4 << 20;
/// Extension records remembered from the scan, so that joining files needs few seeks.
pub(super) const STASH_BYTES_MAX: usize = 64 << 20;
/// Compression units: 16 clusters of at most 4 KiB (docs/spec/ntfs.md#limits); twice that is still read.
pub(super) const COMPRESSION_UNIT_BYTES_MAX: u64 = 128 << 10;
/// `$SDS` and other metadata streams read whole by the checker.
pub(super) const METADATA_STREAM_BYTES_MAX: u64 = 256 << 20;
/// Bitmap of one index: 16 MiB stand for half a terabyte of index blocks.
pub(super) const INDEX_BITMAP_BYTES_MAX: u64 = 16 << 20;
/// Longest index of a directory that is read ahead; longer ones are read block by block (600,000 names fit).
pub(super) const INDEX_AHEAD_BYTES_MAX: u64 = 64 << 20;
/// Length of one read of that.
pub(super) const INDEX_READ_BYTES: u64 = 1 << 20;
