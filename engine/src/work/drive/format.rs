//! Contents of batches without files on a drive that is formatted; they depend on the files left out.

use std::cell::{LazyCell, OnceCell};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::{Drive, DriveContent, Setup, Sum};
use crate::azure::manifest::ManifestStream;
use crate::bitlocker::build::{FRONT_LEN, REGION_LEN};
use crate::crypt::SectorCipher;
use crate::ntfs::build::{Generate, LeftOut, Outcome, SectionKind, Tree};
use crate::plan::batches::{Batch, Content, Phase, Plain};
use crate::plan::drive::DriveLayout;
use crate::report::Problem;
use crate::units::{ByteLen, StreamOffset};
use crate::work::manifest::{self, Rules};
use crate::work::outcome::{HashReader, PropertyHashes};

/// A drive to be formatted.
#[derive(Debug)]
pub struct Format<'a> {
    /// Planned layout.
    pub layout: &'a DriveLayout,
    /// Bytes outside the encrypted volume.
    pub plain: PlainBytes<'a>,
    /// The parts of the manifest other than the hashes.
    pub rules: &'a Rules,
}

/// Returns the BitLocker metadata region; waits until the password is stretched.
pub type FveRegion<'a> = Box<dyn FnOnce() -> Box<[u8; REGION_LEN]> + 'a>;

/// Unencrypted bytes of the drive.
#[derive(Debug)]
pub struct PlainBytes<'a> {
    /// The metadata region, written three times.
    pub fve_region: LazyCell<Box<[u8; REGION_LEN]>, FveRegion<'a>>,
    /// First sector of the volume, and the bytes after it up to byte 8192.
    pub front: Box<[u8; FRONT_LEN]>,
    /// Protective MBR and primary GPT, or MBR, from byte 0 of the drive.
    pub table_primary: Vec<u8>,
    /// Backup GPT, which ends with the drive; empty for an MBR.
    pub table_backup: Vec<u8>,
}

impl PlainBytes<'_> {
    fn of(&self, plain: Plain, sector: usize) -> &[u8] {
        match plain {
            Plain::FveRegion => &self.fve_region[..],
            Plain::Noise => &self.front[sector..],
            Plain::BootSector => &self.front[..sector],
            Plain::TableBackup => &self.table_backup,
            Plain::TablePrimary => &self.table_primary,
            Plain::Zeros => &[],
        }
    }
}

/// A finished drive: everything is durable.
#[derive(Debug)]
pub struct Finished {
    /// Files of the dataset on it.
    pub files: u64,
    /// Bytes of those files.
    pub data: ByteLen,
    /// Bytes written in all.
    pub written: ByteLen,
    /// MD5 of the manifest; zeros without one.
    pub manifest_md5: [u8; 16],
    /// Files left out, by tree index.
    pub left_out: BTreeMap<u32, String>,
    /// Checksum of each written batch before sealing, in the order of the plan; `None` where nothing was written.
    pub sums: Vec<Option<Sum>>,
}

impl<'a> DriveContent<'a> {
    /// A whole drive in slots of `slot_len` bytes.
    pub fn of(layout: &'a DriveLayout, cipher: Option<SectorCipher>, slot_len: usize) -> Self {
        Self {
            tree: layout.tree(),
            batches: Box::new(layout.batches(slot_len)),
            total: layout.total_to_write(),
            volume_start: layout.volume_start(),
            cipher: cipher.map(Arc::new),
        }
    }
}

/// Formats and fills a drive to its end.
///
/// # Errors
/// A problem that names drive, place and operation. The drive then holds no volume, or its earlier contents were
/// complete.
pub fn format<'a>(setup: Setup<'a>, format: Format<'a>) -> Result<Finished, Problem> {
    let layout = format.layout;
    let (nothing, data_outcome, whole_outcome) = Default::default();
    let outcomes = Outcomes { nothing: &nothing, data: &data_outcome, whole: &whole_outcome };
    let mut drive = Drive::new(setup, Some(Formatting::new(format, outcomes)));
    drive.run()?;
    let tree = layout.tree();
    let out = |i: &u32| tree.file(*i).len.0;
    let blobs_out = drive.left_out.keys().filter(|&&i| i < tree.blob_count());
    let (files_out, bytes_out) = blobs_out.fold((0, 0), |(n, bytes), i| (n + 1, bytes + out(i)));
    Ok(Finished {
        files: u64::from(tree.blob_count()) - files_out,
        data: ByteLen(layout.data_len().0 - bytes_out),
        written: ByteLen(drive.acknowledged),
        manifest_md5: drive.formatting.as_ref().map_or([0; 16], |formatting| formatting.manifest_md5),
        left_out: std::mem::take(&mut drive.left_out),
        sums: std::mem::take(&mut drive.sums),
    })
}

/// Outcome at three stages: before reading, with the files left out, and with the length of the manifest.
#[derive(Clone, Copy)]
struct Outcomes<'o> {
    nothing: &'o Outcome,
    data: &'o OnceCell<Outcome>,
    whole: &'o OnceCell<Outcome>,
}

/// [`Format`] under way.
pub(super) struct Formatting<'a, 'o> {
    layout: &'a DriveLayout,
    plain: PlainBytes<'a>,
    rules: &'a Rules,
    outcomes: Outcomes<'o>,
    generator: Option<(SectionKind, Phase, Box<dyn Generate + 'o>)>,
    manifest: Option<ManifestStream<'a>>,
    manifest_md5: [u8; 16],
}

impl<'a: 'o, 'o> Formatting<'a, 'o> {
    fn new(Format { layout, plain, rules }: Format<'a>, outcomes: Outcomes<'o>) -> Self {
        Self { layout, plain, rules, outcomes, generator: None, manifest: None, manifest_md5: [0; 16] }
    }

    /// Whether [`Self::end_of_data`] has been called: every file has been read.
    pub(super) fn is_past_data(&self) -> bool {
        self.outcomes.data.get().is_some()
    }

    /// Called when every file has been read: the files left out are final.
    pub(super) fn end_of_data(&mut self, left_out: LeftOut, property_hashes: PropertyHashes, hashes: HashReader) {
        if !self.layout.has_manifest() {
            let outcome = Outcome { left_out, root_file_lens: Vec::new() };
            let _ = (self.outcomes.data.set(outcome.clone()), self.outcomes.whole.set(outcome));
            return;
        }
        let outcome = Outcome { left_out: left_out.clone(), root_file_lens: vec![self.layout.manifest_len_max()] };
        let _ = self.outcomes.data.set(outcome);
        self.manifest = Some(manifest::stream(self.layout.tree(), self.rules, left_out, property_hashes, hashes));
    }

    /// Called when the manifest is written: its length and digest are final.
    pub(super) fn end_of_manifest(&mut self) {
        let Some(manifest) = self.manifest.take() else { return };
        let (len, md5) = manifest.finish();
        self.manifest_md5 = md5;
        if let Some(data) = self.outcomes.data.get() {
            let outcome = Outcome { left_out: data.left_out.clone(), root_file_lens: vec![len] };
            let _ = self.outcomes.whole.set(outcome);
        }
    }

    /// Fills the bytes of a batch without files; returns the number of bytes to write.
    ///
    /// # Errors
    /// The hash log cannot be read.
    pub(super) fn fill(&mut self, batch: &Batch, slot: &mut [u8]) -> io::Result<usize> {
        match &batch.content {
            // Read from the sources.
            Content::Files(_) => {}
            Content::Section { kind, offset } => self.generate(*kind, batch.phase, *offset, slot),
            Content::Manifest { .. } => {
                let len = self.fill_manifest(slot)?;
                let cluster = self.layout.layout().cluster().bytes() as usize;
                // Clusters that the manifest turned out not to need stay free.
                let keep = if self.layout.wipe_free() { batch.len } else { len.next_multiple_of(cluster) };
                let keep = keep.min(batch.len);
                slot[len..keep].fill(0);
                return Ok(keep);
            }
            Content::Zeros | Content::Plain(Plain::Zeros) => slot.fill(0),
            Content::Plain(plain) => {
                slot.copy_from_slice(self.plain.of(*plain, self.layout.sector().bytes() as usize));
            }
        }
        Ok(batch.len)
    }

    fn generate(&mut self, kind: SectionKind, phase: Phase, offset: u64, out: &mut [u8]) {
        if self.generator.as_ref().is_none_or(|(k, p, _)| (*k, *p) != (kind, phase)) {
            let late = matches!(kind, SectionKind::Bitmap | SectionKind::MftBitmap) || phase >= Phase::Last;
            if late {
                // The manifest lies before the bitmaps: by now it is out.
                self.end_of_manifest();
            }
            let outcome = match phase {
                Phase::Data => self.outcomes.nothing,
                _ if late => self.outcomes.whole.get().unwrap_or(self.outcomes.nothing),
                _ => self.outcomes.data.get().unwrap_or(self.outcomes.nothing),
            };
            let generator = self.layout.layout().generator(kind, self.layout.tree(), outcome);
            self.generator = Some((kind, phase, generator));
        }
        if let Some((_, _, generator)) = &mut self.generator {
            generator.fill(StreamOffset(offset), out);
        }
    }

    /// Fills the next bytes of the manifest, up to its end; returns their number.
    ///
    /// # Errors
    /// As [`Self::fill`].
    pub(super) fn fill_manifest(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.manifest.as_mut().map_or(Ok(0), |manifest| manifest.fill(out))
    }
}
