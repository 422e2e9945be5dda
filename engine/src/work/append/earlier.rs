//! Warns of blobs that a drive's manifest lists already: a session that lists them again makes two of one name.
//!
//! The service then follows the disposition of the later one (docs/spec/import-export.md#manifest-grammar): `rename`
//! keeps both, the second under another name; `overwrite` keeps one; `no-overwrite` skips the second. Since 2.2.0.300
//! imports always overwrite. Each may be intended, as when a changed file is sent again: so it gives a warning and is
//! not refused.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io::BufReader;

use crate::azure::dataset::Disposition;
use crate::azure::manifest::{self, Event};
use crate::azure::names;
use crate::ntfs::append::root_stream;
use crate::plan::drive::MANIFEST_NAME;
use crate::report::{Kind, Problem, counted};
use crate::volume::files;
use crate::volume::find::View;
use crate::work::append::existing::ExistingVolume;

/// Most blobs named in a warning.
const NAMED_MAX: usize = 3;

/// Bytes of one read of a manifest.
const READ_LEN: usize = 1 << 20;

/// The blobs of a session, by hashes of their paths.
#[derive(Debug, Default)]
pub struct Session {
    blobs: Vec<Known>,
}

/// A blob of the session. Names that may be treated as the same ([`names::fold`]) have the same `folded`.
#[derive(Clone, Copy, Debug)]
struct Known {
    folded: u64,
    /// Hash of the exact path: distinguishes names with the same `folded`.
    exact: u32,
    disposition: Disposition,
}

fn hashes(path: &str) -> (u64, u32) {
    (hash(&names::fold(path)), hash(path) as u32)
}

fn hash(path: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

impl Session {
    /// Whether there are no blobs yet.
    pub const fn is_empty(&self) -> bool {
        self.blobs.is_empty()
    }

    /// Adds a blob: its whole path, container first.
    pub fn add(&mut self, path: &str, disposition: Disposition) {
        let (folded, exact) = hashes(path);
        self.blobs.push(Known { folded, exact, disposition });
    }

    /// Warnings of blobs listed in a drive's manifest already; one for each disposition. An unreadable manifest is
    /// ignored here: the plan refuses it.
    pub fn doubled(&mut self, there: &ExistingVolume) -> Vec<Problem> {
        self.blobs.sort_unstable_by_key(|known| known.folded);
        let mut found: BTreeMap<Option<&str>, (u64, Vec<String>)> = BTreeMap::new();
        let _ = each_blob(there, |path| {
            let (folded, exact) = hashes(&path);
            let first = self.blobs.partition_point(|known| known.folded < folded);
            let mut same = self.blobs[first..].iter().take_while(|known| known.folded == folded).peekable();
            if same.peek().is_some() {
                let is_it = same.find(|known| known.exact == exact);
                let (count, named) = found.entry(is_it.map(|known| known.disposition.as_str())).or_default();
                *count += 1;
                if named.len() < NAMED_MAX {
                    named.push(path);
                }
            }
        });
        let warning = |(disposition, (count, named)): (Option<&str>, (u64, Vec<String>))| match disposition {
            Some(disposition) => warning(there, disposition, count, &named),
            None => fold_warning(there, count, &named),
        };
        found.into_iter().map(warning).collect()
    }
}

fn warning(there: &ExistingVolume, disposition: &str, count: u64, named: &[String]) -> Problem {
    let what = match count {
        1 => "a blob of this session is in the drive's manifest already, from an earlier session".to_owned(),
        _ => format!("{count} blobs of this session are in the drive's manifest already, from earlier sessions"),
    };
    let does = match disposition {
        "rename" => {
            "the service makes a second blob of each under another name, such as `x (2)`; newer services overwrite"
        }
        "overwrite" => "the service keeps one of the two",
        _ => "the service keeps the first and passes the second over; newer services overwrite",
    };
    let more = if count > named.len() as u64 { ", …" } else { "" };
    Problem::new(Kind::Usage, format!("{what}; with Disposition {disposition} {does}"))
        .drive(&there.target.facts.name)
        .value(format!("{}{more}", named.join(", ")))
        .advice("if both are meant to arrive, give this session another destination")
}

/// Warning of blobs in the drive's manifest that the service, or a client in front of it, may treat as the same as
/// blobs of this session.
fn fold_warning(there: &ExistingVolume, count: u64, named: &[String]) -> Problem {
    let more = if count > named.len() as u64 { ", …" } else { "" };
    let what = format!(
        "{} in the drive's manifest, from earlier sessions, {} that the service may take for those of blobs of this session: they \
         differ only in \\ and /, dots at the end of a part, escapes or composed letters; one of the two would be lost or renamed",
        counted(count, "blob"),
        if count == 1 { "has a name" } else { "have names" }
    );
    Problem::new(Kind::Usage, what)
        .drive(&there.target.facts.name)
        .value(format!("{}{more}", named.join(", ")))
        .advice("rename the files, or give this session another destination")
}

/// Passes every blob in the volume's manifest to `see`; none without a manifest.
fn each_blob(there: &ExistingVolume, mut see: impl FnMut(String)) -> Option<()> {
    let volume = files::ntfs(&there.opened).ok()?;
    let name: Vec<u16> = MANIFEST_NAME.encode_utf16().collect();
    let stream = root_stream(&volume, &mut View(&there.opened), &name).ok()??;
    let input = files::FileReader::of(&there.opened, &volume, stream);
    let mut reader = manifest::Reader::new(BufReader::with_capacity(READ_LEN, input));
    while let Some(event) = reader.next_event().ok()? {
        if let Event::BlobStart(start) = event {
            see(start.blob_path);
        }
    }
    Some(())
}
