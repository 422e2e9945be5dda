//! SIGINT and SIGTERM stop, twice at once; SIGUSR1 asks for a status block.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dray_engine::job::Stop;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals as Incoming;

use crate::exit::Exit;

/// What signals have asked for, shared with the thread that receives them.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    /// The wish to stop.
    pub stop: Stop,
    /// Whether drives are being written: before that, a signal ends the program at once.
    pub writing: Arc<AtomicBool>,
    /// A status block is wanted.
    pub status: Arc<AtomicBool>,
    /// How to go on afterwards.
    advice: &'static str,
}

/// How a session goes on that was stopped.
pub const SESSION: &str = "unfinished drives hold no volume: go on with --resume, or roll back with --abort";
/// How a verification does.
pub const VERIFY: &str = "nothing was written to the drives: the same command goes on";

impl Signals {
    /// Starts listening; `advice` is told to who stops.
    ///
    /// # Errors
    /// When the kernel does not let us.
    pub fn install(advice: &'static str) -> std::io::Result<Self> {
        let mut incoming = Incoming::new([SIGINT, SIGTERM, SIGUSR1])?;
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
            say(&format!("\ndray: interrupted at once; {}", self.advice));
            std::process::exit(i32::from(Exit::Interrupted.code()));
        }
        self.stop.request();
        say(&format!("\ndray: stopping at the next safe place; once more to stop at once\ndray: {}", self.advice));
    }
}

/// A line on stderr; nobody to read it is no reason to fail.
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
