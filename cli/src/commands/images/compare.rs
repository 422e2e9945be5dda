//! `dray compare`: where two drives or images differ, and in which file.

use std::path::{Path, PathBuf};

use clap::Args;
use dray_engine::api::host::Device;
use dray_engine::api::image::Compared;
use dray_engine::api::image::compare::{self, Touched};
use dray_engine::report::{Event, Kind, Problem, Problems, Stage, Waiting};
use serde_json::json;

use super::{no_signals, on_board, pairs, places};
use crate::exit::Exit;
use crate::key::KeyArgs;
use crate::render::{Output, clean, count, json as objects, labelled};
use crate::signals::{self, Signals};

/// Files that are named one by one.
const FILES_MAX: usize = 50;

/// Arguments of `dray compare`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Both are only read. With a key for the first one, or where its volume needs none, files are named that \
                  hold a difference.\n\nExample:\n  dray compare /dev/sdb sdb.img --key-file 9WM35C2V.xml"
)]
pub struct Compare {
    /// Drive or image file
    #[arg(value_name = "A")]
    one: PathBuf,
    /// Another
    #[arg(value_name = "B")]
    other: PathBuf,
    /// Name the files of A that hold a difference; asks for a key where none is given
    #[arg(long)]
    files: bool,
    /// Number of the partition for --files
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    #[command(flatten)]
    key: KeyArgs,
}

impl Compare {
    /// Compares them.
    pub fn run(self, output: &Output) -> Exit {
        match self.compare(output) {
            Ok(exit) => exit,
            Err(problems) => {
                output.problems(&problems);
                Exit::of_problems(&problems)
            }
        }
    }

    fn compare(self, output: &Output) -> Result<Exit, Problems> {
        let signals = Signals::install(signals::VERIFY).map_err(|error| no_signals(&error))?;
        let keys = self.key.read()?;
        let opened =
            if self.files || keys.are_given() { Some(keys.open(&self.one, self.partition, output)?) } else { None };
        let sides = [open(&self.one)?, open(&self.other)?];
        let facts = [&sides[0].0, &sides[1].0];
        let total = facts[0].size.min(facts[1].size);
        let names = [facts[0].name.clone(), facts[1].name.clone()];
        let lanes = vec![(facts[0].clone(), total)];
        let compared = on_board(output, &signals, "comparing", lanes, |workers, stop, events| {
            events(Event::Stage { drive: 0, stage: Stage::Verifying });
            let mut progress = |done| {
                let waiting_for = Waiting::Drive;
                events(Event::Progress { drive: 0, acknowledged: done, total, files: 0, waiting_for });
            };
            let names = [names[0].as_str(), names[1].as_str()];
            let done = compare::run([&sides[0].1, &sides[1].1], names, workers, stop, &mut progress);
            events(Event::Stage { drive: 0, stage: if done.is_ok() { Stage::Done } else { Stage::Failed } });
            done
        })??;
        let touched = match &opened {
            Some(opened) if !compared.different.is_empty() => Some(compare::touched(opened, &compared.different)?),
            _ => None,
        };
        let is_longer = facts[0].size != facts[1].size;
        let is_equal = compared.different.is_empty() && !is_longer;
        let is_read = compared.unreadable.iter().all(Vec::is_empty);
        let exit = match (is_equal, is_read) {
            (false, _) => Exit::Different,
            (true, false) => Exit::DriveFailed,
            (true, true) => Exit::Done,
        };
        let value = json!({
            "drives": facts.map(objects::facts),
            "equal": is_equal && is_read,
            "compared": compared.compared.0,
            "bytes_different": compared.bytes,
            "different": pairs(&compared.different),
            "unreadable": [pairs(&compared.unreadable[0]), pairs(&compared.unreadable[1])],
            "files": touched.as_ref().map(|(files, _)| files.iter().map(|file| json!({
                "path": file.path,
                "bytes_different": file.bytes,
                "first": file.first,
            })).collect::<Vec<_>>()),
            "outside_files": touched.as_ref().map(|(_, rest)| rest),
            "exit_code": exit.code(),
        });
        if !output.result("compared", value) {
            output.say(&text(
                &compared,
                touched.as_ref(),
                names.each_ref().map(|name| clean(name)),
                is_longer.then_some(if facts[0].size > facts[1].size { 0 } else { 1 }),
            ));
        }
        if !is_read {
            for (ranges, name) in compared.unreadable.iter().zip(&names).filter(|(ranges, _)| !ranges.is_empty()) {
                let what = format!("parts could not be read, and were not compared: {}", places(ranges));
                output.problem(Problem::new(Kind::Drive, what).drive(name));
            }
        }
        Ok(exit)
    }
}

fn open(path: &Path) -> Result<(dray_engine::report::DriveFacts, Device), Problem> {
    compare::open(path)
}

fn text(
    compared: &Compared,
    touched: Option<&(Vec<Touched>, u64)>,
    names: [String; 2],
    longer: Option<usize>,
) -> String {
    let [one, other] = &names;
    let mut text = if compared.different.is_empty() {
        format!("\n{one} and {other}: no difference in {}\n", compared.compared)
    } else {
        let bytes = count(compared.bytes, "byte");
        format!("\n{one} and {other} differ: {bytes} in {}\n", count(compared.different.len() as u64, "place"))
    };
    if !compared.different.is_empty() {
        text.push_str(&labelled("places", &places(&compared.different)));
    }
    if let Some(longer) = longer {
        text.push_str(&labelled(
            "longer",
            &format!("{}; what it has beyond the other was not compared", names[longer]),
        ));
    }
    if let Some((files, rest)) = touched {
        for file in files.iter().take(FILES_MAX) {
            let bytes = count(file.bytes, "byte");
            text.push_str(&labelled("file", &format!("{}: {bytes}, from byte {} on", clean(&file.path), file.first)));
        }
        if files.len() > FILES_MAX {
            text.push_str(&labelled("", &format!("and {} more", files.len() - FILES_MAX)));
        }
        if *rest > 0 {
            text.push_str(&labelled("no file", &count(*rest, "byte")));
        }
    }
    text
}
