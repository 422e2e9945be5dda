//! Writes slots from the workers to the device, in the order of the plan.

use super::errors::phase_name;
use super::{Drive, Writing};
use crate::io::WriteError;
use crate::pool::Slot;
use crate::report::{Problem, Stage};

impl<'a: 'o, 'o> Drive<'a, 'o> {
    /// Writes the sealed slots whose turn it is.
    pub(super) fn write_ready(&mut self) {
        while let Some(entry) = self.sealed.first_entry() {
            if *entry.key() != self.next_write {
                return;
            }
            let (seq, (slot, writing)) = entry.remove_entry();
            self.next_write += 1;
            self.write_piece(seq, slot, writing);
        }
    }

    pub(super) fn write_piece(&mut self, seq: u64, mut slot: Slot, mut writing: Writing) {
        match writing.pieces.pop_front() {
            Some((range, at)) => {
                // Only a batch that runs across one of BitLocker's regions has a second piece.
                let len = range.len();
                if range.start > 0 {
                    slot.copy_within(range, 0);
                }
                self.writing.insert(seq, writing);
                self.s.io.write(seq, slot, len, at);
            }
            None => {
                self.acknowledged += writing.len;
                self.files_down += writing.files;
            }
        }
    }

    pub(super) fn written(&mut self, tag: u64, slot: Slot, result: Result<(), WriteError>) -> Result<(), Problem> {
        let writing = self.writing.remove(&tag);
        if let Err(error) = result {
            let what = writing.map_or("batch", |writing| phase_name(writing.phase));
            return Err(self.s.io.failures.write(&error, Some(what)));
        }
        if let Some(writing) = writing {
            self.write_piece(tag, slot, writing);
        }
        Ok(())
    }

    pub(super) fn flushed(&mut self, tag: u64, result: std::io::Result<()>) -> Result<(), Problem> {
        result.map_err(|error| self.s.io.failures.flush(&error))?;
        self.flushed_issued = self.flushed_issued.max(tag);
        self.checkpoint()
    }

    pub(super) fn start_flush(&mut self) {
        if self.under.is_empty() && self.sealed.is_empty() && self.writing.is_empty() {
            self.stage(Stage::Flushing);
        }
        self.s.io.flush(self.acknowledged_batches());
    }
}
