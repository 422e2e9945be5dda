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

fn image(session: &Session, name: &str, len: u64) {
    fs::File::create(session.path(name)).expect("a file").set_len(len).expect("a length");
}

/// An image whose table has a partition.
fn occupied(session: &Session, name: &str) {
    image(session, name, 101_000_192);
    let file = fs::OpenOptions::new().write(true).open(session.path(name)).expect("an image");
    let mut sector = [0; 512];
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector[446..462].copy_from_slice(&[0, 0, 2, 0, 7, 0xff, 0xff, 0xff, 0, 8, 0, 0, 0, 0x10, 0, 0]);
    std::os::unix::fs::FileExt::write_all_at(&file, &sector, 0).expect("written");
}

/// Drives that no plan names: each shard takes the first that fits, for good.
#[test]
fn shards_of_a_size_class_take_drives_that_are_free() {
    let session = planned("shards-any");
    let plan = session.works("plan --journal p.jrn --id s#1 --dataset dataset.csv --shards s --any-drive-of 100MB");
    assert!(plan.contains("any-3") && !plan.contains("any-0000"), "{plan}");
    assert_eq!(states(&session), ["waiting"; 3]);
    let (_, value) = status(&session);
    for shard in value["shards"].as_array().expect("shards") {
        assert!(shard["drive_id"].is_null() && shard["name"] == "any drive of 100.0 MB", "{shard}");
    }
    // The first two that fit are free; another class, and what holds a volume, are passed over.
    image(&session, "large.img", 120_000_000 / 512 * 512);
    occupied(&session, "full.img");
    image(&session, "x.img", 104_000_000 / 512 * 512);
    image(&session, "y.img", 100_000_256);
    const AMONG: &str = "large.img,full.img,x.img,y.img";
    let run =
        |index: &str, more: &str| session.dray(&format!("shard run s --index {index} --silent --among {AMONG} {more}"));
    let start = |index: &str, rate: &str| {
        let words = format!("shard run s --index {index} --silent --among {AMONG} --source-rate {rate}");
        session.program(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program")
    };
    // Two at once want the same drive.
    let (mut first, mut second) = (start("0", "4M"), start("1", "80M"));
    let drive_of = |number: usize| status(&session).1["shards"][number]["drive_id"].as_str().map(str::to_owned);
    while drive_of(0).is_none() || fs::metadata(session.path("s/0000/shard.jrn")).is_err() {
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(first.try_wait().expect("a child").is_none(), "it writes for some seconds");
    }
    std::thread::sleep(std::time::Duration::from_secs(1));
    first.kill().expect("killed");
    first.wait().expect("ended");
    assert_eq!(second.wait().expect("ended").code(), Some(0));
    let taken = drive_of(0).expect("a drive");
    assert_eq!(states(&session)[0], "broken off");
    assert_ne!(Some(&taken), drive_of(1).as_ref());
    // Nothing is left for the third, and nothing is said of it but that it waits.
    let none = run("2", "");
    assert_eq!(code(&none), 2, "{}", said(&none));
    for part in [
        "no attached drive is free for this shard",
        "x.img is taken by another shard",
        "y.img is taken by another shard",
        "full.img holds",
        "large.img has 120.0 MB",
    ] {
        assert!(words(&none).contains(part), "{part}: {}", said(&none));
    }
    assert_eq!(states(&session)[2], "waiting");
    let early = session.dray("shard merge s --journal job.jrn");
    assert_eq!(code(&early), 6, "{}", said(&early));
    // Another drive is free by now, and the killed shard goes on with its own.
    image(&session, "0.img", 100_000_256);
    let resumed = session.dray("shard run s --index 0 --silent --among 0.img,x.img,y.img");
    assert_eq!(code(&resumed), 0, "{}", said(&resumed));
    assert_eq!(drive_of(0), Some(taken));
    // Consent is for the drive that it names, whichever shard takes it.
    let agreed = run("2", "--yes full");
    assert_eq!(code(&agreed), 0, "{}", said(&agreed));
    assert_eq!(drive_of(2).as_deref(), Some("full"));
    session.works("shard merge s --journal job.jrn");
    let shown = session.works("session show job.jrn --json");
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("an object");
    let ids: Vec<_> =
        shown["drives"].as_array().expect("drives").iter().map(|drive| drive["drive_id"].clone()).collect();
    assert_eq!(shown["state"], "Completed");
    assert_eq!(ids, (0..3).map(|n| drive_of(n).expect("a drive")).collect::<Vec<_>>());
    for n in 0..3 {
        let id = drive_of(n).expect("a drive");
        verified(&session, &format!("{id}.img"), &session.path(&format!("{id}.xml")));
    }
}

/// What is refused before anything was written gives the drive back.
#[test]
fn a_drive_that_was_not_begun_is_free_again() {
    let session = planned("shards-any-back");
    session.works("plan --journal p.jrn --id s#1 --dataset dataset.csv --shards s --any-drive-of 100MB");
    image(&session, "x.img", 100_000_256);
    let wrong = session.dray("shard run s --index 0 --silent --among x.img --yes stranger,x");
    let source = session.path("data/a/f0.bin");
    assert_eq!(code(&wrong), 0, "consent for others is no slip: {}", said(&wrong));
    fs::remove_file(source).expect("removed");
    image(&session, "y.img", 100_000_256);
    let gone: Vec<i32> =
        (1..3).map(|n| code(&session.dray(&format!("shard run s --index {n} --silent --among y.img")))).collect();
    let (_, value) = status(&session);
    let open = value["shards"].as_array().expect("shards").iter().filter(|shard| shard["drive_id"].is_null()).count();
    assert_eq!((gone.iter().filter(|code| **code == 0).count() + open, open > 0), (2, true), "{gone:?} {value}");
    let elsewhere = session.path("s/taken/z.json");
    let text =
        r#"{"index":2,"drive_id":"z","serial":null,"name":"z.img","host":"far-away","size":100000256,"image":true}"#;
    fs::write(elsewhere, text).expect("a file");
    let far = session.dray("shard run s --index 2 --silent --among y.img");
    assert_eq!(code(&far), 2, "{}", said(&far));
    assert!(words(&far).contains("on another host"), "{}", said(&far));
    assert!(session.path("s/taken/z.json").exists(), "the other host's drive stays its own");
}

/// A shard of a size class that was stopped goes on where its drive is, with the records in the shared directory; elsewhere
/// it says where both are.
#[test]
fn a_shard_that_has_taken_a_drive_goes_on_where_the_drive_is() {
    let session = planned("shards-any-moved");
    session.works("plan --journal p.jrn --id s#1 --dataset dataset.csv --shards s --any-drive-of 100MB");
    for name in ["x.img", "y.img", "z.img"] {
        image(&session, name, 100_000_256);
    }
    let stopped = |index: &str, drive: &str, more: &str| {
        let words = format!("shard run s --index {index} --silent --among {drive}.img --source-rate 6M {more}");
        let mut child =
            session.program(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program");
        // More than what is wiped, and several batches.
        while fs::metadata(session.path(drive).with_extension("img"))
            .map_or(0, |meta| std::os::unix::fs::MetadataExt::blocks(&meta))
            < 24 << 10
        {
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(child.try_wait().expect("a child").is_none(), "it writes for some seconds");
        }
        Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill");
        assert_eq!(child.wait().expect("ended").code(), Some(130));
        // What another host would have written.
        let path = session.path(&format!("s/taken/{drive}.json"));
        let mut taken: serde_json::Value =
            serde_json::from_slice(&fs::read(&path).expect("a file")).expect("an object");
        taken["host"] = "far-away".into();
        fs::write(path, taken.to_string()).expect("written");
    };
    let host_of = |index: usize| status(&session).1["shards"][index]["host"].as_str().map(str::to_owned);
    let here = fs::read_to_string("/proc/sys/kernel/hostname").expect("a name").trim().to_owned();

    stopped("0", "x", "");
    let durable = status(&session).1["shards"][0]["durable"].as_u64().expect("a checkpoint");
    assert!(durable > 0, "it resumes behind something");
    fs::rename(session.path("x.img"), session.path("away.img")).expect("moved");
    let far = session.dray("shard run s --index 0 --silent");
    assert_eq!(code(&far), 2, "a queue holds it: {}", said(&far));
    for part in ["taken its drive on another host", "not attached here", "x.img on far-away"] {
        assert!(words(&far).contains(part), "{part}: {}", said(&far));
    }
    assert!(session.path("s/taken/x.json").exists(), "the drive stays its own");
    fs::rename(session.path("away.img"), session.path("x.img")).expect("moved");
    // This host would keep records for itself; those of the shard are with the shards already.
    let resumed = session.dray("shard run s --here --silent --records-stay local --among none.img");
    assert_eq!(code(&resumed), 0, "{}", said(&resumed));
    assert!(words(&resumed).contains("of it by this run"), "not all is written again: {}", said(&resumed));
    assert_eq!((states(&session)[0].as_str(), host_of(0)), ("done", Some(here.clone())));
    verified(&session, "x.img", &session.path("s/0000/x.xml"));

    // Records that stay on the other host are not there to go on with.
    stopped("1", "y", "--records-stay keep");
    fs::rename(session.path("keep"), session.path("far")).expect("moved");
    let far = session.dray("shard run s --index 1 --silent");
    assert_eq!(code(&far), 2, "{}", said(&far));
    for part in ["records of the shard", "y.img on far-away", "/keep/"] {
        assert!(words(&far).contains(part), "{part}: {}", said(&far));
    }
    assert!(session.path("s/taken/y.json").exists());
    let brought = session.dray("shard run s --index 1 --silent --records-stay far");
    assert_eq!(code(&brought), 0, "{}", said(&brought));
    assert_eq!(host_of(1), Some(here.clone()));

    // Taken, and killed before anything was begun.
    let journal = session.path("s/0002/shard.jrn").display().to_string();
    let taken = serde_json::json!({
        "index": 2, "drive_id": "z", "serial": null, "name": "z.img", "host": "far-away", "size": 100_000_256, "image": true,
        "journal": journal,
    });
    fs::write(session.path("s/taken/z.json"), taken.to_string()).expect("a file");
    let begun = session.dray("shard run s --index 2 --silent");
    assert_eq!(code(&begun), 0, "{}", said(&begun));
    assert_eq!(host_of(2), Some(here));
    let merged = session.dray("shard merge s --journal job.jrn --records-stay far");
    assert_eq!(code(&merged), 0, "{}", said(&merged));
}

/// Three prepared drives, and the journal of their session.
fn prepared(name: &str) -> Session {
    let session = planned(name);
    session.works(
        "prep-import --journal job.jrn --id s#1 --initial-driveset driveset.csv --dataset dataset.csv --silent \
         --spread even",
    );
    session
}

fn made(session: &Session, dir: &str, words: &str) {
    session.works(&format!("shard make {words}"));
    assert!(session.path(dir).join("index.json").exists());
}

#[test]
fn shards_verify_rehearse_and_keep_many_drives() {
    let session = prepared("shards-tasks");
    made(&session, "v", "verify v --journal job.jrn -- --report {id}.html");
    let shards = fs::read_to_string(session.path("v/0001-d2.shard")).expect("a shard");
    assert!(!shards.contains(&crate::common::key_in(&session.path("d2.xml"))), "a key in a shard");
    let flip = |image: &str| {
        // A byte of the data, in the middle of the volume.
        use std::os::unix::fs::FileExt;
        let file = fs::OpenOptions::new().read(true).write(true).open(session.path(image)).expect("an image");
        let mut byte = [0];
        file.read_exact_at(&mut byte, 40_000_000).expect("read");
        file.write_all_at(&[byte[0] ^ 1], 40_000_000).expect("written");
    };
    flip("d2.img");
    let run = session.dray("shard run v --here --silent");
    assert_eq!(code(&run), 5, "{}", said(&run));
    let status = |dir: &str| {
        let output = session.dray(&format!("shard status {dir} --json"));
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("an object");
        let list = value["shards"].as_array().expect("shards").iter();
        let states: Vec<String> = list.map(|shard| shard["state"].as_str().expect("a state").to_owned()).collect();
        (code(&output), states.join(" "), value["work"].as_str().expect("a work").to_owned())
    };
    assert_eq!(status("v"), (4, "done failed done".into(), "verify".into()));
    flip("d2.img");
    let again = session.dray("shard run v --index 1");
    assert_eq!(code(&again), 0, "{}", said(&again));
    assert_eq!(status("v").1, "done done done");
    for n in 1..4 {
        assert!(fs::read_to_string(session.path(&format!("d{n}.html"))).expect("a page").contains(&format!("d{n}")));
    }
    let held = r#"{"host":"far-away","boot_id":"x","process":1,"started":1,"since":"2026-01-01T00:00:00Z"}"#;
    fs::write(session.path("v/0000.lock"), held).expect("a lock");
    assert_eq!(code(&session.dray("shard run v --index 0")), 2);
    let merge = session.dray("shard merge v --journal other.jrn");
    assert_eq!(code(&merge), 1, "{}", said(&merge));

    made(&session, "r", "rehearse r --journal job.jrn -- --logs logs-{id}");
    session.works("shard run r --here");
    assert_eq!(status("r").1, "done done done");
    assert!(fs::read_dir(session.path("logs-d3")).expect("logs").count() > 0);

    let one = session.dray("shard make acquire k --journal job.jrn -- --to all.img");
    assert_eq!(code(&one), 1, "{}", said(&one));
    made(&session, "k", "acquire k --journal job.jrn -- --to kept-{id}.img");
    session.works("shard run k --here");
    for n in 1..4 {
        let (kept, drive) = (format!("kept-d{n}.img"), format!("d{n}.img"));
        let same = Command::new("cmp").args([&kept, &drive]).current_dir(&session.dir).status().expect("cmp");
        assert!(same.success(), "{kept} is not {drive}");
    }
    for what in ["slurm", "parallel", "kubernetes", "ansible"] {
        let script = session.works(&format!("template {what} --shards v"));
        assert!(script.contains("dray verify") && !script.contains("merge") && !script.contains("onsent"), "{script}");
    }
}

#[test]
fn shards_import_many_drives() {
    let session = prepared("shards-ingest");
    let Some(azurite) = dray_testdisks::azurite::Azurite::open(&session.path("azurite")) else { return };
    azurite.key_file().expect("a key");
    let endpoint = &azurite.endpoint;
    let words = format!("ingest i --journal job.jrn -- --endpoint {endpoint} --account-key-file azurite/account.key");
    made(&session, "i", &words);
    session.works("shard run i --here");
    let text = azurite.client(&["read", "con"]).expect("Microsoft's client");
    assert_eq!(text.lines().count(), 18, "{text}");
    let signed = session.dray(&format!("shard make ingest j --journal job.jrn -- --endpoint {endpoint}?sig=secret"));
    assert_eq!(code(&signed), 2, "{}", said(&signed));
    let unknown = session.dray("shard make ingest j --journal job.jrn -- --no-such-option");
    assert_eq!(code(&unknown), 1, "{}", said(&unknown));
    assert!(!session.path("j").exists());
}

/// The script for GNU parallel, run by it: a drive that is killed, and the script again.
#[test]
fn gnu_parallel_runs_the_script_of_a_plan() {
    let version = Command::new("parallel").arg("--version").output();
    if !version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).starts_with("GNU parallel")) {
        return eprintln!("SKIPPED judge: GNU parallel is not installed");
    }
    // Blanks in the path: the script must quote it.
    let session = planned("shards parallel");
    split(&session);
    let script = dray(&session.dir, &["template", "parallel", "--shards", "s", "--docks", "2"]);
    fs::write(session.path("run.sh"), &script.stdout).expect("a script");
    fs::create_dir_all(session.path("bin")).expect("a directory");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_dray"), session.path("bin/dray")).expect("a link");
    let path = format!("{}:{}", session.path("bin").display(), std::env::var("PATH").expect("a path"));
    let run = |rate: &str| {
        let mut command = Command::new("bash");
        command.arg("run.sh").current_dir(&session.dir).env("PATH", &path).env("DRAY_SOURCE_RATE", rate);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("bash")
    };
    let mut first = run("6M");
    let begun = || states(&session)[0] == "running" && session.path("d1.img").exists();
    while !begun() {
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(first.try_wait().expect("a child").is_none(), "it writes for some seconds");
    }
    assert_eq!(states(&session)[2], "waiting", "two docks");
    let lock: serde_json::Value =
        serde_json::from_slice(&fs::read(session.path("s/0000.lock")).expect("a lock")).expect("an object");
    let process = lock["process"].as_u64().expect("a process").to_string();
    Command::new("kill").args(["-KILL", &process]).status().expect("kill");
    assert_eq!(first.wait().expect("ended").code(), Some(6), "one drive is missing from the merged journal");
    assert_eq!(states(&session), ["broken off", "done", "done"]);
    assert_eq!(run("100M").wait().expect("ended").code(), Some(0));
    for n in 1..4 {
        verified(&session, &format!("d{n}.img"), &session.path(&format!("s/d{n}.xml")));
    }
}
