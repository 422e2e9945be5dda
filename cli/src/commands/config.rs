//! `dray config show`: values of all options, and the source of each.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use dray_engine::report::{Kind, Problem, Problems};
use serde_json::json;

use crate::args;
use crate::args::settings::{self, Origin, Outside, Setting};
use crate::exit::Exit;
use crate::render::Output;

/// Arguments of `dray config`.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  dray config show prep-import",
    after_long_help = "Every option can be set in three ways; an earlier one wins:\n  \
        1. the flag                     --wipe-free\n  \
        2. a variable                   DRAY_WIPE_FREE=true\n  \
        3. the configuration file       wipe-free = true\n\n\
        The file is TOML: --config FILE, $DRAY_CONFIG, else the first of\n\
        ~/.config/dray/config.toml and /etc/dray/config.toml. Lines at its top are for\n\
        every command that has the option, lines in a table for that command:\n\n  \
        color = \"never\"\n  \
        [prep-import]\n  \
        logdir = \"/var/log/dray\"\n  \
        [job.create]\n  \
        job = \"/etc/dray/job.toml\"\n\n\
        It holds no secrets, and it cannot consent: `yes` and `silent` are refused\n\
        there, and as variables. Root follows no file that others can change.\n\n\
        Example:\n  dray config show prep-import"
)]
pub struct Config {
    #[command(subcommand)]
    action: Action,
}

/// Subcommands of `dray config`.
#[derive(Debug, Subcommand)]
enum Action {
    /// Show what options are set to, and where each value comes from
    Show(Show),
}

/// Arguments of `dray config show`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  dray config show job create")]
struct Show {
    /// Only this command, with all its options
    command: Vec<String>,
}

impl Config {
    /// Runs the command. `file` is the path given by `--config`.
    pub fn run(self, output: &Output, file: Option<PathBuf>) -> Exit {
        let Action::Show(show) = self.action;
        match show.run(output, file) {
            Ok(()) => Exit::Done,
            Err(problems) => {
                output.problems(&problems);
                Exit::of_problems(&problems)
            }
        }
    }
}

impl Show {
    fn run(self, output: &Output, named: Option<PathBuf>) -> Result<(), Problems> {
        let root = args::command();
        let outside = Outside::real();
        let file = outside.file(named.as_deref(), &root)?;
        let mut chains = Vec::new();
        if self.command.is_empty() {
            for sub in root.get_subcommands().filter(|sub| !sub.is_hide_set()) {
                chains.push(vec![&root, sub]);
                chains.extend(sub.get_subcommands().map(|below| vec![&root, sub, below]));
            }
        } else {
            let chain = settings::chain_of(&self.command, &root).ok_or_else(|| {
                Problem::new(Kind::Usage, "unknown command")
                    .value(self.command.join(" "))
                    .advice("`dray --help` lists the commands")
            })?;
            chains.push(chain);
        }
        let place = file.path.as_ref().map_or("none".to_owned(), |path| path.display().to_string());
        let mut text = format!("configuration file: {place}\n");
        let mut objects = Vec::new();
        for chain in chains {
            let name: Vec<&str> = chain[1..].iter().map(|command| command.get_name()).collect();
            let name = name.join(" ");
            let set: Vec<Setting> = settings::resolve(&[OsString::from("dray")], &chain, &file, &outside)?
                .into_iter()
                .filter(|one| !self.command.is_empty() || one.origin != Origin::Default)
                .collect();
            if set.is_empty() {
                continue;
            }
            text.push_str(&format!("\n{}\n", output.style().bold(&name)));
            for one in set {
                let value = if one.values.is_empty() { "-".to_owned() } else { one.values.join(",") };
                let from = settings::where_from(&one.origin);
                text.push_str(format!("  {:<20} {value:<22} {from}", one.option).trim_end());
                text.push('\n');
                objects.push(json!({ "command": name, "option": one.option, "values": one.values, "from": from }));
            }
        }
        if objects.is_empty() {
            text.push_str("nothing is set: no file, no variables; `dray config show COMMAND` lists the defaults\n");
        }
        if !output.result("config", json!({ "file": file.path, "settings": objects })) {
            output.say(&text);
        }
        Ok(())
    }
}
