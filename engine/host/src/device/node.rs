//! Identity of a file or device by the kernel's numbers, never by a name.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use super::geometry::attribute;
use super::{Device, Roots, usage};

/// The kernel's numbers of a drive or an image. All names of one device or file give the same node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Node {
    /// A regular file.
    File {
        /// Device number of its file system (`st_dev`).
        device: u64,
        /// Its inode number (`st_ino`).
        inode: u64,
    },
    /// A block device.
    Block {
        /// Its device number (`st_rdev`).
        number: u64,
    },
    /// A file that does not exist yet: its future directory, and its name.
    Unmade {
        /// `st_dev` and `st_ino` of the directory.
        directory: (u64, u64),
        /// Name in it.
        name: std::ffi::OsString,
    },
}

impl Node {
    /// From the metadata of an existing file or device.
    pub fn of(meta: &Metadata) -> Self {
        if meta.file_type().is_block_device() {
            Self::Block { number: meta.rdev() }
        } else {
            Self::File { device: meta.dev(), inode: meta.ino() }
        }
    }

    /// Of a file that will be created; of the file itself where it exists.
    pub fn unmade(path: &Path) -> Option<Self> {
        if let Ok(meta) = fs::metadata(path) {
            return Some(Self::of(&meta));
        }
        let parent = fs::metadata(path.parent()?).ok()?;
        Some(Self::Unmade { directory: (parent.dev(), parent.ino()), name: path.file_name()?.to_owned() })
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { device, inode } => {
                write!(f, "inode {inode} of device {}:{}", libc::major(*device), libc::minor(*device))
            }
            Self::Block { number } => write!(f, "block device {}:{}", libc::major(*number), libc::minor(*number)),
            Self::Unmade { name, .. } => write!(f, "the new file {}", name.to_string_lossy()),
        }
    }
}

/// A drive or image that stays open between examination and claim, so that its numbers cannot pass to another.
#[derive(Clone, Debug)]
pub struct Held {
    _file: Arc<File>,
    node: Node,
    sequence: Option<u64>,
}

impl Held {
    pub(super) fn new(file: Arc<File>, node: Node, sequence: Option<u64>) -> Self {
        Self { _file: file, node, sequence }
    }

    /// An open file that is not a device.
    pub fn of(file: File) -> Option<Self> {
        let node = Node::of(&file.metadata().ok()?);
        Some(Self::new(Arc::new(file), node, None))
    }

    /// The node held.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The difference of `now` from the node held, in words; `None` when it is the same.
    pub fn change_to(&self, now: &Device) -> Option<String> {
        if self.node != *now.node() {
            return Some(format!("its name led to {}, and leads to {}", self.node, now.node()));
        }
        // A number of a device that went away is given to the next one that comes.
        (self.sequence != now.sequence()).then(|| format!("{} is another medium now", self.node))
    }
}

/// Everything that a drive's bytes are stored on: itself, and all devices and files below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ground {
    own: Node,
    below: BTreeSet<Node>,
    /// Of a loop device: first and last byte that it may use of the file or device below it.
    stretch: Option<(Node, u64, u64)>,
}

impl Ground {
    /// The ground of an open device.
    pub fn of(device: &Device) -> Self {
        let mut this = Self { own: device.node().clone(), below: BTreeSet::new(), stretch: None };
        if let Node::Block { number } = this.own {
            let loops = usage::loops(device.roots());
            let own = loops.iter().find(|one| one.number == number);
            this.stretch = own.and_then(|one| Some((one.backing.clone()?, one.first, one.last)));
            descend(number, &loops, device.roots(), &mut this.below);
        }
        this
    }

    /// The storage of an image that does not exist yet.
    pub fn unmade(path: &Path) -> Option<Self> {
        Some(Self { own: Node::unmade(path)?, below: BTreeSet::new(), stretch: None })
    }

    /// The device or file itself.
    pub fn node(&self) -> &Node {
        &self.own
    }

    /// The file that contains the bytes, by `st_dev` and `st_ino`: the image itself, or the file below a loop device.
    /// These numbers alone tell images apart, as long as the file is not copied.
    pub fn file(&self) -> Option<(u64, u64)> {
        match (&self.own, &self.stretch) {
            (Node::File { device, inode }, _) | (_, Some((Node::File { device, inode }, ..))) => {
                Some((*device, *inode))
            }
            _ => None,
        }
    }

    /// A device or file that both would write to, if there is one.
    pub fn shared_with(&self, other: &Self) -> Option<&Node> {
        if self.own == other.own || other.below.contains(&self.own) {
            return Some(&self.own);
        }
        if self.below.contains(&other.own) {
            return self.below.get(&other.own);
        }
        match (&self.stretch, &other.stretch) {
            (Some((node, first, last)), Some((theirs, from, to))) if node == theirs && first <= to && from <= last => {
                Some(node)
            }
            _ => None,
        }
    }
}

/// Adds everything below a block device: the disk of a partition, the parts of a mapped device, the file of a loop
/// device.
fn descend(number: u64, loops: &[usage::Attached], roots: &Roots, below: &mut BTreeSet<Node>) {
    if let Some(backing) = loops.iter().find(|one| one.number == number).and_then(|one| one.backing.clone())
        && below.insert(backing.clone())
        && let Node::Block { number } = backing
    {
        descend(number, loops, roots, below);
    }
    let dir = roots.sys.join(format!("dev/block/{}:{}", libc::major(number), libc::minor(number)));
    let Ok(dir) = fs::canonicalize(dir) else { return };
    let disk = if dir.join("partition").exists() { dir.parent().map(Path::to_owned) } else { None };
    let slaves = fs::read_dir(dir.join("slaves")).into_iter().flatten().flatten();
    let slaves = slaves.filter_map(|entry| fs::canonicalize(entry.path()).ok());
    for dir in disk.into_iter().chain(slaves) {
        let Some(number) = attribute(&dir, "dev").as_deref().and_then(parse) else { continue };
        if below.insert(Node::Block { number }) {
            descend(number, loops, roots, below);
        }
    }
}

/// `8:16` as the number of a device.
pub(super) fn parse(text: &str) -> Option<u64> {
    let (major, minor) = text.split_once(':')?;
    Some(libc::makedev(major.parse().ok()?, minor.parse().ok()?))
}
