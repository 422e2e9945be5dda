//! `dray bench`: the speed of a drive, dock or cable, measured before a ten-hour job depends on it.

mod compare;

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;
use dray_engine::api;
use dray_engine::api::host::Outputs;
use dray_engine::api::measure::{Bench, BenchReport, BenchRequest, Bottleneck, Direction, LinkCounters, Point};
use dray_engine::api::prepare::{Cipher, EngineChoice};
use dray_engine::report::{DriveFacts, Kind, Problem, Problems};
use serde_json::{Value, json};

use crate::args::size;
use crate::consent::{self, Consent, Terminal};
use crate::exit::Exit;
use crate::render::bench::{self, megabytes, verdict, word};
use crate::render::text::{clean, left, tail};
use crate::render::{Output, count, json as object, page};
use crate::signals::{self, Signals};

const EXAMPLE: &str = "\
Examples:
  dray bench /dev/sdb --curve 32
  dray bench /dev/sdb /dev/sdc --minutes 30 --require 150MB/s";

/// Length of the measurement of all drives at once, in single ones.
const TOGETHER: f64 = 3.0;

/// Share of what a drive gave at first below which it fell.
const FALL: f64 = 0.7;

/// Arguments of `dray bench`.
#[derive(Args, Clone, Debug)]
#[command(after_help = format!("Reading is harmless. --write destroys what is on the drives, and asks first.\n\n{EXAMPLE}"))]
pub struct BenchArgs {
    /// Drives or image files: each alone, then all at once
    #[arg(value_name = "DRIVE", required = true)]
    drives: Vec<PathBuf>,
    /// Write too; everything on the drives is destroyed
    #[arg(long)]
    write: bool,
    /// Full serial of a drive that may be destroyed
    #[arg(long, value_name = "SERIAL", value_delimiter = ',')]
    yes: Vec<String>,
    /// Seconds for each measurement
    #[arg(long, value_name = "SECONDS", default_value = "2")]
    seconds: f64,
    /// Go on for so many minutes, all drives at once: a cache that runs full, a dock that grows hot
    #[arg(long, value_name = "MINUTES", value_parser = minutes)]
    minutes: Option<f64>,
    /// Rate that each drive must keep up, for example 150MB/s; else exit code 4
    #[arg(long, value_name = "RATE", value_parser = size::rate)]
    require: Option<u64>,
    /// Compare with an earlier measurement: a file with what --json printed
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Block sizes to try
    #[arg(long, value_name = "SIZE", value_delimiter = ',', value_parser = size::block, default_value = "1M,4M,8M")]
    blocks: Vec<usize>,
    /// Operations in flight to try
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,4,8")]
    depths: Vec<u32>,
    /// Points of the curve across the surface, 0 for none
    #[arg(long, value_name = "N", default_value = "11")]
    curve: u32,
    /// Write the figures as a page with curves; of one drive
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Cipher of the combined measurement
    #[arg(long, value_name = "CIPHER", default_value = "aes-cbc-256")]
    cipher: String,
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes = text.parse::<f64>().ok().filter(|minutes| (0.01..=1e5).contains(minutes));
    minutes.ok_or_else(|| "use a number of minutes, for example 30".into())
}

impl BenchArgs {
    /// Measures and prints the results.
    pub fn run(self, output: &Output) -> Exit {
        match self.measure(output) {
            Ok(exit) => exit,
            Err(problems) => {
                output.problems(&problems);
                Exit::of_problems(&problems)
            }
        }
    }

    fn measure(self, output: &Output) -> Result<Exit, Problems> {
        let cipher = Cipher::from_name(&self.cipher).ok_or_else(|| {
            Problem::new(Kind::Usage, "unknown cipher")
                .value(&self.cipher)
                .advice("one of aes-cbc-256, aes-cbc-128, xts-aes-128, xts-aes-256")
        })?;
        if self.report.is_some() && self.drives.len() > 1 {
            let problem = Problem::new(Kind::Usage, "a page shows one drive").column("--report");
            return Err(problem.advice("leave --report away, or measure one drive; --json has all figures").into());
        }
        let earlier = self.compare.as_deref().map(compare::read).transpose()?;
        let mut outputs = Outputs::default();
        self.drives.iter().for_each(|drive| outputs.input(drive, "the drive"));
        self.compare.iter().for_each(|path| outputs.input(path, "the earlier measurement"));
        let page = self.report.as_deref().map(|path| outputs.begin(path, page::FORM)).transpose()?;
        let benches = self.open(cipher)?;
        self.agree(&benches)?;

        // A drive that was written to is left in order, whatever ends the measurement.
        let signals = Signals::install(signals::BENCH)
            .map_err(|error| Problem::new(Kind::Environment, format!("signals cannot be caught: {error}")))?;
        signals.writing.store(true, Ordering::Release);
        let working = output.working();
        let shown = |text: String| {
            // The figures are printed once, at the end; this line shows progress.
            if !output.is_json() {
                working.show(|| text, "bench", || Value::Null);
            }
        };
        let mut reports = Vec::new();
        for bench in &benches {
            let name = &bench.drive().name;
            reports
                .push(bench.run(&signals.stop, &mut |point| shown(format!("{name}: {}", line(point).trim_start())))?);
        }
        if (benches.len() > 1 || self.minutes.is_some()) && !signals.stop.requested() {
            let seconds = self.minutes.map_or(self.seconds * TOGETHER, |minutes| minutes * 60.0);
            let drives = count(benches.len() as u64, "drive");
            shown(format!("{drives} at once, for {}", left(Duration::from_secs_f64(seconds))));
            api::measure::together(&benches, &mut reports, Duration::from_secs_f64(seconds), &signals.stop)?;
        }
        drop(working);
        if let (Some(file), Some(report)) = (page, reports.first()) {
            bench::page(report).save(file)?;
        }
        let compared: Vec<Option<compare::Compared>> =
            reports.iter().map(|report| earlier.as_ref().and_then(|earlier| earlier.with(report))).collect();
        self.tell(&reports, &compared, output);
        if signals.stop.requested() {
            return Ok(Exit::Interrupted);
        }
        let Some(least) = self.require else { return Ok(Exit::Done) };
        Problems(reports.iter().filter_map(|report| too_slow(report, least)).collect()).into_result()?;
        Ok(Exit::Done)
    }

    /// Opens all drives, each once.
    fn open(&self, cipher: Cipher) -> Result<Vec<Bench>, Problems> {
        let (mut benches, mut problems) = (Vec::new(), Problems::default());
        for drive in &self.drives {
            let opened = Bench::open(BenchRequest {
                drive: drive.clone(),
                write: self.write,
                seconds: self.seconds,
                blocks: self.blocks.clone(),
                depths: self.depths.clone(),
                curve: self.curve,
                engine: EngineChoice::Auto,
                cipher,
            });
            match opened {
                Ok(bench) if benches.iter().any(|other: &Bench| other.drive().path == bench.drive().path) => {
                    problems.push(Problem::new(Kind::Usage, "is named twice").drive(&bench.drive().name));
                }
                Ok(bench) => benches.push(bench),
                Err(more) => problems.0.extend(more.0),
            }
        }
        problems.into_result()?;
        Ok(benches)
    }

    /// Obtains consent for what is overwritten.
    fn agree(&self, benches: &[Bench]) -> Result<(), Problems> {
        let consent = Consent { silent: false, serials: self.yes.clone() };
        let facts: Vec<&DriveFacts> = benches.iter().map(Bench::drive).collect();
        consent::known(&consent, &facts, &[])?;
        let asked = benches.iter().enumerate().filter(|(_, bench)| bench.needs_consent());
        let asked: Vec<_> = asked.map(|(i, bench)| consent::Asked::destroyed(i, bench.drive())).collect();
        consent::gather(&asked, &consent, &mut Terminal)?;
        Ok(())
    }

    fn tell(&self, reports: &[BenchReport], compared: &[Option<compare::Compared>], output: &Output) {
        let objects = reports.iter().zip(compared).map(|(report, compared)| to_json(report, compared.as_ref()));
        let objects: Vec<Value> = objects.collect();
        let is_told = match &objects[..] {
            [one] => output.result("bench", one.clone()),
            several => {
                if output.is_json() {
                    several.iter().for_each(|one| output.object("bench", one.clone()));
                }
                output.result("bench-together", together_json(reports))
            }
        };
        if is_told {
            return;
        }
        for (report, compared) in reports.iter().zip(compared) {
            output.say(&table(report));
            match compared {
                Some(compared) => output.say(&compared.text()),
                None if self.compare.is_some() => {
                    output.say(&format!("  no earlier measurement of {} is in the file\n", report.drive.drive_id));
                }
                None => {}
            }
            output.say("\n");
        }
        if reports.len() > 1 {
            output.say(&together_text(reports));
        }
    }
}

/// Rates of a report that are compared with the requirement: the direction that matters, alone and together, and its
/// slowest stretch.
fn slowest(report: &BenchReport) -> f64 {
    let direction = report.directions().last().unwrap_or(Direction::Read);
    let alone = report.best(direction).map_or(0.0, Point::rate);
    report.run.as_ref().map_or(alone, |run| run.slowest().min(alone))
}

fn too_slow(report: &BenchReport, least: u64) -> Option<Problem> {
    let rate = slowest(report);
    (rate < least as f64).then(|| {
        let at_once = report.run.as_ref().is_some_and(|run| run.slowest() <= rate);
        let what = if at_once { "is slower than required, at least for a while" } else { "is slower than required" };
        Problem::new(Kind::Drive, what)
            .drive(&report.drive.name)
            .value(format!("{}; {} are required", megabytes(rate), megabytes(least as f64)))
            .advice("try another cable, port or dock, or fewer drives at once")
    })
}

/// Rate of all drives at once, and what they give one by one.
fn totals(reports: &[BenchReport]) -> Option<(f64, f64)> {
    let mut sums = (0.0, 0.0);
    for report in reports {
        let run = report.run.as_ref()?;
        sums.0 += run.point.rate();
        sums.1 += report.best(run.point.direction).map_or(0.0, Point::rate);
    }
    Some(sums)
}

fn together_json(reports: &[BenchReport]) -> Value {
    let totals = totals(reports);
    let drives = reports.iter().map(
        |report| json!({ "drive_id": report.drive.drive_id, "rate": report.run.as_ref().map(|run| run.point.rate()) }),
    );
    json!({
        "drives": drives.collect::<Vec<_>>(),
        "rate": totals.map(|(together, _)| together),
        "rate_alone": totals.map(|(_, alone)| alone),
    })
}

fn together_text(reports: &[BenchReport]) -> String {
    let mut out = format!("{} at once\n", count(reports.len() as u64, "drive"));
    for report in reports {
        let Some(run) = &report.run else { continue };
        let alone = report.best(run.point.direction).map_or(0.0, Point::rate);
        out.push_str(&format!(
            "  {:<24} {:>12}   alone {}\n",
            tail(&clean(&report.drive.name), 24),
            megabytes(run.point.rate()),
            megabytes(alone)
        ));
    }
    if let Some((together, alone)) = totals(reports) {
        let share = 100.0 * together / alone.max(1.0);
        out.push_str(&format!(
            "  {:<24} {:>12}   {share:.0} % of what they give one by one ({})\n",
            "all",
            megabytes(together),
            megabytes(alone)
        ));
    }
    out
}

fn run_text(report: &BenchReport) -> String {
    let Some(run) = &report.run else { return String::new() };
    let mut out = format!("\nFor {} ({})\n", left(run.point.elapsed), word(run.point.direction));
    let most = run.rates().fold(1.0, f64::max);
    let mut at = Duration::ZERO;
    for ((time, _), rate) in run.stretches.iter().zip(run.rates()) {
        at += *time;
        let bar = "#".repeat((rate / most * 40.0).round() as usize);
        out.push_str(&format!("  {:>8}{:>12}  {bar}\n", left(at), megabytes(rate)));
    }
    if let Some((when, rate)) = run.fall(FALL) {
        let first = run.rates().next().unwrap_or_default();
        out.push_str(&format!(
            "  The drive falls from {} to {} after {}: its cache is full, or it or its dock is hot\n",
            megabytes(first),
            megabytes(rate),
            left(when)
        ));
    }
    out
}

fn link_text(link: &LinkCounters) -> String {
    let told =
        [("errors on the cable", link.cable_errors), ("failed commands", link.failed), ("time-outs", link.timeouts)];
    let told: Vec<String> =
        told.into_iter().filter_map(|(what, count)| count.map(|count| format!("{count} {what}"))).collect();
    match told.is_empty() {
        true => String::new(),
        false => format!("  The link meanwhile: {}\n", told.join(", ")),
    }
}

fn line(point: &Point) -> String {
    let direction = word(point.direction);
    let [half, most, all] = point.latency.map(|latency| latency.as_secs_f64() * 1e3);
    format!(
        "  {direction:<6}{:>6} KiB x{:<3}{:>12}   {half:.1} / {most:.1} / {all:.1} ms",
        point.block >> 10,
        point.depth,
        megabytes(point.rate()),
    )
}

fn table(report: &BenchReport) -> String {
    let mut out =
        format!("{}: {}\n  {}\n  engine {}\n", report.drive.name, report.drive.size, report.queue, report.engine);
    out.push_str("\nSweep from the start of the drive (latency: median / 99 % / worst)\n");
    report.sweep.iter().for_each(|point| out.push_str(&format!("{}\n", line(point))));
    if !report.curve.is_empty() {
        out.push_str("\nAcross the surface\n");
        let most = report.curve.iter().map(Point::rate).fold(1.0, f64::max);
        for point in &report.curve {
            let bar = "#".repeat((point.rate() / most * 40.0).round() as usize);
            let percent = 100.0 * point.at.0 as f64 / report.drive.size.0 as f64;
            out.push_str(&format!("  {percent:>5.1} %{:>12}  {bar}\n", megabytes(point.rate())));
        }
    }
    out.push_str("\nThrough hash and cipher\n");
    report.road.iter().for_each(|point| out.push_str(&format!("{}\n", line(point))));
    for direction in report.directions() {
        let (subject, sentence) = verdict(report, direction);
        out.push_str(&format!("  {subject} {sentence}\n"));
    }
    out.push_str(&run_text(report));
    out.push_str(&link_text(&report.link));
    for note in &report.notes {
        out.push_str(&format!("note: {note}\n"));
    }
    out
}

fn to_json(report: &BenchReport, compared: Option<&compare::Compared>) -> Value {
    let point = |point: &Point| {
        json!({
            "direction": word(point.direction),
            "block": point.block,
            "depth": point.depth,
            "offset": point.at.0,
            "bytes": point.bytes.0,
            "seconds": point.elapsed.as_secs_f64(),
            "rate": point.rate(),
            "latency_seconds": point.latency.map(|latency| latency.as_secs_f64()),
        })
    };
    let points = |points: &[Point]| points.iter().map(point).collect::<Vec<_>>();
    json!({
        "drive": object::facts(&report.drive),
        "engine": report.engine,
        "direct": report.direct,
        "sweep": points(&report.sweep),
        "curve": points(&report.curve),
        "road": points(&report.road),
        "cores": report.cores,
        "directions": report.directions().map(|direction| {
            let load = report.load(direction);
            json!({
                "direction": word(direction),
                "core_rate": report.core_rate(direction),
                "drives_at_once": report.drives_at_once(direction),
                "bottleneck": load.map(|load| match load.bottleneck {
                    Bottleneck::Drive => "drive",
                    Bottleneck::Cores => "cores",
                    Bottleneck::Neither => "neither",
                }),
                "drive_share": load.map(|load| load.drive),
                "cores_share": load.map(|load| load.cores),
            })
        }).collect::<Vec<_>>(),
        "run": report.run.as_ref().map(|run| json!({
            "whole": point(&run.point),
            "stretches": run.stretches.iter().zip(run.rates()).map(|((time, bytes), rate)| {
                json!({ "seconds": time.as_secs_f64(), "bytes": bytes.0, "rate": rate })
            }).collect::<Vec<_>>(),
            "slowest": run.slowest(),
            "fall": run.fall(FALL).map(|(when, rate)| json!({ "after_seconds": when.as_secs_f64(), "rate": rate })),
        })),
        "link": {
            "cable_errors": report.link.cable_errors,
            "failed": report.link.failed,
            "timeouts": report.link.timeouts,
        },
        "compared": compared.map(compare::Compared::json),
        "notes": report.notes,
    })
}
