//! The sources as they are now, against the manifests; and the metadata and properties files that only a drive has.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{Audit, Piece, STEP, Sides, scanned};
use crate::azure::dataset::{BlobType, DatasetRow, Disposition};
use crate::azure::ledger::Ledger;
use crate::azure::properties;
use crate::hash::{self, Md5};
use crate::limits;
use crate::plan::catalog::Catalog;
use crate::report::{Event, Kind, Problem, Problems};
use crate::units::Stamp;
use crate::volume::files::Files;

/// A metadata or properties file that a manifest names.
#[derive(Debug)]
pub(super) struct SideFile {
    /// Path on the drive.
    path: String,
    md5: Option<[u8; 16]>,
    /// Its names and values, once a drive has been read.
    pairs: Option<Vec<(String, String)>>,
}

impl SideFile {
    /// Its names and values, if `files` has it with the hash that the manifest gives it.
    fn read(&self, files: &Files<'_>) -> Option<Vec<(String, String)>> {
        let reader = files.open(files.find(&self.path).ok()?).ok()?;
        let len = Some(reader.size()).filter(|len| *len <= limits::SIDE_FILE_MAX)?;
        let mut bytes = vec![0; len as usize];
        reader.read_exact_at(0, &mut bytes).ok()?;
        if Some(hash::md5(&bytes)) != self.md5 {
            return None;
        }
        properties::read(&bytes).ok()
    }
}

/// Difference between a source and what was sent of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is not there any more.
    Gone,
    /// It has so many bytes now.
    Length(u64),
    /// It has other bytes.
    Content,
    /// It cannot be read, or the manifest does not hash all of it.
    Unknown(String),
    /// No manifest has it: it was not sent.
    New,
}

/// A source that is not as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceChange {
    /// `container/name`.
    pub blob: String,
    /// The source, where there is one.
    pub source: Option<PathBuf>,
    /// The difference.
    pub change: Change,
}

impl SourceChange {
    /// Whether deleting the source would lose something.
    pub fn is_needed(&self) -> bool {
        self.change != Change::Gone
    }
}

/// A source of the dataset, with what its row says of its blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// `container/name`.
    pub blob: String,
    /// The file.
    pub source: PathBuf,
    /// Pages, not blocks.
    pub is_pages: bool,
    /// Disposition towards a blob that exists.
    pub disposition: Disposition,
    /// Files that the row names.
    pub metadata_file: Option<PathBuf>,
    /// Likewise.
    pub properties_file: Option<PathBuf>,
}

/// The sources of a dataset, compared with what was sent of them.
#[derive(Debug)]
pub struct Compared {
    /// Those that are not as they were sent.
    pub changes: Vec<SourceChange>,
    /// Whether all were looked at: not, if the comparison was stopped.
    pub is_whole: bool,
    catalog: Catalog,
    rows: Vec<DatasetRow>,
}

impl Compared {
    /// All sources, in the order of the catalog.
    pub fn origins(&self) -> impl Iterator<Item = Origin> + '_ {
        (0..).zip(self.catalog.files()).map(|(index, file)| {
            let mut blob = String::new();
            self.catalog.blob_path(index, &mut blob);
            let row = self.rows.get(file.row as usize);
            Origin {
                blob,
                source: self.catalog.source_path(index),
                is_pages: self.catalog.blob_type(index) == BlobType::Page,
                disposition: row.map(|row| row.disposition).unwrap_or_default(),
                metadata_file: row.and_then(|row| row.metadata_file.clone()),
                properties_file: row.and_then(|row| row.properties_file.clone()),
            }
        })
    }
}

/// Time when the first session of a journal began.
pub fn begun(ledger: &Ledger) -> Option<Stamp> {
    let of = |text: &str| {
        let time = jiff::civil::DateTime::strptime("%Y/%m/%d %H:%M:%S%.f", text.trim()).ok()?;
        let time = jiff::tz::Offset::UTC.to_timestamp(time).ok()?;
        Some(Stamp { seconds: time.as_second(), nanos: time.subsec_nanosecond().max(0) as u32 })
    };
    let all = ledger.sessions.iter().map(|session| of(&session.begun));
    all.collect::<Option<Vec<_>>>()?.into_iter().min_by_key(|stamp| (stamp.seconds, stamp.nanos))
}

impl Audit {
    /// Notes a file that a manifest names.
    pub(super) fn side_file(&mut self, known: &mut HashMap<String, u32>, path: &str, md5: Option<[u8; 16]>) -> u32 {
        *known.entry(path.to_owned()).or_insert_with(|| {
            self.side_files.push(SideFile { path: path.to_owned(), md5, pairs: None });
            self.side_files.len() as u32 - 1
        })
    }

    /// Reads the metadata and properties files of the manifests that `files` has, with the hashes that the manifests give
    /// them, so that those of the account are compared with them. Returns how many were found.
    pub fn add_drive(&mut self, files: &Files<'_>) -> u64 {
        let mut found = 0;
        for side in self.side_files.iter_mut().filter(|side| side.pairs.is_none()) {
            side.pairs = side.read(files);
            found += u64::from(side.pairs.is_some());
        }
        let mut made: HashMap<[Option<u32>; 2], u32> = HashMap::new();
        let pairs = |at: Option<u32>| self.side_files.get(at? as usize)?.pairs.clone();
        for row in &mut self.rows {
            let [metadata, properties] = row.files;
            if pairs(metadata).is_none() && pairs(properties).is_none() {
                continue;
            }
            row.sides = Some(*made.entry(row.files).or_insert_with(|| {
                self.sides.push(Sides {
                    properties: pairs(properties),
                    metadata: pairs(metadata),
                    files: Default::default(),
                });
                self.sides.len() as u32 - 1
            }));
        }
        found
    }

    /// Compares the sources of a dataset, as they are now, with what the manifests say was sent of them. Those that have not
    /// changed since `since` are taken as they were; without it, all are read. `each` receives the bytes of each step, and
    /// may stop it.
    ///
    /// # Errors
    /// Everything that is wrong with the dataset.
    pub fn compare_sources(
        &self,
        dataset: &Path,
        since: Option<Stamp>,
        on_event: &mut dyn FnMut(Event),
        each: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Compared, Problems> {
        let (mut problems, mut warnings) = (Problems::default(), Vec::new());
        let (rows, scanned) = scanned(dataset, &mut problems, &mut warnings, on_event)?;
        problems.into_result()?;
        let Some(scanned) = scanned else {
            return Err(Problem::new(Kind::Internal, "the sources have no problems and no catalog").into());
        };
        let catalog = scanned.catalog;
        let (mut out, mut seen, mut blob) = (Vec::new(), HashSet::new(), String::new());
        for (index, file) in (0..).zip(catalog.files()) {
            catalog.blob_path(index, &mut blob);
            let change = match self.by_path.get(blob.as_str()).map(|at| (*at, &self.rows[*at as usize])) {
                None => Some(Change::New),
                Some((at, row)) => {
                    seen.insert(at);
                    let time = |stamp: Stamp| (stamp.seconds, stamp.nanos);
                    let is_newer = since.is_none_or(|since| time(file.mtime).max(time(file.ctime)) >= time(since));
                    if row.length != file.len.0 {
                        Some(Change::Length(file.len.0))
                    } else if !is_newer {
                        None
                    } else if !row.is_hashed {
                        Some(Change::Unknown("the manifest does not hash all of it".into()))
                    } else {
                        let pieces = row.pieces.0 as usize..(row.pieces.0 + row.pieces.1) as usize;
                        let pieces = self.pieces.get(pieces).unwrap_or_default();
                        match is_as_sent(&catalog.source_path(index), row.length, pieces, each) {
                            Ok(Some(true)) => None,
                            Ok(Some(false)) => Some(Change::Content),
                            // Stopped.
                            Ok(None) => return Ok(Compared { changes: out, is_whole: false, catalog, rows }),
                            Err(error) => Some(Change::Unknown(error.to_string())),
                        }
                    }
                }
            };
            let source = Some(catalog.source_path(index));
            out.extend(change.map(|change| SourceChange { blob: blob.clone(), source, change }));
        }
        for (at, row) in (0..).zip(&self.rows) {
            // Two manifests may name it: the last one counts.
            if self.by_path.get(&row.path) == Some(&at) && !seen.contains(&at) {
                out.push(SourceChange { blob: row.path.to_string(), source: None, change: Change::Gone });
            }
        }
        Ok(Compared { changes: out, is_whole: true, catalog, rows })
    }
}

/// Whether a source has these pieces, and zeros between them; `None` when it was stopped.
fn is_as_sent(
    path: &Path,
    length: u64,
    pieces: &[Piece],
    each: &mut dyn FnMut(u64) -> bool,
) -> io::Result<Option<bool>> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; STEP];
    let end = Piece { offset: length, len: 0, md5: hash::md5(&[]) };
    let mut at = 0;
    for piece in pieces.iter().chain([&end]) {
        let mut md5 = Md5::new();
        for (until, is_hashed) in [(piece.offset, false), (piece.offset + piece.len, true)] {
            while at < until {
                let step = (until - at).min(STEP as u64) as usize;
                file.read_exact(&mut buffer[..step])?;
                if is_hashed {
                    md5.update(&buffer[..step]);
                } else if buffer[..step].iter().any(|byte| *byte != 0) {
                    return Ok(Some(false));
                }
                at += step as u64;
                if !each(step as u64) {
                    return Ok(None);
                }
            }
        }
        if md5.finish() != piece.md5 {
            return Ok(Some(false));
        }
    }
    Ok(Some(true))
}
