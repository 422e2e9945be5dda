//! A session on a drive that holds a volume already: the pipeline of an append.
//!
//! `copy` brings file data into clusters that were free; [`commit`] makes them part of the volume so that a crash in
//! between is finished or taken back. The manifest, which tells of all sessions, is written anew into free clusters and
//! replaces the one that was there.

pub mod commit;
mod copy;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;

use commit::{Store, refused};

use crate::azure::manifest as xml;
use crate::hash::Md5;
use crate::ntfs::append::{Append, AppendSpec, root_stream};
use crate::ntfs::build::{LeftOut, Outcome, RootFile, Times, Tree};
use crate::ntfs::read::{Stream, Volume};
use crate::plan::drive::MANIFEST_NAME;
use crate::plan::tree::DriveTree;
use crate::pool::Pool;
use crate::prep::manifest::{self, ManifestStream, PropertyHashes, Rules};
use crate::prep::outcome::{HashReader, OutcomeLog};
use crate::prep::workers::Workers;
use crate::report::{Event, Kind, Problem, Stage, Stop};
use crate::units::{ByteLen, FileTime};
use crate::verify::find::{Opened, View};

/// How far before a manifest's end its last element is looked for.
const TAIL: u64 = 4096;
/// What stands behind the lists of a manifest.
const LISTS_END: &[u8] = b"</Drive>";

/// What is to be added, and with what.
#[allow(missing_debug_implementations, reason = "holds a callback")]
pub struct Job<'a> {
    /// Index in the session's plan.
    pub index: usize,
    /// The drive, as a person names it.
    pub name: &'a str,
    /// The volume, unlocked.
    pub opened: &'a Opened,
    /// The session's files.
    pub tree: &'a DriveTree,
    /// What the manifest says beside the hashes.
    pub rules: &'a Rules,
    /// The session's time.
    pub now: FileTime,
    /// The shared workers.
    pub workers: &'a Workers,
    /// Where news goes.
    pub events: &'a (dyn Fn(Event) + Sync),
    /// Asked to stop?
    pub stop: &'a Stop,
}

/// An append that passed every check; nothing has been written.
#[derive(Debug)]
pub struct Planned {
    append: Append,
    /// The manifest that is there, and how many bytes of it stay.
    old: Option<(Stream, u64)>,
}

/// A drive that has the session's files: everything is durable.
#[derive(Debug)]
pub struct Appended {
    /// Files of the dataset on it.
    pub files: u64,
    /// Their bytes.
    pub data: ByteLen,
    /// Bytes written in all.
    pub written: ByteLen,
    /// MD5 of the manifest.
    pub manifest_md5: [u8; 16],
    /// Files left out, by tree index.
    pub left_out: BTreeMap<u32, String>,
}

impl Planned {
    /// Whether all bytes of the device in `range` lie in clusters that were free, for tests.
    #[cfg(test)]
    fn is_free(&self, opened: &Opened, range: crate::units::ByteRange) -> bool {
        let cluster = self.append.volume().geometry().cluster;
        let free = self.append.free_extents(&mut View(opened)).expect("a bitmap");
        free.iter().any(|extent| {
            let (start, len) = (cluster.offset_of(extent.lcn), cluster.len_of(extent.len));
            let stored = opened.stored(start, len).expect("free clusters can be written to");
            stored.iter().any(|stored| stored.at <= range.start && range.end().0 <= stored.at.0 + stored.len)
        })
    }
}

impl Job<'_> {
    /// Plans the append. Writes nothing.
    ///
    /// # Errors
    /// Why the volume is left as it is.
    pub fn plan(&self) -> Result<Planned, Problem> {
        let mut view = View(self.opened);
        let refuse = |refusal| refused(&refusal, self.name);
        if let Some(why) = self.opened.unwritable() {
            return Err(Problem::new(Kind::Refused, why).drive(self.name).advice("let Windows finish that first"));
        }
        let volume = Volume::open(&mut view, self.opened.len()).map_err(|error| refuse(error.into()))?;
        if volume.geometry().cluster.bytes() < self.opened.unit() {
            let what = "the volume's clusters are smaller than the drive's sectors";
            return Err(Problem::new(Kind::Refused, what).drive(self.name));
        }
        let name: Vec<u16> = MANIFEST_NAME.encode_utf16().collect();
        let old = match root_stream(&volume, &mut view, &name).map_err(|error| refuse(error.into()))? {
            Some(stream) => Some(self.lists_end(&volume, stream)?),
            None => None,
        };
        let own = manifest::len_max(self.tree, self.rules).0;
        let spec = AppendSpec {
            avoid: self.opened.hidden(),
            unit: self.opened.unit(),
            root_files: vec![RootFile {
                name: MANIFEST_NAME.into(),
                len_max: ByteLen(own + old.as_ref().map_or(0, |(_, keep)| *keep)),
                times: Times::all(self.now),
            }],
            now: self.now,
        };
        let append = Append::plan(volume, &mut view, spec, self.tree).map_err(refuse)?;
        Ok(Planned { append, old })
    }

    /// Where the lists of the manifest that is there end.
    fn lists_end(&self, volume: &Volume, stream: Stream) -> Result<(Stream, u64), Problem> {
        let from = stream.size().saturating_sub(TAIL);
        let mut tail = vec![0; (stream.size() - from) as usize];
        volume
            .read_range(&mut View(self.opened), &stream, from, &mut tail)
            .map_err(|error| refused(&error.into(), self.name))?;
        let end = tail.windows(LISTS_END.len()).rposition(|window| window == LISTS_END);
        match end {
            Some(end) => Ok((stream, from + end as u64)),
            None => Err(Problem::new(Kind::Refused, format!("{MANIFEST_NAME} on the volume is no manifest"))
                .drive(self.name)
                .advice("move it away, or use another drive")),
        }
    }

    /// Copies the files, and has everything ready to become part of the volume: when this returns, the sidecar is whole.
    /// `hashes` and `sidecar` are empty files, open for reading and writing.
    ///
    /// # Errors
    /// A problem that names drive, place and operation; the volume is what it was.
    pub fn copy(
        &self,
        planned: &Planned,
        store: &mut Store<'_>,
        pool: &Pool,
        hashes: File,
        sidecar: &mut File,
    ) -> Result<Appended, Problem> {
        let tree = self.tree;
        let stage = |stage| (self.events)(Event::Stage { drive: self.index, stage });
        stage(Stage::Data);
        let side = |error: io::Error| {
            Problem::new(Kind::Environment, format!("the hash log beside the journal failed: {error}")).drive(self.name)
        };
        let mut log = OutcomeLog::new(hashes);
        let copied = copy::copy(self, &planned.append, store, pool, &mut log)?;
        if let Some((file, why)) = copied.left_out.range(tree.blob_count()..).next() {
            return Err(Problem::new(Kind::Source, format!("a metadata or properties file could not be used: {why}"))
                .path(tree.source_path(*file))
                .drive(self.name)
                .advice("every blob of its row needs it: mend it and start the session again"));
        }
        stage(Stage::Metadata);
        let left_out = LeftOut::new(copied.left_out.keys().copied().collect());
        let reader = log.reader().map_err(side)?;
        let (len, manifest_md5) =
            self.write_manifest(planned, store, left_out.clone(), copied.property_hashes, reader)?;
        let outcome = Outcome { left_out, root_file_lens: vec![len] };
        commit::prepare(self.opened, store, &planned.append, tree, &outcome, sidecar)?;
        let blobs = (0..tree.blob_count()).filter(|file| !copied.left_out.contains_key(file));
        let (files, data) = blobs.fold((0, 0), |(n, bytes), file| (n + 1, bytes + tree.file(file).len.0));
        let (data, written) = (ByteLen(data), ByteLen(store.written()));
        Ok(Appended { files, data, written, manifest_md5, left_out: copied.left_out })
    }

    fn write_manifest(
        &self,
        planned: &Planned,
        store: &mut Store<'_>,
        left_out: LeftOut,
        property_hashes: PropertyHashes,
        hashes: HashReader,
    ) -> Result<(ByteLen, [u8; 16]), Problem> {
        let mut own = ManifestStream::new(self.tree, self.rules, left_out, property_hashes, hashes);
        let side = |error: io::Error| {
            Problem::new(Kind::Environment, format!("the hash log beside the journal failed: {error}")).drive(self.name)
        };
        let mut kept = planned.old.as_ref().map_or(0, |(_, keep)| *keep);
        if kept > 0 {
            // The head is there already.
            let mut head = vec![0; xml::header(&self.rules.drive_id, env!("CARGO_PKG_VERSION")).len()];
            own.fill(&mut head).map_err(side)?;
        }
        let cluster = planned.append.volume().geometry().cluster.bytes() as usize;
        let mut md5 = Md5::new();
        let (mut len, mut at) = (0, 0);
        for place in planned.append.root_file_places(0) {
            let mut done = 0;
            while done < place.len.0 {
                let room = (place.len.0 - done).min(1 << 20) as usize;
                let mut piece = vec![0; room];
                let mut filled = 0;
                if let Some((stream, _)) = planned.old.as_ref().filter(|_| kept > 0) {
                    filled = kept.min(room as u64) as usize;
                    planned
                        .append
                        .volume()
                        .read_range(&mut View(self.opened), stream, at, &mut piece[..filled])
                        .map_err(|error| refused(&error.into(), self.name))?;
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
                    let at = crate::units::ByteOffset(place.start.0 + done);
                    let sealed = self.opened.seal(at, &piece).map_err(|error| {
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
