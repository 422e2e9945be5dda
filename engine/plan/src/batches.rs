//! The write order: the drive cut into batches of one slot each.
//!
//! A batch holds whole hash blocks only, so that each is independent: it is filled, hashed and sealed without
//! knowledge of its neighbours. Two kinds of blocks run on from batch to batch: those longer than a slot, and those of an
//! exported blob that end within a cluster, as batches are whole clusters.

use std::ops::Range;

use crate::drive::{DriveLayout, Use};
use crate::ntfs::build::{LinearRange, Phase as SectionPhase, SectionKind, Tree};
use crate::tree::DriveTree;
use crate::units::{ClusterSize, Clusters, DeviceOffset, DeviceRange, StreamOffset, VolumeRange};

/// Most parts in one batch, but for those that begin within a cluster: bounds the open parts for a directory of a million
/// empty files.
const PARTS_MAX: usize = 2048;

/// Phase of writing. The order of the variants is the order of writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// File data and the areas between, ascending.
    Data,
    /// Metadata that lists the files: `$MFT`, indexes, manifest, bitmaps.
    Metadata,
    /// Zeros over free space, if requested.
    FreeSpace,
    /// Structures without which there is no volume: system records, NTFS boot sectors, BitLocker's metadata. After a
    /// flush.
    Last,
    /// The volume's first sector, which completes it. After another flush.
    Front,
    /// Both partition tables, which make the volume visible. After a third flush: a visible volume is a complete one.
    Tables,
}

impl Phase {
    /// Code of the phase in the digest of a plan; never reused for another one.
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Metadata => 2,
            Self::FreeSpace => 3,
            Self::Last => 4,
            Self::Front => 5,
            Self::Tables => 6,
        }
    }
}

/// One slot's worth of the drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Phase in which it is written.
    pub phase: Phase,
    /// Contents of the slot.
    pub content: Content,
    /// Bytes of the slot in use.
    pub len: usize,
    /// Destination of those bytes; more than one piece only where the batch runs across a region of BitLocker.
    pub pieces: Vec<Piece>,
}

/// A range of the slot and its place on the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Range of the slot.
    pub range: Range<usize>,
    /// Device offset to write to.
    pub at: DeviceOffset,
}

/// Source of a batch's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Parts of files; the rest of the slot is zero.
    Files(Vec<Part>),
    /// A run of a part of NTFS, sealed.
    Section {
        /// Part of NTFS that the run belongs to.
        kind: SectionKind,
        /// First byte of the run in that part.
        offset: u64,
    },
    /// A run of the manifest, sealed; nothing after its true end.
    Manifest {
        /// First byte of the run in the manifest.
        offset: u64,
    },
    /// Zeros, sealed.
    Zeros,
    /// Bytes that are not sealed: partition tables and BitLocker's metadata.
    Plain(Plain),
}

/// Bytes that are not part of the encrypted volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// One of the three metadata regions.
    FveRegion,
    /// Noise from the first sector up to byte 8192 of the volume.
    Noise,
    /// The first sector of the volume.
    BootSector,
    /// Backup copy of the GPT.
    TableBackup,
    /// GPT with protective MBR, or MBR.
    TablePrimary,
    /// Zeros outside the volume.
    Zeros,
}

impl Content {
    /// Code of the content's kind in the digest of a plan; never reused for another one.
    pub(super) const fn code(&self) -> u8 {
        match self {
            Self::Files(_) => 1,
            Self::Section { .. } => 2,
            Self::Manifest { .. } => 3,
            Self::Zeros => 4,
            Self::Plain(_) => 5,
        }
    }
}

impl Plain {
    /// Code of the kind in the digest of a plan; never reused for another one.
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::FveRegion => 1,
            Self::Noise => 2,
            Self::BootSector => 3,
            Self::TableBackup => 4,
            Self::TablePrimary => 5,
            Self::Zeros => 6,
        }
    }
}

/// A hash block, or a slot's worth of a longer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// File of the drive's tree.
    pub file: u32,
    /// First byte of the part in the file.
    pub offset: u64,
    /// Length in bytes, at most that of a slot.
    pub len: u32,
    /// First byte of the part in the slot.
    pub into: u32,
    /// The hash block begins here.
    pub block_start: bool,
    /// The hash block ends here.
    pub block_end: bool,
}

/// Iterator over the batches of one drive, computed on demand.
#[derive(Debug)]
pub struct Batches<'a> {
    drive: &'a DriveLayout,
    slot_len: u64,
    phase: Option<Phase>,
    /// Runs of the present phase that are not file data, ascending; reversed, so that `pop` gives the next.
    runs: Vec<ContentRun>,
    data: FilePacker<'a>,
    pending_data: Option<Batch>,
}

/// A run that is cut by length alone.
#[derive(Clone, Debug)]
struct ContentRun {
    content: Content,
    /// Bytes of content before this run.
    skip: u64,
    place: DeviceRange,
}

/// Packs the files of a tree into slots, in its order.
#[derive(Debug)]
pub struct FilePacker<'a> {
    tree: &'a DriveTree,
    cluster: u64,
    slot_len: u64,
    file: u32,
    offset: u64,
}

/// A slot's worth of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Parts of files in the slot; never empty.
    pub parts: Vec<Part>,
    /// Bytes of the slot in use: whole clusters.
    pub len: usize,
    /// The first file with data, and the slot's starting offset in it: from there on data are contiguous.
    pub first: Option<(u32, StreamOffset)>,
}

impl<'a> FilePacker<'a> {
    /// Packs from the first file on, with this cluster and slot length; slots are whole clusters.
    pub fn new(tree: &'a DriveTree, cluster: ClusterSize, slot_len: usize) -> Self {
        Self { tree, cluster: cluster.bytes(), slot_len: slot_len as u64, file: 0, offset: 0 }
    }
}

impl Iterator for FilePacker<'_> {
    type Item = Packed;

    fn next(&mut self) -> Option<Packed> {
        let tree = self.tree;
        let mut parts: Vec<Part> = Vec::new();
        let mut len = 0u64;
        let mut first = None;
        // A batch that ended within a cluster could not be continued.
        while self.file < tree.files() && (parts.len() < PARTS_MAX || !len.is_multiple_of(self.cluster)) {
            let file = self.file;
            // Files whose contents depend on the blobs wait for all of them.
            let borders = [tree.blob_count(), tree.first_property()];
            let has_own = tree.has_md5s() || tree.has_metadata();
            if has_own && borders.contains(&file) && self.offset == 0 && !parts.is_empty() {
                break;
            }
            let total = tree.file(file).len.0;
            let offset = self.offset;
            let block = tree.blocks(file).around(offset);
            let rest_of_block = block.end - offset;
            let room = self.slot_len - len;
            if rest_of_block > room && !parts.is_empty() && len.is_multiple_of(self.cluster) {
                break;
            }
            let take = rest_of_block.min(room);
            if first.is_none() && total > 0 {
                // A block longer than a slot is cut at slot lengths, which are whole clusters.
                first = Some((file, StreamOffset(offset)));
            }
            parts.push(Part {
                file,
                offset,
                len: take as u32,
                into: len as u32,
                block_start: offset == block.start,
                block_end: take == rest_of_block,
            });
            self.offset += take;
            if self.offset == total {
                (self.file, self.offset) = (file + 1, 0);
                len = (len + take).next_multiple_of(self.cluster);
            } else {
                len += take;
            }
            if len >= self.slot_len {
                break;
            }
        }
        (!parts.is_empty()).then_some(Packed { parts, len: len as usize, first })
    }
}

impl<'a> Batches<'a> {
    pub(super) fn new(drive: &'a DriveLayout, slot_len: usize, from: Phase) -> Self {
        let mut this = Self {
            drive,
            slot_len: slot_len as u64,
            phase: None,
            runs: Vec::new(),
            data: FilePacker::new(drive.tree(), drive.layout().cluster(), slot_len),
            pending_data: None,
        };
        this.enter(from);
        this
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = Some(phase);
        self.runs = match phase {
            Phase::Data => self.early_runs(),
            Phase::Metadata => self.metadata_runs(),
            Phase::FreeSpace => self.free_runs(),
            Phase::Last => self.last_runs(),
            Phase::Front => self.front_runs(),
            Phase::Tables => self.table_runs(),
        };
        self.runs.reverse();
    }

    fn early_runs(&self) -> Vec<ContentRun> {
        let mut runs = self.section_runs(SectionPhase::Early);
        // Clusters of the files that own BitLocker's regions, beyond the regions themselves, decrypt to zeros.
        for zeros in self.drive.hidden_zeros().into_iter().chain([self.drive.tail()]).filter(|zeros| zeros.len.0 > 0) {
            runs.push(self.run(Content::Zeros, 0, zeros));
        }
        // Few bytes, and a partition: whatever lay there before would be in the clear for ever.
        let reserved = self.drive.table().msr;
        runs.extend(reserved.map(|place| ContentRun { content: Content::Plain(Plain::Zeros), skip: 0, place }));
        runs.sort_by_key(|run| run.place.start);
        runs
    }

    /// A run whose place is in the volume.
    fn run(&self, content: Content, skip: u64, place: VolumeRange) -> ContentRun {
        ContentRun { content, skip, place: place.on_device(self.drive.volume_start()) }
    }

    fn section_runs(&self, phase: SectionPhase) -> Vec<ContentRun> {
        let mut runs = Vec::new();
        for section in self.drive.layout().sections().into_iter().filter(|s| s.phase == phase) {
            let mut skip = 0;
            for place in section.extents {
                runs.push(self.run(Content::Section { kind: section.kind, offset: 0 }, skip, place));
                skip += place.len.0;
            }
        }
        runs
    }

    fn metadata_runs(&self) -> Vec<ContentRun> {
        let mut runs = self.section_runs(SectionPhase::AfterData);
        let mut skip = 0;
        for place in self.drive.manifest_place().into_iter().flat_map(|place| self.extents(place)) {
            runs.push(self.run(Content::Manifest { offset: 0 }, skip, place));
            skip += place.len.0;
        }
        runs.sort_by_key(|run| run.place.start);
        runs
    }

    fn free_runs(&self) -> Vec<ContentRun> {
        let left = self.drive.left().filter(|_| self.drive.wipe_free()).map(|(place, what)| {
            let content = if what == Use::Free { Content::Zeros } else { Content::Plain(Plain::Zeros) };
            ContentRun { content, skip: 0, place }
        });
        left.collect()
    }

    fn last_runs(&self) -> Vec<ContentRun> {
        let mut runs = self.section_runs(SectionPhase::Last);
        let (regions, behind) = (self.drive.regions(), self.drive.behind_boot_sector());
        let volume = self.drive.volume_start();
        for run in &mut runs {
            if matches!(run.content, Content::Section { kind: SectionKind::Boot, .. }) {
                match regions {
                    // Virtual [0, 8192) is stored in the relocated area.
                    Some(regions) => run.place.start = regions.relocated().start.on_device(volume),
                    // The first sector completes the volume, so it is written later.
                    None => (run.skip, run.place) = (behind.start.0, behind.on_device(volume)),
                }
            }
        }
        if let Some(regions) = regions {
            let plain = |content, place| self.run(Content::Plain(content), 0, place);
            runs.extend(regions.metadata().map(|place| plain(Plain::FveRegion, place)));
            runs.push(plain(Plain::Noise, behind));
        }
        runs.sort_by_key(|run| run.place.start);
        runs
    }

    fn front_runs(&self) -> Vec<ContentRun> {
        let content = match self.drive.regions() {
            Some(_) => Content::Plain(Plain::BootSector),
            None => Content::Section { kind: SectionKind::Boot, offset: 0 },
        };
        vec![self.run(content, 0, self.drive.boot_sector())]
    }

    fn table_runs(&self) -> Vec<ContentRun> {
        let run = |plain, place| ContentRun { content: Content::Plain(plain), skip: 0, place };
        let backup = self.drive.table_backup().map(|place| run(Plain::TableBackup, place));
        backup.into_iter().chain([run(Plain::TablePrimary, self.drive.table_primary())]).collect()
    }

    fn extents(&self, range: LinearRange) -> impl Iterator<Item = VolumeRange> + use<'a> {
        self.drive.extents(range)
    }

    /// The next slot's worth of the present phase's runs.
    fn cut(&mut self) -> Option<Batch> {
        let run = self.runs.last_mut()?;
        let len = run.place.len.0.min(self.slot_len);
        let at = run.place.start;
        let content = match &run.content {
            Content::Section { kind, .. } => Content::Section { kind: *kind, offset: run.skip },
            Content::Manifest { .. } => Content::Manifest { offset: run.skip },
            other => other.clone(),
        };
        run.skip += len;
        run.place = DeviceRange::new(at.0 + len, run.place.len.0 - len);
        if run.place.len.0 == 0 {
            self.runs.pop();
        }
        let pieces = vec![Piece { range: 0..len as usize, at }];
        Some(Batch { phase: self.phase?, content, len: len as usize, pieces })
    }

    /// The next slot's worth of file data.
    fn next_data(&mut self) -> Option<Batch> {
        let Packed { parts, len, first } = self.data.next()?;
        let cluster = self.drive.layout().cluster().bytes();
        let mut pieces = Vec::with_capacity(1);
        let mut from = 0usize;
        if let Some((file, offset)) = first {
            let start = self.drive.layout().file_place(file).start + offset.0 / cluster;
            for place in self.extents(LinearRange { start, len: Clusters(len as u64 / cluster) }) {
                let to = from + place.len.0 as usize;
                pieces.push(Piece { range: from..to, at: place.start.on_device(self.drive.volume_start()) });
                from = to;
            }
        }
        Some(Batch { phase: Phase::Data, content: Content::Files(parts), len, pieces })
    }
}

impl Iterator for Batches<'_> {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        loop {
            match self.phase? {
                Phase::Data => {
                    if self.pending_data.is_none() {
                        self.pending_data = self.next_data();
                    }
                    let run_at = self.runs.last().map(|run| run.place.start.0);
                    let data_at = self.pending_data.as_ref().map(|b| b.pieces.first().map_or(0, |piece| piece.at.0));
                    match (run_at, data_at) {
                        (Some(run), Some(data)) if run < data => return self.cut(),
                        (_, Some(_)) => return self.pending_data.take(),
                        (Some(_), None) => return self.cut(),
                        (None, None) => self.enter(Phase::Metadata),
                    }
                }
                phase => {
                    if let Some(batch) = self.cut() {
                        return Some(batch);
                    }
                    match phase {
                        Phase::Metadata => self.enter(Phase::FreeSpace),
                        Phase::FreeSpace => self.enter(Phase::Last),
                        Phase::Last => self.enter(Phase::Front),
                        Phase::Front => self.enter(Phase::Tables),
                        Phase::Tables | Phase::Data => self.phase = None,
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::account::{Exported, ExportedBlob, ExportedFile, OwnBlocks};
    use crate::azure::dataset::BlobType;
    use crate::catalog::Builder;
    use crate::units::{ByteLen, FileTime, Stamp};

    #[test]
    fn blocks_that_end_within_clusters_are_packed_without_gaps() {
        const CLUSTER: u64 = 4096;
        for lens in [vec![3; 9000], vec![70_000, 1, 5000, 300_000, 4095], vec![65_537; 5], vec![1; 5]] {
            let total: u64 = lens.iter().sum();
            let mut builder = Builder::new();
            let row = builder.row("mem:/".into(), Some(0), Some(BlobType::Block));
            let at = [Stamp { seconds: 0, nanos: 0 }; 2];
            for (name, len) in [("a", total), ("b", 700)] {
                builder.file(0, name, row, ByteLen(len), at).expect("a file");
            }
            let blocks = lens.iter().enumerate().map(|(i, len)| (format!("{i}"), *len)).collect();
            let own = ExportedBlob { blocks: OwnBlocks::of(blocks, total), ..ExportedBlob::default() };
            let files = [own, ExportedBlob::default()].map(|blob| ExportedFile::Blob(Box::new(blob))).into();
            let exported = Arc::new(Exported { endpoint: String::new(), files });
            let catalog = Arc::new(builder.seal_export().expect("each once"));
            let tree = DriveTree::of_export(catalog, &[0, 1], exported, FileTime(0));
            let cluster = ClusterSize::from_bytes(CLUSTER).expect("a cluster");
            let (mut next, mut seen, mut ends) = (0, Vec::new(), 0);
            for packed in FilePacker::new(&tree, cluster, 64 << 10) {
                assert!(packed.len <= 64 << 10 && (packed.len as u64).is_multiple_of(CLUSTER));
                assert_eq!(packed.parts[0].offset % CLUSTER, 0, "a batch begins with a cluster");
                for part in packed.parts.iter().filter(|part| part.file == 0) {
                    assert_eq!((part.offset, u64::from(part.into) % CLUSTER), (next, next % CLUSTER), "{lens:?}");
                    assert_eq!(part.block_start, next == ends, "{lens:?}");
                    if part.block_start {
                        ends += lens[seen.len()];
                        seen.push(ends);
                    }
                    next += u64::from(part.len);
                    assert_eq!(part.block_end, next == ends, "{lens:?}");
                }
            }
            assert_eq!((next, seen.len()), (total, lens.len()));
        }
    }
}
