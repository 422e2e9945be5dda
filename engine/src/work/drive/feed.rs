//! Fills slots from source files, generated metadata and the manifest; holds the gates between the phases.

use std::sync::Arc;
use std::time::Instant;

use super::{Drive, OpenFile, SMALL_FILE_MAX, Under};
use crate::io::{self, Fill, SourceFile, SourcePath};
use crate::ntfs::build::{LeftOut, Tree};
use crate::plan::account::ExportedFile;
use crate::plan::batches::{Batch, Content, Part, Phase};
use crate::plan::tree::{DriveTree, FileKind};
use crate::pool::Slot;
use crate::report::{Advice, Event, Kind, Problem, Setting, Stage};
use crate::stream::contents::Wanted;
use crate::stream::sources::{all_left_out, expected_facts};
use crate::units::DeviceOffset;
use crate::work::outcome::WholeReader;

impl<'a: 'o, 'o> Drive<'a, 'o> {
    /// Starts as many batches as gates and free slots allow.
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
            let Some(slot) = self.s.io.pool().take() else { return Ok(()) };
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

    /// Whether the next batch holds files that depend on the blobs' hashes, and some blobs are not hashed yet.
    fn waits_for_blobs(&mut self) -> bool {
        let tree = self.tree;
        let Some(Content::Files(parts)) = self.batches.peek().map(|batch| &batch.content) else { return false };
        if !parts.first().is_some_and(|part| is_made(tree, part.file)) {
            return false;
        }
        self.s.log.batches() < *self.tells_from.get_or_insert(self.issued)
    }

    /// Whether `phase` may begin; performs the work between the phases.
    pub(super) fn pass_gate(&mut self, phase: Phase) -> Result<bool, Problem> {
        match phase {
            Phase::Data => {}
            Phase::Metadata | Phase::FreeSpace => {
                if self.formatting.as_ref().is_some_and(|formatting| !formatting.is_past_data()) {
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
                    if let Some(formatting) = &mut self.formatting {
                        formatting.end_of_manifest();
                    }
                    self.stage(Stage::Finishing);
                }
            }
        }
        self.phase = phase;
        Ok(true)
    }

    /// Called when every file has been read: the files left out are final.
    fn end_of_data(&mut self) -> Result<(), Problem> {
        let left_out = self.settle()?;
        let hashes = self.s.log.reader().map_err(|error| self.sidecar(&error))?;
        let property_hashes = std::mem::take(&mut self.property_hashes);
        if let Some(formatting) = &mut self.formatting {
            formatting.end_of_data(left_out, property_hashes, hashes);
        }
        Ok(())
    }

    /// The files left out once every file has been read: with a blob, the file that sets its `Content-MD5` too.
    ///
    /// # Errors
    /// No blob could be read, or a properties or metadata file of several blobs could not.
    pub(super) fn settle(&self) -> Result<LeftOut, Problem> {
        let tree = self.tree;
        if let Some((file, why)) = self.left_out.range(tree.first_property()..).next() {
            return Err(Problem::new(Kind::Source, format!("a metadata or properties file could not be used: {why}"))
                .path(tree.source_path(*file))
                .drive(&self.s.name)
                .advice(Advice::from("every blob of its row needs it: mend it and continue with ") + Setting::Resume));
        }
        if let Some(problem) = all_left_out(tree, &self.left_out) {
            let meanwhile = self.meanwhile();
            return Err(problem.drive(&self.s.name).advice(
                Advice::from(format!("{meanwhile}; mend the source and continue with "))
                    + Setting::Resume
                    + ", or roll the session back with "
                    + Setting::Abort,
            ));
        }
        let blobs = self.left_out.range(..tree.blob_count()).map(|(&blob, _)| blob);
        let made = blobs.clone().flat_map(|blob| tree.own_files(blob));
        Ok(LeftOut::new(blobs.chain(made).collect()))
    }

    pub(super) fn start(&mut self, batch: Batch, mut slot: Slot) -> Result<(), Problem> {
        let seq = self.issued;
        self.note_issued(&batch, seq);
        self.issued += 1;
        self.sums.push(None);
        if let Content::Files(parts) = &batch.content {
            return self.start_files(seq, parts.clone(), batch, slot);
        }
        let formatting = self.formatting.as_mut();
        let filled = formatting.map_or(Ok(0), |formatting| formatting.fill(&batch, &mut slot[..batch.len]));
        let len = filled.map_err(|error| self.sidecar(&error))?;
        self.enqueue(seq, shortened(batch, len), slot, Vec::new(), Vec::new());
        Ok(())
    }

    pub(super) fn start_files(
        &mut self,
        seq: u64,
        parts: Vec<Part>,
        batch: Batch,
        mut slot: Slot,
    ) -> Result<(), Problem> {
        let tree = self.tree;
        if self.s.fetch.is_some() {
            return self.start_fetch(seq, &parts, batch, slot);
        }
        if parts.first().is_some_and(|part| is_made(tree, part.file)) {
            return self.start_made(seq, &parts, batch, slot);
        }
        let mut reads = Vec::with_capacity(parts.len());
        let mut covered = 0usize;
        for part in &parts {
            // The gap between the end of one file and the next cluster is zero.
            let into = part.into as usize..(part.into + part.len) as usize;
            slot[covered..into.start].fill(0);
            covered = into.end;
            match self.read_of(part) {
                Ok(from) => reads.push(io::Part { into, from }),
                Err(why) => {
                    if let (NotRead::Now(why), false) = (why, self.sources.is_short()) {
                        self.leave_out(part.file, why)?;
                    }
                    slot[into].fill(0);
                    reads.push(io::Part { into: 0..0, from: io::From::Target { at: DeviceOffset(0) } });
                }
            }
        }
        slot[covered..batch.len].fill(0);
        self.note_chained(seq, &parts);
        self.under.insert(seq, Under { batch });
        self.filling += 1;
        self.s.io.fill(Fill { tag: seq, slot, parts: reads });
        Ok(())
    }

    /// Records a slot whose blocks, or files that are hashed as a whole, continue in another one.
    fn note_chained(&mut self, seq: u64, parts: &[Part]) {
        let tree = self.tree;
        let goes_on = |part: &Part| {
            let is_whole = part.offset == 0 && u64::from(part.len) == tree.file(part.file).len.0;
            !(part.block_start && part.block_end) || !is_whole && tree.has_whole_md5(part.file)
        };
        if parts.iter().any(goes_on) {
            self.note_run(seq, parts);
        }
    }

    /// Has a slot filled by the threads that fetch; texts of an export are put into it here.
    fn start_fetch(&mut self, seq: u64, parts: &[Part], batch: Batch, mut slot: Slot) -> Result<(), Problem> {
        let tree = self.tree;
        let mut wanted: Vec<Wanted> = Vec::new();
        slot[..batch.len].fill(0);
        for (i, part) in parts.iter().enumerate().filter(|(_, part)| part.len > 0) {
            let into = part.into as usize..(part.into + part.len) as usize;
            match (tree.exported_file(part.file), tree.kind(part.file)) {
                (Some(ExportedFile::Side(text)), _) => {
                    let from = part.offset as usize;
                    slot[into.clone()].copy_from_slice(&text.as_bytes()[from..from + into.len()]);
                }
                (Some(ExportedFile::Blob(_)), FileKind::Blob(file)) if !self.left_out.contains_key(&part.file) => {
                    match wanted.last_mut() {
                        // Short blocks are asked for together.
                        Some(Wanted { file: before, into: range, .. }) if *before == file => range.end = into.end,
                        _ => wanted.push(Wanted { part: i, file, offset: part.offset, into }),
                    }
                }
                _ => {}
            }
        }
        self.note_chained(seq, parts);
        match &self.s.fetch {
            Some(line) if !wanted.is_empty() => {
                self.filling += 1;
                self.under.insert(seq, Under { batch });
                line.fetch(seq, slot, wanted, self.s.io.waker());
            }
            _ => {
                let (spans, wholes) = self.spans(parts);
                self.enqueue(seq, batch, slot, spans, wholes);
            }
        }
        Ok(())
    }

    /// Fills a slot with generated files that set `Content-MD5`: all blobs are hashed by then.
    fn start_made(&mut self, seq: u64, parts: &[Part], batch: Batch, mut slot: Slot) -> Result<(), Problem> {
        let tree = self.tree;
        slot[..batch.len].fill(0);
        for part in parts {
            let text = match tree.kind(part.file) {
                FileKind::ContentMd5(blob) => self.md5_text(blob)?,
                FileKind::Metadata(blob) => tree.metadata_text(blob),
                FileKind::Blob(_) | FileKind::Property(_) => continue,
            };
            let from = part.offset as usize;
            let (into, len) = (part.into as usize, part.len as usize);
            slot[into..into + len].copy_from_slice(&text.as_bytes()[from..from + len]);
        }
        let (spans, wholes) = self.spans(parts);
        self.enqueue(seq, batch, slot, spans, wholes);
        Ok(())
    }

    /// The contents of a blob's properties file.
    fn md5_text(&mut self, blob: u32) -> Result<String, Problem> {
        let tree = self.tree;
        if !tree.sets_md5s() {
            return Ok(tree.md5_text(blob, &[0; 16]));
        }
        if self.wholes.is_none() {
            let log = self.s.log.reader().map_err(|error| self.sidecar(&error))?;
            self.wholes = Some(WholeReader::new(log));
        }
        let md5 = self.wholes.as_mut().map_or(Ok([0; 16]), |wholes| wholes.md5(tree, blob));
        Ok(tree.md5_text(blob, &md5.map_err(|error| self.sidecar(&error))?))
    }

    /// Source of a part's bytes; opens files that stay open.
    pub(super) fn read_of(&mut self, part: &Part) -> Result<io::From, NotRead> {
        let tree = self.tree;
        let facts = expected_facts(tree, part.file);
        if facts.len <= SMALL_FILE_MAX {
            let path =
                SourcePath::new(&tree.source_path(part.file)).map_err(|error| NotRead::Now(error.to_string()))?;
            return Ok(io::From::Path { path: Arc::new(path), facts });
        }
        if self.left_out.contains_key(&part.file) {
            return Err(NotRead::LeftOut);
        }
        let entry =
            self.open.entry(part.file).or_insert_with(|| OpenFile { file: None, reading: 0, all_issued: false });
        if entry.file.is_none() {
            let opened = SourceFile::open(&tree.source_path(part.file), true);
            match opened {
                Ok(file) => match file.facts().change_since(&facts) {
                    None => entry.file = Some(Arc::new(file)),
                    Some(change) => {
                        self.open.remove(&part.file);
                        return Err(NotRead::Now(change));
                    }
                },
                Err(error) => {
                    self.open.remove(&part.file);
                    self.sources.failed(&tree.source_path(part.file), Some(&error));
                    return Err(NotRead::Now(error.to_string()));
                }
            }
        }
        entry.reading += 1;
        entry.all_issued = part.offset + u64::from(part.len) == facts.len;
        match &entry.file {
            Some(file) => Ok(io::From::Open { file: Arc::clone(file), offset: part.offset }),
            None => Err(NotRead::Now("could not be opened".into())),
        }
    }

    pub(super) fn leave_out(&mut self, file: u32, why: String) -> Result<(), Problem> {
        if self.left_out.contains_key(&file) {
            return Ok(());
        }
        self.s.log.left_out(file, &why).map_err(|error| self.sidecar(&error))?;
        let path = self.tree.source_path(file);
        (self.s.events)(Event::LeftOut { drive: self.s.index, path, why: why.clone() });
        self.left_out.insert(file, why);
        Ok(())
    }
}

/// Reason why a part is not read.
pub(super) enum NotRead {
    /// Its file was left out before.
    LeftOut,
    /// Its file is to be left out, for this reason.
    Now(String),
}

/// Whether a file is generated here, from the hashes of the blobs.
fn is_made(tree: &DriveTree, file: u32) -> bool {
    (tree.blob_count()..tree.first_property()).contains(&file)
}

/// The batch cut to the first `len` bytes of its slot.
fn shortened(mut batch: Batch, len: usize) -> Batch {
    batch.len = len;
    batch.pieces.retain_mut(|piece| {
        piece.range.end = piece.range.end.min(len);
        piece.range.start < piece.range.end
    });
    batch
}
