//! The log of one run, line by line. Paths and serials, never keys.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::limits::{LOG_LEN_MAX, LOGS_KEPT};
use crate::report::{DriveResult, Event, Kind, PlanSummary, Problem, Problems, Timing, counted, shown};
use crate::request::PrepRequest;
use crate::surroundings::timestamp;
use crate::units::ByteLen;

/// `dray-<session>-<time>.log`, a file for each run. One that grows past [`LOG_LEN_MAX`] continues in a new file and
/// keeps the earlier part as `….log.1`; of a session's runs the last [`LOGS_KEPT`] are kept.
#[derive(Debug)]
pub struct Log(Mutex<Open>);

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: File,
    len: u64,
    /// Lines lost since the last written one; `trouble` holds the first error of the run.
    lost: u64,
    trouble: Option<String>,
    is_told: bool,
}

impl Log {
    /// Creates the log of a run in `dir`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn open(dir: &Path, session: &str) -> Result<Self, Problems> {
        let name: String = session.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let stem = format!("dray-{name}-");
        let stamp = timestamp().strftime("%Y%m%dT%H%M%S%.3fZ");
        let path = dir.join(format!("{stem}{stamp}.log"));
        let file = create(&path).map_err(|error| {
            Problem::new(Kind::Environment, format!("the log cannot be written: {error}")).path(&path)
        })?;
        // Old logs that cannot be removed are no reason not to write a drive.
        let _ = forget(dir, &stem);
        Ok(Self(Mutex::new(Open::new(path, file))))
    }

    /// Path of the current file.
    pub fn path(&self) -> PathBuf {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).path.clone()
    }

    /// Writes the run's command, machine and user, the drives, and the plan.
    pub fn begin(&self, request: &PrepRequest, plan: &PlanSummary) {
        request.about.iter().for_each(|line| self.line(line));
        self.line(&format!(
            "session {}, journal {}: {:?}, {} of {}, cipher {}, read-back {:?}",
            plan.session,
            request.journal.display(),
            request.action,
            counted(plan.files, "file"),
            plan.data,
            plan.cipher,
            request.read_back
        ));
        for one in &plan.drives {
            let drive = &one.drive;
            self.line(&format!(
                "drive {}: id {}, {}, opened as {}, {} ({} bytes), sectors of {} bytes, {}, on it now: {}",
                drive.name,
                drive.drive_id,
                drive.model.as_deref().unwrap_or("model unknown"),
                drive.path.display(),
                drive.size,
                drive.size.0,
                drive.sector,
                if drive.for_shipping { "for shipping" } else { "not for shipping" },
                drive.contents.as_deref().unwrap_or("nothing")
            ));
            self.line(&format!(
                "drive {}: plan: {} in {}, {}; to write {}, overhead {}, free {}, clusters of {} bytes",
                drive.name,
                counted(one.files, "file"),
                counted(one.dirs, "directory"),
                one.data,
                one.to_write,
                one.overhead,
                one.free,
                one.cluster
            ));
        }
    }

    /// Writes the result of a drive.
    pub fn result(&self, result: &DriveResult) {
        let name = &result.drive.name;
        let timing = rates(&result.timing);
        match &result.failure {
            Some(problem) => {
                let word = if problem.kind == Kind::Interrupted { "stopped" } else { "failed" };
                self.line(&format!("drive {name}: result: {word}: {problem}{timing}"));
            }
            None => self.line(&format!(
                "drive {name}: result: done, {}, {}, {} left out, manifest MD5 {}, drive record {}{timing}, in all {} s",
                counted(result.files, "file"),
                result.data,
                result.left_out.len(),
                result.manifest_hash.as_deref().unwrap_or("-"),
                result.record.as_deref().unwrap_or(Path::new("-")).display(),
                result.elapsed.as_secs()
            )),
        }
    }

    /// Writes a line, unless the event is only progress; `drives` are the names of the session's drives, and `timing`
    /// is that of the event's drive.
    pub fn event(&self, event: &Event, drives: &[String], timing: Timing) {
        let name = |drive: &usize| drives.get(*drive).map_or("?", String::as_str);
        self.line(&match event {
            Event::Scanning { .. } | Event::Progress { .. } => return,
            Event::Stage { drive, stage } => format!("drive {}: {stage:?}{}", name(drive), rates(&timing)),
            Event::LeftOut { drive, path, why } => format!("drive {}: left out {}: {why}", name(drive), path.display()),
            Event::DriveFailed { drive, problem } => format!("drive {}: failed: {problem}", name(drive)),
            Event::Note(text) => format!("note: {text}"),
            Event::Warning(text) => format!("warning: {text}"),
        });
    }

    /// Writes a line.
    pub fn line(&self, line: &str) {
        let text = stamped(line);
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A full log disk must not end a session that runs well: it is reported, and a log that continues records its
        // gap.
        if open.lost > 0 {
            let lost = stamped(&format!("({} before this one lost)", counted(open.lost, "line")));
            if open.write_all(&lost) {
                open.lost = 0;
            }
        }
        open.write_all(&text);
    }

    /// The problem that lines were lost, with the reason; returned once.
    pub fn trouble(&self) -> Option<Problem> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let why = open.trouble.clone().filter(|_| !open.is_told)?;
        open.is_told = true;
        let what = format!("the log cannot be written, and will be incomplete: {why}");
        Some(Problem::new(Kind::Environment, what).path(&open.path))
    }

    /// The reason why lines of the log are missing; `None` when it is complete.
    pub fn lacks(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).trouble.clone()
    }
}

/// Bytes and rates, as far as they are known.
fn rates(timing: &Timing) -> String {
    let part = |what: &str, bytes: ByteLen, time: Duration, rate: Option<f64>| match rate {
        Some(rate) => format!("; {what} {bytes} in {:.1} s, {}/s", time.as_secs_f64(), ByteLen(rate as u64)),
        None if bytes.0 > 0 => format!("; {what} {bytes}"),
        None => String::new(),
    };
    let written = part("written by this run", timing.written, timing.writing, timing.write_rate());
    written + &part("read back", timing.read_back, timing.reading, timing.read_rate())
}

fn stamped(line: &str) -> String {
    // A file name must not begin a line of its own.
    format!("{:.3} {}\n", timestamp(), shown(line))
}

/// Appends a line to the log of a run that has ended, such as its exit code.
///
/// # Errors
/// The log cannot be written.
pub fn append_to_log(path: &Path, line: &str) -> io::Result<()> {
    OpenOptions::new().append(true).open(path)?.write_all(stamped(line).as_bytes())
}

impl Open {
    fn new(path: PathBuf, file: File) -> Self {
        Self { path, file, len: 0, lost: 0, trouble: None, is_told: false }
    }

    /// Writes a line, or counts it as lost.
    fn write_all(&mut self, line: &str) -> bool {
        let written = self.write(line.as_bytes(), LOG_LEN_MAX);
        if let Err(error) = &written {
            self.lost += 1;
            self.trouble.get_or_insert_with(|| error.to_string());
        }
        written.is_ok()
    }

    fn write(&mut self, line: &[u8], len_max: u64) -> io::Result<()> {
        if self.len > 0 && self.len + line.len() as u64 > len_max {
            let mut before = self.path.clone().into_os_string();
            before.push(".1");
            fs::rename(&self.path, before)?;
            self.file = create(&self.path)?;
            self.len = 0;
        }
        self.file.write_all(line)?;
        self.len += line.len() as u64;
        Ok(())
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Removes all but the last logs of the session; their names sort by time.
fn forget(dir: &Path, stem: &str) -> io::Result<()> {
    let mut runs = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| {
            let stamp = name.strip_prefix(stem).and_then(|rest| rest.strip_suffix(".log"));
            stamp.is_some_and(|stamp| stamp.starts_with(|c: char| c.is_ascii_digit()) && !stamp.contains('-'))
        });
        if ours {
            runs.push(entry.path());
        }
    }
    runs.sort();
    for old in runs.iter().take(runs.len().saturating_sub(LOGS_KEPT)) {
        fs::remove_file(old)?;
        let mut before = old.clone().into_os_string();
        before.push(".1");
        let _ = fs::remove_file(before);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("dray-log-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a scratch directory");
        dir
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .expect("there")
            .map(|e| e.expect("entry").file_name().into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_name_with_a_line_break_stays_one_line() {
        let dir = scratch("lines");
        let log = Log::open(&dir, "session#1").expect("log");
        log.line("left out a\nb\x1b[2J");
        let text = fs::read_to_string(dir.join(&names(&dir)[0])).expect("text");
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains("a\\nb\\u{1b}[2J"), "{text}");
        fs::remove_dir_all(&dir).expect("removed");
    }

    #[test]
    fn a_log_that_lost_lines_says_so_once_and_counts_them() {
        let dir = scratch("full");
        let path = dir.join("a.log");
        let full = OpenOptions::new().write(true).open("/dev/full").expect("a device without room");
        let log = Log(Mutex::new(Open::new(path.clone(), full)));
        assert!(log.trouble().is_none() && log.lacks().is_none());
        log.line("one");
        log.line("two");
        let trouble = log.trouble().expect("told").to_string();
        assert!(trouble.contains("a.log: the log cannot be written") && trouble.contains("No space left"), "{trouble}");
        assert!(log.trouble().is_none(), "once");
        // There is room again.
        log.0.lock().expect("whole").file = create(&path).expect("log");
        log.line("three");
        log.line("four");
        let text = fs::read_to_string(&path).expect("text");
        let lines: Vec<&str> = text.lines().map(|line| line.split_once(' ').expect("a time").1).collect();
        // The line that should have stated the number of lost ones was lost as well.
        assert_eq!(lines, ["(3 lines before this one lost)", "three", "four"]);
        assert!(log.lacks().is_some(), "it stays incomplete");
        fs::remove_dir_all(&dir).expect("removed");
    }

    #[test]
    fn a_log_is_capped_and_old_runs_are_forgotten() {
        let dir = scratch("caps");
        let path = dir.join("a.log");
        let mut open = Open::new(path.clone(), create(&path).expect("log"));
        for _ in 0..10 {
            open.write(&[b'x'; 40], 100).expect("written");
        }
        assert_eq!(names(&dir), ["a.log", "a.log.1"]);
        for name in names(&dir) {
            assert!(fs::metadata(dir.join(name)).expect("there").len() <= 100);
        }
        for i in 0..LOGS_KEPT + 3 {
            fs::write(dir.join(format!("dray-s_1-2026{i:04}T000000.000Z.log")), "").expect("written");
        }
        fs::write(dir.join("dray-s_1-20260000T000000.000Z.log.1"), "").expect("written");
        fs::write(dir.join("dray-s_1-x-20260000T000000.000Z.log"), "").expect("written");
        forget(&dir, "dray-s_1-").expect("cleared");
        let left = names(&dir);
        assert!(!left.iter().any(|name| name.contains("-20260000") && !name.contains("-x-")), "{left:?}");
        assert_eq!(left.len(), 2 + LOGS_KEPT + 1, "another session's stays: {left:?}");
        fs::remove_dir_all(&dir).expect("removed");
    }
}
