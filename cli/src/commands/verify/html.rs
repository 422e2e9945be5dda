//! The page that is signed and kept.

use dray_engine::job::{Answer, DriveVerdict, Verdict};
use dray_engine::units::ByteLen;

use super::{Outcome, headline, time};
use crate::render::page::{Column, Page, Tone};

/// Rows of a page: what a person reads; the lists hold all.
pub const ROWS_MAX: usize = 1000;

/// The page.
pub fn page(outcome: &Outcome) -> Page {
    let drives: Vec<&str> = outcome.drives.iter().map(name).collect();
    let lead = format!("{} · {}", drives.join(", "), jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC"));
    let mut page = Page::new("Verification", &lead);
    let (good, word, sentence) = headline(outcome);
    page.verdict(if good { Tone::Good } else { Tone::Bad }, word, &sentence);
    if !outcome.drives.is_empty() {
        totals(&mut page, outcome);
    }
    for (path, problem) in &outcome.unopened {
        page.verdict(Tone::Bad, &path.display().to_string(), &problem.to_string());
    }
    for drive in &outcome.drives {
        one(&mut page, drive);
    }
    if !outcome.bad.is_empty() {
        page.section("What is not equal");
        let rows: Vec<Vec<String>> = outcome
            .bad
            .iter()
            .map(|(index, row)| {
                let drive = outcome.drives.get(*index).map_or("", name);
                let said: Vec<&str> = row.notes.iter().chain(&row.service).map(String::as_str).collect();
                let blob = row.blob.clone().unwrap_or_else(|| row.file.clone());
                let blob = row.snapshot.as_ref().map_or(blob.clone(), |time| format!("{blob} @ {time}"));
                vec![row.verdict.word().into(), blob, ByteLen(row.length).to_string(), said.join("; "), drive.into()]
            })
            .collect();
        let columns = [
            Column::text("verdict"),
            Column::code("blob"),
            Column::number("size"),
            Column::text("what was seen"),
            Column::code("drive"),
        ];
        page.table(&columns, &rows);
        if outcome.bad_in_all > rows.len() as u64 {
            page.note(&format!("{} more; a list (--list) has all.", outcome.bad_in_all - rows.len() as u64));
        }
    }
    if let Some(unmet) = &outcome.unmet {
        page.section("Requested, and on none of the drives");
        if unmet.is_empty() {
            page.text("Everything that was requested is there.");
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

fn name(drive: &DriveVerdict) -> &str {
    drive.manifest.as_ref().and_then(|manifest| manifest.drive_id.as_deref()).unwrap_or(&drive.drive.drive_id)
}

fn totals(page: &mut Page, outcome: &Outcome) {
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
        facts.push(("Taken out to", dir.display().to_string()));
    }
    page.facts(facts);
}

fn one(page: &mut Page, drive: &DriveVerdict) {
    page.section(&format!("Drive {}", name(drive)));
    if let Some(problem) = &drive.failure {
        page.verdict(Tone::Bad, "Not verified to the end", &problem.to_string());
    }
    let facts = &drive.drive;
    let mut out = vec![
        ("Device", format!("{} ({})", facts.name, facts.size)),
        ("Serial", drive.serial.clone().unwrap_or_else(|| "an image or a device that tells none".into())),
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
    out.push(("Read", format!("{read} in {seconds:.1} s ({}/s)", ByteLen(rate as u64))));
    if drive.skipped > 0 {
        out.push(("Not asked for", format!("{} blobs", drive.skipped)));
    }
    out.extend(drive.log_status.clone().map(|status| ("Status of the service", status)));
    page.facts(out);
    page.subsection("As the service would ask");
    let rows: Vec<Vec<String>> = drive
        .checks
        .iter()
        .map(|check| {
            let answer = match check.answer {
                Answer::Yes => "yes",
                Answer::No => "NO",
                Answer::Unknown => "not known",
            };
            let status = if check.answer == Answer::No { check.status } else { "" };
            vec![check.question.into(), answer.into(), check.seen.clone(), status.into()]
        })
        .collect();
    let columns = [Column::text("question"), Column::text("answer"), Column::text("seen"), Column::code("status")];
    page.table(&columns, &rows);
    for warning in &drive.warnings {
        page.note(warning);
    }
    if !drive.log_strays.is_empty() {
        page.subsection("Named by the copy log only");
        let rows: Vec<Vec<String>> = drive.log_strays.iter().take(ROWS_MAX).map(|one| vec![one.clone()]).collect();
        page.table(&[Column::code("entry")], &rows);
    }
}
