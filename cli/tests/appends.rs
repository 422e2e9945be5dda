//! Sessions that add to volumes: killed and finished or taken back, on drives of ours, of Windows, of others.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::Session;
use dray_engine::job::{Key, find};
use dray_engine::ntfs::read::Volume;
use dray_engine::units::ByteOffset;
use dray_engine::verify::find::View;
use dray_testdisks::judge;
use dray_testdisks::traced::Traced;

/// `dray` in the session's directory, as a script has it.
fn dray(session: &Session, words: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dray"))
        .args(words.split_whitespace())
        .current_dir(&session.dir)
        .stdin(std::process::Stdio::null())
        .output()
        .expect("the binary runs")
}

/// What it said, in one line: paragraphs are wrapped.
fn said(output: &Output) -> String {
    common::said(output).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn works(session: &Session, words: &str) -> String {
    let output = dray(session, words);
    assert_eq!(output.status.code(), Some(0), "{words}: {}", said(&output));
    said(&output)
}

const HEAD: &str = "BasePath,DstItemPathOrPrefix,ItemType,Disposition,MetadataFile,PropertiesFile";

/// A source tree with files of these lengths, and its dataset `<name>.csv`.
fn data(session: &Session, name: &str, lens: &[usize]) {
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
fn driveset(session: &Session, row: &str) {
    let head = "DriveLetter,FormatOption,SilentOrPromptOnFormat,Encryption,ExistingBitLockerKey";
    fs::write(session.path("driveset.csv"), format!("{head}\n{row}\n")).expect("a driveset");
}

/// A drive of ours with a first session on it.
fn first(session: &Session) {
    data(session, "first", &[0, 1, 5000, 70_000, 3 << 20]);
    data(session, "second", &[0, 1, 4096, 4097, 100_000, 9 << 20, (5 << 20) + 3]);
    driveset(session, "drive.img:100MB,Format,SilentMode,Encrypt,");
    works(session, "PrepImport /j:J.jrn /id:session#1 /InitialDriveSet:driveset.csv /DataSet:first.csv --silent");
}

const SECOND: &str = "PrepImport /j:J.jrn /id:session#2 /DataSet:second.csv --silent --json --checkpoint-bytes 4194304";

/// Files of the directory itself, to be brought back.
fn keep(session: &Session) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(&session.dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.is_file()).map(|path| (path.clone(), fs::read(path).expect("a file"))).collect()
}

fn bring_back(session: &Session, kept: &[(PathBuf, Vec<u8>)]) {
    for (path, _) in keep(session) {
        fs::remove_file(path).expect("removed");
    }
    for (path, bytes) in kept {
        fs::write(path, bytes).expect("written");
    }
}

/// Blobs that `dray verify` finds equal: all of them must be.
fn verified(session: &Session, image: &str, record: &str) -> usize {
    let output = dray(session, &format!("verify {image} --key-file {record} --json"));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let equal = |line: &&str| line.contains("\"type\":\"blob\"") && line.contains("\"verdict\":\"equal\"");
    text.lines().filter(equal).count()
}

/// Everything on the device that is no free cluster of the volume in `before` must be in `after` as it was.
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
            let at = opened.device_offset(ByteOffset(lcn * cluster)).0 / 512;
            free[at as usize..(at + cluster / 512) as usize].fill(true);
        }
    }
    assert!(free.iter().any(|free| *free) && !free.iter().all(|free| *free));
    for (i, (one, other)) in one.chunks(512).zip(other.chunks(512)).enumerate() {
        assert!(one == other || free[i], "sector {i} is not what it was");
    }
}

/// Kills a session at the given moments, and has each finished and taken back.
fn killed(session: &Session, moments: &[Moment], words: &str, files: (usize, usize)) {
    let base = keep(session);
    let image = session.path("drive.img");
    let before = session.path("before");
    fs::create_dir(&before).expect("a directory");
    fs::copy(&image, before.join("drive.img")).expect("a copy");
    for moment in moments {
        bring_back(session, &base);
        let mut command = Command::new(env!("CARGO_BIN_EXE_dray"));
        command.args(words.split_whitespace()).current_dir(&session.dir);
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
        works(session, "PrepImport /j:J.jrn /id:session#2 /ResumeSession --silent");
        assert_eq!(verified(session, "drive.img", "drive.xml"), files.1, "finished after {moment:?}");
        let finished = fs::read(&image).expect("an image");
        bring_back(session, &left);
        works(session, "PrepImport /j:J.jrn /id:session#2 /AbortSession --silent");
        same_but_free(&before.join("drive.img"), &image, &common::key_in(&session.path("drive.xml")));
        assert_eq!(verified(session, "drive.img", "drive.xml"), files.0, "taken back after {moment:?}");
        // Both roads again, from the same place: the same bytes.
        bring_back(session, &left);
        works(session, "PrepImport /j:J.jrn /id:session#2 /ResumeSession --silent --engine sync");
        assert!(finished == fs::read(&image).expect("an image"), "{moment:?}: finished in another way");
        let beside: Vec<PathBuf> = keep(session).into_iter().map(|(path, _)| path).collect();
        let sidecars = beside.iter().filter(|path| path.to_string_lossy().contains("J.jrn."));
        assert_eq!(sidecars.count(), 0, "{beside:?}");
    }
    bring_back(session, &base);
}

/// A stage, and how many calls that write or flush come in it before the kill.
type Moment = (&'static str, usize);

#[test]
fn judge_a_second_session_that_is_killed_is_finished_or_taken_back() {
    let session = Session::new("second-killed");
    first(&session);
    let moments = [("data", 3), ("data", 14), ("metadata", 2), ("finishing", 1), ("finishing", 5), ("read-back", 0)];
    killed(&session, &moments, SECOND, (5, 12));
    works(&session, SECOND);
    let (image, record) = (session.path("drive.img"), session.path("drive.xml"));
    judge::drive(&image, &record, None, true).expect_pass("scripts/judge-drive");
}
