//! The request for a copy session.

use std::path::PathBuf;
use std::time::Duration;

use crate::azure::dataset::{Disposition, GivenSource};
use crate::azure::driveset::GivenDrive;
use crate::report::{Advice, Command, Kind, Problem, Problems, Setting};
use crate::source::select::Selection;
use crate::units::{ByteLen, SectorSize};

/// Interval between flushes with a checkpoint while data streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Longest time between them.
    pub time: Duration,
    /// Most bytes between them.
    pub bytes: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { time: Duration::from_secs(30), bytes: 16 << 30 }
    }
}

/// Settings of each single blob.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    /// `Content-MD5`.
    pub md5: bool,
    /// `Content-Type`, by its name.
    pub content_type: bool,
    /// Metadata out of its source.
    pub metadata: MetadataFields,
}

/// Facts of a source that become metadata of its blob.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetadataFields {
    /// Time of its last modification.
    pub mtime: bool,
    /// Its permissions.
    pub mode: bool,
    /// Its user and group.
    pub owner: bool,
}

impl MetadataFields {
    /// Whether nothing is taken.
    pub const fn is_nothing(self) -> bool {
        !self.mtime && !self.mode && !self.owner
    }
}

/// Parameters of a copy session. Holds no secret: storage keys are never needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrepRequest {
    /// First lines of the log: program, command line without secrets, machine and user.
    pub about: Vec<String>,
    /// The journal (`/j:`).
    pub journal: PathBuf,
    /// Session id (`/id:`): 3 to 30 of letters, digits, `_`, `-`, `#`.
    pub session: String,
    /// Driveset CSV of a first session (`/InitialDriveSet:`).
    pub initial_driveset: Option<PathBuf>,
    /// Driveset CSV of drives that join a session (`/AdditionalDriveSet:`).
    pub additional_driveset: Option<PathBuf>,
    /// Dataset CSV (`/DataSet:`).
    pub dataset: Option<PathBuf>,
    /// A row of a dataset, in place of a file (`/srcdir: /dstdir:` and the like).
    pub source: Option<GivenSource>,
    /// A row of an initial driveset, in place of a file (`/t:`).
    pub drive: Option<GivenDrive>,
    /// File with the numerical password of that drive (`/bk:@FILE`).
    pub drive_key_file: Option<PathBuf>,
    /// Directory of the logs (`/logdir:`); `None`: that of the journal.
    pub logdir: Option<PathBuf>,
    /// Pages that the run writes, which are never sources.
    pub reports: Vec<PathBuf>,
    /// Cipher by the command line's name: `aes-cbc-256`, `aes-cbc-128`, `xts-aes-128`, `xts-aes-256`.
    pub cipher: String,
    /// Bytes in a cluster; `None`: Windows' default.
    pub cluster_size: Option<u64>,
    /// Drives to plan for that are not attached. A session with any can be planned and split, and not run.
    pub absent: Vec<AbsentDrive>,
    /// Plan for as many drives of this class as the files need; none of them is known yet. Such a session is split, too.
    pub any_drive_of: Option<SizeClass>,
    /// The drive, not attached, that the one image of the driveset is made for: it gets that drive's size, sectors and
    /// drive id, so that it can be written to it later.
    pub made_for: Option<AbsentDrive>,
    /// Kind of partition table.
    pub table: Table,
    /// Encrypt zeros over the free space too.
    pub wipe_free: bool,
    /// Also write a `.BEK` file into this directory.
    pub external_key: Option<PathBuf>,
    /// Add `DriveHeaderHash` to the drive record.
    pub drive_header_hash: bool,
    /// Drive ids given by hand: (serial, path or name of the drive; id). An empty first part means the only drive.
    pub drive_ids: Vec<(String, String)>,
    /// Accept drives that the service would not (images, loop and virtual disks).
    pub not_for_shipping: bool,
    /// Compute whole-file MD5 and set it as `Content-MD5`.
    pub content_md5: bool,
    /// Set each blob's `Content-Type` by its name.
    pub content_type: bool,
    /// Facts of its source that each blob gets as metadata.
    pub metadata_from: MetadataFields,
    /// Amount to read back after writing.
    pub read_back: ReadBack,
    /// I/O engine to use.
    pub engine: EngineChoice,
    /// Longest request to a drive in bytes; `None`: the drive's maximum.
    pub request_len: Option<u64>,
    /// Requests to a drive at once, 1 to 1024; `None`: by kind of drive.
    pub in_flight: Option<u32>,
    /// Bytes a second that all drives together read from the sources; `None`: no limit.
    pub source_rate: Option<u64>,
    /// Action on the session.
    pub action: Action,
    /// Logical sector size of new image files, in bytes; 512 when absent.
    pub sector_size: Option<u64>,
    /// When resuming: move the files of missing drives, and of the drives with these ids, to others.
    pub replan: Option<Vec<String>>,
    /// Write the files that fit; the rest waits for further drives.
    pub what_fits: bool,
    /// Interval between checkpoints while data streams.
    pub pace: Pace,
    /// Selection of the sources' files.
    pub selection: Selection,
    /// Disposition for all rows, in place of their own.
    pub disposition: Option<Disposition>,
    /// Spread the files evenly over the drives, for speed, not over as few as hold them.
    pub spread_evenly: bool,
    /// Path of the list of all files with drives and hashes: `.csv` or `.jsonl`.
    pub list: Option<PathBuf>,
    /// The drives get the blobs of an account, not local files.
    pub exports: bool,
    /// Makes a drive for Windows, without a manifest, in place of drives for the service.
    pub windows: Option<WindowsDrive>,
}

/// Contents and keys of a drive for Windows, which is not sent to the service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WindowsDrive {
    /// Directory whose contents are copied to the drive; `None` leaves it empty.
    pub from: Option<PathBuf>,
    /// Label of the volume, at most 32 UTF-16 units.
    pub label: String,
    /// Whether to make plain NTFS, without BitLocker.
    pub is_plain: bool,
    /// File with a user's password that also opens the drive.
    pub password_file: Option<PathBuf>,
    /// Whether a user's password opens the drive; when resuming, taken from the plan.
    pub has_password: bool,
    /// Directory of the file with the recovery password.
    pub keys: PathBuf,
    /// Form of that file.
    pub recovery_form: RecoveryForm,
}

/// Form of the file with the recovery password.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecoveryForm {
    /// UTF-16LE with a byte order mark and CR LF, as Windows saves it.
    #[default]
    Utf16,
    /// UTF-8.
    Utf8,
}

/// A drive as its label and its maker's table describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbsentDrive {
    /// The serial, as the drive reports it.
    pub serial: String,
    /// Bytes of the drive, exactly.
    pub size: ByteLen,
    /// Its logical sector size.
    pub sector: SectorSize,
}

/// Drives of which any will do: at least this large, and by less than a tenth larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeClass {
    /// Bytes of the smallest.
    pub size: ByteLen,
    /// Their logical sector size.
    pub sector: SectorSize,
}

impl SizeClass {
    /// Whether a drive belongs to it. A much larger one is another plan's.
    pub fn has(self, size: ByteLen, sector: SectorSize) -> bool {
        sector == self.sector && size >= self.size && size.0 - self.size.0 < self.size.0 / 10
    }
}

/// Kind of partition table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Table {
    /// GUID partition table with a protective MBR.
    #[default]
    Gpt,
    /// Master boot record, for drives up to 2 TiB.
    Mbr,
}

/// I/O engine for all transfers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// `io_uring` if the kernel grants it, else plain system calls.
    #[default]
    Auto,
    /// `io_uring` or fail.
    Uring,
    /// Plain system calls.
    Sync,
}

/// Action on the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Copy the dataset.
    #[default]
    Copy,
    /// Resume the last session, which ended abnormally.
    Resume,
    /// Roll the last session back, which ended abnormally.
    Abort,
    /// The data are already on the drive: hash and index only.
    SkipWrite,
}

/// Amount to read back after writing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadBack {
    /// Nothing is read back.
    None,
    /// The ends, the metadata, and a seeded sample of batches.
    #[default]
    Sample,
    /// Everything that was written.
    Full,
}

impl PrepRequest {
    /// A request for a first session with every option at its default.
    pub fn new(journal: impl Into<PathBuf>, session: impl Into<String>) -> Self {
        Self {
            about: Vec::new(),
            journal: journal.into(),
            session: session.into(),
            initial_driveset: None,
            additional_driveset: None,
            dataset: None,
            source: None,
            drive: None,
            drive_key_file: None,
            logdir: None,
            reports: Vec::new(),
            cipher: "aes-cbc-256".into(),
            cluster_size: None,
            absent: Vec::new(),
            any_drive_of: None,
            made_for: None,
            table: Table::default(),
            wipe_free: false,
            external_key: None,
            drive_header_hash: false,
            drive_ids: Vec::new(),
            not_for_shipping: false,
            content_md5: false,
            content_type: false,
            metadata_from: MetadataFields::default(),
            read_back: ReadBack::default(),
            engine: EngineChoice::default(),
            request_len: None,
            in_flight: None,
            source_rate: None,
            action: Action::default(),
            sector_size: None,
            replan: None,
            what_fits: false,
            pace: Pace::default(),
            selection: Selection::default(),
            disposition: None,
            spread_evenly: false,
            list: None,
            exports: false,
            windows: None,
        }
    }

    /// Settings of each single blob.
    pub(crate) fn sets(&self) -> Sets {
        Sets { md5: self.content_md5, content_type: self.content_type, metadata: self.metadata_from }
    }

    /// Problems of the request itself, before any file is opened (docs/spec/import-export.md#prepimport-v2 and
    /// docs/spec/import-export.md#sessions).
    pub fn check(&self) -> Problems {
        let mut problems = Problems::default();
        let id = &self.session;
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '#');
        if !(3..=30).contains(&id.chars().count()) || !id.chars().all(legal) {
            problems.push(
                Problem::new(Kind::Usage, "the session id is not valid")
                    .value(id.clone())
                    .advice("use 3 to 30 letters, digits, `_`, `-` and `#`, for example session#1"),
            );
        }
        if self.initial_driveset.is_some() && self.additional_driveset.is_some() {
            problems.push(
                Problem::new(Kind::Usage, "an initial and an additional driveset exclude each other")
                    .advice("the first session of a journal takes the initial one, later sessions the additional one"),
            );
        }
        let inputs = [&self.initial_driveset, &self.additional_driveset, &self.dataset];
        match self.action {
            Action::Copy => {
                let has_data = self.dataset.is_some() || self.source.is_some() || self.windows.is_some();
                let has_data = has_data || self.exports;
                if !has_data && self.additional_driveset.is_none() {
                    problems.push(Problem::new(Kind::Usage, "the session has no dataset").advice(
                        Advice::from("name the dataset CSV: ") + Setting::Dataset + " (classic: /DataSet:FILE)",
                    ));
                }
            }
            Action::Resume => {
                if self.initial_driveset.is_some() || self.dataset.is_some() {
                    problems.push(
                        Problem::new(Kind::Usage, "resuming takes no dataset and no initial driveset").advice(
                            Advice::from("the session knows them; drives may join with ") + Setting::AdditionalDriveset,
                        ),
                    );
                }
            }
            Action::Abort => {
                if inputs.iter().any(|input| input.is_some()) {
                    problems.push(
                        Problem::new(Kind::Usage, "rolling back takes no dataset and no driveset")
                            .advice("the session knows them; give only the journal and the session id"),
                    );
                }
            }
            Action::SkipWrite => self.check_indexing(&mut problems),
        }
        problems
    }

    /// What indexing a drive that is filled already cannot do.
    fn check_indexing(&self, problems: &mut Problems) {
        let sets = [
            (self.content_md5, "Content-MD5", Setting::ContentMd5),
            (self.content_type, "Content-Type", Setting::ContentType),
            (!self.metadata_from.is_nothing(), "metadata", Setting::MetadataFrom),
        ];
        for (_, what, option) in sets.into_iter().filter(|(is_set, ..)| *is_set) {
            problems.push(
                Problem::new(Kind::Usage, format!("indexing sets no {what}: it writes no properties files"))
                    .setting(option)
                    .advice(Advice::from("leave ") + option + " away, or copy the files onto the drive"),
            );
        }
        if self.list.is_some() {
            problems.push(Problem::new(Kind::Usage, "indexing makes no list").setting(Setting::List).advice(
                Advice::from("leave ")
                    + Setting::List
                    + " away; "
                    + Command::Verify
                    + " lists what an indexed drive holds",
            ));
        }
        let selection = &self.selection;
        let given = [
            (!selection.include.is_empty(), Setting::Include),
            (!selection.exclude.is_empty(), Setting::Exclude),
            (!selection.ignore_files.is_empty(), Setting::IgnoreFile),
            (selection.files_from.is_some(), Setting::FilesFrom),
        ];
        for (_, setting) in given.into_iter().filter(|(is_given, _)| *is_given) {
            problems.push(
                Problem::new(Kind::Usage, "indexing takes what its rows name, without a selection")
                    .setting(setting)
                    .advice("name the directories or files in the dataset"),
            );
        }
        if self.dataset.is_none() && self.source.is_none() {
            problems.push(
                Problem::new(Kind::Usage, "without writing, a dataset to index is still needed")
                    .advice(Advice::from("name the dataset CSV: ") + Setting::Dataset),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first() -> PrepRequest {
        PrepRequest {
            initial_driveset: Some("d.csv".into()),
            dataset: Some("f.csv".into()),
            ..PrepRequest::new("j.jrn", "session#1")
        }
    }

    #[test]
    fn session_ids_follow_the_documented_grammar() {
        for good in ["abc", "session#1", "a_b-c#9", &"x".repeat(30)] {
            assert_eq!(PrepRequest { session: good.into(), ..first() }.check(), Problems::default(), "{good}");
        }
        for bad in ["", "ab", "a b c", "sess/1", "../x", "größe", &"x".repeat(31)] {
            assert_eq!(PrepRequest { session: bad.into(), ..first() }.check().0.len(), 1, "{bad}");
        }
    }

    #[test]
    fn all_problems_of_a_request_are_told_together() {
        let mut request = PrepRequest { session: "x".into(), additional_driveset: Some("e.csv".into()), ..first() };
        request.action = Action::Resume;
        assert_eq!(request.check().0.len(), 3);
        request.action = Action::Abort;
        assert_eq!(request.check().0.len(), 3);
    }
}
