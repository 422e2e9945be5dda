//! `dray preview-export`: the number of drives that an export needs.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Seek, Write};
use std::path::PathBuf;

use clap::Args;
use dray_account::{Account, BlobKind, Include};
use dray_engine::api;
use dray_engine::api::account::export::{Costs, Directories, Obstacle, Packed, Pieces, Room, Wanted};
use dray_engine::api::account::{BlobList, Inventory, Selection, bloblist};
use dray_engine::api::host::{OutputForm, Outputs, Pipes};
use dray_engine::report::{Kind, Problem, Problems};
use dray_engine::units::{ByteLen, ClusterSize};
use dray_service::listing::{self, Listed};
use serde_json::{Value, json};

use super::verify::lists::List;
use crate::account::AccountArgs;
use crate::exit::Exit;
use crate::render::{Output, count};

/// Longest blob list that is read.
const LIST_MAX: u64 = 1 << 30;
/// Blobs shown of those that cannot be exported.
const SHOWN_MAX: usize = 20;

/// Blobs whose block lists are asked for together, and how many requests run at once.
const ASKED_AT_ONCE: usize = 1024;
const REQUESTS: usize = 16;

const COLUMNS: [&str; 6] = ["blob", "snapshot", "length", "kind", "drive", "reason"];

/// A list as a file: it may replace an earlier one.
const FORM: OutputForm = OutputForm {
    name: "the list",
    is_earlier: |head| {
        let has = |part: &[u8]| head.windows(part.len()).any(|these| these == part);
        head.starts_with(b"blob,snapshot,") || head.starts_with(b"{\"") && has(b"\"blob\":") && has(b"\"drive\":")
    },
    private: false,
};

/// Arguments of `dray preview-export`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Exit code 0 only if everything that the list asks for is there and can be exported, else 3.\n\n\
                        The classic lines work too:\n  \
                        dray PreviewExport /sn:ACCOUNT /sk:@KEYFILE /ExportBlobListFile:list.xml /DriveSize:500GB\n  \
                        dray PreviewExport /ExportBlobListFile:list.xml /DriveSize:4TB --endpoint ACCOUNT\n\n\
                        Examples:\n  \
                        dray preview-export --blob-list list.xml --drive-size 4TB --endpoint ACCOUNT\n  \
                        dray preview-export --blob-list list.xml --drive-size 4TB --inventory inventory.csv --list where.csv"
)]
pub struct Preview {
    /// Blobs to export: a blob list with BlobPath and BlobPathPrefix, as in the job
    #[arg(long, value_name = "FILE.xml")]
    blob_list: PathBuf,
    /// Size of the drives, such as 4TB (decimal); several: one drive each, the last as often as needed
    #[arg(long, value_name = "SIZE", value_parser = size, required_unless_present = "drive", value_delimiter = ',')]
    drive_size: Vec<ByteLen>,
    /// A drive that is attached, by node or serial: its size counts, and no other drives are added
    #[arg(long, value_name = "DRIVE", conflicts_with = "drive_size")]
    drive: Vec<String>,
    /// A Blob Inventory (CSV) instead of the account itself: nothing leaves this machine
    #[arg(long, value_name = "FILE.csv", conflicts_with = "endpoint", required_unless_present = "endpoint")]
    inventory: Option<PathBuf>,
    /// Snapshots of the blobs too
    #[arg(long)]
    snapshots: bool,
    /// Ask for the block list of every block blob, one request each, and count manifests by them
    #[arg(long, requires = "endpoint", conflicts_with = "inventory")]
    block_lists: bool,
    /// Every blob and its drive, as JSON lines or CSV by the name's end
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    #[command(flatten)]
    account: AccountArgs,
}

fn size(text: &str) -> Result<ByteLen, String> {
    api::prepare::parse_size(text)
        .filter(|size| size.0 >= 1 << 30)
        .ok_or_else(|| "use a size such as 500GB, 4TB or 1.5 TB".into())
}

/// A blob that was selected.
struct PreviewedBlob {
    path: String,
    snapshot: Option<String>,
    length: u64,
    kind: &'static str,
    is_archived: bool,
    metadata: Option<u64>,
}

impl PreviewedBlob {
    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            path: &self.path,
            snapshot: self.snapshot.as_deref(),
            length: self.length,
            is_pages: self.kind == BlobKind::Page.word(),
            metadata: self.metadata,
            is_archived: self.is_archived,
        }
    }

    /// The most pieces that it can have. Appended blocks have no ids: they are listed by 4 MiB, whatever their lengths.
    fn at_most(&self) -> Pieces<'static> {
        if self.kind == BlobKind::Append.word() { Pieces::Known(None) } else { Pieces::Most }
    }

    /// Whether it may have a block list that a manifest follows.
    fn has_blocks(&self) -> bool {
        self.kind == BlobKind::Block.word() && self.length > 0 && self.wanted().obstacle().is_none()
    }
}

/// The blobs found, in bounded memory: eight bytes a blob, and a file on disk where names are requested.
struct Gathered {
    cluster: ClusterSize,
    largest: u64,
    costs: Costs,
    /// What they take if their blocks are as short as can be; `None` where their blocks are known.
    most: Option<Costs>,
    dirs: Directories,
    blobs: u64,
    bytes: u64,
    refused: BTreeMap<String, (u64, u64)>,
    shown: Vec<(String, String)>,
    spool: Option<BufWriter<File>>,
}

impl Gathered {
    /// Takes a blob, with its cost where its blocks are known.
    fn add(&mut self, found: &PreviewedBlob, known: Option<u64>) -> Result<(), Problem> {
        let wanted = found.wanted();
        let cost = known.unwrap_or_else(|| wanted.cost(self.cluster, Pieces::Reckoned));
        let too_large = (cost > self.largest).then_some(Obstacle::TooLarge);
        let obstacle = wanted.obstacle().or(too_large);
        let reason = obstacle.map(words);
        let mut counted = 0;
        match &reason {
            None => {
                self.blobs += 1;
                self.bytes += found.length;
                self.dirs.add(&found.path);
                counted = self.costs.add(cost);
                if let Some(most) = &mut self.most {
                    most.add(wanted.cost(self.cluster, found.at_most()));
                }
            }
            Some(reason) => {
                let sum = self.refused.entry(group(obstacle)).or_default();
                sum.0 += 1;
                sum.1 += found.length;
                if self.shown.len() < SHOWN_MAX {
                    self.shown.push((found.path.clone(), reason.clone()));
                }
            }
        }
        if let Some(spool) = &mut self.spool {
            let row = json!({
                "blob": found.path, "snapshot": found.snapshot, "length": found.length, "kind": found.kind, "reason": reason,
            });
            writeln!(spool, "{counted}\t{row}").map_err(spooled)?;
        }
        Ok(())
    }
}

fn spooled(error: std::io::Error) -> Problem {
    Problem::new(Kind::Environment, format!("the list cannot be kept while it is made: {error}"))
        .advice("make room in the directory of the list")
}

/// An obstacle in words.
fn words(obstacle: Obstacle) -> String {
    match obstacle {
        Obstacle::Archived => "is in the archive tier: rehydrate it first".into(),
        Obstacle::TooLarge => "is larger than the room of one drive".into(),
        Obstacle::TrailingSlash => "its name ends in a slash".into(),
        Obstacle::Name(problem) => format!("a part of its name {problem}"),
    }
}

/// The kind of obstacle, for sums.
fn group(obstacle: Option<Obstacle>) -> String {
    match obstacle {
        Some(Obstacle::Name(_)) => "has a name that Windows cannot write".into(),
        Some(other) => words(other),
        None => String::new(),
    }
}

/// As the documented output writes sizes.
fn decimal(bytes: u64) -> String {
    if bytes >= 1_000_000_000_000 {
        format!("{:.2} TB", bytes as f64 / 1e12)
    } else {
        format!("{:.2} GB", bytes as f64 / 1e9)
    }
}

impl Preview {
    /// Lists, packs and tells.
    pub fn run(self, output: &Output) -> Exit {
        match self.preview(output) {
            Ok(exit) => exit,
            Err(problems) => {
                output.problems(&problems);
                Exit::of_problems(&problems)
            }
        }
    }

    /// Sizes of the drives, and whether there are more of the last.
    fn sizes(&self) -> Result<(Vec<(ByteLen, String)>, bool), Problems> {
        if self.drive.is_empty() {
            return Ok((self.drive_size.iter().map(|size| (*size, "--drive-size".to_owned())).collect(), true));
        }
        let disks = api::measure::disks(&api::host::Roots::default(), true);
        let mut problems = Problems::default();
        let mut sizes = Vec::new();
        for name in &self.drive {
            let node = std::fs::canonicalize(name).ok();
            let is_it = |disk: &&api::measure::Seen| {
                node.as_ref().is_some_and(|node| *node == disk.path)
                    || disk.identity.known_serial().is_some_and(|serial| serial.eq_ignore_ascii_case(name))
            };
            // An image is as large as it is long.
            let image = std::fs::metadata(name).ok().filter(std::fs::Metadata::is_file).map(|meta| ByteLen(meta.len()));
            match disks.iter().find(is_it).map(|disk| disk.identity.size).or(image) {
                Some(size) => sizes.push((size, name.clone())),
                None => problems.push(
                    Problem::new(Kind::Usage, "is no drive that is attached")
                        .column("--drive")
                        .value(name.clone())
                        .advice("`dray devices` lists them; --drive-size takes sizes alone"),
                ),
            }
        }
        problems.into_result().map(|()| (sizes, false))
    }

    fn preview(self, output: &Output) -> Result<Exit, Problems> {
        let mut problems = Problems::default();
        let list = self.blob_list().map_err(|more| problems.0.extend(more.0)).ok();
        let (sizes, is_endless) = self.sizes().unwrap_or_else(|more| {
            problems.0.extend(more.0);
            (Vec::new(), false)
        });
        let mut rooms = Vec::new();
        for (size, name) in &sizes {
            match Room::of(*size) {
                Ok(room) => rooms.push(room),
                Err(error) => problems
                    .push(Problem::new(Kind::Usage, error.to_string()).column(name.clone()).value(size.to_string())),
            }
        }
        let mut outputs = Outputs::default();
        outputs.input(&self.blob_list, "the blob list");
        self.inventory.iter().for_each(|path| outputs.input(path, "the inventory"));
        self.account.files().for_each(|path| outputs.input(path, "the credential"));
        let named = self.list.as_deref().map(|path| List::of(path, &mut outputs, &COLUMNS, FORM)).transpose();
        let named = named.map_err(|problem| problems.push(problem)).ok().flatten();
        let account = self.account.open(None).map_err(|problem| problems.push(problem)).ok().flatten();
        problems.into_result()?;
        let Some(list) = list else { return Ok(Exit::Usage) };
        list.warnings.iter().for_each(|warning| output.note(warning));

        let mut gathered = Gathered {
            cluster: rooms.iter().map(|room| room.cluster).max().unwrap_or(ClusterSize::MAX),
            largest: rooms.iter().map(|room| room.free.0).max().unwrap_or(0),
            costs: Costs::default(),
            most: (!self.block_lists).then(Costs::default),
            dirs: Directories::default(),
            blobs: 0,
            bytes: 0,
            refused: BTreeMap::new(),
            shown: Vec::new(),
            spool: if named.is_some() { Some(self.spool()?) } else { None },
        };
        let mut selection = Selection::new(&list.selectors);
        let working = output.working();
        let mut seen = 0u64;
        let mut note = || {
            seen += 1;
            if seen.is_multiple_of(1000) {
                working.show(|| format!("listing blobs: {seen}"), "listing_blobs", || json!({ "blobs": seen }));
            }
        };
        match (&account, &self.inventory) {
            (Some(account), _) if self.block_lists => {
                self.ask_for_blocks(account, &mut selection, &mut gathered, &mut note)?;
            }
            (Some(account), _) => {
                self.ask(account, &mut selection, &mut |found| gathered.add(&found, None), &mut note)?;
            }
            (None, Some(path)) => {
                self.read(path, &mut selection, &mut |found| gathered.add(&found, None), &mut note)?;
            }
            (None, None) => return Err(Problem::new(Kind::Internal, "neither account nor inventory").into()),
        }
        drop(working);
        let nonexistent = selection.nonexistent();
        let (costs, dirs) = (std::mem::take(&mut gathered.costs), gathered.dirs.count);
        let packed = costs.pack(&rooms, is_endless, dirs);
        let most = gathered.most.take().map(|most| most.pack(&rooms, is_endless, dirs));
        if let Some(named) = named {
            write_list(named, &mut gathered, &packed)?;
        }
        let is_whole = nonexistent.is_empty() && gathered.refused.is_empty() && packed.left_over == 0;
        let exit = if is_whole { Exit::Done } else { Exit::LeftOut };
        let most = most.map(|most| (most.drives.len().max(packed.drives.len()), most.left_over));
        tell(output, &list, &nonexistent, &sizes, &rooms, &gathered, &packed, most, exit);
        Ok(exit)
    }

    fn blob_list(&self) -> Result<BlobList, Problems> {
        let failed = |error: std::io::Error| {
            Problem::new(Kind::Usage, format!("the blob list cannot be read: {error}")).path(&self.blob_list)
        };
        let bytes = api::host::read_input(&self.blob_list, LIST_MAX, Pipes::Taken).map_err(failed)?;
        bloblist::read(&self.blob_list, &bytes[..])
    }

    /// A file without a name, where the list will be: what is needed of it at the end is gone with the program.
    fn spool(&self) -> Result<BufWriter<File>, Problem> {
        use rustix::fs::{Mode, OFlags, open};
        let dir = self.list.as_deref().and_then(|path| path.parent()).filter(|dir| !dir.as_os_str().is_empty());
        let places = [dir.map_or_else(|| PathBuf::from("."), PathBuf::from), std::env::temp_dir()];
        let mut last = None;
        for place in places {
            match open(&place, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR) {
                Ok(file) => return Ok(BufWriter::with_capacity(1 << 20, File::from(file))),
                Err(error) => last = Some(error),
            }
        }
        Err(spooled(last.map_or_else(|| std::io::Error::other("no place"), Into::into)))
    }

    fn read(
        &self,
        path: &std::path::Path,
        selection: &mut Selection,
        each: &mut dyn FnMut(PreviewedBlob) -> Result<(), Problem>,
        seen: &mut dyn FnMut(),
    ) -> Result<(), Problems> {
        let failed = |error| Problem::new(Kind::Usage, format!("the inventory cannot be read: {error}")).path(path);
        let file = api::host::open_input(path, Pipes::Taken).map_err(failed)?;
        let mut inventory = Inventory::new(path, BufReader::with_capacity(1 << 20, file))?;
        while let Some(blob) = inventory.next_blob()? {
            if blob.snapshot.is_some() && !self.snapshots {
                continue;
            }
            let kind = blob.kind.as_deref().and_then(BlobKind::parse).unwrap_or_default();
            let is_archived = blob.tier.as_deref().is_some_and(|tier| tier.eq_ignore_ascii_case("archive"));
            let found = PreviewedBlob {
                path: blob.path,
                snapshot: blob.snapshot,
                length: blob.length,
                kind: kind.word(),
                is_archived,
                // Not every inventory tells: room for it is kept.
                metadata: Some(0),
            };
            seen();
            if selection.takes(&found.path) {
                each(found)?;
            }
        }
        Ok(())
    }

    fn ask(
        &self,
        account: &Account,
        selection: &mut Selection,
        each: &mut dyn FnMut(PreviewedBlob) -> Result<(), Problem>,
        seen: &mut dyn FnMut(),
    ) -> Result<(), Problems> {
        let include = Include { snapshots: self.snapshots, metadata: true };
        listing::selected(account, selection, include, seen, &mut |container, blob| {
            let metadata: u64 = blob.metadata.iter().map(|(name, value)| (name.len() + value.len()) as u64).sum();
            let tier = blob.tier.as_deref().unwrap_or_default();
            each(PreviewedBlob {
                path: format!("{container}/{}", blob.name),
                snapshot: blob.snapshot,
                length: blob.length,
                kind: blob.kind.word(),
                is_archived: tier.eq_ignore_ascii_case("archive"),
                metadata: (!blob.metadata.is_empty()).then_some(metadata),
            })
        })
    }
}

impl Preview {
    /// As [`Self::ask`], with the block list of each block blob.
    fn ask_for_blocks(
        &self,
        account: &Account,
        selection: &mut Selection,
        gathered: &mut Gathered,
        seen: &mut dyn FnMut(),
    ) -> Result<(), Problems> {
        let mut waiting: Vec<PreviewedBlob> = Vec::new();
        self.ask(
            account,
            selection,
            &mut |found| {
                waiting.push(found);
                if waiting.len() < ASKED_AT_ONCE { Ok(()) } else { add_known(account, &mut waiting, gathered) }
            },
            seen,
        )?;
        Ok(add_known(account, &mut waiting, gathered)?)
    }
}

/// Takes blobs, in their order, with what their blocks cost.
fn add_known(account: &Account, blobs: &mut Vec<PreviewedBlob>, gathered: &mut Gathered) -> Result<(), Problem> {
    let cluster = gathered.cluster;
    let asked: Vec<&PreviewedBlob> = blobs.iter().filter(|found| found.has_blocks()).collect();
    let named: Vec<Listed> = asked
        .iter()
        .map(|found| Listed { path: found.path.clone(), snapshot: found.snapshot.clone(), length: found.length })
        .collect();
    let costs = listing::with_blocks(account, &named, REQUESTS, &|at, own| {
        asked[at].wanted().cost(cluster, Pieces::Known(own))
    })?;
    let mut costs = costs.into_iter();
    for found in blobs.drain(..) {
        let asked = if found.has_blocks() { costs.next() } else { None };
        let cost = asked.unwrap_or_else(|| found.wanted().cost(cluster, Pieces::Known(None)));
        gathered.add(&found, Some(cost))?;
    }
    Ok(())
}

/// Drive of each blob, in the order in which they were found.
fn write_list(mut list: List, gathered: &mut Gathered, packed: &Packed) -> Result<(), Problem> {
    let Some(spool) = gathered.spool.take() else { return list.finish() };
    let mut file = spool.into_inner().map_err(|error| spooled(error.into_error()))?;
    file.rewind().map_err(spooled)?;
    let mut runs: HashMap<u64, VecDeque<(Option<usize>, u64)>> = HashMap::new();
    for run in &packed.runs {
        runs.entry(run.cost).or_default().push_back((run.drive, run.count));
    }
    for line in BufReader::with_capacity(1 << 20, file).lines() {
        let line = line.map_err(spooled)?;
        let (cost, row) = line.split_once('\t').unwrap_or_default();
        let mut row: Value = serde_json::from_str(row).unwrap_or_default();
        let cost: u64 = cost.parse().unwrap_or(0);
        let mut drive = None;
        if row["reason"].is_null()
            && let Some(queue) = runs.get_mut(&cost)
            && let Some((place, left)) = queue.front_mut()
        {
            drive = *place;
            *left -= 1;
            if *left == 0 {
                queue.pop_front();
            }
            if drive.is_none() {
                row["reason"] = "has no room on the drives".into();
            }
        }
        row["drive"] = drive.map(|drive| drive + 1).into();
        list.row(&row)?;
    }
    list.finish()
}

/// What the reckoning takes for granted, and how far off it can be.
fn assumed(packed: &Packed, most: Option<(usize, u64)>) -> String {
    let Some((drives, left_over)) = most else {
        return "Manifests are counted by the block lists of the account\n".into();
    };
    let bound = if drives == packed.drives.len() && left_over == packed.left_over {
        "shorter ones would change neither the number of drives nor what has room".to_owned()
    } else if left_over > packed.left_over {
        format!("if all were as short as can be, {} would have no room", count(left_over, "blob"))
    } else {
        format!("if all were as short as can be, {} would be needed", count(drives as u64, "drive"))
    };
    format!("Manifests are reckoned by blocks of 4 MiB; {bound} (--block-lists asks the account)\n")
}

#[allow(clippy::too_many_arguments, reason = "every part of the result is printed here")]
fn tell(
    output: &Output,
    list: &BlobList,
    nonexistent: &[String],
    sizes: &[(ByteLen, String)],
    rooms: &[Room],
    gathered: &Gathered,
    packed: &Packed,
    most: Option<(usize, u64)>,
    exit: Exit,
) {
    let refused: u64 = gathered.refused.values().map(|(blobs, _)| blobs).sum();
    let drives = packed.drives.iter().enumerate().map(|(at, drive)| {
        json!({
            "drive": at + 1, "size": drive.room.size.0, "room": drive.room.free.0, "blobs": drive.blobs,
            "occupied": drive.occupied,
        })
    });
    let value = json!({
        "unique": list.selectors.len(),
        "duplicate": list.duplicates,
        "nonexistent": nonexistent,
        "drive_sizes": sizes.iter().map(|(size, _)| size.0).collect::<Vec<_>>(),
        "rooms": rooms.iter().map(|room| room.free.0).collect::<Vec<_>>(),
        "blobs": gathered.blobs - packed.left_over,
        "bytes": gathered.bytes,
        "cannot": refused + packed.left_over,
        "reasons": gathered.refused.iter().map(|(reason, (blobs, bytes))| {
            json!({ "reason": reason, "blobs": blobs, "bytes": bytes })
        }).collect::<Vec<_>>(),
        "left_over": packed.left_over,
        "drives": drives.collect::<Vec<_>>(),
        "block_lists": most.is_none(),
        "drives_at_most": most.map_or(packed.drives.len(), |(drives, _)| drives),
        "left_over_at_most": most.map_or(packed.left_over, |(_, left_over)| left_over),
        "exit_code": exit.code(),
    });
    if output.result("preview", value) {
        return;
    }
    let sizes: Vec<String> = sizes.iter().map(|(size, _)| decimal(size.0)).collect();
    let mut text = format!(
        "Number of unique blob paths/prefixes:   {}\nNumber of duplicate blob paths/prefixes:        {}\n\
         Number of nonexistent blob paths/prefixes:      {}\n\nDrive size:     {}\n\
         Number of blobs that can be exported:   {}\nNumber of blobs that cannot be exported:        {}\n\
         Number of drives needed:        {}\n",
        list.selectors.len(),
        list.duplicates,
        nonexistent.len(),
        sizes.join(", "),
        gathered.blobs - packed.left_over,
        refused + packed.left_over,
        packed.drives.len()
    );
    for (at, drive) in packed.drives.iter().enumerate() {
        text.push_str(&format!(
            "        Drive #{}:       blobs = {}, occupied space = {}\n",
            at + 1,
            drive.blobs,
            decimal(drive.occupied)
        ));
    }
    output.say(&text);
    let mut more = String::new();
    let mut usable: Vec<(u64, u64)> = rooms.iter().map(|room| (room.size.0, room.free.0)).collect();
    usable.dedup();
    for (size, free) in usable {
        more.push_str(&format!("\nRoom on a drive of {}: {} after NTFS and BitLocker", decimal(size), decimal(free)));
    }
    more.push_str(&format!("\n{}", assumed(packed, most)));
    for path in nonexistent.iter().take(SHOWN_MAX) {
        more.push_str(&format!("  nonexistent: {}\n", crate::render::clean(path)));
    }
    for (reason, (blobs, bytes)) in &gathered.refused {
        more.push_str(&format!("  cannot be exported: {} of {}: {reason}\n", count(*blobs, "blob"), decimal(*bytes)));
    }
    for (path, reason) in &gathered.shown {
        more.push_str(&format!("    {}: {reason}\n", crate::render::clean(path)));
    }
    if packed.left_over > 0 {
        more.push_str(&format!("  no room on the drives: {}\n", count(packed.left_over, "blob")));
    }
    output.chat(&more);
}
