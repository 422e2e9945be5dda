//! `dray rehearse`: what the service would do with drives that are to be sent.

use std::path::{Path, PathBuf};

use clap::Args;
use dray_engine::api::azure::check_job_name;
use dray_engine::api::host::Outputs;
use dray_engine::api::inspect::{Opened, find};
use dray_engine::api::verify::{
    Answer, BlobNames, DriveVerdict, Journals, LogPlace, Logs, Rehearsed, Told, VerifyRequest, conclude, judge,
    of_found, of_locked, refusal, rehearsal, sum_of_drives,
};
use dray_engine::report::{Kind, Problem, Problems};
use dray_engine::units::ByteLen;
use serde_json::{Value, json};

use crate::commands::verify;
use crate::exit::Exit;
use crate::key::{GivenKeys, KeyArgs};
use crate::render::{Output, clean, count, json as object, labelled};
use crate::signals::{self, Signals};

/// Blobs shown on the terminal.
const SHOWN_MAX: usize = 20;

/// Arguments of `dray rehearse`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Needs no account and no network; the drives are never written to. Asks what the service asks of a drive \
                        that arrives, in its order, reads every blob, and says which status the drive and each blob \
                        would get. Exit code 0 only if every drive is Completed. 1: a path or record is wrong. 3: a \
                        blob would be skipped. 4: a drive cannot be read. 5: anything else would be refused or differs.\n\n\
                        Examples:\n  \
                        dray rehearse /dev/sdb --record 9WM35C2V.xml\n  \
                        dray rehearse /dev/sdb /dev/sdc --record 9WM35C2V.xml --record ZL2.xml\n  \
                        dray rehearse drive.img --record drive.xml --logs logs"
)]
pub struct Rehearse {
    /// Drives or image files of one job
    #[arg(value_name = "DRIVE", required = true)]
    drives: Vec<PathBuf>,
    /// Drive record, as the job gets it; one for each drive
    #[arg(long, value_name = "FILE", required = true)]
    record: Vec<PathBuf>,
    /// Write the copy logs of both generations into this directory
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,
    /// Name of the job, in the names of the logs
    #[arg(long, value_name = "NAME", default_value = "rehearsal", value_parser = job_name)]
    job: String,
}

fn job_name(name: &str) -> Result<String, String> {
    check_job_name(name).map(|()| name.to_owned()).map_err(|error| error.to_string())
}

/// A drive of the run: opened for judging, or refused before.
enum Looked {
    Opened(usize),
    Refused(Box<DriveVerdict>, String),
}

/// Everything that is reported.
#[derive(Debug, Default)]
struct RehearseOutcome {
    drives: Vec<(DriveVerdict, Rehearsed)>,
    unopened: Vec<(PathBuf, Problem)>,
}

impl Rehearse {
    /// Rehearses and prints the results.
    pub fn run(self, output: &Output) -> Exit {
        match self.rehearse(output) {
            Ok(exit) => exit,
            Err(problems) => {
                output.problems(&problems);
                Exit::of_problems(&problems)
            }
        }
    }

    fn rehearse(&self, output: &Output) -> Result<Exit, Problems> {
        let signals = Signals::install(signals::VERIFY)
            .map_err(|error| Problem::new(Kind::Environment, format!("signals cannot be caught: {error}")))?;
        let keys = KeyArgs { key_file: self.record.clone(), key_fd: None }.read()?;
        if !keys.given().is_some_and(dray_engine::api::inspect::Key::has_record) {
            let problem = Problem::new(Kind::Usage, "holds no drive record, which the job is made of");
            return Err(problem.path(&self.record[0]).advice("give the file <DriveId>.xml of prep-import").into());
        }
        let (mut outcome, mut opened, mut looked) = (RehearseOutcome::default(), Vec::new(), Vec::new());
        for drive in &self.drives {
            match look(drive, &keys, &mut opened, output) {
                Ok(one) => looked.extend(one),
                Err(problem) => outcome.unopened.push((drive.clone(), problem)),
            }
        }
        let mut place = self.place(&opened)?;
        let request = VerifyRequest { as_service: true, ..VerifyRequest::default() };
        let logs = Logs::none();
        // The service has the record alone: what a journal knows is for `dray verify` to ask.
        let (request, known, journals, stop) = (&request, &logs, &Journals::none(), &signals.stop);
        let judged = verify::at_once(&opened, "rehearsing", (&signals, output), &|index, one, workers, events| {
            let context =
                judge::Context { index, request, logs: known, journals, workers, events, stop, deliver: None };
            judge::run(one, &context)
        })?;
        let mut judged: Vec<_> = judged.into_iter().map(Some).collect();
        let mut names = BlobNames::default();
        for one in looked {
            outcome.drives.push(match one {
                Looked::Refused(verdict, drive_id) => {
                    let rehearsed = rehearsal::refused(&verdict, &drive_id, place.as_mut())?;
                    (*verdict, rehearsed)
                }
                Looked::Opened(index) => {
                    let Some(mut judged) = judged[index].take() else { continue };
                    judged.rows(&logs, &mut |_| {})?;
                    let name = opened[index].found.drive.name.clone();
                    let drive_id = drive_id(&opened[index]);
                    let mut see = |told: &Told| {
                        if output.is_json() {
                            output.object("service_blob", blob_json(&name, told));
                        }
                    };
                    let rehearsed = rehearsal::conclude(&mut judged, &drive_id, &mut names, place.as_mut(), &mut see)?;
                    (judged.verdict, rehearsed)
                }
            });
        }
        Ok(report(&outcome, output))
    }

    /// The place of the logs, which is not on one of the drives.
    fn place(&self, opened: &[Opened]) -> Result<Option<LogPlace>, Problem> {
        let Some(dir) = &self.logs else { return Ok(None) };
        let mut outputs = Outputs::default();
        self.drives.iter().for_each(|path| outputs.input(path, "the drive"));
        self.record.iter().for_each(|path| outputs.input(path, "the drive record"));
        let whole = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
        if let Some(there) = whole.ancestors().find_map(|place| std::fs::metadata(place).ok())
            && let Some(one) = opened.iter().find(|one| one.found.would_overwrite(&there))
        {
            let problem = Problem::new(Kind::Refused, "would be written onto the drive itself").path(&whole);
            return Err(problem.drive(&one.found.drive.name).advice("name a place on another disk"));
        }
        LogPlace::new(dir, &self.job, outputs).map(Some)
    }
}

/// Opens a drive as far as the service would; `None` for one that has been opened under another name.
fn look(drive: &Path, keys: &GivenKeys, opened: &mut Vec<Opened>, output: &Output) -> Result<Option<Looked>, Problem> {
    let found = find::open_any(drive, None)?;
    let is_same = |other: &&Opened| match (&other.found.place, &found.place) {
        (Some(one), Some(other)) => one.is_same(other),
        _ => false,
    };
    if let Some(other) = opened.iter().find(is_same) {
        let first = &other.found.drive.name;
        output.warning(&format!("{} is the same drive as {first}: it is rehearsed once", drive.display()));
        return Ok(None);
    }
    let checks = of_found(&found);
    let (facts, serial) = (found.drive.clone(), found.serial.clone());
    let key = keys.given();
    let record = key.and_then(|key| {
        let named = serial.as_deref().and_then(|serial| key.records(serial).next());
        named.or_else(|| key.only_record())
    });
    let drive_id = record.map_or_else(|| facts.drive_id.clone(), |record| record.drive_id.clone());
    let refused = |checks| {
        let verdict = DriveVerdict { checks, ..judge::blank(facts.clone(), serial.clone()) };
        Looked::Refused(Box::new(verdict), drive_id.clone())
    };
    if refusal(&checks).is_some() {
        return Ok(Some(refused(checks)));
    }
    Ok(Some(match keys.open_found(found, drive, None, output) {
        Ok(one) => {
            opened.push(one);
            Looked::Opened(opened.len() - 1)
        }
        Err(problem) => refused(of_locked(checks, &problem)),
    }))
}

/// The drive in the job: by its record, or else as it calls itself.
fn drive_id(opened: &Opened) -> String {
    let record = opened.unlocked.as_ref().and_then(|unlocked| unlocked.record.as_ref());
    record.map_or_else(|| opened.found.drive.drive_id.clone(), |record| record.drive_id.clone())
}

fn exit(outcome: &RehearseOutcome) -> Exit {
    let verdicts: Vec<DriveVerdict> = outcome.drives.iter().map(|(verdict, _)| verdict.clone()).collect();
    let unopened: Vec<Kind> = outcome.unopened.iter().map(|(_, problem)| problem.kind).collect();
    verify::words::exit(&conclude(&sum_of_drives(&verdicts, &unopened, 0, 0)))
}

/// Prints the results; the exit code that follows from them.
fn report(outcome: &RehearseOutcome, output: &Output) -> Exit {
    let exit = exit(outcome);
    let mut problems = Problems::default();
    problems
        .0
        .extend(outcome.unopened.iter().map(|(drive, problem)| problem.clone().drive(drive.display().to_string())));
    problems.0.extend(outcome.drives.iter().filter_map(|(verdict, _)| verdict.failure.clone()));
    for (verdict, one) in outcome.drives.iter().filter(|(verdict, one)| !is_good(verdict, one)) {
        let what = format!("the service would answer {}", one.status);
        problems.push(Problem::new(Kind::Different, what).drive(&verdict.drive.name));
    }
    output.remember(&problems);
    if output.result("rehearsed", to_json(outcome, exit)) {
        return exit;
    }
    let mut text = String::new();
    outcome.drives.iter().for_each(|(verdict, one)| drive_text(&mut text, verdict, one, output));
    let good = outcome.drives.iter().filter(|(verdict, one)| is_good(verdict, one)).count();
    let all = self::count((outcome.drives.len() + outcome.unopened.len()) as u64, "drive");
    let style = output.style();
    text.push_str(&if exit == Exit::Done {
        format!("\n{}: the service would take all of {all}\n", style.green("Completed"))
    } else {
        format!("\n{}: {good} of {all} would be taken as they are\n", style.red("Not fit to send"))
    });
    output.say(&text);
    for (drive, problem) in &outcome.unopened {
        output.show(&problem.clone().drive(drive.display().to_string()).into());
    }
    for problem in outcome.drives.iter().filter_map(|(verdict, _)| verdict.failure.clone()) {
        output.show(&problem.into());
    }
    exit
}

/// Whether the service would take the drive, and nothing else speaks against sending it.
fn is_good(verdict: &DriveVerdict, one: &Rehearsed) -> bool {
    one.status.as_str() == "Completed" && verdict.is_good()
}

fn drive_text(text: &mut String, verdict: &DriveVerdict, one: &Rehearsed, output: &Output) {
    let style = output.style();
    text.push_str(&format!("\n{}  {}\n", style.bold(&clean(&verdict.drive.name)), clean(&one.drive_id)));
    for check in &verdict.checks {
        let seen = if check.seen.is_empty() { String::new() } else { format!(": {}", clean(&check.seen)) };
        match (check.answer, check.status) {
            (Answer::No, Some(status)) => {
                text.push_str(&format!("  {} {} ({status}){seen}\n", style.red("refused"), check.question));
            }
            (Answer::No, None) => text.push_str(&format!("  {} {}{seen}\n", style.red("no"), check.question)),
            (Answer::Unknown, _) => {
                text.push_str(&format!("  {} {}{seen}\n", style.yellow("not known"), check.question))
            }
            (Answer::Yes, _) => {}
        }
    }
    for warning in &verdict.warnings {
        text.push_str(&format!("  {} {}\n", style.yellow("note"), clean(warning)));
    }
    let status = one.status.as_str();
    let status = if status == "Completed" { style.green(status) } else { style.red(status) };
    text.push_str(&labelled("status of the drive", &format!("{status}\n(2021 and later: {})", one.second.as_str())));
    let tally = one.tally;
    let sums =
        format!("{}, {} with errors, {} under another name or skipped", tally.blobs, tally.errors, tally.warnings);
    text.push_str(&labelled("blobs", &sums));
    let (read, seconds) = (ByteLen(verdict.bytes_read), verdict.elapsed.as_secs_f64());
    if verdict.bytes_read > 0 {
        let rate = ByteLen((verdict.bytes_read as f64 / seconds.max(1e-3)) as u64);
        text.push_str(&labelled("read", &format!("{read} in {seconds:.1} s ({rate}/s)")));
    }
    for told in one.blobs.iter().take(SHOWN_MAX) {
        let became = told.blob.disposition.as_ref().map_or("", |(_, became)| became.as_str());
        let word = if told.blob.is_success() { became } else { told.blob.status.as_str() };
        text.push_str(&format!("  {}  {}\n", style.red(word), clean(&told.blob.blob_path)));
        told.notes.iter().for_each(|note| text.push_str(&format!("      {}\n", clean(note))));
    }
    if one.blobs_in_all > SHOWN_MAX as u64 {
        let more = one.blobs_in_all - SHOWN_MAX as u64;
        text.push_str(&format!("  and {more} more; --logs DIR has all\n"));
    }
    for log in &one.logs {
        text.push_str(&format!("  written: {}\n", clean(&log.to_string_lossy())));
    }
}

fn blob_json(drive: &str, told: &Told) -> Value {
    let blob = &told.blob;
    let pieces = blob.pieces.iter().filter(|piece| piece.status != "Completed");
    json!({
        "drive": drive,
        "blob": blob.blob_path,
        "file": blob.file_path,
        "length": blob.length,
        "status": blob.status,
        "wanted": blob.disposition.as_ref().map(|(wanted, _)| wanted),
        "disposition": blob.disposition.as_ref().map(|(_, became)| became),
        "pieces": blob.pieces.len(),
        "failed": pieces.map(|piece| {
            json!({ "offset": piece.offset, "length": piece.length, "status": piece.status })
        }).collect::<Vec<_>>(),
        "metadata": blob.metadata.as_ref().map(|side| &side.status),
        "properties": blob.properties.as_ref().map(|side| &side.status),
        "second": told.errors.iter().map(|error| json!({
            "path": error.path, "category": error.category, "code": error.error_code, "message": error.error_message,
        })).collect::<Vec<_>>(),
        "notes": told.notes,
    })
}

fn to_json(outcome: &RehearseOutcome, exit: Exit) -> Value {
    let drive = |(verdict, one): &(DriveVerdict, Rehearsed)| {
        json!({
            "drive": object::facts(&verdict.drive),
            "drive_id": one.drive_id,
            "status": one.status.as_str(),
            "second_status": one.second.as_str(),
            "checks": verdict.checks.iter().map(verify::check_json).collect::<Vec<_>>(),
            "blobs": one.tally.blobs,
            "errors": one.tally.errors,
            "warned": one.tally.warnings,
            "bytes_read": verdict.bytes_read,
            "seconds": verdict.elapsed.as_secs_f64(),
            "warnings": verdict.warnings,
            "logs": one.logs.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>(),
            "failure": verdict.failure.as_ref().map(object::problem),
            "good": is_good(verdict, one),
        })
    };
    json!({
        "drives": outcome.drives.iter().map(drive).collect::<Vec<_>>(),
        "unopened": outcome.unopened.iter().map(|(path, problem)| {
            json!({ "drive": path.to_string_lossy(), "problem": object::problem(problem) })
        }).collect::<Vec<_>>(),
        "good": exit == Exit::Done,
        "exit_code": exit.code(),
    })
}
