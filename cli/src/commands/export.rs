//! `dray export`: blobs of an account onto drives, as the service exports them.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{ArgGroup, Args};
use dray_account::{Account, Endpoint};
use dray_engine::api;
use dray_engine::api::account::Exported;
use dray_engine::api::account::{Contents, KeptBlob, ListedBlobs, Selection, bloblist, exported};
use dray_engine::api::host::{OutputFile, OutputForm, Outputs, Pipes};
use dray_engine::api::prepare::{Action, PrepRequest, Prepared, RowConsent, SizeClass, Stop};
use dray_engine::api::records::SessionState;
use dray_engine::report::{Event, Kind, Part, PlanSummary, Problem, Problems, SessionReport, Setting};
use dray_engine::units::{ByteLen, SectorSize};
use dray_service::export::logs::{self, LogsOf};
use dray_service::export::report::paths_of;
use dray_service::export::{self, AccountContents, Gathered, Options, Refused};
use serde_json::json;

use crate::account::AccountArgs;
use crate::args::size;
use crate::commands::prep::{
    self, ANY_HELP, CipherName, Ended, HOSTS_HELP, PreparedSession, TableName, WritingArgs, drive_id,
};
use crate::commands::{abort, about};
use crate::consent::Consent;
use crate::exit::Exit;
use crate::render::{Output, clean, count, watched};
use crate::shard::export::{self as export_shards, NewShards};
use crate::signals::{self, Signals};

const EXAMPLE: &str = "\
Example:
  dray export --journal export.jrn --id export#1 --blob-list list.xml \\
      --endpoint ACCOUNT --account-key-file key.txt --driveset driveset.csv
  dray export … --driveset driveset.csv --shards /srv/shards    # many machines: then dray shard run";

/// Longest blob list that is read.
const LIST_MAX: u64 = 1 << 30;
/// Blobs shown of those that are on no drive.
const SHOWN_MAX: usize = 20;

/// The list of blobs that are on no drive: it may replace an earlier one.
pub const FORM: OutputForm = OutputForm {
    name: "the list of blobs that are on no drive",
    is_earlier: |head| head.windows(10).any(|part| part == b"<BlobList>"),
    private: false,
};

/// Arguments of `dray export`.
#[derive(Args, Clone, Debug)]
#[command(
    override_usage = "dray export --journal <FILE> --id <ID> --blob-list <FILE> \\\n         \
                      --endpoint <URL> --driveset <CSV> [OPTIONS]",
    group(ArgGroup::new("act").args(["resume", "abort"])),
    after_help = EXAMPLE,
    after_long_help = format!("{EXAMPLE}\n\n{}", Exit::help())
)]
pub struct Export {
    /// Journal of the session; created if it does not exist
    #[arg(long, value_name = "FILE")]
    journal: PathBuf,
    /// Session id: 3 to 30 letters, digits, '_', '-', '#'
    #[arg(long, value_name = "ID")]
    id: String,
    /// Blobs to export: a blob list with BlobPath and BlobPathPrefix, as in the job
    #[arg(long, value_name = "FILE.xml", required_unless_present = "act", conflicts_with = "act")]
    blob_list: Option<PathBuf>,
    /// Driveset CSV: the drives to fill
    #[arg(long, value_name = "CSV", conflicts_with = "act")]
    #[arg(required_unless_present_any = ["act", "hosts", "any_drive_of"])]
    driveset: Option<PathBuf>,
    /// When resuming: driveset CSV of drives that join, for blobs that are on none
    #[arg(long, value_name = "CSV", requires = "resume")]
    additional_driveset: Option<PathBuf>,
    /// Snapshots of the blobs too
    #[arg(long, conflicts_with = "act")]
    snapshots: bool,
    /// Requests to the account at once
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=256))]
    requests: u32,
    /// Blob list of what is on no drive [default: ID-incomplete.xml, with the logs]
    #[arg(long, value_name = "FILE.xml")]
    incomplete: Option<PathBuf>,
    /// Directory of the logs
    #[arg(long, value_name = "DIR")]
    logdir: Option<PathBuf>,
    /// Ask nothing: consent must come by --yes, or by SilentMode in the driveset
    #[arg(long)]
    silent: bool,
    /// Full serial of a drive whose contents may be destroyed
    #[arg(long, value_name = "SERIAL", num_args = 1.., value_delimiter = ',')]
    yes: Vec<String>,
    /// Resume the last session, which ended abnormally, or left blobs without a drive
    #[arg(long)]
    resume: bool,
    /// Roll back the last session, which ended abnormally
    #[arg(long)]
    abort: bool,
    /// When resuming: move blobs of missing drives, and of these, to others
    #[arg(
        long,
        value_name = "SERIAL",
        num_args = 0..=1,
        default_missing_value = "",
        value_delimiter = ',',
        require_equals = true,
        requires = "resume"
    )]
    replan: Option<Vec<String>>,
    /// Show the plan; write nothing, and change nothing in the account
    #[arg(long)]
    dry_run: bool,
    /// Write no drive: split the plan by drive into this new directory, for `dray shard run` on any host
    #[arg(long, value_name = "DIR", conflicts_with_all = ["act", "dry_run", "incomplete"])]
    shards: Option<PathBuf>,
    /// Hosts of the drives, and drives that are not attached here
    #[arg(long, value_name = "TOML", requires = "shards")]
    #[arg(long_help = HOSTS_HELP)]
    hosts: Option<PathBuf>,
    /// Plan for drives of this size, whichever they are: each shard takes the first free one
    #[arg(long, value_name = "SIZE", value_parser = prep::drive_size, requires = "shards")]
    #[arg(conflicts_with_all = ["hosts", "driveset"])]
    #[arg(long_help = ANY_HELP)]
    any_drive_of: Option<ByteLen>,
    /// Cipher of the volume
    #[arg(long, value_name = "CIPHER", default_value = "aes-cbc-256", help_heading = "Layout")]
    cipher: CipherName,
    /// Cluster size, 512 to 2M [default: as Windows chooses]
    #[arg(long, value_name = "SIZE", value_parser = size::cluster, help_heading = "Layout")]
    cluster_size: Option<u64>,
    /// Partition table
    #[arg(long, value_name = "KIND", default_value = "gpt", help_heading = "Layout")]
    table: TableName,
    /// Encrypt zeros over the free space too, and zero what no partition has
    #[arg(long, help_heading = "Layout")]
    wipe_free: bool,
    /// Also write a .BEK key file into this directory
    #[arg(long, value_name = "DIR", help_heading = "Layout")]
    external_key: Option<PathBuf>,
    /// Drive id by hand; without SERIAL= for the only drive
    #[arg(long, value_name = "[SERIAL=]ID", value_parser = drive_id, help_heading = "Layout")]
    drive_id: Vec<(String, String)>,
    /// Accept drives that are not shipped (images, virtual)
    #[arg(long, help_heading = "Layout")]
    not_for_shipping: bool,
    /// Logical sector size of new image files, 512 or 4096
    #[arg(long, value_name = "SIZE", value_parser = size::sector, help_heading = "Layout")]
    sector_size: Option<u64>,
    #[command(flatten)]
    writing: WritingArgs,
    #[command(flatten)]
    account: AccountArgs,
}

/// Selectors of a new export, the account, and the list of what is on no drive, begun at its place; none where shards are
/// made.
type Inputs = (Option<Selection>, Arc<Account>, Option<(PathBuf, OutputFile)>);

/// An export that is planned.
pub struct Planned {
    prepared: Prepared,
    contents: Arc<dyn Contents>,
    requests: usize,
}

impl Planned {
    /// A session whose drives are filled from `account`, with so many requests at once.
    pub fn new(prepared: Prepared, account: &Arc<Account>, requests: usize) -> Self {
        let exported = prepared.exported().unwrap_or_default();
        let contents = Arc::new(AccountContents::new(Arc::clone(account), exported));
        Self { prepared, contents, requests }
    }
}

impl PreparedSession for Planned {
    fn summary(&self) -> &PlanSummary {
        self.prepared.summary()
    }

    fn drives_needing_consent(&self) -> Vec<usize> {
        self.prepared.drives_needing_consent()
    }

    fn row_consent(&self, drive: usize) -> RowConsent {
        self.prepared.row_consent(drive)
    }

    fn bystanders(&self) -> &[String] {
        self.prepared.bystanders()
    }

    fn run(self, consented: &[usize], events: &(dyn Fn(Event) + Sync), stop: &Stop) -> Result<SessionReport, Problems> {
        self.prepared.run_from(Some((self.contents, self.requests)), consented, events, stop)
    }
}

/// Facts known before the drives are written, for the report afterwards.
struct Facts {
    exported: Arc<Exported>,
    catalog: Arc<api::prepare::Catalog>,
    unplaced: Vec<u32>,
}

impl Facts {
    fn of(prepared: &Prepared) -> Option<Self> {
        let exported = prepared.exported()?;
        Some(Self { exported, catalog: prepared.catalog(), unplaced: prepared.unplaced().to_vec() })
    }

    /// Snapshots that were taken of blobs in use.
    fn taken(&self) -> Vec<(String, String)> {
        self.exported.taken().map(|(path, time)| (path.to_owned(), time.to_owned())).collect()
    }

    /// Files of the catalog that were left out of drives, with the reasons.
    fn left_out(&self, all: &[(PathBuf, String)]) -> Vec<(u32, String)> {
        let mut wanted: HashMap<&PathBuf, &String> = all.iter().map(|(path, why)| (path, why)).collect();
        if wanted.is_empty() {
            return Vec::new();
        }
        let files = 0..self.catalog.files().len() as u32;
        files.filter_map(|file| Some((file, wanted.remove(&self.catalog.source_path(file))?.clone()))).collect()
    }
}

/// What a new export found in the account, or what is kept of an earlier run, at `place`: the files of the drives, the blobs
/// that cannot be exported, and the report of what is on no drive.
///
/// # Errors
/// What was kept is damaged.
fn taken_apart(
    gathered: Option<Gathered>,
    place: &Path,
) -> Result<(Option<ListedBlobs>, Vec<KeptBlob>, Missing), Problem> {
    let (mut listed, mut missing) = (None, Missing::default());
    let refused: Vec<KeptBlob> = match gathered {
        Some(gathered) => {
            missing.nonexistent = gathered.nonexistent;
            listed = Some(gathered.listed);
            gathered.refused.iter().map(kept).collect()
        }
        None => kept_blobs(place)?,
    };
    missing.take(&refused);
    Ok((listed, refused, missing))
}

/// The blobs that an earlier run kept at `place`; none, if it kept no list.
///
/// # Errors
/// The list is damaged: taken for an empty one, it would hide what is on no drive.
pub fn kept_blobs(place: &Path) -> Result<Vec<KeptBlob>, Problem> {
    match exported::read(place) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.map_err(|error| {
            let what = format!("the list of exported blobs cannot be used: {error}");
            Problem::new(Kind::Environment, what).path(place).advice("restore the file as it was written")
        }),
    }
}

/// Keeps the blobs that cannot be exported: a run that goes on does not ask the account again.
pub fn keep_refused(place: &Path, refused: &[KeptBlob]) -> Result<(), Problem> {
    exported::keep(place, refused).map_err(|error| {
        let what = format!("the list of blobs that cannot be exported cannot be written: {error}");
        Problem::new(Kind::Environment, what).path(place).advice("make room on the journal's disk")
    })
}

fn kept(refused: &Refused) -> KeptBlob {
    let Refused { path, snapshot, length, why } = refused.clone();
    KeptBlob { path, snapshot, length, left_out: Some(why), ..KeptBlob::default() }
}

/// Writes the copy logs of the session's drives that are done and have none yet: this run's, and those that an earlier run
/// finished before it was cut off. The first has the blobs that cannot be exported, too.
pub fn write_logs((journal, id): (&Path, &str), dir: &Path, output: &Output) {
    let ledger = api::records::read_journal(journal).unwrap_or_default().ledger;
    let Some(session) = ledger.last().filter(|session| session.id == id) else { return };
    let refused = exported::place_refused(journal, id);
    let done = session.drives.iter().filter(|drive| drive.state == SessionState::Completed);
    let mut all_written = true;
    for (i, drive_id) in done.map(|drive| &*drive.drive_id).enumerate() {
        let part = exported::place(journal, id, drive_id);
        if !part.exists() {
            continue;
        }
        let manifest = api::prepare::kept_manifest(journal, drive_id);
        let write = || -> std::io::Result<()> {
            let mut blobs = exported::read(&part)?;
            if i == 0 && refused.exists() {
                blobs.extend(exported::read(&refused)?);
            }
            logs::write(dir, &LogsOf { job: id, drive_id, manifest: &manifest, blobs: &blobs })?;
            std::fs::remove_file(&part)
        };
        if let Err(error) = write() {
            // The drive is done in any case.
            output.warning(&format!("drive {}: its copy logs cannot be written: {error}", clean(drive_id)));
            all_written = false;
        }
    }
    if session.state == SessionState::Completed && all_written {
        let _ = std::fs::remove_file(&refused);
    }
}

impl Export {
    fn request(&self) -> PrepRequest {
        let action = match (self.resume, self.abort) {
            (true, _) => Action::Resume,
            (_, true) => Action::Abort,
            _ => Action::Copy,
        };
        let request = PrepRequest::new(&self.journal, &self.id);
        self.writing.apply(PrepRequest {
            about: about::lines(),
            initial_driveset: self.driveset.clone(),
            additional_driveset: self.additional_driveset.clone(),
            logdir: self.logdir.clone(),
            cipher: self.cipher.name(),
            cluster_size: self.cluster_size,
            table: self.table.table(),
            wipe_free: self.wipe_free,
            external_key: self.external_key.clone(),
            drive_ids: self.drive_id.clone(),
            not_for_shipping: self.not_for_shipping,
            sector_size: self.sector_size,
            replan: self.replan.as_ref().map(|ids| ids.iter().filter(|id| !id.is_empty()).cloned().collect()),
            action,
            exports: true,
            ..request
        })
    }

    /// Exports, continues an export, or gives it up.
    pub fn run(self, output: &Output) -> Exit {
        let consent = Consent { silent: self.silent, serials: self.yes.clone() };
        let request = self.request();
        if self.abort {
            return abort::run(request, &consent, self.dry_run, output);
        }
        if api::prepare::is_complete(&request) {
            write_logs((&request.journal, &request.session), &self.logs_beside(), output);
            // Says so.
            return prep::session(request, &consent, self.dry_run, output).exit;
        }
        let signals = match Signals::install(signals::SESSION) {
            Ok(signals) => signals,
            Err(error) => {
                return output.problem(Problem::new(Kind::Environment, format!("signals cannot be caught: {error}")));
            }
        };
        let ended = match &self.shards {
            Some(dir) => self.split(dir, request, output, &signals),
            None => self.export(request, &consent, output, &signals),
        };
        match ended {
            Ok(exit) => exit,
            Err(problems) => {
                let problems = Problems(problems.0.into_iter().map(in_words_of_export).collect());
                output.problems(&problems);
                Exit::of_problems(&problems)
            }
        }
    }

    /// The blob list and the account, with everything that is wrong with them.
    fn inputs(&self, request: &PrepRequest, output: &Output, stop: &Stop) -> Result<Inputs, Problems> {
        let mut problems = Problems::default();
        let mut selection = None;
        if let Some(path) = &self.blob_list {
            let failed = |error: std::io::Error| {
                Problem::new(Kind::Usage, format!("the blob list cannot be read: {error}")).path(path)
            };
            let bytes = api::host::read_input(path, LIST_MAX, Pipes::Taken).map_err(failed);
            match bytes.map_err(Problems::from).and_then(|bytes| bloblist::read(path, &bytes[..])) {
                Ok(list) => {
                    list.warnings.iter().for_each(|warning| output.note(warning));
                    selection = Some(Selection::new(&list.selectors));
                }
                Err(more) => problems.0.extend(more.0),
            }
        }
        let account = match self.account.open(Some(stop.clone())) {
            Ok(Some(account)) => Some(account),
            Ok(None) => {
                let problem = Problem::new(Kind::Usage, "the account is missing").column("--endpoint");
                problems.push(problem.advice("name its blob endpoint: --endpoint https://NAME.blob.core.windows.net"));
                None
            }
            Err(problem) => {
                problems.push(problem);
                None
            }
        };
        let incomplete = match self.shards {
            Some(_) => None,
            None => self.incomplete_list().map_err(|problem| problems.push(problem)).ok(),
        };
        problems.0.extend(self.preflight(request));
        problems.into_result()?;
        match account {
            Some(account) => Ok((selection, Arc::new(account), incomplete)),
            None => Err(Problem::new(Kind::Internal, "inputs are missing without a reason").into()),
        }
    }

    /// Problems of journal, directories and drives, reported before the first request to the account.
    fn preflight(&self, request: &PrepRequest) -> Vec<Problem> {
        // A driveset from a pipe can be read once.
        let is_file = self.driveset.as_ref().is_some_and(|path| !path.exists() || path.is_file());
        let Some(nothing) = export::nothing().filter(|_| is_file) else { return Vec::new() };
        let checked = api::account::prepare_export(request.clone(), Some(nothing), &mut |_| ());
        checked.err().map(|problems| problems.0).unwrap_or_default()
    }

    /// Directory of the logs, where the session does not say it.
    fn logs_beside(&self) -> PathBuf {
        self.logdir.clone().unwrap_or_else(|| dir_of(&self.journal))
    }

    fn incomplete_list(&self) -> Result<(PathBuf, OutputFile), Problem> {
        let path = self.incomplete.clone().unwrap_or_else(|| {
            let dir = self.logs_beside();
            // Not there yet, the log directory is made with the session.
            let dir = if dir.is_dir() { dir } else { dir_of(&self.journal) };
            dir.join(incomplete_name(&self.id))
        });
        let mut outputs = Outputs::default();
        self.blob_list.iter().for_each(|path| outputs.input(path, "the blob list"));
        self.driveset.iter().chain(&self.additional_driveset).for_each(|path| outputs.input(path, "the driveset"));
        self.account.files().for_each(|path| outputs.input(path, "the credential"));
        outputs.input(&self.journal, "the journal");
        outputs.reserve(&self.journal, "the journal");
        outputs.begin(&path, FORM).map(|list| (path, list))
    }

    /// What the account says of the blobs that are selected.
    fn gathered(&self, mut selection: Selection, account: &Account, output: &Output) -> Result<Gathered, Problems> {
        let options =
            Options { snapshots: self.snapshots, may_snapshot: !self.dry_run, requests: self.requests as usize };
        let scan = output.scan();
        let found = export::gather(account, &mut selection, options, &mut |event| scan.event(&event));
        scan.end();
        let found = found?;
        if let Some(first) = found.unsnapped.first() {
            let what = format!(
                "{} in use, and the credential does not allow snapshots, so that they are read as they are; one that \
                 changes meanwhile is left out",
                match found.unsnapped.len() {
                    1 => "1 blob is".to_owned(),
                    n => format!("{n} blobs are"),
                }
            );
            output.note(&Problem::new(Kind::Usage, what).value(first.clone()));
        }
        Ok(found)
    }

    /// Plans, and splits the plan by drive.
    fn split(&self, dir: &Path, request: PrepRequest, output: &Output, signals: &Signals) -> Result<Exit, Problems> {
        let new = NewShards::of(dir, self.hosts.as_deref())?;
        let sector = self.sector_size.and_then(SectorSize::from_bytes).unwrap_or(SectorSize::S512);
        let any_drive_of = self.any_drive_of.map(|size| SizeClass { size, sector });
        let request = PrepRequest { absent: new.hosts.absent.clone(), any_drive_of, ..request };
        let (Some(selection), account, _) = self.inputs(&request, output, &signals.stop)? else {
            return Err(Problem::new(Kind::Internal, "a new export without selectors").into());
        };
        let gathered = self.gathered(selection, &account, output)?;
        let taken = gathered.taken.clone();
        let (listed, refused, missing) = taken_apart(Some(gathered), Path::new(""))?;
        let (exit, is_made) =
            export_shards::split(new, request, (listed, &refused), account.endpoint(), output, signals);
        if !is_made {
            forget_snapshots(&account, &taken, output);
            return Ok(exit);
        }
        missing.tell(output);
        let is_whole = missing.refused.is_empty() && missing.nonexistent.is_empty();
        Ok(if exit == Exit::Done && !is_whole { Exit::LeftOut } else { exit })
    }

    fn export(
        &self,
        request: PrepRequest,
        consent: &Consent,
        output: &Output,
        signals: &Signals,
    ) -> Result<Exit, Problems> {
        let (selection, account, incomplete) = self.inputs(&request, output, &signals.stop)?;
        let Some(incomplete) = incomplete else {
            return Err(Problem::new(Kind::Internal, "the list of what is on no drive has no place").into());
        };
        let gathered = selection.map(|selection| self.gathered(selection, &account, output)).transpose()?;
        let taken = gathered.as_ref().map(|gathered| gathered.taken.clone()).unwrap_or_default();
        let has_begun = &mut false;
        let ended = self.session(request, gathered, &account, incomplete, consent, output, signals, has_begun);
        if !*has_begun {
            forget_snapshots(&account, &taken, output);
        }
        ended
    }

    #[expect(clippy::too_many_arguments, reason = "what an export consists of")]
    fn session(
        &self,
        request: PrepRequest,
        gathered: Option<Gathered>,
        account: &Arc<Account>,
        incomplete: (PathBuf, OutputFile),
        consent: &Consent,
        output: &Output,
        signals: &Signals,
        has_begun: &mut bool,
    ) -> Result<Exit, Problems> {
        let place = exported::place_refused(&request.journal, &request.session);
        let is_new = gathered.is_some();
        let (listed, refused, mut missing) = taken_apart(gathered, &place)?;
        let asked = request.clone();
        let scan = output.scan();
        let prepared = watched(
            "checking and planning",
            |text| output.warning(&text),
            |beat| {
                api::account::prepare_export(request, listed, &mut |event| {
                    beat();
                    scan.event(&event);
                })
            },
        );
        scan.end();
        let prepared = prepared?;
        let Some(facts) = Facts::of(&prepared) else {
            return Err(Problem::new(Kind::Internal, "an export without a listing").into());
        };
        is_of_plan(&facts.exported.endpoint, account)?;
        let planned = Planned::new(prepared, account, self.requests as usize);
        if is_new && !refused.is_empty() && !self.dry_run {
            keep_refused(&place, &refused)?;
        }
        let Ended { exit, report } = prep::carry_out(planned, consent, self.dry_run, output, signals);
        if is_new && report.is_none() {
            let _ = std::fs::remove_file(&place);
        }
        missing.paths.extend(paths_of(&facts.exported, facts.unplaced.iter().copied()).into_iter().map(str::to_owned));
        missing.waiting = facts.unplaced.iter().filter(|file| facts.exported.blob(**file).is_some()).count() as u64;
        if let Some(report) = &report {
            *has_begun = true;
            if report.waiting == 0 && report.open.is_empty() {
                forget_snapshots(account, &facts.taken(), output);
            }
            let dir = report.log.as_ref().and_then(|log| log.parent()).filter(|dir| !dir.as_os_str().is_empty());
            write_logs(
                (&asked.journal, &asked.session),
                &dir.map_or_else(|| self.logs_beside(), PathBuf::from),
                output,
            );
            let left_out: Vec<_> = report.drives.iter().flat_map(|drive| drive.left_out.iter().cloned()).collect();
            for (file, why) in facts.left_out(&left_out) {
                if let Some(blob) = facts.exported.blob(file) {
                    missing.paths.insert(blob.path.clone());
                    missing.refused.push((blob.path.clone(), why));
                }
            }
            missing.keep(incomplete, output)?;
        }
        missing.tell(output);
        let is_whole = missing.refused.is_empty() && missing.nonexistent.is_empty();
        let exit = if exit == Exit::Done && !is_whole { Exit::LeftOut } else { exit };
        Ok(exit)
    }
}

/// Refuses an account other than that of the plan, of which this is the endpoint: no blob of the plan would be found in it,
/// and each drive be finished without any.
///
/// # Errors
/// It is another, or the plan's endpoint is none.
pub fn is_of_plan(endpoint: &str, account: &Account) -> Result<(), Problem> {
    let planned = Endpoint::parse(endpoint, "the plan", "https://NAME.blob.core.windows.net")?;
    if planned.account() == account.name() {
        return Ok(());
    }
    Err(Problem::new(Kind::Refused, "is not the account that the export was planned with")
        .setting(Setting::Endpoint)
        .value(account.name().to_owned())
        .advice(format!("name {endpoint}")))
}

/// Directory of a journal.
pub fn dir_of(journal: &Path) -> PathBuf {
    journal.parent().filter(|dir| !dir.as_os_str().is_empty()).map_or(".".into(), PathBuf::from)
}

/// Name of the list of what is on no drive.
pub fn incomplete_name(id: &str) -> String {
    format!("{id}-incomplete.xml")
}

/// Rewords a problem that names options of `prep-import`.
fn in_words_of_export(mut problem: Problem) -> Problem {
    let own = |setting| match setting {
        Setting::InitialDriveset => Setting::Driveset,
        Setting::Dataset => Setting::BlobList,
        other => other,
    };
    problem.place.setting = problem.place.setting.map(own);
    for part in problem.advice.iter_mut().flat_map(|advice| &mut advice.0) {
        match part {
            Part::Setting(setting) => *setting = own(*setting),
            Part::Words(words) => {
                *words = words.replace("take rows out of the dataset", "take selectors out of the blob list");
            }
            Part::Command(_) => {}
        }
    }
    problem
}

/// Deletes the snapshots that were taken of blobs in use.
pub fn forget_snapshots(account: &Account, taken: &[(String, String)], output: &Output) {
    for (path, time) in taken {
        let (container, name) = path.split_once('/').unwrap_or_default();
        // An earlier run may have deleted it.
        if let Err(failure) = account.delete_snapshot(container, name, time)
            && !failure.is_missing()
        {
            let what = format!("the snapshot {time} that was taken of {path} is not deleted: {}", failure.problem());
            output.warning(&clean(&what));
        }
    }
}

/// Blobs that are on no drive.
#[derive(Default)]
pub struct Missing {
    /// For the list.
    pub paths: BTreeSet<String>,
    /// Those that cannot be exported, and those that were left out, with the reason.
    refused: Vec<(String, String)>,
    nonexistent: Vec<String>,
    waiting: u64,
}

impl Missing {
    /// Takes those of `blobs` that are on no drive, by their reasons.
    pub fn take(&mut self, blobs: &[KeptBlob]) {
        let left_out = blobs.iter().filter_map(|blob| Some((blob.path.clone(), blob.left_out.clone()?)));
        self.refused.extend(left_out);
        self.paths.extend(blobs.iter().filter(|blob| blob.left_out.is_some()).map(|blob| blob.path.clone()));
    }

    /// Writes the list, if there is anything for it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep(&self, (place, mut list): (PathBuf, OutputFile), output: &Output) -> Result<(), Problem> {
        if self.paths.is_empty() {
            return Ok(());
        }
        list.add(&bloblist::write(self.paths.iter().map(String::as_str)))?;
        list.finish()?;
        output.chat(&format!("Blobs that are on no drive are listed in {}\n", place.display()));
        Ok(())
    }

    /// Tells what is on no drive.
    pub fn tell(&self, output: &Output) {
        if output.is_json() {
            if !self.paths.is_empty() || !self.nonexistent.is_empty() {
                let reasons = self.refused.iter().map(|(path, why)| json!({ "blob": path, "reason": why }));
                let reasons: Vec<_> = reasons.collect();
                let value = json!({
                    "blobs": self.paths.len(), "waiting": self.waiting, "nonexistent": self.nonexistent,
                    "reasons": reasons,
                });
                output.object("not_exported", value);
            }
            return;
        }
        let mut text = String::new();
        for path in self.nonexistent.iter().take(SHOWN_MAX) {
            text.push_str(&format!("  nonexistent: {}\n", clean(path)));
        }
        for (path, why) in self.refused.iter().take(SHOWN_MAX) {
            text.push_str(&format!("  not exported: {}: {}\n", clean(path), clean(why)));
        }
        if self.waiting > 0 {
            text.push_str(&format!("  no room on the drives: {}\n", count(self.waiting, "blob")));
        }
        output.chat(&text);
    }
}
