//! `dray rehearse`: the status that the service would give a drive and its blobs, for each kind of damage. The damage is
//! done inside the encrypted volume, to bytes of the manifest, of files, and of the drive record.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use dray_engine::api::hash::Md5;
use dray_engine::api::inspect::{Key, Opened, find};
use dray_engine::units::VolumeOffset;
use serde_json::Value;

use crate::common::{Session, code, said};

/// Seeded contents of a file.
pub fn contents(seed: u32, len: usize) -> Vec<u8> {
    let mut state = u64::from(seed);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

pub const CUT: usize = 300_000;

/// A drive with blocks, pages, metadata and properties.
pub fn drive(name: &str) -> Session {
    let session = Session::new(name);
    let source = session.path("source");
    fs::create_dir_all(source.join("sub")).expect("a source");
    for (name, len) in [("sub/many", 9 << 20), ("sub/cut", CUT), ("small", 100), ("so:called", 20)] {
        fs::write(source.join(name), contents(len as u32, len)).expect("a file");
    }
    fs::write(source.join("empty"), b"").expect("a file");
    let mut disk = vec![0; 1 << 20];
    disk[4096..8192].copy_from_slice(&contents(3, 4096));
    fs::write(session.path("disk.bin"), &disk).expect("a file");
    fs::write(session.path("m.xml"), "<Metadata><Author>me</Author></Metadata>").expect("metadata");
    fs::write(session.path("p.xml"), "<Properties><Content-Type>text/x-test</Content-Type></Properties>")
        .expect("properties");
    let (m, p) = (session.path("m.xml"), session.path("p.xml"));
    session.dataset(&[
        &format!("\"{}/\",data/,BlockBlob,overwrite,{},{}", source.display(), m.display(), p.display()),
        &format!("\"{}\",pages/disk,PageBlob,no-overwrite,None,None", session.path("disk.bin").display()),
    ]);
    session.driveset(&[format!("{}:130MB", session.path("drive.img").display())]);
    session.prepare(&[]);
    session
}

/// Changes to make, and to take back: places on the image, and their bytes.
pub struct Damage {
    image: PathBuf,
    before: Vec<(u64, Vec<u8>)>,
    record: Option<(PathBuf, String)>,
}

impl Drop for Damage {
    fn drop(&mut self) {
        if let Some((path, text)) = self.record.take() {
            fs::write(path, text).expect("written");
        }
        if self.before.is_empty() {
            return;
        }
        let file = OpenOptions::new().write(true).open(&self.image).expect("the image");
        for (at, bytes) in self.before.iter().rev() {
            file.write_all_at(bytes, *at).expect("written");
        }
    }
}

pub fn opened(session: &Session) -> Opened {
    let key = Key::read(&fs::read(session.path("drive.xml")).expect("a record")).expect("a key");
    find::open(&session.path("drive.img"), None).expect("a volume").unlock(&key, &mut |_, _| {}).expect("unlocked")
}

/// Places of these bytes in the unlocked volume.
pub fn places(opened: &Opened, what: &[u8]) -> Vec<u64> {
    let mut all = vec![0; opened.len().0 as usize];
    let step = 1 << 20;
    for (at, part) in (0..).step_by(step).zip(all.chunks_mut(step)) {
        opened.read(VolumeOffset(at), part).expect("read");
    }
    let first = what[0];
    let at = all.iter().enumerate().filter(|(at, byte)| **byte == first && all[*at..].starts_with(what));
    at.map(|(at, _)| at as u64).collect()
}

impl Damage {
    pub fn new(session: &Session) -> Self {
        Self { image: session.path("drive.img"), before: Vec::new(), record: None }
    }

    /// Replaces bytes at a place of the unlocked volume.
    pub fn put(&mut self, opened: &Opened, at: u64, bytes: &[u8]) {
        let start = at / 512 * 512;
        let mut sectors = vec![0; (at + bytes.len() as u64 - start).next_multiple_of(512) as usize];
        opened.read(VolumeOffset(start), &mut sectors).expect("read");
        sectors[(at - start) as usize..][..bytes.len()].copy_from_slice(bytes);
        let file = File::options().read(true).write(true).open(&self.image).expect("the image");
        for (at, sealed) in opened.seal(VolumeOffset(start), &sectors).expect("sealed") {
            let mut before = vec![0; sealed.len()];
            file.read_exact_at(&mut before, at.0).expect("read");
            self.before.push((at.0, before));
            file.write_all_at(&sealed, at.0).expect("written");
        }
    }

    /// Replaces a text in the volume by another of its length, wherever it is.
    fn replace(&mut self, session: &Session, old: &str, new: &str) {
        assert_eq!(old.len(), new.len(), "{old} {new}");
        let opened = opened(session);
        let at = places(&opened, old.as_bytes());
        assert!(!at.is_empty(), "{old}");
        at.into_iter().for_each(|at| self.put(&opened, at, new.as_bytes()));
    }

    /// Leaves the damage as it is.
    pub fn stay(mut self) {
        self.before.clear();
        self.record = None;
    }

    /// Changes the drive record.
    fn record(&mut self, session: &Session, old: &str, new: &str) {
        let path = session.path("drive.xml");
        let text = fs::read_to_string(&path).expect("a record");
        assert_eq!(text.matches(old).count(), 1, "{old}: {text}");
        fs::write(&path, text.replace(old, new)).expect("written");
        self.record.get_or_insert((path, text));
    }

    /// Replaces texts in the manifest, and gives the record the hash that it has then.
    pub fn manifest(session: &Session, edits: &[(&str, &str)]) -> Self {
        let mut damage = Self::new(session);
        edits.iter().for_each(|(old, new)| damage.replace(session, old, new));
        let record = fs::read_to_string(session.path("drive.xml")).expect("a record");
        let old = between(&record, "<ManifestHash>", "<").to_owned();
        let output = session.dray("cat drive.img /DriveManifest.xml --key-file drive.xml");
        assert_eq!(code(&output), 0, "{}", said(&output));
        damage.record(session, &old, &md5(&output.stdout));
        damage
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    text.split_once(before).and_then(|(_, rest)| rest.split_once(after)).expect("the text").0
}

fn md5(bytes: &[u8]) -> String {
    let mut md5 = Md5::new();
    md5.update(bytes);
    md5.finish().iter().map(|byte| format!("{byte:02X}")).collect()
}

/// The answer: the objects of the blobs, and the last object.
struct Answer {
    blobs: Vec<Value>,
    last: Value,
    code: i32,
    output: Output,
}

impl Answer {
    fn of(session: &Session, image: &str) -> Self {
        let _ = fs::remove_dir_all(session.path("out"));
        let output = session.dray(&format!("rehearse {image} --record drive.xml --logs out --job myjob --json"));
        let (mut blobs, mut last) = (Vec::new(), Value::Null);
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let value: Value = serde_json::from_str(line).expect("an object");
            match value["type"].as_str() {
                Some("service_blob") => blobs.push(value),
                Some("rehearsed") => last = value,
                _ => {}
            }
        }
        assert!(last.is_object(), "{}", said(&output));
        Self { blobs, last, code: code(&output), output }
    }

    fn status(&self) -> &str {
        self.last["drives"][0]["status"].as_str().expect("a status")
    }

    fn blob(&self, path: &str) -> &Value {
        self.blobs.iter().find(|blob| blob["blob"] == path).unwrap_or_else(|| panic!("{path}: {:?}", self.blobs))
    }

    /// A log that was written, by a part of its name.
    fn log(&self, session: &Session, part: &str) -> Option<(PathBuf, String)> {
        let all = fs::read_dir(session.path("out")).expect("a directory").map(|entry| entry.expect("an entry").path());
        let path = all.into_iter().find(|path| path.to_string_lossy().contains(part))?;
        let text = fs::read_to_string(&path).expect("a log");
        Some((path, text))
    }
}

#[test]
fn a_good_drive_is_taken_and_its_logs_say_so() {
    let session = drive("rehearse-good");
    let answer = Answer::of(&session, "drive.img");
    assert_eq!((answer.status(), answer.code), ("Completed", 0), "{}", said(&answer.output));
    assert_eq!(answer.blobs.len(), 6);
    assert!(answer.blobs.iter().all(|blob| blob["status"] == "Completed" && blob["disposition"] == "Created"));
    let (verbose, text) = answer.log(&session, "_verbose.xml").expect("a verbose log");
    assert!(verbose.file_name().expect("a name").to_string_lossy().starts_with("myjob_drive_"), "{verbose:?}");
    assert!(
        text.contains("<BlobPath>data/so:called</BlobPath>") && text.contains("<PageRange Offset=\"4096\""),
        "{text}"
    );
    assert!(text.contains("<ImportDisposition Status=\"Created\">no-overwrite</ImportDisposition>"), "{text}");
    assert!(answer.log(&session, "_error.xml").is_none(), "no error, no log of errors");
    let (files, _) = answer.log(&session, "VerboseLog").expect("a verbose log of the second generation");
    let (copy, text) = answer.log(&session, "CopyLog").expect("a copy log");
    assert!(text.contains("<Status>Succeeded</Status>") && text.contains("<TotalFiles_Blobs>6<"), "{text}");
    // Our own reader compares every length, block hash and CRC-64 with the drive.
    for log in [&verbose, &files, &copy] {
        session.works(&format!("verify drive.img --key-file drive.xml --copy-log {}", log.display()));
    }
    let said = session.works("rehearse drive.img --record drive.xml");
    assert!(said.contains("Completed: the service would take all of 1 drive"), "{said}");
}

#[test]
fn each_fault_of_a_drive_has_its_status() {
    let session = drive("rehearse-drive");
    let record = fs::read_to_string(session.path("drive.xml")).expect("a record");
    let key = between(&record, "<BitLockerKey>", "<").to_owned();
    let hash = between(&record, "<ManifestHash>", "<").to_owned();
    let other = "060456-014509-132033-080300-252615-584177-672089-411631";
    for (old, new, status) in [
        (hash.as_str(), "00112233445566778899AABBCCDDEEFF", "ManifestCorrupted"),
        ("\\DriveManifest.xml", "\\Elsewhere.xml", "ManifestNotFound"),
        ("\\DriveManifest.xml", "\\a:b.xml", "ManifestNameInvalid"),
        ("<DriveId>drive<", "<DriveId>WD-OTHER<", "ManifestDriveIdMismatch"),
        (key.as_str(), other, "BitLockerKeyInvalid"),
    ] {
        let mut damage = Damage::new(&session);
        damage.record(&session, old, new);
        let answer = Answer::of(&session, "drive.img");
        assert_eq!((answer.status(), answer.code), (status, 5), "{}", said(&answer.output));
        assert!(answer.blobs.is_empty(), "the service does not come to the blobs");
        let (_, text) = answer.log(&session, "_error.xml").expect("a log of errors");
        assert!(text.contains(&format!("<Status>{status}</Status>")) && !text.contains("<Blob"), "{text}");
        let (_, text) = answer.log(&session, "CopyLog").expect("a copy log");
        assert!(text.contains("<Status>Failed</Status>"), "{text}");
    }
    let damage = Damage::manifest(&session, &[("<DriveId>drive</DriveId>", "<DriveIds>rive</DriveId>")]);
    assert_eq!(Answer::of(&session, "drive.img").status(), "ManifestFormatInvalid");
    drop(damage);
    let damage = Damage::manifest(&session, &[("no-overwrite</", "No-Overwrite</")]);
    assert_eq!(Answer::of(&session, "drive.img").status(), "ManifestFormatInvalid");
    drop(damage);
    assert_eq!(Answer::of(&session, "drive.img").status(), "Completed", "everything is as it was");
    tables(&session);
}

/// Disks that are not what the service expects.
fn tables(session: &Session) {
    let image = fs::read(session.path("drive.img")).expect("the image");
    let entry = 1024 + 128;
    let number = |at: usize| u64::from_le_bytes(image[entry + at..entry + at + 8].try_into().expect("eight bytes"));
    let volume = &image[number(32) as usize * 512..][..(number(40) + 1 - number(32)) as usize * 512];
    // An MBR: a FAT volume, and then the prepared one.
    let mut disk = vec![0; 4 << 20];
    disk[510..512].copy_from_slice(&[0x55, 0xAA]);
    let mut put = |slot: usize, kind: u8, start: u32, sectors: u32| {
        let at = 446 + 16 * slot;
        disk[at + 4] = kind;
        disk[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        disk[at + 12..at + 16].copy_from_slice(&sectors.to_le_bytes());
    };
    put(0, 0x07, 2048, 4096);
    put(1, 0x07, 8192, volume.len() as u32 / 512);
    disk[(1 << 20) + 3..(1 << 20) + 11].copy_from_slice(b"EXFAT   ");
    disk[(1 << 20) + 510..(1 << 20) + 512].copy_from_slice(&[0x55, 0xAA]);
    disk.extend_from_slice(volume);
    let path = session.path("drive-mbr.img");
    fs::write(&path, &disk).expect("an image");
    let answer = Answer::of(session, "drive-mbr.img");
    assert_eq!((answer.status(), answer.code), ("VolumeNotNtfs", 5), "{}", said(&answer.output));
    // With nothing in front it is taken: an MBR is no fault.
    disk[1 << 20..2 << 20].fill(0);
    fs::write(&path, &disk).expect("an image");
    assert_eq!(Answer::of(session, "drive-mbr.img").status(), "Completed");
    fs::remove_file(&path).expect("removed");
    // Not encrypted; of another file system; empty.
    let mut plain = disk[..8192 * 512].to_vec();
    let opened = opened(session);
    let mut inside = vec![0; opened.len().0 as usize];
    opened.read(VolumeOffset(0), &mut inside).expect("read");
    plain.extend_from_slice(&inside);
    fs::write(session.path("plain.img"), &plain).expect("an image");
    let answer = Answer::of(session, "plain.img");
    assert_eq!((answer.status(), answer.code), ("BitLockerNotActivated", 5), "{}", said(&answer.output));
    plain[8192 * 512..][3..11].copy_from_slice(b"EXFAT   ");
    fs::write(session.path("plain.img"), &plain).expect("an image");
    assert_eq!(Answer::of(session, "plain.img").status(), "VolumeNotNtfs");
    fs::write(session.path("plain.img"), vec![0; 8 << 20]).expect("an image");
    assert_eq!(Answer::of(session, "plain.img").status(), "DiskNotFound");
    let output = session.dray("rehearse nothing.img --record drive.xml");
    assert_eq!(code(&output), 1, "{}", said(&output));
    let output = session.dray("rehearse drive.img --record dataset.csv");
    assert_eq!(code(&output), 1, "{}", said(&output));
}

#[test]
fn each_fault_of_a_blob_has_its_status() {
    let session = drive("rehearse-blob");
    let name = "data/sub/cut";
    let cut = contents(CUT as u32, CUT);
    let whole = md5(&cut);
    let one = |damage: Damage, name: &str, status: &str, pieces: &[&str], code: i32| {
        let answer = Answer::of(&session, "drive.img");
        assert_eq!((answer.status(), answer.code), ("CompletedWithErrors", code), "{}", said(&answer.output));
        let blob = answer.blob(name);
        assert_eq!(blob["status"], status, "{blob}");
        let failed = blob["failed"].as_array().expect("pieces");
        let failed: Vec<&str> = failed.iter().map(|piece| piece["status"].as_str().expect("a status")).collect();
        assert_eq!(failed, pieces, "{blob}");
        let others = answer.blobs.iter().filter(|blob| blob["blob"] != name);
        assert!(others.clone().all(|blob| blob["status"] == "Completed"), "{:?}", others.collect::<Vec<_>>());
        let (_, text) = answer.log(&session, "_error.xml").expect("a log of errors");
        assert_eq!(text.matches("<Blob Status").count(), 1, "{text}");
        drop(damage);
        (answer.blob(name).clone(), text, answer.log(&session, "CopyLog").expect("a copy log").1)
    };
    // A file that is not there: everything of it is cancelled.
    let damage = Damage::manifest(&session, &[("\\sub\\cut</FilePath>", "\\sub\\cus</FilePath>")]);
    let (blob, text, copy) = one(damage, name, "FileNotFound", &["Cancelled"], 5);
    assert_eq!((&blob["disposition"], &blob["metadata"]), (&"Cancelled".into(), &"Cancelled".into()));
    assert!(text.contains("<Metadata Status=\"Cancelled\">"), "{text}");
    assert!(copy.contains("<Category>UploadErrorWin32<") && copy.contains("<ErrorCode>2<"), "{copy}");
    // A name that Windows cannot open.
    let damage = Damage::manifest(&session, &[("\\sub\\cut</FilePath>", "\\sub\\c:t</FilePath>")]);
    one(damage, name, "FileNameInvalid", &["Cancelled"], 5);
    // A file shorter than the manifest says, and a longer one.
    let (long, short) = (format!("Length=\"{}\"", CUT + 1), format!("Length=\"{}\"", CUT - 1));
    let (is, length) = (format!("Length=\"{CUT}\""), format!("<Length>{CUT}</Length>"));
    let edits = [(is.as_str(), long.as_str()), (length.as_str(), "<Length>300001</Length>")];
    let (_, _, copy) = one(Damage::manifest(&session, &edits), name, "CompletedWithErrors", &["FileUnexpectedEnd"], 5);
    assert!(copy.contains("<ErrorCode>38<"), "{copy}");
    let (start, other) = (md5(&cut[..CUT - 1]), format!("Hash=\"{whole}\""));
    let hash = format!("Hash=\"{start}\"");
    let edits =
        [(is.as_str(), short.as_str()), (length.as_str(), "<Length>299999</Length>"), (other.as_str(), hash.as_str())];
    let damage = Damage::manifest(&session, &edits);
    let answer = Answer::of(&session, "drive.img");
    // No status is documented for a longer file: the log says nothing, the verdict does.
    assert_eq!((answer.status(), answer.code), ("Completed", 5), "{}", said(&answer.output));
    assert!(answer.blob(name)["notes"][0].as_str().is_some_and(|note| note.contains("not documented")));
    drop(damage);
    // One bit of the second of three blocks.
    let many = contents(9 << 20, 9 << 20);
    let mut damage = Damage::new(&session);
    let opened = opened(&session);
    let at = places(&opened, &many[..64]);
    assert_eq!(at.len(), 1);
    damage.put(&opened, at[0] + (5 << 20), &[many[5 << 20] ^ 1]);
    let (_, text, copy) =
        one(damage, "data/sub/many", "CompletedWithErrors", &["Committed", "Corrupted", "Committed"], 5);
    assert!(text.contains("Status=\"Corrupted\""), "{text}");
    assert!(copy.contains("UploadErrorDataValidationError"), "{copy}");
    // A container that Azure refuses: the newer service gives it another name.
    let damage = Damage::manifest(&session, &[("<BlobPath>data/sub/cut<", "<BlobPath>Da_a/sub/cut<")]);
    let (_, _, copy) = one(damage, "Da_a/sub/cut", "BlobRequestFailed", &["Cancelled"], 5);
    assert!(copy.contains("ContainerRenamed") && copy.contains("<FilesErrored>0<"), "{copy}");
    // The rest of a blob: metadata of another content, and of no XML.
    let old = "<Metadata><Author>me</Author></Metadata>";
    for (new, keeps_hash, status, why) in [
        ("<Metadata><Author>Me</Author></Metadata>", true, "Corrupted", ""),
        ("<Metadata><Author>me</Autho></Metadata >", false, "XmlReadFailed", "metadata file"),
        ("<Metadata><A-thor>me</A-thor></Metadata>", false, "BlobRequestFailed", "metadata name"),
    ] {
        let (before, after) = (md5(old.as_bytes()), md5(new.as_bytes()));
        let mut damage = Damage::new(&session);
        damage.replace(&session, old, new);
        let hash = (format!("<MetadataPath Hash=\"{before}\""), format!("<MetadataPath Hash=\"{after}\""));
        let more = (!keeps_hash).then(|| Damage::manifest(&session, &[(&hash.0, &hash.1)]));
        let answer = Answer::of(&session, "drive.img");
        assert_eq!((answer.status(), answer.code), ("CompletedWithErrors", 5), "{}", said(&answer.output));
        let blob = answer.blob(name);
        assert_eq!((&blob["status"], &blob["metadata"]), (&"CompletedWithErrors".into(), &status.into()), "{blob}");
        assert!(blob["notes"].to_string().contains(why), "{blob}");
        assert_eq!(answer.blob("pages/disk")["status"], "Completed", "it has no metadata");
        // What verify says rests on the same answers.
        let output = session.dray("verify drive.img --key-file drive.xml");
        assert_eq!(code(&output), 5, "{}", said(&output));
        drop(more);
        drop(damage);
    }
    assert_eq!(Answer::of(&session, "drive.img").status(), "Completed", "everything is as it was");
}

#[test]
fn a_second_blob_of_one_name_goes_by_its_disposition() {
    let session = drive("rehearse-twice");
    // The blobs are in the order of the dataset: `pages/disk` is the last.
    for (other, became) in [("data/empty", "Overwritten"), ("pages/disk", "Skipped")] {
        let other = format!("<BlobPath>{other}<");
        let damage = Damage::manifest(&session, &[(&other, "<BlobPath>data/small<")]);
        let answer = Answer::of(&session, "drive.img");
        let all: Vec<&str> = answer.blobs.iter().filter_map(|blob| blob["disposition"].as_str()).collect();
        assert_eq!(all.iter().filter(|one| **one == became).count(), 1, "{other}: {all:?}");
        let (status, code) = if became == "Skipped" { ("CompletedWithWarnings", 3) } else { ("Completed", 0) };
        assert_eq!((answer.status(), answer.code), (status, code), "{}", said(&answer.output));
        drop(damage);
    }
}

#[test]
fn logs_are_not_written_over_or_onto_what_is_read() {
    let session = drive("rehearse-logs");
    let before = fs::read(session.path("drive.img")).expect("the image");
    let output = session.dray("rehearse drive.img --record drive.xml --logs drive.img");
    assert_eq!(code(&output), 2, "{}", said(&output));
    let output = session.dray("rehearse drive.img --record drive.xml --job No_name");
    assert_eq!(code(&output), 1, "{}", said(&output));
    assert!(before == fs::read(session.path("drive.img")).expect("the image"), "it is only read");
    assert!(!Path::new(&session.path("out")).exists());
}
