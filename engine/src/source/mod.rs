//! Source trees: the walk, and the facts of each file.

pub mod walk;
