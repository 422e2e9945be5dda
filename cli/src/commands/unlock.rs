//! `dray unlock`: does the key open the drive, and how is it mounted?

use std::path::PathBuf;

use clap::Args;
use dray_engine::api::inspect::{Opened, State, find};
use dray_engine::report::Problem;
use serde_json::json;

use crate::exit::Exit;
use crate::key::KeyArgs;
use crate::render::{Output, json as object, wrap};

/// Arguments of `dray unlock`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Nothing is mounted and nothing is written: it answers whether the key opens the drive, and how to \
                        mount it.\n\nExamples:\n  \
                        dray unlock /dev/sdb                          asks for the key\n  \
                        dray unlock /dev/sdb --key-file 9WM35C2V.xml  a drive record\n  \
                        dray unlock /dev/sdb --key-fd 3 3<key.txt"
)]
pub struct Unlock {
    /// Drive or image file; without it the only drive with a BitLocker volume
    #[arg(value_name = "DRIVE")]
    drive: Option<PathBuf>,
    /// Number of the partition; else a bare volume, or the first data partition
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    #[command(flatten)]
    key: KeyArgs,
}

impl Unlock {
    /// Tries the key.
    pub fn run(self, output: &Output) -> Exit {
        match self.open(output) {
            Ok(opened) => report(&opened, output),
            Err(problem) => output.problem(problem),
        }
    }

    fn open(self, output: &Output) -> Result<Opened, Problem> {
        let drive = self.drive.map_or_else(find::only_bitlocker, Ok)?;
        self.key.read()?.open(&drive, self.partition, output)
    }
}

fn report(opened: &Opened, output: &Output) -> Exit {
    let name = &opened.found.drive.name;
    let mount = mounting(opened);
    let unlocked = opened.unlocked.as_ref();
    let value = json!({
        "drive": object::facts(&opened.found.drive),
        "partition": opened.found.partition.as_ref().map(|partition| partition.number),
        "opens": true,
        "encrypted": unlocked.is_some(),
        "by": unlocked.map(|unlocked| unlocked.by),
        "protector": unlocked.map(|unlocked| unlocked.protector.to_string()),
        "cipher": unlocked.map(|unlocked| unlocked.cipher.to_string()),
        "warnings": opened.warnings(),
        "mount": mount,
    });
    if output.result("unlock", value) {
        return Exit::Done;
    }
    let text = match unlocked {
        Some(unlocked) => format!(
            "{name}: the {} opens the drive (protector {}, {})\n",
            unlocked.by, unlocked.protector, unlocked.cipher
        ),
        None => format!("{name}: the volume is not encrypted, no key is needed\n"),
    };
    let mut text = wrap(&text, "  ");
    text.push_str("To mount it, read-only, as root:\n");
    mount.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
    text.push_str("Without mounting: `dray ls`, `cat`, `verify` and `decrypt` read it as it is.\n");
    output.say(&text);
    Exit::Done
}

/// Shell lines that mount the volume with the kernel's own means.
fn mounting(opened: &Opened) -> Vec<String> {
    let found = &opened.found;
    let path = quoted(&found.drive.path.to_string_lossy());
    let mut lines = Vec::new();
    let node = match (&found.partition, found.drive.is_image) {
        (Some(partition), false) => {
            // Names that end in a digit take a p before the partition's number: nvme0n1p1.
            let p = if path.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
            format!("{path}{p}{}", partition.number)
        }
        (None, false) => path.clone(),
        (partition, true) => {
            lines.push(format!("loop=$(losetup --find --show --read-only --partscan {path})"));
            match partition {
                Some(partition) => format!("\"$loop\"p{}", partition.number),
                None => "\"$loop\"".to_owned(),
            }
        }
    };
    let state = found.bitlocker().map(|volume| volume.state());
    match (state, opened.unlocked.as_ref()) {
        // States that the kernel's driver refuses: interrupted conversions, and metadata without encryption.
        (Some(State::Partial { .. } | State::Converting { .. } | State::Decrypted), _) => {
            lines = vec![
                format!("dray decrypt {path} --to volume.img   # no driver of Linux reads a volume in this state"),
                "mount -o ro,loop volume.img /mnt".to_owned(),
            ];
        }
        (Some(State::Encrypted), Some(unlocked)) => {
            let how = match unlocked.by {
                "external key" => " --key-file KEY.BEK",
                "clear key" => "   # cryptsetup 2.8 or later",
                _ => "   # asks for the same key",
            };
            lines.push(format!("cryptsetup open --type bitlk --readonly {node} dray{how}"));
            lines.push("mount -o ro /dev/mapper/dray /mnt".to_owned());
        }
        _ => lines.push(format!("mount -o ro {node} /mnt")),
    }
    lines
}

/// `path` quoted for a shell where necessary.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | ':' | '+' | '=' | ',' | '@');
    if path.chars().all(plain) { path.to_owned() } else { format!("'{}'", path.replace('\'', "'\\''")) }
}
