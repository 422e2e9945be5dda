use ::md5::Digest;

use super::*;
use dray_base::entropy::{Entropy, Seeded};

fn random(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Seeded::new(seed).fill(&mut bytes);
    bytes
}

/// Back ends of this machine; those of other architectures are not missed.
fn available() -> impl Iterator<Item = Backend> {
    let is_arm = |backend: &Backend| matches!(backend, Backend::Neon | Backend::NeonTwice);
    let ours = move |backend: &Backend| match backend {
        Backend::Portable => true,
        backend => is_arm(backend) == cfg!(target_arch = "aarch64"),
    };
    Backend::ALL.into_iter().filter(ours).filter(|backend| {
        if !backend.is_available() {
            eprintln!("SKIPPED judge: this machine has no {backend:?}");
        }
        backend.is_available()
    })
}

/// The same for SHA-256.
fn available_sha256() -> impl Iterator<Item = Sha256Backend> {
    let ours = |backend: &Sha256Backend| *backend == Sha256Backend::Portable || cfg!(target_arch = "x86_64");
    Sha256Backend::ALL.into_iter().filter(ours).filter(|backend| {
        if !backend.is_available() {
            eprintln!("SKIPPED judge: this machine has no {backend:?} for SHA-256");
        }
        backend.is_available()
    })
}

/// Hashes `messages` with every back end and compares with `md-5` and `sha2`.
fn compare(messages: &[&[u8]]) {
    compare_md5(messages);
    compare_sha256(messages);
}

fn compare_sha256(messages: &[&[u8]]) {
    let expected: Vec<[u8; 32]> = messages.iter().map(|message| sha2::Sha256::digest(message).into()).collect();
    for backend in available_sha256() {
        let mut out = vec![[0; 32]; messages.len()];
        sha256_many_with(backend, messages, &mut out);
        for (i, message) in messages.iter().enumerate() {
            assert_eq!(out[i], expected[i], "{backend:?}: message {i} of {} bytes", message.len());
        }
    }
    let mut out = vec![[0; 32]; messages.len()];
    sha256_many(messages, &mut out);
    assert_eq!(out, expected);
}

fn compare_md5(messages: &[&[u8]]) {
    let expected: Vec<[u8; 16]> = messages.iter().map(|message| ::md5::Md5::digest(message).into()).collect();
    for backend in available() {
        let mut out = vec![[0; 16]; messages.len()];
        md5_many_with(backend, messages, &mut out);
        for (i, message) in messages.iter().enumerate() {
            assert_eq!(out[i], expected[i], "{backend:?}: message {i} of {} bytes", message.len());
        }
    }
    let mut out = vec![[0; 16]; messages.len()];
    md5_many(messages, &mut out);
    assert_eq!(out, expected);
}

#[test]
fn judge_md5_and_sha256_agree_at_every_boundary() {
    const MIB_4: usize = 4 << 20;
    let data = random(MIB_4 + 1, 1);
    let lens = [0, 1, 55, 56, 57, 63, 64, 65, 119, 120, 127, 128, 129, MIB_4 - 1, MIB_4, MIB_4 + 1];
    for len in lens {
        compare(&[&data[..len]]);
    }
    compare(&lens.map(|len| &data[..len]));
    compare(&[]);
    for len in 0..260 {
        compare(&[&data[..len], &data[1..=len], &data[7..7 + len / 2]]);
    }
    // Every number of lanes in use.
    for count in 1..=17 {
        let messages: Vec<&[u8]> = (0..count).map(|i| &data[i * 1000..][..640 + i]).collect();
        compare(&messages);
    }
}

#[test]
fn judge_md5_and_sha256_agree_on_mixtures() {
    let data = random(1 << 20, 2);
    let mut random = Seeded::new(3);
    let mut below = |max: usize| (random.next_u64() % max as u64) as usize;
    for count in (0..40).chain([64, 100, 1000]) {
        let messages: Vec<&[u8]> = (0..count)
            .map(|_| {
                let max = [2, 70, 300, 9000, 1 << 17][below(5)];
                let len = below(max);
                let start = below(data.len() - len);
                &data[start..start + len]
            })
            .collect();
        compare(&messages);
    }
}

/// Streams that grow together, by pieces of any length.
fn chains_agree<A: Algorithm, J: Digest + Clone>(backend: A::Backend) {
    let data = random(1 << 20, 4);
    let mut random = Seeded::new(5);
    let mut below = |max: usize| (random.next_u64() % max as u64) as usize;
    let mut chains: Vec<Chain<A>> = vec![Chain::new(); 37];
    let mut judges: Vec<J> = vec![J::new(); 37];
    for _ in 0..60 {
        let mut pieces: Vec<(&mut Chain<A>, &[u8])> = Vec::new();
        for (chain, judge) in chains.iter_mut().zip(&mut judges) {
            if below(4) == 0 {
                continue;
            }
            let max = [2, 64, 65, 130, 20_000][below(5)];
            let len = [below(max), 64, 0][below(3)];
            let start = below(data.len() - len);
            judge.update(&data[start..start + len]);
            pieces.push((chain, &data[start..start + len]));
        }
        advance_many_with(backend, &mut pieces);
    }
    for (chain, judge) in chains.into_iter().zip(judges) {
        assert_eq!(chain.finish().as_ref(), &judge.finalize()[..]);
    }
}

#[test]
fn judge_chains_agree_whatever_the_pieces() {
    for backend in available() {
        eprintln!("{backend:?}");
        chains_agree::<OfMd5, ::md5::Md5>(backend);
    }
    for backend in available_sha256() {
        eprintln!("{backend:?}");
        chains_agree::<OfSha256, sha2::Sha256>(backend);
    }
}

#[test]
fn judge_a_stream_alone_agrees_whatever_the_pieces() {
    let data = random(300_000, 7);
    let mut random = Seeded::new(8);
    for _ in 0..200 {
        let (mut md5, mut sha256, mut at) = (Md5::new(), Sha256::default(), 0);
        while at < data.len() {
            let max = [2, 64, 65, 130, 200_000][(random.next_u64() % 5) as usize];
            let len = ((random.next_u64() % max) as usize).min(data.len() - at);
            md5.update(&data[at..at + len]);
            sha256.update(&data[at..at + len]);
            at += len;
            if random.next_u64().is_multiple_of(100) {
                break;
            }
        }
        assert_eq!(md5.finish(), <[u8; 16]>::from(::md5::Md5::digest(&data[..at])), "{at} bytes");
        assert_eq!(sha256.value(), <[u8; 32]>::from(sha2::Sha256::digest(&data[..at])), "{at} bytes");
    }
}

/// FIPS 180-2, appendix B: one block, two blocks, and a million times "a"; and no bytes at all.
#[test]
fn judge_fips_180_sha256_vectors() {
    let million = vec![b'a'; 1_000_000];
    let suite: [(&[u8], &str); 4] = [
        (b"abc", "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD"),
        (
            b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248D6A61D20638B8E5C026930C3E6039A33CE45964FF2167F6ECEDD419DB06C1",
        ),
        (&million, "CDC76E5C9914FB9281A1C7E284D73E67F1809A48A497200E046D39CCC7112CD0"),
        (b"", "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855"),
    ];
    for backend in available_sha256() {
        // Twice and four times, so that all lanes have one.
        for times in [1, 2, 4] {
            let messages: Vec<&[u8]> = (0..times).flat_map(|_| suite.map(|(message, _)| message)).collect();
            let mut out = vec![[0; 32]; messages.len()];
            sha256_many_with(backend, &messages, &mut out);
            for (digest, (_, expected)) in out.iter().zip(suite.iter().cycle()) {
                assert_eq!(hex_upper(digest), *expected, "{backend:?}");
            }
        }
    }
}

/// RFC 1321 A.5.
#[test]
fn judge_rfc_1321_test_suite() {
    let suite: [(&[u8], &str); 4] = [
        (b"", "D41D8CD98F00B204E9800998ECF8427E"),
        (b"abc", "900150983CD24FB0D6963F7D28E17F72"),
        (b"abcdefghijklmnopqrstuvwxyz", "C3FCD3D76192E4007DFB496CCA67E13B"),
        (
            b"12345678901234567890123456789012345678901234567890123456789012345678901234567890",
            "57EDF4A22BE3C955AC49DA2E2107B67A",
        ),
    ];
    let mut out = [[0; 16]; 4];
    md5_many(&suite.map(|(message, _)| message), &mut out);
    for ((message, expected), digest) in suite.iter().zip(out) {
        assert_eq!(hex_upper(&digest), *expected);
        let mut alone = Md5::new();
        alone.update(&message[..message.len() / 2]);
        alone.update(&message[message.len() / 2..]);
        assert_eq!(alone.finish(), digest);
    }
}

/// The vector of Azure's SDKs, and pieces in any order.
#[test]
fn judge_azure_sdk_crc64_vector() {
    let wire = |crc: u64| base64(&crc.to_le_bytes());
    assert_eq!(wire(crc64(b"Hello Azure!")), "DtjZpL9/o8c=");
    assert_eq!(wire(crc64(b"")), "AAAAAAAAAAA=");
    let mut pieces = Crc64::new();
    pieces.update(b"Hello ");
    pieces.update(b"Azure!");
    assert_eq!(wire(pieces.value()), "DtjZpL9/o8c=");
    assert_eq!(pieces.len(), 12);
    assert_eq!(crc64_combine(crc64(b"Hello "), crc64(b"Azure!"), 6), crc64(b"Hello Azure!"));
    for len in [0, 1, 2, 3, 511, 65_537] {
        assert_eq!(crc64_zeros(len), crc64(&vec![0; len as usize]), "{len}");
    }
    let data = random(100_000, 6);
    for cut in [0, 1, 63, 64, 65, 4096, 99_999, 100_000] {
        let (a, b) = data.split_at(cut);
        assert_eq!(crc64_combine(crc64(a), crc64(b), b.len() as u64), crc64(&data));
    }
}

#[test]
fn judge_catalogue_check_values() {
    // The check values of the CRC catalogue, and FIPS 180-2 B.1.
    assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    assert_eq!(crc64(b"123456789"), 0xAE8B_1486_0A79_9888);
    assert_eq!(hex_upper(&sha256(b"abc")), "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD");
}

/// RFC 4648 section 10.
#[test]
fn judge_rfc_4648_base64() {
    for (bytes, text) in
        [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE=")]
    {
        assert_eq!(base64(bytes.as_bytes()), text);
    }
    assert_eq!(base64(&[0xFF, 0xEF, 0xBE]), "/+++");
}
