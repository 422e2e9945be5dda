//! Reports progress, and what the drive waits for.

use std::time::Duration;

use super::Drive;
use crate::report::{Event, PROGRESS_INTERVAL, Problem, Waiting};
use crate::units::ByteLen;

impl<'a: 'o, 'o> Drive<'a, 'o> {
    /// The scarce resource while nothing happens: source, processor or drive.
    pub(super) fn scarce(&self) -> usize {
        let io = &self.s.io;
        if io.at_workers() > 0 && io.pool().available() == 0 && self.writing.len() < 2 {
            1
        } else if !self.writing.is_empty() || self.is_flushing() {
            2
        } else {
            0
        }
    }

    /// Reports progress when the interval has passed, and looks at a device that is slow while others keep the loop busy.
    pub(super) fn report_if_due(&mut self) -> Result<(), Problem> {
        if self.reported_at.elapsed() >= PROGRESS_INTERVAL {
            self.report(true);
            if let Some(warning) = self.s.io.look_at_age()? {
                (self.s.events)(warning);
            }
        }
        Ok(())
    }

    pub(super) fn report(&mut self, now: bool) {
        if !now && self.reported_at.elapsed() < PROGRESS_INTERVAL {
            return;
        }
        self.reported_at = std::time::Instant::now();
        let waiting_for = match self.waited.iter().enumerate().max_by_key(|&(_, d)| *d) {
            Some((_, d)) if *d < PROGRESS_INTERVAL / 10 => Waiting::Nothing,
            Some((0, _)) => Waiting::Source,
            Some((1, _)) => Waiting::Cpu,
            _ => Waiting::Drive,
        };
        self.waited = [Duration::ZERO; 3];
        (self.s.events)(Event::Progress {
            drive: self.s.index,
            acknowledged: ByteLen(self.acknowledged),
            total: self.s.content.total,
            files: self.files_down,
            waiting_for,
        });
    }
}
