//! What `cargo bench` measures ours against: see `benches/`.

pub mod peers;
