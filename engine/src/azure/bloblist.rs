//! Lists of blobs to export, and inventories of an account (docs/spec/import-export.md#blob-lists).

use std::io::BufRead;
use std::path::Path;

use super::csv::{self, Columns};
use super::xml::{Step, Steps, XmlError};
use crate::limits;
use crate::report::{Kind, Problem, Problems};

/// One line of a blob list: a blob, or a prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selector {
    /// `BlobPath`: one blob, `container/name`, without leading slash.
    Path(String),
    /// `BlobPathPrefix`: every blob whose name begins with it; with its leading slash, `/` for all.
    Prefix(String),
}

impl Selector {
    /// Whether the selector covers the blob `container/name`.
    pub fn matches(&self, blob_path: &str) -> bool {
        match self {
            Self::Path(path) => path == blob_path,
            Self::Prefix(prefix) => blob_path.starts_with(prefix.strip_prefix('/').unwrap_or(prefix)),
        }
    }
}

/// A blob list file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlobList {
    /// Unique selectors in file order.
    pub selectors: Vec<Selector>,
    /// Number of selectors that were repeated.
    pub duplicates: u64,
    /// Oddities that were understood.
    pub warnings: Vec<Problem>,
}

/// Reads a blob list; `path` is only for messages.
///
/// # Errors
/// Everything that is wrong in it. Names of elements are case-sensitive, as the service's are.
pub fn read(path: &Path, input: impl BufRead) -> Result<BlobList, Problems> {
    let mut out = BlobList::default();
    let mut problems = Problems::default();
    if let Err(e) = read_xml(path, input, &mut out, &mut problems) {
        problems.push(Problem::new(Kind::Usage, format!("is not well-formed: {}", e.what)).path(path).line(e.line));
    } else if out.selectors.is_empty() && problems.0.is_empty() {
        problems
            .push(Problem::new(Kind::Usage, "selects nothing").path(path).advice("give a BlobPath or BlobPathPrefix"));
    }
    problems.into_result().map(|()| out)
}

fn read_xml(path: &Path, input: impl BufRead, out: &mut BlobList, problems: &mut Problems) -> Result<(), XmlError> {
    const FORM: &str = "BlobPath or BlobPathPrefix; upper and lower case matter";
    let mut steps = Steps::new(input, limits::XML_STEP_MAX);
    let mut seen = std::collections::HashSet::new();
    let mut root = false;
    loop {
        let step = steps.next()?;
        let line = steps.line();
        let at = |what: String| Problem::new(Kind::Usage, what).path(path).line(line);
        let (name, empty) = match step {
            Step::Text(text) if text.trim().is_empty() => continue,
            Step::Text(text) => {
                problems.push(at("text outside of an element".into()).value(text.trim()));
                continue;
            }
            Step::End => continue,
            Step::Eof if !root => return Err(steps.error("holds no BlobList")),
            Step::Eof => return Ok(()),
            Step::Start { name, empty, .. } => (name, empty),
        };
        if !root {
            if name != "BlobList" {
                return Err(steps.error(format!("root is {name}, not BlobList")));
            }
            root = true;
            continue;
        }
        if steps.depth == usize::from(!empty) {
            return Err(steps.error("has more than one root element"));
        }
        let is_prefix = name == "BlobPathPrefix";
        if !is_prefix && name != "BlobPath" {
            problems.push(at("element is not known".into()).column(&name).advice(FORM));
            if !empty {
                steps.skip()?;
            }
            continue;
        }
        let value = if empty { String::new() } else { steps.text(&name, limits::XML_STEP_MAX)? };
        let value = value.trim();
        let selector = if is_prefix {
            if value.is_empty() {
                problems.push(at("prefix is empty".into()).column(&name).advice("/ selects every blob"));
                continue;
            }
            if !value.starts_with('/') {
                let problem = at("prefix does not begin with /".into()).column(&name).value(value);
                problems.push(problem.advice(format!("write /{value}")));
                continue;
            }
            Selector::Prefix(value.into())
        } else {
            // One page shows the path with a leading slash, all others without.
            let plain = value.strip_prefix('/').unwrap_or(value);
            match plain.split_once('/') {
                Some((container, blob)) if !container.is_empty() && !blob.is_empty() => {}
                _ => {
                    let problem = at("is no container and blob".into()).column(&name).value(value);
                    problems.push(problem.advice("container/blob, or $root/blob; BlobPathPrefix for whole containers"));
                    continue;
                }
            }
            if plain.len() < value.len() {
                out.warnings.push(at("leading / of a BlobPath is dropped".into()).column(&name).value(value));
            }
            Selector::Path(plain.into())
        };
        if seen.insert(selector.clone()) {
            out.selectors.push(selector);
        } else {
            out.duplicates += 1;
        }
        if out.selectors.len() > limits::SELECTORS_MAX {
            return Err(steps.error(format!("has more than {} selectors", limits::SELECTORS_MAX)));
        }
    }
}

/// A blob of an inventory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InventoryBlob {
    /// `container/name`.
    pub path: String,
    /// Length of the blob in bytes.
    pub length: u64,
}

const COLUMNS: Columns = Columns {
    required: &[&["Name"], &["Content-Length", "ContentLength", "Length", "Size"]],
    optional: &[
        &["Container"],
        &["Snapshot"],
        &["VersionId"],
        &["IsCurrentVersion"],
        &["Deleted"],
        &["BlobType"],
        &["AccessTier"],
    ],
    sample: "Name,Content-Length",
};

/// Reads an inventory CSV: `Name` is `container/blob` as Azure's own inventory reports write it, or only the blob when
/// there is a `Container` column. Deleted blobs and old versions are left out, since exports do not hold them.
///
/// # Errors
/// Everything that is wrong in it.
pub fn read_inventory(path: &Path, input: &[u8]) -> Result<Vec<InventoryBlob>, Problems> {
    let mut problems = Problems::default();
    let mut out = Vec::new();
    let mut ignored = Vec::new();
    let decoded = csv::decode(input);
    let mut records = csv::records(path, &decoded, &mut problems);
    let Some(header) = csv::header(path, &mut records, &COLUMNS, &mut problems, &mut ignored) else {
        return problems.into_result().map(|()| out);
    };
    for record in &records {
        let get =
            |names: &[&str]| names.iter().find_map(|name| header.get(record, name)).map(|f| f.text().into_owned());
        let at = |what: &str| Problem::new(Kind::Usage, what).path(path).line(record.line);
        let says = |name: &str, word: &str| get(&[name]).is_some_and(|t| t.trim().eq_ignore_ascii_case(word));
        if says("Deleted", "true") || says("IsCurrentVersion", "false") {
            continue;
        }
        let Some(name) = get(&["Name"]) else {
            problems.push(at("value is missing").column("Name"));
            continue;
        };
        let text = get(COLUMNS.required[1]).unwrap_or_default();
        let Ok(length) = text.trim().parse() else {
            problems.push(at("is no number of bytes").column("Content-Length").value(text));
            continue;
        };
        let path = match get(&["Container"]) {
            Some(container) => format!("{container}/{name}"),
            None => name,
        };
        out.push(InventoryBlob { path, length });
        if problems.0.len() > limits::FAULTS_MAX {
            break;
        }
    }
    problems.into_result().map(|()| out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(xml: &str) -> BlobList {
        read(Path::new("b.xml"), xml.as_bytes()).unwrap_or_else(|e| panic!("{xml}\n{e}"))
    }

    #[test]
    fn documented_list_is_read() {
        let list = good(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<BlobList>\n  <BlobPath>pictures/animals/koala.jpg</BlobPath>\n  \
             <BlobPathPrefix>/vhds/</BlobPathPrefix>\n</BlobList>\n",
        );
        let wanted = [Selector::Path("pictures/animals/koala.jpg".into()), Selector::Prefix("/vhds/".into())];
        assert_eq!((list.selectors.as_slice(), list.duplicates, list.warnings.len()), (wanted.as_slice(), 0, 0));
        let list = good(
            "<BlobList><BlobPath>/a/b</BlobPath><BlobPath>a/b</BlobPath><BlobPathPrefix>/</BlobPathPrefix><BlobPath>a/b&amp;c</BlobPath></BlobList>",
        );
        assert_eq!((list.selectors.len(), list.duplicates, list.warnings.len()), (3, 1, 1));
    }

    #[test]
    fn selectors_match_as_the_documented_table_says() {
        for (prefix, yes, no) in [
            ("/", "any/thing", None),
            ("/$root/", "$root/logo.bmp", Some("root/x")),
            ("/book", "books/a", Some("boo/k")),
            ("/music/", "music/a/b", Some("musical/x")),
            ("/music/love", "music/lovesong", Some("music/hate")),
        ] {
            let selector = Selector::Prefix(prefix.into());
            assert!(selector.matches(yes));
            assert!(no.is_none_or(|no| !selector.matches(no)));
        }
        assert!(Selector::Path("videos/story.mp4".into()).matches("videos/story.mp4"));
        assert!(!Selector::Path("videos/story.mp4".into()).matches("videos/story.mp4x"));
    }

    #[test]
    fn wrong_lists_are_told_with_all_problems() {
        let bad = |xml: &str| read(Path::new("b.xml"), xml.as_bytes()).unwrap_err().0.len();
        assert_eq!(
            bad(
                "<BlobList><blobPath>a/b</blobPath><BlobPath>a</BlobPath><BlobPathPrefix>a/</BlobPathPrefix><BlobPathPrefix/></BlobList>"
            ),
            4
        );
        for xml in [
            "",
            "<BlobList/>",
            "<BlobList>",
            "<Bloblist/>",
            "<BlobList><BlobPath>a/b</Blobpath></BlobList>",
            "<BlobList/><BlobList/>",
        ] {
            assert_eq!(bad(xml), 1, "{xml}");
        }
    }

    #[test]
    fn inventories_are_read() {
        let csv = "Name,Creation-Time,Content-Length,Deleted\r\ncon/a.txt,2021,10,\r\n\"con/b,c\",2021,20,false\r\ncon/d,2021,1,true\r\n";
        let blobs = read_inventory(Path::new("i.csv"), csv.as_bytes()).unwrap();
        assert_eq!(
            blobs.iter().map(|b| (b.path.as_str(), b.length)).collect::<Vec<_>>(),
            [("con/a.txt", 10), ("con/b,c", 20)]
        );
        let blobs = read_inventory(Path::new("i.csv"), b"Container,Name,Size\ncon,x/y,7\n").unwrap();
        assert_eq!(blobs[0].path, "con/x/y");
        assert_eq!(read_inventory(Path::new("i.csv"), b"Name,Size\nx,big\n,1\n").unwrap_err().0.len(), 2);
    }

    #[test]
    fn hostile_lists_never_panic() {
        use crate::entropy::Seeded;
        let base = "<?xml version=\"1.0\"?><BlobList><BlobPath>a/b&#65;</BlobPath><BlobPathPrefix>/c</BlobPathPrefix></BlobList>";
        let mut random = Seeded::new(10);
        for _ in 0..20_000 {
            let mut bytes = base.as_bytes().to_vec();
            for _ in 0..1 + random.next_u64() % 4 {
                let at = (random.next_u64() % bytes.len() as u64) as usize;
                bytes[at] = [b'<', b'>', b'/', b'&', b';', 0, 0xFF, b'"'][(random.next_u64() % 8) as usize];
            }
            let _ = read(Path::new("b"), bytes.as_slice());
            let _ = read_inventory(Path::new("i"), &bytes);
        }
    }
}
