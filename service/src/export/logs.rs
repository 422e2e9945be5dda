//! Copy logs of an export, in both generations (docs/spec/import-export.md#copy-logs): what is on a drive by its own
//! manifest, and what is not.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use dray_engine::api::account::ExportedKind;
use dray_engine::api::account::KeptBlob;
use dray_engine::api::azure::manifest::{self, Pieces, SideRef};
use dray_engine::api::host::timestamp;
use dray_engine::api::verify::copylog::{
    self, BlobStatus, Category, CopyLog, CopyStatus, Detail, DriveLog, ErroredEntity, LogBlob, LogFile, LogPiece,
    LogSide, PieceStatus, SideStatus, VerboseLog,
};

use crate::log_file::LogFile as OwnFile;

/// The service's word for a kind of blob.
const fn format_of(kind: ExportedKind) -> &'static str {
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
    /// The blobs that it was to hold, and others that are told with them.
    pub blobs: &'a [KeptBlob],
}

/// Writes the logs of a drive into `dir`: verbose logs and copy log always, the log of errors where there are any. Returns
/// their paths; they are durable.
///
/// # Errors
/// The manifest cannot be read, or a log cannot be written.
pub fn write(dir: &Path, of: &LogsOf<'_>) -> io::Result<Vec<PathBuf>> {
    let stamp = copylog::stamp(timestamp());
    let create = |name: String| OwnFile::create(&dir.join(name));
    let first = |detail| {
        let file = create(copylog::drive_log_name(of.job, of.drive_id, &stamp, detail))?;
        DriveLog::begin(file, detail, of.drive_id)
    };
    let second = |kind| create(copylog::copy_log_name(of.job, of.drive_id, kind, &stamp));
    let failed: Vec<(&KeptBlob, &str)> =
        of.blobs.iter().filter_map(|blob| Some((blob, blob.left_out.as_deref()?))).collect();
    let mut logs = vec![first(Detail::Verbose)?];
    if !failed.is_empty() {
        logs.push(first(Detail::Error)?);
    }
    let mut files = VerboseLog::new(second("VerboseLog")?);
    let known: HashMap<(&str, Option<&str>), &KeptBlob> =
        of.blobs.iter().map(|blob| ((&*blob.path, blob.snapshot.as_deref()), blob)).collect();
    let mut total = 0;
    let mut reader = manifest::Reader::new(BufReader::with_capacity(1 << 20, File::open(of.manifest)?));
    while let Some(blob) = reader.next_blob().map_err(|error| io::Error::other(error.what))? {
        let account = known.get(&(&*blob.start.blob_path, blob.start.snapshot.as_deref())).copied();
        files.file(&LogFile {
            cloud_format: account.and_then(|blob| blob.kind).map(|kind| format_of(kind).to_owned()),
            path: blob.start.blob_path.clone(),
            size: Some(blob.start.length),
            crc64: account.and_then(|blob| blob.crc64),
            etag: account.and_then(|blob| blob.etag.clone()),
        })?;
        let entry = completed(blob, account);
        logs.iter_mut().try_for_each(|log| log.blob(&entry))?;
        total += 1;
    }
    let mut copy_log = CopyLog::new(second("CopyLog")?);
    for (blob, why) in &failed {
        let entry = not_exported(blob, why);
        logs.iter_mut().try_for_each(|log| log.blob(&entry))?;
        copy_log.errored(&entity(blob, why))?;
        total += 1;
    }
    let mut written = Vec::new();
    for log in logs {
        let status = log.tally.status();
        written.push(log.finish(status)?.close()?);
    }
    written.push(files.finish()?.close()?);
    let errored = failed.len() as u64;
    let status = match errored {
        0 => CopyStatus::Succeeded,
        _ if errored == total => CopyStatus::Failed,
        _ => CopyStatus::SucceededWithErrors,
    };
    written.push(copy_log.finish(of.drive_id, status, total, errored)?.close()?);
    Ok(written)
}

/// Status of a blob that was left out, by its reason.
fn status_of(why: &str) -> BlobStatus {
    let word = why.split(':').next().unwrap_or_default();
    BlobStatus::parse(word).unwrap_or(BlobStatus::Failed)
}

fn side(side: Option<SideRef>) -> Option<LogSide> {
    let side = side?;
    Some(LogSide { status: SideStatus::Completed.into(), global: None, own: Some((side.path, side.hash)) })
}

fn completed(blob: manifest::Blob, account: Option<&KeptBlob>) -> LogBlob {
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
        last_modified: account.and_then(|blob| blob.last_modified.clone()),
        pieces_kind: start.pieces,
        pieces: pieces.into_iter().map(piece).collect(),
        metadata: side(end.metadata),
        properties: side(end.properties),
        ..LogBlob::default()
    }
}

fn not_exported(blob: &KeptBlob, why: &str) -> LogBlob {
    LogBlob {
        status: status_of(why).into(),
        blob_path: blob.path.clone(),
        file_path: blob.file_path.clone(),
        length: Some(blob.length),
        snapshot: blob.snapshot.clone(),
        pieces_kind: Some(match blob.kind {
            Some(ExportedKind::Page) => Pieces::Pages,
            _ => Pieces::Blocks,
        }),
        ..LogBlob::default()
    }
}

fn entity(blob: &KeptBlob, why: &str) -> ErroredEntity {
    let (status, words) = why.split_once(": ").unwrap_or(("Failed", why));
    ErroredEntity {
        cloud_format: blob.kind.map(|kind| format_of(kind).to_owned()),
        path: blob.path.clone(),
        category: Category::UploadErrorCloudHttp.into(),
        error_code: match status_of(why) {
            BlobStatus::BlobUnexpectedChange => "412".into(),
            _ => "409".into(),
        },
        error_message: format!("{status}: {words}"),
        kind: "File".into(),
        etag: blob.etag.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

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
        let blob = |path: &str, kind| KeptBlob {
            path: path.into(),
            etag: Some("\"0x1\"".into()),
            last_modified: Some("Sun, 29 Nov 2026 08:00:00 GMT".into()),
            kind: Some(kind),
            ..KeptBlob::default()
        };
        let changed = "BlobUnexpectedChange: it changed after the export was planned";
        let blobs = [
            KeptBlob { crc64: Some(7), ..blob("c/a", ExportedKind::Append) },
            KeptBlob {
                file_path: "\\c\\b".into(),
                length: 512,
                left_out: Some(changed.into()),
                ..blob("c/b", ExportedKind::Page)
            },
        ];
        let of = LogsOf { job: "export#1", drive_id: "WD-1", manifest: &path, blobs: &blobs };
        let written = write(&dir, &of).expect("logs");
        let texts: Vec<String> = written.iter().map(|path| fs::read_to_string(path).expect("a log")).collect();
        let [verbose, error, files, copied] = &texts[..] else { panic!("{written:?}") };
        for part in ["<Blob Status=\"Completed\">", "<Blob Status=\"BlobUnexpectedChange\">", "<PageRangeList />", md5]
        {
            assert!(verbose.contains(part), "{part}: {verbose}");
        }
        assert!(verbose.contains("<Status>CompletedWithErrors</Status>"), "{verbose}");
        assert!(error.contains("c/b") && !error.contains("c/a"), "{error}");
        assert!(files.contains("crc64=\"7\""), "{files}");
        assert!(files.contains("CloudFormat=\"AppendBlob\"") && files.contains("ETag=\"&quot;0x1&quot;\""), "{files}");
        assert!(copied.contains("<FilesErrored>1<") && copied.contains("<TotalFiles_Blobs>2<"), "{copied}");
        fs::remove_dir_all(&dir).expect("removed");
    }
}
