//! The layout of a session's drives, as its plan file keeps it.

use std::path::PathBuf;
use std::sync::Arc;

use crate::plan::account::Exported;
use crate::plan::tree::{Md5Text, MetadataFrom, PropertyFile};
use crate::request::{PrepRequest, Table, WindowsDrive};
use crate::source::select::Selection;
use crate::units::FileTime;
use crate::verify::index::IndexRow;
use crate::work::manifest::RowRules;
use crate::work::target::TargetDrive;

/// Options of the layout that are common to all drives of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Id of the session.
    pub session: String,
    /// Cipher, by the command line's name.
    pub cipher: String,
    /// Bytes in a cluster; `None` chooses as Windows does.
    pub cluster_size: Option<u64>,
    /// Kind of partition table.
    pub table: Table,
    /// Zeros over the free space.
    pub wipe_free: bool,
    /// Whether the drive record gets a header hash.
    pub drive_header_hash: bool,
    /// Directory of the key files; `None` without them.
    pub external_key: Option<PathBuf>,
    /// Time of formatting.
    pub formatted: FileTime,
    /// Metadata and properties files, in the order of their directory.
    pub properties: Vec<PropertyFile>,
    /// Settings of each row of the dataset for its blobs.
    pub rows: Vec<RowRules>,
    /// For each row, if blobs get a properties file each that sets `Content-MD5`; otherwise empty.
    pub md5_texts: Vec<Md5Text>,
    /// Label and keys of a drive for Windows, without the secrets; `None` for drives for the service.
    pub windows: Option<WindowsDrive>,
    /// Selection of the sources' files.
    pub selection: Selection,
    /// Files are spread evenly, not over as few drives as hold them.
    pub spread_evenly: bool,
    /// Path of the list of all files.
    pub list: Option<PathBuf>,
    /// Blobs get the types of their names.
    pub guesses_type: bool,
    /// Facts of its source that each blob gets as metadata.
    pub metadata: MetadataFrom,
    /// The account's facts about each file, if the session is an export.
    pub exported: Option<Arc<Exported>>,
}

impl Recipe {
    /// For a drive whose files are indexed: nothing is laid out.
    pub fn of_index(request: &PrepRequest, formatted: FileTime) -> Self {
        Self {
            session: request.session.clone(),
            cipher: request.cipher.clone(),
            cluster_size: None,
            table: request.table,
            wipe_free: false,
            drive_header_hash: request.drive_header_hash,
            external_key: None,
            formatted,
            rows: Vec::new(),
            md5_texts: Vec::new(),
            properties: Vec::new(),
            windows: None,
            selection: request.selection.clone(),
            spread_evenly: false,
            guesses_type: false,
            metadata: MetadataFrom::default(),
            list: None,
            exported: None,
        }
    }

    /// Whether the fifth section is written: some setting of it is in use.
    pub fn has_more(&self) -> bool {
        let selection = Selection { ignore_files: Vec::new(), ..self.selection.clone() };
        selection != Selection::default() || self.spread_evenly || self.guesses_type || self.list.is_some()
    }
}

/// A drive and its files. Saved only after consent, where that is needed; the drive counts as consented when it is
/// read.
#[derive(Clone, Debug)]
pub struct SavedDrive {
    /// The drive, as it was found when it was planned.
    pub target: TargetDrive,
    /// Seed of its public randomness.
    pub seed: u64,
    /// Its files, ascending.
    pub assigned: Vec<u32>,
    /// Rows of an index, in place of files.
    pub rows: Vec<IndexRow>,
}
