//! `dray job`: creates a job of the service from finished drives, and follows it.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use dray_account::Endpoint;
use dray_account::token::management_of;
use dray_engine::api;
use dray_engine::api::host::{OutputForm, Outputs};
use dray_engine::api::records::SessionDrive;
use dray_engine::report::{Kind, Problem, Problems};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::account::AccountArgs;
use crate::account::SignIn;
use crate::exit::Exit;
use crate::job::description::{self, DRIVES_MAX, Description, JobDrive};
use crate::job::held::{self, Allowed, Shelf};
use crate::job::send::Service;
use crate::job::state::{self, Drive, Job};
use crate::job::verified::Verified;
use crate::job::{Api, body, papers, words};
use crate::render::{Output, clean, count, labelled, page};

/// Longest key file that is read.
const KEY_MAX: u64 = 64 << 10;

/// The request's body as a file: it may replace an earlier one.
const BODY: OutputForm = OutputForm {
    name: "the body",
    is_earlier: |head| {
        let text = String::from_utf8_lossy(head);
        text.starts_with('{') && text.contains("\"properties\":") && !text.contains("\"schema\":")
    },
    private: true,
};

/// A drive's key as a file: no key is written over.
const KEY: OutputForm = OutputForm { name: "the key", is_earlier: |_| false, private: true };

/// Arguments of `dray job`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    dray template job > job.toml            # fill it in\n  \
    dray job create --job job.toml --journal job.jrn\n  \
    dray job papers import-2026.job.json\n  \
    dray job ship import-2026.job.json --carrier FedEx --tracking 7712\n  \
    dray job show import-2026.job.json")]
pub struct JobArgs {
    #[command(subcommand)]
    action: Action,
}

/// Subcommands of `dray job`.
#[derive(Debug, Subcommand)]
enum Action {
    /// Check everything, record the job, and print or send the request that creates it
    Create(Create),
    /// List jobs: state, deadline, and what to do next
    List(List),
    /// Show one job: state, deadline, parcel, drives
    Show(Show),
    /// Report the parcel as shipped
    Ship(Ship),
    /// Cancel the job
    Cancel(Cancel),
    /// Fetch the keys of the drives from the service, for verifying
    Keys(Keys),
    /// Follow a job until something is to be done
    Watch(Watch),
    /// Change return address, carrier account or log level
    Update(Update),
    /// Let the service forget a job
    Delete(Delete),
    /// Fetch copy logs and lists of the job from the storage account
    Logs(Box<Logs>),
    /// List the addresses that drives are sent to, and the carriers for the way back
    Locations(Locations),
    /// Packing slip, drive labels and chain of custody, to print
    Papers(Papers),
}

/// Options for sending requests.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Sending")]
struct Sending {
    /// Send the request; without it nothing leaves this machine
    #[arg(long)]
    submit: bool,
    #[command(flatten)]
    sign_in: SignIn,
    /// URL that requests are sent to
    #[arg(long, value_name = "URL", default_value = "https://management.azure.com")]
    endpoint: String,
    /// Certificates to believe instead of the system's (PEM) [or the variable SSL_CERT_FILE]
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

/// Arguments of `dray job create`.
#[derive(Args, Debug)]
#[command(after_help = "A description with a table [export] makes an export job, which takes no records.\n\n\
                        Example:\n  dray job create --job job.toml --journal job.jrn")]
struct Create {
    /// Description of the job (see `dray template job`)
    #[arg(long, value_name = "TOML", default_value = "job.toml")]
    job: PathBuf,
    /// API to create the job with
    #[arg(long, value_name = "API", default_value = "import-export")]
    api: Api,
    /// Name of the job, instead of the one in the description
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Journal whose finished drives go into the job
    #[arg(long, value_name = "FILE", conflicts_with = "records")]
    journal: Option<PathBuf>,
    /// Drive records, instead of a journal; other jobs' files are compared with this one
    #[arg(value_name = "DRIVEID.xml")]
    records: Vec<PathBuf>,
    /// Make the job though drives or files of its session are missing
    #[arg(long)]
    partial: bool,
    /// Accept drives that the service does not take (images, virtual), to try the papers; nothing is sent
    #[arg(long, conflicts_with = "submit")]
    not_for_shipping: bool,
    /// Write the request's body, keys included, to this file (0600)
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// Write a key file a drive (0600), for az and PowerShell
    #[arg(long, value_name = "DIR")]
    key_files: Option<PathBuf>,
    /// Replace the local state of a job of this name
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    sending: Sending,
}

/// Arguments of `dray job list`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  dray job list /srv/import")]
struct List {
    /// Files of jobs, and directories that hold some [default: this directory]
    #[arg(value_name = "JOB.job.json|DIR")]
    paths: Vec<PathBuf>,
}

/// Arguments of `dray job show`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  dray job show import-2026.job.json --submit --token-file token")]
struct Show {
    /// The job's file
    #[arg(value_name = "JOB.job.json")]
    file: PathBuf,
    #[command(flatten)]
    sending: Sending,
}

/// Arguments of `dray job ship`.
#[derive(Args, Debug)]
#[command(
    override_usage = "dray job ship <JOB.job.json> --carrier <NAME> --tracking <NUMBER>",
    after_help = "Example:\n  dray job ship import-2026.job.json --carrier FedEx --tracking 7712"
)]
struct Ship {
    /// The job's file
    #[arg(value_name = "JOB.job.json")]
    file: PathBuf,
    /// Carrier of the parcel
    #[arg(long, value_name = "NAME")]
    carrier: String,
    /// Its tracking number; with several jobs in a parcel, -1, -2 at its end
    #[arg(long, value_name = "NUMBER")]
    tracking: String,
    /// Day of shipping, YYYY-MM-DD [default: today]
    #[arg(long, value_name = "DATE")]
    date: Option<jiff::civil::Date>,
    #[command(flatten)]
    sending: Sending,
}

/// Arguments of `dray job cancel`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  dray job cancel import-2026.job.json --reason \"wrong drives\"")]
struct Cancel {
    /// The job's file
    #[arg(value_name = "JOB.job.json")]
    file: PathBuf,
    /// Reason given to the service
    #[arg(long, value_name = "TEXT", default_value = "not needed any more")]
    reason: String,
    #[command(flatten)]
    sending: Sending,
}

/// Arguments of `dray job keys`.
#[derive(Args, Debug)]
#[command(after_help = "The file is what --key-file of `dray verify` reads.\n\n\
                        Example:\n  dray job keys export-2026.job.json --to keys.json --submit")]
struct Keys {
    /// The job's file
    #[arg(value_name = "JOB.job.json")]
    file: PathBuf,
    /// File to write the keys to; must not exist (0600)
    #[arg(long, value_name = "FILE", default_value = "keys.json")]
    to: PathBuf,
    #[command(flatten)]
    sending: Sending,
}

/// Arguments of `dray job watch`.
#[derive(Args, Debug)]
#[command(after_help = "Ends when a parcel is to be sent, when the job is over, or when it is stuck.\n\n\
                        Example:\n  dray job watch import-2026.job.json --submit")]
struct Watch {
    /// The job's file
    #[arg(value_name = "JOB.job.json")]
    file: PathBuf,
    /// Minutes between two questions
    #[arg(long, value_name = "MINUTES", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=1440))]
    every: u64,
    #[command(flatten)]
    sending: Sending,
}

/// Arguments of `dray job update`.
#[derive(Args, Debug)]
#[command(after_help = "Change the description first; what of it can still be changed is sent.\n\n\
                        Example:\n  dray job update import-2026.job.json --job job.toml --submit")]
struct Update {
    /// The job's file
    #[arg(value_name = "JOB.job.json")]
    file: PathBuf,
    /// Description of the job as it is to be
    #[arg(long, value_name = "TOML", default_value = "job.toml")]
    job: PathBuf,
    #[command(flatten)]
    sending: Sending,
}

/// Arguments of `dray job delete`.
#[derive(Args, Debug)]
#[command(after_help = "The logs stay in the storage account.\n\n\
                        Example:\n  dray job delete import-2026.job.json --submit")]
struct Delete {
    /// The job's file
    #[arg(value_name = "JOB.job.json")]
    file: PathBuf,
    #[command(flatten)]
    sending: Sending,
}

/// Arguments of `dray job logs`.
#[derive(Args, Debug)]
#[command(
    after_help = "`dray job show FILE --submit` learns where they are. `dray verify` and `dray audit` read them.\n\n\
                        Example:\n  dray job logs import-2026.job.json --to logs --endpoint ACCOUNT"
)]
struct Logs {
    /// The job's file
    #[arg(value_name = "JOB.job.json")]
    file: PathBuf,
    /// Directory for them: files that are there stay as they are
    #[arg(long, value_name = "DIR", default_value = "logs")]
    to: PathBuf,
    #[command(flatten)]
    account: AccountArgs,
}

/// Arguments of `dray job locations`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  dray job locations \"West US\" --submit")]
struct Locations {
    /// One of them [default: all]
    #[arg(value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    sending: Sending,
}

/// Arguments of `dray job papers`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  dray job papers import-2026.job.json --to papers\n  \
                        dray job papers import-2026.job.json --value 120,USD --weight 0.72")]
struct Papers {
    /// The job's file
    #[arg(value_name = "JOB.job.json")]
    file: PathBuf,
    /// Directory of the papers [default: that of the job's file]
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Output of `dray verify --json`: its verdict goes onto the chain of custody
    #[arg(long, value_name = "FILE")]
    verified: Option<PathBuf>,
    /// Value of each drive: drafts a commercial invoice for customs
    #[arg(long, value_name = "AMOUNT,CURRENCY", requires = "weight", value_parser = value_of_drive)]
    value: Option<(u64, String)>,
    /// Weight of each drive, for that invoice
    #[arg(long, value_name = "KG", requires = "value", value_parser = weight_of_drive)]
    weight: Option<u64>,
}

/// An amount in hundredths, and its currency: `120,USD`, `119.50,EUR`.
fn value_of_drive(text: &str) -> Result<(u64, String), String> {
    let form = "use an amount and a currency: 120,USD or 119.50,EUR";
    let (amount, currency) = text.split_once(',').ok_or(form)?;
    let is_code = currency.len() == 3 && currency.bytes().all(|b| b.is_ascii_uppercase());
    let cents = decimal(amount, 2).filter(|cents| is_code && (1..1_000_000_000).contains(cents));
    cents.map(|cents| (cents, currency.to_owned())).ok_or_else(|| form.into())
}

/// A weight in grams: `0.72` kilograms.
fn weight_of_drive(text: &str) -> Result<u64, String> {
    let grams = decimal(text.trim_end_matches("kg").trim(), 3).filter(|grams| (1..1_000_000).contains(grams));
    grams.ok_or_else(|| "use kilograms: 0.72".into())
}

/// A decimal number in units of its last place, of which there are at most `places`.
fn decimal(text: &str, places: usize) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || part.len() > places || !is_number(whole) || !is_number(part) {
        return None;
    }
    format!("{whole}{part:0<places$}").parse().ok()
}

impl JobArgs {
    /// Runs the subcommand that was given.
    pub fn run(self, output: &Output) -> Exit {
        let result = match self.action {
            Action::Create(create) => create.run(output),
            Action::List(list) => list.run(output),
            Action::Show(show) => show.run(output),
            Action::Ship(ship) => ship.run(output),
            Action::Cancel(cancel) => cancel.run(output),
            Action::Keys(keys) => keys.run(output),
            Action::Watch(watch) => watch.run(output),
            Action::Update(update) => update.run(output),
            Action::Delete(delete) => delete.run(output),
            Action::Logs(logs) => logs.run(output),
            Action::Locations(locations) => locations.run(output),
            Action::Papers(papers) => papers.run(output),
        };
        match result {
            Ok(()) => Exit::Done,
            Err(problems) => {
                output.problems(&problems);
                Exit::of_problems(&problems)
            }
        }
    }
}

impl Sending {
    fn service(&self) -> Result<Option<Service>, Problems> {
        if !self.submit {
            return Ok(None);
        }
        let endpoint = Endpoint::parse(&self.endpoint, "--endpoint", "https://management.azure.com")?;
        let ca_file = self.ca_file.as_deref();
        let tokens = self.sign_in.tokens(&management_of(&endpoint), &endpoint, ca_file)?;
        Ok(Some(Service::new(endpoint, ca_file, tokens, None)?))
    }
}

impl Create {
    fn run(mut self, output: &Output) -> Result<(), Problems> {
        let mut warnings = Vec::new();
        let mut problems = Problems::default();
        let (others, records): (Vec<_>, Vec<_>) = std::mem::take(&mut self.records)
            .into_iter()
            .partition(|path| path.to_string_lossy().ends_with(held::JOB_FILE));
        self.records = records;
        let mut gather = |more: Problems| problems.0.extend(more.0);
        let described = description::read(&self.job, self.api, self.name.as_deref(), &mut warnings);
        let described = described.map_err(&mut gather).ok();
        let service = self.sending.service().map_err(&mut gather).ok();
        let drives = match described.as_ref().and_then(|described| described.export.as_ref()) {
            Some(_) if self.journal.is_some() || !self.records.is_empty() => {
                let what = "the description is that of an export, whose drives are sent empty";
                let advice = "leave records and journal out, or the table [export]";
                gather(Problem::new(Kind::Usage, what).path(&self.job).column("[export]").advice(advice).into());
                None
            }
            Some(_) => Some((Vec::new(), Vec::new())),
            // It may be an export's; its errors have been reported already.
            None if described.is_none() && self.journal.is_none() && self.records.is_empty() => None,
            None => self.drives(&mut problems, &mut warnings),
        };
        let beside = self.journal.as_ref().or(self.records.first()).unwrap_or(&self.job);
        let dir = beside.parent().unwrap_or(Path::new("")).to_owned();
        let count = drives.as_ref().map_or(1, |(drives, _)| drives.len().div_ceil(DRIVES_MAX)).max(1);
        let names = described.as_ref().map(|described| description::names(self.api, &described.name, count));
        let names = names.transpose().map_err(|problem| problems.push(problem)).ok().flatten().unwrap_or_default();
        let own: Vec<PathBuf> = names.iter().map(|name| state::path_of(&dir, name)).collect();
        if let Some(described) = &described {
            let serials = described.export.iter().flat_map(|export| &export.drives).cloned();
            let ids = drives.iter().flat_map(|(drives, _)| drives).map(|drive| drive.id.clone()).chain(serials);
            let ids: Vec<String> = ids.collect();
            let mut near: Vec<&Path> = own.iter().map(PathBuf::as_path).chain([self.job.as_path()]).collect();
            near.extend(self.journal.iter().chain(&self.records).map(PathBuf::as_path));
            held::check_jobs(&ids, &own, &near, &others, &mut problems);
        }
        problems.into_result()?;
        let (Some(mut described), Some((mut drives, mut known)), Some(service)) = (described, drives, service) else {
            return Err(Problem::new(Kind::Internal, "the job has no problems, but its state is missing").into());
        };
        let mut parts = Vec::new();
        for (number, (name, file)) in names.into_iter().zip(own).enumerate() {
            let rest = drives.split_off(drives.len().min(DRIVES_MAX));
            let rest_known = known.split_off(known.len().min(DRIVES_MAX));
            let (drives, known) = (std::mem::replace(&mut drives, rest), std::mem::replace(&mut known, rest_known));
            let part = (count > 1).then_some(number + 1);
            parts.push(JobPart {
                name,
                file,
                drives,
                known,
                body: self.body.as_ref().map(|path| numbered(path, part)),
            });
        }
        if count > 1 {
            output.chat(&format!("A job takes {DRIVES_MAX} drives at most: these make {count} jobs.\n"));
            // A run that ended before its last job is continued.
            let sent;
            (sent, parts) = parts.into_iter().partition(|part| part.was_sent(service.is_some(), self.replace));
            say_sent(&sent, output);
        }
        self.refuse_known(&parts)?;
        for part in &parts {
            described.name.clone_from(&part.name);
            self.make(part, &described, service.as_ref(), &warnings, output)?;
            warnings.clear();
        }
        Ok(())
    }

    /// Reports all jobs that are known here already.
    fn refuse_known(&self, parts: &[JobPart]) -> Result<(), Problems> {
        let known = parts.iter().filter(|part| !self.replace && part.file.exists());
        let problem = |part: &JobPart| {
            Problem::new(Kind::Refused, "a job of this name is known here already; nothing was sent")
                .path(&part.file)
                .advice("look at it with `dray job show`; --replace forgets it, --name NAME makes another")
        };
        Problems(known.map(problem).collect()).into_result()
    }

    /// Makes one job: its files, then the request.
    fn make(
        &self,
        part: &JobPart,
        described: &Description,
        service: Option<&Service>,
        warnings: &[Problem],
        output: &Output,
    ) -> Result<(), Problems> {
        let mut this = self.job(described, &part.drives, &part.known)?;
        let request = body::create(self.api, described, &part.drives);
        self.write_keys(&request, part)?;
        this.save(&part.file)?;
        if let Some(service) = service {
            if self.api == Api::ImportExport {
                ask_location(service, described, &mut this)?;
            }
            let body = body::with_keys(&request, &part.drives);
            let answer = service.call(self.api, "PUT", &this.resource, Some(&body))?;
            Job::first_state(self.api).clone_into(&mut this.state);
            this.submitted_at = Some(api::host::timestamp());
            this.learn(&answer, api::host::timestamp());
            this.save(&part.file)?;
        }
        if !report(output, &this, &part.file, warnings) {
            self.say_how(output, described, &part.drives, &request, &this);
        }
        Ok(())
    }

    /// The drives of an import and their entries in the journals, checked against each other. `None` when their records
    /// cannot be read or are wrong.
    fn drives(
        &self,
        problems: &mut Problems,
        warnings: &mut Vec<Problem>,
    ) -> Option<(Vec<JobDrive>, Vec<Option<SessionDrive>>)> {
        let allowed = Allowed { partial: self.partial, not_for_shipping: self.not_for_shipping };
        let (records, shelves) = match &self.journal {
            Some(journal) => match Shelf::read(journal) {
                Ok(shelf) => {
                    let records: Vec<PathBuf> = shelf.finished().into_iter().map(|(record, _)| record).collect();
                    (records, vec![shelf])
                }
                Err(more) => {
                    problems.0.extend(more.0);
                    return None;
                }
            },
            None => (self.records.clone(), held::shelves_beside(&self.records)),
        };
        shelves.iter().for_each(|shelf| shelf.check_done(allowed, problems, warnings));
        if self.journal.is_some() && records.is_empty() {
            return None;
        }
        let drives = description::drives(&records, warnings).map_err(|more| problems.0.extend(more.0)).ok()?;
        let known = held::check_records(&drives, &shelves, allowed, problems, warnings);
        held::left_behind(&drives, &shelves, warnings);
        Some((drives, known))
    }

    /// Writes the requested key files, once it is known that every one of them can be created.
    fn write_keys(&self, request: &Value, part: &JobPart) -> Result<(), Problems> {
        let JobPart { drives, file, body: body_file, .. } = part;
        let mut outputs = Outputs::default();
        outputs.input(&self.job, "the description of the job");
        self.journal.iter().for_each(|path| outputs.input(path, "the journal"));
        self.records.iter().for_each(|path| outputs.input(path, "a drive record"));
        outputs.reserve(file, "the job's own file");
        let mut problems = Problems::default();
        let mut begun = Vec::new();
        let mut begin = |path: &Path, form: OutputForm, text: &str| {
            let output = outputs.begin(path, form).and_then(|mut output| output.add(text.as_bytes()).map(|()| output));
            output.map(|output| begun.push(output)).unwrap_or_else(|problem| problems.push(problem));
        };
        body_file.iter().for_each(|path| begin(path, BODY, &body::with_keys(request, drives)));
        if let Some(dir) = &self.key_files {
            make(dir)?;
            for drive in drives {
                let (path, key) = (key_file(dir, drive), drive.key.expose());
                // The same key may be there from an earlier run.
                if read_key(&path).is_none_or(|there| *there != *key) {
                    begin(&path, KEY, key);
                }
            }
        }
        problems.into_result()?;
        begun.into_iter().try_for_each(|output| output.finish().map_err(Problems::from))
    }

    fn job(
        &self,
        described: &Description,
        drives: &[JobDrive],
        all_known: &[Option<SessionDrive>],
    ) -> Result<Job, Problems> {
        let sum = |path: &Path| {
            api::records::sha256_of(path)
                .map_err(|error| Problem::new(Kind::Usage, format!("cannot be read: {error}")).path(path))
        };
        let mut known = Vec::new();
        for (drive, reported) in drives.iter().zip(all_known) {
            let reported = reported.as_ref();
            known.push(Drive {
                id: drive.id.clone(),
                manifest_file: drive.manifest_file.clone(),
                manifest_hash: drive.manifest_hash.clone(),
                record: drive.record.to_string_lossy().into_owned(),
                record_sha256: sum(&drive.record)?,
                files: reported.and_then(|reported| reported.files),
                data: reported.and_then(|reported| reported.data),
                ..Drive::default()
            });
        }
        for serial in described.export.iter().flat_map(|export| &export.drives) {
            known.push(Drive { id: serial.clone(), ..Drive::default() });
        }
        let journal = match &self.journal {
            Some(path) => Some((path.to_string_lossy().into_owned(), sum(path)?)),
            None => None,
        };
        let address = body::address(described);
        let mut sender = state::address_lines(&address);
        sender.push(described.address("email").to_owned());
        Ok(Job {
            name: described.name.clone(),
            api: self.api,
            resource: self.api.resource(&described.subscription, &described.group, &described.name),
            location: described.location.clone(),
            account: described.account_name().to_owned(),
            is_export: described.export.is_some(),
            state: "Drafted".into(),
            drives: known,
            created_at: api::host::timestamp(),
            submitted_at: None,
            shipped_at: None,
            ended_at: None,
            carrier: None,
            tracking: None,
            return_carrier: described.carrier.clone(),
            sender,
            data_center: Vec::new(),
            journal,
            percent: None,
            returned: None,
            incomplete: None,
        })
    }

    /// Prints the ways to create the job, where it was not sent.
    fn say_how(&self, output: &Output, job: &Description, drives: &[JobDrive], request: &Value, this: &Job) {
        if this.submitted_at.is_some() {
            return;
        }
        let style = output.style();
        let records: Vec<String> = drives.iter().map(|drive| format!("  {}\n", drive.record.display())).collect();
        let mut text = match &job.export {
            None => format!("\n{}\n{}", style.bold("To create it in the portal, upload these files"), records.concat()),
            Some(_) => String::new(),
        };
        let keys = |drive: &JobDrive| {
            key_file(self.key_files.as_deref().unwrap_or(Path::new("keys")), drive).display().to_string()
        };
        if self.api == Api::ImportExport && job.export.is_some() {
            text.push_str(&format!("\n{}\n{}", style.bold("With Azure's command line"), words::az(job, drives, &keys)));
        } else if self.api == Api::ImportExport {
            text.push_str(&format!(
                "\n{}\n{}\n{}\n{}",
                style.bold("Or with Azure's command line"),
                words::az(job, drives, &keys),
                style.bold("Or with PowerShell"),
                words::powershell(job, drives, &keys)
            ));
            if self.key_files.is_none() {
                text.push_str("  (--key-files keys writes the key files that both read)\n");
            }
        }
        text.push_str(&format!(
            "\n{}\nPUT {}?api-version={}\n{request:#}\n",
            style.bold(match &job.export {
                None => "Or by the API (--submit sends it; --body FILE writes it with the keys)",
                Some(_) => "By the API (--submit sends it)",
            }),
            this.resource,
            self.api.version()
        ));
        output.chat(&text);
    }
}

/// Reports the jobs that an earlier run sent.
fn say_sent(sent: &[JobPart], output: &Output) {
    for part in sent {
        let Ok(this) = Job::load(&part.file) else { continue };
        if !output.result("job", as_json(&this, &part.file, &[])) {
            output.say(&format!("{}: was sent before, and is {}\n", clean(&part.name), clean(&this.state)));
        }
    }
}

/// One of the jobs that a journal's drives make.
struct JobPart {
    name: String,
    /// The job's file.
    file: PathBuf,
    drives: Vec<JobDrive>,
    /// The drives' entries in the journal.
    known: Vec<Option<SessionDrive>>,
    /// File for the request's body, keys included.
    body: Option<PathBuf>,
}

impl JobPart {
    /// Whether an earlier run, which ended before the last job, sent this one with the same drives.
    fn was_sent(&self, submits: bool, replaces: bool) -> bool {
        let Ok(job) = Job::load(&self.file) else { return false };
        let same = job.drives.iter().map(|drive| &drive.id).eq(self.drives.iter().map(|drive| &drive.id));
        self.body.is_none() && submits && !replaces && job.submitted_at.is_some() && same
    }
}

/// The path with the number of a job in its name: `body.json`, `body-2.json`.
fn numbered(path: &Path, number: Option<usize>) -> PathBuf {
    let Some(number) = number else { return path.to_path_buf() };
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map(|end| format!(".{}", end.to_string_lossy())).unwrap_or_default();
    path.with_file_name(format!("{stem}-{number}{extension}"))
}

/// The local date.
fn today() -> jiff::civil::Date {
    api::host::timestamp().to_zoned(jiff::tz::TimeZone::system()).date()
}

fn make(dir: &Path) -> Result<(), Problem> {
    if dir.as_os_str().is_empty() {
        return Ok(());
    }
    fs::create_dir_all(dir)
        .map_err(|error| Problem::new(Kind::Environment, format!("the directory cannot be made: {error}")).path(dir))
}

/// The key in a key file; `None` when it cannot be read or is not UTF-8.
fn read_key(path: &Path) -> Option<Zeroizing<String>> {
    let bytes = api::host::read_input(path, KEY_MAX, api::host::Pipes::Refused).ok()?;
    std::str::from_utf8(&bytes).ok().map(|text| Zeroizing::new(text.to_owned()))
}

/// `<drive>.key` in `dir`.
fn key_file(dir: &Path, drive: &JobDrive) -> PathBuf {
    dir.join(format!("{}.key", drive.id))
}

/// Asks the service about the location: whether it accepts drives now, and by which carriers they come back.
fn ask_location(service: &Service, described: &Description, this: &mut Job) -> Result<(), Problem> {
    let path = format!("/providers/Microsoft.ImportExport/locations/{}", described.location);
    let answer = service.call(Api::ImportExport, "GET", &path, None)?;
    let reported = &answer["properties"];
    let list =
        |key: &str| -> Vec<&str> { reported[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect() };
    let carriers = list("supportedCarriers");
    if !carriers.is_empty() && !carriers.iter().any(|one| one.eq_ignore_ascii_case(&described.carrier)) {
        return Err(Problem::new(Kind::Refused, "the location does not send drives back by this carrier")
            .column("[return-shipping] carrier")
            .value(described.carrier.clone())
            .advice(format!("it takes: {}; nothing was sent", carriers.join(", "))));
    }
    let others = list("alternateLocations");
    let own = answer["id"].as_str().unwrap_or_default();
    if !others.is_empty() && !own.is_empty() && !others.iter().any(|one| one.eq_ignore_ascii_case(own)) {
        let names: Vec<&str> = others.iter().filter_map(|one| one.rsplit('/').next()).collect();
        return Err(Problem::new(Kind::Refused, "the location takes no drives at present")
            .column("location")
            .value(described.location.clone())
            .advice(format!("use one of these: {}; nothing was sent", names.join(", "))));
    }
    this.data_center = state::address_lines(reported);
    Ok(())
}

impl List {
    fn run(mut self, output: &Output) -> Result<(), Problems> {
        if self.paths.is_empty() {
            self.paths.push(PathBuf::from("."));
        }
        let files: Vec<PathBuf> = (self.paths.iter())
            .flat_map(|path| if path.is_dir() { held::jobs_in(path) } else { vec![path.clone()] })
            .collect();
        let mut problems = Problems::default();
        for file in &files {
            match Job::load(file) {
                Ok(this) if output.is_json() => output.object("job", as_json(&this, file, &[])),
                Ok(this) => {
                    let kind = if this.is_export { "export" } else { "import" };
                    let mut text = format!("{}  {kind}  {}: {}\n", this.name, this.state, this.meaning());
                    if let Some(deadline) = deadline(&this) {
                        text.push_str(&format!("  deadline {deadline}\n"));
                    }
                    text.push_str(&format!("  next: {}\n", this.next(file)));
                    output.say(&text);
                }
                Err(problem) => problems.push(problem),
            }
        }
        if files.is_empty() {
            let places: Vec<String> = self.paths.iter().map(|path| path.display().to_string()).collect();
            output.chat(&format!("no job in {}\n", places.join(", ")));
        }
        problems.into_result()
    }
}

impl Show {
    fn run(self, output: &Output) -> Result<(), Problems> {
        let mut this = Job::load(&self.file)?;
        if let Some(service) = self.sending.service()? {
            let answer = service.call(this.api, "GET", &this.resource, None)?;
            this.learn(&answer, api::host::timestamp());
            this.save(&self.file)?;
        }
        report(output, &this, &self.file, &[]);
        Ok(())
    }
}

impl Ship {
    fn run(self, output: &Output) -> Result<(), Problems> {
        let mut this = Job::load(&self.file)?;
        let mut problems = Problems::default();
        for (name, value) in [("--carrier", &self.carrier), ("--tracking", &self.tracking)] {
            if value.trim().is_empty() || value.chars().count() > 100 || value.chars().any(char::is_control) {
                problems.push(
                    Problem::new(Kind::Usage, "is no carrier or tracking number").column(name).value(value.clone()),
                );
            }
        }
        if !this.waits_for_parcel() {
            problems.push(
                Problem::new(Kind::Refused, "the job does not wait for a parcel")
                    .value(this.state.clone())
                    .advice("`dray job show FILE --submit` asks the service"),
            );
        }
        if this.state == "Drafted" && self.sending.submit {
            problems.push(
                Problem::new(Kind::Refused, "the service does not know of this job from here")
                    .advice("create it with `dray job create --submit`, or ask for it with `dray job show --submit`"),
            );
        }
        problems.into_result()?;
        let date = self.date.unwrap_or_else(today).to_string();
        let request = body::ship(this.api, self.carrier.trim(), self.tracking.trim(), this.drives.len(), &date);
        let (method, path) = match this.api {
            Api::ImportExport => ("PATCH", this.resource.clone()),
            Api::DataBox => ("POST", format!("{}/markDevicesShipped", this.resource)),
        };
        let sent = match self.sending.service()? {
            Some(service) => {
                let answer = service.call(this.api, method, &path, Some(&request.to_string()))?;
                this.learn(&answer, api::host::timestamp());
                true
            }
            None => false,
        };
        Job::shipped_state(this.api).clone_into(&mut this.state);
        this.shipped_at = Some(api::host::timestamp());
        this.carrier = Some(self.carrier.trim().to_owned());
        this.tracking = Some(self.tracking.trim().to_owned());
        this.save(&self.file)?;
        if !report(output, &this, &self.file, &[]) && !sent {
            unsent(output, method, &path, this.api, &request);
        }
        Ok(())
    }
}

impl Cancel {
    fn run(self, output: &Output) -> Result<(), Problems> {
        let mut this = Job::load(&self.file)?;
        let shipped = this.state == Job::shipped_state(this.api);
        let refuse = |what: &str, advice: &str| -> Problems {
            Problem::new(Kind::Refused, what).value(this.state.clone()).advice(advice.to_owned()).into()
        };
        if this.is_over() || this.state == "Cancelling" {
            return Err(refuse("the job is over or being cancelled", "nothing is left to cancel"));
        }
        if shipped && this.api == Api::DataBox {
            return Err(refuse(
                "a Data Box job cannot be cancelled once it is shipped",
                "wait until the drives are back",
            ));
        }
        if !shipped && !this.waits_for_parcel() {
            return Err(refuse("the drives are being worked on", "from Received on the service cancels no more"));
        }
        let mut warnings = Vec::new();
        if shipped {
            warnings.push(
                Problem::new(Kind::Usage, "the parcel is on its way: the service may not be able to stop")
                    .advice("its documents disagree; drives that arrive come back uncopied at best"),
            );
        }
        let request = body::cancel(this.api, &self.reason);
        let (method, path) = match this.api {
            Api::ImportExport => ("PATCH", this.resource.clone()),
            Api::DataBox => ("POST", format!("{}/cancel", this.resource)),
        };
        let drafted = this.state == "Drafted";
        let sent = match self.sending.service()? {
            Some(service) => {
                service.call(this.api, method, &path, Some(&request.to_string()))?;
                true
            }
            None => false,
        };
        if drafted && !sent { "Cancelled" } else { "Cancelling" }.clone_into(&mut this.state);
        this.ended_at.get_or_insert(api::host::timestamp());
        this.save(&self.file)?;
        if !report(output, &this, &self.file, &warnings) && !sent {
            unsent(output, method, &path, this.api, &request);
        }
        Ok(())
    }
}

impl Keys {
    fn run(self, output: &Output) -> Result<(), Problems> {
        let this = Job::load(&self.file)?;
        let action = if this.api == Api::ImportExport { "listBitLockerKeys" } else { "listCredentials" };
        let path = format!("{}/{action}", this.resource);
        if self.to.exists() {
            return Err(Problem::new(Kind::Refused, "exists already, and no key is overwritten")
                .path(&self.to)
                .advice("name another file with --to")
                .into());
        }
        let Some(service) = self.sending.service()? else {
            return Err(Problem::new(Kind::Usage, "the keys are at the service")
                .value(format!("POST {path}?api-version={}", this.api.version()))
                .advice("--submit asks for them; or send this yourself, and keep the answer")
                .into());
        };
        let answer = service.call(this.api, "POST", &path, None)?;
        let text = Zeroizing::new(format!("{answer:#}\n"));
        // Looked at before it is kept: an answer without keys would only be found out when the drives are back.
        api::inspect::Key::read(text.as_bytes()).map_err(|problem| {
            Problem { kind: Kind::Refused, ..problem }
                .advice("the service gives keys once the drives are being copied; try again later")
        })?;
        api::records::write_private(&self.to, text.as_bytes())?;
        let to = self.to.display().to_string();
        if !output.result("keys", serde_json::json!({ "job": this.name, "file": to })) {
            output.say(&format!("The keys are in {to}: keep it apart from the drives.\n"));
        }
        Ok(())
    }
}

impl Watch {
    fn run(self, output: &Output) -> Result<(), Problems> {
        let mut this = Job::load(&self.file)?;
        let Some(service) = self.sending.service()? else {
            return Err(needs_submit("the state is at the service").into());
        };
        let mut before = String::new();
        loop {
            let answer = service.call(this.api, "GET", &this.resource, None)?;
            this.learn(&answer, api::host::timestamp());
            this.save(&self.file)?;
            let drives: Vec<String> =
                this.drives.iter().map(|drive| format!("{}{:?}", drive.state, drive.percent)).collect();
            let now = format!("{} {:?} {}", this.state, this.percent, drives.join(" "));
            let is_end = this.waits_for_parcel() || this.is_over() || this.state == "Faulted";
            if now != before || is_end {
                report(output, &this, &self.file, &[]);
            }
            if is_end {
                return Ok(());
            }
            before = now;
            std::thread::sleep(std::time::Duration::from_secs(60 * self.every));
        }
    }
}

impl Update {
    fn run(self, output: &Output) -> Result<(), Problems> {
        let mut this = Job::load(&self.file)?;
        let mut warnings = Vec::new();
        let described = description::read(&self.job, this.api, Some(&this.name), &mut warnings)?;
        if this.is_over() || this.state == "Packaging" || this.state == "PreparingToShipFromAzureDC" {
            return Err(Problem::new(
                Kind::Refused,
                "the drives are on their way back: nothing can be changed any more",
            )
            .value(this.state.clone())
            .into());
        }
        let request = body::update(this.api, &described);
        match self.sending.service()? {
            Some(service) => {
                let answer = service.call(this.api, "PATCH", &this.resource, Some(&request.to_string()))?;
                this.learn(&answer, api::host::timestamp());
            }
            None => {
                unsent(output, "PATCH", &this.resource, this.api, &request);
                return Ok(());
            }
        }
        this.return_carrier.clone_from(&described.carrier);
        let address = body::address(&described);
        this.sender = state::address_lines(&address);
        this.sender.push(described.address("email").to_owned());
        this.save(&self.file)?;
        report(output, &this, &self.file, &warnings);
        Ok(())
    }
}

impl Delete {
    fn run(self, output: &Output) -> Result<(), Problems> {
        let mut this = Job::load(&self.file)?;
        let is_open = match this.api {
            Api::ImportExport => matches!(this.state.as_str(), "Drafted" | "Creating" | "Completed" | "Closed"),
            Api::DataBox => this.state == "Drafted" || this.is_over(),
        };
        if !is_open {
            let advice = if this.api == Api::DataBox {
                "cancel it first, or wait until it is over"
            } else {
                "a job can be deleted before it is shipped, or when it is over"
            };
            return Err(Problem::new(Kind::Refused, "the service does not delete a job in this state")
                .value(this.state.clone())
                .advice(advice)
                .into());
        }
        match self.sending.service()? {
            Some(service) => {
                service.call(this.api, "DELETE", &this.resource, None)?;
            }
            None => {
                output.chat(&format!(
                    "Not sent (--submit does):\nDELETE {}?api-version={}\n",
                    this.resource,
                    this.api.version()
                ));
                return Ok(());
            }
        }
        "Deleted".clone_into(&mut this.state);
        this.ended_at.get_or_insert(api::host::timestamp());
        this.save(&self.file)?;
        report(output, &this, &self.file, &[]);
        Ok(())
    }
}

/// Longest log that is fetched.
const LOG_MAX: u64 = 4 << 30;

/// Container and blob of an address in the account, and the name of a file for it.
fn place_of(account: &dray_account::Account, address: &str) -> Result<(String, String, String), Problem> {
    let wrong = |what: &str| {
        let shown = address.split('?').next().unwrap_or_default().to_owned();
        Problem::new(Kind::Refused, what.to_owned()).value(shown).advice("name the account's endpoint with --endpoint")
    };
    let base = account.endpoint().base();
    let plain = address.split('?').next().unwrap_or_default();
    let path = plain.strip_prefix(base).and_then(|rest| rest.strip_prefix('/'));
    // The service also gives paths below the account alone.
    let path = path.or_else(|| (!plain.contains("://")).then(|| plain.trim_start_matches('/')));
    let path = path.ok_or_else(|| wrong("is not in this account"))?;
    let path = dray_account::sign::decoded(path);
    let (container, blob) = path.split_once('/').ok_or_else(|| wrong("is no blob"))?;
    let name = blob.rsplit('/').next().unwrap_or_default();
    if name.is_empty() || name.starts_with('.') || name.chars().any(char::is_control) {
        return Err(wrong("has no name for a file"));
    }
    Ok((container.to_owned(), blob.to_owned(), name.to_owned()))
}

impl Logs {
    fn run(self, output: &Output) -> Result<(), Problems> {
        let this = Job::load(&self.file)?;
        let mut wanted: Vec<(String, String, String)> = Vec::new();
        for drive in &this.drives {
            wanted.extend(drive.logs.iter().map(|(kind, address)| (drive.id.clone(), kind.clone(), address.clone())));
        }
        wanted.extend(
            this.incomplete.iter().map(|address| (String::new(), "list of blobs not exported".into(), address.clone())),
        );
        if wanted.is_empty() {
            return Err(Problem::new(Kind::Usage, "nothing is known of logs of this job")
                .path(&self.file)
                .advice("`dray job show FILE --submit` asks the service, which writes them when drives are copied")
                .into());
        }
        let Some(account) = self.account.open(None)? else {
            return Err(Problem::new(Kind::Usage, "the logs are in the storage account")
                .column("--endpoint")
                .advice("name it: --endpoint https://NAME.blob.core.windows.net")
                .into());
        };
        make(&self.to)?;
        let mut files = Vec::new();
        for (drive, kind, address) in &wanted {
            let (container, blob, name) = place_of(&account, address)?;
            let path = self.to.join(name);
            if !path.exists() {
                let bytes = account.read_whole(&container, &blob, LOG_MAX).map_err(|failure| failure.problem())?;
                api::records::write_private(&path, &bytes)?;
            }
            files.push(serde_json::json!({ "drive_id": drive, "kind": kind, "path": path.display().to_string() }));
        }
        let shown: Vec<String> =
            files.iter().map(|file| file["path"].as_str().unwrap_or_default().to_owned()).collect();
        if !output.result("job_logs", serde_json::json!({ "job": this.name, "files": files })) {
            output.say(&format!("  {}\n", shown.join("\n  ")));
        }
        Ok(())
    }
}

impl Locations {
    fn run(self, output: &Output) -> Result<(), Problems> {
        let Some(service) = self.sending.service()? else {
            return Err(needs_submit("the list is at the service").into());
        };
        let base = "/providers/Microsoft.ImportExport/locations";
        let path = self.name.as_ref().map_or(base.to_owned(), |name| format!("{base}/{name}"));
        let answer = service.call(Api::ImportExport, "GET", &path, None)?;
        let all: Vec<&Value> = match answer["value"].as_array() {
            Some(list) => list.iter().collect(),
            None => vec![&answer],
        };
        let list = |one: &Value, key: &str| -> Vec<String> {
            let texts = one["properties"][key].as_array().into_iter().flatten().filter_map(Value::as_str);
            texts.map(|text| text.rsplit('/').next().unwrap_or(text).to_owned()).collect()
        };
        for one in all {
            let name = one["name"].as_str().unwrap_or_default();
            let lines = state::address_lines(&one["properties"]);
            let (carriers, others) = (list(one, "supportedCarriers"), list(one, "alternateLocations"));
            if output.is_json() {
                let value = serde_json::json!({
                    "name": name, "address": lines, "carriers": carriers, "alternates": others,
                });
                output.object("location", value);
            } else {
                output.say(&format!(
                    "{}\n  to: {}\n  comes back by: {}\n",
                    output.style().bold(name),
                    lines.join(", "),
                    carriers.join(", ")
                ));
                if !others.is_empty() {
                    output.say(&format!("  use one of: {}\n", others.join(", ")));
                }
            }
        }
        Ok(())
    }
}

fn needs_submit(what: &str) -> Problem {
    Problem::new(Kind::Usage, what.to_owned()).column("--submit").advice("--submit asks it")
}

fn unsent(output: &Output, method: &str, path: &str, api: Api, request: &Value) {
    output.chat(&format!(
        "\n{}\n{method} {path}?api-version={}\n{request:#}\n",
        output.style().bold("Not sent: do it in the portal, or send this (--submit does)"),
        api.version()
    ));
}

impl Papers {
    fn run(self, output: &Output) -> Result<(), Problems> {
        let this = Job::load(&self.file)?;
        let verified = self.verified.as_deref().map(Verified::read).transpose()?;
        let dir = self.to.unwrap_or_else(|| self.file.parent().unwrap_or(Path::new("")).to_path_buf());
        make(&dir)?;
        let mut paths = Vec::new();
        let mut outputs = Outputs::default();
        outputs.input(&self.file, "the job");
        self.verified.iter().for_each(|path| outputs.input(path, "the result of the verification"));
        let goods = self.value.zip(self.weight);
        let goods = goods.map(|((cents, currency), grams)| papers::Goods { cents, currency, grams });
        let mut pages = vec![
            ("packing-slip", papers::slip(&this)),
            ("drive-labels", papers::labels(&this)),
            ("chain-of-custody", papers::custody(&this, verified.as_ref(), api::host::timestamp())),
        ];
        pages.extend(goods.map(|goods| ("customs-invoice", papers::invoice(&this, &goods, api::host::timestamp()))));
        for (name, page) in pages {
            let path = dir.join(format!("{}-{name}.html", this.name));
            page.save(outputs.begin(&path, page::FORM)?)?;
            paths.push(path);
        }
        let list: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        if !output.result("papers", serde_json::json!({ "files": list })) {
            output.say(&format!("To print; none of them holds a key:\n  {}\n", list.join("\n  ")));
        }
        Ok(())
    }
}

fn as_json(this: &Job, file: &Path, warnings: &[Problem]) -> Value {
    let mut value = this.to_json(file);
    if let Some(fields) = value.as_object_mut() {
        let list: Vec<Value> = warnings.iter().map(crate::render::json::problem).collect();
        fields.insert("warnings".into(), list.into());
    }
    value
}

/// Day of the deadline, days left, and its consequence.
fn deadline(this: &Job) -> Option<String> {
    let (at, what) = this.deadline()?;
    let days = (at.as_second() - api::host::timestamp().as_second()).div_euclid(86_400);
    let left = if days < 0 { "past".to_owned() } else { format!("{} left", count(days.unsigned_abs(), "day")) };
    Some(format!("{} ({left}): {what}", at.strftime("%Y-%m-%d")))
}

/// Reports the state of the job; `true` when it was printed as an object.
fn report(output: &Output, this: &Job, file: &Path, warnings: &[Problem]) -> bool {
    if output.result("job", as_json(this, file, warnings)) {
        return true;
    }
    let style = output.style();
    let api = if this.api == Api::ImportExport { "Import/Export" } else { "Data Box, own disks" };
    let kind = if this.is_export { "export, " } else { "" };
    let mut text = format!("{} ({kind}{api}, {})\n", style.bold(&format!("Job {}", this.name)), this.location);
    let mut line = |label: &str, value: &str| text.push_str(&labelled(label, value));
    line("state", &format!("{}: {}", this.state, this.meaning()));
    if let Some(deadline) = deadline(this) {
        line("deadline", &deadline);
    }
    if let (Some(carrier), Some(tracking)) = (&this.carrier, &this.tracking) {
        line("parcel", &format!("{carrier} {tracking}"));
    }
    if let Some(percent) = this.percent {
        line("copied", &format!("{percent}%"));
    }
    if !this.data_center.is_empty() {
        line("send to", &this.data_center.join(", "));
    }
    if let Some((carrier, tracking)) = &this.returned {
        line("comes back", &format!("{carrier} {tracking}"));
    }
    if this.incomplete.is_some() {
        line("not exported", "some blobs: `dray job logs` fetches their list");
    }
    for drive in &this.drives {
        let percent = drive.percent.map(|percent| format!(", {percent}%")).unwrap_or_default();
        let known = if drive.state.is_empty() {
            String::new()
        } else {
            format!(" {}{percent} ({})", drive.state, state::drive_meaning(&drive.state))
        };
        line("drive", &format!("{}{known}", drive.id));
        if !drive.copy_status.is_empty() {
            let bytes =
                drive.bytes.map(|bytes| format!(", {}", dray_engine::units::ByteLen(bytes))).unwrap_or_default();
            let percent = drive.percent.filter(|_| drive.state.is_empty()).map(|percent| format!(", {percent}%"));
            let meaning = state::copy_meaning(&drive.copy_status);
            let meaning = if meaning.is_empty() { "not in the published table" } else { meaning };
            let status = format!("{}{}{bytes}: {meaning}", drive.copy_status, percent.unwrap_or_default());
            line("", &format!("  {status}"));
        }
        for (kind, address) in &drive.logs {
            line("", &format!("  {kind}: {}", address.split('?').next().unwrap_or_default()));
        }
    }
    line("next", &this.next(file));
    line("file", &file.display().to_string());
    output.say(&text);
    for warning in warnings {
        output.note(warning);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_weights_are_exact() {
        assert_eq!(value_of_drive("119.5,EUR"), Ok((11_950, "EUR".to_owned())));
        assert_eq!(value_of_drive("120,USD"), Ok((12_000, "USD".to_owned())));
        for wrong in ["120", "120,usd", "0,USD", "-1,USD", "1.234,USD", ".5,USD", "120,USDX", "1e3,USD"] {
            assert!(value_of_drive(wrong).is_err(), "{wrong}");
        }
        assert_eq!((weight_of_drive("0.72"), weight_of_drive("1 kg")), (Ok(720), Ok(1000)));
        assert!(["", "0", "0.0001", "heavy", "1000"].iter().all(|wrong| weight_of_drive(wrong).is_err()));
    }
}
