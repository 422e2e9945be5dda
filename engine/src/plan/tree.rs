//! One drive's files for the NTFS writer: its part of the catalog, the session's directory on top, and the files that
//! the session itself adds.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

use crate::azure::dataset::BlobType;
use crate::azure::names;
use crate::hash;
use crate::ntfs::build::{Children, DirFacts, FileFacts, Times, Tree};
use crate::ntfs::upcase;
use crate::plan::catalog::Catalog;
use crate::units::{ByteLen, ClusterSize, FileTime, Stamp};

/// Directory of files whose own path would be too long. It sorts after every container's name, and no container can
/// have it.
const LONG_DIR: &str = "_long";

/// Holds the session's properties and metadata files.
const PROPERTIES_DIR: &str = "_properties";

/// A metadata or properties file that is stored on the drive in addition to the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PropertyFile {
    /// Path of the source file.
    pub source: PathBuf,
    /// Its name on the drive.
    pub name: String,
    /// Length in bytes.
    pub len: ByteLen,
    /// Time of last modification at the time of the walk.
    pub mtime: Stamp,
    /// Time of the last status change at the time of the walk.
    pub ctime: Stamp,
}

/// A properties file around a blob's MD5, which takes 24 characters of base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Md5Text {
    /// Text before the MD5.
    pub before: String,
    /// Text after the MD5.
    pub after: String,
}

impl Md5Text {
    /// Bytes of the file.
    fn len(&self) -> u64 {
        (self.before.len() + 24 + self.after.len()) as u64
    }
}

/// Kind of a file on the drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A blob: index into the catalog.
    Blob(u32),
    /// The properties file of a blob that sets its `Content-MD5`: the blob's index in the tree.
    ContentMd5(u32),
    /// A metadata or properties file: index into the list given.
    Property(usize),
}

#[derive(Clone, Copy, Debug)]
struct DriveDir {
    /// Directory of the catalog; `None` for the session's own.
    catalog: Option<u32>,
    parent: Option<u32>,
    first_dir: u32,
    dir_count: u32,
    first_file: u32,
    file_count: u32,
}

/// One drive's files.
#[derive(Debug)]
pub struct DriveTree {
    catalog: Arc<Catalog>,
    session: String,
    formatted: FileTime,
    dirs: Vec<DriveDir>,
    /// Catalog indices: first those in their own directories, then the long ones by their new names.
    blobs: Vec<u32>,
    long_names: Vec<String>,
    long_dir: Option<u32>,
    /// For each row of the catalog, if blobs get files of their own that set `Content-MD5`; otherwise empty.
    md5_texts: Vec<Md5Text>,
    properties: Vec<PropertyFile>,
    properties_dir: Option<u32>,
    /// Drive directory of each catalog directory that is used.
    dir_of: Vec<u32>,
    /// Whether the top directory is the volume's root itself, not one below it.
    at_root: bool,
}

impl DriveTree {
    /// A tree without files and directories: only the files in the root are added.
    pub fn none(catalog: Arc<Catalog>, session: &str, formatted: FileTime) -> Self {
        Self { dirs: Vec::new(), ..Self::new(catalog, &[], session, Vec::new(), Vec::new(), formatted) }
    }

    /// The tree of all files and directories of a catalog, unchanged, in the volume's root.
    pub fn at_root(catalog: Arc<Catalog>, formatted: FileTime) -> Self {
        let all: Vec<u32> = (0..catalog.files().len() as u32).collect();
        Self::of(catalog, &all, "", Vec::new(), Vec::new(), formatted, true)
    }

    /// The tree of the `assigned` files (catalog indices, ascending) under a directory named after the session.
    pub fn new(
        catalog: Arc<Catalog>,
        assigned: &[u32],
        session: &str,
        md5_texts: Vec<Md5Text>,
        properties: Vec<PropertyFile>,
        formatted: FileTime,
    ) -> Self {
        Self::of(catalog, assigned, session, md5_texts, properties, formatted, false)
    }

    fn of(
        catalog: Arc<Catalog>,
        assigned: &[u32],
        session: &str,
        md5_texts: Vec<Md5Text>,
        properties: Vec<PropertyFile>,
        formatted: FileTime,
        at_root: bool,
    ) -> Self {
        let has_md5s = !md5_texts.is_empty() && !assigned.is_empty();
        let mut blobs = Vec::with_capacity(assigned.len());
        let mut long: Vec<(String, u32)> = Vec::new();
        for &file in assigned {
            if !catalog.long().is_empty() && catalog.long().binary_search(&file).is_ok() {
                long.push((long_name(&catalog, file), file));
            } else {
                blobs.push(file);
            }
        }
        long.sort_by(|a, b| upcase::compare(a.0.encode_utf16(), b.0.encode_utf16()));

        let all = catalog.dirs();
        // A directory is needed when it, or one below it, holds an assigned file; a tree at the root keeps all.
        let mut needed = vec![at_root; all.len()];
        needed[0] = true;
        for &file in &blobs {
            let mut dir = catalog.files()[file as usize].dir;
            while !needed[dir as usize] {
                needed[dir as usize] = true;
                match catalog.parent(dir) {
                    Some(parent) => dir = parent,
                    None => break,
                }
            }
        }
        let mut dir_of = vec![u32::MAX; all.len()];
        let mut dirs: Vec<DriveDir> = Vec::new();
        let empty =
            |catalog, parent| DriveDir { catalog, parent, first_dir: 0, dir_count: 0, first_file: 0, file_count: 0 };
        dirs.push(empty(Some(0), None));
        dir_of[0] = 0;
        let (mut long_dir, mut properties_dir) = (None, None);
        let mut next = 0;
        while next < dirs.len() {
            let first_dir = dirs.len() as u32;
            if let Some(from) = dirs[next].catalog {
                let below = all[from as usize].first_dir..all[from as usize].first_dir + all[from as usize].dir_count;
                for child in below.filter(|&c| needed[c as usize]) {
                    dir_of[child as usize] = dirs.len() as u32;
                    dirs.push(empty(Some(child), Some(next as u32)));
                }
            }
            if next == 0 {
                if !long.is_empty() {
                    long_dir = Some(dirs.len() as u32);
                    dirs.push(empty(None, Some(0)));
                }
                if has_md5s || !properties.is_empty() {
                    properties_dir = Some(dirs.len() as u32);
                    dirs.push(empty(None, Some(0)));
                }
            }
            dirs[next].first_dir = first_dir;
            dirs[next].dir_count = dirs.len() as u32 - first_dir;
            next += 1;
        }
        for (i, &file) in blobs.iter().enumerate() {
            let dir = &mut dirs[dir_of[catalog.files()[file as usize].dir as usize] as usize];
            if dir.file_count == 0 {
                dir.first_file = i as u32;
            }
            dir.file_count += 1;
        }
        let mut long_names = Vec::with_capacity(long.len());
        if let Some(dir) = long_dir {
            dirs[dir as usize].first_file = blobs.len() as u32;
            dirs[dir as usize].file_count = long.len() as u32;
        }
        for (name, file) in long {
            blobs.push(file);
            long_names.push(name);
        }
        if let Some(dir) = properties_dir {
            dirs[dir as usize].first_file = blobs.len() as u32;
            let own = if has_md5s { blobs.len() } else { 0 };
            dirs[dir as usize].file_count = (own + properties.len()) as u32;
        }
        Self {
            catalog,
            session: session.to_owned(),
            formatted,
            dirs,
            blobs,
            long_names,
            long_dir,
            md5_texts,
            properties,
            properties_dir,
            dir_of,
            at_root,
        }
    }

    /// The catalog that the tree was made from.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Number of blobs; they come first.
    pub fn blob_count(&self) -> u32 {
        self.blobs.len() as u32
    }

    /// Whether each blob has a properties file that sets its `Content-MD5`; they come after the blobs, in their order.
    pub fn has_md5s(&self) -> bool {
        !self.md5_texts.is_empty()
    }

    /// The properties file that sets the `Content-MD5` of blob `i`.
    pub fn md5_file(&self, i: u32) -> u32 {
        self.blob_count() + i
    }

    /// The contents of that file.
    pub fn md5_text(&self, i: u32, md5: &[u8; 16]) -> String {
        let text = &self.md5_texts[self.catalog.files()[self.blobs[i as usize] as usize].row as usize];
        [&text.before, &hash::base64(md5), text.after.as_str()].concat()
    }

    /// Whether the MD5 of blob `i` as a whole is another than that of its only block.
    pub fn has_whole_md5(&self, i: u32) -> bool {
        self.has_md5s()
            && match self.blob_type(i) {
                Some(BlobType::Page) => true,
                Some(_) => self.file(i).len.0 > self.block_len(i),
                None => false,
            }
    }

    /// The first of the metadata and properties files.
    pub fn first_property(&self) -> u32 {
        self.blob_count() * if self.has_md5s() { 2 } else { 1 }
    }

    /// The metadata and properties files; they come last.
    pub fn properties(&self) -> &[PropertyFile] {
        &self.properties
    }

    /// Kind of file `i`.
    pub fn kind(&self, i: u32) -> FileKind {
        match self.blobs.get(i as usize) {
            Some(&file) => FileKind::Blob(file),
            None if i < self.first_property() => FileKind::ContentMd5(i - self.blob_count()),
            None => FileKind::Property((i - self.first_property()) as usize),
        }
    }

    /// Type of the blob of file `i`; `None` for metadata and properties files.
    pub fn blob_type(&self, i: u32) -> Option<BlobType> {
        match self.kind(i) {
            FileKind::Blob(file) => Some(self.catalog.blob_type(file)),
            FileKind::ContentMd5(_) | FileKind::Property(_) => None,
        }
    }

    /// Length of the blocks that file `i` is hashed in.
    pub fn block_len(&self, i: u32) -> u64 {
        match self.kind(i) {
            FileKind::Blob(file) if self.catalog.blob_type(file) != BlobType::Page => {
                names::blocks_of(self.catalog.files()[file as usize].len).map_or(names::BLOCK_LEN, |blocks| blocks.len)
            }
            _ => names::BLOCK_LEN,
        }
    }

    /// The first file with several hash blocks that are not whole clusters, so that no batch could end with one: blocks of
    /// files above 195 GiB are a multiple of 1 MiB.
    pub fn split_clusters(&self, cluster: ClusterSize) -> Option<u32> {
        let splits = |&i: &u32| {
            let block = self.block_len(i);
            self.file(i).len.0 > block && !block.is_multiple_of(cluster.bytes())
        };
        (0..self.blob_count()).find(splits)
    }

    /// Source path of file `i`, or of the blob that it describes.
    pub fn source_path(&self, i: u32) -> PathBuf {
        match self.kind(i) {
            FileKind::ContentMd5(blob) => self.source_path(blob),
            FileKind::Blob(file) => self.catalog.source_path(file),
            FileKind::Property(p) => self.properties[p].source.clone(),
        }
    }

    /// Length and times that file `i` had when it was planned: bytes, modified, changed.
    pub fn planned_facts(&self, i: u32) -> (ByteLen, Stamp, Stamp) {
        match self.kind(i) {
            FileKind::Blob(file) => {
                let f = &self.catalog.files()[file as usize];
                (f.len, f.mtime, f.ctime)
            }
            FileKind::ContentMd5(blob) => {
                let row = self.catalog.files()[self.blobs[blob as usize] as usize].row;
                let (seconds, nanos) = self.formatted.to_unix();
                let made = Stamp { seconds, nanos };
                (ByteLen(self.md5_texts[row as usize].len()), made, made)
            }
            FileKind::Property(p) => {
                let p = &self.properties[p];
                (p.len, p.mtime, p.ctime)
            }
        }
    }

    /// Name of the session's directory.
    pub fn session(&self) -> &str {
        &self.session
    }

    /// Path of file `i` on the drive, backslash first.
    pub fn drive_path(&self, i: u32, out: &mut String) {
        out.clear();
        if !self.at_root {
            out.push('\\');
            out.push_str(&self.session);
        }
        match self.kind(i) {
            FileKind::ContentMd5(blob) => {
                let _ = write!(out, "\\{PROPERTIES_DIR}\\{}", md5_name(blob));
            }
            FileKind::Property(p) => {
                let _ = write!(out, "\\{PROPERTIES_DIR}\\{}", self.properties[p].name);
            }
            FileKind::Blob(file) => match self.long_index(i) {
                Some(long) => {
                    out.push('\\');
                    out.push_str(LONG_DIR);
                    out.push('\\');
                    out.push_str(&self.long_names[long]);
                }
                None => self.catalog.drive_path(file, out),
            },
        }
    }

    /// Index of file `i` among those with too long a path; `None` for others.
    fn long_index(&self, i: u32) -> Option<usize> {
        let first_long = self.blobs.len() - self.long_names.len();
        let i = i as usize;
        (i >= first_long && i < self.blobs.len()).then(|| i - first_long)
    }

    /// Number of directories at the front that are the volume's root, which NTFS has already: 0 or 1.
    fn above(&self) -> u32 {
        u32::from(self.at_root)
    }

    fn children(&self, dir: &DriveDir) -> Children {
        let first_dir = dir.first_dir - self.above();
        Children { dirs: first_dir..first_dir + dir.dir_count, files: dir.first_file..dir.first_file + dir.file_count }
    }

    fn write_name(&self, name: &str, out: &mut Vec<u16>) {
        if name.is_ascii() {
            out.extend(name.bytes().map(u16::from));
        } else {
            out.extend(name.encode_utf16());
        }
    }
}

/// Ascending, before `metadata-…` and `properties-…` in collation order.
fn md5_name(blob: u32) -> String {
    format!("md5-{blob:010}.xml")
}

/// A name for a file with too long a path: digest of the blob's path, and its extension where that is short.
fn long_name(catalog: &Catalog, file: u32) -> String {
    let mut blob = String::new();
    catalog.blob_path(file, &mut blob);
    let mut name = hash::hex_upper(&hash::sha256(blob.as_bytes())[..16]).to_lowercase();
    let extension = catalog.file_segment(file).rsplit_once('.').map(|(_, extension)| extension);
    if let Some(extension) = extension
        && (1..=16).contains(&extension.len())
        && extension.bytes().all(|b| b.is_ascii_alphanumeric())
    {
        name.push('.');
        name.push_str(extension);
    }
    name
}

impl Tree for DriveTree {
    fn dirs(&self) -> u32 {
        self.dirs.len() as u32 - self.above()
    }

    fn files(&self) -> u32 {
        self.first_property() + self.properties.len() as u32
    }

    fn root(&self) -> Children {
        match (self.at_root, self.dirs.first()) {
            (true, Some(top)) => self.children(top),
            (_, top) => Children { dirs: 0..u32::from(top.is_some()), files: 0..0 },
        }
    }

    fn dir(&self, i: u32) -> DirFacts {
        let d = &self.dirs[(i + self.above()) as usize];
        DirFacts {
            parent: d.parent.and_then(|parent| parent.checked_sub(self.above())),
            times: Times::all(self.formatted),
            children: self.children(d),
        }
    }

    fn file(&self, i: u32) -> FileFacts {
        let (len, modified, changed) = self.planned_facts(i);
        let (modified, changed) = (modified.file_time(), changed.file_time());
        let dir = match self.kind(i) {
            FileKind::ContentMd5(_) | FileKind::Property(_) => self.properties_dir,
            FileKind::Blob(_) if self.long_index(i).is_some() => self.long_dir,
            FileKind::Blob(file) => Some(self.dir_of[self.catalog.files()[file as usize].dir as usize]),
        };
        FileFacts {
            dir: dir.unwrap_or(0).checked_sub(self.above()),
            len,
            times: Times { created: modified, modified, changed, accessed: modified },
        }
    }

    fn dir_name(&self, i: u32, out: &mut Vec<u16>) {
        let i = i + self.above();
        let name = match self.dirs[i as usize].catalog {
            Some(0) => &self.session,
            Some(dir) => self.catalog.dir_name(dir),
            None if Some(i) == self.long_dir => LONG_DIR,
            None => PROPERTIES_DIR,
        };
        self.write_name(name, out);
    }

    fn file_name(&self, i: u32, out: &mut Vec<u16>) {
        let name = match self.kind(i) {
            FileKind::ContentMd5(blob) => return self.write_name(&md5_name(blob), out),
            FileKind::Property(p) => &self.properties[p].name,
            FileKind::Blob(file) => match self.long_index(i) {
                Some(long) => &self.long_names[long],
                None => self.catalog.file_name(file),
            },
        };
        self.write_name(name, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::catalog::Builder;

    #[test]
    fn hash_blocks_that_are_no_whole_clusters_are_found() {
        let at = Stamp { seconds: 0, nanos: 0 };
        let (gib, tree) = (1 << 30, |lens: [u64; 2]| {
            let mut builder = Builder::new();
            let dir = builder.dir(0, "data").expect("a directory");
            let row = builder.row("/source/".into(), Some(dir), Some(BlobType::Block));
            for (len, name) in lens.into_iter().zip(["a", "b"]) {
                builder.file(dir, name, row, ByteLen(len), [at; 2]).expect("a file");
            }
            let catalog = Arc::new(builder.seal(30).expect("no duplicates"));
            DriveTree::new(catalog, &[0, 1], "session", Vec::new(), Vec::new(), FileTime(0))
        });
        let cluster = |bytes| ClusterSize::from_bytes(bytes).expect("a cluster");
        let large = tree([195 * gib, 200 * gib]);
        assert_eq!((large.block_len(0), large.block_len(1)), (4 << 20, 5 << 20));
        assert_eq!(large.split_clusters(cluster(1 << 20)), None);
        assert_eq!(large.split_clusters(cluster(2 << 20)), Some(1));
        assert_eq!(tree([195 * gib, 250 * gib]).split_clusters(cluster(2 << 20)), None, "blocks of 6 MiB");
    }
}
