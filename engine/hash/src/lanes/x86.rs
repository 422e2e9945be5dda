//! The vector units of x86-64 up to AVX2.

use std::arch::x86_64::*;

use super::md5::{self, States};
use super::vectors::{Rotate, Vector, calls};
use super::{Block, LANES_MAX, sha256};

/// Operations of both units, for [`Logic`].
trait Bits: Vector {
    unsafe fn and(a: Self, b: Self) -> Self;
    unsafe fn or(a: Self, b: Self) -> Self;
    unsafe fn xor(a: Self, b: Self) -> Self;
    /// `!a & b`
    unsafe fn not_and(a: Self, b: Self) -> Self;
    unsafe fn rotate<const LEFT: i32, const RIGHT: i32>(of: Self) -> Self;
}

/// [`Logic`] by operations of two operands.
struct InPairs;

impl<V: Bits> md5::Logic<V> for InPairs {
    #[inline(always)]
    unsafe fn mix<const ROUND: u8>(sum: V, b: V, c: V, d: V) -> V {
        // SAFETY: the vector unit is the caller's promise.
        unsafe {
            match ROUND {
                1 => V::add(sum, V::xor(d, V::and(b, V::xor(c, d)))),
                // The two halves share no bit, so plus is or.
                2 => V::add(V::add(sum, V::not_and(d, c)), V::and(b, d)),
                3 => V::add(sum, V::xor(b, V::xor(c, d))),
                _ => V::add(sum, V::xor(c, V::or(b, V::xor(d, V::splat(!0))))),
            }
        }
    }
}

impl<V: Bits> Rotate<V> for InPairs {
    #[inline(always)]
    unsafe fn rotate<const LEFT: i32, const RIGHT: i32>(of: V) -> V {
        // SAFETY: the vector unit is the caller's promise.
        unsafe { V::rotate::<LEFT, RIGHT>(of) }
    }
}

impl sha256::Logic<__m256i> for InPairs {
    calls! {
        xor3(a: __m256i, b: __m256i, c: __m256i) -> __m256i = Bits::xor(a, Bits::xor(b, c));
        choose(e: __m256i, f: __m256i, g: __m256i) -> __m256i = Bits::xor(g, Bits::and(e, Bits::xor(f, g)));
        // Of two that differ, the third decides.
        majority(a: __m256i, b: __m256i, c: __m256i) -> __m256i = Bits::or(Bits::and(a, b), Bits::and(c, Bits::or(a, b)));
    }
}

impl Vector for __m128i {
    const LANES: usize = 4;

    calls! {
        load(from: *const u32) -> Self = _mm_loadu_si128(from.cast());
        store(of: Self, to: *mut u32) = _mm_storeu_si128(to.cast(), of);
        splat(value: u32) -> Self = _mm_set1_epi32(value.cast_signed());
        add(a: Self, b: Self) -> Self = _mm_add_epi32(a, b);
    }

    #[inline(always)]
    unsafe fn words(from: &[*const Block]) -> [Self; 16] {
        // SAFETY: as in `calls`; a block has four quarters of four words.
        unsafe {
            let mut words = [_mm_setzero_si128(); 16];
            for quarter in 0..4 {
                let r0 = Self::load(from[0].cast::<u32>().add(4 * quarter));
                let r1 = Self::load(from[1].cast::<u32>().add(4 * quarter));
                let r2 = Self::load(from[2].cast::<u32>().add(4 * quarter));
                let r3 = Self::load(from[3].cast::<u32>().add(4 * quarter));
                let (a, b) = (_mm_unpacklo_epi32(r0, r1), _mm_unpackhi_epi32(r0, r1));
                let (c, d) = (_mm_unpacklo_epi32(r2, r3), _mm_unpackhi_epi32(r2, r3));
                words[4 * quarter] = _mm_unpacklo_epi64(a, c);
                words[4 * quarter + 1] = _mm_unpackhi_epi64(a, c);
                words[4 * quarter + 2] = _mm_unpacklo_epi64(b, d);
                words[4 * quarter + 3] = _mm_unpackhi_epi64(b, d);
            }
            words
        }
    }
}

impl Bits for __m128i {
    calls! {
        and(a: Self, b: Self) -> Self = _mm_and_si128(a, b);
        or(a: Self, b: Self) -> Self = _mm_or_si128(a, b);
        xor(a: Self, b: Self) -> Self = _mm_xor_si128(a, b);
        not_and(a: Self, b: Self) -> Self = _mm_andnot_si128(a, b);
    }

    #[inline(always)]
    unsafe fn rotate<const LEFT: i32, const RIGHT: i32>(of: Self) -> Self {
        // SAFETY: as in `calls`.
        unsafe { _mm_or_si128(_mm_slli_epi32::<LEFT>(of), _mm_srli_epi32::<RIGHT>(of)) }
    }
}

impl Vector for __m256i {
    const LANES: usize = 8;

    calls! {
        load(from: *const u32) -> Self = _mm256_loadu_si256(from.cast());
        store(of: Self, to: *mut u32) = _mm256_storeu_si256(to.cast(), of);
        splat(value: u32) -> Self = _mm256_set1_epi32(value.cast_signed());
        add(a: Self, b: Self) -> Self = _mm256_add_epi32(a, b);
    }

    #[inline(always)]
    unsafe fn words(from: &[*const Block]) -> [Self; 16] {
        // SAFETY: as in `calls`; a block has two halves of eight words.
        unsafe {
            let mut words = [_mm256_setzero_si256(); 16];
            for half in 0..2 {
                let mut r = [_mm256_setzero_si256(); 8];
                for (r, from) in r.iter_mut().zip(from) {
                    *r = Self::load(from.cast::<u32>().add(8 * half));
                }
                // Pairs of rows, then fours, then the halves of the registers.
                let p = (_mm256_unpacklo_epi32(r[0], r[1]), _mm256_unpackhi_epi32(r[0], r[1]));
                let q = (_mm256_unpacklo_epi32(r[2], r[3]), _mm256_unpackhi_epi32(r[2], r[3]));
                let s = (_mm256_unpacklo_epi32(r[4], r[5]), _mm256_unpackhi_epi32(r[4], r[5]));
                let t = (_mm256_unpacklo_epi32(r[6], r[7]), _mm256_unpackhi_epi32(r[6], r[7]));
                let front = [
                    _mm256_unpacklo_epi64(p.0, q.0),
                    _mm256_unpackhi_epi64(p.0, q.0),
                    _mm256_unpacklo_epi64(p.1, q.1),
                    _mm256_unpackhi_epi64(p.1, q.1),
                ];
                let back = [
                    _mm256_unpacklo_epi64(s.0, t.0),
                    _mm256_unpackhi_epi64(s.0, t.0),
                    _mm256_unpacklo_epi64(s.1, t.1),
                    _mm256_unpackhi_epi64(s.1, t.1),
                ];
                for i in 0..4 {
                    words[8 * half + i] = _mm256_permute2x128_si256::<0x20>(front[i], back[i]);
                    words[8 * half + 4 + i] = _mm256_permute2x128_si256::<0x31>(front[i], back[i]);
                }
            }
            words
        }
    }
}

impl sha256::Words for __m256i {
    calls! {
        shift_3(of: Self) -> Self = _mm256_srli_epi32::<3>(of);
        shift_10(of: Self) -> Self = _mm256_srli_epi32::<10>(of);
        swap_bytes(of: Self) -> Self = _mm256_shuffle_epi8(
            of,
            _mm256_broadcastsi128_si256(_mm_set_epi64x(0x0C0D_0E0F_0809_0A0B, 0x0405_0607_0001_0203))
        );
    }
}

impl Bits for __m256i {
    calls! {
        and(a: Self, b: Self) -> Self = _mm256_and_si256(a, b);
        or(a: Self, b: Self) -> Self = _mm256_or_si256(a, b);
        xor(a: Self, b: Self) -> Self = _mm256_xor_si256(a, b);
        not_and(a: Self, b: Self) -> Self = _mm256_andnot_si256(a, b);
    }

    #[inline(always)]
    unsafe fn rotate<const LEFT: i32, const RIGHT: i32>(of: Self) -> Self {
        // SAFETY: as in `calls`.
        unsafe {
            if LEFT == 16 {
                // Half-words change places: one operation in place of three.
                let swap = _mm256_set1_epi64x(0x0504_0706_0100_0302);
                let high = _mm256_set_epi64x(0x0808_0808_0808_0808, 0, 0x0808_0808_0808_0808, 0);
                _mm256_shuffle_epi8(of, _mm256_add_epi8(swap, high))
            } else {
                _mm256_or_si256(_mm256_slli_epi32::<LEFT>(of), _mm256_srli_epi32::<RIGHT>(of))
            }
        }
    }
}

#[target_feature(enable = "sse2")]
pub(super) unsafe fn sse2(states: &mut States, inputs: &[&[Block]; LANES_MAX], blocks: usize) {
    // SAFETY: SSE2 by the attribute; the length of the inputs is the caller's promise.
    unsafe { md5::compress::<__m128i, InPairs, 1>(states, inputs, blocks) }
}

#[target_feature(enable = "avx2")]
pub(super) unsafe fn avx2(states: &mut States, inputs: &[&[Block]; LANES_MAX], blocks: usize) {
    // SAFETY: AVX2 by the attribute; the length of the inputs is the caller's promise.
    unsafe { md5::compress::<__m256i, InPairs, 1>(states, inputs, blocks) }
}

#[target_feature(enable = "avx2")]
pub(super) unsafe fn avx2_twice(states: &mut States, inputs: &[&[Block]; LANES_MAX], blocks: usize) {
    // SAFETY: AVX2 by the attribute; the length of the inputs is the caller's promise.
    unsafe { md5::compress::<__m256i, InPairs, 2>(states, inputs, blocks) }
}

#[target_feature(enable = "avx2")]
pub(super) unsafe fn avx2_sha256(states: &mut sha256::States, inputs: &[&[Block]; LANES_MAX], blocks: usize) {
    // SAFETY: AVX2 by the attribute; the length of the inputs is the caller's promise.
    unsafe { sha256::compress::<__m256i, InPairs>(states, inputs, blocks) }
}
