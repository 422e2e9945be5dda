//! Names of blobs that are uploaded under another than their own.

/// Most numbers that are tried.
pub(crate) const NUMBER_MAX: u32 = 10_000;

/// The name with ` (number)` before its last dot, or at its end where it has none; 1 is the name itself
/// (docs/spec/import-export.md#manifest-grammar). Only what stands behind the last slash is the name.
pub(crate) fn numbered(name: &str, number: u32) -> String {
    if number <= 1 {
        return name.to_owned();
    }
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let at = name[last..].rfind('.').map_or(name.len(), |dot| last + dot);
    format!("{} ({number}){}", &name[..at], &name[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_stands_before_the_last_dot() {
        for (name, number, wanted) in [
            ("Seattle.jpg", 2, "Seattle (2).jpg"),
            ("BlobNameWithoutDot", 2, "BlobNameWithoutDot (2)"),
            ("a.b/c", 3, "a.b/c (3)"),
            ("a.b/c.tar.gz", 12, "a.b/c.tar (12).gz"),
            (".hidden", 2, " (2).hidden"),
            ("x", 1, "x"),
        ] {
            assert_eq!(numbered(name, number), wanted);
        }
    }
}
