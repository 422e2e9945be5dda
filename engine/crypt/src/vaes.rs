//! CBC in 512-bit registers: each AES instruction works on the blocks of four sectors.
//!
//! A chain is serial, so sealing keeps 32 chains going, four to a register. They stay in registers from line to line of
//! the sectors; the interface of the `aes` crate takes 64 blocks from memory and returns them there in every round of
//! the chain, at half the speed.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use zeroize::Zeroizing;

use super::blocks::Block;
use crate::units::SectorSize;

/// Bytes loaded and stored together: a register, and a line of the cache.
type Line = [u8; 64];
/// Lines of a 512-byte sector.
const LINES_512: usize = 512 / size_of::<Line>();
/// Lines of a 4096-byte sector.
const LINES_4096: usize = 4096 / size_of::<Line>();
/// Sectors, and blocks, of a register.
const LANES: usize = 4;
/// Round keys of AES-256; AES-128 uses the first 11.
const KEYS_MAX: usize = 15;

type RoundKeys = [[u8; 16]; KEYS_MAX];

/// The round keys of both directions, wiped on drop.
pub(super) struct RoundKeyPair {
    seal: Zeroizing<RoundKeys>,
    open: Zeroizing<RoundKeys>,
    is_long: bool,
}

impl RoundKeyPair {
    /// Expands a key of 16 or 32 bytes; `None` where the machine lacks the unit.
    pub(super) fn expand(key: &[u8]) -> Option<Self> {
        let has_unit = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("vaes");
        if !(has_unit && is_x86_feature_detected!("aes")) {
            return None;
        }
        let mut keys = Self { seal: Zeroizing::default(), open: Zeroizing::default(), is_long: key.len() == 32 };
        // SAFETY: the unit is there.
        unsafe {
            if keys.is_long {
                expand_256(key.try_into().ok()?, &mut keys.seal);
            } else {
                expand_128(key.try_into().ok()?, &mut keys.seal);
            }
            let used = if keys.is_long { KEYS_MAX } else { 11 };
            invert(&keys.seal[..used], &mut keys.open[..used]);
        }
        Some(keys)
    }

    /// Encrypts the first sectors of `data`, which is stored at byte `at`, and returns their number: all but up to three.
    pub(super) fn seal(&self, at: u64, sector: SectorSize, data: &mut [Block]) -> usize {
        // SAFETY: the unit is there, or `self` would not be.
        unsafe {
            match (self.is_long, sector) {
                (false, SectorSize::S512) => seal::<11, LINES_512>(&self.seal, at, data),
                (false, SectorSize::S4096) => seal::<11, LINES_4096>(&self.seal, at, data),
                (true, SectorSize::S512) => seal::<15, LINES_512>(&self.seal, at, data),
                (true, SectorSize::S4096) => seal::<15, LINES_4096>(&self.seal, at, data),
            }
        }
    }

    /// Decrypts `data`, which is stored at byte `at`.
    pub(super) fn open(&self, at: u64, sector: SectorSize, data: &mut [Block]) {
        // SAFETY: the unit is there, or `self` would not be.
        unsafe {
            match (self.is_long, sector) {
                (false, SectorSize::S512) => open::<11, LINES_512>(&self.seal, &self.open, at, data),
                (false, SectorSize::S4096) => open::<11, LINES_4096>(&self.seal, &self.open, at, data),
                (true, SectorSize::S512) => open::<15, LINES_512>(&self.seal, &self.open, at, data),
                (true, SectorSize::S4096) => open::<15, LINES_4096>(&self.seal, &self.open, at, data),
            }
        }
    }
}

/// Whole sectors of `data`, each as its lines.
fn sectors<const LINES: usize>(data: &mut [Block]) -> &mut [[Line; LINES]] {
    let bytes = aes::cipher::Array::slice_as_flattened_mut(data);
    bytes.as_chunks_mut().0.as_chunks_mut().0
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(from: &Line) -> __m512i {
    // SAFETY: a line is a register, and no alignment is required.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(of: __m512i, to: &mut Line) {
    // SAFETY: as in `load`.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), of) }
}

#[inline]
#[target_feature(enable = "sse2")]
fn load_block(from: &[u8; 16]) -> __m128i {
    // SAFETY: a block is a register, and no alignment is required.
    unsafe { _mm_loadu_si128(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "sse2")]
fn store_block(of: __m128i, to: &mut [u8; 16]) {
    // SAFETY: as in `load_block`.
    unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), of) }
}

/// Each round key in all lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast<const KEYS: usize>(keys: &RoundKeys) -> [__m512i; KEYS] {
    let mut wide = [_mm512_setzero_si512(); KEYS];
    for (wide, key) in wide.iter_mut().zip(keys) {
        *wide = _mm512_broadcast_i32x4(load_block(key));
    }
    wide
}

/// Lane `i` of row `j` to lane `j` of row `i`.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(rows: [__m512i; LANES]) -> [__m512i; LANES] {
    let low = _mm512_shuffle_i32x4::<0x44>(rows[0], rows[1]);
    let high = _mm512_shuffle_i32x4::<0xEE>(rows[0], rows[1]);
    let low_next = _mm512_shuffle_i32x4::<0x44>(rows[2], rows[3]);
    let high_next = _mm512_shuffle_i32x4::<0xEE>(rows[2], rows[3]);
    [
        _mm512_shuffle_i32x4::<0x88>(low, low_next),
        _mm512_shuffle_i32x4::<0xDD>(low, low_next),
        _mm512_shuffle_i32x4::<0x88>(high, high_next),
        _mm512_shuffle_i32x4::<0xDD>(high, high_next),
    ]
}

/// Initial vectors of the sectors from byte `at` on, `GROUPS` times four: their encrypted offsets.
#[inline]
#[target_feature(enable = "avx512f,vaes")]
fn vectors<const KEYS: usize, const LINES: usize, const GROUPS: usize>(
    keys: &[__m512i; KEYS],
    at: u64,
) -> [__m512i; GROUPS] {
    let sector = (LINES * size_of::<Line>()) as i64;
    let lanes = _mm512_set_epi64(0, 3 * sector, 0, 2 * sector, 0, sector, 0, 0);
    let mut vectors = [_mm512_setzero_si512(); GROUPS];
    for (group, vector) in vectors.iter_mut().enumerate() {
        let first = at.wrapping_add((group * LANES * LINES * size_of::<Line>()) as u64);
        let first = _mm512_maskz_set1_epi64(LOW_HALVES, first.cast_signed());
        *vector = _mm512_xor_si512(_mm512_add_epi64(first, lanes), keys[0]);
    }
    for key in &keys[1..KEYS - 1] {
        for vector in &mut vectors {
            *vector = _mm512_aesenc_epi128(*vector, *key);
        }
    }
    for vector in &mut vectors {
        *vector = _mm512_aesenclast_epi128(*vector, keys[KEYS - 1]);
    }
    vectors
}

/// The lower half of each lane.
const LOW_HALVES: __mmask8 = 0b0101_0101;

#[target_feature(enable = "avx512f,vaes")]
fn seal<const KEYS: usize, const LINES: usize>(keys: &RoundKeys, at: u64, data: &mut [Block]) -> usize {
    let keys = broadcast::<KEYS>(keys);
    let mut rest = sectors::<LINES>(data);
    let count = rest.len();
    let mut at = at;
    macro_rules! by {
        ($($groups:literal)*) => {$(
            while rest.len() >= $groups * LANES {
                let (now, later) = std::mem::take(&mut rest).split_at_mut($groups * LANES);
                seal_abreast::<KEYS, LINES, $groups>(&keys, at, now);
                at = at.wrapping_add(size_of_val(now) as u64);
                rest = later;
            }
        )*};
    }
    by!(8 4 2 1);
    count - rest.len()
}

/// A line of four sectors for each register: one row a block, one lane a sector.
type Rows<const GROUPS: usize> = [[__m512i; LANES]; GROUPS];

/// Encrypts sectors that fill `GROUPS` registers of chains.
///
/// Rows are made of the next line, and the last line of rows, between the rounds: a chain waits for its round, and the
/// other chains do not fill all that time. Made before and after, they took a third of the time.
#[inline]
#[target_feature(enable = "avx512f,vaes")]
fn seal_abreast<const KEYS: usize, const LINES: usize, const GROUPS: usize>(
    keys: &[__m512i; KEYS],
    at: u64,
    sectors: &mut [[Line; LINES]],
) {
    let sectors = sectors.as_chunks_mut::<LANES>().0;
    let mut chains = vectors::<KEYS, LINES, GROUPS>(keys, at);
    let mut buffers = [[[_mm512_setzero_si512(); LANES]; GROUPS]; 3];
    let [rows, next, last] = &mut buffers;
    let (mut rows, mut next, mut last): (&mut Rows<GROUPS>, &mut Rows<GROUPS>, &mut Rows<GROUPS>) = (rows, next, last);
    for (rows, sectors) in rows.iter_mut().zip(&*sectors) {
        *rows = gather(sectors, 0);
    }
    for line in 0..LINES {
        for row in 0..LANES {
            for (chain, rows) in chains.iter_mut().zip(&*rows) {
                *chain = _mm512_ternarylogic_epi32::<XOR_3>(*chain, rows[row], keys[0]);
            }
            // A row's share of the groups: two of eight.
            let (from, to) = (row * GROUPS / LANES, (row + 1) * GROUPS / LANES);
            for (round, key) in keys[1..KEYS - 1].iter().enumerate() {
                for chain in &mut chains {
                    *chain = _mm512_aesenc_epi128(*chain, *key);
                }
                let group = from + round / 4;
                if group < to && round % 4 == 1 && line + 1 < LINES {
                    next[group] = gather(&sectors[group], line + 1);
                }
                if group < to && round % 4 == 3 && line > 0 {
                    scatter(last[group], &mut sectors[group], line - 1);
                }
            }
            for (chain, rows) in chains.iter_mut().zip(&mut *rows) {
                *chain = _mm512_aesenclast_epi128(*chain, keys[KEYS - 1]);
                rows[row] = *chain;
            }
        }
        (last, rows, next) = (rows, next, last);
    }
    for (rows, sectors) in last.iter().zip(sectors) {
        scatter(*rows, sectors, LINES - 1);
    }
}

/// Rows of one line of four sectors.
#[inline]
#[target_feature(enable = "avx512f")]
fn gather<const LINES: usize>([a, b, c, d]: &[[Line; LINES]; LANES], line: usize) -> [__m512i; LANES] {
    transpose([load(&a[line]), load(&b[line]), load(&c[line]), load(&d[line])])
}

/// Reverses [`gather`].
#[inline]
#[target_feature(enable = "avx512f")]
fn scatter<const LINES: usize>(rows: [__m512i; LANES], sectors: &mut [[Line; LINES]; LANES], line: usize) {
    for (row, sector) in transpose(rows).into_iter().zip(sectors) {
        store(row, &mut sector[line]);
    }
}

/// Exclusive or of three operands, as a truth table.
const XOR_3: i32 = 0x96;

/// Lines decrypted together: a 512-byte sector.
const ABREAST: usize = 8;

/// `seal` encrypts the vectors.
#[target_feature(enable = "avx512f,vaes")]
fn open<const KEYS: usize, const LINES: usize>(seal: &RoundKeys, open: &RoundKeys, at: u64, data: &mut [Block]) {
    const { assert!(LINES.is_multiple_of(ABREAST)) };
    let (seal, open) = (broadcast::<KEYS>(seal), broadcast::<KEYS>(open));
    let mut at = at;
    for sectors in sectors::<LINES>(data).chunks_mut(ABREAST * LANES) {
        let vectors = vectors::<KEYS, LINES, ABREAST>(&seal, at);
        for (vectors, sectors) in vectors.into_iter().zip(sectors.chunks_mut(LANES)) {
            let mut line = [0; 64];
            store(vectors, &mut line);
            for (iv, sector) in line.as_chunks().0.iter().zip(sectors) {
                open_sector(&open, iv, sector);
            }
        }
        at = at.wrapping_add(size_of_val(sectors) as u64);
    }
}

#[inline]
#[target_feature(enable = "avx512f,vaes")]
fn open_sector<const KEYS: usize, const LINES: usize>(
    keys: &[__m512i; KEYS],
    iv: &[u8; 16],
    sector: &mut [Line; LINES],
) {
    let mut before = _mm512_broadcast_i32x4(load_block(iv));
    for lines in sector.as_chunks_mut::<ABREAST>().0 {
        let mut blocks = [_mm512_setzero_si512(); ABREAST];
        for (blocks, line) in blocks.iter_mut().zip(&*lines) {
            *blocks = _mm512_xor_si512(load(line), keys[0]);
        }
        for key in &keys[1..KEYS - 1] {
            for blocks in &mut blocks {
                *blocks = _mm512_aesdec_epi128(*blocks, *key);
            }
        }
        for (blocks, line) in blocks.iter().zip(lines) {
            let sealed = load(line);
            // The block before each: the last one of the line before, then three of this line.
            let chained = _mm512_alignr_epi64::<6>(sealed, before);
            store(_mm512_xor_si512(_mm512_aesdeclast_epi128(*blocks, keys[KEYS - 1]), chained), line);
            before = sealed;
        }
    }
}

/// The key with each word added to those behind it, and `mixed` to all (FIPS 197 5.2).
#[inline]
#[target_feature(enable = "sse2")]
fn carry(key: __m128i, mixed: __m128i) -> __m128i {
    let pairs = _mm_xor_si128(key, _mm_slli_si128::<4>(key));
    _mm_xor_si128(_mm_xor_si128(pairs, _mm_slli_si128::<8>(pairs)), mixed)
}

/// FIPS 197 5.2 for ten rounds.
#[target_feature(enable = "aes")]
fn expand_128(key: &[u8; 16], out: &mut RoundKeys) {
    let mut last = load_block(key);
    out[0] = *key;
    macro_rules! round {
        ($($number:literal $constant:literal)*) => {$(
            last = carry(last, _mm_shuffle_epi32::<0xFF>(_mm_aeskeygenassist_si128::<$constant>(last)));
            store_block(last, &mut out[$number]);
        )*};
    }
    round!(1 0x01 2 0x02 3 0x04 4 0x08 5 0x10 6 0x20 7 0x40 8 0x80 9 0x1B 10 0x36);
}

/// FIPS 197 5.2 for fourteen rounds, two keys a step.
#[target_feature(enable = "aes")]
fn expand_256(key: &[u8; 32], out: &mut RoundKeys) {
    out[..2].copy_from_slice(key.as_chunks().0);
    let (mut even, mut odd) = (load_block(&out[0]), load_block(&out[1]));
    macro_rules! step {
        ($($number:literal $constant:literal)*) => {$(
            even = carry(even, _mm_shuffle_epi32::<0xFF>(_mm_aeskeygenassist_si128::<$constant>(odd)));
            store_block(even, &mut out[$number]);
            odd = carry(odd, _mm_shuffle_epi32::<0xAA>(_mm_aeskeygenassist_si128::<0>(even)));
            // The last step has one key too many.
            if let Some(out) = out.get_mut($number + 1) {
                store_block(odd, out);
            }
        )*};
    }
    step!(2 0x01 4 0x02 6 0x04 8 0x08 10 0x10 12 0x20 14 0x40);
}

/// The keys of the equivalent inverse cipher (FIPS 197 5.3.5).
#[target_feature(enable = "aes")]
fn invert(keys: &[[u8; 16]], out: &mut [[u8; 16]]) {
    let last = keys.len() - 1;
    for (i, (key, out)) in keys.iter().rev().zip(out).enumerate() {
        if i == 0 || i == last {
            *out = *key;
        } else {
            store_block(_mm_aesimc_si128(load_block(key)), out);
        }
    }
}
