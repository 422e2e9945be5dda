//! Makes a catalog from dataset rows: walks the sources, names the blobs, and collects all their problems.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use crate::azure::dataset::{BlobType, DatasetRow};
use crate::azure::names::{self, NameError, SizeError};
use crate::azure::vhd;
use crate::dataset::own::Own;
use crate::dataset::property_files::{self, PropertyFiles};
use crate::io::{is_shortage, shortage_advice};
use crate::plan::catalog::{Builder, Catalog, Posix, TooMany};
use crate::report::{Event, Kind, Problem, Problems, Setting, Skipped};
use crate::request::Sets;
use crate::source::odd::Odd;
use crate::source::select::{Selection, Selector};
use crate::source::walk::{self, FileFacts, Walked};
use crate::text;
use crate::units::ByteLen;

/// Problems of one kind beyond this many are counted, not listed.
const LISTED_MAX: usize = 1000;

/// Entries left out beyond this many are counted, not listed.
const SKIPPED_LISTED_MAX: usize = 100_000;

/// Most pairs listed of blobs that the service may treat as the same.
pub const FOLDS_MAX: usize = 100;

/// Number of files between two progress reports of the walk.
const TELL_EVERY: u64 = 10_000;

/// The result of walking the sources.
#[derive(Debug)]
pub struct Scan {
    /// All blobs of the session.
    pub catalog: Catalog,
    /// Total bytes of the blobs.
    pub bytes: ByteLen,
    /// Entries that cannot become a blob.
    pub skipped: Vec<Skipped>,
    /// Warnings to read before continuing.
    pub warnings: Vec<Problem>,
}

impl Scan {
    /// Result of listing an account.
    pub fn of(catalog: Catalog) -> Self {
        let bytes = ByteLen(catalog.files().iter().map(|file| file.len.0).sum());
        Self { catalog, bytes, skipped: Vec::new(), warnings: Vec::new() }
    }
}

/// A dataset, with the properties of the session that affect its sources.
#[derive(Clone, Copy, Debug)]
pub struct Of<'a> {
    /// Path of the dataset file, for messages.
    pub dataset: &'a Path,
    /// Rows of the dataset, in file order.
    pub rows: &'a [DatasetRow],
    /// Length of `\<session>` in UTF-16 units.
    pub root_units: usize,
    /// Settings in each blob's own properties file.
    pub sets: Sets,
    /// The session's own files, which are no sources.
    pub own: &'a Own,
    /// Selection of the other files.
    pub selection: &'a Selection,
}

/// Everything that can be checked of a dataset without a drive: its sources, by walking them, and the files named in
/// its rows. Used by sessions and by `dray check`.
pub fn sources(
    of: &Of<'_>,
    problems: &mut Problems,
    warnings: &mut Vec<Problem>,
    on_event: &mut dyn FnMut(Event),
) -> (PropertyFiles, Option<Scan>) {
    let sides = property_files::side_files(of.dataset, of.rows, of.sets, problems, warnings);
    let mut scanned = scan(of, problems, on_event);
    if let Some(scan) = &mut scanned {
        warnings.append(&mut scan.warnings);
        let many = scan.catalog.renamed() + scan.catalog.long().len();
        if many > 0 {
            let what = match many {
                1 => "1 name or path that Windows cannot open gets a safe name on the drive; its blob keeps it".into(),
                _ => format!(
                    "{many} names or paths that Windows cannot open get a safe name on the drive; blobs keep theirs"
                ),
            };
            warnings.push(Problem::new(Kind::Usage, what));
        }
    }
    (sides, scanned)
}

/// Walks all rows of a dataset.
///
/// Adds all problems of the sources and of their blobs; the catalog lacks the entries concerned. `None` when no catalog
/// could be made.
pub(crate) fn scan(of: &Of<'_>, problems: &mut Problems, on_event: &mut dyn FnMut(Event)) -> Option<Scan> {
    let mut scanner =
        Scanner::new(of.dataset, of.own, of.selection, on_event).map_err(|more| problems.0.extend(more.0)).ok()?;
    scanner.keeps_posix = of.sets.metadata.mode || of.sets.metadata.owner;
    for row in of.rows {
        if scanner.row(row).is_err() {
            let too_many = Problem::new(Kind::Usage, TooMany.to_string()).path(of.dataset).line(row.line);
            scanner.problems.push(too_many.advice("split the dataset over several sessions"));
            break;
        }
    }
    scanner.finish(of.rows, of.root_units, problems)
}

/// Directories in a drive's root that Windows reserves, and creates again on every drive.
const OF_WINDOWS: [&str; 2] = ["System Volume Information", "$RECYCLE.BIN"];

/// Begins the name of the directory that keeps the state of an unfinished drive for Windows: it holds a key.
pub const STATE_DIR: &str = ".dray-format-";

/// Most renamed files and directories that are listed.
const RENAMED_LISTED_MAX: usize = 1000;

/// Walks a directory that is copied to a volume unchanged; without `base` the volume is empty.
///
/// Appends all problems found to `problems`. `None` if no catalog could be made.
pub fn tree(
    base: Option<&Path>,
    own: &Own,
    selection: &Selection,
    problems: &mut Problems,
    on_event: &mut dyn FnMut(Event),
) -> Option<Scan> {
    let place = base.unwrap_or(Path::new(""));
    let mut scanner = Scanner::new(place, own, selection, on_event).map_err(|more| problems.0.extend(more.0)).ok()?;
    if let Some(base) = base {
        let here = |problem: Problem| problem.path(base).setting(Setting::From);
        match walk::absolute(base).and_then(|base| fs::metadata(&base).map(|meta| (base, meta))) {
            Ok((base, meta)) if meta.is_dir() => {
                if scanner.whole(&base).is_err() {
                    let too_many = Problem::new(Kind::Usage, TooMany.to_string());
                    scanner.problems.push(here(too_many).advice("copy a part of it"));
                }
            }
            Ok(_) => {
                scanner.problems.push(here(Problem::new(Kind::Usage, "is no directory")).advice("name a directory"))
            }
            Err(error) => {
                let problem = here(Problem::new(Kind::Source, format!("cannot be read: {error}")));
                scanner.problems.push(problem.advice("check the path and its permissions"));
            }
        }
    }
    scanner.finish_tree(problems)
}

/// Warnings of blobs that the service may treat as the same, in pairs with their sources.
fn folds(catalog: &Catalog) -> Vec<Problem> {
    let mut out = Vec::new();
    for group in catalog.folding(FOLDS_MAX) {
        let mut blobs = [String::new(), String::new()];
        for pair in group.windows(2).take(FOLDS_MAX - out.len().min(FOLDS_MAX)) {
            catalog.blob_path(pair[0], &mut blobs[0]);
            catalog.blob_path(pair[1], &mut blobs[1]);
            // Their hashes are the same; are they?
            if names::fold(&blobs[0]) == names::fold(&blobs[1]) {
                let sources = [pair[0], pair[1]].map(|file| catalog.source_path(file).display().to_string());
                out.push(fold_warning([&blobs[0], &blobs[1]], [&sources[0], &sources[1]]));
            }
        }
    }
    out
}

/// The warning of two blobs whose names the service, or a client in front of it, may treat as the same.
pub fn fold_warning(blobs: [&str; 2], sources: [&str; 2]) -> Problem {
    let [one, other] = blobs;
    // Names that look the same are distinguished by their code points.
    let spelled =
        |blob: &str| blob.chars().filter(|c| !c.is_ascii()).map(|c| format!("U+{:04X}", c as u32)).collect::<Vec<_>>();
    let letters = blobs.map(spelled);
    let letters = if letters[0] == letters[1] {
        String::new()
    } else {
        format!(" ({} and {})", letters[0].join(" "), letters[1].join(" "))
    };
    let what = format!(
        "the service may take two blobs for one: {one} and {other}{letters}; one of them would be lost or renamed"
    );
    Problem::new(Kind::Usage, what)
        .value(format!("{} and {}", sources[0], sources[1]))
        .advice("rename one of the two files, or give it another destination")
}

/// The path of something in a source, from the source on.
fn below<'p>(path: &'p Path, base: &Path) -> &'p Path {
    path.strip_prefix(base).unwrap_or(path)
}

/// The first and the last bytes of a file.
fn ends(path: &Path, len: u64) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let file = fs::File::open(path)?;
    let n = (vhd::LOOK_LEN as u64).min(len) as usize;
    let (mut first, mut last) = (vec![0; n], vec![0; n]);
    file.read_exact_at(&mut first, 0)?;
    file.read_exact_at(&mut last, len - n as u64)?;
    Ok((first, last))
}

struct Scanner<'a> {
    selection: &'a Selection,
    /// `None`: every file is meant.
    selector: Option<Selector>,
    not_selected: u64,
    disks_listed: usize,
    keeps_posix: bool,
    dataset: &'a Path,
    own: &'a Own,
    odd: Odd,
    builder: Builder,
    bytes: u64,
    problems: Problems,
    unlisted: u64,
    skipped: Vec<Skipped>,
    skipped_unlisted: u64,
    warnings: Vec<Problem>,
    odd_names: Vec<&'static str>,
    check_readable: bool,
    on_event: &'a mut dyn FnMut(Event),
}

/// Destination of the contents of a directory.
struct Goes<'a> {
    /// Directory of the catalog.
    top: u32,
    /// Row of the catalog.
    index: u32,
    /// Prefix of the blobs' names.
    prefix: String,
    /// Row of the dataset; `None` for a tree that is copied to a volume unchanged.
    row: Option<&'a DatasetRow>,
}

/// Where a walk is.
struct WalkPlace<'a> {
    base: &'a Path,
    row: Option<&'a DatasetRow>,
    index: u32,
    /// Directories of the catalog, from the top down.
    dirs: Vec<u32>,
    /// Name of the blobs' prefix here.
    blob: String,
    /// Lengths of `blob` to return to.
    marks: Vec<usize>,
    /// Depth within a directory that is passed over, with all below it.
    passed_over: usize,
}

impl WalkPlace<'_> {
    fn dir(&self) -> u32 {
        self.dirs.last().copied().unwrap_or_default()
    }
}

impl<'s> Scanner<'s> {
    fn new(
        dataset: &'s Path,
        own: &'s Own,
        selection: &'s Selection,
        on_event: &'s mut dyn FnMut(Event),
    ) -> Result<Self, Problems> {
        Ok(Self {
            selection,
            selector: if selection.is_all() { None } else { Some(Selector::new(selection)?) },
            not_selected: 0,
            disks_listed: 0,
            keeps_posix: false,
            dataset,
            own,
            odd: Odd::default(),
            builder: Builder::new(),
            bytes: 0,
            problems: Problems::default(),
            unlisted: 0,
            skipped: Vec::new(),
            skipped_unlisted: 0,
            warnings: Vec::new(),
            odd_names: Vec::new(),
            check_readable: walk::must_check_readable(),
            on_event,
        })
    }

    fn problem(&mut self, problem: Problem) {
        if self.problems.0.len() < LISTED_MAX {
            self.problems.push(problem);
        } else {
            self.unlisted += 1;
        }
    }

    fn row(&mut self, row: &DatasetRow) -> Result<(), TooMany> {
        if row.blob_type == Some(BlobType::File) {
            let problem = Problem::new(Kind::Usage, "files of an Azure Files share cannot be prepared")
                .path(self.dataset)
                .line(row.line)
                .column("ItemType")
                .value("file")
                .advice("no manifest form for them is public: use BlockBlob or PageBlob");
            self.problem(problem);
            return Ok(());
        }
        let here = |problem: Problem| problem.path(self.dataset).line(row.line).column("BasePath");
        let base = match walk::absolute(&row.base_path) {
            Ok(base) => base,
            Err(error) => {
                self.problem(here(Problem::new(Kind::Usage, format!("has no absolute path: {error}"))));
                return Ok(());
            }
        };
        let shown = base.display().to_string();
        let meta = match fs::metadata(&base) {
            Ok(meta) => meta,
            Err(error) => {
                let problem = here(Problem::new(Kind::Source, format!("cannot be read: {error}")));
                let advice = match (base.to_str(), base.to_str().and_then(text::invisible)) {
                    (_, Some((_, name))) => format!("it holds {name}, which cannot be seen: is that meant?"),
                    (None, _) => {
                        "it is not UTF-8: save the file as UTF-8, or check the path and its permissions".into()
                    }
                    (Some(_), None) => "check the path and its permissions".into(),
                };
                self.problem(problem.value(shown).advice(advice));
                return Ok(());
            }
        };
        match (row.is_dir_spelled, meta.is_dir()) {
            (true, false) => {
                let problem = here(Problem::new(Kind::Usage, "ends like a directory but is a file")).value(shown);
                self.problem(problem.advice("remove the separator at the end of BasePath"));
                Ok(())
            }
            (false, true) => {
                let problem = here(Problem::new(Kind::Usage, "is a directory but does not end in a separator"));
                self.problem(problem.value(shown).advice("end BasePath with / to copy the directory and all below it"));
                Ok(())
            }
            (true, true) => self.directory(row, &base),
            (false, false) if !meta.is_file() => {
                let problem = here(Problem::new(Kind::Usage, "is neither a file nor a directory")).value(shown);
                self.problem(problem.advice("name a regular file or a directory"));
                Ok(())
            }
            (false, false) => match self.own.what_named((meta.dev(), meta.ino()), meta.len(), &base) {
                Some(what) => {
                    let problem = here(Problem::new(Kind::Refused, format!("is {what}, and never copied")));
                    self.problem(problem.value(shown).advice("take the row out: a key must not go onto a drive"));
                    Ok(())
                }
                None => self.single(row, &base, &meta),
            },
        }
    }

    fn single(&mut self, row: &DatasetRow, base: &Path, meta: &fs::Metadata) -> Result<(), TooMany> {
        let facts = match walk::file_facts(&fs::canonicalize(base).unwrap_or(base.into()), self.check_readable) {
            Ok(facts) => facts,
            Err(error) => {
                let problem = Problem::new(Kind::Source, format!("cannot be read: {error}")).path(self.dataset);
                self.problem(problem.line(row.line).column("BasePath").value(base.display().to_string()));
                return Ok(());
            }
        };
        if self.is_odd(&fs::canonicalize(base).unwrap_or(base.into()), meta.dev(), facts.len.0) {
            return Ok(());
        }
        if let Some(selector) = &mut self.selector
            && !selector.takes(base.file_name().map_or(base, Path::new), base)
        {
            self.not_selected += 1;
            return Ok(());
        }
        let index = self.builder.row(fs::canonicalize(base).unwrap_or(base.into()), None, row.blob_type);
        let destination = &row.destination;
        let name = if destination.is_prefix {
            let Some(name) = base.file_name().and_then(|name| name.to_str()) else {
                self.not_unicode(base);
                return Ok(());
            };
            format!("{}{name}", destination.prefix_or_blob)
        } else {
            destination.prefix_or_blob.clone()
        };
        let (dir, last) = match name.rsplit_once('/') {
            Some((prefix, last)) => (self.dirs(&destination.container, prefix)?, last),
            None => (self.dirs(&destination.container, "")?, &name[..]),
        };
        let before = self.builder.file_count();
        self.file(Some(row), index, dir, &name, last, base, facts)?;
        self.belongs(before, walk::posix(meta));
        Ok(())
    }

    fn directory(&mut self, row: &DatasetRow, base: &Path) -> Result<(), TooMany> {
        let destination = &row.destination;
        let prefix = destination.prefix_or_blob.clone();
        let top = self.dirs(&destination.container, prefix.trim_end_matches('/'))?;
        let index = self.builder.row(base.to_path_buf(), Some(top), row.blob_type);
        self.below(&Goes { top, index, prefix, row: Some(row) }, base)
    }

    /// Walks a tree that is copied to a volume unchanged.
    fn whole(&mut self, base: &Path) -> Result<(), TooMany> {
        let index = self.builder.row(base.to_path_buf(), Some(0), Some(BlobType::Block));
        self.below(&Goes { top: 0, index, prefix: String::new(), row: None }, base)
    }

    fn below(&mut self, goes: &Goes<'_>, base: &Path) -> Result<(), TooMany> {
        let mut place = WalkPlace {
            base,
            row: goes.row,
            index: goes.index,
            dirs: vec![goes.top],
            blob: goes.prefix.clone(),
            marks: Vec::new(),
            passed_over: 0,
        };
        let mut failure = Ok(());
        let (check_readable, follow) = (self.check_readable, self.selection.follow_inside);
        walk::walk_links(base, check_readable, follow, &mut |path, found| {
            failure = self.step(&mut place, path, found);
            failure.is_ok()
        });
        failure
    }

    /// Takes one entry of the walk.
    fn step(&mut self, place: &mut WalkPlace<'_>, path: &Path, found: Walked<'_>) -> Result<(), TooMany> {
        match found {
            Walked::Enter { .. } if place.passed_over > 0 => place.passed_over += 1,
            Walked::Leave if place.passed_over > 0 => place.passed_over -= 1,
            _ if place.passed_over > 0 => {}
            Walked::Enter { name } => {
                if !self.enter(place, path, name)? {
                    place.passed_over = 1;
                }
            }
            Walked::Leave => {
                place.dirs.pop();
                place.blob.truncate(place.marks.pop().unwrap_or(0));
            }
            Walked::File { .. } => self.take(place, path, found)?,
            Walked::Other { what } => match self.odd.link(path) {
                Some(what) => self.odd_one(path, what),
                None => self.skip(path, what),
            },
            Walked::Failed(error) => self.unreadable(path, &error),
        }
        Ok(())
    }

    /// Enters a directory; `false`: it is passed over, with all below it.
    fn enter(&mut self, place: &mut WalkPlace<'_>, path: &Path, name: &OsStr) -> Result<bool, TooMany> {
        let row = place.row;
        if row.is_some_and(|row| row.destination.container == names::ROOT) {
            // Blobs of the root container have no slash: the documented tool leaves these out silently.
            self.skip(path, "directory below a $root/ destination");
            return Ok(false);
        }
        if row.is_none() && place.dirs.len() == 1 && OF_WINDOWS.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            self.skip(path, "directory that Windows keeps for itself on each drive");
            return Ok(false);
        }
        if row.is_none() && name.as_bytes().starts_with(STATE_DIR.as_bytes()) {
            self.skip(path, "directory with the state of an unfinished drive");
            return Ok(false);
        }
        if self.selector.as_ref().is_some_and(|selector| selector.prunes(below(path, place.base))) {
            return Ok(false);
        }
        let Some(name) = name.to_str() else {
            self.not_unicode(path);
            return Ok(false);
        };
        place.marks.push(place.blob.len());
        place.blob.push_str(name);
        place.blob.push('/');
        let dir = self.builder.dir(place.dir(), name)?;
        if let (None, Ok(meta)) = (row, fs::metadata(path)) {
            self.builder.dated(dir, FileFacts::of(&meta).mtime);
        }
        place.dirs.push(dir);
        Ok(true)
    }

    /// Takes a file, unless it is not selected, the session's own, or odd.
    fn take(&mut self, place: &mut WalkPlace<'_>, path: &Path, found: Walked<'_>) -> Result<(), TooMany> {
        let Walked::File { name, facts, id, real, posix } = found else { return Ok(()) };
        if let Some(selector) = &mut self.selector
            && !selector.takes(below(path, place.base), path)
        {
            self.not_selected += 1;
            return Ok(());
        }
        if let Some(what) = self.own.what(id, facts.len.0, path) {
            self.skip(path, what);
            return Ok(());
        }
        if self.is_odd(path, id.0, facts.len.0) {
            return Ok(());
        }
        let Some(name) = name.to_str() else {
            self.not_unicode(path);
            return Ok(());
        };
        let mark = place.blob.len();
        place.blob.push_str(name);
        let before = self.builder.file_count();
        let added = self.file(place.row, place.index, place.dir(), &place.blob, name, path, facts);
        self.belongs(before, posix);
        if let Some(real) = real.filter(|_| self.builder.file_count() > before) {
            self.builder.read_at(real);
        }
        place.blob.truncate(mark);
        added
    }

    /// Whether a file differs from its `stat`; then that is reported.
    fn is_odd(&mut self, path: &Path, device: u64, len: u64) -> bool {
        match self.odd.file(path, device, len) {
            Ok(None) => return false,
            Ok(Some(what)) => self.odd_one(path, what),
            Err(error) => self.unreadable(path, &error),
        }
        true
    }

    fn odd_one(&mut self, path: &Path, what: String) {
        let problem = Problem::new(Kind::Source, what).path(path);
        self.problem(problem.advice("copy its contents to a regular file, or take it out of the source directory"));
    }

    fn unreadable(&mut self, path: &Path, error: &io::Error) {
        let (kind, advice) = if is_shortage(error) {
            (Kind::Environment, shortage_advice())
        } else {
            (Kind::Source, "mend the permissions, or take it out of the source directory".into())
        };
        self.problem(Problem::new(kind, format!("cannot be read: {error}")).path(path).advice(advice));
    }

    /// The catalog's directory for a container and a prefix without its last slash.
    fn dirs(&mut self, container: &str, prefix: &str) -> Result<u32, TooMany> {
        let mut dir = self.builder.dir(0, container)?;
        if !prefix.is_empty() {
            for segment in prefix.split('/') {
                dir = self.builder.dir(dir, segment)?;
            }
        }
        Ok(dir)
    }

    #[expect(clippy::too_many_arguments, reason = "one call site more than it is worth a type for")]
    fn file(
        &mut self,
        row: Option<&DatasetRow>,
        index: u32,
        dir: u32,
        blob: &str,
        name: &str,
        path: &Path,
        facts: FileFacts,
    ) -> Result<(), TooMany> {
        if row.is_some_and(|row| !self.may_be_blob(row, blob, path, &facts)) {
            return Ok(());
        }
        self.bytes += facts.len.0;
        self.builder.file(dir, name, index, facts.len, [facts.mtime, facts.ctime])?;
        if self.builder.file_count().is_multiple_of(TELL_EVERY) {
            (self.on_event)(Event::Scanning { files: self.builder.file_count(), bytes: ByteLen(self.bytes) });
        }
        Ok(())
    }

    /// Whether Azure accepts the blob; otherwise the reason is added to the problems.
    fn may_be_blob(&mut self, row: &DatasetRow, blob: &str, path: &Path, facts: &FileFacts) -> bool {
        match names::check_blob(&row.destination.container, blob) {
            Ok(odd) if odd.is_empty() => {}
            Ok(odd) => self.odd_name(odd.texts(), &row.destination.container, blob),
            Err(error) => {
                self.bad_name(&error, blob, path);
                return false;
            }
        }
        let size = match row.blob_type.unwrap_or_else(|| BlobType::default_for(blob)) {
            BlobType::Page => names::check_page_blob(facts.len),
            BlobType::Block | BlobType::File => names::blocks_of(facts.len).map(|blocks| blocks.beyond_published),
        };
        match size {
            Ok(false) => self.look_at_disk(row, blob, path, facts.len.0),
            Ok(true) => self.warnings.push(
                Problem::new(Kind::Usage, format!("{} is beyond the published manifest grammar", facts.len)).path(path),
            ),
            Err(error) => {
                let problem = Problem::new(Kind::Usage, error.to_string()).path(path).value(facts.len.0.to_string());
                let advice = match error {
                    SizeError::NotWholePages(_) => {
                        "pad the file to whole pages of 512 bytes, or write BlockBlob in a row of its own"
                    }
                    SizeError::PageBlobTooLarge(_) => "split the file",
                    SizeError::BlockBlobTooLarge(_) => {
                        "split the file, or write PageBlob if it is a disk of at most 8 TiB"
                    }
                };
                self.problem(problem.advice(advice));
                return false;
            }
        }
        true
    }

    /// Keeps who the file belongs to that came behind the first `before`, where blobs get that.
    fn belongs(&mut self, before: u64, posix: Posix) {
        if self.keeps_posix && self.builder.file_count() > before {
            self.builder.belongs(posix);
        }
    }

    /// Tells of a page blob called a disk that Azure makes no disk of.
    fn look_at_disk(&mut self, row: &DatasetRow, blob: &str, path: &Path, len: u64) {
        let is_page = row.blob_type.unwrap_or_else(|| BlobType::default_for(blob)) == BlobType::Page;
        if !is_page || BlobType::default_for(blob) != BlobType::Page || self.disks_listed >= LISTED_MAX {
            return;
        }
        // What cannot be read is told by who reads it.
        let Ok(ends) = ends(path, len) else { return };
        if let Err(fault) = vhd::check(&ends.0, &ends.1, len) {
            self.disks_listed += 1;
            self.warnings.push(Problem::new(Kind::Source, fault.to_string()).path(path).advice(fault.advice()));
        }
    }

    fn bad_name(&mut self, error: &NameError, blob: &str, path: &Path) {
        if self.selection.skip_unnameable {
            self.skip(path, &format!("file that Azure cannot name: {error}"));
            return;
        }
        let problem = Problem::new(Kind::Usage, format!("Azure cannot name this blob: {error}")).path(path);
        self.problem(problem.value(blob.escape_debug().to_string()).advice(error.advice()));
    }

    fn odd_name(&mut self, texts: impl Iterator<Item = &'static str>, container: &str, blob: &str) {
        // One example of each kind is enough.
        for text in texts {
            if !self.odd_names.contains(&text) {
                self.odd_names.push(text);
                self.warnings.push(Problem::new(Kind::Usage, text).value(format!("{container}/{blob}")));
            }
        }
    }

    fn not_unicode(&mut self, path: &Path) {
        if self.selection.skip_unnameable {
            self.skip(path, "name that is not valid UTF-8");
            return;
        }
        let what = "the name is not valid UTF-8, so nothing on the drive can have it";
        let problem = Problem::new(Kind::Usage, what).path(path);
        self.problem(problem.advice("rename it (convmv can do whole trees)"));
    }

    fn skip(&mut self, path: &Path, what: &str) {
        if self.skipped.len() < SKIPPED_LISTED_MAX {
            self.skipped.push(Skipped { path: path.to_path_buf(), what: what.to_owned() });
        } else {
            self.skipped_unlisted += 1;
        }
    }

    fn finish_tree(mut self, problems: &mut Problems) -> Option<Scan> {
        self.tell_all(problems);
        let Ok(catalog) = self.builder.seal_volume() else {
            problems.push(Problem::new(Kind::Internal, "a directory holds a name twice").path(self.dataset));
            return None;
        };
        for (path, name) in catalog.renames(RENAMED_LISTED_MAX) {
            let what = format!("Windows cannot have this name; on the drive it is {name}");
            self.warnings.push(Problem::new(Kind::Usage, what).path(self.dataset.join(path)));
        }
        let more = catalog.renamed().saturating_sub(RENAMED_LISTED_MAX);
        if more > 0 {
            let what = format!("{more} more names that Windows cannot have are others on the drive");
            self.warnings.push(Problem::new(Kind::Usage, what));
        }
        let long = catalog.count_long(0);
        if long > 0 {
            let what = format!(
                "{} longer than 259 characters, which some programs on Windows cannot open",
                match long {
                    1 => "1 path on the drive is".to_owned(),
                    _ => format!("{long} paths on the drive are"),
                }
            );
            self.warnings
                .push(Problem::new(Kind::Usage, what).advice("shorten them, or allow long paths on that Windows"));
        }
        let bytes = ByteLen(self.bytes);
        Some(Scan { catalog, bytes, skipped: self.skipped, warnings: self.warnings })
    }

    /// Reports the final counts, the numbers of entries that were not listed, and the problems.
    fn tell_all(&mut self, problems: &mut Problems) {
        (self.on_event)(Event::Scanning { files: self.builder.file_count(), bytes: ByteLen(self.bytes) });
        if self.unlisted > 0 {
            let more = format!("and {} more problems that are not listed", self.unlisted);
            self.problems.push(Problem::new(Kind::Usage, more).path(self.dataset));
        }
        if self.skipped_unlisted > 0 {
            let more = format!("{} more entries that are no files are left out", self.skipped_unlisted);
            self.warnings.push(Problem::new(Kind::Usage, more));
        }
        if let Some(selector) = &self.selector {
            problems.0.extend(selector.missed().0);
            if self.not_selected > 0 {
                let what = match self.not_selected {
                    1 => "1 file in the sources is not selected".to_owned(),
                    n => format!("{n} files in the sources are not selected"),
                };
                self.warnings.push(Problem::new(Kind::Usage, what));
            }
        }
        problems.0.append(&mut self.problems.0);
    }

    fn finish(mut self, rows: &[DatasetRow], root_units: usize, problems: &mut Problems) -> Option<Scan> {
        self.tell_all(problems);
        match self.builder.seal(root_units) {
            Ok(catalog) => {
                let bytes = ByteLen(self.bytes);
                self.warnings.extend(folds(&catalog));
                Some(Scan { catalog, bytes, skipped: self.skipped, warnings: self.warnings })
            }
            Err(duplicates) => {
                for duplicate in duplicates.iter().take(LISTED_MAX) {
                    let [first, second] = &duplicate.sources;
                    let lines = duplicate.rows.map(|row| rows.get(row as usize).map_or(0, |row| row.line));
                    problems.push(
                        Problem::new(
                            Kind::Usage,
                            format!("lines {} and {} make the same blob {}", lines[0], lines[1], duplicate.blob),
                        )
                        .path(self.dataset)
                        .line(lines[1])
                        .value(format!("{} and {}", first.display(), second.display()))
                        .advice("give one of them another destination"),
                    );
                }
                None
            }
        }
    }
}
