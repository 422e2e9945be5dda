//! The objects of `--json`. Every one has `type`, `schema` and `at`; lengths are bytes, times seconds.

use std::path::Path;

use dray_engine::api::prepare::Estimate;
use dray_engine::report::{
    DriveFacts, DrivePlan, DriveResult, Kind, Notice, PlanSummary, Problem, RegionKind, SessionReport, Stage, Waiting,
};
use serde_json::{Value, json};

use super::words;

/// Version of the schema: raised when a field changes its meaning, not for new fields.
pub const SCHEMA: u32 = 1;

/// Now, as RFC 3339 in UTC with milliseconds.
pub fn now() -> String {
    format!("{:.3}", dray_engine::api::host::timestamp())
}

/// The word for a stage.
pub fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Wiping => "wiping",
        Stage::Encrypting => "encrypting",
        Stage::Data => "data",
        Stage::Metadata => "metadata",
        Stage::FreeSpace => "free-space",
        Stage::Finishing => "finishing",
        Stage::Flushing => "flushing",
        Stage::ReadBack => "read-back",
        Stage::Listing => "listing",
        Stage::Verifying => "verifying",
        Stage::Importing => "importing",
        Stage::Done => "done",
        Stage::Stopped => "stopped",
        Stage::Failed => "failed",
    }
}

/// The word for a bottleneck.
pub fn waiting(waiting: Waiting) -> &'static str {
    match waiting {
        Waiting::Nothing => "nothing",
        Waiting::Source => "source",
        Waiting::Cpu => "cpu",
        Waiting::Drive => "drive",
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Usage => "usage",
        Kind::Refused => "refused",
        Kind::Source => "source",
        Kind::Drive => "drive",
        Kind::Environment => "environment",
        Kind::Interrupted => "interrupted",
        Kind::Different => "different",
        Kind::Internal => "internal",
    }
}

fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A problem as an object.
pub fn problem(problem: &Problem) -> Value {
    json!({
        "kind": kind(problem.kind),
        "what": problem.what,
        "path": problem.place.path.as_deref().map(path),
        "line": problem.place.line,
        "column": words::column(problem),
        "drive": problem.place.drive,
        "offset": problem.place.at.map(|at| at.0),
        "value": problem.value,
        "advice": problem.advice.as_ref().map(words::advice),
    })
}

/// Identity of a drive as an object.
pub fn facts(drive: &DriveFacts) -> Value {
    json!({
        "name": drive.name,
        "path": path(&drive.path),
        "drive_id": drive.drive_id,
        "serial": drive.serial,
        "for_shipping": drive.for_shipping,
        "model": drive.model,
        "size": drive.size.0,
        "sector_size": drive.sector,
        "contents": drive.contents,
        "is_image": drive.is_image,
        "rotational": drive.rotational,
    })
}

fn drive_plan(plan: &DrivePlan) -> Value {
    let regions: Vec<Value> = plan
        .regions
        .iter()
        .map(|at| json!({ "start": at.start.0, "length": at.len.0, "kind": region_kind(at.kind), "what": at.name }))
        .collect();
    let directories: Vec<Value> = plan
        .directories
        .iter()
        .map(|(prefix, files, bytes)| json!({ "prefix": prefix, "files": files, "bytes": bytes.0 }))
        .collect();
    json!({
        "drive": facts(&plan.drive),
        "files": plan.files,
        "dirs": plan.dirs,
        "data": plan.data.0,
        "overhead": plan.overhead.0,
        "free": plan.free.0,
        "cluster_size": plan.cluster,
        "encrypts": plan.encrypts.0,
        "to_write": plan.to_write.0,
        "regions": regions,
        "directories": directories,
    })
}

const fn region_kind(kind: RegionKind) -> &'static str {
    match kind {
        RegionKind::Files => "files",
        RegionKind::Manifest => "manifest",
        RegionKind::FileSystem => "file system",
        RegionKind::Encryption => "encryption",
        RegionKind::Table => "table",
        RegionKind::Free => "free",
    }
}

/// A note or a warning: its text, and the drive that it is about.
pub fn notice(notice: &Notice) -> Value {
    json!({ "text": notice.to_string(), "drive": notice.drive })
}

/// The object of type `plan`.
pub fn plan(plan: &PlanSummary) -> Value {
    let skipped: Vec<Value> =
        plan.skipped.iter().map(|skipped| json!({ "path": path(&skipped.path), "what": skipped.what })).collect();
    let unplaced: Vec<Value> =
        plan.unplaced.iter().map(|(blob, len)| json!({ "blob": blob, "length": len.0 })).collect();
    json!({
        "session": plan.session,
        "cipher": plan.cipher,
        "files": plan.files,
        "data": plan.data.0,
        "drives": plan.drives.iter().map(drive_plan).collect::<Vec<_>>(),
        "skipped": skipped,
        "warnings": plan.warnings.iter().map(problem).collect::<Vec<_>>(),
        "unplaced": unplaced,
        "windows": plan.windows,
    })
}

fn result(result: &DriveResult) -> Value {
    let left_out: Vec<Value> =
        result.left_out.iter().map(|(source, why)| json!({ "path": path(source), "why": why })).collect();
    json!({
        "drive": facts(&result.drive),
        "files": result.files,
        "data": result.data.0,
        "written": result.written.0,
        "manifest_hash": result.manifest_hash,
        "record": result.record.as_deref().map(path),
        "keys": {
            "recovery_file": result.keys.recovery_file.as_deref().map(path),
            "recovery_id": result.keys.recovery_id,
            "external_file": result.keys.external_file.as_deref().map(path),
            "has_password": result.keys.has_password,
        },
        "left_out": left_out,
        "failure": result.failure.as_ref().map(problem),
        "free_space_untouched": result.free_space_untouched,
        "outside_untouched": result.outside_untouched.0,
        "seconds": result.elapsed.as_secs_f64(),
        "written_now": result.timing.written.0,
        "writing_seconds": result.timing.writing.as_secs_f64(),
        "read_back": result.timing.read_back.0,
        "reading_seconds": result.timing.reading.as_secs_f64(),
    })
}

/// Number of drives that a dataset needs.
pub fn estimate(estimate: &Estimate) -> Value {
    let needed = estimate.needed.iter().map(|one| {
        let drives = one.drives.iter().map(|plan| {
            json!({ "files": plan.files, "data": plan.data.0, "free": plan.free.0, "cluster_size": plan.cluster })
        });
        json!({ "size": one.size.0, "count": one.drives.len(), "drives": drives.collect::<Vec<_>>() })
    });
    let skipped = estimate.skipped.iter().map(|skipped| json!({ "path": path(&skipped.path), "what": skipped.what }));
    json!({
        "files": estimate.files,
        "data": estimate.data.0,
        "skipped": skipped.collect::<Vec<_>>(),
        "warnings": estimate.warnings.iter().map(problem).collect::<Vec<_>>(),
        "needed": needed.collect::<Vec<_>>(),
    })
}

/// Most files left out that [`shortcomings`] names one by one.
const LEFT_OUT_MAX: usize = 100;

/// Shortfalls of a session as problems: drives that failed or were stopped, files left out, files without a drive.
pub fn shortcomings(report: &SessionReport) -> Vec<Value> {
    let mut out: Vec<Value> = report.drives.iter().filter_map(|drive| drive.failure.as_ref()).map(problem).collect();
    let left_out = report.drives.iter().flat_map(|drive| drive.left_out.iter().map(move |file| (drive, file)));
    out.extend(left_out.take(LEFT_OUT_MAX).map(|(drive, (source, why))| {
        let left_out = Problem::new(Kind::Source, format!("left out: {why}")).path(source);
        problem(&left_out.drive(&drive.drive.name))
    }));
    if report.waiting > 0 {
        let files = super::count(report.waiting, "file");
        let waits = Problem::new(Kind::Refused, format!("{files} on no drive yet"));
        out.push(problem(&waits.path(&report.journal).advice("add drives with --additional-driveset")));
    }
    out
}

/// The result of a session.
pub fn summary(session: &str, report: &SessionReport) -> Value {
    json!({
        "session": session,
        "journal": path(&report.journal),
        "interrupted": report.interrupted,
        "waiting": report.waiting,
        "log": report.log.as_deref().map(path),
        "log_lacks": report.log_lacks,
        "records": report.records.iter().map(|record| path(record)).collect::<Vec<_>>(),
        "open": report.open,
        "windows": report.windows,
        "seconds": report.elapsed.as_secs_f64(),
        "exit_code": crate::exit::Exit::of_report(report).code(),
        "drives": report.drives.iter().map(result).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_rfc_3339() {
        let now = super::now();
        assert!(now.ends_with('Z') && now.len() == "2026-11-22T23:00:00.000Z".len(), "{now}");
        assert!(now.parse::<jiff::Timestamp>().is_ok());
    }
}
