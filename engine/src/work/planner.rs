//! The layout of one drive with its files.

use std::collections::HashMap;
use std::sync::Arc;

use crate::bitlocker::build::VolumeSecrets;
use crate::checkpoint::Checkpoint;
use crate::entropy::{Entropy, Seeded};
use crate::gpt;
use crate::ntfs::build::Tree;
use crate::ntfs::names;
use crate::plan::catalog::Catalog;
use crate::plan::drive::{DriveError, DriveLayout, DriveSpec, Frame, MANIFEST_NAME, Use};
use crate::plan::tree::{DriveTree, FileKind, OwnFiles};
use crate::report::{DrivePlan, Region, RegionKind};
use crate::request::Table;
use crate::units::{ByteLen, ClusterSize, DeviceRange, Guid};
use crate::work::manifest::{self, Rules};
use crate::work::recipe::Recipe;
use crate::work::target::TargetDrive;

/// Most directories shown in the plan.
pub const DIRECTORIES_SHOWN: usize = 10;

/// One drive with its plan.
#[derive(Debug)]
pub struct FormatDrive {
    /// The drive, with its name in the driveset and its facts.
    pub target: TargetDrive,
    /// Planned layout.
    pub layout: DriveLayout,
    /// The parts of its manifest other than the hashes.
    pub rules: Rules,
    /// Seed of its public randomness.
    pub seed: u64,
    /// Progress of an earlier run of the session; `None`: the drive is new.
    pub started: Option<Box<Checkpoint>>,
    /// Secrets of its volume: restored from that checkpoint, or drawn when the session runs.
    pub secrets: Option<VolumeSecrets>,
}

/// Catalog indices of the files of a tree, ascending.
pub fn assigned(tree: &DriveTree) -> Vec<u32> {
    let blob = |i| match tree.kind(i) {
        FileKind::Blob(file) => Some(file),
        FileKind::ContentMd5(_) | FileKind::Metadata(_) | FileKind::Property(_) => None,
    };
    let mut files: Vec<u32> = (0..tree.blob_count()).filter_map(blob).collect();
    files.sort_unstable();
    files
}

/// Lays out the drives of a session with the same options.
#[derive(Clone, Copy, Debug)]
pub struct Planner<'a> {
    /// Table, cipher, cluster size and times of every drive.
    pub recipe: &'a Recipe,
    /// All files of the session.
    pub catalog: &'a Arc<Catalog>,
}

fn region(range: DeviceRange, what: Use) -> Region {
    let (kind, name) = match what {
        Use::Table => (RegionKind::Table, "partition table".into()),
        Use::TableBackup => (RegionKind::Table, "backup partition table".into()),
        Use::Reserved => (RegionKind::Table, "Microsoft reserved partition".into()),
        Use::Front => (RegionKind::Encryption, "BitLocker boot sector".into()),
        Use::Metadata(i) => (RegionKind::Encryption, format!("BitLocker metadata {i}")),
        Use::Verify => (RegionKind::Encryption, "BitLocker verify region".into()),
        Use::Relocated => (RegionKind::FileSystem, "NTFS boot sectors".into()),
        Use::Slack => (RegionKind::FileSystem, "NTFS slack of clusters".into()),
        Use::Section(kind) => (RegionKind::FileSystem, format!("NTFS {}", kind.name())),
        Use::Tail => (RegionKind::FileSystem, "NTFS sectors behind the last cluster".into()),
        Use::Files => (RegionKind::Files, "files".into()),
        Use::Manifest => (RegionKind::Manifest, "manifest".into()),
        Use::Free => (RegionKind::Free, "free".into()),
        Use::Outside => (RegionKind::Free, "free, in no partition".into()),
    };
    Region { start: range.start, len: range.len, kind, name }
}

/// The plan of one drive, for display.
pub fn summarize(drive: &FormatDrive) -> DrivePlan {
    let layout = &drive.layout;
    let tree = layout.tree();
    let regions = layout.uses().iter().map(|&(range, what)| region(range, what)).collect();
    let free = layout.free_len();
    DrivePlan {
        drive: drive.target.facts.clone(),
        files: u64::from(tree.blob_count()),
        dirs: u64::from(tree.dirs()),
        data: layout.data_len(),
        overhead: ByteLen(drive.target.facts.size.0.saturating_sub(layout.data_len().0 + free.0)),
        free,
        cluster: layout.layout().cluster().bytes(),
        regions,
        directories: biggest(tree),
        encrypts: ByteLen(0),
        to_write: layout.total_to_write(),
    }
}

/// The largest directories by the bytes of their own files.
pub fn biggest(tree: &DriveTree) -> Vec<(String, u64, ByteLen)> {
    let catalog = tree.catalog();
    let mut sums: HashMap<u32, (u64, u64)> = HashMap::new();
    for i in 0..tree.blob_count() {
        if let FileKind::Blob(file) = tree.kind(i) {
            let file = &catalog.files()[file as usize];
            let sum = sums.entry(file.dir).or_default();
            sum.0 += 1;
            sum.1 += file.len.0;
        }
    }
    let mut all: Vec<(u32, (u64, u64))> = sums.into_iter().collect();
    all.sort_by_key(|&(dir, (_, bytes))| (std::cmp::Reverse(bytes), dir));
    let named = all.into_iter().take(DIRECTORIES_SHOWN).map(|(dir, (files, bytes))| {
        let mut prefix = String::new();
        catalog.blob_prefix(dir, &mut prefix);
        (prefix, files, ByteLen(bytes))
    });
    named.collect()
}

impl Planner<'_> {
    /// The drive with its layout.
    pub fn prepared(&self, target: TargetDrive, layout: DriveLayout, seed: u64) -> FormatDrive {
        let rules = self.rules(&target);
        FormatDrive { target, layout, rules, seed, started: None, secrets: None }
    }

    /// The parts of the manifest of a drive other than the hashes.
    pub fn rules(&self, target: &TargetDrive) -> Rules {
        Rules {
            drive_id: target.facts.drive_id.clone(),
            session: self.recipe.session.clone(),
            rows: self.recipe.rows.clone(),
        }
    }

    fn frame(&self, target: &TargetDrive, seed: u64) -> Result<Frame, DriveError> {
        let mut random = Seeded::new(seed);
        let mut guid = || Guid::from_random(random.array());
        let guids = gpt::Guids { disk: guid(), msr: guid(), data: guid() };
        Frame::new(DriveSpec {
            len: target.facts.size,
            sector: target.sector,
            scheme: match self.recipe.table {
                Table::Gpt => gpt::Scheme::Gpt,
                Table::Mbr => gpt::Scheme::Mbr,
            },
            guids,
            cluster: self.recipe.cluster_size.and_then(ClusterSize::from_bytes),
            serial: random.next_u64() | 1,
            label: self.recipe.windows.as_ref().map_or(&self.recipe.session, |windows| &windows.label).clone(),
            formatted: self.recipe.formatted,
            wipe_free: self.recipe.wipe_free,
            encrypted: self.recipe.windows.as_ref().is_none_or(|windows| !windows.is_plain),
            manifest: self.manifest_name(target),
        })
    }

    /// Name of the manifest in the root of a drive; `None` for a drive for Windows
    /// (docs/spec/import-export.md#place-and-identity).
    fn manifest_name(&self, target: &TargetDrive) -> Option<String> {
        match (&self.recipe.windows, &self.recipe.exported) {
            (Some(_), _) => None,
            (None, None) => Some(MANIFEST_NAME.into()),
            (None, Some(_)) => {
                let name = format!("{}.manifest", target.facts.drive_id);
                Some(if names::problem_in_root(&name).is_some() { names::safe_name(&name, 0) } else { name })
            }
        }
    }

    /// The tree of these files.
    pub fn tree(&self, assigned: &[u32]) -> DriveTree {
        let Recipe { session, md5_texts, properties, formatted, windows, .. } = self.recipe;
        if windows.is_some() {
            return DriveTree::at_root(Arc::clone(self.catalog), *formatted).listed(self.recipe.list.is_some());
        }
        if let Some(exported) = &self.recipe.exported {
            return DriveTree::of_export(Arc::clone(self.catalog), assigned, Arc::clone(exported), *formatted);
        }
        let own = OwnFiles { properties: md5_texts.clone(), metadata: self.recipe.metadata.clone() };
        let files = properties.clone();
        DriveTree::new(Arc::clone(self.catalog), assigned, session, own, files, *formatted)
            .listed(self.recipe.list.is_some())
            .guessing(self.recipe.guesses_type)
    }

    /// The layout of one drive with these files: always the same for the same seed.
    ///
    /// # Errors
    /// They do not fit, or not even a volume does.
    pub fn lay_out(&self, target: &TargetDrive, assigned: &[u32], seed: u64) -> Result<DriveLayout, DriveError> {
        let frame = self.frame(target, seed)?;
        let tree = self.tree(assigned);
        let manifest_len_max = match self.recipe.windows {
            Some(_) => ByteLen(0),
            None => manifest::len_max(&tree, &self.rules(target)),
        };
        DriveLayout::new(frame, tree, manifest_len_max)
    }
}
