//! Present and possible speed of a disk's connection, from sysfs and from the drive.

use std::fs;
use std::path::Path;

use crate::device::{Roots, Transport, attribute};

/// Best and negotiated speed of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Best speed that both ends support, in words.
    pub best: String,
    /// Speed that drive and port negotiated, in words.
    pub negotiated: String,
    /// Whether the negotiated speed is below the best.
    pub slower: bool,
}

impl Link {
    /// `drive` holds the drive's own report: best and negotiated speed.
    pub(super) fn of(
        roots: &Roots,
        name: &str,
        transport: Transport,
        drive: Option<&(String, String)>,
    ) -> Option<Self> {
        let place = fs::canonicalize(roots.sys.join("block").join(name)).ok()?;
        match transport {
            Transport::Ata => Self::ata(roots, &place, drive),
            Transport::Usb => Self::usb(&place),
            Transport::Nvme => Self::pcie(&place),
            // A SATA drive on a SAS controller.
            Transport::Scsi => drive.map(|(best, negotiated)| Self::new(best.clone(), negotiated.clone())),
            _ => None,
        }
    }

    fn new(best: String, negotiated: String) -> Self {
        let slower = first_number(&negotiated) < first_number(&best);
        Self { best, negotiated, slower }
    }

    /// `class/ata_link/linkN`: the controller's limit, if it has one, and the negotiated speed. The drive's own maximum
    /// is known to the drive alone.
    fn ata(roots: &Roots, place: &Path, drive: Option<&(String, String)>) -> Option<Self> {
        let port = place.components().find_map(|part| {
            let number = part.as_os_str().to_str()?.strip_prefix("ata")?;
            number.parse::<u32>().ok()
        })?;
        let link = roots.sys.join(format!("class/ata_link/link{port}"));
        let known = |name: &str| attribute(&link, name).filter(|speed| first_number(speed) > 0.0);
        let negotiated = known("sata_spd").or_else(|| drive.map(|(_, now)| now.clone()))?;
        let limits = known("hw_sata_spd_limit").into_iter().chain(drive.map(|(best, _)| best.clone()));
        let best = limits.min_by(|a, b| first_number(a).total_cmp(&first_number(b)));
        Some(Self::new(best.unwrap_or_else(|| negotiated.clone()), negotiated))
    }

    /// From the USB device above the disk: megabits a second, and its USB version.
    fn usb(place: &Path) -> Option<Self> {
        let device = place.ancestors().find(|dir| dir.join("idVendor").exists())?;
        let speed = attribute(device, "speed")?;
        let negotiated: f64 = speed.parse().ok()?;
        // A device that calls itself 2.10 is a 3.x one on a port or cable for 2.0 (USB 3.2, 9.2.6.6).
        let version = attribute(device, "version").map_or(0.0, |version| first_number(&version));
        let best = if version > 2.05 { negotiated.max(5000.0) } else { negotiated };
        Some(Self::new(format!("{best} Mb/s"), format!("{negotiated} Mb/s")))
    }

    /// The PCI device above the disk.
    fn pcie(place: &Path) -> Option<Self> {
        let device = place.ancestors().find(|dir| dir.join("current_link_speed").exists())?;
        let speed = |which: &str| {
            let speed = attribute(device, &format!("{which}_link_speed"))?;
            let width = attribute(device, &format!("{which}_link_width"))?.parse::<u32>().ok()?;
            Some((first_number(&speed) * f64::from(width), format!("{speed} x{width}")))
        };
        let ((best, best_name), (now, now_name)) = (speed("max")?, speed("current")?);
        Some(Self { best: best_name, negotiated: now_name, slower: now < best })
    }
}

fn first_number(text: &str) -> f64 {
    let text = text.trim_start();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text[..end].parse().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_each_bus_are_compared() {
        let dir = std::env::temp_dir().join(format!("dray-link-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let roots = Roots { sys: dir.join("sys"), proc: dir.join("proc"), dev: dir.join("dev") };
        let put = |path: &str, text: &str| {
            let path = roots.sys.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for (name, place) in [("sda", "ata3/0:0"), ("sdb", "usb1/1-1/h"), ("nvme0n1", "0000:01/nvme/nvme0")] {
            put(&format!("devices/{place}/{name}/size"), "8");
            fs::create_dir_all(roots.sys.join("block")).unwrap();
            let block = roots.sys.join("devices").join(place).join(name);
            std::os::unix::fs::symlink(block, roots.sys.join("block").join(name)).unwrap();
        }
        put("class/ata_link/link3/sata_spd", "1.5 Gbps\n");
        put("class/ata_link/link3/hw_sata_spd_limit", "6.0 Gbps\n");
        put("devices/usb1/1-1/idVendor", "1");
        put("devices/usb1/1-1/speed", "480\n");
        put("devices/usb1/1-1/version", " 2.10\n");
        for which in ["max", "current"] {
            put(&format!("devices/0000:01/{which}_link_speed"), "8.0 GT/s PCIe\n");
            put(&format!("devices/0000:01/{which}_link_width"), if which == "max" { "4\n" } else { "2\n" });
        }
        let link = Link::of(&roots, "sda", Transport::Ata, None).unwrap();
        assert_eq!((link.best.as_str(), link.negotiated.as_str(), link.slower), ("6.0 Gbps", "1.5 Gbps", true));
        // A drive that is no faster; a controller that reports no limit, as most do; neither.
        let drive = |best: &str| Some((best.to_owned(), "1.5 Gb/s".to_owned()));
        assert!(!Link::of(&roots, "sda", Transport::Ata, drive("1.5 Gb/s").as_ref()).unwrap().slower);
        put("class/ata_link/link3/hw_sata_spd_limit", "<unknown>\n");
        assert!(Link::of(&roots, "sda", Transport::Ata, drive("6.0 Gb/s").as_ref()).unwrap().slower);
        assert!(!Link::of(&roots, "sda", Transport::Ata, None).unwrap().slower);
        let link = Link::of(&roots, "sdb", Transport::Usb, None).unwrap();
        assert_eq!((link.best.as_str(), link.slower), ("5000 Mb/s", true));
        assert!(Link::of(&roots, "nvme0n1", Transport::Nvme, None).unwrap().slower);
        assert_eq!(Link::of(&roots, "sda", Transport::Scsi, None), None);
        fs::remove_dir_all(&dir).unwrap();
    }
}
