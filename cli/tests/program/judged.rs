//! Drives made by the binary, judged by external tools: partition table, BitLocker, NTFS, manifest, and every file
//! against its source.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use crate::common::{Session, key_in, said, scratch, unbroken};
use dray_testdisks::crates::crates;
use dray_testdisks::dataset::Dataset;
use dray_testdisks::judge::{self, Cryptsetup};

/// Runs every judge on one finished drive and its record, and compares the files with the dataset.
fn judge_drive(session: &Session, drive: &str, partial: bool) {
    let image = session.path(&format!("{drive}.img"));
    let record = session.path(&format!("{drive}.xml"));
    judge::drive(&image, &record, Some(&session.path("dataset.csv")), partial).expect_pass("scripts/judge-drive");
    crates(&image, &record, None).expect_pass("bitlocker-core and ntfs");
    fs::remove_file(image).expect("the image");
}

/// A session with one source tree and one new image.
fn one_drive(name: &str, size: &str, fill: impl FnOnce(&mut Dataset)) -> Session {
    let session = Session::new(name);
    let source = session.path("source");
    let mut data = Dataset::new(&source, 7).expect("a dataset");
    fill(&mut data);
    data.finish().expect("a dataset");
    session.dataset(&[&format!("\"{}/\",data/,BlockBlob,rename,None,None", source.display())]);
    session.driveset(&[format!("{}:{size}", session.path("drive.img").display())]);
    session
}

/// Enough data to run across all of BitLocker's regions of a small volume (33 MiB and two ninths further on).
fn across_regions(data: &mut Dataset) {
    data.large(60 << 20, 17 << 20).expect("large files");
    data.small(200, 20).expect("small files");
    for len in [0, 1, 700, 4095, 4096, (4 << 20) - 1, 4 << 20, (4 << 20) + 1] {
        data.file(format!("edges/{len}"), len).expect("an edge");
    }
}

/// Removes files whose names hold code points that Azure refuses.
fn remove_private_use(dir: &Path) {
    for entry in fs::read_dir(dir).expect("a directory").filter_map(Result::ok) {
        let path = entry.path();
        let refused = |c: char| ('\u{E000}'..='\u{F8FF}').contains(&c);
        match (entry.file_name().to_string_lossy().contains(refused), path.is_dir()) {
            (true, true) => fs::remove_dir_all(&path).expect("removed"),
            (true, false) => fs::remove_file(&path).expect("removed"),
            (false, true) => remove_private_use(&path),
            (false, false) => {}
        }
    }
}

#[test]
fn judge_default_cipher_and_extreme_names() {
    let session = one_drive("extremes", "400MB", |data| {
        data.extremes(64 << 20).expect("extremes");
        across_regions(data);
    });
    // Two kinds of name that Azure cannot have are refused, all of them at once, and nothing is made.
    let refused = session.run(&[]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(!session.path("drive.img").exists() && !session.path("journal.jrn").exists());
    assert!(said(&refused).contains("4 problems"), "{}", said(&refused));
    remove_private_use(&session.path("source"));
    session.prepare(&[]);
    let mode = fs::metadata(session.path("drive.xml")).expect("the record").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "the record holds the key");
    judge_drive(&session, "drive", false);
}

#[test]
fn judge_content_md5_of_every_blob() {
    let session = one_drive("content-md5", "300MB", across_regions);
    let source = session.path("source");
    let disk: Vec<u8> = (0..9 << 20).map(|i: usize| if i % (1 << 20) < 5000 { (i % 251) as u8 } else { 0 }).collect();
    fs::write(source.join("disk.vhd"), disk).expect("a disk");
    let xml = "<Properties><Content-Type>text/x-a&amp;b</Content-Type></Properties>";
    fs::write(session.path("properties.xml"), xml).expect("properties");
    let row = |pattern: &str, blob: &str, kind: &str, properties: &str| {
        format!("\"{}/{pattern}\",data/{blob},{kind},rename,None,{properties}", source.display())
    };
    let properties = session.path("properties.xml").display().to_string();
    session.dataset(&[&row("", "all/", "BlockBlob", "None"), &row("", "again/", "BlockBlob", &properties)]);
    session.prepare(&["--content-md5", "--read-back", "full"]);
    let mut list = std::process::Command::new(env!("CARGO_BIN_EXE_dray"));
    list.arg("ls").arg("-R").arg(session.path("drive.img")).arg("--key-file").arg(session.path("drive.xml"));
    let listed = said(&list.output().expect("the binary runs"));
    let (own, all) = (listed.matches("md5-0").count(), listed.lines().count());
    assert!(own > 400 && all > 2 * own, "{own} of {all}: {listed}");
    judge_drive(&session, "drive", false);
}

#[test]
fn judge_every_other_cipher_and_cluster_size() {
    for (i, (cipher, cluster, size)) in [
        ("aes-cbc-128", "512", "160MB"),
        ("xts-aes-128", "16K", "200MB"),
        ("xts-aes-256", "64K", "300MB"),
        ("aes-cbc-256", "2M", "900MB"),
    ]
    .into_iter()
    .enumerate()
    {
        let session = one_drive(&format!("cipher-{cipher}"), size, across_regions);
        let table = if i % 2 == 0 { "gpt" } else { "mbr" };
        session.prepare(&["--cipher", cipher, "--cluster-size", cluster, "--table", table]);
        judge_drive(&session, "drive", false);
    }
}

#[test]
fn judge_sectors_of_4096_bytes() {
    let session = one_drive("sectors-4096", "200MB", across_regions);
    session.prepare(&["--sector-size", "4096", "--cipher", "xts-aes-256", "--drive-header-hash"]);
    assert!(fs::read_to_string(session.path("drive.xml")).expect("the record").contains("<DriveHeaderHash>0:1048576:"));
    let image = session.path("drive.img");
    let key = key_in(&session.path("drive.xml"));
    judge::sgdisk(&image).expect_pass("sgdisk");
    let record = session.path("drive.xml");
    let (dataset, plain) = (session.path("dataset.csv"), session.path("plain.img"));
    let drive = judge::Drive {
        image: &image,
        record: &record,
        dataset: Some(&dataset),
        partial: false,
        plain: Some(&plain),
        without: &[],
    };
    if drive.judge().expect_pass("scripts/judge-drive") {
        crates(&image, &record, Some(&plain)).expect_pass("ntfs");
    }
    judge::cryptsetup(&image, &key, Cryptsetup::Newer).expect_pass("cryptsetup");
    fs::remove_file(image).expect("the image");
}

#[test]
fn judge_pages_properties_and_several_rows() {
    let session = Session::new("rows");
    let source = session.path("source");
    let mut data = Dataset::new(&source, 11).expect("a dataset");
    data.small(50, 10).expect("small files");
    data.sparse("disks/a.vhd", 40 << 20, &[0, 5 << 20, (12 << 20) + 4096, (40 << 20) - 512], 512).expect("a disk");
    data.file("disks/b.vhd", 9 * 512).expect("a disk");
    data.file("more/one.bin", 5_000_000).expect("a file");
    data.finish().expect("a dataset");
    fs::write(session.path("meta.xml"), "<?xml version=\"1.0\"?>\n<Metadata><Source>lab</Source></Metadata>\n")
        .expect("meta");
    fs::write(
        session.path("props.xml"),
        "<?xml version=\"1.0\"?>\n<Properties><Content-Type>text/plain</Content-Type></Properties>\n",
    )
    .expect("props");
    let dir = session.dir.display();
    session.dataset(&[
        &format!("\"{}/d0/\",photos/archive/,BlockBlob,overwrite,\"{dir}/meta.xml\",None", source.display()),
        &format!("\"{}/disks/\",vhds/,PageBlob,no-overwrite,None,None", source.display()),
        &format!(
            "\"{}/more/one.bin\",photos/archive/single.bin,BlockBlob,rename,None,{dir}/props.xml",
            source.display()
        ),
    ]);
    // Whatever the dataset's directories are called: the first row takes one that is there.
    let first = fs::read_dir(&source)
        .expect("source")
        .filter_map(Result::ok)
        .map(|e| e.file_name())
        .min()
        .expect("a directory");
    let rows = fs::read_to_string(session.path("dataset.csv")).expect("rows");
    fs::write(session.path("dataset.csv"), rows.replace("/d0/", &format!("/{}/", first.to_string_lossy())))
        .expect("rows");
    session.driveset(&[format!("{}:160MB", session.path("drive.img").display())]);
    session.prepare(&["--external-key", &session.dir.display().to_string()]);
    let bek = fs::read_dir(&session.dir)
        .expect("dir")
        .filter_map(Result::ok)
        .any(|e| e.path().extension().is_some_and(|x| x == "BEK"));
    assert!(bek, "a key file lies beside the record");
    judge_drive(&session, "drive", false);
}

#[test]
fn judge_two_drives_that_hold_it_only_together() {
    let session = one_drive("two", "100MB", |data| {
        data.large(90 << 20, 11 << 20).expect("large files");
        data.small(300, 30).expect("small files");
    });
    let image = |n: u32| format!("{}:100MB", session.path(&format!("drive{n}.img")).display());
    session.driveset(&[image(1), image(2)]);
    session.prepare(&[]);
    let blobs = |n: u32| {
        // Each blob is on one drive alone: the judges look at the manifests; here only that both hold something.
        fs::read_to_string(session.path(&format!("drive{n}.xml"))).expect("a record").contains("Completed")
    };
    assert!(blobs(1) && blobs(2));
    judge_drive(&session, "drive1", true);
    judge_drive(&session, "drive2", true);
}

#[test]
fn judge_free_space_overwritten_and_old_contents_gone() {
    let session = one_drive("wiped", "96MB", |data| data.small(100, 10).expect("small files"));
    let image = session.path("drive.img");
    // An old drive: recognisable, and full of a pattern.
    let pattern: Vec<u8> = b"OLD SECRET ".iter().copied().cycle().take(96_000_000).collect();
    fs::write(&image, &pattern).expect("an old image");
    let made = std::process::Command::new("mkntfs").args(["-F", "-Q", "-q", "-s", "512"]).arg(&image).output();
    if !made.is_ok_and(|done| done.status.success()) {
        eprintln!("SKIPPED judge: mkntfs is not here to make an old volume");
        return;
    }
    session.driveset(&[image.display().to_string()]);
    let refused = session.run(&["--wipe-free"]);
    assert_eq!(refused.status.code(), Some(2), "an image with a volume on it needs consent: {}", said(&refused));
    let before = fs::read(&image).expect("the image");
    session.prepare(&["--wipe-free", "--yes", "drive"]);
    let after = fs::read(&image).expect("the image");
    assert_ne!(before, after);
    // Outside the volume (reserved partition) no wiping was requested; inside nothing may be left.
    let inside = &after[17 << 20..];
    assert!(!inside.windows(11).step_by(1).any(|w| w == b"OLD SECRET "), "old data in the volume");
    judge_drive(&session, "drive", false);
}

#[test]
fn judge_volume_filled_to_its_last_clusters() {
    // Grow the last file until preflight refuses; the largest accepted one must give a good drive.
    let session = one_drive("full", "100MB", |data| data.large(20 << 20, 20 << 20).expect("a file"));
    let filler = session.path("source/filler");
    let fits = |clusters: u64| {
        fs::File::create(&filler).and_then(|file| file.set_len(clusters * 4096)).expect("a filler");
        let output = session.run(&["--dry-run"]);
        match output.status.code() {
            Some(0) => true,
            Some(2) => {
                let said = said(&output);
                assert!(said.contains("too small by"), "{said}");
                false
            }
            _ => panic!("{}", said(&output)),
        }
    };
    let (mut yes, mut no) = (0u64, 20_000u64);
    assert!(fits(yes) && !fits(no));
    while no - yes > 1 {
        let middle = yes + (no - yes) / 2;
        if fits(middle) { yes = middle } else { no = middle }
    }
    assert!(fits(yes));
    assert!(!Path::new(&session.path("drive.img")).exists(), "a dry run makes nothing");
    session.prepare(&[]);
    judge_drive(&session, "drive", false);
}

#[test]
fn judge_the_demo() {
    let dir = scratch("demo-judged");
    let demo = dir.join("demo");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_dray")).args(["demo", "--dir"]).arg(&demo).output();
    let output = output.expect("the binary runs");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    judge::drive(&demo.join("demo.img"), &demo.join("DEMO.xml"), Some(&demo.join("dataset.csv")), false)
        .expect_pass("scripts/judge-drive");
    crates(&demo.join("demo.img"), &demo.join("DEMO.xml"), None).expect_pass("bitlocker-core and ntfs");
    // One flipped bit in the middle of the data, which they must report.
    let image = fs::OpenOptions::new().read(true).write(true).open(demo.join("demo.img")).expect("the image");
    let (at, mut byte) = (30_000_000, [0]);
    image.read_exact_at(&mut byte, at).expect("a byte");
    image.write_all_at(&[byte[0] ^ 1], at).expect("another");
    crates(&demo.join("demo.img"), &demo.join("DEMO.xml"), None).expect_fail("bitlocker-core and ntfs");
    // The key is in the drive record, and nowhere else.
    let key = key_in(&demo.join("DEMO.xml"));
    let mut places = vec![demo.clone()];
    while let Some(place) = places.pop() {
        for entry in fs::read_dir(&place).expect("a directory").filter_map(Result::ok) {
            let path = entry.path();
            if path.is_dir() {
                places.push(path);
            } else if path.file_name().is_some_and(|name| name != "DEMO.xml")
                && entry.metadata().expect("facts").len() < 1 << 20
            {
                let bytes = fs::read(&path).expect("a file");
                assert!(!String::from_utf8_lossy(&bytes).contains(&key), "{} holds the key", path.display());
            }
        }
    }
    assert!(!said(&output).contains(&key), "the key was printed");
}

#[test]
fn refused_all_together_with_line_column_value_and_nothing_written() {
    let session = Session::new("refused");
    fs::create_dir_all(session.path("source")).expect("a source");
    fs::write(session.path("source/odd.vhd"), [0; 513]).expect("a file");
    fs::write(session.path("bad.xml"), "<Metadata><1></Metadata>").expect("a file");
    let dir = session.dir.display();
    session.dataset(&[
        &format!("\"{dir}/source/\",UPPER/,BlockBlob,rename,None,None"),
        &format!("\"{dir}/source/\",disks/,PageBlob,rename,None,None"),
        &format!("\"{dir}/gone/\",data/,BlockBlob,rename,None,None"),
        &format!("\"{dir}/source/\",share/,file,rename,None,None"),
        &format!("\"{dir}/source/odd.vhd\",data/x.bin,BlockBlob,rename,{dir}/bad.xml,None"),
    ]);
    let image = session.path("drive.img");
    session.driveset(&[format!("{}:100MB", image.display()), format!("{}:100MB", image.display())]);
    let output = session.run(&[]);
    let words = said(&output).replace('\n', " ");
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("dataset.csv:2") && words.contains("UPPER"), "{words}");
    assert!(!image.exists() && !session.path("journal.jrn").exists() && !session.path("logs").exists());
    // The CSV itself is right now: its sources are checked, all of them.
    let rows = fs::read_to_string(session.path("dataset.csv")).expect("rows");
    fs::write(session.path("dataset.csv"), rows.replace("UPPER/", "upper/")).expect("rows");
    let output = session.run(&[]);
    let words = unbroken(&said(&output));
    assert_ne!(output.status.code(), Some(0), "{words}");
    for part in ["same drive", "multiple of 512", "gone", "Azure Files", "bad.xml"] {
        assert!(words.contains(part), "{part}: {words}");
    }
    assert!(!image.exists() && !session.path("journal.jrn").exists() && !session.path("logs").exists());
}
