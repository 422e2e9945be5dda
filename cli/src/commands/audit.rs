//! `dray audit`: compares what was sent with the storage account, blob by blob.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use clap::{Args, ValueEnum};
use dray_account::{Account, BlobKind, Condition, Failure, Include};
use dray_engine::api;
use dray_engine::api::account::audit::{Change, Compared, Origin, SourceChange, Sum};
use dray_engine::api::account::{Audit, Audited, Finding, Inventory, Proof, Reading, There};
use dray_engine::api::host::{OutputForm, Outputs, Pipes};
use dray_engine::api::inspect::Files;
use dray_engine::api::records::SessionState;
use dray_engine::report::{Event, Kind, Problem, Problems, Stop};
use dray_engine::units::ByteLen;
use serde_json::{Value, json};

use super::verify::lists::List;
use crate::account::AccountArgs;
use crate::exit::Exit;
use crate::key::{GivenKeys, KeyArgs};
use crate::render::page::{self, Column, Page, Tone};
use crate::render::{Output, clean, count, labelled, wrap};
use crate::signals::{self, Signals};

/// Bytes of one request when a blob is read back.
const RANGE: usize = 4 << 20;
/// Blobs that are read back at once.
const READERS: usize = 8;
/// Rows shown of what is not equal.
const SHOWN_MAX: usize = 20;
/// Rows of a page.
const PAGE_ROWS_MAX: usize = 1000;

const COLUMNS: [&str; 9] =
    ["verdict", "blob", "renamed", "length", "content", "proof", "properties", "source", "notes"];

/// A list as a file: it may replace an earlier one.
const FORM: OutputForm = OutputForm {
    name: "the list",
    is_earlier: |head| {
        let has = |part: &[u8]| head.windows(part.len()).any(|these| these == part);
        head.starts_with(b"verdict,blob,renamed,")
            || head.starts_with(b"{\"") && has(b"\"blob\":") && has(b"\"proof\":")
    },
    private: false,
};

/// Blobs that are still to be sent, as a file.
const LEFT: OutputForm =
    OutputForm { name: "the dataset", is_earlier: |head| head.starts_with(LEFT_HEAD.as_bytes()), private: false };

const LEFT_HEAD: &str = "BasePath,DstBlobPathOrPrefix,BlobType,Disposition,MetadataFile,PropertiesFile";

/// Amount that is read back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ReadHow {
    /// Every blob, proven or not
    All,
    /// Only blobs that nothing else proves
    #[default]
    Unproven,
    /// Beginning and end of what nothing else proves: finds damage, proves nothing
    Sample,
    /// Nothing
    None,
}

/// Arguments of `dray audit`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Nothing is written to the account. Exit code 0 only if everything that was sent is there, and \
                        something proves it. 3: of some blobs nothing says what is in them. 5: blobs are missing, or not \
                        as they were sent. `dray cat DRIVE DriveManifest.xml` gives the manifest of a drive.\n\n\
                        Examples:\n  \
                        dray audit --dataset dataset.csv --endpoint ACCOUNT --left left.csv --report audit.html\n  \
                        dray audit --manifest DriveManifest.xml --copy-log verbose.xml --endpoint ACCOUNT\n  \
                        dray audit --manifest 9WM35C2V.manifest.xml --journal job.jrn \\\n      \
                        --sources dataset.csv --drive /dev/sdb --key-file 9WM35C2V.xml --endpoint ACCOUNT\n  \
                        dray audit --dataset dataset.csv --inventory inventory.csv"
)]
pub struct AuditArgs {
    #[command(flatten)]
    sent: SentArgs,
    #[command(flatten)]
    there: ThereArgs,
    /// Source of the key.
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    account: AccountArgs,
    #[command(flatten)]
    reports: Reports,
}

/// The blobs that were sent.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "What was sent")]
struct SentArgs {
    /// Manifests of the drives
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "dataset")]
    manifest: Vec<PathBuf>,
    /// Journal of the job, with the manifests next to it, or those given: each finished drive must have one
    #[arg(long, value_name = "FILE", conflicts_with = "dataset")]
    #[arg(help = "Journal of the job: its drives' manifests lie next to it, or are given")]
    journal: Option<PathBuf>,
    /// The dataset, by its sources as they are now
    #[arg(long, value_name = "FILE.csv", required_unless_present_any = ["manifest", "journal"])]
    dataset: Option<PathBuf>,
    /// Dataset of the sources, which may have changed since the manifests were made
    #[arg(long, value_name = "FILE.csv", conflicts_with = "dataset")]
    sources: Option<PathBuf>,
    /// Drives or images with the metadata and properties files of the manifests
    #[arg(long, value_name = "DRIVE", conflicts_with = "dataset")]
    drive: Vec<PathBuf>,
}

/// The evidence that is examined.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "What is there")]
struct ThereArgs {
    /// A Blob Inventory (CSV) instead of the account itself
    #[arg(long, value_name = "FILE.csv", conflicts_with = "endpoint")]
    inventory: Option<PathBuf>,
    /// Copy log of the service, of either generation; verbose ones prove content
    #[arg(long, value_name = "FILE")]
    copy_log: Vec<PathBuf>,
    /// Amount that is read back
    #[arg(long, value_name = "HOW", default_value = "unproven", hide_possible_values = true)]
    #[arg(help = "What is read back: all, unproven (default), sample, none")]
    read: ReadHow,
}

/// Reports.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Reports")]
struct Reports {
    /// A page to sign and keep
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Every blob, as JSON lines or CSV by the name's end
    #[arg(long, value_name = "FILE")]
    list: Vec<PathBuf>,
    /// A dataset of what is left to send: the sources are those of --dataset, or of --sources
    #[arg(long, value_name = "FILE.csv")]
    left: Option<PathBuf>,
}

/// Result of the audit.
#[derive(Debug, Default)]
struct AuditOutcome {
    sums: [Sum; 4],
    renamed: u64,
    proofs: Vec<(Proof, u64)>,
    bad: Vec<Audited>,
    bytes_read: u64,
    drives: Vec<(String, PathBuf, String)>,
    without_manifest: Vec<String>,
    by_log: bool,
    asked: String,
    interrupted: bool,
    /// Sources that are not as the manifests say, if they were compared.
    changes: Option<Vec<SourceChange>>,
}

const ORDER: [Finding; 4] = [Finding::Equal, Finding::Unknown, Finding::Different, Finding::Missing];

impl AuditOutcome {
    fn add(&mut self, row: &Audited) {
        let at = ORDER.iter().position(|finding| *finding == row.finding).unwrap_or(0);
        self.sums[at].blobs += 1;
        self.sums[at].bytes += row.length;
        self.renamed += u64::from(row.renamed.is_some() && row.finding == Finding::Equal);
        if let Some(proof) = row.proof.filter(|_| row.finding == Finding::Equal) {
            match self.proofs.iter_mut().find(|(one, _)| *one == proof) {
                Some((_, blobs)) => *blobs += 1,
                None => self.proofs.push((proof, 1)),
            }
        }
        if (row.finding != Finding::Equal || row.renamed.is_some()) && self.bad.len() < PAGE_ROWS_MAX {
            self.bad.push(row.clone());
        }
    }

    fn exit(&self) -> Exit {
        let [_, unknown, different, missing] = self.sums.map(|sum| sum.blobs);
        if self.interrupted {
            Exit::Interrupted
        } else if different + missing > 0 {
            Exit::Different
        } else if unknown > 0 || !self.without_manifest.is_empty() || self.needed() > 0 {
            Exit::LeftOut
        } else {
            Exit::Done
        }
    }

    /// Sources that hold what was not sent.
    fn needed(&self) -> u64 {
        self.changes.iter().flatten().filter(|change| change.is_needed()).count() as u64
    }

    fn sent(&self) -> Sum {
        self.sums
            .iter()
            .fold(Sum::default(), |sum, one| Sum { blobs: sum.blobs + one.blobs, bytes: sum.bytes + one.bytes })
    }

    /// Tone, word and sentence.
    fn headline(&self) -> (Tone, &'static str, String) {
        let sent = self.sent();
        let all = format!("{} ({})", count(sent.blobs, "blob"), ByteLen(sent.bytes));
        let [equal, unknown, different, missing] = self.sums.map(|sum| sum.blobs);
        match self.exit() {
            Exit::Done => {
                let renamed = match self.renamed {
                    0 => String::new(),
                    n => format!("; {} under another name", count(n, "blob")),
                };
                (Tone::Good, "ALL THERE", format!("all of {all} are in the account, each with proof{renamed}"))
            }
            Exit::Interrupted => (Tone::Bad, "INTERRUPTED", format!("not all of {all} was looked at")),
            Exit::LeftOut if unknown == 0 && self.without_manifest.is_empty() => (
                Tone::Warn,
                "SOURCES CHANGED",
                format!(
                    "all of {all} are in the account as they were sent; {} changed since, or came later: keep those",
                    count(self.needed(), "source")
                ),
            ),
            Exit::LeftOut if unknown == 0 => (
                Tone::Warn,
                "NOT PROVEN",
                format!(
                    "all of {all} are there, and {} of the journal had no manifest here",
                    count(self.without_manifest.len() as u64, "drive")
                ),
            ),
            Exit::LeftOut => (
                Tone::Warn,
                "NOT PROVEN",
                format!("{equal} of {all} are proven; of {unknown} nothing says what is in them: keep the sources"),
            ),
            _ => (
                Tone::Bad,
                "KEEP THE SOURCES",
                format!("of {all}: {missing} missing, {different} different, {unknown} unknown, {equal} equal"),
            ),
        }
    }
}

impl AuditArgs {
    /// Audits and tells.
    pub fn run(self, output: &Output) -> Exit {
        match self.audit(output) {
            Ok(exit) => exit,
            Err(problems) => {
                output.problems(&problems);
                Exit::of_problems(&problems)
            }
        }
    }

    fn audit(mut self, output: &Output) -> Result<Exit, Problems> {
        let signals = Signals::install(signals::AUDIT)
            .map_err(|error| Problem::new(Kind::Environment, format!("signals cannot be caught: {error}")))?;
        let mut problems = Problems::default();
        let is_by_log = !self.account.is_given() && self.there.inventory.is_none();
        if is_by_log && self.there.copy_log.is_empty() {
            let problem = Problem::new(Kind::Usage, "nothing is named that says what is in the account");
            problems.push(problem.advice("--endpoint asks it; --inventory and --copy-log read what it wrote"));
        }
        if self.reports.left.is_some() && self.sent.dataset.is_none() && self.sent.sources.is_none() {
            let what = "a manifest does not say which files its blobs were made of, so that no dataset of the rest can be made";
            let problem = Problem::new(Kind::Usage, what).column("--left");
            problems.push(problem.advice("name the dataset of the sources: --sources dataset.csv"));
        }
        self.take_kept().unwrap_or_else(|problem| problems.push(problem));
        let mut outputs = self.outputs();
        let mut lists = Vec::new();
        for path in &self.reports.list {
            match List::of(path, &mut outputs, &COLUMNS, FORM) {
                Ok(list) => lists.push(list),
                Err(problem) => problems.push(problem),
            }
        }
        let report = self.reports.report.as_deref().map(|path| outputs.begin(path, page::FORM)).transpose();
        let report = report.map_err(|problem| problems.push(problem)).ok().flatten();
        let left = self.reports.left.as_deref().map(|path| outputs.begin(path, LEFT)).transpose();
        let left = left.map_err(|problem| problems.push(problem)).ok().flatten();
        let account = self.account.open(Some(signals.stop.clone()));
        let account = account.map_err(|problem| problems.push(problem)).ok().flatten();
        let mut audit = self.sent(&mut problems, output);
        let keys = self.key.read().map_err(|problem| problems.push(problem)).ok();
        let without_manifest = self.without_manifest(&audit).unwrap_or_else(|problem| {
            problems.push(problem);
            Vec::new()
        });
        for path in &self.there.copy_log {
            audit.add_log(path).unwrap_or_else(|problem| problems.push(problem));
        }
        problems.into_result()?;
        if audit.is_empty() {
            return Err(Problem::new(Kind::Usage, "nothing was sent, so nothing can be found missing").into());
        }
        audit.warnings.iter().for_each(|warning| output.warning(warning));
        if let Some(keys) = &keys {
            self.read_drives(keys, &mut audit, output)?;
        }

        signals.writing.store(true, Ordering::Release);
        let asked = self.ask(account.as_ref(), &mut audit, output)?;
        let bytes_read = self.prove(account.as_ref(), &mut audit, &signals.stop, output)?;
        let compared = self.compared(&audit, &signals.stop, output)?;
        let mut outcome = AuditOutcome {
            changes: compared.as_ref().map(|compared| compared.changes.clone()),
            by_log: is_by_log,
            bytes_read,
            without_manifest,
            asked,
            interrupted: signals.stop.requested(),
            ..AuditOutcome::default()
        };
        outcome.drives = audit
            .drives
            .iter()
            .map(|(id, path, md5)| (id.clone(), path.clone(), md5.iter().map(|b| format!("{b:02X}")).collect()))
            .collect();
        let remains = tell_rows(&audit, &mut outcome, (lists, left.is_some()), output)?;
        if let Some(file) = left {
            keep_left(file, remains, compared.as_ref(), output)?;
        }
        if let Some(file) = report {
            page_of(&outcome).save(file)?;
        }
        tell(output, &outcome);
        Ok(outcome.exit())
    }

    /// What was sent, by manifests or by the dataset.
    fn sent(&self, problems: &mut Problems, output: &Output) -> Audit {
        let mut audit = Audit::default();
        for path in &self.sent.manifest {
            audit.add_manifest(path).unwrap_or_else(|problem| problems.push(problem));
        }
        if let Some(path) = &self.sent.dataset {
            let working = output.working();
            let mut progress = |event: Event| {
                if let Event::Scanning { files, bytes } = event {
                    working.show(
                        || format!("reading the sources: {}, {bytes}", count(files, "file")),
                        "scanning",
                        || json!({ "files": files, "bytes": bytes.0 }),
                    );
                }
            };
            audit.add_dataset(path, &mut progress).unwrap_or_else(|more| problems.0.extend(more.0));
        }
        audit
    }

    /// Takes in what the account has, by itself or by an inventory; gives what was asked.
    fn ask(&self, account: Option<&Account>, audit: &mut Audit, output: &Output) -> Result<String, Problems> {
        Ok(match (account, &self.there.inventory) {
            (Some(account), _) => {
                list_account(account, audit, output)?;
                format!("account {} ({})", account.name(), account.signed_by())
            }
            (None, Some(path)) => {
                read_inventory(path, audit, output)?;
                format!("inventory {}", path.display())
            }
            (None, None) => "copy logs alone".to_owned(),
        })
    }

    /// Proves content, by hashes and by reading back; gives the bytes that were read.
    fn prove(
        &self,
        account: Option<&Account>,
        audit: &mut Audit,
        stop: &Stop,
        output: &Output,
    ) -> Result<u64, Problem> {
        let (mut bytes_read, mut how, mut tried) = (0, self.there.read, HashSet::new());
        // Twice: what its own name turns out not to hold may be there under another.
        for _ in 0..2 {
            audit.settle();
            self.hash(audit, stop, output)?;
            if let Some(account) = account {
                bytes_read += read_back(account, audit, (how, &mut tried), stop, output)?;
            }
            if how == ReadHow::All {
                how = ReadHow::Unproven;
            }
        }
        Ok(bytes_read)
    }

    /// Without manifests, takes those that were kept next to the journal.
    fn take_kept(&mut self) -> Result<(), Problem> {
        let Some(path) = self.sent.journal.as_ref().filter(|_| self.sent.manifest.is_empty()) else { return Ok(()) };
        let book = api::records::read_journal(path)?;
        let drives = book.ledger.finished_drives();
        let kept = drives.iter().map(|drive| api::prepare::kept_manifest(path, &drive.drive_id));
        self.sent.manifest = kept.filter(|manifest| manifest.exists()).collect();
        if self.sent.manifest.is_empty() {
            let problem =
                Problem::new(Kind::Usage, "no finished drive of the journal has its manifest next to it").path(path);
            return Err(
                problem.advice("give the manifests: --manifest, as `dray cat DRIVE DriveManifest.xml` prints them")
            );
        }
        Ok(())
    }

    /// Inputs, which are never overwritten.
    fn outputs(&self) -> Outputs {
        let mut outputs = Outputs::default();
        self.sent.manifest.iter().for_each(|path| outputs.input(path, "the manifest"));
        self.sent.journal.iter().for_each(|path| outputs.input(path, "the journal"));
        self.sent.dataset.iter().chain(&self.sent.sources).for_each(|path| outputs.input(path, "the dataset"));
        self.key.files().iter().for_each(|path| outputs.input(path, "the key"));
        self.there.inventory.iter().for_each(|path| outputs.input(path, "the inventory"));
        self.there.copy_log.iter().for_each(|path| outputs.input(path, "the copy log"));
        self.account.files().for_each(|path| outputs.input(path, "the credential"));
        outputs
    }

    /// Finished drives of the journal whose manifest is not among those given.
    fn without_manifest(&self, audit: &Audit) -> Result<Vec<String>, Problem> {
        let Some(path) = &self.sent.journal else { return Ok(Vec::new()) };
        let book = api::records::read_journal(path)?;
        let given: Vec<String> =
            audit.drives.iter().map(|(_, _, md5)| md5.iter().map(|byte| format!("{byte:02X}")).collect()).collect();
        let ids = book.ledger.drive_ids();
        let drives = ids.into_iter().filter_map(|id| book.ledger.whole(id));
        let finished = drives.filter(|drive| drive.state == SessionState::Completed);
        let has = |hash: &Option<String>| {
            hash.as_ref().is_some_and(|hash| given.iter().any(|one| one.eq_ignore_ascii_case(hash)))
        };
        Ok(finished.filter(|drive| !has(&drive.manifest_hash)).map(|drive| drive.drive_id.clone()).collect())
    }

    /// Reads the metadata and properties files of the manifests from the drives.
    fn read_drives(&self, keys: &GivenKeys, audit: &mut Audit, output: &Output) -> Result<(), Problem> {
        for path in &self.sent.drive {
            let opened = keys.open(path, None, output)?;
            if audit.add_drive(&Files::read(&opened)?) == 0 {
                let what = "holds no metadata or properties file that the manifests name and no other drive had";
                output.warning(&format!("{}: {what}", path.display()));
            }
        }
        Ok(())
    }

    /// The sources, compared with what the manifests say of them.
    fn compared(&self, audit: &Audit, stop: &Stop, output: &Output) -> Result<Option<Compared>, Problems> {
        let Some(path) = &self.sent.sources else { return Ok(None) };
        let book = self.sent.journal.as_deref().map(api::records::read_journal).transpose()?;
        let since = book.as_ref().and_then(|book| api::account::audit::begun(&book.ledger));
        let working = output.working();
        let mut done = 0;
        let compared = audit.compare_sources(path, since, &mut |_| (), &mut |bytes| {
            done += bytes;
            working.show(|| format!("hashing the sources: {}", ByteLen(done)), "hashing", || json!({ "bytes": done }));
            !stop.requested()
        })?;
        drop(working);
        if output.is_json() {
            for change in &compared.changes {
                let source = change.source.as_ref().map(|path| path.to_string_lossy());
                let (word, note) = words_of(&change.change);
                output.object(
                    "source_changed",
                    json!({
                        "blob": change.blob, "source": source, "change": word, "note": note,
                    }),
                );
            }
        }
        Ok(Some(compared))
    }

    fn hash(&self, audit: &mut Audit, stop: &Stop, output: &Output) -> Result<(), Problem> {
        let working = output.working();
        let mut done = 0;
        audit.hash_sources(&mut |bytes| {
            done += bytes;
            working.show(|| format!("hashing the sources: {}", ByteLen(done)), "hashing", || json!({ "bytes": done }));
            !stop.requested()
        })
    }
}

/// Tells and lists every blob; gives those that are not equal, if they are to be kept.
fn tell_rows(
    audit: &Audit,
    outcome: &mut AuditOutcome,
    (mut lists, keeps): (Vec<List>, bool),
    output: &Output,
) -> Result<Vec<Audited>, Problem> {
    let mut remains = Vec::new();
    for at in 0..audit.len() {
        let Some(row) = audit.audited(at, outcome.by_log) else { continue };
        outcome.add(&row);
        let value = as_json(&row);
        if output.is_json() {
            output.object("audited", value.clone());
        }
        lists.iter_mut().try_for_each(|list| list.row(&value))?;
        if keeps && row.finding != Finding::Equal {
            remains.push(row);
        }
    }
    lists.into_iter().try_for_each(List::finish)?;
    Ok(remains)
}

/// A change in a word, and more about it.
fn words_of(change: &Change) -> (&'static str, Option<String>) {
    match change {
        Change::Gone => ("gone", None),
        Change::Length(now) => ("changed", Some(format!("has {now} bytes now"))),
        Change::Content => ("changed", Some("has other bytes now".into())),
        Change::Unknown(why) => ("unknown", Some(why.clone())),
        Change::New => ("new", Some("no manifest has it".into())),
    }
}

/// A listed blob in the words of an audit.
fn of_listing(container: &str, blob: dray_account::Blob) -> There {
    let properties = [
        ("Content-Type", blob.content_type),
        ("Content-Encoding", blob.content_encoding),
        ("Content-Language", blob.content_language),
        ("Cache-Control", blob.cache_control),
    ];
    There {
        path: format!("{container}/{}", blob.name),
        length: blob.length,
        is_pages: Some(blob.kind == BlobKind::Page),
        md5: blob.md5,
        etag: blob.etag,
        properties: Some(properties.map(|(name, value)| (name.to_owned(), value)).to_vec()),
        metadata: Some(blob.metadata),
    }
}

fn list_account(account: &Account, audit: &mut Audit, output: &Output) -> Result<(), Problem> {
    let working = output.working();
    let mut seen = 0u64;
    let include = Include { snapshots: false, metadata: true };
    for (container, prefix) in audit.places() {
        let listed = account.each(&container, &prefix, include, |blob| -> Result<(), Failure> {
            seen += 1;
            working.show(|| format!("listing blobs: {seen}"), "listing_blobs", || json!({ "blobs": seen }));
            audit.met(of_listing(&container, blob));
            Ok(())
        });
        match listed {
            // Then nothing of it is there, which is what is to be found out.
            Err(failure) if failure.is_missing() && failure.code == "ContainerNotFound" => {
                output.warning(&format!("the account has no container {container}"));
            }
            other => other.map_err(|failure| failure.problem())?,
        }
    }
    Ok(())
}

fn read_inventory(path: &Path, audit: &mut Audit, output: &Output) -> Result<(), Problems> {
    let failed = |error| Problem::new(Kind::Usage, format!("the inventory cannot be read: {error}")).path(path);
    let file = api::host::open_input(path, Pipes::Taken).map_err(failed)?;
    let mut inventory = Inventory::new(path, BufReader::with_capacity(1 << 20, file))?;
    if !inventory.has_md5() {
        output.warning("the inventory has no column Content-MD5: of no blob it says what is in it");
    }
    while let Some(blob) = inventory.next_blob()? {
        if blob.snapshot.is_some() {
            continue;
        }
        audit.met(There {
            path: blob.path,
            length: blob.length,
            is_pages: blob.kind.as_deref().and_then(BlobKind::parse).map(|kind| kind == BlobKind::Page),
            md5: blob.md5,
            etag: String::new(),
            properties: blob.content_type.map(|value| vec![("Content-Type".to_owned(), value)]),
            metadata: None,
        });
    }
    Ok(())
}

/// Proves content by what the account itself gives: block ids first, then the bytes. Gives how many were read.
fn read_back(
    account: &Account,
    audit: &mut Audit,
    (how, tried): (ReadHow, &mut HashSet<(usize, String)>),
    stop: &Stop,
    output: &Output,
) -> Result<u64, Problem> {
    let rows = audit.readings(how == ReadHow::All);
    let mut readings: Vec<Reading> = rows.iter().filter_map(|at| audit.reading(*at)).collect();
    // Each blob once.
    readings.retain(|reading| tried.insert((reading.row, reading.path.clone())));
    let total: u64 = readings.iter().map(|reading| reading.length).sum();
    let (next, done) = (AtomicUsize::new(0), AtomicU64::new(0));
    let results: Mutex<Vec<(usize, Result<Came, String>)>> = Mutex::new(Vec::new());
    let failed: Mutex<Option<Problem>> = Mutex::new(None);
    let working = output.working();
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS.min(readings.len()))
            .map(|_| {
                scope.spawn(|| {
                    let mut buffer = vec![0; RANGE];
                    while let Some(reading) = readings.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if stop.requested() || failed.lock().is_ok_and(|failed| failed.is_some()) {
                            break;
                        }
                        match one(account, reading, how, &mut buffer, &done) {
                            Ok(Some(came)) => {
                                if let Ok(mut results) = results.lock() {
                                    results.push((reading.row, came));
                                }
                            }
                            Ok(None) => {}
                            Err(problem) => {
                                if let Ok(mut failed) = failed.lock() {
                                    failed.get_or_insert(problem);
                                }
                            }
                        }
                    }
                })
            })
            .collect();
        while readers.iter().any(|reader| !reader.is_finished()) {
            let bytes = done.load(Ordering::Relaxed);
            working.show(
                || format!("reading back: {} of {}", ByteLen(bytes), ByteLen(total)),
                "reading_back",
                || json!({ "bytes": bytes, "of": total }),
            );
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    });
    if let Some(problem) = failed.into_inner().unwrap_or(None).filter(|problem| problem.kind != Kind::Interrupted) {
        return Err(problem);
    }
    for (row, came) in results.into_inner().unwrap_or_default() {
        match came {
            Ok(Came::Proven(proof)) => audit.proven(row, proof),
            Ok(Came::Sampled) => audit.note(row, "beginning and end were read back and are equal".into()),
            Ok(Came::Changed) => audit.note(row, "it was changed while it was read: audit it again".into()),
            Err(what) => audit.differs(row, what),
        }
    }
    Ok(done.into_inner())
}

/// Result of reading a blob.
enum Came {
    Proven(Proof),
    Sampled,
    Changed,
}

/// `None`: nothing was read. The inner error says what is different.
fn one(
    account: &Account,
    reading: &Reading,
    how: ReadHow,
    buffer: &mut [u8],
    done: &AtomicU64,
) -> Result<Option<Result<Came, String>>, Problem> {
    let Some((container, name)) = reading.path.split_once('/') else { return Ok(None) };
    let blob = (container, name, None);
    // Block ids made of the hashes: a list of them says it all, and costs one request.
    if how != ReadHow::All && !reading.ids.is_empty() {
        match account.block_list(blob, true) {
            Ok(found) if found == reading.ids => return Ok(Some(Ok(Came::Proven(Proof::BlockIds)))),
            Ok(_) => {}
            Err(failure) if failure.is_missing() => return Ok(Some(Err("it is gone since it was listed".into()))),
            Err(failure) => return Err(failure.problem()),
        }
    }
    if how == ReadHow::None {
        return Ok(None);
    }
    let condition = match reading.etag.as_str() {
        "" => Condition::default(),
        etag => Condition::same(&quoted(etag)),
    };
    let fetch = |offset: u64, into: &mut [u8]| -> Result<bool, Problem> {
        match account.read(blob, offset, into, &condition) {
            Ok(_) => {
                done.fetch_add(into.len() as u64, Ordering::Relaxed);
                Ok(true)
            }
            Err(failure) if failure.is_condition() || failure.is_missing() => Ok(false),
            Err(failure) => Err(failure.problem()),
        }
    };
    let is_sample = how == ReadHow::Sample;
    if reading.pieces.is_empty() {
        let Some(path) = &reading.source else { return Ok(None) };
        return compare(path, reading.length, is_sample, buffer, fetch).map(Some);
    }
    let last = reading.pieces.len() - 1;
    for (index, piece) in reading.pieces.iter().enumerate() {
        if is_sample && index != 0 && index != last {
            continue;
        }
        let mut sum = api::hash::Md5::new();
        let (mut at, end) = (piece.offset, piece.offset + piece.len);
        while at < end {
            let len = (end - at).min(buffer.len() as u64) as usize;
            if !fetch(at, &mut buffer[..len])? {
                return Ok(Some(Ok(Came::Changed)));
            }
            sum.update(&buffer[..len]);
            at += len as u64;
        }
        if sum.finish() != piece.md5 {
            return Ok(Some(Err(format!("bytes {} to {end} are other ones than were sent", piece.offset))));
        }
    }
    Ok(Some(Ok(if is_sample && last > 1 { Came::Sampled } else { Came::Proven(Proof::ReadBack) })))
}

/// An ETag as conditions want it; listings leave its quotes out.
fn quoted(etag: &str) -> String {
    if etag.starts_with('"') || etag.starts_with("W/") { etag.to_owned() } else { format!("\"{etag}\"") }
}

/// Source and blob, byte by byte.
fn compare(
    path: &Path,
    length: u64,
    is_sample: bool,
    buffer: &mut [u8],
    fetch: impl Fn(u64, &mut [u8]) -> Result<bool, Problem>,
) -> Result<Result<Came, String>, Problem> {
    use std::os::unix::fs::FileExt;
    let failed = |error| Problem::new(Kind::Source, format!("the source cannot be read: {error}")).path(path);
    let file: File = api::host::open_input(path, Pipes::Refused).map_err(failed)?;
    let mut own = vec![0; buffer.len()];
    let step = buffer.len() as u64;
    let last = (length.saturating_sub(1)) / step;
    for index in 0..=last {
        if is_sample && index != 0 && index != last {
            continue;
        }
        let at = index * step;
        let len = (length - at).min(step) as usize;
        match file.read_exact_at(&mut own[..len], at) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Ok(Err("the source is shorter than it was when it was listed".into()));
            }
            Err(error) => return Err(failed(error)),
        }
        if !fetch(at, &mut buffer[..len])? {
            return Ok(Ok(Came::Changed));
        }
        if let Some(other) = own[..len].iter().zip(&buffer[..len]).position(|(own, there)| own != there) {
            return Ok(Err(format!("byte {} is another than in the source", at + other as u64)));
        }
    }
    Ok(Ok(if is_sample && last > 1 { Came::Sampled } else { Came::Proven(Proof::ReadBack) }))
}

fn as_json(row: &Audited) -> Value {
    json!({
        "verdict": row.finding.word(),
        "blob": row.blob,
        "renamed": row.renamed,
        "length": row.length,
        "content": row.content.word(),
        "proof": row.proof.map(Proof::word),
        "properties": row.rest.word(),
        "source": row.source.as_ref().map(|path| path.to_string_lossy().into_owned()).or_else(|| row.file.clone()),
        "notes": row.notes,
    })
}

/// A row of the dataset of what is left: a source, and whether it replaces what is there in its place.
struct Left {
    origin: Origin,
    replaces: bool,
}

impl Left {
    /// A blob of the dataset that is not as it would be sent.
    fn of_audited(row: Audited) -> Option<Self> {
        let replaces = row.finding != Finding::Missing;
        let Audited { blob, is_pages, disposition, metadata_file, properties_file, .. } = row;
        let source = row.source?;
        Some(Self { origin: Origin { blob, source, is_pages, disposition, metadata_file, properties_file }, replaces })
    }
}

/// Writes what is left to send: of the dataset, or of the sources that were compared with manifests.
fn keep_left(
    file: api::host::OutputFile,
    remains: Vec<Audited>,
    compared: Option<&Compared>,
    output: &Output,
) -> Result<(), Problem> {
    let Some(compared) = compared else {
        return write_left(file, remains.into_iter().filter_map(Left::of_audited));
    };
    if !compared.is_whole {
        // A list that lacks something would be taken for the whole.
        output.warning("the sources were not compared to the end: no dataset of what is left is written");
        return Ok(());
    }
    let mut remains: HashMap<String, Finding> = remains.into_iter().map(|row| (row.blob, row.finding)).collect();
    let needed = compared.changes.iter().filter(|change| change.is_needed());
    // The account has what a new source's name names by accident only: the row of the dataset decides.
    let needed: HashMap<&str, bool> =
        needed.map(|change| (change.blob.as_str(), change.change != Change::New)).collect();
    let left: Vec<Left> = compared
        .origins()
        .filter_map(|origin| {
            let replaces = match (remains.remove(&origin.blob), needed.get(origin.blob.as_str())) {
                (Some(finding), _) => finding != Finding::Missing,
                (None, Some(replaces)) => *replaces,
                (None, None) => return None,
            };
            Some(Left { origin, replaces })
        })
        .collect();
    let mut gone: Vec<&String> = remains.keys().collect();
    gone.sort();
    if let Some(first) = gone.first() {
        output.warning(&format!(
            "{} not in the account as sent, and no source of the dataset is left for: {}{}",
            count(gone.len() as u64, "blob"),
            clean(first),
            if gone.len() > 1 { ", …" } else { "" }
        ));
    }
    write_left(file, left.into_iter())
}

/// One row a blob, with what the dataset's own row said of it.
fn write_left(mut file: api::host::OutputFile, rows: impl Iterator<Item = Left>) -> Result<(), Problem> {
    file.add(format!("{LEFT_HEAD}\n").as_bytes())?;
    let cell = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    for Left { origin: row, replaces } in rows {
        use std::os::unix::ffi::OsStrExt;
        let mut line = b"\"".to_vec();
        line.extend(row.source.as_os_str().as_bytes().iter().flat_map(|&byte| {
            let count = if byte == b'"' { 2 } else { 1 };
            std::iter::repeat_n(byte, count)
        }));
        let kind = if row.is_pages { "PageBlob" } else { "BlockBlob" };
        // What is there in its place is not what was sent.
        let disposition = if replaces { "overwrite" } else { row.disposition.as_str() };
        let side =
            |path: &Option<PathBuf>| path.as_ref().map_or("None".to_owned(), |path| cell(&path.to_string_lossy()));
        line.extend(
            format!(
                "\",{},{kind},{disposition},{},{}\n",
                cell(&row.blob),
                side(&row.metadata_file),
                side(&row.properties_file)
            )
            .bytes(),
        );
        file.add(&line)?;
    }
    file.finish()
}

fn page_of(outcome: &AuditOutcome) -> Page {
    let lead = format!("{} · {}", outcome.asked, api::host::timestamp().strftime("%Y-%m-%d %H:%M UTC"));
    let mut page = Page::new("Audit: may the sources go?", &lead);
    let (tone, word, sentence) = outcome.headline();
    page.verdict(tone, word, &sentence);
    let rows: Vec<Vec<String>> = ORDER
        .iter()
        .zip(&outcome.sums)
        .map(|(finding, sum)| vec![finding.word().into(), sum.blobs.to_string(), ByteLen(sum.bytes).to_string()])
        .collect();
    page.table(&[Column::text(""), Column::number("blobs"), Column::number("bytes")], &rows);
    let mut facts = vec![
        ("Tool", format!("dray {}", env!("CARGO_PKG_VERSION"))),
        ("Asked", outcome.asked.clone()),
        ("Read back", ByteLen(outcome.bytes_read).to_string()),
        ("Under another name", count(outcome.renamed, "blob")),
    ];
    for (proof, blobs) in &outcome.proofs {
        facts.push(("Proven by", format!("{}: {}", proof.word(), count(*blobs, "blob"))));
    }
    for (id, path, md5) in &outcome.drives {
        facts.push(("Manifest", format!("{id}: {} · MD5 {md5}", path.display())));
    }
    for id in &outcome.without_manifest {
        facts.push(("Without a manifest", id.clone()));
    }
    page.facts(facts);
    if !outcome.bad.is_empty() {
        page.section("What is not as it was sent, or has another name");
        let rows: Vec<Vec<String>> = outcome
            .bad
            .iter()
            .map(|row| {
                let blob = row.renamed.as_ref().map_or(row.blob.clone(), |now| format!("{} → {now}", row.blob));
                vec![row.finding.word().into(), blob, ByteLen(row.length).to_string(), row.notes.join("; ")]
            })
            .collect();
        let columns =
            [Column::word("verdict"), Column::code("blob"), Column::number("size"), Column::long("what was seen")];
        page.table(&columns, &rows);
        if outcome.bad.len() == PAGE_ROWS_MAX {
            page.note("These are the first; a list (--list) has all.");
        }
    }
    if let Some(changes) = outcome.changes.as_ref().filter(|changes| !changes.is_empty()) {
        page.section("Sources that are not as they were sent");
        let rows: Vec<Vec<String>> = changes
            .iter()
            .take(PAGE_ROWS_MAX)
            .map(|one| {
                let (word, note) = words_of(&one.change);
                let source = one.source.as_ref().map_or_else(String::new, |path| path.display().to_string());
                vec![word.into(), one.blob.clone(), source, note.unwrap_or_default()]
            })
            .collect();
        let columns = [Column::word("change"), Column::code("blob"), Column::code("source"), Column::long("note")];
        page.table(&columns, &rows);
    }
    page.section("Signature");
    page.raw(
        "<dl><div><dt>Name</dt><dd>&nbsp;<br>________________________</dd></div>\
         <div><dt>Date</dt><dd>&nbsp;<br>________________________</dd></div>\
         <div><dt>Signature</dt><dd>&nbsp;<br>________________________</dd></div></dl>",
    );
    page
}

fn tell(output: &Output, outcome: &AuditOutcome) {
    let (tone, word, sentence) = outcome.headline();
    let sums: serde_json::Map<String, Value> = ORDER
        .iter()
        .zip(&outcome.sums)
        .map(|(finding, sum)| (finding.word().to_owned(), json!({ "count": sum.blobs, "bytes": sum.bytes })))
        .collect();
    let value = json!({
        "word": word,
        "sentence": sentence,
        "asked": outcome.asked,
        "counts": sums,
        "renamed": outcome.renamed,
        "proofs": outcome.proofs.iter().map(|(proof, blobs)| {
            json!({ "proof": proof.word(), "count": blobs })
        }).collect::<Vec<_>>(),
        "bytes_read": outcome.bytes_read,
        "manifests": outcome.drives.iter().map(|(id, path, md5)| {
            json!({ "drive_id": id, "path": path.to_string_lossy(), "md5": md5 })
        }).collect::<Vec<_>>(),
        "without_manifest": outcome.without_manifest,
        "sources_changed": outcome.changes.as_ref().map(Vec::len),
        "by_log_alone": outcome.by_log,
        "good": outcome.exit() == Exit::Done,
        "exit_code": outcome.exit().code(),
    });
    if output.result("audit", value) {
        return;
    }
    let style = output.style();
    let shown = match tone {
        Tone::Good => style.green(word),
        Tone::Bad => style.red(word),
        _ => style.yellow(word),
    };
    let mut text = String::new();
    for (finding, sum) in ORDER.iter().zip(&outcome.sums).filter(|(_, sum)| sum.blobs > 0) {
        text.push_str(&labelled(finding.word(), &format!("{} ({})", count(sum.blobs, "blob"), ByteLen(sum.bytes))));
    }
    for (proof, blobs) in &outcome.proofs {
        text.push_str(&labelled("proven by", &format!("{}: {}", proof.word(), count(*blobs, "blob"))));
    }
    if outcome.bytes_read > 0 {
        text.push_str(&labelled("read back", &ByteLen(outcome.bytes_read).to_string()));
    }
    output.chat(&text);
    let mut rows = String::new();
    for row in outcome.bad.iter().take(SHOWN_MAX) {
        let name = row.renamed.as_ref().map_or(row.blob.clone(), |now| format!("{}, now {now}", row.blob));
        let notes = if row.notes.is_empty() { String::new() } else { format!(": {}", row.notes.join("; ")) };
        rows.push_str(&format!("  {} {}{notes}\n", row.finding.word(), clean(&name)));
    }
    if outcome.bad.len() > SHOWN_MAX {
        rows.push_str("  more: --list has all\n");
    }
    for one in outcome.changes.iter().flatten().take(SHOWN_MAX) {
        let (word, note) = words_of(&one.change);
        let note = note.map(|note| format!(": {note}")).unwrap_or_default();
        rows.push_str(&format!("  source {word} {}{note}\n", clean(&one.blob)));
    }
    output.say(&rows);
    for id in &outcome.without_manifest {
        output.warning(&format!("drive {id} of the journal: its manifest is not among those given"));
    }
    output.say(&wrap(&format!("{shown}: {sentence}\n"), ""));
}
