//! Opening a drive or an image file, for reading or for exclusive writing.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use super::usage::{self, LET_GO_WAIT};
use super::{Geometry, Held, Identity, Node, Roots, guard, ioctl};
use crate::advice::{Advice, Command};
use crate::io::Target;
use crate::problem::{Kind, Problem};
use crate::units::{ByteLen, DeviceOffset, DeviceRange, SectorSize};

/// Purpose of opening a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading: cannot write, and has no effect on other users.
    Read,
    /// Writing: exclusively, with the node locked against udev and auto-mounters.
    Claim,
}

/// Kind of the opened device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A block device.
    Block {
        /// Major and minor number.
        number: (u32, u32),
        /// Its directory in sysfs.
        sysfs: PathBuf,
        /// Set to the whole disk's kernel name when this is a partition.
        partition_of: Option<String>,
    },
    /// A regular file.
    Image,
}

/// An open drive or image file. Dropping it releases it.
#[derive(Debug)]
pub struct Device {
    path: PathBuf,
    file: Arc<File>,
    access: Access,
    kind: DeviceKind,
    node: Node,
    sequence: Option<u64>,
    direct: bool,
    read_only: bool,
    geometry: Geometry,
    identity: Identity,
    roots: Roots,
}

/// Opens the descriptor; also tells whether it bypasses the page cache. `block`: whether it is a block device.
fn open_file(
    path: &Path,
    access: Access,
    (block, image_sector): (bool, SectorSize),
    roots: &Roots,
) -> Result<(File, bool), Problem> {
    let refuse = |error: io::Error| open_problem(path, &error);
    // On a block device O_EXCL is a claim that file systems and device-mapper respect and make themselves.
    let exclusive = if block && access == Access::Claim { libc::O_EXCL } else { 0 };
    let open = |flags: i32| {
        let mut options = OpenOptions::new();
        options.read(true).write(access == Access::Claim);
        options.custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK | exclusive | flags);
        if exclusive == 0 { options.open(path) } else { open_let_go(&options, path, roots) }
    };
    match open(libc::O_DIRECT) {
        Ok(file) if block || accepts_direct(&file, image_sector) => Ok((file, true)),
        Ok(file) => {
            drop(file);
            Ok((open(0).map_err(refuse)?, false))
        }
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok((open(0).map_err(refuse)?, false)),
        Err(error) if block && is_busy(&error) => Err(guard::held(path, roots)),
        Err(error) => Err(refuse(error)),
    }
}

/// A descriptor that was opened and, for writing, locked.
struct Opened<'a> {
    path: &'a Path,
    file: File,
    access: Access,
    node: Node,
    direct: bool,
    roots: &'a Roots,
}

impl Opened<'_> {
    fn image(self, meta: &fs::Metadata, sector: SectorSize) -> Device {
        let len = super::packed::disk_len(&self.file, meta.len());
        let geometry = Geometry::with_limits(ByteLen(len), sector, sector.bytes() as u32, None);
        let identity = Identity::of_image(geometry.size, sector);
        Device {
            path: self.path.to_owned(),
            file: Arc::new(self.file),
            access: self.access,
            kind: DeviceKind::Image,
            node: self.node,
            sequence: None,
            direct: self.direct,
            read_only: meta.permissions().readonly(),
            geometry,
            identity,
            roots: self.roots.clone(),
        }
    }

    fn disk(self, rdev: u64) -> Result<Device, Problem> {
        let Self { path, file, roots, .. } = self;
        let refuse = |error: io::Error| open_problem(path, &error);
        let size = ioctl::size(&file).map_err(refuse)?;
        let logical = ioctl::logical_sector(&file).map_err(refuse)?;
        let sector = SectorSize::from_bytes(u64::from(logical)).ok_or_else(|| {
            Problem::new(Kind::Refused, "has sectors of a size that is not supported")
                .drive(path.display().to_string())
                .value(format!("{logical} bytes"))
                .advice("drives with 512- and 4096-byte logical sectors are")
        })?;
        let number = (libc::major(rdev), libc::minor(rdev));
        let sysfs = roots.sys.join(format!("dev/block/{}:{}", number.0, number.1));
        let sysfs = fs::canonicalize(&sysfs).unwrap_or(sysfs);
        let disk = if sysfs.join("partition").exists() { sysfs.parent().map(Path::to_owned) } else { None };
        let partition_of = disk.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        let disk = disk.unwrap_or_else(|| sysfs.clone());
        let physical = ioctl::physical_sector(&file).unwrap_or(logical);
        let geometry = Geometry::with_limits(ByteLen(size), sector, physical, Some(&disk));
        let identity = Identity::of_disk(&disk, geometry.size, sector, Some(&file));
        Ok(Device {
            path: path.to_owned(),
            read_only: ioctl::read_only(&file).unwrap_or(false),
            node: self.node,
            sequence: ioctl::disk_sequence(&file).ok(),
            file: Arc::new(file),
            access: self.access,
            kind: DeviceKind::Block { number, sysfs, partition_of },
            direct: self.direct,
            geometry,
            identity,
            roots: roots.clone(),
        })
    }
}

/// Memory that any device accepts for direct transfers.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C, align(4096))]
struct Page([u8; 4096]);

/// Longest piece of [`Device::read_exact_at`], in pages.
const BOUNCE_PAGES: usize = 64;

impl Device {
    /// Opens a block device, or an image file with 512-byte sectors.
    ///
    /// # Errors
    /// A [`Problem`] with advice: missing, not permitted, in use, neither device nor file.
    pub fn open(path: &Path, access: Access) -> Result<Self, Problem> {
        Self::open_with(path, access, SectorSize::S512, &Roots::default())
    }

    /// As [`Self::open`], with the sector size of image files and the places of `/sys` and `/proc`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(path: &Path, access: Access, image_sector: SectorSize, roots: &Roots) -> Result<Self, Problem> {
        let refuse = |error: io::Error| open_problem(path, &error);
        let found = fs::metadata(path).map_err(refuse)?;
        let block = found.file_type().is_block_device();
        if !block && !found.is_file() {
            return Err(Problem::new(Kind::Refused, "is neither a disk nor an image file")
                .drive(path.display().to_string())
                .advice("name a whole disk such as /dev/sdb, a link under /dev/disk/by-id/, or an image file"));
        }
        let (file, direct) = open_file(path, access, (block, image_sector), roots)?;
        // The name may have come to mean something else between the two looks.
        let meta = file.metadata().map_err(refuse)?;
        let node = Node::of(&meta);
        if node != Node::of(&found) {
            return Err(Problem::new(Kind::Refused, "became another file or device while it was opened")
                .drive(path.display().to_string()));
        }
        if access == Access::Claim {
            lock(&file, path)?;
            if !block {
                lock_bytes(&file, path)?;
            }
        }

        let opened = Opened { path, file, access, node, direct, roots };
        if block { opened.disk(meta.rdev()) } else { Ok(opened.image(&meta, image_sector)) }
    }

    /// The path passed to [`Self::open`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Purpose of opening.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Identity in the kernel, taken from the open descriptor.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Number of the medium; `None` for image files, and where the kernel counts none (before 5.15).
    pub(super) fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    /// The descriptor, for keeping it open when the rest is dropped.
    pub fn hold(&self) -> Held {
        Held::new(Arc::clone(&self.file), self.node.clone(), self.sequence)
    }

    /// Another user of the device or file, if there is one.
    pub(super) fn used_by(&self) -> Option<usage::Use> {
        usage::of(&self.file, &self.node, self.access == Access::Read, &self.roots)
    }

    /// Block device or image file.
    pub fn kind(&self) -> &DeviceKind {
        &self.kind
    }

    /// Whether it is a regular file.
    pub fn is_image(&self) -> bool {
        self.kind == DeviceKind::Image
    }

    /// Whether transfers bypass the page cache. `false` for an image file whose file system does not support that.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Whether the kernel or the file's permissions refuse writes.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Whether the block device is held exclusively by another user. Opens it exclusively for a moment, without effect
    /// on other users.
    pub(super) fn is_held(&self) -> bool {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_EXCL);
        let block = matches!(self.kind, DeviceKind::Block { .. });
        block && open_let_go(&options, &self.path, &self.roots).is_err_and(|error| is_busy(&error))
    }

    /// Sizes and limits.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Identity, read from the open descriptor.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Roots of `/sys` and `/proc` in use.
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// The target for an engine.
    pub fn target(&self) -> Target {
        Target {
            file: Arc::clone(&self.file),
            align: if self.direct { self.geometry.sector.bytes() } else { 1 },
            requests: self.geometry.requests(),
        }
    }

    /// Reads any range, aligned or not, through aligned pages. For small reads, not for bulk.
    ///
    /// # Errors
    /// `UnexpectedEof` past the end, otherwise the error of `pread`.
    pub fn read_exact_at(&self, mut into: &mut [u8], at: DeviceOffset) -> io::Result<()> {
        let unit = size_of::<Page>() as u64;
        let mut pages = vec![Page([0; 4096]); BOUNCE_PAGES.min(into.len() / 4096 + 2)];
        let mut at = at.0;
        while !into.is_empty() {
            let start = at - at % unit;
            let skip = (at - start) as usize;
            // The last sectors of a device may be less than a page: ask for whole sectors, no further than the end.
            let end = start.saturating_add(pages.as_bytes().len() as u64).min(self.geometry.size.0);
            if end <= at {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let want = ((end - start) as usize).min((skip + into.len()).next_multiple_of(4096));
            let bytes = &mut pages.as_mut_bytes()[..want];
            let mut got = 0;
            while got < bytes.len() {
                match self.file.read_at(&mut bytes[got..], start + got as u64) {
                    Ok(0) => break,
                    Ok(n) => got += n,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            let n = got.saturating_sub(skip).min(into.len());
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            into[..n].copy_from_slice(&bytes[skip..skip + n]);
            into = &mut into[n..];
            at += n as u64;
        }
        Ok(())
    }

    /// Discards a range; `false` when the device does not support that. The contents are then the device's choice; a
    /// range of an image file reads as zeros.
    ///
    /// # Errors
    /// The kernel's error, other than that discarding is not supported.
    pub fn discard(&self, range: DeviceRange) -> io::Result<bool> {
        if range.len.0 == 0 {
            return Ok(true);
        }
        let outcome = match self.kind {
            DeviceKind::Block { .. } if self.geometry.discard.is_none() => return Ok(false),
            DeviceKind::Block { .. } => ioctl::discard(&self.file, range),
            DeviceKind::Image => ioctl::punch_hole(&self.file, range),
        };
        match outcome {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOTTY)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes everything written durable.
    ///
    /// # Errors
    /// The error of `fsync`; after it no write since the last successful flush is certain.
    pub fn flush(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Drops the kernel's caches of the device, so that reading back reaches the device.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn drop_caches(&self) -> io::Result<()> {
        match self.kind {
            DeviceKind::Block { .. } => ioctl::flush_buffers(&self.file),
            DeviceKind::Image => self.file.sync_all().and_then(|()| ioctl::forget_pages(&self.file)),
        }
    }

    /// Makes the kernel read the new partition table; no effect for an image file or a loop device without partitions.
    ///
    /// # Errors
    /// The kernel's error; `EBUSY` when something uses a partition.
    pub fn reread_partitions(&self) -> io::Result<()> {
        match self.kind {
            DeviceKind::Block { .. } => match ioctl::reread_partitions(&self.file) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
                outcome => outcome,
            },
            DeviceKind::Image => Ok(()),
        }
    }
}

/// Opens exclusively, once a process that was just killed has released the device.
fn open_let_go(options: &OpenOptions, path: &Path, roots: &Roots) -> io::Result<File> {
    let until = Instant::now() + LET_GO_WAIT;
    loop {
        match options.open(path) {
            Err(error) if is_busy(&error) && Instant::now() < until && guard::users(path, roots).is_empty() => {
                std::thread::sleep(Duration::from_millis(20));
            }
            outcome => return outcome,
        }
    }
}

fn is_busy(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EBUSY)
}

/// Longest wait for another program's lock: udev holds one while it examines a disk that has just been attached.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// Locks the node: udev and auto-mounters leave locked disks alone (`flock(2)`, as systemd's block device locking
/// requires).
fn lock(file: &File, path: &Path) -> Result<(), Problem> {
    let until = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(Duration::from_millis(50)),
            outcome => return locked(outcome, path),
        }
    }
}

/// Locks an image's bytes too: virtual machines and FUSE drivers take and respect such locks.
fn lock_bytes(file: &File, path: &Path) -> Result<(), Problem> {
    let until = Instant::now() + LET_GO_WAIT;
    loop {
        match ioctl::lock_bytes(file) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return locked(Err(TryLockError::WouldBlock), path);
            }
            // File systems without such locks.
            Ok(()) | Err(_) => return Ok(()),
        }
    }
}

fn locked(outcome: Result<(), TryLockError>, path: &Path) -> Result<(), Problem> {
    match outcome {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(Problem::new(Kind::Refused, "another program holds a lock on it")
            .drive(path.display().to_string())
            .advice("another dray, a partitioning tool or udev is at work on it: wait, or see who with `fuser -v`")),
        Err(TryLockError::Error(error)) => Err(open_problem(path, &error)),
    }
}

/// Whether the file system accepts direct transfers in units of the image's sectors.
fn accepts_direct(file: &File, sector: SectorSize) -> bool {
    let mut page = Page::new_zeroed();
    let sector = sector.bytes() as usize;
    // The second sector, so that a file system that requires larger blocks reports an error.
    file.read_at(&mut page.as_mut_bytes()[..sector], sector as u64).is_ok()
}

fn is_root() -> bool {
    // The owner of the process's own directory is its effective user.
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

fn open_problem(path: &Path, error: &io::Error) -> Problem {
    let (kind, what, advice) = match error.raw_os_error() {
        Some(libc::ENOENT) => (
            Kind::Usage,
            "does not exist".to_owned(),
            Advice::from("see what is attached with ")
                + Command::Devices
                + "; name drives by serial: or /dev/disk/by-id/, which do not move",
        ),
        // An operation refused to root is forbidden by a container or a security module.
        Some(libc::EACCES | libc::EPERM) if is_root() => (
            Kind::Environment,
            "may not be opened, by root either".to_owned(),
            "a container (device cgroup), a security module or lockdown forbids it: give the container the device, or run outside".into(),
        ),
        Some(libc::EACCES | libc::EPERM) => (
            Kind::Environment,
            "may not be opened".to_owned(),
            "run as root, or as a member of the group that owns the node (usually `disk`)".into(),
        ),
        Some(libc::EBUSY) => (
            Kind::Refused,
            "is in use".to_owned(),
            Advice::from("unmount it and stop what holds it: ")
                + Command::DevicesAll
                + " shows mounts, RAID, LVM and encryption on it",
        ),
        Some(libc::ENOMEDIUM) => {
            (Kind::Refused, "has no medium".to_owned(), "put one in, or take the reader off the list".into())
        }
        Some(libc::EROFS) => (
            Kind::Refused,
            "is read-only".to_owned(),
            "look for a write-protect switch, or a bridge that blocks writes".into(),
        ),
        Some(libc::ENXIO | libc::ENODEV) => (Kind::Drive, "does not answer".to_owned(), "check cable, power and dock".into()),
        _ => (Kind::Drive, format!("cannot be opened: {error}"), "see the kernel's messages with `dmesg`".into()),
    };
    Problem::new(kind, what).drive(path.display().to_string()).advice(advice)
}

/// Longest time from the first error of an unplugged drive to the removal of its node.
const GOING: Duration = Duration::from_secs(1);

/// Whether a drive that has just failed is going away: its node is missing, or disappears within a second.
pub fn is_going(node: &Path) -> bool {
    let until = Instant::now() + GOING;
    loop {
        if fs::metadata(node).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(GOING / 20);
    }
}

/// Whether a drive that has just reported a write past its end was removed: its node is missing, or has size zero.
pub fn is_gone(node: &Path) -> bool {
    let size = File::open(node).and_then(|mut file| file.seek(SeekFrom::End(0)));
    size.map_or(true, |size| size == 0)
}

/// Makes a new image file of `size` bytes, sparse, readable by its owner only.
///
/// # Errors
/// `AlreadyExists` when the file exists; the file system's error, such as a size that it cannot hold.
pub fn create_image(path: &Path, size: ByteLen) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.set_len(size.0).and_then(|()| file.sync_all()).inspect_err(|_| {
        // Ours and empty: nothing is lost.
        let _ = fs::remove_file(path);
    })?;
    read_only(&file, path)
}

/// The same file, opened for reading only: a descriptor opened for writing would itself count as a use.
fn read_only(file: &File, path: &Path) -> io::Result<File> {
    let reading = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    if Node::of(&reading.metadata()?) == Node::of(&file.metadata()?) {
        return Ok(reading);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "another file came into its place"))
}

/// Gives an empty image file its length, sparse.
///
/// # Errors
/// `InvalidInput` when it is another file than `node`, or no longer empty; the file system's error.
pub fn extend_image(path: &Path, size: ByteLen, node: &Node) -> io::Result<File> {
    let file = OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    let meta = file.metadata()?;
    if Node::of(&meta) != *node {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "another file came into its place"));
    }
    if meta.len() > 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the file is not empty any more"));
    }
    file.set_len(size.0).and_then(|()| file.sync_all())?;
    read_only(&file, path)
}

#[cfg(test)]
mod tests {
    use super::super::{Transport, guard, signature};
    use super::*;
    use std::process::Command;
    use std::sync::atomic::{AtomicU32, Ordering};

    struct Image(PathBuf);

    impl Image {
        fn new(bytes: &[u8]) -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let name = format!("dray-open-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            fs::write(&path, bytes).unwrap();
            Self(path)
        }
    }

    impl Drop for Image {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    /// A loop device, detached on drop.
    struct Loop(PathBuf);

    impl Loop {
        fn new(image: &Image, args: &[&str]) -> Option<Self> {
            let output = Command::new("losetup").args(["-f", "--show"]).args(args).arg(&image.0).output();
            match output {
                Ok(output) if output.status.success() => {
                    Some(Self(PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())))
                }
                _ => {
                    eprintln!("SKIPPED: no loop device can be had here");
                    None
                }
            }
        }
    }

    impl Drop for Loop {
        fn drop(&mut self) {
            let _ = Command::new("losetup").arg("-d").arg(&self.0).status();
        }
    }

    #[test]
    fn a_node_that_goes_a_moment_later_is_going() {
        let image = Image::new(&[0; 512]);
        assert!(!is_going(&image.0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(GOING / 10);
                fs::remove_file(&image.0).unwrap();
            });
            assert!(is_going(&image.0));
        });
    }

    #[test]
    fn any_range_of_an_image_is_read() {
        let bytes: Vec<u8> = (0..600_000_u32).map(|n| (n * 7 / 3) as u8).collect();
        let image = Image::new(&bytes);
        let device = Device::open(&image.0, Access::Read).unwrap();
        assert!(device.is_image());
        assert_eq!(device.identity().transport, Transport::Image);
        // The last, broken sector does not count.
        assert_eq!(device.geometry().size, ByteLen(600_000 / 512 * 512));
        for (at, len) in [(0, 1), (511, 2), (4095, 4098), (1000, 500_000), (599_551, 1), (0, 599_552)] {
            let mut into = vec![0; len];
            device.read_exact_at(&mut into, DeviceOffset(at as u64)).unwrap();
            assert!(into == bytes[at..at + len], "{len} at {at}");
        }
        let past = device.read_exact_at(&mut [0; 2], DeviceOffset(599_551)).unwrap_err();
        assert_eq!(past.kind(), io::ErrorKind::UnexpectedEof);
        assert!(device.read_exact_at(&mut [0; 2], DeviceOffset(u64::MAX - 1)).is_err());
    }

    #[test]
    fn looking_cannot_write_and_taking_is_exclusive() {
        let image = Image::new(&[1; 8192]);
        let looking = Device::open(&image.0, Access::Read).unwrap();
        assert!(looking.target().file.write_at(&[2; 512], 0).is_err());
        let taken = Device::open(&image.0, Access::Claim).unwrap();
        let refused = Device::open(&image.0, Access::Claim).unwrap_err();
        assert_eq!(refused.kind, Kind::Refused);
        assert!(refused.what.contains("lock"), "{refused}");
        drop(taken);
        Device::open(&image.0, Access::Claim).unwrap();
    }

    #[test]
    fn what_is_no_drive_is_refused_with_advice() {
        let (refused, slip) = (Kind::Refused, Kind::Usage);
        for (path, kind) in [("/dev/null", refused), ("/proc", refused), ("/dev/this-is-not-there", slip)] {
            let problem = Device::open(Path::new(path), Access::Claim).unwrap_err();
            assert_eq!(problem.kind, kind, "{path}");
            assert!(problem.advice.is_some());
        }
    }

    #[test]
    fn images_are_made_new_private_and_only_ever_longer() {
        use std::os::unix::fs::PermissionsExt;
        let image = Image::new(b"");
        assert_eq!(create_image(&image.0, ByteLen(1)).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        fs::remove_file(&image.0).unwrap();
        create_image(&image.0, ByteLen(4 << 40)).unwrap();
        let meta = fs::metadata(&image.0).unwrap();
        assert_eq!((meta.len(), meta.permissions().mode() & 0o777, meta.blocks()), (4 << 40, 0o600, 0));
        // An empty one gets its length, and only the one that was meant.
        let node = Node::of(&meta);
        assert_eq!(extend_image(&image.0, ByteLen(1), &node).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let empty = Image::new(b"");
        let refused = extend_image(&empty.0, ByteLen(4096), &node).unwrap_err();
        assert!(refused.to_string().contains("another file"), "{refused}");
        let node = Node::of(&fs::metadata(&empty.0).unwrap());
        extend_image(&empty.0, ByteLen(4096), &node).unwrap();
        assert_eq!(fs::metadata(&empty.0).unwrap().len(), 4096);
        let device = Device::open(&image.0, Access::Claim).unwrap();
        assert!(signature::scan(&device).unwrap().is_blank());
        assert!(device.discard(DeviceRange::new(1 << 40, 1 << 40)).unwrap());
        device.drop_caches().unwrap();
    }

    #[test]
    fn a_loop_device_has_its_sectors_and_is_held_by_one() {
        for (args, sector) in [(&["-b", "512"], SectorSize::S512), (&["-b", "4096"], SectorSize::S4096)] {
            let image = Image::new(&vec![0; 16 << 20]);
            let Some(node) = Loop::new(&image, args) else { return };
            let looking = Device::open(&node.0, Access::Read).unwrap();
            assert_eq!((looking.geometry().size, looking.geometry().sector), (ByteLen(16 << 20), sector));
            assert_eq!(looking.identity().transport, Transport::Loop);
            assert!(looking.is_direct());
            assert_eq!(guard::check(&looking, &guard::Context::default()), []);
            let taken = Device::open(&node.0, Access::Claim).unwrap();
            assert_eq!(looking.identity().change_to(taken.identity()), None);
            let refused = Device::open(&node.0, Access::Claim).unwrap_err();
            assert!(refused.what.contains("in use"), "{refused}");
            let reported = guard::check(&looking, &guard::Context::default());
            assert!(reported.len() == 1 && reported[0].what.contains("holds it exclusively"), "{reported:?}");
            // The image below it is refused as well.
            let image = Device::open(&image.0, Access::Read).unwrap();
            let problems = guard::check(&image, &guard::Context::default());
            assert!(problems.iter().any(|problem| problem.what.contains("loop device")), "{problems:?}");
            let mut last = [1; 100];
            taken.read_exact_at(&mut last, DeviceOffset((16 << 20) - 100)).unwrap();
            assert_eq!(last, [0; 100]);
            taken.reread_partitions().unwrap();
            taken.drop_caches().unwrap();
            assert!(taken.discard(DeviceRange::new(1 << 20, 1 << 20)).is_ok());
            taken.flush().unwrap();
        }
    }

    #[test]
    fn a_mounted_loop_device_is_refused_at_both_gates() {
        let image = Image::new(&vec![0; 16 << 20]);
        let made = Command::new("/usr/sbin/mkfs.ext4").args(["-q", "-F"]).arg(&image.0).output();
        let Some(node) = made.ok().filter(|output| output.status.success()).and_then(|_| Loop::new(&image, &[])) else {
            eprintln!("SKIPPED: no ext4 on a loop device can be had here");
            return;
        };
        let point = image.0.with_extension("mnt");
        fs::create_dir(&point).unwrap();
        let mounted = Command::new("mount").arg(&node.0).arg(&point).output().unwrap();
        if mounted.status.success() {
            let device = Device::open(&node.0, Access::Read).unwrap();
            let context =
                guard::Context { sources: vec![point.clone()], journal: Some(point.join("x.jrn")), logs: None };
            let reported: Vec<_> = guard::check(&device, &context).into_iter().map(|problem| problem.what).collect();
            let refused = Device::open(&node.0, Access::Claim).map(drop);
            assert!(Command::new("umount").arg(&point).status().unwrap().success());
            assert_eq!(
                reported,
                ["is mounted", "holds a source of this session", "holds the journal of this session"]
                    .map(str::to_owned)
            );
            assert!(refused.unwrap_err().what.contains("in use"));
        } else {
            eprintln!("SKIPPED: mounting is not allowed here");
        }
        fs::remove_dir(&point).unwrap();
    }

    #[test]
    fn the_disk_under_the_root_file_system_is_refused() {
        let root = fs::metadata("/").unwrap().dev();
        let number = format!("{}:{}", libc::major(root), libc::minor(root));
        let Ok(sysfs) = fs::canonicalize(Path::new("/sys/dev/block").join(number)) else {
            eprintln!("SKIPPED: the root file system is on no block device");
            return;
        };
        let node = Path::new("/dev").join(sysfs.file_name().unwrap());
        // Opened for reading only.
        let Ok(device) = Device::open(&node, Access::Read) else {
            eprintln!("SKIPPED: {} may not be read", node.display());
            return;
        };
        let problems = guard::check(&device, &guard::Context::default());
        assert!(problems.iter().any(|problem| problem.what.contains("root file system")), "{problems:?}");
    }
}
