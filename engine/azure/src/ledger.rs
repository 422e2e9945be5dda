//! A journal's records, assembled: its sessions, their drives, and the actions allowed next
//! (docs/spec/import-export.md#sessions).

use super::journal::{ActivityRecord, Journal, PlanMark, SessionState, Work};
use crate::advice::{Advice, Setting};

/// The sessions of a journal, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Log directory given to the first session.
    pub log_directory: Option<String>,
    /// Every session of the journal, oldest first.
    pub sessions: Vec<CopySession>,
}

/// A copy session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopySession {
    /// Id of the session.
    pub id: String,
    /// Latest state.
    pub state: SessionState,
    /// Time stamp of its first record (UTC).
    pub begun: String,
    /// Time stamp of the last change of state.
    pub changed: String,
    /// Its drives, in the order given; in journals that do not record that, in the order of their first records.
    pub drives: Vec<SessionDrive>,
    /// Valid part of its plan file.
    pub plan: Option<PlanMark>,
}

/// A drive of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionDrive {
    /// Drive id, as in the drive record.
    pub drive_id: String,
    /// Latest state.
    pub state: SessionState,
    /// Kind of work on it.
    pub work: Work,
    /// Name of its drive record file, in the journal's directory.
    pub record_file: String,
    /// Its name in the driveset.
    pub name: Option<String>,
    /// Bytes of the device.
    pub size: Option<u64>,
    /// Whether it is hardware that the service would accept; `None` in journals from before this was recorded.
    pub for_shipping: Option<bool>,
    /// Files of the session on it; of all sessions in [`Ledger::whole`].
    pub files: Option<u64>,
    /// Bytes of those files.
    pub data: Option<u64>,
    /// Upper-case hex MD5 of its manifest.
    pub manifest_hash: Option<String>,
    /// Path of its manifest; `None` in journals from before this was recorded.
    pub manifest_file: Option<String>,
    /// Check value of the key in its record; `None` in the same journals.
    pub key_check: Option<String>,
    /// Index among the drives of the session, in the order given; `None` in the same journals.
    pub place: Option<u64>,
    /// Time stamp of the last change of state.
    pub changed: String,
}

impl CopySession {
    /// Whether it ended abnormally: it can be resumed or aborted, and nothing else can begin before.
    pub fn is_unfinished(&self) -> bool {
        matches!(self.state, SessionState::Started | SessionState::Interrupted | SessionState::Aborting)
    }

    /// Whether the drives prove that nothing is left to do: there is at least one, each holds a finished volume, and
    /// all of `planned` are among them. Drives that were given up hold nothing of the session.
    pub fn is_proven<'a>(&self, mut planned: impl Iterator<Item = &'a str>) -> bool {
        let is_done = |drive: &SessionDrive| drive.state == SessionState::Completed;
        let ended = |drive: &SessionDrive| is_done(drive) || drive.state == SessionState::GivenUp;
        self.drives.iter().any(is_done)
            && self.drives.iter().all(ended)
            && planned.all(|id| self.drive(id).is_some_and(is_done))
    }

    /// The drive of this id.
    pub fn drive(&self, drive_id: &str) -> Option<&SessionDrive> {
        self.drives.iter().find(|drive| drive.drive_id == drive_id)
    }
}

impl Ledger {
    /// Assembles the records. Unknown ones are ignored.
    pub fn new(journal: &Journal<'_>) -> Self {
        let mut this = Self::default();
        for record in &journal.records {
            match ActivityRecord::from_record(record) {
                Some(ActivityRecord::Context { log_directory }) => {
                    this.log_directory.get_or_insert_with(|| log_directory.to_owned());
                }
                Some(ActivityRecord::Session { id, state, plan }) => {
                    this.session(id, state, record.stamp);
                    if let (Some(session), Some(plan)) = (this.sessions.last_mut(), plan) {
                        session.plan = Some(plan);
                    }
                }
                Some(ActivityRecord::Drive { session, drive_id, state, record_file, work, details }) => {
                    if this.last().is_none_or(|last| last.id != session) {
                        this.session(session, SessionState::Started, record.stamp);
                    }
                    let Some(session) = this.sessions.last_mut() else { continue };
                    let drives = &mut session.drives;
                    let at = drives.iter().position(|drive| drive.drive_id == drive_id).unwrap_or_else(|| {
                        drives.push(SessionDrive {
                            drive_id: drive_id.to_owned(),
                            state,
                            work,
                            record_file: record_file.to_owned(),
                            name: None,
                            size: None,
                            for_shipping: None,
                            files: None,
                            data: None,
                            manifest_hash: None,
                            manifest_file: None,
                            key_check: None,
                            place: None,
                            changed: String::new(),
                        });
                        drives.len() - 1
                    });
                    let drive = &mut drives[at];
                    drive.state = state;
                    drive.work = work;
                    drive.changed = record.stamp.to_owned();
                    drive.name = details.name.map(str::to_owned).or(drive.name.take());
                    drive.size = details.size.or(drive.size);
                    drive.for_shipping = details.for_shipping.or(drive.for_shipping);
                    drive.files = details.files.or(drive.files);
                    drive.data = details.data.or(drive.data);
                    drive.manifest_hash = details.manifest_hash.map(str::to_owned).or(drive.manifest_hash.take());
                    drive.manifest_file = details.manifest_file.map(str::to_owned).or(drive.manifest_file.take());
                    drive.key_check = details.key_check.map(str::to_owned).or(drive.key_check.take());
                    drive.place = drive.place.or(details.place);
                }
                None => {}
            }
        }
        for session in &mut this.sessions {
            session.drives.sort_by_key(|drive| drive.place.unwrap_or(u64::MAX));
        }
        this
    }

    fn session(&mut self, id: &str, state: SessionState, stamp: &str) {
        match self.sessions.last_mut() {
            // An aborted session's id may be used again: that is another session. So may one that is indexed in runs.
            Some(last) if last.id == id && (state != SessionState::Started || last.is_unfinished()) => {
                last.state = state;
                last.changed = stamp.to_owned();
            }
            _ => self.sessions.push(CopySession {
                id: id.to_owned(),
                state,
                begun: stamp.to_owned(),
                changed: stamp.to_owned(),
                drives: Vec::new(),
                plan: None,
            }),
        }
    }

    /// The last session.
    pub fn last(&self) -> Option<&CopySession> {
        self.sessions.last()
    }

    /// The last session that holds the drive, with the drive: its present contents according to the journal.
    pub fn drive(&self, drive_id: &str) -> Option<(&CopySession, &SessionDrive)> {
        let held = |session: &&CopySession| session.state != SessionState::Aborted;
        let mut sessions = self.sessions.iter().rev().filter(held);
        sessions.find_map(|session| {
            let drive = session.drive(drive_id)?;
            (!matches!(drive.state, SessionState::Aborted | SessionState::GivenUp)).then_some((session, drive))
        })
    }

    /// The total of all sessions on the drive, as its manifest lists it: state, names and hash are those of the last
    /// session that holds it; files and bytes are summed over every completed session since it was last formatted, and
    /// `None` when one of them did not record them.
    pub fn whole(&self, drive_id: &str) -> Option<SessionDrive> {
        let (_, last) = self.drive(drive_id)?;
        let (mut files, mut data, mut has_any) = (Some(0_u64), Some(0_u64), false);
        for session in self.sessions.iter().filter(|session| session.state != SessionState::Aborted) {
            let Some(drive) = session.drive(drive_id).filter(|drive| drive.state == SessionState::Completed) else {
                continue;
            };
            if drive.work == Work::Format {
                (files, data) = (Some(0), Some(0));
            }
            has_any = true;
            let sum = |a: Option<u64>, b: Option<u64>| a?.checked_add(b?);
            (files, data) = (sum(files, drive.files), sum(data, drive.data));
        }
        let hash = || {
            let reported = self.sessions.iter().rev().filter(|session| session.state != SessionState::Aborted);
            reported.filter_map(|session| session.drive(drive_id)).find_map(|drive| drive.manifest_hash.clone())
        };
        Some(SessionDrive {
            files: files.filter(|_| has_any),
            data: data.filter(|_| has_any),
            manifest_hash: last.manifest_hash.clone().or_else(hash).filter(|_| has_any),
            name: last.name.clone(),
            ..last.clone()
        })
    }

    /// Ids of all drives, in the order of their first records.
    pub fn drive_ids(&self) -> Vec<&str> {
        let mut ids: Vec<&str> = Vec::new();
        for drive in self.sessions.iter().flat_map(|session| &session.drives) {
            if !ids.contains(&drive.drive_id.as_str()) {
                ids.push(&drive.drive_id);
            }
        }
        ids
    }

    /// Drives that hold a finished volume, each with the total of its sessions, in the order of their first records.
    pub fn finished_drives(&self) -> Vec<SessionDrive> {
        let ids = self.drive_ids().into_iter();
        ids.filter_map(|id| self.whole(id)).filter(|drive| drive.state == SessionState::Completed).collect()
    }

    /// Drives whose work was started and is not finished, each with the session that started it; those that were rolled
    /// back or given up do not count.
    pub fn open_drives(&self) -> Vec<(&CopySession, &SessionDrive)> {
        let ids = self.drive_ids().into_iter();
        ids.filter_map(|id| self.drive(id)).filter(|(_, drive)| drive.state != SessionState::Completed).collect()
    }

    /// The session that ended abnormally, if there is one.
    pub fn unfinished(&self) -> Option<&CopySession> {
        self.last().filter(|last| last.is_unfinished())
    }
}

/// An action requested on a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Copy a dataset, or add drives.
    Copy {
        /// Whether drives join with it (`/AdditionalDriveSet`).
        adds_drives: bool,
    },
    /// Index the files already on a drive.
    Index,
    /// Resume the last session.
    Resume,
    /// Roll the last session back.
    Abort,
}

/// The action that the journal allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextAction {
    /// A session of this id begins.
    Begin,
    /// The last session is resumed.
    Resume,
    /// The last session is rolled back.
    Abort,
}

/// Reason why the journal does not allow an action, with advice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// A sentence without full stop.
    pub what: String,
    /// The advice: a sentence without full stop.
    pub advice: Advice,
}

impl Ledger {
    /// Applies the rules of session ids: only the last session can be resumed or rolled back, and only when it ended
    /// abnormally; nothing else begins before that; a used id is not used again, unless its session was rolled back.
    /// Drives may join the last session under its own id while it is unfinished. Indexing may take several runs under
    /// one id.
    ///
    /// # Errors
    /// The rule that forbids it.
    pub fn next_action(&self, id: &str, wish: Wish) -> Result<NextAction, Refusal> {
        let refuse = |what: String, advice: Advice| Err(Refusal { what, advice });
        let last = self.last();
        match (wish, last) {
            (Wish::Resume | Wish::Abort, None) => {
                let what = if wish == Wish::Resume { "resume" } else { "abort" };
                refuse(
                    format!("the journal holds no session to {what}"),
                    Advice::from("begin one with ") + Setting::InitialDriveset + " and " + Setting::Dataset,
                )
            }
            (Wish::Resume | Wish::Abort, Some(last)) if last.id != id => refuse(
                format!("the last session of the journal is {}, not {id}", last.id),
                Advice::from("only the last session can be resumed or rolled back: ")
                    + Setting::Id
                    + format!(" {}", last.id),
            ),
            (Wish::Resume, Some(last)) if !last.is_unfinished() => refuse(
                format!("session {id} is {}; nothing is left to resume", word(last.state)),
                "more data or drives come in a new session, with another id".into(),
            ),
            (Wish::Abort, Some(last)) if !last.is_unfinished() => refuse(
                format!("session {id} is {}; nothing was rolled back", word(last.state)),
                match last.state {
                    SessionState::Aborted => "nothing is left to do; data and drives come in a new session".into(),
                    _ => "a session that is complete stays; to use its drives again, format them with another journal"
                        .into(),
                },
            ),
            (Wish::Resume, Some(last)) if last.state == SessionState::Aborting => {
                refuse(format!("session {id} is being rolled back"), Advice::from("finish that with ") + Setting::Abort)
            }
            (Wish::Resume, Some(_)) => Ok(NextAction::Resume),
            (Wish::Abort, Some(_)) => Ok(NextAction::Abort),
            (Wish::Copy { .. } | Wish::Index, None) => Ok(NextAction::Begin),
            (Wish::Copy { adds_drives: true }, Some(last))
                if last.id == id && last.is_unfinished() && last.state != SessionState::Aborting =>
            {
                Ok(NextAction::Resume)
            }
            (Wish::Copy { .. } | Wish::Index, Some(last)) if last.is_unfinished() => {
                let go_on = match last.state {
                    SessionState::Aborting => Advice::from(Setting::Abort),
                    _ => Advice::from(Setting::Resume) + " or " + Setting::Abort,
                };
                refuse(
                    format!("session {} ended abnormally", last.id),
                    Advice::from("first resume it or roll it back: ") + Setting::Id + format!(" {} ", last.id) + go_on,
                )
            }
            (Wish::Copy { .. } | Wish::Index, Some(_)) => {
                let used = self.sessions.iter().rev().find(|session| session.id == id);
                match used {
                    None => Ok(NextAction::Begin),
                    Some(used) if used.state == SessionState::Aborted => Ok(NextAction::Begin),
                    Some(used) => {
                        let indexed = used.drives.iter().all(|drive| drive.work == Work::Index);
                        if wish == Wish::Index && indexed && Some(used) == last {
                            return Ok(NextAction::Begin);
                        }
                        refuse(
                            format!("session {id} of this journal is {} already", word(used.state)),
                            "give the session another id: each is used once".into(),
                        )
                    }
                }
            }
        }
    }
}

/// The state as a word for a sentence such as "the session is completed".
pub fn word(state: SessionState) -> &'static str {
    match state {
        SessionState::Started => "under way, or was cut off",
        SessionState::Completed => "completed",
        SessionState::Interrupted => "interrupted",
        SessionState::Aborting => "being rolled back",
        SessionState::Aborted => "rolled back",
        SessionState::GivenUp => "given up",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{self, DriveDetails};
    use crate::units::FileTime;
    use SessionState::{Aborted, Aborting, Completed, GivenUp, Interrupted, Started};

    enum Line {
        S(&'static str, SessionState),
        D(&'static str, &'static str, SessionState, Work),
        /// A finished drive: files, bytes, hash.
        F(&'static str, &'static str, Work, u64, u64, &'static str),
    }
    use Line::{D, F, S};

    fn ledger(lines: &[Line]) -> Ledger {
        let mut bytes = journal::new_journal(FileTime(0));
        for line in lines {
            let record = match *line {
                S(id, state) => ActivityRecord::Session { id, state, plan: None },
                D(session, drive_id, state, work) => ActivityRecord::Drive {
                    session,
                    drive_id,
                    state,
                    record_file: "x.xml",
                    work,
                    details: DriveDetails { name: Some("n"), ..DriveDetails::default() },
                },
                F(session, drive_id, work, files, data, hash) => ActivityRecord::Drive {
                    session,
                    drive_id,
                    state: Completed,
                    record_file: "x.xml",
                    work,
                    details: DriveDetails {
                        files: Some(files),
                        data: Some(data),
                        manifest_hash: Some(hash),
                        ..DriveDetails::default()
                    },
                },
            };
            bytes.extend_from_slice(&record.encode(FileTime(0)).expect("a record"));
        }
        Ledger::new(&journal::read(&bytes))
    }

    const COPY: Wish = Wish::Copy { adds_drives: false };
    const ADD: Wish = Wish::Copy { adds_drives: true };

    #[test]
    fn only_the_last_unfinished_session_goes_on_and_ids_are_used_once() {
        let empty = ledger(&[]);
        let finished = ledger(&[S("one", Started), S("one", Completed)]);
        let cut = ledger(&[S("one", Started), S("one", Completed), S("two", Started)]);
        let aborting = ledger(&[S("one", Started), S("one", Aborting)]);
        let aborted = ledger(&[S("one", Started), S("one", Aborting), S("one", Aborted)]);
        for (ledger, id, wish, wanted) in [
            (&empty, "one", COPY, Some(NextAction::Begin)),
            (&empty, "one", Wish::Resume, None),
            (&empty, "one", Wish::Abort, None),
            (&finished, "one", COPY, None),
            (&finished, "one", ADD, None),
            (&finished, "one", Wish::Resume, None),
            (&finished, "one", Wish::Abort, None),
            (&finished, "two", COPY, Some(NextAction::Begin)),
            (&finished, "two", ADD, Some(NextAction::Begin)),
            (&cut, "two", Wish::Resume, Some(NextAction::Resume)),
            (&cut, "two", Wish::Abort, Some(NextAction::Abort)),
            (&cut, "two", ADD, Some(NextAction::Resume)),
            (&cut, "two", COPY, None),
            (&cut, "one", Wish::Resume, None),
            (&cut, "three", COPY, None),
            (&cut, "three", ADD, None),
            (&aborting, "one", Wish::Resume, None),
            (&aborting, "one", ADD, None),
            (&aborting, "one", Wish::Abort, Some(NextAction::Abort)),
            (&aborted, "one", COPY, Some(NextAction::Begin)),
            (&aborted, "two", COPY, Some(NextAction::Begin)),
            (&aborted, "one", Wish::Resume, None),
        ] {
            assert_eq!(ledger.next_action(id, wish).ok(), wanted, "{id} {wish:?} {ledger:?}");
        }
    }

    #[test]
    fn indexing_takes_several_runs_under_one_id() {
        let index = ledger(&[S("one", Started), D("one", "A", Completed, Work::Index), S("one", Completed)]);
        assert_eq!(index.next_action("one", Wish::Index), Ok(NextAction::Begin));
        assert!(index.next_action("one", COPY).is_err());
        let copied = ledger(&[S("one", Started), D("one", "A", Completed, Work::Format), S("one", Completed)]);
        assert!(copied.next_action("one", Wish::Index).is_err());
    }

    #[test]
    fn a_drive_is_what_its_last_session_made_of_it() {
        let ledger = ledger(&[
            S("one", Started),
            D("one", "A", Completed, Work::Format),
            D("one", "B", Interrupted, Work::Format),
            D("one", "B", GivenUp, Work::Format),
            D("one", "C", Completed, Work::Format),
            S("one", Completed),
            S("two", Started),
            D("two", "A", Started, Work::Append),
            D("two", "A", Aborted, Work::Append),
            D("two", "C", Started, Work::Append),
        ]);
        assert_eq!(ledger.drive("A").map(|(session, drive)| (&*session.id, drive.work)), Some(("one", Work::Format)));
        assert_eq!(ledger.drive("B"), None);
        assert_eq!(ledger.drive("C").map(|(_, drive)| drive.state), Some(Started));
        let finished: Vec<String> = ledger.finished_drives().into_iter().map(|drive| drive.drive_id).collect();
        assert_eq!(finished, ["A"]);
        let open: Vec<&str> = ledger.open_drives().iter().map(|(_, drive)| &*drive.drive_id).collect();
        assert_eq!(open, ["C"], "B was given up, A was rolled back to what it was");
        assert_eq!(ledger.sessions[0].drives.len(), 3);
        assert_eq!(ledger.sessions[0].drives[1].name.as_deref(), Some("n"));
    }

    #[test]
    fn a_drive_holds_what_all_its_sessions_put_on_it() {
        use Work::{Append, Format, Index};
        let whole = |lines: &[Line]| {
            let whole = ledger(lines).whole("A");
            whole.map(|drive| (drive.files, drive.data, drive.manifest_hash.unwrap_or_default()))
        };
        let first = || vec![S("one", Started), F("one", "A", Format, 6, 126, "H1"), S("one", Completed)];
        let second = || vec![S("two", Started), F("two", "A", Append, 4, 42, "H2"), S("two", Completed)];
        let with = |more: Vec<Line>| first().into_iter().chain(second()).chain(more).collect::<Vec<_>>();
        for (lines, wanted) in [
            (first(), Some((Some(6), Some(126), "H1"))),
            (with(Vec::new()), Some((Some(10), Some(168), "H2"))),
            // Indexed in two runs under one id.
            (
                with(vec![
                    S("ix", Started),
                    F("ix", "A", Index, 1, 10, "H3"),
                    S("ix", Completed),
                    S("ix", Started),
                    F("ix", "A", Index, 2, 20, "H4"),
                    S("ix", Completed),
                ]),
                Some((Some(13), Some(198), "H4")),
            ),
            // Rolled back: the earlier contents remain.
            (
                with(vec![
                    S("three", Started),
                    F("three", "A", Append, 5, 50, "H3"),
                    S("three", Aborting),
                    D("three", "A", Aborted, Append),
                    S("three", Aborted),
                ]),
                Some((Some(10), Some(168), "H2")),
            ),
            // Started and not finished: the manifest lists the earlier contents.
            (with(vec![S("three", Started), D("three", "A", Interrupted, Append)]), Some((Some(10), Some(168), "H2"))),
            // Another drive's session changes nothing.
            (
                with(vec![S("three", Started), F("three", "B", Format, 7, 70, "HB"), S("three", Completed)]),
                Some((Some(10), Some(168), "H2")),
            ),
            // A record without counts: the sum is not known.
            (with(vec![S("three", Started), D("three", "A", Completed, Append)]), Some((None, None, "H2"))),
            (vec![S("one", Started), D("one", "A", Interrupted, Format)], Some((None, None, ""))),
            (vec![S("one", Started), D("one", "A", GivenUp, Format)], None),
        ] {
            let wanted = wanted.map(|(files, data, hash)| (files, data, hash.to_owned()));
            assert_eq!(whole(&lines), wanted);
        }
    }
}
