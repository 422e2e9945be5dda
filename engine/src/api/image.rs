//! Whole drives and images: written, acquired, compared, erased, repaired.
//!
//! Each of the modules has a request, what it found before it began, and a result.

pub use crate::image::compare::Compared;
pub use crate::image::target::{Target, twice as named_twice};
pub use crate::image::{acquire, compare, erase, map, ranges, repair, write};
