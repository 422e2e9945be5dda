//! Measuring drives: several at once, for a while, against a requirement and against an earlier time.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

use crate::common::{Session, code, dray, run, words};

const QUICK: [&str; 8] = ["--seconds", "0.1", "--curve", "0", "--blocks", "1M", "--depths", "2"];

fn bench(session: &Session, line: &[&str]) -> Output {
    run(dray(["bench"]).args(line).args(QUICK).current_dir(&session.dir))
}

fn objects(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).expect("an object")).collect()
}

#[test]
fn drives_are_measured_at_once_required_and_compared() {
    let session = Session::new("bench");
    for name in ["a.img", "b.img"] {
        fs::write(session.path(name), vec![7; 40 << 20]).expect("an image");
    }
    let both = bench(&session, &["a.img", "b.img", "--minutes", "0.05", "--require", "1M", "--json"]);
    assert_eq!(code(&both), 0, "{}", words(&both));
    let told = objects(&both);
    assert_eq!(
        told.iter().map(|one| one["type"].as_str()).collect::<Vec<_>>(),
        [Some("bench"), Some("bench"), Some("bench-together")]
    );
    for one in &told[..2] {
        let run = &one["run"];
        assert!((2.5..6.0).contains(&run["whole"]["seconds"].as_f64().expect("seconds")), "{run}");
        let stretches = run["stretches"].as_array().expect("stretches");
        assert!(stretches.len() >= 4, "{run}");
        let sum: u64 = stretches.iter().map(|one| one["bytes"].as_u64().expect("bytes")).sum();
        let whole = run["whole"]["bytes"].as_u64().expect("bytes");
        assert!(sum <= whole && sum * 2 > whole, "{run}");
        assert_eq!(one["link"]["cable_errors"], Value::Null, "a file has no link");
    }
    let rates: f64 = told[..2].iter().map(|one| one["run"]["whole"]["rate"].as_f64().expect("a rate")).sum();
    assert!((told[2]["rate"].as_f64().expect("a rate") / rates - 1.0).abs() < 1e-6, "{}", told[2]);

    fs::write(session.path("earlier.jsonl"), &both.stdout).expect("an earlier measurement");
    let slow = bench(&session, &["b.img", "--require", "900GB/s", "--compare", "earlier.jsonl", "--json"]);
    assert_eq!(code(&slow), 4, "{}", words(&slow));
    let told_again = objects(&slow);
    let compared = &told_again[0]["compared"];
    assert_eq!(compared["at"], told[1]["at"], "{compared}");
    let [then, rate] =
        [&compared["rates"][0]["then"], &told[1]["sweep"][0]["rate"]].map(|one| one.as_f64().expect("a rate"));
    assert!((then / rate - 1.0).abs() < 1e-9, "{compared}");
    assert_eq!(told_again[1]["type"], "problem");
    let value = told_again[1]["value"].as_str().expect("a value");
    assert!(value.ends_with("; 900000 MB/s are required"), "{value}");
    let none = bench(&session, &["a.img", "--compare", "a.img"]);
    assert!(code(&none) == 1 && words(&none).contains("holds no measurement"), "{}", words(&none));
    assert_eq!(code(&bench(&session, &["a.img", "./a.img"])), 1, "one drive twice");
    fs::remove_dir_all(&session.dir).expect("removed");
}

#[test]
fn judge_what_a_write_leaves_of_a_drive() {
    let session = Session::new("bench-write");
    let made = run(dray(["format", "drive.img:100MB", "--no-encryption", "--label", "OLD"]).current_dir(&session.dir));
    assert_eq!(code(&made), 0, "{}", words(&made));
    let signatures = || Command::new("wipefs").args(["-n", "--noheadings"]).arg(session.path("drive.img")).output();
    let before = signatures().map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    assert_eq!(code(&bench(&session, &["drive.img", "--write"])), 2, "not without consent");
    let written = bench(&session, &["drive.img", "--write", "--yes", "drive", "--minutes", "0.02"]);
    assert_eq!(code(&written), 0, "{}", words(&written));
    match before {
        Ok(before) => {
            assert!(before.contains("gpt") || before.contains("PMBR"), "{before}");
            let after = signatures().expect("wipefs");
            assert_eq!(String::from_utf8_lossy(&after.stdout), "", "nothing of a table, at either end");
        }
        Err(error) => eprintln!("SKIPPED judge: wipefs: {error}"),
    }
    let looked = session.dray("inspect drive.img");
    assert!(!words(&looked).contains("GPT"), "{}", words(&looked));
    fs::remove_dir_all(&session.dir).expect("removed");
}
