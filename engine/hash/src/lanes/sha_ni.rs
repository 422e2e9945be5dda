//! The instructions for SHA-256 of x86-64, for two messages in turns: each waits for its predecessor, and the other
//! message fills the time.

use std::arch::x86_64::*;

use super::sha256::{K, States};
use super::{Block, fetch_ahead};

/// The halves of a state as the instructions want them.
#[derive(Clone, Copy)]
struct State {
    abef: __m128i,
    cdgh: __m128i,
}

/// Hashes the first `blocks` blocks of each input into its lane of the states, two inputs in turns.
///
/// # Safety
/// The number of inputs is even, and all have `blocks` blocks.
#[target_feature(enable = "sha,sse4.1,ssse3")]
pub(super) unsafe fn in_pairs(states: &mut States, inputs: &[&[Block]], blocks: usize) {
    for (pair, inputs) in inputs.as_chunks::<2>().0.iter().enumerate() {
        let mut s = [load(states, 2 * pair), load(states, 2 * pair + 1)];
        for at in 0..blocks {
            // SAFETY: `at` is below `blocks`, which both inputs have.
            let blocks = unsafe { [inputs[0].get_unchecked(at), inputs[1].get_unchecked(at)] };
            fetch_ahead(blocks[0]);
            fetch_ahead(blocks[1]);
            let mut w = [words(blocks[0]), words(blocks[1])];
            let before = s;
            // Unrolled, so that the schedule stays in registers.
            macro_rules! four {
                ($($i:literal)*) => {$(
                    four_rounds::<$i>(&mut s[0], &mut w[0]);
                    four_rounds::<$i>(&mut s[1], &mut w[1]);
                )*};
            }
            four!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
            for (s, before) in s.iter_mut().zip(before) {
                s.abef = _mm_add_epi32(s.abef, before.abef);
                s.cdgh = _mm_add_epi32(s.cdgh, before.cdgh);
            }
        }
        store(s[0], states, 2 * pair);
        store(s[1], states, 2 * pair + 1);
    }
}

/// Rounds `4 * I` to `4 * I + 3`, with the words that they need.
#[inline]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn four_rounds<const I: usize>(s: &mut State, w: &mut [__m128i; 4]) {
    if I >= 4 {
        let (w0, w1, w2, w3) = (w[I % 4], w[(I + 1) % 4], w[(I + 2) % 4], w[(I + 3) % 4]);
        let sum = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8::<4>(w3, w2));
        w[I % 4] = _mm_sha256msg2_epu32(sum, w3);
    }
    let k: [i32; 4] = [K[4 * I], K[4 * I + 1], K[4 * I + 2], K[4 * I + 3]].map(u32::cast_signed);
    let sum = _mm_add_epi32(w[I % 4], _mm_set_epi32(k[3], k[2], k[1], k[0]));
    s.cdgh = _mm_sha256rnds2_epu32(s.cdgh, s.abef, sum);
    s.abef = _mm_sha256rnds2_epu32(s.abef, s.cdgh, _mm_shuffle_epi32::<0x0E>(sum));
}

/// The words of a block, which are big-endian.
#[inline]
#[target_feature(enable = "ssse3")]
fn words(block: &Block) -> [__m128i; 4] {
    let swap = _mm_set_epi64x(0x0C0D_0E0F_0809_0A0B, 0x0405_0607_0001_0203);
    let quarters = block.as_chunks::<16>().0;
    let mut words = [_mm_setzero_si128(); 4];
    for (words, quarter) in words.iter_mut().zip(quarters) {
        // SAFETY: a quarter has 16 bytes, and the load needs no alignment.
        *words = _mm_shuffle_epi8(unsafe { _mm_loadu_si128(quarter.as_ptr().cast()) }, swap);
    }
    words
}

#[inline]
#[target_feature(enable = "sse2")]
fn load(states: &States, lane: usize) -> State {
    let word = |i: usize| states[i][lane].cast_signed();
    State {
        abef: _mm_set_epi32(word(0), word(1), word(4), word(5)),
        cdgh: _mm_set_epi32(word(2), word(3), word(6), word(7)),
    }
}

#[inline]
#[target_feature(enable = "sse4.1")]
fn store(of: State, states: &mut States, lane: usize) {
    let State { abef, cdgh } = of;
    let words = [
        _mm_extract_epi32::<3>(abef),
        _mm_extract_epi32::<2>(abef),
        _mm_extract_epi32::<3>(cdgh),
        _mm_extract_epi32::<2>(cdgh),
        _mm_extract_epi32::<1>(abef),
        _mm_extract_epi32::<0>(abef),
        _mm_extract_epi32::<1>(cdgh),
        _mm_extract_epi32::<0>(cdgh),
    ];
    for (state, word) in states.iter_mut().zip(words) {
        state[lane] = word.cast_unsigned();
    }
}
