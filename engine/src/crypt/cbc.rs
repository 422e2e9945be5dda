//! AES-CBC, one chain a sector, whose initial vector is its encrypted byte offset.

use aes::cipher::consts::U16;
use aes::cipher::typenum::Unsigned;
use aes::cipher::{
    Array, BlockCipherDecBackend, BlockCipherDecClosure, BlockCipherEncBackend, BlockCipherEncClosure, BlockSizeUser,
};

use super::Mode;
use super::blocks::{Aes, BLOCKS_512, BLOCKS_4096, Block, Decrypt, Encrypt, Lanes, SECTORS_AHEAD, blocks_in, xor};
use crate::units::SectorSize;

pub(super) struct Cbc<C> {
    key: C,
}

impl<C: Aes> Cbc<C> {
    pub(super) fn new(key: &[u8]) -> Self {
        Self { key: C::expand(key) }
    }

    /// Calls `each` with the initial vectors of some sectors and their blocks, until all of `data` has had its turn.
    fn batches(
        &self,
        first: u64,
        sector: SectorSize,
        data: &mut [Block],
        mut each: impl FnMut(&[Block], &mut [Block]),
    ) {
        let mut at = first;
        let mut ivs = [Block::default(); SECTORS_AHEAD];
        for part in data.chunks_mut(SECTORS_AHEAD * blocks_in(sector)) {
            let ivs = &mut ivs[..part.len() / blocks_in(sector)];
            for iv in &mut *ivs {
                *iv = Array(u128::from(at).to_le_bytes());
                at += sector.bytes();
            }
            self.key.encrypt_blocks(ivs);
            each(ivs, part);
        }
    }
}

impl<C: Aes> Mode for Cbc<C> {
    fn seal(&self, first: u64, sector: SectorSize, data: &mut [Block]) {
        self.batches(first, sector, data, |ivs, data| self.key.encrypt_with_backend(Run { sector, ivs, data }));
    }

    fn open(&self, first: u64, sector: SectorSize, data: &mut [Block]) {
        self.batches(first, sector, data, |ivs, data| self.key.decrypt_with_backend(Run { sector, ivs, data }));
    }
}

struct Run<'a> {
    sector: SectorSize,
    ivs: &'a [Block],
    data: &'a mut [Block],
}

impl BlockSizeUser for Run<'_> {
    type BlockSize = U16;
}

impl BlockCipherEncClosure for Run<'_> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        match self.sector {
            SectorSize::S512 => seal::<_, BLOCKS_512>(&Encrypt(backend), self.ivs, self.data),
            SectorSize::S4096 => seal::<_, BLOCKS_4096>(&Encrypt(backend), self.ivs, self.data),
        }
    }
}

impl BlockCipherDecClosure for Run<'_> {
    #[inline(always)]
    fn call<B: BlockCipherDecBackend<BlockSize = U16>>(self, backend: &B) {
        match self.sector {
            SectorSize::S512 => open::<_, BLOCKS_512>(&Decrypt(backend), self.ivs, self.data),
            SectorSize::S4096 => open::<_, BLOCKS_4096>(&Decrypt(backend), self.ivs, self.data),
        }
    }
}

/// A chain is serial, so as many sectors as the back end is wide go abreast.
#[inline(always)]
fn seal<L: Lanes, const BLOCKS: usize>(lanes: &L, ivs: &[Block], data: &mut [Block]) {
    let width = L::Width::USIZE;
    for (ivs, data) in ivs.chunks(width).zip(data.chunks_mut(width * BLOCKS)) {
        let mut state = Array::<Block, L::Width>::default();
        state[..ivs.len()].copy_from_slice(ivs);
        // Below half the width idle lanes would cost more than single blocks do.
        let wide = ivs.len() * 2 > width;
        for block in 0..BLOCKS {
            for (sector, state) in data.chunks_exact(BLOCKS).zip(&mut state) {
                xor(state, &sector[block]);
            }
            if wide {
                lanes.many((&mut state).into());
            } else {
                for state in &mut state[..ivs.len()] {
                    lanes.one(state.into());
                }
            }
            for (sector, state) in data.chunks_exact_mut(BLOCKS).zip(&state) {
                sector[block] = *state;
            }
        }
    }
}

/// Blocks are independent: each is decrypted and takes the ciphertext before it, a sector's first one the vector.
#[inline(always)]
fn open<L: Lanes, const BLOCKS: usize>(lanes: &L, ivs: &[Block], data: &mut [Block]) {
    let mut before = Block::default();
    let mut at = 0_usize;
    let (chunks, tail) = Array::<Block, L::Width>::slice_as_chunks_mut(data);
    for chunk in chunks {
        let mut previous = Array::<Block, L::Width>::default();
        let (last, others) = chunk.split_last().expect("a width is at least one");
        previous[0] = before;
        previous[1..].copy_from_slice(others);
        before = *last;
        let mut start = at.next_multiple_of(BLOCKS);
        while start < at + L::Width::USIZE {
            previous[start - at] = ivs[start / BLOCKS];
            start += BLOCKS;
        }
        at += L::Width::USIZE;
        lanes.many(chunk.into());
        for (data, previous) in chunk.iter_mut().zip(&previous) {
            xor(data, previous);
        }
    }
    for data in tail {
        let previous = if at.is_multiple_of(BLOCKS) { ivs[at / BLOCKS] } else { before };
        before = *data;
        at += 1;
        lanes.one(data.into());
        xor(data, &previous);
    }
}
