//! `RepairImport` of the Windows tool (docs/spec/import-export.md#repair-parameters), in modern words.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::classic::{ClassicFault, Translated};
use super::classic_words::Syntax;

const SYNTAX: Syntax = Syntax {
    classic: "RepairImport",
    modern: "repair-import",
    // Nothing is logged that is not printed: /logdir is taken and has no effect.
    values: &["r", "d", "sn", "CopyLogFile", "ManifestFile", "PathMapFile", "logdir"],
    secrets: &["bk", "sk", "csas"],
};

/// Turns the words behind `RepairImport` into modern ones.
pub fn parse(words: &[OsString]) -> Result<Translated, ClassicFault> {
    let Some(mut words) = SYNTAX.read(words) else { return Ok(SYNTAX.help()) };
    words.pass("r", "--repair-file");
    words.pass_secret("bk", "--key-file", false);
    // With a key, /d is the drive that it opens, or an image of it.
    let option = if words.has("bk") { "--drive" } else { "--dir" };
    let dirs = words.value("d").map_or(&[][..], OsStr::as_bytes).split(|byte| *byte == b';');
    for dir in dirs.filter(|dir| !dir.is_empty()) {
        words.option(option, OsStr::from_bytes(dir));
    }
    words.pass_account(str::to_owned);
    words.pass_credential();
    words.pass("CopyLogFile", "--copy-log");
    words.pass("ManifestFile", "--manifest");
    words.pass("PathMapFile", "--path-map");
    words.want(&[("r", "repair file"), ("d", "directories"), ("CopyLogFile", "copy log")]);
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
        let line = ["/r:r", "/bk:@key", "/d:/dev/sdb", "/CopyLogFile:l", "/ManifestFile:m"];
        let wanted = "repair-import --repair-file=r --key-file=key --drive=/dev/sdb --copy-log=l --manifest=m";
        assert_eq!(of(&line), Ok((wanted.into(), 0)));
        let (modern, warnings) = of(&["/r:r", "/d:d", "/CopyLogFile:l", "/bk:hush"]).expect("good");
        assert!(modern.contains("--drive=d") && !modern.contains("hush") && warnings == 1, "{modern}");
        let (modern, warnings) = of(&["/R:r", "/D:d", "/copylogfile:l", "/sn:acc", "/csas:hush"]).expect("good");
        assert!(modern.contains("--sas-file=-") && !modern.contains("hush") && warnings == 1, "{modern}");
        for bad in [
            &["/r:r", "/d:d"][..],
            &["/r:r", "/d:d", "/CopyLogFile:l", "/sk:@a", "/csas:@b"],
            &["/r:r", "/r:r", "/d:d", "/CopyLogFile:l"],
            &["/r:r", "/d:d", "/CopyLogFile:l", "/sn:No"],
            &["/r:r", "/d:d", "/CopyLogFile:l", "hush"],
            &["/r:r", "/d:d", "/CopyLogFil:l"],
        ] {
            let text = of(bad).expect_err("wrong");
            assert!(!text.contains("hush"), "{text}");
        }
    }
}
