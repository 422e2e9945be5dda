//! Arguments: two spellings, the modern and the classic one, that end in the same parsed command.

pub mod classic;
mod classic_preview;
mod classic_repair;
mod classic_repair_export;
mod classic_unlock;
mod classic_words;
pub mod selection;
pub mod settings;
pub mod size;
mod trust;
mod version;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, ColorChoice, CommandFactory, FromArgMatches, Parser, ValueEnum};
use dray_engine::report::Problems;

use crate::commands::Command;
use crate::commands::prep::IDLE_IN_PLANS;
use crate::exit::Exit;

use settings::{Outside, Setting};

pub use version::SHORT as VERSION;

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "dray",
    about = "Prepares drives for Azure Import/Export on Linux, at the speed of the device",
    after_help = "`dray help COMMAND` explains a command.\n\n\
                  The syntax of WAImportExport.exe works too:\n  \
                  dray PrepImport /j:J.jrn /id:session#1 /InitialDriveSet:D.csv /DataSet:F.csv\n\n\
                  No drive at hand? Try `dray demo`.",
    after_long_help = long_tail(),
    subcommand_required = true,
    max_term_width = 80,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
    /// Output options.
    #[command(flatten)]
    pub output: OutputArgs,
    /// The command's name.
    #[arg(skip)]
    pub name: String,
}

/// Options of every command.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Print one JSON object a line on stdout, nothing else
    #[arg(long, global = true)]
    pub json: bool,
    /// Print results and problems only
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print every note of the engine and every file left out
    #[arg(long, short, global = true)]
    pub verbose: bool,
    /// When to use colour (NO_COLOR is respected)
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    #[arg(help = "Colour: auto, always, never (NO_COLOR is respected)")]
    pub color: Color,
    /// Run CMD at the end, with the result as JSON on its stdin
    #[arg(long, global = true, value_name = "CMD")]
    #[arg(
        long_help = "Run CMD by /bin/sh at the end, with one JSON object on its stdin: command, exit_code, meaning, \
                       result, problems. How CMD ends changes nothing"
    )]
    pub on_finish: Option<String>,
    /// Seconds between progress lines
    #[arg(long, global = true, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    #[arg(
        long_help = "Seconds between two progress lines of a drive where the output is not a terminal (default 30), and \
                       between two progress objects of --json (default 1)"
    )]
    pub progress_every: Option<u64>,
    /// Keep the progress in FILE, in Prometheus' text format
    #[arg(long, global = true, value_name = "FILE")]
    #[arg(
        long_help = "Keep the progress of each drive in FILE, in Prometheus' text format, for node_exporter's textfile \
                       collector (a name that ends in .prom); replaced every 10 s, or as --progress-every says"
    )]
    pub metrics_file: Option<PathBuf>,
    /// Configuration file (see `dray config --help`)
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Use of colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Even when the output is no terminal.
    Always,
    /// Not even on a terminal.
    Never,
}

/// Result of parsing.
#[derive(Debug)]
pub enum Parsed {
    /// A command to run, with warnings to print first.
    Run(Box<Cli>, Vec<String>),
    /// Text for stdout, then success: help and version.
    Print(String),
    /// An error message for stderr.
    Wrong(String, Exit),
    /// Problems of variables or the configuration file.
    Unset(Problems),
}

fn long_tail() -> String {
    format!(
        "{}\nSignals: the first SIGINT or SIGTERM ends at the next safe place, the second at\nonce; \
         SIGHUP (the terminal is gone) as the first, unless started with nohup;\nSIGUSR1 prints a status block.\n\n\
         Every option can be set by a variable or in a file too: --wipe-free by\nDRAY_WIPE_FREE=true. \
         See `dray config --help`.\n\n{}",
        Exit::help(),
        classic::HELP
    )
}

/// Parses all of `argv`, the program's name included.
pub fn parse(argv: Vec<OsString>) -> Parsed {
    let by_name = argv.first().is_some_and(|name| is_windows_name(name));
    if argv.len() < 2 {
        return Parsed::Print(if by_name { classic::HELP.into() } else { plain_help() });
    }
    let argv = if by_name { argv } else { plain_words(argv) };
    match classic::parse(&argv[1..], by_name) {
        Some(Ok(translated)) => {
            let words = std::iter::once(OsString::from("dray")).chain(translated.modern);
            let parsed = finish(words.collect(), translated.warnings);
            with_rows(parsed, translated.first_generation)
        }
        Some(Err(classic::ClassicFault { text, exit })) => Parsed::Wrong(text, exit),
        None => finish(argv, Vec::new()),
    }
}

/// Gives a first-generation session its source and its drive.
fn with_rows(mut parsed: Parsed, rows: classic::FirstGeneration) -> Parsed {
    if let Parsed::Run(cli, _) = &mut parsed
        && let Command::PrepImport(prep) = &mut cli.command
    {
        prep.set_rows(rows);
    }
    parsed
}

/// `dray help`, `dray help verify` and `dray version`, accepted because other programs accept them.
fn plain_words(argv: Vec<OsString>) -> Vec<OsString> {
    match argv[1].to_str() {
        Some("help") => {
            let mut out = vec![argv[0].clone()];
            out.extend(argv[2..].iter().filter(|word| !word.as_encoded_bytes().starts_with(b"-")).cloned());
            out.push("--help".into());
            out
        }
        Some("version") => vec![argv[0].clone(), "--version".into()],
        _ => argv,
    }
}

fn finish(argv: Vec<OsString>, mut warnings: Vec<String>) -> Parsed {
    let definition = command();
    let outside = Outside::real();
    warnings.extend(outside.strangers(&definition));
    let (argv, untyped) = match settings::layered(argv, &definition, &outside) {
        Ok(all) => all,
        Err(problems) => return Parsed::Unset(problems),
    };
    let cli = definition.try_get_matches_from(argv).and_then(|matches| {
        let name = matches.subcommand_name().unwrap_or_default().to_owned();
        Cli::from_arg_matches(&matches).map(|cli| Cli { name, ..cli })
    });
    match cli {
        Ok(cli) => Parsed::Run(Box::new(cli), warnings),
        Err(error) if !error.use_stderr() => Parsed::Print(error.render().to_string()),
        Err(error) => Parsed::Wrong(discreet(&error) + &origin_of(&error, &untyped), Exit::Usage),
    }
}

/// Source of a wrong value that was not typed, for the message.
fn origin_of(error: &clap::Error, untyped: &[Setting]) -> String {
    let named = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(name)) => name.as_str(),
        _ => return String::new(),
    };
    let option = named.trim_start_matches("--").split([' ', '=', '<', '[']).next().unwrap_or_default();
    let from = untyped.iter().find(|one| one.option == option).map(|one| settings::where_from(&one.origin));
    from.map_or_else(String::new, |from| format!("The value of --{option} comes from: {from}\n"))
}

/// The parser's message, without repeating a word that is no option: it may be a key that went astray.
fn discreet(error: &clap::Error) -> String {
    let text = error.render().to_string();
    match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(word)) if error.kind() == ErrorKind::UnknownArgument && !word.starts_with('-') => {
            text.replace(word.as_str(), "(a word that is no option)")
        }
        _ => text,
    }
}

fn plain_help() -> String {
    command().render_help().to_string()
}

/// The definition that help, completions and man pages are made from.
pub fn command() -> clap::Command {
    let plan = |plan: clap::Command| IDLE_IN_PLANS.iter().fold(plan, |plan, id| plan.mut_arg(id, |arg| arg.hide(true)));
    let command = Cli::command().color(ColorChoice::Never).version(version::SHORT).long_version(version::long());
    command.mut_subcommand("plan", plan)
}

/// Whether the program was called by the Windows tool's name.
fn is_windows_name(argv0: &std::ffi::OsStr) -> bool {
    let stem = Path::new(argv0).file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    matches!(stem.as_str(), "waimportexport" | "waimportexport.exe")
}
