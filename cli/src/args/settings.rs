//! Values set outside the command line: `DRAY_…` variables and the configuration file. A flag takes precedence over a
//! variable, a variable over the file, the file over the default.
//!
//! They are turned into words of the command line, so that they are checked exactly like typed ones.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, Command};
use dray_engine::api::host::{Pipes, decode_text, read_input};
use dray_engine::report::{Kind, Problem, Problems};

use super::classic::nearest;
use super::trust;

/// Longest configuration file that is read.
const FILE_LEN_MAX: u64 = 1 << 20;
/// Variables that are no option.
const OTHER_VARIABLES: &[&str] = &["DRAY_CONFIG", "DRAY_TOKEN"];
/// Options that no file and no variable may set: consent to destruction is typed anew each time.
const TYPED_ONLY: &[&str] = &["yes", "silent", "even-unconfirmed", "take-over"];

/// Source of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An option on the command line.
    Flag,
    /// A variable, by name.
    Variable(String),
    /// The configuration file, with the table in it if it is not the top.
    File(PathBuf, String),
    /// The program's default.
    Default,
}

/// An option of a command and its value.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Long name, without dashes.
    pub option: String,
    /// Values; empty if not set. For a switch `true` or nothing.
    pub values: Vec<String>,
    /// Source of the values.
    pub origin: Origin,
}

/// The configuration file.
#[derive(Debug, Default)]
pub struct File {
    /// Its path; `None` without a configuration file.
    pub path: Option<PathBuf>,
    table: toml::Table,
}

/// The environment: variables by name, and possible places of a configuration file.
#[derive(Debug)]
pub struct Outside {
    variables: Vec<(String, String)>,
    config: Option<PathBuf>,
    usual: Vec<PathBuf>,
}

impl Outside {
    /// The environment of this process.
    pub fn real() -> Self {
        let variables: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, value)| name.starts_with("DRAY_") && !value.is_empty())
            .collect();
        let home = std::env::var_os("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".config")));
        let usual = home
            .into_iter()
            .map(|dir| dir.join("dray/config.toml"))
            .chain([PathBuf::from("/etc/dray/config.toml")])
            .collect();
        let config = variables.iter().find(|(name, _)| name == "DRAY_CONFIG").map(|(_, path)| path.into());
        Self { variables, config, usual }
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.variables.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Variables that begin with `DRAY_` and belong to no option, with a similar name where there is one.
    pub fn strangers(&self, definition: &Command) -> Vec<String> {
        let known: BTreeSet<String> =
            options_everywhere(definition).iter().map(|option| variable_of(option)[5..].to_owned()).collect();
        let report = self.variables.iter().filter_map(|(name, _)| {
            let stem = &name[5..];
            if known.contains(stem) || OTHER_VARIABLES.contains(&name.as_str()) {
                return None;
            }
            // Only slips: tools around dray may have variables of their own.
            let near = nearest(stem, known.iter().map(String::as_str))?;
            Some(format!("the variable {name} names no option; did you mean DRAY_{near}?"))
        });
        report.collect()
    }

    /// Reads the configuration file: the named one, else the first existing one of the usual places.
    ///
    /// # Errors
    /// The file cannot be read or holds a key that no command has.
    pub fn file(&self, named: Option<&Path>, definition: &Command) -> Result<File, Problems> {
        let named = named.or(self.config.as_deref());
        let path = match named {
            Some(path) => path.to_path_buf(),
            None => match self.usual.iter().find(|path| path.is_file()) {
                Some(path) => path.clone(),
                None => return Ok(File::default()),
            },
        };
        let problem = |what: String| Problem::new(Kind::Usage, what).path(&path);
        // A file that decides what root runs must be writable by root alone.
        if trust::is_root()
            && let Some((place, why)) = trust::fault(&path)
        {
            let what = format!("root does not follow a configuration file that others can change: {why}");
            let advice =
                "make it root's alone (chown root, chmod go-w, its directories too), or name another with --config";
            return Err(Problem::new(Kind::Refused, what)
                .path(&path)
                .value(place.display().to_string())
                .advice(advice)
                .into());
        }
        let text = read_input(&path, FILE_LEN_MAX, Pipes::Refused).and_then(|bytes| decode_text(&bytes));
        let text = text.map_err(|error| {
            problem(format!("the configuration file cannot be read: {error}"))
                .advice("name another with --config FILE, or take DRAY_CONFIG away")
        })?;
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map(|span| 1 + text[..span.start.min(text.len())].matches('\n').count() as u64);
            let fault = problem(format!("is not TOML: {}", error.message()));
            let fault = fault.advice("a line is `option = value`; see `dray config --help`");
            line.map_or_else(|| fault.clone(), |line| fault.clone().line(line))
        })?;
        let mut problems = Problems::default();
        check(&path, &table, &[definition], "", &mut problems);
        problems.into_result()?;
        Ok(File { path: Some(path), table })
    }
}

/// Whether the values of a typed-only option are all off, which gives no consent.
fn is_off(values: &[String]) -> bool {
    values.iter().all(|value| matches!(value.to_ascii_lowercase().as_str(), "0" | "false" | "no" | "off"))
}

/// The variable of an option: `--wipe-free` is `DRAY_WIPE_FREE`.
pub fn variable_of(option: &str) -> String {
    format!("DRAY_{}", option.to_ascii_uppercase().replace('-', "_"))
}

/// Advice on how to give consent.
const CONSENT: &str = "type --yes SERIAL for each drive, each time; or write SilentMode in the row of the driveset";

/// Every key of a table must be an option or a command.
fn check(path: &Path, table: &toml::Table, chain: &[&Command], name: &str, problems: &mut Problems) {
    let command = chain[chain.len() - 1];
    let mut options = options_everywhere(command);
    // Global options may appear in any command's table.
    options.extend(self::options(chain).iter().filter_map(|arg| arg.get_long().map(str::to_owned)));
    let commands: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
    for (key, value) in table {
        let spelled = key.replace('_', "-");
        let at = if name.is_empty() { key.clone() } else { format!("[{name}] {key}") };
        let problem = |what: &str| Problem::new(Kind::Usage, what).path(path).column(at.clone());
        if let toml::Value::Table(inner) = value {
            match command.find_subcommand(&spelled) {
                Some(sub) => {
                    let below = if name.is_empty() { spelled } else { format!("{name}.{spelled}") };
                    check(path, inner, &[chain, &[sub]].concat(), &below, problems);
                }
                None => problems.push(suggest(problem("is no command"), nearest(&spelled, commands.iter().copied()))),
            }
        } else if TYPED_ONLY.contains(&spelled.as_str()) {
            if texts(value).is_none_or(|values| !is_off(&values)) {
                let mut problem = problem("consent cannot be given by a configuration file");
                problem.kind = Kind::Refused;
                problems.push(problem.advice(CONSENT));
            }
        } else if !options.contains(&spelled) {
            let near = nearest(&spelled, options.iter().map(String::as_str));
            problems.push(suggest(problem("is no option"), near));
        } else if texts(value).is_none() {
            problems.push(problem("takes a text, a number, true or false, or a list of texts"));
        }
    }
}

fn suggest(problem: Problem, near: Option<&str>) -> Problem {
    match near {
        Some(near) => problem.advice(format!("did you mean {near}?")),
        None => problem.advice("`dray config show` lists what can be set"),
    }
}

/// Long names of a command's options and of those below it.
fn options_everywhere(command: &Command) -> BTreeSet<String> {
    let mut names: BTreeSet<String> =
        command.get_arguments().filter(|arg| can_be_set(arg)).filter_map(Arg::get_long).map(str::to_owned).collect();
    for sub in command.get_subcommands() {
        names.append(&mut options_everywhere(sub));
    }
    names
}

fn can_be_set(arg: &Arg) -> bool {
    let special =
        matches!(arg.get_action(), ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version);
    !special && arg.get_long().is_some_and(|long| long != "config")
}

fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::SetFalse)
}

fn texts(value: &toml::Value) -> Option<Vec<String>> {
    Some(match value {
        toml::Value::String(text) => vec![text.clone()],
        toml::Value::Integer(number) => vec![number.to_string()],
        toml::Value::Float(number) => vec![number.to_string()],
        toml::Value::Boolean(yes) => vec![yes.to_string()],
        toml::Value::Array(items) => {
            items.iter().map(|item| texts(item).filter(|one| one.len() == 1)).collect::<Option<Vec<_>>>()?.concat()
        }
        _ => return None,
    })
}

/// The command that the words select, as the chain from the root, and the index at which its own words begin.
fn command_of<'a>(words: &[OsString], root: &'a Command) -> (Vec<&'a Command>, usize) {
    let mut chain = vec![root];
    let mut at = 1;
    let mut behind = 1;
    while at < words.len() {
        let word = words[at].to_string_lossy();
        at += 1;
        if word == "--" {
            break;
        }
        if let Some(long) = word.strip_prefix("--") {
            let takes = |arg: &Arg| arg.get_long() == Some(long) && !is_switch(arg);
            if root.get_arguments().any(takes) {
                at += 1;
            }
        } else if !word.starts_with('-') {
            let here = chain[chain.len() - 1];
            match here.find_subcommand(word.as_ref()) {
                Some(sub) => {
                    chain.push(sub);
                    behind = at;
                }
                None => break,
            }
        }
    }
    (chain, behind)
}

/// The options of a command, those of every command included.
fn options<'a>(chain: &[&'a Command]) -> Vec<&'a Arg> {
    let own = chain[chain.len() - 1].get_arguments();
    let global = chain[..chain.len() - 1].iter().flat_map(|command| command.get_arguments());
    own.chain(global.filter(|arg| arg.is_global_set())).filter(|arg| can_be_set(arg)).collect()
}

/// Whether a word gives the option.
fn gives(word: &OsString, arg: &Arg) -> bool {
    let word = word.to_string_lossy();
    if let Some(long) = word.strip_prefix("--") {
        return arg.get_long() == Some(long.split('=').next().unwrap_or_default());
    }
    // Short options are switches: `-qv`.
    let short = word.strip_prefix('-').filter(|rest| !rest.is_empty());
    short.is_some_and(|rest| arg.get_short().is_some_and(|short| rest.contains(short)))
}

/// The value and the source of every option of a command; `words` is the whole command line.
///
/// # Errors
/// Values of variables that no switch takes.
pub fn resolve(
    words: &[OsString],
    chain: &[&Command],
    file: &File,
    outside: &Outside,
) -> Result<Vec<Setting>, Problems> {
    let typed = words.iter().position(|word| word == "--").map_or(words, |end| &words[..end]);
    let mut problems = Problems::default();
    let mut settings = Vec::new();
    for arg in options(chain) {
        let option = arg.get_long().unwrap_or_default().to_owned();
        let variable = variable_of(&option);
        let (mut values, origin) = if typed.iter().any(|word| gives(word, arg)) {
            (Vec::new(), Origin::Flag)
        } else if let Some(value) = outside.variable(&variable) {
            let many = matches!(arg.get_action(), ArgAction::Append) || arg.get_value_delimiter().is_some();
            let values = if many { value.split(',').map(str::to_owned).collect() } else { vec![value.to_owned()] };
            (values, Origin::Variable(variable.clone()))
        } else if let Some((values, table)) = file.find(chain, &option) {
            (values, Origin::File(file.path.clone().unwrap_or_default(), table))
        } else {
            let values = arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned());
            (values.filter(|value| !(is_switch(arg) && value == "false")).collect(), Origin::Default)
        };
        if is_switch(arg) && matches!(origin, Origin::Variable(_) | Origin::File(..)) {
            match values.first().map(|value| value.to_ascii_lowercase()).as_deref() {
                Some("1" | "true" | "yes" | "on") => values = vec!["true".into()],
                Some("0" | "false" | "no" | "off") => values.clear(),
                _ => problems.push(
                    Problem::new(Kind::Usage, format!("--{option} is a switch: it takes true or false"))
                        .column(where_from(&origin))
                        .value(values.join(",")),
                ),
            }
        }
        settings.push(Setting { option, values, origin });
    }
    problems.into_result().map(|()| settings)
}

/// The source of a value in words.
pub fn where_from(origin: &Origin) -> String {
    match origin {
        Origin::Flag => "command line".into(),
        Origin::Variable(name) => format!("variable {name}"),
        Origin::File(path, table) if table.is_empty() => path.display().to_string(),
        Origin::File(path, table) => format!("{} [{table}]", path.display()),
        Origin::Default => "default".into(),
    }
}

impl File {
    /// The value of an option, from the innermost table that has it, and that table's name.
    fn find(&self, chain: &[&Command], option: &str) -> Option<(Vec<String>, String)> {
        let mut found = None;
        let mut table = &self.table;
        let mut name = String::new();
        for (depth, command) in chain.iter().enumerate() {
            if depth > 0 {
                let command = command.get_name();
                let below = [command.to_owned(), command.replace('-', "_")];
                let Some(toml::Value::Table(inner)) = below.iter().find_map(|key| table.get(key)) else { break };
                table = inner;
                name = if name.is_empty() { command.to_owned() } else { format!("{name}.{command}") };
            }
            let keys = [option.to_owned(), option.replace('-', "_")];
            if let Some(values) = keys.iter().find_map(|key| table.get(key)).and_then(texts) {
                found = Some((values, name.clone()));
            }
        }
        found
    }
}

/// The chain of commands of words that name them, for `dray config show job create`.
pub fn chain_of<'a>(names: &[String], root: &'a Command) -> Option<Vec<&'a Command>> {
    let mut chain = vec![root];
    for name in names {
        chain.push(chain[chain.len() - 1].find_subcommand(name)?);
    }
    Some(chain)
}

/// The words extended by values of variables and the file, and the settings that were not typed.
///
/// # Errors
/// Problems of those values.
pub fn layered(
    words: Vec<OsString>,
    root: &Command,
    outside: &Outside,
) -> Result<(Vec<OsString>, Vec<Setting>), Problems> {
    let asks_help = |word: &OsString| matches!(word.to_str(), Some("--help" | "-h" | "--version" | "-V"));
    if words.iter().any(asks_help) {
        return Ok((words, Vec::new()));
    }
    let (chain, behind) = command_of(&words, root);
    if chain.len() < 2 || matches!(chain[1].get_name(), "config" | "completions" | "man") {
        return Ok((words, Vec::new()));
    }
    let file = outside.file(named_config(&words).as_deref(), root)?;
    let settings = resolve(&words, &chain, &file, outside)?;
    let args = options(&chain);
    let arg_of = |option: &str| args.iter().find(|arg| arg.get_long() == Some(option)).copied();
    let last = chain[chain.len() - 1];
    let typed: Vec<&Arg> = settings
        .iter()
        .filter(|setting| setting.origin == Origin::Flag)
        .filter_map(|setting| arg_of(&setting.option))
        .collect();
    let mut more = Vec::new();
    let mut problems = Problems::default();
    for setting in &settings {
        if !matches!(setting.origin, Origin::Variable(_) | Origin::File(..)) {
            continue;
        }
        if TYPED_ONLY.contains(&setting.option.as_str()) && !setting.values.is_empty() {
            let problem = Problem::new(Kind::Refused, "consent cannot be given by a variable");
            problems.push(problem.column(where_from(&setting.origin)).advice(CONSENT));
        }
        let Some(arg) = arg_of(&setting.option) else { continue };
        // A typed option takes precedence over a set one that excludes it.
        let excluded = typed.iter().any(|other| excludes(last, other, arg) || excludes(last, arg, other));
        if excluded {
            continue;
        }
        for value in &setting.values {
            let option = &setting.option;
            more.push(if is_switch(arg) { format!("--{option}") } else { format!("--{option}={value}") }.into());
        }
    }
    problems.into_result()?;
    let mut all = words;
    all.splice(behind..behind, more);
    let untyped = settings.into_iter().filter(|one| matches!(one.origin, Origin::Variable(_) | Origin::File(..)));
    Ok((all, untyped.collect()))
}

/// Whether `one` is defined as excluding `other`. Global options are not in the command's own definition yet.
fn excludes(command: &Command, one: &Arg, other: &Arg) -> bool {
    let known = |arg: &Arg| command.get_arguments().any(|own| own.get_id() == arg.get_id());
    match (known(one), known(other)) {
        (true, true) => command.get_arg_conflicts_with(one).iter().any(|arg| arg.get_id() == other.get_id()),
        (false, false) => matches!(
            (one.get_long(), other.get_long()),
            (Some("quiet"), Some("verbose")) | (Some("verbose"), Some("quiet"))
        ),
        _ => false,
    }
}

/// `--config FILE` among the words.
pub fn named_config(words: &[OsString]) -> Option<PathBuf> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--config" {
            return words.next().map(PathBuf::from);
        }
        if let Some(path) = word.to_str().and_then(|word| word.strip_prefix("--config=")) {
            return Some(path.into());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outside(variables: &[(&str, &str)]) -> Outside {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Outside { variables, config: None, usual: Vec::new() }
    }

    fn with_file(text: &str, variables: &[(&str, &str)]) -> (Outside, PathBuf) {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("dray-config-{}-{}.toml", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).expect("written");
        (Outside { config: Some(path.clone()), ..outside(variables) }, path)
    }

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    fn after(line: &str, outside: &Outside) -> Vec<String> {
        let (all, _) = layered(words(line), &crate::args::command(), outside).expect("good");
        all.iter().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn flags_go_before_variables_and_those_before_the_file() {
        let (out, path) = with_file(
            "cipher = \"xts-aes-128\"\nquiet = true\n[prep-import]\njournal = \"file.jrn\"\nwipe-free = true\n",
            &[("DRAY_JOURNAL", "variable.jrn"), ("DRAY_WIPE_FREE", "no")],
        );
        let all = after("dray prep-import --id abc", &out);
        assert!(all.contains(&"--journal=variable.jrn".to_owned()), "{all:?}");
        assert!(all.contains(&"--cipher=xts-aes-128".to_owned()) && all.contains(&"--quiet".to_owned()), "{all:?}");
        assert!(!all.iter().any(|word| word.contains("wipe-free")), "{all:?}");
        let all = after("dray prep-import --journal=typed --id abc -v", &out);
        assert!(!all.iter().any(|word| word.contains("variable.jrn") || word == "--quiet"), "{all:?}");
        std::fs::remove_file(path).expect("removed");
    }

    #[test]
    fn what_was_typed_wins_over_what_excludes_it() {
        let out = outside(&[("DRAY_INITIAL_DRIVESET", "d.csv")]);
        let all = after("dray prep-import --journal j --id abc --additional-driveset e.csv", &out);
        assert!(!all.iter().any(|word| word.contains("d.csv")), "{all:?}");
    }

    #[test]
    fn lists_and_words_behind_the_command_stay_apart() {
        let out = outside(&[("DRAY_REPLAN", "S1,S2")]);
        assert_eq!(
            after("dray --color never prep-import --journal j", &out)[..6],
            ["dray", "--color", "never", "prep-import", "--replan=S1", "--replan=S2"]
        );
    }

    #[test]
    fn consent_comes_from_the_command_line_alone() {
        let line = "dray prep-import --journal j --id abc";
        for (name, value) in [("DRAY_YES", "S1"), ("DRAY_SILENT", "true"), ("DRAY_SILENT", "1")] {
            let problems = layered(words(line), &crate::args::command(), &outside(&[(name, value)])).expect_err(name);
            assert_eq!(problems.0[0].kind, Kind::Refused, "{name}");
            assert!(problems.to_string().contains(name), "{problems}");
        }
        // A typed value stays, whatever else is set; a switch that is off has no effect.
        let all = after(&format!("{line} --silent --yes S2"), &outside(&[("DRAY_YES", "S1"), ("DRAY_SILENT", "yes")]));
        assert!(!all.iter().any(|word| word.contains("S1")), "{all:?}");
        assert_eq!(after(line, &outside(&[("DRAY_SILENT", "false")])).join(" "), line);
        for (text, is_refused) in
            [("silent = true\n", true), ("[prep-import]\nsilent = \"1\"\n", true), ("silent = false\n", false)]
        {
            let (out, path) = with_file(text, &[]);
            let result = layered(words(line), &crate::args::command(), &out);
            assert_eq!(result.is_err(), is_refused, "{text}");
            assert!(result.err().is_none_or(|problems| problems.0[0].kind == Kind::Refused), "{text}");
            std::fs::remove_file(path).expect("removed");
        }
    }

    #[test]
    fn help_needs_no_good_file_and_a_bad_one_is_told_by_place() {
        let (out, path) = with_file("jurnal = 1\nyes = [\"S\"]\n[prep-inport]\n[demo]\nkeep = {a = 1}\n", &[]);
        assert_eq!(after("dray prep-import --help", &out).len(), 3);
        let problems = layered(words("dray demo"), &crate::args::command(), &out).expect_err("bad");
        let text: String =
            problems.0.iter().map(|p| format!("{p} {}\n", p.advice.clone().unwrap_or_default())).collect();
        for part in ["did you mean journal?", "consent cannot be given", "did you mean prep-import?", "[demo] keep"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        std::fs::remove_file(path).expect("removed");
        let (out, path) = with_file("a = 1\nb = = 2\n", &[]);
        let problems = layered(words("dray demo"), &crate::args::command(), &out).expect_err("bad");
        assert_eq!(problems.0[0].place.line, Some(2), "{problems}");
        std::fs::remove_file(path).expect("removed");
    }

    #[test]
    fn every_option_of_every_command_has_a_variable_and_a_key() {
        let definition = crate::args::command();
        let mut seen = 0;
        let mut chains: Vec<Vec<&Command>> =
            definition.get_subcommands().map(|below| vec![&definition, below]).collect();
        while let Some(chain) = chains.pop() {
            let here = chain[chain.len() - 1];
            chains.extend(here.get_subcommands().map(|below| [&chain[..], &[below]].concat()));
            let names: Vec<&str> = chain.iter().map(|command| command.get_name()).collect();
            let words: Vec<OsString> = names.iter().map(OsString::from).collect();
            for arg in options(&chain) {
                let long = arg.get_long().expect("a long name");
                let value = if is_switch(arg) { "true" } else { "7" };
                let of = |outside: &Outside, file: &File| {
                    let all = resolve(&words, &chain, file, outside).expect("settings");
                    all.into_iter().find(|one| one.option == long).expect("the option")
                };
                let one = of(&outside(&[(&variable_of(long), value)]), &File::default());
                assert_eq!((one.values, one.origin), (vec![value.to_owned()], Origin::Variable(variable_of(long))));
                seen += 1;
                if TYPED_ONLY.contains(&long) {
                    continue;
                }
                let table: toml::Table = format!("[{}]\n{long} = {value}", names[1..].join(".")).parse().expect("TOML");
                let mut problems = Problems::default();
                check(Path::new("c"), &table, &[&definition], "", &mut problems);
                assert!(problems.0.is_empty(), "{names:?} {long}: {problems}");
                let one = of(&outside(&[]), &File { path: Some("c".into()), table });
                assert_eq!(one.values, [value], "{names:?} {long}");
                assert!(matches!(one.origin, Origin::File(..)), "{names:?} {long}");
            }
        }
        assert!(seen > 150, "{seen}");
    }

    #[test]
    fn strange_variables_are_named_with_what_was_meant() {
        let reported = outside(&[("DRAY_JURNAL", "x"), ("DRAY_TOKEN", "secret")]).strangers(&crate::args::command());
        assert_eq!(reported.len(), 1);
        assert!(reported[0].contains("DRAY_JOURNAL?") && !reported[0].contains("secret"), "{reported:?}");
    }

    #[test]
    fn a_switch_takes_no_number() {
        let out = outside(&[("DRAY_JSON", "perhaps")]);
        let problems = layered(words("dray demo"), &crate::args::command(), &out).expect_err("bad");
        assert!(problems.to_string().contains("DRAY_JSON"), "{problems}");
    }
}
