//! `dray verify --extract-to --all`: every file of a volume, without a manifest.

use std::path::{Path, PathBuf};

use dray_engine::api::inspect::Opened;
use dray_engine::api::verify::{DriveVerdict, Journals, Logs, Row, Verdict, VerifyRequest, judge};
use dray_engine::report::{Kind, Problem, Problems};
use dray_engine::units::ByteLen;
use serde_json::{Value, json};

use super::{SHOWN_MAX, at_once};
use crate::exit::Exit;
use crate::render::{Output, clean, count, json as object, labelled};
use crate::signals::Signals;

/// Files of one drive that were not extracted as they are.
#[derive(Debug, Default)]
struct Short {
    /// Files that could not be read or placed.
    failed: Vec<Row>,
    /// Links, and files whose contents are not on the volume.
    left_out: Vec<Row>,
    /// Files that lie in the directory with other contents.
    changed: u64,
}

/// Extracts all files of the opened drives into the directory.
///
/// # Errors
/// No threads, or a result that cannot be written.
pub fn extract(
    opened: &[Opened],
    unopened: &[(PathBuf, Problem)],
    only: &[String],
    dir: &Path,
    (signals, output): (&Signals, &Output),
) -> Result<Exit, Problems> {
    let request =
        VerifyRequest { only: only.to_vec(), extract_to: Some(dir.to_owned()), all: true, ..VerifyRequest::default() };
    let (logs, journals) = (Logs::none(), Journals::none());
    let (request, known, journals, stop) = (&request, &logs, &journals, &signals.stop);
    let judged = at_once(opened, "extracting", (signals, output), &|index, one, workers, events| {
        let context = judge::Context { index, request, logs: known, journals, workers, events, stop, deliver: None };
        judge::run(one, &context)
    })?;
    let mut drives = Vec::new();
    for mut one in judged {
        let mut short = Short::default();
        one.rows(&logs, &mut |row| match row.verdict {
            Verdict::NotInManifest => short.left_out.push(row.clone()),
            Verdict::NoReference | Verdict::Equal if row.extracted.is_some() => short.changed += u64::from(row.changed),
            _ => short.failed.push(row.clone()),
        })?;
        drives.push((one.verdict, short));
    }
    let mut problems = Problems::default();
    problems.0.extend(unopened.iter().map(|(drive, problem)| problem.clone().drive(drive.display().to_string())));
    drives.iter().for_each(|(verdict, short)| problems.0.append(&mut against(verdict, short).0));
    let left_out = drives.iter().any(|(_, short)| !short.left_out.is_empty());
    let exit = match (problems.0.is_empty(), left_out) {
        (true, false) => Exit::Done,
        (true, true) => Exit::LeftOut,
        (false, _) => Exit::of_problems(&problems),
    };
    report(&drives, dir, exit, output);
    if !problems.0.is_empty() {
        output.problems(&problems);
    }
    Ok(exit)
}

/// All that speaks against a drive's part.
fn against(verdict: &DriveVerdict, short: &Short) -> Problems {
    let name = &verdict.drive.name;
    let mut problems = Problems(verdict.failure.iter().cloned().map(|problem| problem.drive(name)).collect());
    if let Some(first) = short.failed.first() {
        let what = format!("{} could not be extracted", count(short.failed.len() as u64, "file"));
        let value = format!("{}: {}", first.file, first.notes.join("; "));
        problems.push(
            Problem::new(Kind::Drive, what)
                .drive(name)
                .value(value)
                .advice("the others were; keep the drive as an image (`dray acquire`), and try again from that"),
        );
    }
    if short.changed > 0 {
        let what = format!("{} of an earlier run in the directory differ from the drive", count(short.changed, "file"));
        problems.push(Problem::new(Kind::Different, what).drive(name).advice("name another directory"));
    }
    problems.0.extend(verdict.unmatched.iter().map(|prefix| {
        let problem = Problem::new(Kind::Usage, "no file of the volume begins so").column("--only");
        problem.drive(name).value(prefix.clone()).advice("`dray ls` lists the volume")
    }));
    problems
}

fn report(drives: &[(DriveVerdict, Short)], dir: &Path, exit: Exit, output: &Output) {
    let value = json!({
        "extracted_to": dir.to_string_lossy(),
        "drives": drives.iter().map(|(verdict, short)| drive_json(verdict, short)).collect::<Vec<_>>(),
        "exit_code": exit.code(),
    });
    if output.result("extracted", value) {
        return;
    }
    let mut text = String::new();
    for (verdict, short) in drives {
        text.push_str(&format!("\n{}\n", clean(&verdict.drive.name)));
        text.push_str(&labelled("unlocked by", &clean(&verdict.unlocked)));
        let (files, bytes) = verdict.taken_out;
        let (files, directories) = (count(files, "file"), count(verdict.directories, "directory"));
        let dir = clean(&dir.to_string_lossy());
        text.push_str(&labelled("extracted", &format!("{files} ({}) and {directories} to {dir}", ByteLen(bytes))));
        if verdict.skipped > 0 {
            text.push_str(&labelled("not asked for", &count(verdict.skipped, "file")));
        }
        for row in short.left_out.iter().take(SHOWN_MAX) {
            text.push_str(&labelled("left out", &format!("{}: {}", clean(&row.file), clean(&row.notes.join("; ")))));
        }
        if short.left_out.len() > SHOWN_MAX {
            text.push_str(&labelled("left out", &format!("and {} more", short.left_out.len() - SHOWN_MAX)));
        }
        for warning in &verdict.warnings {
            text.push_str(&labelled("note", &clean(warning)));
        }
    }
    output.chat(&text);
}

fn drive_json(verdict: &DriveVerdict, short: &Short) -> Value {
    let rows = |rows: &[Row]| -> Value {
        rows.iter().map(|row| json!({ "file": row.file, "length": row.length, "notes": row.notes })).collect()
    };
    json!({
        "drive": object::facts(&verdict.drive),
        "unlocked": verdict.unlocked,
        "files": verdict.taken_out.0,
        "bytes": verdict.taken_out.1,
        "directories": verdict.directories,
        "skipped": verdict.skipped,
        "resumed": verdict.resumed,
        "left_out": rows(&short.left_out),
        "failed": rows(&short.failed),
        "changed": short.changed,
        "warnings": verdict.warnings,
        "failure": verdict.failure.as_ref().map(object::problem),
    })
}
