//! Asks the account for the blobs of an export, and makes the catalog of its drives.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use dray_account::{Account, Blob, BlobKind, Failure, Include};
use dray_engine::api::account::{Exported, ExportedBlob, ExportedFile, ExportedKind, OwnBlocks};
use dray_engine::api::account::{ListedBlobs, Selection};
use dray_engine::api::azure::{base64, properties};
use dray_engine::api::prepare::{BlobType, CatalogBuilder};
use dray_engine::report::{Event, Kind, Problem, Problems};
use dray_engine::units::{ByteLen, Stamp};

use crate::listing;

/// Number of blobs between two progress reports.
const TELL_EVERY: u64 = 1000;

/// Extension of a properties file (docs/spec/import-export.md#metadata-and-properties-files-on-the-drive).
const PROPERTIES: &str = "properties";
/// Extension of a metadata file: our guess, since no public document shows one.
const METADATA: &str = "metadata";

/// The request.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Snapshots of the blobs too.
    pub snapshots: bool,
    /// Blobs that are in use get a snapshot, which is exported instead. Otherwise the account stays as it is.
    pub may_snapshot: bool,
    /// Requests at once.
    pub requests: usize,
}

/// A blob that was selected and cannot be exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// `container/name`.
    pub path: String,
    /// Time of the snapshot, if it is one.
    pub snapshot: Option<String>,
    /// Bytes.
    pub length: u64,
    /// The reason, beginning with its status in a copy log.
    pub why: String,
}

/// Blobs of the account that a blob list selects.
#[derive(Debug)]
pub struct Gathered {
    /// For the engine: the files of the drives.
    pub listed: ListedBlobs,
    /// Blobs that cannot be exported.
    pub refused: Vec<Refused>,
    /// Selectors that took nothing.
    pub nonexistent: Vec<String>,
    /// Snapshots that were taken of blobs in use: `container/name` and time. They are deleted when the export is over.
    pub taken: Vec<(String, String)>,
    /// Blobs in use of which no snapshot may be taken with this credential: they are read as they are.
    pub unsnapped: Vec<String>,
}

/// Asks `account` for what `selection` takes.
///
/// # Errors
/// The account does not answer or refuses; more names than a catalog has room for.
pub fn gather(
    account: &Account,
    selection: &mut Selection,
    options: Options,
    on_event: &mut dyn FnMut(Event),
) -> Result<Gathered, Problems> {
    let include = Include { snapshots: options.snapshots, metadata: true };
    let mut items: Vec<SelectedBlob> = Vec::new();
    let (mut refused, mut bytes, mut seen) = (Vec::new(), 0, 0u64);
    listing::selected(account, selection, include, &mut || (), &mut |container, blob| {
        seen += 1;
        bytes += blob.length;
        if seen.is_multiple_of(TELL_EVERY) {
            on_event(Event::Scanning { files: seen, bytes: ByteLen(bytes) });
        }
        let is_archived = blob.tier.as_deref().is_some_and(|tier| tier.eq_ignore_ascii_case("archive"));
        let item = SelectedBlob::of(container, blob);
        match is_archived {
            true => refused.push(item.refused("BlobRequestFailed: it lies in the archive tier: rehydrate it first")),
            false => items.push(item),
        }
        Ok(())
    })?;
    let (items, more) = asked(account, items, options)?;
    refused.extend(more);
    on_event(Event::Scanning { files: items.len() as u64, bytes: ByteLen(bytes) });
    let taken = items.iter().filter_map(|item| Some((item.path(), item.taken.clone()?))).collect();
    let unsnapped = items.iter().filter(|item| item.is_unsnapped).map(SelectedBlob::path).collect();
    let listed = catalog(account.endpoint().url().as_str(), items)?;
    Ok(Gathered { listed, refused, nonexistent: selection.nonexistent(), taken, unsnapped })
}

/// An export of no blob: what else is wrong shows by it. `None` never happens.
pub fn nothing() -> Option<ListedBlobs> {
    CatalogBuilder::new().seal_export().ok().map(|catalog| ListedBlobs { catalog, exported: Exported::default() })
}

/// A blob that was selected.
#[derive(Debug)]
struct SelectedBlob {
    container: String,
    blob: Blob,
    /// Snapshot that was taken of it.
    taken: Option<String>,
    /// It is in use, and the credential does not allow a snapshot.
    is_unsnapped: bool,
    blocks: Option<OwnBlocks>,
    ranges: Vec<(u64, u64)>,
}

impl SelectedBlob {
    fn of(container: &str, blob: Blob) -> Self {
        let container = container.to_owned();
        Self { container, blob, taken: None, is_unsnapped: false, blocks: None, ranges: Vec::new() }
    }

    fn path(&self) -> String {
        format!("{}/{}", self.container, self.blob.name)
    }

    fn refused(&self, why: impl Into<String>) -> Refused {
        let (snapshot, length) = (self.blob.snapshot.clone(), self.blob.length);
        Refused { path: self.path(), snapshot, length, why: why.into() }
    }

    /// Asks for what the listing does not tell: blocks or page ranges, and a snapshot of a blob in use.
    fn ask(&mut self, account: &Account, may_snapshot: bool) -> Result<(), Failure> {
        let (container, name) = (&*self.container, &*self.blob.name);
        let is_leased = self.blob.lease.as_deref().is_some_and(|state| state.eq_ignore_ascii_case("leased"));
        let wants_snapshot = is_leased && may_snapshot && self.blob.snapshot.is_none();
        let taken = match wants_snapshot.then(|| account.snapshot(container, name)).transpose() {
            // To read is enough as long as the blob does not change.
            Err(failure) if failure.is_denied() => {
                self.is_unsnapped = true;
                None
            }
            taken => taken?,
        };
        if let Some(time) = taken {
            let facts = account.facts(container, name, Some(&time))?;
            (self.blob.length, self.blob.kind) = (facts.length, facts.kind);
            (self.blob.etag, self.blob.last_modified) = (facts.etag, facts.last_modified);
            self.blob.md5 = facts.settings.md5;
            self.blob.content_type = facts.settings.content_type.unwrap_or_default();
            self.blob.content_encoding = facts.settings.content_encoding.unwrap_or_default();
            self.blob.content_language = facts.settings.content_language.unwrap_or_default();
            self.blob.cache_control = facts.settings.cache_control.unwrap_or_default();
            self.taken = Some(time);
        }
        let snapshot = self.taken.as_deref().or(self.blob.snapshot.as_deref());
        match self.blob.kind {
            BlobKind::Block if self.blob.length > 0 => {
                let blocks = account.block_list((container, name, snapshot), true)?;
                self.blocks = OwnBlocks::of(blocks, self.blob.length);
            }
            BlobKind::Page if self.blob.length > 0 => {
                let ranges = account.page_ranges((container, name, snapshot))?;
                let mut ranges: Vec<(u64, u64)> =
                    ranges.into_iter().filter(|(.., is_cleared)| !is_cleared).map(|(at, len, _)| (at, len)).collect();
                ranges.sort_unstable();
                self.ranges = ranges;
            }
            BlobKind::Block | BlobKind::Page | BlobKind::Append => {}
        }
        Ok(())
    }
}

/// Completes the items, several at once, in their order; those that are gone or cannot be read are refused.
fn asked(
    account: &Account,
    items: Vec<SelectedBlob>,
    options: Options,
) -> Result<(Vec<SelectedBlob>, Vec<Refused>), Problem> {
    let items: Vec<Mutex<(SelectedBlob, Option<Failure>)>> =
        items.into_iter().map(|item| Mutex::new((item, None))).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut item = item.lock().unwrap_or_else(PoisonError::into_inner);
            let failure = item.0.ask(account, options.may_snapshot).err();
            // An account that does not answer, or does not let us read, will not answer the next question either.
            let is_whole = failure.as_ref().is_some_and(|failure| !matches!(failure.status, Some(404 | 409 | 412)));
            item.1 = failure;
            if is_whole {
                next.store(items.len(), Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..options.requests.clamp(1, items.len().max(1)) {
            scope.spawn(work);
        }
    });
    let (mut good, mut refused) = (Vec::with_capacity(items.len()), Vec::new());
    for item in items {
        match item.into_inner().unwrap_or_else(PoisonError::into_inner) {
            (item, None) => good.push(item),
            (item, Some(failure)) => match failure.status {
                Some(404) => refused.push(item.refused("BlobUnexpectedChange: it is not there any more")),
                Some(409 | 412) => refused.push(item.refused(format!("BlobRequestFailed: {}", failure.code))),
                _ => return Err(failure.problem()),
            },
        }
    }
    Ok((good, refused))
}

/// A file of the catalog, before it has its place.
struct Planned {
    path: String,
    len: u64,
    mtime: Stamp,
    row: u32,
    file: ExportedFile,
}

/// A file, and the numbers of its properties and metadata files.
type WithSides = (Planned, Option<usize>, Option<usize>);

/// Paths of files, each once.
#[derive(Default)]
struct Names(HashSet<String>);

impl Names {
    /// `wanted`, or what is free and looks like it.
    fn take(&mut self, wanted: String) -> String {
        let mut path = wanted.clone();
        for n in 1u64.. {
            if self.0.insert(path.clone()) {
                break;
            }
            path = format!("{wanted}~{n}");
        }
        path
    }
}

fn too_many<E>(_: E) -> Problem {
    Problem::new(Kind::Usage, "the export has more names than fit one session").advice("split the list")
}

fn twice() -> Problem {
    Problem::new(Kind::Internal, "the account lists a blob twice")
}

/// Directories of a catalog by path.
#[derive(Default)]
struct Dirs(HashMap<String, u32>);

impl Dirs {
    /// The directory of a file, and its name there.
    fn of<'p>(&mut self, builder: &mut CatalogBuilder, path: &'p str) -> Result<(u32, &'p str), Problem> {
        let (dir, name) = path.rsplit_once('/').unwrap_or_default();
        if let Some(dir) = self.0.get(dir) {
            return Ok((*dir, name));
        }
        let mut at = 0;
        for segment in dir.split('/') {
            at = builder.dir(at, segment).map_err(too_many)?;
        }
        self.0.insert(dir.to_owned(), at);
        Ok((at, name))
    }
}

/// Names on the drive of the files whose own name NTFS or Windows cannot hold, by path: their properties and metadata are
/// named after them.
fn safe_names<'a>(paths: impl Iterator<Item = &'a str>) -> Result<HashMap<String, String>, Problem> {
    let mut builder = CatalogBuilder::new();
    let row = builder.row("/".into(), Some(0), Some(BlobType::Block));
    let mut dirs = Dirs::default();
    let at = Stamp { seconds: 0, nanos: 0 };
    for path in paths {
        let (dir, name) = dirs.of(&mut builder, path)?;
        builder.file(dir, name, row, ByteLen(0), [at; 2]).map_err(too_many)?;
    }
    let catalog = builder.seal_export().map_err(|_| twice())?;
    let mut safe = HashMap::new();
    let mut path = String::new();
    for file in 0..catalog.files().len() as u32 {
        if catalog.file_name(file) != catalog.file_segment(file) {
            catalog.blob_path(file, &mut path);
            safe.insert(path.clone(), catalog.file_name(file).to_owned());
        }
    }
    Ok(safe)
}

/// The catalog, and what the account said of its files in their order.
fn catalog(endpoint: &str, items: Vec<SelectedBlob>) -> Result<ListedBlobs, Problem> {
    let mut builder = CatalogBuilder::new();
    let base = format!("{}/", endpoint.trim_end_matches('/'));
    let kinds = [BlobType::Block, BlobType::Page].map(Some);
    let rows = kinds.map(|kind| builder.row(base.clone().into(), Some(0), kind));
    let planned = planned(items, rows)?;
    let mut dirs = Dirs::default();
    for (file, ..) in &planned {
        let (dir, name) = dirs.of(&mut builder, &file.path)?;
        builder.file(dir, name, file.row, ByteLen(file.len), [file.mtime; 2]).map_err(too_many)?;
    }
    let sealed = builder.seal_export();
    let catalog = sealed.map_err(|_| twice())?;
    // The catalog has an order of its own.
    let by_path: HashMap<&str, usize> = planned.iter().enumerate().map(|(i, (file, ..))| (&*file.path, i)).collect();
    let mut order = Vec::with_capacity(planned.len());
    let (mut place, mut path) = (vec![0u32; planned.len()], String::new());
    for file in 0..catalog.files().len() as u32 {
        catalog.blob_path(file, &mut path);
        let i = *by_path.get(&*path).ok_or_else(|| Problem::new(Kind::Internal, "a file of the catalog is no blob"))?;
        place[i] = file;
        order.push(i);
    }
    drop(by_path);
    let mut files: Vec<Option<ExportedFile>> = planned
        .into_iter()
        .map(|(mut planned, properties, metadata)| {
            if let ExportedFile::Blob(blob) = &mut planned.file {
                blob.properties = properties.map(|i| place[i]);
                blob.metadata = metadata.map(|i| place[i]);
            }
            Some(planned.file)
        })
        .collect();
    let files = order.into_iter().filter_map(|i| files[i].take()).collect();
    Ok(ListedBlobs { catalog, exported: Exported { endpoint: base, files } })
}

/// All files with the numbers of their properties and metadata files among them.
fn planned(items: Vec<SelectedBlob>, [blocks, pages]: [u32; 2]) -> Result<Vec<WithSides>, Problem> {
    let mut names = Names::default();
    // Blobs have the first choice.
    let mut paths: Vec<Option<String>> =
        items.iter().map(|item| item.blob.snapshot.is_none().then(|| names.take(item.path()))).collect();
    for (item, path) in items.iter().zip(&mut paths) {
        if let (None, Some(time)) = (&path, &item.blob.snapshot) {
            *path = Some(names.take(snapshot_path(&item.path(), time)));
        }
    }
    let safe = safe_names(paths.iter().flatten().map(String::as_str))?;
    let mut out: Vec<WithSides> = Vec::with_capacity(2 * items.len());
    for (item, path) in items.into_iter().zip(paths) {
        let path = path.unwrap_or_default();
        let mtime = stamp(&item.blob.last_modified);
        let on_drive = match (safe.get(&path), path.rsplit_once('/')) {
            (Some(name), Some((dir, _))) => format!("{dir}/{name}"),
            _ => path.clone(),
        };
        let mut side = |extension: &str, text: Option<String>| {
            let text = text?;
            let path = names.take(format!("{on_drive}.{extension}"));
            let (len, file) = (text.len() as u64, ExportedFile::Side(text.into()));
            out.push((Planned { path, len, mtime, row: blocks, file }, None, None));
            Some(out.len() - 1)
        };
        let properties = side(PROPERTIES, Some(properties_text(&item.blob)));
        let metadata = side(METADATA, metadata_text(&item.blob.metadata));
        let row = if item.blob.kind == BlobKind::Page { pages } else { blocks };
        let (len, blob_path) = (item.blob.length, item.path());
        let blob = ExportedBlob {
            path: blob_path,
            snapshot: item.blob.snapshot,
            taken: item.taken,
            etag: quoted(&item.blob.etag),
            last_modified: item.blob.last_modified,
            kind: match item.blob.kind {
                BlobKind::Block => ExportedKind::Block,
                BlobKind::Page => ExportedKind::Page,
                BlobKind::Append => ExportedKind::Append,
            },
            blocks: item.blocks,
            ranges: item.ranges,
            properties: None,
            metadata: None,
        };
        let file = ExportedFile::Blob(Box::new(blob));
        out.push((Planned { path, len, mtime, row, file }, properties, metadata));
    }
    Ok(out)
}

/// Path of a snapshot's file: its time before the extension, without characters that Windows refuses.
fn snapshot_path(path: &str, time: &str) -> String {
    let time = time.replace(':', "-");
    let (dir, name) = path.rsplit_once('/').unwrap_or_default();
    match name.rsplit_once('.').filter(|(stem, extension)| !stem.is_empty() && !extension.is_empty()) {
        Some((stem, extension)) => format!("{dir}/{stem} ({time}).{extension}"),
        None => format!("{dir}/{name} ({time})"),
    }
}

/// An ETag as a request wants it: listings may leave the quotes away.
fn quoted(etag: &str) -> String {
    if etag.starts_with('"') || etag.starts_with("W/") { etag.to_owned() } else { format!("\"{etag}\"") }
}

fn timestamp(last_modified: &str) -> Option<jiff::Timestamp> {
    jiff::fmt::rfc2822::parse(last_modified).ok().map(|at| at.timestamp())
}

fn stamp(last_modified: &str) -> Stamp {
    Stamp { seconds: timestamp(last_modified).map_or(0, |at| at.as_second()), nanos: 0 }
}

/// A properties file as an export has it (docs/spec/import-export.md#metadata-and-properties-xml).
fn properties_text(blob: &Blob) -> String {
    let md5 = blob.md5.map(|md5| {
        let mut out = Vec::new();
        base64::encode(&md5, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    });
    let modified = timestamp(&blob.last_modified).map_or_else(|| blob.last_modified.clone(), |at| at.to_string());
    let all = [
        ("Last-Modified", modified),
        ("Etag", blob.etag.trim_matches('"').to_owned()),
        ("Content-Length", blob.length.to_string()),
        ("Content-Type", blob.content_type.clone()),
        ("Content-MD5", md5.unwrap_or_default()),
        ("Content-Encoding", blob.content_encoding.clone()),
        ("Content-Language", blob.content_language.clone()),
        ("Cache-Control", blob.cache_control.clone()),
    ];
    let set: Vec<(String, String)> =
        all.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name.to_owned(), value)).collect();
    document("Properties", &set)
}

/// A metadata file; `None` for a blob without metadata. Names are C# identifiers, of which each is a name in XML.
fn metadata_text(metadata: &[(String, String)]) -> Option<String> {
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_alphanumeric() || c == '_')
    };
    let named: Vec<(String, String)> = metadata.iter().filter(|(name, _)| is_name(name)).cloned().collect();
    (!named.is_empty()).then(|| document("Metadata", &named))
}

fn document(root: &str, pairs: &[(String, String)]) -> String {
    let elements = properties::elements(pairs);
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{root}>\n{elements}</{root}>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(name: &str, snapshot: Option<&str>, metadata: &[(&str, &str)]) -> SelectedBlob {
        let metadata = metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let blob = Blob {
            name: name.into(),
            snapshot: snapshot.map(str::to_owned),
            length: 5,
            etag: "0x1".into(),
            last_modified: "Sun, 29 Nov 2026 08:00:00 GMT".into(),
            content_type: "text/plain".into(),
            metadata,
            ..Blob::default()
        };
        SelectedBlob::of("c", blob)
    }

    #[test]
    fn every_blob_has_a_file_of_its_own_whatever_its_name() {
        let names = ["a", "A", "a.properties", "a/b", "con", "x:y*", "dir/", "d//e", "ends.", "l.txt"];
        let mut items: Vec<SelectedBlob> = names.into_iter().map(|name| item(name, None, &[("k", "v")])).collect();
        items.push(item("l.txt", Some("2026-11-29T08:00:00.0000000Z"), &[]));
        let count = items.len();
        let ListedBlobs { catalog, exported } = catalog("http://127.0.0.1/acct/", items).expect("a catalog");
        assert_eq!(exported.endpoint, "http://127.0.0.1/acct/");
        let mut on_drive = HashSet::new();
        let mut blobs = Vec::new();
        for file in 0..catalog.files().len() as u32 {
            let mut path = String::new();
            catalog.drive_path(file, &mut path);
            assert!(on_drive.insert(path.to_uppercase()), "{path} is there twice");
            assert!(!path[1..].contains([':', '*', '/']) && !path.ends_with(['.', '\\']), "{path}");
            let Some(blob) = exported.blob(file) else { continue };
            let text = |side: Option<u32>| match side.and_then(|side| exported.files.get(side as usize)) {
                Some(ExportedFile::Side(text)) => text.to_string(),
                other => panic!("{path}: {other:?}"),
            };
            assert!(text(blob.properties).contains("<Last-Modified>2026-11-29T08:00:00Z</Last-Modified>"), "{path}");
            assert_eq!(blob.metadata.is_some(), blob.snapshot.is_none());
            if blob.metadata.is_some() {
                assert!(text(blob.metadata).contains("<Metadata>\n<k>v</k>\n</Metadata>"), "{path}");
            }
            assert_eq!(blob.etag, "\"0x1\"");
            let mut properties = String::new();
            catalog.drive_path(blob.properties.expect("properties"), &mut properties);
            // Another blob has that name already.
            if blob.path != "c/a" {
                assert_eq!(properties, format!("{path}.properties"), "{}", blob.path);
            }
            blobs.push((blob.path.clone(), blob.snapshot.clone()));
        }
        assert_eq!(blobs.len(), count);
        blobs.sort();
        blobs.dedup();
        assert_eq!(blobs.len(), count, "each blob once");
        assert!(on_drive.contains("\\C\\L (2026-11-29T08-00-00.0000000Z).TXT"), "{on_drive:?}");
        assert!(on_drive.contains("\\C\\A.PROPERTIES"));
    }
}
