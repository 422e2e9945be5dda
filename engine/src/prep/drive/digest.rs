//! From a full slot to the workers and back.

use std::sync::Arc;

use super::feed::expected_facts;
use super::{Drive, Sum, Under, Writing};
use crate::azure::dataset::BlobType;
use crate::io;
use crate::plan::batches::{Batch, Content};
use crate::pool::Slot;
use crate::prep::workers::{Digest, Done, How, Job, Span, Way};
use crate::report::Problem;
use crate::units::ByteOffset;

impl<'a: 'o, 'o> Drive<'a, 'o> {
    pub(super) fn filled(&mut self, seq: u64, mut slot: Slot, results: Vec<io::PartResult>) -> Result<(), Problem> {
        self.filling -= 1;
        let Some(under) = self.under.get(&seq) else { return Ok(()) };
        let Content::Files(parts) = &under.batch.content else { return Ok(()) };
        let parts = parts.clone();
        let has_chain = under.has_chain;
        let mut changed: Vec<(u32, String)> = Vec::new();
        for (part, result) in parts.iter().zip(results) {
            let why = match result {
                io::PartResult::Done => {
                    // The parts of a file that is out already were not asked for.
                    if !self.left_out.contains_key(&part.file) {
                        self.sources.read();
                    }
                    None
                }
                io::PartResult::Changed(change) => {
                    let path = self.s.layout.tree().source_path(part.file);
                    self.sources.failed(&path, None);
                    Some(change)
                }
                io::PartResult::Failed(error) => {
                    let path = self.s.layout.tree().source_path(part.file);
                    self.sources.failed(&path, Some(&error));
                    Some(error.to_string())
                }
            };
            if let Some(why) = why {
                slot[part.into as usize..(part.into + part.len) as usize].fill(0);
                changed.push((part.file, why));
            }
            if let Some(open) = self.open.get_mut(&part.file) {
                open.reading -= 1;
                if open.reading == 0 && open.all_issued {
                    let facts = expected_facts(self.s.layout, part.file);
                    let now = open.file.as_ref().map(|file| file.facts_now());
                    match now {
                        Some(Ok(now)) => changed.extend(now.change_since(&facts).map(|change| (part.file, change))),
                        Some(Err(error)) => changed.push((part.file, error.to_string())),
                        None => {}
                    }
                    self.open.remove(&part.file);
                }
            }
        }
        for (file, why) in changed {
            self.leave_out(file, why)?;
        }
        let tree = self.s.layout.tree();
        let spans = parts
            .iter()
            .filter(|part| part.len > 0)
            .map(|part| Span {
                range: part.into as usize..(part.into + part.len) as usize,
                how: if tree.blob_type(part.file) == Some(BlobType::Page) {
                    How::Pages
                } else if part.block_start && part.block_end {
                    How::Block
                } else {
                    How::Chain { ends: part.block_end }
                },
            })
            .collect();
        let Some(under) = self.under.remove(&seq) else { return Ok(()) };
        self.enqueue(seq, under.batch, slot, spans, has_chain);
        Ok(())
    }

    /// Hands a full slot to the workers.
    pub(super) fn enqueue(&mut self, seq: u64, batch: Batch, slot: Slot, spans: Vec<Span>, has_chain: bool) {
        let volume = self.s.layout.volume().start.0;
        let plain = matches!(batch.content, Content::Plain(_));
        let pieces = batch.pieces.iter();
        let seal = if plain {
            Vec::new()
        } else {
            pieces.map(|piece| (piece.range.clone(), ByteOffset(piece.at.0 - volume))).collect()
        };
        let job = Job {
            tag: seq,
            slot,
            len: batch.len,
            spans,
            chain: None,
            way: Way::Seal,
            crypt: seal,
            cipher: Some(Arc::clone(&self.s.cipher)),
            reply: self.replies.0.clone(),
            waker: self.waker.clone(),
        };
        self.under.insert(seq, Under { batch, has_chain });
        if has_chain {
            self.chain_ready.insert(seq, job);
            self.send_chain();
        } else {
            self.send(job);
        }
    }

    pub(super) fn send(&mut self, job: Job) {
        self.at_workers += 1;
        // The workers live as long as the session; were they gone, the loop would end by the missing replies.
        let _ = self.s.jobs.send(job);
    }

    /// A block longer than a slot is hashed in order: one of its slots at a time.
    pub(super) fn send_chain(&mut self) {
        if self.chain_busy {
            return;
        }
        let Some(front) = self.chain_order.front() else { return };
        let Some(mut job) = self.chain_ready.remove(front) else { return };
        self.chain_order.pop_front();
        job.chain = self.chain_state.take();
        self.chain_busy = true;
        self.send(job);
    }

    pub(super) fn digested(&mut self, done: Done) -> Result<(), Problem> {
        self.at_workers -= 1;
        let Some(under) = self.under.remove(&done.tag) else { return Ok(()) };
        if under.has_chain {
            self.chain_state = done.chain;
            self.chain_busy = false;
            self.send_chain();
        }
        if let Content::Files(parts) = &under.batch.content {
            let first = self.s.layout.tree().blob_count();
            for (part, digest) in parts.iter().filter(|part| part.len > 0).zip(&done.digests) {
                if let (true, Digest::Block(md5)) = (part.file >= first, digest) {
                    self.s.log.property(part.file, *md5).map_err(|error| self.sidecar(&error))?;
                    self.property_hashes.insert(part.file, *md5);
                }
            }
        }
        let sum = (under.batch.len > 0).then_some(Sum { len: under.batch.len, crc: done.crc });
        self.sums[done.tag as usize] = sum;
        self.s.log.push(done.tag, sum, done.digests).map_err(|error| self.sidecar(&error))?;
        let files = match &under.batch.content {
            Content::Files(parts) => self.files_ending(parts),
            _ => 0,
        };
        let pieces = under.batch.pieces.into_iter().map(|piece| (piece.range, piece.at)).collect();
        let writing = Writing { pieces, len: under.batch.len as u64, files, phase: under.batch.phase };
        self.sealed.insert(done.tag, (done.slot, writing));
        Ok(())
    }
}
