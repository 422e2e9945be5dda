//! `RepairExport` of the Windows tool (docs/spec/import-export.md#repair-parameters), in modern words.
//!
//! `/d:` is the drive itself, a device or an image file: it is written through its file system's extents, not through a
//! mounted directory.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::classic::{Fault, Translated, nearest, split, usage};

/// Parameters, and the options that they become; `None`: no option of their own.
const PARAMETERS: &[(&str, Option<&str>)] = &[
    ("r", Some("--repair-file")),
    ("d", None),
    ("bk", Some("--key-file")),
    ("sn", None),
    ("sk", Some("--account-key-file")),
    ("csas", Some("--sas-file")),
    ("CopyLogFile", Some("--copy-log")),
    ("ManifestFile", Some("--manifest")),
    ("logdir", None),
];

/// Parameters whose value is a secret, and is read from a file: `@FILE`.
const SECRETS: [&str; 3] = ["bk", "sk", "csas"];

/// Turns the words behind `RepairExport` into modern ones.
pub fn parse(words: &[OsString]) -> Result<Translated, Fault> {
    let split_at = words.iter().position(|word| word.as_bytes().starts_with(b"-")).unwrap_or(words.len());
    let (classic, modern_tail) = words.split_at(split_at);
    let is_help = |word: &OsString| matches!(word.as_bytes(), b"/?" | b"/help" | b"--help" | b"-h");
    if words.iter().any(is_help) {
        return Ok(Translated { modern: vec!["repair-export".into(), "--help".into()], warnings: Vec::new() });
    }
    let (mut warnings, mut faults, mut given): (Vec<String>, Vec<String>, Vec<&str>) = Default::default();
    let mut modern: Vec<OsString> = vec!["repair-export".into()];
    let mut drive = None;
    for (at, word) in classic.iter().enumerate() {
        let parts = split(word).filter(|parts| parts.slash);
        let known =
            parts.as_ref().and_then(|parts| PARAMETERS.iter().find(|(name, _)| name.eq_ignore_ascii_case(parts.name)));
        let (Some(parts), Some((name, option))) = (parts.as_ref(), known) else {
            // Never the word itself: it may be a key.
            let named = parts.filter(|parts| parts.value.is_some() && parts.name.len() <= 16);
            let near = named.and_then(|parts| nearest(parts.name, PARAMETERS.iter().map(|(name, _)| *name)));
            let hint = near.map(|near| format!("; did you mean /{near}?")).unwrap_or_default();
            faults.push(format!("word {} after RepairExport is not a parameter (/name:value){hint}", at + 1));
            continue;
        };
        let Some(value) = parts.value.filter(|value| !value.is_empty()) else {
            faults.push(format!("/{name} needs a value: /{name}:<value>, without a space"));
            continue;
        };
        if given.contains(name) {
            faults.push(format!("/{name} is given twice"));
        }
        given.push(name);
        match (*name, option) {
            ("d", _) if value.as_bytes().contains(&b';') => {
                faults.push("/d: is one drive: several are repaired one after another".into());
            }
            ("d", _) => drive = Some(value.to_owned()),
            ("sn", _) => modern.push(joined("--endpoint", value)),
            (name, Some(option)) if SECRETS.contains(&name) => match value.as_bytes().strip_prefix(b"@") {
                Some(path) => modern.push(joined(option, OsStr::from_bytes(path))),
                None => {
                    warnings.push(format!(
                        "the value of /{name} is not used: whatever stands in a command line can be read by other users of \
                         this machine and stays in the shell's history. Write /{name}:@FILE, and consider renewing it"
                    ));
                    if name != "bk" {
                        modern.push(joined(option, OsStr::new("-")));
                    }
                }
            },
            (_, Some(option)) => modern.push(joined(option, value)),
            // Nothing is logged that is not printed.
            _ => {}
        }
    }
    let wanted = |name: &str| !given.contains(&name);
    if faults.is_empty() && modern_tail.is_empty() {
        for (name, what) in [("r", "repair file"), ("d", "drive"), ("CopyLogFile", "copy log"), ("sn", "account")] {
            if wanted(name) {
                faults.push(format!("/{name}:<{what}> is missing"));
            }
        }
        if wanted("sk") == wanted("csas") {
            faults.push("exactly one of /sk:@FILE and /csas:@FILE is needed".into());
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

/// `--option=value` in one word: a value may start with `-` or `/`.
fn joined(option: &str, value: &OsStr) -> OsString {
    let mut word = option.as_bytes().to_vec();
    word.push(b'=');
    word.extend_from_slice(value.as_bytes());
    OsString::from_vec(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Result<(String, usize), String> {
        let words: Vec<OsString> = words.iter().map(Into::into).collect();
        let shown = |words: Vec<OsString>| {
            words.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        parse(&words).map(|out| (shown(out.modern), out.warnings.len())).map_err(|fault| fault.text)
    }

    #[test]
    fn the_documented_line_is_read() {
        let line = [
            "/r:9WM35C2V.rep",
            "/d:/dev/sdb",
            "/bk:@key",
            "/sn:bobmediaaccount",
            "/sk:@account",
            "/CopyLogFile:9WM35C2V.log",
            "/manifestfile:9WM35C2V.manifest",
            "/logdir:logs",
        ];
        assert_eq!(
            of(&line),
            Ok((
                "repair-export --repair-file=9WM35C2V.rep --key-file=key --endpoint=bobmediaaccount \
                 --account-key-file=account --copy-log=9WM35C2V.log --manifest=9WM35C2V.manifest -- /dev/sdb"
                    .into(),
                0
            ))
        );
        let (modern, warnings) = of(&["/d:d.img", "/r:r", "/sn:abc", "/sk:SECRET", "/CopyLogFile:l"]).expect("read");
        assert!(warnings == 1 && !modern.contains("SECRET") && modern.contains("--account-key-file=-"), "{modern}");
    }

    #[test]
    fn what_is_missing_or_wrong_is_told_at_once_and_no_secret_is() {
        let told = of(&["/d:d.img"]).expect_err("much is missing");
        for part in ["/r:", "/CopyLogFile:", "/sn:", "exactly one of"] {
            assert!(told.contains(part), "{part}: {told}");
        }
        let told = of(&["/CopyLogFil:x", "060456-014509", "/d:a;b", "/r:"]).expect_err("wrong");
        assert!(told.contains("did you mean /CopyLogFile?") && !told.contains("060456"), "{told}");
        assert!(told.contains("one drive") && told.contains("/r needs a value"), "{told}");
    }
}
