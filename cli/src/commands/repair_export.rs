//! `dray repair-export`: puts right what is wrong on an exported drive, in place.

use std::path::PathBuf;

use clap::Args;
use dray_engine::api::azure::Digest;
use dray_engine::api::host::GuardContext;
use dray_engine::api::image::{Target, repair};
use dray_engine::api::inspect::Key;
use dray_engine::api::verify::{
    Answer, Check, Damaged, DriveVerdict, Journals, Logs, VerifyRequest, failed_in_log, judge,
};
use dray_engine::report::{Kind, Problem, Problems};
use dray_engine::units::ByteLen;
use dray_service::repair_export::{Fetcher, RepairFile, Repaired, Source, run};
use serde_json::{Value, json};

use crate::account::AccountArgs;
use crate::commands::verify;
use crate::consent::{self, Asked, Consent, Terminal};
use crate::exit::Exit;
use crate::key::{GivenKeys, KeyArgs};
use crate::render::{Output, clean, count, json as object, labelled};
use crate::signals::{self, Signals};

/// Blocks shown on the terminal.
const SHOWN_MAX: usize = 20;

/// Arguments of `dray repair-export`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Blocks whose bytes are not those of the manifest get the right ones, from the account or from a second \
                        copy, in the place where their file lies; an encrypted drive is written as it is stored, never \
                        mounted. A block is written only if it has the manifest's hash, and is read back. No file is grown \
                        or made, and compressed files and those inside $MFT are left. Exit code 0: everything that was \
                        asked is equal now. 5: something is not.\n\n\
                        Examples:\n  \
                        dray repair-export /dev/sdb --key-file keys.json --from /copy --yes 9WM35C2V\n  \
                        dray repair-export /dev/sdb --key-file keys.json --copy-log error.xml \\\n      \
                        --endpoint myaccount --account-key-file key --repair-file 9WM35C2V.rep"
)]
pub struct RepairExport {
    /// Drive or image file
    #[arg(value_name = "DRIVE")]
    drive: PathBuf,
    /// Number of the partition; else a bare volume, or the first data partition
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    /// Copy log of the service: only blobs that it says failed are examined
    #[arg(long, value_name = "FILE")]
    copy_log: Vec<PathBuf>,
    /// Manifest: a path on the drive that begins with \, or a file; all blobs of it are examined
    #[arg(long, value_name = "PATH")]
    manifest: Option<String>,
    /// MD5 of the manifest, as the job has it; else that of the drive record
    #[arg(long, value_name = "HEX", value_parser = verify::digest)]
    manifest_hash: Option<Digest>,
    /// Directory with a second copy: the drive's files, or blobs by their names
    #[arg(long, value_name = "DIR", conflicts_with = "endpoint")]
    from: Option<PathBuf>,
    /// Keep the progress in this file, and resume from it
    #[arg(long, value_name = "FILE")]
    repair_file: Option<PathBuf>,
    /// Full serial of the drive, as consent to writing on it
    #[arg(long, value_name = "SERIAL")]
    yes: Vec<String>,
    /// Ask nothing; without --yes the drive is refused
    #[arg(long)]
    silent: bool,
    /// Source of the key.
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    account: AccountArgs,
}

/// Facts known after reading the drive.
struct Read {
    verdict: DriveVerdict,
    damaged: Vec<Damaged>,
    beyond: Vec<(String, String)>,
}

impl RepairExport {
    /// Repairs and prints the results.
    pub fn run(self, output: &Output) -> Exit {
        match self.repair(output) {
            Ok(exit) => exit,
            Err(problems) => {
                output.problems(&problems);
                Exit::of_problems(&problems)
            }
        }
    }

    fn repair(&self, output: &Output) -> Result<Exit, Problems> {
        let signals = Signals::install(signals::AGAIN)
            .map_err(|error| Problem::new(Kind::Environment, format!("signals cannot be caught: {error}")))?;
        let mut problems = Problems::default();
        let source = self.source(&signals).map_err(|problem| problems.push(problem)).ok();
        let keys = self.key.read().map_err(|problem| problems.push(problem)).ok();
        let mut only = Vec::new();
        for path in &self.copy_log {
            match failed_in_log(path) {
                Ok(paths) => only.extend(paths),
                Err(problem) => problems.push(problem),
            }
        }
        let target = Target::look(&self.drive, &self.context()).map_err(|mut more| problems.0.append(&mut more.0)).ok();
        problems.into_result()?;
        let (Some(source), Some(keys), Some(target)) = (source, keys, target) else { return Ok(Exit::Bug) };
        let has_log = !self.copy_log.is_empty() && self.manifest.is_none();
        if has_log && only.is_empty() {
            output.warning("the copy logs name no blob that failed: nothing to repair");
            return Ok(report(&ExportRepair::default(), output));
        }
        let request = VerifyRequest {
            manifest: self.manifest.clone(),
            manifest_hash: self.manifest_hash,
            only: if has_log { only } else { Vec::new() },
            ..VerifyRequest::default()
        };
        let before = self.read(&keys, &request, &signals, output)?;
        let md5 = sound(&before.verdict)?;
        let mut outcome = ExportRepair { md5: md5.clone(), beyond: before.beyond, ..ExportRepair::default() };
        if !before.damaged.is_empty() {
            self.agree(&target)?;
            let mut file = self.repair_file(&before.verdict, &md5)?;
            outcome.earlier = file.as_ref().map_or(0, RepairFile::done);
            let none = Key::none();
            let claimed = repair::claim(&target, keys.given().unwrap_or(&none), self.partition)?;
            let mut fetcher = Fetcher::new(&source, &signals.stop);
            let total: u64 = before.damaged.iter().map(|one| u64::from(one.len)).sum();
            let working = output.working();
            outcome.repaired = run(&claimed, &before.damaged, &mut fetcher, file.as_mut(), &mut |bytes| {
                working.show(
                    || format!("repairing: {} of {}", ByteLen(bytes), ByteLen(total)),
                    "repairing_export",
                    || json!({ "bytes": bytes, "of": total }),
                );
            })?;
        }
        let after = if outcome.repaired.done.is_empty() {
            before.verdict
        } else {
            self.read(&keys, &request, &signals, output)?.verdict
        };
        if sound(&after)? != md5 {
            let problem = Problem::new(Kind::Different, "the manifest is not what it was before the repair");
            return Err(problem.drive(&after.drive.name).into());
        }
        outcome.after = Some(after);
        Ok(report(&outcome, output))
    }

    fn context(&self) -> GuardContext {
        let sources = self.from.iter().chain(&self.copy_log).chain(&self.repair_file).cloned();
        GuardContext { sources: sources.collect(), journal: None, logs: None }
    }

    fn source(&self, signals: &Signals) -> Result<Source, Problem> {
        if let Some(dir) = &self.from {
            if !dir.is_dir() {
                return Err(Problem::new(Kind::Usage, "the second copy is no directory").path(dir).column("--from"));
            }
            return Ok(Source::Copy(dir.clone()));
        }
        let account = self.account.open(Some(signals.stop.clone()))?;
        let none = || {
            let problem = Problem::new(Kind::Usage, "neither an account nor a second copy was named");
            problem.advice("--endpoint with --account-key-file, --sas-file or --sign-in; or --from DIR")
        };
        account.map(|account| Source::Account(Box::new(account))).ok_or_else(none)
    }

    /// Reads the blobs that were asked for, and closes the drive again.
    fn read(
        &self,
        keys: &GivenKeys,
        request: &VerifyRequest,
        signals: &Signals,
        output: &Output,
    ) -> Result<Read, Problem> {
        let opened = [keys.open(&self.drive, self.partition, output)?];
        let logs = Logs::none();
        let journals = Journals::none();
        let mut judged = verify::at_once(&opened, "verifying", (signals, output), &|index, one, workers, events| {
            let (logs, journals, stop) = (&logs, &journals, &signals.stop);
            judge::run(one, &judge::Context { index, request, logs, journals, workers, events, stop, deliver: None })
        })?;
        let Some(mut one) = judged.pop() else { return Err(Problem::new(Kind::Internal, "no drive was read")) };
        one.rows(&logs, &mut |_| {})?;
        let (damaged, beyond) = one.damaged();
        match one.verdict.failure.take() {
            Some(problem) => Err(problem),
            None => Ok(Read { verdict: one.verdict, damaged, beyond }),
        }
    }

    /// Consent to writing onto the drive.
    fn agree(&self, target: &Target) -> Result<(), Problems> {
        let consent = Consent { silent: self.silent, serials: self.yes.clone() };
        consent::known(&consent, &[target.facts()], &[])?;
        if !target.needs_consent() {
            return Ok(());
        }
        consent::gather(&[Asked::repaired(0, target.facts())], &consent, &mut Terminal).map(drop)
    }

    fn repair_file(&self, verdict: &DriveVerdict, md5: &str) -> Result<Option<RepairFile>, Problem> {
        let Some(path) = &self.repair_file else { return Ok(None) };
        let id = verdict.manifest.as_ref().and_then(|manifest| manifest.drive_id.clone());
        RepairFile::open(path, id.as_deref().unwrap_or(&verdict.drive.drive_id), md5).map(Some)
    }
}

/// The MD5 of a manifest that can be trusted.
///
/// # Errors
/// It is damaged, or has another hash than the job: a repair by it would make more wrong.
fn sound(verdict: &DriveVerdict) -> Result<String, Problem> {
    let refused = |what: String| {
        let problem = Problem::new(Kind::Refused, what).drive(&verdict.drive.name);
        problem.advice("give a good copy of it with --manifest FILE; nothing was written")
    };
    let Some(manifest) = &verdict.manifest else { return Err(refused("there is no manifest to repair by".into())) };
    let is_against = |check: &&Check| {
        check.answer == Answer::No
            && check
                .status
                .is_some_and(|status| matches!(status.as_str(), "ManifestCorrupted" | "ManifestFormatInvalid"))
    };
    match verdict.checks.iter().find(is_against) {
        Some(check) => Err(refused(format!("{}: no ({})", check.question, check.seen))),
        None => Ok(manifest.md5.clone()),
    }
}

/// Everything that is reported.
#[derive(Debug, Default)]
struct ExportRepair {
    md5: String,
    earlier: u64,
    repaired: Repaired,
    beyond: Vec<(String, String)>,
    after: Option<DriveVerdict>,
}

impl ExportRepair {
    fn is_good(&self) -> bool {
        let equal = |after: &DriveVerdict| after.counts.equal.0 == after.counts.blobs();
        self.repaired.left.is_empty() && self.beyond.is_empty() && self.after.as_ref().is_none_or(equal)
    }
}

fn report(outcome: &ExportRepair, output: &Output) -> Exit {
    let mut problems = Problems::default();
    problems.0.extend(outcome.repaired.left.iter().map(|(_, problem)| problem.clone()));
    for (blob, why) in &outcome.beyond {
        let problem = Problem::new(Kind::Different, format!("cannot be repaired in place: {why}")).value(blob);
        problems.push(problem.advice("fetch the blob from the account to another disk"));
    }
    let exit = if outcome.is_good() { Exit::Done } else { Exit::Different };
    output.remember(&problems);
    if output.result("repaired_export", to_json(outcome, exit)) {
        return exit;
    }
    let mut text = String::new();
    if let Some(after) = &outcome.after {
        text.push_str(&format!("\n{}\n", clean(&after.drive.name)));
        let equal = format!("{} of {}", after.counts.equal.0, count(after.counts.blobs(), "blob"));
        text.push_str(&labelled("equal now", &equal));
        text.push_str(&labelled("manifest", &format!("MD5 {}, before and after", outcome.md5)));
    }
    let done = &outcome.repaired.done;
    let bytes: u64 = done.iter().map(|one| u64::from(one.len)).sum();
    text.push_str(&labelled("repaired", &format!("{}, {}", count(done.len() as u64, "block"), ByteLen(bytes))));
    if outcome.earlier > 0 {
        text.push_str(&labelled("by earlier runs", &count(outcome.earlier, "block")));
    }
    for one in done.iter().take(SHOWN_MAX) {
        let end = one.offset + u64::from(one.len);
        text.push_str(&format!("  {}, bytes {} to {end}\n", clean(&one.file), one.offset));
    }
    output.say(&text);
    if !problems.0.is_empty() {
        output.show(&problems);
    }
    exit
}

fn place(one: &Damaged) -> Value {
    json!({ "blob": one.blob, "snapshot": one.snapshot, "file": one.file, "offset": one.offset, "length": one.len })
}

fn to_json(outcome: &ExportRepair, exit: Exit) -> Value {
    let after = outcome.after.as_ref();
    json!({
        "drive": after.map(|after| object::facts(&after.drive)),
        "manifest_md5": outcome.md5,
        "repaired": outcome.repaired.done.iter().map(place).collect::<Vec<_>>(),
        "earlier": outcome.earlier,
        "left": outcome.repaired.left.iter().map(|(one, problem)| {
            json!({ "place": place(one), "problem": object::problem(problem) })
        }).collect::<Vec<_>>(),
        "beyond": outcome.beyond.iter().map(|(blob, why)| json!({ "blob": blob, "why": why })).collect::<Vec<_>>(),
        "blobs": after.map(|after| after.counts.blobs()),
        "equal": after.map(|after| after.counts.equal.0),
        "good": outcome.is_good(),
        "exit_code": exit.code(),
    })
}
