//! Metadata and properties files: read, checked, and named for the drive.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::azure::dataset::DatasetRow;
use crate::azure::properties::{self, SideKind};
use crate::limits;
use crate::ntfs::upcase;
use crate::plan::tree::PropertyFile;
use crate::report::{Kind, Problem, Problems};
use crate::source::walk::{self, FileFacts};

/// The session's property files, and which of them each row uses.
#[derive(Debug, Default)]
pub struct Sides {
    /// In the order of the volume's directory.
    pub files: Vec<PropertyFile>,
    /// For each row: its metadata and its properties file.
    pub rows: Vec<(Option<usize>, Option<usize>)>,
}

/// Reads and checks the files that the rows name; each is kept once.
pub fn side_files(path: &Path, rows: &[DatasetRow], problems: &mut Problems, warnings: &mut Vec<Problem>) -> Sides {
    let mut sides = Sides::default();
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
                if meta.len() > limits::SIDE_FILE_MAX {
                    return Err(io::Error::other(format!("larger than {} bytes", limits::SIDE_FILE_MAX)));
                }
                Ok((FileFacts::of(&meta), fs::read(&source)?, source))
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
                mtime_ns: facts.mtime_ns,
                ctime_ns: facts.ctime_ns,
            });
            known.insert((file.clone(), is_metadata), index);
            Some(index)
        };
        let metadata = one(&row.metadata_file, SideKind::Metadata, "MetadataFile");
        let properties = one(&row.properties_file, SideKind::Properties, "PropertiesFile");
        sides.rows.push((metadata, properties));
    }
    sides.sort();
    sides
}

impl Sides {
    /// NTFS wants the files of a directory in its order.
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
