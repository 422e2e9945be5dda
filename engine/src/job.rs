//! The façade: what a program may use of the engine.
//!
//! | to | begin with |
//! |---|---|
//! | prepare drives | [`PrepRequest`], [`prepare`]; then [`Prepared::run`]. [`prepare_export`] fills drives from an account |
//! | roll a session back | [`prepare_rollback`], [`Rollback::run`] |
//! | plan without drives, split a plan by drive | [`estimate`], [`shards`] |
//! | open a drive or an image | [`find::open`], [`Found::unlock`]; its files by [`Files`] |
//! | verify, extract, deliver | [`judge`], with [`VerifyRequest`] and a [`Sink`] |
//! | rehearse what the service would do | [`rehearsal`] |
//! | compare with an account | [`audit`] |
//! | write, acquire, clone, compare, erase, repair | the modules of those names |
//! | measure | [`Bench`] |
//!
//! What is wrong comes as a [`Problem`](crate::report::Problem): its kind, the place, the value that was met, and the
//! remedy. All that can be known before the first write comes at once, as `Problems`; the failure of one drive ends that
//! drive and is in the report of its session. Progress comes as [`Event`](crate::report::Event)s, from any thread.
//!
//! # Example
//!
//! A drive, here an image file, is prepared and read back:
//!
//! ```
//! use dray_engine::job::{
//!     Encryption, Files, FormatOption, FormatPrompt, GivenDrive, GivenSource, Key, PrepRequest, Stop, find, prepare,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = std::env::temp_dir().join(format!("dray-example-{}", std::process::id()));
//! std::fs::create_dir_all(dir.join("photos"))?;
//! std::fs::write(dir.join("photos/one.jpg"), [7; 4096])?;
//!
//! let mut request = PrepRequest::new(dir.join("first.jrn"), "session#1");
//! request.drive = Some(GivenDrive {
//!     drive: dir.join("drive.img:128MB").into(),
//!     format: FormatOption::Format,
//!     prompt: FormatPrompt::SilentMode,
//!     encryption: Encryption::Encrypt,
//! });
//! request.source = Some(GivenSource {
//!     base_path: dir.join("photos/").into(),
//!     destination: "photos/2026/".into(),
//!     blob_type: None,
//!     disposition: None,
//!     metadata_file: None,
//!     properties_file: None,
//! });
//! request.not_for_shipping = true;
//!
//! // Nothing is written yet: every problem comes now, all at once.
//! let prepared = prepare(request, &mut |_| ())?;
//! let report = prepared.run(&[], &|_| (), &Stop::new())?;
//! let record = report.drives[0].record.as_ref().ok_or("no record")?;
//!
//! let key = Key::read(&std::fs::read(record)?).map_err(|problem| problem.to_string())?;
//! let found = find::open(&dir.join("drive.img"), None).map_err(|problem| problem.to_string())?;
//! let opened = found.unlock(&key, &mut |_, _| ()).map_err(|problem| problem.to_string())?;
//! let files = Files::read(&opened).map_err(|problem| problem.to_string())?;
//! let photo = files.find("\\session#1\\photos\\2026\\one.jpg").map_err(|problem| problem.to_string())?;
//! assert_eq!(files.open(photo).map_err(|problem| problem.to_string())?.size(), 4096);
//! # std::fs::remove_dir_all(dir)?;
//! # Ok(())
//! # }
//! ```

// Preparing drives: a request, a plan, a session.
pub use crate::dataset::lint::{InputKind, Linted, lint, lint_text};
pub use crate::dataset::scan::STATE_DIR;
pub use crate::plan::account;
pub use crate::plan::catalog::{Builder as CatalogBuilder, Catalog};
pub use crate::plan::export;
pub use crate::report::Stop;
pub use crate::request::MetadataFields;
pub use crate::request::Pace;
pub use crate::request::{
    AbsentDrive, Action, EngineChoice, PrepRequest, ReadBack, RecoveryForm, SizeClass, Table, WindowsDrive,
};
pub use crate::session::abort::{Rollback, RollbackReport, RolledBack, prepare as prepare_rollback};
pub use crate::session::estimate::{Estimate, Needed, estimate};
pub use crate::session::log::append_to_log;
pub use crate::session::prepare::{Listed as ListedBlobs, prepare, prepare_export};
pub use crate::session::prepared::Prepared;
pub use crate::session::rebuild::{ReadDrive, SessionFound, rebuild_journal};
pub use crate::session::resume::is_complete;
pub use crate::session::shards;
pub use crate::source::select::Selection as SourceSelection;
pub use crate::work::exported::{self, KeptBlob};
pub use crate::work::kept::place as kept_manifest;
pub use crate::work::target::RowConsent;

// Journals and drive records.
pub use crate::journal::files::{Book, journal_holder, read_journal};
pub use crate::journal::records::{is_numerical_password, read_record, sha256_of, write_private};

// Opening volumes, verifying drives, rehearsing the service.
pub use crate::bitlocker::read::{Form, Integrity, State};
pub use crate::gpt::read::CopyState;
pub use crate::ntfs::read::{BackupBoot, Facts, FileId, LogState};
pub use crate::verify::audit::{self, Audit, Audited, Finding, Proof, Reading, There};
pub use crate::verify::deliver::{self, Act, Bytes, Deliver, Delivery, Sink};
pub use crate::verify::judge::{self, Damaged, Judged, VerifyRequest};
pub use crate::verify::known::Journals;
pub use crate::verify::logs::{Expected, Logs, failed as failed_in_log};
pub use crate::verify::rehearsal::{self, LogPlace, Rehearsed};
pub use crate::verify::result::{Answer, Check, DriveVerdict, ManifestFacts, sum as sum_of_drives, unmatched};
pub use crate::verify::row::Taken;
pub use crate::verify::row::{Counts, Row, Verdict};
pub use crate::verify::service::blob::{Names as BlobNames, Told};
pub use crate::verify::service::drive::{of_found, of_locked, refusal};
pub use crate::verify::verdict::{Conclusion, Ending, Reason, RunSum, conclude};
pub use crate::volume::decrypt::{self, Decrypted, StreamOut, To};
pub use crate::volume::files::{self, Files, Listed};
pub use crate::volume::find::{self, Found, Inside, Opened};
pub use crate::volume::key::{KEY_FILE_LEN_MAX, Key};

// Whole drives and images.
pub use crate::image::compare::Compared;
pub use crate::image::target::{Target, twice as named_twice};
pub use crate::image::{acquire, compare, erase, map, ranges, repair, write};

// Measuring drives, the machine and its disks; contents of an account as a source.
pub use crate::bench::{Bench, BenchReport, BenchRequest, Bottleneck, Direction, Load, Point, RateSeries, together};
pub use crate::stream::contents::{Contents, Unread};
pub use crate::stream::rate_limit::RateLimit;
pub use crate::stream::workers::Workers;
pub use crate::survey::{CheckState, Health, Link, LinkCounters, MachineCheck, Queue, Seen, disks, examine, gates};

// The files of Azure Import/Export.
pub use crate::azure::bloblist::{self, BlobList, Inventory, Selection};
pub use crate::azure::copylog::{CopyStatus, DriveStatus};
pub use crate::azure::dataset::{BlobType, Disposition, GivenSource};
pub use crate::azure::drive_record::{DriveRecord, RecordState, key_check};
pub use crate::azure::driveset::{Encryption, FormatOption, FormatPrompt, GivenDrive, parse_size};
pub use crate::azure::journal::{SessionState, Work};
pub use crate::azure::ledger::{self, CopySession, Ledger, SessionDrive};
pub use crate::azure::manifest::{Pieces, nonzero_runs};
pub use crate::azure::names::{
    NameError, check_blob, check_container, check_drive_id, check_job as check_job_name, numbered,
};
pub use crate::azure::{Digest, SecretText, XmlError, XmlStep, XmlSteps, base64};
pub use crate::azure::{copylog, manifest, properties};

// Devices, input files, hashes and times.
pub use crate::crypt::Cipher;
pub use crate::device::Device;
pub use crate::device::guard::Context as GuardContext;
pub use crate::device::{Discard, Geometry, Identity, Roots, Transport, Zoned};
pub use crate::files::input::{Pipes, open as open_input, read as read_input};
pub use crate::files::output::{Form as OutputForm, Output as OutputFile, Outputs};
pub use crate::hash::{Md5, Sha256, crc64, crc64_combine, crc64_zeros, md5_many};
pub use crate::surroundings::timestamp;
pub use crate::text::decode_text;
