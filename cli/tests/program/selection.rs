//! Selecting files, spreading them over drives, and listing them afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::common::{Session, code, dray, run, words};
use dray_testdisks::judge::{self, Drive};

fn write(session: &Session, files: &[(&str, usize)]) {
    for (path, len) in files {
        let path = session.path("source").join(path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        let bytes: Vec<u8> = (0..*len).map(|i| (i * 7 + len) as u8 ^ (i >> 11) as u8).collect();
        fs::write(path, bytes).expect("a file");
    }
}

fn session(name: &str, files: &[(&str, usize)]) -> Session {
    let session = Session::new(name);
    write(&session, files);
    session.dataset(&[&format!("\"{}/\",data/,BlockBlob,overwrite", session.path("source").display())]);
    session.driveset(&[format!("{}:150MB", session.path("drive.img").display())]);
    session
}

/// The lines of a list of JSON objects, by blob.
fn listed(path: &Path) -> BTreeMap<String, Value> {
    let text = fs::read_to_string(path).expect("a list");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("an object"));
    lines.map(|line| (line["blob"].as_str().expect("a blob").to_owned(), line)).collect()
}

/// CRC-64/NVME bit by bit, as its parameters are published: what a table or an instruction computes must be the same.
fn crc64(bytes: &[u8]) -> u64 {
    let step = |crc: u64, byte: &u8| {
        (0..8).fold(crc ^ u64::from(*byte), |crc, _| (crc >> 1) ^ (0x9A6C_9329_AC4B_C9B5 * (crc & 1)))
    };
    !bytes.iter().fold(u64::MAX, step)
}

fn md5sum(path: &Path) -> String {
    let output = Command::new("md5sum").arg(path).output().expect("md5sum");
    String::from_utf8_lossy(&output.stdout).trim_start_matches('\\')[..32].to_owned()
}

const MANY: [(&str, usize); 9] = [
    ("a.jpg", 5000),
    ("b.tmp", 10),
    ("docs/long/name.txt", 4097),
    ("docs/cache/x", 1),
    ("cache/y", 2),
    ("empty", 0),
    ("large.bin", 9_000_001),
    ("four.bin", 4 << 20),
    ("quote \"a\", b.txt", 77),
];

#[test]
fn judge_the_list_of_files_and_the_copy_of_the_manifest() {
    assert_eq!(crc64(b"123456789"), 0xAE8B_1486_0A79_9888, "the published check value");
    let session = session("list", &MANY);
    session.prepare(&["--list", &session.path("files.jsonl").display().to_string(), "--read-back", "full"]);
    let list = listed(&session.path("files.jsonl"));
    assert_eq!(list.len(), MANY.len());
    for (path, len) in MANY {
        let line = &list[&format!("data/{path}")];
        let source = session.path("source").join(path);
        assert_eq!(line["source"].as_str(), source.to_str());
        assert_eq!(line["drive_id"], "drive");
        assert_eq!(line["size"].as_u64(), Some(len as u64), "{path}");
        assert_eq!(line["md5"].as_str(), Some(&*md5sum(&source)), "{path}");
        let crc = format!("{:016x}", crc64(&fs::read(&source).expect("a file")));
        assert_eq!(line["crc64"].as_str(), Some(&*crc), "{path}");
    }
    let odd = list[&format!("data/{}", MANY[8].0)]["path"].as_str().expect("a path");
    assert!(odd.starts_with("\\session#1\\data\\quote _a_"), "{odd}");
    // Nothing of it is left beside the journal, and the drive is the one that it would be without.
    let left: Vec<_> = fs::read_dir(&session.dir).expect("a directory").filter_map(Result::ok).collect();
    assert!(left.iter().all(|entry| !entry.file_name().to_string_lossy().contains("#1.")), "{left:?}");
    let (image, record) = (session.path("drive.img"), session.path("drive.xml"));
    Drive {
        image: &image,
        record: &record,
        dataset: Some(&session.path("dataset.csv")),
        partial: false,
        plain: None,
        without: &[],
    }
    .judge()
    .expect_pass("scripts/judge-drive");

    let copy = session.path("drive.manifest.xml");
    let text = fs::read_to_string(&record).expect("the record");
    let hash = text.split_once("<ManifestHash>").and_then(|(_, rest)| rest.split_once('<')).expect("a hash").0;
    assert_eq!(md5sum(&copy).to_uppercase(), hash);
    let on_drive = run(&mut dray([
        "cat".as_ref(),
        image.as_os_str(),
        "\\DriveManifest.xml".as_ref(),
        "--key-file".as_ref(),
        record.as_os_str(),
    ]));
    assert_eq!(on_drive.stdout, fs::read(&copy).expect("the copy"), "{}", words(&on_drive));

    // A second session on the drive: its list, as CSV, and the manifest of both.
    write(&session, &[("../second/new.bin", 6_000_000), ("../second/b,c", 3)]);
    let dataset = session.path("second.csv");
    fs::write(
        &dataset,
        format!(
            "BasePath,DstItemPathOrPrefix,ItemType,Disposition,MetadataFile,PropertiesFile\n\"{}/\",more/,BlockBlob,overwrite,,\n",
            session.path("second").display()
        ),
    )
    .expect("a dataset");
    session
        .works("prep-import --journal journal.jrn --id session#2 --dataset second.csv --list second.list.csv --silent");
    let csv = fs::read_to_string(session.path("second.list.csv")).expect("a list");
    let rows: Vec<&str> = csv.lines().collect();
    assert_eq!(rows[0], "drive_id,source,blob,path,size,md5,crc64");
    let source = session.path("second/new.bin");
    let crc = crc64(&fs::read(&source).expect("a file"));
    let row = format!(
        "drive,{},more/new.bin,\\session#2\\more\\new.bin,6000000,{},{crc:016x}",
        source.display(),
        md5sum(&source)
    );
    assert!(rows.contains(&&*row), "{row}: {csv}");
    assert!(rows[1].contains("\"more/b,c\"") || rows[2].contains("\"more/b,c\""), "{csv}");
    let both = fs::read_to_string(&copy).expect("the copy");
    assert!(both.contains("data/a.jpg") && both.contains("more/new.bin"), "the manifest of both sessions");
    fs::remove_dir_all(&session.dir).expect("removed");
}

/// The blobs that a session would copy.
fn blobs(session: &Session, more: &[&str]) -> (Vec<String>, Output) {
    for name in ["drive.img", "drive.xml", "drive.manifest.xml", "journal.jrn", "out.jsonl"] {
        let _ = fs::remove_file(session.path(name));
    }
    let output = session.run(&[&["--list", &session.path("out.jsonl").display().to_string()], more].concat());
    let list = if code(&output) == 0 { listed(&session.path("out.jsonl")) } else { BTreeMap::new() };
    (list.into_keys().map(|blob| blob["data/".len()..].to_owned()).collect(), output)
}

#[test]
fn files_are_chosen_by_patterns_lists_and_links() {
    let session = session("chosen", &MANY[..6]);
    let (found, output) = blobs(&session, &["--exclude", "*.tmp", "--exclude", "/cache/"]);
    assert_eq!(found, ["a.jpg", "docs/cache/x", "docs/long/name.txt", "empty"], "{}", words(&output));
    assert!(words(&output).contains("not selected"), "{}", words(&output));
    let (found, _) = blobs(&session, &["--include", "cache", "--include", "*.jpg", "--include", "cache/"]);
    assert_eq!(found, ["a.jpg", "cache/y", "docs/cache/x"]);
    fs::write(session.path("wanted"), format!("empty\n{}\n", session.path("source/b.tmp").display())).expect("a list");
    let wanted = session.path("wanted").display().to_string();
    let (found, _) = blobs(&session, &["--files-from", &wanted]);
    assert_eq!(found, ["b.tmp", "empty"]);
    fs::write(session.path("wanted"), "empty\nnowhere\n").expect("a list");
    let (_, output) = blobs(&session, &["--files-from", &wanted]);
    assert_eq!(code(&output), 1);
    assert!(words(&output).contains("nowhere") && !session.path("drive.img").exists(), "{}", words(&output));
    let (_, output) = blobs(&session, &["--include", "a["]);
    assert!(code(&output) == 1 && words(&output).contains("--include"), "{}", words(&output));

    // Links: within the source, out of it, to nowhere, and round in a circle.
    let source = session.path("source");
    fs::write(session.path("outside"), "x").expect("a file");
    for (target, link) in
        [("a.jpg", "link.jpg"), ("docs", "linked"), ("../outside", "out"), ("gone", "none"), (".", "docs/up")]
    {
        std::os::unix::fs::symlink(target, source.join(link)).expect("a link");
    }
    let (found, _) = blobs(&session, &["--include", "*.jpg", "--include", "linked/"]);
    assert_eq!(found, ["a.jpg"]);
    let (found, output) =
        blobs(&session, &["--include", "*.jpg", "--include", "linked/", "--follow-symlinks", "inside"]);
    assert_eq!(found, ["a.jpg", "link.jpg", "linked/cache/x", "linked/long/name.txt"], "{}", words(&output));
    let said = words(&output);
    assert!(
        said.contains("leads out of the source") && said.contains("leads nowhere") && said.contains("above it"),
        "{said}"
    );
    judge::drive(&session.path("drive.img"), &session.path("drive.xml"), None, true).expect_pass("scripts/judge-drive");
    fs::remove_dir_all(&session.dir).expect("removed");
}

#[test]
fn a_name_that_azure_cannot_hold_leaves_out_that_file_alone() {
    let session = session("unnameable", &[("good", 10), ("bad\u{E000}", 20), ("ctl\u{1}x", 5)]);
    std::fs::write(
        session.path("source").join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"raw\xFF")),
        "r",
    )
    .expect("a file");
    let refused = session.run(&[]);
    assert_eq!(code(&refused), 1, "{}", words(&refused));
    let (found, output) = blobs(&session, &["--skip-unnameable"]);
    assert_eq!(found, ["good"], "{}", words(&output));
    assert!(words(&output).contains("Not copied: 3"), "{}", words(&output));
    fs::remove_dir_all(&session.dir).expect("removed");
}

#[test]
fn drives_that_are_needed_are_those_that_hold_the_files() {
    let files: Vec<(String, usize)> = (0..40).map(|i| (format!("d{}/f{i:02}", i % 3), 7_000_000)).collect();
    let files: Vec<(&str, usize)> = files.iter().map(|(name, len)| (&**name, *len)).collect();
    let session = session("needed", &files);
    let said = session.works("plan --dataset dataset.csv --drive-size 150MB,400MB --json");
    let line = said.lines().find(|line| line.contains("\"estimate\"")).unwrap_or(&said);
    let start = line.find("{\"at\"").or_else(|| line.find('{')).expect("an object");
    let estimate: Value = serde_json::from_str(line[start..].trim()).unwrap_or_else(|error| panic!("{error}: {line}"));
    assert_eq!(estimate["files"], 40);
    for (i, size) in ["150MB", "400MB"].into_iter().enumerate() {
        let count = estimate["needed"][i]["count"].as_u64().expect("a count") as usize;
        let plan = |drives: usize| {
            let images: Vec<String> =
                (0..drives).map(|i| format!("{}:{size}", session.path(&format!("p{i}.img")).display())).collect();
            session.driveset(&images);
            code(
                &session
                    .dray("plan --journal j.jrn --id session#1 --initial-driveset driveset.csv --dataset dataset.csv"),
            )
        };
        assert_eq!(plan(count), 0, "{count} drives of {size}");
        assert!(count == 1 || plan(count - 1) == 2, "{count} drives of {size}, one less");
    }
    let large = session.dray("plan --dataset dataset.csv --drive-size 80MB");
    assert!(code(&large) != 0, "{}", words(&large));

    // Evenly: each drive has a third.
    let images: Vec<String> =
        (0..3).map(|i| format!("{}:400MB", session.path(&format!("e{i}.img")).display())).collect();
    session.driveset(&images);
    session.prepare(&["--spread", "even", "--list", &session.path("even.jsonl").display().to_string()]);
    let mut shares: BTreeMap<String, u64> = BTreeMap::new();
    for line in listed(&session.path("even.jsonl")).values() {
        *shares.entry(line["drive_id"].to_string()).or_default() += line["size"].as_u64().expect("a size");
    }
    assert!(shares.len() == 3 && shares.values().all(|share| share.abs_diff(93_333_333) <= 14_000_000), "{shares:?}");
    fs::remove_dir_all(&session.dir).expect("removed");
}

#[test]
fn what_is_odd_with_a_session_is_told_before_it_begins() {
    let session = session("odd-session", &[("a", 10)]);
    // Disks, as qemu-img makes them.
    let source = session.path("source");
    let made = ["fixed", "dynamic"].map(|form| {
        let path = source.join(format!("{form}.vhd"));
        let option = format!("subformat={form},force_size");
        Command::new("qemu-img")
            .args(["create", "-q", "-f", "vpc", "-o", &option])
            .arg(&path)
            .arg("4M")
            .status()
            .is_ok()
    });
    let has_qemu = made == [true, true];
    if has_qemu {
        let vhdx = Command::new("qemu-img")
            .args(["create", "-q", "-f", "vhdx"])
            .arg(source.join("new.vhdx"))
            .arg("4M")
            .status();
        assert!(vhdx.expect("qemu-img").success());
    } else {
        eprintln!("SKIPPED judge: qemu-img makes no disks here");
    }
    fs::write(source.join("zeros.vhd"), vec![0; 4096]).expect("a file");
    // Without a type, names choose it: a disk is a page blob.
    let columns = "BasePath,DstBlobPathOrPrefix,BlobType,Disposition,MetadataFile,PropertiesFile";
    let rows = format!("{columns}\n\"{}/\",data/,,rename,None,None\n", source.display());
    fs::write(session.path("dataset.csv"), rows).expect("a dataset");
    let said = words(&session.run(&["--dry-run"]));
    assert!(said.contains("zeros.vhd: has no VHD footer"), "{said}");
    assert!(
        !has_qemu || said.contains("dynamic.vhd: is a dynamic VHD") && said.contains("new.vhdx: is a VHDX"),
        "{said}"
    );
    assert!(!said.contains("fixed.vhd: "), "{said}");
    assert_eq!(said.matches("the service may ignore it").count(), 1, "{said}");
    assert!(!words(&session.run(&["--dry-run", "--disposition", "overwrite"])).contains("the service may ignore it"));

    let list = session.run(&["--list", "files.txt"]);
    assert!(code(&list) == 1 && words(&list).contains(".jsonl"), "{}", words(&list));
    let list = session.run(&["--list", &session.path("nowhere/files.csv").display().to_string()]);
    assert!(code(&list) == 8 && words(&list).contains("the list cannot be written"), "{}", words(&list));
    let list = session.run(&["--list", &session.path("dataset.csv").display().to_string()]);
    assert!(code(&list) == 2 && !session.path("drive.img").exists(), "{}", words(&list));
    let index = session.run(&["--skip-write", "--content-md5"]);
    assert!(code(&index) == 1 && words(&index).contains("indexing sets no Content-MD5"), "{}", words(&index));
    let index = words(&session.run(&["--skip-write", "--exclude", "*.tmp"]));
    assert!(index.contains("--exclude: indexing takes") && !index.contains("--include:"), "{index}");
    fs::remove_dir_all(&session.dir).expect("removed");
}

#[test]
fn judge_types_of_blobs_by_their_names() {
    let session = session("types", &[("a.jpg", 5_000_000), ("b.strange", 10), ("c.html", 0)]);
    let (image, record) = (session.path("drive.img"), session.path("drive.xml"));
    let properties = |number: u32| {
        let path = format!("\\session#1\\_properties\\md5-{number:010}.xml");
        let mut command = dray(["cat"]);
        command.arg(&image).arg(path).arg("--key-file").arg(&record);
        String::from_utf8(run(&mut command).stdout).expect("a text")
    };
    for more in [&["--content-type", "auto"][..], &["--content-type", "auto", "--content-md5"]] {
        let (found, output) = blobs(&session, more);
        assert_eq!(found.len(), 3, "{}", words(&output));
        let texts = [0, 1, 2].map(properties);
        assert!(texts[0].contains("<Content-Type>image/jpeg</Content-Type>"), "{}", texts[0]);
        assert!(!texts[1].contains("Content-Type"), "{}", texts[1]);
        assert!(texts[2].contains("<Content-Type>text/html</Content-Type>"), "{}", texts[2]);
        assert!(
            texts.iter().all(|text| text.contains("<Content-MD5>") == more.contains(&"--content-md5")),
            "{texts:?}"
        );
        let dataset = session.path("dataset.csv");
        judge::drive(&image, &record, Some(&dataset), false).expect_pass("scripts/judge-drive");
    }
    fs::remove_dir_all(&session.dir).expect("removed");
}

#[test]
fn judge_metadata_out_of_the_sources() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let session = session("metadata-from", &[("a", 5_000_000), ("b/c", 10)]);
    let source = session.path("source/a");
    fs::set_permissions(&source, fs::Permissions::from_mode(0o640)).expect("a mode");
    let dated = Command::new("touch").args(["-d", "2019-03-04T05:06:07.5Z"]).arg(&source).status().expect("touch");
    assert!(dated.success());
    let (uid, gid) = fs::metadata(&source).map(|meta| (meta.uid(), meta.gid())).expect("facts");
    let row = |file: &str, meta: &str| {
        format!("\"{}\",data/{file},BlockBlob,overwrite,{meta}", session.path("source").join(file).display())
    };
    let meta = session.path("row.xml");
    fs::write(&meta, "<?xml version=\"1.0\"?>\n<Metadata><Project>a&amp;b</Project></Metadata>\n").expect("metadata");
    session.dataset(&[&row("a", &meta.display().to_string()), &row("b/c", "None")]);
    let (image, record) = (session.path("drive.img"), session.path("drive.xml"));
    for more in
        [&["--metadata-from", "mtime,mode,owner"][..], &["--metadata-from", "mtime,mode,owner", "--content-md5"]]
    {
        let (found, output) = blobs(&session, more);
        assert_eq!(found, ["a", "b/c"], "{}", words(&output));
        let mut command = dray(["cat"]);
        command.arg(&image).arg("\\session#1\\_properties\\meta-0000000000.xml").arg("--key-file").arg(&record);
        let text = String::from_utf8(run(&mut command).stdout).expect("a text");
        let expected = format!(
            "<Project>a&amp;b</Project>\n<mtime>2019-03-04T05:06:07.5Z</mtime>\n<mode>0640</mode>\n<owner>{uid}</owner>\n<group>{gid}</group>\n</Metadata>\n"
        );
        assert!(text.ends_with(&expected), "{text}");
        judge::drive(&image, &record, Some(&session.path("dataset.csv")), false).expect_pass("scripts/judge-drive");
    }
    // The same on a drive that holds a volume, after the first session was interrupted nowhere.
    fs::write(
        session.path("more.csv"),
        fs::read_to_string(session.path("dataset.csv")).expect("a dataset").replace("data/", "more/"),
    )
    .expect("a dataset");
    session.works("prep-import --journal journal.jrn --id session#2 --dataset more.csv --silent --metadata-from mode --content-type auto");
    let mut command = dray(["verify"]);
    let verified = run(command.arg(&image).arg("--key-file").arg(&record));
    assert_eq!(code(&verified), 0, "{}", words(&verified));
    fs::write(&meta, "<?xml version=\"1.0\"?>\n<Metadata><Mode>x</Mode></Metadata>\n").expect("metadata");
    let clash = blobs(&session, &["--metadata-from", "mode"]).1;
    assert!(
        code(&clash) == 1 && words(&clash).contains("sets Mode, which is also taken from the sources"),
        "{}",
        words(&clash)
    );
    fs::remove_dir_all(&session.dir).expect("removed");
}

#[test]
fn ignore_files_leave_out_what_git_would() {
    let session = session("ignore-files", &MANY);
    // git is the judge of the same patterns on the same tree.
    let patterns = "# caches\ncache/\n*.tmp\n!b.tmp\n/docs/long\n";
    fs::write(session.path("ignore"), patterns).expect("patterns");
    let source = session.path("source");
    let git = |words: &[&str]| run(Command::new("git").args(words).current_dir(&source));
    let judged = git(&["init", "-q"]).status.success().then(|| {
        fs::write(source.join(".git/info/exclude"), patterns).expect("patterns");
        let listed = git(&["ls-files", "-z", "--others", "--exclude-standard"]);
        let text = String::from_utf8(listed.stdout).expect("UTF-8");
        text.split('\0').filter(|path| !path.is_empty()).map(|path| format!("data/{path}")).collect::<Vec<_>>()
    });
    let _ = fs::remove_dir_all(source.join(".git"));
    let files = session.path("files.jsonl").display().to_string();
    let ignore = session.path("ignore").display().to_string();
    session.prepare(&["--ignore-file", &ignore, "--list", &files]);
    let taken: Vec<String> = listed(&session.path("files.jsonl")).into_keys().collect();
    assert_eq!(taken.len(), MANY.len() - 3, "{taken:?}");
    match judged {
        Some(mut judged) => {
            judged.sort();
            assert_eq!(taken, judged);
        }
        None => eprintln!("SKIPPED judge: git is not installed"),
    }
    let formatted = session.dray("format plain.img:100MB --no-encryption --from source --ignore-file ignore --silent");
    assert_eq!(code(&formatted), 0, "{}", words(&formatted));
    let shown = session.works("ls plain.img -R");
    assert!(shown.contains("large.bin") && shown.contains("b.tmp") && !shown.contains("cache"), "{shown}");
    let missing = session.run(&["--ignore-file", "nowhere"]);
    assert_ne!(code(&missing), 0);
}
