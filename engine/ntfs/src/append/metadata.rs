//! Renders the metadata of an append, once the data are written.

use std::collections::BTreeMap;

use super::btree::{self, Entries, Shape};
use super::edit::{Pages, protect_after, sequence_of};
use super::plan::{Append, Directory, LIST_ENTRY, NewSecurity, Role, refresh_name, root_file_len, stream_extents};
use super::secure::Home;
use super::space::BITMAP_CHUNK;
use super::{Refusal, edit};
use crate::build::index;
use crate::build::record::{self, FileName, Head, Record, Sizes, Standard};
use crate::build::system::I30;
use crate::build::{LinearRange, Outcome, Times, Tree};
use crate::format::{AttrType, INDEX_BLOCK, metafile, record_flag};
use crate::read::raw::{self, RecordFault, types};
use crate::read::{FileRef, NtfsError, ReadAt, Stream, VolumePlace};
use crate::units::{Clusters, Extent, VolumeOffset};

/// Longest piece that is passed on.
const PIECE: usize = 1 << 20;
/// The dirty bit in the low byte of `$Volume`'s flags, and the offset of that byte in `$VOLUME_INFORMATION`.
const DIRTY: u8 = 1;
const VOLUME_FLAGS_AT: usize = 0x0A;

/// The attributes of a large index, in order.
const INDEX_ATTRIBUTES: [AttrType; 3] = [AttrType::IndexRoot, AttrType::IndexAllocation, AttrType::Bitmap];
/// Longest bitmap of `$MFT` that any driver accepts (docs/spec/ntfs.md#limits).
const RECORD_BITS_MAX: u64 = 512 << 20;

/// Step of writing. Each step waits until the one before is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WriteStep {
    /// Writes into clusters that were free: nothing refers to them yet.
    Fresh,
    /// The dirty mark, and a log that has nothing to replay.
    Mark,
    /// The changes that make the new files part of the volume.
    Change,
    /// Removal of the dirty mark.
    Clean,
}

/// Receives writes: step, place on the volume, bytes. Steps ascend; pieces are whole units of the specification, except
/// for those of [`WriteStep::Fresh`], which are whole clusters.
pub type WriteOut<'a, E> = &'a mut dyn FnMut(WriteStep, VolumeOffset, &[u8]) -> Result<(), E>;

/// Collects the clusters that become used or free.
#[derive(Default)]
struct Marks {
    set: Vec<Extent>,
    clear: Vec<Extent>,
}

impl Append {
    /// Renders everything to write except file data, in order. `outcome` has the true length of every root file.
    ///
    /// Reads the volume as it was when the append was planned: call it again after a crash only while nothing of
    /// [`WriteStep::Mark`] has been written.
    ///
    /// # Errors
    /// Errors of the reader or of `out`.
    pub fn metadata<R: ReadAt, E: From<Refusal>>(
        &self,
        reader: &mut R,
        tree: &impl Tree,
        outcome: &Outcome,
        out: WriteOut<'_, E>,
    ) -> Result<(), E> {
        let mut marks = Marks::default();
        let blocks = self.write_indexes(reader, tree, outcome, &mut marks, out)?;
        let render = Renderer { append: self, tree, outcome, blocks: &blocks };
        let mut pages = Pages::new(self.spec.unit);
        self.write_growth(reader, &render, &mut pages, &mut marks, out)?;
        self.write_secure(&mut marks, out)?;

        self.change_records(reader, &render, &mut pages, &mut marks)?;
        let (mark, original) = self.dirty_mark(reader)?;
        for (at, run) in mark.runs(PIECE) {
            out(WriteStep::Mark, at, &run)?;
        }
        self.reset_log(reader, out)?;
        // The mark stays while the rest is written, even where a page holds both.
        let mut clean = pages.of(&mark);
        self.put_volume_record(reader, &mut pages, &self.marked(&original)?)?;
        for (at, run) in pages.without(&mark).runs(PIECE) {
            out(WriteStep::Change, at, &run)?;
        }
        self.change_record_bits(reader, outcome, out)?;
        self.change_cluster_bits(reader, outcome, marks, out)?;
        // Pages with the mark come in the same pieces each time, so that they can be recognised by their places.
        for (at, run) in pages.of(&mark).runs(PIECE) {
            out(WriteStep::Change, at, &run)?;
        }
        self.put_volume_record(reader, &mut clean, &original)?;
        for (at, run) in clean.runs(PIECE) {
            out(WriteStep::Clean, at, &run)?;
        }
        Ok(())
    }

    // ---- into free clusters ------------------------------------------------------------------------------------

    /// Writes the blocks of all large indexes; returns the number of each, if it still needs any.
    fn write_indexes<R: ReadAt, E: From<Refusal>>(
        &self,
        reader: &mut R,
        tree: &impl Tree,
        outcome: &Outcome,
        marks: &mut Marks,
        out: WriteOut<'_, E>,
    ) -> Result<BTreeMap<Option<u32>, u64>, E> {
        let mut counts = BTreeMap::new();
        let cluster = self.cluster();
        for (&dir, large) in &self.large {
            let entries = self.entries(reader, tree, dir, Some(outcome)).map_err(Refusal::from)?;
            if Self::is_small(entries.total_len(), self.dir_room(reader, tree, dir)?) {
                continue;
            }
            let shape = Shape::new(&entries);
            let blocks = shape.blocks();
            counts.insert(dir, blocks);
            let len = self.clusters_for(blocks * INDEX_BLOCK as u64);
            let used = LinearRange { start: large.place.start, len: Clusters(len) };
            marks.set.extend(self.meta.extents(used));
            let mut stream = FreshStream::new(self.meta.extents(used), cluster.bytes());
            let mut block = vec![0; INDEX_BLOCK];
            for i in 0..blocks {
                shape.render(i, &entries, cluster, &mut block);
                stream.write(&block, out)?;
            }
            stream.end(out)?;
            if let Some(range) = large.bitmap {
                marks.set.extend(self.meta.extents(range));
                let mut bitmap = vec![0; index::bitmap_len(blocks) as usize];
                index::bitmap(blocks, 0, &mut bitmap);
                let mut stream = FreshStream::new(self.meta.extents(range), cluster.bytes());
                stream.write(&bitmap, out)?;
                stream.end(out)?;
            }
        }
        Ok(counts)
    }

    /// Writes the growth of `$MFT` and its bitmap, as far as it is in new clusters.
    fn write_growth<R: ReadAt, T: Tree, E: From<Refusal>>(
        &self,
        reader: &mut R,
        render: &Renderer<'_, T>,
        pages: &mut Pages,
        marks: &mut Marks,
        out: WriteOut<'_, E>,
    ) -> Result<(), E> {
        let growth = &self.growth;
        let record_bytes = self.record_bytes() as u64;
        let cluster = self.cluster().bytes();
        if growth.new_len > growth.old_len {
            marks.set.extend(self.meta.extents(growth.place));
            let mut stream = FreshStream::new(self.meta.extents(growth.place), cluster);
            let mut record = vec![0; record_bytes as usize];
            for number in growth.old_len / record_bytes..growth.new_len / record_bytes {
                let number = number as u32;
                render.record(reader, number, &mut record)?;
                let at = u64::from(number) * record_bytes;
                // Space that `$MFT` had allocated beyond its length is not free: it changes with the rest.
                let inside = growth.old_allocated.saturating_sub(at).min(record_bytes) as usize;
                if inside > 0 {
                    self.put_mft(reader, pages, at, &record[..inside])?;
                }
                stream.write(&record[inside..], out)?;
            }
            stream.end(out)?;
        }
        if let Some(range) = growth.bitmap {
            marks.set.extend(self.meta.extents(range));
            marks.clear.extend(self.record_bitmap(reader).map(|stream| stream_extents(&stream))?);
            let mut stream = FreshStream::new(self.meta.extents(range), cluster);
            stream.write(&self.record_bits(reader, render.outcome)?, out)?;
            stream.end(out)?;
        }
        Ok(())
    }

    /// Writes the growth of `$Secure`, as far as it is in new clusters.
    fn write_secure<E: From<Refusal>>(&self, marks: &mut Marks, out: WriteOut<'_, E>) -> Result<(), E> {
        let (Some(secure), places) = (&self.secure, &self.secure_places) else { return Ok(()) };
        let cluster = self.cluster();
        let mut pour = |range: LinearRange, bytes: &[u8]| {
            marks.set.extend(self.meta.extents(range));
            let mut stream = FreshStream::new(self.meta.extents(range), cluster.bytes());
            stream.write(bytes, out)?;
            stream.end(out)
        };
        let mut sds = vec![0; cluster.len_of(places.sds.len).0 as usize];
        for (at, bytes) in secure.pieces() {
            // The part in clusters that `$SDS` had already changes with the rest.
            let skip = secure.allocated.saturating_sub(at).min(bytes.len() as u64) as usize;
            if skip < bytes.len() {
                let into = (at + skip as u64 - secure.allocated) as usize;
                sds[into..into + bytes.len() - skip].copy_from_slice(&bytes[skip..]);
            }
        }
        pour(places.sds, &sds)?;
        for (view, range) in secure.views.iter().zip(places.blocks) {
            if range.len.0 > 0 {
                pour(range, &view.block())?;
            }
        }
        Ok(())
    }

    /// Changes `$Secure` in place.
    fn change_secure<R: ReadAt>(&self, reader: &mut R, pages: &mut Pages) -> Result<(), Refusal> {
        let (Some(secure), Some(edit)) = (&self.secure, self.edit_secure(reader)?) else { return Ok(()) };
        for (at, bytes) in secure.pieces() {
            let inside = secure.allocated.saturating_sub(at).min(bytes.len() as u64) as usize;
            if inside > 0 {
                self.put_stream(reader, pages, &secure.extents, at, &bytes[..inside])?;
            }
        }
        let number = u64::from(metafile::SECURE);
        let file = self.volume.open_file(reader, number)?;
        for view in &secure.views {
            let Home::Block { at, .. } = view.home else { continue };
            let blocks = file.stream(types::INDEX_ALLOCATION, &view.name);
            let blocks = blocks.ok_or_else(|| NtfsError::not_found(VolumePlace::record(number)))?;
            let (mut old, mut block) = (vec![0; INDEX_BLOCK], view.block());
            self.volume.read_range(reader, blocks, at, &mut old)?;
            protect_after(&mut block, sequence_of(&old));
            self.put_stream(reader, pages, &stream_extents(blocks), at, &block)?;
        }
        self.put_record(reader, pages, number, &edit.record())
    }

    /// Puts bytes of `$MFT` at `at` into pages, as far as they are in space allocated before.
    fn put_mft<R: ReadAt>(&self, reader: &mut R, pages: &mut Pages, at: u64, bytes: &[u8]) -> Result<(), Refusal> {
        self.put_stream(reader, pages, &self.mft_extents, at, bytes)
    }

    fn put_stream<R: ReadAt>(
        &self,
        reader: &mut R,
        pages: &mut Pages,
        extents: &[Extent],
        at: u64,
        mut bytes: &[u8],
    ) -> Result<(), Refusal> {
        let cluster = self.cluster();
        let mut start = 0;
        for extent in extents {
            let len = cluster.len_of(extent.len).0;
            let from = at.max(start);
            let skipped = (from - at.min(from)) as usize;
            if bytes.is_empty() {
                break;
            }
            if at < start + len && skipped == 0 {
                let inside = (start + len - at).min(bytes.len() as u64) as usize;
                pages.put(reader, cluster.offset_of(extent.lcn).0 + (at - start), &bytes[..inside])?;
                if inside < bytes.len() {
                    let rest = &bytes[inside..];
                    return self.put_stream(reader, pages, extents, at + inside as u64, rest);
                }
                bytes = &[];
            }
            start += len;
        }
        if bytes.is_empty() {
            return Ok(());
        }
        Err(Refusal::NotUnderstood("$MFT is shorter than it says".into()))
    }

    // ---- in place ----------------------------------------------------------------------------------------------

    /// Replaces a record of the volume; and its copy in `$MFTMirr`.
    fn put_record<R: ReadAt>(
        &self,
        reader: &mut R,
        pages: &mut Pages,
        number: u64,
        record: &[u8],
    ) -> Result<(), Refusal> {
        let at = number * record.len() as u64;
        self.put_mft(reader, pages, at, record)?;
        if at + record.len() as u64 <= self.mirror.1 {
            self.put_stream(reader, pages, &self.mirror.0, at, record)?;
        }
        Ok(())
    }

    fn change_records<R: ReadAt, T: Tree>(
        &self,
        reader: &mut R,
        render: &Renderer<'_, T>,
        pages: &mut Pages,
        marks: &mut Marks,
    ) -> Result<(), Refusal> {
        let mut record = vec![0; self.record_bytes()];
        for &(number, _) in self.numbers.reused() {
            if !render.record(reader, number, &mut record)? {
                continue;
            }
            let raw = self.volume.read_raw_record(reader, u64::from(number))?;
            if raw.starts_with(b"FILE") {
                protect_after(&mut record, sequence_of(&raw));
            }
            self.put_record(reader, pages, u64::from(number), &record)?;
        }
        for &dir in &self.touched {
            let number = raw::reference_number(self.existing_reference(dir).unwrap_or_default());
            for further in self.edit_dir(reader, number)?.further {
                let mut record = self.edit(reader, further)?;
                record.free();
                self.put_record(reader, pages, further, &record.record())?;
            }
            let record = self.edit_directory(reader, render, dir, number, marks)?;
            self.put_record(reader, pages, number, &record)?;
        }
        for (k, replaced) in self.replaced.iter().enumerate() {
            let len = root_file_len(Some(render.outcome), k);
            let extents: Vec<Extent> = self.root_file_extents(k, len).collect();
            marks.set.extend(&extents);
            if let Some(found) = replaced {
                let record = self.edit_root_file(reader, *found, k, len, &extents, marks)?;
                self.put_record(reader, pages, found.record, &record)?;
            }
        }
        self.change_secure(reader, pages)?;
        if self.growth.grows() {
            let edit = self.edit_mft(reader)?;
            self.put_record(reader, pages, u64::from(metafile::MFT), &edit.record())?;
        }
        Ok(())
    }

    fn edit_directory<R: ReadAt, T: Tree>(
        &self,
        reader: &mut R,
        render: &Renderer<'_, T>,
        dir: Option<u32>,
        number: u64,
        marks: &mut Marks,
    ) -> Result<Vec<u8>, Refusal> {
        let Directory { mut edit, freed, .. } = self.edit_dir(reader, number)?;
        marks.clear.extend(freed);
        let (len, cluster) = (self.record_bytes() * 4, self.cluster());
        match render.blocks.get(&dir) {
            None => {
                let entries = self.entries(reader, render.tree, dir, Some(render.outcome))?;
                let root = record::attribute(len, |record| {
                    record.resident_with(AttrType::IndexRoot, &I30, |out| btree::small_root(out, &entries, cluster));
                });
                edit.put(types::INDEX_ROOT, &I30, root);
            }
            Some(&blocks) => {
                for kind in INDEX_ATTRIBUTES {
                    let bytes = record::attribute(len, |record| self.index_attribute(record, kind, dir, blocks));
                    edit.put(kind as u32, &I30, bytes);
                }
            }
        }
        self.touch(&mut edit, Times { modified: self.spec.now, changed: self.spec.now, ..Times::default() });
        if edit.len() > edit.room() {
            return Err(Refusal::TooSplit("the index of a directory".into()));
        }
        Ok(edit.record())
    }

    /// Sets the times of modification and of the record's change.
    fn touch(&self, edit: &mut edit::Edit, times: Times) {
        /// Offset in `$STANDARD_INFORMATION` (docs/spec/ntfs.md#standard-information); the time of the record's change
        /// follows.
        const MODIFIED: usize = 0x08;
        if let Some(standard) = edit.find(types::STANDARD_INFORMATION, &[]) {
            let value = standard.value_mut();
            value[MODIFIED..MODIFIED + 8].copy_from_slice(&times.modified.0.to_le_bytes());
            value[MODIFIED + 8..MODIFIED + 16].copy_from_slice(&times.changed.0.to_le_bytes());
        }
    }

    fn edit_root_file<R: ReadAt>(
        &self,
        reader: &mut R,
        found: FileRef,
        k: usize,
        len: u64,
        extents: &[Extent],
        marks: &mut Marks,
    ) -> Result<Vec<u8>, Refusal> {
        let mut edit = self.edit(reader, found.record)?;
        let there = self.volume.open_file(reader, found.record)?;
        marks.clear.extend(there.data(&[]).map(stream_extents).unwrap_or_default());
        let allocated = self.cluster().len_of(Clusters(self.clusters_for(len))).0;
        let data = record::attribute(self.record_bytes() * 4, |record| {
            if len == 0 {
                record.resident(AttrType::Data, &[], &[]);
            } else {
                record.non_resident(AttrType::Data, &[], Sizes::full(allocated, len), extents.iter().copied());
            }
        });
        edit.put(types::DATA, &[], data);
        let times = self.spec.root_files[k].times;
        self.touch(&mut edit, times);
        // The same as in the index.
        if let Some(name) = edit.find(types::FILE_NAME, &[]) {
            refresh_name(name.value_mut(), times, Some((allocated, len)));
        }
        Ok(edit.record())
    }

    /// Appends one of the three attributes of an index of `blocks` blocks.
    fn index_attribute(&self, record: &mut Record<'_>, kind: AttrType, dir: Option<u32>, blocks: u64) {
        let large = self.large[&dir];
        let cluster = self.cluster();
        let clusters = Clusters(self.clusters_for(blocks * INDEX_BLOCK as u64));
        let bitmap_len = index::bitmap_len(blocks);
        match (kind, large.bitmap) {
            (AttrType::IndexRoot, _) => {
                record.resident_with(kind, &I30, |out| btree::large_root(out, blocks, cluster));
            }
            (AttrType::Bitmap, None) => record.resident_with(kind, &I30, |out| {
                index::bitmap(blocks, 0, &mut out[..bitmap_len as usize]);
                bitmap_len as usize
            }),
            (AttrType::Bitmap, Some(range)) => {
                let sizes = Sizes::full(cluster.len_of(range.len).0, bitmap_len);
                record.non_resident(kind, &I30, sizes, self.meta.extents(range));
            }
            _ => {
                let extents = self.meta.extents(LinearRange { start: large.place.start, len: clusters });
                let sizes = Sizes::full(cluster.len_of(clusters).0, blocks * INDEX_BLOCK as u64);
                record.non_resident(AttrType::IndexAllocation, &I30, sizes, extents);
            }
        }
    }

    // ---- mark --------------------------------------------------------------------------------------------------

    /// The pages of `$Volume`'s record and its copy with the dirty mark, and the record as stored on the volume.
    fn dirty_mark<R: ReadAt>(&self, reader: &mut R) -> Result<(Pages, Vec<u8>), Refusal> {
        let original = self.volume.read_raw_record(reader, u64::from(metafile::VOLUME))?;
        let mut pages = Pages::new(self.spec.unit);
        self.put_volume_record(reader, &mut pages, &self.marked(&original)?)?;
        Ok((pages, original))
    }

    fn put_volume_record<R: ReadAt>(&self, reader: &mut R, pages: &mut Pages, record: &[u8]) -> Result<(), Refusal> {
        self.put_record(reader, pages, u64::from(metafile::VOLUME), record)
    }

    /// `$Volume`'s record as stored on the volume, with the dirty mark added.
    fn marked(&self, original: &[u8]) -> Result<Vec<u8>, Refusal> {
        let place = VolumePlace::record(u64::from(metafile::VOLUME));
        let fail = |fault: RecordFault| Refusal::from(NtfsError::corrupt(place, fault.what));
        let mut bytes = original.to_vec();
        raw::undo_fixups(&mut bytes, *b"FILE", 0x2A).map_err(fail)?;
        let mut edit = edit::Edit::new(&bytes).map_err(fail)?;
        let facts = edit.find(types::VOLUME_INFORMATION, &[]).ok_or_else(|| NtfsError::not_found(place))?;
        if let Some(flags) = facts.value_mut().get_mut(VOLUME_FLAGS_AT) {
            *flags |= DIRTY;
        }
        Ok(edit.record())
    }

    /// Fills the log with ones: nothing in it must be replayed over the changes (docs/spec/ntfs.md#log-file).
    fn reset_log<R: ReadAt, E: From<Refusal>>(&self, reader: &mut R, out: WriteOut<'_, E>) -> Result<(), E> {
        let number = u64::from(metafile::LOG_FILE);
        let log = self.volume.open_file(reader, number).map_err(Refusal::from)?;
        let data = log.data(&[]).ok_or_else(|| Refusal::from(NtfsError::not_found(VolumePlace::record(number))))?;
        let ones = vec![0xFF; PIECE];
        let cluster = self.cluster();
        for extent in stream_extents(data) {
            let (start, len) = (cluster.offset_of(extent.lcn).0, cluster.len_of(extent.len).0);
            let mut at = 0;
            while at < len {
                let piece = (len - at).min(PIECE as u64) as usize;
                out(WriteStep::Mark, VolumeOffset(start + at), &ones[..piece])?;
                at += piece as u64;
            }
        }
        Ok(())
    }

    // ---- bitmaps -----------------------------------------------------------------------------------------------

    /// Sets the bits of records: in place, or in the bitmap's new clusters, which have been written before.
    fn change_record_bits<R: ReadAt, E: From<Refusal>>(
        &self,
        reader: &mut R,
        outcome: &Outcome,
        out: WriteOut<'_, E>,
    ) -> Result<(), E> {
        if self.growth.bitmap.is_some() {
            return Ok(());
        }
        let stream = self.record_bitmap(reader)?;
        let bytes = self.record_bits(reader, outcome)?;
        let mut pages = Pages::new(self.spec.unit);
        self.put_stream(reader, &mut pages, &stream_extents(&stream), 0, &bytes)?;
        for (at, run) in pages.runs(PIECE) {
            out(WriteStep::Change, at, &run)?;
        }
        Ok(())
    }

    fn record_bitmap<R: ReadAt>(&self, reader: &mut R) -> Result<Stream, Refusal> {
        let number = u64::from(metafile::MFT);
        let file = self.volume.open_file(reader, number)?;
        let found = file.stream(types::BITMAP, &[]).cloned();
        Ok(found.ok_or(NtfsError::not_found(VolumePlace::record(number)))?)
    }

    /// The new bitmap of `$MFT`.
    fn record_bits<R: ReadAt>(&self, reader: &mut R, outcome: &Outcome) -> Result<Vec<u8>, Refusal> {
        let stream = self.record_bitmap(reader)?;
        let mut bytes = self.volume.read_whole(reader, &stream, RECORD_BITS_MAX)?;
        bytes.resize(self.growth.new_bits.max(bytes.len() as u64) as usize, 0);
        for n in 0..self.numbers.len() {
            let left_out = match self.role(n) {
                Some(Role::File(file) | Role::Piece(file, _)) => outcome.left_out.contains(file),
                Some(Role::Dir(_) | Role::RootFile(_)) => false,
                None => true,
            };
            let number = self.numbers.nth(n).0;
            if let (false, Some(byte)) = (left_out, bytes.get_mut(number as usize / 8)) {
                *byte |= 1 << (number % 8);
            }
        }
        for &dir in &self.touched {
            let number = raw::reference_number(self.existing_reference(dir).unwrap_or_default());
            for further in self.edit_dir(reader, number)?.further {
                if let Some(byte) = bytes.get_mut((further / 8) as usize) {
                    *byte &= !(1 << (further % 8));
                }
            }
        }
        Ok(bytes)
    }

    fn change_cluster_bits<R: ReadAt, E: From<Refusal>>(
        &self,
        reader: &mut R,
        outcome: &Outcome,
        mut marks: Marks,
        out: WriteOut<'_, E>,
    ) -> Result<(), E> {
        let space = self.data_space();
        marks.set.extend(space.extents(LinearRange { start: 0, len: space.len() }));
        let left_out = outcome.left_out.files().iter();
        marks.clear.extend(left_out.flat_map(|&file| space.extents(self.file_place(file))));
        marks.set.sort_by_key(|extent| extent.lcn);
        marks.clear.sort_by_key(|extent| extent.lcn);
        let number = u64::from(metafile::BITMAP);
        let file = self.volume.open_file(reader, number).map_err(Refusal::from)?;
        let stream = file.data(&[]).ok_or_else(|| Refusal::from(NtfsError::not_found(VolumePlace::record(number))))?;
        let clusters = stream_extents(stream);
        let (mut before, mut after) = (vec![0; BITMAP_CHUNK], vec![0; BITMAP_CHUNK]);
        let mut at = 0;
        while at < stream.size {
            let got = self.volume.read_range(reader, stream, at, &mut before).map_err(Refusal::from)?;
            after.copy_from_slice(&before);
            let first = at * 8;
            for (extents, set) in [(&marks.set, true), (&marks.clear, false)] {
                put_extents(&mut after[..got], first, extents, set);
            }
            let mut pages = Pages::new(self.spec.unit);
            let unit = self.spec.unit as usize;
            for start in (0..got).step_by(unit) {
                let end = (start + unit).min(got);
                if before[start..end] != after[start..end] {
                    self.put_stream(reader, &mut pages, &clusters, at + start as u64, &after[start..end])?;
                }
            }
            for (at, run) in pages.runs(PIECE) {
                out(WriteStep::Change, at, &run)?;
            }
            at += got as u64;
        }
        Ok(())
    }
}

/// Sets or clears the bits of extents (sorted) in a part of a bitmap that starts with bit `first`.
fn put_extents(bytes: &mut [u8], first: u64, extents: &[Extent], set: bool) {
    let end = first + bytes.len() as u64 * 8;
    // Extents lie apart from each other, so their ends ascend with their starts.
    let from = extents.partition_point(|extent| extent.lcn.0 + extent.len.0 <= first);
    for extent in extents[from..].iter().take_while(|extent| extent.lcn.0 < end) {
        let (mut bit, stop) = (extent.lcn.0.max(first) - first, (extent.lcn.0 + extent.len.0).min(end) - first);
        while bit < stop {
            let byte = (bit / 8) as usize;
            if bit % 8 == 0 && stop - bit >= 8 {
                bytes[byte] = if set { 0xFF } else { 0 };
                bit += 8;
                continue;
            }
            let mask = 1 << (bit % 8);
            if set {
                bytes[byte] |= mask;
            } else {
                bytes[byte] &= !mask;
            }
            bit += 1;
        }
    }
}

/// Bytes streamed into clusters that were free, in pieces of whole clusters.
struct FreshStream {
    extents: Vec<Extent>,
    next: usize,
    at: u64,
    cluster: u64,
    buffer: Vec<u8>,
}

impl FreshStream {
    fn new(extents: impl Iterator<Item = Extent>, cluster: u64) -> Self {
        Self { extents: extents.collect(), next: 0, at: 0, cluster, buffer: Vec::new() }
    }

    fn write<E>(&mut self, bytes: &[u8], out: WriteOut<'_, E>) -> Result<(), E> {
        self.buffer.extend_from_slice(bytes);
        while self.buffer.len() as u64 >= (PIECE as u64).max(self.cluster) {
            self.pour(out)?;
        }
        Ok(())
    }

    /// Writes the rest, and zeros up to the last cluster's end.
    fn end<E>(&mut self, out: WriteOut<'_, E>) -> Result<(), E> {
        let left: u64 =
            self.extents[self.next..].iter().map(|extent| extent.len.0 * self.cluster).sum::<u64>() - self.at;
        self.buffer.resize(self.buffer.len().max(left as usize), 0);
        while !self.buffer.is_empty() && self.next < self.extents.len() {
            self.pour(out)?;
        }
        Ok(())
    }

    /// Writes one piece of whole clusters.
    fn pour<E>(&mut self, out: WriteOut<'_, E>) -> Result<(), E> {
        let extent = self.extents[self.next];
        let len = extent.len.0 * self.cluster;
        let whole = self.buffer.len() as u64 / self.cluster * self.cluster;
        let piece = (len - self.at).min(whole);
        out(WriteStep::Fresh, VolumeOffset(extent.lcn.0 * self.cluster + self.at), &self.buffer[..piece as usize])?;
        self.buffer.drain(..piece as usize);
        self.at += piece;
        if self.at == len {
            self.next += 1;
            self.at = 0;
        }
        Ok(())
    }
}

/// Renders the new records.
struct Renderer<'a, T> {
    append: &'a Append,
    tree: &'a T,
    outcome: &'a Outcome,
    blocks: &'a BTreeMap<Option<u32>, u64>,
}

impl<T: Tree> Renderer<'_, T> {
    /// Renders a record; `false` if it is unused, and therefore free.
    fn record<R: ReadAt>(&self, reader: &mut R, number: u32, out: &mut [u8]) -> Result<bool, Refusal> {
        let append = self.append;
        let role = append.numbers.position(number).and_then(|n| append.role(n));
        let left_out = |file| self.outcome.left_out.contains(file);
        match role {
            None => {
                record::free(number, 1, out);
                return Ok(false);
            }
            Some(role @ (Role::File(file) | Role::Piece(file, _))) if left_out(file) => {
                // Free, with the sequence number that it would have had: nothing ever referred to it.
                record::free(number, append.record_of(role).1, out);
                return Ok(false);
            }
            Some(Role::Dir(dir)) => self.directory(reader, dir, out)?,
            Some(Role::RootFile(k)) => {
                let file = &append.spec.root_files[k];
                let name: Vec<u16> = file.name.encode_utf16().collect();
                let len = root_file_len(Some(self.outcome), k);
                let facts = append.file_name_facts(append.dir_reference(None), file.times, len);
                self.file(Role::RootFile(k), &name, &facts, append.root_file_extents(k, len), out);
            }
            Some(Role::File(file)) => {
                let facts = self.tree.file(file);
                let mut name = Vec::new();
                self.tree.file_name(file, &mut name);
                let facts = append.file_name_facts(append.dir_reference(facts.dir), facts.times, facts.len.0);
                let extents = append.data_space().extents(append.file_place(file));
                self.file(Role::File(file), &name, &facts, extents, out);
            }
            Some(Role::Piece(file, piece)) => self.piece(file, piece, out),
        }
        Ok(true)
    }

    /// Begins a record with its times, name and security.
    fn begin<'o>(
        &self,
        out: &'o mut [u8],
        security: &NewSecurity,
        attributes: u32,
        name: &[u16],
        facts: &FileName,
        list: Option<&[u8]>,
    ) -> Record<'o> {
        let mut record = Record::begin(out);
        let security_id = match security {
            NewSecurity::Id(id) => Some(*id),
            NewSecurity::Own(_) => None,
        };
        record.standard(Standard { times: facts.times, attributes, security_id });
        if let Some(list) = list {
            record.resident(AttrType::AttributeList, &[], list);
        }
        record.file_name(facts, name);
        if let NewSecurity::Own(descriptor) = security {
            record.resident(AttrType::SecurityDescriptor, &[], descriptor);
        }
        record
    }

    fn directory<R: ReadAt>(&self, reader: &mut R, dir: u32, out: &mut [u8]) -> Result<(), Refusal> {
        let append = self.append;
        let (number, sequence) = append.record_of(Role::Dir(dir));
        let mut name = Vec::new();
        self.tree.dir_name(dir, &mut name);
        let facts = self.tree.dir(dir);
        let facts = append.dir_name_facts(append.dir_reference(facts.parent), facts.times);
        let cluster = append.cluster();
        let entries = match self.blocks.get(&Some(dir)) {
            Some(_) => Entries::default(),
            None => append.entries(reader, self.tree, Some(dir), Some(self.outcome))?,
        };
        let mut record = self.begin(out, append.dir_security(name.len()), append.dir_attributes(), &name, &facts, None);
        match self.blocks.get(&Some(dir)) {
            None => record.resident_with(AttrType::IndexRoot, &I30, |out| btree::small_root(out, &entries, cluster)),
            Some(&blocks) => {
                for kind in INDEX_ATTRIBUTES {
                    append.index_attribute(&mut record, kind, Some(dir), blocks);
                }
            }
        }
        let flags = record_flag::IN_USE | record_flag::DIRECTORY;
        record.finish(Head { number, sequence, links: 1, flags });
        Ok(())
    }

    fn file(&self, role: Role, name: &[u16], facts: &FileName, extents: impl Iterator<Item = Extent>, out: &mut [u8]) {
        let append = self.append;
        let (number, sequence) = append.record_of(role);
        let list = match role {
            Role::File(file) if append.splits.contains_key(&file) => Some(self.list(file)),
            _ => None,
        };
        // Of a hidden file Windows leaves the length to the directory.
        let length = if append.spec.hidden.is_some() { 0 } else { facts.data };
        let name_facts = FileName { data: length, ..*facts };
        let attributes = append.file_attributes();
        let mut record = self.begin(out, &append.file_security, attributes, name, &name_facts, list.as_deref());
        if facts.data == 0 {
            record.resident(AttrType::Data, &[], &[]);
        } else if list.is_none() {
            record.non_resident(AttrType::Data, &[], Sizes::full(facts.allocated, facts.data), extents);
        }
        record.finish(Head { number, sequence, links: 1, flags: record_flag::IN_USE });
    }

    /// The attribute list of a file in several records.
    fn list(&self, file: u32) -> Vec<u8> {
        let append = self.append;
        let own = append.role_reference(Role::File(file));
        // The ids are those that the record's attributes get, in their order; the list itself has the second.
        let mut rows = vec![(AttrType::StandardInformation, 0, own, 0u16), (AttrType::FileName, 0, own, 2)];
        if let NewSecurity::Own(_) = append.file_security {
            rows.push((AttrType::SecurityDescriptor, 0, own, 3));
        }
        let mut vcn = 0;
        if let Some(split) = append.splits.get(&file) {
            for (i, piece) in split.pieces.iter().enumerate() {
                rows.push((AttrType::Data, vcn, append.role_reference(Role::Piece(file, i)), 0));
                vcn += piece.len.0;
            }
        }
        let mut out = Vec::with_capacity(rows.len() * LIST_ENTRY);
        for (kind, lowest, reference, id) in rows {
            let start = out.len();
            out.extend((kind as u32).to_le_bytes());
            out.extend((LIST_ENTRY as u16).to_le_bytes());
            out.extend([0, 0x1A]);
            out.extend(u64::to_le_bytes(lowest));
            out.extend(reference.to_le_bytes());
            out.extend(id.to_le_bytes());
            out.resize(start + LIST_ENTRY, 0);
        }
        out
    }

    fn piece(&self, file: u32, piece: usize, out: &mut [u8]) {
        let append = self.append;
        let (number, sequence) = append.record_of(Role::Piece(file, piece));
        let Some(split) = append.splits.get(&file) else { return };
        let lowest = split.pieces[..piece].iter().map(|piece| piece.len.0).sum();
        let len = self.tree.file(file).len.0;
        let allocated = append.cluster().len_of(Clusters(append.clusters_for(len))).0;
        let mut record = Record::begin(out);
        let extents = append.data_space().extents(split.pieces[piece]);
        record.data_piece(Sizes::full(allocated, len), lowest, extents);
        let head = Head { number, sequence, links: 0, flags: record_flag::IN_USE };
        record.finish_for(head, append.role_reference(Role::File(file)));
    }
}
