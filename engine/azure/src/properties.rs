//! Metadata and properties files: checked before they go on a drive
//! (docs/spec/import-export.md#metadata-and-properties-xml).

use std::path::Path;

use super::base64;
use super::xml::{Steps, XmlError, XmlEvent, push_escaped};
use crate::limits;
use crate::problem::{Kind, Problem, Problems};
use crate::text::{self, Form};

/// Longest names and values of one blob's metadata together (docs/spec/import-export.md#names-and-sizes).
pub const METADATA_LEN_MAX: usize = 8 << 10;

/// Kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SideKind {
    /// Root `Metadata`: element name is the name, text the value.
    Metadata,
    /// Root `Properties`.
    Properties,
}

impl SideKind {
    const fn root(self) -> &'static str {
        match self {
            Self::Metadata => "Metadata",
            Self::Properties => "Properties",
        }
    }
}

const IMPORTED: [&str; 5] = ["Content-Type", "Content-MD5", "Content-Encoding", "Content-Language", "Cache-Control"];
const EXPORT_ONLY: [&str; 3] = ["Last-Modified", "Etag", "Content-Length"];

/// Checks a file; `path` is for messages. `many_blobs`: it applies to more than one blob, as every directory row's
/// does. Returns oddities that are accepted.
///
/// # Errors
/// Everything that is wrong in it.
pub fn check(path: &Path, input: &[u8], kind: SideKind, many_blobs: bool) -> Result<Vec<Problem>, Problems> {
    let mut check = SideCheck { path, kind, many_blobs, problems: Problems::default(), warnings: Vec::new() };
    check.run(input);
    check.problems.into_result().map(|()| check.warnings)
}

/// Names and values of a file of either kind, in its order.
///
/// # Errors
/// The file is not well-formed, or holds too much.
pub fn read(input: &[u8]) -> Result<Vec<(String, String)>, XmlError> {
    let mut steps = Steps::new(input, limits::XML_STEP_MAX);
    let mut out = Vec::new();
    let mut inside = false;
    loop {
        match steps.next()? {
            XmlEvent::Start { .. } if !inside => inside = true,
            XmlEvent::Start { name, empty, .. } => {
                let value = if empty { String::new() } else { steps.text(&name, limits::XML_STEP_MAX)? };
                if out.len() >= limits::SIDE_ELEMENTS_MAX {
                    return Err(steps.error("has too many elements"));
                }
                out.push((name, value));
            }
            XmlEvent::Text(_) | XmlEvent::End => {}
            XmlEvent::Eof if inside => return Ok(out),
            XmlEvent::Eof => return Err(steps.error("holds nothing")),
        }
    }
}

/// A properties file that sets what is imported of `others`, but `Content-MD5`: up to where a `Content-Type` may be put, and
/// all behind it.
pub fn without_md5(others: &[(String, String)]) -> (String, String) {
    let (before, after) = around_md5(others);
    let after = after.strip_prefix(MD5_END).unwrap_or(&after).to_owned();
    (before.strip_suffix(MD5_START).unwrap_or(&before).to_owned(), after)
}

/// Names and values as elements, a line each.
pub fn elements(pairs: &[(String, String)]) -> String {
    let mut out = Vec::new();
    for (name, value) in pairs {
        out.extend(format!("<{name}>").bytes());
        push_escaped(value, &mut out);
        out.extend(format!("</{name}>\n").bytes());
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Text around the hash.
pub const MD5_START: &str = "<Content-MD5>";
/// Likewise.
pub const MD5_END: &str = "</Content-MD5>\n";

/// A properties file that sets `Content-MD5` and the importable ones of `others`: the text up to the hash, which is
/// base64 of 24 characters, and the text after it.
pub fn around_md5(others: &[(String, String)]) -> (String, String) {
    let mut after = b"</Content-MD5>\n".to_vec();
    for (name, value) in others.iter().filter(|(name, _)| IMPORTED.contains(&name.as_str()) && name != "Content-MD5") {
        after.extend(format!("<{name}>").bytes());
        push_escaped(value, &mut after);
        after.extend(format!("</{name}>\n").bytes());
    }
    after.extend(b"</Properties>\n");
    let before = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Properties>\n<Content-MD5>";
    (before.to_owned(), String::from_utf8_lossy(&after).into_owned())
}

struct SideCheck<'a> {
    path: &'a Path,
    kind: SideKind,
    many_blobs: bool,
    problems: Problems,
    warnings: Vec<Problem>,
}

impl SideCheck<'_> {
    fn at(&self, line: u64, what: impl Into<String>) -> Problem {
        Problem::new(Kind::Usage, what).path(self.path).line(line)
    }

    fn fail(&mut self, line: u64, element: &str, what: impl Into<String>, advice: &str) {
        let problem = self.at(line, what).column(element).advice(advice);
        self.problems.push(problem);
    }

    fn run(&mut self, input: &[u8]) {
        // The file goes onto the drive unchanged, and the service reads it.
        if let Form::Wide { width, .. } = text::sniff(input).0 {
            let problem = self.at(1, format!("is UTF-{}", 8 * width)).advice("write the file as UTF-8");
            self.problems.push(problem);
            return;
        }
        let mut steps = Steps::new(input, limits::XML_STEP_MAX);
        steps.only_utf8 = true;
        if let Err(e) = self.document(&mut steps) {
            let problem = self.at(e.line, format!("is not well-formed XML: {}", e.what));
            self.problems.push(problem);
        }
    }

    fn document(&mut self, steps: &mut Steps<&[u8]>) -> Result<(), super::xml::XmlError> {
        let root = self.kind.root();
        let mut seen: Vec<String> = Vec::new();
        let mut total = 0;
        let mut roots = 0;
        loop {
            let step = steps.next()?;
            let line = steps.line();
            match step {
                XmlEvent::Start { name, empty, .. } if steps.depth == usize::from(!empty) => {
                    roots += 1;
                    if roots > 1 {
                        return Err(steps.error("has more than one root element"));
                    }
                    if name != root {
                        let advice = format!("the root of this file is {root}");
                        self.fail(line, &name, "root element is not the right one", &advice);
                        return Ok(());
                    }
                }
                XmlEvent::Start { name, attributes, empty } => {
                    if !attributes.is_empty() {
                        let warning = self.at(line, "attributes are not documented here").column(&name);
                        self.warnings.push(warning);
                    }
                    let value = if empty { Some(String::new()) } else { self.value(steps, &name)? };
                    let value = value.unwrap_or_default();
                    if seen.iter().any(|other| other.eq_ignore_ascii_case(&name)) {
                        self.fail(line, &name, "is given twice", "names differ by more than upper and lower case");
                    }
                    total += name.len() + value.len();
                    match self.kind {
                        SideKind::Metadata => self.metadata(line, &name, &value),
                        SideKind::Properties => self.property(line, &name, &value),
                    }
                    seen.push(name);
                    if seen.len() > limits::SIDE_ELEMENTS_MAX {
                        return Err(steps.error("has too many elements"));
                    }
                }
                XmlEvent::Text(text) if !text.trim().is_empty() => {
                    self.fail(line, root, "text outside of an element", "put it into an element");
                }
                XmlEvent::Text(_) | XmlEvent::End => {}
                XmlEvent::Eof => break,
            }
        }
        if roots == 0 {
            return Err(steps.error(format!("holds no {root}")));
        }
        if self.kind == SideKind::Metadata && total > METADATA_LEN_MAX {
            let what = format!("names and values have {total} bytes together");
            self.fail(steps.line(), root, what, "at most 8192 bytes");
        }
        Ok(())
    }

    /// The text of an element; `None` when it holds elements, which is reported.
    fn value(&mut self, steps: &mut Steps<&[u8]>, name: &str) -> Result<Option<String>, super::xml::XmlError> {
        let mut out = String::new();
        let mut nested = false;
        loop {
            let step = steps.next()?;
            match step {
                XmlEvent::Text(text) => out.push_str(&text),
                XmlEvent::End => return Ok((!nested).then_some(out)),
                XmlEvent::Start { name: inner, empty, .. } => {
                    if !nested {
                        let line = steps.line();
                        self.fail(line, name, format!("holds the element {inner}"), "a name with a text as its value");
                    }
                    nested = true;
                    if !empty {
                        steps.skip()?;
                    }
                }
                XmlEvent::Eof => return Err(steps.error("ends within an element")),
            }
        }
    }

    fn metadata(&mut self, line: u64, name: &str, value: &str) {
        // A name must be an XML name, a C# identifier and the tail of an HTTP header.
        let good = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !good {
            self.fail(line, name, "is no metadata name", "a letter or _ first, then letters, digits and _");
        }
        self.header_value(line, name, value);
    }

    fn property(&mut self, line: u64, name: &str, value: &str) {
        if EXPORT_ONLY.contains(&name) {
            let warning = self.at(line, "is written on exports only, and ignored on import").column(name);
            self.warnings.push(warning);
            return;
        }
        if !IMPORTED.contains(&name) {
            self.fail(line, name, "is no property that can be set", &format!("one of {}", IMPORTED.join(", ")));
            return;
        }
        if name == "Content-MD5" {
            if self.many_blobs {
                let advice = "leave it out, or give the blob a row and a properties file of its own";
                self.fail(line, name, "is right for one blob only, and this file goes with several", advice);
            } else if base64::decode(value.trim()).is_none_or(|hash| hash.len() != 16) {
                let advice = "16 bytes as base64, such as cAzn4h7VVSWXf696qp5Uaw==";
                let problem = self.at(line, "is no MD5").column(name).value(value).advice(advice);
                self.problems.push(problem);
            }
        }
        self.header_value(line, name, value);
    }

    fn header_value(&mut self, line: u64, name: &str, value: &str) {
        if value.chars().any(|c| c.is_control() || !c.is_ascii()) {
            let what = "value becomes an HTTP header, which holds printable ASCII only";
            let warning = self.at(line, what).column(name).value(value);
            self.warnings.push(warning);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(xml: &str) -> Result<Vec<Problem>, Problems> {
        check(Path::new("m.xml"), xml.as_bytes(), SideKind::Metadata, true)
    }

    fn properties(xml: &str, many: bool) -> Result<Vec<Problem>, Problems> {
        check(Path::new("p.xml"), xml.as_bytes(), SideKind::Properties, many)
    }

    #[test]
    fn documented_sample_passes() {
        let sample = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Metadata>\n  <UploadMethod>text</UploadMethod>\n</Metadata>\n";
        assert_eq!(metadata(sample), Ok(vec![]));
        assert_eq!(metadata(&format!("\u{FEFF}{sample}<!-- end -->")), Ok(vec![]));
        assert_eq!(metadata("<Metadata/>"), Ok(vec![]));
        let all: String = IMPORTED.iter().filter(|n| **n != "Content-MD5").map(|n| format!("<{n}>x</{n}>")).collect();
        assert_eq!(properties(&format!("<Properties>{all}</Properties>"), true), Ok(vec![]));
    }

    #[test]
    fn wrong_metadata_is_told() {
        let long = format!("<Metadata><a>{}</a></Metadata>", "x".repeat(8192));
        for (xml, what) in [
            ("<Metadata><a-b>x</a-b></Metadata>", "is no metadata name"),
            ("<Metadata><ä>x</ä></Metadata>", "is no metadata name"),
            ("<Metadata><a>x</a><A>y</A></Metadata>", "is given twice"),
            ("<Metadata><a><b/></a></Metadata>", "holds the element b"),
            ("<Metadata>text<a/></Metadata>", "text outside of an element"),
            ("<Properties/>", "root element is not the right one"),
            (&long, "names and values have 8193 bytes together"),
        ] {
            let problems = metadata(xml).unwrap_err();
            assert_eq!(problems.0.len(), 1, "{xml}: {problems}");
            assert_eq!(problems.0[0].what, what);
        }
        for xml in [
            "",
            "x",
            "<Metadata>",
            "<Metadata><a></Metadata>",
            "<Metadata/><Metadata/>",
            "<Metadata><a>&x;</a></Metadata>",
            "<!DOCTYPE m [<!ENTITY x \"y\">]><Metadata><a>&x;</a></Metadata>",
            "<Metadata><a>\u{0}</Metadata>",
            "<?xml version=\"1.0\" encoding=\"utf-16\"?><Metadata/>",
        ] {
            let problems = metadata(xml).unwrap_err();
            assert!(problems.0.iter().any(|p| p.what.starts_with("is not well-formed")), "{xml}: {problems}");
        }
        assert!(check(Path::new("m"), b"<Metadata><a>\xFF</a></Metadata>", SideKind::Metadata, true).is_err());
        assert_eq!(metadata("<Metadata><a-b/><c d=\"e\"/><A/><a/>").unwrap_err().0.len(), 3);
    }

    #[test]
    fn wrong_properties_are_told() {
        let md5 = "<Properties><Content-MD5>cAzn4h7VVSWXf696qp5Uaw==</Content-MD5></Properties>";
        assert_eq!(properties(md5, false), Ok(vec![]));
        assert!(properties(md5, true).unwrap_err().0[0].what.contains("one blob only"));
        assert_eq!(properties(&md5.replace("==", ""), false).unwrap_err().0[0].what, "is no MD5");
        assert!(properties("<Properties><Content-Disposition>x</Content-Disposition></Properties>", false).is_err());
        assert!(properties("<Properties><content-type>x</content-type></Properties>", false).is_err());
        let exported =
            "<Properties><Etag>1</Etag><Last-Modified>x</Last-Modified><Content-Length>1</Content-Length></Properties>";
        assert_eq!(properties(exported, true).unwrap().len(), 3);
    }

    #[test]
    fn hostile_files_never_panic() {
        use dray_base::entropy::Seeded;
        let seed =
            "<?xml version=\"1.0\"?><Properties a='b'><Content-Type>te&#120;t</Content-Type><![CDATA[x]]></Properties>";
        let mut random = Seeded::new(5);
        for _ in 0..20_000 {
            let mut bytes = seed.as_bytes().to_vec();
            for _ in 0..1 + random.next_u64() % 5 {
                let at = (random.next_u64() % bytes.len() as u64) as usize;
                bytes[at] =
                    [b'<', b'>', b'&', b'/', b'"', 0, 0xFF, random.next_u64() as u8][(random.next_u64() % 8) as usize];
            }
            let _ = check(Path::new("p"), &bytes, SideKind::Properties, false);
        }
        let deep = "<a>".repeat(100_000);
        assert!(metadata(&deep).is_err());
        assert!(metadata(&format!("<Metadata>{}", "x".repeat(10 << 20))).is_err());
    }
}
