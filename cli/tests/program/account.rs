//! `dray preview-export`, against inventories and against a storage account on this machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use dray_testdisks::azurite::Azurite;
use serde_json::Value;

use crate::common::{code, dray_in as dray, said, scratch};

fn lines(output: &std::process::Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

fn last(output: &std::process::Output, kind: &str) -> Value {
    let all = lines(output);
    all.into_iter().rfind(|value| value["type"] == kind).unwrap_or_else(|| panic!("no {kind}: {}", said(output)))
}

fn blob_list(dir: &Path, name: &str, selectors: &[&str]) {
    let items: Vec<String> = selectors
        .iter()
        .map(|text| match text.strip_prefix('/') {
            Some(_) => format!("<BlobPathPrefix>{text}</BlobPathPrefix>"),
            None => format!("<BlobPath>{text}</BlobPath>"),
        })
        .collect();
    fs::write(dir.join(name), format!("<?xml version=\"1.0\"?><BlobList>{}</BlobList>", items.concat()))
        .expect("a list");
}

#[test]
fn a_preview_has_the_documented_form() {
    let dir = scratch("preview-form");
    let giga = 1_000_000_000u64;
    let rows = [
        ("vhds/a.vhd", 400 * giga, "PageBlob", "Hot"),
        ("vhds/b.vhd", 300 * giga, "PageBlob", "Hot"),
        ("vhds/c.vhd", 150 * giga, "PageBlob", "Hot"),
        ("vhds/huge.vhd", 600 * giga, "PageBlob", "Hot"),
        ("pictures/animals/koala.jpg", giga, "BlockBlob", "Hot"),
        ("pictures/cold.jpg", giga, "BlockBlob", "Archive"),
        ("pictures/a:b.jpg", giga, "BlockBlob", "Hot"),
        ("pictures/dir/", 0, "BlockBlob", "Hot"),
        ("$root/logo.bmp", giga, "BlockBlob", "Hot"),
        ("other/x", giga, "BlockBlob", "Hot"),
    ];
    let mut csv = String::from("Name,Content-Length,BlobType,AccessTier,Snapshot,Deleted\n");
    rows.iter().for_each(|(name, len, kind, tier)| csv.push_str(&format!("{name},{len},{kind},{tier},,\n")));
    csv.push_str("vhds/a.vhd,1,PageBlob,Hot,2026-11-29T08:00:00.0000000Z,\nvhds/gone,1,BlockBlob,Hot,,true\n");
    fs::write(dir.join("inventory.csv"), csv).expect("an inventory");
    blob_list(&dir, "list.xml", &["/vhds/", "/pictures/", "$root/logo.bmp", "$root/logo.bmp", "other/nothing"]);
    let args = ["preview-export", "--blob-list", "list.xml", "--drive-size", "500GB", "--inventory", "inventory.csv"];
    let output = dray(&dir, &args);
    assert_eq!(code(&output), 3, "{}", said(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let wanted = "Number of unique blob paths/prefixes:   4\n\
                  Number of duplicate blob paths/prefixes:        1\n\
                  Number of nonexistent blob paths/prefixes:      1\n\n\
                  Drive size:     500.00 GB\n\
                  Number of blobs that can be exported:   5\n\
                  Number of blobs that cannot be exported:        4\n\
                  Number of drives needed:        2\n        Drive #1:       blobs = 3, occupied space = 40";
    assert!(text.starts_with(wanted), "{text}");
    assert!(text.contains("        Drive #2:       blobs = 2, occupied space = 450."), "{text}");
    for part in [
        "nonexistent: other/nothing",
        "archive tier",
        "larger than the room",
        "Windows cannot write",
        "ends in a slash",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // The classic lines of both generations say the same.
    let classic: [&[&str]; 2] = [
        &[
            "PreviewExport",
            "/logdir:x",
            "/ExportBlobListFile:list.xml",
            "/DriveSize:500GB",
            "--inventory",
            "inventory.csv",
        ],
        &[
            "previewexport",
            "/exportbloblistfile:list.xml",
            "/drivesize:500 GB",
            "/Cloud:Public",
            "--inventory",
            "inventory.csv",
        ],
    ];
    for words in classic {
        let output = dray(&dir, words);
        assert_eq!(
            (code(&output), String::from_utf8_lossy(&output.stdout).into_owned()),
            (3, text.clone()),
            "{words:?}"
        );
    }
    // A secret in the command line is neither used nor shown.
    let output =
        dray(&dir, &["PreviewExport", "/sn:acc", "/sk:TOPSECRET", "/ExportBlobListFile:list.xml", "/DriveSize:1TB"]);
    assert!(code(&output) == 1 && !said(&output).contains("TOPSECRET"), "{}", said(&output));

    // As JSON, with a list of blobs and drives.
    let output = dray(&dir, &[&args[..], &["--json", "--list", "where.csv"]].concat());
    let value = last(&output, "preview");
    assert_eq!(
        (value["blobs"].as_u64(), value["cannot"].as_u64(), value["exit_code"].as_u64()),
        (Some(5), Some(4), Some(3))
    );
    let list = fs::read_to_string(dir.join("where.csv")).expect("a list");
    let mut per_drive: BTreeMap<String, u64> = BTreeMap::new();
    for line in list.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        *per_drive.entry(cells[4].to_owned()).or_default() += 1;
    }
    assert_eq!(per_drive, BTreeMap::from([(String::new(), 4), ("1".into(), 3), ("2".into(), 2)]), "{list}");
    assert!(list.contains("vhds/a.vhd,,400000000000,PageBlob,1,"), "{list}");
    // Snapshots count when they are asked for; so does a whole account.
    blob_list(&dir, "all.xml", &["/"]);
    let all =
        ["preview-export", "--blob-list", "all.xml", "--drive-size", "4TB", "--inventory", "inventory.csv", "--json"];
    assert_eq!(last(&dray(&dir, &all), "preview")["blobs"], 7);
    assert_eq!(last(&dray(&dir, &[&all[..], &["--snapshots"]].concat()), "preview")["blobs"], 8);
    // Drives of several sizes; drives that are there and no more.
    let sizes = [
        "preview-export",
        "--blob-list",
        "list.xml",
        "--drive-size",
        "500GB,1TB",
        "--inventory",
        "inventory.csv",
        "--json",
    ];
    let value = last(&dray(&dir, &sizes), "preview");
    assert_eq!(value["drives"].as_array().map(Vec::len), Some(3), "400, 300 + 600, 150: {value}");
    assert_eq!(value["cannot"], 3, "the largest one fits on the second: {value}");
    fs::File::create(dir.join("drive.img")).and_then(|file| file.set_len(500 * giga)).expect("an image");
    let one =
        ["preview-export", "--blob-list", "list.xml", "--drive", "drive.img", "--inventory", "inventory.csv", "--json"];
    let value = last(&dray(&dir, &one), "preview");
    assert!(value["drives"].as_array().is_some_and(|drives| drives.len() == 1), "{value}");
    assert_eq!(value["left_over"], 2, "{value}");
    let _ = fs::remove_dir_all(dir);
}

#[test]
fn judge_a_preview_of_an_account_selects_as_the_table_says() {
    let dir = scratch("preview-account");
    let Some(azurite) = Azurite::start(&dir.join("azurite")) else { return };
    fs::write(dir.join("x"), "content").expect("written");
    let file = dir.join("x").display().to_string();
    for (container, name, more) in [
        ("$root", "logo.bmp", None),
        ("books", "one", None),
        ("bookshelf", "two", None),
        ("music", "lovesong", Some("snapshot=1")),
        ("music", "hate", None),
        ("music", "cold", Some("tier=Archive")),
        ("videos", "story.mp4", None),
        ("videos", "dir/a b%c#.mp4", None),
    ] {
        let words = ["put", container, name, &file, more.unwrap_or("author=a")];
        if azurite.client(&words).is_none() {
            return;
        }
    }
    let key = azurite.key_file().expect("a key").display().to_string();
    let ask = |selectors: &[&str], more: &[&str]| {
        blob_list(&dir, "list.xml", selectors);
        let args = ["preview-export", "--blob-list", "list.xml", "--drive-size", "1TB", "--json"];
        let account = ["--endpoint", &azurite.endpoint, "--account-key-file", &key];
        let output = dray(&dir, &[&args[..], &account, more].concat());
        let value = last(&output, "preview");
        (
            value["blobs"].as_u64().unwrap_or(0),
            value["cannot"].as_u64().unwrap_or(0),
            value["nonexistent"].clone(),
            code(&output),
        )
    };
    let none = serde_json::json!([]);
    for (selectors, blobs, cannot) in [
        (&["/"][..], 7, 1),
        (&["/$root/"], 1, 0),
        (&["/book"], 2, 0),
        (&["/music/"], 2, 1),
        (&["/music/love"], 1, 0),
        (&["$root/logo.bmp"], 1, 0),
        (&["videos/story.mp4"], 1, 0),
        (&["videos/dir/a b%c#.mp4", "/music/love"], 2, 0),
    ] {
        let exit = if cannot == 0 { 0 } else { 3 };
        assert_eq!(ask(selectors, &[]), (blobs, cannot, none.clone(), exit), "{selectors:?}");
    }
    assert_eq!(ask(&["/music/"], &["--snapshots"]).0, 3);
    assert_eq!(
        ask(&["/nothing", "videos/story", "/book"], &[]),
        (2, 0, serde_json::json!(["/nothing", "videos/story"]), 3)
    );
    // A key that is none, and none at all.
    fs::write(dir.join("bad.key"), "no base64").expect("written");
    let args = ["preview-export", "--blob-list", "list.xml", "--drive-size", "1TB", "--endpoint", &azurite.endpoint];
    assert_eq!(code(&dray(&dir, &[&args[..], &["--account-key-file", "bad.key"]].concat())), 1);
    let plain =
        ["preview-export", "--blob-list", "list.xml", "--drive-size", "1TB", "--endpoint", "http://example.com"];
    let output = dray(&dir, &[&plain[..], &["--account-key-file", &key]].concat());
    assert!(code(&output) == 1 && said(&output).contains("in the clear"), "{}", said(&output));
    let _ = fs::remove_dir_all(dir);
}
