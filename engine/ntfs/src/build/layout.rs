//! The plan of a volume.

use std::ops::Range;

use super::index::{self, Extra, Listing, Shape};
use super::record::{self, FileName};
use super::security::{self, Security};
use super::space::{Extents, FirstFit, LinearRange, LinearSpace};
use super::{LayoutError, LeftOut, Outcome, Times, Tree, VolumeSpec};
use crate::format::{BOOT_BYTES, INDEX_BLOCK, file_attribute, metafile, namespace, reference};
use crate::units::{ByteLen, ClusterSize, Clusters, DiskShape, Extent, Lcn, SectorSize};
use crate::upcase;

pub(super) use crate::format::metafile::FIRST_USER as FIRST_USER_RECORD;
const MIRRORED_RECORDS_MIN: u64 = 4;
/// Most UTF-16 units in a label.
const LABEL_UNITS_MAX: usize = 32;

/// Numbers derived from sector, cluster and length alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    pub sector: SectorSize,
    pub cluster: ClusterSize,
    pub record_bytes: usize,
    /// Sectors of the volume: one less than the partition has, the last keeps the backup boot sector.
    pub sectors: u64,
    /// Clusters of the volume.
    pub clusters: u64,
}

impl Geometry {
    pub(super) fn new(sector: SectorSize, cluster: ClusterSize, len: ByteLen) -> Result<Self, LayoutError> {
        if cluster.bytes() < sector.bytes() || !len.0.is_multiple_of(sector.bytes()) || len.0 < 2 * sector.bytes() {
            return Err(LayoutError::Geometry);
        }
        let sectors = len.0 / sector.bytes() - 1;
        let clusters = sectors / (cluster.bytes() / sector.bytes());
        if clusters > u64::from(u32::MAX) {
            return Err(LayoutError::TooManyClusters { clusters });
        }
        let record_bytes = match sector {
            SectorSize::S512 => 1024,
            SectorSize::S4096 => 4096,
        };
        Ok(Self { sector, cluster, record_bytes, sectors, clusters })
    }

    pub(super) fn clusters_for(&self, len: u64) -> u64 {
        self.cluster.count_for(ByteLen(len)).0
    }

    /// Bytes of `$MFTMirr`.
    pub(super) fn mirror_len(&self) -> u64 {
        (MIRRORED_RECORDS_MIN * self.record_bytes as u64).max(self.cluster.bytes())
    }

    /// Bytes of `$LogFile`: 2 MiB on small volumes, then about as long as Windows makes it
    /// (docs/spec/ntfs.md#log-file).
    pub(super) fn log_len(&self) -> u64 {
        const MIB: u64 = 1 << 20;
        let len = self.sectors * self.sector.bytes();
        let wanted = (len / 100).min(7 * MIB / 2 + len / 800).clamp(2 * MIB, 64 * MIB);
        wanted.next_multiple_of(self.cluster.bytes().max(4096))
    }

    /// Bytes of `$Bitmap`.
    pub(super) fn bitmap_len(&self) -> u64 {
        self.clusters.div_ceil(64) * 8
    }
}

/// Places of the metafiles that are placed before everything else.
#[derive(Clone, Debug)]
pub(super) struct Front {
    pub boot: Extent,
    pub mirror: Extent,
    pub attr_def: Extent,
    pub up_case: Extent,
    pub sds: Extent,
    /// A block for `$SDH`, when it does not fit the record of `$Secure`.
    pub sdh: Option<Extent>,
    pub log: Extent,
}

/// Assignment of records.
#[derive(Clone, Debug)]
pub(super) struct Records {
    pub root_files: Range<u32>,
    /// Record of the hidden directory.
    pub hidden_dir: Option<u32>,
    pub hidden_files: Range<u32>,
    pub dirs: Range<u32>,
    pub files: Range<u32>,
    /// Records of `$MFT`, free ones included.
    pub total: u64,
}

/// A directory with entries that may need index blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct LargeDir {
    /// Record of the directory.
    pub record: u32,
    /// First of its clusters in the linear space.
    pub start: u32,
    /// Blocks needed when none of its files is left out.
    pub blocks: u32,
    /// Upper bound of its blocks.
    pub blocks_max: u32,
}

/// The place of every cluster of a volume. A value: planning the same again gives the same.
#[derive(Debug)]
pub struct Layout {
    pub(super) spec: VolumeSpec,
    pub(super) geometry: Geometry,
    pub(super) front: Front,
    pub(super) hidden: Vec<Extent>,
    pub(super) records: Records,
    pub(super) space: LinearSpace,
    /// Start of each file in the linear space, and the end of the last one.
    file_starts: Vec<u32>,
    pub(super) mft: LinearRange,
    pub(super) index: LinearRange,
    /// Sorted by record, which is also the order on the volume. The root, if present, is first.
    pub(super) large: Vec<LargeDir>,
    root_files: Vec<LinearRange>,
    pub(super) mft_bitmap: LinearRange,
    pub(super) bitmap: LinearRange,
    pub(super) root_extras: Vec<Extra>,
    hidden_extras: Vec<Extra>,
    extend_extras: Vec<Extra>,
    pub(super) security: Security,
}

/// Facts of one file or directory for records, index entries and bitmaps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub reference: u64,
    pub name: FileName,
    pub attributes: u32,
    pub security_id: u32,
}

/// Location of a directory's index.
#[derive(Clone, Copy, Debug)]
pub(super) enum IndexState {
    /// In the record.
    Small,
    /// In `blocks` blocks from `place.start` on.
    Large { place: LargeDir, blocks: u64 },
}

impl Layout {
    /// Plans a volume.
    ///
    /// Reads each name once or twice; takes 4 bytes a file, and 16 for each directory too large for its record.
    ///
    /// # Errors
    /// [`LayoutError`]: the contents do not fit, or are not sorted.
    pub fn plan(spec: VolumeSpec, tree: &impl Tree) -> Result<Self, LayoutError> {
        let geometry = Geometry::new(spec.sector, spec.cluster, spec.len)?;
        if spec.label.encode_utf16().count() > LABEL_UNITS_MAX {
            return Err(LayoutError::Label);
        }
        let records = Records::number(&spec, tree, &geometry)?;
        let security = Security::new(spec.hidden.is_some());
        let hidden = hidden_extents(&spec, &geometry)?;
        let (front, space) = Front::place(&geometry, &security, hidden.clone(), LayoutError::NoRoom { len: spec.len })?;
        let Extras { root: root_extras, hidden: hidden_extras, extend: extend_extras } = Extras::new(&spec, &records);
        let mut layout = Self {
            spec,
            geometry,
            front,
            hidden,
            records,
            space,
            file_starts: Vec::new(),
            mft: LinearRange::default(),
            index: LinearRange::default(),
            large: Vec::new(),
            root_files: Vec::new(),
            mft_bitmap: LinearRange::default(),
            bitmap: LinearRange::default(),
            root_extras,
            hidden_extras,
            extend_extras,
            security,
        };
        layout.place_all(tree)?;
        Ok(layout)
    }

    fn place_all(&mut self, tree: &impl Tree) -> Result<(), LayoutError> {
        let geometry = self.geometry;
        let files = tree.files();
        self.file_starts = Vec::with_capacity(files as usize + 1);
        let mut end = 0u64;
        for i in 0..files {
            // Positions above 2^32 are beyond any volume; the sum is continued to report how much is missing.
            self.file_starts.push(u32::try_from(end).unwrap_or(u32::MAX));
            end = end.saturating_add(geometry.clusters_for(tree.file(i).len.0));
        }
        self.file_starts.push(u32::try_from(end).unwrap_or(u32::MAX));

        // The loader of $MFT reads the first records by the boot sector's LCN alone, so they must be in one run.
        let head = geometry.clusters_for(u64::from(FIRST_USER_RECORD) * geometry.record_bytes as u64);
        let mft_clusters = geometry.clusters_for(self.records.total * geometry.record_bytes as u64);
        end = self.mft_start(end, head.min(mft_clusters));
        self.mft = LinearRange { start: end, len: Clusters(mft_clusters) };
        end = end.saturating_add(mft_clusters);

        let index_start = end;
        let shaped = std::iter::once(metafile::ROOT).chain(self.records.hidden_dir).chain(self.records.dirs.clone());
        let mut shape = Shape::default();
        for record in shaped {
            shape.build(&self.listing(tree, &LeftOut::default(), record))?;
            if let Some(large) = self.place_index(tree, record, &shape, index_start, &mut end)? {
                self.large.push(large);
            }
        }
        self.index = LinearRange { start: index_start, len: Clusters(end - index_start) };

        for (k, file) in self.spec.root_files.iter().enumerate() {
            let range = LinearRange { start: end, len: Clusters(geometry.clusters_for(file.len_max.0)) };
            end = end.saturating_add(range.len.0);
            self.root_files.push(range);
            self.check_runs(self.records.root_files.start + k as u32, file.name.encode_utf16().count(), range)?;
        }
        self.mft_bitmap = LinearRange { start: end, len: Clusters(geometry.clusters_for(self.mft_bitmap_len())) };
        end = self.mft_bitmap.end();
        self.bitmap = LinearRange { start: end, len: Clusters(geometry.clusters_for(geometry.bitmap_len())) };
        end = self.bitmap.end();

        let available = self.space.len();
        if end > available.0 {
            let bytes = |clusters: u64| ByteLen(clusters.saturating_mul(geometry.cluster.bytes()));
            return Err(LayoutError::TooSmall { needed: bytes(end), available: bytes(available.0) });
        }
        self.check_all_runs(tree)
    }

    /// First position from `at` on at which `len` clusters are one run that begins on a page: here, or after the next
    /// hole. The kernel's new driver crashes on clusters below 4 KiB when `$MFT` begins within a page, on Windows'
    /// volumes too. Any position, where neither has room.
    fn mft_start(&self, at: u64, len: u64) -> u64 {
        const PAGE: u64 = 4096;
        let per_page = (PAGE / self.geometry.cluster.bytes()).max(1);
        [at, at + self.space.run_from(at)]
            .into_iter()
            .find_map(|at| {
                let first = self.space.extents(LinearRange { start: at, len: Clusters(1) }).next()?;
                let skip = first.lcn.0.next_multiple_of(per_page) - first.lcn.0;
                (self.space.run_from(at) >= skip + len).then_some(at + skip)
            })
            .unwrap_or(at)
    }

    /// Finds the clusters for the index of a directory, if it needs any.
    fn place_index(
        &self,
        tree: &impl Tree,
        record: u32,
        shape: &Shape,
        section: u64,
        end: &mut u64,
    ) -> Result<Option<LargeDir>, LayoutError> {
        if self.index_fits_record(tree, record, shape.entries_len) {
            return Ok(None);
        }
        let (blocks, blocks_max) = (shape.blocks(), shape.blocks_max());
        let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let mut large =
            LargeDir { record, start: narrow(*end), blocks: narrow(blocks), blocks_max: narrow(blocks_max) };
        let base = self.directory_base_len(tree, record);
        let room = record::room(self.geometry.record_bytes);
        for retry in [true, false] {
            let attributes = base
                + record::resident_len(4, index::LARGE_ROOT_VALUE)
                + record::non_resident_len(4, self.space.extents(self.index_blocks_range(&large, blocks_max)))
                + match self.index_bitmap_range(tree, &large) {
                    Some(range) => record::non_resident_len(4, self.space.extents(range)),
                    None => record::resident_len(4, index::bitmap_len(blocks_max) as usize),
                };
            if attributes <= room {
                break;
            }
            if !retry {
                return Err(LayoutError::RecordFull { record });
            }
            // Past the next hole, and again on a block boundary of the section.
            let per_block = self.clusters_per_block();
            let behind = *end + self.space.run_from(*end);
            large.start = narrow(section + (behind - section).next_multiple_of(per_block));
        }
        *end = u64::from(large.start) + self.large_clusters(tree, &large);
        Ok(Some(large))
    }

    /// Clusters of an index block, at least one.
    pub(super) fn clusters_per_block(&self) -> u64 {
        self.geometry.clusters_for(INDEX_BLOCK as u64)
    }

    /// Clusters of the first `blocks` index blocks of a large directory.
    pub(super) fn index_blocks_range(&self, large: &LargeDir, blocks: u64) -> LinearRange {
        let len = self.geometry.clusters_for(blocks * INDEX_BLOCK as u64);
        LinearRange { start: u64::from(large.start), len: Clusters(len) }
    }

    /// Clusters of the index bitmap of a large directory, if it does not fit the record.
    pub(super) fn index_bitmap_range(&self, tree: &impl Tree, large: &LargeDir) -> Option<LinearRange> {
        let blocks_max = u64::from(large.blocks_max);
        let blocks = self.index_blocks_range(large, blocks_max);
        let bitmap = index::bitmap_len(blocks_max);
        let resident = self.directory_base_len(tree, large.record)
            + record::resident_len(4, index::LARGE_ROOT_VALUE)
            + record::non_resident_len(4, self.space.extents(blocks))
            + record::resident_len(4, bitmap as usize);
        (resident > record::room(self.geometry.record_bytes))
            .then(|| LinearRange { start: blocks.end(), len: Clusters(self.geometry.clusters_for(bitmap)) })
    }

    /// All clusters reserved for a large directory: whole blocks.
    fn large_clusters(&self, tree: &impl Tree, large: &LargeDir) -> u64 {
        let blocks = self.index_blocks_range(large, u64::from(large.blocks_max)).len.0;
        let bitmap = self.index_bitmap_range(tree, large).map_or(0, |range| range.len.0);
        blocks + bitmap.next_multiple_of(self.clusters_per_block())
    }

    /// Bytes of a directory's attributes other than its index.
    fn directory_base_len(&self, tree: &impl Tree, record: u32) -> usize {
        let mut own = Vec::new();
        if record == metafile::ROOT {
            return super::system::root_base_len();
        }
        self.name(tree, record, &mut own);
        record::resident_len(0, record::STANDARD_INFORMATION)
            + record::resident_len(0, record::file_name_len(own.len()))
    }

    fn index_fits_record(&self, tree: &impl Tree, record: u32, entries: usize) -> bool {
        let room = record::room(self.geometry.record_bytes);
        // Cheap first: the names of most directories need not be read.
        entries < room
            && self.directory_base_len(tree, record) + record::resident_len(4, index::root_value_len(entries)) <= room
    }

    fn check_runs(&self, record: u32, name_units: usize, range: LinearRange) -> Result<(), LayoutError> {
        let len = record::resident_len(0, record::STANDARD_INFORMATION)
            + record::resident_len(0, record::file_name_len(name_units))
            + record::non_resident_len(0, self.space.extents(range));
        if len > record::room(self.geometry.record_bytes) { Err(LayoutError::RecordFull { record }) } else { Ok(()) }
    }

    /// Checks that the runs of every file that crosses a hole fit its record; those of `$MFT` and `$Bitmap` too.
    fn check_all_runs(&self, tree: &impl Tree) -> Result<(), LayoutError> {
        let mut run_end = 0;
        let mut name = Vec::new();
        for i in 0..tree.files() {
            let range = self.file_place(i);
            if range.end() <= run_end {
                continue;
            }
            if range.start >= run_end {
                run_end = range.start + self.space.run_from(range.start);
            }
            if range.end() > run_end {
                name.clear();
                tree.file_name(i, &mut name);
                self.check_runs(self.records.files.start + i, name.len(), range)?;
                run_end = 0;
            }
        }
        let mft = record::non_resident_len(0, self.space.extents(self.mft))
            + record::non_resident_len(0, self.space.extents(self.mft_bitmap));
        for (record, runs) in
            [(metafile::MFT, mft), (metafile::BITMAP, record::non_resident_len(0, self.space.extents(self.bitmap)))]
        {
            let len = record::resident_len(0, record::STANDARD_INFORMATION)
                + record::resident_len(0, record::file_name_len("$Bitmap".len()))
                + runs;
            if len > record::room(self.geometry.record_bytes) {
                return Err(LayoutError::RecordFull { record });
            }
        }
        Ok(())
    }

    /// The specification it was planned for.
    pub fn spec(&self) -> &VolumeSpec {
        &self.spec
    }

    /// Cluster size of the volume.
    pub fn cluster(&self) -> ClusterSize {
        self.geometry.cluster
    }

    /// Disk geometry in the boot sector.
    pub fn disk_shape(&self) -> DiskShape {
        super::system::disk_shape(self)
    }

    /// Clusters of the volume.
    pub fn cluster_count(&self) -> Clusters {
        Clusters(self.geometry.clusters)
    }

    /// Clusters after the last one in use: the free ones when nothing is left out.
    pub fn free_clusters(&self) -> Clusters {
        Clusters(self.space.len().0 - self.bitmap.end())
    }

    /// Records of `$MFT`, free ones included.
    pub fn record_count(&self) -> u64 {
        self.records.total
    }

    /// The record of file `i` of the tree.
    pub fn file_record(&self, i: u32) -> u32 {
        self.records.files.start + i
    }

    /// All clusters outside the fixed metafiles.
    pub fn space(&self) -> &LinearSpace {
        &self.space
    }

    /// Range of the content of file `i`: whole clusters, consecutive files adjacent. Empty for an empty file.
    pub fn file_place(&self, i: u32) -> LinearRange {
        let (start, end) = (self.file_starts[i as usize], self.file_starts[i as usize + 1]);
        LinearRange { start: u64::from(start), len: Clusters(u64::from(end - start)) }
    }

    /// The runs of file `i`.
    pub fn file_extents(&self, i: u32) -> Extents<'_> {
        self.space.extents(self.file_place(i))
    }

    /// Range of all file data together.
    pub fn data_place(&self) -> LinearRange {
        LinearRange { start: 0, len: Clusters(self.file_starts.last().copied().unwrap_or(0).into()) }
    }

    /// Range reserved for root file `k`: room for its `len_max`.
    pub fn root_file_place(&self, k: usize) -> LinearRange {
        self.root_files[k]
    }

    /// The runs kept for root file `k`.
    pub fn root_file_extents(&self, k: usize) -> Extents<'_> {
        self.space.extents(self.root_files[k])
    }

    /// The file that owns the cluster at `position` of the linear space; the number of files past the data.
    pub(super) fn first_file_behind(&self, position: u64) -> u32 {
        self.file_starts[1..].partition_point(|&end| u64::from(end) <= position) as u32
    }

    pub(super) fn mft_bitmap_len(&self) -> u64 {
        self.records.total.div_ceil(64) * 8
    }

    /// Final length of root file `k`.
    pub(super) fn root_file_len(&self, outcome: &Outcome, k: usize) -> u64 {
        let len = outcome.root_file_lens.get(k).map_or(0, |len| len.0);
        debug_assert!(len <= self.spec.root_files[k].len_max.0, "root file {k} outgrew its place");
        len.min(self.spec.root_files[k].len_max.0)
    }

    /// Sequence number of a record.
    pub(super) fn sequence(record: u32) -> u16 {
        match record {
            0 => 1,
            1..=23 => record as u16,
            _ => 1,
        }
    }

    fn own_reference(record: u32) -> u64 {
        reference(record, Self::sequence(record))
    }

    /// The children of the directory with this record.
    pub(super) fn listing<'a, T: Tree>(&'a self, tree: &'a T, left_out: &'a LeftOut, record: u32) -> Listing<'a, T> {
        let (extras, children): (&[Extra], _) = match record {
            metafile::ROOT => (&self.root_extras, tree.root()),
            metafile::EXTEND => (&self.extend_extras, super::Children::default()),
            _ if Some(record) == self.records.hidden_dir => (&self.hidden_extras, super::Children::default()),
            _ => (&[], tree.dir(record - self.records.dirs.start).children),
        };
        Listing {
            tree,
            record,
            extras,
            left_out: left_out.within(&children.files),
            dirs: children.dirs,
            files: children.files,
            dirs_base: self.records.dirs.start,
            files_base: self.records.files.start,
        }
    }

    /// Location of a directory's index, once its files are known.
    pub(super) fn index_state<T: Tree>(
        &self,
        tree: &T,
        outcome: &Outcome,
        record: u32,
        shape: &mut Shape,
    ) -> IndexState {
        let Ok(i) = self.large.binary_search_by_key(&record, |large| large.record) else { return IndexState::Small };
        let place = self.large[i];
        let list = self.listing(tree, &outcome.left_out, record);
        if list.left_out.is_empty() {
            return IndexState::Large { place, blocks: u64::from(place.blocks) };
        }
        self.index_state_of(tree, &list, place, shape)
    }

    /// As [`Self::index_state`], always building the shape.
    pub(super) fn index_state_of<T: Tree>(
        &self,
        tree: &T,
        list: &Listing<'_, T>,
        place: LargeDir,
        shape: &mut Shape,
    ) -> IndexState {
        // Planning went through the same names: a subset of them is in order too.
        let built = shape.build(list);
        debug_assert!(built.is_ok(), "{built:?}");
        if self.index_fits_record(tree, list.record, shape.entries_len) {
            return IndexState::Small;
        }
        debug_assert!(shape.blocks() <= u64::from(place.blocks_max));
        IndexState::Large { place, blocks: shape.blocks().min(u64::from(place.blocks_max)) }
    }

    /// The name of a record, appended to `out`.
    pub(super) fn name(&self, tree: &impl Tree, record: u32, out: &mut Vec<u16>) {
        let records = &self.records;
        if records.files.contains(&record) {
            tree.file_name(record - records.files.start, out);
        } else if records.dirs.contains(&record) {
            tree.dir_name(record - records.dirs.start, out);
        } else if let Some(&(_, name)) = super::system::NAMES.iter().find(|(number, _)| *number == record) {
            out.extend(name.encode_utf16());
        } else {
            let named = self.root_extras.iter().chain(&self.hidden_extras).find(|extra| extra.record == record);
            out.extend_from_slice(named.map_or(&[], |extra| &extra.name));
        }
    }

    /// Facts of a record.
    pub(super) fn node(&self, tree: &impl Tree, outcome: &Outcome, record: u32) -> Node {
        let records = &self.records;
        let parent_of =
            |dir: Option<u32>| Self::own_reference(dir.map_or(metafile::ROOT, |dir| records.dirs.start + dir));
        let whole = |len: u64| self.geometry.clusters_for(len) * self.geometry.cluster.bytes();
        let formatted = Times::all(self.spec.formatted);
        let root = Self::own_reference(metafile::ROOT);
        let file = |parent, times, len, attributes| {
            let name =
                FileName { parent, times, allocated: whole(len), data: len, attributes, namespace: namespace::POSIX };
            Node { reference: Self::own_reference(record), name, attributes, security_id: security::ID_FILE }
        };
        let dir = |parent, times, attributes| Node {
            reference: Self::own_reference(record),
            name: FileName {
                parent,
                times,
                allocated: 0,
                data: 0,
                attributes: attributes | file_attribute::DIRECTORY,
                namespace: namespace::POSIX,
            },
            attributes,
            security_id: security::ID_DIRECTORY,
        };
        if records.files.contains(&record) {
            let facts = tree.file(record - records.files.start);
            file(parent_of(facts.dir), facts.times, facts.len.0, file_attribute::ARCHIVE)
        } else if records.dirs.contains(&record) {
            let facts = tree.dir(record - records.dirs.start);
            dir(parent_of(facts.parent), facts.times, 0)
        } else if records.root_files.contains(&record) {
            let k = (record - records.root_files.start) as usize;
            let len = self.root_file_len(outcome, k);
            file(root, self.spec.root_files[k].times, len, file_attribute::ARCHIVE)
        } else if let (Some(hidden_record), Some(hidden)) = (records.hidden_dir, &self.spec.hidden) {
            let i = record.wrapping_sub(records.hidden_files.start) as usize;
            if record == hidden_record {
                Node { security_id: security::ID_HIDDEN_DIRECTORY, ..dir(root, formatted, hidden.attributes) }
            } else if let Some(facts) = hidden.files.get(i) {
                let mut node = file(Self::own_reference(hidden_record), formatted, facts.len.0, facts.attributes);
                node.security_id = security::ID_HIDDEN_FILE;
                node.name.allocated = self.geometry.cluster.len_of(self.hidden[i].len).0;
                node
            } else {
                self.system_node(record)
            }
        } else {
            self.system_node(record)
        }
    }

    fn system_node(&self, record: u32) -> Node {
        let facts = super::system::facts(self, record);
        let name = FileName {
            parent: Self::own_reference(if record <= metafile::EXTEND { metafile::ROOT } else { metafile::EXTEND }),
            times: Times::all(self.spec.formatted),
            allocated: facts.allocated,
            data: facts.data,
            attributes: facts.attributes | if facts.directory { file_attribute::DIRECTORY } else { 0 },
            namespace: if record <= metafile::EXTEND { namespace::WIN32_AND_DOS } else { namespace::POSIX },
        };
        Node {
            reference: Self::own_reference(record),
            name,
            attributes: facts.attributes,
            security_id: facts.security_id,
        }
    }

    /// The used clusters outside the linear space.
    pub(super) fn fixed_extents(&self) -> Vec<Extent> {
        let front = &self.front;
        let mut all = vec![front.boot, front.mirror, front.attr_def, front.up_case, front.sds, front.log];
        all.extend(front.sdh);
        all.extend(&self.hidden);
        all
    }

    /// The used ranges of the linear space after the data, ascending.
    pub(super) fn own_ranges(&self, tree: &impl Tree, outcome: &Outcome) -> Vec<LinearRange> {
        let mut all = vec![self.mft];
        let mut push = |range: LinearRange| match all.last_mut() {
            Some(last) if last.end() == range.start => last.len.0 += range.len.0,
            _ if range.len.0 == 0 => {}
            _ => all.push(range),
        };
        let mut shape = Shape::default();
        for large in &self.large {
            if let IndexState::Large { place, blocks } = self.index_state(tree, outcome, large.record, &mut shape) {
                push(self.index_blocks_range(&place, blocks));
                self.index_bitmap_range(tree, &place).into_iter().for_each(&mut push);
            }
        }
        for (k, range) in self.root_files.iter().enumerate() {
            let len = self.geometry.clusters_for(self.root_file_len(outcome, k));
            push(LinearRange { start: range.start, len: Clusters(len) });
        }
        push(self.mft_bitmap);
        push(self.bitmap);
        all
    }

    /// Checks that runs are inside the volume and disjoint, and that `$Bitmap` agrees with them.
    ///
    /// # Errors
    /// [`CheckError`], which would be a bug in dray.
    pub fn check<T: Tree>(&self, tree: &T, outcome: &Outcome) -> Result<(), CheckError> {
        let mut all = self.fixed_extents();
        all.extend(self.own_ranges(tree, outcome).into_iter().flat_map(|range| self.space.extents(range)));
        for i in 0..tree.files() {
            let place = self.file_place(i);
            if place.len != self.geometry.cluster.count_for(tree.file(i).len) {
                return Err(CheckError::Length { file: i });
            }
            if outcome.left_out.contains(i) {
                continue;
            }
            for extent in self.space.extents(place) {
                match all.last_mut() {
                    Some(last) if last.lcn.0 + last.len.0 == extent.lcn.0 => last.len.0 += extent.len.0,
                    _ => all.push(extent),
                }
            }
        }
        all.sort_unstable_by_key(|extent| extent.lcn);
        let (mut end, mut used) = (0, 0);
        for extent in &all {
            if extent.lcn.0 < end {
                return Err(CheckError::Overlap { lcn: extent.lcn });
            }
            end = extent.lcn.0 + extent.len.0;
            used += extent.len.0;
            if end > self.geometry.clusters {
                return Err(CheckError::Outside { lcn: extent.lcn });
            }
        }
        let set = self.count_bitmap(tree, outcome);
        if set == used { Ok(()) } else { Err(CheckError::Bitmap { set, used }) }
    }

    fn count_bitmap<T: Tree>(&self, tree: &T, outcome: &Outcome) -> u64 {
        let mut bits = self.generator(super::SectionKind::Bitmap, tree, outcome);
        let mut buf = vec![0; 64 << 10];
        let (mut set, mut at) = (0u64, 0);
        let len = self.geometry.bitmap_len();
        while at < len {
            let part = (len - at).min(buf.len() as u64) as usize;
            bits.fill(crate::units::StreamOffset(at), &mut buf[..part]);
            set += buf[..part].iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>();
            at += part as u64;
        }
        // Padding bits of the last bytes are set without a cluster.
        set - (len * 8 - self.geometry.clusters)
    }
}

/// Fault found by [`Layout::check`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// Two runs share a cluster.
    #[error("two runs share cluster {lcn:?}")]
    Overlap {
        /// Start of the second run.
        lcn: Lcn,
    },
    /// A run leaves the volume.
    #[error("the run at cluster {lcn:?} leaves the volume")]
    Outside {
        /// First cluster of the run.
        lcn: Lcn,
    },
    /// The number of a file's clusters does not match its length.
    #[error("file {file} has not the clusters its length needs")]
    Length {
        /// Index of the file in the tree.
        file: u32,
    },
    /// The numbers of used clusters in `$Bitmap` and in runs differ.
    #[error("$Bitmap has {set} clusters in use, the runs {used}")]
    Bitmap {
        /// Bits that are set.
        set: u64,
        /// Clusters in runs.
        used: u64,
    },
}

impl Records {
    fn number(spec: &VolumeSpec, tree: &impl Tree, geometry: &Geometry) -> Result<Self, LayoutError> {
        let hidden = spec.hidden.as_ref().map_or(0, |dir| 1 + dir.files.len() as u64);
        let used = u64::from(FIRST_USER_RECORD)
            + spec.root_files.len() as u64
            + hidden
            + u64::from(tree.dirs())
            + u64::from(tree.files());
        let record = geometry.record_bytes as u64;
        let bytes = (used * record).max(geometry.mirror_len()).next_multiple_of(geometry.cluster.bytes().max(record));
        let total = bytes / record;
        if total > u64::from(u32::MAX) {
            return Err(LayoutError::TooManyRecords { records: total });
        }
        let root_files = FIRST_USER_RECORD..FIRST_USER_RECORD + spec.root_files.len() as u32;
        let hidden_dir = spec.hidden.as_ref().map(|_| root_files.end);
        let hidden_start = root_files.end + u32::from(hidden_dir.is_some());
        let hidden_files = hidden_start..root_files.end + hidden as u32;
        let dirs = hidden_files.end..hidden_files.end + tree.dirs();
        let files = dirs.end..dirs.end + tree.files();
        Ok(Self { root_files, hidden_dir, hidden_files, dirs, files, total })
    }
}

/// The clusters of the hidden files, in their order.
impl Front {
    /// Places the metafiles around `hidden`. Also returns what is free behind them. `no_room`: the error if they do not
    /// fit.
    fn place(
        geometry: &Geometry,
        security: &Security,
        mut hidden: Vec<Extent>,
        no_room: LayoutError,
    ) -> Result<(Self, LinearSpace), LayoutError> {
        hidden.sort_by_key(|extent| extent.lcn);
        let mut fit = FirstFit::new(hidden, geometry.clusters);
        let mut place = |len: u64| fit.take(geometry.clusters_for(len)).ok_or_else(|| no_room.clone());
        let boot = place(BOOT_BYTES)?;
        if boot.lcn != Lcn(0) {
            return Err(no_room);
        }
        let mirror = place(geometry.mirror_len())?;
        let attr_def = place(super::system::ATTR_DEF_BYTES as u64)?;
        let up_case = place(upcase::BYTES as u64)?;
        let sds = place(security.sds_len())?;
        let sdh_fits = super::system::secure_record_len(security) <= record::room(geometry.record_bytes);
        let sdh = if sdh_fits { None } else { Some(place(INDEX_BLOCK as u64)?) };
        let log = place(geometry.log_len())?;
        let space = LinearSpace::between(fit.taken(), geometry.clusters);
        Ok((Self { boot, mirror, attr_def, up_case, sds, sdh, log }, space))
    }
}

/// Names that are not the tree's, by directory, sorted.
struct Extras {
    root: Vec<Extra>,
    hidden: Vec<Extra>,
    extend: Vec<Extra>,
}

impl Extras {
    fn new(spec: &VolumeSpec, records: &Records) -> Self {
        let extra = |name: &str, record: u32| Extra { name: name.encode_utf16().collect(), record };
        let (extend, root): (Vec<_>, Vec<_>) =
            super::system::NAMES.iter().partition(|(record, _)| *record > metafile::EXTEND);
        let mut root: Vec<_> = root.into_iter().map(|&(record, name)| extra(name, record)).collect();
        let mut extend: Vec<_> = extend.into_iter().map(|&(record, name)| extra(name, record)).collect();
        let root_files = records.root_files.clone().zip(&spec.root_files);
        root.extend(root_files.map(|(record, file)| extra(&file.name, record)));
        let mut hidden = Vec::new();
        if let (Some(record), Some(dir)) = (records.hidden_dir, &spec.hidden) {
            root.push(extra(&dir.name, record));
            let files = records.hidden_files.clone().zip(&dir.files);
            hidden.extend(files.map(|(record, file)| extra(&file.name, record)));
        }
        for extras in [&mut root, &mut hidden, &mut extend] {
            extras.sort_by(|a, b| upcase::compare(a.name.iter().copied(), b.name.iter().copied()));
        }
        Self { root, hidden, extend }
    }
}

fn hidden_extents(spec: &VolumeSpec, geometry: &Geometry) -> Result<Vec<Extent>, LayoutError> {
    let mut all: Vec<Extent> = Vec::new();
    for file in spec.hidden.iter().flat_map(|dir| &dir.files) {
        let wrong = || LayoutError::Hidden { name: file.name.clone() };
        let cluster = geometry.cluster.bytes();
        let end = file.extent.start.checked_add(file.extent.len).ok_or_else(wrong)?;
        let lcn = file.extent.start.0 / cluster;
        let extent = Extent { lcn: Lcn(lcn), len: Clusters(end.0.div_ceil(cluster).saturating_sub(lcn)) };
        let clash =
            all.iter().any(|other| extent.lcn.0 < other.lcn.0 + other.len.0 && other.lcn.0 < lcn + extent.len.0);
        if !file.extent.start.is_aligned(cluster)
            || extent.len.0 == 0
            || lcn + extent.len.0 > geometry.clusters
            || file.len.0 == 0
            || file.len > geometry.cluster.len_of(extent.len)
            || clash
        {
            return Err(wrong());
        }
        all.push(extent);
    }
    Ok(all)
}
