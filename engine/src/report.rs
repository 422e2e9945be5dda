//! Reports of the engine: problems, plans, progress and results. Facts only; rendering is the CLI's.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::units::{ByteLen, DeviceOffset};
pub use dray_base::advice::{Advice, Command, Part, Setting};
pub use dray_base::problem::{Kind, Place, Problem, Problems};
pub use dray_base::text::{counted, is_hidden, shown};

/// Interval between [`Event::Progress`] reports.
pub const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Identity of a drive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriveFacts {
    /// Name of the drive in the driveset: `/dev/…`, `serial:…`, or the path of an image.
    pub name: String,
    /// The node or file that is opened.
    pub path: PathBuf,
    /// `DriveId` in manifest and drive record: the drive's own serial, or a derived one.
    pub drive_id: String,
    /// Serial reported by the hardware, or else by its bridge: the drive's own identity, whatever id it was given.
    pub serial: Option<String>,
    /// Whether `drive_id` is the serial of hardware that the service would accept.
    pub for_shipping: bool,
    /// Model, if the hardware reports one.
    pub model: Option<String>,
    /// Size of the device.
    pub size: ByteLen,
    /// Logical sector size in bytes.
    pub sector: u64,
    /// Present contents in words (`GPT, 2 partitions, NTFS "data"`); `None` when blank.
    pub contents: Option<String>,
    /// A regular file rather than a device.
    pub is_image: bool,
    /// Whether it has platters, whose inner tracks are slower; `None` when the kernel does not say.
    pub rotational: Option<bool>,
}

/// A note or a warning, of one drive or of the whole session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Name of the drive that it is about.
    pub drive: Option<String>,
    /// The notice, as a sentence without full stop.
    pub what: String,
}

impl Notice {
    /// Of a drive, by its name.
    pub fn of(drive: impl Into<String>, what: impl Into<String>) -> Self {
        Self { drive: Some(drive.into()), what: what.into() }
    }

    /// Of the whole session.
    pub fn session(what: impl Into<String>) -> Self {
        Self { drive: None, what: what.into() }
    }
}

impl From<&Problem> for Notice {
    fn from(problem: &Problem) -> Self {
        let mut rest = problem.clone();
        let drive = rest.place.drive.take();
        Self { drive, what: rest.to_string() }
    }
}

impl std::fmt::Display for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.drive {
            Some(drive) => write!(f, "drive {drive}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// Purpose of a region of a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RegionKind {
    /// Contents of files.
    Files,
    /// The manifest.
    Manifest,
    /// Records, indexes and other structures of NTFS.
    FileSystem,
    /// Boot sector, metadata and other areas of BitLocker.
    Encryption,
    /// Partition tables, and the reserved partition.
    Table,
    /// Nothing that is in use.
    Free,
}

/// A region of a planned drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Start on the device.
    pub start: DeviceOffset,
    /// Length.
    pub len: ByteLen,
    /// Purpose.
    pub kind: RegionKind,
    /// Name of what lies there: `BitLocker metadata 1`, `NTFS MftBody`.
    pub name: String,
}

/// Planned layout of one drive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DrivePlan {
    /// The drive that the plan is for.
    pub drive: DriveFacts,
    /// Files of the dataset on it.
    pub files: u64,
    /// Directories on it.
    pub dirs: u64,
    /// Bytes of those files.
    pub data: ByteLen,
    /// Bytes of file system, manifest and encryption in addition to the data.
    pub overhead: ByteLen,
    /// Bytes that stay free.
    pub free: ByteLen,
    /// Cluster size in bytes.
    pub cluster: u64,
    /// Regions in device order.
    pub regions: Vec<Region>,
    /// Biggest directories: blob prefix, files, bytes.
    pub directories: Vec<(String, u64, ByteLen)>,
    /// Bytes of a plain volume that are encrypted in place first; 0 for any other drive.
    pub encrypts: ByteLen,
    /// Total of bytes that will be written.
    pub to_write: ByteLen,
}

/// The plan of a session, as `--dry-run` prints it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanSummary {
    /// Id of the session.
    pub session: String,
    /// Cipher, as the command line names it.
    pub cipher: String,
    /// One entry a drive, in the order of the driveset.
    pub drives: Vec<DrivePlan>,
    /// Files and bytes found in the sources.
    pub files: u64,
    /// Bytes found in the sources.
    pub data: ByteLen,
    /// Entries left out, grouped by kind (symbolic links, sockets, …), with paths of the first few.
    pub skipped: Vec<Skipped>,
    /// Warnings to read before the session starts (mapped names, large blocks, image files not for shipping, …).
    pub warnings: Vec<Problem>,
    /// Files that fit on no drive: blob path and length.
    pub unplaced: Vec<(String, ByteLen)>,
    /// Whether the drive is for Windows rather than for the service.
    pub windows: bool,
}

/// An entry of the source tree that is no file or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Path of the source that is not copied.
    pub path: PathBuf,
    /// Kind of entry: `symbolic link`, `socket`, `device`, `named pipe`.
    pub what: String,
}

/// Stage of a drive's pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Old signatures are being wiped.
    Wiping,
    /// An existing volume is being encrypted in place.
    Encrypting,
    /// Writing the contents of files.
    Data,
    /// `$MFT`, indexes, manifest, bitmaps.
    Metadata,
    /// Zeros over the free space.
    FreeSpace,
    /// Writing the last structures, without which the drive holds no volume.
    Finishing,
    /// Waiting for the device to make its writes durable.
    Flushing,
    /// Reading the written data back.
    ReadBack,
    /// Reading the file system and the manifest of a drive that is verified.
    Listing,
    /// Comparing its blocks.
    Verifying,
    /// Comparing its blocks and giving them to an importer.
    Importing,
    /// Finished, durable.
    Done,
    /// Stopped on request at a checkpoint; the drive is not at fault.
    Stopped,
    /// Gave up; see the report.
    Failed,
}

impl Stage {
    /// Whether no further stage follows.
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Done | Self::Stopped | Self::Failed)
    }
}

/// An event during planning or running.
#[derive(Clone, Debug)]
pub enum Event {
    /// Walking the sources: files and bytes so far.
    Scanning {
        /// Files so far.
        files: u64,
        /// Bytes so far.
        bytes: ByteLen,
    },
    /// A drive entered a stage.
    Stage {
        /// Index of the drive in the plan.
        drive: usize,
        /// Stage that begins.
        stage: Stage,
    },
    /// Progress of one drive: bytes that the device acknowledged, never queued ones.
    Progress {
        /// Index of the drive in the plan.
        drive: usize,
        /// Bytes acknowledged in this session.
        acknowledged: ByteLen,
        /// Bytes of the stage's total plan.
        total: ByteLen,
        /// Files whose data has been written.
        files: u64,
        /// Bottleneck of the pipeline since the last report.
        waiting_for: Waiting,
    },
    /// A file was left out of the volume and of the manifest.
    LeftOut {
        /// Index of the drive in the plan.
        drive: usize,
        /// Path of the source file.
        path: PathBuf,
        /// The reason, as a sentence without full stop.
        why: String,
    },
    /// A drive failed; the others continue.
    DriveFailed {
        /// Index of the drive in the plan.
        drive: usize,
        /// The failure, which names the drive.
        problem: Problem,
    },
    /// Something worth a line in the log.
    Note(Notice),
    /// A condition that needs attention while it lasts, such as a device that does not answer.
    Warning(Notice),
}

impl Event {
    /// Index in the plan of the drive concerned; `None` for events of no drive.
    pub const fn drive(&self) -> Option<usize> {
        match self {
            Self::Stage { drive, .. }
            | Self::Progress { drive, .. }
            | Self::LeftOut { drive, .. }
            | Self::DriveFailed { drive, .. } => Some(*drive),
            Self::Scanning { .. } | Self::Note(_) | Self::Warning(_) => None,
        }
    }
}

/// The bottleneck of a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Waiting {
    /// No clear bottleneck.
    Nothing,
    /// The source is the slowest.
    Source,
    /// Hashing and sealing are the slowest.
    Cpu,
    /// The drive is the slowest, as intended.
    Drive,
}

/// Bytes and durations of one run: the source of every reported rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// Bytes that this run wrote, without those of earlier runs of the session.
    pub written: ByteLen,
    /// Time from the first written byte to the last flush.
    pub writing: Duration,
    /// Bytes read back.
    pub read_back: ByteLen,
    /// Time from the first byte read back to the last.
    pub reading: Duration,
}

impl Timing {
    /// Bytes a second of writing; `None` when the time is too short to measure.
    pub fn write_rate(&self) -> Option<f64> {
        per_second(self.written, self.writing)
    }

    /// Bytes a second of reading back.
    pub fn read_rate(&self) -> Option<f64> {
        per_second(self.read_back, self.reading)
    }
}

fn per_second(bytes: ByteLen, time: Duration) -> Option<f64> {
    let seconds = time.as_secs_f64();
    (seconds >= 0.1 && bytes.0 > 0).then(|| bytes.0 as f64 / seconds)
}

/// Computes the [`Timing`] of one drive from its events. Without a clock: `now` is the time since the start.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    /// Time at which writing began, and the bytes acknowledged before.
    from: Option<(Duration, u64)>,
    acknowledged: u64,
    reading_from: Option<Duration>,
    read: u64,
    ended: Option<Duration>,
}

impl Meter {
    /// Takes an event of the drive. The first progress gives the bytes of earlier runs.
    pub fn heard(&mut self, event: &Event, now: Duration) {
        match event {
            Event::Stage { stage: Stage::ReadBack, .. } => drop(self.reading_from.get_or_insert(now)),
            Event::Stage { stage, .. } if stage.is_end() => drop(self.ended.get_or_insert(now)),
            Event::Progress { acknowledged, .. } if self.reading_from.is_some() => {
                self.read = self.read.max(acknowledged.0);
            }
            Event::Progress { acknowledged, .. } => {
                // Encrypting in place and copying count each from its own start.
                let from = self.from.get_or_insert((now, acknowledged.0));
                if acknowledged.0 < self.acknowledged {
                    from.1 = 0;
                }
                self.acknowledged = acknowledged.0;
            }
            _ => {}
        }
    }

    /// The timing up to `now`, or up to the drive's end.
    pub fn timing(&self, now: Duration) -> Timing {
        let end = self.ended.unwrap_or(now);
        let since = |from: Option<Duration>, to: Duration| from.map_or(Duration::ZERO, |from| to.saturating_sub(from));
        Timing {
            written: ByteLen(self.acknowledged - self.from.map_or(0, |(_, bytes)| bytes.min(self.acknowledged))),
            writing: since(self.from.map(|(at, _)| at), self.reading_from.unwrap_or(end)),
            read_back: ByteLen(self.read),
            reading: since(self.reading_from, end),
        }
    }
}

/// Result of one drive.
#[derive(Clone, Debug)]
pub struct DriveResult {
    /// The drive that the result is about.
    pub drive: DriveFacts,
    /// Files on it.
    pub files: u64,
    /// Bytes of those files.
    pub data: ByteLen,
    /// Bytes written to the device in all.
    pub written: ByteLen,
    /// Upper-case hex MD5 of the manifest.
    pub manifest_hash: Option<String>,
    /// The drive record to upload.
    pub record: Option<PathBuf>,
    /// Keys of a drive for Windows; empty for drives for the service.
    pub keys: DriveKeys,
    /// Files left out: source path and reason.
    pub left_out: Vec<(PathBuf, String)>,
    /// Set when the drive failed.
    pub failure: Option<Problem>,
    /// Whether free space keeps its earlier contents.
    pub free_space_untouched: bool,
    /// Bytes of the device outside a volume that was kept, partition tables included: no session writes them, with or
    /// without `wipe_free`. 0 on a drive that was formatted.
    pub outside_untouched: ByteLen,
    /// Wall time of this drive.
    pub elapsed: Duration,
    /// Bytes and times of this run alone, earlier runs not counted.
    pub timing: Timing,
}

/// Keys of a drive for Windows, without the secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriveKeys {
    /// File with the recovery password.
    pub recovery_file: Option<PathBuf>,
    /// Identifier of the recovery password, which Windows shows when it asks for the key.
    pub recovery_id: Option<String>,
    /// The `.BEK` file.
    pub external_file: Option<PathBuf>,
    /// Whether a user's password opens the drive too.
    pub has_password: bool,
}

/// Result of a session, one entry a drive.
#[derive(Clone, Debug, Default)]
pub struct SessionReport {
    /// One entry a drive.
    pub drives: Vec<DriveResult>,
    /// Path of the journal.
    pub journal: PathBuf,
    /// Whether a signal ended it.
    pub interrupted: bool,
    /// Files that are on no drive yet and wait for further drives.
    pub waiting: u64,
    /// The log of the run.
    pub log: Option<PathBuf>,
    /// Reason why lines are missing from the log; `None` when it is complete.
    pub log_lacks: Option<String>,
    /// Drive records of every finished drive of the journal, those of earlier sessions and runs too.
    pub records: Vec<PathBuf>,
    /// Ids of the journal's drives that were started and are not finished.
    pub open: Vec<String>,
    /// Wall time of the whole run.
    pub elapsed: Duration,
    /// Whether the drive is for Windows rather than for the service.
    pub windows: bool,
    /// Whether the drives were filled from a storage account.
    pub exports: bool,
}

/// A stop request that threads share. Once made, it cannot be withdrawn.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// No request made yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A request made through `flag` by another party, such as a signal handler.
    pub fn from_flag(flag: Arc<AtomicBool>) -> Self {
        Self(flag)
    }

    /// Asks all work to stop at the next safe place.
    pub fn request(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether a stop was requested.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_to_stop_is_shared_and_stays() {
        let stop = Stop::new();
        let other = stop.clone();
        assert!(!other.requested());
        stop.request();
        assert!(other.requested());
    }

    #[test]
    fn rates_count_what_this_run_did() {
        let at = Duration::from_secs;
        let progress = |acknowledged: u64| Event::Progress {
            drive: 0,
            acknowledged: ByteLen(acknowledged),
            total: ByteLen(3200),
            files: 0,
            waiting_for: Waiting::Nothing,
        };
        let stage = |stage| Event::Stage { drive: 0, stage };
        let mut meter = Meter::default();
        assert_eq!(meter.timing(at(9)), Timing::default());
        // Resumed at 2500 of 3200.
        meter.heard(&stage(Stage::Data), at(1));
        meter.heard(&progress(2500), at(1));
        meter.heard(&progress(3200), at(5));
        meter.heard(&stage(Stage::Flushing), at(5));
        let timing = meter.timing(at(6));
        assert_eq!((timing.written, timing.writing), (ByteLen(700), at(5)));
        assert_eq!(timing.write_rate(), Some(140.0));
        meter.heard(&stage(Stage::ReadBack), at(8));
        meter.heard(&progress(800), at(10));
        meter.heard(&stage(Stage::Done), at(10));
        let timing = meter.timing(at(99));
        let wanted = Timing { written: ByteLen(700), writing: at(7), read_back: ByteLen(800), reading: at(2) };
        assert_eq!(timing, wanted);
        assert_eq!((timing.write_rate(), timing.read_rate()), (Some(100.0), Some(400.0)));
    }
}
