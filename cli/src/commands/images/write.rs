//! `dray write` and `dray clone`: an image, or a drive, onto others.

use std::path::{Path, PathBuf};

use clap::Args;
use dray_engine::api::host::GuardContext;
use dray_engine::api::image::ranges;
use dray_engine::api::image::write::{self, OneWritten, Write as Drives, WriteRequest, Written};
use dray_engine::api::inspect::{Inside, find};
use dray_engine::report::{DriveFacts, Kind, Problem, Problems};
use dray_engine::units::DeviceRange;
use serde_json::{Value, json};

use super::{no_signals, on_board, pairs, places, sum};
use crate::args::size;
use crate::consent::{self, Asked, Consent, Terminal};
use crate::exit::Exit;
use crate::key::KeyArgs;
use crate::render::text::hex;
use crate::render::{Output, clean, json as objects, labelled};
use crate::signals::{self, Signals};

/// Arguments of `dray write`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "The image is read once for all drives. The backup of a GPT goes to the end of each disk, and both copies \
                  say its size. The first sectors are written last, so that an unfinished drive holds no volume; all is \
                  read back. Run again after an interruption, the command resumes where the drives are durable.\n\n\
                  Examples:\n  dray write 9WM35C2V.img /dev/sdb --key-file 9WM35C2V.xml\n  \
                  dray write golden.img /dev/sdb /dev/sdc /dev/sdd --only-used"
)]
pub struct Write {
    /// The image
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// Drives, or existing image files
    #[arg(value_name = "DRIVE", required = true)]
    drives: Vec<PathBuf>,
    /// Directory for checkpoints [default: that of the image]
    #[arg(long, value_name = "DIR")]
    checkpoints: Option<PathBuf>,
    /// Write a prepared image also onto a disk of another serial, which the service would refuse
    #[arg(long)]
    not_for_shipping: bool,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `dray clone`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Reads the first drive once and writes it to the others, as `dray write` does with an image. Places that \
                  cannot be read are tried again sector by sector, and are reported.\n\nExample:\n  dray clone /dev/sdb /dev/sdc"
)]
pub struct Clone {
    /// Drive that is read
    #[arg(value_name = "FROM")]
    from: PathBuf,
    /// Drives, or existing image files
    #[arg(value_name = "TO", required = true)]
    to: Vec<PathBuf>,
    /// Number of further passes over bad sectors
    #[arg(long, value_name = "N", default_value = "1")]
    retries: u32,
    /// Keep checkpoints in this directory: run again after a kill, the command resumes
    #[arg(long, value_name = "DIR")]
    checkpoints: Option<PathBuf>,
    /// Copy a prepared drive although the service would refuse the copy
    #[arg(long)]
    not_for_shipping: bool,
    #[command(flatten)]
    common: Common,
}

/// Options of both commands.
#[derive(Args, Clone, Debug)]
struct Common {
    /// Leave out clusters that the volume does not use (with its key), and holes of the image inside an encrypted volume
    #[arg(long)]
    only_used: bool,
    /// Number of the partition for --only-used
    #[arg(long, value_name = "N", requires = "only_used")]
    partition: Option<u32>,
    /// Read no faster than this many bytes a second
    #[arg(long, value_name = "SIZE", value_parser = size::rate)]
    rate: Option<u64>,
    /// Full serial of a drive that may be destroyed
    #[arg(long, value_name = "SERIAL")]
    yes: Vec<String>,
    /// Ask nothing; without consent from elsewhere a drive is refused
    #[arg(long)]
    silent: bool,
    #[command(flatten)]
    key: KeyArgs,
}

impl Write {
    /// Writes the image.
    pub fn run(self, output: &Output) -> Exit {
        let checkpoints = self.checkpoints.or_else(|| write::checkpoints_beside(&self.image));
        ended(
            carry("write", self.image, self.drives, checkpoints, None, self.not_for_shipping, self.common, output),
            output,
        )
    }
}

impl Clone {
    /// Copies the drive.
    pub fn run(self, output: &Output) -> Exit {
        ended(
            carry(
                "clone",
                self.from,
                self.to,
                self.checkpoints,
                Some(self.retries),
                self.not_for_shipping,
                self.common,
                output,
            ),
            output,
        )
    }
}

fn ended(result: Result<Exit, Problems>, output: &Output) -> Exit {
    result.unwrap_or_else(|problems| {
        output.problems(&problems);
        Exit::of_problems(&problems)
    })
}

#[expect(clippy::too_many_arguments, reason = "what two commands give")]
fn carry(
    command: &'static str,
    source: PathBuf,
    drives: Vec<PathBuf>,
    checkpoints: Option<PathBuf>,
    retries: Option<u32>,
    not_for_shipping: bool,
    common: Common,
    output: &Output,
) -> Result<Exit, Problems> {
    let resumes = checkpoints.is_some();
    let advice = if resumes { signals::AGAIN } else { signals::ANEW };
    let signals = Signals::install(advice).map_err(|error| no_signals(&error))?;
    if source.extension().is_some_and(|end| end == "gz" || end == "zst") {
        output.chat(&format!("{}: read once for its length\n", clean(&source.display().to_string())));
    }
    let (unused, drive_id) = inside(&source, &common, output)?;
    let drives = Drives::look(WriteRequest {
        source,
        drives,
        unused,
        drive_id,
        not_for_shipping,
        checkpoints,
        retries,
        rate: common.rate,
        context: GuardContext::default(),
    })?;
    let consent = Consent { silent: common.silent, serials: common.yes };
    let asked = drives.drives();
    consent::known(&consent, &asked.iter().map(|(facts, _)| *facts).collect::<Vec<_>>(), &[])?;
    let needed = asked.iter().enumerate().filter(|(_, (_, is_needed))| *is_needed);
    let needed: Vec<Asked<'_>> = needed.map(|(index, (facts, _))| Asked::destroyed(index, facts)).collect();
    consent::gather(&needed, &consent, &mut Terminal)?;
    for (facts, at) in drives.continues() {
        output.chat(&format!("{}: continues at byte {at}, where an earlier run was durable\n", clean(&facts.name)));
    }
    let facts = asked.iter().map(|(facts, _)| ((*facts).clone(), drives.to_read())).collect();
    let written =
        on_board(output, &signals, "writing", facts, |workers, stop, events| drives.run(workers, stop, events))?;
    let written = written.map_err(|problem| match (problem.kind, resumes) {
        (Kind::Interrupted, true) => problem.advice("the drives hold no volume: run the same command again"),
        (Kind::Interrupted, _) => problem.advice("the drives hold no volume: begin again"),
        _ => problem,
    })?;
    Ok(report(command, &written, output))
}

/// Unused ranges of the source and the drive that it was prepared for, as far as a key shows.
fn inside(source: &Path, common: &Common, output: &Output) -> Result<(Vec<DeviceRange>, Option<String>), Problem> {
    let keys = common.key.read()?;
    if !common.only_used && !keys.are_given() {
        return Ok((Vec::new(), None));
    }
    let found = find::open(source, common.partition)?;
    let is_locked = matches!(found.inside, Inside::BitLocker(_)) && found.needs_key();
    if is_locked && !keys.are_given() && source.is_file() {
        let file = std::fs::File::open(source)
            .map_err(|error| Problem::new(Kind::Usage, format!("cannot be read: {error}")).path(source))?;
        let holes = ranges::never_written(&found, &file)
            .map_err(|error| Problem::new(Kind::Usage, format!("its holes cannot be read: {error}")).path(source))?;
        return Ok((holes, None));
    }
    let opened = keys.open_found(found, source, common.partition, output)?;
    for warning in opened.warnings() {
        output.warning(&format!("{}: {warning}", opened.found.drive.name));
    }
    let drive_id = write::prepared_for(&opened);
    let unused = if common.only_used { ranges::unused(&opened)? } else { Vec::new() };
    Ok((unused, drive_id))
}

fn report(command: &str, written: &Written, output: &Output) -> Exit {
    let mut problems = Problems::default();
    if !written.unreadable.is_empty() {
        let what = format!("parts could not be read, and are not on the copies: {}", places(&written.unreadable));
        problems.push(Problem::new(Kind::Drive, what).drive(&written.source.name));
    }
    for (facts, ended) in &written.drives {
        match ended {
            Err(problem) => problems.push(problem.clone()),
            Ok(one) if !one.different.is_empty() => {
                let what = format!("does not read back as it was written: {}", places(&one.different));
                let problem = Problem::new(Kind::Different, what).drive(&facts.name);
                problems.push(problem.advice("do not use the drive; check cable, dock and memory"));
            }
            Ok(_) => {}
        }
    }
    let exit = if problems.0.is_empty() { Exit::Done } else { Exit::of_problems(&problems) };
    if !output.result("written", object(command, written, exit)) {
        let mut text = String::new();
        for (facts, ended) in &written.drives {
            if let Ok(one) = ended {
                text.push_str(&drive(facts, one));
            }
        }
        if let Some(sha256) = &written.source_sha256 {
            text.push_str(&labelled("sha256 of the source", &hex(sha256)));
        }
        if written.left_out.0 > 0 {
            text.push_str(&labelled("not in use", &format!("{} left out", written.left_out)));
        }
        output.chat(&text);
    }
    if !problems.0.is_empty() {
        output.problems(&problems);
    }
    exit
}

fn drive(facts: &DriveFacts, one: &OneWritten) -> String {
    let word = if one.different.is_empty() { "written, reads back the same" } else { "reads back otherwise" };
    let mut text = format!("\n{}: {word}\n", clean(&facts.name));
    text.push_str(&labelled("written", &one.written.to_string()));
    text.push_str(&labelled("read back", &one.read_back.to_string()));
    text.push_str(&labelled("sha256 read back", &hex(&one.sha256)));
    if let Some(at) = one.moved_to {
        text.push_str(&labelled("partition table", &format!("its backup is at byte {at} now, the end of this disk")));
    }
    text
}

fn object(command: &str, written: &Written, exit: Exit) -> Value {
    json!({
        "command": command,
        "source": objects::facts(&written.source),
        "source_sha256": written.source_sha256.map(|hash| hex(&hash)),
        "read": written.read.0,
        "left_out": written.left_out.0,
        "unreadable": pairs(&written.unreadable),
        "seconds": written.elapsed.as_secs_f64(),
        "drives": written.drives.iter().map(|(facts, ended)| match ended {
            Ok(one) => json!({
                "drive": objects::facts(facts),
                "began": format!("{:.3}", one.times[0]),
                "ended": format!("{:.3}", one.times[1]),
                "written": one.written.0,
                "read_back": one.read_back.0,
                "sha256": hex(&one.sha256),
                "different": pairs(&one.different),
                "bytes_different": sum(&one.different).0,
                "backup_table": one.moved_to.map(|at| at.0),
                "continued_at": one.continued_at.map(|at| at.0),
            }),
            Err(problem) => json!({ "drive": objects::facts(facts), "problem": objects::problem(problem) }),
        }).collect::<Vec<_>>(),
        "exit_code": exit.code(),
    })
}
