//! The gates in front of destruction: each refusal is a sentence of its own, with the remedy.
//!
//! Signatures on the disk are examined elsewhere; see [`super::signature`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::geometry::{Geometry, Zoned, attribute};
use super::usage::{self, Attached, Use, unescape};
use super::{Access, Device, DeviceKind, Identity, Node, Roots, Transport, identity};
use crate::advice::{Advice, Command, Setting};
use crate::problem::{Kind, Problem};
use crate::units::SectorSize;

/// Files and directories that must not be on the drive.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// Source files and directories.
    pub sources: Vec<PathBuf>,
    /// The journal, drive records and checkpoints.
    pub journal: Option<PathBuf>,
    /// The log directory.
    pub logs: Option<PathBuf>,
}

/// All reasons not to write to the device; empty when there is none.
///
/// Needs no exclusive access: at planning the device is open for reading, so that all problems are reported together.
pub fn check(device: &Device, context: &Context) -> Vec<Problem> {
    let subject = match device.kind() {
        DeviceKind::Image => Subject::Image { path: device.path(), node: device.node() },
        DeviceKind::Block { number, sysfs, partition_of } => {
            Subject::Block { number: *number, sysfs, partition_of: partition_of.as_deref() }
        }
    };
    let drive = device.path().display().to_string();
    let mut problems = Vec::new();
    let mut refuse = |what: String, value: Option<String>, advice: Advice| {
        let mut problem = Problem::new(Kind::Refused, what).drive(drive.clone()).advice(advice);
        problem.value = value;
        problems.push(problem);
    };
    if device.geometry().size.0 == 0 && !device.is_image() {
        refuse(
            "has no size: no medium, or a drive that does not answer".into(),
            None,
            "check medium, cable, power and dock".into(),
        );
    }
    if device.is_read_only() {
        refuse(
            "is read-only".into(),
            None,
            "look for a write-protect switch, a bridge that blocks writes, or `chmod u+w` an image file".into(),
        );
    }
    if device.geometry().zoned == Zoned::HostManaged {
        refuse(
            "is a host-managed zoned drive, which takes writes in its own order only".into(),
            None,
            "use an ordinary drive; the service could not read this one either".into(),
        );
    }
    check_subject(&subject, context, device.roots(), &mut refuse);
    // A user of the disk that these tables do not show (a btrfs or ZFS pool, a virtual machine) holds it
    // exclusively. At the claim our own hold would be found.
    if problems.is_empty() && device.access() == Access::Read && device.is_held() {
        problems.push(held(device.path(), device.roots()));
    }
    if problems.is_empty()
        && let Some(by) = device.used_by()
    {
        problems.push(used(device.path(), by));
    }
    problems
}

/// Reasons not to write to a disk according to the kernel's tables alone: mounts, swap space, holders. Needs no
/// privilege.
pub fn check_closed(disk: &super::Disk, roots: &Roots) -> Vec<Problem> {
    let sysfs = roots.sys.join("block").join(&disk.name);
    let subject = Subject::Block { number: number_of(&sysfs), sysfs: &sysfs, partition_of: None };
    let mut problems = Vec::new();
    check_subject(&subject, &Context::default(), roots, &mut |what, value, advice| {
        let mut problem = Problem::new(Kind::Refused, what).drive(disk.path.display().to_string()).advice(advice);
        problem.value = value;
        problems.push(problem);
    });
    problems
}

/// The refusal of a device that is held exclusively, naming the processes that have it open.
pub(super) fn held(path: &Path, roots: &Roots) -> Problem {
    let users = users(path, roots);
    let users: Vec<String> = users.into_iter().take(USERS_MAX).map(|(id, name)| format!("{name} (pid {id})")).collect();
    let advice = match users.first() {
        Some(first) => format!("end what uses it ({first}), or wait for it").into(),
        None => Advice::from("unmount it and stop what holds it: ") + Command::DevicesAll + " shows what stands on it",
    };
    let mut problem = Problem::new(Kind::Refused, "is in use: something holds it exclusively")
        .drive(path.display().to_string())
        .advice(advice);
    problem.value = (!users.is_empty()).then(|| users.join(", "));
    problem
}

/// The refusal of a device or file in use.
fn used(path: &Path, by: Use) -> Problem {
    let (what, value, advice) = match by {
        Use::Processes(names) => (
            "is in use: another process has it open for writing, or has made a file system of it",
            Some(names.join(", ")),
            "end what uses it, or wait for it",
        ),
        Use::Lock(owner) => (
            "is in use: another program holds a lock on it",
            owner,
            "end what uses it (a virtual machine, a FUSE driver, another dray), or wait for it: `lslocks` shows locks",
        ),
        Use::Unseen => (
            "is in use: it is open for writing somewhere that cannot be seen from here",
            None,
            "look for a container, a virtual machine or a network export that has it: `fuser -v` as root on the host",
        ),
    };
    let mut problem = Problem::new(Kind::Refused, what).drive(path.display().to_string()).advice(advice);
    problem.value = value;
    problem
}

/// Other processes that have the node open, as far as this one may look, and their names.
pub(super) fn users(path: &Path, roots: &Roots) -> BTreeMap<u32, String> {
    let Ok(node) = fs::metadata(path).map(|meta| Node::of(&meta)) else { return BTreeMap::new() };
    usage::users(&node, roots).into_iter().map(|(id, user)| (id, user.name)).collect()
}

/// Processes that are named before the list is cut.
const USERS_MAX: usize = 5;

/// Mount points of the device and of everything on it.
pub fn mounted(device: &DeviceKind, roots: &Roots) -> Vec<PathBuf> {
    let DeviceKind::Block { number, sysfs, .. } = device else { return Vec::new() };
    let tree = Tree::of(*number, sysfs, roots);
    let on_it = |mount: &Mount| tree.numbers.contains(&mount.number) || tree.has_node(&mount.source, roots);
    mounts(roots).into_iter().filter(on_it).map(|mount| mount.point).collect()
}

/// Reasons why the service would not accept the drive: it takes drives with 512-byte logical sectors.
pub fn shipping(identity: &Identity) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut refuse = |what: &str, value: String, advice: Advice| {
        problems.push(Problem::new(Kind::Refused, what).value(value).advice(advice));
    };
    if !identity.transport.is_hardware() {
        let advice = "only a drive of its own can go into a parcel; it is prepared all the same, for trying out".into();
        refuse("is no drive that can be shipped", identity.transport.name().to_owned(), advice);
        return problems;
    }
    if identity.sector != SectorSize::S512 {
        let advice = Advice::from("the service takes drives with 512-byte logical sectors (512n or 512e); say ")
            + Setting::NotForShipping
            + " to prepare it all the same";
        refuse(
            "has logical sectors that the service does not take",
            format!("{} bytes", identity.sector.bytes()),
            advice,
        );
    }
    problems
}

/// Whether the service would accept the drive in a parcel: it takes 2.5" and 3.5" SATA drives, each identified by its
/// own serial.
pub fn is_shippable(identity: &Identity) -> bool {
    let kind = !matches!(identity.transport, Transport::Nvme | Transport::Mmc);
    kind && identity.serial.is_some() && shipping(identity).is_empty()
}

/// Warnings about the drive that are no refusals.
pub fn cautions(identity: &Identity, geometry: &Geometry) -> Vec<Problem> {
    let mut cautions = Vec::new();
    if identity.transport == Transport::Usb {
        cautions.push(
            Problem::new(Kind::Refused, "is attached by USB").advice(
                "docks and bridges are fine for preparing; the service takes no enclosures: ship the bare drive",
            ),
        );
    }
    if matches!(identity.transport, Transport::Nvme | Transport::Mmc) {
        cautions.push(
            Problem::new(Kind::Refused, "is of a kind that the service does not take")
                .value(identity.transport.name())
                .advice("the service takes 2.5\" and 3.5\" SATA drives; this one cannot be shipped"),
        );
    }
    if identity.transport.is_hardware() && identity.serial.is_none() {
        let known = identity.bridge_serial.as_deref();
        cautions.push(
            Problem::new(Kind::Refused, "does not report its own serial, which the service compares with the manifest")
                .value(known.map_or("none".to_owned(), |serial| format!("{serial}, the bridge's own")))
                .advice(
                    Advice::from("attach it to a SATA port, or give the serial printed on its label: ")
                        + Setting::DriveId,
                ),
        );
    }
    if geometry.zoned == Zoned::HostAware {
        cautions.push(Problem::new(Kind::Refused, "is a shingled drive").advice("expect it to slow down"));
    }
    cautions
}

/// Other attached disks that report the same serial as the open one: the serial does not tell them apart.
pub fn twins(device: &Device) -> Vec<PathBuf> {
    let DeviceKind::Block { number, sysfs, .. } = device.kind() else { return Vec::new() };
    let Some(serial) = device.identity().known_serial() else { return Vec::new() };
    twins_of(serial, &Tree::of(*number, sysfs, device.roots()), device.roots())
}

fn twins_of(serial: &str, tree: &Tree, roots: &Roots) -> Vec<PathBuf> {
    identity::list(roots)
        .into_iter()
        .filter(|disk| disk.identity.known_serial() == Some(serial) && !tree.names.contains(&disk.name))
        .filter(|disk| disk.identity.transport.is_hardware())
        .map(|disk| disk.path)
        .collect()
}

/// Subject of the checks, separate from an open device, so that they can be tested on a simulated machine.
enum Subject<'a> {
    Block { number: (u32, u32), sysfs: &'a Path, partition_of: Option<&'a str> },
    Image { path: &'a Path, node: &'a Node },
}

type Refuse<'a> = dyn FnMut(String, Option<String>, Advice) + 'a;

fn check_subject(subject: &Subject<'_>, context: &Context, roots: &Roots, refuse: &mut Refuse<'_>) {
    match subject {
        Subject::Block { number, sysfs, partition_of } => {
            if let Some(disk) = partition_of {
                refuse(
                    "is a partition, not a whole disk".into(),
                    None,
                    format!("name the whole disk, {}", roots.dev.join(disk).display()).into(),
                );
            }
            let tree = Tree::of(*number, sysfs, roots);
            check_tree(&tree, context, roots, refuse);
            check_loops_of_block(*number, &tree, roots, refuse);
        }
        Subject::Image { path, node } => check_image(path, node, context, roots, refuse),
    }
}

/// A disk with everything on top of it: partitions, and their holders, up to the last.
#[derive(Debug, Default)]
struct Tree {
    numbers: BTreeSet<(u32, u32)>,
    names: BTreeSet<String>,
    /// Each holder with the device it holds.
    holders: Vec<(String, String)>,
}

/// Deepest stack of holders that is followed; device-mapper allows no cycles, a made-up sysfs might.
const DEPTH_MAX: usize = 16;

impl Tree {
    fn of(device: (u32, u32), sysfs: &Path, roots: &Roots) -> Self {
        let mut tree = Self::default();
        tree.numbers.insert(device);
        tree.add(sysfs, roots, 0);
        tree
    }

    fn add(&mut self, dir: &Path, roots: &Roots, depth: usize) {
        let Some(name) = dir.file_name().map(|name| name.to_string_lossy().into_owned()) else { return };
        if depth > DEPTH_MAX || !self.names.insert(name.clone()) {
            return;
        }
        if let Some(device) = attribute(dir, "dev").as_deref().and_then(parse_number) {
            self.numbers.insert(device);
        }
        for entry in fs::read_dir(dir.join("holders")).into_iter().flatten().flatten() {
            let holder = entry.file_name().to_string_lossy().into_owned();
            self.holders.push((holder.clone(), name.clone()));
            self.add(&roots.sys.join("block").join(holder), roots, depth + 1);
        }
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let part = entry.path();
            if part.join("partition").exists() {
                self.add(&part, roots, depth + 1);
            }
        }
    }

    /// Whether a path under `/dev`, as tables of the kernel name it, is part of the tree.
    fn has_node(&self, node: &str, roots: &Roots) -> bool {
        let Some(below) = node.strip_prefix("/dev/") else { return false };
        let below = below.replace('/', "!");
        // Names such as /dev/mapper/x are links to the node.
        let real = fs::canonicalize(roots.dev.join(node.trim_start_matches("/dev/")));
        let real = real.ok().and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()));
        self.names.contains(&below) || real.is_some_and(|name| self.names.contains(&name))
    }

    fn has_mount(&self, mount: &Mount, roots: &Roots) -> bool {
        self.numbers.contains(&mount.number) || self.has_node(&mount.source, roots)
    }
}

fn parse_number(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// One line of `/proc/self/mountinfo`.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    number: (u32, u32),
    point: PathBuf,
    kind: String,
    source: String,
}

/// Fields as proc(5) gives them: id, parent, device, root, mount point, options, …, `-`, type, source, options.
fn parse_mounts(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
            let dash = fields.iter().skip(6).position(|field| *field == b"-")? + 6;
            let number = parse_number(std::str::from_utf8(fields.get(2)?).ok()?)?;
            let point = unescape(fields.get(4)?);
            let kind = String::from_utf8_lossy(fields.get(dash + 1)?).into_owned();
            let source = String::from_utf8_lossy(&unescape(fields.get(dash + 2)?)).into_owned();
            Some(Mount { number, point: PathBuf::from(std::ffi::OsStr::from_bytes(&point)), kind, source })
        })
        .collect()
}

fn mounts(roots: &Roots) -> Vec<Mount> {
    parse_mounts(&fs::read(roots.proc.join("self/mountinfo")).unwrap_or_default())
}

fn check_tree(tree: &Tree, context: &Context, roots: &Roots, refuse: &mut Refuse<'_>) {
    let mounts = mounts(roots);
    check_mounts(tree, &mounts, roots, refuse);
    check_swaps(tree, roots, refuse);
    check_holders(tree, roots, refuse);
    check_session(tree, &mounts, (context, roots), refuse);
}

fn check_mounts(tree: &Tree, mounts: &[Mount], roots: &Roots, refuse: &mut Refuse<'_>) {
    let points: BTreeSet<_> =
        mounts.iter().filter(|mount| tree.has_mount(mount, roots)).map(|mount| mount.point.clone()).collect();
    if points.contains(Path::new("/")) {
        refuse(
            "holds the root file system of this machine".into(),
            None,
            Advice::from("look again at which disk you mean: ") + Command::Devices,
        );
    }
    let others: Vec<_> =
        points.iter().filter(|point| *point != Path::new("/")).map(|point| point.display().to_string()).collect();
    if let Some(first) = others.first() {
        refuse("is mounted".into(), Some(others.join(", ")), format!("unmount it: umount {first}").into());
    }
}

fn check_swaps(tree: &Tree, roots: &Roots, refuse: &mut Refuse<'_>) {
    let swaps = usage::swaps(roots).into_iter().filter(|(path, node)| {
        let named = path.to_str().is_some_and(|name| tree.has_node(name, roots));
        let on_it = |number: u64| tree.numbers.contains(&(libc::major(number), libc::minor(number)));
        named
            || match node {
                Some(Node::Block { number }) => on_it(*number),
                Some(Node::File { device, .. }) => on_it(*device),
                _ => false,
            }
    });
    let swaps: Vec<String> = swaps.map(|(path, _)| path.display().to_string()).collect();
    if let Some(first) = swaps.first() {
        refuse("is in use as swap space".into(), Some(swaps.join(", ")), format!("swapoff {first}").into());
    }
}

fn check_holders(tree: &Tree, roots: &Roots, refuse: &mut Refuse<'_>) {
    for (holder, held) in &tree.holders {
        let dir = roots.sys.join("block").join(holder);
        let title = attribute(&dir, "dm/name").unwrap_or_else(|| holder.clone());
        let uuid = attribute(&dir, "dm/uuid").unwrap_or_default();
        let (what, advice): (&str, Advice) = if holder.starts_with("md") {
            (
                "is part of a RAID array",
                format!("stop the array if it is not needed: mdadm --stop /dev/{holder}").into(),
            )
        } else if uuid.starts_with("LVM-") {
            ("is part of an LVM volume group", "deactivate the group if it is not needed: vgchange -an".into())
        } else if uuid.starts_with("CRYPT-") {
            ("is open as an encrypted volume", format!("close it: cryptsetup close {title}").into())
        } else if uuid.starts_with("mpath-") {
            ("is a path of a multipath device", format!("flush the map: multipath -f {title}").into())
        } else if holder.starts_with("dm-") {
            (
                "is held by device-mapper",
                format!("remove the mapping if it is not needed: dmsetup remove {title}").into(),
            )
        } else {
            (
                "is held by another device",
                Advice::from("see what stands on it with ") + Command::DevicesAll + ", and stop that",
            )
        };
        refuse(what.into(), Some(format!("{title} on {held}")), advice);
    }
}

/// Nothing of the session itself lies on the drive: sources, journal, logs.
fn check_session(tree: &Tree, mounts: &[Mount], (context, roots): (&Context, &Roots), refuse: &mut Refuse<'_>) {
    let lies_on_it = |path: &Path| {
        let Some(path) = nearest(path) else { return false };
        let Some(device) = device_of(&path) else { return false };
        // File systems with device numbers of their own (btrfs) are identified by the source of their mount.
        tree.numbers.contains(&device)
            || mounts
                .iter()
                .filter(|mount| mount.number == device || path.starts_with(&mount.point))
                .max_by_key(|mount| (mount.point.as_os_str().len(), mount.number == device))
                .is_some_and(|mount| tree.has_mount(mount, roots))
    };
    for source in context.sources.iter().filter(|path| lies_on_it(path)) {
        refuse(
            "holds a source of this session".into(),
            Some(source.display().to_string()),
            "a drive cannot be filled from itself".into(),
        );
    }
    if let Some(journal) = context.journal.as_deref().filter(|path| lies_on_it(path)) {
        refuse(
            "holds the journal of this session".into(),
            Some(journal.display().to_string()),
            "keep the journal on another disk".into(),
        );
    }
    if let Some(logs) = context.logs.as_deref().filter(|path| lies_on_it(path)) {
        refuse(
            "holds the logs of this session".into(),
            Some(logs.display().to_string()),
            "keep the logs on another disk".into(),
        );
    }
}

/// A loop device on the target, and everything on top of that loop device.
fn refuse_loop(what: &str, attached: &Attached, roots: &Roots, refuse: &mut Refuse<'_>) {
    let Attached { name, path, .. } = attached;
    let advice = format!("detach it: losetup -d /dev/{name}");
    refuse(what.into(), Some(format!("/dev/{name}, as {}", path.display())), advice.into());
    // Mounts from it get a refusal of their own; the rest follows from detaching.
    let tree = Tree::of(number_of(&attached.sysfs), &attached.sysfs, roots);
    check_tree(&tree, &Context::default(), roots, refuse);
}

/// Loop devices on a disk or its partitions, and those on the file below a loop device.
fn check_loops_of_block(number: (u32, u32), tree: &Tree, roots: &Roots, refuse: &mut Refuse<'_>) {
    let own = libc::makedev(number.0, number.1);
    let loops = usage::loops(roots);
    let below = loops.iter().find(|one| one.number == own);
    for one in loops.iter().filter(|one| one.number != own) {
        let stands_on_it = matches!(one.backing, Some(Node::Block { number })
            if tree.numbers.contains(&(libc::major(number), libc::minor(number))));
        if stands_on_it {
            refuse_loop("is attached to a loop device", one, roots, refuse);
        }
        let is_beside = below.is_some_and(|below| {
            one.backing.is_some() && one.backing == below.backing && one.first <= below.last && below.first <= one.last
        });
        if is_beside {
            refuse_loop("shares its file with another loop device", one, roots, refuse);
        }
    }
    // The kernel itself holds the file below; other users of it are found by its number.
    if let Some(node @ Node::File { .. }) = below.and_then(|below| below.backing.as_ref()) {
        if let Some((path, _)) = usage::swaps(roots).into_iter().find(|(_, swap)| swap.as_ref() == Some(node)) {
            refuse(
                "lies on a swap file".into(),
                Some(path.display().to_string()),
                "swapoff it, or name another device".into(),
            );
        }
        let mut users = usage::users(node, roots);
        users.retain(|_, user| user.writes || user.serves);
        if !users.is_empty() {
            let names = usage::named(&users).join(", ");
            refuse(
                "lies on a file that another process writes to".into(),
                Some(names),
                "end what uses the file".into(),
            );
        }
    }
}

fn check_image(path: &Path, node: &Node, context: &Context, roots: &Roots, refuse: &mut Refuse<'_>) {
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    for one in usage::loops(roots) {
        // Its name is a witness only where its numbers cannot be had: it may be of another namespace.
        let is_it = one.backing.as_ref().map_or(one.path == real, |backing| backing == node);
        if is_it {
            refuse_loop("is attached to a loop device", &one, roots, refuse);
        }
    }
    // A FUSE driver names the image that it was given as the source of its mount.
    let is_mounted = |mount: &&Mount| {
        mount.kind.starts_with("fuse")
            && Path::new(&mount.source).is_absolute()
            && fs::metadata(&mount.source).is_ok_and(|meta| Node::of(&meta) == *node)
    };
    if let Some(mount) = mounts(roots).iter().find(is_mounted) {
        let point = mount.point.display().to_string();
        refuse("is mounted".into(), Some(point.clone()), format!("unmount it: fusermount -u {point}").into());
    }
    let is_swap = |(path, swap): &(PathBuf, Option<Node>)| *path == real || swap.as_ref() == Some(node);
    if let Some((path, _)) = usage::swaps(roots).iter().find(|swap| is_swap(swap)) {
        let value = Some(path.display().to_string());
        refuse("is in use as swap space".into(), value, "swapoff it, or name another file".into());
    }
    check_place(&real, context, refuse);
}

/// Reasons not to have an image at this place, whether it exists or not.
fn check_place(place: &Path, context: &Context, refuse: &mut Refuse<'_>) {
    for source in &context.sources {
        if is_inside(place, source) {
            refuse(
                "lies inside a source of this session".into(),
                Some(source.display().to_string()),
                "keep the image outside: it would be copied into itself".into(),
            );
        }
    }
}

/// Reasons not to create an image file: the place is checked like that of an existing file in [`check`].
pub fn check_new(path: &Path, context: &Context) -> Vec<Problem> {
    let (parent, name) = (path.parent().unwrap_or(Path::new("/")), path.file_name().unwrap_or_default());
    let place = fs::canonicalize(parent).unwrap_or_else(|_| parent.to_owned()).join(name);
    let mut problems = Vec::new();
    check_place(&place, context, &mut |what, value, advice| {
        let mut problem = Problem::new(Kind::Refused, what).drive(path.display().to_string()).advice(advice);
        problem.value = value;
        problems.push(problem);
    });
    problems
}

/// Whether a path is a source or below one, by whatever names the directories between are reached.
fn is_inside(path: &Path, source: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let real = fs::canonicalize(source).unwrap_or_else(|_| source.to_owned());
    let wanted = identity(&real);
    path.ancestors().any(|above| above == real || wanted.is_some() && identity(above) == wanted)
}

/// The device number in a sysfs directory; an impossible pair when there is none.
fn number_of(dir: &Path) -> (u32, u32) {
    attribute(dir, "dev").as_deref().and_then(parse_number).unwrap_or((0, 0))
}

/// The path itself, or the closest existing directory above it.
fn nearest(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    path.ancestors().find_map(|path| fs::canonicalize(path).ok())
}

fn device_of(path: &Path) -> Option<(u32, u32)> {
    let device = fs::metadata(path).ok()?.dev();
    Some((libc::major(device), libc::minor(device)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A simulated machine.
    struct Machine {
        dir: PathBuf,
        roots: Roots,
    }

    impl Machine {
        /// `sda` with two partitions, `sdb` bare, nothing mounted.
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let name = format!("dray-guard-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let dir = std::env::temp_dir().join(name);
            let roots = Roots { sys: dir.join("sys"), proc: dir.join("proc"), dev: dir.join("dev") };
            let machine = Self { dir, roots };
            machine.put("proc/self/mountinfo", "");
            machine.put("proc/swaps", "Filename Type Size Used Priority\n");
            machine.put("dev/null", "");
            machine.put("sys/block/sda/dev", "8:0\n");
            machine.put("sys/block/sda/size", "1000\n");
            for part in 1..=2 {
                machine.put(&format!("sys/block/sda/sda{part}/dev"), &format!("8:{part}\n"));
                machine.put(&format!("sys/block/sda/sda{part}/partition"), &format!("{part}\n"));
            }
            machine.put("sys/block/sdb/dev", "8:16\n");
            machine.put("sys/block/sdb/size", "0\n");
            machine
        }

        fn put(&self, path: &str, text: &str) {
            let path = self.dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn reported(&self, name: &str, number: (u32, u32), context: &Context) -> Vec<String> {
            let sysfs = self.roots.sys.join("block").join(name);
            let subject = Subject::Block { number, sysfs: &sysfs, partition_of: None };
            self.told_of(&subject, context)
        }

        fn told_of(&self, subject: &Subject<'_>, context: &Context) -> Vec<String> {
            let mut reported = Vec::new();
            check_subject(subject, context, &self.roots, &mut |what, value, advice| {
                assert!(!advice.0.is_empty());
                reported.push(format!("{what}: {}", value.unwrap_or_default()));
            });
            reported
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }

    #[test]
    fn a_free_disk_passes() {
        let machine = Machine::new();
        let none = Context { sources: vec!["/proc".into()], ..Context::default() };
        assert_eq!(machine.reported("sda", (8, 0), &none), Vec::<String>::new());
    }

    #[test]
    fn a_disk_that_may_not_be_opened_still_tells_what_it_is_used_for() {
        let machine = Machine::new();
        machine.put("proc/self/mountinfo", "36 35 8:2 / / rw - ext4 /dev/sda2 rw\n");
        let closed = |name: &str| {
            let identity = Identity::of_image(crate::units::ByteLen(1 << 30), SectorSize::S512);
            let disk = super::super::Disk { name: name.into(), path: machine.roots.dev.join(name), identity };
            check_closed(&disk, &machine.roots).into_iter().map(|problem| problem.what).collect::<Vec<_>>()
        };
        assert_eq!(closed("sda"), ["holds the root file system of this machine"]);
        assert_eq!(closed("sdb"), Vec::<String>::new());
    }

    #[test]
    fn a_mounted_partition_refuses_its_disk_only() {
        let machine = Machine::new();
        machine.put(
            "proc/self/mountinfo",
            "36 35 8:2 / /mnt/my\\040data rw,noatime shared:1 - ext4 /dev/sda2 rw\n37 35 0:40 / /proc rw - proc proc rw\n",
        );
        assert_eq!(machine.reported("sda", (8, 0), &Context::default()), ["is mounted: /mnt/my data"]);
        assert_eq!(machine.reported("sdb", (8, 16), &Context::default()), Vec::<String>::new());
    }

    #[test]
    fn a_file_system_with_its_own_numbers_is_known_by_its_source() {
        let machine = Machine::new();
        machine.put("proc/self/mountinfo", "36 35 0:55 /@ / rw - btrfs /dev/sda1 rw\n");
        assert_eq!(
            machine.reported("sda", (8, 0), &Context::default()),
            ["holds the root file system of this machine: "]
        );
    }

    #[test]
    fn what_stands_on_a_partition_is_followed_to_the_top() {
        let machine = Machine::new();
        machine.put("sys/block/sda/sda1/holders/dm-0/x", "");
        machine.put("sys/block/dm-0/dev", "253:0\n");
        machine.put("sys/block/dm-0/dm/name", "secret\n");
        machine.put("sys/block/dm-0/dm/uuid", "CRYPT-LUKS2-aa-secret\n");
        machine.put("sys/block/dm-0/holders/dm-1/x", "");
        machine.put("sys/block/dm-1/dev", "253:1\n");
        machine.put("sys/block/dm-1/dm/name", "vg-home\n");
        machine.put("sys/block/dm-1/dm/uuid", "LVM-abc\n");
        machine.put("sys/block/sda/holders/md127/x", "");
        machine.put("proc/self/mountinfo", "36 35 253:1 / /home rw - xfs /dev/mapper/vg-home rw\n");
        let reported = machine.reported("sda", (8, 0), &Context::default());
        assert_eq!(
            reported,
            [
                "is mounted: /home",
                "is part of a RAID array: md127 on sda",
                "is open as an encrypted volume: secret on sda1",
                "is part of an LVM volume group: vg-home on dm-0",
            ]
        );
    }

    #[test]
    fn swap_on_a_partition_and_through_a_link_is_found() {
        let machine = Machine::new();
        machine.put(
            "proc/swaps",
            "Filename Type Size Used Priority\n/dev/sda1 partition 1 0 -2\n/dev/mapper/vg-swap partition 1 0 -3\n",
        );
        machine.put("sys/block/sda/sda2/holders/dm-3/x", "");
        machine.put("sys/block/dm-3/dev", "253:3\n");
        machine.put("dev/dm-3", "");
        fs::create_dir_all(machine.dir.join("dev/mapper")).unwrap();
        std::os::unix::fs::symlink("../dm-3", machine.dir.join("dev/mapper/vg-swap")).unwrap();
        let reported = machine.reported("sda", (8, 0), &Context::default());
        assert!(
            reported.contains(&"is in use as swap space: /dev/sda1, /dev/mapper/vg-swap".to_owned()),
            "{reported:?}"
        );
    }

    #[test]
    fn sources_journal_and_logs_are_not_overwritten() {
        let machine = Machine::new();
        // The made-up disk gets the numbers of the file system that this test runs on.
        let number = device_of(&machine.dir).unwrap();
        machine.put("sys/block/sda/sda2/dev", &format!("{}:{}\n", number.0, number.1));
        let context = Context {
            sources: vec![machine.dir.clone(), "/proc".into()],
            journal: Some(machine.dir.join("not/yet/there.jrn")),
            logs: Some(machine.dir.clone()),
        };
        let reported = machine.reported("sda", (8, 0), &context);
        assert_eq!(reported.len(), 3, "{reported:?}");
        assert!(reported[0].starts_with("holds a source"));
        assert!(reported[1].starts_with("holds the journal"));
        assert!(reported[2].starts_with("holds the logs"));
        assert_eq!(machine.reported("sdb", (8, 16), &context), Vec::<String>::new());
    }

    #[test]
    fn a_partition_is_told_which_disk_is_meant() {
        let machine = Machine::new();
        let sysfs = machine.roots.sys.join("block/sda/sda1");
        let subject = Subject::Block { number: (8, 1), sysfs: &sysfs, partition_of: Some("sda") };
        assert_eq!(machine.told_of(&subject, &Context::default()), ["is a partition, not a whole disk: "]);
    }

    #[test]
    fn an_image_in_use_or_inside_a_source_is_refused() {
        let machine = Machine::new();
        machine.put("images/a.img", "x");
        let image = fs::canonicalize(machine.dir.join("images/a.img")).unwrap();
        machine.put("sys/block/loop7/loop/backing_file", &format!("{}\n", image.display()));
        machine.put("sys/block/loop7/dev", "7:7\n");
        machine.put("proc/self/mountinfo", "36 35 7:7 / /mnt rw - ext4 /dev/loop7 rw\n");
        let context = Context { sources: vec![machine.dir.join("images")], ..Context::default() };
        let node = Node::of(&fs::metadata(&image).unwrap());
        let reported = machine.told_of(&Subject::Image { path: &image, node: &node }, &context);
        assert_eq!(reported.len(), 3, "{reported:?}");
        assert!(reported[0].starts_with("is attached to a loop device: /dev/loop7"));
        assert!(reported[1].starts_with("is mounted: /mnt"));
        assert!(reported[2].starts_with("lies inside a source"));
    }

    #[test]
    fn the_service_takes_sata_drives_with_small_sectors_and_a_serial() {
        let mut identity = Identity {
            serial: Some("S1".into()),
            transport: Transport::Ata,
            ..Identity::of_image(crate::units::ByteLen(1 << 40), SectorSize::S512)
        };
        assert_eq!(shipping(&identity), []);
        assert!(is_shippable(&identity));
        assert!(!is_shippable(&Identity { transport: Transport::Nvme, ..identity.clone() }));
        identity.sector = SectorSize::S4096;
        identity.serial = None;
        assert!(!is_shippable(&identity));
        identity.transport = Transport::Nvme;
        assert_eq!(shipping(&identity).len(), 1);
        identity.transport = Transport::Loop;
        assert_eq!(shipping(&identity).len(), 1);
    }

    #[test]
    fn a_serial_that_two_disks_tell_names_neither() {
        let machine = Machine::new();
        for (name, place, serial) in [("sdp", "ata8", "S1"), ("sdq", "usb1/1-1", "S1"), ("sdr", "ata9", "S2")] {
            let home = format!("sys/devices/{place}/0:0:0:0");
            machine.put(&format!("{home}/serial"), serial);
            machine.put(&format!("{home}/block/{name}/size"), "8");
            machine.put(&format!("{home}/block/{name}/queue/logical_block_size"), "512");
            let links = [("../..", format!("{home}/block/{name}/device"))];
            for (to, link) in links {
                std::os::unix::fs::symlink(to, machine.dir.join(link)).unwrap();
            }
            let block = machine.dir.join(format!("{home}/block/{name}"));
            std::os::unix::fs::symlink(block, machine.roots.sys.join("block").join(name)).unwrap();
        }
        let tree = |name: &str| Tree { names: [name.to_owned()].into(), ..Tree::default() };
        assert_eq!(twins_of("S1", &tree("sdp"), &machine.roots), [machine.roots.dev.join("sdq")]);
        assert_eq!(twins_of("S2", &tree("sdr"), &machine.roots), Vec::<PathBuf>::new());
    }

    #[test]
    fn hostile_tables_do_not_panic() {
        for text in [
            "",
            "\n\n",
            "1 2",
            "36 35 8:2 / /mnt rw - ext4",
            "36 35 x:y / /mnt rw - a b c",
            "36 35 8:2 / \\9 rw - ext4 \\777 rw",
        ] {
            let _ = parse_mounts(text.as_bytes());
        }
        assert_eq!(unescape(br"a\040b\134\0"), b"a b\\\\0");
    }
}
