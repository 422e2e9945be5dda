//! A session's own files: never copied onto its drives, never overwritten.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Command;

use crate::common::{Session, code, key_in, words};

/// `prep-import` with journal and logs among the data.
fn prepare(session: &Session, id: &str, more: &str) -> std::process::Output {
    session.dray(&format!("prep-import --journal k/job.jrn --id {id} --silent {more}"))
}

fn row(session: &Session, path: &str, to: &str) -> String {
    format!("\"{}/\",{to}/,BlockBlob,rename,None,None", session.path(path).display())
}

#[test]
fn a_second_session_copies_neither_record_nor_journal_nor_any_key() {
    let session = Session::new("own-second");
    for dir in ["k", "o", "elsewhere"] {
        fs::create_dir_all(session.path(dir)).expect("a directory");
    }
    fs::write(session.path("k/data.txt"), "data").expect("a file");
    session.dataset(&[&row(&session, "k", "box")]).driveset(&[format!("{}:100MB", session.path("o/d1.img").display())]);
    let first = prepare(
        &session,
        "session#1",
        "--initial-driveset driveset.csv --dataset dataset.csv --external-key k --report k/plan.html",
    );
    assert_eq!(code(&first), 0, "{}", words(&first));
    let key = key_in(&session.path("k/d1.xml"));
    // By hard links and copies, below another directory, and through a link to the first one.
    fs::hard_link(session.path("k/d1.xml"), session.path("elsewhere/notes")).expect("a link");
    fs::hard_link(session.path("o/d1.img"), session.path("elsewhere/image")).expect("a link");
    fs::copy(session.path("k/d1.xml"), session.path("elsewhere/D1.XML")).expect("a copy");
    fs::write(session.path("k/key.txt"), format!("the key: {key}\n")).expect("a file");
    fs::write(session.path("elsewhere/more.txt"), "more").expect("a file");
    symlink(session.path("k"), session.path("same")).expect("a link");
    session.dataset(&[&row(&session, "same", "two"), &row(&session, "elsewhere", "three")]);
    let second = prepare(&session, "session#2", "--dataset dataset.csv");
    let reported = words(&second);
    assert_eq!(code(&second), 0, "{reported}");
    for what in
        ["d1.xml: a drive record", "job.jrn: the session's journal", ".BEK: a BitLocker key file", "a log of a session"]
    {
        assert!(reported.contains(what), "{what}: {reported}");
    }
    let list = session.dray("verify o/d1.img --key-file k/d1.xml --list all.csv");
    assert_eq!(code(&list), 0, "{}", words(&list));
    let list = fs::read_to_string(session.path("all.csv")).expect("a list");
    let mut blobs: Vec<&str> = list.lines().skip(1).filter_map(|line| line.split(',').nth(2)).collect();
    blobs.sort_unstable();
    assert_eq!(blobs, ["box/data.txt", "three/more.txt", "two/data.txt"]);
    // A row that names such a file is refused, before anything is written.
    session.dataset(&[&format!("{},four/x,BlockBlob,rename,None,None", session.path("elsewhere/notes").display())]);
    let third = prepare(&session, "session#3", "--dataset dataset.csv");
    assert_eq!(code(&third), 2, "{}", words(&third));
    assert!(words(&third).contains("is a drive record, which holds a key"), "{}", words(&third));
}

#[test]
fn a_record_of_another_journal_is_not_moved() {
    let session = Session::new("own-records");
    for dir in ["k", "src", "a", "b"] {
        fs::create_dir_all(session.path(dir)).expect("a directory");
    }
    fs::write(session.path("src/f"), "data").expect("a file");
    session.dataset(&[&row(&session, "src", "box")]);
    let run_of = |journal: &str, image: &str, more: &str| {
        session.driveset(&[format!("{}:100MB", session.path(image).display())]);
        session.dray(&format!(
            "prep-import --journal k/{journal} --id session#1 --silent --initial-driveset driveset.csv --dataset dataset.csv {more}"
        ))
    };
    assert_eq!(code(&run_of("a.jrn", "a/x.img", "")), 0);
    let record = fs::read(session.path("k/x.xml")).expect("a record");
    let second = run_of("b.jrn", "b/x.img", "");
    let reported = words(&second);
    assert_eq!(code(&second), 2, "{reported}");
    assert!(reported.contains("this journal does not know it") && reported.contains("--drive-id"), "{reported}");
    assert!(!session.path("b/x.img").exists() && !session.path("k/x.xml.1").exists());
    assert_eq!(fs::read(session.path("k/x.xml")).expect("a record"), record);
    // As the message advised.
    let second = run_of("b.jrn", "b/x.img", "--drive-id Y");
    assert_eq!(code(&second), 0, "{}", words(&second));
    assert_eq!(fs::read(session.path("k/x.xml")).expect("a record"), record);
}

#[test]
fn no_output_takes_the_place_of_what_is_there() {
    let session = Session::new("own-outputs");
    fs::create_dir_all(session.path("source")).expect("a directory");
    fs::write(session.path("source/f"), "data").expect("a file");
    session.dataset(&[&row(&session, "source", "box")]);
    session.driveset(&[format!("{}:100MB", session.path("x.img").display())]);
    session.prepare(&[]);
    fs::hard_link(session.path("x.xml"), session.path("key")).expect("a link");
    fs::write(session.path("mine.html"), "<html>mine</html>").expect("a file");
    let verify = "verify x.img --key-file x.xml --journal journal.jrn";
    let facts =
        |name: &str| fs::metadata(session.path(name)).map(|meta| (meta.ino(), meta.len(), meta.mtime_nsec())).ok();
    for place in ["x.img", "x.xml", "key", "journal.jrn", "mine.html", "/dev/null", "source", "dataset.csv"] {
        for option in ["--list", "--report"] {
            let before = facts(place);
            let output = session.dray(&format!("{verify} {option} {place}"));
            assert_eq!(code(&output), 2, "{option} {place}: {}", words(&output));
            assert_eq!(facts(place), before, "{option} {place}");
        }
    }
    let plan = "plan --journal new.jrn --id session#1 --initial-driveset driveset.csv --dataset dataset.csv --report";
    fs::write(
        session.path("driveset.csv"),
        fs::read_to_string(session.path("driveset.csv")).expect("csv").replace("x.img", "y.img"),
    )
    .expect("a driveset");
    for place in ["new.jrn", "y.img", "y.xml", "driveset.csv", "dataset.csv", "x.xml", "/dev/null"] {
        let output = session.dray(&format!("{plan} {place}"));
        assert_eq!(code(&output), 2, "{place}: {}", words(&output));
    }
    assert!(!session.path("new.jrn").exists() && !session.path("y.img").exists() && !session.path("y.xml").exists());
    // With a new name, and once more over the same file, both succeed.
    for _ in 0..2 {
        session.works(&format!("{verify} --list all.csv --list all.jsonl --report page.html"));
        session.works(&format!("{plan} plan.html"));
    }
    let left = fs::read_dir(&session.dir).expect("entries").flatten();
    assert_eq!(left.filter(|entry| entry.path().extension().is_some_and(|end| end == "new")).count(), 0);
}

#[test]
fn few_descriptors_leave_no_file_out() {
    let session = Session::new("own-descriptors");
    fs::create_dir_all(session.path("src")).expect("a directory");
    for i in 0..300 {
        // Some stay open while they are read, the others are opened by the ring.
        let len = if i % 10 == 0 { 1_500_000 } else { 100 };
        fs::write(session.path("src").join(format!("f{i}")), vec![i as u8; len]).expect("a file");
    }
    session.dataset(&[&row(&session, "src", "box")]);
    for (engine, limit, wanted) in [("uring", 24, 0), ("sync", 24, 0), ("auto", 12, 8)] {
        let name = format!("{engine}{limit}");
        session.driveset(&[format!("{}:150MB", session.path(&name).with_extension("img").display())]);
        let line = format!(
            "ulimit -n {limit} && exec {} prep-import --journal {name}.jrn --id session#1 --silent --initial-driveset \
             driveset.csv --dataset dataset.csv --read-back none --engine {engine}",
            env!("CARGO_BIN_EXE_dray")
        );
        let output = Command::new("sh").args(["-c", &line]).current_dir(&session.dir).output().expect("sh");
        let reported = words(&output);
        assert_eq!(code(&output), wanted, "{name}: {reported}");
        assert!(!reported.contains("left out"), "{name}: {reported}");
    }
}

#[test]
fn inputs_without_end_and_places_that_are_none_are_told_before_the_first_write() {
    let session = Session::new("own-places");
    fs::create_dir_all(session.path("src")).expect("a directory");
    fs::write(session.path("src/f"), "data").expect("a file");
    session.dataset(&[&row(&session, "src", "box")]).driveset(&[format!("{}:100MB", session.path("x.img").display())]);
    assert!(Command::new("mkfifo").arg(session.path("fifo")).status().expect("mkfifo").success());
    let prep = "prep-import --id session#1 --silent --initial-driveset driveset.csv";
    for (more, wanted, reported) in [
        ("--journal fifo --dataset dataset.csv", 1, vec!["is a named pipe"]),
        ("--journal j.jrn --dataset /dev/zero", 1, vec!["is a device"]),
        (
            "--journal j.jrn --dataset dataset.csv --external-key nowhere --logdir dataset.csv/x --report no/page.html",
            8,
            vec!["nowhere", "dataset.csv/x", "no/page.html"],
        ),
    ] {
        let output = session.dray(&format!("{prep} {more}"));
        assert_eq!(code(&output), wanted, "{more}: {}", words(&output));
        reported.iter().for_each(|part| assert!(words(&output).contains(part), "{more}: {part}: {}", words(&output)));
    }
    assert!(!session.path("x.img").exists() && !session.path("j.jrn").exists());
    // A file of the kernel that reports 0 bytes.
    session.dataset(&["/proc/sys/kernel/random/boot_id,box/x,BlockBlob,rename,None,None"]);
    let output = session.dray(&format!("{prep} --journal j.jrn --dataset dataset.csv"));
    assert_eq!(code(&output), 7, "{}", words(&output));
    assert!(words(&output).contains("has more than the 0 bytes"), "{}", words(&output));
}
