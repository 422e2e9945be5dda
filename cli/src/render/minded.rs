//! Work that may wait for a device that does not answer: never in silence.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Without a sign of life for this long it gets a word, and again each time that has doubled.
const SLOW: Duration = Duration::from_secs(20);

/// Signs of life.
#[derive(Debug)]
pub struct Signs(Mutex<(Instant, Duration)>);

impl Signs {
    fn new() -> Self {
        Self(Mutex::new((Instant::now(), SLOW)))
    }

    /// Something happened.
    pub fn sign(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (Instant::now(), SLOW);
    }

    /// For how long nothing has, each time that is to be told.
    fn silence(&self) -> Option<Duration> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let quiet = state.0.elapsed();
        let due = quiet >= state.1;
        if due {
            state.1 = quiet * 2;
        }
        due.then_some(quiet)
    }
}

/// Does `work`, and tells when it shows no sign of life.
pub fn minded<T>(doing: &str, tell: impl Fn(String) + Send, work: impl FnOnce(&Signs) -> T) -> T {
    let signs = Signs::new();
    let (over, wait) = mpsc::channel::<()>();
    let signs = &signs;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while wait.recv_timeout(SLOW / 20) == Err(RecvTimeoutError::Timeout) {
                if let Some(quiet) = signs.silence() {
                    tell(format!(
                        "{doing}: nothing has happened for {} s; a drive or a source hangs or is very slow: see the \
                         kernel's messages with `dmesg`",
                        quiet.as_secs()
                    ));
                }
            }
        });
        // Goes with a panic, too.
        let _over = over;
        work(signs)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_told_at_doubling_times() {
        let signs = Signs(Mutex::new((Instant::now(), Duration::from_millis(5))));
        assert_eq!(signs.silence(), None);
        std::thread::sleep(Duration::from_millis(6));
        let quiet = signs.silence().expect("it is time");
        assert!(quiet >= Duration::from_millis(5));
        assert_eq!(signs.silence(), None, "not before it has doubled");
        std::thread::sleep(quiet * 2);
        assert!(signs.silence().is_some());
        signs.sign();
        assert_eq!(signs.silence(), None);
    }
}
