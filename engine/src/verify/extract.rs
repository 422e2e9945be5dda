//! Extracts blobs into a directory: under their own names, nothing overwritten, nothing outside.
//!
//! Files grow in `.dray/parts` of the directory and are moved to their place when their last block is judged, so that a
//! file with its final name is complete. `.dray/<manifest>.done` lists those; a line `synced` in it means that
//! everything before it is durable. Files after the last such line of an earlier run are extracted again.
//!
//! An interrupted run is continued: files that it extracted are not read again, if they came from this same drive and
//! are unchanged by inode, size and times. A run that ended records that (`complete`); a later run is meant to show the
//! present state of the drive, so everything is read again and compared with the existing files.
//!
//! A manifest or a volume may contain any names: they are split and opened by descriptors, with the kernel refusing
//! symbolic links and ways out (`openat2`).

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirEntryExt, FileExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, ResolveFlags, Timespec, Timestamps};
use serde_json::{Map, Value, json};

use crate::azure::{XmlError, properties};
use crate::hash;
use crate::ntfs::read::Times;
use crate::report::{Kind, Problem, Problems};
use crate::units::FileTime;
use crate::verify::deliver::Finish;
use crate::verify::row::Row;

/// Directory for dray's own files inside that of the blobs.
const OWN: &str = ".dray";
const PARTS: &str = ".dray/parts";
/// Directory of blobs whose names no file system can hold.
const RENAMED: &str = ".dray/renamed";

/// Most files open at once.
const OPEN_MAX: usize = 128;

/// Bytes between two checkpoints.
const CHECKPOINT_BYTES: u64 = 1 << 30;

/// Most bytes of side files kept for the description.
const SIDES_MAX: usize = 64 << 20;

/// Longest line of the log that is read as one: names of blobs are far shorter.
const LINE_MAX: u64 = 1 << 16;

/// Longest name of a file on Linux, in bytes; a file system may allow less.
const NAME_MAX: usize = 255;

/// Suffix of a blob whose contents differ from the manifest.
const DAMAGED: &str = ".damaged";

/// Most problems reported; further ones are only counted.
const TOLD_MAX: usize = 20;

#[derive(Clone, Debug, Default)]
struct BlobProgress {
    done: bool,
    /// Judged by this run or an earlier one: equal, or without reference.
    whole: bool,
    /// Extracted by an earlier run.
    earlier: bool,
    /// The file exists from an earlier run, and is compared with the data read now.
    is_old: bool,
    /// The existing file has another length or content.
    is_other: bool,
    target: Option<Box<str>>,
    /// Reason why this blob was not extracted while others were.
    refused: Option<Box<str>>,
}

/// State of a finished file: inode, bytes, modified, changed.
type Left = (u64, u64, i128, i128);

/// Entry of the log for an extracted blob.
struct Logged {
    whole: bool,
    target: String,
    left: Option<Left>,
    /// Written by a run that did not end, from this drive.
    carries: bool,
}

/// The extractor of one drive.
#[derive(Debug)]
pub(super) struct Extractor {
    dir: PathBuf,
    root: OwnedFd,
    prefix: String,
    /// Longest name that the file system accepts, in bytes.
    name_max: usize,
    blobs: Vec<BlobProgress>,
    /// Names of the blobs in the log.
    keys: Vec<String>,
    /// Blobs finished since the last checkpoint.
    fresh: Vec<usize>,
    open: HashMap<usize, File>,
    order: VecDeque<usize>,
    log: File,
    since: u64,
    sides: HashMap<u32, Vec<u8>>,
    sides_len: usize,
    description: io::BufWriter<File>,
    parent: Option<(String, OwnedFd)>,
    was_empty: bool,
}

impl Extractor {
    /// Opens or creates the directory, and reads the log of an earlier run. `this` identifies the drive in its present
    /// state; `blobs` are the names of all blobs.
    pub fn open(
        dir: &Path,
        drive_id: &str,
        manifest_md5: &str,
        this: &str,
        blobs: impl Iterator<Item = (String, Option<String>)>,
    ) -> Result<Self, Problem> {
        let failed = |error: io::Error| {
            Problem::new(Kind::Environment, format!("the directory for the blobs cannot be used: {error}"))
                .path(dir)
                .advice("name an empty directory on a file system with room for all blobs, or one of an earlier run")
        };
        std::fs::create_dir_all(dir).map_err(failed)?;
        let was_empty = std::fs::read_dir(dir).map_err(failed)?.next().is_none();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(dir, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
        for own in [OWN, PARTS, RENAMED] {
            make_dir(&root, own).map_err(failed)?;
        }
        let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
        let drive: String = drive_id.chars().take(64).map(safe).collect();
        let create = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let log = open_at(&root, &format!("{OWN}/{manifest_md5}.done"), create | OFlags::APPEND).map_err(failed)?;
        let description = open_at(&root, &format!("{OWN}/{drive}.jsonl"), create | OFlags::TRUNC).map_err(failed)?;
        let name_max = rustix::fs::fstatvfs(&log).map_or(NAME_MAX, |facts| facts.f_namemax as usize);
        let keys = keys(blobs);
        let mut taken = Self {
            dir: dir.to_owned(),
            name_max: name_max.min(NAME_MAX),
            root,
            prefix: format!("{PARTS}/{manifest_md5}-"),
            blobs: vec![BlobProgress::default(); keys.len()],
            keys,
            fresh: Vec::new(),
            open: HashMap::new(),
            order: VecDeque::new(),
            log: File::from(log),
            since: 0,
            sides: HashMap::new(),
            sides_len: 0,
            description: io::BufWriter::new(File::from(description)),
            parent: None,
            was_empty,
        };
        taken.replay(this).map_err(failed)?;
        Ok(taken)
    }

    /// Reads the log, and begins this run in it. Its lines: `begin drive`; `key whole|damaged inode target` before a file
    /// gets its name; `left key inode size modified changed` when it is durable; `synced`; `complete`.
    fn replay(&mut self, drive: &str) -> io::Result<()> {
        let mut lines = BufReader::new(self.log.try_clone()?);
        io::Seek::seek(&mut lines, io::SeekFrom::Start(0))?;
        let mut logged: HashMap<String, Logged> = HashMap::new();
        let mut pending: Vec<(String, bool, u64, String)> = Vec::new();
        let mut left: HashMap<String, Left> = HashMap::new();
        let begin = format!("begin {}", Value::String(drive.to_owned()));
        let (mut line, mut read, mut whole_lines, mut is_this) = (Vec::new(), 0, 0, false);
        while {
            line.clear();
            lines.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)? > 0
        } {
            read += line.len() as u64;
            let Some(text) = line.strip_suffix(b"\n") else { continue };
            whole_lines = read;
            let text = std::str::from_utf8(text).unwrap_or_default();
            let mut parts = text.splitn(4, ' ');
            if text.starts_with("begin ") {
                is_this = text == begin;
            } else if text == "complete" {
                logged.values_mut().for_each(|one| one.carries = false);
            } else if text == "synced" {
                for (key, whole, _, target) in pending.drain(..) {
                    let left = left.remove(&key);
                    logged.insert(key, Logged { whole, target, left, carries: is_this });
                }
            } else if let Some((key, how)) = parse_left(text) {
                left.insert(key, how);
            } else if let (Some(key), Some(how), Some(Ok(inode)), Some(target)) =
                (parts.next(), parts.next(), parts.next().map(str::parse), parts.next())
                && let Ok(Value::String(target)) = serde_json::from_str(target)
            {
                pending.push((key.to_owned(), how == "whole", inode, target));
            }
        }
        // An incomplete last line was cut off: the next one must not continue it.
        self.log.set_len(whole_lines)?;
        // Not certainly durable: extracted again. Only files that are certainly dray's own are removed.
        for (_, _, inode, target) in pending {
            if is_inside(&target) && self.left(&target).is_some_and(|(now, ..)| now == inode) {
                self.remove(&target);
            }
        }
        for blob in 0..self.blobs.len() {
            if let Some(one) = logged.remove(&self.keys[blob]).filter(|one| is_inside(&one.target)) {
                self.blobs[blob] = self.found(one);
            }
        }
        self.log.write_all(format!("{begin}\n").as_bytes())
    }

    /// The state of a blob that was extracted before.
    fn found(&self, one: Logged) -> BlobProgress {
        let now = self.left(&one.target);
        let is_as_left = now.is_some() && now == one.left;
        match now {
            None => BlobProgress::default(),
            // It was damaged on the drive: tried anew.
            Some(_) if !one.whole && is_as_left => {
                self.remove(&one.target);
                BlobProgress::default()
            }
            Some(_) => {
                let earlier = one.carries && one.whole && is_as_left;
                let target = Some(one.target.into());
                BlobProgress {
                    done: earlier,
                    whole: one.whole,
                    earlier,
                    is_old: !earlier,
                    target,
                    ..BlobProgress::default()
                }
            }
        }
    }

    /// The present state of a file; `None` when it does not exist.
    fn left(&self, target: &str) -> Option<Left> {
        let (parent, name) = target.rsplit_once('/').unwrap_or((".", target));
        let parent = open_dir(&self.root, parent).ok()?;
        let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let time = |seconds: i64, nanos: u64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        let modified = time(stat.st_mtime, stat.st_mtime_nsec);
        Some((stat.st_ino, stat.st_size as u64, modified, time(stat.st_ctime, stat.st_ctime_nsec)))
    }

    /// Its inode; `None` when it does not exist.
    fn stat(&self, target: &str) -> Option<u64> {
        let (parent, name) = target.rsplit_once('/').unwrap_or((".", target));
        let parent = open_dir(&self.root, parent).ok()?;
        rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).ok().map(|stat| stat.st_ino)
    }

    /// Whether the name is taken, or a directory above it is: by a file or a symbolic link.
    fn is_taken(&self, target: &str) -> bool {
        let above = target.rsplit_once('/').map_or(".", |(parent, _)| parent);
        let blocked = match open_dir(&self.root, above) {
            Ok(_) => false,
            Err(error) => matches!(error.raw_os_error(), Some(libc::ENOTDIR | libc::ELOOP | libc::EXDEV)),
        };
        blocked || self.stat(target).is_some()
    }

    fn remove(&self, target: &str) {
        let (parent, name) = target.rsplit_once('/').unwrap_or((".", target));
        if let Ok(parent) = open_dir(&self.root, parent) {
            let _ = rustix::fs::unlinkat(&parent, name, AtFlags::empty());
        }
    }

    /// Files of other drives in this directory, by the logs of their manifests.
    fn of_others(&self) -> HashSet<String> {
        let mut out = HashSet::new();
        let own = rustix::fs::fstat(&self.log).map(|stat| stat.st_ino).unwrap_or_default();
        for entry in std::fs::read_dir(self.dir.join(OWN)).into_iter().flatten().flatten() {
            let is_log = entry.path().extension().is_some_and(|end| end == "done");
            if !is_log || entry.ino() == own {
                continue;
            }
            let Ok(log) = open_at(
                &self.root,
                &format!("{OWN}/{}", entry.file_name().display()),
                OFlags::RDONLY | OFlags::CLOEXEC,
            ) else {
                continue;
            };
            for line in BufReader::new(File::from(log)).lines().map_while(Result::ok) {
                let mut parts = line.splitn(4, ' ').skip(2);
                if let (Some(Ok(inode)), Some(Ok(Value::String(target)))) =
                    (parts.next().map(str::parse), parts.next().map(serde_json::from_str))
                    && is_inside(&target)
                    && self.stat(&target) == Some(inode)
                {
                    out.insert(target);
                }
            }
        }
        out
    }

    /// Refuses at once if a file would be overwritten. Files of another drive's blobs are no obstacle: two blobs of one
    /// name both get a place.
    pub fn refuse_overwriting(&self, name: &dyn Fn(usize) -> (String, Option<String>)) -> Result<(), Problem> {
        if self.was_empty {
            return Ok(());
        }
        let mut problems = Problems::default();
        let mut count = 0u64;
        let mut of_others = None;
        for blob in (0..self.blobs.len()).filter(|blob| self.blobs[*blob].target.is_none()) {
            let (path, snapshot) = name(blob);
            let target = target_of(&path, snapshot.as_deref(), "", self.name_max);
            if self.is_taken(&target) && !of_others.get_or_insert_with(|| self.of_others()).contains(&target) {
                count += 1;
                if problems.0.len() < TOLD_MAX {
                    problems.push(Problem::new(Kind::Refused, target));
                }
            }
        }
        if count == 0 {
            return Ok(());
        }
        let names: Vec<String> = problems.0.into_iter().map(|problem| problem.what).collect();
        Err(Problem::new(
            Kind::Refused,
            format!("{count} blobs have no place in the directory: the place is taken, and nothing is overwritten"),
        )
        .path(&self.dir)
        .value(names.join(", "))
        .advice("name another directory, or move these files away"))
    }

    pub fn is_done(&self, blob: usize) -> bool {
        self.blobs[blob].done
    }

    pub fn was_done(&self, blob: usize) -> bool {
        self.blobs[blob].earlier
    }

    /// Whether the existing file from an earlier run differs from the drive.
    pub fn is_other(&self, blob: usize) -> bool {
        self.blobs[blob].is_other
    }

    pub fn target(&self, blob: usize) -> Option<&str> {
        self.blobs[blob].target.as_deref()
    }

    /// The number of blobs with another name here than their own, in a sentence.
    pub fn renamed(&self) -> Option<String> {
        let targets = self.blobs.iter().filter_map(|state| state.target.as_deref());
        match targets.filter(|target| target.starts_with(RENAMED)).count() {
            0 => None,
            1 => Some(format!(
                "1 blob could not get its own name and lies in {RENAMED}; the .jsonl file next to it says which"
            )),
            n => Some(format!(
                "{n} blobs could not get their own names and lie in {RENAMED}; the .jsonl file next to it says which"
            )),
        }
    }

    fn failed(&self, error: &io::Error, what: &str) -> Problem {
        Problem::new(Kind::Environment, format!("{what} cannot be written: {error}"))
            .path(&self.dir)
            .advice("make room and start the same command again: it continues where it was")
    }

    fn part(&self, blob: usize) -> String {
        format!("{}{}", self.prefix, self.keys[blob])
    }

    fn file(&mut self, blob: usize) -> io::Result<&File> {
        if !self.open.contains_key(&blob) {
            while self.open.len() >= OPEN_MAX {
                let Some(oldest) = self.order.pop_front() else { break };
                self.open.remove(&oldest);
            }
            let file = match &self.blobs[blob] {
                BlobProgress { is_old: true, target: Some(target), .. } => {
                    open_at(&self.root, target, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC)?
                }
                _ => open_at(&self.root, &self.part(blob), OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC)?,
            };
            let file = File::from(file);
            self.open.insert(blob, file);
            self.order.push_back(blob);
        }
        self.open.get(&blob).ok_or_else(|| io::Error::other("file is not open"))
    }

    /// The reason why a blob was not extracted, though it could be read.
    pub fn refused(&self, blob: usize) -> Option<&str> {
        self.blobs[blob].refused.as_deref()
    }

    /// An error caused by a blob's own entry ends that blob; an error of the directory ends everything.
    fn give_up(&mut self, blob: usize, error: &io::Error, path: Option<&str>) -> Result<(), Problem> {
        let what = path.map_or("a blob".to_owned(), |path| format!("the blob {path}"));
        let is_own = error.kind() == io::ErrorKind::InvalidInput
            || matches!(
                error.raw_os_error(),
                Some(
                    libc::EFBIG
                        | libc::EINVAL
                        | libc::EOVERFLOW
                        | libc::EILSEQ
                        | libc::ENAMETOOLONG
                        | libc::ENOTDIR
                        | libc::EISDIR
                        | libc::EEXIST
                        | libc::ELOOP
                        | libc::EXDEV
                )
            );
        if !is_own {
            return Err(self.failed(error, &what));
        }
        self.open.remove(&blob);
        self.order.retain(|other| *other != blob);
        self.remove(&self.part(blob));
        self.blobs[blob] = BlobProgress { refused: Some(error.to_string().into()), ..BlobProgress::default() };
        Ok(())
    }

    /// Writes bytes of a blob.
    pub fn write(&mut self, blob: usize, at: u64, bytes: &[u8]) -> Result<(), Problem> {
        if self.blobs[blob].refused.is_some() {
            return Ok(());
        }
        if self.blobs[blob].is_old {
            self.hold(blob, at, bytes);
            return Ok(());
        }
        self.since += bytes.len() as u64;
        if let Err(error) = self.file(blob).and_then(|file| file.write_all_at(bytes, at)) {
            self.give_up(blob, &error, None)?;
        }
        if self.since >= CHECKPOINT_BYTES {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Compares data from the drive with the existing file in the directory.
    fn hold(&mut self, blob: usize, at: u64, bytes: &[u8]) {
        if self.blobs[blob].is_other {
            return;
        }
        let mut there = vec![0; bytes.len()];
        let is_same = self.file(blob).and_then(|file| file.read_exact_at(&mut there, at)).is_ok() && there == bytes;
        self.blobs[blob].is_other = !is_same;
    }

    /// The last piece of a blob that exists already has been judged.
    fn finish_old(&mut self, blob: usize, length: u64, is_whole: bool) {
        let is_as_long = self.file(blob).and_then(|file| file.metadata());
        let is_as_long = is_as_long.is_ok_and(|meta| meta.is_file() && meta.len() == length);
        self.open.remove(&blob);
        self.order.retain(|other| *other != blob);
        let state = &mut self.blobs[blob];
        // A drive that has gone bad proves nothing about the file.
        state.is_other = is_whole && (state.is_other || !is_as_long || !state.whole);
        (state.done, state.whole) = (true, is_whole);
    }

    /// The blob's last piece has been judged: its file gets its length, time and name.
    pub fn finish(&mut self, finish: &Finish) -> Result<(), Problem> {
        let Finish { blob, path, snapshot, length, times, is_whole } = finish;
        let (blob, snapshot) = (*blob, snapshot.as_deref());
        if self.blobs[blob].refused.is_some() {
            return Ok(());
        }
        if self.blobs[blob].is_old {
            self.finish_old(blob, *length, *is_whole);
            return Ok(());
        }
        let outcome = self.file(blob).and_then(|file| {
            file.set_len(*length)?;
            let times = Timestamps { last_access: time(times.accessed), last_modification: time(times.modified) };
            rustix::fs::futimens(file, &times)?;
            Ok(rustix::fs::fstat(file)?.st_ino)
        });
        let inode = match outcome {
            Ok(inode) => inode,
            Err(error) => return self.give_up(blob, &error, Some(path)),
        };
        self.open.remove(&blob);
        self.order.retain(|other| *other != blob);
        let part = self.part(blob);
        let suffix = if *is_whole { "" } else { DAMAGED };
        // `a` and `a/b` may both be blobs, two drives may have one of the same name, and a name may be too long for the
        // file system: a blob without a possible place gets a generated name that no other blob has.
        let own = format!("{}{suffix}", nameless(path, snapshot, &part));
        let places = [target_of(path, snapshot, suffix, self.name_max), own];
        let mut outcome = Ok(());
        for target in places {
            outcome = self.log_line(blob, *is_whole, inode, &target).and_then(|()| self.place(&part, &target));
            match &outcome {
                Ok(()) => {
                    let target = Some(target.into());
                    self.blobs[blob] = BlobProgress { done: true, whole: *is_whole, target, ..BlobProgress::default() };
                    self.fresh.push(blob);
                    return Ok(());
                }
                Err(error) if is_of_name(error) => {}
                Err(_) => break,
            }
        }
        outcome.or_else(|error| self.give_up(blob, &error, Some(path)))
    }

    fn log_line(&mut self, blob: usize, whole: bool, inode: u64, target: &str) -> io::Result<()> {
        let how = if whole { "whole" } else { "damaged" };
        let line = format!("{} {how} {inode} {}\n", self.keys[blob], Value::String(target.to_owned()));
        self.log.write_all(line.as_bytes())
    }

    /// Moves a finished part to its place, creating the directories above it.
    fn place(&mut self, part: &str, target: &str) -> io::Result<()> {
        let (parent, name) = target.rsplit_once('/').unwrap_or((".", target));
        if self.parent.as_ref().is_none_or(|(known, _)| known != parent) {
            let fd = match open_dir(&self.root, parent) {
                Ok(fd) => fd,
                Err(_) => {
                    let mut so_far = String::new();
                    for segment in parent.split('/') {
                        if !so_far.is_empty() {
                            so_far.push('/');
                        }
                        so_far.push_str(segment);
                        make_dir(&self.root, &so_far)?;
                    }
                    open_dir(&self.root, parent)?
                }
            };
            self.parent = Some((parent.to_owned(), fd));
        }
        let Some((_, fd)) = &self.parent else { return Ok(()) };
        let (parts, part) = part.rsplit_once('/').unwrap_or((".", part));
        let parts = open_dir(&self.root, parts)?;
        match rustix::fs::renameat_with(&parts, part, fd, name, RenameFlags::NOREPLACE) {
            // File systems without that flag: looked at before, which is as good as it gets there.
            Err(rustix::io::Errno::INVAL) => {
                if rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                Ok(rustix::fs::renameat(&parts, part, fd, name)?)
            }
            outcome => Ok(outcome?),
        }
    }

    /// Makes a directory with those above it; `false` if it has a name that cannot be.
    pub fn directory(&mut self, path: &str) -> Result<bool, Problem> {
        let target = target_of(path, None, "", self.name_max);
        if target.starts_with(RENAMED) {
            return Ok(false);
        }
        let mut so_far = String::new();
        for segment in target.split('/') {
            if !so_far.is_empty() {
                so_far.push('/');
            }
            so_far.push_str(segment);
            match make_dir(&self.root, &so_far) {
                Ok(()) => {}
                Err(error) if is_of_name(&error) => return Ok(false),
                Err(error) => return Err(self.failed(&error, "a directory")),
            }
        }
        Ok(true)
    }

    /// Gives a directory its times.
    pub fn date_directory(&self, path: &str, times: Times) -> Result<(), Problem> {
        let target = target_of(path, None, "", self.name_max);
        self.set_modified(&target, times, time(times.modified))
            .map_err(|error| self.failed(&error, "a directory's time"))
    }

    /// Makes everything so far durable, and records that in the log.
    pub fn checkpoint(&mut self) -> Result<(), Problem> {
        self.since = 0;
        let outcome = rustix::fs::syncfs(&self.log)
            .map_err(io::Error::from)
            .and_then(|()| {
                let mut text = String::new();
                for blob in std::mem::take(&mut self.fresh) {
                    let target = self.blobs[blob].target.as_deref();
                    if let Some((inode, size, modified, changed)) = target.and_then(|target| self.left(target)) {
                        text.push_str(&format!("left {} {inode} {size} {modified} {changed}\n", self.keys[blob]));
                    }
                }
                text.push_str("synced\n");
                self.log.write_all(text.as_bytes())
            })
            .and_then(|()| self.log.sync_data());
        outcome.map_err(|error| self.failed(&error, "what was taken out"))
    }

    /// Keeps a side file's contents for the description.
    pub fn keep_side(&mut self, side: u32, bytes: &[u8]) {
        if self.sides_len + bytes.len() <= SIDES_MAX {
            self.sides_len += bytes.len();
            self.sides.entry(side).or_default().extend_from_slice(bytes);
        }
    }

    pub fn side(&self, side: u32) -> Option<Vec<u8>> {
        self.sides.get(&side).cloned()
    }

    /// Writes the facts that a file in a directory cannot hold, one JSON object a blob.
    pub fn describe(
        &mut self,
        row: &Row,
        times: Times,
        metadata: Option<Vec<u8>>,
        properties: Option<Vec<u8>>,
    ) -> Result<(), Problem> {
        let read = |bytes: Option<Vec<u8>>| bytes.map(|bytes| properties::read(&bytes));
        let (metadata, properties) = (read(metadata), read(properties));
        let reported = properties.as_ref().and_then(|pairs| last_modified(pairs.as_ref().ok()?));
        if let (Some(target), Some(reported)) = (&row.extracted, reported) {
            self.set_modified(target, times, reported).map_err(|error| self.failed(&error, "a blob's time"))?;
        }
        let object = |pairs: Option<Result<Vec<(String, String)>, XmlError>>| match pairs {
            None => Value::Null,
            Some(Ok(pairs)) => Value::Object(pairs.into_iter().map(|(k, v)| (k, v.into())).collect::<Map<_, _>>()),
            Some(Err(error)) => json!({ "error": error.what }),
        };
        let line = json!({
            "blob": row.blob,
            "snapshot": row.snapshot,
            "file": row.extracted,
            "drive_path": row.file,
            "length": row.length,
            "verdict": row.verdict.word(),
            "created": rfc3339(times.created),
            "modified": rfc3339(times.modified),
            "properties": object(properties),
            "metadata": object(metadata),
        });
        writeln!(self.description, "{line}").map_err(|error| self.failed(&error, "the description of the blobs"))
    }

    /// Sets the blob's own time, which replaces that of the last copy of the file.
    fn set_modified(&self, target: &str, times: Times, reported: Timespec) -> io::Result<()> {
        let (parent, name) = target.rsplit_once('/').unwrap_or((".", target));
        let times = Timestamps { last_access: time(times.accessed), last_modification: reported };
        match rustix::fs::utimensat(open_dir(&self.root, parent)?, name, &times, AtFlags::SYMLINK_NOFOLLOW) {
            // The file is missing, or the file system cannot hold the time: the description has it.
            Ok(()) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::INVAL) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Called after everything is described; removes leftover parts.
    pub fn end(&mut self) -> Result<(), Problem> {
        let outcome = self.description.flush().and_then(|()| self.description.get_ref().sync_data());
        let outcome = outcome.and_then(|()| self.log.write_all(b"complete\n")).and_then(|()| self.log.sync_data());
        outcome.map_err(|error| self.failed(&error, "the description of the blobs"))?;
        let _ = rustix::fs::unlinkat(&self.root, PARTS, AtFlags::REMOVEDIR);
        let _ = rustix::fs::unlinkat(&self.root, RENAMED, AtFlags::REMOVEDIR);
        Ok(())
    }
}

/// A line `left key inode size modified changed`.
fn parse_left(text: &str) -> Option<(String, Left)> {
    let mut parts = text.strip_prefix("left ")?.split(' ');
    let key = parts.next()?.to_owned();
    let (inode, size) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some((key, (inode, size, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?)))
}

/// Short names of blobs for the log and for parts, independent of the selection; duplicates get distinct ones.
fn keys(blobs: impl Iterator<Item = (String, Option<String>)>) -> Vec<String> {
    let mut seen: HashMap<String, u32> = HashMap::new();
    let name = |(path, snapshot): (String, Option<String>)| {
        let digest = hash::sha256(format!("{path}\0{}", snapshot.unwrap_or_default()).as_bytes());
        let key = hash::hex_upper(&digest[..12]).to_lowercase();
        let count = seen.entry(key.clone()).or_default();
        *count += 1;
        if *count == 1 { key } else { format!("{key}-{count}") }
    };
    blobs.map(name).collect()
}

const RESOLVE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

fn open_at(root: &OwnedFd, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    let mode = if flags.contains(OFlags::CREATE) { Mode::from_raw_mode(0o666) } else { Mode::empty() };
    Ok(rustix::fs::openat2(root, path, flags, mode, RESOLVE)?)
}

fn open_dir(root: &OwnedFd, path: &str) -> io::Result<OwnedFd> {
    open_at(root, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC)
}

/// Creates one directory, whose parent exists. An existing one is accepted.
fn make_dir(root: &OwnedFd, path: &str) -> io::Result<()> {
    let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
    let parent = open_dir(root, parent)?;
    // The default mode: the umask decides on access.
    match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o777)) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::EXIST) => open_dir(root, path).map(|_| ()),
        Err(error) => Err(error.into()),
    }
}

/// Whether a relative path stays below its root, judged by its text alone.
fn is_inside(path: &str) -> bool {
    !path.is_empty() && path.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'))
}

/// Path of a blob: its own name, followed by snapshot and suffix, if the file system can hold that.
fn target_of(path: &str, snapshot: Option<&str>, suffix: &str, name_max: usize) -> String {
    let whole = match snapshot {
        Some(time) => format!("{path}@{time}{suffix}"),
        None => format!("{path}{suffix}"),
    };
    let fits = whole.split('/').all(|part| part.len() <= name_max);
    let is_ours = path.split('/').next() == Some(OWN);
    if !is_inside(path) || !fits || is_ours || snapshot.is_some_and(|time| time.contains(['/', '\0'])) {
        return format!("{}{suffix}", nameless(path, snapshot, ""));
    }
    whole
}

/// A name of hex digits for a blob without a possible name; the description maps it to the blob. `part` distinguishes
/// blobs of one name.
fn nameless(path: &str, snapshot: Option<&str>, part: &str) -> String {
    let digest = hash::sha256(format!("{path}\0{}{part}", snapshot.unwrap_or_default()).as_bytes());
    format!("{RENAMED}/{}", hash::hex_upper(&digest[..16]).to_lowercase())
}

/// Whether the error may be avoided by another name.
fn is_of_name(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ENOTDIR
                | libc::EEXIST
                | libc::ENAMETOOLONG
                | libc::EISDIR
                | libc::ELOOP
                | libc::EXDEV
                | libc::EINVAL
                | libc::EILSEQ
        )
    ) || error.kind() == io::ErrorKind::AlreadyExists
}

/// Time of the blob's last change by the service: in the form of HTTP, or RFC 3339.
fn last_modified(properties: &[(String, String)]) -> Option<Timespec> {
    let (_, text) = properties.iter().find(|(name, _)| name.eq_ignore_ascii_case("Last-Modified"))?;
    let text = text.trim();
    let stamp = text.parse::<jiff::Timestamp>().ok();
    let stamp = stamp.or_else(|| Some(jiff::fmt::rfc2822::parse(text).ok()?.timestamp()))?;
    Some(Timespec { tv_sec: stamp.as_second(), tv_nsec: stamp.subsec_nanosecond().into() })
}

fn time(time: FileTime) -> Timespec {
    let (tv_sec, nanos) = time.to_unix();
    Timespec { tv_sec, tv_nsec: nanos.into() }
}

fn rfc3339(time: FileTime) -> Option<String> {
    let (seconds, nanos) = time.to_unix();
    jiff::Timestamp::new(seconds, nanos as i32).ok().map(|time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_outside_or_nowhere_are_replaced() {
        for path in ["pictures/a.jpg", "$root/b", "a/..b/.c", "ü/ß", "a/b/.dray"] {
            assert_eq!(target_of(path, None, "", NAME_MAX), path);
        }
        // A name may be as long as the file system accepts, including its suffix.
        let (time, full) = ("2012-09-18T23:47:08Z", format!("a/{}", "x".repeat(255)));
        assert_eq!(target_of(&full, None, "", NAME_MAX), full);
        for target in [
            target_of(&full, None, DAMAGED, NAME_MAX),
            target_of(&full, Some(time), "", NAME_MAX),
            target_of(&full, None, "", 143),
        ] {
            assert!(target.starts_with(RENAMED), "{target}");
        }
        let (short, long) = (&full[..full.len() - 8], "x".repeat(255));
        assert_eq!(target_of(short, None, DAMAGED, NAME_MAX), format!("{short}.damaged"));
        let deep = format!("{long}/y");
        assert_eq!(target_of(&deep, Some(time), "", NAME_MAX), format!("{deep}@{time}"));
        let long = format!("a/{}", "x".repeat(300));
        for path in
            ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", "a/./b", "..", ".", "a/\0", ".dray/x", long.as_str()]
        {
            let target = target_of(path, None, "", NAME_MAX);
            assert!(target.starts_with(RENAMED) && is_inside(&target), "{path:?}: {target}");
        }
        assert_eq!(target_of("a/b", Some(time), "", NAME_MAX), format!("a/b@{time}"));
        assert!(target_of("a/b", Some("../../x"), "", NAME_MAX).starts_with(RENAMED));
        assert_ne!(target_of("../x", None, "", NAME_MAX), target_of("../y", None, "", NAME_MAX));
    }

    #[test]
    fn two_blobs_of_one_name_both_find_a_place_and_an_impossible_one_costs_itself() {
        let dir = std::env::temp_dir().join(format!("dray-extract-twice-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let take = |taken: &mut Extractor, blob: usize, path: &str, length: u64| {
            taken.write(blob, 0, b"content").unwrap();
            let (times, path) = (Times::default(), path.to_owned());
            taken.finish(&Finish { blob, path, snapshot: None, length, times, is_whole: true }).unwrap();
        };
        let open = |drive: &str, md5: &str, blobs: usize| {
            let names = vec![("name".to_owned(), None); blobs];
            Extractor::open(&dir, drive, md5, "this drive", names.into_iter())
        };
        let mut taken = open("one", "MD5A", 6).unwrap();
        take(&mut taken, 0, "box/f", 7);
        take(&mut taken, 1, "box/f", 7);
        take(&mut taken, 2, "box/huge", u64::MAX);
        take(&mut taken, 3, "box/f/below", 7);
        take(&mut taken, 4, &format!("box/{}", "ü".repeat(200)), 7);
        taken.write(5, u64::MAX - 3, b"far").unwrap();
        taken.checkpoint().unwrap();
        assert_eq!(taken.target(0), Some("box/f"));
        let mut others: Vec<&str> = [1, 3, 4].iter().map(|blob| taken.target(*blob).unwrap()).collect();
        assert!(others.iter().all(|target| target.starts_with(RENAMED)), "{others:?}");
        others.dedup();
        assert_eq!(others.len(), 3);
        assert!(taken.refused(2).is_some() && taken.refused(5).is_some() && !taken.is_done(2));
        // Another drive with a blob of that name, now and once more.
        for _ in 0..2 {
            let mut other = open("two", "MD5B", 1).unwrap();
            other.refuse_overwriting(&|_| ("box/f".to_owned(), None)).unwrap();
            if !other.is_done(0) {
                take(&mut other, 0, "box/f", 7);
                other.checkpoint().unwrap();
            }
            assert!(other.target(0).unwrap().starts_with(RENAMED));
        }
        // A file that no drive put there is not touched.
        std::fs::write(dir.join("box/mine"), "mine").unwrap();
        let third = open("three", "MD5C", 1).unwrap();
        assert!(third.refuse_overwriting(&|_| ("box/mine".to_owned(), None)).is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_blobs_own_time_is_read_in_both_forms() {
        let at = |text: &str| last_modified(&[("last-modified".to_owned(), text.to_owned())]).map(|time| time.tv_sec);
        assert_eq!(at("Tue, 18 Sep 2012 23:47:08 GMT"), Some(1_348_012_028));
        assert_eq!(at(" 2012-09-18T23:47:08Z "), Some(1_348_012_028));
        assert_eq!(at("yesterday"), None);
    }

    #[test]
    fn a_torn_end_of_the_log_costs_no_line_behind_it() {
        let dir = std::env::temp_dir().join(format!("dray-extract-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let open = || {
            let names = ["box/ä", "box/ö", "box/ü"].map(|name| (name.to_owned(), None));
            Extractor::open(&dir, "drive", "MD5", "this drive", names.into_iter()).unwrap()
        };
        let place = |taken: &mut Extractor, blob: usize, path: &str| {
            taken.write(blob, 0, b"content").unwrap();
            let (times, length) = (Times::default(), 7);
            let path = path.to_owned();
            taken.finish(&Finish { blob, path, snapshot: None, length, times, is_whole: true }).unwrap();
        };
        let mut taken = open();
        place(&mut taken, 0, "box/ä");
        taken.checkpoint().unwrap();
        // The disk was full in the middle of a letter.
        taken.log.write_all(format!("{} whole 7 \"box/", taken.keys[1]).as_bytes()).unwrap();
        taken.log.write_all(b"\xC3").unwrap();
        drop(taken);
        let mut taken = open();
        assert!(taken.is_done(0) && !taken.is_done(1));
        place(&mut taken, 1, "box/ö");
        taken.checkpoint().unwrap();
        let taken = open();
        assert!(taken.was_done(0) && taken.was_done(1) && !taken.is_done(2));
        assert_eq!(taken.target(1), Some("box/ö"));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn only_an_interrupted_run_on_this_drive_is_gone_on_with() {
        let dir = std::env::temp_dir().join(format!("dray-again-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let open = |drive: &str| {
            let names = ["box/a", "box/b"].map(|name| (name.to_owned(), None));
            Extractor::open(&dir, "drive", "MD5", drive, names.into_iter()).unwrap()
        };
        let place = |taken: &mut Extractor, blob: usize, is_whole: bool| {
            taken.write(blob, 0, b"content").unwrap();
            let path = ["box/a", "box/b"][blob].to_owned();
            taken.finish(&Finish { blob, path, snapshot: None, length: 7, times: Times::default(), is_whole }).unwrap();
        };
        let mut taken = open("this");
        place(&mut taken, 0, true);
        place(&mut taken, 1, false);
        taken.checkpoint().unwrap();
        // Interrupted: complete blobs are done, damaged ones are tried again.
        let mut taken = open("this");
        assert!(taken.is_done(0) && taken.was_done(0) && taken.target(1).is_none());
        place(&mut taken, 1, true);
        taken.checkpoint().unwrap();
        // From another drive, or one that has changed: compared with the data of this one.
        let mut other = open("another");
        assert!(!other.is_done(0) && other.target(0).is_some());
        other.refuse_overwriting(&|_| unreachable!("both are ours")).unwrap();
        place(&mut other, 0, true);
        assert!(other.is_done(0) && !other.was_done(0) && !other.is_other(0));
        // It ended: the next run compares everything again, and finds changed, shortened and extended files.
        open("this").end().unwrap();
        for (text, is_other) in [("content", false), ("contenT", true), ("conten", true), ("content+", true)] {
            std::fs::write(dir.join("box/b"), text).unwrap();
            let mut again = open("this");
            assert!(!again.is_done(0) && !again.is_done(1));
            place(&mut again, 0, true);
            place(&mut again, 1, true);
            assert_eq!((again.is_other(0), again.is_other(1)), (false, is_other), "{text}");
            assert_eq!(std::fs::read_to_string(dir.join("box/b")).unwrap(), text, "nothing is overwritten");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_file_that_was_changed_behind_an_interrupted_run_is_read_again() {
        let dir = std::env::temp_dir().join(format!("dray-touched-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let open = || {
            let names = [("box/a".to_owned(), None)];
            Extractor::open(&dir, "drive", "MD5", "this", names.into_iter()).unwrap()
        };
        let finish = |length| Finish {
            blob: 0,
            path: "box/a".into(),
            snapshot: None,
            length,
            times: Times::default(),
            is_whole: true,
        };
        let mut taken = open();
        taken.write(0, 0, b"content").unwrap();
        taken.finish(&finish(7)).unwrap();
        taken.checkpoint().unwrap();
        std::fs::write(dir.join("box/a"), "CONTENT").unwrap();
        let mut taken = open();
        assert!(!taken.is_done(0));
        taken.write(0, 0, b"content").unwrap();
        taken.finish(&finish(7)).unwrap();
        assert!(taken.is_done(0) && taken.is_other(0));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
