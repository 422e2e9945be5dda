//! `dray decrypt`: the unlocked volume as a plain image, for other tools.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use clap::Args;
use dray_engine::api::inspect::{Decrypted, Opened, To, decrypt};
use dray_engine::api::measure::gates;
use dray_engine::api::prepare::{Stop, Workers};
use dray_engine::report::{Kind, Problem};
use dray_engine::units::ByteLen;
use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::exit::Exit;
use crate::key::DriveArgs;
use crate::render::{Output, json as object};

/// Unreadable ranges named one by one.
const SHOWN_MAX: usize = 20;

/// Arguments of `dray decrypt`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "The image is what a driver would hand out: BitLocker's own regions read as zeros. Runs of zeros \
                        become holes. With --to - all that is said, --json too, goes to stderr.\n\nExamples:\n  \
                        dray decrypt /dev/sdb --to volume.img\n  \
                        dray decrypt /dev/sdb --key-file 9WM35C2V.xml --to - | zstd >volume.zst"
)]
pub struct Decrypt {
    #[command(flatten)]
    drive: DriveArgs,
    /// The image, which must not exist yet; - for stdout
    #[arg(long, value_name = "IMAGE")]
    to: PathBuf,
}

impl Decrypt {
    /// Writes the unlocked volume to an image or to standard output.
    pub fn run(self, output: &Output) -> Exit {
        let is_stream = self.to.as_os_str() == "-";
        let output = if is_stream { output.beside_data() } else { output.clone() };
        match self.decrypt(is_stream, &output) {
            Ok(exit) => exit,
            Err(problem) if problem.kind == Kind::Interrupted => {
                output.problem(problem.advice("the image is incomplete; start again"));
                Exit::Interrupted
            }
            Err(problem) => output.problem(problem),
        }
    }

    fn decrypt(self, is_stream: bool, output: &Output) -> Result<Exit, Problem> {
        let partial = partial(&self.to);
        if !is_stream {
            // Before the prompt for the key.
            is_free(&self.to)?;
            is_free(&partial)?;
        }
        let opened = self.drive.open(output)?;
        let there = if is_stream { fs::metadata("/dev/stdout") } else { fs::metadata(parent(&self.to)) };
        if there.is_ok_and(|there| opened.found.would_overwrite(&there)) {
            return Err(Problem::new(Kind::Refused, "the image would be written onto the drive itself")
                .drive(&opened.found.drive.name));
        }
        if is_stream
            && let Ok(node) = fs::canonicalize("/dev/stdout")
            && fs::metadata(&node).is_ok_and(|meta| meta.file_type().is_block_device())
            && let Some(problem) = gates(&node).into_iter().next()
        {
            return Err(problem);
        }
        let environment =
            |what: &str, error: std::io::Error| Problem::new(Kind::Environment, format!("{what}: {error}"));
        let stop = interruptible().map_err(|error| environment("signals cannot be received", error))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = Workers::start(cores).map_err(|error| environment("threads cannot be started", error))?;
        let started = Instant::now();
        let carried = if is_stream {
            carry(&opened, &workers, To::Stream(&mut std::io::stdout().lock()), &stop, output)?
        } else {
            let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial);
            let file = made.map_err(|error| environment("the image cannot be made", error).path(&partial))?;
            // Only a complete image gets its final name, and no existing file is replaced.
            let carried = carry(&opened, &workers, To::File(&file), &stop, output).and_then(|carried| {
                name(&partial, &self.to)
                    .map_err(|error| environment("the image cannot be named", error).path(&self.to))?;
                Ok(carried)
            });
            let _ = fs::remove_file(&partial);
            carried?
        };
        let seconds = started.elapsed().as_secs_f64();
        Ok(report(&opened, &self.to, &carried, seconds, output))
    }
}

fn carry(opened: &Opened, workers: &Workers, to: To<'_>, stop: &Stop, output: &Output) -> Result<Decrypted, Problem> {
    let working = output.working();
    let (len, name, started) = (opened.len(), &opened.found.drive.name, Instant::now());
    decrypt::run(opened, workers, to, stop, &mut |done| {
        let rate = done.0 as f64 / started.elapsed().as_secs_f64().max(1e-3);
        working.show(
            || format!("{name}: decrypted {done} of {len}, {}/s", ByteLen(rate as u64)),
            "decrypting",
            || json!({ "drive": name, "bytes": done.0, "of": len.0, "rate": rate as u64 }),
        );
    })
}

fn report(opened: &Opened, to: &Path, carried: &Decrypted, seconds: f64, output: &Output) -> Exit {
    let exit = if carried.unreadable.is_empty() { Exit::Done } else { Exit::DriveFailed };
    let name = &opened.found.drive.name;
    let unreadable: Vec<_> = carried.unreadable.iter().map(|range| json!([range.start.0, range.len.0])).collect();
    let value = json!({
        "drive": object::facts(&opened.found.drive),
        "image": to.to_string_lossy(),
        "bytes": carried.len.0,
        "seconds": seconds,
        "unreadable": unreadable,
        "exit_code": exit.code(),
    });
    if !output.result("decrypted", value) {
        let rate = ByteLen((carried.len.0 as f64 / seconds.max(1e-3)) as u64);
        output.chat(&format!("{name}: {} decrypted to {} in {seconds:.1} s, {rate}/s\n", carried.len, to.display()));
    }
    if exit == Exit::Done {
        return exit;
    }
    let places = carried.unreadable.iter().take(SHOWN_MAX);
    let places: Vec<String> = places.map(|range| format!("{} bytes at {}", range.len.0, range.start)).collect();
    let more = if carried.unreadable.len() > SHOWN_MAX { "; …" } else { "" };
    output.problem(
        Problem::new(
            Kind::Drive,
            format!("parts of the volume could not be read and are zero in the image: {}{more}", places.join("; ")),
        )
        .drive(name),
    )
}

/// Path of the image while it is incomplete.
fn partial(to: &Path) -> PathBuf {
    let mut name = to.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

/// Gives the image its final name, unless that name has been taken meanwhile.
fn name(partial: &Path, to: &Path) -> std::io::Result<()> {
    match fs::hard_link(partial, to) {
        // File systems without links, such as exFAT.
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists && fs::symlink_metadata(to).is_err() => {
            fs::rename(partial, to)
        }
        linked => linked,
    }
}

fn parent(to: &Path) -> &Path {
    to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn is_free(path: &Path) -> Result<(), Problem> {
    let advice = match fs::symlink_metadata(path) {
        Err(_) => return Ok(()),
        Ok(there) if there.is_file() => "remove it, or name another image",
        Ok(_) => "name a new file; to write onto a device or into a pipe, use --to - and redirect stdout",
    };
    Err(Problem::new(Kind::Refused, "exists already, and nothing is overwritten").path(path).advice(advice))
}

/// Stops at the first signal; the second ends the program at once.
fn interruptible() -> std::io::Result<Stop> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, Exit::Interrupted.code().into(), flag.clone())?;
        signal_hook::flag::register(signal, flag.clone())?;
    }
    if crate::signals::hangup_counts() {
        signal_hook::flag::register(SIGHUP, flag.clone())?;
    }
    Ok(Stop::from_flag(flag))
}
