//! The plan as a page: the layout of each drive to scale, with its reasons.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use dray_engine::report::{DrivePlan, PlanSummary, Region, RegionKind};

use super::page::{Column, Page, Tone, escape};
use super::text::{clean, count, short};
use super::words;

/// Width of the drawing; the page scales it.
const WIDTH: f64 = 920.0;
/// Smallest width drawn.
const THIN: f64 = 1.5;
/// Rows of the table of regions.
const ROWS_MAX: usize = 200;

/// Purpose of a region.
/// All uses, in the order of the page.
const KINDS: [RegionKind; 6] = [
    RegionKind::Files,
    RegionKind::Manifest,
    RegionKind::FileSystem,
    RegionKind::Encryption,
    RegionKind::Table,
    RegionKind::Free,
];

fn name(kind: RegionKind) -> &'static str {
    match kind {
        RegionKind::Files => "Files",
        RegionKind::Manifest => "Manifest",
        RegionKind::FileSystem => "File system",
        RegionKind::Encryption => "Encryption",
        RegionKind::Table => "Partition tables",
        RegionKind::Free => "Free",
    }
}

fn colour(kind: RegionKind) -> &'static str {
    match kind {
        RegionKind::Files => "var(--c1)",
        RegionKind::Manifest => "var(--c5)",
        RegionKind::FileSystem => "var(--c2)",
        RegionKind::Encryption => "var(--c3)",
        RegionKind::Table => "var(--c4)",
        RegionKind::Free => "var(--wash)",
    }
}

fn why(kind: RegionKind) -> &'static str {
    match kind {
        RegionKind::Files => "Your files, one after the other, encrypted. The manifest names where each one goes.",
        RegionKind::Manifest => {
            "The list of every blob with the hash of every block. Its room is planned before the hashes are known."
        }
        RegionKind::FileSystem => {
            "The records and indexes that make it an NTFS volume, computed beforehand and written after the data."
        }
        RegionKind::Encryption => {
            "Three copies of the metadata that holds the wrapped keys, the moved boot sectors and their check: \
             reserved before anything else is placed, so that no file can take their place."
        }
        RegionKind::Table => "Both partition tables, and the reserved partition that Windows expects on such a drive.",
        RegionKind::Free => "Room that stays as it is, unless --wipe-free is given.",
    }
}

/// The page of a plan.
pub fn page(plan: &PlanSummary) -> Page {
    let lead = format!(
        "{} in the sources, {}; {}; cipher {}",
        count(plan.files, "file"),
        plan.data,
        count(plan.drives.len() as u64, "drive"),
        plan.cipher
    );
    let mut page = Page::new(&format!("Plan of {}", plan.session), &lead);
    if plan.unplaced.is_empty() {
        page.verdict(Tone::Good, "Everything fits.", "Nothing has been written yet; this is what would be.");
    } else {
        let what = format!("{} fit on no drive; nothing will be written.", count(plan.unplaced.len() as u64, "file"));
        page.verdict(Tone::Bad, "It does not fit.", &what);
    }
    let columns = [
        Column::code("Drive"),
        Column::text("Model"),
        Column::number("Size"),
        Column::number("Files"),
        Column::number("Data"),
        Column::number("In addition"),
        Column::number("Free"),
    ];
    let rows: Vec<Vec<String>> = plan
        .drives
        .iter()
        .map(|one| {
            let model = if one.drive.is_image { Some("image file") } else { one.drive.model.as_deref() };
            vec![
                one.drive.drive_id.clone(),
                model.unwrap_or("unknown").to_owned(),
                short(one.drive.size.0),
                grouped(one.files),
                short(one.data.0),
                short(one.overhead.0),
                short(one.free.0),
            ]
        })
        .collect();
    page.table(&columns, &rows);
    for one in &plan.drives {
        drive(&mut page, one);
    }
    notes(&mut page, plan);
    page
}

fn drive(page: &mut Page, one: &DrivePlan) {
    let id = &one.drive.drive_id;
    page.section(&format!("Drive {id}"));
    let now = one.drive.contents.clone().unwrap_or_else(|| "nothing".into());
    page.facts([
        ("opened as", one.drive.path.display().to_string()),
        ("on it now", clean(&now)),
        ("sectors", format!("{} bytes", one.drive.sector)),
        ("clusters", format!("{} bytes", grouped(one.cluster))),
        ("to write", one.to_write.to_string()),
        ("files", format!("{} in {}", grouped(one.files), count(one.dirs, "directory"))),
    ]);
    if one.encrypts.0 > 0 {
        page.facts([("encrypts", format!("{} of the volume on it, in place; its files stay", one.encrypts))]);
    }
    page.figure(
        &strip(one),
        "The drive from its first byte to its last, to scale. What is too small to be seen is drawn as a hairline.",
    );
    let mut sums: BTreeMap<RegionKind, (u64, u64)> = BTreeMap::new();
    for region in &one.regions {
        let sum = sums.entry(region.kind).or_default();
        sum.0 += region.len.0;
        sum.1 += 1;
    }
    let mut table = String::from(
        "<div class=\"wide\"><table><thead><tr><th></th><th>What</th><th class=\"n\">Bytes</th><th class=\"n\">Share</th>\
         <th>Why</th></tr></thead><tbody>",
    );
    for kind in KINDS {
        let Some((bytes, _)) = sums.get(&kind) else { continue };
        let share = *bytes as f64 * 100.0 / one.drive.size.0.max(1) as f64;
        let share = if share > 0.0 && share < 0.01 { "&lt; 0.01 %".into() } else { format!("{share:.2} %") };
        let _ = write!(
            table,
            "<tr><td style=\"width:1.6rem\"><svg width=\"12\" height=\"12\"><rect width=\"12\" height=\"12\" rx=\"2\" \
             style=\"fill:{};stroke:var(--c6);stroke-width:.6\"/></svg></td><td style=\"white-space:nowrap\">{}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{share}</td><td>{}</td></tr>",
            colour(kind),
            name(kind),
            short(*bytes),
            why(kind)
        );
    }
    table.push_str("</tbody></table></div>");
    page.raw(&table);
    if !one.directories.is_empty() {
        page.subsection("Biggest directories");
        page.figure(&directories(one), "By the bytes of the files directly in them.");
    }
    regions(page, one);
}

/// The drive as a strip with an axis.
fn strip(one: &DrivePlan) -> String {
    const TOP: f64 = 6.0;
    const HEIGHT: f64 = 56.0;
    let size = one.drive.size.0.max(1) as f64;
    let x = |at: u64| at as f64 / size * WIDTH;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} 92\" role=\"img\" aria-label=\"map of the drive\">");
    let _ = write!(svg, "<rect x=\"0\" y=\"{TOP}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" style=\"fill:var(--wash)\"/>");
    // Hairlines last, so that large neighbours do not cover them.
    let mut order: Vec<&Region> = one.regions.iter().filter(|region| region.kind != RegionKind::Free).collect();
    order.sort_by_key(|region| std::cmp::Reverse(region.len.0));
    for Region { start, len, kind, name } in order {
        let width = (len.0 as f64 / size * WIDTH).max(THIN);
        let left = x(start.0).min(WIDTH - width);
        let _ = write!(
            svg,
            "<rect x=\"{left:.2}\" y=\"{TOP}\" width=\"{width:.2}\" height=\"{HEIGHT}\" style=\"fill:{}\"><title>{}: {} \
             from byte {}</title></rect>",
            colour(*kind),
            escape(name),
            short(len.0),
            grouped(start.0)
        );
    }
    let _ = write!(
        svg,
        "<rect x=\".5\" y=\"{TOP}\" width=\"{}\" height=\"{HEIGHT}\" rx=\"2\" style=\"fill:none;stroke:var(--line)\"/>",
        WIDTH - 1.0
    );
    for quarter in 0..=4u64 {
        let at = WIDTH * quarter as f64 / 4.0;
        let anchor = ["start", "middle", "middle", "middle", "end"][quarter as usize];
        let bytes = (u128::from(one.drive.size.0) * u128::from(quarter) / 4) as u64;
        let tick = at.clamp(0.5, WIDTH - 0.5);
        let _ = write!(
            svg,
            "<line x1=\"{tick}\" x2=\"{tick}\" y1=\"{}\" y2=\"{}\" style=\"stroke:var(--c6)\"/>\
             <text class=\"t\" x=\"{at}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
            TOP + HEIGHT,
            TOP + HEIGHT + 5.0,
            TOP + HEIGHT + 20.0,
            short(bytes)
        );
    }
    svg.push_str("</svg>");
    svg
}

/// Directories as bars.
fn directories(one: &DrivePlan) -> String {
    const ROW: f64 = 26.0;
    const NAMES: f64 = 400.0;
    const NUMBERS: f64 = 200.0;
    let most = one.directories.iter().map(|(_, _, bytes)| bytes.0).max().unwrap_or(1).max(1) as f64;
    let height = ROW * one.directories.len() as f64 + 4.0;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"biggest directories\">");
    for (i, (prefix, files, bytes)) in one.directories.iter().enumerate() {
        let y = ROW * i as f64;
        let width = (bytes.0 as f64 / most * (WIDTH - NAMES - NUMBERS)).max(THIN);
        let name = if prefix.is_empty() { "/".into() } else { super::text::tail(&clean(prefix), 56) };
        let _ = write!(
            svg,
            "<text class=\"tt\" x=\"0\" y=\"{:.1}\">{}</text><rect x=\"{NAMES}\" y=\"{:.1}\" width=\"{width:.1}\" \
             height=\"14\" rx=\"1.5\" style=\"fill:var(--c1)\"/><text class=\"t\" x=\"{:.1}\" y=\"{:.1}\">{} · {}</text>",
            y + 17.0,
            escape(&name),
            y + 6.0,
            NAMES + width + 10.0,
            y + 17.0,
            short(bytes.0),
            count(*files, "file")
        );
    }
    svg.push_str("</svg>");
    svg
}

fn regions(page: &mut Page, one: &DrivePlan) {
    page.raw(&format!(
        "<details><summary>All {} regions in their order on the drive</summary>",
        grouped(one.regions.len() as u64)
    ));
    let columns = [Column::number("From byte"), Column::number("Length"), Column::text("Region")];
    let rows: Vec<Vec<String>> = one
        .regions
        .iter()
        .take(ROWS_MAX)
        .map(|region| vec![grouped(region.start.0), grouped(region.len.0), region.name.clone()])
        .collect();
    page.table(&columns, &rows);
    if one.regions.len() > ROWS_MAX {
        page.note(&format!("and {} more", grouped((one.regions.len() - ROWS_MAX) as u64)));
    }
    page.raw("</details>");
}

fn notes(page: &mut Page, plan: &PlanSummary) {
    if !plan.unplaced.is_empty() {
        page.section("Fits on no drive");
        let rows: Vec<Vec<String>> =
            plan.unplaced.iter().take(ROWS_MAX).map(|(blob, len)| vec![blob.clone(), short(len.0)]).collect();
        page.table(&[Column::code("Blob"), Column::number("Length")], &rows);
    }
    if !plan.warnings.is_empty() {
        page.section("Worth knowing before it starts");
        let mut list = String::from("<ul>");
        for warning in &plan.warnings {
            let advice = warning.advice.as_ref().map(|advice| format!(" — {}", escape(&words::advice(advice))));
            let _ = write!(list, "<li>{}{}</li>", escape(&words::line(warning)), advice.unwrap_or_default());
        }
        list.push_str("</ul>");
        page.raw(&list);
    }
    if !plan.skipped.is_empty() {
        page.section("Not copied");
        page.text("No blob can hold these entries of the sources.");
        let rows: Vec<Vec<String>> = plan
            .skipped
            .iter()
            .take(ROWS_MAX)
            .map(|one| vec![one.path.to_string_lossy().into_owned(), one.what.clone()])
            .collect();
        page.table(&[Column::code("Path"), Column::text("What")], &rows);
    }
}

/// Digits in threes.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use dray_engine::report::DriveFacts;
    use dray_engine::units::{ByteLen, DeviceOffset};

    #[test]
    fn the_page_shows_every_use_and_nothing_becomes_markup() {
        let size = ByteLen(4_000_000_000_000);
        let drive = DriveFacts { drive_id: "WD-<1>".into(), size, sector: 512, ..DriveFacts::default() };
        let region = |start, len, kind| Region {
            start: DeviceOffset(start),
            len: ByteLen(len),
            kind,
            name: format!("{kind:?} <1>"),
        };
        let plan = PlanSummary {
            session: "s#1".into(),
            drives: vec![DrivePlan {
                drive,
                regions: vec![
                    region(0, 17_408, RegionKind::Table),
                    region(20 << 20, 512, RegionKind::Encryption),
                    region(30 << 20, 3_000_000_000_000, RegionKind::Files),
                    region(3_100_000_000_000, 4096, RegionKind::FileSystem),
                    region(3_200_000_000_000, 4096, RegionKind::Manifest),
                    region(3_300_000_000_000, 700_000_000_000, RegionKind::Free),
                ],
                directories: vec![("c/<b>&".into(), 3, ByteLen(5))],
                ..DrivePlan::default()
            }],
            ..PlanSummary::default()
        };
        let html = page(&plan).finish();
        for kind in KINDS {
            assert!(html.contains(name(kind)), "{kind:?}");
        }
        assert!(!html.contains("<b>") && html.contains("c/&lt;b&gt;&amp;") && html.contains("WD-&lt;1&gt;"));
        assert!(html.contains("3\u{202f}000\u{202f}000\u{202f}000\u{202f}000"));
    }
}
