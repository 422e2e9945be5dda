//! Text of `--version`.

use std::sync::OnceLock;

/// Version and commit, on one line.
pub const SHORT: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("DRAY_BUILT_FROM"), ")");

/// Version, commit, and the processor features used by the kernels.
pub fn long() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        format!(
            "{SHORT}\nbuilt by {} for {}\nthis CPU: {}",
            env!("DRAY_BUILT_BY"),
            env!("DRAY_BUILT_FOR"),
            features().join(" ")
        )
    })
}

#[cfg(target_arch = "x86_64")]
fn features() -> Vec<&'static str> {
    let all = [
        ("aes", is_x86_feature_detected!("aes")),
        ("vaes", is_x86_feature_detected!("vaes")),
        ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
        ("vpclmulqdq", is_x86_feature_detected!("vpclmulqdq")),
        ("sse4.2", is_x86_feature_detected!("sse4.2")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("sha", is_x86_feature_detected!("sha")),
    ];
    some(all.into_iter())
}

#[cfg(not(target_arch = "x86_64"))]
fn features() -> Vec<&'static str> {
    some([("aes (not asked)", false)].into_iter())
}

fn some(all: impl Iterator<Item = (&'static str, bool)>) -> Vec<&'static str> {
    let there: Vec<&str> = all.filter(|(_, there)| *there).map(|(name, _)| name).collect();
    if there.is_empty() { vec!["no feature that dray looks for"] } else { there }
}
