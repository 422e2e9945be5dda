//! Files next to the journal during a session, and changed sources when it is resumed.

use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::appends::{bring_back, data, driveset, first, holds, keep, plain_drive, verified};
use crate::common::{Session, code, words as said};
use dray_testdisks::traced::Traced;

/// Runs a session until it reports a stage and then makes this many writing or flushing calls, and kills it.
fn killed(session: &Session, line: &str, stage: &str, calls: usize) -> bool {
    let mut run = match Traced::start(&session.program(line), &session.dir) {
        Ok(run) => run,
        Err(error) => {
            eprintln!("SKIPPED judge: a program cannot be traced here: {error}");
            return false;
        }
    };
    let (stage, mut met) = (format!("\"stage\":\"{stage}\""), 0);
    let reached = run.until(|now| {
        met += usize::from(now.is_write() && now.said.contains(&stage));
        met > calls
    });
    assert!(reached.expect("the trace goes on"), "never came: {}", run.finish().expect("it ends").said);
    run.kill().expect("killed");
    true
}

/// A directory on a file system that stores every year, where there is one.
fn any_year(session: &Session) -> PathBuf {
    let wide = Path::new("/dev/shm");
    if wide.is_dir() { wide.join(format!("dray-any-year-{}", std::process::id())) } else { session.path("years") }
}

#[test]
fn files_of_any_year_are_copied_and_going_on_says_nothing_of_them() {
    let session = Session::new("any-year");
    let source = any_year(&session);
    fs::create_dir_all(&source).expect("a source");
    let back = |seconds: u64, nanos: u32| SystemTime::UNIX_EPOCH - Duration::new(seconds, nanos);
    let on = |seconds: u64, nanos: u32| SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
    let times = [
        ("1601", back(11_644_473_600, 0)),
        ("before-1677", back(9_223_372_037, 1)),
        ("1969", back(0, 1)),
        ("now", on(1_700_000_000, 123_456_789)),
        ("2262", on(9_223_372_037, 999_999_999)),
        ("2446", on(15_032_385_535, 0)),
        ("9999", on(253_402_300_799, 1)),
        ("far", on(1 << 40, 7)),
    ];
    for (name, time) in times {
        for len in [10, 3 << 20] {
            let file = File::create(source.join(format!("{name}-{len}"))).expect("a file");
            file.set_len(len).expect("its length");
            file.set_times(FileTimes::new().set_modified(time)).expect("its time");
        }
    }
    session.dataset(&[&format!("\"{}/\",data/,BlockBlob,rename,None,None", source.display())]);
    session.driveset(&["drive.img:200MB".into()]);
    let line = "prep-import --journal j.jrn --id session#1 --initial-driveset driveset.csv --dataset dataset.csv --silent \
                --json --content-md5 --checkpoint-bytes 4194304";
    if killed(&session, line, "data", 6) {
        let done = session.dray("prep-import --journal j.jrn --id session#1 --resume --silent");
        let words = said(&done);
        assert_eq!(code(&done), 0, "{words}");
        assert!(!words.contains("has changed") && !words.contains("left out"), "{words}");
        let verified = session.dray("verify drive.img --key-file drive.xml");
        assert!(said(&verified).contains("All 16 blobs"), "{}", said(&verified));
    }
    fs::remove_dir_all(source).expect("removed");
}

#[test]
fn going_on_shows_what_is_on_the_drive_now() {
    let session = Session::new("on-it-now");
    data(&session, "first", &[10, 5000, 3 << 20, 9 << 20]);
    let image = session.path("drive.img");
    File::create(&image).and_then(|file| file.set_len(100_000_000)).expect("an image");
    let made = std::process::Command::new("mkfs.ext4").arg("-qF").arg(&image).status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED judge: mkfs.ext4");
        return;
    }
    driveset(&session, "drive.img,Format,SilentMode,Encrypt,");
    let line = "prep-import --journal J.jrn --id session#1 --initial-driveset driveset.csv --dataset first.csv --silent \
                --yes drive --json --checkpoint-bytes 2097152";
    if !killed(&session, line, "data", 6) {
        return;
    }
    let done = session.dray("prep-import --journal J.jrn --id session#1 --resume --silent");
    let words = said(&done);
    assert_eq!(code(&done), 0, "{words}");
    assert!(words.contains("on it now nothing") && !words.contains("ext4"), "{words}");
}

#[test]
fn sources_of_which_nothing_is_left_make_no_finished_drive() {
    let session = Session::new("nothing-left");
    data(&session, "first", &[10, 5000, 3 << 20, 5 << 20]);
    driveset(&session, "drive.img:100MB,Format,SilentMode,Encrypt,");
    let line = "prep-import --journal J.jrn --id session#1 --initial-driveset driveset.csv --dataset first.csv --silent --json";
    if !killed(&session, line, "data", 0) {
        return;
    }
    let source = session.path("first");
    fs::rename(&source, session.path("away")).expect("away");
    for place in ["", "deep", "deep/deeper"] {
        fs::create_dir_all(source.join(place)).expect("a directory");
        for entry in fs::read_dir(session.path("away").join(place)).expect("a directory").flatten() {
            if entry.path().is_file() {
                // Of the same length, and another file.
                let file = File::create(source.join(place).join(entry.file_name())).expect("a file");
                file.set_len(entry.metadata().expect("its facts").len()).expect("its length");
            }
        }
    }
    let resume = "prep-import --journal J.jrn --id session#1 --resume --silent";
    for _ in 0..2 {
        let failed = session.dray(resume);
        let words = said(&failed);
        assert!(code(&failed) == 7 && words.contains("not one of 4 files"), "{} {words}", code(&failed));
        let seen = session.dray("inspect drive.img");
        assert!(!said(&seen).contains("BitLocker"), "{}", said(&seen));
        let list = said(&session.dray("prep-import --journal J.jrn --list-copy-sessions"));
        assert!(list.contains("session#1 interrupted"), "{list}");
    }
    // The source is available again: files left out before no longer matter.
    fs::remove_dir_all(&source).expect("removed");
    fs::rename(session.path("away"), &source).expect("back");
    session.works(resume);
    assert_eq!(verified(&session, "drive.img", "drive.xml"), 4);
}

#[test]
fn an_image_that_would_be_made_inside_its_source_is_refused_by_the_plan() {
    let session = Session::new("new-inside");
    data(&session, "first", &[10, 5000]);
    fs::create_dir(session.path("first/sub")).expect("a directory");
    std::os::unix::fs::symlink(session.path("first/sub"), session.path("other")).expect("a link");
    fs::write(session.path("first/sub/empty.img"), b"").expect("an empty file");
    for image in
        ["first/drive.img", "first/sub/drive.img", "other/drive.img", "first/sub/empty.img", "other/../new.img"]
    {
        driveset(&session, &format!("{image}:100MB,Format,SilentMode,Encrypt,"));
        for how in ["plan", "prep-import --silent"] {
            let line =
                format!("{how} --journal J.jrn --id session#1 --initial-driveset driveset.csv --dataset first.csv");
            let output = session.dray(&line);
            let words = said(&output);
            assert!(code(&output) == 2 && words.contains("inside a source"), "{image}: {} {words}", code(&output));
        }
        assert!(!session.path("J.jrn").exists() && !session.path("first/drive.img").exists(), "{image}");
    }
}

/// A killed session, with its expected results.
struct Killed<'a> {
    session: &'a Session,
    id: &'a str,
    /// Blobs on the drive when it is finished, and when it is rolled back; `None`: it then holds no BitLocker volume.
    blobs: (usize, Option<usize>),
    left: Vec<(PathBuf, Vec<u8>)>,
}

impl<'a> Killed<'a> {
    fn new(session: &'a Session, id: &'a str, blobs: (usize, Option<usize>)) -> Self {
        Self { session, id, blobs, left: keep(session) }
    }

    fn go(&self, how: &str) -> std::process::Output {
        self.session.dray(&format!("prep-import --journal J.jrn --id {} {how} --silent", self.id))
    }

    /// Files that resuming needs: those next to the journal, and the record with the key.
    fn inputs(&self) -> Vec<&(PathBuf, Vec<u8>)> {
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_input = |path: &Path| name(path).starts_with("J.jrn.") || name(path) == "drive.xml";
        self.left.iter().filter(|(path, _)| is_input(path)).collect()
    }

    /// Checks that it can be finished, with every file.
    fn finished(&self, why: &str) {
        assert_eq!(verified(self.session, "drive.img", "drive.xml"), self.blobs.0, "{why}");
        let list = said(&self.session.dray("prep-import --journal J.jrn --list-copy-sessions"));
        assert!(list.contains(&format!("{} completed", self.id)), "{why}: {list}");
    }

    fn rolled_back(&self, why: &str) {
        match self.blobs.1 {
            Some(blobs) => assert_eq!(verified(self.session, "drive.img", "drive.xml"), blobs, "{why}"),
            None => {
                let seen = said(&self.session.dray("inspect drive.img"));
                assert!(!seen.contains("partly") && !seen.contains("aes-"), "{why}: {seen}");
            }
        }
    }

    /// With one file damaged: the same drive, or a refusal that leaves everything unchanged.
    fn survives(&self, path: &Path, damaged: Option<&[u8]>, why: &str) {
        let image = self.session.path("drive.img");
        let good = &self.left.iter().find(|(kept, _)| kept == path).expect("a file of the session").1;
        for how in ["--resume", "--abort"] {
            match damaged {
                Some(bytes) => fs::write(path, bytes).expect("written"),
                None => fs::remove_file(path).expect("removed"),
            }
            let why = format!("{how}, {why}");
            let output = self.go(how);
            if code(&output) == 0 {
                match how {
                    "--resume" => self.finished(&why),
                    _ => self.rolled_back(&why),
                }
                bring_back(self.session, &self.left);
                continue;
            }
            let words = said(&output);
            assert!(matches!(code(&output), 1 | 2 | 8), "{why}: {} {words}", code(&output));
            assert!(!words.contains("is done") && !words.contains("is rolled back."), "{why}: {words}");
            // It can still be resumed: its inputs are unchanged, once the good file is restored.
            fs::write(path, good).expect("written");
            let is_kept = |(path, bytes): &(PathBuf, Vec<u8>)| fs::read(path).is_ok_and(|now| now == *bytes);
            if !self.inputs().into_iter().all(is_kept) {
                self.goes_on(path, damaged, how, &why);
                continue;
            }
            let before = &self.left.iter().find(|(path, _)| *path == image).expect("the drive").1;
            assert!(holds(&image, before), "{why}: the drive was changed");
        }
    }

    /// A refusal after writes of unacknowledged data only: both resuming and rolling back still succeed.
    fn goes_on(&self, path: &Path, damaged: Option<&[u8]>, how: &str, why: &str) {
        let good = &self.left.iter().find(|(kept, _)| kept == path).expect("a file of the session").1;
        for then in ["--resume", "--abort"] {
            bring_back(self.session, &self.left);
            match damaged {
                Some(bytes) => fs::write(path, bytes).expect("written"),
                None => fs::remove_file(path).expect("removed"),
            }
            assert_ne!(code(&self.go(how)), 0, "{why}: refused before");
            fs::write(path, good).expect("written");
            let output = self.go(then);
            assert_eq!(code(&output), 0, "{why}, then {then}: {}", said(&output));
            match then {
                "--resume" => self.finished(why),
                _ => self.rolled_back(why),
            }
        }
        bring_back(self.session, &self.left);
    }

    /// Damages every file in turn: at its beginning and in the middle, cut short, and gone; with `DRAY_CAMPAIGN` in as many
    /// places more, which takes minutes.
    fn judge(&self) {
        let times: usize = std::env::var("DRAY_CAMPAIGN").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        let inputs = self.inputs();
        assert!(inputs.iter().any(|(path, _)| path.to_string_lossy().ends_with(".plan")), "{}", inputs.len());
        let mut tried = 0;
        for (path, good) in inputs {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let end = good.len();
            let mut places: Vec<usize> = [9, end / 3].into();
            places.extend((times > 0).then(|| end.saturating_sub(20)));
            places.extend((1..times).map(|i| i * end / times));
            places.retain(|at| *at < end);
            for at in places {
                let mut bytes = good.clone();
                bytes[at] ^= 0x10;
                self.survives(path, Some(&bytes), &format!("{name}: bit of byte {at} of {end} flipped"));
                tried += 1;
            }
            let halves = (times > 0).then_some(end / 2);
            for len in halves.into_iter().chain([end.saturating_sub(1)]) {
                self.survives(path, Some(&good[..len.min(end)]), &format!("{name}: cut from {end} to {len}"));
                tried += 1;
            }
            self.survives(path, None, &format!("{name}: gone"));
            // Data left by an interrupted append after the valid part.
            if name.ends_with(".plan") || name.ends_with(".outcome") {
                let longer = [good, &[2, 1, 0, 0, 0, 0][..]].concat();
                fs::write(path, &longer).expect("written");
                let output = self.go("--resume");
                assert_eq!(code(&output), 0, "{name}, torn: {}", said(&output));
                self.finished(&name);
                bring_back(self.session, &self.left);
            }
        }
        println!("{tried} damaged files");
        // All of it as it was left, both ways.
        assert_eq!(code(&self.go("--resume")), 0);
        self.finished("as it was left");
        let again = self.go("--resume");
        assert!(code(&again) == 0 && said(&again).contains("nothing left to do"), "{}", said(&again));
        let abort = self.go("--abort");
        assert!(code(&abort) == 1 && said(&abort).contains("nothing was rolled back"), "{}", said(&abort));
        self.finished("after an abort that came too late");
        bring_back(self.session, &self.left);
        let aborted = self.go("--abort");
        assert_eq!(code(&aborted), 0, "{}", said(&aborted));
        self.rolled_back("as it was left");
    }
}

#[test]
fn files_beside_a_session_that_fills_a_blank_drive_may_be_damaged() {
    let session = Session::new("beside-blank");
    data(&session, "first", &[0, 1, 5000, 70_000, 9 << 20, 12 << 20]);
    driveset(&session, "drive.img:100MB,Format,SilentMode,Encrypt,");
    let line = "prep-import --journal J.jrn --id session#1 --initial-driveset driveset.csv --dataset first.csv --silent \
                --json --checkpoint-bytes 4194304";
    if killed(&session, line, "data", 12) {
        Killed::new(&session, "session#1", (6, None)).judge();
    }
}

#[test]
fn files_beside_a_session_that_adds_to_a_drive_may_be_damaged() {
    let session = Session::new("beside-append");
    first(&session);
    let before = keep(&session);
    let line =
        "prep-import --journal J.jrn --id session#2 --dataset second.csv --silent --json --checkpoint-bytes 4194304";
    for (stage, calls) in [("data", 9), ("finishing", 2)] {
        if killed(&session, line, stage, calls) {
            Killed::new(&session, "session#2", (12, Some(5))).judge();
        }
        bring_back(&session, &before);
    }
}

#[test]
fn files_beside_a_session_that_indexes_a_drive_may_be_damaged() {
    let session = Session::new("beside-index");
    first(&session);
    fs::write(
        session.path("index.csv"),
        "BasePath,DstItemPathOrPrefix,ItemType,Disposition,MetadataFile,PropertiesFile\n/session#1/,again/,BlockBlob,rename,None,None\n",
    )
    .expect("a dataset");
    let line = "prep-import --journal J.jrn --id session#2 --dataset index.csv --skip-write --silent --json";
    for (stage, calls) in [("listing", 0), ("finishing", 1)] {
        let before = keep(&session);
        if killed(&session, line, stage, calls) {
            Killed::new(&session, "session#2", (10, Some(5))).judge();
        }
        bring_back(&session, &before);
    }
}

#[test]
fn files_beside_a_session_that_encrypts_in_place_may_be_damaged() {
    let session = Session::new("beside-in-place");
    if !plain_drive(&session, 96, &[0, 1, 700, 70_000, 20 << 20]) {
        return;
    }
    data(&session, "second", &[0, 1, 4097, 9 << 20]);
    driveset(&session, "drive.img,AlreadyFormatted,SilentMode,Encrypt,");
    let before = keep(&session);
    let line = "prep-import --journal J.jrn --id session#2 --initial-driveset driveset.csv --dataset second.csv --silent \
                --yes drive --json --checkpoint-bytes 4194304";
    // Before the first write: the consent still holds.
    if killed(&session, line, "encrypting", 0) {
        let output = session.dray("prep-import --journal J.jrn --id session#2 --resume --silent");
        assert_eq!(code(&output), 0, "{}", said(&output));
        assert_eq!(verified(&session, "drive.img", "drive.xml"), 4);
    }
    for (stage, calls) in [("encrypting", 30), ("finishing", 2)] {
        bring_back(&session, &before);
        if killed(&session, line, stage, calls) {
            Killed::new(&session, "session#2", (4, None)).judge();
        }
    }
}
