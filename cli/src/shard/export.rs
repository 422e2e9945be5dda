//! Shards of an export: one plan of the account's blobs, made once, whose drives are filled on any host.
//!
//! A shard holds its drive's part of what the account said when the plan was made (versions, blocks, page ranges), and no
//! credential: each host has its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dray_account::{Account, Endpoint};
use dray_engine::api;
use dray_engine::api::account::{KeptBlob, ListedBlobs, bloblist, exported};
use dray_engine::api::hash::Sha256;
use dray_engine::api::host::{OutputFile, Outputs};
use dray_engine::api::prepare::shards::{self, Part};
use dray_engine::api::prepare::{PrepRequest, Prepared};
use dray_engine::api::records::SessionState;
use dray_engine::report::{Event, Kind, Problem, Problems};

use super::hosts::Hosts;
use super::{ExportFacts, Index, ShardEntry};
use crate::account::AccountArgs;
use crate::commands::export::{self, Missing, Planned};
use crate::commands::prep::{self, Ended};
use crate::commands::shard::{report_split, warn_of_hosts};
use crate::consent::Consent;
use crate::exit::Exit;
use crate::render::Output;
use crate::signals::{self, Signals};

/// Longest list of blobs that is read.
const LIST_MAX: u64 = 1 << 30;

/// The place of shards that are to be made.
pub struct NewShards<'a> {
    dir: &'a Path,
    /// Hosts of the drives.
    pub hosts: Hosts,
}

impl<'a> NewShards<'a> {
    /// Reads the list of hosts.
    ///
    /// # Errors
    /// Everything that is wrong in it.
    pub fn of(dir: &'a Path, hosts: Option<&Path>) -> Result<Self, Problems> {
        Ok(Self { dir, hosts: hosts.map(Hosts::read).transpose()?.unwrap_or_default() })
    }
}

/// Plans an export and splits it by drive; whether the shards were made.
pub fn split(
    new: NewShards<'_>,
    request: PrepRequest,
    (listed, refused): (Option<ListedBlobs>, &[KeptBlob]),
    endpoint: &Endpoint,
    output: &Output,
    signals: &Signals,
) -> (Exit, bool) {
    let NewShards { dir, hosts } = new;
    let session = request.session.clone();
    let mut written = None;
    let step = |prepared: &Prepared| {
        shards::check(prepared)?;
        super::new_dir(dir)?;
        let shards = shards::split(prepared, dir)?;
        let refused = keep_refused(dir, refused)?;
        let facts = ExportFacts { endpoint: endpoint.url().to_string(), refused };
        let index = Index::new(dir, &session, &shards, Some(facts), |id| hosts.of.get(id).cloned());
        index.write()?;
        written = Some(index);
        Ok(())
    };
    let prepare =
        |request: PrepRequest, on_event: &mut dyn FnMut(Event)| api::account::prepare_export(request, listed, on_event);
    let nobody = Consent { silent: true, serials: Vec::new() };
    let ended = prep::session_under(signals, request, (&nobody, true), output, prepare, step, |prepared| prepared);
    if let (Exit::Done, Some(index)) = (ended.exit, &written) {
        warn_of_hosts(index, &hosts, output);
        report_split(index, output);
    }
    (ended.exit, written.is_some())
}

/// Keeps the blobs that cannot be exported with the shards; the digest of the list.
fn keep_refused(dir: &Path, refused: &[KeptBlob]) -> Result<Option<[u8; 32]>, Problem> {
    if refused.is_empty() {
        return Ok(None);
    }
    let path = Index::refused_path(dir);
    export::keep_refused(&path, refused)?;
    let bytes = api::host::read_input(&path, LIST_MAX, api::host::Pipes::Refused);
    bytes.map(|bytes| Some(digest(&bytes))).map_err(|error| unusable(&path, &error.to_string()))
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::default();
    hash.update(bytes);
    hash.value()
}

fn unusable(path: &Path, what: &str) -> Problem {
    let what = format!("the list of blobs that cannot be exported cannot be used: {what}");
    Problem::new(Kind::Environment, what).path(path).advice("restore the file as `dray export --shards` wrote it")
}

/// The blobs that cannot be exported, as they were kept.
fn refused(index: &Index, facts: &ExportFacts) -> Result<Vec<KeptBlob>, Problem> {
    let Some(known) = facts.refused else { return Ok(Vec::new()) };
    let path = Index::refused_path(&index.dir);
    let bytes = api::host::read_input(&path, LIST_MAX, api::host::Pipes::Refused);
    let bytes = bytes.map_err(|error| unusable(&path, &error.to_string()))?;
    if digest(&bytes) != known {
        return Err(unusable(&path, "its contents are not those that the index has the digest of"));
    }
    exported::read(&path).map_err(|error| unusable(&path, &error.to_string()))
}

/// The account that drives of this host are filled from.
pub struct Filling {
    account: Arc<Account>,
    requests: usize,
    signals: Signals,
}

impl Filling {
    /// Opens the account of a plan.
    ///
    /// # Errors
    /// None is named, it is not that of the plan, or its credential is defective; nothing was sent.
    pub fn open(facts: &ExportFacts, account: &AccountArgs, requests: usize) -> Result<Self, Problem> {
        let signals = Signals::install(signals::SESSION)
            .map_err(|error| Problem::new(Kind::Environment, format!("signals cannot be caught: {error}")))?;
        let Some(account) = account.open(Some(signals.stop.clone()))? else {
            let problem = Problem::new(Kind::Usage, "the shards are those of an export, and the account is missing");
            let advice = format!("name it with a credential of this host: --endpoint {} …", facts.endpoint);
            return Err(problem.column("--endpoint").advice(advice));
        };
        export::is_of_plan(&facts.endpoint, &account)?;
        Ok(Self { account: Arc::new(account), requests, signals })
    }

    /// One drive, from its preflight to its end.
    pub fn session(
        &self,
        request: PrepRequest,
        consent: &Consent,
        output: &Output,
        prepare: impl FnOnce(PrepRequest, &mut dyn FnMut(Event)) -> Result<Prepared, Problems>,
    ) -> Ended {
        let job = |prepared| Planned::new(prepared, &self.account, self.requests);
        prep::session_under(&self.signals, request, (consent, false), output, prepare, |_| Ok(()), job)
    }

    /// Deletes the snapshots that were taken for a drive that is finished.
    pub fn forget_snapshots(&self, index: &Index, entry: &ShardEntry, output: &Output) {
        match shards::snapshots(&index.dir.join(&entry.file), &entry.digest) {
            Ok(taken) => export::forget_snapshots(&self.account, &taken, output),
            Err(problem) => output.warning(&problem.to_string()),
        }
    }
}

/// Blobs that a finished drive of an export does not hold.
///
/// # Errors
/// The list of the drive's blobs is damaged.
pub fn left_out(journal: &Path, session: &str, drive_id: &str) -> Result<Vec<KeptBlob>, Problem> {
    let mut blobs = export::kept_blobs(&exported::place(journal, session, drive_id))?;
    blobs.retain(|blob| blob.left_out.is_some());
    Ok(blobs)
}

/// What the gathering of an export adds: copy logs, and the list of what is on no drive.
pub struct Gathering {
    refused: Vec<KeptBlob>,
    incomplete: (PathBuf, OutputFile),
    before: Vec<String>,
}

impl Gathering {
    /// Reads what was kept, and opens the place of the list; nothing is written.
    ///
    /// # Errors
    /// What was kept with the shards is damaged, or a place is taken.
    pub fn begin(index: &Index, facts: &ExportFacts, journal: &Path) -> Result<Self, Problems> {
        let refused = refused(index, facts)?;
        let book = api::records::read_journal(journal)?;
        let own = book.ledger.last().filter(|last| last.id == index.session);
        let path = export::dir_of(journal).join(export::incomplete_name(&index.session));
        // Of drives whose records stay on another host, an earlier call listed what they do not hold.
        let before = if own.is_some() { listed(&path) } else { Vec::new() };
        let mut outputs = Outputs::default();
        outputs.input(journal, "the journal");
        outputs.reserve(journal, "the journal");
        let file = outputs.begin(&path, export::FORM)?;
        Ok(Self { refused, incomplete: (path, file), before })
    }

    /// Writes the logs of the drives that the journal has now, and the list; whether anything is on no drive.
    ///
    /// # Errors
    /// The list cannot be written.
    pub fn finish(self, index: &Index, parts: &[Part], journal: &Path, output: &Output) -> Result<bool, Problem> {
        if !self.refused.is_empty() && first_waits(journal, &index.session) {
            export::keep_refused(&exported::place_refused(journal, &index.session), &self.refused)?;
        }
        export::write_logs((journal, &index.session), &export::dir_of(journal), output);
        let mut missing = Missing::default();
        missing.take(&self.refused);
        for part in parts {
            missing.take(&left_out(&part.journal, &index.session, &part.drive_id)?);
        }
        missing.paths.extend(self.before);
        missing.keep(self.incomplete, output)?;
        missing.tell(output);
        Ok(!missing.paths.is_empty())
    }
}

/// Whether the first drive of the journal has no logs yet: they tell of the blobs that cannot be exported.
fn first_waits(journal: &Path, session: &str) -> bool {
    let ledger = api::records::read_journal(journal).unwrap_or_default().ledger;
    let drives = ledger.last().filter(|last| last.id == session).map(|last| &last.drives[..]).unwrap_or_default();
    let first = drives.iter().find(|drive| drive.state == SessionState::Completed);
    first.is_some_and(|first| exported::place(journal, session, &first.drive_id).exists())
}

/// The blobs of a list that an earlier call wrote.
fn listed(path: &Path) -> Vec<String> {
    let list = api::host::read_input(path, LIST_MAX, api::host::Pipes::Refused).ok();
    let list = list.and_then(|bytes| bloblist::read(path, &bytes[..]).ok()).unwrap_or_default();
    let paths = list.selectors.into_iter().filter_map(|selector| match selector {
        bloblist::Selector::Path(path) => Some(path),
        bloblist::Selector::Prefix(_) => None,
    });
    paths.collect()
}
