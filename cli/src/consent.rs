//! The gate in front of destruction: a person, or a serial, must have said yes to each drive.

use std::io::{BufRead, IsTerminal, Write};

use dray_engine::report::{DriveFacts, Kind, Problem, Problems};

/// How many characters of the serial are asked for.
const ASKED: usize = 6;
/// How often a person may mistype.
const TRIES: usize = 3;

/// Consent that came with the command line.
#[derive(Clone, Debug, Default)]
pub struct Consent {
    /// Ask nothing.
    pub silent: bool,
    /// Full serials that were named.
    pub serials: Vec<String>,
}

/// What will be done to a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// What is on it is lost.
    Destroyed,
    /// The volume on it is encrypted in place.
    Encrypted,
}

/// A drive that somebody must say yes to.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Its index among all drives.
    pub index: usize,
    /// The drive.
    pub drive: &'a DriveFacts,
    /// What will be done to it.
    pub fate: Fate,
}

impl<'a> Asked<'a> {
    /// A drive whose contents will be lost.
    pub const fn destroyed(index: usize, drive: &'a DriveFacts) -> Self {
        Self { index, drive, fate: Fate::Destroyed }
    }
}

/// Somebody who can be asked.
pub trait Person {
    /// Whether anybody is there.
    fn is_there(&self) -> bool;
    /// Shows text and waits for a line; `None` when there is none.
    fn ask(&mut self, text: &str) -> Option<String>;
}

/// The person at the terminal; asked on stderr so that stdout stays clean.
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

/// Asks for every drive; all of them or none.
///
/// # Errors
/// The drives without consent, and how to give it.
pub fn gather(drives: &[Asked<'_>], consent: &Consent, person: &mut dyn Person) -> Result<Vec<usize>, Problems> {
    let mut consented = Vec::new();
    let mut problems = Problems::default();
    for &Asked { index, drive, fate } in drives {
        if named(drive, consent) {
            consented.push(index);
        } else if consent.silent {
            problems.push(match fate {
                Fate::Destroyed => refusal(drive, "nobody consented to destroying what is on it"),
                Fate::Encrypted => refusal(drive, "nobody consented to encrypting its volume in place"),
            });
        } else if !person.is_there() {
            problems.push(refusal(drive, "consent is needed and there is no terminal to ask on"));
        } else if ask(drive, fate, person) {
            consented.push(index);
        } else {
            problems.push(refusal(drive, "the question was not answered with its serial"));
            break;
        }
    }
    problems.into_result()?;
    Ok(consented)
}

/// Whether the command line consented: the full serial, or silence together with a name that is the serial.
fn named(drive: &DriveFacts, consent: &Consent) -> bool {
    if drive.drive_id.is_empty() {
        return false;
    }
    let by_serial = consent.serials.iter().any(|serial| serial.eq_ignore_ascii_case(&drive.drive_id));
    let name = drive.name.as_str();
    let is_identity =
        name.get(..7).is_some_and(|head| head.eq_ignore_ascii_case("serial:")) || name.starts_with("/dev/disk/by-id/");
    by_serial || consent.silent && is_identity
}

fn refusal(drive: &DriveFacts, why: &str) -> Problem {
    let serial = if drive.drive_id.is_empty() { "SERIAL" } else { &drive.drive_id };
    Problem::new(Kind::Refused, format!("{why}; nothing was written"))
        .drive(format!("{} ({})", drive.name, describe(drive)))
        .value(drive.contents.clone().unwrap_or_else(|| "blank".into()))
        .advice(format!("to consent: --yes {serial}, or --silent with serial:{serial} in the driveset"))
}

fn describe(drive: &DriveFacts) -> String {
    let model = drive.model.as_deref().unwrap_or("no model");
    format!("{model}, {}, {}", drive.drive_id, drive.size)
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
         Type {what} to go on, or press Enter to stop: ",
        drive.name,
        drive.path.display(),
        drive.model.as_deref().unwrap_or("unknown"),
        drive.drive_id,
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
        let asked = Asked { index: 0, drive: &drive, fate: Fate::Encrypted };
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

    #[test]
    fn silence_needs_a_name_that_is_the_serial_or_the_full_serial() {
        let mut nobody = Script { there: false, ..Script::new(&[]) };
        for name in ["serial:WD-WX12A345678", "SERIAL:WD-WX12A345678", "/dev/disk/by-id/ata-WDC_WD40"] {
            assert!(gather(&[Asked::destroyed(0, &drive(name))], &silent(&[]), &mut nobody).is_ok(), "{name}");
        }
        let sdx = drive("/dev/sdx");
        assert!(gather(&[Asked::destroyed(0, &sdx)], &silent(&[]), &mut nobody).is_err());
        assert!(gather(&[Asked::destroyed(0, &sdx)], &silent(&["345678"]), &mut nobody).is_err());
        assert!(gather(&[Asked::destroyed(0, &sdx)], &silent(&["WD-WX12A345678"]), &mut nobody).is_ok());
        let without_silent = Consent { silent: false, ..silent(&["WD-WX12A345678"]) };
        assert!(gather(&[Asked::destroyed(0, &sdx)], &without_silent, &mut nobody).is_ok());
        assert!(
            gather(&[Asked::destroyed(0, &drive("serial:WD-WX12A345678"))], &Consent::default(), &mut nobody).is_err()
        );
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
        let problems = gather(&[Asked::destroyed(0, &a), Asked::destroyed(1, &b)], &silent(&[]), &mut Script::new(&[]))
            .expect_err("refused");
        assert_eq!(problems.0.len(), 1);
    }
}
