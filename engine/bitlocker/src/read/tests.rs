//! Against volumes that Windows made: fixtures/bitlocker. Secrets and hashes are those that come with them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::*;
use crate::format::REGION_LEN_VISTA;
use crate::map::Source;
use crate::units::{SectorSize, VolumeRange};
use dray_base::entropy::{Entropy, Seeded};

enum Secret {
    Password(&'static str),
    Recovery(&'static str),
    File(&'static str),
    Clear,
}
use Secret::{Clear, File as Bek, Password, Recovery};

struct Fixture {
    name: &'static str,
    secrets: &'static [Secret],
    /// SHA-256 of the whole unlocked volume.
    whole: &'static str,
    /// SHA-256 of its first 8192 bytes.
    front: &'static str,
}

include!("fixtures.rs");

impl Fixture {
    /// The image, unpacked; `None`, loudly, when it is absent.
    fn image(&self) -> Option<Image> {
        Image::unpacked(self.name)
    }

    fn named(name: &str) -> &'static Self {
        FIXTURES.iter().find(|fixture| fixture.name == name).unwrap()
    }

    fn unlock(&self, volume: &Volume) -> Unlocked {
        volume.unlock(&self.secrets[0].input(), &mut |_, _| {}).unwrap()
    }
}

impl Secret {
    fn input(&self) -> KeyInput {
        match self {
            Password(text) => KeyInput::password(text),
            Recovery(text) => KeyInput::parse(text.as_bytes()).unwrap(),
            Bek(name) => {
                KeyInput::parse(&fs::read(dray_fixtures::file(&format!("bitlocker/{name}")).unwrap()).unwrap()).unwrap()
            }
            Clear => KeyInput::Clear,
        }
    }
}

struct Image {
    file: File,
    path: PathBuf,
}

impl Image {
    fn unpacked(name: &str) -> Option<Self> {
        let (process, thread) = (std::process::id(), std::thread::current().id());
        let path = std::env::temp_dir().join(format!("dray-bitlocker-{process}-{thread:?}-{name}.img"));
        dray_fixtures::unpack(&format!("bitlocker/{name}.img"), &path)
            .then(|| Self { file: File::open(&path).unwrap(), path })
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl ReadAt for &Image {
    fn read_at(&mut self, at: VolumeOffset, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, at.0)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hash(unlocked: &Unlocked, mut image: &Image, len: u64) -> String {
    let mut sha = Sha256::new();
    let mut buf = vec![0; 1 << 20];
    let mut at = 0;
    while at < len {
        let part = (len - at).min(buf.len() as u64) as usize;
        unlocked.open_range(VolumeOffset(at), &mut buf[..part], &mut image).unwrap();
        sha.update(&buf[..part]);
        at += part as u64;
    }
    hex(&sha.finalize())
}

fn whole_view(fixture: &Fixture) {
    let Some(image) = fixture.image() else { return };
    let volume = Volume::open(&mut &image).unwrap().unwrap();
    let len = image.file.metadata().unwrap().len();
    assert_eq!(hash(&fixture.unlock(&volume), &image, len), fixture.whole, "{}", fixture.name);
}

#[test]
fn judge_windows_volumes_open_with_every_secret() {
    for fixture in FIXTURES {
        let name = fixture.name;
        let Some(image) = fixture.image() else { continue };
        let volume = Volume::open(&mut &image).unwrap().unwrap_or_else(|| panic!("{name} is not recognised"));
        for (index, secret) in fixture.secrets.iter().enumerate() {
            let unlocked = volume
                .unlock(&secret.input(), &mut |_, _| {})
                .unwrap_or_else(|error| panic!("{name} #{index}: {error}"));
            assert_eq!(hash(&unlocked, &image, 8192), fixture.front, "{name}");
            assert_eq!(unlocked.integrity, Integrity::Proven, "{name}");
            // The copies that Windows keeps say what the fixtures' owners wrote down.
            let stored: Vec<String> =
                volume.recovery_passwords(&unlocked).iter().map(|(_, p)| p.printed().expose().to_owned()).collect();
            for secret in fixture.secrets {
                if let Recovery(text) = secret {
                    assert!(stored.iter().any(|stored| stored == text), "{name}: {text} is not stored");
                }
            }
        }
    }
}

#[test]
fn judge_windows_volumes_decrypt_whole() {
    // One of each kind of map and cipher; the others are in the ignored test.
    for name in ["dissect-aes-256", "dissect-aes-xts-256", "bitlk-aes-xts-128-4k", "dissect-vista"] {
        whole_view(Fixture::named(name));
    }
}

/// cryptsetup's list of its images: secrets, and the SHA-256 that its own test expects of the unlocked volume.
#[test]
fn judge_cryptsetup_expects_the_same_of_volumes_made_by_windows() {
    let mut seen = BTreeSet::new();
    for list in
        ["bookworm", "sid"].into_iter().filter_map(|suite| dray_fixtures::file(&format!("bitlocker/{suite}.conf")))
    {
        let text = fs::read_to_string(list).unwrap();
        for section in text.split("\n[").map(|section| section.trim_start_matches('[')) {
            let (name, values) = section.split_once(']').unwrap();
            let value = |key: &str| {
                let value = values.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap_or("");
                Some(value).filter(|value| !value.is_empty())
            };
            // What is partially encrypted has no sum.
            let Some(sum) = value("SHA256SUM") else { continue };
            if !seen.insert(name.to_owned()) {
                continue;
            }
            let Some(image) = Image::unpacked(name) else { continue };
            let volume = Volume::open(&mut &image).unwrap().unwrap();
            assert_eq!(Some(&*volume.metadata.volume_id.to_string()), value("GUID"), "{name}");
            let recovery =
                ["RP", "RP2"].into_iter().filter_map(value).map(|text| KeyInput::parse(text.as_bytes()).unwrap());
            let keys: Vec<_> = recovery.chain(value("PW").map(KeyInput::password)).collect();
            let keys = if keys.is_empty() { vec![KeyInput::Clear] } else { keys };
            for key in &keys {
                volume.unlock(key, &mut |_, _| {}).unwrap_or_else(|error| panic!("{name}: {error}"));
            }
            // The other tests compare the checksums of these.
            if FIXTURES.iter().any(|fixture| fixture.name == name) {
                continue;
            }
            let unlocked = volume.unlock(&keys[0], &mut |_, _| {}).unwrap();
            assert_eq!(hash(&unlocked, &image, image.file.metadata().unwrap().len()), sum, "{name}");
        }
    }
    eprintln!("{} volumes", seen.len());
}

#[test]
#[ignore = "1.6 GB to decrypt and hash"]
fn judge_all_windows_volumes_decrypt_whole() {
    for fixture in FIXTURES {
        let started = std::time::Instant::now();
        whole_view(fixture);
        eprintln!("{}: {:.1?}", fixture.name, started.elapsed());
    }
}

#[test]
fn judge_facts_of_windows_volumes() {
    let open = |name| {
        let image = Fixture::named(name).image()?;
        Some(Volume::open(&mut &image).unwrap().unwrap())
    };
    if let Some(volume) = open("bitlk-aes-xts-128") {
        // What the annotated dump shows (docs/spec/bitlocker.md#dump-of-xts-metadata).
        let metadata = &volume.metadata;
        assert_eq!(metadata.volume_id.to_string(), "8f595209-f5b9-49a0-85d4-cb8f80258c27");
        assert_eq!(metadata.description.as_deref(), Some("DESKTOP-NPM7RCA H: 7/4/2019"));
        assert_eq!((metadata.next_counter, metadata.cipher()), (10, Some(Cipher::XtsAes128)));
        assert_eq!(metadata.created.0, 0x01d5_3236_5d42_8a70);
        assert_eq!(metadata.relocated_at, VolumeOffset(0x21A_5000));
        assert_eq!(metadata.extended.unwrap().os, [10, 0, 16299]);
        assert_eq!(metadata.extended.unwrap().verify, (VolumeOffset(0x21A_7000), 0x1_0000));
        let [password, recovery] = &metadata.protectors[..] else { panic!("two protectors") };
        assert_eq!((password.kind, recovery.kind), (ProtectorKind::Password, ProtectorKind::RecoveryPassword));
        assert_eq!(recovery.id.to_string(), "64311dea-4587-4029-924a-ba299647998e");
        assert!(volume.copies_are_equal() && volume.state() == State::Encrypted && !volume.is_suspended());
    }
    if let Some(volume) = open("bitlk-aes-xts-128-clearkey-only") {
        assert!(volume.is_suspended());
        let wrong = volume.unlock(&KeyInput::password("anaconda"), &mut |_, _| {}).unwrap_err();
        assert_eq!(wrong, UnlockError::NoSuchProtector { has: vec![ProtectorKind::ClearKey] });
    }
    if let Some(volume) = open("dissect-eow-partial") {
        assert_eq!(volume.state(), State::Converting { progress_known: true });
    }
    if let Some(volume) = open("bitlk-aes-xts-128-eow") {
        assert_eq!(volume.state(), State::Converting { progress_known: false });
    }
    if let Some(volume) = open("dissect-vista") {
        assert_eq!((volume.boot.form, volume.metadata.version), (Form::Vista, 1));
        assert!(volume.copies[0].fault.is_none());
        assert!(matches!(volume.copies[1].fault, Some(CopyFault::Unreadable(_))));
    }
    if let Some(volume) = open("bitlk-togo-aes-xts-128") {
        assert_eq!((volume.boot.form, volume.metadata.relocated_sectors), (Form::ToGo, 10270));
    }
    if let Some(volume) = open("win-server2019-xts128-ntfs-full") {
        assert!(volume.metadata.extended.unwrap().used_space_only());
    }
    if let Some(volume) = open("bitlk-aes-xts-128-4k") {
        assert_eq!((volume.boot.sector, volume.metadata.relocated_sectors), (SectorSize::S4096, 2));
    }
}

#[test]
fn what_a_conversion_kept_is_hidden_on_a_volume_that_was_turned_off_too() {
    const BLOCKS: [u64; 2] = [0x1553_A000, 0x1553_B000];
    let Some(image) = Fixture::named("dissect-eow-partial").image() else { return };
    let under_way = Volume::open(&mut &image).unwrap().unwrap();
    let regions = under_way.boot.regions;
    // Its states become "decrypted", in all copies.
    let mut off = |at: VolumeOffset, buf: &mut [u8]| -> std::io::Result<()> {
        image.file.read_exact_at(buf, at.0)?;
        if regions.contains(&at) && buf.len() >= 0x1000 {
            buf[12..16].copy_from_slice(&[1, 0, 1, 0]);
            let block = usize::from(u16::from_le_bytes([buf[8], buf[9]])) * 16;
            let crc = crate::format::crc32(&buf[..block]);
            buf[block + 4..block + 8].copy_from_slice(&crc.to_le_bytes());
        }
        Ok(())
    };
    let volume = Volume::open(&mut off).unwrap().unwrap();
    assert_eq!(volume.state(), State::Decrypted);
    let zeros = |volume: &Volume| -> Vec<VolumeRange> { volume.mapping().hidden().collect() };
    assert_eq!(zeros(&volume), zeros(&under_way), "BitLocker's own, and the conversion's");
    for block in BLOCKS {
        assert!(zeros(&volume).iter().any(|range| range.start.0 <= block && block < range.end().0), "{block:#x}");
        let mut sector = [0xEE; 512];
        volume.mapping().read(VolumeOffset(block), &mut sector, None, &mut off).unwrap();
        assert_eq!(sector, [0; 512]);
    }
    // What was encrypted and what was not are both read as they are.
    let all = volume.mapping().map(VolumeOffset(0), crate::units::ByteLen(0x1550_0000));
    assert!(all.into_iter().all(|segment| !matches!(segment.source, Source::Sealed(_))));
}

#[test]
fn judge_wrong_secrets_are_told_apart() {
    let fixture = Fixture::named("bitlk-aes-xts-128-startup-key");
    let Some(image) = fixture.image() else { return };
    let volume = Volume::open(&mut &image).unwrap().unwrap();
    let fails = |key: KeyInput| volume.unlock(&key, &mut |_, _| {}).unwrap_err();
    let other = "235818-357951-253979-013365-241120-245575-342914-591910";
    assert_eq!(fails(Recovery(other).input()), UnlockError::WrongSecret);
    assert_eq!(fails(KeyInput::External { protector: None, key: Key32::new([1; 32]) }), UnlockError::WrongSecret);
    assert!(matches!(fails(Bek("dissect-recovery-key.bek").input()), UnlockError::OtherKeyFile { .. }));
    assert!(matches!(fails(KeyInput::Clear), UnlockError::NoSuchProtector { .. }));
    // The bare key opens as the file does.
    let KeyInput::External { key, .. } = Bek("4381F759-C4F8-4DE0-BB61-FC33A831BDA5.BEK").input() else { panic!() };
    assert!(volume.unlock(&KeyInput::External { protector: None, key }, &mut |_, _| {}).is_ok());
}

/// A volume of which only the metadata and the front exist: what the hostile tests read.
struct Stripped {
    pieces: Vec<(u64, Vec<u8>)>,
}

impl Stripped {
    fn of(image: &Image) -> Self {
        let volume = Volume::open(&mut &*image).unwrap().unwrap();
        let mut places: Vec<u64> = volume.metadata.regions.iter().map(|at| at.0).collect();
        places.extend(volume.boot.conversion.into_iter().flatten().map(|at| at.0));
        places.push(0);
        let read = |at| {
            // The Vista image ends after its only metadata copy, which is shorter.
            [REGION_LEN, REGION_LEN_VISTA].into_iter().find_map(|len| {
                let mut piece = vec![0; len];
                (&mut &*image).read_at(VolumeOffset(at), &mut piece).ok()?;
                Some((at, piece))
            })
        };
        Self { pieces: places.into_iter().filter_map(read).collect() }
    }
}

impl ReadAt for Stripped {
    fn read_at(&mut self, at: VolumeOffset, buf: &mut [u8]) -> io::Result<()> {
        buf.fill(0);
        for (start, piece) in &self.pieces {
            if let Some(offset) = at.0.checked_sub(*start).and_then(|offset| usize::try_from(offset).ok())
                && let Some(bytes) = piece.get(offset..)
            {
                let len = bytes.len().min(buf.len());
                buf[..len].copy_from_slice(&bytes[..len]);
                return Ok(());
            }
        }
        Ok(())
    }
}

fn damaged_copies(damage: &[usize]) {
    let Some(image) = Fixture::named("dissect-aes-xts-256").image() else { return };
    let mut stripped = Stripped::of(&image);
    for &index in damage {
        stripped.pieces[index].1[0x80] ^= 1;
    }
    let volume = Volume::open(&mut stripped).unwrap().unwrap();
    for (index, copy) in volume.copies.iter().enumerate() {
        assert_eq!(matches!(copy.fault, Some(CopyFault::Crc { .. })), damage.contains(&index));
    }
    assert!(!volume.copies_are_equal());
    let unlocked = Fixture::named("dissect-aes-xts-256").unlock(&volume);
    let expected = if damage.len() == 3 { Integrity::Different } else { Integrity::Proven };
    assert_eq!(unlocked.integrity, expected);
}

#[test]
fn judge_one_good_copy_of_three_is_enough() {
    damaged_copies(&[0]);
    damaged_copies(&[0, 1]);
    damaged_copies(&[0, 2]);
    damaged_copies(&[1, 2]);
}

#[test]
fn judge_edited_metadata_opens_but_is_told() {
    // As the To Go volume of the fixtures, whose owner edited the description by hand.
    damaged_copies(&[0, 1, 2]);
}

#[test]
fn judge_no_good_copy_names_each_fault() {
    let Some(image) = Fixture::named("dissect-aes-xts-256").image() else { return };
    let mut stripped = Stripped::of(&image);
    stripped.pieces[0].1[0] ^= 1;
    stripped.pieces[1].1[0x0A] = 7;
    stripped.pieces[2].1[0x30] ^= 1;
    let error = Volume::open(&mut stripped).unwrap_err();
    let OpenError::NoGoodCopy(copies) = &error else { panic!("{error}") };
    assert_eq!(copies[0].fault, Some(CopyFault::Signature));
    assert_eq!(copies[1].fault, Some(CopyFault::Version { found: 7, expected: 2 }));
    assert!(matches!(copies[2].fault, Some(CopyFault::Misplaced { .. })));
    assert!(error.to_string().contains("version (at 0x0a) is 7"));
}

#[test]
fn hostile_metadata_never_panics() {
    let mut entropy = Seeded::new(0xBAD);
    let names = ["bitlk-aes-xts-128", "dissect-vista", "dissect-eow-partial", "bitlk-togo-aes-xts-128"];
    for name in names {
        let Some(image) = Fixture::named(name).image() else { continue };
        let clean = Stripped::of(&image);
        let mut opened = 0;
        for _ in 0..3000 {
            let mut stripped = Stripped { pieces: clean.pieces.clone() };
            for _ in 0..1 + entropy.next_u64() % 4 {
                let index = entropy.next_u64() as usize % stripped.pieces.len();
                // Where the structures are; the rest of a region is zeros.
                let at = entropy.next_u64() as usize % 0x400;
                let byte = match entropy.next_u64() % 3 {
                    0 => 0,
                    1 => 0xFF,
                    _ => entropy.array::<1>()[0],
                };
                // The same damage in all metadata copies, or two of them would hide it.
                let front = |piece: &(u64, Vec<u8>)| piece.0 == 0;
                let hit_front = front(&stripped.pieces[index]);
                for piece in stripped.pieces.iter_mut().filter(|piece| front(piece) == hit_front) {
                    piece.1[at] = byte;
                }
            }
            if let Ok(Some(volume)) = Volume::open(&mut stripped) {
                opened += 1;
                let _ =
                    volume.unlock(&KeyInput::External { protector: None, key: Key32::new([0; 32]) }, &mut |_, _| {});
                let _ = volume.unlock(&KeyInput::Clear, &mut |_, _| {});
                let segments = volume.mapping().map(VolumeOffset(0), crate::units::ByteLen(u64::MAX));
                assert!(segments.take(100_000).all(|segment| segment.range.len.0 > 0));
                let _ = format!("{volume:?} {}", volume.state());
            }
        }
        assert!(opened > 100, "{name}: the damage gets past the door {opened} times only");
    }
}

#[test]
fn hostile_conversions_never_panic() {
    // Blocks and bitmaps of the one volume that has them, with damage under valid CRCs.
    const BLOCK_AT: u64 = 0x1553_A000;
    const BITMAPS: [usize; 6] = [0x2000, 0x8_4000, 0x10_6000, 0x18_8000, 0x20_A000, 0x28_C000];
    let Some(image) = Fixture::named("dissect-eow-partial").image() else { return };
    let mut clean = vec![0; 0x28_D000];
    image.file.read_exact_at(&mut clean, BLOCK_AT).unwrap();
    let mut entropy = Seeded::new(0xE0);
    let mut read = 0;
    for round in 0..2000 {
        let mut bytes = clean.clone();
        // Structures as (start, length, place of the CRC).
        let mut structures = vec![(0, 0x68, 36), (0x1000, 0x68, 36)];
        for bitmap in BITMAPS {
            structures.extend([(bitmap, 0x200, 56), (bitmap + 0x200, 0x200, 32), (bitmap + 0x400, 0x200, 32)]);
        }
        for _ in 0..round % 4 {
            let (start, _, _) = structures[entropy.next_u64() as usize % structures.len()];
            let at = start + 8 + entropy.next_u64() as usize % 0x38;
            bytes[at] = if entropy.next_u64().is_multiple_of(2) { 0xFF } else { entropy.array::<1>()[0] };
        }
        for (start, len, crc_at) in structures {
            let structure = &mut bytes[start..][..len];
            structure[crc_at..][..4].fill(0);
            let crc = crate::format::crc32(structure);
            structure[crc_at..][..4].copy_from_slice(&crc.to_le_bytes());
        }
        let mut reader = Stripped { pieces: vec![(BLOCK_AT, bytes)] };
        let blocks = [VolumeOffset(BLOCK_AT), VolumeOffset(BLOCK_AT + 0x1000)];
        let Some(conversion) = eow::read(blocks, SectorSize::S512, &mut reader) else { continue };
        read += 1;
        let layout = Layout {
            sector: SectorSize::S512,
            vista_mirror_cluster: None,
            metadata: [0x21F_0000, 0x93F_0000, 0x105F_0000],
            relocated_at: 0x220_0000,
            relocated_len: 0x2000,
            sealed_end: 0x3FEF_0000,
            decrypted: false,
            chunks: Some(conversion.chunks),
            hidden: conversion.hidden,
        };
        if let Ok(mapping) = Mapping::new(layout) {
            let segments = mapping.map(VolumeOffset(0), crate::units::ByteLen(u64::MAX));
            assert!(segments.take(100_000).all(|segment| segment.range.len.0 > 0));
        }
    }
    assert!(read > 500, "{read}");
}

#[test]
fn hostile_front_never_panics() {
    let mut entropy = Seeded::new(0xF00D);
    for name in ["bitlk-aes-xts-128", "dissect-vista", "bitlk-togo-aes-xts-128"] {
        let Some(image) = Fixture::named(name).image() else { continue };
        let mut first = vec![0; 512];
        image.file.read_exact_at(&mut first, 0).unwrap();
        for _ in 0..20_000 {
            let mut bytes = first.clone();
            for _ in 0..1 + entropy.next_u64() % 4 {
                let at = entropy.next_u64() as usize % bytes.len();
                bytes[at] = entropy.array::<1>()[0];
            }
            bytes.truncate(entropy.next_u64() as usize % 600);
            let _ = Boot::recognise(&bytes);
        }
    }
    assert!(Boot::recognise(&[]).unwrap().is_none());
}
