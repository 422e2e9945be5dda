//! Papers for the parcel and the drives. Never a key.

use std::fmt::Write as _;

use dray_engine::units::ByteLen;
use jiff::Timestamp;

use super::state::{Drive, Job};
use super::verified::Verified;
use crate::render::page::{Column, Page, escape};

/// Two columns of an address each, for the top of a paper.
fn addresses(page: &mut Page, job: &Job) {
    let to = if job.data_center.is_empty() {
        vec!["(the address that the service shows for the job)".to_owned()]
    } else {
        job.data_center.clone()
    };
    let block = |title: &str, lines: &[String]| {
        let lines: Vec<String> = lines.iter().map(|line| escape(line)).collect();
        format!("<div><dt>{title}</dt><dd>{}</dd></div>", lines.join("<br>"))
    };
    page.raw(&format!("<dl class=\"two\">{}{}</dl>", block("From", &job.sender), block("To", &to)));
}

/// The packing slip, placed on top in the parcel.
pub fn slip(job: &Job) -> Page {
    let what = if job.is_export { "empty hard drives for an export" } else { "hard drives with encrypted data" };
    let mut page = Page::new("Packing slip", &format!("Azure Import/Export: {what}"));
    addresses(&mut page, job);
    page.raw(&format!("<p class=\"big\"><span>Job</span>{}</p>", escape(&job.name)));
    page.facts([
        ("storage account", job.account.clone()),
        ("location", job.location.clone()),
        ("drives in this parcel", job.drives.len().to_string()),
        ("carrier", job.carrier.clone().unwrap_or_else(|| "____________________".into())),
        ("tracking number", job.tracking.clone().unwrap_or_else(|| "____________________".into())),
        ("comes back by", job.return_carrier.clone()),
    ]);
    let rows: Vec<Vec<String>> = job
        .drives
        .iter()
        .enumerate()
        .map(|(i, drive)| vec![(i + 1).to_string(), drive.id.clone(), "\u{2610}".into()])
        .collect();
    page.table(
        &[Column::number("No."), Column::code("Serial number of the drive"), Column::text("In the parcel")],
        &rows,
    );
    page.section("Before it is closed");
    page.raw(
        "<ul><li>Each drive in an antistatic bag, with foam around it; no cables, no adapters, no enclosures.</li>\
         <li>All drives of the job in this one parcel, and no other drives.</li>\
         <li>The job's name is on the outside of the parcel, and on the carrier's label as a reference.</li>\
         <li>No key, no drive record and no journal goes into the parcel.</li></ul>",
    );
    page
}

/// Value and weight of each drive for customs, as the sender states them.
#[derive(Clone, Debug)]
pub struct Goods {
    /// Amount for each drive, in hundredths of the currency's unit.
    pub cents: u64,
    /// Currency by its ISO 4217 code.
    pub currency: String,
    /// Weight of each drive in grams.
    pub grams: u64,
}

/// Draft of the commercial invoice that a parcel across a border needs. The sender exports; Microsoft does not.
pub fn invoice(job: &Job, goods: &Goods, now: Timestamp) -> Page {
    let count = job.drives.len() as u64;
    let amount = |cents: u64| format!("{}.{:02} {}", cents / 100, cents % 100, goods.currency);
    let weight = |grams: u64| format!("{}.{:03} kg", grams / 1000, grams % 1000);
    let mut page =
        Page::new("Commercial invoice (draft)", "For customs. Check every line, sign it, and add three copies.");
    addresses(&mut page, job);
    page.facts([
        ("date", now.strftime("%Y-%m-%d").to_string()),
        ("reference", job.name.clone()),
        ("exporter", job.sender.first().cloned().unwrap_or_default()),
        ("consignee", job.data_center.first().cloned().unwrap_or_else(|| "____________________".into())),
        ("importer of record", "____________________".into()),
        ("country of origin", "____________________".into()),
        ("carrier", job.carrier.clone().unwrap_or_else(|| "____________________".into())),
        ("tracking number", job.tracking.clone().unwrap_or_else(|| "____________________".into())),
        ("terms of delivery", "____________________".into()),
        ("reason for export", "temporary: data transfer, the drives come back".into()),
    ]);
    let columns = [
        Column::number("No."),
        Column::code("Hard disk drive, serial number"),
        Column::number("Weight"),
        Column::number("Value"),
    ];
    let row = |(i, drive): (usize, &Drive)| {
        vec![(i + 1).to_string(), drive.id.clone(), weight(goods.grams), amount(goods.cents)]
    };
    let mut rows: Vec<Vec<String>> = job.drives.iter().enumerate().map(row).collect();
    rows.push(vec![String::new(), "total".into(), weight(goods.grams * count), amount(goods.cents * count)]);
    page.table(&columns, &rows);
    page.text(
        "Used hard disk drives with encrypted data. No commercial value beyond that of the drives; not for sale.",
    );
    page.note(
        "Microsoft is neither exporter nor importer of record: customs, duties and taxes are the sender's. Packing and parcel \
         are not in the weight.",
    );
    page.raw(
        "<div class=\"sign\"><table><thead><tr><th>Name</th><th>Date</th><th>Signature</th></tr></thead><tbody>\
              <tr><td></td><td></td><td></td></tr></tbody></table></div>",
    );
    page
}

/// One label a drive, to be cut out.
pub fn labels(job: &Job) -> Page {
    let mut page =
        Page::new("Drive labels", "Cut out, and stick each on its drive; cover no hole and no serial number.");
    let mut all = String::from("<div class=\"labels\">");
    for (i, drive) in job.drives.iter().enumerate() {
        let _ = write!(
            all,
            "<section class=\"label\"><p class=\"big\"><span>Job</span>{}</p><p class=\"big\"><span>Drive {} of {}</span>{}</p>\
             <p class=\"note\">Azure Import/Export · {} · {}</p></section>",
            escape(&job.name),
            i + 1,
            job.drives.len(),
            escape(&drive.id),
            escape(&job.location),
            if job.is_export { "empty, for an export" } else { "BitLocker-encrypted" }
        );
    }
    all.push_str("</div>");
    page.raw(&all);
    page
}

/// Chain of custody of the drives: one page that travels with the files, not with the parcel.
///
/// Its statement on the contents is the verdict of a verification, or that none was made; the totals come from the
/// journal.
pub fn custody(job: &Job, verified: Option<&Verified>, now: Timestamp) -> Page {
    let mut page = Page::new("Chain of custody", "Stays with the sender. Sign each line when the drives change hands.");
    if let Some(verified) = verified {
        let (tone, word, sentence) = verified.conclude(&job.drives);
        page.verdict(tone, word, &sentence);
    }
    page.facts([
        ("job", job.name.clone()),
        ("storage account", job.account.clone()),
        ("location", job.location.clone()),
        ("made", job.created_at.strftime("%Y-%m-%d %H:%M UTC").to_string()),
        ("this paper", now.strftime("%Y-%m-%d %H:%M UTC").to_string()),
        ("prepared with", format!("dray {}", crate::args::VERSION)),
    ]);
    let columns = [
        Column::code("Drive"),
        Column::number("Files"),
        Column::number("Data"),
        Column::code("MD5 of its manifest"),
        Column::long("Verified"),
    ];
    let finding =
        |drive: &Drive| verified.map_or_else(|| "No verification was given".into(), |all| all.of(drive).words);
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let rows: Vec<Vec<String>> = job
        .drives
        .iter()
        .map(|drive| {
            vec![
                drive.id.clone(),
                drive.files.map_or("-".into(), |files| files.to_string()),
                drive.data.map_or("-".into(), |data| ByteLen(data).to_string()),
                or_dash(&drive.manifest_hash),
                if job.is_export { "-".to_owned() } else { finding(drive) },
            ]
        })
        .collect();
    page.table(&columns, &rows);
    let kept = job.drives.iter().filter(|drive| !drive.record.is_empty());
    let mut files: Vec<Vec<String>> =
        kept.map(|drive| vec![file_name(&drive.record), drive.record_sha256.clone()]).collect();
    if let Some((path, hash)) = &job.journal {
        files.push(vec![file_name(path), hash.clone()]);
    }
    if job.is_export {
        page.note(
            "The drives go out empty. Their keys are fetched from the service: they are kept apart from the drives.",
        );
    } else {
        page.table(&[Column::code("File kept by the sender"), Column::code("SHA-256")], &files);
        page.note(
            "The drive records hold the keys of the drives: they are kept apart from the drives and from this paper.",
        );
    }
    hand_overs(&mut page, job.is_export);
    page
}

/// The lines to sign.
fn hand_overs(page: &mut Page, is_export: bool) {
    let steps = [
        if is_export { "wiped" } else { "prepared" },
        if is_export { "seen to be empty" } else { "read back or verified" },
        "packed",
        "handed to the carrier",
        "received by the data center",
        "came back",
        if is_export { "verified" } else { "wiped or stored" },
    ];
    let columns = [
        Column::text("Step"),
        Column::text("Date and time"),
        Column::text("Name"),
        Column::text("Signature"),
        Column::text("Seal, remarks"),
    ];
    let empty = || vec![String::new(); columns.len() - 1];
    let rows: Vec<Vec<String>> = steps.iter().map(|step| [vec![(*step).to_owned()], empty()].concat()).collect();
    page.raw("<div class=\"sign\">");
    page.table(&columns, &rows);
    page.raw("</div>");
}

fn file_name(path: &str) -> String {
    std::path::Path::new(path).file_name().unwrap_or_default().to_string_lossy().into_owned()
}
