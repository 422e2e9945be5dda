//! The failed blobs of a drive: by a log of the first generation, which says what of each failed, or by one of the second
//! and the drive's manifest, by which whole blobs are sent again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufReader;
use std::os::unix::fs::FileExt;
use std::path::Path;

use dray_engine::api::azure::manifest::{self, ListHead, SideRef};
use dray_engine::api::azure::numbered;
use dray_engine::api::hash::Md5;
use dray_engine::api::host::{Pipes, open_input};
use dray_engine::api::prepare::Disposition;
use dray_engine::api::verify::copylog::{
    self, BlobStatus, DispositionStatus, LogBlob, LogPiece, LogSide, PieceStatus, SideStatus,
};
use dray_engine::report::{Advice, Kind, Problem, Setting};

/// The failed blobs of a drive.
#[derive(Debug)]
pub(super) struct Log {
    pub drive_id: String,
    /// MD5 of the log, in hexadecimal.
    pub md5: String,
    pub failed: Vec<LogBlob>,
}

/// Reads the log at `path`. `manifest` says what is in the blobs that a log of the second generation calls failed.
pub(super) fn read(path: &Path, manifest: Option<&Path>) -> Result<Log, Problem> {
    let failed = |what: String| Problem::new(Kind::Usage, what).path(path);
    let file = open_input(path, Pipes::Refused).map_err(|e| failed(format!("the copy log cannot be read: {e}")))?;
    let mut reader = copylog::Reader::new(BufReader::with_capacity(1 << 20, &file));
    let (mut drive_id, mut out, mut names, mut is_second) = (String::new(), Vec::new(), BTreeSet::new(), false);
    loop {
        let event = reader.next_event();
        match event.map_err(|e| failed(format!("the copy log is not whole: {}", e.what)).line(e.line))? {
            None => break,
            Some(copylog::Event::DriveId(id)) => drive_id = id.trim().to_owned(),
            Some(copylog::Event::Blob(blob)) if !blob.is_success() => out.push(*blob),
            // A name that was replaced is no failure.
            Some(copylog::Event::Errored(entity)) if !entity.category.ends_with("Renamed") => {
                names.insert(plain(&entity.path));
            }
            Some(copylog::Event::Summary(summary)) => (drive_id, is_second) = (summary.drive_id.trim().into(), true),
            Some(copylog::Event::File(_)) => {
                let problem = failed("is the verbose log of the second generation, which lists no failure".into());
                return Err(problem.advice("give the copy log of the drive (…_CopyLog_….xml)"));
            }
            Some(_) => {}
        }
    }
    if is_second || !names.is_empty() {
        let Some(manifest) = manifest.filter(|_| !names.is_empty()) else {
            if names.is_empty() {
                return Ok(Log { drive_id, md5: md5_of(&file, path)?, failed: Vec::new() });
            }
            let problem = failed("is a log of the second generation, which does not say what of a blob failed".into());
            return Err(problem.advice(Advice::from("give the drive's manifest with ") + Setting::Manifest + ", so that whole blobs are sent; or the error or verbose log of the first generation (waies/…_error.xml)"));
        };
        out = listed(manifest, &names, &drive_id)?;
    }
    Ok(Log { drive_id, md5: md5_of(&file, path)?, failed: out })
}

/// A blob's path as a manifest has it.
fn plain(path: &str) -> String {
    path.trim().replace('\\', "/").trim_matches('/').to_owned()
}

fn md5_of(file: &std::fs::File, path: &Path) -> Result<String, Problem> {
    let (mut md5, mut buffer, mut at) = (Md5::new(), vec![0; 1 << 16], 0);
    loop {
        let len = file
            .read_at(&mut buffer, at)
            .map_err(|error| Problem::new(Kind::Usage, format!("the copy log cannot be read: {error}")).path(path))?;
        if len == 0 {
            return Ok(md5.finish().iter().map(|byte| format!("{byte:02X}")).collect());
        }
        md5.update(&buffer[..len]);
        at += len as u64;
    }
}

/// The name that a blob was to have, of one that was renamed because that was taken: `x (2).y` was `x.y`.
fn unnumbered(path: &str) -> Option<String> {
    let (container, name) = path.split_once('/')?;
    let open = name.rfind(" (")?;
    let (number, rest) = name[open + 2..].split_once(')')?;
    let before = format!("{}{rest}", &name[..open]);
    (numbered(&before, number.parse().ok()?) == name).then(|| format!("{container}/{before}"))
}

/// The blobs of a manifest that are named, or lie in a container that is. Nothing of them is known to be right; what is
/// under their names is of this import, as the service leaves alone, or gives another name, what it may not replace.
fn listed(path: &Path, names: &BTreeSet<String>, drive_id: &str) -> Result<Vec<LogBlob>, Problem> {
    let failed = |what: String| Problem::new(Kind::Usage, what).path(path);
    let file = open_input(path, Pipes::Refused).map_err(|e| failed(format!("the manifest cannot be read: {e}")))?;
    let mut reader = manifest::Reader::new(BufReader::with_capacity(1 << 20, file));
    let renamed: BTreeMap<String, &String> = names.iter().filter_map(|name| Some((unnumbered(name)?, name))).collect();
    let (mut head, mut blob, mut out, mut found) = (ListHead::default(), None, Vec::new(), BTreeSet::new());
    loop {
        let event = reader.next_event();
        match event.map_err(|e| failed(format!("the manifest is not whole: {}", e.what)).line(e.line))? {
            None => break,
            Some(manifest::Event::DriveId(id)) if !drive_id.is_empty() && id.trim() != drive_id => {
                let problem = failed(format!("is the manifest of another drive than the copy log's, {drive_id}"));
                return Err(problem.value(id.trim().to_owned()));
            }
            Some(manifest::Event::ListStart(list)) => head = list,
            Some(manifest::Event::BlobStart(start)) => {
                let name = plain(&start.blob_path);
                let container = name.split('/').next().unwrap_or_default();
                let direct = names.get(&name).or_else(|| names.get(container));
                let named = direct.or_else(|| renamed.get(&name).copied());
                found.extend(named.cloned());
                blob = named.map(|named| LogBlob {
                    status: BlobStatus::Failed.into(),
                    blob_path: if direct.is_some() { start.blob_path } else { named.clone() },
                    file_path: start.file_path,
                    length: Some(start.length),
                    disposition: Some((Disposition::Overwrite.to_string(), DispositionStatus::Cancelled.to_string())),
                    pieces_kind: start.pieces,
                    ..LogBlob::default()
                });
            }
            Some(manifest::Event::Piece(piece)) => {
                let Some(blob) = &mut blob else { continue };
                blob.pieces.push(LogPiece {
                    offset: piece.offset,
                    length: piece.length,
                    id: piece.id.map(Into::into),
                    hash: piece.hash,
                    status: PieceStatus::Cancelled.into(),
                });
            }
            Some(manifest::Event::BlobEnd(end)) => {
                let Some(mut blob) = blob.take() else { continue };
                blob.metadata = side(end.metadata, head.metadata.as_ref());
                blob.properties = side(end.properties, head.properties.as_ref());
                out.push(blob);
            }
            Some(_) => {}
        }
    }
    match names.iter().find(|name| !found.contains(*name)) {
        None => Ok(out),
        Some(name) => {
            let problem = failed("does not list a blob that the copy log calls failed".into()).value(name.clone());
            Err(problem.advice("give the manifest of that drive: DRIVEID.manifest.xml next to the journal"))
        }
    }
}

/// A metadata or properties file: the blob's own, or that of its list.
fn side(own: Option<SideRef>, of_list: Option<&SideRef>) -> Option<LogSide> {
    let named = |side: SideRef| (side.path, side.hash);
    let global = of_list.filter(|_| own.is_none()).cloned().map(named);
    let own = own.map(named);
    (own.is_some() || global.is_some()).then(|| LogSide { status: SideStatus::Cancelled.into(), global, own })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_of_the_second_generation_needs_the_manifest_of_its_drive() {
        let dir = std::env::temp_dir().join(format!("dray-repair-log-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let entity = |category: &str, path: &str| {
            format!(
                "<ErroredEntity CloudFormat=\"BlockBlob\" Path=\"{path}\"><Category>{category}</Category><ErrorCode>1\
                 </ErrorCode><ErrorMessage>x</ErrorMessage><Type>File</Type></ErroredEntity>"
            )
        };
        let log = |name: &str, entities: &[String]| {
            let path = dir.join(name);
            let end = "<CopyLog Summary=\"Summary\"><DriveLogVersion>2021-08-01</DriveLogVersion><DriveId>D1</DriveId>\
                       <Status>Failed</Status><TotalFiles_Blobs>3</TotalFiles_Blobs><FilesErrored>1</FilesErrored>\
                       </CopyLog>";
            std::fs::write(&path, format!("{}{end}", entities.concat())).expect("a log");
            path
        };
        let md5 = "0CC175B9C0F1B6A831C399E269772661";
        let of = |name: &str| {
            format!(
                "<Blob><BlobPath>{name}</BlobPath><FilePath>\\s\\x</FilePath><Length>1</Length><ImportDisposition>\
                 rename</ImportDisposition><BlockList><Block Offset=\"0\" Length=\"1\" Id=\"AAAAAA==\" Hash=\"{md5}\" />\
                 </BlockList></Blob>"
            )
        };
        let manifest = |name: &str, id: &str| {
            let path = dir.join(name);
            let text = format!(
                "<DriveManifest Version=\"2014-11-01\"><Drive><DriveId>{id}</DriveId><BlobList><MetadataPath \
                 Hash=\"{md5}\">\\s\\m.xml</MetadataPath>{}{}</BlobList></Drive></DriveManifest>",
                of("c/a"),
                of("c/b")
            );
            std::fs::write(&path, text).expect("a manifest");
            path
        };
        let (own, other) = (manifest("own.xml", "D1"), manifest("other.xml", "D2"));
        let one = log("one.xml", &[entity("UploadErrorDataValidationError", "c\\b"), entity("BlobRenamed", "c/a")]);
        let refused = read(&one, None).expect_err("nothing says what is in it");
        assert!(refused.advice.is_some_and(|advice| advice.asks_for(Setting::Manifest)));
        assert!(read(&one, Some(&other)).is_err_and(|problem| problem.what.contains("another drive")));
        let found = read(&one, Some(&own)).expect("read");
        let [blob] = &found.failed[..] else { panic!("{found:?}") };
        assert_eq!((&*found.drive_id, &*blob.blob_path, &*blob.file_path), ("D1", "c/b", "\\s\\x"));
        assert_eq!(blob.disposition, Some(("overwrite".into(), "Cancelled".into())));
        assert!(blob.pieces[0].hash.is_some() && blob.metadata.as_ref().is_some_and(|side| side.global.is_some()));
        let again = log("again.xml", &[entity("UploadErrorCloudHttp", "c/b (2)")]);
        assert_eq!(read(&again, Some(&own)).expect("read").failed[0].blob_path, "c/b (2)");
        assert_eq!(unnumbered("c/d/x (12).tar.gz"), None, "before the last dot");
        assert_eq!(unnumbered("c/d/x.tar (12).gz").as_deref(), Some("c/d/x.tar.gz"));
        assert_eq!((unnumbered("c/x (a).y"), unnumbered("c/x"), unnumbered("c")), (None, None, None));
        // A container that could not be used; a blob that is not there; no failure at all.
        assert_eq!(
            read(&log("c.xml", &[entity("UploadErrorCloudHttp", "c")]), Some(&own)).expect("read").failed.len(),
            2
        );
        assert!(read(&log("no.xml", &[entity("UploadErrorCloudHttp", "c/no")]), Some(&own)).is_err());
        assert!(read(&log("good.xml", &[]), None).expect("read").failed.is_empty());
        std::fs::remove_dir_all(&dir).expect("removed");
    }
}
