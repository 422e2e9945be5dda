//! `dray session`: the sessions of journals, and the next step of each.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use dray_engine::api;
use dray_engine::api::records::{Book, CopySession, SessionState};
use dray_engine::report::{Kind, Problem, Problems};

use crate::commands::about::quoted;
use crate::commands::listing::{self, Standing};
use crate::exit::Exit;
use crate::job::held;
use crate::render::{Output, clean, count, labelled, text};

/// Arguments of `dray session`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    dray session list                  # every journal of this directory\n  \
    dray session show job.jrn")]
pub struct SessionsArgs {
    #[command(subcommand)]
    action: Action,
}

/// Subcommands of `dray session`.
#[derive(Debug, Subcommand)]
enum Action {
    /// List sessions: state, drives, bytes, and what to do next
    List(List),
    /// Show one session with its drives, records and manifests
    Show(Show),
}

/// Arguments of `dray session list`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  dray session list --unfinished /srv/import job.jrn")]
struct List {
    /// Journals, and directories that hold some [default: this directory]
    #[arg(value_name = "JOURNAL|DIR")]
    paths: Vec<PathBuf>,
    /// Only sessions that must be resumed or rolled back
    #[arg(long)]
    unfinished: bool,
}

/// Arguments of `dray session show`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  dray session show job.jrn --id session#1")]
struct Show {
    /// The journal
    #[arg(value_name = "JOURNAL")]
    journal: PathBuf,
    /// Session id [default: the last session]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
}

impl SessionsArgs {
    /// Runs the subcommand.
    pub fn run(self, output: &Output) -> Exit {
        let mut problems = Problems::default();
        match self.action {
            Action::List(list) => list.run(output, &mut problems),
            Action::Show(show) => show.run(output, &mut problems),
        }
        if problems.0.is_empty() {
            return Exit::Done;
        }
        output.problems(&problems);
        Exit::of_problems(&problems)
    }
}

impl List {
    fn run(mut self, output: &Output, problems: &mut Problems) {
        if self.paths.is_empty() {
            self.paths.push(PathBuf::from("."));
        }
        let mut found = 0;
        for path in &self.paths {
            let journals = if path.is_dir() { held::journals_in(path) } else { vec![path.clone()] };
            for journal in journals {
                let Some(book) = read(&journal, problems) else { continue };
                for session in &book.ledger.sessions {
                    let standing = Standing::of(&journal, &book.ledger, session);
                    if self.unfinished && !standing.is_open {
                        continue;
                    }
                    found += 1;
                    if output.is_json() {
                        output.object("session", listing::session_json(session, &standing));
                    } else {
                        output.say(&line(&journal, session, &standing));
                    }
                }
                problems.0.extend(book.damage);
            }
        }
        if found == 0 && problems.0.is_empty() {
            let what = if self.unfinished { "no unfinished session" } else { "no session" };
            let places: Vec<String> = self.paths.iter().map(|path| path.display().to_string()).collect();
            output.chat(&format!("{what} in {}\n", places.join(", ")));
        }
    }
}

impl Show {
    fn run(self, output: &Output, problems: &mut Problems) {
        let Some(book) = read(&self.journal, problems) else { return };
        let sessions = &book.ledger.sessions;
        // An id may come again after its session was rolled back: the later one counts.
        let found = match &self.id {
            Some(id) => sessions.iter().rev().find(|session| session.id == *id),
            None => sessions.last(),
        };
        match found {
            Some(session) => {
                let standing = Standing::of(&self.journal, &book.ledger, session);
                if !output.result("session", listing::session_json(session, &standing)) {
                    output.say(&page(&self.journal, session, &standing));
                }
            }
            None => {
                let known: Vec<&str> = sessions.iter().map(|session| &*session.id).collect();
                let (what, advice) = match known.as_slice() {
                    [] => ("the journal holds no session", "begin one with `dray prep-import`".to_owned()),
                    known => ("the journal holds no session of this id", format!("it holds: {}", known.join(", "))),
                };
                let problem = Problem::new(Kind::Usage, what).path(&self.journal).advice(advice);
                problems.push(match self.id {
                    Some(id) => problem.column("--id").value(id),
                    None => problem,
                });
            }
        }
        problems.0.extend(book.damage);
    }
}

fn read(journal: &Path, problems: &mut Problems) -> Option<Book> {
    if !journal.exists() {
        let problem = Problem::new(Kind::Usage, "no such journal or directory").path(journal);
        problems.push(problem.advice("check the path, or begin a session with `dray prep-import`"));
        return None;
    }
    api::records::read_journal(journal).map_err(|problem| problems.push(problem)).ok()
}

fn sum(session: &CopySession, standing: &Standing) -> String {
    let done = session.drives.iter().filter(|drive| drive.state == SessionState::Completed).count();
    let mut out = match session.drives.len() {
        all if done == all => count(all as u64, "drive"),
        all => format!("{done} of {} done", count(all as u64, "drive")),
    };
    if let (Some(files), Some(data)) = (standing.files, standing.data) {
        out.push_str(&format!(", {}, {}", count(files, "file"), text::short(data)));
    }
    out
}

/// Two lines for a session, and a third where action is needed.
fn line(journal: &Path, session: &CopySession, standing: &Standing) -> String {
    let mut out = format!("{}  {}  {}\n", session.id, standing.state, clean(&journal.display().to_string()));
    out.push_str(&format!("  {}, last change {} UTC\n", sum(session, standing), session.changed));
    if let Some(next) = &standing.next {
        out.push_str(&format!("  next: {next}\n"));
    }
    out
}

fn page(journal: &Path, session: &CopySession, standing: &Standing) -> String {
    let mut out = format!("Session {}\n", session.id);
    let mut line = |label: &str, value: &str| out.push_str(&labelled(label, value));
    line("state", &standing.state);
    line("begun", &format!("{} UTC", session.begun));
    line("last change", &format!("{} UTC", session.changed));
    line("total", &sum(session, standing));
    line("journal", &clean(&journal.display().to_string()));
    line("next", standing.next.as_deref().unwrap_or("nothing: the session is closed"));
    for drive in &session.drives {
        out.push('\n');
        out.push_str(&listing::drive_text(None, drive));
    }
    out
}

/// A `prep-import` command line for a session.
pub fn command(journal: &Path, id: &str, option: &str) -> String {
    let journal = quoted(&journal.display().to_string());
    format!("dray prep-import --journal {journal} --id {} {option}", quoted(id))
}
