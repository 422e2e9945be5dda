//! Every maximum, with its reason.

/// Largest plausible number of GPT entries: 128 is what nearly all tools write; some allow more.
pub const GPT_ENTRIES_MAX: u32 = 1024;

/// Logical partitions followed through an MBR's extended chain; Linux itself stops far below.
pub const MBR_LOGICAL_MAX: u32 = 128;

/// Rows of a dataset or driveset file: far more than anyone writes by hand, few enough to hold.
pub const CSV_ROWS_MAX: usize = 1_000_000;

/// Drives of one session: the documented maximum, once the letters of the alphabet
/// (docs/spec/import-export.md#drive-set-columns).
pub const DRIVES_MAX: usize = 25;

/// Open elements of an XML file: manifests and logs nest at most six deep.
pub const XML_DEPTH_MAX: usize = 32;

/// Bytes of one XML tag or text: a blob name of 1,024 units escaped to the utmost, several times over.
pub const XML_STEP_MAX: usize = 64 << 10;

/// Blocks and page ranges held of one blob that is read from a manifest: an 8 TiB page blob in 4 MiB ranges.
pub const BLOB_PIECES_MAX: usize = 2 << 20;

/// Faults reported of one manifest or log; further ones are only counted.
pub const FAULTS_MAX: usize = 100;

/// Elements of a metadata file: 8 KB of names and values hold no more.
pub const SIDE_ELEMENTS_MAX: usize = 8192;

/// Selectors of a blob list: more than a person lists, few enough to hold.
pub const SELECTORS_MAX: usize = 1_000_000;

/// Longest metadata or properties file that is taken: names and values together are at most 8 KB, the rest is markup.
pub const SIDE_FILE_MAX: u64 = 1 << 20;

/// Longest journal that is read: a session of 25 drives writes some 20 KiB into it.
pub const JOURNAL_LEN_MAX: u64 = 256 << 20;

/// Longest dataset, driveset, journal or drive record that is read: a million rows of long paths.
pub const INPUT_FILE_MAX: u64 = 256 << 20;

/// Bytes of a run's log before a new file is begun; if a million files are left out, the first half of the list
/// suffices.
pub const LOG_LEN_MAX: u64 = 16 << 20;

/// Runs of a session whose logs are kept in the log directory.
pub const LOGS_KEPT: usize = 32;
