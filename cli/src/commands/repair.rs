//! `dray repair-import`: sends again what a copy log says failed, from the original directories or from a drive.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use clap::Args;
use dray_engine::api::inspect::{Files, Opened};
use dray_engine::report::{Kind, Problem, Problems};
use dray_engine::units::ByteLen;
use dray_service::ingest::{IN_FLIGHT_MAX, Imported};
use dray_service::repair::{Options, Repair, RepairOutcome};
use serde_json::json;

use crate::account::AccountArgs;
use crate::args::size;
use crate::commands::ingest::as_json;
use crate::exit::Exit;
use crate::key::KeyArgs;
use crate::render::{Output, clean, count, json as object, labelled, wrap};
use crate::signals::{self, Signals};

/// Blobs shown on the terminal.
const SHOWN_MAX: usize = 20;

/// Arguments of `dray repair-import`.
#[derive(Args, Clone, Debug)]
#[command(override_usage = "dray repair-import --repair-file <FILE> --dir <DIR> \\\n         \
                              --copy-log <FILE> [OPTIONS]")]
#[command(after_help = "Only what the log calls failed is sent. Blobs that were renamed are repaired under their new \
                        names; what is there and right stays. Originals that are not found, are found twice or were \
                        changed go into the path map: write a TAB and the right path behind each, and run the same \
                        command again. What is in no directory is read from --drive: the drive that was sent, or \
                        another with the same files; it is unlocked and read, never mounted. Exit code 0 only if nothing of the log is left to repair, 3 if something \
                        is.\n\n\
                        Examples:\n  \
                        dray repair-import --repair-file 9WM35C2V.rep --dir /data --dir /more \\\n      \
                        --copy-log 9WM35C2V_error.xml --path-map 9WM35C2V.txt --endpoint ACCOUNT\n  \
                        dray repair-import --repair-file 9WM35C2V.rep --drive /dev/sdb \\\n      \
                        --key-file 9WM35C2V.xml --copy-log error.xml --endpoint ACCOUNT\n  \
                        dray RepairImport /r:9WM35C2V.rep /d:/data;/more /sn:ACCOUNT /sk:@key \\\n      \
                        /CopyLogFile:9WM35C2V_error.xml /PathMapFile:9WM35C2V.txt")]
pub struct RepairImportArgs {
    /// File that keeps what was reached: one a drive; the same one resumes
    #[arg(long, value_name = "FILE")]
    repair_file: PathBuf,
    /// Directories with the original files
    #[arg(long, value_name = "DIR", required_unless_present = "drive")]
    dir: Vec<PathBuf>,
    /// Drives or images with the original files, by their paths on the drive
    #[arg(long, value_name = "DRIVE")]
    drive: Vec<PathBuf>,
    /// Copy log of the drive: error or verbose log, or CopyLog with --manifest
    #[arg(long, value_name = "FILE")]
    copy_log: PathBuf,
    /// Manifest of the drive, which a log of the second generation needs
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Gets the paths of originals that cannot be used, and says where they are
    #[arg(long, value_name = "FILE")]
    path_map: Option<PathBuf>,
    /// Most requests in flight
    #[arg(long, value_name = "N", default_value_t = 16)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=IN_FLIGHT_MAX as i64))]
    in_flight: u32,
    /// Bytes a second sent: 50MB, 50MiB
    #[arg(long, value_name = "SIZE", value_parser = size::rate)]
    rate_limit: Option<u64>,
    /// Source of the key.
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    account: AccountArgs,
}

impl RepairImportArgs {
    /// Repairs and reports.
    pub fn run(self, output: &Output) -> Exit {
        match self.repair(output) {
            Ok(exit) => exit,
            Err(problems) => {
                output.problems(&problems);
                Exit::of_problems(&problems)
            }
        }
    }

    fn repair(self, output: &Output) -> Result<Exit, Problems> {
        let signals = Signals::install(signals::INGEST)
            .map_err(|error| Problem::new(Kind::Environment, format!("signals cannot be caught: {error}")))?;
        let mut problems = Problems::default();
        let account = self.account.open(Some(signals.stop.clone())).map_err(|problem| problems.push(problem)).ok();
        if matches!(account, Some(None)) {
            let problem = Problem::new(Kind::Usage, "no account is named that the blobs are in");
            problems.push(problem.advice("--endpoint names it"));
        }
        for dir in self.dir.iter().filter(|dir| !dir.is_dir()) {
            let problem = Problem::new(Kind::Usage, "is no directory").path(dir).column("--dir");
            problems.push(problem.advice("name the directories that the drive was filled from"));
        }
        let keys = self.key.read().map_err(|problem| problems.push(problem)).ok();
        problems.into_result()?;
        let (Some(Some(account)), Some(keys)) = (account, keys) else { return Ok(Exit::Usage) };
        let opened = self.drive.iter().map(|drive| keys.open(drive, None, output));
        let opened: Vec<Opened> = opened.collect::<Result<_, _>>()?;
        let drives: Vec<Files<'_>> = opened.iter().map(Files::read).collect::<Result<_, _>>()?;
        let options = Options {
            repair_file: self.repair_file,
            dirs: self.dir,
            copy_log: self.copy_log,
            manifest: self.manifest,
            path_map: self.path_map,
            in_flight_max: self.in_flight as usize,
            rate: self.rate_limit,
        };
        signals.writing.store(true, Ordering::Release);
        let working = output.working();
        let outcome = Repair::new(account, options).run(&drives, &signals.stop, &mut |done, all| {
            working.show(
                || format!("repairing: {done} of {}", count(all, "blob")),
                "repairing",
                || json!({ "done": done, "of": all }),
            );
        })?;
        drop(working);
        signals.writing.store(false, Ordering::Release);
        report(&outcome, output);
        Ok(exit(&outcome))
    }
}

fn exit(outcome: &RepairOutcome) -> Exit {
    if let Some(problem) = &outcome.problem {
        return Exit::of_problems(&problem.clone().into());
    }
    if outcome.blobs.iter().all(Imported::is_good) { Exit::Done } else { Exit::LeftOut }
}

fn report(outcome: &RepairOutcome, output: &Output) {
    output.remember(&outcome.problem.clone().map(Problems::from).unwrap_or_default());
    let repaired = outcome.blobs.iter().filter(|one| one.is_good()).count() as u64;
    let left = outcome.blobs.len() as u64 - repaired;
    let bytes = ByteLen(outcome.blobs.iter().filter(|one| one.is_good()).map(|one| one.length).sum());
    let is_good = exit(outcome) == Exit::Done;
    let word = if is_good { "REPAIRED" } else { "NOT ALL REPAIRED" };
    let sentence = match (outcome.blobs.len(), left) {
        (0, _) => "the log names nothing that failed".to_owned(),
        (_, 0) => format!("{} ({bytes}), all that the log calls failed", count(repaired, "blob")),
        _ => format!("{} ({bytes}); {left} left", count(repaired, "blob")),
    };
    if output.is_json() {
        outcome.blobs.iter().for_each(|one| output.object("repaired", as_json(one)));
    }
    let value = json!({
        "word": word,
        "sentence": sentence,
        "drive_id": outcome.drive_id,
        "repaired": repaired,
        "left": left,
        "path_map": outcome.path_map.as_ref().map(|path| path.to_string_lossy()),
        "failure": outcome.problem.as_ref().map(object::problem),
        "good": is_good,
        "exit_code": exit(outcome).code(),
    });
    if output.result("repair", value) {
        return;
    }
    let style = output.style();
    let mut rows = String::new();
    for one in outcome.blobs.iter().filter(|one| !one.is_good()).take(SHOWN_MAX) {
        let status = one.status.map_or("not reached", |status| status.as_str());
        rows.push_str(&format!("{}  {}\n", style.red(status), clean(&one.blob)));
        let note = one.message.iter().map(|note| format!(": {}", clean(note))).collect::<String>();
        rows.push_str(&format!("    {}{note}\n", clean(&one.file)));
    }
    if left > SHOWN_MAX as u64 {
        rows.push_str(&format!("and {} more\n", left - SHOWN_MAX as u64));
    }
    if let Some(path) = &outcome.path_map {
        rows.push_str(&labelled("fill in", &clean(&path.to_string_lossy())));
    }
    output.say(&rows);
    if let Some(problem) = &outcome.problem {
        output.show(&problem.clone().into());
    }
    let shown = if is_good { style.green(word) } else { style.red(word) };
    output.say(&wrap(&format!("{shown}: {sentence}\n"), ""));
}
