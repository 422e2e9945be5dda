//! The session's plan file next to the journal: the catalog from the walk, the layout options, and the files of each
//! drive. Appended to when drives join; a checkpoint names the part of it that its drive needs.
//!
//! ```text
//! 0  8 bytes "DRAYPLAN", u32 version
//! …  sections: u8 tag, contents, u64 CRC-64/NVME of tag and contents
//!    1 recipe and catalog, once and first
//!    3 settings of a drive for Windows, only in a session that makes one
//!    4 where files are read that were found through links, if there are any
//!    5 which files are meant, how they are spread, and where they are listed, if that is not all, over the fewest drives and
//!      nowhere
//!    6 what of their sources blobs get as metadata, and of each file who it belongs to, if they do
//!    8 the ignore files, if there are any
//!    9 when the directories of a drive for Windows were modified
//!    7 what the account said of each file of an export, only in one
//!    2 drives with their files, the files on no drive yet, and drives given up; each replaces the files of the earlier
//!      one
//! ```
//!
//! The journal records its valid part, by length and digest. Data after that was never acknowledged, and is dropped; a
//! missing or changed byte before it is damage.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use crate::azure::dataset::Disposition;
use crate::azure::journal::PlanMark;
use crate::checkpoint::code::{Decoder, Encoder};
use crate::checkpoint::{CheckpointFault, Prefix};
use crate::hash::{self, Crc64, Sha256};
use crate::journal::files::sync_dir;
use crate::plan::account::Exported;
use crate::plan::catalog::Catalog;
use crate::plan::snapshot::{read_path, read_runs, read_stamp, write_path, write_runs, write_stamp};
use crate::plan::tree::{Md5Text, MetadataFrom, PropertyFile};
use crate::request::{RecoveryForm, Table, WindowsDrive};
use crate::source::select::Selection;
use crate::units::{ByteLen, FileTime};
use crate::work::append::index;
use crate::work::manifest::RowRules;
use crate::work::recipe::Recipe;
use crate::work::recipe::SavedDrive;
use crate::work::target_code::{flag, load_target, save_target};

const MAGIC: [u8; 8] = *b"DRAYPLAN";
const VERSION: u32 = 4;
const SESSION: u8 = 1;
const DRIVES: u8 = 2;
const WINDOWS: u8 = 3;
const TARGETS: u8 = 4;
const SELECTION: u8 = 5;
const METADATA: u8 = 6;
const EXPORTED: u8 = 7;
const IGNORED: u8 = 8;
const DIR_TIMES: u8 = 9;

/// A plan that was read.
#[derive(Debug)]
pub struct SavedPlan {
    /// Layout options of the drives.
    pub recipe: Recipe,
    /// All blobs of the session, as the walk saw them.
    pub catalog: Arc<Catalog>,
    /// Drives, in the order of joining; of one that joined twice the later entry.
    pub drives: Vec<SavedDrive>,
    /// Files that are on no drive yet.
    pub unplaced: Vec<u32>,
    /// Drives whose files were moved to others.
    pub given_up: Vec<String>,
    /// Valid part of the file.
    pub prefix: Prefix,
    /// Digests of its prefixes by length: one for the end of each section.
    pub prefixes: BTreeMap<u64, [u8; 32]>,
}

/// Creates the file; durable when this returns.
///
/// # Errors
/// The file cannot be written.
pub fn create(
    path: &Path,
    recipe: &Recipe,
    catalog: &Catalog,
    drives: &[SavedDrive],
    unplaced: &[u32],
) -> io::Result<Prefix> {
    let _ = fs::remove_file(path);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut out = Counted::new(BufWriter::with_capacity(1 << 20, file));
    out.write_all(&MAGIC)?;
    out.write_all(&VERSION.to_le_bytes())?;
    section(&mut out, SESSION, |to| {
        save_recipe(to, recipe);
        catalog.save(to);
    })?;
    if let Some(windows) = &recipe.windows {
        section(&mut out, WINDOWS, |to| save_windows(to, windows))?;
    }
    if catalog.has_targets() {
        section(&mut out, TARGETS, |to| catalog.save_targets(to))?;
    }
    if recipe.has_more() {
        section(&mut out, SELECTION, |to| save_selection(to, recipe))?;
    }
    if !recipe.selection.ignore_files.is_empty() {
        section(&mut out, IGNORED, |to| {
            to.u64(recipe.selection.ignore_files.len() as u64);
            recipe.selection.ignore_files.iter().for_each(|path| write_path(to, path));
        })?;
    }
    if catalog.has_dir_times() {
        section(&mut out, DIR_TIMES, |to| catalog.save_dir_times(to))?;
    }
    if !recipe.metadata.is_nothing() {
        section(&mut out, METADATA, |to| {
            let MetadataFrom { mtime, mode, owner, rows } = &recipe.metadata;
            [*mtime, *mode, *owner].into_iter().for_each(|is_set| to.u8(u8::from(is_set)));
            to.u64(rows.len() as u64);
            rows.iter().for_each(|row| to.text(row));
            catalog.save_posix(to);
        })?;
    }
    if let Some(exported) = &recipe.exported {
        section(&mut out, EXPORTED, |to| exported.save(to))?;
    }
    section(&mut out, DRIVES, |to| save_drives(to, drives, unplaced, &[]))?;
    out.finish(path)
}

/// Appends drives that join, with the files that are on no drive yet and the drives that are given up; durable when
/// this returns.
///
/// # Errors
/// The file cannot be written.
pub fn append(
    path: &Path,
    before: &Prefix,
    drives: &[SavedDrive],
    unplaced: &[u32],
    given_up: &[String],
) -> io::Result<Prefix> {
    let bytes = fs::read(path)?;
    let kept = bytes.get(..before.len as usize).ok_or(io::ErrorKind::UnexpectedEof)?;
    let file = OpenOptions::new().append(true).open(path)?;
    // A section that was cut off.
    file.set_len(before.len)?;
    let mut out = Counted::new(BufWriter::with_capacity(1 << 20, file));
    out.hash.update(kept);
    out.len = before.len;
    section(&mut out, DRIVES, |to| save_drives(to, drives, unplaced, given_up))?;
    out.finish(path)
}

/// Counts and hashes written bytes.
struct Counted<W> {
    out: W,
    hash: Sha256,
    crc: Crc64,
    len: u64,
}

impl<W: Write> Counted<W> {
    fn new(out: W) -> Self {
        Self { out, hash: Sha256::default(), crc: Crc64::new(), len: 0 }
    }
}

impl Counted<BufWriter<fs::File>> {
    fn finish(mut self, path: &Path) -> io::Result<Prefix> {
        self.out.flush()?;
        self.out.get_ref().sync_all()?;
        sync_dir(path)?;
        Ok(Prefix::of(&self.hash, self.len))
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.out.write(bytes)?;
        self.hash.update(&bytes[..len]);
        self.crc.update(&bytes[..len]);
        self.len += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn section<W: Write>(out: &mut Counted<W>, tag: u8, fill: impl FnOnce(&mut Encoder<'_>)) -> io::Result<()> {
    out.crc = Crc64::new();
    let mut to = Encoder::new(out);
    to.u8(tag);
    fill(&mut to);
    to.end()?;
    let crc = out.crc.value();
    out.write_all(&crc.to_le_bytes())
}

/// Reads the valid part of the file, given by `counts`; without that, all of it.
///
/// # Errors
/// The file cannot be read, ends too early, or is damaged in its valid part.
pub fn load(path: &Path, counts: Option<&PlanMark>) -> io::Result<SavedPlan> {
    let bytes = fs::read(path)?;
    counted(&bytes, counts)
        .and_then(|bytes| read(bytes).map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault)))
}

/// Whether reading a plan failed because another version of this program wrote it.
pub fn is_other_version(error: &io::Error) -> bool {
    let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<CheckpointFault>());
    fault.is_some_and(|fault| *fault == CheckpointFault::OTHER_VERSION)
}

/// The valid part of the file; all of it without a mark.
///
/// # Errors
/// The file is shorter than the mark, or its digest differs.
fn counted<'a>(bytes: &'a [u8], counts: Option<&PlanMark>) -> io::Result<&'a [u8]> {
    let Some(counts) = counts else { return Ok(bytes) };
    let damaged = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let counted = usize::try_from(counts.len).ok().and_then(|len| bytes.get(..len));
    let counted = counted.ok_or_else(|| {
        damaged(format!("it is damaged: {} bytes long, where the journal knows of {}", bytes.len(), counts.len))
    })?;
    if hash::sha256(counted) != counts.digest {
        return Err(damaged("it is damaged: its contents are not what the journal has the digest of".into()));
    }
    Ok(counted)
}

fn read(bytes: &[u8]) -> Result<SavedPlan, CheckpointFault> {
    let mut from = Decoder::new(bytes);
    if from.bytes::<8>()? != MAGIC {
        return Err(CheckpointFault("is no plan of a session"));
    }
    if from.u32()? != VERSION {
        return Err(CheckpointFault::OTHER_VERSION);
    }
    let (mut hash, mut hashed) = (Sha256::default(), 0usize);
    let mut mark = |from: &Decoder<'_>| {
        let end = bytes.len() - from.rest().len();
        hash.update(&bytes[hashed..end]);
        hashed = end;
        (end as u64, hash.value())
    };
    let (mut recipe, mut catalog) =
        read_section(&mut from, SESSION, |from| Ok((load_recipe(from)?, Catalog::load(from)?)))?;
    if from.rest().first() == Some(&WINDOWS) {
        recipe.windows = Some(read_section(&mut from, WINDOWS, load_windows)?);
    }
    if from.rest().first() == Some(&TARGETS) {
        read_section(&mut from, TARGETS, |from| catalog.load_targets(from))?;
    }
    if from.rest().first() == Some(&SELECTION) {
        read_section(&mut from, SELECTION, |from| load_selection(from, &mut recipe))?;
    }
    if from.rest().first() == Some(&IGNORED) {
        recipe.selection.ignore_files =
            read_section(&mut from, IGNORED, |from| (0..from.count(8)?).map(|_| read_path(from)).collect())?;
    }
    if from.rest().first() == Some(&DIR_TIMES) {
        read_section(&mut from, DIR_TIMES, |from| catalog.load_dir_times(from))?;
    }
    if from.rest().first() == Some(&METADATA) {
        recipe.metadata = read_section(&mut from, METADATA, |from| {
            let (mtime, mode, owner) = (flag(from)?, flag(from)?, flag(from)?);
            let rows = (0..from.count(8)?).map(|_| from.text()).collect::<Result<_, _>>()?;
            catalog.load_posix(from)?;
            Ok(MetadataFrom { mtime, mode, owner, rows })
        })?;
    }
    let files = catalog.files().len() as u32;
    if from.rest().first() == Some(&EXPORTED) {
        recipe.exported = Some(Arc::new(read_section(&mut from, EXPORTED, |from| Exported::load(from, files))?));
    }
    let mut prefixes = BTreeMap::from([mark(&from)]);
    let mut drives: Vec<SavedDrive> = Vec::new();
    let (mut unplaced, mut given_up): (Vec<u32>, Vec<String>) = Default::default();
    loop {
        let (more, rest, gone) = read_section(&mut from, DRIVES, |from| load_drives(from, files))?;
        for drive in more {
            drives.retain(|other| other.target.facts.drive_id != drive.target.facts.drive_id);
            given_up.retain(|id| *id != drive.target.facts.drive_id);
            drives.push(drive);
        }
        drives.retain(|drive| !gone.contains(&drive.target.facts.drive_id));
        given_up.extend(gone);
        unplaced.clone_from(&rest);
        prefixes.extend([mark(&from)]);
        if from.rest().is_empty() {
            break;
        }
    }
    let (&len, &digest) = prefixes.last_key_value().ok_or(CheckpointFault("holds nothing"))?;
    let prefix = Prefix { len, digest };
    Ok(SavedPlan { recipe, catalog: Arc::new(catalog), drives, unplaced, given_up, prefix, prefixes })
}

fn read_section<'a, T>(
    from: &mut Decoder<'a>,
    tag: u8,
    read: impl FnOnce(&mut Decoder<'a>) -> Result<T, CheckpointFault>,
) -> Result<T, CheckpointFault> {
    let start = from.rest();
    if from.u8()? != tag {
        return Err(CheckpointFault("holds a section of unknown kind"));
    }
    let value = read(from)?;
    let mut crc = Crc64::new();
    crc.update(&start[..start.len() - from.rest().len()]);
    if from.u64()? == crc.value() { Ok(value) } else { Err(CheckpointFault("has another checksum than its contents")) }
}

fn save_recipe(to: &mut Encoder<'_>, recipe: &Recipe) {
    to.text(&recipe.session);
    to.text(&recipe.cipher);
    to.option(recipe.cluster_size, Encoder::u64);
    to.u8(u8::from(recipe.table == Table::Mbr));
    to.u8(u8::from(recipe.wipe_free));
    to.u8(u8::from(recipe.drive_header_hash));
    to.option(recipe.external_key.as_deref(), write_path);
    to.u64(recipe.formatted.0);
    to.u64(recipe.properties.len() as u64);
    for file in &recipe.properties {
        write_path(to, &file.source);
        to.text(&file.name);
        to.u64(file.len.0);
        write_stamp(to, file.mtime);
        write_stamp(to, file.ctime);
    }
    to.u64(recipe.rows.len() as u64);
    for row in &recipe.rows {
        to.text(row.disposition.as_str());
        to.option(row.metadata.map(|i| i as u64), Encoder::u64);
        to.option(row.properties.map(|i| i as u64), Encoder::u64);
    }
    to.u64(recipe.md5_texts.len() as u64);
    for text in &recipe.md5_texts {
        to.text(&text.before);
        to.text(&text.after);
    }
}

fn load_recipe(from: &mut Decoder<'_>) -> Result<Recipe, CheckpointFault> {
    let (session, cipher) = (from.text()?, from.text()?);
    let cluster_size = from.option(Decoder::u64)?;
    let table = if flag(from)? { Table::Mbr } else { Table::Gpt };
    let (wipe_free, drive_header_hash) = (flag(from)?, flag(from)?);
    let external_key = from.option(read_path)?;
    let formatted = FileTime(from.u64()?);
    let mut properties = Vec::new();
    for _ in 0..from.count(48)? {
        properties.push(PropertyFile {
            source: read_path(from)?,
            name: from.text()?,
            len: ByteLen(from.u64()?),
            mtime: read_stamp(from)?,
            ctime: read_stamp(from)?,
        });
    }
    let mut rows = Vec::new();
    for _ in 0..from.count(10)? {
        let disposition = from.text()?;
        let disposition = Disposition::parse(&disposition).ok_or(CheckpointFault("holds an unknown disposition"))?;
        let mut side = || -> Result<Option<usize>, CheckpointFault> {
            let index = from.option(Decoder::u64)?.map(|i| i as usize);
            if index.is_some_and(|i| i >= properties.len()) {
                return Err(CheckpointFault("names a property file that it does not have"));
            }
            Ok(index)
        };
        rows.push(RowRules { disposition, metadata: side()?, properties: side()? });
    }
    let mut md5_texts = Vec::new();
    for _ in 0..from.count(8)? {
        md5_texts.push(Md5Text { before: from.text()?, after: from.text()? });
    }
    if !md5_texts.is_empty() && md5_texts.len() != rows.len() {
        return Err(CheckpointFault("does not say for each row how Content-MD5 is set"));
    }
    Ok(Recipe {
        session,
        cipher,
        cluster_size,
        table,
        wipe_free,
        drive_header_hash,
        external_key,
        formatted,
        properties,
        rows,
        md5_texts,
        windows: None,
        selection: Selection::default(),
        spread_evenly: false,
        list: None,
        guesses_type: false,
        metadata: MetadataFrom::default(),
        exported: None,
    })
}

fn save_selection(to: &mut Encoder<'_>, recipe: &Recipe) {
    let Selection { include, exclude, ignore_files: _, files_from, follow_inside, skip_unnameable } = &recipe.selection;
    for patterns in [include, exclude] {
        to.u64(patterns.len() as u64);
        patterns.iter().for_each(|pattern| to.text(pattern));
    }
    to.option(files_from.as_deref(), write_path);
    for is_set in [*follow_inside, *skip_unnameable, recipe.spread_evenly, recipe.guesses_type] {
        to.u8(u8::from(is_set));
    }
    to.option(recipe.list.as_deref(), write_path);
}

fn load_selection(from: &mut Decoder<'_>, recipe: &mut Recipe) -> Result<(), CheckpointFault> {
    let mut patterns =
        || -> Result<Vec<String>, CheckpointFault> { (0..from.count(8)?).map(|_| from.text()).collect() };
    let (include, exclude) = (patterns()?, patterns()?);
    let files_from = from.option(read_path)?;
    let (follow_inside, skip_unnameable) = (flag(from)?, flag(from)?);
    let ignore_files = Vec::new();
    recipe.selection = Selection { include, exclude, ignore_files, files_from, follow_inside, skip_unnameable };
    (recipe.spread_evenly, recipe.guesses_type) = (flag(from)?, flag(from)?);
    recipe.list = from.option(read_path)?;
    Ok(())
}

/// Writes the fields that a resumed session needs. The source directory is not among them: the catalog has it.
fn save_windows(to: &mut Encoder<'_>, windows: &WindowsDrive) {
    to.text(&windows.label);
    to.u8(u8::from(windows.is_plain));
    to.u8(u8::from(windows.has_password));
    write_path(to, &windows.keys);
    to.u8(u8::from(windows.recovery_form == RecoveryForm::Utf8));
}

fn load_windows(from: &mut Decoder<'_>) -> Result<WindowsDrive, CheckpointFault> {
    let label = from.text()?;
    let (is_plain, has_password) = (flag(from)?, flag(from)?);
    let keys = read_path(from)?;
    let recovery_form = if flag(from)? { RecoveryForm::Utf8 } else { RecoveryForm::Utf16 };
    Ok(WindowsDrive { from: None, label, is_plain, password_file: None, has_password, keys, recovery_form })
}

fn save_drives(to: &mut Encoder<'_>, drives: &[SavedDrive], unplaced: &[u32], given_up: &[String]) {
    to.u64(drives.len() as u64);
    for drive in drives {
        save_target(to, &drive.target);
        to.u64(drive.seed);
        write_runs(to, &drive.assigned);
        index::save(to, &drive.rows);
    }
    write_runs(to, unplaced);
    to.u64(given_up.len() as u64);
    given_up.iter().for_each(|id| to.text(id));
}

type Drives = (Vec<SavedDrive>, Vec<u32>, Vec<String>);

fn load_drives(from: &mut Decoder<'_>, files: u32) -> Result<Drives, CheckpointFault> {
    let mut drives = Vec::new();
    for _ in 0..from.count(60)? {
        let (target, seed) = (load_target(from)?, from.u64()?);
        drives.push(SavedDrive { target, seed, assigned: read_runs(from, files)?, rows: index::load(from)? });
    }
    let unplaced = read_runs(from, files)?;
    let mut given_up = Vec::new();
    for _ in 0..from.count(8)? {
        given_up.push(from.text()?);
    }
    Ok((drives, unplaced, given_up))
}
