//! Everything on the volume that is not the content of a file: what it is, where, when, and its bytes.

use zerocopy::IntoBytes;

use super::index::{self, Merge, Nodes, Shape};
use super::layout::{FIRST_USER_RECORD, IndexState, Layout, Node};
use super::record::{self, FileName, Head, Record, Sizes, Standard};
use super::space::LinearRange;
use super::{LeftOut, Outcome, Times, Tree, system};
use crate::ntfs::format::{AttrType, BOOT_BYTES, INDEX_BLOCK, collation, metafile, record_flag};
use crate::ntfs::upcase;
use crate::units::{ByteLen, ByteOffset, ByteRange, Clusters, Extent, FileTime};

/// When a section can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// At any time: it depends on the plan alone.
    Early,
    /// When all file data are down: it depends on the outcome.
    AfterData,
    /// After everything else is down and flushed: without it there is no volume.
    Last,
}

/// What a section is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SectionKind {
    /// The capitals of all code units.
    UpCase,
    /// The kinds of attributes.
    AttrDef,
    /// The empty log.
    LogFile,
    /// The security descriptors.
    Sds,
    /// The only block of the index of security descriptors by hash. Not on every volume.
    Sdh,
    /// `$MFT` behind [`SectionKind::MftHead`]. Not on every volume.
    MftBody,
    /// Index blocks of all directories but the root. Not on every volume.
    Index,
    /// Which records are in use.
    MftBitmap,
    /// Which clusters are in use.
    Bitmap,
    /// Index blocks of the root directory. Not on every volume.
    RootIndex,
    /// The records of metafiles, root files, hidden files, up to the end of their cluster.
    MftHead,
    /// Copy of the first records.
    MftMirror,
    /// Copy of the boot sector in the last sector of the partition, behind the last cluster.
    BackupBoot,
    /// The first 8 KiB of the volume.
    Boot,
}

impl SectionKind {
    /// Its name on the volume, or what it is where it has none.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UpCase => "$UpCase",
            Self::AttrDef => "$AttrDef",
            Self::LogFile => "$LogFile",
            Self::Sds => "$Secure:$SDS",
            Self::Sdh => "$Secure:$SDH",
            Self::MftHead => "$MFT, first records",
            Self::MftBody => "$MFT",
            Self::Index => "directory indexes",
            Self::RootIndex => "index of the root directory",
            Self::MftBitmap => "$MFT:$BITMAP",
            Self::Bitmap => "$Bitmap",
            Self::MftMirror => "$MFTMirr",
            Self::BackupBoot => "copy of the boot sector",
            Self::Boot => "$Boot",
        }
    }
}

/// A stream of the volume that [`Layout::generator`] can render.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// What it is.
    pub kind: SectionKind,
    /// Where it lies in the partition, in order; whole clusters, but for the boot sectors.
    pub extents: Vec<ByteRange>,
    /// Sum of the extents.
    pub len: ByteLen,
    /// When it can be written.
    pub phase: Phase,
}

/// Renders bytes of a section.
pub trait Generate: Send {
    /// Fills `out` with the section's bytes from `offset` on; zeros behind its end.
    ///
    /// Any range will do. Ascending ranges that start and end on records or index blocks (4 KiB do for both) are
    /// the fast way.
    fn fill(&mut self, offset: ByteOffset, out: &mut [u8]);
}

/// Copies the part of `source` (which lies at `at` in a stream) that falls into `out` (which lies at `offset`).
pub(super) fn overlay(source: &[u8], at: u64, offset: u64, out: &mut [u8]) {
    let start = at.max(offset);
    let end = (at + source.len() as u64).min(offset + out.len() as u64);
    if start < end {
        let len = (end - start) as usize;
        let (from, to) = ((start - at) as usize, (start - offset) as usize);
        out[to..to + len].copy_from_slice(&source[from..from + len]);
    }
}

impl Layout {
    /// All sections this volume has, in the order in which they should be written.
    pub fn sections(&self) -> Vec<Section> {
        use SectionKind as Kind;
        let cluster = self.geometry.cluster;
        let bytes =
            |extent: Extent| ByteRange { start: cluster.offset_of(extent.lcn), len: cluster.len_of(extent.len) };
        let fixed = |kind, phase, extent| (kind, phase, vec![bytes(extent)]);
        let linear = |kind, phase, range| (kind, phase, self.space.extents(range).map(bytes).collect());
        let sector = self.geometry.sector.bytes();
        let front = &self.front;
        let (head, body) = self.mft_parts();
        let (root, rest) = self.index_parts();
        let mut all = vec![
            fixed(Kind::AttrDef, Phase::Early, front.attr_def),
            fixed(Kind::UpCase, Phase::Early, front.up_case),
            fixed(Kind::Sds, Phase::Early, front.sds),
        ];
        all.extend(front.sdh.map(|extent| fixed(Kind::Sdh, Phase::Early, extent)));
        all.extend([
            fixed(Kind::LogFile, Phase::Early, front.log),
            linear(Kind::MftBody, Phase::AfterData, body),
            linear(Kind::Index, Phase::AfterData, rest),
            linear(Kind::MftBitmap, Phase::AfterData, self.mft_bitmap),
            linear(Kind::Bitmap, Phase::AfterData, self.bitmap),
            linear(Kind::RootIndex, Phase::Last, root),
            linear(Kind::MftHead, Phase::Last, head),
            fixed(Kind::MftMirror, Phase::Last, front.mirror),
            (Kind::BackupBoot, Phase::Last, vec![ByteRange::new(self.geometry.sectors * sector, sector)]),
            (Kind::Boot, Phase::Last, vec![ByteRange::new(0, BOOT_BYTES)]),
        ]);
        all.into_iter()
            .map(|(kind, phase, extents): (_, _, Vec<ByteRange>)| {
                let len = ByteLen(extents.iter().map(|extent| extent.len.0).sum());
                Section { kind, extents, len, phase }
            })
            .filter(|section| section.len.0 > 0)
            .collect()
    }

    /// `$MFT` up to the cluster that holds the last record of the last set, and the rest.
    fn mft_parts(&self) -> (LinearRange, LinearRange) {
        let records = u64::from(self.records.hidden_files.end.max(FIRST_USER_RECORD));
        let head = self.geometry.clusters_for(records * self.geometry.record_bytes as u64).min(self.mft.len.0);
        (
            LinearRange { start: self.mft.start, len: Clusters(head) },
            LinearRange { start: self.mft.start + head, len: Clusters(self.mft.len.0 - head) },
        )
    }

    /// The root's part of the index clusters, and the rest.
    fn index_parts(&self) -> (LinearRange, LinearRange) {
        let all = self.index;
        let Some(root) = self.large.first().filter(|large| large.record == metafile::ROOT) else {
            return (LinearRange { start: all.start, len: Clusters(0) }, all);
        };
        let end = self.large.get(1).map_or(all.end(), |next| u64::from(next.start));
        let start = u64::from(root.start);
        (LinearRange { start, len: Clusters(end - start) }, LinearRange { start: end, len: Clusters(all.end() - end) })
    }

    /// The bytes of a section, to be pulled by range. A section the volume does not have is all zeros.
    pub fn generator<'a, T: Tree>(
        &'a self,
        kind: SectionKind,
        tree: &'a T,
        outcome: &'a Outcome,
    ) -> Box<dyn Generate + 'a> {
        let boot = || system::boot_sector(self).as_bytes().to_vec();
        let first_record = |range: LinearRange| {
            (range.start - self.mft.start) * self.geometry.cluster.bytes() / self.geometry.record_bytes as u64
        };
        let records = |first| -> Box<dyn Generate + 'a> {
            Box::new(InUnits::new(self.geometry.record_bytes, RecordSource::new(self, tree, outcome, first)))
        };
        let blocks = |range: LinearRange| -> Box<dyn Generate + 'a> {
            let first = (range.start - self.index.start) * self.geometry.cluster.bytes();
            Box::new(InUnits::new(INDEX_BLOCK, BlockSource::new(self, tree, outcome, first)))
        };
        match kind {
            SectionKind::Boot | SectionKind::BackupBoot => Box::new(Bytes(boot())),
            SectionKind::UpCase => {
                Box::new(Bytes(upcase::table().iter().flat_map(|unit| unit.to_le_bytes()).collect()))
            }
            SectionKind::AttrDef => Box::new(Bytes(system::attr_defs())),
            SectionKind::LogFile => Box::new(Ones),
            SectionKind::Sds => Box::new(Sds(self)),
            SectionKind::Sdh => {
                let mut block = vec![0; INDEX_BLOCK];
                index::view_block(&mut block, 0, &self.security.by_hash());
                Box::new(Bytes(block))
            }
            SectionKind::MftHead => records(0),
            SectionKind::MftBody => records(first_record(self.mft_parts().1)),
            SectionKind::MftMirror => Box::new(Bounded { len: self.geometry.mirror_len(), inner: records(0) }),
            SectionKind::RootIndex => blocks(self.index_parts().0),
            SectionKind::Index => blocks(self.index_parts().1),
            SectionKind::MftBitmap => Box::new(RecordBits { layout: self, left_out: &outcome.left_out }),
            SectionKind::Bitmap => Box::new(ClusterBits::new(self, tree, outcome)),
        }
    }
}

/// Bytes from the start, then zeros.
struct Bytes(Vec<u8>);

impl Generate for Bytes {
    fn fill(&mut self, offset: ByteOffset, out: &mut [u8]) {
        out.fill(0);
        overlay(&self.0, 0, offset.0, out);
    }
}

/// The log that was never used (docs/spec/ntfs.md#log-file).
struct Ones;

impl Generate for Ones {
    fn fill(&mut self, _: ByteOffset, out: &mut [u8]) {
        out.fill(0xFF);
    }
}

struct Sds<'a>(&'a Layout);

impl Generate for Sds<'_> {
    fn fill(&mut self, offset: ByteOffset, out: &mut [u8]) {
        self.0.security.sds(offset.0, out);
    }
}

/// The first `len` bytes of another, then zeros.
struct Bounded<'a> {
    len: u64,
    inner: Box<dyn Generate + 'a>,
}

impl Generate for Bounded<'_> {
    fn fill(&mut self, offset: ByteOffset, out: &mut [u8]) {
        let inside = self.len.saturating_sub(offset.0).min(out.len() as u64) as usize;
        let (inside, behind) = out.split_at_mut(inside);
        if !inside.is_empty() {
            self.inner.fill(offset, inside);
        }
        behind.fill(0);
    }
}

/// Something that renders whole records or blocks.
trait Unit {
    fn render(&mut self, i: u64, out: &mut [u8]);
}

/// Any range of a row of units; those cut by the range go through a buffer.
struct InUnits<U> {
    size: usize,
    units: U,
    cut: Vec<u8>,
}

impl<U> InUnits<U> {
    fn new(size: usize, units: U) -> Self {
        Self { size, units, cut: vec![0; size] }
    }
}

impl<U: Unit + Send> Generate for InUnits<U> {
    fn fill(&mut self, offset: ByteOffset, mut out: &mut [u8]) {
        let size = self.size as u64;
        let mut at = offset.0;
        while !out.is_empty() {
            let (i, skip) = (at / size, (at % size) as usize);
            let len = (self.size - skip).min(out.len());
            let (part, rest) = out.split_at_mut(len);
            if len == self.size {
                self.units.render(i, part);
            } else {
                self.units.render(i, &mut self.cut);
                part.copy_from_slice(&self.cut[skip..skip + len]);
            }
            out = rest;
            at += len as u64;
        }
    }
}

/// What the plan, the tree and the outcome say together.
struct View<'a, T> {
    layout: &'a Layout,
    tree: &'a T,
    outcome: &'a Outcome,
}

impl<T: Tree> Nodes for View<'_, T> {
    fn entry(&self, record: u32) -> (u64, FileName) {
        let Node { reference, name, .. } = self.layout.node(self.tree, self.outcome, record);
        if system::ONLY_NAMED.contains(&record) {
            let FileName { parent, namespace, .. } = name;
            let times =
                Times { created: FileTime(0), modified: FileTime(0), changed: FileTime(0), accessed: FileTime(0) };
            return (reference, FileName { parent, times, allocated: 0, data: 0, attributes: 0, namespace });
        }
        (reference, name)
    }

    fn name(&self, record: u32, out: &mut Vec<u16>) {
        self.layout.name(self.tree, record, out);
    }
}

struct RecordSource<'a, T> {
    layout: &'a Layout,
    tree: &'a T,
    outcome: &'a Outcome,
    first: u64,
    name: Vec<u16>,
    child: Vec<u16>,
    shape: Shape,
}

impl<'a, T: Tree> RecordSource<'a, T> {
    fn new(layout: &'a Layout, tree: &'a T, outcome: &'a Outcome, first: u64) -> Self {
        Self { layout, tree, outcome, first, name: Vec::new(), child: Vec::new(), shape: Shape::default() }
    }

    fn render_file(&mut self, number: u32, extents: impl Iterator<Item = Extent>, out: &mut [u8]) {
        let node = self.layout.node(self.tree, self.outcome, number);
        let mut record = Record::begin(out);
        let (times, attributes) = (node.name.times, node.attributes);
        record.standard(Standard { times, attributes, security_id: Some(node.security_id) });
        record.file_name(&node.name, &self.name);
        if node.name.data == 0 {
            record.resident(AttrType::Data, &[], &[]);
        } else {
            record.non_resident(AttrType::Data, &[], Sizes::full(node.name.allocated, node.name.data), extents);
        }
        record.finish(Head { number, sequence: Layout::sequence(number), links: 1, flags: record_flag::IN_USE });
    }

    fn render_directory(&mut self, number: u32, out: &mut [u8]) {
        const KEY: (u32, u32) = (AttrType::FileName as u32, collation::FILE_NAME);
        let Self { layout, tree, outcome, name, child, shape, .. } = self;
        let (layout, tree, outcome) = (*layout, *tree, *outcome);
        let cluster = layout.geometry.cluster;
        let node = layout.node(tree, outcome, number);
        let state = layout.index_state(tree, outcome, number, shape);
        system::render_directory(number, &node, name, out, |record| match state {
            IndexState::Small => {
                let list = layout.listing(tree, &outcome.left_out, number);
                record.resident_with(AttrType::IndexRoot, &system::I30, |out| {
                    index::small_root(out, KEY, cluster, &list, child, &View { layout, tree, outcome })
                });
            }
            IndexState::Large { place, blocks } => {
                record.resident_with(AttrType::IndexRoot, &system::I30, |out| {
                    index::large_root(out, KEY, cluster, blocks - 1)
                });
                let range = layout.index_blocks_range(&place, blocks);
                let sizes = Sizes::full(cluster.len_of(range.len).0, blocks * INDEX_BLOCK as u64);
                record.non_resident(AttrType::IndexAllocation, &system::I30, sizes, layout.space.extents(range));
                let bitmap = index::bitmap_len(blocks);
                match layout.index_bitmap_range(tree, &place) {
                    Some(range) => {
                        let sizes = Sizes::full(cluster.len_of(range.len).0, bitmap);
                        record.non_resident(AttrType::Bitmap, &system::I30, sizes, layout.space.extents(range));
                    }
                    None => record.resident_with(AttrType::Bitmap, &system::I30, |out| {
                        index::bitmap(blocks, 0, &mut out[..bitmap as usize]);
                        bitmap as usize
                    }),
                }
            }
        });
    }
}

impl<T: Tree> Unit for RecordSource<'_, T> {
    fn render(&mut self, i: u64, out: &mut [u8]) {
        let layout = self.layout;
        let records = &layout.records;
        let Ok(number) = u32::try_from(self.first + i) else { return out.fill(0) };
        let file = records.files.contains(&number).then(|| number - records.files.start);
        let unused = (metafile::REPARSE + 1..FIRST_USER_RECORD).contains(&number)
            || system::FREE.contains(&number)
            || number >= records.files.end
            || file.is_some_and(|file| self.outcome.left_out.contains(file));
        if unused {
            return record::free(number, Layout::sequence(number), out);
        }
        self.name.clear();
        layout.name(self.tree, number, &mut self.name);
        if let Some(file) = file {
            self.render_file(number, layout.file_extents(file), out);
        } else if records.root_files.contains(&number) {
            let k = (number - records.root_files.start) as usize;
            let len = layout.geometry.clusters_for(layout.root_file_len(self.outcome, k));
            let place = LinearRange { start: layout.root_file_place(k).start, len: Clusters(len) };
            self.render_file(number, layout.space.extents(place), out);
        } else if records.hidden_files.contains(&number) {
            let extent = layout.hidden[(number - records.hidden_files.start) as usize];
            self.render_file(number, std::iter::once(extent), out);
        } else if number >= FIRST_USER_RECORD || matches!(number, metafile::ROOT | metafile::EXTEND) {
            self.render_directory(number, out);
        } else {
            let node = layout.node(self.tree, self.outcome, number);
            system::render(layout, number, &node, &self.name, out);
        }
    }
}

struct BlockSource<'a, T> {
    layout: &'a Layout,
    tree: &'a T,
    outcome: &'a Outcome,
    /// Bytes from the start of all index clusters to this section.
    first: u64,
    /// Which directory `shape` and `merge` are of.
    current: Option<(usize, IndexState)>,
    shape: Shape,
    merge: Option<Merge<'a, T>>,
    name: Vec<u16>,
}

impl<'a, T: Tree> BlockSource<'a, T> {
    fn new(layout: &'a Layout, tree: &'a T, outcome: &'a Outcome, first: u64) -> Self {
        let (shape, name) = (Shape::default(), Vec::new());
        Self { layout, tree, outcome, first, current: None, shape, merge: None, name }
    }
}

impl<T: Tree> Unit for BlockSource<'_, T> {
    fn render(&mut self, i: u64, out: &mut [u8]) {
        let (layout, tree, outcome) = (self.layout, self.tree, self.outcome);
        let cluster = layout.geometry.cluster;
        let at = self.first + i * INDEX_BLOCK as u64;
        let start_of = |start: u32| (u64::from(start) - layout.index.start) * cluster.bytes();
        let behind = layout.large.partition_point(|large| start_of(large.start) <= at);
        let Some(number) = behind.checked_sub(1) else { return out.fill(0) };
        let large = layout.large[number];
        let state = match self.current {
            Some((current, state)) if current == number => state,
            _ => {
                let list = layout.listing(tree, &outcome.left_out, large.record);
                let state = layout.index_state_of(tree, &list, large, &mut self.shape);
                self.merge = Some(Merge::new(&list));
                self.current = Some((number, state));
                state
            }
        };
        let (IndexState::Large { place, blocks }, Some(merge)) = (state, &mut self.merge) else { return out.fill(0) };
        let local = at - start_of(place.start);
        let block = local / INDEX_BLOCK as u64;
        if block < blocks {
            let nodes = View { layout, tree, outcome };
            return self.shape.render(block, cluster, merge, &mut self.name, &nodes, out);
        }
        out.fill(0);
        if let Some(range) = layout.index_bitmap_range(tree, &place) {
            let bitmap_at = cluster.len_of(Clusters(range.start - u64::from(place.start))).0;
            if local >= bitmap_at {
                index::bitmap(blocks, local - bitmap_at, out);
            }
        }
    }
}

/// Sets or clears the bits `from..to` of `out`, counted from its first.
fn put_bits(out: &mut [u8], from: u64, to: u64, set: bool) {
    let mut put = |byte: usize, mask: u8| if set { out[byte] |= mask } else { out[byte] &= !mask };
    if from >= to {
        return;
    }
    let (first, last) = ((from / 8) as usize, ((to - 1) / 8) as usize);
    let (head, tail) = (0xFF << (from % 8), 0xFF >> (7 - (to - 1) % 8));
    if first == last {
        return put(first, head & tail);
    }
    put(first, head);
    put(last, tail);
    out[first + 1..last].fill(if set { 0xFF } else { 0 });
}

struct RecordBits<'a> {
    layout: &'a Layout,
    left_out: &'a LeftOut,
}

impl Generate for RecordBits<'_> {
    fn fill(&mut self, offset: ByteOffset, out: &mut [u8]) {
        out.fill(0);
        let start = offset.0 * 8;
        let end = start + out.len() as u64 * 8;
        let records = &self.layout.records;
        let used =
            [0..system::FREE.start, system::FREE.end..metafile::REPARSE + 1, FIRST_USER_RECORD..records.files.end];
        for range in used {
            let (from, to) = (u64::from(range.start).max(start), u64::from(range.end).min(end));
            if from < to {
                put_bits(out, from - start, to - start, true);
            }
        }
        let base = u64::from(records.files.start);
        let as_file = |record: u64| u32::try_from(record.saturating_sub(base)).unwrap_or(u32::MAX);
        for &file in self.left_out.within(&(as_file(start)..as_file(end))) {
            let bit = base + u64::from(file) - start;
            put_bits(out, bit, bit + 1, false);
        }
    }
}

struct ClusterBits<'a> {
    layout: &'a Layout,
    left_out: &'a LeftOut,
    /// Outside the linear space.
    fixed: Vec<Extent>,
    /// In the linear space, behind the data, ascending.
    linear: Vec<LinearRange>,
}

impl<'a> ClusterBits<'a> {
    fn new<T: Tree>(layout: &'a Layout, tree: &T, outcome: &'a Outcome) -> Self {
        Self {
            layout,
            left_out: &outcome.left_out,
            fixed: layout.fixed_extents(),
            linear: layout.own_ranges(tree, outcome),
        }
    }
}

impl Generate for ClusterBits<'_> {
    fn fill(&mut self, offset: ByteOffset, out: &mut [u8]) {
        out.fill(0);
        let layout = self.layout;
        let (clusters, len) = (layout.geometry.clusters, layout.geometry.bitmap_len());
        let start = offset.0 * 8;
        let end = (start + out.len() as u64 * 8).min(len * 8);
        // Bits that stand for no cluster are set (docs/spec/ntfs.md#bitmaps).
        put_bits(out, clusters.clamp(start, end.max(start)) - start, end.max(start) - start, true);
        let end = end.min(clusters);
        for extent in &self.fixed {
            let (from, to) = (extent.lcn.0.max(start), (extent.lcn.0 + extent.len.0).min(end));
            if from < to {
                put_bits(out, from - start, to - start, true);
            }
        }
        let data = layout.data_place();
        for (piece, lcn) in layout.space.within(start, end) {
            let mut put = |range: LinearRange, set| {
                let (from, to) = (range.start.max(piece.start), range.end().min(piece.end()));
                if from < to {
                    let bit = lcn.0 - start;
                    put_bits(out, bit + (from - piece.start), bit + (to - piece.start), set);
                }
            };
            put(data, true);
            let first = layout.first_file_behind(piece.start);
            for &file in self.left_out.within(&(first..u32::MAX)) {
                let place = layout.file_place(file);
                if place.start >= piece.end() {
                    break;
                }
                put(place, false);
            }
            let first = self.linear.partition_point(|range| range.end() <= piece.start);
            for range in self.linear[first..].iter().take_while(|range| range.start < piece.end()) {
                put(*range, true);
            }
        }
    }
}
