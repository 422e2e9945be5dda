//! `dray export`: drives that are filled from a storage account on this machine, and what outside readers find on them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use dray_base::entropy::{Entropy, Seeded};
use dray_engine::api::prepare::shards::durable;
use dray_testdisks::azurite::{Azurite, Front};
use dray_testdisks::crates::crates;
use dray_testdisks::judge;
use serde_json::{Value, json};

use crate::common::{Session, blob_list, code, dray, run, said, unbroken};

mod shards;

/// A blob as it is uploaded, and the path that its extraction has.
struct Blob {
    container: &'static str,
    name: &'static str,
    content: Vec<u8>,
    more: Value,
}

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    Seeded::new(seed).fill(&mut out);
    out
}

fn blob(container: &'static str, name: &'static str, content: Vec<u8>, more: Value) -> Blob {
    Blob { container, name, content, more }
}

/// An account, a session's directory, and the words that lead to the account.
struct Exporting {
    session: Session,
    azurite: Azurite,
}

impl Exporting {
    /// `None`, loudly, without a judge.
    fn new(name: &str, blobs: &[Blob]) -> Option<Self> {
        let session = Session::new(name);
        let azurite = Azurite::open(&session.path("azurite"))?;
        let this = Self { session, azurite };
        this.upload(blobs).then_some(this)
    }

    fn upload(&self, blobs: &[Blob]) -> bool {
        let content = self.session.path("content");
        fs::create_dir_all(&content).expect("a directory");
        let list: Vec<Value> = blobs
            .iter()
            .enumerate()
            .map(|(i, blob)| {
                let file = content.join(format!("{i}"));
                fs::write(&file, &blob.content).expect("written");
                let mut one = blob.more.clone();
                one["container"] = blob.container.into();
                one["name"] = blob.name.into();
                one["file"] = file.display().to_string().into();
                one
            })
            .collect();
        let path = self.session.path("batch.json");
        fs::write(&path, Value::from(list).to_string()).expect("written");
        self.azurite.client(&["batch", &path.display().to_string()]).is_some()
    }

    fn blob_list(&self, selectors: &[&str]) {
        blob_list(&self.session.dir, "list.xml", selectors);
    }

    fn image(&self, size: &str) {
        self.session.driveset(&[format!("{}:{size}", self.session.path("drive.img").display())]);
    }

    fn words(&self, endpoint: &str, more: &[&str]) -> Vec<String> {
        let key = self.azurite.key_file().expect("a key").display().to_string();
        let fixed = ["export", "--journal", "export.jrn", "--id", "export#1", "--silent", "--endpoint", endpoint];
        let fixed = fixed.into_iter().chain(["--account-key-file", &key]);
        fixed.chain(more.iter().copied()).map(str::to_owned).collect()
    }

    fn begin<'a>(more: &[&'a str]) -> Vec<&'a str> {
        [&["--blob-list", "list.xml", "--driveset", "driveset.csv"], more].concat()
    }

    fn export(&self, endpoint: &str, more: &[&str]) -> Output {
        run(dray(self.words(endpoint, more)).current_dir(&self.session.dir))
    }

    /// A whole export without options.
    fn whole(&self, more: &[&str]) -> Output {
        self.export(&self.azurite.endpoint, &Self::begin(more))
    }

    /// The name of the only file in the session's directory that holds `part`.
    fn log_of(&self, part: &str) -> String {
        let names = fs::read_dir(&self.session.dir).expect("a directory").filter_map(Result::ok);
        let mut names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.find(|name| name.contains(part)).unwrap_or_else(|| panic!("no {part}"))
    }

    /// The only drive record beside the journal.
    fn record(&self) -> PathBuf {
        self.session.path("drive.xml")
    }

    /// `dray verify` calls the drive equal; the blobs are extracted into `out`, each with its SHA-256.
    fn verified(&self) -> BTreeMap<String, [u8; 32]> {
        let out = self.session.path("out");
        let _ = fs::remove_dir_all(&out);
        let output = self.session.dray("verify drive.img --key-file drive.xml --extract-to out");
        assert_eq!(code(&output), 0, "{}", said(&output));
        let mut found = BTreeMap::new();
        files_below(&out, &out, &mut found);
        found
    }
}

fn files_below(base: &Path, dir: &Path, found: &mut BTreeMap<String, [u8; 32]>) {
    for entry in fs::read_dir(dir).expect("a directory").filter_map(Result::ok) {
        let path = entry.path();
        let name = path.strip_prefix(base).expect("below").display().to_string();
        if path.is_dir() {
            if name != ".dray" {
                files_below(base, &path, found);
            }
        } else {
            found.insert(name, dray_hash::sha256(&fs::read(&path).expect("a file")));
        }
    }
}

fn elements<'a>(xml: &'a str, name: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    xml.split(&open).skip(1).filter_map(|rest| rest.split_once(&close)).map(|(text, _)| text).collect()
}

/// A path that programs with the classic limit of Windows do not open.
const LONG: &str = "long/llllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllll\
    llllllllllllllllllllllllll/mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm\
    mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm/n.bin";

/// Blobs of every kind, and names that are hard.
fn zoo() -> Vec<Blob> {
    let mut disk = vec![0; 6 << 20];
    let ranges = [(0usize, 4096usize), (1 << 20, 512), (5 << 20, 1 << 20)];
    for (seed, (at, len)) in (40..).zip(ranges) {
        disk[at..at + len].copy_from_slice(&bytes(seed, len));
    }
    let ranges: Vec<Value> = ranges.iter().map(|(at, len)| json!([at, len])).collect();
    vec![
        blob(
            "data",
            "small.txt",
            b"small".to_vec(),
            json!({
                "type": "text/x-small; charset=utf-8", "cache": "no-store", "metadata": {"author": "a & b", "year": "2026"},
            }),
        ),
        blob("data", "empty", Vec::new(), json!({})),
        blob("data", "blocks.bin", bytes(1, (9 << 20) + 5), json!({ "block": 4 << 20 })),
        blob("data", "odd-blocks.bin", bytes(2, 5_000_003), json!({ "block": 1_000_003 })),
        blob("data", "large-blocks.bin", bytes(3, 17 << 20), json!({ "block": 8 << 20 })),
        blob(
            "data",
            "uneven-blocks.bin",
            bytes(15, 13_000_000),
            json!({ "block": [700_001, 5_000_000, 1, 4_299_998, 2_000_000, 1_000_000] }),
        ),
        blob("data", "append.log", bytes(4, 3_000_001), json!({ "kind": "append" })),
        blob("data", "disk.vhd", disk, json!({ "kind": "page", "ranges": ranges, "lease": true })),
        blob("data", "a:b?.txt", bytes(5, 700), json!({})),
        blob("data", "CON", bytes(6, 701), json!({})),
        blob("data", "case.txt", bytes(7, 4096), json!({})),
        blob("data", "CASE.TXT", bytes(8, 4097), json!({})),
        blob("data", "case.txt.properties", bytes(9, 12), json!({})),
        blob("data", "dir/größe/😀 100%.txt", bytes(10, 70_000), json!({ "metadata": {"k": "v"} })),
        blob("data", "trailing.", bytes(11, 3), json!({})),
        blob("data", LONG, bytes(14, 5000), json!({})),
        blob("$root", "logo.bmp", bytes(12, 30_000), json!({ "type": "image/bmp" })),
        blob("other", "not-selected", bytes(13, 10), json!({})),
    ]
}

#[test]
fn judge_an_export_holds_what_the_account_has() {
    let blobs = zoo();
    let Some(this) = Exporting::new("export-zoo", &blobs) else { return };
    this.blob_list(&["/data/", "$root/logo.bmp", "data/nothing"]);
    this.image("300MB");
    // All that is wrong is told at once, and nothing was asked of the account.
    let wrong = ["--blob-list", "no.xml", "--driveset", "no.csv"];
    let output = this.export("http://127.0.0.1:9/devstoreaccount1", &wrong);
    let problems = unbroken(&said(&output));
    assert_eq!(code(&output), 1, "{problems}");
    assert!(problems.contains("no.xml: the blob list cannot be read") && problems.contains("no.csv"), "{problems}");
    // A plan writes nothing.
    let output = this.whole(&["--dry-run"]);
    assert_eq!(code(&output), 3, "one selector selects nothing: {}", said(&output));
    assert!(!this.session.path("export.jrn").exists() && !this.session.path("drive.img").exists());
    let output = this.whole(&["--json"]);
    assert_eq!(code(&output), 3, "one selector selects nothing: {}", said(&output));
    assert!(said(&output).contains("data/nothing"), "{}", said(&output));
    let kinds = crate::user::described(&output.stdout);
    assert!(kinds.is_none_or(|kinds| kinds.contains("not_exported=1")), "as the schema has it: {}", said(&output));

    let found = this.verified();
    for blob in blobs.iter().filter(|blob| blob.container != "other") {
        let path = format!("{}/{}", blob.container, blob.name);
        assert_eq!(found.get(&path), Some(&dray_hash::sha256(&blob.content)), "{path} of {:?}", found.keys());
    }
    assert!(!found.contains_key("other/not-selected"));

    // The manifest is beside the journal too.
    let manifest = fs::read_to_string(this.session.path("drive.manifest.xml")).expect("a manifest");
    let record = fs::read_to_string(this.record()).expect("a record");
    assert!(record.contains("<ManifestFile>\\drive.manifest</ManifestFile>"), "{record}");
    assert!(!manifest.contains("ImportDisposition") && !manifest.contains("StorageAccountKey"), "{manifest}");
    let entry = |path: &str| {
        let entries = elements(&manifest, "Blob");
        let own = format!("<BlobPath>{path}</BlobPath>");
        entries.into_iter().find(|entry| entry.contains(&own)).unwrap_or_else(|| panic!("{path}: {manifest}"))
    };
    // Block lists are those of the account, as the other client reads them.
    let read = this.azurite.client(&["read", "data"]).expect("read");
    let mut lists = Vec::new();
    for line in read.lines() {
        let one: Value = serde_json::from_str(line).expect("JSON");
        let (name, blocks) = (one["name"].as_str().expect("a name"), one["blocks"].as_array().expect("blocks"));
        let own = elements(entry(&format!("data/{name}")), "BlockList").concat();
        let mut at = 0;
        for block in blocks {
            let (id, len) =
                (base64(block[0].as_str().expect("an id").as_bytes()), block[1].as_u64().expect("a length"));
            let listed = format!("<Block Offset=\"{at}\" Length=\"{len}\" Id=\"{id}\" ");
            assert!(own.contains(&listed), "{name}: {listed} in {own}");
            at += len;
        }
        if !blocks.is_empty() {
            assert_eq!(own.matches("<Block ").count(), blocks.len(), "{name}: {own}");
            lists.push((name.to_owned(), blocks.len()));
        }
    }
    let lists: Vec<(&str, usize)> = lists.iter().map(|(name, count)| (&**name, *count)).collect();
    let expected = [("blocks.bin", 3), ("large-blocks.bin", 3), ("odd-blocks.bin", 5), ("uneven-blocks.bin", 6)];
    assert_eq!(lists, expected, "{read}");
    assert!(entry("data/append.log").contains("Id=\"AAAAAA==\""));
    let pages = entry("data/disk.vhd");
    assert!(pages.contains("<PageRange Offset=\"1048576\" Length=\"4096\""), "{pages}");
    assert!(!pages.contains("<Snapshot>"), "the snapshot is the export's own: {pages}");
    assert!(entry("data/small.txt").contains("<FilePath>\\data\\small.txt</FilePath>"));
    assert!(entry("data/small.txt").contains(">\\data\\small.txt.metadata</MetadataPath>"));
    assert!(!entry("data/a:b?.txt").contains("<FilePath>\\data\\a:b"), "the name is mapped");
    // It is gone from the account when the export is over.
    let listed = this.azurite.client(&["list", "data"]).expect("listed");
    assert!(!listed.contains("\"snapshot\": \"2"), "{listed}");

    let properties = this.session.works("cat drive.img \\data\\small.txt.properties --key-file drive.xml");
    for part in
        ["<Content-Type>text/x-small; charset=utf-8<", "<Cache-Control>no-store<", "<Content-Length>5<", "<Etag>"]
    {
        assert!(properties.contains(part), "{part}: {properties}");
    }
    let metadata = this.session.works("cat drive.img \\data\\small.txt.metadata --key-file drive.xml");
    assert!(metadata.contains("<author>a &amp; b</author> <year>2026</year>"), "{metadata}");

    // The logs that the service would write say the same as the drive.
    let verbose = this.log_of("_verbose.xml");
    let output = this.session.dray(&format!("verify drive.img --key-file drive.xml --copy-log {verbose}"));
    assert_eq!(code(&output), 0, "{}", said(&output));
    let second = fs::read_to_string(this.session.path(&this.log_of("VerboseLog"))).expect("a log");
    let crc = dray_hash::crc64(&blobs.iter().find(|blob| blob.name == "append.log").expect("a blob").content);
    let of_append = format!("CloudFormat=\"AppendBlob\" Path=\"data/append.log\" Size=\"3000001\" crc64=\"{crc}\"");
    assert!(second.contains(&of_append), "{second}");
    assert_eq!(second.matches(" crc64=\"").count(), blobs.len() - 1, "{second}");

    judge::drive(&this.session.path("drive.img"), &this.record(), None, false).expect_pass("scripts/judge-drive");
    crates(&this.session.path("drive.img"), &this.record(), None).expect_pass("bitlocker-core and ntfs");
    let _ = fs::remove_dir_all(&this.session.dir);
}

fn base64(bytes: &[u8]) -> String {
    dray_hash::base64(bytes)
}

#[test]
fn an_export_of_snapshots_names_each_in_the_manifest() {
    let first = [blob("data", "s.txt", b"first".to_vec(), json!({ "snapshot": true }))];
    let Some(this) = Exporting::new("export-snapshots", &first) else { return };
    assert!(this.upload(&[blob("data", "s.txt", b"second".to_vec(), json!({}))]));
    this.blob_list(&["data/s.txt"]);
    this.image("100MB");
    let output = this.whole(&["--snapshots"]);
    assert_eq!(code(&output), 0, "{}", said(&output));
    let manifest = fs::read_to_string(this.session.path("drive.manifest.xml")).expect("a manifest");
    let times = elements(&manifest, "Snapshot");
    assert_eq!((times.len(), elements(&manifest, "BlobPath")), (1, vec!["data/s.txt"; 2]), "{manifest}");
    let contents: Vec<[u8; 32]> = this.verified().into_values().collect();
    for content in ["first", "second"] {
        assert!(contents.contains(&dray_hash::sha256(content.as_bytes())), "{content}");
    }
    judge::drive(&this.session.path("drive.img"), &this.record(), None, false).expect_pass("scripts/judge-drive");
    let _ = fs::remove_dir_all(&this.session.dir);
}

/// Some blobs in the order in which they are read.
fn row(count: u64, len: usize) -> Vec<Blob> {
    const NAMES: [&str; 6] = ["b0", "b1", "b2", "b3", "b4", "b5"];
    (0..count).map(|i| blob("data", NAMES[i as usize], bytes(100 + i, len + i as usize), json!({}))).collect()
}

fn all_there(this: &Exporting, blobs: &[Blob]) {
    let found = this.verified();
    for blob in blobs {
        let path = format!("{}/{}", blob.container, blob.name);
        assert_eq!(found.get(&path), Some(&dray_hash::sha256(&blob.content)), "{path}");
    }
}

#[test]
fn an_export_that_is_killed_goes_on_with_the_same_blobs() {
    let blobs = row(4, 6 << 20);
    let Some(this) = Exporting::new("export-killed", &blobs) else { return };
    this.blob_list(&["/data/"]);
    this.image("200MB");
    // The last blob does not come until the program is killed.
    let faults = r#"[{"method": "GET", "path": "/data/b3$", "fault": "stall", "seconds": 60, "times": 9}]"#;
    let front = Front::start(&this.azurite, &this.session.path("front"), faults);
    let words = this.words(&front.endpoint, &Exporting::begin(&["--checkpoint-bytes", "4194304"]));
    let mut child = dray(words)
        .current_dir(&this.session.dir)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the program");
    let until = Instant::now() + Duration::from_secs(120);
    while !front.requests().contains("stall") {
        assert!(Instant::now() < until, "{}", front.requests());
        std::thread::sleep(Duration::from_millis(50));
    }
    // What came of the others becomes durable while the drive waits; the first one ends 27 MB into this drive.
    let journal = this.session.path("export.jrn");
    let is_durable = || durable("export#1", &journal, "drive").is_some_and(|durable| durable.end.0 > 28_000_000);
    while !is_durable() {
        assert!(Instant::now() < until, "the blobs that came are not durable");
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().expect("killed");
    child.wait().expect("its end");
    drop(front);
    let seen = Front::start(&this.azurite, &this.session.path("seen"), "[]");
    let output = this.export(&seen.endpoint, &["--resume"]);
    assert_eq!(code(&output), 0, "{}", said(&output));
    let requests = seen.requests();
    assert!(!requests.contains("comp=list"), "the plan has the listing: {requests}");
    assert!(!requests.contains("/data/b0"), "what is durable is not read again: {requests}");
    all_there(&this, &blobs);
    // Nothing is left to do.
    assert_eq!(code(&this.export(&this.azurite.endpoint, &["--resume"])), 0);
    // The words of another command do not continue it.
    let _ = fs::remove_dir_all(&this.session.dir);
}

#[test]
fn a_drive_that_a_killed_export_had_finished_gets_its_logs() {
    let blobs = row(2, 50 << 20);
    let Some(this) = Exporting::new("export-killed-late", &blobs) else { return };
    let old = this.session.path("old");
    fs::write(&old, "old").expect("written");
    assert!(this.azurite.client(&["put", "data", "old", &old.display().to_string(), "tier=Archive"]).is_some());
    this.blob_list(&["/data/"]);
    let images = ["one.img", "two.img"].map(|name| format!("{}:100MB", this.session.path(name).display()));
    this.session.driveset(&images);
    let faults = r#"[{"method": "GET", "path": "/data/b1$", "fault": "stall", "seconds": 60, "times": 99}]"#;
    let front = Front::start(&this.azurite, &this.session.path("front"), faults);
    let mut child = dray(this.words(&front.endpoint, &Exporting::begin(&[])))
        .current_dir(&this.session.dir)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the program");
    let until = Instant::now() + Duration::from_secs(120);
    let journal = || fs::read_to_string(this.session.path("export.jrn")).unwrap_or_default();
    let is_done = || {
        ["one", "two"].into_iter().find(|drive| {
            this.session.path(&format!("{drive}.manifest.xml")).exists()
                && this.session.path(&format!("export.jrn.export#1.{drive}.exported")).exists()
                && journal().matches("Completed").count() > 0
        })
    };
    while is_done().is_none() {
        assert!(Instant::now() < until, "{}", journal());
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().expect("killed");
    child.wait().expect("its end");
    drop(front);
    let logs = |kind: &str| {
        let names = fs::read_dir(&this.session.dir).expect("a directory").filter_map(Result::ok);
        let mut names: Vec<String> = names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.retain(|name| name.contains(kind) && name.ends_with(".xml"));
        names.sort();
        names
    };
    assert_eq!(logs("CopyLog"), [""; 0], "it was killed before its logs");
    let output = this.export(&this.azurite.endpoint, &["--resume"]);
    assert_eq!(code(&output), 3, "one blob lies in the archive: {}", said(&output));
    assert!(unbroken(&said(&output)).contains("data/old: BlobRequestFailed"), "{}", said(&output));
    assert_eq!((logs("CopyLog").len(), logs("VerboseLog").len(), logs("_verbose").len()), (2, 2, 2));
    let left = fs::read_to_string(this.session.path("export#1-incomplete.xml")).expect("a list");
    assert_eq!(elements(&left, "BlobPath"), ["data/old"]);
    let errors: Vec<String> =
        logs("_error").iter().map(|name| fs::read_to_string(this.session.path(name)).expect("a log")).collect();
    assert!(matches!(&errors[..], [error] if error.contains("<BlobPath>data/old<")), "{errors:?}");
    for drive in ["one", "two"] {
        let verbose = logs("_verbose").into_iter().find(|name| name.contains(drive)).expect("a log");
        let output = this.session.dray(&format!("verify {drive}.img --key-file {drive}.xml --copy-log {verbose}"));
        assert!(!said(&output).contains("Different"), "{}", said(&output));
    }
    // Nothing that only the logs needed is left.
    let rest = fs::read_dir(&this.session.dir).expect("a directory").filter_map(Result::ok);
    let rest: Vec<String> = rest.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert!(!rest.iter().any(|name| name.ends_with(".exported") || name.ends_with(".refused")), "{rest:?}");
    let _ = fs::remove_dir_all(&this.session.dir);
}

#[test]
fn a_blob_that_changed_is_left_out_and_listed() {
    let blobs = row(3, 100_000);
    let Some(this) = Exporting::new("export-changed", &blobs) else { return };
    this.blob_list(&["/data/"]);
    this.image("100MB");
    // The account refuses one request: the drive ends, and can be resumed.
    let faults =
        r#"[{"method": "GET", "path": "/data/b1$", "fault": "status", "status": 403, "code": "AuthorizationFailure"}]"#;
    let front = Front::start(&this.azurite, &this.session.path("front"), faults);
    let output = this.export(&front.endpoint, &Exporting::begin(&[]));
    assert!(code(&output) != 0 && said(&output).contains("--resume"), "{}", said(&output));
    drop(front);
    let output = this.session.dray("prep-import --journal export.jrn --id export#1 --resume --silent");
    assert!(code(&output) == 1 && said(&output).contains("`dray export`"), "{}", said(&output));
    // Nor another account, in which no blob would be found.
    let other = this.export(&format!("{}x", this.azurite.endpoint), &["--resume"]);
    assert!(code(&other) == 2 && said(&other).contains("is not the account"), "{} {}", code(&other), said(&other));
    // Meanwhile somebody writes another blob in its place.
    assert!(this.upload(&[blob("data", "b1", bytes(7, 100_001), json!({}))]));
    let output = this.export(&this.azurite.endpoint, &["--resume"]);
    assert_eq!(code(&output), 3, "{}", said(&output));
    assert!(unbroken(&said(&output)).contains("data/b1: BlobUnexpectedChange"), "{}", said(&output));
    let left = fs::read_to_string(this.session.path("export#1-incomplete.xml")).expect("a list");
    assert_eq!(elements(&left, "BlobPath"), ["data/b1"]);
    let error = fs::read_to_string(this.session.path(&this.log_of("_error.xml"))).expect("a log");
    assert!(error.contains("<Blob Status=\"BlobUnexpectedChange\">") && !error.contains("data/b0"), "{error}");
    let found = this.verified();
    assert_eq!(found.keys().collect::<Vec<_>>(), ["data/b0", "data/b2"]);
    judge::drive(&this.session.path("drive.img"), &this.record(), None, false).expect_pass("scripts/judge-drive");
    let _ = fs::remove_dir_all(&this.session.dir);
}

#[test]
fn faults_on_the_way_change_nothing() {
    let blobs = row(5, 3 << 20);
    let Some(this) = Exporting::new("export-faults", &blobs) else { return };
    this.blob_list(&["/data/"]);
    this.image("200MB");
    let faults = r#"[
        {"method": "GET", "path": "comp=list", "fault": "status", "retry_after": 0},
        {"method": "GET", "path": "comp=blocklist", "fault": "reset", "times": 2},
        {"method": "GET", "path": "/data/b0$", "fault": "half", "times": 2},
        {"method": "GET", "path": "/data/b1$", "fault": "reset", "times": 2},
        {"method": "GET", "path": "/data/b2$", "fault": "stall", "seconds": 4},
        {"method": "GET", "path": "/data/b3$", "fault": "status", "status": 503, "retry_after": 0, "times": 3},
        {"method": "GET", "path": "/data/b4$", "fault": "status", "status": 500, "times": 1}]"#;
    let front = Front::start(&this.azurite, &this.session.path("front"), faults);
    let output = this.export(&front.endpoint, &Exporting::begin(&["--stall", "2"]));
    assert_eq!(code(&output), 0, "{}", said(&output));
    let requests = front.requests();
    for fault in ["status", "reset", "half", "stall"] {
        assert!(requests.contains(&format!("\"fault\": \"{fault}\"")), "{fault} was not played: {requests}");
    }
    all_there(&this, &blobs);
    let _ = fs::remove_dir_all(&this.session.dir);
}

#[test]
fn what_does_not_fit_is_listed_and_waits_for_another_drive() {
    let mut blobs = row(2, 10_000);
    blobs.push(blob("data", "large", bytes(9, 72 << 20), json!({ "block": 8 << 20 })));
    let Some(this) = Exporting::new("export-full", &blobs) else { return };
    this.blob_list(&["/data/"]);
    this.image("88MB");
    let output = this.whole(&["--drive-id", "FIRST"]);
    assert_eq!(code(&output), 6, "{}", said(&output));
    let left = fs::read_to_string(this.session.path("export#1-incomplete.xml")).expect("a list");
    assert_eq!(elements(&left, "BlobPath"), ["data/large"], "{}", said(&output));
    // The session goes on with one drive more.
    let second = this.session.path("second.img");
    this.session.driveset(&[format!("{}:200MB", second.display())]);
    let output = this.export(&this.azurite.endpoint, &["--resume", "--additional-driveset", "driveset.csv"]);
    assert_eq!(code(&output), 0, "{}", said(&output));
    let output = this.session.dray("verify second.img --key-file second.xml --extract-to out");
    assert_eq!(code(&output), 0, "{}", said(&output));
    let large = fs::read(this.session.path("out/data/large")).expect("extracted");
    assert_eq!(dray_hash::sha256(&large), dray_hash::sha256(&blobs[2].content));
    let account = format!("--endpoint {} --account-key-file azurite/account.key", this.azurite.endpoint);
    let again = format!("preview-export --blob-list export#1-incomplete.xml --drive-size 1TB {account}");
    assert!(this.session.works(&again).contains("can be exported: 1 "), "the list is one that an export takes");
    let _ = fs::remove_dir_all(&this.session.dir);
}

#[test]
fn judge_a_repaired_export_is_what_the_account_has() {
    let blobs = [
        blob("data", "many", bytes(31, 9_000_003), json!({ "block": [3_000_001, 5_000_000, 1_000_002] })),
        blob("data", "other", bytes(32, 100_000), json!({})),
    ];
    let Some(this) = Exporting::new("export-repaired", &blobs) else { return };
    this.blob_list(&["/data/"]);
    this.image("100MB");
    let output = this.whole(&[]);
    assert_eq!(code(&output), 0, "{}", said(&output));
    let opened = crate::rehearse::opened(&this.session);
    let mut damage = crate::rehearse::Damage::new(&this.session);
    for (content, at) in [(&blobs[0].content, 2_999_000), (&blobs[0].content, 8_999_000), (&blobs[1].content, 512)] {
        let place = crate::rehearse::places(&opened, &content[..64]);
        assert_eq!(place.len(), 1);
        let wrong: Vec<u8> = content[at..at + 1003].iter().map(|byte| !byte).collect();
        damage.put(&opened, place[0] + at as u64, &wrong);
    }
    damage.stay();
    let verify = "verify drive.img --key-file drive.xml";
    assert_eq!(code(&this.session.dray(verify)), 5, "three blocks of two files are wrong");
    let key = this.azurite.key_file().expect("a key");
    let repair = format!(
        "repair-export drive.img --key-file drive.xml --yes drive --endpoint {} --account-key-file {}",
        this.azurite.endpoint,
        key.display()
    );
    this.session.works(&repair);
    this.session.works(verify);
    // Nothing of ours reads it: libbde opens the volume, ntfs-3g its files, the other client the blobs.
    let plain = this.session.path("plain.img");
    let (image, record) = (this.session.path("drive.img"), this.record());
    let drive = judge::Drive {
        image: &image,
        record: &record,
        dataset: None,
        partial: false,
        plain: Some(&plain),
        without: &[],
    };
    drive.judge().expect_pass("scripts/judge-drive");
    let read = this.azurite.client(&["read", "data"]).expect("read");
    let sums = read.lines().map(|line| {
        let one: Value = serde_json::from_str(line).expect("JSON");
        format!("\\data\\{}\t{}\n", one["name"].as_str().expect("a name"), one["sha256"].as_str().expect("a sum"))
    });
    let list = this.session.path("sums");
    fs::write(&list, sums.collect::<String>()).expect("written");
    judge::ask("content", &[&plain, &list]).expect_pass("content");
    let _ = fs::remove_dir_all(&this.session.dir);
}
