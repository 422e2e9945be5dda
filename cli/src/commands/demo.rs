//! `dray demo`: a complete session on a disk image, with no privilege and no hardware.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use dray_engine::api::prepare::PrepRequest;
use dray_engine::report::{Kind, Problem, Problems};

use super::ingest::IngestArgs;
use super::prep;
use crate::account::AccountArgs;
use crate::consent::Consent;
use crate::exit::Exit;
use crate::render::{Output, count, wrap};

/// Marks a directory as made by the demo, so that only such a directory is ever replaced.
const MARK: &str = ".dray-demo";
/// Names that a demo creates and an earlier one may have left. Nothing else is ever removed.
const OURS: &[&str] = &["data", "logs", "dataset.csv", "driveset.csv", "demo.img", "demo.jrn", "DEMO.xml"];
/// Size of the image as the driveset writes it.
const SIZE: &str = "256MB";
/// Seed of the file contents: every demo makes the same files.
const SEED: u64 = 0x0064_7261_7920_6465;

/// Arguments of `dray demo`.
#[derive(Args, Debug)]
#[command(after_help = "With --endpoint the drive is imported into that account too, as the service would.\n\n\
                        Examples:\n  dray demo --dir /tmp/dray-demo\n  \
                        dray demo --endpoint http://127.0.0.1:10000/devstoreaccount1 --account-key-file key")]
pub struct Demo {
    /// Directory of the demo
    #[arg(long, value_name = "DIR", default_value = "dray-demo")]
    dir: PathBuf,
    /// Keep an earlier demo: refuse instead of replacing it
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    account: AccountArgs,
}

impl Demo {
    /// Makes a dataset, prepares an image, and prints the commands to inspect it.
    pub fn run(self, output: &Output) -> Exit {
        // A wrong account is refused before anything is made.
        if self.account.is_given()
            && !self.account.asks()
            && let Err(problem) = self.account.open(None)
        {
            return output.problem(problem);
        }
        let made = match self.lay_out() {
            Ok(made) => made,
            Err(problems) => {
                output.problems(&problems);
                return Exit::of_problems(&problems);
            }
        };
        let style = output.style();
        let dir = self.dir.display();
        let made_of = format!(
            "  {dir}/data: {}, {}; some empty, some large, some with names that no Windows could hold",
            count(made.files, "file"),
            dray_engine::units::ByteLen(made.bytes),
        );
        output.chat(&format!("{}\n{}\n", style.bold("1. A small dataset"), wrap(&made_of, "")));
        output.chat(&format!(
            "{}\n{}\n{}\n",
            style.bold("2. Two tables: what to copy, and onto which drives"),
            shown(&self.dir.join("dataset.csv"), &made.dataset),
            shown(&self.dir.join("driveset.csv"), &made.driveset)
        ));
        output.chat(&format!(
            "{}\n  dray prep-import --journal {dir}/demo.jrn --id demo#1 --silent \\\n    \
             --initial-driveset {dir}/driveset.csv --dataset {dir}/dataset.csv \\\n    \
             --logdir {dir}/logs --drive-id DEMO --not-for-shipping\n\n",
            style.bold("3. The drive, with the same command that you would use")
        ));
        let request = PrepRequest {
            initial_driveset: Some(self.dir.join("driveset.csv")),
            dataset: Some(self.dir.join("dataset.csv")),
            logdir: Some(self.dir.join("logs")),
            drive_ids: vec![(String::new(), "DEMO".into())],
            not_for_shipping: true,
            ..PrepRequest::new(self.dir.join("demo.jrn"), "demo#1")
        };
        let consent = Consent { silent: true, serials: Vec::new() };
        let ended = prep::session(request, &consent, false, output);
        let record = ended.report.as_ref().and_then(|report| report.drives.first()?.record.clone());
        if let (Exit::Done, Some(record)) = (ended.exit, record) {
            output.chat(&format!(
                "\n{}\n{}",
                style.bold("4. Look into it with tools that are not ours"),
                look(&self.dir, &record)
            ));
            if self.account.is_given() {
                return self.import(&record, output);
            }
        }
        ended.exit
    }

    /// Imports the drive into the account, as the service does in its data center.
    fn import(&self, record: &Path, output: &Output) -> Exit {
        let dir = quoted(&self.dir);
        output.chat(&format!(
            "\n{}\n  dray ingest {dir}/demo.img --record {} --endpoint URL\n\n",
            output.style().bold("5. Import it into the account, as the service does"),
            quoted(record)
        ));
        let import =
            IngestArgs::of(self.dir.join("demo.img"), record.to_owned(), self.account.clone(), self.dir.join("logs"));
        import.run(output)
    }

    fn lay_out(&self) -> Result<Made, Problems> {
        let failed = |error: io::Error| -> Problems {
            Problem::new(Kind::Environment, format!("the demo could not be laid out: {error}")).path(&self.dir).into()
        };
        self.clear()?;
        fs::create_dir_all(&self.dir).map_err(failed)?;
        fs::write(self.dir.join(MARK), "made by dray demo; `dray demo` replaces it\n").map_err(failed)?;
        make(&self.dir).map_err(failed)
    }

    /// Removes an earlier demo. A directory with anything in it that no demo made stays as it is.
    fn clear(&self) -> Result<(), Problems> {
        let failed = |error: io::Error| -> Problems {
            Problem::new(Kind::Environment, format!("the directory cannot be used: {error}")).path(&self.dir).into()
        };
        let mut names = Vec::new();
        match fs::read_dir(&self.dir) {
            Ok(entries) => {
                for entry in entries {
                    names.push(entry.map_err(failed)?.file_name());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        }
        if names.is_empty() {
            return Ok(());
        }
        let refused = |what: &str| -> Problems {
            Problem::new(Kind::Refused, what.to_owned())
                .path(&self.dir)
                .advice("name another directory: dray demo --dir DIR")
                .into()
        };
        if !names.iter().any(|name| name == MARK) {
            return Err(refused("the directory is not empty and no demo made it; nothing was touched"));
        }
        if self.keep {
            return Err(refused("an earlier demo is here and is kept; nothing was touched"));
        }
        for name in names.iter().filter(|name| OURS.iter().any(|ours| *name == *ours)) {
            let path = self.dir.join(name);
            // Not followed: a link in the place of our directory is removed, not its target.
            let is_dir = fs::symlink_metadata(&path).map_err(failed)?.is_dir();
            if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }.map_err(failed)?;
        }
        Ok(())
    }
}

/// Size of the generated dataset.
struct Made {
    files: u64,
    bytes: u64,
    dataset: String,
    driveset: String,
}

fn make(dir: &Path) -> io::Result<Made> {
    let data = dir.join("data");
    let (mut files, mut bytes) = (0, 0);
    for (index, (name, len)) in names().into_iter().enumerate() {
        let path = data.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        write_seeded(&path, SEED ^ index as u64, len)?;
        files += 1;
        bytes += len;
    }
    fs::create_dir_all(dir.join("logs"))?;
    // The tables name absolute paths, as the service's tool requires.
    let root = dir.canonicalize()?;
    let root = root.to_str().ok_or_else(|| io::Error::other("the path is not UTF-8, which a table cannot hold"))?;
    let quoted = |text: String| format!("\"{}\"", text.replace('"', "\"\""));
    let dataset = format!(
        "BasePath,DstItemPathOrPrefix,ItemType,Disposition,MetadataFile,PropertiesFile\n{},{},BlockBlob,rename,None,None\n",
        quoted(format!("{root}/data/")),
        quoted("demo/".into())
    );
    let driveset = format!(
        "DriveLetter,FormatOption,SilentOrPromptOnFormat,Encryption,ExistingBitLockerKey\n{},Format,SilentMode,Encrypt,\n",
        quoted(format!("{root}/demo.img:{SIZE}"))
    );
    fs::write(dir.join("dataset.csv"), &dataset)?;
    fs::write(dir.join("driveset.csv"), &driveset)?;
    Ok(Made { files, bytes, dataset, driveset })
}

/// Names and lengths: ordinary ones, edges of clusters and blocks, and names that need mapping on an NTFS volume.
fn names() -> Vec<(String, u64)> {
    const BLOCK: u64 = 4 << 20;
    let fixed: &[(&str, u64)] = &[
        ("empty.txt", 0),
        ("one-byte.bin", 1),
        ("small/700.bin", 700),
        ("small/4095.bin", 4095),
        ("small/4096.bin", 4096),
        ("small/4097.bin", 4097),
        ("large/one-block.bin", BLOCK),
        ("large/one-block-and-a-byte.bin", BLOCK + 1),
        ("large/three-blocks.bin", 3 * BLOCK - 12_345),
        ("names/Straße nach Łódź.txt", 1200),
        ("names/東京の写真.raw", 200_000),
        ("names/party 🎉.txt", 900),
        ("names/report: final?.txt", 3000),
        ("names/CON", 64),
        ("names/trailing dot.", 65),
        ("names/readme.txt", 100),
        ("names/README.txt", 101),
        ("names/a <very> \"odd\" name*.txt", 99),
        ("deep/a/b/c/d/e/f/g/h/i/j/k/leaf.txt", 5000),
        ("no extension", 12_000),
    ];
    let mut names: Vec<(String, u64)> = fixed.iter().map(|(name, len)| ((*name).to_owned(), *len)).collect();
    let mut random = Random(SEED);
    for index in 0..32 {
        // Lengths over four powers of ten, as real trees have them.
        let len = random.next() % 10u64.pow(2 + index % 4 + 1);
        names.push((format!("photos/2026-{:02}/img_{index:04}.jpg", index % 6 + 1), len));
    }
    names
}

fn write_seeded(path: &Path, seed: u64, len: u64) -> io::Result<()> {
    let mut file = io::BufWriter::with_capacity(1 << 16, fs::File::create(path)?);
    let mut random = Random(seed);
    let mut rest = len;
    while rest > 0 {
        let word = random.next().to_le_bytes();
        let take = rest.min(word.len() as u64);
        file.write_all(&word[..take as usize])?;
        rest -= take;
    }
    file.flush()
}

/// SplitMix64 (Steele, Lea, Flood 2014): sufficient for file contents without meaning.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

fn shown(path: &Path, text: &str) -> String {
    let body: String = text.lines().map(|line| format!("    {line}\n")).collect();
    format!("  {}\n{body}", path.display())
}

/// A path as a shell reads it.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | '+' | ',');
    let safe = text.chars().all(plain) && !text.starts_with('-');
    if safe { text.into_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// Commands to look into the image; the key never appears in them, it is read from the drive record.
fn look(dir: &Path, record: &Path) -> String {
    // The commands are run in the demo's directory: a record inside it is named from there.
    let record = match (record.strip_prefix(dir), record.is_absolute()) {
        (Ok(inside), _) => quoted(inside),
        (Err(_), true) => quoted(record),
        (Err(_), false) => format!("\"$OLDPWD\"/{}", quoted(record)),
    };
    let dir = quoted(dir);
    format!(
        "  cd {dir}
  sgdisk --verify --print demo.img

  # the second partition is the volume; its key is in the drive record
  START=$(sgdisk -i 2 demo.img | awk '/^First sector/ {{print $3 * 512}}')
  KEY=$(sed -n 's:.*<BitLockerKey>\\([0-9-]*\\)</.*:\\1:p' {record})

  # without root: libbde, and The Sleuth Kit
  mkdir -p volume files
  bdemount -o $START -r \"$KEY\" demo.img volume
  fls -r -p volume/bde1
  fusermount -u volume

  # as root: cryptsetup and the kernel
  LOOP=$(losetup --find --show --read-only --offset $START demo.img)
  cryptsetup bitlkDump $LOOP
  printf %s \"$KEY\" | cryptsetup open --type bitlk -r -d - $LOOP demo
  ntfs-3g -o ro /dev/mapper/demo files
  diff -r data files/'demo#1'             # mapped names differ, nothing else
  umount files && cryptsetup close demo && losetup --detach $LOOP

  # or dislocker
  dislocker-fuse -V demo.img -O $START -r -p\"$KEY\" -- volume
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dataset_is_about_fifty_files_and_fits_the_image() {
        let names = names();
        assert!((45..=60).contains(&names.len()), "{}", names.len());
        assert!(names.iter().any(|(_, len)| *len == 0) && names.iter().any(|(_, len)| *len > 4 << 20));
        assert!(names.iter().map(|(_, len)| len).sum::<u64>() < 100_000_000);
    }

    #[test]
    fn the_way_to_look_into_it_fits_eighty_columns() {
        for line in look(Path::new("dray-demo"), Path::new("dray-demo/DEMO.xml")).lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn paths_are_quoted_for_the_shell_and_named_from_the_right_place() {
        let text = look(Path::new("my demo's"), Path::new("my demo's/DEMO.xml"));
        assert!(text.contains("cd 'my demo'\\''s'\n") && text.contains(" DEMO.xml)"), "{text}");
        assert!(look(Path::new("d"), Path::new("/x/DEMO.xml")).contains(" /x/DEMO.xml)"));
        assert!(look(Path::new("d"), Path::new("DEMO.xml")).contains(" \"$OLDPWD\"/DEMO.xml)"));
    }
}
