//! Runs a program and stops it before a chosen system call: moments are chosen by the program's output and calls, never
//! by a clock, so that they are the same on every machine.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// A system call about to be made, with its thread stopped.
#[derive(Debug)]
pub struct Moment<'a> {
    /// Number of the system call, as `libc::SYS_…`.
    pub call: i64,
    /// Standard output so far.
    pub said: &'a str,
}

impl Moment<'_> {
    /// Whether the call writes to a device or file in place, or makes writes durable.
    pub fn is_write(&self) -> bool {
        [libc::SYS_pwrite64, libc::SYS_pwritev, libc::SYS_io_uring_enter, libc::SYS_fsync, libc::SYS_fdatasync]
            .contains(&self.call)
    }
}

/// End of a traced program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output and then standard error.
    pub said: String,
}

/// A program under trace, all of its threads. Only the thread that started it may use it. Dropped, it is killed.
#[derive(Debug)]
pub struct Traced {
    group: Pid,
    /// The stopped thread.
    stopped: Option<Pid>,
    out: PathBuf,
    err: PathBuf,
    said: String,
    ended: Option<Ended>,
}

impl Traced {
    /// Starts `command`, stopped before its first instruction; its output goes to `dir`.
    ///
    /// # Errors
    /// Tracing is not allowed, or the program cannot be started.
    pub fn start(command: &Command, dir: &Path) -> io::Result<Self> {
        let (out, err) = (dir.join("traced.out"), dir.join("traced.err"));
        // The shell waits until it is traced, and becomes the program then.
        let mut shell = Command::new("sh");
        shell.args(["-c", "read -r go && exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            shell.current_dir(dir);
        }
        shell.stdin(Stdio::piped()).stdout(File::create(&out)?).stderr(File::create(&err)?).process_group(0);
        let mut child = shell.spawn()?;
        let group = Pid::from_raw(child.id() as i32);
        let mut traced = Self { group, stopped: None, out, err, said: String::new(), ended: None };
        let wanted = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_EXITKILL;
        ptrace::seize(group, wanted)?;
        io::Write::write_all(child.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?, b"go\n")?;
        drop(child.stdin.take());
        // The first stop is the program that took the shell's place.
        match traced.wait()? {
            Some(WaitStatus::PtraceEvent(pid, _, _)) => traced.stopped = Some(pid),
            other => return Err(io::Error::other(format!("it did not start: {other:?}"))),
        }
        Ok(traced)
    }

    /// Runs it until a thread is about to make a call that `is` selects: `true`; or until it has ended: `false`.
    ///
    /// # Errors
    /// The kernel refuses to continue it.
    pub fn until(&mut self, mut is: impl FnMut(&Moment<'_>) -> bool) -> io::Result<bool> {
        while self.ended.is_none() {
            if let Some(pid) = self.stopped.take() {
                resume(pid, None)?;
            }
            match self.wait()? {
                Some(WaitStatus::PtraceSyscall(pid)) => {
                    let at_entry = ptrace::syscall_info(pid).is_ok_and(|i| i.op == libc::PTRACE_SYSCALL_INFO_ENTRY);
                    self.stopped = Some(pid);
                    if !at_entry {
                        continue;
                    }
                    let Some(call) = call(pid) else { continue };
                    self.listen()?;
                    if is(&Moment { call, said: &self.said }) {
                        return Ok(true);
                    }
                }
                Some(WaitStatus::PtraceEvent(pid, ..)) => self.stopped = Some(pid),
                Some(WaitStatus::Stopped(pid, signal)) => resume(pid, Some(signal))?,
                Some(WaitStatus::Exited(pid, code)) if pid == self.group => self.end(Some(code))?,
                Some(WaitStatus::Signaled(pid, ..)) if pid == self.group => self.end(None)?,
                Some(_) => {}
                None => return Err(io::Error::other("it is gone")),
            }
        }
        Ok(false)
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// As [`Self::until`].
    pub fn finish(mut self) -> io::Result<Ended> {
        self.until(|_| false)?;
        self.ended.take().ok_or_else(|| io::Error::other("it has no end"))
    }

    /// Kills it where it is stopped, as `kill -9` does, and waits until its threads are gone.
    ///
    /// # Errors
    /// As [`Self::until`].
    pub fn kill(mut self) -> io::Result<Ended> {
        if self.ended.is_none() {
            killpg(self.group, Signal::SIGKILL)?;
        }
        self.until(|_| false)?;
        self.ended.take().ok_or_else(|| io::Error::other("it has no end"))
    }

    fn wait(&self) -> io::Result<Option<WaitStatus>> {
        loop {
            match waitpid(Pid::from_raw(-self.group.as_raw()), Some(WaitPidFlag::__WALL)) {
                Ok(status) => return Ok(Some(status)),
                Err(Errno::EINTR) => {}
                Err(Errno::ECHILD) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads its output since the last call.
    fn listen(&mut self) -> io::Result<()> {
        if fs::metadata(&self.out)?.len() != self.said.len() as u64 {
            self.said = fs::read_to_string(&self.out)?;
        }
        Ok(())
    }

    fn end(&mut self, code: Option<i32>) -> io::Result<()> {
        self.listen()?;
        let said = std::mem::take(&mut self.said) + &String::from_utf8_lossy(&fs::read(&self.err)?);
        self.ended = Some(Ended { code, said });
        Ok(())
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _ = killpg(self.group, Signal::SIGKILL);
            let _ = self.until(|_| false);
        }
    }
}

/// Continues a thread to its next system call; does nothing for one that was killed meanwhile.
fn resume(pid: Pid, signal: Option<Signal>) -> io::Result<()> {
    match ptrace::syscall(pid, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Number of the call that a thread is about to make; `None` when it was killed meanwhile.
fn call(pid: Pid) -> Option<i64> {
    let registers = ptrace::getregs(pid).ok()?;
    #[cfg(target_arch = "x86_64")]
    return i64::try_from(registers.orig_rax).ok();
    #[cfg(target_arch = "aarch64")]
    return i64::try_from(registers.regs[8]).ok();
}
