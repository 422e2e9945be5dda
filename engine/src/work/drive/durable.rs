//! Durable progress of a drive: flushes while data streams, a checkpoint after each, and resuming from one.

use super::Drive;
use crate::checkpoint::Prefix;
use crate::ntfs::build::Tree;
use crate::plan::batches::{Batch, Content, Part};
use crate::report::{Kind, Problem, Stage};
use crate::units::{BatchNo, ByteLen, DeviceOffset, FileNo};

/// Progress of the drive's loop in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    /// First batch of the plan that is not durable: all before it are.
    pub next: BatchNo,
    /// Device offset of the end of the last durable batch.
    pub end: DeviceOffset,
    /// First file of the tree that is not completely in durable batches.
    pub next_file: FileNo,
    /// Valid part of the outcome log.
    pub outcome: Prefix,
}

/// End of a batch, for checkpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BatchEnd {
    /// Device offset of the end.
    pub offset: DeviceOffset,
    /// First file of the tree that continues after it.
    pub file: u32,
    /// Bytes of the batch; with the last durable batch, of all up to it.
    pub bytes: u64,
}

impl<'a: 'o, 'o> Drive<'a, 'o> {
    /// Skips the batches that an earlier run left durable: they are neither read nor written again, except the
    /// manifest, whose earlier bytes must be known to continue it.
    pub(super) fn pass_over(&mut self) -> Result<(), Problem> {
        let replay = std::mem::take(&mut self.s.replay);
        let batches = replay.sums.len() as u64;
        self.left_out = replay.left_out;
        self.property_hashes = replay.properties;
        (self.begun_whole, self.begun) = (replay.whole, replay.begun);
        self.sums = replay.sums;
        let mut scratch = Vec::new();
        while self.issued < batches {
            let Some(phase) = self.batches.peek().map(|batch| batch.phase) else {
                return Err(
                    Problem::new(Kind::Internal, "the checkpoint lies behind the plan's end").drive(&self.s.name)
                );
            };
            if phase > self.phase && !self.pass_gate(phase)? {
                return Err(Problem::new(Kind::Internal, "a gate is shut with nothing under way").drive(&self.s.name));
            }
            let Some(batch) = self.batches.next() else { continue };
            match &batch.content {
                Content::Files(parts) => self.files_down += self.files_ending(parts),
                Content::Manifest { .. } => {
                    scratch.resize(batch.len, 0);
                    if let Some(formatting) = &mut self.formatting {
                        formatting.fill_manifest(&mut scratch).map_err(|error| self.sidecar(&error))?;
                    }
                }
                _ => {}
            }
            self.acknowledged += self.sums[self.issued as usize].map_or(0, |sum| sum.len as u64);
            self.ends.push_back((self.issued, self.end_of(&batch)));
            self.issued += 1;
            self.next_write = self.issued;
            self.flushed_issued = self.issued;
            self.forget_ends(self.issued);
        }
        Ok(())
    }

    /// Number of blobs with their last byte among the parts.
    pub(super) fn files_ending(&self, parts: &[Part]) -> u64 {
        let tree = self.tree;
        let ends = |part: &&Part| part.offset + u64::from(part.len) == tree.file(part.file).len.0;
        parts.iter().filter(ends).filter(|part| part.file < tree.blob_count()).count() as u64
    }

    /// Number of acknowledged batches, counted from the first without a gap.
    pub(super) fn acknowledged_batches(&self) -> u64 {
        self.writing.keys().min().copied().unwrap_or(self.next_write)
    }

    /// Flushes while data streams, when the interval has passed.
    pub(super) fn flush_if_due(&mut self) {
        let due = self.flushed_at.elapsed() >= self.s.pace.time
            || self.acknowledged.saturating_sub(self.durable_end.bytes) >= self.s.pace.bytes;
        if due && !self.is_flushing() && self.acknowledged_batches() > self.flushed_issued {
            self.start_flush();
        }
    }

    /// Records a batch that is being written to the device.
    pub(super) fn note_issued(&mut self, batch: &Batch, number: u64) {
        self.ends.push_back((number, self.end_of(batch)));
    }

    fn forget_ends(&mut self, batches: u64) {
        while self.ends.front().is_some_and(|&(number, _)| number < batches) {
            if let Some((_, end)) = self.ends.pop_front() {
                self.durable_end.offset = self.durable_end.offset.max(end.offset);
                self.durable_end.file = self.durable_end.file.max(end.file);
                self.durable_end.bytes += end.bytes;
            }
        }
    }

    /// Everything up to batch `flushed_issued` is durable: saves a checkpoint of that.
    pub(super) fn checkpoint(&mut self) -> Result<(), Problem> {
        let batches = self.flushed_issued;
        self.forget_ends(batches);
        self.flushed_at = std::time::Instant::now();
        let outcome = self.s.log.sync_to(batches).map_err(|error| self.sidecar(&error))?;
        let BatchEnd { offset, file, .. } = self.durable_end;
        let (next, end, next_file) = (BatchNo(batches), offset, FileNo(file));
        let durable = Durable { next, end, next_file, outcome };
        (self.s.save)(&durable).map_err(|error| self.sidecar(&error))
    }

    fn end_of(&self, batch: &Batch) -> BatchEnd {
        let ends = batch.pieces.iter().map(|piece| piece.at + ByteLen(piece.range.len() as u64));
        let file = match &batch.content {
            Content::Files(parts) => parts.last().map_or(0, |last| {
                let is_end = last.offset + u64::from(last.len) == self.tree.file(last.file).len.0;
                last.file + u32::from(is_end)
            }),
            _ => 0,
        };
        BatchEnd { offset: ends.max().unwrap_or(DeviceOffset(0)), file, bytes: batch.len as u64 }
    }

    /// Called when the wiping of old marks is durable: they are not wiped again from here on.
    pub(super) fn wiped(&mut self) -> Result<(), Problem> {
        self.stage(Stage::Data);
        if self.issued == 0 { self.checkpoint() } else { Ok(()) }
    }
}
