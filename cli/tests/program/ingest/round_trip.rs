//! The whole way round: tree, drive, account, drive, tree.

use super::*;
use crate::common::dray_in;

/// Runs a command that must end with 0.
fn works(session: &Session, words: &[&str]) -> String {
    let output = dray_in(&session.dir, words);
    assert_eq!(code(&output), 0, "{words:?}: {}", said(&output));
    said(&output)
}

#[test]
fn judge_the_way_round_ends_where_it_began() {
    let session = drive("round-trip", "overwrite");
    let Some(azurite) = account(&session) else { return };
    let key = session.path("azurite/account.key").display().to_string();
    let account = ["--endpoint", &azurite.endpoint, "--account-key-file", &key];

    works(&session, &["rehearse", "drive.img", "--record", "drive.xml", "--logs", "rehearsed"]);
    let imported = ingest(&session, &azurite.endpoint, &[]);
    assert_eq!(code(&imported), 0, "{}", said(&imported));
    works(&session, &[&["audit", "--dataset", "dataset.csv", "--read", "all"][..], &account].concat());

    // A blob that was in the account before, with a snapshot of its own.
    fs::write(session.path("kept"), b"was here").expect("written");
    let kept = session.path("kept").display().to_string();
    if azurite.client(&["put", "data", "kept.txt", &kept, "snapshot=1"]).is_none() {
        return;
    }
    let list = "<?xml version=\"1.0\"?><BlobList><BlobPathPrefix>/data/</BlobPathPrefix>\
                <BlobPathPrefix>/disks/</BlobPathPrefix><BlobPath>/$root/logo</BlobPath></BlobList>";
    fs::write(session.path("list.xml"), list).expect("a list");
    let back = session.path("back.img").display().to_string();
    let header = "DriveLetter,FormatOption,SilentOrPromptOnFormat,Encryption,ExistingBitLockerKey";
    fs::write(session.path("back.csv"), format!("{header}\n{back}:150MB,Format,SilentMode,Encrypt,\n")).expect("a set");
    let export = ["export", "--journal", "export.jrn", "--id", "export#1", "--blob-list", "list.xml"];
    let more = ["--driveset", "back.csv", "--snapshots", "--silent", "--not-for-shipping"];
    works(&session, &[&export[..], &more, &account].concat());
    works(&session, &["verify", "back.img", "--key-file", "back.xml", "--extract-to", "out"]);

    for (name, content) in files() {
        let path = session.path("out/data").join(name);
        let there = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(sha256(&there), sha256(&content), "{name}");
    }
    assert!(fs::read(session.path("out/disks/disk.raw")).expect("a disk") == sparse("disk"));
    assert_eq!(fs::read(session.path("out/$root/logo")).expect("a blob"), b"at the root");
    assert_eq!(fs::read(session.path("out/data/kept.txt")).expect("a blob"), b"was here");
    // Settings travel in files next to each blob.
    let cat = |name: &str| works(&session, &["cat", "back.img", name, "--key-file", "back.xml"]);
    assert!(cat("data/sub/small.txt.properties").contains("text/x-test"));
    assert!(cat("data/sub/small.txt.metadata").to_lowercase().contains("<author>me</author>"));
    let manifest = cat("back.manifest");
    assert!(manifest.contains("Snapshot"), "{manifest}");
}

#[test]
fn judge_the_demo_ends_with_blobs_in_an_account() {
    let dir = crate::common::scratch("demo-account");
    let Some(azurite) = Azurite::open(&dir.join("azurite")) else { return };
    azurite.key_file().expect("a key");
    let demo = ["demo", "--dir", "demo", "--account-key-file", "azurite/account.key", "--endpoint"];
    let wrong = dray_in(&dir, &[&demo[..], &["no address"]].concat());
    assert_eq!(code(&wrong), 1, "{}", said(&wrong));
    assert!(!dir.join("demo").exists(), "a wrong account is refused before anything is made");
    let output = dray_in(&dir, &[&demo[..], &[&azurite.endpoint]].concat());
    assert_eq!(code(&output), 0, "{}", said(&output));
    let Some(blobs) = read(&azurite, "demo") else { return };
    let source = fs::read(dir.join("demo/data/large/three-blocks.bin")).expect("a file");
    assert_eq!(blobs["large/three-blocks.bin"]["sha256"], sha256(&source));
    assert_eq!(blobs["names/readme.txt"]["length"], 100);
    assert!(blobs.contains_key("names/a <very> \"odd\" name*.txt"), "{:?}", blobs.keys());
}
