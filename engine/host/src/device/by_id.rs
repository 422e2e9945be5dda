//! Whether a link below `/dev/disk/by-id` names the disk that it leads to. udev builds these names from model, serial
//! and world wide name (`60-persistent-storage.rules`); a link made by hand may have any name.

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::geometry::attribute;
use super::identity::{self, Identity};
use super::{Device, DeviceKind, Roots};

/// Shortest serial of another disk that is searched for in a name: shorter ones occur by chance.
const SERIAL_LEN_MIN: usize = 6;
/// Shortest world wide name that is searched for.
const WWN_LEN_MIN: usize = 12;

/// Relation of a link's name to the disk that it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// It holds the disk's own serial or world wide name.
    Own,
    /// It contains nothing known of any disk.
    Loose,
    /// It holds the serial of another disk, whose node is given.
    Another(PathBuf),
}

/// The name of a link directly below the directory; `None` for any other path.
pub fn name_of<'a>(path: &'a Path, roots: &Roots) -> Option<&'a str> {
    let mut below = path.strip_prefix(roots.dev.join("disk/by-id")).ok()?.components();
    match (below.next(), below.next()) {
        (Some(Component::Normal(name)), None) => name.to_str(),
        _ => None,
    }
}

/// Compares the name of a link with the open disk that it led to.
pub fn check(path: &Path, device: &Device) -> Link {
    let roots = device.roots();
    let Some(name) = name_of(path, roots) else { return Link::Loose };
    let DeviceKind::Block { sysfs, .. } = device.kind() else { return Link::Loose };
    let own = device.identity();
    if !names(name, own) && !names_mapped(name, sysfs) {
        let others = identity::list(roots).into_iter().filter(|disk| !same(&disk.identity, own));
        let other = others.into_iter().find(|disk| names(name, &disk.identity) && is_long(&disk.identity));
        return other.map_or(Link::Loose, |disk| Link::Another(disk.path));
    }
    if leads_straight(path) { Link::Own } else { Link::Loose }
}

/// Whether the link leads to the node in one step, as udev's do.
fn leads_straight(path: &Path) -> bool {
    let (Ok(to), Some(dir)) = (fs::read_link(path), path.parent()) else { return false };
    let is_plain = fs::canonicalize(dir).is_ok_and(|real| real == dir);
    is_plain && fs::symlink_metadata(dir.join(to)).is_ok_and(|meta| !meta.is_symlink())
}

fn same(one: &Identity, other: &Identity) -> bool {
    one.known_serial() == other.known_serial() && one.wwn == other.wwn
}

fn is_long(identity: &Identity) -> bool {
    identity.known_serial().is_some_and(|serial| serial.len() >= SERIAL_LEN_MIN)
        || identity.wwn.as_ref().is_some_and(|wwn| wwn.len() >= WWN_LEN_MIN)
}

/// Whether the name contains the serial, the bridge's serial or the world wide name.
fn names(name: &str, identity: &Identity) -> bool {
    let name = name.to_ascii_lowercase();
    let serials = [&identity.serial, &identity.bridge_serial];
    let by_serial = serials.into_iter().flatten().any(|serial| stands_in(&name, &written(serial)));
    // `naa.5000…` is `wwn-0x5000…` and `scsi-35000…`; `eui.…` is unchanged.
    let wwn = identity.wwn.as_deref().unwrap_or_default().to_ascii_lowercase();
    let digits = wwn.strip_prefix("naa.").or(wwn.strip_prefix("0x")).unwrap_or(&wwn);
    let ends_there = |at: usize| !name[at + digits.len()..].starts_with(|c: char| c.is_ascii_alphanumeric());
    let by_wwn = digits.len() >= WWN_LEN_MIN && name.match_indices(digits).any(|(at, _)| ends_there(at));
    by_serial || by_wwn
}

/// A serial as udev writes it into names: blanks and forbidden characters become `_`.
fn written(serial: &str) -> String {
    let mut out = String::new();
    for c in serial.trim().chars() {
        let c = if c.is_ascii_alphanumeric() || "#+-.:=@".contains(c) { c.to_ascii_lowercase() } else { '_' };
        if !(c == '_' && out.ends_with('_')) {
            out.push(c);
        }
    }
    out
}

/// Whether a name contains the serial as a whole, not as a part of a longer one.
fn stands_in(name: &str, serial: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric();
    !serial.is_empty()
        && name
            .match_indices(serial)
            .any(|(at, _)| !name[..at].ends_with(is_part) && !name[at + serial.len()..].starts_with(is_part) && at > 0)
}

/// Mapped devices have no serial; the kernel reports name and identifier of the mapping.
fn names_mapped(name: &str, sysfs: &Path) -> bool {
    [("dm-uuid-", "dm/uuid"), ("dm-name-", "dm/name")].into_iter().any(|(prefix, reported)| {
        name.strip_prefix(prefix)
            .is_some_and(|rest| attribute(sysfs, reported).is_some_and(|reported| rest == reported))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Transport;
    use crate::units::{ByteLen, SectorSize};

    fn disk(serial: Option<&str>, wwn: Option<&str>) -> Identity {
        Identity {
            serial: serial.map(str::to_owned),
            wwn: wwn.map(str::to_owned),
            transport: Transport::Ata,
            ..Identity::of_image(ByteLen(1 << 30), SectorSize::S512)
        }
    }

    #[test]
    fn udevs_names_hold_what_the_disk_tells() {
        let wd = disk(Some("WD-WCC7K1234567"), Some("naa.50014ee2b1234567"));
        for name in [
            "ata-WDC_WD40EFRX-68N32N0_WD-WCC7K1234567",
            "wwn-0x50014ee2b1234567",
            "scsi-350014ee2b1234567",
            "scsi-SATA_WDC_WD40EFRX-68N_WD-WCC7K1234567",
            "usb-WDC_WD40_WD-WCC7K1234567-0:0",
        ] {
            assert!(names(name, &wd), "{name}");
        }
        for name in [
            "ata-WDC_WD40EFRX-68N32N0_WD-WCC7K12345678",
            "ata-WDC_WD40EFRX-68N32N0_XWD-WCC7K1234567",
            "wwn-0x50014ee2b12345678",
            "loop-anything",
            "",
        ] {
            assert!(!names(name, &wd), "{name}");
        }
        assert!(names("nvme-Fast_S4 NV ME".replace(' ', "_").as_str(), &disk(Some(" S4 NV  ME "), None)));
        assert!(names("nvme-eui.0025385b71b0f0a1", &disk(None, Some("eui.0025385b71b0f0a1"))));
        assert!(names("virtio-vol-0001", &disk(Some("vol-0001"), None)));
        // Without a serial and a WWN there is nothing to compare a name with.
        assert!(!names("ata-X_Y", &disk(None, None)));
    }

    #[test]
    fn only_links_in_the_directory_are_such_names() {
        let roots = Roots::default();
        assert_eq!(name_of(Path::new("/dev/disk/by-id/ata-X_1"), &roots), Some("ata-X_1"));
        assert_eq!(name_of(Path::new("/dev/./disk//by-id/ata-X_1"), &roots), Some("ata-X_1"));
        for path in
            ["/dev/disk/by-id/../../loop0", "/dev/disk/by-id", "/dev/disk/by-id/a/b", "/dev/disk/by-id-x/a", "x"]
        {
            assert_eq!(name_of(Path::new(path), &roots), None, "{path}");
        }
    }
}
