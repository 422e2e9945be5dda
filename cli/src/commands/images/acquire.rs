//! `dray acquire`: a drive as an image, with hashes and a map of what could not be read.

use std::path::PathBuf;

use clap::Args;
use dray_engine::api::host::{OutputFile, OutputForm, Outputs};
use dray_engine::api::image::acquire::{self, Acquire as Drive, AcquireRequest, Acquired};
use dray_engine::api::image::{erase, ranges};
use dray_engine::report::{Kind, Problem, Problems};
use serde_json::{Value, json};

use super::{no_signals, on_board, pairs, places, sum, with_ending};
use crate::args::size;
use crate::exit::Exit;
use crate::key::KeyArgs;
use crate::render::text::hex;
use crate::render::{Output, clean, json as objects, labelled};
use crate::signals::{self, Signals};

/// Arguments of `dray acquire`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "The drive is only read. Places that cannot be read become holes of the image, are tried again sector by \
                  sector from both sides, and are reported. The map is that of GNU ddrescue: either program continues what the \
                  other began. Run again after an interruption, the command resumes.\n\nExamples:\n  \
                  dray acquire /dev/sdb --to sdb.img\n  dray acquire /dev/sdb --to sdb.img --only-used --key-file 9WM35C2V.xml"
)]
pub struct Acquire {
    /// Drive or image file; only read from
    #[arg(value_name = "DRIVE")]
    drive: PathBuf,
    /// The image, which must not exist yet unless its map does
    #[arg(long, value_name = "IMAGE")]
    to: PathBuf,
    /// The map [default: IMAGE.map]
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
    /// Hashes of the image and of each 4 MiB, one object a line [default: IMAGE.hashes]
    #[arg(long, value_name = "FILE")]
    hashes: Option<PathBuf>,
    /// Do not compute the MD5 of the whole: one chain, which no machine makes faster than some 0.8 GB/s
    #[arg(long)]
    no_md5: bool,
    /// Number of further passes over bad sectors
    #[arg(long, value_name = "N", default_value = "1")]
    retries: u32,
    /// Leave out clusters that the volume does not use; needs its key
    #[arg(long)]
    only_used: bool,
    /// Number of the partition for --only-used
    #[arg(long, value_name = "N", requires = "only_used")]
    partition: Option<u32>,
    /// Read no faster than this many bytes a second
    #[arg(long, value_name = "SIZE", value_parser = size::rate)]
    rate: Option<u64>,
    #[command(flatten)]
    key: KeyArgs,
}

/// The hashes may replace earlier ones.
const HASHES: OutputForm = OutputForm {
    name: "the hashes",
    is_earlier: |head| {
        let piece = b"\"piece\":4194304,";
        head.starts_with(b"{\"began\":\"") && head.windows(piece.len()).any(|part| part == piece)
    },
    private: false,
};

impl Acquire {
    /// Keeps the drive.
    pub fn run(self, output: &Output) -> Exit {
        match self.acquire(output) {
            Ok(exit) => exit,
            Err(problems) => {
                output.problems(&problems);
                Exit::of_problems(&problems)
            }
        }
    }

    fn acquire(self, output: &Output) -> Result<Exit, Problems> {
        let signals = Signals::install(signals::AGAIN).map_err(|error| no_signals(&error))?;
        let map = self.map.clone().unwrap_or_else(|| with_ending(&self.to, "map"));
        let hashes = self.hashes.clone().unwrap_or_else(|| with_ending(&self.to, "hashes"));
        let mut outputs = Outputs::default();
        outputs.input(&self.drive, "the drive");
        outputs.input(&self.to, "the image");
        outputs.input(&map, "the map");
        outputs.reserve(&self.to, "the image");
        outputs.reserve(&map, "the map");
        outputs.reserve(&acquire::drive_file(&map), "the drive's identity");
        let hashes = outputs.begin(&hashes, HASHES)?;
        let unused = if self.only_used {
            let opened = self.key.read()?.open(&self.drive, self.partition, output)?;
            ranges::unused(&opened)?
        } else {
            Vec::new()
        };
        let drive = Drive::look(AcquireRequest {
            drive: self.drive,
            image: self.to.clone(),
            map: map.clone(),
            retries: self.retries,
            unused,
            md5: !self.no_md5,
            rate: self.rate,
        })?;
        for point in &drive.mounted {
            output.warning(&format!(
                "{}: is mounted at {}: what is written meanwhile may be in the image in part",
                drive.facts().name,
                point.display()
            ));
        }
        let facts = vec![(drive.facts().clone(), drive.to_read())];
        let acquired = on_board(output, &signals, "reading", facts, |workers, stop, events| {
            drive.run(&erase::Context { index: 0, workers, stop, events })
        })?;
        let acquired = acquired.map_err(|problem| match problem.kind {
            Kind::Interrupted => problem.advice("run the same command again: it continues with what the map lacks"),
            _ => problem,
        })?;
        save(hashes, &acquired, &self.to)?;
        Ok(report(&acquired, &self.to, &map, output))
    }
}

/// The line of the whole, then one for each piece.
fn save(mut file: OutputFile, acquired: &Acquired, image: &std::path::Path) -> Result<(), Problem> {
    file.add(format!("{}\n", whole(acquired, image)).as_bytes())?;
    for piece in &acquired.pieces {
        let line = json!({
            "offset": piece.range.start.0,
            "bytes": piece.range.len.0,
            "md5": hex(&piece.md5),
            "sha256": hex(&piece.sha256),
        });
        file.add(format!("{line}\n").as_bytes())?;
    }
    file.finish()
}

fn whole(acquired: &Acquired, image: &std::path::Path) -> Value {
    json!({
        "drive": objects::facts(&acquired.drive),
        "wwn": acquired.wwn,
        "image": image.to_string_lossy(),
        "bytes": acquired.drive.size.0,
        "md5": acquired.md5.map(|md5| hex(&md5)),
        "sha256": hex(&acquired.sha256),
        "piece": acquire::PIECE_LEN,
        "began": format!("{:.3}", acquired.times[0]),
        "ended": format!("{:.3}", acquired.times[1]),
        "unreadable": pairs(&acquired.unreadable),
        "left_out": sum(&acquired.left_out).0,
        "program": concat!("dray ", env!("CARGO_PKG_VERSION")),
    })
}

fn report(acquired: &Acquired, image: &std::path::Path, map: &std::path::Path, output: &Output) -> Exit {
    let exit = if acquired.unreadable.is_empty() { Exit::Done } else { Exit::DriveFailed };
    let mut value = whole(acquired, image);
    value["map"] = map.to_string_lossy().into();
    value["read"] = acquired.read.0.into();
    value["seconds"] = acquired.elapsed.as_secs_f64().into();
    value["continued"] = acquired.is_continued.into();
    value["hashed_again"] = acquired.is_read_back.into();
    value["exit_code"] = exit.code().into();
    if !output.result("acquired", value) {
        let name = clean(&acquired.drive.name);
        let mut text = format!("\n{name}: kept as {}\n", clean(&image.to_string_lossy()));
        text.push_str(&labelled("bytes", &format!("{} ({})", acquired.drive.size.0, acquired.drive.size)));
        text.push_str(&labelled("sha256", &hex(&acquired.sha256)));
        if let Some(md5) = &acquired.md5 {
            text.push_str(&labelled("md5", &hex(md5)));
        }
        text.push_str(&labelled("took", &format!("{:.1} s", acquired.elapsed.as_secs_f64())));
        if !acquired.left_out.is_empty() {
            text.push_str(&labelled("left out", &format!("{} that are not in use", sum(&acquired.left_out))));
        }
        output.chat(&text);
    }
    if exit == Exit::Done {
        return exit;
    }
    let what = format!("parts could not be read, and are holes of the image: {}", places(&acquired.unreadable));
    let problem = Problem::new(Kind::Drive, what).drive(&acquired.drive.name).advice(format!(
        "run the same command again, with --retries, or continue with ddrescue: the map is {}",
        map.display()
    ));
    output.problem(problem);
    exit
}
