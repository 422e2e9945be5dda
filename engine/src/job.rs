//! The façade of preparing: one request in, a checked plan out, then the run.

pub use crate::prep::request::{Action, EngineChoice, PrepRequest, ReadBack, Table};
pub use crate::prep::session::{Prepared, prepare};
pub use crate::report::Stop;
