//! Report of an export: the list of blobs that are on no drive.

use dray_engine::job::account::Exported;

/// A blob list of these paths, as an export takes it: what did not get onto the drives can be ordered again
/// (docs/spec/import-export.md#blob-list-file).
pub fn blob_list<'a>(paths: impl Iterator<Item = &'a str>) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<BlobList>\n");
    for path in paths {
        out.push_str(&format!("  <BlobPath>{}</BlobPath>\n", escaped(path)));
    }
    out.push_str("</BlobList>\n");
    out
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c if (c as u32) < 0x20 || c == '\u{7f}' => out.push_str(&format!("&#{};", c as u32)),
            c => out.push(c),
        }
    }
    out
}

/// Paths of the blobs among these files of the catalog, ascending and each once: snapshots have the path of their blob.
pub fn paths_of(exported: &Exported, files: impl Iterator<Item = u32>) -> Vec<&str> {
    let mut paths: Vec<&str> = files.filter_map(|file| exported.blob(file)).map(|blob| &*blob.path).collect();
    paths.sort_unstable();
    paths.dedup();
    paths
}
