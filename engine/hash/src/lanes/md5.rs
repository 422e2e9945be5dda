//! MD5 in lanes.
//!
//! A step of MD5 needs the result of the step before it, so one message cannot be hashed faster; eight fill an AVX2
//! register, and a second group of eight runs during the first one's latencies. AVX-512 holds sixteen, and performs
//! each of MD5's functions and rotations in one operation. NEON has four lanes, and a second group likewise.

#[cfg(target_arch = "x86_64")]
use super::avx512;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
use super::neon;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
use super::vectors::{Rotate, Vector};
#[cfg(target_arch = "x86_64")]
use super::x86;
use super::{Block, LANES_MAX, fetch_ahead};

/// MD5 states, word by word: `states[word][lane]`.
pub(crate) type States = [[u32; LANES_MAX]; 4];

/// Vector units that can hash, by lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// One message after the other, by the `md-5` crate.
    Portable,
    /// Four lanes (x86-64, always available).
    Sse2,
    /// Four lanes (64-bit ARM).
    Neon,
    /// Four lanes twice, interleaved.
    NeonTwice,
    /// Eight lanes in 256-bit registers.
    Avx2,
    /// Eight lanes twice, interleaved.
    Avx2Twice,
    /// Four lanes, with rotations and three-way logic of AVX-512.
    Avx512Quarter,
    /// Eight lanes likewise.
    Avx512Half,
    /// Sixteen lanes in 512-bit registers.
    Avx512,
}

impl Backend {
    /// From the slowest to the fastest.
    pub const ALL: [Self; 9] = [
        Self::Portable,
        Self::Sse2,
        Self::Neon,
        Self::NeonTwice,
        Self::Avx512Quarter,
        Self::Avx2,
        Self::Avx2Twice,
        Self::Avx512Half,
        Self::Avx512,
    ];

    /// The fastest that this machine supports.
    pub fn detect() -> Self {
        Self::ALL.into_iter().rev().find(|backend| backend.is_available()).unwrap_or(Self::Portable)
    }

    /// Whether this machine supports it.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return match self {
            Self::Portable => true,
            Self::Sse2 => is_x86_feature_detected!("sse2"),
            Self::Avx2 | Self::Avx2Twice => is_x86_feature_detected!("avx2"),
            Self::Avx512Quarter | Self::Avx512Half | Self::Avx512 => {
                is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") && Self::Avx2.is_available()
            }
            Self::Neon | Self::NeonTwice => false,
        };
        #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
        return match self {
            Self::Portable => true,
            Self::Neon | Self::NeonTwice => std::arch::is_aarch64_feature_detected!("neon"),
            _ => false,
        };
        #[cfg(not(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little"))))]
        return self == Self::Portable;
    }

    /// Messages hashed at once.
    pub const fn lanes(self) -> usize {
        match self {
            Self::Portable => 1,
            Self::Sse2 | Self::Neon | Self::Avx512Quarter => 4,
            Self::NeonTwice | Self::Avx2 | Self::Avx512Half => 8,
            Self::Avx2Twice | Self::Avx512 => 16,
        }
    }

    /// The cheapest back end of the same family for `active` messages. AVX-512 gains even on one: a step waits for two
    /// operations fewer.
    pub(crate) const fn for_active(self, active: usize) -> Self {
        match (self, active) {
            (Self::Avx512Quarter | Self::Avx512Half | Self::Avx512, 1..=4) => Self::Avx512Quarter,
            (_, 0 | 1) => Self::Portable,
            (Self::NeonTwice, 2..=4) => Self::Neon,
            (Self::Avx2Twice, 2..=8) => Self::Avx2,
            (Self::Avx512, 5..=8) => Self::Avx512Half,
            _ => self,
        }
    }

    /// Hashes the first `blocks` blocks of each of the first [`lanes`](Self::lanes) inputs into its state.
    ///
    /// # Panics
    /// The machine lacks the back end, or an input is shorter.
    pub(crate) fn compress(self, states: &mut States, inputs: &[&[Block]; LANES_MAX], blocks: usize) {
        assert!(self.is_available(), "{self:?} is not available");
        let inputs_used = &inputs[..self.lanes()];
        assert!(inputs_used.iter().all(|input| input.len() >= blocks), "an input is shorter than {blocks} blocks");
        match self {
            Self::Portable => {
                let mut state = states.map(|word| word[0]);
                ::md5::block_api::compress(&mut state, &inputs[0][..blocks]);
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
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Quarter => unsafe { avx512::avx512_quarter(states, inputs, blocks) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Half => unsafe { avx512::avx512_half(states, inputs, blocks) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { avx512::avx512(states, inputs, blocks) },
            // SAFETY: as above.
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Self::Neon => unsafe { neon::neon(states, inputs, blocks) },
            // SAFETY: as above.
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Self::NeonTwice => unsafe { neon::neon_twice(states, inputs, blocks) },
            #[allow(unreachable_patterns, reason = "of a machine without the others")]
            _ => unreachable!("checked above"),
        }
    }
}

/// One message.
pub(crate) fn one(state: &mut [u32; 4], blocks: &[Block]) {
    // Not worth a change of the form.
    if blocks.len() <= 2 {
        return ::md5::block_api::compress(state, blocks);
    }
    let mut states: States = state.map(|word| [word; LANES_MAX]);
    Backend::detect().for_active(1).compress(&mut states, &[blocks; LANES_MAX], blocks.len());
    *state = states.map(|word| word[0]);
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

/// The functions of the rounds, with the requirement of [`Vector`].
pub(super) trait Logic<V>: Rotate<V> {
    /// `sum` and the function of the round (RFC 1321 3.4: F, G, H, I) of the three newest words, added so that the part
    /// independent of the newest, `b`, comes first.
    unsafe fn mix<const ROUND: u8>(sum: V, b: V, c: V, d: V) -> V;
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
                fetch_ahead(*at);
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
