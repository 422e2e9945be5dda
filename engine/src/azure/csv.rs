//! The lenient CSV dialect of dataset, driveset and inventory files.
//!
//! RFC 4180 with what the published samples do to it (`spec/import-export.md` 2.1): blanks around fields, a trailing
//! ` |`, a backslash in front of a closing quote that escapes nothing, blank lines, any line end or none at the end.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use zeroize::Zeroizing;

use crate::limits;
use crate::report::{Kind, Problem, Problems};

/// A field without its quotes and without the blanks around it. Wiped on drop: one column of a driveset is a key.
#[derive(Clone)]
pub(super) struct Field {
    pub bytes: Zeroizing<Vec<u8>>,
    pub quoted: bool,
}

impl Field {
    /// As text for messages and for columns whose values are ASCII.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// A record and the line, from 1, on which it begins.
pub(super) struct Record {
    pub line: u64,
    pub fields: Vec<Field>,
}

/// What the header calls its columns.
pub(super) struct Header {
    columns: HashMap<String, usize>,
    names: Vec<String>,
}

impl Header {
    /// The name as the file spells it, of the first of `names` that is there.
    pub fn has(&self, name: &str) -> bool {
        self.columns.contains_key(&name.to_ascii_lowercase())
    }

    /// The field of column `name`; `None` when the record or the header has none, or it is empty.
    pub fn get<'r>(&self, record: &'r Record, name: &str) -> Option<&'r Field> {
        record.fields.get(*self.columns.get(&name.to_ascii_lowercase())?).filter(|f| !f.is_empty())
    }
}

/// Bytes of the file as UTF-8 where possible: a byte-order mark is dropped, UTF-16 with one is converted.
pub(super) fn decode(input: &[u8]) -> Cow<'_, [u8]> {
    let wide = |from: fn([u8; 2]) -> u16| -> Cow<'_, [u8]> {
        let units = input[2..].chunks_exact(2).map(|pair| from([pair[0], pair[1]]));
        Cow::Owned(char::decode_utf16(units).map(|c| c.unwrap_or('\u{FFFD}')).collect::<String>().into_bytes())
    };
    match input {
        [0xEF, 0xBB, 0xBF, rest @ ..] => Cow::Borrowed(rest),
        [0xFF, 0xFE, ..] => wide(u16::from_le_bytes),
        [0xFE, 0xFF, ..] => wide(u16::from_be_bytes),
        _ => Cow::Borrowed(input),
    }
}

/// Splits into records. Blank lines, and lines of nothing but commas, are left out.
pub(super) fn records(path: &Path, input: &[u8], problems: &mut Problems) -> Vec<Record> {
    let mut out = Vec::new();
    let mut scanner = Scanner { input, at: 0, line: 1 };
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

struct Scanner<'a> {
    input: &'a [u8],
    at: usize,
    line: u64,
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
                b',' => {
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

/// Which columns a file must and may have; alternatives of one column share an entry.
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
    let known = |name: &str| {
        let all = columns.required.iter().chain(columns.optional);
        all.copied().find(|names| names.iter().any(|n| n.eq_ignore_ascii_case(name)))
    };
    let names: Vec<String> = record.fields.iter().map(|f| f.text().into_owned()).collect();
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

/// Whether the record has no more fields than the header; tells it otherwise.
pub(super) fn check_width(path: &Path, header: &Header, record: &Record, problems: &mut Problems) -> bool {
    let surplus = record.fields.iter().skip(header.names.len()).any(|f| !f.is_empty());
    if surplus {
        let what = format!("row has {} values, the header {} columns", record.fields.len(), header.names.len());
        let problem = Problem::new(Kind::Usage, what).path(path).line(record.line);
        problems.push(problem.advice("put a value that holds a comma into quotes"));
    }
    !surplus
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
    fn open_quote_is_told_with_its_line() {
        let mut problems = Problems::default();
        records(Path::new("t.csv"), b"a\nb,\"c\nd\n", &mut problems);
        assert_eq!(problems.0.len(), 1);
        assert_eq!(problems.0[0].place.line, Some(2));
    }
}
