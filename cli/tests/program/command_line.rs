//! The binary's command line: documented forms, help, exit codes, and values that must never be printed.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::common::{code, dray_in, run, said as text, scratch};

fn dray(args: &[&str]) -> Output {
    dray_in(Path::new(env!("CARGO_TARGET_TMPDIR")), args)
}

/// Every form of PrepImport (docs/spec/import-export.md#prepimport-v2), and whether it reaches the engine (a valid
/// command line).
#[test]
fn documented_second_generation_lines_are_taken_word_for_word() {
    let dir = scratch("documented");
    for line in [
        "PrepImport /j:JournalTest.jrn /id:session#1 /logdir:logs /sk:TOPSECRET== /silentmode \
         /InitialDriveSet:driveset-1.csv /DataSet:dataset-1.csv",
        "PrepImport /j:JournalTest.jrn /id:session#1 /InitialDriveSet:driveset-1.csv /DataSet:dataset-1.csv",
        "PrepImport /j:JournalTest.jrn /id:session#2 /DataSet:dataset-2.csv",
        "PrepImport /j:JournalTest.jrn /id:session#2 /AdditionalDriveSet:driveset-2.csv",
        "PrepImport /j:JournalTest.jrn /id:session#2 /ResumeSession",
        "PrepImport /j:JournalTest.jrn /id:session#2 /AbortSession",
        "PrepImport /j:JournalTest.jrn /id:session#1 DataSet:dataset-1.csv InitialDriveSet:driveset-1.csv",
        "PREPIMPORT /J:/tmp/none/x.jrn /ID:session_1 /LOGDIR:/tmp/none /dataset:/tmp/none/d.csv",
    ] {
        for name in ["dray", "WAImportExport", "/opt/tools/WAImportExport.exe", "waimportexport.EXE"] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_dray"));
            let output = run(command.arg0(name).args(line.split_whitespace()).current_dir(&dir));
            let said = text(&output);
            for wrong in ["unknown parameter", "unexpected", "> is missing", "did you mean", "TOPSECRET", "Usage:"] {
                assert!(!said.contains(wrong), "{name} {line}: {said}");
            }
            assert_ne!(code(&output), 0, "the files are not there: {line}");
        }
    }
    assert_eq!(fs::read_dir(&dir).expect("scratch").count(), 0, "nothing may be written");
}

#[test]
fn the_repairs_of_the_windows_tool_name_what_is_missing() {
    for line in ["RepairImport /r:x", "repairexport /r:x", "RepairExport"] {
        let output = dray(&line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(code(&output), 1);
        assert!(text(&output).contains("/CopyLogFile:"), "{}", text(&output));
    }
}

#[test]
fn secrets_never_come_back() {
    for args in [
        &["PrepImport", "/j:a.jrn", "/id:abc", "/sk:TOPSECRET", "/DataSet:none.csv"][..],
        &["PrepImport", "/j:a.jrn", "/id:abc", "/sk:", "TOPSECRET", "/DataSet:none.csv"],
        &["PrepImport", "/j:a.jrn", "/id:abc", "/csas:c?sig=TOPSECRET", "/DataSet:none.csv", "--json"],
        &["PrepImport", "/j:a.jrn", "/id:abc", "/t:x", "/bk:TOPSECRET", "/srcdir:/a", "/dstdir:c/"],
        &["PrepImport", "/j:a.jrn", "/id:abc", "/kk:TOPSECRET"],
        &["PrepImport", "/j:a.jrn", "/id:abc", "--sk=TOPSECRET"],
        &["prep-import", "--journal", "a.jrn", "--id", "abc", "--sk=TOPSECRET"],
        &["prep-import", "--journal", "a.jrn", "--id", "abc", "--sk", "TOPSECRET"],
        &["prep-import", "/sk:TOPSECRET"],
        &["prep-import", "--journal", "a.jrn", "/sk:TOPSECRET"],
        &["prep-import", "--journal", "a.jrn", "--id", "abc", "TOPSECRET"],
        &["PreviewExport", "/sk:TOPSECRET"],
        &["Unlock", "/bk:TOPSECRET"],
        &["Unlock", "/externalKey:TOPSECRET", "/driveLetter:/nonexistent"],
        &["Unlock", "TOPSECRET", "/driveLetter:/nonexistent"],
        &["unlock", "/nonexistent", "--key=TOPSECRET"],
        &["unlock", "/nonexistent", "--bk", "TOPSECRET"],
        &["Unknown", "/sk:TOPSECRET"],
    ] {
        let output = dray(args);
        assert!(!text(&output).contains("TOPSECRET"), "{args:?}: {}", text(&output));
        assert_ne!(code(&output), 0);
    }
}

#[test]
fn usage_errors_are_one_and_name_the_near_miss() {
    for (args, near) in [
        (&["prep-imprt"][..], "prep-import"),
        (&["prep-import", "--jurnal", "x"], "--journal"),
        (&["prep-import", "--journal", "x"], "--id"),
        (&["prep-import", "--journal", "j", "--id", "abc", "--dataset", "f", "--cipher", "aes-cbc-25"], "aes-cbc-256"),
        (&["prep-import", "--journal", "j", "--id", "abc", "--resume", "--abort"], "--abort"),
        (&["PrepImport", "/j:x", "/id:abc", "/DataSets:f"], "/DataSet?"),
        (&["PrepImprt", "/j:x"], "PrepImport"),
        (&["inspct", "x"], "inspect"),
        (&["decrypt", "x", "--too", "y"], "--to"),
        (&["decrypt", "x"], "--to"),
        (&["ls", "x", "--key-fil", "y"], "--key-file"),
        (&["PrepImport", "/j:x"], "/id:<session>"),
    ] {
        let output = dray(args);
        assert_eq!(code(&output), 1, "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        assert!(text(&output).contains(near), "{args:?}: {}", text(&output));
    }
}

#[test]
fn problems_of_a_request_are_told_together_with_exit_code_one() {
    let output = dray(&["prep-import", "--journal", "j", "--id", "a b", "--resume", "--dataset", "f"]);
    let said = text(&output);
    assert_eq!(code(&output), 1, "{said}");
    assert!(said.contains("session id is not valid") && said.contains("takes no dataset"), "{said}");
    assert!(said.contains("3 problems"), "{said}");
}

#[test]
fn json_is_one_object_a_line_and_nothing_else() {
    let output = dray(&["PrepImport", "j:j.jrn", "/id:a!", "/DataSet:f", "--json"]);
    assert_eq!(code(&output), 1);
    assert!(output.stderr.is_empty(), "{}", text(&output));
    let stdout = String::from_utf8(output.stdout).expect("UTF-8");
    let objects: Vec<serde_json::Value> =
        stdout.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let types: Vec<&str> = objects.iter().map(|object| object["type"].as_str().expect("type")).collect();
    assert_eq!(types[..2], ["warning", "problem"], "{stdout}");
    for object in &objects {
        assert_eq!(object["schema"], 1);
        assert!(object["at"].as_str().expect("at").ends_with('Z'));
    }
    assert_eq!(objects[1]["kind"], "usage");
    assert_eq!(objects[1]["value"], "a!");
}

#[test]
fn help_fits_eighty_columns_and_names_the_exit_codes() {
    for args in [
        &["--help"][..],
        &["-h"],
        &[],
        &["prep-import", "--help"],
        &["prep-import", "-h"],
        &["plan", "--help"],
        &["demo", "--help"],
        &["inspect", "--help"],
        &["ls", "--help"],
        &["cat", "-h"],
        &["decrypt", "--help"],
        &["unlock", "-h"],
        &["Unlock", "/?"],
        &["PrepImport", "/?"],
        &["PrepImport", "--help"],
    ] {
        let output = dray(args);
        assert_eq!(code(&output), 0, "{args:?}");
        let help = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(!help.is_empty() && output.stderr.is_empty(), "{args:?}");
        for line in help.lines() {
            assert!(line.chars().count() <= 80, "{args:?}: {line}");
        }
    }
    // A plan writes nothing: exit codes of writing are not among its own.
    let plan = text(&dray(&["plan", "--help"]));
    assert!(
        plan.contains("Exit codes:") && plan.contains("  2  refused for safety") && !plan.contains("130"),
        "{plan}"
    );
    for args in [&["--help"][..], &["prep-import", "--help"]] {
        let help = text(&dray(args));
        for part in ["Exit codes:", "  2  refused for safety", "130  interrupted"] {
            assert!(help.contains(part), "{args:?}: {help}");
        }
    }
}

#[test]
fn help_shows_every_command() {
    let help = text(&dray(&["--help"]));
    for command in ["prep-import", "verify", "completions", "man "] {
        assert!(help.contains(&format!("\n  {command}")), "{command}: {help}");
    }
}

#[test]
fn the_windows_name_without_arguments_shows_the_classic_help() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dray"));
    let output = run(command.arg0("WAImportExport.exe"));
    assert_eq!(code(&output), 0);
    assert!(text(&output).contains("PrepImport /j:<journal>"));
}

#[test]
fn the_demo_leaves_foreign_directories_alone() {
    let dir = scratch("foreign");
    fs::write(dir.join("data"), "mine").expect("a file");
    let output = dray(&["demo", "--dir", dir.to_str().expect("UTF-8")]);
    assert_eq!(code(&output), 2, "{}", text(&output));
    assert_eq!(fs::read(dir.join("data")).expect("still there"), b"mine");
    assert_eq!(fs::read_dir(&dir).expect("scratch").count(), 1);
}

#[test]
fn the_demo_lays_out_the_same_dataset_twice_and_keeps_on_request() {
    let dir = scratch("demo");
    let there = dir.join("d");
    let name = there.to_str().expect("UTF-8");
    let _ = dray(&["demo", "--dir", name]);
    let first = fs::read(there.join("data/large/three-blocks.bin")).expect("made");
    fs::write(there.join("notes.txt"), "mine").expect("a file of the user");
    let _ = dray(&["demo", "--dir", name, "--quiet"]);
    assert!(first == fs::read(there.join("data/large/three-blocks.bin")).expect("made"));
    assert!(there.join("notes.txt").exists(), "what no demo made stays");
    assert_eq!(code(&dray(&["demo", "--dir", name, "--keep"])), 2);
    let dataset = fs::read_to_string(there.join("dataset.csv")).expect("made");
    assert!(dataset.starts_with("BasePath,DstItemPathOrPrefix,ItemType") && dataset.contains("/data/\""), "{dataset}");
}

#[test]
fn completions_and_man_pages_come_from_the_same_definition() {
    for shell in ["bash", "zsh", "fish"] {
        let output = dray(&["completions", shell]);
        assert_eq!(code(&output), 0);
        assert!(text(&output).contains("initial-driveset"), "{shell}");
    }
    let dir = scratch("man");
    assert_eq!(code(&dray(&["man", dir.to_str().expect("UTF-8")])), 0);
    let page = fs::read_to_string(dir.join("dray-prep-import.1")).expect("a page");
    assert!(page.contains("initial") && page.contains("EXIT STATUS"), "{page}");
    assert!(dir.join("dray-session-list.1").is_file() && dir.join("dray-job-list.1").is_file());
    // Both tables are explained where they are used.
    let help = text(&dray(&["prep-import", "--help"]));
    for table in ["dataset", "driveset"] {
        let rows = text(&dray(&["template", table]));
        for column in rows.lines().next().expect("a head").split(',') {
            let name = column.replace("DstItemPathOrPrefix", "DstBlobPathOrPrefix").replace("ItemType", "BlobType");
            assert!(help.contains(&format!("\n  {name}\n")) && page.contains(&name), "{name}: {help}");
        }
    }
    assert_eq!(code(&dray(&["man", "/nonexistent/dir"])), 8);
}

#[test]
fn colour_is_wanted_or_not_there() {
    let args = ["prep-import", "--journal", "j", "--id", "!", "--resume"];
    let plain = dray(&args);
    assert!(!text(&plain).contains('\x1b'));
    let always = dray(&[&args[..], &["--color", "always"]].concat());
    assert!(text(&always).contains('\x1b'));
}

#[test]
fn devices_and_doctor_tell_objects_and_change_nothing() {
    let objects = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_dray")).args(args).output().expect("the binary runs");
        let text = String::from_utf8(output.stdout).expect("text");
        let parse = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("an object a line");
        (output.status.code(), text.lines().map(parse).collect::<Vec<_>>())
    };
    let (exit, checks) = objects(&["doctor", "--json"]);
    let bad = checks.iter().any(|check| check["state"] == "bad");
    assert_eq!(exit, Some(if bad { 8 } else { 0 }), "{checks:?}");
    let names: Vec<_> = checks.iter().filter_map(|check| check["what"].as_str()).collect();
    assert_eq!(
        names,
        ["kernel", "io_uring", "locked memory", "huge pages", "memory", "processor", "permissions", "smartctl"]
    );
    for check in &checks {
        assert_eq!(check["state"] == "good", check["remedy"].is_null(), "{check}");
    }
    let (exit, disks) = objects(&["devices", "--json", "--all"]);
    assert_eq!(exit, Some(0));
    for disk in &disks {
        assert!(disk["size"].as_u64().is_some_and(|size| size > 0), "{disk}");
        assert_eq!(disk["verdict"] == "refused", disk["refusals"].as_array().is_some_and(|all| !all.is_empty()));
    }
}

#[test]
fn help_and_version_are_words_too() {
    for (words, like) in [
        (&["help"][..], &["--help"][..]),
        (&["help", "job", "create"], &["job", "create", "--help"]),
        (&["version"], &["--version"]),
    ] {
        let (one, other) = (dray(words), dray(like));
        assert_eq!((code(&one), text(&one)), (0, text(&other)), "{words:?}");
    }
    assert_eq!(code(&dray(&["help", "verfy"])), 1);
}

#[test]
fn help_stands_under_its_own_heading_and_is_broken_once() {
    for args in [&["ls"][..], &["cat"], &["decrypt"], &["inspect"], &["unlock"], &["verify"], &["check"], &["template"]]
    {
        let said = text(&dray(&[args, &["--help"]].concat()));
        let key = said.split("\nKey:").nth(1).map(|rest| rest.split("\n\n").take(4).collect::<String>());
        for foreign in ["--recursive", "[PATH]", "--to ", "--files", "--ask"] {
            let is_foreign =
                key.as_deref().is_some_and(|key| key.split("\nO").next().unwrap_or_default().contains(foreign));
            assert!(!is_foreign, "{args:?}: {foreign} is no key: {said}");
        }
        // A line that ends early, before a word that had room, was broken by hand and then by the width.
        let lines: Vec<&str> = said.lines().collect();
        for pair in lines.windows(2) {
            let is_prose = |line: &str| line.starts_with(|c: char| c.is_ascii_alphabetic());
            let next = pair[1].split(' ').next().unwrap_or_default();
            let had_room = pair[0].len() + 1 + next.len() < 70;
            let goes_on = pair[1].starts_with(|c: char| c.is_ascii_lowercase()) && is_prose(pair[0]);
            assert!(!(goes_on && had_room), "{args:?}: {:?} {:?}", pair[0], pair[1]);
        }
    }
    let plan = text(&dray(&["plan", "--help"]));
    for absent in ["--abort", "--dry-run", "--yes", "--list-drives", "--rebuild-journal", "130", "  4  "] {
        assert!(!plan.contains(absent), "{absent}: {plan}");
    }
    assert!(plan.contains("--report") && plan.contains("--cipher"), "{plan}");
    let columns = text(&dray(&["template", "--help"]));
    for column in ["DstBlobPathOrPrefix", "Disposition", "FormatOption", "ExistingBitLockerKey"] {
        assert!(columns.contains(column), "{column}: {columns}");
    }
}

#[test]
fn a_bad_value_of_a_variable_names_the_variable() {
    let run = |typed: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_dray"));
        command.args(["plan", "--journal", "j", "--id", "abc", "--dataset", "f"]).args(typed);
        command.env("DRAY_CIPHER", "bogus").output().expect("runs")
    };
    assert!(text(&run(&[])).contains("DRAY_CIPHER"), "{}", text(&run(&[])));
    assert!(!text(&run(&["--cipher", "bogus2"])).contains("DRAY_CIPHER"));
}
