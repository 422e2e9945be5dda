//! The blobs of an account as contents of drives.

use std::ops::Range;
use std::sync::Arc;

use dray_account::{Account, Condition, Failure};
use dray_engine::api::account::{Contents, Unread};
use dray_engine::api::account::{Exported, ExportedBlob, ExportedKind};
use dray_engine::report::{Kind, Problem, Setting};

/// Ranges of a page blob that are closer to each other are read together: a request costs more than so many zeros.
const GAP: u64 = 256 << 10;

/// Reads each blob in the version that was planned, whatever becomes of it meanwhile.
#[derive(Debug)]
pub struct AccountContents {
    account: Arc<Account>,
    exported: Arc<Exported>,
}

impl AccountContents {
    /// The contents of an export.
    pub fn new(account: Arc<Account>, exported: Arc<Exported>) -> Self {
        Self { account, exported }
    }

    fn fetch(&self, blob: &ExportedBlob, offset: u64, into: &mut [u8]) -> Result<(), Unread> {
        let (container, name) = blob.path.split_once('/').unwrap_or_default();
        let snapshot = blob.taken.as_deref().or(blob.snapshot.as_deref());
        let condition = Condition::same(&blob.etag);
        self.account.read((container, name, snapshot), offset, into, &condition).map(drop).map_err(unread)
    }
}

/// Meaning of a failure for the export: the blob's own fault, or one of the account.
fn unread(failure: Failure) -> Unread {
    let said = if failure.message.is_empty() { &failure.code } else { &failure.message };
    let first = said.lines().next().unwrap_or_default();
    match failure.status {
        _ if failure.is_stopped => Unread::Failed(Box::new(failure.problem())),
        Some(404) => Unread::LeftOut(format!("BlobUnexpectedChange: it is not there any more ({})", failure.code)),
        Some(412 | 416) => Unread::LeftOut("BlobUnexpectedChange: it changed after the export was planned".into()),
        Some(status @ (400 | 409)) => Unread::LeftOut(format!("BlobRequestFailed: HTTP {status}: {first}")),
        _ => {
            let problem = failure.problem();
            let advice = problem.advice.clone().unwrap_or_default();
            Unread::Failed(Box::new(problem.advice(advice + "; then continue with " + Setting::Resume)))
        }
    }
}

/// The parts of `offset..offset + len` that hold something of `ranges`, as ranges of the part's bytes.
fn parts_of(ranges: &[(u64, u64)], offset: u64, len: usize) -> Vec<Range<usize>> {
    let end = offset + len as u64;
    let first = ranges.partition_point(|(start, len)| start + len <= offset);
    let mut out: Vec<Range<usize>> = Vec::new();
    for (start, len) in &ranges[first..] {
        if *start >= end {
            break;
        }
        let (from, to) = ((start.max(&offset) - offset) as usize, ((start + len).min(end) - offset) as usize);
        match out.last_mut() {
            Some(last) if from.saturating_sub(last.end) as u64 <= GAP => last.end = to,
            _ => out.push(from..to),
        }
    }
    out
}

impl Contents for AccountContents {
    fn read(&self, file: u32, offset: u64, into: &mut [u8]) -> Result<(), Unread> {
        let Some(blob) = self.exported.blob(file) else {
            return Err(Unread::Failed(Box::new(Problem::new(Kind::Internal, "a file of the plan is no blob"))));
        };
        if blob.kind != ExportedKind::Page {
            return self.fetch(blob, offset, into);
        }
        let parts = parts_of(&blob.ranges, offset, into.len());
        let mut at = 0;
        for part in parts {
            into[at..part.start].fill(0);
            at = part.end;
            self.fetch(blob, offset + part.start as u64, &mut into[part])?;
        }
        into[at..].fill(0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_holds_something_is_read() {
        let ranges = [(512, 512), (4096, 512), (10 << 20, 4 << 20)];
        let parts = |offset, len| -> Vec<(usize, usize)> {
            parts_of(&ranges, offset, len).into_iter().map(|part| (part.start, part.end)).collect()
        };
        assert_eq!(parts(0, 4 << 20), [(512, 4608)]);
        assert_eq!(parts(4 << 20, 4 << 20), []);
        assert_eq!(parts(8 << 20, 4 << 20), [(2 << 20, 4 << 20)]);
        assert_eq!(parts(12 << 20, 4 << 20), [(0, 2 << 20)]);
        assert_eq!(parts(700, 100), [(0, 100)], "within a range");
        let apart = [(0, 512), (1 << 20, 512)];
        assert_eq!(parts_of(&apart, 0, 4 << 20), [0..512, 1 << 20..(1 << 20) + 512]);
    }

    #[test]
    fn a_blob_that_changed_is_left_out_and_an_account_out_of_reach_ends_the_drive() {
        let failure = |status, code: &str| Failure {
            status,
            code: code.into(),
            message: String::new(),
            request: "GET c/b".into(),
            is_stopped: false,
            earlier: 0,
        };
        for (status, code) in [(412, "ConditionNotMet"), (404, "BlobNotFound"), (416, "OtherRange")] {
            let why = unread(failure(Some(status), code));
            assert!(matches!(&why, Unread::LeftOut(why) if why.starts_with("BlobUnexpectedChange: ")), "{why:?}");
        }
        let archived = unread(failure(Some(409), "BlobArchived"));
        assert!(matches!(&archived, Unread::LeftOut(why) if why.starts_with("BlobRequestFailed: ")), "{archived:?}");
        for status in [None, Some(403), Some(503)] {
            let why = unread(failure(status, ""));
            assert!(
                matches!(&why, Unread::Failed(problem) if problem.advice.as_ref().is_some_and(|advice| advice.asks_for(Setting::Resume))),
                "{why:?}"
            );
        }
    }
}
