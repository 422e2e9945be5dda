//! `dray prep-import` and `dray plan`.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use clap::builder::ArgPredicate;
use clap::{ArgGroup, Args, ValueEnum};
use dray_engine::api;
use dray_engine::api::host::{OutputFile, Outputs};
use dray_engine::api::prepare::{
    AbsentDrive, Action, Disposition, EngineChoice, MetadataFields, Pace, PrepRequest, Prepared, ReadBack, RowConsent,
    SizeClass, Stop, Table,
};
use dray_engine::report::{DriveFacts, Event, Kind, PlanSummary, Problem, Problems, SessionReport};
use dray_engine::units::{ByteLen, SectorSize};
use serde_json::{Value, json};

use crate::args::classic::FirstGeneration;
use crate::args::selection::SelectionArgs;
use crate::args::size;
use crate::commands::abort;
use crate::commands::about;
use crate::commands::listing::{self, Listing};
use crate::commands::shard;
use crate::commands::template;
use crate::consent::{self, Asked, Consent, Fate};
use crate::exit::Exit;
use crate::render::{Output, count, json as objects, page, text, watched};
use crate::signals::{self, Signals};

const EXAMPLE: &str = "\
Example:
  dray prep-import --journal job.jrn --id session#1 \\
      --initial-driveset driveset.csv --dataset dataset.csv";

const PLAN_EXAMPLE: &str = "\
Examples:
  dray plan --journal job.jrn --id session#1 --report plan.html \\
      --initial-driveset driveset.csv --dataset dataset.csv
  dray plan --dataset dataset.csv --drive-size 8TB,16TB";

/// Exit codes of a plan.
const PLAN_EXITS: &[Exit] =
    &[Exit::Done, Exit::Usage, Exit::Refused, Exit::Resumable, Exit::Source, Exit::Environment, Exit::Bug];

/// Options of `prep-import` that `plan` accepts and ignores, so that a command line can be tried by changing its first
/// word.
pub const IDLE_IN_PLANS: [&str; 8] =
    ["silent", "yes", "abort", "dry_run", "rebuild_journal", "list_drives", "list_copy_sessions", "read_back"];

/// Session, sources and target drives.
#[derive(Args, Clone, Debug)]
pub struct SessionArgs {
    /// Journal of the session; created if it does not exist
    #[arg(
        long,
        value_name = "FILE",
        required = false,
        required_unless_present = "drive_size",
        default_value_if("drive_size", ArgPredicate::IsPresent, "plan.jrn")
    )]
    pub journal: PathBuf,
    /// Session id: 3 to 30 letters, digits, '_', '-', '#'
    #[arg(long, value_name = "ID", required_unless_present_any = ["listing", "rebuild_journal", "drive_size"])]
    pub id: Option<String>,
    /// Driveset CSV of a first session
    #[arg(long, value_name = "CSV", conflicts_with = "additional_driveset")]
    pub initial_driveset: Option<PathBuf>,
    /// Driveset CSV of drives that join a session
    #[arg(long, value_name = "CSV")]
    pub additional_driveset: Option<PathBuf>,
    /// Dataset CSV: what to copy, and to which blobs
    #[arg(long, value_name = "CSV")]
    pub dataset: Option<PathBuf>,
    /// Source and drive of a first-generation command line
    #[arg(skip)]
    rows: FirstGeneration,
    /// Directory of the logs
    #[arg(long, value_name = "DIR")]
    pub logdir: Option<PathBuf>,
}

/// Layout options of the drives.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Layout")]
pub struct LayoutArgs {
    /// Cipher of the volume
    #[arg(long, value_name = "CIPHER", default_value = "aes-cbc-256")]
    pub cipher: CipherName,
    /// Cluster size, 512 to 2M [default: as Windows chooses]
    #[arg(long, value_name = "SIZE", value_parser = size::cluster)]
    pub cluster_size: Option<u64>,
    /// Partition table
    #[arg(long, value_name = "KIND", default_value = "gpt")]
    pub table: TableName,
    /// Encrypt zeros over the free space too, and zero what no partition has
    #[arg(long)]
    pub wipe_free: bool,
    /// Also write a .BEK key file into this directory
    #[arg(long, value_name = "DIR")]
    pub external_key: Option<PathBuf>,
    /// Put the hash of the drive's first bytes into the drive record
    #[arg(long)]
    pub drive_header_hash: bool,
    /// Drive id by hand; without SERIAL= for the only drive
    #[arg(long, value_name = "[SERIAL=]ID", value_parser = drive_id)]
    pub drive_id: Vec<(String, String)>,
    /// Accept drives that the service would not (images, virtual)
    #[arg(long)]
    pub not_for_shipping: bool,
    /// Logical sector size of new image files, 512 or 4096
    #[arg(long, value_name = "SIZE", value_parser = size::sector)]
    pub sector_size: Option<u64>,
    /// Set each blob's Content-MD5 (a properties file for each; hashes whole files: slower)
    #[arg(long)]
    pub content_md5: bool,
    /// Set each blob's Content-Type by its name (a properties file for each), where its row sets none
    #[arg(long, value_name = "HOW")]
    pub content_type: Option<TypeName>,
    /// Give each blob metadata out of its source: mtime, mode, owner (a metadata file for each)
    #[arg(long, value_name = "FIELDS", value_delimiter = ',')]
    pub metadata_from: Vec<FieldName>,
}

/// Writing options of the drives.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Writing")]
pub struct WritingArgs {
    /// Read back after writing: none, sample or full
    #[arg(long, value_name = "HOW", default_value = "sample", hide_possible_values = true)]
    pub read_back: ReadBackName,
    /// I/O engine
    #[arg(long, value_name = "ENGINE", default_value = "auto")]
    pub engine: EngineName,
    /// Seconds between checkpoints while data streams
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = clap::value_parser!(u64).range(1..), hide = true)]
    pub checkpoint_every: u64,
    /// Bytes between checkpoints while data streams
    #[arg(long, value_name = "BYTES", default_value = "17179869184", hide = true)]
    pub checkpoint_bytes: u64,
    /// Longest request to a drive [default: the drive's maximum]
    #[arg(long, value_name = "SIZE", value_parser = size::request, hide_short_help = true)]
    pub request_size: Option<u64>,
    /// Requests to a drive at once [default: by kind of drive]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024), hide_short_help = true)]
    pub in_flight: Option<u32>,
    /// Bytes a second read from the sources, by all drives together: 200M, 200MiB
    #[arg(long, value_name = "SIZE", value_parser = size::rate)]
    pub source_rate: Option<u64>,
}

impl WritingArgs {
    /// Sets these options in a request.
    pub fn apply(&self, request: PrepRequest) -> PrepRequest {
        PrepRequest {
            read_back: match self.read_back {
                ReadBackName::None => ReadBack::None,
                ReadBackName::Sample => ReadBack::Sample,
                ReadBackName::Full => ReadBack::Full,
            },
            request_len: self.request_size,
            in_flight: self.in_flight,
            source_rate: self.source_rate,
            engine: match self.engine {
                EngineName::Auto => EngineChoice::Auto,
                EngineName::Uring => EngineChoice::Uring,
                EngineName::Sync => EngineChoice::Sync,
            },
            pace: Pace { time: std::time::Duration::from_secs(self.checkpoint_every), bytes: self.checkpoint_bytes },
            ..request
        }
    }
}

/// Arguments of `dray prep-import`.
#[derive(Args, Clone, Debug)]
#[command(
    override_usage = "dray prep-import --journal <FILE> --id <ID> [OPTIONS]",
    group(ArgGroup::new("act").args(["resume", "abort", "skip_write"])),
    group(ArgGroup::new("listing").args(["list_drives", "list_copy_sessions"])),
    after_help = EXAMPLE,
    after_long_help = format!("{EXAMPLE}\n\n{}\n{}", template::columns(), Exit::help())
)]
pub struct PrepImport {
    #[command(flatten)]
    session: SessionArgs,
    /// Ask nothing: consent must come by --yes, or by SilentMode in the driveset
    #[arg(long)]
    silent: bool,
    /// Full serial of a drive whose contents may be destroyed
    #[arg(
        long,
        value_name = "SERIAL",
        num_args = 1..,
        value_delimiter = ',',
        long_help = "Full serial of a drive whose contents may be destroyed. Without it, and without a question that \
                     was answered, only drives are taken whose row in the driveset says SilentMode and names them by \
                     serial: or by a link below /dev/disk/by-id/ that holds the drive's own serial. A row that says \
                     PromptOnFormat is asked about. No variable and no configuration file can say this"
    )]
    yes: Vec<String>,
    /// Resume the last session, which ended abnormally
    #[arg(long)]
    resume: bool,
    /// Roll back the last session, which ended abnormally
    #[arg(long)]
    abort: bool,
    /// When resuming: move files of missing drives, and of these, to others
    #[arg(
        long,
        value_name = "SERIAL",
        num_args = 0..=1,
        default_missing_value = "",
        value_delimiter = ',',
        require_equals = true,
        conflicts_with_all = ["abort", "skip_write"]
    )]
    replan: Option<Vec<String>>,
    /// Write what fits on the drives; the rest waits for --additional-driveset
    #[arg(long)]
    what_fits: bool,
    /// Spread of files over drives: fill (as few drives as hold them) or even (all drives)
    #[arg(long, value_name = "HOW", default_value = "fill", hide_possible_values = true)]
    spread: SpreadName,
    /// Leave out, and name, files that Azure cannot name, instead of refusing the session
    #[arg(long)]
    skip_unnameable: bool,
    /// Disposition of all rows towards blobs that exist: rename, no-overwrite, overwrite
    #[arg(long, value_name = "WHAT", value_parser = disposition)]
    disposition: Option<Disposition>,
    /// Count the drives of this size that the dataset needs; none is attached, nothing is written
    #[arg(
        long,
        value_name = "SIZE",
        value_delimiter = ',',
        value_parser = drive_size,
        requires = "dataset",
        conflicts_with_all = ["act", "listing", "initial_driveset", "additional_driveset", "rebuild_journal"]
    )]
    drive_size: Vec<ByteLen>,
    /// Make the driveset's one image for this drive, which is not attached
    #[arg(long, value_name = "SERIAL,BYTES[,SECTOR]", value_parser = absent_drive)]
    #[arg(conflicts_with_all = ["act", "listing", "rebuild_journal", "drive_id", "sector_size"])]
    #[arg(
        long_help = "Make the driveset's one image for this drive, which is not attached: with its drive id, exact size \
                       and sector size (512 or 4096; default 512). `dray write` then puts it onto the drive"
    )]
    r#for: Option<AbsentDrive>,
    /// Show the plan; write nothing
    #[arg(long)]
    dry_run: bool,
    /// Write the plan as an HTML page: the map of each drive
    #[arg(long, value_name = "HTML")]
    report: Option<PathBuf>,
    /// List each file with its drive, path, size, MD5 and CRC-64: .csv or .jsonl (hashes whole files: slower)
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// Rebuild a lost journal from the drives of the driveset, whose keys are in it or in their drive records
    #[arg(long, requires = "initial_driveset", conflicts_with_all = ["act", "listing", "dataset", "dry_run"])]
    rebuild_journal: bool,
    /// List the drives of the journal
    #[arg(long)]
    list_drives: bool,
    /// List the sessions of the journal
    #[arg(long)]
    list_copy_sessions: bool,
    /// Index the files already on the drive; copy nothing
    #[arg(long)]
    skip_write: bool,
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    layout: LayoutArgs,
    #[command(flatten)]
    writing: WritingArgs,
}

/// Arguments of `dray plan`: those of `prep-import`, so that a command line can be tried by changing its first word.
#[derive(Args, Clone, Debug)]
#[command(
    override_usage = "dray plan --journal <FILE> --id <ID> [OPTIONS]",
    after_help = PLAN_EXAMPLE,
    after_long_help = format!("{PLAN_EXAMPLE}\n\n{}\n{}", template::columns(), Exit::help_of(PLAN_EXITS))
)]
pub struct Plan {
    #[command(flatten)]
    prep: PrepImport,
    /// Split the plan by drive into this new directory, for `dray shard run` on any host
    #[arg(long, value_name = "DIR", conflicts_with_all = ["act", "listing", "rebuild_journal", "replan", "what_fits"])]
    shards: Option<PathBuf>,
    /// Hosts of the drives, and drives that are not attached here
    #[arg(long, value_name = "TOML", requires = "shards")]
    #[arg(long_help = HOSTS_HELP)]
    hosts: Option<PathBuf>,
    /// Plan for drives of this size, whichever they are: each shard takes the first free one
    #[arg(long, value_name = "SIZE", value_parser = drive_size, requires = "shards")]
    #[arg(conflicts_with_all = ["hosts", "initial_driveset", "additional_driveset", "drive_size", "for"])]
    #[arg(long_help = ANY_HELP)]
    any_drive_of: Option<ByteLen>,
}

/// Help of `--any-drive-of`.
pub const ANY_HELP: &str = "Plan for drives of this size, whichever they are, and as many as the files need: each shard takes the \
                        first free drive that has at least this size, and less than a tenth more. --sector-size 4096 for \
                        drives with such sectors";

/// Help of `--hosts`.
pub const HOSTS_HELP: &str = "Which host has which drive, and drives that are not attached here: a [[drive]] table each, with \
                          serial, host (as `hostname` prints it), and for a drive that is not attached its exact size \
                          in bytes and sector (512 or 4096)";

/// Names of the ciphers.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum CipherName {
    /// Opens on every Windows since 7
    #[value(name = "aes-cbc-256")]
    AesCbc256,
    /// Opens on every Windows since 7
    #[value(name = "aes-cbc-128")]
    AesCbc128,
    /// Windows 10 1511 and later
    #[value(name = "xts-aes-128")]
    XtsAes128,
    /// Windows 10 1511 and later
    #[value(name = "xts-aes-256")]
    XtsAes256,
}

impl CipherName {
    /// Name on the command line and in the engine.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// Names of the partition tables.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum TableName {
    /// GUID partition table
    Gpt,
    /// Master boot record, up to 2 TiB
    Mbr,
}

impl TableName {
    /// The engine's value.
    pub const fn table(self) -> Table {
        match self {
            Self::Gpt => Table::Gpt,
            Self::Mbr => Table::Mbr,
        }
    }
}

/// Names of the engines.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum EngineName {
    /// io_uring if the kernel grants it
    Auto,
    /// io_uring or nothing
    Uring,
    /// Plain system calls
    Sync,
}

/// Names of the read-back modes.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ReadBackName {
    /// Nothing
    None,
    /// The ends, the metadata and some batches
    Sample,
    /// Everything
    Full,
}

/// Facts of a source that become metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FieldName {
    /// Time of its last modification
    Mtime,
    /// Its permissions
    Mode,
    /// Its user and group, by number
    Owner,
}

/// Source of a blob's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TypeName {
    /// Its name
    Auto,
}

/// Spread of files over drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SpreadName {
    /// Over as few drives as hold them
    Fill,
    /// Over all drives, as evenly as can be
    Even,
}

fn disposition(text: &str) -> Result<Disposition, String> {
    Disposition::parse(text).ok_or_else(|| "use rename, no-overwrite or overwrite".into())
}

/// A size as drives are sold.
///
/// # Errors
/// It is none.
pub fn drive_size(text: &str) -> Result<ByteLen, String> {
    api::prepare::parse_size(text).ok_or_else(|| "use a size as drives are sold, for example 8TB or 500GB".into())
}

fn absent_drive(text: &str) -> Result<AbsentDrive, String> {
    let form = "use SERIAL,BYTES or SERIAL,BYTES,SECTOR: WD-1234,8001563222016,512";
    let mut parts = text.split(',').map(str::trim);
    let (Some(serial), Some(size)) = (parts.next().filter(|serial| !serial.is_empty()), parts.next()) else {
        return Err(form.into());
    };
    let size = size.parse().map_err(|_| format!("{size} is no number of bytes; {form}"))?;
    let sector = match parts.next() {
        None => SectorSize::S512,
        Some(bytes) => {
            let known = bytes.parse().ok().and_then(SectorSize::from_bytes);
            known.ok_or_else(|| format!("{bytes} is no sector size: 512 or 4096"))?
        }
    };
    if parts.next().is_some() {
        return Err(form.into());
    }
    Ok(AbsentDrive { serial: serial.to_owned(), size: ByteLen(size), sector })
}

pub fn drive_id(text: &str) -> Result<(String, String), String> {
    let (serial, id) = text.split_once('=').unwrap_or(("", text));
    if id.is_empty() { Err("the id is empty".into()) } else { Ok((serial.into(), id.into())) }
}

impl PrepImport {
    /// Gives a first-generation session its source and its drive.
    pub fn set_rows(&mut self, rows: FirstGeneration) {
        self.session.rows = rows;
    }

    /// The request to the engine.
    pub fn request(&self) -> PrepRequest {
        let action = match (self.resume, self.abort, self.skip_write) {
            (true, _, _) => Action::Resume,
            (_, true, _) => Action::Abort,
            (_, _, true) => Action::SkipWrite,
            _ => Action::Copy,
        };
        let request = PrepRequest::new(&self.session.journal, self.session.id.clone().unwrap_or_default());
        self.writing.apply(PrepRequest {
            initial_driveset: self.session.initial_driveset.clone(),
            additional_driveset: self.session.additional_driveset.clone(),
            dataset: self.session.dataset.clone(),
            source: self.session.rows.source.clone(),
            drive: self.session.rows.drive.clone(),
            drive_key_file: self.session.rows.key_file.clone(),
            logdir: self.session.logdir.clone(),
            reports: self.report.iter().cloned().collect(),
            cipher: self.layout.cipher.name(),
            cluster_size: self.layout.cluster_size,
            table: self.layout.table.table(),
            wipe_free: self.layout.wipe_free,
            external_key: self.layout.external_key.clone(),
            drive_header_hash: self.layout.drive_header_hash,
            drive_ids: self.layout.drive_id.clone(),
            not_for_shipping: self.layout.not_for_shipping,
            content_md5: self.layout.content_md5,
            content_type: self.layout.content_type.is_some(),
            metadata_from: MetadataFields {
                mtime: self.layout.metadata_from.contains(&FieldName::Mtime),
                mode: self.layout.metadata_from.contains(&FieldName::Mode),
                owner: self.layout.metadata_from.contains(&FieldName::Owner),
            },
            action,
            made_for: self.r#for.clone(),
            sector_size: self.layout.sector_size,
            replan: self.replan.as_ref().map(|ids| ids.iter().filter(|id| !id.is_empty()).cloned().collect()),
            what_fits: self.what_fits,
            selection: self.selection.selection(self.skip_unnameable),
            disposition: self.disposition,
            spread_evenly: self.spread == SpreadName::Even,
            list: self.list.clone(),
            ..request
        })
    }

    /// Prepares the drives, or performs the other action that was chosen.
    pub fn run(self, output: &Output) -> Exit {
        if !self.drive_size.is_empty() {
            return estimate(&self.request(), &self.drive_size, output);
        }
        if self.list_drives || self.list_copy_sessions {
            let what = Listing { drives: self.list_drives, sessions: self.list_copy_sessions };
            return listing::list(&self.session.journal, what, output);
        }
        if self.rebuild_journal {
            return rebuild(&self.request(), output);
        }
        let consent = Consent { silent: self.silent, serials: self.yes.clone() };
        if self.abort {
            return abort::run(self.request(), &consent, self.dry_run, output);
        }
        let request = PrepRequest { about: about::lines(), ..self.request() };
        let ended = session(request, &consent, self.dry_run, output);
        let drive = ended.report.as_ref().and_then(|report| report.drives.first());
        if let (Some(made_for), Exit::Done | Exit::LeftOut, Some(drive)) = (&self.r#for, ended.exit, drive) {
            let record = drive.record.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
            output.chat(&format!(
                "\nBefore it is shipped, put the image onto its drive:\n  dray write IMAGE serial:{} --key-file {}\n",
                text::clean(&made_for.serial),
                about::quoted(&record)
            ));
        }
        ended.exit
    }
}

/// Number of drives that a dataset needs.
fn estimate(request: &PrepRequest, sizes: &[ByteLen], output: &Output) -> Exit {
    let request = match request.session.is_empty() {
        // Its length counts for the paths on the drives.
        true => PrepRequest { session: "session#1".into(), ..request.clone() },
        false => request.clone(),
    };
    let scan = output.scan();
    let estimated = api::prepare::estimate(&request, sizes, &mut |event| scan.event(&event));
    scan.end();
    let estimate = match estimated {
        Ok(estimate) => estimate,
        Err(problems) => {
            output.problems(&problems);
            return Exit::of_problems(&problems);
        }
    };
    for warning in &estimate.warnings {
        output.note(warning);
    }
    if !output.result("estimate", objects::estimate(&estimate)) {
        output.say(&text::estimate(&estimate));
    }
    Exit::Done
}

/// Rebuilds a lost journal.
fn rebuild(request: &PrepRequest, output: &Output) -> Exit {
    let drives = match api::prepare::rebuild_journal(request) {
        Ok(drives) => drives,
        Err(problems) => {
            output.problems(&problems);
            return Exit::of_problems(&problems);
        }
    };
    if output.is_json() {
        let list = drives.iter().map(|one| {
            let sessions = one
                .sessions
                .iter()
                .map(|reported| json!({ "session": reported.id, "files": reported.files, "data": reported.data }));
            let sessions: Vec<Value> = sessions.collect();
            json!({ "drive": objects::facts(&one.drive), "sessions": sessions, "record": one.record })
        });
        let list: Vec<Value> = list.collect();
        output.object("journal-rebuilt", json!({ "journal": request.journal, "drives": list }));
        return Exit::Done;
    }
    output.chat(&format!("Journal {} is made again:\n", request.journal.display()));
    for one in &drives {
        for reported in &one.sessions {
            let (drive, files) = (text::clean(&one.drive.drive_id), count(reported.files, "file"));
            output.chat(&format!("  {drive}  {}  {files} of {}\n", text::clean(&reported.id), ByteLen(reported.data)));
        }
    }
    Exit::Done
}

impl Plan {
    /// Shows the plan.
    pub fn run(self, output: &Output) -> Exit {
        let prep = PrepImport { dry_run: true, ..self.prep };
        let sector = prep.layout.sector_size.and_then(SectorSize::from_bytes).unwrap_or(SectorSize::S512);
        let any_drive_of = self.any_drive_of.map(|size| SizeClass { size, sector });
        match &self.shards {
            Some(dir) => {
                let request = PrepRequest { any_drive_of, ..prep.request() };
                shard::split(&request, dir, self.hosts.as_deref(), output)
            }
            None => prep.run(output),
        }
    }
}

/// A prepared session, as the flow below needs it.
pub trait PreparedSession {
    /// The plan.
    fn summary(&self) -> &PlanSummary;
    /// Indices of drives whose contents will be destroyed.
    fn drives_needing_consent(&self) -> Vec<usize>;
    /// Consent stated in the driveset row of a drive.
    fn row_consent(&self, drive: usize) -> RowConsent;
    /// Ids of drives of the session that this run does not write to.
    fn bystanders(&self) -> &[String];
    /// Carries the plan out on the drives consented to.
    ///
    /// # Errors
    /// Problems that prevent the session as a whole.
    fn run(self, consented: &[usize], events: &(dyn Fn(Event) + Sync), stop: &Stop) -> Result<SessionReport, Problems>;
}

impl PreparedSession for Prepared {
    fn summary(&self) -> &PlanSummary {
        Prepared::summary(self)
    }

    fn drives_needing_consent(&self) -> Vec<usize> {
        Prepared::drives_needing_consent(self)
    }

    fn row_consent(&self, drive: usize) -> RowConsent {
        Prepared::row_consent(self, drive)
    }

    fn bystanders(&self) -> &[String] {
        Prepared::bystanders(self)
    }

    fn run(self, consented: &[usize], events: &(dyn Fn(Event) + Sync), stop: &Stop) -> Result<SessionReport, Problems> {
        Prepared::run(self, consented, events, stop)
    }
}

/// The end of a session: exit code, and the report for callers that continue with it.
#[derive(Debug)]
pub struct Ended {
    /// The exit code.
    pub exit: Exit,
    /// Results of the drives; `None` when the session ended before writing.
    pub report: Option<SessionReport>,
}

impl Ended {
    /// Ended before anything was written.
    pub fn before(exit: Exit) -> Self {
        Self { exit, report: None }
    }
}

/// Opens the page of the plan: its place is tried before anything else is done.
fn page_of(request: &PrepRequest) -> Result<Option<OutputFile>, Problem> {
    let Some(path) = request.reports.first() else { return Ok(None) };
    let mut outputs = Outputs::default();
    outputs.input(&request.journal, "the journal");
    outputs.reserve(&request.journal, "the journal");
    let drivesets = [&request.initial_driveset, &request.additional_driveset];
    drivesets.into_iter().flatten().for_each(|path| outputs.input(path, "the driveset"));
    request.dataset.iter().for_each(|path| outputs.input(path, "the dataset"));
    request.drive_key_file.iter().for_each(|path| outputs.input(path, "the key file"));
    outputs.begin(path, page::FORM).map(Some)
}

/// Refuses a page whose path is needed by the session itself.
fn keep_off(page: &OutputFile, plan: &PlanSummary, journal: &Path) -> Result<(), Problem> {
    for one in &plan.drives {
        let record = journal.with_file_name(format!("{}.xml", one.drive.drive_id));
        for (path, what) in [(&one.drive.path, "the drive"), (&record, "the drive record")] {
            if page.is_at(path) {
                let problem =
                    Problem::new(Kind::Refused, format!("the page would take the place of {what}")).path(path);
                return Err(problem.advice("name another file; nothing was written"));
            }
        }
    }
    Ok(())
}

/// From the request to the exit code.
pub fn session(request: PrepRequest, consent: &Consent, dry_run: bool, output: &Output) -> Ended {
    if api::prepare::is_complete(&request) {
        let whole = SessionReport { journal: request.journal.clone(), ..SessionReport::default() };
        if !output.result("summary", objects::summary(&request.session, &whole)) {
            output.chat(&format!("Session {} is complete: nothing left to do.\n", request.session));
        }
        return Ended::before(Exit::Done);
    }
    session_of(request, consent, dry_run, output, api::prepare::prepare, |_| Ok(()))
}

/// As [`session`], with another preflight, and a step between preflight and consent.
pub fn session_of(
    request: PrepRequest,
    consent: &Consent,
    dry_run: bool,
    output: &Output,
    prepare: impl FnOnce(PrepRequest, &mut dyn FnMut(Event)) -> Result<Prepared, Problems>,
    step: impl FnOnce(&Prepared) -> Result<(), Problems>,
) -> Ended {
    match Signals::install(signals::SESSION) {
        Ok(signals) => session_under(&signals, request, (consent, dry_run), output, prepare, step, |prepared| prepared),
        Err(error) => {
            let problem = Problem::new(Kind::Environment, format!("signals cannot be caught: {error}"));
            Ended::before(output.problem(problem))
        }
    }
}

/// As [`session_of`], with signals that are caught already, and `job` to make of the prepared session what is run.
pub fn session_under<J: PreparedSession>(
    signals: &Signals,
    request: PrepRequest,
    (consent, dry_run): (&Consent, bool),
    output: &Output,
    prepare: impl FnOnce(PrepRequest, &mut dyn FnMut(Event)) -> Result<Prepared, Problems>,
    step: impl FnOnce(&Prepared) -> Result<(), Problems>,
    job: impl FnOnce(Prepared) -> J,
) -> Ended {
    // A problem with the page's place is reported together with all others.
    let (page, unplaced) = match page_of(&request) {
        Ok(page) => (page, None),
        Err(problem) => (None, Some(problem)),
    };
    let beside = request.journal.clone();
    let prepared = {
        let scan = output.scan();
        let prepared = watched(
            "checking and planning",
            |text| output.warning(&text),
            |beat| {
                prepare(request, &mut |event| {
                    beat();
                    scan.event(&event);
                })
            },
        );
        scan.end();
        prepared
    };
    let prepared = match (prepared, unplaced) {
        (Ok(_), Some(problem)) => Err(problem.into()),
        (Err(mut problems), Some(problem)) => {
            problems.push(problem);
            Err(problems)
        }
        (prepared, None) => prepared,
    };
    match prepared {
        Ok(prepared) => {
            if let Some(page) = page
                && let Err(problem) = keep_off(&page, prepared.summary(), &beside)
                    .and_then(|()| output.plan_page(prepared.summary(), page))
            {
                return Ended::before(output.problem(problem));
            }
            if let Err(problems) = step(&prepared) {
                output.problems(&problems);
                return Ended::before(Exit::of_problems(&problems));
            }
            carry_out(job(prepared), consent, dry_run, output, signals)
        }
        Err(problems) => {
            output.problems(&problems);
            Ended::before(Exit::of_problems(&problems))
        }
    }
}

/// The part after preflight: plan, consent, run, summary.
pub fn carry_out(
    job: impl PreparedSession,
    consent: &Consent,
    dry_run: bool,
    output: &Output,
    signals: &Signals,
) -> Ended {
    output.plan(job.summary(), dry_run);
    let needing = job.drives_needing_consent();
    let asked = |&index: &usize| {
        let plan = job.summary().drives.get(index)?;
        let fate = if plan.encrypts.0 > 0 { Fate::Encrypted } else { Fate::Destroyed };
        let row = (!job.summary().windows).then(|| job.row_consent(index));
        Some(Asked { index, drive: &plan.drive, fate, row })
    };
    let asked: Vec<Asked<'_>> = needing.iter().filter_map(asked).collect();
    let drives: Vec<&DriveFacts> = job.summary().drives.iter().map(|plan| &plan.drive).collect();
    if let Err(mut problems) = consent::known(consent, &drives, job.bystanders()) {
        // Drives left without consent by the slip are reported with it; no question is asked.
        if consent.silent && !dry_run {
            let without = consent::gather(&asked, consent, &mut consent::Terminal);
            problems.0.extend(without.err().into_iter().flat_map(|more| more.0));
        }
        output.problems(&problems);
        return Ended::before(Exit::of_problems(&problems));
    }
    if !job.summary().unplaced.is_empty() {
        return Ended::before(output.problem(unplaced(&job.summary().unplaced)));
    }
    if dry_run {
        return Ended::before(Exit::Done);
    }
    let consented = match consent::gather(&asked, consent, &mut consent::Terminal) {
        Ok(consented) => consented,
        Err(problems) => {
            output.problems(&problems);
            return Ended::before(Exit::of_problems(&problems));
        }
    };
    let session = job.summary().session.clone();
    let result = run_watched(job, &consented, output, signals);
    match result {
        Ok(report) => {
            output.summary(&session, &report);
            let exit = Exit::of_report(&report);
            if let Some(log) = &report.log {
                // A log that cannot be written has no effect on the drives' result.
                let _ = api::prepare::append_to_log(log, &format!("exit code {}: {}", exit.code(), exit.meaning()));
            }
            Ended { exit, report: Some(report) }
        }
        Err(problems) => {
            output.problems(&problems);
            Ended::before(Exit::of_problems(&problems))
        }
    }
}

fn unplaced(files: &[(String, ByteLen)]) -> Problem {
    let missing = ByteLen(files.iter().map(|(_, len)| len.0).sum());
    let count = crate::render::count(files.len() as u64, "file");
    Problem::new(Kind::Refused, format!("{count} do not fit on the drives ({missing})"))
        .advice("add drives to the driveset, or take rows out of the dataset; nothing was written")
}

/// Runs the work, with a board that follows it.
fn run_watched(
    job: impl PreparedSession,
    consented: &[usize],
    output: &Output,
    signals: &Signals,
) -> Result<SessionReport, Problems> {
    let facts: Vec<(DriveFacts, _)> =
        job.summary().drives.iter().map(|plan| (plan.drive.clone(), plan.to_write)).collect();
    let board = output.board(facts);
    signals.writing.store(true, Ordering::Release);
    let result = std::thread::scope(|scope| {
        let ticker = scope.spawn(|| board.tick(signals));
        let result = {
            let _end = board.ending();
            job.run(consented, &|event| board.event(event), &signals.stop)
        };
        // The ticker's panic has been printed already; the drives matter more.
        let _ = ticker.join();
        result
    });
    signals.writing.store(false, Ordering::Release);
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{self, OutputArgs, Parsed};
    use crate::commands::Command;
    use dray_engine::api::prepare::SourceSelection;
    use dray_engine::report::{DrivePlan, DriveResult, Stage, Waiting};
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::time::Duration;

    fn parsed(line: &str) -> (PrepImport, OutputArgs) {
        let words = std::iter::once("dray").chain(line.split_whitespace()).map(Into::into).collect();
        match args::parse(words) {
            Parsed::Run(cli, _) => match cli.command {
                Command::PrepImport(prep) => (prep, cli.output),
                other => panic!("{line}: {other:?}"),
            },
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn classic_and_modern_lines_ask_for_the_same() {
        for (classic, modern) in [
            (
                "PrepImport /j:JournalTest.jrn /id:session#1 /logdir:logs /InitialDriveSet:d.csv /DataSet:f.csv",
                "prep-import --journal JournalTest.jrn --id session#1 --logdir logs --initial-driveset d.csv --dataset f.csv",
            ),
            (
                "PrepImport /j:/tmp/x.jrn /id:session#1 /sk:KEY== /silentmode /InitialDriveSet:/d.csv /DataSet:/f.csv",
                "prep-import --journal=/tmp/x.jrn --id=session#1 --silent --initial-driveset=/d.csv --dataset=/f.csv",
            ),
            ("PrepImport /j:a /id:session#2 /DataSet:g.csv", "prep-import --journal a --id session#2 --dataset g.csv"),
            (
                "prepimport J:a ID:session#2 ADDITIONALDRIVESET:e.csv",
                "prep-import --journal a --id session#2 --additional-driveset e.csv",
            ),
            ("PrepImport /j:a /id:s-1 /ResumeSession", "prep-import --journal a --id s-1 --resume"),
            ("PrepImport /j:a /id:s-1 /abortsession", "prep-import --journal a --id s-1 --abort"),
            (
                "PrepImport /j:a /id:s-1 /DataSet:f /skipwrite /enablecontentmd5",
                "prep-import --journal a --id s-1 --dataset f --skip-write --content-md5",
            ),
            (
                "PrepImport /j:a /id:s-1 /DataSet:f --cipher xts-aes-256 --cluster-size 64K --dry-run",
                "prep-import --journal a --id s-1 --dataset f --cipher xts-aes-256 --cluster-size 65536 --dry-run",
            ),
            ("PrepImport /j:-a /id:s-1 /DataSet:--f", "prep-import --journal=-a --id s-1 --dataset=--f"),
            ("PrepImport /j:a /ListDrives", "prep-import --journal a --list-drives"),
            ("PrepImport /j:a /ListCopySessions", "prep-import --journal a --list-copy-sessions"),
        ] {
            let ((classic_args, _), (modern_args, _)) = (parsed(classic), parsed(modern));
            assert_eq!(classic_args.request(), modern_args.request(), "{classic}");
            assert_eq!(format!("{classic_args:?}"), format!("{modern_args:?}"), "{classic}");
        }
    }

    #[test]
    fn every_option_reaches_the_request() {
        let line = "prep-import --journal j --id s#1 --initial-driveset d --dataset f --logdir l --cipher aes-cbc-128 \
                    --cluster-size 2M --table mbr --wipe-free --external-key k --drive-header-hash --drive-id A=B \
                    --drive-id C --not-for-shipping --content-md5 --read-back full --engine sync --sector-size 4096 \
                    --request-size 512K --in-flight 7 --source-rate 200M --include *.a --include *.b --exclude /c/ \
                    --files-from l --follow-symlinks inside --skip-unnameable --disposition overwrite --spread even \
                    --list o.csv --content-type auto --metadata-from mode,mtime";
        let request = parsed(line).0.request();
        let expected = PrepRequest {
            initial_driveset: Some("d".into()),
            dataset: Some("f".into()),
            logdir: Some("l".into()),
            cipher: "aes-cbc-128".into(),
            cluster_size: Some(2 << 20),
            table: Table::Mbr,
            wipe_free: true,
            external_key: Some("k".into()),
            drive_header_hash: true,
            drive_ids: vec![("A".into(), "B".into()), (String::new(), "C".into())],
            not_for_shipping: true,
            content_md5: true,
            content_type: true,
            metadata_from: MetadataFields { mtime: true, mode: true, owner: false },
            read_back: ReadBack::Full,
            engine: EngineChoice::Sync,
            sector_size: Some(4096),
            request_len: Some(512 << 10),
            in_flight: Some(7),
            source_rate: Some(200_000_000),
            selection: SourceSelection {
                include: vec!["*.a".into(), "*.b".into()],
                ignore_files: Vec::new(),
                exclude: vec!["/c/".into()],
                files_from: Some("l".into()),
                follow_inside: true,
                skip_unnameable: true,
            },
            disposition: Some(Disposition::Overwrite),
            spread_evenly: true,
            list: Some("o.csv".into()),
            ..PrepRequest::new("j", "s#1")
        };
        assert_eq!(request, expected);
        let defaults = parsed("prep-import --journal j --id s#1").0.request();
        assert_eq!(defaults, PrepRequest::new("j", "s#1"));
    }

    /// A session without an engine: returns the values it was given.
    struct Fake {
        summary: PlanSummary,
        needing: Vec<usize>,
        row: RowConsent,
        result: Result<SessionReport, Problems>,
        ran: Rc<RefCell<Option<Vec<usize>>>>,
    }

    impl PreparedSession for Fake {
        fn summary(&self) -> &PlanSummary {
            &self.summary
        }

        fn drives_needing_consent(&self) -> Vec<usize> {
            self.needing.clone()
        }

        fn row_consent(&self, _: usize) -> RowConsent {
            self.row
        }

        fn bystanders(&self) -> &[String] {
            &[]
        }

        fn run(
            self,
            consented: &[usize],
            events: &(dyn Fn(Event) + Sync),
            stop: &Stop,
        ) -> Result<SessionReport, Problems> {
            assert!(!stop.requested());
            *self.ran.borrow_mut() = Some(consented.to_vec());
            std::thread::scope(|scope| {
                scope.spawn(|| events(Event::Stage { drive: 0, stage: Stage::Data }));
                scope.spawn(|| {
                    let (acknowledged, total) = (ByteLen(1), ByteLen(2));
                    let waiting_for = Waiting::Drive;
                    events(Event::Progress { drive: 0, acknowledged, total, files: 1, waiting_for });
                });
            });
            self.result
        }
    }

    fn fake(name: &str, result: Result<SessionReport, Problems>) -> Fake {
        let drive = DriveFacts { name: name.into(), drive_id: "SERIAL-123456".into(), ..DriveFacts::default() };
        let summary = PlanSummary {
            session: "session#1".into(),
            drives: vec![DrivePlan { drive, ..DrivePlan::default() }],
            ..PlanSummary::default()
        };
        let row = if name.starts_with("serial:") { RowConsent::Silent } else { RowConsent::SilentByLooseName };
        Fake { summary, needing: vec![0], row, result, ran: Rc::default() }
    }

    fn carried(fake: Fake, consent: &Consent, dry_run: bool) -> (Exit, Option<Vec<usize>>) {
        let ran = Rc::clone(&fake.ran);
        let output = Output::new(&OutputArgs { json: true, ..OutputArgs::default() });
        let exit = carry_out(fake, consent, dry_run, &output, &Signals::default()).exit;
        (exit, ran.take())
    }

    fn silent() -> Consent {
        Consent { silent: true, serials: Vec::new() }
    }

    fn done() -> Result<SessionReport, Problems> {
        Ok(SessionReport::default())
    }

    #[test]
    fn nothing_runs_without_consent() {
        assert_eq!(carried(fake("/dev/sdx", done()), &silent(), false), (Exit::Refused, None));
        assert_eq!(carried(fake("serial:SERIAL-123456", done()), &silent(), false), (Exit::Done, Some(vec![0])));
        let named = Consent { silent: true, serials: vec!["SERIAL-123456".into()] };
        let stranger = Consent { silent: true, serials: vec!["SERIAL-123456".into(), "SERIAL-123457".into()] };
        assert_eq!(carried(fake("/dev/sdx", done()), &stranger, false), (Exit::Refused, None));
        assert_eq!(carried(fake("/dev/sdx", done()), &stranger, true), (Exit::Refused, None));
        assert_eq!(carried(fake("/dev/sdx", done()), &named, false), (Exit::Done, Some(vec![0])));
        let image = Fake { needing: Vec::new(), ..fake("demo.img", done()) };
        assert_eq!(carried(image, &Consent::default(), false), (Exit::Done, Some(Vec::new())));
    }

    #[test]
    fn a_dry_run_and_a_plan_that_does_not_fit_never_run() {
        assert_eq!(carried(fake("serial:SERIAL-123456", done()), &silent(), true), (Exit::Done, None));
        for dry_run in [false, true] {
            let mut full = fake("serial:SERIAL-123456", done());
            full.summary.unplaced.push(("c/huge".into(), ByteLen(1)));
            assert_eq!(carried(full, &silent(), dry_run), (Exit::Refused, None));
        }
    }

    #[test]
    fn the_end_of_the_run_gives_the_exit_code() {
        let exit = |result| carried(fake("serial:SERIAL-123456", result), &silent(), false).0;
        let drive = |left_out: usize, failure: Option<Problem>| DriveResult {
            drive: DriveFacts::default(),
            files: 0,
            data: ByteLen(0),
            written: ByteLen(0),
            manifest_hash: None,
            record: None,
            keys: dray_engine::report::DriveKeys::default(),
            left_out: vec![("f".into(), "shrank".into()); left_out],
            failure,
            free_space_untouched: false,
            outside_untouched: ByteLen(0),
            elapsed: Duration::ZERO,
            timing: dray_engine::report::Timing::default(),
        };
        let report = |drives| Ok(SessionReport { drives, ..SessionReport::default() });
        assert_eq!(exit(report(vec![drive(0, None)])), Exit::Done);
        assert_eq!(exit(report(vec![drive(2, None)])), Exit::LeftOut);
        assert_eq!(exit(report(vec![drive(2, Some(Problem::new(Kind::Drive, "x")))])), Exit::DriveFailed);
        assert_eq!(exit(Ok(SessionReport { interrupted: true, ..SessionReport::default() })), Exit::Interrupted);
        assert_eq!(exit(Err(Problem::new(Kind::Environment, "x").into())), Exit::Environment);
        assert_eq!(exit(Err(Problem::new(Kind::Interrupted, "x").into())), Exit::Interrupted);
    }
}
