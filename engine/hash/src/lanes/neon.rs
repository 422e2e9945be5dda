//! NEON: four lanes, with an operation that selects bits and one that inserts shifted ones.

use std::arch::aarch64::*;

use super::md5::{self, States};
use super::vectors::{Rotate, Vector, calls};
use super::{Block, LANES_MAX};

impl Vector for uint32x4_t {
    const LANES: usize = 4;

    calls! {
        load(from: *const u32) -> Self = vreinterpretq_u32_u8(vld1q_u8(from.cast()));
        store(of: Self, to: *mut u32) = vst1q_u8(to.cast(), vreinterpretq_u8_u32(of));
        splat(value: u32) -> Self = vdupq_n_u32(value);
        add(a: Self, b: Self) -> Self = vaddq_u32(a, b);
    }

    #[inline(always)]
    unsafe fn words(from: &[*const Block]) -> [Self; 16] {
        // SAFETY: as in `calls`; a block has four quarters of four words.
        unsafe {
            let mut words = [vdupq_n_u32(0); 16];
            for quarter in 0..4 {
                let r0 = Self::load(from[0].cast::<u32>().add(4 * quarter));
                let r1 = Self::load(from[1].cast::<u32>().add(4 * quarter));
                let r2 = Self::load(from[2].cast::<u32>().add(4 * quarter));
                let r3 = Self::load(from[3].cast::<u32>().add(4 * quarter));
                let (a, b) = (vzip1q_u32(r0, r2), vzip2q_u32(r0, r2));
                let (c, d) = (vzip1q_u32(r1, r3), vzip2q_u32(r1, r3));
                words[4 * quarter] = vzip1q_u32(a, c);
                words[4 * quarter + 1] = vzip2q_u32(a, c);
                words[4 * quarter + 2] = vzip1q_u32(b, d);
                words[4 * quarter + 3] = vzip2q_u32(b, d);
            }
            words
        }
    }
}

struct Select;

impl md5::Logic<uint32x4_t> for Select {
    #[inline(always)]
    unsafe fn mix<const ROUND: u8>(sum: uint32x4_t, b: uint32x4_t, c: uint32x4_t, d: uint32x4_t) -> uint32x4_t {
        // SAFETY: the vector unit is the caller's promise.
        unsafe {
            let mixed = match ROUND {
                1 => vbslq_u32(b, c, d),
                2 => vbslq_u32(d, b, c),
                3 => veorq_u32(b, veorq_u32(c, d)),
                _ => veorq_u32(c, vornq_u32(b, d)),
            };
            vaddq_u32(sum, mixed)
        }
    }
}

impl Rotate<uint32x4_t> for Select {
    #[inline(always)]
    unsafe fn rotate<const LEFT: i32, const RIGHT: i32>(of: uint32x4_t) -> uint32x4_t {
        // SAFETY: the vector unit is the caller's promise.
        unsafe { vsriq_n_u32::<RIGHT>(vshlq_n_u32::<LEFT>(of), of) }
    }
}

#[target_feature(enable = "neon")]
pub(super) unsafe fn neon(states: &mut States, inputs: &[&[Block]; LANES_MAX], blocks: usize) {
    // SAFETY: NEON by the attribute; the length of the inputs is the caller's promise.
    unsafe { md5::compress::<uint32x4_t, Select, 1>(states, inputs, blocks) }
}

#[target_feature(enable = "neon")]
pub(super) unsafe fn neon_twice(states: &mut States, inputs: &[&[Block]; LANES_MAX], blocks: usize) {
    // SAFETY: NEON by the attribute; the length of the inputs is the caller's promise.
    unsafe { md5::compress::<uint32x4_t, Select, 2>(states, inputs, blocks) }
}
