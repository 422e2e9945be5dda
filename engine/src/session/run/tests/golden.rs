//! Recorded digests of drives: plans and drives must not change their bytes. By cipher, sector, cluster and table.
//!
//! A plan is made from a catalog whose times are fixed, so all of its bytes are compared. The loop writes real files,
//! whose change times cannot be set: the records and indexes that contain them are left out there.

use std::sync::Arc;

use super::*;
use crate::azure::dataset::BlobType;
use crate::bitlocker::build::Spec;
use crate::crypt::Cipher;
use crate::gpt::{Guids, Scheme};
use crate::hash::{Sha256, hex_upper};
use crate::ntfs::build::{Outcome, SectionKind};
use crate::plan::batches::Plain;
use crate::plan::catalog::{Builder, Catalog};
use crate::plan::drive::{DriveLayout, DriveSpec, Frame, MANIFEST_NAME, Use};
use crate::plan::tree::{DriveTree, Md5Text};
use crate::units::{ClusterSize, Guid, SectorSize, Stamp, StreamOffset};

/// The first eight bytes of a digest.
fn short(digest: &[u8; 32]) -> String {
    hex_upper(digest)[..16].to_owned()
}

/// Directories, resident and long files, and one of several blocks, all with fixed times.
pub(crate) fn catalog() -> Catalog {
    let mut builder = Builder::new();
    let container = builder.dir(0, "data").expect("a container");
    let row = builder.row("/source".into(), Some(container), Some(BlobType::Block));
    let deep = builder.dir(container, "deep").expect("a directory");
    let time = |seconds| [Stamp { seconds, nanos: 100 }, Stamp { seconds: seconds + 5, nanos: 700 }];
    for (i, len) in [0_u64, 1, 700, 4095, 4097, 70_000, (4 << 20) + 1, 9 << 20].into_iter().enumerate() {
        let dir = if i % 2 == 0 { container } else { deep };
        let name = format!("file {i}.bin");
        builder.file(dir, &name, row, ByteLen(len), time(1_690_000_000 + i as i64)).expect("a file");
    }
    // Enough names for an index with two levels.
    let many = builder.dir(container, "many").expect("a directory");
    for i in 0..400 {
        let name = format!("a name that takes some room in its index {i:04}");
        builder.file(many, &name, row, ByteLen(i % 3), time(1_680_000_000)).expect("a file");
    }
    builder.seal(1).expect("a catalog")
}

/// The layout of a drive with the files of [`catalog`].
fn layout(sector: SectorSize, cluster: u64, scheme: Scheme, wipe_free: bool) -> DriveLayout {
    let guid = |byte| Guid([byte; 16]);
    let formatted = FileTime::from_unix(1_700_000_000, 0);
    let spec = DriveSpec {
        len: ByteLen(199_999_488),
        sector,
        scheme,
        guids: Guids { disk: guid(1), msr: guid(2), data: guid(3) },
        cluster: ClusterSize::from_bytes(cluster),
        serial: 7,
        label: "golden".into(),
        formatted,
        wipe_free,
        encrypted: true,
        manifest: Some(MANIFEST_NAME.into()),
    };
    let catalog = Arc::new(catalog());
    let all: Vec<u32> = (0..catalog.files().len() as u32).collect();
    let text = Md5Text { before: "<Content-MD5>".into(), after: "</Content-MD5>".into() };
    let tree = DriveTree::new(catalog, &all, "session#1", vec![text], Vec::new(), formatted);
    DriveLayout::new(Frame::new(spec).expect("a frame"), tree, ByteLen(200_000)).expect("room")
}

/// Digest of all that a plan writes, encrypted; file data are zeros, and the manifest has its greatest length.
fn planned(cipher: Cipher, sector: SectorSize, cluster: u64, scheme: Scheme, wipe_free: bool) -> String {
    let layout = layout(sector, cluster, scheme, wipe_free);
    let secrets = VolumeSecrets::draw(
        Spec {
            regions: *layout.regions().expect("BitLocker"),
            cipher,
            disk: layout.layout().disk_shape(),
            description: "golden".into(),
            used_space_only: !wipe_free,
            external_key: true,
            user_password: false,
            created: FileTime::from_unix(1_700_000_000, 0),
        },
        &mut Seeded::new(11),
    );
    let (region, front) = (secrets.region(&mut |_| {}), secrets.front());
    let backup = layout.table().backup().map(|(_, bytes)| bytes).unwrap_or_default();
    let primary = layout.table().primary();
    let cipher = secrets.sector_cipher().expect("a cipher");
    let outcome = Outcome { root_file_lens: vec![layout.manifest_len_max()], ..Outcome::default() };
    let mut hash = Sha256::default();
    for batch in layout.batches(SLOT_LEN) {
        let mut bytes = vec![0; batch.len];
        let mut is_sealed = true;
        match &batch.content {
            Content::Files(_) | Content::Manifest { .. } | Content::Zeros => {}
            Content::Section { kind, offset } => {
                layout.layout().generator(*kind, layout.tree(), &outcome).fill(StreamOffset(*offset), &mut bytes);
            }
            Content::Plain(plain) => {
                is_sealed = false;
                let sector = sector.bytes() as usize;
                match plain {
                    Plain::FveRegion => bytes.copy_from_slice(&region[..]),
                    Plain::Noise => bytes.copy_from_slice(&front[sector..]),
                    Plain::BootSector => bytes.copy_from_slice(&front[..sector]),
                    Plain::TableBackup => bytes.copy_from_slice(&backup),
                    Plain::TablePrimary => bytes.copy_from_slice(&primary),
                    Plain::Zeros => {}
                }
            }
        }
        for piece in &batch.pieces {
            let bytes = &mut bytes[piece.range.clone()];
            if is_sealed {
                cipher.seal(piece.at.in_volume(layout.volume_start()), bytes);
            }
            hash.update(&piece.at.0.to_le_bytes());
            hash.update(bytes);
        }
    }
    short(&hash.value())
}

#[test]
fn plans_give_the_bytes_that_they_always_gave() {
    use Cipher::{AesCbc128, AesCbc256, XtsAes128, XtsAes256};
    use Scheme::{Gpt, Mbr};
    use SectorSize::{S512, S4096};
    let cases = [
        (AesCbc128, S512, 512, Gpt, false, "B9FB145E9726FA4A"),
        (AesCbc256, S512, 4096, Gpt, false, "C729D19FA03973FF"),
        (AesCbc256, S4096, 4096, Mbr, true, "9515D7FF5EBEFB99"),
        (XtsAes128, S512, 4096, Mbr, false, "157CE9448885903D"),
        (XtsAes128, S4096, 65_536, Gpt, false, "8F2CC79455B8CBC1"),
        (XtsAes256, S512, 32_768, Gpt, true, "46D4F47A4BEF0879"),
        (XtsAes256, S4096, 8192, Gpt, false, "C90CDFD840B460C6"),
    ];
    let mut wrong = Vec::new();
    for (cipher, sector, cluster, scheme, wipe_free, golden) in cases {
        let found = planned(cipher, sector, cluster, scheme, wipe_free);
        if found != golden {
            wrong.push(format!("{cipher:?}, {sector:?}, {cluster}, {scheme:?}, {wipe_free}: {found}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_digest_of_a_plan_is_what_it_always_was() {
    let cases = [
        (SectorSize::S512, 4096, Scheme::Gpt, false, SLOT_LEN, "4CB1F846EDCD1E24"),
        (SectorSize::S512, 4096, Scheme::Gpt, true, SLOT_LEN, "95F400A75031E54E"),
        (SectorSize::S4096, 65_536, Scheme::Mbr, false, 1 << 20, "DD47F4B32AF5787C"),
    ];
    let found = cases.map(|(sector, cluster, scheme, wipe_free, slot_len, _)| {
        short(&layout(sector, cluster, scheme, wipe_free).digest(slot_len))
    });
    assert_eq!(found, cases.map(|case| case.5), "a paused session would begin anew");
}

type Ask = fn(&mut PrepRequest);

/// Digest of a drive that the loop has written.
fn written(name: &str, ask: Ask) -> String {
    let mut lab = Lab::new(name);
    lab.content_md5 = true;
    lab.ask = ask;
    let bench = lab.bench("plan");
    let drive = &bench.drive;
    let disk = SimDisk::new(drive.target.facts.size, drive.target.sector, 1);
    let finished = bench.fill(&disk, bench.begin()).expect("a drive");
    assert_eq!(finished.left_out.len(), 0);
    let mut hash = Sha256::default();
    for (range, what) in drive.layout.uses() {
        // These contain the change times of the source files.
        if matches!(what, Use::Section(SectionKind::MftBody | SectionKind::Index)) {
            continue;
        }
        let mut bytes = vec![0; range.len.0 as usize];
        disk.read_at(range.start, &mut bytes);
        hash.update(&range.start.0.to_le_bytes());
        hash.update(&bytes);
    }
    short(&hash.value())
}

#[test]
fn a_session_writes_the_bytes_that_it_always_wrote() {
    // Clusters of 4 KiB: in larger ones records of files share a cluster with those of NTFS.
    let cbc = written("golden-cbc", |request| request.cipher = "aes-cbc-256".into());
    let wiped = written("golden-wiped", |request| {
        request.cipher = "xts-aes-256".into();
        (request.table, request.wipe_free) = (crate::request::Table::Mbr, true);
    });
    assert_eq!([cbc, wiped], ["B64737ACC5EED5D5", "033AFA65C983EB7E"]);
}
