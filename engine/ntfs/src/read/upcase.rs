//! The volume's own `$UpCase` table and the order it defines (docs/spec/ntfs.md#upcase-table-and-collation).

use std::cmp::Ordering;
use std::fmt;

/// 65536 capitals, one for each UTF-16 unit.
pub struct Upcase(Box<[u16]>);

impl Upcase {
    /// Units in a table.
    pub(super) const UNITS: usize = 65536;

    pub(super) fn from_le_bytes(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == Self::UNITS * 2)
            .then(|| Self(bytes.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect()))
    }

    /// Upper case of ASCII alone, for a volume with an unreadable table.
    pub(super) fn ascii() -> Self {
        Self((0..=u16::MAX).map(|unit| if (0x61..=0x7A).contains(&unit) { unit - 32 } else { unit }).collect())
    }

    /// The capital of a unit.
    pub fn upper(&self, unit: u16) -> u16 {
        self.0[usize::from(unit)]
    }

    /// Whether two names are equal ignoring case: one Win32 directory cannot hold both.
    pub fn same(&self, left: &[u16], right: &[u16]) -> bool {
        left.len() == right.len() && self.cmp_folded(left, right) == Ordering::Equal
    }

    /// Order of the capitals, shorter first: the first half of collation rule 1.
    pub fn cmp_folded(&self, left: &[u16], right: &[u16]) -> Ordering {
        for (a, b) in left.iter().zip(right) {
            if a != b {
                match self.upper(*a).cmp(&self.upper(*b)) {
                    Ordering::Equal => {}
                    unequal => return unequal,
                }
            }
        }
        left.len().cmp(&right.len())
    }

    /// Collation rule 1: by capitals first, then by the units themselves.
    pub fn cmp(&self, left: &[u16], right: &[u16]) -> Ordering {
        self.cmp_folded(left, right).then_with(|| left.cmp(right))
    }
}

impl fmt::Debug for Upcase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mapped = self.0.iter().enumerate().filter(|(unit, capital)| *unit != usize::from(**capital)).count();
        write!(f, "Upcase({mapped} mapped)")
    }
}
