//! Shards that do to each drive what one command does: verify, rehearse, ingest, acquire. The shard names the drive, its
//! record by path, and the command's other arguments; never a key.

use std::fs;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use dray_engine::api;
use dray_engine::api::hash::Sha256;
use dray_engine::report::{Kind, Problem, Problems};
use serde_json::{Value, json};

use crate::args::{self, Parsed};
use crate::commands::Command;

/// Version of the file.
const VERSION: u64 = 1;
/// Longest file that is read.
const LEN_MAX: u64 = 1 << 20;

/// Stands for the drive's id in an argument.
const ID: &str = "{id}";
/// Stands for the path of its drive record.
const RECORD: &str = "{record}";

/// Work of the shards of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShardWork {
    /// Drives are written, as `prep-import` does.
    #[default]
    Prepare,
    /// Drives are filled from a storage account, as `export` does.
    Export,
    /// A command is run on each drive.
    Command(Verb),
}

/// Commands that shards run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Verb {
    /// Compare each drive with its manifest
    Verify,
    /// Rehearse the import of each drive
    Rehearse,
    /// Import each drive into an account
    Ingest,
    /// Keep each drive as an image
    Acquire,
}

impl ShardWork {
    /// The command's name, or that of preparing.
    pub fn word(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Export => "export",
            Self::Command(verb) => verb.word(),
        }
    }

    /// The work of this name.
    pub fn of(word: &str) -> Option<Self> {
        let verb = Verb::value_variants().iter().find(|verb| verb.word() == word);
        let own = [Self::Prepare, Self::Export].into_iter().find(|work| work.word() == word);
        verb.map(|verb| Self::Command(*verb)).or(own)
    }

    /// Whether drives are erased and written, each by a session of its own, and gathered into one journal.
    pub fn writes(self) -> bool {
        matches!(self, Self::Prepare | Self::Export)
    }
}

impl Verb {
    fn word(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Rehearse => "rehearse",
            Self::Ingest => "ingest",
            Self::Acquire => "acquire",
        }
    }

    /// The option that takes the drive record; `None` where the drive alone is enough.
    fn record_option(self) -> Option<&'static str> {
        match self {
            Self::Verify => Some("--key-file"),
            Self::Rehearse | Self::Ingest => Some("--record"),
            Self::Acquire => None,
        }
    }
}

/// One drive's part: a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// The command.
    pub verb: Verb,
    /// Id of the drive.
    pub drive_id: String,
    /// Name by which the command finds the drive: `serial:…`, or the path of an image.
    pub name: String,
    /// Its drive record.
    pub record: PathBuf,
    /// Arguments behind those, the same for all drives: {id} and {record} are put in.
    pub args: Vec<String>,
}

impl Task {
    /// The words of the command line.
    pub fn argv(&self) -> Vec<String> {
        let record = self.record.display().to_string();
        let mut argv = vec!["dray".to_owned(), self.verb.word().to_owned(), self.name.clone()];
        argv.extend(self.verb.record_option().into_iter().flat_map(|option| [option.to_owned(), record.clone()]));
        argv.extend(self.args.iter().map(|arg| arg.replace(ID, &self.drive_id).replace(RECORD, &record)));
        argv
    }

    /// The command, as the program parses it.
    ///
    /// # Errors
    /// An argument that the command does not take.
    pub fn command(&self) -> Result<Command, Problems> {
        let words = self.argv().into_iter().map(Into::into).collect();
        let wrong = |text: &str| {
            let text: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
            let text = text.join(" ");
            let what = text.strip_prefix("error: ").unwrap_or(&text).to_owned();
            Problem::new(Kind::Usage, what)
                .drive(&self.drive_id)
                .advice(format!("`dray {} --help` shows what may follow --", self.verb.word()))
        };
        match args::parse(words) {
            Parsed::Run(cli, _) => Ok(cli.command),
            Parsed::Unset(problems) => Err(problems),
            Parsed::Wrong(text, _) => Err(wrong(&text).into()),
            Parsed::Print(_) => Err(wrong("the arguments ask for help, which is no work").into()),
        }
    }

    /// Writes the shard; its SHA-256.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &Path) -> Result<[u8; 32], Problems> {
        let value = json!({
            "version": VERSION, "work": self.verb.word(), "drive_id": self.drive_id, "name": self.name,
            "record": self.record, "args": self.args,
        });
        let text = format!("{value:#}\n");
        api::records::write_private(path, text.as_bytes())?;
        Ok(digest(text.as_bytes()))
    }

    /// Reads the shard whose digest is known.
    ///
    /// # Errors
    /// It cannot be read, or is another one.
    pub fn read(path: &Path, known: &[u8; 32]) -> Result<Self, Problem> {
        let unusable = |what: String| {
            Problem::new(Kind::Environment, format!("the shard cannot be used: {what}"))
                .path(path)
                .advice("nothing was changed; restore the file, or make the shards again in another directory")
        };
        let bytes = api::host::read_input(path, LEN_MAX, api::host::Pipes::Refused)
            .map_err(|error| unusable(error.to_string()))?;
        if digest(&bytes) != *known {
            return Err(unusable("its contents are not those that the index has the digest of".into()));
        }
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| unusable(error.to_string()))?;
        let task = || {
            (value["version"] == VERSION).then_some(())?;
            let text = |key: &str| value[key].as_str().map(str::to_owned);
            let Some(ShardWork::Command(verb)) = ShardWork::of(value["work"].as_str()?) else { return None };
            let args = value["args"].as_array()?.iter().map(|arg| arg.as_str().map(str::to_owned));
            Some(Self {
                verb,
                drive_id: text("drive_id")?,
                name: text("name")?,
                record: PathBuf::from(text("record")?),
                args: args.collect::<Option<_>>()?,
            })
        };
        task().ok_or_else(|| unusable("it lacks a field, or has another version".into()))
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::default();
    hash.update(bytes);
    hash.value()
}

/// A drive that a journal or a drive record names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Drive id.
    pub drive_id: String,
    /// Name by which the drive is found.
    pub name: String,
    /// Its drive record.
    pub record: PathBuf,
    /// Bytes of the drive; 0 where that is not recorded.
    pub size: u64,
    /// Files on it, and their bytes; 0 likewise.
    pub files: (u64, u64),
}

impl Known {
    /// Whether it is an image file.
    pub fn is_image(&self) -> bool {
        !self.name.starts_with("serial:") && !self.name.starts_with("/dev/")
    }

    /// The finished drives of a journal, their records next to it.
    ///
    /// # Errors
    /// The journal cannot be read, or has no finished drive.
    pub fn of_journal(journal: &Path) -> Result<Vec<Self>, Problems> {
        let book = api::records::read_journal(journal)?;
        let dir = journal.parent().unwrap_or(Path::new(""));
        let drives = book.ledger.finished_drives();
        let known: Vec<Self> = drives
            .iter()
            .map(|drive| {
                let name = match &drive.name {
                    // The name of a node is another's when the drive comes back.
                    Some(name) if name.starts_with("/dev/") && drive.for_shipping != Some(false) => None,
                    Some(name) if name.starts_with("/dev/") || name.starts_with("serial:") => Some(name.clone()),
                    Some(name) => Some(absolute(Path::new(name)).display().to_string()),
                    None => None,
                };
                Self {
                    name: name.unwrap_or_else(|| format!("serial:{}", drive.drive_id)),
                    drive_id: drive.drive_id.clone(),
                    record: absolute(&dir.join(&drive.record_file)),
                    size: drive.size.unwrap_or(0),
                    files: (drive.files.unwrap_or(0), drive.data.unwrap_or(0)),
                }
            })
            .collect();
        if known.is_empty() {
            let problem = Problem::new(Kind::Usage, "the journal has no finished drive").path(journal);
            return Err(problem.advice("finish its session first, or name drive records with --record").into());
        }
        Ok(known)
    }

    /// The drive of a drive record, by its serial.
    ///
    /// # Errors
    /// The file is no drive record.
    pub fn of_record(path: &Path) -> Result<Self, Problem> {
        let record = api::records::read_record(path)?;
        Ok(Self {
            name: format!("serial:{}", record.drive_id),
            drive_id: record.drive_id,
            record: absolute(path),
            size: 0,
            files: (0, 0),
        })
    }
}

fn absolute(path: &Path) -> PathBuf {
    fs::canonicalize(path).or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_path_buf())
}

/// What is wrong with the arguments of all tasks.
pub fn check_args(verb: Verb, args: &[String], drives: usize) -> Result<(), Problem> {
    // A shared access signature in an address is a key.
    if let Some(_secret) = args.iter().find(|arg| arg.contains("sig=")) {
        let problem = Problem::new(Kind::Refused, "an argument holds a signature, which would be kept in the shards");
        return Err(problem.advice("keep it in a file on each host, and name that: --sas-file FILE"));
    }
    if verb == Verb::Acquire && drives > 1 && !args.iter().any(|arg| arg.contains(ID)) {
        let problem = Problem::new(Kind::Usage, "all drives would be kept as one image").column("--to");
        return Err(problem.advice("put {id} into its name: -- --to /images/{id}.img"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_the_command_line_of_its_drive() {
        let task = Task {
            verb: Verb::Verify,
            drive_id: "WD-1".into(),
            name: "serial:WD-1".into(),
            record: "/keys/WD-1.xml".into(),
            args: vec!["--report".into(), "/www/{id}.html".into()],
        };
        let line = "dray verify serial:WD-1 --key-file /keys/WD-1.xml --report /www/WD-1.html";
        assert_eq!(task.argv().join(" "), line);
        assert!(task.command().is_ok());
        let wrong = Task { args: vec!["--no-such-thing".into()], ..task.clone() };
        let problems = wrong.command().expect_err("no option of it");
        assert!(problems.0[0].to_string().contains("--no-such-thing"), "{problems:?}");
        let acquire = Task { verb: Verb::Acquire, args: vec!["--to".into(), "{id}.img".into()], ..task.clone() };
        assert_eq!(acquire.argv().join(" "), "dray acquire serial:WD-1 --to WD-1.img");

        let path = std::env::temp_dir().join(format!("dray-task-{}.shard", std::process::id()));
        let known = task.write(&path).expect("written");
        assert_eq!(Task::read(&path, &known).expect("the same"), task);
        assert!(Task::read(&path, &[0; 32]).is_err());
        fs::remove_file(&path).expect("removed");
    }

    #[test]
    fn what_would_mix_drives_or_keep_a_key_is_refused() {
        let args = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(check_args(Verb::Acquire, &args("--to all.img"), 2).is_err());
        assert!(check_args(Verb::Acquire, &args("--to all.img"), 1).is_ok());
        assert!(check_args(Verb::Acquire, &args("--to {id}.img"), 2).is_ok());
        assert!(check_args(Verb::Ingest, &args("--endpoint https://a.blob.core.windows.net/?sv=1&sig=x"), 1).is_err());
    }
}
