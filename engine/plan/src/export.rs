//! The number of empty drives that an export needs: the space of each blob, and first fit by decreasing size.
//!
//! The room of a drive is the free space of our own layout. With each blob the service writes a properties file, a
//! metadata file if the blob has metadata, and an entry in the manifest
//! (docs/spec/import-export.md#the-returned-export-drive). The service's own packing is not documented.

use std::sync::Arc;

use crate::account::{HashBlocks, OwnBlocks};
use crate::azure::manifest::{self, BlobFacts, Layout, SideFile};
use crate::azure::names;
use crate::catalog::Builder;
use crate::drive::{DriveError, DriveLayout, DriveSpec, Frame, MANIFEST_NAME};
use crate::gpt;
use crate::ntfs::names::{NameProblem, problem, problem_in_root};
use crate::tree::DriveTree;
use crate::units::{ByteLen, ClusterSize, FileTime, Guid, SectorSize};

/// A properties file: eight elements, of which the type may be long.
const PROPERTIES_LEN: u64 = 700;
/// Characters of a block's id where nothing says them: the clients of Microsoft write a UUID in base64.
const ID_LEN: u64 = 48;
/// Characters of the longest id that a block can have: 64 bytes in base64.
const ID_LEN_MAX: u64 = 88;
/// A file record, which every file has, and its entry in the index of its directory with what that leaves unused.
const RECORD_LEN: u64 = 1024;
/// The first bytes of an index entry; the name follows, two bytes a unit, and all once more for what splits leave empty.
const INDEX_LEN: u64 = 2 * 82;
/// The manifest's own head, and room for what grows in steps.
const HEAD_LEN: u64 = 1 << 20;
/// Share of a drive that may be kept for directories that are on every drive.
const DIRS_SHARE: u64 = 100;

/// An empty drive, and what is left of it for blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes of the drive.
    pub size: ByteLen,
    /// Bytes that its empty file system has free.
    pub free: ByteLen,
    /// Its clusters.
    pub cluster: ClusterSize,
}

impl Room {
    /// The room of an empty drive of `size` bytes as Windows would format it, BitLocker and NTFS set apart.
    ///
    /// # Errors
    /// When it is too small for any.
    pub fn of(size: ByteLen) -> Result<Self, DriveError> {
        let spec = DriveSpec {
            len: size,
            sector: SectorSize::S512,
            scheme: gpt::Scheme::Gpt,
            guids: gpt::Guids { disk: Guid([0; 16]), msr: Guid([0; 16]), data: Guid([0; 16]) },
            cluster: None,
            serial: 1,
            label: String::new(),
            formatted: FileTime(0),
            wipe_free: false,
            encrypted: true,
            manifest: Some(MANIFEST_NAME.into()),
        };
        let catalog = Arc::new(Builder::new().seal(0).unwrap_or_else(|_| unreachable!("nothing is there twice")));
        let layout = DriveLayout::new(Frame::new(spec)?, DriveTree::none(catalog, "", FileTime(0)), ByteLen(HEAD_LEN))?;
        let cluster = layout.layout().cluster();
        Ok(Self { size, free: cluster.len_of(layout.layout().free_clusters()), cluster })
    }
}

/// Reason why a blob cannot be exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// It lies in the archive, and has to be fetched from there first.
    Archived,
    /// No drive has room for it.
    TooLarge,
    /// Its name ends in a slash or backslash.
    TrailingSlash,
    /// A part of its name is none that Windows can write.
    Name(NameProblem),
}

/// What is known of the pieces that a blob's entry in the manifest lists.
#[derive(Clone, Copy, Debug)]
pub enum Pieces<'a> {
    /// Nothing: blocks and page ranges of 4 MiB.
    Reckoned,
    /// The most that the blob can have: as many blocks as there are at most, with the longest ids.
    Most,
    /// The blob's own blocks, or none that a manifest can list. Page ranges as an export keeps room for them.
    Known(Option<&'a OwnBlocks>),
}

/// A blob, in so far as it takes room.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// `container/name`.
    pub path: &'a str,
    /// Time of the snapshot, if it is one.
    pub snapshot: Option<&'a str>,
    /// Bytes.
    pub length: u64,
    /// Pages, not blocks.
    pub is_pages: bool,
    /// Bytes of its metadata, names and values; `None` if it has none.
    pub metadata: Option<u64>,
    /// In the archive.
    pub is_archived: bool,
}

impl Wanted<'_> {
    /// Obstacle in its name or location.
    pub fn obstacle(&self) -> Option<Obstacle> {
        if self.path.ends_with(['/', '\\']) {
            return Some(Obstacle::TrailingSlash);
        }
        let mut parts = self.path.split('/');
        let bad = parts.next().and_then(problem_in_root).or_else(|| parts.find_map(problem));
        if let Some(bad) = bad {
            return Some(Obstacle::Name(bad));
        }
        self.is_archived.then_some(Obstacle::Archived)
    }

    /// Bytes that it takes on a drive of such clusters: an upper bound, but for what `pieces` does not know.
    pub fn cost(&self, cluster: ClusterSize, pieces: Pieces<'_>) -> u64 {
        let whole = |len: u64| cluster.len_of(cluster.count_for(ByteLen(len))).0;
        let name = self.path.rsplit('/').next().unwrap_or_default().len() as u64;
        let metadata = self.metadata.map(|len| len + 200);
        let sides = 1 + u64::from(metadata.is_some());
        let entry = self.entry(pieces);
        let time = self.snapshot.map_or(0, |time| time.len() as u64 + 3);
        let index = |extra: u64| INDEX_LEN + 4 * (name + time + extra);
        whole(self.length)
            + whole(PROPERTIES_LEN)
            + metadata.map_or(0, whole)
            + (1 + sides) * RECORD_LEN
            + index(0)
            + sides * index(".properties".len() as u64)
            + entry
    }

    /// Bytes of its entry in the manifest.
    fn entry(&self, pieces: Pieces<'_>) -> u64 {
        let file_path = match self.snapshot {
            Some(time) => format!("\\{} ({time})", self.path),
            None => format!("\\{}", self.path),
        };
        let (properties, metadata) = (format!("{file_path}.properties"), format!("{file_path}.metadata"));
        let side = |path| SideFile { path, hash: [0; 16] };
        let (layout, id_len) = self.layout(pieces);
        manifest::blob_xml_len(&BlobFacts {
            blob_path: self.path,
            file_path: &file_path,
            length: self.length,
            layout,
            disposition: None,
            snapshot: self.snapshot,
            id_len_max: Some(id_len),
            metadata: self.metadata.map(|_| side(&metadata)),
            properties: Some(side(&properties)),
        })
    }

    /// Pieces that its entry lists, and the length of their ids.
    fn layout(&self, pieces: Pieces<'_>) -> (Layout, u64) {
        let even = Layout::Blocks {
            block_len: names::blocks_of(ByteLen(self.length)).map_or(names::BLOCK_LEN_MAX, |blocks| blocks.len),
        };
        match pieces {
            Pieces::Reckoned => (even, ID_LEN),
            Pieces::Most | Pieces::Known(_) if self.is_pages => (Layout::Pages, 0),
            Pieces::Most => (Layout::Listed { count: self.length.min(names::BLOCKS_MAX) }, ID_LEN_MAX),
            Pieces::Known(None) => (even, manifest::COUNTER_ID_LEN),
            Pieces::Known(Some(own)) => {
                let cut = HashBlocks::own(self.length, own);
                let layout = match cut.even_len() {
                    Some(block_len) => Layout::Blocks { block_len },
                    None => Layout::Listed { count: cut.count() },
                };
                (layout, own.ids().iter().map(|id| id.len() as u64).max().unwrap_or(0))
            }
        }
    }
}

/// Bytes of a directory: its record, and an index that is split once.
pub fn dir_cost(cluster: ClusterSize) -> u64 {
    RECORD_LEN + 2 * cluster.bytes().max(4096) + INDEX_LEN + 4 * 64
}

/// Counts the directories of paths that come in order: those that the path before had not.
#[derive(Clone, Debug, Default)]
pub struct Directories {
    before: String,
    /// So far.
    pub count: u64,
}

impl Directories {
    /// Takes the next path.
    pub fn add(&mut self, path: &str) {
        let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
        let mut old = self.before.split('/').filter(|part| !part.is_empty());
        let mut is_same = true;
        for part in dir.split('/').filter(|part| !part.is_empty()) {
            is_same = is_same && old.next() == Some(part);
            self.count += u64::from(!is_same);
        }
        if self.before != dir {
            self.before.clear();
            self.before.push_str(dir);
        }
    }
}

/// A drive of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filled {
    /// The drive.
    pub room: Room,
    /// Blobs on it.
    pub blobs: u64,
    /// Bytes that they take.
    pub occupied: u64,
}

/// Equal blobs that went onto one drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EqualBlobs {
    /// Bytes that each takes.
    pub cost: u64,
    /// Number of drives.
    pub count: u64,
    /// Index of the drive; `None`: onto none.
    pub drive: Option<usize>,
}

/// Result of packing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Drives that are needed, in the order in which they are filled.
    pub drives: Vec<Filled>,
    /// Blobs that have no room on the drives there are.
    pub left_over: u64,
    /// Drive of each blob, by descending size.
    pub runs: Vec<EqualBlobs>,
}

/// Costs of blobs: four bytes each, in half sectors; what is larger apart.
#[derive(Clone, Debug, Default)]
pub struct Costs {
    small: Vec<u32>,
    large: Vec<u64>,
}

/// A cost is rounded up to it.
const UNIT: u64 = 256;

impl Costs {
    /// Adds a blob; gives its cost as it is counted.
    pub fn add(&mut self, cost: u64) -> u64 {
        let units = cost.div_ceil(UNIT);
        match u32::try_from(units) {
            Ok(small) => self.small.push(small),
            Err(_) => self.large.push(units),
        }
        units * UNIT
    }

    /// Spreads them over drives: `rooms` in their order, the last again and again if `is_endless`. `dirs`: directories that
    /// every drive may need.
    pub fn pack(mut self, rooms: &[Room], is_endless: bool, dirs: u64) -> Packed {
        let mut out = Packed::default();
        let mut left: Vec<u64> = Vec::new();
        let usable = |room: &Room| {
            let kept = dirs.saturating_mul(dir_cost(room.cluster)).min(room.free.0 / DIRS_SHARE);
            room.free.0 - kept
        };
        self.small.sort_unstable_by(|a, b| b.cmp(a));
        self.large.sort_unstable_by(|a, b| b.cmp(a));
        let all = self.large.iter().copied().chain(self.small.iter().map(|&units| u64::from(units)));
        // Drives before this one have no room for the smallest that came so far.
        let (mut first, mut last) = (0, u64::MAX);
        let mut opened = 0;
        for units in all {
            let cost = units * UNIT;
            if cost < last {
                (first, last) = (0, cost);
            }
            let mut place = (first..left.len()).find(|&i| left[i] >= cost);
            first = place.unwrap_or(left.len());
            while place.is_none() {
                let next = rooms.get(opened).or(rooms.last().filter(|_| is_endless));
                let Some(room) = next else { break };
                // A drive that is too small for this one may do for others: it is taken all the same.
                if opened >= rooms.len() && usable(room) < cost {
                    break;
                }
                opened += 1;
                left.push(usable(room));
                out.drives.push(Filled { room: *room, blobs: 0, occupied: 0 });
                if usable(room) >= cost {
                    place = Some(left.len() - 1);
                    first = left.len() - 1;
                }
            }
            match place {
                Some(i) => {
                    left[i] -= cost;
                    out.drives[i].blobs += 1;
                    out.drives[i].occupied += cost;
                }
                None => out.left_over += 1,
            }
            match out.runs.last_mut() {
                Some(run) if run.cost == cost && run.drive == place => run.count += 1,
                _ => out.runs.push(EqualBlobs { cost, count: 1, drive: place }),
            }
        }
        // A drive of the list that nothing went onto is not needed.
        if out.drives.iter().any(|drive| drive.blobs == 0) {
            let mut number = Vec::new();
            let mut count = 0;
            for drive in &out.drives {
                number.push(count);
                count += usize::from(drive.blobs > 0);
            }
            out.runs.iter_mut().for_each(|run| run.drive = run.drive.map(|drive| number[drive]));
            out.drives.retain(|drive| drive.blobs > 0);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TB: u64 = 1_000_000_000_000;

    fn wanted(path: &str, length: u64) -> Wanted<'_> {
        Wanted { path, snapshot: None, length, is_pages: false, metadata: None, is_archived: false }
    }

    #[test]
    fn a_drive_has_nearly_all_of_its_room() {
        for size in [500_000_000_000, TB, 4 * TB, 18 * TB] {
            let room = Room::of(ByteLen(size)).expect("a drive");
            let lost = size - room.free.0;
            assert!(lost > 64 << 20 && lost < size / 500, "{size}: {lost} of it lost");
        }
        assert!(Room::of(ByteLen(1 << 20)).is_err());
    }

    #[test]
    fn what_cannot_be_exported_is_known() {
        for (path, obstacle) in [
            ("pictures/a.jpg", None),
            ("$root/logo.bmp", None),
            ("c/a/", Some(Obstacle::TrailingSlash)),
            ("c/a\\", Some(Obstacle::TrailingSlash)),
        ] {
            assert_eq!(wanted(path, 1).obstacle(), obstacle, "{path}");
        }
        for path in ["c/a:b", "c/d*/x", "c/q?", "c/dir./x", "c/tab\tx"] {
            assert!(matches!(wanted(path, 1).obstacle(), Some(Obstacle::Name(_))), "{path}");
        }
        let archived = Wanted { is_archived: true, ..wanted("c/a", 1) };
        assert_eq!(archived.obstacle(), Some(Obstacle::Archived));
    }

    #[test]
    fn what_the_manifest_lists_is_counted_by_what_is_known_of_it() {
        let cost = |blob: Wanted<'_>, pieces| blob.cost(ClusterSize::MAX, pieces);
        let blob = wanted("c/a", 100_000);
        let lens = |count: u64| (0..count).map(|i| (format!("{i:064}"), 100_000 / count)).collect::<Vec<_>>();
        let own = OwnBlocks::of(lens(10_000), 100_000);
        let known = cost(blob, Pieces::Known(own.as_ref()));
        let none = cost(blob, Pieces::Known(None));
        // Tags, offset, length and hash, and 64 characters of id.
        let listed = (known - none) / 9_999;
        assert!((140..160).contains(&listed), "{listed} bytes a block");
        let (reckoned, most) = (cost(blob, Pieces::Reckoned), cost(blob, Pieces::Most));
        assert!(none <= reckoned && reckoned < known && known < most, "{none} {reckoned} {known} {most}");
        // Not more blocks than bytes.
        let small = wanted("c/a", 1);
        assert!(cost(small, Pieces::Most) - cost(small, Pieces::Reckoned) < 100);
        let pages = Wanted { is_pages: true, ..wanted("c/a", 8 << 20) };
        assert_eq!(cost(pages, Pieces::Most), cost(pages, Pieces::Known(None)));
        // 1024 ranges in place of two, as every other 4 KiB may be zero: each has tags, hash, offset and length.
        let ranges = (cost(pages, Pieces::Most) - cost(pages, Pieces::Reckoned)) / 1022;
        assert!((85..95).contains(&ranges), "{ranges} bytes a range");
    }

    #[test]
    fn directories_are_counted_once_in_order() {
        let mut dirs = Directories::default();
        for path in ["c/a", "c/b", "c/d/e/x", "c/d/f/x", "c/d/f/y", "other/x", "other"] {
            dirs.add(path);
        }
        // c, d, e, f, other.
        assert_eq!(dirs.count, 5);
    }

    #[test]
    fn the_largest_go_first_and_drives_are_opened_when_they_are_needed() {
        let room = |free: u64| Room { size: ByteLen(free), free: ByteLen(free), cluster: ClusterSize::MAX };
        let pack = |costs: &[u64], rooms: &[Room], is_endless| {
            let mut all = Costs::default();
            for cost in costs {
                all.add(*cost);
            }
            all.pack(rooms, is_endless, 0)
        };
        let mib = |n: u64| n << 20;
        let packed = pack(&[mib(3), mib(60), mib(40), mib(50), mib(50)], &[room(mib(100))], true);
        let sums: Vec<(u64, u64)> = packed.drives.iter().map(|drive| (drive.blobs, drive.occupied)).collect();
        assert_eq!(sums, [(2, mib(100)), (2, mib(100)), (1, mib(3))]);
        let counts: u64 = packed.runs.iter().map(|run| run.count).sum();
        assert_eq!((counts, packed.left_over), (5, 0));
        // A list of drives ends; a drive that holds nothing is not named.
        let packed = pack(&[mib(60), mib(60), mib(60)], &[room(mib(10)), room(mib(100)), room(mib(100))], false);
        assert_eq!((packed.drives.len(), packed.left_over), (2, 1));
        assert!(packed.runs.iter().all(|run| run.drive.is_none_or(|drive| drive < 2)));
        assert_eq!(pack(&[mib(200)], &[room(mib(100))], true).left_over, 1);
        let huge = pack(&[5 * TB, 1000], &[room(8 * TB)], true);
        assert_eq!((huge.drives.len(), huge.drives[0].blobs), (1, 2));
    }
}
