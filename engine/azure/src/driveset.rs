//! `driveset.csv`: which drives to fill (docs/spec/import-export.md#drive-set-columns), with Linux names in
//! `DriveLetter`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::SecretText;
use super::csv::{self, Columns, Header, Record};
use crate::crypt::printed;
use crate::crypt::stretch::RecoveryPasswordError;
use crate::limits;
use crate::problem::{Kind, Problem, Problems};
use crate::units::ByteLen;

/// Form in which a row names its drive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TargetName {
    /// A node below `/dev`.
    Device(PathBuf),
    /// A link below `/dev/disk/by-id`, which stays with the drive.
    ById(PathBuf),
    /// `serial:…`, without blanks.
    Serial(String),
    /// A disk image file.
    Image {
        /// Path of the existing or future file.
        path: PathBuf,
        /// Size, for a file that does not exist yet: `drive.img:4TB`. As written; not rounded to sectors.
        size: Option<ByteLen>,
    },
}

/// Treatment of the drive's present contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FormatOption {
    /// Erases the drive.
    Format,
    /// Keeps the existing volume.
    AlreadyFormatted,
}

/// Whether formatting needs an answer to a question first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FormatPrompt {
    /// No question.
    SilentMode,
    /// A question before formatting.
    PromptOnFormat,
}

/// State of encryption before the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encryption {
    /// Not encrypted: the tool does it; with [`FormatOption::AlreadyFormatted`] in place.
    Encrypt,
    /// Encrypted already; [`DrivesetRow::existing_key`] opens it.
    AlreadyEncrypted,
}

/// One row: a drive, and its treatment.
#[derive(Debug)]
pub struct DrivesetRow {
    /// Line in the file, from 1.
    pub line: u64,
    /// The drive, as the row names it.
    pub target: TargetName,
    /// Treatment of its present contents.
    pub format: FormatOption,
    /// Whether formatting needs an answer first.
    pub prompt: FormatPrompt,
    /// Whether the volume is encrypted by the tool or already.
    pub encryption: Encryption,
    /// Numerical password of a drive that is already encrypted; well-formed.
    pub existing_key: Option<Arc<SecretText>>,
}

/// A driveset file.
#[derive(Debug, Default)]
pub struct Driveset {
    /// Rows in file order.
    pub rows: Vec<DrivesetRow>,
    /// Oddities that were understood.
    pub warnings: Vec<Problem>,
}

const COLUMNS: Columns = Columns {
    required: &[&["DriveLetter"], &["FormatOption"], &["SilentOrPromptOnFormat"], &["Encryption"]],
    optional: &[&["ExistingBitLockerKey"]],
    sample: "DriveLetter,FormatOption,SilentOrPromptOnFormat,Encryption,ExistingBitLockerKey",
};

/// Columns whose values are ASCII words; blanks and dashes of a key are ignored.
const WORDS: &[&str] = &["FormatOption", "SilentOrPromptOnFormat", "Encryption", "ExistingBitLockerKey"];

/// Reads a driveset file; `path` is only for messages. The file may hold keys: `input` is the caller's to wipe.
///
/// # Errors
/// Everything that is wrong in it. Keys are never shown.
pub fn parse(path: &Path, input: &[u8]) -> Result<Driveset, Problems> {
    let mut problems = Problems::default();
    let out = parse_into(path, input, &mut problems);
    problems.into_result().map(|()| out)
}

/// As [`parse`], but returns the valid rows even when others are not, so that one run reports every problem.
pub fn parse_into(path: &Path, input: &[u8], problems: &mut Problems) -> Driveset {
    let before = problems.0.len();
    let mut out = Driveset::default();
    let decoded = zeroizing(csv::decode(input));
    let mut records = csv::records(path, &decoded, problems);
    if let Some(header) = csv::header(path, &mut records, &COLUMNS, problems, &mut out.warnings) {
        if records.is_empty() && problems.0.len() == before {
            problems.push(Problem::new(Kind::Usage, "file has no rows").path(path));
        }
        for record in &mut records {
            let sound = csv::check_width(path, &header, record, &["ExistingBitLockerKey"], problems)
                & csv::check_characters(path, &header, record, WORDS, problems, &mut out.warnings);
            if sound {
                let mut row = Row { path, header: &header, record, problems: &mut *problems };
                out.rows.extend(row.parse());
            }
        }
        check_set(path, &records, &mut out.rows, problems);
    }
    out
}

/// Only a converted copy must be wiped here.
fn zeroizing(decoded: std::borrow::Cow<'_, [u8]>) -> zeroize::Zeroizing<Vec<u8>> {
    zeroize::Zeroizing::new(decoded.into_owned())
}

fn check_set(path: &Path, records: &[Record], rows: &mut Vec<DrivesetRow>, problems: &mut Problems) {
    if records.len() > limits::DRIVES_MAX {
        let what = format!("{} drives in one session; {} at most", records.len(), limits::DRIVES_MAX);
        problems.push(Problem::new(Kind::Usage, what).path(path).advice("split the file into several sessions"));
    }
    let mut lines: HashMap<String, u64> = HashMap::new();
    // The first row stays: other problems of it are reported too.
    rows.retain(|row| {
        let name = plain(&row.target);
        let Some(first) = lines.get(&name) else {
            lines.insert(name, row.line);
            return true;
        };
        let problem = Problem::new(Kind::Usage, format!("the same drive is named in line {first} already"));
        let problem = problem.path(path).line(row.line).column("DriveLetter").value(name);
        problems.push(problem.advice("name each drive once"));
        false
    });
}

/// The name with spelling differences removed, so that `./a.img` and `a.img:4TB` are one drive.
fn plain(target: &TargetName) -> String {
    match target {
        TargetName::Serial(serial) => format!("serial:{serial}"),
        TargetName::Device(path) | TargetName::ById(path) | TargetName::Image { path, .. } => {
            let parts = path.components().filter(|c| !matches!(c, std::path::Component::CurDir));
            parts.collect::<PathBuf>().to_string_lossy().into_owned()
        }
    }
}

/// A row that is in no file: the drive of a first-generation command line, or of `format`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenDrive {
    /// `DriveLetter`: a drive or an image file, as a row names it.
    pub drive: OsString,
    /// `FormatOption`.
    pub format: FormatOption,
    /// `SilentOrPromptOnFormat`.
    pub prompt: FormatPrompt,
    /// `Encryption`.
    pub encryption: Encryption,
}

impl GivenDrive {
    /// The driveset of this row alone, with the key of a drive that is encrypted already; `path` is only for messages.
    pub fn read(&self, key: Option<SecretText>, path: &Path, problems: &mut Problems) -> Driveset {
        let (header, mut record) = csv::given(&[("DriveLetter", self.drive.as_bytes())]);
        let mut out = Driveset::default();
        if csv::check_characters(path, &header, &mut record, WORDS, problems, &mut out.warnings) {
            let target = Row { path, header: &header, record: &record, problems }.target();
            out.rows.extend(target.map(|target| DrivesetRow {
                line: record.line,
                target,
                format: self.format,
                prompt: self.prompt,
                encryption: self.encryption,
                existing_key: key.map(Arc::new),
            }));
        }
        out
    }
}

struct Row<'a> {
    path: &'a Path,
    header: &'a Header,
    record: &'a Record,
    problems: &'a mut Problems,
}

impl Row<'_> {
    fn parse(&mut self) -> Option<DrivesetRow> {
        let target = self.target();
        let format = self.choice(
            "FormatOption",
            [("Format", FormatOption::Format), ("AlreadyFormatted", FormatOption::AlreadyFormatted)],
        );
        let prompt = self.prompt();
        let encryption = self.choice(
            "Encryption",
            [("Encrypt", Encryption::Encrypt), ("AlreadyEncrypted", Encryption::AlreadyEncrypted)],
        );
        if format == Some(FormatOption::Format) && encryption == Some(Encryption::AlreadyEncrypted) {
            let problem = self.at("Encryption", "When Format is specified, Encrypt must also be specified");
            self.problems.push(problem.value("AlreadyEncrypted").advice("write Encrypt, or AlreadyFormatted"));
            return None;
        }
        let existing_key = self.key(encryption);
        Some(DrivesetRow {
            line: self.record.line,
            target: target?,
            format: format?,
            prompt: prompt?,
            encryption: encryption?,
            existing_key: existing_key?.map(Arc::new),
        })
    }

    fn at(&self, column: &str, what: impl Into<String>) -> Problem {
        Problem::new(Kind::Usage, what).path(self.path).line(self.record.line).column(column)
    }

    fn fail<T>(&mut self, problem: Problem) -> Option<T> {
        self.problems.push(problem);
        None
    }

    fn choice<T: Copy>(&mut self, column: &str, choices: [(&str, T); 2]) -> Option<T> {
        let advice = format!("{} or {}", choices[0].0, choices[1].0);
        let Some(field) = self.header.get(self.record, column) else {
            let problem = self.at(column, "value is missing");
            return self.fail(problem.advice(advice));
        };
        let text = field.text();
        if let Some((_, value)) = choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(text.trim())) {
            return Some(*value);
        }
        let problem = self.at(column, "value is not known").value(shown(&text));
        self.fail(problem.advice(advice))
    }

    fn prompt(&mut self) -> Option<FormatPrompt> {
        const COLUMN: &str = "SilentOrPromptOnFormat";
        let text = self.header.get(self.record, COLUMN).map(|f| f.text().trim().to_owned());
        match text.as_deref() {
            Some(text) if text.eq_ignore_ascii_case("SilentMode") => return Some(FormatPrompt::SilentMode),
            Some(text) if text.eq_ignore_ascii_case("PromptOnFormat") => return Some(FormatPrompt::PromptOnFormat),
            _ => {}
        }
        let met = shown(text.as_deref().unwrap_or("none"));
        let problem = self.at(COLUMN, format!("Incorrect value for SilentOrPromptOnFormat: {met}"));
        self.fail(problem.advice("SilentMode or PromptOnFormat"))
    }

    /// The outer `Option` is `None` after a problem.
    fn key(&mut self, encryption: Option<Encryption>) -> Option<Option<SecretText>> {
        const COLUMN: &str = "ExistingBitLockerKey";
        let field = self.header.get(self.record, COLUMN);
        match (encryption?, field) {
            (Encryption::Encrypt, None) => Some(None),
            (Encryption::Encrypt, Some(field)) if field.text().trim().eq_ignore_ascii_case("none") => Some(None),
            (Encryption::Encrypt, Some(_)) => {
                let problem = self.at(COLUMN, "BitLocker Key should not be specified");
                self.fail(problem.advice("leave it empty, or write AlreadyEncrypted"))
            }
            (Encryption::AlreadyEncrypted, None) => {
                let problem = self.at(COLUMN, "key of the encrypted drive is missing");
                self.fail(problem.advice("its 48-digit numerical password"))
            }
            (Encryption::AlreadyEncrypted, Some(field)) => {
                let text = zeroize::Zeroizing::new(field.text().into_owned());
                match numerical_password(&text) {
                    Ok(key) => Some(Some(key)),
                    Err(why) => {
                        let problem =
                            self.at(COLUMN, why.map_or(NO_PASSWORD.into(), |why| format!("{NO_PASSWORD}: {why}")));
                        self.fail(problem.advice(
                            "eight groups of six digits with - between, each a multiple of 11 below 720896: look for a mistyped digit",
                        ))
                    }
                }
            }
        }
    }

    fn target(&mut self) -> Option<TargetName> {
        const COLUMN: &str = "DriveLetter";
        const FORM: &str =
            "/dev/sdX, a path below /dev/disk/by-id, serial:…, or a disk image file such as drive.img:4TB";
        let Some(field) = self.header.get(self.record, COLUMN) else {
            let problem = self.at(COLUMN, "value is missing");
            return self.fail(problem.advice(FORM));
        };
        let bytes = field.bytes.to_vec();
        let text = field.text().into_owned();
        let letter = bytes[0].is_ascii_alphabetic() && matches!(bytes[1..], [] | [b':'] | [b':', b'\\' | b'/', ..]);
        if letter {
            let problem = self.at(COLUMN, "drive letters do not exist here").value(text);
            return self.fail(problem.advice(FORM));
        }
        if bytes.contains(&0) {
            let problem = self.at(COLUMN, "path holds a zero byte").value(text);
            return self.fail(problem.advice(FORM));
        }
        if bytes.get(..7).is_some_and(|p| p.eq_ignore_ascii_case(b"serial:")) {
            let serial: String = text[7..].split_whitespace().collect();
            if serial.is_empty() {
                let problem = self.at(COLUMN, "serial is missing").value(text);
                return self.fail(problem.advice("serial: and what is printed on the drive's label"));
            }
            return Some(TargetName::Serial(serial));
        }
        let to_path = |bytes: &[u8]| PathBuf::from(OsString::from_vec(bytes.to_vec()));
        let path = to_path(&bytes);
        // A name in the directory, not one that only begins like it and leads out again.
        let mut below = path.strip_prefix("/dev/disk/by-id").ok().into_iter().flat_map(Path::components);
        if matches!((below.next(), below.next()), (Some(std::path::Component::Normal(_)), None)) {
            return Some(TargetName::ById(path));
        }
        // `/dev/shm` holds ordinary files.
        if path.starts_with("/dev") && !path.starts_with("/dev/shm") {
            return Some(TargetName::Device(path));
        }
        let Some(colon) = bytes.iter().rposition(|b| *b == b':') else {
            return Some(TargetName::Image { path, size: None });
        };
        let size = String::from_utf8_lossy(&bytes[colon + 1..]).into_owned();
        if !size.trim_start().starts_with(|c: char| c.is_ascii_digit()) {
            return Some(TargetName::Image { path, size: None });
        }
        match parse_size(&size) {
            Some(len) if len.0 > 0 && colon > 0 => {
                Some(TargetName::Image { path: to_path(&bytes[..colon]), size: Some(len) })
            }
            _ => {
                let problem = self.at(COLUMN, "size of the image is not understood").value(text);
                self.fail(
                    problem.advice("a number and a unit: 500GB, 1.5TB (powers of 1000), 64MiB, 2TiB (powers of 1024)"),
                )
            }
        }
    }
}

/// A value that may be a key in the wrong column is not shown.
fn shown(text: &str) -> String {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    if digits >= 24 { "<secret>".into() } else { text.into() }
}

/// `500GB`, `500 GB`, `1.5TB`, `64MiB`, `4096`: decimal units are powers of 1000
/// (docs/spec/import-export.md#previewexport), those with an `i` of 1024. Exact; `None` when not understood, past 64
/// bits, or not a whole number of bytes.
pub fn parse_size(text: &str) -> Option<ByteLen> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..split], text[split..].trim());
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 18 || (number.contains('.') && fraction.is_empty()) {
        return None;
    }
    let unit = unit.to_ascii_uppercase();
    let stem = unit.strip_suffix('B').unwrap_or(&unit);
    let (stem, base) = match stem.strip_suffix('I') {
        Some("") => return None,
        Some(stem) => (stem, 1024u128),
        None => (stem, 1000),
    };
    let power = ["", "K", "M", "G", "T", "P"].iter().position(|s| *s == stem)? as u32;
    let factor = base.pow(power);
    let whole = whole.parse::<u64>().ok()?;
    let scale = 10u128.pow(fraction.len() as u32);
    let fraction = if fraction.is_empty() { 0 } else { fraction.parse::<u64>().ok()? };
    let scaled = u128::from(fraction) * factor;
    if !scaled.is_multiple_of(scale) {
        return None;
    }
    u64::try_from(u128::from(whole) * factor + scaled / scale).ok().map(ByteLen)
}

/// The message for a value that should be a numerical password.
pub const NO_PASSWORD: &str = "is no 48-digit numerical password";

/// The numerical password in a text, with dashes and blanks of any kind between and around its groups, as it is
/// printed.
///
/// # Errors
/// The mistyped group, if it can be determined.
pub fn numerical_password(text: &str) -> Result<SecretText, Option<RecoveryPasswordError>> {
    let run = printed::only(text).ok_or_else(|| printed::slip(text))?;
    run.password().map(|_| SecretText::new(run.digits.expose())).map_err(Some)
}

/// Eight groups of six digits, each a multiple of 11 below 720,896 (docs/spec/import-export.md#disks-and-limits).
pub fn is_numerical_password(text: &str) -> bool {
    let mut groups = 0;
    text.split('-').all(|group| {
        groups += 1;
        group.len() == 6
            && group.bytes().all(|b| b.is_ascii_digit())
            && group.parse::<u32>().is_ok_and(|n| n % 11 == 0 && n < 720_896)
    }) && groups == 8
}

#[cfg(test)]
mod tests {
    use super::*;

    const H: &str = "DriveLetter,FormatOption,SilentOrPromptOnFormat,Encryption,ExistingBitLockerKey\n";
    const KEY: &str = "060456-014509-132033-080300-252615-584177-672089-411631";

    fn good(rows: &str) -> Vec<DrivesetRow> {
        parse(Path::new("s.csv"), format!("{H}{rows}").as_bytes()).unwrap_or_else(|e| panic!("{rows}\n{e}")).rows
    }

    fn bad(rows: &str) -> Vec<Problem> {
        parse(Path::new("s.csv"), format!("{H}{rows}").as_bytes()).map(|d| panic!("{d:?}")).unwrap_err().0
    }

    #[test]
    fn documented_rows_are_understood_but_for_their_letters() {
        let rows = good(&format!(
            "/dev/sdg,AlreadyFormatted,SilentMode,AlreadyEncrypted,{KEY}\n/dev/sdh,Format,SilentMode,Encrypt,\n"
        ));
        assert_eq!(rows[0].existing_key.as_ref().unwrap().expose(), KEY);
        assert_eq!(rows[0].format, FormatOption::AlreadyFormatted);
        assert_eq!(rows[0].encryption, Encryption::AlreadyEncrypted);
        assert_eq!((rows[1].format, rows[1].encryption), (FormatOption::Format, Encryption::Encrypt));
        assert!(rows[1].existing_key.is_none());
        let problems =
            bad(&format!("G,AlreadyFormatted,SilentMode,AlreadyEncrypted,{KEY}\nH,Format,SilentMode,Encrypt,\n"));
        assert_eq!(problems.len(), 2);
        assert!(problems.iter().all(|p| p.what == "drive letters do not exist here" && p.advice.is_some()));
    }

    #[test]
    fn targets_are_told_apart() {
        let target = |name: &str| good(&format!("{name},Format,SilentMode,Encrypt,\n")).remove(0).target;
        let image = |path: &str, size: Option<u64>| TargetName::Image { path: path.into(), size: size.map(ByteLen) };
        assert_eq!(target("/dev/sdb"), TargetName::Device("/dev/sdb".into()));
        assert_eq!(target("/dev/disk/by-id/ata-X_1"), TargetName::ById("/dev/disk/by-id/ata-X_1".into()));
        assert_eq!(target("/dev/disk/by-path/p"), TargetName::Device("/dev/disk/by-path/p".into()));
        assert_eq!(target("serial: WD-WMATV123456 "), TargetName::Serial("WD-WMATV123456".into()));
        assert_eq!(target("drive.img:4TB"), image("drive.img", Some(4_000_000_000_000)));
        assert_eq!(target("drive.img:64 MiB"), image("drive.img", Some(64 << 20)));
        assert_eq!(target("drive.img"), image("drive.img", None));
        assert_eq!(target("a:b.img"), image("a:b.img", None));
        assert_eq!(target("\"/x/a,b.img:1.5TB\""), image("/x/a,b.img", Some(1_500_000_000_000)));
        assert_eq!(target("/dev/shm/d.img:1GB"), image("/dev/shm/d.img", Some(1_000_000_000)));
    }

    #[test]
    fn sizes_are_exact() {
        for (text, bytes) in [
            ("4TB", 4_000_000_000_000),
            ("500 GB", 500_000_000_000),
            ("1.5TB", 1_500_000_000_000),
            ("512", 512),
            ("2tib", 2 << 40),
            ("1.5KiB", 1536),
            ("0.001KB", 1),
            ("7B", 7),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Some(ByteLen(bytes)), "{text}");
        }
        for text in [
            "",
            "GB",
            "4XB",
            "1.GB",
            ".5GB",
            "1.2.3GB",
            "-1GB",
            "0.0001KB",
            "4iB",
            "99999999PB",
            "18446744073709551616",
        ] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn documented_messages_are_given_word_for_word() {
        for (row, column, what) in [
            ("/dev/a,Format,,Encrypt,", "SilentOrPromptOnFormat", "Incorrect value for SilentOrPromptOnFormat: none"),
            (
                "/dev/a,Format,SilentMode,AlreadyEncrypted,",
                "Encryption",
                "When Format is specified, Encrypt must also be specified",
            ),
            (
                &format!("/dev/a,Format,SilentMode,Encrypt,{KEY}"),
                "ExistingBitLockerKey",
                "BitLocker Key should not be specified",
            ),
        ] {
            let problems = bad(&format!("{row}\n"));
            assert_eq!(problems.len(), 1, "{row}");
            assert_eq!(problems[0].what, what);
            assert_eq!(problems[0].place.column.as_deref(), Some(column));
            assert_eq!(problems[0].place.line, Some(2));
        }
    }

    #[test]
    fn case_of_values_does_not_matter() {
        assert_eq!(good("/dev/a,FORMAT,silentmode,encrypt,None |\n").len(), 1);
        assert_eq!(good("\"/dev/a\",\"Format\",PromptOnFormat,Encrypt \r\n").len(), 1);
    }

    #[test]
    fn wrong_rows_are_all_told_and_keys_never_shown() {
        let mistyped = KEY.replace("014509", "014508");
        let rows = format!(
            "/dev/a,AlreadyFormatted,SilentMode,AlreadyEncrypted,{mistyped}\n/dev/b,AlreadyFormatted,SilentMode,AlreadyEncrypted,\n\
             ,x,y,z,\n/dev/c,{KEY},{KEY},{KEY},\nd.img:4XB,Format,SilentMode,Encrypt,\nserial:,Format,SilentMode,Encrypt,\n"
        );
        let problems = bad(&rows);
        assert_eq!(
            problems.iter().map(|p| p.place.line.unwrap()).collect::<Vec<_>>(),
            [2, 3, 4, 4, 4, 4, 5, 5, 5, 6, 7]
        );
        let all = format!("{problems:?}");
        assert!(!all.contains("411631") && !all.contains("014508"), "{all}");
        let headless = parse(
            Path::new("s.csv"),
            format!("/dev/a,AlreadyFormatted,SilentMode,AlreadyEncrypted,{KEY}\n").as_bytes(),
        );
        assert!(!format!("{headless:?}").contains("411631"));
    }

    #[test]
    fn a_key_is_read_with_whatever_is_between_its_groups() {
        for between in ["\u{2013}", "\u{2011}", "\u{2212}", " ", "\u{A0}", "\u{2013}\u{200B}", ""] {
            for around in ["", " ", "\u{A0}", "\u{FEFF}"] {
                let key = format!("{around}{}{around}", KEY.replace('-', between));
                let rows = good(&format!("/dev/a,AlreadyFormatted,SilentMode,AlreadyEncrypted,{key}\n"));
                assert_eq!(rows[0].existing_key.as_ref().unwrap().expose(), KEY, "{between:?} {around:?}");
            }
        }
        let slip = KEY.replace("014509", "014508").replace('-', "\u{2013}");
        let problems = bad(&format!("/dev/a,AlreadyFormatted,SilentMode,AlreadyEncrypted,{slip}\n"));
        assert!(problems[0].what.contains("group 2"), "{problems:?}");
        assert_eq!(good("/dev/a,Format,SilentMode,Encrypt\n").len(), 1);
        let short = bad("/dev/a,Format\n");
        let lacking = "row has 2 values, the header 5 columns: SilentOrPromptOnFormat, Encryption are missing";
        assert_eq!(short[0].what, lacking);
    }

    #[test]
    fn one_drive_named_twice_and_too_many_are_told() {
        let row = |name: &str| format!("{name},Format,SilentMode,Encrypt,\n");
        for (a, b) in [("/dev/sda", "/dev//sda"), ("a.img", "./a.img:4TB"), ("serial:A B", "serial:AB")] {
            let problems = bad(&(row(a) + &row(b)));
            assert_eq!(problems.len(), 1, "{a} {b}");
            assert!(problems[0].what.contains("line 2"));
        }
        let many: String = (0..26).map(|i| row(&format!("/dev/sd{i}"))).collect();
        assert!(bad(&many)[0].what.starts_with("26 drives"));
        assert_eq!(good(&(0..25).map(|i| row(&format!("/dev/sd{i}"))).collect::<String>()).len(), 25);
    }

    #[test]
    fn public_numerical_passwords_are_well_formed() {
        for key in [
            KEY,
            "238810-662376-448998-450120-652806-203390-606320-483076",
            "442926-020713-108086-436744-137335-435358-242242-279598",
        ] {
            assert!(is_numerical_password(key));
        }
        for key in ["", "060456", "720896-014509-132033-080300-252615-584177-672089-411631", &format!("{KEY}-000000")] {
            assert!(!is_numerical_password(key));
        }
    }

    #[test]
    fn hostile_bytes_never_panic() {
        use dray_base::entropy::Seeded;
        let seed = format!(
            "{H}serial:ä,Format,SilentMode,Encrypt,\nd.img:1.5TB,AlreadyFormatted,SilentMode,AlreadyEncrypted,{KEY}\n"
        );
        let mut random = Seeded::new(4);
        for _ in 0..20_000 {
            let mut bytes = seed.clone().into_bytes();
            for _ in 0..1 + random.next_u64() % 6 {
                let at = H.len() + (random.next_u64() % (bytes.len() - H.len()).max(1) as u64) as usize;
                if at < bytes.len() {
                    match random.next_u64() % 3 {
                        0 => bytes[at] = random.next_u64() as u8,
                        1 => bytes[at] = b"\",\r\n|\\/ :\0"[(random.next_u64() % 10) as usize],
                        _ => drop(bytes.remove(at)),
                    }
                }
            }
            let _ = parse(Path::new("s.csv"), &bytes);
        }
    }
}
