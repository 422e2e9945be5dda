//! MD5 over the registers of any vector unit.

use super::{Block, K, LANES_MAX, States};

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

/// Operations of the steps other than sums, with the same requirement.
pub(super) trait Logic<V> {
    /// `sum` and the function of the round (RFC 1321 3.4: F, G, H, I) of the three newest words, added so that the part
    /// independent of the newest, `b`, comes first.
    unsafe fn mix<const ROUND: u8>(sum: V, b: V, c: V, d: V) -> V;
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

/// `GROUPS` registers of lanes in step.
///
/// # Safety
/// The vector unit of `V` and `L` is available, and each of the first `GROUPS * V::LANES` inputs has `blocks` blocks.
#[inline(always)]
pub(super) unsafe fn compress<V: Vector, L: Logic<V>, const GROUPS: usize>(
    states: &mut States,
    inputs: &[&[Block]; LANES_MAX],
    blocks: usize,
) {
    const { assert!(GROUPS * V::LANES <= LANES_MAX) };
    // SAFETY: lane numbers stay below LANES_MAX by the assertion above, block numbers below `blocks`.
    unsafe {
        // Loops rather than `from_fn`: a closure is a function of its own, compiled without the vector unit, and each
        // intrinsic in it becomes a call (half the speed, seen in a profile of the whole program).
        let mut s = [[V::splat(0); 4]; GROUPS];
        for (g, s) in s.iter_mut().enumerate() {
            for (s, state) in s.iter_mut().zip(states.iter()) {
                *s = V::load(state.as_ptr().add(g * V::LANES));
            }
        }
        let mut at: [*const Block; LANES_MAX] = inputs.map(<[Block]>::as_ptr);
        let mut w = [[V::splat(0); 16]; GROUPS];
        for _ in 0..blocks {
            for (g, w) in w.iter_mut().enumerate() {
                *w = V::words(&at[g * V::LANES..(g + 1) * V::LANES]);
            }
            for at in &mut at[..GROUPS * V::LANES] {
                *at = at.add(1);
            }
            let before = s;
            rounds::<V, L, GROUPS>(&mut s, &w);
            for (s, before) in s.iter_mut().zip(before) {
                for (s, before) in s.iter_mut().zip(before) {
                    *s = V::add(*s, before);
                }
            }
        }
        for (g, s) in s.into_iter().enumerate() {
            for (word, s) in s.into_iter().enumerate() {
                V::store(s, states[word].as_mut_ptr().add(g * V::LANES));
            }
        }
    }
}

/// The 64 steps of RFC 1321 3.4.
#[inline(always)]
unsafe fn rounds<V: Vector, L: Logic<V>, const GROUPS: usize>(s: &mut [[V; 4]; GROUPS], w: &[[V; 16]; GROUPS]) {
    // Four steps, after which the words have their old places again. `$k` words apart, from word `$w`.
    macro_rules! four {
        ($round:tt, $i:expr, $w:expr, $k:expr, $r0:literal, $r1:literal, $r2:literal, $r3:literal) => {
            step!($round, $i, ($w) % 16, 0, 1, 2, 3, $r0);
            step!($round, $i + 1, ($w + $k) % 16, 3, 0, 1, 2, $r1);
            step!($round, $i + 2, ($w + 2 * $k) % 16, 2, 3, 0, 1, $r2);
            step!($round, $i + 3, ($w + 3 * $k) % 16, 1, 2, 3, 0, $r3);
        };
    }
    macro_rules! step {
        ($round:tt, $i:expr, $w:expr, $a:literal, $b:literal, $c:literal, $d:literal, $r:literal) => {
            for (s, w) in s.iter_mut().zip(w) {
                let sum = V::add(V::add(s[$a], V::splat(K[$i])), w[$w]);
                let sum = L::mix::<$round>(sum, s[$b], s[$c], s[$d]);
                s[$a] = V::add(L::rotate::<$r, { 32 - $r }>(sum), s[$b]);
            }
        };
    }
    macro_rules! round {
        ($round:tt, $i:expr, $w:expr, $k:expr, $r0:literal, $r1:literal, $r2:literal, $r3:literal) => {
            four!($round, $i, $w, $k, $r0, $r1, $r2, $r3);
            four!($round, $i + 4, $w + 4 * $k, $k, $r0, $r1, $r2, $r3);
            four!($round, $i + 8, $w + 8 * $k, $k, $r0, $r1, $r2, $r3);
            four!($round, $i + 12, $w + 12 * $k, $k, $r0, $r1, $r2, $r3);
        };
    }
    // SAFETY: the vector unit is the caller's promise.
    unsafe {
        round!(1, 0, 0, 1, 7, 12, 17, 22);
        round!(2, 16, 1, 5, 5, 9, 14, 20);
        round!(3, 32, 5, 3, 4, 11, 16, 23);
        round!(4, 48, 0, 7, 6, 10, 15, 21);
    }
}
