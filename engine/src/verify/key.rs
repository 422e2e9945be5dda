//! What a person or a file brings to unlock a drive, in all the forms that the service and Windows hand out.

use serde_json::Value;

use crate::azure::drive_record;
use crate::azure::{Digest, SecretText};
use crate::bitlocker::keys::{KeyInput, KeyInputError};
use crate::bitlocker::read::{self, ProtectorKind, UnlockError};
use crate::report::{Kind, Problem};

/// Longest key file: a journal of a long session holds drive records.
pub const KEY_FILE_LEN_MAX: usize = 16 << 20;

/// Keys of one JSON list that are tried: each costs a second of stretching.
const LISTED_MAX: usize = 100;

/// What a drive record says beside its key.
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
    /// Serial of the drive that it is said to open.
    drive_id: Option<String>,
    input: KeyInput,
    /// The drive record it came in.
    record: Option<Record>,
}

/// Keys to try, in order, and what came with them.
#[derive(Debug, Default)]
pub struct Key {
    candidates: Vec<Candidate>,
}

/// What opened a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opener {
    /// What kind of key it was, in words.
    pub by: &'static str,
    /// The drive record it came in.
    pub record: Option<Record>,
}

impl Key {
    /// No key: for volumes that carry theirs in the open, or that are not encrypted.
    pub fn none() -> Self {
        Self::default()
    }

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        self.candidates.is_empty()
    }

    /// Adds what another file brings.
    pub fn join(&mut self, other: Self) {
        self.candidates.extend(other.candidates);
    }

    /// The drive records among the keys that name this drive.
    pub fn records<'a>(&'a self, drive_id: &'a str) -> impl Iterator<Item = &'a Record> {
        self.candidates
            .iter()
            .filter_map(|one| one.record.as_ref())
            .filter(move |record| same(&record.drive_id, drive_id))
    }

    /// Reads a drive record, the JSON of `listBitLockerKeys` (or `listCredentials`), a `.BEK` file, or a text: 48 digits,
    /// the base64 of an external key, or a user's password.
    ///
    /// # Errors
    /// What it resembles and what is wrong with it, such as which group of digits is mistyped. Never its contents.
    pub fn read(input: &[u8]) -> Result<Self, Problem> {
        let text = std::str::from_utf8(input).ok().map(|text| text.trim_start_matches('\u{FEFF}').trim());
        match text {
            Some(text) if text.starts_with('<') || text.starts_with("[Begin") => return Self::read_record(input),
            Some(text) if text.starts_with('{') || text.starts_with('[') => return Self::read_json(text),
            _ => {}
        }
        let mut key = Self::default();
        key.add(None, input)?;
        Ok(key)
    }

    /// Takes a secret that is a user's password and nothing else, whatever it looks like.
    pub fn password(text: &str) -> Self {
        Self { candidates: vec![Candidate { drive_id: None, input: KeyInput::password(text), record: None }] }
    }

    fn add(&mut self, drive_id: Option<String>, input: &[u8]) -> Result<(), Problem> {
        let password = std::str::from_utf8(input).ok().map(|text| text.trim_start_matches('\u{FEFF}'));
        // One line end is the editor's; blanks may be the user's.
        let password = password
            .map(|text| text.strip_suffix('\n').unwrap_or(text))
            .map(|text| text.strip_suffix('\r').unwrap_or(text));
        // 256 units is the longest that Windows takes.
        let password = password.filter(|text| {
            !text.trim().is_empty() && text.encode_utf16().count() <= 256 && !text.contains(['\n', '\r'])
        });
        match KeyInput::parse(input) {
            Ok(input) => {
                let may_be_password = matches!(input, KeyInput::External { .. });
                self.candidates.push(Candidate { drive_id: drive_id.clone(), input, record: None });
                // A password may look like base64.
                if let (true, Some(text)) = (may_be_password, password) {
                    self.candidates.push(Candidate { drive_id, input: KeyInput::password(text), record: None });
                }
                Ok(())
            }
            Err(error) => {
                let digits = input.iter().filter(|byte| byte.is_ascii_digit()).count();
                let meant_recovery = matches!(error, KeyInputError::Recovery(_)) && digits >= 36;
                match password {
                    Some(text) if !meant_recovery && !matches!(error, KeyInputError::KeyFile(_)) => {
                        self.candidates.push(Candidate { drive_id, input: KeyInput::password(text), record: None });
                        Ok(())
                    }
                    _ => Err(Problem::new(Kind::Usage, format!("the key cannot be used: {error}")).advice(
                        "a drive record, the JSON of listBitLockerKeys, a .BEK file, 48 digits, base64, or a password",
                    )),
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
            is_incomplete: record.state == Some(drive_record::State::Incomplete),
        };
        for candidate in &mut key.candidates {
            candidate.record = Some(record.clone());
        }
        Ok(key)
    }

    /// Every object with a `bitLockerKey`, wherever it stands: `{"value":[{"driveId","bitLockerKey"}]}` of
    /// `listBitLockerKeys`, `{"diskSecrets":[{"diskSerialNumber","bitLockerKey"}]}` of `listCredentials`, a list or one entry
    /// alone, a job with its `driveList` (`spec/import-export.md` 9.5, 9.6). One bad key of several is told, not skipped.
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
                if key.candidates.len() >= LISTED_MAX {
                    return Err(wrong("lists more than 100 keys"));
                }
                let drive_id = field("driveId").or_else(|| field("diskSerialNumber")).map(str::to_owned);
                let named = drive_id.clone().unwrap_or_default();
                key.add(drive_id, secret.as_bytes()).map_err(|problem| problem.value(format!("drive {named}")))?;
            } else {
                pending.extend(fields.values());
            }
        }
        if key.is_none() { Err(wrong("without any bitLockerKey")) } else { Ok(key) }
    }

    /// Tries what could fit: first what names this drive, by one of its names, then what names none, then the rest.
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
            return Err(Problem::new(Kind::Usage, "the volume is locked, and there is no key")
                .advice("--key-file FILE or --key-fd N, or answer the question at a terminal"));
        }
        let rank = |candidate: &&Candidate| match &candidate.drive_id {
            Some(id) if drive_ids.iter().any(|mine| same(mine, id)) => 0,
            None => 1,
            Some(_) => 2,
        };
        let mut ordered: Vec<&Candidate> = self.candidates.iter().collect();
        ordered.sort_by_key(rank);
        let mut worst: Option<UnlockError> = None;
        for candidate in &ordered {
            match volume.unlock(&candidate.input, progress) {
                Ok(unlocked) => {
                    let opener = Opener { by: word(&candidate.input), record: candidate.record.clone() };
                    return Ok((unlocked, opener));
                }
                // A key that fitted a protector and failed says more than one that fitted none.
                Err(error) => match (&worst, &error) {
                    (Some(_), UnlockError::NoSuchProtector { .. }) => {}
                    _ => worst = Some(error),
                },
            }
        }
        let error = worst.unwrap_or(UnlockError::WrongSecret);
        let kind = match error {
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
        };
        let ids =
            volume.metadata.protectors.iter().filter(|protector| protector.kind == ProtectorKind::RecoveryPassword);
        let ids: Vec<String> = ids.map(|protector| protector.id.to_string().to_uppercase()).collect();
        let mut advice = Vec::new();
        let others: Vec<&str> =
            ordered.iter().filter(|one| rank(one) == 2).filter_map(|one| one.drive_id.as_deref()).collect();
        if !drive_ids.is_empty() && others.len() == ordered.len() {
            advice.push(format!("the keys are said to be of drive {}", list(&others)));
        }
        if !ids.is_empty() {
            advice.push(format!("its numerical password belongs to protector {}", ids.join(" or ")));
        }
        let problem = Problem::new(kind, error.to_string());
        Err(if advice.is_empty() { problem } else { problem.advice(advice.join("; ")) })
    }
}

/// Serials, as tools print them.
fn same(one: &str, other: &str) -> bool {
    one.trim().eq_ignore_ascii_case(other.trim())
}

/// The first few, without repetition.
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
