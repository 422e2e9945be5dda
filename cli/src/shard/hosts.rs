//! `hosts.toml`: which host has which drive, and drives that are not attached where the plan is made.
//!
//! ```toml
//! [[drive]]
//! serial = "WD-WX12345678"   # or the drive id of an image
//! host = "dock-1"            # as `hostname` prints it; optional
//! size = 8001563222016       # bytes, exactly; only for a drive that is not attached here
//! sector = 512               # logical sector size; optional
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use dray_engine::api;
use dray_engine::api::prepare::AbsentDrive;
use dray_engine::report::{Kind, Problem, Problems};
use dray_engine::units::{ByteLen, SectorSize};

/// Longest file that is read.
const LEN_MAX: u64 = 16 << 20;

/// Contents of the file.
#[derive(Debug, Default)]
pub struct Hosts {
    /// Host of a drive, by serial or drive id.
    pub of: BTreeMap<String, String>,
    /// Drives that are not attached here.
    pub absent: Vec<AbsentDrive>,
}

impl Hosts {
    /// Reads the file.
    ///
    /// # Errors
    /// Everything that is wrong in it.
    pub fn read(path: &Path) -> Result<Self, Problems> {
        let unread = |what: String| Problem::new(Kind::Usage, what).path(path);
        let bytes = api::host::read_input(path, LEN_MAX, api::host::Pipes::Taken)
            .map_err(|error| unread(format!("the list of hosts cannot be read: {error}")))?;
        let text = api::host::decode_text(&bytes)
            .map_err(|error| unread(format!("the list of hosts cannot be read: {error}")))?;
        let table: toml::Table = toml::from_str(&text)
            .map_err(|error| unread(format!("the list of hosts is no TOML: {}", error.message())))?;
        let mut problems = Problems::default();
        let mut this = Self::default();
        for key in table.keys().filter(|key| *key != "drive") {
            problems.push(unread("unknown key".into()).value(key.clone()).advice("the file lists [[drive]] tables"));
        }
        let drives = table.get("drive").and_then(toml::Value::as_array).map_or(&[][..], Vec::as_slice);
        let mut seen = std::collections::BTreeSet::new();
        for (number, drive) in drives.iter().enumerate() {
            let place = format!("[[drive]] {}", number + 1);
            let mut wrong = |key: &str, what: &str, value: Option<&toml::Value>, advice: &str| {
                let problem = unread(what.into()).column(format!("{place} {key}")).advice(advice);
                problems.push(match value {
                    Some(value) => problem.value(shown(value)),
                    None => problem,
                });
            };
            let Some(drive) = drive.as_table() else {
                wrong("", "is no table", Some(drive), "write [[drive]] above its keys");
                continue;
            };
            for key in drive.keys().filter(|key| !["serial", "host", "size", "sector"].contains(&key.as_str())) {
                wrong(key, "unknown key", None, "known are serial, host, size and sector");
            }
            let text = |key: &str| drive.get(key).and_then(toml::Value::as_str).filter(|text| !text.trim().is_empty());
            let Some(serial) = text("serial").map(|serial| serial.split_whitespace().collect::<String>()) else {
                wrong("serial", "is missing", drive.get("serial"), "give the drive's serial as its label has it");
                continue;
            };
            if !seen.insert(serial.clone()) {
                wrong("serial", "is listed twice", drive.get("serial"), "name each drive once");
                continue;
            }
            match (drive.get("host"), text("host")) {
                (_, Some(host)) => {
                    this.of.insert(serial.clone(), host.to_owned());
                }
                (Some(value), None) => wrong("host", "is no name", Some(value), "as `hostname` prints it"),
                (None, None) => {}
            }
            let number =
                |key: &str| drive.get(key).and_then(toml::Value::as_integer).and_then(|n| u64::try_from(n).ok());
            let sector = match (drive.get("sector"), number("sector").and_then(SectorSize::from_bytes)) {
                (None, _) => SectorSize::S512,
                (_, Some(sector)) => sector,
                (Some(value), None) => {
                    wrong("sector", "is no sector size", Some(value), "512 or 4096");
                    continue;
                }
            };
            match (drive.get("size"), number("size").filter(|size| *size > 0)) {
                (None, _) => {}
                (_, Some(size)) => this.absent.push(AbsentDrive { serial, size: ByteLen(size), sector }),
                (value, None) => {
                    wrong("size", "is no number of bytes", value, "`lsblk -bdno SIZE /dev/…` prints it on the host");
                }
            }
        }
        problems.into_result().map(|()| this)
    }
}

fn shown(value: &toml::Value) -> String {
    value.as_str().map_or_else(|| format!("{value:?}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Hosts, Problems> {
        let path = std::env::temp_dir().join(format!("dray-hosts-{}-{}.toml", std::process::id(), text.len()));
        std::fs::write(&path, text).expect("a file");
        let hosts = Hosts::read(&path);
        let _ = std::fs::remove_file(&path);
        hosts
    }

    #[test]
    fn hosts_and_absent_drives_are_read() {
        let hosts = read(
            "[[drive]]\nserial = \"WD-1\"\nhost = \"n1\"\n[[drive]]\nserial = \"Z 2\"\nsize = 8001563222016\nsector = 4096\n",
        )
        .expect("sound");
        assert_eq!(hosts.of["WD-1"], "n1");
        let absent = AbsentDrive { serial: "Z2".into(), size: ByteLen(8_001_563_222_016), sector: SectorSize::S4096 };
        assert_eq!(hosts.absent, [absent]);
    }

    #[test]
    fn everything_wrong_is_reported_at_once() {
        let problems = read(
            "port = 1\n[[drive]]\nhost = \"n1\"\n[[drive]]\nserial = \"A\"\nsize = \"8TB\"\n[[drive]]\nserial = \"A\"\n\
             [[drive]]\nserial = \"B\"\nsector = 7\nrack = 1\n",
        )
        .expect_err("wrong");
        let text: Vec<String> = problems.0.iter().map(ToString::to_string).collect();
        let text = text.join("\n");
        assert_eq!(problems.0.len(), 6, "{text}");
        for part in ["port", "serial", "8TB", "listed twice", "sector", "rack"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
