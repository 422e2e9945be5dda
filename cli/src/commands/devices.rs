//! `dray devices`: every disk, with what the gates say of it.

use clap::Args;
use dray_engine::job::{self, Health, Seen};
use dray_engine::report::Problem;
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::render::text::fold_values;
use crate::render::{Output, json as object, watched};

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
    /// Looks and tells.
    pub fn run(self, output: &Output) -> Exit {
        let disks = watched(
            "looking at the disks",
            |text| output.warning(&text),
            |_| job::disks(&job::Roots::default(), self.all),
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

const USABLE: &str = "usable";
const NOT_FOR_SHIPPING: &str = "not for shipping";
const DO_NOT_USE: &str = "do not use";
const REFUSED: &str = "refused";

/// What a person reads first: can it be taken?
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
    let head = ["DRIVE", "SERIAL", "SIZE", "BUS", "SECTORS", "KIND", "MODEL", "VERDICT"].map(str::to_owned);
    let rows: Vec<[String; 8]> = std::iter::once(head)
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
                disk.path.display().to_string(),
                serial,
                identity.size.to_string(),
                identity.transport.name().to_owned(),
                format!("{}/{}", identity.sector.bytes(), identity.physical_sector),
                kind.to_owned(),
                identity.model.clone().unwrap_or_else(|| "-".to_owned()),
                verdict(disk).to_owned(),
            ]
        }))
        .collect();
    let mut widths = [0; 8];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(widths).take(7).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let style = output.style();
        let last = &row[7];
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

fn details(disk: &Seen, output: &Output) -> String {
    let style = output.style();
    let mut text = format!("\n{}\n", style.bold(&disk.path.display().to_string()));
    let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<9} {value}\n"));
    if disk.geometry.is_some() {
        line("holds", disk.contents.clone().unwrap_or_else(|| "nothing that dray knows".to_owned()));
    }
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
    limits.extend(queue.requests.map(|requests| format!("{requests} requests")));
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
            text.push_str(&format!("            {advice}\n"));
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
    parts.extend(health.temperature.map(|degrees| format!("{degrees} degrees Celsius")));
    parts.extend(health.hours.map(|hours| format!("{hours} hours")));
    parts.extend(health.reallocated.map(|count| format!("{count} reallocated")));
    parts.extend(health.pending.map(|count| format!("{count} pending")));
    parts.extend(health.cable_errors.filter(|count| *count > 0).map(|count| format!("{count} cable errors")));
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
