//! The outcome of a rehearsal: a drive's status, and its copy logs of both generations, in files.

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::azure::copylog::{
    self, CopyLog, CopyStatus, Detail, DriveLog, DriveStatus, Tally, VerboseLog, copy_log_name, drive_log_name,
};
use crate::files::output::{Form, Output, Outputs};
use crate::report::{Kind, Problem};
use crate::surroundings::timestamp;
use crate::verify::judge::Judged;
use crate::verify::result::DriveVerdict;
use crate::verify::service::blob::{Names, Told};
use crate::verify::service::drive;

/// Form of the logs.
const FORM: Form = Form { name: "the copy log", is_earlier: |_| false, private: false };

/// Most entries of blobs kept with a drive's outcome.
pub const BLOBS_MAX: usize = 1000;

/// Result of rehearsing one drive.
#[derive(Clone, Debug)]
pub struct Rehearsed {
    /// The drive in the job: by its record, or else as the drive calls itself.
    pub drive_id: String,
    /// Status of the drive, and of its log of the first generation.
    pub status: DriveStatus,
    /// Status in the log of the second generation.
    pub second: CopyStatus,
    /// Sums of the blobs.
    pub tally: Tally,
    /// Blobs with an error or another name, the first of them.
    pub blobs: Vec<Told>,
    /// Number of all such blobs.
    pub blobs_in_all: u64,
    /// The logs that were written.
    pub logs: Vec<PathBuf>,
}

/// Directory, and parts of the names of the logs.
#[derive(Debug)]
pub struct LogPlace {
    dir: PathBuf,
    job: String,
    stamp: String,
    outputs: Outputs,
}

impl LogPlace {
    /// Logs in `dir`, which is made if it does not exist, of this job. `outputs`: with the inputs of the run.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn new(dir: &Path, job: &str, outputs: Outputs) -> Result<Self, Problem> {
        std::fs::create_dir_all(dir).map_err(|error| {
            Problem::new(Kind::Environment, format!("the directory for the logs cannot be made: {error}")).path(dir)
        })?;
        let stamp = copylog::stamp(timestamp());
        Ok(Self { dir: dir.to_owned(), job: job.to_owned(), stamp, outputs })
    }

    fn begin(&mut self, name: &str) -> Result<Sink, Problem> {
        let path = self.dir.join(name);
        Ok(Sink { output: self.outputs.begin(&path, FORM)?, path })
    }
}

/// A log's file as a writer.
#[derive(Debug)]
struct Sink {
    output: Output,
    path: PathBuf,
}

impl Sink {
    fn finish(self) -> Result<PathBuf, Problem> {
        self.output.finish()?;
        Ok(self.path)
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.add(bytes).map_err(|problem| io::Error::other(problem.to_string()))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn unwritten(error: io::Error) -> Problem {
    Problem::new(Kind::Environment, format!("a copy log cannot be written: {error}"))
}

/// The logs of one drive while they are written.
#[derive(Debug)]
struct Logs {
    verbose: DriveLog<Sink>,
    error: DriveLog<Sink>,
    files: VerboseLog<Sink>,
    errors: CopyLog<Sink>,
    /// Containers that were renamed: they have one entry.
    containers: HashSet<String>,
    /// Blobs that the second generation copies.
    copied: u64,
}

impl Logs {
    fn begin(place: &mut LogPlace, drive_id: &str) -> Result<Self, Problem> {
        let (job, stamp) = (place.job.clone(), place.stamp.clone());
        let log = |place: &mut LogPlace, detail| {
            let sink = place.begin(&drive_log_name(&job, drive_id, &stamp, detail))?;
            DriveLog::begin(sink, detail, drive_id).map_err(unwritten)
        };
        Ok(Self {
            verbose: log(place, Detail::Verbose)?,
            error: log(place, Detail::Error)?,
            files: VerboseLog::new(place.begin(&copy_log_name(&job, drive_id, "VerboseLog", &stamp))?),
            errors: CopyLog::new(place.begin(&copy_log_name(&job, drive_id, "CopyLog", &stamp))?),
            containers: HashSet::new(),
            copied: 0,
        })
    }

    fn blob(&mut self, told: &Told) -> Result<(), Problem> {
        let write = || -> io::Result<()> {
            self.verbose.blob(&told.blob)?;
            self.error.blob(&told.blob)?;
            for entity in &told.errors {
                if entity.kind != "Container" || self.containers.insert(entity.path.clone()) {
                    self.errors.errored(entity)?;
                }
            }
            if let Some(file) = &told.file {
                self.copied += 1;
                self.files.file(file)?;
            }
            Ok(())
        };
        let mut write = write;
        write().map_err(unwritten)
    }

    /// Ends the logs. That of the errors exists only where there is one.
    fn finish(self, one: &Rehearsed, errored: u64) -> Result<Vec<PathBuf>, Problem> {
        let mut out = vec![self.verbose.finish(one.status).map_err(unwritten)?.finish()?];
        if one.tally.errors > 0 || one.tally.status() != one.status {
            out.push(self.error.finish(one.status).map_err(unwritten)?.finish()?);
        }
        out.push(self.files.finish().map_err(unwritten)?.finish()?);
        let total = one.tally.blobs;
        out.push(self.errors.finish(&one.drive_id, one.second, total, errored).map_err(unwritten)?.finish()?);
        Ok(out)
    }
}

/// The outcome of a drive that was judged. Every blob's entry goes to `see`; counts renamed and skipped blobs in the verdict.
/// `names`: of all drives of the run. `place`: for the logs, if they are wanted.
///
/// # Errors
/// A log cannot be written, or the manifest cannot be read a second time.
pub fn conclude(
    judged: &mut Judged<'_>,
    drive_id: &str,
    names: &mut Names,
    place: Option<&mut LogPlace>,
    see: &mut dyn FnMut(&Told),
) -> Result<Rehearsed, Problem> {
    // A drive that was not read to its end has no answer.
    let is_answered = judged.verdict.failure.is_none();
    let mut logs = place.filter(|_| is_answered).map(|place| Logs::begin(place, drive_id)).transpose()?;
    let (mut tally, mut blobs, mut blobs_in_all) = (Tally::default(), Vec::new(), 0);
    let (mut skipped, mut renamed, mut errored, mut is_changed) = (0u64, 0u64, 0u64, false);
    judged.told(names, &mut |told| {
        tally.add(&told.blob);
        match told.blob.disposition.as_ref().map(|(_, became)| became.as_str()) {
            Some("Skipped") => skipped += 1,
            Some("Renamed") => renamed += 1,
            _ if told.file.is_none() => errored += 1,
            _ => {}
        }
        is_changed |= !told.errors.is_empty();
        if !told.is_plain() {
            blobs_in_all += 1;
            if blobs.len() < BLOBS_MAX {
                blobs.push(told.clone());
            }
        }
        see(told);
        logs.as_mut().map_or(Ok(()), |logs| logs.blob(told))
    })?;
    let verdict = &mut judged.verdict;
    (verdict.service.0, verdict.service.1) = (skipped, renamed);
    let mut one = unread(verdict, drive_id);
    if drive::refusal(&verdict.checks).is_none() && verdict.failure.is_none() {
        one.status = tally.status();
        one.second = match (errored, is_changed) {
            (0, false) => CopyStatus::Succeeded,
            _ => CopyStatus::SucceededWithErrors,
        };
    }
    (one.tally, one.blobs, one.blobs_in_all) = (tally, blobs, blobs_in_all);
    if let Some(logs) = logs {
        one.logs = logs.finish(&one, errored)?;
    }
    Ok(one)
}

/// The outcome of a drive that the service would not read, by its checks; logs without a blob.
///
/// # Errors
/// A log cannot be written.
pub fn refused(verdict: &DriveVerdict, drive_id: &str, place: Option<&mut LogPlace>) -> Result<Rehearsed, Problem> {
    let mut one = unread(verdict, drive_id);
    if let Some(place) = place {
        one.logs = Logs::begin(place, drive_id)?.finish(&one, 0)?;
    }
    Ok(one)
}

fn unread(verdict: &DriveVerdict, drive_id: &str) -> Rehearsed {
    // Without a refusal it broke on the way.
    let status = drive::refusal(&verdict.checks).unwrap_or(DriveStatus::DiskOperationFailed);
    Rehearsed {
        drive_id: drive_id.to_owned(),
        status,
        second: CopyStatus::Failed,
        tally: Tally::default(),
        blobs: Vec::new(),
        blobs_in_all: 0,
        logs: Vec::new(),
    }
}
