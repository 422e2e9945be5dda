//! Layout of one drive: partition table, BitLocker's regions, the NTFS volume around them, and the files in it.

use crate::batches::{Batch, Batches, Content, Phase};
use crate::bitlocker::regions::{PlaceError, Regions};
use crate::gpt;
use crate::hash::Sha256;
use crate::ntfs::build::{
    HiddenDir, HiddenFile, Layout, LayoutError, LinearRange, RootFile, SectionKind, Times, Tree, VolumeSpec,
};
pub(super) use crate::ntfs::format::file_attribute::{HIDDEN, SYSTEM};
use crate::tree::DriveTree;
use crate::units::{ByteLen, ClusterSize, DeviceOffset, DeviceRange, Extent, FileTime, SectorSize, VolumeRange};

/// Directory of the hidden files that own BitLocker's regions.
pub(super) const HIDDEN_DIR: &str = "System Volume Information";

/// Bytes of the NTFS boot sectors at the volume's front, which BitLocker stores elsewhere.
const BOOT_LEN: u64 = 0x2000;

/// Name of the manifest at the volume's root.
pub const MANIFEST_NAME: &str = "DriveManifest.xml";

/// Version of [`DriveLayout::digest`]. Changing it makes paused sessions begin anew.
const DIGEST_VERSION: u64 = 2;

/// Code of a part of NTFS in the digest of a plan; never reused for another part.
const fn section_code(kind: SectionKind) -> u8 {
    match kind {
        SectionKind::UpCase => 1,
        SectionKind::AttrDef => 2,
        SectionKind::LogFile => 3,
        SectionKind::Sds => 4,
        SectionKind::Sdh => 5,
        SectionKind::MftBody => 6,
        SectionKind::Index => 7,
        SectionKind::MftBitmap => 8,
        SectionKind::Bitmap => 9,
        SectionKind::RootIndex => 10,
        SectionKind::MftHead => 11,
        SectionKind::MftMirror => 12,
        SectionKind::BackupBoot => 13,
        SectionKind::Boot => 14,
    }
}

/// Properties of a drive, and options of its layout.
#[derive(Clone, Debug)]
pub struct DriveSpec {
    /// Bytes of the device.
    pub len: ByteLen,
    /// Its logical sector size.
    pub sector: SectorSize,
    /// GPT or MBR.
    pub scheme: gpt::Scheme,
    /// GUIDs of the table and its partitions.
    pub guids: gpt::Guids,
    /// Cluster size; `None` for Windows' default.
    pub cluster: Option<ClusterSize>,
    /// NTFS volume serial number.
    pub serial: u64,
    /// Volume label, at most 32 UTF-16 units.
    pub label: String,
    /// Time of formatting, recorded in NTFS and BitLocker metadata.
    pub formatted: FileTime,
    /// Whether to overwrite the free space with zeros.
    pub wipe_free: bool,
    /// Whether the volume is inside BitLocker; otherwise it is plain NTFS.
    pub encrypted: bool,
    /// Name of the manifest at the volume's root, which the service reads; `None` without one.
    pub manifest: Option<String>,
}

/// Reason why a drive cannot hold the planned contents.
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
    /// A hash block would end within a cluster.
    #[error("a file has hash blocks of {} bytes, which are not whole clusters of the volume", block.0)]
    BlockSplitsCluster {
        /// Length of its blocks.
        block: ByteLen,
    },
    /// Two planned ranges overlap: a bug in dray.
    #[error("two things are planned at byte {} of the drive", at.0)]
    Overlap {
        /// Byte of the drive that both claim.
        at: DeviceOffset,
    },
}

/// Purpose of a range of a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// The partition table at the front.
    Table,
    /// The partition table's copy at the end.
    TableBackup,
    /// The Microsoft reserved partition: zeros.
    Reserved,
    /// First sector of the volume, and noise up to byte 8192.
    Front,
    /// One of BitLocker's three metadata regions.
    Metadata(u8),
    /// Stored NTFS boot sectors, which BitLocker moves from the front.
    Relocated,
    /// The verify region: zeros once decrypted.
    Verify,
    /// Rest of a cluster of `$Boot` or of BitLocker's files beyond its content: zeros once decrypted.
    Slack,
    /// A part of NTFS.
    Section(SectionKind),
    /// Contents of user files.
    Files,
    /// The manifest; clusters that it turns out not to need are free.
    Manifest,
    /// Sectors after the last whole cluster, which `$Bitmap` has no bit for: zeros once decrypted.
    Tail,
    /// Clusters marked free in `$Bitmap`.
    Free,
    /// Sectors outside every partition.
    Outside,
}

impl Use {
    /// Whether nothing is written to it unless free space is overwritten.
    pub const fn is_left(self) -> bool {
        matches!(self, Self::Free | Self::Outside)
    }
}

/// The layout of a drive before its files are known.
#[derive(Debug)]
pub struct Frame {
    table: gpt::Table,
    regions: Option<Regions>,
    cluster: ClusterSize,
    spec: DriveSpec,
}

impl Frame {
    /// Partition table and BitLocker's regions for a drive.
    ///
    /// # Errors
    /// The drive is too small for them, or too large for an MBR.
    pub fn new(spec: DriveSpec) -> Result<Self, DriveError> {
        let cluster = spec.cluster.unwrap_or_else(|| crate::ntfs::build::default_cluster(spec.len, spec.sector));
        let table = gpt::Table::plan_default(spec.len, spec.sector, spec.scheme, ByteLen(cluster.bytes()), spec.guids)?;
        let regions = if spec.encrypted { Some(Regions::place(table.data.len, cluster, spec.sector)?) } else { None };
        Ok(Self { table, regions, cluster, spec })
    }

    /// The volume's cluster size.
    pub fn cluster(&self) -> ClusterSize {
        self.cluster
    }

    /// Range of the volume on the device.
    pub fn volume(&self) -> DeviceRange {
        self.table.data
    }

    fn volume_spec(&self, manifest_len_max: ByteLen) -> VolumeSpec {
        let hidden = self.regions.as_ref().map(|regions| {
            let files = regions.hidden_files().into_iter().map(|file| HiddenFile {
                name: file.name.to_owned(),
                extent: file.allocated,
                len: file.data_len,
                attributes: file.attributes,
            });
            HiddenDir { name: HIDDEN_DIR.into(), attributes: HIDDEN | SYSTEM, files: files.collect() }
        });
        let manifest = self.spec.manifest.as_ref().map(|name| RootFile {
            name: name.clone(),
            len_max: manifest_len_max,
            times: Times::all(self.spec.formatted),
        });
        VolumeSpec {
            sector: self.spec.sector,
            len: self.table.data.len,
            cluster: self.cluster,
            hidden_sectors: self.table.data.start.0 / self.spec.sector.bytes(),
            serial: self.spec.serial,
            label: self.spec.label.clone(),
            formatted: self.spec.formatted,
            hidden,
            root_files: manifest.into_iter().collect(),
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
    uses: Vec<(DeviceRange, Use)>,
}

impl DriveLayout {
    /// Lays the files of `tree` into the frame; the manifest, if there is one, takes `manifest_len_max` at most.
    ///
    /// # Errors
    /// The files do not fit; the error says by how much.
    pub fn new(frame: Frame, tree: DriveTree, manifest_len_max: ByteLen) -> Result<Self, DriveError> {
        if let Some(file) = tree.split_clusters(frame.cluster()) {
            let block = ByteLen(tree.blocks(file).even_len().unwrap_or_default());
            return Err(DriveError::BlockSplitsCluster { block });
        }
        let layout = Layout::plan(frame.volume_spec(manifest_len_max), &tree)?;
        let data_len = ByteLen((0..tree.blob_count()).map(|i| tree.file(i).len.0).sum());
        let mut this = Self { frame, tree, layout, manifest_len_max, data_len, to_write: ByteLen(0), uses: Vec::new() };
        this.uses = this.cover()?;
        this.to_write = Self::count(&this.uses, this.wipe_free());
        Ok(this)
    }

    /// Bytes of all batches.
    fn count(uses: &[(DeviceRange, Use)], wipe_free: bool) -> ByteLen {
        let written = uses.iter().filter(|(_, what)| wipe_free || !what.is_left());
        ByteLen(written.map(|(range, _)| range.len.0).sum())
    }

    /// Purpose of every sector of the drive: ascending, without gaps, from the first sector to the last whole one.
    pub fn uses(&self) -> &[(DeviceRange, Use)] {
        &self.uses
    }

    /// Ranges with a purpose of their own, on the device, ascending.
    fn placed(&self) -> Vec<(DeviceRange, Use)> {
        let volume = self.volume_start();
        let regions = self.regions();
        let mut inside: Vec<(VolumeRange, Use)> = vec![(self.tail(), Use::Tail)];
        if let Some(regions) = regions {
            inside.extend([(regions.front(), Use::Front), (regions.relocated(), Use::Relocated)]);
            inside.extend((1..).zip(regions.metadata()).map(|(i, range)| (range, Use::Metadata(i))));
        }
        // BitLocker stores the boot sectors elsewhere.
        let in_place = |kind| kind != SectionKind::Boot || regions.is_none();
        for section in self.layout.sections().into_iter().filter(|section| in_place(section.kind)) {
            inside.extend(section.extents.iter().map(|&range| (range, Use::Section(section.kind))));
        }
        let verify = regions.map(|regions| regions.verify().start);
        let slack = |range: VolumeRange| if Some(range.start) == verify { Use::Verify } else { Use::Slack };
        inside.extend(self.hidden_zeros().into_iter().map(|range| (range, slack(range))));
        inside.extend(self.extents(self.layout.data_place()).map(|range| (range, Use::Files)));
        let manifest = self.manifest_place().into_iter().flat_map(|place| self.extents(place));
        inside.extend(manifest.map(|range| (range, Use::Manifest)));
        let mut all: Vec<_> = inside.into_iter().map(|(range, what)| (range.on_device(volume), what)).collect();
        all.push((self.table_primary(), Use::Table));
        all.extend(self.table_backup().map(|range| (range, Use::TableBackup)));
        all.extend(self.table().msr.map(|range| (range, Use::Reserved)));
        all.retain(|(range, _)| range.len.0 > 0);
        all.sort_by_key(|(range, _)| range.start);
        all
    }

    /// The placed ranges and the gaps between them: every sector of the drive has a purpose.
    ///
    /// # Errors
    /// [`DriveError::Overlap`].
    fn cover(&self) -> Result<Vec<(DeviceRange, Use)>, DriveError> {
        let volume = self.volume();
        let sectors = self.table().sectors * self.sector().bytes();
        let mut all = Vec::new();
        let mut at = 0;
        let leave = |all: &mut Vec<_>, from: u64, to: u64| {
            // The borders of the volume separate space outside partitions from free clusters.
            let cuts = [from, volume.start.0.clamp(from, to), volume.end().0.clamp(from, to), to];
            for (part, what) in cuts.windows(2).zip([Use::Outside, Use::Free, Use::Outside]) {
                if part[0] < part[1] {
                    all.push((DeviceRange::new(part[0], part[1] - part[0]), what));
                }
            }
        };
        for (range, what) in self.placed() {
            if range.start.0 < at {
                return Err(DriveError::Overlap { at: range.start });
            }
            leave(&mut all, at, range.start.0);
            all.push((range, what));
            at = range.end().0;
        }
        if at > sectors {
            return Err(DriveError::Overlap { at: DeviceOffset(sectors) });
        }
        leave(&mut all, at, sectors);
        Ok(all)
    }

    /// Runs of the linear space, in bytes of the volume.
    pub(super) fn extents(&self, range: LinearRange) -> impl Iterator<Item = VolumeRange> + '_ {
        let cluster = self.layout.cluster();
        let runs = self.layout.space().extents(range);
        runs.map(move |Extent { lcn, len }| VolumeRange { start: cluster.offset_of(lcn), len: cluster.len_of(len) })
    }

    /// The batches in the order of writing, for slots of `slot_len` bytes.
    pub fn batches(&self, slot_len: usize) -> Batches<'_> {
        Batches::new(self, slot_len, Phase::Data)
    }

    /// SHA-256 of the layout for slots of `slot_len` bytes: the same plan always gives the same digest.
    pub fn digest(&self, slot_len: usize) -> [u8; 32] {
        let mut hash = Sha256::default();
        let mut words: Vec<u8> = Vec::with_capacity(64 << 10);
        let push = |words: &mut Vec<u8>, word: u64| words.extend_from_slice(&word.to_le_bytes());
        push(&mut words, DIGEST_VERSION);
        push(&mut words, slot_len as u64);
        push(&mut words, self.manifest_len_max.0);
        for batch in self.batches(slot_len) {
            words.extend([batch.phase.code(), batch.content.code()]);
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
                    words.push(section_code(*kind));
                    push(&mut words, *offset);
                }
                Content::Manifest { offset } => push(&mut words, *offset),
                Content::Zeros => {}
                Content::Plain(plain) => words.push(plain.code()),
            }
            hash.update(&words);
            words.clear();
        }
        hash.update(&self.table().primary());
        hash.value()
    }

    /// Ranges written last: they are wiped before anything else is written.
    pub fn last_places(&self) -> Vec<DeviceRange> {
        let last: Batches<'_> = Batches::new(self, 4 << 20, Phase::Last);
        let place = |batch: Batch| batch.pieces.into_iter().map(|p| DeviceRange::new(p.at.0, p.range.len() as u64));
        last.flat_map(place).collect()
    }

    /// Ranges on the device that stay unwritten unless free space is overwritten, ascending: sectors outside
    /// partitions, and free clusters.
    pub fn never_written(&self) -> Vec<DeviceRange> {
        self.left().map(|(range, _)| range).collect()
    }

    /// The same ranges with their purpose.
    pub(super) fn left(&self) -> impl Iterator<Item = (DeviceRange, Use)> + '_ {
        self.uses.iter().copied().filter(|(_, what)| what.is_left())
    }

    /// The files of the drive, as the NTFS writer reads them.
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

    /// BitLocker's areas; `None` on a plain NTFS volume.
    pub fn regions(&self) -> Option<&Regions> {
        self.frame.regions.as_ref()
    }

    /// Whether there is a manifest at the volume's root.
    pub fn has_manifest(&self) -> bool {
        self.manifest_name().is_some()
    }

    /// Name of the manifest at the volume's root; `None` without one.
    pub fn manifest_name(&self) -> Option<&str> {
        self.frame.spec.manifest.as_deref()
    }

    /// Logical sector size of the device.
    pub fn sector(&self) -> SectorSize {
        self.frame.spec.sector
    }

    /// Range of the volume on the device.
    pub fn volume(&self) -> DeviceRange {
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

    /// Upper bound of the bytes to be written.
    pub fn total_to_write(&self) -> ByteLen {
        self.to_write
    }

    /// Upper bound of the manifest's length.
    pub fn manifest_len_max(&self) -> ByteLen {
        self.manifest_len_max
    }

    /// Place of the manifest in the linear space; `None` without one.
    pub fn manifest_place(&self) -> Option<LinearRange> {
        self.has_manifest().then(|| self.layout.root_file_place(0))
    }

    /// Bytes of the clusters that are free when nothing is left out.
    pub fn free_len(&self) -> ByteLen {
        ByteLen(self.left().filter(|(_, what)| *what == Use::Free).map(|(range, _)| range.len.0).sum())
    }

    /// Range between the last whole cluster and the copy of the boot sector, in the volume. Empty where clusters are
    /// sectors.
    pub fn tail(&self) -> VolumeRange {
        let cluster = self.layout.cluster();
        let start = cluster.len_of(self.layout.cluster_count()).0;
        VolumeRange::new(start, self.volume().len.0 - self.sector().bytes() - start)
    }

    /// The volume's first sector.
    pub fn boot_sector(&self) -> VolumeRange {
        VolumeRange::new(0, self.sector().bytes())
    }

    /// Range between the first sector and the end of the NTFS boot sectors.
    pub fn behind_boot_sector(&self) -> VolumeRange {
        let sector = self.sector().bytes();
        VolumeRange::new(sector, BOOT_LEN - sector)
    }

    /// Parts of the clusters of `$Boot` and the hidden files beyond BitLocker's regions, and the verify region: zeros
    /// once decrypted.
    pub fn hidden_zeros(&self) -> Vec<VolumeRange> {
        let zeros = self.regions().into_iter().flat_map(|regions| {
            let verify = regions.verify().start;
            regions.hidden_files().into_iter().map(move |file| {
                let own = if file.start == verify { 0 } else { file.data_len.0 };
                VolumeRange::new(file.allocated.start.0 + own, file.allocated.len.0 - own)
            })
        });
        // `$Boot` owns the whole first cluster; the part after its 8 KiB belongs to no structure of NTFS.
        let boot = VolumeRange::new(BOOT_LEN, self.layout.cluster().bytes().saturating_sub(BOOT_LEN));
        zeros.chain([boot]).filter(|range| range.len.0 > 0).collect()
    }

    /// Primary table, on the device.
    pub fn table_primary(&self) -> DeviceRange {
        DeviceRange::new(0, self.frame.table.primary().len() as u64)
    }

    /// Backup table, on the device; none with an MBR.
    pub fn table_backup(&self) -> Option<DeviceRange> {
        let (at, bytes) = self.frame.table.backup()?;
        Some(DeviceRange { start: at, len: ByteLen(bytes.len() as u64) })
    }

    /// Device offset of the volume.
    pub fn volume_start(&self) -> DeviceOffset {
        self.volume().start
    }
}
