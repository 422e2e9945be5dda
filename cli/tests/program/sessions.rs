//! Sessions as users' scripts run them: in sequence, interrupted, with drives that join, fail, or are given up.

use std::fs;
use std::path::Path;

use crate::common::{Session, code, words as said};
use dray_testdisks::judge;
use dray_testdisks::traced::Traced;

fn driveset(session: &Session, file: &str, images: &[&str]) {
    session.driveset(&images.iter().map(|image| format!("{image}:100MB")).collect::<Vec<_>>());
    fs::rename(session.path("driveset.csv"), session.path(file)).expect("a driveset");
}

fn passes(session: &Session, drive: &str, dataset: Option<&Path>) {
    let (image, record) = (session.path(&format!("{drive}.img")), session.path(&format!("{drive}.xml")));
    judge::drive(&image, &record, dataset, true).expect_pass("scripts/judge-drive");
}

#[test]
fn judge_the_documented_examples_in_sequence() {
    let session = Session::new("documented-scenario");
    session.source(|data| data.small(40, 20).expect("files"));
    fs::rename(session.path("dataset.csv"), session.path("dataset-1.csv")).expect("a dataset");
    driveset(&session, "driveset-1.csv", &["one.img"]);
    driveset(&session, "driveset-2.csv", &["two.img"]);
    // The storage key's place in the line, as documented.
    let first = session.dray(
        "PrepImport /j:JournalTest.jrn /id:session#1 /sk:************* /InitialDriveSet:driveset-1.csv \
         /DataSet:dataset-1.csv /logdir:logs --silent",
    );
    assert_eq!(code(&first), 0, "{}", said(&first));
    passes(&session, "one", Some(&session.path("dataset-1.csv")));

    // A drive set only: the new drive ends encrypted, empty and complete.
    let third = "PrepImport /j:JournalTest.jrn /j:JournalTest.jrn /id:session#3 /id:session#3 \
                 /AdditionalDriveSet:driveset-2.csv --silent";
    let third = session.dray(third);
    assert_eq!(code(&third), 0, "{}", said(&third));
    passes(&session, "two", None);

    let drives = session.dray("PrepImport /j:JournalTest.jrn /ListDrives --json");
    let drives = String::from_utf8_lossy(&drives.stdout).into_owned();
    assert_eq!(drives.lines().count(), 2, "{drives}");
    assert!(drives.lines().all(|line| line.contains("\"state\":\"Completed\"")), "{drives}");
    let sessions = session.dray("PrepImport /j:JournalTest.jrn /ListCopySessions");
    let sessions = said(&sessions);
    assert!(sessions.contains("session#1 completed") && sessions.contains("session#3 completed"), "{sessions}");

    let again = session.dray("PrepImport /j:JournalTest.jrn /id:session#3 /ResumeSession");
    assert!(code(&again) == 0 && said(&again).contains("nothing left to do"), "{}", said(&again));
    // Ids are used once; finished sessions can be neither resumed nor rolled back; the drives of the journal are not erased.
    for (words, what) in [
        ("PrepImport /j:JournalTest.jrn /id:session#1 /AdditionalDriveSet:driveset-2.csv", "completed already"),
        ("PrepImport /j:JournalTest.jrn /id:session#3 /AbortSession", "is completed; nothing was rolled back"),
        ("PrepImport /j:JournalTest.jrn /id:session#1 /ResumeSession", "the last session of the journal is session#3"),
        ("PrepImport /j:JournalTest.jrn /id:s4 /AdditionalDriveSet:driveset-2.csv", "3 to 30"),
        (
            "PrepImport /j:JournalTest.jrn /id:session#4 /logdir:x /AdditionalDriveSet:driveset-2.csv",
            "one log directory",
        ),
    ] {
        let output = session.dray(words);
        assert!(matches!(code(&output), 1 | 2) && said(&output).contains(what), "{words}: {}", said(&output));
    }
    session.driveset(&[session.path("two.img").display().to_string()]);
    let again = session.dray("PrepImport /j:JournalTest.jrn /id:session#4 /AdditionalDriveSet:driveset.csv");
    assert_eq!(code(&again), 2, "{}", said(&again));
    assert!(said(&again).contains("belongs to this journal already"), "{}", said(&again));

    // More data lands on the drives there are: whole words as documented, then the slips that users make.
    fs::write(session.path("dataset-2.csv"), second_dataset(&session)).expect("a dataset");
    let second =
        "PrepImport /j:JournalTest.jrn /id:session#2 DataSet:dataset-2.csv /j:JournalTest.jrn /id:session#2 --silent";
    let second = session.dray(second);
    assert_eq!(code(&second), 0, "{}", said(&second));
    let mut blobs = 0;
    for drive in ["one", "two"] {
        passes(&session, drive, None);
        blobs += verified(&session, drive);
    }
    assert_eq!(blobs, 40 + 7, "files of both sessions");
    let sessions = said(&session.dray("PrepImport /j:JournalTest.jrn /ListCopySessions"));
    assert!(sessions.contains("session#2 completed"), "{sessions}");
    // The journal is lost: it is rebuilt from the drives and their records, and sessions continue with it.
    let lost = fs::read(session.path("JournalTest.jrn")).expect("a journal");
    let line = "prep-import --journal JournalTest.jrn --rebuild-journal --initial-driveset both.csv";
    driveset(&session, "both.csv", &["one.img", "two.img"]);
    let refused = session.dray(line);
    assert!(code(&refused) == 1 && said(&refused).contains("a journal exists"), "{}", said(&refused));
    assert!(lost == fs::read(session.path("JournalTest.jrn")).expect("a journal"));
    let listed = said(&session.dray("PrepImport /j:JournalTest.jrn /ListDrives --json"));
    let records = ["one.xml", "two.xml"].map(|name| fs::read(session.path(name)).expect("a record"));
    fs::remove_file(session.path("JournalTest.jrn")).expect("lost");
    let again = session.dray(line);
    assert_eq!(code(&again), 0, "{}", said(&again));
    let now = ["one.xml", "two.xml"].map(|name| fs::read(session.path(name)).expect("a record"));
    assert!(records == now, "records that fit stay as they are");
    let found = said(&session.dray("PrepImport /j:JournalTest.jrn /ListDrives --json"));
    for field in ["manifest_hash", "drive_id", "state", "files"] {
        let of = |text: &str| -> Vec<String> {
            let name = format!("\"{field}\":");
            let parts = text.split(&name).skip(1);
            parts.map(|part| part.split([',', '}']).next().unwrap_or_default().to_owned()).collect()
        };
        assert_eq!(of(&listed), of(&found), "{field}: {listed} {found}");
        assert_eq!(of(&found).len(), 2, "{field}: {found}");
    }
    let more = session.dray("PrepImport /j:JournalTest.jrn /id:session#2 /DataSet:dataset-2.csv --silent");
    assert!(code(&more) == 1 && said(&more).contains("completed already"), "{}", said(&more));
    let more = session.dray("PrepImport /j:JournalTest.jrn /id:session#4 /DataSet:dataset-2.csv --silent");
    assert_eq!(code(&more), 0, "{}", said(&more));
    let beside: Vec<String> = fs::read_dir(&session.dir)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    assert!(!beside.iter().any(|name| name.starts_with("JournalTest.jrn.")), "{beside:?}");
}

/// Rows of a second session: other files under another prefix.
fn second_dataset(session: &Session) -> String {
    let more = session.path("more");
    fs::create_dir_all(more.join("deep")).expect("a directory");
    for (i, len) in [0usize, 1, 511, 4096, 70_001, (5 << 20) + 3, 9 << 20].into_iter().enumerate() {
        let place = if i % 2 == 0 { more.join("deep") } else { more.clone() };
        fs::write(place.join(format!("file {i}.bin")), vec![i as u8 + 1; len]).expect("a file");
    }
    let head = "BasePath,DstItemPathOrPrefix,ItemType,Disposition,MetadataFile,PropertiesFile";
    format!("{head}\n\"{}/\",more/,BlockBlob,rename,None,None\n", more.display())
}

/// Verifies a drive with `dray`, and returns the number of equal blobs: all of them.
fn verified(session: &Session, drive: &str) -> u64 {
    let output = session.dray(&format!("verify {drive}.img --key-file {drive}.xml --json"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let is_equal = |line: &&str| line.contains("\"type\":\"blob\"") && line.contains("\"verdict\":\"equal\"");
    let equal = text.lines().filter(is_equal).count() as u64;
    // A drive on which no file found room proves nothing.
    let is_empty = text.contains("\"reasons\":[{\"count\":1,\"reason\":\"empty_manifest\"}]");
    assert_eq!((code(&output), is_empty), if equal == 0 { (5, true) } else { (0, false) }, "{}", said(&output));
    equal
}

#[test]
fn judge_the_first_generation_form() {
    let session = Session::new("generation-1");
    session.source(|data| data.small(20, 10).expect("files"));
    let output = session.dray("PrepImport /sk:x /t:one.img:100MB /format /silentmode /encrypt /logdir:l /j:9WM35C2V.jrn /id:session1 /srcdir:source \
         /dstdir:data/ /Disposition:rename /BlobType:BlockBlob",
    );
    assert_eq!(code(&output), 0, "{}", said(&output));
    passes(&session, "one", Some(&session.path("dataset.csv")));
}

#[test]
fn judge_what_did_not_fit_goes_to_drives_that_join() {
    let session = Session::new("joining");
    session.source(|data| data.large(120 << 20, 5 << 20).expect("files"));
    driveset(&session, "driveset.csv", &["one.img"]);
    let line = "PrepImport /j:J.jrn /id:session#1 /InitialDriveSet:driveset.csv /DataSet:dataset.csv --silent";
    let refused = session.dray(line);
    assert_eq!(code(&refused), 2, "{}", said(&refused));
    assert!(said(&refused).contains("--what-fits") && !session.path("J.jrn").exists(), "{}", said(&refused));
    let part = session.dray(&format!("{line} --what-fits"));
    assert_eq!(code(&part), 6, "{}", said(&part));
    assert!(said(&part).contains("waits for drives"), "{}", said(&part));
    driveset(&session, "more.csv", &["two.img", "three.img"]);
    let rest = session.dray("PrepImport /j:J.jrn /id:session#1 /AdditionalDriveSet:more.csv --silent");
    assert_eq!(code(&rest), 0, "{}", said(&rest));
    let mut blobs = 0;
    for drive in ["one", "two", "three"] {
        if session.path(&format!("{drive}.xml")).exists() {
            passes(&session, drive, None);
            blobs += files_of(&session, drive);
        }
    }
    assert_eq!(blobs, 24, "every file is on one drive");
    assert!(said(&session.dray("PrepImport /j:J.jrn /ListCopySessions")).contains("session#1 completed"));
}

/// Number of the session's files on a drive, according to the journal.
fn files_of(session: &Session, drive: &str) -> u64 {
    let list = session.dray("PrepImport /j:J.jrn /ListDrives --json");
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    let line = list.lines().find(|line| line.contains(&format!("\"drive_id\":\"{drive}\""))).expect("the drive");
    let (_, rest) = line.split_once("\"files\":").expect("its files");
    rest.split(|c: char| !c.is_ascii_digit()).next().expect("a number").parse().expect("a number")
}

#[test]
fn judge_a_drive_that_died_gives_its_files_to_another() {
    let session = Session::new("replan");
    session.source(|data| data.large(120 << 20, 5 << 20).expect("files"));
    driveset(&session, "driveset.csv", &["one.img", "two.img"]);
    let line = "prep-import --journal J.jrn --id session#1 --initial-driveset driveset.csv --dataset dataset.csv --silent \
                --json --checkpoint-bytes 8388608";
    let command = session.program(line);
    let mut run = match Traced::start(&command, &session.dir) {
        Ok(run) => run,
        Err(error) => {
            eprintln!("SKIPPED judge: a program cannot be traced here: {error}");
            return;
        }
    };
    // Both drives are under way.
    let begun = |said: &str, drive: &str| {
        let stage = |line: &&str| line.contains("\"type\":\"stage\"") && line.contains("\"stage\":\"data\"");
        said.lines().filter(stage).any(|line| line.contains(&format!("\"drive_id\":\"{drive}\"")))
    };
    let both = run.until(|moment| moment.is_write() && begun(moment.said, "one") && begun(moment.said, "two"));
    assert!(both.expect("the trace goes on"), "it ended before both drives had begun");
    run.kill().expect("killed");
    fs::remove_file(session.path("two.img")).expect("a drive that is gone");
    let other = session.dray("prep-import --journal J.jrn --id session#2 --additional-driveset driveset.csv --silent");
    assert!(code(&other) == 1 && said(&other).contains("ended abnormally"), "{}", said(&other));
    let refused = session.dray("prep-import --journal J.jrn --id session#1 --resume --silent");
    assert_eq!(code(&refused), 2, "{}", said(&refused));
    assert!(said(&refused).contains("--replan") && said(&refused).contains("two.img"), "{}", said(&refused));
    driveset(&session, "more.csv", &["three.img"]);
    fs::write(session.path("source/late.bin"), b"late").expect("a file");
    let line = "prep-import --journal J.jrn --id session#1 --resume --replan --additional-driveset more.csv --silent";
    let done = session.dray(line);
    assert_eq!(code(&done), 0, "{}", said(&done));
    let late = said(&done).matches("after the session was planned").count();
    assert!(late == 1 && said(&done).contains("late.bin"), "{}", said(&done));
    for drive in ["one", "three"] {
        passes(&session, drive, None);
    }
    assert_eq!(files_of(&session, "one") + files_of(&session, "three"), 24);
    let drives = said(&session.dray("PrepImport /j:J.jrn /ListDrives"));
    assert!(drives.contains("two") && drives.contains("given up"), "{drives}");
}

#[test]
fn a_torn_journal_goes_on_and_a_damaged_one_is_refused() {
    let session = Session::new("torn");
    session.source(|data| data.small(5, 5).expect("files"));
    session.driveset(&[format!("{}:100MB", session.path("drive.img").display())]);
    session.prepare(&[]);
    let journal = session.path("journal.jrn");
    let whole = fs::read(&journal).expect("a journal");
    // The session's last record is cut off: according to the journal it was never completed.
    fs::write(&journal, &whole[..whole.len() - 9]).expect("a journal");
    let list = session.dray("prep-import --journal journal.jrn --list-copy-sessions");
    assert!(code(&list) == 0 && said(&list).contains("cut off"), "{}", said(&list));
    let mut damaged = whole.clone();
    let at = whole.len() / 2;
    damaged[at] ^= 1;
    fs::write(&journal, &damaged).expect("a journal");
    for words in [
        "prep-import --journal journal.jrn --id session#1 --resume",
        "prep-import --journal journal.jrn --list-drives",
        "prep-import --journal journal.jrn --id session#2 --additional-driveset driveset.csv",
    ] {
        let output = session.dray(words);
        assert!(code(&output) == 1 && said(&output).contains("damaged"), "{words}: {}", said(&output));
    }
}

#[test]
fn sessions_and_jobs_are_listed_with_what_to_do_next() {
    let session = Session::new("listed");
    assert!(session.works("session list").contains("no session in ."));
    assert!(session.works("job list").contains("no job in ."));
    session.source(|data| data.small(5, 5).expect("files"));
    session.driveset(&[format!("{}:100MB", session.path("drive.img").display())]);
    session.prepare(&["--drive-id", "D1", "--not-for-shipping"]);
    let list = session.works("session list");
    for part in
        ["session#1 completed", "journal.jrn", "1 drive, 5 files", "next: dray job create --job job.toml --journal"]
    {
        assert!(list.contains(part), "{part}: {list}");
    }
    assert!(session.works("session list --unfinished").contains("no unfinished session"));
    let show = session.works("session show journal.jrn");
    for part in ["state", "completed", "D1", "record D1.xml", "manifest "] {
        assert!(show.contains(part), "{part}: {show}");
    }
    let absent = session.dray("session show journal.jrn --id session#2");
    assert!(code(&absent) == 1 && said(&absent).contains("session#1"), "{}", said(&absent));
    assert_eq!(code(&session.dray("session list nowhere.jrn")), 1);

    // The session's last record is cut off: it is to be resumed.
    let journal = session.path("journal.jrn");
    let whole = fs::read(&journal).expect("a journal");
    fs::write(&journal, &whole[..whole.len() - 9]).expect("a journal");
    let list = session.works("session list --unfinished");
    let next = list.split_once("next: dray ").and_then(|(_, rest)| rest.split_once(" (--abort rolls it back)"));
    let next = next.map(|(words, _)| words.to_owned()).expect("what to do next");
    let held = fs::File::open(&journal).expect("the journal");
    held.lock().expect("a lock");
    let list = session.works("session list");
    let process = format!("under way in process {}", std::process::id());
    assert!(list.contains(&process) && list.contains("wait until it ends"), "{list}");
    drop(held);
    // Its plan went when it was completed, but the words are understood.
    assert_eq!(code(&session.dray(&next)), 8, "{next}");
    fs::write(&journal, whole).expect("a journal");

    crate::job::described(&session.dir);
    session.works("job create --journal journal.jrn --not-for-shipping");
    let list = session.works("job list .");
    assert!(list.contains("import-2026 import Drafted") && list.contains("next: "), "{list}");
}
