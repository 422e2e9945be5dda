//! `<DriveId>.xml`, the file that is uploaded with a job (docs/spec/import-export.md#journal-files): a journal record
//! that wraps XML.

use zeroize::Zeroizing;

use super::journal::{self, RecordKind, WriteError};
use super::xml::{Steps, XmlError, XmlEvent, push_escaped};
use super::{Digest, Md5, SecretText};
use crate::hash;
use crate::limits;
use crate::text;
use crate::units::FileTime;

/// Largest file that the portal accepts.
pub const PORTAL_LEN_MAX: usize = 2 << 20;

/// Whether the drive that a record belongs to is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordState {
    /// `SaveCommandOutput: Completed`: may be uploaded.
    Completed,
    /// `SaveCommandOutput: Incomplete`: ours, for a record that is written before the first data so that its key is
    /// never lost. Its manifest hash is empty.
    Incomplete,
}

impl RecordState {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "Completed",
            Self::Incomplete => "Incomplete",
        }
    }
}

/// Contents of a record. The key stays borrowed.
#[derive(Clone, Copy)]
pub struct DriveInfo<'a> {
    /// Serial of the drive.
    pub drive_id: &'a str,
    /// 48-digit numerical password.
    pub bitlocker_key: &'a str,
    /// `\DriveManifest.xml`.
    pub manifest_file: &'a str,
    /// MD5 of the manifest; `None` while it is not known.
    pub manifest_hash: Option<Md5>,
    /// `offset:length:SHA-512` parts joined by `;`. `None` leaves the element out, as the published sample does.
    pub drive_header_hash: Option<&'a str>,
}

impl std::fmt::Debug for DriveInfo<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DriveInfo")
            .field("drive_id", &self.drive_id)
            .field("bitlocker_key", &"<secret>")
            .field("manifest_file", &self.manifest_file)
            .field("manifest_hash", &self.manifest_hash.map(Digest::Md5))
            .field("drive_header_hash", &self.drive_header_hash)
            .finish()
    }
}

/// The file's bytes, wiped on drop.
///
/// # Errors
/// A value holds a line that is part of the journal's form; checked drive ids and paths never do.
pub fn write(info: &DriveInfo<'_>, state: RecordState, stamp: FileTime) -> Result<Zeroizing<Vec<u8>>, WriteError> {
    // Reserved at once, so that growing leaves no copy of the key behind; an escape has at most eight bytes for one.
    let header_hash = info.drive_header_hash.unwrap_or_default();
    let values = info.drive_id.len() + info.bitlocker_key.len() + info.manifest_file.len() + header_hash.len();
    let mut xml = Zeroizing::new(Vec::with_capacity(512 + 8 * values));
    let mut element = |name: &str, value: &str| {
        xml.extend_from_slice(format!("   <{name}>").as_bytes());
        push_escaped(value, &mut xml);
        xml.extend_from_slice(format!("</{name}>\r\n").as_bytes());
    };
    let hash = info.manifest_hash.map(|hash| Digest::Md5(hash).to_string()).unwrap_or_default();
    element("DriveId", info.drive_id);
    element("BitLockerKey", info.bitlocker_key);
    element("ManifestFile", info.manifest_file);
    element("ManifestHash", &hash);
    if let Some(hash) = info.drive_header_hash {
        element("DriveHeaderHash", hash);
    }
    let mut whole = Zeroizing::new(String::with_capacity(xml.len() + 96));
    // The published sample has the declaration inside the wrapper.
    whole.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<Drive>\r\n");
    whole.push_str(std::str::from_utf8(&xml).unwrap_or_else(|_| unreachable!("made of strings")));
    whole.push_str("</Drive>");
    let fields = [("DriveState", whole.as_str()), ("SaveCommandOutput", state.as_str())];
    journal::activity(stamp, journal::DRIVE_INFO, &fields)
}

/// A value that recognises a key without revealing it: 64 bits of a SHA-256 over drive id and key, in hex. Only for
/// numerical passwords, whose 128 bits are random; a password chosen by a person could be guessed from it.
pub fn key_check(drive_id: &str, key: &SecretText) -> Option<String> {
    if !super::driveset::is_numerical_password(key.expose()) {
        return None;
    }
    let text = Zeroizing::new(format!("dray key check\0{}\0{}", drive_id.to_ascii_lowercase(), key.expose()));
    Some(hash::hex_upper(&hash::sha256(text.as_bytes())[..8]))
}

/// A record as it was read.
#[derive(Debug)]
pub struct DriveRecord {
    /// Serial of the drive.
    pub drive_id: String,
    /// Key: a numerical password, or any other text in the file.
    pub bitlocker_key: Option<SecretText>,
    /// Path of the manifest on the drive.
    pub manifest_file: Option<String>,
    /// Hash of the manifest.
    pub manifest_hash: Option<Digest>,
    /// `DriveHeaderHash`, if given and not empty.
    pub drive_header_hash: Option<String>,
    /// `None` for plain XML, which has no `SaveCommandOutput`, and for unknown outputs.
    pub state: Option<RecordState>,
}

/// Reason why a file is no drive record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Neither XML nor a journal with a `DriveInfo` record.
    #[error("holds no drive record")]
    NoRecord,
    /// The file was cut off while it was written.
    #[error("is cut off at byte {0}")]
    Torn(usize),
    /// The XML is not that of a drive.
    #[error(transparent)]
    Xml(#[from] XmlError),
}

/// Reads the wrapped form and plain XML; of several wrapped records the last. `input` holds a key and is the caller's to
/// wipe.
///
/// # Errors
/// The file holds no drive. Damage elsewhere in the file does not matter.
pub fn read(input: &[u8]) -> Result<DriveRecord, ReadError> {
    let decoded = Zeroizing::new(text::decode(input).into_owned());
    let input: &[u8] = &decoded;
    if input.trim_ascii_start().starts_with(b"<") {
        return read_xml(input).map_err(ReadError::from);
    }
    let journal = journal::read(input);
    let record = journal.records.iter().rev().find(|record| {
        let is_info = record.activity().is_none_or(|id| id == journal::DRIVE_INFO);
        is_info && record.kind != RecordKind::NewJournalFile && record.get("DriveState").is_some()
    });
    let Some(record) = record else {
        return Err(journal.torn.map_or(ReadError::NoRecord, ReadError::Torn));
    };
    let mut out = read_xml(record.get("DriveState").unwrap_or_default().as_bytes())?;
    out.state = match record.get("SaveCommandOutput").map(str::trim) {
        Some("Completed") => Some(RecordState::Completed),
        Some("Incomplete") => Some(RecordState::Incomplete),
        _ => None,
    };
    Ok(out)
}

/// `Drive` at the root or one below it (`DriveList` of REST bodies).
fn read_xml(input: &[u8]) -> Result<DriveRecord, XmlError> {
    let mut steps = Steps::new(input, limits::XML_STEP_MAX);
    let mut out = DriveRecord {
        drive_id: String::new(),
        bitlocker_key: None,
        manifest_file: None,
        manifest_hash: None,
        drive_header_hash: None,
        state: None,
    };
    let mut seen = false;
    loop {
        let (name, empty) = match steps.next()? {
            XmlEvent::Start { name, empty, .. } => (name, empty),
            XmlEvent::Text(_) | XmlEvent::End => continue,
            XmlEvent::Eof => break,
        };
        if !seen {
            match name.as_str() {
                "Drive" if !empty => seen = true,
                "DriveList" => {}
                _ => return Err(steps.error(format!("root is {name}, not Drive"))),
            }
            continue;
        }
        if name == "Drive" {
            return Err(steps.error("holds more than one drive"));
        }
        let value = Zeroizing::new(if empty { String::new() } else { steps.text(&name, limits::XML_STEP_MAX)? });
        let value = value.trim();
        let filled = (!value.is_empty()).then_some(value);
        match name.as_str() {
            "DriveId" => out.drive_id = value.to_owned(),
            "BitLockerKey" => out.bitlocker_key = filled.map(SecretText::new),
            "ManifestFile" => out.manifest_file = filled.map(str::to_owned),
            "ManifestHash" => {
                out.manifest_hash = filled.map(Digest::parse).unwrap_or_default();
                if filled.is_some() && out.manifest_hash.is_none() {
                    return Err(steps.error("ManifestHash is neither 32 nor 64 hex digits"));
                }
            }
            "DriveHeaderHash" => out.drive_header_hash = filled.map(str::to_owned),
            // Later tools may add elements; these are not needed to open the drive.
            _ => {}
        }
    }
    if out.drive_id.is_empty() {
        return Err(steps.error("names no DriveId"));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "238810-662376-448998-450120-652806-203390-606320-483076";
    const HASH: Md5 = [0xD8, 0x63, 0xFE, 0x44, 0xF8, 0x61, 0xAE, 0x0D, 0xA4, 0xDC, 0xEA, 0xEE, 0xFF, 0xCC, 0xCE, 0x68];

    fn info<'a>() -> DriveInfo<'a> {
        DriveInfo {
            drive_id: "9WM35C2V",
            bitlocker_key: KEY,
            manifest_file: "\\DriveManifest.xml",
            manifest_hash: Some(HASH),
            drive_header_hash: None,
        }
    }

    #[test]
    fn a_key_is_recognised_by_a_value_that_tells_nothing_of_it() {
        const KEY: &str = "060456-014509-132033-080300-252615-584177-672089-411631";
        const OTHER: &str = "060456-014509-132033-080300-252615-584177-672089-411620";
        let check = |id: &str, key: &str| key_check(id, &SecretText::new(key));
        let own = check("WD-1", KEY).unwrap();
        assert!(own.len() == 16 && own.bytes().all(|byte| byte.is_ascii_hexdigit()), "{own}");
        assert_eq!(check("wd-1", KEY), Some(own.clone()));
        assert!(check("WD-1", OTHER) != Some(own.clone()) && check("WD-2", KEY) != Some(own));
        // A password chosen by a person could be guessed.
        assert_eq!(check("WD-1", "a password"), None);
    }

    #[test]
    fn published_form_is_written_word_for_word() {
        let bytes = write(&info(), RecordState::Completed, FileTime::from_unix(1_478_035_345, 379_000_000)).unwrap();
        let wanted = "[BeginUpdateRecord][2016/11/01 21:22:25.379][Type:ActivityRecord]\n\
            ActivityId: DriveInfo\nDriveState: [BeginValue]\n\
            <?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Drive>\n   <DriveId>9WM35C2V</DriveId>\n   \
            <BitLockerKey>238810-662376-448998-450120-652806-203390-606320-483076</BitLockerKey>\n   \
            <ManifestFile>\\DriveManifest.xml</ManifestFile>\n   \
            <ManifestHash>D863FE44F861AE0DA4DCEAEEFFCCCE68</ManifestHash>\n</Drive>\n[EndValue]\n\
            SaveCommandOutput: Completed\n[EndUpdateRecord]\n";
        assert_eq!(std::str::from_utf8(&bytes).unwrap().replace("\r\n", "\n"), wanted);
        assert!(bytes.len() < PORTAL_LEN_MAX);
    }

    #[test]
    fn both_forms_are_read() {
        let mut info = info();
        info.drive_header_hash = Some("0:1048576:AB;135266304:143360:CD");
        let wrapped = write(&info, RecordState::Completed, FileTime(0)).unwrap();
        let text = std::str::from_utf8(&wrapped).unwrap();
        let plain = text.split_once("[BeginValue]").unwrap().1.split_once("[EndValue]").unwrap().0;
        let plain = plain.trim_start();
        let declared = format!("\u{FEFF}{plain}");
        let (_, bare) = plain.split_once("?>").unwrap();
        let listed = format!("<DriveList>{bare}</DriveList>");
        let unix = text.replace("\r\n", "\n");
        let in_journal = format!("{}{text}", String::from_utf8(journal::new_journal(FileTime(0))).unwrap());
        for (form, state) in [
            (text, Some(RecordState::Completed)),
            (&unix, Some(RecordState::Completed)),
            (&in_journal, Some(RecordState::Completed)),
            (plain, None),
            (bare, None),
            (&declared, None),
            (&listed, None),
        ] {
            let record = read(form.as_bytes()).unwrap();
            assert_eq!(record.drive_id, "9WM35C2V");
            assert_eq!(record.bitlocker_key.as_ref().unwrap().expose(), KEY);
            assert_eq!(record.manifest_file.as_deref(), Some("\\DriveManifest.xml"));
            assert_eq!(record.manifest_hash, Some(Digest::Md5(HASH)));
            assert_eq!(record.drive_header_hash.as_deref(), info.drive_header_hash);
            assert_eq!(record.state, state);
            assert!(!format!("{record:?} {info:?}").contains("238810"));
        }
    }

    #[test]
    fn incomplete_records_keep_the_key_and_say_so() {
        let info = DriveInfo { manifest_hash: None, ..info() };
        let record = read(&write(&info, RecordState::Incomplete, FileTime(0)).unwrap()).unwrap();
        assert_eq!(record.state, Some(RecordState::Incomplete));
        assert_eq!(record.manifest_hash, None);
        assert_eq!(record.bitlocker_key.unwrap().expose(), KEY);
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let wrapped = write(&info(), RecordState::Completed, FileTime(0)).unwrap();
        assert!(matches!(read(&wrapped[..wrapped.len() - 30]), Err(ReadError::Torn(0))));
        assert!(matches!(read(b""), Err(ReadError::NoRecord)));
        assert!(matches!(read(&journal::new_journal(FileTime(0))), Err(ReadError::NoRecord)));
        for xml in [
            "<x/>",
            "<Drive/>",
            "<Drive></Drive>",
            "<Drive><DriveId>",
            "<Drive><DriveId>x</DriveId><ManifestHash>1</ManifestHash></Drive>",
        ] {
            assert!(matches!(read(xml.as_bytes()), Err(ReadError::Xml(_))), "{xml}");
        }
    }

    #[test]
    fn hostile_records_never_panic() {
        use dray_base::entropy::Seeded;
        let base = write(&info(), RecordState::Completed, FileTime(0)).unwrap().to_vec();
        let mut random = Seeded::new(8);
        for _ in 0..20_000 {
            let mut bytes = base.clone();
            for _ in 0..1 + random.next_u64() % 4 {
                let at = (random.next_u64() % bytes.len() as u64) as usize;
                bytes[at] = [b'<', b'>', b'[', b'\n', b':', 0, 0xFF, b'&'][(random.next_u64() % 8) as usize];
            }
            let _ = read(&bytes);
        }
    }
}
