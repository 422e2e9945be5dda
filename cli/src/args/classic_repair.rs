//! `RepairImport` of the Windows tool (docs/spec/import-export.md#repair-parameters), in modern words.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::classic::{Fault, Translated, nearest, split, usage};

/// Parameters, and whether one has to be there.
const PARAMETERS: &[(&str, bool)] = &[
    ("r", true),
    ("d", true),
    ("bk", false),
    ("sn", false),
    ("sk", false),
    ("csas", false),
    ("CopyLogFile", true),
    ("ManifestFile", false),
    ("PathMapFile", false),
    ("logdir", false),
];

/// Turns the words behind `RepairImport` into modern ones.
pub fn parse(words: &[OsString]) -> Result<Translated, Fault> {
    let split_at = words.iter().position(|word| word.as_bytes().starts_with(b"-")).unwrap_or(words.len());
    let (classic, modern_tail) = words.split_at(split_at);
    let is_help = |word: &OsString| matches!(word.as_bytes(), b"/?" | b"/help" | b"--help" | b"-h");
    if words.iter().any(is_help) {
        return Ok(Translated { modern: vec!["repair-import".into(), "--help".into()], warnings: Vec::new() });
    }
    let (mut faults, mut warnings) = (Vec::new(), Vec::new());
    let mut modern: Vec<OsString> = vec!["repair-import".into()];
    let mut seen: Vec<&str> = Vec::new();
    for (at, word) in classic.iter().enumerate() {
        let given = split(word).filter(|given| given.slash);
        let known = given.as_ref().and_then(|given| {
            PARAMETERS.iter().map(|(name, _)| *name).find(|name| name.eq_ignore_ascii_case(given.name))
        });
        let (Some(given), Some(name)) = (given.as_ref(), known) else {
            // Never the word itself: it may be a key.
            let named = given.filter(|given| given.value.is_some() && given.name.len() <= 24);
            let near = named.and_then(|given| nearest(given.name, PARAMETERS.iter().map(|(name, _)| *name)));
            let hint = near.map(|near| format!("; did you mean /{near}?")).unwrap_or_default();
            faults.push(format!("word {} after RepairImport is not a parameter{hint}", at + 1));
            continue;
        };
        if seen.contains(&name) {
            faults.push(format!("/{name} is given twice"));
            continue;
        }
        seen.push(name);
        match given.value.filter(|value| !value.is_empty()) {
            Some(value) => translate(name, value, &mut modern, (&mut faults, &mut warnings)),
            None => faults.push(format!("/{name} needs a value: /{name}:<value>, without a space")),
        }
    }
    if seen.contains(&"sk") && seen.contains(&"csas") {
        faults.push("/sk and /csas exclude each other".into());
    }
    for (name, _) in PARAMETERS.iter().filter(|(name, is_needed)| *is_needed && !seen.contains(name)) {
        faults.push(format!("/{name}:<value> is missing"));
    }
    if !faults.is_empty() {
        let text: Vec<String> = faults.iter().map(|fault| format!("dray: {fault}")).collect();
        return Err(usage(text.join("\n")));
    }
    modern.extend(modern_tail.iter().cloned());
    Ok(Translated { modern, warnings })
}

fn translate(
    name: &str,
    value: &OsStr,
    modern: &mut Vec<OsString>,
    (faults, warnings): (&mut Vec<String>, &mut Vec<String>),
) {
    let mut option = |name: &str, value: &[u8]| {
        // `--option=value` in one word: a value may start with `-` or `/`.
        modern.push(OsString::from_vec([name.as_bytes(), b"=", value].concat()));
    };
    match name {
        "r" => option("--repair-file", value.as_bytes()),
        "d" => {
            let dirs = value.as_bytes().split(|byte| *byte == b';').filter(|dir| !dir.is_empty());
            dirs.for_each(|dir| option("--dir", dir));
        }
        "CopyLogFile" => option("--copy-log", value.as_bytes()),
        "PathMapFile" => option("--path-map", value.as_bytes()),
        "sn" => {
            let text = value.to_string_lossy();
            let is_good =
                (3..=24).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            if is_good {
                option("--endpoint", value.as_bytes());
            } else {
                faults.push("/sn: is the account's name: 3 to 24 lower-case letters and digits".into());
            }
        }
        "sk" | "csas" => {
            let file_option = if name == "sk" { "--account-key-file" } else { "--sas-file" };
            match value.as_bytes().strip_prefix(b"@") {
                Some(path) => option(file_option, path),
                None => {
                    warnings.push(format!(
                        "the value of /{name} is not used: whatever stands in a command line can be read by other users of \
                         this machine and stays in the shell's history. Write /{name}:@FILE, and consider renewing it"
                    ));
                    option(file_option, b"-");
                }
            }
        }
        "bk" => faults
            .push("/bk: an encrypted source drive is read by `dray verify --extract-to DIR`; name DIR with /d".into()),
        // The log says everything that a manifest would; nothing is logged that is not printed.
        _ => {}
    }
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
            "/r:/reps/9WM35C2V.rep",
            "/d:/bobmedia/photos;/more",
            "/sn:bobmediaaccount",
            "/sk:@key",
            "/CopyLogFile:9WM35C2V.log",
            "/PathMapFile:map.txt",
            "/logdir:logs",
            "--json",
        ];
        let wanted = "repair-import --repair-file=/reps/9WM35C2V.rep --dir=/bobmedia/photos --dir=/more \
                      --endpoint=bobmediaaccount --account-key-file=key --copy-log=9WM35C2V.log --path-map=map.txt --json";
        assert_eq!(of(&line), Ok((wanted.into(), 0)));
    }

    #[test]
    fn a_secret_in_the_command_line_is_neither_used_nor_shown() {
        let (modern, warnings) = of(&["/R:r", "/D:d", "/copylogfile:l", "/sn:acc", "/csas:hush"]).expect("good");
        assert!(modern.contains("--sas-file=-") && !modern.contains("hush") && warnings == 1, "{modern}");
        for bad in [
            &["/r:r", "/d:d"][..],
            &["/r:r", "/d:d", "/CopyLogFile:l", "/sk:@a", "/csas:@b"],
            &["/r:r", "/r:r", "/d:d", "/CopyLogFile:l"],
            &["/r:r", "/d:d", "/CopyLogFile:l", "/sn:No"],
            &["/r:r", "/d:d", "/CopyLogFile:l", "/bk:hush"],
            &["/r:r", "/d:d", "/CopyLogFile:l", "hush"],
            &["/r:r", "/d:d", "/CopyLogFil:l"],
        ] {
            let text = of(bad).expect_err("wrong");
            assert!(!text.contains("hush"), "{text}");
        }
    }
}
