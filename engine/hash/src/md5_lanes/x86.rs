//! The vector units of x86-64 up to AVX2, and MD5 over any of them.

use std::arch::x86_64::*;

use super::{Block, K, LANES_MAX, States};

/// A register of 32-bit lanes.
///
/// All functions require the vector unit that the register belongs to. They are always inlined into a function compiled
/// for that unit.
pub(super) trait Vector: Copy {
    const LANES: usize;
    unsafe fn load(from: *const u32) -> Self;
    unsafe fn store(of: Self, to: *mut u32);
    unsafe fn splat(value: u32) -> Self;
    unsafe fn add(a: Self, b: Self) -> Self;
    /// Word `i` of the blocks at `from`, for all 16 `i`. `from` has `LANES` readable blocks.
    unsafe fn words(from: &[*const Block]) -> [Self; 16];
}

/// Operations of the steps other than sums, with the same requirement.
pub(super) trait Logic<V> {
    /// `sum` and the function of the round (RFC 1321 3.4: F, G, H, I) of the three newest words, added so that the part
    /// independent of the newest, `b`, comes first.
    unsafe fn mix<const ROUND: u8>(sum: V, b: V, c: V, d: V) -> V;
    /// Rotates left by `LEFT`; `RIGHT` is `32 - LEFT`.
    unsafe fn rotate<const LEFT: i32, const RIGHT: i32>(of: V) -> V;
}

/// Operations of every unit, for [`Logic`].
pub(super) trait Bits: Vector {
    unsafe fn and(a: Self, b: Self) -> Self;
    unsafe fn or(a: Self, b: Self) -> Self;
    unsafe fn xor(a: Self, b: Self) -> Self;
    /// `!a & b`
    unsafe fn not_and(a: Self, b: Self) -> Self;
    unsafe fn rotate<const LEFT: i32, const RIGHT: i32>(of: Self) -> Self;
}

/// [`Logic`] by operations of two operands.
pub(super) struct InPairs;

impl<V: Bits> Logic<V> for InPairs {
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

    #[inline(always)]
    unsafe fn rotate<const LEFT: i32, const RIGHT: i32>(of: V) -> V {
        // SAFETY: the vector unit is the caller's promise.
        unsafe { V::rotate::<LEFT, RIGHT>(of) }
    }
}

/// Functions of one intrinsic each.
macro_rules! calls {
    ($($name:ident($($from:ident: $type:ty),*) $(-> $to:ty)? = $call:expr;)*) => {$(
        #[inline(always)]
        unsafe fn $name($($from: $type),*) $(-> $to)? {
            // SAFETY: unit and pointers are guaranteed by the caller, and no access requires alignment.
            unsafe { $call }
        }
    )*};
}
pub(super) use calls;

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
    unsafe { compress::<__m128i, InPairs, 1>(states, inputs, blocks) }
}

#[target_feature(enable = "avx2")]
pub(super) unsafe fn avx2(states: &mut States, inputs: &[&[Block]; LANES_MAX], blocks: usize) {
    // SAFETY: AVX2 by the attribute; the length of the inputs is the caller's promise.
    unsafe { compress::<__m256i, InPairs, 1>(states, inputs, blocks) }
}

#[target_feature(enable = "avx2")]
pub(super) unsafe fn avx2_twice(states: &mut States, inputs: &[&[Block]; LANES_MAX], blocks: usize) {
    // SAFETY: AVX2 by the attribute; the length of the inputs is the caller's promise.
    unsafe { compress::<__m256i, InPairs, 2>(states, inputs, blocks) }
}

/// `GROUPS` registers of lanes in step.
///
/// # Safety
/// The vector unit of `V` and `L` is available, and each of the first `GROUPS * V::LANES` inputs has `blocks` blocks.
#[inline(always)]
pub(super) unsafe fn compress<V: Vector, L: Logic<V>, const GROUPS: usize>(
    states: &mut States,
    inputs: &[&[Block]; LANES_MAX],
    blocks: usize,
) {
    const { assert!(GROUPS * V::LANES <= LANES_MAX) };
    // SAFETY: lane numbers stay below LANES_MAX by the assertion above, block numbers below `blocks`.
    unsafe {
        // Loops rather than `from_fn`: a closure is a function of its own, compiled without the vector unit, and each
        // intrinsic in it becomes a call (half the speed, seen in a profile of the whole program).
        let mut s = [[V::splat(0); 4]; GROUPS];
        for (g, s) in s.iter_mut().enumerate() {
            for (s, state) in s.iter_mut().zip(states.iter()) {
                *s = V::load(state.as_ptr().add(g * V::LANES));
            }
        }
        let mut at: [*const Block; LANES_MAX] = inputs.map(<[Block]>::as_ptr);
        let mut w = [[V::splat(0); 16]; GROUPS];
        for _ in 0..blocks {
            for (g, w) in w.iter_mut().enumerate() {
                *w = V::words(&at[g * V::LANES..(g + 1) * V::LANES]);
            }
            for at in &mut at[..GROUPS * V::LANES] {
                *at = at.add(1);
            }
            let before = s;
            rounds::<V, L, GROUPS>(&mut s, &w);
            for (s, before) in s.iter_mut().zip(before) {
                for (s, before) in s.iter_mut().zip(before) {
                    *s = V::add(*s, before);
                }
            }
        }
        for (g, s) in s.into_iter().enumerate() {
            for (word, s) in s.into_iter().enumerate() {
                V::store(s, states[word].as_mut_ptr().add(g * V::LANES));
            }
        }
    }
}

/// The 64 steps of RFC 1321 3.4.
#[inline(always)]
unsafe fn rounds<V: Vector, L: Logic<V>, const GROUPS: usize>(s: &mut [[V; 4]; GROUPS], w: &[[V; 16]; GROUPS]) {
    // Four steps, after which the words have their old places again. `$k` words apart, from word `$w`.
    macro_rules! four {
        ($round:tt, $i:expr, $w:expr, $k:expr, $r0:literal, $r1:literal, $r2:literal, $r3:literal) => {
            step!($round, $i, ($w) % 16, 0, 1, 2, 3, $r0);
            step!($round, $i + 1, ($w + $k) % 16, 3, 0, 1, 2, $r1);
            step!($round, $i + 2, ($w + 2 * $k) % 16, 2, 3, 0, 1, $r2);
            step!($round, $i + 3, ($w + 3 * $k) % 16, 1, 2, 3, 0, $r3);
        };
    }
    macro_rules! step {
        ($round:tt, $i:expr, $w:expr, $a:literal, $b:literal, $c:literal, $d:literal, $r:literal) => {
            for (s, w) in s.iter_mut().zip(w) {
                let sum = V::add(V::add(s[$a], V::splat(K[$i])), w[$w]);
                let sum = L::mix::<$round>(sum, s[$b], s[$c], s[$d]);
                s[$a] = V::add(L::rotate::<$r, { 32 - $r }>(sum), s[$b]);
            }
        };
    }
    macro_rules! round {
        ($round:tt, $i:expr, $w:expr, $k:expr, $r0:literal, $r1:literal, $r2:literal, $r3:literal) => {
            four!($round, $i, $w, $k, $r0, $r1, $r2, $r3);
            four!($round, $i + 4, $w + 4 * $k, $k, $r0, $r1, $r2, $r3);
            four!($round, $i + 8, $w + 8 * $k, $k, $r0, $r1, $r2, $r3);
            four!($round, $i + 12, $w + 12 * $k, $k, $r0, $r1, $r2, $r3);
        };
    }
    // SAFETY: the vector unit is the caller's promise.
    unsafe {
        round!(1, 0, 0, 1, 7, 12, 17, 22);
        round!(2, 16, 1, 5, 5, 9, 14, 20);
        round!(3, 32, 5, 3, 4, 11, 16, 23);
        round!(4, 48, 0, 7, 6, 10, 15, 21);
    }
}
