//! SIGINT and SIGTERM stop, twice at once; so does a lost terminal, once; SIGUSR1 asks for a status block.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dray_engine::api::prepare::Stop;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals as Incoming;

use crate::exit::Exit;

/// Requests made by signals, shared with the thread that receives them.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    /// Set to stop the work.
    pub stop: Stop,
    /// Whether drives are being written: before that, a signal ends the program at once.
    pub writing: Arc<AtomicBool>,
    /// Set to have a status block printed.
    pub status: Arc<AtomicBool>,
    /// Advice printed on an interruption: how to continue afterwards.
    advice: &'static str,
}

/// Advice for an interrupted session.
pub const SESSION: &str = "unfinished drives hold no volume: continue with --resume, or roll back with --abort";
/// Advice for an interrupted audit.
pub const AUDIT: &str = "nothing was written to the account: run the same command again";
/// Advice for an interrupted measurement.
pub const BENCH: &str = "drives that were written to are left without a table: measure again";
/// Advice for an interrupted verification.
pub const VERIFY: &str = "nothing was written to the drives: run the same command again";
/// Advice for an interrupted import into an account.
pub const INGEST: &str = "what arrived is kept: run the same command again, and it resumes";

/// Advice for an interrupted erasure.
pub const ERASE: &str = "what was overwritten stays so: run the same command again";

/// Advice for an image that is read or written: it continues.
pub const AGAIN: &str = "run the same command again: it continues";
/// Advice for a drive that is copied: it does not continue.
pub const ANEW: &str = "an unfinished copy holds no volume: begin again";

impl Signals {
    /// Starts listening; `advice` is printed when the program is interrupted.
    ///
    /// # Errors
    /// The kernel refuses the signal handlers.
    pub fn install(advice: &'static str) -> std::io::Result<Self> {
        let hangup = hangup_counts().then_some(SIGHUP);
        let mut incoming = Incoming::new([SIGINT, SIGTERM, SIGUSR1].into_iter().chain(hangup))?;
        let signals = Self { advice, ..Self::default() };
        let theirs = signals.clone();
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in incoming.forever() {
                theirs.received(signal);
            }
        })?;
        Ok(signals)
    }

    fn received(&self, signal: i32) {
        let writing = self.writing.load(Ordering::Acquire);
        if signal == SIGUSR1 {
            if writing {
                self.status.store(true, Ordering::Release);
            } else {
                say("dray: checking and planning; nothing is written yet");
            }
            return;
        }
        if !writing {
            say("\ndray: interrupted; nothing was written");
            std::process::exit(i32::from(Exit::Interrupted.code()));
        }
        if self.stop.requested() {
            // The kernel and the shell report a closed terminal themselves.
            if signal == SIGHUP {
                return;
            }
            say(&format!("\ndray: interrupted at once; {}", self.advice));
            std::process::exit(i32::from(Exit::Interrupted.code()));
        }
        self.stop.request();
        say(&format!("\ndray: stopping at the next safe place; once more to stop at once\ndray: {}", self.advice));
    }
}

/// Whether a lost terminal is a wish to stop: not where the program was started to outlive it (`nohup`).
pub fn hangup_counts() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    !ignores(&status, SIGHUP)
}

/// Whether the signal is ignored, by `/proc/PID/status`.
fn ignores(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 != 0)
}

/// Prints a line on stderr; errors are ignored, since stderr may be closed.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn soon(what: impl Fn() -> bool) -> bool {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(5) {
            if what() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    #[test]
    fn what_is_ignored_is_read_from_the_mask() {
        let status = "Name:\tdray\nSigBlk:\t0000000000000003\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000004002\n";
        assert!(ignores(status, SIGHUP) && !ignores(status, SIGINT) && !ignores("", SIGHUP));
    }

    #[test]
    fn signals_ask_for_status_and_then_to_stop() {
        let signals = Signals::install(SESSION).expect("signals");
        signals.writing.store(true, Ordering::Release);
        signal_hook::low_level::raise(SIGUSR1).expect("raised");
        assert!(soon(|| signals.status.load(Ordering::Acquire)));
        assert!(!signals.stop.requested());
        signal_hook::low_level::raise(SIGTERM).expect("raised");
        assert!(soon(|| signals.stop.requested()));
    }
}
