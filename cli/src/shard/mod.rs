//! A plan that is split by drive: its directory, the index in it, and the state of each shard.
//!
//! ```text
//! DIR/index.json              the shards, their drives, hosts and digests
//! DIR/0003-SERIAL.shard       one drive: identity, catalog, seed; no key
//! DIR/refused.jsonl           blobs that cannot be exported, if the plan is an export
//! DIR/taken/SERIAL.json       the shard of a size class that took this drive
//! DIR/0003.lock               the process that works on it: host, boot id, process, start time
//! DIR/0003/                   journal, drive record (mode 0600), checkpoint and logs
//! DIR/0003.result.json        the last word of the last run
//! ```

pub mod export;
pub mod hosts;
pub mod lock;
pub mod scripts;
pub mod taken;
pub mod task;

use std::fs;
use std::path::{Path, PathBuf};

use dray_engine::api;
use dray_engine::api::hash::Sha256;
use dray_engine::api::prepare::shards;
use dray_engine::report::{DriveFacts, Kind, Problem, Problems};
use serde_json::{Value, json};

use lock::{Holder, Lock};
use taken::Taken;
use task::{Known, ShardWork};

use crate::exit::Exit;
use crate::render::text::hex;

/// Version of index and results.
const VERSION: u64 = 1;
/// Longest index that is read: a thousand drives take 300 KB.
const INDEX_MAX: u64 = 64 << 20;

/// A shard of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardEntry {
    /// Number in the plan, from 0.
    pub number: u64,
    /// Name of its file.
    pub file: String,
    /// SHA-256 of the file.
    pub digest: [u8; 32],
    /// Drive id; empty while a shard of a size class has taken no drive.
    pub drive_id: String,
    /// Whether any drive of its size will do.
    pub is_any: bool,
    /// Serial, where the drive has one.
    pub serial: Option<String>,
    /// Name of the drive in the plan: `serial:…`, or the path of an image.
    pub name: String,
    /// Host that has the drive, if the plan says.
    pub host: Option<String>,
    /// Bytes of the drive.
    pub size: u64,
    /// Files of the session on it.
    pub files: u64,
    /// Bytes of those files.
    pub data: u64,
    /// Whether the drive is an image file.
    pub is_image: bool,
}

/// The plan as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Directory of the shards.
    pub dir: PathBuf,
    /// Work of the shards.
    pub work: ShardWork,
    /// Session id; of other works than preparing, their name.
    pub session: String,
    /// Of an export: the account, and what of it is on no drive.
    pub export: Option<ExportFacts>,
    /// SHA-256 of the digests of all shards, in their order: names this plan.
    pub plan: [u8; 32],
    /// One entry a drive.
    pub shards: Vec<ShardEntry>,
}

/// Facts of an export that no shard has alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportFacts {
    /// Endpoint of the account, without any secret.
    pub endpoint: String,
    /// SHA-256 of the list of blobs that cannot be exported, if there are any.
    pub refused: Option<[u8; 32]>,
}

impl ExportFacts {
    fn json(&self) -> Value {
        json!({ "endpoint": self.endpoint, "refused": self.refused.as_ref().map(|digest| hex(digest)) })
    }

    fn of_json(value: &Value) -> Option<Self> {
        let refused = match &value["refused"] {
            Value::Null => None,
            digest => Some(digest.as_str().and_then(unhex)?),
        };
        Some(Self { endpoint: value["endpoint"].as_str()?.to_owned(), refused })
    }
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(out)
}

fn plan_digest(shards: &[ShardEntry], export: Option<&ExportFacts>) -> [u8; 32] {
    let mut hash = Sha256::default();
    shards.iter().for_each(|shard| hash.update(&shard.digest));
    if let Some(refused) = export.and_then(|export| export.refused.as_ref()) {
        hash.update(refused);
    }
    hash.value()
}

impl Index {
    /// The index of shards that were just written.
    pub fn new(
        dir: &Path,
        session: &str,
        written: &[shards::Shard],
        export: Option<ExportFacts>,
        host_of: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let entry = |(number, shard): (u64, &shards::Shard)| ShardEntry {
            number,
            file: shard.file.clone(),
            digest: shard.digest,
            drive_id: if shard.is_any { String::new() } else { shard.drive.drive_id.clone() },
            is_any: shard.is_any,
            serial: shard.drive.serial.clone().filter(|_| !shard.is_any),
            name: shard.drive.name.clone(),
            host: host_of(&shard.drive.drive_id),
            size: shard.drive.size.0,
            files: shard.files,
            data: shard.data.0,
            is_image: shard.drive.is_image,
        };
        let shards: Vec<ShardEntry> = (0..).zip(written).map(entry).collect();
        let plan = plan_digest(&shards, export.as_ref());
        let work = if export.is_some() { ShardWork::Export } else { ShardWork::Prepare };
        Self { dir: dir.to_path_buf(), work, session: session.into(), export, plan, shards }
    }

    /// The index of tasks that were just written, each with the name of its file and its digest.
    pub fn of_tasks(dir: &Path, work: ShardWork, written: &[(Known, String, [u8; 32])], hosts: &hosts::Hosts) -> Self {
        let entry = |(number, (known, file, digest)): (u64, &(Known, String, [u8; 32]))| ShardEntry {
            number,
            file: file.clone(),
            digest: *digest,
            drive_id: known.drive_id.clone(),
            is_any: false,
            serial: (!known.is_image()).then(|| known.drive_id.clone()),
            name: known.name.clone(),
            host: hosts.of.get(&known.drive_id).cloned(),
            size: known.size,
            files: known.files.0,
            data: known.files.1,
            is_image: known.is_image(),
        };
        let shards: Vec<ShardEntry> = (0..).zip(written).map(entry).collect();
        let plan = plan_digest(&shards, None);
        Self { dir: dir.to_path_buf(), work, session: work.word().into(), export: None, plan, shards }
    }

    /// The plan in words: its session, or its work.
    pub fn title(&self) -> String {
        match self.work {
            ShardWork::Prepare => format!("Session {}", self.session),
            ShardWork::Export => format!("Export {}", self.session),
            ShardWork::Command(_) => format!("Work {}", self.session),
        }
    }

    /// Writes the index; the directory holds a plan once this is done.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self) -> Result<(), Problems> {
        let shards: Vec<Value> = self.shards.iter().map(ShardEntry::json).collect();
        let value = json!({
            "version": VERSION, "work": self.work.word(), "session": self.session, "plan": hex(&self.plan), "export": self.export.as_ref().map(ExportFacts::json), "shards": shards,
        });
        api::records::write_private(&self.dir.join("index.json"), format!("{value:#}\n").as_bytes())
    }

    /// Reads the index of a directory. The digest of the plan is computed anew.
    ///
    /// # Errors
    /// It is missing, damaged, of another version, or names another plan than its shards make.
    pub fn read(dir: &Path) -> Result<Self, Problem> {
        let path = dir.join("index.json");
        let wrong = |what: &str| {
            Problem::new(Kind::Usage, format!("is no index of shards: {what}"))
                .path(&path)
                .advice("restore the file as `dray plan --shards` wrote it, or split the plan again")
        };
        let bytes = api::host::read_input(&path, INDEX_MAX, api::host::Pipes::Refused).map_err(|error| {
            Problem::new(Kind::Usage, format!("the index of the shards cannot be read: {error}"))
                .path(&path)
                .advice("name the directory that `dray plan --shards DIR` filled")
        })?;
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| wrong(&error.to_string()))?;
        if value["version"] != VERSION {
            return Err(wrong("it has another version"));
        }
        let listed = value["shards"].as_array().ok_or_else(|| wrong("it lists none"))?;
        let shards: Option<Vec<ShardEntry>> = listed.iter().map(ShardEntry::of_json).collect();
        let shards = shards.ok_or_else(|| wrong("an entry lacks a field"))?;
        let in_order = shards.iter().zip(0..).all(|(shard, number)| shard.number == number);
        let has_names = shards.iter().all(|shard| Path::new(&shard.file).file_name() == Some(shard.file.as_ref()));
        if !in_order || !has_names {
            return Err(wrong("its entries are not numbered from 0, or name files elsewhere"));
        }
        let session = value["session"].as_str().ok_or_else(|| wrong("it names no session"))?.to_owned();
        let plan = value["plan"].as_str().and_then(unhex).ok_or_else(|| wrong("it has no digest of the plan"))?;
        let export = match &value["export"] {
            Value::Null => None,
            facts => {
                Some(ExportFacts::of_json(facts).ok_or_else(|| wrong("what it says of the account is not whole"))?)
            }
        };
        if plan != plan_digest(&shards, export.as_ref()) {
            return Err(wrong("its digest is that of another plan"));
        }
        let work = match &value["work"] {
            Value::Null => Some(ShardWork::Prepare),
            word => word.as_str().and_then(ShardWork::of),
        };
        let work = work.ok_or_else(|| wrong("it has shards of an unknown work"))?;
        if (work == ShardWork::Export) != export.is_some() {
            return Err(wrong("an export and its account belong together"));
        }
        let mut this = Self { dir: dir.to_path_buf(), work, session, export, plan, shards };
        if this.shards.iter().any(|shard| shard.is_any) {
            Taken::all(dir).iter().for_each(|taken| this.found(taken));
        }
        Ok(this)
    }

    /// Enters the drive that a shard of a size class has taken.
    fn found(&mut self, taken: &Taken) {
        let of_number = self.shards.iter_mut().find(|shard| shard.number == taken.number && shard.is_any);
        if let Some(shard) = of_number {
            *shard = shard.with(taken);
        }
    }

    /// File with the blobs of an export that cannot be exported.
    pub fn refused_path(dir: &Path) -> PathBuf {
        dir.join("refused.jsonl")
    }

    /// Digest of the plan in hexadecimal.
    pub fn plan_hex(&self) -> String {
        hex(&self.plan)
    }

    fn beside(&self, entry: &ShardEntry, extension: &str) -> PathBuf {
        self.dir.join(format!("{:04}{extension}", entry.number))
    }

    /// Lock file of a shard.
    pub fn lock_path(&self, entry: &ShardEntry) -> PathBuf {
        self.beside(entry, ".lock")
    }

    /// Result of a shard's last run.
    pub fn result_path(&self, entry: &ShardEntry) -> PathBuf {
        self.beside(entry, ".result.json")
    }

    /// Directory of a shard's journal and record: below the plan's own, or below one of this host (`--records-stay`),
    /// which may serve several plans.
    pub fn state_dir(&self, entry: &ShardEntry, records: Option<&Path>) -> PathBuf {
        match records {
            None => self.beside(entry, ""),
            Some(local) => local.join(format!("{}-{:04}", &self.plan_hex()[..16], entry.number)),
        }
    }

    /// Journal of a shard.
    pub fn journal(&self, entry: &ShardEntry, records: Option<&Path>) -> PathBuf {
        self.state_dir(entry, records).join("shard.jrn")
    }

    /// Journal of a shard that this host works on: where it keeps them, or with the shards, if the shard was begun there.
    pub fn journal_here(&self, entry: &ShardEntry, records: Option<&Path>) -> PathBuf {
        let (own, shared) = (self.journal(entry, records), self.journal(entry, None));
        if !is_begun(&own) && is_begun(&shared) { shared } else { own }
    }

    /// Whether a drive that another host has taken goes on here: it is attached, and nobody is known to work on it.
    pub fn is_moved_here(&self, entry: &ShardEntry) -> bool {
        let is_free = match self.state(entry) {
            ShardState::Running(_) => false,
            ShardState::Ended(outcome) => !outcome.is_finished,
            ShardState::Waiting | ShardState::BrokenOff(_) => true,
        };
        entry.is_any && !entry.is_open() && is_free && entry.is_attached()
    }

    /// State of a shard, from lock and result.
    pub fn state(&self, entry: &ShardEntry) -> ShardState {
        match Holder::read(&self.lock_path(entry)) {
            Some(holder) if holder.is_gone() => return ShardState::BrokenOff(holder),
            Some(holder) => return ShardState::Running(holder),
            None => {}
        }
        self.result(entry).map_or(ShardState::Waiting, ShardState::Ended)
    }

    /// Result of the last run; `None` without a run, or with one that is not of this plan.
    pub fn result(&self, entry: &ShardEntry) -> Option<ShardOutcome> {
        let bytes = api::host::read_input(&self.result_path(entry), 1 << 20, api::host::Pipes::Refused).ok()?;
        let value: Value = serde_json::from_slice(&bytes).ok()?;
        let is_own = value["version"] == VERSION && value["plan"].as_str() == Some(&self.plan_hex());
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        is_own.then_some(())?;
        let exit_code = u8::try_from(value["exit_code"].as_u64()?).ok()?;
        let is_made = !self.work.writes() || value["manifest_hash"].is_string();
        Some(ShardOutcome {
            host: text("host")?,
            exit_code,
            is_finished: matches!(exit_code, 0 | 3) && is_made,
            meaning: text("meaning")?,
            ended: text("ended")?,
            journal: PathBuf::from(text("journal")?),
            manifest_hash: text("manifest_hash"),
            left_out: value["left_out"].as_u64().unwrap_or(0),
            written: value["written"].as_u64().unwrap_or(0),
        })
    }

    /// Writes the result of a run, atomically.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_result(&self, entry: &ShardEntry, outcome: &ShardOutcome) -> Result<(), Problems> {
        let value = json!({
            "version": VERSION,
            "plan": self.plan_hex(),
            "work": self.work.word(),
            "session": self.session,
            "index": entry.number,
            "drive_id": entry.drive_id,
            "host": outcome.host,
            "exit_code": outcome.exit_code,
            "meaning": outcome.meaning,
            "ended": outcome.ended,
            "journal": outcome.journal,
            "manifest_hash": outcome.manifest_hash,
            "left_out": outcome.left_out,
            "written": outcome.written,
        });
        api::records::write_private(&self.result_path(entry), format!("{value:#}\n").as_bytes())
    }

    /// Takes a shard for this process.
    ///
    /// # Errors
    /// Another process holds it, or the lock cannot be written.
    pub fn lock(&self, entry: &ShardEntry, take_over: bool) -> Result<Lock, Problem> {
        Lock::take(&self.lock_path(entry), take_over)
    }
}

impl ShardEntry {
    fn json(&self) -> Value {
        json!({
            "index": self.number, "file": self.file, "sha256": hex(&self.digest), "drive_id": self.drive_id,
            "any": self.is_any, "serial": self.serial, "name": self.name, "host": self.host, "size": self.size, "files": self.files,
            "data": self.data, "image": self.is_image,
        })
    }

    fn of_json(value: &Value) -> Option<Self> {
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        Some(Self {
            number: value["index"].as_u64()?,
            file: text("file")?,
            digest: unhex(value["sha256"].as_str()?)?,
            drive_id: text("drive_id")?,
            is_any: value["any"].as_bool().unwrap_or(false),
            serial: text("serial"),
            name: text("name")?,
            host: text("host"),
            size: value["size"].as_u64()?,
            files: value["files"].as_u64()?,
            data: value["data"].as_u64()?,
            is_image: value["image"].as_bool()?,
        })
    }

    /// The shard with the drive that it has taken.
    pub fn with(&self, taken: &Taken) -> Self {
        Self {
            drive_id: taken.drive_id.clone(),
            serial: taken.serial.clone(),
            name: taken.name.clone(),
            host: Some(taken.host.clone()),
            size: taken.size,
            is_image: taken.is_image,
            ..self.clone()
        }
    }

    /// Whether it is of a size class, and has taken no drive yet.
    pub fn is_open(&self) -> bool {
        self.is_any && self.drive_id.is_empty()
    }

    /// The drive for people: its id, or the class of which any will do.
    pub fn called(&self) -> &str {
        if self.is_open() { &self.name } else { &self.drive_id }
    }

    /// Whether a word of the user names the shard's drive: its serial, its drive id, or its name in the plan.
    pub fn is_called(&self, word: &str) -> bool {
        let word = word.strip_prefix("serial:").unwrap_or(word);
        !self.is_open() && (self.drive_id == word || self.serial.as_deref() == Some(word) || self.name == word)
    }

    /// Whether the drive is attached to this host: one that was begun, or that a shard of a size class has taken.
    pub fn is_attached(&self) -> bool {
        if self.is_image { Path::new(&self.name).is_file() } else { shards::is_here(&self.facts()) }
    }

    fn facts(&self) -> DriveFacts {
        DriveFacts {
            name: self.name.clone(),
            path: PathBuf::from(&self.name),
            drive_id: self.drive_id.clone(),
            serial: self.serial.clone(),
            is_image: self.is_image,
            ..DriveFacts::default()
        }
    }

    /// Whether the shard is to be run on this host: the plan says so, or says nothing and the drive can be reached.
    pub fn is_here(&self) -> bool {
        match &self.host {
            Some(host) => *host == lock::host_name(),
            // A drive for it may be.
            None if self.is_any => true,
            None => shards::is_here(&self.facts()),
        }
    }
}

/// Result of one run of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardOutcome {
    /// Host that ran it.
    pub host: String,
    /// Exit code of the run.
    pub exit_code: u8,
    /// Whether the drive is finished, perhaps with files left out; of other works, whether the command reached its end.
    pub is_finished: bool,
    /// Meaning of the code.
    pub meaning: String,
    /// Time of its end (UTC).
    pub ended: String,
    /// Journal of the shard, on that host.
    pub journal: PathBuf,
    /// Upper-case hex MD5 of the drive's manifest, once it is finished.
    pub manifest_hash: Option<String>,
    /// Files left out.
    pub left_out: u64,
    /// Bytes written to the drive in all.
    pub written: u64,
}

impl ShardOutcome {
    /// The last word of a run of this process that wrote nothing.
    pub fn of(exit: Exit, journal: PathBuf) -> Self {
        Self {
            host: lock::host_name(),
            exit_code: exit.code(),
            is_finished: false,
            meaning: exit.meaning().to_owned(),
            ended: format!("{:.0}", api::host::timestamp()),
            journal,
            manifest_hash: None,
            left_out: 0,
            written: 0,
        }
    }
}

/// State of a shard.
#[derive(Clone, Debug)]
pub enum ShardState {
    /// No run began.
    Waiting,
    /// A process holds it, or one on another host did when the lock was written.
    Running(Holder),
    /// The process that held it is gone without a last word.
    BrokenOff(Holder),
    /// The last run ended.
    Ended(ShardOutcome),
}

impl ShardState {
    /// One word for people and programs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running(_) => "running",
            Self::BrokenOff(_) => "broken off",
            Self::Ended(outcome) => match outcome.exit_code {
                _ if outcome.is_finished => "done",
                6 | 130 => "stopped",
                _ => "failed",
            },
        }
    }
}

/// Whether a journal has a session.
pub fn is_begun(journal: &Path) -> bool {
    api::records::read_journal(journal).is_ok_and(|book| !book.ledger.sessions.is_empty())
}

/// Makes the directory for a new plan.
///
/// # Errors
/// It exists and is not empty, or cannot be made.
pub fn new_dir(dir: &Path) -> Result<(), Problem> {
    let failed = |error: std::io::Error| {
        let problem = Problem::new(Kind::Environment, format!("the directory for the shards cannot be made: {error}"));
        problem.path(dir).column("--shards")
    };
    match fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => {
                let problem = Problem::new(Kind::Refused, "the directory for the shards is not empty").path(dir);
                Err(problem.column("--shards").advice("name a new directory: shards of two plans must not mix"))
            }
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            use std::os::unix::fs::DirBuilderExt;
            fs::DirBuilder::new().mode(0o700).create(dir).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}
