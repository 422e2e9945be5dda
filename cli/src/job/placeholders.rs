//! Placeholders left in a description. The template marks its own lines: a value followed by `# yours` is an
//! example, to be replaced.

use std::path::Path;

use dray_engine::report::{Kind, Problem, Problems};

use crate::commands::template;

/// Comment at the end of a template line whose value is to be replaced.
const MARK: &str = "# yours";

/// Reports every line of `table` that still holds the template's value.
pub fn check(path: &Path, table: &toml::Table, problems: &mut Problems) {
    let template = template::export_job();
    let before = problems.0.len();
    for (section, key) in marked(&template) {
        let Some(sample) = value(&template, section, key) else { continue };
        let table = if section.is_empty() { Some(table) } else { table.get(section).and_then(toml::Value::as_table) };
        let Some(given) = table.and_then(|table| table.get(key)) else { continue };
        let samples = texts(&sample);
        for still in texts(given).into_iter().filter(|text| samples.contains(text)) {
            let column = if section.is_empty() { key.to_owned() } else { format!("[{section}] {key}") };
            let problem =
                Problem::new(Kind::Usage, "still is what the template says").path(path).column(column).value(still);
            // Advice given once: there may be ten such lines.
            let is_first = problems.0.len() == before;
            let advice =
                "put your own in its place; if it is yours by chance, write it in another way (capitals, ZIP+4)";
            problems.push(if is_first { problem.advice(advice) } else { problem });
        }
    }
}

/// Table and key of every marked line.
fn marked(template: &str) -> Vec<(&str, &str)> {
    let (mut section, mut out) = ("", Vec::new());
    for line in template.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            section = name;
        } else if let Some((key, rest)) = line.split_once(" = ")
            && !key.starts_with('#')
            && rest.contains(MARK)
        {
            out.push((section, key));
        }
    }
    out
}

fn value(template: &str, section: &str, key: &str) -> Option<toml::Value> {
    let table: toml::Table = template.parse().ok()?;
    let table = if section.is_empty() { &table } else { table.get(section)?.as_table()? };
    table.get(key).cloned()
}

/// A text, or those of a list.
fn texts(value: &toml::Value) -> Vec<String> {
    let all = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    all.iter().filter_map(|one| one.as_str()).map(|text| text.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(text: &str) -> Vec<String> {
        let mut problems = Problems::default();
        check(Path::new("job.toml"), &text.parse().expect("TOML"), &mut problems);
        problems.0.into_iter().map(|problem| problem.place.column.unwrap_or_default()).collect()
    }

    #[test]
    fn every_marked_line_of_both_templates_is_found_and_only_while_it_stands() {
        let all = [
            "subscription",
            "resource-group",
            "storage-account",
            "[return-address] recipient",
            "[return-address] street",
            "[return-address] city",
            "[return-address] postal-code",
            "[return-address] phone",
            "[return-address] email",
            "[return-shipping] account",
        ];
        assert_eq!(reported(template::JOB), all);
        let export = template::export_job();
        let mut with_export = all.to_vec();
        with_export.extend(["[export] blobs", "[export] prefixes", "[export] drives"]);
        assert_eq!(reported(&export), with_export);
        // Each line alone.
        for (section, key) in marked(&export) {
            let mut section_now = "";
            let lines: Vec<String> = export
                .lines()
                .map(|line| {
                    if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
                        section_now = name;
                    }
                    let is_it = section_now == section && line.starts_with(&format!("{key} = "));
                    if is_it || !line.contains(MARK) { line.to_owned() } else { String::new() }
                })
                .collect();
            let column = if section.is_empty() { key.to_owned() } else { format!("[{section}] {key}") };
            assert_eq!(reported(&lines.join("\n")), [column]);
        }
        // One of a list is enough.
        assert_eq!(reported("[export]\ndrives = [\"ZL2ABC12\", \" WD-WMATV123456 \"]"), ["[export] drives"]);
        assert_eq!(reported("subscription = \"5ab6f9c2-0000-4000-8000-1234567890ab\""), Vec::<String>::new());
    }
}
