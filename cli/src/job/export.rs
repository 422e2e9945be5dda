//! What an export job wants of the account, and the empty drives that it is sent on (import-export.md 7).

use std::collections::HashSet;
use std::path::Path;

use dray_engine::report::{Kind, Problem, Problems};
use serde_json::{Map, Value, json};

use super::description::DRIVES_MAX;

/// Longest selection that travels inside the request; a longer one lies in a blob.
const INLINE_MAX: usize = 32 << 10;

/// The table `[export]` of a description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Export {
    /// Blobs by their whole names: `container/name`.
    pub blobs: Vec<String>,
    /// Beginnings of names: `/container/prefix`.
    pub prefixes: Vec<String>,
    /// Blob that holds the selection: `container/list.xml`.
    pub list: String,
    /// Serials of the drives that are sent.
    pub drives: Vec<String>,
}

/// Keys of the table.
pub const KEYS: &[&str] = &["blobs", "prefixes", "blob-list", "drives"];

impl Export {
    /// Reads the table of the file at `path`.
    pub fn read(path: &Path, table: &toml::Table, problems: &mut Problems) -> Self {
        let mut list = |key: &str| -> Vec<String> {
            let bad = || Problem::new(Kind::Usage, "is no list of texts").path(path).column(format!("[export] {key}"));
            let value = match table.get(key) {
                None => return Vec::new(),
                Some(toml::Value::Array(value)) => value,
                Some(_) => {
                    problems.push(bad().advice("write it as [\"a\", \"b\"]"));
                    return Vec::new();
                }
            };
            let texts: Vec<String> = value.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect();
            if texts.len() < value.len() {
                problems.push(bad().advice("write each in quotes"));
            }
            texts
        };
        let (blobs, prefixes, drives) = (list("blobs"), list("prefixes"), list("drives"));
        let text = table.get("blob-list").map(|value| value.as_str().map(|text| text.trim().to_owned()));
        if text == Some(None) {
            problems.push(Problem::new(Kind::Usage, "is no text").path(path).column("[export] blob-list"));
        }
        let out = Self { blobs, prefixes, list: text.flatten().unwrap_or_default(), drives };
        out.check(path, problems);
        out
    }

    fn check(&self, path: &Path, problems: &mut Problems) {
        let mut bad = |key: &str, what: &str, value: &str, advice: &str| {
            let problem = Problem::new(Kind::Usage, what).path(path).column(format!("[export] {key}"));
            let problem = if value.is_empty() { problem } else { problem.value(value.to_owned()) };
            problems.push(problem.advice(advice.to_owned()));
        };
        let is_inline = !self.blobs.is_empty() || !self.prefixes.is_empty();
        if is_inline != self.list.is_empty() {
            let what = if is_inline {
                "goes with neither blobs nor prefixes"
            } else {
                "is missing, and so are blobs and prefixes"
            };
            bad(
                "blob-list",
                what,
                &self.list,
                "say what is exported: blobs and prefixes here, or the blob that lists them",
            );
        }
        let is_blob = |text: &str| {
            text.split_once('/').is_some_and(|(container, name)| !container.is_empty() && !name.is_empty())
                && !text.chars().any(char::is_control)
        };
        for blob in self.blobs.iter().filter(|blob| !is_blob(blob)) {
            bad(
                "blobs",
                "is no name of a blob",
                blob,
                "container/name, without a slash before it; $root/name in the root container",
            );
        }
        if !self.list.is_empty() && !is_blob(&self.list) {
            bad("blob-list", "is no name of a blob", &self.list, "container/list.xml, without a slash before it");
        }
        for prefix in
            self.prefixes.iter().filter(|prefix| !prefix.starts_with('/') || prefix.chars().any(char::is_control))
        {
            bad(
                "prefixes",
                "is no prefix",
                prefix,
                "it begins with a slash: / for everything, /container/ for a container",
            );
        }
        let inline: usize = self.blobs.iter().chain(&self.prefixes).map(|text| text.len() + 4).sum();
        if inline > INLINE_MAX {
            let advice = "put the list into a blob of the account, and name it: blob-list = \"container/list.xml\"";
            bad("blobs", "is longer than the 32 KiB that a request may hold", "", advice);
        }
        if self.drives.is_empty() || self.drives.len() > DRIVES_MAX {
            let told = self.drives.len().to_string();
            bad(
                "drives",
                "names no drives, or more than ten",
                &told,
                "the serials of the one to ten empty drives that are sent",
            );
        }
        let mut seen = HashSet::new();
        for drive in &self.drives {
            if drive.trim().is_empty() || drive.chars().any(char::is_control) {
                bad("drives", "is no serial", drive, "`dray devices` tells them");
            } else if !seen.insert(drive.to_ascii_lowercase()) {
                bad("drives", "names a drive twice", drive, "each drive once");
            }
        }
    }

    /// `export` of the Import/Export API.
    pub fn body(&self) -> Value {
        if !self.list.is_empty() {
            return json!({ "blobListBlobPath": self.list });
        }
        let mut list = Map::new();
        for (name, texts) in [("blobPath", &self.blobs), ("blobPathPrefix", &self.prefixes)] {
            if !texts.is_empty() {
                list.insert(name.into(), json!(texts));
            }
        }
        json!({ "blobList": list })
    }

    /// `transferConfiguration` of the Data Box API.
    pub fn configuration(&self) -> Value {
        if self.blobs.is_empty() && self.prefixes == ["/"] {
            return json!({
                "transferConfigurationType": "TransferAll",
                "transferAllDetails": { "include": { "dataAccountType": "StorageAccount", "transferAllBlobs": true } },
            });
        }
        let mut include = Map::from_iter([("dataAccountType".to_owned(), Value::from("StorageAccount"))]);
        if self.list.is_empty() {
            let mut filter = Map::new();
            for (name, texts) in [("blobPathList", &self.blobs), ("blobPrefixList", &self.prefixes)] {
                if !texts.is_empty() {
                    filter.insert(name.into(), json!(texts));
                }
            }
            include.insert("blobFilterDetails".into(), filter.into());
        } else {
            let file = json!([{ "filterFileType": "AzureBlob", "filterFilePath": self.list }]);
            include.insert("filterFileDetails".into(), file);
        }
        json!({ "transferConfigurationType": "TransferUsingFilter", "transferFilterDetails": { "include": include } })
    }

    /// The words of `az import-export create --export`.
    pub fn words(&self) -> Vec<String> {
        let one = |key: &str, texts: &[String]| texts.iter().map(|text| format!("{key}={text}")).collect::<Vec<_>>();
        let mut words = one("blob-path", &self.blobs);
        words.extend(one("blob-path-prefix", &self.prefixes));
        if !self.list.is_empty() {
            words.push(format!("blob-list-blob-path={}", self.list));
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Export, Vec<String>> {
        let mut problems = Problems::default();
        let out = Export::read(Path::new("job.toml"), &text.parse().expect("TOML"), &mut problems);
        let told = problems
            .0
            .into_iter()
            .map(|problem| format!("{} {}", problem.place.column.unwrap_or_default(), problem.what));
        let told: Vec<String> = told.collect();
        if told.is_empty() { Ok(out) } else { Err(told) }
    }

    #[test]
    fn selections_of_the_documents_are_taken_and_others_named() {
        for prefix in ["/", "/$root/", "/book", "/music/", "/music/love"] {
            assert!(read(&format!("prefixes = [\"{prefix}\"]\ndrives = [\"WD-1\"]")).is_ok(), "{prefix}");
        }
        for blob in ["$root/logo.bmp", "videos/story.mp4"] {
            assert!(read(&format!("blobs = [\"{blob}\"]\ndrives = [\"WD-1\"]")).is_ok(), "{blob}");
        }
        let many: Vec<String> = (0..11).map(|i| format!("\"D{i}\"")).collect();
        for (text, wrong) in [
            ("drives = [\"A\"]".to_owned(), "[export] blob-list is missing"),
            ("blobs = [\"a/b\"]\nblob-list = \"a/c\"\ndrives = [\"A\"]".into(), "[export] blob-list goes with neither"),
            ("blobs = [\"/a/b\"]\ndrives = [\"A\"]".into(), "[export] blobs is no name"),
            ("prefixes = [\"a/b\"]\ndrives = [\"A\"]".into(), "[export] prefixes is no prefix"),
            ("blobs = [\"a/b\"]\ndrives = [\"A\", \"a\"]".into(), "[export] drives names a drive twice"),
            ("blobs = [\"a/b\"]".into(), "[export] drives names no drives"),
            (format!("blobs = [\"a/b\"]\ndrives = [{}]", many.join(",")), "[export] drives names no drives, or more"),
            (format!("blobs = [\"a/{}\"]\ndrives = [\"A\"]", "b".repeat(40_000)), "[export] blobs is longer"),
            ("blobs = 1\nblob-list = \"a/b\"\ndrives = [\"A\"]".into(), "[export] blobs is no list"),
        ] {
            let told = read(&text).expect_err("wrong");
            assert!(told.iter().any(|told| told.starts_with(wrong)), "{wrong}: {told:?}");
        }
    }
}
