//! A plan split by drive: shards run by processes of their own make the drives and the job that one session makes.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{Session, code, dray_in as dray, said, words};

/// Three image drives and files that need all of them; the shards lie in `s`.
fn planned(name: &str) -> Session {
    let session = Session::new(name);
    for (i, dir) in ["a", "b", "c"].into_iter().enumerate() {
        fs::create_dir_all(session.path("data").join(dir)).expect("a directory");
        for n in 0..6 {
            let bytes: Vec<u8> =
                (0..9_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8 ^ n ^ i as u8).collect();
            fs::write(session.path("data").join(dir).join(format!("f{n}.bin")), bytes).expect("a file");
        }
    }
    session.dataset(&[&format!("\"{}/\",con/,BlockBlob", session.path("data").display())]);
    let drives: Vec<String> =
        (1..4).map(|n| format!("{}:100MB", session.path(&format!("d{n}.img")).display())).collect();
    session.driveset(&drives);
    session
}

const PLAN: [&str; 11] = [
    "plan",
    "--journal",
    "plan.jrn",
    "--id",
    "s#1",
    "--initial-driveset",
    "driveset.csv",
    "--dataset",
    "dataset.csv",
    "--shards",
    "s",
];

fn split(session: &Session) {
    let output = dray(&session.dir, &PLAN);
    assert_eq!(code(&output), 0, "{}", said(&output));
}

fn status(session: &Session) -> (i32, serde_json::Value) {
    let output = dray(&session.dir, &["shard", "status", "s", "--json"]);
    (code(&output), serde_json::from_slice(&output.stdout).expect("an object"))
}

fn states(session: &Session) -> Vec<String> {
    let (_, value) = status(session);
    let list = value["shards"].as_array().expect("shards").iter();
    list.map(|shard| shard["state"].as_str().expect("a state").to_owned()).collect()
}

fn verified(session: &Session, drive: &str, record: &Path) {
    let output = dray(&session.dir, &["verify", drive, "--key-file", &record.display().to_string()]);
    assert_eq!(code(&output), 0, "{}", said(&output));
}

#[test]
fn shards_make_what_one_session_makes() {
    let session = planned("shards");
    split(&session);
    assert!(!session.path("plan.jrn").exists() && !session.path("d1.img").exists(), "a plan writes no drive");
    assert_eq!(states(&session), ["waiting"; 3]);
    let again = dray(&session.dir, &PLAN);
    assert_eq!(code(&again), 2, "shards of two plans never mix: {}", said(&again));

    // Merging what is not finished says so, and stays possible.
    let run = dray(&session.dir, &["shard", "run", "s", "--index", "1", "--silent"]);
    assert_eq!(code(&run), 0, "{}", said(&run));
    let early = dray(&session.dir, &["shard", "merge", "s", "--journal", "job.jrn"]);
    assert_eq!(code(&early), 6, "{}", said(&early));
    assert!(words(&early).contains("was not begun"), "{}", said(&early));
    assert_eq!(status(&session).0, 6);
    shown_in_a_browser(&session, &[("Done: 1", 1), ("Waiting: 2", 2)], "1 of 3 drives done.");

    let run = dray(&session.dir, &["shard", "run", "s", "--here", "--silent", "--metrics-file", "dray.prom"]);
    assert_eq!(code(&run), 0, "{}", said(&run));
    measured(&session);
    assert_eq!((states(&session), status(&session).0), (vec!["done".to_owned(); 3], 0));
    for n in 1..4 {
        verified(&session, &format!("d{n}.img"), &session.path(&format!("s/{:04}/d{n}.xml", n - 1)));
    }
    let merge = || dray(&session.dir, &["shard", "merge", "s", "--journal", "job.jrn"]);
    let merged = merge();
    assert_eq!(code(&merged), 0, "{}", said(&merged));
    let journal = fs::read(session.path("job.jrn")).expect("a journal");
    assert!(words(&merge()).contains("nothing left to do"));
    assert_eq!(fs::read(session.path("job.jrn")).expect("a journal"), journal, "merging again changes nothing");

    // The same plan in one session: the same drives in the same order, with the same files on each.
    let whole = Session::within(&session.dir.join("whole"));
    fs::create_dir_all(&whole.dir).expect("a directory");
    whole.dataset(&[&format!("\"{}/\",con/,BlockBlob", session.path("data").display())]);
    let drives: Vec<String> = (1..4).map(|n| format!("{}:100MB", whole.path(&format!("d{n}.img")).display())).collect();
    whole.driveset(&drives);
    let words = "prep-import --journal job.jrn --id s#1 --initial-driveset driveset.csv --dataset dataset.csv --silent";
    whole.works(words);
    let drives = |session: &Session| -> Vec<String> {
        let output = dray(&session.dir, &["session", "show", "job.jrn", "--json"]);
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("an object");
        assert_eq!(value["state"], "Completed", "{value}");
        let list = value["drives"].as_array().expect("drives").iter();
        list.map(|drive| format!("{} {} {} {}", drive["drive_id"], drive["files"], drive["data"], drive["state"]))
            .collect()
    };
    assert_eq!(drives(&session), drives(&whole));
    // The manifest names drive, files and hashes: no key and no time of its own.
    let manifest = |session: &Session, n: u32, record: String| {
        let image = format!("d{n}.img");
        let output = dray(&session.dir, &["cat", &image, "DriveManifest.xml", "--key-file", &record]);
        assert_eq!(code(&output), 0, "{}", said(&output));
        output.stdout
    };
    for n in 1..4 {
        let one = manifest(&session, n, format!("d{n}.xml"));
        assert!(one == manifest(&whole, n, format!("d{n}.xml")), "manifest of d{n}");
    }
}

/// Opens the page of all drives in a browser: its sections, each with so many rows, and the sentence of the verdict.
fn shown_in_a_browser(session: &Session, sections: &[(&str, usize)], sentence: &str) {
    let output = dray(&session.dir, &["shard", "status", "s", "--report", "page.html"]);
    assert_eq!(code(&output), 6, "{}", said(&output));
    let page = format!("file://{}", session.path("page.html").display());
    let profile = format!("--user-data-dir={}", session.path("browser").display());
    let switches = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom"];
    let shown = match Command::new("chromium").args(switches).args([&profile, &page]).output() {
        Ok(shown) if shown.status.success() => String::from_utf8_lossy(&shown.stdout).into_owned(),
        other => return eprintln!("SKIPPED judge: chromium: {other:?}"),
    };
    assert!(shown.contains(sentence), "{shown}");
    let all: usize = sections.iter().map(|(_, rows)| rows).sum();
    // Each section has a head of one row.
    assert_eq!(shown.matches("<tr>").count(), all + sections.len(), "{shown}");
    for (section, _) in sections {
        assert!(shown.contains(&format!("<h2>{section}</h2>")), "{section}: {shown}");
    }
    for n in 1..=all {
        assert!(shown.contains(&format!(">d{n}<")), "drive {n}: {shown}");
    }
}

/// The metrics of the run, as another parser reads them.
fn measured(session: &Session) {
    let script = "import sys\ntry:\n    from prometheus_client.parser import text_string_to_metric_families as read\n\
                  except ImportError as error:\n    print('SKIPPED', error)\n    sys.exit()\n\
                  for family in read(open('dray.prom').read()):\n    for one in family.samples:\n\
                  \x20       print(one.name, sorted(one.labels.items()), int(one.value))";
    let mut python = Command::new(dray_testdisks::judge::python());
    let output = python.args(["-c", script]).current_dir(&session.dir).output().expect("Python");
    let read = String::from_utf8_lossy(&output.stdout).into_owned();
    if read.starts_with("SKIPPED") {
        return eprintln!("SKIPPED judge: prometheus-client: {read}");
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for sample in [
        "dray_run_active [('command', 'shard')] 0",
        "dray_run_exit_code [('command', 'shard')] 0",
        "dray_drive_stage [('drive', 'd3'), ('stage', 'done')] 1",
        "dray_drive_stage [('drive', 'd1'), ('stage', 'done')] 1",
        "dray_drive_failed [('drive', 'd3')] 0",
        "dray_drive_files [('drive', 'd3')] 6",
        "dray_drive_left_out_files [('drive', 'd3')] 0",
    ] {
        assert!(read.lines().any(|line| line == sample), "{sample} is not in {read}");
    }
    let other = dray(&session.dir, &["shard", "status", "s", "--metrics-file", "driveset.csv"]);
    assert_eq!(code(&other), 2, "a file of another kind stays: {}", said(&other));
}

#[test]
fn a_shard_that_is_cut_off_resumes_and_is_held_by_one() {
    let session = planned("shards-cut");
    split(&session);
    let start = |index: &str| {
        let mut command =
            crate::common::dray(["shard", "run", "s", "--index", index, "--silent", "--source-rate", "6M"]);
        command.current_dir(&session.dir).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("the program")
    };
    let mut child = start("0");
    while states(&session)[0] != "running" || !session.path("d1.img").exists() {
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(child.try_wait().expect("a child").is_none(), "it writes for some seconds");
    }
    let second = dray(&session.dir, &["shard", "run", "s", "--drive", "d1", "--silent"]);
    assert_eq!(code(&second), 2, "{}", said(&second));
    assert!(words(&second).contains("another process works on this shard"), "{}", said(&second));
    std::thread::sleep(std::time::Duration::from_secs(1));
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert_eq!(states(&session)[0], "broken off");
    // SIGTERM ends at a checkpoint, with a last word.
    let mut child = start("0");
    while states(&session)[0] != "running" {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    std::thread::sleep(std::time::Duration::from_millis(1500));
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill");
    assert_eq!(child.wait().expect("ended").code(), Some(130));
    assert_eq!(states(&session)[0], "stopped");
    let (_, stopped) = status(&session);
    let durable = stopped["shards"][0]["durable"].as_u64().expect("a checkpoint");
    assert!(durable > 0 && durable < 100_000_000 && stopped["shards"][0]["checkpoint"].is_string(), "{stopped}");
    let run = dray(&session.dir, &["shard", "run", "s", "--index", "0", "--silent"]);
    assert_eq!(code(&run), 0, "{}", said(&run));
    verified(&session, "d1.img", &session.path("s/0000/d1.xml"));
    let again = dray(&session.dir, &["shard", "run", "s", "--index", "0", "--silent"]);
    assert_eq!(code(&again), 0);
    assert!(words(&again).contains("nothing left to do"), "{}", said(&again));
    // A lock of another host is not broken, unless a person says so.
    let lock = r#"{"host":"far-away","boot_id":"x","process":1,"started":1,"since":"2026-01-01T00:00:00Z"}"#;
    fs::write(session.path("s/0001.lock"), lock).expect("a lock");
    let held = dray(&session.dir, &["shard", "run", "s", "--index", "1", "--silent"]);
    assert_eq!(code(&held), 2, "{}", said(&held));
    assert!(words(&held).contains("far-away"), "{}", said(&held));
    assert!(!session.path("d2.img").exists());
    let taken = dray(&session.dir, &["shard", "run", "s", "--index", "1", "--silent", "--take-over"]);
    assert_eq!(code(&taken), 0, "{}", said(&taken));
}

#[test]
fn records_that_stay_on_their_host_are_merged_there() {
    let session = planned("shards-stay");
    split(&session);
    let run = dray(&session.dir, &["shard", "run", "s", "--here", "--silent", "--records-stay", "keep"]);
    assert_eq!(code(&run), 0, "{}", said(&run));
    let shared = Command::new("find").args(["s", "-name", "*.xml"]).current_dir(&session.dir).output().expect("find");
    assert!(shared.stdout.is_empty(), "a key in the shared directory: {}", said(&shared));
    let elsewhere = dray(&session.dir, &["shard", "merge", "s", "--journal", "job.jrn"]);
    assert_eq!(code(&elsewhere), 6, "{}", said(&elsewhere));
    assert_eq!(words(&elsewhere).matches("merge there with --records-stay").count(), 3, "{}", said(&elsewhere));
    let merged = dray(&session.dir, &["shard", "merge", "s", "--journal", "job.jrn", "--records-stay", "keep"]);
    assert_eq!(code(&merged), 0, "{}", said(&merged));
    verified(&session, "d2.img", &session.path("d2.xml"));
}

#[test]
fn what_a_shard_refuses_is_refused_before_the_first_write() {
    let session = planned("shards-refuse");
    split(&session);
    let run = |index: &str| dray(&session.dir, &["shard", "run", "s", "--index", index, "--silent"]);
    // A source that is another one here.
    let source = session.path("data/a/f0.bin");
    let bytes = fs::read(&source).expect("a file");
    fs::write(&source, &bytes[1..]).expect("shorter");
    let changed: Vec<i32> = (0..3).map(|n| code(&run(&n.to_string()))).collect();
    assert_eq!(changed.iter().filter(|code| **code == 7).count(), 1, "{changed:?}");
    let refused = changed.iter().position(|code| *code == 7).expect("one");
    assert!(!session.path(&format!("d{}.img", refused + 1)).exists(), "nothing was written");
    assert_eq!(states(&session)[refused], "failed");
    // A drive of another size.
    let other = planned("shards-size");
    split(&other);
    fs::File::create(other.path("d1.img")).expect("a file").set_len(50_000_000).expect("a length");
    let size = dray(&other.dir, &["shard", "run", "s", "--index", "0", "--silent"]);
    assert_eq!(code(&size), 2, "{}", said(&size));
    assert!(words(&size).contains("its size differs"), "{}", said(&size));
    // A drive that holds something needs consent on the host that erases it.
    let mut image = vec![0; 100_000_000];
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
    image[446..462].copy_from_slice(&[0, 0, 2, 0, 7, 0xff, 0xff, 0xff, 0, 8, 0, 0, 0, 0x10, 0, 0]);
    fs::write(other.path("d1.img"), &image[..image.len() / 512 * 512]).expect("an image");
    let consent = dray(&other.dir, &["shard", "run", "s", "--index", "0", "--silent"]);
    assert_eq!(code(&consent), 2, "{}", said(&consent));
    assert!(words(&consent).contains("no consent"), "{}", said(&consent));
    // A byte of a shard.
    let shard = fs::read_dir(other.path("s")).expect("a directory").filter_map(Result::ok).map(|entry| entry.path());
    let shard = shard.filter(|path| path.to_string_lossy().contains("0001-")).last().expect("a shard");
    let mut bytes = fs::read(&shard).expect("a shard");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&shard, bytes).expect("written");
    let damaged = dray(&other.dir, &["shard", "run", "s", "--index", "1", "--silent"]);
    assert_eq!(code(&damaged), 8, "{}", said(&damaged));
    // Another plan's index.
    let index = fs::read_to_string(other.path("s/index.json")).expect("an index");
    let first = index.find("\"sha256\": \"").expect("a digest") + 11;
    let swapped =
        format!("{}{}{}", &index[..first], if &index[first..=first] == "0" { "1" } else { "0" }, &index[first + 1..]);
    fs::write(other.path("s/index.json"), swapped).expect("written");
    let output = dray(&other.dir, &["shard", "status", "s"]);
    assert_eq!(code(&output), 1, "{}", said(&output));
    assert!(words(&output).contains("another plan"), "{}", said(&output));
}

/// The Jobs as Kubernetes' published schemas see them, unknown fields refused.
fn valid_jobs(session: &Session, count: usize) {
    let script = "import sys\ntry:\n    import kubernetes_validate as judge, yaml\n\
                  except ImportError as error:\n    print('SKIPPED', error)\n    sys.exit()\n\
                  jobs = list(yaml.safe_load_all(open('jobs.yaml')))\n\
                  for job in jobs:\n    judge.validate(job, judge.latest_version(), strict=True)\n\
                  print(len(jobs))";
    let mut python = Command::new(dray_testdisks::judge::python());
    let output = python.args(["-c", script]).current_dir(&session.dir).output().expect("Python");
    let read = String::from_utf8_lossy(&output.stdout).into_owned();
    if read.starts_with("SKIPPED") {
        return eprintln!("SKIPPED judge: kubernetes-validate: {read}");
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(read.trim(), count.to_string());
}

/// A thousand drives that are attached nowhere near, and the scripts that start their shards.
#[test]
fn drives_that_are_not_attached_are_planned_by_their_labels() {
    let session = planned("shards-absent");
    let drives: String = (0..30)
        .map(|n| format!("[[drive]]\nserial = \"WD-{n:06}\"\nhost = \"dock-{}\"\nsize = 100000256\n", n % 3))
        .collect();
    fs::write(session.path("hosts.toml"), drives).expect("a file");
    let words = [
        "plan",
        "--journal",
        "p.jrn",
        "--id",
        "s#1",
        "--dataset",
        "dataset.csv",
        "--shards",
        "s",
        "--hosts",
        "hosts.toml",
    ];
    let output = dray(&session.dir, &words);
    assert_eq!(code(&output), 0, "{}", said(&output));
    let (_, value) = status(&session);
    let list = value["shards"].as_array().expect("shards");
    assert!(list.len() >= 2 && list.iter().all(|shard| shard["host"].as_str().is_some()), "{value}");
    let not_here = dray(&session.dir, &["shard", "run", "s", "--here", "--silent"]);
    assert_eq!(code(&not_here), 1, "{}", said(&not_here));
    let missing = dray(&session.dir, &["shard", "run", "s", "--index", "0", "--silent"]);
    assert_ne!(code(&missing), 0, "{}", said(&missing));
    for what in ["slurm", "parallel", "kubernetes", "ansible"] {
        let output = dray(&session.dir, &["template", what, "--shards", "s", "--docks", "4"]);
        assert_eq!(code(&output), 0, "{}", said(&output));
        let script = said(&output);
        assert!(script.contains("shard") && script.contains("--silent"), "{script}");
        if what == "kubernetes" {
            fs::write(session.path("jobs.yaml"), &output.stdout).expect("a file");
            valid_jobs(&session, list.len());
        }
        if matches!(what, "slurm" | "parallel") {
            fs::write(session.path("script.sh"), &output.stdout).expect("a script");
            let checked = Command::new("bash").arg("-n").arg(session.path("script.sh")).output().expect("bash");
            assert!(checked.status.success(), "{what}: {}", String::from_utf8_lossy(&checked.stderr));
        }
    }
}
