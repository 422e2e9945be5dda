//! Lists the blobs that a blob list selects, and asks for their blocks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use dray_account::{Account, Blob, Failure, Include};
use dray_engine::api::account::OwnBlocks;
use dray_engine::api::account::{Selection, bloblist};
use dray_engine::report::{Problem, Problems};

/// Blobs of one container that are asked for one by one; more are listed together.
const SINGLE_MAX: usize = 64;

/// Calls `each` for every blob that `selection` takes, with the name of its container; system containers only where they
/// are named. `seen` is called for every blob that the account lists, taken or not.
///
/// # Errors
/// The account does not answer, or refuses; and the errors of `each`.
pub fn selected(
    account: &Account,
    selection: &mut Selection,
    include: Include,
    seen: &mut dyn FnMut(),
    each: &mut dyn FnMut(&str, Blob) -> Result<(), Problem>,
) -> Result<(), Problems> {
    let mut list = |container: &str, prefix: &str, selection: &mut Selection| -> Result<(), Problem> {
        let listed = account.each(container, prefix, include, |blob| -> Result<(), Problem> {
            seen();
            let path = format!("{container}/{}", blob.name);
            if selection.takes(&path) { each(container, blob) } else { Ok(()) }
        });
        match listed {
            // A container that is not there has no blobs.
            Err(problem) if problem.what.contains("ContainerNotFound") => Ok(()),
            other => other,
        }
    };
    let owned = |all: Vec<&str>| all.into_iter().map(str::to_owned).collect::<Vec<String>>();
    for prefix in owned(selection.widest()) {
        match prefix.split_once('/') {
            Some((container, prefix)) => list(container, prefix, selection)?,
            None => {
                let names = account.containers(&prefix).map_err(|failure: Failure| failure.problem())?;
                for name in names {
                    let is_hidden = bloblist::is_system(&format!("{name}/")) && !prefix.starts_with('$');
                    if !is_hidden {
                        list(&name, "", selection)?;
                    }
                }
            }
        }
    }
    let mut by_container: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in owned(selection.single()) {
        if let Some((container, name)) = path.split_once('/') {
            by_container.entry(container.to_owned()).or_default().push(name.to_owned());
        }
    }
    for (container, names) in by_container {
        if names.len() > SINGLE_MAX {
            let first = names.first().map_or("", String::as_str);
            let last = names.last().map_or("", String::as_str);
            // Names are in order: what first and last share, all share.
            let shared = first.char_indices().zip(last.chars()).find(|((_, a), b)| a != b).map_or(0, |((at, _), _)| at);
            list(&container, &first[..shared], selection)?;
        } else {
            let mut before: Option<&String> = None;
            for name in &names {
                // A listing by the name tells what is there, its snapshots and its tier; it has those that begin alike.
                if !before.is_some_and(|before| name.starts_with(before.as_str())) {
                    list(&container, name, selection)?;
                    before = Some(name);
                }
            }
        }
    }
    Ok(())
}

/// A block blob whose list is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// `container/name`.
    pub path: String,
    /// Time of the snapshot, if it is one.
    pub snapshot: Option<String>,
    /// Bytes.
    pub length: u64,
}

/// Gives `with` the block list of each blob, by its index: one request a blob, `requests` at once. `None` where the blob has
/// none that a manifest can list, or is gone meanwhile. Returns what `with` made of them, in the order of the blobs: the
/// lists themselves, of megabytes each, do not stay.
///
/// # Errors
/// The account does not answer, or refuses.
pub fn with_blocks<T: Send>(
    account: &Account,
    blobs: &[Listed],
    requests: usize,
    with: &(dyn Fn(usize, Option<&OwnBlocks>) -> T + Sync),
) -> Result<Vec<T>, Problem> {
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(blobs.len())));
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(blob) = blobs.get(at) else { break };
            let (container, name) = blob.path.split_once('/').unwrap_or_default();
            let list = match account.block_list((container, name, blob.snapshot.as_deref()), true) {
                Ok(list) => Ok(OwnBlocks::of(list, blob.length)),
                Err(failure) if failure.is_missing() => Ok(None),
                // What holds for one question holds for the next one.
                Err(failure) => {
                    next.store(blobs.len(), Ordering::Relaxed);
                    Err(failure.problem())
                }
            };
            let made = list.map(|own| (at, with(at, own.as_ref())));
            results.lock().unwrap_or_else(PoisonError::into_inner).push(made);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..requests.clamp(1, blobs.len().max(1)) {
            scope.spawn(work);
        }
    });
    let made: Result<BTreeMap<usize, T>, Problem> =
        results.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect();
    made.map(|made| made.into_values().collect())
}
