//! Setting up a ring: flags, restrictions and buffers that the kernel accepts, and the reason when it refuses.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;
use std::sync::Arc;

use io_uring::{IoUring, Submitter};
use rustix::process::{Resource, geteuid, getrlimit};

use crate::pool::{Pool, Slot};

/// Largest number of buffers that a ring registers (`IORING_MAX_REG_BUFFERS`).
const REGISTERED_MAX: usize = 1 << 14;

/// The reason why a ring cannot be set up, with the remedy.
#[derive(Debug)]
pub struct NoRing {
    pub(super) what: String,
    pub(super) source: Option<io::Error>,
}

impl fmt::Display for NoRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for NoRing {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|error| error as _)
    }
}

/// The kernel whose features are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io) enum Kernel {
    /// All features of the running kernel.
    Newest,
    /// Features of 5.10, the oldest supported; tests use it to cover that path too.
    Oldest,
}

/// A ring with the best flags that the kernel accepts, still disabled.
pub(super) fn build(entries: u32, kernel: Kernel) -> Result<IoUring, NoRing> {
    let completions = entries * 2;
    let mut first = None;
    for modern in [true, false] {
        if modern && kernel == Kernel::Oldest {
            continue;
        }
        let mut builder = IoUring::builder();
        builder.setup_r_disabled().setup_cqsize(completions).dontfork();
        if modern {
            // 6.1: completions are worked off when we wait, not by interrupting us; 5.18: a bad entry stops no others.
            builder.setup_single_issuer().setup_defer_taskrun().setup_submit_all();
        }
        match builder.build(entries) {
            Ok(ring) => return Ok(ring),
            Err(error) if modern && error.raw_os_error() == Some(libc::EINVAL) => first = Some(error),
            Err(error) => {
                first.get_or_insert_with(|| io::Error::from_raw_os_error(error.raw_os_error().unwrap_or(0)));
                return Err(explain("setting it up", error));
            }
        }
    }
    Err(explain("setting it up", first.unwrap_or_else(|| io::ErrorKind::Unsupported.into())))
}

/// Slots registered with the ring.
///
/// Registering keeps a slot's pages in memory and populates them if need be: a slot that has never been taken is left
/// alone, where the kernel allows its table to be filled later (5.19).
#[derive(Debug)]
pub(super) struct Registered {
    state: Vec<Registration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Registration {
    Done,
    Due,
    Refused,
}

impl Registered {
    /// None of `slots`.
    pub fn none(slots: usize) -> Self {
        Self { state: vec![Registration::Refused; slots] }
    }

    /// All slots of `pool`, now or when they are used first.
    pub fn new(submitter: &Submitter<'_>, pool: &Pool, kernel: Kernel) -> io::Result<Self> {
        let slots = pool.slots();
        if slots > REGISTERED_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "more slots than a ring registers"));
        }
        let later = kernel == Kernel::Newest
            && locks_freely((slots * pool.slot_len()) as u64)
            && submitter.register_buffers_sparse(slots as u32).is_ok();
        if later {
            return Ok(Self { state: vec![Registration::Due; slots] });
        }
        let vectors: Vec<_> = (0..slots).map(|index| vector(pool.address_of(index), pool.slot_len())).collect();
        // SAFETY: the slots are in the pool's mapping, which the pool held by the engine keeps until after the ring is
        // closed (or for ever, when it is leaked).
        unsafe { submitter.register_buffers(&vectors) }?;
        Ok(Self { state: vec![Registration::Done; slots] })
    }

    /// The slot's number for the ring, if it has one.
    pub fn number(&mut self, submitter: &Submitter<'_>, slot: &Slot) -> Option<u16> {
        let state = self.state.get_mut(slot.index())?;
        if *state == Registration::Due {
            let vectors = [vector(slot.address(), slot.len())];
            // SAFETY: as in `new`.
            let done = unsafe { submitter.register_buffers_update(slot.index() as u32, &vectors, None) };
            *state = if done.is_ok() { Registration::Done } else { Registration::Refused };
        }
        (*state == Registration::Done).then_some(slot.index() as u16)
    }
}

fn vector(address: *mut u8, len: usize) -> libc::iovec {
    libc::iovec { iov_base: address.cast(), iov_len: len }
}

/// Whether no limit of locked memory prevents `len` bytes. Such a limit is reported at the beginning.
fn locks_freely(len: u64) -> bool {
    let limit = getrlimit(Resource::Memlock).current;
    geteuid().is_root() || limit.is_none_or(|limit| limit >= len)
}

pub(super) fn event_fd() -> io::Result<Arc<File>> {
    // SAFETY: takes two numbers, gives a new descriptor or -1.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and ours alone.
    Ok(Arc::new(unsafe { File::from_raw_fd(fd) }))
}

/// Cause and remedy for an error of the kernel.
pub(super) fn explain(doing: &str, error: io::Error) -> NoRing {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    let what = why(doing, &error, disabled.trim());
    NoRing { what, source: Some(error) }
}

fn why(doing: &str, error: &io::Error, disabled: &str) -> String {
    match (error.raw_os_error(), disabled) {
        (Some(libc::EPERM), "2") => {
            "io_uring is switched off for everybody (remedy: sysctl kernel.io_uring_disabled=0)".to_owned()
        }
        (Some(libc::EPERM), "1") => "io_uring is switched off for ordinary users (remedy: run as root, or sysctl \
             kernel.io_uring_disabled=0)"
            .to_owned(),
        (Some(libc::EPERM | libc::EACCES), _) => {
            "io_uring is forbidden here, as the system call filter of a container does (remedy: run outside, or with a \
             seccomp profile that allows io_uring_setup, io_uring_enter and io_uring_register)"
                .to_owned()
        }
        (Some(libc::ENOSYS), _) => {
            "this kernel has no io_uring, or a container's filter hides it (remedy: Linux 5.10 or later)".to_owned()
        }
        (Some(libc::ENOMEM), _) => {
            "io_uring needs more locked memory than allowed (remedy: ulimit -l unlimited, or LimitMEMLOCK=infinity)"
                .to_owned()
        }
        (Some(libc::EMFILE | libc::ENFILE), _) => {
            "too many open files for io_uring (remedy: ulimit -n 4096)".to_owned()
        }
        (Some(libc::EINVAL), _) => {
            format!("this kernel's io_uring is too old: {doing} was refused (remedy: Linux 5.10 or later)")
        }
        _ => format!("io_uring failed at {doing}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_cause_and_remedy() {
        let reported = |errno, disabled| why("setting it up", &io::Error::from_raw_os_error(errno), disabled);
        assert!(reported(libc::EPERM, "2").contains("sysctl kernel.io_uring_disabled=0"));
        assert!(reported(libc::EPERM, "1").contains("run as root"));
        assert!(reported(libc::EPERM, "0").contains("seccomp"));
        assert!(reported(libc::EPERM, "").contains("seccomp"));
        assert!(reported(libc::ENOSYS, "").contains("5.10"));
        assert!(reported(libc::ENOMEM, "0").contains("ulimit -l"));
    }
}
