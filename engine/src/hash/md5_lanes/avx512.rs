//! AVX-512: sixteen lanes, or eight of AVX2 with its rotations and its three-way logic.

use std::arch::x86_64::*;

use super::x86::{Vector, compress};
use super::{Block, LANES_MAX, States};

/// The function of a round as a table of three bits, `b` the highest: what AVX-512's three-way logic takes.
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

// SAFETY of the intrinsics in both implementations: as in `x86`.

/// Eight lanes of AVX2 with the operations that AVX-512 adds for them.
#[derive(Clone, Copy)]
struct Half(__m256i);

impl Vector for Half {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn load(from: *const u32) -> Self {
        // SAFETY: see above.
        Self(unsafe { __m256i::load(from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u32) {
        // SAFETY: see above.
        unsafe { self.0.store(to) }
    }

    #[inline(always)]
    unsafe fn splat(value: u32) -> Self {
        // SAFETY: see above.
        Self(unsafe { __m256i::splat(value) })
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { self.0.add(other.0) })
    }

    #[inline(always)]
    unsafe fn and(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { self.0.and(other.0) })
    }

    #[inline(always)]
    unsafe fn or(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { self.0.or(other.0) })
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { self.0.xor(other.0) })
    }

    #[inline(always)]
    unsafe fn not_and(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { self.0.not_and(other.0) })
    }

    #[inline(always)]
    unsafe fn rotate<const LEFT: i32, const RIGHT: i32>(self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_rol_epi32::<LEFT>(self.0) })
    }

    #[inline(always)]
    unsafe fn words(from: &[*const Block]) -> [Self; 16] {
        // SAFETY: see above.
        unsafe { __m256i::words(from) }.map(Self)
    }

    #[inline(always)]
    unsafe fn mix<const ROUND: u8>(sum: Self, b: Self, c: Self, d: Self) -> Self {
        // SAFETY: see above.
        let mixed = unsafe {
            match ROUND {
                1 => _mm256_ternarylogic_epi32::<{ table(1) }>(b.0, c.0, d.0),
                2 => _mm256_ternarylogic_epi32::<{ table(2) }>(b.0, c.0, d.0),
                3 => _mm256_ternarylogic_epi32::<{ table(3) }>(b.0, c.0, d.0),
                _ => _mm256_ternarylogic_epi32::<{ table(4) }>(b.0, c.0, d.0),
            }
        };
        // SAFETY: see above.
        unsafe { sum.add(Self(mixed)) }
    }
}

impl Vector for __m512i {
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn load(from: *const u32) -> Self {
        // SAFETY: see above.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u32) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_si512(to.cast(), self) }
    }

    #[inline(always)]
    unsafe fn splat(value: u32) -> Self {
        // SAFETY: see above.
        unsafe { _mm512_set1_epi32(value.cast_signed()) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { _mm512_add_epi32(self, other) }
    }

    #[inline(always)]
    unsafe fn and(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { _mm512_and_si512(self, other) }
    }

    #[inline(always)]
    unsafe fn or(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { _mm512_or_si512(self, other) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { _mm512_xor_si512(self, other) }
    }

    #[inline(always)]
    unsafe fn not_and(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { _mm512_andnot_si512(self, other) }
    }

    #[inline(always)]
    unsafe fn rotate<const LEFT: i32, const RIGHT: i32>(self) -> Self {
        // SAFETY: see above.
        unsafe { _mm512_rol_epi32::<LEFT>(self) }
    }

    #[inline(always)]
    unsafe fn words(from: &[*const Block]) -> [Self; 16] {
        // SAFETY: see above; a block is one register.
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

    #[inline(always)]
    unsafe fn mix<const ROUND: u8>(sum: Self, b: Self, c: Self, d: Self) -> Self {
        // SAFETY: see above.
        let mixed = unsafe {
            match ROUND {
                1 => _mm512_ternarylogic_epi32::<{ table(1) }>(b, c, d),
                2 => _mm512_ternarylogic_epi32::<{ table(2) }>(b, c, d),
                3 => _mm512_ternarylogic_epi32::<{ table(3) }>(b, c, d),
                _ => _mm512_ternarylogic_epi32::<{ table(4) }>(b, c, d),
            }
        };
        // SAFETY: see above.
        unsafe { sum.add(mixed) }
    }
}

#[target_feature(enable = "avx2,avx512f,avx512vl")]
pub(super) unsafe fn avx512_half(states: &mut States, inputs: &[&[Block]; LANES_MAX], blocks: usize) {
    // SAFETY: AVX2 and AVX-512 by the attribute; the length of the inputs is the caller's promise.
    unsafe { compress::<Half, 1>(states, inputs, blocks) }
}

#[target_feature(enable = "avx512f")]
pub(super) unsafe fn avx512(states: &mut States, inputs: &[&[Block]; LANES_MAX], blocks: usize) {
    // SAFETY: AVX-512 by the attribute; the length of the inputs is the caller's promise.
    unsafe { compress::<__m512i, 1>(states, inputs, blocks) }
}
