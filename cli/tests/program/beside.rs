//! What lies beside the drives while a session is under way, and the sources as they are when it goes on.

use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::common::{Session, code, words as said};
use dray_testdisks::traced::Traced;

/// Runs a session until it tells a stage and then writes or flushes so many times, and kills it there.
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

/// A directory on a file system that keeps every year, where there is one.
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
