//! `RepairExport` of the Windows tool (docs/spec/import-export.md#repair-parameters), in modern words.
//!
//! `/d:` is the drive itself, a device or an image file: it is written through its file system's extents, not through a
//! mounted directory.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use super::classic::{ClassicFault, Translated};
use super::classic_words::Syntax;

const SYNTAX: Syntax = Syntax {
    classic: "RepairExport",
    modern: "repair-export",
    // Nothing is logged that is not printed: /logdir is taken and has no effect.
    values: &["r", "d", "sn", "CopyLogFile", "ManifestFile", "logdir"],
    secrets: &["bk", "sk", "csas"],
};

/// Turns the words behind `RepairExport` into modern ones.
pub fn parse(words: &[OsString]) -> Result<Translated, ClassicFault> {
    let Some(mut words) = SYNTAX.read(words) else { return Ok(SYNTAX.help()) };
    words.pass("r", "--repair-file");
    // Its key is asked for by the command itself, once it has found the drive encrypted.
    words.pass_secret("bk", "--key-file", false);
    words.pass_account(str::to_owned);
    words.pass_credential();
    words.pass("CopyLogFile", "--copy-log");
    words.pass("ManifestFile", "--manifest");
    let drive = words.value("d");
    if drive.is_some_and(|drive| drive.as_bytes().contains(&b';')) {
        words.fault("/d: is one drive: several are repaired one after another");
    }
    words.operand(drive);
    words.want(&[("r", "repair file"), ("d", "drive"), ("CopyLogFile", "copy log"), ("sn", "account")]);
    if !words.has("csas") {
        words.want(&[("sk", "@file with the account's key, or /csas:<@file with a SAS")]);
    }
    words.finish()
}

#[cfg(test)]
mod tests {
    use super::super::classic_words::{shown, words as classic_words};
    use super::*;

    fn of(words: &[&str]) -> Result<(String, usize), String> {
        shown(parse(&classic_words(words)))
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
        for part in ["/r:", "/CopyLogFile:", "/sn:", "/sk:"] {
            assert!(told.contains(part), "{part}: {told}");
        }
        let told = of(&["/CopyLogFil:x", "060456-014509", "/d:a;b", "/r:"]).expect_err("wrong");
        assert!(told.contains("did you mean /CopyLogFile?") && !told.contains("060456"), "{told}");
        assert!(told.contains("one drive") && told.contains("/r needs a value"), "{told}");
    }
}
