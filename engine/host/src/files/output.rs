//! Writes outputs named by the user: into a new file in the same directory, renamed when it is complete.
//!
//! A report must never cost a drive, a key or a journal. So only an empty file or an earlier output of the same kind is
//! overwritten; no device, pipe, socket or directory; and no file that the run reads, by whatever name it is reached.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::Which;
use crate::problem::{Kind, Problem};

/// Bytes of a file examined to recognise its kind.
const HEAD_LEN: u64 = 4096;

/// Paths of this process's descriptors: a renamed file cannot take their place.
const DESCRIPTORS: [&str; 5] = ["/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/fd", "/proc"];

/// A kind of output.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// Its name in messages, with the article: "the page".
    pub name: &'static str,
    /// Whether the first bytes of a file are those of an earlier output, which may be replaced.
    pub is_earlier: fn(&[u8]) -> bool,
    /// Readable by its owner only.
    pub private: bool,
}

/// The outputs of a run, and the files they must not replace.
#[derive(Debug, Default)]
pub struct Outputs {
    inputs: Vec<(Which, &'static str)>,
    /// Files that the run creates by other means.
    reserved: Vec<(PathBuf, &'static str)>,
    places: Vec<PathBuf>,
}

impl Outputs {
    /// Registers a file or drive that the run reads; `what` names it: "the drive".
    pub fn input(&mut self, path: &Path, what: &'static str) {
        let Ok(meta) = fs::metadata(path) else { return };
        self.inputs.push((Which::of(&meta), what));
        // The file behind a loop device is the drive too.
        if meta.file_type().is_block_device() {
            let (major, minor) = (libc::major(meta.rdev()), libc::minor(meta.rdev()));
            let backing = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/loop/backing_file"));
            let backing = backing.ok().and_then(|path| Which::at(Path::new(path.trim_end_matches('\n'))));
            self.inputs.extend(backing.map(|which| (which, what)));
        }
    }

    /// Registers a file that the run will create itself, if it does not exist yet.
    pub fn reserve(&mut self, path: &Path, what: &'static str) {
        self.reserved.extend(new_place(path).ok().map(|place| (place, what)));
    }

    /// Begins an output; every problem with its place is found now.
    ///
    /// # Errors
    /// `Refused` where an existing file must not be replaced, `Environment` where nothing can be written.
    pub fn begin(&mut self, path: &Path, form: Form) -> Result<Output, Problem> {
        let place = self.place(path, form)?;
        if self.places.contains(&place) {
            let problem = Problem::new(Kind::Usage, format!("{} would be written twice", form.name)).path(path);
            return Err(problem.advice("give each output a name of its own"));
        }
        let output = Output::begin(path, &place, form)?;
        self.places.push(place);
        Ok(output)
    }

    /// The resolved path of the output.
    fn place(&self, path: &Path, form: Form) -> Result<PathBuf, Problem> {
        let refused = |what: String| {
            let problem = Problem::new(Kind::Refused, format!("{} would be written over {what}", form.name)).path(path);
            problem.advice("name a new file; nothing was written")
        };
        if DESCRIPTORS.iter().any(|start| path.starts_with(start)) {
            return Err(refused("what is no file".into()));
        }
        let meta = match fs::metadata(path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return match fs::symlink_metadata(path) {
                    Ok(_) => Err(refused("a link that leads nowhere".into())),
                    Err(_) => {
                        let place = new_place(path).map_err(|error| unwritable(path, form, &error))?;
                        match self.reserved.iter().find(|(reserved, _)| *reserved == place) {
                            Some((_, what)) => Err(refused((*what).to_owned())),
                            None => Ok(place),
                        }
                    }
                };
            }
            Err(error) => return Err(unwritable(path, form, &error)),
        };
        if let Some((_, what)) = self.inputs.iter().find(|(which, _)| *which == Which::of(&meta)) {
            return Err(refused((*what).to_owned()));
        }
        if !meta.is_file() {
            return Err(refused(super::kind(&meta).to_owned()));
        }
        let place = fs::canonicalize(path).map_err(|error| unwritable(path, form, &error))?;
        if meta.len() > 0 {
            let mut head = Vec::new();
            let read = super::input::open(&place, super::input::Pipes::Refused)
                .and_then(|file| file.take(HEAD_LEN).read_to_end(&mut head));
            if read.is_err() || !(form.is_earlier)(&head) {
                return Err(refused("an existing file that is no earlier one".into())
                    .advice("remove it, or name a new file; nothing was written"));
            }
        }
        Ok(place)
    }
}

/// The path of a file that does not exist, in an existing directory.
fn new_place(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it names no file"))?;
    if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it names a directory"));
    }
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(fs::canonicalize(dir)?.join(name))
}

fn unwritable(path: &Path, form: Form, error: &io::Error) -> Problem {
    Problem::new(Kind::Environment, format!("{} cannot be written: {error}", form.name))
        .path(path)
        .advice("name a file in a directory that exists and can be written")
}

/// An output that is being written. Dropped before [`Output::finish`], it leaves nothing.
#[derive(Debug)]
pub struct Output {
    /// The path as given.
    path: PathBuf,
    place: PathBuf,
    /// The existing file that may be replaced.
    earlier: Option<Which>,
    new: PathBuf,
    form: Form,
    file: BufWriter<File>,
    is_done: bool,
}

impl Output {
    fn begin(path: &Path, place: &Path, form: Form) -> Result<Self, Problem> {
        let failed = |error: io::Error| unwritable(path, form, &error);
        let earlier = fs::symlink_metadata(place).ok();
        let mode = match &earlier {
            _ if form.private => 0o600,
            Some(meta) => meta.mode() & 0o777,
            None => 0o666,
        };
        let mut made = None;
        for i in 0..1000u32 {
            let new = place.with_file_name(format!(".dray-{}-{i}.new", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).mode(mode).open(&new) {
                Ok(file) => {
                    made = Some((new, file));
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed(error)),
            }
        }
        let Some((new, file)) = made else { return Err(failed(io::ErrorKind::AlreadyExists.into())) };
        let output = Self {
            path: path.to_owned(),
            place: place.to_owned(),
            earlier: earlier.as_ref().map(Which::of),
            new,
            form,
            file: BufWriter::new(file),
            is_done: false,
        };
        if earlier.is_some() {
            output.file.get_ref().set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
        }
        Ok(output)
    }

    /// Whether `path` leads to the output's place.
    pub fn is_at(&self, path: &Path) -> bool {
        let real = fs::canonicalize(path).or_else(|_| new_place(path));
        real.is_ok_and(|real| real == self.place)
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// They cannot be written; the problem names the file.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        // A buffer would keep a copy of keys.
        let written = if self.form.private { self.file.get_mut().write_all(bytes) } else { self.file.write_all(bytes) };
        written.map_err(|error| self.failed(&error))
    }

    /// Makes it durable under its name.
    ///
    /// # Errors
    /// It cannot be written, or another file has taken its place meanwhile.
    pub fn finish(mut self) -> Result<(), Problem> {
        let written = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        written.map_err(|error| self.failed(&error))?;
        let now = fs::symlink_metadata(&self.place).ok().map(|meta| Which::of(&meta));
        if now != self.earlier {
            let problem = Problem::new(Kind::Refused, format!("{} was not written", self.form.name)).path(&self.path);
            return Err(problem.value("another file has taken its place meanwhile").advice("name a new file"));
        }
        fs::rename(&self.new, &self.place).map_err(|error| self.failed(&error))?;
        self.is_done = true;
        // The name is durable where the directory can be opened; the file is there in any case.
        let _ = self.place.parent().map(|dir| File::open(dir).and_then(|dir| dir.sync_all()));
        Ok(())
    }

    fn failed(&self, error: &io::Error) -> Problem {
        unwritable(&self.path, self.form, error)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.is_done {
            let _ = fs::remove_file(&self.new);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    const FORM: Form = Form { name: "the page", is_earlier: |head| head.starts_with(b"page"), private: false };

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("dray-output-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a directory");
        dir
    }

    fn write(outputs: &mut Outputs, path: &Path) -> Result<(), Problem> {
        let mut output = outputs.begin(path, FORM)?;
        output.add(b"page 2")?;
        output.finish()
    }

    #[test]
    fn an_output_replaces_nothing_but_its_like() {
        let dir = scratch("places");
        let key = dir.join("key.xml");
        fs::write(&key, "<Key/>").expect("a key");
        fs::hard_link(&key, dir.join("linked")).expect("a hard link");
        symlink(&key, dir.join("link")).expect("a link");
        symlink(dir.join("nowhere"), dir.join("dangling")).expect("a link");
        fs::write(dir.join("notes"), "mine").expect("a file");
        let _socket = UnixListener::bind(dir.join("socket")).expect("a socket");
        assert!(std::process::Command::new("mkfifo").arg(dir.join("fifo")).status().expect("mkfifo").success());
        let mut outputs = Outputs::default();
        outputs.input(&key, "the key file");
        for (name, what) in [
            ("key.xml", "the key file"),
            ("linked", "the key file"),
            ("link", "the key file"),
            ("dangling", "nowhere"),
            ("notes", "no earlier one"),
            ("socket", "a socket"),
            ("fifo", "a named pipe"),
            (".", "a directory"),
        ] {
            let problem = write(&mut outputs, &dir.join(name)).expect_err(name);
            assert!(problem.kind == Kind::Refused && problem.what.contains(what), "{name}: {problem}");
        }
        assert!(write(&mut outputs, Path::new("/dev/null")).expect_err("a device").what.contains("a device"));
        assert!(write(&mut outputs, Path::new("/dev/stdout")).is_err());
        assert_eq!(write(&mut outputs, &dir.join("no/page")).expect_err("no directory").kind, Kind::Environment);
        assert_eq!(fs::read(&key).expect("the key"), b"<Key/>");
        assert_eq!(fs::read(dir.join("notes")).expect("the notes"), b"mine");
        assert!(
            fs::read_dir(&dir)
                .expect("entries")
                .flatten()
                .all(|entry| entry.path().extension() != Some("new".as_ref()))
        );
        let _ = fs::remove_dir_all(dir);
    }

    #[test]
    fn an_earlier_output_is_replaced_whole_and_keeps_its_mode() {
        let dir = scratch("earlier");
        let page = dir.join("page");
        fs::write(&page, "page 1, which was longer").expect("a page");
        fs::set_permissions(&page, Permissions::from_mode(0o640)).expect("a mode");
        symlink(&page, dir.join("link")).expect("a link");
        fs::write(dir.join("empty"), "").expect("a file");
        let mut outputs = Outputs::default();
        for name in ["link", "empty", "new"] {
            write(&mut outputs, &dir.join(name)).expect(name);
        }
        assert_eq!(fs::read(&page).expect("the page"), b"page 2");
        assert_eq!(fs::metadata(&page).expect("the page").mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(dir.join("link")).expect("the link").is_symlink());
        assert_eq!(fs::read(dir.join("new")).expect("a page"), b"page 2");
        // Twice in one run, by two names; or taken by another program meanwhile.
        assert_eq!(write(&mut outputs, &page).expect_err("twice").kind, Kind::Usage);
        let late = Outputs::default().begin(&dir.join("late"), FORM).expect("begun");
        fs::write(dir.join("late"), "mine").expect("a file");
        assert_eq!(late.finish().expect_err("taken").kind, Kind::Refused);
        assert_eq!(fs::read(dir.join("late")).expect("the file"), b"mine");
        // Given up: nothing stays.
        drop(Outputs::default().begin(&dir.join("never"), FORM).expect("begun"));
        assert_eq!(fs::read_dir(&dir).expect("entries").count(), 5);
        let _ = fs::remove_dir_all(dir);
    }
}
