//! Access to the files of a volume: a list of all, and the data of one.

use std::io::{self, Read};

use crate::ntfs::read::{
    BackupBoot, Catalog, FileId, FileInfo, LogState, NameId, NtfsError, Stream, Volume, display_name,
};
use crate::report::{Advice, Command, Kind, Problem};
use crate::units::FileTime;
use crate::volume::find::{Opened, View};

/// Bytes of one read of [`FileReader`].
const READ_LEN: usize = 1 << 20;

/// Damaged places named in a warning.
const SHOWN_MAX: usize = 3;

/// The file system of a volume with all its files.
#[derive(Debug)]
pub struct Files<'a> {
    opened: &'a Opened,
    /// The file system.
    pub volume: Volume,
    /// Every file of the volume.
    pub catalog: Catalog,
}

/// A listed file or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Path from the root, with `/` between its parts.
    pub path: String,
    /// Whether it is a directory.
    pub directory: bool,
    /// Bytes of its data.
    pub size: u64,
    /// Time of last modification of the data.
    pub modified: FileTime,
    /// Special properties: compressed, sparse, encrypted, a link, damaged.
    pub notes: Vec<&'static str>,
}

/// Opens the file system, without reading its files.
///
/// # Errors
/// It is not NTFS, or damaged beyond use.
pub fn ntfs(opened: &Opened) -> Result<Volume, Problem> {
    Volume::open(&mut View(opened), opened.len()).map_err(|error| problem(opened, &error))
}

/// Warnings about an NTFS volume, in sentences without full stop.
pub fn warnings(volume: &Volume) -> Vec<String> {
    let facts = volume.facts();
    let mut warnings = Vec::new();
    let mut say = |is: bool, what: &str| {
        if is {
            warnings.push(what.to_owned());
        }
    };
    say(facts.is_dirty(), "the NTFS volume is marked dirty (not cleanly removed); it is read as it lies, and left so");
    let log = matches!(facts.log, LogState::Dirty);
    say(
        log,
        "the NTFS journal holds changes that were not finished; they are not replayed, the volume is read as it lies",
    );
    say(facts.hibernated, "a hibernated Windows holds newer contents of this volume in its memory");
    say(facts.truncated, "the NTFS volume is longer than its partition: its end cannot be read");
    say(facts.mft_from_mirror, "the first record of $MFT is damaged; its mirror is used");
    match facts.backup_boot {
        BackupBoot::Equal => {}
        BackupBoot::InUse => say(true, "the NTFS boot sector is damaged; its copy at the end of the volume is used"),
        BackupBoot::Different => say(true, "the copy of the NTFS boot sector differs from the boot sector"),
        BackupBoot::Missing => say(true, "the copy of the NTFS boot sector at the end of the volume is missing"),
    }
    warnings.extend(facts.damage.iter().map(ToString::to_string));
    warnings
}

/// An NTFS error with the name of its drive.
pub(crate) fn problem(opened: &Opened, error: &NtfsError) -> Problem {
    Problem::new(Kind::Drive, error.to_string()).drive(&opened.found.drive.name)
}

impl<'a> Files<'a> {
    /// Reads the whole `$MFT`, from end to end, and every directory.
    ///
    /// # Errors
    /// As [`ntfs`]; or more files than can be held.
    pub fn read(opened: &'a Opened) -> Result<Self, Problem> {
        let volume = ntfs(opened)?;
        let catalog = volume.catalog(&mut View(opened)).map_err(|error| problem(opened, &error))?;
        Ok(Self { opened, volume, catalog })
    }

    /// Warnings about the file system, in sentences without full stop.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = warnings(&self.volume);
        match self.catalog.problem_count() {
            0 => {}
            total => {
                let first: Vec<String> =
                    self.catalog.problems().iter().take(SHOWN_MAX).map(ToString::to_string).collect();
                let more = if total > SHOWN_MAX as u64 { "; …" } else { "" };
                let what = if total == 1 { "1 damaged place".to_owned() } else { format!("{total} damaged places") };
                warnings.push(format!("{what} in the file system: {}{more}", first.join("; ")));
            }
        }
        warnings
    }

    /// The file at a path, with `\` or `/` between its parts.
    ///
    /// # Errors
    /// No such file.
    pub fn find(&self, path: &str) -> Result<FileId, Problem> {
        self.catalog.lookup(&self.volume, path).ok_or_else(|| {
            Problem::new(Kind::Usage, "no such file on the volume")
                .drive(&self.opened.found.drive.name)
                .value(path)
                .advice(Advice::from("list the volume with ") + Command::Ls)
        })
    }

    /// Lists a directory; with `deep` everything below it. A file lists itself. Depth first, in the volume's own order.
    pub fn list(&self, start: FileId, deep: bool, see: &mut dyn FnMut(Listed)) {
        let info = self.catalog.info(start);
        if !info.directory {
            if let Some(name) = self.catalog.reached_by(start) {
                see(self.listed(name, info));
            }
            return;
        }
        let mut pending = vec![start];
        // A directory that can be reached twice is damage, and is entered once.
        let mut entered = std::collections::HashSet::from([start]);
        while let Some(directory) = pending.pop() {
            let mut below = Vec::new();
            for name in self.catalog.children(directory) {
                let file = self.catalog.file_of(name);
                if self.catalog.is_metafile(file) {
                    continue;
                }
                let info = self.catalog.info(file);
                see(self.listed(name, info));
                if deep && info.directory && entered.insert(file) {
                    below.push(file);
                }
            }
            pending.extend(below.into_iter().rev());
        }
    }

    fn listed(&self, name: NameId, info: FileInfo) -> Listed {
        let path = self.catalog.path(name);
        let path = path.map_or_else(|| display_name(self.catalog.name(name)), |path| display_name(&path));
        let path = path.trim_start_matches('\\').replace('\\', "/");
        let notes = [
            (info.compressed, "compressed"),
            (info.sparse, "sparse"),
            (info.special.is_some(), "special"),
            (info.streams > 0, "has named streams"),
            (info.links > 1, "hard links"),
            (info.damaged, "damaged"),
        ];
        let notes = notes.into_iter().filter(|(is, _)| *is).map(|(_, word)| word).collect();
        Listed { path, directory: info.directory, size: info.size, modified: info.times.modified, notes }
    }

    /// A file's data, from its first byte.
    ///
    /// # Errors
    /// A directory; data that is encrypted by EFS or kept elsewhere by other software.
    pub fn open(&self, file: FileId) -> Result<FileReader<'_>, Problem> {
        if self.catalog.info(file).directory {
            return Err(Problem::new(Kind::Usage, "is a directory").drive(&self.opened.found.drive.name));
        }
        let stream = self.catalog.open(&self.volume, &mut View(self.opened), file);
        let stream = stream.map_err(|error| problem(self.opened, &error))?;
        Ok(FileReader::of(self.opened, &self.volume, stream))
    }
}

/// Reads a file's data from end to end.
#[derive(Debug)]
pub struct FileReader<'a> {
    opened: &'a Opened,
    volume: &'a Volume,
    stream: Stream,
    at: u64,
    buffer: Vec<u8>,
    used: usize,
}

impl<'a> FileReader<'a> {
    /// A reader of a stream found by other means.
    pub fn of(opened: &'a Opened, volume: &'a Volume, stream: Stream) -> Self {
        Self { opened, volume, stream, at: 0, buffer: Vec::new(), used: 0 }
    }

    /// Bytes of the data.
    pub fn size(&self) -> u64 {
        self.stream.size()
    }

    /// Fills `into` with the data from byte `at` on.
    ///
    /// # Errors
    /// The drive fails; [`io::ErrorKind::UnexpectedEof`] if the data end before.
    pub fn read_exact_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        if at.checked_add(into.len() as u64).is_none_or(|end| end > self.stream.size()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_range(at, into).map_err(|error| io::Error::other(error.to_string()))
    }

    /// Reads a range, which must be inside the data.
    pub(crate) fn read_range(&self, at: u64, into: &mut [u8]) -> Result<(), NtfsError> {
        let got = self.volume.read_range(&mut View(self.opened), &self.stream, at, into)?;
        into[got..].fill(0);
        Ok(())
    }
}

impl Read for FileReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.used == self.buffer.len() {
            let len = (self.stream.size() - self.at).min(READ_LEN as u64) as usize;
            if len == 0 {
                return Ok(0);
            }
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.resize(len, 0);
            self.read_range(self.at, &mut buffer).map_err(|error| io::Error::other(error.to_string()))?;
            (self.buffer, self.used) = (buffer, 0);
            self.at += len as u64;
        }
        let len = out.len().min(self.buffer.len() - self.used);
        out[..len].copy_from_slice(&self.buffer[self.used..self.used + len]);
        self.used += len;
        Ok(len)
    }
}
