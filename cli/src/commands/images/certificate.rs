//! The certificate of an erasure: a page for people, an object for programs.

use std::path::Path;

use dray_engine::api::host::{OutputFile, OutputForm, Outputs};
use dray_engine::api::image::erase::{Erased, ErasedArea, Level};
use dray_engine::report::{DriveFacts, Kind, Problem};
use serde_json::{Value, json};

use super::{pairs, places, sum};
use crate::render::json as objects;
use crate::render::page::{self, Column, Page, Tone};

/// A drive and how its erasure ended.
pub type Ended<'a> = (&'a DriveFacts, Result<Erased, Problem>);

/// Areas that no write through the drive's interface reaches, in a few words.
pub const NOT_REACHED_SHORT: &str = "HPA, DCO, remapped and spare sectors";

/// The same as sentences.
const NOT_REACHED: [&str; 3] = [
    "A host protected area (HPA) or a device configuration overlay (DCO): sectors that the drive hides were not looked for.",
    "Sectors that the drive had replaced by spare ones (remapped), and on flash the spare blocks: they may keep earlier bytes.",
    "The drive's own commands (ATA SANITIZE and SECURITY ERASE, SCSI SANITIZE, NVMe Sanitize and Format) were not used: Purge \
     is not claimed.",
];

/// A certificate that is an object may replace an earlier one.
const OBJECT: OutputForm = OutputForm {
    name: "the certificate",
    is_earlier: |head| head.starts_with(b"{\"certificate\":\"erasure\""),
    private: false,
};

/// Path of a certificate.
#[derive(Debug)]
pub enum File {
    /// A page.
    Page(OutputFile),
    /// An object.
    Object(OutputFile),
}

/// Begins a certificate: its form is that of its name.
///
/// # Errors
/// Another ending; a place where nothing can be written.
pub fn begin(path: &Path, outputs: &mut Outputs) -> Result<File, Problem> {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("html" | "htm") => outputs.begin(path, page::FORM).map(File::Page),
        Some("json") => outputs.begin(path, OBJECT).map(File::Object),
        _ => Err(Problem::new(Kind::Usage, "the certificate's form is not known by its name")
            .path(path)
            .advice("end it with .html or .json")),
    }
}

/// Writes it.
///
/// # Errors
/// When it cannot be written.
pub fn save(file: File, all: &[Ended<'_>]) -> Result<(), Problem> {
    match file {
        File::Page(file) => sheet(all).save(file),
        File::Object(mut file) => {
            file.add(format!("{}\n", object(all)).as_bytes())?;
            file.finish()
        }
    }
}

/// The level as a word for programs.
fn word(level: Level) -> &'static str {
    match level {
        Level::Clear => "clear",
        Level::CryptographicErase => "cryptographic-erase",
        Level::Discarded => "discarded",
        Level::Failed => "failed",
    }
}

/// The level as a person reads it, and what it means here.
pub fn verdict(erased: &Erased) -> (&'static str, String) {
    match erased.level {
        Level::Clear => (
            "Clear (NIST SP 800-88 Rev. 1)",
            "Every addressable sector was overwritten with zeros and read back as zero.".to_owned(),
        ),
        Level::CryptographicErase => (
            "Cryptographic erase (NIST SP 800-88 Rev. 1, section 2.6)",
            format!(
                "The keys of the BitLocker volumes that were on it are destroyed{}: every place that held them was \
                 overwritten with zeros and read back as zero. The encrypted sectors are as they were. The standard counts \
                 that as Purge only where all of its conditions hold, which nothing on a drive can show.",
                if erased.searched.is_some() { "" } else { " as far as the partition tables lead to them" },
            ),
        ),
        Level::Discarded => (
            "Discarded (no method of NIST SP 800-88)",
            "The device was given all of its sectors back, and every one was read back as zero. What its memory keeps \
             behind that, it does not report."
                .to_owned(),
        ),
        Level::Failed => ("Not erased", format!("{}.", capital(&why(erased)))),
    }
}

/// Reason why it does not count, as a sentence without full stop.
pub fn why(erased: &Erased) -> String {
    let mut reasons = Vec::new();
    for (ranges, what) in [
        (&erased.unwritten, "could not be overwritten"),
        (&erased.unreadable, "could not be read back"),
        (&erased.different, "did not read back as zero"),
    ] {
        if !ranges.is_empty() {
            reasons.push(format!("{} {what} ({})", sum(ranges), places(ranges)));
        }
    }
    if erased.opens {
        reasons.push("a BitLocker volume is still found".to_owned());
    }
    if reasons.is_empty() {
        reasons.push("not all of it was read back".to_owned());
    }
    reasons.join("; ")
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

fn place(place: ErasedArea) -> &'static str {
    match place {
        ErasedArea::Ends => "ends",
        ErasedArea::Region => "metadata",
        ErasedArea::Relocated => "boot-sectors",
        ErasedArea::Found => "found",
    }
}

fn place_words(what: ErasedArea) -> &'static str {
    match what {
        ErasedArea::Ends => "partition tables, first and last sectors of disk and volumes",
        ErasedArea::Region => "BitLocker metadata",
        ErasedArea::Relocated => "boot sectors kept elsewhere by BitLocker",
        ErasedArea::Found => "mark of BitLocker found by the search",
    }
}

/// The object of `--json`, which is the certificate for programs too.
pub fn object(all: &[Ended<'_>]) -> Value {
    json!({
        "certificate": "erasure",
        "standard": "NIST SP 800-88 Rev. 1",
        "program": concat!("dray ", env!("CARGO_PKG_VERSION")),
        "drives": all.iter().map(|(facts, ended)| match ended {
            Ok(erased) => one(erased),
            Err(problem) => json!({
                "drive": objects::facts(facts),
                "level": "failed",
                "problem": objects::problem(problem),
            }),
        }).collect::<Vec<_>>(),
    })
}

fn one(erased: &Erased) -> Value {
    let methods = erased.methods;
    let named = [("keys", methods.keys), ("discard", methods.discard), ("overwrite", methods.overwrite)];
    let named: Vec<_> = named.into_iter().filter(|(_, is_used)| *is_used).map(|(name, _)| name).collect();
    json!({
        "drive": objects::facts(&erased.drive),
        "wwn": erased.identity.wwn,
        "transport": erased.identity.transport.name(),
        "level": word(erased.level),
        "methods": named,
        "began": format!("{:.3}", erased.times[0]),
        "ended": format!("{:.3}", erased.times[1]),
        "seconds": erased.elapsed.as_secs_f64(),
        "confirmed": erased.confirmed,
        "volumes": erased.before.iter().map(|volume| json!({
            "offset": volume.range.start.0,
            "bytes": volume.range.len.0,
            "format": volume.format,
            "bitlocker": volume.bitlocker.as_ref().map(|bitlocker| json!({
                "id": bitlocker.id,
                "protectors": bitlocker.protectors,
                "encrypted": bitlocker.is_encrypted,
                "key_in_the_open": bitlocker.was_open,
            })),
        })).collect::<Vec<_>>(),
        "places": erased.places.iter().map(|(range, what)| json!({
            "offset": range.start.0,
            "bytes": range.len.0,
            "what": place(*what),
        })).collect::<Vec<_>>(),
        "searched": erased.searched.map(|len| len.0),
        "discarded": erased.discarded.map(|len| len.0),
        "overwritten": erased.overwritten.map(|len| len.0),
        "read_back": erased.read_back.0,
        "unwritten": pairs(&erased.unwritten),
        "unreadable": pairs(&erased.unreadable),
        "not_zero": pairs(&erased.different),
        "after": erased.after,
        "still_opens": erased.opens,
        "not_reached": ["hpa", "dco", "remapped", "spare"],
    })
}

fn sheet(all: &[Ended<'_>]) -> Page {
    let failed = all.iter().filter(|(_, ended)| !matches!(ended, Ok(erased) if erased.level != Level::Failed)).count();
    let lead = match all {
        [(facts, _)] => format!("{} · {}", facts.drive_id, facts.size),
        _ => format!("{} drives", all.len()),
    };
    let mut page = Page::new("Certificate of erasure", &lead);
    if all.len() > 1 {
        let tone = if failed == 0 { Tone::Good } else { Tone::Bad };
        page.verdict(
            tone,
            &format!("{} of {} erased", all.len() - failed, all.len()),
            "Each drive has its section below.",
        );
    }
    for (facts, ended) in all {
        if all.len() > 1 {
            page.section(&facts.drive_id);
        }
        match ended {
            Ok(erased) => drive(&mut page, erased),
            Err(problem) => {
                page.verdict(Tone::Bad, "Not erased", &problem.to_string());
                page.facts(identity(facts));
            }
        }
    }
    page.section("Not reached");
    for sentence in NOT_REACHED {
        page.text(sentence);
    }
    page.section("Signatures");
    page.raw("<div class=\"sign\">");
    let columns = ["Done by", "Seen by"].map(Column::text);
    page.table(&columns, &[vec![String::new(), String::new()], vec!["Date".into(), "Date".into()]]);
    page.raw("</div>");
    page
}

fn identity(facts: &DriveFacts) -> Vec<(&'static str, String)> {
    let or = |text: &Option<String>, none: &str| text.clone().unwrap_or_else(|| none.to_owned());
    vec![
        ("Serial", or(&facts.serial, "none: an image file or a device that reports none")),
        ("Model", or(&facts.model, "unknown")),
        ("Size", format!("{} ({} bytes)", facts.size, facts.size.0)),
        ("Logical sectors", format!("{} bytes", facts.sector)),
        ("Name", facts.name.clone()),
    ]
}

fn drive(page: &mut Page, erased: &Erased) {
    let (word, sentence) = verdict(erased);
    page.verdict(if erased.level == Level::Failed { Tone::Bad } else { Tone::Good }, word, &sentence);
    let mut facts = identity(&erased.drive);
    let time = |time: &jiff::Timestamp| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
    facts.extend(erased.identity.wwn.clone().map(|wwn| ("World wide name", wwn)));
    facts.extend([
        ("Attached by", erased.identity.transport.name().to_owned()),
        ("Began", time(&erased.times[0])),
        ("Ended", time(&erased.times[1])),
        ("On it before", erased.drive.contents.clone().unwrap_or_else(|| "nothing that dray knows".into())),
        ("On it now", erased.after.clone().unwrap_or_else(|| "nothing".into())),
    ]);
    facts.extend(erased.confirmed.map(|confirmed| {
        let word = if confirmed { "by the service's copy log" } else { "not: erased all the same, as asked" };
        ("Import confirmed", word.to_owned())
    }));
    page.facts(facts);
    page.subsection("What was done");
    page.table(&[Column::word("What"), Column::long("How much")], &done(erased));
    if erased.before.iter().any(|volume| volume.bitlocker.is_some()) {
        page.subsection("Volumes that were on it");
        let rows: Vec<Vec<String>> = erased
            .before
            .iter()
            .filter_map(|volume| {
                let bitlocker = volume.bitlocker.as_ref()?;
                Some(vec![volume.range.start.to_string(), bitlocker.id.clone(), bitlocker.protectors.join("; ")])
            })
            .collect();
        page.table(&[Column::number("At byte"), Column::code("BitLocker volume"), Column::long("Protectors")], &rows);
    }
    if !erased.places.is_empty() {
        wiped(page, erased);
    }
}

/// What was done, and how much of it.
fn done(erased: &Erased) -> Vec<Vec<String>> {
    let all = |len: u64| if len == erased.drive.size.0 { "all of it".to_owned() } else { format!("{len} bytes") };
    let mut done: Vec<Vec<String>> = Vec::new();
    let mut row = |what: &str, how: String| done.push(vec![what.into(), how]);
    if !erased.places.is_empty() {
        let ranges: Vec<_> = erased.places.iter().map(|(range, _)| *range).collect();
        row(
            "Places that keys hang on",
            format!("{} bytes in {} places, overwritten with zeros", sum(&ranges).0, ranges.len()),
        );
    }
    if let Some(len) = erased.searched {
        let found = erased.places.iter().filter(|(_, what)| *what == ErasedArea::Found).count();
        row("Searched for marks of BitLocker", format!("{}; {found} found, and overwritten", all(len.0)));
    } else if erased.methods.keys && erased.overwritten.is_none() {
        row("Searched for marks of BitLocker", "no, as asked: metadata that no table leads to may be left".into());
    }
    if let Some(len) = erased.discarded {
        row("Given back to the device", all(len.0));
    }
    if let Some(len) = erased.overwritten {
        row("Overwritten with zeros", all(len.0));
    }
    row("Read back", all(erased.read_back.0));
    for (what, ranges) in [
        ("Could not be overwritten", &erased.unwritten),
        ("Could not be read", &erased.unreadable),
        ("Not zero when read back", &erased.different),
    ] {
        if !ranges.is_empty() {
            row(what, places(ranges));
        }
    }
    done
}

fn wiped(page: &mut Page, erased: &Erased) {
    page.subsection("Places that were overwritten for the keys' sake");
    let rows: Vec<Vec<String>> = erased
        .places
        .iter()
        .take(PLACES_MAX)
        .map(|(range, what)| vec![range.start.to_string(), range.len.0.to_string(), place_words(*what).into()])
        .collect();
    page.table(&[Column::number("At byte"), Column::number("Bytes"), Column::text("What")], &rows);
    if erased.places.len() > PLACES_MAX {
        page.note(&format!(
            "And {} more, which the object of --report FILE.json lists.",
            erased.places.len() - PLACES_MAX
        ));
    }
}

/// Places that a page lists.
const PLACES_MAX: usize = 200;
