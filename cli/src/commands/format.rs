//! `dray format`: makes a drive that Windows opens, without a job and without a manifest.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, ValueEnum};
use dray_engine::api;
use dray_engine::api::prepare::{
    Action, Encryption, FormatOption, FormatPrompt, GivenDrive, PrepRequest, Prepared, RecoveryForm, WindowsDrive,
};
use dray_engine::report::{Advice, Kind, Problem, Problems, Setting};

use crate::args::selection::SelectionArgs;
use crate::args::size;
use crate::commands::prep::{self, CipherName, TableName, WritingArgs};
use crate::commands::{abort, about};
use crate::consent::Consent;
use crate::exit::Exit;
use crate::render::{Output, watched};
use crate::signals::{self, Signals};

const EXAMPLE: &str = "\
Examples:
  dray format /dev/sdX --label ARCHIVE --password-file pass.txt
  dray format serial:WD-WX12A345678 --from /srv/photos --keys ~/keys
  dray format stick.img:8GB --no-encryption --label DATA";

/// Id of the only session in a state directory.
const SESSION: &str = "format";
/// The engine's name for the place of a driveset row that is in no file.
const COMMAND_LINE: &str = "the command line";
/// Longest label of an NTFS volume, in UTF-16 units.
const LABEL_UNITS_MAX: usize = 32;

/// Form of the file with the recovery key.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum FormName {
    /// As Windows saves it
    #[value(name = "utf-16")]
    Utf16,
    /// For tools that cannot read UTF-16
    #[value(name = "utf-8")]
    Utf8,
}

/// Arguments of `dray format`.
#[derive(Args, Clone, Debug)]
#[command(
    group(ArgGroup::new("act").args(["resume", "abort"])),
    after_help = EXAMPLE,
    after_long_help = format!("{EXAMPLE}\n\n{}", Exit::help())
)]
pub struct Format {
    /// Drive: /dev/…, serial:…, an image file, or IMAGE:SIZE for a new one
    #[arg(value_name = "DRIVE")]
    drive: String,
    /// Fill it with the contents of this directory, unchanged
    #[arg(long, value_name = "DIR", conflicts_with = "act")]
    from: Option<PathBuf>,
    /// Label of the volume, at most 32 characters
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = label)]
    label: String,
    /// Plain NTFS, without BitLocker
    #[arg(long, conflicts_with_all = ["password_file", "external_key", "recovery_form", "cipher"])]
    no_encryption: bool,
    /// Cipher of the volume
    #[arg(long, value_name = "CIPHER", default_value = "aes-cbc-256", help_heading = "Layout")]
    cipher: CipherName,
    /// Cluster size, 512 to 2M [default: as Windows chooses]
    #[arg(long, value_name = "SIZE", value_parser = size::cluster, help_heading = "Layout")]
    cluster_size: Option<u64>,
    /// Partition table
    #[arg(long, value_name = "KIND", default_value = "gpt", help_heading = "Layout")]
    table: TableName,
    /// Also write zeros over the free space and outside the partitions
    #[arg(long, help_heading = "Layout")]
    wipe_free: bool,
    /// Logical sector size of a new image file, 512 or 4096
    #[arg(long, value_name = "SIZE", value_parser = size::sector, help_heading = "Layout")]
    sector_size: Option<u64>,
    /// Name to confirm for a drive that reports no serial of its own
    #[arg(long, value_name = "ID", help_heading = "Layout")]
    drive_id: Option<String>,
    /// Directory for the recovery key, the log, and the state of an unfinished drive
    #[arg(long, value_name = "DIR", default_value = ".", help_heading = "Keys")]
    keys: PathBuf,
    /// Form of the file with the recovery key
    #[arg(long, value_name = "FORM", default_value = "utf-16", help_heading = "Keys")]
    recovery_form: FormName,
    /// Also accept a password: the only line of this file, 8 to 256 characters
    #[arg(long, value_name = "FILE", help_heading = "Keys")]
    password_file: Option<PathBuf>,
    /// Also write a .BEK key file into this directory
    #[arg(long, value_name = "DIR", help_heading = "Keys")]
    external_key: Option<PathBuf>,
    /// List each file with its drive, path, size, MD5 and CRC-64: .csv or .jsonl (hashes whole files: slower)
    #[arg(long, value_name = "FILE", conflicts_with = "act")]
    list: Option<PathBuf>,
    /// Ask nothing: consent must come by --yes
    #[arg(long)]
    silent: bool,
    /// Full serial of the drive, whose contents may be destroyed
    #[arg(long, value_name = "SERIAL")]
    yes: Vec<String>,
    /// Continue where an earlier run on this drive ended
    #[arg(long)]
    resume: bool,
    /// Give up an unfinished run: the drive then has no volume
    #[arg(long)]
    abort: bool,
    /// Show the plan; write nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    writing: WritingArgs,
}

fn label(text: &str) -> Result<String, String> {
    if text.encode_utf16().count() > LABEL_UNITS_MAX {
        return Err(format!("use at most {LABEL_UNITS_MAX} characters"));
    }
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(format!("{} is not allowed in a label", c.escape_default())),
        None => Ok(text.to_owned()),
    }
}

/// The state directory of a run: journal, drive record and checkpoint, until the drive is finished.
#[derive(Debug)]
struct StateDir {
    dir: PathBuf,
}

impl StateDir {
    /// The state directory for the drive called `drive` on the command line.
    fn of(keys: &Path, drive: &str) -> Self {
        let image =
            drive.rsplit_once(':').filter(|(path, size)| !path.is_empty() && api::prepare::parse_size(size).is_some());
        let path = image.map_or(drive, |(path, _)| path);
        let last = path.rsplit('/').find(|part| !part.is_empty()).unwrap_or("drive");
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let name: String = last.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
        Self { dir: keys.join(format!("{}{name}", api::prepare::STATE_DIR)) }
    }

    fn journal(&self) -> PathBuf {
        self.dir.join("format.jrn")
    }

    /// Makes the directory (0700: it contains a key until the drive is finished).
    fn make(&self) -> Result<(), Problem> {
        let made = fs::DirBuilder::new().mode(0o700).create(&self.dir);
        match made {
            Err(error) if !self.dir.is_dir() => {
                let what = format!("the state of the run cannot be kept here: {error}");
                let problem = Problem::new(Kind::Environment, what).path(&self.dir);
                Err(problem.advice("create its directory, or name another with --keys"))
            }
            _ => Ok(()),
        }
    }

    /// Removes the files of a finished run, and the directory if it is empty then. An unfinished run stays.
    fn clear(&self) {
        let journal = self.journal();
        if let Ok(book) = api::records::read_journal(&journal) {
            if book.ledger.unfinished().is_some() || !book.damage.is_empty() {
                return;
            }
            for drive in book.ledger.sessions.iter().flat_map(|session| &session.drives) {
                let _ = fs::remove_file(self.dir.join(&drive.record_file));
            }
            let _ = fs::remove_file(&journal);
        }
        let _ = fs::remove_dir(&self.dir);
    }
}

impl Format {
    fn request(&self, state: &StateDir) -> PrepRequest {
        let action = match (self.resume, self.abort) {
            (true, _) => Action::Resume,
            (_, true) => Action::Abort,
            _ => Action::Copy,
        };
        let drive = GivenDrive {
            drive: (&self.drive).into(),
            format: FormatOption::Format,
            prompt: FormatPrompt::PromptOnFormat,
            encryption: Encryption::Encrypt,
        };
        let begins = action == Action::Copy;
        self.writing.apply(PrepRequest {
            about: about::lines(),
            drive: begins.then_some(drive),
            logdir: Some(self.keys.clone()),
            cipher: self.cipher.name(),
            cluster_size: self.cluster_size,
            table: self.table.table(),
            wipe_free: self.wipe_free,
            external_key: self.external_key.clone(),
            drive_ids: self.drive_id.iter().map(|id| (String::new(), id.clone())).collect(),
            not_for_shipping: true,
            sector_size: self.sector_size,
            action,
            selection: self.selection.selection(true),
            list: self.list.clone(),
            windows: Some(WindowsDrive {
                from: self.from.clone(),
                label: self.label.clone(),
                is_plain: self.no_encryption,
                password_file: self.password_file.clone(),
                has_password: self.password_file.is_some(),
                keys: std::path::absolute(&self.keys).unwrap_or_else(|_| self.keys.clone()),
                recovery_form: match self.recovery_form {
                    FormName::Utf16 => RecoveryForm::Utf16,
                    FormName::Utf8 => RecoveryForm::Utf8,
                },
            }),
            ..PrepRequest::new(state.journal(), SESSION)
        })
    }

    /// Formats the drive, continues an unfinished one, or gives it up.
    pub fn run(self, output: &Output) -> Exit {
        let state = StateDir::of(&self.keys, &self.drive);
        let consent = Consent { silent: self.silent, serials: self.yes.clone() };
        let begins = !self.resume && !self.abort;
        if begins {
            // Left by a run that was killed after its last step.
            state.clear();
            if let Err(problem) = state.make() {
                return output.problem(problem);
            }
        } else if !state.journal().exists() {
            let what = "no run on this drive is unfinished here";
            let problem = Problem::new(Kind::Usage, what).path(&state.dir).value(self.drive.clone());
            return output.problem(problem.advice("name the drive and --keys as that run did"));
        }
        let request = self.request(&state);
        let exit = if self.abort {
            abort::run(request, &consent, self.dry_run, output)
        } else {
            self.carry_out(request, &consent, output)
        };
        state.clear();
        if state.journal().exists() && !matches!(exit, Exit::Usage | Exit::Refused) {
            let mut line = format!("dray format {}", about::quoted(&self.drive));
            if self.keys != Path::new(".") {
                line.push_str(&format!(" --keys {}", about::quoted(&self.keys.to_string_lossy())));
            }
            output.chat(&format!("To resume:\n  {line} --resume\nTo give the drive up:\n  {line} --abort\n"));
        }
        exit
    }

    fn carry_out(&self, request: PrepRequest, consent: &Consent, output: &Output) -> Exit {
        let signals = match Signals::install(signals::SESSION) {
            Ok(signals) => signals,
            Err(error) => {
                return output.problem(Problem::new(Kind::Environment, format!("signals cannot be caught: {error}")));
            }
        };
        let prepared: Result<Prepared, Problems> = {
            let scan = output.scan();
            let prepared = watched(
                "checking and planning",
                |text| output.warning(&text),
                |beat| {
                    api::prepare::prepare(request, &mut |event| {
                        beat();
                        scan.event(&event);
                    })
                },
            );
            scan.end();
            prepared
        };
        match prepared {
            Ok(prepared) => prep::carry_out(prepared, consent, self.dry_run, output, &signals).exit,
            Err(problems) => {
                let problems = Problems(problems.0.into_iter().map(in_words_of_format).collect());
                output.problems(&problems);
                Exit::of_problems(&problems)
            }
        }
    }
}

/// Rewords a problem without driveset and session, which the user of this command did not write.
fn in_words_of_format(mut problem: Problem) -> Problem {
    if problem.place.path.as_deref() == Some(Path::new(COMMAND_LINE)) {
        (problem.place.path, problem.place.line) = (None, None);
    }
    if problem.place.column.as_deref() == Some("DriveLetter") {
        problem.place.column = Some("DRIVE".into());
    }
    problem.place.setting = problem.place.setting.filter(|setting| *setting != Setting::Id);
    if problem.what.starts_with("session format ended abnormally") {
        problem.what = "an earlier run on this drive is unfinished".into();
        problem.advice =
            Some(Advice::from("continue with ") + Setting::Resume + ", or discard the drive with " + Setting::Abort);
    }
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_called_as_its_drive() {
        let of = |drive: &str| StateDir::of(Path::new("keys"), drive).dir.display().to_string();
        assert_eq!(of("/dev/sdb"), "keys/.dray-format-sdb");
        assert_eq!(of("serial:WD-1 2"), "keys/.dray-format-serial_WD-1_2");
        assert_eq!(of("a/b.img:4GB"), "keys/.dray-format-b.img");
        assert_eq!(of("a/b.img"), "keys/.dray-format-b.img");
        assert_eq!(of("/"), "keys/.dray-format-drive");
    }

    #[test]
    fn labels_are_what_ntfs_holds() {
        assert_eq!(label("Archiv ü"), Ok("Archiv ü".into()));
        assert!(label(&"😀".repeat(16)).is_ok() && label(&"😀".repeat(17)).is_err());
        assert!(label("a\tb").is_err());
    }
}
