//! The façade: what a program may use of the engine.
//!
//! | to | module |
//! |---|---|
//! | prepare drives, resume and roll back, plan without drives, split a plan by drive | [`prepare`] |
//! | open a drive or an image, and read its files | [`inspect`] |
//! | verify what came back, rehearse what the service would do | [`verify`] |
//! | fill drives from a storage account, deliver to it, hold it against what was sent | [`account`] |
//! | write, acquire, compare, erase, repair whole drives | [`image`] |
//! | measure drives and machine | [`measure`] |
//! | read journals and drive records | [`records`] |
//! | read and write the files of Azure Import/Export | [`azure`] |
//! | devices, input and output files; hashes | [`host`], [`hash`] |
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
//! use dray_engine::api::inspect::{Files, Key, find};
//! use dray_engine::api::prepare::{
//!     Encryption, FormatOption, FormatPrompt, GivenDrive, GivenSource, PrepRequest, Stop, prepare,
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

pub mod account;
pub mod azure;
pub mod hash;
pub mod host;
pub mod image;
pub mod inspect;
pub mod measure;
pub mod prepare;
pub mod records;
pub mod verify;
