//! `dray devices`: every disk, and whether a session would accept it.

use clap::Args;
use dray_engine::api;
use dray_engine::api::measure::{Health, Seen};
use dray_engine::report::Problem;
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::render::text::{fold_values, tail};
use crate::render::{Output, clean, count, json as object, watched, words};

/// Arguments of `dray devices`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Reads only. Health needs smartctl (smartmontools) and root.\n\nExamples:\n  dray devices\n  sudo dray devices --all --json"
)]
pub struct Devices {
    /// Loop, RAM and mapped disks too
    #[arg(long)]
    all: bool,
}

impl Devices {
    /// Surveys the disks and prints them.
    pub fn run(self, output: &Output) -> Exit {
        let disks = watched(
            "looking at the disks",
            |text| output.warning(&text),
            |_| api::measure::disks(&api::host::Roots::default(), self.all),
        );
        if output.is_json() {
            disks.iter().for_each(|disk| output.object("device", to_json(disk)));
        } else if disks.is_empty() {
            output.say("no disk is attached\n");
        } else {
            output.say(&table(&disks, output));
            for disk in &disks {
                output.say(&fold_values(&details(disk, output)));
            }
        }
        Exit::Done
    }
}

/// Columns of the table.
const COLUMNS: usize = 6;
/// Columns of a terminal.
const WIDTH: usize = 80;

const USABLE: &str = "usable";
const NOT_FOR_SHIPPING: &str = "not for shipping";
const DO_NOT_USE: &str = "do not use";
const REFUSED: &str = "refused";

/// The verdict, which is read first: whether the disk can be used.
fn verdict(disk: &Seen) -> &'static str {
    if !disk.refusals.is_empty() {
        REFUSED
    } else if disk.health.as_ref().is_some_and(|health| !health.stops().is_empty()) {
        DO_NOT_USE
    } else if !disk.shippable {
        NOT_FOR_SHIPPING
    } else {
        USABLE
    }
}

fn table(disks: &[Seen], output: &Output) -> String {
    let head = ["DRIVE", "SERIAL", "SIZE", "BUS", "KIND", "VERDICT"].map(str::to_owned);
    let rows: Vec<[String; COLUMNS]> = std::iter::once(head)
        .chain(disks.iter().map(|disk| {
            let identity = &disk.identity;
            let serial = match (&identity.serial, &identity.bridge_serial) {
                (Some(serial), _) => serial.clone(),
                (None, Some(bridge)) => format!("{bridge} (bridge)"),
                (None, None) => "-".to_owned(),
            };
            let kind = match disk.geometry.as_ref().and_then(|geometry| geometry.rotational) {
                Some(true) => "disk",
                Some(false) => "ssd",
                None => "-",
            };
            [
                clean(&disk.path.display().to_string()),
                clean(&serial),
                identity.size.to_string(),
                identity.transport.name().to_owned(),
                kind.to_owned(),
                verdict(disk).to_owned(),
            ]
        }))
        .collect();
    let widths = widths(&rows);
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).take(COLUMNS - 1);
        let cells: Vec<String> = cells.map(|(cell, width)| format!("{:<width$}", tail(cell, width))).collect();
        let style = output.style();
        let last = &row[COLUMNS - 1];
        let last = match last.as_str() {
            USABLE => style.green(last),
            NOT_FOR_SHIPPING => style.yellow(last),
            REFUSED | DO_NOT_USE => style.red(last),
            _ => last.clone(),
        };
        text.push_str(&format!("{}  {last}", cells.join("  ")));
        text.push('\n');
    }
    text
}

/// As wide as their cells. Above 80 columns in all, names and then serials are shortened at the front: their ends
/// differ most, and the details below show them whole.
fn widths(rows: &[[String; COLUMNS]]) -> [usize; COLUMNS] {
    const GIVING: [usize; 2] = [0, 1];
    const LEAST: usize = 12;
    let mut widths = [0; COLUMNS];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for column in GIVING {
        let over = (widths.iter().sum::<usize>() + 2 * (COLUMNS - 1)).saturating_sub(WIDTH);
        widths[column] = (widths[column] - over.min(widths[column])).max(LEAST.min(widths[column]));
    }
    widths
}

fn details(disk: &Seen, output: &Output) -> String {
    let style = output.style();
    let mut text = format!("\n{}\n", style.bold(&disk.path.display().to_string()));
    let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<9} {value}\n"));
    if disk.geometry.is_some() {
        line("holds", disk.contents.clone().unwrap_or_else(|| "no known partition table or file system".to_owned()));
    }
    let identity = &disk.identity;
    line("model", identity.model.clone().unwrap_or_else(|| "not known".to_owned()));
    if let Some(serial) = &identity.serial {
        line("serial", serial.clone());
    }
    line("sectors", format!("{} bytes, {} physical", identity.sector.bytes(), identity.physical_sector));
    if let Some(name) = disk.by_id.first() {
        line("by-id", name.display().to_string());
    }
    if let Some(wwn) = &disk.identity.wwn {
        line("wwn", wwn.clone());
    }
    if let Some(link) = &disk.link {
        let best = if link.slower { format!(", could be {}", link.best) } else { String::new() };
        line("link", format!("{}{best}", link.negotiated));
    }
    let queue = &disk.queue;
    let mut limits = Vec::new();
    limits.extend(queue.request_max.map(|bytes| format!("{} KiB a request", bytes >> 10)));
    limits.extend(queue.requests.map(|requests| count(requests, "request")));
    limits.extend(queue.write_cache.clone());
    limits.extend(queue.scheduler.clone().map(|name| format!("scheduler {name}")));
    if !limits.is_empty() {
        line("queue", limits.join(", "));
    }
    line("health", disk.health.as_ref().map_or_else(|| "not known".to_owned(), health));
    let mut reported = |mark: String, problem: &Problem| {
        let value = problem.value.as_ref().map(|value| format!(" ({value})")).unwrap_or_default();
        text.push_str(&format!("  {mark} {}{value}\n", problem.what));
        if let Some(advice) = &problem.advice {
            text.push_str(&format!("            {}\n", words::advice(advice)));
        }
    };
    disk.refusals.iter().for_each(|problem| reported(style.red("refused: "), problem));
    disk.not_for_shipping.iter().for_each(|problem| reported(style.yellow("shipping:"), problem));
    disk.cautions.iter().for_each(|problem| reported(style.yellow("caution: "), problem));
    text
}

fn health(health: &Health) -> String {
    let mut parts = Vec::new();
    parts.extend(health.passed.map(|passed| if passed { "passed".to_owned() } else { "FAILING".to_owned() }));
    parts.extend(health.temperature.map(|degrees| format!("{degrees} °C")));
    parts.extend(health.hours.map(|hours| count(hours.unsigned_abs(), "hour")));
    parts.extend(health.reallocated.map(|count| format!("{count} reallocated")));
    parts.extend(health.pending.map(|count| format!("{count} pending")));
    parts.extend(
        health.cable_errors.filter(|errors| *errors > 0).map(|errors| count(errors.unsigned_abs(), "cable error")),
    );
    parts.join(", ")
}

fn to_json(disk: &Seen) -> Value {
    let problems = |problems: &[Problem]| problems.iter().map(object::problem).collect::<Vec<_>>();
    let geometry = disk.geometry.as_ref();
    json!({
        "name": disk.name,
        "path": disk.path.to_string_lossy(),
        "by_id": disk.by_id.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>(),
        "serial": disk.identity.serial,
        "bridge_serial": disk.identity.bridge_serial,
        "wwn": disk.identity.wwn,
        "model": disk.identity.model,
        "vendor": disk.identity.vendor,
        "transport": disk.identity.transport.name(),
        "removable": disk.identity.removable,
        "size": disk.identity.size.0,
        "logical_sector": disk.identity.sector.bytes(),
        "physical_sector": disk.identity.physical_sector,
        "rotational": geometry.and_then(|geometry| geometry.rotational),
        "zoned": geometry.map(|geometry| format!("{:?}", geometry.zoned)),
        "discard": geometry.map(|geometry| geometry.discard.is_some()),
        "queue": {
            "requests": disk.queue.requests,
            "request_max": disk.queue.request_max,
            "hardware_request_max": disk.queue.hardware_request_max,
            "scheduler": disk.queue.scheduler,
            "write_cache": disk.queue.write_cache,
        },
        "contents": disk.contents,
        "verdict": verdict(disk),
        "shippable": disk.shippable,
        "refusals": problems(&disk.refusals),
        "not_for_shipping": problems(&disk.not_for_shipping),
        "cautions": problems(&disk.cautions),
        "health": disk.health.as_ref().map(|health| json!({
            "passed": health.passed,
            "reallocated": health.reallocated,
            "pending": health.pending,
            "uncorrectable": health.uncorrectable,
            "cable_errors": health.cable_errors,
            "temperature": health.temperature,
            "hours": health.hours,
            "stops": health.stops(),
        })),
        "link": disk.link.as_ref().map(|link| json!({
            "best": link.best,
            "negotiated": link.negotiated,
            "slower": link.slower,
        })),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_fits_eighty_columns_whatever_drives_are_called() {
        let row =
            |path: &str, serial: &str| [path, serial, "123.45 GB", "nvme", "disk", NOT_FOR_SHIPPING].map(str::to_owned);
        let head = ["DRIVE", "SERIAL", "SIZE", "BUS", "KIND", "VERDICT"].map(str::to_owned);
        for (path, serial) in [
            ("/dev/sda", "WD-WX12A345678"),
            ("/dev/nvme0n1", "S5H9NX0N123456789012"),
            ("/dev/mapper/a-volume-group-with-a-long-name", "WD-WX12A345678"),
            ("/dev/mapper/a-volume-group-with-a-long-name", "beyond-what-any-vendor-would-print-on-a-label (bridge)"),
        ] {
            let widths = widths(&[head.clone(), row(path, serial)]);
            let all = widths.iter().sum::<usize>() + 2 * (COLUMNS - 1);
            assert!(all <= WIDTH, "{path}: {all}");
            assert!(widths[0] >= 8 && widths[1] >= 12, "{widths:?}");
        }
    }
}
