//! `dray completions` and `dray man`: made from the same definition as the help.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use dray_engine::report::{Kind, Problem};

use crate::args;
use crate::commands::pages;
use crate::exit::Exit;
use crate::render::Output;

/// Shells with completion scripts.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Shell {
    /// GNU Bash.
    Bash,
    /// The Z shell.
    Zsh,
    /// The friendly interactive shell.
    Fish,
}

/// Arguments of `dray completions`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  dray completions bash > /etc/bash_completion.d/dray")]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    /// Prints the script.
    pub fn run(self) -> Exit {
        let shell = match self.shell {
            Shell::Bash => clap_complete::Shell::Bash,
            Shell::Zsh => clap_complete::Shell::Zsh,
            Shell::Fish => clap_complete::Shell::Fish,
        };
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut args::command(), "dray", &mut script);
        match std::io::stdout().write_all(&script) {
            Ok(()) => Exit::Done,
            Err(_) => Exit::Environment,
        }
    }
}

/// Arguments of `dray man`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  dray man ~/.local/share/man/man1")]
pub struct Man {
    /// Directory for the pages; must exist
    dir: PathBuf,
}

impl Man {
    /// Writes one page a command, `dray.1` and `dray-<command>.1`.
    pub fn run(self, output: &Output) -> Exit {
        match pages::write(args::command().disable_help_subcommand(true), &self.dir) {
            Ok(()) => Exit::Done,
            Err(error) => output.problem(
                Problem::new(Kind::Environment, format!("the man pages could not be written: {error}")).path(&self.dir),
            ),
        }
    }
}
