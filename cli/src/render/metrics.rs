//! `--metrics-file`: the progress of a run in Prometheus' text format, for node_exporter's textfile collector.
//!
//! The collector reads every `*.prom` file of its directory whenever it is scraped, so the file is always a complete one:
//! each state goes to a new file, which is renamed. The format: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dray_engine::api::host::{OutputForm, Outputs};
use dray_engine::report::{Problem, Stage};

use super::json::stage as stage_name;
use crate::exit::Exit;

/// Time between two states in the file, unless `--progress-every` says otherwise. Prometheus scrapes every 15 s or less
/// often.
const INTERVAL: Duration = Duration::from_secs(10);

/// First words of the file, by which an earlier one is recognised.
const HEAD: &str = "# HELP dray_";

const FORM: OutputForm =
    OutputForm { name: "the metrics", is_earlier: |head| head.starts_with(HEAD.as_bytes()), private: false };

/// One drive, as far as monitoring wants to know it.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Drive id, or the name of a drive without one.
    pub drive: String,
    /// Present stage; `None` before the first.
    pub stage: Option<Stage>,
    /// Bytes of the stage that the drive acknowledged.
    pub acknowledged: u64,
    /// Bytes of the stage.
    pub total: u64,
    /// Bytes a second lately.
    pub rate: Option<f64>,
    /// Estimate of the time that the stage still takes.
    pub seconds_left: Option<f64>,
    /// Files written or verified.
    pub files: u64,
    /// Files left out.
    pub left_out: u64,
}

/// The file and what it holds.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    command: String,
    began: f64,
    interval: Duration,
    drives: Mutex<Vec<Sample>>,
}

impl Metrics {
    /// Writes the first state, which shows that the file can be written.
    ///
    /// # Errors
    /// `Environment`: the file cannot be written; `Refused`: it is a file of another kind.
    pub fn begin(path: PathBuf, command: &str, every: Option<Duration>) -> Result<Self, Problem> {
        let metrics = Self {
            path,
            command: command.to_owned(),
            began: jiff::Timestamp::now().as_duration().as_secs_f64(),
            interval: every.unwrap_or(INTERVAL),
            drives: Mutex::default(),
        };
        metrics.write(None)?;
        Ok(metrics)
    }

    /// Time between two states.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Replaces the file by one with this state of the drives. Drives that are not named keep theirs: a command may do
    /// one after the other.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn update(&self, drives: Vec<Sample>) -> Result<(), Problem> {
        let mut all = self.drives.lock().unwrap_or_else(PoisonError::into_inner);
        for one in drives {
            match all.iter_mut().find(|known| known.drive == one.drive) {
                Some(known) => *known = one,
                None => all.push(one),
            }
        }
        drop(all);
        self.write(None)
    }

    /// The last state, with the exit code.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn end(&self, exit: Exit) -> Result<(), Problem> {
        self.write(Some(exit.code()))
    }

    fn write(&self, exit: Option<u8>) -> Result<(), Problem> {
        let drives = self.drives.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut file = Outputs::default().begin(&self.path, FORM)?;
        file.add(text(&self.command, self.began, exit, &drives).as_bytes())?;
        file.finish()
    }
}

/// Value of a label: backslash, quote and line feed are escaped.
fn label(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Every metric of the file, each with its samples together, as the format wants it.
fn text(command: &str, began: f64, exit: Option<u8>, drives: &[Sample]) -> String {
    let mut out = String::new();
    let mut family = |name: &str, help: &str, samples: &mut dyn Iterator<Item = (String, f64)>| {
        let mut samples = samples.peekable();
        if samples.peek().is_none() {
            return;
        }
        // Writing to a string cannot fail.
        let _ = write!(out, "# HELP dray_{name} {help}\n# TYPE dray_{name} gauge\n");
        for (labels, value) in samples {
            let _ = writeln!(out, "dray_{name}{{{labels}}} {value}");
        }
    };
    let run = format!("command=\"{}\"", label(command));
    family("run_start_timestamp_seconds", "Time at which the run began.", &mut std::iter::once((run.clone(), began)));
    let running = f64::from(u8::from(exit.is_none()));
    family("run_active", "1 while the run lasts, 0 when it has ended.", &mut std::iter::once((run.clone(), running)));
    family(
        "run_exit_code",
        "Exit code of the run, once it has ended.",
        &mut exit.map(|code| (run, code.into())).into_iter(),
    );
    let drive = |sample: &Sample| format!("drive=\"{}\"", label(&sample.drive));
    let mut each = |name: &str, help: &str, of: &dyn Fn(&Sample) -> Option<f64>| {
        family(name, help, &mut drives.iter().filter_map(|sample| Some((drive(sample), of(sample)?))));
    };
    each("drive_acknowledged_bytes", "Bytes of the present stage that the drive acknowledged.", &|one| {
        Some(one.acknowledged as f64)
    });
    each("drive_planned_bytes", "Bytes of the present stage.", &|one| Some(one.total as f64));
    each("drive_rate_bytes_per_second", "Rate over the last 30 seconds.", &|one| one.rate);
    each("drive_left_seconds", "Estimate of the time that the stage still takes.", &|one| one.seconds_left);
    each("drive_files", "Files written or verified.", &|one| Some(one.files as f64));
    each("drive_left_out_files", "Files left out because they vanished or changed.", &|one| Some(one.left_out as f64));
    each("drive_failed", "1 if the drive failed.", &|one| Some(f64::from(u8::from(one.stage == Some(Stage::Failed)))));
    family(
        "drive_stage",
        "The stage of the drive, as a label.",
        &mut drives.iter().map(|one| {
            let stage = one.stage.map_or("waiting", stage_name);
            (format!("{},stage=\"{}\"", drive(one), label(stage)), 1.0)
        }),
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_one_block_and_labels_are_escaped() {
        let drives = [
            Sample {
                drive: "WD\"1\\".into(),
                stage: Some(Stage::Data),
                acknowledged: 7,
                total: 9,
                ..Sample::default()
            },
            Sample { drive: "WD2".into(), stage: Some(Stage::Failed), rate: Some(1.5), ..Sample::default() },
        ];
        let text = text("prep-import", 12.5, None, &drives);
        assert!(text.starts_with(HEAD));
        assert!(text.contains("dray_run_start_timestamp_seconds{command=\"prep-import\"} 12.5\n"), "{text}");
        assert!(text.contains("dray_drive_acknowledged_bytes{drive=\"WD\\\"1\\\\\"} 7\n"), "{text}");
        assert!(text.contains("dray_drive_failed{drive=\"WD2\"} 1\n"), "{text}");
        assert!(!text.contains("exit_code"), "{text}");
        // Unknown rates have no sample, and a family without samples has no head.
        assert!(!text.contains("drive_left_seconds"), "{text}");
        assert_eq!(text.matches("dray_drive_rate_bytes_per_second{").count(), 1);
        let mut seen = std::collections::HashSet::new();
        let mut last = "";
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split('{').next().expect("a name");
            assert!(name == last || seen.insert(name), "{name} is in two blocks");
            last = name;
        }
    }

    #[test]
    fn the_exit_code_comes_with_the_end() {
        let text = text("verify", 1.0, Some(4), &[]);
        assert!(
            text.contains("dray_run_active{command=\"verify\"} 0\n")
                && text.contains("exit_code{command=\"verify\"} 4\n")
        );
    }
}
