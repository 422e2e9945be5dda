//! Names that Windows can open, and substitutes for others (docs/spec/ntfs.md#names).
//!
//! Two names of one directory that [`super::upcase::equal_folded`] treats as the same cannot be recognised from one
//! name alone; the planner of directories looks for them, and gives all but one of them a [`safe_name`].

use std::fmt;

use super::format::NAME_UNITS_MAX;

/// Reason why Windows cannot open a name, or NTFS cannot hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameProblem {
    /// The name is empty.
    Empty,
    /// More than 255 UTF-16 units.
    TooLong {
        /// UTF-16 units of the name.
        units: usize,
    },
    /// A control character, or one of `" * / : < > ? \ |`.
    Character(char),
    /// `.` or `..`.
    Dots,
    /// A dot or blank at the end, which Windows removes.
    Tail,
    /// A device name, with any extension: `CON`, `nul.txt`.
    Device,
    /// The name of a metafile, in the root.
    Metafile,
}

impl fmt::Display for NameProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("is empty"),
            Self::TooLong { units } => write!(f, "has {units} UTF-16 units, {NAME_UNITS_MAX} is the most"),
            Self::Character(character) => write!(f, "has {character:?}, which no Windows name may have"),
            Self::Dots => f.write_str("is made of dots"),
            Self::Tail => f.write_str("ends in a dot or a blank, which Windows drops"),
            Self::Device => f.write_str("is a device to Windows"),
            Self::Metafile => f.write_str("is a metafile of NTFS"),
        }
    }
}

const DEVICES: [&str; 6] = ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"];
/// Device names when a digit follows: 1 to 9, or superscript 1 to 3.
const NUMBERED_DEVICES: [&str; 2] = ["COM", "LPT"];

fn is_illegal(character: char) -> bool {
    character < ' ' || "\"*/:<>?\\|".contains(character)
}

fn is_device(name: &str) -> bool {
    let base = name.split_once('.').map_or(name, |(base, _)| base).trim_end_matches(' ');
    DEVICES.iter().any(|device| base.eq_ignore_ascii_case(device))
        || NUMBERED_DEVICES.iter().any(|device| {
            let (head, digit) = (base.get(..device.len()), base.get(device.len()..));
            let mut digit = digit.unwrap_or_default().chars();
            head.is_some_and(|head| head.eq_ignore_ascii_case(device))
                && matches!(digit.next(), Some('1'..='9' | '¹' | '²' | '³'))
                && digit.next().is_none()
        })
}

/// The problem of a name in any directory; `None`: Windows opens it.
pub fn problem(name: &str) -> Option<NameProblem> {
    if name.is_empty() {
        return Some(NameProblem::Empty);
    }
    if name == "." || name == ".." {
        return Some(NameProblem::Dots);
    }
    if let Some(character) = name.chars().find(|&character| is_illegal(character)) {
        return Some(NameProblem::Character(character));
    }
    let units = name.encode_utf16().count();
    if units > NAME_UNITS_MAX {
        return Some(NameProblem::TooLong { units });
    }
    if name.ends_with(['.', ' ']) {
        return Some(NameProblem::Tail);
    }
    is_device(name).then_some(NameProblem::Device)
}

/// The problem of a name in the volume's root.
pub fn problem_in_root(name: &str) -> Option<NameProblem> {
    const IN_ROOT: [&str; 11] = [
        "$MFT", "$MFTMirr", "$LogFile", "$Volume", "$AttrDef", "$Bitmap", "$Boot", "$BadClus", "$Secure", "$UpCase",
        "$Extend",
    ];
    let same = |metafile: &str| super::upcase::equal_folded(metafile.encode_utf16(), name.encode_utf16());
    problem(name).or_else(|| IN_ROOT.iter().any(|metafile| same(metafile)).then_some(NameProblem::Metafile))
}

/// Longest extension that is kept, in units.
const EXTENSION_UNITS_MAX: usize = 32;
/// Substitute for a forbidden character.
const STAND_IN: char = '_';

/// A name that Windows opens, similar to `name`, with its extension, and marked by `disambiguator` (`a:b.txt` becomes
/// `a_b~2f.txt`). The same arguments give the same name; the result is valid in the root too.
pub fn safe_name(name: &str, disambiguator: u64) -> String {
    let is_extension = |(stem, extension): &(&str, &str)| {
        !stem.is_empty() && !extension.is_empty() && extension.encode_utf16().count() <= EXTENSION_UNITS_MAX
    };
    let (stem, extension) = match name.rsplit_once('.').filter(is_extension) {
        Some((stem, extension)) => (stem, Some(extension)),
        None => (name, None),
    };
    let legal = |text: &str| -> String {
        text.chars().map(|character| if is_illegal(character) { STAND_IN } else { character }).collect()
    };
    let mut tail = format!("~{disambiguator:x}");
    if let Some(extension) = extension {
        let kept = legal(extension);
        let end = kept.trim_end_matches([' ', '.']);
        tail.push('.');
        tail.push_str(end);
        tail.extend(kept[end.len()..].chars().map(|_| STAND_IN));
    }
    let mut out = String::new();
    // `con.tar` is still a device name after `~2f.gz` was appended to it.
    if is_device(name) {
        out.push(STAND_IN);
    }
    let mut units = out.len() + tail.encode_utf16().count();
    for character in legal(stem).chars() {
        units += character.len_utf16();
        if units > NAME_UNITS_MAX {
            break;
        }
        out.push(character);
    }
    out.push_str(&tail);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use dray_base::entropy::Seeded;

    #[test]
    fn names_that_windows_refuses_are_told() {
        use NameProblem as P;
        for (name, expected) in [
            ("", P::Empty),
            (".", P::Dots),
            ("..", P::Dots),
            ("a:b", P::Character(':')),
            ("a\u{1}", P::Character('\u{1}')),
            ("a/b", P::Character('/')),
            ("end.", P::Tail),
            ("end ", P::Tail),
            ("con", P::Device),
            ("Nul.txt", P::Device),
            ("nul .txt", P::Device),
            ("LPT9.a.b", P::Device),
            ("com¹", P::Device),
            ("conin$", P::Device),
        ] {
            assert_eq!(problem(name), Some(expected), "{name:?}");
        }
        assert_eq!(problem(&"\u{1F600}".repeat(128)), Some(P::TooLong { units: 256 }));
        for fine in ["a", ".profile", "console", "com", "com10", "COM0", "lpt²x", "a.con", "~", "\u{7F}", "é", "$MFT"]
        {
            assert_eq!(problem(fine), None, "{fine:?}");
        }
        assert_eq!(problem(&("\u{1F600}".repeat(127) + "x")), None);
        assert_eq!(problem_in_root("$mft"), Some(P::Metafile));
        assert_eq!(problem_in_root("$MFT2"), None);
    }

    #[test]
    fn safe_names_keep_what_they_can() {
        assert_eq!(safe_name("a:b.txt", 0x2F), "a_b~2f.txt");
        assert_eq!(safe_name("con", 1), "_con~1");
        assert_eq!(safe_name("con.tar.gz", 1), "_con.tar~1.gz");
        assert_eq!(safe_name("trailing. ", 7), "trailing~7._");
        assert_eq!(safe_name("..", 7), "..~7");
        assert_eq!(safe_name("", 7), "~7");
        assert_eq!(safe_name(".profile", 7), ".profile~7");
        let long = safe_name(&("\u{1F600}".repeat(200) + ".jpeg"), u64::MAX);
        assert!(long.ends_with("~ffffffffffffffff.jpeg") && long.encode_utf16().count() >= 254);
    }

    #[test]
    fn hostile_names_become_legal_and_stay_apart() {
        let mut random = Seeded::new(5);
        let pieces =
            ["con", "COM1", ".", "..", " ", ":", "\\", "\u{1F600}", "a", "¹", "$MFT", "\0", "nul .", "é", "~1"];
        for round in 0..20_000 {
            let mut name = String::new();
            for _ in 0..random.next_u64() % 9 {
                let piece = pieces[(random.next_u64() % pieces.len() as u64) as usize];
                name.push_str(&piece.repeat(if random.next_u64().is_multiple_of(20) { 90 } else { 1 }));
            }
            let safe = safe_name(&name, round);
            assert_eq!(problem_in_root(&safe), None, "{name:?} -> {safe:?}");
            assert_eq!(safe, safe_name(&name, round));
            assert_ne!(safe, safe_name(&name, round + 1));
        }
    }
}
