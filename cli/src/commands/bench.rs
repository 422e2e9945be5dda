//! `dray bench`: the speed of a drive, dock or cable, measured before a ten-hour job depends on it.

use std::path::PathBuf;

use clap::Args;
use dray_engine::job::{Bench, BenchReport, BenchRequest, Bottleneck, Cipher, EngineChoice, Outputs, Point, Stop};
use dray_engine::report::{Kind, Problem, Problems};
use serde_json::{Value, json};

use crate::args::size;
use crate::consent::{self, Consent, Terminal};
use crate::exit::Exit;
use crate::render::bench::{self, megabytes, verdict, word};
use crate::render::{Output, json as object, page};

/// Arguments of `dray bench`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Reading is harmless. --write destroys what is on the drive, and asks first.\n\nExample:\n  dray bench /dev/sdb --curve 32"
)]
pub struct BenchArgs {
    /// Drive or image file
    #[arg(value_name = "DRIVE")]
    drive: PathBuf,
    /// Write too; everything on the drive is destroyed
    #[arg(long)]
    write: bool,
    /// Full serial of the drive that may be destroyed
    #[arg(long, value_name = "SERIAL")]
    yes: Vec<String>,
    /// Seconds for each measurement
    #[arg(long, value_name = "SECONDS", default_value = "2")]
    seconds: f64,
    /// Block sizes to try
    #[arg(long, value_name = "SIZE", value_delimiter = ',', value_parser = size::block, default_value = "1M,4M,8M")]
    blocks: Vec<usize>,
    /// Operations in flight to try
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,4,8")]
    depths: Vec<u32>,
    /// Points of the curve across the surface, 0 for none
    #[arg(long, value_name = "N", default_value = "11")]
    curve: u32,
    /// Write the figures as a page with curves
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Cipher of the combined measurement
    #[arg(long, value_name = "CIPHER", default_value = "aes-cbc-256")]
    cipher: String,
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
        let mut outputs = Outputs::default();
        outputs.input(&self.drive, "the drive");
        let page = self.report.as_deref().map(|path| outputs.begin(path, page::FORM)).transpose()?;
        let bench = Bench::open(BenchRequest {
            drive: self.drive,
            write: self.write,
            seconds: self.seconds,
            blocks: self.blocks,
            depths: self.depths,
            curve: self.curve,
            engine: EngineChoice::Auto,
            cipher,
        })?;
        let consent = Consent { silent: false, serials: self.yes };
        consent::known(&consent, &[bench.drive()], &[])?;
        if bench.needs_consent() {
            consent::gather(&[consent::Asked::destroyed(0, bench.drive())], &consent, &mut Terminal)?;
        }
        let working = output.working();
        let report = bench.run(&Stop::new(), &mut |point| {
            // The figures are printed once, at the end; this line shows progress.
            if !output.is_json() {
                working.show(|| line(point).trim_start().to_owned(), "bench", || Value::Null);
            }
        })?;
        drop(working);
        if let Some(file) = page {
            bench::page(&report).save(file)?;
        }
        if !output.result("bench", to_json(&report)) {
            output.say(&table(&report));
        }
        Ok(Exit::Done)
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
    for note in &report.notes {
        out.push_str(&format!("note: {note}\n"));
    }
    out
}

fn to_json(report: &BenchReport) -> Value {
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
        "notes": report.notes,
    })
}
