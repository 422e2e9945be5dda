//! `dray ls`: the files of a drive.

use clap::Args;
use dray_engine::api::inspect::{Files, Listed};
use dray_engine::report::{Kind, Problem};
use dray_engine::units::FileTime;
use serde_json::json;

use crate::exit::Exit;
use crate::key::DriveArgs;
use crate::render::{Output, clean, count};

/// Arguments of `dray ls`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Columns: bytes, when it was last written (UTC), path. A slash ends a directory.\n\nExamples:\n  \
                        dray ls /dev/sdb                         asks for the key\n  \
                        dray ls /dev/sdb --key-file 9WM35C2V.xml -R\n  \
                        dray ls volume.img Photos/2019 --json"
)]
pub struct Ls {
    #[command(flatten)]
    drive: DriveArgs,
    /// Directory or file on the drive, with / or \ between its parts
    #[arg(value_name = "PATH", default_value = "/")]
    path: String,
    /// Everything below it too
    #[arg(long, short = 'R')]
    recursive: bool,
}

impl Ls {
    /// Prints one line an entry: bytes, time of modification, path, notes.
    pub fn run(self, output: &Output) -> Exit {
        match self.list(output) {
            Ok(exit) => exit,
            Err(problem) => output.problem(problem),
        }
    }

    fn list(self, output: &Output) -> Result<Exit, Problem> {
        let opened = self.drive.open(output)?;
        let files = Files::read(&opened)?;
        let warnings = files.warnings();
        warnings.iter().for_each(|warning| output.warning(&format!("{}: {warning}", opened.found.drive.name)));
        let start = files.find(&self.path)?;
        let (mut listed, mut bytes, mut damaged) = (0, 0, 0);
        files.list(start, self.recursive, &mut |file| {
            listed += 1;
            bytes += file.size;
            damaged += u64::from(file.notes.contains(&"damaged"));
            report(&file, output);
        });
        let summary =
            json!({ "drive": opened.found.drive.name, "entries": listed, "bytes": bytes, "damaged": damaged });
        output.result("listing", summary);
        if damaged == 0 {
            return Ok(Exit::Done);
        }
        Err(Problem::new(Kind::Drive, format!("{} damaged", count(damaged, "file")))
            .drive(&opened.found.drive.name)
            .advice("what can be read of them, `dray cat` reads"))
    }
}

fn report(file: &Listed, output: &Output) {
    let modified = time(file.modified);
    if output.is_json() {
        output.object(
            "file",
            json!({
                "path": file.path,
                "directory": file.directory,
                "size": file.size,
                "modified": modified,
                "notes": file.notes,
            }),
        );
        return;
    }
    let path = format!("{}{}", clean(&file.path), if file.directory { "/" } else { "" });
    let size = if file.directory { String::new() } else { file.size.to_string() };
    let notes = if file.notes.is_empty() { String::new() } else { format!("  ({})", file.notes.join(", ")) };
    let modified = modified.get(..16).map(|time| time.replace('T', " ")).unwrap_or_default();
    output.say(&format!("{size:>15}  {modified:16}  {path}{notes}\n"));
}

/// RFC 3339 in UTC, to the second; empty for times that are none.
pub fn time(time: FileTime) -> String {
    let (seconds, _) = time.to_unix();
    let stamp = if time.0 == 0 { None } else { jiff::Timestamp::from_second(seconds).ok() };
    stamp.map(|stamp| stamp.to_string()).unwrap_or_default()
}
