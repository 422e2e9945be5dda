//! Metadata and properties files: read, checked, and named for the drive.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::azure::dataset::DatasetRow;
use crate::azure::properties::{self, SideKind};
use crate::files::input::{self, Pipes};
use crate::limits;
use crate::ntfs::upcase;
use crate::plan::tree::{METADATA_LEN, METADATA_NAMES, Md5Text, MetadataFrom, PropertyFile};
use crate::report::{Advice, Kind, Problem, Problems, Setting};
use crate::request::{MetadataFields, Sets};
use crate::source::walk::{self, FileFacts};

/// The session's property files, and which of them each row uses.
#[derive(Debug, Default)]
pub struct PropertyFiles {
    /// The files, in the order of the volume's directory.
    pub files: Vec<PropertyFile>,
    /// For each row: index of its metadata file, and of its properties file.
    pub rows: Vec<(Option<usize>, Option<usize>)>,
    /// For each row: the properties of its blobs, where each has a file of its own.
    pub md5_texts: Vec<Md5Text>,
    /// Facts of its source that each blob gets as metadata.
    pub metadata: MetadataFrom,
}

impl Sets {
    const fn any(self) -> bool {
        self.md5 || self.content_type
    }
}

/// Reads and checks the files that the rows name; each is kept once.
///
/// If each blob has a properties file of its own, that of its row is merged into it and not kept.
pub fn side_files(
    path: &Path,
    rows: &[DatasetRow],
    sets: Sets,
    problems: &mut Problems,
    warnings: &mut Vec<Problem>,
) -> PropertyFiles {
    let mut sides = PropertyFiles::default();
    let mut known = HashMap::new();
    for row in rows {
        let mut one = |file: &Option<PathBuf>, kind: SideKind, column: &str| -> Option<usize> {
            let file = file.as_ref()?;
            let key = (file.clone(), matches!(kind, SideKind::Metadata));
            if let Some(&index) = known.get(&key) {
                return Some(index);
            }
            let cell = Cell { path, row, column, file };
            let kept = side_file(&cell, kind, sides.files.len(), problems, warnings)?;
            sides.files.push(kept);
            known.insert(key, sides.files.len() - 1);
            Some(sides.files.len() - 1)
        };
        let metadata = one(&row.metadata_file, SideKind::Metadata, "MetadataFile");
        let properties = one(&row.properties_file, SideKind::Properties, "PropertiesFile");
        sides.rows.push((metadata, properties));
        if !sets.metadata.is_nothing() {
            let own = metadata
                .and_then(|i| input::read(&sides.files[i].source, limits::SIDE_FILE_MAX, Pipes::Refused).ok())
                .and_then(|bytes| properties::read(&bytes).ok())
                .unwrap_or_default();
            problems.0.extend(clash(&own, sets.metadata).map(|problem| {
                let file = row.metadata_file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
                problem.path(path).line(row.line).column("MetadataFile").value(file)
            }));
            sides.metadata.rows.push(properties::elements(&own));
        }
        if !sets.any() {
            continue;
        }
        // A file that cannot be read was reported above.
        let others =
            properties.and_then(|i| input::read(&sides.files[i].source, limits::SIDE_FILE_MAX, Pipes::Refused).ok());
        let others = others.and_then(|bytes| properties::read(&bytes).ok()).unwrap_or_default();
        let around = if sets.md5 { properties::around_md5 } else { properties::without_md5 };
        let (before, after) = around(&others);
        sides.md5_texts.push(Md5Text { before, after });
    }
    let MetadataFields { mtime, mode, owner } = sets.metadata;
    (sides.metadata.mtime, sides.metadata.mode, sides.metadata.owner) = (mtime, mode, owner);
    sides.keep(sets.metadata.is_nothing(), !sets.any());
    sides.sort();
    sides
}

/// The cell of a dataset that names a metadata or properties file.
struct Cell<'a> {
    path: &'a Path,
    row: &'a DatasetRow,
    column: &'a str,
    file: &'a PathBuf,
}

/// Reads and checks one file. `index` is its place among all of them.
fn side_file(
    cell: &Cell<'_>,
    kind: SideKind,
    index: usize,
    problems: &mut Problems,
    warnings: &mut Vec<Problem>,
) -> Option<PropertyFile> {
    let read = walk::absolute(cell.file).and_then(|file| fs::canonicalize(&file)).and_then(|source| {
        let meta = fs::metadata(&source)?;
        Ok((FileFacts::of(&meta), input::read(&source, limits::SIDE_FILE_MAX, Pipes::Refused)?, source))
    });
    let (facts, bytes, source) = match read {
        Ok(read) => read,
        Err(error) => {
            problems.push(
                Problem::new(Kind::Usage, format!("cannot be read: {error}"))
                    .path(cell.path)
                    .line(cell.row.line)
                    .column(cell.column)
                    .value(cell.file.display().to_string())
                    .advice("check the path, or write None"),
            );
            return None;
        }
    };
    let name = if matches!(kind, SideKind::Metadata) { "metadata" } else { "properties" };
    match properties::check(cell.file, &bytes, kind, cell.row.is_dir_spelled) {
        Ok(odd) => warnings.extend(odd),
        Err(mut more) => problems.0.append(&mut more.0),
    }
    Some(PropertyFile {
        source,
        name: format!("{name}-{:05}.xml", index + 1),
        len: facts.len,
        mtime: facts.mtime,
        ctime: facts.ctime,
    })
}

/// The conflict between a row's own metadata file and metadata taken from the sources, if any.
fn clash(own: &[(String, String)], fields: MetadataFields) -> Option<Problem> {
    let taken = [fields.mtime, fields.mode, fields.owner, fields.owner];
    let is_taken =
        |name: &str| METADATA_NAMES.iter().zip(taken).any(|(own, taken)| taken && own.eq_ignore_ascii_case(name));
    if let Some((name, _)) = own.iter().find(|(name, _)| is_taken(name)) {
        let what = format!("sets {name}, which is also taken from the sources");
        return Some(
            Problem::new(Kind::Usage, what)
                .advice(Advice::from("take it out of the file, or leave it out of ") + Setting::MetadataFrom),
        );
    }
    let len: usize = own.iter().map(|(name, value)| name.len() + value.len()).sum();
    (len + METADATA_LEN > properties::METADATA_LEN_MAX).then(|| {
        Problem::new(Kind::Usage, "is too long together with what is taken from the sources")
            .advice(format!("names and values of a blob's metadata have {} bytes", properties::METADATA_LEN_MAX))
    })
}

impl PropertyFiles {
    /// Drops the files of rows that went into those of each blob's own.
    fn keep(&mut self, metadata_stays: bool, properties_stay: bool) {
        for (metadata, properties) in &mut self.rows {
            *metadata = metadata.filter(|_| metadata_stays);
            *properties = properties.filter(|_| properties_stay);
        }
        let mut place = vec![None; self.files.len()];
        for (i, file) in std::mem::take(&mut self.files).into_iter().enumerate() {
            if self.rows.iter().any(|&(metadata, properties)| [metadata, properties].contains(&Some(i))) {
                place[i] = Some(self.files.len());
                self.files.push(file);
            }
        }
        for (metadata, properties) in &mut self.rows {
            *metadata = metadata.and_then(|i| place[i]);
            *properties = properties.and_then(|i| place[i]);
        }
    }

    /// NTFS requires the files of a directory in its own order.
    fn sort(&mut self) {
        let mut order: Vec<usize> = (0..self.files.len()).collect();
        let units = |i: usize| self.files[i].name.encode_utf16();
        order.sort_by(|&a, &b| upcase::compare(units(a), units(b)));
        let mut place = vec![0; order.len()];
        for (to, &from) in order.iter().enumerate() {
            place[from] = to;
        }
        self.files = order.into_iter().map(|from| self.files[from].clone()).collect();
        for (metadata, properties) in &mut self.rows {
            *metadata = metadata.map(|i| place[i]);
            *properties = properties.map(|i| place[i]);
        }
    }
}
