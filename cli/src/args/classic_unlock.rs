//! `Unlock /bk:… | /externalKey:… [/driveLetter:…]` (docs/spec/import-export.md#unlock), turned into modern words.
//!
//! The documented form has the key itself in the command line, where every user of the machine can read it. The form is
//! accepted, the key is not: it is read from the file that the value names, or typed at a prompt.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::classic::{Fault, Translated, nearest, split, usage};

/// Parameters that take the key.
const KEYS: [&str; 2] = ["bk", "externalKey"];
/// Parameter that takes the drive.
const DRIVE: &str = "driveLetter";

/// `/name:…`, where a path would have a slash before its first colon.
pub(super) fn is_parameter(word: &OsStr) -> bool {
    let body = word.as_bytes().strip_prefix(b"/").unwrap_or_default();
    let end = body.iter().position(|byte| matches!(byte, b':' | b'/'));
    end.is_some_and(|end| body[end] == b':')
}

pub(super) fn parse(words: &[OsString]) -> Result<Translated, Fault> {
    let split_at = words.iter().position(|word| word.as_bytes().starts_with(b"-")).unwrap_or(words.len());
    let (classic, modern_tail) = words.split_at(split_at);
    let help = |word: &OsString| matches!(word.as_bytes(), b"/?" | b"/help" | b"--help" | b"-h");
    if words.iter().any(help) {
        return Ok(Translated { modern: vec!["unlock".into(), "--help".into()], warnings: Vec::new() });
    }
    let mut warnings = Vec::new();
    let mut modern: Vec<OsString> = vec!["unlock".into()];
    let mut drive: Option<OsString> = None;
    let mut faults = Vec::new();
    for (at, word) in classic.iter().enumerate() {
        let given = split(word);
        let known = given
            .as_ref()
            .and_then(|given| KEYS.into_iter().chain([DRIVE]).find(|name| name.eq_ignore_ascii_case(given.name)));
        let (Some(given), Some(name)) = (given.as_ref(), known) else {
            // Never the word itself: it may be the key.
            let named = given.filter(|given| given.slash && given.value.is_some() && given.name.len() <= 12);
            let near = named.and_then(|given| nearest(given.name, KEYS.into_iter().chain([DRIVE])));
            let hint = near.map(|near| format!("; did you mean /{near}?")).unwrap_or_default();
            faults.push(format!("word {} after Unlock is not a parameter{hint}", at + 1));
            continue;
        };
        let value = given.value.filter(|value| !value.is_empty());
        if name == DRIVE {
            match value {
                Some(value) if drive.is_none() => drive = Some(value.to_owned()),
                Some(_) => faults.push(format!("/{DRIVE} is given twice")),
                None => faults.push(format!("/{DRIVE} needs a value: /{DRIVE}:<drive>, without a space")),
            }
            continue;
        }
        match value {
            Some(value) if file_of(value).is_some() => {
                let mut option = OsString::from("--key-file=").into_vec();
                option.extend_from_slice(file_of(value).unwrap_or(value).as_bytes());
                modern.push(OsString::from_vec(option));
            }
            Some(_) => warnings.push(format!(
                "the key behind /{name} is not used: whatever stands in a command line can be read by other users of this \
                 machine and stays in the shell's history. It is asked for instead; or write /{name}:@FILE"
            )),
            None => {}
        }
    }
    if !faults.is_empty() {
        let text: Vec<String> = faults.iter().map(|fault| format!("dray: {fault}")).collect();
        return Err(usage(text.join("\n")));
    }
    modern.extend(modern_tail.iter().cloned());
    // Last of all, so that no path is taken for an option.
    if let Some(drive) = drive {
        modern.push("--".into());
        modern.push(drive);
    }
    Ok(Translated { modern, warnings })
}

/// The file that a value names: `@FILE`, or the path of an existing file.
fn file_of(value: &OsStr) -> Option<&OsStr> {
    match value.as_bytes().strip_prefix(b"@") {
        Some(path) => Some(OsStr::from_bytes(path)),
        None => Path::new(value).is_file().then_some(value),
    }
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
