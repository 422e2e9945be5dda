//! Request bodies, for both APIs. Keys are placeholders until a body is sent or written to a private file.

use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::Api;
use super::description::{ADDRESS, Description, JobDrive};

/// The placeholder for a drive's key.
fn mark(drive: &JobDrive) -> String {
    format!("<BitLocker key: in {}>", drive.record.file_name().unwrap_or_default().to_string_lossy())
}

/// The body that creates a job.
pub fn create(api: Api, job: &Description, drives: &[JobDrive]) -> Value {
    let mut body = match api {
        Api::ImportExport => import_export(job, drives),
        Api::DataBox => data_box(job, drives),
    };
    job.extras.add_to(api, &mut body);
    body
}

fn import_export(job: &Description, drives: &[JobDrive]) -> Value {
    let list: Vec<Value> = drives
        .iter()
        .map(|drive| {
            json!({
                "driveId": drive.id,
                "bitLockerKey": mark(drive),
                "manifestFile": drive.manifest_file,
                "manifestHash": drive.manifest_hash,
                "driveHeaderHash": drive.header_hash,
            })
        })
        .collect();
    let mut properties = json!({
        "storageAccountId": job.storage_account,
        "returnAddress": address(job),
        "returnShipping": { "carrierName": job.carrier, "carrierAccountNumber": job.account },
        "diagnosticsPath": job.diagnostics,
        "logLevel": job.log_level,
        "backupDriveManifest": job.backup_manifest,
    });
    match &job.export {
        // The service learns of the drives of an export when they arrive.
        Some(export) => {
            properties["jobType"] = "Export".into();
            properties["export"] = export.body();
        }
        None => {
            properties["jobType"] = "Import".into();
            properties["driveList"] = list.into();
        }
    }
    json!({ "location": job.location, "properties": properties })
}

/// The return address under the API's field names, without empty fields.
pub fn address(job: &Description) -> Value {
    let fields = ADDRESS.iter().filter(|(key, _, _)| !job.address(key).is_empty());
    Value::Object(fields.map(|(key, name, _)| ((*name).to_owned(), Value::from(job.address(key)))).collect())
}

fn data_box(job: &Description, drives: &[JobDrive]) -> Value {
    let disks: Map<String, Value> = drives
        .iter()
        .map(|drive| {
            let disk = json!({
                "manifestFile": drive.manifest_file,
                "manifestHash": drive.manifest_hash,
                "bitLockerKey": mark(drive),
            });
            (drive.id.clone(), disk)
        })
        .collect();
    let mut shipping = Map::new();
    for (key, name) in [
        ("street", "streetAddress1"),
        ("street2", "streetAddress2"),
        ("city", "city"),
        ("state", "stateOrProvince"),
        ("country", "country"),
        ("postal-code", "postalCode"),
    ] {
        if !job.address(key).is_empty() {
            shipping.insert(name.into(), job.address(key).into());
        }
    }
    let mut details = json!({
        "jobDetailsType": "DataBoxCustomerDisk",
        "contactDetails": {
            "contactName": job.address("recipient"),
            "phone": job.address("phone"),
            "emailList": [job.address("email")],
        },
        "shippingAddress": shipping,
        "returnToCustomerPackageDetails": {
            "carrierName": job.carrier,
            "carrierAccountNumber": job.account,
        },
        "enableManifestBackup": job.backup_manifest,
    });
    let account = json!({ "dataAccountType": "StorageAccount", "storageAccountId": job.storage_account });
    let direction = match &job.export {
        Some(export) => {
            details["dataExportDetails"] = json!([{
                "transferConfiguration": export.configuration(),
                "accountDetails": account,
                "logCollectionLevel": job.log_level,
            }]);
            "ExportFromAzure"
        }
        None => {
            details["dataImportDetails"] = json!([{ "accountDetails": account, "logCollectionLevel": job.log_level }]);
            details["importDiskDetailsCollection"] = disks.into();
            "ImportToAzure"
        }
    };
    json!({
        "location": job.location.to_ascii_lowercase().replace(' ', ""),
        "sku": { "name": "DataBoxCustomerDisk" },
        "properties": { "transferType": direction, "details": details },
    })
}

/// The body that reports the parcel as shipped.
pub fn ship(api: Api, carrier: &str, tracking: &str, drives: usize, date: &str) -> Value {
    match api {
        Api::ImportExport => json!({
            "properties": {
                "state": "Shipping",
                "deliveryPackage": {
                    "carrierName": carrier,
                    "trackingNumber": tracking,
                    "driveCount": drives,
                    "shipDate": date,
                },
            },
        }),
        Api::DataBox => {
            json!({ "deliverToDcPackageDetails": { "carrierName": carrier, "trackingId": tracking } })
        }
    }
}

/// The body that changes what of a job can be changed.
pub fn update(api: Api, job: &Description) -> Value {
    let whole = create(api, job, &[]);
    let from = match api {
        Api::ImportExport => &whole["properties"],
        Api::DataBox => &whole["properties"]["details"],
    };
    let keys: &[&str] = match api {
        Api::ImportExport => &["returnAddress", "returnShipping", "logLevel", "backupDriveManifest"],
        Api::DataBox => &["contactDetails", "shippingAddress", "returnToCustomerPackageDetails", "keyEncryptionKey"],
    };
    let known = keys.iter().filter_map(|key| Some(((*key).to_owned(), from.get(*key)?.clone())));
    let some: Map<String, Value> = known.collect();
    let mut body = match api {
        Api::ImportExport => json!({ "properties": some }),
        Api::DataBox => json!({ "properties": { "details": some } }),
    };
    for key in ["tags", "identity"] {
        if let Some(value) = whole.get(key) {
            body[key] = value.clone();
        }
    }
    body
}

/// The body that cancels a job.
pub fn cancel(api: Api, reason: &str) -> Value {
    match api {
        Api::ImportExport => json!({ "properties": { "cancelRequested": true } }),
        Api::DataBox => json!({ "reason": reason }),
    }
}

/// The body as it is sent, keys in their places; wiped on drop.
pub fn with_keys(body: &Value, drives: &[JobDrive]) -> Zeroizing<String> {
    let plain = format!("{body:#}");
    // Room for all of it at once: growing would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(plain.len() + 64 * drives.len()));
    let mut rest = plain.as_str();
    'text: while !rest.is_empty() {
        let next = drives
            .iter()
            .filter_map(|drive| rest.find(&json_text(&mark(drive))).map(|at| (at, drive)))
            .min_by_key(|(at, _)| *at);
        let Some((at, drive)) = next else { break 'text };
        text.push_str(&rest[..at]);
        text.push('"');
        // Digits and hyphens, which was checked: nothing to escape.
        text.push_str(drive.key.expose());
        text.push('"');
        rest = &rest[at + json_text(&mark(drive)).len()..];
    }
    text.push_str(rest);
    text
}

fn json_text(text: &str) -> String {
    Value::from(text).to_string()
}
