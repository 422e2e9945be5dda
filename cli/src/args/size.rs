//! Sizes on the command line.

use dray_engine::api::prepare::parse_size;
use dray_engine::units::{ClusterSize, SectorSize};

/// A cluster size: bytes, or with `K`/`M` in powers of two, as `format.com` writes them.
///
/// # Errors
/// The accepted form.
pub fn cluster(text: &str) -> Result<u64, String> {
    binary(text)
        .and_then(ClusterSize::from_bytes)
        .map(ClusterSize::bytes)
        .ok_or_else(|| "use a power of two from 512 to 2M, for example 4096, 64K or 2M".into())
}

/// A logical sector size.
///
/// # Errors
/// The accepted values.
pub fn sector(text: &str) -> Result<u64, String> {
    binary(text).and_then(SectorSize::from_bytes).map(SectorSize::bytes).ok_or_else(|| "use 512 or 4096".into())
}

/// The longest request to a drive.
///
/// # Errors
/// The accepted values.
pub fn request(text: &str) -> Result<u64, String> {
    let size = binary(text).filter(|&size| size % 4096 == 0 && (16 << 10..=4 << 20).contains(&size));
    size.ok_or_else(|| "use a multiple of 4096 from 16K to 4M, for example 1M".into())
}

/// Bytes a second.
///
/// # Errors
/// The accepted form.
pub fn rate(text: &str) -> Result<u64, String> {
    let text = text.trim().to_ascii_lowercase();
    // Decimal, as rates are shown; a power of two has an i.
    let rate =
        parse_size(text.strip_suffix("/s").unwrap_or(&text)).map(|rate| rate.0).filter(|&rate| rate >= 1_000_000);
    rate.ok_or_else(|| "use at least 1M, for example 200M (200 MB), 200MiB or 1G".into())
}

/// A block size for measuring.
///
/// # Errors
/// The accepted form.
pub fn block(text: &str) -> Result<usize, String> {
    let size = binary(text).and_then(|size| usize::try_from(size).ok()).filter(|&size| size > 0 && size % 4096 == 0);
    size.ok_or_else(|| "use a multiple of 4096, for example 64K or 4M".into())
}

fn binary(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match lower[digits.len()..].trim_start() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_sizes_are_read_as_people_write_them() {
        for (text, bytes) in
            [("512", 512), ("4096", 4096), ("4k", 4096), ("64K", 65536), ("64 KiB", 65536), ("2M", 2 << 20)]
        {
            assert_eq!(cluster(text), Ok(bytes), "{text}");
        }
        for text in ["", "K", "3K", "4M", "256", "-4096", "4G", "18446744073709551615K"] {
            assert!(cluster(text).is_err(), "{text}");
        }
        assert_eq!(sector("4K"), Ok(4096));
        assert!(sector("1024").is_err());
        assert_eq!((rate("200M"), rate("1 GiB/s"), rate("200MiB")), (Ok(200_000_000), Ok(1 << 30), Ok(200 << 20)));
        assert!(rate("1000").is_err() && rate("fast").is_err());
    }
}
