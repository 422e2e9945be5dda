//! A measurement against an earlier one of the same drive: another cable, dock, port or kernel.

use std::path::Path;

use dray_engine::api::host::{Pipes, read_input};
use dray_engine::api::measure::{BenchReport, Point};
use dray_engine::report::{Kind, Problem};
use serde_json::{Value, json};

use crate::render::bench::{megabytes, word};

/// Longest file with earlier measurements.
const FILE_LEN_MAX: u64 = 64 << 20;

/// Earlier measurements, as `--json` printed them.
#[derive(Debug)]
pub struct Earlier(Vec<Value>);

/// Values that were measured twice.
#[derive(Debug)]
pub struct Compared {
    /// Time at which the earlier measurement ended.
    at: String,
    /// Name of the value, the earlier rate and the present rate, in bytes a second.
    rates: Vec<(String, f64, f64)>,
}

/// Reads the measurements of a file; of one drive the last counts.
///
/// # Errors
/// A file that cannot be read, or holds none.
pub fn read(path: &Path) -> Result<Earlier, Problem> {
    let problem = |what: String| Problem::new(Kind::Usage, what).path(path).column("--compare");
    let bytes =
        read_input(path, FILE_LEN_MAX, Pipes::Taken).map_err(|error| problem(format!("cannot be read: {error}")))?;
    let text = String::from_utf8_lossy(&bytes);
    let objects = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let found: Vec<Value> = objects.filter(|object| object["type"] == "bench").collect();
    if found.is_empty() {
        return Err(problem("holds no measurement".into()).advice("name a file with what `dray bench --json` printed"));
    }
    Ok(Earlier(found))
}

impl Earlier {
    /// Values of a report that were measured before.
    pub fn with(&self, report: &BenchReport) -> Option<Compared> {
        let is_it = |object: &&Value| object["drive"]["drive_id"].as_str() == Some(&report.drive.drive_id);
        let then = self.0.iter().rev().find(is_it)?;
        let best = |points: &Value, direction: &str| {
            let points = points.as_array()?.iter().filter(|point| point["direction"] == direction);
            points.filter_map(|point| point["rate"].as_f64()).max_by(f64::total_cmp)
        };
        let mut rates = Vec::new();
        for direction in report.directions() {
            let name = word(direction);
            let road = report.road.iter().find(|point| point.direction == direction);
            let measured = [
                (name.to_owned(), best(&then["sweep"], name), report.best(direction)),
                (format!("{name}, hash and cipher"), best(&then["road"], name), road),
            ];
            rates.extend(
                measured.into_iter().filter_map(|(what, then, now)| Some((what, then?, now.map(Point::rate)?))),
            );
        }
        let (then_run, now_run) = (then["run"]["whole"]["rate"].as_f64(), report.run.as_ref());
        rates.extend(then_run.zip(now_run).map(|(then, run)| ("all at once".to_owned(), then, run.point.rate())));
        Some(Compared { at: then["at"].as_str().unwrap_or("an earlier time").to_owned(), rates })
    }
}

impl Compared {
    /// For people.
    pub fn text(&self) -> String {
        let mut out = format!("\nAgainst {}\n", self.at);
        for (what, then, now) in &self.rates {
            let change = 100.0 * (now / then.max(1.0) - 1.0);
            out.push_str(&format!(
                "  {what:<24}{:>12} then{:>12} now  {change:+.0} %\n",
                megabytes(*then),
                megabytes(*now)
            ));
        }
        out
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let rates = self.rates.iter().map(|(what, then, now)| json!({ "what": what, "then": then, "now": now }));
        json!({ "at": self.at, "rates": rates.collect::<Vec<_>>() })
    }
}
