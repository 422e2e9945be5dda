//! One drive's files for the NTFS writer: its part of the catalog, the session's directory on top, and the files that
//! the session itself adds.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::account::{Exported, ExportedFile, HashBlocks};
use crate::azure::dataset::BlobType;
use crate::azure::names;
use crate::azure::properties::{MD5_END, MD5_START};
use crate::catalog::{Catalog, Posix};
use crate::hash;
use crate::ntfs::build::{Children, DirFacts, FileFacts, Times, Tree};
use crate::ntfs::upcase;
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

/// A properties file of each blob's own: around its MD5, which takes 24 characters of base64, or without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Md5Text {
    /// Text before the MD5.
    pub before: String,
    /// Text after the MD5.
    pub after: String,
}

/// Facts of a source that become metadata of its blob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataFrom {
    /// Time of its last modification.
    pub mtime: bool,
    /// Its permissions.
    pub mode: bool,
    /// Its user and group, by number.
    pub owner: bool,
    /// For each row: the elements of its own metadata file.
    pub rows: Vec<String>,
}

/// Names of the metadata that come of a source.
pub const METADATA_NAMES: [&str; 4] = ["mtime", "mode", "owner", "group"];

/// Bytes that they take at most, names and values.
pub const METADATA_LEN: usize = 96;

impl MetadataFrom {
    /// Whether nothing is taken.
    pub const fn is_nothing(&self) -> bool {
        !self.mtime && !self.mode && !self.owner
    }

    /// The file of one blob.
    fn text(&self, row: usize, mtime: Stamp, posix: Posix) -> String {
        let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Metadata>\n");
        out.push_str(self.rows.get(row).map_or("", String::as_str));
        if self.mtime {
            let seconds = mtime.seconds;
            let _ = match jiff::Timestamp::new(seconds, mtime.nanos as i32) {
                Ok(time) => writeln!(out, "<mtime>{time}</mtime>"),
                // Outside of the years that a date has.
                Err(_) => writeln!(out, "<mtime>{seconds}</mtime>"),
            };
        }
        if self.mode {
            let _ = writeln!(out, "<mode>{:04o}</mode>", posix.mode & 0o7777);
        }
        if self.owner {
            let _ = writeln!(out, "<owner>{}</owner>\n<group>{}</group>", posix.uid, posix.gid);
        }
        out.push_str("</Metadata>\n");
        out
    }
}

/// Files that each blob gets of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnFiles {
    /// For each row, if blobs get a properties file each; otherwise empty.
    pub properties: Vec<Md5Text>,
    /// Whether they get a metadata file each, and what is in it.
    pub metadata: MetadataFrom,
}

impl From<Vec<Md5Text>> for OwnFiles {
    fn from(properties: Vec<Md5Text>) -> Self {
        Self { properties, ..Self::default() }
    }
}

impl Md5Text {
    /// Whether it has the hash.
    fn sets_md5(&self) -> bool {
        self.before.ends_with(MD5_START)
    }

    /// The file with `md5` where it has one, and with a type, if there is none in it.
    fn text(&self, md5: &str, content_type: Option<&str>) -> String {
        let Self { before, after } = self;
        let md5 = if self.sets_md5() { md5 } else { "" };
        match content_type.filter(|_| !after.contains("<Content-Type>")) {
            None => [before, md5, after].concat(),
            Some(content_type) => {
                let end = if self.sets_md5() { MD5_END } else { "" };
                let rest = after.strip_prefix(end).unwrap_or(after);
                format!("{before}{md5}{end}<Content-Type>{content_type}</Content-Type>\n{rest}")
            }
        }
    }
}

/// Kind of a file on the drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A blob: index into the catalog.
    Blob(u32),
    /// The properties file of a blob that sets its `Content-MD5`: the blob's index in the tree.
    ContentMd5(u32),
    /// The metadata file of a blob's own: the blob's index in the tree.
    Metadata(u32),
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

/// A drive's directories, top down.
struct Dirs {
    dirs: Vec<DriveDir>,
    /// Drive directory of each catalog directory that is used.
    dir_of: Vec<u32>,
    /// Directory of the files whose paths are too long.
    long: Option<u32>,
    /// Directory of metadata and properties files.
    properties: Option<u32>,
}

impl Dirs {
    /// The needed ones of the catalog, and at the top those for long paths and for property files, if wanted.
    fn new(catalog: &Catalog, needed: &[bool], (wants_long, wants_properties): (bool, bool)) -> Self {
        let all = catalog.dirs();
        let mut dir_of = vec![u32::MAX; all.len()];
        let mut dirs: Vec<DriveDir> = Vec::new();
        let empty =
            |catalog, parent| DriveDir { catalog, parent, first_dir: 0, dir_count: 0, first_file: 0, file_count: 0 };
        dirs.push(empty(Some(0), None));
        dir_of[0] = 0;
        let (mut long, mut properties) = (None, None);
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
                if wants_long {
                    long = Some(dirs.len() as u32);
                    dirs.push(empty(None, Some(0)));
                }
                if wants_properties {
                    properties = Some(dirs.len() as u32);
                    dirs.push(empty(None, Some(0)));
                }
            }
            dirs[next].first_dir = first_dir;
            dirs[next].dir_count = dirs.len() as u32 - first_dir;
            next += 1;
        }
        Self { dirs, dir_of, long, properties }
    }
}

/// The assigned files that lie in their own directories, and those whose paths are too long: by their new names.
fn by_length(catalog: &Catalog, assigned: &[u32]) -> (Vec<u32>, Vec<(String, u32)>) {
    let mut blobs = Vec::with_capacity(assigned.len());
    let mut long: Vec<(String, u32)> = Vec::new();
    for &file in assigned {
        if !catalog.long().is_empty() && catalog.long().binary_search(&file).is_ok() {
            long.push((long_name(catalog, file), file));
        } else {
            blobs.push(file);
        }
    }
    long.sort_by(|a, b| upcase::compare(a.0.encode_utf16(), b.0.encode_utf16()));
    (blobs, long)
}

/// Directories that a drive needs: those that hold one of the files, at any depth. A volume that is copied keeps all.
fn needed(catalog: &Catalog, files: &[u32], keeps_empty: bool) -> Vec<bool> {
    let mut needed = vec![keeps_empty; catalog.dirs().len()];
    needed[0] = true;
    for &file in files {
        let mut dir = catalog.files()[file as usize].dir;
        while !needed[dir as usize] {
            needed[dir as usize] = true;
            match catalog.parent(dir) {
                Some(parent) => dir = parent,
                None => break,
            }
        }
    }
    needed
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
    /// Its files are listed one by one, each with its hashes as a whole.
    listed: bool,
    /// The files of each blob's own set `Content-Type` too, by its name.
    guesses_type: bool,
    /// Facts of its source that each blob gets as metadata, in its own metadata file.
    metadata: MetadataFrom,
    /// The account's facts about its files, if it is a drive of an export.
    exported: Option<Arc<Exported>>,
}

impl DriveTree {
    /// A tree without files and directories: only the files in the root are added.
    pub fn none(catalog: Arc<Catalog>, session: &str, formatted: FileTime) -> Self {
        Self { dirs: Vec::new(), ..Self::new(catalog, &[], session, OwnFiles::default(), Vec::new(), formatted) }
    }

    /// The tree of all files and directories of a catalog, unchanged, in the volume's root.
    pub fn at_root(catalog: Arc<Catalog>, formatted: FileTime) -> Self {
        let all: Vec<u32> = (0..catalog.files().len() as u32).collect();
        Self::of(catalog, &all, "", OwnFiles::default(), Vec::new(), formatted, (true, true))
    }

    /// The tree of the `assigned` files of an export (catalog indices, ascending), in the volume's root.
    pub fn of_export(catalog: Arc<Catalog>, assigned: &[u32], exported: Arc<Exported>, formatted: FileTime) -> Self {
        let tree = Self::of(catalog, assigned, "", OwnFiles::default(), Vec::new(), formatted, (true, false));
        Self { exported: Some(exported), ..tree }
    }

    /// The tree of the `assigned` files (catalog indices, ascending) under a directory named after the session.
    pub fn new(
        catalog: Arc<Catalog>,
        assigned: &[u32],
        session: &str,
        own: impl Into<OwnFiles>,
        properties: Vec<PropertyFile>,
        formatted: FileTime,
    ) -> Self {
        Self::of(catalog, assigned, session, own.into(), properties, formatted, (false, false))
    }

    fn of(
        catalog: Arc<Catalog>,
        assigned: &[u32],
        session: &str,
        OwnFiles { properties: md5_texts, metadata }: OwnFiles,
        properties: Vec<PropertyFile>,
        formatted: FileTime,
        (at_root, keeps_empty): (bool, bool),
    ) -> Self {
        let kinds = u32::from(!md5_texts.is_empty()) + u32::from(!metadata.is_nothing());
        let has_own = kinds > 0 && !assigned.is_empty();
        let (mut blobs, long) = by_length(&catalog, assigned);
        let needed = needed(&catalog, &blobs, keeps_empty);
        let own_dirs = (!long.is_empty(), has_own || !properties.is_empty());
        let Dirs { mut dirs, dir_of, long: long_dir, properties: properties_dir } =
            Dirs::new(&catalog, &needed, own_dirs);
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
            let own = kinds as usize * blobs.len();
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
            listed: false,
            guesses_type: false,
            metadata,
            exported: None,
        }
    }

    /// The same, with each file hashed as a whole, to be listed.
    pub fn listed(self, listed: bool) -> Self {
        Self { listed, ..self }
    }

    /// The same, with the types of blobs guessed by their names, where their files of their own set none.
    pub fn guessing(self, guesses_type: bool) -> Self {
        Self { guesses_type, ..self }
    }

    /// Whether its files are listed one by one, each with its hashes as a whole.
    pub fn is_listed(&self) -> bool {
        self.listed
    }

    /// Whether it is a volume as it is, and its files no blobs.
    pub fn is_volume(&self) -> bool {
        self.at_root && self.exported.is_none()
    }

    /// The account's facts about its files, if it is a drive of an export.
    pub fn exported(&self) -> Option<&Exported> {
        self.exported.as_deref()
    }

    /// Content or text of file `i` of an export; `None` for a drive that is filled from local files.
    pub fn exported_file(&self, i: u32) -> Option<&ExportedFile> {
        match self.kind(i) {
            FileKind::Blob(file) => self.exported.as_ref()?.files.get(file as usize),
            FileKind::ContentMd5(_) | FileKind::Metadata(_) | FileKind::Property(_) => None,
        }
    }

    /// Whether file `i` is the properties or metadata file of an exported blob.
    pub fn is_side(&self, i: u32) -> bool {
        matches!(self.exported_file(i), Some(ExportedFile::Side(_)))
    }

    /// Index in the tree of a catalog's file that is on the drive.
    pub fn index_of(&self, file: u32) -> Option<u32> {
        let (own, long) = self.blobs.split_at(self.blobs.len() - self.long_names.len());
        let found = own.binary_search(&file).ok();
        found.or_else(|| Some(own.len() + long.iter().position(|other| *other == file)?)).map(|i| i as u32)
    }

    /// The catalog that the tree was made from.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Number of blobs; they come first.
    pub fn blob_count(&self) -> u32 {
        self.blobs.len() as u32
    }

    /// Whether each blob has a properties file of its own; they come behind the blobs, in their order.
    pub fn has_md5s(&self) -> bool {
        !self.md5_texts.is_empty()
    }

    /// The properties file that sets the `Content-MD5` of blob `i`.
    pub fn md5_file(&self, i: u32) -> u32 {
        self.blob_count() + i
    }

    /// Whether each blob has a metadata file of its own; they come behind the properties files, in the order of the blobs.
    pub fn has_metadata(&self) -> bool {
        !self.metadata.is_nothing()
    }

    /// The metadata file of blob `i`.
    pub fn metadata_file(&self, i: u32) -> u32 {
        self.blob_count() * (1 + u32::from(self.has_md5s())) + i
    }

    /// The contents of the metadata file of blob `i`.
    pub fn metadata_text(&self, i: u32) -> String {
        let file = self.blobs[i as usize];
        let facts = &self.catalog.files()[file as usize];
        self.metadata.text(facts.row as usize, facts.mtime, self.catalog.posix(file).unwrap_or_default())
    }

    /// Files that blob `i` has of its own.
    pub fn own_files(&self, i: u32) -> impl Iterator<Item = u32> + use<'_> {
        let properties = self.has_md5s().then(|| self.md5_file(i));
        let sides = match (self.kind(i), &self.exported) {
            (FileKind::Blob(file), Some(exported)) => Some(exported.sides(file)),
            _ => None,
        };
        let sides = sides.into_iter().flatten().filter_map(|file| self.index_of(file));
        properties.into_iter().chain(self.has_metadata().then(|| self.metadata_file(i))).chain(sides)
    }

    /// The contents of that file.
    pub fn md5_text(&self, i: u32, md5: &[u8; 16]) -> String {
        let file = self.blobs[i as usize];
        let text = &self.md5_texts[self.catalog.files()[file as usize].row as usize];
        text.text(&hash::base64(md5), self.content_type(file))
    }

    /// The type of a blob by its name, where that is asked for and known.
    fn content_type(&self, file: u32) -> Option<&'static str> {
        let path = self.guesses_type.then(|| Path::new(self.catalog.file_segment(file)))?;
        mime_guess::from_path(path).first_raw()
    }

    /// Whether the files of each blob's own set its `Content-MD5`.
    pub fn sets_md5s(&self) -> bool {
        self.md5_texts.iter().any(Md5Text::sets_md5)
    }

    /// Whether the MD5 of blob `i` as a whole is another than that of its only block.
    pub fn has_whole_md5(&self, i: u32) -> bool {
        (self.listed || self.sets_md5s())
            && match self.blob_type(i) {
                Some(BlobType::Page) => true,
                Some(_) => self.blocks(i).count() > 1,
                None => false,
            }
    }

    /// The first of the metadata and properties files.
    pub fn first_property(&self) -> u32 {
        self.blob_count() * (1 + u32::from(self.has_md5s()) + u32::from(self.has_metadata()))
    }

    /// The metadata and properties files; they come last.
    pub fn properties(&self) -> &[PropertyFile] {
        &self.properties
    }

    /// Kind of file `i`.
    pub fn kind(&self, i: u32) -> FileKind {
        match self.blobs.get(i as usize) {
            Some(&file) => FileKind::Blob(file),
            None if i >= self.first_property() => FileKind::Property((i - self.first_property()) as usize),
            None if self.has_metadata() && i >= self.metadata_file(0) => FileKind::Metadata(i - self.metadata_file(0)),
            None => FileKind::ContentMd5(i - self.blob_count()),
        }
    }

    /// Type of the blob of file `i`; `None` for metadata and properties files.
    pub fn blob_type(&self, i: u32) -> Option<BlobType> {
        match self.kind(i) {
            FileKind::Blob(file) => Some(self.catalog.blob_type(file)),
            FileKind::ContentMd5(_) | FileKind::Metadata(_) | FileKind::Property(_) => None,
        }
    }

    /// The blocks that file `i` is hashed in.
    pub fn blocks(&self, i: u32) -> HashBlocks<'_> {
        let total = self.file(i).len;
        match self.kind(i) {
            FileKind::Blob(file) if self.catalog.blob_type(file) != BlobType::Page => {
                match self.exported.as_ref().and_then(|exported| exported.blocks(file)) {
                    Some(own) => HashBlocks::own(total.0, own),
                    None => {
                        let len = names::blocks_of(total).map_or(names::BLOCK_LEN, |blocks| blocks.len);
                        HashBlocks::even(total.0, len)
                    }
                }
            }
            _ => HashBlocks::even(total.0, names::BLOCK_LEN),
        }
    }

    /// The first local file with several hash blocks that are not whole clusters, in which no hash of the file as a whole
    /// could be noted between two batches: blocks of files above 195 GiB are a multiple of 1 MiB.
    pub fn split_clusters(&self, cluster: ClusterSize) -> Option<u32> {
        (0..self.blob_count()).find(|&i| self.exported.is_none() && self.blocks(i).splits(cluster))
    }

    /// Source path of file `i`, or of the blob that it describes.
    pub fn source_path(&self, i: u32) -> PathBuf {
        match self.kind(i) {
            FileKind::ContentMd5(blob) | FileKind::Metadata(blob) => self.source_path(blob),
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
                let (seconds, nanos) = self.formatted.to_unix();
                let made = Stamp { seconds, nanos };
                // The hash has the same length whatever it is.
                (ByteLen(self.md5_text(blob, &[0; 16]).len() as u64), made, made)
            }
            FileKind::Metadata(blob) => {
                let (seconds, nanos) = self.formatted.to_unix();
                let made = Stamp { seconds, nanos };
                (ByteLen(self.metadata_text(blob).len() as u64), made, made)
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
            FileKind::Metadata(blob) => {
                let _ = write!(out, "\\{PROPERTIES_DIR}\\{}", metadata_name(blob));
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

/// Ascending, between `md5-…` and `metadata-…`.
fn metadata_name(blob: u32) -> String {
    format!("meta-{blob:010}.xml")
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
            times: d
                .catalog
                .and_then(|dir| self.catalog.dir_time(dir))
                .map_or(Times::all(self.formatted), |modified| Times::all(modified.file_time())),
            children: self.children(d),
        }
    }

    fn file(&self, i: u32) -> FileFacts {
        let (len, modified, changed) = self.planned_facts(i);
        let (modified, changed) = (modified.file_time(), changed.file_time());
        let dir = match self.kind(i) {
            FileKind::ContentMd5(_) | FileKind::Metadata(_) | FileKind::Property(_) => self.properties_dir,
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
            FileKind::Metadata(blob) => return self.write_name(&metadata_name(blob), out),
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
    use crate::catalog::Builder;

    #[test]
    fn a_blob_gets_the_type_of_its_name_unless_its_row_says_one() {
        let (before, after) = ("<P>\n<Content-MD5>".to_owned(), "</Content-MD5>\n</P>\n".to_owned());
        let md5 = Md5Text { before, after };
        assert_eq!(md5.text("X==", None), "<P>\n<Content-MD5>X==</Content-MD5>\n</P>\n");
        let typed = "<P>\n<Content-MD5>X==</Content-MD5>\n<Content-Type>a/b</Content-Type>\n</P>\n";
        assert_eq!(md5.text("X==", Some("a/b")), typed);
        let bare = Md5Text { before: "<P>\n".into(), after: "<Cache-Control>x</Cache-Control>\n</P>\n".into() };
        assert_eq!(
            bare.text("X==", Some("a/b")),
            "<P>\n<Content-Type>a/b</Content-Type>\n<Cache-Control>x</Cache-Control>\n</P>\n"
        );
        assert_eq!(bare.text("X==", None), "<P>\n<Cache-Control>x</Cache-Control>\n</P>\n");
        let own = Md5Text { before: "<P>\n".into(), after: "<Content-Type>q</Content-Type>\n</P>\n".into() };
        assert_eq!(own.text("X==", Some("a/b")), "<P>\n<Content-Type>q</Content-Type>\n</P>\n");
        for (name, known) in [("a.JPG", "image/jpeg"), ("b.tar.gz", "application/gzip"), ("c.html", "text/html")] {
            assert_eq!(mime_guess::from_path(name).first_raw(), Some(known), "{name}");
        }
        assert_eq!(mime_guess::from_path("README").first_raw(), None);
    }

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
        assert_eq!([0, 1].map(|i| large.blocks(i).even_len()), [Some(4 << 20), Some(5 << 20)]);
        assert_eq!(large.split_clusters(cluster(1 << 20)), None);
        assert_eq!(large.split_clusters(cluster(2 << 20)), Some(1));
        assert_eq!(tree([195 * gib, 250 * gib]).split_clusters(cluster(2 << 20)), None, "blocks of 6 MiB");
    }
}
