//! Report of an export: the list of blobs that are on no drive.

use dray_engine::api::account::Exported;

/// Paths of the blobs among these files of the catalog, ascending and each once: snapshots have the path of their blob.
pub fn paths_of(exported: &Exported, files: impl Iterator<Item = u32>) -> Vec<&str> {
    let mut paths: Vec<&str> = files.filter_map(|file| exported.blob(file)).map(|blob| &*blob.path).collect();
    paths.sort_unstable();
    paths.dedup();
    paths
}
