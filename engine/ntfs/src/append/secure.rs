//! `$Secure` of an existing volume: security ids for new files, and new entries where no existing one fits
//! (docs/spec/ntfs.md#security and docs/spec/ntfs.md#appending, point 7).

use zerocopy::{FromBytes, IntoBytes};

use super::edit::Edit;
use super::plan::{one_run, stream_extents};
use crate::build::index::{self, ViewEntry};
use crate::build::record::{self, Sizes};
use crate::build::security::{self, Grant};
use crate::build::system::{SDH, SDS, SII};
use crate::format::{AttrType, INDEX_BLOCK, SecurityEntry, collation, metafile};
use crate::read::index::{Index, IndexEntry, IndexStep, Node, walk};
use crate::read::raw::types;
use crate::read::{NtfsError, ReadAt, Volume};
use crate::units::{ClusterSize, Clusters, Extent};

/// Bytes of a region of `$SDS`; its mirror follows.
pub(super) const REGION: u64 = 256 << 10;
const HEADER: usize = size_of::<SecurityEntry>();
/// Room for entries in a block of an index, the end entry included (docs/spec/ntfs.md#indexes).
const BLOCK_ROOM: usize = 4032;
const END_ENTRY: usize = 16;

/// Location of the entries of `$SII` or `$SDH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// In the record.
    Root,
    /// In the only block in use: its VCN, and its offset in the stream.
    Block { vcn: u64, at: u64 },
    /// In a block that is added to the index.
    New,
}

/// One of the two indexes.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub name: [u16; 4],
    pub rule: u32,
    pub home: Home,
    pub entries: Vec<ViewEntry>,
}

impl View {
    fn read<R: ReadAt>(
        volume: &Volume,
        reader: &mut R,
        index: &Index<'_>,
        (name, rule): ([u16; 4], u32),
    ) -> Result<Option<Self>, NtfsError> {
        if index.block_bytes != INDEX_BLOCK as u64 {
            return Ok(None);
        }
        let fail = |node: &Node| {
            let place = index.place(node, 0);
            move |fault: crate::read::raw::RecordFault| NtfsError::corrupt(place, fault.what)
        };
        let root = index.root();
        let found = root.entries().map_err(fail(&root))?;
        let (node, found, home) = match found.as_slice() {
            [IndexEntry { sub: Some(vcn), .. }] => {
                let node = index.block(volume, reader, *vcn)?;
                let found = node.entries().map_err(fail(&node))?;
                (node, found, Home::Block { vcn: *vcn, at: vcn * index.vcn_bytes })
            }
            _ => (root, found, Home::Root),
        };
        // A tree of several blocks is left as it is.
        if found.iter().any(|entry| entry.sub.is_some()) {
            return Ok(None);
        }
        let mut entries = Vec::new();
        for entry in found.iter().filter(|entry| !entry.is_end()) {
            let (at, len) = (entry.reference as u16 as usize, (entry.reference >> 16) as u16 as usize);
            let bytes = node.entry_bytes(entry);
            let (Some(data), Some(behind)) = (bytes.get(at..at + len), bytes.get(at + len..)) else { return Ok(None) };
            let mut padding = [0; 4];
            let kept = behind.len().min(padding.len());
            padding[..kept].copy_from_slice(&behind[..kept]);
            entries.push(ViewEntry { key: node.key(entry).to_vec(), data: data.to_vec(), padding });
        }
        Ok(Some(Self { name, rule, home, entries }))
    }

    fn entries_len(&self) -> usize {
        self.entries.iter().map(ViewEntry::len).sum()
    }

    fn fits_block(&self) -> bool {
        self.entries_len() + END_ENTRY <= BLOCK_ROOM
    }

    /// Bytes of its attributes in the record, where the index moves into it or gets a block.
    fn attributes_len(&self, home: Home) -> usize {
        let name = self.name.len();
        match home {
            Home::Root => record::resident_len(name, index::root_value_len(self.entries_len())),
            _ => {
                record::resident_len(name, index::LARGE_ROOT_VALUE)
                    + record::non_resident_len(name, std::iter::once(one_run(1)))
                    + record::resident_len(name, 8)
            }
        }
    }

    /// Puts its attributes into the record; `block` are the clusters it gets.
    pub(super) fn put(&self, edit: &mut Edit, record_bytes: usize, cluster: ClusterSize, block: &[Extent]) {
        let attribute =
            |fill: &mut dyn FnMut(&mut record::Record<'_>)| record::attribute(record_bytes * 4, |r| fill(r));
        match self.home {
            Home::Block { .. } => {}
            Home::Root => {
                let root = attribute(&mut |record| {
                    record.resident_with(AttrType::IndexRoot, &self.name, |out| {
                        index::view_root(out, self.rule, cluster, &self.entries)
                    });
                });
                edit.put(types::INDEX_ROOT, &self.name, root);
            }
            Home::New => {
                let root = attribute(&mut |record| {
                    record.resident_with(AttrType::IndexRoot, &self.name, |out| {
                        index::large_root(out, (0, self.rule), cluster, 0)
                    });
                });
                edit.put(types::INDEX_ROOT, &self.name, root);
                let len = Clusters(block.iter().map(|extent| extent.len.0).sum());
                let sizes = Sizes::full(cluster.len_of(len).0, INDEX_BLOCK as u64);
                let blocks = attribute(&mut |record| {
                    record.non_resident(AttrType::IndexAllocation, &self.name, sizes, block.iter().copied());
                });
                edit.put(types::INDEX_ALLOCATION, &self.name, blocks);
                let mut bits = [0; 8];
                index::bitmap(1, 0, &mut bits);
                let bitmap = attribute(&mut |record| record.resident(AttrType::Bitmap, &self.name, &bits));
                edit.put(types::BITMAP, &self.name, bitmap);
            }
        }
    }

    /// Its only block.
    pub(super) fn block(&self) -> Vec<u8> {
        let vcn = if let Home::Block { vcn, .. } = self.home { vcn } else { 0 };
        let mut block = vec![0; INDEX_BLOCK];
        index::view_block(&mut block, vcn, &self.entries);
        block
    }
}

/// Longest descriptor that is examined.
const DESCRIPTOR_MAX: u64 = 64 << 10;

/// Every descriptor of the volume with its id, whatever the layout of `$Secure`. An unreadable one is omitted.
pub(super) fn descriptors<R: ReadAt>(volume: &Volume, reader: &mut R) -> Result<Vec<(u32, Vec<u8>)>, NtfsError> {
    let file = volume.open_file(reader, u64::from(metafile::SECURE))?;
    let Some(sds) = file.data(&SDS) else { return Ok(Vec::new()) };
    let index = Index::open(volume, &file, &SII)?;
    let mut headers: Vec<SecurityEntry> = Vec::new();
    walk(volume, reader, &index, |step| {
        if let IndexStep::Entry { node, entry } = step {
            let (at, len) = (entry.reference as u16 as usize, (entry.reference >> 16) as u16 as usize);
            let data = node.entry_bytes(entry).get(at..at + len);
            headers.extend(data.and_then(|data| SecurityEntry::read_from_bytes(data).ok()));
        }
    });
    let mut out = Vec::new();
    for header in headers {
        let len = u64::from(header.length.get()).saturating_sub(HEADER as u64);
        let end = header.offset.get().checked_add(u64::from(header.length.get()));
        if len == 0 || len > DESCRIPTOR_MAX || end.is_none_or(|end| end > sds.size) {
            continue;
        }
        let mut descriptor = vec![0; len as usize];
        volume.read_range(reader, sds, header.offset.get() + HEADER as u64, &mut descriptor)?;
        out.push((header.id.get(), descriptor));
    }
    Ok(out)
}

/// `$Secure`, if entries can be added to it, with the additions.
#[derive(Clone, Debug)]
pub(super) struct Secure {
    descriptors: Vec<(u32, Vec<u8>)>,
    /// Clusters of `$SDS`, its allocated size, and the end of its last entry in the first region.
    pub extents: Vec<Extent>,
    pub allocated: u64,
    old_end: u64,
    /// `$SDH`, then `$SII`.
    pub views: [View; 2],
    /// Bytes to write from `old_end` on, in the region and in its mirror.
    added: Vec<u8>,
}

impl Secure {
    /// `None` where its layout is not supported.
    pub(super) fn read<R: ReadAt>(volume: &Volume, reader: &mut R) -> Result<Option<Self>, NtfsError> {
        let file = volume.open_file(reader, u64::from(metafile::SECURE))?;
        let Some(sds) = file.data(&SDS) else { return Ok(None) };
        let is_plain = !sds.is_resident() && !sds.is_compressed() && !sds.is_sparse() && !sds.is_encrypted();
        let has_holes = sds.runs().iter().any(|run| run.is_hole());
        let one_region = sds.size > REGION && sds.size <= 2 * REGION && sds.valid == sds.size;
        if !file.extensions.is_empty() || !is_plain || has_holes || !one_region {
            return Ok(None);
        }
        let mut views = Vec::new();
        for (name, rule) in [(SDH, collation::SECURITY_HASH), (SII, collation::ULONG)] {
            let index = Index::open(volume, &file, &name)?;
            match View::read(volume, reader, &index, (name, rule))? {
                Some(view) => views.push(view),
                None => return Ok(None),
            }
        }
        let Ok(views) = <[View; 2]>::try_from(views) else { return Ok(None) };
        let bytes = volume.read_whole(reader, sds, 2 * REGION)?;
        let mut descriptors = Vec::new();
        let mut old_end = 0;
        for entry in &views[1].entries {
            let Ok(header) = SecurityEntry::read_from_bytes(&entry.data) else { return Ok(None) };
            let SecurityEntry { id, offset, length, .. } = header;
            let (at, len) = (offset.get(), u64::from(length.get()));
            let end = at.saturating_add(len);
            let Some(descriptor) = bytes.get(at as usize + HEADER..end.min(REGION) as usize) else { return Ok(None) };
            old_end = old_end.max(end);
            descriptors.push((id.get(), descriptor.to_vec()));
        }
        let whole = old_end + REGION == sds.size;
        let (extents, allocated) = (stream_extents(sds), sds.allocated);
        Ok(whole.then_some(Self { descriptors, extents, allocated, old_end, views, added: Vec::new() }))
    }

    /// Whether an id is known with a descriptor that grants this.
    pub(super) fn grants(&self, id: u32, grant: Grant) -> bool {
        self.descriptors.iter().any(|(other, descriptor)| *other == id && grant.is_in(descriptor))
    }

    /// The id of this descriptor, or of the first equivalent one; a new one where there is none.
    pub(super) fn id_of(&mut self, wanted: Vec<u8>, grant: Grant) -> u32 {
        let exact = self.descriptors.iter().find(|(_, descriptor)| *descriptor == wanted);
        let found = exact.or_else(|| self.descriptors.iter().find(|(_, descriptor)| grant.is_in(descriptor)));
        if let Some((id, _)) = found {
            return *id;
        }
        let id = self.descriptors.iter().map(|(id, _)| id + 1).max().unwrap_or(security::ID_SYSTEM_READ);
        let at = (self.old_end + self.added.len() as u64).next_multiple_of(16);
        self.added.resize((at - self.old_end) as usize, 0);
        let header = SecurityEntry {
            hash: security::hash(&wanted).into(),
            id: id.into(),
            offset: at.into(),
            length: ((HEADER + wanted.len()) as u32).into(),
        };
        self.added.extend(header.as_bytes());
        self.added.extend(&wanted);
        let [by_hash, by_id] = &mut self.views;
        by_hash.entries.push(security::by_hash_entry(&header));
        by_hash.entries.sort_by_key(|entry| key_words(&entry.key));
        by_id.entries.push(security::by_id_entry(&header));
        by_id.entries.sort_by_key(|entry| key_words(&entry.key));
        self.descriptors.push((id, wanted));
        id
    }

    /// Finds places for the additions, with `edit` as the record; `None` where there is none, or nothing was added.
    pub(super) fn settle(mut self, mut edit: Edit) -> Option<Self> {
        if self.added.is_empty() || self.end() > REGION {
            return None;
        }
        edit.remove(types::DATA, &SDS)?;
        let mut base = edit.len();
        // One more run than it has, and the farthest.
        let runs = self.extents.iter().copied().chain(std::iter::once(one_run(1)));
        base += record::non_resident_len(SDS.len(), runs);
        let mut open = Vec::new();
        for (i, view) in self.views.iter().enumerate() {
            match view.home {
                Home::Root => {
                    base -= edit.remove(types::INDEX_ROOT, &view.name)?.bytes.len();
                    open.push(i);
                }
                _ if !view.fits_block() => return None,
                _ => {}
            }
        }
        // The record as long as it has room, then blocks: the longer index first.
        for moved in 0..=open.len() {
            let home = |k: usize| if k < moved { Home::New } else { Home::Root };
            let len: usize = open.iter().enumerate().map(|(k, &i)| self.views[i].attributes_len(home(k))).sum();
            if base + len > edit.room() {
                continue;
            }
            for (k, &i) in open.iter().enumerate() {
                self.views[i].home = home(k);
            }
            let fits = self.views.iter().all(|view| view.home == Home::Root || view.fits_block());
            return fits.then_some(self);
        }
        None
    }

    /// End of the last existing entry.
    pub(super) const fn old_end(&self) -> u64 {
        self.old_end
    }

    /// End of the last entry in the first region.
    pub(super) fn end(&self) -> u64 {
        self.old_end + self.added.len() as u64
    }

    /// Bytes of `$SDS`.
    pub(super) fn size(&self) -> u64 {
        REGION + self.end()
    }

    /// Additions to `$SDS` with their offsets: in the region, then in the mirror.
    pub(super) fn pieces(&self) -> [(u64, &[u8]); 2] {
        [(self.old_end, &self.added), (REGION + self.old_end, &self.added)]
    }
}

fn key_words(key: &[u8]) -> Vec<u32> {
    key.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect()
}
