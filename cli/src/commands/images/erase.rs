//! `dray erase`: drives whose job is over, with a certificate.

use std::path::PathBuf;

use clap::Args;
use dray_engine::api::host::{GuardContext, Outputs};
use dray_engine::api::image::erase::{self, Erase as Drive, EraseRequest, Erased, Level, Methods};
use dray_engine::api::verify::Logs;
use dray_engine::report::{Kind, Problem, Problems};

use super::{certificate, no_signals, on_board, places, sum};
use crate::consent::{self, Asked, Consent, Terminal};
use crate::exit::Exit;
use crate::render::{Output, clean, labelled};
use crate::signals::{self, Signals};

/// Arguments of `dray erase`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Methods may be combined; they are carried out in the order keys, discard, overwrite. What was \
                  overwritten is read back, and only what was read back counts. Sectors that the drive hides (HPA, DCO, \
                  remapped and spare ones) are reached by none of them; the certificate says so.\n\nExamples:\n  \
                  dray erase /dev/sdb --overwrite --journal job.jrn --copy-log log.xml --report sdb.html\n  \
                  dray erase /dev/sdb /dev/sdc --keys --report erased.html --report erased.json"
)]
pub struct Erase {
    /// Drives or image files
    #[arg(value_name = "DRIVE", required = true)]
    drives: Vec<PathBuf>,
    /// Destroy what the keys of BitLocker volumes hang on, and prove that no key opens them
    #[arg(long, help_heading = "Method")]
    keys: bool,
    /// With --keys: do not search the whole drive for metadata of BitLocker that no table leads to
    #[arg(long, requires = "keys", help_heading = "Method")]
    no_search: bool,
    /// Overwrite all sectors with zeros, and read them back
    #[arg(long, help_heading = "Method")]
    overwrite: bool,
    /// Give all sectors back to the device (TRIM, UNMAP), and read back that they are zeros
    #[arg(long, help_heading = "Method")]
    discard: bool,
    /// Journal that may know the drive as prepared
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Copy log of the service: confirms that all of a drive was taken
    #[arg(long, value_name = "FILE", requires = "journal")]
    copy_log: Vec<PathBuf>,
    /// Erase also a drive that the journal knows as prepared and no copy log confirms
    #[arg(long)]
    even_unconfirmed: bool,
    /// Full serial of a drive that may be erased
    #[arg(long, value_name = "SERIAL")]
    yes: Vec<String>,
    /// Ask nothing; without consent from elsewhere a drive is refused
    #[arg(long)]
    silent: bool,
    /// Write the certificate: a page (.html) or an object (.json)
    #[arg(long, value_name = "FILE")]
    report: Vec<PathBuf>,
}

impl Erase {
    /// Erases the drives.
    pub fn run(self, output: &Output) -> Exit {
        match self.erase(output) {
            Ok(exit) => exit,
            Err(problems) => {
                output.problems(&problems);
                Exit::of_problems(&problems)
            }
        }
    }

    fn erase(self, output: &Output) -> Result<Exit, Problems> {
        let signals = Signals::install(signals::ERASE).map_err(|error| no_signals(&error))?;
        let mut problems = Problems::default();
        let mut logs = Logs::none();
        self.copy_log.iter().filter_map(|path| logs.add(path).err()).for_each(|problem| problems.push(problem));
        let mut outputs = Outputs::default();
        let inputs = self.drives.iter().map(|path| (path, "a drive"));
        let inputs = inputs.chain(self.journal.iter().map(|path| (path, "the journal")));
        inputs.chain(self.copy_log.iter().map(|path| (path, "a copy log"))).for_each(|(path, what)| {
            outputs.input(path, what);
        });
        let mut files = Vec::new();
        for path in &self.report {
            match certificate::begin(path, &mut outputs) {
                Ok(file) => files.push(file),
                Err(problem) => problems.push(problem),
            }
        }
        let request = EraseRequest {
            methods: Methods {
                keys: self.keys,
                discard: self.discard,
                overwrite: self.overwrite,
                search: !self.no_search,
            },
            context: GuardContext { sources: self.report.clone(), journal: self.journal.clone(), logs: None },
            drives: self.drives,
            journal: self.journal,
            logs,
            even_unconfirmed: self.even_unconfirmed,
        };
        let drives = match erase::look(&request) {
            Ok(drives) => drives,
            Err(mut more) => {
                problems.0.append(&mut more.0);
                Vec::new()
            }
        };
        problems.into_result()?;
        let consent = Consent { silent: self.silent, serials: self.yes };
        consent::known(&consent, &drives.iter().map(Drive::facts).collect::<Vec<_>>(), &[])?;
        let asked = drives.iter().enumerate().filter(|(_, drive)| drive.needs_consent());
        let asked: Vec<Asked<'_>> = asked.map(|(index, drive)| Asked::destroyed(index, drive.facts())).collect();
        consent::gather(&asked, &consent, &mut Terminal)?;

        let facts = drives.iter().map(|drive| (drive.facts().clone(), drive.facts().size)).collect();
        let ended: Vec<Result<Erased, Problem>> =
            on_board(output, &signals, "erasing", facts, |workers, stop, events| {
                std::thread::scope(|scope| {
                    let threads: Vec<_> = drives
                        .iter()
                        .enumerate()
                        .map(|(index, drive)| {
                            let context = erase::Context { index, workers, stop, events };
                            scope.spawn(move || drive.run(&context))
                        })
                        .collect();
                    let bug = |_| Problem::new(Kind::Internal, "the drive's thread ended in a bug");
                    threads.into_iter().map(|thread| thread.join().map_err(bug).and_then(|ended| ended)).collect()
                })
            })?;
        let all: Vec<(_, _)> = drives.iter().map(Drive::facts).zip(ended).collect();
        for file in files {
            certificate::save(file, &all)?;
        }
        Ok(report(&all, output))
    }
}

/// Prints the result.
fn report(all: &[certificate::Ended<'_>], output: &Output) -> Exit {
    let mut problems = Problems::default();
    for (facts, ended) in all {
        match ended {
            Err(problem) => problems.push(problem.clone()),
            Ok(erased) if erased.level == Level::Failed => problems.push(
                Problem::new(Kind::Different, format!("is not erased: {}", certificate::why(erased)))
                    .drive(&facts.name)
                    .advice("destroy the drive, or try again with --overwrite"),
            ),
            Ok(_) => {}
        }
    }
    let exit = if problems.0.is_empty() { Exit::Done } else { Exit::of_problems(&problems) };
    let mut object = certificate::object(all);
    object["exit_code"] = exit.code().into();
    if !output.result("erased", object) {
        all.iter().filter_map(|(_, ended)| ended.as_ref().ok()).for_each(|erased| output.chat(&text(erased)));
    }
    if !problems.0.is_empty() {
        output.problems(&problems);
    }
    exit
}

fn text(erased: &Erased) -> String {
    let (word, sentence) = certificate::verdict(erased);
    let mut text = format!("\n{}: {word}. {sentence}\n", clean(&erased.drive.name));
    if let Some(serial) = &erased.drive.serial {
        text.push_str(&labelled("serial", &clean(serial)));
    }
    text.push_str(&labelled("took", &format!("{:.1} s", erased.elapsed.as_secs_f64())));
    text.push_str(&labelled("read back", &erased.read_back.to_string()));
    if !erased.places.is_empty() {
        let ranges: Vec<_> = erased.places.iter().map(|(range, _)| *range).collect();
        let found = erased.places.iter().filter(|(_, what)| *what == erase::ErasedArea::Found).count();
        let searched = erased.searched.map_or("not searched".into(), |len| format!("{found} found in {len}"));
        text.push_str(&labelled("for the keys", &format!("{} in {} places; {searched}", sum(&ranges), ranges.len())));
    }
    for (what, ranges) in
        [("not written", &erased.unwritten), ("not read", &erased.unreadable), ("not zero", &erased.different)]
    {
        if !ranges.is_empty() {
            text.push_str(&labelled(what, &places(ranges)));
        }
    }
    text.push_str(&labelled("on it now", erased.after.as_deref().unwrap_or("nothing")));
    text.push_str(&labelled("not reached", certificate::NOT_REACHED_SHORT));
    text
}
