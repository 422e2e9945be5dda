//! Devices, input and output files, and the clock.

pub use crate::device::guard::Context as GuardContext;
pub use crate::device::{Device, Discard, Geometry, Identity, Roots, Transport, Zoned};
pub use crate::files::input::{Pipes, open as open_input, read as read_input};
pub use crate::files::output::{Form as OutputForm, Output as OutputFile, Outputs};
pub use crate::surroundings::timestamp;
pub use crate::text::decode_text;
