//! `dray verify`: is what is on the drives what their manifests say.

mod html;
mod lists;

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use clap::Args;
use dray_engine::job::{
    Answer, Digest, DriveVerdict, Expected, Judged, Logs, Opened, Row, Verdict, VerifyRequest, Workers, judge,
};
use dray_engine::report::{DriveFacts, Event, Kind, Problem, Problems};
use dray_engine::units::ByteLen;
use serde_json::{Value, json};

use crate::args::VERSION;
use crate::exit::Exit;
use crate::key::KeyArgs;
use crate::render::{Output, clean, count, json as object, labelled, minded, wrap};
use crate::signals::{self, Signals};
use lists::List;

/// Rows shown of what is not equal.
const SHOWN_MAX: usize = 20;

/// Arguments of `dray verify`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "The drives are never written to. Exit code 0 only if everything that was asked is equal.\n\n\
                        Examples:\n  \
                        dray verify /dev/sdb --key-file 9WM35C2V.xml --report verified.html\n  \
                        dray verify /dev/sdb /dev/sdc --key-file keys.json --copy-log error.xml\n  \
                        dray verify /dev/sdb --extract-to /data --only pictures/2019")]
pub struct Verify {
    /// Drives or image files of one job
    #[arg(value_name = "DRIVE", required = true)]
    drives: Vec<PathBuf>,
    /// Number of the partition; else a bare volume, or the first data partition
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    /// Its key.
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    compare: CompareArgs,
    #[command(flatten)]
    reports: ReportArgs,
}

/// With what.
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
}

/// What is told.
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

fn digest(text: &str) -> Result<Digest, String> {
    Digest::parse(text).ok_or_else(|| "neither 32 nor 64 hex digits".into())
}

/// Everything that reports are made of.
#[derive(Debug, Default)]
pub struct Outcome {
    /// One entry a drive.
    pub drives: Vec<DriveVerdict>,
    /// Drives that could not be opened.
    pub unopened: Vec<(PathBuf, Problem)>,
    /// Rows that are not equal, the first of them.
    pub bad: Vec<(usize, Row)>,
    /// All of them.
    pub bad_in_all: u64,
    /// What was asked of the service and is on no drive; `None` if nothing was asked.
    pub unmet: Option<Vec<String>>,
    /// Journal and its SHA-256.
    pub journal: Option<(PathBuf, String)>,
    /// Where blobs were taken out to.
    pub extracted_to: Option<PathBuf>,
}

impl Outcome {
    fn is_good(&self) -> bool {
        self.unopened.is_empty()
            && self.drives.iter().all(DriveVerdict::is_good)
            && self.unmet.as_ref().is_none_or(Vec::is_empty)
    }

    fn exit(&self) -> Exit {
        if self.is_good() {
            return Exit::Done;
        }
        let failures = self.drives.iter().filter_map(|drive| drive.failure.as_ref());
        let failures: Vec<Problem> =
            failures.chain(self.unopened.iter().map(|(_, problem)| problem)).cloned().collect();
        if failures.is_empty() { Exit::Different } else { Exit::of_problems(&Problems(failures)) }
    }
}

impl Verify {
    /// Verifies and tells.
    pub fn run(self, output: &Output) -> Exit {
        match self.verify(output) {
            Ok(exit) => exit,
            Err(problems) => {
                output.problems(&problems);
                Exit::of_problems(&problems)
            }
        }
    }

    fn verify(self, output: &Output) -> Result<Exit, Problems> {
        let signals = Signals::install(signals::VERIFY)
            .map_err(|error| Problem::new(Kind::Environment, format!("signals cannot be caught: {error}")))?;
        let mut problems = Problems::default();
        let mut logs = Logs::none();
        let mut expected = Expected::default();
        self.compare.copy_log.iter().filter_map(|path| logs.add(path).err()).for_each(|problem| problems.push(problem));
        for path in &self.compare.expect {
            problems.0.extend(expected.add(path).err().into_iter().flat_map(|these| these.0));
        }
        let mut lists = Vec::new();
        for path in &self.reports.list {
            match List::create(path) {
                Ok(list) => lists.push(list),
                Err(problem) => problems.push(problem),
            }
        }
        let journal = match self.reports.journal.as_deref().map(lists::sha256).transpose() {
            Ok(hash) => self.reports.journal.clone().zip(hash),
            Err(problem) => {
                problems.push(problem);
                None
            }
        };
        let keys = self.key.read().map_err(|problem| problems.push(problem)).ok();
        problems.into_result()?;
        let Some(keys) = keys else { return Ok(Exit::Usage) };

        let mut outcome = Outcome { journal, extracted_to: self.compare.extract_to.clone(), ..Outcome::default() };
        let mut opened: Vec<Opened> = Vec::new();
        for drive in &self.drives {
            match keys.open(drive, self.partition, output) {
                Ok(one) => opened.push(one),
                Err(problem) => outcome.unopened.push((drive.clone(), problem)),
            }
        }
        let request = VerifyRequest {
            manifest: self.compare.manifest.clone(),
            manifest_hash: self.compare.manifest_hash,
            only: self.compare.only.clone(),
            extract_to: self.compare.extract_to.clone(),
        };
        let mut judged = all(&opened, &request, &logs, &signals, output)?;
        for (index, one) in judged.iter_mut().enumerate() {
            let mut told = Ok(());
            one.rows(&logs, &mut |row| {
                if row.verdict != Verdict::Missing
                    && let Some(blob) = &row.blob
                {
                    expected.met(blob);
                }
                if !matches!(row.verdict, Verdict::Equal | Verdict::NotInManifest) || row.service.is_some() {
                    outcome.bad_in_all += 1;
                    if outcome.bad.len() < html::ROWS_MAX {
                        outcome.bad.push((index, row.clone()));
                    }
                }
                let value = lists::row(&opened[index].found.drive, row);
                if output.is_json() {
                    output.object("blob", value.clone());
                }
                for list in &mut lists {
                    if told.is_ok() {
                        told = list.row(&value);
                    }
                }
            })?;
            told?;
        }
        for list in lists {
            list.finish()?;
        }
        outcome.unmet = (!self.compare.expect.is_empty()).then(|| expected.unmet());
        outcome.drives = judged.into_iter().map(|one| one.verdict).collect();
        if let Some(path) = &self.reports.report {
            html::page(&outcome).save(path)?;
        }
        tell(&outcome, output);
        Ok(outcome.exit())
    }
}

/// All drives at once, one thread each, and the hashing shared.
fn all<'a>(
    opened: &'a [Opened],
    request: &VerifyRequest,
    logs: &Logs,
    signals: &Signals,
    output: &Output,
) -> Result<Vec<Judged<'a>>, Problem> {
    let workers = Workers::start(std::thread::available_parallelism().map_or(1, Into::into))
        .map_err(|error| Problem::new(Kind::Environment, format!("no threads for hashing: {error}")))?;
    let facts: Vec<(DriveFacts, ByteLen)> = opened.iter().map(|one| (one.found.drive.clone(), one.len())).collect();
    let board = output.board(facts);
    signals.writing.store(true, Ordering::Release);
    let judged = std::thread::scope(|scope| {
        let ticker = scope.spawn(|| board.tick(signals));
        let end = board.ending();
        let judged: Vec<_> = minded(
            "verifying",
            |text| board.event(Event::Warning(text)),
            |signs| {
                let events = |event: Event| {
                    signs.sign();
                    board.event(event);
                };
                let (events, workers) = (&events, &workers);
                std::thread::scope(|scope| {
                    let threads: Vec<_> = opened
                        .iter()
                        .enumerate()
                        .map(|(index, one)| {
                            let stop = &signals.stop;
                            let context = judge::Context { index, request, logs, workers, events, stop };
                            scope.spawn(move || judge::run(one, &context))
                        })
                        .collect();
                    threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
                })
            },
        );
        drop(end);
        // A ticker that panicked has said so; the drives matter more.
        let _ = ticker.join();
        judged
    });
    signals.writing.store(false, Ordering::Release);
    let bug = |_| Problem::new(Kind::Internal, "the drive's thread ended in a bug");
    judged.into_iter().map(|one| one.map_err(bug)).collect()
}

/// The word and the sentence that a report begins with.
pub fn headline(outcome: &Outcome) -> (bool, &'static str, String) {
    let blobs: u64 = outcome.drives.iter().map(|drive| drive.counts.blobs()).sum();
    let equal: u64 = outcome.drives.iter().map(|drive| drive.counts.equal.0).sum();
    let failed = outcome.unopened.len() + outcome.drives.iter().filter(|drive| drive.failure.is_some()).count();
    let refused =
        outcome.drives.iter().flat_map(|drive| &drive.checks).filter(|check| check.answer == Answer::No).count();
    if outcome.is_good() {
        let all = format!("All {} that were asked are on the drive as the manifest says.", count(blobs, "blob"));
        return (true, "Equal", if blobs == 1 { "The blob is as the manifest says.".into() } else { all });
    }
    let mut parts = vec![format!("{equal} of {} equal", count(blobs, "blob"))];
    if failed > 0 {
        parts.push(format!("{} could not be verified to the end", count(failed as u64, "drive")));
    }
    if refused > 0 {
        parts.push(format!("{} of the service answered with no", count(refused as u64, "question")));
    }
    if let Some(unmet) = outcome.unmet.as_ref().filter(|unmet| !unmet.is_empty()) {
        parts.push(format!("{} on none of the drives", count(unmet.len() as u64, "requested blob")));
    }
    (false, "Not equal", format!("{}.", parts.join("; ")))
}

fn tell(outcome: &Outcome, output: &Output) {
    if output.result("verified", to_json(outcome)) {
        return;
    }
    let style = output.style();
    let mut text = String::new();
    for drive in &outcome.drives {
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
            let line =
                format!("  {} {} ({}): {}\n", style.red("refused"), check.question, check.status, clean(&check.seen));
            text.push_str(&line);
        }
        for (verdict, rows, bytes) in drive.counts.all() {
            if rows > 0 || verdict == Verdict::Equal {
                text.push_str(&format!("  {:<20}{rows:>10}  {}\n", verdict.word(), ByteLen(bytes)));
            }
        }
        if drive.skipped > 0 {
            text.push_str(&format!("  {:<20}{:>10}\n", "not asked for", drive.skipped));
        }
        if drive.resumed > 0 {
            text.push_str(&format!("  {} of these judged in an earlier run\n", drive.resumed));
        }
        let rate = drive.bytes_read as f64 / drive.elapsed.as_secs_f64().max(1e-3);
        let (read, elapsed) = (ByteLen(drive.bytes_read), drive.elapsed.as_secs_f64());
        text.push_str(&format!("  read {read} in {elapsed:.1} s ({}/s)\n", ByteLen(rate as u64)));
        for warning in &drive.warnings {
            text.push_str(&format!("  {} {}\n", style.yellow("note"), clean(warning)));
        }
        if let Some(status) = &drive.log_status {
            text.push_str(&format!("  the service's status of the drive: {}\n", clean(status)));
        }
        for stray in drive.log_strays.iter().take(SHOWN_MAX) {
            text.push_str(&format!("  named by the copy log only: {}\n", clean(stray)));
        }
    }
    if !outcome.bad.is_empty() {
        text.push('\n');
    }
    for (_, row) in outcome.bad.iter().take(SHOWN_MAX) {
        let word = row.verdict.word();
        let word = if row.verdict == Verdict::Equal { word.to_owned() } else { style.red(word) };
        text.push_str(&format!("{word}  {}\n", clean(row.blob.as_deref().unwrap_or(&row.file))));
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
    if let Some((path, hash)) = &outcome.journal {
        text.push_str(&format!("\njournal {}\n  SHA-256 {hash}\n", clean(&path.to_string_lossy())));
    }
    text.push_str(&format!("\nby dray {VERSION}\n"));
    let (good, word, sentence) = headline(outcome);
    let word = if good { style.green(word) } else { style.red(word) };
    text.push_str(&wrap(&format!("{word}: {sentence}\n"), ""));
    output.say(&text);
    for (drive, problem) in &outcome.unopened {
        output.problems(&problem.clone().drive(drive.display().to_string()).into());
    }
    for problem in outcome.drives.iter().filter_map(|drive| drive.failure.clone()) {
        output.problems(&problem.into());
    }
}

fn to_json(outcome: &Outcome) -> Value {
    let drive = |drive: &DriveVerdict| {
        let checks = drive.checks.iter().map(|check| {
            let answer = match check.answer {
                Answer::Yes => "yes",
                Answer::No => "no",
                Answer::Unknown => "unknown",
            };
            json!({ "question": check.question, "status": check.status, "answer": answer, "seen": check.seen })
        });
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
            "checks": checks.collect::<Vec<_>>(),
            "counts": counts,
            "bytes_read": drive.bytes_read,
            "resumed": drive.resumed,
            "skipped": drive.skipped,
            "warnings": drive.warnings,
            "log_status": drive.log_status,
            "log_strays": drive.log_strays,
            "failure": drive.failure.as_ref().map(object::problem),
            "started": time(drive.started),
            "seconds": drive.elapsed.as_secs_f64(),
            "good": drive.is_good(),
        })
    };
    json!({
        "drives": outcome.drives.iter().map(drive).collect::<Vec<_>>(),
        "unopened": outcome.unopened.iter().map(|(path, problem)| {
            json!({ "drive": path.to_string_lossy(), "problem": object::problem(problem) })
        }).collect::<Vec<_>>(),
        "on_no_drive": outcome.unmet,
        "journal": outcome.journal.as_ref().map(|(path, hash)| json!({ "path": path.to_string_lossy(), "sha256": hash })),
        "extracted_to": outcome.extracted_to.as_ref().map(|path| path.to_string_lossy()),
        "good": outcome.is_good(),
        "exit_code": outcome.exit().code(),
    })
}

/// RFC 3339 in whole seconds.
pub fn time(time: dray_engine::units::FileTime) -> String {
    let (seconds, _) = time.to_unix();
    jiff::Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default()
}
