//! Drives as a whole: erased, kept as images, written from them, compared.

pub mod acquire;
mod certificate;
pub mod compare;
pub mod erase;
pub mod write;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use dray_engine::api::prepare::{Stop, Workers};
use dray_engine::report::{DriveFacts, Event, Kind, Notice, Problem};
use dray_engine::units::{ByteLen, DeviceRange};
use serde_json::{Value, json};

use crate::render::{Output, watched};
use crate::signals::Signals;

/// Places that are named one by one.
const SHOWN_MAX: usize = 20;

/// Runs work on drives with a board that shows it: `doing` names it to who waits.
fn on_board<T: Send>(
    output: &Output,
    signals: &Signals,
    doing: &str,
    drives: Vec<(DriveFacts, ByteLen)>,
    work: impl FnOnce(&Workers, &Stop, &(dyn Fn(Event) + Sync)) -> T + Send,
) -> Result<T, Problem> {
    let workers = Workers::start(std::thread::available_parallelism().map_or(1, Into::into))
        .map_err(|error| Problem::new(Kind::Environment, format!("no threads for hashing: {error}")))?;
    let board = output.board(drives);
    signals.writing.store(true, Ordering::Release);
    let done = std::thread::scope(|scope| {
        let ticker = scope.spawn(|| board.tick(signals));
        let end = board.ending();
        let done = watched(
            doing,
            |text| board.event(Event::Warning(Notice::session(text))),
            |beat| {
                work(&workers, &signals.stop, &|event: Event| {
                    beat();
                    board.event(event);
                })
            },
        );
        drop(end);
        // A ticker that panicked has said so; the drives matter more.
        let _ = ticker.join();
        done
    });
    signals.writing.store(false, Ordering::Release);
    Ok(done)
}

/// Ranges as pairs of start and length.
fn pairs(ranges: &[DeviceRange]) -> Value {
    ranges.iter().map(|range| json!([range.start.0, range.len.0])).collect()
}

/// Ranges in words, the first of them.
fn places(ranges: &[DeviceRange]) -> String {
    let named = ranges.iter().take(SHOWN_MAX).map(|range| format!("{} bytes at {}", range.len.0, range.start));
    let mut text = named.collect::<Vec<_>>().join("; ");
    if ranges.len() > SHOWN_MAX {
        text.push_str(&format!("; and {} more", ranges.len() - SHOWN_MAX));
    }
    text
}

/// Bytes in all of them.
fn sum(ranges: &[DeviceRange]) -> ByteLen {
    ByteLen(ranges.iter().map(|range| range.len.0).sum())
}

fn no_signals(error: &std::io::Error) -> Problem {
    Problem::new(Kind::Environment, format!("signals cannot be caught: {error}"))
}

/// The path with an ending more.
fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}
