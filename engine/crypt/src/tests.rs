use aes::cipher::{BlockCipherEncrypt, BlockModeEncrypt, KeyInit, KeyIvInit};
use aes::{Aes128, Aes256};

use super::*;
use dray_base::entropy::{Entropy, Seeded};

fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

fn random(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Seeded::new(seed).fill(&mut bytes);
    bytes
}

/// Numbers of sectors around every width and batch of the kernels.
const RUNS: [usize; 22] = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 29, 30, 31, 63, 64, 65, 119, 120, 121, 300];
const SECTORS: [SectorSize; 2] = [SectorSize::S512, SectorSize::S4096];

/// Seals and opens runs of all lengths and compares with `plain`, which seals one sector at a byte offset.
fn compare(cipher: Cipher, fvek: &[u8], plain: impl Fn(SectorSize, u64, &mut [u8])) {
    for (sector, unit) in SECTORS.into_iter().flat_map(|sector| [(sector, Unit::Crate), (sector, Unit::Widest)]) {
        let size = sector.bytes() as usize;
        let ours = SectorCipher::on(unit, cipher, fvek, sector).unwrap();
        for run in RUNS {
            for at in [0, 0x21A_5000, (1 << 40) + 3 * 4096] {
                let data = random(run * size, run as u64);
                let mut sealed = data.clone();
                ours.seal(VolumeOffset(at), &mut sealed);
                let mut expected = data.clone();
                for (i, one) in expected.chunks_mut(size).enumerate() {
                    plain(sector, at + (i * size) as u64, one);
                }
                assert!(sealed == expected, "{cipher} on {unit:?}: sealing {run} sectors of {size} at {at}");
                ours.open(VolumeOffset(at), &mut sealed);
                assert!(sealed == data, "{cipher} on {unit:?}: opening {run} sectors of {size} at {at}");
            }
        }
    }
}

#[test]
fn judge_xts_mode_seals_the_same() {
    let key = random(64, 1);
    let small = xts_mode::Xts128::new(
        Aes128::new_from_slice(&key[..16]).unwrap(),
        Aes128::new_from_slice(&key[16..32]).unwrap(),
    );
    compare(Cipher::XtsAes128, &key[..32], |sector, at, data| {
        small.encrypt_sector(data, u128::from(at / sector.bytes()).to_le_bytes().into());
    });
    let large =
        xts_mode::Xts128::new(Aes256::new_from_slice(&key[..32]).unwrap(), Aes256::new_from_slice(&key[32..]).unwrap());
    compare(Cipher::XtsAes256, &key, |sector, at, data| {
        large.encrypt_sector(data, u128::from(at / sector.bytes()).to_le_bytes().into());
    });
}

fn cbc_sector<C: KeyInit + BlockCipherEncrypt<BlockSize = aes::cipher::consts::U16>>(
    key: &[u8],
    at: u64,
    data: &mut [u8],
) where
    ::cbc::Encryptor<C>: KeyIvInit + BlockModeEncrypt<BlockSize = aes::cipher::consts::U16>,
{
    let mut iv = Array(u128::from(at).to_le_bytes());
    C::new_from_slice(key).unwrap().encrypt_block(&mut iv);
    ::cbc::Encryptor::<C>::new_from_slices(key, &iv).unwrap().encrypt_blocks(Array::slice_as_chunks_mut(data).0);
}

#[test]
fn judge_cbc_seals_the_same() {
    let key = random(32, 2);
    compare(Cipher::AesCbc128, &key[..16], |_, at, data| cbc_sector::<Aes128>(&key[..16], at, data));
    compare(Cipher::AesCbc256, &key, |_, at, data| cbc_sector::<Aes256>(&key, at, data));
}

#[test]
fn judge_windows_sealed_these_sectors() {
    let Some(path) = dray_fixtures::file("bitlocker/vectors.json") else { return };
    let text = std::fs::read_to_string(path).unwrap();
    let vectors: serde_json::Value = serde_json::from_str(&text).unwrap();
    let sectors = vectors["sectors"].as_array().unwrap();
    let mut seen = Vec::new();
    for vector in sectors {
        let field = |name: &str| hex(vector[name].as_str().unwrap());
        let cipher = match vector["method"].as_str().unwrap() {
            "8000" => Cipher::AesCbcDiffuser128,
            "8001" => Cipher::AesCbcDiffuser256,
            "8002" => Cipher::AesCbc128,
            "8003" => Cipher::AesCbc256,
            "8004" => Cipher::XtsAes128,
            "8005" => Cipher::XtsAes256,
            other => panic!("method {other}"),
        };
        seen.push(cipher);
        let sector = SectorSize::from_bytes(vector["sector_size_dec"].as_u64().unwrap()).unwrap();
        let at = VolumeOffset(vector["byte_offset_dec"].as_u64().unwrap());
        for unit in [Unit::Crate, Unit::Widest] {
            let ours = SectorCipher::on(unit, cipher, &field("fvek_datum_key"), sector).unwrap();
            let mut data = field("plaintext");
            ours.seal(at, &mut data);
            assert_eq!(data, field("ciphertext"), "{cipher} on {unit:?} at {at}");
            ours.open(at, &mut data);
            assert_eq!(data, field("plaintext"), "{cipher} on {unit:?} at {at}");
        }
    }
    assert!(Cipher::ALL.iter().all(|cipher| seen.contains(cipher)), "a cipher has no vector: {seen:?}");
}

/// IEEE 1619-2018 annex B, the vectors whose data unit is a whole sector.
#[test]
fn judge_ieee_1619_vectors() {
    let counting: Vec<u8> = (0..512).map(|i| i as u8).collect();
    let key_128 = hex("2718281828459045235360287471352631415926535897932384626433832795");
    let key_256 = hex(concat!(
        "2718281828459045235360287471352662497757247093699959574966967627",
        "3141592653589793238462643383279502884197169399375105820974944592"
    ));
    // Vector 4 and vector 10: first and last 16 bytes of the ciphertext.
    for (cipher, key, unit, head, tail) in [
        (Cipher::XtsAes128, &key_128, 0, "27a7479befa1d476489f308cd4cfa6e2", "0a282df920147beabe421ee5319d0568"),
        (Cipher::XtsAes256, &key_256, 0xff, "1c3b3a102f770386e4836c99e370cf9b", "c4f36ffda9fcea70b9c6e693e148c151"),
    ] {
        let ours = SectorCipher::new(cipher, key, SectorSize::S512).unwrap();
        let mut data = counting.clone();
        ours.seal(VolumeOffset(unit * 512), &mut data);
        assert_eq!(data[..16], hex(head), "{cipher}");
        assert_eq!(data[496..], hex(tail), "{cipher}");
        ours.open(VolumeOffset(unit * 512), &mut data);
        assert_eq!(data, counting);
    }
}

#[test]
fn round_trip_diffuser_in_both_sector_sizes() {
    for cipher in [Cipher::AesCbcDiffuser128, Cipher::AesCbcDiffuser256] {
        for sector in SECTORS {
            let ours = SectorCipher::new(cipher, &random(64, 3), sector).unwrap();
            let data = random(5 * sector.bytes() as usize, 4);
            let mut sealed = data.clone();
            ours.seal(VolumeOffset(8192), &mut sealed);
            assert_ne!(sealed, data);
            ours.open(VolumeOffset(8192), &mut sealed);
            assert_eq!(sealed, data);
        }
    }
}

#[test]
fn names_and_lengths_agree() {
    for cipher in Cipher::ALL {
        assert_eq!(Cipher::from_name(&cipher.name().to_uppercase()), Some(cipher));
        for len in [0, cipher.fvek_len() - 1, cipher.fvek_len() + 1] {
            let error = SectorCipher::new(cipher, &vec![0; len], SectorSize::S512).unwrap_err();
            assert_eq!(error, KeyError::Length { cipher, found: len });
        }
    }
    assert_eq!(Cipher::from_name("aes"), None);
}

#[test]
fn debug_tells_no_key() {
    let ours = SectorCipher::new(Cipher::AesCbc128, &[0xAB; 16], SectorSize::S512).unwrap();
    assert_eq!(format!("{ours:?}"), "SectorCipher { cipher: AesCbc128, sector: S512, key: <secret> }");
}

#[test]
#[should_panic(expected = "not whole sectors")]
fn part_of_a_sector_is_refused() {
    SectorCipher::new(Cipher::AesCbc128, &[0; 16], SectorSize::S512).unwrap().seal(VolumeOffset(0), &mut [0; 511]);
}
