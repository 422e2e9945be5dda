//! Azure's rules for names and sizes (docs/spec/import-export.md#sessions, docs/spec/import-export.md#names-and-sizes
//! and docs/spec/import-export.md#limits-and-shipping-rules).

use std::borrow::Cow;

use unicode_normalization::{UnicodeNormalization, is_nfc};

use crate::text::counted;
use crate::units::ByteLen;

/// The root container; its blobs cannot hold `/`.
pub const ROOT: &str = "$root";

/// Block length of the published manifest grammar.
pub const BLOCK_LEN: u64 = 4 << 20;
/// Most blocks of one blob.
pub const BLOCKS_MAX: u64 = 50_000;
/// Largest block that the service takes since 2016.
pub const BLOCK_LEN_MAX: u64 = 100 << 20;
/// Largest block blob of the published grammar, 195.3 GiB.
pub const BLOCK_BLOB_PUBLISHED_MAX: u64 = BLOCK_LEN * BLOCKS_MAX;
/// Largest block blob of the service of 2017 and later, 5,000,000 MiB.
pub const BLOCK_BLOB_MAX: u64 = BLOCK_LEN_MAX * BLOCKS_MAX;
/// Largest page blob of the grammar of 2014.
pub const PAGE_BLOB_PUBLISHED_MAX: u64 = 1 << 40;
/// Largest page blob of the service of 2021.
pub const PAGE_BLOB_MAX: u64 = 8 << 40;
/// Unit of a page blob's length.
pub const PAGE: u64 = 512;
/// Longest blob name, counted in UTF-16 units as the service's platform counts characters.
pub const BLOB_NAME_MAX: usize = 1024;
/// Longest session id.
pub const SESSION_LEN_MAX: usize = 30;
/// Most segments of a blob name.
pub const BLOB_SEGMENTS_MAX: usize = 254;

/// The name that the service gives to a blob whose own is taken: ` (number)` before the last dot of its last segment, or at
/// its end where that has none; 1 is the name itself (docs/spec/import-export.md#manifest-grammar).
pub fn numbered(name: &str, number: u32) -> String {
    if number <= 1 {
        return name.to_owned();
    }
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let at = name[last..].rfind('.').map_or(name.len(), |dot| last + dot);
    format!("{} ({number}){}", &name[..at], &name[at..])
}

/// Reason why Azure does not accept a name or a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Container of fewer than 3 or more than 63 characters.
    #[error("container name has {}", counted(*.0 as u64, "character"))]
    ContainerLen(usize),
    /// Character not allowed in container names.
    #[error("container name holds {0:?}")]
    ContainerChar(char),
    /// Container that begins or ends with `-`, or holds `--`.
    #[error("container name has a hyphen without a letter or digit on both sides")]
    ContainerHyphen,
    /// Empty blob name.
    #[error("blob name is empty")]
    BlobEmpty,
    /// Blob name past [`BLOB_NAME_MAX`].
    #[error("blob name has {}", counted(*.0 as u64, "character"))]
    BlobLen(usize),
    /// More than [`BLOB_SEGMENTS_MAX`] segments.
    #[error("blob name has {}", counted(*.0 as u64, "segment"))]
    BlobSegments(usize),
    /// Control character, non-character or private use.
    #[error("blob name holds U+{:04X}", *.0 as u32)]
    BlobChar(char),
    /// Segment `.` or `..`, which every HTTP client resolves away.
    #[error("blob name holds the segment . or ..")]
    BlobDots,
    /// `/` in the name of a blob of the root container.
    #[error("blobs in the root container cannot hold /")]
    RootSlash,
    /// Session id of fewer than 3 or more than 30 characters.
    #[error("session id has {}", counted(*.0 as u64, "character"))]
    SessionLen(usize),
    /// Character not allowed in session ids.
    #[error("session id holds {0:?}")]
    SessionChar(char),
    /// Job name out of form.
    #[error("job name is not in the form that the service takes")]
    Job,
    /// Drive id out of form.
    #[error("drive id is not in the form of a serial number")]
    DriveId,
}

impl NameError {
    /// The rule that the name breaks, as advice.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::ContainerLen(_) | Self::ContainerChar(_) | Self::ContainerHyphen => {
                "3 to 63 lower-case letters, digits and single hyphens, a letter or digit at both ends; or $root"
            }
            Self::BlobEmpty | Self::BlobLen(_) => "1 to 1024 characters",
            Self::BlobSegments(_) => "at most 254 segments between slashes",
            Self::BlobChar(_) => "rename the file: no control characters, private-use or non-characters",
            Self::BlobDots => "leave . and .. out",
            Self::RootSlash => "use another container for files in directories",
            Self::SessionLen(_) | Self::SessionChar(_) => "3 to 30 letters, digits, _, - and #",
            Self::Job => "lower-case letters, digits and hyphens, a letter first",
            Self::DriveId => "the serial number without blanks: letters, digits, _ - .",
        }
    }
}

/// Oddities of a blob name that Azure accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlobWarnings(u8);

impl BlobWarnings {
    const TABLE: [&str; 6] = [
        "blob name holds %: it is taken literally, not as an escape",
        "a segment of the blob name ends in a dot, which Azure advises against",
        "blob name ends in /, which Azure advises against",
        "blob name holds an empty segment",
        "blob name holds \\, which Azure's clients turn into /",
        "blob name holds private-use characters",
    ];

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The warnings as sentences.
    pub fn texts(self) -> impl Iterator<Item = &'static str> {
        Self::TABLE.into_iter().enumerate().filter(move |(bit, _)| self.0 & 1 << bit != 0).map(|(_, text)| text)
    }
}

/// Whether Azure takes a container of this name.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_container(name: &str) -> Result<(), NameError> {
    if name == ROOT {
        return Ok(());
    }
    if let Some(c) = name.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
        return Err(NameError::ContainerChar(c));
    }
    if !(3..=63).contains(&name.len()) {
        return Err(NameError::ContainerLen(name.len()));
    }
    if name.starts_with('-') || name.ends_with('-') || name.contains("--") {
        return Err(NameError::ContainerHyphen);
    }
    Ok(())
}

/// Whether Azure accepts a blob of this name in `container`, with its oddities. Allocates nothing.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_blob(container: &str, name: &str) -> Result<BlobWarnings, NameError> {
    if name.is_empty() {
        return Err(NameError::BlobEmpty);
    }
    let mut warnings = 0;
    let mut units = 0;
    for c in name.chars() {
        units += c.len_utf16();
        match c {
            // Azure's naming page: control characters (0x00 to 0x1F, 0x81, …) and code points like U+E000.
            '\u{E000}'..='\u{F8FF}' | '\u{FDD0}'..='\u{FDEF}' => return Err(NameError::BlobChar(c)),
            _ if c.is_control() || c as u32 & 0xFFFE == 0xFFFE => return Err(NameError::BlobChar(c)),
            '%' => warnings |= 1,
            '\\' => warnings |= 1 << 4,
            '\u{F0000}'.. => warnings |= 1 << 5,
            _ => {}
        }
    }
    if units > BLOB_NAME_MAX {
        return Err(NameError::BlobLen(units));
    }
    let mut segments = 0;
    for segment in name.split('/') {
        segments += 1;
        if segment == "." || segment == ".." {
            return Err(NameError::BlobDots);
        }
        if segment.ends_with('.') {
            warnings |= 1 << 1;
        }
        if segment.is_empty() {
            warnings |= 1 << 3;
        }
    }
    if segments > BLOB_SEGMENTS_MAX {
        return Err(NameError::BlobSegments(segments));
    }
    if container == ROOT && segments > 1 {
        return Err(NameError::RootSlash);
    }
    if name.ends_with('/') {
        warnings = warnings & !(1 << 3) | 1 << 2;
    }
    Ok(BlobWarnings(warnings))
}

/// One spelling for all names of a blob or a segment that the service, or the clients in front of it, may treat as the
/// same: `\` becomes `/`, dots at the end of a segment and empty segments are removed
/// (docs/spec/import-export.md#names-and-sizes: names are used in URLs, whose libraries do this), escapes `%41` are
/// resolved, and letters are composed (NFC).
pub fn fold(name: &str) -> Cow<'_, str> {
    if is_folded(name) {
        return Cow::Borrowed(name);
    }
    let slashed = unescape(name).replace('\\', "/");
    let segments =
        slashed.split('/').map(|segment| segment.trim_end_matches('.')).filter(|segment| !segment.is_empty());
    let joined = segments.collect::<Vec<_>>().join("/");
    Cow::Owned(joined.nfc().collect())
}

/// Whether [`fold`] changes nothing.
pub fn is_folded(name: &str) -> bool {
    let bytes = name.as_bytes();
    let is_plain = !bytes.iter().any(|byte| matches!(byte, b'\\' | b'%'))
        && !bytes.windows(2).any(|pair| matches!(pair, b"./" | b"//"))
        && !matches!(bytes, [b'/', ..] | [.., b'/' | b'.']);
    is_plain && (name.is_ascii() || is_nfc(name))
}

/// Resolves `%41`, where the bytes are UTF-8.
fn unescape(name: &str) -> Cow<'_, str> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let (bytes, mut out, mut at) = (name.as_bytes(), Vec::with_capacity(name.len()), 0);
    while at < bytes.len() {
        match (bytes[at], digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push((high << 4 | low) as u8);
                at += 3;
            }
            (byte, _, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(out).map_or(Cow::Borrowed(name), Cow::Owned)
}

/// Letters, digits, `_`, `-`, `#`; 3 to 30 of them.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_session(id: &str) -> Result<(), NameError> {
    if let Some(c) = id.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '-' | '#')) {
        return Err(NameError::SessionChar(c));
    }
    if !(3..=SESSION_LEN_MAX).contains(&id.len()) {
        return Err(NameError::SessionLen(id.len()));
    }
    Ok(())
}

/// Lower-case letters, digits and `-`, a letter first. `_` was documented, but is refused.
///
/// # Errors
/// The service would refuse it.
pub fn check_job(name: &str) -> Result<(), NameError> {
    let good = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if good { Ok(()) } else { Err(NameError::Job) }
}

/// A serial as a `DriveId`: without blanks.
pub fn drive_id_from_serial(serial: &str) -> String {
    serial.chars().filter(|c| !c.is_whitespace() && !c.is_control()).collect()
}

/// Whether an id is valid in the manifest and in the file name `<DriveId>.xml`.
///
/// # Errors
/// The id is invalid.
pub fn check_drive_id(id: &str) -> Result<(), NameError> {
    let good = (1..=64).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'+' | b'='))
        && !id.starts_with('.');
    if good { Ok(()) } else { Err(NameError::DriveId) }
}

/// Division of a block blob into blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Length of every block but the last.
    pub len: u64,
    /// Number of blocks; 0 for an empty blob.
    pub count: u64,
    /// Blocks are longer than in the published manifest grammar: worth a warning.
    pub beyond_published: bool,
}

/// Reason why a file cannot become a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Past [`BLOCK_BLOB_MAX`].
    #[error("a block blob holds at most 5,000,000 MiB, the file has {0}")]
    BlockBlobTooLarge(ByteLen),
    /// Past [`PAGE_BLOB_MAX`].
    #[error("a page blob holds at most 8 TiB, the file has {0}")]
    PageBlobTooLarge(ByteLen),
    /// Not whole pages.
    #[error("a page blob is a multiple of 512 bytes, the file is {} over", counted(.0.0 % PAGE, "byte"))]
    NotWholePages(ByteLen),
}

/// Division of a file into blocks: 4 MiB up to 195 GiB, above that the smallest multiple of 1 MiB that makes no more
/// than 50,000.
///
/// # Errors
/// Even blocks of 100 MiB would be too many.
pub fn blocks_of(len: ByteLen) -> Result<Blocks, SizeError> {
    if len.0 > BLOCK_BLOB_MAX {
        return Err(SizeError::BlockBlobTooLarge(len));
    }
    let beyond_published = len.0 > BLOCK_BLOB_PUBLISHED_MAX;
    let block = if beyond_published { len.0.div_ceil(BLOCKS_MAX).next_multiple_of(1 << 20) } else { BLOCK_LEN };
    Ok(Blocks { len: block, count: len.0.div_ceil(block), beyond_published })
}

/// Checks that a file can become a page blob; `true` when it exceeds the published grammar, which is worth a warning.
///
/// # Errors
/// It cannot.
pub fn check_page_blob(len: ByteLen) -> Result<bool, SizeError> {
    if !len.0.is_multiple_of(PAGE) {
        return Err(SizeError::NotWholePages(len));
    }
    if len.0 > PAGE_BLOB_MAX {
        return Err(SizeError::PageBlobTooLarge(len));
    }
    Ok(len.0 > PAGE_BLOB_PUBLISHED_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_stands_before_the_last_dot() {
        for (name, number, wanted) in [
            ("Seattle.jpg", 2, "Seattle (2).jpg"),
            ("BlobNameWithoutDot", 2, "BlobNameWithoutDot (2)"),
            ("a.b/c", 3, "a.b/c (3)"),
            ("a.b/c.tar.gz", 12, "a.b/c.tar (12).gz"),
            (".hidden", 2, " (2).hidden"),
            ("x", 1, "x"),
        ] {
            assert_eq!(numbered(name, number), wanted);
        }
    }

    #[test]
    fn containers_follow_the_naming_rules() {
        for good in ["abc", "a-b", "0ab", "photo", "$root", "containername", &"a".repeat(63)] {
            assert_eq!(check_container(good), Ok(()), "{good}");
        }
        for bad in
            ["", "ab", "Abc", "a_b", "-ab", "ab-", "a--b", "$logs", "$Root", "ä12", "a.b", "a b", &"a".repeat(64)]
        {
            assert!(check_container(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn blobs_follow_the_naming_rules() {
        let long = "x".repeat(1024);
        let deep = vec!["d"; 254].join("/");
        for good in ["a", "CON", "a:b*c?", "ünïcode/日本", "a b", "-", "x\u{1F600}", &long, &deep] {
            assert_eq!(check_blob("con", good), Ok(BlobWarnings(0)), "{good}");
        }
        let too_long = "\u{1F600}".repeat(513);
        let too_deep = vec!["d"; 255].join("/");
        for (bad, error) in [
            ("", NameError::BlobEmpty),
            ("a\nb", NameError::BlobChar('\n')),
            ("a\u{81}", NameError::BlobChar('\u{81}')),
            ("a\u{E000}", NameError::BlobChar('\u{E000}')),
            ("a\u{FFFE}", NameError::BlobChar('\u{FFFE}')),
            ("a\u{1FFFF}", NameError::BlobChar('\u{1FFFF}')),
            ("a/../b", NameError::BlobDots),
            ("./b", NameError::BlobDots),
            (&too_long, NameError::BlobLen(1026)),
            (&too_deep, NameError::BlobSegments(255)),
        ] {
            assert_eq!(check_blob("con", bad), Err(error), "{bad:?}");
        }
        assert_eq!(check_blob(ROOT, "a/b"), Err(NameError::RootSlash));
        for (odd, count) in [("50%", 1), ("a./b", 1), ("a.", 1), ("a//b", 1), ("a/", 1), ("a\\b", 1), ("%./", 3)] {
            assert_eq!(check_blob("con", odd).unwrap().texts().count(), count, "{odd}");
        }
    }

    #[test]
    fn names_that_may_be_one_fold_to_one() {
        for (one, other) in [
            ("file", "file."),
            ("file", "file..."),
            ("back\\x", "back/x"),
            ("dir./x", "dir/x"),
            ("a//b", "a/b"),
            ("/a", "a"),
            ("a/", "a"),
            ("é.txt", "e\u{301}.txt"),
            ("\u{1112}\u{1161}\u{11AB}", "한"),
            ("a%20b", "a b"),
            ("%C3%A9", "e\u{301}"),
        ] {
            assert_eq!(fold(one), fold(other), "{one} {other}");
            assert!(!is_folded(one) || !is_folded(other));
        }
        for (one, other) in [("file", "File"), (".a", "a"), ("a.b", "ab"), ("ß", "ss"), ("50%", "50"), ("a ", "a")] {
            assert_ne!(fold(one), fold(other), "{one} {other}");
        }
        for plain in ["a", ".hidden", "a.b/c", "日本/é", "a b"] {
            assert!(is_folded(plain) && fold(plain) == plain, "{plain}");
        }
        assert_eq!(fold("50%"), "50%");
        assert_eq!(fold("%E4."), "%E4");
    }

    #[test]
    fn ids_follow_their_rules() {
        for good in ["session#1", "abc", "A_b-9", &"a".repeat(30)] {
            assert_eq!(check_session(good), Ok(()));
        }
        assert_eq!(check_session("a").unwrap_err().to_string(), "session id has 1 character");
        for bad in ["", "ab", "a b c", "ses/1", "säs", &"a".repeat(31)] {
            assert!(check_session(bad).is_err(), "{bad}");
        }
        assert!(check_job("my-job1").is_ok());
        assert!(check_job("my_job").is_err() && check_job("1job").is_err() && check_job("").is_err());
        for serial in ["9WM35C2V", "WD-WMATV123456", "WMAT-V8299238", "AZ31BGB1"] {
            assert_eq!(check_drive_id(serial), Ok(()));
        }
        assert_eq!(drive_id_from_serial("   WD-WCC 4E1 "), "WD-WCC4E1");
        for bad in ["", "a b", "../x", "a/b", ".x", "ä"] {
            assert!(check_drive_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn block_length_grows_only_past_the_published_maximum() {
        let cut = |len| blocks_of(ByteLen(len)).map(|b| (b.len, b.count, b.beyond_published));
        assert_eq!(cut(0), Ok((BLOCK_LEN, 0, false)));
        assert_eq!(cut(1), Ok((BLOCK_LEN, 1, false)));
        assert_eq!(cut(BLOCK_LEN + 1), Ok((BLOCK_LEN, 2, false)));
        assert_eq!(cut(BLOCK_BLOB_PUBLISHED_MAX), Ok((BLOCK_LEN, 50_000, false)));
        assert_eq!(cut(BLOCK_BLOB_PUBLISHED_MAX + 1), Ok((5 << 20, 40_001, true)));
        assert_eq!(cut(BLOCK_BLOB_MAX), Ok((100 << 20, 50_000, true)));
        assert!(cut(BLOCK_BLOB_MAX + 1).is_err());
        for mib in 196 * 1024..197 * 1024 {
            let (len, count, _) = cut(mib << 20).unwrap();
            assert!(count <= BLOCKS_MAX && (mib << 20).div_ceil(len - (1 << 20)) > BLOCKS_MAX);
        }
    }

    #[test]
    fn page_blobs_are_whole_pages() {
        assert_eq!(check_page_blob(ByteLen(512)), Ok(false));
        assert_eq!(check_page_blob(ByteLen(0)), Ok(false));
        assert_eq!(check_page_blob(ByteLen(PAGE_BLOB_MAX)), Ok(true));
        assert_eq!(
            check_page_blob(ByteLen(513)).unwrap_err().to_string(),
            "a page blob is a multiple of 512 bytes, the file is 1 byte over"
        );
        assert!(check_page_blob(ByteLen(PAGE_BLOB_MAX + 512)).is_err());
    }
}
