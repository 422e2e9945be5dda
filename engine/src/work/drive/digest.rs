//! Passes full slots to the workers, and takes their results.

use super::{Drive, SlotChain, Sum, Under, Writing};
use crate::azure::dataset::BlobType;
use crate::hash::Md5Chain;
use crate::io;
use crate::ntfs::build::Tree;
use crate::plan::batches::{Batch, Content, Part};
use crate::pool::Slot;
use crate::report::Problem;
use crate::stream::contents::{FetchLine, Fetched, Unread};
use crate::stream::sources::expected_facts;
use crate::stream::workers::{CipherDirection, Digest, DigestJob, Done, How, Span, Whole};
use crate::work::outcome::{BegunBlock, Hashed};

impl<'a: 'o, 'o> Drive<'a, 'o> {
    pub(super) fn filled(&mut self, seq: u64, mut slot: Slot, results: Vec<io::PartResult>) -> Result<(), Problem> {
        self.filling -= 1;
        let Some(under) = self.under.get(&seq) else { return Ok(()) };
        let Content::Files(parts) = &under.batch.content else { return Ok(()) };
        let parts = parts.clone();
        let mut changed: Vec<(u32, String)> = Vec::new();
        for (part, result) in parts.iter().zip(results) {
            let is_out = self.left_out.contains_key(&part.file);
            let why = self.sources.came(|| self.tree.source_path(part.file), result, is_out);
            if let Some(why) = why {
                slot[part.into as usize..(part.into + part.len) as usize].fill(0);
                changed.push((part.file, why));
            }
            if let Some(open) = self.open.get_mut(&part.file) {
                open.reading -= 1;
                if open.reading == 0 && open.all_issued {
                    let facts = expected_facts(self.tree, part.file);
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
        let (spans, wholes) = self.spans(&parts);
        let Some(under) = self.under.remove(&seq) else { return Ok(()) };
        self.enqueue(seq, under.batch, slot, spans, wholes);
        Ok(())
    }

    /// Takes slots that have been fetched.
    pub(super) fn take_fetched(&mut self) -> Result<(), Problem> {
        while let Some(fetched) = self.s.fetch.as_ref().and_then(FetchLine::take) {
            self.fetched(fetched)?;
        }
        Ok(())
    }

    fn fetched(&mut self, Fetched { tag, mut slot, unread }: Fetched) -> Result<(), Problem> {
        self.filling -= 1;
        let Some(under) = self.under.remove(&tag) else { return Ok(()) };
        let Content::Files(parts) = &under.batch.content else { return Ok(()) };
        let parts = parts.clone();
        for (i, why) in unread {
            let Some(part) = parts.get(i) else { continue };
            match why {
                Unread::LeftOut(why) => {
                    for part in parts.iter().filter(|other| other.file == part.file) {
                        slot[part.into as usize..(part.into + part.len) as usize].fill(0);
                    }
                    self.leave_out(part.file, why)?;
                }
                Unread::Failed(problem) => return Err(self.source_gone(*problem)),
            }
        }
        let (spans, wholes) = self.spans(&parts);
        self.enqueue(tag, under.batch, slot, spans, wholes);
        Ok(())
    }

    /// The spans to hash of the parts, and the spans of files that are hashed as a whole.
    pub(super) fn spans(&self, parts: &[Part]) -> (Vec<Span>, Vec<Whole>) {
        let tree = self.tree;
        let (mut spans, mut wholes) = (Vec::with_capacity(parts.len()), Vec::new());
        for part in parts.iter().filter(|part| part.len > 0) {
            if tree.has_whole_md5(part.file) {
                let ends = part.offset + u64::from(part.len) == tree.file(part.file).len.0;
                wholes.push(Whole { span: spans.len(), is_told: part.block_end, ends });
            }
            spans.push(Span {
                range: part.into as usize..(part.into + part.len) as usize,
                how: if tree.blob_type(part.file) == Some(BlobType::Page) {
                    How::Pages
                } else if part.block_start && part.block_end {
                    How::Block
                } else {
                    How::Chain { ends: part.block_end }
                },
            });
        }
        (spans, wholes)
    }

    /// Passes a full slot to the workers.
    pub(super) fn enqueue(&mut self, seq: u64, batch: Batch, slot: Slot, spans: Vec<Span>, wholes: Vec<Whole>) {
        let volume = self.s.content.volume_start;
        let cipher = self.s.content.cipher.clone().filter(|_| !matches!(batch.content, Content::Plain(_)));
        let pieces = batch.pieces.iter();
        let seal = if cipher.is_none() {
            Vec::new()
        } else {
            pieces.map(|piece| (piece.range.clone(), piece.at.in_volume(volume))).collect()
        };
        let job = DigestJob {
            tag: seq,
            slot,
            len: batch.len,
            spans,
            chain: None,
            wholes,
            whole: None,
            direction: CipherDirection::Seal,
            crypt: seal,
            cipher,
            sums_spans: self.tree.is_listed() || self.tree.exported().is_some(),
            sha256: false,
        };
        self.under.insert(seq, Under { batch });
        match self.run_of.get(&seq).copied() {
            Some(number) => {
                if let Some(run) = self.runs.get_mut(&number) {
                    run.ready.insert(seq, job);
                }
                self.send_run(number);
            }
            None => self.s.io.digest(job),
        }
    }

    /// Records a slot with hashes that continue from, or into, another slot.
    pub(super) fn note_run(&mut self, seq: u64, parts: &[Part]) {
        let Some(first) = parts.iter().find(|part| part.len > 0) else { return };
        let is_within_file = first.offset > 0 && self.tree.has_whole_md5(first.file);
        let before = self.runs.last_key_value().map(|(&run, _)| run);
        let run = match before {
            Some(run) if is_within_file || !first.block_start => run,
            _ => {
                // The last run was kept for slots that might continue it.
                self.runs.retain(|_, run| run.is_busy || !run.left.is_empty());
                let started = self.begun_whole.take().filter(|_| is_within_file);
                let (chain, whole) = match self.begun.take().filter(|_| !first.block_start) {
                    Some(BegunBlock { block, whole }) => (Some(block), whole),
                    None => (None, started.map(|state| Md5Chain::at(state, first.offset))),
                };
                self.runs.insert(seq, SlotChain { whole, chain, ..SlotChain::default() });
                seq
            }
        };
        self.run_of.insert(seq, run);
        if let Some(run) = self.runs.get_mut(&run) {
            run.left.push_back(seq);
        }
    }

    /// A block of several slots, and a file as a whole, are hashed in order: one of their slots at a time.
    fn send_run(&mut self, number: u64) {
        let Some(run) = self.runs.get_mut(&number).filter(|run| !run.is_busy) else { return };
        let Some(mut job) = run.left.front().and_then(|seq| run.ready.remove(seq)) else { return };
        run.left.pop_front();
        (job.chain, job.whole, run.is_busy) = (run.chain.take(), run.whole.take(), true);
        self.s.io.digest(job);
    }

    pub(super) fn digested(&mut self, mut done: Done) -> Result<(), Problem> {
        let begun = done.chain.clone().map(|block| BegunBlock { block, whole: done.whole.clone() });
        let Some(under) = self.under.remove(&done.tag) else { return Ok(()) };
        if let Some(number) = self.run_of.remove(&done.tag) {
            if let Some(run) = self.runs.get_mut(&number) {
                (run.chain, run.whole, run.is_busy) = (done.chain.take(), done.whole.take(), false);
            }
            self.send_run(number);
        }
        if let Content::Files(parts) = &under.batch.content {
            let first = self.tree.first_property();
            let digests = done.digests.iter().filter(|digest| !matches!(digest, Digest::Whole(_)));
            for (part, digest) in parts.iter().filter(|part| part.len > 0).zip(digests) {
                if let (true, Digest::Block(md5)) = (part.file >= first, digest) {
                    self.s.log.property(part.file, *md5).map_err(|error| self.sidecar(&error))?;
                    self.property_hashes.insert(part.file, *md5);
                }
            }
        }
        let sum = (under.batch.len > 0).then_some(Sum { len: under.batch.len, crc: done.crc });
        self.sums[done.tag as usize] = sum;
        let hashed = Hashed { sum, digests: done.digests, parts: done.span_crcs, begun };
        self.s.log.push(done.tag, hashed).map_err(|error| self.sidecar(&error))?;
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
