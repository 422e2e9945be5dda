//! Time limits of a device's operations, and errors that have causes outside the device.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::device;
use crate::report::{Advice, Kind, Problem, Setting};

/// Two limits, counted from the submission of an operation to the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Age at which a slow operation is reported, and again each time it has doubled.
    pub slow: Duration,
    /// Age at which the drive has failed. The kernel's own time-outs, resets and repetitions take some minutes.
    pub hung: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { slow: Duration::from_secs(20), hung: Duration::from_secs(15 * 60) }
    }
}

impl Timeouts {
    /// The failure of a drive that held an operation for `age`.
    pub fn timed_out(age: Duration) -> Problem {
        Problem::new(Kind::Drive, format!("does not answer: an operation has been waiting for {} s", age.as_secs()))
            .advice("check cable, power and dock, and the kernel's messages with `dmesg`")
    }
}

/// Watches the oldest operation of a device: reports it when it is slow, and gives the device up when it hangs.
#[derive(Debug)]
pub struct SlowWatch {
    timeouts: Timeouts,
    /// Age at which the next report is due.
    report_at: Duration,
}

impl SlowWatch {
    /// Nothing has been slow yet.
    pub const fn new(timeouts: Timeouts) -> Self {
        Self { timeouts, report_at: timeouts.slow }
    }

    /// Looks at the age of the oldest operation; the warning, where one is due.
    ///
    /// # Errors
    /// The age, when the device is given up. After a stop request a device that may never answer is not waited for.
    pub fn look(&mut self, oldest: Duration, is_stopping: bool) -> Result<Option<String>, Duration> {
        if oldest < self.timeouts.slow {
            self.report_at = self.timeouts.slow;
            return Ok(None);
        }
        if oldest >= self.timeouts.hung || is_stopping {
            return Err(oldest);
        }
        if oldest < self.report_at {
            return Ok(None);
        }
        self.report_at = oldest * 2;
        Ok(Some(format!(
            "an operation has been waiting for {} s; the drive or a source hangs or is very slow, and is given up after \
             {} s",
            oldest.as_secs(),
            self.timeouts.hung.as_secs()
        )))
    }
}

/// The problem for errors of an unplugged drive at `node`: its size becomes zero, so that a write is past the end,
/// which the kernel reports as ENOSPC. `None` for any other error, and without a node: for an image file ENOSPC means a
/// full file system.
pub fn pulled(error: &io::Error, node: Option<&Path>) -> Option<Problem> {
    let gone = matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO));
    // A device that still has its size is thin-provisioned storage that is full.
    let lost = || node.is_some_and(device::is_gone);
    let past_the_end = error.raw_os_error() == Some(libc::ENOSPC) && lost();
    // Operations in flight when it is unplugged, above all a flush, end with this error too.
    let fails = error.raw_os_error() == Some(libc::EIO);
    let is_going = || node.is_some_and(device::is_going);
    (gone || past_the_end || fails && is_going())
        .then(|| Problem::new(Kind::Drive, format!("the drive went away while it was written ({error})")))
}

/// The problem for an existing device without room for the data: a thin-provisioned LUN with a full pool, a loop device
/// or an image on a full file system. `None` for any other error. Unplugging is ruled out before.
pub fn no_room(error: &io::Error) -> Option<Problem> {
    let is_full = matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT));
    is_full.then(|| {
        Problem::new(Kind::Drive, format!("no room is left beneath the drive ({error})")).advice(Advice::from("a thin-provisioned device, a loop device or an image file takes its room elsewhere: make room in its pool or on its file system, then continue with ") + Setting::Resume)
    })
}
