//! `dray inspect`: partitions and encryption of a drive, without a key; with one, its file system too.

use clap::Args;
use dray_engine::api::inspect::{BackupBoot, CopyState, Files, Form, Found, Inside, Integrity, Opened, files, find};
use dray_engine::report::{Kind, Problem};
use serde_json::{Value, json};

use crate::commands::ls::time;
use crate::exit::Exit;
use crate::key::DriveArgs;
use crate::render::text::fold_values;
use crate::render::{Output, clean, count, json as object};

/// Arguments of `dray inspect`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "No key is needed. With one (--key-file, --key-fd, --ask) the facts of NTFS are shown, too.\n\n\
                        Examples:\n  dray inspect /dev/sdb\n  dray inspect /dev/sdb --key-file 9WM35C2V.xml --files"
)]
pub struct Inspect {
    #[command(flatten)]
    drive: DriveArgs,
    /// Ask for the key
    #[arg(long)]
    ask: bool,
    /// Read all of $MFT and the directories too: count files, name damage
    #[arg(long)]
    files: bool,
}

impl Inspect {
    /// Prints partitions, BitLocker and, with a key, NTFS facts.
    pub fn run(self, output: &Output) -> Exit {
        match self.look(output) {
            Ok(exit) => exit,
            Err(problem) => output.problem(problem),
        }
    }

    fn look(self, output: &Output) -> Result<Exit, Problem> {
        let keys = self.drive.key.read()?;
        let found = find::open(&self.drive.drive, self.drive.partition)?;
        let outside = outside(&found);
        let warnings = found.warnings();
        let mut text = drive_text(&found);
        let wants_key = keys.are_given() || self.ask || !found.needs_key();
        let can_open = matches!(found.inside, Inside::BitLocker(_) | Inside::Ntfs);
        let damage = match &found.inside {
            Inside::Damaged(what) => Some(Problem::new(Kind::Drive, what).drive(&found.drive.name)),
            Inside::Missing(problem) => Some(problem.clone()),
            _ => None,
        };
        let (drive, partition) = (&self.drive.drive, self.drive.partition);
        let opened = (can_open && wants_key).then(|| keys.open_found(found, drive, partition, output));
        let mut inside = Value::Null;
        let mut problem = None;
        let mut warnings = warnings;
        match &opened {
            None if can_open => text.push_str("NTFS facts      need a key: --key-file, --key-fd or --ask\n"),
            None => {}
            Some(Err(error)) => problem = Some(error.clone()),
            Some(Ok(opened)) => {
                warnings = opened.warnings();
                match self.inside(opened, &mut warnings) {
                    Ok((more, value)) => {
                        text.push_str(&more);
                        inside = value;
                    }
                    Err(error) => problem = Some(error),
                }
            }
        }
        let mut value = outside;
        value["ntfs"] = inside;
        value["warnings"] = json!(warnings);
        if !output.result("inspect", value) {
            output.say(&fold_values(&text));
            warnings.iter().for_each(|warning| output.warning(warning));
        }
        problem.or(damage).map_or(Ok(Exit::Done), Err)
    }

    fn inside(&self, opened: &Opened, warnings: &mut Vec<String>) -> Result<(String, Value), Problem> {
        let volume = files::ntfs(opened)?;
        let (geometry, facts) = (*volume.geometry(), volume.facts().clone());
        let label = String::from_utf16_lossy(&facts.label);
        let mut text = unlocked_text(opened);
        text.push_str(&format!(
            "NTFS            {}.{}, label \"{}\", serial {:016X}{}\n",
            facts.version.0,
            facts.version.1,
            clean(&label),
            geometry.serial,
            if facts.is_dirty() { ", dirty" } else { "" }
        ));
        text.push_str(&format!(
            "                {} clusters of {} bytes, sectors of {}, records of {}, index blocks of {}\n",
            geometry.clusters,
            geometry.cluster.bytes(),
            geometry.sector_bytes,
            geometry.record_bytes,
            geometry.index_block_bytes
        ));
        let log = format!("{:?}", facts.log).to_lowercase();
        let backup = match facts.backup_boot {
            BackupBoot::Equal => "equal",
            BackupBoot::Different => "different",
            BackupBoot::Missing => "missing",
            BackupBoot::InUse => "in use",
        };
        text.push_str(&format!("                journal {log}, copy of the boot sector {backup}\n"));
        let mut value = json!({
            "version": format!("{}.{}", facts.version.0, facts.version.1),
            "label": label,
            "serial": format!("{:016X}", geometry.serial),
            "clusters": geometry.clusters,
            "cluster_size": geometry.cluster.bytes(),
            "sector_size": geometry.sector_bytes,
            "record_size": geometry.record_bytes,
            "index_block_size": geometry.index_block_bytes,
            "records": volume.record_count(),
            "dirty": facts.is_dirty(),
            "journal": log,
            "backup_boot": backup,
            "hibernated": facts.hibernated,
        });
        if self.files {
            let files = Files::read(opened)?;
            let (line, counts) = tree(&files);
            text.push_str(&line);
            for (name, count) in counts {
                value[name] = count.into();
            }
            warnings.extend(files.warnings());
        } else {
            warnings.extend(files::warnings(&volume));
        }
        Ok((text, value))
    }
}

fn directories_text(n: u64) -> String {
    count(n, "directory")
}

fn drive_text(found: &Found) -> String {
    let drive = &found.drive;
    let mut text = format!("Drive           {} ({})\n", clean(&drive.name), drive.size);
    if let Some(model) = &drive.model {
        text.push_str(&format!("                {}\n", clean(model)));
    }
    let serial = found.serial.as_deref().map_or("no serial".to_owned(), |serial| format!("serial {}", clean(serial)));
    text.push_str(&format!("                {serial}, sectors of {} bytes\n", drive.sector));
    text.push_str(&table_text(found));
    match &found.inside {
        Inside::Missing(_) => {}
        Inside::Ntfs => text.push_str("Volume          NTFS, not encrypted\n"),
        Inside::Unknown => text.push_str("Volume          neither BitLocker's nor NTFS\n"),
        Inside::Damaged(_) => text.push_str("Volume          BitLocker's, damaged beyond use\n"),
        Inside::BitLocker(_) => text.push_str(&bitlocker_text(found)),
    }
    text
}

fn table_text(found: &Found) -> String {
    let Some(table) = &found.table else { return "Partitions      none: a bare volume\n".to_owned() };
    let kind = if table.from_mbr {
        "MBR".to_owned()
    } else {
        let both = match (&table.primary, &table.backup) {
            (CopyState::Good, CopyState::Good) if table.copies_agree => ", equal",
            (CopyState::Good, CopyState::Good) => ", DIFFERENT",
            _ => "",
        };
        format!("GPT; first copy {}, second copy {}{both}", copy(&table.primary), copy(&table.backup))
    };
    let mut text = format!("Partitions      {kind}\n");
    for entry in &table.partitions {
        let used = found.partition.as_ref().is_some_and(|used| used.number == entry.number);
        text.push_str(&format!(
            "{:>15} {} bytes {} to {}{}{}\n",
            format!("{}{}", if used { "> " } else { "" }, entry.number),
            entry.purpose(),
            entry.range.start,
            entry.range.end(),
            if entry.name.is_empty() { String::new() } else { format!(", \"{}\"", clean(&entry.name)) },
            if entry.inside { "" } else { ", NOT wholly on the drive" },
        ));
    }
    text
}

fn bitlocker_text(found: &Found) -> String {
    let Some(volume) = found.bitlocker() else { return String::new() };
    let metadata = &volume.metadata;
    let cipher = metadata.cipher().map_or(format!("unknown method {:#06x}", metadata.method), |c| c.to_string());
    let mut text = format!(
        "BitLocker       {}; {cipher}, sectors of {} bytes\n",
        form(volume.boot.form),
        volume.boot.sector.bytes()
    );
    text.push_str(&format!("                {}\n", volume.state()));
    if let Some(extended) = &metadata.extended {
        let [major, minor, build] = extended.os;
        let used = if extended.used_space_only() { "; used space only" } else { "" };
        text.push_str(&format!("                by Windows {major}.{minor} build {build}{used}\n"));
    }
    text.push_str(&format!("                volume {}", metadata.volume_id));
    let created = time(metadata.created);
    text.push_str(&if created.is_empty() { "\n".to_owned() } else { format!(", encrypted {created}\n") });
    if let Some(description) = &metadata.description {
        text.push_str(&format!("                \"{}\"\n", clean(description)));
    }
    for (index, one) in volume.copies.iter().enumerate() {
        let fault = one.fault.as_ref().map_or("good".to_owned(), |fault| format!("DAMAGED: {fault}"));
        text.push_str(&format!("Metadata copy {} at byte {}: {fault}\n", index + 1, one.at));
    }
    for protector in &metadata.protectors {
        let changed = time(protector.changed);
        let label = protector.label.as_ref().map_or(String::new(), |label| format!(", \"{}\"", clean(label)));
        let fault = if protector.fault.is_some() { ", DAMAGED" } else { "" };
        text.push_str(&format!(
            "Protector       {{{}}} {}{label}, {changed}{fault}\n",
            protector.id.to_string().to_uppercase(),
            protector.kind
        ));
    }
    text
}

fn outside(found: &Found) -> Value {
    json!({
        "drive": object::facts(&found.drive),
        "serial": found.serial,
        "table": table_json(found),
        "partition": found.partition.as_ref().map(|partition| partition.number),
        "volume": { "start": found.volume.start.0, "length": found.volume.len.0 },
        "inside": match &found.inside {
            Inside::BitLocker(_) => "bitlocker",
            Inside::Ntfs => "ntfs",
            Inside::Damaged(_) => "damaged",
            Inside::Missing(_) => "missing",
            Inside::Unknown => "unknown",
        },
        "bitlocker": bitlocker_json(found),
    })
}

fn table_json(found: &Found) -> Option<Value> {
    let table = found.table.as_ref()?;
    let partitions: Vec<Value> = table
        .partitions
        .iter()
        .map(|entry| {
            json!({
                "number": entry.number,
                "purpose": entry.purpose(),
                "type": entry.kind.to_string(),
                "unique": entry.unique.to_string(),
                "start": entry.range.start.0,
                "length": entry.range.len.0,
                "name": entry.name,
                "inside": entry.inside,
            })
        })
        .collect();
    Some(json!({
        "kind": if table.from_mbr { "mbr" } else { "gpt" },
        "primary": copy(&table.primary),
        "backup": copy(&table.backup),
        "copies_agree": table.copies_agree,
        "sector_size": table.sector.map(|sector| sector.bytes()),
        "flaws": table.flaws.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "disk": table.disk.map(|disk| disk.to_string()),
        "partitions": partitions,
    }))
}

fn bitlocker_json(found: &Found) -> Option<Value> {
    let volume = found.bitlocker()?;
    let metadata = &volume.metadata;
    let copies: Vec<Value> = volume
        .copies
        .iter()
        .map(|one| json!({ "at": one.at.0, "fault": one.fault.as_ref().map(ToString::to_string) }))
        .collect();
    let protectors: Vec<Value> = metadata
        .protectors
        .iter()
        .map(|protector| {
            json!({
                "id": protector.id.to_string(),
                "kind": protector.kind.to_string(),
                "label": protector.label,
                "changed": time(protector.changed),
                "damaged": protector.fault.is_some(),
            })
        })
        .collect();
    Some(json!({
        "form": form(volume.boot.form),
        "cipher": metadata.cipher().map(|cipher| cipher.to_string()),
        "method": metadata.method,
        "sector_size": volume.boot.sector.bytes(),
        "state": volume.state().to_string(),
        "suspended": volume.is_suspended(),
        "used_space_only": metadata.extended.map(|extended| extended.used_space_only()),
        "os": metadata.extended.map(|extended| extended.os),
        "volume_id": metadata.volume_id.to_string(),
        "created": time(metadata.created),
        "description": metadata.description,
        "copies": copies,
        "copies_equal": volume.copies_are_equal(),
        "protectors": protectors,
    }))
}

fn unlocked_text(opened: &Opened) -> String {
    let Some(unlocked) = &opened.unlocked else { return String::new() };
    format!(
        "Unlocked        by the {}, protector {}; metadata {}\n",
        unlocked.by,
        unlocked.protector,
        match unlocked.integrity {
            Integrity::Proven => "proven unchanged",
            Integrity::NoHash => "without a hash that proves it",
            _ => "NOT proven unchanged",
        }
    )
}

/// Files and directories of the volume in words, and as counts by name.
fn tree(files: &Files) -> (String, [(&'static str, u64); 4]) {
    let (mut here, mut directories, mut bytes) = (0_u64, 0_u64, 0_u64);
    for id in files.catalog.files().filter(|id| !files.catalog.is_metafile(*id)) {
        let info = files.catalog.info(id);
        if !info.reachable {
            // Damage, which is counted there.
        } else if info.directory {
            directories += 1;
        } else {
            (here, bytes) = (here + 1, bytes.saturating_add(info.size));
        }
    }
    let damaged = files.catalog.problem_count();
    let line = format!(
        "                {} in {}, {bytes} bytes; {}\n",
        count(here, "file"),
        directories_text(directories),
        if damaged == 0 { "no damage in $MFT and directories".to_owned() } else { count(damaged, "damaged place") }
    );
    (line, [("files", here), ("directories", directories), ("bytes", bytes), ("damaged", damaged)])
}

fn form(form: Form) -> &'static str {
    match form {
        Form::Vista => "as Windows Vista lays it out",
        Form::Seven => "as Windows 7 and later lay it out",
        Form::ToGo => "To Go",
    }
}

fn copy(state: &CopyState) -> String {
    match state {
        CopyState::Absent => "absent".to_owned(),
        CopyState::Good => "good".to_owned(),
        CopyState::Bad(what) => format!("BAD ({what})"),
    }
}
