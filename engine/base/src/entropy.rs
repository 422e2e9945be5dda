//! Randomness is an argument: the same inputs give the same drive, byte for byte.

use std::fmt;

/// A source of random bytes: the kernel's in the product, a seeded one in tests.
pub trait Entropy {
    /// Fills `out`; never short.
    fn fill(&mut self, out: &mut [u8]);

    /// An array of random bytes.
    fn array<const N: usize>(&mut self) -> [u8; N]
    where
        Self: Sized,
    {
        let mut out = [0; N];
        self.fill(&mut out);
        out
    }
}

/// SplitMix64 from a seed: for *public* randomness only (GUIDs, serial numbers, test data), never for keys.
#[derive(Clone)]
pub struct Seeded {
    state: u64,
}

impl Seeded {
    /// The stream for `seed`.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        // Steele, Lea, Flood: "Fast splittable pseudorandom number generators" (2014).
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }
}

impl Entropy for Seeded {
    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }
}

impl fmt::Debug for Seeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seeded(..)")
    }
}
