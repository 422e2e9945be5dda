//! AES blocks, many at a time: the interface of the modes to the back ends of the `aes` crate.

use aes::cipher::array::ArraySize;
use aes::cipher::common::{KeyInit, ParBlocks, ParBlocksSizeUser};
use aes::cipher::consts::U16;
use aes::cipher::inout::InOut;
use aes::cipher::{BlockCipherDecBackend, BlockCipherDecrypt, BlockCipherEncBackend, BlockCipherEncrypt};
use zeroize::ZeroizeOnDrop;

use crate::units::SectorSize;

/// A block of 16 bytes.
pub(super) type Block = aes::Block;

/// AES with a key of some length, wiped on drop.
pub(super) trait Aes:
    KeyInit + BlockCipherEncrypt<BlockSize = U16> + BlockCipherDecrypt<BlockSize = U16> + ZeroizeOnDrop + Send + Sync
{
    /// Expands a key whose length the caller has checked.
    fn expand(key: &[u8]) -> Self {
        Self::new_from_slice(key).expect("the length was checked against the cipher")
    }
}

impl Aes for aes::Aes128 {}
impl Aes for aes::Aes256 {}

/// Sectors prepared (tweaks or initial vectors) ahead of their blocks: a multiple of the widths of the back ends (8,
/// 30), small enough for the stack and the L1 cache.
pub(super) const SECTORS_AHEAD: usize = 120;

/// Blocks in a 512-byte sector.
pub(super) const BLOCKS_512: usize = 512 / 16;
/// Blocks in a 4096-byte sector.
pub(super) const BLOCKS_4096: usize = 4096 / 16;

/// Blocks in a sector.
pub(super) const fn blocks_in(sector: SectorSize) -> usize {
    match sector {
        SectorSize::S512 => BLOCKS_512,
        SectorSize::S4096 => BLOCKS_4096,
    }
}

/// One direction of an AES back end: `Width` blocks in one call.
pub(super) trait Lanes {
    type Width: ArraySize;
    fn many(&self, blocks: InOut<'_, '_, aes::cipher::Array<Block, Self::Width>>);
    fn one(&self, block: InOut<'_, '_, Block>);
}

pub(super) struct Encrypt<'a, B>(pub &'a B);
pub(super) struct Decrypt<'a, B>(pub &'a B);

// `inline(always)`: the back ends call the modes from functions compiled for the wide AES unit, and only code that is
// inlined there is compiled for it too.
impl<B: BlockCipherEncBackend<BlockSize = U16>> Lanes for Encrypt<'_, B> {
    type Width = <B as ParBlocksSizeUser>::ParBlocksSize;

    #[inline(always)]
    fn many(&self, blocks: InOut<'_, '_, ParBlocks<B>>) {
        self.0.encrypt_par_blocks(blocks);
    }

    #[inline(always)]
    fn one(&self, block: InOut<'_, '_, Block>) {
        self.0.encrypt_block(block);
    }
}

impl<B: BlockCipherDecBackend<BlockSize = U16>> Lanes for Decrypt<'_, B> {
    type Width = <B as ParBlocksSizeUser>::ParBlocksSize;

    #[inline(always)]
    fn many(&self, blocks: InOut<'_, '_, ParBlocks<B>>) {
        self.0.decrypt_par_blocks(blocks);
    }

    #[inline(always)]
    fn one(&self, block: InOut<'_, '_, Block>) {
        self.0.decrypt_block(block);
    }
}

/// `out ^= with`
#[inline(always)]
pub(super) fn xor(out: &mut Block, with: &Block) {
    xor_array(&mut out.0, &with.0);
}

/// `out ^= with`, block by block, two at a time: a wide back end that loads the result of recent narrow stores would
/// stall.
#[inline(always)]
pub(super) fn xor_all(out: &mut [Block], with: &[Block]) {
    let (out, with) = (aes::cipher::Array::slice_as_flattened_mut(out), aes::cipher::Array::slice_as_flattened(with));
    let (pairs, last) = out.as_chunks_mut::<32>();
    let (with_pairs, with_last) = with.as_chunks::<32>();
    for (out, with) in pairs.iter_mut().zip(with_pairs) {
        xor_array(out, with);
    }
    for (out, with) in last.as_chunks_mut::<16>().0.iter_mut().zip(with_last.as_chunks::<16>().0) {
        xor_array(out, with);
    }
}

// On copies, whose length is known and which cannot overlap: on slices the compiler may fall back to single bytes, and
// did, at half the speed of CBC-128.
#[inline(always)]
fn xor_array<const N: usize>(out: &mut [u8; N], with: &[u8; N]) {
    let (mut sum, with) = (*out, *with);
    for (sum, with) in sum.iter_mut().zip(with) {
        *sum ^= with;
    }
    *out = sum;
}
