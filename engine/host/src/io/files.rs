//! Source files: paths, facts that reveal a change, opening and reading.

use std::ffi::{CStr, CString, OsStr};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};

/// Duration after which a shortage counts as an error: others release their resources within a moment.
pub(crate) const SHORTAGE_MAX: Duration = Duration::from_secs(5);

/// Pause between attempts during a shortage.
pub(crate) const SHORTAGE_PAUSE: Duration = Duration::from_millis(5);

/// Remedy for a shortage.
pub fn shortage_advice() -> Advice {
    Advice::from("raise the limit of open files (ulimit -n 4096) or free memory, and continue with ") + Setting::Resume
}

/// Soft limit of open files that needs no accounting: more than all drives of a session have open at once.
const DESCRIPTORS_PLENTY: u64 = 1024;

/// Descriptors kept free for everything but sources: lists, pipes, sidecars.
const DESCRIPTORS_SPARE: u64 = 24;

/// Whether an error reports a shortage in the process or the machine, and not a fault of the file.
pub fn is_shortage(error: &io::Error) -> bool {
    const SHORT: [i32; 5] = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS, libc::EAGAIN];
    error.raw_os_error().is_some_and(|errno| SHORT.contains(&errno))
}

/// Whether so few descriptors are left that no further file should be opened in parallel.
pub fn is_short_of_descriptors() -> bool {
    let Some(limit) = getrlimit(Resource::Nofile).current.filter(|limit| *limit < DESCRIPTORS_PLENTY) else {
        return false;
    };
    let open = std::fs::read_dir("/proc/self/fd").map_or(limit, |list| list.count() as u64);
    open + DESCRIPTORS_SPARE > limit
}

/// Opens, and waits a while where descriptors are short.
fn open_patiently(open: impl Fn() -> io::Result<File>) -> io::Result<File> {
    let started = Instant::now();
    loop {
        match open() {
            Err(error) if is_shortage(&error) && started.elapsed() < SHORTAGE_MAX => std::thread::sleep(SHORTAGE_PAUSE),
            result => return result,
        }
    }
}

use crate::advice::{Advice, Setting};
use crate::units::Stamp;

/// A source path in the form that the kernel accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePath(CString);

impl SourcePath {
    /// # Errors
    /// `InvalidInput` for a path with a NUL byte, which no file system holds.
    pub fn new(path: &Path) -> io::Result<Self> {
        CString::new(path.as_os_str().as_bytes())
            .map(Self)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
    }

    /// The path as it was given, without the final NUL.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(self.0.to_bytes()))
    }

    /// The path, NUL-terminated.
    pub(crate) fn as_c_str(&self) -> &CStr {
        &self.0
    }
}

/// Facts that reveal whether a file is still the same and unmodified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FileFacts {
    /// Length in bytes.
    pub len: u64,
    /// Time of the last change of contents (`st_mtime`), which any owner can set.
    pub mtime: Stamp,
    /// Time of the last change of the inode (`st_ctime`), which only the kernel sets.
    pub ctime: Stamp,
    /// File system; 0 with `ino` 0 when not known, which is then not compared.
    pub dev: u64,
    /// Inode in it.
    pub ino: u64,
}

/// Whether a directory entry is an ordinary file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Regular {
    /// An ordinary file.
    Yes,
    /// A directory, socket, device or pipe.
    No,
}

impl FileFacts {
    /// From the result of `stat`.
    pub fn from_metadata(meta: &Metadata) -> Self {
        Self {
            len: meta.len(),
            mtime: Stamp::from_stat(meta.mtime(), meta.mtime_nsec()),
            ctime: Stamp::from_stat(meta.ctime(), meta.ctime_nsec()),
            dev: meta.dev(),
            ino: meta.ino(),
        }
    }

    /// The first difference from `before`, in words; `None` when there is none.
    pub fn change_since(&self, before: &Self) -> Option<String> {
        // A catalog of millions of files does not keep which inode each was.
        let known = (before.dev, before.ino) != (0, 0);
        if known && (self.dev, self.ino) != (before.dev, before.ino) {
            return Some("is another file now".to_owned());
        }
        if self.len != before.len {
            let how = if self.len < before.len { "shorter" } else { "longer" };
            return Some(format!("became {how}: from {} to {} bytes", before.len, self.len));
        }
        if self.mtime != before.mtime {
            return Some("was modified".to_owned());
        }
        if self.ctime != before.ctime {
            return Some("was modified (its change time moved)".to_owned());
        }
        None
    }

    /// Facts of an open file, and whether it is an ordinary one.
    pub(crate) fn of(file: &File) -> io::Result<(Self, Regular)> {
        let meta = file.metadata()?;
        Ok((Self::from_metadata(&meta), if meta.is_file() { Regular::Yes } else { Regular::No }))
    }
}

/// Flags for opening a source: no symbolic link at the end of the path, no waiting for the other end of a pipe that
/// took the file's place.
pub(crate) const OPEN_FLAGS: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;

/// Alignment of direct reads in memory, offset and length: accepted by every file system and device.
const DIRECT_ALIGN: u64 = 4096;

/// A source that stays open over many fills.
///
/// Read past the page cache where the file system allows it, so that a terabyte of source does not evict everything
/// else from memory; unaligned parts (the tail) go through a second, buffered descriptor.
#[derive(Debug)]
pub struct SourceFile {
    buffered: File,
    direct: Option<File>,
    facts: FileFacts,
}

impl SourceFile {
    /// Opens an ordinary file, past the page cache if `direct` is set and possible (see [`Self::is_direct`]).
    ///
    /// # Errors
    /// Errors of `open` and `fstat`; `InvalidInput` for anything but an ordinary file (a symbolic link gives `ELOOP`).
    pub fn open(path: &Path, direct: bool) -> io::Result<Self> {
        let open = |flags| OpenOptions::new().read(true).custom_flags(OPEN_FLAGS | flags).open(path);
        let buffered = open(0)?;
        let (facts, regular) = FileFacts::of(&buffered)?;
        if regular == Regular::No {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not an ordinary file"));
        }
        let direct = if direct { open(libc::O_DIRECT).ok() } else { None };
        // The name may have come to mean another file between the two.
        let direct = direct
            .filter(|file| FileFacts::of(file).is_ok_and(|(now, _)| now.ino == facts.ino && now.dev == facts.dev));
        // A refusal shows at the first read on some file systems (fuse, overlays): ask now.
        let direct = direct.filter(probe_direct);
        Ok(Self { buffered, direct, facts })
    }

    /// Facts of the file at the time of opening.
    pub fn facts(&self) -> &FileFacts {
        &self.facts
    }

    /// Present facts of the file.
    ///
    /// # Errors
    /// The error of `fstat`.
    pub fn facts_now(&self) -> io::Result<FileFacts> {
        FileFacts::of(&self.buffered).map(|(facts, _)| facts)
    }

    /// Whether the page cache is bypassed.
    pub fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// Descriptor for a read of `len` bytes at `offset` into memory at `address`, the part of it that this descriptor
    /// can read, and the unit into which it may be cut.
    pub(crate) fn route(&self, offset: u64, address: usize, len: usize) -> Route<'_> {
        let align = DIRECT_ALIGN as usize;
        match &self.direct {
            Some(direct) if offset.is_multiple_of(DIRECT_ALIGN) && address.is_multiple_of(align) && len >= align => {
                Route { file: direct, len: len - len % align }
            }
            _ => Route { file: &self.buffered, len },
        }
    }
}

/// One read of a source file.
pub(crate) struct Route<'a> {
    pub(crate) file: &'a File,
    pub(crate) len: usize,
}

impl Route<'_> {
    pub(crate) fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// Whether a direct read works, tried on one page.
fn probe_direct(file: &File) -> bool {
    #[repr(C, align(4096))]
    struct Page([u8; 4096]);
    let mut page = Box::new(Page([0; 4096]));
    file.read_at(&mut page.0, 0).is_ok()
}

/// Opens a small file for [`super::From::Path`].
pub(crate) fn open_path(path: &SourcePath) -> io::Result<File> {
    open_patiently(|| OpenOptions::new().read(true).custom_flags(OPEN_FLAGS).open(path.as_path()))
}

/// Compares an open file with the facts in the catalog.
///
/// `Ok(None)` when nothing changed, else the change in words.
pub(crate) fn compare(file: &File, expected: &FileFacts) -> io::Result<Option<String>> {
    let (now, regular) = FileFacts::of(file)?;
    if regular == Regular::No {
        return Ok(Some("is no ordinary file any more".to_owned()));
    }
    Ok(now.change_since(expected))
}
