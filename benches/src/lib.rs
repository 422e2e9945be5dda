//! Peers that `cargo bench` measures this project's kernels against: see `benches/`.

pub mod peers;
