//! The copy logs of an import, of both generations (docs/spec/import-export.md#copy-logs): local files, and blobs of the
//! container that the job names.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use dray_account::{Account, Condition, Content, Failure, Settings};
use dray_engine::api::account::Pieces;
use dray_engine::api::azure::{Digest, base64, numbered};
use dray_engine::api::verify::copylog::{
    self, BlobStatus, Category, CopyLog, CopyStatus, Detail, DispositionStatus, DriveLog, DriveStatus, ErroredEntity,
    LogBlob, LogFile, LogPiece, LogSide, PieceStatus, SideStatus, VerboseLog,
};
use dray_engine::report::{Advice, Kind, Problem, Setting};

use super::send::id_of;
use super::upload::{Became, Upload};
use crate::log_file::LogFile as OwnFile;

/// Bytes of a block of a log that is too long for one request.
const BLOCK: usize = 4 << 20;
/// Containers of the service.
const CONTAINERS: [&str; 2] = ["waimportexport", "databoxcopylog"];
/// Directory of the first generation's logs.
const DIRECTORY: &str = "waies";

/// Kinds and places of the logs.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Container of the logs; `None`: the service's own, one a generation.
    pub container: Option<String>,
    /// Local directory.
    pub dir: PathBuf,
    /// Name of the job.
    pub job: String,
    /// Logs of everything, not of errors alone.
    pub is_verbose: bool,
    /// Keeps the manifest with the logs.
    pub keeps_manifest: bool,
}

impl LogOptions {
    /// Container of the first or second generation's logs.
    pub(super) fn container(&self, generation: usize) -> &str {
        self.container.as_deref().unwrap_or(CONTAINERS[generation])
    }

    /// Name of the manifest's copy.
    pub(super) fn manifest_name(&self, drive_id: &str, stamp: &str) -> String {
        let error = copylog::drive_log_name(&self.job, drive_id, stamp, Detail::Error);
        error.strip_suffix("error.xml").map_or(error.clone(), |head| format!("{head}manifest.xml"))
    }
}

/// A log that is being written: its place in the account and on this machine.
#[derive(Debug)]
struct LogDestination {
    container: String,
    name: String,
    path: PathBuf,
}

/// Verbose logs of both generations.
type Verbose = (DriveLog<OwnFile>, VerboseLog<OwnFile>);

/// The logs of one drive.
#[derive(Debug)]
pub(super) struct Writers {
    places: Vec<LogDestination>,
    error: DriveLog<OwnFile>,
    verbose: Option<Verbose>,
    copy: CopyLog<OwnFile>,
    errored: u64,
}

fn failed(path: &Path) -> impl Fn(io::Error) -> Problem + '_ {
    move |error| {
        Problem::new(Kind::Environment, format!("the copy log cannot be written: {error}")).path(path).advice(
            Advice::from("name a directory that can be written to with ")
                + Setting::Logdir
                + ", and run the command again: what is done stays",
        )
    }
}

impl Writers {
    /// Begins the logs of a drive.
    pub fn begin(options: &LogOptions, drive_id: &str, stamp: &str) -> Result<Self, Problem> {
        let mut places = Vec::new();
        let mut create = |generation: usize, name: String| -> Result<OwnFile, Problem> {
            let path = options.dir.join(&name);
            let file = OwnFile::create(&path).map_err(failed(&path))?;
            let name = if generation == 0 { in_directory(&name) } else { name };
            places.push(LogDestination { container: options.container(generation).to_owned(), name, path });
            Ok(file)
        };
        let of_drive = |detail| copylog::drive_log_name(&options.job, drive_id, stamp, detail);
        let of_copy = |kind| copylog::copy_log_name(&options.job, drive_id, kind, stamp);
        let begun = |out, detail| DriveLog::begin(out, detail, drive_id).map_err(failed(&options.dir));
        let error = begun(create(0, of_drive(Detail::Error))?, Detail::Error)?;
        let copy = CopyLog::new(create(1, of_copy("CopyLog"))?);
        let verbose = if options.is_verbose {
            let drive = begun(create(0, of_drive(Detail::Verbose))?, Detail::Verbose)?;
            Some((drive, VerboseLog::new(create(1, of_copy("VerboseLog"))?)))
        } else {
            None
        };
        Ok(Self { places, error, verbose, copy, errored: 0 })
    }

    /// Adds a blob, whose file on the drive is `file`.
    pub fn blob(&mut self, upload: &Upload, number: usize, file: &str) -> io::Result<()> {
        let Some(became) = upload.became(number) else { return Ok(()) };
        let blob = log_blob(upload, number, file, &became);
        self.error.blob(&blob)?;
        if let Some((drive, files)) = &mut self.verbose {
            drive.blob(&blob)?;
            if became.disposition != DispositionStatus::Cancelled && became.disposition != DispositionStatus::Skipped {
                files.file(&LogFile {
                    cloud_format: Some(format_of(upload, number)),
                    path: blob.blob_path.clone(),
                    size: blob.length,
                    crc64: became.crc64,
                    etag: None,
                })?;
            }
        }
        if !blob.is_success() {
            self.errored += 1;
            self.copy.errored(&errored(upload, number, &blob, &became))?;
        }
        Ok(())
    }

    /// Ends the logs; `status` is that of a drive which was not imported. Sends them to the account, unless `not_sent` gets
    /// the reason, and returns the drive's status, the blobs and the files.
    pub fn finish(
        self,
        account: &Account,
        drive_id: &str,
        status: Option<DriveStatus>,
        not_sent: &mut dyn FnMut(Problem),
    ) -> Result<(DriveStatus, Vec<String>, Vec<PathBuf>), Problem> {
        let tally = self.error.tally;
        let status = status.unwrap_or_else(|| tally.status());
        let path = self.places.first().map(|place| place.path.clone()).unwrap_or_default();
        let failed = failed(&path);
        let copied = match status {
            DriveStatus::Completed | DriveStatus::CompletedWithWarnings => CopyStatus::Succeeded,
            DriveStatus::CompletedWithErrors => CopyStatus::SucceededWithErrors,
            _ => CopyStatus::Failed,
        };
        let mut files = vec![self.error.finish(status).map_err(&failed)?];
        files.push(self.copy.finish(drive_id, copied, tally.blobs, self.errored).map_err(&failed)?);
        if let Some((drive, verbose)) = self.verbose {
            files.push(drive.finish(status).map_err(&failed)?);
            files.push(verbose.finish().map_err(&failed)?);
        }
        for file in files {
            file.close().map_err(&failed)?;
        }
        let paths: Vec<PathBuf> = self.places.iter().map(|place| place.path.clone()).collect();
        let mut blobs = Vec::new();
        for place in self.places {
            if let Err(problem) = send_file(account, &place.container, &place.name, &place.path) {
                // The others would wait as long.
                not_sent(problem);
                break;
            }
            blobs.push(format!("{}/{}", place.container, place.name));
        }
        Ok((status, blobs, paths))
    }
}

/// A name with the first generation's directory before it.
pub(super) fn in_directory(name: &str) -> String {
    format!("{DIRECTORY}/{name}")
}

fn format_of(upload: &Upload, number: usize) -> String {
    if upload.blobs[number].is_pages { "PageBlob".into() } else { "BlockBlob".into() }
}

fn log_blob(upload: &Upload, number: usize, file: &str, became: &Became) -> LogBlob {
    let entry = &upload.blobs[number];
    let (container, name) = entry.place();
    let all = match became.status {
        BlobStatus::Completed | BlobStatus::CompletedWithErrors => PieceStatus::Completed,
        _ => PieceStatus::Cancelled,
    };
    // Nothing of a blob that is left alone was looked at.
    let is_kept = became.disposition == DispositionStatus::Skipped;
    let pieces = upload.pieces_of(entry).iter().enumerate().filter(|_| !is_kept).map(|(at, piece)| LogPiece {
        offset: piece.offset,
        length: piece.len.into(),
        id: (!entry.is_pages).then(|| id_of(piece, at)),
        hash: piece.md5.map(Digest::Md5),
        status: became.pieces.as_ref().and_then(|all| all.get(at)).copied().unwrap_or(all).into(),
    });
    let [metadata, properties] = [(entry.metadata, 0), (entry.properties, 1)].map(|(side, at)| {
        let side = upload.sides.get(side.filter(|_| !is_kept)? as usize)?;
        let named = Some((side.path.clone(), side.md5.map(Digest::Md5)));
        let status = match became.sides[at] {
            Some(status) => status,
            // Of an earlier run, or of a blob that was there.
            None if became.earlier && became.status != BlobStatus::Completed => SideStatus::Failed,
            None => SideStatus::Completed,
        };
        let (global, own) = if side.is_global { (named, None) } else { (None, named) };
        Some(LogSide { status: status.into(), global, own })
    });
    LogBlob {
        line: 0,
        status: became.status.into(),
        blob_path: format!("{container}/{}", numbered(name, became.number)),
        file_path: file.to_owned(),
        length: Some(entry.length),
        snapshot: None,
        last_modified: None,
        disposition: Some((entry.disposition.to_string(), became.disposition.into())),
        pieces_kind: Some(if entry.is_pages { Pieces::Pages } else { Pieces::Blocks }),
        pieces: pieces.collect(),
        metadata,
        properties,
    }
}

/// The blob in words of the second generation.
fn errored(upload: &Upload, number: usize, blob: &LogBlob, became: &Became) -> ErroredEntity {
    let (category, code, _) = blob.failure().unwrap_or((Category::UploadErrorUnknownType, 0, ""));
    ErroredEntity {
        cloud_format: Some(format_of(upload, number)),
        path: blob.blob_path.clone(),
        category: category.into(),
        error_code: code.to_string(),
        error_message: became.message.clone().unwrap_or_else(|| became.status.to_string()),
        kind: "File".into(),
        etag: None,
    }
}

/// Sends a file as a block blob: in one request, or in blocks.
pub(super) fn send_file(account: &Account, container: &str, name: &str, path: &Path) -> Result<(), Problem> {
    let file = File::open(path).map_err(failed(path))?;
    send(account, container, name, file).map_err(|error| match error {
        Sending::Account(failure) => failure.problem(),
        Sending::Input(error) => failed(path)(error),
    })
}

/// Reason why something was not sent.
#[derive(Debug)]
pub(super) enum Sending {
    /// The account does not answer, or refuses.
    Account(Failure),
    /// The input cannot be read.
    Input(io::Error),
}

/// Sends everything that `input` gives.
pub(super) fn send(account: &Account, container: &str, name: &str, mut input: impl Read) -> Result<(), Sending> {
    account.ready_container(container).map_err(Sending::Account)?;
    let settings = Settings { content_type: Some("application/xml".into()), ..Settings::default() };
    let mut buffer = Vec::new();
    let mut next = || -> Result<Vec<u8>, Sending> {
        buffer.clear();
        input.by_ref().take(BLOCK as u64).read_to_end(&mut buffer).map_err(Sending::Input)?;
        Ok(std::mem::take(&mut buffer))
    };
    let first = next()?;
    if first.len() < BLOCK {
        let content = Content { bytes: &first, md5: None };
        let put = account.put_blob(container, name, content, &settings, &Condition::default());
        return put.map(drop).map_err(Sending::Account);
    }
    let (mut ids, mut block) = (Vec::new(), first);
    while !block.is_empty() {
        let mut id = Vec::new();
        base64::encode(&(ids.len() as u32).to_le_bytes(), &mut id);
        let id = String::from_utf8(id).unwrap_or_default();
        let content = Content { bytes: &block, md5: None };
        account.put_block(container, name, &id, content, None).map_err(Sending::Account)?;
        ids.push(id);
        block = next()?;
    }
    let committed = account.put_block_list(container, name, &ids, &settings, &Condition::default());
    committed.map(drop).map_err(Sending::Account)
}

/// Keeps what `input` gives in a local file.
pub(super) fn keep(path: &Path, mut input: impl Read) -> Result<(), Problem> {
    let mut file = File::create(path).map_err(failed(path))?;
    io::copy(&mut input, &mut file).and_then(|_| file.flush()).and_then(|()| file.sync_all()).map_err(failed(path))
}
