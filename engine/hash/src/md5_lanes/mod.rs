//! MD5 of up to sixteen independent messages at once, a message to a lane of the vector unit.
//!
//! A step of MD5 needs the result of the step before it, so one message cannot be hashed faster; eight fill an AVX2
//! register, and a second group of eight runs during the first one's latencies. AVX-512 holds sixteen, and performs
//! each of MD5's functions and rotations in one operation. NEON has four lanes, and a second group likewise.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
mod neon;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
mod vectors;
#[cfg(target_arch = "x86_64")]
mod x86;

/// A block of MD5.
pub(super) type Block = [u8; 64];
/// Lanes of the widest back end.
pub(super) const LANES_MAX: usize = 16;
/// MD5 states, word by word: `states[word][lane]`.
pub(super) type States = [[u32; LANES_MAX]; 4];

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
    /// Eight lanes, with rotations and three-way logic of AVX-512.
    Avx512Half,
    /// Sixteen lanes in 512-bit registers.
    Avx512,
}

impl Backend {
    /// From the slowest to the fastest.
    pub const ALL: [Self; 8] = [
        Self::Portable,
        Self::Sse2,
        Self::Neon,
        Self::NeonTwice,
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
            Self::Avx512Half | Self::Avx512 => {
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
            Self::Sse2 | Self::Neon => 4,
            Self::NeonTwice | Self::Avx2 | Self::Avx512Half => 8,
            Self::Avx2Twice | Self::Avx512 => 16,
        }
    }

    /// The cheapest back end of the same family for `active` messages.
    pub(super) const fn for_active(self, active: usize) -> Self {
        match (self, active) {
            (_, 0 | 1) => Self::Portable,
            (Self::NeonTwice, 2..=4) => Self::Neon,
            (Self::Avx2Twice, 2..=8) => Self::Avx2,
            (Self::Avx512, 2..=8) => Self::Avx512Half,
            _ => self,
        }
    }

    /// Hashes the first `blocks` blocks of each of the first [`lanes`](Self::lanes) inputs into its state.
    ///
    /// # Panics
    /// The machine lacks the back end, or an input is shorter.
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
