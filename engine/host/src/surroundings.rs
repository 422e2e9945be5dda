//! The clock and the kernel's random source. No other module reads either; they are passed as arguments.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::entropy::Entropy;
use crate::units::FileTime;

/// Inputs of a session from outside: randomness and time. With fixed ones the same session gives the same drive.
pub struct Surroundings {
    /// Source of keys and identifiers.
    pub entropy: Box<dyn Entropy + Send>,
    /// The time of formatting.
    pub now: FileTime,
}

impl Surroundings {
    /// The kernel's randomness, the system's clock.
    pub fn real() -> Self {
        Self { entropy: Box::new(Kernel), now: now() }
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").field("now", &self.now).finish_non_exhaustive()
    }
}

/// The kernel's random source.
#[derive(Debug)]
struct Kernel;

impl Entropy for Kernel {
    fn fill(&mut self, out: &mut [u8]) {
        // Without randomness there are no keys: going on would be worse than stopping.
        getrandom::fill(out).expect("the kernel gives random bytes");
    }
}

/// The present time for people and names of files: a clock beyond the year 9999 or before 1970 gives the bound.
pub fn timestamp() -> jiff::Timestamp {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => jiff::Timestamp::from_nanosecond(since.as_nanos() as i128).unwrap_or(jiff::Timestamp::MAX),
        Err(_) => jiff::Timestamp::UNIX_EPOCH,
    }
}

/// The present time.
pub fn now() -> FileTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    FileTime::from_unix(since.as_secs() as i64, since.subsec_nanos())
}
