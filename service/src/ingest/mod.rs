//! `dray ingest`: the import of drives into an account, as the service does it.
//!
//! The engine reads, opens, hashes and judges a drive, and gives its blobs to a sink (`upload`) in disk order. Threads
//! send what it took: a blob of one block in one request, others block by block with the manifest's ids, or page range by
//! page range without what is zero. Every request carries the MD5 that the manifest has, so that the service checks it.
//! A piece that differs, on the drive or on its way, is read and sent again.
//!
//! | module | does |
//! |---|---|
//! | `upload` | one drive's blobs, what became of each, the sink and its threads |
//! | `send` | the requests, their conditions, leases, what follows from a refusal |
//! | `flow` | the number of requests in flight |
//! | `state` | what was reached, in a file: an import that was killed goes on |
//! | `logs` | the copy logs |

pub(crate) mod flow;
mod logs;
mod send;
pub(crate) mod state;
pub(crate) mod upload;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::Instant;

use dray_account::Account;
use dray_engine::api::account::deliver::{Delivery, Sink};
use dray_engine::api::azure::numbered;
use dray_engine::api::host::timestamp;
use dray_engine::api::prepare::RateLimit;
use dray_engine::api::verify::copylog::{self, BlobStatus, DispositionStatus, DriveStatus};
use dray_engine::api::verify::{Answer, Judged, Logs};
use dray_engine::report::{Kind, Problem};

use flow::Flow;
pub use logs::LogOptions;
use logs::Writers;
pub(crate) use send::over;
use state::{Head, StateFile};
use upload::{Became, Input, Taker, Upload, lock};

/// Most requests in flight that may be asked for.
pub const IN_FLIGHT_MAX: usize = 512;
/// Blobs with errors that a summary holds.
const FAILURES_MAX: usize = 10_000;

/// Options of an import, for all drives of a run.
#[derive(Debug)]
pub struct Options {
    /// Most requests in flight.
    pub in_flight_max: usize,
    /// Bytes a second; `None` for no limit.
    pub rate: Option<u64>,
    /// Forgets what earlier runs reached.
    pub anew: bool,
    /// The copy logs.
    pub logs: LogOptions,
}

/// The imports of a run, which share the account and the line to it.
#[derive(Debug)]
pub struct Ingest {
    account: Arc<Account>,
    flow: Arc<Flow>,
    rate: Arc<RateLimit>,
    options: Options,
}

/// The import of one drive.
#[derive(Debug)]
pub struct Import<'a> {
    of: &'a Ingest,
    /// Directory of the state.
    state_dir: PathBuf,
    upload: OnceLock<Arc<Upload>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    stamp: String,
}

/// A blob as reports have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// `container/name` by the manifest.
    pub blob: String,
    /// The name that it has in the account, if that is another.
    pub renamed: Option<String>,
    /// Path on the drive.
    pub file: String,
    /// Bytes.
    pub length: u64,
    /// Its status; `None`: it was not reached.
    pub status: Option<BlobStatus>,
    /// Result of its disposition.
    pub disposition: Option<DispositionStatus>,
    /// By an earlier run.
    pub earlier: bool,
    /// Something of it is missing on the drive, unreadable, or not as in the manifest.
    pub is_at_fault: bool,
    /// The message of the service, or about the drive.
    pub message: Option<String>,
}

impl Imported {
    /// Whether all of it is in the account, or was not to be.
    pub fn is_good(&self) -> bool {
        self.status == Some(BlobStatus::Completed)
    }
}

/// Result of one drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Id of the drive.
    pub drive_id: String,
    /// The status that the service would give; `None`: it is not over.
    pub status: Option<DriveStatus>,
    /// Blobs of the manifest, and their bytes.
    pub blobs: (u64, u64),
    /// Those that are there now, by what became of their disposition.
    pub created: u64,
    /// Likewise.
    pub renamed: u64,
    /// Likewise.
    pub overwritten: u64,
    /// Blobs of that name were there, and are kept.
    pub skipped: u64,
    /// With errors.
    pub failed: u64,
    /// Those of them that are at fault on the drive: missing, unreadable, or not as in the manifest.
    pub at_fault: u64,
    /// Not reached.
    pub open: u64,
    /// Of all, done by earlier runs.
    pub earlier: u64,
    /// The first of those with errors.
    pub failures: Vec<Imported>,
    /// Copy logs in the account.
    pub logs: Vec<String>,
    /// The same on this machine.
    pub files: Vec<PathBuf>,
    /// The problem that ended the import, or kept the logs out of the account.
    pub problem: Option<Problem>,
}

impl Ingest {
    /// Imports into `account`.
    pub fn new(account: Account, options: Options) -> Self {
        let now = Instant::now();
        Self {
            account: Arc::new(account),
            flow: Arc::new(Flow::new(options.in_flight_max, now)),
            rate: Arc::new(RateLimit::new(options.rate, now)),
            options,
        }
    }

    /// The account.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// The import of one drive, whose state is kept in `state_dir`.
    pub fn drive(&self, state_dir: &Path) -> Import<'_> {
        Import {
            of: self,
            state_dir: state_dir.to_owned(),
            upload: OnceLock::new(),
            threads: Mutex::default(),
            stamp: copylog::stamp(timestamp()),
        }
    }
}

impl Import<'_> {
    /// Begins the import of a drive whose manifest was read and found good.
    ///
    /// # Errors
    /// The account refuses, or the state of an earlier run cannot be used.
    pub fn begin(&self, delivery: &Delivery<'_>) -> Result<Box<dyn Sink>, Problem> {
        let (of, options) = (self.of, &self.of.options);
        let drive = copylog::in_file_name(delivery.drive_id());
        // The container of the logs is needed in any case: a credential that does not do is found here.
        let clock = of.account.ready_container(options.logs.container(0))?.unwrap_or_else(timestamp);
        let head = Head {
            drive: delivery.drive_id().to_owned(),
            manifest: delivery.manifest_md5().to_owned(),
            account: of.account.endpoint().base().to_owned(),
        };
        let path = self.state_dir.join(format!("{drive}.ingest"));
        let (state, mut known) = StateFile::open(&path, &head, &clock.to_string(), options.anew)?;
        let sent = std::mem::take(&mut known.pieces);
        let shared = (Arc::clone(&of.account), Arc::clone(&of.flow), Arc::clone(&of.rate));
        let input = Input::of(delivery);
        let upload = Arc::new(Upload::new(shared, (state, known), input, options.logs.is_verbose));
        let sent = sent.into_iter().flat_map(|(blob, all)| all.into_iter().map(move |(piece, crc)| (blob, piece, crc)));
        upload.recall(sent.collect())?;
        if options.logs.keeps_manifest {
            self.keep_manifest(delivery, &drive)?;
        }
        *lock(&self.threads) = upload.start(options.in_flight_max)?;
        let _ = self.upload.set(Arc::clone(&upload));
        Ok(Box::new(Taker::new(upload)))
    }

    fn keep_manifest(&self, delivery: &Delivery<'_>, drive: &str) -> Result<(), Problem> {
        let logs = &self.of.options.logs;
        let name = logs.manifest_name(drive, &self.stamp);
        let path = logs.dir.join(&name);
        logs::keep(&path, delivery.manifest()?)?;
        logs::send_file(&self.of.account, logs.container(0), &logs::in_directory(&name), &path)
    }

    /// Ends the import: waits for its threads, writes its logs and sends them; `see` gets every blob.
    ///
    /// # Errors
    /// The logs cannot be written.
    pub fn finish(&self, judged: &mut Judged<'_>, see: &mut dyn FnMut(&Imported)) -> Result<Summary, Problem> {
        for thread in lock(&self.threads).drain(..) {
            thread.join().map_err(|_| Problem::new(Kind::Internal, "a thread that sends ended in a bug"))?;
        }
        let mut problem = judged.verdict.failure.clone();
        let refused =
            judged.verdict.checks.iter().filter(|check| check.answer == Answer::No).find_map(|check| check.status);
        let manifest = judged.verdict.manifest.as_ref().and_then(|manifest| manifest.drive_id.clone());
        let drive_id = manifest.unwrap_or_else(|| judged.verdict.drive.drive_id.clone());
        let upload = self.upload.get();
        // An import that was stopped goes on: its logs are those of the run that ends it.
        let is_over = if problem.is_some() { refused.is_some() } else { upload.is_some() };
        let mut writers = match is_over {
            true => Some(Writers::begin(&self.of.options.logs, &drive_id, &self.stamp)?),
            false => None,
        };
        let mut summary = Summary::new(&drive_id);
        let mut failed = None;
        let mut number = 0;
        judged.rows(&Logs::none(), &mut |row| {
            let (Some(blob), Some(upload)) = (&row.blob, upload) else { return };
            if let Some(writers) = &mut writers
                && let Err(error) = writers.blob(upload, number, &row.file)
            {
                failed.get_or_insert(error);
            }
            let one = imported(upload, number, blob, &row.file);
            summary.add(&one);
            see(&one);
            number += 1;
        })?;
        // A reading that was stopped has no rows: what was reached is known all the same.
        if let (0, Some(upload)) = (number, upload) {
            for (number, entry) in upload.blobs.iter().enumerate() {
                let (container, name) = entry.place();
                summary.add(&imported(upload, number, &format!("{container}/{name}"), ""));
            }
        }
        if let Some(error) = failed {
            let problem = Problem::new(Kind::Environment, format!("the copy log cannot be written: {error}"));
            return Err(problem.path(&self.of.options.logs.dir));
        }
        if let Some(writers) = writers {
            let status = refused.filter(|_| problem.is_some());
            let mut keep = |other: Problem| {
                problem.get_or_insert(other);
            };
            let (status, logs, files) = writers.finish(&self.of.account, &drive_id, status, &mut keep)?;
            (summary.status, summary.logs, summary.files) = (Some(status), logs, files);
        }
        summary.problem = problem;
        Ok(summary)
    }
}

fn imported(upload: &Upload, number: usize, blob: &str, file: &str) -> Imported {
    let became = upload.became(number);
    let renamed = became.as_ref().filter(|became| became.number > 1).map(|became| {
        let (container, name) = upload.blobs[number].place();
        format!("{container}/{}", numbered(name, became.number))
    });
    Imported {
        blob: blob.to_owned(),
        renamed,
        file: file.to_owned(),
        length: upload.blobs[number].length,
        status: became.as_ref().map(|became| became.status),
        disposition: became.as_ref().map(|became| became.disposition),
        earlier: became.as_ref().is_some_and(|became| became.earlier),
        is_at_fault: became.as_ref().is_some_and(Became::is_at_fault),
        message: became.and_then(|became| became.message),
    }
}

impl Summary {
    fn new(drive_id: &str) -> Self {
        Self {
            drive_id: drive_id.to_owned(),
            status: None,
            blobs: (0, 0),
            created: 0,
            renamed: 0,
            overwritten: 0,
            skipped: 0,
            failed: 0,
            at_fault: 0,
            open: 0,
            earlier: 0,
            failures: Vec::new(),
            logs: Vec::new(),
            files: Vec::new(),
            problem: None,
        }
    }

    fn add(&mut self, one: &Imported) {
        self.blobs.0 += 1;
        self.blobs.1 = self.blobs.1.saturating_add(one.length);
        self.earlier += u64::from(one.earlier);
        match (one.status, one.disposition) {
            (None, _) => self.open += 1,
            (Some(BlobStatus::Completed), disposition) => match disposition {
                Some(DispositionStatus::Renamed) => self.renamed += 1,
                Some(DispositionStatus::Overwritten) => self.overwritten += 1,
                Some(DispositionStatus::Skipped) => self.skipped += 1,
                _ => self.created += 1,
            },
            (Some(_), _) => {
                self.failed += 1;
                self.at_fault += u64::from(one.is_at_fault);
                if self.failures.len() < FAILURES_MAX {
                    self.failures.push(one.clone());
                }
            }
        }
    }

    /// Whether everything that was asked for was done, and is known.
    pub fn is_good(&self) -> bool {
        self.problem.is_none() && self.failed == 0 && self.open == 0 && self.status.is_some()
    }
}
