//! The survey before anything is planned: every disk with the gates' refusals, its health and its link; and obstacles
//! of the machine. Reads only.

mod counters;
mod health;
mod link;
mod machine;

use std::path::{Path, PathBuf};

pub use counters::LinkCounters;
pub use health::Health;
pub use link::Link;
pub use machine::{CheckState, MachineCheck, examine};

use crate::device::{self, Access, Device, Geometry, Identity, Roots, Transport, guard, signature};
use crate::report::{Advice, Kind, Problem, Setting};
use crate::units::SectorSize;

/// One disk, as far as it may be looked at.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Kernel name, such as `sda`.
    pub name: String,
    /// Node under `/dev`.
    pub path: PathBuf,
    /// Links under `/dev/disk/by-id/` that lead to it.
    pub by_id: Vec<PathBuf>,
    /// Serial, world wide name, model, bus and size of the disk.
    pub identity: Identity,
    /// Sizes and queue limits; `None` where it could not be opened.
    pub geometry: Option<Geometry>,
    /// Properties of the kernel's block queue.
    pub queue: Queue,
    /// Present contents in words; `None` when blank or not readable.
    pub contents: Option<String>,
    /// Refusals by the gates; empty for a usable drive.
    pub refusals: Vec<Problem>,
    /// Reasons against shipping it alone; it can be prepared.
    pub not_for_shipping: Vec<Problem>,
    /// Whether the service would take it: kind, sectors and serial.
    pub shippable: bool,
    /// Warnings about using it.
    pub cautions: Vec<Problem>,
    /// SMART data, where `smartctl` is installed and the drive answers it.
    pub health: Option<Health>,
    /// Speed of its connection.
    pub link: Option<Link>,
}

/// Attributes of the kernel's block queue that determine how a disk is written to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// Requests that the kernel keeps.
    pub requests: Option<u64>,
    /// Largest request now, bytes.
    pub request_max: Option<u64>,
    /// Largest request that the hardware would take, bytes.
    pub hardware_request_max: Option<u64>,
    /// Scheduler in use.
    pub scheduler: Option<String>,
    /// `write back` or `write through`.
    pub write_cache: Option<String>,
}

impl Queue {
    fn of(roots: &Roots, name: &str) -> Self {
        let dir = roots.sys.join("block").join(name).join("queue");
        let number = |name: &str| device::attribute(&dir, name)?.parse::<u64>().ok();
        let kib = |name: &str| number(name)?.checked_mul(1024);
        let scheduler = device::attribute(&dir, "scheduler").map(|line| {
            let chosen =
                line.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(name, _)| name.to_owned());
            chosen.unwrap_or(line)
        });
        Self {
            requests: number("nr_requests"),
            request_max: kib("max_sectors_kb"),
            hardware_request_max: kib("max_hw_sectors_kb"),
            scheduler,
            write_cache: device::attribute(&dir, "write_cache"),
        }
    }
}

/// Every disk with hardware behind it, virtual machines' disks included; with `all` loop, RAM and mapped disks too.
pub fn disks(roots: &Roots, all: bool) -> Vec<Seen> {
    let links = by_id(roots);
    let real = |identity: &Identity| identity.transport.is_hardware() || identity.transport == Transport::Virtio;
    let disks = device::list(roots).into_iter().filter(|disk| all || real(&disk.identity));
    disks.map(|disk| look(disk, &links, roots)).collect()
}

fn look(disk: device::Disk, links: &[(PathBuf, PathBuf)], roots: &Roots) -> Seen {
    let by_tables = guard::check_closed(&disk, roots);
    let device::Disk { name, path, identity } = disk;
    let health = if identity.transport.is_hardware() { health::ask(&path, identity.transport) } else { None };
    let speeds = health.as_ref().and_then(|health| health.speeds.as_ref());
    let mut seen = Seen {
        by_id: links.iter().filter(|(_, to)| *to == path).map(|(link, _)| link.clone()).collect(),
        queue: Queue::of(roots, &name),
        link: Link::of(roots, &name, identity.transport, speeds),
        health,
        name,
        path,
        identity,
        geometry: None,
        contents: None,
        refusals: Vec::new(),
        not_for_shipping: Vec::new(),
        shippable: false,
        cautions: Vec::new(),
    };
    match Device::open_with(&seen.path, Access::Read, SectorSize::S512, roots) {
        Ok(device) => {
            seen.identity = device.identity().clone();
            seen.refusals = guard::check(&device, &guard::Context::default());
            seen.cautions = guard::cautions(&seen.identity, device.geometry());
            let twins = guard::twins(&device);
            if !twins.is_empty() {
                let twins: Vec<String> = twins.iter().map(|path| path.display().to_string()).collect();
                seen.refusals.push(
                    Problem::new(Kind::Refused, "has the same serial as another disk").value(twins.join(", ")).advice(
                        Advice::from("attach them one by one, or give the serial printed on the label with ")
                            + Setting::DriveId,
                    ),
                );
            }
            match signature::scan(&device) {
                Ok(contents) => seen.contents = contents.words,
                Err(error) => seen.refusals.push(
                    Problem::new(Kind::Drive, format!("cannot be read: {error}"))
                        .advice("check cable and drive; a drive that cannot be read cannot be trusted"),
                ),
            }
            seen.geometry = Some(device.geometry().clone());
        }
        // The refusals of the tables matter more than the failure to open.
        Err(problem) => seen.refusals.extend(by_tables.into_iter().chain([problem])),
    }
    seen.not_for_shipping = guard::shipping(&seen.identity);
    seen.shippable = guard::is_shippable(&seen.identity);
    if let Some(health) = &seen.health {
        seen.cautions.extend(
            health
                .stops()
                .into_iter()
                .map(|stop| Problem::new(Kind::Drive, stop).advice("do not trust data to it: use another drive")),
        );
    }
    if let Some(link) = seen.link.as_ref().filter(|link| link.slower) {
        seen.cautions.push(
            Problem::new(Kind::Environment, "is attached more slowly than it could be")
                .value(format!("{} of {}", link.negotiated, link.best))
                .advice("try another cable, port or dock"),
        );
    }
    seen
}

/// Reasons not to write to a disk or image, for callers that write by means of their own.
pub fn gates(path: &Path) -> Vec<Problem> {
    match Device::open(path, Access::Read) {
        Ok(device) => guard::check(&device, &guard::Context::default()),
        Err(problem) => vec![problem],
    }
}

/// Stable names and the nodes they lead to.
fn by_id(roots: &Roots) -> Vec<(PathBuf, PathBuf)> {
    let dir = roots.dev.join("disk/by-id");
    let mut links: Vec<_> = std::fs::read_dir(&dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.path(), std::fs::canonicalize(entry.path()).ok()?)))
        .collect();
    links.sort();
    links
}

/// Path of a program in the first directory of `PATH`, or of the usual places of system tools, that has it.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|dir| dir.join(name)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
