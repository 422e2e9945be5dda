//! `dray ingest`: imports drives into a storage account, as the service does it.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use dray_engine::api::account::Delivery;
use dray_engine::api::azure::Digest;
use dray_engine::api::verify::copylog::DriveStatus;
use dray_engine::api::verify::{Journals, Judged, Logs, VerifyRequest, judge};
use dray_engine::report::{Kind, Problem, Problems};
use dray_engine::units::ByteLen;
use dray_service::ingest::{IN_FLIGHT_MAX, Import, Imported, Ingest, LogOptions, Options, Summary};
use serde_json::{Value, json};

use super::verify::{OpenedDrives, at_once, open_all};
use crate::account::AccountArgs;
use crate::args::size;
use crate::exit::Exit;
use crate::key::KeyArgs;
use crate::render::{Output, clean, count, json as object, labelled, wrap};
use crate::signals::{self, Signals};

/// Blobs with errors shown on the terminal.
const SHOWN_MAX: usize = 20;

/// Blobs in the copy logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Those with errors
    #[default]
    Error,
    /// All, in logs of their own
    Verbose,
}

/// Most requests in flight, unless another number is given.
const IN_FLIGHT: u32 = 64;

/// Arguments of `dray ingest`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "The drives are never written to. A drive that the service would refuse is not imported. Run the \
                        same command again after an interruption, an outage or a kill: it resumes, and what arrived \
                        is not sent twice. Exit code 0 only if every blob is in the account, or was to be skipped. 3: \
                        the account did not take some. 5: some differ from the manifest, or are missing on the \
                        drive.\n\n\
                        Examples:\n  \
                        dray ingest /dev/sdb --record 9WM35C2V.xml --endpoint ACCOUNT\n  \
                        dray ingest a.img b.img --record A.xml --record B.xml \\\n      \
                        --endpoint http://127.0.0.1:10000/devstoreaccount1 --account-key-file key\n  \
                        dray ingest /dev/sdb --record 9WM35C2V.xml --endpoint ACCOUNT \\\n      \
                        --log-level verbose --backup-manifest --rate-limit 50MB"
)]
pub struct IngestArgs {
    /// Drives or image files of one job
    #[arg(value_name = "DRIVE", required = true)]
    drives: Vec<PathBuf>,
    /// Drive records, or other files with the keys; else the key is asked for
    #[arg(long, value_name = "FILE")]
    record: Vec<PathBuf>,
    /// Number of the partition; else a bare volume, or the first data partition
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    /// Manifest: a path on the drive that begins with \, or a file
    #[arg(long, value_name = "PATH")]
    manifest: Option<String>,
    /// MD5 of the manifest, as the job has it; else that of the drive record
    #[arg(long, value_name = "HEX", value_parser = digest)]
    manifest_hash: Option<Digest>,
    #[command(flatten)]
    account: AccountArgs,
    #[command(flatten)]
    sending: SendingArgs,
    #[command(flatten)]
    logs: LogArgs,
}

/// Sending of the blobs.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Sending")]
pub struct SendingArgs {
    /// Most requests in flight; they grow from 4 while more of them carry more
    #[arg(long, value_name = "N", default_value_t = IN_FLIGHT)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=IN_FLIGHT_MAX as i64))]
    in_flight: u32,
    /// Bytes a second sent, by all drives together: 50MB, 50MiB
    #[arg(long, value_name = "SIZE", value_parser = size::rate)]
    rate_limit: Option<u64>,
    /// Directory of the state that an interrupted import resumes from [default: that of the record]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Forget what earlier runs have sent
    #[arg(long)]
    anew: bool,
}

/// The copy logs.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Copy logs")]
pub struct LogArgs {
    /// Name of the job, in the names of the logs
    #[arg(long, value_name = "NAME", default_value = "dray", value_parser = job_name)]
    job: String,
    /// Container of the logs [default: waimportexport and databoxcopylog]
    #[arg(long, value_name = "NAME", value_parser = container)]
    log_container: Option<String>,
    /// Blobs in the logs: error (default), verbose
    #[arg(long, value_name = "LEVEL", default_value = "error", hide_possible_values = true)]
    log_level: LogLevel,
    /// Directory for a copy of the logs [default: that of the state]
    #[arg(long, value_name = "DIR")]
    logdir: Option<PathBuf>,
    /// Keep the manifests with the logs
    #[arg(long)]
    backup_manifest: bool,
}

fn digest(text: &str) -> Result<Digest, String> {
    Digest::parse(text).ok_or_else(|| "neither 32 nor 64 hex digits".into())
}

fn job_name(text: &str) -> Result<String, String> {
    let is_good = !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if is_good { Ok(text.to_owned()) } else { Err("use letters, digits and hyphens, 64 at most".into()) }
}

fn container(text: &str) -> Result<String, String> {
    dray_engine::api::azure::check_container(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

impl LogArgs {
    /// The options, with a directory for those who name none.
    pub fn options(&self, dir: &Path) -> LogOptions {
        LogOptions {
            container: self.log_container.clone(),
            dir: self.logdir.clone().unwrap_or_else(|| dir.to_owned()),
            job: self.job.clone(),
            is_verbose: self.log_level == LogLevel::Verbose,
            keeps_manifest: self.backup_manifest,
        }
    }
}

/// Results of all drives.
#[derive(Debug, Default)]
struct IngestOutcome {
    drives: Vec<(String, Summary)>,
    unopened: Vec<(PathBuf, Problem)>,
    account: String,
}

impl IngestArgs {
    /// The import of one drive, with its state and logs in `dir`; every other option has its default.
    pub fn of(drive: PathBuf, record: PathBuf, account: AccountArgs, dir: PathBuf) -> Self {
        Self {
            drives: vec![drive],
            record: vec![record],
            partition: None,
            manifest: None,
            manifest_hash: None,
            account,
            sending: SendingArgs { in_flight: IN_FLIGHT, rate_limit: None, state_dir: Some(dir), anew: false },
            logs: LogArgs {
                job: "demo".into(),
                log_container: None,
                log_level: LogLevel::Error,
                logdir: None,
                backup_manifest: false,
            },
        }
    }

    /// Imports and reports.
    pub fn run(self, output: &Output) -> Exit {
        match self.ingest(output) {
            Ok(exit) => exit,
            Err(problems) => {
                output.problems(&problems);
                Exit::of_problems(&problems)
            }
        }
    }

    /// The directory of state and logs: that of the record, or the present one.
    fn state_dir(&self) -> PathBuf {
        let of_record = || self.record.first()?.parent().filter(|dir| *dir != Path::new("")).map(Path::to_owned);
        self.sending.state_dir.clone().or_else(of_record).unwrap_or_else(|| PathBuf::from("."))
    }

    fn ingest(self, output: &Output) -> Result<Exit, Problems> {
        let signals = Signals::install(signals::INGEST)
            .map_err(|error| Problem::new(Kind::Environment, format!("signals cannot be caught: {error}")))?;
        let mut problems = Problems::default();
        let account = self.account.open(Some(signals.stop.clone())).map_err(|problem| problems.push(problem)).ok();
        let state_dir = self.state_dir();
        let logs = self.logs.options(&state_dir);
        for dir in [&state_dir, &logs.dir] {
            std::fs::create_dir_all(dir).unwrap_or_else(|error| {
                let problem = Problem::new(Kind::Environment, format!("the directory cannot be used: {error}"));
                problems.push(problem.path(dir).advice("name another with --state-dir or --logdir"));
            });
        }
        let keys = KeyArgs { key_file: self.record.clone(), key_fd: None }.read();
        let keys = keys.map_err(|problem| problems.push(problem)).ok();
        if matches!(account, Some(None)) {
            let problem = Problem::new(Kind::Usage, "no account is named that the blobs go to");
            problems.push(problem.advice("--endpoint names it"));
        }
        problems.into_result()?;
        let (Some(Some(account)), Some(keys)) = (account, keys) else { return Ok(Exit::Usage) };

        let OpenedDrives { opened, unopened, .. } = open_all(&self.drives, self.partition, &keys, output);
        let mut outcome = IngestOutcome {
            account: format!("account {} ({})", account.name(), account.signed_by()),
            unopened,
            drives: vec![],
        };
        let options = Options {
            in_flight_max: self.sending.in_flight as usize,
            rate: self.sending.rate_limit,
            anew: self.sending.anew,
            logs,
        };
        let ingest = Ingest::new(account, options);
        let imports: Vec<Import<'_>> = opened.iter().map(|_| ingest.drive(&state_dir)).collect();
        let request = VerifyRequest {
            manifest: self.manifest.clone(),
            manifest_hash: self.manifest_hash,
            ..VerifyRequest::default()
        };
        let (request, logs, journals, stop) = (&request, &Logs::none(), &Journals::none(), &signals.stop);
        let judged = at_once(&opened, "importing", (&signals, output), &|index, one, workers, events| {
            let deliver = |delivery: &Delivery<'_>| imports[index].begin(delivery);
            let deliver = Some(&deliver as &dray_engine::api::account::Deliver<'_>);
            judge::run(one, &judge::Context { index, request, logs, journals, workers, events, stop, deliver })
        })?;
        for (import, judged) in imports.iter().zip(judged) {
            outcome.drives.push(finish(import, judged, output)?);
        }
        report(&outcome, output);
        Ok(outcome.exit())
    }
}

fn finish(import: &Import<'_>, mut judged: Judged<'_>, output: &Output) -> Result<(String, Summary), Problem> {
    for warning in &judged.verdict.warnings {
        output.warning(&format!("{}: {warning}", judged.verdict.drive.name));
    }
    let summary = import.finish(&mut judged, &mut |one| {
        if output.is_json() {
            output.object("imported", as_json(one));
        }
    })?;
    Ok((judged.verdict.drive.name.clone(), summary))
}

pub(super) fn as_json(one: &Imported) -> Value {
    json!({
        "blob": one.blob,
        "renamed": one.renamed,
        "file": one.file,
        "length": one.length,
        "status": one.status.map(|status| status.as_str()),
        "disposition": one.disposition.map(|disposition| disposition.as_str()),
        "earlier": one.earlier,
        "note": one.message,
        "good": one.is_good(),
    })
}

impl IngestOutcome {
    fn problems(&self) -> Problems {
        let unopened = self.unopened.iter().map(|(path, problem)| problem.clone().drive(path.display().to_string()));
        let ended = self.drives.iter().filter_map(|(name, summary)| Some(summary.problem.clone()?.drive(name)));
        Problems(unopened.chain(ended).collect())
    }

    /// Blobs that the account did not take, and those that are at fault on the drive.
    fn failed(&self) -> (u64, u64) {
        let all = self
            .drives
            .iter()
            .fold((0, 0), |(failed, at_fault), (_, summary)| (failed + summary.failed, at_fault + summary.at_fault));
        (all.0 - all.1, all.1)
    }

    fn exit(&self) -> Exit {
        let problems = self.problems();
        if problems.0.iter().any(|problem| problem.kind == Kind::Interrupted) {
            return Exit::Interrupted;
        }
        if !problems.0.is_empty() {
            return Exit::of_problems(&problems);
        }
        match self.failed() {
            (_, 1..) => Exit::Different,
            (1.., _) => Exit::LeftOut,
            _ if self.drives.iter().all(|(_, summary)| summary.is_good()) => Exit::Done,
            _ => Exit::LeftOut,
        }
    }

    fn headline(&self) -> (&'static str, String) {
        let sum = |of: &dyn Fn(&Summary) -> u64| self.drives.iter().map(|(_, summary)| of(summary)).sum::<u64>();
        let (blobs, bytes) = (sum(&|one| one.blobs.0), ByteLen(sum(&|one| one.blobs.1)));
        let there = sum(&|one| one.created + one.renamed + one.overwritten);
        let kept = match sum(&|one| one.skipped) {
            0 => String::new(),
            n => format!("; {} of that name were there before, and are kept", count(n, "blob")),
        };
        match self.exit() {
            Exit::Done => {
                ("IMPORTED", format!("{there} of {} ({bytes}) are in the account{kept}", count(blobs, "blob")))
            }
            Exit::Interrupted => (
                "INTERRUPTED",
                format!("{there} of {} are in the account: the same command resumes", count(blobs, "blob")),
            ),
            _ => {
                let (refused, at_fault) = self.failed();
                let open = sum(&|one| one.open);
                let text = format!(
                    "of {}: {there} are in the account, {at_fault} at fault on the drive, {refused} not taken, {open} not \
                     reached{kept}",
                    count(blobs, "blob")
                );
                ("NOT ALL IMPORTED", text)
            }
        }
    }
}

fn report(outcome: &IngestOutcome, output: &Output) {
    output.remember(&outcome.problems());
    let (word, sentence) = outcome.headline();
    if output.result("ingest", to_json(outcome, word, &sentence)) {
        return;
    }
    let style = output.style();
    let mut text = String::new();
    for (name, summary) in &outcome.drives {
        text.push_str(&format!("\n{}  {}\n", style.bold(&clean(name)), clean(&summary.drive_id)));
        if let Some(status) = summary.status {
            text.push_str(&labelled("drive status", status.as_str()));
        }
        for (label, blobs) in [
            ("created", summary.created),
            ("renamed", summary.renamed),
            ("overwritten", summary.overwritten),
            ("skipped", summary.skipped),
            ("with errors", summary.failed),
            ("not reached", summary.open),
        ] {
            if blobs > 0 {
                text.push_str(&labelled(label, &count(blobs, "blob")));
            }
        }
        if summary.earlier > 0 {
            text.push_str(&labelled("of an earlier run", &count(summary.earlier, "blob")));
        }
        for log in &summary.logs {
            text.push_str(&labelled("copy log", &clean(log)));
        }
        for path in &summary.files {
            text.push_str(&labelled("copy log here", &clean(&path.to_string_lossy())));
        }
    }
    output.chat(&text);
    let mut rows = String::new();
    for (_, summary) in &outcome.drives {
        for one in summary.failures.iter().take(SHOWN_MAX) {
            let status = one.status.map_or("not reached", |status| status.as_str());
            rows.push_str(&format!("{}  {}\n", style.red(status), clean(&one.blob)));
            if let Some(message) = &one.message {
                rows.push_str(&format!("    {}\n", clean(message)));
            }
        }
        if summary.failed > SHOWN_MAX as u64 {
            rows.push_str(&format!("and {} more: the error log has all\n", summary.failed - SHOWN_MAX as u64));
        }
    }
    output.say(&rows);
    output.show(&outcome.problems());
    let shown = if outcome.exit() == Exit::Done { style.green(word) } else { style.red(word) };
    output.say(&wrap(&format!("{shown}: {}\n", clean(&sentence)), ""));
}

fn to_json(outcome: &IngestOutcome, word: &str, sentence: &str) -> Value {
    let drive = |(name, summary): &(String, Summary)| {
        json!({
            "drive": name,
            "drive_id": summary.drive_id,
            "status": summary.status.map(DriveStatus::as_str),
            "blobs": summary.blobs.0,
            "bytes": summary.blobs.1,
            "created": summary.created,
            "renamed": summary.renamed,
            "overwritten": summary.overwritten,
            "skipped": summary.skipped,
            "failed": summary.failed,
            "open": summary.open,
            "earlier": summary.earlier,
            "logs": summary.logs,
            "files": summary.files.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>(),
            "failure": summary.problem.as_ref().map(object::problem),
            "good": summary.is_good(),
        })
    };
    json!({
        "word": word,
        "sentence": sentence,
        "account": outcome.account,
        "drives": outcome.drives.iter().map(drive).collect::<Vec<_>>(),
        "unopened": outcome.unopened.iter().map(|(path, problem)| {
            json!({ "drive": path.to_string_lossy(), "problem": object::problem(problem) })
        }).collect::<Vec<_>>(),
        "good": outcome.exit() == Exit::Done,
        "exit_code": outcome.exit().code(),
    })
}
