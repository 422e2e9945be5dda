//! Output for users and their programs: objects as in the schema, pages, templates, settings, logs without secrets.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{Session, code, dray_in as dray, key_in, said, scratch};

fn session(name: &str) -> Session {
    let session = Session::new(name);
    fs::create_dir_all(session.path("data/deep")).expect("a directory");
    fs::write(session.path("data/a.txt"), "hello").expect("a file");
    fs::write(session.path("data/deep/b.bin"), vec![7; 5_000_000]).expect("a file");
    std::os::unix::fs::symlink("a.txt", session.path("data/link")).expect("a link");
    session.dataset(&[&format!("\"{}/\",con/,BlockBlob", session.path("data").display())]);
    session.driveset(&[format!("{}:128MB", session.path("drive.img").display())]);
    session
}

/// Checks lines of objects against the schema, every field of them.
pub fn described(lines: &[u8]) -> Option<String> {
    let output = dray_testdisks::judge::script::<&str>("check_events.py", &[], lines).expect("Python");
    if code(&output) == 3 {
        eprintln!("SKIPPED judge: {}", said(&output).trim());
        return None;
    }
    assert_eq!(code(&output), 0, "{}", said(&output));
    Some(said(&output))
}

/// Types that occur only with accidents, after a long time, or with the service and an account.
const SELDOM: [&str; 19] = [
    "scanning",
    "drive_failed",
    "note",
    "keys",
    "audit",
    "audited",
    "source_changed",
    "hashing",
    "imported",
    "job_logs",
    "listing_blobs",
    "location",
    "not_exported",
    "preview",
    "reading_back",
    "repair",
    "repaired",
    "repairing",
    "repairing_export",
];

#[test]
fn every_object_is_as_the_schema_says() {
    let session = session("schema");
    let mut lines = Vec::new();
    let mut run = |args: &str, wanted: i32| {
        let words: Vec<&str> = args.split(' ').chain(["--json"]).collect();
        let output = dray(&session.dir, &words);
        assert_eq!(code(&output), wanted, "{args:?}: {}", said(&output));
        lines.extend(output.stdout);
    };
    run("check dataset.csv driveset.csv", 0);
    run("template job", 0);
    run("config show", 0);
    run("config show plan", 0);
    run("check nothing.csv", 1);
    run("devices --all", 0);
    run("PrepImport j:j.jrn /id:a! /DataSet:f", 1);
    // A file of the kernel with a reported length above its contents: it is left out.
    let changing = "/sys/kernel/mm/transparent_hugepage/enabled";
    let rows = format!(
        "BasePath,DstItemPathOrPrefix,ItemType\n\"{}/\",con/,BlockBlob\n{changing},con/x,BlockBlob\n",
        session.path("data").display()
    );
    fs::write(session.path("dataset.csv"), rows).expect("a dataset");
    let is_there = Path::new(changing).is_file();
    if !is_there {
        session.dataset(&[&format!("\"{}/\",con/,BlockBlob", session.path("data").display())]);
    }
    let prep = "prep-import --journal j.jrn --id s#1 --initial-driveset driveset.csv --dataset dataset.csv --silent \
                --not-for-shipping --drive-id D1 --source-rate 8M";
    run(prep, if is_there { 3 } else { 0 });
    run(&prep.replace("s#1", "s#2"), 2);
    run("prep-import --journal j.jrn --list-drives", 0);
    fs::write(
        session.path("one.csv"),
        "DriveLetter,FormatOption,SilentOrPromptOnFormat,Encryption\nnew.img:128MB,Format,PromptOnFormat,Encrypt\n",
    )
    .expect("a driveset");
    run("plan --journal p.jrn --id p#1 --initial-driveset one.csv --dataset dataset.csv --shards shards", 0);
    run("plan --dataset dataset.csv --drive-size 500GB", 0);
    run("shard status shards", 6);
    run("shard merge shards --journal merged.jrn", 6);
    run("prep-import --journal j.jrn --list-copy-sessions", 0);
    let drive = "drive.img --key-file D1.xml";
    run("inspect drive.img", 0);
    run(&format!("inspect {drive} --files"), 0);
    run(&format!("ls {drive}"), 0);
    run(&format!("unlock {drive}"), 0);
    run(&format!("decrypt {drive} --to plain.img"), 0);
    run("inspect plain.img", 0);
    run("verify plain.img --all --extract-to whole", 0);
    run("acquire drive.img --to kept.img", 0);
    run("compare drive.img kept.img --key-file D1.xml", 0);
    run("write drive.img kept.img --yes kept", 0);
    run("erase kept.img --keys --yes kept", 0);
    let finish = format!("--on-finish cat>{}", session.path("finish.json").display());
    run(&format!("verify {drive} --list all.jsonl --extract-to out --journal j.jrn {finish}"), 0);
    run("verify drive.img --key-file D1.xml --manifest nothing.xml", 1);
    fs::write(session.path("account.key"), "c2VjcmV0").expect("a key");
    // Nobody listens there.
    let nowhere = "--endpoint http://127.0.0.1:1/devstoreaccount1 --account-key-file account.key --retry-for 0";
    run(&format!("ingest drive.img --record D1.xml {nowhere}"), 8);
    run("rehearse drive.img --record D1.xml --logs rehearsed", 0);
    run("repair-export drive.img --key-file D1.xml --from data", 0);
    run("bench drive.img --seconds 0.05 --curve 2 --blocks 1M --depths 1 --report bench.html", 0);
    fs::write(session.path("second.img"), vec![1; 16 << 20]).expect("an image");
    run("bench drive.img second.img --seconds 0.05 --curve 2 --blocks 1M --depths 1", 0);
    crate::job::described(&session.dir);
    run("job create --journal j.jrn --not-for-shipping", 0);
    run("job papers import-2026.job.json", 0);
    let custody = || fs::read_to_string(session.path("import-2026-chain-of-custody.html")).expect("a page");
    assert!(custody().contains("No verification was given") && !custody().contains("Equal"), "{}", custody());
    run("job papers import-2026.job.json --verified finish.json", 0);
    assert!(custody().contains("Verified") && custody().contains("Equal, 2 blobs, 20"), "{}", custody());
    run("job papers import-2026.job.json --verified dataset.csv", 1);
    run("job ship import-2026.job.json --carrier FedEx --tracking 1", 0);
    run("job show import-2026.job.json", 0);
    run("job list", 0);
    run("session list", 0);
    run("session show j.jrn --id s#1", 0);
    // A session that waits for another drive can be rolled back.
    fs::create_dir_all(session.path("more")).expect("a directory");
    for name in ["a", "b"] {
        fs::File::create(session.path("more").join(name)).and_then(|file| file.set_len(60_000_000)).expect("a file");
    }
    session.dataset(&[&format!("\"{}/\",con/,BlockBlob", session.path("more").display())]);
    session.driveset(&[format!("{}:128MB", session.path("other.img").display())]);
    run(
        "prep-import --journal k.jrn --id s#1 --initial-driveset driveset.csv --dataset dataset.csv --silent \
         --not-for-shipping --drive-id D2 --what-fits",
        6,
    );
    run("prep-import --journal k.jrn --id s#1 --abort --dry-run", 0);
    run("prep-import --journal k.jrn --id s#1 --abort --yes D2", 0);
    // Deficiencies of the machine are not this test's subject.
    lines.extend(dray(&session.dir, &["doctor", "--json"]).stdout);
    let finish = fs::read(session.path("finish.json")).expect("told");
    let reported: serde_json::Value = serde_json::from_slice(&finish).expect("JSON");
    assert_eq!((&reported["command"], &reported["result"]["good"]), (&"verify".into(), &true.into()), "{reported}");
    lines.extend(finish);
    let list = fs::read_to_string(session.path("all.jsonl")).expect("a list");
    assert!(list.lines().count() == 2 && list.lines().all(|line| line.starts_with("{\"blob\":")), "{list}");
    let Some(reported) = described(&lines) else { return };
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/events.schema.json");
    let schema: serde_json::Value = serde_json::from_slice(&fs::read(schema).expect("a schema")).expect("JSON");
    let kinds = schema["$defs"].as_object().expect("definitions").keys().filter_map(|key| key.strip_prefix("of_"));
    let rare = |kind: &str| SELDOM.contains(&kind) || kind == "left_out" && !is_there;
    for kind in kinds.filter(|kind| !rare(kind)) {
        assert!(reported.split_whitespace().any(|word| word.starts_with(&format!("{kind}="))), "no {kind}: {reported}");
    }
}

#[test]
fn who_is_told_at_the_end_gets_one_object() {
    let session = session("finish");
    let command = format!("cat > {}", session.path("told.json").display());
    let output = session.run(&["--not-for-shipping", "--drive-id", "D1", "--on-finish", &command]);
    assert_eq!(code(&output), 0, "{}", said(&output));
    let reported = fs::read(session.path("told.json")).expect("told");
    let value: serde_json::Value = serde_json::from_slice(&reported).expect("JSON");
    assert_eq!(value["exit_code"], 0);
    assert_eq!(value["command"], "prep-import");
    assert_eq!(value["result"]["drives"][0]["drive"]["drive_id"], "D1");
    assert!(described(&reported).is_none_or(|reported| reported.contains("finish=1")));
    // Whatever a command ends with is among the problems.
    for (words, exit, kind) in [
        ("verify drive.img --key-file D1.xml --only con/nothing", 1, "usage"),
        ("verify drive.img --key-file D1.xml --manifest-hash 00112233445566778899AABBCCDDEEFF", 5, "different"),
        ("verify drive.img --key-file D1.xml --manifest-hash 00112233445566778899AABBCCDDEEFF --json", 5, "different"),
        ("ls drive.img nothing --key-file D1.xml", 1, "usage"),
        ("bench nothing.img", 1, "usage"),
        ("verify nothing.img --key-file D1.xml", 1, "usage"),
    ] {
        let words: Vec<&str> = words.split(' ').chain(["--on-finish", &command]).collect();
        let output = dray(&session.dir, &words);
        assert_eq!(code(&output), exit, "{words:?}: {}", said(&output));
        let reported = fs::read(session.path("told.json")).expect("reported");
        let value: serde_json::Value = serde_json::from_slice(&reported).expect("JSON");
        let kinds: Vec<_> = value["problems"].as_array().expect("a list").iter().map(|one| &one["kind"]).collect();
        assert_eq!((&value["exit_code"], kinds), (&exit.into(), vec![&kind.into()]), "{words:?}: {value}");
    }
    // A drive that is not found is a usage error, by path and by serial.
    for (target, words) in [("none.img", "no size is given"), ("serial:NONE-77", "no drive with this serial")] {
        session.driveset(&[target.to_owned()]);
        let output = session.run(&["--not-for-shipping", "--dry-run"]);
        assert!(code(&output) == 1 && crate::common::words(&output).contains(words), "{}", said(&output));
    }
    // A figure is printed once.
    let output = dray(&session.dir, &["bench", "drive.img", "--seconds", "0.05", "--curve", "0", "--blocks", "1M"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let figures: Vec<&str> = text.lines().filter(|line| line.contains(" KiB x")).collect();
    let mut once = figures.clone();
    once.sort_unstable();
    once.dedup();
    assert!(code(&output) == 0 && figures.len() == once.len() && figures.len() >= 4, "{text}");
    // Its exit status is ignored; it need not read its input either.
    let output = dray(&session.dir, &["check", "nothing", "--on-finish", "echo out; exit 3", "--json"]);
    assert_eq!(code(&output), 1);
    assert!(!String::from_utf8_lossy(&output.stdout).contains("out\n"), "stdout is for objects");
}

#[test]
fn logs_and_pages_hold_no_key() {
    let session = session("secrets");
    let report = session.path("plan.html");
    let common = ["--not-for-shipping", "--drive-id", "D1"];
    let report_arg = report.to_str().expect("UTF-8");
    let output = session.run(&[&common[..], &["--dry-run", "--report", report_arg]].concat());
    assert_eq!(code(&output), 0, "{}", said(&output));
    let page = fs::read_to_string(&report).expect("a page");
    for part in ["<svg", "Biggest directories", "Partition tables", "con/deep/", "D1", "Not copied"] {
        assert!(page.contains(part), "{part}");
    }
    for outside in ["http:", "https:", "<script", "src="] {
        assert!(!page.contains(outside), "{outside}");
    }
    let output = session.run(&[&common[..], &["--verbose"]].concat());
    assert_eq!(code(&output), 0, "{}", said(&output));
    let key = key_in(&session.path("D1.xml"));
    assert!(!said(&output).contains(&key));
    let mut looked = 0;
    for dir in [session.dir.clone(), session.path("logs")] {
        for entry in fs::read_dir(dir).expect("there") {
            let path = entry.expect("an entry").path();
            if path.is_file() && !path.ends_with("D1.xml") && !path.ends_with("drive.img") {
                let text = fs::read(&path).expect("read");
                let found = text.windows(key.len()).any(|window| window == key.as_bytes());
                assert!(!found, "{} holds the key", path.display());
                looked += 1;
            }
        }
    }
    let logs: Vec<_> = fs::read_dir(session.path("logs")).expect("logs").collect();
    assert_eq!(logs.len(), 1, "one log a run");
    assert!(looked >= 4);

    crate::job::described(&session.dir);
    let output = dray(&session.dir, &["job", "create", "--journal", "journal.jrn", "--not-for-shipping"]);
    assert_eq!(code(&output), 0, "{}", said(&output));
    assert!(!said(&output).contains(&key));
    assert_eq!(code(&dray(&session.dir, &["job", "papers", "import-2026.job.json", "--to", "papers"])), 0);
    for paper in ["packing-slip", "drive-labels", "chain-of-custody"] {
        let text = fs::read_to_string(session.path(&format!("papers/import-2026-{paper}.html"))).expect("a paper");
        assert!(text.contains("D1") && text.contains("import-2026") && !text.contains(&key), "{paper}");
    }
    let custody = fs::read_to_string(session.path("papers/import-2026-chain-of-custody.html")).expect("a paper");
    assert!(custody.contains("5.0 MB") && custody.contains("journal.jrn"), "{custody}");
}

#[test]
fn templates_are_what_check_accepts() {
    let dir = scratch("templates");
    for what in ["dataset", "driveset", "properties", "metadata"] {
        let output = dray(&dir, &["template", what]);
        assert_eq!(code(&output), 0, "{}", said(&output));
        fs::write(dir.join(what), &output.stdout).expect("written");
        let output = dray(&dir, &["check", what]);
        assert_eq!(code(&output), 0, "{what}: {}", said(&output));
        assert!(said(&output).contains(&format!("ok {what}: {what}")), "{}", said(&output));
    }
    let output = dray(&dir, &["template", "job"]);
    let template = String::from_utf8(output.stdout).expect("UTF-8");
    fs::write(dir.join("job.toml"), &template).expect("written");
    assert!(said(&dray(&dir, &["check", "job.toml"])).contains("still is what the template says"));
    let filled = crate::job::filled_in(&template);
    fs::write(dir.join("job.toml"), &filled).expect("written");
    let good = said(&dray(&dir, &["check", "job.toml"]));
    assert!(good.contains("ok job.toml: job description"), "{good}");
    let typo = filled.replace("location =", "locatoin =");
    fs::write(dir.join("job.toml"), typo).expect("written");
    assert!(said(&dray(&dir, &["check", "job.toml"])).contains("locatoin"));
    // A file that `check` would refuse is not printed.
    for words in [["dataset", "--to", "c/one/"], ["driveset", "--drive", "G:"]] {
        let output = dray(&dir, &[&["template"], &words[..]].concat());
        assert_eq!((code(&output), output.stdout.len()), (1, 0), "{words:?}: {}", said(&output));
        assert!(said(&output).contains(words[1]), "{words:?}: {}", said(&output));
    }
    fs::write(dir.join("a file.bin"), "x").expect("written");
    let output = dray(&dir, &["template", "dataset", "--source", "a file.bin", "--to", "con/x \"y\".bin"]);
    fs::write(dir.join("one.csv"), &output.stdout).expect("written");
    assert_eq!(code(&dray(&dir, &["check", "one.csv"])), 0, "{}", said(&output));
}

#[test]
fn check_names_file_line_and_remedy_for_everything_at_once() {
    let dir = scratch("check");
    fs::write(dir.join("d.csv"), "BasePath,DstItemPathOrPrefix,ItemType\n/nowhere/,Upper/,BlockBlob\n/etc,c/,Blok\n")
        .expect("w");
    fs::write(
        dir.join("v.csv"),
        "DriveLetter,FormatOption,SilentOrPromptOnFormat,Encryption\nG,Formatt,SilentMode,Encrypt\n",
    )
    .expect("w");
    fs::write(dir.join("m.xml"), "<Metadata><a b</Metadata>").expect("w");
    let output = dray(&dir, &["check", "d.csv", "v.csv", "m.xml", "/bin/sh"]);
    assert_eq!(code(&output), 1);
    let text = said(&output);
    for part in ["d.csv:2", "d.csv:3", "v.csv:2", "m.xml", "/bin/sh", "advice:"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn settings_come_from_files_and_variables_and_say_so() {
    let session = session("settings");
    let config = session.path("c.toml");
    fs::write(&config, "[prep-import]\nnot-for-shipping = true\ndrive-id = \"FILE1\"\n").expect("written");
    let output = session.command(&["--dry-run", "--json"]).env("DRAY_CONFIG", &config).output().expect("runs");
    assert_eq!(code(&output), 0, "{}", said(&output));
    assert!(said(&output).contains("\"drive_id\":\"FILE1\""), "{}", said(&output));
    let mut command = session.command(&["--dry-run", "--json"]);
    let output = command.env("DRAY_CONFIG", &config).env("DRAY_DRIVE_ID", "VAR1").output().expect("runs");
    assert!(said(&output).contains("\"drive_id\":\"VAR1\""), "{}", said(&output));
    let mut command = session.command(&["--dry-run", "--json", "--drive-id", "TYPED1"]);
    let output = command.env("DRAY_CONFIG", &config).env("DRAY_DRIVE_ID", "VAR1").output().expect("runs");
    assert!(said(&output).contains("\"drive_id\":\"TYPED1\""), "{}", said(&output));

    let mut command = Command::new(env!("CARGO_BIN_EXE_dray"));
    command.args(["config", "show", "prep-import"]).env("DRAY_CONFIG", &config).env("DRAY_DRIVE_ID", "VAR1");
    let output = command.output().expect("runs");
    let text = said(&output);
    assert_eq!(code(&output), 0, "{text}");
    let line = |option: &str| text.lines().find(|line| line.trim().starts_with(option)).unwrap_or_default().to_owned();
    assert!(line("drive-id").contains("variable DRAY_DRIVE_ID"), "{text}");
    assert!(line("not-for-shipping").contains("c.toml [prep-import]"), "{text}");
    assert!(line("cipher").contains("default"), "{text}");
}

#[test]
fn the_version_names_commit_and_processor() {
    let dir = scratch("version");
    let output = dray(&dir, &["--version"]);
    let text = said(&output);
    assert!(
        text.starts_with(concat!("dray ", env!("CARGO_PKG_VERSION"), " (")) && text.contains("this CPU: "),
        "{text}"
    );
    assert_eq!(said(&dray(&dir, &["-V"])).lines().count(), 1);
}

/// Names of the subcommands of these words, from the help.
fn commands(dir: &Path, words: &[&str]) -> Vec<String> {
    let help = said(&dray(dir, &[words, &["-h"]].concat()));
    let list = help.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
    let names = list.take_while(|line| line.starts_with("  ")).filter(|line| !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn every_command_has_help_with_an_example_a_page_and_completions() {
    let dir = scratch("helps");
    assert_eq!(code(&dray(&dir, &["man", "."])), 0);
    let scripts: Vec<String> =
        ["bash", "zsh", "fish"].iter().map(|sh| said(&dray(&dir, &["completions", sh]))).collect();
    let mut chains: Vec<Vec<String>> = commands(&dir, &[]).into_iter().map(|name| vec![name]).collect();
    assert!(chains.len() >= 10, "{chains:?}");
    for first in chains.clone() {
        for below in commands(&dir, &[&first[0]]) {
            chains.push(vec![first[0].clone(), below]);
        }
    }
    for chain in &chains {
        let words: Vec<&str> = chain.iter().map(String::as_str).collect();
        for flag in ["-h", "--help"] {
            let help = said(&dray(&dir, &[&words[..], &[flag]].concat()));
            assert!(help.contains("Example"), "{words:?} {flag}: {help}");
            for line in help.lines() {
                assert!(line.chars().count() <= 80, "{words:?} {flag}: {line}");
            }
        }
        assert!(dir.join(format!("dray-{}.1", words.join("-"))).exists(), "{words:?} has no page");
        for script in &scripts {
            assert!(script.contains(words[words.len() - 1]), "{words:?} is in no completion");
        }
    }
}

/// A log that is kept wants a line every ten minutes, someone who waits at a pipe one a second.
#[test]
fn progress_lines_come_as_often_as_asked() {
    let lines = |name: &str, words: &[&str]| {
        let session = session(name);
        fs::write(session.path("data/more.bin"), vec![9; 12_000_000]).expect("a file");
        let ended =
            session.command(&["--source-rate", "4M", "--read-back", "none", "--yes", "drive"]).args(words).output();
        let ended = ended.expect("the program");
        assert_eq!(code(&ended), 0, "{}", said(&ended));
        said(&ended).lines().filter(|line| line.contains("since start") && line.contains(" of ")).count()
    };
    // Stages have lines too.
    let stages = lines("progress-default", &["--progress-every", "86400"]);
    let often = lines("progress-every", &["--progress-every", "1"]);
    assert!(often >= stages + 2, "{often} {stages}");
    let session = session("progress-none");
    let refused = dray(&session.dir, &["plan", "--progress-every", "0"]);
    assert_eq!(code(&refused), 1, "{}", said(&refused));
    assert!(said(&refused).contains("--progress-every"), "{}", said(&refused));
}
