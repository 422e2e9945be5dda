//! Rebuilds a lost journal from the drives: their manifests list sessions and files, and the given keys open them.

use std::fs;
use std::io::{BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;

use crate::azure::drive_record::{self, DriveInfo, RecordState};
use crate::azure::journal::{ActivityRecord, DriveDetails, SessionState, Work};
use crate::azure::manifest::{self, Event};
use crate::azure::{Digest, SecretText, driveset};
use crate::device::{Roots, guard};
use crate::hash::{self, Md5};
use crate::journal::files::{JournalFile, journal_dir, logdir, replace_private};
use crate::plan::drive::MANIFEST_NAME;
use crate::report::{Advice, Command, DriveFacts, Kind, Problem, Problems, Setting};
use crate::request::PrepRequest;
use crate::session::inputs;
use crate::surroundings::now;
use crate::units::SectorSize;
use crate::volume::files::Files;
use crate::work::append::drive::record_of;
use crate::work::append::existing::ExistingVolume;
use crate::work::steps;
use crate::work::target::{self, TargetOptions};

/// A session listed in a manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionFound {
    /// Id of the session.
    pub id: String,
    /// Its files on the drive.
    pub files: u64,
    /// Bytes of those files.
    pub data: u64,
}

/// A drive that was read for the journal.
#[derive(Clone, Debug)]
pub struct ReadDrive {
    /// The drive that was read.
    pub drive: DriveFacts,
    /// Its sessions, in their order.
    pub sessions: Vec<SessionFound>,
    /// MD5 of its manifest.
    pub manifest_md5: [u8; 16],
    /// Its drive record: the existing one, or a new one.
    pub record: PathBuf,
}

/// Reads the drives of a driveset and writes a journal of their sessions. A row may be the one that the drive was
/// prepared with, when the drive record is in the journal's directory; otherwise it must hold the key. Nothing is
/// written to a drive.
///
/// # Errors
/// All obstacles: an existing journal, missing drives or keys.
pub fn rebuild_journal(request: &PrepRequest) -> Result<Vec<ReadDrive>, Problems> {
    let mut problems = Problems::default();
    if fs::metadata(&request.journal).is_ok_and(|meta| meta.len() > 0) {
        let problem = Problem::new(Kind::Usage, "a journal exists").path(&request.journal);
        problems.push(problem.advice("move it away first; nothing is ever written over"));
    }
    let set = inputs::read_csv(
        request.initial_driveset.as_deref(),
        Setting::InitialDriveset,
        &mut problems,
        driveset::parse_into,
    );
    problems.into_result()?;
    let (Some(set), Some(path)) = (set, &request.initial_driveset) else {
        return Err(Problem::new(Kind::Internal, "a driveset without a path").into());
    };
    let (roots, context) =
        (Roots::default(), guard::Context { journal: Some(request.journal.clone()), ..Default::default() });
    let options = TargetOptions {
        driveset: path,
        drive_ids: &request.drive_ids,
        ids_proved: true,
        image_sector: request.sector_size.and_then(SectorSize::from_bytes).unwrap_or(SectorSize::S512),
        for_service: true,
        not_for_shipping: true,
        is_made_for: false,
        context: &context,
        roots: &roots,
    };
    let mut problems = Problems::default();
    let mut read = Vec::new();
    for mut target in target::find(&set.rows, &options, &mut Vec::new())? {
        let record = journal_dir(&request.journal).join(format!("{}.xml", target.facts.drive_id));
        let mut known = record_of(&record)?.filter(|record| record.drive_id == target.facts.drive_id);
        if target.key.is_none() {
            target.key = known.as_mut().and_then(|record| record.bitlocker_key.take()).map(Arc::new);
        }
        target.work = Work::Append;
        let name = target.facts.name.clone();
        match ExistingVolume::open(target, &roots)
            .and_then(|there| one(&there, record).map(|drive| (there.target.key, drive)))
        {
            Ok((key, drive)) => read.push((key, known, drive)),
            Err(problem) => problems.push(problem.drive(name)),
        }
    }
    problems.into_result()?;
    write(request, read)
}

/// The sessions in the manifest of a drive.
fn one(there: &ExistingVolume, record: PathBuf) -> Result<ReadDrive, Problem> {
    let facts = &there.target.facts;
    let broken = |what: String| {
        Problem::new(Kind::Drive, format!("the manifest on it cannot be used: {what}"))
            .advice(Advice::from("see what is wrong with ") + Command::Verify)
    };
    let files = Files::read(&there.opened)?;
    let file = files.open(files.find(MANIFEST_NAME)?)?;
    let mut hashed = Hashed { inner: file, md5: Md5::new() };
    let mut sessions: Vec<SessionFound> = Vec::new();
    let mut reader = manifest::Reader::new(BufReader::with_capacity(1 << 20, &mut hashed));
    while let Some(event) = reader.next_event().map_err(|error| broken(error.to_string()))? {
        match event {
            Event::DriveId(id) if id != facts.drive_id => {
                let problem = Problem::new(Kind::Refused, "its manifest names another drive").value(id.clone());
                return Err(problem
                    .advice(Advice::from("give its id with ") + Setting::DriveId + format!(": {}={id}", facts.name)));
            }
            Event::ListStart(head) => {
                let id = head.id.unwrap_or_else(|| "session#1".into());
                // `session#1-0`: the session, and the number of the list in it.
                let id = id
                    .rsplit_once('-')
                    .filter(|(_, n)| n.parse::<u32>().is_ok())
                    .map_or(&id[..], |(id, _)| id)
                    .to_owned();
                if sessions.iter().all(|session| session.id != id) {
                    sessions.push(SessionFound { id, ..SessionFound::default() });
                }
            }
            Event::BlobStart(blob) => {
                if let Some(session) = sessions.last_mut() {
                    session.files += 1;
                    session.data = session.data.saturating_add(blob.length);
                }
            }
            _ => {}
        }
    }
    if let Some(fault) = reader.faults().first() {
        return Err(broken(format!("line {}: {}", fault.line, fault.what)));
    }
    drop(reader);
    std::io::copy(&mut hashed, &mut std::io::sink()).map_err(|error| broken(error.to_string()))?;
    Ok(ReadDrive { drive: facts.clone(), sessions, manifest_md5: hashed.md5.finish(), record })
}

struct Hashed<R> {
    inner: R,
    md5: Md5,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let len = self.inner.read(out)?;
        self.md5.update(&out[..len]);
        Ok(len)
    }
}

type Found = (Option<Arc<SecretText>>, Option<drive_record::DriveRecord>, ReadDrive);

fn write(request: &PrepRequest, read: Vec<Found>) -> Result<Vec<ReadDrive>, Problems> {
    let manifest_file = format!("\\{MANIFEST_NAME}");
    for (key, known, drive) in &read {
        if known.as_ref().and_then(|record| record.manifest_hash) == Some(Digest::Md5(drive.manifest_md5)) {
            continue;
        }
        steps::keep_key(&drive.record)?;
        let info = DriveInfo {
            drive_id: &drive.drive.drive_id,
            bitlocker_key: key.as_deref().map_or("", SecretText::expose),
            manifest_file: &manifest_file,
            manifest_hash: Some(drive.manifest_md5),
            drive_header_hash: None,
        };
        let bytes = drive_record::write(&info, RecordState::Completed, now())
            .map_err(|error| std::io::Error::other(error.to_string()));
        bytes.and_then(|bytes| replace_private(&drive.record, &bytes)).map_err(|error| {
            Problem::new(Kind::Environment, format!("the drive record cannot be written: {error}")).path(&drive.record)
        })?;
    }
    let journal = JournalFile::open(&request.journal)?;
    let logs = logdir(request);
    let logs = fs::canonicalize(&logs).unwrap_or(logs);
    journal.append(&ActivityRecord::Context { log_directory: &logs.display().to_string() })?;
    // Sessions in the order of their first appearance on any drive.
    let mut ids: Vec<&str> = Vec::new();
    for session in read.iter().flat_map(|(.., drive)| &drive.sessions) {
        if !ids.contains(&session.id.as_str()) {
            ids.push(&session.id);
        }
    }
    for id in ids {
        journal.append(&ActivityRecord::Session { id, state: SessionState::Started, plan: None })?;
        for (key, _, drive) in &read {
            let check = key.as_ref().and_then(|key| drive_record::key_check(&drive.drive.drive_id, key));
            let Some(at) = drive.sessions.iter().position(|session| session.id == id) else { continue };
            let (facts, session) = (&drive.drive, &drive.sessions[at]);
            let hash = hash::hex_upper(&drive.manifest_md5);
            let is_last = at + 1 == drive.sessions.len();
            journal.append(&ActivityRecord::Drive {
                session: id,
                drive_id: &facts.drive_id,
                state: SessionState::Completed,
                record_file: &format!("{}.xml", facts.drive_id),
                work: if at == 0 { Work::Format } else { Work::Append },
                details: DriveDetails {
                    name: Some(&facts.name),
                    size: Some(facts.size.0),
                    for_shipping: Some(facts.for_shipping),
                    files: Some(session.files),
                    data: Some(session.data),
                    manifest_hash: is_last.then_some(&*hash),
                    manifest_file: Some(&manifest_file),
                    key_check: check.as_deref(),
                    place: None,
                },
            })?;
        }
        journal.append(&ActivityRecord::Session { id, state: SessionState::Completed, plan: None })?;
    }
    Ok(read.into_iter().map(|(.., drive)| drive).collect())
}
