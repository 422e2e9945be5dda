//! A storage account as the source of drives, as their destination, and held against them.
//!
//! [`prepare_export`] plans drives that are filled from an account, which is read through [`Contents`]. A [`Sink`] takes what a
//! drive holds. [`audit`] says whether an account has what was sent. Requests to the account are the caller's: the engine
//! does not know the network.

pub use crate::azure::bloblist::{self, BlobList, Inventory, Selection};
pub use crate::azure::manifest::{Pieces, nonzero_runs};
pub use crate::plan::account::{Exported, ExportedBlob, ExportedFile, ExportedKind, OwnBlocks};
pub use crate::plan::export;
pub use crate::session::prepare::{Listed as ListedBlobs, prepare_export};
pub use crate::stream::contents::{Contents, Unread};
pub use crate::verify::audit::{self, Audit, Audited, Finding, Proof, Reading, There};
pub use crate::verify::deliver::{self, Act, Bytes, Deliver, Delivery, Sink};
pub use crate::work::exported::{self, KeptBlob};
