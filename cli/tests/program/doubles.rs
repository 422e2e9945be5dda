//! Two blobs of one name, and impossible entries of a manifest: each affects itself alone.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::common::{Session, said};

fn verify(image: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dray"));
    command.arg("verify").arg(image).args(more).stdin(Stdio::null()).output().expect("the binary runs")
}

#[test]
fn blobs_of_one_name_are_told_when_planned_and_both_taken_out() {
    let session = Session::new("doubles");
    fs::create_dir_all(session.path("source")).expect("a source");
    fs::write(session.path("source/f"), "first").expect("a file");
    session.dataset(&[&format!("\"{}/\",data/,BlockBlob,rename,,", session.path("source").display())]);
    session.driveset(&[format!("{}:100MiB", session.path("drive.img").display())]);
    session.prepare(&[]);

    fs::write(session.path("source/f"), "second, and longer").expect("a file");
    let mut again = Command::new(env!("CARGO_BIN_EXE_dray"));
    again.args(["prep-import", "--silent", "--not-for-shipping", "--id", "session#2"]);
    again.arg("--journal").arg(session.path("journal.jrn")).arg("--dataset").arg(session.path("dataset.csv"));
    let plan = again.arg("--dry-run").stdin(Stdio::null()).output().expect("the binary runs");
    assert!(said(&plan).contains("already"), "told before the first write: {}", said(&plan));
    assert!(said(&plan).contains("data/f"), "{}", said(&plan));
    let mut again = Command::new(env!("CARGO_BIN_EXE_dray"));
    again.args(["prep-import", "--silent", "--not-for-shipping", "--id", "session#2"]);
    again.arg("--journal").arg(session.path("journal.jrn")).arg("--dataset").arg(session.path("dataset.csv"));
    let done = again.stdin(Stdio::null()).output().expect("the binary runs");
    assert!(done.status.success(), "{}", said(&done));

    // A name that the service takes for one of an earlier session.
    fs::rename(session.path("source/f"), session.path("source/f.")).expect("renamed");
    let told = crate::common::words(&session.dray(
        "prep-import --silent --not-for-shipping --id session#3 --journal journal.jrn --dataset dataset.csv --dry-run",
    ));
    assert!(
        told.contains("2 blobs in the drive's manifest, from earlier sessions, have names")
            && told.contains("(found: data/f, data/f)"),
        "{told}"
    );
    assert!(!told.contains("already"), "{told}");

    let (key, out) = (session.path("drive.xml"), session.path("out"));
    let more = ["--key-file", key.to_str().expect("text"), "--extract-to", out.to_str().expect("text")];
    for _ in 0..2 {
        let reported = verify(&session.path("drive.img"), &more);
        assert!(said(&reported).contains("the name of another blob"), "{}", said(&reported));
        assert!(reported.status.success(), "{}", said(&reported));
    }
    let mut found: Vec<String> = vec![fs::read_to_string(out.join("data/f")).expect("a blob")];
    for entry in fs::read_dir(out.join(".dray/renamed")).expect("a directory") {
        found.push(fs::read_to_string(entry.expect("an entry").path()).expect("a blob"));
    }
    found.sort();
    assert_eq!(found, ["first", "second, and longer"]);
}

/// One entry of a manifest.
fn blob(name: &str, length: &str, list: &str) -> String {
    format!("<Blob><BlobPath>data/{name}</BlobPath><FilePath>\\x</FilePath><Length>{length}</Length>{list}</Blob>")
}

#[test]
fn an_entry_that_cannot_be_costs_that_entry() {
    let session = Session::new("entries");
    let image = session.path("v.img");
    let volume = fs::File::create(&image).expect("an image");
    volume.set_len(20 << 20).expect("a length");
    let made =
        Command::new("mkntfs").args(["-q", "-F"]).arg(&image).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let Ok(true) = made.map(|status| status.success()) else {
        eprintln!("SKIPPED judge: mkntfs");
        return;
    };
    let mount = session.path("m");
    fs::create_dir_all(&mount).expect("a directory");
    let mounted = Command::new("ntfs-3g").arg(&image).arg(&mount).status();
    let Ok(true) = mounted.map(|status| status.success()) else {
        eprintln!("SKIPPED judge: ntfs-3g");
        return;
    };
    let wrote = fs::write(mount.join("x"), "hello\n");
    let _ = Command::new("umount").arg(&mount).status();
    wrote.expect("a file");

    const MD5: &str = "B1946AC92492D2347C6235B4D2611184";
    let good = format!("<BlockList><Block Offset=\"0\" Length=\"6\" Hash=\"{MD5}\"/></BlockList>");
    let list = |block: &str| format!("<BlockList>{block}</BlockList>");
    let entries = [
        blob("bad", "18446744073709551615", &good),
        blob("bad", "18446744073709551616", &good),
        blob("bad", "1000000000000000", &good),
        blob("bad", "-1", &good),
        blob("bad", "", &good),
        blob("bad", "6", &list("<Block Offset=\"0\" Length=\"6\" Hash=\"nonsense\"/>")),
        blob("bad", "6", &list(&format!("<Block Offset=\"x\" Length=\"6\" Hash=\"{MD5}\"/>"))),
        blob("bad", "6", &list(&format!("<Block Offset=\"18446744073709551615\" Length=\"6\" Hash=\"{MD5}\"/>"))),
        blob("bad", "6", &list(&format!("<Block Offset=\"0\" Length=\"18446744073709551615\" Hash=\"{MD5}\"/>"))),
        blob("bad", "6", &list("<Block Offset=\"2\" Length=\"4\"/><Block Offset=\"0\" Length=\"2\"/>")),
        blob("bad", "6", "<PageRangeList><PageRange Offset=\"512\" Length=\"512\"/></PageRangeList>"),
        blob("bad", "6", &good).replace("\\x", "\\..\\x"),
        blob("bad", "6", &good).replace("\\x", "\\x\\y"),
        blob("bad", "6", &good).replace("\\x", ""),
        blob("bad", "6", &good).replace("data/bad", ""),
        blob("bad", "6", &good).replace("data/bad", "/../../etc/bad"),
    ];
    for (number, bad) in entries.iter().enumerate() {
        let text = format!(
            "<?xml version=\"1.0\"?><DriveManifest Version=\"2014-11-01\"><Drive><DriveId>v</DriveId><BlobList>{}{bad}{}\
             </BlobList></Drive></DriveManifest>",
            blob("good1", "6", &good),
            blob("good2", "6", &good),
        );
        fs::write(session.path("m.xml"), text).expect("a manifest");
        let (manifest, out) = (session.path("m.xml"), session.path(&format!("out{number}")));
        let more = ["--manifest", manifest.to_str().expect("text"), "--extract-to", out.to_str().expect("text")];
        let reported = verify(&image, &more);
        assert_eq!(reported.status.code(), Some(5), "entry {number}: {}", said(&reported));
        for name in ["good1", "good2"] {
            let taken = fs::read_to_string(out.join("data").join(name));
            assert_eq!(taken.ok().as_deref(), Some("hello\n"), "entry {number}: {}", said(&reported));
        }
        assert!(said(&reported).contains("2 of 3 blobs equal") || number >= 13, "entry {number}: {}", said(&reported));
        assert!(!Path::new("/etc/bad").exists());
    }
}
