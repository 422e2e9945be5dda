//! Clusters for everything new, and further records of files with many runs.

use super::super::Refusal;
use super::super::edit::Edit;
use super::super::secure::Home;
use super::super::space::{given, take};
use super::{
    Append, Growth, LIST_ENTRY, Large, Needs, NewSecurity, Numbers, SecurePlaces, Split, joined, one_run,
    stream_extents,
};
use crate::build::index::{self, LARGE_ROOT_VALUE};
use crate::build::record::{self, Sizes};
use crate::build::system::{I30, SDS};
use crate::build::{LinearRange, Tree};
use crate::format::{AttrType, INDEX_BLOCK, metafile};
use crate::read::raw::types;
use crate::read::{NtfsError, ReadAt, VolumePlace, display_name};
use crate::units::{ByteLen, Clusters, Extent};

impl Append {
    /// Places everything; `false` if files with many runs need more records than were counted.
    pub(super) fn place<R: ReadAt>(
        &mut self,
        reader: &mut R,
        tree: &impl Tree,
        mut free: Vec<Extent>,
        candidates: &[(u32, u16)],
        shapes: &[Needs],
    ) -> Result<bool, Refusal> {
        let grown = self.number(candidates)?;
        // Metadata: the growth of $MFT and its bitmap, then the indexes.
        let mut end = self.grow(reader, grown)?;
        end = self.place_secure(end);
        end = self.place_large(shapes, end);
        let lens = self.spec.root_files.iter().map(|file| self.clusters_for(file.len_max.0));
        let root_lens: Vec<u64> = lens.collect();
        self.file_starts.clear();
        let mut data = 0u64;
        for i in 0..self.files {
            self.file_starts.push(data);
            data = data.saturating_add(self.clusters_for(tree.file(i).len.0));
        }
        self.file_starts.push(data);
        let needed = end.saturating_add(root_lens.iter().sum()).saturating_add(data);
        let too_full = || {
            let bytes = |clusters: u64| ByteLen(clusters.saturating_mul(self.cluster().bytes()));
            Refusal::TooFull { needed: bytes(needed), free: bytes(self.free.0) }
        };
        if needed > self.free.0 {
            return Err(too_full());
        }
        let placed = match &self.spec.hidden {
            Some(hidden) => Some(given(&mut free, &hidden.places, &self.file_starts).ok_or_else(too_full)?),
            None => None,
        };
        let meta = take(&mut free, end).ok_or_else(too_full)?;
        let mut root_files = Vec::new();
        for len in root_lens {
            root_files.push(take(&mut free, len).ok_or_else(too_full)?);
        }
        let data = match placed {
            Some(placed) => placed,
            None => take(&mut free, data).ok_or_else(too_full)?,
        };
        (self.meta, self.root_files, self.data) = (meta, root_files, data);
        self.check_runs(reader, shapes)?;
        self.split_files(tree)
    }

    /// Numbers the new records, the free ones among `candidates` first. Returns by how many `$MFT` grows.
    fn number(&mut self, candidates: &[(u32, u16)]) -> Result<u64, Refusal> {
        let count = u64::from(self.new_dirs + self.new_root_files()) + u64::from(self.files) + u64::from(self.further);
        let reused = candidates.len().min(count as usize);
        let first_new = self.volume.record_count();
        if first_new + count > u64::from(u32::MAX) {
            return Err(Refusal::NotUnderstood("more records than NTFS can number".into()));
        }
        let reused = candidates[..reused].to_vec();
        let grown = count - reused.len() as u64;
        self.numbers = Numbers { reused, first_new: first_new as u32, count: count as u32 };
        Ok(grown)
    }

    /// Places the blocks and bitmaps of large indexes from `end` on; returns their end.
    fn place_large(&mut self, shapes: &[Needs], mut end: u64) -> u64 {
        self.large.clear();
        for needs in shapes {
            let len = self.clusters_for(needs.blocks_max * INDEX_BLOCK as u64);
            let place = LinearRange { start: end, len: Clusters(len) };
            end += len;
            let bitmap_len = index::bitmap_len(needs.blocks_max);
            // One run is assumed here, and `check_runs` sees to it.
            let with_bitmap = self.large_len(needs.room.0, std::iter::once(one_run(len)))
                + record::resident_len(I30.len(), bitmap_len as usize);
            let bitmap = (with_bitmap > needs.room.1).then(|| {
                let range = LinearRange { start: end, len: Clusters(self.clusters_for(bitmap_len)) };
                end += range.len.0;
                range
            });
            self.large.insert(needs.dir, Large { place, bitmap });
        }
        end
    }

    /// Bytes of `base`, the index root and the index allocation, without the bitmap.
    fn large_len(&self, base: usize, extents: impl Iterator<Item = Extent>) -> usize {
        base + record::resident_len(I30.len(), LARGE_ROOT_VALUE) + record::non_resident_len(I30.len(), extents)
    }

    /// Grows `$MFT` by this many records, from the start of the space of metadata; returns the end of that.
    fn grow<R: ReadAt>(&mut self, reader: &mut R, records: u64) -> Result<u64, Refusal> {
        let file = self.volume.open_file(reader, u64::from(metafile::MFT))?;
        let place = VolumePlace::record(u64::from(metafile::MFT));
        let data = file.data(&[]).ok_or(NtfsError::not_found(place))?;
        let bitmap = file.stream(types::BITMAP, &[]).ok_or(NtfsError::not_found(place))?;
        let record_bytes = self.record_bytes() as u64;
        let old_len = data.size;
        let mut growth = Growth {
            old_len,
            new_len: old_len,
            old_allocated: data.allocated,
            old_bits: bitmap.size,
            new_bits: bitmap.size,
            ..Growth::default()
        };
        let mut end = 0;
        if records > 0 {
            if data.valid != old_len
                || bitmap.valid != bitmap.size
                || !file.extensions.is_empty()
                || bitmap.is_resident()
            {
                return Err(Refusal::NotUnderstood("$MFT has to grow, and is not laid out plainly".into()));
            }
            let unit = self.cluster().bytes().max(record_bytes);
            growth.new_len = (old_len + records * record_bytes).next_multiple_of(unit);
            let clusters = self.clusters_for(growth.new_len.saturating_sub(growth.old_allocated));
            growth.place = LinearRange { start: 0, len: Clusters(clusters) };
            end = clusters;
            let bits = (growth.new_len / record_bytes).div_ceil(64) * 8;
            growth.new_bits = bits.max(growth.old_bits);
            if growth.new_bits > bitmap.allocated {
                let len = self.clusters_for(growth.new_bits);
                growth.bitmap = Some(LinearRange { start: end, len: Clusters(len) });
                end += len;
            }
        }
        self.growth = growth;
        Ok(end)
    }

    /// Places the growth of `$Secure`; returns the end.
    fn place_secure(&mut self, mut end: u64) -> u64 {
        let Some(secure) = &self.secure else { return end };
        let mut take = |len: u64| {
            let range = LinearRange { start: end, len: Clusters(self.clusters_for(len)) };
            end = range.end();
            range
        };
        let sds = take(secure.size().saturating_sub(secure.allocated));
        let blocks = [0, 1].map(|i| take(if secure.views[i].home == Home::New { INDEX_BLOCK as u64 } else { 0 }));
        self.secure_places = SecurePlaces { sds, blocks };
        end
    }

    /// The new record of `$Secure`, if anything is added to it.
    pub(in crate::append) fn edit_secure<R: ReadAt>(&self, reader: &mut R) -> Result<Option<Edit>, Refusal> {
        let Some(secure) = &self.secure else { return Ok(None) };
        let mut edit = self.edit(reader, u64::from(metafile::SECURE))?;
        let (cluster, places) = (self.cluster(), &self.secure_places);
        let mut extents = secure.extents.clone();
        extents.extend(self.meta.extents(places.sds));
        let sizes = Sizes::full(secure.allocated + cluster.len_of(places.sds.len).0, secure.size());
        let sds = record::attribute(self.record_bytes() * 4, |record| {
            record.non_resident(AttrType::Data, &SDS, sizes, joined(extents).into_iter());
        });
        edit.put(types::DATA, &SDS, sds);
        for (view, place) in secure.views.iter().zip(places.blocks) {
            let block: Vec<Extent> = self.meta.extents(place).collect();
            view.put(&mut edit, self.record_bytes(), cluster, &block);
        }
        Ok(Some(edit))
    }

    /// The new record 0.
    pub(in crate::append) fn edit_mft<R: ReadAt>(&self, reader: &mut R) -> Result<Edit, Refusal> {
        let number = u64::from(metafile::MFT);
        let file = self.volume.open_file(reader, number)?;
        let mut edit = self.edit(reader, number)?;
        let growth = &self.growth;
        let cluster = self.cluster();
        let missing = || NtfsError::not_found(VolumePlace::record(number));
        let mut extents = stream_extents(file.data(&[]).ok_or_else(missing)?);
        extents.extend(self.meta.extents(growth.place));
        let extents = joined(extents);
        let allocated = growth.old_allocated + cluster.len_of(growth.place.len).0;
        let sizes = Sizes::full(allocated, growth.new_len);
        let data = record::attribute(self.record_bytes() * 4, |record| {
            record.non_resident(AttrType::Data, &[], sizes, extents.iter().copied());
        });
        edit.put(types::DATA, &[], data);
        let bitmap = file.stream(types::BITMAP, &[]).ok_or_else(missing)?;
        let (extents, allocated) = match growth.bitmap {
            Some(range) => (self.meta.extents(range).collect(), cluster.len_of(range.len).0),
            None => (stream_extents(bitmap), bitmap.allocated),
        };
        let sizes = Sizes::full(allocated, growth.new_bits);
        let bitmap = record::attribute(self.record_bytes() * 4, |record| {
            record.non_resident(AttrType::Bitmap, &[], sizes, extents.iter().copied());
        });
        edit.put(types::BITMAP, &[], bitmap);
        Ok(edit)
    }

    /// Checks that all run lists except those of files fit their records.
    fn check_runs<R: ReadAt>(&self, reader: &mut R, shapes: &[Needs]) -> Result<(), Refusal> {
        if self.growth.grows() {
            let edit = self.edit_mft(reader)?;
            if edit.len() > edit.room() {
                return Err(Refusal::TooSplit("$MFT".into()));
            }
        }
        if let Some(edit) = self.edit_secure(reader)?
            && edit.len() > edit.room()
        {
            return Err(Refusal::TooSplit("$Secure".into()));
        }
        for needs in shapes {
            let large = self.large[&needs.dir];
            let base = self.large_len(needs.room.0, self.meta.extents(large.place));
            let bitmap = match large.bitmap {
                Some(range) => record::non_resident_len(I30.len(), self.meta.extents(range)),
                None => record::resident_len(I30.len(), index::bitmap_len(needs.blocks_max) as usize),
            };
            if base + bitmap > needs.room.1 {
                return Err(Refusal::TooSplit("the index of a directory".into()));
            }
        }
        for (k, file) in self.spec.root_files.iter().enumerate() {
            let (base, room) = match self.replaced[k] {
                Some(found) => {
                    let mut edit = self.edit(reader, found.record)?;
                    edit.remove(types::DATA, &[]);
                    (edit.len(), edit.room())
                }
                None => {
                    let units = file.name.encode_utf16().count();
                    (self.file_base(units), self.room())
                }
            };
            if base + record::non_resident_len(0, self.root_file_extents(k, file.len_max.0)) > room {
                return Err(Refusal::TooSplit(file.name.clone()));
            }
        }
        Ok(())
    }

    fn file_base(&self, name_units: usize) -> usize {
        self.file_security.len() + record::resident_len(0, record::file_name_len(name_units))
    }

    /// Finds the files whose runs do not fit one record; `false` if they need more records than were counted.
    fn split_files(&mut self, tree: &impl Tree) -> Result<bool, Refusal> {
        self.splits.clear();
        let room = self.room();
        let mut further = 0u32;
        let mut name = Vec::new();
        for i in 0..self.files {
            let place = self.file_place(i);
            if place.len.0 == 0 || self.data.run_from(place.start) >= place.len.0 {
                continue;
            }
            name.clear();
            tree.file_name(i, &mut name);
            let base = self.file_base(name.len());
            if base + record::non_resident_len(0, self.data.extents(place)) <= room {
                continue;
            }
            let mut pieces: Vec<LinearRange> = Vec::new();
            let mut piece: Vec<Extent> = Vec::new();
            let mut start = place.start;
            for extent in self.data.extents(place) {
                piece.push(extent);
                if record::non_resident_len(0, piece.iter().copied()) > room {
                    let len: u64 = piece[..piece.len() - 1].iter().map(|extent| extent.len.0).sum();
                    pieces.push(LinearRange { start, len: Clusters(len) });
                    start += len;
                    piece = vec![extent];
                }
            }
            pieces.push(LinearRange { start, len: Clusters(place.end() - start) });
            let list = record::resident_len(0, LIST_ENTRY * (self.listed_in_base() + pieces.len()));
            if base + list > room {
                return Err(Refusal::TooSplit(display_name(&name)));
            }
            let count = pieces.len() as u32;
            self.splits.insert(i, Split { first: further, pieces });
            further += count;
        }
        let enough = further <= self.further;
        self.further = self.further.max(further);
        Ok(enough)
    }

    /// Number of attributes that the base record of a split file keeps, other than its list.
    pub(in crate::append) fn listed_in_base(&self) -> usize {
        match self.file_security {
            NewSecurity::Id(_) => 2,
            NewSecurity::Own(_) => 3,
        }
    }
}
