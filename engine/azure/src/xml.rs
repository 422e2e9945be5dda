//! Common parts of all XML here: escaping for writing, bounded parsing for reading.

use std::io::{self, BufRead, Read};

use quick_xml::events::{BytesRef, Event};
use quick_xml::reader::Reader;

use crate::limits;
use crate::text::Utf8;

/// Whether XML 1.0 can carry `c` at all.
pub(super) const fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..)
}

/// The escape of `c`, if it needs one, in text and in attributes alike. Control characters that XML can carry only as
/// references are written as such: a reader would turn a bare CR into LF, and in attributes both into blanks.
/// Characters that XML cannot carry become U+FFFD: `names` refuses such names, so this only keeps the file well-formed.
fn escape_of(c: char) -> Option<&'static str> {
    Some(match c {
        '&' => "&amp;",
        '<' => "&lt;",
        '>' => "&gt;",
        '"' => "&quot;",
        '\t' => "&#9;",
        '\n' => "&#10;",
        '\r' => "&#13;",
        // XML 1.1 readers take these two for line ends.
        '\u{85}' => "&#x85;",
        '\u{2028}' => "&#x2028;",
        c if !is_xml_char(c) => "\u{FFFD}",
        _ => return None,
    })
}

/// Whether a byte can be part of a character that [`escape_of`] escapes: nearly no name has any.
const SUSPECT: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        // 0xC2, 0xE2 and 0xEF begin U+0085, U+2028 and U+FFFE; 0xF0 to 0xF4 are all well.
        table[byte] = byte < 0x20 || matches!(byte as u8, b'&' | b'<' | b'>' | b'"' | 0xC2 | 0xE2 | 0xEF);
        byte += 1;
    }
    table
};

fn is_plain(text: &str) -> bool {
    !text.bytes().any(|byte| SUSPECT[usize::from(byte)])
}

/// Bytes that [`push_escaped`] appends.
pub(super) fn escaped_len(text: &str) -> u64 {
    if is_plain(text) {
        return text.len() as u64;
    }
    text.chars().map(|c| escape_of(c).map_or(c.len_utf8(), str::len) as u64).sum()
}

/// Appends `text`, escaped.
pub(super) fn push_escaped(text: &str, out: &mut Vec<u8>) {
    if is_plain(text) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    let mut from = 0;
    for (at, c) in text.char_indices() {
        if let Some(escape) = escape_of(c) {
            out.extend_from_slice(&text.as_bytes()[from..at]);
            out.extend_from_slice(escape.as_bytes());
            from = at + c.len_utf8();
        }
    }
    out.extend_from_slice(&text.as_bytes()[from..]);
}

/// Appends markup as it is.
pub(super) fn text(out: &mut Vec<u8>, parts: &[&str]) {
    parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
}

/// Appends an element that holds `value`, escaped.
pub(super) fn element(out: &mut Vec<u8>, name: &str, value: &str) {
    text(out, &["<", name, ">"]);
    push_escaped(value, out);
    text(out, &["</", name, ">"]);
}

/// Counts lines, and enforces a budget of bytes for one piece of markup or text, since the parser holds it.
#[derive(Debug)]
pub(super) struct Bounded<R> {
    inner: R,
    budget: usize,
    line: u64,
}

/// Message of the `io::Error` that reports an exhausted budget.
const TOO_LONG: &str = "one element or text is too long";

impl<R: BufRead> BufRead for Bounded<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.budget == 0 {
            return Err(io::Error::other(TOO_LONG));
        }
        let available = self.inner.fill_buf()?;
        Ok(&available[..available.len().min(self.budget)])
    }

    fn consume(&mut self, amount: usize) {
        if let Ok(available) = self.inner.fill_buf() {
            let consumed = &available[..amount.min(available.len())];
            self.line += consumed.iter().filter(|b| **b == b'\n').count() as u64;
        }
        self.budget = self.budget.saturating_sub(amount);
        self.inner.consume(amount);
    }
}

impl<R: BufRead> Read for Bounded<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let len = available.len().min(out.len());
        out[..len].copy_from_slice(&available[..len]);
        self.consume(len);
        Ok(len)
    }
}

/// Position and reason at which reading ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, byte {byte}: {what}")]
pub struct XmlError {
    /// Line, from 1.
    pub line: u64,
    /// Byte offset in the file.
    pub byte: u64,
    /// The reason, as a sentence without full stop.
    pub what: String,
}

/// One step of a document, with entities resolved and comments dropped.
#[derive(Debug)]
pub enum XmlEvent {
    /// Start of an element; `empty` when it has no content, and then no [`XmlEvent::End`] follows.
    Start {
        /// As the file spells it.
        name: String,
        /// Names and values, in file order.
        attributes: Vec<(String, String)>,
        /// Whether it is over with its start.
        empty: bool,
    },
    /// End of an element.
    End,
    /// Text; possibly several in a row.
    Text(String),
    /// End of the document.
    Eof,
}

/// A pull parser over quick-xml that bounds the length of one step, counts lines, and refuses document types.
#[derive(Debug)]
pub struct Steps<R> {
    reader: Reader<Bounded<Utf8<R>>>,
    buffer: Vec<u8>,
    step_max: usize,
    /// Open elements.
    pub depth: usize,
    /// Refuses a declaration of anything but UTF-8: other programs read the file unchanged.
    pub only_utf8: bool,
}

impl<R: BufRead> Steps<R> {
    /// `step_max`: bytes that one tag or text may have.
    pub fn new(input: R, step_max: usize) -> Self {
        let reader = Reader::from_reader(Bounded { inner: Utf8::new(input), budget: step_max, line: 1 });
        Self { reader, buffer: Vec::new(), step_max, depth: 0, only_utf8: false }
    }

    /// An error at this place.
    pub fn error(&mut self, what: impl Into<String>) -> XmlError {
        XmlError { line: self.line(), byte: self.byte(), what: what.into() }
    }

    /// Line, from 1.
    pub fn line(&mut self) -> u64 {
        self.reader.get_mut().line
    }

    /// Byte from the start.
    pub fn byte(&self) -> u64 {
        self.reader.buffer_position()
    }

    /// The next step.
    ///
    /// # Errors
    /// When the document is not well-formed, or past a limit.
    #[allow(clippy::should_implement_trait, reason = "steps fail")]
    pub fn next(&mut self) -> Result<XmlEvent, XmlError> {
        loop {
            self.buffer.clear();
            self.reader.get_mut().budget = self.step_max;
            let mut what = None;
            match self.reader.read_event_into(&mut self.buffer) {
                Ok(Event::Start(start)) => match attributes_of(&start) {
                    // Real files nest five deep; the parser keeps the name of every open element.
                    Ok(_) if self.depth >= limits::XML_DEPTH_MAX => what = Some("elements nest too deep".into()),
                    Ok(attributes) => {
                        self.depth += 1;
                        return Ok(XmlEvent::Start {
                            name: start.name().as_ref().to_owned(),
                            attributes,
                            empty: false,
                        });
                    }
                    Err(e) => what = Some(e.to_string()),
                },
                Ok(Event::Empty(start)) => match attributes_of(&start) {
                    Ok(attributes) => {
                        return Ok(XmlEvent::Start { name: start.name().as_ref().to_owned(), attributes, empty: true });
                    }
                    Err(e) => what = Some(e.to_string()),
                },
                Ok(Event::End(_)) => {
                    self.depth = self.depth.saturating_sub(1);
                    return Ok(XmlEvent::End);
                }
                Ok(Event::Text(text)) => return Ok(XmlEvent::Text(text.xml10_content().into_owned())),
                Ok(Event::CData(text)) => return Ok(XmlEvent::Text(text.xml10_content().into_owned())),
                Ok(Event::GeneralRef(reference)) => match resolve(&reference) {
                    Ok(c) => return Ok(XmlEvent::Text(c.to_string())),
                    Err(e) => what = Some(e.to_string()),
                },
                Ok(Event::Decl(declaration)) => match declaration.encoding() {
                    // The text is decoded by its actual form: PowerShell and .NET write one form and declare another.
                    Some(Ok(encoding)) if !is_declared(&encoding, self.only_utf8) => {
                        what = Some(format!("encoding is {encoding}; write the file as UTF-8"));
                    }
                    Some(Err(e)) => what = Some(e.to_string()),
                    _ => {}
                },
                Ok(Event::DocType(_)) => what = Some("has a document type, which is not allowed here".into()),
                Ok(Event::Comment(_) | Event::PI(_)) => {}
                Ok(Event::Eof) if self.depth > 0 => what = Some("ends within an element".into()),
                Ok(Event::Eof) => return Ok(XmlEvent::Eof),
                Err(quick_xml::Error::Io(e)) => what = Some(e.to_string()),
                Err(e) => what = Some(e.to_string()),
            }
            if let Some(what) = what {
                return Err(self.error(what));
            }
        }
    }

    /// The text of an element whose start was just read, up to its end; child elements are an error.
    ///
    /// # Errors
    /// As [`Steps::next`], and for a text longer than `len_max`.
    pub fn text(&mut self, element: &str, len_max: usize) -> Result<String, XmlError> {
        let mut out = String::new();
        loop {
            match self.next()? {
                XmlEvent::Text(text) if out.len() + text.len() <= len_max => out.push_str(&text),
                XmlEvent::Text(_) => return Err(self.error(format!("{element} is longer than {len_max} bytes"))),
                XmlEvent::End => return Ok(out),
                XmlEvent::Start { name, .. } => return Err(self.error(format!("{name} within {element}"))),
                XmlEvent::Eof => return Err(self.error(format!("ends within {element}"))),
            }
        }
    }

    /// Skips an element whose start was just read.
    ///
    /// # Errors
    /// As [`Steps::next`].
    pub fn skip(&mut self) -> Result<(), XmlError> {
        let until = self.depth - 1;
        while self.depth > until {
            if let XmlEvent::Eof = self.next()? {
                return Err(self.error("ends within an element"));
            }
        }
        Ok(())
    }
}

/// Encodings that a declaration may name.
fn is_declared(encoding: &str, only_utf8: bool) -> bool {
    let known = ["utf-8", "us-ascii", "utf8", "ascii", "utf-16", "utf-16le", "utf-16be", "unicode"];
    let known = if only_utf8 { &known[..2] } else { &known[..] };
    known.iter().any(|known| encoding.eq_ignore_ascii_case(known))
}

/// Markup that cannot be taken.
#[derive(Debug, thiserror::Error)]
enum MarkupError {
    #[error(transparent)]
    Attribute(#[from] quick_xml::events::attributes::AttrError),
    #[error(transparent)]
    Value(#[from] quick_xml::Error),
    #[error("&{0}; is no character")]
    NoCharacter(String),
    #[error("entity &{0}; is not known")]
    UnknownEntity(String),
}

fn attributes_of(start: &quick_xml::events::BytesStart<'_>) -> Result<Vec<(String, String)>, MarkupError> {
    let mut out = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute?;
        let value = attribute.normalized_value(quick_xml::XmlVersion::Implicit1_0)?;
        out.push((attribute.key.as_ref().to_owned(), value.into_owned()));
    }
    Ok(out)
}

fn resolve(reference: &BytesRef<'_>) -> Result<char, MarkupError> {
    let name = reference.xml10_content();
    match reference.resolve_char_ref() {
        Ok(Some(c)) if is_xml_char(c) => return Ok(c),
        Ok(Some(_)) | Err(_) => return Err(MarkupError::NoCharacter(name.into_owned())),
        Ok(None) => {}
    }
    Ok(match name.as_ref() {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => return Err(MarkupError::UnknownEntity(name.into_owned())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_that_needs_an_escape_is_suspect() {
        for c in (0..=0x10_FFFF).filter_map(char::from_u32) {
            let mut buffer = [0; 4];
            let text: &str = c.encode_utf8(&mut buffer);
            assert!(escape_of(c).is_none() || !is_plain(text), "U+{:04X}", c as u32);
            let mut out = Vec::new();
            push_escaped(text, &mut out);
            assert_eq!(out.len() as u64, escaped_len(text));
        }
    }
}
