//! Consent to destruction: a person, a serial on the command line, or the driveset's own column must have agreed to
//! each drive.

use std::io::{BufRead, IsTerminal, Write};

use dray_engine::api::prepare::RowConsent;
use dray_engine::report::{DriveFacts, Kind, Problem, Problems};

/// Characters of the serial to be typed.
const ASKED: usize = 6;
/// Attempts allowed for typing the confirmation.
const TRIES: usize = 3;

/// Consent that came with the command line.
#[derive(Clone, Debug, Default)]
pub struct Consent {
    /// No question is asked; without consent from elsewhere the drive is refused.
    pub silent: bool,
    /// Full serials that were named.
    pub serials: Vec<String>,
}

/// The effect on a drive that needs consent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// All contents of the drive are lost.
    Destroyed,
    /// The volume on it is encrypted in place.
    Encrypted,
    /// Damaged blocks of its files are written anew.
    Repaired,
}

/// A drive that needs consent.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Its index among all drives.
    pub index: usize,
    /// Facts of the drive, for the question and for messages.
    pub drive: &'a DriveFacts,
    /// The effect on it.
    pub fate: Fate,
    /// Consent stated in its driveset row; `None` where no driveset applies.
    pub row: Option<RowConsent>,
}

impl<'a> Asked<'a> {
    /// A drive without a driveset row whose contents will be lost.
    pub const fn destroyed(index: usize, drive: &'a DriveFacts) -> Self {
        Self { index, drive, fate: Fate::Destroyed, row: None }
    }

    /// A drive whose files are repaired in place.
    pub const fn repaired(index: usize, drive: &'a DriveFacts) -> Self {
        Self { index, drive, fate: Fate::Repaired, row: None }
    }
}

/// A source of interactive consent: the terminal, or a script in tests.
pub trait Person {
    /// Whether a question can be answered interactively.
    fn is_there(&self) -> bool;
    /// Shows text and waits for a line; `None` when there is none.
    fn ask(&mut self, text: &str) -> Option<String>;
}

/// The terminal: questions go to stderr so that stdout stays clean.
#[derive(Debug)]
pub struct Terminal;

impl Person for Terminal {
    fn is_there(&self) -> bool {
        std::io::stdin().is_terminal()
    }

    fn ask(&mut self, text: &str) -> Option<String> {
        let mut stderr = std::io::stderr();
        stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush()).ok()?;
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line).ok()?;
        (read > 0).then(|| line.trim().to_owned())
    }
}

/// Gathers consent for every drive; all of them or none.
///
/// # Errors
/// The drives without consent, and how to give it.
pub fn gather(drives: &[Asked<'_>], consent: &Consent, person: &mut dyn Person) -> Result<Vec<usize>, Problems> {
    let mut consented = Vec::new();
    let mut problems = Problems::default();
    for one in drives {
        let &Asked { index, drive, fate, row } = one;
        if drive.drive_id.is_empty() {
            problems.push(refusal(one, "has no id to name in a consent"));
        } else if is_named(drive, consent) || row == Some(RowConsent::Silent) {
            consented.push(index);
        } else if consent.silent {
            problems.push(refusal(
                one,
                match (fate, row) {
                    (_, Some(RowConsent::Prompt)) => {
                        "its row says PromptOnFormat, which asks, and --silent forbids questions"
                    }
                    (Fate::Destroyed, _) => "no consent to destroying what is on it",
                    (Fate::Encrypted, _) => "no consent to encrypting its volume in place",
                    (Fate::Repaired, _) => "no consent to repairing files on it",
                },
            ));
        } else if !person.is_there() {
            problems.push(refusal(one, "consent is needed, and no terminal to ask on"));
        } else if ask(drive, fate, person) {
            consented.push(index);
        } else {
            problems.push(refusal(one, "the question was not answered with its serial"));
            break;
        }
    }
    problems.into_result()?;
    Ok(consented)
}

/// Whether the command line names the drive: by its id, or by the serial that the hardware reports.
fn is_named(drive: &DriveFacts, consent: &Consent) -> bool {
    let is_it = |serial: &String| {
        !serial.is_empty()
            && (serial.eq_ignore_ascii_case(&drive.drive_id)
                || drive.serial.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(serial)))
    };
    consent.serials.iter().any(is_it)
}

/// Serials on the command line that are of no drive in question: a slip of the hand, or of the wrong list.
///
/// # Errors
/// Each such serial, with the identifiers of the drives in question.
pub fn known(consent: &Consent, drives: &[&DriveFacts], others: &[String]) -> Result<(), Problems> {
    let is_other = |serial: &String| others.iter().any(|id| id.eq_ignore_ascii_case(serial));
    let of_one = |serial: &String| {
        let one = Consent { silent: false, serials: vec![serial.clone()] };
        drives.iter().any(|drive| is_named(drive, &one))
    };
    let strangers = consent.serials.iter().filter(|serial| !is_other(serial) && !of_one(serial));
    let names: Vec<&str> = drives.iter().map(|drive| drive.drive_id.as_str()).collect();
    let advice = match names[..] {
        [] => "leave --yes away: nothing is destroyed".to_owned(),
        _ => format!("the drives here are {}", names.join(", ")),
    };
    let problems = strangers.map(|serial| {
        Problem::new(Kind::Refused, "--yes names no drive of this session; nothing was written")
            .value(serial.clone())
            .advice(advice.clone())
    });
    Problems(problems.collect()).into_result()
}

fn refusal(asked: &Asked<'_>, why: &str) -> Problem {
    let Asked { drive, row, .. } = asked;
    let serial = if drive.drive_id.is_empty() { "SERIAL" } else { &drive.drive_id };
    let advice = match (row, &drive.serial) {
        (Some(RowConsent::Prompt), Some(own)) => {
            format!("to consent: --yes {serial}, or SilentMode in its row with serial:{own} as its name")
        }
        (Some(_), Some(own)) => format!("to consent: --yes {serial}, or serial:{own} in the driveset with SilentMode"),
        (_, _) => format!("to consent: --yes {serial}"),
    };
    Problem::new(Kind::Refused, format!("{why}; nothing was written"))
        .drive(format!("{} ({})", drive.name, describe(drive)))
        .value(drive.contents.clone().unwrap_or_else(|| "blank".into()))
        .advice(advice)
}

fn describe(drive: &DriveFacts) -> String {
    let model = drive.model.as_deref().unwrap_or("no model");
    format!("{model}, {}, {}", called(drive), drive.size)
}

/// The drive's id, with the hardware's serial where the two differ.
fn called(drive: &DriveFacts) -> String {
    match &drive.serial {
        Some(own) if !own.eq_ignore_ascii_case(&drive.drive_id) => {
            format!("{} (id given by hand; the hardware says {own})", drive.drive_id)
        }
        _ => drive.drive_id.clone(),
    }
}

fn ask(drive: &DriveFacts, fate: Fate, person: &mut dyn Person) -> bool {
    let id: Vec<char> = drive.drive_id.chars().collect();
    let tail: String = id[id.len().saturating_sub(ASKED)..].iter().collect();
    if tail.is_empty() {
        return false;
    }
    let what =
        if id.len() > ASKED { format!("the last {ASKED} characters of the serial") } else { "the serial".into() };
    let fate = match fate {
        Fate::Destroyed => "Everything on this drive will be destroyed",
        Fate::Repaired => "Damaged blocks of files on this drive will be written anew",
        Fate::Encrypted => {
            "The volume on this drive will be encrypted in place; keep the journal's directory safe until that is done"
        }
    };
    let mut text = format!(
        "\n{fate}:\n\
         \x20 drive   {} ({})\n\
         \x20 model   {}\n\
         \x20 serial  {}\n\
         \x20 size    {}\n\
         \x20 on it   {}\n\
         Type {what} to continue, or press Enter to stop: ",
        drive.name,
        drive.path.display(),
        drive.model.as_deref().unwrap_or("unknown"),
        called(drive),
        drive.size,
        drive.contents.as_deref().unwrap_or("nothing that dray knows"),
    );
    for _ in 0..TRIES {
        match person.ask(&text) {
            Some(answer) if answer.eq_ignore_ascii_case(&tail) || answer.eq_ignore_ascii_case(&drive.drive_id) => {
                return true;
            }
            Some(answer) if !answer.is_empty() => text = format!("That is not it. Type {what}: "),
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use dray_engine::units::ByteLen;

    struct Script {
        answers: Vec<&'static str>,
        there: bool,
        shown: String,
    }

    impl Script {
        fn new(answers: &[&'static str]) -> Self {
            Self { answers: answers.iter().rev().copied().collect(), there: true, shown: String::new() }
        }
    }

    impl Person for Script {
        fn is_there(&self) -> bool {
            self.there
        }

        fn ask(&mut self, text: &str) -> Option<String> {
            self.shown.push_str(text);
            self.answers.pop().map(str::to_owned)
        }
    }

    fn drive(name: &str) -> DriveFacts {
        DriveFacts {
            name: name.into(),
            path: "/dev/sdx".into(),
            drive_id: "WD-WX12A345678".into(),
            serial: Some("WD-WX12A345678".into()),
            for_shipping: true,
            model: Some("WDC WD40EFRX".into()),
            size: ByteLen(4_000_787_030_016),
            sector: 512,
            contents: Some("GPT, 2 partitions, NTFS \"data\"".into()),
            is_image: false,
            rotational: Some(true),
        }
    }

    fn silent(serials: &[&str]) -> Consent {
        Consent { silent: true, serials: serials.iter().map(|serial| (*serial).into()).collect() }
    }

    #[test]
    fn the_right_answer_is_consent_and_the_question_shows_the_drive() {
        let drive = drive("/dev/sdx");
        let mut person = Script::new(&["wrong", "345678"]);
        assert_eq!(gather(&[Asked::destroyed(3, &drive)], &Consent::default(), &mut person), Ok(vec![3]));
        for shown in ["WDC WD40EFRX", "WD-WX12A345678", "4.0 TB", "GPT, 2 partitions", "last 6"] {
            assert!(person.shown.contains(shown), "{shown}");
        }
    }

    #[test]
    fn encrypting_in_place_is_asked_for_as_what_it_is() {
        let drive = drive("/dev/sdx");
        let asked = Asked { index: 0, drive: &drive, fate: Fate::Encrypted, row: Some(RowConsent::SilentByLooseName) };
        let mut person = Script::new(&["345678"]);
        assert_eq!(gather(&[asked], &Consent::default(), &mut person), Ok(vec![0]));
        assert!(person.shown.contains("encrypted in place") && !person.shown.contains("destroyed"), "{}", person.shown);
        let problems = gather(&[asked], &silent(&[]), &mut Script::new(&[])).expect_err("refused");
        assert!(problems.0[0].what.contains("encrypting its volume in place"), "{problems:?}");
    }

    #[test]
    fn no_answer_wrong_answers_and_y_are_no_consent() {
        let drive = drive("/dev/sdx");
        for answers in [&[][..], &[""], &["y", "yes", "YES"], &["a", "b", "c", "345678"]] {
            let result = gather(&[Asked::destroyed(0, &drive)], &Consent::default(), &mut Script::new(answers));
            assert_eq!(result.expect_err("refused").0[0].kind, Kind::Refused, "{answers:?}");
        }
    }

    /// Interactive consent, consent by row and consent by serial: only a serial or a row that may consent counts.
    #[test]
    fn consent_is_a_serial_on_the_command_line_or_a_row_that_names_the_drive() {
        use RowConsent::{Prompt, Silent, SilentByLooseName};
        let mut nobody = Script { there: false, ..Script::new(&[]) };
        let drive = drive("/dev/sdx");
        for (row, silent_line, yes, is_consent) in [
            (Some(Silent), false, "", true),
            (Some(Silent), true, "", true),
            (Some(SilentByLooseName), false, "", false),
            (Some(SilentByLooseName), true, "", false),
            (Some(SilentByLooseName), true, "345678", false),
            (Some(SilentByLooseName), false, "WD-WX12A345678", true),
            (Some(Prompt), false, "", false),
            (Some(Prompt), true, "", false),
            (Some(Prompt), true, "wd-wx12a345678", true),
            (None, true, "", false),
            (None, false, "WD-WX12A345678", true),
        ] {
            let serials = if yes.is_empty() { Vec::new() } else { vec![yes.to_owned()] };
            let consent = Consent { silent: silent_line, serials };
            let asked = Asked { row, ..Asked::destroyed(0, &drive) };
            let result = gather(&[asked], &consent, &mut nobody);
            assert_eq!(result.is_ok(), is_consent, "{row:?} {silent_line} {yes:?}: {result:?}");
        }
        // A question is asked where the row calls for one, and only there.
        let asked = |row| Asked { row: Some(row), ..Asked::destroyed(0, &drive) };
        for (row, answers, shows) in [(Prompt, &["345678"][..], true), (Silent, &[], false)] {
            let mut person = Script::new(answers);
            assert_eq!(gather(&[asked(row)], &Consent::default(), &mut person), Ok(vec![0]), "{row:?}");
            assert_eq!(!person.shown.is_empty(), shows, "{row:?}");
        }
        let reported = gather(&[asked(Prompt)], &silent(&[]), &mut nobody).expect_err("refused");
        assert!(reported.0[0].what.contains("PromptOnFormat"), "{reported}");
    }

    #[test]
    fn the_hardwares_own_serial_is_always_named_and_is_consent_too() {
        let labelled = DriveFacts { drive_id: "LABEL-0001".into(), ..drive("/dev/sdx") };
        let mut person = Script::new(&["L-0001"]);
        assert!(gather(&[Asked::destroyed(0, &labelled)], &Consent::default(), &mut person).is_ok());
        assert!(person.shown.contains("LABEL-0001") && person.shown.contains("WD-WX12A345678"), "{}", person.shown);
        let reported =
            gather(&[Asked::destroyed(0, &labelled)], &silent(&[]), &mut Script::new(&[])).expect_err("refused");
        assert!(reported.to_string().contains("WD-WX12A345678"), "{reported}");
        assert!(gather(&[Asked::destroyed(0, &labelled)], &silent(&["WD-WX12A345678"]), &mut Script::new(&[])).is_ok());
        // A drive that reports no serial is not advised to be named by one.
        let device = DriveFacts { serial: None, drive_id: "loop0".into(), ..drive("/dev/loop0") };
        let asked = Asked { row: Some(RowConsent::SilentByLooseName), ..Asked::destroyed(0, &device) };
        let reported = gather(&[asked], &silent(&[]), &mut Script::new(&[])).expect_err("refused");
        assert!(!reported.0[0].advice.clone().unwrap_or_default().to_string().contains("serial:"), "{reported:?}");
    }

    #[test]
    fn a_serial_of_no_drive_is_told() {
        let drive = drive("/dev/sdx");
        let others = ["DONE-1".to_owned()];
        for good in ["WD-WX12A345678", "wd-wx12a345678", "done-1"] {
            assert_eq!(known(&silent(&[good]), &[&drive], &others), Ok(()), "{good}");
        }
        for bad in ["345678", "WD-WX12A345679", "", "/dev/sdx"] {
            let reported = known(&silent(&["WD-WX12A345678", bad]), &[&drive], &others).expect_err(bad);
            assert_eq!((reported.0.len(), reported.0[0].kind), (1, Kind::Refused), "{bad}");
        }
        assert!(known(&silent(&["X"]), &[], &[]).is_err());
    }

    #[test]
    fn a_drive_without_a_serial_is_never_consented_to() {
        let drive = DriveFacts { drive_id: String::new(), ..drive("serial:") };
        assert!(gather(&[Asked::destroyed(0, &drive)], &silent(&[""]), &mut Script::new(&[""])).is_err());
        assert!(gather(&[Asked::destroyed(0, &drive)], &Consent::default(), &mut Script::new(&["x"])).is_err());
    }

    #[test]
    fn one_refusal_refuses_all() {
        let (a, b) = (drive("serial:a"), drive("/dev/sdy"));
        let first = Asked { row: Some(RowConsent::Silent), ..Asked::destroyed(0, &a) };
        let problems =
            gather(&[first, Asked::destroyed(1, &b)], &silent(&[]), &mut Script::new(&[])).expect_err("refused");
        assert_eq!(problems.0.len(), 1);
    }
}
