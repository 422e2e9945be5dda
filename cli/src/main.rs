//! `dray`: arguments in, engine calls, rendering out.

mod args;
mod commands;
mod consent;
mod exit;
mod render;
mod signals;

use std::io::Write;
use std::process::ExitCode;

use args::Parsed;
use exit::Exit;
use render::Output;

fn main() -> ExitCode {
    match args::parse(std::env::args_os().collect()) {
        Parsed::Run(cli, warnings) => {
            let output = Output::new(&cli.output);
            for warning in warnings {
                output.warning(&warning);
            }
            cli.command.run(&output).into()
        }
        Parsed::Print(text) => match std::io::stdout().write_all(text.as_bytes()) {
            Ok(()) => Exit::Done.into(),
            // `dray --help | head` closes the pipe early; that is no failure of ours.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Done.into(),
            Err(_) => Exit::Environment.into(),
        },
        Parsed::Wrong(text, exit) => {
            // Without stderr the exit code still speaks.
            let _ = std::io::stderr().write_all(text.as_bytes());
            exit.into()
        }
    }
}
