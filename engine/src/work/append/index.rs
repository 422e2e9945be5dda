//! Rows for indexing files that are already on a drive: paths in the volume, kept in the session's plan.

use std::path::Path;

use crate::azure::dataset::{BlobType, DatasetRow, Disposition};
use crate::checkpoint::CheckpointFault;
use crate::checkpoint::code::{Decoder, Encoder};
use crate::report::{Kind, Problem, Problems};
use crate::verify::index::IndexRow;

/// Turns rows of a dataset into rows of an index: `BasePath` is a path in the volume, with or without the drive in front
/// of it (`/dev/sdb/photos/`, `drive.img/photos/`, `/photos/`).
pub fn rows(dataset: &Path, rows: &[DatasetRow], drive: &str, problems: &mut Problems) -> Vec<IndexRow> {
    let mut out = Vec::new();
    for row in rows {
        let here = |what: &str| Problem::new(Kind::Usage, what).path(dataset).line(row.line);
        if row.metadata_file.is_some() || row.properties_file.is_some() {
            let problem = here("files of metadata and properties are not written where nothing is written");
            problems.push(problem.column("MetadataFile").advice("write None, or copy the data with a session"));
        }
        if row.blob_type == Some(BlobType::File) {
            problems.push(here("files of an Azure Files share cannot be prepared").column("ItemType").value("file"));
        }
        let Some(text) = row.base_path.to_str() else {
            problems.push(here("is not UTF-8").column("BasePath"));
            continue;
        };
        let text = text.strip_prefix(drive).unwrap_or(text);
        let parts: Vec<&str> = text.split(['/', '\\']).filter(|part| !part.is_empty() && *part != ".").collect();
        out.push(IndexRow {
            base: parts.join("/"),
            container: row.destination.container.clone(),
            prefix_or_blob: row.destination.prefix_or_blob.clone(),
            is_prefix: row.is_dir_spelled,
            blob_type: row.blob_type,
            disposition: row.disposition,
        });
    }
    out
}

/// Appends the rows to the session's plan; [`load`] reads them.
pub fn save(to: &mut Encoder<'_>, rows: &[IndexRow]) {
    to.u64(rows.len() as u64);
    for row in rows {
        to.text(&row.base);
        to.text(&row.container);
        to.text(&row.prefix_or_blob);
        to.u8(u8::from(row.is_prefix));
        to.u8(match row.blob_type {
            None => 0,
            Some(BlobType::Block) => 1,
            Some(BlobType::Page | BlobType::File) => 2,
        });
        to.text(row.disposition.as_str());
    }
}

/// Reads the rows.
///
/// # Errors
/// The bytes are damaged.
pub fn load(from: &mut Decoder<'_>) -> Result<Vec<IndexRow>, CheckpointFault> {
    let mut rows = Vec::new();
    for _ in 0..from.count(30)? {
        rows.push(IndexRow {
            base: from.text()?,
            container: from.text()?,
            prefix_or_blob: from.text()?,
            is_prefix: from.u8()? == 1,
            blob_type: match from.u8()? {
                1 => Some(BlobType::Block),
                2 => Some(BlobType::Page),
                _ => None,
            },
            disposition: Disposition::parse(&from.text()?).ok_or(CheckpointFault("holds an unknown disposition"))?,
        });
    }
    Ok(rows)
}
