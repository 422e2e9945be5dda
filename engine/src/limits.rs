//! Every maximum, with its reason.

/// Entries that a GPT may have before we stop believing it: 128 is what everyone writes; some tools allow more.
pub const GPT_ENTRIES_MAX: u32 = 1024;

/// Logical partitions followed through an MBR's extended chain; Linux itself stops far below.
pub const MBR_LOGICAL_MAX: u32 = 128;
