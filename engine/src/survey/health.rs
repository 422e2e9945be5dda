//! Health of a drive by its own account, queried through `smartctl --json` (smartmontools 7.0 and later).

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::program;
use crate::device::Transport;

/// Degrees Celsius at which a drive is too hot to write for hours: makers allow 60 in operation.
pub const TOO_HOT: i64 = 60;

/// The parts of SMART that decide whether a drive is to be trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// The drive's own verdict; `None` when it gives none.
    pub passed: Option<bool>,
    /// Sectors that were replaced by spare ones (ATA attribute 5), or SCSI's grown defects.
    pub reallocated: Option<i64>,
    /// Sectors waiting to be replaced (197).
    pub pending: Option<i64>,
    /// Sectors that could not be read at all (198), or NVMe's media errors.
    pub uncorrectable: Option<i64>,
    /// Errors on the cable (199).
    pub cable_errors: Option<i64>,
    /// Present temperature in degrees Celsius.
    pub temperature: Option<i64>,
    /// Hours in use.
    pub hours: Option<i64>,
    /// Best and negotiated speed of the link, as the drive names them.
    pub speeds: Option<(String, String)>,
}

impl Health {
    /// Reasons not to use the drive, each a sentence without full stop.
    pub fn stops(&self) -> Vec<String> {
        let mut stops = Vec::new();
        if self.passed == Some(false) {
            stops.push("says of itself that it is failing (SMART)".to_owned());
        }
        let count = |what: Option<i64>| what.filter(|count| *count > 0);
        if let Some(sectors) = count(self.reallocated) {
            stops.push(format!("has replaced sectors that went bad: {sectors}"));
        }
        if let Some(sectors) = count(self.pending) {
            stops.push(format!("has sectors that it could not read and wants to replace: {sectors}"));
        }
        if let Some(sectors) = count(self.uncorrectable) {
            stops.push(format!("has sectors that cannot be read: {sectors}"));
        }
        if let Some(degrees) = self.temperature.filter(|degrees| *degrees >= TOO_HOT) {
            stops.push(format!("is too hot: {degrees} °C, and {TOO_HOT} °C is too much"));
        }
        stops
    }

    /// From the output of `smartctl --json --all`; `None` when it holds no facts of the drive.
    fn parse(json: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(json).ok()?;
        let at = |path: &str| value.pointer(path);
        let number = |path: &str| at(path).and_then(Value::as_i64);
        let attribute = |id: i64| {
            let table = at("/ata_smart_attributes/table")?.as_array()?;
            let row = table.iter().find(|row| row.pointer("/id").and_then(Value::as_i64) == Some(id))?;
            row.pointer("/raw/value")?.as_i64()
        };
        let text = |path: &str| at(path).and_then(Value::as_str).map(str::to_owned);
        let health = Self {
            passed: at("/smart_status/passed").and_then(Value::as_bool),
            reallocated: attribute(5).or_else(|| number("/scsi_grown_defect_list")),
            pending: attribute(197),
            uncorrectable: attribute(198).or_else(|| number("/nvme_smart_health_information_log/media_errors")),
            cable_errors: attribute(199),
            temperature: number("/temperature/current"),
            hours: number("/power_on_time/hours"),
            speeds: text("/interface_speed/max/string").zip(text("/interface_speed/current/string")),
        };
        (health != Self::default()).then_some(health)
    }
}

/// Queries the drive; through the SAT layer as well where it is behind a bridge. `None` without `smartctl` or an
/// answer.
pub(super) fn ask(path: &Path, transport: Transport) -> Option<Health> {
    let smartctl = program("smartctl")?;
    let ask = |more: &[&str]| {
        // Never wakes a sleeping drive only to look at it.
        let mut command = Command::new(&smartctl);
        command.args(["--json", "--all", "--nocheck=standby"]).args(more).arg(path);
        let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        Health::parse(&output.stdout)
    };
    let sat = || if transport == Transport::Usb { ask(&["--device=sat"]) } else { None };
    ask(&[]).or_else(sat)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_drive_is_stopped_for_each_reason() {
        let json = br#"{"smart_status":{"passed":false},"temperature":{"current":61},"power_on_time":{"hours":40000},
            "interface_speed":{"max":{"string":"6.0 Gb/s"},"current":{"string":"3.0 Gb/s"}},
            "ata_smart_attributes":{"table":[{"id":5,"raw":{"value":8}},{"id":197,"raw":{"value":2}},
            {"id":198,"raw":{"value":1}},{"id":199,"raw":{"value":7}},{"id":"x"}]}}"#;
        let health = Health::parse(json).unwrap();
        assert_eq!((health.reallocated, health.pending, health.cable_errors), (Some(8), Some(2), Some(7)));
        assert_eq!(health.speeds, Some(("6.0 Gb/s".into(), "3.0 Gb/s".into())));
        assert_eq!(health.stops().len(), 5);
    }

    #[test]
    fn a_good_drive_is_not_stopped() {
        let json = br#"{"smart_status":{"passed":true},"temperature":{"current":34},
            "nvme_smart_health_information_log":{"media_errors":0}}"#;
        assert_eq!(Health::parse(json).unwrap().stops(), Vec::<String>::new());
        let scsi = br#"{"scsi_grown_defect_list":3}"#;
        assert_eq!(Health::parse(scsi).unwrap().stops().len(), 1);
    }

    #[test]
    fn hostile_output_says_nothing() {
        for json in
            [&b""[..], b"{}", b"[]", b"null", b"{\"smart_status\":7}", b"{\"temperature\":{\"current\":\"hot\"}}"]
        {
            assert_eq!(Health::parse(json), None);
        }
    }
}
