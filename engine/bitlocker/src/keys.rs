//! Keys for unlocking a volume, in all their forms.

use std::fmt;

use zerocopy::FromBytes;
use zeroize::Zeroizing;

use super::datum::{Datum, DatumError, Datums};
use super::format::{DatasetHeader, ExternalHead, KeyHead, key_type, kind};
use crate::crypt::printed;
use crate::crypt::secret::{Key32, SecretText};
use crate::crypt::stretch::{RecoveryPassword, RecoveryPasswordError};
use crate::text;
use crate::units::Guid;

/// Longest input examined: a key file in base64 is 240 characters, a password at most 256 units.
const INPUT_LEN_MAX: usize = 4096;

/// Number of digits from which a text of digits is taken for a recovery password.
const RECOVERY_DIGITS_MIN: usize = 36;

/// A secret that may open a volume.
pub enum KeyInput {
    /// The 48-digit numerical password.
    Recovery(RecoveryPassword),
    /// A user's password.
    Password(SecretText),
    /// An external key: from a `.BEK` file, from its base64, or bare.
    External {
        /// The protector it was made for; `None` for a bare key.
        protector: Option<Guid>,
        /// The 256-bit key in the file.
        key: Key32,
    },
    /// No secret: for suspended volumes, which carry the key in the open.
    Clear,
}

/// Reason why an input is no key. Names places and lengths, never contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyInputError {
    /// Empty input.
    #[error("the key is empty")]
    Empty,
    /// Longer than any key.
    #[error("{found} bytes are too long for a key")]
    TooLong {
        /// Its length in bytes.
        found: usize,
    },
    /// Digits, but no recovery password.
    #[error("not a valid recovery password: {0}")]
    Recovery(#[from] RecoveryPasswordError),
    /// Begins as a key file does.
    #[error("not a valid key file: {0}")]
    KeyFile(#[from] KeyFileError),
    /// None of the forms.
    #[error(
        "neither 48 digits, nor a .BEK file, nor the base64 of a 32-byte key or of a .BEK file ({found} bytes given)"
    )]
    Unknown {
        /// Its length in bytes.
        found: usize,
    },
}

/// Fault of a key file (docs/spec/bitlocker.md#key-files).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// The size field does not fit the file.
    #[error("it says {said} bytes, and has {found}")]
    Size {
        /// The size field.
        said: u32,
        /// Length of the file in bytes.
        found: usize,
    },
    /// Version or header size different from those that all Windows versions write.
    #[error("version {version} with a header of {header_size} bytes is not known")]
    Header {
        /// The version field.
        version: u32,
        /// The header size field.
        header_size: u32,
    },
    /// A malformed datum.
    #[error(transparent)]
    Datum(#[from] DatumError),
    /// No 256-bit external key in it.
    #[error("no external key in it")]
    NoKey,
}

impl KeyInput {
    /// Reads the contents of a key file, or pasted text: a `.BEK` file, 48 digits, base64 of 32 bytes or of a `.BEK`
    /// file, or 32 bytes that are no text. Blanks, quotes and a byte order mark around text are ignored. Of a text with
    /// several passwords the first; [`crate::crypt::printed::runs`] finds all.
    ///
    /// Never takes a text for a user's password: that needs [`KeyInput::password`].
    ///
    /// # Errors
    /// The form that the input most resembles, with its fault.
    pub fn parse(input: &[u8]) -> Result<Self, KeyInputError> {
        if input.is_empty() {
            return Err(KeyInputError::Empty);
        }
        if input.len() > INPUT_LEN_MAX {
            return Err(KeyInputError::TooLong { found: input.len() });
        }
        if looks_like_key_file(input) {
            return Ok(key_file(input)?);
        }
        if let Some(text) = text_of(input) {
            return Self::parse_text(&text);
        }
        match Key32::from_slice(input) {
            Some(key) => Ok(Self::External { protector: None, key }),
            None => Err(KeyInputError::Unknown { found: input.len() }),
        }
    }

    /// A user's password, exactly as typed.
    pub fn password(text: &str) -> Self {
        Self::Password(SecretText::from(text))
    }

    fn parse_text(text: &str) -> Result<Self, KeyInputError> {
        let text = text.trim().trim_matches('"').trim();
        if text.is_empty() {
            return Err(KeyInputError::Empty);
        }
        if let Some(run) = printed::runs(text).first() {
            return Ok(Self::Recovery(run.password()?));
        }
        if let Some(slip) = printed::slip(text) {
            return Err(slip.into());
        }
        let digits = text.chars().filter(char::is_ascii_digit).count();
        let others = text.chars().filter(|&c| c.is_alphabetic() || matches!(c, '+' | '/' | '=')).count();
        if digits >= RECOVERY_DIGITS_MIN && others < 3 || others == 0 && digits > 0 {
            return Ok(Self::Recovery(RecoveryPassword::parse(text)?));
        }
        let unknown = KeyInputError::Unknown { found: text.len() };
        let bytes = base64(text).ok_or(unknown)?;
        if looks_like_key_file(&bytes) {
            return Ok(key_file(&bytes)?);
        }
        Key32::from_slice(&bytes).map(|key| Self::External { protector: None, key }).ok_or(unknown)
    }
}

impl fmt::Debug for KeyInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recovery(_) => f.write_str("Recovery(<secret>)"),
            Self::Password(_) => f.write_str("Password(<secret>)"),
            Self::External { protector: Some(id), .. } => write!(f, "External({id}, <secret>)"),
            Self::External { protector: None, .. } => f.write_str("External(<secret>)"),
            Self::Clear => f.write_str("Clear"),
        }
    }
}

/// The input as text, in any of the forms of [`text::decode`]. `None` for anything else.
fn text_of(input: &[u8]) -> Option<Zeroizing<String>> {
    let text = text::decode_text(input).ok()?;
    text.chars().all(|c| !c.is_control() || c.is_whitespace()).then_some(text)
}

/// Whether the first fields are those of a dataset with version and header size as in all key files.
pub fn looks_like_key_file(bytes: &[u8]) -> bool {
    DatasetHeader::ref_from_prefix(bytes).is_ok_and(|(header, _)| {
        header.header_size.get() as usize == size_of::<DatasetHeader>() && header.version.get() < 0x100
    })
}

/// A dataset header, one EXTERNAL datum, the key in it (docs/spec/bitlocker.md#key-files).
fn key_file(bytes: &[u8]) -> Result<KeyInput, KeyFileError> {
    let (header, _) = DatasetHeader::ref_from_prefix(bytes).map_err(|_| KeyFileError::NoKey)?;
    if header.version.get() != 1 || header.header_size.get() as usize != size_of::<DatasetHeader>() {
        return Err(KeyFileError::Header { version: header.version.get(), header_size: header.header_size.get() });
    }
    let size = header.size.get();
    let datums = usize::try_from(size).ok().and_then(|size| bytes.get(size_of::<DatasetHeader>()..size));
    let datums = datums.ok_or(KeyFileError::Size { said: size, found: bytes.len() })?;
    for datum in Datums::new(datums, size_of::<DatasetHeader>()) {
        let datum = datum?;
        if datum.kind != kind::EXTERNAL {
            continue;
        }
        let (head, nested) = datum.nested::<ExternalHead>()?;
        for nested in nested {
            if let Some(key) = external_key(&nested?)? {
                return Ok(KeyInput::External { protector: Some(Guid(head.id)), key });
            }
        }
    }
    Err(KeyFileError::NoKey)
}

fn external_key(datum: &Datum<'_>) -> Result<Option<Key32>, DatumError> {
    if datum.kind != kind::KEY {
        return Ok(None);
    }
    let (head, key) = datum.split::<KeyHead>()?;
    Ok(if head.key_type.get() == key_type::EXTERNAL { Key32::from_slice(key) } else { None })
}

/// Base64 (RFC 4648), both alphabets, blanks inside ignored, padding optional. `None` for anything else.
fn base64(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut out = Zeroizing::new(Vec::with_capacity(text.len() / 4 * 3 + 3));
    let (mut bits, mut held, mut padding) = (0_u32, 0_u32, 0);
    for c in text.bytes().filter(|c| !c.is_ascii_whitespace()) {
        let value = match c {
            b'=' => {
                padding += 1;
                continue;
            }
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        if padding > 0 {
            return None;
        }
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    // The remaining bits must be fewer than a character's, and zero.
    (held < 6 && bits == 0 && padding <= 2).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dray_base::entropy::{Entropy, Seeded};

    /// From the volume `bitlk-aes-xts-128-startup-key`, made by Windows 10 2004: 156 bytes.
    fn windows_key_file() -> Option<Vec<u8>> {
        let path = dray_fixtures::file("bitlocker/4381F759-C4F8-4DE0-BB61-FC33A831BDA5.BEK")?;
        Some(std::fs::read(path).expect("a key file"))
    }

    fn encode(bytes: &[u8]) -> String {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        bytes
            .chunks(3)
            .flat_map(|chunk| {
                let bits = chunk.iter().fold(0, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
                (0..4).map(move |i| match i <= chunk.len() {
                    true => char::from(ALPHABET[(bits >> (18 - 6 * i) & 63) as usize]),
                    false => '=',
                })
            })
            .collect()
    }

    fn external(input: &[u8]) -> (Option<Guid>, [u8; 32]) {
        match KeyInput::parse(input).unwrap() {
            KeyInput::External { protector, key } => (protector, *key.expose()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn judge_windows_key_file_in_every_form() {
        let Some(file) = windows_key_file() else { return };
        let id = Guid::from_fields(0x4381f759, 0xc4f8, 0x4de0, [0xbb, 0x61, 0xfc, 0x33, 0xa8, 0x31, 0xbd, 0xa5]);
        let (protector, key) = external(&file);
        assert_eq!(protector, Some(id));
        assert_eq!(key[..4], [0xe0, 0xbb, 0x38, 0xb9]);
        assert_eq!(external(encode(&file).as_bytes()), (Some(id), key));
        assert_eq!(external(format!("\u{FEFF}{}\r\n", encode(&key)).as_bytes()), (None, key));
        assert_eq!(encode(&key).len(), 44);
        assert_eq!(external(&key), (None, key));
        // The form of Windows 11 has the volume's identifier before the key.
        let mut eleven = file[..112].to_vec();
        eleven.extend_from_slice(&[0x18, 0, 0x19, 0, 0x17, 0, 1, 0]);
        eleven.extend_from_slice(&[0x55; 16]);
        eleven.extend_from_slice(&file[112..]);
        (eleven[0], eleven[12], eleven[48]) = (180, 180, 0x84);
        assert_eq!(external(&eleven), (Some(id), key));
    }

    #[test]
    fn recovery_passwords_are_known_by_their_digits() {
        let printed = "235818-357951-253979-013365-241120-245575-342914-591910";
        assert!(matches!(KeyInput::parse(printed.as_bytes()), Ok(KeyInput::Recovery(_))));
        let utf16: Vec<u8> =
            [0xFF, 0xFE].into_iter().chain(printed.encode_utf16().flat_map(u16::to_le_bytes)).collect();
        assert!(matches!(KeyInput::parse(&utf16), Ok(KeyInput::Recovery(_))));
        let saved = format!(
            "BitLocker Drive Encryption recovery key\r\n\r\nIdentifier:\r\n\r\n\t64311DEA-4587-4029-924A-BA299647998E\r\n\r\n\
             Recovery Key:\r\n\r\n\t{printed}\r\n\r\nIf it does not match …\r\n"
        );
        let utf16: Vec<u8> = [0xFF, 0xFE].into_iter().chain(saved.encode_utf16().flat_map(u16::to_le_bytes)).collect();
        assert!(matches!(KeyInput::parse(&utf16), Ok(KeyInput::Recovery(_))));
        let slip = printed.replace("253979", "253978");
        let error = KeyInput::parse(slip.as_bytes()).unwrap_err();
        assert_eq!(error, KeyInputError::Recovery(RecoveryPasswordError::Mistyped { group: 3 }));
        assert!(!error.to_string().contains("253978"));
        assert!(matches!(KeyInput::parse(b"235818-3579"), Err(KeyInputError::Recovery(_))));
    }

    #[test]
    fn other_things_are_not_keys() {
        for input in [&b"should be hidden"[..], b"c2hvdWxkIGJlIGhpZGRlbg==", b"anaconda", b"\xFF\x00\x01", b"  \n"] {
            assert!(KeyInput::parse(input).is_err(), "{input:?}");
        }
        assert_eq!(KeyInput::parse(b"").unwrap_err(), KeyInputError::Empty);
        assert!(matches!(KeyInput::parse(&[b'A'; 5000]), Err(KeyInputError::TooLong { found: 5000 })));
        assert_eq!(format!("{:?}", KeyInput::password("anaconda")), "Password(<secret>)");
    }

    #[test]
    fn hostile_key_files_never_panic() {
        let mut entropy = Seeded::new(17);
        let Some(file) = windows_key_file() else { return };
        for _ in 0..100_000 {
            let mut bytes = file.clone();
            for _ in 0..=entropy.next_u64() % 4 {
                let at = entropy.next_u64() as usize % bytes.len();
                bytes[at] = entropy.array::<1>()[0];
            }
            bytes.truncate(entropy.next_u64() as usize % (bytes.len() + 40));
            let _ = KeyInput::parse(&bytes);
        }
    }
}
