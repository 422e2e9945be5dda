//! `dray ingest` against a storage account on this machine: what other clients read back, dispositions, faults, kills.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use dray_testdisks::azurite::{Azurite, Front};
use serde_json::Value;

use crate::common::{Session, code, said};

mod repair;
mod round_trip;

const METADATA: &str = "<?xml version=\"1.0\"?><Metadata><Author>me</Author><Site>north</Site></Metadata>";
const PROPERTIES: &str = "<?xml version=\"1.0\"?><Properties><Content-Type>text/x-test</Content-Type>\
                          <Content-Language>de</Content-Language><Cache-Control>no-cache</Cache-Control></Properties>";
const BLOCK: usize = 4 << 20;

/// Every 512 bytes hold their own offset, and no two blocks are equal.
fn contents(name: &str, len: usize) -> Vec<u8> {
    (0..len.div_ceil(512))
        .flat_map(|i| format!("{name:>8}{i:>12}").repeat(26).into_bytes().into_iter().take(512))
        .take(len)
        .collect()
}

/// A disk whose middle is empty.
fn sparse(name: &str) -> Vec<u8> {
    let mut bytes = contents(name, 6 << 20);
    bytes[1 << 20..(4 << 20) + 8192].fill(0);
    bytes
}

/// The files of a drive: path in the source and content.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("large", contents("large", 9 * (1 << 20) + 77)),
        ("one block", contents("one", BLOCK)),
        ("sub/small.txt", contents("small", 70_000)),
        ("sub/tiny", b"in the record".to_vec()),
        ("empty", Vec::new()),
        ("zoo/so:called % ü#?.tar.gz", b"a name that NTFS cannot hold".to_vec()),
    ]
}

/// A drive with blocks, pages, properties and metadata; `disposition` is that of all.
fn drive(name: &str, disposition: &str) -> Session {
    let session = Session::new(name);
    for (path, content) in files() {
        let path = session.path("source").join(path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, content).expect("a file");
    }
    fs::create_dir_all(session.path("disks")).expect("a directory");
    fs::write(session.path("disks/disk.raw"), sparse("disk")).expect("a file");
    fs::write(session.path("logo"), b"at the root").expect("a file");
    fs::write(session.path("m.xml"), METADATA).expect("metadata");
    fs::write(session.path("p.xml"), PROPERTIES).expect("properties");
    let at = |name: &str| session.path(name).display().to_string();
    let sides = format!("{},{}", at("m.xml"), at("p.xml"));
    session.dataset(&[
        &format!("\"{}/\",data/,BlockBlob,{disposition},{sides}", at("source")),
        &format!("\"{}/\",disks/,PageBlob,{disposition},{},None", at("disks"), at("m.xml")),
        &format!("\"{}\",$root/logo,BlockBlob,{disposition},None,None", at("logo")),
    ]);
    session.driveset(&[format!("{}:130MB", at("drive.img"))]);
    session.prepare(&["--not-for-shipping", "--read-back", "none"]);
    session
}

/// Words of `dray ingest` for the session's drive.
fn words(session: &Session, endpoint: &str) -> Vec<String> {
    let key = session.path("azurite/account.key").display().to_string();
    let words = ["ingest", "drive.img", "--record", "drive.xml", "--json", "--endpoint", endpoint];
    words.iter().map(|word| (*word).to_owned()).chain(["--account-key-file".to_owned(), key]).collect()
}

fn ingest(session: &Session, endpoint: &str, more: &[&str]) -> Output {
    let words = words(session, endpoint);
    let words: Vec<&str> = words.iter().map(String::as_str).chain(more.iter().copied()).collect();
    crate::common::dray_in(&session.dir, &words)
}

/// Rows by blob, and the last object.
fn rows_of(output: &Output) -> (BTreeMap<String, Value>, Value) {
    let (mut rows, mut last) = (BTreeMap::new(), Value::Null);
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let value: Value = serde_json::from_str(line).expect("an object");
        match value["type"].as_str() {
            Some("imported") => drop(rows.insert(value["blob"].as_str().expect("a name").to_owned(), value)),
            Some("ingest") => last = value,
            _ => {}
        }
    }
    assert!(last.is_object(), "{}", said(output));
    (rows, last)
}

/// All blobs of a container, as Microsoft's client reads them; `None` without it.
fn read(azurite: &Azurite, container: &str) -> Option<BTreeMap<String, Value>> {
    let text = azurite.client(&["read", container])?;
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("an object"));
    Some(rows.map(|row| (row["name"].as_str().expect("a name").to_owned(), row)).collect())
}

fn sha256(bytes: &[u8]) -> String {
    let mut hash = dray_hash::Sha256::default();
    hash.update(bytes);
    dray_hash::hex_upper(&hash.value()).to_lowercase()
}

/// An account, with its key in a file.
fn account(session: &Session) -> Option<Azurite> {
    let azurite = Azurite::open(&session.path("azurite"))?;
    azurite.key_file().expect("a key");
    Some(azurite)
}

/// Everything is in the account once, and as it was.
fn all_there(azurite: &Azurite) -> bool {
    let (Some(data), Some(disks), Some(root)) = (read(azurite, "data"), read(azurite, "disks"), read(azurite, "$root"))
    else {
        return false;
    };
    let wanted = files();
    assert_eq!(data.len(), wanted.len(), "{data:?}");
    for (name, content) in wanted {
        let row = &data[name];
        assert_eq!(row["sha256"], sha256(&content), "{name}");
        assert_eq!((row["kind"].as_str(), row["length"].as_u64()), (Some("BlockBlob"), Some(content.len() as u64)));
        assert_eq!((row["type"].as_str(), row["language"].as_str()), (Some("text/x-test"), Some("de")), "{row}");
        assert_eq!(row["cache"], "no-cache");
        // HTTP has no case in names of headers, and ours sends lower ones.
        assert_eq!(row["metadata"], serde_json::json!({ "author": "me", "site": "north" }), "{row}");
        assert_eq!(row["waiting"], serde_json::json!([]), "{row}");
        assert_eq!(row["lease"], "available", "{row}");
        // Small ones are put in one request, which makes no block list.
        let blocks = row["blocks"].as_array().expect("a list");
        assert_eq!(blocks.len(), if content.len() > BLOCK { content.len().div_ceil(BLOCK) } else { 0 }, "{row}");
        for (block, part) in blocks.iter().zip(content.chunks(BLOCK)) {
            let (id, len) = (block[0].as_str().expect("an id"), block[1].as_u64());
            let mut md5 = dray_hash::Md5::new();
            md5.update(part);
            assert_eq!((id, len), (&*format!("MD5/{}", dray_hash::base64(&md5.finish())), Some(part.len() as u64)));
        }
    }
    let (disk, content) = (&disks["disk.raw"], sparse("disk"));
    assert_eq!((disk["kind"].as_str(), disk["sha256"].as_str()), (Some("PageBlob"), Some(&*sha256(&content))));
    assert_eq!(disk["ranges"], serde_json::json!([[0, 1 << 20], [(4 << 20) + 8192, 6 << 20]]), "{disk}");
    assert_eq!(disk["metadata"]["author"], "me");
    assert_eq!(disk["lease"], "available");
    assert_eq!((disks.len(), root.len()), (1, 1));
    assert_eq!(root["logo"]["sha256"], sha256(b"at the root"));
    true
}

#[test]
fn judge_an_import_is_what_other_clients_read_back() {
    let session = drive("ingest-whole", "rename");
    let Some(azurite) = account(&session) else { return };
    let front = Front::start(&azurite, &session.path("front"), "[]");
    let verbose = ["--log-level", "verbose", "--backup-manifest", "--job", "myjob", "--logdir", "logs"];
    let output = ingest(&session, &front.endpoint, &verbose);
    let (rows, last) = rows_of(&output);
    assert_eq!(code(&output), 0, "{}\n{}", said(&output), front.requests());
    assert_eq!(rows.len(), files().len() + 2);
    let described = crate::user::described(&output.stdout);
    assert!(described.is_none_or(|counts| counts.contains("ingest=1")));
    assert!(rows.values().all(|row| row["status"] == "Completed" && row["disposition"] == "Created"), "{rows:?}");
    assert_eq!(last["drives"][0]["status"], "Completed");
    if !all_there(&azurite) {
        return;
    }
    // Without the empty part of the disk, and every blob once.
    let sent = front.requests();
    let count = |part: &str| sent.lines().filter(|line| line.contains("\"PUT\"") && line.contains(part)).count();
    assert_eq!((count("comp=page"), count("comp=blocklist"), count("comp=block&")), (2, 1, 3), "{sent}");

    // The audit proves it by the sources; by the manifest alone it does not know the files of properties.
    let manifest = session.dray("cat drive.img DriveManifest.xml --key-file drive.xml").stdout;
    fs::write(session.path("m"), &manifest).expect("a manifest");
    let key = session.path("azurite/account.key").display().to_string();
    let account = ["--endpoint", &azurite.endpoint, "--account-key-file", &key, "--read", "all"];
    for (sent, exit) in [(["--dataset", "dataset.csv"], 0), (["--manifest", "m"], 3)] {
        let audited = crate::common::dray_in(&session.dir, &[&["audit"][..], &sent, &account].concat());
        assert_eq!(code(&audited), exit, "{}", said(&audited));
        assert!(!said(&audited).contains("missing") && !said(&audited).contains("different"), "{}", said(&audited));
    }

    // Copy logs of both generations, and the manifest, in the containers of the service and here.
    let (first, second) = (read(&azurite, "waimportexport"), read(&azurite, "databoxcopylog"));
    let (first, second) = (first.expect("logs"), second.expect("logs"));
    assert_eq!((first.len(), second.len()), (3, 2), "{first:?} {second:?}");
    let named = |end: &str| first.keys().any(|name| name.starts_with("waies/myjob_") && name.ends_with(end));
    assert!(named("_error.xml") && named("_verbose.xml") && named("_manifest.xml"), "{first:?}");
    for name in first.keys().chain(second.keys()) {
        let path = session.path("logs").join(name.rsplit('/').next().expect("a name"));
        let here = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let there = first.get(name).or(second.get(name)).expect("a log");
        assert_eq!(there["sha256"], sha256(&here), "{name}");
        if name.ends_with("_manifest.xml") {
            assert!(here == manifest);
        } else {
            let verify =
                ["verify", "drive.img", "--key-file", "drive.xml", "--copy-log", path.to_str().expect("UTF-8")];
            let output = crate::common::dray_in(&session.dir, &verify);
            assert_eq!(code(&output), 0, "{name}: {}", said(&output));
        }
    }

    // Once more: everything is known to be there, and nothing is sent but logs.
    let before = front.requests().len();
    let output = ingest(&session, &front.endpoint, &[]);
    let (rows, _) = rows_of(&output);
    assert_eq!(code(&output), 0, "{}", said(&output));
    assert!(rows.values().all(|row| row["earlier"] == true));
    let sent = front.requests()[before..].to_owned();
    assert!(!["/data/", "/disks/", "root/logo"].iter().any(|part| sent.contains(part)), "{sent}");
    assert!(all_there(&azurite));
}

/// Puts foreign blobs in the way: of the same kind, and of another.
fn in_the_way(session: &Session, azurite: &Azurite) -> Option<()> {
    let put = |container: &str, name: &str, content: &[u8], kind: &str| {
        let path = session.path("foreign");
        fs::write(&path, content).expect("written");
        azurite.client(&["put", container, name, path.to_str().expect("UTF-8"), kind])
    };
    put("data", "large", &[7; 1024], "kind=page")?;
    put("data", "sub/small.txt", b"was here", "author=somebody")?;
    put("data", "one block", &[0; 512], "kind=append")?;
    put("disks", "disk.raw", b"no disk", "author=somebody")?;
    put("$root", "logo", b"at the root", "author=somebody").map(drop)
}

#[test]
fn judge_dispositions_are_kept_to_without_asking_first() {
    for (disposition, status) in [("no-overwrite", "Skipped"), ("rename", "Renamed"), ("overwrite", "Overwritten")] {
        let session = drive(&format!("ingest-{disposition}"), disposition);
        let Some(azurite) = account(&session) else { return };
        if in_the_way(&session, &azurite).is_none() {
            return;
        }
        // Blocks of somebody else, whose ids have another length, would make ours fail.
        fs::write(session.path("block"), b"left").expect("written");
        let block = session.path("block").display().to_string();
        if disposition == "overwrite" {
            azurite.client(&["put", "data", "large", &block, "author=x"]).expect("put");
            azurite.client(&["stage", "data", "large", "AAAA", &block]).expect("staged");
        }
        let output = ingest(&session, &azurite.endpoint, &[]);
        let (rows, last) = rows_of(&output);
        assert_eq!(code(&output), 0, "{disposition}: {}", said(&output));
        for name in ["data/large", "data/sub/small.txt", "data/one block", "disks/disk.raw", "$root/logo"] {
            assert_eq!(rows[name]["disposition"], status, "{disposition}: {}", rows[name]);
        }
        assert_eq!(rows["data/empty"]["disposition"], "Created");
        let data = read(&azurite, "data").expect("blobs");
        let disks = read(&azurite, "disks").expect("blobs");
        let root = read(&azurite, "$root").expect("blobs");
        let drive_status = last["drives"][0]["status"].as_str();
        match disposition {
            "overwrite" => {
                assert!(all_there(&azurite));
                assert_eq!(drive_status, Some("Completed"));
            }
            "rename" => {
                assert_eq!(rows["data/sub/small.txt"]["renamed"], "data/sub/small (2).txt");
                assert_eq!(data["sub/small (2).txt"]["sha256"], sha256(&files()[2].1));
                assert_eq!(data["sub/small.txt"]["sha256"], sha256(b"was here"));
                assert_eq!(data["large (2)"]["sha256"], sha256(&files()[0].1));
                assert_eq!(data["one block (2)"]["sha256"], sha256(&files()[1].1));
                assert_eq!(disks["disk (2).raw"]["sha256"], sha256(&sparse("disk")));
                assert_eq!(root["logo (2)"]["sha256"], sha256(b"at the root"));
                assert_eq!((data.len(), disks.len(), root.len()), (files().len() + 3, 2, 2));
                assert_eq!(drive_status, Some("CompletedWithWarnings"));
            }
            _ => {
                assert_eq!(data["sub/small.txt"]["sha256"], sha256(b"was here"));
                assert_eq!(data["large"]["kind"], "PageBlob");
                assert_eq!((data.len(), disks.len(), root.len()), (files().len(), 1, 1));
                assert_eq!(drive_status, Some("CompletedWithWarnings"));
            }
        }
    }
}

#[test]
fn judge_faults_on_the_way_leave_nothing_missing_and_nothing_twice() {
    let session = drive("ingest-faults", "rename");
    let Some(azurite) = account(&session) else { return };
    // Answers that are lost after the service did what it was asked for, a busy service, blocks that arrive damaged.
    let faults = r#"[
        {"method": "PUT", "path": "/data/sub/small", "fault": "lost"},
        {"method": "PUT", "path": "/data/empty", "fault": "lost"},
        {"method": "PUT", "path": "/data/sub/tiny", "fault": "status", "retry_after": 0},
        {"method": "PUT", "path": "comp=blocklist", "fault": "lost"},
        {"method": "PUT", "path": "comp=block&", "fault": "reset", "skip": 1},
        {"method": "PUT", "path": "comp=block&", "fault": "damage"},
        {"method": "PUT", "path": "/data/one", "fault": "damage", "times": 2},
        {"method": "PUT", "path": "/disks/disk.raw\\?comp=page", "fault": "lost"},
        {"method": "PUT", "path": "/disks/disk.raw$", "fault": "lost"},
        {"method": "HEAD", "path": "/data/large", "fault": "status", "status": 500}
    ]"#;
    let front = Front::start(&azurite, &session.path("front"), faults);
    let output = ingest(&session, &front.endpoint, &[]);
    let (rows, _) = rows_of(&output);
    assert_eq!(code(&output), 0, "{}\n{}", said(&output), front.requests());
    assert!(rows.values().all(|row| row["disposition"] == "Created"), "{rows:?}");
    let played = front.requests().lines().filter(|line| line.contains("\"fault\"")).count();
    assert!(played >= 10, "{}", front.requests());
    all_there(&azurite);
}

/// Puts that have reached the service.
fn puts(front: &Front) -> usize {
    front.requests().lines().filter(|line| line.contains("\"PUT\"")).count()
}

/// Starts an import with two requests at a time, and waits for it to have sent so many or to end.
fn begun(session: &Session, front: &Front, more: usize, words_more: &[&str]) -> Child {
    let before = puts(front);
    let mut command = crate::common::dray(words(session, &front.endpoint));
    command
        .args(["--in-flight", "2"])
        .args(words_more)
        .current_dir(&session.dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command.spawn().expect("the binary runs");
    let end = Instant::now() + Duration::from_secs(60);
    while puts(front) < before + more && child.try_wait().expect("waited").is_none() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}

#[test]
fn judge_an_import_goes_on_after_kills_and_leaves_nothing_twice() {
    let session = drive("ingest-kills", "rename");
    let Some(azurite) = account(&session) else { return };
    let front = Front::start(&azurite, &session.path("front"), "[]");
    let mut kills = 0;
    // After one request more a round, so that a kill comes behind each; the first asks for the container of the logs.
    for round in 2.. {
        assert!(round < 40, "it ends");
        let mut child = begun(&session, &front, round, &[]);
        if let Some(status) = child.try_wait().expect("waited") {
            assert!(status.success(), "{status}");
            break;
        }
        child.kill().expect("killed");
        child.wait().expect("waited");
        kills += 1;
    }
    assert!(kills >= 4, "{kills}");
    let output = ingest(&session, &front.endpoint, &[]);
    assert_eq!(code(&output), 0, "{}", said(&output));
    all_there(&azurite);
}

#[test]
fn judge_an_import_waits_for_a_server_that_died() {
    let session = drive("ingest-away", "overwrite");
    let Some(azurite) = account(&session) else { return };
    let front = Front::start(&azurite, &session.path("front"), "[]");
    let mut child = begun(&session, &front, 4, &["--stall", "2"]);
    assert!(child.try_wait().expect("waited").is_none(), "it is under way");
    let port = front.port();
    drop(front);
    // Longer than a try may take, to connect or without a byte, and than a service is waited for that never answered.
    std::thread::sleep(Duration::from_secs(25));
    let front = Front::start_on(&azurite, &session.path("front"), "[]", port);
    let status = child.wait().expect("waited");
    assert!(status.success(), "{status}: {}", front.requests());
    all_there(&azurite);
}

#[test]
fn judge_a_token_that_ends_and_blocks_of_others_are_no_obstacle() {
    let session = drive("ingest-token", "rename");
    let Some(azurite) = account(&session) else { return };
    // A block of somebody else, whose id has another length, waits for a blob that is not there: it would make ours fail.
    fs::write(session.path("block"), b"left").expect("written");
    fs::write(session.path("seed"), b"seed").expect("written");
    let file = |name: &str| session.path(name).display().to_string();
    if azurite.client(&["put", "data", "seed", &file("seed")]).is_none() {
        return;
    }
    azurite.client(&["delete", "data", "seed"]).expect("deleted");
    azurite.client(&["stage", "data", "large", "AAAA", &file("block")]).expect("staged");
    let faults = r#"[{"method": "PUT", "path": "comp=block&", "skip": 1, "times": 9, "fault": "status", "status": 403,
                      "code": "AuthenticationFailed"}]"#;
    let front = Front::start(&azurite, &session.path("front"), faults);
    let output = ingest(&session, &front.endpoint, &["--in-flight", "1"]);
    let (_, last) = rows_of(&output);
    assert_eq!(code(&output), 2, "{}", said(&output));
    assert!(last["drives"][0]["failure"].to_string().contains("HTTP 403"), "{last}");
    assert!(last["drives"][0]["status"].is_null() && last["good"] == false, "{last}");
    let port = front.port();
    drop(front);
    // With another token the same command goes on, and sends the block that arrived no second time.
    let front = Front::start_on(&azurite, &session.path("front"), "[]", port);
    let output = ingest(&session, &front.endpoint, &[]);
    assert_eq!(code(&output), 0, "{}\n{}", said(&output), front.requests());
    let blocks = front.requests().lines().filter(|line| line.contains("comp=block&")).count();
    assert_eq!(blocks, 2, "{}", front.requests());
    all_there(&azurite);
}

#[test]
fn judge_what_differs_on_the_drive_fails_and_the_rest_is_imported() {
    let session = drive("ingest-flip", "rename");
    let Some(azurite) = account(&session) else { return };
    // The second block of the large file, and the small one.
    flip(&session, "data/large", BLOCK as u64 + 4096);
    flip(&session, "data/sub/small.txt", 512);
    let output = ingest(&session, &azurite.endpoint, &["--logdir", "logs"]);
    let (rows, last) = rows_of(&output);
    assert_eq!(code(&output), 5, "{}", said(&output));
    for name in ["data/large", "data/sub/small.txt"] {
        assert_eq!(rows[name]["status"], "CompletedWithErrors", "{}", rows[name]);
        assert!(rows[name]["note"].as_str().is_some_and(|note| note.contains("read 4 times")), "{}", rows[name]);
    }
    assert!(rows.iter().filter(|(_, row)| row["status"] == "Completed").count() == files().len(), "{rows:?}");
    assert_eq!(last["drives"][0]["status"], "CompletedWithErrors");
    let Some(data) = read(&azurite, "data") else { return };
    assert_eq!(data.len(), files().len() - 2, "{data:?}");
    let log = fs::read_dir(session.path("logs")).expect("logs").flatten().map(|entry| entry.path());
    let log = log.into_iter().find(|path| path.to_string_lossy().ends_with("_error.xml")).expect("an error log");
    let text = fs::read_to_string(log).expect("a log");
    assert_eq!(text.matches("Status=\"Corrupted\"").count(), 2, "{text}");
    assert_eq!(text.matches("Status=\"Uncommitted\"").count(), 2, "{text}");
    assert!(text.contains("<Status>CompletedWithErrors</Status>"), "{text}");
}

/// Turns a byte of a blob on the drive, `at` bytes from its start, by the place that `verify` names for it.
fn flip(session: &Session, blob: &str, at: u64) {
    // A manifest with another hash for every block makes `verify` tell where each block lies.
    let manifest = String::from_utf8(session.dray("cat drive.img DriveManifest.xml --key-file drive.xml").stdout)
        .expect("a manifest");
    let changed = manifest.split("Hash=\"").enumerate().map(|(i, part)| match (i, part.as_bytes()[0]) {
        (0, _) => part.to_owned(),
        (_, b'0') => format!("Hash=\"1{}", &part[1..]),
        _ => format!("Hash=\"0{}", &part[1..]),
    });
    fs::write(session.path("changed.xml"), changed.collect::<String>()).expect("a manifest");
    let verify =
        ["verify", "drive.img", "--key-file", "drive.xml", "--json", "--manifest", "changed.xml", "--only", blob];
    let output = crate::common::dray_in(&session.dir, &verify);
    let row = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("an object"))
        .find(|row| row["type"] == "blob" && row["blob"] == blob)
        .unwrap_or_else(|| panic!("{}", said(&output)));
    let numbers = |note: &str| -> Vec<u64> {
        let note: String = note.chars().filter(|c| !c.is_whitespace()).collect();
        note.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
    };
    // "bytes 0 to 70000: different (on the drive from byte 21 234 567)"
    let notes = row["notes"].as_array().expect("notes").iter().filter_map(Value::as_str).map(numbers);
    let found = notes.into_iter().find(|note| note.len() == 3 && note[0] <= at && at < note[1]).expect("a place");
    let place = found[2] + at - found[0];
    let image: File = OpenOptions::new().read(true).write(true).open(session.path("drive.img")).expect("an image");
    let mut byte = [0];
    image.read_exact_at(&mut byte, place).expect("read");
    image.write_all_at(&[byte[0] ^ 1], place).expect("written");
}

#[test]
fn judge_two_drives_are_imported_at_once_and_reported_as_one() {
    let session = Session::new("ingest-two");
    fs::create_dir_all(session.path("source")).expect("a directory");
    for number in 0..6 {
        fs::write(session.path("source").join(number.to_string()), contents(&number.to_string(), 5 << 20))
            .expect("a file");
    }
    session.dataset(&[&format!("\"{}/\",data/,BlockBlob,no-overwrite,None,None", session.path("source").display())]);
    session.driveset(&["a", "b"].map(|name| format!("{}:130MB", session.path(&format!("{name}.img")).display())));
    session.prepare(&["--not-for-shipping", "--read-back", "none", "--spread", "even"]);
    let Some(azurite) = account(&session) else { return };
    let key = session.path("azurite/account.key").display().to_string();
    let drives = ["ingest", "a.img", "b.img", "--record", "a.xml", "--record", "b.xml", "--json", "--retry-for", "1"];
    let account = ["--endpoint", &azurite.endpoint, "--account-key-file", &key, "--log-container", "logs"];
    let output = crate::common::dray_in(&session.dir, &[&drives[..], &account].concat());
    let (rows, last) = rows_of(&output);
    assert_eq!((code(&output), rows.len()), (0, 6), "{}", said(&output));
    let blobs = |at: usize| last["drives"][at]["created"].as_u64().expect("a number");
    assert!(blobs(0) > 0 && blobs(1) > 0 && blobs(0) + blobs(1) == 6, "{last}");
    assert!(session.path("a.ingest").exists() && session.path("b.ingest").exists());
    let (Some(data), Some(logs)) = (read(&azurite, "data"), read(&azurite, "logs")) else { return };
    for number in 0..6 {
        let name = number.to_string();
        assert_eq!(data[&name]["sha256"], sha256(&contents(&name, 5 << 20)), "{name}");
    }
    assert_eq!(logs.len(), 4, "an error log and a copy log a drive: {:?}", logs.keys());
}

#[test]
fn a_drive_that_the_service_would_refuse_is_not_imported() {
    let session = drive("ingest-refused", "rename");
    let key = session.path("azurite");
    fs::create_dir_all(&key).expect("a directory");
    fs::write(key.join("account.key"), "c2VjcmV0").expect("a key");
    // Nobody listens there: the refusal comes before any request but those of its logs.
    let endpoint = "http://127.0.0.1:1/devstoreaccount1";
    let wrong = ["--manifest-hash", "00112233445566778899AABBCCDDEEFF", "--logdir", "logs", "--retry-for", "0"];
    let output = ingest(&session, endpoint, &wrong);
    let (_, last) = rows_of(&output);
    assert_eq!(code(&output), 2, "{}", said(&output));
    assert_eq!(last["drives"][0]["status"], "ManifestCorrupted", "{last}");
    let output = crate::common::dray_in(&session.dir, &["ingest", "drive.img", "--record", "drive.xml"]);
    assert!(code(&output) == 1 && said(&output).contains("--endpoint"), "{}", said(&output));
    let bad = ingest(&session, endpoint, &["--log-container", "Not A Container"]);
    assert_eq!(code(&bad), 1, "{}", said(&bad));
    assert!(Path::new(&session.path("logs")).exists());
}

#[test]
fn judge_an_audit_reads_the_drives_files_and_tells_sources_that_changed() {
    let session = drive("ingest-audit", "rename");
    let Some(azurite) = account(&session) else { return };
    let output = ingest(&session, &azurite.endpoint, &["--logdir", "logs"]);
    assert_eq!(code(&output), 0, "{}", said(&output));
    let key = session.path("azurite/account.key").display().to_string();
    let audit = |more: &[&str]| {
        let words = ["audit", "--manifest", "drive.manifest.xml", "--endpoint", &azurite.endpoint, "--json"];
        let account = ["--account-key-file", &key, "--journal", "journal.jrn"];
        let output = crate::common::dray_in(&session.dir, &[&words[..], &account, more].concat());
        let kinds = crate::user::described(&output.stdout);
        assert!(kinds.is_none_or(|kinds| kinds.contains("audit=1")), "as the schema has it: {}", said(&output));
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        let all: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        (code(&output), all)
    };
    let of = |all: &[Value], kind: &str| -> Vec<Value> {
        all.iter().filter(|value| value["type"] == kind).cloned().collect()
    };
    // The manifest names metadata and properties files, and does not say what is in them.
    let (exit, all) = audit(&[]);
    assert_eq!(exit, 3, "{all:?}");
    let drive = ["--drive", "drive.img", "--key-file", "drive.xml"];
    let with_sources = [&drive[..], &["--sources", "dataset.csv"]].concat();
    // By the journal alone: the manifests of its drives lie next to it.
    let words = ["audit", "--journal", "journal.jrn", "--endpoint", &azurite.endpoint, "--account-key-file", &key];
    let output = crate::common::dray_in(&session.dir, &[&words[..], &drive[..]].concat());
    assert_eq!(code(&output), 0, "{}", said(&output));
    let (exit, all) = audit(&with_sources);
    assert_eq!((exit, of(&all, "source_changed").len()), (0, 0), "{all:?}");
    assert_eq!(of(&all, "audit")[0]["sources_changed"], 0, "{all:?}");
    // One of other content and the same length, one longer, one gone, one new; one that was only touched.
    let source = |name: &str| session.path("source").join(name);
    let mut small = contents("small", 70_000);
    small[69_999] ^= 1;
    fs::write(source("sub/small.txt"), &small).expect("written");
    fs::write(source("sub/tiny"), b"in the record, once").expect("written");
    fs::remove_file(source("one block")).expect("removed");
    fs::write(source("later"), b"new").expect("written");
    fs::write(session.path("disks/disk.raw"), sparse("disk")).expect("written");
    let (exit, all) = audit(&with_sources);
    let mut changes: Vec<(String, String)> = of(&all, "source_changed")
        .iter()
        .map(|one| (one["blob"].as_str().expect("a blob").into(), one["change"].as_str().expect("a word").into()))
        .collect();
    changes.sort();
    let expected = [
        ("data/later", "new"),
        ("data/one block", "gone"),
        ("data/sub/small.txt", "changed"),
        ("data/sub/tiny", "changed"),
    ];
    assert_eq!(exit, 3, "{all:?}");
    assert_eq!(changes, expected.map(|(blob, word)| (blob.to_owned(), word.to_owned())));
    assert_eq!(of(&all, "audit")[0]["word"], "SOURCES CHANGED", "{all:?}");
    // Metadata in the account that is not that of the drive.
    let content = session.path("again");
    fs::write(&content, contents("small", 70_000)).expect("written");
    let put = ["put", "data", "sub/small.txt", &content.display().to_string(), "author=another"];
    azurite.client(&put).expect("uploaded");
    let (exit, all) = audit(&drive);
    assert_eq!(exit, 5, "{all:?}");
    let different = of(&all, "audited").into_iter().filter(|row| row["verdict"] == "different");
    let different: Vec<String> = different.map(|row| format!("{} {}", row["blob"], row["notes"])).collect();
    assert!(matches!(&different[..], [one] if one.contains("small.txt") && one.contains("differ")), "{different:?}");
}

/// What is left, by the sources: what the account lacks, what changed since, what is new. Sent from that dataset, all is
/// there.
#[test]
fn judge_what_an_audit_of_manifests_leaves_is_prepared_again_by_its_dataset() {
    let session = drive("ingest-left", "rename");
    let Some(azurite) = account(&session) else { return };
    let output = ingest(&session, &azurite.endpoint, &["--logdir", "logs"]);
    assert_eq!(code(&output), 0, "{}", said(&output));
    let key = session.path("azurite/account.key").display().to_string();
    let audit = |more: &[&str]| {
        let words = ["audit", "--journal", "journal.jrn", "--endpoint", &azurite.endpoint, "--account-key-file", &key];
        crate::common::dray_in(&session.dir, &[&words[..], more].concat())
    };
    // Manifests alone name no source.
    let output = audit(&["--left", "left.csv"]);
    let text = crate::common::unbroken(&said(&output));
    assert!(code(&output) == 1 && text.contains("--sources dataset.csv"), "{text}");
    assert!(!session.path("left.csv").exists());

    for name in ["sub/tiny", "one block"] {
        azurite.client(&["delete", "data", name]).expect("deleted");
    }
    let source = |name: &str| session.path("source").join(name);
    let mut small = contents("small", 70_000);
    small[7] ^= 1;
    fs::write(source("sub/small.txt"), &small).expect("written");
    fs::write(source("later, \"quoted\""), b"new").expect("written");
    let drive = ["--drive", "drive.img", "--key-file", "drive.xml", "--sources", "dataset.csv", "--left", "left.csv"];
    // Of what no source is left, nothing can be sent: that is said.
    fs::rename(source("one block"), session.path("away")).expect("moved");
    let output = audit(&drive);
    assert_eq!(code(&output), 5, "{}", said(&output));
    let text = crate::common::unbroken(&said(&output));
    assert!(text.contains("no source of the dataset is left for: data/one block"), "{text}");
    fs::rename(session.path("away"), source("one block")).expect("moved");
    let output = audit(&drive);
    assert_eq!(code(&output), 5, "{}", said(&output));
    let left = fs::read_to_string(session.path("left.csv")).expect("a dataset");
    let mut rows: Vec<&str> =
        left.lines().skip(1).map(|row| row.split_once("source/").map_or(row, |(_, end)| end)).collect();
    rows.sort_unstable();
    let sides = format!("\"{0}/m.xml\",\"{0}/p.xml\"", session.dir.display());
    let expected = [
        format!("later, \"\"quoted\"\"\",\"data/later, \"\"quoted\"\"\",BlockBlob,rename,{sides}"),
        format!("one block\",\"data/one block\",BlockBlob,rename,{sides}"),
        format!("sub/small.txt\",\"data/sub/small.txt\",BlockBlob,overwrite,{sides}"),
        format!("sub/tiny\",\"data/sub/tiny\",BlockBlob,rename,{sides}"),
    ];
    assert_eq!(rows, expected, "{left}");

    session.driveset(&[format!("{}:130MB", session.path("second.img").display())]);
    session.works(
        "prep-import --journal journal.jrn --id session#2 --additional-driveset driveset.csv --dataset left.csv --silent \
         --not-for-shipping --read-back none --logdir logs",
    );
    let words = ["ingest", "second.img", "--record", "second.xml", "--endpoint", &azurite.endpoint];
    let output = crate::common::dray_in(&session.dir, &[&words[..], &["--account-key-file", &key]].concat());
    assert_eq!(code(&output), 0, "{}", said(&output));
    let second = ["--drive", "second.img", "--key-file", "second.xml"];
    let output = audit(&[&drive[..], &second].concat());
    assert_eq!(code(&output), 0, "{}", said(&output));
    let left = fs::read_to_string(session.path("left.csv")).expect("a dataset");
    assert_eq!(left.lines().count(), 1, "nothing is left: {left}");
    let there = read(&azurite, "data").expect("Microsoft's client");
    assert_eq!(there["sub/small.txt"]["sha256"], sha256(&small));
    assert_eq!(there["later, \"quoted\""]["sha256"], sha256(b"new"));
}
