//! `dray preview-export` and `dray audit`, against inventories and against a storage account on this machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use dray_testdisks::azurite::{Azurite, Front};
use serde_json::Value;

use crate::common::{blob_list, code, dray_in as dray, said, scratch};

fn lines(output: &std::process::Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    // Every object, field by field; a skip is said there.
    crate::user::described(text.as_bytes());
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

fn last(output: &std::process::Output, kind: &str) -> Value {
    let all = lines(output);
    all.into_iter().rfind(|value| value["type"] == kind).unwrap_or_else(|| panic!("no {kind}: {}", said(output)))
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
    let Some(azurite) = Azurite::open(&dir.join("azurite")) else { return };
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

/// Blobs of twenty thousand blocks, whose manifests take more than their contents: what is reckoned by blocks of 4 MiB is
/// one drive too few, and what the block lists say is what the export needs.
#[test]
fn judge_a_preview_by_block_lists_is_what_the_export_needs() {
    const BLOCKS: u64 = 20_000;
    let dir = scratch("preview-blocks");
    let Some(azurite) = Azurite::open(&dir.join("azurite")) else { return };
    for name in ["one.img", "two.img"] {
        fs::File::create(dir.join(name)).and_then(|file| file.set_len(100_000_256)).expect("an image");
    }
    fs::write(dir.join("block"), [7; 100]).expect("written");
    let tiny = |name: &str| {
        let file = dir.join("block").display().to_string();
        serde_json::json!({ "container": "data", "name": name, "file": file, "times": BLOCKS })
    };
    let upload = |list: Value| {
        fs::write(dir.join("batch.json"), list.to_string()).expect("written");
        azurite.client(&["batch", &dir.join("batch.json").display().to_string()])
    };
    let names = ["a", "b", "c", "d", "e", "f"];
    if upload(names.into_iter().map(tiny).collect()).is_none() {
        return;
    }
    let key = azurite.key_file().expect("a key").display().to_string();
    let account = ["--endpoint", &azurite.endpoint, "--account-key-file", &key];
    blob_list(&dir, "list.xml", &["/data/"]);
    let preview = |more: &[&str]| {
        let args = ["preview-export", "--blob-list", "list.xml", "--drive", "one.img", "--drive", "two.img", "--json"];
        let output = dray(&dir, &[&args[..], &account, more].concat());
        assert_eq!(code(&output), 0, "{}", said(&output));
        let value = last(&output, "preview");
        (value["drives"].as_array().map_or(0, Vec::len), value["drives_at_most"].as_u64().unwrap_or(0), value)
    };
    // The rest of a drive but for 10 MB, of 21 MB that the manifest takes.
    let (.., first) = preview(&[]);
    let room = first["rooms"][0].as_u64().expect("a room");
    let content = names.len() as u64 * BLOCKS * 100;
    let filler = vec![9; (room - content - 10_000_000) as usize];
    fs::write(dir.join("filler"), filler).expect("written");
    azurite.client(&["put", "data", "filler", &dir.join("filler").display().to_string()]).expect("put");
    let (drives, at_most, value) = preview(&[]);
    assert_eq!((drives, at_most, &value["block_lists"]), (1, 2, &Value::Bool(false)), "{value}");
    let (drives, at_most, value) = preview(&["--block-lists"]);
    assert_eq!((drives, at_most, &value["block_lists"]), (2, 2, &Value::Bool(true)), "{value}");
    let text =
        dray(&dir, &[&["preview-export", "--blob-list", "list.xml", "--drive-size", "1TB"][..], &account].concat());
    let text = said(&text);
    assert!(text.contains("shorter ones would change neither the number of drives"), "{text}");
    let inventory = ["preview-export", "--blob-list", "list.xml", "--drive-size", "1TB", "--inventory", "x.csv"];
    let output = dray(&dir, &[&inventory[..], &["--block-lists"]].concat());
    assert_eq!(code(&output), 1, "an inventory has no block lists: {}", said(&output));

    let export = |id: &str, images: &[&str]| {
        let rows: Vec<String> = images.iter().map(|name| format!("{name},Format,SilentMode,Encrypt,")).collect();
        let head = "DriveLetter,FormatOption,SilentOrPromptOnFormat,Encryption,ExistingBitLockerKey";
        fs::write(dir.join("driveset.csv"), format!("{head}\n{}\n", rows.join("\n"))).expect("a driveset");
        let args =
            ["export", "--journal", "x.jrn", "--id", id, "--blob-list", "list.xml", "--driveset", "driveset.csv"];
        dray(&dir, &[&args[..], &["--silent"], &account].concat())
    };
    let output = export("one", &["one.img"]);
    assert_eq!(code(&output), 6, "one drive is too few: {}", said(&output));
    fs::remove_file(dir.join("x.jrn")).expect("a journal");
    for name in ["one.img", "two.img"] {
        fs::File::create(dir.join(name)).and_then(|file| file.set_len(100_000_256)).expect("an image");
    }
    fs::remove_file(dir.join("one.xml")).expect("a record");
    let output = export("two", &["one.img", "two.img"]);
    assert_eq!(code(&output), 0, "{}", said(&output));
    assert!(["one.xml", "two.xml"].iter().all(|record| dir.join(record).exists()), "{}", said(&output));
    let _ = fs::remove_dir_all(dir);
}

/// Six sources, and a dataset that sends them to `box/` with metadata.
fn sources(dir: &Path) -> [(&'static str, Vec<u8>); 6] {
    let files = [
        ("same", b"as it was".to_vec()),
        ("gone", b"nobody has it".to_vec()),
        ("longer", b"short".to_vec()),
        ("changed", vec![7; 300_000]),
        ("x.y", b"under another name".to_vec()),
        ("told", b"other metadata".to_vec()),
    ];
    fs::create_dir_all(dir.join("src")).expect("a directory");
    files.iter().for_each(|(name, content)| fs::write(dir.join("src").join(name), content).expect("written"));
    fs::write(dir.join("meta.xml"), "<?xml version=\"1.0\"?><Metadata><author>alice</author></Metadata>")
        .expect("written");
    let csv = format!(
        "BasePath,DstBlobPathOrPrefix,BlobType,Disposition,MetadataFile,PropertiesFile\n\"{}/\",box/,BlockBlob,rename,\"{}\",None\n",
        dir.join("src").display(),
        dir.join("meta.xml").display()
    );
    fs::write(dir.join("dataset.csv"), csv).expect("a dataset");
    files
}

#[test]
fn judge_an_audit_finds_what_became_of_an_upload_by_azcopy() {
    let dir = scratch("audit-azcopy");
    let Some(azurite) = Azurite::open(&dir.join("azurite")) else { return };
    let files = sources(&dir);
    fs::write(dir.join("seed"), "seed").expect("written");
    let Some(sas) = azurite.client(&["sas", "rwdlac"]) else { return };
    if azurite.client(&["put", "box", "seed", &dir.join("seed").display().to_string()]).is_none() {
        return;
    }
    let key = azurite.key_file().expect("a key").display().to_string();
    let account = ["--endpoint", &azurite.endpoint, "--account-key-file", &key];
    let upload = || {
        let from = format!("{}/*", dir.join("src").display());
        let to = format!("{}/box?{{SAS}}", azurite.endpoint);
        azurite.azcopy(
            sas.trim(),
            &["copy", &from, &to, "--from-to=LocalBlob", "--metadata=author=alice", "--overwrite=true"],
        )
    };
    if upload().is_none() {
        return;
    }
    let args = [
        "audit",
        "--dataset",
        "dataset.csv",
        "--json",
        "--list",
        "all.jsonl",
        "--left",
        "left.csv",
        "--report",
        "r.html",
    ];
    // All of it is there: AzCopy set no hash of several blocks, so what is not proven otherwise is read back.
    let output = dray(&dir, &[&args[..], &account].concat());
    assert_eq!(code(&output), 0, "{}", said(&output));
    assert_eq!(last(&output, "audit")["counts"]["equal"]["count"], 6);

    // One is missing, one longer, one has another byte, one another name, one other metadata.
    let put = |name: &str, content: &[u8], more: &str| {
        fs::write(dir.join("new"), content).expect("written");
        azurite.client(&["put", "box", name, &dir.join("new").display().to_string(), more]).expect("put");
    };
    azurite.client(&["delete", "box", "gone"]).expect("deleted");
    put("longer", b"short and more", "author=alice");
    let mut changed = files[3].1.clone();
    changed[200_000] ^= 1;
    put("changed", &changed, "author=alice");
    put("x (2).y", &files[4].1, "author=alice");
    put("x.y", b"it was there before", "author=bob");
    put("told", &files[5].1, "author=mallory");
    let output = dray(&dir, &[&args[..], &account].concat());
    assert_eq!(code(&output), 5, "{}", said(&output));
    let rows: BTreeMap<String, Value> = fs::read_to_string(dir.join("all.jsonl"))
        .expect("a list")
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .map(|row| (row["blob"].as_str().expect("a blob").to_owned(), row))
        .collect();
    for (name, verdict, properties) in [
        ("same", "equal", "equal"),
        ("gone", "missing", "missing"),
        ("longer", "different", "equal"),
        ("changed", "different", "equal"),
        ("x.y", "equal", "equal"),
        ("told", "different", "different"),
    ] {
        let row = &rows[&format!("box/{name}")];
        assert_eq!((row["verdict"].as_str(), row["properties"].as_str()), (Some(verdict), Some(properties)), "{row}");
    }
    assert_eq!(rows["box/x.y"]["renamed"], "box/x (2).y");
    assert_eq!(rows["box/told"]["content"], "equal");
    let report = fs::read_to_string(dir.join("r.html")).expect("a page");
    assert!(report.contains("KEEP THE SOURCES") && report.contains("Signature"), "{report}");

    // What is left to send is a dataset; once it is sent, the sources may go.
    let left = fs::read_to_string(dir.join("left.csv")).expect("a dataset");
    assert_eq!(left.lines().count(), 5, "{left}");
    let output = dray(&dir, &["check", "left.csv", "--as", "dataset"]);
    let output = if code(&output) == 0 { output } else { dray(&dir, &["check", "left.csv"]) };
    assert_eq!(code(&output), 0, "{}", said(&output));
    let output = dray(&dir, &[&["audit", "--dataset", "left.csv"][..], &account].concat());
    assert_eq!(code(&output), 5, "{}", said(&output));
    upload();
    let output = dray(&dir, &[&["audit", "--dataset", "left.csv", "--read", "all"][..], &account].concat());
    assert_eq!(code(&output), 0, "{}", said(&output));
    assert!(said(&output).contains("ALL THERE"), "{}", said(&output));
    let _ = fs::remove_dir_all(dir);
}

#[test]
fn an_audit_by_manifest_reads_back_what_nothing_else_proves() {
    let dir = scratch("audit-manifest");
    let Some(azurite) = Azurite::open(&dir.join("azurite")) else { return };
    // MD5 of "a" and of "b".
    let (a, b) = ("0CC175B9C0F1B6A831C399E269772661", "92EB5FFEE6AE2FEC3AD71C777531578F");
    let manifest = format!(
        "<?xml version=\"1.0\"?><DriveManifest Version=\"2014-11-01\"><Drive><DriveId>WD-1</DriveId><BlobList>\
         <Blob><BlobPath>box/one</BlobPath><FilePath>\\s\\one</FilePath><Length>1</Length><BlockList>\
         <Block Offset=\"0\" Length=\"1\" Id=\"AA==\" Hash=\"{a}\"/></BlockList></Blob>\
         <Blob><BlobPath>box/two</BlobPath><FilePath>\\s\\two</FilePath><Length>2</Length><BlockList>\
         <Block Offset=\"0\" Length=\"1\" Id=\"AA==\" Hash=\"{a}\"/><Block Offset=\"1\" Length=\"1\" Id=\"AQ==\" Hash=\"{b}\"/>\
         </BlockList></Blob></BlobList></Drive></DriveManifest>"
    );
    fs::write(dir.join("m.xml"), manifest).expect("a manifest");
    for (name, content) in [("one", "a"), ("two", "ab")] {
        fs::write(dir.join("x"), content).expect("written");
        if azurite.client(&["put", "box", name, &dir.join("x").display().to_string()]).is_none() {
            return;
        }
    }
    let key = azurite.key_file().expect("a key").display().to_string();
    let run = |endpoint: &str, more: &[&str]| {
        let args = ["audit", "--manifest", "m.xml", "--json", "--endpoint", endpoint, "--account-key-file", &key];
        let output = dray(&dir, &[&args[..], more].concat());
        (code(&output), last(&output, "audit"))
    };
    let (exit, value) = run(&azurite.endpoint, &[]);
    assert_eq!(exit, 0, "{value}");
    assert_eq!(value["bytes_read"], 2, "the hash of the first proves it: {value}");
    let (exit, value) = run(&azurite.endpoint, &["--read", "none"]);
    assert_eq!((exit, value["counts"]["unknown"]["count"].as_u64()), (3, Some(1)), "{value}");
    // A bit that turns on the way is found by whoever reads.
    let flip = r#"[{"method": "GET", "path": "/box/two$", "fault": "flip"}]"#;
    let front = Front::start(&azurite, &dir.join("front"), flip);
    let (exit, value) = run(&front.endpoint, &["--read", "all"]);
    assert_eq!((exit, value["counts"]["different"]["count"].as_u64()), (5, Some(1)), "{value}\n{}", front.requests());
    drop(front);
    // A listing that lacks a blob, by which it is missing; and an account that does not answer for a while.
    let faults = r#"[{"method": "GET", "path": "comp=list", "fault": "status", "retry_after": 0},
                     {"method": "GET", "path": "comp=list", "fault": "list", "name": "one", "times": 9}]"#;
    let front = Front::start(&azurite, &dir.join("front"), faults);
    let (exit, value) = run(&front.endpoint, &[]);
    assert_eq!((exit, value["counts"]["missing"]["count"].as_u64()), (5, Some(1)), "{value}\n{}", front.requests());
    // Copy logs alone: the service's word for each block.
    let log = format!(
        "<DriveLog Version=\"2014-11-01\"><DriveId>WD-1</DriveId><Blob Status=\"Completed\"><BlobPath>box/one</BlobPath>\
         <FilePath>\\s\\one</FilePath><Length>1</Length><ImportDisposition Status=\"Created\">rename</ImportDisposition>\
         <BlockList><Block Offset=\"0\" Length=\"1\" Hash=\"{a}\" Status=\"Completed\"/></BlockList></Blob>\
         <Status>Completed</Status></DriveLog>"
    );
    fs::write(dir.join("log.xml"), log).expect("a log");
    let output = dray(&dir, &["audit", "--manifest", "m.xml", "--copy-log", "log.xml", "--json"]);
    let value = last(&output, "audit");
    assert_eq!(code(&output), 3, "{}", said(&output));
    assert_eq!(
        (value["counts"]["equal"]["count"].as_u64(), value["counts"]["unknown"]["count"].as_u64()),
        (Some(1), Some(1))
    );
    assert_eq!(code(&dray(&dir, &["audit", "--manifest", "m.xml"])), 1, "nothing says what is there");
    let _ = fs::remove_dir_all(dir);
}
