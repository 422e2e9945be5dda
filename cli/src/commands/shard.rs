//! `dray shard`: run, watch and gather the shards of a plan (`dray plan --shards`, `dray export --shards`).

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::{ArgGroup, Args, Subcommand};
use dray_engine::api;
use dray_engine::api::host::Outputs;
use dray_engine::api::prepare::shards::{self, Durable};
use dray_engine::api::prepare::{Action as Act, PrepRequest, Prepared};
use dray_engine::report::{DriveFacts, Kind, Problem, Problems, SessionReport};
use dray_engine::units::ByteLen;
use serde_json::{Value, json};

use crate::account::AccountArgs;
use crate::args::OutputArgs;
use crate::commands::about;
use crate::commands::prep::{self, Ended, WritingArgs};
use crate::consent::Consent;
use crate::exit::Exit;
use crate::render::page::{self, Column, Page, Tone};
use crate::render::{Output, clean, count, text};
use crate::shard::export::{self, Filling, Gathering};
use crate::shard::hosts::Hosts;
use crate::shard::lock::Lock;
use crate::shard::taken::Taken;
use crate::shard::task::{self, Known, ShardWork, Task, Verb};
use crate::shard::{self, Index, ShardEntry, ShardOutcome, ShardState, lock};

const EXAMPLES: &str = "Examples:
  dray plan --journal job.jrn --id session#1 --dataset dataset.csv \\
      --initial-driveset driveset.csv --shards /srv/shards
  dray shard run /srv/shards --here
  dray shard status /srv/shards
  dray shard merge /srv/shards --journal job.jrn";

/// Arguments of `dray shard`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct ShardArgs {
    #[command(subcommand)]
    action: Action,
}

/// Subcommands of `dray shard`.
#[derive(Debug, Subcommand)]
enum Action {
    /// Make shards that run a command on each drive: verify, rehearse, …
    Make(Make),
    /// Prepare the drive of a shard, or resume it; or run its command
    Run(Box<Run>),
    /// Show the state of every shard
    Status(Status),
    /// Gather the finished drives: one journal, all drive records
    Merge(Merge),
}

/// Arguments of `dray shard run`.
#[derive(Args, Debug)]
#[command(
    after_help = EXAMPLES,
    after_long_help = format!("{EXAMPLES}\n\n{}", Exit::help()),
    group(ArgGroup::new("which").args(["index", "drive", "here"]).required(true))
)]
struct Run {
    /// Directory that `dray plan --shards`, `dray export --shards` or `dray shard make` filled
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Number of the shard, from 0
    #[arg(long, value_name = "N")]
    index: Option<u64>,
    /// Shard of the drive with this serial
    #[arg(long, value_name = "SERIAL")]
    drive: Option<String>,
    /// Every shard whose drive is on this host, one after the other
    #[arg(long)]
    here: bool,
    /// Take a shard that another host holds: that host must be gone for good
    #[arg(long)]
    take_over: bool,
    /// Drives that a shard of a size class may take [default: every attached disk]
    #[arg(long, value_name = "DRIVE", num_args = 1.., value_delimiter = ',')]
    among: Vec<String>,
    /// Keep drive records (they hold the keys) and journals in this directory of the host, not with the shards
    #[arg(long, value_name = "DIR")]
    records_stay: Option<PathBuf>,
    /// Ask nothing: consent must come by --yes, or by SilentMode in the driveset
    #[arg(long)]
    silent: bool,
    /// Full serial of a drive whose contents may be destroyed
    #[arg(long, value_name = "SERIAL", num_args = 1.., value_delimiter = ',')]
    yes: Vec<String>,
    /// Accept drives that the service would not (images, virtual)
    #[arg(long)]
    not_for_shipping: bool,
    /// Requests to the account at once, by the shards of an export
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=256))]
    requests: u32,
    #[command(flatten)]
    writing: WritingArgs,
    #[command(flatten)]
    account: AccountArgs,
}

const MAKE_EXAMPLES: &str = "Examples:
  dray shard make verify /srv/back --journal job.jrn \\
      -- --report /srv/www/{id}.html
  dray shard make ingest /srv/send --record A.xml --record B.xml \\
      -- --endpoint ACCOUNT --account-key-file /etc/dray/key
  dray shard make acquire /srv/keep --journal job.jrn -- --to /images/{id}.img
  dray shard run /srv/back --here";

/// Arguments of `dray shard make`.
#[derive(Args, Debug)]
#[command(
    override_usage = "dray shard make <WORK> <DIR> --journal <FILE>|--record <FILE> \\\n         [-- ARGUMENTS OF THE COMMAND]",
    after_help = MAKE_EXAMPLES,
    group(ArgGroup::new("drives").args(["journal", "record"]).required(true).multiple(true))
)]
struct Make {
    /// Command to run on each drive
    #[arg(value_name = "WORK")]
    work: Verb,
    /// New directory for the shards
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Every finished drive of this journal, with the records next to it
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// The drive of this drive record, by its serial
    #[arg(long, value_name = "FILE")]
    record: Vec<PathBuf>,
    /// Hosts of the drives
    #[arg(long, value_name = "TOML")]
    hosts: Option<PathBuf>,
    /// Further arguments of the command: {id} stands for the drive's id, {record} for its drive record
    #[arg(last = true, value_name = "ARGUMENTS")]
    args: Vec<String>,
}

/// Arguments of `dray shard status`.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: 0 all drives are done; 3 done, with files left out; 4 a drive failed;\n6 work is left\n\nExamples:\n  dray shard status /srv/shards\n  dray shard status /srv/shards --report /srv/www/drives.html"
)]
struct Status {
    /// Directory that `dray plan --shards` or `dray shard make` filled
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Write one HTML page for all drives
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Arguments of `dray shard merge`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  dray shard merge /srv/shards --journal job.jrn")]
struct Merge {
    /// Directory that `dray plan --shards` filled
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Journal that gets every drive; made if it does not exist
    #[arg(long, value_name = "FILE")]
    journal: PathBuf,
    /// Directory of this host that `shard run --records-stay` named
    #[arg(long, value_name = "DIR")]
    records_stay: Option<PathBuf>,
}

impl ShardArgs {
    /// Runs the subcommand.
    pub fn run(self, output: &Output) -> Exit {
        match self.action {
            Action::Make(make) => make.run(output),
            Action::Run(run) => run.run(output),
            Action::Status(status) => status.run(output),
            Action::Merge(merge) => merge.run(output),
        }
    }
}

/// Plans a session and splits it by drive; nothing else is written.
pub fn split(request: &PrepRequest, dir: &Path, hosts: Option<&Path>, output: &Output) -> Exit {
    let hosts = match hosts.map(Hosts::read).transpose() {
        Ok(hosts) => hosts.unwrap_or_default(),
        Err(problems) => {
            output.problems(&problems);
            return Exit::of_problems(&problems);
        }
    };
    let request = PrepRequest { absent: hosts.absent.clone(), ..request.clone() };
    let session = request.session.clone();
    let mut written = None;
    let consent = Consent { silent: true, serials: Vec::new() };
    let step = |prepared: &Prepared| {
        if !prepared.summary().unplaced.is_empty() {
            // Refused behind this step, with what does not fit.
            return Ok(());
        }
        shard::new_dir(dir)?;
        let shards = shards::split(prepared, dir)?;
        let index = Index::new(dir, &session, &shards, None, |id| hosts.of.get(id).cloned());
        index.write()?;
        written = Some(index);
        Ok(())
    };
    let ended = prep::session_of(request, &consent, true, output, api::prepare::prepare, step);
    if let (Exit::Done, Some(index)) = (ended.exit, &written) {
        warn_of_hosts(index, &hosts, output);
        report_split(index, output);
    }
    ended.exit
}

/// Warns of drives in the list of hosts that the plan does not have.
pub fn warn_of_hosts(index: &Index, hosts: &Hosts, output: &Output) {
    let unknown = hosts.of.keys().filter(|serial| !index.shards.iter().any(|entry| entry.is_called(serial)));
    for serial in unknown {
        output.warning(&format!("the list of hosts names drive {}, which is not in the plan", clean(serial)));
    }
}

impl Run {
    fn run(self, output: &Output) -> Exit {
        let index = match Index::read(&self.dir) {
            Ok(index) => index,
            Err(problem) => return output.problem(problem),
        };
        let chosen = match self.chosen(&index) {
            Ok(chosen) => chosen,
            Err(problem) => return output.problem(problem.path(&self.dir)),
        };
        let filling = index.export.as_ref();
        let filling = filling.map(|facts| Filling::open(facts, &self.account, self.requests as usize)).transpose();
        let filling = match filling {
            Ok(filling) => filling,
            Err(problem) => return output.problem(problem),
        };
        let mut worst = Exit::Done;
        for (ran, entry) in chosen.into_iter().enumerate() {
            let exit = match index.work {
                ShardWork::Prepare | ShardWork::Export => self.one(&index, entry, filling.as_ref(), output),
                ShardWork::Command(_) => self.task(&index, entry, output),
            };
            if exit == Exit::Interrupted {
                return exit;
            }
            // Without a drive for this one there is none for those behind it either.
            if self.here && entry.is_open() && !Taken::all(&index.dir).iter().any(|one| one.number == entry.number) {
                return if ran == 0 { exit } else { worst };
            }
            // Files left out are better than a drive that failed.
            let rank = |exit: Exit| match exit {
                Exit::Done => 0,
                Exit::LeftOut => 1,
                _ => 2,
            };
            if rank(exit) > rank(worst) {
                worst = exit;
            }
        }
        worst
    }

    /// The shards that are meant: at least one.
    fn chosen<'a>(&self, index: &'a Index) -> Result<Vec<&'a ShardEntry>, Problem> {
        let chosen: Vec<&ShardEntry> = match (self.index, &self.drive) {
            (Some(number), _) => index.shards.iter().filter(|entry| entry.number == number).collect(),
            (_, Some(word)) => index.shards.iter().filter(|entry| entry.is_called(word)).collect(),
            _ => index.shards.iter().filter(|entry| entry.is_here() || index.is_moved_here(entry)).collect(),
        };
        if !chosen.is_empty() {
            return Ok(chosen);
        }
        Err(match (self.index, &self.drive) {
            (Some(number), _) => {
                let last = index.shards.len().saturating_sub(1);
                Problem::new(Kind::Usage, "the plan has no shard of this number")
                    .column("--index")
                    .value(number.to_string())
                    .advice(format!("its shards are 0 to {last}"))
            }
            (_, Some(word)) => Problem::new(Kind::Usage, "the plan has no shard for this drive")
                .column("--drive")
                .value(word.clone())
                .advice("`dray shard status DIR` lists them"),
            _ => Problem::new(Kind::Usage, "no drive of the plan is on this host")
                .column("--here")
                .value(lock::host_name())
                .advice("attach one, or name the shard with --index or --drive"),
        })
    }

    /// Takes the shard, unless it is done.
    fn begin(&self, index: &Index, entry: &ShardEntry, output: &Output) -> Result<Lock, Exit> {
        let lock =
            index.lock(entry, self.take_over).map_err(|problem| output.problem(problem.drive(entry.called())))?;
        // A result that stays would hide how this run ends.
        if let Some(outcome) = index.result(entry)
            && outcome.is_finished
        {
            let done = SessionReport { journal: outcome.journal, ..SessionReport::default() };
            if !output.result("summary", crate::render::json::summary(&index.session, &done)) {
                output.chat(&format!("Drive {} is done: nothing left to do.\n", clean(entry.called())));
            }
            return Err(Exit::Done);
        }
        let _ = fs::remove_file(index.result_path(entry));
        Ok(lock)
    }

    /// Leaves the last word of a run.
    fn end(&self, index: &Index, entry: &ShardEntry, exit: Exit, outcome: &ShardOutcome, output: &Output) -> Exit {
        let exit = match index.write_result(entry, outcome) {
            Ok(()) => exit,
            Err(problems) => {
                output.problems(&problems);
                if exit == Exit::Done { Exit::of_problems(&problems) } else { exit }
            }
        };
        if !outcome.is_finished {
            let dir = about::quoted(&index.dir.display().to_string());
            output.chat(&format!("To run this shard again:\n  dray shard run {dir} --index {}\n", entry.number));
        }
        exit
    }

    /// One shard that runs a command, from the lock to its last word.
    fn task(&self, index: &Index, entry: &ShardEntry, output: &Output) -> Exit {
        let lock = match self.begin(index, entry, output) {
            Ok(lock) => lock,
            Err(exit) => return exit,
        };
        let command = Task::read(&index.dir.join(&entry.file), &entry.digest).map_err(Problems::from);
        let exit = match command.and_then(|task| task.command()) {
            Ok(command) => command.run(output, &OutputArgs::default()),
            Err(problems) => {
                output.problems(&problems);
                Exit::of_problems(&problems)
            }
        };
        let outcome = ShardOutcome {
            is_finished: matches!(exit, Exit::Done | Exit::LeftOut),
            ..ShardOutcome::of(exit, PathBuf::new())
        };
        let exit = self.end(index, entry, exit, &outcome, output);
        drop(lock);
        exit
    }

    /// One shard that prepares a drive, or fills it from an account, from the lock to its last word.
    fn one(&self, index: &Index, entry: &ShardEntry, filling: Option<&Filling>, output: &Output) -> Exit {
        let lock = match self.begin(index, entry, output) {
            Ok(lock) => lock,
            Err(exit) => return exit,
        };
        let journal = index.journal_here(entry, self.records_stay.as_deref());
        let dir = journal.parent().map(Path::to_path_buf).unwrap_or_default();
        if let Err(error) = fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir) {
            let what = format!("the directory of the shard cannot be made: {error}");
            return output.problem(Problem::new(Kind::Environment, what).path(dir));
        }
        let request = self.request(&index.session, &journal);
        let mut entry = entry.clone();
        let ended = if api::prepare::is_complete(&PrepRequest { action: Act::Resume, ..request.clone() }) {
            // Killed between its last record and its result.
            Ended::before(match export::left_out(&journal, &index.session, &entry.drive_id) {
                Ok(blobs) if blobs.is_empty() => Exit::Done,
                Ok(_) => Exit::LeftOut,
                Err(problem) => output.problem(problem),
            })
        } else {
            self.prepare(index, &mut entry, request, filling, output)
        };
        let outcome = outcome(index, &entry, &ended, &journal);
        if let Some(filling) = filling.filter(|_| outcome.is_finished) {
            filling.forget_snapshots(index, &entry, output);
        }
        // A shard that found no drive still waits for one.
        let exit = match entry.is_open() {
            true => ended.exit,
            false => self.end(index, &entry, ended.exit, &outcome, output),
        };
        drop(lock);
        exit
    }

    /// Prepares the drive of the shard: the one of the plan, the one that it has taken, or one that it takes now.
    fn prepare(
        &self,
        index: &Index,
        entry: &mut ShardEntry,
        request: PrepRequest,
        filling: Option<&Filling>,
        output: &Output,
    ) -> Ended {
        let file = index.dir.join(&entry.file);
        let journal = request.journal.clone();
        if let Err(problems) = drive_here(index, entry, &journal) {
            output.problems(&problems);
            return Ended::before(Exit::of_problems(&problems));
        }
        // Consent for other drives of the plan is none of this one's.
        let is_others = |serial: &&String| {
            let mut others = index.shards.iter().filter(|other| other.number != entry.number);
            others.any(|other| other.is_called(serial))
        };
        let serials: Vec<String> = self.yes.iter().filter(|serial| !is_others(serial)).cloned().collect();
        let consent = Consent { silent: self.silent, serials };
        let mut taken = (entry.is_any && !entry.is_open()).then(|| entry.name.clone());
        let candidates = match &taken {
            Some(name) => vec![name.clone()],
            None if !entry.is_any => Vec::new(),
            None if self.among.is_empty() => shards::attached(),
            None => self.among.clone(),
        };
        let mut found = None;
        let mut take = |drive: &DriveFacts| {
            let one = Taken::new(entry.number, drive, &journal);
            let is_own = one.take(&index.dir).map_err(|error| {
                let what = format!("the drive cannot be taken for the shard: {error}");
                Problem::new(Kind::Environment, what).drive(&drive.name).path(&index.dir)
            })?;
            found = is_own.then_some(one);
            Ok(is_own)
        };
        let is_taken = |drive: &DriveFacts| {
            let mut all = Taken::all(&index.dir).into_iter();
            all.any(|one| one.number != entry.number && one.drive_id == drive.drive_id)
        };
        let mut choice =
            shards::Choice { candidates, consented: &consent.serials, is_taken: &is_taken, take: &mut take };
        let prepare = |request: PrepRequest, on_event: &mut dyn FnMut(_)| {
            shards::prepare(request, &file, &entry.digest, &mut choice, on_event)
        };
        let ended = match filling {
            Some(filling) => filling.session(request, &consent, output, prepare),
            None => prep::session_of(request, &consent, false, output, prepare, |_| Ok(())),
        };
        if let Some(one) = found {
            *entry = entry.with(&one);
            taken = Some(one.name.clone());
        }
        // What was not begun holds no drive.
        if entry.is_any && taken.is_some() && !shard::is_begun(&journal) {
            if let Some(own) = Taken::of(&index.dir, entry.number) {
                own.give_back(&index.dir);
            }
            let class = index.shards.iter().find(|one| one.number == entry.number);
            *entry =
                class.map_or_else(|| entry.clone(), |class| ShardEntry { drive_id: String::new(), ..class.clone() });
        }
        ended
    }

    fn request(&self, session: &str, journal: &Path) -> PrepRequest {
        let not_for_shipping = self.not_for_shipping;
        let request = PrepRequest { about: about::lines(), not_for_shipping, ..PrepRequest::new(journal, session) };
        self.writing.apply(request)
    }
}

/// Makes sure that the drive that a shard was begun on, or that it has taken, is attached to this host with all that it takes
/// to go on; it is this host's then.
///
/// # Errors
/// The drive, or what is known of it, is on another host.
fn drive_here(index: &Index, entry: &ShardEntry, journal: &Path) -> Result<(), Problems> {
    let (is_begun, taken) = (shard::is_begun(journal), Taken::of(&index.dir, entry.number));
    let is_elsewhere = |taken: &Taken| taken.host != lock::host_name();
    let refused = |what: String, advice: String| {
        let problem = Problem::new(Kind::Refused, what).drive(entry.called());
        let host = taken.as_ref().map(|taken| &taken.host).or(entry.host.as_ref());
        let problem = match host {
            Some(host) => problem.value(format!("{} on {host}", entry.name)),
            None => problem.value(entry.name.clone()),
        };
        Err(Problems::from(problem.advice(advice)))
    };
    let is_held = is_begun || taken.as_ref().is_some_and(is_elsewhere);
    if is_held && !entry.is_attached() {
        let what = match &taken {
            Some(taken) if is_elsewhere(taken) => {
                "the shard has taken its drive on another host, and it is not attached here"
            }
            _ => "the drive that the shard was begun on is not attached to this host",
        };
        return refused(what.into(), "run the shard on the host that has the drive, or attach it here".into());
    }
    let Some(taken) = taken.as_ref().filter(|taken| is_elsewhere(taken)) else { return Ok(()) };
    // Nothing was begun, if the records were to lie here and do not: otherwise they lie on that host, with the key.
    let shared = index.journal(entry, None);
    let is_shared =
        taken.journal.as_deref().is_some_and(|place| std::path::absolute(&shared).is_ok_and(|own| own == place));
    if !is_begun && !is_shared {
        let place = taken.journal.as_deref().and_then(Path::parent).map(|dir| clean(&dir.display().to_string()));
        let what = "the drive is attached here, and the records of the shard, without which it cannot resume, are on another host";
        return refused(
            what.into(),
            match place {
                Some(place) => {
                    format!("run the shard there, or bring its records from {place} into --records-stay of this host")
                }
                None => "run the shard there".into(),
            },
        );
    }
    taken.move_here(&index.dir, journal)
}

/// The last word of a run.
fn outcome(index: &Index, entry: &ShardEntry, ended: &Ended, journal: &Path) -> ShardOutcome {
    let (exit, report) = (ended.exit, ended.report.as_ref());
    let journal = fs::canonicalize(journal).unwrap_or_else(|_| journal.to_path_buf());
    let drive = report.and_then(|report| report.drives.first());
    let known = api::records::read_journal(&journal).ok();
    let known = known.as_ref().and_then(|book| book.ledger.whole(&entry.drive_id));
    let known = known.filter(|drive| drive.state == api::records::SessionState::Completed);
    let manifest_hash = known.and_then(|drive| drive.manifest_hash);
    ShardOutcome {
        is_finished: matches!(exit, Exit::Done | Exit::LeftOut) && manifest_hash.is_some(),
        manifest_hash,
        left_out: match drive {
            Some(drive) => drive.left_out.len() as u64,
            // A list that is damaged was reported, and the exit code is not that of success.
            None => export::left_out(&journal, &index.session, &entry.drive_id).map_or(0, |blobs| blobs.len() as u64),
        },
        written: drive.map_or(0, |drive| drive.written.0),
        ..ShardOutcome::of(exit, journal)
    }
}

fn line_json(entry: &ShardEntry, state: &ShardState, durable: Option<Durable>) -> Value {
    let (mut host, mut since, mut exit_code, mut left_out) = (entry.host.clone(), None, None, 0);
    match state {
        ShardState::Running(holder) | ShardState::BrokenOff(holder) => {
            host = Some(holder.host.clone());
            since = Some(holder.since.clone());
        }
        ShardState::Ended(outcome) => {
            host = Some(outcome.host.clone());
            since = Some(outcome.ended.clone());
            exit_code = Some(outcome.exit_code);
            left_out = outcome.left_out;
        }
        ShardState::Waiting => {}
    }
    json!({
        "index": entry.number, "drive_id": (!entry.is_open()).then_some(&entry.drive_id), "name": entry.name, "host": host, "state": state.word(),
        "since": since, "exit_code": exit_code, "files": entry.files, "data": entry.data, "size": entry.size,
        "left_out": left_out, "durable": durable.map(|durable| durable.end.0),
        "checkpoint": durable.map(|durable| utc(durable.at)),
    })
}

/// A time as all objects and pages give it, in whole seconds.
fn utc(at: SystemTime) -> Option<String> {
    jiff::Timestamp::try_from(at).ok().map(|at| format!("{at:.0}"))
}

/// A sentence on a shard's state.
fn detail(state: &ShardState, durable: Option<Durable>) -> String {
    let mut text = sentence(state);
    if let Some(durable) = durable {
        let at = utc(durable.at).unwrap_or_default();
        text.push_str(&format!("; durable up to {} at {at}", ByteLen(durable.end.0)));
    }
    text
}

fn sentence(state: &ShardState) -> String {
    match state {
        ShardState::Waiting => String::new(),
        ShardState::Running(holder) => format!("on {} since {}", holder.host, holder.since),
        ShardState::BrokenOff(holder) => {
            format!("on {}, begun {}: run it again, it resumes", holder.host, holder.since)
        }
        ShardState::Ended(outcome) => match (outcome.is_finished, outcome.left_out) {
            (true, 0) => format!("on {}, {}", outcome.host, outcome.ended),
            (true, n) => format!("on {}, {}; {} left out", outcome.host, outcome.ended, count(n, "file")),
            (false, _) => {
                format!("on {}, {}: exit code {} ({})", outcome.host, outcome.ended, outcome.exit_code, outcome.meaning)
            }
        },
    }
}

/// A shard as its files show it at one moment.
#[derive(Debug)]
struct Seen<'a> {
    entry: &'a ShardEntry,
    state: ShardState,
    /// The last checkpoint of a drive that is not finished.
    durable: Option<Durable>,
}

impl<'a> Seen<'a> {
    fn of(index: &Index, entry: &'a ShardEntry) -> Self {
        let state = index.state(entry);
        let is_over = matches!(&state, ShardState::Ended(outcome) if outcome.is_finished);
        let journal = match &state {
            ShardState::Ended(outcome) => outcome.journal.clone(),
            _ => index.journal(entry, None),
        };
        let durable = if is_over { None } else { shards::durable(&index.session, &journal, &entry.drive_id) };
        Self { entry, state, durable }
    }

    fn left_out(&self) -> u64 {
        if let ShardState::Ended(outcome) = &self.state { outcome.left_out } else { 0 }
    }
}

/// One page for all drives: those that need a person first.
fn status_page(index: &Index, states: &[Seen<'_>]) -> Page {
    let of = |word: &str| states.iter().filter(|seen| seen.state.word() == word).count();
    let lead = format!("{}, plan {}, {}", index.title(), &index.plan_hex()[..16], index.dir.display());
    let mut page = Page::new("Drives of a plan", &lead);
    let broken = of("failed") + of("broken off");
    let sentence = format!("{} of {} done.", of("done"), count(states.len() as u64, "drive"));
    match (broken, of("done") == states.len()) {
        (0, true) => page.verdict(Tone::Good, "Done", &sentence),
        (0, false) => page.verdict(Tone::Plain, "Under way", &sentence),
        (n, _) => {
            let needs = if n == 1 { "needs" } else { "need" };
            page.verdict(Tone::Bad, &format!("{} {needs} attention", count(n as u64, "drive")), &sentence);
        }
    }
    let bytes =
        |is: &dyn Fn(&ShardState) -> bool| states.iter().filter(|s| is(&s.state)).map(|s| s.entry.data).sum::<u64>();
    let files =
        |is: &dyn Fn(&ShardState) -> bool| states.iter().filter(|s| is(&s.state)).map(|s| s.entry.files).sum::<u64>();
    let is_done = |state: &ShardState| state.word() == "done";
    page.facts([
        ("Waiting", of("waiting").to_string()),
        ("Running", of("running").to_string()),
        ("Stopped", of("stopped").to_string()),
        ("Broken off", of("broken off").to_string()),
        ("Failed", of("failed").to_string()),
        ("Done", of("done").to_string()),
        ("Data on finished drives", format!("{} of {}", ByteLen(bytes(&is_done)), ByteLen(bytes(&|_| true)))),
        ("Files on finished drives", format!("{} of {}", files(&is_done), files(&|_| true))),
        ("Files left out", states.iter().map(Seen::left_out).sum::<u64>().to_string()),
    ]);
    const ORDER: [&str; 6] = ["failed", "broken off", "stopped", "running", "waiting", "done"];
    let columns = [
        Column::number("Shard"),
        Column::code("Drive"),
        Column::word("State"),
        Column::word("Host"),
        Column::number("Files"),
        Column::number("Data"),
        Column::long("Details"),
    ];
    for word in ORDER {
        let rows: Vec<Vec<String>> = states.iter().filter(|seen| seen.state.word() == word).map(Seen::row).collect();
        if !rows.is_empty() {
            page.section(&format!("{}{}: {}", word[..1].to_uppercase(), &word[1..], rows.len()));
            page.table(&columns, &rows);
        }
    }
    page.note("Made from the results and checkpoints in the shared directory. A host that died without a word is seen as running until its shard is run elsewhere with --take-over.");
    page
}

impl Seen<'_> {
    fn row(&self) -> Vec<String> {
        vec![
            self.entry.number.to_string(),
            self.entry.called().to_owned(),
            self.state.word().to_owned(),
            self.entry.host.clone().unwrap_or_default(),
            self.entry.files.to_string(),
            ByteLen(self.entry.data).to_string(),
            detail(&self.state, self.durable),
        ]
    }
}

impl Make {
    fn run(self, output: &Output) -> Exit {
        match self.make() {
            Ok(index) => report_split(&index, output),
            Err(problems) => {
                output.problems(&problems);
                Exit::of_problems(&problems)
            }
        }
    }

    fn make(&self) -> Result<Index, Problems> {
        let hosts = self.hosts.as_deref().map(Hosts::read).transpose()?.unwrap_or_default();
        let mut problems = Problems::default();
        let mut drives: Vec<Known> = Vec::new();
        if let Some(journal) = &self.journal {
            match Known::of_journal(journal) {
                Ok(known) => drives.extend(known),
                Err(mut more) => problems.0.append(&mut more.0),
            }
        }
        for record in &self.record {
            match Known::of_record(record) {
                Ok(known) if drives.iter().all(|other| other.drive_id != known.drive_id) => drives.push(known),
                Ok(_) => {}
                Err(problem) => problems.push(problem),
            }
        }
        problems.0.extend(task::check_args(self.work, &self.args, drives.len()).err());
        let tasks: Vec<Task> = drives.iter().map(|known| self.task(known)).collect();
        if let Some(first) = tasks.first().filter(|_| problems.0.is_empty()) {
            problems.0.extend(first.command().err().into_iter().flat_map(|more| more.0));
        }
        problems.into_result()?;
        shard::new_dir(&self.dir)?;
        let mut written = Vec::new();
        for ((number, known), task) in (0u64..).zip(drives).zip(&tasks) {
            let file = format!("{number:04}-{}.shard", known.drive_id);
            let digest = task.write(&self.dir.join(&file))?;
            written.push((known, file, digest));
        }
        let index = Index::of_tasks(&self.dir, ShardWork::Command(self.work), &written, &hosts);
        index.write()?;
        Ok(index)
    }

    fn task(&self, known: &Known) -> Task {
        Task {
            verb: self.work,
            drive_id: known.drive_id.clone(),
            name: known.name.clone(),
            record: known.record.clone(),
            args: self.args.clone(),
        }
    }
}

/// Shows shards that were just made.
pub fn report_split(index: &Index, output: &Output) -> Exit {
    let list: Vec<Value> = index.shards.iter().map(|entry| line_json(entry, &ShardState::Waiting, None)).collect();
    let value = json!({ "dir": index.dir, "work": index.work.word(), "plan": index.plan_hex(), "shards": list });
    if !output.result("shards", value) {
        let dir = about::quoted(&index.dir.display().to_string());
        output.chat(&format!(
            "{} in {}, plan {}. On the host of a drive:\n  dray shard run {dir} --here\n",
            count(index.shards.len() as u64, "shard"),
            clean(&index.dir.display().to_string()),
            &index.plan_hex()[..16],
        ));
    }
    Exit::Done
}

impl Status {
    fn run(&self, output: &Output) -> Exit {
        let index = match Index::read(&self.dir) {
            Ok(index) => index,
            Err(problem) => return output.problem(problem),
        };
        let mut outputs = Outputs::default();
        outputs.input(&self.dir.join("index.json"), "the index of the shards");
        let report = match self.report.as_deref().map(|path| outputs.begin(path, page::FORM)).transpose() {
            Ok(report) => report,
            Err(problem) => return output.problem(problem),
        };
        let states: Vec<Seen<'_>> = index.shards.iter().map(|entry| Seen::of(&index, entry)).collect();
        let is = |word: &str| states.iter().filter(|seen| seen.state.word() == word).count();
        let left_out = states.iter().any(|seen| matches!(&seen.state, ShardState::Ended(one) if one.exit_code == 3));
        let exit = match (is("failed"), is("done") == states.len(), left_out) {
            (0, true, false) => Exit::Done,
            (0, true, true) => Exit::LeftOut,
            (0, false, _) => Exit::Resumable,
            _ => Exit::DriveFailed,
        };
        if let Some(Err(problem)) = report.map(|file| status_page(&index, &states).save(file)) {
            return output.problem(problem);
        }
        let list: Vec<Value> = states.iter().map(|seen| line_json(seen.entry, &seen.state, seen.durable)).collect();
        let value = json!({
            "dir": self.dir, "work": index.work.word(), "session": index.session, "plan": index.plan_hex(), "done": is("done"),
            "failed": is("failed"), "shards": list,
        });
        if output.result("shards", value) {
            return exit;
        }
        let mut lines = format!(
            "{}, plan {}: {} of {} done{}\n",
            index.title(),
            &index.plan_hex()[..16],
            is("done"),
            count(states.len() as u64, "drive"),
            match is("failed") {
                0 => String::new(),
                n => format!(", {n} failed"),
            }
        );
        for Seen { entry, state, durable } in &states {
            let host = entry.host.as_deref().map(|host| format!(" @{host}")).unwrap_or_default();
            lines.push_str(&format!(
                "  {:>4}  {:<10}  {}{}  {}, {}\n",
                entry.number,
                state.word(),
                clean(entry.called()),
                clean(&host),
                count(entry.files, "file"),
                text::short(entry.data),
            ));
            let detail = detail(state, *durable);
            if !detail.is_empty() {
                lines.push_str(&text::wrap(&format!("        {}", clean(&detail)), ""));
            }
        }
        output.say(&lines);
        exit
    }
}

impl Merge {
    fn run(&self, output: &Output) -> Exit {
        let index = match Index::read(&self.dir) {
            Ok(index) => index,
            Err(problem) => return output.problem(problem),
        };
        if !index.work.writes() {
            let what = format!("the shards of this directory {} drives: they make no journal", index.work.word());
            let problem = Problem::new(Kind::Usage, what).path(&self.dir);
            return output.problem(problem.advice("`dray shard status DIR` shows what became of each"));
        }
        let part = |entry: &ShardEntry| {
            let own = index.journal(entry, self.records_stay.as_deref());
            let shared = index.journal(entry, None);
            shards::Part {
                place: entry.number,
                drive_id: entry.called().to_owned(),
                journal: if own.exists() { own } else { shared },
            }
        };
        let parts: Vec<shards::Part> = index.shards.iter().map(part).collect();
        let export = index.export.as_ref().map(|facts| Gathering::begin(&index, facts, &self.journal)).transpose();
        let merged = export
            .and_then(|export| shards::merge(&index.session, &self.journal, &parts).map(|merged| (merged, export)));
        let (mut merged, export) = match merged {
            Ok(merged) => merged,
            Err(problems) => {
                output.problems(&problems);
                return Exit::of_problems(&problems);
            }
        };
        for (id, why) in &mut merged.missing {
            let entry = index.shards.iter().find(|entry| entry.called() == *id);
            let outcome = entry.and_then(|entry| index.result(entry)).filter(|outcome| outcome.is_finished);
            if let Some(outcome) = outcome {
                let dir =
                    outcome.journal.parent().and_then(Path::parent).unwrap_or(Path::new("?")).display().to_string();
                *why = format!(
                    "is finished, and its record stays on {}: merge there with --records-stay {}",
                    outcome.host,
                    clean(&dir)
                );
            }
        }
        let mut problems = Problems::default();
        for (id, why) in &merged.missing {
            let problem = Problem::new(Kind::Refused, why.clone()).drive(clean(id));
            problems.push(problem.advice("merge again when it is finished: drives that are in the journal stay"));
        }
        let missing: Vec<Value> =
            merged.missing.iter().map(|(id, why)| json!({ "drive_id": id, "why": why })).collect();
        let value = json!({
            "journal": self.journal, "session": index.session, "added": merged.added, "known": merged.known,
            "missing": missing, "records": merged.records,
        });
        if !output.result("merged", value) {
            let total = merged.added.len() + merged.known.len();
            output.chat(&format!(
                "{} of {} in journal {}{}\n",
                total,
                count(index.shards.len() as u64, "drive"),
                clean(&self.journal.display().to_string()),
                if merged.added.is_empty() && missing.is_empty() { ": nothing left to do" } else { "" },
            ));
            for record in &merged.records {
                output.chat(&format!("  {}\n", clean(&record.display().to_string())));
            }
            if !merged.records.is_empty() {
                output.chat("The drive records hold the BitLocker keys: keep them apart from the drives, and safe.\n");
            }
        }
        let lacks = export.map(|export| export.finish(&index, &parts, &self.journal, output)).transpose();
        let lacks = lacks.map_err(|problem| problems.push(problem)).ok().flatten();
        if problems.0.is_empty() {
            return if lacks == Some(true) { Exit::LeftOut } else { Exit::Done };
        }
        output.problems(&problems);
        Exit::Resumable
    }
}
