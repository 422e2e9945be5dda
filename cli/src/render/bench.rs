//! Results of a drive benchmark, as sentences and as a page with curves.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use dray_engine::api::measure::{BenchReport, Bottleneck, Direction, Point};

use super::count;
use super::page::{Column, Page, Tone};

/// Width of every figure; its height is its own.
const WIDTH: f64 = 880.0;

/// Room for the labels of an axis.
const LEFT: f64 = 74.0;

/// Room to the right of a curve, for its labels.
const RIGHT: f64 = 96.0;

/// Colours of series, as the pages' style names them.
const COLORS: [&str; 5] = ["--c1", "--c2", "--c3", "--c4", "--c5"];

/// The direction's name.
pub fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Read => "read",
        Direction::Write => "write",
    }
}

/// A rate, for people.
pub fn megabytes(rate: f64) -> String {
    format!("{:.0} MB/s", rate / 1e6)
}

fn cores(report: &BenchReport) -> String {
    count(report.cores as u64, "core")
}

/// The bottleneck, as a word and as a sentence.
pub fn verdict(report: &BenchReport, direction: Direction) -> (&'static str, String) {
    let (does, many) = match direction {
        Direction::Read => ("opens and hashes", "reads"),
        Direction::Write => ("hashes and seals", "feeds"),
    };
    let core = format!("one core {does} {}", megabytes(report.core_rate(direction)));
    let machine = match report.drives_at_once(direction) {
        Some(drives) if drives >= 2.0 => format!("this machine {many} {:.0} such drives at once", drives.floor()),
        Some(drives) if drives >= 1.0 => format!("this machine {many} one such drive at a time"),
        Some(drives) => {
            let keep = if report.cores == 1 { "keeps" } else { "keep" };
            format!("its {} {keep} up with {:.0} % of one such drive", cores(report), 100.0 * drives)
        }
        None => String::new(),
    };
    match report.load(direction) {
        Some(load) => {
            let [drive, busy] = [load.drive, load.cores].map(|share| 100.0 * share.min(1.0));
            let (cores, are) = (cores(report), if report.cores == 1 { "is" } else { "are" });
            let (what, shares) = match load.bottleneck {
                Bottleneck::Drive => ("The drive", format!("used to {drive:.0} %, the {cores} to {busy:.0} %")),
                Bottleneck::Cores => {
                    ("The processor", format!("its {cores} {are} used to {busy:.0} %, the drive to {drive:.0} %"))
                }
                Bottleneck::Neither => (
                    "Neither drive nor processor",
                    format!("the drive is used to {drive:.0} %, the {cores} to {busy:.0} %"),
                ),
            };
            (what, format!("is the bottleneck ({}): {shares}; {core}, {machine}", word(direction)))
        }
        None => ("Not measured:", format!("{core}, {machine}")),
    }
}

/// The figures as a page: bottleneck, sweep, curve across the surface.
pub fn page(report: &BenchReport) -> Page {
    let name = report.drive.model.as_deref().unwrap_or(&report.drive.name);
    let mut page = Page::new(&format!("What {name} gives"), &report.drive.size.to_string());
    for direction in report.directions() {
        let (what, sentence) = verdict(report, direction);
        page.verdict(Tone::Plain, what, &sentence);
    }
    page.facts([
        ("Drive", report.drive.name.clone()),
        ("Serial or id", report.drive.drive_id.clone()),
        ("Queue", report.queue.clone()),
        ("Engine", report.engine.clone()),
        ("Page cache", if report.direct { "bypassed" } else { "in the way" }.to_owned()),
    ]);
    if !report.curve.is_empty() {
        page.section("Across the surface");
        let direction = report.curve.first().map_or("read", |point| word(point.direction));
        page.figure(
            &surface(report),
            &format!("Throughput ({direction}) from the first byte of the drive to the last."),
        );
    }
    page.section("Through hash and cipher");
    page.figure(&road(report), "What the drive gives alone, what the cores do alone, and both together.");
    for direction in report.directions() {
        page.section(&format!("Block size and depth: {}", word(direction)));
        page.figure(&sweep(report, direction), "Throughput at the start of the drive, by operations in flight.");
        page.figure(&latency(report, direction), "Latency of one operation: median, 99 % and the worst.");
    }
    page.section("Every figure");
    let columns = [
        Column::text("What"),
        Column::number("At"),
        Column::number("Block"),
        Column::number("In flight"),
        Column::number("Throughput"),
        Column::number("Median"),
        Column::number("99 %"),
        Column::number("Worst"),
    ];
    let groups = [("sweep", &report.sweep), ("surface", &report.curve), ("hash and cipher", &report.road)];
    let rows: Vec<Vec<String>> = groups
        .into_iter()
        .flat_map(|(group, points)| points.iter().map(move |point| row(group, point, report.drive.size.0)))
        .collect();
    page.table(&columns, &rows);
    for note in &report.notes {
        page.note(note);
    }
    page
}

fn row(group: &str, point: &Point, size: u64) -> Vec<String> {
    let mut row = vec![
        format!("{}, {group}", word(point.direction)),
        format!("{:.0} %", 100.0 * point.at.0 as f64 / size as f64),
        block(point.block),
        point.depth.to_string(),
        megabytes(point.rate()),
    ];
    row.extend(point.latency.map(|latency| millis(latency.as_secs_f64() * 1e3)));
    row
}

fn block(len: usize) -> String {
    if len >= 1 << 20 && len.is_multiple_of(1 << 20) {
        format!("{} MiB", len >> 20)
    } else {
        format!("{} KiB", len >> 10)
    }
}

fn millis(ms: f64) -> String {
    if ms < 10.0 { format!("{ms:.2} ms") } else { format!("{ms:.0} ms") }
}

/// A round number at or above `value`, and the distance of grid lines below it.
fn nice(value: f64) -> (f64, f64) {
    let raw = value.max(1e-9) / 4.0;
    let power = 10_f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|n| n * power).find(|step| *step >= raw).unwrap_or(raw);
    ((value / step).ceil() * step, step)
}

/// A drawing under way, with an axis of rates that starts at zero.
struct Chart {
    svg: String,
    height: f64,
    most: f64,
}

const TOP: f64 = 14.0;
const BOTTOM: f64 = 30.0;

impl Chart {
    fn new(label: &str, height: f64, fastest: f64) -> Self {
        let (most, step) = nice(fastest);
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{label}\">");
        let mut chart = Self { svg: String::new(), height, most };
        let mut rate = 0.0;
        while rate <= most * 1.001 {
            let y = chart.y(rate);
            let _ = write!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" style=\"stroke:var(--line)\"/>\
                 <text class=\"t\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                y + 4.0,
                megabytes(rate),
            );
            rate += step;
        }
        chart.svg = svg;
        chart
    }

    fn y(&self, rate: f64) -> f64 {
        self.height - BOTTOM - rate / self.most * (self.height - TOP - BOTTOM)
    }

    /// `share` of the way from the left edge to the right one.
    fn x(share: f64) -> f64 {
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }

    fn under(&mut self, x: f64, text: &str) {
        let y = self.height - 10.0;
        let _ = write!(self.svg, "<text class=\"t\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{text}</text>");
    }

    fn line(&mut self, points: &[(f64, f64, String)], color: &str) {
        let path: Vec<String> = points.iter().map(|(x, rate, _)| format!("{x:.1},{:.1}", self.y(*rate))).collect();
        let _ = write!(
            self.svg,
            "<polyline points=\"{}\" style=\"fill:none;stroke:var({color});stroke-width:2;stroke-linejoin:round\"/>",
            path.join(" ")
        );
        for (x, rate, title) in points {
            let _ = write!(
                self.svg,
                "<circle cx=\"{x:.1}\" cy=\"{:.1}\" r=\"3\" style=\"fill:var({color})\"><title>{title}</title></circle>",
                self.y(*rate)
            );
        }
    }

    fn finish(mut self) -> String {
        self.svg.push_str("</svg>");
        self.svg
    }
}

fn surface(report: &BenchReport) -> String {
    let fastest = report.curve.iter().map(Point::rate).fold(0.0, f64::max);
    let mut chart = Chart::new("Throughput across the surface", 280.0, fastest);
    let size = report.drive.size.0 as f64;
    let points: Vec<(f64, f64, String)> = report
        .curve
        .iter()
        .map(|point| {
            let share = point.at.0 as f64 / size;
            (Chart::x(share), point.rate(), format!("{:.0} %: {}", 100.0 * share, megabytes(point.rate())))
        })
        .collect();
    if let (Some(first), Some(last)) = (points.first(), points.last()) {
        let ground = chart.y(0.0);
        let path: Vec<String> = points.iter().map(|(x, rate, _)| format!("{x:.1},{:.1}", chart.y(*rate))).collect();
        let _ = write!(
            chart.svg,
            "<polygon points=\"{:.1},{ground:.1} {} {:.1},{ground:.1}\" style=\"fill:var(--c1);opacity:.13\"/>",
            first.0,
            path.join(" "),
            last.0
        );
    }
    chart.line(&points, COLORS[0]);
    for quarter in 0..=4 {
        let share = f64::from(quarter) / 4.0;
        chart.under(Chart::x(share), &format!("{:.0} %", 100.0 * share));
    }
    chart.finish()
}

fn sweep(report: &BenchReport, direction: Direction) -> String {
    let points: Vec<&Point> = report.sweep.iter().filter(|point| point.direction == direction).collect();
    let fastest = points.iter().map(|point| point.rate()).fold(0.0, f64::max);
    let depths: Vec<u32> = points.iter().map(|point| point.depth).collect::<BTreeSet<_>>().into_iter().collect();
    let blocks: Vec<usize> = points.iter().map(|point| point.block).collect::<BTreeSet<_>>().into_iter().collect();
    let mut chart = Chart::new("Throughput by block size and depth", 280.0, fastest);
    let place = |depth: u32| {
        let index = depths.iter().position(|d| *d == depth).unwrap_or(0) as f64;
        Chart::x((index + 0.5) / depths.len().max(1) as f64)
    };
    let mut labels: Vec<(f64, f64, String, &str)> = Vec::new();
    for (i, &len) in blocks.iter().enumerate() {
        let color = COLORS[i % COLORS.len()];
        let mut series: Vec<(f64, f64, String)> = points
            .iter()
            .filter(|point| point.block == len)
            .map(|p| (place(p.depth), p.rate(), format!("{} × {}: {}", block(len), p.depth, megabytes(p.rate()))))
            .collect();
        series.sort_by(|a, b| a.0.total_cmp(&b.0));
        chart.line(&series, color);
        if let Some((x, rate, _)) = series.last() {
            labels.push((*x, chart.y(*rate), block(len), color));
        }
    }
    // Labels of lines that end close together are stacked.
    labels.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut floor = 0.0;
    for (x, y, name, color) in labels {
        let y = f64::max(y, floor);
        floor = y + 15.0;
        let _ = write!(
            chart.svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" class=\"tt\" style=\"fill:var({color})\">{name}</text>",
            x + 10.0,
            y + 4.0
        );
    }
    for &depth in &depths {
        chart.under(place(depth), &format!("{depth} in flight"));
    }
    chart.finish()
}

/// A line a point: from the median to the worst, with a mark at 99 %, on a scale of tens.
fn latency(report: &BenchReport, direction: Direction) -> String {
    let points: Vec<&Point> = report.sweep.iter().filter(|point| point.direction == direction).collect();
    let ms = |point: &Point| point.latency.map(|latency| (latency.as_secs_f64() * 1e3).max(0.001));
    let low = points.iter().map(|point| ms(point)[0]).fold(f64::INFINITY, f64::min).log10().floor();
    let high = points.iter().map(|point| ms(point)[2]).fold(0.001, f64::max).log10().ceil().max(low + 1.0);
    let (left, each) = (LEFT + 40.0, 22.0);
    let height = 20.0 + each * points.len() as f64 + 14.0;
    let x = |value: f64| left + (value.log10() - low) / (high - low) * (WIDTH - left - 20.0);
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"Latency\">");
    for power in low as i32..=high as i32 {
        let value = 10_f64.powi(power);
        let at = x(value);
        let label = if value < 1.0 { format!("{:.0} µs", value * 1e3) } else { format!("{value:.0} ms") };
        let _ = write!(
            svg,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"20\" y2=\"{:.1}\" style=\"stroke:var(--line)\"/>\
             <text class=\"t\" x=\"{at:.1}\" y=\"12\" text-anchor=\"middle\">{label}</text>",
            height - 10.0
        );
    }
    let blocks: Vec<usize> = points.iter().map(|point| point.block).collect::<BTreeSet<_>>().into_iter().collect();
    for (i, point) in points.iter().enumerate() {
        let y = 20.0 + each * (i as f64 + 0.5) + 4.0;
        let [half, most, worst] = ms(point).map(x);
        let series = blocks.iter().position(|len| *len == point.block).unwrap_or(0);
        let color = COLORS[series % COLORS.len()];
        let reported = point.latency.map(|latency| millis(latency.as_secs_f64() * 1e3)).join(" / ");
        let _ = write!(
            svg,
            "<g><title>{reported}</title><text class=\"t\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{} × {}</text>\
             <line x1=\"{half:.1}\" x2=\"{worst:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" \
             style=\"stroke:var({color});stroke-width:1.5;opacity:.55\"/>\
             <circle cx=\"{half:.1}\" cy=\"{y:.1}\" r=\"4.5\" style=\"fill:var({color})\"/>\
             <circle cx=\"{most:.1}\" cy=\"{y:.1}\" r=\"3\" style=\"fill:var(--paper);stroke:var({color});stroke-width:1.5\"/>\
             <line x1=\"{worst:.1}\" x2=\"{worst:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" style=\"stroke:var({color});stroke-width:1.5\"/></g>",
            left - 12.0,
            y + 4.0,
            block(point.block),
            point.depth,
            y - 5.0,
            y + 5.0,
        );
    }
    svg.push_str("</svg>");
    svg
}

/// Bars: the drive alone, the cores alone, both together.
fn road(report: &BenchReport) -> String {
    let mut bars: Vec<(String, f64, &str)> = Vec::new();
    for direction in report.directions() {
        let name = word(direction);
        let does = if direction == Direction::Read { "open and hash" } else { "hash and seal" };
        if let Some(best) = report.best(direction) {
            bars.push((format!("{name}: the drive alone"), best.rate(), "--c1"));
        }
        let core = report.core_rate(direction);
        bars.push((format!("{name}: one core, {does}"), core, "--c6"));
        bars.push((format!("{name}: {}, {does}", cores(report)), core * report.cores as f64, "--c6"));
        let together = report.road.iter().filter(|point| point.direction == direction);
        bars.extend(together.map(|point| (format!("{name}: drive, hash and cipher"), point.rate(), "--c2")));
    }
    let most = bars.iter().map(|bar| bar.1).fold(1.0, f64::max);
    let (left, each) = (220.0, 28.0);
    let height = each * bars.len() as f64 + 6.0;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"Drive and cores\">");
    for (i, (name, rate, color)) in bars.iter().enumerate() {
        let y = each * i as f64 + 4.0;
        let len = (rate / most * (WIDTH - left - RIGHT)).max(1.0);
        let _ = write!(
            svg,
            "<text class=\"t\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>\
             <rect x=\"{left}\" y=\"{y:.1}\" width=\"{len:.1}\" height=\"18\" rx=\"2\" style=\"fill:var({color})\"/>\
             <text class=\"tt\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            left - 12.0,
            y + 13.0,
            left + len + 8.0,
            y + 13.0,
            megabytes(*rate),
        );
    }
    svg.push_str("</svg>");
    svg
}
