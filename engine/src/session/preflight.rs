//! Requirements for the end of a session, checked at its beginning: places of future files, and room for images.
//!
//! Nothing is written: only permissions, room and limits are queried.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use rustix::process::{Resource, getrlimit};

use crate::journal::files::{journal_dir, logdir};
use crate::report::{Advice, DrivePlan, Kind, Problem, Problems, Setting};
use crate::request::PrepRequest;
use crate::units::ByteLen;

/// Least room for a key file, a log or a record.
const ROOM_MIN: u64 = 64 << 10;

/// Types of file systems with a limited file size (statfs(2)): FAT, and ext2/3/4, where it depends on the block size.
const MSDOS: u32 = 0x4D44;
const EXT: u32 = 0xEF53;

/// Checks the directories of the request: they exist or can be created, and are writable.
pub fn directories(request: &PrepRequest, problems: &mut Problems) {
    if let Some(dir) = &request.external_key {
        let advice = Advice::from("create the directory, or name another with ") + Setting::ExternalKey;
        match fs::metadata(dir) {
            Ok(meta) if meta.is_dir() => problems.0.extend(writable(dir, "key files", advice)),
            Ok(_) => problems.push(place(dir, "the place of the key files is no directory").advice(advice)),
            Err(error) => {
                problems.push(
                    place(dir, &format!("the directory of the key files cannot be used: {error}")).advice(advice),
                );
            }
        }
    }
    let logs = logdir(request);
    if request.logdir.is_some() {
        let advice =
            Advice::from("make room or mend the permissions, or name another directory with ") + Setting::Logdir;
        match nearest(&logs) {
            Some(dir) if dir.is_dir() => problems.0.extend(writable(&dir, "logs", advice)),
            _ => problems.push(place(&logs, "the directory of the logs cannot be made").advice(advice)),
        }
    }
    if let Some(windows) = request.windows.as_ref().filter(|windows| !windows.is_plain) {
        let advice = Advice::from("create the directory, or name another with ") + Setting::KeysTo;
        if windows.keys.is_dir() {
            problems.0.extend(writable(&windows.keys, "the recovery key", advice));
        } else {
            problems.push(place(&windows.keys, "the directory of the recovery key is not there").advice(advice));
        }
    }
    let dir = journal_dir(&request.journal);
    if dir.is_dir() {
        let advice =
            Advice::from("make room or mend the permissions, or name a journal elsewhere with ") + Setting::Journal;
        problems.0.extend(writable(&dir, "the journal and the files next to it", advice));
    }
}

fn place(path: &Path, what: &str) -> Problem {
    Problem::new(Kind::Environment, what).path(path)
}

/// The path itself, or the closest existing directory above it.
fn nearest(path: &Path) -> Option<PathBuf> {
    std::path::absolute(path).ok()?.ancestors().find(|path| path.exists()).map(Path::to_path_buf)
}

fn writable(dir: &Path, what: &str, advice: Advice) -> Option<Problem> {
    if let Err(error) = rustix::fs::access(dir, Access::WRITE_OK | Access::EXEC_OK) {
        return Some(place(dir, &format!("{what} cannot be written here: {error}")).advice(advice));
    }
    let facts = rustix::fs::statvfs(dir).ok()?;
    let free = facts.f_bavail.saturating_mul(facts.f_frsize);
    // File systems that create inodes on demand report none at all.
    if free < ROOM_MIN || facts.f_files > 0 && facts.f_favail == 0 {
        let what = format!("{what} cannot be written here: the file system is full");
        return Some(place(dir, &what).value(format!("{} free", ByteLen(free))).advice(advice));
    }
    None
}

/// Checks image files: their file system must support files of that length, and have room for the data.
pub fn images(plans: &[DrivePlan], wipe_free: bool) -> Problems {
    let mut problems = Problems::default();
    let mut needs: BTreeMap<u64, (PathBuf, u64, u64)> = BTreeMap::new();
    for plan in plans.iter().filter(|plan| plan.drive.is_image) {
        let (path, size) = (&plan.drive.path, plan.drive.size.0);
        let Some(dir) = path.parent().and_then(nearest) else { continue };
        let meta = fs::metadata(path).ok();
        let len_max = len_max(&dir);
        if meta.as_ref().is_none_or(|meta| meta.len() < size) && len_max.is_some_and(|max| size > max) {
            let problem = Problem::new(Kind::Refused, "the file system holds no image file of this length");
            let value = format!("{}; at most {}", plan.drive.size, ByteLen(len_max.unwrap_or_default()));
            problems.push(problem.drive(&plan.drive.name).value(value).advice(
                "keep the image on another file system, make it smaller, or raise the limit of file sizes (ulimit -f)",
            ));
            continue;
        }
        let written = if wipe_free { size } else { plan.to_write.0 };
        // Overwritten data takes no additional room.
        let has = meta.as_ref().map_or(0, |meta| meta.blocks().saturating_mul(512)).min(written);
        let Ok(device) = fs::metadata(&dir).map(|meta| meta.dev()) else { continue };
        let need = needs.entry(device).or_insert_with(|| (dir.clone(), 0, 0));
        need.1 += written - has;
        need.2 += 1;
    }
    for (dir, need, count) in needs.into_values() {
        let Ok(facts) = rustix::fs::statvfs(&dir) else { continue };
        let free = facts.f_bavail.saturating_mul(facts.f_frsize);
        if free < need {
            let what = match count {
                1 => "has not enough room for the image file".to_owned(),
                _ => format!("has not enough room for {count} image files"),
            };
            let problem = Problem::new(Kind::Environment, what).path(dir);
            problems.push(
                problem
                    .value(format!("{} are needed, {} are free", ByteLen(need), ByteLen(free)))
                    .advice("make room, or keep the image on another file system"),
            );
        }
    }
    problems
}

/// Longest file that can be created in a directory, where that is known.
fn len_max(dir: &Path) -> Option<u64> {
    let of_process = getrlimit(Resource::Fsize).current;
    let facts = rustix::fs::statfs(dir).ok();
    let of_system = facts.and_then(|facts| match facts.f_type as u32 {
        MSDOS => Some(u64::from(u32::MAX)),
        // 2^32 blocks with extents.
        EXT => Some((facts.f_bsize as u64).saturating_mul(u64::from(u32::MAX))),
        _ => None,
    });
    of_process.into_iter().chain(of_system).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::DriveFacts;

    #[test]
    fn what_has_no_place_is_told_at_once() {
        let dir = std::env::temp_dir().join(format!("dray-preflight-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a directory");
        fs::write(dir.join("file"), "").expect("a file");
        let reported = |key: &str, logs: &str| {
            let mut request = PrepRequest::new(dir.join("j.jrn"), "session#1");
            request.external_key = Some(dir.join(key));
            request.logdir = Some(dir.join(logs));
            let mut problems = Problems::default();
            directories(&request, &mut problems);
            problems.0.into_iter().map(|problem| problem.place.path.expect("a path")).collect::<Vec<_>>()
        };
        assert_eq!(reported(".", "new/logs"), [] as [PathBuf; 0]);
        assert_eq!(reported("missing", "logs"), [dir.join("missing")]);
        assert_eq!(reported("file", "file/logs"), [dir.join("file"), dir.join("file/logs")]);
        // A directory in which not even root can write.
        assert_eq!(reported("/proc/self", "logs").len(), 1);
        let _ = fs::remove_dir_all(dir);
    }

    #[test]
    fn an_image_needs_room_for_what_is_written_and_not_for_its_holes() {
        let dir = std::env::temp_dir();
        let facts = rustix::fs::statvfs(&dir).expect("facts");
        let free = facts.f_bavail * facts.f_frsize;
        let plan = |name: &str, write: u64| DrivePlan {
            drive: DriveFacts {
                path: dir.join(name),
                is_image: true,
                size: ByteLen(free / 2 + write),
                ..DriveFacts::default()
            },
            to_write: ByteLen(write),
            ..DrivePlan::default()
        };
        assert!(images(&[plan("dray-none-a", 1 << 20)], false).0.is_empty());
        assert_eq!(images(&[plan("dray-none-a", free + (64 << 30))], false).0.len(), 1);
        let both =
            images(&[plan("dray-none-a", free / 2 + (8 << 30)), plan("dray-none-b", free / 2 + (8 << 30))], false);
        assert!(both.0.len() == 1 && both.0[0].what.contains("2 image files"), "{both:?}");
        assert!(
            !images(&[plan("dray-none-a", free / 2 + (8 << 30)), plan("dray-none-b", free / 2 + (8 << 30))], true)
                .0
                .is_empty()
        );
    }
}
