//! `dray template`: valid input files to start from.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use dray_engine::report::{Kind, Problem, Problems};

use crate::exit::Exit;
use crate::render::Output;
use crate::shard::Index;
use crate::shard::scripts::{self, Engine};

/// Files with a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// CSV: what to copy, and to which blobs
    Dataset,
    /// CSV: onto which drives
    Driveset,
    /// XML: properties of the blobs of a row
    Properties,
    /// XML: metadata of the blobs of a row
    Metadata,
    /// TOML: job description, read by `dray job create`
    Job,
    /// TOML: the same for an export
    ExportJob,
    /// Shell: the shards of a plan as Slurm job arrays
    Slurm,
    /// Shell: the shards of a plan with GNU parallel, over ssh
    Parallel,
    /// YAML: the shards of a plan as Kubernetes Jobs
    Kubernetes,
    /// YAML: the shards of a plan as an Ansible playbook
    Ansible,
}

/// Arguments of `dray template`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, after_long_help = long_help())]
pub struct Template {
    /// File to print
    what: What,
    /// dataset: a directory, with / at its end, or a file [default: here]
    #[arg(long, value_name = "PATH")]
    source: Option<PathBuf>,
    /// dataset: container and prefix, with / at its end, or a blob
    #[arg(long, value_name = "DESTINATION", default_value = "container/")]
    to: String,
    /// driveset: /dev/sdX, a link in /dev/disk/by-id, serial:… or image:SIZE
    #[arg(long, value_name = "DRIVE", default_value = "serial:SERIAL-OF-THE-DRIVE")]
    drive: Vec<String>,
    /// slurm, parallel, kubernetes, ansible: directory that `dray plan --shards` or `dray shard make` filled
    #[arg(long, value_name = "DIR")]
    shards: Option<PathBuf>,
    /// slurm, parallel: drives at once on a host
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u32).range(1..=256))]
    docks: u32,
}

const EXAMPLES: &str = "Examples:
  dray template dataset --source /data/video/ --to video/2026/ > dataset.csv
  dray template driveset --drive serial:WD-WMATV123456 > driveset.csv
  dray template job > job.toml
  dray template slurm --shards /srv/shards --docks 4 > submit.sh";

/// Meaning of the columns of both tables (docs/spec/import-export.md#data-set-columns and
/// docs/spec/import-export.md#drive-set-columns).
const COLUMNS: [(&str, &str, &str); 11] = [
    ("Dataset", "BasePath", "a directory, with / at its end, copied with all below it; or a file"),
    (
        "",
        "DstBlobPathOrPrefix",
        "container/, container/prefix/, $root/ for a directory; container/blob for a file. \
        Also DstItemPathOrPrefix, and a URL, whose %20 is a blank",
    ),
    ("", "BlobType", "BlockBlob or PageBlob; empty: PageBlob for *.vhd and *.vhdx. Also ItemType, which must be given"),
    ("", "Disposition", "what the service does with a blob that exists: rename (default), no-overwrite, overwrite"),
    ("", "MetadataFile", "XML with metadata of each blob, or None (dray template metadata)"),
    ("", "PropertiesFile", "XML with properties of each blob, or None (dray template properties)"),
    (
        "Driveset",
        "DriveLetter",
        "/dev/sdX, /dev/disk/by-id/..., serial:..., an image file, or image:SIZE for a new one \
        (500GB is decimal, 500GiB binary)",
    ),
    ("", "FormatOption", "Format: erase the drive. AlreadyFormatted: keep its volume and add to it"),
    ("", "SilentOrPromptOnFormat", "SilentMode or PromptOnFormat"),
    ("", "Encryption", "Encrypt (with AlreadyFormatted: where the volume lies), or AlreadyEncrypted"),
    ("", "ExistingBitLockerKey", "with AlreadyEncrypted the 48-digit numerical password, else empty"),
];

fn long_help() -> String {
    format!("{}\n{EXAMPLES}", columns())
}

/// The columns of both tables with their meaning, under headings.
pub fn columns() -> String {
    let mut text = String::new();
    for (table, column, meaning) in COLUMNS {
        if !table.is_empty() {
            text.push_str(&format!(
                "{}Columns of a {} (in any order, by name):\n",
                if text.is_empty() { "" } else { "\n" },
                table.to_lowercase()
            ));
        }
        text.push_str(&format!("  {column}\n"));
        for line in textwrap(meaning, 72) {
            text.push_str(&format!("      {line}\n"));
        }
    }
    format!("{text}\nThe separator is a comma, a semicolon or a tab; text is UTF-8 or UTF-16.\n")
}

/// Lines of at most `width` characters.
fn textwrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

const PROPERTIES: &str = "\
<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<Properties>
  <Content-Type>application/octet-stream</Content-Type>
  <Content-Language>en</Content-Language>
  <Cache-Control>no-cache</Cache-Control>
</Properties>
";

const METADATA: &str = "\
<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<Metadata>
  <Project>example</Project>
  <Owner>example@example.com</Owner>
</Metadata>
";

/// The template of a job description. Values on lines with `# yours` are refused until they are replaced.
pub const JOB: &str = "\
# What an import job has to know. Holds no key and no token.
# Lines with \"yours\" hold examples: the job is refused until each is replaced.
name = \"import-2026\"                # lower-case letters, digits and -
location = \"West US\"                # of the storage account
subscription = \"00000000-0000-0000-0000-000000000000\"  # yours: az account show --query id
resource-group = \"my-group\"         # yours
storage-account = \"mystorage\"       # yours: a name, or the full resource id

[return-address]
recipient = \"A. Person\"             # yours
street = \"1 Example Street\"         # yours
street2 = \"\"
city = \"Redmond\"                    # yours
state = \"WA\"
postal-code = \"98052\"               # yours
country = \"USA\"
phone = \"4250000000\"                # yours
email = \"person@example.com\"        # yours

[return-shipping]
carrier = \"FedEx\"                   # FedEx in America and Europe, DHL in Asia and Australia
account = \"123456789\"               # yours: your account with the carrier

[options]
log-level = \"Verbose\"               # or Error
backup-manifest = true
diagnostics-path = \"waimportexport\" # the container of the service's logs

# [encryption-key]                     # a key of your own for the keys of the drives, in a key vault
# url = \"https://VAULT.vault.azure.net/keys/NAME\"
# vault = \"/subscriptions/ID/resourceGroups/GROUP/providers/Microsoft.KeyVault/vaults/VAULT\"

# [identity]                           # which may use that key; with --api data-box only
# type = \"SystemAssigned\"            # or UserAssigned, with resource = \"/subscriptions/…\"

# [tags]
# project = \"archive\"
";

/// The lines that make an export of it.
const EXPORT: &str = "\
[export]
blobs = [\"videos/story.mp4\"]        # yours: container/name, whole
prefixes = [\"/music/love\"]          # yours: a slash, then the beginning; \"/\" alone is everything
# blob-list-file = \"list.xml\"       # these from a blob list on this machine, as preview-export takes it
# blob-list = \"lists/export.xml\"    # instead of both: a blob of the account that lists them
drives = [\"WD-WMATV123456\"]         # yours: serials of the empty drives that you send, ten at most
";

/// The same for an export.
pub fn export_job() -> String {
    let job = JOB.replace("an import job", "an export job").replace("\"import-2026\"", "\"export-2026\"");
    format!("{job}\n{EXPORT}")
}

impl Template {
    /// Prints the file to standard output.
    pub fn run(self, output: &Output) -> Exit {
        let text = match self.what {
            What::Dataset => {
                let made = self.dataset().map_err(Problems::from);
                match made.and_then(|text| check_table(&text, "--to").map(|()| text)) {
                    Ok(text) => text,
                    Err(problems) => {
                        output.problems(&problems);
                        return Exit::of_problems(&problems);
                    }
                }
            }
            What::Driveset => {
                let rows: String = self
                    .drive
                    .iter()
                    .map(|drive| format!("{},Format,PromptOnFormat,Encrypt,\n", quoted(drive)))
                    .collect();
                let text =
                    format!("DriveLetter,FormatOption,SilentOrPromptOnFormat,Encryption,ExistingBitLockerKey\n{rows}");
                match check_table(&text, "--drive") {
                    Ok(()) => text,
                    Err(problems) => {
                        output.problems(&problems);
                        return Exit::of_problems(&problems);
                    }
                }
            }
            What::Properties => PROPERTIES.into(),
            What::Metadata => METADATA.into(),
            What::Job => JOB.into(),
            What::ExportJob => export_job(),
            What::Slurm | What::Parallel | What::Kubernetes | What::Ansible => match self.script() {
                Ok(text) => text,
                Err(problem) => return output.problem(problem),
            },
        };
        if !output.result("template", serde_json::json!({ "text": text })) {
            output.say(&text);
        }
        Exit::Done
    }

    /// Starts the shards of a plan.
    fn script(&self) -> Result<String, Problem> {
        let dir = self.shards.as_deref().ok_or_else(|| {
            Problem::new(Kind::Usage, "is missing")
                .column("--shards")
                .advice("name the directory that `dray plan --shards` filled")
        })?;
        let engine = match self.what {
            What::Slurm => Engine::Slurm,
            What::Kubernetes => Engine::Kubernetes,
            What::Ansible => Engine::Ansible,
            _ => Engine::Parallel,
        };
        Index::read(dir).map(|index| scripts::render(engine, &index, dir, self.docks))
    }

    fn dataset(&self) -> Result<String, Problem> {
        let here = || {
            std::env::current_dir().map_err(|error| {
                Problem::new(Kind::Environment, format!("the current directory is not known: {error}"))
                    .advice("name the source: --source DIR/")
            })
        };
        let source = match &self.source {
            // A table holds absolute paths; a separator at the end marks a directory.
            Some(path) => {
                let ends = path.as_os_str().as_encoded_bytes().ends_with(b"/") || path.is_dir();
                let absolute = if path.is_absolute() { path.clone() } else { here()?.join(path) };
                (absolute.components().collect::<PathBuf>(), ends)
            }
            None => (here()?, true),
        };
        let (path, is_dir) = source;
        let text = path
            .to_str()
            .ok_or_else(|| Problem::new(Kind::Usage, "the path is not UTF-8, which a table cannot hold").path(&path))?;
        let end = if is_dir && !text.ends_with('/') { "/" } else { "" };
        Ok(format!(
            "BasePath,DstItemPathOrPrefix,ItemType,Disposition,MetadataFile,PropertiesFile\n{},{},BlockBlob,rename,None,None\n",
            quoted(&format!("{text}{end}")),
            quoted(&self.to)
        ))
    }
}

/// Problems of a table made from the options: it must be one that `dray check` accepts.
fn check_table(text: &str, option: &str) -> Result<(), Problems> {
    dray_engine::api::prepare::lint_text(text).map_err(|mut problems| {
        for problem in &mut problems.0 {
            (problem.place.path, problem.place.line) = (None, None);
            problem.place.column = Some(option.to_owned());
        }
        problems
    })
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}
