//! Reads inputs named by the user: with a length limit, and with a time-out for pipes.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use zeroize::Zeroizing;

/// Longest silence of a pipe before its first byte and between two: its writer is running already.
const SILENCE_MAX: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// Bytes of one read.
const STEP: usize = 64 << 10;

/// Whether a pipe is acceptable, such as a shell's `<(command)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pipes {
    /// A pipe is read to its end.
    Taken,
    /// The file is read more than once, or kept open.
    Refused,
}

/// Opens a regular file for reading, or a pipe where those are accepted; anything else is refused without waiting for
/// it.
///
/// # Errors
/// Errors of `open`, and `InvalidInput` naming the kind of file.
pub fn open(path: &Path, pipes: Pipes) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let meta = file.metadata()?;
    let is_pipe = meta.file_type().is_fifo() && pipes == Pipes::Taken;
    if !meta.is_file() && !is_pipe {
        let what = format!("is {}, not a regular file", super::kind(&meta));
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    fcntl_setfl(&file, OFlags::empty())?;
    Ok(file)
}

/// Reads a file of at most `len_max` bytes; the bytes are wiped on drop, since drivesets and records hold keys.
///
/// # Errors
/// As [`open`]; `FileTooLarge` for a longer one, whatever length `stat` reports; `TimedOut` for a pipe that stays
/// silent.
pub fn read(path: &Path, len_max: u64, pipes: Pipes) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut file = open(path, pipes)?;
    let meta = file.metadata()?;
    let is_pipe = !meta.is_file();
    let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {len_max} bytes"));
    if meta.len() > len_max {
        return Err(too_large());
    }
    // Room for all at once: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(meta.len() as usize + STEP));
    let mut step = Zeroizing::new(vec![0; STEP]);
    loop {
        if is_pipe {
            wait(&file)?;
        }
        match file.read(&mut step) {
            Ok(0) => return Ok(bytes),
            Ok(n) if (bytes.len() + n) as u64 > len_max => return Err(too_large()),
            Ok(n) => {
                if bytes.capacity() - bytes.len() < n {
                    let mut larger = Zeroizing::new(Vec::with_capacity(2 * bytes.capacity()));
                    larger.extend_from_slice(&bytes);
                    bytes = larger;
                }
                bytes.extend_from_slice(&step[..n]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Waits for a pipe's next bytes or its end.
fn wait(file: &File) -> io::Result<()> {
    loop {
        match poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&SILENCE_MAX)) {
            Ok(0) => {
                let what = format!("is a pipe that has been empty for {} s", SILENCE_MAX.tv_sec);
                return Err(io::Error::new(io::ErrorKind::TimedOut, what));
            }
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;
    use std::path::PathBuf;
    use std::time::{Duration, Instant};

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("dray-input-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a directory");
        dir
    }

    #[test]
    fn what_has_no_end_and_what_is_no_file_is_refused() {
        let dir = scratch("kinds");
        let small = dir.join("small");
        fs::write(&small, "0123456789").expect("a file");
        assert_eq!(&**read(&small, 10, Pipes::Refused).expect("ten bytes"), b"0123456789");
        assert_eq!(read(&small, 9, Pipes::Refused).expect_err("too long").kind(), io::ErrorKind::FileTooLarge);
        for (path, what) in [("/dev/zero", "a device"), ("/", "a directory")] {
            let error = read(Path::new(path), 1 << 20, Pipes::Taken).expect_err(path);
            assert!(error.to_string().contains(what), "{path}: {error}");
        }
        // `stat` reports 0 bytes.
        assert!(!read(Path::new("/proc/self/status"), 1 << 20, Pipes::Refused).expect("text").is_empty());
        assert!(read(Path::new("/proc/self/status"), 10, Pipes::Refused).is_err());
        let fifo = dir.join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
        let started = Instant::now();
        let error = read(&fifo, 10, Pipes::Refused).expect_err("a pipe");
        assert!(error.to_string().contains("a named pipe") && started.elapsed() < Duration::from_secs(5), "{error}");
        let _ = fs::remove_dir_all(dir);
    }

    #[test]
    fn a_pipe_gives_what_its_writer_writes_later() {
        let dir = scratch("pipe");
        let fifo = dir.join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
        let text = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(100));
                let mut pipe = OpenOptions::new().write(true).open(&fifo).expect("the pipe");
                for _ in 0..3 {
                    pipe.write_all(&[b'x'; 50_000]).expect("written");
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
            read(&fifo, 1 << 20, Pipes::Taken).expect("its text")
        });
        assert_eq!(text.len(), 150_000);
        let _ = fs::remove_dir_all(dir);
    }
}
