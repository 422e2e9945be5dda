//! AVX-512: sixteen lanes, or eight or four in narrower registers, with rotations and three-way logic.

use std::arch::x86_64::*;

use super::md5::{self, States};
use super::vectors::{Rotate, Vector, calls};
use super::{Block, LANES_MAX, sha256};

/// The function of a round as a truth table of three bits, `b` the highest: the operand of AVX-512's three-way logic.
const fn table(round: u8) -> i32 {
    const B: i32 = 0xF0;
    const C: i32 = 0xCC;
    const D: i32 = 0xAA;
    (match round {
        1 => B & C | !B & D,
        2 => B & D | C & !D,
        3 => B ^ C ^ D,
        _ => C ^ (B | !D),
    }) & 0xFF
}

/// The functions of both hashes by operations of three operands, which AVX-512 offers for narrower registers too.
struct InOne;

macro_rules! in_one {
    ($register:ty, $logic:ident, $rotate:ident) => {
        impl md5::Logic<$register> for InOne {
            #[inline(always)]
            unsafe fn mix<const ROUND: u8>(sum: $register, b: $register, c: $register, d: $register) -> $register {
                // SAFETY: the vector unit is the caller's promise.
                unsafe {
                    let mixed = match ROUND {
                        1 => $logic::<{ table(1) }>(b, c, d),
                        2 => $logic::<{ table(2) }>(b, c, d),
                        3 => $logic::<{ table(3) }>(b, c, d),
                        _ => $logic::<{ table(4) }>(b, c, d),
                    };
                    <$register>::add(sum, mixed)
                }
            }
        }

        impl Rotate<$register> for InOne {
            #[inline(always)]
            unsafe fn rotate<const LEFT: i32, const RIGHT: i32>(of: $register) -> $register {
                // SAFETY: the vector unit is the caller's promise.
                unsafe { $rotate::<LEFT>(of) }
            }
        }

        impl sha256::Logic<$register> for InOne {
            calls! {
                xor3(a: $register, b: $register, c: $register) -> $register = $logic::<0x96>(a, b, c);
                choose(e: $register, f: $register, g: $register) -> $register = $logic::<0xCA>(e, f, g);
                majority(a: $register, b: $register, c: $register) -> $register = $logic::<0xE8>(a, b, c);
            }
        }
    };
}
in_one!(__m128i, _mm_ternarylogic_epi32, _mm_rol_epi32);
in_one!(__m256i, _mm256_ternarylogic_epi32, _mm256_rol_epi32);
in_one!(__m512i, _mm512_ternarylogic_epi32, _mm512_rol_epi32);

impl Vector for __m512i {
    const LANES: usize = 16;

    calls! {
        load(from: *const u32) -> Self = _mm512_loadu_si512(from.cast());
        store(of: Self, to: *mut u32) = _mm512_storeu_si512(to.cast(), of);
        splat(value: u32) -> Self = _mm512_set1_epi32(value.cast_signed());
        add(a: Self, b: Self) -> Self = _mm512_add_epi32(a, b);
    }

    #[inline(always)]
    unsafe fn words(from: &[*const Block]) -> [Self; 16] {
        // SAFETY: as in `calls`; a block is one register.
        unsafe {
            let mut r = [_mm512_setzero_si512(); 16];
            for (r, from) in r.iter_mut().zip(from) {
                *r = Self::load(from.cast());
            }
            // Pairs of rows, then fours: now each quarter of a register is one word of four rows.
            let mut fours = [[_mm512_setzero_si512(); 4]; 4];
            for (i, fours) in fours.iter_mut().enumerate() {
                let (a, b) =
                    (_mm512_unpacklo_epi32(r[4 * i], r[4 * i + 1]), _mm512_unpackhi_epi32(r[4 * i], r[4 * i + 1]));
                let (c, d) = (
                    _mm512_unpacklo_epi32(r[4 * i + 2], r[4 * i + 3]),
                    _mm512_unpackhi_epi32(r[4 * i + 2], r[4 * i + 3]),
                );
                *fours = [
                    _mm512_unpacklo_epi64(a, c),
                    _mm512_unpackhi_epi64(a, c),
                    _mm512_unpacklo_epi64(b, d),
                    _mm512_unpackhi_epi64(b, d),
                ];
            }
            // Then quarters change places.
            let mut words = [_mm512_setzero_si512(); 16];
            for i in 0..4 {
                let low = _mm512_shuffle_i32x4::<0x88>(fours[0][i], fours[1][i]);
                let low_odd = _mm512_shuffle_i32x4::<0xDD>(fours[0][i], fours[1][i]);
                let high = _mm512_shuffle_i32x4::<0x88>(fours[2][i], fours[3][i]);
                let high_odd = _mm512_shuffle_i32x4::<0xDD>(fours[2][i], fours[3][i]);
                words[i] = _mm512_shuffle_i32x4::<0x88>(low, high);
                words[8 + i] = _mm512_shuffle_i32x4::<0xDD>(low, high);
                words[4 + i] = _mm512_shuffle_i32x4::<0x88>(low_odd, high_odd);
                words[12 + i] = _mm512_shuffle_i32x4::<0xDD>(low_odd, high_odd);
            }
            words
        }
    }
}

impl sha256::Words for __m512i {
    calls! {
        shift_3(of: Self) -> Self = _mm512_srli_epi32::<3>(of);
        shift_10(of: Self) -> Self = _mm512_srli_epi32::<10>(of);
        swap_bytes(of: Self) -> Self = _mm512_shuffle_epi8(
            of,
            _mm512_set4_epi32(0x0C0D_0E0F, 0x0809_0A0B, 0x0405_0607, 0x0001_0203)
        );
    }
}

#[target_feature(enable = "avx2,avx512f,avx512vl")]
pub(super) unsafe fn avx512_quarter(states: &mut States, inputs: &[&[Block]; LANES_MAX], blocks: usize) {
    // SAFETY: AVX-512 by the attribute; the length of the inputs is the caller's promise.
    unsafe { md5::compress::<__m128i, InOne, 1>(states, inputs, blocks) }
}

#[target_feature(enable = "avx2,avx512f,avx512vl")]
pub(super) unsafe fn avx512_half(states: &mut States, inputs: &[&[Block]; LANES_MAX], blocks: usize) {
    // SAFETY: AVX2 and AVX-512 by the attribute; the length of the inputs is the caller's promise.
    unsafe { md5::compress::<__m256i, InOne, 1>(states, inputs, blocks) }
}

#[target_feature(enable = "avx512f")]
pub(super) unsafe fn avx512(states: &mut States, inputs: &[&[Block]; LANES_MAX], blocks: usize) {
    // SAFETY: AVX-512 by the attribute; the length of the inputs is the caller's promise.
    unsafe { md5::compress::<__m512i, InOne, 1>(states, inputs, blocks) }
}

#[target_feature(enable = "avx2,avx512f,avx512vl")]
pub(super) unsafe fn avx512_half_sha256(states: &mut sha256::States, inputs: &[&[Block]; LANES_MAX], blocks: usize) {
    // SAFETY: AVX2 and AVX-512 by the attribute; the length of the inputs is the caller's promise.
    unsafe { sha256::compress::<__m256i, InOne>(states, inputs, blocks) }
}

#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn avx512_sha256(states: &mut sha256::States, inputs: &[&[Block]; LANES_MAX], blocks: usize) {
    // SAFETY: AVX-512 by the attribute; the length of the inputs is the caller's promise.
    unsafe { sha256::compress::<__m512i, InOne>(states, inputs, blocks) }
}
