//! `job.toml`, and the drives that go into a job: read and checked.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use dray_engine::api;
use dray_engine::api::records::{RecordState, SecretText};
use dray_engine::report::{Kind, Problem, Problems};

use super::Api;
use super::export::{self, Export};
use super::extras::{self, Extras};
use super::placeholders;
use crate::args::classic::nearest;

/// Drives of one job (spec: at most ten, all in one parcel).
pub const DRIVES_MAX: usize = 10;
/// Longest file that the portal takes.
const PORTAL_MAX: u64 = 2 << 20;
/// Longest description file that is read.
const FILE_MAX: u64 = 1 << 20;

/// Facts of a job other than its drives.
#[derive(Clone, Debug, Default)]
pub struct Description {
    /// Name of the job.
    pub name: String,
    /// Azure region of the storage account.
    pub location: String,
    /// Azure subscription (GUID).
    pub subscription: String,
    /// Resource group of the job.
    pub group: String,
    /// Full resource id of the storage account.
    pub storage_account: String,
    /// Return address, in the order of [`ADDRESS`].
    pub address: Vec<(&'static str, String)>,
    /// Carrier of the return parcel.
    pub carrier: String,
    /// Account number with that carrier.
    pub account: String,
    /// `Error` or `Verbose`.
    pub log_level: String,
    /// Whether the service keeps a copy of each manifest.
    pub backup_manifest: bool,
    /// Container of the service's logs.
    pub diagnostics: String,
    /// Blobs to export; `None` for an import.
    pub export: Option<Export>,
    /// The customer's key, its identity, and tags.
    pub extras: Extras,
}

/// Keys of the return address in the file, and their names in the Import/Export API; `true`: required.
pub const ADDRESS: &[(&str, &str, bool)] = &[
    ("recipient", "recipientName", true),
    ("street", "streetAddress1", true),
    ("street2", "streetAddress2", false),
    ("city", "city", true),
    ("state", "stateOrProvince", false),
    ("postal-code", "postalCode", true),
    ("country", "countryOrRegion", true),
    ("phone", "phone", true),
    ("email", "email", true),
];

const TOP: &[&str] = &[
    "name",
    "location",
    "subscription",
    "resource-group",
    "storage-account",
    "return-address",
    "return-shipping",
    "options",
    "export",
    extras::TABLES[0],
    extras::TABLES[1],
    extras::TABLES[2],
];

/// Locations named in the documentation, in the form without blanks; the service itself is asked before a job is sent.
const LOCATIONS: &[&str] = &[
    "eastus",
    "westus",
    "eastus2",
    "westus2",
    "centralus",
    "northcentralus",
    "southcentralus",
    "westcentralus",
    "northeurope",
    "westeurope",
    "eastasia",
    "southeastasia",
    "australiaeast",
    "australiasoutheast",
    "japanwest",
    "japaneast",
    "centralindia",
    "southindia",
    "westindia",
    "canadacentral",
    "canadaeast",
    "brazilsouth",
    "koreacentral",
    "usgovvirginia",
    "usgoviowa",
    "usdodeast",
    "usdodcentral",
    "chinaeast",
    "chinanorth",
    "uksouth",
    "germanycentral",
    "germanynortheast",
    "southafricanorth",
    "southafricawest",
    "uaecentral",
    "uaenorth",
];

/// Parts of the names of locations that return parcels by DHL; others use FedEx.
const DHL_PLACES: &[&str] = &["asia", "australia", "japan", "india", "korea", "china"];

impl Description {
    /// The address field with this key in the file; empty when absent.
    pub fn address(&self, key: &str) -> &str {
        self.address.iter().find(|(name, _)| *name == key).map_or("", |(_, value)| value)
    }

    /// Name of the storage account alone.
    pub fn account_name(&self) -> &str {
        self.storage_account.rsplit('/').next().unwrap_or_default()
    }
}

/// Name of this kind of file in messages.
pub const KIND: &str = "job description";

/// Whether a file is meant to be a description: by its name, or by a table of one.
pub fn is_one(path: &Path) -> bool {
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml")) {
        return true;
    }
    let is_small = fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() <= FILE_MAX);
    let text = if is_small { fs::read(path).and_then(|bytes| api::host::decode_text(&bytes)).ok() } else { None };
    text.is_some_and(|text| text.lines().any(|line| line.trim() == "[return-address]"))
}

/// Reads `job.toml`, and checks it for `api`; `name` replaces the name in it.
///
/// # Errors
/// Everything that is wrong in it.
pub fn read(path: &Path, api: Api, name: Option<&str>, warnings: &mut Vec<Problem>) -> Result<Description, Problems> {
    let problem = |what: String| Problem::new(Kind::Usage, what).path(path);
    let text = api::host::read_input(path, FILE_MAX, api::host::Pipes::Taken)
        .and_then(|bytes| api::host::decode_text(&bytes))
        .map_err(|error| {
            problem(format!("the job's description cannot be read: {error}"))
                .advice("`dray template job > job.toml` prints one to fill in")
        })?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count() as u64);
        problem(format!("is not TOML: {}", error.message())).line(line)
    })?;
    let mut reader = Reader { path, problems: Problems::default() };
    reader.known(&table, "", TOP);
    let sub = |key: &str| table.get(key).and_then(toml::Value::as_table).cloned().unwrap_or_default();
    let (address, shipping, options) = (sub("return-address"), sub("return-shipping"), sub("options"));
    let names: Vec<&str> = ADDRESS.iter().map(|(key, _, _)| *key).collect();
    reader.known(&address, "return-address", &names);
    reader.known(&shipping, "return-shipping", &["carrier", "account"]);
    reader.known(&options, "options", &["log-level", "backup-manifest", "diagnostics-path"]);
    let mut out = Description {
        name: name.map_or_else(|| reader.text(&table, "", "name", true), str::to_owned),
        location: reader.text(&table, "", "location", true),
        subscription: reader.text(&table, "", "subscription", true),
        group: reader.text(&table, "", "resource-group", true),
        storage_account: reader.text(&table, "", "storage-account", true),
        address: Vec::new(),
        carrier: reader.text(&shipping, "return-shipping", "carrier", true),
        account: reader.text(&shipping, "return-shipping", "account", true),
        log_level: reader.text(&options, "options", "log-level", false),
        backup_manifest: reader.switch(&options, "options", "backup-manifest"),
        diagnostics: reader.text(&options, "options", "diagnostics-path", false),
        export: None,
        extras: Extras::default(),
    };
    if let Some(value) = table.get("export") {
        match value.as_table() {
            Some(table) => {
                reader.known(table, "export", export::KEYS);
                out.export = Some(Export::read(path, table, &mut reader.problems));
            }
            None => {
                let problem = reader.at("", "export", "is no table").advice("[export], and its lines below it");
                reader.problems.push(problem);
            }
        }
    }
    for (key, _, required) in ADDRESS {
        out.address.push((*key, reader.text(&address, "return-address", key, *required)));
    }
    let mut problems = reader.problems;
    out.extras = Extras::read(path, api, &table, &mut problems);
    placeholders::check(path, &table, &mut problems);
    check(path, api, &mut out, &mut problems, warnings);
    problems.into_result().map(|()| out)
}

struct Reader<'a> {
    path: &'a Path,
    problems: Problems,
}

impl Reader<'_> {
    fn at(&self, table: &str, key: &str, what: &str) -> Problem {
        let column = if table.is_empty() { key.to_owned() } else { format!("[{table}] {key}") };
        Problem::new(Kind::Usage, what).path(self.path).column(column)
    }

    fn known(&mut self, table: &toml::Table, name: &str, keys: &[&str]) {
        for key in table.keys().filter(|key| !keys.contains(&key.as_str())) {
            let problem = self.at(name, key, "is not known here");
            self.problems.push(match nearest(key, keys.iter().copied()) {
                Some(near) => problem.advice(format!("did you mean {near}?")),
                None => problem.advice(format!("known are {}", keys.join(", "))),
            });
        }
    }

    fn text(&mut self, table: &toml::Table, name: &str, key: &str, required: bool) -> String {
        match table.get(key) {
            Some(toml::Value::String(text)) if !text.trim().is_empty() => text.trim().to_owned(),
            Some(toml::Value::String(_)) | None => {
                if required {
                    let problem = self.at(name, key, "is missing").advice("`dray template job` shows every line");
                    self.problems.push(problem);
                }
                String::new()
            }
            Some(_) => {
                let problem = self.at(name, key, "is no text").advice("write it in quotes");
                self.problems.push(problem);
                String::new()
            }
        }
    }

    fn switch(&mut self, table: &toml::Table, name: &str, key: &str) -> bool {
        match table.get(key) {
            None => false,
            Some(toml::Value::Boolean(yes)) => *yes,
            Some(_) => {
                let problem = self.at(name, key, "is neither true nor false");
                self.problems.push(problem);
                false
            }
        }
    }
}

fn check(path: &Path, api: Api, out: &mut Description, problems: &mut Problems, warnings: &mut Vec<Problem>) {
    let at = |column: &str, what: &str, value: &str| {
        Problem::new(Kind::Usage, what).path(path).column(column).value(value.to_owned())
    };
    if !out.name.is_empty()
        && let Err(what) = check_name(api, &out.name)
    {
        problems.push(at("name", &what, &out.name).advice("for example import-2026"));
    }
    if !out.subscription.is_empty() && !is_guid(&out.subscription) {
        problems
            .push(at("subscription", "is no subscription id", &out.subscription).advice("`az account show` prints it"));
    }
    let good_group = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '(' | ')');
    if out.group.chars().count() > 90 || !out.group.chars().all(good_group) || out.group.ends_with('.') {
        problems.push(at("resource-group", "is no name of a resource group", &out.group));
    }
    let plain = out.location.to_ascii_lowercase().replace(' ', "");
    if !plain.is_empty() && !LOCATIONS.contains(&plain.as_str()) {
        let near = nearest(&plain, LOCATIONS.iter().copied());
        let problem = at("location", "is no location that the service's documents name", &out.location);
        warnings.push(match near {
            Some(near) => problem.advice(format!("did you mean {near}? the service is asked when the job is sent")),
            None => problem.advice("the service is asked when the job is sent"),
        });
    }
    storage_account(path, out, problems);
    let email = out.address("email");
    if !email.is_empty() && !email.split_once('@').is_some_and(|(a, b)| !a.is_empty() && b.contains('.')) {
        problems.push(at("[return-address] email", "is no address", email));
    }
    let phone = out.address("phone");
    if !phone.is_empty() && !phone.bytes().any(|b| b.is_ascii_digit()) {
        problems.push(at("[return-address] phone", "is no number", phone));
    }
    carrier(path, out, &plain, warnings);
    if out.log_level.is_empty() {
        out.log_level = "Error".into();
    }
    match out.log_level.to_ascii_lowercase().as_str() {
        "error" => out.log_level = "Error".into(),
        "verbose" => out.log_level = "Verbose".into(),
        _ => problems.push(at("[options] log-level", "is no level", &out.log_level).advice("Error or Verbose")),
    }
    if out.diagnostics.is_empty() {
        out.diagnostics = "waimportexport".into();
    }
}

fn is_guid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12])
        && parts.iter().all(|part| part.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Checks the storage account, and makes its resource id of a bare name.
fn storage_account(path: &Path, out: &mut Description, problems: &mut Problems) {
    let at = |what: &str, value: &str| {
        Problem::new(Kind::Usage, what).path(path).column("storage-account").value(value.to_owned())
    };
    let account = out.account_name().to_owned();
    let good_account = |name: &str| {
        (3..=24).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    if !account.is_empty() && !good_account(&account) {
        problems.push(
            at("is no name of a storage account", &account)
                .advice("3 to 24 lower-case letters and digits, or the full resource id"),
        );
    }
    let lower = out.storage_account.to_ascii_lowercase();
    if !lower.contains('/') {
        out.storage_account = format!(
            "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.Storage/storageAccounts/{account}",
            out.subscription, out.group
        );
    } else if !lower.contains("/providers/microsoft.storage/storageaccounts/")
        && !lower.contains("/providers/microsoft.classicstorage/storageaccounts/")
    {
        problems.push(at("is no id of a storage account", &out.storage_account).advice(
            "/subscriptions/<id>/resourceGroups/<group>/providers/Microsoft.Storage/storageAccounts/<name>, or the name",
        ));
    }
}

/// Checks the carrier against the documentation; the location's own list decides, and is asked when the job is sent.
fn carrier(path: &Path, out: &Description, location: &str, warnings: &mut Vec<Problem>) {
    if out.carrier.is_empty() {
        return;
    }
    let expected = if DHL_PLACES.iter().any(|place| location.contains(place)) { "DHL" } else { "FedEx" };
    if !out.carrier.eq_ignore_ascii_case(expected) {
        warnings.push(
            Problem::new(Kind::Usage, format!("drives of this location usually come back by {expected}"))
                .path(path)
                .column("[return-shipping] carrier")
                .value(out.carrier.clone())
                .advice("the location's list decides (`az import-export location show`); UPS is not offered for the way back"),
        );
    }
}

/// The names that both services take (docs/spec/import-export.md#limits-and-shipping-rules; the description of
/// `jobName` for Data Box).
/// Names of `count` jobs of one description: its own, or with -1, -2, … at its end.
///
/// # Errors
/// A name that the API does not take.
pub fn names(api: Api, name: &str, count: usize) -> Result<Vec<String>, Problem> {
    if count <= 1 {
        return Ok(vec![name.to_owned()]);
    }
    let names: Vec<String> = (1..=count).map(|number| format!("{name}-{number}")).collect();
    match names.last().map(|last| (last, check_name(api, last))) {
        Some((last, Err(why))) => Err(Problem::new(Kind::Usage, format!("cannot name {count} jobs: {why}"))
            .column("name")
            .value(last.clone())
            .advice("give a shorter name with --name")),
        _ => Ok(names),
    }
}

fn check_name(api: Api, name: &str) -> Result<(), String> {
    match api {
        Api::ImportExport => api::azure::check_job_name(name).map_err(|error| error.to_string()),
        Api::DataBox => {
            let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
            let good = (3..=24).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && edge(name.chars().next())
                && edge(name.chars().last());
            if good {
                Ok(())
            } else {
                Err("a Data Box job has 3 to 24 letters, digits and hyphens, none of them at an end".into())
            }
        }
    }
}

/// A drive of a job.
#[derive(Debug)]
pub struct JobDrive {
    /// Drive id, as in the drive record.
    pub id: String,
    /// Path of the manifest on it.
    pub manifest_file: String,
    /// MD5 of the manifest.
    pub manifest_hash: String,
    /// `DriveHeaderHash`, or nothing.
    pub header_hash: String,
    /// Path of the drive record, the source of these facts.
    pub record: PathBuf,
    /// BitLocker key of the drive.
    pub key: SecretText,
}

/// Reads the drive records of a job and checks them together.
///
/// # Errors
/// Everything that is wrong in them.
pub fn drives(records: &[PathBuf], warnings: &mut Vec<Problem>) -> Result<Vec<JobDrive>, Problems> {
    let mut problems = Problems::default();
    let mut out: Vec<JobDrive> = Vec::new();
    let mut seen = HashSet::new();
    if records.is_empty() {
        problems.push(
            Problem::new(Kind::Usage, "a job needs drives")
                .advice("name the drive records, <DriveId>.xml, or the journal: --journal job.jrn"),
        );
    }
    for path in records {
        let problem = |what: &str| Problem::new(Kind::Usage, what).path(path);
        let record = match api::records::read_record(path) {
            Ok(record) => record,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        let before = problems.0.len();
        if record.state == Some(RecordState::Incomplete) {
            problems.push(problem("belongs to a drive that is not finished").advice("prepare it to its end first"));
        }
        if !seen.insert(record.drive_id.to_ascii_lowercase()) {
            problems.push(problem("names a drive that another record names too").value(record.drive_id.clone()));
        }
        if let Err(error) = api::azure::check_drive_id(&record.drive_id) {
            problems.push(problem(&error.to_string()).value(record.drive_id.clone()).advice(error.advice()));
        }
        let manifest_file = record.manifest_file.clone().unwrap_or_default();
        // The service takes any text here, and finds nothing when the drive has arrived.
        if manifest_file.starts_with("\\\\") || manifest_file.get(1..).is_some_and(|rest| rest.contains("\\\\")) {
            problems.push(problem("names its manifest with two backslashes in a row").value(manifest_file.clone()));
        } else if !manifest_file.starts_with('\\') {
            problems.push(problem("names no manifest that begins with \\").value(manifest_file.clone()));
        }
        if record.manifest_hash.is_none() && record.state != Some(RecordState::Incomplete) {
            problems.push(problem("holds no hash of the manifest"));
        }
        match &record.bitlocker_key {
            None => problems.push(problem("holds no BitLocker key")),
            Some(key) if !api::records::is_numerical_password(key.expose()) => problems
                .push(problem("holds no numerical password").advice("the service wants the 48 digits, not a key file")),
            Some(_) => {}
        }
        if fs::metadata(path).is_ok_and(|meta| meta.len() > PORTAL_MAX) {
            warnings.push(problem("is larger than the 2 MB that the portal takes; the API takes it"));
        }
        if problems.0.len() > before {
            continue;
        }
        let (Some(key), Some(hash)) = (record.bitlocker_key, record.manifest_hash) else { continue };
        out.push(JobDrive {
            id: record.drive_id,
            manifest_file,
            manifest_hash: hash.to_string(),
            header_hash: record.drive_header_hash.unwrap_or_default(),
            record: path.clone(),
            key,
        });
    }
    problems.into_result().map(|()| out)
}
