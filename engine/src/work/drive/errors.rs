//! Failures of a drive's sources and side files as problems for the user; those of the drive itself are in
//! [`crate::stream::failures`].

use super::Drive;
use crate::plan::batches::Phase;
use crate::report::{Advice, Kind, Problem, Setting};
use crate::stream::failures::Outlook;

/// What a drive that is being formatted has to offer after a failure.
pub fn outlook_of_format() -> Outlook {
    Outlook { meanwhile: "the drive holds no finished volume", instead: "replace the drive".into() }
}

/// The same of a drive whose volume stays.
pub fn outlook_of_copy() -> Outlook {
    Outlook::with_rollback("the volume is what it was before")
}

impl Drive<'_, '_> {
    /// State of the drive as long as it is not finished.
    pub(super) fn meanwhile(&self) -> &'static str {
        self.s.io.failures.outlook.as_ref().map_or("the drive is not finished", |outlook| outlook.meanwhile)
    }

    /// The failure of a whole source, or of a shortage that prevents reading any source.
    pub(super) fn source_gone(&self, problem: Problem) -> Problem {
        let problem = problem.drive(&self.s.name);
        match problem.kind {
            Kind::Source => problem
                .advice(Advice::from("attach it again and continue with ") + Setting::Resume + "; " + self.meanwhile()),
            _ => problem,
        }
    }

    pub(super) fn sidecar(&self, error: &std::io::Error) -> Problem {
        Problem::new(Kind::Environment, format!("the files next to the journal cannot be written: {error}"))
            .drive(&self.s.name)
            .path(&self.s.beside)
            .advice(Advice::from("make room on the journal's disk, then continue with ") + Setting::Resume)
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
