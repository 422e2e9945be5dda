//! The first step: wipes old signatures, and every range that is written last.

use super::Drive;
use crate::io::Completion;
use crate::report::{PROGRESS_INTERVAL, Problem, Stage};
use crate::units::ByteOffset;

impl<'a: 'o, 'o> Drive<'a, 'o> {
    /// Overwrites old signatures, and every range that is written last, so that an unfinished drive shows no volume.
    pub(super) fn wipe(&mut self) -> Result<(), Problem> {
        if self.s.wipe.is_empty() {
            return Ok(());
        }
        self.stage(Stage::Wiping);
        let mut ranges = std::mem::take(&mut self.s.wipe);
        ranges.sort();
        let mut tag = 0;
        for range in ranges {
            let mut at = range.start.0;
            while at < range.end().0 {
                let mut slot = loop {
                    match self.s.pool.take() {
                        Some(slot) => break slot,
                        None => self.wipe_wait()?,
                    }
                };
                let len = (range.end().0 - at).min(slot.len() as u64);
                slot[..len as usize].fill(0);
                self.s.engine.write(tag, slot, len as usize, ByteOffset(at));
                tag += 1;
                at += len;
            }
        }
        self.s.engine.flush(tag);
        while self.s.engine.in_flight() > 0 {
            self.wipe_wait()?;
        }
        Ok(())
    }

    pub(super) fn wipe_wait(&mut self) -> Result<(), Problem> {
        match self.s.engine.wait(Some(PROGRESS_INTERVAL)) {
            Completion::Written { result: Err(error), .. } => Err(self.write_failed(&error, "wiping old signatures")),
            Completion::Flushed { result: Err(error), .. } => Err(self.flush_failed(&error)),
            Completion::Broken(error) => Err(self.broken(&error)),
            Completion::TimedOut => self.mind_the_slow(),
            _ => Ok(()),
        }
    }
}
