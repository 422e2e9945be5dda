//! Copy logs of an export, in both generations (docs/spec/import-export.md#copy-logs): what is on a drive by its own
//! manifest, and what is not.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter};
use std::path::{Path, PathBuf};

use dray_engine::job::account::{Exported, ExportedBlob, ExportedKind};
use dray_engine::job::copylog::{
    self, BlobStatus, Category, CopyLog, CopyStatus, Detail, DriveLog, ErroredEntity, LogBlob, LogFile, LogPiece,
    LogSide, PieceStatus, SideStatus, VerboseLog,
};
use dray_engine::job::manifest::{self, Pieces, SideRef};
use dray_engine::job::timestamp;

/// A blob that is not on the drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// `container/name`.
    pub path: String,
    /// Time of the snapshot, if it is one.
    pub snapshot: Option<String>,
    /// Path that its file would have; empty where none was planned.
    pub file_path: String,
    /// Bytes.
    pub length: u64,
    /// ETag of the version that was planned, if one was.
    pub etag: Option<String>,
    /// Word of the kind: `BlockBlob`, ….
    pub format: Option<String>,
    /// Status, a colon, and the reason in words.
    pub why: String,
}

impl Failed {
    fn status(&self) -> BlobStatus {
        let word = self.why.split(':').next().unwrap_or_default();
        BlobStatus::parse(word).unwrap_or(BlobStatus::Failed)
    }
}

/// The service's word for a kind of blob.
pub const fn format_of(kind: ExportedKind) -> &'static str {
    match kind {
        ExportedKind::Block => "BlockBlob",
        ExportedKind::Page => "PageBlob",
        ExportedKind::Append => "AppendBlob",
    }
}

/// A drive whose logs are written.
#[derive(Clone, Copy, Debug)]
pub struct LogsOf<'a> {
    /// Name of the job: the session's id.
    pub job: &'a str,
    /// Serial of the drive.
    pub drive_id: &'a str,
    /// Copy of its manifest.
    pub manifest: &'a Path,
    /// The account's facts about its blobs.
    pub exported: &'a Exported,
    /// Blobs that are not on it.
    pub failed: &'a [Failed],
}

/// Writes the logs of a drive into `dir`: verbose logs and copy log always, the log of errors where there are any. Returns
/// their paths.
///
/// # Errors
/// The manifest cannot be read, or a log cannot be written.
pub fn write(dir: &Path, of: &LogsOf<'_>) -> io::Result<Vec<PathBuf>> {
    let is_plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '-' };
    let job: String = of.job.chars().map(is_plain).collect();
    let stamp = copylog::stamp(timestamp());
    let verbose = copylog::drive_log_name(&job, of.drive_id, &stamp, Detail::Verbose);
    let error = copylog::drive_log_name(&job, of.drive_id, &stamp, Detail::Error);
    let second = ["VerboseLog", "CopyLog"].map(|kind| copylog::copy_log_name(&job, of.drive_id, kind, &stamp));
    let create = |name: &str| File::create_new(dir.join(name)).map(BufWriter::new);
    let mut logs = vec![DriveLog::begin(create(&verbose)?, Detail::Verbose, of.drive_id)?];
    let mut names = vec![verbose];
    if !of.failed.is_empty() {
        logs.push(DriveLog::begin(create(&error)?, Detail::Error, of.drive_id)?);
        names.push(error);
    }
    let mut files = VerboseLog::new(create(&second[0])?);
    let known: HashMap<(&str, Option<&str>), &ExportedBlob> = (0..of.exported.files.len() as u32)
        .filter_map(|file| of.exported.blob(file))
        .map(|blob| ((&*blob.path, blob.snapshot.as_deref()), blob))
        .collect();
    let mut total = 0;
    let mut reader = manifest::Reader::new(BufReader::with_capacity(1 << 20, File::open(of.manifest)?));
    while let Some(blob) = reader.next_blob().map_err(|error| io::Error::other(error.what))? {
        let account = known.get(&(&*blob.start.blob_path, blob.start.snapshot.as_deref())).copied();
        files.file(&LogFile {
            cloud_format: account.map(|blob| format_of(blob.kind).to_owned()),
            path: blob.start.blob_path.clone(),
            size: Some(blob.start.length),
            crc64: None,
            etag: account.map(|blob| blob.etag.clone()),
        })?;
        let entry = completed(blob, account);
        logs.iter_mut().try_for_each(|log| log.blob(&entry))?;
        total += 1;
    }
    let mut copy_log = CopyLog::new(create(&second[1])?);
    for failed in of.failed {
        let entry = not_exported(failed);
        logs.iter_mut().try_for_each(|log| log.blob(&entry))?;
        copy_log.errored(&entity(failed))?;
        total += 1;
    }
    for log in logs {
        let status = log.tally.status();
        log.finish(status)?;
    }
    files.finish()?;
    let errored = of.failed.len() as u64;
    let status = match errored {
        0 => CopyStatus::Succeeded,
        _ if errored == total => CopyStatus::Failed,
        _ => CopyStatus::SucceededWithErrors,
    };
    copy_log.finish(of.drive_id, status, total, errored)?;
    let [verbose, copied] = second;
    names.extend([verbose, copied]);
    Ok(names.into_iter().map(|name| dir.join(name)).collect())
}

/// Whether a directory has a verbose log of a drive already.
pub fn is_there(dir: &Path, job: &str, drive_id: &str) -> bool {
    let is_plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '-' };
    let head = format!("{}_{drive_id}_VerboseLog_", job.chars().map(is_plain).collect::<String>());
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with(&head))
}

fn side(side: Option<SideRef>) -> Option<LogSide> {
    let side = side?;
    Some(LogSide { status: SideStatus::Completed.into(), global: None, own: Some((side.path, side.hash)) })
}

fn completed(blob: manifest::Blob, account: Option<&ExportedBlob>) -> LogBlob {
    let manifest::Blob { start, pieces, end } = blob;
    let piece = |piece: manifest::Piece| LogPiece {
        offset: piece.offset,
        length: piece.length,
        id: piece.id.map(Into::into),
        hash: piece.hash,
        status: PieceStatus::Completed.into(),
    };
    LogBlob {
        status: BlobStatus::Completed.into(),
        blob_path: start.blob_path,
        file_path: start.file_path,
        length: Some(start.length),
        snapshot: start.snapshot,
        last_modified: account.map(|blob| blob.last_modified.clone()),
        pieces_kind: start.pieces,
        pieces: pieces.into_iter().map(piece).collect(),
        metadata: side(end.metadata),
        properties: side(end.properties),
        ..LogBlob::default()
    }
}

fn not_exported(failed: &Failed) -> LogBlob {
    LogBlob {
        status: failed.status().into(),
        blob_path: failed.path.clone(),
        file_path: failed.file_path.clone(),
        length: Some(failed.length),
        snapshot: failed.snapshot.clone(),
        pieces_kind: Some(match failed.format.as_deref() {
            Some("PageBlob") => Pieces::Pages,
            _ => Pieces::Blocks,
        }),
        ..LogBlob::default()
    }
}

fn entity(failed: &Failed) -> ErroredEntity {
    let (status, words) = failed.why.split_once(": ").unwrap_or(("Failed", &failed.why));
    ErroredEntity {
        cloud_format: failed.format.clone(),
        path: failed.path.clone(),
        category: Category::UploadErrorCloudHttp.into(),
        error_code: match failed.status() {
            BlobStatus::BlobUnexpectedChange => "412".into(),
            _ => "409".into(),
        },
        error_message: format!("{status}: {words}"),
        kind: "File".into(),
        etag: failed.etag.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dray_engine::job::account::ExportedFile;

    #[test]
    fn logs_have_what_is_on_the_drive_and_what_is_not() {
        let dir = std::env::temp_dir().join(format!("dray-export-logs-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        let md5 = "0CC175B9C0F1B6A831C399E269772661";
        let manifest = format!(
            "<DriveManifest Version=\"2014-11-01\"><Drive><DriveId>WD-1</DriveId><BlobList><Blob><BlobPath>c/a</BlobPath>\
             <FilePath>\\c\\a</FilePath><Length>1</Length><BlockList><Block Offset=\"0\" Length=\"1\" Id=\"AAAAAA==\" \
             Hash=\"{md5}\" /></BlockList><PropertiesPath Hash=\"{md5}\">\\c\\a.properties</PropertiesPath></Blob>\
             </BlobList></Drive></DriveManifest>"
        );
        let path = dir.join("m.xml");
        fs::write(&path, manifest).expect("a manifest");
        let blob = |path: &str, kind| ExportedBlob {
            path: path.into(),
            etag: "\"0x1\"".into(),
            last_modified: "Sun, 29 Nov 2026 08:00:00 GMT".into(),
            kind,
            ..ExportedBlob::default()
        };
        let files = [blob("c/a", ExportedKind::Append), blob("c/b", ExportedKind::Page)];
        let files = files.into_iter().map(|blob| ExportedFile::Blob(Box::new(blob))).collect();
        let exported = Exported { endpoint: String::new(), files };
        let failed = [Failed {
            path: "c/b".into(),
            snapshot: None,
            file_path: "\\c\\b".into(),
            length: 512,
            etag: Some("\"0x1\"".into()),
            format: Some("PageBlob".into()),
            why: "BlobUnexpectedChange: it changed after the export was planned".into(),
        }];
        let of = LogsOf { job: "export#1", drive_id: "WD-1", manifest: &path, exported: &exported, failed: &failed };
        assert!(!is_there(&dir, "export#1", "WD-1"));
        let written = write(&dir, &of).expect("logs");
        assert!(is_there(&dir, "export#1", "WD-1") && !is_there(&dir, "export#1", "WD-2"));
        let texts: Vec<String> = written.iter().map(|path| fs::read_to_string(path).expect("a log")).collect();
        let [verbose, error, files, copied] = &texts[..] else { panic!("{written:?}") };
        for part in ["<Blob Status=\"Completed\">", "<Blob Status=\"BlobUnexpectedChange\">", "<PageRangeList />", md5]
        {
            assert!(verbose.contains(part), "{part}: {verbose}");
        }
        assert!(verbose.contains("<Status>CompletedWithErrors</Status>"), "{verbose}");
        assert!(error.contains("c/b") && !error.contains("c/a"), "{error}");
        assert!(files.contains("CloudFormat=\"AppendBlob\"") && files.contains("ETag=\"&quot;0x1&quot;\""), "{files}");
        assert!(copied.contains("<FilesErrored>1<") && copied.contains("<TotalFiles_Blobs>2<"), "{copied}");
        fs::remove_dir_all(&dir).expect("removed");
    }
}
