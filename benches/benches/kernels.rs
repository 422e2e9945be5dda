//! Each kernel next to the plain crate for the same task, in one run, on one core; then all of them over slots as the
//! product uses them. Compare rows with each other, never with another machine.
//!
//! `cargo bench -p dray-benches --bench kernels -- --quick`, with IPsec-MB and OpenSSL as well where their headers are
//! installed (Debian: libipsec-mb-dev, libssl-dev).

use std::hint::black_box;
use std::time::Duration;

use aes::cipher::{Array, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit};
use aes::{Aes128, Aes256};
use criterion::{BenchmarkGroup, Throughput, criterion_group, criterion_main};
use dray_base::entropy::{Entropy, Seeded};
use dray_base::units::{SectorSize, VolumeOffset};
#[cfg(any(ipsec_mb, openssl))]
use dray_benches::peers;
use dray_benches::{CpuTime, SLOT, in_pieces};
use dray_crypt::{Cipher, SectorCipher, Unit};
use dray_hash::{self as hash, Backend, Sha256Backend};
use md5::Digest;

type Criterion = criterion::Criterion<CpuTime>;

const SECTORS: [SectorSize; 2] = [SectorSize::S512, SectorSize::S4096];
/// Offset of the slots in the volume.
const AT: u64 = 1 << 40;

fn random(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Seeded::new(seed).fill(&mut bytes);
    bytes
}

/// Consecutive slots, as in the pool: their starts are 4 MiB apart.
fn slots(count: usize) -> Vec<u8> {
    random(count * SLOT, 1)
}

fn group<'a>(c: &'a mut Criterion, name: &str, bytes: usize) -> BenchmarkGroup<'a, CpuTime> {
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Bytes(bytes as u64));
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    group
}

fn one_by_one(messages: &[&[u8]]) {
    for message in messages {
        black_box(md5::Md5::digest(message));
    }
}

fn md5_blocks(c: &mut Criterion) {
    let data = slots(16);
    for count in [1, 8, 12, 16] {
        let messages: Vec<&[u8]> = data[..count * SLOT].chunks(SLOT).collect();
        let mut out = vec![[0; 16]; count];
        let mut group = group(c, &format!("md5/{count} blocks of 4 MiB"), count * SLOT);
        group.bench_function("md-5", |b| b.iter(|| one_by_one(&messages)));
        for backend in Backend::ALL.into_iter().filter(|backend| backend.is_available()) {
            group.bench_function(format!("{backend:?}"), |b| {
                b.iter(|| hash::md5_many_with(backend, black_box(&messages), &mut out));
            });
        }
        #[cfg(openssl)]
        group.bench_function("openssl", |b| {
            b.iter(|| {
                messages.iter().map(|message| peers::openssl_md5(message)).for_each(|digest| _ = black_box(digest))
            });
        });
    }
}

fn sha256_blocks(c: &mut Criterion) {
    let data = slots(16);
    for count in [1, 2, 4, 8, 16] {
        let messages: Vec<&[u8]> = data[..count * SLOT].chunks(SLOT).collect();
        let mut out = vec![[0; 32]; count];
        let mut group = group(c, &format!("sha-256/{count} blocks of 4 MiB"), count * SLOT);
        group.bench_function("sha2", |b| {
            b.iter(|| messages.iter().for_each(|message| _ = black_box(sha2::Sha256::digest(message))));
        });
        for backend in Sha256Backend::ALL.into_iter().filter(|backend| backend.is_available()) {
            group.bench_function(format!("{backend:?}"), |b| {
                b.iter(|| hash::sha256_many_with(backend, black_box(&messages), &mut out));
            });
        }
        #[cfg(openssl)]
        group.bench_function("openssl", |b| {
            b.iter(|| messages.iter().for_each(|message| _ = black_box(peers::openssl_sha256(message))));
        });
    }
}

fn md5_mixture(c: &mut Criterion) {
    for large in [0, 12] {
        // Whole slots mixed with four slots full of files of up to 64 KiB.
        let data = slots(large + 4);
        let mut random = Seeded::new(2);
        let (whole, mut rest) = data.split_at(large * SLOT);
        let mut messages: Vec<&[u8]> = whole.chunks(SLOT).collect();
        loop {
            let len = 1 + (random.next_u64() % (1 << (random.next_u64() % 17))) as usize;
            let Some((message, behind)) = rest.split_at_checked(len) else { break };
            messages.push(message);
            rest = behind;
        }
        let mut out = vec![[0; 16]; messages.len()];
        let bytes = messages.iter().map(|message| message.len()).sum();
        let small = messages.len() - large;
        let mut group = group(c, &format!("md5/{large} of 4 MiB and {small} small"), bytes);
        group.bench_function("md-5", |b| b.iter(|| one_by_one(&messages)));
        group.bench_function("ours", |b| b.iter(|| hash::md5_many(black_box(&messages), &mut out)));
    }
}

fn crc(c: &mut Criterion) {
    let data = slots(1);
    let mut group = group(c, "crc-64/nvme", SLOT);
    group.bench_function("crc-fast", |b| b.iter(|| crc_fast::crc64_nvme(black_box(&data))));
    // Another polynomial (CRC-64/XZ), so not Azure's checksum; the work is the same.
    group.bench_function("crc64fast", |b| {
        b.iter(|| {
            let mut sum = crc64fast::Digest::new();
            sum.write(black_box(&data));
            sum.sum64()
        });
    });
    group.bench_function("ours", |b| b.iter(|| hash::crc64(black_box(&data))));
}

/// The sectors of a slot, one after the other, through the plain crates.
trait Plain {
    fn seal(&self, at: u64, sector: SectorSize, data: &mut [u8]);
    fn open(&self, at: u64, sector: SectorSize, data: &mut [u8]);
}

struct PlainXts<C: KeyInit + BlockCipherEncrypt>(xts_mode::Xts128<C>)
where
    C: aes::cipher::BlockCipherDecrypt;

impl<C> Plain for PlainXts<C>
where
    C: KeyInit + BlockCipherEncrypt<BlockSize = aes::cipher::consts::U16> + aes::cipher::BlockCipherDecrypt,
{
    fn seal(&self, at: u64, sector: SectorSize, data: &mut [u8]) {
        let unit = u128::from(at / sector.bytes());
        self.0.encrypt_area(data, sector.bytes() as usize, unit, |unit| unit.to_le_bytes().into());
    }

    fn open(&self, at: u64, sector: SectorSize, data: &mut [u8]) {
        let unit = u128::from(at / sector.bytes());
        self.0.decrypt_area(data, sector.bytes() as usize, unit, |unit| unit.to_le_bytes().into());
    }
}

struct PlainCbc<C>(C);

impl<C> Plain for PlainCbc<C>
where
    C: BlockCipherEncrypt<BlockSize = aes::cipher::consts::U16>
        + aes::cipher::BlockCipherDecrypt<BlockSize = aes::cipher::consts::U16>,
{
    fn seal(&self, at: u64, sector: SectorSize, data: &mut [u8]) {
        for (i, data) in data.chunks_exact_mut(sector.bytes() as usize).enumerate() {
            let mut iv = Array(u128::from(at + i as u64 * sector.bytes()).to_le_bytes());
            self.0.encrypt_block(&mut iv);
            cbc::Encryptor::inner_iv_init(&self.0, &iv).encrypt_blocks(Array::slice_as_chunks_mut(data).0);
        }
    }

    fn open(&self, at: u64, sector: SectorSize, data: &mut [u8]) {
        for (i, data) in data.chunks_exact_mut(sector.bytes() as usize).enumerate() {
            let mut iv = Array(u128::from(at + i as u64 * sector.bytes()).to_le_bytes());
            self.0.encrypt_block(&mut iv);
            cbc::Decryptor::inner_iv_init(&self.0, &iv).decrypt_blocks(Array::slice_as_chunks_mut(data).0);
        }
    }
}

fn plain(cipher: Cipher, key: &[u8]) -> (&'static str, Box<dyn Plain>) {
    fn expand<C: KeyInit>(key: &[u8]) -> C {
        C::new_from_slice(key).expect("half a key fits")
    }
    match cipher {
        Cipher::AesCbc128 => ("cbc", Box::new(PlainCbc(expand::<Aes128>(key)))),
        Cipher::AesCbc256 => ("cbc", Box::new(PlainCbc(expand::<Aes256>(key)))),
        Cipher::XtsAes128 => {
            ("xts-mode", Box::new(PlainXts(xts_mode::Xts128::new(expand::<Aes128>(&key[..16]), expand(&key[16..])))))
        }
        _ => ("xts-mode", Box::new(PlainXts(xts_mode::Xts128::new(expand::<Aes256>(&key[..32]), expand(&key[32..]))))),
    }
}

const CIPHERS: [Cipher; 4] = [Cipher::XtsAes128, Cipher::XtsAes256, Cipher::AesCbc128, Cipher::AesCbc256];

fn ciphers(c: &mut Criterion) {
    let mut data = slots(1);
    for cipher in CIPHERS {
        let key = random(cipher.fvek_len(), 3);
        let (name, plain) = plain(cipher, &key);
        for sector in SECTORS {
            let ours = SectorCipher::new(cipher, &key, sector).expect("the length is right");
            let mut group = group(c, &format!("{cipher}/{} byte sectors", sector.bytes()), SLOT);
            group.bench_function(format!("{name} seal"), |b| b.iter(|| plain.seal(AT, sector, black_box(&mut data))));
            group.bench_function("ours seal", |b| b.iter(|| ours.seal(VolumeOffset(AT), black_box(&mut data))));
            group.bench_function(format!("{name} open"), |b| b.iter(|| plain.open(AT, sector, black_box(&mut data))));
            group.bench_function("ours open", |b| b.iter(|| ours.open(VolumeOffset(AT), black_box(&mut data))));
            if matches!(cipher, Cipher::AesCbc128 | Cipher::AesCbc256) {
                let narrow = SectorCipher::on(Unit::Crate, cipher, &key, sector).expect("the length is right");
                group.bench_function("ours by `aes` seal", |b| {
                    b.iter(|| narrow.seal(VolumeOffset(AT), black_box(&mut data)));
                });
                group.bench_function("ours by `aes` open", |b| {
                    b.iter(|| narrow.open(VolumeOffset(AT), black_box(&mut data)));
                });
                #[cfg(ipsec_mb)]
                for (name, is_sealing) in [("ipsec-mb seal", true), ("ipsec-mb open", false)] {
                    let peer = peers::IpsecMb::new(&key);
                    group.bench_function(name, |b| {
                        b.iter(|| peer.cbc(is_sealing, AT, sector.bytes() as usize, black_box(&mut data)));
                    });
                }
            }
            #[cfg(openssl)]
            for (name, is_sealing) in [("openssl seal", true), ("openssl open", false)] {
                let evp = match cipher {
                    Cipher::XtsAes128 => c"AES-128-XTS",
                    Cipher::XtsAes256 => c"AES-256-XTS",
                    Cipher::AesCbc128 => c"AES-128-CBC",
                    _ => c"AES-256-CBC",
                };
                group.bench_function(name, |b| {
                    b.iter(|| peers::openssl(evp, &key, is_sealing, AT, sector.bytes() as usize, black_box(&mut data)));
                });
            }
        }
    }
}

/// MD5 of each slot, CRC-64 of each slot, each slot sealed: a worker's processing of a drive's data.
fn one_pass(c: &mut Criterion) {
    for count in [8, 16] {
        let mut data = slots(count);
        for cipher in [Cipher::XtsAes128, Cipher::AesCbc256] {
            let sector = SectorSize::S512;
            let key = random(cipher.fvek_len(), 4);
            let (name, plain) = plain(cipher, &key);
            let ours = SectorCipher::new(cipher, &key, sector).expect("the length is right");
            let mut group = group(c, &format!("one pass/{cipher}, {count} slots"), count * SLOT);
            group.measurement_time(Duration::from_secs(4)).sample_size(10);
            group.bench_function(format!("md-5, crc-fast, {name}"), |b| {
                b.iter(|| {
                    for slot in data.chunks_mut(SLOT) {
                        black_box(md5::Md5::digest(&*slot));
                        black_box(crc_fast::crc64_nvme(slot));
                        plain.seal(AT, sector, slot);
                    }
                });
            });
            group.bench_function("three sweeps", |b| {
                b.iter(|| {
                    let mut digests = vec![[0; 16]; count];
                    hash::md5_many(&data.chunks(SLOT).collect::<Vec<_>>(), &mut digests);
                    black_box(digests);
                    for slot in data.chunks_mut(SLOT) {
                        black_box(hash::crc64(slot));
                        ours.seal(VolumeOffset(AT), slot);
                    }
                });
            });
            for piece in [8 << 10, 16 << 10, 32 << 10, 64 << 10] {
                group.bench_function(format!("pieces of {} KiB", piece >> 10), |b| {
                    b.iter(|| in_pieces(&mut data.chunks_mut(SLOT).collect::<Vec<_>>(), piece, &ours));
                });
            }
            let narrow = SectorCipher::on(Unit::Crate, cipher, &key, sector).expect("the length is right");
            group.bench_function("pieces of 32 KiB by `aes`", |b| {
                b.iter(|| in_pieces(&mut data.chunks_mut(SLOT).collect::<Vec<_>>(), 32 << 10, &narrow));
            });
        }
    }
}

criterion_group! {
    name = kernels;
    config = criterion::Criterion::default().with_measurement(CpuTime::Thread);
    targets = md5_blocks, md5_mixture, sha256_blocks, crc, ciphers, one_pass
}
criterion_main!(kernels);
