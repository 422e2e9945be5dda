//! `dray check`: input files read as a session would read them, without a drive.

use std::path::Path;

use zeroize::Zeroizing;

use crate::azure::properties::{self, SideKind};
use crate::azure::{dataset, drive_record, driveset, names};
use crate::dataset::own::Own;
use crate::dataset::scan::{self, Of};
use crate::files::input::{self, Pipes};
use crate::limits::INPUT_FILE_MAX;
use crate::report::{Advice, Command, Kind, Problem, Problems};
use crate::request::Sets;
use crate::source::select::Selection;
use crate::text;

/// Kind of an input file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputKind {
    /// CSV: sources to copy.
    Dataset,
    /// CSV: target drives.
    Driveset,
    /// XML: metadata of blobs.
    Metadata,
    /// XML: properties of blobs.
    Properties,
    /// `<DriveId>.xml`, which is uploaded with the job.
    DriveRecord,
}

impl InputKind {
    /// The kind of file in words, as `dray check` prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dataset => "dataset",
            Self::Driveset => "driveset",
            Self::Metadata => "metadata file",
            Self::Properties => "properties file",
            Self::DriveRecord => "drive record",
        }
    }
}

/// A valid file.
#[derive(Debug)]
pub struct Linted {
    /// Kind of file, known by its contents.
    pub kind: InputKind,
    /// Rows of a CSV file; 1 for others.
    pub entries: u64,
    /// Oddities that were understood.
    pub warnings: Vec<Problem>,
}

/// Characters of a file examined to recognise its kind.
const HEAD_LEN: usize = 4096;

/// Reads a file, recognises it by its contents, and checks it. For a dataset that includes all problems that a session
/// would find with its sources and with its metadata and properties files.
///
/// # Errors
/// Everything that is wrong in it.
pub fn lint(path: &Path) -> Result<Linted, Problems> {
    let bytes = read(path)?;
    let kind = recognise(&bytes).ok_or_else(|| {
        Problem::new(Kind::Usage, "is no input file that dray knows").path(path).advice(
            Advice::from("a CSV file begins with its header, an XML file with its root; see ") + Command::Template,
        )
    })?;
    let mut problems = Problems::default();
    let mut warnings = Vec::new();
    let mut entries = 1;
    match kind {
        InputKind::Dataset => {
            let dataset = dataset::parse_into(path, &bytes, &mut problems);
            entries = dataset.rows.len() as u64;
            warnings.extend(dataset.warnings);
            // As a session would read them; the session's name only affects the length of paths on the drive.
            let root_units = 1 + names::SESSION_LEN_MAX;
            let own = Own::default();
            let of = Of {
                dataset: path,
                rows: &dataset.rows,
                root_units,
                sets: Sets::default(),
                own: &own,
                selection: &Selection::default(),
            };
            let (_, scanned) = scan::sources(&of, &mut problems, &mut warnings, &mut |_| {});
            if let Some((first, others)) = scanned.as_ref().and_then(|scanned| scanned.skipped.split_first()) {
                let many = 1 + others.len();
                let what = format!("{many} of what the sources hold can become no blob and would be left out");
                let first = format!("{}: {}", first.path.display(), first.what);
                warnings.push(Problem::new(Kind::Usage, what).path(path).value(first));
            }
        }
        InputKind::Driveset => {
            let driveset = driveset::parse_into(path, &bytes, &mut problems);
            entries = driveset.rows.len() as u64;
            warnings.extend(driveset.warnings);
        }
        InputKind::Metadata | InputKind::Properties => {
            let side = if kind == InputKind::Metadata { SideKind::Metadata } else { SideKind::Properties };
            match properties::check(path, &bytes, side, false) {
                Ok(odd) => warnings.extend(odd),
                Err(mut more) => problems.0.append(&mut more.0),
            }
        }
        InputKind::DriveRecord => match drive_record::read(&bytes) {
            Ok(record) if record.state == Some(drive_record::RecordState::Incomplete) => problems.push(
                Problem::new(Kind::Usage, "belongs to a drive that is not finished")
                    .path(path)
                    .advice("prepare the drive to its end before it goes into a job"),
            ),
            Ok(_) => {}
            Err(error) => problems.push(Problem::new(Kind::Usage, error.to_string()).path(path)),
        },
    }
    problems.into_result().map(|()| Linted { kind, entries, warnings })
}

/// Problems of the text of a dataset or driveset, without looking for any file.
///
/// # Errors
/// All of them.
pub fn lint_text(text: &str) -> Result<(), Problems> {
    let (path, bytes) = (Path::new("-"), text.as_bytes());
    match recognise(bytes) {
        Some(InputKind::Driveset) => driveset::parse(path, bytes).map(drop),
        _ => dataset::parse(path, bytes).map(drop),
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Problems> {
    let problem = |what: String| Problem::new(Kind::Usage, what).path(path);
    input::read(path, INPUT_FILE_MAX, Pipes::Taken).map_err(|error| problem(format!("cannot be read: {error}")).into())
}

/// Recognised by the first words, whatever the encoding.
fn recognise(bytes: &[u8]) -> Option<InputKind> {
    let bytes = Zeroizing::new(text::decode(&bytes[..bytes.len().min(4 * HEAD_LEN)]).into_owned());
    let head: Zeroizing<String> =
        Zeroizing::new(bytes.iter().take(HEAD_LEN).filter(|b| b.is_ascii()).map(|b| *b as char).collect());
    let lower = Zeroizing::new(head.trim_start().to_ascii_lowercase());
    let is_content = |line: &&str| !line.trim().is_empty() && !line.trim_start_matches('"').starts_with("sep=");
    let first = lower.lines().find(is_content).unwrap_or_default();
    if first.starts_with('[') && lower.contains("<drive>") || first.contains("<drive>") {
        return Some(InputKind::DriveRecord);
    }
    if first.starts_with('<') {
        let roots = [
            ("<metadata", InputKind::Metadata),
            ("<properties", InputKind::Properties),
            ("<drive>", InputKind::DriveRecord),
        ];
        return roots.into_iter().find(|(root, _)| lower.contains(root)).map(|(_, kind)| kind);
    }
    let columns = [
        ("basepath", InputKind::Dataset),
        ("dstblobpathorprefix", InputKind::Dataset),
        ("dstitempathorprefix", InputKind::Dataset),
        ("driveletter", InputKind::Driveset),
        ("formatoption", InputKind::Driveset),
    ];
    columns.into_iter().find(|(column, _)| first.contains(column)).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_are_recognised_by_what_is_in_them() {
        let utf16: Vec<u8> =
            "\u{feff}BasePath,DstItemPathOrPrefix,ItemType".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for (bytes, kind) in [
            (&b"BasePath,DstBlobPathOrPrefix,BlobType\r\n"[..], Some(InputKind::Dataset)),
            (&utf16[..], Some(InputKind::Dataset)),
            (b"sep=;\r\nBasePath;DstBlobPathOrPrefix\r\n", Some(InputKind::Dataset)),
            (&utf16[2..], Some(InputKind::Dataset)),
            (b"\xEF\xBB\xBFDriveLetter,FormatOption\n", Some(InputKind::Driveset)),
            (b"<?xml version=\"1.0\"?>\n<Metadata/>", Some(InputKind::Metadata)),
            (b"\n\n<Properties><Content-Type>a</Content-Type></Properties>", Some(InputKind::Properties)),
            (b"<?xml version=\"1.0\"?><Drive><DriveId>a</DriveId></Drive>", Some(InputKind::DriveRecord)),
            (b"[BeginUpdateRecord][x]\nDriveState: [BeginValue]\n<Drive>", Some(InputKind::DriveRecord)),
            (b"hello", None),
            (b"", None),
        ] {
            assert_eq!(recognise(bytes), kind, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_dataset_is_told_what_a_session_would_tell() {
        let dir = std::env::temp_dir().join(format!("dray-lint-{}", std::process::id()));
        let data = dir.join("data");
        fs::create_dir_all(data.join("back")).expect("directory");
        for (name, len) in [("f", 1), ("odd.vhd", 513), ("back\\x", 1), ("back/x", 1), ("dots.", 1), ("dots", 1)] {
            fs::write(data.join(name), vec![0; len]).expect("file");
        }
        let check = |rows: &str| {
            let file = dir.join("dataset.csv");
            let rows = rows.replace('@', &data.display().to_string());
            fs::write(&file, format!("BasePath,DstItemPathOrPrefix,ItemType\n{rows}")).expect("file");
            lint(&file)
        };
        for (rows, what) in [
            ("@/,share/,file\n", "files of an Azure Files share cannot be prepared"),
            ("@/f,con/x,BlockBlob\n@/dots,con/x,BlockBlob\n", "lines 2 and 3 make the same blob con/x"),
            ("@/odd.vhd,con/odd.vhd,PageBlob\n", "a page blob is a multiple of 512 bytes, the file is 1 byte over"),
            ("@,con/x,BlockBlob\n", "is a directory but does not end in a separator"),
            ("@/none/,con/,BlockBlob\n", "cannot be read: No such file or directory (os error 2)"),
        ] {
            let problems = check(rows).expect_err(rows);
            assert_eq!(problems.0.iter().map(|one| &*one.what).collect::<Vec<_>>(), [what], "{rows}");
        }
        let good = check("@/,con/,BlockBlob\n").expect("good");
        let reported: Vec<_> = good.warnings.iter().map(|one| &*one.what).collect();
        assert_eq!(
            reported.iter().filter(|what| what.contains("may take two blobs for one")).count(),
            2,
            "{reported:?}"
        );
        fs::remove_dir_all(dir).expect("removed");
    }
}
