//! Finds numerical passwords in a text: eight groups of six digits, at any position and with any separators.

use std::ops::Range;

use super::secret::SecretText;
use super::stretch::{RecoveryPassword, RecoveryPasswordError};
use crate::text;

/// Groups of a numerical password, and digits of a group.
const GROUPS: usize = 8;
const GROUP_DIGITS: usize = 6;

/// Characters between two groups: a line break and the indentation of the next line.
const BETWEEN_MAX: usize = 64;

/// Number of digits from which a text is taken for a numerical password.
const MEANT_DIGITS_MIN: usize = 36;

/// Eight groups of six digits, which need not be a password.
#[derive(Debug)]
pub struct DigitGroups {
    /// Range of the text, in bytes.
    pub range: Range<usize>,
    /// The digits, with `-` between the groups.
    pub digits: SecretText,
}

impl DigitGroups {
    /// The password of these digits.
    ///
    /// # Errors
    /// The mistyped group.
    pub fn password(&self) -> Result<RecoveryPassword, RecoveryPasswordError> {
        RecoveryPassword::parse(self.digits.expose())
    }
}

/// Kind of separator between two groups, the weakest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Between {
    Dash,
    Blank,
    Line,
}

struct Group {
    range: Range<usize>,
    /// Separator between it and the group before; `None`: something other than blanks and dashes.
    before: Option<Between>,
}

/// All runs of a text, in order. Runs overlap where more than eight groups could be divided into passwords in several
/// ways.
pub fn runs(text: &str) -> Vec<DigitGroups> {
    let groups = groups(text);
    let mut out = Vec::new();
    let mut from = 0;
    for to in 1..=groups.len() {
        if to == groups.len() || groups[to].before.is_none() {
            split(text, &groups[from..to], &mut out);
            from = to;
        }
    }
    out
}

/// The run of a text that consists of one run and nothing else.
pub fn only(text: &str) -> Option<DigitGroups> {
    let mut all = runs(text);
    let run = all.pop().filter(|_| all.is_empty())?;
    let others = text[..run.range.start].chars().chain(text[run.range.end..].chars());
    let mut others = others.filter(|c| !text::is_blank(*c));
    others.next().is_none().then_some(run)
}

/// The fault of a text without a run, if digits in it are meant to be one.
pub fn slip(text: &str) -> Option<RecoveryPasswordError> {
    let is_part = |c: char| digit(c).is_some() || is_joint(c);
    let parts = text.split(|c| !is_part(c));
    let meant = parts.max_by_key(|part| part.chars().filter_map(digit).count())?;
    if meant.chars().filter_map(digit).count() < MEANT_DIGITS_MIN {
        return None;
    }
    RecoveryPassword::parse(plain(meant).expose()).err()
}

/// Divides a sequence of groups into one run or several consecutive ones.
fn split(text: &str, groups: &[Group], out: &mut Vec<DigitGroups>) {
    if groups.len() < GROUPS {
        return;
    }
    if groups.len() == GROUPS {
        return out.push(run(text, groups));
    }
    // The weakest joints part the runs.
    let weakest = groups[1..].iter().filter_map(|group| group.before).max();
    let mut parts: Vec<&[Group]> = Vec::new();
    let mut from = 0;
    for to in 1..=groups.len() {
        if to == groups.len() || groups[to].before == weakest {
            parts.push(&groups[from..to]);
            from = to;
        }
    }
    if weakest > Some(Between::Dash) && parts.iter().any(|part| part.len() >= GROUPS) {
        return parts.into_iter().for_each(|part| split(text, part, out));
    }
    if groups.len().is_multiple_of(GROUPS) {
        return out.extend(groups.chunks(GROUPS).map(|chunk| run(text, chunk)));
    }
    out.extend(groups.windows(GROUPS).map(|window| run(text, window)).filter(|run| run.password().is_ok()));
}

fn run(text: &str, groups: &[Group]) -> DigitGroups {
    let mut digits = String::with_capacity(GROUPS * (GROUP_DIGITS + 1));
    for group in groups {
        if !digits.is_empty() {
            digits.push('-');
        }
        digits.extend(text[group.range.clone()].chars().filter_map(digit));
    }
    DigitGroups { range: groups[0].range.start..groups[groups.len() - 1].range.end, digits: SecretText::new(digits) }
}

/// The groups of six; 48 digits in one piece are eight of them.
fn groups(text: &str) -> Vec<Group> {
    let mut out: Vec<Group> = Vec::new();
    let mut end = None;
    let mut pending: Option<Range<usize>> = None;
    let mut digits: Vec<usize> = Vec::with_capacity(GROUPS * GROUP_DIGITS + 1);
    for (at, c) in text.char_indices().chain([(text.len(), '\0')]) {
        if digit(c).is_some() {
            if digits.len() <= GROUPS * GROUP_DIGITS {
                digits.push(at);
            }
            pending = Some(pending.map_or(at, |range| range.start)..at + c.len_utf8());
            continue;
        }
        let Some(range) = pending.take() else { continue };
        let before = end.and_then(|end: usize| between(&text[end..range.start]));
        let whole = digits.len() == GROUPS * GROUP_DIGITS;
        if digits.len() == GROUP_DIGITS || whole {
            let starts = digits.iter().step_by(GROUP_DIGITS).copied();
            let ends = digits.iter().skip(GROUP_DIGITS).step_by(GROUP_DIGITS).copied().chain([range.end]);
            for (index, (start, end)) in starts.zip(ends).enumerate() {
                // A piece of 48 digits stands alone.
                let before = if index > 0 { Some(Between::Dash) } else { before.filter(|_| !whole) };
                out.push(Group { range: start..end, before });
            }
            end = (!whole).then_some(range.end);
        } else {
            end = None;
        }
        digits.clear();
    }
    out
}

fn between(text: &str) -> Option<Between> {
    let has_break = text.contains(['\n', '\r', '\u{2028}', '\u{2029}', '\u{85}']);
    // Mail breaks lines with `=`, and quotes them with `>`.
    let is_part = |c: char| is_joint(c) || has_break && matches!(c, '=' | '>');
    if text.len() > BETWEEN_MAX || !text.chars().all(is_part) {
        return None;
    }
    Some(match (text.contains(|c| is_joint(c) && !text::is_blank(c)), has_break) {
        (true, _) => Between::Dash,
        (false, false) => Between::Blank,
        (false, true) => Between::Line,
    })
}

/// Whether a character may separate two groups: blanks, dashes, and the result of reading a dash in another encoding.
fn is_joint(c: char) -> bool {
    text::is_dash(c) || text::is_blank(c) || !c.is_ascii() && digit(c).is_none()
}

/// Dashes as `-`, without blanks, digits as ASCII.
fn plain(text: &str) -> SecretText {
    let mut out = String::with_capacity(text.len());
    let mut gap = false;
    for c in text.chars() {
        match digit(c) {
            Some(digit) => {
                if std::mem::take(&mut gap) && !out.is_empty() {
                    out.push('-');
                }
                out.push(digit);
            }
            None => gap = true,
        }
    }
    SecretText::new(out)
}

/// ASCII and the wide digits of East Asian input methods.
fn digit(c: char) -> Option<char> {
    match c {
        '0'..='9' => Some(c),
        '\u{FF10}'..='\u{FF19}' => char::from_digit(c as u32 - 0xFF10, 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Published examples.
    const ONE: &str = "060456-014509-132033-080300-252615-584177-672089-411631";
    const TWO: &str = "238810-662376-448998-450120-652806-203390-606320-483076";

    fn found(text: &str) -> Vec<String> {
        runs(text).iter().map(|run| run.digits.expose().to_owned()).collect()
    }

    #[test]
    fn a_run_is_found_whatever_is_around_it_and_between() {
        for dash in ["-", " - ", "\u{2010}", "\u{2011}", "\u{2013}", "\u{2014}", "\u{2015}", "\u{2212}", " ", "\u{A0}"]
            .into_iter()
            .chain(["\u{FFFD}", "\u{e2}\u{20ac}\u{201c}", "=\r\n", "-\n> "])
            .chain(["\n", "\r\n\t", "-\r\n", "\u{200B}-", "\u{AD}", "\u{FF0D}", ""])
        {
            let text = ONE.replace('-', dash);
            for (before, after) in [("", ""), ("Key:", "\n"), ("1,", ",x"), ("\"", "\""), ("n", ";"), ("<K>", "</K>")] {
                assert_eq!(found(&format!("{before}{text}{after}")), [ONE], "{before}{dash:?}{after}");
            }
        }
        let wide: String =
            ONE.chars().map(|c| c.to_digit(10).map_or(c, |d| char::from_u32(0xFF10 + d).unwrap())).collect();
        assert_eq!(found(&wide), [ONE]);
    }

    #[test]
    fn runs_behind_each_other_are_parted_where_they_hang_together_least() {
        for joint in ["\n", " ", "\t", "\r\n\r\n", "\nDrive 2: ", ",", " | "] {
            assert_eq!(found(&format!("{ONE}{joint}{TWO}")), [ONE, TWO], "{joint:?}");
        }
        let lines = |key: &str| key.replacen('-', "\n", 4).replace('-', " ");
        assert_eq!(found(&format!("{}\n{}", lines(ONE), lines(TWO))), [ONE, TWO]);
        assert_eq!(found(&format!("{ONE}-{TWO}")), [ONE, TWO]);
        assert_eq!(found(&format!("{}\n{}", ONE.replace('-', ""), TWO.replace('-', ""))), [ONE, TWO]);
        // A serial of six digits in the same row.
        assert_eq!(found(&format!("{ONE}  123456")), [ONE]);
        assert_eq!(found(&format!("123456\n{ONE}")), [ONE]);
        // One that could be a group: both ways are found.
        assert_eq!(found(&format!("000011-{ONE}")), [format!("000011-{}", &ONE[..ONE.len() - 7]).as_str(), ONE]);
    }

    #[test]
    fn other_digits_are_no_run() {
        for text in ["", "2026-11-28 12:00:00", &ONE[7..], "123456789012", "64311DEA-4587-4029-924A-BA299647998E"] {
            assert!(found(text).is_empty(), "{text}");
        }
        assert!(only(ONE).is_some() && only(&format!("\u{A0}{ONE}\n")).is_some());
        for text in ["", &ONE[7..], &format!("{ONE} {TWO}"), &format!("Key: {ONE}")] {
            assert!(only(text).is_none(), "{text}");
        }
        assert_eq!(
            runs(&ONE.replace("014509", "014508"))[0].password().unwrap_err(),
            RecoveryPasswordError::Mistyped { group: 2 }
        );
    }

    #[test]
    fn a_slip_is_named() {
        use RecoveryPasswordError::{GroupLength, Groups};
        assert_eq!(
            slip(&format!("Key: {}.", ONE.replace("014509", "14509"))),
            Some(GroupLength { group: 2, found: 5 })
        );
        assert_eq!(slip(&format!("Key:\u{A0}{}", &ONE[7..].replace('-', "\u{2013}"))), Some(Groups { found: 7 }));
        assert_eq!(slip("call 0123456789"), None);
    }
}
