//! `--abort`: the last session is rolled back.

use dray_engine::api::prepare::{PrepRequest, Rollback, RollbackReport, prepare_rollback};
use dray_engine::report::{Event, Problems};
use serde_json::{Value, json};

use crate::consent::{self, Asked, Consent};
use crate::exit::Exit;
use crate::render::{Output, json as objects, text};

/// Rolls the last session back.
pub fn run(request: PrepRequest, consent: &Consent, dry_run: bool, output: &Output) -> Exit {
    match roll_back(request, consent, dry_run, output) {
        Ok(exit) => exit,
        Err(problems) => {
            output.problems(&problems);
            Exit::of_problems(&problems)
        }
    }
}

fn roll_back(request: PrepRequest, consent: &Consent, dry_run: bool, output: &Output) -> Result<Exit, Problems> {
    let rollback: Rollback = prepare_rollback(request)?;
    let session = rollback.session().to_owned();
    let drives = rollback.drives();
    let finished = rollback.drives_needing_consent();
    announce(&rollback, output);
    consent::known(consent, &drives.iter().collect::<Vec<_>>(), &[])?;
    if dry_run {
        return Ok(Exit::Done);
    }
    let asked: Vec<Asked<'_>> =
        finished.iter().filter_map(|index| Some(Asked::destroyed(*index, drives.get(*index)?))).collect();
    let consented = consent::gather(&asked, consent, &mut consent::Terminal)?;
    let note = |event: Event| {
        if let Event::Note(note) | Event::Warning(note) = event {
            output.warning(&note.to_string());
        }
    };
    let report = rollback.run(&consented, &note)?;
    Ok(tell(&session, &report, output))
}

/// Says what becomes of each drive.
fn announce(rollback: &Rollback, output: &Output) {
    let (session, drives) = (rollback.session(), rollback.drives());
    let finished = rollback.drives_needing_consent();
    let (taken_back, missing) = (rollback.taken_back(), rollback.missing());
    if output.is_json() {
        let list: Vec<Value> = drives.iter().map(objects::facts).collect();
        output.object(
            "rollback-plan",
            json!({
                "session": session,
                "drives": list,
                "finished": finished,
                "taken_back": taken_back,
                "missing": missing,
            }),
        );
        return;
    }
    output.chat(&format!("Session {session} is rolled back; these drives will be:\n"));
    for (i, drive) in drives.iter().enumerate() {
        let word = match (taken_back.contains(&i), finished.contains(&i)) {
            _ if missing.contains(&i) => "left as it is: not attached",
            (true, _) => "as before the session",
            (false, true) => "without a volume; it had finished",
            (false, false) => "without a volume",
        };
        output.chat(&format!("  {}  {}  {word}\n", text::clean(&drive.drive_id), text::clean(&drive.name)));
    }
    if drives.is_empty() {
        output.chat("  none: nothing had been written\n");
    }
}

/// Says what became of each drive.
fn tell(session: &str, report: &RollbackReport, output: &Output) -> Exit {
    let failures: Vec<_> = report.drives.iter().filter_map(|drive| drive.failure.clone()).collect();
    let drives: Vec<Value> = report
        .drives
        .iter()
        .map(|drive| {
            let failure = drive.failure.as_ref().map(objects::problem);
            json!({ "drive": objects::facts(&drive.drive), "failure": failure, "missing": drive.missing })
        })
        .collect();
    output.result("rollback", json!({ "session": session, "drives": drives }));
    if failures.is_empty() {
        let left = report.drives.iter().filter(|drive| drive.missing).map(|drive| text::clean(&drive.drive.name));
        let left: Vec<String> = left.collect();
        let but = if left.is_empty() { String::new() } else { format!(", but for {}", left.join(", ")) };
        output.chat(&format!("Session {session} is rolled back{but}.\n"));
        return Exit::Done;
    }
    let problems = Problems(failures);
    output.problems(&problems);
    output.chat(&format!("Roll back again when that is mended: --id {session} --abort\n"));
    Exit::of_problems(&problems)
}
