//! Output: text for people on stderr and stdout, JSON lines for programs on stdout.

pub mod bench;
mod board;
pub mod json;
mod map;
mod metrics;
#[allow(dead_code, reason = "several commands make pages, each with its part of this")]
pub mod page;
pub mod text;
mod watched;
pub mod words;
mod working;

use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dray_engine::api::host::OutputFile;
use dray_engine::report::{DriveFacts, Event, PlanSummary, Problem, Problems, SessionReport};
use dray_engine::units::ByteLen;
use serde_json::{Value, json};

use crate::args::{Color, OutputArgs};
use crate::exit::Exit;

pub use board::Board;
pub use metrics::Metrics;
pub use text::{clean, count, labelled, wrap};
pub use watched::watched;
pub use working::Working;

/// Columns assumed when the terminal gives no width.
const WIDTH: usize = 80;

/// Emphasis, or none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style(bool);

impl Style {
    /// `text` in bold.
    pub fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    /// `text` as an error.
    pub fn red(self, text: &str) -> String {
        self.with("1;31", text)
    }

    /// `text` as a warning.
    pub fn yellow(self, text: &str) -> String {
        self.with("33", text)
    }

    /// `text` as a success.
    pub fn green(self, text: &str) -> String {
        self.with("32", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Destination of all output.
#[derive(Clone, Debug)]
pub struct Output {
    json: bool,
    quiet: bool,
    verbose: bool,
    /// stdout carries data: messages that would go to stdout go to stderr.
    beside: bool,
    /// stderr is a terminal whose lines can be redrawn.
    live: bool,
    out: Style,
    err: Style,
    on_finish: Option<String>,
    /// Time between two reports of progress that stay on the page, if the operator chose one.
    progress_every: Option<Duration>,
    metrics: Option<Arc<Metrics>>,
    said: Arc<Mutex<Said>>,
}

/// Result and problems of a command, collected for `--on-finish`.
#[derive(Debug, Default)]
struct Said {
    result: Option<Value>,
    problems: Vec<Value>,
}

impl Output {
    /// Output as configured by options and environment.
    pub fn new(args: &OutputArgs) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let style = |terminal: bool| match args.color {
            Color::Always => Style(true),
            Color::Never => Style(false),
            Color::Auto => Style(terminal && !no_color && !dumb),
        };
        let live = std::io::stderr().is_terminal();
        Self {
            json: args.json,
            quiet: args.quiet,
            verbose: args.verbose,
            beside: false,
            live: live && !dumb && !args.json && !args.quiet,
            out: style(std::io::stdout().is_terminal()),
            err: style(live),
            on_finish: args.on_finish.clone(),
            progress_every: args.progress_every.map(Duration::from_secs),
            metrics: None,
            said: Arc::default(),
        }
    }

    /// The same output, which also keeps the metrics of the run in a file.
    ///
    /// # Errors
    /// The file cannot be written, or is one of another kind.
    pub fn with_metrics(self, args: &OutputArgs, command: &str) -> Result<Self, Problem> {
        let Some(path) = &args.metrics_file else { return Ok(self) };
        let metrics = Metrics::begin(path.clone(), command, self.progress_every)?;
        Ok(Self { metrics: Some(Arc::new(metrics)), ..self })
    }

    /// The same output for a command that prints data on stdout: all messages go to stderr.
    pub fn beside_data(&self) -> Self {
        Self { beside: true, out: self.err, ..self.clone() }
    }

    /// Time between two progress lines that stay on the page.
    fn line_interval(&self) -> Duration {
        self.progress_every.unwrap_or(Duration::from_secs(30))
    }

    /// Time between two progress objects of one drive.
    fn object_interval(&self) -> Duration {
        self.progress_every.unwrap_or(Duration::from_secs(1))
    }

    /// Whether only objects are printed.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// The style of stdout.
    pub fn style(&self) -> Style {
        self.out
    }

    /// Text for people on stdout; nothing under `--json`.
    pub fn say(&self, text: &str) {
        if !self.json {
            self.print(text);
        }
    }

    /// Like [`Self::say`], and silent under `--quiet` too.
    pub fn chat(&self, text: &str) {
        if !self.quiet {
            self.say(text);
        }
    }

    /// A warning about how the program was called.
    pub fn warning(&self, warning: &str) {
        if self.json {
            self.object("warning", json!({ "text": warning }));
        } else {
            if self.live {
                // The status line may be there, which is redrawn in place.
                err("\r\x1b[K");
            }
            err(&text::warning(warning, self.err));
        }
    }

    /// The plan as a page.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn plan_page(&self, plan: &PlanSummary, file: OutputFile) -> Result<(), Problem> {
        map::page(plan).save(file)
    }

    /// Something odd that is no problem, with its advice; inside the result under `--json`.
    pub fn note(&self, problem: &Problem) {
        if !self.json {
            err(&text::note(problem, self.err));
        }
    }

    /// One problem; gives the exit code it means.
    pub fn problem(&self, problem: Problem) -> Exit {
        let problems = Problems::from(problem);
        self.problems(&problems);
        Exit::of_problems(&problems)
    }

    /// All problems together, each with its advice.
    pub fn problems(&self, problems: &Problems) {
        self.remember(problems);
        self.show(problems);
    }

    /// Records problems for `--on-finish` that the result already shows to the reader.
    pub fn remember(&self, problems: &Problems) {
        self.said().problems.extend(problems.0.iter().map(json::problem));
    }

    /// Shows problems that are already recorded by [`Self::remember`].
    pub fn show(&self, problems: &Problems) {
        if self.json {
            for problem in &problems.0 {
                self.object("problem", json::problem(problem));
            }
        } else {
            err(&text::problems(problems, self.err));
        }
    }

    /// The plan; short unless it is the result itself.
    pub fn plan(&self, plan: &PlanSummary, is_result: bool) {
        if self.json {
            self.object("plan", json::plan(plan));
        } else if is_result || !self.quiet {
            self.print(&text::plan(plan, self.out, self.verbose || is_result));
        }
    }

    /// The result of a session.
    pub fn summary(&self, session: &str, report: &SessionReport) {
        self.said().problems.extend(json::shortcomings(report));
        if !self.result("summary", json::summary(session, report)) {
            self.print(&text::summary(session, report, self.quiet, self.out));
        }
    }

    /// The result of a command: an object under `--json`, and the input of `--on-finish`. `false` when it remains to be
    /// printed as text.
    pub fn result(&self, kind: &str, value: Value) -> bool {
        let value = dressed(kind, value);
        if self.json {
            self.print(&format!("{value}\n"));
        }
        self.said().result = Some(value);
        self.json
    }

    fn said(&self) -> std::sync::MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a command: runs the `--on-finish` command with the result on its stdin. The exit status of that command is
    /// ignored.
    pub fn finish(&self, command: &str, exit: Exit) {
        if let Some(problem) = self.metrics.as_ref().and_then(|metrics| metrics.end(exit).err()) {
            self.warning(&text::problem(&problem, Style::default()));
        }
        let Some(line) = &self.on_finish else { return };
        let mut said = std::mem::take(&mut *self.said());
        // A non-zero exit code always has a reason in `problems`.
        if exit != Exit::Done && said.problems.is_empty() {
            said.problems.push(json::problem(&Problem::new(exit.kind(), exit.meaning())));
        }
        let value = dressed(
            "finish",
            json!({
                "command": command,
                "exit_code": exit.code(),
                "meaning": exit.meaning(),
                "result": said.result,
                "problems": said.problems,
            }),
        );
        let run = || -> std::io::Result<std::process::ExitStatus> {
            // stdout is for our objects alone.
            let stdout = std::io::stderr().as_fd().try_clone_to_owned()?;
            let mut child = Command::new("/bin/sh").args(["-c", line]).stdin(Stdio::piped()).stdout(stdout).spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                // One that does not read is no failure.
                let _ = stdin.write_all(format!("{value}\n").as_bytes());
            }
            child.wait()
        };
        match run() {
            Ok(status) if status.success() => {}
            Ok(status) => self.warning(&format!("the command of --on-finish ended with {status}")),
            Err(error) => self.warning(&format!("the command of --on-finish could not be run: {error}")),
        }
    }

    /// Progress of the walk over the sources.
    pub fn scan(&self) -> Scan<'_> {
        Scan { output: self, last: Cell::new(None), drawn: Cell::new(false) }
    }

    /// Progress of the drives: facts and bytes to write, in the order of the plan.
    pub fn board(&self, drives: Vec<(DriveFacts, ByteLen)>) -> Board<'_> {
        Board::new(self, drives)
    }

    /// One object on stdout, with its type.
    pub fn object(&self, kind: &str, value: Value) {
        self.print(&format!("{}\n", dressed(kind, value)));
    }

    /// Progress of something that takes a while.
    pub fn working(&self) -> Working<'_> {
        Working::new(self)
    }

    fn print(&self, text: &str) {
        if self.beside { err(text) } else { out(text) }
    }
}

/// The object with the fields that every object has.
fn dressed(kind: &str, mut value: Value) -> Value {
    if let Some(fields) = value.as_object_mut() {
        fields.insert("type".into(), kind.into());
        fields.insert("schema".into(), json::SCHEMA.into());
        fields.insert("at".into(), json::now().into());
    }
    value
}

/// The walk over the sources, while it lasts.
#[derive(Debug)]
pub struct Scan<'a> {
    output: &'a Output,
    last: Cell<Option<Instant>>,
    drawn: Cell<bool>,
}

impl Scan<'_> {
    /// Something happened before the plan was ready.
    pub fn event(&self, event: &Event) {
        let output = self.output;
        match event {
            Event::Scanning { files, bytes } => {
                let pause = if output.live { Duration::from_millis(200) } else { output.line_interval() };
                let first_live = output.live && self.last.get().is_none();
                if !first_live && self.last.get().get_or_insert_with(Instant::now).elapsed() < pause {
                    if self.last.get().is_none() {
                        self.last.set(Some(Instant::now()));
                    }
                    return;
                }
                self.last.set(Some(Instant::now()));
                if output.json {
                    output.object("scanning", json!({ "files": files, "bytes": bytes.0 }));
                } else if output.live {
                    err(&format!("\r\x1b[Kreading the sources: {}, {bytes}", count(*files, "file")));
                    self.drawn.set(true);
                } else if !output.quiet {
                    err(&format!("dray: reading the sources: {}, {bytes}\n", count(*files, "file")));
                }
            }
            Event::Note(note) => {
                if output.json {
                    output.object("note", json::notice(note));
                } else if output.verbose {
                    self.end();
                    err(&format!("dray: {}\n", text::clean(&note.to_string())));
                }
            }
            Event::Warning(text) => {
                self.end();
                output.warning(&text::clean(&text.to_string()));
            }
            // Drives are not written at this stage: no other event can occur.
            _ => {}
        }
    }

    /// Clears the line.
    pub fn end(&self) {
        if self.drawn.replace(false) {
            err("\r\x1b[K");
        }
    }
}

/// Columns of the terminal on stderr.
fn columns() -> usize {
    let size = terminal_size::terminal_size_of(std::io::stderr());
    size.map_or(WIDTH, |(width, _)| usize::from(width.0).max(20))
}

/// Prints to stdout. A reader that has closed the pipe (`| head`) must not stop a drive from being finished.
fn out(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Prints to stderr; errors are ignored likewise.
fn err(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
