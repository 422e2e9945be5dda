//! `Unlock /bk:… | /externalKey:… [/driveLetter:…]` (docs/spec/import-export.md#unlock), turned into modern words.
//!
//! The documented form has the key itself in the command line, where every user of the machine can read it. The form is
//! accepted, the key is not: it is read from the file that the value names, or typed at a prompt.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::classic::{ClassicFault, Translated};
use super::classic_words::Syntax;

const SYNTAX: Syntax =
    Syntax { classic: "Unlock", modern: "unlock", values: &["driveLetter"], secrets: &["bk", "externalKey"] };

/// `/name:…`, where a path would have a slash before its first colon.
pub(super) fn is_parameter(word: &OsStr) -> bool {
    let body = word.as_bytes().strip_prefix(b"/").unwrap_or_default();
    let end = body.iter().position(|byte| matches!(byte, b':' | b'/'));
    end.is_some_and(|end| body[end] == b':')
}

/// Turns the words behind `Unlock` into modern ones.
pub(super) fn parse(words: &[OsString]) -> Result<Translated, ClassicFault> {
    let Some(mut words) = SYNTAX.read(words) else { return Ok(SYNTAX.help()) };
    for name in SYNTAX.secrets {
        match words.value(name).and_then(existing_file) {
            Some(file) => words.option("--key-file", file),
            // It is asked for where the file is missing.
            None => words.pass_secret(name, "--key-file", false),
        }
    }
    words.operand(words.value("driveLetter"));
    words.finish()
}

/// The value, if it is the path of an existing file.
fn existing_file(value: &OsStr) -> Option<&OsStr> {
    Path::new(value).is_file().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<(Vec<String>, Vec<String>), String> {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let translated = parse(&words).map_err(|fault| fault.text)?;
        Ok((translated.modern.iter().map(|word| word.to_string_lossy().into_owned()).collect(), translated.warnings))
    }

    #[test]
    fn documented_lines_are_taken_and_their_keys_are_not() {
        for line in ["/bk:TOPSECRET== /driveLetter:/dev/sdx", "/externalKey:TOPSECRET== /DRIVELETTER:/dev/sdx"] {
            let (modern, warnings) = run(line).expect("taken");
            assert_eq!(modern, ["unlock", "--", "/dev/sdx"]);
            assert_eq!(warnings.len(), 1);
            assert!(!format!("{warnings:?}").contains("TOPSECRET"));
        }
        assert_eq!(run("/bk:TOPSECRET==").expect("taken").0, ["unlock"]);
    }

    #[test]
    fn a_path_is_no_parameter() {
        for (word, is) in [
            ("/bk:x", true),
            ("/bkk:x/y", true),
            ("/dev/sdb", false),
            ("/dev/disk/by-path/pci-0:1", false),
            ("x:y", false),
            ("/x", false),
        ] {
            assert_eq!(is_parameter(OsStr::new(word)), is, "{word}");
        }
    }

    #[test]
    fn a_file_may_hold_the_key() {
        let (modern, warnings) = run("/bk:@key.txt /driveLetter:-x --json").expect("taken");
        assert_eq!(modern, ["unlock", "--key-file=key.txt", "--json", "--", "-x"]);
        assert!(warnings.is_empty());
        let here = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        assert_eq!(
            run(&format!("/externalKey:{here}")).expect("taken").0,
            ["unlock".into(), format!("--key-file={here}")]
        );
    }

    #[test]
    fn slips_are_named_and_nothing_is_repeated() {
        for (line, part) in [
            ("/bkk:TOPSECRET", "/bk?"),
            ("/externalKeys:TOPSECRET", "/externalKey?"),
            ("TOPSECRET", "word 1"),
            ("/bk: TOPSECRET", "word 2"),
            ("/TOPSECRET", "word 1"),
            ("/driveLetter:", "needs a value"),
            ("/driveLetter:a /driveLetter:b", "twice"),
        ] {
            let text = run(line).expect_err("refused");
            assert!(text.contains(part) && !text.contains("TOPSECRET"), "{line}: {text}");
        }
    }
}
