//! How long a device may keep an operation, and what it may say that is no fault of its own.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::device;
use crate::io::Engine;
use crate::report::{Kind, Problem};

/// Two times, counted from when the kernel was given an operation.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// After this it gets a word, and again each time it has doubled.
    pub slow: Duration,
    /// After this the drive has failed. The kernel's own time-outs, resets and repetitions take some minutes.
    pub hung: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { slow: Duration::from_secs(20), hung: Duration::from_secs(15 * 60) }
    }
}

impl Timeouts {
    /// How often those who only wait for a device look whether it still answers.
    pub const POLL_INTERVAL: Duration = Duration::from_secs(1);

    /// # Errors
    /// When the device has had its oldest operation for too long.
    pub fn check(self, engine: &(impl Engine + ?Sized)) -> Result<(), Problem> {
        match engine.oldest().filter(|age| *age >= self.hung) {
            Some(age) => Err(Self::timed_out(age)),
            None => Ok(()),
        }
    }

    /// The failure of a drive that kept an operation for so long.
    pub fn timed_out(age: Duration) -> Problem {
        Problem::new(Kind::Drive, format!("does not answer: an operation has been waiting for {} s", age.as_secs()))
            .advice("check cable, power and dock, and the kernel's messages with `dmesg`")
    }
}

/// What a drive at `node` says that was pulled: its size becomes zero, so that a write lies past the end, and the kernel calls
/// that no space. `None` for any other error, and where there is no node: an image file without room says just that.
pub fn pulled(error: &io::Error, node: Option<&Path>) -> Option<Problem> {
    let gone = matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO));
    // A device that is there and has its size is one without room beneath it.
    let lost = || node.is_some_and(device::is_gone);
    let past_the_end = error.raw_os_error() == Some(libc::ENOSPC) && lost();
    // What is in flight when it is pulled, and a flush above all, ends like that too.
    let fails = error.raw_os_error() == Some(libc::EIO);
    let is_going = || node.is_some_and(device::is_going);
    (gone || past_the_end || fails && is_going())
        .then(|| Problem::new(Kind::Drive, format!("the drive went away while it was written ({error})")))
}

/// What a device says that is there and has its size, but nothing to keep the bytes in: a thin-provisioned LUN whose pool is
/// full, a loop device or an image whose file system is. `None` for any other error. Whether it was pulled is asked before.
pub fn no_room(error: &io::Error) -> Option<Problem> {
    let is_full = matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT));
    is_full.then(|| {
        Problem::new(Kind::Drive, format!("no room is left beneath the drive ({error})")).advice(
            "a thin-provisioned device, a loop device or an image file takes its room elsewhere: make room in its pool or on \
             its file system, then continue with --resume",
        )
    })
}
