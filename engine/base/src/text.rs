//! Text files that people hand in: one decoding for all of them, and names for characters that cannot be seen.
//!
//! Windows writes UTF-16 (Notepad, PowerShell 5 `>` and `Out-File`, the saved recovery key) and UTF-8 with a mark;
//! tools in between write UTF-16 without one. Other bytes are left unchanged: code pages agree with ASCII, and a path
//! on Linux is bytes.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::io::{self, BufRead, Read};

use zeroize::Zeroizing;

/// Encoding of a text file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// UTF-8, or a code page that agrees with ASCII.
    Bytes,
    /// UTF-16 or UTF-32: the width of a unit in bytes, 2 or 4, and whether its lowest byte comes first.
    Wide {
        /// Bytes of a unit.
        width: usize,
        /// Lowest byte first.
        little: bool,
    },
}

/// Bytes that [`sniff`] looks at.
pub const SNIFF_LEN: usize = 64;

/// The form, and the length of the byte-order mark, by the first [`SNIFF_LEN`] bytes.
///
/// Without a mark a text is wide when its units are: mostly ASCII, and none of them zero. Binary files have zero
/// units within a few fields.
pub fn sniff(head: &[u8]) -> (Form, usize) {
    const fn wide(width: usize, little: bool) -> Form {
        Form::Wide { width, little }
    }
    match head {
        [0xEF, 0xBB, 0xBF, ..] => return (Form::Bytes, 3),
        [0xFF, 0xFE, 0, 0, ..] => return (wide(4, true), 4),
        [0, 0, 0xFE, 0xFF, ..] => return (wide(4, false), 4),
        [0xFF, 0xFE, ..] => return (wide(2, true), 2),
        [0xFE, 0xFF, ..] => return (wide(2, false), 2),
        _ => {}
    }
    let head = &head[..head.len().min(SNIFF_LEN)];
    for (width, little) in [(4, true), (4, false), (2, true), (2, false)] {
        let units: Vec<u32> = head.chunks_exact(width).map(|bytes| unit(bytes, little)).collect();
        let is_text = |unit: &&u32| matches!(**unit, 0x09 | 0x0A | 0x0D | 0x20..=0x7E);
        let plain = units.iter().filter(is_text).count();
        if units.len() >= 2 && !units.contains(&0) && plain * 2 >= units.len() {
            return (wide(width, little), 0);
        }
    }
    (Form::Bytes, 0)
}

/// A unit's value.
fn unit(bytes: &[u8], little: bool) -> u32 {
    let add = |value: u32, byte: &u8| value << 8 | u32::from(*byte);
    if little { bytes.iter().rev().fold(0, add) } else { bytes.iter().fold(0, add) }
}

/// Turns units into UTF-8, however the bytes arrive.
#[derive(Debug)]
struct Units {
    width: usize,
    little: bool,
    /// Bytes of an incomplete unit.
    begun: Vec<u8>,
    /// The first half of a surrogate pair.
    high: Option<u16>,
}

impl Units {
    fn new(width: usize, little: bool) -> Self {
        Self { width, little, begun: Vec::with_capacity(width), high: None }
    }

    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for byte in bytes {
            self.begun.push(*byte);
            if self.begun.len() == self.width {
                let unit = unit(&self.begun, self.little);
                self.begun.clear();
                self.unit(unit, out);
            }
        }
    }

    fn unit(&mut self, unit: u32, out: &mut Vec<u8>) {
        let narrow = u16::try_from(unit).ok().filter(|_| self.width == 2);
        let pair = match (self.high.take(), narrow) {
            (Some(high), Some(low @ 0xDC00..=0xDFFF)) => {
                Some(0x1_0000 + (u32::from(high) - 0xD800) * 0x400 + (u32::from(low) - 0xDC00))
            }
            (Some(_), _) => {
                emit(char::REPLACEMENT_CHARACTER, out);
                None
            }
            (None, _) => None,
        };
        match narrow {
            Some(high @ 0xD800..=0xDBFF) => self.high = Some(high),
            _ => emit(char::from_u32(pair.unwrap_or(unit)).unwrap_or(char::REPLACEMENT_CHARACTER), out),
        }
    }

    /// Incomplete input becomes one replacement character.
    fn finish(&mut self, out: &mut Vec<u8>) {
        if self.high.take().is_some() || !self.begun.is_empty() {
            self.begun.clear();
            emit(char::REPLACEMENT_CHARACTER, out);
        }
    }
}

fn emit(c: char, out: &mut Vec<u8>) {
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

/// The bytes as UTF-8 without a mark, where they are UTF-8 or a wide form; others as they are. A converted copy may hold
/// a key and is the caller's to wipe.
pub fn decode(input: &[u8]) -> Cow<'_, [u8]> {
    let (form, mark) = sniff(input);
    match form {
        Form::Bytes => Cow::Borrowed(&input[mark..]),
        Form::Wide { width, little } => {
            // Room for all at once: a buffer that grows leaves copies behind.
            let mut out = Vec::with_capacity(input.len() / width * (width + 1) + 3);
            let mut units = Units::new(width, little);
            units.push(&input[mark..], &mut out);
            units.finish(&mut out);
            Cow::Owned(out)
        }
    }
}

/// As [`decode`], of a whole text file.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] for bytes that are of a code page; names the line.
pub fn decode_text(input: &[u8]) -> io::Result<Zeroizing<String>> {
    let bytes = Zeroizing::new(decode(input).into_owned());
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(error) => {
            let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
            let byte = bytes[error.valid_up_to()];
            let what = format!("line {line} holds the byte 0x{byte:02X}, which is not UTF-8; save the file as UTF-8");
            Err(io::Error::new(io::ErrorKind::InvalidData, what))
        }
    }
}

/// A reader of a text file that gives UTF-8 without a mark, as [`decode`] does.
#[derive(Debug)]
pub struct Utf8<R> {
    inner: R,
    /// `None` until the first bytes have been read.
    units: Option<Option<Units>>,
    out: Zeroizing<Vec<u8>>,
    at: usize,
}

impl<R: BufRead> Utf8<R> {
    /// `inner` must be at the first byte of the file.
    pub fn new(inner: R) -> Self {
        Self { inner, units: None, out: Zeroizing::new(Vec::new()), at: 0 }
    }

    fn begin(&mut self) -> io::Result<()> {
        let mut head = Zeroizing::new(Vec::with_capacity(SNIFF_LEN));
        (&mut self.inner).take(SNIFF_LEN as u64).read_to_end(&mut head)?;
        let (form, mark) = sniff(&head);
        match form {
            Form::Bytes => {
                self.out.extend_from_slice(&head[mark..]);
                self.units = Some(None);
            }
            Form::Wide { width, little } => {
                let mut units = Units::new(width, little);
                units.push(&head[mark..], &mut self.out);
                self.units = Some(Some(units));
            }
        }
        Ok(())
    }
}

impl<R: BufRead> BufRead for Utf8<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.units.is_none() {
            self.begin()?;
        }
        if let Some(Some(units)) = &mut self.units {
            while self.at == self.out.len() {
                (self.at, self.out) = (0, Zeroizing::new(Vec::new()));
                let bytes = self.inner.fill_buf()?;
                if bytes.is_empty() {
                    units.finish(&mut self.out);
                    break;
                }
                units.push(bytes, &mut self.out);
                let len = bytes.len();
                self.inner.consume(len);
            }
        }
        if self.at < self.out.len() || matches!(self.units, Some(Some(_))) {
            return Ok(&self.out[self.at..]);
        }
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        if self.at < self.out.len() {
            self.at += amount;
        } else {
            self.inner.consume(amount);
        }
    }
}

impl<R: BufRead> Read for Utf8<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let len = available.len().min(out.len());
        out[..len].copy_from_slice(&available[..len]);
        self.consume(len);
        Ok(len)
    }
}

/// Characters that look like others or like nothing, with their Unicode names. Sorted.
const LOOKALIKES: [(char, &str); 57] = [
    ('\u{7F}', "DELETE"),
    ('\u{A0}', "NO-BREAK SPACE"),
    ('\u{AB}', "LEFT-POINTING DOUBLE ANGLE QUOTATION MARK"),
    ('\u{AD}', "SOFT HYPHEN"),
    ('\u{BB}', "RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK"),
    ('\u{34F}', "COMBINING GRAPHEME JOINER"),
    ('\u{61C}', "ARABIC LETTER MARK"),
    ('\u{1680}', "OGHAM SPACE MARK"),
    ('\u{180E}', "MONGOLIAN VOWEL SEPARATOR"),
    ('\u{2000}', "EN QUAD"),
    ('\u{2001}', "EM QUAD"),
    ('\u{2002}', "EN SPACE"),
    ('\u{2003}', "EM SPACE"),
    ('\u{2004}', "THREE-PER-EM SPACE"),
    ('\u{2005}', "FOUR-PER-EM SPACE"),
    ('\u{2006}', "SIX-PER-EM SPACE"),
    ('\u{2007}', "FIGURE SPACE"),
    ('\u{2008}', "PUNCTUATION SPACE"),
    ('\u{2009}', "THIN SPACE"),
    ('\u{200A}', "HAIR SPACE"),
    ('\u{200B}', "ZERO WIDTH SPACE"),
    ('\u{200C}', "ZERO WIDTH NON-JOINER"),
    ('\u{200D}', "ZERO WIDTH JOINER"),
    ('\u{200E}', "LEFT-TO-RIGHT MARK"),
    ('\u{200F}', "RIGHT-TO-LEFT MARK"),
    ('\u{2010}', "HYPHEN"),
    ('\u{2011}', "NON-BREAKING HYPHEN"),
    ('\u{2012}', "FIGURE DASH"),
    ('\u{2013}', "EN DASH"),
    ('\u{2014}', "EM DASH"),
    ('\u{2015}', "HORIZONTAL BAR"),
    ('\u{2018}', "LEFT SINGLE QUOTATION MARK"),
    ('\u{2019}', "RIGHT SINGLE QUOTATION MARK"),
    ('\u{201A}', "SINGLE LOW-9 QUOTATION MARK"),
    ('\u{201B}', "SINGLE HIGH-REVERSED-9 QUOTATION MARK"),
    ('\u{201C}', "LEFT DOUBLE QUOTATION MARK"),
    ('\u{201D}', "RIGHT DOUBLE QUOTATION MARK"),
    ('\u{201E}', "DOUBLE LOW-9 QUOTATION MARK"),
    ('\u{201F}', "DOUBLE HIGH-REVERSED-9 QUOTATION MARK"),
    ('\u{2028}', "LINE SEPARATOR"),
    ('\u{2029}', "PARAGRAPH SEPARATOR"),
    ('\u{202A}', "LEFT-TO-RIGHT EMBEDDING"),
    ('\u{202B}', "RIGHT-TO-LEFT EMBEDDING"),
    ('\u{202C}', "POP DIRECTIONAL FORMATTING"),
    ('\u{202D}', "LEFT-TO-RIGHT OVERRIDE"),
    ('\u{202E}', "RIGHT-TO-LEFT OVERRIDE"),
    ('\u{202F}', "NARROW NO-BREAK SPACE"),
    ('\u{205F}', "MEDIUM MATHEMATICAL SPACE"),
    ('\u{2060}', "WORD JOINER"),
    ('\u{2066}', "LEFT-TO-RIGHT ISOLATE"),
    ('\u{2067}', "RIGHT-TO-LEFT ISOLATE"),
    ('\u{2068}', "FIRST STRONG ISOLATE"),
    ('\u{2069}', "POP DIRECTIONAL ISOLATE"),
    ('\u{2212}', "MINUS SIGN"),
    ('\u{3000}', "IDEOGRAPHIC SPACE"),
    ('\u{FEFF}', "ZERO WIDTH NO-BREAK SPACE"),
    ('\u{FF02}', "FULLWIDTH QUOTATION MARK"),
];

/// The name of a character that cannot be seen, or is easily taken for another: `U+00A0 NO-BREAK SPACE`.
pub fn name_of(c: char) -> Option<String> {
    let name = match c {
        '\u{1A}' => "SUBSTITUTE (Ctrl-Z)",
        '\0'..='\u{1F}' | '\u{80}'..='\u{9F}' => "CONTROL CHARACTER",
        _ => LOOKALIKES[LOOKALIKES.binary_search_by_key(&c, |(known, _)| *known).ok()?].1,
    };
    Some(format!("U+{:04X} {name}", c as u32))
}

/// Whether a character has no visible shape or looks like a blank.
pub fn is_invisible(c: char) -> bool {
    !matches!(c, ' ' | '\t') && (c.is_control() || c.is_whitespace() || is_format(c))
}

/// Characters of no width.
const fn is_format(c: char) -> bool {
    matches!(c, '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}')
        || matches!(c, '\u{2060}'..='\u{2069}' | '\u{FEFF}')
}

/// Quotation marks that word processors set in place of `"` and `'`.
pub const fn is_typographic_quote(c: char) -> bool {
    matches!(c, '\u{2018}'..='\u{201F}' | '\u{AB}' | '\u{BB}' | '\u{FF02}')
}

/// Hyphens and dashes of all lengths.
pub const fn is_dash(c: char) -> bool {
    matches!(
        c,
        '-' | '\u{AD}' | '\u{2010}'..='\u{2015}' | '\u{2043}' | '\u{2212}' | '\u{FE58}' | '\u{FE63}' | '\u{FF0D}'
    )
}

/// Whether a character is a blank of any width, also of none.
pub fn is_blank(c: char) -> bool {
    c.is_whitespace() || is_format(c)
}

/// The first invisible character of a text, by name, with its position from 1.
pub fn invisible(text: &str) -> Option<(usize, String)> {
    let (at, c) = text.chars().enumerate().find(|(_, c)| is_invisible(*c))?;
    Some((at + 1, name_of(c).unwrap_or_else(|| format!("U+{:04X}", c as u32))))
}

/// Whether a character is better shown by its number: it is invisible, or changes the display of its neighbours.
///
/// Controls, line and paragraph separators, marks, embeddings, overrides and isolates of direction (Unicode 15, UAX
/// #9), blanks without width, and code points reserved for protocols. Joiners stay: names in Persian and emoji need
/// them.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{AD}'
                | '\u{61C}'
                | '\u{180E}'
                | '\u{200B}'
                | '\u{200E}'
                | '\u{200F}'
                | '\u{2028}'..='\u{202E}'
                | '\u{2060}'..='\u{206F}'
                | '\u{FEFF}'
                | '\u{FFF9}'..='\u{FFFB}'
                | '\u{E0000}'..='\u{E007F}'
        )
}

/// A number with its noun: `1 file`, `2 files`, `2 entries`. Nouns are given in the singular.
pub fn counted(n: u64, noun: &str) -> String {
    match (n, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{n} {stem}ies"),
        _ => format!("{n} {noun}s"),
    }
}

/// `text` with such characters shown by number: a file name must neither move the cursor nor pass for another name.
pub fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else if is_hidden(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text in each form, with and without a mark.
    fn forms(text: &str) -> Vec<Vec<u8>> {
        let mut out = vec![text.as_bytes().to_vec(), format!("\u{FEFF}{text}").into_bytes()];
        for marked in [text.to_owned(), format!("\u{FEFF}{text}")] {
            out.push(marked.encode_utf16().flat_map(u16::to_le_bytes).collect());
            out.push(marked.encode_utf16().flat_map(u16::to_be_bytes).collect());
            out.push(marked.chars().flat_map(|c| (c as u32).to_le_bytes()).collect());
            out.push(marked.chars().flat_map(|c| (c as u32).to_be_bytes()).collect());
        }
        out
    }

    #[test]
    fn every_form_is_read_in_one_piece_and_in_many() {
        let long = format!("BasePath,Dst\r\n{}", "/ä/\u{1F600}/日本,con/\n".repeat(1000));
        for text in ["BasePath,Dst", "<?xml version=\"1.0\"?><Drive>ä\u{1F600}</Drive>", &long] {
            for input in forms(text) {
                assert_eq!(&*decode(&input), text.as_bytes(), "{:?}", sniff(&input));
                for piece in [1, 3, 61, 8192] {
                    let mut out = String::new();
                    Utf8::new(io::BufReader::with_capacity(piece, &input[..])).read_to_string(&mut out).unwrap();
                    assert_eq!(out, text, "{piece} {:?}", sniff(&input));
                }
            }
        }
    }

    #[test]
    fn what_is_no_text_stays_as_it_is() {
        for input in [&b""[..], b"\xFF", b"a", b"/\xE4/", b"a\0\0\0", &[0x9C, 0, 0, 0, 1, 0, 0, 0, 0x30, 0, 0, 0]] {
            assert_eq!(&*decode(input), input);
            let mut out = Vec::new();
            Utf8::new(input).read_to_end(&mut out).unwrap();
            assert_eq!(out, input);
        }
        let error = decode_text(b"a\nb\xE4").unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("0xE4"), "{error}");
        // Half a character at the end.
        assert_eq!(&*decode(b"\xFF\xFEa\0\x3D\xD8"), "a\u{FFFD}".as_bytes());
        assert_eq!(&*decode(b"\xFF\xFEa\0b"), "a\u{FFFD}".as_bytes());
    }

    #[test]
    fn characters_that_cannot_be_seen_have_names() {
        assert!(LOOKALIKES.is_sorted_by_key(|(c, _)| *c));
        assert_eq!(name_of('\u{A0}').as_deref(), Some("U+00A0 NO-BREAK SPACE"));
        assert_eq!(name_of('\u{1A}').as_deref(), Some("U+001A SUBSTITUTE (Ctrl-Z)"));
        assert_eq!(name_of('a'), None);
        assert_eq!(invisible("ab\u{200B}"), Some((3, "U+200B ZERO WIDTH SPACE".into())));
        assert_eq!(invisible("a b\t-\u{2013}"), None);
        for c in (0..=0x10_FFFF).filter_map(char::from_u32).filter(|c| is_invisible(*c)) {
            assert!(name_of(c).is_some() || is_format(c), "{:04X}", c as u32);
        }
    }

    #[test]
    fn nothing_in_a_name_turns_what_is_shown() {
        assert_eq!(shown("a\u{202E}gpj.exe"), "a\\u{202e}gpj.exe");
        assert_eq!(
            shown("a\u{2028}b\u{2066}c\u{200F}\u{FEFF}\n\x1b[2J\u{9b}"),
            "a\\u{2028}b\\u{2066}c\\u{200f}\\u{feff}\\n\\u{1b}[2J\\u{9b}"
        );
        assert_eq!(shown("Grüße 東京 👩\u{200D}🔧 ✓"), "Grüße 東京 👩\u{200D}🔧 ✓");
    }
}
