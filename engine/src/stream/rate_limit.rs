//! Rate limit for reading sources: one allowance for all drives of a session, since they share the file server.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Amount that may be read at once after a pause, as a time: too short to be noticed, long enough to cover a late
/// wake-up.
const BURST: Duration = Duration::from_millis(200);

/// A limit in bytes a second, shared.
#[derive(Debug)]
pub struct RateLimit {
    rate: Option<u64>,
    /// Time at which everything taken so far has been earned.
    earned: Mutex<Instant>,
}

impl RateLimit {
    /// `rate` bytes a second from `now` on; `None` for no limit.
    pub fn new(rate: Option<u64>, now: Instant) -> Self {
        Self { rate: rate.filter(|rate| *rate > 0), earned: Mutex::new(now) }
    }

    /// Takes `len` bytes, or returns the time to wait before the next attempt.
    ///
    /// # Errors
    /// The time to wait; nothing was taken.
    pub fn take(&self, len: u64, now: Instant) -> Result<(), Duration> {
        let Some(rate) = self.rate else { return Ok(()) };
        let mut earned = self.earned.lock().unwrap_or_else(PoisonError::into_inner);
        // Allowance not used in time is lost.
        let from = (*earned).max(now);
        if from > now + BURST {
            return Err(from - now - BURST);
        }
        *earned = from + Duration::from_secs_f64(len as f64 / rate as f64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that two readers get in `seconds`, trying as often as they may.
    fn read(rate_limit: &RateLimit, start: Instant, seconds: f64, len: u64) -> u64 {
        let mut at = [Duration::ZERO; 2];
        let mut bytes = 0;
        while let Some(at) = at.iter_mut().min().filter(|at| at.as_secs_f64() < seconds) {
            match rate_limit.take(len, start + *at) {
                Ok(()) => bytes += len,
                Err(wait) => *at += wait.max(Duration::from_micros(1)),
            }
        }
        bytes
    }

    #[test]
    fn all_drives_together_read_no_faster_than_was_asked() {
        let start = Instant::now();
        for len in [4096, 1 << 20, 4 << 20] {
            let bytes = read(&RateLimit::new(Some(50_000_000), start), start, 10.0, len);
            // The burst, and one read of each that had begun.
            let most = 500_000_000 + 10_000_000 + 2 * len;
            assert!((495_000_000..=most).contains(&bytes), "{len}: {bytes}");
        }
    }

    #[test]
    fn a_rest_is_not_saved_up_and_no_limit_is_none() {
        let start = Instant::now();
        let rate_limit = RateLimit::new(Some(1_000_000), start);
        let later = start + Duration::from_secs(3600);
        let bytes = read(&rate_limit, later, 1.0, 10_000);
        assert!((1_000_000..=1_300_000).contains(&bytes), "{bytes}");
        let free = RateLimit::new(None, start);
        assert!((0..1000).all(|_| free.take(u64::MAX, start).is_ok()));
    }
}
