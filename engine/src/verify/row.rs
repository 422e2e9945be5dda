//! What became of each blob, and how many of each kind.

/// Verdict on a file, a block or a page range. In ascending severity: the worst of several counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// As in the manifest.
    #[default]
    Equal,
    /// The drive holds a file that is not in the manifest.
    NotInManifest,
    /// The manifest gives no hash to compare with.
    NoReference,
    /// Readable, and different from the manifest.
    Different,
    /// The drive cannot be read here.
    Unreadable,
    /// The manifest lists a file that is not on the drive.
    Missing,
}

impl Verdict {
    /// The word in reports.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::NotInManifest => "not in the manifest",
            Self::NoReference => "no reference",
            Self::Different => "different",
            Self::Unreadable => "unreadable",
            Self::Missing => "missing",
        }
    }

    /// Whether it counts against a blob. A file outside the manifest is no blob.
    pub const fn is_against(self) -> bool {
        !matches!(self, Self::Equal | Self::NotInManifest)
    }
}

/// A blob, or a file that is not in the manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// The worst of its blocks, metadata and properties.
    pub verdict: Verdict,
    /// `container/name`; `None` for a file that is not in the manifest.
    pub blob: Option<String>,
    /// Snapshot, on exports.
    pub snapshot: Option<String>,
    /// Path on the drive, with `\`.
    pub file: String,
    /// Length in bytes by the manifest, or else of the file.
    pub length: u64,
    /// Number of blocks or page ranges.
    pub pieces: u64,
    /// Pieces that are not equal, and other remarks, one sentence each.
    pub notes: Vec<String>,
    /// Verdict on its metadata file.
    pub metadata: Option<Verdict>,
    /// Verdict on its properties file.
    pub properties: Option<Verdict>,
    /// Result reported by the service, if a copy log lists it.
    pub service: Option<String>,
    /// That result in brief; `None` without copy logs of the drive, or without an entry in them.
    pub taken: Option<Taken>,
    /// Whether its bytes were read by an earlier, interrupted run and not by this one.
    pub earlier: bool,
    /// Path of the extracted file, below the directory.
    pub extracted: Option<String>,
    /// Whether that file has changed since its extraction.
    pub changed: bool,
}

/// Number of rows of each verdict, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows and bytes that are equal.
    pub equal: (u64, u64),
    /// Rows and bytes with contents that differ from the manifest.
    pub different: (u64, u64),
    /// Rows and bytes that the drive or its file system did not return.
    pub unreadable: (u64, u64),
    /// Rows and bytes of files that are not on the drive.
    pub missing: (u64, u64),
    /// Rows and bytes that the manifest gives no hash for.
    pub no_reference: (u64, u64),
    /// Rows and bytes of files that are not in the manifest.
    pub not_in_manifest: (u64, u64),
}

impl Counts {
    /// Counts a row.
    pub fn add(&mut self, row: &Row) {
        let entry = match row.verdict {
            Verdict::Equal => &mut self.equal,
            Verdict::NotInManifest => &mut self.not_in_manifest,
            Verdict::NoReference => &mut self.no_reference,
            Verdict::Different => &mut self.different,
            Verdict::Unreadable => &mut self.unreadable,
            Verdict::Missing => &mut self.missing,
        };
        entry.0 += 1;
        // A manifest may say any length.
        entry.1 = entry.1.saturating_add(row.length);
    }

    /// Each verdict, its rows and bytes, in the order of reports.
    pub const fn all(&self) -> [(Verdict, u64, u64); 6] {
        [
            (Verdict::Equal, self.equal.0, self.equal.1),
            (Verdict::Different, self.different.0, self.different.1),
            (Verdict::Unreadable, self.unreadable.0, self.unreadable.1),
            (Verdict::Missing, self.missing.0, self.missing.1),
            (Verdict::NoReference, self.no_reference.0, self.no_reference.1),
            (Verdict::NotInManifest, self.not_in_manifest.0, self.not_in_manifest.1),
        ]
    }

    /// Blobs of the manifest.
    pub const fn blobs(&self) -> u64 {
        self.equal.0 + self.different.0 + self.unreadable.0 + self.missing.0 + self.no_reference.0
    }
}

/// Result of a blob in the copy logs. In ascending severity: the worst of several counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Taken {
    /// Copied as it is on the drive.
    #[default]
    Same,
    /// Copied under another name.
    Renamed,
    /// Not copied, or not completely.
    Not,
    /// Copied with content different from the drive's.
    Other,
}

impl Taken {
    /// The word in reports.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Same => "taken",
            Self::Renamed => "taken under another name",
            Self::Not => "not taken",
            Self::Other => "something else was taken",
        }
    }
}
