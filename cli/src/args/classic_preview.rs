//! `PreviewExport` of the Windows tool, both generations (docs/spec/import-export.md#previewexport), in modern words.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::classic::{Fault, Translated, split, usage};

/// Blob endpoint suffix of each cloud.
const CLOUDS: &[(&str, &str)] = &[
    ("Public", "core.windows.net"),
    ("USGov", "core.usgovcloudapi.net"),
    ("USGovernment", "core.usgovcloudapi.net"),
    ("China", "core.chinacloudapi.cn"),
];

/// Turns the words behind `PreviewExport` into modern ones.
pub fn parse(words: &[OsString]) -> Result<Translated, Fault> {
    let split_at = words.iter().position(|word| word.as_bytes().starts_with(b"-")).unwrap_or(words.len());
    let (classic, modern_tail) = words.split_at(split_at);
    let help = || Translated { modern: vec!["preview-export".into(), "--help".into()], warnings: Vec::new() };
    if modern_tail.iter().any(|word| word == "--help" || word == "-h") {
        return Ok(help());
    }
    let mut warnings = Vec::new();
    let mut faults = Vec::new();
    let mut modern: Vec<OsString> = vec!["preview-export".into()];
    let (mut account, mut suffix) = (None, CLOUDS[0].1);
    let mut secrets: Vec<&str> = Vec::new();
    let (mut has_list, mut has_size) = (false, false);
    let mut option = |name: &str, value: &OsStr| {
        // `--option=value` in one word: a value may start with `-` or `/`.
        let mut word = name.as_bytes().to_vec();
        word.push(b'=');
        word.extend_from_slice(value.as_bytes());
        modern.push(OsString::from_vec(word));
    };
    for (at, word) in classic.iter().enumerate() {
        if matches!(word.as_bytes(), b"/?" | b"/help") {
            return Ok(help());
        }
        let Some(given) = split(word).filter(|given| given.slash) else {
            faults.push(format!("word {} after PreviewExport is not a parameter (/name:value)", at + 1));
            continue;
        };
        let value = given.value.filter(|value| !value.is_empty());
        let name = given.name.to_ascii_lowercase();
        let Some(value) = value.filter(|_| name.len() <= 24) else {
            faults.push(match name.as_str() {
                "sn" | "sk" | "csas" | "exportbloblistfile" | "drivesize" | "logdir" | "cloud" => {
                    format!("/{} needs a value: /{}:<value>, without a space", given.name, given.name)
                }
                _ => format!("word {} after PreviewExport is not a parameter (/name:value)", at + 1),
            });
            continue;
        };
        match name.as_str() {
            "exportbloblistfile" => {
                has_list = true;
                option("--blob-list", value);
            }
            "drivesize" => {
                has_size = true;
                option("--drive-size", value);
            }
            // Nothing is logged that is not printed.
            "logdir" => {}
            "sn" => account = Some(value.to_string_lossy().into_owned()),
            "cloud" => match CLOUDS.iter().find(|(name, _)| value.to_string_lossy().eq_ignore_ascii_case(name)) {
                Some((_, found)) => suffix = found,
                None => faults.push(format!(
                    "/Cloud: is {}",
                    CLOUDS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
                )),
            },
            "sk" | "csas" => {
                let (shown, file_option) =
                    if name == "sk" { ("/sk", "--account-key-file") } else { ("/csas", "--sas-file") };
                if secrets.contains(&shown) {
                    faults.push(format!("{shown} is given twice"));
                }
                secrets.push(shown);
                match value.as_bytes().strip_prefix(b"@") {
                    Some(path) => option(file_option, OsStr::from_bytes(path)),
                    None => {
                        warnings.push(format!(
                            "the value of {shown} is not used: whatever stands in a command line can be read by other users \
                             of this machine and stays in the shell's history. Write {shown}:@FILE, and consider renewing it"
                        ));
                        option(file_option, OsStr::new("-"));
                    }
                }
            }
            _ => faults.push(format!("unknown parameter /{}", given.name)),
        }
    }
    if secrets.contains(&"/sk") && secrets.contains(&"/csas") {
        faults.push("/sk and /csas exclude each other".into());
    }
    if faults.is_empty() && modern_tail.is_empty() {
        if !has_list {
            faults.push("/ExportBlobListFile:<blob list> is missing".into());
        }
        if !has_size {
            faults.push("/DriveSize:<size> is missing".into());
        }
    }
    if let Some(account) = account {
        let is_good = (3..=24).contains(&account.len())
            && account.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if is_good {
            modern.push(format!("--endpoint=https://{account}.blob.{suffix}").into());
        } else {
            faults.push("/sn: is the account's name: 3 to 24 lower-case letters and digits".into());
        }
    }
    if !faults.is_empty() {
        let text: Vec<String> = faults.iter().map(|fault| format!("dray: {fault}")).collect();
        return Err(usage(text.join("\n")));
    }
    modern.extend(modern_tail.iter().cloned());
    Ok(Translated { modern, warnings })
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
    fn both_generations_are_read() {
        let first =
            ["/logdir:C:\\logs", "/sn:bobmediaaccount", "/sk:@key", "/ExportBlobListFile:list.xml", "/DriveSize:500GB"];
        assert_eq!(
            of(&first),
            Ok((
                "preview-export --account-key-file=key --blob-list=list.xml --drive-size=500GB \
                 --endpoint=https://bobmediaaccount.blob.core.windows.net"
                    .into(),
                0
            ))
        );
        let late = ["/exportbloblistfile:list.xml", "/drivesize:1.5 TB", "/Cloud:Public", "--inventory", "i.csv"];
        assert_eq!(
            of(&late),
            Ok(("preview-export --blob-list=list.xml --drive-size=1.5 TB --inventory i.csv".into(), 0))
        );
        let gov = ["/sn:acc", "/csas:@sas", "/ExportBlobListFile:l", "/DriveSize:1TB", "/Cloud:usgov"];
        assert!(of(&gov).expect("good").0.ends_with("--endpoint=https://acc.blob.core.usgovcloudapi.net"));
    }

    #[test]
    fn a_secret_in_the_command_line_is_neither_used_nor_shown() {
        let (modern, warnings) =
            of(&["/sn:acc", "/sk:c2VjcmV0", "/ExportBlobListFile:l", "/DriveSize:1TB"]).expect("good");
        assert!(!modern.contains("c2VjcmV0") && modern.contains("--account-key-file=-"), "{modern}");
        assert_eq!(warnings, 1);
        for bad in [
            &["/sn:acc", "/sk:@a", "/csas:@b", "/ExportBlobListFile:l", "/DriveSize:1TB"][..],
            &["/ExportBlobListFile:l"],
            &["/DriveSize:1TB", "/ExportBlobListFile:"],
            &["/nonsense:hush", "/ExportBlobListFile:l", "/DriveSize:1TB"],
            &["/Cloud:Mars", "/ExportBlobListFile:l", "/DriveSize:1TB"],
            &["/sn:Acc", "/ExportBlobListFile:l", "/DriveSize:1TB"],
            &["hush", "/ExportBlobListFile:l", "/DriveSize:1TB"],
        ] {
            let text = of(bad).expect_err("wrong");
            assert!(!text.contains("hush"), "{text}");
        }
    }
}
