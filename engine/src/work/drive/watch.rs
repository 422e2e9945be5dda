//! Waits for operations under way, and reports progress.

use std::time::{Duration, Instant};

use super::Drive;
use super::errors::phase_name;
use crate::io::{self, Completion};
use crate::report::{Event, Notice, PROGRESS_INTERVAL, Problem, Waiting};
use crate::units::ByteLen;

impl<'a: 'o, 'o> Drive<'a, 'o> {
    pub(super) fn wait(&mut self) -> Result<(), Problem> {
        while let Ok(done) = self.replies.1.try_recv() {
            self.digested(done)?;
        }
        self.write_ready();
        if self.reported_at.elapsed() >= PROGRESS_INTERVAL {
            self.report(true);
            self.mind_the_slow()?;
        }
        if self.is_idle() && !self.flushing && self.pause.is_none() {
            return Ok(());
        }
        let since = Instant::now();
        let completion =
            self.s.engine.wait(Some(self.pause.map_or(PROGRESS_INTERVAL, |pause| pause.min(PROGRESS_INTERVAL))));
        let waited = since.elapsed();
        // The scarce resource while nothing happened.
        let scarce = if self.s.batcher.away() > 0 && self.s.pool.available() == 0 && self.writing.len() < 2 {
            1
        } else if !self.writing.is_empty() || self.flushing {
            2
        } else {
            0
        };
        self.waited[scarce] += waited;
        match completion {
            Completion::Filled { tag, slot, results } => self.filled(tag, slot, results)?,
            Completion::Written { tag, slot, result } => {
                if let Err(error) = result {
                    let what = self.writing.get(&tag).map_or("batch", |w| phase_name(w.phase));
                    return Err(self.write_failed(&error, what));
                }
                if let Some(writing) = self.writing.remove(&tag) {
                    self.write_piece(tag, slot, writing);
                }
            }
            Completion::Flushed { tag, result } => {
                self.flushing = false;
                match result {
                    Ok(()) => {
                        self.flushed_issued = self.flushed_issued.max(tag);
                        self.checkpoint()?;
                    }
                    Err(error) => return Err(self.flush_failed(&error)),
                }
            }
            Completion::Broken(error) => return Err(self.broken(&error)),
            Completion::Woken => {}
            Completion::TimedOut => self.mind_the_slow()?,
        }
        Ok(())
    }

    pub(super) fn report(&mut self, now: bool) {
        if !now && self.reported_at.elapsed() < PROGRESS_INTERVAL {
            return;
        }
        self.reported_at = Instant::now();
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

    /// Reports the age of the oldest operation, and gives up a device that does not answer at all.
    pub(super) fn mind_the_slow(&mut self) -> Result<(), Problem> {
        let oldest = self.s.engine.oldest().unwrap_or_default();
        let look = self.slow.look(&self.s.name, oldest, self.s.stop.requested());
        if let Some(warning) = look.map_err(|age| self.hung(age))? {
            (self.s.events)(warning);
        }
        Ok(())
    }

    /// Waits for operations under way, so that the slots live as long as the kernel uses them.
    pub(super) fn drain(&mut self) {
        let timeouts = io::DRAIN_MAX.min(self.s.timeouts.hung);
        let began = Instant::now();
        while self.s.engine.in_flight() > 0 && began.elapsed() < timeouts {
            // A device that does not answer gets the engine's own patience and no more.
            if self.s.engine.oldest().is_some_and(|age| age >= self.s.timeouts.slow) {
                (self.s.events)(Event::Warning(Notice::of(
                    &self.s.name,
                    format!(
                        "waiting up to {} s for what the device still has in hand; the program ends when the kernel \
                     lets go of it",
                        io::DRAIN_MAX.as_secs()
                    ),
                )));
                return;
            }
            if matches!(self.s.engine.wait(Some(PROGRESS_INTERVAL)), Completion::Broken(_)) {
                return;
            }
        }
    }
}
