//! `dray check`: input files read as a session would read them, before anything is written.

use std::path::PathBuf;

use clap::Args;
use dray_engine::job::{Linted, lint};
use dray_engine::report::Problems;
use serde_json::json;

use crate::exit::Exit;
use crate::render::{Output, count, json as objects};

/// Arguments of `dray check`.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  dray check dataset.csv driveset.csv properties.xml",
    after_long_help = "A file is known by what is in it: dataset, driveset, metadata, properties, or drive\n\
        record. Of a dataset the sources and the files that it names are looked at too.\n\
        `dray plan` checks the drives as well. `dray template` prints files to start\nfrom.\n\n\
        Example:\n  dray check dataset.csv driveset.csv properties.xml"
)]
pub struct Check {
    /// Files to check
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl Check {
    /// Checks all of them, and tells everything.
    pub fn run(self, output: &Output) -> Exit {
        let mut problems = Problems::default();
        let mut good = Vec::new();
        for file in &self.files {
            match lint(file) {
                Ok(linted) => good.push((file, linted)),
                Err(mut more) => problems.0.append(&mut more.0),
            }
        }
        let files: Vec<_> = good
            .iter()
            .map(|(file, linted)| {
                json!({
                    "path": file.to_string_lossy(),
                    "kind": linted.kind.name(),
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

fn words(linted: &Linted) -> String {
    use dray_engine::job::InputKind::{Dataset, Driveset};
    match linted.kind {
        Dataset | Driveset => format!("{} of {}", linted.kind.name(), count(linted.entries, "row")),
        kind => kind.name().to_owned(),
    }
}
