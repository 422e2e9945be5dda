//! `dray check`: input files read as a session would read them, before anything is written.

use std::path::PathBuf;

use clap::Args;
use dray_engine::api::prepare::{InputKind, Linted, lint};
use dray_engine::report::{Problem, Problems};
use serde_json::json;

use crate::exit::Exit;
use crate::job::{Api, description};
use crate::render::{Output, count, json as objects};

/// Arguments of `dray check`.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  dray check dataset.csv driveset.csv properties.xml",
    after_long_help = "A file is known by what is in it: dataset, driveset, metadata, properties, drive record, \
        or description of a job (TOML). Of a dataset the sources and the files that it names are looked at too, as a \
        session would. `dray plan` checks the drives as well. `dray template` prints files to start from.\n\n\
        Example:\n  dray check dataset.csv driveset.csv properties.xml"
)]
pub struct CheckArgs {
    /// Files to check
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl CheckArgs {
    /// Checks all files and reports every problem.
    pub fn run(self, output: &Output) -> Exit {
        let mut problems = Problems::default();
        let mut good = Vec::new();
        for file in &self.files {
            let checked = if description::is_one(file) {
                let mut warnings = Vec::new();
                let read = description::read(file, Api::default(), None, &mut warnings);
                read.map(|_| Checked { name: description::KIND, entries: 1, warnings })
            } else {
                lint(file).map(Checked::from)
            };
            match checked {
                Ok(checked) => good.push((file, checked)),
                Err(mut more) => problems.0.append(&mut more.0),
            }
        }
        let files: Vec<_> = good
            .iter()
            .map(|(file, linted)| {
                json!({
                    "path": file.to_string_lossy(),
                    "kind": linted.name,
                    "entries": linted.entries,
                    "warnings": linted.warnings.iter().map(objects::problem).collect::<Vec<_>>(),
                })
            })
            .collect();
        if !output.result("check", json!({ "good": files, "problems": problems.0.len() })) {
            for (file, linted) in &good {
                let style = output.style();
                output.chat(&format!("{} {}: {}\n", style.green("ok"), file.display(), words(linted)));
                for warning in &linted.warnings {
                    output.note(warning);
                }
            }
        }
        if problems.0.is_empty() {
            return Exit::Done;
        }
        output.problems(&problems);
        Exit::of_problems(&problems)
    }
}

/// A valid file.
struct Checked {
    /// Kind of the file.
    name: &'static str,
    /// Rows of a table; 1 for others.
    entries: u64,
    warnings: Vec<Problem>,
}

impl From<Linted> for Checked {
    fn from(linted: Linted) -> Self {
        Self { name: linted.kind.name(), entries: linted.entries, warnings: linted.warnings }
    }
}

fn words(checked: &Checked) -> String {
    let is_table = [InputKind::Dataset, InputKind::Driveset].iter().any(|kind| kind.name() == checked.name);
    match is_table {
        true => format!("{} of {}", checked.name, count(checked.entries, "row")),
        false => checked.name.to_owned(),
    }
}
