//! The selection of an export job, and the empty drives sent for it (docs/spec/import-export.md#blob-lists).

use std::collections::HashSet;
use std::path::Path;

use dray_engine::api;
use dray_engine::api::account::bloblist::{self, Selector};
use dray_engine::report::{Kind, Problem, Problems};
use serde_json::{Map, Value, json};

use super::description::DRIVES_MAX;

/// Longest selection in bytes that is sent inside the request; a longer one is stored in a blob.
const INLINE_MAX: usize = 32 << 10;

/// The table `[export]` of a description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Export {
    /// Blobs by their whole names: `container/name`.
    pub blobs: Vec<String>,
    /// Prefixes of names: `/container/prefix`.
    pub prefixes: Vec<String>,
    /// Blob that holds the selection: `container/list.xml`.
    pub list: String,
    /// Serials of the drives to be sent.
    pub drives: Vec<String>,
}

/// Keys of the table.
pub const KEYS: &[&str] = &["blobs", "prefixes", "blob-list", "blob-list-file", "drives"];

/// Longest blob list that is read: far more than a request may hold.
const LIST_FILE_MAX: u64 = 1 << 20;

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
        let (mut blobs, mut prefixes, drives) = (list("blobs"), list("prefixes"), list("drives"));
        if let Some(file) = table.get("blob-list-file") {
            match read_list(path, file) {
                Ok(selectors) => {
                    for selector in selectors {
                        match selector {
                            Selector::Path(blob) => blobs.push(blob),
                            Selector::Prefix(prefix) => prefixes.push(prefix),
                        }
                    }
                }
                Err(more) => problems.0.extend(more.0),
            }
        }
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
        for (key, blob) in self
            .blobs
            .iter()
            .map(|blob| ("blobs", blob))
            .chain(Some(&self.list).filter(|list| !list.is_empty()).map(|list| ("blob-list", list)))
        {
            if let Err((what, advice)) = check_path(blob) {
                bad(key, &format!("is no name of a blob: {what}"), blob, &advice);
            }
        }
        for prefix in &self.prefixes {
            if let Err((what, advice)) = check_prefix(prefix) {
                bad("prefixes", &format!("is no prefix: {what}"), prefix, &advice);
            }
        }
        self.check_twice(&mut bad);
        let inline: usize = self.blobs.iter().chain(&self.prefixes).map(|text| text.len() + 4).sum();
        if inline > INLINE_MAX {
            let advice = "put the list into a blob of the account, and name it: blob-list = \"container/list.xml\"";
            bad("blobs", "is longer than the 32 KiB that a request may hold", "", advice);
        }
        if self.drives.is_empty() || self.drives.len() > DRIVES_MAX {
            let reported = self.drives.len().to_string();
            bad(
                "drives",
                "names no drives, or more than ten",
                &reported,
                "the serials of the one to ten empty drives that are sent",
            );
        }
        let mut seen = HashSet::new();
        for drive in &self.drives {
            if let Err(error) = api::azure::check_drive_id(drive) {
                let advice = format!("{}; `dray devices` lists them", error.advice());
                bad("drives", "is no serial number", drive, &advice);
            } else if !seen.insert(drive.to_ascii_lowercase()) {
                bad("drives", "names a drive twice", drive, "each drive once");
            }
        }
    }

    /// Selections that are there twice, or in a wider one already.
    fn check_twice(&self, bad: &mut dyn FnMut(&str, &str, &str, &str)) {
        let mut seen = HashSet::new();
        let blobs = self.blobs.iter().map(|blob| ("blobs", blob));
        for (key, text) in blobs.chain(self.prefixes.iter().map(|one| ("prefixes", one))) {
            let whole = if key == "blobs" { format!("/{text}") } else { text.clone() };
            if !seen.insert((key, text.as_str())) {
                bad(key, "is named twice", text, "each once");
            } else if let Some(wider) =
                self.prefixes.iter().find(|wider| *wider != text && whole.starts_with(wider.as_str()))
            {
                let advice =
                    format!("the prefix {wider} takes it already: leave one of the two out, or make the prefix longer");
                bad(key, "is wanted twice", text, &advice);
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

/// Reads a blob list of this machine, whose path is relative to the description's.
fn read_list(description: &Path, file: &toml::Value) -> Result<Vec<Selector>, Problems> {
    let bad = |what: String| Problem::new(Kind::Usage, what).path(description).column("[export] blob-list-file");
    let Some(name) = file.as_str().map(str::trim).filter(|name| !name.is_empty()) else {
        return Err(bad("is no path".into()).advice("name a blob list: blob-list-file = \"list.xml\"").into());
    };
    let path = description.parent().unwrap_or(Path::new("")).join(name);
    let bytes = api::host::read_input(&path, LIST_FILE_MAX, api::host::Pipes::Refused)
        .map_err(|error| bad(format!("cannot be read: {error}")).value(path.display().to_string()))?;
    bloblist::read(&path, &bytes[..]).map(|list| list.selectors)
}

/// Containers created by the service itself: their names break its own rules.
const SYSTEM: [&str; 2] = ["$web", "$logs"];

/// The problem, and the correct form.
type Wrong = (String, String);

fn check_container(name: &str) -> Result<(), Wrong> {
    if SYSTEM.contains(&name) {
        return Ok(());
    }
    api::azure::check_container(name).map_err(|error| (error.to_string(), error.advice().to_owned()))
}

fn check_name(container: &str, name: &str) -> Result<(), Wrong> {
    api::azure::check_blob(container, name).map(drop).map_err(|error| (error.to_string(), error.advice().to_owned()))
}

/// `container/name`, the form of `BlobPath`.
fn check_path(text: &str) -> Result<(), Wrong> {
    let advice = || "container/name, without a slash before it; $root/name in the root container".to_owned();
    if let Some((_, rest)) = text.split_once("://") {
        let path = rest.split_once('/').map_or("", |(_, path)| path);
        return Err(("it is an address".into(), format!("name the blob in the account alone: {path}")));
    }
    if text.starts_with('/') {
        return Err(("it begins with a slash".into(), advice()));
    }
    let (container, name) = text.split_once('/').ok_or_else(|| ("it names no container".to_owned(), advice()))?;
    check_container(container)?;
    check_name(container, name)
}

/// A slash and the beginning of `container/name`, the form of `BlobPathPrefix`; a container alone is valid too.
fn check_prefix(text: &str) -> Result<(), Wrong> {
    let advice = || "it begins with a slash: / for everything, /container/ for a container".to_owned();
    let Some(rest) = text.strip_prefix('/') else { return Err(("it does not begin with a slash".into(), advice())) };
    match rest.split_once('/') {
        Some((container, name)) => {
            check_container(container)?;
            // A beginning may end within a name, and be empty.
            if name.is_empty() { Ok(()) } else { check_name(container, name) }
        }
        // A beginning of a container's name: letters that would make it whole are tried.
        None => {
            let is_start = |whole: &str| whole.starts_with(rest);
            let is_system = SYSTEM.iter().chain(&["$root"]).any(|whole| is_start(whole));
            if rest.is_empty() || is_system {
                return Ok(());
            }
            let whole = if rest.len() < 3 || rest.ends_with('-') { format!("{rest}aa") } else { rest.to_owned() };
            check_container(&whole)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Export, Vec<String>> {
        let mut problems = Problems::default();
        let out = Export::read(Path::new("job.toml"), &text.parse().expect("TOML"), &mut problems);
        let reported = problems
            .0
            .into_iter()
            .map(|problem| format!("{} {}", problem.place.column.unwrap_or_default(), problem.what));
        let reported: Vec<String> = reported.collect();
        if reported.is_empty() { Ok(out) } else { Err(reported) }
    }

    #[test]
    fn selections_of_the_documents_are_taken_and_others_named() {
        for prefix in [
            "/",
            "/$root/",
            "/$r",
            "/$root/logo",
            "/book",
            "/b",
            "/my-",
            "/music/",
            "/music/love",
            "/music/a/b/",
            "/$web/",
        ] {
            assert!(read(&format!("prefixes = [\"{prefix}\"]\ndrives = [\"WD-1\"]")).is_ok(), "{prefix}");
        }
        for blob in ["$root/logo.bmp", "videos/story.mp4", "$web/index.html", "videos/a b/%41?#.mp4", "v-1/x"] {
            assert!(read(&format!("blobs = [\"{blob}\"]\ndrives = [\"WD-1\"]")).is_ok(), "{blob}");
        }
        let many: Vec<String> = (0..11).map(|i| format!("\"D{i}\"")).collect();
        for (text, wrong) in [
            ("drives = [\"A\"]".to_owned(), "[export] blob-list is missing"),
            (
                "blobs = [\"abc/b\"]\nblob-list = \"abc/c\"\ndrives = [\"A\"]".into(),
                "[export] blob-list goes with neither",
            ),
            ("blobs = [\"/abc/b\"]\ndrives = [\"A\"]".into(), "[export] blobs is no name of a blob: it begins"),
            (
                "blobs = [\"https://a.blob.core.windows.net/videos/b\"]\ndrives = [\"A\"]".into(),
                "[export] blobs is no name of a blob: it is an address",
            ),
            (
                "blobs = [\"Videos/x\"]\ndrives = [\"A\"]".into(),
                "[export] blobs is no name of a blob: container name holds 'V'",
            ),
            (
                "blobs = [\"$root/a/b\"]\ndrives = [\"A\"]".into(),
                "[export] blobs is no name of a blob: blobs in the root",
            ),
            ("blobs = [\"vi/x\"]\ndrives = [\"A\"]".into(), "[export] blobs is no name of a blob: container name"),
            ("blobs = [\"vi--x/x\"]\ndrives = [\"A\"]".into(), "[export] blobs is no name of a blob: container name"),
            (
                "blobs = [\"videos/\"]\ndrives = [\"A\"]".into(),
                "[export] blobs is no name of a blob: blob name is empty",
            ),
            (
                "blobs = [\"videos\"]\ndrives = [\"A\"]".into(),
                "[export] blobs is no name of a blob: it names no container",
            ),
            (
                "blobs = [\"videos/../x\"]\ndrives = [\"A\"]".into(),
                "[export] blobs is no name of a blob: blob name holds the segment",
            ),
            (
                format!("blobs = [\"videos/{}\"]\ndrives = [\"A\"]", "n".repeat(1025)),
                "[export] blobs is no name of a blob: blob name has 1025",
            ),
            ("blob-list = \"Lists/x\"\ndrives = [\"A\"]".into(), "[export] blob-list is no name of a blob"),
            ("blobs = [\"abc/d\", \"abc/d\"]\ndrives = [\"A\"]".into(), "[export] blobs is named twice"),
            ("blobs = [\"abc/d\"]\nprefixes = [\"/abc/\"]\ndrives = [\"A\"]".into(), "[export] blobs is wanted twice"),
            ("prefixes = [\"/\", \"/abc/\"]\ndrives = [\"A\"]".into(), "[export] prefixes is wanted twice"),
            ("prefixes = [\"/Book\"]\ndrives = [\"A\"]".into(), "[export] prefixes is no prefix: container name"),
            (
                "prefixes = [\"/$root/a/b\"]\ndrives = [\"A\"]".into(),
                "[export] prefixes is no prefix: blobs in the root",
            ),
            ("prefixes = [\"/abc\"]\ndrives = [\"WD WMATV 123456\"]".into(), "[export] drives is no serial number"),
            ("prefixes = [\"/abc\"]\ndrives = [\"\"]".into(), "[export] drives is no serial number"),
            ("prefixes = [\"a/b\"]\ndrives = [\"A\"]".into(), "[export] prefixes is no prefix"),
            ("blobs = [\"a/b\"]\ndrives = [\"A\", \"a\"]".into(), "[export] drives names a drive twice"),
            ("blobs = [\"a/b\"]".into(), "[export] drives names no drives"),
            (format!("blobs = [\"a/b\"]\ndrives = [{}]", many.join(",")), "[export] drives names no drives, or more"),
            (format!("blobs = [\"a/{}\"]\ndrives = [\"A\"]", "b".repeat(40_000)), "[export] blobs is longer"),
            ("blobs = 1\nblob-list = \"a/b\"\ndrives = [\"A\"]".into(), "[export] blobs is no list"),
        ] {
            let reported = read(&text).expect_err("wrong");
            assert!(reported.iter().any(|reported| reported.starts_with(wrong)), "{wrong}: {reported:?}");
        }
    }
}
