//! What the kernels want of a vector unit, whichever hash they compute.

use super::Block;

/// A register of 32-bit lanes.
///
/// All functions require the vector unit that the register belongs to. They are always inlined into a function compiled
/// for that unit.
pub(super) trait Vector: Copy {
    const LANES: usize;
    unsafe fn load(from: *const u32) -> Self;
    unsafe fn store(of: Self, to: *mut u32);
    unsafe fn splat(value: u32) -> Self;
    unsafe fn add(a: Self, b: Self) -> Self;
    /// Word `i` of the blocks at `from`, for all 16 `i`. `from` has `LANES` readable blocks.
    unsafe fn words(from: &[*const Block]) -> [Self; 16];
}

/// Rotation, with the same requirement. AVX-512 does it in one operation, also to the registers of AVX2.
pub(super) trait Rotate<V> {
    /// Rotates left by `LEFT`; `RIGHT` is `32 - LEFT`.
    unsafe fn rotate<const LEFT: i32, const RIGHT: i32>(of: V) -> V;
}

/// Functions of one intrinsic each.
macro_rules! calls {
    ($($name:ident($($from:ident: $type:ty),*) $(-> $to:ty)? = $call:expr;)*) => {$(
        #[inline(always)]
        unsafe fn $name($($from: $type),*) $(-> $to)? {
            // SAFETY: unit and pointers are guaranteed by the caller, and no access requires alignment.
            unsafe { $call }
        }
    )*};
}
pub(super) use calls;
