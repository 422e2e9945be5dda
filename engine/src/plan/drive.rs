//! The layers of one drive laid into each other: partition table, BitLocker's regions, the NTFS volume around them, and
//! the files in it.

use crate::bitlocker::regions::{PlaceError, Regions};
use crate::gpt;
use crate::hash::Sha256;
use crate::ntfs::build::{HiddenDir, HiddenFile, Layout, LayoutError, LinearRange, RootFile, Times, Tree, VolumeSpec};
use crate::plan::batches::{Batch, Batches, Content, Phase};
use crate::plan::tree::DriveTree;
use crate::units::{ByteLen, ByteOffset, ByteRange, ClusterSize, Extent, FileTime, SectorSize};

/// File attributes of the directory that Windows keeps for itself.
pub(super) const HIDDEN: u32 = 0x02;
pub(super) const SYSTEM: u32 = 0x04;
/// Its name.
pub(super) const HIDDEN_DIR: &str = "System Volume Information";

/// Name of the manifest at the volume's root.
pub const MANIFEST_NAME: &str = "DriveManifest.xml";

/// What a drive is, and how it is to be laid out.
#[derive(Clone, Debug)]
pub struct DriveSpec {
    /// Bytes of the device.
    pub len: ByteLen,
    /// Its logical sectors.
    pub sector: SectorSize,
    /// GPT or MBR.
    pub scheme: gpt::Scheme,
    /// GUIDs of the table.
    pub guids: gpt::Guids,
    /// `None`: as Windows chooses.
    pub cluster: Option<ClusterSize>,
    /// NTFS volume serial number.
    pub serial: u64,
    /// Volume label.
    pub label: String,
    /// Time of formatting.
    pub formatted: FileTime,
    /// Zeros over the free space.
    pub wipe_free: bool,
}

/// Why a drive cannot hold what it should.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// No partition table fits.
    #[error(transparent)]
    Table(#[from] gpt::PlanError),
    /// BitLocker's regions do not fit.
    #[error(transparent)]
    Regions(#[from] PlaceError),
    /// The files do not fit.
    #[error(transparent)]
    Volume(#[from] LayoutError),
}

/// The frame of a drive before its files are known.
#[derive(Debug)]
pub struct Frame {
    table: gpt::Table,
    regions: Regions,
    cluster: ClusterSize,
    spec: DriveSpec,
}

impl Frame {
    /// Partition table and BitLocker's regions for a drive.
    ///
    /// # Errors
    /// When the drive is too small for them, or too large for an MBR.
    pub fn new(spec: DriveSpec) -> Result<Self, DriveError> {
        let cluster = spec.cluster.unwrap_or_else(|| crate::ntfs::build::default_cluster(spec.len, spec.sector));
        let table = gpt::Table::plan_default(spec.len, spec.sector, spec.scheme, ByteLen(cluster.bytes()), spec.guids)?;
        let regions = Regions::place(table.data.len, cluster, spec.sector)?;
        Ok(Self { table, regions, cluster, spec })
    }

    /// The volume's cluster size.
    pub fn cluster(&self) -> ClusterSize {
        self.cluster
    }

    /// Where the volume lies on the device.
    pub fn volume(&self) -> ByteRange {
        self.table.data
    }

    /// Where BitLocker keeps its own.
    pub fn regions(&self) -> &Regions {
        &self.regions
    }

    fn volume_spec(&self, manifest_len_max: ByteLen) -> VolumeSpec {
        let hidden = self.regions.hidden_files().into_iter().map(|file| HiddenFile {
            name: file.name.to_owned(),
            extent: file.allocated,
            len: file.data_len,
            attributes: file.attributes,
        });
        VolumeSpec {
            sector: self.spec.sector,
            len: self.table.data.len,
            cluster: self.cluster,
            hidden_sectors: self.table.data.start.0 / self.spec.sector.bytes(),
            serial: self.spec.serial,
            label: self.spec.label.clone(),
            formatted: self.spec.formatted,
            hidden: Some(HiddenDir { name: HIDDEN_DIR.into(), attributes: HIDDEN | SYSTEM, files: hidden.collect() }),
            root_files: vec![RootFile {
                name: MANIFEST_NAME.into(),
                len_max: manifest_len_max,
                times: Times::all(self.spec.formatted),
            }],
        }
    }
}

/// One drive, planned to the last byte.
#[derive(Debug)]
pub struct DriveLayout {
    frame: Frame,
    tree: DriveTree,
    layout: Layout,
    manifest_len_max: ByteLen,
    data_len: ByteLen,
    to_write: ByteLen,
}

impl DriveLayout {
    /// Lays the files of `tree` into the frame; the manifest takes `manifest_len_max` at most.
    ///
    /// # Errors
    /// When they do not fit, and by how much.
    pub fn new(frame: Frame, tree: DriveTree, manifest_len_max: ByteLen) -> Result<Self, DriveError> {
        let layout = Layout::plan(frame.volume_spec(manifest_len_max), &tree)?;
        let data_len = ByteLen((0..tree.blob_count()).map(|i| tree.file(i).len.0).sum());
        let mut this = Self { frame, tree, layout, manifest_len_max, data_len, to_write: ByteLen(0) };
        this.to_write = this.count();
        Ok(this)
    }

    fn count(&self) -> ByteLen {
        let cluster = self.layout.cluster();
        let sections: u64 = self.layout.sections().iter().map(|s| s.extents.iter().map(|p| p.len.0).sum::<u64>()).sum();
        let data: u64 = (0..self.tree.files()).map(|i| cluster.len_of(self.layout.file_place(i).len).0).sum();
        let manifest = cluster.len_of(self.manifest_place().len).0;
        let free = if self.wipe_free() { cluster.len_of(self.free_space().len).0 } else { 0 };
        let hidden: u64 = self.hidden_zeros().iter().map(|range| range.len.0).sum();
        let own: u64 = self.fve_regions().map(|range| range.len.0).sum::<u64>()
            + self.frame.regions.front().len.0
            + self.table_primary().len.0
            + self.table_backup().map_or(0, |range| range.len.0);
        ByteLen(sections + data + manifest + free + hidden + own)
    }

    /// What is written, in order, in slots of `slot_len` bytes.
    pub fn batches(&self, slot_len: usize) -> Batches<'_> {
        Batches::new(self, slot_len, Phase::Data)
    }

    /// SHA-256 of what is written where, in slots of `slot_len` bytes: the same for the same plan, whoever makes it.
    pub fn digest(&self, slot_len: usize) -> [u8; 32] {
        let mut hash = Sha256::default();
        let mut words: Vec<u8> = Vec::with_capacity(64 << 10);
        let push = |words: &mut Vec<u8>, word: u64| words.extend_from_slice(&word.to_le_bytes());
        push(&mut words, slot_len as u64);
        push(&mut words, self.manifest_len_max.0);
        for batch in self.batches(slot_len) {
            push(&mut words, batch.phase as u64);
            push(&mut words, batch.len as u64);
            for piece in &batch.pieces {
                push(&mut words, piece.range.start as u64);
                push(&mut words, piece.at.0);
            }
            match &batch.content {
                Content::Files(parts) => {
                    for part in parts {
                        push(&mut words, u64::from(part.file) << 32 | u64::from(part.len));
                        push(&mut words, part.offset);
                    }
                }
                Content::Section { kind, offset } => {
                    words.extend_from_slice(format!("{kind:?}").as_bytes());
                    push(&mut words, *offset);
                }
                Content::Manifest { offset } => push(&mut words, *offset),
                Content::Zeros => {}
                Content::Plain(plain) => push(&mut words, *plain as u64),
            }
            hash.update(&words);
            words.clear();
        }
        hash.update(&self.table().primary());
        hash.value()
    }

    /// The places that are written last: before anything else is written they are wiped.
    pub fn last_places(&self) -> Vec<ByteRange> {
        let last: Batches<'_> = Batches::new(self, 4 << 20, Phase::Last);
        let place = |batch: Batch| batch.pieces.into_iter().map(|p| ByteRange::new(p.at.0, p.range.len() as u64));
        last.flat_map(place).collect()
    }

    /// What nothing is written to unless free space is overwritten, on the device, ascending: gaps between tables and volume,
    /// and free clusters.
    pub fn never_written(&self) -> Vec<ByteRange> {
        let (cluster, volume) = (self.layout.cluster(), self.volume());
        let between = |from: ByteOffset, to: ByteOffset| ByteRange::new(from.0, to.0.saturating_sub(from.0));
        let end = self.table_backup().map_or(ByteOffset(self.frame.spec.len.0), |table| table.start);
        let free = self.layout.space().extents(self.free_space()).map(|Extent { lcn, len }| ByteRange {
            start: ByteOffset(volume.start.0 + cluster.offset_of(lcn).0),
            len: cluster.len_of(len),
        });
        let mut all = vec![between(self.table_primary().end(), volume.start)];
        all.extend(free);
        all.push(between(volume.end(), end));
        all.retain(|range| range.len.0 > 0);
        all
    }

    /// The files.
    pub fn tree(&self) -> &DriveTree {
        &self.tree
    }

    /// The file system.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The partition table.
    pub fn table(&self) -> &gpt::Table {
        &self.frame.table
    }

    /// Where BitLocker keeps its own.
    pub fn regions(&self) -> &Regions {
        &self.frame.regions
    }

    /// Logical sectors of the device.
    pub fn sector(&self) -> SectorSize {
        self.frame.spec.sector
    }

    /// Where the volume lies on the device.
    pub fn volume(&self) -> ByteRange {
        self.frame.table.data
    }

    /// Whether free space is overwritten.
    pub fn wipe_free(&self) -> bool {
        self.frame.spec.wipe_free
    }

    /// Bytes of all blobs on it.
    pub fn data_len(&self) -> ByteLen {
        self.data_len
    }

    /// Upper bound of what will be written.
    pub fn total_to_write(&self) -> ByteLen {
        self.to_write
    }

    /// Upper bound of the manifest's length.
    pub fn manifest_len_max(&self) -> ByteLen {
        self.manifest_len_max
    }

    /// Where the manifest lies in the linear space.
    pub fn manifest_place(&self) -> LinearRange {
        self.layout.root_file_place(0)
    }

    /// Clusters behind everything that is planned.
    pub fn free_space(&self) -> LinearRange {
        let (all, free) = (self.layout.space().len(), self.layout.free_clusters());
        LinearRange { start: all.0 - free.0, len: free }
    }

    /// Length of the hash blocks of a file.
    pub fn block_len(&self, file: u32) -> u64 {
        self.tree.block_len(file)
    }

    /// The three metadata regions, in the volume.
    pub fn fve_regions(&self) -> impl Iterator<Item = ByteRange> {
        self.frame.regions.metadata().into_iter()
    }

    /// Where the NTFS boot sectors are stored, in the volume.
    pub fn relocated(&self) -> ByteRange {
        self.frame.regions.relocated()
    }

    /// The volume's first sector.
    pub fn boot_sector(&self) -> ByteRange {
        ByteRange::new(0, self.sector().bytes())
    }

    /// What lies between the first sector and the end of what is relocated.
    pub fn noise(&self) -> ByteRange {
        let sector = self.sector().bytes();
        ByteRange::new(sector, self.frame.regions.front().len.0 - sector)
    }

    /// What the hidden files and `$Boot` own beyond BitLocker's regions, and the verify region: zeros once decrypted.
    pub fn hidden_zeros(&self) -> Vec<ByteRange> {
        let regions = &self.frame.regions;
        let verify = regions.verify().start;
        let files = regions.hidden_files().into_iter();
        let zeros = files.map(|file| {
            let own = if file.start == verify { 0 } else { file.data_len.0 };
            ByteRange::new(file.allocated.start.0 + own, file.allocated.len.0 - own)
        });
        // `$Boot` owns the whole first cluster; what lies behind its 8 KiB belongs to no part of NTFS.
        let front = regions.front().len.0;
        let boot = ByteRange::new(front, self.layout.cluster().bytes().saturating_sub(front));
        zeros.chain([boot]).filter(|range| range.len.0 > 0).collect()
    }

    /// Primary table, on the device.
    pub fn table_primary(&self) -> ByteRange {
        ByteRange::new(0, self.frame.table.primary().len() as u64)
    }

    /// Backup table, on the device; none with an MBR.
    pub fn table_backup(&self) -> Option<ByteRange> {
        let (at, bytes) = self.frame.table.backup()?;
        Some(ByteRange { start: at, len: ByteLen(bytes.len() as u64) })
    }

    /// Where the volume starts, in bytes.
    pub fn volume_start(&self) -> ByteOffset {
        self.volume().start
    }
}
