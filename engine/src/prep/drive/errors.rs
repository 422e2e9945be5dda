//! What went wrong, for people.

use super::Drive;
use crate::io;
use crate::plan::batches::Phase;
use crate::report::{Kind, Problem};

impl Drive<'_, '_> {
    pub(super) fn write_failed(&self, error: &io::WriteError, what: &str) -> Problem {
        Problem::new(Kind::Drive, format!("writing failed ({what}): {}", error.source))
            .drive(&self.s.name)
            .at(error.at)
            .advice("the drive holds no finished volume; check cable and drive (smartctl -a), then go on with --resume, or replace it")
    }

    pub(super) fn flush_failed(&self, error: &std::io::Error) -> Problem {
        Problem::new(Kind::Drive, format!("the drive did not make its data durable: {error}"))
            .drive(&self.s.name)
            .advice("nothing since the last flush can be trusted; go on with --resume, or replace the drive")
    }

    pub(super) fn broken(&self, error: &std::io::Error) -> Problem {
        Problem::new(Kind::Environment, format!("the I/O engine stopped working: {error}"))
            .drive(&self.s.name)
            .advice("try again with --engine sync")
    }

    pub(super) fn sidecar(&self, error: &std::io::Error) -> Problem {
        Problem::new(Kind::Environment, format!("the files beside the journal cannot be written: {error}"))
            .drive(&self.s.name)
            .advice("make room on the journal's disk, then go on with --resume")
    }
}

pub(super) fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Data => "file data",
        Phase::Metadata => "file system metadata",
        Phase::FreeSpace => "free space",
        Phase::Last => "system records",
        Phase::Front => "first sector of the volume",
        Phase::Tables => "partition tables",
    }
}
