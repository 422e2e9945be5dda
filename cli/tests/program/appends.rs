//! Sessions that add to volumes: killed and then finished or rolled back, on drives made by dray, by Windows and by
//! others.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::common::fixtures::unpack;
use crate::common::{Session, code, key_in, words as said};
use dray_engine::api::inspect::find::View;
use dray_engine::api::inspect::{Key, Opened, find};
use dray_engine::units::VolumeOffset;
use dray_ntfs::read::Volume;
use dray_testdisks::judge;
use dray_testdisks::traced::Traced;

const HEAD: &str = "BasePath,DstItemPathOrPrefix,ItemType,Disposition,MetadataFile,PropertiesFile";

/// A source tree with files of these lengths, and its dataset `<name>.csv`.
pub(crate) fn data(session: &Session, name: &str, lens: &[usize]) {
    let dir = session.path(name);
    fs::create_dir_all(dir.join("deep/deeper")).expect("a directory");
    for (i, len) in lens.iter().enumerate() {
        let place = [dir.clone(), dir.join("deep"), dir.join("deep/deeper")][i % 3].clone();
        let bytes: Vec<u8> =
            (0..*len).map(|at| (at as u32).wrapping_mul(0x9E37_79B1).wrapping_add(i as u32).to_be_bytes()[0]).collect();
        fs::write(place.join(format!("{name} {i}.bin")), bytes).expect("a file");
    }
    let row = format!("\"{}/\",{name}/,BlockBlob,rename,None,None", dir.display());
    fs::write(session.path(&format!("{name}.csv")), format!("{HEAD}\n{row}\n")).expect("a dataset");
}

/// A driveset of one row.
pub(crate) fn driveset(session: &Session, row: &str) {
    let head = "DriveLetter,FormatOption,SilentOrPromptOnFormat,Encryption,ExistingBitLockerKey";
    fs::write(session.path("driveset.csv"), format!("{head}\n{row}\n")).expect("a driveset");
}

/// A drive made by dray with a first session on it.
pub(crate) fn first(session: &Session) {
    data(session, "first", &[0, 1, 5000, 70_000, 3 << 20]);
    data(session, "second", &[0, 1, 4096, 4097, 100_000, 9 << 20, (5 << 20) + 3]);
    driveset(session, "drive.img:100MB,Format,SilentMode,Encrypt,");
    session.works("PrepImport /j:J.jrn /id:session#1 /InitialDriveSet:driveset.csv /DataSet:first.csv --silent");
}

const SECOND: &str = "PrepImport /j:J.jrn /id:session#2 /DataSet:second.csv --silent --json --checkpoint-bytes 4194304";

/// Files of the directory itself.
fn beside_it(session: &Session) -> Vec<PathBuf> {
    let entries = fs::read_dir(&session.dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.is_file()).collect()
}

/// Files of the directory itself, to be restored.
pub(crate) fn keep(session: &Session) -> Vec<(PathBuf, Vec<u8>)> {
    beside_it(session).into_iter().map(|path| (path.clone(), fs::read(path).expect("a file"))).collect()
}

/// Calls `differs` for each piece of a file that is not what `bytes` says.
fn differing(file: &File, bytes: &[u8], mut differs: impl FnMut(u64, &[u8])) {
    const PIECE: usize = 64 << 10;
    let mut now = [0; PIECE];
    for (at, piece) in (0..).step_by(PIECE).zip(bytes.chunks(PIECE)) {
        file.read_exact_at(&mut now[..piece.len()], at).expect("a file");
        if now[..piece.len()] != *piece {
            differs(at, piece);
        }
    }
}

/// Whether a file has these bytes and no others.
pub(crate) fn holds(path: &Path, bytes: &[u8]) -> bool {
    let file = File::open(path).expect("a file");
    let mut same = file.metadata().expect("its length").len() == bytes.len() as u64;
    if same {
        differing(&file, bytes, |_, _| same = false);
    }
    same
}

/// Writes what differs alone: a drive is a hundred megabytes, and its next flush waits for all that is new.
pub(crate) fn bring_back(session: &Session, kept: &[(PathBuf, Vec<u8>)]) {
    for path in beside_it(session) {
        if !kept.iter().any(|(kept, _)| *kept == path) {
            fs::remove_file(path).expect("removed");
        }
    }
    for (path, bytes) in kept {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path).expect("a file");
        file.set_len(bytes.len() as u64).expect("its length");
        differing(&file, bytes, |at, piece| file.write_all_at(piece, at).expect("written"));
    }
}

/// Number of blobs that `dray verify` finds equal: all of them must be.
pub(crate) fn verified(session: &Session, image: &str, record: &str) -> usize {
    let output = session.dray(&format!("verify {image} --key-file {record} --json"));
    assert_eq!(code(&output), 0, "{}", said(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let equal = |line: &&str| line.contains("\"type\":\"blob\"") && line.contains("\"verdict\":\"equal\"");
    text.lines().filter(equal).count()
}

/// Everything on the device except free clusters of the volume in `before` must be unchanged in `after`.
fn same_but_free(before: &Path, after: &Path, key: &str) {
    let found = find::open(before, None).expect("a volume");
    let opened = found.unlock(&Key::read(key.as_bytes()).expect("a key"), &mut |_, _| {}).expect("unlocked");
    let mut view = View(&opened);
    let volume = Volume::open(&mut view, opened.len()).expect("NTFS");
    let bitmap = volume.open_file(&mut view, 6).expect("$Bitmap");
    let bits = volume.read_whole(&mut view, bitmap.data(&[]).expect("its data"), 64 << 20).expect("its bits");
    let cluster = volume.geometry().cluster.bytes();
    let (one, other) = (fs::read(before).expect("an image"), fs::read(after).expect("an image"));
    assert_eq!(one.len(), other.len());
    let mut free = vec![false; one.len() / 512];
    for lcn in 0..volume.geometry().clusters {
        if bits[(lcn / 8) as usize] >> (lcn % 8) & 1 == 0 {
            let at = opened.device_offset(VolumeOffset(lcn * cluster)).0 / 512;
            free[at as usize..(at + cluster / 512) as usize].fill(true);
        }
    }
    assert!(free.iter().any(|free| *free) && !free.iter().all(|free| *free));
    for (i, (one, other)) in one.chunks(512).zip(other.chunks(512)).enumerate() {
        assert!(one == other || free[i], "sector {i} is not what it was");
    }
}

/// Kills a session at the given moments, and has each finished and rolled back.
fn killed(session: &Session, moments: &[Moment], words: &str, files: (usize, usize)) {
    let base = keep(session);
    let image = session.path("drive.img");
    let before = session.path("before");
    fs::create_dir(&before).expect("a directory");
    fs::copy(&image, before.join("drive.img")).expect("a copy");
    for moment in moments {
        bring_back(session, &base);
        let command = session.program(words);
        let mut run = match Traced::start(&command, &session.dir) {
            Ok(run) => run,
            Err(error) => return eprintln!("SKIPPED judge: a program cannot be traced here: {error}"),
        };
        let mut calls = 0;
        let reached = run.until(|now| {
            let stage = |stage: &str| now.said.contains(&format!("\"stage\":\"{stage}\""));
            calls += usize::from(now.is_write() && stage(moment.0));
            calls > moment.1
        });
        assert!(reached.expect("the trace goes on"), "{moment:?} never came: {}", run.finish().expect("it ends").said);
        run.kill().expect("killed");
        let left = keep(session);
        session.works("PrepImport /j:J.jrn /id:session#2 /ResumeSession --silent");
        assert_eq!(verified(session, "drive.img", "drive.xml"), files.1, "finished after {moment:?}");
        let finished = fs::read(&image).expect("an image");
        bring_back(session, &left);
        session.works("PrepImport /j:J.jrn /id:session#2 /AbortSession --silent");
        if files.0 > 0 {
            same_but_free(&before.join("drive.img"), &image, &key_in(&session.path("drive.xml")));
            assert_eq!(verified(session, "drive.img", "drive.xml"), files.0, "taken back after {moment:?}");
        } else {
            // It was unencrypted, and is so again: any key is accepted, and its own is gone.
            same_but_free(&before.join("drive.img"), &image, WINDOWS_KEY);
            assert!(!session.path("drive.xml").exists(), "{moment:?}");
        }
        // Both ways again, from the same state: the same bytes.
        bring_back(session, &left);
        session.works("PrepImport /j:J.jrn /id:session#2 /ResumeSession --silent --engine sync");
        assert!(holds(&image, &finished), "{moment:?}: finished in another way");
        let beside = beside_it(session);
        let sidecars = beside.iter().filter(|path| path.to_string_lossy().contains("J.jrn."));
        assert_eq!(sidecars.count(), 0, "{beside:?}");
    }
    bring_back(session, &base);
}

/// A stage, and the number of writing or flushing calls in it before the kill.
type Moment = (&'static str, usize);

#[test]
fn judge_a_second_session_that_is_killed_is_finished_or_taken_back() {
    let session = Session::new("second-killed");
    first(&session);
    let moments = [("data", 3), ("data", 14), ("metadata", 2), ("finishing", 1), ("finishing", 5), ("read-back", 0)];
    killed(&session, &moments, SECOND, (5, 12));
    session.works(SECOND);
    let (image, record) = (session.path("drive.img"), session.path("drive.xml"));
    judge::drive(&image, &record, None, true).expect_pass("scripts/judge-drive");
}

#[test]
fn judge_content_md5_on_a_volume_that_is_kept() {
    let session = Session::new("second-md5");
    first(&session);
    let moments = [("data", 3), ("data", 12), ("finishing", 1)];
    let words = format!("{SECOND} --content-md5 --read-back full");
    killed(&session, &moments, &words, (5, 12));
    session.works(&words);
    let (image, record) = (session.path("drive.img"), session.path("drive.xml"));
    judge::drive(&image, &record, None, true).expect_pass("scripts/judge-drive");

    let mut seen = 0;
    with_driver(&image, &key_in(&record), &session.dir, "ro", |volume| {
        let manifest = fs::read_to_string(volume.join("DriveManifest.xml")).expect("a manifest");
        let list = manifest.split_once("<BlobList Id=\"session#2-0\">").expect("a list").1;
        for blob in list.split("<Blob>").skip(1) {
            let text = |from: &str| blob.split_once(from).and_then(|(_, rest)| rest.split_once('<')).expect("text").0;
            let on_volume = |path: &str| volume.join(path.trim_start_matches('\\').replace('\\', "/"));
            let (_, properties) = blob.split_once("<PropertiesPath").expect("a properties file");
            let properties = properties.split_once('>').and_then(|(_, rest)| rest.split_once('<')).expect("text").0;
            let told = fs::read_to_string(on_volume(properties)).expect("a properties file");
            let sum = Command::new("openssl").args(["md5", "-binary"]).arg(on_volume(text("<FilePath>"))).output();
            let sum = dray_hash::base64(&sum.expect("openssl runs").stdout);
            assert!(told.contains(&format!("<Content-MD5>{sum}</Content-MD5>")), "{properties}: {told}, not {sum}");
            seen += 1;
        }
    });
    assert!(seen == 7 || seen == 0, "{seen} of 7 blobs");
}

/// Opens an image of a volume with its key.
fn opened(image: &Path, key: &str) -> Opened {
    let found = find::open(image, None).expect("a volume");
    found.unlock(&Key::read(key.as_bytes()).expect("a key"), &mut |_, _| {}).expect("unlocked")
}

/// The unlocked volume as a file.
fn plain_of(image: &Path, key: &str, plain: &Path) {
    let opened = opened(image, key);
    let file = File::create(plain).expect("a file");
    file.set_len(opened.len().0).expect("room");
    let mut piece = vec![0; 1 << 20];
    for at in (0..opened.len().0).step_by(1 << 20) {
        let n = (opened.len().0 - at).min(1 << 20) as usize;
        opened.read(VolumeOffset(at), &mut piece[..n]).expect("a volume");
        file.write_all_at(&piece[..n], at).expect("room");
    }
}

/// Writes changes made by another driver in the unlocked volume back into the image.
fn sealed_again(image: &Path, key: &str, plain: &Path) {
    let opened = opened(image, key);
    let (plain, out) = (File::open(plain).expect("a file"), File::options().write(true).open(image).expect("an image"));
    let (mut now, mut new) = ([0; 4096], [0; 4096]);
    for at in (0..opened.len().0).step_by(4096) {
        let n = (opened.len().0 - at).min(4096) as usize;
        opened.read(VolumeOffset(at), &mut now[..n]).expect("a volume");
        plain.read_exact_at(&mut new[..n], at).expect("a volume");
        if now[..n] != new[..n] {
            for (place, bytes) in opened.seal(VolumeOffset(at), &new[..n]).expect("a place for it") {
                out.write_all_at(&bytes, place.0).expect("written");
            }
        }
    }
}

/// Lets another file system driver act on the unlocked volume; `false`, with a message, where it is missing.
fn with_driver(image: &Path, key: &str, scratch: &Path, options: &str, act: impl FnOnce(&Path)) -> bool {
    let (plain, at) = (scratch.join("driver.plain"), scratch.join("driver.mount"));
    plain_of(image, key, &plain);
    fs::create_dir_all(&at).expect("a directory");
    let mounted = Command::new("ntfs-3g").args(["-o", options]).arg(&plain).arg(&at).output();
    match mounted {
        Ok(output) if output.status.success() => {}
        other => {
            eprintln!("SKIPPED judge: ntfs-3g: {other:?}");
            return false;
        }
    }
    act(&at);
    let unmounted = Command::new("umount").arg(&at).status().expect("umount runs");
    assert!(unmounted.success(), "ntfs-3g lets go");
    sealed_again(image, key, &plain);
    fs::remove_file(plain).expect("removed");
    true
}

/// External judges on the unlocked volume.
fn judged(image: &Path, key: &str, scratch: &Path) {
    let plain = scratch.join("judged.plain");
    plain_of(image, key, &plain);
    for name in ["ntfsfix", "ntfsinfo", "fsstat"] {
        judge::ask(name, &[&plain]).expect_pass(name);
    }
    judge::ask("manifest", &[&plain, &scratch.join("drive.xml")]).expect_pass("manifest");
    fs::remove_file(plain).expect("removed");
}

/// A bare volume on a drive with a partition table; `false`, with a message, where that cannot be made.
fn on_a_drive(volume: &Path, image: &Path) -> bool {
    let bytes = fs::read(volume).expect("a volume");
    let out = File::create(image).expect("an image");
    out.set_len(bytes.len() as u64 + (2 << 20)).expect("room");
    out.write_all_at(&bytes, 1 << 20).expect("room");
    let script =
        format!("label: gpt\nstart=2048, size={}, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7\n", bytes.len() / 512);
    let made = Command::new("sfdisk").arg("-q").arg(image).stdin(Stdio::piped()).spawn().and_then(|mut made| {
        made.stdin.take().expect("its input").write_all(script.as_bytes())?;
        made.wait()
    });
    let is_made = made.as_ref().is_ok_and(|status| status.success());
    if !is_made {
        eprintln!("SKIPPED judge: sfdisk: {made:?}");
    }
    is_made
}

const WINDOWS: &str = "bitlocker/win-server2019-xts128-ntfs-full.img.xz";
const WINDOWS_KEY: &str = "272316-265804-640728-713570-509047-503305-045837-324731";

#[test]
fn judge_files_are_added_to_a_volume_that_windows_made() {
    let session = Session::new("windows-append");
    data(&session, "first", &[0, 1, 5000, 70_000, 3 << 20]);
    data(&session, "second", &[0, 1, 4096, 4097, 100_000, 2 << 20]);
    let Some(packed) = unpack("windows-append-fixture", WINDOWS) else { return };
    let image = session.path("drive.img");
    if !on_a_drive(&packed.0, &image) {
        return;
    }
    driveset(&session, &format!("drive.img,AlreadyFormatted,SilentMode,AlreadyEncrypted,{WINDOWS_KEY}"));
    let first = "PrepImport /j:J.jrn /id:session#1 /InitialDriveSet:driveset.csv /DataSet:first.csv --silent";
    // As Windows left it, its log is open: refused, untouched.
    let before = fs::read(&image).expect("an image");
    let refused = session.dray(first);
    assert!(refused.status.code() == Some(2) && said(&refused).contains("was not closed"), "{}", said(&refused));
    assert!(before == fs::read(&image).expect("an image") && !session.path("J.jrn").exists());
    // ntfsfix empties the log and takes the dirty mark away.
    let plain = session.path("plain");
    plain_of(&image, WINDOWS_KEY, &plain);
    match Command::new("ntfsfix").arg("-d").arg(&plain).output() {
        Ok(output) if output.status.success() => sealed_again(&image, WINDOWS_KEY, &plain),
        other => return eprintln!("SKIPPED judge: ntfsfix: {other:?}"),
    }
    fs::remove_file(&plain).expect("removed");
    fs::write(session.path("key.txt"), format!("{WINDOWS_KEY}\r\n")).expect("a key");
    let by_key_file =
        "PrepImport /j:J.jrn /id:session#1 /t:drive.img /bk:@key.txt /srcdir:first /dstdir:first/ /silentmode";
    session.works(by_key_file);
    assert_eq!(verified(&session, "drive.img", "drive.xml"), 5);
    session.works(SECOND);
    assert_eq!(verified(&session, "drive.img", "drive.xml"), 11);
    judged(&image, WINDOWS_KEY, &session.dir);
    for (path, hash) in [
        ("test-file-1.txt", "3ceb5c413ee02895bf1f357a8c2cc2bec824f4d8aad13aeab69303f341c8b781"),
        ("test-folder/test-file-2.txt", "26fdc315fadc05db9f8f3236fc30b9f0ca044e56ec1e9450ccd5fdab900e9e46"),
    ] {
        let ours = session.dray(&format!("cat drive.img {path} --key-file drive.xml"));
        assert_eq!(code(&ours), 0, "{}", said(&ours));
        let digest = dray_hash::sha256(&ours.stdout);
        assert_eq!(digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), hash, "{path}");
    }
}

#[test]
fn judge_volumes_that_must_not_be_added_to_are_refused_untouched() {
    let session = Session::new("append-refused");
    first(&session);
    data(&session, "large", &[90 << 20]);
    let base = keep(&session);
    let (image, key) = (session.path("drive.img"), key_in(&session.path("drive.xml")));
    let refused = |words: &str, what: &str| {
        let before = keep(&session);
        let output = session.dray(words);
        assert!(
            matches!(output.status.code(), Some(1 | 2)) && said(&output).contains(what),
            "{what}: {}",
            said(&output)
        );
        assert_eq!(before.len(), beside_it(&session).len(), "{what}");
        for (path, before) in &before {
            assert!(holds(path, before), "{what}: {} has changed", path.display());
        }
    };
    refused("PrepImport /j:J.jrn /id:session#2 /DataSet:large.csv --silent", "is too small by");
    // Another driver sees the files, and others that it adds stay as they are.
    let theirs = vec![0x5A; 300_000];
    let mut is_there = with_driver(&image, &key, &session.dir, "rw", |root| {
        assert_eq!(fs::read_dir(root.join("session#1/first")).expect("a directory").count(), 3);
        fs::write(root.join("theirs.bin"), &theirs).expect("room");
    });
    if is_there {
        session.works(SECOND);
        assert_eq!(verified(&session, "drive.img", "drive.xml"), 12);
        assert!(session.dray("cat drive.img theirs.bin --key-file drive.xml").stdout == theirs);
        judged(&image, &key, &session.dir);
        bring_back(&session, &base);
        is_there = with_driver(&image, &key, &session.dir, "rw", |root| {
            let mut hibernated = vec![0; 8192];
            hibernated[..4].copy_from_slice(b"hibr");
            fs::write(root.join("hiberfil.sys"), hibernated).expect("room");
        });
    }
    if is_there {
        refused(SECOND, "hibernated");
        bring_back(&session, &base);
    }
    // ntfsfix marks the volume for chkdsk.
    let plain = session.path("plain");
    plain_of(&image, &key, &plain);
    match Command::new("ntfsfix").arg(&plain).output() {
        Ok(output) if output.status.success() => {
            sealed_again(&image, &key, &plain);
            fs::remove_file(&plain).expect("removed");
            refused(SECOND, "dirty");
        }
        other => eprintln!("SKIPPED judge: ntfsfix: {other:?}"),
    }
    bring_back(&session, &base);
    driveset(&session, "drive.img,AlreadyFormatted,SilentMode,Encrypt,");
    let line = "PrepImport /j:K.jrn /id:session#1 /InitialDriveSet:driveset.csv /DataSet:second.csv --silent";
    refused(line, "holds a BitLocker volume already");
    driveset(&session, &format!("drive.img,AlreadyFormatted,SilentMode,AlreadyEncrypted,{WINDOWS_KEY}"));
    refused(line, "key");
}

/// A drive with a plain volume of `mib` MiB made and filled by other programs; `false`, with a message, where they are
/// missing.
pub(crate) fn plain_drive(session: &Session, mib: u64, lens: &[usize]) -> bool {
    let volume = session.path("volume.plain");
    File::create(&volume).expect("a file").set_len(mib << 20).expect("room");
    let made = Command::new("mkntfs").args(["-F", "-q", "-L", "theirs", "-p", "2048"]).arg(&volume).output();
    if !made.as_ref().is_ok_and(|made| made.status.success()) {
        eprintln!("SKIPPED judge: mkntfs: {made:?}");
        return false;
    }
    let at = session.path("driver.mount");
    fs::create_dir_all(&at).expect("a directory");
    let mounted = Command::new("ntfs-3g").arg(&volume).arg(&at).output();
    if !mounted.as_ref().is_ok_and(|mounted| mounted.status.success()) {
        eprintln!("SKIPPED judge: ntfs-3g: {mounted:?}");
        return false;
    }
    data(session, "theirs", lens);
    let copied = Command::new("cp").arg("-r").arg(session.path("theirs")).arg(&at).status().expect("cp runs");
    assert!(Command::new("umount").arg(&at).status().expect("umount runs").success() && copied.success());
    let is_there = on_a_drive(&volume, &session.path("drive.img"));
    fs::remove_file(volume).expect("removed");
    is_there
}

/// The files of [`plain_drive`] are readable by another driver under BitLocker.
fn theirs_are_there(session: &Session) {
    let key = key_in(&session.path("drive.xml"));
    with_driver(&session.path("drive.img"), &key, &session.dir, "ro", |root| {
        let same = Command::new("diff").arg("-r").arg(session.path("theirs")).arg(root.join("theirs")).output();
        let same = same.expect("diff runs");
        assert!(same.status.success(), "{}", said(&same));
    });
}

/// External judges on a drive that was partitioned by other programs.
fn unlocked_by_others(session: &Session) {
    let (image, key) = (session.path("drive.img"), key_in(&session.path("drive.xml")));
    judge::sfdisk(&image).expect_pass("sfdisk");
    judge::cryptsetup(&image, &key, judge::Cryptsetup::Installed).expect_pass("cryptsetup");
    judge::cryptsetup(&image, &key, judge::Cryptsetup::Newer).expect_pass("cryptsetup, strict");
    let plain = session.path("libbde.plain");
    judge::decrypt(&image, &key, &plain).expect_pass("libbde");
    judge::dissect(&image, &key, &plain, 200).expect_pass("dissect.fve");
    fs::remove_file(plain).expect("removed");
    judged(&image, &key, &session.dir);
    theirs_are_there(session);
}

const IN_PLACE: &str = "PrepImport /j:J.jrn /id:session#2 /InitialDriveSet:driveset.csv /DataSet:second.csv --silent \
                        --yes drive --json --checkpoint-bytes 4194304";

#[test]
fn judge_a_plain_volume_is_encrypted_in_place_and_added_to() {
    let session = Session::new("in-place");
    if !plain_drive(&session, 160, &[0, 1, 700, 5000, 70_000, 30 << 20, 40 << 20, 3]) {
        return;
    }
    data(&session, "second", &[0, 1, 4096, 4097, 100_000, 9 << 20, (5 << 20) + 3]);
    driveset(&session, "drive.img,AlreadyFormatted,SilentMode,Encrypt,");
    let before = keep(&session);
    // The plan states it, no question comes before, and nothing is written without consent.
    let planned =
        session.works("plan --journal J.jrn --id session#2 --initial-driveset driveset.csv --dataset second.csv");
    assert!(planned.contains("of the volume on it, in place"), "{planned}");
    let refused = session.dray(&IN_PLACE.replace("--yes drive", ""));
    assert!(said(&refused).contains("encrypting its volume in place"), "{}", said(&refused));
    let refused = session.dray("PrepImport /j:K.jrn /id:session1 /t:drive.img /encrypt /srcdir:/theirs /dstdir:theirs/ /blobtype:BlockBlob /skipwrite",
    );
    assert!(said(&refused).contains("indexing does not encrypt"), "{}", said(&refused));
    assert!(before == keep(&session), "nothing was written");

    let moments =
        [("encrypting", 3), ("encrypting", 30), ("encrypting", 60), ("data", 3), ("finishing", 2), ("read-back", 0)];
    killed(&session, &moments, IN_PLACE, (0, 7));
    let said = session.works(IN_PLACE);
    assert!(said.contains("\"stage\":\"encrypting\""), "{said}");
    assert_eq!(verified(&session, "drive.img", "drive.xml"), 7);
    unlocked_by_others(&session);
    // It is a drive like any other now.
    data(&session, "third", &[1, 2, 300_000]);
    session.works("PrepImport /j:J.jrn /id:session#3 /DataSet:third.csv --silent");
    assert_eq!(verified(&session, "drive.img", "drive.xml"), 10);
    theirs_are_there(&session);
}

#[test]
fn judge_the_first_generation_form_encrypts_in_place() {
    let session = Session::new("in-place-first");
    if !plain_drive(&session, 64, &[5, 700_000, 0]) {
        return;
    }
    data(&session, "second", &[1, 70_000, 5 << 20]);
    let words = "PrepImport /j:J.jrn /id:session#1 /t:drive.img /encrypt /srcdir:second /dstdir:second/ \
                 /blobtype:BlockBlob /silentmode --yes drive --cipher xts-aes-256 --wipe-free";
    let said = session.works(words);
    // Tables and what lies outside the one partition are the owner's: named, not wiped.
    assert!(said.contains("outside the volume not overwritten"), "{said}");
    assert_eq!(verified(&session, "drive.img", "drive.xml"), 3);
    unlocked_by_others(&session);
}

#[test]
fn judge_what_lies_on_a_plain_volume_is_encrypted_and_then_indexed() {
    let session = Session::new("in-place-index");
    if !plain_drive(&session, 64, &[5, 700_000, 0, 1 << 20]) {
        return;
    }
    driveset(&session, "drive.img,AlreadyFormatted,SilentMode,Encrypt,");
    session.works("prep-import --journal J.jrn --id empty1 --additional-driveset driveset.csv --silent --yes drive");
    fs::write(session.path("key.txt"), key_in(&session.path("drive.xml"))).expect("a key");
    session.works("PrepImport /j:K.jrn /id:session1 /t:drive.img /bk:@key.txt /srcdir:/theirs /dstdir:theirs/ /blobtype:BlockBlob /skipwrite",
    );
    assert_eq!(verified(&session, "drive.img", "drive.xml"), 4);
    theirs_are_there(&session);
}

#[test]
fn judge_data_that_lie_on_the_drive_are_indexed() {
    let session = Session::new("index");
    first(&session);
    let (image, key) = (session.path("drive.img"), key_in(&session.path("drive.xml")));
    // Another driver copies a person's files onto the drive; one name is none that Azure can take.
    let disk: Vec<u8> =
        (0..5u32 << 20).map(|at| if at % (1 << 20) < 300_000 { (at / 512) as u8 | 1 } else { 0 }).collect();
    let is_there = with_driver(&image, &key, &session.dir, "rw", |root| {
        for (path, bytes) in [
            ("photos/wild/lion.jpg", vec![7; 100_001]),
            ("photos/empty.jpg", Vec::new()),
            ("photos/tiny.jpg", vec![1, 2, 3]),
            ("films/long.mp4", (0..9u32 << 20).map(|at| (at / 4099) as u8).collect()),
            ("disks/one.vhd", disk.clone()),
            ("bad/ends in a dot/name\u{1}.txt", vec![1]),
            ("odd/Case", vec![1]),
            ("odd/case", vec![2]),
            ("odd/trailing.", vec![3]),
            ("odd/a:b", vec![4]),
            ("odd/con.txt", vec![5]),
            ("odd/dir./x", vec![6]),
            ("odd/fine", vec![7]),
            ("folds/e\u{301}", vec![8]),
            ("folds/é", vec![9]),
            ("cloud/away.jpg", vec![0; 3000]),
        ] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            fs::write(path, bytes).expect("room");
        }
        // IO_REPARSE_TAG_CLOUD, four bytes of data: OneDrive's placeholder for a file stored elsewhere.
        let tag = [0x9000_001A_u32.to_le_bytes(), [4, 0, 0, 0], [1, 2, 3, 4]].concat();
        let (path, flags) = (root.join("cloud/away.jpg"), rustix::fs::XattrFlags::empty());
        rustix::fs::setxattr(path, "system.ntfs_reparse_data", &tag, flags).expect("a placeholder");
    });
    if !is_there {
        return;
    }
    fs::write(session.path("key.txt"), &key).expect("a key");
    let run = |source: &str, target: &str| {
        format!(
            "PrepImport /j:K.jrn /id:session1 /t:drive.img /bk:@key.txt /srcdir:{source} /dstdir:{target} /blobtype:BlockBlob /skipwrite"
        )
    };
    let before = keep(&session);
    let refused = session.dray(&run("/bad", "bad/"));
    assert!(refused.status.code() == Some(1) && said(&refused).contains("cannot name this blob"), "{}", said(&refused));
    assert!(said(&session.dray(&run("/nowhere", "bad/"))).contains("is not on the volume"));
    // Files that Windows would open under another name, or not at all; each is reported, and nothing is indexed.
    let flat = |output: &Output| said(output).split_whitespace().collect::<Vec<_>>().join(" ");
    let odd = session.dray(&run("/odd", "odd/"));
    assert_eq!(odd.status.code(), Some(1), "{}", said(&odd));
    for (path, why) in [
        ("/odd/Case", "to Windows its name and case are one name"),
        ("/odd/case", "to Windows its name and Case are one name"),
        ("/odd/trailing.", "ends in a dot or a blank, which Windows drops"),
        ("/odd/a:b", "the name has ':', which no Windows name may have"),
        ("/odd/con.txt", "the name is a device to Windows"),
        ("/odd/dir.", "ends in a dot or a blank, which Windows drops; nothing below it can be opened"),
    ] {
        assert!(flat(&odd).contains(&format!("{why} (found: {path})")), "{path}: {}", said(&odd));
    }
    assert!(!said(&odd).contains("/odd/fine"), "{}", said(&odd));
    assert!(flat(&session.dray(&run("/odd/dir.", "odd/"))).contains("ends in a dot"));
    // A file that cannot be read is an error, not a note.
    let away = session.dray(&run("/cloud", "cloud/"));
    assert_eq!(away.status.code(), Some(7), "{}", said(&away));
    let told = "a placeholder of a cloud (OneDrive): its contents are elsewhere (found: /cloud/away.jpg)";
    assert!(flat(&away).contains(told), "{}", said(&away));
    let folds = flat(&session.dray(&format!("{} --dry-run", run("/folds", "folds/"))));
    assert!(folds.contains("may take two blobs for one") && folds.contains("U+00E9"), "{folds}");
    assert!(before == keep(&session), "nothing was written");
    // As documented: once for each directory, under one id, each with its own spelling of the drive.
    let words = session.works(&run("drive.img/photos", "pictures/mine/"));
    assert!(words.contains("3 files"), "{words}");
    session.works(&run("/films", "films/"));
    assert_eq!(verified(&session, "drive.img", "drive.xml"), 5 + 4);
    fs::write(
        session.path("index.csv"),
        format!("{HEAD}\n/disks/one.vhd,disks/first.vhd,PageBlob,overwrite,None,None\n"),
    )
    .expect("a dataset");
    let modern = "prep-import --journal K.jrn --id session1 --skip-write --dataset index.csv --silent";
    // Killed in the middle, and resumed.
    let mut command = session.program(modern);
    command.arg("--json");
    if let Ok(mut run) = Traced::start(&command, &session.dir) {
        let reached = run.until(|now| now.is_write() && now.said.contains("\"stage\":\"finishing\""));
        assert!(reached.expect("the trace goes on"));
        run.kill().expect("killed");
        session.works("prep-import --journal K.jrn --id session1 --resume --silent");
    } else {
        eprintln!("SKIPPED judge: a program cannot be traced here");
        session.works(modern);
    }
    assert_eq!(verified(&session, "drive.img", "drive.xml"), 5 + 5);
    judged(&image, &key, &session.dir);
    let manifest = session.dray("cat drive.img DriveManifest.xml --key-file drive.xml");
    let manifest = String::from_utf8(manifest.stdout).expect("UTF-8");
    for list in ["session#1-0", "session1-0", "session1-1", "session1-2"] {
        assert_eq!(manifest.matches(&format!("<BlobList Id=\"{list}\">")).count(), 1, "{list}: {manifest}");
    }
    assert!(manifest.contains("<FilePath>\\photos\\wild\\lion.jpg</FilePath>"), "{manifest}");
    assert_eq!(manifest.matches("<PageRange ").count(), 5, "only what is not zero");
}

/// A file system in a file, mounted; unmounted on drop.
struct Mounted(PathBuf);

impl Mounted {
    fn new(image: &Path, at: PathBuf) -> Option<Self> {
        fs::create_dir_all(&at).expect("a directory");
        let mounted = Command::new("mount").args(["-o", "loop"]).arg(image).arg(&at).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(at))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_source_that_goes_away_while_its_files_are_added_ends_the_session() {
    let session = Session::new("append-source-away");
    first(&session);
    let (image, at) = (session.path("source.img"), session.path("away"));
    File::create(&image).and_then(|file| file.set_len(64 << 20)).expect("an image");
    let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image).status();
    let mounted = made.is_ok_and(|status| status.success()).then(|| Mounted::new(&image, at.clone())).flatten();
    let Some(mounted) = mounted else { return eprintln!("SKIPPED judge: no file system can be mounted here") };
    data(&session, "away", &[200_000; 100]);
    let words = "prep-import --journal J.jrn --id session#2 --dataset away.csv --silent --json --source-rate 4M";
    let mut run = session.program(words).stdout(Stdio::piped()).spawn().expect("the binary runs");
    let mut reported = BufReader::new(run.stdout.take().expect("stdout")).lines().map_while(Result::ok);
    // The part read before the rate limit took effect is not everything.
    assert!(reported.any(|line| line.contains("\"type\":\"progress\"") && !line.contains("\"acknowledged\":0,")));
    drop(mounted);
    let rest: Vec<String> = reported.collect();
    assert_eq!(run.wait().expect("an end").code(), Some(7), "{rest:#?}");
    assert!(rest.iter().any(|line| line.contains("the source went away")), "{rest:#?}");

    let _mounted = Mounted::new(&image, at).expect("the file system is back");
    session.works("prep-import --journal J.jrn --id session#2 --resume --silent");
    assert_eq!(verified(&session, "drive.img", "drive.xml"), 5 + 100);
}
