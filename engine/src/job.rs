//! The façade: the part of the pipelines that the command line may use.

pub use crate::azure::bloblist::{self, BlobList, Inventory, Selection};
pub use crate::azure::dataset::{BlobType, Disposition};
pub use crate::azure::drive_record::{DriveRecord, RecordState, key_check};
pub use crate::azure::driveset::parse_size;
pub use crate::azure::journal::{SessionState, Work};
pub use crate::azure::ledger::{self, CopySession, Ledger, SessionDrive};
pub use crate::azure::manifest::{Pieces, nonzero_runs};
pub use crate::azure::names::{NameError, check_blob, check_container, check_drive_id};
pub use crate::azure::{Digest, SecretText, XmlError, XmlStep, XmlSteps, base64};
pub use crate::azure::{copylog, manifest, properties};
pub use crate::bench::{Bench, BenchReport, BenchRequest, Bottleneck, Direction, Load, Point, RateSeries, together};
pub use crate::bitlocker::read::{Form, Integrity, State};
pub use crate::crypt::Cipher;
pub use crate::device::Device;
pub use crate::device::guard::Context as GuardContext;
pub use crate::device::{Discard, Geometry, Identity, Roots, Transport, Zoned};
pub use crate::files::input::{Pipes, open as open_input, read as read_input};
pub use crate::files::output::{Form as OutputForm, Output as OutputFile, Outputs};
pub use crate::gpt::read::CopyState;
pub use crate::hash::{Md5, Sha256, crc64, crc64_combine, crc64_zeros, md5_many};
pub use crate::image::compare::Compared;
pub use crate::image::target::{Target, twice as named_twice};
pub use crate::image::{acquire, compare, erase, map, ranges, write};
pub use crate::ntfs::read::{BackupBoot, Facts, FileId, LogState};
pub use crate::plan::account;
pub use crate::plan::catalog::{Builder as CatalogBuilder, Catalog};
pub use crate::plan::export;
pub use crate::prep::abort::{Rollback, RollbackReport, RolledBack, prepare as prepare_rollback};
pub use crate::prep::contents::{Contents, Unread};
pub use crate::prep::drive::Pace;
pub use crate::prep::estimate::{Estimate, Needed, estimate};
pub use crate::prep::files::{Book, journal_holder, read_journal};
pub use crate::prep::kept::place as kept_manifest;
pub use crate::prep::lint::{InputKind, Linted, lint, lint_text};
pub use crate::prep::log::append_to_log;
pub use crate::prep::property_files::MetadataFields;
pub use crate::prep::rate_limit::RateLimit;
pub use crate::prep::rebuild::{ReadDrive, SessionFound, rebuild_journal};
pub use crate::prep::records::{check_job_name, is_numerical_password, read_record, sha256_of, write_private};
pub use crate::prep::request::{
    AbsentDrive, Action, EngineChoice, PrepRequest, ReadBack, RecoveryForm, Table, WindowsDrive,
};
pub use crate::prep::resume::is_complete;
pub use crate::prep::scan::STATE_DIR;
pub use crate::prep::session::{Listed as ListedBlobs, Prepared, prepare, prepare_export};
pub use crate::prep::shards;
pub use crate::prep::targets::RowConsent;
pub use crate::prep::workers::Workers;
pub use crate::report::Stop;
pub use crate::source::select::Selection as SourceSelection;
pub use crate::surroundings::timestamp;
pub use crate::survey::{CheckState, Health, Link, LinkCounters, MachineCheck, Queue, Seen, disks, examine, gates};
pub use crate::text::decode_text;
pub use crate::verify::audit::{self, Audit, Audited, Finding, Proof, Reading, There};
pub use crate::verify::decrypt::{self, Decrypted, StreamOut, To};
pub use crate::verify::deliver::{self, Act, Bytes, Deliver, Delivery, Sink};
pub use crate::verify::files::{self, Files, Listed};
pub use crate::verify::find::{self, Found, Inside, Opened};
pub use crate::verify::judge::{self, Judged, VerifyRequest};
pub use crate::verify::key::{KEY_FILE_LEN_MAX, Key};
pub use crate::verify::known::Journals;
pub use crate::verify::logs::{Expected, Logs};
pub use crate::verify::result::{
    Answer, Check, Counts, DriveVerdict, ManifestFacts, Row, Verdict, sum as sum_of_drives, unmatched,
};
pub use crate::verify::verdict::{Conclusion, Ending, Reason, RunSum, Taken, conclude};
