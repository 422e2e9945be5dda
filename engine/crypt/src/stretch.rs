//! Derives 256-bit keys from typed secrets: recovery passwords, passwords, and the slow stretch of both.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sha2::block_api::compress256;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use super::secret::{Key16, Key32, SecretText};
use crate::text::counted;
use dray_base::entropy::Entropy;

/// Rounds of the stretch; the same in every version of Windows.
pub const ROUNDS: u32 = 0x10_0000;

/// Bytes of salt.
pub const SALT_LEN: usize = 16;

/// Rounds between two calls of the progress callback.
const ROUNDS_PER_REPORT: u32 = ROUNDS / 64;

/// Results that [`stretch_once`] keeps: several times the drives of one machine.
const KNOWN_MAX: usize = 64;

/// Groups of a recovery password.
const GROUPS: usize = 8;

/// Digits of a group.
const GROUP_DIGITS: usize = 6;

/// Each group is 11 times a 16-bit number.
const GROUP_FACTOR: u32 = 11;

/// SHA-256's initial state (FIPS 180-4, 5.3.3).
const SHA256_INIT: [u32; 8] =
    [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];

/// Stretches the hash of a recovery password or password with the protector's salt.
///
/// Takes a few tenths of a second of one core; the rounds depend on each other. `progress` is called 64 times with the
/// number of [`ROUNDS`] done.
///
/// One round is `last = SHA-256(last ‖ hash ‖ salt ‖ round as u64)`: 88 bytes, so two blocks, of which only `last` and
/// the round number change.
pub fn stretch(hash: &Key32, salt: &[u8; SALT_LEN], progress: &mut dyn FnMut(u32)) -> Key32 {
    const MESSAGE_BITS: u64 = 88 * 8;
    let mut blocks = Zeroizing::new([[0_u8; 64]; 2]);
    blocks[0][32..].copy_from_slice(hash.expose());
    blocks[1][..16].copy_from_slice(salt);
    blocks[1][24] = 0x80;
    blocks[1][56..].copy_from_slice(&MESSAGE_BITS.to_be_bytes());
    let mut state = Zeroizing::new(SHA256_INIT);
    for round in 0..ROUNDS {
        blocks[1][16..24].copy_from_slice(&u64::from(round).to_le_bytes());
        *state = SHA256_INIT;
        compress256(&mut state, &*blocks);
        for (word, out) in state.iter().zip(blocks[0].chunks_exact_mut(4)) {
            out.copy_from_slice(&word.to_be_bytes());
        }
        if (round + 1).is_multiple_of(ROUNDS_PER_REPORT) {
            progress(round + 1);
        }
    }
    let mut key = Key32::new([0; 32]);
    key.expose_mut().copy_from_slice(&blocks[0][..32]);
    key
}

/// As [`stretch`], which is done once for the same hash and salt: a session opens a drive up to three times. The last
/// 64 results stay in memory until the process ends, as the keys of drives under way do.
pub fn stretch_once(hash: &Key32, salt: &[u8; SALT_LEN], progress: &mut dyn FnMut(u32)) -> Key32 {
    static KNOWN: Known = Known(Mutex::new(VecDeque::new()));
    let input = input(hash, salt);
    if let Some(key) = KNOWN.get(&input) {
        progress(ROUNDS);
        return key;
    }
    let key = stretch(hash, salt, progress);
    KNOWN.keep(input, &key);
    key
}

/// SHA-256 of what a stretched key comes from.
fn input(hash: &Key32, salt: &[u8; SALT_LEN]) -> [u8; 32] {
    Sha256::new().chain_update(hash.expose()).chain_update(salt).finalize().into()
}

/// Stretched keys by their [`input`], oldest first.
struct Known(Mutex<VecDeque<([u8; 32], Key32)>>);

impl Known {
    fn get(&self, input: &[u8; 32]) -> Option<Key32> {
        self.entries().iter().find(|(from, _)| from == input).map(|(_, key)| Key32::new(*key.expose()))
    }

    fn keep(&self, input: [u8; 32], key: &Key32) {
        let mut entries = self.entries();
        if entries.len() == KNOWN_MAX {
            entries.pop_front();
        }
        entries.push_back((input, Key32::new(*key.expose())));
    }

    fn entries(&self) -> MutexGuard<'_, VecDeque<([u8; 32], Key32)>> {
        // Each entry is whole, also where another thread panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stretch's input for a password: SHA-256 twice over its UTF-16LE form, as typed, without a terminator.
pub fn password_hash(password: &str) -> Key32 {
    let mut inner = Sha256::new();
    for unit in password.encode_utf16() {
        inner.update(unit.to_le_bytes());
    }
    let mut first: [u8; 32] = inner.finalize().into();
    let key = Key32::new(Sha256::digest(first).into());
    first.zeroize();
    key
}

/// The 48-digit numerical password: 128 secret bits in a form that shows most typing errors.
pub struct RecoveryPassword(Key16);

/// Reason why a text is not a recovery password. Names positions, never digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryPasswordError {
    /// Something other than digits, hyphens and blanks.
    #[error("character {at} is neither a digit nor a hyphen")]
    Character {
        /// Position of the character, counted from 1.
        at: usize,
    },
    /// Groups were separated, but there are not eight.
    #[error("{} of digits, not 8", counted(*.found as u64, "group"))]
    Groups {
        /// Groups in the text.
        found: usize,
    },
    /// A group has too many or too few digits.
    #[error("group {group} has {}, not 6", counted(*.found as u64, "digit"))]
    GroupLength {
        /// Number of the group, from 1 to 8.
        group: usize,
        /// Digits of that group.
        found: usize,
    },
    /// Written without separators, and not 48 digits.
    #[error("{}, not 48", counted(*.found as u64, "digit"))]
    Digits {
        /// Digits in the group.
        found: usize,
    },
    /// The group's check digit does not fit.
    #[error("group {group} has a mistyped digit (it is not a multiple of 11)")]
    Mistyped {
        /// Number of the group, from 1 to 8.
        group: usize,
    },
    /// A multiple of 11, but no group is as large as this.
    #[error("group {group} is too large (720 885 is the largest)")]
    TooLarge {
        /// Number of the group, from 1 to 8.
        group: usize,
    },
}

impl RecoveryPassword {
    /// A new random one.
    pub fn random(entropy: &mut dyn Entropy) -> Self {
        Self(Key16::random(entropy))
    }

    /// From the 16 bytes that the digits encode.
    pub const fn from_key(key: Key16) -> Self {
        Self(key)
    }

    /// Reads the printed form: eight groups of six digits with hyphens or blanks between them, or 48 digits in a row.
    ///
    /// # Errors
    /// Names the wrong group, so that a mistyped digit is found before the slow stretch.
    pub fn parse(text: &str) -> Result<Self, RecoveryPasswordError> {
        let text = text.trim();
        let separator = |c: char| c == '-' || c.is_whitespace() || matches!(c, '\u{2010}'..='\u{2015}' | '\u{2212}');
        if let Some(at) = text.chars().position(|c| !c.is_ascii_digit() && !separator(c)) {
            return Err(RecoveryPasswordError::Character { at: at + 1 });
        }
        let groups: Vec<&str> = if text.contains(separator) {
            text.split(separator).filter(|group| !group.is_empty()).collect()
        } else if text.len() == GROUPS * GROUP_DIGITS {
            (0..GROUPS).map(|group| &text[group * GROUP_DIGITS..][..GROUP_DIGITS]).collect()
        } else {
            return Err(RecoveryPasswordError::Digits { found: text.len() });
        };
        // The length of a group is the more useful fault: a lost hyphen changes both.
        for (index, group) in groups.iter().take(GROUPS).enumerate() {
            if group.len() != GROUP_DIGITS {
                return Err(RecoveryPasswordError::GroupLength { group: index + 1, found: group.len() });
            }
        }
        if groups.len() != GROUPS {
            return Err(RecoveryPasswordError::Groups { found: groups.len() });
        }
        let mut key = Key16::new([0; 16]);
        for (index, (group, out)) in groups.iter().zip(key.expose_mut().chunks_exact_mut(2)).enumerate() {
            let value = group.bytes().fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
            if !value.is_multiple_of(GROUP_FACTOR) {
                return Err(RecoveryPasswordError::Mistyped { group: index + 1 });
            }
            let Ok(quotient) = u16::try_from(value / GROUP_FACTOR) else {
                return Err(RecoveryPasswordError::TooLarge { group: index + 1 });
            };
            out.copy_from_slice(&quotient.to_le_bytes());
        }
        Ok(Self(key))
    }

    /// The 16 bytes that the digits encode.
    pub const fn key(&self) -> &Key16 {
        &self.0
    }

    /// `123456-…`, as `manage-bde` prints it.
    pub fn printed(&self) -> SecretText {
        let mut text = String::with_capacity(GROUPS * (GROUP_DIGITS + 1));
        for pair in self.0.expose().chunks_exact(2) {
            let mut value = u32::from(u16::from_le_bytes([pair[0], pair[1]])) * GROUP_FACTOR;
            if !text.is_empty() {
                text.push('-');
            }
            let mut scale = 100_000;
            while scale > 0 {
                text.push(char::from(b'0' + (value / scale) as u8));
                value %= scale;
                scale /= 10;
            }
        }
        SecretText::new(text)
    }

    /// The stretch's input: SHA-256 of the 16 bytes.
    pub fn hash(&self) -> Key32 {
        Key32::new(Sha256::digest(self.0.expose()).into())
    }
}

impl fmt::Debug for RecoveryPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use dray_base::entropy::Seeded;

    /// A list of the vectors taken from Windows' volumes; empty, with a message, when the fixtures are missing.
    pub(crate) fn vectors(list: &str) -> Vec<serde_json::Value> {
        let Some(path) = dray_fixtures::file("bitlocker/vectors.json") else { return Vec::new() };
        let text = std::fs::read_to_string(path).unwrap();
        let all: serde_json::Value = serde_json::from_str(&text).unwrap();
        all[list].as_array().unwrap().clone()
    }

    pub(crate) fn unhex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    pub(crate) fn field(vector: &serde_json::Value, name: &str) -> Vec<u8> {
        unhex(vector[name].as_str().unwrap())
    }

    #[test]
    fn the_same_password_and_salt_are_stretched_once() {
        let hash = password_hash("stretched once");
        let once = || {
            let mut reports = 0;
            let key = stretch_once(&hash, &[1; SALT_LEN], &mut |_| reports += 1);
            (*key.expose(), reports)
        };
        let key = *stretch(&hash, &[1; SALT_LEN], &mut |_| {}).expose();
        assert_eq!(once(), (key, 64));
        assert_eq!(once(), (key, 1), "known");
        assert_ne!(input(&hash, &[2; SALT_LEN]), input(&hash, &[1; SALT_LEN]), "another salt, another key");
        assert_ne!(input(&password_hash("another"), &[1; SALT_LEN]), input(&hash, &[1; SALT_LEN]));
    }

    #[test]
    fn the_oldest_of_too_many_known_keys_goes() {
        let known = Known(Mutex::new(VecDeque::new()));
        let name = |i: usize| [i as u8; 32];
        for i in 0..=KNOWN_MAX {
            known.keep(name(i), &Key32::new([i as u8 + 100; 32]));
        }
        assert!(known.get(&name(0)).is_none());
        for i in 1..=KNOWN_MAX {
            assert_eq!(known.get(&name(i)).map(|key| *key.expose()), Some([i as u8 + 100; 32]), "key {i}");
        }
    }

    /// `DRAY_STRETCHES` is how many of each kind, for an emulated processor, which takes seconds for each.
    #[test]
    fn judge_windows_stretched_keys() {
        let most: usize = std::env::var("DRAY_STRETCHES").map_or(usize::MAX, |text| text.parse().unwrap());
        let (typed, printed): (Vec<_>, Vec<_>) =
            vectors("kdf").into_iter().partition(|vector| vector["recovery_password_text"].is_null());
        for vector in typed.into_iter().take(most).chain(printed.into_iter().take(most)) {
            let hash = match vector["recovery_password_text"].as_str() {
                Some(text) => {
                    let password = RecoveryPassword::parse(text).unwrap();
                    assert_eq!(password.key().expose()[..], field(&vector, "key16"));
                    assert_eq!(password.hash().expose()[..], field(&vector, "sha256"));
                    password.hash()
                }
                None => {
                    let hash = password_hash(vector["password_text"].as_str().unwrap());
                    assert_eq!(hash.expose()[..], field(&vector, "sha256_sha256"));
                    hash
                }
            };
            let mut reports = Vec::new();
            let salt = field(&vector, "salt").try_into().unwrap();
            let key = stretch(&hash, &salt, &mut |rounds| reports.push(rounds));
            assert_eq!(key.expose()[..], field(&vector, "stretched_key"));
            assert_eq!((reports.len(), reports.last()), (64, Some(&ROUNDS)));
        }
    }

    // Volume made by Windows 10 1709: fixtures/bitlocker, bitlk-aes-xts-128.
    const PRINTED: &str = "235818-357951-253979-013365-241120-245575-342914-591910";
    const KEY: [u8; 16] =
        [0xbe, 0x53, 0x1d, 0x7f, 0x31, 0x5a, 0xbf, 0x04, 0xa0, 0x55, 0x35, 0x57, 0xc6, 0x79, 0x32, 0xd2];

    fn error(text: &str) -> RecoveryPasswordError {
        RecoveryPassword::parse(text).unwrap_err()
    }

    #[test]
    fn judge_windows_recovery_password_reads_and_prints() {
        let password = RecoveryPassword::parse(PRINTED).unwrap();
        assert_eq!(password.key().expose(), &KEY);
        assert_eq!(password.printed().expose(), PRINTED);
        assert_eq!(RecoveryPassword::parse(&PRINTED.replace('-', "")).unwrap().key().expose(), &KEY);
        assert_eq!(RecoveryPassword::parse(&format!(" {}\n", PRINTED.replace('-', " "))).unwrap().key().expose(), &KEY);
        assert_eq!(format!("{password:?}"), "<secret>");
    }

    #[test]
    fn published_recovery_passwords_are_well_formed() {
        for text in [
            "060456-014509-132033-080300-252615-584177-672089-411631",
            "238810-662376-448998-450120-652806-203390-606320-483076",
            "442926-020713-108086-436744-137335-435358-242242-279598",
        ] {
            assert_eq!(RecoveryPassword::parse(text).unwrap().printed().expose(), text);
        }
    }

    #[test]
    fn the_wrong_group_is_named() {
        use RecoveryPasswordError::*;
        assert_eq!(error(&PRINTED.replace("253979", "253978")), Mistyped { group: 3 });
        assert_eq!(error(&PRINTED.replace("591910", "720896")), TooLarge { group: 8 });
        assert!(RecoveryPassword::parse(&PRINTED.replace("591910", "720885")).is_ok());
        assert_eq!(error(&PRINTED.replace("013365", "13365")), GroupLength { group: 4, found: 5 });
        assert_eq!(error(&PRINTED[7..]), Groups { found: 7 });
        assert_eq!(error(&format!("{PRINTED}-000000")), Groups { found: 9 });
        assert_eq!(error("235818"), Digits { found: 6 });
        assert_eq!(error(""), Digits { found: 0 });
        assert_eq!(error(&PRINTED.replace("241120", "24112O")), Character { at: 34 });
    }

    #[test]
    fn fresh_recovery_passwords_survive_printing() {
        let mut entropy = Seeded::new(3);
        for _ in 0..1000 {
            let password = RecoveryPassword::random(&mut entropy);
            let printed = password.printed();
            assert_eq!(printed.expose().len(), 55);
            assert_eq!(RecoveryPassword::parse(printed.expose()).unwrap().key().expose(), password.key().expose());
        }
    }
}
