//! Facts of a drive from journals and drive records: whether its preparation was finished, and its manifest.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::azure::copylog::DriveStatus;
use crate::azure::journal::{SessionState, Work};
use crate::azure::ledger::{Ledger, word};
use crate::journal::files::{Book, read_journal};
use crate::report::Problem;
use crate::verify::result::{Answer, Check};
use crate::verify::service::drive::{self, FINISHED, MANIFEST_HASH};
use crate::volume::key::Record;

/// Most files examined in a directory: a journal has few neighbours.
const LOOKED_AT_MAX: usize = 4096;

/// First line of a journal, up to its stamp and after it.
const HEAD: (&[u8], &[u8]) = (b"[BeginUpdateRecord][", b"][Type:NewJournalFile]");
const HEAD_LEN: u64 = 96;

/// A journal with its path.
#[derive(Clone, Debug)]
struct Known {
    path: PathBuf,
    ledger: Ledger,
    given: bool,
}

/// Journals that may list the drives of a run.
#[derive(Clone, Debug, Default)]
pub struct Journals {
    known: Vec<Known>,
    /// Faults of them, in sentences.
    pub warnings: Vec<String>,
}

impl Journals {
    /// No journals.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds a journal named by the user.
    ///
    /// # Errors
    /// It cannot be read, or is no journal.
    pub fn add(&mut self, path: &Path) -> Result<(), Problem> {
        let book = read_journal(path)?;
        self.take(path, book, true);
        Ok(())
    }

    /// Adds the journals of a directory; unreadable files are skipped, since the user did not name them.
    pub fn look_in(&mut self, dir: &Path) {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        let Ok(entries) = fs::read_dir(dir) else { return };
        let mut paths: Vec<PathBuf> = entries
            .take(LOOKED_AT_MAX)
            .filter_map(Result::ok)
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
            .map(|entry| entry.path())
            .filter(|path| is_journal(path))
            .collect();
        paths.sort();
        for path in paths {
            let real = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
            let is_known = |known: &Known| fs::canonicalize(&known.path).is_ok_and(|path| path == real);
            if !self.known.iter().any(is_known)
                && let Ok(book) = read_journal(&path)
            {
                self.take(&path, book, false);
            }
        }
    }

    fn take(&mut self, path: &Path, book: Book, given: bool) {
        self.warnings.extend(book.damage.iter().map(ToString::to_string));
        self.known.push(Known { path: path.to_owned(), ledger: book.ledger, given });
    }

    /// Checks of a drive with this manifest against journals and the drive's record.
    pub(super) fn ask(&self, drive_id: &str, manifest_md5: &str, record: Option<&Record>) -> (Vec<Check>, Vec<String>) {
        let (mut checks, mut notes) = (Vec::new(), Vec::new());
        if let Some(record) = record.filter(|record| record.is_incomplete) {
            let seen = format!("the drive record of {} says that preparing it was not finished", record.drive_id);
            checks.push(drive::own(FINISHED, Answer::No, seen));
        }
        for known in self.known.iter().filter(|known| known.given) {
            if !known.ledger.sessions.is_empty() && state(&known.ledger, drive_id).is_none() {
                notes.push(format!("the journal {} does not know drive {drive_id}", known.path.display()));
            }
        }
        // Of several journals that know the drive, one that has this very manifest is its own.
        let reported: Vec<(&Known, JournalDrive)> =
            self.known.iter().filter_map(|known| Some((known, state(&known.ledger, drive_id)?))).collect();
        let fits =
            |state: &JournalDrive| state.hash.as_deref().is_some_and(|hash| hash.eq_ignore_ascii_case(manifest_md5));
        let best = reported
            .iter()
            .max_by_key(|(known, state)| (known.given, fits(state) && state.is_done, state.changed.clone()));
        if let Some((known, state)) = best {
            let path = known.path.display();
            let seen = match state.is_done {
                true => format!("session {} of {path}", state.session),
                false => format!("session {} of {path}: {}", state.session, state.word),
            };
            if !state.is_done || checks.is_empty() {
                let answer = if state.is_done { Answer::Yes } else { Answer::No };
                checks.push(drive::own(FINISHED, answer, seen));
            }
            if let Some(hash) = state.hash.as_ref().filter(|_| state.is_done && !fits(state)) {
                let seen = format!("{manifest_md5} on the drive, {hash} in {path}");
                checks.push(drive::no(MANIFEST_HASH, DriveStatus::ManifestCorrupted, seen));
            }
        }
        (checks, notes)
    }
}

/// State of a drive in a journal.
struct JournalDrive {
    session: String,
    is_done: bool,
    word: &'static str,
    hash: Option<String>,
    changed: String,
}

fn state(ledger: &Ledger, drive_id: &str) -> Option<JournalDrive> {
    let bare = |text: &str| text.split_whitespace().collect::<String>().to_lowercase();
    let wanted = bare(drive_id);
    let mut all = ledger.sessions.iter().rev().flat_map(|session| {
        let drives = session.drives.iter().filter(|drive| bare(&drive.drive_id) == wanted);
        drives.map(move |drive| (session, drive))
    });
    // A rolled-back session does not count; a drive that was given up in a later session keeps its earlier state.
    let counts = |(session, drive): &(&crate::azure::ledger::CopySession, &crate::azure::ledger::SessionDrive)| {
        session.state != SessionState::Aborted
            && drive.state != SessionState::Aborted
            && (drive.state != SessionState::GivenUp || drive.work == Work::Format)
    };
    let last = all.clone().next()?;
    let (session, drive) = all.find(counts).unwrap_or(last);
    Some(JournalDrive {
        session: session.id.clone(),
        is_done: drive.state == SessionState::Completed && session.state != SessionState::Aborted,
        word: if session.state == SessionState::Aborted { word(session.state) } else { word(drive.state) },
        hash: drive.manifest_hash.clone(),
        changed: drive.changed.clone(),
    })
}

/// Whether the first line is that of a journal.
fn is_journal(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(HEAD_LEN).read_to_end(&mut head));
    let head = head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&head);
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    read.is_ok() && line.starts_with(HEAD.0) && line.trim_ascii_end().ends_with(HEAD.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::azure::journal::{self, ActivityRecord, DriveDetails};
    use crate::units::FileTime;

    const MD5: &str = "D863FE44F861AE0DA4DCEAEEFFCCCE68";

    /// Drive `D` in sessions: state of the session, of the drive, work, hash.
    fn journals(sessions: &[(SessionState, SessionState, Work, Option<&str>)]) -> Journals {
        let mut bytes = journal::new_journal(FileTime(0));
        for (number, (session_state, state, work, hash)) in sessions.iter().enumerate() {
            let id = format!("session#{number}");
            let details = DriveDetails { manifest_hash: *hash, ..DriveDetails::default() };
            for record in [
                ActivityRecord::Session { id: &id, state: SessionState::Started, plan: None },
                ActivityRecord::Drive {
                    session: &id,
                    drive_id: "D 1",
                    state: *state,
                    record_file: "D.xml",
                    work: *work,
                    details,
                },
                ActivityRecord::Session { id: &id, state: *session_state, plan: None },
            ] {
                bytes.extend_from_slice(&record.encode(FileTime(0)).expect("a record"));
            }
        }
        let ledger = Ledger::new(&journal::read(&bytes));
        Journals { known: vec![Known { path: "j.jrn".into(), ledger, given: false }], warnings: Vec::new() }
    }

    fn answers(journals: &Journals, record: Option<&Record>) -> Vec<Answer> {
        journals.ask("d1", MD5, record).0.iter().map(|check| check.answer).collect()
    }

    #[test]
    fn only_a_drive_whose_last_session_is_done_is_finished() {
        use SessionState::{Aborted, Aborting, Completed, GivenUp, Interrupted, Started};
        use Work::{Append, Format};
        let (yes, no) = (vec![Answer::Yes], vec![Answer::No]);
        for (sessions, wanted) in [
            (&[(Completed, Completed, Format, Some(MD5))][..], &yes),
            // Others of its session may still be waited for.
            (&[(Interrupted, Completed, Format, Some(MD5))], &yes),
            (&[(Started, Started, Format, None)], &no),
            (&[(Interrupted, Interrupted, Format, None)], &no),
            (&[(Aborting, Aborting, Format, None)], &no),
            (&[(Aborted, Aborted, Format, None)], &no),
            (&[(Aborted, Completed, Format, Some(MD5))], &no),
            (&[(Completed, GivenUp, Format, None)], &no),
            (&[(Completed, Completed, Format, Some(MD5)), (Interrupted, Interrupted, Append, None)], &no),
            (&[(Completed, Completed, Format, Some(MD5)), (Aborted, Aborted, Append, None)], &yes),
            (&[(Completed, Completed, Format, Some(MD5)), (Completed, GivenUp, Append, None)], &yes),
            (&[(Completed, Completed, Format, Some(MD5)), (Completed, GivenUp, Format, None)], &no),
            // Another manifest than the one that the journal has.
            (&[(Completed, Completed, Format, Some("00"))], &vec![Answer::Yes, Answer::No]),
        ] {
            assert_eq!(&answers(&journals(sessions), None), wanted, "{sessions:?}");
        }
        assert!(answers(&Journals::none(), None).is_empty());
        let other = journals(&[(Completed, Completed, Format, Some(MD5))]);
        assert!(other.ask("another", MD5, None).0.is_empty());
    }

    #[test]
    fn an_incomplete_record_says_no_whatever_else_is_known() {
        let record = Record { drive_id: "D1".into(), manifest_file: None, manifest_hash: None, is_incomplete: true };
        let done = journals(&[(SessionState::Completed, SessionState::Completed, Work::Format, Some(MD5))]);
        for journals in [Journals::none(), done.clone()] {
            assert_eq!(answers(&journals, Some(&record)), [Answer::No]);
        }
        let complete = Record { is_incomplete: false, ..record };
        assert_eq!(answers(&done, Some(&complete)), [Answer::Yes]);
    }

    #[test]
    fn of_two_journals_the_one_that_has_this_manifest_is_the_drives_own() {
        use SessionState::{Completed, Interrupted};
        let mut both = journals(&[(Interrupted, Interrupted, Work::Format, None)]);
        both.known.extend(journals(&[(Completed, Completed, Work::Format, Some(MD5))]).known);
        assert_eq!(answers(&both, None), [Answer::Yes]);
        // Unless the other one was named.
        both.known[0].given = true;
        assert_eq!(answers(&both, None), [Answer::No]);
    }

    #[test]
    fn journals_are_found_by_their_first_line() {
        let dir = std::env::temp_dir().join(format!("dray-known-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        fs::write(dir.join("any.name"), journal::new_journal(FileTime(0))).expect("a journal");
        fs::write(dir.join("D.xml"), "[BeginUpdateRecord][2016/11/01 21:22:25.379][Type:ActivityRecord]\r\n")
            .expect("a record");
        fs::write(dir.join("empty"), "").expect("a file");
        let mut journals = Journals::none();
        journals.add(&dir.join("any.name")).expect("a journal");
        journals.look_in(&dir);
        assert_eq!(journals.known.len(), 1, "{journals:?}");
        fs::remove_dir_all(&dir).expect("removed");
    }
}
