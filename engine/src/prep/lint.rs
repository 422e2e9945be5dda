//! `dray check`: input files read as a session would read them, without a drive.

use std::fs;
use std::path::Path;

use zeroize::Zeroizing;

use crate::azure::properties::{self, SideKind};
use crate::azure::{dataset, drive_record, driveset};
use crate::limits::INPUT_FILE_MAX;
use crate::prep::sides;
use crate::report::{Kind, Problem, Problems};

/// What an input file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputKind {
    /// CSV: what to copy.
    Dataset,
    /// CSV: onto which drives.
    Driveset,
    /// XML: metadata of blobs.
    Metadata,
    /// XML: properties of blobs.
    Properties,
    /// `<DriveId>.xml`, which goes with the job.
    DriveRecord,
}

impl InputKind {
    /// In words.
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

/// A file in which nothing is wrong.
#[derive(Debug)]
pub struct Linted {
    /// What it is.
    pub kind: InputKind,
    /// Rows of a CSV file; 1 for others.
    pub entries: u64,
    /// What is odd but understood.
    pub warnings: Vec<Problem>,
}

/// Reads a file, tells by its contents what it is, and checks it. For a dataset that includes that its sources are there
/// and that its metadata and properties files are right.
///
/// # Errors
/// Everything that is wrong in it.
pub fn lint(path: &Path) -> Result<Linted, Problems> {
    let bytes = read(path)?;
    let kind = recognise(&bytes).ok_or_else(|| {
        Problem::new(Kind::Usage, "is no input file that dray knows")
            .path(path)
            .advice("a CSV file begins with its header, an XML file with its root; see `dray template`")
    })?;
    let mut problems = Problems::default();
    let mut warnings = Vec::new();
    let mut entries = 1;
    match kind {
        InputKind::Dataset => {
            let dataset = dataset::parse_into(path, &bytes, &mut problems);
            entries = dataset.rows.len() as u64;
            warnings.extend(dataset.warnings);
            for row in &dataset.rows {
                problems.0.extend(source(path, row));
            }
            sides::side_files(path, &dataset.rows, false, &mut problems, &mut warnings);
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
            Ok(record) if record.state == Some(drive_record::State::Incomplete) => problems.push(
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

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Problems> {
    let problem = |what: String| Problem::new(Kind::Usage, what).path(path);
    let meta = fs::metadata(path).map_err(|error| problem(format!("cannot be read: {error}")))?;
    if !meta.is_file() {
        return Err(problem("is no file".into()).into());
    }
    if meta.len() > INPUT_FILE_MAX {
        return Err(problem(format!("is larger than {INPUT_FILE_MAX} bytes")).into());
    }
    // A driveset or a drive record may hold keys.
    let bytes = fs::read(path).map_err(|error| problem(format!("cannot be read: {error}")))?;
    Ok(Zeroizing::new(bytes))
}

/// By the first words, whatever the encoding.
fn recognise(bytes: &[u8]) -> Option<InputKind> {
    let head: Zeroizing<String> =
        Zeroizing::new(bytes.iter().take(4096).filter(|b| b.is_ascii() && **b != 0).map(|b| *b as char).collect());
    let lower = Zeroizing::new(head.trim_start().to_ascii_lowercase());
    let first = lower.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
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

/// A source must be there, and be what the row spells.
fn source(path: &Path, row: &dataset::DatasetRow) -> Option<Problem> {
    let here = |what: &str| {
        Problem::new(Kind::Usage, what)
            .path(path)
            .line(row.line)
            .column("BasePath")
            .value(row.base_path.display().to_string())
    };
    match fs::metadata(&row.base_path) {
        Err(error) => Some(here(&format!("cannot be read: {error}")).advice("check the path, and who may read it")),
        Ok(meta) if row.is_dir_spelled && !meta.is_dir() => {
            Some(here("is spelled as a directory and is none").advice("take the separator at its end away"))
        }
        Ok(meta) if !row.is_dir_spelled && meta.is_dir() => {
            Some(here("is a directory").advice("write it with a separator at its end"))
        }
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_recognised_by_what_is_in_them() {
        let utf16: Vec<u8> =
            "\u{feff}BasePath,DstItemPathOrPrefix,ItemType".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for (bytes, kind) in [
            (&b"BasePath,DstBlobPathOrPrefix,BlobType\r\n"[..], Some(InputKind::Dataset)),
            (&utf16[..], Some(InputKind::Dataset)),
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
}
