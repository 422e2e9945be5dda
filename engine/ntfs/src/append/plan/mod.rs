//! Plans the places of everything new.

mod clusters;
mod gate;

use std::collections::BTreeMap;

use super::btree::{Entries, Shape};
use super::edit::Edit;
use super::secure::Secure;
use super::space::free_extents;
use super::{AppendSpec, Refusal};
use crate::build::index::{LARGE_ROOT_VALUE, root_value_len};
use crate::build::record::{self, FileName, STANDARD_INFORMATION};
use crate::build::system::I30;
use crate::build::{Children, LinearRange, LinearSpace, Outcome, Times, Tree};
use crate::format::{INDEX_BLOCK, StandardInformation, file_attribute, metafile, namespace, reference};
use crate::read::index::{self as read_index, Index, IndexStep};
use crate::read::raw::{self, types};
use crate::read::{FileRef, NtfsError, ReadAt, Severity, Stream, Volume, VolumePlace, display_name};
use crate::units::{ByteLen, ClusterSize, Clusters, Extent, Lcn, VolumeRange};

/// Records below are never taken: metafiles, extensions of `$MFT`, and files that Windows adds on first mount.
const FIRST_RECORD: u64 = 64;
/// Free records that are taken before `$MFT` grows: the old contents of each must be saved (16 MiB of 1 KiB records).
const REUSED_MAX: usize = 16 << 10;
/// Bytes of an attribute list's entry without a name (docs/spec/ntfs.md#attribute-lists).
pub(super) const LIST_ENTRY: usize = 0x20;
/// Attempts at planning while files with many runs need more records.
const TRIES: usize = 6;
/// Most conflicts reported by name.
const NAMES_TOLD: usize = 100;

/// Assignment of records: free ones first, then those that `$MFT` grows by.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers {
    /// Numbers and new sequence numbers, ascending.
    reused: Vec<(u32, u16)>,
    first_new: u32,
    count: u32,
}

impl Numbers {
    pub(super) fn reused(&self) -> &[(u32, u16)] {
        &self.reused
    }

    pub(super) fn len(&self) -> u32 {
        self.count
    }

    /// Number and sequence of the `n`-th.
    pub(super) fn nth(&self, n: u32) -> (u32, u16) {
        match self.reused.get(n as usize) {
            Some(&found) => found,
            None => (self.first_new + (n - self.reused.len() as u32), 1),
        }
    }

    /// Index of a record in this assignment; `None` if it is not part of it.
    pub(super) fn position(&self, number: u32) -> Option<u32> {
        if number >= self.first_new {
            let n = number - self.first_new + self.reused.len() as u32;
            return (n < self.count).then_some(n);
        }
        self.reused.binary_search_by_key(&number, |&(number, _)| number).ok().map(|n| n as u32)
    }
}

/// Use of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Dir(u32),
    RootFile(usize),
    File(u32),
    /// A further record of a file: index of the file, and of its piece.
    Piece(u32, usize),
}

/// A directory with an index that needs blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Large {
    /// Clusters for its blocks, in the space of metadata.
    pub place: LinearRange,
    /// Clusters for its bitmap, where that does not fit the record.
    pub bitmap: Option<LinearRange>,
}

/// A file with runs that do not fit one record.
#[derive(Clone, Debug)]
pub(super) struct Split {
    /// Index of its first further record.
    pub first: u32,
    /// Its clusters, in the space of data: one piece for each further record.
    pub pieces: Vec<LinearRange>,
}

/// Changes of `$MFT` and its bitmap.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Growth {
    /// Bytes of `$MFT` before and after.
    pub old_len: u64,
    pub new_len: u64,
    pub old_allocated: u64,
    /// New clusters of `$MFT`, in the space of metadata.
    pub place: LinearRange,
    /// Bytes of the bitmap of `$MFT` before and after.
    pub old_bits: u64,
    pub new_bits: u64,
    /// The bitmap's new clusters, if it moves.
    pub bitmap: Option<LinearRange>,
}

impl Growth {
    pub(super) const fn grows(&self) -> bool {
        self.new_len > self.old_len || self.new_bits > self.old_bits
    }
}

/// Security of a new file.
#[derive(Clone, Debug)]
pub(super) enum NewSecurity {
    /// An id of `$Secure`.
    Id(u32),
    /// A descriptor in the record.
    Own(Vec<u8>),
}

impl NewSecurity {
    /// Bytes of `$STANDARD_INFORMATION` and, if there is one, of the descriptor.
    fn len(&self) -> usize {
        match self {
            Self::Id(_) => record::resident_len(0, STANDARD_INFORMATION),
            Self::Own(descriptor) => {
                record::resident_len(0, size_of::<StandardInformation>()) + record::resident_len(0, descriptor.len())
            }
        }
    }
}

/// Clusters added to `$Secure`, in the space of metadata.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SecurePlaces {
    /// Growth of `$SDS`.
    pub sds: LinearRange,
    /// Blocks for `$SDH` and `$SII`.
    pub blocks: [LinearRange; 2],
}

/// A planned append. A value: the same volume, tree and spec give the same.
#[derive(Debug)]
pub struct Append {
    pub(super) volume: Volume,
    pub(super) spec: AppendSpec,
    /// Directories of the tree that exist on the volume: index and reference.
    existing: Vec<(u32, u64)>,
    /// For each root file: the record that it replaces.
    pub(super) replaced: Vec<Option<FileRef>>,
    /// Directories of the volume that gain entries; `None` is the root.
    pub(super) touched: Vec<Option<u32>>,
    pub(super) numbers: Numbers,
    new_dirs: u32,
    files: u32,
    further: u32,
    pub(super) meta: LinearSpace,
    pub(super) large: BTreeMap<Option<u32>, Large>,
    pub(super) growth: Growth,
    root_files: Vec<LinearSpace>,
    data: LinearSpace,
    file_starts: Vec<u64>,
    pub(super) splits: BTreeMap<u32, Split>,
    dir_security: NewSecurity,
    pub(super) file_security: NewSecurity,
    /// The additions to `$Secure`, and their clusters in the space of metadata.
    pub(super) secure: Option<Secure>,
    pub(super) secure_places: SecurePlaces,
    free: Clusters,
    pub(super) mft_extents: Vec<Extent>,
    /// Clusters and bytes of `$MFTMirr`.
    pub(super) mirror: (Vec<Extent>, u64),
}

impl Append {
    /// Plans an append. Reads all metadata of the volume: nothing is added to an inconsistent one.
    ///
    /// # Errors
    /// The reason for refusing.
    pub fn plan<R: ReadAt>(
        volume: Volume,
        reader: &mut R,
        spec: AppendSpec,
        tree: &impl Tree,
    ) -> Result<Self, Refusal> {
        gate::check_state(&volume)?;
        let report = volume.check(reader);
        let errors = |severity| severity == Severity::Error;
        if let Some(first) = report.findings.iter().find(|finding| errors(finding.severity)) {
            let total = report.findings.iter().filter(|finding| errors(finding.severity)).count() as u64;
            return Err(Refusal::Damaged { first: format!("{}: {}", first.place, first.what), total });
        }
        let (dir_security, file_security, secure) = gate::guards(&volume, reader, spec.hidden.is_some())?;
        let mut this = Self {
            volume,
            spec,
            existing: Vec::new(),
            replaced: Vec::new(),
            touched: Vec::new(),
            numbers: Numbers::default(),
            new_dirs: 0,
            files: tree.files(),
            further: 0,
            meta: LinearSpace::of(&[]),
            large: BTreeMap::new(),
            growth: Growth::default(),
            root_files: Vec::new(),
            data: LinearSpace::of(&[]),
            file_starts: Vec::new(),
            splits: BTreeMap::new(),
            dir_security,
            file_security,
            secure,
            secure_places: SecurePlaces::default(),
            free: Clusters(0),
            mft_extents: Vec::new(),
            mirror: (Vec::new(), 0),
        };
        this.mft_extents = stream_extents(this.volume.mft());
        let number = u64::from(metafile::MFT_MIRR);
        let mirror = this.volume.open_file(reader, number)?;
        let mirror = mirror.data(&[]).ok_or(NtfsError::not_found(VolumePlace::record(number)))?;
        this.mirror = (stream_extents(mirror), mirror.size);
        this.match_existing(reader, tree)?;
        let free = this.free_extents(reader)?;
        this.free = Clusters(free.iter().map(|extent| extent.len.0).sum());
        let candidates = this.free_records(reader)?;
        let shapes = this.shapes(reader, tree)?;
        for _ in 0..TRIES {
            if this.place(reader, tree, free.clone(), &candidates, &shapes)? {
                return Ok(this);
            }
        }
        Err(Refusal::TooSplit("the files of this session".into()))
    }

    /// The volume as it was read, before the change.
    pub fn volume(&self) -> &Volume {
        &self.volume
    }

    /// Bytes of the free clusters before the append.
    pub fn free_len(&self) -> ByteLen {
        self.cluster().len_of(self.free)
    }

    /// Upper bound of the bytes of clusters taken.
    pub fn taken_len(&self) -> ByteLen {
        let root: u64 = self.root_files.iter().map(LinearSpace::len).map(|len| len.0).sum();
        self.cluster().len_of(Clusters(self.meta.len().0 + root + self.data.len().0))
    }

    pub(super) fn cluster(&self) -> ClusterSize {
        self.volume.geometry().cluster
    }

    pub(super) fn record_bytes(&self) -> usize {
        self.volume.geometry().record_bytes as usize
    }

    fn room(&self) -> usize {
        record::room(self.record_bytes())
    }

    pub(super) fn clusters_for(&self, len: u64) -> u64 {
        self.cluster().count_for(ByteLen(len)).0
    }

    /// Runs of free clusters at present.
    ///
    /// # Errors
    /// The volume cannot be read.
    pub fn free_extents<R: ReadAt>(&self, reader: &mut R) -> Result<Vec<Extent>, NtfsError> {
        free_runs(&self.volume, reader, &self.spec.avoid)
    }

    /// Runs of clusters that are free at present and not planned for file data.
    ///
    /// # Errors
    /// The volume cannot be read.
    pub fn unused_extents<R: ReadAt>(&self, reader: &mut R) -> Result<Vec<Extent>, NtfsError> {
        let data = self.data.extents(LinearRange { start: 0, len: self.data.len() });
        let bytes =
            |run: Extent| VolumeRange { start: self.cluster().offset_of(run.lcn), len: self.cluster().len_of(run.len) };
        let avoid: Vec<VolumeRange> = self.spec.avoid.iter().copied().chain(data.map(bytes)).collect();
        free_runs(&self.volume, reader, &avoid)
    }

    /// Clusters that were free before.
    pub fn free_before(&self) -> Clusters {
        self.free
    }

    /// The space of file data, in the order of files.
    pub fn data_space(&self) -> &LinearSpace {
        &self.data
    }

    /// Range of file `i` in that space.
    pub fn file_place(&self, i: u32) -> LinearRange {
        let start = self.file_starts[i as usize];
        LinearRange { start, len: Clusters(self.file_starts[i as usize + 1] - start) }
    }

    /// Ranges of root file `k` at its greatest length, in bytes of the volume.
    pub fn root_file_places(&self, k: usize) -> impl Iterator<Item = VolumeRange> + '_ {
        let space = &self.root_files[k];
        let cluster = self.cluster();
        space
            .extents(LinearRange { start: 0, len: space.len() })
            .map(move |Extent { lcn, len }| VolumeRange { start: cluster.offset_of(lcn), len: cluster.len_of(len) })
    }

    /// Ranges into which `$MFT` and indexes grow, in bytes of the volume.
    pub fn metadata_places(&self) -> impl Iterator<Item = VolumeRange> + '_ {
        let cluster = self.cluster();
        let all = self.meta.extents(LinearRange { start: 0, len: self.meta.len() });
        all.map(move |Extent { lcn, len }| VolumeRange { start: cluster.offset_of(lcn), len: cluster.len_of(len) })
    }

    pub(super) fn root_file_extents(&self, k: usize, len: u64) -> impl Iterator<Item = Extent> + '_ {
        self.root_files[k].extents(LinearRange { start: 0, len: Clusters(self.clusters_for(len)) })
    }

    /// Directories of the tree that exist on the volume and gain entries.
    pub fn merged_dirs(&self) -> impl Iterator<Item = u32> + '_ {
        self.existing.iter().map(|(dir, _)| *dir)
    }

    // ---- existing entries --------------------------------------------------------------------------------------

    pub(super) fn existing_reference(&self, dir: Option<u32>) -> Option<u64> {
        match dir {
            None => Some(reference(metafile::ROOT, metafile::ROOT as u16)),
            Some(dir) => {
                let i = self.existing.binary_search_by_key(&dir, |&(dir, _)| dir).ok()?;
                Some(self.existing[i].1)
            }
        }
    }

    /// Finds existing directories and root files, and conflicts.
    fn match_existing<R: ReadAt>(&mut self, reader: &mut R, tree: &impl Tree) -> Result<(), Refusal> {
        let mut names = Vec::new();
        let mut name = Vec::new();
        let mut clash = |name: &[u16], what: &str| {
            if names.len() < NAMES_TOLD {
                names.push(format!("{} {what}", display_name(name)));
            }
        };
        for i in 0..tree.dirs() {
            let Some(parent) = self.existing_reference(tree.dir(i).parent) else { continue };
            name.clear();
            tree.dir_name(i, &mut name);
            let Some(found) = self.lookup(reader, parent, &name)? else { continue };
            let file = self.volume.open_file(reader, found.record)?;
            if !file.is_directory() || file.reparse_tag.is_some() {
                clash(&name, "is no directory, but is");
                continue;
            }
            self.existing.push((i, file_reference(found)));
        }
        let merged: Vec<Option<u32>> = std::iter::once(None).chain(self.merged_dirs().map(Some)).collect();
        for &dir in &merged {
            let Children { dirs, files } = children(tree, dir);
            let parent = self.existing_reference(dir).unwrap_or_default();
            for i in files.clone() {
                name.clear();
                tree.file_name(i, &mut name);
                if self.lookup(reader, parent, &name)?.is_some() {
                    clash(&name, "is");
                }
            }
            let gains = !files.is_empty() || dirs.clone().any(|i| self.existing_reference(Some(i)).is_none());
            if dir.is_none() || gains {
                self.touched.push(dir);
            }
        }
        for file in &self.spec.root_files {
            let units: Vec<u16> = file.name.encode_utf16().collect();
            let found = self.lookup(reader, reference(metafile::ROOT, 0), &units)?;
            if let Some(found) = found {
                let there = self.volume.open_file(reader, found.record)?;
                let plain = there.data(&[]).is_some_and(|data| {
                    data.is_resident() || !data.is_compressed() && !data.is_encrypted() && !data.is_sparse()
                });
                let single = there.names.len() == 1 && there.extensions.is_empty();
                if there.is_directory() || !plain || !single || there.reparse_tag.is_some() {
                    clash(&units, "is no plain file, and is");
                }
            }
            self.replaced.push(found);
        }
        self.new_dirs = tree.dirs() - self.existing.len() as u32;
        if names.is_empty() { Ok(()) } else { Err(Refusal::Exists { names }) }
    }

    fn lookup<R: ReadAt>(&self, reader: &mut R, directory: u64, name: &[u16]) -> Result<Option<FileRef>, Refusal> {
        Ok(read_index::lookup(&self.volume, reader, raw::reference_number(directory), name)?)
    }

    /// A directory's record without its index; attributes from further records are moved into it.
    pub(super) fn edit_dir<R: ReadAt>(&self, reader: &mut R, number: u64) -> Result<Directory, Refusal> {
        let bytes = self.volume.read_record(reader, number)?;
        let place = VolumePlace { record: Some(number), ..Default::default() };
        let fail = |fault: raw::RecordFault| NtfsError::corrupt(place, fault.what);
        let mut edit = Edit::new(&bytes).map_err(fail)?;
        let there = self.volume.open_file(reader, number)?;
        if let Some(error) = there.damage.first() {
            return Err(error.clone().into());
        }
        let mut freed = Vec::new();
        for kind in [types::INDEX_ALLOCATION, types::BITMAP] {
            freed.extend(there.stream(kind, &I30).map(stream_extents).unwrap_or_default());
        }
        if let Some(list) = edit.remove(types::ATTRIBUTE_LIST, &[]) {
            freed.extend(list.extents(self.volume.geometry().clusters).map_err(fail)?);
        }
        for &further in &there.extensions {
            let bytes = self.volume.read_record(reader, further)?;
            for attribute in Edit::new(&bytes).map_err(fail)?.attributes {
                if attribute.name == I30 {
                    continue;
                }
                // A stream in several pieces stays in several records.
                if attribute.lowest() > 0 || edit.find(attribute.kind, &attribute.name).is_some() {
                    return Err(Refusal::NotUnderstood(format!("record {number} keeps a stream in several records")));
                }
                edit.put(attribute.kind, &attribute.name, attribute.bytes);
            }
        }
        for kind in [types::INDEX_ALLOCATION, types::BITMAP] {
            edit.remove(kind, &I30);
        }
        Ok(Directory { edit, further: there.extensions, freed })
    }

    /// A record of the volume in pieces. One with attributes in further records is refused.
    pub(super) fn edit<R: ReadAt>(&self, reader: &mut R, number: u64) -> Result<Edit, Refusal> {
        let bytes = self.volume.read_record(reader, number)?;
        let mut edit = Edit::new(&bytes).map_err(|fault| {
            NtfsError::corrupt(VolumePlace { record: Some(number), ..Default::default() }, fault.what)
        })?;
        if edit.find(types::ATTRIBUTE_LIST, &[]).is_some() {
            return Err(Refusal::NotUnderstood(format!("record {number} keeps its attributes in several records")));
        }
        Ok(edit)
    }

    // ---- records -----------------------------------------------------------------------------------------------

    fn existing_before(&self, dir: u32) -> u32 {
        self.existing.partition_point(|&(other, _)| other < dir) as u32
    }

    fn new_root_files(&self) -> u32 {
        self.replaced.iter().filter(|replaced| replaced.is_none()).count() as u32
    }

    /// Number and sequence of the record for a new item.
    pub(super) fn record_of(&self, role: Role) -> (u32, u16) {
        let before_files = self.new_dirs + self.new_root_files();
        let n = match role {
            Role::Dir(i) => i - self.existing_before(i),
            Role::RootFile(k) => {
                self.new_dirs + self.replaced[..k].iter().filter(|replaced| replaced.is_none()).count() as u32
            }
            Role::File(i) => before_files + i,
            Role::Piece(file, piece) => {
                before_files + self.files + self.splits.get(&file).map_or(0, |split| split.first) + piece as u32
            }
        };
        self.numbers.nth(n)
    }

    /// Use of the `n`-th record.
    pub(super) fn role(&self, n: u32) -> Option<Role> {
        let before_files = self.new_dirs + self.new_root_files();
        if n < self.new_dirs {
            // The n-th directory that does not exist.
            let mut dir = n;
            for &(existing, _) in &self.existing {
                if existing <= dir {
                    dir += 1;
                }
            }
            return Some(Role::Dir(dir));
        }
        if n < before_files {
            let new = self.replaced.iter().enumerate().filter(|(_, replaced)| replaced.is_none());
            return new.map(|(k, _)| Role::RootFile(k)).nth((n - self.new_dirs) as usize);
        }
        if n < before_files + self.files {
            return Some(Role::File(n - before_files));
        }
        let further = n - before_files - self.files;
        let (&file, split) = self
            .splits
            .iter()
            .find(|(_, split)| (split.first..split.first + split.pieces.len() as u32).contains(&further))?;
        Some(Role::Piece(file, (further - split.first) as usize))
    }

    pub(super) fn dir_reference(&self, dir: Option<u32>) -> u64 {
        self.existing_reference(dir).unwrap_or_else(|| {
            let (number, sequence) = self.record_of(Role::Dir(dir.unwrap_or_default()));
            reference(number, sequence)
        })
    }

    pub(super) fn role_reference(&self, role: Role) -> u64 {
        let (number, sequence) = self.record_of(role);
        reference(number, sequence)
    }

    /// Free records with their future sequence numbers, ascending.
    fn free_records<R: ReadAt>(&self, reader: &mut R) -> Result<Vec<(u32, u16)>, Refusal> {
        let mft = self.volume.open_file(reader, u64::from(metafile::MFT))?;
        let place = VolumePlace::record(u64::from(metafile::MFT));
        let bitmap = mft.stream(types::BITMAP, &[]).ok_or(NtfsError::not_found(place))?;
        let bits = self.volume.read_whole(reader, bitmap, 512 << 20)?;
        let count = self.volume.record_count();
        let wanted = u64::from(self.new_dirs + self.new_root_files()) + u64::from(self.files) + 64;
        let limit = wanted.min(REUSED_MAX as u64) as usize;
        let mut found = Vec::new();
        for number in FIRST_RECORD..count {
            // A record past the end of the bitmap is not in use.
            if bits.get((number / 8) as usize).is_some_and(|byte| byte >> (number % 8) & 1 == 1) {
                continue;
            }
            let raw = self.volume.read_raw_record(reader, number)?;
            let sequence = match raw.get(..4) {
                Some(b"FILE") => match u16::from_le_bytes([raw[0x10], raw[0x11]]).wrapping_add(1) {
                    0 => 1,
                    next => next,
                },
                _ => 1,
            };
            found.push((number as u32, sequence));
            if found.len() == limit {
                break;
            }
        }
        Ok(found)
    }

    // ---- directories -------------------------------------------------------------------------------------------

    /// Directories with rebuilt indexes: those that gain entries, then the new ones.
    pub(super) fn all_dirs(&self, dirs: u32) -> impl Iterator<Item = Option<u32>> + '_ {
        let new = (0..dirs).filter(|&i| self.existing_reference(Some(i)).is_none()).map(Some);
        self.touched.iter().copied().chain(new)
    }

    /// The new entries of a directory, sorted. Before the outcome is known, as if no file were left out.
    pub(super) fn entries<R: ReadAt>(
        &self,
        reader: &mut R,
        tree: &impl Tree,
        dir: Option<u32>,
        outcome: Option<&Outcome>,
    ) -> Result<Entries, NtfsError> {
        let mut entries = Entries::default();
        let own = self.existing_reference(dir);
        if let Some(own) = own {
            self.old_entries(reader, raw::reference_number(own), &mut entries)?;
            self.refresh(own, outcome, &mut entries);
        }
        let parent = own.unwrap_or_else(|| self.dir_reference(dir));
        let mut name = Vec::new();
        let Children { dirs, files } = children(tree, dir);
        let mut push = |reference: u64, name: &[u16], facts: FileName| {
            entries.push(reference, record::file_name_len(name.len()), |key| facts.write(name, key));
        };
        for i in dirs.filter(|&i| self.existing_reference(Some(i)).is_none()) {
            name.clear();
            tree.dir_name(i, &mut name);
            push(self.dir_reference(Some(i)), &name, self.dir_name_facts(parent, tree.dir(i).times));
        }
        for i in files.filter(|&i| outcome.is_none_or(|outcome| !outcome.left_out.contains(i))) {
            name.clear();
            tree.file_name(i, &mut name);
            let facts = tree.file(i);
            push(self.role_reference(Role::File(i)), &name, self.file_name_facts(parent, facts.times, facts.len.0));
        }
        if dir.is_none() {
            for (k, file) in self.spec.root_files.iter().enumerate().filter(|&(k, _)| self.replaced[k].is_none()) {
                let units: Vec<u16> = file.name.encode_utf16().collect();
                let facts = self.file_name_facts(parent, file.times, root_file_len(outcome, k));
                push(self.role_reference(Role::RootFile(k)), &units, facts);
            }
        }
        entries.sort(self.volume.upcase());
        Ok(entries)
    }

    fn old_entries<R: ReadAt>(&self, reader: &mut R, number: u64, entries: &mut Entries) -> Result<(), NtfsError> {
        let file = self.volume.open_file(reader, number)?;
        let index = Index::open(&self.volume, &file, &I30)?;
        if index.block_bytes != INDEX_BLOCK as u64 {
            let place = VolumePlace::stream(number, types::INDEX_ROOT, 0);
            return Err(NtfsError::unsupported(place, "index blocks of another size than 4096"));
        }
        let mut broken = None;
        read_index::walk(&self.volume, reader, &index, |step| match step {
            IndexStep::Entry { node, entry } => {
                let key = node.key(entry);
                entries.push(entry.reference, key.len(), |out| out.copy_from_slice(key));
            }
            IndexStep::Broken(error) => broken = broken.take().or(Some(error)),
            IndexStep::Enter { .. } => {}
        });
        broken.map_or(Ok(()), Err)
    }

    /// Updates times of directories that gain entries, and sizes of replaced files, in their entries.
    fn refresh(&self, own: u64, outcome: Option<&Outcome>, entries: &mut Entries) {
        let references: Vec<u64> = self.touched.iter().filter_map(|&dir| self.existing_reference(dir)).collect();
        let is_root = raw::reference_number(own) == u64::from(metafile::ROOT);
        let replaced: Vec<u64> = self.replaced.iter().map(|found| found.map_or(0, file_reference)).collect();
        let interesting = |reference: u64| references.contains(&reference) || is_root && replaced.contains(&reference);
        let found: Vec<(usize, u64)> = (0..entries.len())
            .map(|i| (i, entries.get(i).0))
            .filter(|&(_, reference)| interesting(reference))
            .collect();
        for (i, reference) in found {
            match replaced.iter().position(|&other| is_root && other == reference) {
                Some(k) => {
                    let len = root_file_len(outcome, k);
                    let allocated = self.cluster().len_of(Clusters(self.clusters_for(len))).0;
                    refresh_name(entries.key_mut(i), self.spec.root_files[k].times, Some((allocated, len)));
                }
                None => refresh_name(entries.key_mut(i), Times::all(self.spec.now), None),
            }
        }
    }

    pub(super) fn dir_name_facts(&self, parent: u64, times: Times) -> FileName {
        let attributes = file_attribute::DIRECTORY | self.dir_attributes();
        FileName { parent, times, allocated: 0, data: 0, attributes, namespace: namespace::POSIX }
    }

    pub(super) fn file_name_facts(&self, parent: u64, times: Times, len: u64) -> FileName {
        let allocated = self.cluster().len_of(Clusters(self.clusters_for(len))).0;
        let attributes = self.file_attributes();
        FileName { parent, times, allocated, data: len, attributes, namespace: namespace::POSIX }
    }

    /// Attributes of new files.
    pub(super) fn file_attributes(&self) -> u32 {
        self.spec.hidden.as_ref().map_or(file_attribute::ARCHIVE, |hidden| hidden.file_attributes)
    }

    /// Attributes of new directories, as stored in their records.
    pub(super) fn dir_attributes(&self) -> u32 {
        self.spec.hidden.as_ref().map_or(0, |hidden| hidden.dir_attributes)
    }

    /// Security of a directory with a name of this length: a descriptor of its own does not fit with the longest names,
    /// and is left to the driver's default.
    pub(super) fn dir_security(&self, name_units: usize) -> &NewSecurity {
        const DEFAULT: &NewSecurity = &NewSecurity::Id(0);
        let index = [
            record::resident_len(I30.len(), LARGE_ROOT_VALUE),
            record::non_resident_len(I30.len(), std::iter::once(one_run(1))),
            record::resident_len(I30.len(), 64),
        ];
        let name = record::resident_len(0, record::file_name_len(name_units));
        let fits = self.dir_security.len() + name + index.iter().sum::<usize>() <= self.room();
        if fits { &self.dir_security } else { DEFAULT }
    }

    /// Bytes of a directory's attributes other than its index, and the room for all.
    pub(super) fn dir_room<R: ReadAt>(
        &self,
        reader: &mut R,
        tree: &impl Tree,
        dir: Option<u32>,
    ) -> Result<(usize, usize), Refusal> {
        if let Some(own) = self.existing_reference(dir) {
            let mut edit = self.edit_dir(reader, raw::reference_number(own))?.edit;
            edit.remove(types::INDEX_ROOT, &I30);
            return Ok((edit.len(), edit.room()));
        }
        let mut name = Vec::new();
        tree.dir_name(dir.unwrap_or_default(), &mut name);
        let base = self.dir_security(name.len()).len() + record::resident_len(0, record::file_name_len(name.len()));
        Ok((base, self.room()))
    }

    /// Whether entries of that many bytes fit the record of a directory.
    pub(super) fn is_small(entries_len: usize, (base, room): (usize, usize)) -> bool {
        base + record::resident_len(I30.len(), root_value_len(entries_len)) <= room
    }

    /// Upper bound of the blocks of every directory that needs some, with the room of its record.
    fn shapes<R: ReadAt>(&self, reader: &mut R, tree: &impl Tree) -> Result<Vec<Needs>, Refusal> {
        let mut all = Vec::new();
        let mut clashes = Vec::new();
        for dir in self.all_dirs(tree.dirs()) {
            let entries = self.entries(reader, tree, dir, None)?;
            let merged = self.existing_reference(dir).is_some();
            for i in 1..entries.len() {
                let (before, name) = (entries.name(i - 1), entries.name(i));
                // The volume's own names may differ by case alone; ours may not.
                let ours = |i: usize| self.is_ours(entries.get(i).0);
                if self.volume.upcase().same(&before, &name)
                    && (!merged || ours(i) || ours(i - 1))
                    && clashes.len() < NAMES_TOLD
                {
                    clashes.push(format!("{} differs by case alone from another name", display_name(&name)));
                }
            }
            let room = self.dir_room(reader, tree, dir)?;
            if !Self::is_small(entries.total_len(), room) {
                all.push(Needs { dir, blocks_max: Shape::new(&entries).blocks_max(), room });
            }
        }
        if clashes.is_empty() { Ok(all) } else { Err(Refusal::Exists { names: clashes }) }
    }

    fn is_ours(&self, reference: u64) -> bool {
        let number = u32::try_from(raw::reference_number(reference)).unwrap_or(u32::MAX);
        self.numbers.position(number).is_some()
    }
}

/// A directory of the volume split into its parts.
pub(super) struct Directory {
    /// Its record, without index blocks and their bitmap; the root of the index is still in it.
    pub edit: Edit,
    /// Further records that it no longer needs.
    pub further: Vec<u64>,
    /// Clusters that it no longer needs.
    pub freed: Vec<Extent>,
}

/// Requirements of one directory.
struct Needs {
    dir: Option<u32>,
    blocks_max: u64,
    /// Bytes other than its index, and bytes in all.
    room: (usize, usize),
}

/// The run of this length with the longest encoding.
pub(super) fn one_run(len: u64) -> Extent {
    Extent { lcn: Lcn(u64::from(u32::MAX) - len.min(u64::from(u32::MAX))), len: Clusters(len) }
}

/// The data of a file in the root; `None` when there is none of that name.
///
/// # Errors
/// The volume cannot be read.
pub fn root_stream<R: ReadAt>(volume: &Volume, reader: &mut R, name: &[u16]) -> Result<Option<Stream>, NtfsError> {
    let Some(found) = read_index::lookup(volume, reader, u64::from(metafile::ROOT), name)? else { return Ok(None) };
    Ok(volume.open_file(reader, found.record)?.data(&[]).cloned())
}

/// Runs of clusters that are free at present, ascending; none of them in `avoid`.
///
/// # Errors
/// The volume cannot be read.
pub fn free_runs<R: ReadAt>(volume: &Volume, reader: &mut R, avoid: &[VolumeRange]) -> Result<Vec<Extent>, NtfsError> {
    let number = u64::from(metafile::BITMAP);
    let file = volume.open_file(reader, number)?;
    let bitmap = file.data(&[]).ok_or(NtfsError::not_found(VolumePlace::record(number)))?;
    free_extents(volume, reader, bitmap, avoid)
}

/// Bytes of `$LogFile`, which an append overwrites.
///
/// # Errors
/// The volume cannot be read.
pub fn log_len<R: ReadAt>(volume: &Volume, reader: &mut R) -> Result<ByteLen, NtfsError> {
    let file = volume.open_file(reader, u64::from(metafile::LOG_FILE))?;
    Ok(ByteLen(file.data(&[]).map_or(0, |log| log.allocated)))
}

/// Whether the volume lists bad clusters.
///
/// # Errors
/// The volume cannot be read.
pub fn has_bad_clusters<R: ReadAt>(volume: &Volume, reader: &mut R) -> Result<bool, NtfsError> {
    let name: Vec<u16> = "$Bad".encode_utf16().collect();
    let file = volume.open_file(reader, u64::from(metafile::BAD_CLUS))?;
    Ok(file.data(&name).is_some_and(|bad| !stream_extents(bad).is_empty()))
}

fn children(tree: &impl Tree, dir: Option<u32>) -> Children {
    dir.map_or_else(|| tree.root(), |dir| tree.dir(dir).children)
}

pub(super) fn root_file_len(outcome: Option<&Outcome>, k: usize) -> u64 {
    outcome.and_then(|outcome| outcome.root_file_lens.get(k)).map_or(0, |len| len.0)
}

pub(super) fn file_reference(file: FileRef) -> u64 {
    file.record | u64::from(file.sequence) << 48
}

/// The clusters of a stream without holes, in its order.
pub(super) fn stream_extents(stream: &Stream) -> Vec<Extent> {
    let runs = stream.runs().iter().filter(|run| !run.is_hole());
    runs.map(|run| Extent { lcn: Lcn(u64::from(run.lcn)), len: Clusters(u64::from(run.len)) }).collect()
}

/// Updates a `$FILE_NAME` (docs/spec/ntfs.md#file-names): times of modification and of the record's change; allocated
/// size and length of a replaced file.
pub(super) fn refresh_name(value: &mut [u8], times: Times, sizes: Option<(u64, u64)>) {
    const MODIFIED: usize = 0x10;
    const CHANGED: usize = 0x18;
    const ALLOCATED: usize = 0x28;
    const DATA: usize = 0x30;
    let mut put = |at: usize, value_: u64| {
        if let Some(bytes) = value.get_mut(at..at + 8) {
            bytes.copy_from_slice(&value_.to_le_bytes());
        }
    };
    put(MODIFIED, times.modified.0);
    put(CHANGED, times.changed.0);
    if let Some((allocated, len)) = sizes {
        put(ALLOCATED, allocated);
        put(DATA, len);
    }
}

/// Merges adjacent extents.
fn joined(extents: Vec<Extent>) -> Vec<Extent> {
    let mut out: Vec<Extent> = Vec::with_capacity(extents.len());
    for extent in extents {
        match out.last_mut() {
            Some(last) if last.lcn.0 + last.len.0 == extent.lcn.0 => last.len.0 += extent.len.0,
            _ => out.push(extent),
        }
    }
    out
}
