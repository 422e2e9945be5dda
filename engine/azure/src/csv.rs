//! The lenient CSV dialect of dataset, driveset and inventory files.
//!
//! RFC 4180 with the deviations of the published samples (docs/spec/import-export.md#data-set-columns): blanks around
//! fields, a trailing ` |`, a backslash in front of a closing quote that escapes nothing, blank lines, any line end or
//! none at the end; and with those of spreadsheets and editors: a line `sep=;`, semicolons or tabs for commas,
//! typographic quotes, invisible characters, a Ctrl-Z at the end.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use zeroize::Zeroizing;

use crate::limits;
use crate::problem::{Kind, Problem, Problems};
use crate::text;
use crate::text::counted;

/// A field without its quotes and without the blanks around it. Wiped on drop: one column of a driveset is a key.
#[derive(Clone)]
pub(super) struct Field {
    pub bytes: Zeroizing<Vec<u8>>,
    pub quoted: bool,
}

impl Field {
    /// The field as text for messages and for columns whose values are ASCII.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// A record and the line, from 1, of its beginning.
pub(super) struct Record {
    pub line: u64,
    pub fields: Vec<Field>,
}

/// Column names of the header.
pub(super) struct Header {
    columns: HashMap<String, usize>,
    names: Vec<String>,
}

impl Header {
    /// Whether the header has the column `name`, in any case.
    pub fn has(&self, name: &str) -> bool {
        self.columns.contains_key(&name.to_ascii_lowercase())
    }

    /// The field of column `name`; `None` when the record or the header has none, or it is empty.
    pub fn get<'r>(&self, record: &'r Record, name: &str) -> Option<&'r Field> {
        record.fields.get(*self.columns.get(&name.to_ascii_lowercase())?).filter(|f| !f.is_empty())
    }
}

/// Bytes of the file as [`text::decode`] gives them, without the Ctrl-Z that ended files on DOS.
pub(super) fn decode(input: &[u8]) -> Cow<'_, [u8]> {
    const CTRL_Z: u8 = 0x1A;
    let is_tail = |byte: &u8| byte.is_ascii_whitespace() || matches!(*byte, 0 | CTRL_Z);
    let mut decoded = text::decode(input);
    let kept = decoded.iter().rposition(|byte| !is_tail(byte)).map_or(0, |last| last + 1);
    if let Some(end) = decoded[kept..].iter().position(|byte| *byte == CTRL_Z) {
        match &mut decoded {
            Cow::Borrowed(bytes) => *bytes = &bytes[..kept + end],
            Cow::Owned(bytes) => bytes.truncate(kept + end),
        }
    }
    decoded
}

/// Separator of the columns, and the bytes and lines in front of the header.
///
/// Spreadsheets of most European languages write `;`, with or without a first line `sep=;`. Names of columns contain
/// neither.
pub(super) fn separator(input: &[u8]) -> (u8, usize, u64) {
    let (mut at, mut line) = (0, 1);
    loop {
        let rest = &input[at..];
        let len = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
        let first = &rest[..len];
        let next = at + len + if rest[len..].starts_with(b"\r\n") { 2 } else { usize::from(len < rest.len()) };
        let bare = first.trim_ascii();
        if bare.is_empty() && next < input.len() {
            (at, line) = (next, line + 1);
            continue;
        }
        let said = bare.strip_prefix(b"\"").unwrap_or(bare);
        if said.get(..4).is_some_and(|word| word.eq_ignore_ascii_case(b"sep=")) {
            // The tab of `sep=` may have been trimmed; any rest is that of a row of empty columns.
            return (said.get(4).copied().unwrap_or(b'\t'), next, line + 1);
        }
        let has = |byte: u8| first.contains(&byte);
        let sign = if has(b',') { b',' } else { [b';', b'\t'].into_iter().find(|sign| has(*sign)).unwrap_or(b',') };
        return (sign, at, line);
    }
}

/// Splits into records. Blank lines, and lines of nothing but commas, are left out.
pub(super) fn records(path: &Path, input: &[u8], problems: &mut Problems) -> Vec<Record> {
    let mut out = Vec::new();
    let (separator, at, line) = separator(input);
    let mut scanner = Scanner { input, at, line, separator };
    while scanner.at < input.len() {
        let line = scanner.line;
        match scanner.record() {
            Ok(fields) if fields.iter().all(Field::is_empty) => {}
            Ok(fields) => out.push(Record { line, fields }),
            Err(quote_line) => {
                let problem = Problem::new(Kind::Usage, "quote is never closed").path(path).line(quote_line);
                problems.push(problem.advice("close it, or write \"\" for a quote inside a quoted value"));
                break;
            }
        }
        if out.len() > limits::CSV_ROWS_MAX {
            let what = format!("more than {} rows", limits::CSV_ROWS_MAX);
            problems.push(Problem::new(Kind::Usage, what).path(path).line(line));
            break;
        }
    }
    out
}

/// The one record in `input`, which begins on `line`; `Err` for a quote that is never closed.
pub(super) fn one(input: &[u8], line: u64, separator: u8) -> Result<Record, u64> {
    let mut scanner = Scanner { input, at: 0, line, separator };
    scanner.record().map(|fields| Record { line, fields })
}

/// A record that is in no file: its columns and their values.
pub(super) fn given(fields: &[(&str, &[u8])]) -> (Header, Record) {
    let names: Vec<String> = fields.iter().map(|(name, _)| (*name).to_owned()).collect();
    let columns = names.iter().enumerate().map(|(i, name)| (name.to_ascii_lowercase(), i)).collect();
    let field = |(_, bytes): &(&str, &[u8])| Field { bytes: Zeroizing::new(bytes.to_vec()), quoted: true };
    (Header { columns, names }, Record { line: 1, fields: fields.iter().map(field).collect() })
}

struct Scanner<'a> {
    input: &'a [u8],
    at: usize,
    line: u64,
    separator: u8,
}

impl Scanner<'_> {
    /// `Err` holds the line of a quote that is never closed.
    fn record(&mut self) -> Result<Vec<Field>, u64> {
        let mut fields = Vec::new();
        loop {
            let (field, last) = self.field()?;
            fields.push(field);
            if last {
                break;
            }
        }
        let count = fields.len();
        if let Some(field) = fields.last_mut()
            && !field.quoted
        {
            // The seed samples end some lines in ` |`.
            let text: &[u8] = &field.bytes;
            let cut = match text {
                b"|" => Some(0),
                [before @ .., b' ' | b'\t', b'|'] => Some(before.trim_ascii_end().len()),
                _ => None,
            };
            if let Some(cut) = cut {
                field.bytes.truncate(cut);
                if cut == 0 && count > 1 {
                    fields.pop();
                }
            }
        }
        Ok(fields)
    }

    /// One field, and whether it ends the record.
    fn field(&mut self) -> Result<(Field, bool), u64> {
        let rest = &self.input[self.at..];
        // Reserved at once, so that growing leaves no copy of a key behind; a quoted value may go over several lines.
        let line_len = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
        let mut bytes = Zeroizing::new(Vec::with_capacity(line_len));
        let mut quoted = false;
        let mut quoted_len = 0;
        let mut last = true;
        while let Some(&byte) = self.input.get(self.at) {
            self.at += 1;
            match byte {
                b'"' if bytes.trim_ascii().is_empty() && !quoted => {
                    bytes.clear();
                    quoted = true;
                    self.quoted(&mut bytes)?;
                    quoted_len = bytes.len();
                }
                _ if byte == self.separator => {
                    last = false;
                    break;
                }
                b'\r' if self.input.get(self.at) == Some(&b'\n') => {}
                b'\n' => {
                    self.line += 1;
                    break;
                }
                // A lone CR is the line end of old Macintosh files.
                b'\r' => {
                    self.line += 1;
                    break;
                }
                _ => bytes.push(byte),
            }
        }
        // Blanks inside quotes belong to the value; outside they do not, and neither does the samples' `|`.
        let tail = &bytes[quoted_len..];
        let tail_len = if quoted && tail.trim_ascii() == b"|" { 0 } else { tail.trim_ascii_end().len() };
        bytes.truncate(quoted_len + tail_len);
        if !quoted {
            let lead = bytes.len() - bytes.trim_ascii_start().len();
            bytes.drain(..lead);
        }
        Ok((Field { bytes, quoted }, last))
    }

    fn quoted(&mut self, out: &mut Vec<u8>) -> Result<(), u64> {
        let opened = self.line;
        while let Some(&byte) = self.input.get(self.at) {
            self.at += 1;
            match byte {
                b'"' if self.input.get(self.at) == Some(&b'"') => {
                    self.at += 1;
                    out.push(b'"');
                }
                b'"' => return Ok(()),
                b'\n' => {
                    self.line += 1;
                    out.push(byte);
                }
                _ => out.push(byte),
            }
        }
        Err(opened)
    }
}

/// Columns that a file must and may have; alternatives of one column share an entry.
pub(super) struct Columns {
    pub required: &'static [&'static [&'static str]],
    pub optional: &'static [&'static [&'static str]],
    /// A header line to show as advice.
    pub sample: &'static str,
}

/// Takes the header off `records` and matches it by name. `None` when rows cannot be understood without it.
pub(super) fn header(
    path: &Path,
    records: &mut Vec<Record>,
    columns: &Columns,
    problems: &mut Problems,
    warnings: &mut Vec<Problem>,
) -> Option<Header> {
    if records.is_empty() {
        if problems.0.is_empty() {
            let problem = Problem::new(Kind::Usage, "file is empty").path(path);
            problems.push(problem.advice(format!("begin with the line {}", columns.sample)));
        }
        return None;
    }
    let record = records.remove(0);
    let place = |what: String| Problem::new(Kind::Usage, what).path(path).line(record.line);
    let names: Vec<String> = record.fields.iter().map(|f| f.text().into_owned()).collect();
    if let Some(what) = record.fields.iter().find_map(quote) {
        problems.push(place(what).advice(STRAIGHT));
        return None;
    }
    let names: Vec<String> =
        names.iter().map(|name| name.chars().filter(|c| !text::is_invisible(*c)).collect()).collect();
    for field in &record.fields {
        // Without them the name may be known, and may not be a key.
        if let Some((at, name)) = text::invisible(&field.text()).filter(|_| field.bytes.len() <= NAME_LEN_MAX) {
            warnings.push(place(format!("the name of a column holds {name} at character {at}, which is passed over")));
        }
    }
    let known = |name: &str| {
        let all = columns.required.iter().chain(columns.optional);
        all.copied().find(|names| names.iter().any(|n| n.eq_ignore_ascii_case(name)))
    };
    if !names.iter().any(|name| known(name).is_some()) {
        // Not shown: the first line of a driveset without header holds a key.
        let mut problem = place("first line is no header".into());
        problem = match names.first() {
            Some(only) if names.len() == 1 && only.contains([';', '\t']) => {
                problem.advice(format!("separate the columns by commas: {}", columns.sample))
            }
            _ => problem.advice(format!("begin with the line {}", columns.sample)),
        };
        problems.push(problem);
        return None;
    }
    let before = problems.0.len();
    let mut found = HashMap::new();
    for (index, name) in names.iter().enumerate() {
        let Some(alternatives) = known(name) else {
            if !name.is_empty() {
                warnings.push(place("unknown column is ignored".into()).column(name).advice(columns.sample));
            }
            continue;
        };
        if alternatives.iter().any(|other| found.contains_key(&other.to_ascii_lowercase())) {
            problems.push(place("column is given twice".into()).column(name).advice(columns.sample));
        }
        found.insert(name.to_ascii_lowercase(), index);
    }
    for alternatives in columns.required {
        if !alternatives.iter().any(|name| found.contains_key(&name.to_ascii_lowercase())) {
            let problem = place("column is missing".into()).column(alternatives.join(" or "));
            problems.push(problem.advice(format!("the header is {}", columns.sample)));
        }
    }
    (problems.0.len() == before).then_some(Header { columns: found, names })
}

/// Whether the record has the header's columns, all but `may_lack` at its end; reports it otherwise.
pub(super) fn check_width(
    path: &Path,
    header: &Header,
    record: &Record,
    may_lack: &[&str],
    problems: &mut Problems,
) -> bool {
    let (found, wanted) = (record.fields.len(), header.names.len());
    let what = format!("row has {}, the header {}", counted(found as u64, "value"), counted(wanted as u64, "column"));
    let here = |what: String| Problem::new(Kind::Usage, what).path(path).line(record.line);
    if record.fields.iter().skip(wanted).any(|f| !f.is_empty()) {
        problems.push(here(what).advice("put a value that holds a comma into quotes"));
        return false;
    }
    let is_lacking = |name: &&str| !name.is_empty() && !may_lack.iter().any(|may| may.eq_ignore_ascii_case(name));
    let lacking: Vec<&str> = header.names.iter().skip(found).map(String::as_str).filter(is_lacking).collect();
    if !lacking.is_empty() {
        let verb = if lacking.len() == 1 { "is" } else { "are" };
        let problem = here(format!("{what}: {} {verb} missing", lacking.join(", ")));
        problems.push(problem.advice("write each value, or a comma for one that is left empty"));
    }
    lacking.is_empty()
}

/// Longest name of a column; a longer text may be a key.
const NAME_LEN_MAX: usize = 40;

const STRAIGHT: &str = "write \" instead: a word processor or the keyboard made another quote of it";

/// A typographic quote around a value, which is no quote in a CSV file. An intended one is put within `"`.
fn quote(field: &Field) -> Option<String> {
    let text = field.text();
    let ends = [("begins", text.chars().next()), ("ends", text.chars().next_back())];
    let (how, c) =
        ends.into_iter().find(|(_, c)| c.is_some_and(text::is_typographic_quote)).filter(|_| !field.quoted)?;
    Some(format!("value {how} with {}", text::name_of(c?)?))
}

/// Checks a record for characters that are invisible or look like others. In the columns `words`, whose values are
/// ASCII words, they are ignored with a warning; around a path or a name they are an error, and inside one they give a
/// warning, since names may have them. Values that are not UTF-8 give a warning too.
pub(super) fn check_characters(
    path: &Path,
    header: &Header,
    record: &mut Record,
    words: &[&str],
    problems: &mut Problems,
    warnings: &mut Vec<Problem>,
) -> bool {
    let before = problems.0.len();
    let line = record.line;
    for (name, field) in header.names.iter().zip(&mut record.fields) {
        let here = |what: String| Problem::new(Kind::Usage, what).path(path).line(line).column(name);
        if let Some(what) = quote(field) {
            problems.push(here(what).advice(STRAIGHT));
            continue;
        }
        let Ok(value) = std::str::from_utf8(&field.bytes) else {
            let at = std::str::from_utf8(&field.bytes).map_or_else(|error| error.valid_up_to(), |_| 0);
            let what = format!("value is not UTF-8: it holds the byte 0x{:02X}", field.bytes[at]);
            warnings.push(here(what).advice("save the file as UTF-8, unless the name of the file is such bytes"));
            continue;
        };
        let Some((at, odd)) = text::invisible(value) else { continue };
        let is_word = words.iter().any(|word| word.eq_ignore_ascii_case(name));
        if is_word {
            warnings.push(here(format!("value holds {odd} at character {at}, which is passed over")));
            let mut kept = Zeroizing::new(Vec::with_capacity(value.len()));
            kept.extend(value.chars().filter(|c| !text::is_invisible(*c)).map(|c| c as u8).filter(u8::is_ascii));
            if value.chars().all(|c| c.is_ascii() || text::is_invisible(c)) {
                field.bytes = kept;
            }
            continue;
        }
        let mut ends = value.chars().next().into_iter().chain(value.chars().next_back());
        if !field.quoted && ends.any(text::is_invisible) {
            let at = if value.starts_with(text::is_invisible) { "begins" } else { "ends" };
            let end = if at == "begins" { value.chars().next() } else { value.chars().next_back() };
            let odd = end.and_then(text::name_of).unwrap_or(odd);
            let advice = "remove it; if the name really has it, put the value into quotes";
            problems.push(here(format!("value {at} with {odd}, which cannot be seen")).advice(advice));
        } else {
            warnings.push(here(format!("value holds {odd} at character {at}, which cannot be seen")));
        }
    }
    problems.0.len() == before
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(input: &str) -> Vec<(u64, Vec<String>)> {
        let mut problems = Problems::default();
        let out = records(Path::new("t.csv"), input.as_bytes(), &mut problems);
        assert!(problems.0.is_empty(), "{problems}");
        let text = |r: &Record| r.fields.iter().map(|f| f.text().into_owned()).collect();
        out.iter().map(|r| (r.line, text(r))).collect()
    }

    #[test]
    fn odd_lines_are_split_as_a_person_would() {
        let table: &[(&str, &[&str])] = &[
            ("a,b,c", &["a", "b", "c"]),
            ("a , b ,c ", &["a", "b", "c"]),
            ("a,b |", &["a", "b"]),
            ("a,b, |", &["a", "b"]),
            ("a,\"b\" |", &["a", "b"]),
            ("\"F:\\50M_original\\\",\"containername/\",x", &["F:\\50M_original\\", "containername/", "x"]),
            ("\"a\"\"b\",\"c,d\" ,\" e \"", &["a\"b", "c,d", " e "]),
            (" \"quoted behind a blank\" ,x", &["quoted behind a blank", "x"]),
            ("a\"b,c", &["a\"b", "c"]),
            ("a,,", &["a", "", ""]),
            ("a|b,c|d", &["a|b", "c|d"]),
            ("\"two\nlines\",x\r", &["two\nlines", "x"]),
        ];
        for (input, wanted) in table {
            let got = split(input);
            assert_eq!(got.len(), 1, "{input}");
            assert_eq!(got[0].1, *wanted, "{input}");
        }
    }

    #[test]
    fn lines_are_counted_through_quotes_and_line_ends() {
        let got = split("h\r\n\r\n\"a\nb\"\r\n,,\r\n  \nz");
        let wanted = [(1, vec!["h".into()]), (3, vec!["a\nb".into()]), (7, vec!["z".into()])];
        assert_eq!(got, wanted);
    }

    #[test]
    fn what_spreadsheets_and_editors_make_of_it_is_read() {
        let table: &[(&str, u64)] = &[
            ("a,b\nc,d", 1),
            ("sep=,\r\na,b\r\nc,d\r\n", 2),
            ("\"sep=;\"\na;b\nc;d\n", 2),
            ("SEP=;;;\na;b\nc;d\n", 2),
            ("\nsep=\t\na\tb\nc\td", 3),
            ("a;b\r\n\"c\";d\r\n", 1),
            ("a\tb\nc\td\n", 1),
            ("a,b\nc,d\r\n\x1A", 1),
            ("a,b\nc,d\x1A\0\0", 1),
        ];
        for (input, line) in table {
            let decoded = decode(input.as_bytes());
            let got = split(std::str::from_utf8(&decoded).unwrap());
            let wanted = [["a", "b"], ["c", "d"]].map(|row| row.map(str::to_owned).to_vec());
            assert_eq!(got, [(*line, wanted[0].clone()), (*line + 1, wanted[1].clone())], "{input:?}");
        }
        // A comma in the header: semicolons belong to the values.
        assert_eq!(split("a,b\nc;d,e")[1].1, ["c;d", "e"]);
        assert_eq!(decode(b"a\x1Ab"), &b"a\x1Ab"[..]);
    }

    #[test]
    fn open_quote_is_told_with_its_line() {
        let mut problems = Problems::default();
        records(Path::new("t.csv"), b"a\nb,\"c\nd\n", &mut problems);
        assert_eq!(problems.0.len(), 1);
        assert_eq!(problems.0[0].place.line, Some(2));
    }
}
