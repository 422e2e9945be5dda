//! Plans ten million files and generates all their metadata without a drive: seconds, bytes and peak memory.

use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::azure::dataset::{BlobType, Disposition};
use crate::entropy::Seeded;
use crate::gpt;
use crate::ntfs::build::{LeftOut, Outcome};
use crate::plan::catalog::{Builder, Catalog};
use crate::plan::drive::{DriveLayout, DriveSpec, Frame, MANIFEST_NAME};
use crate::plan::tree::DriveTree;
use crate::stream::workers::Digest;
use crate::units::{ByteLen, FileTime, Guid, SectorSize, Stamp, StreamOffset};
use crate::work::manifest::{self, RowRules, Rules};
use crate::work::outcome::{Hashed, OutcomeLog, PropertyHashes};

/// Peak of resident memory since the start, from the kernel.
pub(super) fn peak_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

pub(super) struct Clock {
    began: Instant,
    last: Instant,
}

impl Clock {
    pub fn begin() -> Self {
        let now = Instant::now();
        Self { began: now, last: now }
    }

    pub fn report(&mut self, what: &str, bytes: u64) {
        let seconds = self.last.elapsed().as_secs_f64();
        let rate = if bytes > 0 {
            format!(", {bytes} bytes, {:.2} GB/s", bytes as f64 / seconds / 1e9)
        } else {
            String::new()
        };
        eprintln!("  {what}: {seconds:.2} s{rate}; peak {} MiB", peak_mib());
        self.last = Instant::now();
    }
}

/// `dirs` directories of equally many files of up to 50,000 bytes, in random order.
fn catalog(dirs: u32, per_dir: u32) -> Catalog {
    let mut random = Seeded::new(1);
    let mut builder = Builder::new();
    let container = builder.dir(0, "container").expect("room");
    let row = builder.row(PathBuf::from("/source"), Some(container), Some(BlobType::Block));
    for d in 0..dirs {
        let dir = builder.dir(container, &format!("directory {:08x}", d.wrapping_mul(2_654_435_761))).expect("room");
        for f in 0..per_dir {
            let name = format!("file number {:08x}.dat", f.wrapping_mul(2_654_435_761));
            builder
                .file(
                    dir,
                    &name,
                    row,
                    ByteLen(random.next_u64() % 50_000),
                    [Stamp { seconds: 1_700_000_000, nanos: 0 }; 2],
                )
                .expect("room");
        }
    }
    builder.seal("\\session#1".len()).expect("no two alike")
}

fn plan(dirs: u32, per_dir: u32) {
    let mut clock = Clock::begin();
    eprintln!("{dirs} directories of {per_dir} files:");
    let catalog = Arc::new(catalog(dirs, per_dir));
    let files = catalog.files().len() as u32;
    clock.report("catalog", 0);

    let all: Vec<u32> = (0..files).collect();
    let formatted = FileTime::from_unix(1_700_000_000, 0);
    let tree = DriveTree::new(Arc::clone(&catalog), &all, "session#1", Vec::new(), Vec::new(), formatted);
    drop(all);
    let rules = Rules {
        drive_id: "9WM35C2V".into(),
        session: "session#1".into(),
        rows: vec![RowRules { disposition: Disposition::default(), metadata: None, properties: None }],
    };
    let manifest_len_max = manifest::len_max(&tree, &rules);
    let guid = |i: u8| Guid::from_random([i; 16]);
    let frame = Frame::new(DriveSpec {
        len: ByteLen(4_000_787_030_016),
        sector: SectorSize::S512,
        scheme: gpt::Scheme::Gpt,
        guids: gpt::Guids { disk: guid(1), msr: guid(2), data: guid(3) },
        cluster: None,
        serial: 5,
        label: "session#1".into(),
        formatted,
        wipe_free: false,
        encrypted: true,
        manifest: Some(MANIFEST_NAME.into()),
    })
    .expect("a frame");
    let layout = DriveLayout::new(frame, tree, manifest_len_max).expect("it fits");
    clock.report("plan", 0);

    let batches = layout.batches(4 << 20).fold(0u64, |n, _| n + 1);
    clock.report(&format!("{batches} batches"), 0);

    // As many hashes as there are blocks.
    let blocks: u64 = (0..files).map(|i| layout.tree().blocks(i).count()).sum();
    let path = std::env::temp_dir().join(format!("dray-hashes-{}", std::process::id()));
    let log = OpenOptions::new().read(true).write(true).create_new(true).open(&path).expect("a hash log");
    fs::remove_file(&path).expect("a file without a name");
    let mut log = OutcomeLog::new(log);
    for (number, at) in (0..blocks).step_by(1024).enumerate() {
        let digests = vec![Digest::Block([0; 16]); (blocks - at).min(1024) as usize];
        log.push(number as u64, Hashed { digests, ..Hashed::default() }).expect("room for hashes");
    }
    let left_out = LeftOut::new((0..1000).map(|i| i * (files / 1000)).collect());
    let reader = log.reader().expect("a log");
    let mut stream = manifest::stream(layout.tree(), &rules, left_out.clone(), PropertyHashes::new(), reader);
    let mut buf = vec![0; 4 << 20];
    while stream.fill(&mut buf).expect("a manifest") == buf.len() {}
    let (len, _) = stream.finish();
    clock.report("manifest with its MD5", len.0);
    assert!(len.0 <= manifest_len_max.0 && len.0 > manifest_len_max.0 / 10 * 9, "{len} of at most {manifest_len_max}");

    let outcome = Outcome { left_out, root_file_lens: vec![len] };
    for section in layout.layout().sections() {
        let mut generator = layout.layout().generator(section.kind, layout.tree(), &outcome);
        for at in (0..section.len.0).step_by(buf.len()) {
            let len = (section.len.0 - at).min(buf.len() as u64) as usize;
            generator.fill(StreamOffset(at), &mut buf[..len]);
        }
        if section.len.0 > 100 << 20 {
            clock.report(&format!("{:?}", section.kind), section.len.0);
        }
    }
    clock.report("the other sections", 0);
    eprintln!("  in all {:.1} s", clock.began.elapsed().as_secs_f64());
    // Catalog: 200 bytes a file plus its name.
    let names = u64::from(files) * "file number 01234567.dat".len() as u64;
    assert!(peak_mib() << 20 < u64::from(files) * 200 + names + (128 << 20), "peak {} MiB", peak_mib());
}

#[test]
#[ignore = "figures: ten million files in 10,000 directories; wants --release"]
fn plan_ten_million() {
    plan(10_000, 1000);
}

#[test]
#[ignore = "figures: a million files in one directory; wants --release"]
fn plan_a_million_in_one_directory() {
    plan(1, 1_000_000);
}
