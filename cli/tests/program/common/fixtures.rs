//! Volumes made by Windows, unpacked for the binary; skipped with a message where they are missing.

use std::fs;
use std::path::PathBuf;

use super::scratch;

/// A fixture or one of its companions, not unpacked; `None`, with a message, where there is none.
pub fn fixture(name: &str) -> Option<PathBuf> {
    dray_fixtures::file(name)
}

/// An image that is deleted on drop.
pub struct Image(pub PathBuf);

impl Drop for Image {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Image {
    pub fn name(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

/// Unpacks `bitlocker/NAME.img.xz` or `ntfs/NAME.raw.gz` into a directory for the test `owner` alone.
pub fn unpack(owner: &str, name: &str) -> Option<Image> {
    let name = name.trim_end_matches(".xz").trim_end_matches(".gz");
    let image = Image(scratch(owner).join(name.rsplit('/').next().expect("a name")));
    dray_fixtures::unpack(name, &image.0).then_some(image)
}
