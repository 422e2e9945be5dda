//! Volumes made by other systems, read by the binary, and compared with the results of other readers.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::common::fixtures::{Image, fixture, unpack};
use crate::common::{dray, run, said, scratch, words};

/// Files above this size are left to the fastest judge.
const SLOW: u64 = 64 << 20;

fn tool(program: &str, args: &[&str]) -> Option<Output> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    if output.is_err() {
        eprintln!("SKIPPED judge: {program} is not installed");
    }
    output.ok()
}

/// SHA-256 of a command's stdout.
fn hashed(command: &mut Command) -> String {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
    let sum = Command::new("sha256sum").stdin(child.stdout.take().expect("its output")).output().expect("sha256sum");
    let ended = child.wait_with_output().expect("ends");
    assert!(ended.status.success(), "{command:?}: {}", said(&ended));
    String::from_utf8_lossy(&sum.stdout)[..64].to_owned()
}

/// One volume of the fixtures' README.
#[derive(Debug, Default)]
struct Listed {
    name: String,
    passwords: Vec<String>,
    key_files: Vec<String>,
    hash: String,
}

/// The texts between backticks.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The tables of the README: secrets and hashes of every volume.
fn listed(readme: &str) -> Vec<Listed> {
    let rows = || {
        readme
            .lines()
            .filter(|line| line.starts_with("| `"))
            .map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect::<Vec<_>>())
    };
    let mut all: Vec<Listed> = Vec::new();
    for cells in rows().filter(|cells| cells.len() == 8) {
        let secrets = cells[6].split(';').map(|part| (part.trim().to_owned(), quoted(part)));
        let mut one = Listed { name: quoted(&cells[0]).remove(0), ..Listed::default() };
        for (what, values) in secrets.filter(|(_, values)| !values.is_empty()) {
            let list = if what.starts_with("key file") { &mut one.key_files } else { &mut one.passwords };
            list.extend(values);
        }
        all.push(one);
    }
    for cells in rows().filter(|cells| cells.len() == 5) {
        let name = quoted(&cells[0]).remove(0);
        let one = all.iter_mut().find(|one| one.name == name).expect("each hash belongs to a volume");
        one.hash = quoted(&cells[3]).remove(0);
    }
    all
}

#[test]
fn judge_windows_volumes_open_with_every_secret_and_decrypt_to_the_listed_bytes() {
    let Some(readme) = fixture("bitlocker/README.md") else { return };
    let all = listed(&fs::read_to_string(readme).expect("readable"));
    assert!(all.len() >= 18 && all.iter().all(|one| one.hash.len() == 64), "{all:?}");
    for one in &all {
        let Some(image) = unpack("windows-volumes", &format!("bitlocker/{}", one.name)) else { continue };
        let dir = scratch("windows-volumes-keys");
        let mut keys: Vec<Option<PathBuf>> = Vec::new();
        for (index, password) in one.passwords.iter().enumerate() {
            let path = dir.join(format!("secret-{index}"));
            fs::write(&path, password).expect("a key file");
            keys.push(Some(path));
        }
        keys.extend(one.key_files.iter().map(|name| fixture(&format!("bitlocker/{name}"))));
        if keys.is_empty() {
            keys.push(None);
        }
        let with = |args: &[&str], key: &Option<PathBuf>| {
            let mut command = dray(args);
            if let Some(key) = key {
                command.arg("--key-file").arg(key);
            }
            command
        };
        for key in &keys {
            let output = run(&mut with(&["unlock", image.name(), "--json"], key));
            assert_eq!(output.status.code(), Some(0), "{} with {key:?}: {}", one.name, said(&output));
            assert!(said(&output).contains("\"opens\":true"), "{}", one.name);
        }
        let wanted = match one.name.as_str() {
            // dissect.fve's answer for this volume depends on the size of its reads (it lets a chunk begin where a read
            // begins), and the listed one is for 1 MiB. With reads of 8 KiB, which never cross a chunk's border here, it
            // gives this.
            "dissect-eow-partial.img.xz" => "05643efa277b704661177f2ecfaebf5943ad252064e3e743d165e18708031bde",
            _ => &one.hash,
        };
        let to = dir.join("plain.img");
        let output = run(with(&["decrypt", image.name()], &keys[0]).arg("--to").arg(&to));
        assert_eq!(output.status.code(), Some(0), "{}: {}", one.name, said(&output));
        assert_eq!(hashed(Command::new("cat").arg(&to)), wanted, "{}", one.name);
        // Facts shown without a key.
        let output = run(&mut dray(["inspect", image.name(), "--json"]));
        assert_eq!(output.status.code().unwrap_or(-1) & !4, 0, "{}: {}", one.name, said(&output));
        let facts: serde_json::Value = said(&output)
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .find(|object: &serde_json::Value| object["type"] == "inspect")
            .expect("facts");
        assert_eq!(facts["inside"], "bitlocker", "{}", one.name);
        let warned = facts["warnings"].to_string();
        let wants = match one.name.as_str() {
            "bitlk-aes-xts-128-eow.img.xz" => "progress cannot be read",
            "dissect-eow-partial.img.xz" => "each is read as it is",
            "bitlk-aes-xts-128-clearkey-only.img.xz" => "suspended",
            "dissect-vista.img.xz" => "2 of the 3 copies",
            _ => "[",
        };
        assert!(warned.contains(wants), "{}: {warned}", one.name);
    }
}

#[test]
fn judge_a_whole_windows_volume_gives_its_listed_files() {
    let Some(image) = unpack("windows-files", "bitlocker/win-server2019-xts128-ntfs-full.img.xz") else { return };
    let key = scratch("windows-files-key").join("password");
    fs::write(&key, "Password1234\r\n").expect("a key file");
    let key = key.to_str().expect("UTF-8");
    for (path, wanted) in [
        ("test-file-1.txt", "3ceb5c413ee02895bf1f357a8c2cc2bec824f4d8aad13aeab69303f341c8b781"),
        ("\\Test-Folder\\test-file-2.txt", "26fdc315fadc05db9f8f3236fc30b9f0ca044e56ec1e9450ccd5fdab900e9e46"),
    ] {
        assert_eq!(hashed(&mut dray(["cat", image.name(), path, "--key-file", key])), wanted, "{path}");
    }
    let output = run(&mut dray(["cat", image.name(), "test-file-1.txt", "none.txt", "--key-file", key]));
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{}", said(&output));
    let output = run(&mut dray(["cat", image.name(), "test-folder", "--key-file", key]));
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
}

#[test]
fn judge_a_whole_windows_volume_is_verified_and_taken_out() {
    let Some(image) = unpack("windows-verified", "bitlocker/win-server2019-xts128-ntfs-full.img.xz") else { return };
    let dir = scratch("windows-verified-out");
    let key = dir.join("password");
    fs::write(&key, "Password1234\r\n").expect("a key file");
    // Two listed files, one that is not there; `hashes` are the MD5 of their only blocks.
    let files = [
        ("one", "\\test-file-1.txt", "3ceb5c413ee02895bf1f357a8c2cc2bec824f4d8aad13aeab69303f341c8b781"),
        (
            "a:b/two",
            "\\Test-Folder\\TEST-FILE-2.txt",
            "26fdc315fadc05db9f8f3236fc30b9f0ca044e56ec1e9450ccd5fdab900e9e46",
        ),
    ];
    let lens = files.map(|(_, path, _)| {
        let output = run(&mut dray(["cat", image.name(), path, "--key-file", key.to_str().expect("UTF-8")]));
        output.stdout.len()
    });
    let verify = |hashes: Option<[&str; 2]>, out: &str| {
        let blobs = files.iter().zip(lens).enumerate().map(|(i, ((blob, path, _), len))| {
            let hash = hashes.map(|hashes| format!(" Hash=\"{}\"", hashes[i])).unwrap_or_default();
            let block = format!("<BlockList><Block Offset=\"0\" Length=\"{len}\" Id=\"AAAAAA==\"{hash}/></BlockList>");
            format!(
                "<Blob><BlobPath>con/{blob}</BlobPath><FilePath>{path}</FilePath><Length>{len}</Length>{block}</Blob>"
            )
        });
        let blobs = blobs.collect::<String>();
        let gone = "<Blob><BlobPath>con/gone</BlobPath><FilePath>\\gone.txt</FilePath><Length>1</Length></Blob>";
        let text = format!(
            "<DriveManifest Version=\"2014-11-01\"><Drive><DriveId>D</DriveId><BlobList>{blobs}{gone}</BlobList></Drive></DriveManifest>"
        );
        let manifest = dir.join("m.manifest");
        fs::write(&manifest, text).expect("a manifest");
        let (manifest, out) = (manifest.to_str().expect("UTF-8"), dir.join(out));
        let words =
            ["verify", image.name(), "--manifest", manifest, "--json", "--key-file", key.to_str().expect("UTF-8")];
        let output = run(dray(words).arg("--extract-to").arg(&out));
        assert_eq!(output.status.code(), Some(5), "{}", said(&output));
        let mut verdicts = std::collections::BTreeMap::new();
        for line in String::from_utf8(output.stdout).expect("UTF-8").lines() {
            let object: serde_json::Value = serde_json::from_str(line).expect("an object");
            if object["type"] == "blob" && object["blob"].is_string() {
                let word = object["verdict"].as_str().expect("a verdict").to_owned();
                verdicts.insert(object["blob"].as_str().expect("a name").to_owned(), word);
            }
        }
        (verdicts, out)
    };
    let (verdicts, out) = verify(None, "first");
    assert_eq!(verdicts["con/gone"], "missing");
    for (blob, _, wanted) in files {
        assert_eq!(verdicts[&format!("con/{blob}")], "no reference", "{verdicts:?}");
        let reported = run(Command::new("sha256sum").arg(out.join("con").join(blob)));
        assert!(said(&reported).starts_with(wanted), "{blob}: {}", said(&reported));
    }
    let md5 =
        files.map(|(blob, ..)| said(&run(Command::new("md5sum").arg(out.join("con").join(blob))))[..32].to_owned());
    let (verdicts, _) = verify(Some([&md5[0], &md5[1]]), "second");
    assert!(verdicts["con/one"] == "equal" && verdicts["con/a:b/two"] == "equal", "{verdicts:?}");
    let (verdicts, out) = verify(Some([&md5[1], &md5[1]]), "third");
    assert!(verdicts["con/one"] == "different" && verdicts["con/a:b/two"] == "equal", "{verdicts:?}");
    assert!(out.join("con/one.damaged").exists() && !out.join("con/one").exists());
}

#[test]
fn two_damaged_metadata_copies_are_survived_with_a_warning_and_three_are_told() {
    let Some(image) = unpack("damaged-copies", "bitlocker/bitlk-aes-xts-128-clearkey-only.img.xz") else { return };
    let inspect = || {
        let output = run(&mut dray(["inspect", image.name(), "--json"]));
        let lines = String::from_utf8(output.stdout).expect("UTF-8");
        let objects = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("an object"));
        objects.into_iter().find(|object| object["type"] == "inspect").expect("facts")
    };
    let whole = || hashed(&mut dray(["decrypt", image.name(), "--to", "-", "--quiet"]));
    let wanted = whole();
    let facts = inspect();
    let copies = facts["bitlocker"]["copies"].as_array().expect("copies");
    let places: Vec<u64> = copies.iter().map(|one| one["at"].as_u64().expect("a place")).collect();
    assert_eq!(places.len(), 3);
    let file = File::options().read(true).write(true).open(&image.0).expect("writable");
    let sound: Vec<Vec<u8>> = places
        .iter()
        .map(|at| {
            let mut bytes = vec![0; 65536];
            file.read_exact_at(&mut bytes, *at).expect("readable");
            bytes
        })
        .collect();
    for spared in 0..3 {
        for (index, at) in places.iter().enumerate() {
            // A flipped bit for one, noise for the other.
            let mut bytes = sound[index].clone();
            if index == (spared + 1) % 3 {
                bytes[0x90] ^= 4;
            } else if index != spared {
                bytes.fill(0xA5);
            }
            file.write_all_at(&bytes, *at).expect("written");
        }
        let output = run(&mut dray(["unlock", image.name()]));
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let reported = words(&output);
        assert!(reported.contains("2 of the 3 copies"), "{reported}");
        assert_eq!(whole(), wanted, "spared {spared}");
        let faults = inspect()["bitlocker"]["copies"]
            .as_array()
            .expect("copies")
            .iter()
            .map(|c| !c["fault"].is_null())
            .collect::<Vec<_>>();
        assert_eq!(faults, [0, 1, 2].map(|index| index != spared));
    }
    places.iter().for_each(|at| file.write_all_at(&[0xA5; 65536], *at).expect("written"));
    for args in [&["unlock", image.name()][..], &["inspect", image.name()], &["ls", image.name()]] {
        let output = run(&mut dray(args));
        assert_eq!(output.status.code(), Some(4), "{}", said(&output));
        let reported = words(&output);
        assert!(reported.contains("no metadata copy can be used"), "{reported}");
    }
}

#[test]
fn an_image_is_never_overwritten_and_the_drive_never_written() {
    let Some(image) = unpack("decrypt-refusals", "bitlocker/bitlk-aes-xts-128-clearkey-only.img.xz") else { return };
    let before = hashed(Command::new("cat").arg(&image.0));
    let dir = scratch("decrypt-refusals-to");
    let taken = dir.join("taken.img");
    fs::write(&taken, "mine").expect("a file");
    for to in [taken.to_str().expect("UTF-8"), image.name(), "/dev/null", dir.to_str().expect("UTF-8")] {
        let output = run(&mut dray(["decrypt", image.name(), "--to", to]));
        assert_eq!(output.status.code(), Some(2), "{to}: {}", said(&output));
    }
    // Through the shell's redirection it would be the drive itself.
    let appended = File::options().append(true).open(&image.0).expect("writable");
    let output = run(dray(["decrypt", image.name(), "--to", "-"]).stdout(appended));
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let output = run(&mut dray(["decrypt", image.name(), "--to", "/nonexistent/dir/x.img"]));
    assert_eq!(output.status.code(), Some(8), "{}", said(&output));
    // With the image in the pipe, objects go elsewhere.
    let output = run(&mut dray(["decrypt", image.name(), "--to", "-", "--json"]));
    assert_eq!(output.stdout.len() as u64, fs::metadata(&image.0).expect("there").len());
    assert!(String::from_utf8_lossy(&output.stderr).contains("\"type\":\"decrypted\""));
    assert_eq!(fs::read(&taken).expect("still there"), b"mine");
    assert_eq!(fs::read_dir(&dir).expect("readable").count(), 1, "nothing half-made is left");
    assert_eq!(hashed(Command::new("cat").arg(&image.0)), before);
}

/// Path and SHA-256 of every file, as the binary reads them; directories have none.
type Tree = BTreeMap<String, String>;

fn by_dray(image: &str) -> Tree {
    let output = run(&mut dray(["ls", image, "-R", "--json"]));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let mut tree = Tree::new();
    for line in String::from_utf8(output.stdout).expect("UTF-8").lines() {
        let object: serde_json::Value = serde_json::from_str(line).expect("an object");
        if object["type"] != "file" {
            continue;
        }
        let path = object["path"].as_str().expect("a path");
        let hash = match object["directory"].as_bool() {
            Some(true) => String::new(),
            _ => hashed(&mut dray(["cat", image, path])),
        };
        tree.insert(path.to_owned(), hash);
    }
    tree
}

/// The same of a directory that `verify --extract-to DIR --all` filled.
fn extracted(image: &str, out: &Path, wanted: i32) -> (Tree, serde_json::Value) {
    let output = run(dray(["verify", image, "--all", "--json", "--extract-to"]).arg(out));
    assert_eq!(output.status.code(), Some(wanted), "{}", said(&output));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let mut objects = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let result = objects.rfind(|object| object["type"] == "extracted").expect("a result");
    let (mut tree, mut pending) = (Tree::new(), vec![out.to_owned()]);
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).expect("readable").map(|entry| entry.expect("an entry")) {
            let path = entry.path();
            let name = path.strip_prefix(out).expect("below").to_str().expect("UTF-8").to_owned();
            if name.starts_with(".dray") && !name.starts_with(".dray/renamed") && name != ".dray" {
                continue;
            }
            if entry.file_type().expect("a type").is_dir() {
                pending.push(path);
                tree.insert(name, String::new());
            } else {
                tree.insert(name, hashed(Command::new("cat").arg(&path)));
            }
        }
    }
    tree.remove(".dray");
    (tree, result)
}

/// A read-only loop device over a part of an image; root only.
struct Loop(String);

impl Loop {
    fn new(image: &Path, offset: u64) -> Option<Self> {
        let offset = offset.to_string();
        let output =
            Command::new("losetup").args(["--find", "--show", "--read-only", "-o", &offset]).arg(image).output();
        match output {
            Ok(output) if output.status.success() => {
                Some(Self(String::from_utf8_lossy(&output.stdout).trim().to_owned()))
            }
            _ => {
                eprintln!("SKIPPED judge: ntfs-3g: no loop device");
                None
            }
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

/// A volume mounted by ntfs-3g.
struct Mounted(PathBuf);

impl Mounted {
    fn new(owner: &str, volume: &str, options: &str) -> Option<Self> {
        let at = scratch(&format!("{owner}-mounted"));
        let output = tool("ntfs-3g", &["-o", options, volume, at.to_str().expect("UTF-8")])?;
        if output.status.success() {
            return Some(Self(at));
        }
        eprintln!("SKIPPED judge: ntfs-3g does not mount here: {}", said(&output).trim());
        None
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let gone = Command::new("fusermount3").arg("-u").arg(&self.0).status().is_ok_and(|status| status.success());
        if !gone {
            let _ = Command::new("umount").arg(&self.0).status();
        }
    }
}

/// The files as read by ntfs-3g.
fn by_ntfs3g(mounted: &Mounted) -> Tree {
    let mut tree = Tree::new();
    let mut pending = vec![mounted.0.clone()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).expect("readable").map(|entry| entry.expect("an entry")) {
            let path = entry.path();
            let name = path.strip_prefix(&mounted.0).expect("below").to_str().expect("UTF-8").to_owned();
            if entry.file_type().expect("a type").is_dir() {
                pending.push(path);
                tree.insert(name, String::new());
            } else {
                tree.insert(name, hashed(Command::new("cat").arg(&path)));
            }
        }
    }
    tree
}

/// The files as read by dissect.ntfs; large files are left out.
fn by_dissect(image: &Path, offset: u64) -> Option<Tree> {
    const SCRIPT: &str = r#"
import hashlib, sys
from dissect.ntfs import NTFS
from dissect.util.stream import RelativeStream
f = open(sys.argv[1], "rb")
n = NTFS(RelativeStream(f, int(sys.argv[2])))
def walk(record, path):
    for name, entry in sorted(record.listdir().items()):
        if path == "" and (name.startswith("$") and name != "$RECYCLE.BIN" or name == "."):
            continue
        below = entry.dereference()
        names = [a.file_name for a in below.attributes.FILE_NAME if a.attribute.FileNameFlags != 2] if hasattr(below.attributes.FILE_NAME[0].attribute, "FileNameFlags") else None
        if names is not None and name not in names:
            continue
        where = f"{path}/{name}" if path else name
        if below.is_dir():
            print(f" {where}")
            walk(below, where)
        elif below.size() <= int(sys.argv[3]):
            print(hashlib.sha256(below.open().read()).hexdigest() + " " + where)
walk(n.mft.get(5), "")
"#;
    let output = Command::new(dray_testdisks::judge::python())
        .args(["-c", SCRIPT])
        .arg(image)
        .args([offset.to_string(), SLOW.to_string()])
        .output()
        .ok()?;
    if !output.status.success() {
        let why = said(&output);
        assert!(why.contains("ModuleNotFoundError"), "{why}");
        eprintln!("SKIPPED judge: dissect.ntfs is not installed");
        return None;
    }
    let lines = String::from_utf8(output.stdout).expect("UTF-8");
    Some(lines.lines().filter_map(|line| line.split_once(' ')).map(|(hash, path)| (path.into(), hash.into())).collect())
}

/// The files as read by Sleuth Kit; large files are left out.
fn by_sleuthkit(image: &Path, offset: u64, sizes: &dyn Fn(&str) -> u64) -> Option<Tree> {
    let (image, sectors) = (image.to_str().expect("UTF-8"), (offset / 512).to_string());
    let output = tool("fls", &["-o", &sectors, "-f", "ntfs", "-r", "-p", "-u", image])?;
    if !output.status.success() {
        assert!(said(&output).to_lowercase().contains("cluster"), "{}", said(&output));
        eprintln!("SKIPPED judge: Sleuth Kit refuses clusters above 64 KiB");
        return None;
    }
    let mut tree = Tree::new();
    for line in String::from_utf8(output.stdout).expect("UTF-8").lines() {
        let Some((head, path)) = line.split_once(":\t") else { continue };
        let mut words = head.split_whitespace();
        let (kind, inode) = (words.next().unwrap_or_default(), words.next_back().unwrap_or_default());
        let first = path.split('/').next().unwrap_or_default();
        if first.starts_with('$') && first != "$RECYCLE.BIN" || path.contains(':') || kind.starts_with('V') {
            continue;
        }
        if kind == "d/d" {
            tree.insert(path.to_owned(), String::new());
        } else if sizes(path) <= SLOW {
            let mut icat = Command::new("icat");
            icat.args(["-o", &sectors, "-f", "ntfs", image, inode]);
            tree.insert(path.to_owned(), hashed(&mut icat));
        }
    }
    Some(tree)
}

/// Offset of the volume: the first partition of an MBR, or the image itself.
fn volume_at(image: &Path) -> u64 {
    let mut sector = [0; 512];
    File::open(image).and_then(|mut file| file.read_exact(&mut sector)).expect("readable");
    if &sector[3..7] == b"NTFS" {
        return 0;
    }
    512 * u64::from(u32::from_le_bytes(sector[454..458].try_into().expect("four bytes")))
}

/// Checks that every available judge reads the same tree from `image`.
fn judge(owner: &str, image: &Path) {
    let offset = volume_at(image);
    let ours = by_dray(image.to_str().expect("UTF-8"));
    assert!(ours.values().any(|hash| !hash.is_empty()));
    let out = scratch(&format!("{owner}-whole"));
    if fs::metadata(image).expect("an image").len() < 1 << 30 {
        assert_eq!(extracted(image.to_str().expect("UTF-8"), &out, 0).0, ours, "taken out");
    }
    let whole = Loop::new(image, offset);
    let mounted = whole.as_ref().and_then(|node| Mounted::new(owner, &node.0, "ro,norecover"));
    let mut sizes = BTreeMap::new();
    if let Some(mounted) = &mounted {
        assert_eq!(by_ntfs3g(mounted), ours, "ntfs-3g");
        sizes.extend(ours.keys().map(|path| (path.clone(), fs::metadata(mounted.0.join(path)).expect("there").len())));
    }
    let size = |path: &str| sizes.get(path).copied().unwrap_or(0);
    let small: Tree = ours.iter().filter(|(path, _)| size(path) <= SLOW).map(|(p, h)| (p.clone(), h.clone())).collect();
    // dissect.ntfs reads bytes after a file's valid length, where drivers and the others read zeros.
    let written = |tree: &Tree| -> Tree {
        let shadow = |path: &str| path.starts_with("System Volume Information/{");
        tree.iter().filter(|(path, _)| !shadow(path)).map(|(path, hash)| (path.clone(), hash.clone())).collect()
    };
    if let Some(theirs) = by_dissect(image, offset) {
        assert_eq!(written(&theirs), written(&small), "dissect.ntfs");
    }
    if let Some(theirs) = by_sleuthkit(image, offset, &size) {
        assert_eq!(theirs, small, "Sleuth Kit");
    }
}

#[test]
fn judge_ntfs_volumes_of_windows_read_as_independent_readers_read_them() {
    for name in ["ntfs-2m", "ntfs-ramslack"] {
        let Some(image) = unpack("ntfs-windows", &format!("ntfs/{name}.raw.gz")) else { continue };
        judge("ntfs-windows", &image.0);
    }
    if let Some(packed) = fixture("ntfs/ntfs-64g-sparse.tar.gz") {
        let dir = scratch("ntfs-sparse");
        let status = Command::new("tar").arg("xzSf").arg(packed).arg("-C").arg(&dir).status();
        assert!(status.expect("tar").success());
        let image = Image(fs::read_dir(&dir).expect("readable").next().expect("a file").expect("an entry").path());
        judge("ntfs-windows", &image.0);
    }
}

#[test]
fn judge_ntfs_3g_volumes_read_as_they_were_written() {
    let dir = scratch("ntfs-made");
    for (name, options) in [
        ("4kn", &["-s", "4096", "-c", "4096"][..]),
        ("small", &["-s", "512", "-c", "512"]),
        ("large", &["-s", "512", "-c", "65536"]),
        ("huge", &["-s", "4096", "-c", "2097152"]),
    ] {
        let image = Image(dir.join(format!("{name}.img")));
        File::create(&image.0).and_then(|file| file.set_len(96 << 20)).expect("an image");
        let args = [&["-F", "-Q", "-q"], options, &["-p", "0", "-H", "16", "-S", "63", image.name()]].concat();
        let Some(made) = tool("mkntfs", &args) else { return };
        assert!(made.status.success(), "{name}: {}", said(&made));
        let Some(mounted) = Mounted::new("ntfs-made", image.name(), "compression") else { return };
        fill(&mounted.0);
        let theirs = by_ntfs3g(&mounted);
        drop(mounted);
        let ours = by_dray(image.name());
        assert_eq!(ours, theirs, "{name}");
        assert_eq!(extracted(image.name(), &dir.join(format!("{name}-whole")), 0).0, theirs, "{name}: taken out");
        // Fragments and attribute lists are there, or the test proves little.
        let listing = said(&run(&mut dray(["ls", image.name(), "-R", "--json"])));
        // Clusters above 4 KiB are never compressed.
        assert!(matches!(name, "large" | "huge") || listing.contains("compressed"), "{name}");
        assert!(listing.contains("sparse"), "{name}");
    }
}

/// A symbolic link of Windows to a path ([MS-FSCC] 2.1.2.4).
const LINK: &str = "import os,struct,sys\n\
                    name = sys.argv[2].encode('utf-16-le')\n\
                    data = struct.pack('<HHHHI', 0, len(name), 0, len(name), 1) + name\n\
                    open(sys.argv[1], 'x').close()\n\
                    os.setxattr(sys.argv[1], 'system.ntfs_reparse_data', struct.pack('<IHH', 0xA000000C, len(data), 0) + data)";

#[test]
fn judge_a_volume_without_a_manifest_is_taken_out_whole() {
    let dir = scratch("whole-volume");
    let image = Image(dir.join("whole.img"));
    File::create(&image.0).and_then(|file| file.set_len(48 << 20)).expect("an image");
    let Some(made) = tool("mkntfs", &["-F", "-Q", "-q", image.name()]) else { return };
    assert!(made.status.success(), "{}", said(&made));
    let Some(mounted) = Mounted::new("whole-volume", image.name(), "noatime") else { return };
    fs::create_dir_all(mounted.0.join("sub/empty")).expect("directories");
    fs::write(mounted.0.join("sub/file"), vec![7; 9 << 20]).expect("written");
    fs::write(mounted.0.join("top"), "top").expect("written");
    // NTFS itself allows names that lead elsewhere on another system.
    fs::write(mounted.0.join("..\\..\\escape"), "odd").expect("written");
    let linked = Command::new("python3").args(["-c", LINK]).arg(mounted.0.join("link")).arg("../../outside").output();
    let linked = linked.expect("python3");
    assert!(linked.status.success(), "{}", said(&linked));
    let old = Command::new("touch").args(["-d", "2001-02-03 04:05:06 UTC"]).arg(mounted.0.join("sub")).status();
    assert!(old.expect("touch").success());
    drop(mounted);

    let out = dir.join("in/out");
    fs::create_dir_all(&out).expect("a directory");
    let (tree, result) = extracted(image.name(), &out, 3);
    let drive = &result["drives"][0];
    let left_out = drive["left_out"].as_array().expect("a list");
    assert!(left_out.len() == 1 && left_out[0]["file"] == "\\link" && left_out[0]["notes"][0] == "a symbolic link");
    assert_eq!((drive["files"].as_u64(), drive["directories"].as_u64()), (Some(3), Some(2)), "{drive}");
    assert_eq!(tree["sub/empty"], "");
    assert_eq!(fs::read(out.join("sub/file")).expect("a file"), vec![7; 9 << 20]);
    let renamed: Vec<&String> = tree.keys().filter(|path| path.starts_with(".dray/renamed/")).collect();
    assert_eq!((renamed.len(), fs::read(out.join(renamed[0])).expect("a file")), (1, b"odd".to_vec()));
    assert_eq!(fs::read_dir(dir.join("in")).expect("readable").count(), 1, "outside of the directory");
    assert!(!dir.join("escape").exists() && !out.join("link").exists());
    let modified = fs::metadata(out.join("sub")).and_then(|meta| meta.modified()).expect("a time");
    let modified = modified.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    assert_eq!(modified, 981_173_106);

    // Again it compares with what is there; nothing is overwritten.
    extracted(image.name(), &out, 3);
    fs::write(out.join("top"), "TOP").expect("written");
    let (_, result) = extracted(image.name(), &out, 5);
    assert_eq!(result["drives"][0]["changed"], 1);
    assert_eq!(fs::read(out.join("top")).expect("a file"), b"TOP");
    // A link in the directory is no way out.
    let (trap, outside) = (dir.join("trap"), dir.join("outside"));
    fs::create_dir_all(&trap).and_then(|()| fs::create_dir_all(&outside)).expect("directories");
    std::os::unix::fs::symlink(&outside, trap.join("sub")).expect("a link");
    let refused = run(dray(["verify", image.name(), "--all", "--extract-to"]).arg(&trap));
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert_eq!(fs::read_dir(&outside).expect("readable").count(), 0);
    let part = dir.join("part");
    let only = run(dray(["verify", image.name(), "--all", "--only", "sub/", "--extract-to"]).arg(&part));
    assert_eq!(only.status.code(), Some(0), "{}", said(&only));
    assert!(part.join("sub/file").exists() && !part.join("top").exists());
    // A manifest is not looked for, and cannot be named.
    let both = run(dray(["verify", image.name(), "--all", "--manifest", "m", "--extract-to"]).arg(&part));
    assert_eq!(both.status.code(), Some(1));
}

/// Fragmented, sparse, compressed and resident files, and files with many names.
fn fill(root: &Path) {
    let noise = |seed: u64, len: usize| -> Vec<u8> {
        let mut state = seed | 1;
        let mut step = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..len).map(|_| step()).collect()
    };
    fs::write(root.join("resident.txt"), "small").expect("written");
    fs::write(root.join("empty"), "").expect("written");
    fs::create_dir(root.join("names")).expect("a directory");
    for index in 0..60 {
        fs::write(root.join(format!("names/Ünïcödé {index:03} 文件.bin")), noise(index, 700)).expect("written");
    }
    // Two files grow in turns: each ends up in many pieces, and its runs in more than one record.
    let mut pair = ["a", "b"].map(|name| File::create(root.join(format!("in-pieces-{name}"))).expect("a file"));
    for turn in 0..400 {
        for (index, file) in pair.iter_mut().enumerate() {
            file.write_all(&noise(turn * 2 + index as u64, 4096)).and_then(|()| file.sync_data()).expect("written");
        }
    }
    let sparse = File::create(root.join("sparse")).expect("a file");
    for at in [0_u64, 5_000_000, 9_999_999] {
        sparse.write_all_at(b"island", at).expect("written");
    }
    // Compressed where the volume can: the directory's attribute is inherited.
    fs::create_dir(root.join("packed")).expect("a directory");
    const COMPRESS: &str =
        "import os,sys; os.setxattr(sys.argv[1], 'system.ntfs_attrib_be', (0x800).to_bytes(4, 'big'))";
    let set = Command::new("python3").args(["-c", COMPRESS]).arg(root.join("packed")).status();
    assert!(set.expect("python3").success(), "ntfs-3g takes the attribute");
    let text: Vec<u8> = (0..200_000_u32).flat_map(|n| format!("{} ", n % 977).into_bytes()).collect();
    fs::write(root.join("packed/text"), &text).expect("written");
    fs::write(
        root.join("packed/mixed"),
        [&text[..100_000], &noise(9, 150_000)[..], &vec![0; 300_000], &text[..777]].concat(),
    )
    .expect("written");
}
