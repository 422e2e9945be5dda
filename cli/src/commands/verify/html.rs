//! The page that is signed and kept.

use dray_engine::api::verify::{Answer, Check, DriveStatus, DriveVerdict, Row, Verdict};
use dray_engine::report::Kind;
use dray_engine::units::ByteLen;

use super::words::{Headline, headline};
use super::{VerifyOutcome, time, word_of};
use crate::render::count;
use crate::render::page::{Column, Page, Tone};

/// Rows of a page: as many as a person reads; the lists hold all.
pub const ROWS_MAX: usize = 1000;

/// The report of a run: verdict, drives, problems, and lines to sign on.
pub fn page(outcome: &VerifyOutcome) -> Page {
    let drives: Vec<&str> = outcome.drives.iter().map(name).collect();
    let lead =
        format!("{} · {}", drives.join(", "), dray_engine::api::host::timestamp().strftime("%Y-%m-%d %H:%M UTC"));
    let mut page = Page::new("Verification", &lead);
    let Headline { tone, word, sentence } = headline(outcome);
    page.verdict(tone, word, &sentence);
    if !outcome.drives.is_empty() {
        totals(&mut page, outcome);
    }
    for (path, problem) in &outcome.unopened {
        page.verdict(Tone::Bad, &format!("{}:", path.display()), &problem.to_string());
    }
    for drive in &outcome.drives {
        one(&mut page, drive);
    }
    for (path, first) in &outcome.doubled {
        page.note(&format!(
            "{} is the same drive as {}: it is verified and counted once.",
            path.display(),
            first.display()
        ));
    }
    reported(&mut page, outcome, "What is not equal", &|row| row.verdict.is_against());
    reported(&mut page, outcome, "What is not as it was taken out", &|row| !row.verdict.is_against() && row.changed);
    reported(&mut page, outcome, "What the service said", &|row| !row.verdict.is_against() && !row.changed);
    let shown = outcome.bad.len() as u64;
    if outcome.bad_in_all > shown {
        page.note(&format!("{} more; a list (--list) has all.", outcome.bad_in_all - shown));
    }
    if let Some(unmet) = &outcome.unmet {
        page.section("Requested, and on none of the drives");
        if unmet.is_empty() {
            page.text("Everything that was requested was found.");
        } else {
            let rows: Vec<Vec<String>> = unmet.iter().take(ROWS_MAX).map(|blob| vec![blob.clone()]).collect();
            page.table(&[Column::code("blob")], &rows);
        }
    }
    page.section("Signature");
    page.raw(
        "<dl><div><dt>Name</dt><dd>&nbsp;<br>________________________</dd></div>\
         <div><dt>Date</dt><dd>&nbsp;<br>________________________</dd></div>\
         <div><dt>Signature</dt><dd>&nbsp;<br>________________________</dd></div></dl>",
    );
    page
}

/// The rows of a kind, if there are any.
fn reported(page: &mut Page, outcome: &VerifyOutcome, heading: &str, is_meant: &dyn Fn(&Row) -> bool) {
    let rows: Vec<Vec<String>> = outcome
        .bad
        .iter()
        .filter(|(_, row)| is_meant(row))
        .map(|(index, row)| {
            let drive = outcome.drives.get(*index).map_or("", name);
            let said: Vec<&str> = row.notes.iter().chain(&row.service).map(String::as_str).collect();
            let blob = row.blob.clone().unwrap_or_else(|| row.file.clone());
            let blob = row.snapshot.as_ref().map_or(blob.clone(), |time| format!("{blob} @ {time}"));
            vec![word_of(row).into(), blob, ByteLen(row.length).to_string(), said.join("; "), drive.into()]
        })
        .collect();
    if rows.is_empty() {
        return;
    }
    page.section(heading);
    let columns = [
        Column::word("verdict"),
        Column::code("blob"),
        Column::number("size"),
        Column::long("what was seen"),
        Column::code("drive"),
    ];
    page.table(&columns, &rows);
}

fn name(drive: &DriveVerdict) -> &str {
    drive.manifest.as_ref().and_then(|manifest| manifest.drive_id.as_deref()).unwrap_or(&drive.drive.drive_id)
}

fn totals(page: &mut Page, outcome: &VerifyOutcome) {
    let columns = [Column::text(""), Column::number("blobs"), Column::number("bytes")];
    let rows: Vec<Vec<String>> = (0..6)
        .filter_map(|i| {
            let all: Vec<(Verdict, u64, u64)> = outcome.drives.iter().map(|drive| drive.counts.all()[i]).collect();
            let (count, bytes) = all.iter().fold((0, 0), |(count, bytes), one| (count + one.1, bytes + one.2));
            let verdict = all.first()?.0;
            (count > 0 || verdict == Verdict::Equal)
                .then(|| vec![verdict.word().to_owned(), count.to_string(), ByteLen(bytes).to_string()])
        })
        .collect();
    page.table(&columns, &rows);
    let mut facts = vec![("Tool", format!("dray {}", env!("CARGO_PKG_VERSION")))];
    if let Some((path, hash)) = &outcome.journal {
        facts.push(("Journal", format!("{} · SHA-256 {hash}", path.display())));
    }
    if let Some(dir) = &outcome.extracted_to {
        let all = outcome.drives.iter().map(|drive| drive.taken_out);
        let (blobs, bytes) = all.fold((0, 0), |(blobs, bytes), one| (blobs + one.0, bytes + one.1));
        facts.push(("Taken out", format!("{} ({}) to {}", count(blobs, "blob"), ByteLen(bytes), dir.display())));
    }
    page.facts(facts);
}

fn one(page: &mut Page, drive: &DriveVerdict) {
    page.section(&format!("Drive {}", name(drive)));
    if let Some(problem) = &drive.failure {
        let (tone, word) = match problem.kind {
            Kind::Interrupted => (Tone::Warn, "Stopped"),
            _ => (Tone::Bad, "Not verified to the end"),
        };
        page.verdict(tone, word, &problem.to_string());
    }
    let facts = &drive.drive;
    let mut out = vec![
        ("Device", format!("{} ({})", facts.name, facts.size)),
        ("Serial", drive.serial.clone().unwrap_or_else(|| "an image, or a device without a serial number".into())),
    ];
    out.extend(facts.model.clone().map(|model| ("Model", model)));
    out.push(("Unlocked by", drive.unlocked.clone()));
    if let Some(manifest) = &drive.manifest {
        out.push(("Manifest", format!("{} ({})", manifest.path, ByteLen(manifest.len))));
        out.push(("Manifest MD5", manifest.md5.clone()));
        out.push(("Manifest SHA-256", manifest.sha256.clone()));
        out.extend(manifest.creator.clone().map(|creator| ("Written by", creator)));
    }
    out.push(("Started", time(drive.started)));
    let rate = drive.bytes_read as f64 / drive.elapsed.as_secs_f64().max(1e-3);
    let (read, seconds) = (ByteLen(drive.bytes_read), drive.elapsed.as_secs_f64());
    let of = if drive.failure.is_some() { format!(" of {}", ByteLen(drive.bytes_asked)) } else { String::new() };
    out.push(("Read", format!("{read}{of} in {seconds:.1} s ({}/s)", ByteLen(rate as u64))));
    if drive.skipped > 0 {
        out.push(("Not asked for", count(drive.skipped, "blob")));
    }
    if drive.resumed > 0 {
        let blobs = count(drive.resumed, "blob");
        out.push(("Read by an interrupted run before, not by this one", blobs));
    }
    for (path, blobs) in &drive.unlisted {
        out.push(("Not compared", format!("{} listed by {path} alone", count(*blobs, "blob"))));
    }
    out.extend(drive.log_status.clone().map(|status| ("Status of the service", status)));
    page.facts(out);
    if drive.checks.iter().any(|check| check.status.is_some()) {
        page.subsection("As the service would ask");
        questions(page, drive, &|check| check.status.is_some());
    }
    if drive.checks.iter().any(|check| check.status.is_none()) {
        page.subsection("The drive itself");
        questions(page, drive, &|check| check.status.is_none());
    }
    for warning in drive.warnings.iter().chain(&drive.log_remarks) {
        page.note(warning);
    }
    if !drive.log_strays.is_empty() {
        page.subsection("Named by the copy log only");
        let rows: Vec<Vec<String>> = drive.log_strays.iter().take(ROWS_MAX).map(|one| vec![one.clone()]).collect();
        page.table(&[Column::code("entry")], &rows);
    }
}

/// Questions and their answers; the status that the service would give is shown only if an answer is no.
fn questions(page: &mut Page, drive: &DriveVerdict, is_meant: &dyn Fn(&Check) -> bool) {
    let is_no = |check: &&Check| check.answer == Answer::No && check.status.is_some();
    let has_status = drive.checks.iter().filter(|check| is_meant(check)).any(|check| is_no(&check));
    let rows: Vec<Vec<String>> = drive
        .checks
        .iter()
        .filter(|check| is_meant(check))
        .map(|check| {
            let answer = match check.answer {
                Answer::Yes => "yes",
                Answer::No => "NO",
                Answer::Unknown => "not known",
            };
            let status = check.status.filter(|_| check.answer == Answer::No).map_or("", DriveStatus::as_str);
            vec![check.question.into(), answer.into(), check.seen.clone(), status.into()]
        })
        .collect();
    let columns = [Column::text("question"), Column::word("answer"), Column::long("seen"), Column::code("status")];
    page.table(&columns[..if has_status { 4 } else { 3 }], &rows);
}
