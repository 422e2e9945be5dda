//! `dataset.csv`: sources and their destinations (docs/spec/import-export.md#data-set-columns and
//! docs/spec/import-export.md#mapping-of-files-to-blobs).

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::csv::{self, Columns, Field, Header, Record};
use super::names::{self, ROOT};
use crate::problem::{Kind, Problem, Problems};

/// Kind of blob that the service makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlobType {
    /// Block blob: up to 50,000 blocks.
    Block,
    /// Page blob: a multiple of 512 bytes.
    Page,
    /// A file of an Azure Files share (`file`, tool 2.2.0.300). Its manifest form is not public.
    File,
}

impl BlobType {
    /// The type of a blob with this name when the row does not set one: page blobs for `*.vhd` and `*.vhdx`, block
    /// blobs for all others.
    pub fn default_for(blob: &str) -> Self {
        match blob.rsplit_once('.') {
            Some((_, ext)) if ext.eq_ignore_ascii_case("vhd") || ext.eq_ignore_ascii_case("vhdx") => Self::Page,
            _ => Self::Block,
        }
    }
}

/// Treatment of an existing blob by the service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Disposition {
    /// Uploads under a new name, `x (2).jpg`. The documented default, and the only one that loses nothing.
    #[default]
    Rename,
    /// Leaves the existing blob alone.
    NoOverwrite,
    /// Replaces the existing blob.
    Overwrite,
}

impl Disposition {
    /// Spelling in CSV and manifest.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rename => "rename",
            Self::NoOverwrite => "no-overwrite",
            Self::Overwrite => "overwrite",
        }
    }

    /// Exactly the documented spellings.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Rename, Self::NoOverwrite, Self::Overwrite].into_iter().find(|d| d.as_str() == text)
    }
}

impl fmt::Display for Disposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Destination of a row's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Container, or `$root`; its name is valid.
    pub container: String,
    /// Prefix of the blob names, empty or ending in `/`; or the one blob's name. Separators are `/`.
    pub prefix_or_blob: String,
    /// Whether it is a prefix: true for every directory.
    pub is_prefix: bool,
}

/// One row: a source, its destination, and settings for its blobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasetRow {
    /// Line in the file, from 1.
    pub line: u64,
    /// Source, without the separator that marks a directory.
    pub base_path: PathBuf,
    /// The row names a directory, by a separator at the end. Whether it is one is checked by the caller.
    pub is_dir_spelled: bool,
    /// Container and prefix or blob.
    pub destination: Destination,
    /// `None`: by the name of each blob, [`BlobType::default_for`].
    pub blob_type: Option<BlobType>,
    /// Treatment of existing blobs.
    pub disposition: Disposition,
    /// The row says that itself.
    pub says_disposition: bool,
    /// XML with the metadata of every blob of the row.
    pub metadata_file: Option<PathBuf>,
    /// XML with the properties of every blob of the row.
    pub properties_file: Option<PathBuf>,
}

/// A dataset file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dataset {
    /// Rows in file order.
    pub rows: Vec<DatasetRow>,
    /// Oddities that were understood.
    pub warnings: Vec<Problem>,
}

const COLUMNS: Columns = Columns {
    required: &[&["BasePath"], &["DstBlobPathOrPrefix", "DstItemPathOrPrefix"]],
    optional: &[&["BlobType", "ItemType"], &["Disposition"], &["MetadataFile"], &["PropertiesFile"]],
    sample: "BasePath,DstBlobPathOrPrefix,BlobType,Disposition,MetadataFile,PropertiesFile",
};

/// Columns with ASCII words as values.
const WORDS: &[&str] = &["BlobType", "ItemType", "Disposition"];

/// Reads a dataset file; `path` is only for messages.
///
/// # Errors
/// Everything that is wrong in it.
pub fn parse(path: &Path, input: &[u8]) -> Result<Dataset, Problems> {
    let mut problems = Problems::default();
    let out = parse_into(path, input, &mut problems);
    problems.into_result().map(|()| out)
}

/// As [`parse`], but returns the valid rows even when others are not, so that one run reports every problem.
pub fn parse_into(path: &Path, input: &[u8], problems: &mut Problems) -> Dataset {
    let before = problems.0.len();
    let mut out = Dataset::default();
    let decoded = csv::decode(input);
    let mut records = csv::records(path, &decoded, problems);
    if let Some(header) = csv::header(path, &mut records, &COLUMNS, problems, &mut out.warnings) {
        if records.is_empty() && problems.0.len() == before {
            problems.push(Problem::new(Kind::Usage, "file has no rows").path(path));
        }
        let dst = if header.has("DstItemPathOrPrefix") { "DstItemPathOrPrefix" } else { "DstBlobPathOrPrefix" };
        let kind = if header.has("ItemType") { "ItemType" } else { "BlobType" };
        for record in &mut records {
            let sound = csv::check_width(path, &header, record, &[], problems)
                & csv::check_characters(path, &header, record, WORDS, problems, &mut out.warnings);
            if sound {
                let mut row =
                    Row { path, header: &header, record, problems: &mut *problems, warnings: &mut out.warnings };
                out.rows.extend(row.parse(dst, kind));
            }
        }
    }
    out
}

/// A row that is in no file: the source of a first-generation command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenSource {
    /// `BasePath`; a directory ends in `/`.
    pub base_path: OsString,
    /// `DstBlobPathOrPrefix`.
    pub destination: OsString,
    /// `BlobType`; `None`: the default.
    pub blob_type: Option<OsString>,
    /// `Disposition`; `None`: the default.
    pub disposition: Option<OsString>,
    /// `MetadataFile`.
    pub metadata_file: Option<OsString>,
    /// `PropertiesFile`.
    pub properties_file: Option<OsString>,
}

impl GivenSource {
    /// The dataset of this row alone; `path` is only for messages.
    pub fn read(&self, path: &Path, problems: &mut Problems) -> Dataset {
        let or_empty = |value: &Option<OsString>| value.clone().unwrap_or_default().into_vec();
        let (kind, disposition) = (or_empty(&self.blob_type), or_empty(&self.disposition));
        let (metadata, properties) = (or_empty(&self.metadata_file), or_empty(&self.properties_file));
        let (header, mut record) = csv::given(&[
            ("BasePath", self.base_path.as_bytes()),
            ("DstBlobPathOrPrefix", self.destination.as_bytes()),
            ("BlobType", &kind),
            ("Disposition", &disposition),
            ("MetadataFile", &metadata),
            ("PropertiesFile", &properties),
        ]);
        let mut out = Dataset::default();
        if csv::check_characters(path, &header, &mut record, WORDS, problems, &mut out.warnings) {
            let mut row = Row { path, header: &header, record: &record, problems, warnings: &mut out.warnings };
            out.rows.extend(row.parse("DstBlobPathOrPrefix", "BlobType"));
        }
        out
    }
}

struct Row<'a> {
    path: &'a Path,
    header: &'a Header,
    record: &'a Record,
    problems: &'a mut Problems,
    warnings: &'a mut Vec<Problem>,
}

impl Row<'_> {
    fn parse(&mut self, dst: &str, kind: &str) -> Option<DatasetRow> {
        // Each column is read even if another failed: all problems are reported together.
        let base = self.base_path();
        let is_dir = base.as_ref().map(|(_, is_dir)| *is_dir);
        let destination = self.destination(dst, is_dir);
        let blob_type = self.blob_type(kind);
        let disposition = self.disposition();
        let metadata_file = self.side_file("MetadataFile");
        let properties_file = self.side_file("PropertiesFile");
        let (base_path, is_dir_spelled) = base?;
        Some(DatasetRow {
            line: self.record.line,
            base_path,
            is_dir_spelled,
            destination: destination?,
            blob_type: blob_type?,
            disposition: disposition?,
            says_disposition: self.says_disposition(),
            metadata_file: metadata_file?,
            properties_file: properties_file?,
        })
    }

    fn get(&self, column: &str) -> Option<&Field> {
        self.header.get(self.record, column)
    }

    fn at(&self, column: &str, what: impl Into<String>) -> Problem {
        Problem::new(Kind::Usage, what).path(self.path).line(self.record.line).column(column)
    }

    fn fail<T>(&mut self, problem: Problem) -> Option<T> {
        self.problems.push(problem);
        None
    }

    fn base_path(&mut self) -> Option<(PathBuf, bool)> {
        const COLUMN: &str = "BasePath";
        let Some(field) = self.get(COLUMN) else {
            let problem = self.at(COLUMN, "value is missing");
            return self.fail(problem.advice("a directory (with / at its end) or a file"));
        };
        let bytes = field.bytes.to_vec();
        let text = field.text().into_owned();
        if is_windows_path(&bytes) {
            let problem = self.at(COLUMN, "is a Windows path").value(text);
            return self.fail(problem.advice("give the path as it is on this machine, such as /data/photos/"));
        }
        if let Some(path) = text.strip_prefix("file://") {
            let problem = self.at(COLUMN, "is a URL").value(&text);
            return self.fail(problem.advice(format!("give the path, with blanks as they are, such as {path}")));
        }
        let is_dir = matches!(bytes.last(), Some(b'/' | b'\\'));
        // Only a `\` at the very end marks a directory; within a Linux name it is a letter.
        let kept = match bytes.as_slice() {
            [kept @ .., b'\\'] => kept,
            all => &all[..all.iter().rposition(|b| *b != b'/').map_or(0, |last| last + 1)],
        };
        let path = if kept.is_empty() { PathBuf::from("/") } else { PathBuf::from(OsString::from_vec(kept.to_vec())) };
        if bytes.contains(&0) {
            let problem = self.at(COLUMN, "path holds a zero byte").value(text);
            return self.fail(problem);
        }
        if !path.is_absolute() {
            let warning = self.at(COLUMN, "relative path is taken from the current directory").value(text);
            self.warnings.push(warning);
        }
        Some((path, is_dir))
    }

    /// `is_dir`: whether the base path names a directory; `None` if it could not be read.
    fn destination(&mut self, column: &str, is_dir: Option<bool>) -> Option<Destination> {
        let (text, relative) = self.blob_path(column)?;
        if let Some(rest) = relative.strip_prefix('/') {
            let problem = self.at(column, "destination begins with /").value(&text);
            return self.fail(problem.advice(format!("write {rest}")));
        }
        let (container, rest) = match relative.split_once('/') {
            Some((container, rest)) => (container, rest),
            None => {
                let problem = self.at(column, "destination names no container").value(&text);
                return self.fail(problem.advice(match is_dir {
                    Some(true) => format!("write {relative}/ for the container, or {ROOT}/"),
                    _ => format!("write container/{relative}, or {ROOT}/{relative} for the root container"),
                }));
            }
        };
        let mut good = true;
        if let Err(e) = names::check_container(container) {
            let problem = self.at(column, e.to_string()).value(container).advice(e.advice());
            self.problems.push(problem);
            good = false;
        }
        let is_prefix = rest.is_empty() || rest.ends_with('/');
        good &= self.fits_base(column, &text, &relative, (is_prefix, is_dir));
        good &= self.is_name(column, &text, (container, rest));
        good.then(|| Destination { container: container.into(), prefix_or_blob: rest.into(), is_prefix })
    }

    /// The destination in a field, as it is written, and as `container/name`.
    fn blob_path(&mut self, column: &str) -> Option<(String, String)> {
        const FORM: &str = "container/ or container/prefix/ for a directory, container/blob for a file";
        let Some(field) = self.get(column) else {
            let problem = self.at(column, "value is missing");
            return self.fail(problem.advice(FORM));
        };
        let Ok(text) = std::str::from_utf8(&field.bytes) else {
            let problem = self.at(column, "is not UTF-8").value(field.text());
            return self.fail(problem.advice("save the file as UTF-8: names of blobs are Unicode"));
        };
        let text = text.trim_ascii().to_owned();
        let relative = match strip_url(&text) {
            Ok(Cow::Owned(decoded)) => {
                let what = format!("the URL's escapes are resolved: {decoded}");
                self.warnings
                    .push(self.at(column, what).advice("without https://… in front, % would be taken as it is"));
                decoded.replace('\\', "/")
            }
            Ok(Cow::Borrowed(relative)) => relative.replace('\\', "/"),
            // The value may hold a shared access signature, so it is not shown.
            Err((what, advice)) => {
                let problem = self.at(column, what);
                return self.fail(problem.advice(advice));
            }
        };
        Some((text, relative))
    }

    /// Whether a prefix goes with a directory, and the name of a blob with a file.
    fn fits_base(
        &mut self,
        column: &str,
        text: &str,
        relative: &str,
        (is_prefix, is_dir): (bool, Option<bool>),
    ) -> bool {
        match is_dir {
            Some(true) if !is_prefix => {
                let problem = self.at(column, "a directory needs a prefix that ends in /").value(text);
                self.problems.push(problem.advice(format!("write {relative}/")));
                false
            }
            Some(false) if is_prefix => {
                let name = self.base_name();
                let problem = self.at(column, "a file needs the whole name of its blob").value(text);
                self.problems
                    .push(problem.advice(format!("write {relative}{name}; if BasePath is a directory, end it in /")));
                false
            }
            _ => true,
        }
    }

    /// Whether the name of a blob, or a prefix of names, is one that the service takes.
    fn is_name(&mut self, column: &str, text: &str, (container, rest): (&str, &str)) -> bool {
        if container == ROOT && rest.contains('/') {
            let problem = self.at(column, "blobs in the root container cannot hold /").value(text);
            self.problems.push(problem.advice(format!("write {ROOT}/ or {ROOT}/blob")));
            return false;
        }
        if rest.is_empty() {
            return true;
        }
        // A prefix is checked as the beginning of a name; the files supply the rest.
        let checked = rest.strip_suffix('/').unwrap_or(rest);
        match names::check_blob(container, checked) {
            Ok(warnings) => {
                for what in warnings.texts() {
                    let warning = self.at(column, what).value(text);
                    self.warnings.push(warning);
                }
                true
            }
            Err(e) => {
                let problem = self.at(column, e.to_string()).value(text).advice(e.advice());
                self.problems.push(problem);
                false
            }
        }
    }

    fn base_name(&self) -> String {
        let base = self.get("BasePath").map(|f| f.text().into_owned()).unwrap_or_default();
        base.rsplit('/').next().unwrap_or_default().to_owned()
    }

    fn blob_type(&mut self, column: &str) -> Option<Option<BlobType>> {
        const FORM: &str = "BlockBlob, PageBlob or file; upper and lower case matter";
        // The 2018 tool, whose column is ItemType, refuses an item without one with this message.
        const REFUSED: &str = "'None' isn't valid";
        // It refuses an unknown one with the same message, which would name a value that is not in the file.
        const UNKNOWN: &str = "is no item type (the Windows tool would say: 'None' isn't valid)";
        let field = self.get(column).map(|f| f.text().trim().to_owned()).filter(|t| !is_none(t));
        let Some(text) = field else {
            if column == "BlobType" {
                return Some(None);
            }
            let problem = self.at(column, REFUSED);
            return self.fail(problem.advice(FORM));
        };
        Some(Some(match text.as_str() {
            "BlockBlob" | "block" => BlobType::Block,
            "PageBlob" | "page" => BlobType::Page,
            "file" | "File" | "AzureFile" => BlobType::File,
            _ => {
                let what = if column == "ItemType" { UNKNOWN } else { "is no blob type" };
                let problem = self.at(column, what).value(&text);
                let right = [
                    ("blockblob", "BlockBlob"),
                    ("block", "BlockBlob"),
                    ("pageblob", "PageBlob"),
                    ("page", "PageBlob"),
                ];
                let meant = right.iter().find(|(lower, _)| text.eq_ignore_ascii_case(lower));
                return self.fail(problem.advice(meant.map_or(FORM.into(), |(_, right)| format!("write {right}"))));
            }
        }))
    }

    fn disposition(&mut self) -> Option<Disposition> {
        const COLUMN: &str = "Disposition";
        let field = self.get(COLUMN).map(|f| f.text().trim().to_owned()).filter(|t| !is_none(t));
        let Some(text) = field else { return Some(Disposition::default()) };
        match Disposition::parse(&text) {
            Some(disposition) => Some(disposition),
            None => {
                let problem = self.at(COLUMN, "is no disposition").value(text);
                self.fail(problem.advice("rename, no-overwrite or overwrite, in lower case"))
            }
        }
    }

    fn says_disposition(&mut self) -> bool {
        self.get("Disposition").is_some_and(|field| !is_none(field.text().trim()))
    }

    /// The outer `Option` is `None` after a problem.
    fn side_file(&mut self, column: &str) -> Option<Option<PathBuf>> {
        let Some(field) = self.get(column).filter(|f| !is_none(&f.text())) else { return Some(None) };
        if is_windows_path(&field.bytes) {
            let problem = self.at(column, "is a Windows path").value(field.text());
            return self.fail(problem.advice("give the path as it is on this machine, or None"));
        }
        Some(Some(PathBuf::from(OsString::from_vec(field.bytes.to_vec()))))
    }
}

/// The literal `None`, quoted or not; a file of that name can be given as `./None`.
fn is_none(text: &str) -> bool {
    text.trim().eq_ignore_ascii_case("none")
}

/// `C:\…`, `C:/…` or `\\server\share`.
fn is_windows_path(bytes: &[u8]) -> bool {
    matches!(bytes, [letter, b':', b'\\' | b'/', ..] | [letter, b':'] if letter.is_ascii_alphabetic())
        || bytes.starts_with(br"\\")
}

/// Drops scheme and host of a blob's URL, and resolves its escapes: in a URL a blank is `%20`. Text that is no URL is a
/// name, in which `%` is a character like others (docs/spec/import-export.md#data-set-columns and
/// docs/spec/import-export.md#manifest-grammar).
fn strip_url(text: &str) -> Result<Cow<'_, str>, (&'static str, &'static str)> {
    let is_scheme = |s: &str| s.eq_ignore_ascii_case("https") || s.eq_ignore_ascii_case("http");
    let Some((scheme, rest)) = text.split_once("://").filter(|(s, _)| is_scheme(s)) else {
        return Ok(Cow::Borrowed(text));
    };
    debug_assert!(is_scheme(scheme));
    if rest.contains('?') {
        return Err(("URL has a query", "give container and blob only, without the part after ?"));
    }
    if rest.contains('#') {
        return Err(("URL has a fragment", "write %23 for # in a URL, or the name without https://…"));
    }
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if host.to_ascii_lowercase().contains(".file.core.") {
        return Err(("is the URL of an Azure Files share", "shares cannot be prepared: name a container of blobs"));
    }
    if !path.contains('%') {
        return Ok(Cow::Borrowed(path));
    }
    const ESCAPE: &str = "% and two hex digits stand for a byte of UTF-8; write %25 for % itself";
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |at: usize| char::from(*behind.get(at)?).to_digit(16);
        let (Some(high), Some(low)) = (digit(0), digit(1)) else {
            return Err(("URL has an escape that is none", ESCAPE));
        };
        bytes.push((high << 4 | low) as u8);
        rest = &behind[2..];
    }
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| ("URL has escapes that are no UTF-8", ESCAPE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(input: &str) -> Dataset {
        parse(Path::new("d.csv"), input.as_bytes()).unwrap_or_else(|e| panic!("{input}\n{e}"))
    }

    fn bad(input: &str) -> Vec<Problem> {
        parse(Path::new("d.csv"), input.as_bytes()).map(|d| panic!("{d:?}")).unwrap_err().0
    }

    const H17: &str = "BasePath,DstBlobPathOrPrefix,BlobType,Disposition,MetadataFile,PropertiesFile\n";
    const H18: &str = "BasePath,DstItemPathOrPrefix,ItemType,Disposition,MetadataFile,PropertiesFile\n";
    const H22: &str = "BasePath,DstItemPathOrPrefix,ItemType\n";

    #[test]
    fn documented_sample_rows_are_understood_in_each_generation() {
        // The published rows with Linux paths in place of drive letters; quotes, backslashes and blanks as published.
        let rows = concat!(
            "\"/F/50M_original/100M_1.csv.txt\",\"containername/100M_1.csv.txt\",BlockBlob,rename,\"None\",None \n",
            "\"/F/50M_original\\\",\"containername/\",BlockBlob,rename,\"None\",None |\n",
            "/H/Photo\\,photo/,BlockBlob,rename,None,/H/mydirectory/properties.xml\n",
        );
        for header in [H17, H18] {
            let rows = good(&format!("{header}{rows}")).rows;
            assert_eq!(rows.len(), 3);
            assert_eq!(rows[0].base_path, Path::new("/F/50M_original/100M_1.csv.txt"));
            assert!(!rows[0].is_dir_spelled && !rows[0].destination.is_prefix);
            assert_eq!(rows[0].destination.prefix_or_blob, "100M_1.csv.txt");
            assert_eq!((rows[0].metadata_file.as_ref(), rows[0].properties_file.as_ref()), (None, None));
            assert_eq!(rows[1].base_path, Path::new("/F/50M_original"));
            assert!(rows[1].is_dir_spelled && rows[1].destination.is_prefix);
            assert_eq!(rows[1].destination.container, "containername");
            assert_eq!(rows[1].properties_file, None);
            assert_eq!(rows[2].base_path, Path::new("/H/Photo"));
            assert_eq!(rows[2].properties_file.as_deref(), Some(Path::new("/H/mydirectory/properties.xml")));
            assert_eq!(rows.iter().map(|r| r.line).collect::<Vec<_>>(), [2, 3, 4]);
        }
        let rows = good(&format!("{H22}\"/F/MyFolder2\\\",\"myshare1/\",file\n")).rows;
        assert_eq!(rows[0].blob_type, Some(BlobType::File));
    }

    #[test]
    fn windows_paths_of_the_published_samples_are_refused_with_a_hint() {
        let rows =
            "\"F:\\50M_original\\\",\"containername/\",BlockBlob,rename,\"None\",None\n\\\\srv\\s\\,c00/,block,,,\n";
        let problems = bad(&format!("{H17}{rows}"));
        assert_eq!(problems.len(), 2);
        assert!(problems.iter().all(|p| p.what == "is a Windows path" && p.advice.is_some()));
        assert_eq!(problems[0].value.as_deref(), Some("F:\\50M_original\\"));
        assert_eq!(problems[1].place.line, Some(3));
    }

    #[test]
    fn odd_inputs_are_understood() {
        for (input, base, container, rest) in [
            ("\u{FEFF}BasePath,DstBlobPathOrPrefix\r\n\r\n/a/,con/\r\n,\r\n", "/a", "con", ""),
            ("basepath , DSTBLOBPATHORPREFIX |\n/a b/ ,con/p/ |", "/a b", "con", "p/"),
            ("DstItemPathOrPrefix,ItemType,BasePath\ncon\\p\\q\\,BlockBlob,/a/", "/a", "con", "p/q/"),
            ("BasePath,DstBlobPathOrPrefix\n/a/,https://acct.blob.core.windows.net/video/\n", "/a", "video", ""),
            (
                "BasePath,DstBlobPathOrPrefix\n/a/,https://h/video/my%20films%2f100%25/\n",
                "/a",
                "video",
                "my films/100%/",
            ),
            ("BasePath,DstBlobPathOrPrefix\n/a/,video/my%20films/\n", "/a", "video", "my%20films/"),
            ("sep=;\r\nBasePath;DstBlobPathOrPrefix\r\n/a,b/;con/\r\n\x1A", "/a,b", "con", ""),
            ("BasePath;DstBlobPathOrPrefix\n/a/;con/", "/a", "con", ""),
            ("\u{200B}BasePath,DstBlobPathOrPrefix\u{A0},BlobType\n/a/,con/,Block\u{200B}Blob\u{A0}", "/a", "con", ""),
            ("BasePath,DstBlobPathOrPrefix\n/a/,\"con/\u{201C}x\u{201D}/\"\n", "/a", "con", "\u{201C}x\u{201D}/"),
            ("BasePath,DstBlobPathOrPrefix\n/a/,$root/\n", "/a", "$root", ""),
            ("BasePath,DstBlobPathOrPrefix\n/,con/\n", "/", "con", ""),
            ("BasePath,DstBlobPathOrPrefix\n//a//,con/\n", "//a", "con", ""),
            ("BasePath,DstBlobPathOrPrefix\n\"/a,\"\"b\"\"/\",con/\n", "/a,\"b\"", "con", ""),
        ] {
            let rows = good(input).rows;
            assert_eq!(rows.len(), 1, "{input}");
            assert_eq!(rows[0].base_path, Path::new(base), "{input}");
            assert_eq!(rows[0].destination.container, container);
            assert_eq!(rows[0].destination.prefix_or_blob, rest);
            assert!(rows[0].is_dir_spelled);
        }
        let utf16: Vec<u8> =
            "\u{FEFF}BasePath,DstBlobPathOrPrefix\n/ä/,con/\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(parse(Path::new("d"), &utf16).unwrap().rows[0].base_path, Path::new("/ä"));
        let latin1 = b"BasePath,DstBlobPathOrPrefix\n/\xE4/,con/\n";
        let row = &parse(Path::new("d"), latin1).unwrap().rows[0];
        assert_eq!(row.base_path.as_os_str().as_encoded_bytes(), b"/\xE4");
    }

    #[test]
    fn values_are_taken_as_documented() {
        let row = |tail: &str| good(&format!("{H17}/a/f.vhd,con/f.vhd,{tail}\n")).rows.remove(0);
        assert_eq!(row("BlockBlob,,,").blob_type, Some(BlobType::Block));
        assert_eq!(row("block,overwrite,,").disposition, Disposition::Overwrite);
        assert_eq!(row("PageBlob,no-overwrite,,").disposition, Disposition::NoOverwrite);
        assert_eq!(row("page,,none,NONE").metadata_file, None);
        assert_eq!(row(",,,").blob_type, None);
        assert_eq!(row("None,None,,").blob_type, None);
        assert_eq!(row(",,./None,").metadata_file.as_deref(), Some(Path::new("./None")));
        assert_eq!(BlobType::default_for("x/y.VHD"), BlobType::Page);
        assert_eq!(BlobType::default_for("x.vhdx"), BlobType::Page);
        assert_eq!(BlobType::default_for("vhd"), BlobType::Block);
    }

    #[test]
    fn each_wrong_value_is_told_with_column_and_advice() {
        for (header, row, column, what) in [
            (H17, ",con/,,,,", "BasePath", "value is missing"),
            (H17, "/a/,,,,,", "DstBlobPathOrPrefix", "value is missing"),
            (H17, "/a/,con/p,,,,", "DstBlobPathOrPrefix", "a directory needs a prefix that ends in /"),
            (H17, "/a/b,con/,,,,", "DstBlobPathOrPrefix", "a file needs the whole name of its blob"),
            (H17, "/a/,/con/,,,,", "DstBlobPathOrPrefix", "destination begins with /"),
            (H17, "/a/,con,,,,", "DstBlobPathOrPrefix", "destination names no container"),
            (H17, "/a/,$root/p/,,,,", "DstBlobPathOrPrefix", "blobs in the root container cannot hold /"),
            (H17, "file:///a/,con/,,,,", "BasePath", "is a URL"),
            (H17, "/a/,con/,blockblob,,,", "BlobType", "is no blob type"),
            (H18, "/a/,con/,Blob,,,", "ItemType", "is no item type (the Windows tool would say: 'None' isn't valid)"),
            (H18, "/a/,con/,None,,,", "ItemType", "'None' isn't valid"),
            (H22, "/a/,con/,", "ItemType", "'None' isn't valid"),
            (H17, "/a/,con/,,Rename,,", "Disposition", "is no disposition"),
            (H17, "/a/,con/,,,C:\\m.xml,", "MetadataFile", "is a Windows path"),
            (H17, "/a/,https://h/con/?sv=1&sig=abc,,,,", "DstBlobPathOrPrefix", "URL has a query"),
            (H17, "/a/,https://h/con/50%/,,,,", "DstBlobPathOrPrefix", "URL has an escape that is none"),
            (H17, "/a/,https://h/con/%E4/,,,,", "DstBlobPathOrPrefix", "URL has escapes that are no UTF-8"),
            (H17, "\u{201C}/a/\u{201D},con/,,,,", "BasePath", "value begins with U+201C LEFT DOUBLE QUOTATION MARK"),
            (
                H17,
                "/a/,con/\u{AB},,,,",
                "DstBlobPathOrPrefix",
                "value ends with U+00AB LEFT-POINTING DOUBLE ANGLE QUOTATION MARK",
            ),
            (H17, "/a/\u{A0},con/,,,,", "BasePath", "value ends with U+00A0 NO-BREAK SPACE, which cannot be seen"),
            (
                H17,
                "\u{FEFF}/a/,con/,,,,",
                "BasePath",
                "value begins with U+FEFF ZERO WIDTH NO-BREAK SPACE, which cannot be seen",
            ),
            (
                H17,
                "/a/,con/\u{200B},,,,",
                "DstBlobPathOrPrefix",
                "value ends with U+200B ZERO WIDTH SPACE, which cannot be seen",
            ),
        ] {
            let problems = bad(&format!("{header}{row}\n"));
            assert_eq!(problems.len(), 1, "{row}: {problems:?}");
            let problem = &problems[0];
            assert_eq!(problem.place.column.as_deref(), Some(column), "{row}");
            assert_eq!(problem.what, what, "{row}");
            assert_eq!(problem.place.line, Some(2));
            assert!(problem.advice.is_some(), "{row}");
            assert!(!problem.to_string().contains("sig="));
        }
        assert!(!bad(&format!("{H17}/a/,Con/,,,,\n"))[0].what.is_empty());
    }

    #[test]
    fn what_cannot_be_seen_within_a_name_is_told_and_kept() {
        let read = good(&format!("{H17}/a\u{A0}b/,con/p\u{200D}q/,BlockBlob\u{A0},,,\n\"/a/\u{A0}\",con/x,,,,\n"));
        assert_eq!(read.rows[0].base_path, Path::new("/a\u{A0}b"));
        assert_eq!(read.rows[0].destination.prefix_or_blob, "p\u{200D}q/");
        assert_eq!(read.rows[0].blob_type, Some(BlobType::Block));
        assert_eq!(read.rows[1].base_path, Path::new("/a/\u{A0}"));
        let reported: Vec<_> = read.warnings.iter().map(|one| (one.place.line.unwrap(), one.what.clone())).collect();
        for (line, name) in [
            (2, "U+00A0 NO-BREAK SPACE at character 3"),
            (2, "U+200D ZERO WIDTH JOINER at character 6"),
            (2, "U+00A0 NO-BREAK SPACE at character 10"),
            (3, "U+00A0 NO-BREAK SPACE at character 4"),
        ] {
            assert!(reported.iter().any(|(at, what)| *at == line && what.contains(name)), "{name}: {reported:?}");
        }
        let latin = parse(Path::new("d"), b"BasePath,DstBlobPathOrPrefix\n/\xE4/,con/\n").unwrap();
        assert!(latin.warnings[0].what.contains("0xE4"), "{:?}", latin.warnings);
    }

    #[test]
    fn a_row_that_lacks_columns_names_them() {
        let problems = bad(&format!("{H17}/a/,con/,BlockBlob\n/b/,con/b/,BlockBlob,rename,None\n"));
        assert_eq!(
            problems.iter().map(|one| (one.place.line.unwrap(), &*one.what)).collect::<Vec<_>>(),
            [
                (2, "row has 3 values, the header 6 columns: Disposition, MetadataFile, PropertiesFile are missing"),
                (3, "row has 5 values, the header 6 columns: PropertiesFile is missing"),
            ]
        );
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let problems = bad(&format!("{H17}/a/,Con/,x,y,,\n,,,,,x\n/a/,con/,,,,,,extra\n"));
        let lines: Vec<_> = problems.iter().map(|p| p.place.line.unwrap()).collect();
        assert_eq!(lines, [2, 2, 2, 3, 3, 4]);
    }

    #[test]
    fn headers_that_cannot_be_used_are_told() {
        for (input, what) in [
            ("", "file is empty"),
            ("\n\n", "file is empty"),
            ("/a/,con/\n", "first line is no header"),
            ("BasePath|DstBlobPathOrPrefix\n/a/|con/", "first line is no header"),
            ("BasePath,BlobType\n/a/,BlockBlob", "column is missing"),
            ("BasePath,BasePath,DstBlobPathOrPrefix\n", "column is given twice"),
            ("BasePath,DstItemPathOrPrefix,DstBlobPathOrPrefix\n", "column is given twice"),
            ("BasePath,DstBlobPathOrPrefix\n", "file has no rows"),
            ("BasePath,DstBlobPathOrPrefix\n\"/a/,con/\n", "quote is never closed"),
        ] {
            assert_eq!(bad(input)[0].what, what, "{input}");
        }
        assert_eq!(good("BasePath,DstBlobPathOrPrefix,Color\n/a/,con/,red\n").warnings.len(), 1);
    }

    #[test]
    fn hostile_bytes_never_panic() {
        use dray_base::entropy::Seeded;
        let seed =
            format!("\u{FEFF}{H18}\"/F/50M_original\\\",\"https://h/con/p/\",BlockBlob,rename,\"None\",None |\r\n");
        let mut random = Seeded::new(3);
        for _ in 0..20_000 {
            let mut bytes = seed.clone().into_bytes();
            for _ in 0..1 + random.next_u64() % 6 {
                let at = (random.next_u64() % bytes.len() as u64) as usize;
                match random.next_u64() % 3 {
                    0 => bytes[at] = random.next_u64() as u8,
                    1 => bytes[at] = b"\",\r\n|\\/ $\0"[(random.next_u64() % 10) as usize],
                    _ => bytes.truncate(at.max(1)),
                }
            }
            let _ = parse(Path::new("d.csv"), &bytes);
        }
    }
}
