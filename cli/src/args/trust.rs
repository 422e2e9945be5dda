//! Whether root can rely on a file: no other user may change or replace it.

use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// Links that are followed before the path counts as a circle.
const LINKS_MAX: usize = 40;

/// Whether this process acts as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The first thing on the path that another user can change: the file, a directory or a link on the way, and the
/// reason. `None` when root alone can change them. A path that does not exist is safe.
pub fn fault(path: &Path) -> Option<(PathBuf, String)> {
    let path = std::path::absolute(path).ok()?;
    let mut waiting: Vec<OsString> = parts(&path);
    let mut at = PathBuf::from("/");
    let mut links = 0;
    if let Some(why) = weakness(&std::fs::symlink_metadata(&at).ok()?) {
        return Some((at, why));
    }
    while let Some(name) = waiting.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        let meta = std::fs::symlink_metadata(&next).ok()?;
        if meta.is_symlink() {
            // A link's own mode has no meaning; its owner matters where the directory is writable by all.
            if meta.uid() != 0 {
                return Some((next, format!("the link belongs to {}", who(meta.uid()))));
            }
            links += 1;
            if links > LINKS_MAX {
                return Some((next, "the links on the way do not end".into()));
            }
            let to = std::fs::read_link(&next).ok()?;
            if to.is_absolute() {
                at = PathBuf::from("/");
            }
            waiting.extend(parts(&to));
            continue;
        }
        if let Some(why) = weakness(&meta) {
            return Some((next, why));
        }
        at = next;
    }
    None
}

/// Names of a path, the last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    let mut names: Vec<OsString> = names.collect();
    names.reverse();
    names
}

fn who(uid: u32) -> String {
    format!("user {uid}")
}

/// The reason why another user can change the file; `None` if none can.
fn weakness(meta: &Metadata) -> Option<String> {
    const GROUP_WRITES: u32 = 0o020;
    const OTHERS_WRITE: u32 = 0o002;
    const STICKY: u32 = 0o1000;
    if meta.uid() != 0 {
        return Some(format!("it belongs to {}", who(meta.uid())));
    }
    // In a sticky directory all users may create names, but not remove those of others.
    if meta.is_dir() && meta.mode() & STICKY != 0 {
        return None;
    }
    if meta.mode() & OTHERS_WRITE != 0 {
        return Some("everybody may write to it".into());
    }
    (meta.mode() & GROUP_WRITES != 0 && meta.gid() != 0).then(|| format!("group {} may write to it", meta.gid()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    #[test]
    fn only_what_root_alone_can_change_is_trusted() {
        if !is_root() {
            eprintln!("SKIPPED: only root can give files away");
            return;
        }
        let dir = std::env::temp_dir().join(format!("dray-trust-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let inner = dir.join("inner");
        fs::create_dir_all(&inner).unwrap();
        let file = inner.join("config.toml");
        fs::write(&file, "").unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        mode(&file, 0o644);
        mode(&inner, 0o755);
        mode(&dir, 0o755);
        assert_eq!(fault(&file), None);
        let place = |path: &Path| fault(path).map(|(place, _)| place);
        for (bad, good) in [(0o646, 0o644), (0o777, 0o755)] {
            let path = if good == 0o644 { &file } else { &inner };
            mode(path, bad);
            assert_eq!(place(&file).as_ref(), Some(path), "{bad:o}");
            mode(path, good);
        }
        // A world-writable directory such as /tmp: the files in it remain their owners'.
        mode(&inner, 0o1777);
        assert_eq!(fault(&file), None);
        chown(&file, Some(65_534), None).unwrap();
        assert_eq!(place(&file).as_ref(), Some(&file));
        chown(&file, Some(0), None).unwrap();
        mode(&inner, 0o755);
        chown(&dir, Some(65_534), None).unwrap();
        assert_eq!(place(&file).as_ref(), Some(&dir));
        // Through a link, too, and the target of another user's link.
        let link = std::env::temp_dir().join(format!("dray-trust-link-{}", std::process::id()));
        let _ = fs::remove_file(&link);
        symlink(&inner, &link).unwrap();
        assert_eq!(place(&link.join("config.toml")).as_ref(), Some(&dir));
        chown(&dir, Some(0), None).unwrap();
        assert_eq!(fault(&link.join("../inner/config.toml")), None);
        std::os::unix::fs::lchown(&link, Some(65_534), None).unwrap();
        assert_eq!(place(&link.join("config.toml")).as_ref(), Some(&link));
        chown(&inner, None, Some(1234)).unwrap();
        mode(&inner, 0o775);
        assert_eq!(place(&file).as_ref(), Some(&inner));
        assert_eq!(fault(Path::new("/not/there/at/all")), None);
        fs::remove_file(&link).unwrap();
        fs::remove_dir_all(&dir).unwrap();
    }
}
