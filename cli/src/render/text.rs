//! Tables and paragraphs for people, within 80 columns.

use std::path::Path;
use std::time::Duration;

use dray_engine::api::prepare::Estimate;
use dray_engine::report::{DriveFacts, DrivePlan, DriveResult, Kind, PlanSummary, Problem, Problems, SessionReport};

use super::{Style, WIDTH, words};

/// Biggest directories and regions shown for a drive.
const LIST_MAX: usize = 12;
/// Entries shown of a list without an upper bound.
const SHOWN_MAX: usize = 20;

/// `text` as it may be shown: a file name must neither move the cursor nor pass for another name.
pub fn clean(text: &str) -> String {
    dray_engine::report::shown(text)
}

/// `1 file`, `2 files`.
pub fn count(n: u64, what: &str) -> String {
    dray_engine::report::counted(n, what)
}

/// Lower-case hexadecimal, as checksum tools print it.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A length in three digits and at most seven characters.
pub fn short(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// A duration in two units: `3d04h`, `5h12m`, `12m03s`, `45s`.
pub fn left(duration: Duration) -> String {
    let s = duration.as_secs();
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        3600..86400 => format!("{}h{:02}m", s / 3600, s / 60 % 60),
        _ => format!("{}d{:02}h", s / 86400, s / 3600 % 24),
    }
}

/// The last `width` characters: serials differ at their ends.
pub fn tail(text: &str, width: usize) -> String {
    let n = text.chars().count();
    if n <= width {
        return text.to_owned();
    }
    std::iter::once('…').chain(text.chars().skip(n + 1 - width)).collect()
}

/// The last `width` characters of a path, which tell it apart from others.
fn path_tail(path: &Path, width: usize) -> String {
    tail(&clean(&path.to_string_lossy()), width)
}

/// Breaks at blanks to 80 columns; further lines are indented. Words longer than a line stay whole.
pub fn wrap(text: &str, indent: &str) -> String {
    wrap_to(text, indent, WIDTH)
}

/// A label with its value wrapped in the column to its right.
pub fn labelled(label: &str, value: &str) -> String {
    const VALUE_AT: usize = 17;
    let value = wrap_to(value, "", WIDTH - VALUE_AT);
    let mut lines = value.lines();
    let mut text = format!("  {label:<14} {}\n", lines.next().unwrap_or_default());
    for line in lines {
        text.push_str(&format!("{:VALUE_AT$}{line}\n", ""));
    }
    text
}

/// Lines of labels and values: those wider than the page are continued below their value.
pub fn fold_values(text: &str) -> String {
    const LABEL_MAX: usize = 20;
    let mut out = String::new();
    for line in text.lines() {
        if visible(line) <= WIDTH {
            out.push_str(line);
            out.push('\n');
            continue;
        }
        // The value begins after the label's padding, or where the text does.
        let lead = line.len() - line.trim_start().len();
        let padding = line[lead..].find("  ").map(|gap| lead + gap);
        let label_end = padding.map(|gap| line.len() - line[gap..].trim_start().len());
        let at = label_end.filter(|at| visible(&line[..*at]) <= LABEL_MAX).unwrap_or(lead);
        let indent = visible(&line[..at]);
        let value = wrap_to(&line[at..], "", WIDTH - indent);
        out.push_str(&line[..at]);
        for (i, part) in value.lines().enumerate() {
            let indent = if i > 0 { indent } else { 0 };
            out.push_str(&format!("{:indent$}{part}\n", ""));
        }
    }
    out
}

fn wrap_to(text: &str, indent: &str, columns: usize) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let lead: String = line.chars().take_while(|c| *c == ' ').collect();
        out.push_str(&lead);
        let mut column = lead.len();
        let mut first = true;
        for word in line.split_whitespace() {
            let width = visible(word);
            if !first && column + 1 + width > columns {
                out.push('\n');
                out.push_str(&lead);
                out.push_str(indent);
                column = lead.len() + indent.len();
                first = true;
            }
            if !first {
                out.push(' ');
                column += 1;
            }
            out.push_str(word);
            column += width;
            first = false;
        }
        out.push('\n');
    }
    out
}

/// Columns of a word without its colour.
fn visible(word: &str) -> usize {
    let mut n = 0;
    let mut escape = false;
    for c in word.chars() {
        match (escape, c) {
            (true, 'm') => escape = false,
            (true, _) => {}
            (false, '\x1b') => escape = true,
            (false, _) => n += 1,
        }
    }
    n
}

/// One problem and its advice.
pub fn problem(problem: &Problem, style: Style) -> String {
    let mut text = wrap(&format!("{} {}", style.red("dray:"), clean(&words::line(problem))), "  ");
    if let Some(advice) = &problem.advice {
        text.push_str(&wrap(&format!("  advice: {}", clean(&words::advice(advice))), "  "));
    } else if problem.kind == Kind::Internal {
        text.push_str("  advice: this is a bug in dray; please report it with the command line\n");
    }
    text
}

/// Something odd and its advice.
pub fn note(problem: &Problem, style: Style) -> String {
    let mut text = wrap(&format!("{} {}", style.yellow("note:"), clean(&words::line(problem))), "  ");
    if let Some(advice) = &problem.advice {
        text.push_str(&wrap(&format!("  {}", clean(&words::advice(advice))), ""));
    }
    text
}

/// A warning, wrapped.
pub fn warning(text: &str, style: Style) -> String {
    wrap(&format!("{} {text}", style.yellow("warning:")), "  ")
}

/// All problems, one paragraph each: place, problem, value, advice.
pub fn problems(problems: &Problems, style: Style) -> String {
    let mut text: String = problems.0.iter().map(|one| problem(one, style)).collect();
    if problems.0.len() > 1 {
        text.push_str(&format!("{}\n", style.bold(&count(problems.0.len() as u64, "problem"))));
    }
    text
}

fn kind_of(drive: &DriveFacts, windows: bool) -> String {
    let what = if drive.is_image { "image file" } else { drive.model.as_deref().unwrap_or("unknown model") };
    let ship = if drive.for_shipping || windows { "" } else { ", not for shipping" };
    format!("{}, {}-byte sectors{ship}", clean(what), drive.sector)
}

/// The plan: a table of drives, and the placement of data on each.
pub fn plan(plan: &PlanSummary, style: Style, full: bool) -> String {
    let head = match plan.windows {
        true => "Plan of a drive for Windows".to_owned(),
        false => format!("Plan of session {}", clean(&plan.session)),
    };
    let mut text = format!(
        "{}\n  {} in the sources, {}; cipher {}\n\n",
        style.bold(&head),
        count(plan.files, "file"),
        plan.data,
        clean(&plan.cipher)
    );
    text.push_str(&style.bold(&format!(
        "  {:<16} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "drive", "size", "files", "data", "overhead", "free", "cluster"
    )));
    text.push('\n');
    for one in &plan.drives {
        text.push_str(&format!(
            "  {:<16} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}\n",
            tail(&clean(&one.drive.drive_id), 16),
            short(one.drive.size.0),
            one.files,
            short(one.data.0),
            short(one.overhead.0),
            short(one.free.0),
            cluster(one.cluster),
        ));
    }
    for one in &plan.drives {
        text.push('\n');
        text.push_str(&drive_plan(one, plan.windows, style, full));
    }
    text.push_str(&skipped(plan));
    if !plan.unplaced.is_empty() {
        let n = plan.unplaced.len() as u64;
        text.push_str(&format!("\n{}\n", style.red(&format!("{} fit on no drive", count(n, "file")))));
        text.push_str(&limited(
            plan.unplaced.iter().map(|(blob, len)| format!("{:>9}  {}", short(len.0), clean(blob))),
            full,
        ));
    }
    for warning in &plan.warnings {
        text.push('\n');
        text.push_str(&note(warning, style));
    }
    text.push('\n');
    text
}

/// Number of drives of each size that a dataset needs.
pub fn estimate(estimate: &Estimate) -> String {
    let mut text = format!("{} in the sources, {}\n\n", count(estimate.files, "file"), estimate.data);
    text.push_str(&format!("  {:>12} {:>8} {:>14} {:>14}\n", "drive size", "drives", "on the last", "free on it"));
    for one in &estimate.needed {
        let (data, free) = one.drives.last().map_or((0, 0), |plan| (plan.data.0, plan.free.0));
        let size = one.size.to_string();
        text.push_str(&format!("  {size:>12} {:>8} {:>14} {:>14}\n", one.drives.len(), short(data), short(free)));
    }
    if !estimate.skipped.is_empty() {
        text.push_str(&format!("\nNot copied: {}\n", count(estimate.skipped.len() as u64, "entry")));
        let lines = estimate.skipped.iter();
        let lines = lines.map(|one| format!("{}: {}", clean(&one.path.to_string_lossy()), clean(&one.what)));
        text.push_str(&limited(lines, false));
    }
    text
}

fn cluster(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

fn drive_plan(one: &DrivePlan, windows: bool, style: Style, full: bool) -> String {
    let drive = &one.drive;
    let mut text = wrap(&format!("{}: {}", style.bold(&clean(&drive.drive_id)), kind_of(drive, windows)), "  ");
    text.push_str(&labelled("opened as", &path_tail(&drive.path, 63)));
    let now = drive.contents.as_deref().map_or("nothing".into(), clean);
    text.push_str(&labelled("on it now", &now));
    let files = format!("{} for {} in {}", one.to_write, count(one.files, "file"), count(one.dirs, "directory"));
    text.push_str(&labelled("to write", &files));
    if one.encrypts.0 > 0 {
        let words = "of the volume on it, in place, before files are added; its files stay";
        text.push_str(&labelled("encrypts", &format!("{} {words}", one.encrypts)));
    }
    if !full {
        return text;
    }
    if !one.regions.is_empty() {
        text.push_str(&format!("  {:>23}  {:>9}  region\n", "from byte", "length"));
        text.push_str(&limited_to(
            one.regions
                .iter()
                .map(|at| format!("{:>21}  {:>9}  {}", at.start.to_string(), short(at.len.0), clean(&at.name))),
            one.regions.len().min(64),
        ));
    }
    if !one.directories.is_empty() {
        text.push_str(&format!("  {:>9}  {:>9}  biggest directories\n", "files", "bytes"));
        text.push_str(&limited_to(
            one.directories.iter().map(|(prefix, files, bytes)| {
                format!("{files:>7}  {:>9}  {}", short(bytes.0), tail(&clean(prefix), 54))
            }),
            LIST_MAX,
        ));
    }
    text
}

fn skipped(plan: &PlanSummary) -> String {
    if plan.skipped.is_empty() {
        return String::new();
    }
    let mut text = format!("\nNot copied: {}\n", count(plan.skipped.len() as u64, "entry"));
    text.push_str(&limited(
        plan.skipped.iter().map(|one| format!("{}: {}", clean(&one.path.to_string_lossy()), clean(&one.what))),
        false,
    ));
    text
}

fn limited(lines: impl ExactSizeIterator<Item = String>, all: bool) -> String {
    let max = if all { lines.len() } else { SHOWN_MAX };
    limited_to(lines, max)
}

fn limited_to(lines: impl ExactSizeIterator<Item = String>, max: usize) -> String {
    let n = lines.len();
    let mut text = String::new();
    for line in lines.take(max) {
        text.push_str(&format!("    {line}\n"));
    }
    if n > max {
        text.push_str(&format!("    … and {} more\n", n - max));
    }
    text
}

/// The result of a session, drive by drive, with the next step. `quiet` reduces it to the outcome and what needs
/// action: how to continue, and what is missing.
pub fn summary(session: &str, report: &SessionReport, quiet: bool, style: Style) -> String {
    let good = report.drives.iter().filter(|drive| drive.failure.is_none()).count();
    let all = report.drives.len();
    let left_out = report.drives.iter().map(|drive| drive.left_out.len() as u64).sum::<u64>();
    let id = clean(session);
    let head = outcome(&id, report, (good, left_out), style);
    let mut text = format!("{}{head} after {}\n", if quiet { "" } else { "\n" }, left(report.elapsed));
    let journal = clean(&report.journal.to_string_lossy());
    if quiet {
        for drive in report.drives.iter().filter(|drive| drive.failure.is_none()) {
            text.push_str(&left_out_of(drive, style));
        }
    } else {
        for drive in &report.drives {
            text.push('\n');
            text.push_str(&drive_summary(drive, report.windows, style));
        }
        text.push('\n');
        if !report.windows {
            text.push_str(&format!("Journal: {journal}\n"));
        }
        if let Some(log) = &report.log {
            text.push_str(&format!("Log: {}\n", clean(&log.to_string_lossy())));
        }
    }
    if let Some(why) = &report.log_lacks {
        let what = format!("{} lines of the log could not be written: {}", style.yellow("incomplete:"), clean(why));
        text.push_str(&wrap(&what, ""));
    }
    if report.windows {
        return text;
    }
    text.push_str(&to_go_on(&shell_word(&journal), &shell_word(&id), report, good < all));
    if quiet {
        return text;
    }
    if report.exports {
        text.push_str(&keys_of(report));
        return text;
    }
    if left_out > 0 {
        let again =
            "The files that were left out can follow in a session of their own: another --id, and a dataset of them.";
        text.push_str(&wrap(again, ""));
    }
    text.push_str(&next(report, good == all, &shell_word(&journal)));
    text
}

/// The outcome of a session in a line; `good`: drives that did not fail, `left_out`: files.
fn outcome(id: &str, report: &SessionReport, (good, left_out): (usize, u64), style: Style) -> String {
    let all = report.drives.len();
    let session = match report.windows {
        true => "Format".to_owned(),
        false => format!("Session {id}"),
    };
    if report.interrupted {
        style.yellow(&format!("{session} was interrupted"))
    } else if good == all && report.waiting > 0 {
        style.yellow(&format!("{session} waits for drives"))
    } else if good == all && left_out > 0 {
        style.yellow(&format!("{session} is done, but for {} that {} left out", count(left_out, "file"), was(left_out)))
    } else if good == all {
        style.green(&format!("{session} is done"))
    } else {
        style.red(&format!("{session}: {} of {} failed", all - good, count(all as u64, "drive")))
    }
}

/// The commands that continue a session or take it back.
fn to_go_on(journal: &str, id: &str, report: &SessionReport, has_failed: bool) -> String {
    // An export asks its account again.
    let (word, resumes, adds) = match report.exports {
        true => ("export", "--resume --endpoint URL", "--resume --endpoint URL --additional-driveset"),
        false => ("prep-import", "--resume", "--additional-driveset"),
    };
    let line = format!("dray {word} --journal {journal} --id {id}");
    if report.waiting > 0 {
        let files = count(report.waiting, "file");
        format!("{files} on no drive yet. To add drives:\n  {line} {adds} CSV\n")
    } else if has_failed {
        format!("To resume:\n  {line} {resumes}\nTo roll back:\n  {line} --abort\n")
    } else {
        String::new()
    }
}

fn was(n: u64) -> &'static str {
    if n == 1 { "was" } else { "were" }
}

/// The records of an export's drives: it needs no job.
fn keys_of(report: &SessionReport) -> String {
    let mut text = String::from("\nThe drive records of the journal hold the BitLocker keys of the drives:\n");
    for record in &report.records {
        text.push_str(&format!("  {}\n", clean(&record.to_string_lossy())));
    }
    if report.records.is_empty() { String::new() } else { text }
}

/// The next step: creating the import job from all records of the journal, or what must be done before.
fn next(report: &SessionReport, all_good: bool, journal: &str) -> String {
    if report.records.is_empty() {
        return String::new();
    }
    let is_whole = all_good && report.waiting == 0 && report.open.is_empty() && !report.interrupted;
    let ships = |drive: &DriveResult| drive.failure.is_none() && drive.drive.for_shipping;
    let any_ships = report.drives.is_empty() || report.drives.iter().any(ships);
    let mut text = String::new();
    if is_whole && !any_ships {
        text.push_str("\nNo drive of this session can be shipped. The drive records of the journal:\n");
    } else if is_whole {
        text.push_str("\nTo create the import job, upload these drive records (all of the journal):\n");
    } else {
        let mut lacks: Vec<String> = report.open.iter().map(|id| clean(id)).collect();
        if report.waiting > 0 {
            lacks.push(count(report.waiting, "file").to_owned() + " on no drive yet");
        }
        let lacks = if lacks.is_empty() { "what this session did not finish".to_owned() } else { lacks.join(", ") };
        text.push('\n');
        text.push_str(&wrap(
            &format!(
                "An import job made now would be incomplete: it would lack {lacks}. First finish the session as said above \
                 (or give a dead drive's files to others with --resume --replan). These drive records of the journal are ready:"
            ),
            "",
        ));
    }
    for record in &report.records {
        text.push_str(&format!("  {}\n", clean(&record.to_string_lossy())));
    }
    text.push_str(&wrap("They hold the BitLocker keys of the drives: keep them apart from the drives, and safe.", ""));
    if is_whole && any_ships {
        text.push_str(&format!(
            "\nNext:\n  dray template job > job.toml     # who you are, where it goes: fill it in\n  \
             dray job create --job job.toml --journal {journal}\n  \
             dray job papers <job>.job.json    # packing slip, labels, custody\n  \
             dray job ship <job>.job.json --carrier FedEx --tracking NUMBER\n"
        ));
    }
    text
}

/// `text` quoted for a shell where necessary.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./+,:@=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// Bytes written, time and rate; a resumed run also states its own share.
fn written(result: &DriveResult) -> String {
    let timing = &result.timing;
    let (time, rate) = (left(timing.writing), rate_of(timing.write_rate()));
    // The last sectors are written after the last progress report.
    let is_all = timing.written.0 + (timing.written.0 / 50).max(1 << 20) >= result.written.0;
    if is_all || timing.writing.is_zero() {
        format!("{} in {time}{rate}", result.written)
    } else {
        format!("{}, {} of it by this run in {time}{rate}", result.written, timing.written)
    }
}

fn rate_of(rate: Option<f64>) -> String {
    rate.map(|rate| format!(", {}/s", short(rate as u64))).unwrap_or_default()
}

fn drive_summary(result: &DriveResult, windows: bool, style: Style) -> String {
    let drive = &result.drive;
    let mut text = wrap(&format!("{}: {}", style.bold(&clean(&drive.drive_id)), kind_of(drive, windows)), "  ");
    if let Some(failure) = &result.failure {
        let mark = if failure.kind == Kind::Interrupted { style.yellow("stopped:") } else { style.red("failed:") };
        text.push_str(&wrap(&format!("  {mark} {}", clean(&words::line(failure))), "  "));
        if let Some(advice) = &failure.advice {
            text.push_str(&wrap(&format!("  advice: {}", clean(&words::advice(advice))), "  "));
        }
        text.push_str(if windows {
            "  The drive holds no volume.\n"
        } else {
            "  The drive holds no volume that could be shipped.\n"
        });
        return text;
    }
    text.push_str(&format!(
        "  files          {} ({})\n  written        {}\n",
        result.files,
        result.data,
        written(result)
    ));
    let timing = &result.timing;
    if timing.read_back.0 > 0 {
        let rate = rate_of(timing.read_rate());
        text.push_str(&format!("  read back      {} in {}{rate}\n", timing.read_back, left(timing.reading)));
    }
    text.push_str(&format!("  in all         {}\n", left(result.elapsed)));
    if let Some(hash) = &result.manifest_hash {
        text.push_str(&format!("  manifest MD5   {}\n", clean(hash)));
    }
    if let Some(record) = &result.record {
        let record = clean(&record.to_string_lossy());
        text.push_str(&format!("  drive record   {record}\n  BitLocker key  in the drive record, nowhere else\n"));
    }
    let keys = &result.keys;
    let path = |path: &Path| clean(&path.to_string_lossy());
    if let (Some(file), Some(id)) = (&keys.recovery_file, &keys.recovery_id) {
        text.push_str(&format!("  recovery key   {}\n  identifier     {id}\n", path(file)));
    }
    if let Some(file) = &keys.external_file {
        text.push_str(&format!("  key file       {}\n", path(file)));
    }
    if keys.has_password {
        text.push_str("  password       that of --password-file\n");
    }
    let free = if result.free_space_untouched {
        "not overwritten: old data may remain in it"
    } else {
        "overwritten and encrypted"
    };
    text.push_str(&format!("  free space     {free}\n"));
    if result.outside_untouched.0 > 0 {
        let outside =
            format!("{} outside the volume not overwritten: old data may remain there", result.outside_untouched);
        text.push_str(&labelled("rest of drive", &outside));
    }
    text.push_str(&left_out_of(result, style));
    if !drive.for_shipping && !windows {
        text.push_str("  The service would not accept this drive: it is not for shipping.\n");
    }
    text
}

fn left_out_of(result: &DriveResult, style: Style) -> String {
    if result.left_out.is_empty() {
        return String::new();
    }
    let head = format!("{} left out of the volume and the manifest:", count(result.left_out.len() as u64, "file"));
    let files = result.left_out.iter().map(|(path, why)| format!("{}: {}", clean(&path.to_string_lossy()), clean(why)));
    format!("  {}\n{}", style.yellow(&head), limited(files, true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dray_engine::report::{Region, RegionKind};
    use dray_engine::report::{Skipped, Timing};
    use dray_engine::units::{ByteLen, DeviceOffset};

    fn facts() -> DriveFacts {
        DriveFacts {
            name: "serial:WD-WX12A345678".into(),
            path: "/dev/disk/by-id/ata-WDC_WD40EFRX-68N32N0_WD-WX12A345678-and-a-name-that-goes-on-and-on".into(),
            drive_id: "WD-WX12A345678".into(),
            serial: Some("WD-WX12A345678".into()),
            for_shipping: true,
            model: Some("WDC WD40EFRX-68N32N0".into()),
            size: ByteLen(4_000_787_030_016),
            sector: 512,
            contents: Some("GPT, 2 partitions, NTFS \"a long label of a volume that was here before\", ext4".into()),
            is_image: false,
            rotational: Some(true),
        }
    }

    fn a_plan() -> PlanSummary {
        PlanSummary {
            session: "session#1".into(),
            windows: false,
            cipher: "aes-cbc-256".into(),
            drives: vec![DrivePlan {
                drive: facts(),
                files: 1_234_567,
                dirs: 1,
                data: ByteLen(3_210_987_654_321),
                overhead: ByteLen(9_876_543_210),
                free: ByteLen(789_012_345_678),
                cluster: 4096,
                regions: vec![Region {
                    start: DeviceOffset(3_999_000_111_222),
                    len: ByteLen(4_000_000_000),
                    kind: RegionKind::Files,
                    name: "encrypted volume".into(),
                }],
                directories: vec![(format!("container/{}", "deep/".repeat(40)), 1_000_000, ByteLen(5_000_000_000))],
                encrypts: ByteLen(0),
                to_write: ByteLen(3_300_000_000_000),
            }],
            files: 1_234_567,
            data: ByteLen(3_210_987_654_321),
            skipped: vec![Skipped { path: "/data/link".into(), what: "symbolic link".into() }],
            warnings: vec![Problem::new(Kind::Usage, "2 names were mapped ".repeat(8)).advice("nothing ".repeat(20))],
            unplaced: vec![("c/huge.bin".into(), ByteLen(9_000_000_000_000))],
        }
    }

    #[test]
    fn a_value_goes_on_below_itself() {
        let long = "prepare it all the same, or take a drive that can be shipped; ".repeat(2);
        let text = format!("short\nNTFS            {long}\n  \u{1b}[31mrefused:\u{1b}[0m {long}\n");
        let folded = fold_values(&text);
        assert!(folded.lines().all(|line| visible(line) <= WIDTH), "{folded}");
        assert!(folded.starts_with("short\nNTFS            prepare it"), "{folded}");
        assert!(folded.lines().nth(2).is_some_and(|line| line.starts_with(&" ".repeat(16))), "{folded}");
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&folded), words(&text));
    }

    #[test]
    fn the_plan_fits_eighty_columns_and_says_where_things_go() {
        let text = plan(&a_plan(), Style(false), true);
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        for part in ["3 999 000 111 222", "encrypted volume", "symbolic link", "huge.bin", "4 KiB", "1 directory"] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
    }

    #[test]
    fn values_are_wrapped_beside_their_labels() {
        let text = labelled("on it now", &"word ".repeat(30));
        assert!(text.starts_with("  on it now      word word"), "{text}");
        assert!(text.lines().count() == 3 && text.lines().all(|line| line.len() <= 80), "{text}");
        assert!(text.lines().nth(1).is_some_and(|line| line.starts_with("                 word")), "{text}");
    }

    /// Two drives: one that is done but for a file, and one that failed.
    fn half_done() -> SessionReport {
        let drive = DriveResult {
            drive: facts(),
            files: 10,
            data: ByteLen(1000),
            written: ByteLen(4_000_000_000),
            manifest_hash: Some("ABCD".into()),
            record: Some("out/WD-WX12A345678.xml".into()),
            keys: dray_engine::report::DriveKeys::default(),
            left_out: vec![("/data/gone\x1b[2J.txt".into(), "vanished".into())],
            failure: None,
            free_space_untouched: true,
            outside_untouched: ByteLen(0),
            elapsed: Duration::from_secs(3700),
            timing: Timing {
                written: ByteLen(1_000_000_000),
                writing: Duration::from_secs(10),
                read_back: ByteLen(60_000_000),
                reading: Duration::from_secs(2),
            },
        };
        let failed = DriveResult {
            failure: Some(Problem::new(Kind::Drive, "write failed").at(DeviceOffset(1)).advice("replace the drive")),
            record: Some("out/failed.xml".into()),
            ..drive.clone()
        };
        SessionReport {
            drives: vec![drive, failed],
            journal: "j.jrn".into(),
            log: Some("dray-s_1.log".into()),
            log_lacks: Some("No space left on device".into()),
            records: vec!["out/WD-EARLIER.xml".into(), "out/WD-WX12A345678.xml".into()],
            open: vec!["WD-DEAD".into()],
            waiting: 0,
            interrupted: false,
            elapsed: Duration::from_secs(3700),
            windows: false,
            exports: false,
        }
    }

    #[test]
    fn the_summary_says_what_people_must_know() {
        let report = half_done();
        let text = summary("session#1", &report, false, Style(false));
        for part in [
            "1 of 2 drives failed",
            "not overwritten",
            "out/WD-WX12A345678.xml",
            "gone\\u{1b}[2J.txt: vanished",
            "1 file left out",
            "j.jrn",
            "replace the drive",
            "incomplete: lines of the log could not be written: No space left on device",
            "1h01m",
            "4.0 GB, 1.0 GB of it by this run in 10s, 100 MB/s",
            "60.0 MB in 2s, 30.0 MB/s",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
        assert!(!text.contains("out/failed.xml"), "a failed drive has nothing to upload");
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words(&text).contains("would be incomplete: it would lack WD-DEAD. First"), "{text}");
        assert!(!text.contains("To create the import job") && text.contains("out/WD-EARLIER.xml"), "{text}");
        assert!(text.contains("dray prep-import --journal j.jrn --id 'session#1' --resume"), "{text}");
        let good = |waiting, open: &[&str]| SessionReport {
            drives: vec![DriveResult { left_out: Vec::new(), ..report.drives[0].clone() }],
            log_lacks: None,
            waiting,
            open: open.iter().map(|id| (*id).to_owned()).collect(),
            ..report.clone()
        };
        // An export is continued with its account, and makes no import job.
        let of_export = SessionReport { exports: true, ..report.clone() };
        let text = summary("session#1", &of_export, false, Style(false));
        assert!(text.contains("dray export --journal j.jrn --id 'session#1' --resume --endpoint URL"), "{text}");
        assert!(!text.contains("import job") && text.contains("out/WD-EARLIER.xml"), "{text}");
        let text = summary("session#1", &good(0, &[]), false, Style(false));
        for part in ["To create the import job", "out/WD-EARLIER.xml", "--job job.toml --journal j.jrn"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let mut unfit = good(0, &[]);
        unfit.drives[0].drive.for_shipping = false;
        let text = summary("session#1", &unfit, false, Style(false));
        assert!(text.contains("No drive of this session can be shipped") && !text.contains("upload"), "{text}");
        // Failures were reported as they happened; the summary names what has to be done now.
        let text = summary("session#1", &report, true, Style(false));
        assert!(text.starts_with("Session session#1: 1 of 2 drives failed") && text.contains("--resume"), "{text}");
        assert!(text.contains("gone\\u{1b}[2J.txt: vanished") && !text.contains("replace the drive"), "{text}");
        assert!(text.lines().count() <= 8, "{text}");
        assert_eq!(summary("session#1", &good(0, &[]), true, Style(false)).lines().count(), 1);
        let text = words(&summary("session#1", &good(3, &[]), false, Style(false)));
        assert!(text.contains("it would lack 3 files on no drive yet") && !text.contains("To create the"), "{text}");
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn lengths_and_times_are_short() {
        for (bytes, text) in [(0, "0 B"), (999, "999 B"), (1000, "1.00 KB"), (12_345, "12.3 KB"), (999_499, "999 KB")] {
            assert_eq!(short(bytes), text);
        }
        for bytes in [999_500, 999_999, 9_995_000, 99_950_000, u64::MAX, 4_000_787_030_016] {
            assert!(short(bytes).len() <= 7, "{}", short(bytes));
        }
        for (s, text) in
            [(0, "0s"), (59, "59s"), (60, "1m00s"), (3599, "59m59s"), (18_720, "5h12m"), (273_600, "3d04h")]
        {
            assert_eq!(left(Duration::from_secs(s)), text);
        }
        assert_eq!(tail("WD-WX12A345678", 10), "…12A345678");
        assert_eq!(count(1, "entry"), "1 entry");
        assert_eq!(count(2, "entry"), "2 entries");
        assert_eq!((count(1, "day"), count(0, "day")), ("1 day".into(), "0 days".into()));
    }

    #[test]
    fn problems_are_told_together_with_their_advice() {
        let both = Problems(vec![
            Problem::new(Kind::Usage, "not a blob type")
                .path("dataset.csv")
                .line(3)
                .column("BlobType")
                .value("Blok")
                .advice("BlockBlob"),
            Problem::new(Kind::Usage, "missing").path("driveset.csv"),
        ]);
        let text = problems(&both, Style(false));
        assert_eq!(
            text,
            "dray: dataset.csv:3: BlobType: not a blob type (found: Blok)\n  advice: BlockBlob\n\
             dray: driveset.csv: missing\n2 problems\n"
        );
    }
}
