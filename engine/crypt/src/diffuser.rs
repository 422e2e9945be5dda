//! AES-CBC with the Elephant diffuser (Vista, Windows 7). Mostly read, and never critical for speed: one sector at a
//! time.

use aes::cipher::Array;

use super::blocks::{Aes, Block, blocks_in};
use super::cbc::Cbc;
use super::{Mode, Unit};
use crate::units::SectorSize;

/// Words of 32 bits in the largest sector.
const WORDS_MAX: usize = 4096 / 4;
/// Rotations of diffuser A, by word modulo 4 (docs/spec/bitlocker.md#sector-ciphers).
const ROTATE_A: [u32; 4] = [9, 0, 13, 0];
const ROUNDS_A: usize = 5;
/// Rotations of diffuser B, by word modulo 4.
const ROTATE_B: [u32; 4] = [0, 10, 0, 25];
const ROUNDS_B: usize = 3;

pub(super) struct Diffuser<C> {
    chain: Cbc<C>,
    sector_key: C,
}

impl<C: Aes> Diffuser<C> {
    pub(super) fn new(key: &[u8], sector_key: &[u8], unit: Unit) -> Self {
        Self { chain: Cbc::new(key, unit), sector_key: C::expand(sector_key) }
    }

    /// The two blocks that are repeated over the plaintext of the sector at byte `at`.
    fn sector_blocks(&self, at: u64) -> [Block; 2] {
        let offset = u128::from(at);
        let mut blocks = [Array(offset.to_le_bytes()), Array((offset | 0x80 << 120).to_le_bytes())];
        self.sector_key.encrypt_blocks(&mut blocks);
        blocks
    }
}

impl<C: Aes> Mode for Diffuser<C> {
    fn seal(&self, first: u64, sector: SectorSize, data: &mut [Block]) {
        let mut at = first;
        for data in data.chunks_exact_mut(blocks_in(sector)) {
            whiten(data, &self.sector_blocks(at));
            through_words(data, |words| {
                (0..ROUNDS_A).for_each(|_| a_sealing(words));
                (0..ROUNDS_B).for_each(|_| b_sealing(words));
            });
            at += sector.bytes();
        }
        self.chain.seal(first, sector, data);
    }

    fn open(&self, first: u64, sector: SectorSize, data: &mut [Block]) {
        self.chain.open(first, sector, data);
        let mut at = first;
        for data in data.chunks_exact_mut(blocks_in(sector)) {
            through_words(data, |words| {
                (0..ROUNDS_B).for_each(|_| b_opening(words));
                (0..ROUNDS_A).for_each(|_| a_opening(words));
            });
            whiten(data, &self.sector_blocks(at));
            at += sector.bytes();
        }
    }
}

fn whiten(data: &mut [Block], with: &[Block; 2]) {
    for (data, with) in data.iter_mut().zip(with.iter().cycle()) {
        super::blocks::xor(data, with);
    }
}

/// Passes `data` as little-endian words to `diffuse`.
fn through_words(data: &mut [Block], diffuse: impl FnOnce(&mut [u32])) {
    let bytes = Array::slice_as_flattened_mut(data).as_chunks_mut::<4>().0;
    let mut words = [0; WORDS_MAX];
    let words = &mut words[..bytes.len()];
    for (word, bytes) in words.iter_mut().zip(&*bytes) {
        *word = u32::from_le_bytes(*bytes);
    }
    diffuse(words);
    for (word, bytes) in words.iter().zip(bytes) {
        *bytes = word.to_le_bytes();
    }
}

// All indices are modulo the number of words, a power of two.

fn a_opening(w: &mut [u32]) {
    let mask = w.len() - 1;
    for i in 0..w.len() {
        let add = w[i.wrapping_sub(2) & mask] ^ w[i.wrapping_sub(5) & mask].rotate_left(ROTATE_A[i % 4]);
        w[i] = w[i].wrapping_add(add);
    }
}

fn a_sealing(w: &mut [u32]) {
    let mask = w.len() - 1;
    for i in (0..w.len()).rev() {
        let add = w[i.wrapping_sub(2) & mask] ^ w[i.wrapping_sub(5) & mask].rotate_left(ROTATE_A[i % 4]);
        w[i] = w[i].wrapping_sub(add);
    }
}

fn b_opening(w: &mut [u32]) {
    let mask = w.len() - 1;
    for i in 0..w.len() {
        let add = w[(i + 2) & mask] ^ w[(i + 5) & mask].rotate_left(ROTATE_B[i % 4]);
        w[i] = w[i].wrapping_add(add);
    }
}

fn b_sealing(w: &mut [u32]) {
    let mask = w.len() - 1;
    for i in (0..w.len()).rev() {
        let add = w[(i + 2) & mask] ^ w[(i + 5) & mask].rotate_left(ROTATE_B[i % 4]);
        w[i] = w[i].wrapping_sub(add);
    }
}
