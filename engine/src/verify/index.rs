//! Indexes files that are already on a volume: lists them, hashes them in disk order, and writes their manifest
//! (`/skipwrite`).

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::time::Instant;

use crate::azure::dataset::{BlobType, Disposition};
use crate::azure::manifest::{self, BlobFacts, Block, Layout, ListFacts, ManifestStream, PageRange, nonzero_runs};
use crate::azure::names;
use crate::dataset::scan::{self, FOLDS_MAX};
use crate::hash::{Md5, md5_many};
use crate::ntfs::names as windows;
use crate::ntfs::read::{FileId, NameId, RunPlace, Special, display_name};
use crate::plan::catalog::PATH_UNITS_MAX;
use crate::pool::SLOT_LEN;
use crate::report::{Advice, Command, Kind, PROGRESS_INTERVAL, Problem, Problems, Skipped, Stop};
use crate::source::odd;
use crate::stream::block_reader::{BlockReader, Load, SLOT_SPARE};
use crate::stream::timeouts::Timeouts;
use crate::stream::workers::{Digest, How, Span, Workers};
use crate::units::{ByteLen, VolumeOffset};
use crate::verify::work::runs;
use crate::volume::files::{FileReader, Files};
use crate::volume::find::Opened;

/// Names in the root that belong to the system, and the manifest itself.
const PASSED_OVER: [&str; 4] = ["System Volume Information", "$RECYCLE.BIN", "RECYCLER", "DriveManifest.xml"];

/// Most problems listed.
const LISTED_MAX: usize = 1000;

/// Most blocks of one load, and most pieces that they consist of.
const BLOCKS_MAX: usize = 2048;
const RUNS_MAX: usize = 128;

/// A row of the dataset with a base on the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexRow {
    /// Path in the volume, with `/` between its parts and none at its ends; empty for the root.
    pub base: String,
    /// Container, or `$root`.
    pub container: String,
    /// Prefix of the blob names, or the one blob's name.
    pub prefix_or_blob: String,
    /// Whether `prefix_or_blob` is a prefix.
    pub is_prefix: bool,
    /// Type of its blobs; `None`: by the name of each blob.
    pub blob_type: Option<BlobType>,
    /// Treatment of existing blobs by the service.
    pub disposition: Disposition,
}

/// Problems of a drive, limited to a number that a person reads.
struct Telling<'a> {
    drive: &'a str,
    reported: usize,
    problems: &'a mut Problems,
}

impl Telling<'_> {
    fn add(&mut self, problem: Problem) {
        self.reported += 1;
        if self.reported <= LISTED_MAX {
            self.problems.push(problem.drive(self.drive));
        }
    }

    fn finish(self) {
        if let Some(more) = self.reported.checked_sub(LISTED_MAX).filter(|more| *more > 0) {
            let more = format!("and {more} more problems that are not listed");
            self.problems.push(Problem::new(Kind::Usage, more).drive(self.drive));
        }
    }
}

const OPEN_IT: &str =
    "store it as a plain file under Windows (download, decrypt or expand it), or index a directory without it";

const RENAME: &str = "rename it on the drive, or index a directory without it; files that dray copies get safe names";

/// The reason why Windows opens no file or another one by this name: the rules of [`crate::ntfs::names`] and of the
/// catalog of a copied session. `at`: its index among the names of its directory, which are in the volume's order.
fn unopenable(files: &Files<'_>, children: &[NameId], at: usize, name: &str, path: &str) -> Option<String> {
    let is_root = !path.contains('/');
    let problem = if is_root { windows::problem_in_root(name) } else { windows::problem(name) };
    if let Some(problem) = problem {
        return Some(format!("Windows cannot open it: the name {problem}"));
    }
    let units = |at: usize| files.catalog.name(children[at]);
    let twin = [at.checked_sub(1), Some(at + 1).filter(|next| *next < children.len())]
        .into_iter()
        .flatten()
        .find(|other| files.volume.upcase().same(units(*other), units(at)));
    if let Some(twin) = twin {
        return Some(format!("to Windows its name and {} are one name", display_name(units(twin))));
    }
    // `\` in front, and the drive's letter and colon, which the limit has taken off.
    let len = 1 + path.encode_utf16().count();
    (len > PATH_UNITS_MAX).then(|| {
        format!(
            "its path has {len} UTF-16 units, and programs of Windows open {PATH_UNITS_MAX} behind the drive's letter"
        )
    })
}

/// The same check for every existing part of a base.
fn unopenable_base(files: &Files<'_>, base: &str) -> Option<String> {
    let mut at = files.catalog.root()?;
    let mut path = String::new();
    for part in base.split('/').filter(|part| !part.is_empty()) {
        let units: Vec<u16> = part.encode_utf16().collect();
        let name = files.catalog.child(&files.volume, at, &units)?;
        let children: Vec<NameId> = files.catalog.children(at).collect();
        let place = children.iter().position(|child| *child == name)?;
        path = if path.is_empty() { part.to_owned() } else { format!("{path}/{part}") };
        if let Some(why) = unopenable(files, &children, place, part, &path) {
            return Some(format!("{why} (/{path})"));
        }
        at = files.catalog.file_of(name);
    }
    None
}

/// A file that becomes a blob.
#[derive(Debug)]
struct Indexed {
    file: FileId,
    blob_path: String,
    file_path: String,
    len: u64,
    block_len: u64,
    is_page: bool,
    disposition: Disposition,
    /// Index of its first block.
    first: usize,
}

impl Indexed {
    fn facts(&self) -> BlobFacts<'_> {
        BlobFacts {
            blob_path: &self.blob_path,
            file_path: &self.file_path,
            length: self.len,
            layout: if self.is_page { Layout::Pages } else { Layout::Blocks { block_len: self.block_len } },
            disposition: Some(self.disposition),
            snapshot: None,
            id_len_max: None,
            metadata: None,
            properties: None,
        }
    }

    fn range(&self, block: u64) -> (u64, u64) {
        (block * self.block_len, ((block + 1) * self.block_len).min(self.len))
    }
}

/// The files of all rows, with the hashes of their contents once read.
#[derive(Debug, Default)]
pub struct Index {
    files: Vec<Indexed>,
    /// Entries that cannot become a blob.
    pub skipped: Vec<Skipped>,
    /// Warnings to read before continuing.
    pub warnings: Vec<Problem>,
    /// MD5 of each block of each file; the runs of a page blob's block are kept separately.
    hashes: Vec<[u8; 16]>,
    pages: HashMap<usize, Vec<PageRange>>,
}

/// A block to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct BlockToRead {
    at: u64,
    file: u32,
    block: u64,
}

impl Index {
    /// Lists the files of the rows. Adds all their problems to `problems`.
    pub fn list(files: &Files<'_>, rows: &[IndexRow], drive: &str, problems: &mut Problems) -> Self {
        let mut this = Self::default();
        let mut seen = HashMap::new();
        let mut telling = Telling { drive, reported: 0, problems };
        for row in rows {
            let problem = |what: &str| {
                let problem = Problem::new(Kind::Usage, what).column("BasePath").value(format!("/{}", row.base));
                problem.advice(Advice::from("BasePath is a path on the drive: list the volume with ") + Command::Ls)
            };
            let Some(base) = files.catalog.lookup(&files.volume, &row.base.replace('/', "\\")) else {
                telling.add(problem("is not on the volume"));
                continue;
            };
            let is_directory = files.catalog.info(base).directory;
            if is_directory != row.is_prefix {
                telling.add(problem(if is_directory {
                    "is a directory but does not end in a separator"
                } else {
                    "ends like a directory but is a file"
                }));
                continue;
            }
            if let Some(why) = unopenable_base(files, &row.base) {
                telling.add(problem(&why).advice(RENAME));
                continue;
            }
            let mut found = Vec::new();
            let before = (this.files.len(), telling.reported);
            if is_directory {
                this.walk(files, row, base, &mut telling, &mut found);
            } else {
                found.push((base, row.base.clone(), row.prefix_or_blob.clone()));
            }
            for (file, path, blob) in found {
                if let Err(problem) = this.add(files, row, file, &path, &blob, &mut seen) {
                    telling.add(problem);
                }
            }
            if (this.files.len(), telling.reported) == before {
                telling.add(problem("holds no file that could become a blob"));
            }
        }
        telling.finish();
        this.warn_of_folds();
        this
    }

    /// Lists everything below a directory: file, path, blob name.
    fn walk(
        &mut self,
        files: &Files<'_>,
        row: &IndexRow,
        base: FileId,
        telling: &mut Telling<'_>,
        found: &mut Vec<(FileId, String, String)>,
    ) {
        let start = if row.base.is_empty() { String::new() } else { format!("{}/", row.base) };
        let mut pending = vec![(base, start, row.prefix_or_blob.clone())];
        let mut entered = HashSet::from([base]);
        while let Some((directory, path, blob)) = pending.pop() {
            let mut below = Vec::new();
            let children: Vec<NameId> = files.catalog.children(directory).collect();
            for (i, &name) in children.iter().enumerate() {
                let file = files.catalog.file_of(name);
                let info = files.catalog.info(file);
                let Ok(text) = String::from_utf16(files.catalog.name(name)) else {
                    let shown = format!("/{path}{}", display_name(files.catalog.name(name)));
                    let problem = Problem::new(Kind::Usage, "the name is not valid Unicode, so no blob can have it");
                    telling.add(problem.value(shown).advice("rename it under Windows"));
                    continue;
                };
                let is_system = path.is_empty() && PASSED_OVER.iter().any(|name| name.eq_ignore_ascii_case(&text));
                if files.catalog.is_metafile(file) || is_system {
                    continue;
                }
                let (path, blob) = (format!("{path}{text}"), format!("{blob}{text}"));
                let mut skip =
                    |what: &str| self.skipped.push(Skipped { path: format!("/{path}").into(), what: what.to_owned() });
                let is_link = matches!(info.special, Some(Special::Reparse(tag)) if odd::is_harmless(tag));
                if let Some(special) = info.special.filter(|_| !is_link) {
                    // A file that is meant to go, and would not.
                    let below = if info.directory { "; nothing below it is read" } else { "" };
                    let what = format!(
                        "its data cannot be read as they lie on the volume: it is {}{below}",
                        special.describe()
                    );
                    telling.add(Problem::new(Kind::Source, what).value(format!("/{path}")).advice(OPEN_IT));
                    continue;
                } else if is_link {
                    skip("link");
                    continue;
                } else if info.directory && row.container == names::ROOT {
                    skip("directory below a $root/ destination");
                    continue;
                } else if !info.directory && !info.has_data {
                    skip("file without data");
                    continue;
                }
                // The service opens by path, on Windows: the same names get another on the drive where files are copied.
                let is_named = info.directory || names::check_blob(&row.container, &blob).is_ok();
                if let Some(why) = unopenable(files, &children, i, &text, &path).filter(|_| is_named) {
                    let below = if info.directory { "; nothing below it can be opened" } else { "" };
                    let problem = Problem::new(Kind::Usage, format!("{why}{below}"));
                    telling.add(problem.value(format!("/{path}")).advice(RENAME));
                } else if !info.directory {
                    found.push((file, path, blob));
                } else if entered.insert(file) {
                    below.push((file, format!("{path}/"), format!("{blob}/")));
                }
            }
            pending.extend(below.into_iter().rev());
        }
    }

    /// Warns of blobs that the service may treat as the same, in pairs.
    fn warn_of_folds(&mut self) {
        let mut seen: HashMap<String, &Indexed> = HashMap::new();
        // Most names are in no way special: they are looked at only if others may fold to them.
        let odd: HashSet<String> = self
            .files
            .iter()
            .filter(|file| !names::is_folded(&file.blob_path))
            .map(|file| names::fold(&file.blob_path).into_owned())
            .collect();
        for file in &self.files {
            let folded = names::fold(&file.blob_path);
            if !odd.contains(&*folded) {
                continue;
            }
            match seen.get(&*folded) {
                None => drop(seen.insert(folded.into_owned(), file)),
                Some(first) if self.warnings.len() < FOLDS_MAX => self
                    .warnings
                    .push(scan::fold_warning([&first.blob_path, &file.blob_path], [&first.file_path, &file.file_path])),
                Some(_) => {}
            }
        }
    }

    fn add(
        &mut self,
        files: &Files<'_>,
        row: &IndexRow,
        file: FileId,
        path: &str,
        blob: &str,
        seen: &mut HashMap<String, String>,
    ) -> Result<(), Problem> {
        let here = |what: String| Problem::new(Kind::Usage, what).value(format!("/{path}"));
        names::check_blob(&row.container, blob).map_err(|error| {
            here(format!("Azure cannot name this blob: {error}"))
                .advice("rename it on the drive: nothing can be renamed where nothing is written")
        })?;
        let info = files.catalog.info(file);
        if info.damaged || info.special.is_some() || !info.has_data {
            return Err(here("cannot be read as plain data".into()).advice("take it out of what is indexed"));
        }
        let len = ByteLen(info.size);
        let is_page = row.blob_type.unwrap_or_else(|| BlobType::default_for(blob)) == BlobType::Page;
        let block_len = if is_page {
            names::check_page_blob(len).map(|_| names::BLOCK_LEN)
        } else {
            names::blocks_of(len).map(|blocks| blocks.len)
        };
        let block_len =
            block_len.map_err(|error| here(error.to_string()).advice("write another BlobType, or split the file"))?;
        let blob_path = format!("{}/{blob}", row.container);
        if let Some(first) = seen.insert(blob_path.clone(), path.to_owned()) {
            return Err(here(format!("makes the same blob {blob_path} as /{first}"))
                .advice("give one of them another destination"));
        }
        let first = self.hashes.len();
        self.hashes.resize(first + info.size.div_ceil(block_len) as usize, [0; 16]);
        self.files.push(Indexed {
            file,
            blob_path,
            file_path: format!("\\{}", path.replace('/', "\\")),
            len: info.size,
            block_len,
            is_page,
            disposition: row.disposition,
            first,
        });
        Ok(())
    }

    /// Path of every blob, with the treatment of an existing one.
    pub fn blobs(&self) -> impl Iterator<Item = (&str, Disposition)> {
        self.files.iter().map(|file| (&*file.blob_path, file.disposition))
    }

    /// Number of files, and their bytes.
    pub fn totals(&self) -> (u64, ByteLen) {
        (self.files.len() as u64, ByteLen(self.files.iter().map(|file| file.len).sum()))
    }

    /// Upper bound of the length of a manifest of these files.
    pub fn len_max(&self, drive_id: &str, session: &str) -> u64 {
        let head = head(drive_id, session, u32::MAX).len() + foot().len();
        head as u64 + self.files.iter().map(|file| manifest::blob_xml_len(&file.facts())).sum::<u64>()
    }

    /// Reads and hashes all files; `report` receives the bytes read so far.
    ///
    /// # Errors
    /// Files that cannot be read, by name; a stop request.
    pub fn hash(
        &mut self,
        opened: &Opened,
        files: &Files<'_>,
        workers: &Workers,
        stop: &Stop,
        report: &mut dyn FnMut(u64),
    ) -> Result<(), Problem> {
        let (road, mut singly) = self.in_disk_order(files);
        let mut hashing = Hashing { index: self, opened, files, stop, bytes: 0, reported_at: Instant::now(), report };
        let mut hashed: Vec<(BlockToRead, Content)> = Vec::new();
        singly.extend(hashing.stream(road, workers, &mut hashed)?);
        hashing.singly(singly, &mut hashed)?;
        for (item, hash) in hashed {
            let at = self.files[item.file as usize].first + item.block as usize;
            match hash {
                Ok(md5) => self.hashes[at] = md5,
                Err(ranges) => drop(self.pages.insert(at, ranges)),
            }
        }
        Ok(())
    }

    /// All blocks in the order of the disk: those that the block reader can read, and the others.
    fn in_disk_order(&self, files: &Files<'_>) -> (Vec<BlockToRead>, Vec<BlockToRead>) {
        let (mut road, mut singly) = (Vec::new(), Vec::new());
        let cluster = files.volume.geometry().cluster;
        for (i, indexed) in (0u32..).zip(&self.files) {
            let extents = files.catalog.extents(&files.volume, indexed.file).unwrap_or_default();
            for block in 0..indexed.len.div_ceil(indexed.block_len) {
                let (from, to) = indexed.range(block);
                let first = extents.iter().find(|run| run.offset + run.len > from);
                let at = match first.map(|run| (run, run.place)) {
                    Some((run, RunPlace::Lcn(lcn))) => Some(cluster.offset_of(lcn).0 + from.saturating_sub(run.offset)),
                    _ => None,
                };
                let item = BlockToRead { at: at.unwrap_or(0), file: i, block };
                let by_road = at.is_some() && to - from <= SLOT_LEN as u64;
                if by_road { &mut road } else { &mut singly }.push(item);
            }
        }
        road.sort_unstable();
        singly.sort_unstable();
        (road, singly)
    }

    /// The manifest of all files.
    pub fn manifest<'a>(&'a self, drive_id: &str, session: &str, number: u32) -> ManifestStream<'a> {
        let (head, foot) = (head(drive_id, session, number), foot());
        let mut next = 0;
        ManifestStream::new(move |into| {
            match next {
                0 => into.extend_from_slice(&head),
                n if n <= self.files.len() => self.describe(&self.files[n - 1], into),
                n if n == self.files.len() + 1 => into.extend_from_slice(&foot),
                _ => {}
            }
            next += 1;
            Ok(())
        })
    }

    fn describe(&self, file: &Indexed, into: &mut Vec<u8>) {
        let facts = file.facts();
        manifest::blob_open(into, &facts);
        for block in 0..file.len.div_ceil(file.block_len) {
            let at = file.first + block as usize;
            if file.is_page {
                for range in self.pages.get(&at).into_iter().flatten() {
                    manifest::write_page_range(into, range);
                }
            } else {
                let (from, to) = file.range(block);
                manifest::write_block(into, &Block { offset: from, length: to - from, hash: self.hashes[at] });
            }
        }
        manifest::blob_close(into, &facts);
    }
}

/// Content of a block: its MD5, or the runs of a page blob.
type Content = Result<[u8; 16], Vec<PageRange>>;

/// Blocks of a load, with their ranges in the slot.
type Blocks = Vec<(BlockToRead, Range<usize>)>;

/// The reading of all files, with its progress.
struct Hashing<'a> {
    index: &'a Index,
    opened: &'a Opened,
    files: &'a Files<'a>,
    stop: &'a Stop,
    bytes: u64,
    reported_at: Instant,
    report: &'a mut dyn FnMut(u64),
}

impl Hashing<'_> {
    /// Reads and hashes blocks through the block reader. Returns those that it cannot read.
    fn stream(
        &mut self,
        road: Vec<BlockToRead>,
        workers: &Workers,
        hashed: &mut Vec<(BlockToRead, Content)>,
    ) -> Result<Vec<BlockToRead>, Problem> {
        let (index, opened, files) = (self.index, self.opened, self.files);
        let mut beside = Vec::new();
        let mut loads =
            Loads { index, files, opened, items: road.into_iter().peekable(), beside: &mut beside, known: None };
        let carrier = BlockReader {
            medium: opened.medium(),
            cipher: opened.cipher(),
            workers,
            stop: self.stop,
            slot_len: SLOT_LEN + SLOT_SPARE,
            timeouts: Timeouts::default(),
        };
        carrier.run(std::iter::from_fn(|| loads.next()), |arrived| {
            for ((item, range), digest) in arrived.what.iter().zip(&arrived.digests) {
                let indexed = &index.files[item.file as usize];
                let hash = match digest {
                    Digest::Block(md5) if !indexed.is_page => Ok(*md5),
                    _ => Err(pages(&arrived.bytes[range.clone()], indexed.range(item.block).0)),
                };
                hashed.push((*item, hash));
                self.add(range.len() as u64);
            }
            match arrived.failure {
                None => Ok(()),
                Some(error) => {
                    let file = arrived.what.first().map(|(item, _)| index.files[item.file as usize].file_path.clone());
                    Err(self.unreadable(&error).value(file.unwrap_or_default()))
                }
            }
        })?;
        Ok(beside)
    }

    /// Reads and hashes one block after the other through the file system.
    fn singly(&mut self, items: Vec<BlockToRead>, hashed: &mut Vec<(BlockToRead, Content)>) -> Result<(), Problem> {
        for item in items {
            if self.stop.requested() {
                return Err(Problem::new(Kind::Interrupted, "stopped on request").drive(&self.opened.found.drive.name));
            }
            let indexed = &self.index.files[item.file as usize];
            let (from, to) = indexed.range(item.block);
            let reader: FileReader<'_> = self.files.open(indexed.file)?;
            let mut bytes = vec![0; (to - from) as usize];
            reader
                .read_range(from, &mut bytes)
                .map_err(|error| self.unreadable(&error).value(indexed.file_path.clone()))?;
            self.add(to - from);
            let hash = if indexed.is_page {
                Err(pages(&bytes, from))
            } else {
                let mut md5 = Md5::new();
                md5.update(&bytes);
                Ok(md5.finish())
            };
            hashed.push((item, hash));
        }
        Ok(())
    }

    fn unreadable(&self, error: &dyn std::error::Error) -> Problem {
        Problem::new(Kind::Drive, format!("cannot be read: {error}")).drive(&self.opened.found.drive.name)
    }

    fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        if self.reported_at.elapsed() >= PROGRESS_INTERVAL {
            self.reported_at = Instant::now();
            (self.report)(self.bytes);
        }
    }
}

/// Non-zero runs of a page blob's block, with their hashes.
fn pages(bytes: &[u8], from: u64) -> Vec<PageRange> {
    let mut ranges = Vec::new();
    nonzero_runs(bytes, &mut ranges);
    let parts: Vec<&[u8]> = ranges.iter().map(|range| &bytes[range.start.0 as usize..range.end().0 as usize]).collect();
    let mut hashes = vec![[0; 16]; parts.len()];
    md5_many(&parts, &mut hashes);
    let page = |(range, hash): (&crate::units::StreamRange, [u8; 16])| PageRange {
        offset: from + range.start.0,
        length: range.len.0,
        hash,
    };
    ranges.iter().zip(hashes).map(page).collect()
}

/// Divides blocks into loads; blocks that the block reader cannot read are left in `beside`.
struct Loads<'a, 'b> {
    index: &'a Index,
    files: &'a Files<'a>,
    opened: &'a Opened,
    items: std::iter::Peekable<std::vec::IntoIter<BlockToRead>>,
    beside: &'b mut Vec<BlockToRead>,
    known: Option<(FileId, Vec<crate::ntfs::read::DataRun>)>,
}

impl Loads<'_, '_> {
    fn next(&mut self) -> Option<Load<Blocks>> {
        let mut load = Load::new(Vec::new());
        while let Some(item) = self.items.peek().copied() {
            let indexed = &self.index.files[item.file as usize];
            let (from, to) = indexed.range(item.block);
            let len = (to - from) as usize;
            let unit = self.opened.unit();
            let room = len.next_multiple_of(unit as usize);
            let is_full = load.len + room > SLOT_LEN || load.what.len() >= BLOCKS_MAX || load.parts.len() >= RUNS_MAX;
            if !load.what.is_empty() && is_full {
                break;
            }
            self.items.next();
            if self.known.as_ref().is_none_or(|(known, _)| *known != indexed.file) {
                let extents = self.files.catalog.extents(&self.files.volume, indexed.file).unwrap_or_default();
                self.known = Some((indexed.file, extents));
            }
            let cluster = self.files.volume.geometry().cluster.bytes();
            let pieces = self.known.as_ref().and_then(|(_, extents)| runs(extents, cluster, unit, from, to));
            let before = (load.parts.len(), load.zeros.len(), load.crypt.len());
            let mut into = load.len;
            let is_laid = from.is_multiple_of(unit)
                && pieces.is_some_and(|pieces| {
                    pieces.iter().all(|run| {
                        let range = into..into + run.len as usize;
                        into = range.end;
                        match run.at {
                            Some(at) => self.opened.map_extents(VolumeOffset(at), range.len(), range.start, &mut load),
                            None => {
                                load.zeros.push(range);
                                true
                            }
                        }
                    })
                });
            if !is_laid {
                load.parts.truncate(before.0);
                load.zeros.truncate(before.1);
                load.crypt.truncate(before.2);
                self.beside.push(item);
                continue;
            }
            let range = load.len..load.len + len;
            load.len = into;
            load.spans.push(Span { range: range.clone(), how: How::Block });
            load.what.push((item, range));
        }
        (!load.what.is_empty()).then_some(load)
    }
}

fn head(drive_id: &str, session: &str, number: u32) -> Vec<u8> {
    let list = ListFacts { session, number, metadata: None, properties: None };
    [manifest::header(drive_id, env!("CARGO_PKG_VERSION")), manifest::list_open(&list)].concat()
}

fn foot() -> Vec<u8> {
    [manifest::list_close(), manifest::footer()].concat()
}
