//! `--list-drives` and `--list-copy-sessions`: the contents of a journal.

use std::path::Path;

use dray_engine::api;
use dray_engine::api::records::{Book, CopySession, Ledger, SessionDrive, SessionState, ledger};
use dray_engine::report::{Kind, Problem};
use serde_json::{Value, json};

use crate::commands::about::quoted;
use crate::commands::session::command;
use crate::exit::Exit;
use crate::render::{Output, count, text};

/// Parts to list.
#[derive(Clone, Copy, Debug, Default)]
pub struct Listing {
    /// Every drive, as its last session left it.
    pub drives: bool,
    /// Every session with its drives.
    pub sessions: bool,
}

/// Lists the journal's entries; damage in it is reported after them.
pub fn list(journal: &Path, what: Listing, output: &Output) -> Exit {
    if !journal.exists() {
        let problem = Problem::new(Kind::Usage, "the journal does not exist").path(journal);
        return output.problem(problem.advice("check the path, or begin a session"));
    }
    let book = match api::records::read_journal(journal) {
        Ok(book) => book,
        Err(problem) => return output.problem(problem),
    };
    if what.drives {
        drives(&book, output);
    }
    if what.sessions {
        sessions(journal, &book, output);
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
        // A drive that was rolled back or given up is listed under the session that did so.
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

fn sessions(journal: &Path, book: &Book, output: &Output) {
    for session in &book.ledger.sessions {
        if output.is_json() {
            output.object("session", session_json(session, &Standing::of(journal, &book.ledger, session)));
        } else {
            output.say(&session_text(session));
        }
    }
    if book.ledger.sessions.is_empty() {
        output.say("the journal knows no session\n");
    }
}

/// State of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The state in words.
    pub state: String,
    /// It must be resumed or rolled back before another can begin.
    pub is_open: bool,
    /// The process that works on it; 0 for one of another namespace.
    pub process: Option<u32>,
    /// Files of the session on all its drives; `None` when a drive's record lacks them.
    pub files: Option<u64>,
    /// Bytes of those files.
    pub data: Option<u64>,
    /// The next step; `None` when the session is closed and a later one follows.
    pub next: Option<String>,
    /// Path of the journal, quoted for a shell.
    journal: String,
}

impl Standing {
    /// From the journal and from the lock on it.
    pub fn of(journal: &Path, ledger: &Ledger, session: &CopySession) -> Self {
        let is_last = ledger.last().is_some_and(|last| std::ptr::eq(last, session));
        let is_open = is_last && session.is_unfinished();
        let process = if is_open { api::records::journal_holder(journal) } else { None };
        let next = match (session.state, process) {
            _ if !is_last => None,
            (SessionState::Started | SessionState::Interrupted, None) if is_export(session) => {
                let (journal, id) = (quoted(&journal.display().to_string()), quoted(&session.id));
                Some(format!(
                    "dray export --journal {journal} --id {id} --resume --endpoint URL (--abort rolls it back)"
                ))
            }
            // Its drives are for no import job.
            (SessionState::Completed, None) if is_export(session) => None,
            (_, Some(_)) => Some("wait until it ends, or stop it at a checkpoint with Ctrl-C or SIGTERM".into()),
            (SessionState::Aborting, None) => Some(command(journal, &session.id, "--abort")),
            (SessionState::Started | SessionState::Interrupted, None) => {
                Some(format!("{} (--abort rolls it back)", command(journal, &session.id, "--resume")))
            }
            (SessionState::Completed, None) if !ledger.finished_drives().is_empty() => {
                let journal = quoted(&journal.display().to_string());
                Some(format!("dray job create --job job.toml --journal {journal}"))
            }
            _ => None,
        };
        let held = |drive: &&SessionDrive| !matches!(drive.state, SessionState::Aborted | SessionState::GivenUp);
        let sum = |of: fn(&SessionDrive) -> Option<u64>| {
            session.drives.iter().filter(held).try_fold(0_u64, |sum, drive| sum.checked_add(of(drive)?))
        };
        Self {
            state: match process {
                Some(0) => "under way in a process of another container".into(),
                Some(process) => format!("under way in process {process}"),
                None => ledger::word(session.state).to_owned(),
            },
            is_open,
            process,
            files: sum(|drive| drive.files),
            data: sum(|drive| drive.data),
            next,
            journal: journal.display().to_string(),
        }
    }
}

/// Whether a session fills drives from a storage account, by the name of their manifests.
fn is_export(session: &CopySession) -> bool {
    let names = session.drives.iter().filter_map(|drive| drive.manifest_file.as_deref());
    names.into_iter().any(|name| name.to_ascii_lowercase().ends_with(".manifest"))
}

/// A session as one object.
pub fn session_json(session: &CopySession, standing: &Standing) -> Value {
    let drives: Vec<Value> = session.drives.iter().map(|drive| drive_json(&session.id, drive)).collect();
    json!({
        "session": session.id,
        "journal": standing.journal,
        "state": session.state.as_str(),
        "unfinished": session.is_unfinished(),
        "process": standing.process,
        "begun": session.begun,
        "changed": session.changed,
        "files": standing.files,
        "data": standing.data,
        "next": standing.next,
        "drives": drives,
    })
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

/// A drive in a few lines, under its session's id where that is given.
pub fn drive_text(session: Option<&str>, drive: &SessionDrive) -> String {
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
