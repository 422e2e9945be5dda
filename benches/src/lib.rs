//! Shared by the benchmarks: the clock, the worker's pass, and the peers. The benchmarks are in `benches/`.

pub mod peers;

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use dray_base::units::VolumeOffset;
use dray_crypt::SectorCipher;
use dray_hash::{self as hash, Crc64, Md5Chain};
use nix::time::{ClockId, clock_gettime};

/// Bytes of a slot.
pub const SLOT: usize = 4 << 20;

/// Processor time: what is measured never waits, and a busy machine must not count.
#[derive(Clone, Copy, Debug)]
pub enum CpuTime {
    /// Of this thread.
    Thread,
    /// Of the process, with what the kernel's workers do for it.
    Process,
}

impl CpuTime {
    fn now(self) -> Duration {
        let clock = match self {
            Self::Thread => ClockId::CLOCK_THREAD_CPUTIME_ID,
            Self::Process => ClockId::CLOCK_PROCESS_CPUTIME_ID,
        };
        clock_gettime(clock).expect("Linux has it").into()
    }
}

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        self.now()
    }

    fn end(&self, start: Duration) -> Duration {
        self.now() - start
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

/// Hashes, sums and seals slots of equal length, a piece of each at a time, while it is in the cache: a worker's pass.
pub fn in_pieces(slots: &mut [&mut [u8]], piece: usize, cipher: &SectorCipher) {
    let mut chains = vec![Md5Chain::new(); slots.len()];
    let mut sums = vec![Crc64::new(); slots.len()];
    let len = slots.first().map_or(0, |slot| slot.len());
    for from in (0..len).step_by(piece) {
        let pieces = slots.iter().map(|slot| &slot[from..from + piece]);
        hash::advance_many(&mut chains.iter_mut().zip(pieces).collect::<Vec<_>>());
        for (slot, sum) in slots.iter_mut().zip(&mut sums) {
            let piece = &mut slot[from..from + piece];
            sum.update(piece);
            cipher.seal(VolumeOffset((1 << 40) + from as u64), piece);
        }
    }
    for (chain, sum) in chains.into_iter().zip(sums) {
        black_box((chain.finish(), sum.value()));
    }
}
