//! Every sector of a drive is written, or listed as left: in the plan, and on a disk that was full of old data.

use super::*;
use crate::gpt::{Guids, Scheme};
use crate::plan::catalog::Builder;
use crate::plan::drive::{DriveLayout, DriveSpec, Frame, MANIFEST_NAME, Use};
use crate::plan::tree::DriveTree;
use crate::units::{ClusterSize, Guid, SectorSize};
use crate::volume::key::Key;
use crate::work::append::tests as append;

fn empty(len: u64, sector: SectorSize, cluster: u64, scheme: Scheme, wipe_free: bool) -> DriveLayout {
    let guid = |byte| Guid([byte; 16]);
    let spec = DriveSpec {
        len: ByteLen(len),
        sector,
        scheme,
        guids: Guids { disk: guid(1), msr: guid(2), data: guid(3) },
        cluster: ClusterSize::from_bytes(cluster),
        serial: 7,
        label: "covered".into(),
        formatted: FileTime::from_unix(1_700_000_000, 0),
        wipe_free,
        encrypted: true,
        manifest: Some(MANIFEST_NAME.into()),
    };
    let formatted = spec.formatted;
    let tree = DriveTree::none(std::sync::Arc::new(Builder::new().seal(0).expect("a catalog")), "session", formatted);
    DriveLayout::new(Frame::new(spec).expect("a frame"), tree, ByteLen(100_000)).expect("room")
}

/// Written and left ranges together cover the drive, sector by sector, and agree with its map.
fn assert_covered(layout: &DriveLayout, len: u64, what: &str) {
    let written = layout.batches(SLOT_LEN).flat_map(|batch| batch.pieces);
    let mut ranges: Vec<_> = written.map(|piece| DeviceRange::new(piece.at.0, piece.range.len() as u64)).collect();
    assert_eq!(ranges.iter().map(|range| range.len.0).sum::<u64>(), layout.total_to_write().0, "{what}");
    let left = layout.never_written();
    if !layout.wipe_free() {
        ranges.extend(&left);
    }
    ranges.sort();
    let mut at = 0;
    for range in &ranges {
        assert_eq!(at, range.start.0, "{what}: a gap, or two things in one place");
        at = range.end().0;
    }
    assert_eq!(at, len / layout.sector().bytes() * layout.sector().bytes(), "{what}");
    let mut at = 0;
    for (range, use_) in layout.uses() {
        assert_eq!(at, range.start.0, "{what}: {use_:?}");
        assert_eq!(use_.is_left(), left.contains(range));
        at = range.end().0;
    }
    // The ranges left in the volume are those that `$Bitmap` marks free: whole clusters.
    let (ntfs, volume) = (layout.layout(), layout.volume());
    let clusters = ntfs.cluster().len_of(ntfs.cluster_count()).0;
    for range in layout.uses().iter().filter(|(_, what)| *what == Use::Free).map(|(range, _)| range) {
        let (start, end) = (range.start.0 - volume.start.0, range.end().0 - volume.start.0);
        assert!(start % ntfs.cluster().bytes() == 0 && end % ntfs.cluster().bytes() == 0 && end <= clusters, "{what}");
    }
    let free = ntfs.cluster().len_of(ntfs.free_clusters()).0;
    assert!(layout.free_len().0 >= free && free > 0, "{what}");
}

#[test]
fn every_sector_of_every_kind_of_drive_has_its_use() {
    for sector in [SectorSize::S512, SectorSize::S4096] {
        for shift in sector.bytes().trailing_zeros()..=21 {
            for scheme in [Scheme::Gpt, Scheme::Mbr] {
                for (len, wipe_free) in [(99_999_744, false), (99_999_744, true), ((1 << 30) + 12_800, false)] {
                    let layout = empty(len, sector, 1 << shift, scheme, wipe_free);
                    assert_covered(&layout, len, &format!("{sector:?}, 2^{shift}, {scheme:?}, {len}, {wipe_free}"));
                }
            }
        }
    }
    let lab = Lab::new("uses");
    let mut prepared = lab.prepared("plan", EngineChoice::Sync);
    let drive = prepared.works.remove(0).into_format().expect("a drive that is formatted");
    assert_covered(&drive.layout, drive.target.facts.size.0, "with files");
}

fn look(disk: &SimDisk, key: &Key, wiped: bool, what: &str) {
    let disk = append::twin(disk);
    let found = append::old_data(&disk);
    let opened = append::opened(&disk, key);
    append::assert_same_shape(&disk, &opened);
    if wiped {
        assert_eq!(found, [], "{what}");
    } else {
        append::assert_left(&opened, &found, disk.size().0, what);
    }
}

type Ask = fn(&mut PrepRequest);

#[test]
fn old_data_stay_nowhere_but_in_what_is_free() {
    let asks: [(&str, Ask); 6] = [
        ("512, CBC", |request| {
            (request.cluster_size, request.cipher) = (Some(512), "aes-cbc-256".into());
        }),
        ("4096, XTS, wiped", |request| {
            (request.cluster_size, request.cipher, request.wipe_free) = (Some(4096), "xts-aes-128".into(), true);
        }),
        ("64 KiB, CBC, wiped", |request| {
            (request.cluster_size, request.cipher, request.wipe_free) = (Some(64 << 10), "aes-cbc-128".into(), true);
        }),
        ("2 MiB, XTS", |request| {
            (request.cluster_size, request.cipher) = (Some(2 << 20), "xts-aes-256".into());
        }),
        ("2 MiB, MBR, wiped", |request| {
            (request.cluster_size, request.table, request.wipe_free) =
                (Some(2 << 20), crate::request::Table::Mbr, true);
        }),
        ("sectors of 4096, 2 MiB", |request| {
            (request.cluster_size, request.sector_size) = (Some(2 << 20), Some(4096));
        }),
    ];
    for (i, (what, ask)) in asks.into_iter().enumerate() {
        let mut lab = Lab::small(&format!("old-{i}"));
        lab.ask = ask;
        let bench = lab.bench("plan");
        let target = &bench.drive.target;
        let wiped = bench.prepared.request.wipe_free;
        let disk = SimDisk::new(target.facts.size, target.sector, 1);
        append::plant_old(&disk, DeviceRange::new(0, disk.size().0));
        bench.fill(&disk, bench.begin()).expect("a drive");
        let key = Key::read(bench.secrets().password().printed().expose().as_bytes()).expect("a key");
        look(&disk, &key, wiped, what);
        let more = append::Lab::new(&format!("old-{i}"));
        append::added(&more, &append::twin(&disk), &key, true);
        let disk = append::twin(&disk);
        append::added(&more, &disk, &key, false);
        look(&disk, &key, wiped, &format!("{what}, a further session"));
    }
}
