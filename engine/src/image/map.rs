//! The map of a rescue, as GNU ddrescue 1.16 and later read and write it: which places were read, and how far the others were
//! tried. Text; pure.

use std::fmt::Write as _;

use crate::units::{ByteLen, DeviceRange};

/// State of a range in the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not at all.
    NonTried,
    /// A large request failed somewhere in it.
    NonTrimmed,
    /// Its ends were found, what is between was not read piece by piece.
    NonScraped,
    /// It cannot be read.
    Bad,
    /// It is in the image.
    Finished,
}

impl Status {
    const ALL: [(Self, char); 5] = [
        (Self::NonTried, '?'),
        (Self::NonTrimmed, '*'),
        (Self::NonScraped, '/'),
        (Self::Bad, '-'),
        (Self::Finished, '+'),
    ];

    fn letter(self) -> char {
        Self::ALL.iter().find(|(status, _)| *status == self).map_or('?', |(_, letter)| *letter)
    }
}

/// A drive from end to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// Ascending, without gaps, neighbours of different status.
    blocks: Vec<(DeviceRange, Status)>,
}

/// A line that is no map's: its number from 1, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Number of the line, from 1; 0 for the map as a whole.
    pub line: u64,
    /// The defect.
    pub what: String,
}

impl Map {
    /// Nothing tried.
    pub fn new(size: ByteLen) -> Self {
        Self { blocks: vec![(DeviceRange::new(0, size.0), Status::NonTried)] }
    }

    /// Reads a map of a drive of `size` bytes; one that ends earlier or later is cut, or goes on as not tried.
    ///
    /// # Errors
    /// The line that cannot be.
    pub fn parse(text: &str, size: ByteLen) -> Result<Self, BadLine> {
        let mut map = Self::new(size);
        let (mut end, mut has_head) = (0, false);
        for (number, line) in (1..).zip(text.lines()) {
            let bad = |what: String| BadLine { line: number, what };
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [first, second, rest @ ..] = &fields[..] else {
                if fields.is_empty() || fields[0].starts_with('#') {
                    continue;
                }
                return Err(bad("has one field only".into()));
            };
            if first.starts_with('#') {
                continue;
            }
            let (first, second) = (*first, *second);
            let start = number_of(first).ok_or_else(|| bad(format!("`{first}` is no position")))?;
            if !has_head {
                // Position and status of the last run, and its pass since 1.24.
                has_head = true;
                if second.chars().count() != 1 || !"?*/-F+G".contains(second) {
                    return Err(bad(format!("`{second}` is no status of a run")));
                }
                continue;
            }
            let len = number_of(second).filter(|len| start.checked_add(*len).is_some());
            let len = len.ok_or_else(|| bad(format!("`{second}` is no length")))?;
            let status =
                rest.first().and_then(|word| Status::ALL.iter().find(|(_, letter)| word.chars().eq([*letter])));
            let Some((status, _)) = status else { return Err(bad("has no status".into())) };
            if start != end {
                return Err(bad(format!("begins at {start:#X}, and the line before it ends at {end:#X}")));
            }
            end = start + len;
            let within = end.min(size.0).saturating_sub(start);
            map.set(DeviceRange::new(start, within), *status);
        }
        if !has_head {
            return Err(BadLine { line: 0, what: "holds no line of a map".into() });
        }
        Ok(map)
    }

    /// Marks a place.
    pub fn set(&mut self, range: DeviceRange, status: Status) {
        if range.len.0 == 0 {
            return;
        }
        // Most of a map is one block that grows, so few are moved.
        let first = self.blocks.partition_point(|(block, _)| block.end() <= range.start);
        let last = self.blocks.partition_point(|(block, _)| block.start < range.end());
        let mut new: Vec<(DeviceRange, Status)> = Vec::new();
        for (block, old) in &self.blocks[first..last] {
            let before = range.start.0.saturating_sub(block.start.0);
            if before > 0 {
                new.push((DeviceRange::new(block.start.0, before), *old));
            }
        }
        new.push((range, status));
        for (block, old) in &self.blocks[first..last] {
            let behind = block.end().0.saturating_sub(range.end().0);
            if behind > 0 {
                new.push((DeviceRange::new(range.end().0, behind), *old));
            }
        }
        let (from, to) = (first.saturating_sub(1), (last + 1).min(self.blocks.len()));
        let mut joined: Vec<(DeviceRange, Status)> = Vec::new();
        for (block, status) in self.blocks[from..first].iter().chain(&new).chain(&self.blocks[last..to]) {
            match joined.last_mut() {
                Some((before, same)) if same == status && before.end() == block.start => before.len.0 += block.len.0,
                _ => joined.push((*block, *status)),
            }
        }
        self.blocks.splice(from..to, joined);
    }

    /// Places of this status, ascending.
    pub fn of(&self, wanted: Status) -> Vec<DeviceRange> {
        let of_it = self.blocks.iter().filter(|(_, status)| *status == wanted);
        of_it.map(|(range, _)| *range).collect()
    }

    /// Bytes of this status.
    pub fn len_of(&self, wanted: Status) -> ByteLen {
        ByteLen(self.of(wanted).iter().map(|range| range.len.0).sum())
    }

    /// As text. `notes` are lines of their own at its head.
    pub fn text(&self, notes: &[String]) -> String {
        let mut out = String::from("# Mapfile. Created by dray; GNU ddrescue reads it, too\n");
        notes.iter().for_each(|note| out.push_str(&format!("# {note}\n")));
        // What is to be done next, so that ddrescue continues at that place.
        let order = [Status::NonTried, Status::NonTrimmed, Status::NonScraped, Status::Bad];
        let next = order.into_iter().find_map(|status| Some((self.of(status).first()?.start, status)));
        let end = self.blocks.last().map_or(0, |(block, _)| block.end().0);
        let (at, letter) = match next {
            Some((at, Status::Bad)) => (at.0, '-'),
            Some((at, status)) => (at.0, status.letter()),
            None => (end, '+'),
        };
        let _ = writeln!(out, "# current_pos  current_status  current_pass\n{at:#010X}     {letter}               1");
        out.push_str("#      pos        size  status\n");
        for (block, status) in &self.blocks {
            let _ = writeln!(out, "{:#010X}  {:#010X}  {}", block.start.0, block.len.0, status.letter());
        }
        out
    }
}

/// Decimal, `0x…`, or octal with a leading zero, as C reads numbers.
fn number_of(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None if text.len() > 1 && text.starts_with('0') => u64::from_str_radix(&text[1..], 8).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DDRESCUE: &str = "# Mapfile. Created by GNU ddrescue version 1.27\n# Command line: ddrescue a b c\n\
        # Start time:   2026-11-29 08:00:00\n# Current time: 2026-11-29 08:00:01\n# Finished\n\
        # current_pos  current_status  current_pass\n0x00012000     +               1\n\
        #      pos        size  status\n0x00000000  0x00010000  +\n0x00010000  0x00000200  -\n0x00010200  0x0000FE00  +\n";

    #[test]
    fn what_ddrescue_writes_is_read() {
        let map = Map::parse(DDRESCUE, ByteLen(0x20000)).expect("a map");
        assert_eq!(map.of(Status::Bad), [DeviceRange::new(0x10000, 0x200)]);
        assert_eq!(map.len_of(Status::Finished), ByteLen(0x1FE00));
        // A longer drive goes on as not tried, a shorter one is cut.
        let longer = Map::parse(DDRESCUE, ByteLen(0x30000)).expect("a map");
        assert_eq!(longer.of(Status::NonTried), [DeviceRange::new(0x20000, 0x10000)]);
        let shorter = Map::parse(DDRESCUE, ByteLen(0x10100)).expect("a map");
        assert_eq!(shorter.of(Status::Bad), [DeviceRange::new(0x10000, 0x100)]);
        assert_eq!(Map::parse(&map.text(&["a note".into()]), ByteLen(0x20000)), Ok(map));
    }

    #[test]
    fn hostile_lines_are_named() {
        for (text, line) in [
            ("", 0),
            ("0x0 x 1\n", 1),
            ("0x0 ? 1\n0x0 0x10\n", 2),
            ("0x0 ? 1\n0x10 0x10 +\n", 2),
            ("0x0 ? 1\n0x0 0xFFFFFFFFFFFFFFFF +\n0x1 0x1 +\n", 3),
            ("0x0 ? 1\n0x0 0xFFFFFFFFFFFFFFFFFF +\n", 2),
            ("0x0 ? 1\n0x0 0x200 %\n", 2),
            ("0x0 ? 1\nzero 0x200 +\n", 2),
            ("# only\n", 0),
            ("word\n", 1),
        ] {
            assert_eq!(Map::parse(text, ByteLen(0x1000)).expect_err(text).line, line, "{text}");
        }
    }

    #[test]
    fn marks_split_and_join() {
        let mut map = Map::new(ByteLen(1000));
        map.set(DeviceRange::new(100, 100), Status::Finished);
        map.set(DeviceRange::new(300, 100), Status::Finished);
        map.set(DeviceRange::new(150, 200), Status::Bad);
        assert_eq!(map.of(Status::Finished), [DeviceRange::new(100, 50), DeviceRange::new(350, 50)]);
        map.set(DeviceRange::new(150, 200), Status::Finished);
        assert_eq!(map.of(Status::Finished), [DeviceRange::new(100, 300)]);
        map.set(DeviceRange::new(0, 1000), Status::NonTrimmed);
        assert_eq!(map.blocks, [(DeviceRange::new(0, 1000), Status::NonTrimmed)]);
        map.set(DeviceRange::new(500, 0), Status::Bad);
        map.set(DeviceRange::new(0, 1), Status::Bad);
        map.set(DeviceRange::new(999, 1), Status::Bad);
        assert_eq!(map.blocks.len(), 3);
    }
}
