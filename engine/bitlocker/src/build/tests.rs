use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::*;
use crate::crypt::stretch::{ROUNDS, password_hash};
use crate::format::RegionOffsets;
use crate::keys::KeyInput;
use crate::map::{Mapping, Source};
use crate::read::{Integrity, ProtectorKind, State, Volume};
use crate::units::{ByteLen, ClusterSize, DiskShape, SectorSize, VolumeOffset, VolumeRange};
use dray_base::entropy::Seeded;
use zerocopy::FromBytes;

const CIPHERS: [Cipher; 4] = [Cipher::AesCbc128, Cipher::AesCbc256, Cipher::XtsAes128, Cipher::XtsAes256];

/// 2026-11-22 and some 100 ns, which must not show.
const CREATED: FileTime = FileTime(134_083_296_012_345_678);

const VOLUME_LEN: u64 = 64 << 20;

fn spec(cipher: Cipher, sector: SectorSize, cluster: u64) -> Spec {
    let cluster = ClusterSize::from_bytes(cluster).unwrap();
    Spec {
        regions: Regions::place(ByteLen(VOLUME_LEN), cluster, sector).unwrap(),
        cipher,
        disk: DiskShape { sectors_per_track: 63, heads: 255, hidden_sectors: 0x8800 },
        description: "DRAY import-1 11/22/2026".into(),
        used_space_only: true,
        external_key: true,
        user_password: false,
        created: CREATED,
    }
}

/// A volume's draft, stretched once.
struct Made {
    secrets: VolumeSecrets,
    region: Box<[u8; REGION_LEN]>,
}

impl Made {
    fn regions(&self) -> &Regions {
        &self.secrets.spec.regions
    }
}

fn build(cipher: Cipher, sector: SectorSize, cluster: u64, seed: u64) -> Made {
    let secrets = VolumeSecrets::draw(spec(cipher, sector, cluster), &mut Seeded::new(seed));
    let mut done = 0;
    let region = secrets.region(&mut |rounds| done = rounds);
    assert_eq!(done, ROUNDS);
    Made { secrets, region }
}

/// A volume on disk with known bytes in the places that tests read. Removed when dropped.
struct Image {
    path: PathBuf,
    file: File,
    /// Places in the unlocked volume and what they must hold.
    plan: Vec<(u64, Vec<u8>)>,
}

impl Image {
    fn write(made: &Made, name: &str) -> Self {
        let mapping = made.regions().mapping();
        Self::write_with(made, &mapping, &made.region[..], name)
    }

    fn write_with(made: &Made, mapping: &Mapping, region: &[u8], name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("dray-bitlocker-{}-{name}.img", std::process::id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        file.set_len(VOLUME_LEN).unwrap();
        let mut image = Self { path, file, plan: Vec::new() };
        let regions = made.regions();
        let sector = regions.sector().bytes();
        let cipher = made.secrets.sector_cipher().unwrap();
        let mut noise = Seeded::new(0xD1CE);
        let put = |image: &mut Self, at: u64, plain: Vec<u8>| {
            for segment in mapping.map(VolumeOffset(at), ByteLen(plain.len() as u64)) {
                let from = (segment.range.start.0 - at) as usize;
                let mut bytes = plain[from..][..segment.range.len.0 as usize].to_vec();
                if let Source::Sealed(stored) = segment.source {
                    cipher.seal(stored, &mut bytes);
                }
                if let Source::Sealed(stored) | Source::Plain(stored) = segment.source {
                    image.file.write_all_at(&bytes, stored.0).unwrap();
                }
            }
            image.plan.push((at, plain));
        };
        let mut random = |len: usize| {
            let mut bytes = vec![0; len];
            noise.fill(&mut bytes);
            bytes
        };
        // An NTFS-like front that crosses from the relocated area into ordinary sectors.
        let mut front = random(0x6000);
        front[..512].copy_from_slice(&ntfs_boot_sector(regions));
        put(&mut image, 0, front);
        put(&mut image, VOLUME_LEN - sector, random(sector as usize));
        for zeros in regions.sealed_zeros() {
            put(&mut image, zeros.start.0, vec![0; zeros.len.0 as usize]);
        }
        let mut files = regions.hidden_files();
        files.sort_unstable_by_key(|file| file.start);
        for (index, file) in files.iter().enumerate() {
            // What BitLocker hides reads as zeros, and its neighbours are ordinary.
            image.plan.push((file.start.0, vec![0; file.data_len.0 as usize]));
            let end = file.allocated.end().0;
            if index == 0 || files[index - 1].allocated.end().0 + 0x8000 <= file.start.0 {
                put(&mut image, file.start.0 - 0x4000, random(0x4000));
            }
            if files.get(index + 1).is_none_or(|next| end + 0x8000 <= next.start.0) {
                put(&mut image, end, random(0x4000));
            }
        }
        // Last, as on a drive.
        for range in made.regions().metadata() {
            image.file.write_all_at(region, range.start.0).unwrap();
        }
        image.file.write_all_at(&made.secrets.front()[..], 0).unwrap();
        image.plan.sort();
        image.plan.dedup();
        image
    }

    /// `offset:length:sha256` for each place.
    fn expected(&self) -> Vec<String> {
        self.plan.iter().map(|(at, bytes)| format!("{at}:{}:{}", bytes.len(), hex(&Sha256::digest(bytes)))).collect()
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// As much of one as libbde looks at after it has decrypted it.
fn ntfs_boot_sector(regions: &Regions) -> [u8; 512] {
    let mut boot = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| boot[at..][..bytes.len()].copy_from_slice(bytes);
    let sector = regions.sector().bytes();
    put(0x00, b"\xEB\x52\x90NTFS    ");
    put(0x0B, &(sector as u16).to_le_bytes());
    put(0x0D, &[sectors_per_cluster(regions)]);
    put(0x15, &[0xF8]);
    put(0x18, &[0x3F, 0, 0xFF, 0]);
    put(0x24, &[0x80, 0, 0x80, 0]);
    put(0x28, &(VOLUME_LEN / sector - 1).to_le_bytes());
    put(0x30, &4_u64.to_le_bytes());
    put(0x38, &2_u64.to_le_bytes());
    put(0x40, &[0xF6, 0, 0, 0, 1, 0, 0, 0]);
    put(0x1FE, &[0x55, 0xAA]);
    boot
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs a judge; `None` when it is not installed.
fn run(program: &str, args: &[&str], input: &[u8]) -> Option<(bool, String)> {
    let mut child = Command::new(program)
        .args(args)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    // A judge that refuses early closes its end.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

/// The strictest cryptsetup there is; see scripts/judge-cryptsetup.
fn cryptsetup() -> Option<String> {
    let why = match dray_fixtures::judges::newer_cryptsetup() {
        Ok(path) => return Some(path.to_string_lossy().into_owned()),
        Err(why) => why,
    };
    let installed = run("cryptsetup", &["--version"], &[]);
    eprintln!("SKIPPED judge: no cryptsetup that checks CRC and hash ({why}); an old one: {installed:?}");
    installed.map(|_| "cryptsetup".to_owned())
}

fn judge_with_cryptsetup(made: &Made, image: &Image, name: &str) {
    let Some(cryptsetup) = cryptsetup() else { return };
    let path = image.path.to_str().unwrap();
    let (good, dump) = run(&cryptsetup, &["bitlkDump", path], &[]).unwrap();
    assert!(good, "{name}: {dump}");
    assert!(!dump.to_lowercase().contains("warning"), "{name}: {dump}");
    for fact in [
        made.secrets.ids.volume.to_string(),
        made.secrets.recovery.id.to_string(),
        made.secrets.key_file().unwrap().id.to_string(),
        "DRAY import-1 11/22/2026".to_owned(),
        format!("Sector size:  \t{} [bytes]", made.regions().sector().bytes()),
    ] {
        assert!(dump.contains(&fact), "{name}: no {fact} in {dump}");
    }
    let password = made.secrets.recovery.password.printed();
    let open = |args: &[&str], input: &[u8]| {
        let all: Vec<&str> = [&["open", "--type", "bitlk", "--test-passphrase", path], args].concat();
        run(&cryptsetup, &all, input).unwrap()
    };
    let (good, said) = open(&[], password.expose().as_bytes());
    assert!(good, "{name}: {said}");
    let (good, _) = open(&[], b"000000-000000-000000-000000-000000-000000-000000-000000");
    assert!(!good, "{name}: the judge accepts any password");
    let key_file = image.path.with_extension("bek");
    fs::write(&key_file, made.secrets.key_file().unwrap().bytes.expose()).unwrap();
    let (good, said) = open(&["--key-file", key_file.to_str().unwrap()], &[]);
    fs::remove_file(key_file).unwrap();
    assert!(good, "{name}, key file: {said}");
    let (good, said) =
        run(&cryptsetup, &["bitlkDump", "--batch-mode", "--dump-volume-key", path], password.expose().as_bytes())
            .unwrap();
    let words = said.split("MK dump:").nth(1).unwrap_or("").split_whitespace();
    let printed: String = words.take_while(|word| word.len() == 2).collect();
    assert!(good && printed == hex(made.secrets.keys.fvek.expose()), "{name}: another sector key: {said}");
}

/// Opens the image with a reader, and prints `offset:length:sha256` for each requested place.
const READ_WITH_PYTHON: &str = r#"
import hashlib, sys
reader, path, password, key_file, places = sys.argv[1:6]
try:
    if reader == "libbde":
        import pybde
        volume = pybde.volume()
        if password:
            volume.set_recovery_password(password)
        else:
            volume.read_startup_key(key_file)
        volume.open(path)
        assert not volume.is_locked(), "still locked"
        stream = volume
    else:
        from dissect.fve.bde import BDE
        bde = BDE(open(path, "rb"))
        assert bde._valid_information and len(bde._valid_information) == 3, "not all copies valid"
        if password:
            bde.unlock_with_recovery_password(password)
        else:
            bde.unlock_with_bek(open(key_file, "rb"))
        assert bde.unlocked, "still locked"
        assert bde.information.check_integrity(bde._vmk) if hasattr(bde, "_vmk") else True
        stream = bde.open()
except ImportError as missing:
    print("MISSING", missing)
    sys.exit(0)
for place in places.split(","):
    at, length = map(int, place.split(":")[:2])
    stream.seek(at)
    print(f"{at}:{length}:{hashlib.sha256(stream.read(length)).hexdigest()}")
"#;

fn judge_with_python(reader: &str, made: &Made, image: &Image, name: &str) {
    let expected = image.expected();
    let key_file = image.path.with_extension("bek");
    fs::write(&key_file, made.secrets.key_file().unwrap().bytes.expose()).unwrap();
    for password in [made.secrets.recovery.password.printed().expose(), ""] {
        let path = image.path.to_str().unwrap();
        let args = ["-c", READ_WITH_PYTHON, reader, path, password, key_file.to_str().unwrap(), &expected.join(",")];
        let Some((good, said)) = run(&dray_fixtures::judges::python().to_string_lossy(), &args, &[]) else {
            return eprintln!("SKIPPED judge: python3 is absent");
        };
        if said.starts_with("MISSING") {
            eprintln!("SKIPPED judge: {reader}: {said}");
            break;
        }
        assert!(good, "{name}, {reader}: {said}");
        assert_eq!(said.lines().collect::<Vec<_>>(), expected, "{name}, {reader}");
    }
    fs::remove_file(key_file).unwrap();
}

fn judge_with_bitlocker_core(made: &Made, image: &Image, name: &str) {
    if made.regions().sector() != SectorSize::S512 {
        // Version 0.3.5 decrypts in units of 512 bytes whatever the volume says.
        return eprintln!("SKIPPED judge: bitlocker-core knows no 4096-byte sectors");
    }
    let password = made.secrets.recovery.password.printed();
    let file = image.file.try_clone().unwrap();
    let mut volume = bitlocker::BitLockerVolume::unlock_with_recovery_password(file, password.expose()).unwrap();
    let mapping = made.regions().mapping();
    let hidden = |at: u64| mapping.hidden().any(|range| range.overlaps(VolumeRange::new(at, 1)));
    // It gives noise for parts of BitLocker's own areas where the other readers give zeros.
    for (at, plain) in image.plan.iter().filter(|(at, _)| !hidden(*at)) {
        let mut buf = vec![0; plain.len()];
        volume.read_at(*at, &mut buf).unwrap();
        assert!(buf == *plain, "{name}, bitlocker-core: other bytes at {at:#x}");
    }
}

fn read_back(made: &Made, image: &Image, name: &str) {
    let mut reader = |at: VolumeOffset, buf: &mut [u8]| image.file.read_exact_at(buf, at.0);
    let volume = Volume::open(&mut reader).unwrap().unwrap();
    assert!(volume.copies_are_equal() && volume.state() == State::Encrypted && !volume.is_suspended());
    assert_eq!(volume.mapping(), &made.regions().mapping());
    assert!(volume.metadata.extended.unwrap().used_space_only());
    let kinds: Vec<ProtectorKind> = volume.metadata.protectors.iter().map(|protector| protector.kind).collect();
    assert_eq!(kinds, [ProtectorKind::RecoveryPassword, ProtectorKind::ExternalKey]);
    let printed = made.secrets.recovery.password.printed();
    for key in [printed.expose().as_bytes(), made.secrets.key_file().unwrap().bytes.expose()] {
        let unlocked = volume.unlock(&KeyInput::parse(key).unwrap(), &mut |_, _| {}).unwrap();
        assert_eq!(unlocked.integrity, Integrity::Proven);
        assert_eq!(unlocked.fvek.expose(), made.secrets.keys.fvek.expose());
        let stored = volume.recovery_passwords(&unlocked);
        assert_eq!(stored.len(), 1);
        assert_eq!(stored[0].1.printed().expose(), printed.expose());
        for (at, plain) in &image.plan {
            let mut buf = vec![0; plain.len()];
            unlocked.open_range(VolumeOffset(*at), &mut buf, &mut reader).unwrap();
            assert!(buf == *plain, "{name}: other bytes at {at:#x}");
        }
    }
}

fn judge(cipher: Cipher, sector: SectorSize, cluster: u64) {
    let name = format!("{cipher}-{}-{cluster}", sector.bytes());
    let made = build(cipher, sector, cluster, cluster + sector.bytes());
    let image = Image::write(&made, &name);
    read_back(&made, &image, &name);
    judge_with_cryptsetup(&made, &image, &name);
    judge_with_python("libbde", &made, &image, &name);
    judge_with_python("dissect.fve", &made, &image, &name);
    judge_with_bitlocker_core(&made, &image, &name);
}

#[test]
fn judge_four_readers_open_the_default() {
    judge(Cipher::AesCbc256, SectorSize::S512, 4096);
}

#[test]
fn judge_four_readers_open_large_sectors_and_clusters() {
    judge(Cipher::XtsAes256, SectorSize::S4096, 2 << 20);
}

#[test]
fn judge_a_volume_half_encrypted_is_read_by_others() {
    let made = build(Cipher::XtsAes128, SectorSize::S512, 4096, 77);
    let converting = made.secrets.converting(&made.region);
    assert_eq!(converting.finished(), &made.region[..]);
    let [first, second, _] = made.regions().metadata();
    for border in [first.start.0 + (1 << 20), second.start.0 - 0x2000, VOLUME_LEN - 512] {
        let border = VolumeOffset(border);
        let name = format!("half-{}", border.0);
        let mapping = made.regions().mapping_until(border);
        let image = Image::write_with(&made, &mapping, &converting.until(border), &name);
        let mut reader = |at: VolumeOffset, buf: &mut [u8]| image.file.read_exact_at(buf, at.0);
        let volume = Volume::open(&mut reader).unwrap().unwrap();
        assert!(volume.copies_are_equal());
        assert_eq!((volume.state(), volume.mapping()), (State::Partial { plain_from: border }, &mapping));
        let password = KeyInput::parse(made.secrets.recovery.password.printed().expose().as_bytes()).unwrap();
        let unlocked = volume.unlock(&password, &mut |_, _| {}).unwrap();
        assert_eq!(unlocked.integrity, Integrity::Proven);
        assert_eq!(unlocked.converting(&made.region[..]).unwrap().until(border), converting.until(border));
        for (at, plain) in &image.plan {
            let mut buf = vec![0; plain.len()];
            unlocked.open_range(VolumeOffset(*at), &mut buf, &mut reader).unwrap();
            assert!(buf == *plain, "{name}: other bytes at {at:#x}");
        }
        judge_with_python("libbde", &made, &image, &name);
        judge_with_python("dissect.fve", &made, &image, &name);
    }
}

#[test]
#[ignore = "28 volumes for four readers: minutes"]
fn judge_four_readers_open_every_combination() {
    for cipher in CIPHERS {
        for sector in [SectorSize::S512, SectorSize::S4096] {
            for cluster in [512, 4096, 64 << 10, 2 << 20] {
                if cluster >= sector.bytes() {
                    judge(cipher, sector, cluster);
                }
            }
        }
    }
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let make = |seed| build(Cipher::AesCbc256, SectorSize::S512, 4096, seed);
    let (one, two, other) = (make(1), make(1), make(2));
    assert!(one.region == two.region && one.secrets.front() == two.secrets.front());
    assert!(one.region != other.region && one.secrets.keys.fvek.expose() != other.secrets.keys.fvek.expose());
}

#[test]
fn datums_lie_as_windows_lays_them() {
    // The offsets (docs/spec/bitlocker.md#dump-of-xts-metadata) are moved by what differs: a longer description, another
    // protector.
    let made = build(Cipher::XtsAes128, SectorSize::S512, 4096, 5);
    let region = &made.region[..];
    let header = BlockHeader::ref_from_prefix(region).unwrap().0;
    let dataset = DatasetHeader::ref_from_prefix(&region[64..]).unwrap().0;
    assert_eq!((header.version.get(), header.state.get(), header.next_state.get()), (2, 4, 4));
    assert_eq!((header.state_offset.get(), header.relocated_sectors.get()), (VOLUME_LEN, 16));
    assert_eq!(dataset.created.get() % 10_000, 0);
    let mut at = 0x70;
    let mut walked = Vec::new();
    while at < 64 + dataset.size.get() as usize {
        let field = |offset: usize| u16::from_le_bytes([region[at + offset], region[at + offset + 1]]);
        walked.push((field(0), field(2), field(4), field(6)));
        at += usize::from(field(0));
    }
    let description = 8 + 2 * ("DRAY import-1 11/22/2026".len() as u16 + 1);
    assert_eq!(
        walked,
        [(description, 7, 2, 1), (0x120, 2, 8, 1), (0xF0, 2, 8, 1), (0x50, 3, 5, 1), (0x64, 15, 15, 1),]
    );
    // Nonces count up from 2, one for each of: three in the recovery protector, two in the external one, FVEK, hash.
    let nonce_counters: Vec<u32> = {
        let recovery = 0x70 + usize::from(description);
        let external = recovery + 0x120;
        let fvek = external + 0xF0;
        let validation = usize::from(header.size.get()) * 16 + 8;
        [recovery + 0x40, recovery + 0x80, recovery + 0xD0, external + 0x50, external + 0xA0, fvek, validation]
            .map(|datum| u32::from_le_bytes(region[datum + 16..][..4].try_into().unwrap()))
            .to_vec()
    };
    assert_eq!(nonce_counters, [2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(dataset.next_counter.get(), 9);
    let end = usize::from(header.size.get()) * 16 + 88;
    assert!(region[end..].iter().all(|&byte| byte == 0));
}

#[test]
fn the_boot_sector_has_windows_constants_and_own_code() {
    for (sector, cluster, per_cluster) in [(SectorSize::S512, 4096, 8), (SectorSize::S512, 2 << 20, 0xF4)] {
        let made = build(Cipher::AesCbc256, sector, cluster, 9);
        let front = made.secrets.front();
        let boot = &front[..sector.bytes() as usize];
        // Field by field (docs/spec/bitlocker.md#dump-of-a-boot-sector).
        let constant: [(usize, &[u8]); 12] = [
            (0, b"\xEB\x58\x90-FVE-FS-\x00\x02"),
            (0x0D, &[per_cluster]),
            (0x0E, b"\0\0\0\0\0\0\0\xF8\0\0\x3F\0\xFF\0\0\x88\0\0\0\0\0\0\xE0\x1F\0\0\0\0\0\0\0\0\0\0"),
            (0x30, b"\x01\0\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\x80\0\x29\0\0\0\0"),
            (0x47, b"NO NAME    FAT32   "),
            (0xA0, b"\x3b\xd6\x67\x49\x29\x2e\xd8\x4a\x83\x99\xf6\xa3\x39\xe3\xd0\x01"),
            (0xC8, &[0; 56]),
            (0x11F, b"by BitLocker."),
            (0x12C, b"\r\nNo"),
            (0x1E7, b"x"),
            (0x1E8, &[0xFF; 19]),
            (0x1FB, b"\x00\x1F\x2C\x55\xAA"),
        ];
        for (at, bytes) in constant {
            assert_eq!(&boot[at..][..bytes.len()], bytes, "at {at:#x}");
        }
        let offsets = RegionOffsets::ref_from_prefix(&boot[0xB0..]).unwrap().0;
        let places = made.regions().metadata().map(|range| range.start.0);
        assert_eq!(offsets.regions.map(|at| at.get()), places);
        assert!(made.secrets.front()[512..].iter().filter(|&&byte| byte == 0).count() < 100);
    }
    // The disk's shape is what the boot sector inside says, whatever that is.
    let mut other = spec(Cipher::AesCbc256, SectorSize::S4096, 4096);
    other.disk = DiskShape { sectors_per_track: 1, heads: 2, hidden_sectors: 0x0304_0506 };
    let front = VolumeSecrets::draw(other, &mut Seeded::new(9)).front();
    assert_eq!(front[0x18..0x20], [1, 0, 2, 0, 6, 5, 4, 3]);
}

#[test]
fn long_descriptions_are_cut_between_characters() {
    assert_eq!(cut("a\0b"), "ab");
    assert_eq!(cut(&"😀".repeat(200)).encode_utf16().count(), DESCRIPTION_UNITS_MAX);
    assert_eq!(cut(&format!("x{}", "😀".repeat(200))).encode_utf16().count(), DESCRIPTION_UNITS_MAX - 1);
}

#[test]
fn a_users_password_is_kept_with_the_draft_and_not_in_the_clear() {
    let spec = || Spec { user_password: true, ..spec(Cipher::XtsAes128, SectorSize::S512, 4096) };
    let mut secrets = VolumeSecrets::draw(spec(), &mut Seeded::new(7));
    let hash = || password_hash("correct horse");
    secrets.protect(hash(), &mut Seeded::new(8));
    let kept = secrets.keep();
    assert!(!kept.windows(32).any(|window| window == hash().expose()), "the hash in clear");
    let again = RecoveryPassword::parse(secrets.password().printed().expose()).unwrap();
    let found = VolumeSecrets::restore(spec(), again, &kept).unwrap();
    let region = secrets.region(&mut |_| {});
    assert_eq!(found.region(&mut |_| {}), region);
    // The first protector, of a password (docs/spec/bitlocker.md#password-protector).
    let at = region.windows(4).position(|window| window == [0xE0, 0, 2, 0]).expect("a datum of 0xE0 bytes, a VMK");
    assert_eq!(region[at + 0x20..at + 0x24], [0, 0, 0, 0x20], "hints and priority");
    assert_eq!(region[at + 0x24..at + 0x30], [0x6C, 0, 0, 0, 3, 0, 1, 0, 1, 0x10, 0, 0], "its stretch key");
    // Without a user's password the file is as before.
    let bare = || Spec { user_password: false, ..spec() };
    let without = VolumeSecrets::draw(bare(), &mut Seeded::new(7));
    assert_eq!(without.keep().len() + 64, kept.len());
}

#[test]
fn a_draft_is_found_again_by_its_password_alone() {
    let bare = |cipher, external_key| Spec { external_key, ..spec(cipher, SectorSize::S512, 4096) };
    let restore = |password: &RecoveryPassword| RecoveryPassword::parse(password.printed().expose()).unwrap();
    for (cipher, external_key) in CIPHERS.into_iter().flat_map(|cipher| [(cipher, true), (cipher, false)]) {
        let secrets = VolumeSecrets::draw(bare(cipher, external_key), &mut Seeded::new(7));
        let kept = secrets.keep();
        for secret in
            [secrets.keys.vmk.expose().as_slice(), secrets.keys.fvek.expose(), secrets.password().key().expose()]
        {
            assert!(!kept.windows(secret.len()).any(|window| window == secret), "{cipher:?}: a secret in clear");
        }
        // In a checkpoint zeros follow it.
        let mut padded = kept.clone();
        padded.resize(kept.len() + 100, 0);
        let found = VolumeSecrets::restore(bare(cipher, external_key), restore(secrets.password()), &padded).unwrap();
        assert_eq!(found.keep(), kept);
        assert_eq!(found.front(), secrets.front());
        let key_file =
            |secrets: &VolumeSecrets| secrets.key_file().map(|file| (file.file_name, file.bytes.expose().to_vec()));
        assert_eq!(key_file(&found), key_file(&secrets));
        assert_eq!(found.key_file().is_some(), external_key);
        if cipher == Cipher::XtsAes128 {
            assert_eq!(found.region(&mut |_| {}), secrets.region(&mut |_| {}));
        }

        let spec = || bare(cipher, external_key);
        let short = VolumeSecrets::restore(spec(), restore(secrets.password()), &kept[..kept.len() - 1]);
        assert_eq!(short.err(), Some(RestoreError::Short));
        let other = RecoveryPassword::random(&mut Seeded::new(8));
        assert_eq!(VolumeSecrets::restore(spec(), other, &kept).err(), Some(RestoreError::WrongKey));
        for at in [0, FRONT_LEN + 16, kept.len() - 1] {
            let mut changed = kept.clone();
            changed[at] ^= 1;
            let found = VolumeSecrets::restore(spec(), restore(secrets.password()), &changed);
            assert_eq!(found.err(), Some(RestoreError::WrongKey), "byte {at}");
        }
    }
}
