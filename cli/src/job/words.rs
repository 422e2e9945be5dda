//! The same job as commands of other tools.

use super::description::{Description, JobDrive};

/// The shell command for Azure's own tool, without keys: `az` reads `name=@FILE` from the file.
pub fn az(job: &Description, drives: &[JobDrive], key_file: &dyn Fn(&JobDrive) -> String) -> String {
    let mut text = format!(
        "az import-export create --name {} --resource-group {} \\\n  --location {} --type {} \\\n  \
         --storage-account {} \\\n  --log-level {} --backup-drive-manifest {} \\\n  --diagnostics-path {} \\\n",
        quoted(&job.name),
        quoted(&job.group),
        quoted(&job.location),
        if job.export.is_some() { "Export" } else { "Import" },
        quoted(&job.storage_account),
        job.log_level,
        job.backup_manifest,
        quoted(&job.diagnostics)
    );
    for drive in drives {
        text.push_str(&format!(
            "  --drive-list drive-id={} \\\n    bit-locker-key=@{} \\\n    manifest-file={} \\\n    \
             manifest-hash={} drive-header-hash={} \\\n",
            quoted(&drive.id),
            quoted(&key_file(drive)),
            quoted(&drive.manifest_file),
            drive.manifest_hash,
            quoted(&drive.header_hash),
        ));
    }
    if let Some(export) = &job.export {
        text.push_str("  --export");
        export.words().iter().for_each(|word| text.push_str(&format!(" \\\n    {}", quoted(word))));
        text.push_str(" \\\n");
    }
    text.push_str("  --return-address");
    for (key, name) in [
        ("recipient", "recipient-name"),
        ("street", "street-address1"),
        ("street2", "street-address2"),
        ("city", "city"),
        ("state", "state-or-province"),
        ("postal-code", "postal-code"),
        ("country", "country-or-region"),
        ("phone", "phone"),
        ("email", "email"),
    ] {
        if !job.address(key).is_empty() {
            text.push_str(&format!(" \\\n    {name}={}", quoted(job.address(key))));
        }
    }
    text.push_str(&format!(
        " \\\n  --return-shipping carrier-name={} \\\n    carrier-account-number={}\n",
        quoted(&job.carrier),
        quoted(&job.account)
    ));
    text
}

/// The same for PowerShell.
pub fn powershell(job: &Description, drives: &[JobDrive], key_file: &dyn Fn(&JobDrive) -> String) -> String {
    let single = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let list: Vec<String> = drives
        .iter()
        .map(|drive| {
            format!(
                "  @{{ DriveId = {}; BitLockerKey = (Get-Content {});\n     ManifestFile = {}; ManifestHash = {};\n     \
                 DriveHeaderHash = {} }}",
                single(&drive.id),
                single(&key_file(drive)),
                single(&drive.manifest_file),
                single(&drive.manifest_hash),
                single(&drive.header_hash)
            )
        })
        .collect();
    let mut text = format!(
        "$drives = @(\n{}\n)\nNew-AzImportExport -Name {} -ResourceGroupName {} `\n  -Location {} -JobType Import `\n  \
         -StorageAccountId {} `\n  -LogLevel {} -DiagnosticsPath {} `\n",
        list.join(",\n"),
        single(&job.name),
        single(&job.group),
        single(&job.location),
        single(&job.storage_account),
        job.log_level,
        single(&job.diagnostics)
    );
    if job.backup_manifest {
        text.push_str("  -BackupDriveManifest `\n");
    }
    for (key, name) in [
        ("recipient", "ReturnAddressRecipientName"),
        ("street", "ReturnAddressStreetAddress1"),
        ("street2", "ReturnAddressStreetAddress2"),
        ("city", "ReturnAddressCity"),
        ("state", "ReturnAddressStateOrProvince"),
        ("postal-code", "ReturnAddressPostalCode"),
        ("country", "ReturnAddressCountryOrRegion"),
        ("phone", "ReturnAddressPhone"),
        ("email", "ReturnAddressEmail"),
    ] {
        if !job.address(key).is_empty() {
            text.push_str(&format!("  -{name} {} `\n", single(job.address(key))));
        }
    }
    text.push_str(&format!(
        "  -ReturnShippingCarrierName {} `\n  -ReturnShippingCarrierAccountNumber {} `\n  -DriveList $drives\n",
        single(&job.carrier),
        single(&job.account)
    ));
    text
}

/// `text` quoted for a shell.
fn quoted(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/' | b'@' | b':' | b',' | b'+');
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}
