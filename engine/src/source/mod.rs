//! Source trees: the walk, the facts of each file, and where those are not to be trusted.

pub mod odd;
pub mod walk;
