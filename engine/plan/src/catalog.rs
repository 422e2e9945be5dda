//! The blobs of a session: one tree of containers, directories and files, whatever rows they came from.
//!
//! A directory's children are kept in NTFS collation order, directories breadth first (so that the children of one
//! directory are neighbours) and files depth first (so that a subtree's files are neighbours). The index of a file is
//! therefore its place in every later order: reading, data on the drive, `$MFT`, manifest.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use crate::azure::dataset::BlobType;
use crate::azure::names as blob_names;
use crate::ntfs::names;
use crate::ntfs::upcase;
pub use crate::units::Posix;
use crate::units::{ByteLen, Stamp};

/// Longest path that programs with the classic limit open: 259 units, of which `X:` takes two (MAX_PATH less its NUL).
pub const PATH_UNITS_MAX: usize = 257;

/// Marks entries without a parent directory.
const NONE: u32 = u32::MAX;

/// A file of the session. Forty-eight bytes, since there may be ten million.
#[derive(Clone, Copy, Debug)]
pub struct File {
    /// Length in bytes at the time of the walk.
    pub len: ByteLen,
    /// Time of last modification at the time of the walk.
    pub mtime: Stamp,
    /// Time of the last status change at the time of the walk.
    pub ctime: Stamp,
    pub(super) name_at: u32,
    /// Directory of the blob.
    pub dir: u32,
    /// The row it came from.
    pub row: u32,
    pub(super) name_len: u16,
}

/// A container or a directory below one. Directory 0 is the parent of the containers.
#[derive(Clone, Copy, Debug)]
pub struct Dir {
    pub(super) parent: u32,
    pub(super) name_at: u32,
    pub(super) name_len: u16,
    /// First child directory; children are neighbours.
    pub first_dir: u32,
    /// Number of child directories.
    pub dir_count: u32,
    /// First file; the files of one directory are neighbours.
    pub first_file: u32,
    /// Number of files.
    pub file_count: u32,
}

/// Source and destination of a row's files.
#[derive(Clone, Debug)]
pub struct Row {
    /// The source directory or file.
    pub base: PathBuf,
    /// `None` when the row names a single file.
    pub(super) dir: Option<u32>,
    /// Type of its blobs; `None`: by each blob's name.
    pub blob_type: Option<BlobType>,
}

/// Two sources for one blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// The blob both would make.
    pub blob: String,
    /// Paths of the two sources, the first row's first.
    pub sources: [PathBuf; 2],
    /// Their rows, as given to the builder.
    pub rows: [u32; 2],
}

/// More names than can be addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the names of all files together exceed 4 GiB, or they are more than 4 294 967 295")]
pub struct TooMany;

/// Collects the results of the walk, in any order.
#[derive(Debug, Default)]
pub struct Builder {
    names: String,
    dirs: Vec<(u32, u32, u16)>,
    files: Vec<File>,
    rows: Vec<Row>,
    targets: HashMap<u32, PathBuf>,
    posix: Vec<Posix>,
    dir_times: HashMap<u32, Stamp>,
}

/// The whole session, sealed: nothing can be added.
#[derive(Debug)]
pub struct Catalog {
    pub(super) names: String,
    pub(super) dirs: Vec<Dir>,
    pub(super) files: Vec<File>,
    pub(super) rows: Vec<Row>,
    pub(super) safe_dirs: HashMap<u32, Box<str>>,
    pub(super) safe_files: HashMap<u32, Box<str>>,
    /// Indices of files whose path on the drive would be too long.
    pub(super) long: Vec<u32>,
    /// Files that are read elsewhere than at their own path: links that were followed.
    pub(super) targets: HashMap<u32, PathBuf>,
    /// Of each file, or empty.
    pub(super) posix: Vec<Posix>,
    /// Times of modification of the directories of a tree that is copied unchanged.
    pub(super) dir_times: HashMap<u32, Stamp>,
}

impl Builder {
    /// An empty collection.
    pub fn new() -> Self {
        Self { dirs: vec![(NONE, 0, 0)], ..Self::default() }
    }

    /// Adds a row; `dir` is the directory of its destination prefix, `None` for a row that names one file.
    pub fn row(&mut self, base: PathBuf, dir: Option<u32>, blob_type: Option<BlobType>) -> u32 {
        self.rows.push(Row { base, dir, blob_type });
        (self.rows.len() - 1) as u32
    }

    /// Adds a directory named `name` (one segment of a blob path) below `parent`; 0 is above the containers.
    ///
    /// The same directory may be named more than once: `seal` merges them.
    pub fn dir(&mut self, parent: u32, name: &str) -> Result<u32, TooMany> {
        let (name_at, name_len) = self.name(name)?;
        self.dirs.push((parent, name_at, name_len));
        u32::try_from(self.dirs.len() - 1).ok().filter(|&i| i != NONE).ok_or(TooMany)
    }

    /// Notes when a directory was modified.
    pub fn dated(&mut self, dir: u32, modified: Stamp) {
        self.dir_times.insert(dir, modified);
    }

    /// Adds a file.
    pub fn file(
        &mut self,
        dir: u32,
        name: &str,
        row: u32,
        len: ByteLen,
        [mtime, ctime]: [Stamp; 2],
    ) -> Result<(), TooMany> {
        let (name_at, name_len) = self.name(name)?;
        if self.files.len() as u64 >= u64::from(NONE) {
            return Err(TooMany);
        }
        self.files.push(File { len, mtime, ctime, name_at, dir, row, name_len });
        Ok(())
    }

    /// Says who the file that was added last belongs to; of all files, or of none.
    pub fn belongs(&mut self, posix: Posix) {
        self.posix.push(posix);
    }

    /// Says where the file that was added last is read.
    pub fn read_at(&mut self, target: PathBuf) {
        if let Some(last) = self.files.len().checked_sub(1) {
            self.targets.insert(last as u32, target);
        }
    }

    /// Files so far.
    pub fn file_count(&self) -> u64 {
        self.files.len() as u64
    }

    fn name(&mut self, name: &str) -> Result<(u32, u16), TooMany> {
        let at = u32::try_from(self.names.len()).map_err(|_| TooMany)?;
        let len = u16::try_from(name.len()).map_err(|_| TooMany)?;
        self.names.push_str(name);
        Ok((at, len))
    }

    /// Merges, sorts and names everything. `root_units` is the length in UTF-16 units of the path above the containers
    /// (`\session#1`).
    ///
    /// # Errors
    /// All pairs of sources that would make the same blob.
    pub fn seal(self, root_units: usize) -> Result<Catalog, Vec<Duplicate>> {
        Sealer::new(self, false).run(Some(root_units))
    }

    /// As [`Self::seal`], for the containers of an export, which are in the volume's root: directory 0 is that root, where
    /// some names are reserved, and files with long paths are moved.
    ///
    /// # Errors
    /// As for [`Self::seal`].
    pub fn seal_export(self) -> Result<Catalog, Vec<Duplicate>> {
        Sealer::new(self, true).run(Some(0))
    }

    /// As [`Self::seal`], for a tree that is copied to a volume unchanged: directory 0 is the volume's root, where some
    /// names are reserved, and files with long paths are not moved.
    ///
    /// # Errors
    /// As for [`Self::seal`].
    pub fn seal_volume(self) -> Result<Catalog, Vec<Duplicate>> {
        Sealer::new(self, true).run(None)
    }
}

/// One child while its directory is being sorted.
struct Child {
    /// Folded name in the key arena.
    key: (u32, u32),
    index: u32,
    is_dir: bool,
}

/// All children of one directory while they are sorted.
struct Siblings {
    /// The builder's directories of each name.
    groups: Vec<Vec<u32>>,
    /// Arena of folded names.
    keys: Vec<u16>,
    children: Vec<Child>,
    /// Safe names, by kind (`true` for a directory) and index.
    safe: HashMap<(bool, u32), Box<str>>,
}

struct Sealer {
    from: Builder,
    dir_children: Grouped,
    file_children: Grouped,
    dirs: Vec<Dir>,
    /// The builder's directories that each final one is made of (nearly always one).
    behind: Vec<Vec<u32>>,
    /// Builder's file indices, directory by directory in final directory order.
    sorted_files: Vec<u32>,
    safe_dirs: HashMap<u32, Box<str>>,
    /// By builder's file index.
    safe_files: HashMap<u32, Box<str>>,
    duplicates: Vec<(u32, u32, u32)>,
    /// Whether directory 0 is the root of a volume.
    is_volume: bool,
}

/// Indices grouped by a key: one counting sort.
struct Grouped {
    starts: Vec<u32>,
    items: Vec<u32>,
}

impl Grouped {
    fn new(groups: usize, keys: impl Iterator<Item = u32> + Clone) -> Self {
        let mut starts = vec![0u32; groups + 1];
        for key in keys.clone() {
            if key != NONE {
                starts[key as usize + 1] += 1;
            }
        }
        for i in 0..groups {
            starts[i + 1] += starts[i];
        }
        let mut next = starts.clone();
        let mut items = vec![0; starts[groups] as usize];
        for (i, key) in keys.enumerate() {
            if key != NONE {
                items[next[key as usize] as usize] = i as u32;
                next[key as usize] += 1;
            }
        }
        Self { starts, items }
    }

    fn of(&self, group: u32) -> &[u32] {
        &self.items[self.starts[group as usize] as usize..self.starts[group as usize + 1] as usize]
    }
}

impl Sealer {
    fn new(from: Builder, is_volume: bool) -> Self {
        let dir_children = Grouped::new(from.dirs.len(), from.dirs.iter().map(|d| d.0));
        let file_children = Grouped::new(from.dirs.len(), from.files.iter().map(|f| f.dir));
        let sorted_files = Vec::with_capacity(from.files.len());
        Self {
            from,
            dir_children,
            file_children,
            dirs: Vec::new(),
            behind: Vec::new(),
            sorted_files,
            safe_dirs: HashMap::new(),
            safe_files: HashMap::new(),
            duplicates: Vec::new(),
            is_volume,
        }
    }

    fn run(mut self, root_units: Option<usize>) -> Result<Catalog, Vec<Duplicate>> {
        let (_, name_at, name_len) = self.from.dirs[0];
        self.dirs.push(Dir {
            parent: NONE,
            name_at,
            name_len,
            first_dir: 0,
            dir_count: 0,
            first_file: 0,
            file_count: 0,
        });
        self.behind.push(vec![0]);
        let mut next = 0;
        while next < self.dirs.len() {
            self.arrange(next as u32);
            next += 1;
        }
        self.finish(root_units)
    }

    /// Gathers, merges, names and sorts the children of one final directory.
    fn arrange(&mut self, dir: u32) {
        let behind = std::mem::take(&mut self.behind[dir as usize]);
        let mut siblings = self.gather(&behind);
        // A safe name may itself meet a name that is there already: name again until all differ.
        for attempt in 0u64.. {
            self.sort(&mut siblings);
            if !self.rename(dir, &mut siblings, attempt) {
                break;
            }
        }
        self.number(dir, siblings);
        self.behind[dir as usize] = behind;
    }

    /// The children of the builder's directories `behind`: directories of one name as one.
    fn gather(&self, behind: &[u32]) -> Siblings {
        let mut groups: Vec<Vec<u32>> = Vec::new();
        let mut files: Vec<u32> = Vec::new();
        for &b in behind {
            groups.extend(self.dir_children.of(b).iter().map(|&d| vec![d]));
            files.extend_from_slice(self.file_children.of(b));
        }
        groups.sort_by(|a, b| self.dir_name(a[0]).cmp(self.dir_name(b[0])).then(a[0].cmp(&b[0])));
        groups.dedup_by(|later, earlier| {
            let same = self.dir_name(later[0]) == self.dir_name(earlier[0]);
            if same {
                earlier.append(later);
            }
            same
        });
        let mut keys: Vec<u16> = Vec::new();
        let mut children: Vec<Child> = Vec::with_capacity(groups.len() + files.len());
        for (i, group) in groups.iter().enumerate() {
            children.push(Child { key: fold(self.dir_name(group[0]), &mut keys), index: i as u32, is_dir: true });
        }
        for &f in &files {
            children.push(Child { key: fold(self.file_name(f), &mut keys), index: f, is_dir: false });
        }
        Siblings { groups, keys, children, safe: HashMap::new() }
    }

    /// Sorts by folded name, directories first among equals.
    fn sort(&self, siblings: &mut Siblings) {
        let Siblings { groups, keys, children, .. } = siblings;
        children.sort_by(|a, b| {
            slice(keys, a.key)
                .cmp(slice(keys, b.key))
                .then_with(|| b.is_dir.cmp(&a.is_dir))
                .then_with(|| {
                    if a.is_dir {
                        self.dir_name(groups[a.index as usize][0]).cmp(self.dir_name(groups[b.index as usize][0]))
                    } else {
                        self.file_name(a.index).cmp(self.file_name(b.index))
                    }
                })
                // Of two sources for one blob the first row is named first.
                .then_with(|| a.index.cmp(&b.index))
        });
    }

    /// Gives safe names to children that Windows could not open: by name, or for their neighbour. Two files of one name
    /// are duplicates instead. Returns whether anything was renamed.
    fn rename(&mut self, dir: u32, siblings: &mut Siblings, attempt: u64) -> bool {
        let Siblings { groups, keys, children, safe } = siblings;
        let mut renamed = false;
        for i in 0..children.len() {
            let child = &children[i];
            let original =
                if child.is_dir { self.dir_name(groups[child.index as usize][0]) } else { self.file_name(child.index) };
            let collides = i > 0 && slice(keys, children[i - 1].key) == slice(keys, child.key);
            if collides && !child.is_dir && !children[i - 1].is_dir {
                let (a, b) = (children[i - 1].index, child.index);
                if self.file_name(a) == self.file_name(b) {
                    if attempt == 0 {
                        self.duplicates.push((dir, a, b));
                    }
                    continue;
                }
            }
            let problem = if self.is_volume && dir == 0 { names::problem_in_root } else { names::problem };
            let illegal = attempt == 0 && problem(original).is_some();
            if collides || illegal {
                let name = names::safe_name(original, attempt);
                let key = fold(&name, keys);
                safe.insert((child.is_dir, child.index), name.into_boxed_str());
                children[i].key = key;
                renamed = true;
            }
        }
        renamed
    }

    /// Appends the children, in their order, to the final directories and files.
    fn number(&mut self, dir: u32, siblings: Siblings) {
        let Siblings { mut groups, children, mut safe, .. } = siblings;
        let first_dir = self.dirs.len() as u32;
        let first_file = self.sorted_files.len() as u32;
        for child in &children {
            if child.is_dir {
                let group = std::mem::take(&mut groups[child.index as usize]);
                let (_, name_at, name_len) = self.from.dirs[group[0] as usize];
                if let Some(name) = safe.remove(&(true, child.index)) {
                    self.safe_dirs.insert(self.dirs.len() as u32, name);
                }
                self.dirs.push(Dir {
                    parent: dir,
                    name_at,
                    name_len,
                    first_dir: 0,
                    dir_count: 0,
                    first_file: 0,
                    file_count: 0,
                });
                self.behind.push(group);
            } else {
                if let Some(name) = safe.remove(&(false, child.index)) {
                    self.safe_files.insert(child.index, name);
                }
                self.sorted_files.push(child.index);
            }
        }
        let this = &mut self.dirs[dir as usize];
        this.first_dir = first_dir;
        this.dir_count = self.behind.len() as u32 - first_dir;
        this.first_file = first_file;
        this.file_count = self.sorted_files.len() as u32 - first_file;
    }

    fn dir_name(&self, builder_dir: u32) -> &str {
        let (_, at, len) = self.from.dirs[builder_dir as usize];
        &self.from.names[at as usize..at as usize + len as usize]
    }

    fn file_name(&self, builder_file: u32) -> &str {
        let file = &self.from.files[builder_file as usize];
        &self.from.names[file.name_at as usize..file.name_at as usize + file.name_len as usize]
    }

    /// Numbers the files depth first and finds the paths that are too long.
    fn finish(self, root_units: Option<usize>) -> Result<Catalog, Vec<Duplicate>> {
        let Self { from, mut dirs, behind, sorted_files, safe_dirs, safe_files: safe_by_builder, duplicates, .. } =
            self;
        let Builder {
            names,
            files: unordered,
            mut rows,
            dirs: builder_dirs,
            targets: unordered_targets,
            posix: unordered_posix,
            dir_times: unordered_times,
        } = from;
        let mut targets = HashMap::with_capacity(unordered_targets.len());
        let mut posix = Vec::with_capacity(unordered_posix.len());

        // Rows remember the builder's number of their directory.
        let mut final_of = vec![NONE; builder_dirs.len()];
        for (i, group) in behind.iter().enumerate() {
            for &b in group {
                final_of[b as usize] = i as u32;
            }
        }
        let dir_times = unordered_times.into_iter().map(|(dir, time)| (final_of[dir as usize], time)).collect();
        for row in &mut rows {
            row.dir = row.dir.map(|d| final_of[d as usize]);
        }
        drop((final_of, behind, builder_dirs));

        let mut files = Vec::with_capacity(unordered.len());
        let mut safe_files = HashMap::with_capacity(safe_by_builder.len());
        let mut stack = vec![0u32];
        while let Some(i) = stack.pop() {
            let first_file = files.len() as u32;
            let dir = &mut dirs[i as usize];
            for &f in &sorted_files[dir.first_file as usize..(dir.first_file + dir.file_count) as usize] {
                if let Some(name) = safe_by_builder.get(&f) {
                    safe_files.insert(files.len() as u32, name.clone());
                }
                if let Some(target) = unordered_targets.get(&f) {
                    targets.insert(files.len() as u32, target.clone());
                }
                posix.extend(unordered_posix.get(f as usize));
                files.push(File { dir: i, ..unordered[f as usize] });
            }
            dir.first_file = first_file;
            stack.extend((dir.first_dir..dir.first_dir + dir.dir_count).rev());
        }

        if !duplicates.is_empty() {
            let long = Vec::new();
            let targets = unordered_targets;
            let catalog =
                Catalog { names, dirs, files: unordered, rows, safe_dirs, safe_files, long, targets, posix, dir_times };
            return Err(duplicates.iter().map(|&(dir, a, b)| catalog.duplicate(dir, a, b)).collect());
        }
        let mut catalog =
            Catalog { names, dirs, files, rows, safe_dirs, safe_files, long: Vec::new(), targets, posix, dir_times };
        if let Some(units) = root_units {
            catalog.long = catalog.find_long(units);
        }
        Ok(catalog)
    }
}

/// Appends `name` upcased to `keys`.
fn fold(name: &str, keys: &mut Vec<u16>) -> (u32, u32) {
    let at = keys.len();
    keys.extend(name.encode_utf16().map(upcase::fold));
    (at as u32, (keys.len() - at) as u32)
}

fn slice(keys: &[u16], (at, len): (u32, u32)) -> &[u16] {
    &keys[at as usize..(at + len) as usize]
}

impl Catalog {
    /// All files, in the order of everything that follows.
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// All directories, breadth first; 0 is the parent of the containers.
    pub fn dirs(&self) -> &[Dir] {
        &self.dirs
    }

    /// The rows, in the order given.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Indices of files whose path on the drive would exceed the limit of Windows programs: they go to a directory of
    /// their own.
    pub fn long(&self) -> &[u32] {
        &self.long
    }

    /// Number of directories and files whose name on the drive differs from the blob's segment.
    pub fn renamed(&self) -> usize {
        self.safe_dirs.len() + self.safe_files.len()
    }

    /// Files and directories that have another name on the drive, at most `max`: path in the sources, with a final `/`
    /// for a directory, and the name on the drive.
    pub fn renames(&self, max: usize) -> Vec<(String, &str)> {
        let mut dirs: Vec<u32> = self.safe_dirs.keys().copied().collect();
        let mut files: Vec<u32> = self.safe_files.keys().copied().collect();
        dirs.sort_unstable();
        files.sort_unstable();
        let of_dir = |dir: u32| {
            let mut path = String::new();
            self.blob_prefix(dir, &mut path);
            (path, self.dir_name(dir))
        };
        let of_file = |file: u32| {
            let mut path = String::new();
            self.blob_path(file, &mut path);
            (path, self.file_name(file))
        };
        dirs.into_iter().map(of_dir).chain(files.into_iter().map(of_file)).take(max).collect()
    }

    /// Number of files whose path is too long for programs with Windows' classic limit, below a root whose path has
    /// `root_units` UTF-16 units.
    pub fn count_long(&self, root_units: usize) -> usize {
        self.find_long(root_units).len()
    }

    /// When a directory was modified, if that is known.
    pub fn dir_time(&self, dir: u32) -> Option<Stamp> {
        self.dir_times.get(&dir).copied()
    }

    /// The directory above `dir`.
    pub fn parent(&self, dir: u32) -> Option<u32> {
        let parent = self.dirs[dir as usize].parent;
        (parent != NONE).then_some(parent)
    }

    /// The blob's segment for a directory.
    pub fn dir_segment(&self, dir: u32) -> &str {
        let d = &self.dirs[dir as usize];
        &self.names[d.name_at as usize..d.name_at as usize + d.name_len as usize]
    }

    /// The last segment of a blob's name (for a single-file row in a container: all of it).
    pub fn file_segment(&self, file: u32) -> &str {
        let f = &self.files[file as usize];
        &self.names[f.name_at as usize..f.name_at as usize + f.name_len as usize]
    }

    /// Type of the file's blob.
    pub fn blob_type(&self, file: u32) -> BlobType {
        let row = &self.rows[self.files[file as usize].row as usize];
        row.blob_type.unwrap_or_else(|| BlobType::default_for(self.file_segment(file)))
    }

    /// A directory's name on the drive.
    pub fn dir_name(&self, dir: u32) -> &str {
        self.safe_dirs.get(&dir).map(|name| &**name).unwrap_or_else(|| self.dir_segment(dir))
    }

    /// A file's name on the drive, in its directory.
    pub fn file_name(&self, file: u32) -> &str {
        if self.safe_files.is_empty() {
            return self.file_segment(file);
        }
        self.safe_files.get(&file).map(|name| &**name).unwrap_or_else(|| self.file_segment(file))
    }

    /// The blob's whole path, container first.
    pub fn blob_path(&self, file: u32, out: &mut String) {
        out.clear();
        self.push_dirs(self.files[file as usize].dir, 0, '/', Self::dir_segment, out);
        out.push_str(self.file_segment(file));
    }

    /// Files whose blobs may be the same to the service (`azure::names::fold`), in groups; at most `groups_max` of
    /// them.
    pub fn folding(&self, groups_max: usize) -> Vec<Vec<u32>> {
        // Directories for which folding changes their own name or one above it; parents come first.
        let mut is_odd = vec![false; self.dirs.len()];
        for i in 1..self.dirs.len() {
            is_odd[i] = is_odd[self.dirs[i].parent as usize] || !blob_names::is_folded(self.dir_segment(i as u32));
        }
        let odd = |file: u32| {
            is_odd[self.files[file as usize].dir as usize] || !blob_names::is_folded(self.file_segment(file))
        };
        let mut path = String::new();
        let mut hash = |file: u32| {
            self.blob_path(file, &mut path);
            let mut hasher = DefaultHasher::new();
            blob_names::fold(&path).hash(&mut hasher);
            hasher.finish()
        };
        let all = 0..self.files.len() as u32;
        let mut hashes: Vec<u64> = all.clone().filter(|file| odd(*file)).map(&mut hash).collect();
        if hashes.is_empty() {
            return Vec::new();
        }
        hashes.sort_unstable();
        let mut same: Vec<(u64, u32)> =
            all.map(|file| (hash(file), file)).filter(|(hash, _)| hashes.binary_search(hash).is_ok()).collect();
        same.sort_unstable();
        let groups = same.chunk_by(|a, b| a.0 == b.0).filter(|group| group.len() > 1);
        groups.take(groups_max).map(|group| group.iter().map(|(_, file)| *file).collect()).collect()
    }

    /// The directory's blob prefix, container first, `/` last.
    pub fn blob_prefix(&self, dir: u32, out: &mut String) {
        out.clear();
        self.push_dirs(dir, 0, '/', Self::dir_segment, out);
    }

    /// Owner and permissions of a file, where they are kept.
    pub fn posix(&self, file: u32) -> Option<Posix> {
        self.posix.get(file as usize).copied()
    }

    /// Path on the drive below the session's directory, backslash first; not for `long` files.
    pub fn drive_path(&self, file: u32, out: &mut String) {
        out.push('\\');
        self.push_dirs(self.files[file as usize].dir, 0, '\\', Self::dir_name, out);
        out.push_str(self.file_name(file));
    }

    /// Path of the source file.
    pub fn source_path(&self, file: u32) -> PathBuf {
        if let Some(target) = self.targets.get(&file) {
            return target.clone();
        }
        self.source_in(self.files[file as usize].dir, &self.files[file as usize], self.file_segment(file))
    }

    fn source_in(&self, dir: u32, file: &File, name: &str) -> PathBuf {
        let row = &self.rows[file.row as usize];
        let Some(base_dir) = row.dir else { return row.base.clone() };
        let mut below = String::new();
        self.push_dirs(dir, base_dir, '/', Self::dir_segment, &mut below);
        below.push_str(name);
        row.base.join(Path::new(&below))
    }

    /// Appends the names of the directories from below `stop` down to `dir`, a separator after each.
    fn push_dirs<'a>(
        &'a self,
        dir: u32,
        stop: u32,
        separator: char,
        name: impl Fn(&'a Self, u32) -> &'a str,
        out: &mut String,
    ) {
        let mut chain = [0u32; 64];
        let mut depth = 0;
        let mut deep = Vec::new();
        let mut at = dir;
        while at != stop && at != NONE && at != 0 {
            if depth < chain.len() {
                chain[depth] = at;
                depth += 1;
            } else {
                deep.push(at);
            }
            at = self.dirs[at as usize].parent;
        }
        for &d in deep.iter().rev().chain(chain[..depth].iter().rev()) {
            out.push_str(name(self, d));
            out.push(separator);
        }
    }

    fn duplicate(&self, dir: u32, a: u32, b: u32) -> Duplicate {
        // Called with the files still in the builder's order.
        let name = self.file_segment(a).to_owned();
        let mut blob = String::new();
        self.push_dirs(dir, 0, '/', Self::dir_segment, &mut blob);
        blob.push_str(&name);
        let source = |f: u32| self.source_in(dir, &self.files[f as usize], &name);
        let row = |f: u32| self.files[f as usize].row;
        Duplicate { blob, sources: [source(a), source(b)], rows: [row(a), row(b)] }
    }

    fn find_long(&self, root_units: usize) -> Vec<u32> {
        // Length of `\session\…\dir` for each directory, parents first.
        let mut units = vec![0u32; self.dirs.len()];
        units[0] = root_units as u32;
        let mut long = Vec::new();
        for i in 0..self.dirs.len() {
            if i > 0 {
                let parent = self.dirs[i].parent as usize;
                units[i] = units[parent] + 1 + self.dir_name(i as u32).encode_utf16().count() as u32;
            }
            let d = &self.dirs[i];
            for f in d.first_file..d.first_file + d.file_count {
                let name = self.file_name(f);
                // UTF-16 never has more units than UTF-8 has bytes.
                let over = |len: usize| units[i] as usize + 1 + len > PATH_UNITS_MAX;
                if over(name.len()) && over(name.encode_utf16().count()) {
                    long.push(f);
                }
            }
        }
        long.sort_unstable();
        long
    }
}
