//! `dray cat`: files of a drive, to stdout.

use std::io::{Read, Write};

use clap::Args;
use dray_engine::api::inspect::{Files, Opened};
use dray_engine::report::{Kind, Problem};

use crate::exit::Exit;
use crate::key::DriveArgs;
use crate::render::Output;

/// Bytes that are copied at a time.
const PIECE: usize = 1 << 20;

/// Arguments of `dray cat`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Nothing but the files' bytes goes to stdout; with --json the objects go to stderr.\n\nExamples:\n  \
                        dray cat /dev/sdb DriveManifest.xml --key-file 9WM35C2V.xml | less\n  \
                        dray cat volume.img 'Photos/2019/a.jpg' >a.jpg"
)]
pub struct Cat {
    #[command(flatten)]
    drive: DriveArgs,
    /// Files on the drive, with / or \ between the parts
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,
}

impl Cat {
    /// Copies each file to standard output; nothing is printed if one of them cannot be found.
    pub fn run(self, output: &Output) -> Exit {
        let output = output.beside_data();
        match self.copy(&output) {
            Ok(()) => Exit::Done,
            Err(problem) => output.problem(problem),
        }
    }

    fn copy(self, output: &Output) -> Result<(), Problem> {
        let opened = self.drive.open(output)?;
        let files = Files::read(&opened)?;
        for warning in files.warnings() {
            output.warning(&format!("{}: {warning}", opened.found.drive.name));
        }
        // All names first: no half output for a slip in the last one.
        let found: Vec<_> = self.paths.iter().map(|path| files.find(path)).collect::<Result<_, _>>()?;
        for (path, file) in self.paths.iter().zip(found) {
            if !one(&files, file, path, &opened)? {
                break;
            }
        }
        Ok(())
    }
}

/// Copies one file to stdout; `false` when the reader has closed the pipe.
fn one(
    files: &Files<'_>,
    file: dray_engine::api::inspect::FileId,
    path: &str,
    opened: &Opened,
) -> Result<bool, Problem> {
    let mut reader = files.open(file).map_err(|problem| Problem { value: Some(path.to_owned()), ..problem })?;
    let mut stdout = std::io::stdout().lock();
    let mut buffer = vec![0; PIECE];
    loop {
        let len = reader.read(&mut buffer).map_err(|error| {
            Problem::new(Kind::Drive, error.to_string()).drive(&opened.found.drive.name).value(path)
        })?;
        if len == 0 {
            return Ok(true);
        }
        match stdout.write_all(&buffer[..len]) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(false),
            Err(error) => return Err(Problem::new(Kind::Environment, format!("stdout cannot be written: {error}"))),
        }
    }
}
