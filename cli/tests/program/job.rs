//! `dray job` against a local stand-in for the service that implements only the published API files.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::common::{code, dray_in as dray, said, scratch};

pub const KEY: &str = "238810-662376-448998-450120-652806-203390-606320-483076";
pub const OTHER_KEY: &str = "442926-020713-108086-436744-137335-435358-242242-279598";

/// A drive record in the form of the published sample.
pub fn record(dir: &Path, id: &str, key: &str, state: &str) {
    let text = format!(
        "[BeginUpdateRecord][2016/11/01 23:22:25.379][Type:ActivityRecord]\r\nActivityId: DriveInfo\r\n\
         DriveState: [BeginValue]\r\n<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<Drive>\r\n   <DriveId>{id}</DriveId>\r\n   \
         <BitLockerKey>{key}</BitLockerKey>\r\n   <ManifestFile>\\DriveManifest.xml</ManifestFile>\r\n   \
         <ManifestHash>109B21108597EF36D5785F08303F3638</ManifestHash>\r\n</Drive>\r\n[EndValue]\r\n\
         SaveCommandOutput: {state}\r\n[EndUpdateRecord]\r\n"
    );
    fs::write(dir.join(format!("{id}.xml")), text).expect("a record");
}

/// A template with all its examples replaced.
pub fn filled_in(text: &str) -> String {
    [
        ("00000000-0000-0000-0000-000000000000", "5ab6f9c2-0000-4000-8000-1234567890ab"),
        ("my-group", "archive"),
        ("mystorage", "contosoarchive"),
        ("A. Person", "B. Sender"),
        ("1 Example Street", "12 Long Lane"),
        ("\"Redmond\"", "\"Bothell\""),
        ("98052", "98011"),
        ("4250000000", "4255550100"),
        ("person@example.com", "sender@contoso.com"),
        ("\"123456789\"", "\"510087348\""),
        ("videos/story.mp4", "films/story.mp4"),
        ("/music/love", "/songs/love"),
        ("WD-WMATV123456", "ZL2ABC12"),
    ]
    .into_iter()
    .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// A job's description in `dir`, filled in.
pub fn described(dir: &Path) {
    let template = dray(dir, &["template", "job"]);
    assert_eq!(code(&template), 0);
    let text = filled_in(&String::from_utf8_lossy(&template.stdout));
    fs::write(dir.join("job.toml"), text).expect("written");
}

fn filled(dir: &Path) {
    described(dir);
    record(dir, "WD-1", KEY, "Completed");
    record(dir, "WD-2", OTHER_KEY, "Completed");
}

/// Checks that no file in the directory holds a key, except drive records and files requested for keys.
fn holds_no_key(dir: &Path, output: &Output) {
    let mut texts = vec![("what was said".to_owned(), said(output))];
    for entry in fs::read_dir(dir).expect("there") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_file() && !name.starts_with("WD-") && !name.ends_with(".body") && name != "requests" {
            texts.push((name, String::from_utf8_lossy(&fs::read(&path).expect("read")).into_owned()));
        }
    }
    for (name, text) in texts {
        assert!(!text.contains(KEY) && !text.contains(OTHER_KEY), "{name} holds a key");
        assert!(!text.contains("good-token"), "{name} holds the token");
    }
}

struct Server {
    child: Child,
    endpoint: String,
    log: PathBuf,
}

impl Server {
    /// `None`, with a message, when the published files or the judge are missing.
    fn start(dir: &Path) -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let spec = root.join("../shared/spec/rest");
        if !spec.is_dir() {
            eprintln!("SKIPPED judge: the published API files are not here ({})", spec.display());
            return None;
        }
        let log = dir.join("requests");
        fs::write(&log, "").expect("a log");
        let mut child = Command::new(dray_testdisks::judge::python())
            .arg(root.join("testdisks/azure_server.py"))
            .args([&spec, &log])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("a line");
        match line.trim().strip_prefix("PORT ") {
            Some(port) => {
                let endpoint = format!("http://127.0.0.1:{port}");
                fs::write(dir.join("token.body"), "good-token\n").expect("a token");
                Some(Self { child, endpoint, log })
            }
            None => {
                let ended = child.wait().expect("ends");
                assert_eq!(ended.code(), Some(3), "the judge itself is broken: {line}");
                eprintln!("SKIPPED judge: {}", line.trim());
                None
            }
        }
    }

    fn send(&self, dir: &Path, args: &[&str]) -> Output {
        dray(dir, &[args, &["--submit", "--token-file", "token.body", "--endpoint", &self.endpoint]].concat())
    }

    fn requests(&self) -> String {
        fs::read_to_string(&self.log).expect("the log")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It ends when its stdin does.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// A numerical password: eight multiples of 11.
fn password(seed: u32) -> String {
    let groups: Vec<String> = (0..8).map(|n| format!("{:06}", (seed * 8 + n) * 11 * 7 % 720_896)).collect();
    groups.join("-")
}

#[test]
fn more_drives_than_a_job_takes_make_several_jobs() {
    let dir = scratch("job-several");
    described(&dir);
    let records: Vec<String> = (1..=23).map(|n| format!("WD-{n:02}.xml")).collect();
    for n in 1..=23 {
        record(&dir, &format!("WD-{n:02}"), &password(n), "Completed");
    }
    let mut words = vec!["job", "create"];
    words.extend(records.iter().map(String::as_str));
    let long = dray(&dir, &[&words[..], &["--api", "data-box", "--name", &"n".repeat(24)]].concat());
    assert_eq!(code(&long), 1, "{}", said(&long));
    assert!(said(&long).contains("cannot name 3 jobs"), "{}", said(&long));
    let output = dray(&dir, &[&words[..], &["--body", "request.body"]].concat());
    assert_eq!(code(&output), 0, "{}", said(&output));
    let job = |n: u32| -> serde_json::Value {
        let text = fs::read_to_string(dir.join(format!("import-2026-{n}.job.json"))).expect("a job");
        serde_json::from_str(&text).expect("an object")
    };
    let drives = |n: u32| job(n)["drives"].as_array().expect("drives").len();
    assert_eq!((drives(1), drives(2), drives(3)), (10, 10, 3));
    let third = fs::read_to_string(dir.join("request-3.body")).expect("a body");
    assert!(third.contains("WD-21") && third.contains(&password(21)) && !third.contains("WD-20\""), "{third}");
    // Sent after the second was known here already: all problems at once, and nothing is sent.
    let Some(server) = Server::start(&dir) else { return };
    let refused = server.send(&dir, &words);
    assert_eq!(code(&refused), 2, "{}", said(&refused));
    assert_eq!(said(&refused).matches("is known here already").count(), 3, "{}", said(&refused));
    assert_eq!(server.requests(), "");
    for n in 1..=3 {
        fs::remove_file(dir.join(format!("import-2026-{n}.job.json"))).expect("removed");
    }
    assert_eq!(code(&server.send(&dir, &words)), 0);
    let sent = server.requests();
    assert_eq!(sent.matches("PUT").count(), 3, "{sent}");
    // A run that ended before the third is continued.
    fs::remove_file(dir.join("import-2026-3.job.json")).expect("removed");
    assert_eq!(code(&server.send(&dir, &words)), 0);
    assert_eq!(server.requests().matches("PUT").count(), 4, "{}", server.requests());
    // All of them were: that is said, job by job.
    let output = server.send(&dir, &words);
    assert_eq!(code(&output), 0, "{}", said(&output));
    for n in 1..=3 {
        assert!(
            said(&output).contains(&format!("import-2026-{n}: was sent before, and is Creating")),
            "{}",
            said(&output)
        );
    }
    assert_eq!(server.requests().matches("PUT").count(), 4, "{}", server.requests());
    let output = server.send(&dir, &[&words[..], &["--json"]].concat());
    assert_eq!(String::from_utf8_lossy(&output.stdout).matches("\"type\":\"job\"").count(), 3, "{}", said(&output));
    holds_no_key(&dir, &output);
}

#[test]
fn a_key_of_ones_own_an_identity_and_tags_are_what_the_published_api_takes() {
    let dir = scratch("job-own-key");
    filled(&dir);
    let Some(server) = Server::start(&dir) else { return };
    let plain = fs::read_to_string(dir.join("job.toml")).expect("there");
    let scope = "/subscriptions/5ab6f9c2-0000-4000-8000-1234567890ab/resourceGroups/archive/providers";
    let key = format!(
        "[encryption-key]\nurl = \"https://v.vault.azure.net/keys/k\"\nvault = \"{scope}/Microsoft.KeyVault/vaults/v\"\n\
         [tags]\nproject = \"archive\"\n"
    );
    let user = format!("{scope}/Microsoft.ManagedIdentity/userAssignedIdentities/i");
    let identity = format!("[identity]\ntype = \"UserAssigned\"\nresource = \"{user}\"\n");
    // The one API takes no identity, the other does not do without one: neither is sent.
    for (api, more) in [("import-export", format!("{key}{identity}")), ("data-box", key.clone())] {
        fs::write(dir.join("job.toml"), format!("{plain}{more}")).expect("written");
        let output = server.send(&dir, &["job", "create", "--api", api, "WD-1.xml"]);
        assert!(code(&output) == 1 && said(&output).contains("identity"), "{}", said(&output));
    }
    assert_eq!(server.requests(), "");
    // A drive goes into one job: each has its own.
    for (api, name, drive, more) in [
        ("import-export", "own-key", "WD-1.xml", key.clone()),
        ("data-box", "own-key-boxes", "WD-2.xml", format!("{key}{identity}")),
    ] {
        fs::write(dir.join("job.toml"), format!("{plain}{more}")).expect("written");
        let output = server.send(&dir, &["job", "create", "--api", api, "--name", name, drive]);
        assert_eq!(code(&output), 0, "{}\n{}", said(&output), server.requests());
        let sent = server.requests();
        assert!(sent.contains("CustomerManaged") && sent.contains("keys/k") && sent.contains("\"project\""), "{sent}");
        assert_eq!(sent.contains("userAssignedIdentities"), api == "data-box", "{sent}");
        // Tags change as long as the job does.
        let changed = format!("{plain}{more}").replace("\"archive\"\n", "\"archive-2\"\n");
        fs::write(
            dir.join("changed.toml"),
            changed.replace("resource-group = \"archive-2\"", "resource-group = \"archive\""),
        )
        .expect("written");
        let output = server.send(&dir, &["job", "update", &format!("{name}.job.json"), "--job", "changed.toml"]);
        assert_eq!(code(&output), 0, "{}\n{}", said(&output), server.requests());
        assert!(server.requests().contains("archive-2"), "{}", server.requests());
    }
    assert!(!server.requests().contains("fault"), "{}", server.requests());
}

#[test]
fn a_job_goes_from_draft_to_cancelled_at_the_service() {
    let dir = scratch("job-service");
    filled(&dir);
    let Some(server) = Server::start(&dir) else { return };
    let output = server.send(&dir, &["job", "create", "WD-1.xml", "WD-2.xml"]);
    assert_eq!(code(&output), 0, "{}\n{}", said(&output), server.requests());
    holds_no_key(&dir, &output);
    let log = server.requests();
    assert!(log.contains(KEY) && log.contains(OTHER_KEY), "the keys reach the service: {log}");
    assert!(log.contains("locations/West%20US"), "the location was asked: {log}");
    let text = said(&output);
    assert!(text.contains("Creating") && text.contains("days left"), "{text}");

    let output = server.send(&dir, &["job", "show", "import-2026.job.json"]);
    assert_eq!(code(&output), 0, "{}", said(&output));
    assert!(said(&output).contains("Specified"), "{}", said(&output));

    let ship =
        ["job", "ship", "import-2026.job.json", "--carrier", "FedEx", "--tracking", "7712", "--date", "2026-11-30"];
    let output = server.send(&dir, &ship);
    assert_eq!(code(&output), 0, "{}\n{}", said(&output), server.requests());
    assert!(server.requests().contains("\"driveCount\": 2"), "{}", server.requests());
    assert_eq!(code(&server.send(&dir, &ship)), 2, "twice shipped");

    let output = dray(&dir, &["job", "papers", "import-2026.job.json", "--json"]);
    assert_eq!(code(&output), 0, "{}", said(&output));
    holds_no_key(&dir, &output);
    let slip = fs::read_to_string(dir.join("import-2026-packing-slip.html")).expect("a slip");
    for part in ["import-2026", "WD-1", "WD-2", "7712", "2045 Lafayette Street", "B. Sender"] {
        assert!(slip.contains(part), "{part}");
    }

    let output = server.send(&dir, &["job", "cancel", "import-2026.job.json"]);
    assert_eq!(code(&output), 0, "{}\n{}", said(&output), server.requests());
    assert!(server.requests().contains("\"cancelRequested\": true"));
    assert!(!server.requests().contains("fault"), "{}", server.requests());
}

#[test]
fn an_order_that_is_queued_and_fails_later_ends_in_its_error() {
    let dir = scratch("job-queued");
    filled(&dir);
    let Some(server) = Server::start(&dir) else { return };
    let args = ["job", "create", "--api", "data-box", "WD-1.xml", "--name", "locked-account"];
    let output = server.send(&dir, &args);
    assert_eq!(code(&output), 2, "{}\n{}", said(&output), server.requests());
    let text = said(&output);
    assert!(text.contains("StorageAccountNotAccessible") && !text.contains("send the parcel"), "{text}");
    holds_no_key(&dir, &output);
    let asked = server.requests().matches("operationResults").count();
    assert_eq!(asked, 2, "queued, then over: {}", server.requests());
    let state = fs::read_to_string(dir.join("locked-account.job.json")).expect("the job's file");
    assert!(state.contains("\"Drafted\""), "the service does not have it: {state}");
    // The same order without the fault is taken when it is over, not when it is queued.
    let output = server.send(&dir, &["job", "create", "--api", "data-box", "WD-2.xml", "--json"]);
    assert_eq!(code(&output), 0, "{}\n{}", said(&output), server.requests());
    assert!(said(&output).contains("AwaitingShipmentDetails"), "{}", said(&output));
    assert_eq!(server.requests().matches("operationResults").count(), 4, "{}", server.requests());
    assert!(!server.requests().contains("fault"), "{}", server.requests());
}

#[test]
fn a_job_is_changed_followed_and_forgotten() {
    let dir = scratch("job-end");
    filled(&dir);
    let Some(server) = Server::start(&dir) else { return };
    let output = server.send(&dir, &["job", "locations", "West US"]);
    assert!(code(&output) == 0 && said(&output).contains("FedEx"), "{}", said(&output));
    assert_eq!(code(&server.send(&dir, &["job", "locations", "--json"])), 0);
    for (api, name) in [("import-export", "import-2026"), ("data-box", "boxes-2026")] {
        let output = server.send(&dir, &["job", "create", "--api", api, "--name", name, "WD-1.xml"]);
        assert_eq!(code(&output), 0, "{}\n{}", said(&output), server.requests());
        let file = format!("{name}.job.json");
        // It waits for a parcel: watching ends at once, for something is to be done.
        let output = server.send(&dir, &["job", "watch", &file]);
        assert!(code(&output) == 0 && said(&output).contains("send the parcel"), "{}", said(&output));
        let job = fs::read_to_string(dir.join("job.toml")).expect("there").replace("12 Long Lane", "99 Short Lane");
        fs::write(dir.join("changed.toml"), job).expect("written");
        let output = server.send(&dir, &["job", "update", &file, "--job", "changed.toml"]);
        assert_eq!(code(&output), 0, "{}\n{}", said(&output), server.requests());
        holds_no_key(&dir, &output);
        assert!(server.requests().contains("99 Short Lane"), "{}", server.requests());
        if api == "data-box" {
            assert_eq!(code(&server.send(&dir, &["job", "delete", &file])), 2, "cancel it first");
            let output = server.send(&dir, &["job", "cancel", &file]);
            assert_eq!(code(&output), 0, "{}\n{}", said(&output), server.requests());
            let output = server.send(&dir, &["job", "show", &file]);
            assert!(said(&output).contains("Cancelled"), "{}", said(&output));
            assert!(server.requests().contains("expand=details"), "{}", server.requests());
        }
        let output = server.send(&dir, &["job", "delete", &file]);
        assert!(code(&output) == 0 && said(&output).contains("Deleted"), "{}\n{}", said(&output), server.requests());
        let output = server.send(&dir, &["job", "show", &file]);
        assert!(code(&output) == 2 && said(&output).contains("404"), "{}", said(&output));
    }
    let output = dray(&dir, &["job", "logs", "import-2026.job.json", "--endpoint", "http://127.0.0.1:9/a"]);
    assert!(code(&output) == 1 && said(&output).contains("nothing is known of logs"), "{}", said(&output));
}

#[test]
fn a_data_box_job_goes_the_same_way() {
    let dir = scratch("job-data-box");
    filled(&dir);
    let Some(server) = Server::start(&dir) else { return };
    let output = server.send(&dir, &["job", "create", "--api", "data-box", "WD-1.xml"]);
    assert_eq!(code(&output), 0, "{}\n{}", said(&output), server.requests());
    holds_no_key(&dir, &output);
    assert!(server.requests().contains("DataBoxCustomerDisk") && server.requests().contains(KEY));
    let output = server.send(&dir, &["job", "ship", "import-2026.job.json", "--carrier", "DHL", "--tracking", "1"]);
    assert_eq!(code(&output), 0, "{}\n{}", said(&output), server.requests());
    let output = server.send(&dir, &["job", "cancel", "import-2026.job.json"]);
    assert_eq!(code(&output), 2, "not once it is shipped: {}", said(&output));
    assert!(!server.requests().contains("fault"), "{}", server.requests());
}

/// The description of an export, from the template.
fn export(dir: &Path) {
    let template = dray(dir, &["template", "export-job"]);
    assert_eq!(code(&template), 0);
    let text = filled_in(&String::from_utf8_lossy(&template.stdout));
    fs::write(dir.join("job.toml"), text).expect("written");
}

#[test]
fn an_export_goes_to_the_service_and_its_keys_come_back() {
    let dir = scratch("job-export");
    export(&dir);
    let Some(server) = Server::start(&dir) else { return };
    for (api, part) in [("import-export", "\"blobPath\": [\"films/story.mp4\"]"), ("data-box", "ExportFromAzure")] {
        let output = server.send(&dir, &["job", "create", "--api", api, "--replace"]);
        assert_eq!(code(&output), 0, "{}\n{}", said(&output), server.requests());
        assert!(server.requests().contains(part), "{part}: {}", server.requests());
        let keys = format!("{api}.body");
        let output = server.send(&dir, &["job", "keys", "export-2026.job.json", "--to", &keys]);
        assert_eq!(code(&output), 0, "{}\n{}", said(&output), server.requests());
        holds_no_key(&dir, &output);
        let path = dir.join(&keys);
        assert!(fs::read_to_string(&path).expect("keys").contains(KEY));
        assert_eq!(fs::metadata(&path).expect("keys").permissions().mode() & 0o777, 0o600);
        let output = server.send(&dir, &["job", "keys", "export-2026.job.json", "--to", &keys]);
        assert_eq!(code(&output), 2, "never over what is there: {}", said(&output));
        let args = ["job", "ship", "export-2026.job.json", "--carrier", "FedEx", "--tracking", "1"];
        let output = server.send(&dir, &args);
        assert_eq!(code(&output), 0, "{}\n{}", said(&output), server.requests());
    }
    assert!(server.requests().contains("\"driveCount\": 1"), "{}", server.requests());
    // The whole account, and a list that is stored in it.
    let job = fs::read_to_string(dir.join("job.toml")).expect("there");
    let blobs = "blobs = [\"films/story.mp4\"]";
    let all = job.replace(blobs, "").replace("\"/songs/love\"", "\"/\"");
    let list = job.replace(blobs, "blob-list = \"lists/export.xml\"").replace("prefixes = [\"/songs/love\"]", "");
    for (text, parts) in
        [(all, ["\"blobPathPrefix\": [\"/\"]", "TransferAll"]), (list, ["blobListBlobPath", "filterFilePath"])]
    {
        fs::write(dir.join("job.toml"), text).expect("written");
        for (api, part) in ["import-export", "data-box"].into_iter().zip(parts) {
            let output = server.send(&dir, &["job", "create", "--api", api, "--replace"]);
            assert_eq!(code(&output), 0, "{}\n{}", said(&output), server.requests());
            assert!(server.requests().contains(part), "{part}: {}", server.requests());
        }
    }
    assert!(!server.requests().contains("fault"), "{}", server.requests());
}

#[test]
fn an_export_that_is_not_sent_says_how() {
    let dir = scratch("job-export-draft");
    export(&dir);
    let output = dray(&dir, &["job", "create"]);
    assert_eq!(code(&output), 0, "{}", said(&output));
    let text = said(&output);
    for part in ["(export, ", "--type Export", "blob-path=films/story.mp4", "blob-path-prefix=/songs/love", "ZL2ABC12"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("bitLockerKey") && !text.contains("driveList"), "{text}");
    assert_eq!(code(&dray(&dir, &["job", "papers", "export-2026.job.json"])), 0);
    // A blob list of this machine, as preview-export takes it.
    let toml = fs::read_to_string(dir.join("job.toml")).expect("a description");
    let own = toml.replace("# blob-list-file", "blob-list-file").replace("blobs = [", "# blobs = [");
    fs::write(dir.join("own.toml"), own.replace("prefixes = [", "# prefixes = [")).expect("written");
    let create = ["job", "create", "--job", "own.toml", "--replace"];
    let missing = dray(&dir, &create);
    assert_eq!(code(&missing), 1, "{}", said(&missing));
    assert!(said(&missing).contains("blob-list-file"), "{}", said(&missing));
    let list = "<?xml version=\"1.0\"?><BlobList><BlobPath>films/b.bin</BlobPath><BlobPathPrefix>/songs/d</BlobPathPrefix></BlobList>";
    fs::write(dir.join("list.xml"), list).expect("a list");
    let listed = dray(&dir, &create);
    assert_eq!(code(&listed), 0, "{}", said(&listed));
    assert!(said(&listed).contains("blob-path=films/b.bin") && said(&listed).contains("blob-path-prefix=/songs/d"));
    let priced = ["job", "papers", "export-2026.job.json", "--value", "119.50,EUR"];
    assert_eq!(code(&dray(&dir, &priced)), 1, "a value without a weight");
    assert_eq!(code(&dray(&dir, &[&priced[..], &["--weight", "0.72"]].concat())), 0);
    let invoice = fs::read_to_string(dir.join("export-2026-customs-invoice.html")).expect("a page");
    assert!(
        invoice.contains("119.50 EUR") && invoice.contains("0.720 kg") && invoice.contains("B. Sender"),
        "{invoice}"
    );
    let slip = fs::read_to_string(dir.join("export-2026-packing-slip.html")).expect("a slip");
    assert!(slip.contains("empty hard drives") && slip.contains("ZL2ABC12"), "{slip}");
    record(&dir, "WD-1", KEY, "Completed");
    let output = dray(&dir, &["job", "create", "WD-1.xml", "--replace"]);
    assert_eq!(code(&output), 1, "{}", said(&output));
    assert!(said(&output).contains("sent empty"), "{}", said(&output));
    let output = dray(&dir, &["job", "keys", "export-2026.job.json"]);
    assert!(code(&output) == 1 && said(&output).contains("listBitLockerKeys"), "{}", said(&output));
}

#[test]
fn what_the_service_refuses_is_told_in_its_words() {
    let dir = scratch("job-refused");
    filled(&dir);
    let Some(server) = Server::start(&dir) else { return };
    fs::write(dir.join("bad"), "another-token").expect("a token");
    let args = ["job", "create", "WD-1.xml", "--submit", "--token-file", "bad", "--endpoint", &server.endpoint];
    let output = dray(&dir, &args);
    assert_eq!(code(&output), 2, "{}", said(&output));
    let text = said(&output);
    assert!(text.contains("HTTP 401") && text.contains("AuthenticationFailed"), "{text}");
    assert!(!text.contains("another-token"), "{text}");
    // The location's own list of carriers decides.
    let job = fs::read_to_string(dir.join("job.toml")).expect("there").replace("\"FedEx\"", "\"DHL\"");
    fs::write(dir.join("job.toml"), job).expect("written");
    let output = server.send(&dir, &["job", "create", "WD-1.xml", "--replace"]);
    assert_eq!(code(&output), 2, "{}", said(&output));
    assert!(said(&output).contains("it takes: FedEx"), "{}", said(&output));
    assert!(!server.requests().contains("PUT"), "{}", server.requests());
}

#[test]
fn a_draft_stays_here_and_says_how_to_create_the_job() {
    let dir = scratch("job-draft");
    filled(&dir);
    let args = ["job", "create", "WD-1.xml", "WD-2.xml", "--body", "b.body", "--key-files", "keys"];
    let output = dray(&dir, &args);
    assert_eq!(code(&output), 0, "{}", said(&output));
    holds_no_key(&dir, &output);
    let text = said(&output);
    for part in
        ["az import-export create", "bit-locker-key=@keys/WD-1.key", "New-AzImportExport", "\"driveList\"", "WD-2.xml"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let body = fs::read_to_string(dir.join("b.body")).expect("a body");
    let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(body["properties"]["driveList"][1]["bitLockerKey"], OTHER_KEY);
    assert_eq!(fs::read_to_string(dir.join("keys/WD-1.key")).expect("a key file"), KEY);
    for private in ["b.body", "keys/WD-1.key", "import-2026.job.json"] {
        let mode = fs::metadata(dir.join(private)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{private}");
    }
    assert_eq!(code(&dray(&dir, &args)), 2, "a job that is known is not forgotten by accident");
    let output = dray(&dir, &["job", "ship", "import-2026.job.json", "--carrier", "FedEx", "--tracking", "1"]);
    assert_eq!(code(&output), 0, "{}", said(&output));
    assert!(said(&output).contains("Not sent"), "{}", said(&output));
}

#[test]
fn everything_that_is_wrong_with_a_job_is_told_at_once() {
    let dir = scratch("job-wrong");
    filled(&dir);
    record(&dir, "WD-3", "123", "Completed");
    record(&dir, "WD-4", KEY, "Incomplete");
    let job = fs::read_to_string(dir.join("job.toml")).expect("there");
    let job = job
        .replace("name = \"import-2026\"", "name = \"Import_2026\"")
        .replace("5ab6f9c2-0000-4000-8000-1234567890ab", "my subscription")
        .replace("city = ", "citty = ")
        .replace("\"West US\"", "\"West USA\"");
    fs::write(dir.join("job.toml"), job).expect("written");
    let mut args = vec!["job", "create", "WD-3.xml", "WD-4.xml"];
    args.extend(["WD-1.xml"; 10]);
    let output = dray(&dir, &args);
    assert_eq!(code(&output), 1, "{}", said(&output));
    let text = said(&output);
    for part in [
        "numerical password",
        "not finished",
        "another record names too",
        "Import_2026",
        "no subscription id",
        "did you mean city?",
        "city: is missing",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!dir.join("Import_2026.job.json").exists());
}

#[test]
fn token_and_keys_never_travel_in_the_clear() {
    let dir = scratch("job-clear");
    filled(&dir);
    fs::write(dir.join("token"), "good-token").expect("a token");
    for endpoint in [
        "http://management.azure.com",
        "ftp://127.0.0.1",
        "http://127.0.0.1.example.com",
        "http://127.0.0.1:80@example.com",
    ] {
        let args = ["job", "create", "WD-1.xml", "--submit", "--token-file", "token", "--endpoint", endpoint];
        let output = dray(&dir, &args);
        assert_eq!(code(&output), 1, "{endpoint}: {}", said(&output));
    }
}

/// `openssl s_server` with a certificate of an unknown CA; killed on drop.
struct Tls {
    child: Child,
    port: String,
}

impl Tls {
    fn start(dir: &Path) -> Option<Self> {
        let openssl = |args: &str| {
            let output = Command::new("openssl").args(args.split_whitespace()).current_dir(dir).output();
            output.is_ok_and(|output| output.status.success())
        };
        let new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        fs::write(dir.join("leaf.cnf"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").expect("written");
        let is_made = openssl(&format!("req -x509 {new} -keyout ca.key -out ca.pem -subj /CN=ca -days 2"))
            && openssl(&format!("req {new} -keyout leaf.key -out leaf.csr -subj /CN=localhost"))
            && openssl(
                "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile leaf.cnf -out leaf.pem",
            );
        if !is_made {
            eprintln!("SKIPPED judge: no openssl that makes certificates");
            return None;
        }
        let mut child = Command::new("openssl")
            .args("s_server -accept 127.0.0.1:0 -cert leaf.pem -key leaf.key -www".split_whitespace())
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl runs");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        while !line.starts_with("ACCEPT") {
            line.clear();
            assert!(out.read_line(&mut line).expect("a line") > 0, "it says where it listens");
        }
        let port = line.trim().rsplit(':').next().expect("a port").to_owned();
        Some(Self { child, port })
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn certificates_that_are_named_are_believed_and_no_others() {
    let dir = scratch("job-tls");
    filled(&dir);
    fs::write(dir.join("token"), "good-token").expect("a token");
    fs::write(dir.join("empty.pem"), "").expect("written");
    assert_eq!(code(&dray(&dir, &["job", "create", "WD-1.xml"])), 0);
    let Some(server) = Tls::start(&dir) else { return };
    let endpoint = format!("https://localhost:{}", server.port);
    let args = ["job", "show", "import-2026.job.json", "--submit", "--token-file", "token", "--endpoint", &endpoint];
    let show = |more: &[&str], variable: Option<(&str, &str)>| {
        let mut command = crate::common::dray(args.iter().chain(more));
        command.current_dir(&dir).env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR").envs(variable);
        crate::common::run(&mut command)
    };
    // Its page is no JSON: only the fact that it was requested matters here.
    let output = show(&["--ca-file", "ca.pem"], None);
    assert_eq!(code(&output), 0, "{}", said(&output));
    assert_eq!(code(&show(&[], Some(("SSL_CERT_FILE", "ca.pem")))), 0);
    let output = show(&[], None);
    assert!(code(&output) != 0 && said(&output).contains("was not reached"), "{}", said(&output));
    // What the system believes is believed: here the directory of its certificates holds only the one.
    fs::create_dir(dir.join("system")).expect("a directory");
    fs::copy(dir.join("ca.pem"), dir.join("system/ca-certificates.crt")).expect("a copy");
    let mounted = format!("mount --bind {} /etc/ssl/certs && exec \"$@\"", dir.join("system").display());
    let mut inside = Command::new("unshare");
    inside.args(["--mount", "sh", "-c", &mounted, "sh", env!("CARGO_BIN_EXE_dray")]).args(args).current_dir(&dir);
    inside.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR");
    let mut may_mount = Command::new("unshare");
    may_mount.args(["--mount", "mount", "--bind", "/etc/ssl/certs", "/etc/ssl/certs"]);
    if may_mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        let output = crate::common::run(&mut inside);
        assert_eq!(code(&output), 0, "{}", said(&output));
    } else {
        eprintln!("SKIPPED judge: certificates of the system: nothing can be mounted over them here");
    }
    // The option counts more than the variable, and takes the place of the usual ones.
    let output = show(&["--ca-file", "leaf.pem"], Some(("SSL_CERT_FILE", "ca.pem")));
    assert!(code(&output) != 0, "{}", said(&output));
    for (more, variable) in [
        (&["--ca-file", "empty.pem"][..], None),
        (&["--ca-file", "nothing.pem"], None),
        (&[], Some(("SSL_CERT_FILE", "nothing.pem"))),
    ] {
        let output = show(more, variable);
        assert!(code(&output) == 1 && said(&output).contains("certificate"), "{}", said(&output));
    }
}
