//! A session's own files, which must never become sources, under whatever name.
//!
//! A key that is copied to a drive opens it to anyone who has the drive. So journal, sidecars, drive records, key files,
//! logs, pages and images of the session and of the journal's earlier ones are registered by device and inode before
//! the sources are walked. Copies elsewhere are recognised by their names, and then by their contents.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::azure::driveset::Driveset;
use crate::azure::ledger::Ledger;
use crate::azure::{SecretText, drive_record};
use crate::bitlocker::keys::KeyInput;
use crate::files::input::{self, Pipes};
use crate::journal::files::{Sidecar, journal_dir, logdir};
use crate::request::PrepRequest;

/// Length of the longest file that is examined: drive records, key files and small pages are shorter.
const LEN_MAX: u64 = 64 << 10;

/// Length of the shortest file that holds a key: a numerical password.
const LEN_MIN: u64 = 55;

/// Most files of one directory that are examined.
const LOOKED_MAX: usize = 20_000;

/// The existing files of a session.
#[derive(Debug, Default)]
pub struct Own {
    known: HashMap<(u64, u64), &'static str>,
    drive_ids: Vec<String>,
    /// Keys in the drive records.
    keys: Vec<Arc<SecretText>>,
}

impl Own {
    /// Collects the files from the journal, its directory and the request; `drives` are id and path of this session's.
    pub fn gather<'a>(
        request: &PrepRequest,
        ledger: &Ledger,
        driveset: Option<&Driveset>,
        drives: impl Iterator<Item = (&'a str, &'a Path)>,
    ) -> Self {
        let mut own = Self::default();
        let dir = journal_dir(&request.journal);
        for drive in ledger.sessions.iter().flat_map(|session| &session.drives) {
            own.drive_ids.push(drive.drive_id.clone());
            if let Some(name) = &drive.name {
                // Relative names were relative to where that session ran.
                [PathBuf::from(name), dir.join(name)].iter().for_each(|path| own.image(path));
            }
        }
        for (id, path) in drives {
            own.drive_ids.push(id.to_owned());
            own.image(path);
        }
        own.drive_ids.sort_unstable();
        own.drive_ids.dedup();
        own.add(&request.journal, "the session's journal");
        request.reports.iter().for_each(|path| own.add(path, "a page of the session"));
        request.list.iter().for_each(|path| own.add(path, "a list of the session"));
        request.drive_key_file.iter().for_each(|path| own.add(path, "a key file"));
        let given = driveset.iter().flat_map(|set| &set.rows).filter_map(|row| row.existing_key.clone());
        own.keys.extend(given);
        let has_key = driveset.is_some_and(|set| set.rows.iter().any(|row| row.existing_key.is_some()));
        let drivesets = [&request.initial_driveset, &request.additional_driveset];
        for path in drivesets.into_iter().flatten().filter(|_| has_key) {
            own.add(path, "the driveset, which holds a key");
        }
        let mut dirs = vec![dir, logdir(request)];
        dirs.extend(request.reports.iter().map(|path| journal_dir(path)));
        dirs.extend(request.external_key.clone());
        dirs.sort_unstable();
        dirs.dedup();
        let journal = request.journal.file_name().unwrap_or_default();
        dirs.iter().for_each(|dir| own.directory(dir, journal));
        own
    }

    /// The kind of the session's own file that this is; `None`: it is a source. `id` is its device and inode.
    pub fn what(&self, id: (u64, u64), len: u64, path: &Path) -> Option<&'static str> {
        if let Some(what) = self.known.get(&id) {
            return Some(what);
        }
        let name = path.file_name()?.as_bytes();
        if name.starts_with(b".dray-") && name.ends_with(b".new") {
            return Some("a file that is being written");
        }
        let has_end = |end: &[u8]| name.len() > end.len() && name[name.len() - end.len()..].eq_ignore_ascii_case(end);
        // Copies of a record may have any name and any padding, so with records present every short file is examined.
        // In a journal's first session there is none yet, and no small file is read twice.
        let may_be_copy = !self.keys.is_empty() && (LEN_MIN..=LEN_MAX).contains(&len);
        let stem = stem_of_record(name).unwrap_or_default();
        let is_named = || self.drive_ids.iter().any(|id| id.as_bytes().eq_ignore_ascii_case(stem));
        if may_be_copy || has_end(b".bek") || is_named() { self.looked_into(path) } else { None }
    }

    /// As [`Own::what`], for a file that is named itself in the dataset: that one is examined in any case.
    pub fn what_named(&self, id: (u64, u64), len: u64, path: &Path) -> Option<&'static str> {
        self.what(id, len, path).or_else(|| self.looked_into(path))
    }

    fn looked_into(&self, path: &Path) -> Option<&'static str> {
        let bytes = small(path)?;
        // UTF-16, as Windows' editors save it.
        let text = without_zeros(&bytes);
        let known =
            |key: &Arc<SecretText>| text.windows(key.expose().len()).any(|part| part == key.expose().as_bytes());
        let is_known = || self.keys.iter().any(known).then_some("a file that holds the key of a drive");
        key_in(&bytes).or_else(|| key_in(unpadded(&bytes))).or_else(is_known)
    }

    fn add(&mut self, path: &Path, what: &'static str) {
        if let Ok(meta) = fs::metadata(path)
            && meta.is_file()
        {
            self.known.entry((meta.dev(), meta.ino())).or_insert(what);
        }
    }

    /// Registers an image file, or the one behind a loop device.
    fn image(&mut self, path: &Path) {
        const WHAT: &str = "an image of the session";
        self.add(path, WHAT);
        let Ok(meta) = fs::metadata(path) else { return };
        if meta.file_type().is_block_device() {
            let (major, minor) = (libc::major(meta.rdev()), libc::minor(meta.rdev()));
            let backing = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/loop/backing_file"));
            let _ = backing.map(|path| self.add(Path::new(path.trim_end_matches('\n')), WHAT));
        }
    }

    /// Registers the key of a record.
    fn learn(&mut self, bytes: &[u8]) {
        self.keys.extend(drive_record::read(bytes).ok().and_then(|record| record.bitlocker_key).map(Arc::new));
    }

    /// Registers files in a directory into which sessions write.
    fn directory(&mut self, dir: &Path, journal: &OsStr) {
        let mut looked = 0;
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let by_name = by_name(name.as_bytes(), journal.as_bytes());
            if by_name.is_none() && !may_be_ours(name.as_bytes()) {
                continue;
            }
            let mut what = by_name;
            if what.is_none()
                && looked < LOOKED_MAX
                && let Some(bytes) = small(&path)
            {
                looked += 1;
                self.learn(&bytes);
                what = key_in(&bytes).or_else(|| paper_in(&bytes));
            }
            if let Some(what) = what {
                self.add(&path, what);
            }
        }
    }
}

/// `<id>` of `<id>.xml`, `<id>.xml.1`, `<id>.xml.new`.
fn stem_of_record(name: &[u8]) -> Option<&[u8]> {
    let at = name.windows(4).position(|part| part.eq_ignore_ascii_case(b".xml"))?;
    Some(&name[..at])
}

/// The kind of a file in a directory of the session, by its name alone.
fn by_name(name: &[u8], journal: &[u8]) -> Option<&'static str> {
    let name = name.strip_suffix(b".new").unwrap_or(name);
    if name == journal {
        return Some("the session's journal");
    }
    if let Some(rest) = name.strip_prefix(journal)
        && let Some(at) = rest.iter().rposition(|byte| *byte == b'.')
        && at > 0
        && Sidecar::SUFFIXES.iter().any(|end| end.as_bytes() == &rest[at + 1..])
    {
        return Some("a file next to the session's journal");
    }
    if name.ends_with(b".manifest.xml") {
        return Some("the copy of a drive's manifest");
    }
    let is_log = name.starts_with(b"dray-") && name.windows(4).any(|part| part == b".log");
    is_log.then_some("a log of a session")
}

/// Whether a file in a directory of the session needs to be examined.
fn may_be_ours(name: &[u8]) -> bool {
    const ENDS: [&[u8]; 9] = [b".bek", b".html", b".htm", b".csv", b".json", b".jsonl", b".key", b".txt", b".new"];
    let lower = name.to_ascii_lowercase();
    stem_of_record(&lower).is_some() || ENDS.iter().any(|end| lower.ends_with(end))
}

/// The contents of a file that is short enough to be examined.
fn small(path: &Path) -> Option<Zeroizing<Vec<u8>>> {
    fs::metadata(path).ok().filter(|meta| meta.is_file() && meta.len() <= LEN_MAX)?;
    input::read(path, LEN_MAX, Pipes::Refused).ok()
}

/// UTF-16 text as bytes, as far as it is ASCII.
fn without_zeros(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(Vec::with_capacity(bytes.len()));
    text.extend(bytes.iter().copied().filter(|byte| *byte != 0));
    text
}

/// The bytes without padding at their ends.
fn unpadded(bytes: &[u8]) -> &[u8] {
    let is_filling = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, 0 | 0x1A | 0xFF);
    let start = bytes.iter().position(|byte| !is_filling(byte)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|byte| !is_filling(byte)).map_or(start, |last| last + 1);
    &bytes[start..end]
}

/// The kinds of files that are meant to hold a key.
fn key_in(bytes: &[u8]) -> Option<&'static str> {
    if drive_record::read(bytes).is_ok_and(|record| record.bitlocker_key.is_some()) {
        return Some("a drive record, which holds a key");
    }
    // A text of 32 bytes or a sentence with digits is no key file.
    let is_binary = bytes.len() > 32 && bytes.contains(&0);
    let is_key_file = is_binary && matches!(KeyInput::parse(bytes), Ok(KeyInput::External { protector: Some(_), .. }));
    is_key_file.then_some("a BitLocker key file")
}

/// The kinds of other files that a session leaves in its directories.
fn paper_in(bytes: &[u8]) -> Option<&'static str> {
    if holds_password(bytes) {
        return Some("a file next to the journal that holds a BitLocker key");
    }
    let has = |part: &[u8]| bytes.windows(part.len()).any(|these| these == part);
    if has(b"<meta name=\"generator\" content=\"dray ") {
        return Some("a page of a session");
    }
    let is_list =
        bytes.starts_with(b"drive,verdict,") || has(b"\"blob\":") && has(b"\"verdict\":") && has(b"\"drive\":");
    is_list.then_some("a list of a session")
}

/// Whether the bytes contain 48 digits in eight groups, each group a multiple of eleven.
fn holds_password(bytes: &[u8]) -> bool {
    const LEN: usize = 55;
    without_zeros(bytes).windows(LEN).any(|part| {
        part[6] == b'-'
            && part[0].is_ascii_digit()
            && std::str::from_utf8(part).is_ok_and(crate::azure::driveset::is_numerical_password)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const KEY: &str = "000000-000011-000022-000033-000044-000055-000066-000077";

    #[test]
    fn own_files_are_known_by_every_name_and_others_stay_sources() {
        let dir = std::env::temp_dir().join(format!("dray-own-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("j/logs")).expect("directories");
        fs::create_dir_all(dir.join("data")).expect("directories");
        let record = format!(
            "<?xml version=\"1.0\"?><Drive><DriveId>X1</DriveId><BitLockerKey>{KEY}</BitLockerKey>\
                              <ManifestFile>\\m</ManifestFile><ManifestHash>{}</ManifestHash></Drive>",
            "0".repeat(32)
        );
        let own = [
            ("j/job.jrn", "journal"),
            ("j/job.jrn.session#1.plan", "plan"),
            ("j/job.jrn.session#1.X1.checkpoint.new", "checkpoint"),
            ("j/X1.xml", &record),
            ("j/Y9.xml.1", &record),
            ("j/driveset.csv", KEY),
            ("j/logs/dray-session_1-20260101T000000.000Z.log", "log"),
            ("j/logs/dray-session_1-20260101T000000.000Z.log.1", "log"),
            ("j/x.img", "image"),
            ("data/x1.XML", &record),
            ("data/.dray-17-0.new", "half"),
            ("data/a copy under another name", &record),
            ("data/padded.jpg", &format!("{}{record}{}", "\n".repeat(3000), "\0".repeat(5000))),
            ("data/notes.txt", &format!("Drive 7, in the safe.\n{KEY}\n{}", "etc. ".repeat(900))),
            ("data/utf16.dat", &record.chars().flat_map(|c| [c, '\0']).collect::<String>()),
            ("j/plan.html", "<!doctype html><meta name=\"generator\" content=\"dray 1\">"),
        ];
        let others = [
            ("j/data.txt", "data"),
            ("j/job.jrn.bak", "mine"),
            ("j/a.xml", "<a/>"),
            ("j/dataset.csv", "BasePath"),
            ("data/other.xml", "<Drive/>"),
            ("data/other.key", "000000-000011-000022-000033-000044-000055-000066-000088"),
            ("data/X1.xml.txt", "notes on X1.xml"),
            ("data/photo.bek", "no key"),
        ];
        for (name, text) in own.iter().chain(&others) {
            fs::write(dir.join(name), text).expect("a file");
        }
        fs::hard_link(dir.join("j/X1.xml"), dir.join("data/linked")).expect("a link");
        symlink(dir.join("j"), dir.join("same")).expect("a link");
        let mut request = PrepRequest::new(dir.join("j/job.jrn"), "session#1");
        request.logdir = Some(dir.join("j/logs"));
        let image = dir.join("j/x.img");
        let gathered = Own::gather(&request, &Ledger::default(), None, std::iter::once(("X1", &*image)));
        let what = |name: &str| {
            let meta = fs::metadata(dir.join(name)).expect("a file");
            gathered.what((meta.dev(), meta.ino()), meta.len(), &dir.join(name))
        };
        for (name, _) in own {
            assert!(what(name).is_some(), "{name}");
        }
        assert!(what("data/linked").is_some() && what("same/X1.xml").is_some());
        for (name, _) in others {
            assert_eq!(what(name), None, "{name}");
        }
        let _ = fs::remove_dir_all(dir);
    }
}
