//! Metadata and properties files: read, checked, and named for the drive.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::azure::dataset::DatasetRow;
use crate::azure::properties::{self, SideKind};
use crate::files::input::{self, Pipes};
use crate::limits;
use crate::ntfs::upcase;
use crate::plan::tree::{Md5Text, PropertyFile};
use crate::report::{Kind, Problem, Problems};
use crate::source::walk::{self, FileFacts};

/// The session's property files, and which of them each row uses.
#[derive(Debug, Default)]
pub struct PropertyFiles {
    /// The files, in the order of the volume's directory.
    pub files: Vec<PropertyFile>,
    /// For each row: index of its metadata file, and of its properties file.
    pub rows: Vec<(Option<usize>, Option<usize>)>,
    /// For each row: the properties file of its blobs, around their `Content-MD5`.
    pub md5_texts: Vec<Md5Text>,
}

/// Reads and checks the files that the rows name; each is kept once.
///
/// With `content_md5` each blob has a properties file of its own, which includes the row's properties; the row's file
/// is not kept.
pub fn side_files(
    path: &Path,
    rows: &[DatasetRow],
    content_md5: bool,
    problems: &mut Problems,
    warnings: &mut Vec<Problem>,
) -> PropertyFiles {
    let mut sides = PropertyFiles::default();
    let mut known: HashMap<(PathBuf, bool), usize> = HashMap::new();
    for row in rows {
        let mut one = |file: &Option<PathBuf>, kind: SideKind, column: &str| -> Option<usize> {
            let file = file.as_ref()?;
            let is_metadata = matches!(kind, SideKind::Metadata);
            if let Some(&index) = known.get(&(file.clone(), is_metadata)) {
                return Some(index);
            }
            let here = |what: String| {
                Problem::new(Kind::Usage, what)
                    .path(path)
                    .line(row.line)
                    .column(column)
                    .value(file.display().to_string())
            };
            let read = walk::absolute(file).and_then(|file| fs::canonicalize(&file)).and_then(|source| {
                let meta = fs::metadata(&source)?;
                Ok((FileFacts::of(&meta), input::read(&source, limits::SIDE_FILE_MAX, Pipes::Refused)?, source))
            });
            let (facts, bytes, source) = match read {
                Ok(read) => read,
                Err(error) => {
                    problems.push(here(format!("cannot be read: {error}")).advice("check the path, or write None"));
                    return None;
                }
            };
            match properties::check(file, &bytes, kind, row.is_dir_spelled) {
                Ok(odd) => warnings.extend(odd),
                Err(mut more) => problems.0.append(&mut more.0),
            }
            let name = if is_metadata { "metadata" } else { "properties" };
            let index = sides.files.len();
            sides.files.push(PropertyFile {
                source,
                name: format!("{name}-{:05}.xml", index + 1),
                len: facts.len,
                mtime: facts.mtime,
                ctime: facts.ctime,
            });
            known.insert((file.clone(), is_metadata), index);
            Some(index)
        };
        let metadata = one(&row.metadata_file, SideKind::Metadata, "MetadataFile");
        let properties = one(&row.properties_file, SideKind::Properties, "PropertiesFile");
        sides.rows.push((metadata, properties));
        if !content_md5 {
            continue;
        }
        // A file that cannot be read was reported above.
        let others =
            properties.and_then(|i| input::read(&sides.files[i].source, limits::SIDE_FILE_MAX, Pipes::Refused).ok());
        let others = others.and_then(|bytes| properties::read(&bytes).ok()).unwrap_or_default();
        let (before, after) = properties::around_md5(&others);
        sides.md5_texts.push(Md5Text { before, after });
    }
    if content_md5 {
        sides.keep_metadata();
    }
    sides.sort();
    sides
}

impl PropertyFiles {
    fn keep_metadata(&mut self) {
        let mut place = vec![None; self.files.len()];
        for (i, file) in std::mem::take(&mut self.files).into_iter().enumerate() {
            if self.rows.iter().any(|&(metadata, _)| metadata == Some(i)) {
                place[i] = Some(self.files.len());
                self.files.push(file);
            }
        }
        for (metadata, properties) in &mut self.rows {
            *metadata = metadata.and_then(|i| place[i]);
            *properties = None;
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
