//! A thousand drives and a hundred million files through planning, shard files and merging, without a drive: seconds,
//! bytes and peak memory. `scripts/simulate-shards` runs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ten_million::{Clock, peak_mib};
use crate::azure::dataset::{BlobType, DatasetRow, Destination, Disposition};
use crate::azure::journal::{ActivityRecord, DriveDetails, SessionState, Work};
use crate::dataset::property_files::PropertyFiles;
use crate::entropy::{Entropy, Seeded};
use crate::journal::files::JournalFile;
use crate::plan::catalog::{Builder, Catalog};
use crate::request::{AbsentDrive, PrepRequest};
use crate::session::inputs::recipe_of;
use crate::session::planning::Target;
use crate::session::shards::{self, Part, Shard};
use crate::units::{ByteLen, FileTime, SectorSize, Stamp};
use crate::work::planner::Planner;
use crate::work::target;

/// Files in a directory: a camera's, a sequencer's or a mail store's.
const PER_DIR: u32 = 2000;
/// Bytes of an 8 TB drive.
const DRIVE: u64 = 8_001_563_222_016;

/// `files` files whose sizes fill `drives` drives to seven eighths.
fn catalog(files: u32, drives: u32) -> Catalog {
    let mut random = Seeded::new(1);
    let mut builder = Builder::new();
    let container = builder.dir(0, "container").expect("room");
    let row = builder.row(PathBuf::from("/source"), Some(container), Some(BlobType::Block));
    let mean = u64::from(drives) * (DRIVE / 8 * 7) / u64::from(files);
    let stamps = [Stamp { seconds: 1_700_000_000, nanos: 0 }; 2];
    for d in 0..files.div_ceil(PER_DIR) {
        let dir = builder.dir(container, &format!("directory {d:08}")).expect("room");
        for f in 0..PER_DIR.min(files - d * PER_DIR) {
            let len = ByteLen(random.next_u64() % (2 * mean));
            builder.file(dir, &format!("{f:08}.dat"), row, len, stamps).expect("room");
        }
    }
    builder.seal("\\session#1".len()).expect("no two alike")
}

fn dataset_row() -> DatasetRow {
    DatasetRow {
        line: 2,
        base_path: "/source".into(),
        is_dir_spelled: true,
        destination: Destination { container: "container".into(), prefix_or_blob: String::new(), is_prefix: true },
        blob_type: Some(BlobType::Block),
        disposition: Disposition::default(),
        says_disposition: false,
        metadata_file: None,
        properties_file: None,
    }
}

/// The journal and the drive record that a finished shard leaves.
fn finish(dir: &Path, number: u64, shard: &Shard) -> Part {
    let state = dir.join(format!("{number:04}"));
    fs::create_dir(&state).expect("a directory");
    let journal = state.join("shard.jrn");
    let id = &shard.drive.drive_id;
    let record = format!("{id}.xml");
    fs::write(state.join(&record), vec![b'x'; 900]).expect("a record");
    let file = JournalFile::open(&journal).expect("a journal");
    let session = "session#1";
    let append = |record: &ActivityRecord<'_>| file.append(record).expect("a record");
    append(&ActivityRecord::Session { id: session, state: SessionState::Started, plan: None });
    append(&ActivityRecord::Drive {
        session,
        drive_id: id,
        state: SessionState::Completed,
        record_file: &record,
        work: Work::Format,
        details: DriveDetails {
            name: Some(&shard.drive.name),
            size: Some(shard.drive.size.0),
            for_shipping: Some(true),
            files: Some(shard.files),
            data: Some(shard.data.0),
            manifest_hash: Some("0123456789ABCDEF0123456789ABCDEF"),
            manifest_file: None,
            key_check: None,
            place: Some(0),
        },
    });
    append(&ActivityRecord::Session { id: session, state: SessionState::Completed, plan: None });
    Part { place: number, drive_id: id.clone(), journal }
}

fn number(name: &str, otherwise: u32) -> u32 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

#[test]
#[ignore = "figures: a thousand drives, a hundred million files; wants --release and some 20 GB of memory"]
fn simulate_a_thousand_drives() {
    let (count, drives) = (number("DRAY_FILES", 100_000_000), number("DRAY_DRIVES", 1000));
    let dir = std::env::temp_dir().join(format!("dray-thousand-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a directory");
    let mut clock = Clock::begin();
    eprintln!("{count} files, {drives} drives of 8 TB:");
    let catalog = Arc::new(catalog(count, drives));
    clock.report("catalog", 0);

    let request = PrepRequest::new(dir.join("plan.jrn"), "session#1");
    let sides = PropertyFiles { rows: vec![(None, None)], ..PropertyFiles::default() };
    let recipe = recipe_of(&request, &[dataset_row()], sides, FileTime::from_unix(1_700_000_000, 0));
    let planner = Planner { recipe: &recipe, catalog: &catalog };
    let absent = |n: u32| {
        let serial = format!("WD-{n:06}");
        let drive = AbsentDrive { serial, size: ByteLen(DRIVE), sector: SectorSize::S512 };
        Target::Blank(Box::new(target::absent(&drive)))
    };
    let all: Vec<u32> = (0..count).collect();
    let mut entropy = Seeded::new(2);
    let entropy: &mut dyn Entropy = &mut entropy;
    let planned = planner.plan_drives(&all, (0..drives).map(absent).collect(), entropy, false).expect("they fit");
    drop(all);
    clock.report(&format!("plan of {} drives", planned.works.len()), 0);

    let written = shards::write_all(&recipe, &catalog, &planned.works, &dir).expect("shards");
    let bytes: u64 = written.iter().map(|shard| fs::metadata(dir.join(&shard.file)).expect("a shard").len()).sum();
    clock.report("shard files", bytes);
    assert_eq!(written.iter().map(|shard| shard.files).sum::<u64>(), u64::from(count), "each file is in one shard");

    // The host of a drive gets the same layout out of its shard alone.
    let middle = written.len() / 2;
    let loaded = shards::load(&dir.join(&written[middle].file), &written[middle].digest).expect("a shard");
    let own = Arc::clone(&loaded.catalog);
    let drive = &loaded.drives[0];
    let alone = Planner { recipe: &loaded.recipe, catalog: &own };
    let layout = alone.lay_out(&drive.target, &drive.assigned, drive.seed).expect("it fits");
    clock.report("one shard read and laid out", 0);
    let again = planned.works[middle].saved();
    let again = planner.lay_out(&again.target, &again.assigned, again.seed).expect("it fits");
    let batches = |layout: &crate::plan::drive::DriveLayout| layout.batches(4 << 20).count();
    assert_eq!(batches(&layout), batches(&again));
    drop((planned, catalog, layout));

    let parts: Vec<Part> = (0..).zip(&written).map(|(number, shard)| finish(&dir, number, shard)).collect();
    clock.report("results of all shards", 0);
    let journal = dir.join("job.jrn");
    let merged = shards::merge("session#1", &journal, &parts).expect("merged");
    assert_eq!((merged.added.len(), merged.missing.len()), (written.len(), 0));
    clock.report("merge", fs::metadata(&journal).expect("the journal").len());
    let again = shards::merge("session#1", &journal, &parts).expect("merged");
    assert_eq!((again.added.len(), again.known.len()), (0, written.len()));
    clock.report("merge of what is merged", 0);
    eprintln!("  peak {} MiB, {} a file", peak_mib(), (peak_mib() << 20) / u64::from(count));
    fs::remove_dir_all(&dir).expect("removed");
}
