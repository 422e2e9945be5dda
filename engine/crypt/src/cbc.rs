//! AES-CBC, one chain a sector; the initial vector is the encrypted byte offset.

use aes::cipher::consts::U16;
use aes::cipher::typenum::Unsigned;
use aes::cipher::{
    Array, BlockCipherDecBackend, BlockCipherDecClosure, BlockCipherEncBackend, BlockCipherEncClosure, BlockSizeUser,
};

use super::blocks::{
    Aes, BLOCKS_512, BLOCKS_4096, Block, Decrypt, Encrypt, Lanes, SECTORS_AHEAD, blocks_in, xor, xor_all,
};
#[cfg(target_arch = "x86_64")]
use super::vaes;
use super::{Mode, Unit};
use crate::units::SectorSize;

pub(super) struct Cbc<C> {
    key: C,
    /// The same key for 512-bit registers, where the machine has them.
    #[cfg(target_arch = "x86_64")]
    wide: Option<vaes::RoundKeyPair>,
}

impl<C: Aes> Cbc<C> {
    pub(super) fn new(key: &[u8], unit: Unit) -> Self {
        #[cfg(not(target_arch = "x86_64"))]
        let _ = unit;
        Self {
            #[cfg(target_arch = "x86_64")]
            wide: if unit == Unit::Widest { vaes::RoundKeyPair::expand(key) } else { None },
            key: C::expand(key),
        }
    }

    /// Calls `each` with the initial vectors of some sectors and their blocks, until all of `data` has been processed.
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

    /// Seals the first sectors in 512-bit registers, and returns their number.
    #[cfg(target_arch = "x86_64")]
    fn seal_wide(&self, first: u64, sector: SectorSize, data: &mut [Block]) -> usize {
        self.wide.as_ref().map_or(0, |keys| keys.seal(first, sector, data))
    }

    /// Opens the sectors in 512-bit registers; whether it did.
    #[cfg(target_arch = "x86_64")]
    fn open_wide(&self, first: u64, sector: SectorSize, data: &mut [Block]) -> bool {
        let Some(keys) = &self.wide else { return false };
        keys.open(first, sector, data);
        true
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn seal_wide(&self, _: u64, _: SectorSize, _: &mut [Block]) -> usize {
        0
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn open_wide(&self, _: u64, _: SectorSize, _: &mut [Block]) -> bool {
        false
    }
}

impl<C: Aes> Mode for Cbc<C> {
    fn seal(&self, first: u64, sector: SectorSize, data: &mut [Block]) {
        let done = self.seal_wide(first, sector, data);
        let rest = &mut data[done * blocks_in(sector)..];
        let first = first.wrapping_add(done as u64 * sector.bytes());
        self.batches(first, sector, rest, |ivs, data| self.key.encrypt_with_backend(CbcRun { sector, ivs, data }));
    }

    fn open(&self, first: u64, sector: SectorSize, data: &mut [Block]) {
        if !self.open_wide(first, sector, data) {
            self.batches(first, sector, data, |ivs, data| self.key.decrypt_with_backend(CbcRun { sector, ivs, data }));
        }
    }
}

struct CbcRun<'a> {
    sector: SectorSize,
    ivs: &'a [Block],
    data: &'a mut [Block],
}

impl BlockSizeUser for CbcRun<'_> {
    type BlockSize = U16;
}

impl BlockCipherEncClosure for CbcRun<'_> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        match self.sector {
            SectorSize::S512 => seal::<_, BLOCKS_512>(&Encrypt(backend), self.ivs, self.data),
            SectorSize::S4096 => seal::<_, BLOCKS_4096>(&Encrypt(backend), self.ivs, self.data),
        }
    }
}

impl BlockCipherDecClosure for CbcRun<'_> {
    #[inline(always)]
    fn call<B: BlockCipherDecBackend<BlockSize = U16>>(self, backend: &B) {
        match self.sector {
            SectorSize::S512 => open::<_, BLOCKS_512>(&Decrypt(backend), self.ivs, self.data),
            SectorSize::S4096 => open::<_, BLOCKS_4096>(&Decrypt(backend), self.ivs, self.data),
        }
    }
}

/// Blocks of a sector that are loaded and stored together: a cache line. Many sectors of 4096 bytes in parallel all use
/// the same set of the cache, so that a line is soon evicted.
const LINE: usize = 4;

/// A chain is serial, so many sectors are processed in parallel: two widths of the back end, the second during the
/// first one's latencies.
#[inline(always)]
fn seal<L: Lanes, const BLOCKS: usize>(lanes: &L, ivs: &[Block], data: &mut [Block]) {
    let width = L::Width::USIZE;
    for (ivs, data) in ivs.chunks(2 * width).zip(data.chunks_mut(2 * width * BLOCKS)) {
        // Below half a width idle lanes would cost more than single blocks do.
        if ivs.len() > width {
            seal_abreast::<L, BLOCKS, 2>(lanes, ivs, data);
        } else if ivs.len() * 2 > width {
            seal_abreast::<L, BLOCKS, 1>(lanes, ivs, data);
        } else {
            seal_few::<L, BLOCKS>(lanes, ivs, data);
        }
    }
}

/// Up to `GROUPS` widths of sectors.
#[inline(always)]
fn seal_abreast<L: Lanes, const BLOCKS: usize, const GROUPS: usize>(lanes: &L, ivs: &[Block], data: &mut [Block]) {
    let width = L::Width::USIZE;
    let mut chains: [Array<Block, L::Width>; GROUPS] = std::array::from_fn(|_| Default::default());
    for (chain, iv) in chains.iter_mut().flatten().zip(ivs) {
        *chain = *iv;
    }
    // One row a block of the line, one column a sector.
    let mut rows: [[Array<Block, L::Width>; LINE]; GROUPS] = std::array::from_fn(|_| Default::default());
    for line in 0..BLOCKS / LINE {
        for (rows, data) in rows.iter_mut().zip(data.chunks(width * BLOCKS)) {
            for (column, sector) in data.chunks_exact(BLOCKS).enumerate() {
                for (row, block) in rows.iter_mut().zip(&sector[line * LINE..(line + 1) * LINE]) {
                    row[column] = *block;
                }
            }
        }
        for row in 0..LINE {
            for (rows, chain) in rows.iter_mut().zip(&chains) {
                let (before, now) = rows.split_at_mut(row);
                xor_all(&mut now[0], before.last().unwrap_or(chain));
                lanes.many((&mut now[0]).into());
            }
        }
        for (chain, rows) in chains.iter_mut().zip(&rows) {
            chain.copy_from_slice(&rows[LINE - 1]);
        }
        for (rows, data) in rows.iter().zip(data.chunks_mut(width * BLOCKS)) {
            for (column, sector) in data.chunks_exact_mut(BLOCKS).enumerate() {
                for (row, block) in rows.iter().zip(&mut sector[line * LINE..(line + 1) * LINE]) {
                    *block = row[column];
                }
            }
        }
    }
}

/// Too few sectors for the wide call to pay.
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

/// Blocks whose predecessors are saved while they are decrypted in place.
const KEPT: usize = 512;

/// Blocks are independent: each is decrypted and takes the ciphertext before it, a sector's first one the vector.
#[inline(always)]
fn open<L: Lanes, const BLOCKS: usize>(lanes: &L, ivs: &[Block], data: &mut [Block]) {
    const { assert!(KEPT.is_multiple_of(BLOCKS)) };
    let mut kept = [Block::default(); KEPT];
    for (ivs, data) in ivs.chunks(KEPT / BLOCKS).zip(data.chunks_mut(KEPT)) {
        for ((kept, sector), iv) in kept.chunks_exact_mut(BLOCKS).zip(data.chunks_exact(BLOCKS)).zip(ivs) {
            kept[0] = *iv;
            kept[1..].copy_from_slice(&sector[..BLOCKS - 1]);
        }
        let (chunks, tail) = Array::<Block, L::Width>::slice_as_chunks_mut(data);
        for chunk in chunks {
            lanes.many(chunk.into());
        }
        for block in tail {
            lanes.one(block.into());
        }
        xor_all(data, &kept);
    }
}
