//! `dray job create` checked against its surroundings: journals written by hand, records, other jobs.

use std::fs;
use std::path::Path;

use crate::common::{Session, code, dray_in as dray, said, scratch, words};
use crate::job::{KEY, OTHER_KEY, filled_in, record};

const HASH: &str = "109B21108597EF36D5785F08303F3638";

/// One record of a journal.
fn entry(fields: &[(&str, &str)]) -> String {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("[BeginUpdateRecord][2026/11/01 21:10:21.379][Type:ActivityRecord]\r\n{fields}[EndUpdateRecord]\r\n")
}

fn session(id: &str, state: &str) -> String {
    entry(&[("ActivityId", "DrayCopySession"), ("SessionId", id), ("SessionState", state)])
}

fn drive(session: &str, id: &str, state: &str, more: &[(&str, &str)]) -> String {
    let file = format!("{id}.xml");
    let mut fields = vec![
        ("ActivityId", "DrayDrive"),
        ("SessionId", session),
        ("DriveId", id),
        ("DriveState", state),
        ("DriveRecord", &*file),
    ];
    fields.extend(more);
    entry(&fields)
}

fn done(id: &str) -> String {
    let more = [("ForShipping", "Yes"), ("FileCount", "6"), ("DataLength", "126"), ("ManifestHash", HASH)];
    drive("s-1", id, "Completed", &more)
}

fn journal(dir: &Path, parts: &[String]) {
    fs::write(dir.join("job.jrn"), parts.concat()).expect("a journal");
}

fn ready(name: &str) -> std::path::PathBuf {
    let dir = scratch(name);
    let template = dray(&dir, &["template", "job"]);
    fs::write(dir.join("job.toml"), filled_in(&String::from_utf8_lossy(&template.stdout))).expect("written");
    record(&dir, "WD-1", KEY, "Completed");
    record(&dir, "WD-2", OTHER_KEY, "Completed");
    dir
}

/// A drive in the result of a verification: serial, MD5 of its manifest, verdict, and number of blobs not requested.
fn checked(id: &str, md5: &str, word: &str, good: bool, skipped: u64) -> serde_json::Value {
    serde_json::json!({
        "manifest": { "drive_id": id, "md5": md5 }, "verdict": word, "good": good, "skipped": skipped,
        "counts": { "equal": { "count": 2, "bytes": 9 } }, "started": "2026-11-01T00:00:00Z",
    })
}

fn verified(drives: &[serde_json::Value]) -> String {
    let blob = serde_json::json!({ "type": "blob", "blob": "con/x" });
    format!("{blob}\n{}\n", serde_json::json!({ "type": "verified", "drives": drives }))
}

/// By the journal and by the records: both are refused for this reason, and both are allowed with `insist`.
fn refused(dir: &Path, what: &str, insist: Option<&str>) {
    for args in [vec!["--journal", "job.jrn"], vec!["WD-1.xml", "WD-2.xml"]] {
        let args: Vec<&str> = ["job", "create"].into_iter().chain(args).collect();
        let output = dray(dir, &args);
        assert!(matches!(code(&output), 1 | 2), "{args:?} {what}: {}", said(&output));
        assert!(words(&output).contains(what), "{args:?} {what}: {}", said(&output));
        assert!(!dir.join("import-2026.job.json").exists(), "{what}");
        if let Some(insist) = insist {
            let output = dray(dir, &[&args[..], &[insist]].concat());
            assert_eq!(code(&output), 0, "{args:?} {insist}: {}", said(&output));
            fs::remove_file(dir.join("import-2026.job.json")).expect("a job");
        }
    }
}

#[test]
fn a_job_is_held_against_the_journal_of_its_drives() {
    let dir = ready("job-held");
    let begun = session("s-1", "Started");
    let both = || vec![begun.clone(), done("WD-1"), done("WD-2")];
    // All is well: the sums of the journal go into the job.
    let second = [
        session("s-1", "Completed"),
        session("s-2", "Started"),
        drive(
            "s-2",
            "WD-1",
            "Completed",
            &[("DriveWork", "Append"), ("FileCount", "4"), ("DataLength", "42"), ("ManifestHash", HASH)],
        ),
        session("s-2", "Completed"),
    ];
    journal(&dir, &[both(), second.to_vec()].concat());
    for args in [vec!["--journal", "job.jrn"], vec!["WD-1.xml", "WD-2.xml"]] {
        let args: Vec<&str> = ["job", "create"].into_iter().chain(args).collect();
        let output = dray(&dir, &args);
        assert_eq!(code(&output), 0, "{args:?}: {}", said(&output));
        let job = fs::read_to_string(dir.join("import-2026.job.json")).expect("a job");
        let job: serde_json::Value = serde_json::from_str(&job).expect("JSON");
        let counts = |i: usize| (job["drives"][i]["files"].as_u64(), job["drives"][i]["data"].as_u64());
        assert_eq!((counts(0), counts(1)), ((Some(10), Some(168)), (Some(6), Some(126))));
        assert_eq!(code(&dray(&dir, &["job", "papers", "import-2026.job.json"])), 0);
        let page = fs::read_to_string(dir.join("import-2026-chain-of-custody.html")).expect("a page");
        assert!(page.contains(">10<") && page.contains("168 B"), "{page}");
        // The paper's statement on the contents is the verdict, and never more than that.
        for (first, second, words) in [
            (
                checked("WD-1", HASH, "Equal", true, 0),
                checked("WD-2", HASH, "Equal", true, 0),
                "Every blob of 2 drives is as",
            ),
            (
                checked("WD-1", HASH, "Equal", true, 0),
                checked("WD-2", HASH, "Not equal", false, 0),
                "1 of 2 drives is proven",
            ),
            (
                checked("WD-1", HASH, "Equal", true, 3),
                checked("WD-3", HASH, "Equal", true, 0),
                "0 of 2 drives are proven",
            ),
            (
                checked("WD-1", "00", "Equal", true, 0),
                checked("WD-2", HASH, "Equal", true, 0),
                "Another manifest was verified",
            ),
        ] {
            fs::write(dir.join("v.jsonl"), verified(&[first, second])).expect("written");
            assert_eq!(code(&dray(&dir, &["job", "papers", "import-2026.job.json", "--verified", "v.jsonl"])), 0);
            let page = fs::read_to_string(dir.join("import-2026-chain-of-custody.html")).expect("a page");
            assert!(page.contains(words), "{words}: {page}");
            assert_eq!(page.contains("<strong>Verified"), words.starts_with("Every"), "{words}: {page}");
        }
        fs::remove_file(dir.join("import-2026.job.json")).expect("a job");
    }
    let listed = said(&dray(&dir, &["prep-import", "--journal", "job.jrn", "--list-drives"]));
    assert!(listed.contains("10 files, 168 B"), "{listed}");

    // A session that is not done, whatever became of its drives.
    for state in ["Started", "Interrupted", "Aborting"] {
        let failed = drive("s-1", "WD-3", "Interrupted", &[]);
        journal(&dir, &[both(), vec![failed, session("s-1", state)]].concat());
        refused(&dir, "session s-1 is not finished: 1 drive of it is not done (found: WD-3)", Some("--partial"));
        journal(&dir, &[both(), vec![session("s-1", state)]].concat());
        refused(&dir, "files of it are on no drive yet", Some("--partial"));
    }
    // A drive whose files were moved to others is not missing.
    journal(&dir, &[both(), vec![drive("s-1", "WD-3", "GivenUp", &[]), session("s-1", "Completed")]].concat());
    let output = dray(&dir, &["job", "create", "--journal", "job.jrn"]);
    assert_eq!(code(&output), 0, "{}", said(&output));
    fs::remove_file(dir.join("import-2026.job.json")).expect("a job");

    // Files of two sessions in one directory.
    let other = done("WD-2").replace(HASH, "A83528760000000000000000000000AA");
    journal(&dir, &[begun.clone(), done("WD-1"), other, session("s-1", "Completed")]);
    refused(&dir, "holds another ManifestHash than the journal, which says A8352876", None);
    let other = done("WD-9").replace("DriveRecord: WD-9.xml", "DriveRecord: WD-2.xml");
    journal(&dir, &[begun.clone(), done("WD-1"), other, session("s-1", "Completed")]);
    refused(&dir, "names another drive than the journal, which says WD-9", None);

    // The right hash with a key that opens another drive, or with another path.
    let record = dray_engine::api::records::read_record(&dir.join("WD-2.xml")).expect("a record");
    let check = dray_engine::api::records::key_check("WD-2", record.bitlocker_key.as_ref().expect("a key"))
        .expect("a check value");
    let held = |check: &str, path: &str| {
        let field = format!("ManifestHash: {HASH}\r\nManifestFile: {path}\r\nKeyCheck: {check}");
        done("WD-2").replace(&format!("ManifestHash: {HASH}"), &field)
    };
    journal(
        &dir,
        &[begun.clone(), done("WD-1"), held("0011223344556677", "\\DriveManifest.xml"), session("s-1", "Completed")],
    );
    refused(
        &dir,
        "holds another key than the drive was prepared with; the journal has check value 0011223344556677",
        None,
    );
    journal(&dir, &[begun.clone(), done("WD-1"), held(&check, "\\Other.xml"), session("s-1", "Completed")]);
    refused(&dir, "holds another ManifestFile than the journal, which says \\Other.xml", None);
    journal(&dir, &[begun.clone(), done("WD-1"), held(&check, "\\DriveManifest.xml"), session("s-1", "Completed")]);
    let output = dray(&dir, &["job", "create", "--journal", "job.jrn"]);
    assert_eq!(code(&output), 0, "{}", said(&output));
    fs::remove_file(dir.join("import-2026.job.json")).expect("a job");
    // Drives are listed in the order in which they were given, not in which they were started.
    let place = |id: &str, place: &str| drive("s-1", id, "Started", &[("DrivePlace", place)]);
    let parts = [begun.clone(), place("WD-2", "1"), place("WD-1", "0"), done("WD-2"), done("WD-1")];
    journal(&dir, &[&parts[..], &[session("s-1", "Completed")]].concat());
    let listed = said(&dray(&dir, &["prep-import", "--journal", "job.jrn", "--list-drives"]));
    assert!(listed.find("WD-1 ") < listed.find("WD-2 "), "{listed}");

    // Not for shipping.
    let image = done("WD-2").replace("ForShipping: Yes", "ForShipping: No");
    journal(&dir, &[begun.clone(), done("WD-1"), image, session("s-1", "Completed")]);
    refused(&dir, "not for shipping", Some("--not-for-shipping"));
    let output = dray(&dir, &["job", "create", "--journal", "job.jrn", "--not-for-shipping", "--submit"]);
    assert_eq!(code(&output), 1, "{}", said(&output));
    let old = done("WD-2").replace("ForShipping: Yes", "DriveName: /dev/loop7");
    journal(&dir, &[begun.clone(), done("WD-1"), old, session("s-1", "Completed")]);
    refused(&dir, "not for shipping", Some("--not-for-shipping"));

    // A journal that cannot be relied on.
    let damaged = both().concat().replacen("[EndUpdateRecord]", "rubbish", 1);
    fs::write(dir.join("job.jrn"), damaged).expect("written");
    let output = dray(&dir, &["job", "create", "--journal", "job.jrn"]);
    assert!(code(&output) != 0 && said(&output).contains("damaged"), "{}", said(&output));
}

#[test]
fn a_drive_goes_into_one_job() {
    let dir = ready("job-twice");
    let elsewhere = ready("job-twice-elsewhere");
    let create = |more: &[&str]| dray(&dir, &[&["job", "create"], more].concat());
    assert_eq!(code(&create(&["WD-1.xml"])), 0);
    let output = create(&["WD-2.xml", "WD-1.xml", "--name", "second"]);
    assert_eq!(code(&output), 2, "{}", said(&output));
    let text = words(&output);
    assert!(text.contains("drive WD-1") && text.contains("in job import-2026 already, which is Drafted"), "{text}");
    assert_eq!(code(&create(&["WD-2.xml", "--name", "second"])), 0);
    // One that lies elsewhere is named.
    let first = dir.join("import-2026.job.json").display().to_string();
    let output = dray(&elsewhere, &["job", "create", "WD-1.xml", &first]);
    assert_eq!(code(&output), 2, "{}", said(&output));
    // Its own file does not count, nor one that is over.
    assert_eq!(code(&create(&["WD-1.xml", "--replace"])), 0);
    assert_eq!(code(&dray(&dir, &["job", "cancel", "import-2026.job.json"])), 0);
    let output = create(&["WD-1.xml", "--name", "third"]);
    assert_eq!(code(&output), 0, "{}", said(&output));
    // An unreadable file that may list a drive prevents the job.
    fs::write(dir.join("torn.job.json"), "{").expect("written");
    let output = create(&["WD-2.xml", "--name", "fourth"]);
    assert!(code(&output) != 0 && words(&output).contains("torn.job.json: is not JSON"), "{}", said(&output));
}

#[test]
fn a_template_that_nobody_filled_in_makes_no_job() {
    let dir = scratch("job-placeholders");
    record(&dir, "WD-1", KEY, "Completed");
    for (kind, lines) in [("job", 10), ("export-job", 13)] {
        let template = dray(&dir, &["template", kind]);
        fs::write(dir.join("job.toml"), &template.stdout).expect("written");
        let args: &[&str] = if kind == "job" { &["job", "create", "WD-1.xml"] } else { &["job", "create"] };
        let output = dray(&dir, args);
        assert_eq!(code(&output), 1, "{}", said(&output));
        assert_eq!(words(&output).matches("still is what the template says").count(), lines, "{}", said(&output));
    }
}

/// Case: selections and serials that the service's API cannot hold.
#[test]
fn exports_that_cannot_be_are_told_together() {
    let dir = scratch("job-export-wrong");
    let template = dray(&dir, &["template", "export-job"]);
    let text = filled_in(&String::from_utf8_lossy(&template.stdout))
        .replace("\"films/story.mp4\"", "\"https://a.blob.core.windows.net/videos/x\", \"Videos/x\", \"$root/a/b\"")
        .replace("ZL2ABC12", "ZL2 ABC 12");
    fs::write(dir.join("job.toml"), text).expect("written");
    let output = dray(&dir, &["job", "create", "--body", "body.json"]);
    assert_eq!(code(&output), 1, "{}", said(&output));
    for part in ["it is an address", "container name holds 'V'", "root container cannot hold /", "ZL2 ABC 12"] {
        assert!(words(&output).contains(part), "{part}: {}", said(&output));
    }
    assert!(!dir.join("body.json").exists());
}

/// Two sessions on an image: every list and paper counts both, and the last message names all records of the journal.
#[test]
fn lists_and_last_words_know_all_sessions() {
    let session = Session::new("job-two-sessions");
    session.source(|data| {
        for i in 0..6 {
            data.file(format!("f{i}"), 1000).expect("a file");
        }
    });
    session.driveset(&[session.path("a.img:100MB").display().to_string()]);
    let first = session.prepare(&[]);
    for part in ["The drive records of the journal", "a.xml"] {
        assert!(first.contains(part), "{part}: {first}");
    }
    let journal = session.path("journal.jrn");
    let journal = journal.to_str().expect("UTF-8");
    let more = session.path("more");
    fs::create_dir_all(&more).expect("a directory");
    (0..4).for_each(|i| fs::write(more.join(format!("m{i}")), vec![7; 500]).expect("a file"));
    session.dataset(&[&format!("\"{}/\",data/more/,BlockBlob,rename,None,None", more.display())]);
    let dataset = session.path("dataset.csv");
    let dataset = dataset.display();
    session.works(&format!("prep-import --journal {journal} --id session#2 --dataset {dataset} --silent"));
    // A third one with a drive of its own.
    session.driveset(&[session.path("b.img:100MB").display().to_string()]);
    fs::write(more.join("m9"), vec![9; 7]).expect("a file");
    session.dataset(&[&format!("\"{}\",data/m9,BlockBlob,rename,None,None", more.join("m9").display())]);
    let drives = session.path("driveset.csv");
    let third = session.works(&format!(
        "prep-import --journal {journal} --id session#3 --dataset {dataset} --additional-driveset {} --silent",
        drives.display()
    ));
    for part in ["The drive records of the journal", "a.xml", "b.xml"] {
        assert!(third.contains(part), "{part}: {third}");
    }
    let output = session.dray(&format!("job create --journal {journal}"));
    assert!(words(&output).contains("was prepared as not for shipping"), "{}", said(&output));
    let listed = said(&session.dray(&format!("prep-import --journal {journal} --list-drives --json")));
    let sum = |field: &str| -> u64 {
        let drives = listed.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        drives.filter_map(|drive| drive[field].as_u64()).sum()
    };
    assert_eq!((sum("files"), sum("data")), (11, 6 * 1000 + 4 * 500 + 7), "{listed}");
}
