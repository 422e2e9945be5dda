//! AVX-512: sixteen lanes, or eight of AVX2, with rotations and three-way logic.

use std::arch::x86_64::*;

use super::vectors::{Logic, Vector, calls, compress};
use super::{Block, LANES_MAX, States};

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

/// [`Logic`] by operations of three operands, which AVX-512 offers for AVX2's registers too.
struct InOne;

macro_rules! in_one {
    ($register:ty, $logic:ident, $rotate:ident) => {
        impl Logic<$register> for InOne {
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

            #[inline(always)]
            unsafe fn rotate<const LEFT: i32, const RIGHT: i32>(of: $register) -> $register {
                // SAFETY: the vector unit is the caller's promise.
                unsafe { $rotate::<LEFT>(of) }
            }
        }
    };
}
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

#[target_feature(enable = "avx2,avx512f,avx512vl")]
pub(super) unsafe fn avx512_half(states: &mut States, inputs: &[&[Block]; LANES_MAX], blocks: usize) {
    // SAFETY: AVX2 and AVX-512 by the attribute; the length of the inputs is the caller's promise.
    unsafe { compress::<__m256i, InOne, 1>(states, inputs, blocks) }
}

#[target_feature(enable = "avx512f")]
pub(super) unsafe fn avx512(states: &mut States, inputs: &[&[Block]; LANES_MAX], blocks: usize) {
    // SAFETY: AVX-512 by the attribute; the length of the inputs is the caller's promise.
    unsafe { compress::<__m512i, InOne, 1>(states, inputs, blocks) }
}
