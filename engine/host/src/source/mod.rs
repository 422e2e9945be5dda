//! Source trees: the walk, which of it is meant, the facts of each file, and where those are not to be trusted.

pub mod odd;
pub mod select;
pub mod walk;
