//! XTS-AES (IEEE 1619-2018): one data unit a sector, numbered by the sector's position in the volume.

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

pub(super) struct Xts<C> {
    data: C,
    tweak: C,
}

impl<C: Aes> Xts<C> {
    pub(super) fn new(data: &[u8], tweak: &[u8]) -> Self {
        Self { data: C::expand(data), tweak: C::expand(tweak) }
    }

    /// Calls `each` with the first tweaks of some sectors and their blocks, until all of `data` has been processed.
    fn batches(
        &self,
        first: u64,
        sector: SectorSize,
        data: &mut [Block],
        mut each: impl FnMut(&[Block], &mut [Block]),
    ) {
        let mut unit = first / sector.bytes();
        let mut tweaks = [Block::default(); SECTORS_AHEAD];
        for part in data.chunks_mut(SECTORS_AHEAD * blocks_in(sector)) {
            let tweaks = &mut tweaks[..part.len() / blocks_in(sector)];
            for tweak in &mut *tweaks {
                *tweak = Array(u128::from(unit).to_le_bytes());
                unit += 1;
            }
            self.tweak.encrypt_blocks(tweaks);
            each(tweaks, part);
        }
    }
}

impl<C: Aes> Mode for Xts<C> {
    fn seal(&self, first: u64, sector: SectorSize, data: &mut [Block]) {
        self.batches(first, sector, data, |tweaks, data| {
            self.data.encrypt_with_backend(XtsRun { sector, tweaks, data });
        });
    }

    fn open(&self, first: u64, sector: SectorSize, data: &mut [Block]) {
        self.batches(first, sector, data, |tweaks, data| {
            self.data.decrypt_with_backend(XtsRun { sector, tweaks, data });
        });
    }
}

struct XtsRun<'a> {
    sector: SectorSize,
    /// Tweak of the first block of each sector.
    tweaks: &'a [Block],
    data: &'a mut [Block],
}

impl BlockSizeUser for XtsRun<'_> {
    type BlockSize = U16;
}

impl BlockCipherEncClosure for XtsRun<'_> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        self.through(&Encrypt(backend));
    }
}

impl BlockCipherDecClosure for XtsRun<'_> {
    #[inline(always)]
    fn call<B: BlockCipherDecBackend<BlockSize = U16>>(self, backend: &B) {
        self.through(&Decrypt(backend));
    }
}

/// Blocks with tweaks computed together.
const GROUP: usize = 512;
/// Sectors whose chains of tweaks are computed in parallel, since each chain is serial.
const CHAINS: usize = 4;
/// No back end is wider.
const WIDTH_MAX: usize = 128;

impl XtsRun<'_> {
    #[inline(always)]
    fn through<L: Lanes>(self, lanes: &L) {
        match self.sector {
            SectorSize::S512 => run::<L, BLOCKS_512>(lanes, self.tweaks, self.data),
            SectorSize::S4096 => run::<L, BLOCKS_4096>(lanes, self.tweaks, self.data),
        }
    }
}

#[inline(always)]
fn run<L: Lanes, const BLOCKS: usize>(lanes: &L, firsts: &[Block], mut data: &mut [Block]) {
    const { assert!(L::Width::USIZE <= WIDTH_MAX && GROUP.is_multiple_of(BLOCKS)) };
    // Tweaks in the order of the blocks. The rest of a group (fewer than the width) opens the next one, so that only
    // the end of the run is narrow.
    let mut queue = [Block::default(); GROUP + WIDTH_MAX];
    let mut queued = 0;
    for group in firsts.chunks(GROUP / BLOCKS) {
        let len = group.len() * BLOCKS;
        chains::<BLOCKS>(group, &mut queue[queued..queued + len]);
        queued += len;
        let (chunks, rest) = Array::<Block, L::Width>::slice_as_chunks(&queue[..queued]);
        let (now, later) = data.split_at_mut(queued - rest.len());
        data = later;
        for (tweaks, data) in chunks.iter().zip(Array::<Block, L::Width>::slice_as_chunks_mut(now).0) {
            xor_all(data, tweaks);
            lanes.many((&mut *data).into());
            xor_all(data, tweaks);
        }
        let left = rest.len();
        queue.copy_within(queued - left..queued, 0);
        queued = left;
    }
    for (data, tweak) in data.iter_mut().zip(&queue[..queued]) {
        xor(data, tweak);
        lanes.one(data.into());
        xor(data, tweak);
    }
}

/// The tweaks of all blocks of some sectors, from the tweak of each sector's first block.
#[inline(always)]
fn chains<const BLOCKS: usize>(firsts: &[Block], out: &mut [Block]) {
    let mut many = firsts.chunks_exact(CHAINS);
    let mut rest = out;
    for firsts in &mut many {
        let (now, later) = rest.split_at_mut(CHAINS * BLOCKS);
        rest = later;
        let mut tweaks: [u128; CHAINS] = std::array::from_fn(|chain| u128::from_le_bytes(firsts[chain].0));
        for block in 0..BLOCKS {
            for (chain, tweak) in tweaks.iter_mut().enumerate() {
                now[chain * BLOCKS + block] = Array(tweak.to_le_bytes());
                *tweak = double(*tweak);
            }
        }
    }
    for (first, out) in many.remainder().iter().zip(rest.chunks_exact_mut(BLOCKS)) {
        let mut tweak = u128::from_le_bytes(first.0);
        for out in out {
            *out = Array(tweak.to_le_bytes());
            tweak = double(tweak);
        }
    }
}

/// Times α in GF(2^128), IEEE 1619-2018 5.2: shift left, and fold the bit that falls out into 0x87.
#[inline(always)]
const fn double(tweak: u128) -> u128 {
    (tweak << 1) ^ ((tweak >> 127) * 0x87)
}
