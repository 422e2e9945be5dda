//! Walks source directories in byte order.
//!
//! Directories are read whole and sorted, so that the same tree gives the same catalog on every file system; entries
//! that are neither file nor directory are reported and left out. Symbolic links are not followed: their target has no
//! meaning in a storage account. On request, links to a target within the same source are followed.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::units::{ByteLen, Posix, Stamp};

/// An item found by the walk.
#[derive(Debug)]
pub enum Walked<'a> {
    /// A directory; the entries that follow are in it until its `Leave`.
    Enter {
        /// Name of the directory in its parent.
        name: &'a OsStr,
    },
    /// The end of the directory entered last.
    Leave,
    /// A regular file.
    File {
        /// Name of the file in its directory.
        name: &'a OsStr,
        /// Facts for the catalog.
        facts: FileFacts,
        /// Its device and inode.
        id: (u64, u64),
        /// Target of a link that was followed.
        real: Option<PathBuf>,
        /// Its owner and permissions.
        posix: Posix,
    },
    /// An entry that cannot become a blob.
    Other {
        /// Kind of entry in words, such as `a socket`.
        what: &'static str,
    },
    /// An entry that could not be read.
    Failed(io::Error),
}

/// Facts compared again when the file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// Length in bytes.
    pub len: ByteLen,
    /// Time of the last change of contents, which any owner can set.
    pub mtime: Stamp,
    /// Last status change.
    pub ctime: Stamp,
}

impl FileFacts {
    /// The facts that `stat` gives.
    pub fn of(meta: &Metadata) -> Self {
        Self {
            len: ByteLen(meta.len()),
            mtime: Stamp::from_stat(meta.mtime(), meta.mtime_nsec()),
            ctime: Stamp::from_stat(meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// Walks `base`; `visit` gets the path and the item found, and returns whether to continue.
///
/// Only one directory's entries for each level are held at a time.
pub fn walk(base: &Path, check_readable: bool, visit: &mut dyn FnMut(&Path, Walked<'_>) -> bool) {
    walk_links(base, check_readable, false, visit);
}

/// As [`walk`]; with `follow_inside`, symbolic links that lead to a place within `base` are taken for what they lead to.
pub fn walk_links(
    base: &Path,
    check_readable: bool,
    follow_inside: bool,
    visit: &mut dyn FnMut(&Path, Walked<'_>) -> bool,
) {
    let mut path = base.to_path_buf();
    // The directories that are entered, by their own paths: only where links are followed.
    let mut reals: Vec<PathBuf> = Vec::new();
    if follow_inside {
        reals.extend(fs::canonicalize(base));
    }
    let mut levels: Vec<std::vec::IntoIter<Entry>> = Vec::new();
    match entries(&path) {
        Ok(list) => levels.push(list.into_iter()),
        Err(error) => {
            visit(&path, Walked::Failed(error));
            return;
        }
    }
    while let Some(level) = levels.last_mut() {
        let Some(entry) = level.next() else {
            levels.pop();
            if !levels.is_empty() {
                reals.truncate(levels.len());
                if !visit(&path, Walked::Leave) {
                    return;
                }
                path.pop();
            }
            continue;
        };
        path.push(&entry.name);
        let kind = match entry.kind {
            EntryKind::Other(LINK) if !reals.is_empty() => followed(&path, &reals),
            kind => kind,
        };
        let go_on = match kind {
            EntryKind::Directory => match entries(&path) {
                Ok(list) => {
                    if !visit(&path, Walked::Enter { name: &entry.name }) {
                        return;
                    }
                    levels.push(list.into_iter());
                    if !reals.is_empty() {
                        reals.push(fs::canonicalize(&path).unwrap_or_else(|_| path.clone()));
                    }
                    continue;
                }
                Err(error) => visit(&path, Walked::Failed(error)),
            },
            EntryKind::File => file(&path, &entry.name, None, check_readable, visit),
            EntryKind::Link(real) => file(&path, &entry.name, Some(real), check_readable, visit),
            EntryKind::Other(what) => visit(&path, Walked::Other { what }),
        };
        if !go_on {
            return;
        }
        path.pop();
    }
}

/// Visits a file, or the file that a link leads to (`real`); returns whether to continue.
fn file(
    path: &Path,
    name: &OsStr,
    real: Option<PathBuf>,
    check_readable: bool,
    visit: &mut dyn FnMut(&Path, Walked<'_>) -> bool,
) -> bool {
    match metadata(real.as_deref().unwrap_or(path), check_readable) {
        Ok(meta) => {
            let (facts, id, posix) = (FileFacts::of(&meta), (meta.dev(), meta.ino()), posix(&meta));
            visit(path, Walked::File { name, facts, id, real, posix })
        }
        Err(error) => visit(path, Walked::Failed(error)),
    }
}

/// Owner and permissions of a file.
pub fn posix(meta: &Metadata) -> Posix {
    Posix { mode: meta.mode(), uid: meta.uid(), gid: meta.gid() }
}

/// The facts of one regular file; `check_readable` opens it to learn whether it may be read.
///
/// # Errors
/// Errors of `stat` and `open`.
pub fn file_facts(path: &Path, check_readable: bool) -> io::Result<FileFacts> {
    metadata(path, check_readable).map(|meta| FileFacts::of(&meta))
}

fn metadata(path: &Path, check_readable: bool) -> io::Result<Metadata> {
    if check_readable {
        return fs::File::open(path)?.metadata();
    }
    fs::symlink_metadata(path)
}

/// Whether this process must try to open files to know whether it may read them: any user but root.
pub fn must_check_readable() -> bool {
    fs::metadata("/proc/self").map_or(true, |meta| meta.uid() != 0)
}

struct Entry {
    name: std::ffi::OsString,
    kind: EntryKind,
}

/// An entry that leads elsewhere.
const LINK: &str = "symbolic link";

enum EntryKind {
    Directory,
    File,
    /// A link to a file, which is followed.
    Link(PathBuf),
    Other(&'static str),
}

/// Resolves a link within the source whose entered directories are `reals`, the topmost first.
fn followed(path: &Path, reals: &[PathBuf]) -> EntryKind {
    let Ok(real) = fs::canonicalize(path) else { return EntryKind::Other("symbolic link that leads nowhere") };
    if !reals.first().is_some_and(|top| real.starts_with(top)) {
        return EntryKind::Other("symbolic link that leads out of the source");
    }
    match fs::symlink_metadata(&real) {
        Ok(meta) if meta.is_dir() && reals.iter().any(|dir| dir.starts_with(&real)) => {
            EntryKind::Other("symbolic link to a directory above it")
        }
        Ok(meta) if meta.is_dir() => EntryKind::Directory,
        Ok(meta) if meta.is_file() => EntryKind::Link(real),
        _ => EntryKind::Other(LINK),
    }
}

fn entries(dir: &Path) -> io::Result<Vec<Entry>> {
    let mut list = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let kind = if kind.is_dir() {
            EntryKind::Directory
        } else if kind.is_file() {
            EntryKind::File
        } else if kind.is_symlink() {
            EntryKind::Other(LINK)
        } else if kind.is_socket() {
            EntryKind::Other("socket")
        } else if kind.is_fifo() {
            EntryKind::Other("named pipe")
        } else {
            EntryKind::Other("device")
        };
        list.push(Entry { name: entry.file_name(), kind });
    }
    list.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(list)
}

/// `path` made absolute, without trailing separators and `.`.
///
/// # Errors
/// The current directory is missing.
pub fn absolute(path: &Path) -> io::Result<PathBuf> {
    std::path::absolute(path).map(|p| p.components().collect())
}
