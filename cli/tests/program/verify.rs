//! `dray verify` on drives made by the binary, whole and damaged. The damage is done by other means: bytes of the
//! image, and ntfs-3g on the volume that libbde decrypts.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::common::{Session, said, words};
use serde_json::Value;

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdisks");

/// A drive with recognisable file contents, metadata and properties.
fn drive(name: &str) -> Session {
    let session = Session::new(name);
    let source = session.path("source");
    fs::create_dir_all(source.join("sub")).expect("a source");
    for (name, len) in [("flip", 5 << 20), ("swap", 9 << 20), ("cut", 300_000), ("gone", 20_000), ("well", 70_000)] {
        fs::write(source.join("sub").join(name), contents(name, len)).expect("a file");
    }
    fs::write(source.join("empty"), b"").expect("a file");
    fs::write(source.join("so:called"), b"a name that NTFS cannot hold").expect("a file");
    fs::write(session.path("m.xml"), "<Metadata><Author>me</Author></Metadata>").expect("metadata");
    fs::write(session.path("p.xml"), "<Properties><Content-Type>text/x-test</Content-Type></Properties>")
        .expect("properties");
    let row = format!(
        "\"{}/\",data/,BlockBlob,rename,{},{}",
        source.display(),
        session.path("m.xml").display(),
        session.path("p.xml").display()
    );
    session.dataset(&[&row]);
    session.driveset(&[format!("{}:130MB", session.path("drive.img").display())]);
    session.prepare(&["--read-back", "full"]);
    session
}

/// Every 512 bytes contain their own offset.
fn contents(name: &str, len: usize) -> Vec<u8> {
    (0..len.div_ceil(512))
        .flat_map(|i| format!("{name:>8}{i:>12}").repeat(26).into_bytes().into_iter().take(512))
        .take(len)
        .collect()
}

fn verify(session: &Session, image: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dray"))
        .arg("verify")
        .arg(image)
        .arg("--key-file")
        .arg(session.path("drive.xml"))
        .args(more)
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}

/// The objects of `--json`: blobs by name, and the last one.
fn judged(output: &Output) -> (BTreeMap<String, Value>, Value) {
    let mut rows = BTreeMap::new();
    let mut last = Value::Null;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let value: Value = serde_json::from_str(line).expect("an object");
        match value["type"].as_str() {
            Some("blob") => {
                let name = value["blob"].as_str().or(value["file"].as_str()).expect("a name");
                rows.insert(name.to_owned(), value.clone());
            }
            Some("verified") => last = value,
            _ => {}
        }
    }
    assert!(last.is_object(), "{}", said(output));
    (rows, last)
}

fn word<'a>(rows: &'a BTreeMap<String, Value>, name: &str) -> &'a str {
    rows.get(name).and_then(|row| row["verdict"].as_str()).unwrap_or("no row")
}

fn answer(last: &Value, status: &str) -> String {
    let checks = last["drives"][0]["checks"].as_array().expect("questions");
    let found = checks.iter().find(|check| check["status"] == status).expect("the question");
    found["answer"].as_str().expect("an answer").to_owned()
}

fn partition(image: &Path) -> (u64, u64) {
    let file = File::open(image).expect("the image");
    let mut entry = [0; 256];
    file.read_exact_at(&mut entry, 1024).expect("the table");
    let number = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().expect("eight bytes"));
    // The second entry is the data partition, after the reserved one.
    (number(128 + 32) * 512, (number(128 + 40) + 1 - number(128 + 32)) * 512)
}

fn change(image: &Path, at: u64, change: impl FnOnce(&mut [u8])) {
    let file = OpenOptions::new().read(true).write(true).open(image).expect("the image");
    let mut sector = [0; 512];
    file.read_exact_at(&mut sector, at).expect("bytes");
    change(&mut sector);
    file.write_all_at(&sector, at).expect("bytes");
}

/// The decrypted volume, by libbde.
fn decrypted(session: &Session) -> Option<PathBuf> {
    let plain = session.path("plain.img");
    let output = Command::new("python3")
        .arg(Path::new(SCRIPTS).join("decrypt.py"))
        .arg(session.path("drive.img"))
        .arg(&plain)
        .arg("--record")
        .arg(session.path("drive.xml"))
        .output()
        .expect("python3 runs");
    if !output.status.success() {
        eprintln!("SKIPPED judge: libbde does not decrypt: {}", said(&output).lines().last().unwrap_or_default());
        return None;
    }
    Some(plain)
}

/// Offset of these bytes in a file; they must occur once.
fn search(image: &Path, what: &[u8]) -> u64 {
    let file = File::open(image).expect("the image");
    let len = file.metadata().expect("its length").len();
    let mut found = Vec::new();
    let mut block = vec![0; 1 << 20];
    for at in (0..len).step_by(1 << 20) {
        let n = file.read_at(&mut block, at).expect("bytes");
        // The searched contents start a cluster.
        found.extend((0..n).step_by(512).filter(|i| block[*i..].starts_with(what)).map(|i| at + i as u64));
    }
    assert_eq!(found.len(), 1, "{:?}", String::from_utf8_lossy(what));
    found[0]
}

#[test]
fn whole_drives_verify_and_give_back_what_went_in() {
    let session = drive("verify-whole");
    let image = session.path("drive.img");
    let before = fs::metadata(&image).expect("the image").modified().expect("a time");
    let (out, page, csv) = (session.path("out"), session.path("r.html"), session.path("all.csv"));
    let words = ["--json", "--extract-to", out.to_str().unwrap(), "--report", page.to_str().unwrap()];
    let output = verify(&session, &image, &[&words[..], &["--list", csv.to_str().unwrap()]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let (rows, last) = judged(&output);
    assert_eq!(rows.len(), 7, "{rows:?}");
    assert!(rows.values().all(|row| row["verdict"] == "equal" && row["properties"] == "equal"), "{rows:?}");
    for status in ["BitLockerKeyInvalid", "ManifestCorrupted", "ManifestFormatInvalid", "ManifestDriveIdMismatch"] {
        assert_eq!(answer(&last, status), "yes", "{status}");
    }
    let same = Command::new("diff").arg("-r").arg(session.path("source")).arg(out.join("data")).output().expect("diff");
    assert!(same.status.success(), "{}", said(&same));
    let time = |path: PathBuf| fs::metadata(path).expect("a file").modified().expect("a time");
    let (was, is) = (time(session.path("source/sub/well")), time(out.join("data/sub/well")));
    assert!(was.duration_since(is).unwrap_or_else(|error| error.duration()).as_micros() < 1, "{was:?} {is:?}");
    let described = fs::read_to_string(out.join(".dray/drive.jsonl")).expect("the description");
    assert_eq!(described.lines().count(), 7);
    assert!(described.lines().all(|line| line.contains("text/x-test") && line.contains("\"Author\":\"me\"")));
    assert!(fs::read_to_string(&page).expect("the page").contains("All 7 blobs"));
    assert_eq!(fs::read_to_string(&csv).expect("the list").lines().count(), 8);
    assert_eq!(
        fs::metadata(&image).expect("the image").modified().expect("a time"),
        before,
        "verify wrote to the drive"
    );

    // Again: the drive is read again; a missing file is restored; a changed one is reported, and stays.
    fs::remove_file(out.join("data/sub/cut")).expect("a file");
    let output = verify(&session, &image, &words);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let (rows, last) = judged(&output);
    assert_eq!((&last["drives"][0]["resumed"], &last["drives"][0]["taken_out"]["count"]), (&0.into(), &7.into()));
    assert!(rows.values().all(|row| row["read"] == "now"), "{rows:?}");
    let bytes = 14 * (1 << 20) + 300_000 + 20_000 + 70_000;
    assert!(last["drives"][0]["bytes_read"].as_u64().is_some_and(|read| read > bytes), "{last}");
    assert_eq!(fs::read(out.join("data/sub/cut")).expect("taken out again"), contents("cut", 300_000));
    let mut grown = contents("gone", 20_000);
    grown.extend(b"more");
    for changed in [contents("gone", 19_999), contents("else", 20_000), grown] {
        fs::write(out.join("data/sub/gone"), &changed).expect("a file");
        let output = verify(&session, &image, &words);
        assert_eq!(output.status.code(), Some(5), "{}", said(&output));
        let (rows, last) = judged(&output);
        assert_eq!(reasons(&last), ["extracted_file_changed"]);
        assert_eq!(
            (&rows["data/sub/gone"]["verdict"], &rows["data/sub/gone"]["extracted_changed"]),
            (&"equal".into(), &true.into())
        );
        assert!(fs::read(out.join("data/sub/gone")).expect("a file") == changed, "overwritten");
    }
    fs::write(out.join("data/sub/gone"), contents("gone", 20_000)).expect("a file");
    assert_eq!(verify(&session, &image, &words).status.code(), Some(0));
    // Damage on the drive is found, whatever the directory contains.
    if let Some(plain) = decrypted(&session) {
        let at = partition(&image).0 + search(&plain, &contents("swap", 512));
        change(&image, at, |sector| sector[9] ^= 1);
        let output = verify(&session, &image, &words);
        assert_eq!(output.status.code(), Some(5), "{}", said(&output));
        let (rows, last) = judged(&output);
        assert_eq!((&rows["data/sub/swap"]["verdict"], reasons(&last)), (&"different".into(), vec!["not_equal"]));
        change(&image, at, |sector| sector[9] ^= 1);
        fs::remove_file(plain).expect("the volume");
    }
    let planted = session.path("planted");
    fs::create_dir_all(&planted).expect("a directory");
    std::os::unix::fs::symlink(session.path("elsewhere"), planted.join("data")).expect("a link");
    fs::create_dir_all(session.path("elsewhere")).expect("a directory");
    let output = verify(&session, &image, &["--extract-to", planted.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert_eq!(fs::read_dir(session.path("elsewhere")).expect("a directory").count(), 0, "wrote through a link");

    // Part of the blobs, and a list of requested blobs.
    let list = session.path("list.xml");
    fs::write(&list, "<BlobList><BlobPath>data/sub/flip</BlobPath><BlobPath>data/other</BlobPath></BlobList>")
        .expect("a list");
    let output = verify(&session, &image, &["--json", "--only", "data/sub", "--expect", list.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(5), "{}", said(&output));
    let (rows, last) = judged(&output);
    assert_eq!((rows.len(), &last["on_no_drive"][0]), (5, &Value::from("data/other")));
    fs::remove_file(image).expect("the image");
}

#[test]
fn every_kind_of_damage_is_found_and_named() {
    let session = drive("verify-damage");
    let Some(plain) = decrypted(&session) else { return };
    let image = session.path("drive.img");
    let (start, _) = partition(&image);
    let place = |name: &str, i: usize| search(&plain, &contents(name, (i + 1) * 512)[i * 512..]);

    // On the encrypted drive: a bit of a file, two blocks that changed places.
    let flip = place("flip", 9000);
    change(&image, start + flip + 512 - 512, |sector| sector[77] ^= 4);
    let output = verify(&session, &image, &["--json"]);
    assert_eq!(output.status.code(), Some(5), "{}", said(&output));
    let (rows, _) = judged(&output);
    assert_eq!(word(&rows, "data/sub/flip"), "different");
    let note = rows["data/sub/flip"]["notes"][0].as_str().expect("a note");
    assert!(note.starts_with("bytes 4194304 to 5242880: different"), "{note}");
    assert_eq!(rows.values().filter(|row| row["verdict"] == "equal").count(), 6);
    change(&image, start + flip, |sector| sector[77] ^= 4);

    // The manifest, and a drive record of another drive.
    let record = session.path("drive.xml");
    let text = fs::read_to_string(&record).expect("the record");
    fs::write(&record, text.replace("<DriveId>drive<", "<DriveId>9WM35C2V<")).expect("the record");
    let output = verify(&session, &image, &["--json"]);
    assert_eq!((output.status.code(), answer(&judged(&output).1, "ManifestDriveIdMismatch").as_str()), (Some(5), "no"));
    fs::write(&record, text).expect("the record");
    let manifest = search(&plain, b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<DriveManifest");
    change(&image, start + manifest, |sector| sector[300] ^= 1);
    let output = verify(&session, &image, &["--json"]);
    assert_eq!((output.status.code(), answer(&judged(&output).1, "ManifestCorrupted").as_str()), (Some(5), "no"));
    change(&image, start + manifest, |sector| sector[300] ^= 1);

    // Each copy of BitLocker's metadata, alone and with the next.
    let mut boot = [0; 512];
    File::open(&image).expect("the image").read_exact_at(&mut boot, start).expect("the first sector");
    let copies = [176, 184, 192].map(|at| u64::from_le_bytes(boot[at..at + 8].try_into().expect("eight bytes")));
    let file = OpenOptions::new().read(true).write(true).open(&image).expect("the image");
    let mut kept = [(); 3].map(|()| vec![0; 4096]);
    for (copy, kept) in copies.iter().zip(&mut kept) {
        file.read_exact_at(kept, start + copy).expect("a copy");
    }
    for i in 0..3 {
        for n in 1..=2 {
            for j in (0..n).map(|k| (i + k) % 3) {
                file.write_all_at(&[0x5A; 4096], start + copies[j]).expect("damage");
            }
            let output = verify(&session, &image, &["--json", "--only", "data/sub/well"]);
            assert_eq!(output.status.code(), Some(0), "copy {i}, {n} damaged: {}", said(&output));
            let warnings = judged(&output).1["drives"][0]["warnings"].clone();
            assert!(warnings.to_string().contains("cop"), "{warnings}");
            for (copy, kept) in copies.iter().zip(&kept) {
                file.write_all_at(kept, start + copy).expect("mended");
            }
        }
    }

    // On the decrypted volume: exchanged blocks, and changes by a file system driver.
    let (a, b) = (place("swap", 100), place("swap", 9000));
    let bytes = |i: usize| contents("swap", (i + 1) * 512)[i * 512..].to_vec();
    change(&plain, a, |sector| sector.copy_from_slice(&bytes(9000)));
    change(&plain, b, |sector| sector.copy_from_slice(&bytes(100)));
    let mount = session.path("mnt");
    fs::create_dir_all(&mount).expect("a directory");
    let mounted = Command::new("ntfs-3g").arg(&plain).arg(&mount).output();
    let is_mounted = mounted.as_ref().is_ok_and(|output| output.status.success());
    if is_mounted {
        let dir = fs::read_dir(&mount).expect("the root").filter_map(Result::ok).map(|entry| entry.path());
        let base = dir.filter(|path| path.is_dir()).find_map(|path| {
            let found = Command::new("find").arg(&path).args(["-name", "cut"]).output().ok()?;
            let line = String::from_utf8_lossy(&found.stdout).lines().next().map(PathBuf::from);
            line.and_then(|line| line.parent().map(Path::to_owned))
        });
        let base = base.expect("the files");
        OpenOptions::new().write(true).open(base.join("cut")).and_then(|file| file.set_len(1234)).expect("cut");
        fs::remove_file(base.join("gone")).expect("removed");
        fs::write(base.join("foreign"), "nobody asked for it").expect("a file");
        let blob = "<Blob><BlobPath>more/x</BlobPath><FilePath>\\x</FilePath><Length>1</Length></Blob>";
        let other = format!(
            "<DriveManifest><Drive><DriveId>drive</DriveId><BlobList>{blob}</BlobList></Drive></DriveManifest>"
        );
        fs::write(mount.join("drive.manifest"), other).expect("a file");
        fs::write(mount.join("program.exe.manifest"), "<assembly manifestVersion=\"1.0\"/>").expect("a file");
        assert!(Command::new("umount").arg(&mount).status().is_ok_and(|status| status.success()));
    } else {
        eprintln!("SKIPPED judge: ntfs-3g does not mount here");
    }
    let output = verify(&session, &plain, &["--json"]);
    assert_eq!(output.status.code(), Some(5), "{}", said(&output));
    let (rows, last) = judged(&output);
    assert_eq!(word(&rows, "data/sub/swap"), "different");
    assert_eq!(rows["data/sub/swap"]["notes"].as_array().map(Vec::len), Some(2), "{rows:?}");
    assert_eq!(answer(&last, "BitLockerNotActivated"), "no");
    if is_mounted {
        assert_eq!(word(&rows, "data/sub/cut"), "different");
        assert!(rows["data/sub/cut"]["notes"][0].as_str().is_some_and(|note| note.contains("1234")));
        assert_eq!(word(&rows, "data/sub/gone"), "missing");
        let foreign = rows.iter().find(|(name, _)| name.ends_with("foreign")).expect("the file that nobody asked for");
        assert_eq!(foreign.1["verdict"], "not in the manifest");
        // Blobs listed only in a second manifest were not compared; a program's manifest does not count.
        let unlisted = &last["drives"][0]["unlisted"];
        assert_eq!((unlisted.as_array().map(Vec::len), &unlisted[0]["blobs"]), (Some(1), &1.into()), "{unlisted}");
        assert!(reasons(&last).contains(&"listed_elsewhere"), "{last}");
    }
    for name in ["data/sub/well", "data/sub/flip", "data/empty"] {
        assert_eq!(word(&rows, name), "equal");
    }

    // The service's log together with the state of the drive.
    let log = session.path("error.xml");
    let path = rows["data/sub/swap"]["file"].as_str().expect("a path");
    let text = format!(
        "<DriveLog Version=\"2014-11-01\"><DriveId>drive</DriveId><Blob Status=\"CompletedWithErrors\"><BlobPath>data/sub/swap\
         </BlobPath><FilePath>{path}</FilePath><Length>9437184</Length><BlockList><Block Offset=\"0\" Length=\"4194304\" \
         Status=\"Corrupted\"/></BlockList></Blob><Status>CompletedWithErrors</Status></DriveLog>"
    );
    fs::write(&log, text).expect("a log");
    let output = verify(&session, &plain, &["--json", "--copy-log", log.to_str().unwrap()]);
    let (rows, last) = judged(&output);
    assert!(rows["data/sub/swap"]["service"].as_str().is_some_and(|said| said.contains("Corrupted")), "{rows:?}");
    assert_eq!(last["drives"][0]["log_status"], "CompletedWithErrors");
    fs::remove_file(image).expect("the image");
    fs::remove_file(plain).expect("the volume");
}

#[test]
fn hostile_manifests_name_nothing_outside() {
    let session = drive("verify-hostile");
    let manifest = session.path("evil.manifest");
    let file = "\\session#1\\data\\sub\\well";
    let blob = |path: &str| {
        format!("<Blob><BlobPath>{path}</BlobPath><FilePath>{file}</FilePath><Length>70000</Length></Blob>")
    };
    let blobs: String =
        ["../../escaped", "/tmp/escaped", "a/../../escaped", "..", "a//b", ".dray/x", "a", "a/b"].map(blob).concat();
    let text = format!(
        "<DriveManifest Version=\"2014-11-01\"><Drive><DriveId>drive</DriveId><BlobList>{blobs}</BlobList></Drive></DriveManifest>"
    );
    fs::write(&manifest, text).expect("a manifest");
    let out = session.path("deep/out");
    let image = session.path("drive.img");
    let words = ["--json", "--manifest", manifest.to_str().unwrap(), "--extract-to", out.to_str().unwrap()];
    let output = verify(&session, &image, &words);
    let (rows, _) = judged(&output);
    let found = rows.values().filter(|row| row["blob"].is_string()).count();
    assert_eq!(found, 8, "{}", said(&output));
    let inside =
        Command::new("find").arg(session.path("deep")).args(["-type", "f", "-size", "70000c"]).output().expect("find");
    let inside: Vec<String> = String::from_utf8_lossy(&inside.stdout).lines().map(str::to_owned).collect();
    let out = out.to_str().unwrap();
    assert!(inside.len() == 8 && inside.iter().all(|path| path.starts_with(out)), "{inside:?}\n{}", said(&output));
    // Half a manifest, and none.
    for text in ["<DriveManifest><Drive><DriveId>drive</DriveId><BlobList><Blob><BlobPath>a</Blob", "", "\0\0\0"] {
        fs::write(&manifest, text).expect("a manifest");
        let output = verify(&session, &image, &["--json", "--manifest", manifest.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(5), "{}", said(&output));
        assert_eq!(answer(&judged(&output).1, "ManifestFormatInvalid"), "no");
    }
    fs::remove_file(image).expect("the image");
}

#[test]
fn what_was_asked_and_what_the_service_said_stand_beside_what_the_drive_shows() {
    let session = drive("verify-joined");
    let image = session.path("drive.img");
    let file = |name: &str, text: &str| {
        fs::write(session.path(name), text).expect("a file");
        session.path(name).to_str().expect("UTF-8").to_owned()
    };
    let first = file(
        "error.xml",
        "<DriveLog Version=\"2018-10-01\"><DriveId>drive</DriveId>\
         <Blob Status=\"Completed\"><BlobPath>data/sub/well</BlobPath><FilePath>\\x</FilePath></Blob>\
         <Blob Status=\"CompletedWithErrors\"><BlobPath>data/sub/flip</BlobPath><FilePath></FilePath><BlockList>\
         <Block Offset=\"4194304\" Length=\"1048576\" Status=\"ReadErrors\"/></BlockList></Blob>\
         <Status>CompletedWithErrors</Status></DriveLog>",
    );
    let second = file(
        "copylog.xml",
        "<ErroredEntity CloudFormat=\"BlockBlob\" Path=\"data\\sub\\gone\"><Category>UploadErrorCloudHttp</Category>\
         <ErrorCode>400</ErrorCode><ErrorMessage>UnsupportedBlobType</ErrorMessage><Type>File</Type></ErroredEntity>\
         <ErroredEntity Path=\"data/elsewhere\"><Category>UploadErrorWin32</Category><ErrorCode>123</ErrorCode>\
         <ErrorMessage>bad name</ErrorMessage><Type>File</Type></ErroredEntity>\
         <CopyLog Summary=\"Summary\"><DriveLogVersion>2021-08-01</DriveLogVersion><DriveId>drive</DriveId>\
         <Status>Failed</Status><TotalFiles_Blobs>3</TotalFiles_Blobs><FilesErrored>2</FilesErrored></CopyLog>",
    );
    let inventory = file("inventory.csv", "Name,Content-Length\ndata/sub/well,70000\ndata/lost,1\n");
    let incomplete = file(
        "incomplete.xml",
        "<BlobList><BlobPath>data/sub/cut</BlobPath><BlobPathPrefix>/data/nothing/</BlobPathPrefix>\
         <BlobPathPrefix>/data/sub/</BlobPathPrefix></BlobList>",
    );
    let logs = ["--copy-log", &first, "--copy-log", &second];
    let output = verify(&session, &image, &[&["--json"], &logs[..]].concat());
    // The drive itself is whole, and the service did not take all of it: that is no success.
    assert_eq!(output.status.code(), Some(5), "{}", said(&output));
    let (rows, last) = judged(&output);
    assert_eq!(reasons(&last), ["service_did_not_take", "log_names_other", "log_status"]);
    assert_eq!((&last["verdict"]["equal"], &last["verdict"]["asked"]), (&7.into(), &7.into()));
    let taken = |name: &str| rows[name]["taken"].as_str().unwrap_or_default().to_owned();
    assert_eq!((taken("data/sub/well").as_str(), taken("data/sub/gone").as_str()), ("taken", "not taken"));
    // The first log lists successful blobs, so an unlisted one was not copied.
    assert_eq!(taken("data/empty"), "not taken");
    let service = |name: &str| rows[name]["service"].as_str().unwrap_or_default().to_owned();
    assert!(service("data/sub/flip").contains("bytes 4194304 to 5242880: ReadErrors"), "{rows:?}");
    assert!(service("data/sub/gone").contains("UploadErrorCloudHttp 400 UnsupportedBlobType"), "{rows:?}");
    assert_eq!(service("data/sub/well"), "");
    assert!(rows.values().all(|row| row["verdict"] == "equal"), "what the service said is not what the drive shows");
    assert_eq!(last["drives"][0]["log_status"], "CompletedWithErrors, Failed");
    assert!(last["drives"][0]["log_strays"].to_string().contains("elsewhere"), "{last}");
    let output = verify(&session, &image, &logs);
    for part in ["service: CompletedWithErrors", "status of the drive: CompletedWithErrors, Failed", "elsewhere"] {
        assert!(said(&output).contains(part), "{part}: {}", said(&output));
    }

    let output = verify(&session, &image, &["--json", "--expect", &inventory, "--expect", &incomplete]);
    assert_eq!(output.status.code(), Some(5), "{}", said(&output));
    let missing: Vec<String> =
        judged(&output).1["on_no_drive"].as_array().expect("a list").iter().map(ToString::to_string).collect();
    assert_eq!(missing.len(), 2, "{missing:?}");
    for part in ["data/lost", "/data/nothing/"] {
        assert!(missing.iter().any(|missing| missing.contains(part)), "{part}: {missing:?}");
    }

    // Some of the blobs, with a given manifest; and a manifest whose hash is not the job's.
    let only = ["--json", "--only", "data/sub/f", "data/sub/w", "--manifest", "\\DriveManifest.xml"];
    let output = verify(&session, &image, &only);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let (rows, last) = judged(&output);
    assert_eq!(rows.keys().map(String::as_str).collect::<Vec<_>>(), ["data/sub/flip", "data/sub/well"]);
    assert_eq!(last["drives"][0]["skipped"], 5);
    let other = ["--json", "--manifest-hash", "00112233445566778899AABBCCDDEEFF"];
    let output = verify(&session, &image, &other);
    assert_eq!((output.status.code(), answer(&judged(&output).1, "ManifestCorrupted").as_str()), (Some(5), "no"));
    for wrong in [["--copy-log", &inventory], ["--expect", &first], ["--copy-log", "nothing"], ["--expect", "nothing"]]
    {
        let output = verify(&session, &image, &wrong);
        assert_eq!(output.status.code(), Some(1), "{wrong:?}: {}", said(&output));
    }
    // One drive by three names is one drive.
    let (hard, soft) = (session.path("hard.img"), session.path("soft.img"));
    fs::hard_link(&image, &hard).expect("a link");
    std::os::unix::fs::symlink(&image, &soft).expect("a link");
    let names = ["--json", hard.to_str().expect("UTF-8"), soft.to_str().expect("UTF-8")];
    let output = verify(&session, &image, &names);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let (_, last) = judged(&output);
    assert_eq!(last["drives"].as_array().map(Vec::len), Some(1));
    assert_eq!((&last["verdict"]["asked"], last["same_drive"].as_array().map(Vec::len)), (&7.into(), Some(2)));
    fs::remove_file(image).expect("the image");
}

/// Reasons why a run is no success.
fn reasons(last: &Value) -> Vec<&str> {
    let all = last["verdict"]["reasons"].as_array().expect("reasons");
    all.iter().map(|one| one["reason"].as_str().expect("a name")).collect()
}

#[test]
fn what_proves_nothing_is_no_success() {
    let session = drive("verify-nothing");
    let image = session.path("drive.img");
    let file = |name: &str, text: &str| {
        fs::write(session.path(name), text).expect("a file");
        session.path(name).to_str().expect("UTF-8").to_owned()
    };
    let empty = file(
        "empty.manifest",
        "<DriveManifest Version=\"2014-11-01\"><Drive><DriveId>drive</DriveId><BlobList></BlobList></Drive></DriveManifest>",
    );
    let nothing = file("nothing.xml", "<BlobList></BlobList>");
    let header = file("header.csv", "Name,Content-Length\n");
    let other = file("other.xml", "<DriveLog><DriveId>WD-OTHER</DriveId><Status>Completed</Status></DriveLog>");
    for (more, code, reported) in [
        (&["--only", "nonexistent/"][..], 1, "nonexistent/"),
        (&["--only", "Data/"], 1, "data/"),
        (&["--only", "data/*"], 1, "data/"),
        // One that is right does not cover one that is not.
        (&["--only", "data/sub/well", "data/wrong"], 1, "data/wrong"),
        (&["--manifest", &empty], 5, "no blob"),
        (&["--expect", &nothing], 1, "selects nothing"),
        (&["--expect", &header], 1, "asks for no blob"),
        (&["--copy-log", &other], 1, "WD-OTHER"),
    ] {
        let output = verify(&session, &image, more);
        assert_eq!(output.status.code(), Some(code), "{more:?}: {}", said(&output));
        let text = words(&output);
        assert!(text.contains(reported) && !text.contains("Equal:"), "{more:?}: {text}");
    }
    // A path that leads nowhere, and no key.
    let output = verify(&session, &session.path("drvie.img"), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("Could not be verified: ") && !said(&output).contains("0 of 0"),
        "{}",
        said(&output)
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_dray"));
    let output = command.arg("verify").arg(&image).stdin(Stdio::null()).output().expect("the binary runs");
    assert!(said(&output).contains("Could not be verified: "), "{}", said(&output));
    assert_eq!(output.status.code(), Some(1));
    fs::remove_file(image).expect("the image");
}

#[test]
fn a_drive_that_was_not_finished_or_lost_a_table_is_not_equal() {
    let session = drive("verify-unfit");
    let (image, record) = (session.path("drive.img"), session.path("drive.xml"));
    let unfit = |why: &str| {
        let output = verify(&session, &image, &["--json"]);
        assert_eq!(output.status.code(), Some(5), "{why}: {}", said(&output));
        let (rows, last) = judged(&output);
        assert!(rows.values().all(|row| row["verdict"] == "equal"), "{why}");
        assert_eq!(reasons(&last), ["unfit"], "{why}");
        let sentence = last["verdict"]["sentence"].as_str().expect("a sentence").to_owned();
        assert!(sentence.contains(why), "{sentence}");
    };
    // The journal is in the directory of the record.
    let journals: Vec<PathBuf> = fs::read_dir(&session.dir)
        .expect("the session")
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"[BeginUpdateRecord]")) && *path != record)
        .collect();
    let [journal] = journals.as_slice() else { panic!("{journals:?}") };
    let whole = fs::read(journal).expect("the journal");
    let text = String::from_utf8(whole.clone()).expect("text");
    // As an interrupted run leaves it: cut after the record of the drive's start.
    let begun = text.find("DriveState: Started").expect("the drive was begun");
    let end = begun + text[begun..].find("[EndUpdateRecord]").expect("its end") + "[EndUpdateRecord]\r\n".len();
    fs::write(journal, &text[..end]).expect("the journal");
    unfit("preparing the drive was finished: no");
    fs::write(journal, &whole).expect("the journal");
    assert_eq!(verify(&session, &image, &[]).status.code(), Some(0));
    // The drive record.
    let text = fs::read_to_string(&record).expect("the record");
    fs::write(&record, text.replace("SaveCommandOutput: Completed", "SaveCommandOutput: Incomplete")).expect("written");
    unfit("preparing the drive was finished: no");
    fs::write(&record, &text).expect("the record");
    // The second partition table.
    let len = fs::metadata(&image).expect("the image").len();
    let mut kept = [0; 512];
    File::open(&image).expect("the image").read_exact_at(&mut kept, len - 512).expect("the last sector");
    change(&image, len - 512, |sector| sector.fill(0));
    unfit("is missing");
    change(&image, len - 512, |sector| sector.copy_from_slice(&kept));
    assert_eq!(verify(&session, &image, &[]).status.code(), Some(0));
    fs::remove_file(image).expect("the image");
}

#[test]
fn what_the_service_took_is_held_against_the_drive() {
    let session = drive("verify-service");
    let image = session.path("drive.img");
    // By another implementation: bit by bit, reflected, all ones at both ends (CRC-64/NVME).
    let crc = |bytes: &[u8]| {
        let step = |crc: u64, byte: &u8| {
            (0..8).fold(crc ^ u64::from(*byte), |crc, _| (crc >> 1) ^ ((crc & 1) * 0x9A6C_9329_AC4B_C9B5))
        };
        !bytes.iter().fold(!0, step)
    };
    let all = [
        ("sub/flip", 5 << 20),
        ("sub/swap", 9 << 20),
        ("sub/cut", 300_000),
        ("sub/gone", 20_000),
        ("sub/well", 70_000),
    ];
    let mut files: Vec<(String, u64, u64)> =
        all.iter().map(|(name, len)| (format!("data/{name}"), *len as u64, crc(&contents(&name[4..], *len)))).collect();
    let named = b"a name that NTFS cannot hold";
    files.push(("data/empty".into(), 0, crc(b"")));
    files.push(("data/so:called".into(), named.len() as u64, crc(named)));
    let log = |change: &dyn Fn(&str) -> String| {
        let line = |(path, size, crc): &(String, u64, u64)| {
            format!("<File CloudFormat=\"BlockBlob\" Path=\"{path}\" Size=\"{size}\" crc64=\"{crc}\"></File>\n")
        };
        let text = files.iter().map(line).map(|line| change(&line)).collect::<String>();
        let path = session.path("verbose.xml");
        fs::write(&path, text).expect("a log");
        verify(&session, &image, &["--json", "--copy-log", path.to_str().expect("UTF-8")])
    };
    let output = log(&|line| line.to_owned());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(judged(&output).0.values().all(|row| row["taken"] == "taken"));
    let well = files[4].2.to_string();
    for (what, with, code, reason) in [
        ("Size=\"70000\"", "Size=\"70001\"", 5, "service_took_other"),
        (well.as_str(), "17", 5, "service_took_other"),
        // It is not named, and another is.
        ("data/sub/well", "data/sub/wall", 5, "service_did_not_take"),
    ] {
        let output = log(&|line| line.replace(what, with));
        assert_eq!(output.status.code(), Some(code), "{what}: {}", said(&output));
        assert_eq!(reasons(&judged(&output).1)[0], reason, "{what}");
    }
    let output = log(&|line| if line.contains("well") { String::new() } else { line.to_owned() });
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert_eq!(reasons(&judged(&output).1), ["service_did_not_take"]);

    // The first generation: one blob, and its result.
    for (status, path, code, word) in [
        ("Created", "data/sub/well", 0, "taken"),
        ("Renamed", "data/sub/well (2)", 5, "taken under another name"),
        ("Skipped", "data/sub/well", 3, "not taken"),
    ] {
        let text = format!(
            "<DriveLog Version=\"2014-11-01\"><DriveId>drive</DriveId><Blob Status=\"Completed\"><BlobPath>{path}</BlobPath>\
             <FilePath>\\session#1\\data\\sub\\well</FilePath><Length>70000</Length><ImportDisposition \
             Status=\"{status}\">rename</ImportDisposition></Blob><Status>Completed</Status></DriveLog>"
        );
        let log = session.path("error.xml");
        fs::write(&log, text).expect("a log");
        let words = ["--json", "--only", "data/sub/well", "--copy-log", log.to_str().expect("UTF-8")];
        let output = verify(&session, &image, &words);
        assert_eq!(output.status.code(), Some(code), "{status}: {}", said(&output));
        assert_eq!(judged(&output).0["data/sub/well"]["taken"], word);
    }
    fs::remove_file(image).expect("the image");
}

#[test]
fn taking_out_goes_on_where_it_was_killed() {
    let session = drive("verify-killed");
    let (image, out) = (session.path("drive.img"), session.path("out"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_dray"));
    command.arg("verify").arg(&image).arg("--key-file").arg(session.path("drive.xml")).arg("--extract-to").arg(&out);
    // Killed before the n-th file gets its name, before all is durable, and after that.
    for (call, nth) in [(libc::SYS_renameat2, 2), (libc::SYS_renameat2, 5), (libc::SYS_syncfs, 1)] {
        let _ = fs::remove_dir_all(&out);
        let mut run = match dray_testdisks::traced::Traced::start(&command, &session.dir) {
            Ok(run) => run,
            Err(error) => {
                eprintln!("SKIPPED judge: a program cannot be traced here: {error}");
                return;
            }
        };
        let mut seen = 0;
        let stood = run.until(|moment| {
            seen += usize::from(moment.call == call);
            seen == nth
        });
        assert!(stood.expect("the trace goes on"), "call {call} was made {seen} times only");
        assert_eq!(run.kill().expect("killed").code, None);
        let output = verify(&session, &image, &["--extract-to", out.to_str().expect("UTF-8")]);
        assert_eq!(output.status.code(), Some(0), "{call} {nth}: {}", said(&output));
        assert!(said(&output).contains("Equal: All 7 blobs"), "{}", said(&output));
        let same =
            Command::new("diff").arg("-r").arg(session.path("source")).arg(out.join("data")).output().expect("diff");
        assert!(same.status.success(), "{call} {nth}: {}", said(&same));
        assert!(!out.join(".dray/parts").exists(), "parts are left over");
    }
    fs::remove_file(image).expect("the image");
}
