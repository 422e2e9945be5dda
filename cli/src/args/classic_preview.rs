//! `PreviewExport` of the Windows tool, both generations (docs/spec/import-export.md#previewexport), in modern words.

use std::ffi::OsString;

use super::classic::{ClassicFault, Translated};
use super::classic_words::Syntax;

/// Blob endpoint suffix of each cloud.
const CLOUDS: &[(&str, &str)] = &[
    ("Public", "core.windows.net"),
    ("USGov", "core.usgovcloudapi.net"),
    ("USGovernment", "core.usgovcloudapi.net"),
    ("China", "core.chinacloudapi.cn"),
];

const SYNTAX: Syntax = Syntax {
    classic: "PreviewExport",
    modern: "preview-export",
    // Nothing is logged that is not printed: /logdir is taken and has no effect.
    values: &["sn", "ExportBlobListFile", "DriveSize", "Cloud", "logdir"],
    secrets: &["sk", "csas"],
};

/// Turns the words behind `PreviewExport` into modern ones.
pub fn parse(words: &[OsString]) -> Result<Translated, ClassicFault> {
    let Some(mut words) = SYNTAX.read(words) else { return Ok(SYNTAX.help()) };
    words.pass_credential();
    words.pass("ExportBlobListFile", "--blob-list");
    words.pass("DriveSize", "--drive-size");
    let cloud = words.value("Cloud").map_or("Public".into(), |cloud| cloud.to_string_lossy());
    match CLOUDS.iter().find(|(name, _)| cloud.eq_ignore_ascii_case(name)) {
        Some((_, suffix)) => words.pass_account(|name| format!("https://{name}.blob.{suffix}")),
        None => {
            let names: Vec<&str> = CLOUDS.iter().map(|(name, _)| *name).collect();
            words.fault(format!("/Cloud: is {}", names.join(", ")));
        }
    }
    words.want(&[("ExportBlobListFile", "blob list"), ("DriveSize", "size")]);
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
