//! Drives that return damaged, on the simulated disk: unreadable sectors, which image files cannot have.

use super::*;
use crate::ntfs::read::RunPlace;
use crate::units::{DeviceOffset, SectorSize, VolumeOffset};
use crate::verify::judge::{self, VerifyRequest};
use crate::verify::logs::Logs;
use crate::verify::result::DriveVerdict;
use crate::verify::row::{Row, Verdict};
use crate::volume::files::Files;
use crate::volume::find::{Found, Opened};
use crate::volume::key::Key;

fn open(disk: &SimDisk, written: &Written<'_>) -> Opened {
    let key = Key::read(&fs::read(written.record.expect("a record")).expect("a record")).expect("a key");
    let found = Found::look(Box::new(disk.clone()), written.facts.clone(), None, None).expect("a volume");
    found.unlock(&key, &mut |_, _| {}).expect("unlocked")
}

fn verify(opened: &Opened, to: &Path, workers: &Workers) -> (DriveVerdict, Vec<Row>) {
    let request = VerifyRequest { extract_to: Some(to.to_owned()), ..VerifyRequest::default() };
    let (logs, stop) = (Logs::none(), Stop::new());
    let context = judge::Context {
        index: 0,
        request: &request,
        logs: &logs,
        journals: &Default::default(),
        workers,
        events: &|_| {},
        stop: &stop,
        deliver: None,
    };
    let mut judged = judge::run(opened, &context);
    let mut rows = Vec::new();
    judged.rows(&logs, &mut |row| rows.push(row.clone())).expect("rows");
    (judged.verdict, rows)
}

#[test]
fn a_sector_that_cannot_be_read_costs_its_file_alone() {
    let lab = Lab::new("bad-sector");
    let disk = SimDisk::new(ByteLen(100_000_000), SectorSize::S512, 1);
    let outcome = lab.run_and("plan", &disk, |_, _, written| {
        let opened = open(&disk, written);
        // The middle of a file of 5 MiB, and one of the only sectors of a small one.
        let places: Vec<u64> = [("file 7.bin", 3_000_000_u64), ("deep\\er\\file 6.bin", 65_536)]
            .into_iter()
            .map(|(name, within)| {
                let files = Files::read(&opened).expect("files");
                let path = format!("\\session#1\\data\\{name}");
                let file = files.find(&path).expect("the file");
                let runs = files.catalog.extents(&files.volume, file).expect("extents");
                let run = runs.iter().find(|run| (run.offset..run.offset + run.len).contains(&within)).expect("a run");
                let RunPlace::Lcn(lcn) = run.place else { panic!("{run:?}") };
                let at = files.volume.geometry().cluster.offset_of(lcn).0 + within - run.offset;
                opened.device_offset(VolumeOffset(at / 512 * 512)).0
            })
            .collect();
        drop(opened);
        let bad = places.iter().map(|at| DeviceRange::new(*at, 512)).collect();
        disk.set_faults(Faults { read_errors: bad, ..Faults::default() });
        let out = lab.dir.join("out");
        let (verdict, rows) = verify(&open(&disk, written), &out, written.workers);
        assert!(verdict.failure.is_none(), "{verdict:?}");
        let bad: Vec<&Row> = rows.iter().filter(|row| row.verdict != Verdict::Equal).collect();
        assert_eq!((rows.len(), bad.len()), (10, 2), "{bad:?}");
        for (blob, place) in [("data/file 7.bin", places[0]), ("data/deep/er/file 6.bin", places[1])] {
            let row = bad.iter().find(|row| row.blob.as_deref() == Some(blob)).expect("named");
            assert_eq!(row.verdict, Verdict::Unreadable);
            let whole = format!("on the drive at byte {}", DeviceOffset(place));
            assert!(row.notes[0].contains("unreadable") && row.notes[0].contains(&whole), "{row:?}");
        }
        // Everything except the sector itself is extracted, under a name that shows the damage.
        let was = fs::read(lab.dir.join("source/file 7.bin")).expect("a source");
        let is = fs::read(out.join("data/file 7.bin.damaged")).expect("what could be read");
        let different: Vec<usize> = (0..was.len()).filter(|at| was[*at] != is[*at]).collect();
        assert!(was.len() == is.len() && !out.join("data/file 7.bin").exists());
        assert!(different.iter().all(|at| at / 512 == 3_000_000 / 512) && different.len() > 400, "{different:?}");
        for name in ["disk.vhd", "file 5.bin", "deep/er/file 8.bin", "deep/er/file 0.bin"] {
            let (was, is) = (lab.dir.join("source").join(name), out.join("data").join(name));
            assert!(fs::read(was).expect("a source") == fs::read(is).expect("a blob"), "{name}");
        }
    });
    outcome.expect("the disk was good when it was written");
    let _ = fs::remove_dir_all(&lab.dir);
}
