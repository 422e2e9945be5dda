//! Common parts of the binary's tests: a directory for each, CSV files, and a session on image files.

pub mod fixtures;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use dray_testdisks::dataset::Dataset;

/// A directory for one test, empty at the start.
pub fn scratch(name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("a scratch directory");
    dir
}

/// `dray` as in a script: no input, no setting of colour, no token.
pub fn dray<S: AsRef<std::ffi::OsStr>>(words: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dray"));
    command.args(words).stdin(Stdio::null()).env_remove("NO_COLOR").env_remove("DRAY_TOKEN");
    command
}

/// Runs it in a directory to its end.
pub fn dray_in(dir: &Path, words: &[&str]) -> Output {
    run(dray(words).current_dir(dir))
}

/// A blob list of selectors: what begins with a slash is a prefix.
pub fn blob_list(dir: &Path, name: &str, selectors: &[&str]) {
    let items: Vec<String> = selectors
        .iter()
        .map(|text| match text.strip_prefix('/') {
            Some(_) => format!("<BlobPathPrefix>{text}</BlobPathPrefix>"),
            None => format!("<BlobPath>{text}</BlobPath>"),
        })
        .collect();
    let text = format!("<?xml version=\"1.0\"?><BlobList>{}</BlobList>", items.concat());
    fs::write(dir.join(name), text).expect("a list");
}

pub fn run(command: &mut Command) -> Output {
    command.output().expect("the binary runs")
}

pub fn code(output: &Output) -> i32 {
    output.status.code().expect("not killed")
}

/// A session in a directory: its CSV files are written on demand.
pub struct Session {
    pub dir: PathBuf,
}

impl Session {
    pub fn new(name: &str) -> Self {
        Self { dir: scratch(name) }
    }

    /// A session in a given directory.
    pub fn within(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// `dray` with these words, in the session's directory.
    pub fn program(&self, words: &str) -> Command {
        let mut command = dray(words.split_whitespace());
        command.current_dir(&self.dir);
        command
    }

    /// Runs it to its end.
    pub fn dray(&self, words: &str) -> Output {
        run(&mut self.program(words))
    }

    /// Runs it and requires success; returns the output without line breaks.
    pub fn works(&self, line: &str) -> String {
        let output = self.dray(line);
        assert_eq!(code(&output), 0, "{line}: {}", words(&output));
        words(&output)
    }

    /// Makes a seeded tree of files, and a dataset that maps it to `data/`.
    pub fn source(&self, fill: impl FnOnce(&mut Dataset)) {
        let source = self.path("source");
        let mut data = Dataset::new(&source, 3).expect("a dataset");
        fill(&mut data);
        data.finish().expect("a dataset");
        self.dataset(&[&format!("\"{}/\",data/,BlockBlob,rename,None,None", source.display())]);
    }

    /// Rows after the header of 2018: base path, destination, type; columns missing in a row are empty.
    pub fn dataset(&self, rows: &[&str]) -> &Self {
        let rows: Vec<String> = rows
            .iter()
            .map(|row| format!("{row}{}", ",".repeat(5_usize.saturating_sub(row.matches(',').count()))))
            .collect();
        let text = format!(
            "BasePath,DstItemPathOrPrefix,ItemType,Disposition,MetadataFile,PropertiesFile\n{}\n",
            rows.join("\n")
        );
        fs::write(self.path("dataset.csv"), text).expect("dataset.csv");
        self
    }

    /// Targets, each to be formatted and encrypted.
    pub fn driveset(&self, targets: &[String]) -> &Self {
        let rows: Vec<String> =
            targets.iter().map(|target| format!("\"{target}\",Format,SilentMode,Encrypt,")).collect();
        let text = format!(
            "DriveLetter,FormatOption,SilentOrPromptOnFormat,Encryption,ExistingBitLockerKey\n{}\n",
            rows.join("\n")
        );
        fs::write(self.path("driveset.csv"), text).expect("driveset.csv");
        self
    }

    /// `dray prep-import` with this session's files and more arguments.
    pub fn command(&self, more: &[&str]) -> Command {
        let mut command = dray(["prep-import"]);
        command.arg("--journal").arg(self.path("journal.jrn")).args(["--id", "session#1"]);
        command.arg("--initial-driveset").arg(self.path("driveset.csv"));
        command.arg("--dataset").arg(self.path("dataset.csv"));
        command.arg("--logdir").arg(self.path("logs")).arg("--silent").args(more);
        command
    }

    pub fn run(&self, more: &[&str]) -> Output {
        run(&mut self.command(more))
    }

    /// Runs it and requires success.
    pub fn prepare(&self, more: &[&str]) -> String {
        let output = self.run(more);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(0), "{said}");
        said
    }
}

pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The output of a run without its line breaks, whose positions depend on the length of paths.
pub fn words(output: &Output) -> String {
    unbroken(&said(output))
}

/// A text without its line breaks.
pub fn unbroken(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The 48 digits in a drive record.
pub fn key_in(record: &Path) -> String {
    let text = fs::read_to_string(record).expect("a drive record");
    let (_, rest) = text.split_once("<BitLockerKey>").expect("a key");
    rest.split_once('<').expect("its end").0.to_owned()
}
