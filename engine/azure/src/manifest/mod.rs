//! The drive manifest (docs/spec/import-export.md#drive-manifest): which blob each file becomes, and the hash of every
//! block.

mod ranges;
mod read;
mod stream;
mod write;

pub use ranges::{RUN_GRANULE, RUNS_MAX, nonzero_runs, runs_max};
pub use read::{Blob, BlobEnd, BlobStart, Event, ListHead, ManifestFault, Piece, Pieces, Reader, SideRef};
pub use stream::ManifestStream;
pub use write::{
    BlobFacts, Block, COUNTER_ID_LEN, Content, Layout, ListFacts, PageRange, SideFile, blob_close, blob_open,
    blob_xml_len, counter_id, footer, header, is_drive_id, list_close, list_open, write_blob, write_block,
    write_named_block, write_page_range,
};

#[cfg(test)]
mod tests;
