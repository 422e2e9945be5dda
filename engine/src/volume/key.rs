//! Keys for unlocking a drive, in all the forms that the service and Windows provide.

use std::fmt;

use serde_json::Value;
use zeroize::Zeroizing;

use crate::azure::{Digest, SecretText, drive_record};
use crate::bitlocker::keys::{self, KeyInput, KeyInputError};
use crate::bitlocker::read::{self, ProtectorKind, UnlockError};
use crate::crypt::printed::{self, DigitGroups};
use crate::crypt::stretch::RecoveryPasswordError;
use crate::report::{Advice, Kind, Problem, Setting};
use crate::text;

/// Longest key file: a journal of a long session holds drive records.
pub const KEY_FILE_LEN_MAX: usize = 16 << 20;

/// Most keys tried on one volume, those that name it first: each costs a second of stretching.
const TRIED_MAX: usize = 100;

/// Characters of the base64 of 32 bytes, less its padding.
const BASE64_LEN_MIN: usize = 43;

/// Most words kept around a key.
const WORDS_MAX: usize = 64;

/// Lengths of words that may be a serial number or the identifier of a protector.
const WORD_LENS: std::ops::RangeInclusive<usize> = 3..=64;

/// Forms of a key, for messages.
const FORMS: &str =
    "a drive record, the JSON of listBitLockerKeys, a .BEK file, a text with 48 digits, base64, or a password";

/// Facts of a drive record other than its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Serial of the drive.
    pub drive_id: String,
    /// Path of the manifest on the drive.
    pub manifest_file: Option<String>,
    /// Hash of the manifest.
    pub manifest_hash: Option<Digest>,
    /// The record was written before the drive was finished.
    pub is_incomplete: bool,
}

#[derive(Debug)]
struct Candidate {
    /// Serial of the drive that it is for, if its source names one.
    drive_id: Option<String>,
    /// Words around it in a text.
    near: Near,
    input: KeyInput,
    /// The drive record that contained it.
    record: Option<Record>,
}

impl Candidate {
    fn new(drive_id: Option<String>, input: KeyInput) -> Self {
        Self { drive_id, near: Near::default(), input, record: None }
    }
}

/// Words around a key in a text: one may be the serial of its drive, or the identifier of its protector.
#[derive(Clone, Default)]
struct Near {
    /// Words on its line.
    line: Vec<String>,
    /// Words between it and the keys before and after it.
    around: Vec<String>,
}

impl Near {
    /// Words around the key at `run`; the neighbouring keys end and begin at the bytes of `room`.
    fn of(text: &str, run: &DigitGroups, room: [usize; 2]) -> Self {
        let words = |text: &str| -> Vec<String> {
            let is_part = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '=' | '#');
            let words = text.split(|c| !is_part(c)).filter(|word| WORD_LENS.contains(&word.len()));
            words.take(WORDS_MAX).map(str::to_owned).collect()
        };
        let (before, behind) = (&text[room[0]..run.range.start], &text[run.range.end..room[1]]);
        let line = format!(
            "{} {}",
            before.rsplit(['\n', '\r']).next().unwrap_or_default(),
            behind.split(['\n', '\r']).next().unwrap_or_default()
        );
        Self { line: words(&line), around: words(&format!("{before} {behind}")) }
    }
}

impl fmt::Debug for Near {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Text of a key file.
        f.write_str("<secret>")
    }
}

/// Keys to try, in order, with the facts that came with them.
#[derive(Debug, Default)]
pub struct Key {
    candidates: Vec<Candidate>,
    /// Faults of runs of digits that are no key, in a text with valid ones.
    slips: Vec<RecoveryPasswordError>,
}

/// The key that opened a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opener {
    /// Kind of the key, in words.
    pub by: &'static str,
    /// The drive record that contained it.
    pub record: Option<Record>,
}

impl Key {
    /// No key: for volumes whose key is stored unprotected, or that are not encrypted.
    pub fn none() -> Self {
        Self::default()
    }

    /// Whether there are no candidates.
    pub fn is_none(&self) -> bool {
        self.candidates.is_empty()
    }

    /// Whether one of the keys comes with a drive record.
    pub fn has_record(&self) -> bool {
        self.candidates.iter().any(|one| one.record.is_some())
    }

    /// The drive record of the only drive that there are keys for.
    pub fn only_record(&self) -> Option<&Record> {
        let mut all = self.candidates.iter().filter_map(|one| one.record.as_ref());
        let first = all.next()?;
        all.all(|other| same(&other.drive_id, &first.drive_id)).then_some(first)
    }

    /// Adds the keys of another file.
    pub fn join(&mut self, other: Self) {
        self.candidates.extend(other.candidates);
        self.slips.extend(other.slips);
    }

    /// The drive records among the keys that name this drive.
    pub fn records<'a>(&'a self, drive_id: &'a str) -> impl Iterator<Item = &'a Record> {
        self.candidates
            .iter()
            .filter_map(|one| one.record.as_ref())
            .filter(move |record| same(&record.drive_id, drive_id))
    }

    /// Reads a drive record, the JSON of `listBitLockerKeys` (or `listCredentials`), a `.BEK` file, or a text: one with
    /// eight groups of six digits anywhere in it, the base64 of an external key, or a user's password. Text in any of
    /// the forms of [`text::decode`]; every key in it is taken.
    ///
    /// # Errors
    /// The form that it resembles and its fault, such as the mistyped group of digits. Never its contents.
    pub fn read(input: &[u8]) -> Result<Self, Problem> {
        let mut key = Self::default();
        if keys::looks_like_key_file(input) {
            key.add(None, input)?;
            return Ok(key);
        }
        let decoded = Zeroizing::new(text::decode(input).into_owned());
        // Of a code page only the ASCII counts.
        let whole = Zeroizing::new(String::from_utf8_lossy(&decoded).into_owned());
        let text = whole.trim();
        let shaped = match text.as_bytes() {
            [b'<', ..] => Some(Self::read_record(&decoded)),
            _ if text.starts_with("[Begin") => Some(Self::read_record(&decoded)),
            [b'{' | b'[', ..] => Some(Self::read_json(text)),
            _ => None,
        };
        let failed = match shaped {
            Some(Ok(read)) => {
                key = read;
                None
            }
            Some(Err(problem)) => Some(problem),
            None => None,
        };
        let slip = key.add_runs(text);
        match (failed, slip) {
            _ if !key.is_none() => Ok(key),
            (Some(problem), _) => Err(problem),
            (None, Some(slip)) => Err(unusable(&slip.into())),
            (None, None) if key.add_words(text) => Ok(key),
            (None, None) => key.add(None, input).map(|()| key),
        }
    }

    /// Takes a text for a user's password, whatever form it has.
    pub fn password(text: &str) -> Self {
        Self { candidates: vec![Candidate::new(None, KeyInput::password(text))], slips: Vec::new() }
    }

    /// Adds every numerical password of a text that is not among the keys yet. Returns the fault of the first invalid
    /// one, if there is no valid one.
    fn add_runs(&mut self, text: &str) -> Option<RecoveryPasswordError> {
        let runs = printed::runs(text);
        let mut known: Vec<SecretText> = Vec::new();
        for candidate in &self.candidates {
            if let KeyInput::Recovery(password) = &candidate.input {
                known.push(SecretText::new(password.printed().expose()));
            }
        }
        for (index, run) in runs.iter().enumerate() {
            let from = index.checked_sub(1).map_or(0, |before| runs[before].range.end.min(run.range.start));
            let to = runs.get(index + 1).map_or(text.len(), |next| next.range.start.max(run.range.end));
            match run.password() {
                Ok(_) if known.iter().any(|one| one.expose() == run.digits.expose()) => {}
                Ok(password) => {
                    known.push(SecretText::new(run.digits.expose()));
                    let near = Near::of(text, run, [from, to]);
                    self.candidates.push(Candidate { near, ..Candidate::new(None, KeyInput::Recovery(password)) });
                }
                Err(slip) => self.slips.push(slip),
            }
        }
        self.slips.first().copied().filter(|_| self.is_none())
    }

    /// Adds every word that is an external key in base64, from a text of several words such as a table or a quotation.
    fn add_words(&mut self, text: &str) -> bool {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '-' | '_');
        let words: Vec<&str> = text.split(|c| !is_part(c)).filter(|word| !word.is_empty()).collect();
        for word in words.iter().filter(|word| words.len() > 1 && word.len() >= BASE64_LEN_MIN) {
            if let Ok(input @ KeyInput::External { .. }) = KeyInput::parse(word.as_bytes()) {
                self.candidates.push(Candidate::new(None, input));
            }
        }
        !self.is_none()
    }

    fn add(&mut self, drive_id: Option<String>, input: &[u8]) -> Result<(), Problem> {
        let text = text::decode_text(input).ok();
        // One line end is the editor's; blanks may be the user's.
        let password = text
            .as_ref()
            .map(|text| text.strip_suffix('\n').unwrap_or(text))
            .map(|text| text.strip_suffix('\r').unwrap_or(text));
        // 256 units is the longest that Windows takes.
        let password = password.filter(|text| {
            !text.trim().is_empty() && text.encode_utf16().count() <= 256 && !text.contains(['\n', '\r'])
        });
        match KeyInput::parse(input) {
            Ok(input) => {
                let may_be_password = matches!(input, KeyInput::External { .. });
                self.candidates.push(Candidate::new(drive_id.clone(), input));
                // A password may look like base64.
                if let (true, Some(text)) = (may_be_password, password) {
                    self.candidates.push(Candidate::new(drive_id, KeyInput::password(text)));
                }
                Ok(())
            }
            Err(error) => {
                let digits = input.iter().filter(|byte| byte.is_ascii_digit()).count();
                let meant_recovery = matches!(error, KeyInputError::Recovery(_)) && digits >= 36;
                match password {
                    Some(text) if !meant_recovery && !matches!(error, KeyInputError::KeyFile(_)) => {
                        self.candidates.push(Candidate::new(drive_id, KeyInput::password(text)));
                        Ok(())
                    }
                    _ => Err(unusable(&error)),
                }
            }
        }
    }

    fn read_record(input: &[u8]) -> Result<Self, Problem> {
        let record =
            drive_record::read(input).map_err(|error| Problem::new(Kind::Usage, format!("the key file {error}")))?;
        let mut key = Self::default();
        let secret = record.bitlocker_key.as_ref().map(SecretText::expose).ok_or_else(|| {
            Problem::new(Kind::Usage, "the drive record holds no BitLocker key").value(record.drive_id.clone())
        })?;
        key.add(Some(record.drive_id.clone()), secret.as_bytes()).map_err(|problem| Problem {
            what: format!("in the record of drive {}: {}", record.drive_id, problem.what),
            ..problem
        })?;
        let record = Record {
            drive_id: record.drive_id,
            manifest_file: record.manifest_file,
            manifest_hash: record.manifest_hash,
            is_incomplete: record.state == Some(drive_record::RecordState::Incomplete),
        };
        for candidate in &mut key.candidates {
            candidate.record = Some(record.clone());
        }
        Ok(key)
    }

    /// Every object with a `bitLockerKey`, at any depth: `{"value":[{"driveId","bitLockerKey"}]}` of
    /// `listBitLockerKeys`, `{"diskSecrets":[{"diskSerialNumber","bitLockerKey"}]}` of `listCredentials`, a list or one entry
    /// alone, a job with its `driveList` (docs/spec/import-export.md#arm-rest and
    /// docs/spec/import-export.md#data-box-jobs). One bad key of several is reported, not skipped.
    fn read_json(text: &str) -> Result<Self, Problem> {
        let wrong = |what: &str| Problem::new(Kind::Usage, format!("the key file is JSON, but {what}"));
        let json: Value = serde_json::from_str(text).map_err(|_| wrong("not well-formed"))?;
        let mut key = Self::default();
        // The parser bounds how deep they nest.
        let mut pending = vec![&json];
        while let Some(value) = pending.pop() {
            let fields = match value {
                Value::Array(entries) => {
                    pending.extend(entries.iter().rev());
                    continue;
                }
                Value::Object(fields) => fields,
                _ => continue,
            };
            let field = |name: &str| {
                let (_, value) = fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name))?;
                value.as_str().filter(|text| !text.trim().is_empty())
            };
            if let Some(secret) = field("bitLockerKey") {
                let drive_id = field("driveId").or_else(|| field("diskSerialNumber")).map(str::to_owned);
                let named = drive_id.clone().unwrap_or_default();
                key.add(drive_id, secret.as_bytes()).map_err(|problem| problem.value(format!("drive {named}")))?;
            } else {
                pending.extend(fields.values());
            }
        }
        if key.is_none() { Err(wrong("without any bitLockerKey")) } else { Ok(key) }
    }

    /// Tries the keys that could fit: first those that name this drive, by any of its names, then those that name none,
    /// then the rest.
    pub(super) fn open(
        &self,
        volume: &read::Volume,
        drive_ids: &[&str],
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(read::Unlocked, Opener), Problem> {
        if self.is_none() && volume.is_suspended() {
            let opener = Opener { by: word(&KeyInput::Clear), record: None };
            return match volume.unlock(&KeyInput::Clear, progress) {
                Ok(unlocked) => Ok((unlocked, opener)),
                Err(error) => Err(Problem::new(Kind::Drive, format!("its clear key does not work: {error}"))),
            };
        }
        if self.is_none() {
            return Err(Problem::new(Kind::Usage, "the volume is locked, and no key was given").advice(
                Advice::from(Setting::KeyFile) + " or " + Setting::KeyFd + ", or answer the question at a terminal",
            ));
        }
        let mut ordered: Vec<(Rank, &Candidate)> =
            self.candidates.iter().map(|candidate| (rank(candidate, volume, drive_ids), candidate)).collect();
        ordered.sort_by_key(|(rank, _)| *rank);
        let mut worst: Option<UnlockError> = None;
        for (_, candidate) in ordered.iter().take(TRIED_MAX) {
            match volume.unlock(&candidate.input, progress) {
                Ok(unlocked) => {
                    let opener = Opener { by: word(&candidate.input), record: candidate.record.clone() };
                    return Ok((unlocked, opener));
                }
                // The error of a key that fitted a protector and failed is more useful than that of one that fitted
                // none.
                Err(error) => match (&worst, &error) {
                    (Some(_), UnlockError::NoSuchProtector { .. }) => {}
                    _ => worst = Some(error),
                },
            }
        }
        let error = worst.unwrap_or(UnlockError::WrongSecret);
        let problem = Problem::new(kind_of(&error), error.to_string());
        let advice = self.advice(volume, drive_ids, &ordered);
        Err(if advice.is_empty() { problem } else { problem.advice(advice.join("; ")) })
    }

    /// What may be wrong with keys that do not open the volume. `ordered`: all of them.
    fn advice(&self, volume: &read::Volume, drive_ids: &[&str], ordered: &[(Rank, &Candidate)]) -> Vec<String> {
        let ids =
            volume.metadata.protectors.iter().filter(|protector| protector.kind == ProtectorKind::RecoveryPassword);
        let ids: Vec<String> = ids.map(|protector| protector.id.to_string().to_uppercase()).collect();
        let mut advice = Vec::new();
        let others = ordered.iter().filter(|(rank, _)| *rank == Rank::Other);
        let others: Vec<&str> = others.filter_map(|(_, one)| one.drive_id.as_deref()).collect();
        if !drive_ids.is_empty() && others.len() == ordered.len() {
            advice.push(format!("the keys are said to be of drive {}", list(&others)));
        }
        if ordered.len() > TRIED_MAX {
            advice.push(format!("{} keys were given and {TRIED_MAX} tried: give those of this drive", ordered.len()));
        }
        if let Some(slip) = self.slips.first() {
            advice.push(format!("another run of digits in the file is no key: {slip}"));
        }
        if !ids.is_empty() {
            advice.push(format!("its numerical password belongs to protector {}", ids.join(" or ")));
        }
        advice
    }
}

/// Relation of a key's context to a volume; the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// The key's source names the drive or its protector.
    Named,
    /// The name of drive or protector is nearby in the text.
    Near,
    /// No drive is named.
    Unnamed,
    /// Another drive is named.
    Other,
}

/// Rank of a key for a volume on a drive with these names.
fn rank(candidate: &Candidate, volume: &read::Volume, drive_ids: &[&str]) -> Rank {
    let is_mine = |word: &str| drive_ids.iter().any(|mine| same(mine, word));
    let protectors = &volume.metadata.protectors;
    let names = |word: &String| is_mine(word) || protectors.iter().any(|one| same(&one.id.to_string(), word));
    match &candidate.drive_id {
        Some(id) if is_mine(id) => Rank::Named,
        Some(_) => Rank::Other,
        None if candidate.near.line.iter().any(names) => Rank::Named,
        None if candidate.near.around.iter().any(names) => Rank::Near,
        None => Rank::Unnamed,
    }
}

/// Kind of the problem when no key opens a volume: a slip in the keys, or a fault of the drive.
const fn kind_of(error: &UnlockError) -> Kind {
    match error {
        UnlockError::NotEncrypted
        | UnlockError::NoSuchProtector { .. }
        | UnlockError::OtherKeyFile { .. }
        | UnlockError::WrongSecret => Kind::Usage,
        UnlockError::ProtectorDamaged { .. }
        | UnlockError::Method { .. }
        | UnlockError::NoSectorKey
        | UnlockError::SectorKeyDamaged
        | UnlockError::KeyType { .. }
        | UnlockError::KeyLength { .. } => Kind::Drive,
    }
}

/// A file that holds no key.
fn unusable(error: &KeyInputError) -> Problem {
    Problem::new(Kind::Usage, format!("the key cannot be used: {error}")).advice(FORMS)
}

/// Compares serials, ignoring case and surrounding blanks.
fn same(one: &str, other: &str) -> bool {
    one.trim().eq_ignore_ascii_case(other.trim())
}

/// The first few of a list, without repetition.
fn list(ids: &[&str]) -> String {
    let mut ids = ids.to_vec();
    ids.dedup();
    let more = if ids.len() > 3 { " …" } else { "" };
    ids.truncate(3);
    format!("{}{more}", ids.join(", "))
}

fn word(input: &KeyInput) -> &'static str {
    match input {
        KeyInput::Recovery(_) => "numerical password",
        KeyInput::Password(_) => "password",
        KeyInput::External { .. } => "external key",
        KeyInput::Clear => "clear key",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "235818-357951-253979-013365-241120-245575-342914-591910";

    fn kinds(input: &str) -> Vec<&'static str> {
        Key::read(input.as_bytes()).unwrap().candidates.iter().map(|candidate| word(&candidate.input)).collect()
    }

    // Published examples.
    const OTHER: &str = "060456-014509-132033-080300-252615-584177-672089-411631";

    fn wide(text: &str, mark: bool, little: bool) -> Vec<u8> {
        let units = ["\u{FEFF}", text][usize::from(!mark)..].concat();
        units.encode_utf16().flat_map(|unit| if little { unit.to_le_bytes() } else { unit.to_be_bytes() }).collect()
    }

    #[test]
    fn every_key_of_any_text_is_taken() {
        let entry = |key: &str| format!("{{\"driveId\":\"D\",\"bitLockerKey\":\"{key}\"}}");
        let dashes = PRINTED.replace('-', "\u{2013}");
        let table =
            format!("BitLockerKey{:43}  DriveId\n{}  -------\n{PRINTED}  9CAFE\n{OTHER}  9CAFF\n", "", "-".repeat(55));
        let record = |key: &str| format!("<Drive><DriveId>D</DriveId><BitLockerKey>{key}</BitLockerKey></Drive>");
        let filler = "2026-11-28 12:00:00.123 [INFO] copied 48 files of 123456 bytes\r\n".repeat(200);
        for (text, count) in [
            (format!("Drive 1: {PRINTED}\nDrive 2: {OTHER}\n"), 2),
            (format!("Key:{PRINTED}"), 1),
            (format!("000011-{PRINTED}, once more"), 2),
            (format!("\"{PRINTED}\",\"D\"\r\n"), 1),
            (format!("\"{PRINTED}\"\n"), 1),
            (format!("{PRINTED}\t9CAFE\n{OTHER}\t9CAFF\n"), 2),
            (table, 2),
            (format!("value:\n- bitLockerKey: {PRINTED}\n  driveId: 9CAFE\n- bitLockerKey: {OTHER}\n"), 2),
            (format!("[\n  \"{PRINTED}\",\n  \"{OTHER}\"\n]\n"), 2),
            (format!("{{\"value\":[{},{}]}}", entry(PRINTED), entry(OTHER)), 2),
            (format!("{{\"value\":[{},{}]", entry(PRINTED), entry(OTHER)), 2),
            (format!("{{\"Count\":1,\"value\":[\"@{{bitLockerKey={PRINTED}; driveId=9CAFE}}\"]}}"), 1),
            (format!("<DriveList>{}{}</DriveList>", record(PRINTED), record(OTHER)), 2),
            (format!("<BitLockerKey>{PRINTED}</BitLockerKey>"), 1),
            (record(&dashes), 1),
            (format!("{filler}Recovery Key:\r\n\r\n\t{dashes}\r\n{filler}"), 1),
            (PRINTED.replace('-', "\u{A0}\u{2011}\u{200B}"), 1),
        ] {
            let forms = [
                text.clone().into_bytes(),
                format!("\u{FEFF}{text}").into_bytes(),
                wide(&text, true, true),
                wide(&text, true, false),
                wide(&text, false, true),
                wide(&text, false, false),
            ];
            for (form, input) in forms.iter().enumerate() {
                let key = Key::read(input).unwrap_or_else(|problem| panic!("{text} in form {form}: {problem}"));
                let words: Vec<_> = key.candidates.iter().map(|candidate| word(&candidate.input)).collect();
                assert_eq!(words, vec!["numerical password"; count], "{text} in form {form}");
            }
        }
        // Of a code page: `clé`.
        let latin = [b"cl\xE9 : ", PRINTED.as_bytes()].concat();
        assert_eq!(Key::read(&latin).unwrap().candidates.len(), 1);
        let base64 = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        for text in [format!("BitLockerKey  DriveId\n{base64}  9CAFE"), format!("\"{base64}\",\"x\"\n")] {
            assert_eq!(kinds(&text), ["external key"], "{text}");
        }
        assert!(!format!("{:?}", Key::read(format!("Drive 1: {PRINTED}").as_bytes())).contains("Drive 1"));
    }

    #[test]
    fn what_names_the_drive_is_known_wherever_it_stands() {
        for (text, line, around) in [
            (format!("{PRINTED}\t9CAFE\n{OTHER}\t9CAFF\n"), true, true),
            (format!("- bitLockerKey: {PRINTED}\n  driveId: 9CAFE\n- bitLockerKey: {OTHER}"), false, true),
            (format!("driveId: 9CAFE\n{PRINTED}\n{OTHER}\n"), false, true),
            (format!("{PRINTED}\n{OTHER}\n9CAFE"), false, false),
        ] {
            let key = Key::read(text.as_bytes()).unwrap();
            let near = &key.candidates[0].near;
            let has = |words: &[String]| words.iter().any(|word| word == "9CAFE");
            assert_eq!((has(&near.line), has(&near.around)), (line, around), "{text}");
            assert!(!key.candidates[1].near.line.iter().any(|word| word == "9CAFE"), "{text}");
        }
    }

    #[test]
    fn a_bad_run_beside_a_good_one_is_remembered() {
        let slip = OTHER.replace("014509", "014508");
        let key = Key::read(format!("{slip}\n{PRINTED}").as_bytes()).unwrap();
        assert_eq!((key.candidates.len(), key.slips.len()), (1, 1));
        let problem = Key::read(format!("Key: {slip}, of drive D\n").as_bytes()).unwrap_err();
        assert!(problem.what.contains("group 2") && !problem.to_string().contains("014508"), "{problem}");
        let short = Key::read(format!("Key: {}", &PRINTED[7..]).as_bytes()).unwrap_err();
        assert!(short.what.contains('7'), "{short}");
    }

    #[test]
    fn every_form_is_known() {
        assert_eq!(kinds(PRINTED), ["numerical password"]);
        assert_eq!(kinds("anaconda\u{a3}\n"), ["password"]);
        assert_eq!(kinds("12345678"), ["password"]);
        assert_eq!(kinds("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="), ["external key", "password"]);
        assert_eq!(
            kinds(&format!("<Drive><DriveId>D</DriveId><BitLockerKey>{PRINTED}</BitLockerKey></Drive>")),
            ["numerical password"]
        );
        let entry = format!("{{\"driveId\":\"D\",\"bitLockerKey\":\"{PRINTED}\"}}");
        for json in [format!("{{\"value\":[{entry},{entry}]}}"), format!("[{entry},{entry}]")] {
            assert_eq!(kinds(&json), ["numerical password"; 2]);
        }
        assert_eq!(kinds(&entry), ["numerical password"]);
    }

    #[test]
    fn a_mistyped_group_is_named_before_any_stretching() {
        let problem = Key::read(PRINTED.replace("253979", "253978").as_bytes()).unwrap_err();
        assert!(problem.what.contains('3'), "{problem}");
        assert!(!problem.to_string().contains("253978"));
        for input in ["", " \n", "{\"value\":[]}", "{", "<Drive><DriveId>D</DriveId></Drive>"] {
            assert!(Key::read(input.as_bytes()).is_err(), "{input:?}");
        }
    }
}
