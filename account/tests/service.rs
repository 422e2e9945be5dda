//! The operations against a storage account on this machine, judged by Microsoft's client and by AzCopy; and faults.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dray_account::credential::AccountKey;
use dray_account::sign::account_sas;
use dray_account::{Account, BlobKind, Condition, Content, Credential, Endpoint, Failure, Include, Policy, Settings};
use dray_engine::report::Stop;
use dray_testdisks::azurite::{Azurite, Front, KEY};
use md5::{Digest, Md5};

fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("dray-account-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("a directory");
    dir
}

fn quick() -> Policy {
    Policy {
        patience: Duration::from_secs(20),
        patience_first: Duration::from_secs(5),
        stall: Duration::from_secs(2),
        pause: Duration::from_millis(20),
        pause_max: Duration::from_millis(200),
    }
}

fn account(endpoint: &str, credential: Credential) -> Account {
    let endpoint = Endpoint::parse(endpoint, "--endpoint", "").expect("this machine");
    Account::new(endpoint, credential, None, quick(), None).expect("an account")
}

fn by_key(endpoint: &str) -> Account {
    account(endpoint, Credential::key(KEY).expect("a key"))
}

fn md5(bytes: &[u8]) -> [u8; 16] {
    Md5::digest(bytes).into()
}

fn content(bytes: &[u8]) -> Content<'_> {
    Content { bytes, md5: Some(md5(bytes)) }
}

const NAMES: [&str; 9] =
    ["a b", "%2F", "100%", "#?&=+", "umläut é", "emoji \u{1F600}", "dir/x y/z", "quote'\"", "trail."];

#[test]
fn judge_operations_are_the_service_s() {
    let dir = scratch("operations");
    let Some(azurite) = Azurite::open(&dir) else { return };
    let here = by_key(&azurite.endpoint);
    here.create_container("box").expect("made");
    assert_eq!(here.create_container("box").map_err(|failure| failure.status), Err(Some(409)));
    assert_eq!(here.containers("").expect("listed"), ["box"]);

    // Whole blobs, by names of every kind.
    let settings = Settings {
        content_type: Some("text/plain".into()),
        md5: Some(md5(b"hello")),
        metadata: vec![("year".into(), "1999".into())],
        ..Settings::default()
    };
    for name in NAMES {
        let sent = here.put_blob("box", name, content(b"hello"), &settings, &Condition::absent());
        sent.unwrap_or_else(|failure| panic!("{name}: {failure}"));
        let facts = here.facts("box", name, None).expect(name);
        assert_eq!((facts.length, facts.kind, facts.settings.md5), (5, BlobKind::Block, Some(md5(b"hello"))), "{name}");
        assert_eq!(
            (facts.settings.content_type, facts.settings.metadata),
            (settings.content_type.clone(), settings.metadata.clone())
        );
    }
    let again = here
        .put_blob("box", "a b", content(b"x"), &Settings::default(), &Condition::absent())
        .expect_err("it is there");
    assert!(again.is_condition(), "{again}");
    let wrong = Content { bytes: b"hello", md5: Some([0; 16]) };
    let refused =
        here.put_blob("box", "wrong", wrong, &Settings::default(), &Condition::default()).expect_err("another hash");
    assert_eq!(refused.status, Some(400), "{refused}");
    assert!(here.facts("box", "wrong", None).expect_err("nothing").is_missing());

    // Blocks, with ids that a manifest has.
    let ids = ["MD5/AAAAAAAAAAAAAAAAAAAAAA==", "MD5/AAAAAAAAAAAAAAAAAAAAAQ=="].map(str::to_owned);
    for (id, part) in ids.iter().zip([&b"first "[..], b"second"]) {
        here.put_block("box", "blocks", id, content(part), None).expect("sent");
    }
    assert_eq!(here.block_list(("box", "blocks", None), false).expect("waiting").len(), 2);
    let etag = here.put_block_list("box", "blocks", &ids, &settings, &Condition::default()).expect("committed");
    let blocks = here.block_list(("box", "blocks", None), true).expect("blocks");
    assert_eq!(blocks, ids.iter().map(|id| (id.clone(), 6)).collect::<Vec<_>>());
    let mut part = [0; 6];
    let got = here.read(("box", "blocks", None), 6, &mut part, &Condition::same(&etag)).expect("read");
    assert_eq!((&part, got.etag.as_str(), got.length), (b"second", etag.as_str(), Some(12)));
    let stale = here.read(("box", "blocks", None), 0, &mut part, &Condition::same("\"0x0\"")).expect_err("another");
    assert!(stale.is_condition(), "{stale}");
    assert!(here.read(("box", "blocks", None), 10, &mut part, &Condition::default()).is_err(), "past the end");

    // Pages.
    here.create_pages("box", "pages", 4096, &Settings::default(), &Condition::default()).expect("made");
    here.put_pages("box", "pages", 1024, content(&[7; 512]), &Condition::default()).expect("written");
    let bad = Content { bytes: &[7; 512], md5: Some([0; 16]) };
    assert_eq!(here.put_pages("box", "pages", 0, bad, &Condition::default()).map_err(|f| f.status), Err(Some(400)));
    assert_eq!(here.page_ranges(("box", "pages", None)).expect("ranges"), [(1024, 512, false)]);

    // A lease keeps others out.
    let lease = here.lease("box", "blocks", Some(15), None).expect("a lease");
    let denied =
        here.put_blob("box", "blocks", content(b"x"), &Settings::default(), &Condition::default()).expect_err("leased");
    assert_eq!(denied.status, Some(412), "{denied}");
    here.release("box", "blocks", &lease).expect("released");

    // Listing, and what the judge lists.
    let mut names = Vec::new();
    here.each("box", "", Include { metadata: true, snapshots: true }, |blob| -> Result<(), Failure> {
        names.push((blob.name, blob.length, blob.metadata.len()));
        Ok(())
    })
    .expect("listed");
    assert_eq!(names.len(), NAMES.len() + 2);
    if let Some(listed) = azurite.client(&["list", "box"]) {
        let theirs: Vec<(String, u64, usize)> = listed
            .lines()
            .map(|line| {
                let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
                let metadata = value["metadata"].as_object().map_or(0, serde_json::Map::len);
                (
                    value["name"].as_str().expect("a name").to_owned(),
                    value["length"].as_u64().expect("a length"),
                    metadata,
                )
            })
            .collect();
        assert_eq!(names, theirs);
    }

    // A signature of our own allows the same, and no more than it says.
    let key = AccountKey::parse(KEY).expect("a key");
    let sas = account_sas(&azurite.account, &key, "rl", "2099-01-01T00:00:00Z", false);
    let reader = account(&azurite.endpoint, Credential::sas(&sas, jiff::Timestamp::now()).expect("a SAS"));
    assert_eq!(reader.read_whole("box", "blocks", 100).expect("read"), b"first second");
    assert!(reader.list("box", "dir/", Include::default(), None).expect("listed").blobs.len() == 1);
    let denied = reader
        .put_blob("box", "mine", content(b"x"), &Settings::default(), &Condition::default())
        .expect_err("read only");
    assert!(denied.is_denied(), "{denied}");
    assert!(!denied.to_string().contains("sig="), "{denied}");
    let other = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==";
    let stranger = account(&azurite.endpoint, Credential::key(other).expect("a key"));
    assert!(stranger.containers("").expect_err("another key").is_denied());

    // AzCopy reads what was written, and checks its hash.
    let endpoint = &azurite.endpoint;
    let (from, to) = (format!("{endpoint}/box/dir/x%20y/z?{{SAS}}"), dir.join("z"));
    let words =
        ["copy", &from, &to.display().to_string(), "--from-to=BlobLocal", "--check-md5=FailIfDifferentOrMissing"];
    if azurite.azcopy(&sas, &words).is_some() {
        assert_eq!(fs::read(to).expect("copied"), b"hello");
    }
    drop(azurite);
    let _ = fs::remove_dir_all(dir);
}

#[test]
fn faults_are_outlived_and_what_is_final_is_not_tried_again() {
    let dir = scratch("faults");
    let Some(azurite) = Azurite::alone(&dir) else { return };
    let direct = by_key(&azurite.endpoint);
    direct.create_container("box").expect("made");
    let data: Vec<u8> = (0..1 << 20).map(|i: u32| (i % 251) as u8).collect();
    direct.put_blob("box", "data", content(&data), &Settings::default(), &Condition::default()).expect("sent");

    let front = Front::start(
        &azurite,
        &dir,
        r#"[{"method": "GET", "path": "comp=list", "fault": "status", "status": 503, "retry_after": 1},
            {"method": "GET", "path": "box/data", "fault": "half"},
            {"method": "GET", "path": "box/data", "fault": "reset"},
            {"method": "GET", "path": "box/data", "fault": "stall", "seconds": 4},
            {"method": "GET", "path": "box/data", "fault": "status", "status": 500},
            {"method": "GET", "path": "box/denied", "fault": "status", "status": 403, "code": "AuthorizationFailure"},
            {"method": "PUT", "path": "box/early", "fault": "early", "times": 2}]"#,
    );
    let here = by_key(&front.endpoint);
    let started = Instant::now();
    assert_eq!(here.list("box", "", Include::default(), None).expect("listed").blobs.len(), 1);
    assert!(started.elapsed() >= Duration::from_secs(1), "the service asked for a second");
    let mut out = vec![0; data.len()];
    here.read(("box", "data", None), 0, &mut out, &Condition::default()).expect("read after all");
    assert!(out == data, "other bytes");
    let requests = front.requests();
    for fault in ["half", "reset", "stall"] {
        assert!(requests.contains(&format!("\"fault\": \"{fault}\"")), "{fault}: {requests}");
    }
    let started = Instant::now();
    let denied = here.read(("box", "denied", None), 0, &mut out[..1], &Condition::default()).expect_err("denied");
    assert!(denied.is_denied() && started.elapsed() < Duration::from_secs(1), "{denied}");
    assert_eq!(front.requests().matches("box/denied").count(), 1);
    // What is said while the body is on its way is heard at the second try at the latest.
    let early = here.put_blob("box", "early", content(&vec![1; 8 << 20]), &Settings::default(), &Condition::default());
    assert!(early.expect_err("denied").is_denied());
    // Limits that the emulator does not hold.
    here.create_pages("box", "pages", 8 << 20, &Settings::default(), &Condition::default()).expect("made");
    let long = vec![1; (4 << 20) + 512];
    let refused = here.put_pages("box", "pages", 0, content(&long), &Condition::default()).expect_err("too long");
    assert_eq!(refused.status, Some(413), "{refused}");
    drop(front);

    // A service that is away is waited for, until it is to stop.
    let stop = Stop::new();
    let endpoint = Endpoint::parse(&azurite.endpoint, "--endpoint", "").expect("this machine");
    let policy = Policy { patience: Duration::from_secs(600), ..quick() };
    let waiting = Account::new(endpoint, Credential::key(KEY).expect("a key"), None, policy, Some(stop.clone()))
        .expect("an account");
    waiting.containers("").expect("it answers");
    drop(azurite);
    let started = Instant::now();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        stop.request();
    });
    let stopped = waiting.containers("").expect_err("it is gone");
    assert!(stopped.is_stopped && started.elapsed() < Duration::from_secs(5), "{stopped}");
    let _ = fs::remove_dir_all(dir);
}
