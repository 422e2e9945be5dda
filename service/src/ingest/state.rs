//! The state that an import has reached, in a file next to the drive record: an import that was killed goes on from it.
//!
//! Lines, appended: a head that says of which drive and account; `n blob number` when a blob of several pieces was begun
//! under a name; `b blob piece crc` when the service has taken a piece; `d blob how disposition number crc` when nothing
//! of the blob is outstanding. Numbers of blobs and pieces are those of the manifest, whose hash is in the head. Nothing
//! in it is believed where the account says otherwise.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use dray_engine::api::verify::copylog::DispositionStatus;
use dray_engine::report::{Advice, Kind, Problem, Setting};
use serde_json::{Value, json};

/// Form of the file.
const FORM: &str = "dray-ingest-1";

/// Identity of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Id of the drive.
    pub drive: String,
    /// MD5 of its manifest.
    pub manifest: String,
    /// Address of the account.
    pub account: String,
}

/// A blob of which nothing is outstanding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    /// Result of its disposition.
    pub disposition: DispositionStatus,
    /// Number behind its name; 1: none.
    pub number: u32,
    /// CRC-64 of its content, if it was taken.
    pub crc64: Option<u64>,
    /// Its metadata or properties could not be set.
    pub is_partial: bool,
}

/// The state that earlier runs reached.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Blobs of which nothing is outstanding.
    pub done: HashMap<u32, Done>,
    /// Pieces that the service has taken, and their CRC-64.
    pub pieces: HashMap<u32, Vec<(u32, Option<u64>)>>,
    /// Number behind the name under which a blob was begun.
    pub numbers: HashMap<u32, u32>,
}

/// The file.
#[derive(Debug)]
pub(crate) struct StateFile {
    file: Mutex<File>,
    path: PathBuf,
    /// Time at which the first run began, by the service's clock, in RFC 3339.
    pub started: String,
    /// An earlier run began it.
    pub is_resumed: bool,
}

impl StateFile {
    /// Opens the file of an import, or makes it. `started` is the service's clock, `anew` forgets earlier runs.
    ///
    /// # Errors
    /// It cannot be used, is in use, or belongs to another import.
    pub fn open(path: &Path, head: &Head, started: &str, anew: bool) -> Result<(Self, Known), Problem> {
        let failed = |error: io::Error| {
            Problem::new(Kind::Environment, format!("the state of the import cannot be kept: {error}"))
                .path(path)
                .advice(Advice::from("name a directory that can be written to with ") + Setting::StateDir)
        };
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let problem = Problem::new(Kind::Refused, "another dray is importing this drive").path(path);
                return Err(problem.advice("wait for it, or end it"));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let (mut known, mut whole, mut found) = (Known::default(), 0, None);
        if anew {
            file.set_len(0).map_err(failed)?;
        } else {
            let mut reader = BufReader::new(&file);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).map_err(failed)? > 0 {
                let Some(text) = line.strip_suffix(b"\n").map(String::from_utf8_lossy) else { break };
                whole += line.len() as u64;
                if found.is_none() {
                    found = Some(parse_head(&text).ok_or_else(|| is_none(path))?);
                } else {
                    known.line(&text);
                }
                line.clear();
            }
            // A line that a kill or a power cut tore.
            file.set_len(whole).map_err(failed)?;
        }
        let is_resumed = found.is_some();
        let started = match found {
            Some((theirs, started)) if theirs == *head => started,
            Some((theirs, _)) => {
                let what = format!(
                    "the state is of another import: drive {}, manifest {}, {}",
                    theirs.drive, theirs.manifest, theirs.account
                );
                let problem = Problem::new(Kind::Refused, what).path(path);
                return Err(problem.advice(
                    Advice::from(Setting::Anew) + " forgets it; " + Setting::StateDir + " names another place",
                ));
            }
            None => {
                let value = json!({ "form": FORM, "drive": head.drive, "manifest": head.manifest,
                                    "account": head.account, "started": started });
                file.seek(SeekFrom::End(0)).map_err(failed)?;
                file.write_all(format!("{value}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
                started.to_owned()
            }
        };
        Ok((Self { file: Mutex::new(file), path: path.to_owned(), started, is_resumed }, known))
    }

    fn add(&self, line: &str) -> Result<(), Problem> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(line.as_bytes()).map_err(|error| {
            Problem::new(Kind::Environment, format!("the state of the import cannot be kept: {error}"))
                .path(&self.path)
                .advice("make room and start the same command again: it resumes")
        })
    }

    /// A blob of several pieces was begun under its name with `number` behind it.
    pub fn begun(&self, blob: u32, number: u32) -> Result<(), Problem> {
        self.add(&format!("n {blob} {number}\n"))
    }

    /// The service has taken a piece.
    pub fn piece(&self, blob: u32, piece: u32, crc64: Option<u64>) -> Result<(), Problem> {
        self.add(&format!("b {blob} {piece} {}\n", hex(crc64)))
    }

    /// Nothing of the blob is outstanding.
    pub fn done(&self, blob: u32, done: &Done) -> Result<(), Problem> {
        let how = if done.is_partial { "partial" } else { "whole" };
        self.add(&format!("d {blob} {how} {} {} {}\n", done.disposition, done.number, hex(done.crc64)))
    }

    /// Makes everything so far durable.
    pub fn sync(&self) {
        // What is lost is asked of the account again.
        let _ = self.file.lock().unwrap_or_else(PoisonError::into_inner).sync_data();
    }
}

fn hex(crc64: Option<u64>) -> String {
    crc64.map_or("-".to_owned(), |crc64| format!("{crc64:016x}"))
}

fn is_none(path: &Path) -> Problem {
    let problem = Problem::new(Kind::Refused, "is no state of an import, or one of another version").path(path);
    problem.advice(Advice::from(Setting::StateDir) + " names another place")
}

fn parse_head(text: &str) -> Option<(Head, String)> {
    let value: Value = serde_json::from_str(text).ok()?;
    let own = |name: &str| value[name].as_str().map(str::to_owned);
    (value["form"] == FORM).then_some(())?;
    Some((Head { drive: own("drive")?, manifest: own("manifest")?, account: own("account")? }, own("started")?))
}

impl Known {
    fn line(&mut self, text: &str) {
        let words: Vec<&str> = text.split(' ').collect();
        let number = |word: &str| word.parse::<u32>().ok();
        let crc = |word: &str| u64::from_str_radix(word, 16).ok();
        match words[..] {
            ["n", blob, at] => {
                if let (Some(blob), Some(at)) = (number(blob), number(at)) {
                    // Under another name nothing of it is there yet.
                    if self.numbers.insert(blob, at).is_some_and(|before| before != at) {
                        self.pieces.remove(&blob);
                    }
                }
            }
            ["b", blob, piece, sum] => {
                if let (Some(blob), Some(piece)) = (number(blob), number(piece)) {
                    self.pieces.entry(blob).or_default().push((piece, crc(sum)));
                }
            }
            ["d", blob, how, disposition, at, sum] => {
                if let (Some(blob), Some(disposition), Some(at)) =
                    (number(blob), DispositionStatus::parse(disposition), number(at))
                {
                    let is_partial = how != "whole";
                    self.done.insert(blob, Done { disposition, number: at, crc64: crc(sum), is_partial });
                    self.pieces.remove(&blob);
                }
            }
            // Of a later version: what it says is asked of the account.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_reached_is_known_again_and_a_torn_line_is_not() {
        let dir = std::env::temp_dir().join(format!("dray-ingest-state-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let path = dir.join("state");
        let _ = std::fs::remove_file(&path);
        let head = Head { drive: "WD-1".into(), manifest: "AB".into(), account: "http://127.0.0.1/a".into() };
        let (state, known) = StateFile::open(&path, &head, "2026-01-01T00:00:00Z", false).expect("made");
        assert!(!state.is_resumed && known.done.is_empty());
        let done = Done { disposition: DispositionStatus::Renamed, number: 2, crc64: Some(7), is_partial: false };
        state.begun(3, 1).expect("kept");
        state.piece(3, 9, Some(1)).expect("kept");
        state.piece(4, 0, None).expect("kept");
        state.done(4, &done).expect("kept");
        state.add("d 5 whole Crea").expect("kept");
        assert_eq!(StateFile::open(&path, &head, "", false).expect_err("in use").kind, Kind::Refused);
        drop(state);
        let (state, known) = StateFile::open(&path, &head, "later", false).expect("opened");
        assert!(state.is_resumed);
        assert_eq!(state.started, "2026-01-01T00:00:00Z");
        assert_eq!(known.done, HashMap::from([(4, done)]));
        assert_eq!(known.pieces, HashMap::from([(3, vec![(9, Some(1))])]));
        assert_eq!(known.numbers, HashMap::from([(3, 1)]));
        state.done(5, &done).expect("kept");
        drop(state);
        let (state, known) = StateFile::open(&path, &head, "", false).expect("opened");
        assert_eq!(known.done.len(), 2);
        drop(state);
        let other = Head { manifest: "CD".into(), ..head.clone() };
        assert_eq!(StateFile::open(&path, &other, "", false).expect_err("another").kind, Kind::Refused);
        let (state, known) = StateFile::open(&path, &other, "now", true).expect("forgotten");
        assert!(!state.is_resumed && known.done.is_empty());
        drop(state);
        std::fs::write(&path, "no state\n").expect("written");
        assert!(StateFile::open(&path, &head, "", false).is_err());
        std::fs::remove_dir_all(&dir).expect("removed");
    }
}
