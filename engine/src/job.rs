//! The façade: what the command line may use of the pipelines.

pub use crate::bench::{Bench, BenchReport, BenchRequest, Direction, Point};
pub use crate::crypt::Cipher;
pub use crate::prep::request::{Action, EngineChoice, PrepRequest, ReadBack, Table};
pub use crate::prep::session::{Prepared, prepare};
pub use crate::report::Stop;
