//! What goes into slots: source files, generated metadata, the manifest; and the gates between the phases.

use std::sync::Arc;
use std::time::Instant;

use super::{Drive, OpenFile, SMALL_FILE_MAX, Under};
use crate::io::{self, Fill, SourceFile, SourcePath};
use crate::ntfs::build::{LeftOut, Outcome, SectionKind, Tree};
use crate::plan::batches::{Batch, Content, Part, Phase, Plain};
use crate::plan::tree::{DriveTree, FileKind};
use crate::pool::Slot;
use crate::prep::manifest;
use crate::prep::outcome::WholeReader;
use crate::prep::sources::{all_left_out, expected_facts};
use crate::report::{Event, Kind, Problem, Stage};
use crate::units::ByteOffset;

impl<'a: 'o, 'o> Drive<'a, 'o> {
    /// Starts as many batches as gates and slots allow.
    pub(super) fn feed(&mut self) -> Result<(), Problem> {
        while self.filling < self.s.fills_max {
            let Some(batch) = self.batches.peek() else { return Ok(()) };
            let phase = batch.phase;
            if phase > self.phase && !self.pass_gate(phase)? {
                return Ok(());
            }
            if self.waits_for_blobs() || self.filling > 0 && io::is_short_of_descriptors() {
                return Ok(());
            }
            let Some(slot) = self.s.pool.take() else { return Ok(()) };
            let is_read = matches!(self.batches.peek().map(|batch| &batch.content), Some(Content::Files(_)));
            let len = self.batches.peek().map_or(0, |batch| batch.len as u64);
            if is_read && let Err(wait) = self.s.rate_limit.take(len, Instant::now()) {
                self.pause = Some(wait);
                return Ok(());
            }
            let Some(batch) = self.batches.next() else { return Ok(()) };
            self.start(batch, slot)?;
        }
        Ok(())
    }

    /// Whether the next batch holds files that tell of the blobs, and not all blobs are hashed.
    fn waits_for_blobs(&mut self) -> bool {
        let tree = self.s.layout.tree();
        let Some(Content::Files(parts)) = self.batches.peek().map(|batch| &batch.content) else { return false };
        if !parts.first().is_some_and(|part| is_made(tree, part.file)) {
            return false;
        }
        self.s.log.batches() < *self.tells_from.get_or_insert(self.issued)
    }

    /// Whether `phase` may begin; does what has to be done between.
    pub(super) fn pass_gate(&mut self, phase: Phase) -> Result<bool, Problem> {
        match phase {
            Phase::Data => {}
            Phase::Metadata | Phase::FreeSpace => {
                if self.outcomes.data.get().is_none() {
                    if self.s.log.batches() < self.issued {
                        return Ok(false);
                    }
                    self.end_of_data()?;
                }
                self.stage(if phase == Phase::Metadata { Stage::Metadata } else { Stage::FreeSpace });
            }
            Phase::Last | Phase::Front | Phase::Tables => {
                if !self.is_idle() || self.flushed_issued < self.issued {
                    return Ok(false);
                }
                if phase == Phase::Last {
                    self.end_of_manifest();
                    self.stage(Stage::Finishing);
                }
            }
        }
        self.phase = phase;
        Ok(true)
    }

    /// Every file has been read: what is left out is final.
    pub(super) fn end_of_data(&mut self) -> Result<(), Problem> {
        let tree = self.s.layout.tree();
        if let Some((file, why)) = self.left_out.range(tree.first_property()..).next() {
            return Err(Problem::new(Kind::Source, format!("a metadata or properties file could not be used: {why}"))
                .path(tree.source_path(*file))
                .drive(&self.s.name)
                .advice("every blob of its row needs it: mend it and continue with --resume"));
        }
        if let Some(problem) = all_left_out(tree, &self.left_out) {
            return Err(problem.drive(&self.s.name).advice(
                "the drive holds no volume; mend the source and continue with --resume, or roll the session back with \
                 --abort",
            ));
        }
        let blobs = self.left_out.range(..tree.blob_count()).map(|(&blob, _)| blob);
        let made = blobs.clone().filter(|_| tree.has_md5s()).map(|blob| tree.md5_file(blob));
        let left_out = LeftOut::new(blobs.chain(made).collect());
        let outcome = Outcome { left_out: left_out.clone(), root_file_lens: vec![self.s.layout.manifest_len_max()] };
        let _ = self.outcomes.data.set(outcome);
        let hashes = self.s.log.reader().map_err(|error| self.sidecar(&error))?;
        let property_hashes = std::mem::take(&mut self.property_hashes);
        self.manifest = Some(manifest::stream(tree, self.s.rules, left_out, property_hashes, hashes));
        Ok(())
    }

    /// The manifest is out: its length and digest are final.
    pub(super) fn end_of_manifest(&mut self) {
        let Some(manifest) = self.manifest.take() else { return };
        let (len, md5) = manifest.finish();
        self.manifest_md5 = md5;
        if let Some(data) = self.outcomes.data.get() {
            let outcome = Outcome { left_out: data.left_out.clone(), root_file_lens: vec![len] };
            let _ = self.outcomes.whole.set(outcome);
        }
    }

    pub(super) fn start(&mut self, batch: Batch, mut slot: Slot) -> Result<(), Problem> {
        let seq = self.issued;
        self.note_issued(&batch, seq);
        self.issued += 1;
        self.sums.push(None);
        match &batch.content {
            Content::Files(parts) => {
                return self.start_files(seq, parts.clone(), batch, slot);
            }
            Content::Section { kind, offset } => {
                self.generate(*kind, batch.phase, *offset, &mut slot[..batch.len])?;
            }
            Content::Manifest { .. } => {
                let len = self.fill_manifest(&mut slot[..batch.len])?;
                let cluster = self.s.layout.layout().cluster().bytes() as usize;
                // Clusters that the manifest turned out not to need stay free.
                let keep = if self.s.layout.wipe_free() { batch.len } else { len.next_multiple_of(cluster) };
                let keep = keep.min(batch.len);
                slot[len..keep].fill(0);
                let batch = shortened(batch, keep);
                self.enqueue(seq, batch, slot, Vec::new(), Vec::new());
                return Ok(());
            }
            Content::Zeros | Content::Plain(Plain::Zeros) => slot[..batch.len].fill(0),
            Content::Plain(plain) => {
                let bytes = self.s.plain.of(*plain, self.s.layout.sector().bytes() as usize);
                slot[..batch.len].copy_from_slice(bytes);
            }
        }
        self.enqueue(seq, batch, slot, Vec::new(), Vec::new());
        Ok(())
    }

    pub(super) fn generate(
        &mut self,
        kind: SectionKind,
        phase: Phase,
        offset: u64,
        out: &mut [u8],
    ) -> Result<(), Problem> {
        if self.generator.as_ref().is_none_or(|(k, p, _)| (*k, *p) != (kind, phase)) {
            let late = matches!(kind, SectionKind::Bitmap | SectionKind::MftBitmap) || phase >= Phase::Last;
            if late {
                // The manifest lies before the bitmaps: by now it is out.
                self.end_of_manifest();
            }
            let outcome = match phase {
                Phase::Data => self.outcomes.nothing,
                _ if late => self.outcomes.whole.get().unwrap_or(self.outcomes.nothing),
                _ => self.outcomes.data.get().unwrap_or(self.outcomes.nothing),
            };
            let layout = self.s.layout;
            let generator = layout.layout().generator(kind, layout.tree(), outcome);
            self.generator = Some((kind, phase, generator));
        }
        if let Some((_, _, generator)) = &mut self.generator {
            generator.fill(ByteOffset(offset), out);
        }
        Ok(())
    }

    pub(super) fn fill_manifest(&mut self, out: &mut [u8]) -> Result<usize, Problem> {
        let Some(manifest) = &mut self.manifest else { return Ok(0) };
        let filled = manifest.fill(out);
        filled.map_err(|error| self.sidecar(&error))
    }

    pub(super) fn start_files(
        &mut self,
        seq: u64,
        parts: Vec<Part>,
        batch: Batch,
        mut slot: Slot,
    ) -> Result<(), Problem> {
        let tree = self.s.layout.tree();
        if parts.first().is_some_and(|part| is_made(tree, part.file)) {
            return self.start_made(seq, &parts, batch, slot);
        }
        let mut reads = Vec::with_capacity(parts.len());
        let mut covered = 0usize;
        for part in &parts {
            // What lies between the end of one file and the next cluster is zero.
            let into = part.into as usize..(part.into + part.len) as usize;
            slot[covered..into.start].fill(0);
            covered = into.end;
            match self.read_of(part) {
                Ok(from) => reads.push(io::Part { into, from }),
                Err(why) => {
                    if !self.sources.is_short() {
                        self.leave_out(part.file, why)?;
                    }
                    slot[into].fill(0);
                    reads.push(io::Part { into: 0..0, from: io::From::Target { at: ByteOffset(0) } });
                }
            }
        }
        slot[covered..batch.len].fill(0);
        let goes_on = |part: &Part| {
            let is_whole = part.offset == 0 && u64::from(part.len) == tree.file(part.file).len.0;
            !(part.block_start && part.block_end) || !is_whole && tree.has_whole_md5(part.file)
        };
        if parts.iter().any(goes_on) {
            self.note_run(seq, &parts);
        }
        self.under.insert(seq, Under { batch });
        self.filling += 1;
        self.s.engine.fill(Fill { tag: seq, slot, parts: reads });
        Ok(())
    }

    /// Fills a slot with files that set `Content-MD5`: all blobs are hashed.
    fn start_made(&mut self, seq: u64, parts: &[Part], batch: Batch, mut slot: Slot) -> Result<(), Problem> {
        let tree = self.s.layout.tree();
        if self.wholes.is_none() {
            let log = self.s.log.reader().map_err(|error| self.sidecar(&error))?;
            self.wholes = Some(WholeReader::new(log));
        }
        slot[..batch.len].fill(0);
        for part in parts {
            let FileKind::ContentMd5(blob) = tree.kind(part.file) else { continue };
            let Some(wholes) = &mut self.wholes else { continue };
            let md5 = wholes.md5(tree, blob).map_err(|error| self.sidecar(&error))?;
            let text = tree.md5_text(blob, &md5);
            let from = part.offset as usize;
            let (into, len) = (part.into as usize, part.len as usize);
            slot[into..into + len].copy_from_slice(&text.as_bytes()[from..from + len]);
        }
        let (spans, wholes) = self.spans(parts);
        self.enqueue(seq, batch, slot, spans, wholes);
        Ok(())
    }

    /// Where a part's bytes come from; opens files that stay open.
    pub(super) fn read_of(&mut self, part: &Part) -> Result<io::From, String> {
        let layout = self.s.layout;
        let facts = expected_facts(layout.tree(), part.file);
        if facts.len <= SMALL_FILE_MAX {
            let path = SourcePath::new(&layout.tree().source_path(part.file)).map_err(|error| error.to_string())?;
            return Ok(io::From::Path { path: Arc::new(path), facts });
        }
        if self.left_out.contains_key(&part.file) {
            return Err(String::new());
        }
        let entry =
            self.open.entry(part.file).or_insert_with(|| OpenFile { file: None, reading: 0, all_issued: false });
        if entry.file.is_none() {
            let opened = SourceFile::open(&layout.tree().source_path(part.file), true);
            match opened {
                Ok(file) => match file.facts().change_since(&facts) {
                    None => entry.file = Some(Arc::new(file)),
                    Some(change) => {
                        self.open.remove(&part.file);
                        return Err(change);
                    }
                },
                Err(error) => {
                    self.open.remove(&part.file);
                    self.sources.failed(&layout.tree().source_path(part.file), Some(&error));
                    return Err(error.to_string());
                }
            }
        }
        entry.reading += 1;
        entry.all_issued = part.offset + u64::from(part.len) == facts.len;
        match &entry.file {
            Some(file) => Ok(io::From::Open { file: Arc::clone(file), offset: part.offset }),
            None => Err("could not be opened".into()),
        }
    }

    pub(super) fn leave_out(&mut self, file: u32, why: String) -> Result<(), Problem> {
        if self.left_out.contains_key(&file) {
            return Ok(());
        }
        self.s.log.left_out(file, &why).map_err(|error| self.sidecar(&error))?;
        let path = self.s.layout.tree().source_path(file);
        (self.s.events)(Event::LeftOut { drive: self.s.index, path, why: why.clone() });
        self.left_out.insert(file, why);
        Ok(())
    }
}

/// Whether a file is made here, of what the blobs turned out to be.
fn is_made(tree: &DriveTree, file: u32) -> bool {
    (tree.blob_count()..tree.first_property()).contains(&file)
}

/// The batch without what lies behind byte `len` of its slot.
fn shortened(mut batch: Batch, len: usize) -> Batch {
    batch.len = len;
    batch.pieces.retain_mut(|piece| {
        piece.range.end = piece.range.end.min(len);
        piece.range.start < piece.range.end
    });
    batch
}
