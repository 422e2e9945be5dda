//! Lists of blobs to export, and inventories of an account (docs/spec/import-export.md#blob-lists).

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use super::base64;
use super::csv::{self, Columns};
use super::xml::{Steps, XmlError, XmlEvent, element, text};
use crate::limits;
use crate::problem::{Kind, Problem, Problems};
use crate::text::Utf8;

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

/// A blob list of these blobs, as the service takes it.
pub fn write<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let mut out = Vec::new();
    text(&mut out, &["<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<BlobList>\n"]);
    for path in paths {
        text(&mut out, &["  "]);
        element(&mut out, "BlobPath", path);
        text(&mut out, &["\n"]);
    }
    text(&mut out, &["</BlobList>\n"]);
    out
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
            XmlEvent::Text(text) if text.trim().is_empty() => continue,
            XmlEvent::Text(text) => {
                problems.push(at("text outside of an element".into()).value(text.trim()));
                continue;
            }
            XmlEvent::End => continue,
            XmlEvent::Eof if !root => return Err(steps.error("holds no BlobList")),
            XmlEvent::Eof => return Ok(()),
            XmlEvent::Start { name, empty, .. } => (name, empty),
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
        let made = if is_prefix { prefix(value.trim(), &at) } else { blob_path(value.trim(), &at, &mut out.warnings) };
        let selector = match made {
            Ok(selector) => selector,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
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

fn prefix(value: &str, at: &dyn Fn(String) -> Problem) -> Result<Selector, Problem> {
    const NAME: &str = "BlobPathPrefix";
    if value.is_empty() {
        return Err(at("prefix is empty".into()).column(NAME).advice("/ selects every blob"));
    }
    if !value.starts_with('/') {
        let problem = at("prefix does not begin with /".into()).column(NAME).value(value);
        return Err(problem.advice(format!("write /{value}")));
    }
    Ok(Selector::Prefix(value.into()))
}

fn blob_path(value: &str, at: &dyn Fn(String) -> Problem, warnings: &mut Vec<Problem>) -> Result<Selector, Problem> {
    const NAME: &str = "BlobPath";
    // One page shows the path with a leading slash, all others without.
    let plain = value.strip_prefix('/').unwrap_or(value);
    match plain.split_once('/') {
        Some((container, blob)) if !container.is_empty() && !blob.is_empty() => {}
        _ => {
            let problem = at("is no container and blob".into()).column(NAME).value(value);
            return Err(problem.advice("container/blob, or $root/blob; BlobPathPrefix for whole containers"));
        }
    }
    if plain.len() < value.len() {
        warnings.push(at("leading / of a BlobPath is dropped".into()).column(NAME).value(value));
    }
    Ok(Selector::Path(plain.into()))
}

/// Selection of an account's blobs by a blob list.
#[derive(Debug, Default)]
pub struct Selection {
    paths: HashMap<String, bool>,
    prefixes: HashMap<String, bool>,
    /// Lengths of the prefixes: few, however many they are.
    lens: BTreeSet<usize>,
}

impl Selection {
    /// Selection by these selectors.
    pub fn new(selectors: &[Selector]) -> Self {
        let mut out = Self::default();
        for selector in selectors {
            match selector {
                Selector::Path(path) => {
                    out.paths.insert(path.clone(), false);
                }
                Selector::Prefix(prefix) => {
                    let prefix = prefix.strip_prefix('/').unwrap_or(prefix);
                    out.lens.insert(prefix.len());
                    out.prefixes.insert(prefix.to_owned(), false);
                }
            }
        }
        out
    }

    /// Whether a blob `container/name` is taken; every selector that takes it has found something.
    pub fn takes(&mut self, path: &str) -> bool {
        let mut is_taken = false;
        if let Some(found) = self.paths.get_mut(path) {
            *found = true;
            is_taken = true;
        }
        for &len in self.lens.range(..=path.len()) {
            let Some(start) = path.get(..len) else { continue };
            if let Some(found) = self.prefixes.get_mut(start) {
                // Containers of the service itself are taken when they are named.
                if !is_system(path) || start.starts_with('$') {
                    *found = true;
                    is_taken = true;
                }
            }
        }
        is_taken
    }

    /// Prefixes that no other one covers, without their leading slash, in order.
    pub fn widest(&self) -> Vec<&str> {
        let mut all: Vec<&str> = self.prefixes.keys().map(String::as_str).collect();
        all.sort_unstable();
        let mut out: Vec<&str> = Vec::new();
        for prefix in all {
            if !out.last().is_some_and(|wider| prefix.starts_with(wider)) || prefix.starts_with('$') && out == [""] {
                out.push(prefix);
            }
        }
        out
    }

    /// Blobs that no prefix covers, in order.
    pub fn single(&self) -> Vec<&str> {
        let covered = |path: &str| {
            self.lens.range(..=path.len()).any(|&len| {
                path.get(..len).is_some_and(|start| {
                    self.prefixes.contains_key(start) && (!is_system(path) || start.starts_with('$'))
                })
            })
        };
        let mut out: Vec<&str> = self.paths.keys().map(String::as_str).filter(|path| !covered(path)).collect();
        out.sort_unstable();
        out
    }

    /// Selectors that took nothing so far, as a blob list writes them, in order.
    pub fn nonexistent(&self) -> Vec<String> {
        let paths = self.paths.iter().filter(|(_, found)| !**found).map(|(path, _)| path.clone());
        let prefixes = self.prefixes.iter().filter(|(_, found)| !**found).map(|(prefix, _)| format!("/{prefix}"));
        let mut out: Vec<String> = paths.chain(prefixes).collect();
        out.sort_unstable();
        out
    }
}

/// Whether a blob lies in a container that the service keeps for itself.
pub fn is_system(path: &str) -> bool {
    ["$logs/", "$blobchangefeed/"].iter().any(|own| path.starts_with(own))
}

/// A blob of an inventory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InventoryBlob {
    /// `container/name`.
    pub path: String,
    /// Length of the blob in bytes.
    pub length: u64,
    /// Time of the snapshot, if it is one.
    pub snapshot: Option<String>,
    /// `BlockBlob`, `PageBlob` or `AppendBlob`, if the inventory says.
    pub kind: Option<String>,
    /// `Hot`, `Archive`, …, if the inventory says.
    pub tier: Option<String>,
    /// MD5 of the content, if the blob has one.
    pub md5: Option<[u8; 16]>,
    /// Content-Type, if the inventory says.
    pub content_type: Option<String>,
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
        &["Content-MD5", "ContentMD5"],
        &["Content-Type", "ContentType"],
    ],
    sample: "Name,Content-Length",
};

/// Longest record of an inventory: a name, and metadata of 8 KiB, each sign escaped.
const RECORD_MAX: usize = 1 << 20;

/// An inventory, read record by record: it may have millions.
///
/// `Name` is `container/blob` as Azure's own inventory reports write it, or only the blob when there is a `Container`
/// column. Deleted blobs and old versions are left out, since exports do not hold them.
pub struct Inventory<R> {
    path: PathBuf,
    input: Utf8<R>,
    header: csv::Header,
    separator: u8,
    line: u64,
}

impl<R> std::fmt::Debug for Inventory<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inventory").field("path", &self.path).field("line", &self.line).finish_non_exhaustive()
    }
}

/// Reads up to the end of a record: quotes may hold line ends. Empty at the end of the file.
fn raw_record(input: &mut impl BufRead, out: &mut Vec<u8>, path: &Path, line: u64) -> Result<(), Problem> {
    out.clear();
    let mut quotes = 0usize;
    loop {
        let before = out.len();
        let read = input.take(RECORD_MAX as u64).read_until(b'\n', out);
        let len =
            read.map_err(|error| Problem::new(Kind::Usage, format!("cannot be read: {error}")).path(path).line(line))?;
        quotes += out[before..].iter().filter(|byte| **byte == b'"').count();
        if len == 0 || quotes.is_multiple_of(2) {
            return Ok(());
        }
        if out.len() > RECORD_MAX {
            return Err(Problem::new(Kind::Usage, "quote is never closed").path(path).line(line));
        }
    }
}

impl<R: BufRead> Inventory<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// The defect.
    pub fn new(path: &Path, input: R) -> Result<Self, Problems> {
        let mut input = Utf8::new(input);
        let mut bytes = Vec::new();
        let mut line = 1;
        let (separator, mut records) = loop {
            let from = bytes.len();
            let mut record = Vec::new();
            raw_record(&mut input, &mut record, path, line)?;
            let is_end = record.is_empty();
            bytes.extend(record);
            // A line `sep=;` and blank lines stand before the header.
            let mut problems = Problems::default();
            let records = csv::records(path, &bytes, &mut problems);
            problems.into_result()?;
            line += bytes[from..].iter().filter(|byte| **byte == b'\n').count() as u64;
            if is_end || !records.is_empty() {
                break (csv::separator(&bytes).0, records);
            }
        };
        let (mut problems, mut ignored) = (Problems::default(), Vec::new());
        let header = csv::header(path, &mut records, &COLUMNS, &mut problems, &mut ignored);
        problems.into_result()?;
        let header = header.ok_or_else(|| Problem::new(Kind::Usage, "has no header").path(path))?;
        Ok(Self { path: path.to_owned(), input, header, separator, line })
    }

    /// Whether it says the MD5 of those blobs that have one.
    pub fn has_md5(&self) -> bool {
        COLUMNS.optional[7].iter().any(|name| self.header.has(name))
    }

    /// Whether it says where blobs lie.
    pub fn has_tiers(&self) -> bool {
        self.header.has("AccessTier")
    }

    /// The next blob; `None` at the end.
    ///
    /// # Errors
    /// The defect of a record; the next one can still be read.
    pub fn next_blob(&mut self) -> Result<Option<InventoryBlob>, Problem> {
        let mut raw = Vec::new();
        loop {
            let line = self.line;
            raw_record(&mut self.input, &mut raw, &self.path, line)?;
            if raw.is_empty() {
                return Ok(None);
            }
            self.line += raw.iter().filter(|byte| **byte == b'\n').count() as u64;
            let at = |what: &str| Problem::new(Kind::Usage, what).path(&self.path).line(line);
            // A Ctrl-Z that ended files on DOS.
            if raw.trim_ascii() == [0x1A] {
                continue;
            }
            let record = csv::one(&raw, line, self.separator).map_err(|_| at("quote is never closed"))?;
            if record.fields.iter().all(csv::Field::is_empty) {
                continue;
            }
            let get = |names: &[&str]| {
                names.iter().find_map(|name| self.header.get(&record, name)).map(|field| field.text().into_owned())
            };
            let says = |name: &str, word: &str| get(&[name]).is_some_and(|text| text.trim().eq_ignore_ascii_case(word));
            if says("Deleted", "true") || says("IsCurrentVersion", "false") {
                continue;
            }
            let name = get(&["Name"]).ok_or_else(|| at("value is missing").column("Name"))?;
            let text = get(COLUMNS.required[1]).unwrap_or_default();
            let length = text.trim().parse();
            let length = length.map_err(|_| at("is no number of bytes").column("Content-Length").value(text))?;
            let md5 = get(COLUMNS.optional[7]).map(|text| {
                let bytes = base64::decode(text.trim()).and_then(|bytes| bytes.try_into().ok());
                bytes.ok_or_else(|| at("is no MD5 in base64").column("Content-MD5").value(text))
            });
            return Ok(Some(InventoryBlob {
                path: match get(&["Container"]) {
                    Some(container) => format!("{container}/{name}"),
                    None => name,
                },
                length,
                snapshot: get(&["Snapshot"]),
                kind: get(&["BlobType"]),
                tier: get(&["AccessTier"]),
                md5: md5.transpose()?,
                content_type: get(COLUMNS.optional[8]),
            }));
        }
    }
}

/// All of an inventory.
///
/// # Errors
/// Everything that is wrong in it.
pub fn read_inventory(path: &Path, input: &[u8]) -> Result<Vec<InventoryBlob>, Problems> {
    let mut problems = Problems::default();
    let mut out = Vec::new();
    let mut inventory = Inventory::new(path, input)?;
    while problems.0.len() <= limits::FAULTS_MAX {
        let line = inventory.line;
        match inventory.next_blob() {
            Ok(Some(blob)) => out.push(blob),
            Ok(None) => break,
            Err(problem) => {
                problems.push(problem);
                // What could not be read at all will not be read again.
                if inventory.line == line {
                    break;
                }
            }
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
    fn what_is_written_is_read_again() {
        let names = ["c/a & <b> \"c\".jpg", "c/tab\tline\r\nline", "$root/\u{85}\u{2028}x", "c/ü %20"];
        let list = read(Path::new("b.xml"), &write(names.into_iter())[..]).expect("a list");
        let paths: Vec<Selector> = names.iter().map(|name| Selector::Path((*name).to_owned())).collect();
        assert_eq!(list.selectors, paths);
        // What no XML can carry does not make the list unreadable.
        assert!(
            read(Path::new("b.xml"), &write(["c/\u{1}", "c/good"].into_iter())[..])
                .is_ok_and(|list| { list.selectors.contains(&Selector::Path("c/good".into())) })
        );
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
    fn inventories_of_the_service_are_read_record_by_record() {
        let csv = "Name,Content-Length,BlobType,AccessTier,Content-MD5,Snapshot,Tags,IsCurrentVersion\n\
                   c/a,3,BlockBlob,Hot,kAFQmDzST7DWlj99KOF/cg==,,x,\n\"c/b\nline\",512,PageBlob,,,2026-11-29T08:00:00Z,,\n\
                   c/old,1,BlockBlob,Hot,,,,false\nc/z,9,BlockBlob,Archive,,,,true\n";
        let mut inventory = Inventory::new(Path::new("i.csv"), csv.as_bytes()).expect("a header");
        assert!(inventory.has_md5() && inventory.has_tiers());
        let mut all = Vec::new();
        while let Some(blob) = inventory.next_blob().expect("good") {
            all.push(blob);
        }
        let [first, second, last] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!((first.md5.is_some(), first.kind.as_deref()), (true, Some("BlockBlob")));
        assert_eq!((second.path.as_str(), second.snapshot.is_some()), ("c/b\nline", true));
        assert_eq!(last.tier.as_deref(), Some("Archive"));
        let bad = "Name,Content-Length,Content-MD5\nc/a,1,notbase64\nc/b,x,\nc/c,1,\n";
        let problems = read_inventory(Path::new("i.csv"), bad.as_bytes()).unwrap_err();
        assert_eq!(problems.0.iter().map(|p| p.place.line).collect::<Vec<_>>(), [Some(2), Some(3)]);
    }

    #[test]
    fn a_selection_knows_what_it_found() {
        let list = |items: &[&str]| -> Vec<Selector> {
            let of = |text: &&str| match text.strip_prefix('/') {
                Some(_) => Selector::Prefix((*text).into()),
                None => Selector::Path((*text).into()),
            };
            items.iter().map(of).collect()
        };
        let mut some =
            Selection::new(&list(&["/music/", "/music/love", "/book", "$root/logo", "music/x", "videos/a", "/no"]));
        assert_eq!(some.widest(), ["book", "music/", "no"]);
        assert_eq!(some.single(), ["$root/logo", "videos/a"]);
        for (path, is) in
            [("music/lovesong", true), ("books/1", true), ("videos/a", true), ("videos/b", false), ("musical/x", false)]
        {
            assert_eq!(some.takes(path), is, "{path}");
        }
        assert_eq!(some.nonexistent(), ["$root/logo", "/no", "music/x"]);
        // Everything: the root container too, and not the service's own.
        let mut all = Selection::new(&list(&["/"]));
        assert!(all.takes("$root/logo") && all.takes("$web/index.html") && !all.takes("$logs/blob/1"));
        assert!(Selection::new(&list(&["/$logs/"])).takes("$logs/blob/1"));
        assert_eq!(Selection::new(&list(&["/", "/$logs/"])).widest(), ["", "$logs/"]);
    }

    #[test]
    fn hostile_lists_never_panic() {
        use dray_base::entropy::Seeded;
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
