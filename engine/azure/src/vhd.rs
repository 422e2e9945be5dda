//! Recognises the kind of a page blob that is named like a disk: only a fixed VHD becomes a disk of a virtual machine
//! (docs/spec/import-export.md#disk-images).

/// Bytes that tell: the first and the last of a file.
pub const LOOK_LEN: usize = 512;

const VHD_COOKIE: &[u8] = b"conectix";
const VHDX_COOKIE: &[u8] = b"vhdxfile";
/// Size of the disk, and its kind, in a footer; big-endian.
const SIZE_AT: usize = 48;
const KIND_AT: usize = 60;
const FIXED: u32 = 2;
const DYNAMIC: u32 = 3;
const DIFFERENCING: u32 = 4;

/// Reason why Azure does not accept a file as a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoDisk {
    /// The newer format of Hyper-V.
    #[error("is a VHDX, which no virtual machine in Azure takes as a disk")]
    Vhdx,
    /// It grows as it is written.
    #[error("is a dynamic VHD, which no virtual machine in Azure takes as a disk")]
    Dynamic,
    /// It holds what differs from another.
    #[error("is a differencing VHD, which is nothing without its parent")]
    Differencing,
    /// The last sector is no footer.
    #[error("has no VHD footer, so no virtual machine in Azure takes it as a disk")]
    NoFooter,
    /// The footer tells of another disk than the file holds.
    #[error("has a VHD footer for a disk of {said} bytes, and holds {found}")]
    Size {
        /// Value in the footer.
        said: u64,
        /// The file without its footer.
        found: u64,
    },
}

impl NoDisk {
    /// Advice, as a sentence without full stop.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::NoFooter => {
                "if it is meant to be one, make a fixed VHD of it (qemu-img convert -O vpc -o subformat=fixed,force_size)"
            }
            Self::Size { .. } => "copy the image again: it is cut off, or was made longer",
            _ => "make a fixed VHD of it (qemu-img convert -O vpc -o subformat=fixed,force_size)",
        }
    }
}

/// Whether a file of `len` bytes with these ends is a fixed VHD.
///
/// # Errors
/// Its actual kind.
pub fn check(first: &[u8], last: &[u8], len: u64) -> Result<(), NoDisk> {
    if first.starts_with(VHDX_COOKIE) {
        return Err(NoDisk::Vhdx);
    }
    if !last.starts_with(VHD_COOKIE) || last.len() < LOOK_LEN {
        // A dynamic one begins with a copy of its footer, which may be all that is left.
        return Err(if first.starts_with(VHD_COOKIE) { NoDisk::Dynamic } else { NoDisk::NoFooter });
    }
    let kind = last[KIND_AT..].first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
    let said = last[SIZE_AT..].first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    match kind {
        FIXED if said == len - LOOK_LEN as u64 => Ok(()),
        FIXED => Err(NoDisk::Size { said, found: len - LOOK_LEN as u64 }),
        DYNAMIC => Err(NoDisk::Dynamic),
        DIFFERENCING => Err(NoDisk::Differencing),
        _ => Err(NoDisk::NoFooter),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footer(kind: u32, size: u64) -> Vec<u8> {
        let mut footer = vec![0; LOOK_LEN];
        footer[..8].copy_from_slice(VHD_COOKIE);
        footer[SIZE_AT..SIZE_AT + 8].copy_from_slice(&size.to_be_bytes());
        footer[KIND_AT..KIND_AT + 4].copy_from_slice(&kind.to_be_bytes());
        footer
    }

    #[test]
    fn only_a_fixed_vhd_is_a_disk() {
        let zeros = vec![0; LOOK_LEN];
        let len = (1 << 20) + 512;
        assert_eq!(check(&zeros, &footer(FIXED, 1 << 20), len), Ok(()));
        let other = Err(NoDisk::Size { said: 1 << 19, found: 1 << 20 });
        assert_eq!(check(&zeros, &footer(FIXED, 1 << 19), len), other);
        assert_eq!(check(&footer(DYNAMIC, 9), &footer(DYNAMIC, 9), len), Err(NoDisk::Dynamic));
        assert_eq!(check(&footer(DYNAMIC, 9), &zeros, len), Err(NoDisk::Dynamic));
        assert_eq!(check(&zeros, &footer(DIFFERENCING, 9), len), Err(NoDisk::Differencing));
        assert_eq!(check(&zeros, &zeros, len), Err(NoDisk::NoFooter));
        assert_eq!(check(&zeros, &footer(9, 9), len), Err(NoDisk::NoFooter));
        assert_eq!(check(b"vhdxfile", &zeros, len), Err(NoDisk::Vhdx));
        assert_eq!(check(b"", b"conectix", 8), Err(NoDisk::NoFooter));
    }
}
