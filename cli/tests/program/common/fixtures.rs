//! Volumes made by Windows, unpacked for the binary to read; loudly absent on machines without them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::scratch;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/fixtures");

/// A packed fixture or one of its companions; `None`, loudly, where there is none.
pub fn fixture(name: &str) -> Option<PathBuf> {
    let path = Path::new(FIXTURES).join(name);
    if path.is_file() {
        return Some(path);
    }
    eprintln!("SKIPPED judge: {} is absent", path.display());
    None
}

/// An image that is removed again.
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

/// Unpacks `bitlocker/NAME.img.xz` or `ntfs/NAME.raw.gz` into a directory of the test `owner` alone.
pub fn unpack(owner: &str, name: &str) -> Option<Image> {
    let packed = fixture(name)?;
    let tool = if name.ends_with(".xz") { "xz" } else { "gzip" };
    let image = Image(scratch(owner).join(packed.file_stem().expect("a name")));
    let mut unpacked = Command::new(tool).arg("-dc").arg(&packed).stdout(Stdio::piped()).spawn().expect("unpacks");
    // Holes stay holes: the volumes are mostly zeros.
    let copied = Command::new("dd")
        .args(["bs=1M", "iflag=fullblock", "conv=sparse", "status=none"])
        .stdin(unpacked.stdout.take().expect("its output"))
        .stdout(File::create(&image.0).expect("a file"))
        .status()
        .expect("dd runs");
    assert!(copied.success() && unpacked.wait().expect("ends").success(), "{name}");
    Some(image)
}
