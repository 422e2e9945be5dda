//! `dray verify`: compares the contents of drives with their manifests.

mod all;
mod html;
pub mod lists;
pub mod words;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use clap::Args;
use dray_engine::api::azure::Digest;
use dray_engine::api::host::{OutputFile, Outputs};
use dray_engine::api::inspect::{Opened, find};
use dray_engine::api::prepare::Workers;
use dray_engine::api::verify::{
    Answer, Check, DriveStatus, DriveVerdict, Expected, Journals, Logs, Row, Taken, Verdict, VerifyRequest, judge,
};
use dray_engine::report::{DriveFacts, Event, Kind, Notice, Problem, Problems};
use dray_engine::units::ByteLen;
use serde_json::{Value, json};

use crate::args::VERSION;
use crate::exit::Exit;
use crate::key::{GivenKeys, KeyArgs};
use crate::render::page::{self, Tone};
use crate::render::{Output, Style, clean, count, json as object, labelled, watched, wrap};
use crate::signals::{self, Signals};
use lists::List;
use words::{Headline, conclusion, headline};

/// Rows that differ shown on the terminal.
const SHOWN_MAX: usize = 20;

/// Arguments of `dray verify`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "The drives are never written to. Exit code 0 only if everything that was asked is proven \
                        to be equal, by this run or by one that it continues. 1: a prefix of --only begins no blob, a \
                        log is of another drive, a path or key is wrong. 3: the service did not take all, or blobs that \
                        another manifest lists were not compared. 5: something differs, is not finished, or was taken \
                        under another name.\n\n\
                        Examples:\n  \
                        dray verify /dev/sdb --key-file 9WM35C2V.xml --report verified.html\n  \
                        dray verify /dev/sdb /dev/sdc --key-file keys.json --copy-log error.xml\n  \
                        dray verify /dev/sdb --extract-to /data --only pictures/2019\n  \
                        dray verify windows.img --extract-to /data --all --key-file key.txt")]
pub struct Verify {
    /// Drives or image files of one job
    #[arg(value_name = "DRIVE", required = true)]
    drives: Vec<PathBuf>,
    /// Number of the partition; else a bare volume, or the first data partition
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    /// Source of the key.
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    compare: CompareArgs,
    #[command(flatten)]
    reports: ReportArgs,
}

/// References that the drives are compared with, and the directory for extraction.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Comparing")]
struct CompareArgs {
    /// Manifest: a path on the drive that begins with \, or a file
    #[arg(long, value_name = "PATH")]
    manifest: Option<String>,
    /// MD5 of the manifest, as the job has it; else that of the drive record
    #[arg(long, value_name = "HEX", value_parser = digest)]
    manifest_hash: Option<Digest>,
    /// Only blobs that begin so: container/prefix
    #[arg(long, value_name = "PREFIX", num_args = 1..)]
    only: Vec<String>,
    /// Copy log of the service, of either generation
    #[arg(long, value_name = "FILE")]
    copy_log: Vec<PathBuf>,
    /// Blob list, incomplete list or inventory: what is on no drive
    #[arg(long, value_name = "FILE")]
    expect: Vec<PathBuf>,
    /// Write the blobs into this directory, in the same pass
    #[arg(long, value_name = "DIR")]
    extract_to: Option<PathBuf>,
    /// Write every file of the volume: no manifest is looked for, nothing is compared
    #[arg(long, requires = "extract_to")]
    #[arg(conflicts_with_all = ["manifest", "manifest_hash", "copy_log", "expect", "report", "list", "journal"])]
    all: bool,
}

/// Reports to write.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Reports")]
struct ReportArgs {
    /// A page to sign and keep
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Every blob, as JSON lines or CSV by the name's end
    #[arg(long, value_name = "FILE")]
    list: Vec<PathBuf>,
    /// Journal of the job: its hash goes into the report
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
}

/// The hash of a manifest on the command line.
///
/// # Errors
/// It has another number of digits.
pub fn digest(text: &str) -> Result<Digest, String> {
    Digest::parse(text).ok_or_else(|| "neither 32 nor 64 hex digits".into())
}

/// Everything that reports are made of.
#[derive(Debug, Default)]
pub struct VerifyOutcome {
    /// One entry a drive.
    pub drives: Vec<DriveVerdict>,
    /// Drives that could not be opened.
    pub unopened: Vec<(PathBuf, Problem)>,
    /// Rows that are not equal, the first of them.
    pub bad: Vec<(usize, Row)>,
    /// All of them.
    pub bad_in_all: u64,
    /// Blobs that were requested from the service and are on no drive; `None` without a request to compare with.
    pub unmet: Option<Vec<String>>,
    /// Journal and its SHA-256.
    pub journal: Option<(PathBuf, String)>,
    /// Directory that blobs were extracted to.
    pub extracted_to: Option<PathBuf>,
    /// Copy logs of drives that are not among these: path, and serial.
    pub foreign_logs: Vec<(String, String)>,
    /// Names of a drive that another name leads to as well: this one, and that.
    pub doubled: Vec<(PathBuf, PathBuf)>,
}

/// Whether a row is reported: it differs on the drive, at the service, or in the directory.
fn is_told(row: &Row) -> bool {
    row.verdict.is_against()
        || row.changed
        || row.service.is_some()
        || row.taken.is_some_and(|taken| taken > Taken::Same)
}

/// One word for such a row.
pub fn word_of(row: &Row) -> &'static str {
    match row.taken {
        _ if row.verdict.is_against() => row.verdict.word(),
        _ if row.changed => "changed since it was taken out",
        Some(taken) => taken.word(),
        None => row.verdict.word(),
    }
}

impl VerifyOutcome {
    /// Adds entries of the copy logs that match no blob on any drive.
    fn join(&mut self, logs: &Logs) {
        // A log without a drive's name may belong to any drive: an entry is a stray only if no drive has it.
        let nameless = logs.strays(None);
        if let Some(first) = self.drives.first_mut() {
            first.log_strays.extend(nameless);
        }
        let is_whole = self.unopened.is_empty() && self.drives.iter().all(|drive| drive.manifest.is_some());
        if is_whole {
            let ids = self.drives.iter().flat_map(|drive| {
                let named = drive.manifest.as_ref().and_then(|manifest| manifest.drive_id.as_deref());
                [named, drive.serial.as_deref(), Some(drive.drive.drive_id.as_str())].into_iter().flatten()
            });
            self.foreign_logs = logs.foreign(&ids.collect::<Vec<_>>());
        }
    }
}

impl Verify {
    /// Verifies and prints the results.
    pub fn run(self, output: &Output) -> Exit {
        match self.verify(output) {
            Ok(exit) => exit,
            Err(problems) => {
                output.problems(&problems);
                Exit::of_problems(&problems)
            }
        }
    }

    /// The output files, with all inputs registered so that none is overwritten.
    fn outputs(&self) -> Outputs {
        let mut outputs = Outputs::default();
        self.drives.iter().for_each(|path| outputs.input(path, "the drive"));
        self.key.files().iter().for_each(|path| outputs.input(path, "the key file"));
        self.compare.copy_log.iter().for_each(|path| outputs.input(path, "the copy log"));
        self.compare.expect.iter().for_each(|path| outputs.input(path, "the list of blobs"));
        self.reports.journal.iter().for_each(|path| outputs.input(path, "the journal"));
        self.compare.manifest.iter().for_each(|path| outputs.input(Path::new(path), "the manifest"));
        outputs
    }

    /// Refuses outputs on a file system of the drives themselves.
    fn keep_off(&self, opened: &[Opened]) -> Result<(), Problems> {
        let mut problems = Problems::default();
        let asked = self.reports.list.iter().chain(&self.reports.report).chain(&self.compare.extract_to);
        for path in asked {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            let Some(there) = path.ancestors().find_map(|place| std::fs::metadata(place).ok()) else { continue };
            for one in opened.iter().filter(|one| one.found.would_overwrite(&there)) {
                let problem = Problem::new(Kind::Refused, "would be written onto the drive itself").path(&path);
                problems.push(problem.drive(&one.found.drive.name).advice("name a place on another disk"));
            }
        }
        problems.into_result()
    }

    fn verify(self, output: &Output) -> Result<Exit, Problems> {
        let signals = Signals::install(signals::VERIFY)
            .map_err(|error| Problem::new(Kind::Environment, format!("signals cannot be caught: {error}")))?;
        let mut papers = self.papers()?;
        let journal = papers.journal.take();
        let mut outcome =
            VerifyOutcome { journal, extracted_to: self.compare.extract_to.clone(), ..VerifyOutcome::default() };
        for warning in &papers.journals.warnings {
            output.warning(warning);
        }
        let OpenedDrives { opened, unopened, doubled } = open_all(&self.drives, self.partition, &papers.keys, output);
        (outcome.unopened, outcome.doubled) = (unopened, doubled);
        self.keep_off(&opened)?;
        if let (true, Some(dir)) = (self.compare.all, &self.compare.extract_to) {
            return all::extract(&opened, &outcome.unopened, &self.compare.only, dir, (&signals, output));
        }
        let request = VerifyRequest {
            manifest: self.compare.manifest.clone(),
            manifest_hash: self.compare.manifest_hash,
            only: self.compare.only.clone(),
            extract_to: self.compare.extract_to.clone(),
            all: false,
            as_service: false,
        };
        let (request, logs, journals, stop) = (&request, &papers.logs, &papers.journals, &signals.stop);
        let mut judged = at_once(&opened, "verifying", (&signals, output), &|index, one, workers, events| {
            let context = judge::Context { index, request, logs, journals, workers, events, stop, deliver: None };
            judge::run(one, &context)
        })?;
        for (index, one) in judged.iter_mut().enumerate() {
            papers.take_rows(one, (index, &opened[index].found.drive), &mut outcome, output)?;
        }
        for list in papers.lists {
            list.finish()?;
        }
        outcome.unmet = (!self.compare.expect.is_empty()).then(|| papers.expected.unmet());
        outcome.drives = judged.into_iter().map(|one| one.verdict).collect();
        outcome.join(&papers.logs);
        if let Some(file) = papers.page {
            html::page(&outcome).save(file)?;
        }
        report(&outcome, output);
        Ok(words::exit(&conclusion(&outcome)))
    }

    /// Reads what the drives are compared with, and begins the files that are written. All problems at once.
    fn papers(&self) -> Result<Papers, Problems> {
        let mut problems = Problems::default();
        let mut logs = Logs::none();
        let mut expected = Expected::default();
        self.compare.copy_log.iter().filter_map(|path| logs.add(path).err()).for_each(|problem| problems.push(problem));
        for path in &self.compare.expect {
            problems.0.extend(expected.add(path).err().into_iter().flat_map(|these| these.0));
        }
        if let (Some(path), true, true) = (self.compare.expect.first(), problems.0.is_empty(), expected.is_empty()) {
            let problem = Problem::new(Kind::Usage, "the list asks for no blob, so nothing can be found missing");
            problems.push(problem.path(path).advice("name a list with entries, or leave --expect out"));
        }
        let mut outputs = self.outputs();
        let mut lists = Vec::new();
        for path in &self.reports.list {
            match List::create(path, &mut outputs) {
                Ok(list) => lists.push(list),
                Err(problem) => problems.push(problem),
            }
        }
        let page = self.reports.report.as_deref().map(|path| outputs.begin(path, page::FORM)).transpose();
        let page = page.map_err(|problem| problems.push(problem)).ok().flatten();
        let journal = match self.reports.journal.as_deref().map(lists::sha256).transpose() {
            Ok(hash) => self.reports.journal.clone().zip(hash),
            Err(problem) => {
                problems.push(problem);
                None
            }
        };
        let journals = self.journals(&mut problems);
        match self.key.read() {
            Ok(keys) => {
                problems.into_result()?;
                Ok(Papers { logs, expected, lists, page, journal, journals, keys })
            }
            Err(problem) => {
                problems.push(problem);
                Err(problems)
            }
        }
    }

    /// The journal named on the command line, and journals in the directories of the key files.
    fn journals(&self, problems: &mut Problems) -> Journals {
        let mut journals = Journals::none();
        if let Some(path) = &self.reports.journal
            && let Err(problem) = journals.add(path)
        {
            problems.push(problem);
        }
        for path in &self.key.key_file {
            journals.look_in(path.parent().unwrap_or(Path::new(".")));
        }
        journals
    }
}

/// What a run reads and writes besides the drives.
struct Papers {
    logs: Logs,
    expected: Expected,
    lists: Vec<List>,
    page: Option<OutputFile>,
    /// The journal and its SHA-256.
    journal: Option<(PathBuf, String)>,
    journals: Journals,
    keys: GivenKeys,
}

impl Papers {
    /// Takes the rows of a drive: into the lists, and those that differ into the outcome.
    fn take_rows(
        &mut self,
        judged: &mut judge::Judged<'_>,
        (index, drive): (usize, &DriveFacts),
        outcome: &mut VerifyOutcome,
        output: &Output,
    ) -> Result<(), Problem> {
        let mut reported = Ok(());
        judged.rows(&self.logs, &mut |row| {
            if row.verdict != Verdict::Missing
                && let Some(blob) = &row.blob
            {
                self.expected.met(blob);
            }
            if is_told(row) {
                outcome.bad_in_all += 1;
                if outcome.bad.len() < html::ROWS_MAX {
                    outcome.bad.push((index, row.clone()));
                }
            }
            let value = lists::row(drive, row);
            if output.is_json() {
                output.object("blob", value.clone());
            }
            for list in &mut self.lists {
                if reported.is_ok() {
                    reported = list.row(&value);
                }
            }
        })?;
        reported
    }
}

/// Drives of a run that were opened, and those that were not.
#[derive(Debug, Default)]
pub struct OpenedDrives {
    /// Each once.
    pub opened: Vec<Opened>,
    /// Those that could not be opened.
    pub unopened: Vec<(PathBuf, Problem)>,
    /// Names of a drive that another name leads to as well: this one, and that.
    pub doubled: Vec<(PathBuf, PathBuf)>,
}

/// Opens the drives, each once, by whatever names it is given.
pub fn open_all(drives: &[PathBuf], partition: Option<u32>, keys: &GivenKeys, output: &Output) -> OpenedDrives {
    let mut all = OpenedDrives::default();
    for drive in drives {
        let found = match find::open(drive, partition) {
            Ok(found) => found,
            Err(problem) => {
                all.unopened.push((drive.clone(), problem));
                continue;
            }
        };
        let is_same = |other: &&Opened| match (&other.found.place, &found.place) {
            (Some(one), Some(other)) => one.is_same(other),
            _ => false,
        };
        if let Some(other) = all.opened.iter().find(is_same) {
            let first = PathBuf::from(&other.found.drive.name);
            output.warning(&format!(
                "{} is the same drive as {}: it is read and counted once",
                drive.display(),
                first.display()
            ));
            all.doubled.push((drive.clone(), first));
            continue;
        }
        match keys.open_found(found, drive, partition, output) {
            Ok(one) => {
                for warning in one.warnings() {
                    output.warning(&format!("{}: {warning}", one.found.drive.name));
                }
                all.opened.push(one);
            }
            Err(problem) => all.unopened.push((drive.clone(), problem)),
        }
    }
    all
}

/// Receives the events of a drive.
pub type Events<'a> = &'a (dyn Fn(Event) + Sync);

/// Runs `one` for all drives at once, one thread each, with the hashing shared; `doing` is what is done.
///
/// # Errors
/// No threads, or a bug in one.
pub fn at_once<'a, T: Send>(
    opened: &'a [Opened],
    doing: &str,
    (signals, output): (&Signals, &Output),
    one: &(dyn Fn(usize, &'a Opened, &Workers, Events<'_>) -> T + Sync),
) -> Result<Vec<T>, Problem> {
    let workers = Workers::start(std::thread::available_parallelism().map_or(1, Into::into))
        .map_err(|error| Problem::new(Kind::Environment, format!("no threads for hashing: {error}")))?;
    // The manifest determines the number of bytes to read.
    let facts: Vec<(DriveFacts, ByteLen)> = opened.iter().map(|one| (one.found.drive.clone(), ByteLen(0))).collect();
    let board = output.board(facts);
    signals.writing.store(true, Ordering::Release);
    let done = std::thread::scope(|scope| {
        let ticker = scope.spawn(|| board.tick(signals));
        let end = board.ending();
        let done: Vec<_> = watched(
            doing,
            |text| board.event(Event::Warning(Notice::session(text))),
            |beat| {
                let events = |event: Event| {
                    beat();
                    board.event(event);
                };
                let (events, workers) = (&events, &workers);
                std::thread::scope(|scope| {
                    let threads: Vec<_> = opened
                        .iter()
                        .enumerate()
                        .map(|(index, drive)| scope.spawn(move || one(index, drive, workers, events)))
                        .collect();
                    threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
                })
            },
        );
        drop(end);
        // The ticker's panic has been printed already; the drives matter more.
        let _ = ticker.join();
        done
    });
    signals.writing.store(false, Ordering::Release);
    let bug = |_| Problem::new(Kind::Internal, "the drive's thread ended in a bug");
    done.into_iter().map(|one| one.map_err(bug)).collect()
}

fn report(outcome: &VerifyOutcome, output: &Output) {
    output.remember(&words::problems(outcome));
    if output.result("verified", to_json(outcome)) {
        return;
    }
    let style = output.style();
    let mut text = String::new();
    for drive in &outcome.drives {
        text.push_str(&drive_text(drive, outcome.extracted_to.as_deref(), style));
    }
    text.push_str(&bad_text(outcome, style));
    if let Some((path, hash)) = &outcome.journal {
        text.push_str(&format!("\njournal {}\n  SHA-256 {hash}\n", clean(&path.to_string_lossy())));
    }
    text.push_str(&format!("\nby dray {VERSION}\n"));
    let Headline { tone, word, sentence } = headline(outcome);
    let sentence = clean(&sentence);
    let word = match tone {
        Tone::Good => style.green(word),
        Tone::Warn => style.yellow(word),
        Tone::Bad | Tone::Plain => style.red(word),
    };
    text.push_str(&wrap(&format!("{word}: {sentence}\n"), ""));
    output.say(&text);
    for (drive, problem) in &outcome.unopened {
        output.show(&problem.clone().drive(drive.display().to_string()).into());
    }
    for problem in outcome.drives.iter().filter_map(|drive| drive.failure.clone()) {
        output.show(&problem.into());
    }
}

fn drive_text(drive: &DriveVerdict, extracted_to: Option<&Path>, style: Style) -> String {
    let mut text = String::new();
    let id = drive.manifest.as_ref().and_then(|manifest| manifest.drive_id.as_deref());
    text.push_str(&format!("\n{}  {}\n", style.bold(&clean(&drive.drive.name)), clean(id.unwrap_or_default())));
    if let Some(serial) = &drive.serial {
        text.push_str(&labelled("serial", &clean(serial)));
    }
    text.push_str(&labelled("unlocked by", &clean(&drive.unlocked)));
    if let Some(manifest) = &drive.manifest {
        text.push_str(&labelled("manifest", &format!("{}\nMD5 {}", clean(&manifest.path), manifest.md5)));
    }
    text.push_str(&labelled("begun", &time(drive.started)));
    for check in drive.checks.iter().filter(|check| check.answer == Answer::No) {
        let seen = clean(&check.seen);
        text.push_str(&match check.status {
            None => format!("  {} {}: {seen}\n", style.red("no"), check.question),
            Some(status) => format!("  {} {} ({status}): {seen}\n", style.red("refused"), check.question),
        });
    }
    for (verdict, rows, bytes) in drive.counts.all() {
        if rows > 0 || verdict == Verdict::Equal && drive.failure.is_none() {
            text.push_str(&format!("  {:<20}{rows:>10}  {}\n", verdict.word(), ByteLen(bytes)));
        }
    }
    if drive.skipped > 0 {
        text.push_str(&format!("  {:<20}{:>10}\n", "not asked for", drive.skipped));
    }
    if drive.resumed > 0 {
        text.push_str(&format!("  {} of these read by an interrupted run before, not by this one\n", drive.resumed));
    }
    if let Some(dir) = extracted_to {
        let (blobs, bytes) = drive.taken_out;
        let dir = clean(&dir.to_string_lossy());
        text.push_str(&format!(
            "  {:<20}{blobs:>10}  {}, in {dir} (described by .dray in it)\n",
            "taken out",
            ByteLen(bytes)
        ));
    }
    let rate = drive.bytes_read as f64 / drive.elapsed.as_secs_f64().max(1e-3);
    let (read, elapsed) = (ByteLen(drive.bytes_read), drive.elapsed.as_secs_f64());
    let of = if drive.failure.is_some() { format!(" of {}", ByteLen(drive.bytes_asked)) } else { String::new() };
    text.push_str(&format!("  read {read}{of} in {elapsed:.1} s ({}/s)\n", ByteLen(rate as u64)));
    for (path, blobs) in &drive.unlisted {
        let blobs = count(*blobs, "blob");
        text.push_str(&format!("  {} {} lists {blobs} more; not compared\n", style.red("no"), clean(path)));
    }
    for warning in &drive.warnings {
        text.push_str(&format!("  {} {}\n", style.yellow("note"), clean(warning)));
    }
    if let Some(status) = &drive.log_status {
        text.push_str(&format!("  the service's status of the drive: {}\n", clean(status)));
    }
    for stray in drive.log_strays.iter().take(SHOWN_MAX) {
        text.push_str(&format!("  named by the copy log only: {}\n", clean(stray)));
    }
    text
}

/// What is not equal, and what was asked for and is on no drive.
fn bad_text(outcome: &VerifyOutcome, style: Style) -> String {
    let mut text = String::new();
    if !outcome.bad.is_empty() {
        text.push('\n');
    }
    for (_, row) in outcome.bad.iter().take(SHOWN_MAX) {
        text.push_str(&format!("{}  {}\n", style.red(word_of(row)), clean(row.blob.as_deref().unwrap_or(&row.file))));
        for note in row.notes.iter().chain(&row.service) {
            text.push_str(&format!("    {}\n", clean(note)));
        }
    }
    if outcome.bad_in_all > SHOWN_MAX as u64 {
        text.push_str(&format!("and {} more; --list FILE.csv has all\n", outcome.bad_in_all - SHOWN_MAX as u64));
    }
    for blob in outcome.unmet.iter().flatten().take(SHOWN_MAX) {
        text.push_str(&format!("on no drive: {}\n", clean(blob)));
    }
    text
}

/// A check as an object; the status is empty for one that the service does not make.
pub fn check_json(check: &Check) -> Value {
    let answer = match check.answer {
        Answer::Yes => "yes",
        Answer::No => "no",
        Answer::Unknown => "unknown",
    };
    let status = check.status.map_or("", DriveStatus::as_str);
    json!({ "question": check.question, "status": status, "answer": answer, "seen": check.seen })
}

fn to_json(outcome: &VerifyOutcome) -> Value {
    let conclusion = conclusion(outcome);
    let Headline { word, sentence, .. } = headline(outcome);
    let reasons = conclusion.reasons.iter().map(|reason| json!({ "reason": reason.name(), "count": reason.count() }));
    json!({
        "verdict": {
            "word": word,
            "sentence": sentence,
            "reasons": reasons.collect::<Vec<_>>(),
            "asked": conclusion.asked,
            "equal": conclusion.equal,
            "earlier": conclusion.earlier,
        },
        "drives": outcome.drives.iter().map(drive_json).collect::<Vec<_>>(),
        "unopened": outcome.unopened.iter().map(|(path, problem)| {
            json!({ "drive": path.to_string_lossy(), "problem": object::problem(problem) })
        }).collect::<Vec<_>>(),
        "on_no_drive": outcome.unmet,
        "journal": outcome.journal.as_ref().map(|(path, hash)| json!({ "path": path.to_string_lossy(), "sha256": hash })),
        "extracted_to": outcome.extracted_to.as_ref().map(|path| path.to_string_lossy()),
        "same_drive": outcome.doubled.iter().map(|(path, first)| {
            json!({ "drive": path.to_string_lossy(), "first": first.to_string_lossy() })
        }).collect::<Vec<_>>(),
        "logs_of_other_drives": outcome.foreign_logs.iter().map(|(path, id)| {
            json!({ "path": path, "drive_id": id })
        }).collect::<Vec<_>>(),
        "good": conclusion.is_good(),
        "exit_code": words::exit(&conclusion).code(),
    })
}

fn drive_json(drive: &DriveVerdict) -> Value {
    let counts: serde_json::Map<String, Value> = drive
        .counts
        .all()
        .iter()
        .map(|(verdict, rows, bytes)| (verdict.word().to_owned(), json!({ "count": rows, "bytes": bytes })))
        .collect();
    json!({
        "drive": object::facts(&drive.drive),
        "serial": drive.serial,
        "unlocked": drive.unlocked,
        "manifest": drive.manifest.as_ref().map(|manifest| json!({
            "path": manifest.path,
            "length": manifest.len,
            "md5": manifest.md5,
            "sha256": manifest.sha256,
            "expected": manifest.expected.map(|(hash, _)| hash.to_string()),
            "drive_id": manifest.drive_id,
            "creator": manifest.creator,
            "export": manifest.is_export,
            "faults": manifest.faults,
            "faults_in_all": manifest.faults_in_all,
        })),
        "checks": drive.checks.iter().map(check_json).collect::<Vec<_>>(),
        "counts": counts,
        "bytes_read": drive.bytes_read,
        "bytes_asked": drive.bytes_asked,
        "resumed": drive.resumed,
        "skipped": drive.skipped,
        "unlisted": drive.unlisted.iter().map(|(path, blobs)| {
            json!({ "path": path, "blobs": blobs })
        }).collect::<Vec<_>>(),
        "unmatched": drive.unmatched,
        "taken_out": { "count": drive.taken_out.0, "bytes": drive.taken_out.1, "changed": drive.changed },
        "service": {
            "not_taken": drive.service.0, "renamed": drive.service.1, "other": drive.service.2,
            "remarks": drive.log_remarks,
        },
        "warnings": drive.warnings,
        "log_status": drive.log_status,
        "log_strays": drive.log_strays,
        "failure": drive.failure.as_ref().map(object::problem),
        "started": time(drive.started),
        "seconds": drive.elapsed.as_secs_f64(),
        "verdict": words::word_of_drive(drive),
        "good": drive.is_good(),
    })
}

/// RFC 3339 in whole seconds.
pub fn time(time: dray_engine::units::FileTime) -> String {
    let (seconds, _) = time.to_unix();
    jiff::Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default()
}
