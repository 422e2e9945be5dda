//! The Windows tool's syntax, `Command /name:value /switch` (docs/spec/import-export.md#commands), turned into modern
//! words.
//!
//! Values of `/sk`, `/csas` and `/bk` are secrets: they are dropped here and nothing on this path prints a value of a
//! parameter it does not know.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use dray_engine::api::prepare::{Encryption, FormatOption, FormatPrompt, GivenDrive, GivenSource};

use crate::exit::Exit;

/// Part of `--help` on this syntax.
pub const HELP: &str = "\
The classic syntax (names in any case):
  PrepImport /j:<journal> /id:<session> [/logdir:<dir>] [/silentmode]
      [/InitialDriveSet:<driveset.csv>] /DataSet:<dataset.csv>
  PrepImport /j:<journal> /id:<new session> /DataSet:<dataset.csv>
  PrepImport /j:<journal> /id:<session> /AdditionalDriveSet:<driveset.csv>
  PrepImport /j:<journal> /id:<session> /ResumeSession
  PrepImport /j:<journal> /id:<session> /AbortSession
  PrepImport /j:<journal> /id:<session> /t:<drive> /format /encrypt
      /srcdir:<dir> /dstdir:<container/prefix/>   (or /srcfile: /dstblob:)
  PrepImport /j:<journal> /ListDrives | /ListCopySessions
  PreviewExport [/sn:<account> (/sk:<@file> | /csas:<@file>)]
      /ExportBlobListFile:<xml> /DriveSize:<size> [/Cloud:<cloud>]
  RepairImport /r:<repair file> /d:<dirs> [/sn:<account> (/sk:<@file> |
      /csas:<@file>)] /CopyLogFile:<log> [/PathMapFile:<map>]
  RepairExport /r:<repair file> /d:<drive> [/bk:<@file>] /sn:<account>
      (/sk:<@file> | /csas:<@file>) /CopyLogFile:<log> [/ManifestFile:<file>]
  Unlock /bk:<@file with the key> [/driveLetter:<drive>]
Modern options such as --json may follow the classic parameters. A storage
account key (/sk:) is never needed: it is ignored. A BitLocker key in the
command line is ignored too, and asked for.
";

/// A classic command line in modern words.
#[derive(Debug, Default)]
pub struct Translated {
    /// Arguments in today's syntax, without the program's name.
    pub modern: Vec<OsString>,
    /// Warnings to print first.
    pub warnings: Vec<String>,
    /// Source and drive of a first-generation session, which no modern option names.
    pub first_generation: FirstGeneration,
}

/// A classic command line that cannot be accepted.
#[derive(Debug)]
pub struct ClassicFault {
    /// The message, with its line ends, ready for standard error.
    pub text: String,
    /// Exit code that follows.
    pub exit: Exit,
}

/// Source and drive of a first-generation session, as the rows of a dataset and a driveset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirstGeneration {
    /// `/srcdir: /dstdir:` and the like.
    pub source: Option<GivenSource>,
    /// `/t:`.
    pub drive: Option<GivenDrive>,
    /// The file of `/bk:@FILE`.
    pub key_file: Option<PathBuf>,
}

/// Parameters of a first-generation session: one drive and one source, which may lie on the drive itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct V1Request {
    /// `/t:`, the drive.
    pub target: Option<OsString>,
    /// Whether `/bk:` was given; a value other than `@FILE` is dropped.
    pub has_key: bool,
    /// The file of `/bk:@FILE`.
    pub key_file: Option<OsString>,
    /// `/srcdir:`.
    pub source_dir: Option<OsString>,
    /// `/dstdir:`.
    pub target_dir: Option<OsString>,
    /// `/srcfile:`.
    pub source_file: Option<OsString>,
    /// `/dstblob:`.
    pub target_blob: Option<OsString>,
    /// `/Disposition:`.
    pub disposition: Option<OsString>,
    /// `/BlobType:`.
    pub blob_type: Option<OsString>,
    /// `/PropertyFile:`.
    pub property_file: Option<OsString>,
    /// `/MetadataFile:`.
    pub metadata_file: Option<OsString>,
    /// `/encrypt`.
    pub encrypt: bool,
    /// `/format`.
    pub format: bool,
}

/// Form and treatment of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// `/name:value` that becomes a modern option; twice with different values is an error if `true`.
    Value(&'static str, bool),
    /// `/name` that becomes a modern switch.
    Switch(&'static str),
    /// A credential: dropped, with a warning.
    Credential,
    /// First generation, with a value.
    V1Value,
    /// First generation, a switch.
    V1Switch,
}

/// Documented names and their modern form.
const PARAMETERS: &[(&str, Shape)] = &[
    ("j", Shape::Value("--journal", true)),
    ("id", Shape::Value("--id", true)),
    ("logdir", Shape::Value("--logdir", false)),
    ("InitialDriveSet", Shape::Value("--initial-driveset", true)),
    ("AdditionalDriveSet", Shape::Value("--additional-driveset", true)),
    ("DataSet", Shape::Value("--dataset", true)),
    ("ResumeSession", Shape::Switch("--resume")),
    ("AbortSession", Shape::Switch("--abort")),
    ("silentmode", Shape::Switch("--silent")),
    ("ListDrives", Shape::Switch("--list-drives")),
    ("ListCopySessions", Shape::Switch("--list-copy-sessions")),
    ("skipwrite", Shape::Switch("--skip-write")),
    ("enablecontentmd5", Shape::Switch("--content-md5")),
    ("sk", Shape::Credential),
    ("csas", Shape::Credential),
    ("t", Shape::V1Value),
    ("bk", Shape::V1Value),
    ("srcdir", Shape::V1Value),
    ("dstdir", Shape::V1Value),
    ("srcfile", Shape::V1Value),
    ("dstblob", Shape::V1Value),
    ("Disposition", Shape::V1Value),
    ("BlobType", Shape::V1Value),
    ("PropertyFile", Shape::V1Value),
    ("MetadataFile", Shape::V1Value),
    ("encrypt", Shape::V1Switch),
    ("format", Shape::V1Switch),
];

/// `None` when the words are not in the classic syntax. `by_name`: the program was called by the Windows tool's name.
pub fn parse(words: &[OsString], by_name: bool) -> Option<Result<Translated, ClassicFault>> {
    let command = words.first()?.to_str().unwrap_or_default();
    let slashed = words.get(1).is_some_and(|word| word.as_bytes().starts_with(b"/"));
    // The modern command takes no bare words: one with a slash can only be classic.
    if command.eq_ignore_ascii_case("PrepImport") || slashed && command == "prep-import" {
        return Some(prep_import(&words[1..]));
    }
    let is_unlock = command.eq_ignore_ascii_case("Unlock");
    if is_unlock
        && (by_name || command != "unlock" || words[1..].iter().any(|word| super::classic_unlock::is_parameter(word)))
    {
        return Some(super::classic_unlock::parse(&words[1..]));
    }
    if command.eq_ignore_ascii_case("PreviewExport") || slashed && command == "preview-export" {
        return Some(super::classic_preview::parse(&words[1..]));
    }
    if command.eq_ignore_ascii_case("RepairImport") || slashed && command == "repair-import" {
        return Some(super::classic_repair::parse(&words[1..]));
    }
    if command.eq_ignore_ascii_case("RepairExport") || slashed && command == "repair-export" {
        return Some(super::classic_repair_export::parse(&words[1..]));
    }
    if !by_name && !slashed {
        return None;
    }
    if matches!(command, "--help" | "-h" | "-V" | "--version")
        || crate::args::command().find_subcommand(command).is_some()
    {
        return None;
    }
    let near = nearest(command, ["PrepImport", "PreviewExport", "RepairImport", "RepairExport", "Unlock"].into_iter());
    let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    Some(Err(usage(format!("dray: unknown command '{command}'{hint}"))))
}

pub(super) fn usage(text: String) -> ClassicFault {
    ClassicFault { text: format!("{text}\n\nFor more information, try '--help'.\n"), exit: Exit::Usage }
}

/// One parameter as it was given.
pub(super) struct Given<'a> {
    pub name: &'a str,
    pub value: Option<&'a OsStr>,
    pub slash: bool,
}

/// Splits `/name:value`; `None` if no name can be seen in it.
pub(super) fn split(word: &OsStr) -> Option<Given<'_>> {
    let bytes = word.as_bytes();
    let slash = bytes.first() == Some(&b'/');
    let body = if slash { &bytes[1..] } else { bytes };
    let colon = body.iter().position(|byte| *byte == b':');
    let name = std::str::from_utf8(&body[..colon.unwrap_or(body.len())]).ok()?;
    let value = colon.map(|at| OsStr::from_bytes(&body[at + 1..]));
    Some(Given { name, value, slash })
}

fn prep_import(words: &[OsString]) -> Result<Translated, ClassicFault> {
    // From the first `-` on, everything is modern: `--yes SERIAL` has words of its own.
    let split_at = words.iter().position(|word| word.as_bytes().starts_with(b"-")).unwrap_or(words.len());
    let (classic, modern_tail) = words.split_at(split_at);
    let wants_help = modern_tail.iter().any(|word| word == "--help" || word == "-h")
        || classic.iter().any(|word| matches!(word.as_bytes(), b"/?" | b"/help"));
    if wants_help {
        let modern = vec!["prep-import".into(), "--help".into()];
        return Ok(Translated { modern, ..Translated::default() });
    }
    let mut line = Line::default();
    for (at, word) in classic.iter().enumerate() {
        line.take(classic, at, split(word));
    }
    line.warn_of_credentials();
    let is_v1 = line.taken.iter().any(|(index, _)| matches!(PARAMETERS[*index].1, Shape::V1Value | Shape::V1Switch))
        || line.has("skipwrite") && !line.has("DataSet");
    line.check(modern_tail.is_empty());
    if !line.faults.is_empty() {
        let text: Vec<String> = line.faults.iter().map(|fault| format!("dray: {fault}")).collect();
        return Err(usage(text.join("\n")));
    }
    let first_generation =
        if is_v1 { v1(&line.taken).rows(line.has("silentmode"))? } else { FirstGeneration::default() };

    let mut modern: Vec<OsString> = vec!["prep-import".into()];
    for (index, value) in line.taken {
        match (PARAMETERS[index].1, value) {
            (Shape::Value(option, _), Some(value)) => {
                // `--option=value` in one word: a value may start with `-` or `/`.
                modern.push(OsString::from_vec([option.as_bytes(), b"=", value.as_bytes()].concat()));
            }
            (Shape::Switch(option), _) => modern.push(option.into()),
            _ => {}
        }
    }
    modern.extend(modern_tail.iter().cloned());
    Ok(Translated { modern, warnings: line.warnings, first_generation })
}

/// Parameters of a classic line, by index in [`PARAMETERS`], each once.
#[derive(Default)]
struct Line<'a> {
    taken: Vec<(usize, Option<&'a OsStr>)>,
    warnings: Vec<String>,
    faults: Vec<String>,
}

impl<'a> Line<'a> {
    fn has(&self, wanted: &str) -> bool {
        self.taken.iter().any(|(index, _)| PARAMETERS[*index].0 == wanted)
    }

    fn take(&mut self, words: &[OsString], at: usize, given: Option<Given<'a>>) {
        let index = given
            .as_ref()
            .and_then(|given| PARAMETERS.iter().position(|(name, _)| name.eq_ignore_ascii_case(given.name)));
        let (Some(given), Some(index)) = (given, index) else {
            self.faults.push(unknown(words, at));
            return;
        };
        let (name, shape) = PARAMETERS[index];
        if !given.slash {
            self.warnings.push(format!("'{name}' is written '/{name}' in this syntax; taken as such"));
        }
        let wants_value = matches!(shape, Shape::Value(..) | Shape::V1Value | Shape::Credential);
        let value = given.value.filter(|value| !value.is_empty());
        match (wants_value, value, given.value) {
            (true, None, _) if shape != Shape::Credential => {
                self.faults.push(format!("/{name} needs a value: /{name}:<value>, without a space"));
                return;
            }
            (false, _, Some(_)) => {
                self.faults.push(format!("/{name} takes no value"));
                return;
            }
            _ => {}
        }
        if let Some((_, earlier)) = self.taken.iter().find(|(other, _)| *other == index) {
            if matches!(shape, Shape::Value(_, true)) && *earlier != value {
                self.faults.push(format!("/{name} is given twice with different values"));
            } else {
                self.warnings.push(format!("/{name} is given twice; the last one counts"));
            }
            self.taken.retain(|(other, _)| *other != index);
        }
        self.taken.push((index, value));
    }

    fn warn_of_credentials(&mut self) {
        let named = self.taken.iter().filter(|(index, _)| PARAMETERS[*index].1 == Shape::Credential);
        let named: Vec<String> = named.map(|(index, _)| format!("/{}", PARAMETERS[*index].0)).collect();
        if !named.is_empty() {
            self.warnings.push(format!(
                "{} is ignored: preparing drives never needs a key of the storage account. Whatever stands in a command \
                 line can be read by other users of this machine and stays in the shell's history: leave it out, and \
                 consider renewing that key",
                named.join(", ")
            ));
        }
    }

    /// Adds what is missing and what excludes each other; `alone`: no modern words follow.
    fn check(&mut self, alone: bool) {
        let lists = self.has("ListDrives") || self.has("ListCopySessions");
        // Missing names are reported in the spelling of this syntax, so they are not left to the modern parser.
        if self.faults.is_empty() && alone {
            if !self.has("j") {
                self.faults.push("/j:<journal> is missing".into());
            }
            if !self.has("id") && !lists {
                self.faults.push("/id:<session> is missing".into());
            }
        }
        let exclusive = [
            ("ResumeSession", "AbortSession"),
            ("InitialDriveSet", "AdditionalDriveSet"),
            ("DataSet", "srcdir"),
            ("DataSet", "srcfile"),
            ("InitialDriveSet", "t"),
            ("AdditionalDriveSet", "t"),
        ];
        for (one, other) in exclusive {
            if self.has(one) && self.has(other) {
                self.faults.push(format!("/{one} and /{other} exclude each other"));
            }
        }
    }
}

fn v1(taken: &[(usize, Option<&OsStr>)]) -> V1Request {
    let mut request = V1Request::default();
    for (index, value) in taken {
        let value = value.map(OsStr::to_os_string);
        match PARAMETERS[*index].0 {
            "t" => request.target = value,
            "bk" => {
                request.has_key = true;
                request.key_file = value
                    .as_deref()
                    .and_then(|value| value.as_bytes().strip_prefix(b"@"))
                    .map(|path| OsStr::from_bytes(path).into());
            }
            "srcdir" => request.source_dir = value,
            "dstdir" => request.target_dir = value,
            "srcfile" => request.source_file = value,
            "dstblob" => request.target_blob = value,
            "Disposition" => request.disposition = value,
            "BlobType" => request.blob_type = value,
            "PropertyFile" => request.property_file = value,
            "MetadataFile" => request.metadata_file = value,
            "encrypt" => request.encrypt = true,
            "format" => request.format = true,
            _ => {}
        }
    }
    request
}

impl V1Request {
    /// The rows that a dataset and a driveset would have.
    fn rows(&self, silent: bool) -> Result<FirstGeneration, ClassicFault> {
        let mut faults = Vec::new();
        let mut fault = |bad: bool, text: &str| {
            if bad {
                faults.push(format!("dray: {text}"));
            }
        };
        let (dirs, files) = (&self.source_dir, &self.source_file);
        fault(dirs.is_some() != self.target_dir.is_some(), "/srcdir and /dstdir belong together");
        fault(files.is_some() != self.target_blob.is_some(), "/srcfile and /dstblob belong together");
        fault(dirs.is_some() && files.is_some(), "/srcdir and /srcfile exclude each other");
        fault(dirs.is_none() && files.is_none(), "a source is missing: /srcdir and /dstdir, or /srcfile and /dstblob");
        fault(self.encrypt && self.has_key, "/encrypt and /bk exclude each other");
        fault(self.format && !self.encrypt, "when /format is specified, /encrypt must also be specified");
        fault(self.target.is_none() && (self.encrypt || self.has_key), "/t:<drive> is missing");
        fault(self.target.is_some() && !self.encrypt && !self.has_key, "/encrypt or /bk:<key> is missing");
        fault(
            self.has_key && self.key_file.is_none(),
            "a BitLocker key in a command line can be read by other users of this machine; write /bk:@FILE, or put it into \
             the ExistingBitLockerKey column of a driveset CSV, and name that with /InitialDriveSet",
        );
        if !faults.is_empty() {
            return Err(usage(faults.join("\n")));
        }
        let mut base_path = self.source_dir.as_ref().or(self.source_file.as_ref()).cloned().unwrap_or_default();
        if self.source_dir.is_some() && !matches!(base_path.as_bytes().last(), Some(b'/' | b'\\')) {
            base_path.push("/");
        }
        let source = GivenSource {
            base_path,
            destination: self.target_dir.as_ref().or(self.target_blob.as_ref()).cloned().unwrap_or_default(),
            blob_type: Some(self.blob_type.clone().unwrap_or_else(|| "BlockBlob".into())),
            disposition: self.disposition.clone(),
            metadata_file: self.metadata_file.clone(),
            properties_file: self.property_file.clone(),
        };
        let drive = self.target.as_ref().map(|target| GivenDrive {
            drive: target.clone(),
            format: if self.format { FormatOption::Format } else { FormatOption::AlreadyFormatted },
            prompt: if silent { FormatPrompt::SilentMode } else { FormatPrompt::PromptOnFormat },
            encryption: if self.has_key { Encryption::AlreadyEncrypted } else { Encryption::Encrypt },
        });
        let key_file = self.key_file.as_ref().filter(|_| drive.is_some()).map(PathBuf::from);
        Ok(FirstGeneration { source: Some(source), drive, key_file })
    }
}

/// The message for an unknown word, without anything that could be a secret.
fn unknown(words: &[OsString], at: usize) -> String {
    let given = split(&words[at]);
    let named = given.as_ref().filter(|given| given.slash || given.value.is_some());
    if let Some(given) = named {
        let short = !given.name.is_empty()
            && given.name.len() <= 24
            && given.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'?'));
        if short {
            let near = nearest(given.name, suggestions());
            let hint = near.map(|near| format!("; did you mean /{near}?")).unwrap_or_default();
            return format!("unknown parameter /{}{hint}", given.name);
        }
        return format!("word {} after PrepImport is not a parameter", at + 1);
    }
    let behind_colon = at.checked_sub(1).is_some_and(|before| words[before].as_bytes().ends_with(b":"));
    if behind_colon {
        let before = words[at - 1].to_string_lossy();
        return format!("a value follows its colon without a space: {before}<value>");
    }
    let near = given.and_then(|given| nearest(given.name, suggestions()));
    match near {
        Some(near) => format!("word {} after PrepImport is not a parameter; did you mean /{near}?", at + 1),
        None => format!("word {} after PrepImport is not a parameter (/name:value or /switch)", at + 1),
    }
}

/// Names worth suggesting: a suggestion must not lead to typing a storage key.
fn suggestions() -> impl Iterator<Item = &'static str> {
    PARAMETERS.iter().filter(|(_, shape)| *shape != Shape::Credential).map(|(name, _)| *name)
}

/// The known name nearest to `word`, if near enough to be a slip.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    known
        .map(|name| (distance(&word, &name.to_ascii_lowercase()), name))
        .filter(|(distance, name)| {
            *distance <= (name.len().max(word.len()) / 3).max(1) && *distance < name.len().max(word.len())
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Edits (insert, delete, replace, swap of neighbours) between two words.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            row[j] = (last[j - 1] + usize::from(a[i - 1] != b[j - 1])).min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    fn modern(line: &str) -> (Vec<String>, Vec<String>) {
        let translated = parse(&words(line), false).expect("classic").expect("good");
        (translated.modern.iter().map(|word| word.to_string_lossy().into_owned()).collect(), translated.warnings)
    }

    fn fault(line: &str) -> String {
        parse(&words(line), false).expect("classic").expect_err("bad").text
    }

    #[test]
    fn a_path_keeps_its_slash_and_colons() {
        let (modern, warnings) = modern("PrepImport /j:/tmp/a:b.jrn /id:session#1 /DataSet:/x/y.csv");
        assert_eq!(modern, ["prep-import", "--journal=/tmp/a:b.jrn", "--id=session#1", "--dataset=/x/y.csv"]);
        assert!(warnings.is_empty());
    }

    #[test]
    fn names_are_case_insensitive_and_the_slash_may_be_missing() {
        let (modern, warnings) = modern("prepIMPORT J:a.jrn /ID:s_1 dataset:f.csv /SILENTMODE");
        assert_eq!(modern, ["prep-import", "--journal=a.jrn", "--id=s_1", "--dataset=f.csv", "--silent"]);
        assert_eq!(warnings.len(), 2);
        assert!(warnings[1].contains("'/DataSet'"), "{warnings:?}");
    }

    #[test]
    fn keys_are_dropped_and_never_repeated() {
        for line in [
            "PrepImport /j:a /id:abc /sk:TOPSECRET== /DataSet:f",
            "PrepImport /j:a /id:abc sk:TOPSECRET== /DataSet:f",
            "PrepImport /j:a /id:abc /csas:TOPSECRET?sig=TOPSECRET /DataSet:f",
            "PrepImport /j:a /id:abc /sk:TOPSECRET /SK:TOPSECRET2 /DataSet:f",
        ] {
            let (modern, warnings) = modern(line);
            assert!(!format!("{modern:?}{warnings:?}").contains("TOPSECRET"), "{line}");
            assert!(warnings.iter().any(|warning| warning.contains("never needs a key")), "{line}");
        }
        for line in [
            "PrepImport /j:a /id:abc /sk: TOPSECRET /DataSet:f",
            "PrepImport /j:a /id:abc /skk:TOPSECRET /DataSet:f",
            "PrepImport /j:a /id:abc TOPSECRET== /DataSet:f",
            "PrepImport /j:a /id:abc /TOPSECRET+longer/than/names== /DataSet:f",
            "PrepImport /j:a /id:abc /t:x /bk:TOPSECRET /srcdir:/a /dstdir:c/",
        ] {
            assert!(!fault(line).contains("TOPSECRET"), "{line}: {}", fault(line));
        }
    }

    #[test]
    fn near_misses_are_named() {
        for (line, near) in [
            ("PrepImport /jj:a /id:abc", "/j?"),
            ("PrepImport /j:a /idd:abc", "/id?"),
            ("PrepImport /j:a /id:abc /DataSett:f", "/DataSet?"),
            ("PrepImport /j:a /id:abc /DateSet:f", "/DataSet?"),
            ("PrepImport /j:a /id:abc /InitialDriveSett:f", "/InitialDriveSet?"),
            ("PrepImport /j:a /id:abc /InitalDriveSet:f", "/InitialDriveSet?"),
            ("PrepImport /j:a /id:abc /ResumeSesion", "/ResumeSession?"),
            ("PrepImport /j:a /id:abc /silent-mode", "/silentmode?"),
            ("PrepImport /j:a /id:abc /ListDrive", "/ListDrives?"),
            ("PrepImprt /j:a", "PrepImport?"),
        ] {
            assert!(fault(line).contains(near), "{line}: {}", fault(line));
        }
        assert!(!fault("PrepImport /j:a /id:abc /CompletelyElse:1").contains("did you mean"));
    }

    #[test]
    fn twice_the_same_is_a_warning_and_different_inputs_an_error() {
        let (modern, warnings) = modern("PrepImport /j:a /j:a /id:abc /logdir:l /logdir:m /DataSet:f");
        assert_eq!(modern, ["prep-import", "--journal=a", "--id=abc", "--logdir=m", "--dataset=f"]);
        assert_eq!(warnings.len(), 2);
        assert!(fault("PrepImport /j:a /id:abc /InitialDriveSet:d /InitialDriveSet:e /DataSet:f").contains("twice"));
    }

    #[test]
    fn first_generation_forms_become_rows() {
        let rows = |line: &str| parse(&words(line), false).expect("classic").expect("good").first_generation;
        let given = rows(
            "PrepImport /sk:x /t:/dev/sdx /format /silentmode /encrypt /logdir:l /j:j /id:s-1 /srcdir:/a /dstdir:c/p/ \
             /Disposition:overwrite /BlobType:PageBlob /PropertyFile:p /MetadataFile:m",
        );
        let wanted = GivenSource {
            base_path: "/a/".into(),
            destination: "c/p/".into(),
            blob_type: Some("PageBlob".into()),
            disposition: Some("overwrite".into()),
            metadata_file: Some("m".into()),
            properties_file: Some("p".into()),
        };
        let drive = |drive: &str, format, prompt| GivenDrive {
            drive: drive.into(),
            format,
            prompt,
            encryption: Encryption::Encrypt,
        };
        assert_eq!(given.source, Some(wanted));
        assert_eq!(given.drive, Some(drive("/dev/sdx", FormatOption::Format, FormatPrompt::SilentMode)));
        let given = rows("PrepImport /t:x:40MB /encrypt /j:j /id:s-1 /srcfile:/a\"b, /dstblob:c/b /skipwrite");
        let source = given.source.expect("a source");
        assert_eq!((source.base_path, source.disposition), ("/a\"b,".into(), None));
        assert_eq!(given.drive, Some(drive("x:40MB", FormatOption::AlreadyFormatted, FormatPrompt::PromptOnFormat)));
        let (words, _) = modern("PrepImport /t:x /encrypt /j:j /id:s-1 /srcfile:/a /dstblob:c/b /skipwrite");
        assert!(words.contains(&"--skip-write".into()), "{words:?}");
        // A later session: the drive is known.
        assert_eq!(rows("PrepImport /j:j /id:s-1 /srcdir:/a/ /dstdir:c/ blobtype:BlockBlob").drive, None);
        for (line, what) in [
            ("PrepImport /j:j /id:s-1 /t:x /format /srcdir:/a/ /dstdir:c/", "/encrypt must also"),
            ("PrepImport /j:j /id:s-1 /t:x /encrypt /bk:1 /srcdir:/a/ /dstdir:c/", "exclude each other"),
            ("PrepImport /j:j /id:s-1 /t:x /srcdir:/a/ /dstdir:c/", "/encrypt or /bk"),
            ("PrepImport /j:j /id:s-1 /srcdir:/a/", "belong together"),
            ("PrepImport /j:j /id:s-1 /srcdir:/a/ /dstdir:c/ /srcfile:/a /dstblob:c/b", "exclude each other"),
            ("PrepImport /j:j /id:session1 /skipwrite", "a source is missing"),
            ("PrepImport /j:j /id:session1 /DataSet:d /srcdir:/a/ /dstdir:c/", "/DataSet and /srcdir exclude"),
            ("PrepImport /j:j /id:s-1 /InitialDriveSet:d /t:x /encrypt /srcdir:/a/ /dstdir:c/", "exclude each other"),
            ("PrepImport /j:j /id:session1 /t:x /bk:1 /srcdir:/x/ /dstdir:c/ /skipwrite", "ExistingBitLockerKey"),
        ] {
            assert!(fault(line).contains(what), "{line}: {}", fault(line));
        }
    }

    #[test]
    fn missing_names_are_told_in_the_classic_spelling() {
        let text = fault("PrepImport /DataSet:f");
        assert!(text.contains("/j:<journal> is missing") && text.contains("/id:<session> is missing"), "{text}");
        assert!(fault("PrepImport /j /id:abc").contains("/j needs a value"));
        assert!(fault("PrepImport /j:a /id:abc /ResumeSession:yes").contains("takes no value"));
    }

    #[test]
    fn modern_options_may_follow() {
        let (modern, _) = modern("PrepImport /j:a /id:abc /DataSet:f --json --yes S1 S2");
        assert_eq!(modern[4..], ["--json", "--yes", "S1", "S2"]);
    }

    #[test]
    fn modern_words_are_not_classic() {
        for line in ["prep-import --journal j", "demo", "--help", "plan /tmp"] {
            assert!(parse(&words(line), false).is_none(), "{line}");
        }
    }

    #[test]
    fn distances_are_edits() {
        for (a, b, edits) in [("", "abc", 3), ("abc", "acb", 1), ("kitten", "sitting", 3), ("id", "id", 0)] {
            assert_eq!(distance(a, b), edits, "{a} {b}");
        }
    }
}
