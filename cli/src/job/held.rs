//! Checks of a job against the files around it: the journal of its drives, the sessions in it, and other jobs.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use dray_engine::api;
use dray_engine::api::records::{Book, SessionDrive, ledger};
use dray_engine::report::{Kind, Problem, Problems};

use super::description::JobDrive;
use super::state::Job;
use crate::render::count;

/// Most files of a directory that are looked at.
const ENTRIES_MAX: usize = 4096;
/// First bytes of a journal.
const JOURNAL_HEAD: &[u8] = b"[BeginUpdateRecord]";
/// Suffix of a job's file.
pub const JOB_FILE: &str = ".job.json";

/// Exceptions that were explicitly allowed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allowed {
    /// A job that lacks drives or files of its session.
    pub partial: bool,
    /// Drives that the service would not take.
    pub not_for_shipping: bool,
}

/// A journal, as far as a job needs it.
#[derive(Debug)]
pub struct Shelf {
    /// Path of the journal.
    pub path: PathBuf,
    book: Book,
}

impl Shelf {
    /// Reads the journal.
    ///
    /// # Errors
    /// The file is no journal, or is damaged: its facts about drives cannot be relied on then.
    pub fn read(path: &Path) -> Result<Self, Problems> {
        if !path.exists() {
            let problem = Problem::new(Kind::Usage, "the journal does not exist").path(path);
            return Err(problem.advice("check the path").into());
        }
        let book = api::records::read_journal(path)?;
        if !book.damage.is_empty() {
            return Err(Problems(book.damage));
        }
        Ok(Self { path: path.to_owned(), book })
    }

    /// Drives that are finished, with their records.
    pub fn finished(&self) -> Vec<(PathBuf, SessionDrive)> {
        let drives = self.book.ledger.finished_drives().into_iter();
        drives.map(|drive| (self.path.with_file_name(&drive.record_file), drive)).collect()
    }

    /// Names the sessions and drives that are not done; warnings where that is allowed.
    pub fn check_done(&self, allowed: Allowed, problems: &mut Problems, warnings: &mut Vec<Problem>) {
        let ledger = &self.book.ledger;
        let mut found = Vec::new();
        if let Some(session) = ledger.unfinished() {
            let open: Vec<&str> = session
                .drives
                .iter()
                .filter(|drive| matches!(ledger.drive(&drive.drive_id), Some((_, now)) if now.state != api::records::SessionState::Completed))
                .map(|drive| &*drive.drive_id)
                .collect();
            let what = match open.len() {
                0 => format!("session {} is not finished: files of it are on no drive yet", session.id),
                n => format!("session {} is not finished: {} not done", session.id, of_it(n)),
            };
            let mut problem = Problem::new(Kind::Refused, what).path(&self.path);
            if !open.is_empty() {
                problem = problem.value(open.join(", "));
            }
            found.push(problem.advice(format!(
                "continue with `dray prep-import --journal {} --id '{}' --resume`, or roll it back with --abort; \
                 --partial makes a job of the drives that are done",
                self.path.display(),
                session.id
            )));
        }
        for (session, drive) in ledger.open_drives() {
            if ledger.unfinished().is_some_and(|last| last.id == session.id) {
                continue;
            }
            let what = format!("drive is {}, and its session {} is closed", ledger::word(drive.state), session.id);
            found.push(
                Problem::new(Kind::Refused, what)
                    .path(&self.path)
                    .drive(&drive.drive_id)
                    .advice("prepare it again in a session of its own; --partial leaves it out of the job"),
            );
        }
        let finished = self.finished();
        if finished.is_empty() {
            problems.push(
                Problem::new(Kind::Usage, "no drive of this journal is finished")
                    .path(&self.path)
                    .advice("prepare the drives first"),
            );
        }
        if allowed.partial {
            warnings.extend(found.into_iter().map(|problem| problem.advice("left out, as --partial says")));
        } else {
            problems.0.extend(found);
        }
    }

    /// The journal's entry for the drive of a record.
    fn of_record(&self, record: &Path) -> Option<SessionDrive> {
        let name = record.file_name()?.to_str()?;
        let ledger = &self.book.ledger;
        let drive =
            ledger.drive_ids().into_iter().filter_map(|id| ledger.whole(id)).find(|drive| drive.record_file == name)?;
        same_dir(&self.path, record).then_some(drive)
    }
}

fn of_it(n: usize) -> String {
    let verb = if n == 1 { "is" } else { "are" };
    format!("{} of it {verb}", count(n as u64, "drive"))
}

fn dir_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

fn same_dir(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(dir_of(path)).ok();
    real(a).is_some_and(|dir| Some(dir) == real(b))
}

/// Regular files of a directory, by name.
fn files_in(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().take(ENTRIES_MAX);
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

/// Directories of these files, each once.
fn dirs_of<'a>(files: impl IntoIterator<Item = &'a Path>) -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = files.into_iter().filter_map(|file| fs::canonicalize(dir_of(file)).ok()).collect();
    dirs.sort();
    dirs.dedup();
    dirs
}

/// Journals of a directory, and drive records, which begin in the same way and hold no session.
pub fn journals_in(dir: &Path) -> Vec<PathBuf> {
    let is_journal = |path: &PathBuf| {
        let mut head = Vec::new();
        let read = File::open(path).and_then(|file| file.take(JOURNAL_HEAD.len() as u64).read_to_end(&mut head));
        read.is_ok() && head == JOURNAL_HEAD
    };
    files_in(dir).into_iter().filter(is_journal).collect()
}

/// Descriptions of jobs in a directory.
pub fn jobs_in(dir: &Path) -> Vec<PathBuf> {
    files_in(dir).into_iter().filter(|path| is_job(path)).collect()
}

fn is_job(path: &Path) -> bool {
    path.to_string_lossy().ends_with(JOB_FILE)
}

/// Journals in the directories of the records that list any of them.
pub fn shelves_beside(records: &[PathBuf]) -> Vec<Shelf> {
    let dirs = dirs_of(records.iter().map(PathBuf::as_path));
    let journals = dirs.iter().flat_map(|dir| journals_in(dir));
    journals
        .filter_map(|path| Some(Shelf { book: api::records::read_journal(&path).ok()?, path }))
        .filter(|shelf| records.iter().any(|record| shelf.of_record(record).is_some()))
        .collect()
}

/// Checks each drive's record against the journals; gives the journals' entries, in the order of the drives.
pub fn check_records(
    drives: &[JobDrive],
    shelves: &[Shelf],
    allowed: Allowed,
    problems: &mut Problems,
    warnings: &mut Vec<Problem>,
) -> Vec<Option<SessionDrive>> {
    let mut out = Vec::new();
    for drive in drives {
        let known: Vec<(&Shelf, SessionDrive)> =
            shelves.iter().filter_map(|shelf| Some((shelf, shelf.of_record(&drive.record)?))).collect();
        let fits = |(_, known): &&(&Shelf, SessionDrive)| contradiction(drive, known).is_none();
        let found = known.iter().find(fits).or(known.first());
        if let Some((shelf, known)) = found {
            if let Some((what, value)) = contradiction(drive, known) {
                problems.push(Problem::new(Kind::Refused, what).path(&drive.record).value(value).advice(format!(
                    "record and journal ({}) are of different sessions: name the journal that the record belongs to, \
                         or bring the journal's own record back (an earlier one may lie next to it as {}.1)",
                    shelf.path.display(),
                    known.record_file
                )));
            }
            if is_unfit(known) && !allowed.not_for_shipping {
                problems.push(
                    Problem::new(Kind::Refused, "was prepared as not for shipping: the service does not take it")
                        .path(&drive.record)
                        .drive(&drive.id)
                        .value(known.name.clone().unwrap_or_default())
                        .advice("prepare a drive of its own for the job; --not-for-shipping makes the papers all the same, to try"),
                );
            } else if is_unfit(known) {
                let problem = Problem::new(Kind::Usage, "is not for shipping: the service does not take it");
                warnings.push(problem.path(&drive.record).drive(&drive.id));
            }
        }
        out.push(found.map(|(_, known)| known.clone()));
    }
    out
}

/// Whether the drive cannot be shipped. Journals from before this was recorded name an image file or a loop device.
fn is_unfit(known: &SessionDrive) -> bool {
    let by_name = || {
        let name = known.name.as_deref().unwrap_or_default();
        let file = name.rsplit_once(':').map_or(name, |(file, _)| file);
        name.starts_with("/dev/loop") || [name, file].iter().any(|path| Path::new(path).is_file())
    };
    known.for_shipping.map_or_else(by_name, |yes| !yes)
}

/// The first contradiction between journal and record, with the value met.
fn contradiction(drive: &JobDrive, known: &SessionDrive) -> Option<(String, String)> {
    if known.state != api::records::SessionState::Completed {
        let what = format!("belongs to a drive whose work is {} by the journal", ledger::word(known.state));
        return Some((what, known.drive_id.clone()));
    }
    if !known.drive_id.eq_ignore_ascii_case(&drive.id) {
        return Some((
            format!("names another drive than the journal, which says {}", known.drive_id),
            drive.id.clone(),
        ));
    }
    if let Some(hash) = known.manifest_hash.as_ref().filter(|hash| !hash.eq_ignore_ascii_case(&drive.manifest_hash)) {
        let what = format!("holds another ManifestHash than the journal, which says {hash}");
        return Some((what, drive.manifest_hash.clone()));
    }
    if let Some(path) = known.manifest_file.as_ref().filter(|path| **path != drive.manifest_file) {
        let what = format!("holds another ManifestFile than the journal, which says {path}");
        return Some((what, drive.manifest_file.clone()));
    }
    // A key of another drive, or of this one before it was formatted again: the service could not open the drive.
    let own = api::records::key_check(&drive.id, &drive.key).unwrap_or_default();
    let check = known.key_check.as_ref().filter(|check| !check.eq_ignore_ascii_case(&own))?;
    Some((format!("holds another key than the drive was prepared with; the journal has check value {check}"), own))
}

/// Reports other jobs that name one of the drives: those in the directories of the `near` files, and the `given` ones.
pub fn check_jobs(ids: &[String], own: &[PathBuf], near: &[&Path], given: &[PathBuf], problems: &mut Problems) {
    let mut files: Vec<PathBuf> = dirs_of(near.iter().copied()).iter().flat_map(|dir| jobs_in(dir)).collect();
    for path in given {
        match fs::canonicalize(path) {
            Ok(path) => files.push(path),
            Err(error) => problems.push(Problem::new(Kind::Usage, format!("cannot be read: {error}")).path(path)),
        }
    }
    files.sort();
    files.dedup();
    let own: Vec<PathBuf> = own.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
    for path in files.iter().filter(|path| !own.contains(path)) {
        let other = match Job::load(path) {
            Ok(other) => other,
            Err(problem) => {
                problems.push(problem.advice("it may hold a drive of this job: bring it back, or move it away"));
                continue;
            }
        };
        if other.is_over() {
            continue;
        }
        let taken = ids.iter().filter(|id| other.drives.iter().any(|drive| drive.id.eq_ignore_ascii_case(id)));
        for id in taken {
            problems.push(
                Problem::new(
                    Kind::Refused,
                    format!("drive is in job {} already, which is {}", other.name, other.state),
                )
                .path(path)
                .drive(id)
                .advice(
                    "a drive goes into one job: cancel that one with `dray job cancel`, or leave the drive out here",
                ),
            );
        }
    }
}

/// Warns of finished drives of the journals that are not in the job, where records were named by hand.
pub fn left_behind(drives: &[JobDrive], shelves: &[Shelf], warnings: &mut Vec<Problem>) {
    for shelf in shelves {
        let others: Vec<String> = shelf
            .finished()
            .into_iter()
            .filter(|(record, _)| !drives.iter().any(|drive| drive.record.file_name() == record.file_name()))
            .map(|(_, drive)| drive.drive_id)
            .collect();
        if !others.is_empty() {
            warnings.push(
                Problem::new(Kind::Usage, "the journal holds more finished drives, which this job leaves out")
                    .path(&shelf.path)
                    .value(others.join(", "))
                    .advice("--journal takes all of them"),
            );
        }
    }
}
