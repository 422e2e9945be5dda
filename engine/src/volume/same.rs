//! Whether two names lead to one drive, by the kernel's numbers of the open descriptors.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Location of a drive's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    /// A file: device of its file system, inode.
    File(u64, u64),
    /// A block device: its directory in sysfs, or its number where sysfs does not list it.
    Device(PathBuf, u64),
}

impl Backing {
    /// Of an open drive or image. For a loop device, its backing file.
    pub fn of(file: &File) -> Option<Self> {
        let meta = file.metadata().ok()?;
        if !meta.file_type().is_block_device() {
            return Some(Self::File(meta.dev(), meta.ino()));
        }
        let number = meta.rdev();
        let node = format!("/sys/dev/block/{}:{}", libc::major(number), libc::minor(number));
        let sysfs = fs::canonicalize(node).unwrap_or_default();
        Some(behind(&sysfs).unwrap_or(Self::Device(sysfs, number)))
    }

    /// Whether both are the same drive, or one is a partition of the other.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Device(mine, a), Self::Device(theirs, b)) => {
                let is_known = !mine.as_os_str().is_empty() && !theirs.as_os_str().is_empty();
                a == b || is_known && (mine.starts_with(theirs) || theirs.starts_with(mine))
            }
            _ => self == other,
        }
    }
}

/// The backing file of a loop device, or of the loop device that this is a partition of.
fn behind(sysfs: &Path) -> Option<Backing> {
    let reported = ["loop/backing_file", "../loop/backing_file"];
    let path = reported.iter().find_map(|name| fs::read_to_string(sysfs.join(name)).ok())?;
    let meta = fs::metadata(path.trim_end_matches('\n')).ok()?;
    Some(Backing::File(meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_by_two_names_is_one_drive() {
        let dir = std::env::temp_dir().join(format!("dray-same-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        let path = |name: &str| dir.join(name);
        fs::write(path("a"), "a").expect("a file");
        fs::write(path("other"), "a").expect("a file");
        fs::hard_link(path("a"), path("b")).expect("a link");
        std::os::unix::fs::symlink(path("a"), path("c")).expect("a link");
        let place = |name: &str| Backing::of(&File::open(path(name)).expect("a file")).expect("a place");
        assert!(place("a").is_same(&place("b")) && place("c").is_same(&place("b")));
        assert!(!place("a").is_same(&place("other")));
        fs::remove_dir_all(&dir).expect("removed");
        let disk = |path: &str, number| Backing::Device(path.into(), number);
        assert!(disk("/sys/devices/x/sdb", 16).is_same(&disk("/sys/devices/x/sdb/sdb2", 18)));
        assert!(!disk("/sys/devices/x/sdb", 16).is_same(&disk("/sys/devices/x/sdc", 32)));
        assert!(!disk("", 16).is_same(&disk("", 32)) && disk("", 16).is_same(&disk("", 16)));
        assert!(!disk("/sys/devices/x/sdb", 16).is_same(&Backing::File(1, 16)));
    }
}
