//! Tests of the judges: each passes good work of other programs, and fails on damage.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use dray_testdisks::dataset::Dataset;
use dray_testdisks::judge::{self, Cryptsetup};

const KEY: &str = "272316-265804-640728-713570-509047-503305-045837-324731";
const WRONG_KEY: &str = "272316-265804-640728-713570-509047-503305-045837-324742";

fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("judges-{name}"));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// Runs a tool that makes the material to judge; `false`, with a message, when it is missing.
fn make(program: &str, args: &[&str]) -> bool {
    match Command::new(program).args(args).output() {
        Err(e) => {
            eprintln!("SKIPPED judge: {program}, which makes what the judges are tried on: {e}");
            false
        }
        Ok(out) if out.status.success() => true,
        Ok(out) => panic!("{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr)),
    }
}

fn image(path: &Path, len: u64) -> &str {
    fs::File::create(path).unwrap().set_len(len).unwrap();
    path.to_str().unwrap()
}

/// Flips every bit of `len` bytes.
fn damage(path: &Path, at: u64, len: usize) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, at).unwrap();
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
    file.write_all_at(&bytes, at).unwrap();
}

/// A volume made by Windows, unpacked; `None`, with a message, when it is missing.
fn fixture(name: &str, dir: &Path) -> Option<PathBuf> {
    let out = dir.join(format!("{name}.img"));
    dray_fixtures::unpack(&format!("bitlocker/{name}.img"), &out).then_some(out)
}

#[test]
fn partition_judges_see_damage() {
    let dir = scratch("gpt");
    let path = dir.join("drive.img");
    let name = image(&path, 64 << 20);
    if !make("sgdisk", &["-n", "1:2048:129023", "-t", "1:0700", name]) {
        return;
    }
    judge::sgdisk(&path).expect_pass("sgdisk");
    judge::sfdisk(&path).expect_pass("sfdisk");
    // The backup's header, then its entries' checksum by an entry, then the primary's.
    for at in [(64 << 20) - 512 + 40, (64 << 20) - 33 * 512 + 8, 1024 + 40] {
        damage(&path, at, 4);
        judge::sgdisk(&path).expect_fail("sgdisk");
        damage(&path, at, 4);
        judge::sgdisk(&path).expect_pass("sgdisk");
    }
    damage(&path, (64 << 20) - 512 + 40, 4);
    judge::sfdisk(&path).expect_fail("sfdisk");
}

#[test]
fn bitlocker_judges_see_damage_and_wrong_keys() {
    let dir = scratch("bitlocker");
    let Some(path) = fixture("win-server2019-xts128-ntfs-full", &dir) else { return };
    judge::cryptsetup(&path, KEY, Cryptsetup::Installed).expect_pass("cryptsetup");
    judge::cryptsetup(&path, KEY, Cryptsetup::Newer).expect_pass("cryptsetup, strict");
    judge::bdeinfo(&path, KEY).expect_pass("bdeinfo");
    judge::libbde(&path, KEY).expect_pass("libbde");
    judge::libbde(&path, WRONG_KEY).expect_fail("libbde");
    judge::bdeinfo(&path, WRONG_KEY).expect_fail("bdeinfo");
    judge::cryptsetup(&path, WRONG_KEY, Cryptsetup::Installed).expect_fail("cryptsetup");

    let plain = dir.join("plain.img");
    if judge::decrypt(&path, KEY, &plain).expect_pass("libbde") {
        judge::dissect(&path, KEY, &plain, 10).expect_pass("dissect.fve");
        judge::ntfsfix(&plain).expect_pass("ntfsfix");
        judge::ntfsinfo(&plain).expect_pass("ntfsinfo");
        judge::fsstat(&plain).expect_pass("fsstat");
        damage(&plain, 3, 1);
        judge::dissect(&path, KEY, &plain, 10).expect_fail("dissect.fve");
    }

    // One byte in each of the three metadata copies: only the strict judge looks at their checksums.
    let bytes = fs::read(&path).unwrap();
    let copies: Vec<u64> = (0..bytes.len())
        .step_by(512)
        .filter(|at| bytes[*at..].starts_with(b"-FVE-FS-") && *at > 0)
        .map(|at| at as u64)
        .collect();
    assert_eq!(copies.len(), 3, "three metadata copies");
    for copy in &copies {
        damage(&path, copy + 64 + 40, 1);
    }
    judge::cryptsetup(&path, KEY, Cryptsetup::Newer).expect_fail("cryptsetup, strict");
    for copy in &copies {
        damage(&path, *copy, 8);
    }
    judge::cryptsetup(&path, KEY, Cryptsetup::Installed).expect_fail("cryptsetup");
    judge::libbde(&path, KEY).expect_fail("libbde");
}

#[test]
fn ntfs_judges_see_damage() {
    let dir = scratch("ntfs");
    let path = dir.join("plain.img");
    let name = image(&path, 64 << 20);
    if !make("mkntfs", &["-F", "-Q", "-q", "-L", "judged", name]) {
        return;
    }
    judge::ntfsfix(&path).expect_pass("ntfsfix");
    judge::ntfsinfo(&path).expect_pass("ntfsinfo");
    judge::checkdisk(&path).expect_pass("checkdisk");
    judge::phantom_trace(&path).expect_pass("PhantomTrace");
    judge::fsstat(&path).expect_pass("fsstat");
    judge::fls(&path, 0).expect_pass("fls");
    judge::fls(&path, 1).expect_fail("fls");
    // mkntfs puts the $MFT at cluster 4: damage the record of $Volume there, then the mirror's view of $MFT.
    let record = |n: u64| 4 * 4096 + n * 1024;
    for at in [record(3), record(0) + 60] {
        damage(&path, at, 4);
        judge::ntfsfix(&path).expect_fail("ntfsfix");
        damage(&path, at, 4);
    }
    // The bitmap of $MFT lies before it; then the record of $BadClus.
    for at in [2 * 4096, record(8)] {
        damage(&path, at, 4);
        judge::checkdisk(&path).expect_fail("checkdisk");
        judge::phantom_trace(&path).expect_fail("PhantomTrace");
        damage(&path, at, 4);
    }
    damage(&path, 510, 2);
    judge::fsstat(&path).expect_fail("fsstat");
    damage(&path, 510, 2);
    damage(&path, 3, 8);
    judge::ntfsinfo(&path).expect_fail("ntfsinfo");
}

#[test]
fn comparing_files_sees_content_time_and_strangers() {
    let dir = scratch("compare");
    let (source, mount, path) = (dir.join("source"), dir.join("mount"), dir.join("plain.img"));
    let mut dataset = Dataset::new(&source, 5).unwrap();
    dataset.small(60, 10).unwrap();
    dataset.file("names/\u{1f600}\u{10400}", 5000).unwrap();
    dataset.finish().unwrap();
    let name = image(&path, 64 << 20);
    fs::create_dir(&mount).unwrap();
    if !make("mkntfs", &["-F", "-Q", "-q", name]) || !Path::new("/dev/fuse").exists() {
        return;
    }
    let mounted = Command::new("ntfs-3g").arg(&path).arg(&mount).output();
    if !mounted.as_ref().is_ok_and(|out| out.status.success()) {
        eprintln!("SKIPPED judge: ntfs-3g does not mount here: {mounted:?}");
        return;
    }
    assert!(make("cp", &["-rp", source.to_str().unwrap(), mount.join("s").to_str().unwrap()]));
    assert!(make("umount", &[mount.to_str().unwrap()]));

    let find = Command::new("find").arg(&source).args(["-type", "f", "-printf", "%P\n"]).output().unwrap();
    let lines: Vec<String> = String::from_utf8(find.stdout)
        .unwrap()
        .lines()
        .map(|line| format!("\\s\\{}\t{}/{line}\n", line.replace('/', "\\"), source.display()))
        .collect();
    let mapping = dir.join("mapping");
    fs::write(&mapping, lines.concat()).unwrap();
    judge::compare(&path, &mapping, true).expect_pass("compare");

    judge::fls(&path, 61).expect_pass("fls");

    // An additional file, a changed time, a changed byte.
    fs::write(&mapping, lines[1..].concat()).unwrap();
    judge::compare(&path, &mapping, false).expect_pass("compare");
    judge::compare(&path, &mapping, true).expect_fail("compare");
    fs::write(&mapping, lines.concat()).unwrap();
    let victim = source.join("names/\u{1f600}\u{10400}");
    let modified = fs::metadata(&victim).unwrap().modified().unwrap();
    let file = OpenOptions::new().write(true).open(&victim).unwrap();
    file.set_modified(modified + std::time::Duration::from_micros(1)).unwrap();
    judge::compare(&path, &mapping, true).expect_fail("compare");
    damage(&victim, 4999, 1);
    file.set_modified(modified).unwrap();
    judge::compare(&path, &mapping, true).expect_fail("compare");

    // A name that only the index has lost.
    assert!(make("ntfs-3g", &[name, mount.to_str().unwrap()]));
    fs::remove_dir_all(mount.join("s/names")).unwrap();
    assert!(make("umount", &[mount.to_str().unwrap()]));
    judge::fls(&path, 0).expect_fail("fls");
}

const MANIFEST: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<DriveManifest Version="2014-11-01">
  <Drive>
    <DriveId>TEST1</DriveId>
    <ClientCreator>somebody</ClientCreator>
    <BlobList Id="session#1-0">
      <MetadataPath Hash="A5166CA9A4E80F64C73F8A1B4D5FE0A5">\m.xml</MetadataPath>
      <Blob>
        <BlobPath>c/abc</BlobPath>
        <FilePath>\s\abc</FilePath>
        <Length>3</Length>
        <ImportDisposition>rename</ImportDisposition>
        <BlockList><Block Offset="0" Length="3" Id="MD5/kAFQmDzST7DWlj99KOF/cg==" Hash="900150983CD24FB0D6963F7D28E17F72" /></BlockList>
      </Blob>
      <Blob>
        <BlobPath>c/empty</BlobPath>
        <FilePath>\s\empty</FilePath>
        <Length>0</Length>
        <BlockList />
      </Blob>
      <Blob>
        <BlobPath>c/pages</BlobPath>
        <FilePath>\s\pages</FilePath>
        <Length>16384</Length>
        <PageRangeList><PageRange Offset="4096" Length="512" Hash="66534829E64E71E4B1A4FF06E58CFEF3" /></PageRangeList>
      </Blob>
    </BlobList>
  </Drive>
</DriveManifest>
"#;

/// Complaints of the independent checker about `manifest` next to the three files; `None` without Python.
fn complaints(dir: &Path, manifest: &str) -> Option<String> {
    fs::write(dir.join("DriveManifest.xml"), manifest).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/check_manifest.py");
    let expect = dir.join("expect");
    fs::write(&expect, "c/abc\nc/empty\nc/pages\n").unwrap();
    let out = Command::new(judge::python())
        .arg(script)
        .arg(dir)
        .args(["--drive-id", "TEST1", "--expect"])
        .arg(&expect)
        .output();
    match out {
        Err(e) => {
            eprintln!("SKIPPED judge: check_manifest.py: {e}");
            None
        }
        Ok(out) => {
            let said = String::from_utf8_lossy(&out.stdout).into_owned();
            assert!(!said.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
            assert_eq!(out.status.success(), said.contains(" 0 complaints"), "{said}");
            Some(if out.status.success() { String::new() } else { said })
        }
    }
}

#[test]
fn the_manifest_checker_sees_every_kind_of_error() {
    let dir = scratch("manifest");
    fs::create_dir(dir.join("s")).unwrap();
    fs::write(dir.join("s/abc"), "abc").unwrap();
    fs::write(dir.join("s/empty"), "").unwrap();
    fs::write(dir.join("m.xml"), "<Metadata />").unwrap();
    let mut pages = vec![0; 16384];
    pages[4096..4608].fill(b'x');
    fs::write(dir.join("s/pages"), &pages).unwrap();
    let md5 = |path: &str| {
        let out = Command::new("md5sum").arg(dir.join(path)).output().unwrap();
        String::from_utf8(out.stdout).unwrap()[..32].to_uppercase()
    };
    // The hashes of the two that have no well-known one come from md5sum.
    fs::write(dir.join("range"), &pages[4096..4608]).unwrap();
    let good = MANIFEST
        .replace("A5166CA9A4E80F64C73F8A1B4D5FE0A5", &md5("m.xml"))
        .replace("66534829E64E71E4B1A4FF06E58CFEF3", &md5("range"));
    match complaints(&dir, &good) {
        None => return,
        Some(said) => assert_eq!(said, "", "the good manifest"),
    }
    for (right, wrong) in [
        ("9001509", "9001508"),
        ("Hash=\"9001", "Hash=\" 9001"),
        ("900150983CD24FB0D6963F7D28E17F72", "900150983cd24fb0d6963f7d28e17f72"),
        ("MD5/kA", "MD5/lA"),
        ("<Length>3<", "<Length>4<"),
        ("Length=\"3\"", "Length=\"2\""),
        ("\"0\" Length=\"3\"", "\"1\" Length=\"2\""),
        (
            "<BlockList />",
            "<BlockList><Block Offset=\"0\" Length=\"1\" Hash=\"D41D8CD98F00B204E9800998ECF8427E\"/></BlockList>",
        ),
        ("<BlockList />", ""),
        ("c/empty", "c/abc"),
        ("c/empty", "c/other"),
        ("\\s\\empty", "\\s\\none"),
        ("\\s\\empty", "s\\empty"),
        ("\\s\\empty", "\\s\\ABC"),
        ("TEST1", "TEST2"),
        ("Offset=\"4096\"", "Offset=\"4097\""),
        ("Offset=\"4096\"", "Offset=\"3584\""),
        ("4096\" Length=\"512\"", "4096\" Length=\"511\""),
        (
            "<PageRange Offset",
            "<PageRange Offset=\"0\" Length=\"512\" Hash=\"BF619EAC0CDF3F68D496EA9344137E8B\"/><PageRange Offset",
        ),
        (
            "<PageRangeList>",
            "<PageRangeList><PageRange Offset=\"4608\" Length=\"512\" Hash=\"BF619EAC0CDF3F68D496EA9344137E8B\"/>",
        ),
        ("\\m.xml", "\\n.xml"),
        ("<MetadataPath Hash=\"", "<MetadataPath Hash=\"0"),
        ("rename", "Rename"),
        ("    <ClientCreator>", "    <StorageAccountKey>k</StorageAccountKey><ClientCreator>"),
        ("</Drive>", ""),
    ] {
        let broken = good.replacen(right, wrong, 1);
        assert_ne!(broken, good, "{right} is in the manifest");
        // The first range of zeros is legal: shorter than a page. It only must not be taken for an error.
        let legal = wrong.starts_with("<PageRange Offset=\"0\"");
        assert_eq!(complaints(&dir, &broken).unwrap().is_empty(), legal, "{right} → {wrong}");
    }
    // A whole page of zeros inside a range.
    fs::write(dir.join("range"), &pages[..8192]).unwrap();
    let zeros = good.replace(
        "Offset=\"4096\" Length=\"512\" Hash=\"",
        &format!("Offset=\"0\" Length=\"8192\" Hash=\"{}\" Was=\"", md5("range")),
    );
    assert!(complaints(&dir, &zeros).unwrap().contains("page of zeros"), "zeros in a range");
    // A byte outside all ranges that is not zero.
    pages[16383] = 1;
    fs::write(dir.join("s/pages"), &pages).unwrap();
    assert!(complaints(&dir, &good).unwrap().contains("not zero between"), "bytes outside the ranges");
}
