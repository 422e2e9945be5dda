//! Man pages: the output of `clap_mangen`, with sections from the help's tail and without facts of this machine.

use std::fs;
use std::io;
use std::path::Path;

use clap::Command;
use clap_mangen::Man;

use crate::args::VERSION;

const ENVIRONMENT: &str = "\
Every option can be a variable: --wipe-free is DRAY_WIPE_FREE=true. See dray-config(1).

DRAY_CONFIG    the configuration file
DRAY_TOKEN     bearer token of `dray job ... --submit`
NO_COLOR       no colour, unless --color says otherwise";

const FILES: &str = "\
~/.config/dray/config.toml
/etc/dray/config.toml
        the first that exists sets options; --config names another";

/// Writes one page a command, `dray.1` and `dray-<command>.1`.
pub fn write(command: Command, dir: &Path) -> io::Result<()> {
    // The long one names the processor that this runs on.
    let mut command = command.long_version(VERSION);
    command.build();
    let mut names = Vec::new();
    collect(&command, &mut names);
    each(&command, &names, dir)
}

fn name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).replace(' ', "-")
}

fn collect(command: &Command, names: &mut Vec<String>) {
    names.push(name(command));
    command.get_subcommands().filter(|below| !below.is_hide_set()).for_each(|below| collect(below, names));
}

fn each(command: &Command, names: &[String], dir: &Path) -> io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        each(below, names, dir)?;
    }
    let name = name(command);
    fs::write(dir.join(format!("{name}.1")), page(command, &name, names)?)
}

fn page(command: &Command, name: &str, names: &[String]) -> io::Result<String> {
    let tail = command.get_after_long_help().or(command.get_after_help()).map(ToString::to_string);
    let man = Man::new(command.clone());
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    if command.get_arguments().any(|arg| !arg.is_hide_set()) {
        man.render_options_section(&mut out)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut out)?;
    }
    let mut text = String::new();
    for line in String::from_utf8_lossy(&out).lines() {
        // Each section brings the definition of an apostrophe along; the page needs one.
        let is_again = (line.starts_with(".ie ") || line.starts_with(".el ")) && text.contains(line);
        if !is_again {
            text.push_str(line);
            text.push('\n');
        }
    }
    for (heading, body) in tail.as_deref().map(sections).unwrap_or_default() {
        section(&heading, &body, &mut text);
    }
    section("ENVIRONMENT", ENVIRONMENT, &mut text);
    section("FILES", FILES, &mut text);
    let root = name.split('-').next().unwrap_or_default();
    let others =
        names.iter().filter(|other| *other != name && (name == root || *other == root || other.starts_with(name)));
    let others: Vec<String> = others.map(|other| format!("{other}(1)")).collect();
    section("SEE ALSO", &others.join(",\n"), &mut text);
    section("VERSION", VERSION, &mut text);
    // Plain roff is ASCII.
    Ok(text.chars().map(|c| if c.is_ascii() { c.to_string() } else { format!("\\[u{:04X}]", c as u32) }).collect())
}

/// The tail of a help text by its headings, which are not indented and end in a colon.
fn sections(tail: &str) -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> = Vec::new();
    for line in tail.lines() {
        let heading = line.strip_suffix(':').filter(|text| !text.starts_with(' ') && text.len() <= 60);
        match heading {
            Some("Exit codes") => out.push(("EXIT STATUS".into(), String::new())),
            Some("Example" | "Examples") => out.push(("EXAMPLES".into(), String::new())),
            Some(other) => out.push((other.to_uppercase(), String::new())),
            None => {
                if out.is_empty() {
                    out.push(("NOTES".into(), String::new()));
                }
                let body = &mut out.last_mut().expect("just made").1;
                body.push_str(line);
                body.push('\n');
            }
        }
    }
    out.retain(|(_, body)| !body.trim().is_empty());
    out
}

/// A section whose lines stay as they are: neither filled nor hyphenated.
fn section(heading: &str, body: &str, out: &mut String) {
    if body.trim().is_empty() {
        return;
    }
    out.push_str(&format!(".SH \"{}\"\n.nf\n", escaped(heading)));
    for line in body.trim_matches('\n').lines() {
        out.push_str(&escaped(line));
        out.push('\n');
    }
    out.push_str(".fi\n");
}

/// A line of text without troff escapes or requests, and with hyphens that can be copied.
fn escaped(line: &str) -> String {
    let text = line.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_becomes_sections_that_are_not_filled() {
        let tail = "The drives stay.\n\nExample:\n  dray x --y \\\n      z\n\nExit codes:\n    0  done\n";
        let found = sections(tail);
        let headings: Vec<_> = found.iter().map(|(heading, _)| heading.as_str()).collect();
        assert_eq!(headings, ["NOTES", "EXAMPLES", "EXIT STATUS"]);
        let mut out = String::new();
        section(&found[1].0, &found[1].1, &mut out);
        assert_eq!(out, ".SH \"EXAMPLES\"\n.nf\n  dray x \\-\\-y \\e\n      z\n.fi\n");
        assert_eq!(escaped(".br"), "\\&.br");
    }

    #[test]
    fn pages_hold_nothing_of_this_machine_and_only_ascii() {
        let mut command = crate::args::command();
        command.build();
        let mut names = Vec::new();
        collect(&command, &mut names);
        assert!(names.contains(&"dray-job-create".to_owned()) && names.len() > 20, "{names:?}");
        let verify = command.find_subcommand("verify").expect("verify");
        for (command, name) in [(&command, "dray"), (verify, "dray-verify")] {
            let page = page(command, name, &names).expect("a page");
            for heading in ["EXIT STATUS", "EXAMPLES", "ENVIRONMENT", "FILES", "SEE ALSO", "VERSION"] {
                let is_there = page.contains(&format!(".SH \"{heading}\""));
                assert!(
                    is_there
                        || name == "dray-verify" && heading == "EXIT STATUS"
                        || name == "dray" && heading == "EXAMPLES",
                    "{name}: {heading}"
                );
            }
            assert!(page.is_ascii() && !page.contains("this CPU"), "{name}");
        }
    }
}
