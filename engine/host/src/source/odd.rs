//! Sources that differ from their `stat`: files of pseudo file systems and of FUSE that report a wrong length, and
//! placeholders whose contents are elsewhere.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// File systems with unreliable lengths (statfs(2), `linux/magic.h`): proc, sysfs, debugfs, tracefs, cgroup and
/// cgroup2, securityfs, configfs, bpf, efivarfs, pstore, 9p.
const PSEUDO: [u32; 12] = [
    0x9FA0,
    0x6265_6572,
    0x6462_6720,
    0x7472_6163,
    0x0027_E0EB,
    0x6367_7270,
    0x7363_6673,
    0x6265_6570,
    0xCAFE_4A11,
    0xDE5E_81E4,
    0x6165_676C,
    0x0102_1997,
];

/// FUSE: file systems of any kind, ntfs-3g among them.
const FUSE: u32 = 0x6573_5546;

/// ntfs-3g and ntfs3 give a reparse point's bytes in this attribute, the tag first.
const REPARSE_DATA: &str = "system.ntfs_reparse_data";

/// Tags that describe the naming or the creator of a file, and leave its contents where they are ([MS-FSCC] 2.1.2.1):
/// mount point, symbolic link, global link of a cluster, and the links and special files of WSL and NFS.
const HARMLESS: [u32; 10] = [
    0xA000_0003,
    0xA000_000C,
    0xA000_0019,
    0xA000_001D,
    0x8000_0014,
    0x8000_0023,
    0x8000_0024,
    0x8000_0025,
    0x8000_0026,
    0xA000_0027,
];

/// Whether a file with this reparse tag has its contents in its data.
pub fn is_harmless(tag: u32) -> bool {
    HARMLESS.contains(&tag)
}

/// Kinds of the sources' file systems, by device number; filled as they are met.
#[derive(Debug, Default)]
pub struct Odd {
    systems: HashMap<u64, System>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum System {
    Ordinary,
    Pseudo,
    Fuse,
}

impl Odd {
    fn system(&mut self, path: &Path, device: u64) -> System {
        *self.systems.entry(device).or_insert_with(|| match rustix::fs::statfs(path).map(|facts| facts.f_type as u32) {
            Ok(FUSE) => System::Fuse,
            Ok(kind) if PSEUDO.contains(&kind) => System::Pseudo,
            _ => System::Ordinary,
        })
    }

    /// The reason why a regular file of `len` bytes on file system `device` cannot be copied as `stat` describes it.
    ///
    /// # Errors
    /// Errors of opening and reading.
    pub fn file(&mut self, path: &Path, device: u64, len: u64) -> io::Result<Option<String>> {
        let system = self.system(path, device);
        if system != System::Ordinary
            && let Some(tag) = reparse_tag(path).filter(|tag| !is_harmless(*tag))
        {
            return Ok(Some(placeholder(tag)));
        }
        // A file of 0 bytes is not read later, and nothing would show.
        if system == System::Ordinary && len > 0 {
            return Ok(None);
        }
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path)?;
        if reads_at(&file, len)? {
            return Ok(Some(format!("has more than the {len} bytes that its file system reports")));
        }
        Ok(None)
    }

    /// The reason why an apparent symbolic link is none: ntfs-3g shows placeholders that way.
    pub fn link(&mut self, path: &Path) -> Option<String> {
        use std::os::unix::fs::MetadataExt;
        let device = std::fs::symlink_metadata(path).ok()?.dev();
        if self.system(path.parent()?, device) == System::Ordinary {
            return None;
        }
        reparse_tag(path).filter(|tag| !is_harmless(*tag)).map(placeholder)
    }
}

fn placeholder(tag: u32) -> String {
    format!("is a placeholder (reparse tag 0x{tag:08X}): its contents are not in this file")
}

fn reads_at(file: &File, offset: u64) -> io::Result<bool> {
    loop {
        match file.read_at(&mut [0], offset) {
            Ok(read) => return Ok(read > 0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn reparse_tag(path: &Path) -> Option<u32> {
    let mut data = vec![0u8; 16 << 10];
    let len = rustix::fs::lgetxattr(path, REPARSE_DATA, &mut data[..]).ok()?;
    let tag = data[..len].first_chunk::<4>()?;
    Some(u32::from_le_bytes(*tag))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn lengths_that_are_not_true_are_told() {
        let mut odd = Odd::default();
        let mut of = |path: &str| {
            let meta = std::fs::metadata(path).expect("a file");
            odd.file(Path::new(path), meta.dev(), meta.len()).expect("read")
        };
        assert!(of("/proc/self/status").expect("longer").contains("more than the 0 bytes"));
        // One that has fewer is found when it is read, and left out.
        assert_eq!(of("/sys/kernel/uevent_seqnum"), None);
        let empty = std::env::temp_dir().join(format!("dray-odd-{}", std::process::id()));
        std::fs::write(&empty, "").expect("a file");
        assert_eq!(of(empty.to_str().expect("a path")), None);
        std::fs::write(&empty, "full").expect("a file");
        assert_eq!(of(empty.to_str().expect("a path")), None);
        let _ = std::fs::remove_file(empty);
    }
}
