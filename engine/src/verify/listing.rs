//! The manifest matched with the catalog: the file of each blob, and the expected hashes of its blocks.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::io::{self, BufRead, BufReader, Read};

use crate::azure::dataset::Disposition;
use crate::azure::manifest::{self, BlobEnd, BlobStart, Event, SideRef};
use crate::azure::properties::SideKind;
use crate::azure::{Digest, base64};
use crate::hash::{self, Md5, Sha256};
use crate::limits;
use crate::ntfs::read::{FileId, FileInfo, NameId, display_name};
use crate::pool::SLOT_LEN;
use crate::report::{Advice, Kind, Problem, Setting};
use crate::verify::logs::key;
use crate::verify::only::Only;
use crate::verify::result::ManifestFacts;
use crate::verify::row::Verdict;
use crate::volume::files::Files;
use crate::volume::find::Opened;

/// Names of manifests at the root of a volume, in the order of searching.
const NAMES: [&str; 2] = ["DriveManifest.xml", "drive-manifest.xml"];
const SUFFIX: &str = ".manifest";

/// Most duplicate blobs named.
const DOUBLED_NAMED_MAX: usize = 3;

/// Most orphaned files compared with each missing blob.
const LOST_MAX: usize = 1000;

/// Most notes of one entry on faults in the manifest.
const ENTRY_NOTES_MAX: usize = 4;

/// No side file, no own name.
pub(super) const NONE: u32 = u32::MAX;

/// A block or page range, or a section of a blob that has none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    /// Offset in the file.
    pub offset: u64,
    /// Length in bytes.
    pub len: u32,
    pub hash: [u8; 16],
    pub has_hash: bool,
    pub verdict: Verdict,
}
const _: () = assert!(size_of::<Piece>() <= 32);

/// A file with pieces: a blob, or, after the blobs, a metadata or properties file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject {
    /// Its name on the drive; `None`: it is not there.
    pub name: Option<NameId>,
    /// Length in bytes by the manifest.
    pub length: u64,
    pub pieces_at: u32,
    pub pieces_len: u32,
    /// Verdict on the file as a whole.
    pub verdict: Verdict,
}

/// Facts that only blobs have.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlobFacts {
    /// Index in `Listing::texts`: the blob's path, if it is not that of the file; the file's path, if there is no file.
    path: u32,
    file_path: u32,
    pub metadata: u32,
    pub properties: u32,
    pub is_pages: bool,
    pub disposition: Disposition,
}

/// Everything that a manifest lists.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub facts: ManifestFacts,
    pub version: Option<String>,
    pub credential: Option<&'static str>,
    /// Blobs, followed by their side files.
    pub subjects: Vec<Subject>,
    pub blobs: Vec<BlobFacts>,
    pub sides: Vec<Subject>,
    /// Kind of each side file.
    pub side_kinds: Vec<SideKind>,
    pub pieces: Vec<Piece>,
    pub snapshots: HashMap<u32, String>,
    pub notes: HashMap<u32, Vec<String>>,
    /// Listed files, one bit each.
    named: Vec<u64>,
    texts: Vec<Box<str>>,
    by_side: HashMap<(FileId, SideKind), u32>,
    /// Hashes of the blobs' names, in their order; cleared after the search for duplicates.
    names: Vec<u64>,
    /// Number of blobs with the name of an earlier one, and some of those names.
    pub doubled: (u64, Vec<String>),
    /// Number of blobs that were not requested.
    pub skipped: u64,
    /// The requested prefixes.
    pub only: Only,
    /// Keys of blobs that were not requested: blob, file.
    pub passed: Vec<(u64, u64)>,
    /// Every file of the volume, without a manifest.
    pub is_all: bool,
    /// Whether ids of blocks and paths of side files are kept: only an import needs them.
    keeps: bool,
    /// Ids of blocks that are not made of their hashes in the usual way, by the number of the piece.
    ids: HashMap<u32, Box<str>>,
    /// Pieces whose block has no id.
    without_id: HashSet<u32>,
    /// Path of each side file, and whether it is named for a whole list.
    pub side_paths: Vec<(Box<str>, bool)>,
    /// The manifest on the drive.
    pub manifest: Option<NameId>,
}

/// Location of a manifest.
pub(super) enum ManifestPlace {
    /// A file on the drive.
    Inside(NameId, String),
    /// A file outside the drive.
    Outside(std::fs::File, String),
}

/// The id of the drive that the manifest on it was made for; `None` where there is no manifest, or it names none. Reads no more
/// of it than its head.
pub fn drive_id(opened: &Opened) -> Option<String> {
    let files = Files::read(opened).ok()?;
    let (ManifestPlace::Inside(name, _), _) = find(&files, None, None).ok()? else { return None };
    let mut input = BufReader::new(files.open(files.catalog.file_of(name)).ok()?);
    let mut reader = manifest::Reader::new(&mut input);
    while let Ok(Some(event)) = reader.next_event() {
        match event {
            manifest::Event::DriveId(id) => return Some(id),
            manifest::Event::ListStart(_) | manifest::Event::BlobStart(_) => return None,
            _ => {}
        }
    }
    None
}

/// Finds the manifest: the requested one, the one in the drive record, or one of the usual names. Also returns other
/// files that look like one.
pub(super) fn find(
    files: &Files<'_>,
    asked: Option<&str>,
    record: Option<&str>,
) -> Result<(ManifestPlace, Vec<(NameId, String)>), Problem> {
    let root = files.catalog.root();
    let by_path = |path: &str| {
        let parts: Vec<Vec<u16>> =
            path.split(['\\', '/']).filter(|part| !part.is_empty()).map(|part| part.encode_utf16().collect()).collect();
        let (last, above) = parts.split_last()?;
        let mut at = root?;
        for part in above {
            at = files.catalog.file_of(files.catalog.child(&files.volume, at, part)?);
        }
        files.catalog.child(&files.volume, at, last)
    };
    let is_file = |name: &NameId| !files.catalog.info(files.catalog.file_of(*name)).directory;
    let missing = |what: &str, value: &str| {
        Problem::new(Kind::Drive, what).value(value).advice(
            Advice::from("name it with ")
                + Setting::Manifest
                + ": a path on the drive with a leading \\, or a file that is a copy of it",
        )
    };
    match asked {
        Some(path) if path.starts_with('\\') => {
            let name = by_path(path).filter(is_file).ok_or_else(|| missing("no such manifest on the drive", path))?;
            return Ok((ManifestPlace::Inside(name, path.to_owned()), Vec::new()));
        }
        Some(path) => {
            let file =
                crate::files::input::open(path.as_ref(), crate::files::input::Pipes::Refused).map_err(|error| {
                    Problem::new(Kind::Usage, format!("the manifest cannot be read: {error}")).path(path)
                })?;
            return Ok((ManifestPlace::Outside(file, path.to_owned()), Vec::new()));
        }
        None => {}
    }
    let mut found: Vec<(NameId, String)> = Vec::new();
    let mut add = |name: NameId| {
        let path = format!("\\{}", display_name(files.catalog.name(name)));
        if is_file(&name) && !found.iter().any(|(other, _)| *other == name) {
            found.push((name, path));
        }
    };
    record.and_then(by_path).into_iter().for_each(&mut add);
    NAMES.iter().filter_map(|name| by_path(name)).for_each(&mut add);
    for name in root.into_iter().flat_map(|root| files.catalog.children(root)) {
        let text = display_name(files.catalog.name(name));
        if text.to_ascii_lowercase().ends_with(SUFFIX) {
            add(name);
        }
    }
    if found.is_empty() {
        return Err(missing("no manifest on the drive", record.unwrap_or("\\DriveManifest.xml, \\*.manifest")));
    }
    let (name, path) = found.remove(0);
    Ok((ManifestPlace::Inside(name, path), found))
}

/// Hashes all bytes read through it.
struct Hashing<R> {
    inner: R,
    md5: Md5,
    sha256: Sha256,
    len: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(out)?;
        self.md5.update(&out[..n]);
        self.sha256.update(&out[..n]);
        self.len += n as u64;
        Ok(n)
    }
}

impl Listing {
    /// Reads a whole manifest. `only`: prefixes of blob paths; none for all. `keeps`: block ids and paths of side files,
    /// too.
    ///
    /// # Errors
    /// The manifest cannot be read. Faults in its contents are recorded in the facts.
    pub fn read(
        files: &Files<'_>,
        place: ManifestPlace,
        only: &[String],
        keeps: bool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self, Problem> {
        let named = vec![0; files.catalog.len().div_ceil(64)];
        let mut listing = Self { named, only: Only::new(only), keeps, ..Self::default() };
        let (input, path, is_outside): (Box<dyn Read + '_>, String, bool) = match place {
            ManifestPlace::Outside(file, path) => (Box::new(file), path, true),
            ManifestPlace::Inside(name, path) => {
                let file = files.catalog.file_of(name);
                listing.name(file);
                listing.manifest = Some(name);
                (Box::new(files.open(file)?), path, false)
            }
        };
        listing.facts.path = path;
        listing.facts.is_outside = is_outside;
        let hashing = Hashing { inner: input, md5: Md5::new(), sha256: Sha256::default(), len: 0 };
        let mut input = BufReader::with_capacity(1 << 20, hashing);
        let mut reader = manifest::Reader::new(&mut input);
        let mut state = ManifestProgress::default();
        let mut broken = None;
        let mut events = 0u64;
        loop {
            match reader.next_event() {
                Ok(Some(event)) => listing.event(files, event, &mut state),
                Ok(None) => break,
                Err(error) => {
                    broken = Some(format!("line {}, byte {}: {}", error.line, error.byte, error.what));
                    break;
                }
            }
            events += 1;
            if events.is_multiple_of(1 << 14) {
                progress(listing.blobs.len() as u64);
            }
        }
        let faults = reader.faults().iter().map(|fault| format!("line {}: {}", fault.line, fault.what));
        let mut all: Vec<String> = broken.into_iter().chain(faults).collect();
        listing.facts.faults_in_all =
            reader.faults_in_all() + (all.len() as u64 - reader.faults().len() as u64) + state.faults;
        drop(reader);
        // The hash covers all bytes, including those after a fault.
        let rest = loop {
            match input.fill_buf().map(<[u8]>::len) {
                Ok(0) => break Ok(()),
                Ok(n) => input.consume(n),
                Err(error) => break Err(error),
            }
        };
        if let Err(error) = rest {
            return Err(
                Problem::new(Kind::Drive, format!("the manifest cannot be read: {error}")).value(listing.facts.path)
            );
        }
        all.append(&mut state.first);
        all.truncate(limits::FAULTS_MAX);
        listing.facts.faults = all;
        let hashing = input.into_inner();
        listing.facts.len = hashing.len;
        listing.facts.md5 = hash::hex_upper(&hashing.md5.finish());
        listing.facts.sha256 = hash::hex_upper(&hashing.sha256.value());
        listing.by_side = HashMap::new();
        listing.find_doubled(files);
        Ok(listing)
    }

    /// Every file of the volume that has contents of its own, with nothing to compare it with: links, and files whose
    /// contents are elsewhere, are not among them. `only`: prefixes of paths; none for all.
    pub fn of_all(files: &Files<'_>, drive_id: &str, only: &[String]) -> Self {
        let named = vec![0; files.catalog.len().div_ceil(64)];
        let mut listing = Self { named, only: Only::new(only), is_all: true, ..Self::default() };
        let mut see = |name: NameId, is_directory: bool| {
            if !is_directory {
                listing.whole(files, name);
            }
        };
        walk(files, &mut see);
        // The name of the log of what was extracted.
        listing.facts.md5 = hash::hex_upper(&hash::md5(format!("every file of {drive_id}").as_bytes()));
        listing
    }

    /// A file in pieces without hashes.
    fn whole(&mut self, files: &Files<'_>, name: NameId) {
        let file = files.catalog.file_of(name);
        let info = files.catalog.info(file);
        self.name(file);
        let path = files.catalog.path(name).map(|path| display_name(&path)).unwrap_or_default();
        if !self.only.takes(&path.trim_start_matches('\\').replace('\\', "/")) {
            self.skipped += 1;
            return;
        }
        let pieces_at = self.pieces.len() as u32;
        let mut at = 0;
        while at < info.size {
            let len = (info.size - at).min(SLOT_LEN as u64);
            let verdict = Verdict::NoReference;
            self.pieces.push(Piece { offset: at, len: len as u32, hash: [0; 16], has_hash: false, verdict });
            at += len;
        }
        let pieces_len = self.pieces.len() as u32 - pieces_at;
        let verdict = Verdict::NoReference;
        self.subjects.push(Subject { name: Some(name), length: info.size, pieces_at, pieces_len, verdict });
        let (metadata, properties) = (NONE, NONE);
        let disposition = Disposition::default();
        self.blobs.push(BlobFacts { path: NONE, file_path: NONE, metadata, properties, is_pages: false, disposition });
    }

    /// Finds blobs of one name: the service would not make the intended blobs of them.
    fn find_doubled(&mut self, files: &Files<'_>) {
        let names = std::mem::take(&mut self.names);
        let mut order: Vec<u32> = (0..names.len() as u32).collect();
        order.sort_unstable_by_key(|blob| (names[*blob as usize], *blob));
        let same = order.windows(2).filter(|two| names[two[0] as usize] == names[two[1] as usize]);
        let later: Vec<u32> = same.map(|two| two[1]).collect();
        let named = later.iter().take(DOUBLED_NAMED_MAX).map(|blob| self.blob_path(files, *blob as usize));
        self.doubled = (later.len() as u64, named.collect());
    }

    /// Marks a file as listed.
    fn name(&mut self, file: FileId) {
        let index = file.index();
        self.named[index / 64] |= 1 << (index % 64);
    }

    /// Whether the manifest lists the file, or is the file.
    pub fn is_named(&self, file: FileId) -> bool {
        let index = file.index();
        self.named[index / 64] & 1 << (index % 64) != 0
    }

    fn text(&mut self, text: &str) -> u32 {
        self.texts.push(text.into());
        (self.texts.len() - 1) as u32
    }

    fn event(&mut self, files: &Files<'_>, event: Event, state: &mut ManifestProgress) {
        match event {
            Event::Version(version) => self.version = Some(version),
            Event::DriveId(id) => self.facts.drive_id = Some(id),
            Event::Credential(name) => self.credential = Some(name),
            Event::ClientCreator(creator) => {
                self.facts.is_export |= creator.contains("Import/Export service");
                self.facts.creator = Some(creator);
            }
            Event::ListStart(head) => {
                state.metadata = head.metadata;
                state.properties = head.properties;
            }
            Event::BlobStart(start) => {
                state.blob.pieces.clear();
                state.blob.start = *start;
            }
            Event::Piece(piece) if state.blob.pieces.len() < limits::BLOB_PIECES_MAX => state.blob.pieces.push(piece),
            Event::Piece(_) => state.fault("a blob has too many blocks or ranges to hold".into()),
            Event::BlobEnd(end) => self.blob(files, end, state),
            Event::ListEnd => {}
        }
    }

    fn blob(&mut self, files: &Files<'_>, end: BlobEnd, state: &mut ManifestProgress) {
        let blob = std::mem::take(&mut state.blob);
        let BlobStart { blob_path, file_path, length, snapshot, pieces: kind, line, .. } = &blob.start;
        let name = look_up(files, file_path);
        if let Some(name) = name {
            self.name(files.catalog.file_of(name));
        }
        for side in [&end.metadata, &end.properties, &state.metadata, &state.properties].into_iter().flatten() {
            if let Some(name) = look_up(files, &side.path) {
                self.name(files.catalog.file_of(name));
            }
        }
        if !self.only.takes(blob_path) {
            self.skipped += 1;
            self.passed.push((key(blob_path), key(file_path)));
            state.blob.pieces = blob.pieces;
            return;
        }
        let faults = blob.check();
        for fault in &faults {
            state.fault(format!("line {line}: {blob_path}: {fault}"));
        }
        let index = self.subjects.len() as u32;
        // Faults of an entry, found by the reader or by the service's rules, invalidate this entry alone.
        let faults = end.faults.iter().chain(&faults).take(ENTRY_NOTES_MAX);
        let mut notes: Vec<String> = faults.map(|fault| format!("manifest: {fault}")).collect();
        let info = name.map(|name| files.catalog.info(files.catalog.file_of(name)));
        let verdict = of_file(files, &blob, info, &mut notes);
        let size = info.map_or(0, |info| if info.directory { 0 } else { info.size });
        let pieces_at = self.pieces.len() as u32;
        self.pieces_of(&blob, size, verdict);
        if self.keeps && *kind == Some(manifest::Pieces::Blocks) {
            self.keep_ids(pieces_at, &blob.pieces);
        }
        if let Some(sha) = blob.pieces.iter().find(|piece| matches!(piece.hash, Some(Digest::Sha256(_)))) {
            notes.push(format!("block at {}: a hash that is no MD5 cannot be compared", sha.offset));
        }
        let pieces_len = self.pieces.len() as u32 - pieces_at;
        self.subjects.push(Subject { name, length: *length, pieces_at, pieces_len, verdict });
        let facts = self.facts_of(files, &blob.start, name, [&end.metadata, &end.properties], state);
        self.blobs.push(facts);
        let mut hasher = DefaultHasher::new();
        (blob_path, snapshot).hash(&mut hasher);
        self.names.push(hasher.finish());
        if let Some(snapshot) = snapshot {
            self.facts.is_export = true;
            self.snapshots.insert(index, snapshot.clone());
        }
        if !notes.is_empty() {
            self.notes.insert(index, notes);
        }
        // Its memory is used again.
        state.blob.pieces = blob.pieces;
    }

    /// Adds the pieces of a blob, whose file has `size` bytes. One without a list of blocks or ranges is read in pieces
    /// without a reference.
    fn pieces_of(&mut self, blob: &manifest::Blob, size: u64, verdict: Verdict) {
        let BlobStart { length, pieces: kind, .. } = &blob.start;
        let mut push = |offset: u64, length: u64, hash: Option<Digest>| {
            let (md5, has_hash) = match hash {
                Some(Digest::Md5(md5)) => (md5, true),
                Some(Digest::Sha256(_)) | None => ([0; 16], false),
            };
            let len = u32::try_from(length).unwrap_or(u32::MAX);
            // No block is as long as 4 GiB: an entry for one cannot be compared.
            let inside = offset.checked_add(length).is_some_and(|end| end <= size) && u64::from(len) == length;
            let verdict = match (verdict, inside, has_hash) {
                (Verdict::Missing, ..) => Verdict::Missing,
                (_, false, _) => Verdict::Different,
                (_, true, false) => Verdict::NoReference,
                (_, true, true) => Verdict::Equal,
            };
            self.pieces.push(Piece { offset, len, hash: md5, has_hash, verdict });
        };
        match kind {
            Some(_) if !(blob.pieces.is_empty() && *length > 0 && *kind == Some(manifest::Pieces::Blocks)) => {
                blob.pieces.iter().for_each(|piece| push(piece.offset, piece.length, piece.hash));
            }
            _ => {
                let mut at = 0;
                while at < size.min(*length) {
                    let len = (size.min(*length) - at).min(SLOT_LEN as u64);
                    push(at, len, None);
                    at += len;
                }
            }
        }
    }

    /// What is kept of a blob besides its pieces. `own`: its metadata and properties.
    fn facts_of(
        &mut self,
        files: &Files<'_>,
        start: &BlobStart,
        name: Option<NameId>,
        own: [&Option<SideRef>; 2],
        state: &ManifestProgress,
    ) -> BlobFacts {
        let BlobStart { blob_path, file_path, .. } = start;
        let derived = name.and_then(|name| files.catalog.path(name)).map(|path| display_name(&path));
        let same_file = derived.as_ref().is_some_and(|derived| derived == file_path);
        let same_blob =
            same_file && file_path.strip_prefix('\\').is_some_and(|path| path.replace('\\', "/") == *blob_path);
        let [metadata, properties] = own.map(Option::as_ref);
        let disposition = start.disposition.as_deref().and_then(|text| Disposition::parse(text.trim()));
        BlobFacts {
            path: if same_blob { NONE } else { self.text(blob_path) },
            file_path: if same_file { NONE } else { self.text(file_path) },
            metadata: self.side(files, SideKind::Metadata, metadata, state.metadata.as_ref()),
            properties: self.side(files, SideKind::Properties, properties, state.properties.as_ref()),
            is_pages: start.pieces == Some(manifest::Pieces::Pages),
            disposition: disposition.unwrap_or_default(),
        }
    }

    /// Keeps the ids of a blob's blocks where [`Listing::block_id`] cannot make them.
    fn keep_ids(&mut self, pieces_at: u32, pieces: &[manifest::Piece]) {
        for (at, piece) in (pieces_at..).zip(pieces) {
            let usual = match piece.hash {
                Some(Digest::Md5(md5)) => Some(usual_id(&md5)),
                _ => None,
            };
            match &piece.id {
                None => drop(self.without_id.insert(at)),
                Some(id) if usual.as_deref() != Some(id) => drop(self.ids.insert(at, id.clone())),
                Some(_) => {}
            }
        }
    }

    /// Id of a block by the manifest; only of a listing that keeps them.
    pub fn block_id(&self, piece: u32) -> Option<String> {
        if let Some(id) = self.ids.get(&piece) {
            return Some(id.to_string());
        }
        let known = &self.pieces[piece as usize];
        (known.has_hash && !self.without_id.contains(&piece)).then(|| usual_id(&known.hash))
    }

    /// Index of the side file of a blob: its own, or the list's.
    fn side(&mut self, files: &Files<'_>, kind: SideKind, own: Option<&SideRef>, list: Option<&SideRef>) -> u32 {
        let Some(side) = own.or(list) else { return NONE };
        let name = look_up(files, &side.path);
        let file = name.map(|name| files.catalog.file_of(name));
        if let Some(known) = file.and_then(|file| self.by_side.get(&(file, kind))) {
            let piece = self.sides[*known as usize].pieces_at;
            if side.hash == Some(Digest::Md5(self.pieces[piece as usize].hash)) {
                return *known;
            }
        }
        let info = file.map(|file| files.catalog.info(file)).filter(|info| !info.directory);
        let length = info.map_or(0, |info| info.size);
        let verdict = if info.is_none() { Verdict::Missing } else { Verdict::Equal };
        let (hash, has_hash) = match side.hash {
            Some(Digest::Md5(md5)) => (md5, true),
            _ => ([0; 16], false),
        };
        let (len, fits) = u32::try_from(length).map_or((0, false), |len| (len, len as usize <= SLOT_LEN));
        let piece = match (info.is_some(), fits, has_hash) {
            (false, ..) => Verdict::Missing,
            (_, false, _) => Verdict::Different,
            (_, _, false) => Verdict::NoReference,
            _ => Verdict::Equal,
        };
        let pieces_at = self.pieces.len() as u32;
        self.pieces.push(Piece { offset: 0, len, hash, has_hash, verdict: piece });
        self.sides.push(Subject { name, length, pieces_at, pieces_len: 1, verdict });
        if self.keeps {
            self.side_paths.push((side.path.as_str().into(), own.is_none()));
        }
        self.side_kinds.push(kind);
        let index = (self.sides.len() - 1) as u32;
        if let Some(file) = file {
            self.by_side.insert((file, kind), index);
        }
        index
    }

    /// `container/name` of a blob.
    pub fn blob_path(&self, files: &Files<'_>, blob: usize) -> String {
        match self.blobs[blob].path {
            NONE => self.file_path(files, blob).trim_start_matches('\\').replace('\\', "/"),
            text => self.texts[text as usize].to_string(),
        }
    }

    /// Path on the drive, in the manifest's spelling.
    pub fn file_path(&self, files: &Files<'_>, blob: usize) -> String {
        match (self.blobs[blob].file_path, self.subjects[blob].name) {
            (NONE, Some(name)) => files.catalog.path(name).map(|path| display_name(&path)).unwrap_or_default(),
            (NONE, None) => String::new(),
            (text, _) => self.texts[text as usize].to_string(),
        }
    }
}

/// Shows every name of a file or directory that has contents of its own on the volume, a directory before what is in it.
pub(super) fn walk(files: &Files<'_>, see: &mut dyn FnMut(NameId, bool)) {
    let catalog = &files.catalog;
    let mut pending: Vec<FileId> = catalog.root().into_iter().collect();
    // A directory that can be reached twice is damage, and is entered once.
    let mut entered: HashSet<FileId> = pending.iter().copied().collect();
    while let Some(directory) = pending.pop() {
        for name in catalog.children(directory) {
            let file = catalog.file_of(name);
            let info = catalog.info(file);
            if catalog.is_metafile(file) || info.special.is_some() {
                continue;
            }
            see(name, info.directory);
            if info.directory && entered.insert(file) {
                pending.push(file);
            }
        }
    }
}

/// The id that blocks of imports have (docs/spec/import-export.md#manifest-grammar).
fn usual_id(md5: &[u8; 16]) -> String {
    let mut id = b"MD5/".to_vec();
    base64::encode(md5, &mut id);
    String::from_utf8(id).unwrap_or_default()
}

/// State while a manifest is read.
#[derive(Default)]
struct ManifestProgress {
    blob: manifest::Blob,
    metadata: Option<SideRef>,
    properties: Option<SideRef>,
    first: Vec<String>,
    faults: u64,
}

impl ManifestProgress {
    fn fault(&mut self, what: String) {
        self.faults += 1;
        if self.first.len() < limits::FAULTS_MAX {
            self.first.push(what);
        }
    }
}

/// The verdict on a blob's file as a whole; appends the reasons to `notes`.
fn of_file(files: &Files<'_>, blob: &manifest::Blob, info: Option<FileInfo>, notes: &mut Vec<String>) -> Verdict {
    let BlobStart { blob_path, file_path, length, is_length_wrong, .. } = &blob.start;
    let Some(info) = info else {
        if is_lost(files, file_path) {
            notes.push("a record of $MFT has this name, but no directory lists it: Windows does not find it".into());
        }
        return Verdict::Missing;
    };
    if info.directory {
        notes.push("is a directory on the drive".to_owned());
        return Verdict::Different;
    }
    if info.size != *length {
        notes.push(format!("the file has {} bytes, the manifest says {length}", info.size));
    }
    if info.damaged {
        notes.push("its record on the drive is damaged".to_owned());
    }
    if info.size != *length || *is_length_wrong || blob_path.is_empty() || !blob.is_covered() {
        return Verdict::Different;
    }
    Verdict::Equal
}

/// Whether an orphaned file has the last name of a path.
fn is_lost(files: &Files<'_>, path: &str) -> bool {
    let Some(name) = path.rsplit(['\\', '/']).next() else { return false };
    let name: Vec<u16> = name.encode_utf16().collect();
    let lost = files.catalog.orphans().iter().take(LOST_MAX);
    lost.into_iter().any(|lost| files.volume.upcase().same(files.catalog.name(*lost), &name))
}

/// Finds a name by its path from the root; hard links are distinguished.
fn look_up(files: &Files<'_>, path: &str) -> Option<NameId> {
    let mut parts = path.split(['\\', '/']).filter(|part| !part.is_empty()).peekable();
    let mut at = files.catalog.root()?;
    loop {
        let part: Vec<u16> = parts.next()?.encode_utf16().collect();
        let name = files.catalog.child(&files.volume, at, &part)?;
        if parts.peek().is_none() {
            return Some(name);
        }
        at = files.catalog.file_of(name);
    }
}
