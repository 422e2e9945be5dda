//! Inputs of a session, and drives that it must not take.

use std::fs;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::azure::SecretText;
use crate::azure::dataset::DatasetRow;
use crate::azure::driveset::{Driveset, GivenDrive, NO_PASSWORD, TargetName};
use crate::azure::journal::{SessionState, Work};
use crate::azure::ledger::{self, Ledger, SessionDrive};
use crate::crypt::printed;
use crate::dataset::property_files::PropertyFiles;
use crate::device::{Node, Roots};
use crate::files::input::{self, Pipes};
use crate::io::is_shortage;
use crate::journal::files;
use crate::journal::records;
use crate::journal::records::foreign_record;
use crate::limits::INPUT_FILE_MAX;
use crate::report::{Advice, Kind, Problem, Problems, Setting, counted};
use crate::request::{AbsentDrive, PrepRequest};
use crate::session::planning::Target;
use crate::text;
use crate::units::FileTime;
use crate::work::append::existing::ExistingVolume;
use crate::work::manifest::RowRules;
use crate::work::recipe::Recipe;
use crate::work::target::TargetDrive;

/// Path in messages for rows given on the command line.
pub const COMMAND_LINE: &str = "the command line";

/// Longest file with one key.
pub const KEY_FILE_MAX: u64 = 64 << 10;

/// Gives the one image of the driveset the size of the drive that it is made for.
pub fn stand_in(drive: &AbsentDrive, driveset: &mut Driveset) -> Option<Problem> {
    let wrong = |what: String, advice: &str| {
        Some(Problem::new(Kind::Usage, what).setting(Setting::For).value(drive.serial.clone()).advice(advice))
    };
    if !drive.size.0.is_multiple_of(drive.sector.bytes()) || drive.size.0 == 0 {
        let what = format!("{} bytes are no whole number of {}-byte sectors", drive.size.0, drive.sector.bytes());
        return wrong(what, "`lsblk -b` and `blockdev --getsize64` give the exact size");
    }
    let [row] = &mut driveset.rows[..] else {
        let what = format!("is meant for one image; the driveset has {}", counted(driveset.rows.len() as u64, "row"));
        return wrong(what, "prepare an image for each drive in a session of its own");
    };
    match &mut row.target {
        TargetName::Image { size: Some(size), .. } if *size != drive.size => {
            let what = format!("the driveset gives the image another size, {} bytes", size.0);
            wrong(what, "leave the size away in the driveset")
        }
        TargetName::Image { size, .. } => {
            *size = Some(drive.size);
            None
        }
        _ => wrong("the driveset names a drive, not an image".into(), "name a new file: /images/drive.img"),
    }
}

/// A driveset of one row, with the key from the key file.
pub fn driveset_of(drive: &GivenDrive, key_file: Option<&Path>, problems: &mut Problems) -> Option<Driveset> {
    let key = match key_file.map(password_in) {
        Some(Err(problem)) => {
            problems.push(problem);
            return None;
        }
        key => key.transpose().ok().flatten(),
    };
    Some(drive.read(key, Path::new(COMMAND_LINE), problems))
}

/// The only numerical password in a key file, whatever else it contains.
fn password_in(path: &Path) -> Result<SecretText, Problem> {
    let wrong = |why: String| {
        Problem::new(Kind::Usage, format!("the key file cannot be used: {why}"))
            .path(path)
            .advice("a file with the 48 digits of this drive")
    };
    let file = input::read(path, KEY_FILE_MAX, Pipes::Taken).map_err(|error| wrong(error.to_string()))?;
    let decoded = Zeroizing::new(text::decode(&file).into_owned());
    let text = Zeroizing::new(String::from_utf8_lossy(&decoded).into_owned());
    let runs = printed::runs(&text);
    let mut good: Vec<_> = runs.iter().filter(|run| run.password().is_ok()).map(|run| run.digits.expose()).collect();
    good.sort_unstable();
    good.dedup();
    match good[..] {
        [key] => Ok(SecretText::new(key)),
        [] => {
            let slip = runs.iter().find_map(|run| run.password().err()).or_else(|| printed::slip(&text));
            Err(wrong(slip.map_or(NO_PASSWORD.into(), |slip| format!("{NO_PASSWORD}: {slip}"))))
        }
        _ => Err(wrong(format!("holds {} numerical passwords, and this drive has one", good.len()))),
    }
}

/// Unlocks the volumes of drives that are added to.
pub fn places(found: Vec<TargetDrive>, roots: &Roots, problems: &mut Problems) -> Vec<Target> {
    let mut places = Vec::new();
    for target in found {
        if target.work == Work::Format {
            places.push(Target::Blank(Box::new(target)));
            continue;
        }
        match ExistingVolume::open(target, roots) {
            Ok(there) => places.push(Target::Existing(Box::new(there))),
            Err(problem) => problems.push(problem),
        }
    }
    places
}

/// The logs of a journal go to one directory: a session may name it once.
pub fn choose_logs(request: &mut PrepRequest, ledger: &Ledger, problems: &mut Problems) {
    let Some(first) = ledger.log_directory.as_ref().map(PathBuf::from) else { return };
    match &request.logdir {
        None => request.logdir = Some(first),
        Some(given) => {
            let same = fs::canonicalize(given).is_ok_and(|given| fs::canonicalize(&first).is_ok_and(|f| f == given));
            if !same {
                problems.push(
                    Problem::new(Kind::Usage, "the sessions of one journal have one log directory")
                        .path(given)
                        .setting(Setting::Logdir)
                        .value(first.display().to_string())
                        .advice(
                            Advice::from("leave ")
                                + Setting::Logdir
                                + " away, or name the one that the journal began with",
                        ),
                );
            }
        }
    }
}

/// The layout of a session's drives: from its request, the rows of its dataset, and the files that go with their blobs.
pub fn recipe_of(request: &PrepRequest, rows: &[DatasetRow], sides: PropertyFiles, formatted: FileTime) -> Recipe {
    let rules = rows.iter().zip(&sides.rows).map(|(row, &(metadata, properties))| RowRules {
        disposition: request.disposition.unwrap_or(row.disposition),
        metadata,
        properties,
    });
    Recipe {
        session: request.session.clone(),
        cipher: request.cipher.clone(),
        cluster_size: request.cluster_size,
        table: request.table,
        wipe_free: request.wipe_free,
        drive_header_hash: request.drive_header_hash,
        external_key: request.external_key.clone(),
        formatted,
        rows: rules.collect(),
        properties: sides.files,
        md5_texts: sides.md5_texts,
        windows: request.windows.clone(),
        selection: request.selection.clone(),
        spread_evenly: request.spread_evenly,
        guesses_type: request.content_type,
        metadata: sides.metadata,
        list: request.list.as_ref().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone())),
        exported: None,
    }
}

/// Refuses to erase joining drives that the journal or the session's plan already lists.
pub fn refuse_known(
    found: &[TargetDrive],
    ledger: &Ledger,
    planned: &[String],
    (journal, driveset): (&Path, &Path),
    problems: &mut Problems,
) {
    let finished = ledger.sessions.iter().flat_map(|session| session.drives.iter().map(move |drive| (session, drive)));
    let finished = finished.filter(|(_, drive)| drive.state == SessionState::Completed);
    for target in found {
        let id = &target.facts.drive_id;
        // Its file under another name. Names of devices pass from one drive to the next.
        let same = target.ground.as_ref().filter(|_| target.work == Work::Format).and_then(|ground| {
            let is_it =
                |drive: &SessionDrive| drive.drive_id != *id && files_of(drive, journal).contains(ground.node());
            finished.clone().find(|(_, drive)| is_it(drive))
        });
        if let Some((session, drive)) = same {
            problems.push(
                Problem::new(
                    Kind::Refused,
                    "is a finished drive of this journal under another name, and would be erased",
                )
                .path(driveset)
                .column("DriveLetter")
                .value(format!("{}: {} of session {}", target.facts.name, drive.drive_id, session.id))
                .advice("take its row out; to erase the drive, use a new journal"),
            );
        }
        let holder = match ledger.drive(id) {
            // Its volume stays.
            Some((_, drive)) if target.work != Work::Format && drive.state == SessionState::Completed => continue,
            Some((session, drive)) => format!("{} in session {}", ledger::word(drive.state), session.id),
            None if planned.contains(id) => "part of this session".into(),
            None => continue,
        };
        problems.push(
            Problem::new(Kind::Refused, "belongs to this journal already, and would be erased")
                .path(driveset)
                .column("DriveLetter")
                .value(format!("{id}: {holder}"))
                .advice("take its row out; to erase the drive, use a new journal"),
        );
    }
}

/// The image files that the name of a drive leads to.
pub fn files_of(drive: &SessionDrive, journal: &Path) -> Vec<Node> {
    let Some(name) = drive.name.as_deref() else { return Vec::new() };
    let paths = [PathBuf::from(name), files::journal_dir(journal).join(name)];
    let metas = paths.iter().filter_map(|path| fs::metadata(path).ok().filter(fs::Metadata::is_file));
    metas.map(|meta| Node::of(&meta)).collect()
}

/// Refuses drives with an existing record unknown to the journal, which holds the only key of another drive: it is
/// neither moved nor overwritten.
pub fn refuse_foreign_records(found: &[TargetDrive], ledger: &Ledger, journal: &Path, problems: &mut Problems) {
    let known = |id: &str| ledger.sessions.iter().any(|session| session.drive(id).is_some());
    for target in found.iter().filter(|target| !known(&target.facts.drive_id)) {
        let path = journal.with_file_name(format!("{}.xml", target.facts.drive_id));
        if records::is_foreign(journal, &target.facts.drive_id, target.key.as_deref()) {
            problems.push(foreign_record(&path).drive(&target.facts.name));
        }
    }
}

pub fn gather<T>(problems: &mut Problems, result: Result<T, Problems>) -> Option<T> {
    result.map_err(|mut more| problems.0.append(&mut more.0)).ok()
}

pub fn read_csv<T>(
    path: Option<&Path>,
    setting: Setting,
    problems: &mut Problems,
    parse: impl Fn(&Path, &[u8], &mut Problems) -> T,
) -> Option<T> {
    let Some(path) = path else {
        problems.push(Problem::new(Kind::Usage, "is missing").setting(setting).advice("a first session needs it"));
        return None;
    };
    // A driveset may hold keys.
    match input::read(path, INPUT_FILE_MAX, Pipes::Taken) {
        Ok(bytes) => Some(parse(path, &bytes, problems)),
        Err(error) => {
            let kind = if is_shortage(&error) { Kind::Environment } else { Kind::Usage };
            problems.push(Problem::new(kind, format!("cannot be read: {error}")).path(path).setting(setting));
            None
        }
    }
}
