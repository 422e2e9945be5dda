//! A session on a drive that holds a volume already: the pipeline of an append.
//!
//! `copy` writes file data into clusters that were free; [`commit`] makes them part of the volume so that a crash in
//! between is completed or undone. The manifest, which lists all sessions, is written anew into free clusters and
//! replaces the existing one. A plain volume is encrypted first, in place: [`encrypt`].

pub mod commit;
mod copy;
pub mod drive;
pub mod earlier;
pub mod encrypt;
pub mod existing;
pub mod index;
pub mod run;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use commit::{Store, refused};

use crate::azure::manifest as xml;
use crate::azure::manifest::ManifestStream;
use crate::checkpoint::Prefix;
use crate::hash::{Md5, Sha256};
use crate::ntfs::append::{Append, AppendSpec, Refusal, root_stream};
use crate::ntfs::build::{LeftOut, LinearRange, Outcome, RootFile, Times, Tree};
use crate::ntfs::read::{Stream, Volume};
use crate::plan::batches::{FilePacker, Packed};
use crate::plan::drive::MANIFEST_NAME;
use crate::plan::tree::DriveTree;
use crate::pool::{Pool, SLOT_LEN};
use crate::report::{Event, Kind, PROGRESS_INTERVAL, Problem, Region, RegionKind, Stage, Stop, Waiting};
use crate::request::Pace;
use crate::stream::rate_limit::RateLimit;
use crate::stream::workers::Workers;
use crate::units::{ByteLen, Clusters, FileTime, Lcn, VolumeOffset, VolumeRange};
use crate::volume::find::{Opened, View};
use crate::work::drive::{Durable, Save};
use crate::work::manifest::{self, Rules};
use crate::work::outcome::{OutcomeLog, Replay};

/// Range before a manifest's end in which its last element is searched for.
const TAIL: u64 = 4096;
/// Text after the lists of a manifest.
const LISTS_END: &[u8] = b"</Drive>";

/// Range at a manifest's start in which the drive's id is searched for.
const HEAD: u64 = 4096;

/// Parameters of an addition: files, and the volume.
#[derive(Clone, Copy, Debug)]
pub struct Addition<'a> {
    /// Name of the drive in messages.
    pub name: &'a str,
    /// The volume, unlocked.
    pub opened: &'a Opened,
    /// Ranges of the volume reserved for other purposes.
    pub avoid: &'a [VolumeRange],
    /// The session's files.
    pub tree: &'a DriveTree,
    /// The parts of the manifest other than the hashes.
    pub rules: &'a Rules,
    /// Upper bound of the length of the session's own manifest.
    pub manifest_len_max: u64,
    /// The session's time.
    pub now: FileTime,
}

/// Reason why nothing is added.
#[derive(Debug)]
pub enum Refused {
    /// There is not enough room.
    TooFull {
        /// Room needed.
        needed: ByteLen,
        /// Room available.
        free: ByteLen,
    },
    /// Any other reason, as a problem.
    Problem(Problem),
}

impl Refused {
    /// The refusal as a problem of the drive of this name.
    pub fn problem(self, drive: &str) -> Problem {
        match self {
            Self::TooFull { needed, free } => refused(&Refusal::TooFull { needed, free }, drive),
            Self::Problem(problem) => problem,
        }
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// An addition under way.
#[allow(missing_debug_implementations, reason = "holds a callback")]
pub struct AdditionJob<'a> {
    /// Index in the session's plan.
    pub index: usize,
    /// Files and volume.
    pub what: Addition<'a>,
    /// Interval between checkpoints.
    pub pace: Pace,
    /// Directories and files named in the dataset, which may disappear as a whole.
    pub bases: &'a [PathBuf],
    /// The directory of the journal, with checkpoints and logs.
    pub beside: &'a Path,
    /// Limit on the rate of reading sources.
    pub rate_limit: &'a RateLimit,
    /// The shared workers.
    pub workers: &'a Workers,
    /// Whether free clusters are overwritten.
    pub wipe_free: bool,
    /// Receives events.
    pub events: &'a (dyn Fn(Event) + Sync),
    /// Stop request.
    pub stop: &'a Stop,
}

/// An append that passed every check; nothing has been written.
#[derive(Debug)]
pub struct Planned {
    append: Append,
    /// The existing manifest, and the number of its bytes that are kept.
    old: Option<(Stream, u64)>,
}

/// A drive that holds the session's files: everything is durable.
#[derive(Debug)]
pub struct Appended {
    /// Files of the dataset on it.
    pub files: u64,
    /// Bytes of those files.
    pub data: ByteLen,
    /// Bytes written in all.
    pub written: ByteLen,
    /// MD5 of the manifest.
    pub manifest_md5: [u8; 16],
    /// The images of old and new contents, as written.
    pub images: Prefix,
    /// Files left out, by tree index.
    #[cfg_attr(not(test), expect(dead_code, reason = "the session reads them from the outcome log"))]
    pub left_out: BTreeMap<u32, String>,
    /// Progress of file data, and the present outcome log.
    pub durable: Durable,
}

impl Planned {
    /// SHA-256 of the placement of file data and of their division into batches: copied data stays valid as long as it
    /// is the same.
    pub fn digest(&self, tree: &DriveTree) -> [u8; 32] {
        let mut hash = Sha256::default();
        let mut word = |word: u64| hash.update(&word.to_le_bytes());
        let data = self.append.data_space();
        let cluster = self.append.volume().geometry().cluster;
        word(cluster.bytes());
        for extent in data.extents(LinearRange { start: 0, len: data.len() }) {
            word(extent.lcn.0);
            word(extent.len.0);
        }
        for Packed { parts, len, .. } in FilePacker::new(tree, cluster, SLOT_LEN) {
            word(len as u64);
            for part in [parts.first(), parts.last()].into_iter().flatten() {
                word(part.file.into());
                word(part.offset);
            }
        }
        hash.value()
    }

    /// Free space before, and the most of it that is taken.
    pub fn room(&self) -> (ByteLen, ByteLen) {
        (self.append.free_len(), self.append.taken_len())
    }

    /// Bytes of the clusters for file data.
    pub fn data_len(&self) -> ByteLen {
        self.append.volume().geometry().cluster.len_of(self.append.data_space().len())
    }

    /// Bytes of a cluster.
    pub fn cluster(&self) -> u64 {
        self.append.volume().geometry().cluster.bytes()
    }

    /// Number of a session's lists in the existing manifest.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn lists_of(&self, opened: &Opened, session: &str) -> Result<u32, Problem> {
        let Some((stream, keep)) = &self.old else { return Ok(0) };
        let wanted = format!("<BlobList Id=\"{session}-");
        let (mut count, mut at, mut window) = (0, 0, Vec::new());
        while at < *keep {
            let len = (*keep - at).min(1 << 20) as usize;
            let from = window.len();
            window.resize(from + len, 0);
            let read = self.append.volume().read_range(&mut View(opened), stream, at, &mut window[from..]);
            read.map_err(|error| refused(&error.into(), &opened.found.drive.name))?;
            at += len as u64;
            count += window.windows(wanted.len()).filter(|window| *window == wanted.as_bytes()).count() as u32;
            window.drain(..window.len().saturating_sub(wanted.len() - 1));
        }
        Ok(count)
    }

    /// Bytes of the existing manifest.
    pub fn earlier_manifest(&self) -> Option<u64> {
        self.old.as_ref().map(|(stream, _)| stream.size())
    }

    /// Ranges of the files and of the manifest, in bytes of the device, with their purpose.
    pub fn places(&self, opened: &Opened) -> Vec<Region> {
        let cluster = self.append.volume().geometry().cluster;
        let data = self.append.data_space();
        let data = data.extents(LinearRange { start: 0, len: data.len() });
        let files = data.map(|extent| (cluster.offset_of(extent.lcn), cluster.len_of(extent.len)));
        let manifest = self.append.root_file_places(0).map(|place| (place.start, place.len));
        let region = |(start, len): (VolumeOffset, ByteLen), kind, name: &str| Region {
            start: opened.device_offset(start),
            len,
            kind,
            name: name.to_owned(),
        };
        let files = files.map(|place| region(place, RegionKind::Files, "files"));
        files.chain(manifest.map(|place| region(place, RegionKind::Manifest, "manifest"))).collect()
    }

    /// Whether all bytes of the device in `range` are in clusters that were free, for tests.
    #[cfg(test)]
    fn is_free(&self, opened: &Opened, range: crate::units::DeviceRange) -> bool {
        let cluster = self.append.volume().geometry().cluster;
        let free = self.append.free_extents(&mut View(opened)).expect("a bitmap");
        free.iter().any(|extent| {
            let (start, len) = (cluster.offset_of(extent.lcn), cluster.len_of(extent.len));
            let stored = opened.stored(start, len).expect("free clusters can be written to");
            stored.iter().any(|stored| stored.at <= range.start && range.end() <= stored.at + ByteLen(stored.len))
        })
    }
}

impl Addition<'_> {
    /// Plans the append. Writes nothing.
    ///
    /// # Errors
    /// The reason why the volume is left unchanged.
    pub fn plan(&self) -> Result<Planned, Refused> {
        let mut view = View(self.opened);
        let refuse = |refusal| match refusal {
            Refusal::TooFull { needed, free } => Refused::TooFull { needed, free },
            refusal => Refused::Problem(refused(&refusal, self.name)),
        };
        if let Some(why) = self.opened.unwritable() {
            let problem = Problem::new(Kind::Refused, why).drive(self.name);
            return Err(problem
                .advice("finish that first: Windows what it began, --resume what a session began")
                .into());
        }
        let volume = Volume::open(&mut view, self.opened.len()).map_err(|error| refuse(error.into()))?;
        if volume.geometry().cluster.bytes() < self.opened.unit() {
            let what = "the volume's clusters are smaller than the drive's sectors";
            return Err(Problem::new(Kind::Refused, what).drive(self.name).into());
        }
        if let Some(file) = self.tree.split_clusters(volume.geometry().cluster) {
            let problem = Problem::new(Kind::Refused, "has hash blocks that are not whole clusters of the volume");
            return Err(problem
                .path(self.tree.source_path(file))
                .drive(self.name)
                .advice("put it on a drive that is formatted, with clusters of at most 1 MiB")
                .into());
        }
        let name: Vec<u16> = MANIFEST_NAME.encode_utf16().collect();
        let old = match root_stream(&volume, &mut view, &name).map_err(|error| refuse(error.into()))? {
            Some(stream) => Some(self.lists_end(&volume, stream)?),
            None => None,
        };
        let spec = AppendSpec {
            avoid: self.opened.hidden().into_iter().chain(self.avoid.iter().copied()).collect(),
            unit: self.opened.unit(),
            root_files: vec![RootFile {
                name: MANIFEST_NAME.into(),
                len_max: ByteLen(self.manifest_len_max + old.as_ref().map_or(0, |(_, keep)| *keep)),
                times: Times::all(self.now),
            }],
            hidden: None,
            now: self.now,
        };
        let append = Append::plan(volume, &mut view, spec, self.tree).map_err(refuse)?;
        Ok(Planned { append, old })
    }

    /// End of the lists in the existing manifest. It must be this drive's.
    fn lists_end(&self, volume: &Volume, stream: Stream) -> Result<(Stream, u64), Problem> {
        let piece = |from: u64, len: u64| {
            let mut piece = vec![0; len as usize];
            let read = volume.read_range(&mut View(self.opened), &stream, from, &mut piece);
            read.map(|_| piece).map_err(|error| refused(&error.into(), self.name))
        };
        let head = piece(0, stream.size().min(HEAD))?;
        let head = String::from_utf8_lossy(&head);
        let named = head.split_once("<DriveId>").and_then(|(_, rest)| rest.split_once("</DriveId>"));
        if let Some((named, _)) = named
            && !xml::is_drive_id(named, &self.rules.drive_id)
        {
            let problem = Problem::new(Kind::Refused, format!("{MANIFEST_NAME} on the volume is another drive's"));
            let problem = problem.drive(self.name).value(named.trim());
            return Err(problem.advice("name this drive so with --drive-id, or move the file away"));
        }
        let from = stream.size().saturating_sub(TAIL);
        let tail = piece(from, stream.size() - from)?;
        let end = tail.windows(LISTS_END.len()).rposition(|window| window == LISTS_END);
        match end {
            Some(end) => Ok((stream, from + end as u64)),
            None => Err(Problem::new(Kind::Refused, format!("{MANIFEST_NAME} on the volume is no manifest"))
                .drive(self.name)
                .advice("move it away, or use another drive")),
        }
    }
}

impl AdditionJob<'_> {
    /// Copies the files missing in `replay`, and prepares everything for becoming part of the volume: when this
    /// returns, the sidecar is complete. `sidecar` is open for reading and writing; its contents are ignored.
    ///
    /// # Errors
    /// A problem that names drive, place and operation; the volume is unchanged.
    pub fn copy(
        &self,
        planned: &Planned,
        store: &mut Store<'_>,
        pool: &Pool,
        log: (OutcomeLog, Replay),
        save: &mut Save<'_>,
        sidecar: &mut File,
    ) -> Result<Appended, Problem> {
        let (tree, name) = (self.what.tree, self.what.name);
        let side = |error: io::Error| {
            Problem::new(Kind::Environment, format!("the hash log next to the journal failed: {error}")).drive(name)
        };
        let mut copied = copy::copy(self, &planned.append, store, pool, log, save)?;
        (self.events)(Event::Stage { drive: self.index, stage: Stage::Metadata });
        let (unwritten, reader) = (copied.unwritten, copied.log.reader().map_err(side)?);
        let mut own = manifest::stream(tree, self.what.rules, unwritten.clone(), copied.property_hashes, reader);
        let (manifest_md5, images) = self.finish(planned, store, &mut own, unwritten, sidecar)?;
        let blobs = (0..tree.blob_count()).filter(|file| !copied.left_out.contains_key(file));
        let (files, data) = blobs.fold((0, 0), |(n, bytes), file| (n + 1, bytes + tree.file(file).len.0));
        let (data, written) = (ByteLen(data), ByteLen(store.written()));
        let durable = copied.durable;
        Ok(Appended { files, data, written, manifest_md5, images, left_out: copied.left_out, durable })
    }

    /// Writes the manifest, and prepares everything for becoming part of the volume; returns the manifest's MD5, and
    /// the sidecar's length and digest.
    ///
    /// # Errors
    /// As [`AdditionJob::copy`].
    pub fn finish(
        &self,
        planned: &Planned,
        store: &mut Store<'_>,
        own: &mut ManifestStream<'_>,
        left_out: LeftOut,
        sidecar: &mut File,
    ) -> Result<([u8; 16], Prefix), Problem> {
        if self.wipe_free {
            self.wipe(planned, store)?;
        }
        let (len, md5) = self.write_manifest(planned, store, own)?;
        let outcome = Outcome { left_out, root_file_lens: vec![len] };
        let images = commit::prepare(self.what.opened, store, &planned.append, self.what.tree, &outcome, sidecar)?;
        Ok((md5, images))
    }

    /// Writes zeros to every cluster that was free and received no file data. Before the manifest and metadata:
    /// clusters that they turn out not to need are free too. Clusters that the session frees are kept until then, for
    /// undoing, and are encrypted already.
    fn wipe(&self, planned: &Planned, store: &mut Store<'_>) -> Result<(), Problem> {
        let Addition { name, opened, .. } = self.what;
        (self.events)(Event::Stage { drive: self.index, stage: Stage::FreeSpace });
        let append = &planned.append;
        let cluster = append.volume().geometry().cluster;
        let free = append.unused_extents(&mut View(opened)).map_err(|error| refused(&error.into(), name))?;
        let total = cluster.len_of(Clusters(free.iter().map(|run| run.len.0).sum()));
        let zeros = vec![0; (cluster.bytes() as usize).max(1 << 20)];
        let (mut done, mut reported) = (0, Instant::now());
        for run in free {
            let (mut at, end) = (cluster.offset_of(run.lcn).0, cluster.offset_of(Lcn(run.lcn.0 + run.len.0)).0);
            while at < end {
                if self.stop.requested() {
                    store.flush()?;
                    return Err(Problem::new(Kind::Interrupted, "stopped on request").drive(name).advice(
                        "the volume is what it was before; continue with `--resume`, or roll back with `--abort`",
                    ));
                }
                let len = (end - at).min(zeros.len() as u64);
                let sealed = opened.seal(VolumeOffset(at), &zeros[..len as usize]).map_err(|error| {
                    Problem::new(Kind::Internal, format!("a place that cannot be written to: {error}"))
                })?;
                for (place, bytes) in sealed {
                    store.write(place, &bytes)?;
                }
                (at, done) = (at + len, done + len);
                if reported.elapsed() < PROGRESS_INTERVAL && done < total.0 {
                    continue;
                }
                reported = Instant::now();
                let (acknowledged, waiting_for) = (ByteLen(done), Waiting::Drive);
                (self.events)(Event::Progress { drive: self.index, acknowledged, total, files: 0, waiting_for });
            }
        }
        store.flush()
    }

    fn write_manifest(
        &self,
        planned: &Planned,
        store: &mut Store<'_>,
        own: &mut ManifestStream<'_>,
    ) -> Result<(ByteLen, [u8; 16]), Problem> {
        let Addition { name, opened, rules, .. } = self.what;
        let side = |error: io::Error| {
            Problem::new(Kind::Environment, format!("the hash log next to the journal failed: {error}")).drive(name)
        };
        let mut kept = planned.old.as_ref().map_or(0, |(_, keep)| *keep);
        if kept > 0 {
            // The head is there already.
            let mut head = vec![0; xml::header(&rules.drive_id, env!("CARGO_PKG_VERSION")).len()];
            own.fill(&mut head).map_err(side)?;
        }
        let cluster = planned.append.volume().geometry().cluster.bytes() as usize;
        // Whole clusters: bytes after the end of the manifest would otherwise be unencrypted, in a cluster that is in
        // use.
        let piece_len = (cluster as u64).max(1 << 20);
        let mut md5 = Md5::new();
        let (mut len, mut at) = (0, 0);
        for place in planned.append.root_file_places(0) {
            let mut done = 0;
            while done < place.len.0 {
                let room = (place.len.0 - done).min(piece_len) as usize;
                let mut piece = vec![0; room];
                let mut filled = 0;
                if let Some((stream, _)) = planned.old.as_ref().filter(|_| kept > 0) {
                    filled = kept.min(room as u64) as usize;
                    planned
                        .append
                        .volume()
                        .read_range(&mut View(opened), stream, at, &mut piece[..filled])
                        .map_err(|error| refused(&error.into(), name))?;
                    kept -= filled as u64;
                    at += filled as u64;
                }
                if kept == 0 {
                    filled += own.fill(&mut piece[filled..]).map_err(side)?;
                }
                md5.update(&piece[..filled]);
                len += filled as u64;
                if filled > 0 {
                    piece.truncate(filled.next_multiple_of(cluster));
                    let at = place.start + ByteLen(done);
                    let sealed = opened.seal(at, &piece).map_err(|error| {
                        Problem::new(Kind::Internal, format!("a place that cannot be written to: {error}"))
                    })?;
                    for (at, bytes) in sealed {
                        store.write(at, &bytes)?;
                    }
                }
                if filled < room {
                    return Ok((ByteLen(len), md5.finish()));
                }
                done += room as u64;
            }
        }
        Ok((ByteLen(len), md5.finish()))
    }
}
