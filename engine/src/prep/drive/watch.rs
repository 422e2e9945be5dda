//! Waiting for what is under way, and telling how it goes.

use std::time::{Duration, Instant};

use super::errors::phase_name;
use super::{Drive, PROGRESS_EVERY, SLOW_AFTER};
use crate::io::{self, Completion};
use crate::report::{Event, Problem, Stage, Waiting};
use crate::units::ByteLen;

impl<'a: 'o, 'o> Drive<'a, 'o> {
    pub(super) fn wait(&mut self) -> Result<(), Problem> {
        while let Ok(done) = self.replies.1.try_recv() {
            self.digested(done)?;
        }
        self.write_ready();
        self.tell(false);
        if self.is_idle() && !self.flushing {
            return Ok(());
        }
        let since = Instant::now();
        let completion = self.s.engine.wait(Some(PROGRESS_EVERY));
        let waited = since.elapsed();
        // What was scarce while nothing happened.
        let scarce = if self.at_workers > 0 && self.s.pool.available() == 0 && self.writing.len() < 2 {
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
            Completion::TimedOut => self.tell_if_slow(),
        }
        Ok(())
    }

    pub(super) fn tell(&mut self, now: bool) {
        if !now && self.told.elapsed() < PROGRESS_EVERY {
            return;
        }
        self.told = Instant::now();
        let waiting_for = match self.waited.iter().enumerate().max_by_key(|&(_, d)| *d) {
            Some((_, d)) if *d < PROGRESS_EVERY / 10 => Waiting::Nothing,
            Some((0, _)) => Waiting::Source,
            Some((1, _)) => Waiting::Cpu,
            _ => Waiting::Drive,
        };
        self.waited = [Duration::ZERO; 3];
        (self.s.events)(Event::Progress {
            drive: self.s.index,
            acknowledged: ByteLen(self.acknowledged),
            total: ByteLen(self.total),
            files: self.files_down,
            waiting_for,
        });
    }

    pub(super) fn tell_if_slow(&mut self) {
        let Some(oldest) = self.s.engine.oldest() else { return };
        if oldest < SLOW_AFTER {
            self.slow_told = false;
        } else if !self.slow_told {
            self.slow_told = true;
            (self.s.events)(Event::Note(format!(
                "drive {}: an operation has been waiting for {} s; the drive or a source hangs or is very slow",
                self.s.name,
                oldest.as_secs()
            )));
        }
    }

    /// Takes back what is under way, so that the slots live as long as the kernel uses them.
    pub(super) fn drain(&mut self) {
        let until = Instant::now() + io::DRAIN_MAX;
        while self.s.engine.in_flight() > 0 && Instant::now() < until {
            if matches!(self.s.engine.wait(Some(PROGRESS_EVERY)), Completion::Broken(_)) {
                break;
            }
        }
        self.stage(Stage::Failed);
    }
}
