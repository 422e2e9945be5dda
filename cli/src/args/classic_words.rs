//! The words of a classic command, `/name:value`, each at most once: what the commands have in common.
//!
//! No word that is not known is ever repeated: it may be a key.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::classic::{ClassicFault, Given, Translated, nearest, split, usage};

/// A classic command and its parameters.
pub(super) struct Syntax {
    /// The command, as the Windows tool spells it.
    pub classic: &'static str,
    /// The command here.
    pub modern: &'static str,
    /// Names of parameters with a value.
    pub values: &'static [&'static str],
    /// Names of parameters whose value is a secret, and is read from a file: `@FILE`.
    pub secrets: &'static [&'static str],
}

/// The words that were read, and the modern ones that they become.
pub(super) struct Words<'a> {
    syntax: &'static Syntax,
    given: Vec<(&'static str, Option<&'a OsStr>)>,
    tail: &'a [OsString],
    modern: Vec<OsString>,
    last: Option<OsString>,
    warnings: Vec<String>,
    faults: Vec<String>,
}

/// Characters of the longest name that is worth a suggestion.
const NAME_LEN_MAX: usize = 24;

impl Syntax {
    fn names(&self) -> impl Iterator<Item = &'static str> {
        self.values.iter().chain(self.secrets).copied()
    }

    /// Reads the words behind the command; `None` if help is wanted.
    pub fn read<'a>(&'static self, words: &'a [OsString]) -> Option<Words<'a>> {
        if words.iter().any(|word| matches!(word.as_bytes(), b"/?" | b"/help" | b"--help" | b"-h")) {
            return None;
        }
        // From the first `-` on, everything is modern: `--yes SERIAL` has words of its own.
        let split_at = words.iter().position(|word| word.as_bytes().starts_with(b"-")).unwrap_or(words.len());
        let (classic, tail) = words.split_at(split_at);
        let mut out = Words {
            syntax: self,
            given: Vec::new(),
            tail,
            modern: vec![self.modern.into()],
            last: None,
            warnings: Vec::new(),
            faults: Vec::new(),
        };
        for (at, word) in classic.iter().enumerate() {
            out.take(at, split(word).filter(|given| given.slash));
        }
        Some(out)
    }

    /// The modern words that print the command's help.
    pub fn help(&self) -> Translated {
        Translated { modern: vec![self.modern.into(), "--help".into()], ..Translated::default() }
    }
}

impl<'a> Words<'a> {
    fn take(&mut self, at: usize, given: Option<Given<'a>>) {
        let known =
            given.as_ref().and_then(|given| self.syntax.names().find(|name| name.eq_ignore_ascii_case(given.name)));
        let (Some(given), Some(name)) = (given.as_ref(), known) else {
            let named = given.filter(|given| given.value.is_some() && given.name.len() <= NAME_LEN_MAX);
            let near = named.and_then(|given| nearest(given.name, self.syntax.names()));
            let hint = near.map(|near| format!("; did you mean /{near}?")).unwrap_or_default();
            let command = self.syntax.classic;
            self.faults.push(format!("word {} after {command} is not a parameter (/name:value){hint}", at + 1));
            return;
        };
        if self.has(name) {
            self.faults.push(format!("/{name} is given twice"));
            return;
        }
        let value = given.value.filter(|value| !value.is_empty());
        if value.is_none() && self.syntax.values.contains(&name) {
            self.faults.push(format!("/{name} needs a value: /{name}:<value>, without a space"));
        }
        self.given.push((name, value));
    }

    /// Whether a parameter was given, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.given.iter().any(|(given, _)| *given == name)
    }

    /// The value of a parameter.
    pub fn value(&self, name: &str) -> Option<&'a OsStr> {
        self.given.iter().find(|(given, _)| *given == name).and_then(|(_, value)| *value)
    }

    /// Adds a fault, to be reported with all others.
    pub fn fault(&mut self, what: impl Into<String>) {
        self.faults.push(what.into());
    }

    /// Adds an option of the modern command: `--option=value` in one word, since a value may start with `-` or `/`.
    pub fn option(&mut self, option: &str, value: &OsStr) {
        self.modern.push(OsString::from_vec([option.as_bytes(), b"=", value.as_bytes()].concat()));
    }

    /// Passes a parameter on as an option.
    pub fn pass(&mut self, name: &str, option: &str) {
        if let Some(value) = self.value(name) {
            self.option(option, value);
        }
    }

    /// Passes a secret on as the file that holds it. A secret in the command line is not used: it is asked for where
    /// `asked` is set, and missing otherwise.
    pub fn pass_secret(&mut self, name: &str, option: &str, asked: bool) {
        let Some(value) = self.value(name) else { return };
        if let Some(file) = value.as_bytes().strip_prefix(b"@") {
            return self.option(option, OsStr::from_bytes(file));
        }
        self.warnings.push(format!(
            "the value of /{name} is not used: whatever stands in a command line can be read by other users of this machine and \
             stays in the shell's history. Write /{name}:@FILE, and consider renewing it"
        ));
        if asked {
            self.option(option, OsStr::new("-"));
        }
    }

    /// Passes the account on as its blob endpoint, which `endpoint` makes of a name.
    pub fn pass_account(&mut self, endpoint: impl FnOnce(&str) -> String) {
        let Some(value) = self.value("sn") else { return };
        match value.to_str().filter(|name| is_account(name)) {
            Some(name) => self.option("--endpoint", OsStr::new(&endpoint(name))),
            None => self.fault("/sn: is the account's name: 3 to 24 lower-case letters and digits"),
        }
    }

    /// Passes the credential of an account on: its key or a SAS, not both.
    pub fn pass_credential(&mut self) {
        if self.has("sk") && self.has("csas") {
            self.fault("/sk and /csas exclude each other");
        }
        self.pass_secret("sk", "--account-key-file", true);
        self.pass_secret("csas", "--sas-file", true);
    }

    /// Asks for parameters and what their values are; the modern command asks itself where modern words follow.
    pub fn want(&mut self, wanted: &[(&str, &str)]) {
        if self.tail.is_empty() {
            let missing = wanted.iter().filter(|(name, _)| !self.has(name));
            let missing: Vec<String> = missing.map(|(name, what)| format!("/{name}:<{what}> is missing")).collect();
            self.faults.extend(missing);
        }
    }

    /// Sets the operand, which comes last of all, so that no path is taken for an option.
    pub fn operand(&mut self, operand: Option<&OsStr>) {
        self.last = operand.map(OsStr::to_owned);
    }

    /// The modern words.
    ///
    /// # Errors
    /// All faults.
    pub fn finish(self) -> Result<Translated, ClassicFault> {
        let Self { mut modern, tail, last, warnings, faults, .. } = self;
        if !faults.is_empty() {
            let faults: Vec<String> = faults.iter().map(|fault| format!("dray: {fault}")).collect();
            return Err(usage(faults.join("\n")));
        }
        modern.extend(tail.iter().cloned());
        modern.extend(last.into_iter().flat_map(|last| ["--".into(), last]));
        Ok(Translated { modern, warnings, ..Translated::default() })
    }
}

/// Whether this may be the name of a storage account (docs/spec/import-export.md#limits-and-shipping-rules).
fn is_account(name: &str) -> bool {
    (3..=24).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// Modern words in one line, and the number of warnings; or the text of the fault.
#[cfg(test)]
pub(super) fn shown(translated: Result<Translated, ClassicFault>) -> Result<(String, usize), String> {
    let line = |words: Vec<OsString>| words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    translated.map(|out| (line(out.modern), out.warnings.len())).map_err(|fault| fault.text)
}

/// Words of a test.
#[cfg(test)]
pub(super) fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(Into::into).collect()
}
