//! Local state of a job: a file in the journal's directory. It never holds a key.

use std::path::{Path, PathBuf};

use dray_engine::api;
use dray_engine::report::{Kind, Problem, Problems};
use jiff::{Span, Timestamp};
use serde_json::{Value, json};

use super::Api;

/// Longest state file that is read.
const LEN_MAX: u64 = 1 << 20;
/// Version of the file's form.
const SCHEMA: u64 = 1;
/// Days until the service deletes a job that was not shipped, and until it inquires about a parcel that did not arrive.
const WAIT_DAYS: i64 = 14;
/// Days that a finished job is kept.
const KEPT_DAYS: i64 = 90;

/// A drive of the job.
#[derive(Clone, Debug, Default)]
pub struct Drive {
    /// Drive id, as in the drive record.
    pub id: String,
    /// Path of the manifest on it.
    pub manifest_file: String,
    /// MD5 of the manifest.
    pub manifest_hash: String,
    /// The drive record.
    pub record: String,
    /// SHA-256 of that file.
    pub record_sha256: String,
    /// Files on the drive, if the journal records them.
    pub files: Option<u64>,
    /// Bytes of those files, if the journal records them.
    pub data: Option<u64>,
    /// State last reported by the service.
    pub state: String,
    /// Percentage copied, as last reported by the service.
    pub percent: Option<u64>,
    /// Copy status, as the service last reported it.
    pub copy_status: String,
    /// Bytes copied, as the service told last.
    pub bytes: Option<u64>,
    /// Addresses of its logs and its manifest, each with its kind.
    pub logs: Vec<(String, String)>,
}

/// Kinds of what the service writes for a drive, under the APIs' names.
const LOGS: &[(&str, &[&str])] = &[
    ("error log", &["errorLogUri", "errorLogLink"]),
    ("verbose log", &["verboseLogUri", "verboseLogLink"]),
    ("manifest", &["manifestUri", "backupManifestCloudPath"]),
];

impl Drive {
    fn learn_logs(&mut self, reported: &Value) {
        for (kind, keys) in LOGS {
            let address = keys.iter().find_map(|key| reported[*key].as_str()).filter(|address| !address.is_empty());
            if let Some(address) = address {
                self.logs.retain(|(known, _)| known != kind);
                self.logs.push(((*kind).to_owned(), address.to_owned()));
            }
        }
    }
}

/// Local state of a job: the contents of `<name>.job.json`.
#[derive(Clone, Debug)]
pub struct Job {
    /// Name of the job at the service.
    pub name: String,
    /// API it is made with.
    pub api: Api,
    /// Path below the endpoint.
    pub resource: String,
    /// Azure region of the storage account, such as `West US`.
    pub location: String,
    /// Name of the storage account.
    pub account: String,
    /// Blobs go onto the drives, not from them.
    pub is_export: bool,
    /// `Drafted`, then the name that the service gives the state.
    pub state: String,
    /// Drives of the job.
    pub drives: Vec<Drive>,
    /// Time of creation of this file.
    pub created_at: Timestamp,
    /// Time at which the service accepted the job.
    pub submitted_at: Option<Timestamp>,
    /// Time at which shipping was reported to the service.
    pub shipped_at: Option<Timestamp>,
    /// Time at which the job was first seen to be over.
    pub ended_at: Option<Timestamp>,
    /// Carrier of the parcel to the service.
    pub carrier: Option<String>,
    /// Tracking number of that parcel.
    pub tracking: Option<String>,
    /// Carrier of the return parcel.
    pub return_carrier: String,
    /// Sender's address, line by line.
    pub sender: Vec<String>,
    /// The data center's address, once the service has given it.
    pub data_center: Vec<String>,
    /// The journal and its SHA-256, if the drives came from one.
    pub journal: Option<(String, String)>,
    /// Percent of the whole job, as the service told last.
    pub percent: Option<u64>,
    /// Carrier and tracking number of the way back.
    pub returned: Option<(String, String)>,
    /// Address of the list of blobs that were not exported.
    pub incomplete: Option<String>,
}

/// Copy status: of the logs of the Import/Export service (docs/spec/import-export.md#copy-logs), and of Data
/// Box (docs/spec/import-export.md#data-box-jobs).
const COPY_STATUS: &[(&str, &str)] = &[
    ("Completed", "copied without errors"),
    ("CompletedWithWarnings", "copied; blobs were renamed, skipped or overwritten: read the log"),
    ("CompletedWithErrors", "copied, some blobs with errors: read the error log"),
    ("DiskNotFound", "no disk was found on the drive"),
    ("VolumeNotNtfs", "the first data volume is not NTFS"),
    ("DiskOperationFailed", "the drive fails"),
    ("BitLockerVolumeNotFound", "no volume that BitLocker could have encrypted"),
    ("BitLockerNotActivated", "BitLocker is not on"),
    ("BitLockerProtectorNotFound", "the volume has no numerical password"),
    ("BitLockerKeyInvalid", "the job's key does not open the volume"),
    ("BitLockerUnlockVolumeFailed", "the volume could not be unlocked"),
    ("BitLockerFailed", "BitLocker failed"),
    ("ManifestNameInvalid", "the path of the manifest is none"),
    ("ManifestNameTooLong", "the path of the manifest is too long"),
    ("ManifestNotFound", "the manifest is not where the job says"),
    ("ManifestAccessDenied", "the manifest cannot be opened"),
    ("ManifestCorrupted", "the manifest has another hash than the job says"),
    ("ManifestFormatInvalid", "the manifest is not in its form"),
    ("ManifestDriveIdMismatch", "the manifest names another drive"),
    ("ReadManifestFailed", "the manifest could not be read"),
    ("BlobListFormatInvalid", "the blob list is not in its form"),
    ("BlobRequestForbidden", "the storage account refused access"),
    ("InternalError", "the service failed"),
    ("NotStarted", "not begun"),
    ("InProgress", "being copied"),
    ("Failed", "copying failed"),
    ("NotReturned", "the drive was not returned"),
    ("HardwareError", "the drive has a hardware error"),
    ("DeviceFormatted", "the drive was formatted after it was prepared"),
    ("DeviceMetadataModified", "the drive was changed after it was prepared"),
    ("StorageAccountNotAccessible", "the storage account cannot be reached: check its firewall and its locks"),
    ("UnsupportedData", "the drive holds what cannot be uploaded"),
    ("DriveNotReceived", "the drive was not in the parcel"),
    ("UnsupportedDrive", "the service does not take this kind of drive"),
    ("OtherServiceError", "the service failed"),
    ("OtherUserError", "something of yours is in the way: read the error log"),
    ("DriveNotDetected", "the drive is not seen by the machine it is in"),
    ("DriveCorrupted", "the drive is damaged"),
    ("MetadataFilesModifiedOrRemoved", "manifest or properties files were changed or removed"),
];

/// Meaning of a copy status; empty for a word that is not in the published tables.
pub fn copy_meaning(status: &str) -> &'static str {
    COPY_STATUS.iter().find(|(name, _)| *name == status).map_or("", |(_, meaning)| meaning)
}

/// States of the Import/Export service, with their meaning (docs/spec/import-export.md#job-states).
const IMPORT_EXPORT: &[(&str, &str)] = &[
    ("Creating", "the service waits for word of the parcel; two weeks without it, and it deletes the job"),
    ("Shipping", "the parcel is on its way; after two weeks the operators ask for it"),
    ("Received", "all drives have arrived; one to three working days after the delivery"),
    ("Transferring", "at least one drive is being copied"),
    ("Packaging", "all drives are copied and wait to go back"),
    ("Completed", "all drives are on their way back, without errors; the job is kept for 90 days"),
    ("Closed", "all drives are on their way back, some with errors: read the copy logs; kept for 90 days"),
    ("Faulted", "the job or a drive is stuck; the operators get in touch"),
];

/// Stages of Data Box jobs with customer disks (docs/spec/import-export.md#data-box-jobs).
const DATA_BOX: &[(&str, &str)] = &[
    ("Created", "the service has the job"),
    ("AwaitingShipmentDetails", "the service waits for word of the parcel; two weeks without it, and the job ends"),
    ("ShippedToAzureDC", "the parcel is on its way; the job cannot be cancelled any more"),
    ("AtAzureDC", "all drives have arrived"),
    ("DataCopy", "at least one drive is being copied"),
    ("PreparingToShipFromAzureDC", "all drives are copied and wait to go back"),
    ("ShippedToCustomer", "all drives are on their way back"),
    ("Completed", "done, without errors; the job is kept for 90 days"),
    ("CompletedWithWarnings", "done, with warnings: read the copy logs; kept for 90 days"),
    ("CompletedWithErrors", "done, some files with errors: read the copy logs; kept for 90 days"),
    ("Cancelled", "cancelled"),
    ("Aborted", "abandoned by the service"),
];

/// States of a drive (docs/spec/import-export.md#drive-states).
const DRIVES: &[(&str, &str)] = &[
    ("Specified", "named in the job"),
    ("Received", "arrived"),
    ("NeverReceived", "the parcel came without it, or did not come"),
    ("Transferring", "being copied"),
    ("Completed", "copied"),
    ("CompletedMoreInfo", "copied; the log lists errors, warnings or overwritten blobs"),
    ("ShippedBack", "on its way back"),
];

/// Meaning of a drive's state; empty for an unknown one.
pub fn drive_meaning(state: &str) -> &'static str {
    DRIVES.iter().find(|(name, _)| *name == state).map_or("", |(_, meaning)| meaning)
}

impl Job {
    /// Meaning of the job's state.
    pub fn meaning(&self) -> &'static str {
        if self.state == "Drafted" {
            return "written down here; the service does not know of it from dray";
        }
        if self.state == "Cancelling" {
            return "cancelling was requested";
        }
        if self.state == "Deleted" {
            return "the service has forgotten the job";
        }
        let table = if self.api == Api::ImportExport { IMPORT_EXPORT } else { DATA_BOX };
        table.iter().find(|(name, _)| *name == self.state).map_or("not in the published table", |(_, what)| what)
    }

    /// The state the service gives a job that it just took.
    pub fn first_state(api: Api) -> &'static str {
        if api == Api::ImportExport { "Creating" } else { "AwaitingShipmentDetails" }
    }

    /// The state of a job whose parcel has been shipped.
    pub fn shipped_state(api: Api) -> &'static str {
        if api == Api::ImportExport { "Shipping" } else { "ShippedToAzureDC" }
    }

    /// Whether no parcel has been reported yet.
    pub fn waits_for_parcel(&self) -> bool {
        matches!(self.state.as_str(), "Drafted" | "Creating" | "Created" | "AwaitingShipmentDetails")
    }

    /// Whether the job has ended, successfully or not.
    pub fn is_over(&self) -> bool {
        matches!(self.state.as_str(), "Closed" | "Cancelled" | "Aborted" | "Deleted")
            || self.state.starts_with("Completed")
    }

    /// Next deadline, with what the service does when it passes.
    pub fn deadline(&self) -> Option<(Timestamp, &'static str)> {
        let after = |from: Timestamp, days: i64| from.checked_add(Span::new().hours(24 * days)).ok();
        if matches!(self.state.as_str(), "Drafted" | "Deleted") {
            return None;
        }
        if self.is_over() {
            return Some((after(self.ended_at?, KEPT_DAYS)?, "the service forgets the job: fetch its logs before"));
        }
        if self.waits_for_parcel() {
            let from = self.submitted_at.unwrap_or(self.created_at);
            return Some((after(from, WAIT_DAYS)?, "unless tracking numbers are given by then, the job is deleted"));
        }
        if self.state == Self::shipped_state(self.api) {
            return Some((after(self.shipped_at?, WAIT_DAYS)?, "the parcel should have arrived by then"));
        }
        None
    }

    /// The next step; `file` is this file.
    pub fn next(&self, file: &Path) -> String {
        let file = file.display();
        match self.state.as_str() {
            "Deleted" => "nothing: the service has forgotten it".into(),
            "Drafted" => format!(
                "create the job (dray job create --submit, az, PowerShell or the portal); pack the drives \
                 (dray job papers {file}); then dray job ship {file} --carrier NAME --tracking NUMBER"
            ),
            _ if self.waits_for_parcel() => {
                format!("send the parcel, then: dray job ship {file} --carrier NAME --tracking NUMBER")
            }
            "Cancelling" => "wait until the service says so; drives that have arrived come back uncopied".into(),
            _ if self.is_over() && self.is_export => format!(
                "fetch the keys (dray job keys {file} --submit, or the portal), and when the drives are back: dray verify \
                 DRIVE --key-file keys.json --extract-to DIR"
            ),
            _ if self.is_over() => {
                "when the drives are back, keep or wipe them; check the blobs and the copy logs before the sources go"
                    .into()
            }
            _ => format!("wait; `dray job show {file} --submit` asks the service"),
        }
    }

    /// For `--json`, and for the file together with [`Job::save`].
    pub fn to_json(&self, file: &Path) -> Value {
        json!({
            "name": self.name,
            "api": self.api.as_str(),
            "state": self.state,
            "direction": if self.is_export { "export" } else { "import" },
            "location": self.location,
            "resource": self.resource,
            "drives": self.drives.iter().map(|drive| json!({
                "drive_id": drive.id,
                "manifest_file": drive.manifest_file,
                "manifest_hash": drive.manifest_hash,
                "record": drive.record,
            })).collect::<Vec<_>>(),
            "created_at": self.created_at.to_string(),
            "submitted_at": self.submitted_at.map(|at| at.to_string()),
            "shipped_at": self.shipped_at.map(|at| at.to_string()),
            "carrier": self.carrier,
            "tracking": self.tracking,
            "deadline": self.deadline().map(|(at, _)| at.to_string()),
            "next": self.next(file),
            "drive_states": self.drives.iter().map(|drive| json!({
                "drive_id": drive.id,
                "state": drive.state,
                "percent": drive.percent,
                "copy_status": drive.copy_status,
                "bytes": drive.bytes,
                "logs": drive.logs.iter().map(|(kind, address)| {
                    json!({ "kind": kind, "address": address })
                }).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
            "percent": self.percent,
            "returned": self.returned.as_ref().map(|(carrier, tracking)| {
                json!({ "carrier": carrier, "tracking": tracking })
            }),
            "incomplete_list": self.incomplete,
        })
    }

    /// Writes the file, private and atomically.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, file: &Path) -> Result<(), Problems> {
        let mut value = self.to_json(file);
        if let Some(fields) = value.as_object_mut() {
            fields.remove("next");
            fields.remove("deadline");
            fields.remove("drive_states");
            fields.insert("schema".into(), SCHEMA.into());
            fields.insert("account".into(), self.account.clone().into());
            fields.insert("ended_at".into(), json!(self.ended_at.map(|at| at.to_string())));
            fields.insert("return_carrier".into(), self.return_carrier.clone().into());
            fields.insert("sender".into(), json!(self.sender));
            fields.insert("data_center".into(), json!(self.data_center));
            fields.insert("journal".into(), json!(self.journal.as_ref().map(|(path, hash)| json!([path, hash]))));
            let drives: Vec<Value> = self
                .drives
                .iter()
                .map(|drive| {
                    json!({
                        "drive_id": drive.id, "manifest_file": drive.manifest_file, "manifest_hash": drive.manifest_hash,
                        "record": drive.record, "record_sha256": drive.record_sha256, "files": drive.files,
                        "data": drive.data, "state": drive.state, "percent": drive.percent,
                        "copy_status": drive.copy_status, "bytes": drive.bytes,
                        "logs": drive.logs.iter().map(|(kind, address)| json!([kind, address])).collect::<Vec<_>>(),
                    })
                })
                .collect();
            fields.insert("drives".into(), drives.into());
        }
        api::records::write_private(file, format!("{value:#}\n").as_bytes())
    }

    /// Reads the file.
    ///
    /// # Errors
    /// The file is no job's state.
    pub fn load(file: &Path) -> Result<Self, Problem> {
        let problem = |what: String| {
            Problem::new(Kind::Usage, what).path(file).advice("name the <job>.job.json that `dray job create` made")
        };
        let text = api::host::read_input(file, LEN_MAX, api::host::Pipes::Refused)
            .and_then(|bytes| api::host::decode_text(&bytes))
            .map_err(|error| problem(format!("cannot be read: {error}")))?;
        let value: Value = serde_json::from_str(&text).map_err(|error| problem(format!("is not JSON: {error}")))?;
        if value["schema"].as_u64() != Some(SCHEMA) {
            return Err(problem("is no job of this version of dray".into()));
        }
        Self::from_json(&value).ok_or_else(|| problem("is not whole".into()))
    }

    fn from_json(value: &Value) -> Option<Self> {
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        let time = |key: &str| value[key].as_str().and_then(|text| text.parse().ok());
        let lines = |key: &str| -> Vec<String> {
            value[key].as_array().into_iter().flatten().filter_map(|line| line.as_str().map(str::to_owned)).collect()
        };
        let drives = value["drives"].as_array()?.iter().map(|drive| {
            let text = |key: &str| drive[key].as_str().unwrap_or_default().to_owned();
            Drive {
                id: text("drive_id"),
                manifest_file: text("manifest_file"),
                manifest_hash: text("manifest_hash"),
                record: text("record"),
                record_sha256: text("record_sha256"),
                files: drive["files"].as_u64(),
                data: drive["data"].as_u64(),
                state: text("state"),
                percent: drive["percent"].as_u64(),
                copy_status: text("copy_status"),
                bytes: drive["bytes"].as_u64(),
                logs: drive["logs"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|pair| Some((pair.get(0)?.as_str()?.to_owned(), pair.get(1)?.as_str()?.to_owned())))
                    .collect(),
            }
        });
        Some(Self {
            name: text("name")?,
            api: Api::parse(&text("api")?)?,
            resource: text("resource")?,
            location: text("location")?,
            account: text("account")?,
            // Files of before there were exports do not say.
            is_export: value["direction"].as_str() == Some("export"),
            state: text("state")?,
            drives: drives.collect(),
            created_at: time("created_at")?,
            submitted_at: time("submitted_at"),
            shipped_at: time("shipped_at"),
            ended_at: time("ended_at"),
            carrier: text("carrier"),
            tracking: text("tracking"),
            return_carrier: text("return_carrier")?,
            sender: lines("sender"),
            data_center: lines("data_center"),
            journal: value["journal"]
                .as_array()
                .and_then(|pair| Some((pair.first()?.as_str()?.to_owned(), pair.get(1)?.as_str()?.to_owned()))),
            percent: value["percent"].as_u64(),
            returned: value["returned"]["carrier"].as_str().map(|carrier| {
                (carrier.to_owned(), value["returned"]["tracking"].as_str().unwrap_or_default().to_owned())
            }),
            incomplete: text("incomplete_list"),
        })
    }

    /// Takes over the state that the service reports.
    pub fn learn(&mut self, answer: &Value, now: Timestamp) {
        let properties = &answer["properties"];
        let state = match self.api {
            Api::ImportExport => properties["state"].as_str(),
            Api::DataBox => properties["status"].as_str(),
        };
        if let Some(state) = state.filter(|state| !state.is_empty()) {
            state.clone_into(&mut self.state);
        }
        if self.is_over() {
            self.ended_at.get_or_insert(now);
        }
        for reported in properties["driveList"].as_array().into_iter().flatten() {
            self.learn_drive(reported);
        }
        for reported in properties["details"]["copyProgress"].as_array().into_iter().flatten() {
            self.learn_progress(reported);
        }
        for reported in properties["details"]["copyLogDetails"].as_array().into_iter().flatten() {
            let id = reported["serialNumber"].as_str().unwrap_or_default();
            if let Some(drive) = self.drives.iter_mut().find(|drive| drive.id.eq_ignore_ascii_case(id)) {
                drive.learn_logs(reported);
            }
        }
        if let Some(percent) = properties["percentComplete"].as_u64() {
            self.percent = Some(percent);
        }
        if let Some(address) = properties["incompleteBlobListUri"].as_str().filter(|address| !address.is_empty()) {
            self.incomplete = Some(address.to_owned());
        }
        let back = match self.api {
            Api::ImportExport => &properties["returnPackage"],
            Api::DataBox => &properties["details"]["returnToCustomerPackageDetails"],
        };
        let number = ["trackingNumber", "trackingId"].iter().find_map(|key| back[*key].as_str());
        if let (Some(carrier), Some(number)) =
            (back["carrierName"].as_str(), number.filter(|number| !number.is_empty()))
        {
            self.returned = Some((carrier.to_owned(), number.to_owned()));
        }
        let place = match self.api {
            Api::ImportExport => &properties["shippingInformation"],
            Api::DataBox => &properties["details"]["datacenterAddress"],
        };
        let lines = address_lines(place);
        if !lines.is_empty() {
            self.data_center = lines;
        }
    }
}

impl Job {
    /// Takes over a drive of the Import/Export API.
    fn learn_drive(&mut self, reported: &Value) {
        let text = |key: &str| reported[key].as_str().unwrap_or_default().to_owned();
        let id = text("driveId");
        let known = self.drives.iter().position(|drive| drive.id.eq_ignore_ascii_case(&id));
        // The drives of an export are known only once they have arrived.
        let at = match known {
            Some(at) => at,
            None if self.is_export && !id.is_empty() => {
                self.drives.push(Drive { id, ..Drive::default() });
                self.drives.len() - 1
            }
            None => return,
        };
        let drive = &mut self.drives[at];
        drive.state = text("state");
        drive.percent = reported["percentComplete"].as_u64();
        drive.copy_status = text("copyStatus");
        drive.bytes = reported["bytesSucceeded"].as_u64().or(drive.bytes);
        drive.learn_logs(reported);
        if self.is_export {
            (drive.manifest_file, drive.manifest_hash) = (text("manifestFile"), text("manifestHash"));
        }
    }

    /// Takes over the progress of a drive of a Data Box order.
    fn learn_progress(&mut self, reported: &Value) {
        let id = ["serialNumber", "diskSerialNumber"].iter().find_map(|key| reported[*key].as_str());
        let id = id.unwrap_or_default();
        let Some(drive) = self.drives.iter_mut().find(|drive| drive.id.eq_ignore_ascii_case(id)) else { return };
        reported["copyStatus"].as_str().unwrap_or_default().clone_into(&mut drive.copy_status);
        drive.bytes = reported["bytesProcessed"].as_u64();
        let total = reported["totalBytesToProcess"].as_u64().filter(|total| *total > 0);
        drive.percent =
            total.zip(drive.bytes).map(|(total, bytes)| (bytes.min(total) as u128 * 100 / total as u128) as u64);
    }
}

/// An address of the API as lines.
pub fn address_lines(place: &Value) -> Vec<String> {
    let text = |key: &str| place[key].as_str().unwrap_or_default().trim().to_owned();
    let first = |keys: &[&str]| keys.iter().map(|key| text(key)).find(|text| !text.is_empty()).unwrap_or_default();
    let town = [first(&["city"]), first(&["stateOrProvince", "state"]), first(&["postalCode", "zip"])];
    let town: Vec<String> = town.into_iter().filter(|part| !part.is_empty()).collect();
    [
        first(&["recipientName", "contactPersonName"]),
        first(&["streetAddress1", "street1"]),
        first(&["streetAddress2", "street2"]),
        town.join(", "),
        first(&["countryOrRegion", "country"]),
        first(&["phone"]),
        first(&["additionalInformation", "additionalShippingInformation"]),
    ]
    .into_iter()
    .filter(|line| !line.is_empty())
    .collect()
}

/// The file of a job in the directory of its journal or records.
pub fn path_of(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.job.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(state: &str) -> Job {
        Job {
            name: "j".into(),
            api: Api::ImportExport,
            resource: "/r".into(),
            location: "West US".into(),
            account: "a".into(),
            is_export: false,
            state: state.into(),
            drives: vec![Drive { id: "WD-1".into(), ..Drive::default() }],
            created_at: "2026-11-01T00:00:00Z".parse().expect("a time"),
            submitted_at: Some("2026-11-02T00:00:00Z".parse().expect("a time")),
            shipped_at: Some("2026-11-03T12:00:00Z".parse().expect("a time")),
            ended_at: Some("2026-12-01T00:00:00Z".parse().expect("a time")),
            carrier: None,
            tracking: None,
            return_carrier: "FedEx".into(),
            sender: vec!["A".into()],
            data_center: Vec::new(),
            journal: Some(("job.jrn".into(), "AB".into())),
            percent: None,
            returned: None,
            incomplete: None,
        }
    }

    #[test]
    fn what_the_service_says_of_copying_is_kept() {
        let file = std::env::temp_dir().join(format!("dray-job-copy-{}.job.json", std::process::id()));
        let mut arm = job("Shipping");
        arm.learn(
            &json!({ "properties": { "state": "Packaging", "percentComplete": 100,
                "returnPackage": { "carrierName": "FedEx", "trackingNumber": "9", "driveCount": 1, "shipDate": "d" },
                "driveList": [{ "driveId": "WD-1", "state": "CompletedMoreInfo", "copyStatus": "CompletedWithErrors",
                    "bytesSucceeded": 7, "errorLogUri": "https://a/waies/e.xml", "manifestUri": "" }] } }),
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!((arm.drives[0].bytes, arm.drives[0].logs.len(), arm.percent), (Some(7), 1, Some(100)));
        assert!(copy_meaning(&arm.drives[0].copy_status).contains("error log"));
        assert_eq!(arm.returned, Some(("FedEx".into(), "9".into())));
        arm.save(&file).expect("saved");
        assert_eq!(format!("{arm:?}"), format!("{:?}", Job::load(&file).expect("loaded")));
        let mut data_box = Job { api: Api::DataBox, ..job("DataCopy") };
        data_box.learn(
            &json!({ "properties": { "status": "DataCopy", "details": {
                "copyProgress": [{ "serialNumber": "wd-1", "copyStatus": "InProgress", "bytesProcessed": 50,
                    "totalBytesToProcess": 200 }],
                "copyLogDetails": [{ "serialNumber": "WD-1", "verboseLogLink": "https://a/databoxcopylog/v.xml" }] } } }),
            Timestamp::UNIX_EPOCH,
        );
        let drive = &data_box.drives[0];
        assert_eq!((drive.percent, drive.copy_status.as_str(), drive.logs.len()), (Some(25), "InProgress", 1));
        std::fs::remove_file(file).expect("removed");
    }

    #[test]
    fn the_clocks_are_two_weeks_and_ninety_days() {
        for (state, deadline) in [
            ("Drafted", None),
            ("Creating", Some("2026-11-16T00:00:00Z")),
            ("Shipping", Some("2026-11-17T12:00:00Z")),
            ("Transferring", None),
            ("Completed", Some("2027-03-01T00:00:00Z")),
            ("Closed", Some("2027-03-01T00:00:00Z")),
        ] {
            assert_eq!(job(state).deadline().map(|(at, _)| at.to_string()).as_deref(), deadline, "{state}");
            assert!(!job(state).next(Path::new("j.job.json")).is_empty());
        }
    }

    #[test]
    fn every_state_of_the_tables_has_a_meaning() {
        for (state, _) in IMPORT_EXPORT {
            assert_ne!(job(state).meaning(), "not in the published table");
        }
        for (state, _) in DATA_BOX {
            assert_ne!(Job { api: Api::DataBox, ..job(state) }.meaning(), "not in the published table");
        }
        assert_eq!(job("Surprise").meaning(), "not in the published table");
    }

    #[test]
    fn what_is_saved_is_what_is_loaded() {
        let file = std::env::temp_dir().join(format!("dray-job-{}.job.json", std::process::id()));
        let mut before = job("Creating");
        before.learn(
            &json!({ "properties": { "state": "Transferring", "driveList": [
                { "driveId": "wd-1", "state": "Transferring", "percentComplete": 7 } ],
                "shippingInformation": { "recipientName": "M", "city": "C", "postalCode": "1" } } }),
            Timestamp::UNIX_EPOCH,
        );
        before.save(&file).expect("saved");
        let after = Job::load(&file).expect("loaded");
        assert_eq!(format!("{before:?}"), format!("{after:?}"));
        assert_eq!(after.data_center, ["M", "C, 1"]);
        std::fs::remove_file(file).expect("removed");
    }
}
