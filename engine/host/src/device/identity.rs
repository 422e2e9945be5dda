//! Identity of a drive: serial, name, model, size and bus. A device name proves nothing.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::Roots;
use super::geometry::{attribute, number};
use super::ioctl;
use crate::advice::{Advice, Command};
use crate::problem::{Kind, Problem};
use crate::units::{ByteLen, SectorSize};

/// Bus through which a drive is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// SATA or IDE, directly on a controller.
    Ata,
    /// A USB enclosure, dock or bridge.
    Usb,
    /// NVMe.
    Nvme,
    /// A virtual machine's disk.
    Virtio,
    /// SAS or other SCSI.
    Scsi,
    /// A memory card.
    Mmc,
    /// A loop device.
    Loop,
    /// Device-mapper, RAID, RAM and other disks without hardware of their own.
    Virtual,
    /// A regular file.
    Image,
}

impl Transport {
    /// The name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ata => "SATA",
            Self::Usb => "USB",
            Self::Nvme => "NVMe",
            Self::Virtio => "virtio",
            Self::Scsi => "SCSI",
            Self::Mmc => "MMC",
            Self::Loop => "loop",
            Self::Virtual => "virtual",
            Self::Image => "image file",
        }
    }

    /// From the name for people.
    pub fn from_name(name: &str) -> Option<Self> {
        use Transport::{Ata, Image, Loop, Mmc, Nvme, Scsi, Usb, Virtio, Virtual};
        [Ata, Usb, Nvme, Virtio, Scsi, Mmc, Loop, Virtual, Image].into_iter().find(|this| this.name() == name)
    }

    /// Whether a drive on this bus is hardware with a serial, which can be shipped.
    pub fn is_hardware(self) -> bool {
        matches!(self, Self::Ata | Self::Usb | Self::Nvme | Self::Scsi | Self::Mmc)
    }
}

/// Facts that tell one drive from all others; taken at planning and compared again before the first write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The drive's own serial, read through the bridge where that works.
    pub serial: Option<String>,
    /// The serial of the bridge or enclosure, when it differs from the drive's or the drive's is not known.
    pub bridge_serial: Option<String>,
    /// World wide name.
    pub wwn: Option<String>,
    /// Model, the drive's own if known.
    pub model: Option<String>,
    /// Vendor, unless it is the meaningless `ATA`.
    pub vendor: Option<String>,
    /// Bus of the drive: SATA, USB, NVMe, ….
    pub transport: Transport,
    /// Size in bytes.
    pub size: ByteLen,
    /// Logical sector: the unit of offsets and lengths of requests.
    pub sector: SectorSize,
    /// Physical sector in bytes.
    pub physical_sector: u32,
    /// Whether the kernel calls it removable.
    pub removable: bool,
}

impl Identity {
    /// The drive's serial, or else its bridge's; `None` when neither is known.
    pub fn known_serial(&self) -> Option<&str> {
        self.serial.as_deref().or(self.bridge_serial.as_deref())
    }

    /// Whether the drive reports nothing unique: then it can be told from others by its location alone.
    pub fn is_anonymous(&self) -> bool {
        self.known_serial().is_none() && self.wwn.is_none()
    }

    /// The first difference of `now` from this identity, in words; `None` when it is the same drive.
    pub fn change_to(&self, now: &Self) -> Option<String> {
        let show = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
        if self.serial != now.serial {
            return Some(format!("serial was {}, is {}", show(&self.serial), show(&now.serial)));
        }
        // Where the drive reports no serial, its bridge's is compared.
        if self.serial.is_none() && self.bridge_serial != now.bridge_serial {
            let (was, is) = (show(&self.bridge_serial), show(&now.bridge_serial));
            return Some(format!("the bridge's serial was {was}, is {is}"));
        }
        if self.wwn != now.wwn {
            return Some(format!("world wide name was {}, is {}", show(&self.wwn), show(&now.wwn)));
        }
        if self.model != now.model {
            return Some(format!("model was {}, is {}", show(&self.model), show(&now.model)));
        }
        if self.size != now.size {
            return Some(format!("size was {} bytes, is {}", self.size.0, now.size.0));
        }
        if self.sector != now.sector {
            return Some(format!("sector was {} bytes, is {}", self.sector.bytes(), now.sector.bytes()));
        }
        if self.physical_sector != now.physical_sector {
            let (was, is) = (self.physical_sector, now.physical_sector);
            return Some(format!("physical sector was {was} bytes, is {is}"));
        }
        None
    }

    /// The identity of an image file: it has only a size.
    pub fn of_image(size: ByteLen, sector: SectorSize) -> Self {
        Self {
            serial: None,
            bridge_serial: None,
            wwn: None,
            model: None,
            vendor: None,
            transport: Transport::Image,
            size,
            sector,
            physical_sector: sector.bytes() as u32,
            removable: false,
        }
    }

    /// From the disk's sysfs directory, and from the drive itself when it is open.
    pub(super) fn of_disk(disk: &Path, size: ByteLen, sector: SectorSize, open: Option<&File>) -> Self {
        let transport = transport(disk);
        let device = disk.join("device");
        // The ATA Information page carries the drive's own IDENTIFY data, also through many bridges.
        let ata = fs::read(device.join("vpd_pg89"))
            .ok()
            .and_then(|page| page.get(VPD_ATA_IDENTIFY..VPD_ATA_IDENTIFY + 512).and_then(AtaIdentity::parse))
            .or_else(|| match transport {
                Transport::Ata | Transport::Usb | Transport::Scsi => {
                    open.and_then(|file| ioctl::ata_identify(file).ok()).and_then(|data| AtaIdentity::parse(&data))
                }
                _ => None,
            });
        let reported = fs::read(device.join("vpd_pg80"))
            .ok()
            .and_then(|page| vpd_serial(&page))
            .or_else(|| attribute(&device, "serial"))
            .or_else(|| attribute(disk, "serial"))
            .or_else(|| if transport == Transport::Usb { usb_serial(disk) } else { None });
        let (serial, bridge_serial) = match (ata.as_ref().and_then(|ata| ata.serial.clone()), reported) {
            (Some(own), Some(reported)) if own != reported => (Some(own), Some(reported)),
            (Some(own), _) => (Some(own), None),
            // A bridge that hides the drive reports its own serial.
            (None, reported) if transport == Transport::Usb => (None, reported),
            (None, reported) => (reported, None),
        };
        Self {
            serial,
            bridge_serial,
            wwn: ata
                .as_ref()
                .and_then(|ata| ata.wwn.clone())
                .or_else(|| attribute(&device, "wwid"))
                .or_else(|| attribute(disk, "wwid")),
            model: ata.and_then(|ata| ata.model).or_else(|| attribute(&device, "model")),
            vendor: attribute(&device, "vendor").filter(|vendor| vendor != "ATA" && !vendor.starts_with("0x")),
            transport,
            size,
            sector,
            physical_sector: number(disk, "queue/physical_block_size")
                .and_then(|bytes| u32::try_from(bytes).ok())
                .unwrap_or(sector.bytes() as u32),
            removable: number(disk, "removable") == Some(1),
        }
    }
}

/// Offset of the IDENTIFY data in the ATA Information VPD page (SAT-3, 12.4.2).
const VPD_ATA_IDENTIFY: usize = 60;

/// The bus, from the disk's position in the device tree.
fn transport(disk: &Path) -> Transport {
    let place = fs::canonicalize(disk).unwrap_or_else(|_| disk.to_owned());
    let name = place.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let under = |prefix: &str| {
        place.components().any(|part| {
            let rest = part.as_os_str().to_str().and_then(|part| part.strip_prefix(prefix));
            rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        })
    };
    if name.starts_with("loop") {
        Transport::Loop
    } else if name.starts_with("nvme") {
        Transport::Nvme
    } else if name.starts_with("mmcblk") {
        Transport::Mmc
    } else if under("usb") {
        Transport::Usb
    } else if under("ata") {
        Transport::Ata
    } else if name.starts_with("vd") || (under("virtio") && !name.starts_with("sd")) {
        Transport::Virtio
    } else if name.starts_with("sd") || name.starts_with("sr") {
        Transport::Scsi
    } else {
        Transport::Virtual
    }
}

/// The serial of the USB device that a disk is attached through: the nearest one above it.
fn usb_serial(disk: &Path) -> Option<String> {
    let place = fs::canonicalize(disk).ok()?;
    let device = place.ancestors().find(|dir| dir.join("idVendor").exists())?;
    attribute(device, "serial")
}

/// Facts from IDENTIFY DEVICE.
#[derive(Debug, PartialEq, Eq)]
struct AtaIdentity {
    serial: Option<String>,
    model: Option<String>,
    wwn: Option<String>,
}

impl AtaIdentity {
    // Words of the IDENTIFY DEVICE data (ACS-4, 9.10), two bytes each.
    const SERIAL: std::ops::Range<usize> = 20..40;
    const MODEL: std::ops::Range<usize> = 54..94;
    const WWN: std::ops::Range<usize> = 216..224;

    /// `None` for data without serial and model.
    fn parse(data: &[u8]) -> Option<Self> {
        let data: &[u8; 512] = data.try_into().ok()?;
        // Characters are swapped in each word.
        let text = |range: std::ops::Range<usize>| {
            let bytes: Vec<u8> = data[range].chunks_exact(2).flat_map(|pair| [pair[1], pair[0]]).collect();
            printable(&bytes)
        };
        // Words are little-endian, the name's most significant word comes first.
        let wwn = data[Self::WWN]
            .chunks_exact(2)
            .fold(0_u64, |name, pair| name << 16 | u64::from(u16::from_le_bytes([pair[0], pair[1]])));
        let identity = Self {
            serial: text(Self::SERIAL),
            model: text(Self::MODEL),
            // Names of registered kind 5 only; others are noise of drives without one.
            wwn: (wwn >> 60 == 5).then(|| format!("naa.{wwn:016x}")),
        };
        identity.serial.is_some().then_some(identity)
    }
}

/// Serial in a Unit Serial Number VPD page (SPC-4, 7.8.18): length in bytes 2 and 3, text from byte 4.
fn vpd_serial(page: &[u8]) -> Option<String> {
    const TEXT: usize = 4;
    let len = usize::from(u16::from_be_bytes([*page.get(2)?, *page.get(3)?]));
    printable(page.get(TEXT..TEXT + len)?)
}

/// Printable ASCII, trimmed; `None` when nothing is left.
fn printable(bytes: &[u8]) -> Option<String> {
    let text: String = bytes.iter().filter(|byte| (0x20..0x7F).contains(*byte)).map(|byte| char::from(*byte)).collect();
    let text = text.trim();
    if text.is_empty() { None } else { Some(text.to_owned()) }
}

/// A disk listed by the kernel, found without opening it.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Kernel name, such as `sda`.
    pub name: String,
    /// Node under `/dev`.
    pub path: PathBuf,
    /// Identity according to sysfs; the drive behind a bridge is found only by opening it.
    pub identity: Identity,
}

/// All disks with a size, in the order of their names; loop, RAM and device-mapper disks as well.
pub fn list(roots: &Roots) -> Vec<Disk> {
    let mut disks: Vec<_> = fs::read_dir(roots.sys.join("block"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let dir = entry.path();
            // In units of 512 bytes whatever the sector is.
            let size = ByteLen(number(&dir, "size")?.checked_mul(512)?);
            if size.0 == 0 {
                return None;
            }
            let sector = number(&dir, "queue/logical_block_size").and_then(SectorSize::from_bytes)?;
            // The kernel writes a slash in a name as an exclamation mark.
            let path = roots.dev.join(name.replace('!', "/"));
            Some(Disk { identity: Identity::of_disk(&dir, size, sector, None), name, path })
        })
        .collect();
    disks.sort_by(|a, b| (a.name.len(), &a.name).cmp(&(b.name.len(), &b.name)));
    disks
}

/// Resolves a drive's name in a driveset to the path to open: `serial:…`, a path of a node, a by-id link, or an image
/// file.
///
/// For a serial that sysfs does not list, hidden behind a bridge, each USB and SCSI disk is opened for reading and
/// queried.
///
/// # Errors
/// [`Kind::Usage`] when no disk has the serial or a path does not lead anywhere, [`Kind::Refused`] when more than one disk
/// has the serial, [`Kind::Environment`] when the path may not be followed.
pub fn resolve(name: &str, roots: &Roots) -> Result<PathBuf, Problem> {
    let Some(serial) = name.strip_prefix("serial:") else {
        let path = PathBuf::from(name);
        return match fs::canonicalize(&path) {
            Ok(real) => Ok(real),
            Err(error) => {
                Err(Problem::new(not_found(&error), format!("the drive cannot be found: {error}")).drive(name).advice(
                    Advice::from("see what is attached with ")
                        + Command::Devices
                        + ", and name the drive as it is listed",
                ))
            }
        };
    };
    // Drivesets write them without blanks.
    let plain = |serial: &str| serial.split_whitespace().collect::<String>();
    let wanted = &*plain(serial);
    if wanted.is_empty() {
        return Err(Problem::new(Kind::Usage, "`serial:` names no serial").drive(name));
    }
    // A drive's own serial; that of its bridge only where the drive hides.
    let asked: Vec<(PathBuf, Option<String>)> = list(roots)
        .into_iter()
        .map(|disk| {
            let hidden =
                disk.identity.serial.is_none() && matches!(disk.identity.transport, Transport::Usb | Transport::Scsi);
            let own = || {
                let data = ioctl::ata_identify(&File::open(&disk.path).ok()?).ok()?;
                AtaIdentity::parse(&data)?.serial
            };
            let serial = if hidden { own().or(disk.identity.bridge_serial) } else { disk.identity.serial };
            (disk.path, serial)
        })
        .collect();
    let mut found: Vec<_> = asked
        .iter()
        .filter(|(_, serial)| serial.as_deref().map(plain).as_deref() == Some(wanted))
        .map(|(path, _)| path)
        .collect();
    match found.len() {
        1 => Ok(found.remove(0).clone()),
        0 => {
            let known: Vec<_> = asked.iter().filter_map(|(_, serial)| serial.as_deref()).collect();
            let known = if known.is_empty() { "no attached disk reports one".to_owned() } else { known.join(", ") };
            Err(Problem::new(Kind::Usage, "no drive with this serial is attached").drive(name).value(known).advice(
                "compare with the label on the drive; some docks hide it: then name the drive by /dev/disk/by-path/",
            ))
        }
        _ => {
            let paths: Vec<_> = found.iter().map(|path| path.display().to_string()).collect();
            Err(Problem::new(Kind::Refused, "more than one drive has this serial")
                .drive(name)
                .value(paths.join(", "))
                .advice("a dock gives its own serial to every disk in it: name the drive by /dev/disk/by-path/"))
        }
    }
}

/// A name that leads nowhere is a mistyped one; one that may not be followed is a matter of permissions.
fn not_found(error: &std::io::Error) -> Kind {
    if error.kind() == std::io::ErrorKind::PermissionDenied { Kind::Environment } else { Kind::Usage }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ata_identify_words_are_swapped_back() {
        let mut data = [0_u8; 512];
        let swapped = |text: &[u8]| text.chunks(2).flat_map(|pair| [pair[1], pair[0]]).collect::<Vec<_>>();
        data[20..40].copy_from_slice(&swapped(format!("{:>20}", "WD-WCC7K1234567").as_bytes()));
        data[54..94].copy_from_slice(&swapped(format!("{:<40}", "WDC WD40EFRX-68N32N0").as_bytes()));
        // naa.50014ee2b1234567: most significant word first.
        for (n, word) in [0x5001_u16, 0x4EE2, 0xB123, 0x4567].into_iter().enumerate() {
            data[216 + 2 * n..218 + 2 * n].copy_from_slice(&word.to_le_bytes());
        }
        let identity = AtaIdentity::parse(&data).unwrap();
        assert_eq!(identity.serial.as_deref(), Some("WD-WCC7K1234567"));
        assert_eq!(identity.model.as_deref(), Some("WDC WD40EFRX-68N32N0"));
        assert_eq!(identity.wwn.as_deref(), Some("naa.50014ee2b1234567"));
        assert_eq!(AtaIdentity::parse(&[0; 512]), None);
        assert_eq!(AtaIdentity::parse(&[0; 10]), None);
    }

    #[test]
    fn hostile_vpd_pages_name_nothing() {
        assert_eq!(vpd_serial(b"\0\x80\0\x08 ABC123 ").as_deref(), Some("ABC123"));
        assert_eq!(vpd_serial(b"\0\x80\xFF\xFFABC"), None);
        assert_eq!(vpd_serial(b"\0\x80"), None);
        assert_eq!(vpd_serial(b"\0\x80\0\x03\0\0\0"), None);
    }

    /// Adds a disk with its attributes to a machine.
    fn plant(roots: &Roots, name: &str, place: &str, size: u64, attributes: &[(&str, &[u8])]) {
        let home = roots.sys.join("devices").join(place);
        let block = home.join("block").join(name);
        fs::create_dir_all(block.join("queue")).unwrap();
        fs::create_dir_all(roots.sys.join("block")).unwrap();
        fs::write(block.join("size"), size.to_string()).unwrap();
        fs::write(block.join("queue/logical_block_size"), "512\n").unwrap();
        for (attribute, value) in attributes {
            fs::write(home.join(attribute), value).unwrap();
        }
        std::os::unix::fs::symlink(&home, block.join("device")).unwrap();
        std::os::unix::fs::symlink(&block, roots.sys.join("block").join(name)).unwrap();
    }

    /// A simulated machine: a SATA disk, two disks in a dock that hides their serials, an NVMe disk, an empty card
    /// reader.
    fn machine(roots: &Roots) {
        plant(
            roots,
            "sda",
            "pci0/ata1/host0/0:0:0:0",
            8,
            &[
                ("vpd_pg80", b"\0\x80\0\x14            ZL2ABC12"),
                ("model", b"ST4000NM002A\n"),
                ("vendor", b"ATA     \n"),
                ("wwid", b"naa.5000c500c1234567\n"),
            ],
        );
        for (name, place) in [("sdb", "pci0/usb2/2-1/host1/1:0:0:0"), ("sdc", "pci0/usb2/2-1/host1/1:0:0:1")] {
            plant(roots, name, place, 8, &[("vpd_pg80", b"\0\x80\0\x04DOCK"), ("vendor", b"ACME\n")]);
        }
        plant(roots, "nvme0n1", "pci0/nvme/nvme0", 16, &[("serial", b"S4NVME  \n"), ("model", b"Fast\n")]);
        plant(roots, "sdd", "pci0/usb2/2-2/host2/2:0:0:0", 0, &[]);
    }

    #[test]
    fn disks_are_found_by_serial_and_bus() {
        let dir = std::env::temp_dir().join(format!("dray-identity-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let roots = Roots { sys: dir.join("sys"), proc: dir.join("proc"), dev: dir.join("dev") };
        machine(&roots);
        let disks = list(&roots);
        let names: Vec<_> = disks.iter().map(|disk| disk.name.as_str()).collect();
        assert_eq!(names, ["sda", "sdb", "sdc", "nvme0n1"]);
        let buses: Vec<_> = disks.iter().map(|disk| disk.identity.transport).collect();
        assert_eq!(buses, [Transport::Ata, Transport::Usb, Transport::Usb, Transport::Nvme]);
        assert_eq!(disks[0].identity.serial.as_deref(), Some("ZL2ABC12"));
        assert_eq!(disks[0].identity.wwn.as_deref(), Some("naa.5000c500c1234567"));
        assert_eq!(disks[0].identity.vendor, None);
        assert_eq!(disks[0].identity.size, ByteLen(4096));
        // The dock's serial is not taken for the drives' own.
        assert_eq!(disks[1].identity.serial, None);
        assert_eq!(disks[1].identity.bridge_serial.as_deref(), Some("DOCK"));

        assert_eq!(resolve("serial:ZL2ABC12", &roots).unwrap(), roots.dev.join("sda"));
        assert_eq!(resolve("serial:S4NVME", &roots).unwrap(), roots.dev.join("nvme0n1"));
        let missing = resolve("serial:OTHER", &roots).unwrap_err();
        assert!(missing.what.contains("no drive with this serial") && missing.value.unwrap().contains("ZL2ABC12"));
        // A slip, as any wrong argument; two drives for one name are a danger.
        assert_eq!(missing.kind, Kind::Usage);
        assert_eq!(resolve("serial:DOCK", &roots).unwrap_err().kind, Kind::Refused);
        assert_eq!(resolve("/dev/this-is-not-there", &roots).unwrap_err().kind, Kind::Usage);
        assert!(resolve("serial:DOCK", &roots).unwrap_err().what.contains("more than one"));
        // A bridge without a page for it: its USB device has the serial.
        plant(&roots, "sdf", "pci0/usb3/3-1/3-1:1.0/host4/4:0:0:0", 8, &[]);
        fs::write(roots.sys.join("devices/pci0/usb3/3-1/idVendor"), "abcd\n").unwrap();
        fs::write(roots.sys.join("devices/pci0/usb3/3-1/serial"), "BRIDGE7\n").unwrap();
        assert_eq!(resolve("serial:BRIDGE7", &roots).unwrap(), roots.dev.join("sdf"));
        plant(&roots, "sde", "pci0/ata2/host3/3:0:0:0", 8, &[("vpd_pg80", b"\0\x80\0\x08ZL2ABC12")]);
        assert!(resolve("serial:ZL2ABC12", &roots).unwrap_err().what.contains("more than one"));
        assert!(resolve("serial:", &roots).is_err());
        assert!(resolve("/dev/this-is-not-there", &roots).is_err());

        let other = Identity { size: ByteLen(1), ..disks[0].identity.clone() };
        assert!(disks[0].identity.change_to(&other).unwrap().contains("size was 4096 bytes, is 1"));
        let other = Identity { physical_sector: 4096, ..disks[0].identity.clone() };
        assert!(disks[0].identity.change_to(&other).unwrap().contains("physical sector was 512 bytes, is 4096"));
        let other = Identity { bridge_serial: Some("ANOTHER".into()), ..disks[1].identity.clone() };
        assert!(disks[1].identity.change_to(&other).unwrap().contains("bridge's serial was DOCK, is ANOTHER"));
        assert_eq!(disks[0].identity.change_to(&disks[0].identity), None);
        fs::remove_dir_all(&dir).unwrap();
    }
}
