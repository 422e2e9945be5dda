//! An export whose drives are filled by processes of their own, on any host: the drives, the journal and the logs are those
//! of one `dray export`.

use super::*;

/// Three drives are needed for these: blobs of every kind, and five of 30 MB. One more is in the archive.
fn full(name: &str) -> Option<(Exporting, Vec<Blob>)> {
    const NAMES: [&str; 5] = ["z0", "z1", "z2", "z3", "z4"];
    let large = (0..).zip(NAMES).map(|(i, name)| blob("data", name, bytes(200 + i, 30_000_000), json!({})));
    let blobs: Vec<Blob> = zoo().into_iter().filter(|blob| blob.container != "other").chain(large).collect();
    let this = Exporting::new(name, &blobs)?;
    let old = this.session.path("old");
    fs::write(&old, "old").expect("written");
    this.azurite.client(&["put", "data", "old", &old.display().to_string(), "tier=Archive"])?;
    this.blob_list(&["/data/", "$root/logo.bmp", "data/nothing"]);
    Some((this, blobs))
}

fn drives(session: &Session) {
    let images: Vec<String> =
        (1..4).map(|n| format!("{}:100MB", session.path(&format!("d{n}.img")).display())).collect();
    session.driveset(&images);
}

/// A list of what a drive holds that is damaged is not taken for one of nothing that was left out.
fn damaged_lists_hide_nothing(this: &Exporting) {
    let shards = status(this).1["shards"].as_array().expect("shards").clone();
    let lacking = shards.iter().find(|one| one["left_out"] == 1).expect("one that lacks a blob").clone();
    let mut files = BTreeMap::new();
    files_below(&this.session.path("s"), &this.session.path("s"), &mut files);
    let drive = lacking["drive_id"].as_str().expect("a drive");
    let ends = format!("{drive}.exported");
    let list = files.keys().find(|name| name.ends_with(&ends)).unwrap_or_else(|| panic!("{ends}: {:?}", files.keys()));
    let list = this.session.path("s").join(list);
    let good = fs::read(&list).expect("a list");
    fs::write(&list, b"nothing\n").expect("written");
    let merged = this.session.dray("shard merge s --journal broken.jrn");
    assert!(
        code(&merged) == 6 && unbroken(&said(&merged)).contains("cannot be used"),
        "{} {}",
        code(&merged),
        said(&merged)
    );
    // Killed before its last word, it asks the list what is missing.
    let index = lacking["index"].as_u64().expect("a number").to_string();
    let result = files.keys().filter(|name| name.ends_with(".result.json"));
    let kept: Vec<_> = result.map(|name| (name, fs::read(this.session.path("s").join(name)).expect("it"))).collect();
    kept.iter().for_each(|(name, _)| fs::remove_file(this.session.path("s").join(name)).expect("removed"));
    let more = ["--index", &index, "--among", "x.img,y.img"];
    let output = run(&mut shard_run(this, &this.azurite.endpoint, &more));
    assert!(
        code(&output) == 8 && unbroken(&said(&output)).contains("cannot be used"),
        "{} {}",
        code(&output),
        said(&output)
    );
    fs::write(&list, good).expect("restored");
    let output = run(&mut shard_run(this, &this.azurite.endpoint, &more));
    assert_eq!(code(&output), 3, "{}", said(&output));
    for (name, bytes) in kept {
        fs::write(this.session.path("s").join(name), bytes).expect("restored");
    }
}

/// `dray shard run` with the account behind `endpoint`.
fn shard_run(this: &Exporting, endpoint: &str, more: &[&str]) -> std::process::Command {
    let key = this.azurite.key_file().expect("a key").display().to_string();
    let words = ["shard", "run", "s", "--silent", "--endpoint", endpoint, "--account-key-file", &key];
    let mut command = dray([&words[..], more].concat());
    command.current_dir(&this.session.dir);
    command
}

fn status(this: &Exporting) -> (i32, Value) {
    let output = this.session.dray("shard status s --json");
    (code(&output), serde_json::from_slice(&output.stdout).expect("an object"))
}

fn states(this: &Exporting) -> Vec<String> {
    let (_, value) = status(this);
    let list = value["shards"].as_array().expect("shards").iter();
    list.map(|shard| shard["state"].as_str().expect("a state").to_owned()).collect()
}

/// The drives of a journal with what is on them.
fn gathered(session: &Session, journal: &str) -> Vec<String> {
    let output = session.dray(&format!("session show {journal} --json"));
    let value: Value = serde_json::from_slice(&output.stdout).expect("an object");
    assert_eq!(value["state"], "Completed", "{value}");
    let list = value["drives"].as_array().expect("drives").iter();
    list.map(|drive| format!("{} {} {}", drive["drive_id"], drive["files"], drive["data"])).collect()
}

fn names(session: &Session, part: &str) -> Vec<String> {
    let names = fs::read_dir(&session.dir).expect("a directory").filter_map(Result::ok);
    let mut names: Vec<String> = names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.contains(part));
    names.sort();
    names
}

/// What is refused before a drive is touched.
fn guarded(this: &Exporting) {
    let without = this.session.dray("shard run s --index 0 --silent");
    assert_eq!(code(&without), 1, "{}", said(&without));
    assert!(unbroken(&said(&without)).contains(&format!("--endpoint {}", this.azurite.endpoint)), "{}", said(&without));
    let another = this.azurite.endpoint.replace(&this.azurite.account, "another");
    let other = run(&mut shard_run(this, &another, &["--index", "0"]));
    assert_eq!(code(&other), 2, "{}", said(&other));
    let shard = this.session.path("s/0002-d3.shard");
    let whole = fs::read(&shard).expect("a shard");
    let mut changed = whole.clone();
    let at = changed.len() / 2;
    changed[at] ^= 1;
    fs::write(&shard, changed).expect("written");
    let damaged = run(&mut shard_run(this, &this.azurite.endpoint, &["--index", "2"]));
    assert_eq!(code(&damaged), 8, "{}", said(&damaged));
    fs::write(&shard, whole).expect("written");
    assert!((1..4).all(|n| !this.session.path(&format!("d{n}.img")).exists()), "nothing was begun");
    for entry in
        fs::read_dir(this.session.path("s")).expect("shards").filter_map(Result::ok).filter(|one| one.path().is_file())
    {
        let bytes = fs::read(entry.path()).expect("a file");
        let key = dray_testdisks::azurite::KEY.as_bytes();
        assert!(!bytes.windows(key.len()).any(|part| part == key), "{:?} holds the key", entry.path());
    }
}

/// Begins the first shard, and kills it behind a checkpoint.
fn killed(this: &Exporting) {
    let more = ["--index", "0", "--source-rate", "8M", "--checkpoint-bytes", "4194304"];
    let mut child = shard_run(this, &this.azurite.endpoint, &more)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the program");
    let until = Instant::now() + Duration::from_secs(120);
    let durable = || status(this).1["shards"][0]["durable"].as_u64().unwrap_or(0);
    while durable() < 20_000_000 {
        assert!(Instant::now() < until && child.try_wait().expect("a child").is_none(), "{:?}", status(this));
        std::thread::sleep(Duration::from_millis(50));
    }
    // One process holds the shard.
    let second = run(&mut shard_run(this, &this.azurite.endpoint, &["--drive", "d1"]));
    assert_eq!(code(&second), 2, "{}", said(&second));
    child.kill().expect("killed");
    child.wait().expect("its end");
    assert_eq!(states(this)[0], "broken off");
    let merge = this.session.dray("shard merge s --journal early.jrn");
    assert_eq!(code(&merge), 6, "{}", said(&merge));
}

#[test]
fn judge_shards_of_an_export_make_what_one_export_makes() {
    let Some((this, blobs)) = full("export-shards") else { return };
    drives(&this.session);
    let endpoint = &this.azurite.endpoint;
    let output = this.whole(&["--shards", "s"]);
    assert_eq!(code(&output), 3, "one selects nothing, and one is in the archive: {}", said(&output));
    assert!(
        !this.session.path("export.jrn").exists() && !this.session.path("d1.img").exists(),
        "a plan writes no drive"
    );
    assert_eq!(states(&this), ["waiting"; 3]);
    assert_eq!(status(&this).1["work"], "export");
    let again = this.whole(&["--shards", "s"]);
    assert_eq!(code(&again), 2, "shards of two plans never mix: {}", said(&again));
    for what in ["slurm", "parallel", "kubernetes", "ansible"] {
        let script = this.session.works(&format!("template {what} --shards s"));
        assert!(
            script.contains("merge") == (what != "kubernetes") && script.contains("--account-key-file"),
            "{script}"
        );
        assert!(script.contains(endpoint.as_str()) && script.contains("--yes") == matches!(what, "slurm" | "parallel"));
        if matches!(what, "slurm" | "parallel") {
            let script = this.session.dray(&format!("template {what} --shards s")).stdout;
            fs::write(this.session.path("script.sh"), script).expect("a script");
            let script = this.session.path("script.sh");
            let checked = std::process::Command::new("bash").arg("-n").arg(script).output().expect("bash");
            assert!(checked.status.success(), "{what}: {}", String::from_utf8_lossy(&checked.stderr));
        }
    }
    guarded(&this);
    killed(&this);

    // It goes on behind the checkpoint, and lists nothing again.
    let seen = Front::start(&this.azurite, &this.session.path("seen"), "[]");
    let output = run(&mut shard_run(&this, &seen.endpoint, &["--index", "0"]));
    assert_eq!(code(&output), 0, "{}", said(&output));
    let requests = seen.requests();
    assert!(!requests.contains("comp=list") && !requests.contains("comp=blocklist"), "{requests}");
    drop(seen);
    let output = run(&mut shard_run(&this, endpoint, &["--here"]));
    assert_eq!(code(&output), 0, "{}", said(&output));
    assert_eq!((states(&this), status(&this).0), (vec!["done".to_owned(); 3], 0));
    // The snapshot of the blob in use is gone with the drive that it was for.
    let listed = this.azurite.client(&["list", "data"]).expect("listed");
    assert!(!listed.contains("\"snapshot\": \"2"), "{listed}");

    let merge = || this.session.dray("shard merge s --journal job.jrn");
    // What was kept with the shards is known by its digest, and a merge that is refused writes nothing.
    let refused = this.session.path("s/refused.jsonl");
    let whole = fs::read_to_string(&refused).expect("a list");
    fs::write(&refused, whole.replace("data/old", "data/new")).expect("written");
    let damaged = merge();
    assert_eq!(code(&damaged), 8, "{}", said(&damaged));
    assert_eq!(names(&this.session, "job.jrn"), [""; 0], "neither journal nor what lies next to it");
    fs::write(&refused, whole).expect("written");
    let merged = merge();
    assert_eq!(code(&merged), 3, "{}", said(&merged));
    let incomplete = fs::read_to_string(this.session.path("export#1-incomplete.xml")).expect("a list");
    assert_eq!(elements(&incomplete, "BlobPath"), ["data/old"], "{incomplete}");
    let logs = names(&this.session, "_verbose.xml");
    assert_eq!(logs.len(), 3, "{logs:?}");
    assert_eq!(names(&this.session, "_error.xml").len(), 1, "of the blob in the archive");
    let journal = fs::read(this.session.path("job.jrn")).expect("a journal");
    assert_eq!(code(&merge()), 3);
    assert_eq!(fs::read(this.session.path("job.jrn")).expect("a journal"), journal, "merging again changes nothing");
    assert_eq!(names(&this.session, "_verbose.xml"), logs, "and writes no logs again");

    // The same account onto the same drives by one session.
    let whole = Session::within(&this.session.dir.join("whole"));
    fs::create_dir_all(&whole.dir).expect("a directory");
    fs::copy(this.session.path("list.xml"), whole.path("list.xml")).expect("copied");
    drives(&whole);
    let output = run(dray(this.words(endpoint, &Exporting::begin(&[]))).current_dir(&whole.dir));
    assert_eq!(code(&output), 3, "{}", said(&output));
    assert_eq!(gathered(&this.session, "job.jrn"), gathered(&whole, "export.jrn"));
    let mut found = BTreeMap::new();
    for n in 1..4 {
        let on_drive = |session: &Session| session.works(&format!("cat d{n}.img d{n}.manifest --key-file d{n}.xml"));
        assert_eq!(on_drive(&this.session), on_drive(&whole), "the manifest of d{n}");
        let kept = |session: &Session| fs::read(session.path(&format!("d{n}.manifest.xml"))).expect("a manifest");
        assert!(kept(&this.session) == kept(&whole), "the copy of the manifest of d{n}");
        // The first log also names the blob that no drive holds, which `verify` does not call equal.
        let log = logs.iter().find(|name| name.contains(&format!("_d{n}_"))).expect("a log");
        let text = fs::read_to_string(this.session.path(log)).expect("a log");
        assert_eq!(text.contains("<BlobPath>data/old</BlobPath>"), n == 1, "{text}");
        let log = if n == 1 { String::new() } else { format!(" --copy-log {log}") };
        this.session.works(&format!("verify d{n}.img --key-file d{n}.xml{log} --extract-to out{n}"));
        let out = this.session.path(&format!("out{n}"));
        files_below(&out, &out, &mut found);
    }
    for blob in &blobs {
        let path = format!("{}/{}", blob.container, blob.name);
        assert_eq!(found.get(&path), Some(&dray_hash::sha256(&blob.content)), "{path}");
    }
    let _ = fs::remove_dir_all(&this.session.dir);
}

/// Drives that no plan names, and a blob that changes between plan and drive.
#[test]
fn shards_of_an_export_take_any_drive_of_a_size() {
    let blobs = row(4, 30_000_000);
    let Some(this) = Exporting::new("export-shards-any", &blobs) else { return };
    this.blob_list(&["/data/"]);
    let few = this
        .export(&this.azurite.endpoint, &["--blob-list", "list.xml", "--driveset", "driveset.csv", "--shards", "few"]);
    assert_eq!(code(&few), 1, "no driveset is there: {}", said(&few));
    this.image("100MB");
    let few = this.whole(&["--shards", "few"]);
    assert_eq!(code(&few), 2, "one drive is too few, and a plan that is split is whole: {}", said(&few));
    assert!(!this.session.path("few").exists());
    let plan =
        this.export(&this.azurite.endpoint, &["--blob-list", "list.xml", "--any-drive-of", "100MB", "--shards", "s"]);
    assert_eq!(code(&plan), 0, "{}", said(&plan));
    assert_eq!(states(&this), ["waiting"; 2]);
    assert!(this.upload(&[blob("data", "b1", bytes(1, 5), json!({}))]));
    for name in ["x.img", "y.img"] {
        fs::File::create(this.session.path(name)).and_then(|file| file.set_len(100_000_256)).expect("an image");
    }
    let more = ["--here", "--among", "x.img,y.img"];
    let output = run(&mut shard_run(&this, &this.azurite.endpoint, &more));
    assert_eq!(code(&output), 3, "a blob was left out: {}", said(&output));
    assert_eq!((states(&this), status(&this).0), (vec!["done".to_owned(); 2], 3));
    let left_out: u64 =
        status(&this).1["shards"].as_array().expect("shards").iter().filter_map(|one| one["left_out"].as_u64()).sum();
    assert_eq!(left_out, 1);
    damaged_lists_hide_nothing(&this);
    let merged = this.session.dray("shard merge s --journal job.jrn");
    assert_eq!(code(&merged), 3, "{}", said(&merged));
    let incomplete = fs::read_to_string(this.session.path("export#1-incomplete.xml")).expect("a list");
    assert_eq!(elements(&incomplete, "BlobPath"), ["data/b1"], "{incomplete}");
    let output = this.session.dray("verify x.img y.img --key-file x.xml --key-file y.xml --extract-to out");
    assert_eq!(code(&output), 0, "{}", said(&output));
    let mut found = BTreeMap::new();
    files_below(&this.session.path("out"), &this.session.path("out"), &mut found);
    for blob in blobs.iter().filter(|blob| blob.name != "b1") {
        assert_eq!(found.get(&format!("data/{}", blob.name)), Some(&dray_hash::sha256(&blob.content)), "{}", blob.name);
    }
    assert!(!found.contains_key("data/b1"), "neither version of it is on a drive");
    let _ = fs::remove_dir_all(&this.session.dir);
}
