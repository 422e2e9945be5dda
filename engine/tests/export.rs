//! An export through the façade: contents that are not local files, an account that fails for a while, and a blob that
//! changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use dray_engine::api;
use dray_engine::api::account::{Contents, ListedBlobs, Unread};
use dray_engine::api::account::{Exported, ExportedBlob, ExportedFile, ExportedKind, OwnBlocks};
use dray_engine::api::prepare::{Action, BlobType, CatalogBuilder, PrepRequest, ReadBack, Stop};
use dray_engine::api::prepare::{Encryption, FormatOption, FormatPrompt, GivenDrive};
use dray_engine::report::{Command, Kind, Part, Problem, SessionReport, Setting};
use dray_engine::units::{ByteLen, Stamp};

/// Length and kind of each blob: several slots, a length that is no whole cluster, none at all, pages.
const BLOBS: [(&str, u64, ExportedKind); 7] = [
    ("a/one", 9_437_189, ExportedKind::Block),
    ("a/two", 4_194_304, ExportedKind::Block),
    ("b/three", 700, ExportedKind::Append),
    ("b/empty", 0, ExportedKind::Block),
    ("b/pages", 6 << 20, ExportedKind::Page),
    ("b/x:y", 5_000_003, ExportedKind::Block),
    ("a/odd", 13_000_000, ExportedKind::Block),
];

/// Blocks of `a/odd`: they end within clusters, and two of them are longer than a slot.
const ODD: [u64; 6] = [700_001, 5_000_000, 1, 4_299_998, 2_000_000, 1_000_000];

fn byte(file: usize, at: u64) -> u8 {
    match BLOBS[file].2 {
        // Of each MiB the first 8192 bytes hold something.
        ExportedKind::Page if at % (1 << 20) >= 8192 => 0,
        _ => (at.wrapping_mul(2_654_435_761) >> 13) as u8 | 1,
    }
}

fn content(file: usize) -> Vec<u8> {
    (0..BLOBS[file].1).map(|at| byte(file, at)).collect()
}

/// The account: which blob of [`BLOBS`] each file of the catalog is, how many requests it answers, and what changed.
struct Account {
    blobs: Vec<Option<usize>>,
    answers: AtomicUsize,
    changed: Option<usize>,
    asked: Mutex<Vec<usize>>,
}

impl Account {
    fn of(exported: &Exported, answers: usize, changed: Option<usize>) -> Arc<Self> {
        let of =
            |file: &ExportedFile| file.blob().and_then(|blob| BLOBS.iter().position(|(path, ..)| *path == blob.path));
        let blobs = exported.files.iter().map(of).collect();
        Arc::new(Self { blobs, answers: answers.into(), changed, asked: Mutex::default() })
    }
}

impl Contents for Account {
    fn read(&self, file: u32, offset: u64, into: &mut [u8]) -> Result<(), Unread> {
        let blob = self.blobs[file as usize].expect("texts are not asked for");
        self.asked.lock().expect("a lock").push(blob);
        if self.answers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err() {
            // As long as a request takes that fails: what came before is durable by then.
            std::thread::sleep(std::time::Duration::from_millis(200));
            return Err(Unread::Failed(Box::new(Problem::new(Kind::Environment, "the account is away"))));
        }
        if self.changed == Some(blob) {
            return Err(Unread::LeftOut("BlobUnexpectedChange: it changed".into()));
        }
        into.iter_mut().zip(offset..).for_each(|(into, at)| *into = byte(blob, at));
        Ok(())
    }
}

fn listed() -> ListedBlobs {
    let mut builder = CatalogBuilder::new();
    let rows = [BlobType::Block, BlobType::Page].map(|kind| builder.row("mem:/".into(), Some(0), Some(kind)));
    let at = Stamp { seconds: 1_800_000_000, nanos: 0 };
    let text = |path: &str| format!("<Properties><Etag>{path}</Etag></Properties>");
    for (path, len, kind) in BLOBS {
        let (dir, name) = path.split_once('/').expect("a container");
        let dir = builder.dir(0, dir).expect("a directory");
        let row = rows[usize::from(kind == ExportedKind::Page)];
        builder.file(dir, name, row, ByteLen(len), [at; 2]).expect("a file");
        let side = format!("{name}.properties");
        builder.file(dir, &side, rows[0], ByteLen(text(path).len() as u64), [at; 2]).expect("a file");
    }
    let catalog = builder.seal_export().expect("each once");
    let count = catalog.files().len() as u32;
    let paths: Vec<String> = (0..count)
        .map(|file| {
            let mut path = String::new();
            catalog.blob_path(file, &mut path);
            path
        })
        .collect();
    let place = |wanted: &str| paths.iter().position(|path| path == wanted).map(|i| i as u32);
    let files = paths.iter().map(|path| match path.strip_suffix(".properties") {
        Some(blob) => ExportedFile::Side(text(blob).into()),
        None => {
            let (_, _, kind) = BLOBS.into_iter().find(|(blob, ..)| blob == path).expect("a blob");
            let even = [("Zmlyc3Q=", 4 << 20), ("c2Vjb25k", 4 << 20), ("dGhpcmQ=", 1_048_581)];
            let named = |(id, len): (&str, u64)| (id.to_owned(), len);
            let blocks = match &**path {
                "a/one" => OwnBlocks::of(even.map(named).into(), 9_437_189),
                "a/odd" => OwnBlocks::of((0..).zip(ODD).map(|(i, len)| (format!("b{i}=="), len)).collect(), 13_000_000),
                _ => None,
            };
            ExportedFile::Blob(Box::new(ExportedBlob {
                path: path.clone(),
                kind,
                blocks,
                properties: place(&format!("{path}.properties")),
                ..ExportedBlob::default()
            }))
        }
    });
    let exported = Exported { endpoint: "mem:/".into(), files: files.collect() };
    ListedBlobs { catalog, exported }
}

fn request(dir: &Path, action: Action) -> PrepRequest {
    let drive = GivenDrive {
        drive: format!("{}:120MB", dir.join("drive.img").display()).into(),
        format: FormatOption::Format,
        prompt: FormatPrompt::SilentMode,
        encryption: Encryption::Encrypt,
    };
    PrepRequest {
        drive: (action == Action::Copy).then_some(drive),
        not_for_shipping: true,
        read_back: ReadBack::Full,
        action,
        // A checkpoint after every batch.
        pace: api::prepare::Pace { bytes: 1, ..api::prepare::Pace::default() },
        ..PrepRequest::new(dir.join("export.jrn"), "export#1")
    }
}

/// Plans, or reads the plan, and runs with so many answers.
fn run(dir: &Path, action: Action, answers: usize, changed: Option<usize>) -> (SessionReport, Vec<usize>) {
    let listing = (action == Action::Copy).then(listed);
    let prepared = api::account::prepare_export(request(dir, action), listing, &mut |_| ());
    let prepared = prepared.unwrap_or_else(|problems| panic!("{problems}"));
    let account = Account::of(&prepared.exported().expect("an export"), answers, changed);
    let contents: Arc<dyn Contents> = Arc::clone(&account) as _;
    let report = prepared.run_from(Some((contents, 3)), &[], &|_| (), &Stop::new());
    let report = report.unwrap_or_else(|problems| panic!("{problems}"));
    let asked = account.asked.lock().expect("a lock").clone();
    (report, asked)
}

fn scratch(name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("a directory");
    dir
}

fn md5(bytes: &[u8]) -> String {
    let mut hash = api::hash::Md5::new();
    hash.update(bytes);
    hash.finish().iter().map(|byte| format!("{byte:02X}")).collect()
}

/// The manifest's entries by blob.
fn entry<'a>(manifest: &'a str, path: &str) -> Option<&'a str> {
    let own = format!("<BlobPath>{path}</BlobPath>");
    manifest.split("<Blob>").find(|entry| entry.contains(&own))
}

/// Each block of [`ODD`] with its place, id and MD5.
fn check_odd(entry: &str, bytes: &[u8]) {
    let mut at = 0;
    for (i, len) in (0..).zip(ODD) {
        let hash = md5(&bytes[at..at + len as usize]);
        let block = format!("<Block Offset=\"{at}\" Length=\"{len}\" Id=\"b{i}==\" Hash=\"{hash}\" />");
        assert!(entry.contains(&block), "{block} in {entry}");
        at += len as usize;
    }
    assert_eq!(entry.matches("<Block ").count(), ODD.len());
}

#[test]
fn wherever_the_account_goes_away_the_blocks_are_the_same() {
    // A slot may end within a block: the next run goes on there.
    let mut within = 0;
    for answers in 0..8 {
        let dir = scratch("export-anywhere");
        let (report, _) = run(&dir, Action::Copy, answers, None);
        assert!(report.drives[0].failure.is_some());
        let (report, asked) = run(&dir, Action::Resume, usize::MAX, None);
        assert_eq!(report.drives[0].failure, None);
        // With a checkpoint after each batch, what is durable is not fetched again.
        let again = asked.iter().filter(|blob| **blob == 6).count();
        within += usize::from((1..4).contains(&again));
        let manifest = fs::read_to_string(dir.join("drive.manifest.xml")).expect("a manifest");
        check_odd(entry(&manifest, "a/odd").expect("an entry"), &content(6));
        fs::remove_dir_all(&dir).expect("removed");
    }
    assert!(within > 0, "no run went on within the blob");
}

#[test]
fn an_account_that_goes_away_ends_the_drive_and_the_same_blobs_go_on() {
    let dir = scratch("export-away");
    let (report, _) = run(&dir, Action::Copy, 3, None);
    let failure = report.drives[0].failure.as_ref().expect("the drive ends");
    assert_eq!((failure.kind, &*failure.what), (Kind::Environment, "the account is away"));
    assert!(report.drives[0].left_out.is_empty());
    // Another command does not continue it without the account.
    let other = PrepRequest { exports: false, ..request(&dir, Action::Resume) };
    let refused = api::prepare::prepare(other, &mut |_| ()).expect_err("refused");
    let advice = refused.0[0].advice.clone().unwrap_or_default();
    assert!(advice.0.contains(&Part::Command(Command::Export)) && advice.asks_for(Setting::Resume), "{refused}");

    let (report, asked) = run(&dir, Action::Resume, usize::MAX, None);
    assert_eq!(report.drives[0].failure, None);
    assert!(report.drives[0].left_out.is_empty() && !report.interrupted && report.waiting == 0);
    assert!(!asked.contains(&3), "nothing is asked of an empty blob: {asked:?}");
    let manifest = fs::read_to_string(dir.join("drive.manifest.xml")).expect("a manifest");
    for (i, (path, len, kind)) in BLOBS.into_iter().enumerate() {
        let entry = entry(&manifest, path).unwrap_or_else(|| panic!("{path}: {manifest}"));
        let bytes = content(i);
        match kind {
            ExportedKind::Page => {
                let runs = bytes.chunks(1 << 20).map(|chunk| md5(&chunk[..8192]));
                assert!(runs.into_iter().all(|hash| entry.contains(&hash)), "{entry}");
                assert_eq!(entry.matches("<PageRange ").count(), 6, "{entry}");
            }
            ExportedKind::Block | ExportedKind::Append if path == "a/odd" => check_odd(entry, &bytes),
            ExportedKind::Block | ExportedKind::Append => {
                let blocks: Vec<String> = bytes.chunks(4 << 20).map(md5).collect();
                assert!(blocks.iter().all(|hash| entry.contains(hash)), "{path}: {entry}");
                assert_eq!(entry.matches("<Block ").count(), blocks.len(), "{path} of {len}");
            }
        }
        assert!(entry.contains(".properties</PropertiesPath>"), "{entry}");
    }
    let own = entry(&manifest, "a/one").expect("an entry");
    assert!(["Zmlyc3Q=", "c2Vjb25k", "dGhpcmQ="].iter().all(|id| own.contains(id)), "{own}");
    assert!(entry(&manifest, "a/two").is_some_and(|entry| entry.contains("Id=\"AAAAAA==\"")));
    assert!(!manifest.contains("\\x:y"), "the name is another on the drive");
    fs::remove_dir_all(&dir).expect("removed");
}

#[test]
fn a_blob_that_changed_is_left_out_with_its_properties() {
    let dir = scratch("export-changed");
    let (report, _) = run(&dir, Action::Copy, usize::MAX, Some(0));
    let drive = &report.drives[0];
    assert_eq!(drive.failure, None);
    let left: Vec<(&Path, &str)> = drive.left_out.iter().map(|(path, why)| (&**path, &**why)).collect();
    assert_eq!(left, [(Path::new("mem:/a/one"), "BlobUnexpectedChange: it changed")]);
    let manifest = fs::read_to_string(dir.join("drive.manifest.xml")).expect("a manifest");
    assert!(!manifest.contains("a/one") && !manifest.contains("one.properties"), "{manifest}");
    assert!(entry(&manifest, "a/two").is_some());
    fs::remove_dir_all(&dir).expect("removed");
}
