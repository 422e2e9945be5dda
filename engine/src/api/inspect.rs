//! Drives and images that are there: their tables, volumes, keys and files. Nothing is written.
//!
//! Begin with [`find::open`]; [`Found::unlock`] opens what is encrypted, by a [`Key`]; [`Files`] are what the volume holds.

pub use crate::bitlocker::read::{Form, Integrity, State};
pub use crate::gpt::read::CopyState;
pub use crate::ntfs::read::{BackupBoot, Facts, FileId, LogState};
pub use crate::volume::decrypt::{self, Decrypted, StreamOut, To};
pub use crate::volume::files::{self, Files, Listed};
pub use crate::volume::find::{self, Found, Inside, Opened};
pub use crate::volume::key::{KEY_FILE_LEN_MAX, Key};
