//! `--list-drives` and `--list-copy-sessions`: what a journal knows.

use std::path::Path;

use dray_engine::job::{self, Book, CopySession, SessionDrive, ledger};
use dray_engine::report::{Kind, Problem};
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::render::{Output, count, text};

/// What is listed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Listing {
    /// Every drive, as its last session left it.
    pub drives: bool,
    /// Every session with its drives.
    pub sessions: bool,
}

/// Lists what the journal knows; what is damaged in it is told behind that.
pub fn list(journal: &Path, what: Listing, output: &Output) -> Exit {
    if !journal.exists() {
        let problem = Problem::new(Kind::Usage, "the journal is not there").path(journal);
        return output.problem(problem.advice("check the path, or begin a session"));
    }
    let book = match job::read_journal(journal) {
        Ok(book) => book,
        Err(problem) => return output.problem(problem),
    };
    if what.drives {
        drives(&book, output);
    }
    if what.sessions {
        sessions(&book, output);
    }
    if let Some(at) = book.torn {
        output.warning(&format!(
            "the last record of the journal was cut off while it was written (byte {at}); it does not count, and the next \
             session drops it"
        ));
    }
    if book.damage.is_empty() {
        return Exit::Done;
    }
    let problems = dray_engine::report::Problems(book.damage);
    output.problems(&problems);
    Exit::of_problems(&problems)
}

fn drives(book: &Book, output: &Output) {
    let ids = book.ledger.drive_ids();
    for id in &ids {
        // A drive that was rolled back or given up stands under the session that did so.
        let rolled_back = || {
            let sessions = book.ledger.sessions.iter().rev();
            sessions.into_iter().find_map(|session| Some((session, session.drive(id)?)))
        };
        let Some((session, drive)) = book.ledger.drive(id).or_else(rolled_back) else { continue };
        let drive = book.ledger.whole(id).unwrap_or_else(|| drive.clone());
        if output.is_json() {
            output.object("drive", drive_json(&session.id, &drive));
        } else {
            output.say(&drive_text(Some(&session.id), &drive));
        }
    }
    if ids.is_empty() {
        output.say("the journal knows no drive\n");
    }
}

fn sessions(book: &Book, output: &Output) {
    for session in &book.ledger.sessions {
        if output.is_json() {
            let drives: Vec<Value> = session.drives.iter().map(|drive| drive_json(&session.id, drive)).collect();
            let fields = json!({
                "session": session.id,
                "state": session.state.as_str(),
                "unfinished": session.is_unfinished(),
                "begun": session.begun,
                "changed": session.changed,
                "drives": drives,
            });
            output.object("session", fields);
        } else {
            output.say(&session_text(session));
        }
    }
    if book.ledger.sessions.is_empty() {
        output.say("the journal knows no session\n");
    }
}

fn drive_json(session: &str, drive: &SessionDrive) -> Value {
    json!({
        "drive_id": drive.drive_id,
        "session": session,
        "state": drive.state.as_str(),
        "work": drive.work.as_str(),
        "name": drive.name,
        "size": drive.size,
        "for_shipping": drive.for_shipping,
        "files": drive.files,
        "data": drive.data,
        "manifest_hash": drive.manifest_hash,
        "record": drive.record_file,
        "changed": drive.changed,
    })
}

fn session_text(session: &CopySession) -> String {
    let state = ledger::word(session.state);
    let mut out =
        format!("{}  {state}\n  begun {} UTC, last change {} UTC\n", session.id, session.begun, session.changed);
    for drive in &session.drives {
        for line in drive_text(None, drive).lines() {
            out.push_str(&format!("  {line}\n"));
        }
    }
    out
}

fn drive_text(session: Option<&str>, drive: &SessionDrive) -> String {
    let size = drive.size.map(|size| format!("  {}", text::short(size))).unwrap_or_default();
    let session = session.map(|id| format!("  {id}")).unwrap_or_default();
    let mut out = format!("{}{size}  {}{session}\n", drive.drive_id, ledger::word(drive.state));
    if let Some(name) = &drive.name {
        out.push_str(&format!("  {}\n", text::clean(name)));
    }
    if let (Some(files), Some(data)) = (drive.files, drive.data) {
        out.push_str(&format!("  {}, {}\n", count(files, "file"), text::short(data)));
    }
    if let Some(hash) = &drive.manifest_hash {
        out.push_str(&format!("  manifest {hash}\n"));
    }
    out.push_str(&format!("  record {}\n", drive.record_file));
    out
}
