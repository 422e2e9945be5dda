//! MD5 of up to sixteen independent messages at once, a message to a lane of the vector unit.
//!
//! A step of MD5 needs the result of the step before it, so one message cannot be made faster; eight fill an AVX2
//! register, and a second group of eight runs in the shadow of the first one's latencies.
#![allow(unsafe_code)]

/// A block of MD5.
pub(super) type Block = [u8; 64];
/// Lanes of the widest back end.
pub(super) const LANES_MAX: usize = 16;
/// MD5 states, word by word: `states[word][lane]`.
pub(super) type States = [[u32; LANES_MAX]; 4];

/// Which vector unit hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// One message after the other, by the `md-5` crate.
    Portable,
    /// Four lanes (x86-64, always there).
    Sse2,
    /// Eight lanes.
    Avx2,
    /// Eight lanes twice, interleaved.
    Avx2Twice,
}

impl Backend {
    /// From the slowest to the fastest.
    pub const ALL: [Self; 4] = [Self::Portable, Self::Sse2, Self::Avx2, Self::Avx2Twice];

    /// The fastest that this machine has.
    pub fn detect() -> Self {
        Self::ALL.into_iter().rev().find(|backend| backend.is_available()).unwrap_or(Self::Portable)
    }

    /// Whether this machine has it.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return match self {
            Self::Portable => true,
            Self::Sse2 => is_x86_feature_detected!("sse2"),
            Self::Avx2 | Self::Avx2Twice => is_x86_feature_detected!("avx2"),
        };
        #[cfg(not(target_arch = "x86_64"))]
        return self == Self::Portable;
    }

    /// Messages hashed at once.
    pub const fn lanes(self) -> usize {
        match self {
            Self::Portable => 1,
            Self::Sse2 => 4,
            Self::Avx2 => 8,
            Self::Avx2Twice => 16,
        }
    }

    /// The cheapest back end of the same family for `active` messages.
    pub(super) const fn for_active(self, active: usize) -> Self {
        match (self, active) {
            (_, 0 | 1) => Self::Portable,
            (Self::Avx2Twice, 2..=8) => Self::Avx2,
            _ => self,
        }
    }

    /// Takes the first `blocks` blocks of each of the first [`lanes`](Self::lanes) inputs into its state.
    ///
    /// # Panics
    /// When the machine lacks the back end or an input is shorter.
    pub(super) fn compress(self, states: &mut States, inputs: &[&[Block]; LANES_MAX], blocks: usize) {
        assert!(self.is_available(), "{self:?} is not available");
        let inputs_used = &inputs[..self.lanes()];
        assert!(inputs_used.iter().all(|input| input.len() >= blocks), "an input is shorter than {blocks} blocks");
        match self {
            Self::Portable => {
                let mut state = states.map(|word| word[0]);
                md5::block_api::compress(&mut state, &inputs[0][..blocks]);
                for (word, value) in states.iter_mut().zip(state) {
                    word[0] = value;
                }
            }
            // SAFETY: the back end is available and the inputs used are long enough, both checked above.
            #[cfg(target_arch = "x86_64")]
            Self::Sse2 => unsafe { x86::sse2(states, inputs, blocks) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { x86::avx2(states, inputs, blocks) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2Twice => unsafe { x86::avx2_twice(states, inputs, blocks) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => unreachable!("checked above"),
        }
    }
}

/// RFC 1321 3.4: 2^32 times |sin(i + 1)|, rounded down.
#[rustfmt::skip]
const K: [u32; 64] = [
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
    0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
    0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
    0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
    0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391,
];

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Block, K, LANES_MAX, States};

    /// A register of 32-bit lanes.
    ///
    /// All functions want the vector unit that the register belongs to. They are always inlined into a function
    /// compiled for that unit.
    trait Vector: Copy {
        const LANES: usize;
        unsafe fn load(from: *const u32) -> Self;
        unsafe fn store(self, to: *mut u32);
        unsafe fn splat(value: u32) -> Self;
        unsafe fn add(self, other: Self) -> Self;
        unsafe fn and(self, other: Self) -> Self;
        unsafe fn or(self, other: Self) -> Self;
        unsafe fn xor(self, other: Self) -> Self;
        /// `!self & other`
        unsafe fn not_and(self, other: Self) -> Self;
        /// Rotates left by `LEFT`; `RIGHT` is `32 - LEFT`.
        unsafe fn rotate<const LEFT: i32, const RIGHT: i32>(self) -> Self;
        /// Word `i` of the blocks at `from`, for all 16 `i`. `from` has `LANES` readable blocks.
        unsafe fn words(from: &[*const Block]) -> [Self; 16];
    }

    // SAFETY of the intrinsics in both implementations: the caller's duty to have the unit; the pointers of `load`,
    // `store` and `words` are the caller's promise, and none of the loads wants alignment.

    impl Vector for __m128i {
        const LANES: usize = 4;

        #[inline(always)]
        unsafe fn load(from: *const u32) -> Self {
            // SAFETY: see above.
            unsafe { _mm_loadu_si128(from.cast()) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut u32) {
            // SAFETY: see above.
            unsafe { _mm_storeu_si128(to.cast(), self) }
        }

        #[inline(always)]
        unsafe fn splat(value: u32) -> Self {
            // SAFETY: see above.
            unsafe { _mm_set1_epi32(value.cast_signed()) }
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { _mm_add_epi32(self, other) }
        }

        #[inline(always)]
        unsafe fn and(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { _mm_and_si128(self, other) }
        }

        #[inline(always)]
        unsafe fn or(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { _mm_or_si128(self, other) }
        }

        #[inline(always)]
        unsafe fn xor(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { _mm_xor_si128(self, other) }
        }

        #[inline(always)]
        unsafe fn not_and(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { _mm_andnot_si128(self, other) }
        }

        #[inline(always)]
        unsafe fn rotate<const LEFT: i32, const RIGHT: i32>(self) -> Self {
            // SAFETY: see above.
            unsafe { _mm_or_si128(_mm_slli_epi32::<LEFT>(self), _mm_srli_epi32::<RIGHT>(self)) }
        }

        #[inline(always)]
        unsafe fn words(from: &[*const Block]) -> [Self; 16] {
            // SAFETY: see above; a block has four quarters of four words.
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

    impl Vector for __m256i {
        const LANES: usize = 8;

        #[inline(always)]
        unsafe fn load(from: *const u32) -> Self {
            // SAFETY: see above.
            unsafe { _mm256_loadu_si256(from.cast()) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut u32) {
            // SAFETY: see above.
            unsafe { _mm256_storeu_si256(to.cast(), self) }
        }

        #[inline(always)]
        unsafe fn splat(value: u32) -> Self {
            // SAFETY: see above.
            unsafe { _mm256_set1_epi32(value.cast_signed()) }
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { _mm256_add_epi32(self, other) }
        }

        #[inline(always)]
        unsafe fn and(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { _mm256_and_si256(self, other) }
        }

        #[inline(always)]
        unsafe fn or(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { _mm256_or_si256(self, other) }
        }

        #[inline(always)]
        unsafe fn xor(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { _mm256_xor_si256(self, other) }
        }

        #[inline(always)]
        unsafe fn not_and(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { _mm256_andnot_si256(self, other) }
        }

        #[inline(always)]
        unsafe fn rotate<const LEFT: i32, const RIGHT: i32>(self) -> Self {
            // SAFETY: see above.
            unsafe {
                if LEFT == 16 {
                    // Half-words change places: one operation in place of three.
                    let swap = _mm256_set1_epi64x(0x0504_0706_0100_0302);
                    let high = _mm256_set_epi64x(0x0808_0808_0808_0808, 0, 0x0808_0808_0808_0808, 0);
                    _mm256_shuffle_epi8(self, _mm256_add_epi8(swap, high))
                } else {
                    _mm256_or_si256(_mm256_slli_epi32::<LEFT>(self), _mm256_srli_epi32::<RIGHT>(self))
                }
            }
        }

        #[inline(always)]
        unsafe fn words(from: &[*const Block]) -> [Self; 16] {
            // SAFETY: see above; a block has two halves of eight words.
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

    #[target_feature(enable = "sse2")]
    pub(super) unsafe fn sse2(states: &mut States, inputs: &[&[Block]; LANES_MAX], blocks: usize) {
        // SAFETY: SSE2 by the attribute; the length of the inputs is the caller's promise.
        unsafe { compress::<__m128i, 1>(states, inputs, blocks) }
    }

    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn avx2(states: &mut States, inputs: &[&[Block]; LANES_MAX], blocks: usize) {
        // SAFETY: AVX2 by the attribute; the length of the inputs is the caller's promise.
        unsafe { compress::<__m256i, 1>(states, inputs, blocks) }
    }

    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn avx2_twice(states: &mut States, inputs: &[&[Block]; LANES_MAX], blocks: usize) {
        // SAFETY: AVX2 by the attribute; the length of the inputs is the caller's promise.
        unsafe { compress::<__m256i, 2>(states, inputs, blocks) }
    }

    /// `GROUPS` registers of lanes in step.
    ///
    /// # Safety
    /// The vector unit of `V` is there, and each of the first `GROUPS * V::LANES` inputs has `blocks` blocks.
    #[inline(always)]
    unsafe fn compress<V: Vector, const GROUPS: usize>(
        states: &mut States,
        inputs: &[&[Block]; LANES_MAX],
        blocks: usize,
    ) {
        const { assert!(GROUPS * V::LANES <= LANES_MAX) };
        // SAFETY: lane numbers stay below LANES_MAX by the assertion above, block numbers below `blocks`.
        unsafe {
            // Loops rather than `from_fn`: a closure is a function of its own, compiled without the vector unit, and
            // each intrinsic in it becomes a call (half the speed, seen in a profile of the whole program).
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
                rounds(&mut s, &w);
                for (s, before) in s.iter_mut().zip(before) {
                    for (s, before) in s.iter_mut().zip(before) {
                        *s = s.add(before);
                    }
                }
            }
            for (g, s) in s.into_iter().enumerate() {
                for (word, s) in s.into_iter().enumerate() {
                    s.store(states[word].as_mut_ptr().add(g * V::LANES));
                }
            }
        }
    }

    /// The 64 steps of RFC 1321 3.4.
    #[inline(always)]
    unsafe fn rounds<V: Vector, const GROUPS: usize>(s: &mut [[V; 4]; GROUPS], w: &[[V; 16]; GROUPS]) {
        // The four functions, each added to `$sum` so that what does not need the newest word `$b` comes first.
        macro_rules! f {
            (1, $sum:expr, $b:expr, $c:expr, $d:expr) => {
                $sum.add($d.xor($b.and($c.xor($d))))
            };
            (2, $sum:expr, $b:expr, $c:expr, $d:expr) => {
                // The two halves share no bit, so plus is or.
                $sum.add($d.not_and($c)).add($b.and($d))
            };
            (3, $sum:expr, $b:expr, $c:expr, $d:expr) => {
                $sum.add($b.xor($c.xor($d)))
            };
            (4, $sum:expr, $b:expr, $c:expr, $d:expr) => {
                $sum.add($c.xor($b.or($d.xor(V::splat(!0)))))
            };
        }
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
                    let sum = s[$a].add(V::splat(K[$i])).add(w[$w]);
                    let sum = f!($round, sum, s[$b], s[$c], s[$d]);
                    s[$a] = sum.rotate::<$r, { 32 - $r }>().add(s[$b]);
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
}
