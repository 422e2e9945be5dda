//! AES-CBC, one chain a sector, whose initial vector is its encrypted byte offset.

use aes::cipher::consts::U16;
use aes::cipher::typenum::Unsigned;
use aes::cipher::{
    Array, BlockCipherDecBackend, BlockCipherDecClosure, BlockCipherEncBackend, BlockCipherEncClosure, BlockSizeUser,
};

use super::Mode;
use super::blocks::{
    Aes, BLOCKS_512, BLOCKS_4096, Block, Decrypt, Encrypt, Lanes, SECTORS_AHEAD, blocks_in, xor, xor_all,
};
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

/// Blocks of a sector that are fetched and put back together: a cache line. Sectors of 4096 bytes, many abreast, all
/// want the same set of the cache, so that a line that is left is soon lost.
const LINE: usize = 4;

/// A chain is serial, so as many sectors as the back end is wide go abreast.
#[inline(always)]
fn seal<L: Lanes, const BLOCKS: usize>(lanes: &L, ivs: &[Block], data: &mut [Block]) {
    let width = L::Width::USIZE;
    for (ivs, data) in ivs.chunks(width).zip(data.chunks_mut(width * BLOCKS)) {
        // Below half the width idle lanes would cost more than single blocks do.
        if ivs.len() * 2 > width {
            seal_abreast::<L, BLOCKS>(lanes, ivs, data);
        } else {
            seal_few::<L, BLOCKS>(lanes, ivs, data);
        }
    }
}

#[inline(always)]
fn seal_abreast<L: Lanes, const BLOCKS: usize>(lanes: &L, ivs: &[Block], data: &mut [Block]) {
    let mut chain = Array::<Block, L::Width>::default();
    chain[..ivs.len()].copy_from_slice(ivs);
    // One row a block of the line, one column a sector.
    let mut rows: [Array<Block, L::Width>; LINE] = Default::default();
    for line in 0..BLOCKS / LINE {
        for (column, sector) in data.chunks_exact(BLOCKS).enumerate() {
            for (row, block) in rows.iter_mut().zip(&sector[line * LINE..(line + 1) * LINE]) {
                row[column] = *block;
            }
        }
        for row in &mut rows {
            xor_all(row, &chain);
            lanes.many((&mut *row).into());
            chain.copy_from_slice(row);
        }
        for (column, sector) in data.chunks_exact_mut(BLOCKS).enumerate() {
            for (row, block) in rows.iter().zip(&mut sector[line * LINE..(line + 1) * LINE]) {
                *block = row[column];
            }
        }
    }
}

#[inline(always)]
fn seal_few<L: Lanes, const BLOCKS: usize>(lanes: &L, ivs: &[Block], data: &mut [Block]) {
    let mut chain = Array::<Block, L::Width>::default();
    chain[..ivs.len()].copy_from_slice(ivs);
    for block in 0..BLOCKS {
        for (sector, chain) in data.chunks_exact_mut(BLOCKS).zip(&mut chain) {
            xor(chain, &sector[block]);
            lanes.one((&mut *chain).into());
            sector[block] = *chain;
        }
    }
}

/// Blocks are independent: each is decrypted and takes the ciphertext before it, a sector's first one the vector.
#[inline(always)]
fn open<L: Lanes, const BLOCKS: usize>(lanes: &L, ivs: &[Block], data: &mut [Block]) {
    let width = L::Width::USIZE;
    let mut before = Block::default();
    let mut at = 0_usize;
    let (chunks, tail) = Array::<Block, L::Width>::slice_as_chunks_mut(data);
    for chunk in chunks {
        let mut plain = Array::<Block, L::Width>::default();
        lanes.many((&*chunk, &mut plain).into());
        // In step with the pairs of blocks in which a wide back end has stored them: see `xor_all`.
        let pair = width.min(2);
        let mut front = [before; 2];
        front[1..pair].copy_from_slice(&chunk[..pair - 1]);
        xor_all(&mut plain[..pair], &front);
        xor_all(&mut plain[pair..], &chunk[pair - 1..]);
        // A sector's first block has taken the end of the sector before it: out with that, and in with the vector.
        let mut start = at.next_multiple_of(BLOCKS);
        while start < at + width {
            let wrong = if start == at { before } else { chunk[start - at - 1] };
            xor(&mut plain[start - at], &wrong);
            xor(&mut plain[start - at], &ivs[start / BLOCKS]);
            start += BLOCKS;
        }
        at += width;
        before = chunk[width - 1];
        chunk.copy_from_slice(&plain);
    }
    for data in tail {
        let previous = if at.is_multiple_of(BLOCKS) { ivs[at / BLOCKS] } else { before };
        before = *data;
        at += 1;
        lanes.one(data.into());
        xor(data, &previous);
    }
}
