//! The verdict of a run in words, and as an exit code: drawn from the conclusion alone.

use dray_engine::api::verify::{
    Answer, Conclusion, DriveVerdict, Ending, Reason, RunSum, conclude, sum_of_drives, unmatched,
};
use dray_engine::report::{Kind, Problem, Problems};
use dray_engine::units::ByteLen;

use super::VerifyOutcome;
use crate::exit::Exit;
use crate::render::count;
use crate::render::page::Tone;

/// Names in a sentence, before the rest is only counted.
const NAMED_MAX: usize = 3;

/// Opening line of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headline {
    /// Tone of the verdict.
    pub tone: Tone,
    /// The verdict in one word, such as `Equal`.
    pub word: &'static str,
    /// The sentence, with its full stop.
    pub sentence: String,
}

/// The conclusion from all results.
pub fn conclusion(outcome: &VerifyOutcome) -> Conclusion {
    conclude(&facts(outcome))
}

fn facts(outcome: &VerifyOutcome) -> RunSum {
    let unopened: Vec<Kind> = outcome.unopened.iter().map(|(_, problem)| problem.kind).collect();
    let unmet = outcome.unmet.as_ref().map_or(0, Vec::len) as u64;
    sum_of_drives(&outcome.drives, &unopened, unmet, outcome.foreign_logs.len() as u64)
}

/// The exit code of a conclusion.
pub fn exit(conclusion: &Conclusion) -> Exit {
    match conclusion.ending {
        Ending::Proven => Exit::Done,
        Ending::LeftOut => Exit::LeftOut,
        Ending::Mistaken => Exit::Usage,
        Ending::Different => Exit::Different,
        Ending::Stopped => Exit::Interrupted,
        Ending::Failed => {
            Exit::of_problems(&Problems(conclusion.failures.iter().map(|kind| Problem::new(*kind, "")).collect()))
        }
    }
}

/// The word and the sentence.
pub fn headline(outcome: &VerifyOutcome) -> Headline {
    let conclusion = conclusion(outcome);
    let Conclusion { asked, equal, earlier, .. } = conclusion;
    let mut parts = Vec::new();
    match (asked, equal == asked) {
        (0, _) => {}
        // For drives that were not read to the end, the number of requested blobs is unknown.
        (_, true) if !conclusion.failures.is_empty() => {
            parts.push(format!("{} of the other drives as the manifest says", are(asked, "blob")));
        }
        (1, true) => parts.push("The blob is as the manifest says".to_owned()),
        (_, true) => {
            parts.push(format!("All {} that were checked are on the drive as the manifest says", count(asked, "blob")));
        }
        (_, false) => parts.push(format!("{equal} of {} equal", count(asked, "blob"))),
    }
    if earlier > 0 {
        let now = equal.saturating_sub(earlier);
        parts.push(format!(
            "{earlier} of these were read from the drive by an interrupted run before, {now} by this one"
        ));
    }
    parts.extend(conclusion.reasons.iter().map(|reason| phrase(*reason, outcome)));
    let mut sentence = parts.join("; ");
    if let Some(first) = sentence.get(..1) {
        let upper = first.to_uppercase();
        sentence.replace_range(..1, &upper);
    }
    let tone = match conclusion.ending {
        Ending::Proven => Tone::Good,
        Ending::LeftOut => Tone::Warn,
        Ending::Stopped => Tone::Warn,
        Ending::Mistaken | Ending::Different | Ending::Failed => Tone::Bad,
    };
    Headline { tone, word: word(&conclusion), sentence: format!("{}.", sentence.trim_end_matches('.')) }
}

/// The word for a drive by itself.
pub fn word_of_drive(drive: &DriveVerdict) -> &'static str {
    // A prefix that matches no blob here says nothing about this drive: the requested blobs may be on another.
    if drive.is_good() && drive.counts.blobs() == 0 {
        return "Not compared";
    }
    word(&conclude(&sum_of_drives(std::slice::from_ref(drive), &[], 0, 0)))
}

fn word(conclusion: &Conclusion) -> &'static str {
    let of_ending = |reason: &&Reason| reason.ending() == conclusion.ending;
    let Some(reason) = conclusion.reasons.iter().find(of_ending) else { return "Equal" };
    match reason {
        Reason::Stopped(_) => "Stopped",
        Reason::Unopened(_) | Reason::Broken(_) if conclusion.asked == 0 => "Could not be verified",
        Reason::Unopened(_) | Reason::Broken(_) => "Not verified to the end",
        Reason::NotEqual(_) => "Not equal",
        Reason::Unmet(_) => "Not complete",
        Reason::Unmatched(_) | Reason::Empty(_) if conclusion.equal == 0 => "Nothing compared",
        Reason::Unmatched(_) | Reason::Empty(_) | Reason::ForeignLogs(_) | Reason::Unlisted(_) => "Not all compared",
        Reason::Changed(_) => "Not as taken out",
        Reason::Unfit(_) | Reason::Refused(_) => "Not fit to send",
        Reason::TookOther(_) => "Something else was taken",
        Reason::NotTaken(_) | Reason::Remarks(_) => "Not all taken",
        Reason::TookRenamed(_) => "Taken under other names",
        Reason::Strays(_) => "Not what the log names",
    }
}

fn phrase(reason: Reason, outcome: &VerifyOutcome) -> String {
    match reason {
        Reason::Unopened(n) => {
            let first = outcome.unopened.first();
            let first = first.map(|(drive, problem)| problem.clone().drive(drive.display().to_string()).to_string());
            format!("{} could not be verified: {}{}", count(n, "drive"), first.unwrap_or_default(), more(n, 1))
        }
        Reason::Broken(n) => {
            let is_broken = |drive: &&DriveVerdict| failed_by(drive).is_some_and(|kind| kind != Kind::Interrupted);
            let first = outcome.drives.iter().find(is_broken).and_then(|drive| drive.failure.as_ref());
            let first = first.map(ToString::to_string);
            format!(
                "{} could not be verified to the end: {}{}",
                count(n, "drive"),
                first.unwrap_or_default(),
                more(n, 1)
            )
        }
        Reason::Stopped(_) => {
            let is_stopped = |drive: &&DriveVerdict| failed_by(drive) == Some(Kind::Interrupted);
            let parts: Vec<String> = outcome.drives.iter().filter(is_stopped).map(read_part).collect();
            list(&parts, "; ")
        }
        Reason::NotEqual(n) => not_equal(outcome, n),
        Reason::Unmet(n) => format!("{} on none of the drives", count(n, "requested blob")),
        Reason::Unmatched(_) => no_match(outcome),
        Reason::Empty(_) => "the manifest lists no blob, so nothing was compared".to_owned(),
        Reason::Unlisted(n) => unlisted(outcome, n),
        Reason::Changed(n) => {
            let are = if n == 1 { "is" } else { "are" };
            format!("{} in the directory {are} not what was extracted", count(n, "file"))
        }
        Reason::Unfit(_) => {
            let seen = |drive: &DriveVerdict| {
                let no = drive.checks.iter().filter(|check| check.answer == Answer::No && check.status.is_none());
                no.map(|check| format!("{}: no ({})", check.question, check.seen)).collect::<Vec<_>>()
            };
            list(&outcome.drives.iter().flat_map(seen).collect::<Vec<_>>(), "; ")
        }
        Reason::Refused(n) => format!("{} of the service answered with no", count(n, "question")),
        Reason::TookOther(n) => format!("of {} the service took something else", count(n, "blob")),
        Reason::NotTaken(n) => format!("the service did not take {}", count(n, "blob")),
        Reason::TookRenamed(n) => format!("the service took {} under another name", count(n, "blob")),
        Reason::Strays(n) => format!("copy logs name {} that the manifest does not", count(n, "blob")),
        Reason::Remarks(_) => {
            let all: Vec<&str> =
                outcome.drives.iter().flat_map(|drive| &drive.log_remarks).map(String::as_str).collect();
            list(&all, "; ")
        }
        Reason::ForeignLogs(_) => {
            let all: Vec<String> =
                outcome.foreign_logs.iter().map(|(path, id)| format!("{path} is of drive {id}")).collect();
            format!("{}, which is none of these", list(&all, ", "))
        }
    }
}

/// The count of each verdict against equality; `n` in all.
fn not_equal(outcome: &VerifyOutcome, n: u64) -> String {
    let kinds = outcome.drives.iter().flat_map(|drive| drive.counts.all()).collect::<Vec<_>>();
    let mut words: Vec<String> = Vec::new();
    for (verdict, ..) in kinds.iter().take(6).filter(|(verdict, ..)| verdict.is_against()) {
        let all: u64 = kinds.iter().filter(|(other, ..)| other == verdict).map(|(_, rows, _)| rows).sum();
        if all > 0 {
            words.push(format!("{all} {}", verdict.word()));
        }
    }
    if words.is_empty() { format!("{n} not equal") } else { words.join(", ") }
}

/// Prefixes that begin no blob, with the nearest names.
fn no_match(outcome: &VerifyOutcome) -> String {
    let missed: Vec<String> = unmatched(&outcome.drives).iter().map(|prefix| format!("`{prefix}`")).collect();
    let mut there: Vec<&str> = outcome.drives.iter().flat_map(|drive| &drive.beginnings).map(String::as_str).collect();
    there.dedup();
    let missed = format!("no blob begins with {}", list(&missed, " or "));
    if there.is_empty() { missed } else { format!("{missed}: the nearest matches: {}", list(&there, ", ")) }
}

/// Manifests with `n` blobs that were not compared.
fn unlisted(outcome: &VerifyOutcome, n: u64) -> String {
    let paths: Vec<String> =
        outcome.drives.iter().flat_map(|drive| &drive.unlisted).map(|(path, _)| path.clone()).collect();
    let what = if n == 1 { "1 blob that was".to_owned() } else { format!("{n} blobs that were") };
    let lists = if paths.len() == 1 { "lists" } else { "list" };
    format!("{} on the drive {lists} {what} not compared: name it with --manifest", list(&paths, ", "))
}

fn failed_by(drive: &DriveVerdict) -> Option<Kind> {
    drive.failure.as_ref().map(|problem| problem.kind)
}

/// The share of a drive that was read before it was stopped.
fn read_part(drive: &DriveVerdict) -> String {
    let name = &drive.drive.name;
    match drive.bytes_asked {
        0 => format!("nothing of {name} was read, so none of its blobs has a verdict"),
        all => format!(
            "{} of {} on {name} {} read, too little for a verdict on its blobs",
            ByteLen(drive.bytes_read),
            ByteLen(all),
            if drive.bytes_read == 1 { "was" } else { "were" }
        ),
    }
}

/// Shortfalls of a run as problems, for `--on-finish`.
pub fn problems(outcome: &VerifyOutcome) -> Problems {
    let unopened = outcome.unopened.iter().map(|(drive, problem)| problem.clone().drive(drive.display().to_string()));
    let mut problems = Problems(unopened.collect());
    problems.0.extend(outcome.drives.iter().filter_map(|drive| drive.failure.clone()));
    for reason in conclusion(outcome).reasons {
        let kind = match reason {
            Reason::Unopened(_) | Reason::Broken(_) | Reason::Stopped(_) => continue,
            _ if reason.ending() == Ending::Mistaken => Kind::Usage,
            _ => Kind::Different,
        };
        problems.push(Problem::new(kind, phrase(reason, outcome)));
    }
    problems
}

fn are(n: u64, what: &str) -> String {
    format!("{} {}", count(n, what), if n == 1 { "is" } else { "are" })
}

fn more(n: u64, reported: u64) -> String {
    if n > reported { format!("; and {} more", n - reported) } else { String::new() }
}

fn list<T: AsRef<str>>(all: &[T], between: &str) -> String {
    let first: Vec<&str> = all.iter().take(NAMED_MAX).map(AsRef::as_ref).collect();
    let more = if all.len() > NAMED_MAX { format!(" and {} more", all.len() - NAMED_MAX) } else { String::new() };
    format!("{}{more}", first.join(between))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dray_engine::api::verify::Reason;

    const ALL: [Reason; 17] = [
        Reason::Unopened(2),
        Reason::Broken(2),
        Reason::Stopped(2),
        Reason::NotEqual(2),
        Reason::Unmet(2),
        Reason::Unmatched(2),
        Reason::Empty(2),
        Reason::Unlisted(2),
        Reason::Changed(2),
        Reason::Unfit(2),
        Reason::Refused(2),
        Reason::TookOther(2),
        Reason::NotTaken(2),
        Reason::TookRenamed(2),
        Reason::Strays(2),
        Reason::Remarks(2),
        Reason::ForeignLogs(2),
    ];

    #[test]
    fn no_reason_is_called_equal_or_ends_with_0() {
        for reason in ALL {
            let conclusion = Conclusion {
                ending: reason.ending(),
                reasons: vec![reason],
                failures: vec![Kind::Drive],
                asked: 3,
                equal: 3,
                earlier: 0,
            };
            assert_ne!(word(&conclusion), "Equal", "{reason:?}");
            assert_ne!(exit(&conclusion), Exit::Done, "{reason:?}");
        }
        let good =
            Conclusion { ending: Ending::Proven, reasons: vec![], failures: vec![], asked: 1, equal: 1, earlier: 0 };
        assert_eq!((word(&good), exit(&good)), ("Equal", Exit::Done));
    }

    #[test]
    fn what_the_service_did_has_codes_of_its_own() {
        let code = |reason: Reason| {
            let (ending, reasons) = (reason.ending(), vec![reason]);
            exit(&Conclusion { ending, reasons, failures: vec![], asked: 1, equal: 1, earlier: 0 })
        };
        assert_eq!(code(Reason::NotTaken(1)), Exit::LeftOut);
        assert_eq!(code(Reason::TookRenamed(1)), Exit::Different);
        assert_eq!(code(Reason::TookOther(1)), Exit::Different);
        assert_eq!(code(Reason::Unmatched(1)), Exit::Usage);
        assert_eq!(code(Reason::Stopped(1)), Exit::Interrupted);
    }

    #[test]
    fn a_run_without_any_drive_says_why() {
        let problem = Problem::new(Kind::Usage, "there is no such file");
        let outcome = VerifyOutcome { unopened: vec![("drvie.img".into(), problem)], ..VerifyOutcome::default() };
        let Headline { word, sentence, .. } = headline(&outcome);
        assert_eq!(word, "Could not be verified");
        assert_eq!(sentence, "1 drive could not be verified: drive drvie.img: there is no such file.");
        assert_eq!(exit(&conclusion(&outcome)), Exit::Usage);
        let nothing = headline(&VerifyOutcome::default());
        assert_eq!((nothing.word, nothing.tone), ("Nothing compared", Tone::Bad));
    }
}
