//! Image files that are not raw: a fixed VHD is raw but for a footer; the others must be unpacked before they can be read.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::problem::{Kind, Problem};

/// Bytes of a VHD's footer (Virtual Hard Disk Image Format Specification 1.0, "Hard Disk Footer Format").
const FOOTER: usize = 512;

/// Bytes of an image file of this length that are the disk: all, but for the footer of a fixed VHD.
pub fn disk_len(file: &File, len: u64) -> u64 {
    let Some(at) = len.checked_sub(FOOTER as u64).filter(|at| *at > 0 && at.is_multiple_of(512)) else { return len };
    let mut footer = [0; FOOTER];
    // O_DIRECT wants aligned memory; without it the page cache serves this one read.
    let read = std::fs::File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file)))
        .and_then(|file| file.read_exact_at(&mut footer, at));
    if read.is_ok() && is_fixed(&footer, at) { at } else { len }
}

/// Whether the footer is that of a fixed VHD whose disk has so many bytes.
fn is_fixed(footer: &[u8; FOOTER], disk: u64) -> bool {
    let number = |at: usize| u32::from_be_bytes([footer[at], footer[at + 1], footer[at + 2], footer[at + 3]]);
    let size = u64::from(number(48)) << 32 | u64::from(number(52));
    let sum: u32 = (0..FOOTER).filter(|at| !(64..68).contains(at)).map(|at| u32::from(footer[at])).sum();
    const FIXED: u32 = 2;
    footer.starts_with(b"conectix") && number(60) == FIXED && size == disk && number(64) == !sum
}

/// Marks of files that hold an image in another form: name of the form, and the command that unpacks it.
const FORMS: [(&[u8], &str, &str); 8] = [
    (b"\x1f\x8b\x08", "gzip", "gzip -dc IN > OUT"),
    (b"\x28\xb5\x2f\xfd", "Zstandard", "zstd -d IN -o OUT"),
    (b"\xfd7zXZ\0", "xz", "xz -dc IN > OUT"),
    (b"BZh", "bzip2", "bzip2 -dc IN > OUT"),
    (b"vhdxfile", "VHDX", "qemu-img convert -O raw IN OUT"),
    (b"conectix", "dynamic VHD", "qemu-img convert -O raw IN OUT"),
    (b"QFI\xfb", "qcow2", "qemu-img convert -O raw IN OUT"),
    (b"KDMV", "VMDK", "qemu-img convert -O raw IN OUT"),
];

/// Refuses a file that holds an image in another form than raw, with the command that makes a raw one.
///
/// # Errors
/// It is such a file.
pub fn refuse_packed(path: &Path) -> Result<(), Problem> {
    let mut head = [0; 512];
    let is_file = std::fs::metadata(path).is_ok_and(|meta| meta.is_file());
    let Some(len) = is_file.then(|| File::open(path).and_then(|file| file.read_at(&mut head, 0))).and_then(Result::ok)
    else {
        return Ok(());
    };
    let is_boot = len == head.len() && head[510..] == [0x55, 0xAA];
    let form = FORMS.iter().find(|(mark, ..)| head[..len].starts_with(mark)).filter(|_| !is_boot);
    let Some((_, form, command)) = form else { return Ok(()) };
    let name = path.display().to_string();
    let out = match path.extension() {
        Some(end) if ["gz", "zst", "xz", "bz2"].iter().any(|one| end == *one) => path.with_extension(""),
        _ => path.with_extension("img"),
    };
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
    let command = command.replace("IN", &quoted(&name)).replace("OUT", &quoted(&out.display().to_string()));
    let problem = Problem::new(Kind::Usage, format!("holds an image as {form}, and only raw ones are read"));
    Err(problem.drive(name).advice(format!("unpack it first: {command}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footer(size: u64, kind: u32) -> [u8; FOOTER] {
        let mut footer = [0; FOOTER];
        footer[..8].copy_from_slice(b"conectix");
        footer[48..56].copy_from_slice(&size.to_be_bytes());
        footer[60..64].copy_from_slice(&kind.to_be_bytes());
        let sum: u32 = footer.iter().map(|byte| u32::from(*byte)).sum();
        footer[64..68].copy_from_slice(&(!sum).to_be_bytes());
        footer
    }

    #[test]
    fn only_a_whole_footer_of_a_fixed_disk_counts() {
        assert!(is_fixed(&footer(1 << 20, 2), 1 << 20));
        assert!(!is_fixed(&footer(1 << 20, 3), 1 << 20), "a dynamic one");
        assert!(!is_fixed(&footer(1 << 20, 2), (1 << 20) + 512), "of another length");
        let mut changed = footer(1 << 20, 2);
        changed[70] ^= 1;
        assert!(!is_fixed(&changed, 1 << 20), "with another sum");
        assert!(!is_fixed(&[0; FOOTER], 0));
    }
}
