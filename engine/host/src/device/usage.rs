//! Present users of a drive or an image, under any name: loop devices, swap space, FUSE drivers, virtual machines,
//! locks.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::geometry::attribute;
use super::node::{Node, parse};
use super::{Roots, ioctl};

/// Longest wait for a device whose user was killed a moment ago: the process is gone before the kernel has ended its
/// transfers.
pub(super) const LET_GO_WAIT: Duration = Duration::from_secs(2);

/// Processes that are named before the list is cut.
const USERS_MAX: usize = 5;

/// An attached loop device.
#[derive(Clone, Debug)]
pub(super) struct Attached {
    /// Name of the loop device in the kernel, such as `loop0`.
    pub name: String,
    /// Its number (`st_rdev`).
    pub number: u64,
    /// Its directory in sysfs.
    pub sysfs: PathBuf,
    /// Its backing file or device; `None` where the kernel does not report it.
    pub backing: Option<Node>,
    /// The path used for attaching it, in the mount namespace where that was done.
    pub path: PathBuf,
    /// First byte of the backing file that belongs to it.
    pub first: u64,
    /// Last byte of the backing file that belongs to it, inclusive.
    pub last: u64,
}

/// Every attached loop device.
pub(super) fn loops(roots: &Roots) -> Vec<Attached> {
    let entries = fs::read_dir(roots.sys.join("block")).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let sysfs = entry.path();
            let path = PathBuf::from(attribute(&sysfs, "loop/backing_file")?);
            let number = attribute(&sysfs, "dev").as_deref().and_then(parse).unwrap_or(0);
            let size = |name| attribute(&sysfs, name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
            let (first, len) = (size("loop/offset"), size("loop/sizelimit"));
            let last = if len == 0 { u64::MAX } else { first.saturating_add(len - 1) };
            // The device itself is asked; its path may be of another namespace, or lead to another file by now.
            let asked = File::open(roots.dev.join(&name)).and_then(|device| ioctl::loop_backing(&device));
            let backing = match asked {
                Ok((_, _, number)) if number != 0 => Some(Node::Block { number }),
                Ok((device, inode, _)) => Some(Node::File { device, inode }),
                Err(_) => fs::metadata(&path).ok().map(|meta| Node::of(&meta)),
            };
            Some(Attached { name, number, sysfs, backing, path, first, last })
        })
        .collect()
}

/// Swap files and swap devices: the kernel's path, and the node it leads to.
pub(super) fn swaps(roots: &Roots) -> Vec<(PathBuf, Option<Node>)> {
    let text = fs::read(roots.proc.join("swaps")).unwrap_or_default();
    let lines = text.split(|byte| *byte == b'\n').skip(1);
    let names = lines.filter_map(|line| line.split(u8::is_ascii_whitespace).next().filter(|name| !name.is_empty()));
    names
        .map(|name| {
            let path = PathBuf::from(std::ffi::OsStr::from_bytes(&unescape(name)));
            let node = fs::metadata(&path).ok().map(|meta| Node::of(&meta));
            (path, node)
        })
        .collect()
}

/// Undoes the kernel's escaping in its tables: blanks, tabs, newlines and backslashes as three octal digits.
pub(super) fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let code = match (byte, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        match code {
            Some(code) => {
                out.push(code);
                rest = &tail[3..];
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}

/// A process that has the file or device open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    /// Name of the process (`comm`).
    pub name: String,
    /// Whether it has it open for writing.
    pub writes: bool,
    /// Whether it serves a FUSE file system, which may be stored in it.
    pub serves: bool,
}

/// Other processes that have a file or device open or mapped, as far as this process may look.
pub(super) fn users(node: &Node, roots: &Roots) -> BTreeMap<u32, User> {
    let own = std::process::id();
    let mut users = BTreeMap::new();
    for process in fs::read_dir(&roots.proc).into_iter().flatten().flatten() {
        let Some(id) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if id == own {
            continue;
        }
        let dir = process.path();
        let (mut has, mut writes, mut serves) = (false, false, false);
        for entry in fs::read_dir(dir.join("fd")).into_iter().flatten().flatten() {
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            serves |= target == Path::new("/dev/fuse");
            let info = fs::read_to_string(dir.join("fdinfo").join(entry.file_name())).unwrap_or_default();
            // The target of a descriptor is only touched when it may be the right one: it may be on a server that does
            // not answer.
            if may_be(node, &target, &info) && fs::metadata(entry.path()).is_ok_and(|meta| Node::of(&meta) == *node) {
                has = true;
                writes |= may_write(&info);
            }
        }
        if let Node::File { device, inode } = node {
            let maps = fs::read_to_string(dir.join("maps")).unwrap_or_default();
            for shared in maps.lines().filter_map(|line| mapping(line, *device, *inode)) {
                has = true;
                writes |= shared;
            }
        }
        if has {
            let name = attribute(&dir, "comm").unwrap_or_else(|| "a process".to_owned());
            users.insert(id, User { name, writes, serves });
        }
    }
    users
}

/// A field of `/proc/PID/fdinfo/N`.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
}

/// Whether a descriptor may lead to the node, judged without touching its target: kernels since 5.14 report the inode.
fn may_be(node: &Node, target: &Path, info: &str) -> bool {
    match node {
        Node::File { inode, .. } => match field(info, "ino").and_then(|number| number.parse::<u64>().ok()) {
            Some(number) => number == *inode,
            None => target.is_absolute(),
        },
        Node::Block { .. } => {
            target.starts_with("/dev") || target.as_os_str().as_bytes().windows(5).any(|w| w == b"/dev/")
        }
        Node::Unmade { .. } => false,
    }
}

fn may_write(info: &str) -> bool {
    let flags = field(info, "flags").and_then(|flags| i32::from_str_radix(flags, 8).ok()).unwrap_or(0);
    flags & libc::O_ACCMODE != libc::O_RDONLY
}

/// For a line of `/proc/PID/maps` that maps the file (`address perms offset dev inode path`): whether writes to the
/// mapping reach the file. `None` for other lines.
fn mapping(line: &str, device: u64, inode: u64) -> Option<bool> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (perms, _, dev, number) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let (major, minor) = dev.split_once(':')?;
    let dev = libc::makedev(u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    (number.parse() == Ok(inode) && dev == device).then(|| perms.contains('w') && perms.ends_with('s'))
}

/// Users as a list for people.
pub(super) fn named(users: &BTreeMap<u32, User>) -> Vec<String> {
    users.iter().take(USERS_MAX).map(|(id, user)| format!("{} (pid {id})", user.name)).collect()
}

/// Use of a node by others, or the reason why it cannot be ruled out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Processes that write to it, or serve a file system stored in it.
    Processes(Vec<String>),
    /// A lock through another descriptor, and the process where the kernel reports it.
    Lock(Option<String>),
    /// A user that has it open for writing and is not visible from here.
    Unseen,
}

/// Users of a device or file other than this process. Waits for one whose user was just killed.
///
/// `reading` means that `file` is open for reading only: then the kernel itself can be asked.
pub(super) fn of(file: &File, node: &Node, reading: bool, roots: &Roots) -> Option<Use> {
    let until = Instant::now() + LET_GO_WAIT;
    loop {
        let found = now(file, node, reading, roots);
        if found.is_none() || Instant::now() >= until {
            return found;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn now(file: &File, node: &Node, reading: bool, roots: &Roots) -> Option<Use> {
    let mut users = users(node, roots);
    users.retain(|_, user| user.writes || user.serves);
    if !users.is_empty() {
        return Some(Use::Processes(named(&users)));
    }
    if let Ok(Some(owner)) = ioctl::foreign_lock(file) {
        let name = |id: u32| {
            let name = attribute(&roots.proc.join(id.to_string()), "comm").unwrap_or_else(|| "a process".to_owned());
            format!("{name} (pid {id})")
        };
        return Some(Use::Lock(owner.map(name)));
    }
    if !reading || !matches!(node, Node::File { .. }) {
        return None;
    }
    // Held only for a moment: others wait for the lock longer than that.
    match file.try_lock() {
        Ok(()) => drop(file.unlock()),
        Err(fs::TryLockError::WouldBlock) => return Some(Use::Lock(None)),
        Err(fs::TryLockError::Error(_)) => {}
    }
    ioctl::is_open_for_writing(file).is_ok_and(|is| is).then_some(Use::Unseen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_and_mappings_are_told_by_number() {
        let info = "pos:\t0\nflags:\t0100002\nmnt_id:\t29\nino:\t77\n";
        let file = Node::File { device: libc::makedev(8, 1), inode: 77 };
        assert!(may_be(&file, Path::new("/any"), info) && may_write(info));
        assert!(!may_be(&Node::File { device: 0, inode: 78 }, Path::new("/any"), info));
        // Kernels before 5.14.
        assert!(
            may_be(&file, Path::new("/any"), "flags:\t0\n") && !may_be(&file, Path::new("socket:[1]"), "flags:\t0\n")
        );
        assert!(!may_write("flags:\t0100000\n") && may_write("flags:\t01\n"));
        let block = Node::Block { number: 1 };
        assert!(may_be(&block, Path::new("/dev/sda"), info) && may_be(&block, Path::new("/jail/dev/sda"), info));
        assert!(!may_be(&block, Path::new("/srv/data"), info));
        let device = libc::makedev(8, 1);
        assert_eq!(mapping("7f00-7f10 rw-s 00000000 08:01 77 /x.img", device, 77), Some(true));
        assert_eq!(mapping("7f00-7f10 rw-p 00000000 08:01 77 /x.img", device, 77), Some(false));
        assert_eq!(mapping("7f00-7f10 rw-s 00000000 08:02 77 /x.img", device, 77), None);
        for hostile in ["", "a b", "7f00 rw-s 0 xx:yy 77", "7f00 rw-s 0 08:01 99999999999999999999999"] {
            assert_eq!(mapping(hostile, device, 77), None, "{hostile}");
        }
    }

    #[test]
    fn a_file_that_is_open_or_locked_elsewhere_is_in_use() {
        let path = std::env::temp_dir().join(format!("dray-usage-{}", std::process::id()));
        fs::write(&path, [0; 4096]).unwrap();
        let file = File::open(&path).unwrap();
        let node = Node::of(&file.metadata().unwrap());
        let roots = Roots::default();
        let locker = File::options().read(true).open(&path).unwrap();
        assert_eq!(now(&file, &node, true, &roots), None);
        locker.lock_shared().unwrap();
        assert_eq!(now(&file, &node, true, &roots), Some(Use::Lock(None)));
        locker.unlock().unwrap();
        // A write by this process itself is visible to the kernel alone.
        let writer = File::options().write(true).open(&path).unwrap();
        match ioctl::is_open_for_writing(&file) {
            Ok(is) => {
                assert!(is);
                assert_eq!(now(&file, &node, true, &roots), Some(Use::Unseen));
            }
            Err(error) => eprintln!("SKIPPED: no leases on this file system: {error}"),
        }
        ioctl::lock_bytes(&writer).unwrap();
        assert_eq!(now(&file, &node, true, &roots), Some(Use::Lock(None)));
        // Not in its own way.
        assert_eq!(now(&writer, &node, false, &roots), None);
        drop(writer);
        // A process that only has it open for reading is no obstacle; one that writes is named.
        let sleeper = |redirect: &str| {
            let line = format!("exec sleep 60 {redirect}{}", path.display());
            std::process::Command::new("sh").args(["-c", &line]).spawn().unwrap()
        };
        let (mut reader, mut writer) = (sleeper("<"), sleeper("3>>"));
        let until = Instant::now() + Duration::from_secs(5);
        let found = loop {
            match now(&file, &node, true, &roots) {
                Some(Use::Processes(found)) => break found,
                _ if Instant::now() > until => panic!("never seen"),
                _ => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        assert!(found.len() == 1 && found[0].contains(&format!("pid {}", writer.id())), "{found:?}");
        writer.kill().unwrap();
        writer.wait().unwrap();
        assert_eq!(of(&file, &node, true, &roots), None);
        reader.kill().unwrap();
        reader.wait().unwrap();
        fs::remove_file(&path).unwrap();
    }
}
