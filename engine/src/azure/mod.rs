//! Microsoft's files: dataset and driveset CSV, manifest, journal, drive record, properties and metadata.
