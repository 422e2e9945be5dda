//! Number of requests in flight: it grows while more of them carry more, by measured time.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Requests at the beginning.
const FIRST: usize = 4;
/// Shortest time that a number of requests is tried for.
const WINDOW: Duration = Duration::from_millis(400);
/// Bytes that a request costs however short it is: what a line carries in the time of one.
const REQUEST_COST: u64 = 64 << 10;
/// More is better when it carries so much more.
const GAIN: f64 = 1.05;
/// And worse when it carries so much less.
const LOSS: f64 = 0.9;

/// Requests that may be in flight, of all drives of a run: they share the line.
#[derive(Debug)]
pub struct Flow {
    state: Mutex<Window>,
    ready: Condvar,
    limit_max: usize,
}

#[derive(Debug)]
struct Window {
    limit: usize,
    running: usize,
    began: Instant,
    carried: u64,
    requests: usize,
    /// All that may run did so at some moment: only then does the limit limit.
    was_full: bool,
    /// Bytes a second of the window before.
    rate: f64,
}

impl Flow {
    /// At most `limit_max` requests, from `now` on.
    pub fn new(limit_max: usize, now: Instant) -> Self {
        let limit = FIRST.min(limit_max).max(1);
        let window = Window { limit, running: 0, began: now, carried: 0, requests: 0, was_full: false, rate: 0.0 };
        Self { state: Mutex::new(window), ready: Condvar::new(), limit_max: limit_max.max(1) }
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a request of `len` bytes once there is room for it.
    pub fn run<T>(&self, len: u64, request: impl FnOnce() -> T) -> T {
        let mut window = self.window();
        while window.running >= window.limit {
            window = self.ready.wait(window).unwrap_or_else(PoisonError::into_inner);
        }
        window.running += 1;
        window.was_full |= window.running >= window.limit;
        drop(window);
        let out = request();
        let mut window = self.window();
        let limit = window.limit;
        window.running -= 1;
        window.finished(len, Instant::now(), self.limit_max);
        let has_grown = window.limit > limit;
        drop(window);
        // One place, one thread: waking all that wait cost more than the requests.
        if has_grown {
            self.ready.notify_all();
        } else {
            self.ready.notify_one();
        }
        out
    }
}

impl Window {
    /// Counts a finished request; at the end of a window, decides on the limit.
    fn finished(&mut self, len: u64, now: Instant, limit_max: usize) {
        self.carried += len + REQUEST_COST;
        self.requests += 1;
        let elapsed = now.saturating_duration_since(self.began);
        if elapsed < WINDOW || self.requests < 2 * self.limit {
            return;
        }
        let rate = self.carried as f64 / elapsed.as_secs_f64();
        if self.was_full {
            if rate > self.rate * GAIN {
                self.limit = (self.limit + self.limit.div_ceil(2)).min(limit_max);
            } else if rate < self.rate * LOSS {
                self.limit = (self.limit * 3 / 4).max(1);
            }
        }
        (self.rate, self.began, self.carried, self.requests, self.was_full) = (rate, now, 0, 0, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The limit that it comes to where `line` carries so many bytes a second by the number of requests.
    fn settled(line: impl Fn(usize) -> f64, limit_max: usize) -> usize {
        let mut now = Instant::now();
        let flow = Flow::new(limit_max, now);
        let mut window = flow.state.into_inner().expect("not poisoned");
        let each = 4 << 20;
        for _ in 0..60 {
            let requests = 2 * window.limit;
            let began = now;
            now += Duration::from_secs_f64((requests as u64 * each) as f64 / line(window.limit));
            for at in 1..=requests {
                window.was_full = true;
                let at = if at == requests { now } else { began };
                window.finished(each, at, limit_max);
            }
        }
        window.limit
    }

    #[test]
    fn it_grows_as_long_as_more_requests_carry_more() {
        let far = settled(|requests| 1e6 * requests.min(40) as f64, 64);
        assert!((32..=64).contains(&far), "{far}");
        assert_eq!(settled(|requests| 1e6 * requests as f64, 64), 64);
        // A slow line is full with the first ones.
        let slow = settled(|_| 1e6, 64);
        assert!(slow <= 9, "{slow}");
    }

    #[test]
    fn no_more_run_than_may() {
        let flow = Flow::new(2, Instant::now());
        let running = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    flow.run(1, || {
                        let now = running.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        assert!(now < 2);
                        std::thread::sleep(Duration::from_millis(5));
                        running.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    });
                });
            }
        });
    }
}
