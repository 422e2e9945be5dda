//! `dray`: arguments in, engine calls, rendering out.

mod account;
mod args;
mod commands;
mod consent;
mod exit;
mod job;
mod key;
mod render;
mod shard;
mod signals;

use std::io::Write;
use std::process::ExitCode;

use args::{OutputArgs, Parsed};
use exit::Exit;
use render::Output;

fn main() -> ExitCode {
    withhold_core();
    open_many();
    match args::parse(std::env::args_os().collect()) {
        Parsed::Run(cli, warnings) => {
            let output = Output::new(&cli.output);
            for warning in warnings {
                output.warning(&warning);
            }
            let output = match output.clone().with_metrics(&cli.output, &cli.name) {
                Ok(output) => output,
                Err(problem) => return output.problem(problem).into(),
            };
            let exit = cli.command.run(&output, &cli.output);
            output.finish(&cli.name, exit);
            exit.into()
        }
        Parsed::Unset(problems) => {
            Output::new(&OutputArgs::default()).problems(&problems);
            Exit::of_problems(&problems).into()
        }
        Parsed::Print(text) => match std::io::stdout().write_all(text.as_bytes()) {
            Ok(()) => Exit::Done.into(),
            // `dray --help | head` closes the pipe early; that is no failure of ours.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Done.into(),
            Err(_) => Exit::Environment.into(),
        },
        Parsed::Wrong(text, exit) => {
            // Without stderr the exit code still gives the result.
            let _ = std::io::stderr().write_all(text.as_bytes());
            exit.into()
        }
    }
}

/// Drives, their sources and their sidecars are open at once: as many as this process may have.
fn open_many() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where the limit cannot be raised, fewer files are open at once.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Keys pass through memory: no core file may take them along. One byte, because a limit of 0 does not hold for dumps that
/// are piped to a program, and 1 does (core(5)).
fn withhold_core() {
    let limit = rustix::process::Rlimit { current: Some(1), maximum: Some(1) };
    // Where the limit cannot be set, the program still has to work.
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, limit);
}
