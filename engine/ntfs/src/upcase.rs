//! The table `$UpCase` of Windows 8 and later, and the collation of file names built on it.
//!
//! NTFS does not use Unicode's case rules: Windows treats two names as the same file when they are equal after mapping
//! each code unit through this table. U+00DF and U+0131 have no capital here, and U+00B5 is its own.

use std::cmp::Ordering;

/// `(first, last, step, delta)`: every `step`-th code unit from `first` to `last` maps to itself plus `delta`.
type CaseRun = (u16, u16, u16, i32);

/// All code units that differ from identity (docs/spec/ntfs.md#upcase-table-and-collation; measured on Windows builds
/// 14393 to 20348).
#[rustfmt::skip]
const RUNS: [CaseRun; 125] = [
    (0x0061, 0x007A, 1, -32), (0x00E0, 0x00F6, 1, -32), (0x00F8, 0x00FE, 1, -32), (0x00FF, 0x00FF, 1, 121),
    (0x0101, 0x012F, 2, -1), (0x0133, 0x0137, 2, -1), (0x013A, 0x0148, 2, -1), (0x014B, 0x0177, 2, -1),
    (0x017A, 0x017E, 2, -1), (0x0180, 0x0180, 1, 195), (0x0183, 0x0185, 2, -1), (0x0188, 0x018C, 4, -1),
    (0x0192, 0x0192, 1, -1), (0x0195, 0x0195, 1, 97), (0x0199, 0x0199, 1, -1), (0x019A, 0x019A, 1, 163),
    (0x019E, 0x019E, 1, 130), (0x01A1, 0x01A5, 2, -1), (0x01A8, 0x01A8, 1, -1), (0x01AD, 0x01B0, 3, -1),
    (0x01B4, 0x01B6, 2, -1), (0x01B9, 0x01BD, 4, -1), (0x01BF, 0x01BF, 1, 56), (0x01C6, 0x01CC, 3, -2),
    (0x01CE, 0x01DC, 2, -1), (0x01DD, 0x01DD, 1, -79), (0x01DF, 0x01EF, 2, -1), (0x01F3, 0x01F3, 1, -2),
    (0x01F5, 0x01F9, 4, -1), (0x01FB, 0x021F, 2, -1), (0x0223, 0x0233, 2, -1), (0x023C, 0x0242, 6, -1),
    (0x0247, 0x024F, 2, -1), (0x0250, 0x0250, 1, 10783), (0x0251, 0x0251, 1, 10780), (0x0253, 0x0253, 1, -210),
    (0x0254, 0x0254, 1, -206), (0x0256, 0x0257, 1, -205), (0x0259, 0x0259, 1, -202), (0x025B, 0x025B, 1, -203),
    (0x0260, 0x0260, 1, -205), (0x0263, 0x0263, 1, -207), (0x0268, 0x0268, 1, -209), (0x0269, 0x0269, 1, -211),
    (0x026B, 0x026B, 1, 10743), (0x026F, 0x026F, 1, -211), (0x0271, 0x0271, 1, 10749), (0x0272, 0x0272, 1, -213),
    (0x0275, 0x0275, 1, -214), (0x027D, 0x027D, 1, 10727), (0x0280, 0x0283, 3, -218), (0x0288, 0x0288, 1, -218),
    (0x0289, 0x0289, 1, -69), (0x028A, 0x028B, 1, -217), (0x028C, 0x028C, 1, -71), (0x0292, 0x0292, 1, -219),
    (0x0371, 0x0373, 2, -1), (0x0377, 0x0377, 1, -1), (0x037B, 0x037D, 1, 130), (0x03AC, 0x03AC, 1, -38),
    (0x03AD, 0x03AF, 1, -37), (0x03B1, 0x03C1, 1, -32), (0x03C3, 0x03CB, 1, -32), (0x03CC, 0x03CC, 1, -64),
    (0x03CD, 0x03CE, 1, -63), (0x03D7, 0x03D7, 1, -8), (0x03D9, 0x03EF, 2, -1), (0x03F2, 0x03F2, 1, 7),
    (0x03F8, 0x03FB, 3, -1), (0x0430, 0x044F, 1, -32), (0x0450, 0x045F, 1, -80), (0x0461, 0x0481, 2, -1),
    (0x048B, 0x04BF, 2, -1), (0x04C2, 0x04CE, 2, -1), (0x04CF, 0x04CF, 1, -15), (0x04D1, 0x0523, 2, -1),
    (0x0561, 0x0586, 1, -48), (0x1D79, 0x1D79, 1, 35332), (0x1D7D, 0x1D7D, 1, 3814), (0x1E01, 0x1E95, 2, -1),
    (0x1EA1, 0x1EFF, 2, -1), (0x1F00, 0x1F07, 1, 8), (0x1F10, 0x1F15, 1, 8), (0x1F20, 0x1F27, 1, 8),
    (0x1F30, 0x1F37, 1, 8), (0x1F40, 0x1F45, 1, 8), (0x1F51, 0x1F57, 2, 8), (0x1F60, 0x1F67, 1, 8),
    (0x1F70, 0x1F71, 1, 74), (0x1F72, 0x1F75, 1, 86), (0x1F76, 0x1F77, 1, 100), (0x1F78, 0x1F79, 1, 128),
    (0x1F7A, 0x1F7B, 1, 112), (0x1F7C, 0x1F7D, 1, 126), (0x1F80, 0x1F87, 1, 8), (0x1F90, 0x1F97, 1, 8),
    (0x1FA0, 0x1FA7, 1, 8), (0x1FB0, 0x1FB1, 1, 8), (0x1FB3, 0x1FB3, 1, 9), (0x1FC3, 0x1FC3, 1, 9),
    (0x1FD0, 0x1FD1, 1, 8), (0x1FE0, 0x1FE1, 1, 8), (0x1FE5, 0x1FE5, 1, 7), (0x1FF3, 0x1FF3, 1, 9),
    (0x214E, 0x214E, 1, -28), (0x2170, 0x217F, 1, -16), (0x2184, 0x2184, 1, -1), (0x24D0, 0x24E9, 1, -26),
    (0x2C30, 0x2C5E, 1, -48), (0x2C61, 0x2C61, 1, -1), (0x2C65, 0x2C65, 1, -10795), (0x2C66, 0x2C66, 1, -10792),
    (0x2C68, 0x2C6C, 2, -1), (0x2C73, 0x2C76, 3, -1), (0x2C81, 0x2CE3, 2, -1), (0x2D00, 0x2D25, 1, -7264),
    (0xA641, 0xA65F, 2, -1), (0xA663, 0xA66D, 2, -1), (0xA681, 0xA697, 2, -1), (0xA723, 0xA72F, 2, -1),
    (0xA733, 0xA76F, 2, -1), (0xA77A, 0xA77C, 2, -1), (0xA77F, 0xA787, 2, -1), (0xA78C, 0xA78C, 1, -1),
    (0xFF41, 0xFF5A, 1, -32),
];

static TABLE: [u16; 65536] = {
    let mut table = [0u16; 65536];
    let mut unit = 0;
    while unit < table.len() {
        table[unit] = unit as u16;
        unit += 1;
    }
    let mut run = 0;
    while run < RUNS.len() {
        let (first, last, step, delta) = RUNS[run];
        let mut unit = first as u32;
        while unit <= last as u32 {
            table[unit as usize] = (unit as i32).wrapping_add(delta) as u16;
            unit += step as u32;
        }
        run += 1;
    }
    table
};

/// Bytes of the stream `$UpCase`.
pub const BYTES: usize = 2 * 65536;

/// The CRC-64 of the table's bytes, as its stream `$Info` holds it (docs/spec/ntfs.md#upcase-table-and-collation).
pub const CRC64: u64 = 0xDADC_7E77_6B1B_690C;

/// The whole table, indexed by code unit.
pub fn table() -> &'static [u16; 65536] {
    &TABLE
}

/// The capital of one code unit.
pub fn fold(unit: u16) -> u16 {
    TABLE[usize::from(unit)]
}

/// Collation rule FILE_NAME, the order of directory entries: capitals compared as numbers, the shorter of two that
/// agree first, and names that differ only by case by their own code units.
///
/// `Equal` means identical names. See [`equal_folded`] for names that Windows treats as the same.
pub fn compare(a: impl IntoIterator<Item = u16>, b: impl IntoIterator<Item = u16>) -> Ordering {
    let (mut a, mut b) = (a.into_iter(), b.into_iter());
    let mut exact = Ordering::Equal;
    loop {
        match (a.next(), b.next()) {
            (None, None) => return exact,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(x), Some(y)) => {
                if x == y {
                    continue;
                }
                match fold(x).cmp(&fold(y)) {
                    Ordering::Equal => exact = exact.then(x.cmp(&y)),
                    different => return different,
                }
            }
        }
    }
}

/// Whether Windows would treat the two as the same name in one directory.
pub fn equal_folded(a: impl IntoIterator<Item = u16>, b: impl IntoIterator<Item = u16>) -> bool {
    a.into_iter().map(fold).eq(b.into_iter().map(fold))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(a: &str, b: &str) -> Ordering {
        compare(a.encode_utf16(), b.encode_utf16())
    }

    #[test]
    fn judge_table_is_the_one_of_windows() {
        use sha2::{Digest, Sha256};
        let bytes: Vec<u8> = table().iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let hex: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        // Measured on every Windows 8..11 sample of docs/spec/ntfs.md#sources.
        assert_eq!(hex, "41c26bc7a12bdaeb26025c93118697c7e3ef81ee048b00fe5cce2a472e0e0742");
        assert_eq!(table().iter().enumerate().filter(|&(i, &unit)| i != usize::from(unit)).count(), 973);

        let mut crc = u64::MAX;
        for byte in bytes {
            crc ^= u64::from(byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x9A6C_9329_AC4B_C9B5 } else { crc >> 1 };
            }
        }
        assert_eq!(!crc, CRC64);
    }

    #[test]
    fn names_sort_by_capitals_then_by_themselves() {
        assert_eq!(order("a", "B"), Ordering::Less);
        assert_eq!(order("A", "a"), Ordering::Less);
        assert_eq!(order("aB", "Ab"), Ordering::Greater);
        assert_eq!(order("ab", "ABC"), Ordering::Less);
        assert_eq!(order("Ab", "aBc"), Ordering::Less);
        assert_eq!(order("_", "a"), Ordering::Greater);
        assert_eq!(order("same", "same"), Ordering::Equal);
        // Code-unit order: a surrogate (D83D) sorts below U+FF5E, though its code point is higher.
        assert_eq!(order("\u{1F600}", "\u{FF5E}"), Ordering::Less);
        assert!(equal_folded("Straße".encode_utf16(), "STRAßE".encode_utf16()));
        assert!(!equal_folded("µ".encode_utf16(), "Μ".encode_utf16()));
    }
}
