//! The conclusion from all results of a verification: one value, by one function, without any input or output.
//!
//! Headline, exit code, page and JSON are drawn from a [`Conclusion`] alone. Its rule: success is proof for everything
//! that was requested, so [`conclude`] starts from the proven part and accounts for the rest, and a run that proved
//! nothing is no success.
#![forbid(unsafe_code)]

use crate::report::Kind;
use crate::verify::row::Counts;

/// Results of one drive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriveSum {
    /// Failure that ended its verification early.
    pub failure: Option<Kind>,
    /// Requested blobs, counted by verdict.
    pub counts: Counts,
    /// Blobs of the manifest that were not requested.
    pub skipped: u64,
    /// Equal blobs that were read by an earlier, interrupted run and not by this one.
    pub earlier: u64,
    /// Failed checks of the service.
    pub refused: u64,
    /// Other reasons not to trust or not to send the drive: an unfinished session, a damaged partition table.
    pub unfit: u64,
    /// Blobs that only another manifest on the drive lists.
    pub unlisted: u64,
    /// Files extracted earlier that have changed since.
    pub changed: u64,
    /// Blobs that the service did not copy.
    pub not_taken: u64,
    /// Blobs that it copied under another name.
    pub renamed: u64,
    /// Blobs that it copied with other content.
    pub other: u64,
    /// Entries of copy logs that match nothing in the manifest.
    pub strays: u64,
    /// Entries of copy logs on the drive as a whole that are no success.
    pub remarks: u64,
}

/// Results of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunSum {
    /// The drives that were opened.
    pub drives: Vec<DriveSum>,
    /// Kinds of failure of the drives that could not be opened.
    pub unopened: Vec<Kind>,
    /// Requested prefixes that no blob matches.
    pub unmatched: u64,
    /// Blobs that were expected and are on no drive.
    pub unmet: u64,
    /// Copy logs of drives that are not among these.
    pub foreign_logs: u64,
}

/// Reason why a run is no success, with the number of blobs or drives concerned. In the order of reporting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Drives that could not be opened.
    Unopened(u64),
    /// Drives that were not read to the end.
    Broken(u64),
    /// Drives that were not read to the end because of a stop request.
    Stopped(u64),
    /// Blobs that are different, unreadable or missing, or have no reference to compare with.
    NotEqual(u64),
    /// Blobs that were expected and are on no drive.
    Unmet(u64),
    /// Prefixes that no blob matches.
    Unmatched(u64),
    /// Drives with a manifest that lists no blob.
    Empty(u64),
    /// Blobs that only another manifest lists.
    Unlisted(u64),
    /// Extracted files that have changed since.
    Changed(u64),
    /// Drives whose preparation was not finished, or whose tables are damaged.
    Unfit(u64),
    /// Failed checks of the service.
    Refused(u64),
    /// Blobs that the service copied with other content.
    TookOther(u64),
    /// Blobs that it did not copy.
    NotTaken(u64),
    /// Blobs that it copied under another name.
    TookRenamed(u64),
    /// Entries of copy logs that match nothing in the manifest.
    Strays(u64),
    /// Entries of copy logs on drives as a whole that are no success.
    Remarks(u64),
    /// Copy logs of other drives.
    ForeignLogs(u64),
}

impl Reason {
    /// Identifier in JSON.
    pub const fn name(self) -> &'static str {
        self.split().0
    }

    /// Blobs or drives that the reason concerns.
    pub const fn count(self) -> u64 {
        self.split().1
    }

    const fn split(self) -> (&'static str, u64) {
        match self {
            Self::Unopened(n) => ("unopened", n),
            Self::Broken(n) => ("broken", n),
            Self::Stopped(n) => ("stopped", n),
            Self::NotEqual(n) => ("not_equal", n),
            Self::Unmet(n) => ("on_no_drive", n),
            Self::Unmatched(n) => ("prefix_without_blob", n),
            Self::Empty(n) => ("empty_manifest", n),
            Self::Unlisted(n) => ("listed_elsewhere", n),
            Self::Changed(n) => ("extracted_file_changed", n),
            Self::Unfit(n) => ("unfit", n),
            Self::Refused(n) => ("refused", n),
            Self::TookOther(n) => ("service_took_other", n),
            Self::NotTaken(n) => ("service_did_not_take", n),
            Self::TookRenamed(n) => ("service_renamed", n),
            Self::Strays(n) => ("log_names_other", n),
            Self::Remarks(n) => ("log_status", n),
            Self::ForeignLogs(n) => ("log_of_other_drive", n),
        }
    }

    /// The ending that follows from this reason alone.
    pub const fn ending(self) -> Ending {
        match self {
            Self::Unopened(_) | Self::Broken(_) => Ending::Failed,
            Self::Stopped(_) => Ending::Stopped,
            Self::Unmatched(_) | Self::ForeignLogs(_) => Ending::Mistaken,
            Self::Unlisted(_) | Self::NotTaken(_) | Self::Remarks(_) => Ending::LeftOut,
            Self::NotEqual(_)
            | Self::Unmet(_)
            | Self::Empty(_)
            | Self::Changed(_)
            | Self::Unfit(_)
            | Self::Refused(_)
            | Self::TookOther(_)
            | Self::TookRenamed(_)
            | Self::Strays(_) => Ending::Different,
        }
    }
}

/// Ending of a run. In ascending severity: the worst of several counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ending {
    /// Everything requested is proven.
    Proven,
    /// Everything examined is correct, and some was left out: by this run, or by the service.
    LeftOut,
    /// The request is impossible: the command line is wrong.
    Mistaken,
    /// Something differs.
    Different,
    /// Something could not be examined; the kinds name the cause.
    Failed,
    /// The run was stopped on request, so its findings are not complete.
    Stopped,
}

/// The verdict of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conclusion {
    /// Ending of the run.
    pub ending: Ending,
    /// Reasons against [`Ending::Proven`]; empty if it is.
    pub reasons: Vec<Reason>,
    /// Kinds of failure of everything that could not be examined.
    pub failures: Vec<Kind>,
    /// Number of requested blobs.
    pub asked: u64,
    /// Requested blobs that are equal.
    pub equal: u64,
    /// Equal blobs that an earlier run read.
    pub earlier: u64,
}

impl Conclusion {
    /// Whether everything requested is proven.
    pub fn is_good(&self) -> bool {
        self.ending == Ending::Proven
    }
}

/// The conclusion of a run: proven only if everything requested was read and equal.
pub fn conclude(run: &RunSum) -> Conclusion {
    let sum = |of: &dyn Fn(&DriveSum) -> u64| run.drives.iter().map(of).fold(0, u64::saturating_add);
    let number = |of: &dyn Fn(&DriveSum) -> bool| run.drives.iter().filter(|drive| of(drive)).count() as u64;
    let (asked, equal) = (sum(&|drive| drive.counts.blobs()), sum(&|drive| drive.counts.equal.0));
    let unopened = run.unopened.len() as u64;
    let broken = number(&|drive| drive.failure.is_some_and(|kind| kind != Kind::Interrupted));
    let stopped = number(&|drive| drive.failure == Some(Kind::Interrupted));
    // A drive without requested blobs is judged by its prefixes; one with an empty manifest has proven nothing.
    let empty = number(&|drive| drive.failure.is_none() && drive.counts.blobs() == 0 && drive.skipped == 0);
    let mut reasons = vec![
        Reason::Unopened(unopened),
        Reason::Broken(broken),
        Reason::Stopped(stopped),
        Reason::NotEqual(asked.saturating_sub(equal)),
        Reason::Unmet(run.unmet),
        Reason::Unmatched(run.unmatched),
        Reason::Empty(empty),
        Reason::Unlisted(sum(&|drive| drive.unlisted)),
        Reason::Changed(sum(&|drive| drive.changed)),
        Reason::Unfit(sum(&|drive| drive.unfit)),
        Reason::Refused(sum(&|drive| drive.refused)),
        Reason::TookOther(sum(&|drive| drive.other)),
        Reason::NotTaken(sum(&|drive| drive.not_taken)),
        Reason::TookRenamed(sum(&|drive| drive.renamed)),
        Reason::Strays(sum(&|drive| drive.strays)),
        Reason::Remarks(sum(&|drive| drive.remarks)),
        Reason::ForeignLogs(run.foreign_logs),
    ];
    reasons.retain(|reason| reason.count() > 0);
    // No proof at all, whatever the reason: no drive, or nothing requested from any.
    if reasons.is_empty() && equal == 0 {
        reasons.push(Reason::Empty(run.drives.len().max(1) as u64));
    }
    let failures = run.drives.iter().filter_map(|drive| drive.failure).chain(run.unopened.iter().copied());
    Conclusion {
        ending: reasons.iter().map(|reason| reason.ending()).max().unwrap_or(Ending::Proven),
        reasons,
        failures: failures.collect(),
        asked,
        equal,
        earlier: sum(&|drive| drive.earlier),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::row::Taken;

    fn counts(equal: u64, different: u64, missing: u64, no_reference: u64) -> Counts {
        Counts {
            equal: (equal, equal),
            different: (different, different),
            missing: (missing, missing),
            no_reference: (no_reference, no_reference),
            ..Counts::default()
        }
    }

    fn good() -> DriveSum {
        DriveSum { counts: counts(3, 0, 0, 0), ..DriveSum::default() }
    }

    fn run(drives: Vec<DriveSum>) -> RunSum {
        RunSum { drives, ..RunSum::default() }
    }

    /// Every possible result of a drive other than equal blobs, alone, and the reason that follows.
    fn each() -> Vec<(DriveSum, Reason)> {
        vec![
            (DriveSum { failure: Some(Kind::Drive), ..good() }, Reason::Broken(1)),
            (DriveSum { failure: Some(Kind::Interrupted), ..good() }, Reason::Stopped(1)),
            (DriveSum { counts: counts(2, 1, 0, 0), ..good() }, Reason::NotEqual(1)),
            (DriveSum { counts: counts(2, 0, 1, 0), ..good() }, Reason::NotEqual(1)),
            (DriveSum { counts: counts(2, 0, 0, 1), ..good() }, Reason::NotEqual(1)),
            (DriveSum { counts: Counts { unreadable: (1, 1), ..counts(2, 0, 0, 0) }, ..good() }, Reason::NotEqual(1)),
            (DriveSum { counts: counts(0, 0, 0, 0), ..good() }, Reason::Empty(1)),
            (DriveSum { unlisted: 4, ..good() }, Reason::Unlisted(4)),
            (DriveSum { changed: 1, ..good() }, Reason::Changed(1)),
            (DriveSum { unfit: 1, ..good() }, Reason::Unfit(1)),
            (DriveSum { refused: 2, ..good() }, Reason::Refused(2)),
            (DriveSum { other: 1, ..good() }, Reason::TookOther(1)),
            (DriveSum { not_taken: 1, ..good() }, Reason::NotTaken(1)),
            (DriveSum { renamed: 1, ..good() }, Reason::TookRenamed(1)),
            (DriveSum { strays: 1, ..good() }, Reason::Strays(1)),
            (DriveSum { remarks: 1, ..good() }, Reason::Remarks(1)),
        ]
    }

    #[test]
    fn only_proof_of_something_is_success() {
        let concluded = conclude(&run(vec![good(), good()]));
        assert_eq!((concluded.ending, concluded.asked, concluded.equal, concluded.earlier), (Ending::Proven, 6, 6, 0));
        assert!(concluded.is_good() && concluded.reasons.is_empty());
        // Files missing in the manifest, and blobs read by an earlier run, are no reason against success.
        let noted = Counts { not_in_manifest: (9, 9), ..counts(3, 0, 0, 0) };
        let concluded = conclude(&run(vec![DriveSum { counts: noted, earlier: 2, skipped: 5, ..good() }]));
        assert_eq!((concluded.ending, concluded.earlier), (Ending::Proven, 2));
        // No drive, no blob, none requested on the only drive, none on either of two.
        let none = DriveSum { counts: counts(0, 0, 0, 0), skipped: 7, ..DriveSum::default() };
        for sum in
            [RunSum::default(), run(vec![DriveSum::default()]), run(vec![none.clone()]), run(vec![none.clone(); 2])]
        {
            let concluded = conclude(&sum);
            assert_eq!(concluded.ending, Ending::Different, "{sum:?}");
            assert!(!concluded.reasons.is_empty(), "{sum:?}");
        }
        // The requested blobs are all on one of two drives.
        assert!(conclude(&run(vec![none, good()])).is_good());
    }

    #[test]
    fn each_fact_alone_and_each_pair_of_them_is_told_and_decides() {
        let all = each();
        for (one, reason) in &all {
            let concluded = conclude(&run(vec![one.clone()]));
            assert_eq!(concluded.reasons, [*reason], "{one:?}");
            assert_eq!(concluded.ending, reason.ending());
            assert_ne!(concluded.ending, Ending::Proven, "{one:?}");
            // An additional good drive changes nothing.
            assert_eq!(conclude(&run(vec![good(), one.clone()])).reasons, [*reason]);
            for (other, second) in &all {
                let concluded = conclude(&run(vec![one.clone(), other.clone()]));
                assert_eq!(concluded.ending, reason.ending().max(second.ending()), "{one:?} {other:?}");
                let names: Vec<&str> = concluded.reasons.iter().map(|reason| reason.name()).collect();
                assert!(names.contains(&reason.name()) && names.contains(&second.name()), "{names:?}");
            }
        }
        for (sum, reason, ending) in [
            (RunSum { unopened: vec![Kind::Usage], ..run(vec![]) }, Reason::Unopened(1), Ending::Failed),
            (RunSum { unopened: vec![Kind::Usage], ..run(vec![good()]) }, Reason::Unopened(1), Ending::Failed),
            (RunSum { unmatched: 1, ..run(vec![good()]) }, Reason::Unmatched(1), Ending::Mistaken),
            (RunSum { unmet: 2, ..run(vec![good()]) }, Reason::Unmet(2), Ending::Different),
            (RunSum { foreign_logs: 1, ..run(vec![good()]) }, Reason::ForeignLogs(1), Ending::Mistaken),
        ] {
            let concluded = conclude(&sum);
            assert_eq!((concluded.reasons.as_slice(), concluded.ending), (&[reason][..], ending));
            for (one, second) in &all {
                let both = conclude(&RunSum { drives: vec![one.clone()], ..sum.clone() });
                assert_eq!(both.ending, ending.max(second.ending()), "{sum:?} {one:?}");
            }
        }
    }

    #[test]
    fn a_slip_in_what_is_asked_is_told_as_such_and_a_difference_weighs_more() {
        let nothing = DriveSum { skipped: 4, ..DriveSum::default() };
        let slip = RunSum { unmatched: 1, ..run(vec![nothing]) };
        assert_eq!(conclude(&slip).ending, Ending::Mistaken);
        assert_eq!(conclude(&slip).reasons, [Reason::Unmatched(1)]);
        let bad = DriveSum { counts: counts(1, 1, 0, 0), ..DriveSum::default() };
        assert_eq!(conclude(&RunSum { drives: vec![bad], ..slip }).ending, Ending::Different);
        let failed = RunSum {
            unopened: vec![Kind::Usage],
            drives: vec![DriveSum { failure: Some(Kind::Drive), ..good() }],
            ..RunSum::default()
        };
        assert_eq!(conclude(&failed).failures, [Kind::Drive, Kind::Usage]);
    }

    #[test]
    fn gravity_is_the_order_of_the_variants() {
        assert!(Taken::Same < Taken::Renamed && Taken::Renamed < Taken::Not && Taken::Not < Taken::Other);
        assert!(Ending::Proven < Ending::LeftOut && Ending::LeftOut < Ending::Mistaken);
        assert!(Ending::Mistaken < Ending::Different && Ending::Different < Ending::Failed);
    }
}
