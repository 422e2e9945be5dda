//! The drives while they are written: state out of events, and its drawing.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dray_engine::report::{DriveFacts, Event, Meter, Problem, Stage, Waiting};
use dray_engine::units::ByteLen;
use serde_json::json;

use super::metrics::Sample;
use super::text::{clean, count, left, short, tail};
use super::{Output, Style, columns, err, json as objects, text};
use crate::signals::Signals;

/// Interval over which the current rate is averaged.
const WINDOW: Duration = Duration::from_secs(30);
/// Interval between redraws on a terminal.
const REDRAW: Duration = Duration::from_millis(250);
/// Of the outermost track's rate, the part that platters have lost at the innermost one: about half on 3.5-inch drives.
const INNER_LOSS: f64 = 0.5;

/// Progress of one drive.
#[derive(Debug)]
pub struct Lane {
    id: String,
    size: u64,
    platters: bool,
    stage: Option<Stage>,
    acknowledged: u64,
    total: u64,
    files: u64,
    left_out: u64,
    waiting: Waiting,
    meter: Meter,
    /// Bytes written and bytes to write; kept apart from the fields above, which start again for the read-back.
    written: (u64, u64),
    /// Verification only: nothing is written.
    is_verified: bool,
    recent: VecDeque<(Duration, u64)>,
    ended: Option<Duration>,
    reported_at: Option<Duration>,
}

impl Lane {
    fn new(drive: &DriveFacts, total: ByteLen) -> Self {
        Self {
            id: if drive.drive_id.is_empty() { drive.name.clone() } else { drive.drive_id.clone() },
            size: drive.size.0,
            platters: drive.rotational == Some(true),
            stage: None,
            acknowledged: 0,
            total: total.0,
            files: 0,
            left_out: 0,
            waiting: Waiting::Nothing,
            meter: Meter::default(),
            written: (0, total.0),
            is_verified: false,
            recent: VecDeque::new(),
            ended: None,
            reported_at: None,
        }
    }

    fn progress(&mut self, now: Duration, acknowledged: u64, total: u64) {
        if acknowledged < self.acknowledged {
            // Another count began (reading back): rates begin anew with it.
            self.recent.clear();
        }
        self.acknowledged = acknowledged;
        self.total = total;
        if self.verifies() || !self.reads_back() && acknowledged >= self.written.0 {
            self.written = (acknowledged, total);
        }
        self.recent.push_back((now, acknowledged));
        // One sample beyond the window stays, so that the window is always full.
        while self.recent.len() > 2 && self.recent.get(1).is_some_and(|(at, _)| now.saturating_sub(*at) > WINDOW) {
            self.recent.pop_front();
        }
    }

    fn running(&self) -> bool {
        self.ended.is_none()
    }

    /// Bytes a second lately.
    fn rate(&self, now: Duration) -> Option<f64> {
        if !self.running() {
            return None;
        }
        per_second(*self.recent.front()?, (now, self.acknowledged))
    }

    fn verifies(&self) -> bool {
        matches!(self.stage, Some(Stage::Listing | Stage::Verifying | Stage::Importing)) || self.is_verified
    }

    fn reads_back(&self) -> bool {
        self.stage == Some(Stage::ReadBack)
    }

    /// Bytes a second since the first byte: of the read-back while it lasts, otherwise of this run's writing.
    fn average(&self, now: Duration) -> Option<f64> {
        let timing = self.meter.timing(now);
        if self.reads_back() { timing.read_rate() } else { timing.write_rate() }
    }

    fn seconds_left(&self, now: Duration) -> Option<f64> {
        let rate = self.rate(now).filter(|rate| *rate >= 1.0)?;
        let left = self.total.saturating_sub(self.acknowledged) as f64;
        if !self.platters || self.size == 0 || self.waiting == Waiting::Source {
            return Some(left / rate);
        }
        // Drives are written from the outside in: the rate at x of the surface is that of here, times
        // (1 - loss x) / (1 - loss here). The time left is the integral of its inverse.
        let at = |bytes: u64| 1.0 - INNER_LOSS * (bytes as f64 / self.size as f64).min(1.0);
        let (here, end) = (at(self.acknowledged), at(self.total));
        Some(self.size as f64 * here / (rate * INNER_LOSS) * (here / end).ln())
    }

    fn percent(&self) -> u64 {
        if self.stage == Some(Stage::Done) {
            return 100;
        }
        // 100 means complete and durable.
        (u128::from(self.acknowledged) * 100 / u128::from(self.total.max(1))).min(99) as u64
    }
}

fn per_second(from: (Duration, u64), to: (Duration, u64)) -> Option<f64> {
    let seconds = to.0.checked_sub(from.0)?.as_secs_f64();
    (seconds >= 0.1).then(|| to.1.saturating_sub(from.1) as f64 / seconds)
}

/// Fits the eight columns of the stage.
fn stage_word(stage: Option<Stage>) -> &'static str {
    match stage {
        None => "waiting",
        Some(Stage::Wiping) => "wiping",
        Some(Stage::Encrypting) => "encrypt",
        Some(Stage::Data) => "data",
        Some(Stage::Metadata) => "metadata",
        Some(Stage::FreeSpace) => "zeros",
        Some(Stage::Finishing) => "finish",
        Some(Stage::Flushing) => "flushing",
        Some(Stage::ReadBack) => "readback",
        Some(Stage::Listing) => "listing",
        Some(Stage::Verifying) => "verify",
        Some(Stage::Importing) => "import",
        Some(Stage::Done) => "done",
        Some(Stage::Stopped) => "stopped",
        Some(Stage::Failed) => "FAILED",
    }
}

fn rate_word(rate: Option<f64>) -> String {
    rate.map_or("-".into(), |rate| format!("{}/s", short(rate as u64)))
}

fn left_word(seconds: Option<f64>) -> String {
    seconds.map_or("-".into(), |seconds| left(Duration::from_secs_f64(seconds.clamp(0.0, 1e9))))
}

/// All drives, without a clock: `now` is the time since the start.
#[derive(Debug)]
pub struct BoardState {
    lanes: Vec<Lane>,
    over: bool,
    drawn: usize,
    /// The metrics could not be written, which was said once.
    is_unmeasured: bool,
}

impl BoardState {
    fn new(drives: &[(DriveFacts, ByteLen)]) -> Self {
        let lanes = drives.iter().map(|(drive, total)| Lane::new(drive, *total)).collect();
        Self { lanes, over: false, drawn: 0, is_unmeasured: false }
    }

    fn apply(&mut self, event: &Event, now: Duration) {
        if let Some(lane) = event.drive().and_then(|drive| self.lanes.get_mut(drive)) {
            lane.meter.heard(event, now);
        }
        match event {
            Event::Stage { drive, stage } => {
                if let Some(lane) = self.lanes.get_mut(*drive) {
                    let began = lane.stage != Some(*stage) && *stage == Stage::ReadBack;
                    lane.stage = Some(*stage);
                    lane.is_verified |= matches!(stage, Stage::Verifying | Stage::Importing);
                    if began {
                        lane.recent.clear();
                        lane.recent.push_back((now, 0));
                        lane.acknowledged = 0;
                    } else if *stage == Stage::Done && lane.written.0 > 0 {
                        // The last sectors are written after the last progress report.
                        lane.written.0 = lane.written.1;
                        (lane.acknowledged, lane.total) = lane.written;
                    }
                    if stage.is_end() {
                        lane.ended.get_or_insert(now);
                    }
                }
            }
            Event::Progress { drive, acknowledged, total, files, waiting_for } => {
                if let Some(lane) = self.lanes.get_mut(*drive) {
                    lane.progress(now, acknowledged.0, total.0);
                    // Stages that handle no files report none.
                    lane.files = lane.files.max(*files);
                    lane.waiting = *waiting_for;
                }
            }
            Event::LeftOut { drive, .. } => {
                if let Some(lane) = self.lanes.get_mut(*drive) {
                    lane.left_out += 1;
                }
            }
            Event::DriveFailed { drive, .. } => {
                if let Some(lane) = self.lanes.get_mut(*drive) {
                    lane.stage = Some(Stage::Failed);
                    lane.ended.get_or_insert(now);
                }
            }
            Event::Scanning { .. } | Event::Note(_) | Event::Warning(_) => {}
        }
    }

    /// The drives as monitoring sees them.
    fn samples(&self, now: Duration) -> Vec<Sample> {
        let sample = |lane: &Lane| Sample {
            drive: clean(&lane.id),
            stage: lane.stage,
            acknowledged: lane.acknowledged,
            total: lane.total,
            rate: lane.rate(now),
            seconds_left: if lane.running() { lane.seconds_left(now) } else { None },
            files: lane.files,
            left_out: lane.left_out,
        };
        self.lanes.iter().map(sample).collect()
    }

    /// The table: a head, a line a drive, and a total. 79 columns.
    fn table(&self, now: Duration) -> Vec<String> {
        let mut lines = vec![format!(
            "{:<10} {:<8} {:>4} {:>7} {:>7} {:>9} {:>9} {:>6} {:>4} {:<6}",
            "drive", "stage", "", "done", "of", "now", "average", "left", "out", "waits"
        )];
        for lane in &self.lanes {
            lines.push(format!(
                "{:<10} {:<8} {:>3}% {:>7} {:>7} {:>9} {:>9} {:>6} {:>4} {:<6}",
                tail(&clean(&lane.id), 10),
                stage_word(lane.stage),
                lane.percent(),
                short(lane.acknowledged),
                short(lane.total),
                rate_word(lane.rate(now)),
                rate_word(lane.average(now)),
                left_word(lane.seconds_left(now)),
                lane.left_out,
                match lane.waiting {
                    Waiting::Nothing => "",
                    other if lane.running() => objects::waiting(other),
                    _ => "",
                },
            ));
        }
        if !self.lanes.is_empty() {
            lines.push(self.total_line(now));
        }
        lines.extend(self.read_back_line());
        lines
    }

    /// The read-back line, separate from the total: the total counts writing only and never decreases.
    fn read_back_line(&self) -> Option<String> {
        let lanes: Vec<&Lane> = self.lanes.iter().filter(|lane| lane.reads_back()).collect();
        if lanes.is_empty() || self.lanes.len() < 2 {
            return None;
        }
        let (done, total) =
            lanes.iter().fold((0, 0), |(done, total), lane| (done + lane.acknowledged, total + lane.total));
        let percent = (u128::from(done) * 100 / u128::from(total.max(1))).min(99);
        Some(format!(
            "{:<10} {:<8} {percent:>3}% {:>7} {:>7}",
            "read back",
            count(lanes.len() as u64, "drive"),
            short(done),
            short(total)
        ))
    }

    fn total_line(&self, now: Duration) -> String {
        let sum = |of: fn(&Lane) -> u64| self.lanes.iter().map(of).sum::<u64>();
        let acknowledged = sum(|lane| lane.written.0);
        let total = sum(|lane| lane.written.1);
        let rates = |of: &dyn Fn(&Lane) -> Option<f64>| {
            let known: Vec<f64> = self.lanes.iter().filter(|lane| lane.running()).filter_map(of).collect();
            (!known.is_empty()).then(|| known.iter().sum::<f64>())
        };
        // All are ready when the last one is.
        let last = self.lanes.iter().filter_map(|lane| lane.seconds_left(now)).reduce(f64::max);
        format!(
            "{:<10} {:<8} {:>3}% {:>7} {:>7} {:>9} {:>9} {:>6} {:>4}",
            "total",
            format!(
                "{} of {}",
                self.lanes.iter().filter(|lane| lane.stage == Some(Stage::Done)).count(),
                self.lanes.len()
            ),
            (u128::from(acknowledged) * 100 / u128::from(total.max(1))).min(100),
            short(acknowledged),
            short(total),
            rate_word(rates(&|lane| lane.rate(now))),
            rate_word(rates(&|lane| lane.average(now))),
            left_word(last),
            sum(|lane| lane.left_out),
        )
    }

    /// All drives in words, if there are several.
    fn total_sentence(&self, now: Duration) -> Option<String> {
        (self.lanes.len() > 1).then(|| {
            let sum = |of: fn(&Lane) -> u64| self.lanes.iter().map(of).sum::<u64>();
            let rates: Vec<f64> = self.lanes.iter().filter_map(|lane| lane.rate(now)).collect();
            let last = self.lanes.iter().filter_map(|lane| lane.seconds_left(now)).reduce(f64::max);
            let done = self.lanes.iter().filter(|lane| lane.stage == Some(Stage::Done)).count();
            let mut line = format!(
                "dray: [{}] total: {done} of {} done, {} of {}",
                left(now),
                self.lanes.len(),
                ByteLen(sum(|lane| lane.written.0)),
                ByteLen(sum(|lane| lane.written.1))
            );
            if !rates.is_empty() {
                line.push_str(&format!(", {}/s", short(rates.iter().sum::<f64>() as u64)));
            }
            if last.is_some() {
                line.push_str(&format!(", {} left", left_word(last)));
            }
            line
        })
    }

    /// One drive in words, for a log.
    fn sentence(&self, drive: usize, now: Duration) -> Option<String> {
        let lane = self.lanes.get(drive)?;
        let stage = lane.stage.map_or("waiting", objects::stage);
        let mut line = format!("dray: [{}] {}: {stage}", left(now), clean(&lane.id));
        // Until the total is known there is nothing to count.
        if lane.total > 0 {
            let (done, total) = (ByteLen(lane.acknowledged), ByteLen(lane.total));
            line.push_str(&format!(", {}% ({done} of {total})", lane.percent()));
        }
        if let Some(rate) = lane.rate(now) {
            line.push_str(&format!(", {}/s", short(rate as u64)));
        }
        let timing = lane.meter.timing(now);
        if !lane.running() {
            let part = |rate: Option<f64>, what: &str| rate.map(|rate| format!(", {what} at {}/s", short(rate as u64)));
            line.extend(part(timing.write_rate(), if lane.is_verified { "verified" } else { "written" }));
            line.extend(part(timing.read_rate(), "read back"));
        } else if let Some(average) = lane.average(now) {
            let since = if lane.reads_back() { "since it began" } else { "since start" };
            line.push_str(&format!(", {}/s {since}", short(average as u64)));
        }
        if let Some(seconds) = lane.seconds_left(now) {
            line.push_str(&format!(", {} left", left_word(Some(seconds))));
        }
        if lane.left_out > 0 {
            line.push_str(&format!(", {} left out", count(lane.left_out, "file")));
        }
        if lane.running() && !matches!(lane.waiting, Waiting::Nothing) {
            line.push_str(&format!(", waiting for the {}", objects::waiting(lane.waiting)));
        }
        Some(line)
    }
}

/// The board: its state, the clock and the output it draws to.
#[derive(Debug)]
pub struct Board<'a> {
    output: &'a Output,
    started: Instant,
    state: Mutex<BoardState>,
    wake: Condvar,
}

impl<'a> Board<'a> {
    /// A board before the first event.
    pub fn new(output: &'a Output, drives: Vec<(DriveFacts, ByteLen)>) -> Self {
        Self { output, started: Instant::now(), state: Mutex::new(BoardState::new(&drives)), wake: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, BoardState> {
        // A drawing that panicked is no reason to lose the drives.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened; called from any thread.
    pub fn event(&self, event: Event) {
        let now = self.started.elapsed();
        let mut state = self.lock();
        state.apply(&event, now);
        if self.output.json {
            self.object(&mut state, &event, now);
            return;
        }
        match event {
            // A drive is flushed several times at its end; a line appears only when that takes long.
            Event::Stage { drive, stage } if stage != Stage::Flushing && !self.output.live && !self.output.quiet => {
                if let Some(line) = state.sentence(drive, now) {
                    err(&format!("{line}\n"));
                }
                if let Some(lane) = state.lanes.get_mut(drive) {
                    lane.reported_at = Some(now);
                }
            }
            Event::LeftOut { drive, path, why } if self.output.verbose => {
                let id = state.lanes.get(drive).map(|lane| clean(&lane.id)).unwrap_or_default();
                let line = format!("dray: {id}: left out: {}: {}", clean(&path.to_string_lossy()), clean(&why));
                self.above(&mut state, &line);
            }
            Event::DriveFailed { problem, .. } => {
                let text = text::problem(&problem, self.output.err);
                self.above(&mut state, text.trim_end());
            }
            Event::Note(note) if self.output.verbose => {
                self.above(&mut state, &format!("dray: {}", clean(&note.to_string())));
            }
            Event::Warning(text) => {
                let text = text::warning(&clean(&text.to_string()), self.output.err);
                self.above(&mut state, text.trim_end());
            }
            _ => {}
        }
    }

    fn object(&self, state: &mut BoardState, event: &Event, now: Duration) {
        match event {
            Event::Stage { drive, stage } => {
                let id = state.lanes.get(*drive).map(|lane| lane.id.as_str());
                let value = json!({ "drive": drive, "drive_id": id, "stage": objects::stage(*stage) });
                self.output.object("stage", value);
            }
            Event::Progress { drive, .. } => {
                let Some(lane) = state.lanes.get_mut(*drive) else { return };
                if lane.reported_at.is_some_and(|reported| now.saturating_sub(reported) < self.output.object_interval())
                {
                    return;
                }
                lane.reported_at = Some(now);
                self.progress_object(state, *drive, now);
            }
            Event::LeftOut { drive, path, why } => {
                let value = json!({ "drive": drive, "path": path.to_string_lossy(), "why": why });
                self.output.object("left_out", value);
            }
            Event::DriveFailed { drive, problem } => self.failed_object(*drive, problem),
            Event::Note(note) => self.output.object("note", objects::notice(note)),
            Event::Warning(text) => self.output.object("warning", objects::notice(text)),
            Event::Scanning { files, bytes } => {
                self.output.object("scanning", json!({ "files": files, "bytes": bytes.0 }));
            }
        }
    }

    fn failed_object(&self, drive: usize, problem: &Problem) {
        self.output.object("drive_failed", json!({ "drive": drive, "problem": objects::problem(problem) }));
    }

    fn progress_object(&self, state: &BoardState, drive: usize, now: Duration) {
        let Some(lane) = state.lanes.get(drive) else { return };
        let value = json!({
            "drive": drive,
            "drive_id": lane.id,
            "stage": lane.stage.map(objects::stage),
            "acknowledged": lane.acknowledged,
            "total": lane.total,
            "files": lane.files,
            "left_out": lane.left_out,
            "rate": lane.rate(now).map(|rate| rate as u64),
            "rate_average": lane.average(now).map(|rate| rate as u64),
            "seconds_left": lane.seconds_left(now).map(|seconds| seconds as u64),
            "waiting_for": objects::waiting(lane.waiting),
        });
        self.output.object("progress", value);
    }

    /// Draws until [`Self::ending`] is over; the body of a thread.
    pub fn tick(&self, signals: &Signals) {
        let pause = if self.output.live { REDRAW } else { Duration::from_millis(500) };
        let mut measured_at: Option<Instant> = None;
        let mut state = self.lock();
        while !state.over {
            let due = self.output.metrics.as_ref().map(|metrics| metrics.interval());
            if due.is_some_and(|due| measured_at.is_none_or(|at| at.elapsed() >= due)) {
                measured_at = Some(Instant::now());
                state = self.measure(state);
                continue;
            }
            if signals.status.swap(false, Ordering::AcqRel) {
                self.status(&mut state);
            }
            let now = self.started.elapsed();
            if self.output.live {
                draw(&mut state, now);
            } else if !self.output.json && !self.output.quiet {
                plain(&mut state, now, self.output.line_interval());
            }
            state = self.wake.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
        if self.output.live {
            let now = self.started.elapsed();
            draw(&mut state, now);
        }
        drop(self.measure(state));
    }

    /// Writes the metrics, without holding up the drives: events wait for the state.
    fn measure<'s>(&'s self, state: MutexGuard<'s, BoardState>) -> MutexGuard<'s, BoardState> {
        let Some(metrics) = &self.output.metrics else { return state };
        let samples = state.samples(self.started.elapsed());
        drop(state);
        let result = metrics.update(samples);
        let mut state = self.lock();
        if let Err(problem) = result
            && !std::mem::replace(&mut state.is_unmeasured, true)
        {
            let text = text::warning(&text::problem(&problem, Style::default()), self.output.err);
            if self.output.json {
                self.output.object("warning", json!({ "text": text }));
            } else {
                self.above(&mut state, text.trim_end());
            }
        }
        state
    }

    /// A guard whose drop ends the board: no more events will come. It also works on a panic, or else the drawing
    /// thread would wait for ever.
    pub fn ending(&self) -> Ending<'_> {
        Ending(self)
    }

    /// Prints the status block that SIGUSR1 requests.
    fn status(&self, state: &mut BoardState) {
        let now = self.started.elapsed();
        if self.output.json {
            for drive in 0..state.lanes.len() {
                self.progress_object(state, drive, now);
            }
        } else {
            let table: Vec<String> = state.table(now).iter().map(|line| line.trim_end().to_owned()).collect();
            let block = format!("dray: after {}\n{}", left(now), table.join("\n"));
            self.above(state, &block);
        }
    }

    /// Prints above the table, which is drawn again at the next tick.
    fn above(&self, state: &mut BoardState, text: &str) {
        erase(state);
        err(&format!("{text}\n"));
    }
}

/// See [`Board::ending`].
#[derive(Debug)]
pub struct Ending<'a>(&'a Board<'a>);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.lock().over = true;
        self.0.wake.notify_all();
    }
}

fn erase(state: &mut BoardState) {
    if state.drawn > 0 {
        err(&format!("\x1b[{}A\r\x1b[J", state.drawn));
        state.drawn = 0;
    }
}

fn draw(state: &mut BoardState, now: Duration) {
    let width = columns();
    let lines = state.table(now);
    let mut frame = String::new();
    if state.drawn > 0 {
        frame.push_str(&format!("\x1b[{}A\r\x1b[J", state.drawn));
    }
    for line in &lines {
        frame.extend(line.trim_end().chars().take(width.saturating_sub(1)));
        frame.push('\n');
    }
    err(&frame);
    state.drawn = lines.len();
}

/// A line for each running drive whose last one is `interval` old.
fn plain(state: &mut BoardState, now: Duration, interval: Duration) {
    let mut reported = false;
    for drive in 0..state.lanes.len() {
        let lane = &mut state.lanes[drive];
        let due = lane.running() && now.saturating_sub(lane.reported_at.unwrap_or_default()) >= interval;
        if due {
            lane.reported_at = Some(now);
            if let Some(line) = state.sentence(drive, now) {
                err(&format!("{line}\n"));
                reported = true;
            }
        }
    }
    if let Some(line) = state.total_sentence(now).filter(|_| reported) {
        err(&format!("{line}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn state(ids: &[&str]) -> BoardState {
        let drives: Vec<_> = ids
            .iter()
            .map(|id| (DriveFacts { drive_id: (*id).into(), ..DriveFacts::default() }, ByteLen(4_000_000_000_000)))
            .collect();
        BoardState::new(&drives)
    }

    fn progress(acknowledged: u64, waiting_for: Waiting) -> Event {
        let (acknowledged, total) = (ByteLen(acknowledged), ByteLen(4_000_000_000_000));
        Event::Progress { drive: 0, acknowledged, total, files: 7, waiting_for }
    }

    #[test]
    fn rates_are_of_the_last_half_minute_and_since_the_start() {
        let mut state = state(&["ZL2ABC12"]);
        state.apply(&Event::Stage { drive: 0, stage: Stage::Data }, seconds(0));
        for second in 0..=100 {
            // 100 MB/s for a minute, then 200.
            let bytes = if second <= 60 { second * 100 } else { 6000 + (second - 60) * 200 };
            state.apply(&progress(bytes * 1_000_000, Waiting::Source), seconds(second));
        }
        let lane = &state.lanes[0];
        assert!((lane.rate(seconds(100)).unwrap() - 200e6).abs() < 1e6);
        assert!((lane.average(seconds(100)).unwrap() - 140e6).abs() < 1e6);
        let left = lane.seconds_left(seconds(100)).unwrap();
        assert!((left - (4e12 - 14e9) / 200e6).abs() < 1.0, "{left}");
        assert!(lane.recent.len() < 40, "memory is bounded");
    }

    #[test]
    fn the_time_left_knows_that_inner_tracks_are_slower() {
        let size = ByteLen(4_000_000_000_000);
        let facts = |rotational| DriveFacts { drive_id: "A".into(), size, rotational, ..DriveFacts::default() };
        let left = |rotational, waiting| {
            let mut state = BoardState::new(&[(facts(rotational), size)]);
            state.apply(&progress(0, waiting), seconds(0));
            state.apply(&progress(2_000_000_000, waiting), seconds(10));
            state.lanes[0].seconds_left(seconds(10)).unwrap()
        };
        let flat = left(Some(false), Waiting::Drive);
        assert!((flat - 3_998e9 / 200e6).abs() < 1.0, "{flat}");
        // The integral of 1 / (1 - x/2) from 0 to 1 is 2 ln 2.
        let platters = left(Some(true), Waiting::Drive);
        assert!((platters / flat - 2.0 * 2f64.ln()).abs() < 0.01, "{platters} {flat}");
        assert!((left(Some(true), Waiting::Source) - flat).abs() < 1.0, "a slow source stays as slow as it is");
        assert!((left(None, Waiting::Drive) - flat).abs() < 1.0);
    }

    #[test]
    fn several_drives_have_a_total_in_words_too() {
        let mut both = state(&["A", "B"]);
        both.apply(&progress(0, Waiting::Drive), seconds(0));
        both.apply(&progress(10_000_000_000, Waiting::Drive), seconds(100));
        let line = both.total_sentence(seconds(100)).unwrap();
        for part in ["total: 0 of 2 done", "10.0 GB of 8.0 TB", "100 MB/s", "left"] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert!(state(&["A"]).total_sentence(seconds(1)).is_none());
    }

    #[test]
    fn a_stalled_drive_shows_a_falling_rate() {
        let mut state = state(&["A"]);
        state.apply(&progress(0, Waiting::Nothing), seconds(0));
        state.apply(&progress(1_000_000_000, Waiting::Drive), seconds(10));
        assert!(state.lanes[0].rate(seconds(100)).unwrap() < 11e6);
    }

    #[test]
    fn no_drive_is_at_a_hundred_before_it_is_durable() {
        let mut state = state(&["A"]);
        state.apply(&progress(4_000_000_000_000, Waiting::Nothing), seconds(5));
        state.apply(&Event::Stage { drive: 0, stage: Stage::Flushing }, seconds(6));
        assert_eq!(state.lanes[0].percent(), 99);
        state.apply(&Event::Stage { drive: 0, stage: Stage::Done }, seconds(7));
        assert_eq!(state.lanes[0].percent(), 100);
    }

    #[test]
    fn the_table_fits_eighty_columns() {
        let mut state = state(&["WD-WX12A345678", "ZL2ABC12"]);
        state.apply(&Event::Stage { drive: 0, stage: Stage::Metadata }, seconds(0));
        state.apply(&progress(0, Waiting::Source), seconds(0));
        state.apply(&progress(123_456_789_012, Waiting::Source), seconds(600));
        state.lanes[0].left_out = 9999;
        let table = state.table(seconds(600));
        assert_eq!(table.len(), 4);
        for line in &table {
            assert!(line.trim_end().chars().count() <= 79, "{line}");
        }
        assert!(table[1].starts_with("…2A345678") || table[1].contains("12A345678"), "{}", table[1]);
        assert!(table[1].contains("source") && table[1].contains("206 MB/s"), "{}", table[1]);
    }

    #[test]
    fn events_of_unknown_drives_do_no_harm() {
        let mut state = state(&[]);
        state.apply(&progress(1, Waiting::Cpu), seconds(1));
        state.apply(&Event::Stage { drive: 9, stage: Stage::Done }, seconds(1));
        assert_eq!(state.table(seconds(1)).len(), 1);
    }

    #[test]
    fn a_sentence_says_all_that_the_table_says() {
        let mut state = state(&["A"]);
        state.apply(&Event::Stage { drive: 0, stage: Stage::Data }, seconds(0));
        state.apply(&progress(0, Waiting::Drive), seconds(0));
        state.apply(&progress(10_000_000_000, Waiting::Drive), seconds(100));
        state.apply(&Event::LeftOut { drive: 0, path: "f".into(), why: "vanished".into() }, seconds(100));
        let line = state.sentence(0, seconds(100)).unwrap();
        for part in ["A: data", "10.0 GB of 4.0 TB", "100 MB/s", "since start", "left", "1 file left out", "the drive"]
        {
            assert!(line.contains(part), "{part}: {line}");
        }
    }

    /// Regression test: one run used to show four rates, mixing bytes written, bytes read back and bytes counted twice.
    #[test]
    fn the_total_never_goes_back_and_the_done_line_has_the_rates_of_the_run() {
        let mut both = state(&["A", "B"]);
        let drives = |drive, acknowledged, total| Event::Progress {
            drive,
            acknowledged: ByteLen(acknowledged),
            total: ByteLen(total),
            files: 0,
            waiting_for: Waiting::Nothing,
        };
        let stage = |drive, stage| Event::Stage { drive, stage };
        let total = |state: &BoardState, now| -> (u64, String) {
            let line = state.total_line(seconds(now));
            (state.lanes.iter().map(|lane| lane.written.0).sum(), line)
        };
        both.apply(&stage(0, Stage::Data), seconds(0));
        both.apply(&drives(0, 0, 1_000_000_000), seconds(0));
        both.apply(&drives(1, 200_000_000, 1_000_000_000), seconds(0));
        both.apply(&drives(0, 990_000_000, 1_000_000_000), seconds(10));
        let (before, _) = total(&both, 10);
        both.apply(&stage(0, Stage::ReadBack), seconds(10));
        assert_eq!((both.lanes[0].acknowledged, both.lanes[0].percent()), (0, 0));
        let (now, line) = total(&both, 11);
        assert!(now >= before && line.contains("59%"), "{line}");
        both.apply(&drives(0, 500_000_000, 500_000_000), seconds(12));
        assert_eq!(total(&both, 12).0, now);
        let table = both.table(seconds(12));
        assert!(table.iter().any(|line| line.starts_with("read back  1 drive")), "{table:?}");
        assert!(both.sentence(0, seconds(12)).unwrap().contains("250 MB/s since it began"));
        both.apply(&stage(0, Stage::Done), seconds(12));
        let line = both.sentence(0, seconds(99)).unwrap();
        for part in ["done, 100% (1.0 GB of 1.0 GB)", "written at 99.0 MB/s", "read back at 250 MB/s"] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert!(!line.contains("since start"), "{line}");
        // Resumed at 200 MB, and stopped by hand.
        both.apply(&drives(1, 300_000_000, 1_000_000_000), seconds(10));
        both.apply(&stage(1, Stage::Stopped), seconds(10));
        let line = both.sentence(1, seconds(99)).unwrap();
        assert!(line.contains("stopped, 30%") && line.contains("written at 10.0 MB/s"), "{line}");
        assert!(!both.table(seconds(12)).concat().contains("FAILED"));
    }
}
