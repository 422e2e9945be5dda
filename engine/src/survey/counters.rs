//! Counters of a disk's link, which only grow: read before and after, they tell what happened in
//! between.

use std::fs;
use std::path::Path;

use super::health;
use crate::device::{Roots, Transport, attribute};

/// Counters of one disk; `None` where nobody counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Errors on the cable that the drive saw (SMART attribute 199, UDMA CRC).
    pub cable_errors: Option<u64>,
    /// Commands that ended in an error, as the kernel counts (SCSI's `ioerr_cnt`).
    pub failed: Option<u64>,
    /// Commands that ran out of time, each of which resets the link or the device (`iotmo_cnt`).
    pub timeouts: Option<u64>,
}

impl LinkCounters {
    /// Of a disk, by its node and its name in sysfs.
    pub(crate) fn read(node: &Path, name: &str, transport: Transport, roots: &Roots) -> Self {
        let device = fs::canonicalize(roots.sys.join("block").join(name).join("device"));
        let kernel = |counter: &str| device.as_ref().ok().and_then(|dir| hex(&attribute(dir, counter)?));
        let health = if transport.is_hardware() { health::ask(node, transport) } else { None };
        Self {
            cable_errors: health.and_then(|health| health.cable_errors).and_then(|count| u64::try_from(count).ok()),
            failed: kernel("ioerr_cnt"),
            timeouts: kernel("iotmo_cnt"),
        }
    }

    /// Increase since `before`.
    pub fn since(&self, before: &Self) -> Self {
        let more = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
        Self {
            cable_errors: more(self.cable_errors, before.cable_errors),
            failed: more(self.failed, before.failed),
            timeouts: more(self.timeouts, before.timeouts),
        }
    }

    /// Whether nobody counts anything.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }

    /// Whether something went wrong that was counted.
    pub fn has_any(&self) -> bool {
        [self.cable_errors, self.failed, self.timeouts].iter().flatten().any(|count| *count > 0)
    }
}

/// A counter as sysfs prints it: `0x1f`.
fn hex(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_and_taken_from_each_other() {
        let dir = std::env::temp_dir().join(format!("dray-counters-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let roots = Roots { sys: dir.join("sys"), proc: dir.join("proc"), dev: dir.join("dev") };
        let device = roots.sys.join("block/sda/device");
        fs::create_dir_all(&device).expect("a directory");
        let read = |failed: &str, timeouts: &str| {
            fs::write(device.join("ioerr_cnt"), failed).expect("a counter");
            fs::write(device.join("iotmo_cnt"), timeouts).expect("a counter");
            LinkCounters::read(&dir.join("dev/sda"), "sda", Transport::Virtio, &roots)
        };
        let before = read("0x3\n", "0x0\n");
        assert_eq!((before.failed, before.timeouts, before.cable_errors), (Some(3), Some(0), None));
        let since = read("0x13\n", "0x1\n").since(&before);
        assert_eq!((since.failed, since.timeouts), (Some(16), Some(1)));
        assert!(since.has_any() && !since.is_unknown() && !before.since(&before).has_any());
        let none = LinkCounters::read(&dir, "sdb", Transport::Virtio, &roots);
        assert!(none.is_unknown() && none.since(&before).is_unknown());
        fs::remove_dir_all(&dir).expect("removed");
    }
}
